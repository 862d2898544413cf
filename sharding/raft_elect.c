/*
 * Elections: who stands, who gets a vote, and how leadership is handed over.
 *
 *                 timeout                quorum of pre-votes             quorum of votes
 *   FOLLOWER ------------------> PRE_CANDIDATE -----------> CANDIDATE -----------------> LEADER
 *      ^  \----------------------- TIMEOUT_NOW -------------^   |  |                        |
 *      |                                                        |  | timeout: PRE_CANDIDATE  |
 *      +--------- newer term, or a leader of this term ---------+--+---- quorum unheard ----+
 *
 * Invariant: a candidate or leader has voted for itself in its term, and only in CANDIDATE does a
 * node ask for votes of a term that it is in.
 */
#include "runtime/base/assert.h"
#include "runtime/base/random.h"
#include "sharding/raft_core.h"

static bool may_become(enum sh_role from, enum sh_role to)
{
	static const uint8_t allowed[] = {
		[SH_FOLLOWER] = 1 << SH_PRE_CANDIDATE | 1 << SH_CANDIDATE,
		[SH_PRE_CANDIDATE] = 1 << SH_PRE_CANDIDATE | 1 << SH_CANDIDATE | 1 << SH_FOLLOWER,
		[SH_CANDIDATE] = 1 << SH_PRE_CANDIDATE | 1 << SH_LEADER | 1 << SH_FOLLOWER,
		[SH_LEADER] = 1 << SH_FOLLOWER,
	};
	return (allowed[from] >> to & 1) != 0;
}

static const struct sh_raft_set *set_before(const struct sh_raft *raft)
{
	return raft->set_count > 1 ? &raft->sets[raft->set_count - 2] : NULL;
}

/* Whether the entry that removes this node is in its log, committed or not. */
static bool removal_in_log(const struct sh_raft *raft)
{
	const struct sh_raft_set *before = set_before(raft);
	return before != NULL &&
	       sh_members_find(&sh_raft_members(raft)->members, raft->settings.node) < 0 &&
	       sh_members_find(&before->members, raft->settings.node) >= 0;
}

/* The same of its vote, while that is not known to be committed. */
static bool demotion_in_log(const struct sh_raft *raft)
{
	const struct sh_raft_set *before = set_before(raft);
	return before != NULL && sh_raft_members(raft)->index > raft->commit &&
	       sh_members_votes(&before->members, raft->settings.node);
}

/* Election restriction [D 3.6.1], by the log that is here and by the one that was. */
static bool up_to_date(const struct sh_raft *raft, uint64_t term, uint64_t index)
{
	return sh_core_at_least(term, index, sh_raft_term_at(raft, raft->last), raft->last) &&
	       sh_core_at_least(term, index, raft->bar_term, raft->bar_index);
}

/* Voters stand, and only on a log that is theirs for good. So does who is losing its vote or is
 * being removed: nobody else may have the entry that says so [D 4.2.2], and if somebody has, the
 * answer tells. */
bool sh_core_may_campaign(const struct sh_raft *raft)
{
	return !raft->removed && !raft->installing &&
	       up_to_date(raft, sh_raft_term_at(raft, raft->last), raft->last) &&
	       (sh_core_votes(raft, raft->settings.node) || removal_in_log(raft) ||
		       demotion_in_log(raft));
}

/* The delay grows with a voter's rank, turned by the shard, so that voters stand one after the
 * other and leaders spread; the random part is smaller than the step between two ranks. */
void sh_core_arm(struct sh_raft *raft)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint32_t voters = sh_members_voter_count(members);
	voters = voters == 0 ? 1 : voters;
	uint32_t step = raft->settings.election_ms / (2 * voters);
	uint32_t rank =
		(sh_members_rank(members, raft->settings.node) + raft->settings.rank) % voters;
	uint64_t random = rt_random_splitmix(&raft->random) % (step / 2 + 1);
	raft->deadline = raft->now + raft->settings.election_ms + rank * step + random;
}

static bool has_quorum(const struct sh_raft *raft)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint32_t granted = (uint32_t)__builtin_popcount(raft->granted & members->voters);
	return granted > sh_members_voter_count(members) / 2;
}

static void grant_by(struct sh_raft *raft, uint64_t node)
{
	int at = sh_members_find(&sh_raft_members(raft)->members, node);
	if (at >= 0) {
		raft->granted = (uint8_t)(raft->granted | 1u << at);
	}
}

static void ask_one(struct sh_raft *raft, uint64_t node, bool pre)
{
	struct sh_raft_message *vote = sh_core_send(raft, SH_MSG_VOTE, node);
	vote->term = pre ? raft->term + 1 : raft->term;
	vote->flags =
		(uint8_t)((pre ? SH_FLAG_PRE : 0) | (raft->transfer_vote ? SH_FLAG_TRANSFER : 0));
	vote->index = raft->last;
	vote->log_term = sh_raft_term_at(raft, raft->last);
	vote->round = raft->round;
	vote->stamp = raft->round_at;
}

static void ask(struct sh_raft *raft, bool pre)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	for (int i = 0; i < members->count; i++) {
		if ((members->voters >> i & 1) != 0 && members->node[i] != raft->settings.node) {
			ask_one(raft, members->node[i], pre);
		}
	}
}

/* Its vote would not count, but it may answer that this node is no member. */
rt_err sh_raft_knock(struct sh_raft *raft, uint64_t now, uint64_t node)
{
	rt_err err = sh_core_begin(raft, now, 1);
	if (err == RT_OK && raft->role == SH_PRE_CANDIDATE &&
		sh_members_find(&sh_raft_members(raft)->members, node) < 0) {
		ask_one(raft, node, true);
	}
	return err;
}

static void become_candidate(struct sh_raft *raft, bool pre)
{
	enum sh_role role = pre ? SH_PRE_CANDIDATE : SH_CANDIDATE;
	RT_ASSERT(may_become(raft->role, role));
	raft->role = role;
	raft->leader = 0;
	raft->granted = 0;
	raft->round++;
	raft->round_at = raft->now;
	if (!pre) {
		raft->term++;
		raft->vote = raft->settings.node;
		raft->verified = raft->commit;
		raft->echo_round = raft->echo_stamp = 0;
		struct sh_out *out = sh_core_emit(raft, SH_OUT_HARD);
		out->hard.term = raft->term;
		out->hard.vote = raft->vote;
	}
	sh_core_say_role(raft);
}

/* Stands for election: first asks whether it would be elected [D 9.6], then for votes [D 3.4]. */
void sh_core_campaign(struct sh_raft *raft, bool pre)
{
	sh_core_arm(raft);
	bool removal_committed =
		removal_in_log(raft) && sh_raft_members(raft)->index <= raft->commit;
	if (!sh_core_may_campaign(raft) || raft->stored < raft->last ||
		(!pre && removal_committed)) {
		sh_core_follow(raft, raft->term, 0, 0);
		return;
	}
	become_candidate(raft, pre);
	grant_by(raft, raft->settings.node);
	if (!has_quorum(raft)) {
		ask(raft, pre);
	} else if (pre) {
		sh_core_campaign(raft, false);
	} else {
		RT_ASSERT(may_become(raft->role, SH_LEADER));
		sh_core_lead(raft);
	}
}

/* A leader's word within the last election timeout, measured, protects that leader, and so the
 * lease of its reads [D 4.2.3, 6.4.1]. */
static bool leader_is_protected(const struct sh_raft *raft)
{
	return raft->role == SH_LEADER ||
	       (raft->had_contact && raft->now - raft->contact < raft->settings.election_ms);
}

static void answer_vote(
	struct sh_raft *raft, const struct sh_raft_message *m, uint64_t term, bool granted)
{
	struct sh_raft_message *result = sh_core_send(raft, SH_MSG_VOTE_RESULT, m->from);
	result->term = term;
	result->flags = (uint8_t)((m->flags & SH_FLAG_PRE) | (granted ? SH_FLAG_GRANTED : 0));
	result->round = m->round;
	result->stamp = m->stamp;
}

/* A removed member does not hear of its removal any other way [D 4.2.3]. */
static bool tell_removed(struct sh_raft *raft, const struct sh_raft_message *m)
{
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (raft->role != SH_LEADER || set->index > raft->commit ||
		sh_members_find(&set->members, m->from) >= 0) {
		return false;
	}
	struct sh_raft_message *removed = sh_core_send(raft, SH_MSG_REMOVED, m->from);
	removed->index = set->index;
	removed->round = m->round;
	removed->stamp = m->stamp;
	return true;
}

/* Whether this node votes in its own set does not matter: the set may be old, and the candidate's
 * quorum may need it [D 4.1]. A refused pre-vote carries the real term, so that a candidate with
 * the better log and the lower term catches up with it. */
void sh_core_on_vote(struct sh_raft *raft, const struct sh_raft_message *m)
{
	bool pre = (m->flags & SH_FLAG_PRE) != 0;
	bool wanted = (m->flags & SH_FLAG_TRANSFER) != 0;
	if (tell_removed(raft, m)) {
		return;
	}
	if (m->term < raft->term || (leader_is_protected(raft) && !wanted)) {
		answer_vote(raft, m, raft->term, false);
		return;
	}
	bool newer = m->term > raft->term;
	if (pre) {
		bool granted = newer && up_to_date(raft, m->log_term, m->index);
		answer_vote(raft, m, granted ? m->term : raft->term, granted);
		return;
	}
	bool can = newer || (raft->role != SH_CANDIDATE && raft->role != SH_LEADER &&
				    (raft->vote == 0 || raft->vote == m->from));
	bool granted = can && up_to_date(raft, m->log_term, m->index);
	if (newer) {
		sh_core_follow(raft, m->term, granted ? m->from : 0, 0);
	} else if (granted && raft->vote == 0) {
		raft->vote = m->from;
		struct sh_out *out = sh_core_emit(raft, SH_OUT_HARD);
		out->hard.term = raft->term;
		out->hard.vote = raft->vote;
	}
	if (granted) {
		sh_core_follow(raft, raft->term, 0, raft->leader);
		sh_core_arm(raft);
	}
	answer_vote(raft, m, raft->term, granted);
}

void sh_core_on_vote_result(struct sh_raft *raft, const struct sh_raft_message *m)
{
	bool pre = (m->flags & SH_FLAG_PRE) != 0;
	if ((m->flags & SH_FLAG_GRANTED) == 0 || m->round != raft->round ||
		raft->role != (pre ? SH_PRE_CANDIDATE : SH_CANDIDATE) ||
		m->term != (pre ? raft->term + 1 : raft->term)) {
		return;
	}
	grant_by(raft, m->from);
	if (!has_quorum(raft)) {
		return;
	}
	if (pre) {
		sh_core_campaign(raft, false);
	} else {
		RT_ASSERT(may_become(raft->role, SH_LEADER));
		sh_core_lead(raft);
	}
}

/* The leader hands over [D 3.10]. Whoever else voted meanwhile is refused as ever. */
void sh_core_on_timeout_now(struct sh_raft *raft, const struct sh_raft_message *m)
{
	if (m->term != raft->term || raft->role != SH_FOLLOWER ||
		!sh_core_votes(raft, raft->settings.node)) {
		return;
	}
	raft->transfer_vote = true;
	sh_core_campaign(raft, false);
	raft->transfer_vote = false;
}

/* Believed only as the answer to the campaign under way: an older one may be about a membership
 * that was given back since. */
void sh_core_on_removed(struct sh_raft *raft, const struct sh_raft_message *m)
{
	if (raft->role != SH_PRE_CANDIDATE || m->round != raft->round ||
		m->stamp != raft->round_at || m->term < raft->term ||
		m->index <= (removal_in_log(raft) ? set_before(raft)->index
						  : sh_raft_members(raft)->index)) {
		return;
	}
	sh_core_follow(raft, raft->term, 0, 0);
	raft->removed = true;
	sh_core_raise_bar(raft, sh_raft_term_at(raft, raft->last), raft->last);
	sh_core_emit(raft, SH_OUT_REMOVED)->removed = m->index;
}
