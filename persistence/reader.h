/*
 * reader.h - a few threads for reads that may block, so that no worker does.
 *
 * A job's work runs on a reader thread, then its done on the worker it came from. Typed jobs for
 * entity recovery, repeats of commands and feeds stand on it.
 *
 * Threads: submit and done on the owning worker; work on a reader thread.
 * Memory:  the job is the caller's and is left alone between submit and done.
 * Limits:  PS_READS_MAX jobs wait, then RT_E_FULL.
 */
#ifndef PERSISTENCE_READER_H
#define PERSISTENCE_READER_H

#include "persistence/record.h"
#include "persistence/store.h"
#include "runtime/sched/worker.h"

#define PS_READS_MAX 65536u

struct ps_reader;

struct ps_job {
	struct rt_post post;
	struct rt_worker *worker;
	void (*work)(struct ps_job *job, struct ps_store *store);
	void (*done)(struct ps_job *job); /* on the worker */
	struct ps_job *next;
};

RT_NODISCARD rt_err ps_reader_start(struct ps_store *store, struct rt_system *system,
	uint32_t threads, struct ps_reader **out, struct rt_errinfo *info);
void ps_reader_stop(struct ps_reader *reader); /* finishes queued jobs */
RT_NODISCARD rt_err ps_reader_submit(
	struct ps_reader *reader, struct rt_worker *worker, struct ps_job *job);

/* Loads an entity: the newest snapshot with seq <= upto_seq (when want_snapshot), then the records
 * after it, in pages of about max_bytes. Call again with from_seq = next_seq while `more`. */
struct ps_load {
	struct ps_job job;
	uint32_t shard;
	struct rt_bytes pid; /* borrowed until done */
	uint64_t from_seq;   /* 1 for all; raised to snapshot.seq + 1 when one is found */
	uint64_t upto_seq;   /* UINT64_MAX: all */
	bool want_snapshot;
	size_t max_bytes; /* 0: 1 MiB */
	/* results; ps_load_clear frees them */
	rt_err err;
	struct rt_errinfo info;
	bool has_snapshot;
	struct ps_snapshot snapshot;
	struct rt_bytes *records; /* encoded records in order */
	uint64_t *offsets;
	size_t record_count;
	bool more;
	uint64_t next_seq;
	uint8_t *memory; /* holds the records' bytes */
};
void ps_load_run(struct ps_load *load, struct ps_store *store); /* the work, callable directly */
void ps_load_clear(struct ps_load *load);

/* Looks a command id up and reads its record. found false: never seen (within the window). */
struct ps_lookup {
	struct ps_job job;
	uint32_t shard;
	uint8_t id_size;
	uint8_t id[PS_COMMAND_ID_MAX];
	uint64_t offset; /* in: non-zero when the offset is known already and only the record is
			    wanted */
	rt_err err;
	struct rt_errinfo info;
	bool found;
	struct rt_bytes record; /* malloc'd; ps_lookup_clear frees */
};
void ps_lookup_run(struct ps_lookup *lookup, struct ps_store *store);
void ps_lookup_clear(struct ps_lookup *lookup);

/* Reads a shard's records from..upto with a filter, for feeds. */
struct ps_scan {
	struct ps_job job;
	uint32_t shard;
	uint64_t from, upto; /* upto: the committed offset the reader may see */
	struct rt_bytes type, tag,
		pid;      /* size 0: any; type matches the part of the pid before '|' */
	size_t max_bytes; /* stop after this many bytes of matches; 0: 256 KiB */
	rt_err err;
	struct rt_errinfo info;
	struct rt_bytes *records;
	uint64_t *offsets;
	size_t record_count;
	uint64_t next; /* where to go on; upto + 1 when all was read */
	uint8_t *memory;
};
void ps_scan_run(struct ps_scan *scan, struct ps_store *store);
void ps_scan_clear(struct ps_scan *scan);

/* Empties logs to which nobody appends and of which nothing is being staged, beside the writer,
 * which goes on with the others: their records, all that is derived from them and what was staged
 * of them. The next record of each stands at offset 1. All are empty after a crash, or none: what
 * was begun is ended by the next open. A reader meanwhile is told what ps_store_append says of a
 * wipe. */
#define PS_ERASE_MAX 64u
struct ps_erase {
	struct ps_job job;
	uint32_t shards[PS_ERASE_MAX];
	uint32_t count;
	/* results */
	rt_err err; /* the store takes no more writes then */
	struct rt_errinfo info;
	bool had[PS_ERASE_MAX];                           /* there was something to erase */
	uint64_t first[PS_ERASE_MAX], last[PS_ERASE_MAX]; /* of what was erased */
};
void ps_erase_run(struct ps_erase *erase, struct ps_store *store); /* the work, callable directly */
/* On the worker that stages records of these shards, before it stages the next one. */
void ps_erase_done(const struct ps_erase *erase, struct ps_store *store);

#endif
