/* The core's inputs: life, time, dispatch. Rules are in raft_elect.c, raft_lead.c, raft_follow.c,
 * the log of terms and sets in raft_log.c. */
#include "sharding/raft.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/raft_core.h"

#define ELECTION_MS  1000u
#define HEARTBEAT_MS 100u
#define WINDOW       1000u
#define QUEUE_MIN    16u
#define NUMBER_MAX   (UINT64_MAX / 4) /* of terms and indexes: room to add to them */

/* ---- the output queue ---- */
void sh_out_queue_done(struct sh_out_queue *queue)
{
	free(queue->items);
	*queue = (struct sh_out_queue){0};
}

bool sh_out_next(struct sh_out_queue *queue, struct sh_out *out)
{
	if (queue->head == queue->count) {
		queue->head = queue->count = 0;
		return false;
	}
	*out = queue->items[queue->head++];
	return true;
}

static rt_err queue_reserve(struct sh_out_queue *queue, uint32_t more)
{
	if (queue->cap - queue->count >= more) {
		return RT_OK;
	}
	uint32_t cap = queue->cap == 0 ? QUEUE_MIN : queue->cap;
	while (cap - queue->count < more) {
		cap *= 2;
	}
	struct sh_out *items = realloc(queue->items, cap * sizeof(*items));
	if (items == NULL) {
		return RT_E_NOMEM;
	}
	queue->items = items;
	queue->cap = cap;
	return RT_OK;
}

struct sh_out *sh_core_emit(struct sh_raft *raft, enum sh_out_kind kind)
{
	RT_ASSERT(raft->out->count < raft->out->cap);
	struct sh_out *out = &raft->out->items[raft->out->count++];
	memset(out, 0, sizeof(*out));
	out->kind = kind;
	return out;
}

struct sh_raft_message *sh_core_send(struct sh_raft *raft, enum sh_message_type type, uint64_t to)
{
	struct sh_raft_message *message = &sh_core_emit(raft, SH_OUT_SEND)->send;
	message->type = (uint8_t)type;
	message->from = raft->settings.node;
	message->to = to;
	message->term = raft->term;
	return message;
}

void sh_core_say_role(struct sh_raft *raft)
{
	struct sh_out *out = sh_core_emit(raft, SH_OUT_ROLE);
	out->role.role = raft->role;
	out->role.leader = raft->leader;
	out->role.term = raft->term;
}

/* An input puts out at most: hard state and role twice each, one append, install, commit, answer
 * and removal, two messages for every peer, and each set of members once in use and once committed.
 */
rt_err sh_core_begin(struct sh_raft *raft, uint64_t now, uint32_t changes)
{
	rt_err err = sh_core_log_reserve(raft, changes);
	if (err == RT_OK) {
		err = queue_reserve(
			raft->out, 12u + 3u * SH_MEMBERS_MAX + raft->set_count + 1u + changes);
	}
	if (err == RT_OK && now > raft->now) {
		raft->now = now;
	}
	return err;
}

/* ---- life ---- */
rt_err sh_raft_init(struct sh_raft *raft, const struct sh_raft_settings *settings,
	const struct sh_raft_restore *restore, struct sh_out_queue *out)
{
	RT_ASSERT(settings->node != 0);
	*raft = (struct sh_raft){.settings = *settings, .out = out};
	struct sh_raft_settings *set = &raft->settings;
	set->election_ms = set->election_ms == 0 ? ELECTION_MS : set->election_ms;
	set->heartbeat_ms = set->heartbeat_ms == 0 ? HEARTBEAT_MS : set->heartbeat_ms;
	set->window = set->window == 0 ? WINDOW : set->window;
	raft->random = set->seed;
	raft->term = restore->term;
	raft->vote = restore->vote;
	raft->bar_index = restore->bar_index;
	raft->bar_term = restore->bar_term;
	if (restore->floor_term > raft->term) {
		/* An install may bring entries of a term this node never took part in. */
		raft->term = restore->floor_term;
		raft->vote = 0;
	}
	rt_err err = sh_core_log_init(raft, restore);
	if (err != RT_OK) {
		sh_raft_done(raft);
		return err;
	}
	raft->commit = raft->applied = restore->commit;
	return RT_OK;
}

rt_err sh_raft_restore_entries(
	struct sh_raft *raft, uint32_t count, uint64_t term, const struct sh_members *members)
{
	if (count == 0 || (members != NULL && count != 1) || term == 0 ||
		term < sh_raft_term_at(raft, raft->last) || term > raft->term) {
		return RT_E_CORRUPT;
	}
	rt_err err = sh_core_log_reserve(raft, 1);
	if (err == RT_OK) {
		sh_core_log_push(raft, count, term, members);
	}
	return err;
}

rt_err sh_raft_start(struct sh_raft *raft, uint64_t now)
{
	if (raft->commit > raft->last) {
		return RT_E_CORRUPT;
	}
	rt_err err = sh_core_begin(raft, now, 1);
	if (err != RT_OK) {
		return err;
	}
	raft->stored = raft->last;
	raft->verified = raft->commit;
	raft->contact = raft->now;
	raft->had_contact = raft->term > 0; /* Its last word may have given a lease. [D 6.4.1] */
	sh_core_arm(raft);
	/* A leader that has taken itself out may live, with a lease this node gave it, until that
	 * is known to be committed [D 6.4.1]. */
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (sh_members_voter_count(&set->members) == 1 && set->index <= raft->commit &&
		sh_core_votes(raft, raft->settings.node)) {
		sh_core_campaign(raft, false);
	} else {
		sh_core_say_role(raft);
	}
	return RT_OK;
}

void sh_raft_done(struct sh_raft *raft)
{
	free(raft->runs);
	free(raft->sets);
	raft->runs = NULL;
	raft->sets = NULL;
}

/* ---- time ---- */
rt_err sh_raft_tick(struct sh_raft *raft, uint64_t now)
{
	if (now < sh_raft_next_timeout(raft)) {
		raft->now = now > raft->now ? now : raft->now;
		return RT_OK;
	}
	rt_err err = sh_core_begin(raft, now, 1);
	if (err != RT_OK) {
		return err;
	}
	if (raft->role == SH_LEADER) {
		sh_core_lead_tick(raft);
	} else {
		sh_core_campaign(raft, true);
	}
	return RT_OK;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t sh_raft_next_timeout(const struct sh_raft *raft)
{
	if (raft->role != SH_LEADER) {
		return sh_core_may_campaign(raft) ? raft->deadline : UINT64_MAX;
	}
	uint64_t at = raft->transferee != 0 ? raft->transfer_until : UINT64_MAX;
	const struct sh_members *members = &sh_raft_members(raft)->members;
	if (members->count > 1 || members->node[0] != raft->settings.node) {
		at = earlier(at, earlier(raft->beat_at, raft->quorum_at));
	}
	return at;
}

/* Becomes a follower [D 3.3]. With the term changes whom the log was compared with: only what is
 * committed is known to be in the new leader's log too [D 3.6.3]. */
void sh_core_follow(struct sh_raft *raft, uint64_t term, uint64_t vote, uint64_t leader)
{
	RT_ASSERT(term >= raft->term);
	bool newer = term > raft->term;
	if (newer) {
		raft->term = term;
		raft->vote = vote;
		raft->verified = raft->commit;
		raft->echo_round = raft->echo_stamp = 0;
		struct sh_out *out = sh_core_emit(raft, SH_OUT_HARD);
		out->hard.term = term;
		out->hard.vote = vote;
	}
	if (!newer && raft->role == SH_FOLLOWER && raft->leader == leader) {
		return;
	}
	bool led = raft->role != SH_FOLLOWER;
	raft->role = SH_FOLLOWER;
	raft->leader = leader;
	raft->granted = 0;
	raft->transferee = 0;
	if (led) {
		sh_core_arm(raft);
	}
	sh_core_say_role(raft);
}

/* ---- messages ---- */
static bool entries_fit(const struct sh_raft_message *m, const struct sh_raft_entry *entries)
{
	uint64_t term = m->log_term > 0 ? m->log_term : 1;
	for (uint32_t i = 0; i < m->count; i++) {
		if (entries[i].term < term || entries[i].term > m->term) {
			return false;
		}
		term = entries[i].term;
	}
	return m->log_term <= m->term && (m->index == 0) == (m->log_term == 0);
}

/* How many runs or sets the entries may add: nearly always one at most. */
static uint32_t changes(const struct sh_raft_message *m, const struct sh_raft_entry *entries)
{
	uint32_t runs = 1;
	uint32_t sets = 0;
	for (uint32_t i = 0; i < m->count; i++) {
		runs += i > 0 && entries[i].term != entries[i - 1].term;
		sets += entries[i].members != NULL;
	}
	return runs > sets ? runs : sets;
}

/* False: no leader, follower or candidate that keeps to the protocol says this. */
static bool makes_sense(const struct sh_raft *raft, const struct sh_raft_message *m,
	const struct sh_raft_entry *entries)
{
	if (m->type == 0 || m->type >= SH_MSG_FETCH || m->to != raft->settings.node ||
		m->from == 0 || m->from == m->to || m->term == 0 || (m->flags & ~SH_FLAGS) != 0) {
		return false;
	}
	if (m->type == SH_MSG_INSTALL && (m->index == 0 || m->log_term == 0)) {
		return false;
	}
	if (m->type != SH_MSG_APPEND) {
		return m->count == 0;
	}
	/* Two leaders of one term cannot be. */
	bool rival = m->term == raft->term && raft->role == SH_LEADER;
	return !rival && (m->count == 0 || entries != NULL) && entries_fit(m, entries);
}

/* No leader of this term or a later one has a log that says so. */
static bool undoes_committed(const struct sh_raft *raft, const struct sh_raft_message *m,
	const struct sh_raft_entry *entries)
{
	uint32_t skip;
	return m->type == SH_MSG_APPEND && m->term >= raft->term && !raft->installing &&
	       sh_core_fits(raft, m, entries, &skip) == SH_CORE_UNDOES;
}

/* A newer term ends whatever this node was [D 3.3], but for campaigns: an asked-for vote must not
 * disturb a working leader [D 4.2.3], a granted pre-vote names a term that nobody is in yet, and
 * who is removed has no part in terms. */
static bool brings_term(const struct sh_raft *raft, const struct sh_raft_message *m)
{
	bool pre_granted = m->type == SH_MSG_VOTE_RESULT && (m->flags & SH_FLAG_PRE) != 0 &&
			   (m->flags & SH_FLAG_GRANTED) != 0;
	return m->term > raft->term && m->type != SH_MSG_VOTE && m->type != SH_MSG_REMOVED &&
	       !pre_granted;
}

rt_err sh_raft_recv(struct sh_raft *raft, uint64_t now, const struct sh_raft_message *message,
	const struct sh_raft_entry *entries)
{
	if (!makes_sense(raft, message, entries)) {
		return RT_E_PROTO;
	}
	if (raft->removed) {
		return RT_OK;
	}
	if (undoes_committed(raft, message, entries)) {
		return RT_E_PROTO;
	}
	rt_err err = sh_core_begin(raft, now, changes(message, entries));
	if (err != RT_OK) {
		return err;
	}
	if (brings_term(raft, message)) {
		sh_core_follow(raft, message->term, 0, 0);
	}
	switch ((enum sh_message_type)message->type) {
	case SH_MSG_APPEND:
		sh_core_on_append(raft, message, entries);
		return RT_OK;
	case SH_MSG_APPEND_RESULT:
		return sh_core_on_append_result(raft, message);
	case SH_MSG_VOTE:
		sh_core_on_vote(raft, message);
		return RT_OK;
	case SH_MSG_VOTE_RESULT:
		sh_core_on_vote_result(raft, message);
		return RT_OK;
	case SH_MSG_INSTALL:
		sh_core_on_install(raft, message);
		return RT_OK;
	case SH_MSG_TIMEOUT_NOW:
		sh_core_on_timeout_now(raft, message);
		return RT_OK;
	case SH_MSG_REMOVED:
		sh_core_on_removed(raft, message);
		return RT_OK;
	case SH_MSG_FETCH:
	case SH_MSG_CHUNK:
	case SH_MSG_TYPES:
		break;
	}
	return RT_E_PROTO;
}

/* ---- completions ---- */
/* What was written under an older generation was cut off since, or is covered by the completion of
 * what was written after the cut. */
rt_err sh_raft_stored(struct sh_raft *raft, uint64_t index, uint64_t generation)
{
	if (generation != raft->generation || index <= raft->stored) {
		return RT_OK;
	}
	if (index > raft->last) {
		return RT_E_INVAL;
	}
	rt_err err = sh_core_begin(raft, raft->now, 1);
	if (err != RT_OK) {
		return err;
	}
	raft->stored = index;
	if (raft->role == SH_LEADER) {
		sh_core_advance(raft);
	} else {
		sh_core_acknowledge(raft);
	}
	return RT_OK;
}

void sh_raft_behind(struct sh_raft *raft, bool behind)
{
	raft->behind = behind;
}

void sh_raft_applied(struct sh_raft *raft, uint64_t index)
{
	if (index > raft->applied && index <= raft->commit) {
		raft->applied = index;
	}
}
