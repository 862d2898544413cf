/*
 * mem.h - a store in memory behind the real interface of persistence/: what the whole-cluster
 * simulator links instead of RocksDB and of the writer's, the indexer's and the readers' threads.
 *
 * A disk outlives the processes that use it. A process opens it by its name (ps_store_options.dir)
 * and sees its own writes at once; a crash leaves what was synced and, by chance, whole rounds of
 * what was under way. Rows that the real store derives from the log are computed from the log here,
 * up to the watermark, which a crash takes back to where it was some chunks ago.
 *
 * Time:     everything happens in mem_disk_run at a virtual time; nothing in between.
 * Real:     the codec, keys, pages, loads, scans, lookups and the catch-up are those of the
 *           product; tests/clustersim/conform.c compares the rest with the real store.
 * Threads:  one.
 */
#ifndef TESTS_CLUSTERSIM_MEM_H
#define TESTS_CLUSTERSIM_MEM_H

#include "persistence/db.h"
#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/writer.h"
#include "runtime/base/random.h"

#define MEM_NEVER UINT64_MAX

/* How a disk behaves: microseconds, and shares in percent. */
struct mem_shape {
	uint32_t write_max, sync_min, sync_max;
	uint32_t slow_syncs, slow_max; /* so many syncs take up to this much longer */
	uint32_t late_news, late_max;  /* completions that reach the worker late */
	uint32_t survives;             /* of what was written and not synced, in a crash */
	uint32_t read_min, read_max, slow_reads, slow_read_max;
	uint32_t full_reads, bad_reads; /* refused as RT_E_FULL; failing */
	uint32_t chunk_us;              /* staged rows wait so long; 0: as the indexer does */
	bool keeps_rows;                /* a crash takes no derived rows back */
};

struct mem_disk;

struct mem_disk_options {
	const char *name;
	const uint64_t *now_us;
	struct rt_random *random;
	const struct mem_shape *shape; /* may change as time goes on */
};
struct mem_disk *mem_disk_new(const struct mem_disk_options *options);
void mem_disk_free(struct mem_disk *disk);

/* When the next thing happens, MEM_NEVER: nothing does. */
uint64_t mem_disk_next_us(const struct mem_disk *disk);
void mem_disk_run(struct mem_disk *disk); /* everything that is due */

/* The power goes: what its process writes from here on is in vain. Rounds and reads that are under
 * way come back with an error, so that the process can be taken apart in order (ps_writer_stop ...
 * ps_store_close). */
void mem_disk_crash(struct mem_disk *disk);
/* Forgets everything, as if the folder had been deleted. Closed. */
void mem_disk_erase(struct mem_disk *disk);
void mem_disk_stall(struct mem_disk *disk, uint64_t until_us);
enum mem_break {
	MEM_BREAK_WRITE, /* nothing of the next batch is there, or all of it is: nobody knows */
	MEM_BREAK_SYNC   /* readers see the next batch; a crash may take it */
};
/* The next batch fails, and the store with it, until it is opened again. */
void mem_disk_break(struct mem_disk *disk, enum mem_break how);
/* A batch or a read is under way. Not before it is over may the process end in order. */
bool mem_disk_busy(const struct mem_disk *disk);
bool mem_disk_broken(const struct mem_disk *disk);
bool mem_disk_failed(const struct mem_disk *disk);
void mem_disk_space_low(struct mem_disk *disk, bool low);

/* What a restart would find: for checks. NULL: no record there. */
uint64_t mem_disk_first(const struct mem_disk *disk, uint32_t shard);
uint64_t mem_disk_last(const struct mem_disk *disk, uint32_t shard);
struct rt_bytes mem_disk_record(const struct mem_disk *disk, uint32_t shard, uint64_t offset);
bool mem_disk_exists(const struct mem_disk *disk);
/* What the running process would read. */
struct rt_bytes mem_disk_written(const struct mem_disk *disk, uint32_t shard, uint64_t offset);

#endif
