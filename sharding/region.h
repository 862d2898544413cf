/*
 * region.h - the groups of one worker, and the worker's door to all entities of the cluster.
 *
 * A call for an entity whose shard this node leads goes to the entity. Any other is forwarded once
 * to the node that is believed to lead; while nobody is known to, it is held, bounded in number and
 * time. At the end of each loop turn the records that entities wrote are proposed group by group
 * and submitted as one round, and everything for one peer leaves as one frame; when the round is
 * durable the replicas say what is committed, the records go to the indexer and the held answers
 * leave.
 *
 * A node has a replica of every group; where it is no member that replica is empty and waits. The
 * group after the last shard is the cluster's own ("meta"); the node that leads it coordinates.
 *
 * Threads: open and free before the workers run or after they stopped; everything else on the
 *          worker.
 */
#ifndef SHARDING_REGION_H
#define SHARDING_REGION_H

#include <stdatomic.h>

#include "actors/shard.h"
#include "sharding/coordinator.h"
#include "sharding/pace.h"
#include "sharding/replica.h"
#include "sharding/wire.h"

struct sh_region;

struct sh_region_options {
	struct ac_host host; /* template: worker, registry, store, writer, ... */
	uint32_t shard_count, worker_count;
	_Atomic uint64_t *committed; /* of every group of the node; the region writes its own */
	_Atomic uint64_t *calls;     /* under way on the node: forwarded ones count too */
	struct sh_pace *pace; /* of the node; NULL: logs are read for peers without a limit */

	/* ---- who this node is ---- */
	uint64_t node;
	bool founder; /* new groups begin with this node as their only member */
	uint32_t election_ms, heartbeat_ms; /* 0: 1,000 and 100 */
	uint32_t mark_every, cache_bytes;   /* see replica.h */
	uint64_t seed, instance;
	const struct sh_wire *wire; /* NULL: a node alone */
	/* For the owner of the meta group; NULL: no coordinator. */
	const struct sh_coordinator_options *coordinator;
	/* Addresses of this node as others should know them, good until the next call. */
	void (*addresses)(void *arg, const char **rpc, const char **peer);

	/* ---- what it reports, on the worker ---- */
	/* A write failed: once per region. */
	void (*failed)(void *arg, rt_err err);
	/* Something was committed. */
	void (*progressed)(void *arg);
	/* A frame of the CALL lane for another worker of this node (copied). */
	void (*to_worker)(void *arg, uint32_t worker, struct rt_bytes frame);
	/* Before time is given to replicas: messages of peers that wait for this worker come now,
	 * through sh_region_frame. NULL: none wait. */
	void (*drain)(void *arg, struct rt_worker *worker);
	/* A newer table has come: packed and unpacked, borrowed. Only the region of worker 0 says
	 * so. */
	void (*table)(void *arg, const void *table, struct rt_bytes packed);
	void *arg;
};

RT_NODISCARD rt_err sh_region_open(
	const struct sh_region_options *options, struct sh_region **out, struct rt_errinfo *info);
void sh_region_free(struct sh_region *region); /* after sh_region_stop or if never started */

/* Every replica starts. done(arg) once the groups of which this node is the only member serve. */
void sh_region_start(struct sh_region *region, void (*done)(void *arg), void *arg);
/* A call of this node's own clients, its hash and shard filled in (sh_region_address). Always
 * answered through host.answered, later or from inside. */
void sh_region_call(struct sh_region *region, struct ac_call *call);
/* Fills hash and shard from type and id: the cluster's own entity is in the meta group. */
void sh_region_address(struct ac_call *call, uint32_t shard_count);
/* A frame from a node (borrowed); what is not for this worker is skipped. */
void sh_region_frame(
	struct sh_region *region, uint64_t from, enum sh_lane lane, struct rt_bytes frame);
/* Bit w: worker w has something in the frame; never none. worker_count up to 64. */
uint64_t sh_region_frame_workers(
	enum sh_lane lane, struct rt_bytes frame, uint32_t shard_count, uint32_t worker_count);
/* A node can be reached, or no longer. */
void sh_region_link(struct sh_region *region, uint64_t node, bool up);
/* Leadership of every group goes to another voter; done once none is left here or after
 * timeout_ms. */
void sh_region_hand_over(
	struct sh_region *region, uint32_t timeout_ms, void (*done)(void *arg), void *arg);
/* Stops serving: what waits is answered, nothing is read or written any more. */
void sh_region_drop(struct sh_region *region, const char *why);
/* Ends long polls and background reads; everything else goes on. */
void sh_region_cut_waits(struct sh_region *region);
/* Frees entities. After sh_region_drop, when no read is under way any more. */
void sh_region_stop(struct sh_region *region);
struct ac_host *sh_region_host(struct sh_region *region); /* counters: any thread */
/* Entities that were quarantined, as a JSON array. */
void sh_region_quarantined(struct sh_region *region, struct pr_text *out);
/* For status pages and the simulator's checks; NULL: not of this worker. */
const struct sh_replica *sh_region_replica(const struct sh_region *region, uint32_t group);
bool sh_region_serves(const struct sh_region *region, uint32_t group);
/* Groups of this worker whose leader is not known. */
uint32_t sh_region_unknown(const struct sh_region *region);

#endif
