/*
 * What must hold, looked at after every step of every replica.
 *
 * The truth of a group is what any core ever held to be committed, entry by entry; it only grows,
 * and every log, disk, message and answer is compared with it.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

static struct sim_truth *truth_of(const struct sim_replica *r)
{
	return &r->sim->truth[r->group];
}

static bool is_true(const struct sim_truth *truth, uint64_t index, const struct sim_record *record)
{
	const struct sim_entry *entry = &truth->entries[index - 1];
	return entry->term == record->term && entry->hash == record->hash;
}

/* ---- the truth grows ---- */
static void *grown(void *items, uint64_t need, uint64_t *cap, size_t size)
{
	if (need <= *cap) {
		return items;
	}
	uint64_t more = need + need / 2 + 64;
	items = realloc(items, more * size);
	RT_ASSERT(items != NULL);
	memset((uint8_t *)items + *cap * size, 0, (more - *cap) * size);
	*cap = more;
	return items;
}

/* A proposal is in a log once, however often it was sent. */
static void add_id(struct sim_replica *r, struct sim_truth *truth, uint64_t id)
{
	truth->ids = grown(truth->ids, id / 8 + 1, &truth->ids_cap, 1);
	uint8_t bit = (uint8_t)(1u << (id % 8));
	SIM_CHECK(
		r, (truth->ids[id / 8] & bit) == 0, "proposal %" PRIu64 " is committed twice", id);
	truth->ids[id / 8] |= bit;
}

static void add_truth(struct sim_replica *r, const struct sim_record *record, uint64_t term)
{
	struct sim_truth *truth = truth_of(r);
	truth->entries =
		grown(truth->entries, truth->count + 1, &truth->cap, sizeof(*truth->entries));
	truth->entries[truth->count++] = (struct sim_entry){record->term, record->hash, term};
	r->sim->stats->commits++;
	if (record->id != 0) {
		add_id(r, truth, record->id);
	}
	if (record->members != NULL) {
		uint64_t cap = truth->set_cap;
		truth->sets = grown(truth->sets, truth->set_count + 1, &cap, sizeof(*truth->sets));
		truth->set_cap = (uint32_t)cap;
		truth->sets[truth->set_count++] =
			(struct sh_raft_set){truth->count, *record->members};
	}
}

/* Compares what the core newly holds to be committed with the truth, as far as it is in the log
 * already: a core is ahead of its host within a step. */
static void compare_commit(struct sim_replica *r)
{
	struct sim_truth *truth = truth_of(r);
	const struct sh_raft *raft = sh_replica_raft(r->replica);
	uint64_t index = r->seen_commit + 1 > r->view.first ? r->seen_commit + 1 : r->view.first;
	for (; index <= raft->commit; index++) {
		const struct sim_record *record = sim_log_at(&r->view, index);
		if (record == NULL) {
			break;
		}
		if (index > truth->count) {
			SIM_CHECK(r, index == truth->count + 1,
				"commits %" PRIu64 " after %" PRIu64, index, truth->count);
			add_truth(r, record, raft->term);
		}
		SIM_CHECK(r, is_true(truth, index, record),
			"STATE MACHINE SAFETY at %" PRIu64 ": term %" PRIu64 ", was term %" PRIu64,
			index, record->term, truth->entries[index - 1].term);
	}
	r->seen_commit = index - 1;
}

/* ---- what is on disks ---- */
static bool disk_holds(const struct sim_replica *r, uint64_t index)
{
	if (r->image_lost) {
		return false;
	}
	const struct sim_record *record = sim_log_at(&r->image, index);
	return record == NULL ? index < r->image.first : is_true(truth_of(r), index, record);
}

/* In every majority somebody has it. A majority itself may not: an entry can be committed by that
 * of a change which is taken back. */
static bool quorum_holds(struct sim *sim, uint32_t group, const struct sh_members *set)
{
	uint32_t held = 0;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct sim_replica *r = &sim_node(sim, set->node[i])->replicas[group];
		held += (set->voters >> i & 1) != 0 && disk_holds(r, sim->truth[group].count);
	}
	return 2 * held >= sh_members_voter_count(set);
}

static const struct sh_members *committed_set(struct sim *sim, uint32_t group)
{
	const struct sim_truth *truth = &sim->truth[group];
	return truth->set_count == 0 ? &sim->first : &truth->sets[truth->set_count - 1].members;
}

/* A change that is not committed may have its own majority hold what the old set's does not. */
static bool safe_on_disks(struct sim *sim, uint32_t group)
{
	if (sim->truth[group].count == 0 || quorum_holds(sim, group, committed_set(sim, group))) {
		return true;
	}
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		const struct sim_replica *r = &sim_node(sim, id)->replicas[group];
		uint64_t index = 0;
		const struct sim_record *last = sim_log_members(&r->view, &index);
		if (last != NULL && index > sim->truth[group].count &&
			quorum_holds(sim, group, last->members)) {
			return true;
		}
	}
	return false;
}

/* A node that is still in an older term may well cut off what is committed: nobody counted on it.
 */
void sim_check_loss(struct sim_replica *r)
{
	SIM_CHECK(r, safe_on_disks(r->sim, r->group),
		"%" PRIu64 " is committed, and a majority's disks are without it",
		truth_of(r)->count);
}

void sim_check_op(struct sim_replica *r, const struct sim_op *op)
{
	uint64_t last = sim_log_last(&r->view);
	switch (op->kind) {
	case SIM_OP_RECORD:
		SIM_CHECK(r, op->index == last + 1, "writes %" PRIu64 " behind %" PRIu64, op->index,
			last);
		break;
	case SIM_OP_CUT:
		SIM_CHECK(r, op->index > r->committed || r->remains,
			"cuts at %" PRIu64 ", its owner has %" PRIu64, op->index, r->committed);
		r->remains = false;
		break;
	case SIM_OP_WIPE:
		r->remains = false;
		break;
	case SIM_OP_META:
	case SIM_OP_TRIM:
	case SIM_OP_INSTALLING:
		break;
	}
}

static uint64_t little_endian(const uint8_t *at)
{
	uint64_t value = 0;
	for (int i = 7; i >= 0; i--) {
		value = value << 8 | at[i];
	}
	return value;
}

/* Terms never go back, and a vote once given in a term stays. */
void sim_check_hard(struct sim_replica *r, struct rt_bytes row)
{
	SIM_CHECK(r, row.size == 16, "hard state of %zu bytes", row.size);
	uint64_t term = little_endian(row.data);
	uint64_t vote = little_endian(row.data + 8);
	SIM_CHECK(r, term >= r->hard_term, "term %" PRIu64 " goes back to %" PRIu64, r->hard_term,
		term);
	SIM_CHECK(r, term > r->hard_term || r->hard_vote == 0 || r->hard_vote == vote,
		"votes for %" PRIu64 " and %" PRIu64 " in term %" PRIu64, r->hard_vote, vote, term);
	r->hard_term = term;
	r->hard_vote = vote;
}

void sim_check_opened(struct sim_replica *r)
{
	const struct sh_raft *raft = sh_replica_raft(r->replica);
	if (raft->term > r->hard_term && raft->term == sh_raft_term_at(raft, raft->floor)) {
		r->hard_term = raft->term; /* It comes with the mark of an install. */
		r->hard_vote = 0;
	}
	SIM_CHECK(r, raft->term == r->hard_term && raft->vote == r->hard_vote,
		"opens in term %" PRIu64 " for %" PRIu64 ", the disk has %" PRIu64 " for %" PRIu64,
		raft->term, raft->vote, r->hard_term, r->hard_vote);
	r->remains = false;
	r->seen_removed = sh_replica_removed(r->replica);
	if (r->seen_removed) {
		return;
	}
	uint64_t last = sim_log_last(&r->image);
	if (r->image_lost && raft->last == 0) {
		r->remains = true;
		return;
	}
	SIM_CHECK(r, raft->last == last, "opens with %" PRIu64 ", the disk has %" PRIu64,
		raft->last, last);
	r->image_lost = false;
	SIM_CHECK(r, raft->commit <= truth_of(r)->count, "opens with %" PRIu64 " committed",
		raft->commit);
}

/* ---- leaders ---- */
static void check_complete(struct sim_replica *r, uint64_t term)
{
	struct sim_truth *truth = truth_of(r);
	uint64_t index = truth->count;
	while (index > 0 && truth->entries[index - 1].commit_term >= term) {
		index--;
	}
	if (index == 0 || index < r->view.first) {
		return;
	}
	const struct sim_record *record = sim_log_at(&r->view, index);
	SIM_CHECK(r, record != NULL && is_true(truth, index, record),
		"LEADER COMPLETENESS: elected in term %" PRIu64 " without %" PRIu64 "^%" PRIu64
		", committed in term %" PRIu64,
		term, index, truth->entries[index - 1].term, truth->entries[index - 1].commit_term);
}

static void check_leader(struct sim_replica *r, const struct sh_raft *raft)
{
	struct sim_truth *truth = truth_of(r);
	/* A sole voter leads before it is durable that it does, and nobody hears of it. */
	if (raft->term == r->seen_led_term || r->hard_term < raft->term) {
		return;
	}
	r->seen_led_term = raft->term;
	truth->leader_of = grown(truth->leader_of, raft->term + 1, &truth->term_cap, 1);
	uint8_t other = truth->leader_of[raft->term];
	SIM_CHECK(r, other == 0, "TWO LEADERS of term %" PRIu64 ", n%u led it", raft->term, other);
	truth->leader_of[raft->term] = (uint8_t)r->node->id;
	check_complete(r, raft->term);
	sim_kill_by(r->sim, r->node, r->sim->shape.crash_lead, SIM_MS(30));
}

void sim_check_lead(struct sim_replica *r, uint64_t term, uint64_t last)
{
	const struct sh_raft *raft = sh_replica_raft(r->replica);
	compare_commit(r);
	SIM_CHECK(r, !r->leading, "leads twice");
	SIM_CHECK(r, raft->role == SH_LEADER && raft->term == term,
		"leads term %" PRIu64 " of %" PRIu64, term, raft->term);
	SIM_CHECK(r, last == raft->last && last <= raft->commit,
		"leads from %" PRIu64 ", has %" PRIu64 ", committed %" PRIu64, last, raft->last,
		raft->commit);
}

/* Leader of that term, if it still is. */
static struct sim_replica *leader_of(const struct sim_replica *r, uint64_t term)
{
	struct sim_truth *truth = truth_of(r);
	if (term >= truth->term_cap || truth->leader_of[term] == 0) {
		return NULL;
	}
	struct sim_node *node = sim_node(r->sim, truth->leader_of[term]);
	struct sim_replica *leader = &node->replicas[r->group];
	const struct sh_raft *raft = node->up ? sh_replica_raft(leader->replica) : NULL;
	return raft != NULL && raft->role == SH_LEADER && raft->term == term ? leader : NULL;
}

/* ---- the step ---- */
/* The set in use is the last one in the log, read from its bytes. */
static void check_members(struct sim_replica *r, const struct sh_raft *raft)
{
	const struct sh_raft_set *used = sh_raft_members(raft);
	uint64_t index = 0;
	const struct sim_record *last = sim_log_members(&r->view, &index);
	if (last == NULL && sim_log_last(&r->view) == 0) {
		SIM_CHECK(
			r, used->index == 0, "members of %" PRIu64 " in an empty log", used->index);
		return;
	}
	const struct sh_members *expected = last == NULL ? NULL : last->members;
	if (last == NULL) { /* It was trimmed, so it is committed. */
		const struct sim_truth *truth = truth_of(r);
		expected = &r->sim->first;
		for (uint32_t i = 0; i < truth->set_count; i++) {
			if (truth->sets[i].index < r->view.first) {
				expected = &truth->sets[i].members;
				index = truth->sets[i].index;
			}
		}
	}
	if (index == 0 && used->index == 0 && used->members.count == 0) {
		return; /* It waits to be added and has not heard of the first members. */
	}
	SIM_CHECK(r, used->index == index && sh_members_equal(&used->members, expected),
		"uses the members of %" PRIu64 ", its log has those of %" PRIu64, used->index,
		index);
}

static void check_log(struct sim_replica *r, const struct sh_raft *raft)
{
	SIM_CHECK(r, raft->last == sim_log_last(&r->view),
		"core ends at %" PRIu64 ", log at %" PRIu64, raft->last, sim_log_last(&r->view));
	SIM_CHECK(r, raft->floor + 1 >= r->view.first, "floor %" PRIu64 ", log from %" PRIu64,
		raft->floor, r->view.first);
	SIM_CHECK(r, raft->floor <= raft->commit && raft->commit <= raft->last,
		"floor %" PRIu64 ", commit %" PRIu64 ", last %" PRIu64, raft->floor, raft->commit,
		raft->last);
	SIM_CHECK(r, raft->commit >= r->seen_commit,
		"commit goes back from %" PRIu64 " to %" PRIu64, r->seen_commit, raft->commit);
	const struct sim_record *written = sim_log_at(&r->view, raft->stored);
	const struct sim_record *durable = sim_log_at(&r->image, raft->stored);
	SIM_CHECK(r, raft->stored <= sim_log_last(&r->image),
		"stored %" PRIu64 ", disk has %" PRIu64, raft->stored, sim_log_last(&r->image));
	SIM_CHECK(r, written == NULL || durable == NULL || written->hash == durable->hash,
		"stored %" PRIu64 " is another entry on the disk", raft->stored);
}

static void check_terms(struct sim_replica *r, const struct sh_raft *raft)
{
	SIM_CHECK(r, raft->term >= r->seen_term, "term %" PRIu64 " after %" PRIu64, raft->term,
		r->seen_term);
	bool candidate = raft->role == SH_CANDIDATE;
	r->sim->stats->elections += candidate && (!r->seen_candidate || raft->term > r->seen_term);
	r->seen_candidate = candidate;
	r->seen_term = raft->term;
	if (raft->role == SH_LEADER) {
		check_leader(r, raft);
	}
}

static void check_removed(struct sim_replica *r)
{
	const struct sim_truth *truth = truth_of(r);
	bool without = false;
	for (uint32_t i = 0; i < truth->set_count && !without; i++) {
		without = sh_members_find(&truth->sets[i].members, r->node->id) < 0;
	}
	SIM_CHECK(r, without, "believes to be removed, no committed set is without it");
}

static void note_install(struct sim_replica *r, bool installing)
{
	if (installing && !r->seen_installing) {
		SIM_TRACE(r->sim, "n%u g%u installs", r->node->id, r->group + 1);
		struct sim_op op = {.kind = SIM_OP_INSTALLING, .group = r->group};
		sim_disk_add(r, &op);
		sim_kill_by(r->sim, r->node, r->sim->shape.crash_install, SIM_MS(60));
	}
	r->seen_installing = installing;
	if (installing) {
		r->seen_commit = r->committed = 0;
	}
}

void sim_check_step(struct sim_replica *r)
{
	const struct sh_raft *raft = sh_replica_raft(r->replica);
#ifdef RT_DEBUG
	sh_raft_check(raft);
#endif
	check_terms(r, raft);
	note_install(r, raft->installing);
	bool removed = sh_replica_removed(r->replica);
	if (removed && !r->seen_removed) {
		compare_commit(r);
		check_removed(r);
	}
	r->seen_removed = removed;
	if (removed || raft->installing || r->remains) {
		return;
	}
	uint64_t before = r->seen_commit;
	check_log(r, raft);
	compare_commit(r);
	SIM_CHECK(r, raft->commit <= truth_of(r)->count, "commit %" PRIu64 " is not in its log",
		raft->commit);
	r->seen_commit = raft->commit;
	check_members(r, raft);
	if (raft->role == SH_LEADER && raft->commit > before) {
		SIM_CHECK(r, safe_on_disks(r->sim, r->group),
			"commits %" PRIu64 ", a majority is without it", raft->commit);
	}
}

/* ---- what the owner is told ---- */
void sim_check_told(struct sim_replica *r, uint64_t upto)
{
	struct sim_truth *truth = truth_of(r);
	compare_commit(r);
	SIM_CHECK(
		r, upto > r->committed, "committed %" PRIu64 " after %" PRIu64, upto, r->committed);
	SIM_CHECK(r, upto <= truth->count, "committed %" PRIu64 " of %" PRIu64, upto, truth->count);
	SIM_CHECK(r, disk_holds(r, upto), "committed %" PRIu64 " is not on the disk", upto);
	if (r->leading) {
		r->sim->stats->acknowledged += upto - r->committed;
	}
	r->committed = upto;
	truth->told = upto > truth->told ? upto : truth->told;
}

void sim_check_installed(struct sim_replica *r, uint64_t first, uint64_t last)
{
	struct sim_truth *truth = truth_of(r);
	SIM_CHECK(r, last <= truth->count, "installed %" PRIu64 " of %" PRIu64, last, truth->count);
	SIM_CHECK(r, r->image.first == first && sim_log_last(&r->image) == last,
		"installed %" PRIu64 "..%" PRIu64 ", disk has %" PRIu64 "..%" PRIu64, first, last,
		r->image.first, sim_log_last(&r->image));
	for (uint64_t index = first; index <= last; index++) {
		SIM_CHECK(r, is_true(truth, index, sim_log_at(&r->image, index)),
			"installed another entry at %" PRIu64, index);
	}
	r->committed = r->seen_commit = last;
}

/* ---- what leaves ---- */
static void check_vote(struct sim_replica *r, const struct sh_raft_message *m, uint64_t for_whom)
{
	SIM_CHECK(r,
		m->term < r->hard_term || (m->term == r->hard_term && r->hard_vote == for_whom),
		"a vote for %" PRIu64 " in %" PRIu64 " leaves, the disk has %" PRIu64
		" in %" PRIu64,
		for_whom, m->term, r->hard_vote, r->hard_term);
}

static void check_ack(struct sim_replica *r, const struct sh_raft_message *m)
{
	/* What was held back from before an install began is as good as late: the leader that sends
	 * the shard has committed it without this node. */
	if (m->index == 0 || (r->image_lost && m->index <= truth_of(r)->count)) {
		return;
	}
	SIM_CHECK(r, !r->image_lost && m->index <= sim_log_last(&r->image),
		"acknowledges %" PRIu64 ", the disk has %" PRIu64, m->index,
		sim_log_last(&r->image));
	const struct sim_replica *leader = leader_of(r, m->term);
	const struct sim_record *mine = sim_log_at(&r->image, m->index);
	const struct sim_record *theirs =
		leader == NULL ? NULL : sim_log_at(&leader->view, m->index);
	SIM_CHECK(r, mine == NULL || theirs == NULL || mine->hash == theirs->hash,
		"acknowledges %" PRIu64 ", which is another entry than its leader's", m->index);
}

static void check_append(struct sim_replica *r, const struct sh_message *message)
{
	const struct sh_raft_message *m = &message->head;
	const struct sim_record *previous = sim_log_at(&r->view, m->index);
	SIM_CHECK(r, previous == NULL || previous->term == m->log_term,
		"sends %" PRIu64 "^%" PRIu64 ", has term %" PRIu64, m->index, m->log_term,
		previous->term);
	SIM_CHECK(r, m->commit <= truth_of(r)->count, "says that %" PRIu64 " is committed",
		m->commit);
	for (uint32_t i = 0; i < m->count; i++) {
		const struct sim_record *record = sim_log_at(&r->view, m->index + 1 + i);
		SIM_CHECK(r, record == NULL || record->hash == sim_record_hash(message->records[i]),
			"sends another entry at %" PRIu64, m->index + 1 + i);
	}
}

static void check_chunk(struct sim_replica *r, const struct sh_message *message)
{
	struct sim_truth *truth = truth_of(r);
	const struct sh_raft_message *m = &message->head;
	for (uint32_t i = 0; i < m->count; i++) {
		uint64_t index = m->index + i;
		SIM_CHECK(r,
			index <= truth->count && truth->entries[index - 1].hash ==
							 sim_record_hash(message->records[i]),
			"streams %" PRIu64 ", which is not committed so", index);
	}
}

void sim_check_send(struct sim_replica *r, const struct sh_message *message)
{
	const struct sh_raft_message *m = &message->head;
	bool pre = (m->flags & SH_FLAG_PRE) != 0;
	SIM_CHECK(r, !r->node->failing, "says something after its disk failed");
	SIM_CHECK(r, m->from == r->node->id && message->shard == r->group + 1, "not its address");
	if (!r->seen_installing && !sh_replica_raft(r->replica)->installing && !r->remains) {
		compare_commit(r);
	}
	if (m->type < SH_MSG_FETCH && !(pre && m->type == SH_MSG_VOTE) &&
		!(pre && (m->flags & SH_FLAG_GRANTED) != 0)) {
		SIM_CHECK(r, m->term <= r->hard_term,
			"term %" PRIu64 " leaves, the disk has %" PRIu64, m->term, r->hard_term);
	}
	if (m->type == SH_MSG_VOTE && !pre) {
		check_vote(r, m, m->from);
	} else if (m->type == SH_MSG_VOTE_RESULT && (m->flags & SH_FLAG_GRANTED) != 0 && !pre) {
		check_vote(r, m, m->to);
	} else if (m->type == SH_MSG_APPEND_RESULT && (m->flags & SH_FLAG_REJECT) == 0) {
		check_ack(r, m);
	} else if (m->type == SH_MSG_APPEND) {
		check_append(r, message);
	} else if (m->type == SH_MSG_CHUNK) {
		check_chunk(r, message);
	}
}

/* ---- the end ---- */
static const char *why_apart(const struct sim_replica *r, const struct sh_raft *leader)
{
	const struct sh_raft *raft = r->node->up ? sh_replica_raft(r->replica) : NULL;
	if (raft == NULL || r->node->failing) {
		return "a member is down";
	}
	if (sh_replica_removed(r->replica)) {
		return "a member believes to be removed";
	}
	if (raft->installing) {
		return "a member installs";
	}
	struct sh_replica_stats stats;
	sh_replica_stats(r->replica, &stats);
	if (stats.parked > 0) {
		return "a message is held back";
	}
	if (raft->last != leader->last || raft->commit != leader->commit ||
		raft->stored != leader->last || r->committed != leader->commit) {
		return "a member lags";
	}
	for (uint32_t i = 0; i < SIM_TICKETS; i++) {
		if (r->tickets[i].used) {
			return "a read waits";
		}
	}
	return sh_members_equal(&sh_raft_members(raft)->members, &sh_raft_members(leader)->members)
		       ? NULL
		       : "a member has other members";
}

static const char *why_group_apart(struct sim *sim, uint32_t group)
{
	const struct sh_raft *leader = NULL;
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		const struct sim_node *node = sim_node(sim, id);
		const struct sh_raft *raft =
			node->up ? sh_replica_raft(node->replicas[group].replica) : NULL;
		if (raft != NULL && raft->role == SH_LEADER) {
			if (leader != NULL) {
				return "two lead";
			}
			leader = raft;
		}
	}
	if (leader == NULL || leader->commit < leader->last) {
		return leader == NULL ? "nobody leads" : "the leader does not commit";
	}
	const struct sh_members *set = &sh_raft_members(leader)->members;
	for (uint32_t i = 0; i < set->count; i++) {
		const char *why = why_apart(&sim_node(sim, set->node[i])->replicas[group], leader);
		if (why != NULL) {
			SIM_TRACE(sim, "g%u n%" PRIu64 ": %s", group + 1, set->node[i], why);
			return why;
		}
	}
	return NULL;
}

const char *sim_check_converged(struct sim *sim)
{
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		const char *why = why_group_apart(sim, g);
		if (why != NULL) {
			SIM_TRACE(sim, "g%u: %s", g + 1, why);
			return why;
		}
	}
	return NULL;
}

/* Every byte of every disk; all that an owner was ever told is there. */
void sim_check_end(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->shape.nodes * sim->shape.groups; i++) {
		struct sim_replica *r =
			&sim->nodes[i / sim->shape.groups].replicas[i % sim->shape.groups];
		const struct sh_raft *raft = sh_replica_raft(r->replica);
		struct sh_replica_stats stats;
		sh_replica_stats(r->replica, &stats);
		SIM_CHECK(r, stats.refused == 0 || sim->shape.torn > 0,
			"refused %" PRIu64 " messages", stats.refused);
		for (uint64_t index = r->image.first; index <= raft->commit && !r->image_lost;
			index++) {
			const struct sim_record *record = sim_log_at(&r->image, index);
			if (sh_replica_removed(r->replica) && record == NULL) {
				break;
			}
			SIM_CHECK(r, record != NULL && is_true(truth_of(r), index, record),
				"another entry at %" PRIu64, index);
			SIM_CHECK(r, record->id == 0 || sim_load_is(record),
				"proposal %" PRIu64 " changed", record->id);
		}
	}
}
