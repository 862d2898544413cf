/*
 * status.h - what a node says of itself, as one JSON object. It goes from worker to worker, so that
 * each says what only it may look at.
 *
 * Threads: start on any; done on the last worker, which owns the text then.
 */
#ifndef SHARDING_STATUS_H
#define SHARDING_STATUS_H

#include "persistence/indexer.h"
#include "sharding/region.h"
#include "sharding/self.h"

struct sh_status_source {
	struct ps_store *store;
	struct rt_system *system;
	struct ps_indexer *indexer;
	struct sh_region **regions;
	_Atomic uint64_t *committed;
	_Atomic uint64_t *calls;
	_Atomic bool *failed;
	uint64_t opened_ns;
	uint32_t shard_count, worker_count;
	const struct sh_self *self;
};

/* The text is done's: it frees or keeps it. */
void sh_status_start(const struct sh_status_source *source,
	void (*done)(void *arg, struct pr_text *text), void *arg);

#endif
