/*
 * cluster_state.h - what the two sources of the aggregate "cluster" share. Nobody else includes it.
 *
 *   cluster.c        commands: what is allowed, and which events come of it
 *   cluster_state.c  what is valid, events, snapshots
 */
#ifndef SHARDING_CLUSTER_STATE_H
#define SHARDING_CLUSTER_STATE_H

#include "sharding/cluster.h"

struct sh_cluster {
	Troupe__Cluster__ClusterState *at; /* NULL: not founded */
};

enum { /* In the table of events. */
	SH_CLUSTER_FOUNDED,
	SH_CLUSTER_JOINED,
	SH_CLUSTER_ANNOUNCED,
	SH_CLUSTER_STATE_CHANGED,
	SH_CLUSTER_PLACED,
	SH_CLUSTER_CONFIGURED
};

bool sh_cluster_id_valid(const char *text);
bool sh_cluster_settings_valid(uint32_t replication, uint32_t moves_max, uint32_t dead_after_ms);
uint32_t sh_cluster_count(
	const Troupe__Cluster__ClusterState *state, Troupe__Cluster__NodeState wanted);
bool sh_cluster_holds(const Troupe__Cluster__Placement *placement, uint64_t node);
/* Shards the node is to hold. */
uint32_t sh_cluster_load(const Troupe__Cluster__ClusterState *state, uint64_t node);

void sh_cluster_done(void *state);
bool sh_cluster_evolve(void *state, const struct troupe_event *event);
bool sh_cluster_answer(
	const void *state, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out);
void sh_cluster_save(const void *state, struct troupe_out *out);
bool sh_cluster_restore(void *state, const ProtobufCMessage *snapshot);

#endif
