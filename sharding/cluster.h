/*
 * cluster.h - the aggregate "cluster": which nodes there are, and where every shard is to be.
 *
 * One entity, "cluster|cluster", in the meta group. Operators and joining nodes send it commands
 * like anybody else's; the coordinator (coordinator.h) sends it what it decided. State, commands
 * and events are messages of cluster.proto; the state is kept as a ClusterState.
 *
 *              Drain                    Leave, Remove
 *        UP <========> DRAINING ----------------------> LEFT   (for good)
 *           Drain cancel  |  ^                           ^
 *         \ ^             |  |  SetAlive                 |
 *          \ \  SetAlive  v  |                           |
 *            +=========> DEAD ---------------------------+
 *                              Remove; Leave if it was draining
 *
 * Purity: that of an aggregate. Limits: below; LEFT members are remembered, so that their keys are
 * refused, until SH_CLUSTER_MEMBERS_MAX are known.
 */
#ifndef SHARDING_CLUSTER_H
#define SHARDING_CLUSTER_H

#include "actors/aggregate.h"
#include "sharding/cluster.pb-c.h"
#include "sharding/members.h"
#include "sharding/shard.h"

#define SH_CLUSTER_TYPE "cluster" /* and the id of its one entity */

#define SH_CLUSTER_NODES_MAX       64u  /* that have not left */
#define SH_CLUSTER_MEMBERS_MAX     192u /* with those that have */
#define SH_CLUSTER_GROUPS_MAX      (SH_SHARDS_MAX + 1u)
#define SH_CLUSTER_KEY_MAX         32u
#define SH_CLUSTER_NAME_MAX        64u
#define SH_CLUSTER_URL_MAX         255u
#define SH_CLUSTER_REPLICATION_MAX 5u /* two less than a group holds: changes need room */
#define SH_CLUSTER_MOVES_MAX       256u
#define SH_CLUSTER_DEAD_AFTER_MIN  100u      /* ms */
#define SH_CLUSTER_DEAD_AFTER_MAX  86400000u /* ms */
#define SH_CLUSTER_REPLICATION     3u        /* defaults */
#define SH_CLUSTER_MOVES           8u
#define SH_CLUSTER_DEAD_AFTER      60000u

#define SH_NODE_UP       TROUPE__CLUSTER__NODE_STATE__NODE_UP
#define SH_NODE_DRAINING TROUPE__CLUSTER__NODE_STATE__NODE_DRAINING
#define SH_NODE_DEAD     TROUPE__CLUSTER__NODE_STATE__NODE_DEAD
#define SH_NODE_LEFT     TROUPE__CLUSTER__NODE_STATE__NODE_LEFT

extern const struct troupe_aggregate sh_cluster_aggregate;

/* NULL: no such member. */
const Troupe__Cluster__Member *sh_cluster_member(
	const Troupe__Cluster__ClusterState *state, uint64_t node);
/* Whole and free of contradictions, as the aggregate itself would have made it. */
bool sh_cluster_valid(const Troupe__Cluster__ClusterState *state);
bool sh_cluster_url_valid(const char *url);
/* Shard in range; replicas 1 to 5, ascending; preferred one of them. */
bool sh_cluster_placement_valid(const Troupe__Cluster__Placement *placement, uint32_t shard_count);

#endif
