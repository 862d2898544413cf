/* The host of the cores: outputs, disks, the network, restarts. */
#include "tests/explore/world.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sh_out_queue queue;
static char reason[256];
static uint64_t lost;
bool ex_keep_beats;

const char *ex_reason(void)
{
	return reason;
}

uint64_t ex_lost(void)
{
	return lost;
}

void ex_fail(struct ex_world *world, const char *format, ...)
{
	if (world->bad) {
		return;
	}
	world->bad = true;
	va_list args;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
}

uint8_t ex_last_set(const struct ex_entry *log, uint32_t upto, uint32_t *index)
{
	while (upto > 0 && log[upto].set == 0) {
		upto--;
	}
	*index = upto;
	return upto == 0 ? 0 : log[upto].set;
}

/* ---- the network ---- */
static bool same_message(const struct ex_message *a, const struct ex_message *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Nobody looks at the answer to something that was asked in an older term. */
static bool is_void(const struct ex_world *world, const struct ex_message *m)
{
	const struct ex_node *to = &world->node[m->to - 1];
	bool result = m->type == SH_MSG_APPEND_RESULT || m->type == SH_MSG_VOTE_RESULT;
	return to->disk.removed || (result && m->term < to->disk.term) ||
	       (m->type == SH_MSG_TIMEOUT_NOW && m->term < to->disk.term);
}

void ex_take_message(struct ex_world *world, uint32_t at)
{
	world->message_count--;
	memmove(&world->message[at], &world->message[at + 1],
		(world->message_count - at) * sizeof(world->message[0]));
}

void ex_drop_void(struct ex_world *world)
{
	for (uint32_t i = world->message_count; i > 0; i--) {
		if (is_void(world, &world->message[i - 1])) {
			ex_take_message(world, i - 1);
		}
	}
}

static void put_message(struct ex_world *world, const struct ex_message *m)
{
	const struct ex_disk *disk = &world->node[m->from - 1].disk;
	if (m->type == SH_MSG_VOTE_RESULT && m->flags == SH_FLAG_GRANTED &&
		(disk->term < m->term || (disk->term == m->term && disk->vote != m->to))) {
		ex_fail(world, "node %u gives a vote that is not durable", m->from);
	}
	if (is_void(world, m)) {
		return;
	}
	for (uint32_t i = 0; i < world->message_count; i++) {
		if (same_message(&world->message[i], m)) {
			return;
		}
	}
	if (world->message_count == EX_MESSAGES) {
		lost++;
		ex_take_message(world, 0);
	}
	world->message[world->message_count++] = *m;
}

static void send_message(struct ex_world *world, uint32_t at, const struct ex_message *m)
{
	struct ex_node *node = &world->node[at];
	if (m->to > world->scenario->nodes ||
		(m->type == SH_MSG_APPEND && m->count == 0 && !ex_keep_beats)) {
		return;
	}
	uint8_t after = 0;
	for (uint8_t i = 0; i < node->write_count; i++) {
		if (node->write[i].kind == EX_WRITE_HARD) {
			after = (uint8_t)(i + 1);
		}
	}
	if (after == 0) {
		put_message(world, m);
	} else if (node->parked_count == EX_PARKED) {
		ex_fail(world, "explorer: too many messages are held back");
	} else {
		node->parked[node->parked_count] = *m;
		node->parked_after[node->parked_count++] = after;
	}
}

static void release(struct ex_world *world, struct ex_node *node)
{
	uint8_t kept = 0;
	for (uint8_t i = 0; i < node->parked_count; i++) {
		if (--node->parked_after[i] == 0) {
			put_message(world, &node->parked[i]);
		} else {
			node->parked[kept] = node->parked[i];
			node->parked_after[kept++] = node->parked_after[i];
		}
	}
	node->parked_count = kept;
}

/* ---- outputs ---- */
static struct ex_write *new_write(struct ex_world *world, struct ex_node *node, uint8_t kind)
{
	static struct ex_write none;
	if (node->write_count == EX_WRITES) {
		ex_fail(world, "explorer: too many writes");
		return &none;
	}
	struct ex_write *write = &node->write[node->write_count++];
	*write = (struct ex_write){.kind = kind};
	return write;
}

static uint8_t find_set(const struct ex_world *world, const struct sh_members *members)
{
	for (uint8_t i = 0; i < world->scenario->set_count; i++) {
		if (sh_members_equal(&world->scenario->sets[i], members)) {
			return (uint8_t)(i + 1);
		}
	}
	return 0;
}

static struct ex_entry entry_of(const struct ex_world *world, const struct ex_node *node,
	const struct sh_out *out, const struct ex_message *cause, uint32_t i)
{
	struct ex_entry entry = {(uint8_t)out->append.term, 0};
	if (out->append.source == SH_FROM_MESSAGE) {
		entry = cause->entry[out->append.skip + i];
	} else if (out->append.source == SH_FROM_MEMBERS) {
		entry.set = find_set(world, &sh_raft_members(&node->raft)->members);
	}
	return entry;
}

static void act_append(struct ex_world *world, uint32_t at, const struct sh_out *out,
	const struct ex_message *cause)
{
	struct ex_node *node = &world->node[at];
	uint64_t from = out->append.from;
	if (out->append.truncate ? from > node->size : from != node->size + 1u) {
		ex_fail(world, "node %u appends at %u, its log ends at %u", at + 1, (unsigned)from,
			node->size);
		return;
	}
	if (from - 1 + out->append.count > EX_LOG) {
		ex_fail(world, "explorer: the log is too long");
		return;
	}
	struct ex_write *write = new_write(world, node, EX_WRITE_APPEND);
	write->truncate = out->append.truncate;
	write->generation = (uint16_t)out->append.generation;
	write->from = (uint8_t)from;
	write->count = (uint8_t)out->append.count;
	for (uint32_t i = 0; i < out->append.count; i++) {
		write->entry[i] = entry_of(world, node, out, cause, i);
		node->log[from + i] = write->entry[i];
	}
	node->size = (uint8_t)(from - 1 + out->append.count);
	memset(&node->log[node->size + 1], 0, (EX_LOG - node->size) * sizeof(node->log[0]));
}

/* The host sends what fits into a message of what the core offers. */
static void act_send(struct ex_world *world, uint32_t at, const struct sh_raft_message *m)
{
	struct ex_node *node = &world->node[at];
	struct ex_message out = {m->type, m->flags, (uint8_t)m->from, (uint8_t)m->to,
		(uint8_t)m->term, (uint8_t)m->index, (uint8_t)m->log_term, (uint8_t)m->commit,
		(uint8_t)m->hint, (uint8_t)m->count, (uint16_t)m->round, (uint32_t)m->stamp, {{0}}};
	if (m->type == SH_MSG_APPEND && m->count > 0) {
		uint32_t batch = world->scenario->batch;
		out.count = (uint8_t)(m->count < batch ? m->count : batch);
		if (m->index + m->count > node->size) {
			ex_fail(world, "node %u offers what is not in its log", at + 1);
			return;
		}
		memcpy(out.entry, &node->log[m->index + 1], out.count * sizeof(out.entry[0]));
	}
	if (m->type == SH_MSG_APPEND_RESULT && (m->flags & SH_FLAG_REJECT) == 0 &&
		m->index > node->disk.size) {
		ex_fail(world, "node %u acknowledges %u, durable is %u", at + 1, (unsigned)m->index,
			node->disk.size);
	}
	send_message(world, at, &out);
	if (m->type == SH_MSG_APPEND && m->count > 0 &&
		sh_raft_sent(&node->raft, m->to, out.count) != RT_OK) {
		ex_fail(world, "node %u: sent is refused", at + 1);
	}
}

/* By how many voters of the set in use an entry is held for good. */
static bool is_durable_at_quorum(const struct ex_world *world, uint32_t at, uint32_t index)
{
	const struct ex_node *leader = &world->node[at];
	const struct sh_members *set = &sh_raft_members(&leader->raft)->members;
	uint32_t held = 0;
	for (uint32_t i = 0; i < world->scenario->nodes; i++) {
		const struct ex_disk *disk = &world->node[i].disk;
		held += sh_members_votes(set, i + 1) && disk->size >= index &&
			disk->log[index].term == leader->log[index].term;
	}
	return held > sh_members_voter_count(set) / 2;
}

static void act_commit(struct ex_world *world, uint32_t at, uint64_t commit)
{
	struct ex_node *node = &world->node[at];
	bool leads = node->raft.role == SH_LEADER;
	if (commit > node->size) {
		ex_fail(world, "node %u commits what it does not have", at + 1);
		return;
	}
	for (uint32_t i = 1; i <= commit; i++) {
		struct ex_entry *seen = &world->committed[i];
		if (seen->term == 0) {
			*seen = node->log[i];
			world->committed_in[i] = (uint8_t)node->raft.term;
			if (leads && !is_durable_at_quorum(world, at, i)) {
				ex_fail(world, "node %u commits %u, which no majority has stored",
					at + 1, i);
			}
		} else if (seen->term != node->log[i].term || seen->set != node->log[i].set) {
			ex_fail(world,
				"node %u commits entry %u of term %u, committed was one of term %u",
				at + 1, i, node->log[i].term, seen->term);
		}
	}
	if (leads && commit > world->answered) {
		world->answered = (uint8_t)commit;
	}
}

static void act_role(struct ex_world *world, uint32_t at, const struct sh_out *out)
{
	const struct ex_node *node = &world->node[at];
	if (out->role.role != SH_LEADER) {
		return;
	}
	uint64_t term = out->role.term;
	if (term > EX_TERMS) {
		ex_fail(world, "explorer: too many terms");
		return;
	}
	if (world->leader_of[term] != 0) {
		ex_fail(world, "nodes %u and %u lead term %u", world->leader_of[term], at + 1,
			(unsigned)term);
	}
	world->leader_of[term] = (uint8_t)(at + 1);
	for (uint32_t i = 1; i <= EX_LOG; i++) {
		uint8_t seen = world->committed[i].term;
		if (seen != 0 && world->committed_in[i] < term &&
			(i > node->size || node->log[i].term != seen)) {
			ex_fail(world,
				"node %u leads term %u without committed entry %u of term %u",
				at + 1, (unsigned)term, i, seen);
		}
	}
}

static void act_one(struct ex_world *world, uint32_t at, const struct sh_out *out,
	const struct ex_message *cause)
{
	struct ex_node *node = &world->node[at];
	struct ex_write *write;
	switch (out->kind) {
	case SH_OUT_HARD:
		write = new_write(world, node, EX_WRITE_HARD);
		write->term = (uint8_t)out->hard.term;
		write->vote = (uint8_t)out->hard.vote;
		break;
	case SH_OUT_APPEND:
		act_append(world, at, out, cause);
		break;
	case SH_OUT_INSTALL:
		write = new_write(world, node, EX_WRITE_INSTALLING);
		write->term = (uint8_t)node->raft.bar_term;
		write->from = (uint8_t)node->raft.bar_index;
		node->size = 0;
		memset(node->log, 0, sizeof(node->log));
		break;
	case SH_OUT_SEND:
		act_send(world, at, &out->send);
		break;
	case SH_OUT_COMMIT:
		act_commit(world, at, out->commit);
		break;
	case SH_OUT_ROLE:
		act_role(world, at, out);
		break;
	case SH_OUT_REMOVED:
		node->disk.removed = true;
		break;
	case SH_OUT_MEMBERS:
		break;
	}
}

void ex_act(struct ex_world *world, uint32_t at, const struct ex_message *cause)
{
	struct ex_node *node = &world->node[at];
	struct sh_out out;
	while (sh_out_next(&queue, &out)) {
		act_one(world, at, &out, cause);
	}
	uint64_t done =
		node->raft.commit < node->raft.stored ? node->raft.commit : node->raft.stored;
	sh_raft_applied(&node->raft, done);
	while ((world->scenario->slow_disks >> at & 1) == 0 && node->write_count > 0 &&
		!world->bad) {
		ex_disk(world, at);
	}
}

/* ---- inputs ---- */
void ex_deliver(struct ex_world *world, const struct ex_message *m)
{
	uint32_t at = m->to - 1u;
	struct ex_node *node = &world->node[at];
	struct sh_raft_message in = {.type = m->type,
		.flags = m->flags,
		.count = m->count,
		.from = m->from,
		.to = m->to,
		.term = m->term,
		.index = m->index,
		.log_term = m->log_term,
		.commit = m->commit,
		.hint = m->hint,
		.round = m->round,
		.stamp = m->stamp};
	struct sh_raft_entry entries[EX_BATCH];
	for (uint32_t i = 0; i < m->count; i++) {
		uint8_t set = m->entry[i].set;
		entries[i].term = m->entry[i].term;
		entries[i].members = set == 0 ? NULL : &world->scenario->sets[set - 1];
	}
	rt_err err = sh_raft_recv(&node->raft, node->clock, &in, m->count > 0 ? entries : NULL);
	if (err != RT_OK) {
		ex_fail(world, "node %u refuses a message: error %d", at + 1, (int)err);
	}
	ex_act(world, at, m);
}

void ex_disk(struct ex_world *world, uint32_t at)
{
	struct ex_node *node = &world->node[at];
	struct ex_disk *disk = &node->disk;
	struct ex_write write = node->write[0];
	node->write_count--;
	memmove(node->write, node->write + 1, node->write_count * sizeof(write));
	memset(&node->write[node->write_count], 0, sizeof(write));
	if (write.kind == EX_WRITE_HARD) {
		disk->term = write.term;
		disk->vote = write.vote;
	} else if (write.kind == EX_WRITE_INSTALLING) {
		disk->installing = true;
		disk->bar_term = write.term;
		disk->bar_index = write.from;
		disk->size = disk->floor = 0;
		memset(disk->log, 0, sizeof(disk->log));
	} else {
		memset(&disk->log[write.from], 0,
			(EX_LOG + 1u - write.from) * sizeof(disk->log[0]));
		memcpy(&disk->log[write.from], write.entry, write.count * sizeof(disk->log[0]));
		disk->size = (uint8_t)(write.from + write.count - 1);
	}
	release(world, node);
	if (write.kind == EX_WRITE_APPEND) {
		if (sh_raft_stored(&node->raft, disk->size, write.generation) != RT_OK) {
			ex_fail(world, "node %u: stored is refused", at + 1);
		}
		ex_act(world, at, NULL);
	}
}

/* A committed log of a peer, whole, in one batch with the end of the mark. */
void ex_fetched(struct ex_world *world, uint32_t at)
{
	struct ex_node *node = &world->node[at];
	const struct ex_node *source = &world->node[node->raft.install_source - 1];
	const struct sh_raft *from = &source->raft;
	uint8_t end = (uint8_t)(from->commit < from->stored ? from->commit : from->stored);
	memset(node->log, 0, sizeof(node->log));
	memcpy(&node->log[1], &source->log[1], end * sizeof(node->log[0]));
	node->size = end;
	node->disk.installing = node->disk.blank = false;
	node->disk.size = node->disk.floor = end;
	memcpy(node->disk.log, node->log, sizeof(node->log));
	uint32_t index;
	uint8_t last = ex_last_set(node->log, end, &index);
	struct sh_raft_set set = {index, world->scenario->sets[last == 0 ? 0 : last - 1]};
	if (sh_raft_installed(&node->raft, end, node->log[end].term, &set) != RT_OK) {
		ex_fail(world, "node %u: installed is refused", at + 1);
	}
	act_commit(world, at, end);
	ex_act(world, at, NULL);
}

/* ---- restart ---- */
/* From the heap, where the core made them, into the world. */
static void adopt(struct ex_node *node)
{
	struct sh_raft *raft = &node->raft;
	memcpy(node->runs, raft->runs, raft->run_count * sizeof(node->runs[0]));
	memcpy(node->sets, raft->sets, raft->set_count * sizeof(node->sets[0]));
	free(raft->runs);
	free(raft->sets);
	raft->runs = node->runs;
	raft->sets = node->sets;
	raft->run_cap = sizeof(node->runs) / sizeof(node->runs[0]);
	raft->set_cap = sizeof(node->sets) / sizeof(node->sets[0]);
}

static rt_err restore(struct ex_world *world, uint32_t at)
{
	struct ex_node *node = &world->node[at];
	const struct ex_disk *disk = &node->disk;
	const struct sh_members *sets = world->scenario->sets;
	uint32_t index;
	uint8_t last = ex_last_set(disk->log, disk->floor, &index);
	struct sh_raft_settings settings = {.node = at + 1, .seed = 1};
	struct sh_raft_restore from = {.term = disk->term,
		.vote = disk->vote,
		.floor = disk->floor,
		.floor_term = disk->log[disk->floor].term,
		.set_index = index,
		.commit = disk->floor,
		.bar_index = disk->bar_index,
		.bar_term = disk->bar_term};
	if (last > 0) {
		from.members = sets[last - 1];
	} else if (!disk->blank && sh_members_find(&sets[0], at + 1) >= 0) {
		from.members = sets[0];
	}
	memset(&node->raft, 0, sizeof(node->raft));
	rt_err err = sh_raft_init(&node->raft, &settings, &from, &queue);
	if (err != RT_OK) {
		return err;
	}
	adopt(node);
	for (uint32_t i = disk->floor + 1u; i <= disk->size && err == RT_OK; i++) {
		uint8_t set = disk->log[i].set;
		err = sh_raft_restore_entries(
			&node->raft, 1, disk->log[i].term, set == 0 ? NULL : &sets[set - 1]);
	}
	return err == RT_OK ? sh_raft_start(&node->raft, node->clock) : err;
}

void ex_restart(struct ex_world *world, uint32_t at)
{
	struct ex_node *node = &world->node[at];
	memset(node->write, 0, sizeof(node->write));
	memset(node->parked, 0, sizeof(node->parked));
	node->write_count = node->parked_count = 0;
	queue.head = queue.count = 0;
	node->disk.installing = false; /* What was there of the install is gone. */
	if (restore(world, at) != RT_OK) {
		ex_fail(world, "node %u does not open again", at + 1);
		return;
	}
	memcpy(node->log, node->disk.log, sizeof(node->log));
	node->size = node->disk.size;
	ex_act(world, at, NULL);
}

/* Of a removed node only term, vote and bar are left. */
void ex_renew(struct ex_world *world, uint32_t at)
{
	const struct sh_raft *raft = &world->node[at].raft;
	world->node[at].disk = (struct ex_disk){.term = (uint8_t)raft->term,
		.vote = (uint8_t)raft->vote,
		.bar_term = (uint8_t)raft->bar_term,
		.bar_index = (uint8_t)raft->bar_index,
		.blank = true};
	ex_restart(world, at);
}

static void load_image(struct ex_world *world, uint32_t at)
{
	struct ex_disk *disk = &world->node[at].disk;
	const struct ex_image *image = &world->scenario->image[at];
	disk->term = image->term;
	disk->vote = image->vote;
	for (const char *c = image->log; c != NULL && *c != '\0'; c++) {
		bool set = *c >= 'a';
		disk->log[++disk->size] =
			set ? (struct ex_entry){world->scenario->sets_term, (uint8_t)(*c - 'a' + 1)}
			    : (struct ex_entry){(uint8_t)(*c - '0'), 0};
	}
}

void ex_world_init(struct ex_world *world, const struct ex_scenario *scenario)
{
	memset(world, 0, sizeof(*world));
	world->scenario = scenario;
	memcpy(world->budget, scenario->budget, sizeof(world->budget));
	for (uint32_t i = 0; i < scenario->nodes; i++) {
		world->node[i].clock = 1000000;
		load_image(world, i);
		ex_restart(world, i);
	}
}

void ex_world_copy(struct ex_world *to, const struct ex_world *from)
{
	memcpy(to, from,
		offsetof(struct ex_world, node) + from->scenario->nodes * sizeof(from->node[0]));
	for (uint32_t i = 0; i < from->scenario->nodes; i++) {
		to->node[i].raft.runs = to->node[i].runs;
		to->node[i].raft.sets = to->node[i].sets;
	}
}
