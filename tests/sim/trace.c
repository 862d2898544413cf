#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/hash.h"
#include "tests/sim/sim.h"

void sim_trace_line(struct sim *sim, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	seeds_line(sim->trace, sim->now, format, args);
	va_end(args);
}

void sim_trace_message(struct sim *sim, const char *what, const struct sh_message *message)
{
	static const char *const names[SH_MSG_TYPES] = {"?", "APPEND", "APPEND_RESULT", "VOTE",
		"VOTE_RESULT", "INSTALL", "TIMEOUT_NOW", "REMOVED", "FETCH", "CHUNK"};
	if (!sim->trace->on) {
		return;
	}
	const struct sh_raft_message *m = &message->head;
	sim_trace_line(sim,
		"%s g%u %" PRIu64 "->%" PRIu64 " %s%s%s%s%s%s t%" PRIu64 " index %" PRIu64
		"^%" PRIu64 " count %u commit %" PRIu64 " hint %" PRIu64 " round %" PRIu64
		"/%" PRIu64,
		what, message->shard, m->from, m->to, m->type < SH_MSG_TYPES ? names[m->type] : "?",
		(m->flags & SH_FLAG_PRE) != 0 ? " pre" : "",
		(m->flags & SH_FLAG_REJECT) != 0 ? " reject" : "",
		(m->flags & SH_FLAG_GRANTED) != 0 ? " granted" : "",
		(m->flags & SH_FLAG_TRANSFER) != 0 ? " transfer" : "",
		(m->flags & SH_FLAG_LAST) != 0 ? " last" : "", m->term, m->index, m->log_term,
		m->count, m->commit, m->hint, m->round, m->stamp);
}

/* The whole group as it stands. */
static void say_replica(struct sim *sim, const struct sim_replica *r)
{
	static const char *const roles[] = {"follower", "pre-candidate", "candidate", "leader"};
	if (r->replica == NULL) {
		sim_trace_line(sim,
			"n%u g%u is down: term %" PRIu64 " vote %" PRIu64 " log ..%" PRIu64,
			r->node->id, r->group + 1, r->hard_term, r->hard_vote,
			sim_log_last(&r->image));
		return;
	}
	const struct sh_raft *raft = sh_replica_raft(r->replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	char members[64];
	int at = 0;
	for (uint32_t i = 0; i < set->members.count; i++) {
		bool votes = (set->members.voters >> i & 1) != 0;
		at += snprintf(members + at, sizeof(members) - (size_t)at, " %" PRIu64 "%s",
			set->members.node[i], votes ? "" : "-");
	}
	members[at] = 0;
	sim_trace_line(sim,
		"n%u g%u %s%s%s%s term %" PRIu64 " vote %" PRIu64 " leader %" PRIu64 " log %" PRIu64
		"..%" PRIu64 "..%" PRIu64 "^%" PRIu64 " stored %" PRIu64 " committed %" PRIu64
		" told %" PRIu64 " members of %" PRIu64 ":%s",
		r->node->id, r->group + 1, roles[raft->role], raft->installing ? " INSTALLING" : "",
		sh_replica_removed(r->replica) ? " REMOVED" : "", r->node->failing ? " FAILED" : "",
		raft->term, raft->vote, raft->leader, r->view.first, raft->floor, raft->last,
		sh_raft_term_at(raft, raft->last), raft->stored, raft->commit, r->committed,
		set->index, members);
}

static void say_failure(struct sim *sim, const char *text)
{
	for (uint32_t id = 1; id <= sim->shape.nodes && sim->trace->on; id++) {
		for (uint32_t g = 0; g < sim->shape.groups; g++) {
			say_replica(sim, &sim_node(sim, id)->replicas[g]);
		}
	}
	SIM_TRACE(sim, "FAILED: %s", text);
	seeds_failed(sim->trace, sim->seed, sim->shape.name, sim->now, text);
}

void sim_fail(struct sim *sim, const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say_failure(sim, text);
	_exit(3);
}

void sim_fail_at(const struct sim_replica *r, const char *cond, const char *format, ...)
{
	char text[300];
	char whole[420];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(whole, sizeof(whole), "n%u g%u: %s [%s]", r->node->id, r->group + 1, text, cond);
	say_failure(r->sim, whole);
	_exit(3);
}
