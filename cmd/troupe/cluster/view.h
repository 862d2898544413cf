/*
 * view.h - the cluster as its coordinator says it is: the JSON of "status", read and judged.
 *
 * Memory: a view owns its JSON and its arrays; strings and members are borrowed until
 *         tr_view_done. Threads: one.
 * Failure: bytes of a node are checked whole; a view is there whole or not at all.
 */
#ifndef CMD_TROUPE_CLUSTER_VIEW_H
#define CMD_TROUPE_CLUSTER_VIEW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

struct tr_member {
	uint64_t node;
	const char *name, *rpc, *peer;
	const char *state; /* up, draining, dead, left */
	bool reachable;
	uint64_t heard_ms; /* ago */
	uint64_t replicas, leaders;
};

struct tr_replica {
	uint64_t node, lag;
	bool voter;
};

struct tr_group {
	uint32_t shard;
	const char *name; /* the number, or "meta" */
	uint64_t leader;  /* node; 0: none known */
	uint64_t preferred, term, commit;
	bool moving;
	struct tr_replica *replicas;
	size_t replica_count;
	uint64_t *target; /* nodes that should hold it */
	size_t target_count;
};

struct tr_view {
	json_t *root;
	const char *cluster;
	uint64_t version, coordinator, term, replication, shards, moves_max, dead_after_ms, moves;
	struct tr_member *members;
	size_t member_count;
	struct tr_group *groups;
	size_t group_count;
	struct tr_replica *replicas; /* of all groups */
	uint64_t *targets;           /* of all groups */
};

/* RT_E_PROTO: info says what is missing. */
RT_NODISCARD rt_err tr_view_read(
	struct rt_bytes json, struct tr_view *out, struct rt_errinfo *info);
void tr_view_done(struct tr_view *view); /* zeroed is a no-op */

const struct tr_member *tr_view_member(const struct tr_view *view, uint64_t node); /* or NULL */
/* By number or name. NULL: info says which there are. */
const struct tr_member *tr_view_find(
	const struct tr_view *view, const char *word, struct rt_errinfo *info);
/* By number or "meta". NULL: info says why. */
const struct tr_group *tr_view_shard(
	const struct tr_view *view, const char *word, struct rt_errinfo *info);

bool tr_member_is(const struct tr_member *member, const char *state);
bool tr_group_targets(const struct tr_group *group, uint64_t node);
/* NULL: holds none. */
const struct tr_replica *tr_group_replica(const struct tr_group *group, uint64_t node);
/* The voters are the nodes that should hold it, and nothing is under way. */
bool tr_group_is_placed(const struct tr_group *group);
/* Voters that can be reached. */
size_t tr_group_sound(const struct tr_view *view, const struct tr_group *group);

/* How many replicas a group has with so many nodes. */
uint64_t tr_view_copies(const struct tr_view *view, size_t nodes);
/* All of so many nodes are up, each group is placed and led by who should, and no node has much
 * more than another. */
bool tr_view_is_even(const struct tr_view *view, size_t nodes);

#endif
