/* What may happen next, and what happens then. */
#include <string.h>

#include "tests/explore/world.h"

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void set_clock(struct ex_world *world, uint32_t at, uint64_t clock)
{
	for (uint32_t i = 0; i < world->scenario->nodes; i++) {
		if (i == at || world->scenario->one_clock) {
			world->node[i].clock = later(world->node[i].clock, clock);
		}
	}
}

/* ---- which steps there are ---- */
struct list {
	struct ex_step *steps;
	uint32_t count;
};

static void add(struct list *list, enum ex_step_kind kind, uint32_t node, uint32_t arg)
{
	if (list->count < EX_STEPS) {
		list->steps[list->count++] =
			(struct ex_step){(uint8_t)kind, (uint8_t)node, (uint8_t)arg};
	}
}

/* A request that the leader's protection would refuse may come when that is over. */
static bool comes_too_early(const struct ex_world *world, const struct ex_message *m)
{
	const struct ex_node *to = &world->node[m->to - 1];
	return m->type == SH_MSG_VOTE && (m->flags & SH_FLAG_TRANSFER) == 0 &&
	       !world->scenario->one_clock && to->raft.role != SH_LEADER && to->raft.had_contact &&
	       to->clock - to->raft.contact < to->raft.settings.election_ms;
}

static void add_messages(const struct ex_world *world, struct list *list)
{
	for (uint32_t i = 0; i < world->message_count; i++) {
		const struct ex_message *m = &world->message[i];
		if (world->node[m->to - 1].raft.removed) {
			continue;
		}
		add(list, comes_too_early(world, m) ? EX_DELIVER_LATE : EX_DELIVER, m->to - 1u, i);
		if (world->budget[EX_REPEAT] > 0 && !comes_too_early(world, m)) {
			add(list, EX_REPEAT, m->to - 1u, i);
		}
	}
}

/* By whose pre-votes it goes on at once: every smallest majority. */
static void add_timeouts(const struct ex_world *world, struct list *list, uint32_t at)
{
	const struct sh_raft *raft = &world->node[at].raft;
	uint8_t may = world->scenario->timeout_mask;
	if (world->budget[EX_TIMEOUT] == 0 || raft->role == SH_LEADER ||
		raft->term + 1 > world->scenario->term_max || (may != 0 && (may >> at & 1) == 0) ||
		sh_raft_next_timeout(raft) == UINT64_MAX) {
		return;
	}
	const struct sh_members *set = &sh_raft_members(raft)->members;
	uint32_t need = sh_members_voter_count(set) / 2 + !sh_members_votes(set, at + 1);
	if (world->scenario->fine_prevotes || need == 0) {
		add(list, EX_TIMEOUT, at, 0);
		return;
	}
	for (uint32_t mask = 1; mask < 1u << world->scenario->nodes; mask++) {
		bool fits = (uint32_t)__builtin_popcount(mask) == need && (mask >> at & 1) == 0;
		for (uint32_t i = 0; i < world->scenario->nodes; i++) {
			fits = fits && ((mask >> i & 1) == 0 || sh_members_votes(set, i + 1));
		}
		if (fits) {
			add(list, EX_TIMEOUT, at, mask);
		}
	}
}

static void add_leader(const struct ex_world *world, struct list *list, uint32_t at)
{
	const struct ex_scenario *scenario = world->scenario;
	const struct sh_raft *raft = &world->node[at].raft;
	static const uint8_t plain[] = {EX_BEAT, EX_SILENCE, EX_PROPOSE};
	for (uint32_t i = 0; i < sizeof(plain); i++) {
		if (world->budget[plain[i]] > 0) {
			add(list, plain[i], at, 0);
		}
	}
	if (world->budget[EX_READ] > 0 && world->read.node == 0) {
		add(list, EX_READ, at, 0);
	}
	for (uint32_t i = 0; world->budget[EX_CHANGE] > 0 && i < scenario->set_count; i++) {
		if (sh_members_distance(&sh_raft_members(raft)->members, &scenario->sets[i]) == 1) {
			add(list, EX_CHANGE, at, i);
		}
	}
	for (uint32_t i = 1; world->budget[EX_TRANSFER] > 0 && i <= scenario->nodes; i++) {
		if (i != at + 1 && sh_members_votes(&sh_raft_members(raft)->members, i)) {
			add(list, EX_TRANSFER, at, i);
		}
	}
}

static bool can_fetch(const struct ex_world *world, const struct ex_node *node)
{
	if (!node->raft.installing || node->write_count > 0) {
		return false;
	}
	const struct sh_raft *source = &world->node[node->raft.install_source - 1].raft;
	return !source->installing && source->commit > 0 && source->stored > 0;
}

uint32_t ex_steps(const struct ex_world *world, struct ex_step steps[EX_STEPS])
{
	struct list list = {steps, 0};
	add_messages(world, &list);
	for (uint32_t at = 0; at < world->scenario->nodes; at++) {
		const struct ex_node *node = &world->node[at];
		uint8_t crashes = world->scenario->crash_mask;
		if (node->raft.removed) {
			if (world->budget[EX_RENEW] > 0) {
				add(&list, EX_RENEW, at, 0);
			}
			continue;
		}
		if (node->write_count > 0) {
			add(&list, EX_DISK, at, 0);
		}
		if (can_fetch(world, node)) {
			add(&list, EX_FETCHED, at, 0);
		}
		if (node->raft.role == SH_LEADER) {
			add_leader(world, &list, at);
		}
		add_timeouts(world, &list, at);
		if (world->budget[EX_COMPACT] > 0 && node->raft.applied > node->raft.floor) {
			add(&list, EX_COMPACT, at, 0);
		}
		if (world->budget[EX_CRASH] > 0 && (crashes == 0 || (crashes >> at & 1) != 0)) {
			add(&list, EX_CRASH, at, 0);
		}
	}
	return list.count;
}

/* ---- what they do ---- */
static void tick(struct ex_world *world, uint32_t at, uint64_t clock)
{
	set_clock(world, at, clock);
	struct ex_node *node = &world->node[at];
	if (sh_raft_tick(&node->raft, node->clock) != RT_OK) {
		ex_fail(world, "node %u: tick is refused", at + 1);
	}
	ex_act(world, at, NULL);
}

static void deliver(struct ex_world *world, uint32_t position, bool keep)
{
	struct ex_message m = world->message[position];
	if (!keep) {
		ex_take_message(world, position);
	}
	if (comes_too_early(world, &m)) {
		struct ex_node *to = &world->node[m.to - 1];
		to->clock = to->raft.contact + to->raft.settings.election_ms;
	}
	ex_deliver(world, &m);
}

static int find_pre(
	const struct ex_world *world, enum sh_message_type type, uint32_t from, uint32_t to)
{
	for (uint32_t i = 0; i < world->message_count; i++) {
		const struct ex_message *m = &world->message[i];
		if (m->type == type && (m->flags & SH_FLAG_PRE) != 0 &&
			(from == 0 || m->from == from) && (to == 0 || m->to == to)) {
			return (int)i;
		}
	}
	return -1;
}

static void timeout(struct ex_world *world, uint32_t at, uint32_t mask)
{
	const uint32_t self = at + 1;
	int found;
	while (mask != 0 && ((found = find_pre(world, SH_MSG_VOTE, self, 0)) >= 0 ||
				    (found = find_pre(world, SH_MSG_VOTE_RESULT, 0, self)) >= 0)) {
		ex_take_message(world, (uint32_t)found);
	}
	tick(world, at, sh_raft_next_timeout(&world->node[at].raft));
	for (uint32_t i = 1; i <= world->scenario->nodes; i++) {
		if ((mask >> (i - 1) & 1) == 0) {
			continue;
		}
		found = find_pre(world, SH_MSG_VOTE, self, i);
		if (found >= 0) {
			deliver(world, (uint32_t)found, false);
		}
		found = find_pre(world, SH_MSG_VOTE_RESULT, i, self);
		if (found >= 0) {
			deliver(world, (uint32_t)found, false);
		}
	}
	while (mask != 0 && (found = find_pre(world, SH_MSG_VOTE, self, 0)) >= 0) {
		ex_take_message(world, (uint32_t)found);
	}
}

static void read_begin(struct ex_world *world, uint32_t at)
{
	struct ex_node *node = &world->node[at];
	struct ex_read read = {(uint8_t)(at + 1), world->answered, {0}};
	if (sh_raft_read_begin(&node->raft, node->clock, &read.read) == RT_OK) {
		world->read = read;
	}
	ex_act(world, at, NULL);
}

/* A refusal is an answer like another here: nothing happened. */
static void ask(struct ex_world *world, struct ex_step step)
{
	struct ex_node *node = &world->node[step.node];
	uint64_t index;
	rt_err err = RT_OK;
	switch (step.kind) {
	case EX_PROPOSE:
		err = sh_raft_propose(&node->raft, 1, &index);
		break;
	case EX_CHANGE:
		err = sh_raft_propose_members(
			&node->raft, &world->scenario->sets[step.arg], &index);
		break;
	case EX_TRANSFER:
		err = sh_raft_transfer(&node->raft, node->clock, step.arg);
		break;
	default:
		break;
	}
	if (err != RT_OK && err != RT_E_AGAIN && err != RT_E_FENCED) {
		ex_fail(world, "node %u: error %d", step.node + 1, (int)err);
	}
	ex_act(world, step.node, NULL);
}

static void act_step(struct ex_world *world, struct ex_step step)
{
	struct ex_node *node = &world->node[step.node];
	switch ((enum ex_step_kind)step.kind) {
	case EX_DELIVER:
	case EX_DELIVER_LATE:
	case EX_REPEAT:
		deliver(world, step.arg, step.kind == EX_REPEAT);
		break;
	case EX_DISK:
		ex_disk(world, step.node);
		break;
	case EX_CRASH:
		ex_restart(world, step.node);
		break;
	case EX_TIMEOUT:
		timeout(world, step.node, step.arg);
		break;
	case EX_BEAT:
		tick(world, step.node, node->raft.beat_at);
		break;
	case EX_SILENCE:
		tick(world, step.node, node->clock + 2ull * node->raft.settings.election_ms);
		break;
	case EX_READ:
		read_begin(world, step.node);
		break;
	case EX_COMPACT:
		sh_raft_compact(&node->raft, node->raft.last);
		node->disk.floor = (uint8_t)node->raft.floor;
		break;
	case EX_FETCHED:
		ex_fetched(world, step.node);
		break;
	case EX_RENEW:
		ex_renew(world, step.node);
		break;
	case EX_PROPOSE:
	case EX_CHANGE:
	case EX_TRANSFER:
	case EX_STEP_KINDS:
		ask(world, step);
		break;
	}
}

void ex_apply(struct ex_world *world, struct ex_step step)
{
	if (world->budget[step.kind] > 0) {
		world->budget[step.kind]--;
	}
	ex_keep_beats = world->scenario->beats || step.kind == EX_BEAT || step.kind == EX_READ;
	act_step(world, step);
	ex_keep_beats = false;
	ex_drop_void(world);
	if (!world->bad) {
		ex_check(world);
	}
}

/* ---- the way to where a search starts ---- */
static uint32_t cut_off; /* mask of nodes that nothing reaches or leaves */

static bool is_cut_off(const struct ex_message *m)
{
	return ((cut_off >> (m->from - 1) | cut_off >> (m->to - 1)) & 1) != 0;
}

static void settle(struct ex_world *world, uint32_t messages)
{
	while (messages > 0 && !world->bad) {
		uint32_t at = 0;
		while (at < world->scenario->nodes && world->node[at].write_count == 0) {
			at++;
		}
		if (at < world->scenario->nodes) {
			ex_disk(world, at);
		} else if (world->message_count > 0 && is_cut_off(&world->message[0])) {
			ex_take_message(world, 0);
		} else if (world->message_count > 0) {
			messages--;
			deliver(world, 0, false);
		} else {
			return;
		}
	}
}

static void prefix_one(struct ex_world *world, const char *word)
{
	uint32_t at = word[1] >= '1' ? (uint32_t)(word[1] - '1') : 0;
	struct ex_step step = {0, (uint8_t)at, 0};
	switch (word[0]) {
	case 'e': /* e123: node 1 campaigns, 2 and 3 hear of it */
		for (const char *c = word + 2; *c >= '1'; c++) {
			step.arg = (uint8_t)(step.arg | 1u << (*c - '1'));
		}
		step.kind = EX_TIMEOUT;
		break;
	case 'p':
		step.kind = EX_PROPOSE;
		break;
	case 'b':
		step.kind = EX_BEAT;
		break;
	case 'c':
		step.kind = EX_COMPACT;
		break;
	case 'i': /* i3: node 3 is cut off, i: nobody is */
		cut_off = word[1] >= '1' ? 1u << at : 0;
		return;
	case 'x': /* Nothing is in flight any more. */
		world->message_count = 0;
		return;
	default: /* s: all that is in flight is delivered, s7: seven messages */
		settle(world, word[1] >= '1' ? at + 1 : 500);
		return;
	}
	uint8_t budget = world->budget[step.kind];
	ex_apply(world, step);
	world->budget[step.kind] = budget;
}

void ex_prefix(struct ex_world *world)
{
	for (const char *word = world->scenario->prefix; word != NULL && *word != '\0';) {
		prefix_one(world, word);
		const char *space = strchr(word, ' ');
		word = space == NULL ? NULL : space + 1;
	}
}
