#include <inttypes.h>

#include "sharding/coordinator_core.h"

static const char *const states[] = {"up", "draining", "dead", "left"};

/* How many groups have the node as a member, and how many it leads. */
static void count_groups(const struct sh_coordinator *coordinator, uint64_t node, uint64_t now_ms,
	uint32_t *replicas, uint32_t *leaders)
{
	*replicas = *leaders = 0;
	for (uint32_t i = 0; i < coordinator->group_count; i++) {
		const struct sh_seen_group *seen = &coordinator->reports.groups[i];
		*replicas += sh_members_find(&seen->actual, node) >= 0;
		*leaders += sh_reports_leader(&coordinator->reports, i, now_ms) == node;
	}
}

static void print_text(struct pr_text *out, const char *name, const char *text)
{
	pr_text_printf(out, ",\"%s\":", name);
	pr_text_json_string(out, rt_bytes_str(text));
}

static void print_node(const struct sh_coordinator *coordinator, uint64_t now_ms,
	const Troupe__Cluster__Member *member, struct pr_text *out)
{
	uint32_t replicas, leaders;
	bool heard = member->node == coordinator->options.node ||
		     sh_reports_reachable(&coordinator->reports, member->node, now_ms);
	count_groups(coordinator, member->node, now_ms, &replicas, &leaders);
	pr_text_printf(out, "{\"node\":%" PRIu64, member->node);
	print_text(out, "name", member->name);
	print_text(out, "rpc", member->rpc);
	print_text(out, "peer", member->peer);
	print_text(out, "state", states[member->state]);
	pr_text_printf(out,
		",\"reachable\":%s,\"heardMs\":%" PRIu64 ",\"replicas\":%" PRIu32
		",\"leaders\":%" PRIu32 "}",
		heard ? "true" : "false",
		sh_coordinator_silent_ms(coordinator, member->node, now_ms), replicas, leaders);
}

static void print_replicas(const struct sh_seen_group *seen, struct pr_text *out)
{
	for (uint32_t i = 0; i < seen->actual.count; i++) {
		uint64_t node = seen->actual.node[i];
		uint64_t lag = node == seen->led_by || seen->match[i] > seen->last
				       ? 0
				       : seen->last - seen->match[i];
		pr_text_printf(out, "%s{\"node\":%" PRIu64 ",\"voter\":%s,\"lag\":%" PRIu64 "}",
			i > 0 ? "," : "", node,
			(seen->actual.voters >> i & 1) != 0 ? "true" : "false", lag);
	}
}

static void print_group(const struct sh_coordinator *coordinator, uint64_t now_ms, uint32_t index,
	struct pr_text *out)
{
	const struct sh_seen_group *seen = &coordinator->reports.groups[index];
	struct sh_alloc_group group;
	sh_coordinator_group(coordinator, index, now_ms, &group);
	pr_text_printf(out, "{\"shard\":%" PRIu32 ",\"name\":", index);
	if (index + 1 == coordinator->group_count) {
		pr_text_str(out, "\"meta\"");
	} else {
		pr_text_printf(out, "\"%" PRIu32 "\"", index);
	}
	pr_text_printf(out,
		",\"leader\":%" PRIu64 ",\"term\":%" PRIu64 ",\"commit\":%" PRIu64
		",\"replicas\":[",
		sh_reports_leader(&coordinator->reports, index, now_ms), seen->term, seen->commit);
	print_replicas(seen, out);
	pr_text_str(out, "],\"target\":[");
	for (uint32_t i = 0; i < group.target.count; i++) {
		pr_text_printf(out, "%s%" PRIu64, i > 0 ? "," : "", group.target.node[i]);
	}
	pr_text_printf(out, "],\"preferred\":%" PRIu64 ",\"pinned\":%s,\"moving\":%s}",
		group.target.preferred, group.target.pinned ? "true" : "false",
		sh_alloc_settled(&group) ? "false" : "true");
}

static uint32_t count_moves(const struct sh_coordinator *coordinator, uint64_t now_ms)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < coordinator->group_count; i++) {
		struct sh_alloc_group group;
		sh_coordinator_group(coordinator, i, now_ms, &group);
		count += !sh_alloc_settled(&group);
	}
	return count;
}

rt_err sh_coordinator_status(
	const struct sh_coordinator *coordinator, uint64_t now_ms, struct pr_text *out)
{
	const Troupe__Cluster__ClusterState *state = coordinator->state;
	if (!coordinator->awake) {
		return RT_E_FENCED;
	}
	if (state == NULL) {
		return RT_E_AGAIN;
	}
	pr_text_str(out, "{\"cluster\":");
	pr_text_json_string(out, rt_bytes_str(state->cluster));
	pr_text_printf(out,
		",\"version\":%" PRIu64 ",\"coordinator\":%" PRIu64 ",\"term\":%" PRIu64
		",\"replication\":%" PRIu32 ",\"shards\":%" PRIu32 ",\"movesMax\":%" PRIu32
		",\"deadAfterMs\":%" PRIu32 ",\"moves\":%" PRIu32 ",\"nodes\":[",
		coordinator->version, coordinator->options.node, coordinator->term,
		state->replication, state->shard_count, state->moves_max, state->dead_after_ms,
		count_moves(coordinator, now_ms));
	for (size_t i = 0; i < state->n_members; i++) {
		pr_text_str(out, i > 0 ? "," : "");
		print_node(coordinator, now_ms, state->members[i], out);
	}
	pr_text_str(out, "],\"groups\":[");
	for (uint32_t i = 0; i < coordinator->group_count; i++) {
		pr_text_str(out, i > 0 ? "," : "");
		print_group(coordinator, now_ms, i, out);
	}
	pr_text_str(out, "]}");
	return out->failed ? RT_E_TOOLARGE : RT_OK;
}
