/*
 * region.h - the shards of one worker: calls go in, proposals and answers come out.
 *
 * At the end of each loop turn the records that its entities wrote are proposed shard by shard and
 * submitted as one round; when the round is durable the replicas say what is committed, the records
 * go to the indexer and the held answers leave.
 *
 * Threads: open and free before the workers run or after they stopped; everything else on the
 * worker.
 */
#ifndef SHARDING_REGION_H
#define SHARDING_REGION_H

#include <stdatomic.h>

#include "actors/shard.h"
#include "sharding/replica.h"

struct sh_region;

struct sh_region_options {
	struct ac_host host; /* template: worker, registry, store, writer, ... */
	uint32_t shard_count, worker_count;
	_Atomic uint64_t *committed; /* of every shard of the node; the region writes its own */
	/* A write failed: once per region, on the worker. */
	void (*failed)(void *arg, rt_err err);
	/* Something was committed. */
	void (*progressed)(void *arg);
	void *arg;
};

RT_NODISCARD rt_err sh_region_open(
	const struct sh_region_options *options, struct sh_region **out, struct rt_errinfo *info);
void sh_region_free(struct sh_region *region); /* after sh_region_stop or if never started */

/* Every replica starts its term; done(arg) once all of them have committed its first record. */
void sh_region_start(struct sh_region *region, void (*done)(void *arg), void *arg);
void sh_region_call(struct sh_region *region, struct ac_call *call);
/* Stops serving: what waits is answered, nothing is read or written any more. */
void sh_region_drop(struct sh_region *region, const char *why);
/* Ends long polls and background reads; everything else goes on. */
void sh_region_cut_waits(struct sh_region *region);
/* Frees entities. After sh_region_drop, when no read is under way any more. */
void sh_region_stop(struct sh_region *region);
struct ac_host *sh_region_host(struct sh_region *region); /* counters: any thread */
/* Entities that were quarantined, as a JSON array. */
void sh_region_quarantined(struct sh_region *region, struct pr_text *out);

#endif
