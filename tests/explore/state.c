/* Worlds looked at: what must hold in each, which are equal, how they read. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "tests/explore/world.h"

/* ---- checks ---- */
static void check_log(struct ex_world *world, uint32_t at)
{
	const struct ex_node *node = &world->node[at];
	const struct sh_raft *raft = &node->raft;
	if (raft->last != node->size) {
		ex_fail(world, "node %u: last %u, log ends at %u", at + 1, (unsigned)raft->last,
			node->size);
		return;
	}
	for (uint64_t i = raft->floor; i > 0 && i <= raft->last; i++) {
		if (sh_raft_term_at(raft, i) != node->log[i].term) {
			ex_fail(world, "node %u takes entry %u for one of term %u", at + 1,
				(unsigned)i, (unsigned)sh_raft_term_at(raft, i));
		}
	}
	for (uint64_t i = 1; i <= raft->stored; i++) {
		if (node->disk.size < i || node->disk.log[i].term != node->log[i].term) {
			ex_fail(world, "node %u takes entry %u for durable", at + 1, (unsigned)i);
		}
	}
}

/* The set in use is the last one in the log. */
static void check_members(struct ex_world *world, uint32_t at)
{
	const struct ex_node *node = &world->node[at];
	if (node->raft.installing) {
		return;
	}
	uint32_t index;
	uint8_t last = ex_last_set(node->log, node->size, &index);
	const struct sh_raft_set *used = sh_raft_members(&node->raft);
	const struct sh_members *first = &world->scenario->sets[0];
	if (last == 0 && (node->disk.blank || sh_members_find(first, at + 1) < 0)) {
		return; /* It began as nobody's member. */
	}
	if (used->index != index || !sh_members_equal(&used->members,
					    last == 0 ? first : &world->scenario->sets[last - 1])) {
		ex_fail(world,
			"node %u uses the members of entry %u, the last in its log are of %u",
			at + 1, (unsigned)used->index, index);
	}
}

static void check_reads(struct ex_world *world)
{
	struct ex_read *read = &world->read;
	if (read->node != 0) {
		rt_err err = sh_raft_read_ok(&world->node[read->node - 1].raft, &read->read);
		if (err == RT_OK && read->read.index < read->need) {
			ex_fail(world, "node %u reads at %u, answered before was %u", read->node,
				(unsigned)read->read.index, read->need);
		}
		if (err != RT_E_AGAIN) {
			*read = (struct ex_read){0};
		}
	}
	for (uint32_t i = 0; world->scenario->one_clock && i < world->scenario->nodes; i++) {
		const struct ex_node *node = &world->node[i];
		if (sh_raft_lease(&node->raft, node->clock) &&
			node->raft.commit < world->answered) {
			ex_fail(world, "node %u reads at %u by its lease, answered before was %u",
				i + 1, (unsigned)node->raft.commit, world->answered);
		}
	}
}

/* What is committed stays with a majority, whatever happens to single disks. */
static void check_durable(struct ex_world *world)
{
	const struct ex_scenario *scenario = world->scenario;
	if (scenario->set_count != 1) {
		return; /* Of which set, then? */
	}
	for (uint32_t i = 1; i <= EX_LOG && world->committed_in[i] != 0; i++) {
		uint32_t held = 0;
		for (uint32_t k = 0; k < scenario->nodes; k++) {
			const struct ex_disk *disk = &world->node[k].disk;
			held += disk->size >= i && disk->log[i].term == world->committed[i].term;
		}
		if (held <= sh_members_voter_count(&scenario->sets[0]) / 2) {
			ex_fail(world, "committed entry %u is left on %u disks", i, held);
		}
	}
}

void ex_check(struct ex_world *world)
{
	for (uint32_t i = 0; i < world->scenario->nodes && !world->bad; i++) {
		sh_raft_check(&world->node[i].raft);
		check_log(world, i);
		check_members(world, i);
	}
	check_durable(world);
	check_reads(world);
}

/* ---- equality ----
 * Times and rounds count only as far as they lie apart, and times only up to where it makes no
 * difference any more. Deadlines do not count: a timeout moves the clock to where it is due. */
struct bytes {
	uint8_t at[2048];
	uint32_t size;
};

static void put(struct bytes *b, uint64_t value)
{
	b->at[b->size++] = (uint8_t)value;
}

static void put_all(struct bytes *b, const void *data, size_t size)
{
	memcpy(&b->at[b->size], data, size);
	b->size += (uint32_t)size;
}

/* In sixteenths of an election timeout. */
static uint64_t age(const struct ex_node *node, uint64_t since, uint64_t most)
{
	uint64_t passed = node->clock > since ? node->clock - since : 0;
	return (passed < most ? passed : most) * 16 / node->raft.settings.election_ms;
}

static void put_peer(struct bytes *b, const struct ex_world *world, const struct ex_node *node,
	const struct sh_raft_peer *peer)
{
	const uint64_t timeout = node->raft.settings.election_ms;
	put(b, peer->match);
	put(b, peer->next);
	put(b, (uint64_t)(peer->state | peer->probing << 2 | peer->offered << 3 | peer->held << 4));
	put(b, age(node, peer->heard_at, timeout + timeout / 16));
	put(b, node->raft.round - peer->round);
	put(b, world->scenario->one_clock ? age(node, peer->stamp, timeout / 2) : 0);
	put(b, peer->state == SH_PEER_INSTALL ? age(node, peer->install_at, timeout) : 0);
	put(b, (uint64_t)(peer->group_count << 4 | peer->group_messages));
	for (uint32_t i = 0; i < peer->group_count; i++) {
		put(b, peer->group_end[i]);
	}
}

static void put_leader(struct bytes *b, const struct ex_world *world, const struct ex_node *node)
{
	const struct sh_raft *raft = &node->raft;
	put(b, raft->noop);
	put(b, raft->transferee | (uint64_t)raft->lease_ended << 4);
	put(b, raft->transferee != 0 ? (raft->transfer_until - raft->now) / 64 : 0);
	put(b, raft->beat_at > node->clock ? (raft->beat_at - node->clock) / 32 : 0);
	put(b, raft->quorum_at > node->clock ? (raft->quorum_at - node->clock) / 32 : 0);
	for (uint32_t i = 0; i < sh_raft_members(raft)->members.count; i++) {
		put_peer(b, world, node, &raft->peers[i]);
	}
}

/* How far a round of a node lies back, if that node still cares. */
static uint64_t round_of(const struct ex_world *world, uint64_t of, uint64_t term, uint64_t round)
{
	const struct sh_raft *raft = of == 0 ? NULL : &world->node[of - 1].raft;
	return raft == NULL || raft->term != term ? 255 : (uint8_t)(raft->round - round);
}

static uint64_t stamp_of(const struct ex_world *world, uint64_t of, uint64_t stamp)
{
	const struct ex_node *node = of == 0 ? NULL : &world->node[of - 1];
	return !world->scenario->one_clock || node == NULL
		       ? 0
		       : age(node, stamp, node->raft.settings.election_ms / 2);
}

static void put_disk(struct bytes *b, const struct ex_disk *disk)
{
	put(b, disk->term);
	put(b, (uint64_t)(disk->vote | disk->installing << 4 | disk->removed << 5 |
			  disk->blank << 6));
	put(b, disk->floor);
	put(b, disk->bar_term);
	put(b, disk->bar_index);
	put(b, disk->size);
	put_all(b, &disk->log[1], disk->size * sizeof(disk->log[0]));
}

static uint64_t hash_message(const struct ex_world *world, const struct ex_message *m)
{
	struct ex_message plain = *m;
	bool answers = m->type == SH_MSG_APPEND_RESULT || m->type == SH_MSG_VOTE_RESULT ||
		       m->type == SH_MSG_REMOVED;
	bool pre = (m->flags & SH_FLAG_PRE) != 0;
	uint8_t origin = answers ? m->to : m->from;
	plain.stamp = (uint32_t)stamp_of(world, origin, m->stamp);
	const struct sh_raft *raft = &world->node[origin - 1].raft;
	plain.round = (uint16_t)(pre ? (uint8_t)(raft->round - m->round)
				     : round_of(world, origin, m->term, m->round));
	return rt_hash_mix(rt_hash(&plain, sizeof(plain)));
}

static void put_node(struct bytes *b, const struct ex_world *world, uint32_t at)
{
	const struct ex_node *node = &world->node[at];
	const struct sh_raft *raft = &node->raft;
	const uint64_t timeout = raft->settings.election_ms;
	put(b, raft->term);
	put(b, raft->vote | raft->leader << 4);
	put(b, (uint64_t)raft->role | (uint64_t)raft->installing << 2 |
			(uint64_t)raft->removed << 3);
	put(b, raft->install_source);
	put(b, raft->bar_term);
	put(b, raft->bar_index);
	put(b, raft->granted);
	put(b, raft->floor);
	put(b, raft->last);
	put(b, raft->stored);
	put(b, raft->commit);
	put(b, raft->applied);
	put(b, raft->verified);
	put_all(b, &node->log[1], node->size * sizeof(node->log[0]));
	put_disk(b, &node->disk);
	put(b, node->write_count);
	for (uint32_t i = 0; i < node->write_count; i++) {
		struct ex_write write = node->write[i];
		write.generation = (uint16_t)(raft->generation - write.generation);
		put_all(b, &write, sizeof(write));
	}
	put(b, node->parked_count);
	for (uint32_t i = 0; i < node->parked_count; i++) {
		uint64_t hash = hash_message(world, &node->parked[i]);
		put_all(b, &hash, sizeof(hash));
		put(b, node->parked_after[i]);
	}
	if (raft->role == SH_LEADER) {
		put_leader(b, world, node);
		return;
	}
	put(b, raft->had_contact ? age(node, raft->contact, timeout) : 255);
	put(b, round_of(world, raft->leader, raft->term, raft->echo_round));
	put(b, stamp_of(world, raft->leader, raft->echo_stamp));
}

uint64_t ex_hash(const struct ex_world *world)
{
	struct bytes b;
	b.size = 0;
	put_all(&b, world->budget, sizeof(world->budget));
	put_all(&b, world->committed, sizeof(world->committed));
	put_all(&b, world->committed_in, sizeof(world->committed_in));
	put_all(&b, world->leader_of, sizeof(world->leader_of));
	put(&b, world->answered);
	put(&b, world->read.node);
	if (world->read.node != 0) {
		put(&b, world->read.need);
		put(&b, world->read.read.index);
		put(&b, round_of(world, world->read.node, world->read.read.term,
				world->read.read.round));
	}
	for (uint32_t i = 0; i < world->scenario->nodes; i++) {
		put_node(&b, world, i);
	}
	uint64_t hash = rt_hash_mix(rt_hash(b.at, b.size));
	for (uint32_t i = 0; i < world->message_count; i++) {
		hash += hash_message(world, &world->message[i]);
	}
	return rt_hash_mix(hash);
}

/* ---- reading ---- */
static void print_log(const struct ex_entry *log, uint32_t size, uint64_t commit)
{
	for (uint32_t i = 1; i <= size; i++) {
		if (log[i].set != 0) {
			printf(" %u%c", log[i].term, 'a' + log[i].set - 1);
		} else {
			printf(" %u", log[i].term);
		}
		printf("%s", i == commit ? " |" : "");
	}
}

static void print_message(const struct ex_message *m)
{
	static const char *types[] = {"?", "APPEND", "APPEND_RESULT", "VOTE", "VOTE_RESULT",
		"INSTALL", "TIMEOUT_NOW", "REMOVED"};
	printf("%s%s %u -> %u term %u", (m->flags & SH_FLAG_PRE) != 0 ? "PRE-" : "",
		types[m->type & 7], m->from, m->to, m->term);
	switch ((enum sh_message_type)m->type) {
	case SH_MSG_APPEND:
		printf(" after %u/%u commit %u:", m->index, m->log_term, m->commit);
		for (uint32_t i = 0; i < m->count; i++) {
			printf(m->entry[i].set != 0 ? " %u%c" : " %u", m->entry[i].term,
				'a' + m->entry[i].set - 1);
		}
		break;
	case SH_MSG_APPEND_RESULT:
		printf((m->flags & SH_FLAG_REJECT) != 0 ? " rejects %u, hint %u" : " has %u",
			m->index, m->hint);
		break;
	case SH_MSG_VOTE:
		printf("%s, log ends at %u/%u",
			(m->flags & SH_FLAG_TRANSFER) != 0 ? " by wish" : "", m->index,
			m->log_term);
		break;
	case SH_MSG_VOTE_RESULT:
		printf((m->flags & SH_FLAG_GRANTED) != 0 ? " granted" : " refused");
		break;
	case SH_MSG_INSTALL:
		printf(" floor %u/%u", m->index, m->log_term);
		break;
	default:
		break;
	}
}

void ex_print_world(const struct ex_world *world)
{
	static const char *roles[] = {"follows", "asks", "stands", "LEADS"};
	for (uint32_t i = 0; i < world->scenario->nodes; i++) {
		const struct ex_node *node = &world->node[i];
		const struct sh_raft *raft = &node->raft;
		printf("        %u %-7s term %" PRIu64 " vote %" PRIu64 " leader %" PRIu64 " log%s",
			i + 1, raft->removed ? "removed" : roles[raft->role], raft->term,
			raft->vote, raft->leader, raft->commit == 0 ? " |" : "");
		print_log(node->log, node->size, raft->commit);
		if (node->write_count > 0) {
			printf("   disk: term %u vote %u log", node->disk.term, node->disk.vote);
			print_log(node->disk.log, node->disk.size, 0);
		}
		printf("\n");
	}
}

void ex_print_step(const struct ex_world *before, struct ex_step step)
{
	static const char *names[EX_STEP_KINDS] = {"deliver", "deliver late", "deliver and keep",
		"write is durable", "crash and restart", "timeout", "heartbeat", "silence",
		"propose", "propose members", "read", "transfer to", "compact",
		"install is complete", "begin anew"};
	printf("  %s ", names[step.kind]);
	if (step.kind <= EX_REPEAT) {
		print_message(&before->message[step.arg]);
	} else if (step.kind == EX_CHANGE) {
		printf("%c at node %u", 'a' + step.arg, step.node + 1);
	} else if (step.kind == EX_TRANSFER) {
		printf("%u at node %u", step.arg, step.node + 1);
	} else {
		printf("at node %u", step.node + 1);
		if (step.kind == EX_TIMEOUT && step.arg != 0) {
			printf(", pre-votes of mask %u", step.arg);
		}
	}
	printf("\n");
}
