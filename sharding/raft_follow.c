/* The follower: appends, acknowledgements, installs. */
#include "runtime/base/assert.h"
#include "sharding/raft_core.h"

static void hear(struct sh_raft *raft, const struct sh_raft_message *m)
{
	sh_core_follow(raft, m->term, 0, m->from);
	raft->contact = raft->now;
	raft->had_contact = true;
	sh_core_arm(raft);
	raft->echo_round = m->round > raft->echo_round ? m->round : raft->echo_round;
	raft->echo_stamp = m->stamp > raft->echo_stamp ? m->stamp : raft->echo_stamp;
}

static struct sh_raft_message *answer(struct sh_raft *raft, uint64_t to)
{
	struct sh_raft_message *result = sh_core_send(raft, SH_MSG_APPEND_RESULT, to);
	result->flags = raft->behind ? SH_FLAG_BEHIND : 0;
	result->round = raft->echo_round;
	result->stamp = raft->echo_stamp;
	return result;
}

/* What is durable here, as far as it is known to be the leader's [D 3.5, 10.2.1]: an entry of an
 * earlier leader may be stored and still not be in this one's log. */
void sh_core_acknowledge(struct sh_raft *raft)
{
	if (raft->leader == 0 || raft->leader == raft->settings.node) {
		return;
	}
	struct sh_raft_message *result = answer(raft, raft->leader);
	result->index = raft->stored < raft->verified ? raft->stored : raft->verified;
}

/* Names the first entry of the term that does not fit, to skip it whole [D 3.5]. */
static void reject(struct sh_raft *raft, const struct sh_raft_message *m)
{
	uint64_t hint = raft->last + 1;
	if (m->index <= raft->last) {
		hint = sh_core_run_first(raft, m->index);
		hint = hint > raft->commit ? hint : raft->commit + 1;
	}
	struct sh_raft_message *result = answer(raft, m->from);
	result->flags |= SH_FLAG_REJECT;
	result->index = m->index;
	result->hint = hint;
}

/* Entries skip..count-1 of the message go in at the end, after what contradicts them is cut off. */
static void take(struct sh_raft *raft, const struct sh_raft_message *m,
	const struct sh_raft_entry *entries, uint32_t skip)
{
	uint64_t from = m->index + 1 + skip;
	bool truncate = from <= raft->last;
	const uint64_t set_index = sh_raft_members(raft)->index;
	const uint64_t generation = raft->generation;
	if (truncate) {
		sh_core_log_cut(raft, from);
	}
	for (uint32_t i = skip; i < m->count; i++) {
		sh_core_log_push(raft, 1, entries[i].term, entries[i].members);
	}
	struct sh_out *out = sh_core_emit(raft, SH_OUT_APPEND);
	out->append.from = from;
	out->append.count = m->count - skip;
	out->append.skip = skip;
	out->append.term = m->term;
	out->append.generation = raft->generation;
	out->append.source = SH_FROM_MESSAGE;
	out->append.truncate = truncate;
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (set->index != set_index || (raft->generation != generation && set->index >= from)) {
		sh_core_say_members(raft, set, false);
	}
}

/* Where the message meets the log. What reaches below the floor is trimmed: up to there the logs
 * are equal, since it is committed. */
enum sh_core_fit sh_core_fits(const struct sh_raft *raft, const struct sh_raft_message *m,
	const struct sh_raft_entry *entries, uint32_t *out_skip)
{
	uint32_t skip = 0;
	if (m->index < raft->floor) {
		uint64_t below = raft->floor - m->index;
		skip = below < m->count ? (uint32_t)below : m->count;
		if (skip == below && entries[skip - 1].term != sh_raft_term_at(raft, raft->floor)) {
			return SH_CORE_UNDOES;
		}
	} else if (m->index > raft->last || sh_raft_term_at(raft, m->index) != m->log_term) {
		return SH_CORE_PARTS;
	}
	while (skip < m->count && m->index + 1 + skip <= raft->last &&
		sh_raft_term_at(raft, m->index + 1 + skip) == entries[skip].term) {
		skip++;
	}
	*out_skip = skip;
	bool undoes = skip < m->count && m->index + 1 + skip <= raft->commit;
	return undoes ? SH_CORE_UNDOES : SH_CORE_FITS;
}

static void fetch_from(struct sh_raft *raft, const struct sh_raft_message *m)
{
	raft->install_source = m->from;
	sh_core_emit(raft, SH_OUT_INSTALL)->install.source = m->from;
}

/* AppendEntries [D 3.5]. */
void sh_core_on_append(
	struct sh_raft *raft, const struct sh_raft_message *m, const struct sh_raft_entry *entries)
{
	if (m->term < raft->term) {
		struct sh_raft_message *result = sh_core_send(raft, SH_MSG_APPEND_RESULT, m->from);
		result->flags = SH_FLAG_REJECT; /* of the term: no entry of this one's is meant */
		return;
	}
	hear(raft, m);
	if (raft->installing) {
		/* Any committed log will do: of two leaders the newer is the one that is there. */
		if (raft->install_source != m->from) {
			fetch_from(raft, m);
		}
		answer(raft, m->from);
		return;
	}
	uint32_t skip = 0;
	enum sh_core_fit fit = sh_core_fits(raft, m, entries, &skip);
	RT_ASSERT(fit != SH_CORE_UNDOES); /* sh_raft_recv looked. */
	if (fit == SH_CORE_PARTS) {
		reject(raft, m);
		return;
	}
	if (skip < m->count) {
		take(raft, m, entries, skip);
	}
	uint64_t end = m->index + m->count;
	end = end > raft->floor ? end : raft->floor;
	raft->verified = end > raft->verified ? end : raft->verified;
	sh_core_commit(raft, m->commit < raft->verified ? m->commit : raft->verified);
	if (skip == m->count) {
		sh_core_acknowledge(raft);
	}
}

/* What this log shares with the leader's lies below the leader's floor, and what it has beside that
 * is not committed: it counts no more than the floor. */
static void forget(struct sh_raft *raft, const struct sh_raft_message *m)
{
	uint64_t term = sh_raft_term_at(raft, raft->last);
	if (sh_core_at_least(term, raft->last, m->log_term, m->index)) {
		sh_core_raise_bar(raft, m->log_term, m->index);
	} else {
		sh_core_raise_bar(raft, term, raft->last);
	}
}

/* The leader's log does not reach back to here [D 5]. A log that has the entry at the leader's
 * floor needs nothing; any other is behind or apart, and no majority ever counted on it. */
void sh_core_on_install(struct sh_raft *raft, const struct sh_raft_message *m)
{
	if (m->term < raft->term || raft->role == SH_LEADER) {
		return;
	}
	hear(raft, m);
	if (raft->installing && raft->install_source == m->from) {
		return;
	}
	bool has = m->index <= raft->commit || sh_raft_term_at(raft, m->index) == m->log_term;
	if (has && !raft->installing) {
		if (m->index > raft->verified && m->index <= raft->last) {
			raft->verified = m->index;
		}
		sh_core_commit(raft, m->index);
		sh_core_acknowledge(raft);
		return;
	}
	if (!raft->installing) {
		forget(raft, m);
		raft->install_index = raft->commit > m->index ? raft->commit : m->index;
		sh_core_log_reset(raft, 0, 0, &(struct sh_raft_set){0});
		raft->commit = raft->stored = raft->applied = raft->verified = 0;
		raft->generation++;
		raft->installing = true;
	}
	fetch_from(raft, m);
}

rt_err sh_raft_installed(
	struct sh_raft *raft, uint64_t index, uint64_t term, const struct sh_raft_set *set)
{
	if (!raft->installing || index == 0 || term == 0 || set->index > index) {
		return RT_E_INVAL;
	}
	rt_err err = sh_core_begin(raft, raft->now, 1);
	if (err != RT_OK) {
		return err;
	}
	raft->installing = false;
	raft->install_source = 0;
	sh_core_log_reset(raft, index, term, set);
	raft->commit = raft->stored = raft->applied = raft->verified = index;
	raft->generation++;
	if (term > raft->term) {
		sh_core_follow(raft, term, 0, 0);
	}
	sh_core_say_members(raft, sh_raft_members(raft), true);
	sh_core_arm(raft);
	sh_core_acknowledge(raft);
	return RT_OK;
}
