/*
 * region_shard.h - one group of a region with its replica, and how the replica reaches the log: the
 * lower half of struct sh_replica_port over persistence/. Private to the region.
 *
 * Threads: the worker that owns the region.
 */
#ifndef SHARDING_REGION_SHARD_H
#define SHARDING_REGION_SHARD_H

#include "actors/shard.h"
#include "persistence/catchup.h"
#include "sharding/replica.h"

struct sh_region_shard;

/* A round under way: which writes of which replicas it makes durable. */
struct sh_flight {
	void *region;
	struct sh_flight *next;
	uint32_t count;
	struct {
		struct sh_region_shard *member;
		uint64_t written;
	} part[];
};

/* What this turn's round will make durable; host->round is the round itself. */
struct sh_batch {
	struct ac_host *host;
	void *region;
	uint32_t member_count;
	struct sh_flight *open; /* NULL: nothing was written in this turn */
	struct sh_flight *kept; /* for later */
	uint32_t kept_count;
};

enum sh_serving {
	SH_ASLEEP,    /* another node leads, or nobody is known to */
	SH_PREPARING, /* leads; entities cannot be read before the index has all of the log */
	SH_SERVING
};

struct sh_region_shard {
	struct ac_shard shard;
	struct sh_replica *replica;
	struct sh_batch *batch;
	bool written; /* has writes in the open round */
	bool stirred; /* in region->first_stirred */
	struct sh_region_shard *next_stirred;
	void (*failed)(struct sh_region_shard *member, rt_err err); /* a read ended the replica */

	/* ---- from commit to service (serve.c) ---- */
	uint64_t told;   /* committed and durable here */
	uint64_t staged; /* the indexer has, or had at open, everything up to here */
	struct ps_catchup catchup;
	bool catching; /* records that are not in memory are read for the indexer */
	enum sh_serving serving;
	uint64_t lead_term;
	uint32_t fills; /* reasons so far to read the known command ids anew: also of each wipe */
	uint32_t catch_fills; /* as it was when catch-up began */
	bool renew;           /* removed: begins anew some time */
	bool wanted;          /* and somebody speaks to it */
	bool starts_node;     /* counted in region->starting */

	struct sh_snapshot *snapshots; /* of who leads, not committed as far as is known here */

	/* ---- calls (calls.c) ---- */
	uint64_t leader;     /* node said to lead, 0: not known; who is a member knows better */
	uint64_t route_term; /* of the newest word about it from outside */
	struct ac_call *held, **held_end;
	uint32_t held_count;
	uint32_t guess; /* whom to ask next */

	/* ---- changes of the group (reconcile.c) ---- */
	uint64_t hand_to; /* leadership goes there once nothing is under way; 0: nowhere */
	uint64_t hand_until_ms;
	bool handing;            /* the replica was told */
	uint64_t quiet_until_ms; /* no hand-over that only a preference asks for before */
};

/* The member has writes in the round of this turn. */
RT_NODISCARD rt_err sh_batch_join(struct sh_batch *batch, struct sh_region_shard *member);
/* Closes the list: every member's newest write is noted. NULL: nothing was written. */
struct sh_flight *sh_batch_take(struct sh_batch *batch);
void sh_batch_keep(struct sh_batch *batch, struct sh_flight *flight);
void sh_batch_done(struct sh_batch *batch);

/* arg is the struct sh_region_shard. */
rt_err sh_region_shard_write(void *arg, const struct sh_write *write);
rt_err sh_region_shard_read(void *arg, const struct sh_replica_read *read);
uint64_t sh_region_shard_first(void *arg);
rt_err sh_region_shard_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info);
rt_err sh_region_shard_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info);

#endif
