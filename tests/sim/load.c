/* What owners and operators do with the groups. */
#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

#define BACKLOG   2000u /* records that wait to be committed; an owner is not allowed more */
#define BATCH_MAX 300u

static bool may_act(const struct sim_replica *r)
{
	return r->node->up && !r->node->failing;
}

/* Any replica of any group that can be asked. */
static struct sim_replica *any_replica(struct sim *sim)
{
	struct sim_node *node = sim_node(sim, 1 + sim_below(sim, sim->shape.nodes));
	struct sim_replica *r = &node->replicas[sim_below(sim, sim->shape.groups)];
	return may_act(r) ? r : NULL;
}

/* One of those that believe to lead a group, NULL when there is none. */
static struct sim_replica *any_leader(struct sim *sim)
{
	uint32_t group = sim_below(sim, sim->shape.groups);
	struct sim_replica *found[SIM_NODES];
	uint32_t count = 0;
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		struct sim_replica *r = &sim_node(sim, id)->replicas[group];
		if (may_act(r) && r->leading) {
			found[count++] = r;
		}
	}
	return count == 0 ? NULL : found[sim_below(sim, count)];
}

/* A call that may say no for these reasons, or because the disk did. */
static void refused(struct sim_replica *r, rt_err err, uint32_t reasons, const char *what)
{
	if ((reasons >> err & 1) == 0) {
		sim_took(r, err, what);
	}
}

/* ---- proposals ---- */
static size_t answer_size(struct sim *sim, bool huge)
{
	if (huge) {
		return sim_between(sim, 100000, SH_MESSAGE_BYTES + 40000);
	}
	if (sim_chance(sim, sim->shape.long_records)) {
		return sim_between(sim, 1000, 8000);
	}
	return sim_between(sim, 1, 120);
}

static uint8_t filling(uint64_t id)
{
	return (uint8_t)(id * 37 + 11);
}

static struct sim_record *make_record(uint64_t term, uint64_t id, size_t size)
{
	static uint8_t answer[SH_MESSAGE_BYTES * 2];
	static uint8_t bytes[SH_MESSAGE_BYTES * 2 + 1024];
	memset(answer, filling(id), size);
	struct ps_record head = {.term = term,
		.kind = PS_KIND_COMMAND,
		.pid = rt_bytes_str("sim|1"),
		.first_seq = id,
		.answer = rt_bytes_of(answer, size)};
	uint8_t *end = ps_record_encode(bytes, &head, NULL);
	return sim_record_new(rt_bytes_of(bytes, (size_t)(end - bytes)));
}

bool sim_load_is(const struct sim_record *record)
{
	struct ps_record head;
	if (ps_record_decode(rt_bytes_of(record->bytes, record->size), &head) != RT_OK) {
		return false;
	}
	size_t size = head.answer.size;
	const uint8_t *at = head.answer.data;
	return size > 0 && at[0] == filling(record->id) && memcmp(at, at + 1, size - 1) == 0;
}

/* The owner's part: its records join the batch, the replica numbers them. */
static void propose(struct sim_replica *r, uint32_t count, bool huge)
{
	struct sim *sim = r->sim;
	struct rt_bytes bytes[BATCH_MAX];
	uint64_t expected = sim_log_last(&r->view) + 1;
	uint64_t first = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct sim_op op = {
			.kind = SIM_OP_RECORD, .group = r->group, .index = expected + i};
		op.record = make_record(r->lead_term, ++sim->next_id, answer_size(sim, huge));
		RT_ASSERT(op.record != NULL);
		bytes[i] = rt_bytes_of(op.record->bytes, op.record->size);
		sim_disk_add(r, &op);
	}
	rt_err err = sh_replica_propose(r->replica, bytes, count, &first);
	SIM_TRACE(sim, "n%u g%u proposes %u from %" PRIu64 ": %s", r->node->id, r->group + 1, count,
		first, rt_err_name(err));
	if (err == RT_OK) {
		SIM_CHECK(r, first == expected,
			"first is %" PRIu64 ", the log ends before %" PRIu64, first, expected);
		sim->stats->proposals += count;
		return;
	}
	sim_disk_unwrite(r, count);
	refused(r, err, 1u << RT_E_FENCED | 1u << RT_E_AGAIN, "propose");
}

void sim_load_propose(struct sim *sim)
{
	struct sim_replica *r = any_leader(sim);
	uint32_t count = 1 + sim_below(sim, 4);
	bool huge = sim_chance(sim, sim->shape.huge_records);
	if (!huge && sim_chance(sim, sim->shape.burst)) {
		count = 1 + sim_below(sim, BATCH_MAX);
	}
	if (r != NULL && sim_log_last(&r->view) < r->committed + BACKLOG) {
		propose(r, count, huge);
		sim_turn_end(sim, r->node);
	}
}

/* ---- members ---- */
static void renew(struct sim_replica *r)
{
	struct sim *sim = r->sim;
	rt_err err = sh_replica_renew(r->replica, sim_clock(sim, r->node));
	SIM_TRACE(sim, "n%u g%u is renewed: %s", r->node->id, r->group + 1, rt_err_name(err));
	if (err != RT_OK) { /* RT_E_INVAL: it is not durable yet that it was removed. */
		refused(r, err, 1u << RT_E_INVAL, "renew");
		sim_turn_end(sim, r->node);
		return;
	}
	sim->stats->readds++;
	r->leading = false;
	r->committed = r->seen_commit = 0;
	r->told_removed = r->seen_removed = false;
	r->trim_upto = 0;
	sim_turn_end(sim, r->node);
}

static bool is_removed(const struct sim_replica *r)
{
	return may_act(r) && sh_replica_removed(r->replica);
}

/* Was never a member: whoever was may not have heard yet that it is none, or not durably that it
 * is to be one again, and a vote for it may be one nobody gives. Learners prove it. */
static bool is_new(const struct sim_replica *r)
{
	return r->hard_term == 0 && !r->seen_removed && sim_log_last(&r->view) == 0;
}

static void propose_members(
	struct sim_replica *r, const struct sh_members *set, uint32_t node, uint64_t *counter)
{
	struct sim *sim = r->sim;
	uint64_t index = 0;
	rt_err err = sh_replica_propose_members(r->replica, set, &index);
	SIM_TRACE(sim, "n%u g%u change of n%u at %" PRIu64 ": %s", r->node->id, r->group + 1, node,
		index, rt_err_name(err));
	refused(r, err, 1u << RT_E_FENCED | 1u << RT_E_AGAIN, "change");
	if (err != RT_OK) {
		return;
	}
	++*counter;
	if (counter == &sim->stats->promotions) {
		struct sim_node *victim = sim_chance(sim, 50) ? r->node : sim_node(sim, node);
		sim_kill_by(sim, victim, sim->shape.crash_promote, SIM_MS(30));
	}
}

void sim_load_change(struct sim *sim)
{
	struct sim_replica *r = sim->healed ? NULL : any_leader(sim);
	uint32_t node = 1 + sim_below(sim, sim->shape.nodes);
	if (r == NULL) {
		return;
	}
	struct sh_members set = sh_raft_members(sh_replica_raft(r->replica))->members;
	struct sim_replica *other = &sim_node(sim, node)->replicas[r->group];
	uint64_t *counter = &sim->stats->removals;
	if (sh_members_find(&set, node) < 0) {
		if (is_removed(other) && sim_chance(sim, 70)) {
			renew(other);
		}
		bool votes = is_new(other) && sim_chance(sim, 10);
		RT_ASSERT(sh_members_put(&set, node, votes) == RT_OK);
		counter = &sim->stats->adds;
	} else if (!sh_members_votes(&set, node) && !sim_chance(sim, sim->shape.remove)) {
		RT_ASSERT(sh_members_put(&set, node, true) == RT_OK);
		counter = &sim->stats->promotions;
	} else if (!sh_members_votes(&set, node)) {
		sh_members_remove(&set, node);
	} else if (sh_members_voter_count(&set) > sim->shape.min_voters) {
		if (sim_chance(sim, 20)) {
			RT_ASSERT(sh_members_put(&set, node, false) == RT_OK);
		} else {
			sh_members_remove(&set, node);
		}
	} else {
		return;
	}
	if (may_act(r)) {
		propose_members(r, &set, node, counter);
		sim_turn_end(sim, r->node);
	}
}

/* A removed replica that is a member again is told so by whoever places replicas. */
void sim_load_sweep(struct sim *sim)
{
	struct sim_replica *r = any_leader(sim);
	if (r == NULL) {
		return;
	}
	const struct sh_raft *raft = sh_replica_raft(r->replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	for (uint32_t i = 0; i < set->members.count && set->index <= raft->commit; i++) {
		struct sim_replica *other =
			&sim_node(sim, set->members.node[i])->replicas[r->group];
		if (is_removed(other)) {
			renew(other);
			return;
		}
	}
}

/* When the target learns of it, or, seldom, when the attempt is given up. */
static uint64_t about(struct sim *sim)
{
	uint64_t late = sim_chance(sim, 20) ? SIM_MS(sim->shape.election_ms) : 0;
	return late + sim_below(sim, 2 * sim->shape.delay_max + SIM_MS(1) + late);
}

void sim_load_transfer(struct sim *sim)
{
	struct sim_replica *r = any_leader(sim);
	if (r == NULL) {
		return;
	}
	uint32_t to = 1 + sim_below(sim, sim->shape.nodes);
	rt_err err = sh_replica_transfer(r->replica, sim_clock(sim, r->node), to);
	SIM_TRACE(sim, "n%u g%u hands over to n%u: %s", r->node->id, r->group + 1, to,
		rt_err_name(err));
	refused(r, err, 1u << RT_E_INVAL | 1u << RT_E_FENCED | 1u << RT_E_AGAIN, "transfer");
	sim->stats->transfers += err == RT_OK;
	if (err == RT_OK && !sim->healed && sim_chance(sim, sim->shape.isolate_transfer)) {
		/* The old leader is the last to hear of the new one. */
		sim_at(sim, sim->now + about(sim),
			(struct sim_event){.kind = SIM_EV_CUT_OFF,
				.node = (uint8_t)r->node->id,
				.boot = r->node->boot});
	}
	sim_turn_end(sim, r->node);
}

/* A voter that is neither of these, 0: there is none. */
static uint64_t other_voter(struct sim *sim, const struct sh_members *set, uint64_t a, uint64_t b)
{
	uint32_t start = sim_below(sim, SH_MEMBERS_MAX);
	for (uint32_t i = 0; i < set->count; i++) {
		uint64_t node = set->node[(start + i) % set->count];
		if (node != a && node != b && sh_members_votes(set, node)) {
			return node;
		}
	}
	return 0;
}

void sim_load_triangle(struct sim *sim)
{
	struct sim_replica *r = sim->healed ? NULL : any_leader(sim);
	if (r == NULL) {
		return;
	}
	const struct sh_members *set = &sh_raft_members(sh_replica_raft(r->replica))->members;
	uint64_t deaf = other_voter(sim, set, r->node->id, r->node->id);
	uint64_t falls = other_voter(sim, set, r->node->id, deaf);
	if (falls == 0) {
		return;
	}
	sim_net_cut(sim, r->node->id, deaf);
	if (sim_chance(sim, 50)) {
		sim->cut[r->node->id][falls] = true; /* late answers still come */
		return;
	}
	for (int i = 0; i < 3; i++) {
		sim_at(sim, sim->now + SIM_MS(sim->shape.election_ms) + sim_below(sim, SIM_MS(300)),
			(struct sim_event){.kind = SIM_EV_KILL,
				.node = (uint8_t)falls,
				.boot = sim_node(sim, falls)->boot + (uint32_t)i});
	}
}

/* ---- compaction ---- */
void sim_load_compact(struct sim *sim)
{
	struct sim_replica *r = any_replica(sim);
	uint64_t trailing = sim_below(sim, sim->shape.trailing);
	if (r == NULL || r->committed <= trailing || r->trim_upto > 0) {
		return;
	}
	uint64_t floor = 0;
	uint64_t upto = r->committed - trailing;
	rt_err err = sh_replica_compact(r->replica, upto, &floor);
	SIM_TRACE(sim, "n%u g%u compacts to %" PRIu64 ": %s, floor %" PRIu64, r->node->id,
		r->group + 1, upto, rt_err_name(err), floor);
	if (err != RT_OK) {
		refused(r, err, 1u << RT_E_AGAIN, "compact");
	} else if (floor > 0) {
		SIM_CHECK(r, floor <= r->committed, "floor %" PRIu64 " of %" PRIu64 " committed",
			floor, r->committed);
		sim->stats->compactions++;
		r->trim_upto = floor;
		r->trim_written = sh_replica_written(r->replica);
	}
	sim_turn_end(sim, r->node);
	sim_load_trim(r);
}

/* Once the floor is durable, the rows up to it go, or some of them. */
void sim_load_trim(struct sim_replica *r)
{
	if (r->trim_upto == 0 || r->durable < r->trim_written || r->node->failing) {
		return;
	}
	if (r->trim_upto >= r->view.first && !r->remains && sim_chance(r->sim, 80)) {
		struct sim_op op = {.kind = SIM_OP_TRIM, .group = r->group, .index = r->trim_upto};
		SIM_TRACE(r->sim, "n%u g%u trims its log to %" PRIu64, r->node->id, r->group + 1,
			op.index);
		r->sim->stats->trims++;
		sim_disk_add(r, &op);
	}
	r->trim_upto = 0;
}

/* ---- reads ---- */
void sim_load_read(struct sim *sim)
{
	struct sim_replica *r =
		sim_chance(sim, sim->shape.read_all) ? any_replica(sim) : any_leader(sim);
	if (r == NULL) {
		return;
	}
	struct sim_ticket *ticket = r->tickets;
	while (ticket < r->tickets + SIM_TICKETS && ticket->used) {
		ticket++;
	}
	if (ticket == r->tickets + SIM_TICKETS) {
		return;
	}
	uint64_t now = sim_clock(sim, r->node);
	*ticket = (struct sim_ticket){.used = true,
		.lease = sh_raft_lease(sh_replica_raft(r->replica), now),
		.need = sim->truth[r->group].told,
		.begun = sim->now};
	SIM_TRACE(sim, "n%u g%u begins read %td", r->node->id, r->group + 1, ticket - r->tickets);
	rt_err err = sh_replica_linearize(r->replica, now, ticket);
	refused(r, err, 1u << RT_E_FULL | 1u << RT_E_FENCED | 1u << RT_E_AGAIN, "linearize");
	ticket->used = ticket->used && err == RT_OK;
	sim_turn_end(sim, r->node);
}
