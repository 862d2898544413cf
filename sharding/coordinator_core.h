/*
 * coordinator_core.h - what the sources of the coordinator (coordinator.h) share. Nobody else
 * includes it.
 *
 *   coordinator.c         asks, decides, pushes
 *   coordinator_status.c  says how things are
 */
#ifndef SHARDING_COORDINATOR_CORE_H
#define SHARDING_COORDINATOR_CORE_H

#include "sharding/allocate.h"
#include "sharding/coordinator.h"
#include "sharding/reports.h"

/* A question to the entity that is not answered yet. */
struct sh_ask {
	uint64_t ticket; /* 0: none */
	uint64_t at_ms;
};

/* What a node was told. */
struct sh_told {
	uint64_t node, at_ms, version, routes;
	bool farewell; /* it has left and is to hear of it once */
};

struct sh_coordinator {
	const struct sh_coordinator_port *port;
	struct sh_coordinator_options options; /* its texts are in `texts` */
	char *texts;

	bool awake;
	uint64_t now, woke, term;
	uint64_t tick_at, ticked, push_at, pushed;

	Troupe__Cluster__ClusterState *state; /* NULL: not known yet */
	uint64_t version;                     /* of the state */
	bool stale;                           /* ask for a newer one */
	uint64_t asked_ms, hold_ms;           /* no command before that */
	struct sh_ask query, command;
	bool asking; /* inside of port->ask */
	uint64_t tickets;
	const char *doing; /* name of the command */

	struct sh_reports reports; /* from the first state on */
	struct sh_told told[SH_CLUSTER_MEMBERS_MAX];
	uint32_t told_count;

	/* For one plan at a time; group_count each. */
	struct sh_alloc_group *groups;
	struct sh_placement *next;
	Troupe__Cluster__Placement *placements;
	Troupe__Cluster__Placement **placement_list;
	Troupe__Cluster__Route *routes;
	Troupe__Cluster__Route **route_list;
	uint32_t group_count; /* of these */
};

/* This node hears itself always. */
bool sh_coordinator_hears(const struct sh_coordinator *coordinator, uint64_t node);
/* Since its last report, or since this coordinator could have heard one. */
uint64_t sh_coordinator_silent_ms(
	const struct sh_coordinator *coordinator, uint64_t node, uint64_t now_ms);
/* The group as the plan sees it. */
void sh_coordinator_group(const struct sh_coordinator *coordinator, uint32_t group, uint64_t now_ms,
	struct sh_alloc_group *out);

#endif
