/*
 * allocate.h - from what is to what should be: which nodes are to hold which group, a few steps at
 * a time.
 *
 * Pure and deterministic: ties go by number. Called again and again with what came of the last
 * answer it reaches a state in which it changes nothing. Groups 0..group_count-2 are data shards,
 * the last one is the meta group, which is placed like the others and comes first.
 *
 * Bounds: of the groups whose replicas are not yet where they should be, `lost` ones aside, there
 * are never more than moves_max because of this; changes of `preferred` alone are not counted.
 */
#ifndef SHARDING_ALLOCATE_H
#define SHARDING_ALLOCATE_H

#include "sharding/cluster.h"

struct sh_placement {
	uint64_t node[SH_CLUSTER_REPLICATION_MAX]; /* ascending; behind count all zero */
	uint32_t count;
	uint64_t preferred;
	bool pinned;
};

enum sh_usable {
	SH_NODE_GONE, /* draining, left: loses what it holds */
	SH_NODE_AWAY, /* dead: what it holds is replaced where there is a node for it */
	SH_NODE_USABLE
};

struct sh_alloc_node {
	uint64_t node;
	enum sh_usable usable;
	bool reachable; /* no others are given replicas */
};

struct sh_alloc_group {
	struct sh_placement target;
	struct sh_members actual; /* as its leader said last; none: not known */
	uint64_t leader;          /* 0: none at this moment; the group is left as it is */
	bool lost;                /* no leader for long: does not count as moving */
};

struct sh_allocation {
	const struct sh_alloc_node *nodes; /* ascending; all that have not left */
	uint32_t node_count;
	const struct sh_alloc_group *groups;
	uint32_t group_count;
	uint32_t replication, moves_max;
};

/* A way to decide. `next` comes as the targets are, one per group, and leaves as they should be. */
struct sh_strategy {
	const char *name;
	void (*plan)(const struct sh_allocation *in, struct sh_placement *next);
};
/* Replicas per node differ by at most 1, and leaders too, with the fewest replicas moved. Nodes
 * that die are replaced by the emptiest ones. Where too few nodes are left for that, a dead node
 * keeps its place if the living replicas are even in number: they need as many votes without it,
 * and it need not copy everything when it is back. A pinned preference stays while its node is
 * usable. */
extern const struct sh_strategy sh_least_shards;

/* strategy NULL: sh_least_shards. Returns how many placements in `next` differ from the targets. */
uint32_t sh_allocate(const struct sh_strategy *strategy, const struct sh_allocation *in,
	struct sh_placement *next);

bool sh_placement_equal(const struct sh_placement *a, const struct sh_placement *b);
bool sh_placement_has(const struct sh_placement *placement, uint64_t node);
/* The group is what its target says: these members, and all of them vote. */
bool sh_alloc_settled(const struct sh_alloc_group *group);

#endif
