/*
 * db.h - the store's RocksDB handle and what its files share. Private to this module.
 *
 * Threads: fields in three blocks: set at open; owned by the writer thread; atomics that any thread
 *          reads. RocksDB's own calls may be made on any thread.
 */
#ifndef PERSISTENCE_DB_H
#define PERSISTENCE_DB_H

#include <rocksdb/c.h>
#include <stdatomic.h>
#include <uv.h>

#include "persistence/highwater.h"
#include "persistence/key.h"
#include "persistence/store.h"

enum ps_family {
	PS_DEFAULT,
	PS_LOG,
	PS_INDEX,
	PS_DEDUPE,
	PS_TAGS,
	PS_SNAPSHOTS,
	PS_META,
	PS_FAMILIES,
};

/* One shard's positions. Each is written by one thread: first, last and durable by the writer,
 * watermark by the indexer (and by the writer in a wipe, under `indexing`); all of them by a reader
 * thread while it erases the log, of which the others have nothing then. Readers pair their
 * acquire with the writer's release, so that what a position promises is visible with it. */
struct ps_shard {
	_Atomic uint64_t first;     /* first offset in the log */
	_Atomic uint64_t last;      /* last written; may not be durable yet */
	_Atomic uint64_t durable;   /* last synced */
	_Atomic uint64_t watermark; /* last indexed */
	uint64_t chunk_end; /* `indexing`: a chunk reached to here and a crash may have left rows of
			     * it above the watermark; 0: none */
	_Atomic uint64_t cuts;  /* odd while rows are being taken from the log */
	_Atomic uint32_t wipes; /* written; what was staged with another number is of no more */
	uint32_t wipes_done;    /* the shard's worker: completed, numbers what it stages */
	bool dirty;             /* writer: written since the last sync */
};

/* What one batch makes of a shard's log. */
struct ps_run {
	uint32_t shard;
	uint32_t wipes;
	uint64_t first, last, watermark; /* as they will be */
	uint64_t low;                    /* how short cuts made it in between */
	bool cut;
	bool erase; /* rows of before a wipe have to go */
};

struct ps_store {
	/* Set at open. */
	rocksdb_t *db;
	rocksdb_column_family_handle_t *family[PS_FAMILIES];
	rocksdb_options_t *options[PS_FAMILIES];
	rocksdb_cache_t *cache;
	rocksdb_compactionfilter_t *filter;
	rocksdb_writeoptions_t *wal, *no_wal;
	rocksdb_readoptions_t *point;
	char *dir;           /* as given */
	char *db_dir;        /* dir/db */
	char *tmp_dir;       /* dir/tmp: table files on their way into db */
	char wal_names[200]; /* of the write-ahead logs found at open, before it replaced them */
	char id[33];
	uint32_t shard_count;
	uint32_t log_count; /* shard_count + 1 */
	uint64_t free_low;
	struct ps_shard *shards; /* log_count */
	struct ps_highwater *highwater;
	_Atomic bool loaded; /* shards is complete: RocksDB's threads may look */

	/* Writer thread. */
	rocksdb_writebatch_t *batch;
	uint32_t *dirty;
	uint32_t dirty_count;
	struct ps_run *runs; /* of the batch, by shard */
	uint32_t run_count;
	uint64_t highwater_syncs; /* indexer: store syncs that it covers */

	/* Any thread. */
	_Atomic bool failed;
	_Atomic bool space_low;
	_Atomic bool index_waits; /* for room on the disk: the writer does not wait for it */
	_Atomic uint64_t free_space;
	_Atomic uint64_t syncs, appended_records, appended_bytes;
	_Atomic uint64_t staged, indexed, chunks; /* records handed to and done by the indexer */
	_Atomic uint64_t file_number;             /* of table files in tmp_dir */
	uv_mutex_t lock;                          /* failure, and with room the waiting writer */
	uv_cond_t room;                           /* the backlog shrank or the store failed */
	rt_err failure_code;
	char failure[256];
	uv_mutex_t indexing; /* derived rows are being written or wiped */
};

/* Takes RocksDB's message (freed): NOSPACE, CORRUPT or IO with "what: message" as detail. */
rt_err ps_db_error(char *message, struct rt_errinfo *info, const char *what);
/* The same for a write: the store takes no more of them. */
rt_err ps_db_fail(struct ps_store *store, char *message, struct rt_errinfo *info, const char *what);
/* RT_OK, or RT_E_CLOSED once a write failed. */
rt_err ps_db_writable(struct ps_store *store, struct rt_errinfo *info);

/* Opens or creates the database in dir with all families; fills db, family, options, cache. */
rt_err ps_db_open(struct ps_store *store, const char *dir, bool create, uint64_t cache_bytes,
	struct rt_errinfo *info);
void ps_db_close(struct ps_store *store);
/* Flushes one family's memtable and waits. */
rt_err ps_db_flush(struct ps_store *store, enum ps_family family, struct rt_errinfo *info);

/* An iterator over keys in [lower, upper) of a family. */
struct ps_iter {
	rocksdb_iterator_t *it;
	rocksdb_readoptions_t *options;
	uint8_t lower[PS_KEY_NAMED + 1], upper[PS_KEY_NAMED + 1];
};
struct ps_range {
	struct rt_bytes lower, upper;
	bool total;       /* the range is wider than one prefix */
	size_t readahead; /* bytes; 0: RocksDB's own adaptive one, blocks go to the cache */
};
void ps_iter_init(struct ps_iter *iter, struct ps_store *store, enum ps_family family,
	const struct ps_range *range);
bool ps_iter_valid(const struct ps_iter *iter);
struct rt_bytes ps_iter_key(const struct ps_iter *iter);
struct rt_bytes ps_iter_value(const struct ps_iter *iter);
/* Destroys the iterator and says whether it ended for a reason other than its bounds. */
rt_err ps_iter_done(struct ps_iter *iter, struct rt_errinfo *info, const char *what);

/* The record of a command id, malloc'd. RT_E_NOTFOUND. */
struct ps_id {
	uint32_t shard;
	struct rt_bytes bytes;
};
struct ps_found {
	uint64_t offset;
	struct rt_bytes record;
};
rt_err ps_dedupe_find(struct ps_store *store, const struct ps_id *id, struct ps_found *out,
	struct rt_errinfo *info);

/* Ends a wipe whose batch is durable: the log keeps first..last only. Done again on open after a
 * crash. Whoever erases the log (struct ps_shard), with an empty batch of its own. */
rt_err ps_log_finish_wipe(struct ps_store *store, rocksdb_writebatch_t *batch, uint32_t shard,
	uint64_t first, uint64_t last, struct rt_errinfo *info);

void ps_store_update_space(struct ps_store *store);
uint64_t ps_store_backlog(const struct ps_store *store);

/* Meta rows of this module: floor is the first offset of a log, wipe is there from the batch with a
 * wipe to its end and holds the last offset that is valid. */
#define PS_META_STORE      "\0store"
#define PS_META_SHARD_SIZE 8u
static inline struct rt_bytes ps_meta_shard(
	uint8_t out[PS_META_SHARD_SIZE], const char name[6], uint32_t shard)
{
	memcpy(out, name, 6);
	ps_put_u16(out + 6, shard);
	return rt_bytes_of(out, PS_META_SHARD_SIZE);
}
#define PS_META_FLOOR "\0floor"
#define PS_META_WIPE  "\0wipe "

#endif
