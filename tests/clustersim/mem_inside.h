/* mem_inside.h - what the sources of the store in memory share. Nobody else includes it. */
#ifndef TESTS_CLUSTERSIM_MEM_INSIDE_H
#define TESTS_CLUSTERSIM_MEM_INSIDE_H

#include "runtime/base/assert.h"
#include "tests/clustersim/mem.h"

struct mem_record {
	uint32_t refs, size;
	uint64_t pid_hash, id_hash;
	struct ps_record head; /* views of bytes */
	uint8_t bytes[];
};
/* The bytes are a record. */
struct mem_record *mem_record_new(struct rt_bytes bytes);
void mem_record_drop(struct mem_record *record);

struct mem_log { /* Records first..first+count-1; a reference to each. */
	struct mem_record **items;
	uint64_t first;
	uint32_t count, cap;
};
static inline uint64_t mem_log_last(const struct mem_log *log)
{
	return log->first + log->count - 1;
}
static inline struct mem_record *mem_log_at(const struct mem_log *log, uint64_t offset)
{
	return offset < log->first || offset - log->first >= log->count
		       ? NULL
		       : log->items[offset - log->first];
}
void mem_log_push(struct mem_log *log, struct mem_record *record);
void mem_log_cut(struct mem_log *log, uint64_t from);
void mem_log_wipe(struct mem_log *log, uint64_t first);
void mem_log_copy(struct mem_log *to, const struct mem_log *from);
void mem_log_done(struct mem_log *log);

struct mem_row {
	uint32_t key_size, size;
	uint8_t *bytes; /* key, value */
};
struct mem_rows {
	struct mem_row *items;
	uint32_t count, cap;
};
void mem_rows_put(struct mem_rows *rows, struct rt_bytes key, struct rt_bytes value);
bool mem_rows_get(const struct mem_rows *rows, struct rt_bytes key, struct rt_bytes *out);
void mem_rows_copy(struct mem_rows *to, const struct mem_rows *from);
void mem_rows_done(struct mem_rows *rows);

struct mem_snapshot {
	uint32_t shard, pid_size;
	uint64_t seq, offset;
	uint32_t version, size;
	uint8_t *bytes; /* pid, state */
};
struct mem_snapshots {
	struct mem_snapshot *items;
	uint32_t count, cap;
};
void mem_snapshots_put(struct mem_snapshots *list, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot);
/* Newest with seq <= upto_seq and offset <= last; NULL: none. */
const struct mem_snapshot *mem_snapshots_get(const struct mem_snapshots *list, uint32_t shard,
	struct rt_bytes pid, uint64_t upto_seq, uint64_t last);
void mem_snapshots_wipe(struct mem_snapshots *list, uint32_t shard);
void mem_snapshots_copy(struct mem_snapshots *to, const struct mem_snapshots *from);
void mem_snapshots_done(struct mem_snapshots *list);

/* What a round did, until it is in the image. */
struct mem_op {
	enum {
		MEM_OP_RECORD,
		MEM_OP_CUT,
		MEM_OP_WIPE,
		MEM_OP_META
	} kind;
	uint32_t round; /* number of the round within its batch */
	uint32_t shard;
	uint64_t offset;
	struct mem_record *record;
	struct mem_row row;
};
struct mem_ops {
	struct mem_op *items;
	uint32_t count, cap;
};

/* A change of a watermark that a crash may take back. */
struct mem_mark {
	uint32_t shard, chunk;
	uint64_t watermark;
};

enum mem_event_kind {
	MEM_EV_WRITE,
	MEM_EV_SYNC,
	MEM_EV_NEWS, /* posts reach their workers */
	MEM_EV_READ,
	MEM_EV_CHUNK
};
struct mem_event {
	uint64_t at, order;
	enum mem_event_kind kind;
	void *what;
};

struct mem_image { /* What survives. */
	struct mem_log *logs;
	uint64_t *watermarks;
	struct mem_rows meta;
	struct mem_snapshots snapshots;
};

struct mem_disk {
	struct mem_disk_options options;
	char name[64];
	char id[33];
	bool exists, space_low, broken;
	enum mem_break how;
	uint32_t shard_count, log_count;
	uint64_t stalled_until;
	struct mem_image image;
	struct mem_store *store; /* open */
};

struct mem_store {
	struct ps_store base; /* first: the catch-up looks into it */
	struct mem_disk *disk;
	bool crashed;
	struct mem_log *logs; /* as written */
	struct mem_rows meta;
	struct mem_snapshots snapshots;
	struct mem_ops unsynced;
	struct mem_mark *marks;
	uint32_t mark_count, mark_cap, chunk;
	struct ps_writer *writer;
	struct ps_reader *reader;
	struct ps_indexer *indexer;
	struct mem_event *heap;
	uint32_t heap_count, heap_cap;
	uint64_t event_order, news_at;
	uint32_t reads, news; /* under way */
};

static inline struct mem_store *mem_store_of(const struct ps_store *store)
{
	return (struct mem_store *)(uintptr_t)store;
}

uint64_t mem_now_us(const struct mem_disk *disk);
uint32_t mem_below(struct mem_disk *disk, uint32_t bound);
uint32_t mem_between(struct mem_disk *disk, uint32_t low, uint32_t high);
bool mem_chance(struct mem_disk *disk, uint32_t percent);
void mem_at(struct mem_store *store, uint64_t at, enum mem_event_kind kind, void *what);
/* A completion on its way to its worker; completions stay in order. */
void mem_news(struct mem_store *store, struct rt_worker *worker, struct rt_post *post);
void mem_store_fail(struct mem_store *store, const char *why);

void mem_ops_push(struct mem_ops *ops, const struct mem_op *op);
void mem_ops_done(struct mem_ops *ops);
/* Into the image, rounds below `rounds` only. */
void mem_image_apply(struct mem_disk *disk, struct mem_ops *ops, uint32_t rounds);

/* mem_writer.c */
void mem_writer_write(struct ps_writer *writer);
void mem_writer_synced(struct ps_writer *writer);
bool mem_writer_busy(const struct ps_writer *writer);
/* Everything under way comes back with an error. */
void mem_writer_crash(struct ps_writer *writer);
/* mem_reader.c */
void mem_reader_run(struct ps_reader *reader, struct ps_job *job);
/* mem_indexer.c */
void mem_indexer_run(struct ps_indexer *indexer);
void mem_watermark(struct mem_store *store, uint32_t shard, uint64_t watermark);
/* The shard was wiped: no crash brings them back. */
void mem_forget_marks(struct mem_store *store, uint32_t shard);

#endif
