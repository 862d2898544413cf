#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/hash.h"
#include "sharding/replica.h"
#include "tests/clustersim/clustersim.h"

void cs_trace_line(struct cs *cs, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	seeds_line(cs->trace, cs->now, format, args);
	va_end(args);
}

void cs_trace_log(void *arg, const char *line)
{
	struct cs *cs = arg;
	const char *level = strstr(line, "level=");
	if (cs->trace->on && level != NULL) {
		cs_trace_line(cs, "n%u %.*s", cs_clock_node == NULL ? 0 : cs_clock_node->id,
			(int)strcspn(level, "\n"), level);
	}
}

static void say_replica(struct cs *cs, const struct cs_node *node, uint32_t group)
{
	static const char *const roles[] = {"follower", "pre-candidate", "candidate", "leader"};
	const struct sh_replica *replica = cs_node_replica(node, group);
	const struct sh_raft *raft = sh_replica_raft(replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	char members[80] = "";
	int at = 0;
	for (uint32_t i = 0; set != NULL && i < set->members.count; i++) {
		bool votes = (set->members.voters >> i & 1) != 0;
		at += snprintf(members + at, sizeof(members) - (size_t)at, " %" PRIu64 "%s",
			set->members.node[i], votes ? "" : "-");
	}
	cs_trace_line(cs,
		"n%u g%u %s%s%s%s term %" PRIu64 " leader %" PRIu64 " floor %" PRIu64
		" last %" PRIu64 " stored %" PRIu64 " committed %" PRIu64 " members of %" PRIu64
		":%s",
		node->id, group, roles[raft->role], cs_node_serves(node, group) ? " SERVES" : "",
		raft->installing ? " INSTALLING" : "",
		sh_replica_removed(replica) ? " REMOVED" : "", raft->term, raft->leader,
		raft->floor, raft->last, raft->stored, raft->commit, set == NULL ? 0 : set->index,
		members);
}

static void say_all(struct cs *cs)
{
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		const struct cs_node *node = &cs->nodes[id];
		if (!node->exists || !node->up) {
			if (node->exists) {
				cs_trace_line(cs, "n%u is %s", id, node->gone ? "lost" : "down");
			}
			continue;
		}
		for (uint32_t g = 0; g < cs_groups(cs); g++) {
			if (cs_node_replica(node, g) != NULL) {
				say_replica(cs, node, g);
			}
		}
	}
	for (uint32_t i = 0; i <= cs->shape.clients; i++) {
		if (cs->clients[i].op != 0) {
			const struct cs_op *op = &cs->ops[cs->clients[i].op];
			cs_trace_line(cs, "c%u waits for %u, shard %u, since %.6f", i, op->id,
				op->kind == CS_OP_ADMIN ? cs->shape.shards
							: cs->entity_shard[op->entity],
				(double)op->invoked / 1e6);
		}
	}
}

void cs_fail(struct cs *cs, const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (cs->trace->on) {
		say_all(cs);
	}
	CS_TRACE(cs, "FAILED: %s", text);
	seeds_failed(cs->trace, cs->seed, cs->shape.name, cs->now, text);
}
