#include "sharding/reports.h"

#include <stdlib.h>

#include "proto/guard.h"
#include "runtime/base/assert.h"

#define REPORT_BYTES   (8u * 1024u * 1024u) /* unpacked */
#define REPORT_WORKERS 1024u

rt_err sh_reports_init(
	struct sh_reports *reports, uint32_t group_count, uint32_t reach_ms, uint64_t now_ms)
{
	*reports = (struct sh_reports){.group_count = group_count, .reach_ms = reach_ms};
	rt_arena_init(&reports->arena, 0, REPORT_BYTES);
	reports->groups = calloc(group_count, sizeof(*reports->groups));
	reports->nodes = calloc(SH_CLUSTER_MEMBERS_MAX, sizeof(*reports->nodes));
	if (reports->groups == NULL || reports->nodes == NULL) {
		sh_reports_done(reports);
		return RT_E_NOMEM;
	}
	for (uint32_t i = 0; i < group_count; i++) {
		reports->groups[i].led_at_ms = now_ms;
	}
	return RT_OK;
}

void sh_reports_done(struct sh_reports *reports)
{
	if (reports->group_count > 0) {
		rt_arena_done(&reports->arena);
	}
	free(reports->groups);
	free(reports->nodes);
	*reports = (struct sh_reports){0};
}

static bool is_fresh(const struct sh_reports *reports, uint64_t at_ms, uint64_t now_ms)
{
	return now_ms < at_ms + reports->reach_ms;
}

static struct sh_seen_node *find(const struct sh_reports *reports, uint64_t node)
{
	for (uint32_t i = 0; i < reports->node_count; i++) {
		if (reports->nodes[i].node == node) {
			return &reports->nodes[i];
		}
	}
	return NULL;
}

const struct sh_seen_node *sh_reports_node(const struct sh_reports *reports, uint64_t node)
{
	return find(reports, node);
}

bool sh_reports_reachable(const struct sh_reports *reports, uint64_t node, uint64_t now_ms)
{
	const struct sh_seen_node *seen = find(reports, node);
	return seen != NULL && is_fresh(reports, seen->at_ms, now_ms);
}

uint64_t sh_reports_leader(const struct sh_reports *reports, uint32_t group, uint64_t now_ms)
{
	const struct sh_seen_group *seen = &reports->groups[group];
	return is_fresh(reports, seen->leader_at_ms, now_ms) ? seen->leader : 0;
}

uint64_t sh_reports_led(const struct sh_reports *reports, uint32_t group, uint64_t now_ms)
{
	const struct sh_seen_group *seen = &reports->groups[group];
	return is_fresh(reports, seen->led_at_ms, now_ms) ? seen->led_by : 0;
}

/* ---- what makes sense ---- */

static bool members_of(const Troupe__Cluster__ReplicaReport *report, struct sh_members *out)
{
	*out = (struct sh_members){0};
	if (report->n_nodes == 0 || report->n_nodes > SH_MEMBERS_MAX ||
		report->n_votes != report->n_nodes || report->n_match != report->n_nodes) {
		return false;
	}
	out->count = (uint8_t)report->n_nodes;
	for (uint32_t i = 0; i < out->count; i++) {
		out->node[i] = report->nodes[i];
		out->voters |= (uint8_t)(report->votes[i] ? 1u << i : 0u);
	}
	return sh_members_valid(out);
}

static bool replica_valid(
	const Troupe__Cluster__ClusterState *state, const Troupe__Cluster__ReplicaReport *report)
{
	struct sh_members members;
	return report->shard <= state->shard_count &&
	       (!report->leading || members_of(report, &members));
}

static bool report_valid(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__NodeReport *report, uint64_t from)
{
	if (report->node != from || report->workers > REPORT_WORKERS ||
		report->worker >= report->workers || strlen(report->rpc) > SH_CLUSTER_URL_MAX ||
		strlen(report->peer) > SH_CLUSTER_URL_MAX ||
		report->n_replicas > (size_t)state->shard_count + 1) {
		return false;
	}
	for (size_t i = 0; i < report->n_replicas; i++) {
		if (!replica_valid(state, report->replicas[i])) {
			return false;
		}
	}
	return true;
}

/* ---- who leads ---- */

static void set_leader(struct sh_reports *reports, struct sh_seen_group *group, uint64_t leader,
	uint64_t term, uint64_t now_ms)
{
	if (group->leader != leader || group->term != term) {
		reports->routes++;
		group->led_by = 0;
	}
	group->leader = leader;
	group->term = term;
	group->leader_at_ms = now_ms;
}

static void take_leading(struct sh_reports *reports, struct sh_seen_group *group,
	const Troupe__Cluster__ReplicaReport *report, uint64_t version, uint64_t now_ms)
{
	if (report->term < group->term && is_fresh(reports, group->leader_at_ms, now_ms)) {
		return;
	}
	set_leader(reports, group, report->leader, report->term, now_ms);
	group->led_by = report->leader;
	group->led_at_ms = now_ms;
	group->led_version = version;
	group->commit = report->commit;
	group->last = report->last;
	bool valid = members_of(report, &group->actual);
	RT_ASSERT(valid);
	for (uint32_t i = 0; i < group->actual.count; i++) {
		group->match[i] = report->match[i];
	}
}

static void take_following(struct sh_reports *reports, struct sh_seen_group *group,
	const Troupe__Cluster__ReplicaReport *report, uint64_t from, uint64_t now_ms)
{
	if (group->led_by == from && report->term >= group->term) {
		group->led_by = 0;
	}
	if (report->leader == 0) {
		return;
	}
	bool same = report->leader == group->leader && report->term == group->term;
	if (same || report->term > group->term || !is_fresh(reports, group->leader_at_ms, now_ms)) {
		set_leader(reports, group, report->leader, report->term, now_ms);
	}
}

/* Whoever started anew leads nothing that it led before. */
static void forget_leads(struct sh_reports *reports, uint64_t node)
{
	for (uint32_t i = 0; i < reports->group_count; i++) {
		if (reports->groups[i].led_by == node) {
			reports->groups[i].led_by = 0;
		}
	}
}

static struct sh_seen_node *add(
	struct sh_reports *reports, const Troupe__Cluster__ClusterState *state, uint64_t node)
{
	uint32_t at = 0;
	if (reports->node_count < SH_CLUSTER_MEMBERS_MAX) {
		at = reports->node_count++;
	} else { /* Not all of these can be members still. */
		while (sh_cluster_member(state, reports->nodes[at].node) != NULL) {
			at++;
			RT_ASSERT(at < reports->node_count);
		}
	}
	reports->nodes[at] = (struct sh_seen_node){.node = node};
	return &reports->nodes[at];
}

static void take(struct sh_reports *reports, const Troupe__Cluster__ClusterState *state,
	uint64_t now_ms, const Troupe__Cluster__NodeReport *report)
{
	struct sh_seen_node *seen = find(reports, report->node);
	if (seen == NULL) {
		seen = add(reports, state, report->node);
	} else if (seen->instance != report->instance) {
		forget_leads(reports, report->node);
	}
	seen->instance = report->instance;
	seen->at_ms = now_ms;
	seen->version = report->version;
	memcpy(seen->rpc, report->rpc, strlen(report->rpc) + 1);
	memcpy(seen->peer, report->peer, strlen(report->peer) + 1);
	for (size_t i = 0; i < report->n_replicas; i++) {
		Troupe__Cluster__ReplicaReport *replica = report->replicas[i];
		struct sh_seen_group *group = &reports->groups[replica->shard];
		const Troupe__Cluster__Member *leader = sh_cluster_member(state, replica->leader);
		/* It may have learned of another leader and not yet have stopped to serve. */
		if (replica->leading && replica->leader == report->node) {
			take_leading(reports, group, replica, report->version, now_ms);
			continue;
		}
		if (leader == NULL || leader->state == SH_NODE_LEFT) {
			replica->leader = 0;
		}
		take_following(reports, group, replica, report->node, now_ms);
	}
}

/* In the arena. */
static rt_err unpack(struct sh_reports *reports, const Troupe__Cluster__ClusterState *state,
	uint64_t from, struct rt_bytes bytes, Troupe__Cluster__NodeReport **out)
{
	ProtobufCAllocator allocator = {rt_arena_alloc_for, rt_arena_free_for, &reports->arena};
	if (pr_guard_check(&troupe__cluster__node_report__descriptor, bytes, NULL) != RT_OK) {
		return RT_E_PROTO;
	}
	*out = troupe__cluster__node_report__unpack(&allocator, bytes.size, bytes.data);
	if (*out == NULL) {
		return RT_E_NOMEM;
	}
	return report_valid(state, *out, from) ? RT_OK : RT_E_PROTO;
}

rt_err sh_reports_take(struct sh_reports *reports, const Troupe__Cluster__ClusterState *state,
	uint64_t now_ms, uint64_t from, struct rt_bytes bytes)
{
	const Troupe__Cluster__Member *member = sh_cluster_member(state, from);
	Troupe__Cluster__NodeReport *report = NULL;
	rt_err err = member == NULL ? RT_E_PROTO : unpack(reports, state, from, bytes, &report);
	if (err != RT_OK || report == NULL) {
		reports->dropped++;
	} else if (member->state == SH_NODE_LEFT) {
		report->n_replicas = 0;
		take(reports, state, now_ms, report);
		err = RT_E_CLOSED;
	} else {
		take(reports, state, now_ms, report);
	}
	rt_arena_reset(&reports->arena);
	return err;
}
