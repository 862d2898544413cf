/*
 * coordinator.h - the one place that decides which nodes hold and lead which shard.
 *
 * It runs on every node and is awake on the one that leads the meta group. What it knows for good
 * is the entity "cluster" (cluster.h) in that group's log; what it hears are the nodes' reports.
 * From both it decides (allocate.h), writes decisions as commands to the entity with the sequence
 * number they rest on, and pushes the table to every node. Shards elect and serve without it.
 *
 * Threads: the worker that owns the meta group.
 * Memory:  bounded by nodes times groups.
 */
#ifndef SHARDING_COORDINATOR_H
#define SHARDING_COORDINATOR_H

#include "proto/json.h"
#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

struct sh_coordinator;
struct sh_strategy;

struct sh_coordinator_port {
	/* A command or query (command false) to the entity, as protobuf; expected: sequence number
	 * + 1, 0 any. The answer comes with sh_coordinator_answer and the same ticket, later, never
	 * from inside. RT_E_FULL: not now. */
	rt_err (*ask)(void *arg, const char *name, bool command, struct rt_bytes payload,
		uint64_t expected, uint64_t ticket);
	/* A ClusterTable for a node, itself included; delivery may fail. */
	void (*push)(void *arg, uint64_t node, struct rt_bytes table);
	void *arg;
};

struct sh_coordinator_options {
	const struct sh_coordinator_port *port;
	uint64_t node; /* this one */
	/* For the first command of a cluster that has none; key NULL: this node founds none.
	 * Copied; name, rpc and peer may be NULL. */
	const char *cluster, *key, *name, *rpc, *peer;
	uint32_t shard_count, replication, dead_after_ms; /* 0: as in cluster.h */
	uint32_t tick_ms;                                 /* between two looks; 0: 200 */
	uint32_t reach_ms; /* who is not heard for so long is not reachable; 0: 2,000 */
	const struct sh_strategy *strategy; /* allocate.h; NULL: sh_least_shards */
};

RT_NODISCARD rt_err sh_coordinator_new(
	const struct sh_coordinator_options *options, struct sh_coordinator **out);
void sh_coordinator_free(struct sh_coordinator *coordinator);

/* The meta group leads and serves here, or no longer. */
void sh_coordinator_lead(struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t term);
void sh_coordinator_follow(struct sh_coordinator *coordinator);
/* A NodeReport; this node's own comes the same way. Bytes of a peer: what makes no sense is
 * dropped. */
void sh_coordinator_report(
	struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t from, struct rt_bytes report);
/* code: of proto/troupe.proto; seq: the entity's. */
void sh_coordinator_answer(struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t ticket,
	uint32_t code, uint64_t seq, struct rt_bytes payload);
/* Somebody else's command changed the entity: look at once. */
void sh_coordinator_changed(struct sh_coordinator *coordinator);
void sh_coordinator_tick(struct sh_coordinator *coordinator, uint64_t now_ms);
uint64_t sh_coordinator_next_timeout(
	const struct sh_coordinator *coordinator); /* UINT64_MAX: never */
/* The JSON of "troupe cluster status". RT_E_FENCED: not awake here. RT_E_AGAIN: awake, but the
 * entity has not answered yet. */
RT_NODISCARD rt_err sh_coordinator_status(
	const struct sh_coordinator *coordinator, uint64_t now_ms, struct pr_text *out);

#endif
