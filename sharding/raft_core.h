/*
 * raft_core.h - what the files of the core share. Private to sharding/raft*.c.
 *
 * Who calls sh_core_emit has reserved the room at the start of the input (sh_core_begin), so that
 * an input either has no effect or its whole effect.
 */
#ifndef SHARDING_RAFT_CORE_H
#define SHARDING_RAFT_CORE_H

#include "sharding/raft.h"

/* Every input starts here: takes the time and makes room for what it can put out, and for changes
 * of term or members that it may add to the log. RT_E_NOMEM: nothing changed. */
rt_err sh_core_begin(struct sh_raft *raft, uint64_t now, uint32_t changes);
struct sh_out *sh_core_emit(struct sh_raft *raft, enum sh_out_kind kind);
/* A message to a node, its term and sender filled in. */
struct sh_raft_message *sh_core_send(struct sh_raft *raft, enum sh_message_type type, uint64_t to);
void sh_core_say_role(struct sh_raft *raft);

/* Becomes a follower, in a newer term perhaps, whose vote is given [D 3.3]. */
void sh_core_follow(struct sh_raft *raft, uint64_t term, uint64_t vote, uint64_t leader);
/* Sets the time of the next campaign. */
void sh_core_arm(struct sh_raft *raft);
bool sh_core_may_campaign(const struct sh_raft *raft);
void sh_core_campaign(struct sh_raft *raft, bool pre);
void sh_core_lead(struct sh_raft *raft);
void sh_core_lead_tick(struct sh_raft *raft);
/* Counts what voters hold [D 3.6.2]. */
void sh_core_advance(struct sh_raft *raft);
/* Tells the leader what is stored and verified here. */
void sh_core_acknowledge(struct sh_raft *raft);

/* The log: terms and sets. */
rt_err sh_core_log_init(struct sh_raft *raft, const struct sh_raft_restore *restore);
rt_err sh_core_log_reserve(struct sh_raft *raft, uint32_t changes);
void sh_core_log_push(
	struct sh_raft *raft, uint32_t count, uint64_t term, const struct sh_members *members);
void sh_core_log_cut(struct sh_raft *raft, uint64_t from);
void sh_core_log_reset(
	struct sh_raft *raft, uint64_t floor, uint64_t term, const struct sh_raft_set *set);
/* A log that ended there, or in what the leader has at that place, is about to go. */
void sh_core_raise_bar(struct sh_raft *raft, uint64_t term, uint64_t index);
bool sh_core_at_least(uint64_t term, uint64_t index, uint64_t than_term, uint64_t than_index);
uint64_t sh_core_run_first(const struct sh_raft *raft, uint64_t index);
void sh_core_say_members(struct sh_raft *raft, const struct sh_raft_set *set, bool committed);
void sh_core_commit(struct sh_raft *raft, uint64_t index);
/* After the set in use changed, while leading. */
void sh_core_sync_peers(struct sh_raft *raft);

/* One function per message. */
void sh_core_on_vote(struct sh_raft *raft, const struct sh_raft_message *m);
void sh_core_on_vote_result(struct sh_raft *raft, const struct sh_raft_message *m);
void sh_core_on_timeout_now(struct sh_raft *raft, const struct sh_raft_message *m);
void sh_core_on_removed(struct sh_raft *raft, const struct sh_raft_message *m);
enum sh_core_fit {
	SH_CORE_FITS,  /* from the skip'th on the entries are new */
	SH_CORE_PARTS, /* the entry before the first is another one here, or missing */
	SH_CORE_UNDOES /* a new entry would replace a committed one */
};
enum sh_core_fit sh_core_fits(const struct sh_raft *raft, const struct sh_raft_message *m,
	const struct sh_raft_entry *entries, uint32_t *out_skip);
void sh_core_on_append(
	struct sh_raft *raft, const struct sh_raft_message *m, const struct sh_raft_entry *entries);
rt_err sh_core_on_append_result(struct sh_raft *raft, const struct sh_raft_message *m);
void sh_core_on_install(struct sh_raft *raft, const struct sh_raft_message *m);

static inline bool sh_core_votes(const struct sh_raft *raft, uint64_t node)
{
	return sh_members_votes(&sh_raft_members(raft)->members, node);
}

#endif
