/* What the coordinator says, and what it is told: tables in, reports out. */
#include <stdlib.h>

#include "persistence/writer.h"
#include "proto/field.h"
#include "proto/guard.h"
#include "runtime/base/log.h"
#include "sharding/region_core.h"

#define REPORT_MS     500u
#define VERSION_FIELD 4u /* of a report */

/* ---- tables ---- */
static bool is_newer(const struct sh_region *region, const Troupe__Cluster__ClusterTable *table)
{
	const Troupe__Cluster__ClusterTable *now = region->table;
	return now == NULL || table->term > now->term ||
	       (table->term == now->term && table->version >= now->version);
}

static bool makes_sense(const struct sh_region *region, const Troupe__Cluster__ClusterTable *table)
{
	return table->state != NULL && table->state->shard_count == region->options.shard_count &&
	       table->state->n_placements <= region->group_count;
}

static void take_routes(struct sh_region *region)
{
	const Troupe__Cluster__ClusterTable *table = region->table;
	for (size_t i = 0; i < table->n_routes; i++) {
		const Troupe__Cluster__Route *route = table->routes[i];
		if (sh_region_owns(region, route->shard)) {
			sh_calls_route(
				sh_region_member(region, route->shard), route->leader, route->term);
		}
	}
	if (sh_region_owns(region, region->options.shard_count)) {
		sh_calls_route(sh_region_member(region, region->options.shard_count),
			table->coordinator, table->term);
	}
}

static void count_nodes(struct sh_region *region)
{
	const Troupe__Cluster__ClusterState *state = region->table->state;
	uint32_t living = 0;
	for (size_t i = 0; i < state->n_members; i++) {
		living += state->members[i]->state != TROUPE__CLUSTER__NODE_STATE__NODE_LEFT;
	}
	region->several = living > 1;
}

/* The newest table is kept, so that a node which starts knows whom to look for. */
static void keep(struct sh_region *region, struct rt_bytes packed)
{
	struct ac_host *host = &region->host;
	if (host->round == NULL) {
		host->round = ps_round_acquire(host->writer, host->worker);
	}
	if (host->round == NULL || region->member_count == 0 ||
		sh_batch_join(&region->batch, &region->members[0]) != RT_OK ||
		ps_round_add_meta(host->round, rt_bytes_str("table"), packed) != RT_OK) {
		rt_log(RT_LOG_WARN, "region", "no memory to keep the cluster's table");
	}
}

void sh_report_table(struct sh_region *region, struct rt_bytes packed)
{
	Troupe__Cluster__ClusterTable *table = NULL;
	if (pr_guard_check(&troupe__cluster__cluster_table__descriptor, packed, NULL) == RT_OK) {
		table = troupe__cluster__cluster_table__unpack(NULL, packed.size, packed.data);
	}
	if (table == NULL || !makes_sense(region, table) || !is_newer(region, table)) {
		if (table != NULL) {
			troupe__cluster__cluster_table__free_unpacked(table, NULL);
		}
		return;
	}
	bool changed = region->table == NULL || region->table->version != table->version ||
		       region->table->term != table->term;
	sh_report_done(region);
	region->table = table;
	take_routes(region);
	count_nodes(region);
	region->report_now = region->report_now || changed;
	if (changed && rt_worker_index(region->host.worker) == 0) {
		keep(region, packed);
		region->options.table(region->options.arg, table, packed);
	}
}

const Troupe__Cluster__Placement *sh_report_target(const struct sh_region *region, uint32_t group)
{
	if (region->table == NULL || group >= region->table->state->n_placements) {
		return NULL;
	}
	return region->table->state->placements[group];
}

void sh_report_done(struct sh_region *region)
{
	if (region->table != NULL) {
		troupe__cluster__cluster_table__free_unpacked(region->table, NULL);
		region->table = NULL;
	}
}

/* ---- reports ---- */
/* One allocation for everything that a report of so many groups can point to. */
struct paper {
	Troupe__Cluster__NodeReport report;
	Troupe__Cluster__ReplicaReport **list;
	Troupe__Cluster__ReplicaReport *replicas;
	struct detail {
		uint64_t nodes[SH_MEMBERS_MAX], match[SH_MEMBERS_MAX], silent[SH_MEMBERS_MAX];
		protobuf_c_boolean votes[SH_MEMBERS_MAX];
	} * details;
};

/* What is committed: a change that is not may never be, and who was to go must not leave before. */
static void describe_members(
	const struct sh_raft *raft, Troupe__Cluster__ReplicaReport *out, struct detail *detail)
{
	const struct sh_raft_set *set = sh_raft_members_at(raft, raft->commit);
	const struct sh_members *now = &sh_raft_members(raft)->members;
	for (int i = 0; i < set->members.count; i++) {
		int at = sh_members_find(now, set->members.node[i]);
		bool self = set->members.node[i] == raft->settings.node;
		detail->nodes[i] = set->members.node[i];
		detail->votes[i] = (set->members.voters >> i & 1) != 0;
		detail->match[i] = self ? raft->stored : at < 0 ? 0 : raft->peers[at].match;
		detail->silent[i] = self || at < 0 ? 0 : raft->now - raft->peers[at].heard_at;
	}
	out->leading = true;
	out->members_index = set->index;
	out->n_nodes = out->n_votes = out->n_match = out->n_silent_ms = set->members.count;
	out->nodes = detail->nodes;
	out->votes = detail->votes;
	out->match = detail->match;
	out->silent_ms = detail->silent;
}

static bool describe(const struct sh_region_shard *member, Troupe__Cluster__ReplicaReport *out,
	struct detail *detail)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (set == NULL || raft->removed ||
		sh_members_find(&set->members, raft->settings.node) < 0) {
		return false;
	}
	troupe__cluster__replica_report__init(out);
	out->shard = member->shard.index;
	out->term = raft->term;
	out->leader = raft->leader;
	out->commit = member->told;
	out->last = raft->last;
	if (member->serving == SH_SERVING) {
		describe_members(raft, out, detail);
	}
	return true;
}

static bool fill(struct sh_region *region, struct paper *paper)
{
	uint32_t count = region->member_count;
	troupe__cluster__node_report__init(&paper->report);
	paper->list = calloc(count + 1u, sizeof(*paper->list));
	paper->replicas = calloc(count + 1u, sizeof(*paper->replicas));
	paper->details = calloc(count + 1u, sizeof(*paper->details));
	if (paper->list == NULL || paper->replicas == NULL || paper->details == NULL) {
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		size_t at = paper->report.n_replicas;
		if (describe(&region->members[i], &paper->replicas[at], &paper->details[at])) {
			paper->list[at] = &paper->replicas[at];
			paper->report.n_replicas++;
		}
	}
	const char *rpc = "";
	const char *peer = "";
	if (region->options.addresses != NULL) {
		region->options.addresses(region->options.arg, &rpc, &peer);
	}
	paper->report.replicas = paper->list;
	paper->report.node = region->options.node;
	paper->report.worker = rt_worker_index(region->host.worker);
	paper->report.workers = region->options.worker_count;
	paper->report.version = region->table == NULL ? 0 : region->table->version;
	paper->report.instance = region->options.instance;
	paper->report.rpc = (char *)(uintptr_t)rpc; /* protobuf-c only reads it */
	paper->report.peer = (char *)(uintptr_t)peer;
	return true;
}

static bool is_up(const struct sh_region *region, uint64_t node)
{
	for (uint32_t i = 0; i < region->up_count; i++) {
		if (region->up[i] == node) {
			return true;
		}
	}
	return node == region->options.node;
}

void sh_report_link(struct sh_region *region, uint64_t node, bool up)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < region->up_count; i++) {
		if (region->up[i] != node) {
			region->up[kept++] = region->up[i];
		}
	}
	region->up_count = kept;
	if (up && kept < SH_UP_MAX) {
		region->up[region->up_count++] = node;
		region->report_now = true;
	}
}

/* Node that coordinates, as far as is known here; 0: nobody, or nobody who can be reached. */
static uint64_t coordinator(const struct sh_region *region)
{
	uint32_t meta = region->options.shard_count;
	uint64_t node = region->table == NULL ? 0 : region->table->coordinator;
	if (sh_region_owns(region, meta)) {
		const struct sh_region_shard *member =
			&region->members[meta / region->options.worker_count];
		uint64_t leader = sh_calls_leader(member);
		if (leader != 0) {
			node = leader;
		} else if (node == region->options.node) {
			node = 0; /* The table is of when this node coordinated. */
		}
	}
	return is_up(region, node) ? node : 0;
}

static void deliver(struct sh_region *region, uint64_t to, struct rt_bytes frame)
{
	uint32_t worker = region->options.shard_count % region->options.worker_count;
	if (to != region->options.node) {
		const struct sh_wire *wire = region->options.wire;
		if (wire != NULL) {
			(void)wire->send(wire->arg, to, SH_LANE_CALL, frame); /* or the next one */
		}
	} else if (worker == rt_worker_index(region->host.worker)) {
		sh_ask_report(region, to, rt_bytes_of(frame.data + 1, frame.size - 1));
	} else {
		region->options.to_worker(region->options.arg, worker, frame);
	}
}

/* To a node, or, as nobody is known to coordinate, to everybody who can be reached. */
static void send_report(struct sh_region *region, uint64_t to)
{
	struct paper paper = {0};
	uint8_t *frame = NULL;
	size_t size = 0;
	if (fill(region, &paper)) {
		size = troupe__cluster__node_report__get_packed_size(&paper.report);
		frame = malloc(size + 1);
	}
	if (frame != NULL) {
		frame[0] = SH_FRAME_REPORT;
		troupe__cluster__node_report__pack(&paper.report, frame + 1);
		struct rt_bytes bytes = rt_bytes_of(frame, size + 1);
		for (uint32_t i = 0; to == 0 && i < region->up_count; i++) {
			deliver(region, region->up[i], bytes);
		}
		if (to != 0) {
			deliver(region, to, bytes);
		}
	}
	free(frame);
	free(paper.list);
	free(paper.replicas);
	free(paper.details);
}

void sh_report_tick(struct sh_region *region, uint64_t now_ms)
{
	if (region->report_now || now_ms >= region->report_at_ms) {
		region->report_now = false;
		region->report_at_ms = now_ms + REPORT_MS;
		send_report(region, coordinator(region));
	}
}

/* ---- a table for who missed it ---- */
/* Of the table that the reporter has; false: not a report. */
static bool version_of(struct rt_bytes report, uint64_t *out)
{
	struct pr_field field;
	int more;
	*out = 0;
	while ((more = pr_field_next(&report, &field)) > 0) {
		if (field.number == VERSION_FIELD) {
			*out = field.value;
		}
	}
	return more == 0;
}

void sh_report_relay(struct sh_region *region, uint64_t from, struct rt_bytes report)
{
	const Troupe__Cluster__ClusterTable *table = region->table;
	uint64_t version;
	if (table == NULL || table->coordinator == region->options.node ||
		from == region->options.node || !version_of(report, &version) ||
		version >= table->version) {
		return;
	}
	size_t size = troupe__cluster__cluster_table__get_packed_size(table);
	uint8_t *frame = malloc(size + 1);
	if (frame != NULL) { /* or with the next report */
		frame[0] = SH_FRAME_TABLE;
		troupe__cluster__cluster_table__pack(table, frame + 1);
		deliver(region, from, rt_bytes_of(frame, size + 1));
	}
	free(frame);
}
