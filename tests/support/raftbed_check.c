/* What must hold after every step of a bed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/raftbed.h"

#define ALWAYS(what, text, ...)                                                          \
	do {                                                                             \
		if (!(what)) {                                                           \
			fail_msg("node %" PRIu64 " at %" PRIu64 ": " text, __VA_ARGS__); \
		}                                                                        \
	} while (0)
#define HERE node->id, node->bed->now

bool bed_entries_equal(const struct bed_entry *a, const struct bed_entry *b)
{
	return a->term == b->term && a->tag == b->tag && a->has_members == b->has_members &&
	       sh_members_equal(&a->members, &b->members);
}

/* Looked at after every step. Older entries were looked at when they were new. */
static uint64_t newest(uint64_t last)
{
	return last > 256 ? last - 256 : 0;
}

static bool logs_equal(const struct bed_log *a, const struct bed_log *b, uint64_t last)
{
	if (a->last < last || b->last < last) {
		return false;
	}
	for (uint64_t i = newest(last); i < last; i++) {
		if (!bed_entries_equal(&a->entries[i], &b->entries[i])) {
			return false;
		}
	}
	return true;
}

struct sh_raft_set bed_set_at(const struct bed_node *node, uint64_t index)
{
	for (uint64_t i = node->sets ? index : 0; i > 0; i--) {
		const struct bed_entry *entry = &node->log.entries[i - 1];
		if (entry->has_members) {
			return (struct sh_raft_set){i, entry->members};
		}
	}
	return (struct sh_raft_set){0, node->base};
}

static void check_log(const struct bed_node *node)
{
	const struct sh_raft *raft = &node->raft;
	ALWAYS(raft->last == node->log.last, "core ends at %" PRIu64 ", log at %" PRIu64, HERE,
		raft->last, node->log.last);
	ALWAYS(raft->stored <= node->disk.log.last &&
			logs_equal(&node->log, &node->disk.log, raft->stored),
		"%" PRIu64 " taken for stored, the disk says otherwise", HERE, raft->stored);
	uint64_t from = newest(raft->last) > raft->floor ? newest(raft->last) : raft->floor;
	for (uint64_t i = from + 1; i <= raft->last; i++) {
		ALWAYS(sh_raft_term_at(raft, i) == node->log.entries[i - 1].term,
			"term at %" PRIu64 " is not the log's", HERE, i);
	}
	struct sh_raft_set set = bed_set_at(node, raft->last);
	const struct sh_raft_set *used = sh_raft_members(raft);
	ALWAYS(sh_members_equal(&set.members, &used->members) && set.index == used->index,
		"members of %" PRIu64 " in use, the log's last are of %" PRIu64, HERE, used->index,
		set.index);
}

void bed_check_members(struct bed_node *node, uint64_t index, const struct sh_members *members)
{
	struct sh_raft_set set = bed_set_at(node, index);
	ALWAYS(node->bed->unsafe || (set.index == index && sh_members_equal(&set.members, members)),
		"tells of members of %" PRIu64 " that the log does not have", HERE, index);
	if (index ==
		sh_raft_members(&node->raft)->index) { /* and not an older one, committed now */
		node->said = index;
	}
}

void bed_check_node(struct bed_node *node)
{
	if (node->bed->unsafe) {
		return;
	}
	sh_raft_check(&node->raft);
	check_log(node);
	ALWAYS(node->raft.commit == node->committed, "commit moved without a word", HERE);
	uint64_t used = sh_raft_members(&node->raft)->index;
	ALWAYS(used == node->used || used == node->said || node->raft.installing,
		"members of %" PRIu64 " came into use without a word", HERE, used);
	node->used = used;
}

static void check_quorum(const struct bed_node *node, uint64_t index)
{
	const struct sh_members *members = &sh_raft_members(&node->raft)->members;
	uint32_t stored = 0;
	for (uint32_t i = 0; i < members->count; i++) {
		const struct bed_disk *disk = &node->bed->nodes[members->node[i]].disk;
		bool has =
			disk->log.last >= index && bed_entries_equal(&disk->log.entries[index - 1],
							   &node->log.entries[index - 1]);
		stored += has && sh_members_votes(members, members->node[i]);
	}
	ALWAYS(stored > sh_members_voter_count(members) / 2,
		"commits %" PRIu64 " with %u copies on disks", HERE, index, stored);
}

static void add_truth(struct bed_log *truth, const struct bed_entry *entry)
{
	if (truth->last == truth->cap) {
		truth->cap = truth->cap ? 2 * truth->cap : 256;
		truth->entries = realloc(truth->entries, truth->cap * sizeof(*truth->entries));
		assert_non_null(truth->entries);
	}
	truth->entries[truth->last++] = *entry;
}

void bed_check_commit(struct bed_node *node, uint64_t commit)
{
	struct bed *bed = node->bed;
	if (bed->unsafe) {
		return;
	}
	ALWAYS(commit > node->committed, "commit goes back", HERE);
	ALWAYS(commit <= node->log.last, "commits %" PRIu64 ", which it does not have", HERE,
		commit);
	if (sh_raft_leads(&node->raft)) {
		check_quorum(node, commit);
	}
	for (uint64_t i = node->committed + 1; i <= commit; i++) {
		const struct bed_entry *entry = &node->log.entries[i - 1];
		if (i > bed->truth.last) {
			add_truth(&bed->truth, entry);
		}
		ALWAYS(bed_entries_equal(entry, &bed->truth.entries[i - 1]),
			"commits another entry %" PRIu64 " than was committed before", HERE, i);
	}
}

void bed_check_role(struct bed_node *node, enum sh_role role, uint64_t term)
{
	struct bed *bed = node->bed;
	if (role != SH_LEADER || bed->unsafe) {
		return;
	}
	ALWAYS(term < BED_TERMS, "term %" PRIu64, HERE, term);
	ALWAYS(bed->leaders[term] == 0 || bed->leaders[term] == node->id,
		"second leader of term %" PRIu64 " after %" PRIu64, HERE, term, bed->leaders[term]);
	bed->leaders[term] = node->id;
	ALWAYS(logs_equal(&node->log, &bed->truth, bed->truth.last),
		"leads without all that is committed (%" PRIu64 ")", HERE, bed->truth.last);
}

/* Only what contradicts the leader's log goes. */
void bed_check_cut(const struct bed_node *node, uint64_t from, const struct bed_entry *instead)
{
	if (node->bed->unsafe) {
		return;
	}
	ALWAYS(from > node->committed, "cuts off committed entries from %" PRIu64, HERE, from);
	ALWAYS(from > node->log.last || node->log.entries[from - 1].term != instead->term,
		"cuts off the entry %" PRIu64 " that it is sent", HERE, from);
}

void bed_check_ack(const struct bed_node *node, const struct sh_raft_message *ack)
{
	const struct bed *bed = node->bed;
	if (bed->unsafe || ack->type != SH_MSG_APPEND_RESULT || (ack->flags & SH_FLAG_REJECT)) {
		return;
	}
	ALWAYS(logs_equal(&node->log, &node->disk.log, ack->index),
		"acknowledges %" PRIu64 ", which is not on its disk", HERE, ack->index);
	const struct bed_node *leader = &bed->nodes[ack->to];
	if (bed_leads(bed, ack->to) && leader->raft.term == ack->term) {
		ALWAYS(logs_equal(&node->log, &leader->log, ack->index),
			"acknowledges %" PRIu64 ", which differs from the leader's log", HERE,
			ack->index);
	}
}

void bed_check_leaving(const struct bed_node *node, const struct sh_raft_message *head)
{
	const struct bed_disk *disk = &node->disk;
	if (node->bed->unsafe || (head->flags & SH_FLAG_PRE)) {
		return;
	}
	ALWAYS(head->term <= disk->term, "says term %" PRIu64 ", its disk says %" PRIu64, HERE,
		head->term, disk->term);
	if (head->type == SH_MSG_VOTE) {
		ALWAYS(disk->term > head->term || disk->vote == node->id,
			"campaigns without its own vote", HERE);
		ALWAYS(head->index <= disk->log.last, "campaigns on %" PRIu64 ", not on its disk",
			HERE, head->index);
	}
	if (head->type == SH_MSG_VOTE_RESULT && (head->flags & SH_FLAG_GRANTED)) {
		ALWAYS(disk->term > head->term || disk->vote == head->to,
			"grants a vote that is not on its disk", HERE);
	}
}
