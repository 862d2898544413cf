#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/hash.h"
#include "sharding/replica.h"
#include "tests/clustersim/clustersim.h"

static void keep(struct cs_trace *trace, const char *line, size_t size)
{
	if (trace->digest) {
		trace->hash = rt_hash_mix(trace->hash * 31 + rt_hash(line, size));
	}
	if (trace->print) {
		fwrite(line, 1, size, stdout);
	}
	if (trace->digest || trace->print) {
		return;
	}
	for (size_t i = 0; i < size; i++) {
		trace->ring[(trace->end + i) % CS_TRACE_RING] = line[i];
	}
	trace->end += size;
}

void cs_trace_line(struct cs *cs, const char *format, ...)
{
	char line[512];
	int head = snprintf(line, sizeof(line), "%5" PRIu64 ".%06" PRIu64 " ", cs->now / CS_S(1),
		cs->now % CS_S(1));
	va_list args;
	va_start(args, format);
	int body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
	va_end(args);
	size_t size = (size_t)(head + body);
	if (size > sizeof(line) - 2) {
		size = sizeof(line) - 2;
	}
	line[size++] = '\n';
	keep(cs->trace, line, size);
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

/* A line starts with its time: "   12.345678 ". */
static uint64_t line_time(const char *line)
{
	char *end;
	uint64_t seconds = strtoull(line, &end, 10);
	return *end == '.' ? CS_S(seconds) + strtoull(end + 1, NULL, 10) : 0;
}

void cs_trace_dump(const struct cs_trace *trace, uint64_t us, FILE *out)
{
	uint64_t size = trace->end < CS_TRACE_RING ? trace->end : CS_TRACE_RING;
	char *text = malloc(size + 1);
	if (text == NULL) {
		return;
	}
	uint64_t newest = 0;
	uint64_t line = 0;
	for (uint64_t i = 0; i < size; i++) {
		text[i] = trace->ring[(trace->end - size + i) % CS_TRACE_RING];
		text[i + 1] = 0;
		if (text[i] == '\n') {
			newest = line_time(text + line);
			line = i + 1;
		}
	}
	line = 0;
	for (uint64_t i = 0; i < size; i++) {
		if (text[i] == '\n') {
			if (line_time(text + line) + us >= newest) {
				fwrite(text + line, 1, i + 1 - line, out);
			}
			line = i + 1;
		}
	}
	free(text);
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
	snprintf(cs->trace->failure, sizeof(cs->trace->failure),
		"seed %" PRIu64 " (%s) at %.6f: %s", cs->seed, cs->shape.name,
		(double)cs->now / 1e6, text);
	CS_TRACE(cs, "FAILED: %s", text);
	fflush(NULL);
	_exit(3);
}
