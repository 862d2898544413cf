/*
 * reports.h - what the coordinator heard: which nodes live, who leads each group, and who its
 * members are.
 *
 * Times are milliseconds of the caller's clock. A report says what its sender knew; of two that
 * contradict each other about who leads, that of the higher term counts, unless nothing confirmed
 * it for a while.
 *
 * Threads: one. Memory: a fixed struct per node and group.
 */
#ifndef SHARDING_REPORTS_H
#define SHARDING_REPORTS_H

#include "runtime/base/arena.h"
#include "sharding/cluster.h"

struct sh_seen_node {
	uint64_t node, instance;
	uint64_t at_ms; /* of its last report */
	uint64_t version;
	char rpc[SH_CLUSTER_URL_MAX + 1], peer[SH_CLUSTER_URL_MAX + 1];
};

struct sh_seen_group {
	uint64_t leader, term; /* newest heard of; 0: none */
	uint64_t leader_at_ms; /* when somebody said so last */
	/* From the leader itself: */
	uint64_t led_by;      /* 0: it leads no longer, as far as is known */
	uint64_t led_at_ms;   /* its last report; at first, when listening began */
	uint64_t led_version; /* of the table that it acted on then */
	uint64_t commit, last;
	struct sh_members actual; /* none: no leader was heard */
	uint64_t match[SH_MEMBERS_MAX];
};

struct sh_reports {
	struct sh_seen_group *groups;
	uint32_t group_count, node_count;
	struct sh_seen_node *nodes; /* SH_CLUSTER_MEMBERS_MAX, of which node_count were heard */
	uint32_t reach_ms;
	uint64_t routes; /* grows with every change of a leader */
	uint64_t dropped;
	struct rt_arena arena;
};

RT_NODISCARD rt_err sh_reports_init(
	struct sh_reports *reports, uint32_t group_count, uint32_t reach_ms, uint64_t now_ms);
void sh_reports_done(struct sh_reports *reports); /* zeroes are fine */

/* A packed NodeReport. RT_E_PROTO: it makes no sense, or `from` is no member, and nothing changed.
 * RT_E_CLOSED: of a node that has left; only its version was taken. RT_E_NOMEM. */
RT_NODISCARD rt_err sh_reports_take(struct sh_reports *reports,
	const Troupe__Cluster__ClusterState *state, uint64_t now_ms, uint64_t from,
	struct rt_bytes bytes);

/* NULL: never heard. */
const struct sh_seen_node *sh_reports_node(const struct sh_reports *reports, uint64_t node);
bool sh_reports_reachable(const struct sh_reports *reports, uint64_t node, uint64_t now_ms);
/* Whom somebody named lately as the leader, 0: nobody. */
uint64_t sh_reports_leader(const struct sh_reports *reports, uint32_t group, uint64_t now_ms);
/* Who says lately of itself that it leads, 0: nobody. */
uint64_t sh_reports_led(const struct sh_reports *reports, uint32_t group, uint64_t now_ms);

#endif
