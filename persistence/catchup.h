/*
 * catchup.h - gives records that an open left aside (ps_store_options.leave_tail) their rows, once
 * it is known that they are committed.
 *
 * Reads index watermark + 1 .. upto of one shard in pages on a reader thread, stages them on the
 * worker in order, and ends when their rows are on disk. An entity can be loaded from then on;
 * before it would miss its newest events.
 *
 * Threads: start and done on the worker that owns the shard.
 * Order:   nobody else stages records of the shard in between; those above upto follow done.
 * Memory:  the object is the caller's again with done. One page is in memory, and it waits while
 *          a chunk of records waits for the indexer.
 * Failure: a log that cannot be read. When the store fails meanwhile, or reader or indexer
 *          stop, done may never come.
 */
#ifndef PERSISTENCE_CATCHUP_H
#define PERSISTENCE_CATCHUP_H

#include "persistence/indexer.h"
#include "persistence/reader.h"

struct ps_catchup {
	/* Set before start. */
	struct ps_store *store;
	struct ps_reader *reader;
	struct ps_stage *stage; /* the worker's */
	struct rt_worker *worker;
	uint32_t shard;
	uint64_t upto; /* committed */
	/* RT_E_FENCED: the shard was wiped meanwhile. RT_E_CORRUPT: see scan.info. Never from
	 * inside start. */
	void (*done)(struct ps_catchup *catchup, rt_err err);
	void *arg;
	/* By the owner, on the worker, before the reader stops: no more pages are asked for. */
	bool stopped;
	/* Private. */
	struct ps_scan scan;
	struct ps_barrier barrier;
	uint32_t wipes;
	rt_err err;
};
void ps_catchup_start(struct ps_catchup *catchup);

#endif
