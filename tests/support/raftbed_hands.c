/* What a test does to a bed, and what it looks at. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/raftbed.h"

#define SETTLE_MS 30u
#define ELECT_MS  20000u

/* ---- time ---- */

void bed_run(struct bed *bed, uint64_t ms)
{
	for (uint64_t end = bed->now + ms; bed->now < end;) {
		bed_step(bed);
	}
}

void bed_settle(struct bed *bed)
{
	bed_run(bed, SETTLE_MS);
}

static void set_timers(struct bed *bed, bool on)
{
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		bed->nodes[i].timers = on;
	}
}

void bed_awake(struct bed *bed)
{
	set_timers(bed, true);
}

void bed_asleep(struct bed *bed)
{
	set_timers(bed, false);
}

bool bed_try_elect(struct bed *bed, uint64_t node)
{
	bed_asleep(bed);
	bed->nodes[node].timers = true;
	for (uint64_t end = bed->now + ELECT_MS; bed->now < end && !bed_leads(bed, node);) {
		bed_step(bed);
	}
	bed->nodes[node].timers = false;
	return bed_leads(bed, node);
}

void bed_elect(struct bed *bed, uint64_t node)
{
	if (!bed_try_elect(bed, node)) {
		fail_msg("node %" PRIu64 " was not elected", node);
	}
}

uint64_t bed_any_leader(struct bed *bed, uint64_t ms)
{
	for (uint64_t end = bed->now + ms; bed->now < end;) {
		bed_step(bed);
		for (uint64_t i = 1; i <= BED_NODES; i++) {
			if (bed_leads(bed, i) && bed_commit(bed, i) >= bed_raft(bed, i)->noop) {
				return i;
			}
		}
	}
	return 0;
}

bool bed_commits(struct bed *bed, uint64_t node, uint64_t ms)
{
	uint64_t last = bed_last_index(bed, node);
	for (uint64_t end = bed->now + ms; bed->now < end && bed_commit(bed, node) < last;) {
		bed_step(bed);
	}
	return bed_commit(bed, node) >= last;
}

/* ---- the network in the hands of the test ---- */

void bed_cut_way(struct bed *bed, uint64_t from, uint64_t to)
{
	bed->cut[from][to] = true;
}

void bed_cut(struct bed *bed, uint64_t a, uint64_t b)
{
	bed->cut[a][b] = bed->cut[b][a] = true;
}

void bed_join(struct bed *bed, uint64_t a, uint64_t b)
{
	bed->cut[a][b] = bed->cut[b][a] = false;
}

void bed_isolate(struct bed *bed, uint64_t node)
{
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		bed_cut(bed, node, i);
	}
}

void bed_heal(struct bed *bed)
{
	memset(bed->cut, 0, sizeof(bed->cut));
}

void bed_hold(struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	assert_true(bed->hold_count < sizeof(bed->holds) / sizeof(bed->holds[0]));
	bed->holds[bed->hold_count++] = (struct bed_rule){type, from, to};
}

void bed_release(struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	for (uint32_t i = 0; i < bed->hold_count;) {
		struct bed_rule *rule = &bed->holds[i];
		if (rule->type == type && rule->from == from && rule->to == to) {
			*rule = bed->holds[--bed->hold_count];
		} else {
			i++;
		}
	}
	for (uint32_t i = 0; i < bed->message_count; i++) {
		struct bed_message *message = &bed->messages[i];
		if (message->held && bed_fits(&message->head, type, from, to)) {
			message->held = false;
			message->due = bed->now;
		}
	}
}

uint32_t bed_drop(struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	uint32_t dropped = 0;
	for (uint32_t i = 0; i < bed->message_count;) {
		if (bed_fits(&bed->messages[i].head, type, from, to)) {
			bed_remove_message(bed, i);
			dropped++;
		} else {
			i++;
		}
	}
	return dropped;
}

uint32_t bed_held(const struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	uint32_t held = 0;
	for (uint32_t i = 0; i < bed->message_count; i++) {
		held += bed->messages[i].held && bed_fits(&bed->messages[i].head, type, from, to);
	}
	return held;
}

void bed_repeat(struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	for (uint32_t i = 0; i < bed->message_count; i++) {
		struct bed_message message = bed->messages[i];
		if (message.held && bed_fits(&message.head, type, from, to)) {
			assert_err(bed_hear(bed, &message), RT_OK);
			return;
		}
	}
	fail_msg("no such message waits");
}

const struct sh_raft_message *bed_last(
	const struct bed *bed, uint8_t type, uint64_t from, uint64_t to)
{
	return &bed->last[type][from][to];
}

rt_err bed_say(struct bed *bed, const struct sh_raft_message *head, const struct bed_entry *entries)
{
	struct bed_message message = {.head = *head};
	size_t bytes = (head->count + 1) * sizeof(struct bed_entry);
	message.entries = malloc(bytes);
	assert_non_null(message.entries);
	if (entries != NULL) {
		memcpy(message.entries, entries, head->count * sizeof(struct bed_entry));
	}
	rt_err err = bed_hear(bed, &message);
	free(message.entries);
	return err;
}

rt_err bed_say_append(
	struct bed *bed, uint64_t from, uint64_t to, uint64_t prev, uint32_t count, uint64_t commit)
{
	const struct bed_node *leader = &bed->nodes[from];
	assert_true(prev + count <= leader->log.last);
	struct sh_raft_message head = {.type = SH_MSG_APPEND,
		.count = count,
		.from = from,
		.to = to,
		.term = leader->raft.term,
		.index = prev,
		.log_term = prev ? bed_term_of(bed, from, prev) : 0,
		.commit = commit};
	return bed_say(bed, &head, leader->log.entries + prev);
}

/* ---- the disks in the hands of the test ---- */

void bed_hold_disk(struct bed *bed, uint64_t node)
{
	bed->nodes[node].disk_held = true;
}

void bed_release_disk(struct bed *bed, uint64_t node)
{
	bed->nodes[node].disk_held = false;
}

void bed_finish(struct bed *bed, uint64_t node, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		assert_true(bed->nodes[node].write_count > 0);
		bed_finish_oldest(&bed->nodes[node]);
	}
}

void bed_compact(struct bed *bed, uint64_t id, uint64_t floor)
{
	struct bed_node *node = &bed->nodes[id];
	sh_raft_compact(&node->raft, floor);
	struct bed_write *write = bed_disk_write(node, BED_FLOOR);
	write->from = node->raft.floor;
	write->term = sh_raft_term_at(&node->raft, write->from);
	write->set = *sh_raft_members_at(&node->raft, write->from);
	bed_drain(node);
}

void bed_fetch(struct bed *bed, uint64_t node)
{
	assert_int_not_equal(bed->nodes[node].fetch_from, 0);
	bed_fetch_now(&bed->nodes[node]);
}

/* ---- inputs ---- */

uint64_t bed_propose(struct bed *bed, uint64_t node, uint32_t count)
{
	uint64_t first = 0;
	assert_err(sh_raft_propose(bed_raft(bed, node), count, &first), RT_OK);
	assert_int_equal(first, bed_last_index(bed, node) + 1);
	bed_drain(&bed->nodes[node]);
	return first;
}

void bed_write(struct bed *bed, uint64_t node, uint32_t count)
{
	bed_propose(bed, node, count);
	bed_settle(bed);
}

rt_err bed_try_members(struct bed *bed, uint64_t node, const char *text)
{
	struct sh_members members = bed_members(text);
	uint64_t index = 0;
	rt_err err = sh_raft_propose_members(bed_raft(bed, node), &members, &index);
	bed_drain(&bed->nodes[node]);
	if (err == RT_OK) {
		assert_int_equal(index, bed_last_index(bed, node));
	}
	return err;
}

uint64_t bed_change(struct bed *bed, uint64_t node, const char *members)
{
	assert_err(bed_try_members(bed, node, members), RT_OK);
	return bed_last_index(bed, node);
}

rt_err bed_transfer(struct bed *bed, uint64_t from, uint64_t to)
{
	rt_err err = sh_raft_transfer(bed_raft(bed, from), bed->now, to);
	bed_drain(&bed->nodes[from]);
	return err;
}

void bed_knock(struct bed *bed, uint64_t from, uint64_t to)
{
	assert_int_equal(sh_raft_knock(bed_raft(bed, from), bed->now, to), RT_OK);
	bed_drain(&bed->nodes[from]);
}

/* ---- looking ---- */

bool bed_leads(const struct bed *bed, uint64_t node)
{
	return bed->nodes[node].up && sh_raft_leads(&bed->nodes[node].raft);
}

uint64_t bed_commit(const struct bed *bed, uint64_t node)
{
	return bed->nodes[node].committed;
}

uint64_t bed_last_index(const struct bed *bed, uint64_t node)
{
	return bed->nodes[node].log.last;
}

uint64_t bed_term(const struct bed *bed, uint64_t node)
{
	return bed->nodes[node].raft.term;
}

uint64_t bed_term_of(const struct bed *bed, uint64_t node, uint64_t index)
{
	const struct bed_log *log = &bed->nodes[node].log;
	assert_true(index <= log->last);
	return index == 0 ? 0 : log->entries[index - 1].term;
}

const struct sh_raft_peer *bed_peer(const struct bed *bed, uint64_t leader, uint64_t node)
{
	const struct sh_raft *raft = &bed->nodes[leader].raft;
	int at = sh_members_find(&sh_raft_members(raft)->members, node);
	assert_true(at >= 0);
	return &raft->peers[at];
}

bool bed_uses(const struct bed *bed, uint64_t node, const char *text)
{
	struct sh_members members = bed_members(text);
	return sh_members_equal(&sh_raft_members(&bed->nodes[node].raft)->members, &members);
}

bool bed_converged(const struct bed *bed)
{
	const struct bed_node *first = NULL;
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		const struct bed_node *node = &bed->nodes[i];
		if (!node->up) {
			continue;
		}
		first = first ? first : node;
		if (node->log.last != first->log.last || node->committed != node->log.last) {
			return false;
		}
	}
	return true; /* the committed entries are equal: bed_check_commit */
}
