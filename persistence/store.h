/*
 * store.h - the RocksDB database of one node: families log, index, dedupe, tags, snapshots, meta.
 *
 * The log family is the replicated log, the event store and the feed at once: key (shard, offset),
 * value one record (record.h). Rows are readable before they are durable, so whoever reads near the
 * end passes the committed offset it may see as a limit.
 *
 * Threads:    open and close alone; the write calls on the writer thread only (writer.h); reads,
 * and ps_erase_run for logs that nobody writes, on any thread that may block (reader.h), never on a
 * worker. Durability: what ps_store_sync returned RT_OK for survives a power cut. After any other
 * code the fate of everything since the last good sync is unknown: the handle refuses further
 *             writes (RT_E_CLOSED), close and open again.
 * Failure:    damage is RT_E_CORRUPT with the file named in the detail; never a short result.
 */
#ifndef PERSISTENCE_STORE_H
#define PERSISTENCE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

struct ps_store;

/* A repeated command is recognized while its record is among the last this many of its shard. */
#define PS_DEDUPE_WINDOW 1048576u

struct ps_store_options {
	const char *dir;
	bool create;                /* make a new store when dir holds none */
	uint32_t shard_count;       /* for a new store, 0 is 64; an existing one must agree or 0 */
	uint64_t block_cache_bytes; /* 0: 64 MiB */
	uint64_t free_space_low_bytes; /* refuse proposals below this much free disk; 0: 256 MiB */
	bool leave_tail; /* records above the index watermark may be uncommitted: leave them without
			  * rows; whoever learns that they are committed runs catchup.h */
};

/* Opens, replays, rebuilds index and dedupe rows above the index watermark. RT_E_NOTFOUND: no
 * store there and create is false. RT_E_CORRUPT names the file. RT_E_VERSION: a format this build
 * does not know. RT_E_FENCED: another process has it open. Progress goes to the log. */
RT_NODISCARD rt_err ps_store_open(
	const struct ps_store_options *options, struct ps_store **out, struct rt_errinfo *info);
/* Flushes memtables, so that the next open replays no WAL. NULL is a no-op. */
void ps_store_close(struct ps_store *store);

uint32_t ps_store_shard_count(const struct ps_store *store);
/* Logs in it, shard_count + 1: index shard_count is the log of the cluster itself. Whatever takes a
 * shard here takes that index too. A store made before there was one has it empty. */
uint32_t ps_store_log_count(const struct ps_store *store);
/* Random id made when the store was created, printable. */
const char *ps_store_id(const struct ps_store *store);
/* First offset still in the log of a shard (1 for an untrimmed one) and the last one found at
 * open (first - 1 when empty). Valid until the first write. */
uint64_t ps_store_first_offset(const struct ps_store *store, uint32_t shard);
uint64_t ps_store_last_offset(const struct ps_store *store, uint32_t shard);
/* Last offset that a sync covered. Any thread. */
uint64_t ps_store_durable_offset(const struct ps_store *store, uint32_t shard);
/* True below free_space_low_bytes, looked at about once a second: refuse new commands. Any thread,
 * cheap. */
bool ps_store_space_low(const struct ps_store *store);
/* Every record at or below it has its index, dedupe and tag rows on disk. Any thread. */
uint64_t ps_store_index_watermark(const struct ps_store *store, uint32_t shard);

/* ---- the log: six functions behind which another engine could stand ---- */
enum ps_row_kind {
	PS_ROW_RECORD, /* the record at offset, which follows the shard's last one */
	PS_ROW_CUT,    /* deletes all records of the shard from offset on */
	PS_ROW_WIPE,   /* deletes all records and all that is derived from them; the log is empty
			* and its first record will stand at offset */
	PS_ROW_DROPPED /* not written; in rounds only */
};
struct ps_log_row {
	uint32_t shard;
	enum ps_row_kind kind;
	uint64_t offset;
	struct rt_bytes record;
};
/* A small row of the meta family written in the same synced batch (term, vote, floor...). */
struct ps_meta_row {
	struct rt_bytes key, value;
};
/* Writer thread. Rows sorted by shard and, within one, in the order in which they apply: records,
 * cuts and wipes of a shard may alternate, and last and durable are right for the outcome when it
 * returns. All rows and meta rows are there after a crash, or none. Not durable before
 * ps_store_sync, but with a wipe among them all of them are, and a flush of the log's memtable was
 * waited for. RT_E_INVAL: a cut would take what is indexed and thereby committed; nothing was
 * written. A reader that runs meanwhile sees the log of before or of after, never a gap; a load by
 * index rows of a shard that is being wiped may answer RT_E_CORRUPT. */
RT_NODISCARD rt_err ps_store_append(struct ps_store *store, const struct ps_log_row *rows,
	size_t row_count, const struct ps_meta_row *meta, size_t meta_count,
	struct rt_errinfo *info);
RT_NODISCARD rt_err ps_store_sync(struct ps_store *store, struct rt_errinfo *info);
/* A single PS_ROW_CUT. */
RT_NODISCARD rt_err ps_store_truncate_tail(
	struct ps_store *store, uint32_t shard, uint64_t from, struct rt_errinfo *info);
RT_NODISCARD rt_err ps_store_truncate_front(
	struct ps_store *store, uint32_t shard, uint64_t before, struct rt_errinfo *info);
/* Hard-linked copy that opens as a store of its own. */
RT_NODISCARD rt_err ps_store_checkpoint(
	struct ps_store *store, const char *dir, struct rt_errinfo *info);

/* Reads records of one shard in order, from..upto inclusive. The visitor returns false to stop.
 * The bytes are borrowed for the call. RT_E_CORRUPT also when an offset is missing in between. */
typedef bool ps_visit_fn(void *arg, uint64_t offset, struct rt_bytes record);
RT_NODISCARD rt_err ps_store_read(struct ps_store *store, uint32_t shard, uint64_t from,
	uint64_t upto, ps_visit_fn *visit, void *arg, struct rt_errinfo *info);
/* One record, copied to malloc'd memory that the caller frees. RT_E_NOTFOUND. */
RT_NODISCARD rt_err ps_store_get(struct ps_store *store, uint32_t shard, uint64_t offset,
	struct rt_bytes *out, struct rt_errinfo *info);

/* A hash chained over offset and bytes of each record, to compare the copies of a log: the same
 * first and last and the same bytes give the same hash, on any machine. */
struct ps_log_hash {
	uint64_t first, last; /* last < first: no record */
	uint64_t hash;
};
/* From the log's first record to upto or the last durable one. Reads them all, so on a reader
 * thread. A log that is cut or wiped meanwhile: what was read until then, or RT_E_NOTFOUND. */
RT_NODISCARD rt_err ps_store_hash(struct ps_store *store, uint32_t shard, uint64_t upto,
	struct ps_log_hash *out, struct rt_errinfo *info);

/* ---- what is derived from the log ---- */
struct ps_offsets {
	uint64_t *at; /* malloc'd */
	size_t count, max;
};
/* Offsets, ascending, of the records of one entity that hold events >= from_seq; at most max.
 * malloc'd array. Only what is at or below the index watermark. */
RT_NODISCARD rt_err ps_store_index(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	uint64_t from_seq, size_t max, uint64_t **out_offsets, size_t *out_count,
	struct rt_errinfo *info);
/* Hash of a command id, 48 bits. The dedupe family is keyed by it and a filter of known ids in
 * memory should be too. Equal hashes of different ids cost a read, never a wrong answer. */
uint64_t ps_dedupe_hash(struct rt_bytes id);
/* Visits the hash and offset of every id of a shard within the window, in order of the hash: for
 * filling such a filter in the background after start. The visitor returns false to stop. */
typedef bool ps_visit_id_fn(void *arg, uint64_t hash, uint64_t offset);
RT_NODISCARD rt_err ps_store_dedupe_scan(struct ps_store *store, uint32_t shard,
	ps_visit_id_fn *visit, void *arg, struct rt_errinfo *info);
/* Offset of the record of a command id at or below the index watermark; the record was read and
 * compared. RT_E_NOTFOUND: never seen, or older than the window. */
RT_NODISCARD rt_err ps_store_dedupe(struct ps_store *store, uint32_t shard, struct rt_bytes id,
	uint64_t *out_offset, struct rt_errinfo *info);
/* Offsets, ascending, from..upto, of records that carry a tag, at most max. malloc'd array. Only
 * what is at or below the index watermark. */
RT_NODISCARD rt_err ps_store_tagged(struct ps_store *store, uint32_t shard, struct rt_bytes tag,
	uint64_t from, uint64_t upto, struct ps_offsets *out, struct rt_errinfo *info);
/* malloc'd value. Keys of callers do not begin with a NUL. RT_E_NOTFOUND. */
RT_NODISCARD rt_err ps_store_meta_get(
	struct ps_store *store, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info);

/* Snapshot of an entity: the state after event seq, whose record is at offset. Losing one costs
 * time only. get: malloc'd state, RT_E_NOTFOUND. upto_seq: the newest kept one with seq <= it. */
struct ps_snapshot {
	uint64_t seq, offset;
	uint32_t version; /* of the aggregate's snapshot format */
	struct rt_bytes state;
};
RT_NODISCARD rt_err ps_store_snapshot_get(struct ps_store *store, uint32_t shard,
	struct rt_bytes pid, uint64_t upto_seq, struct ps_snapshot *out, struct rt_errinfo *info);
RT_NODISCARD rt_err ps_store_snapshot_put(struct ps_store *store, uint32_t shard,
	struct rt_bytes pid, const struct ps_snapshot *snapshot, struct rt_errinfo *info);

/* Reads every family with checksums, checks record encoding, gapless offsets, sequence numbers per
 * entity and index rows against the log. progress may be NULL. Works on a store nobody has open. */
struct ps_verify_report {
	uint64_t records, events, entities, snapshots, problems;
};
RT_NODISCARD rt_err ps_store_verify(const char *dir, void (*progress)(void *arg, const char *line),
	void *arg, struct ps_verify_report *out, struct rt_errinfo *info);

/* Numbers for status pages. Any thread. */
struct ps_store_stats {
	uint64_t disk_bytes, memtable_bytes, block_cache_bytes, free_space_bytes;
	uint64_t syncs, appended_records, appended_bytes, index_backlog, index_chunks;
	bool failed; /* a write or sync failed; text says which */
	bool space_low;
	char failure[256];
};
void ps_store_stats(struct ps_store *store, struct ps_store_stats *out);

#endif
