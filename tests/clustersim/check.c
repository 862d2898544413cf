/*
 * What must hold, looked at after every turn of every node.
 *
 * The truth of a group is what any core ever held to be committed, record by record; it only grows,
 * and every log is compared with it.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "tests/clustersim/clustersim.h"

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

/* ---- the truth grows ---- */
static bool is_true(const struct cs_truth *truth, uint64_t offset, struct rt_bytes bytes)
{
	const struct cs_record *record = &truth->records[offset - 1];
	return rt_bytes_equal(bytes, rt_bytes_of(record->bytes, record->size));
}

static void add_truth(struct cs_node *node, uint32_t group, struct rt_bytes bytes)
{
	struct cs *cs = node->cs;
	struct cs_truth *truth = &cs->truth[group];
	struct ps_record head;
	CS_CHECK(cs, ps_record_decode(bytes, &head) == RT_OK, "n%u g%u commits what is no record",
		node->id, group);
	truth->records =
		grown(truth->records, truth->count + 1, &truth->cap, sizeof(*truth->records));
	uint8_t *copy = malloc(bytes.size);
	RT_ASSERT(copy != NULL);
	memcpy(copy, bytes.data, bytes.size);
	truth->records[truth->count++] = (struct cs_record){
		head.term, rt_hash(bytes.data, bytes.size), (uint32_t)bytes.size, copy};
	cs->stats->commits++;
	CS_TRACE(cs, "n%u g%u commits %" PRIu64 " of term %" PRIu64 " %.*s", node->id, group,
		truth->count, head.term, (int)head.pid.size, (const char *)head.pid.data);
}

static struct rt_bytes record_of(const struct cs_node *node, uint32_t group, uint64_t offset)
{
	struct rt_bytes bytes;
	const struct sh_replica *replica = cs_node_replica(node, group);
	return sh_replica_record(replica, offset, &bytes)
		       ? bytes
		       : mem_disk_written(node->disk, group, offset);
}

/* ---- what is on disks ---- */
static bool disk_holds(const struct cs *cs, uint64_t id, uint32_t group, uint64_t offset)
{
	const struct cs_node *node = &cs->nodes[id];
	if (id > CS_NODES || !node->exists) {
		return false;
	}
	struct rt_bytes bytes = mem_disk_record(node->disk, group, offset);
	return bytes.data != NULL && is_true(&cs->truth[group], offset, bytes);
}

/* In every majority of those that vote somebody has it. */
static bool is_safe(struct cs_node *node, uint32_t group)
{
	struct cs *cs = node->cs;
	const struct sh_raft_set *set =
		sh_raft_members(sh_replica_raft(cs_node_replica(node, group)));
	uint32_t held = 0;
	uint32_t voters = 0;
	for (uint32_t i = 0; set != NULL && i < set->members.count; i++) {
		bool votes = (set->members.voters >> i & 1) != 0;
		voters += votes;
		held += votes &&
			disk_holds(cs, set->members.node[i], group, cs->truth[group].count);
	}
	return 2 * held >= voters;
}

static void compare_commit(struct cs_node *node, uint32_t group, const struct sh_raft *raft)
{
	struct cs *cs = node->cs;
	struct cs_truth *truth = &cs->truth[group];
	struct cs_seen *seen = &node->seen[group];
	uint64_t before = truth->count;
	uint64_t offset = seen->commit + 1;
	for (; offset <= raft->commit; offset++) {
		struct rt_bytes bytes = record_of(node, group, offset);
		if (bytes.data == NULL) {
			break;
		}
		if (offset > truth->count) {
			CS_CHECK(cs, offset == truth->count + 1,
				"n%u g%u commits %" PRIu64 " after %" PRIu64, node->id, group,
				offset, truth->count);
			add_truth(node, group, bytes);
		}
		CS_CHECK(cs, is_true(truth, offset, bytes),
			"STATE MACHINE SAFETY: n%u g%u has another record at %" PRIu64, node->id,
			group, offset);
	}
	seen->commit = offset - 1;
	CS_CHECK(cs, truth->count == before || raft->role != SH_LEADER || is_safe(node, group),
		"n%u g%u commits %" PRIu64 ", a majority is without it", node->id, group,
		truth->count);
}

/* ---- leaders ---- */
static void check_leader(struct cs_node *node, uint32_t group, const struct sh_raft *raft)
{
	struct cs *cs = node->cs;
	struct cs_truth *truth = &cs->truth[group];
	bool alone = sh_members_voter_count(&sh_raft_members(raft)->members) == 1;
	/* Who votes for itself only leads before that vote is durable. Nothing leaves before it is,
	 * and a crash until then makes it as if it had never led. */
	if (raft->term == node->seen[group].led_term || (alone && raft->stored < raft->noop)) {
		return;
	}
	node->seen[group].led_term = raft->term;
	truth->leader_of = grown(truth->leader_of, raft->term + 1, &truth->term_cap, 1);
	uint8_t other = truth->leader_of[raft->term];
	CS_CHECK(cs, other == 0 || other == node->id,
		"TWO LEADERS of g%u in term %" PRIu64 ": n%u and n%u", group, raft->term, node->id,
		other);
	truth->leader_of[raft->term] = (uint8_t)node->id;
	CS_TRACE(cs, "n%u g%u leads term %" PRIu64, node->id, group, raft->term);
	cs->stats->elections++;
	cs_kill_by(cs, node, cs->shape.crash_lead, CS_MS(30));
}

static void note_install(struct cs_node *node, uint32_t group, bool installing)
{
	struct cs *cs = node->cs;
	struct cs_seen *seen = &node->seen[group];
	if (installing && !seen->installing) {
		CS_TRACE(cs, "n%u g%u installs", node->id, group);
		cs->stats->installs++;
		cs_kill_by(cs, node, cs->shape.crash_install, CS_MS(60));
	}
	seen->installing = installing;
	if (installing) {
		seen->commit = 0;
	}
}

static void check_replica(struct cs_node *node, uint32_t group)
{
	struct cs *cs = node->cs;
	struct cs_seen *seen = &node->seen[group];
	const struct sh_replica *replica = cs_node_replica(node, group);
	const struct sh_raft *raft = sh_replica_raft(replica);
	CS_CHECK(cs, raft->term >= seen->term, "n%u g%u goes back to term %" PRIu64, node->id,
		group, raft->term);
	seen->term = raft->term;
	if (sh_replica_removed(replica)) {
		seen->commit = 0;
		return;
	}
	if (raft->role == SH_LEADER) {
		check_leader(node, group, raft);
	}
	note_install(node, group, raft->installing);
	if (!raft->installing) {
		seen->commit = raft->commit < seen->commit ? raft->commit : seen->commit;
		compare_commit(node, group, raft);
	}
	bool serves = cs_node_serves(node, group);
	CS_CHECK(cs, !serves || raft->role == SH_LEADER, "n%u g%u serves and does not lead",
		node->id, group);
}

void cs_check_node(struct cs_node *node)
{
	for (uint32_t group = 0; group < cs_groups(node->cs); group++) {
		check_replica(node, group);
	}
}

void cs_check_opened(struct cs_node *node)
{
	struct cs *cs = node->cs;
	for (uint32_t group = 0; group < cs_groups(cs); group++) {
		const struct sh_raft *raft = sh_replica_raft(cs_node_replica(node, group));
		CS_CHECK(cs, raft->commit <= cs->truth[group].count,
			"n%u g%u opens with %" PRIu64 " committed, there are %" PRIu64, node->id,
			group, raft->commit, cs->truth[group].count);
	}
}

/* ---- the end ---- */
RT_PRINTF(1, 2) static const char *say(const char *format, ...)
{
	static char text[200];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return text;
}

static bool holds(const struct cs_node *node)
{
	return node->exists && !node->gone && !node->drained;
}

const struct cs_node *cs_check_leader(const struct cs *cs, uint32_t group)
{
	const struct cs_node *leader = NULL;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		const struct cs_node *node = &cs->nodes[id];
		if (node->up && cs_node_serves(node, group)) {
			if (leader != NULL) {
				return NULL;
			}
			leader = node;
		}
	}
	return leader;
}

static const char *check_member(
	const struct cs *cs, uint32_t group, uint64_t id, const struct sh_raft *leader)
{
	const struct cs_node *node = &cs->nodes[id];
	if (id > CS_NODES || !holds(node)) {
		return say("g%u is held by n%u", group, (uint32_t)id);
	}
	if (!node->up) {
		return say("n%u is down", node->id);
	}
	const struct sh_raft *raft = sh_replica_raft(cs_node_replica(node, group));
	if (raft->installing || raft->commit != leader->commit || raft->stored != leader->last ||
		node->seen[group].commit != raft->commit) {
		return say("n%u g%u has %" PRIu64 " of %" PRIu64, node->id, group, raft->commit,
			leader->commit);
	}
	return NULL;
}

static const char *check_group(const struct cs *cs, uint32_t group, uint32_t wanted)
{
	const struct cs_node *node = cs_check_leader(cs, group);
	if (node == NULL) {
		return say("g%u is served by nobody, or by two", group);
	}
	const struct sh_raft *raft = sh_replica_raft(cs_node_replica(node, group));
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (raft->commit != raft->last || raft->commit != cs->truth[group].count) {
		return say("g%u has records that are not committed", group);
	}
	if (set->members.count != wanted || sh_members_voter_count(&set->members) != wanted) {
		return say("g%u has %u members, %u vote, and is to have %u", group,
			set->members.count, sh_members_voter_count(&set->members), wanted);
	}
	for (uint32_t i = 0; i < set->members.count; i++) {
		const char *why = check_member(cs, group, set->members.node[i], raft);
		if (why != NULL) {
			return why;
		}
	}
	return NULL;
}

static void count_work(
	const struct cs *cs, const struct cs_node *node, uint32_t *leads, uint32_t *has)
{
	for (uint32_t group = 0; group < cs_groups(cs); group++) {
		const struct cs_node *leader = cs_check_leader(cs, group);
		const struct sh_raft_set *set =
			sh_raft_members(sh_replica_raft(cs_node_replica(leader, group)));
		*leads += leader == node;
		*has += sh_members_find(&set->members, node->id) >= 0;
	}
}

/* Nobody has much more to do than another, unless an operator wanted it so. */
static const char *check_even(const struct cs *cs)
{
	uint32_t least[2] = {UINT32_MAX, UINT32_MAX};
	uint32_t most[2] = {0, 0};
	for (uint32_t id = 1; id <= CS_NODES && !cs->admin.moved; id++) {
		uint32_t work[2] = {0, 0};
		if (!holds(&cs->nodes[id])) {
			continue;
		}
		count_work(cs, &cs->nodes[id], &work[0], &work[1]);
		for (int i = 0; i < 2; i++) {
			least[i] = work[i] < least[i] ? work[i] : least[i];
			most[i] = work[i] > most[i] ? work[i] : most[i];
		}
	}
	if (!cs->admin.moved && most[0] - least[0] > 2) {
		return say("a node leads %u groups, another one %u", most[0], least[0]);
	}
	return cs->admin.moved || most[1] - least[1] <= 1
		       ? NULL
		       : say("a node has %u replicas, another one %u", most[1], least[1]);
}

const char *cs_check_converged(struct cs *cs)
{
	uint32_t living = 0;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		const struct cs_node *node = &cs->nodes[id];
		living += holds(node);
		if (node->leaving || (holds(node) && !node->up)) {
			return say("n%u is not back", id);
		}
	}
	uint32_t wanted = cs->shape.replication < living ? cs->shape.replication : living;
	for (uint32_t group = 0; group < cs_groups(cs); group++) {
		const char *why = check_group(cs, group, wanted);
		if (why != NULL) {
			return why;
		}
	}
	return check_even(cs);
}

/* Every member's log on disk is the truth. */
void cs_check_done(struct cs *cs)
{
	for (uint32_t group = 0; group < cs_groups(cs); group++) {
		const struct cs_node *leader = cs_check_leader(cs, group);
		const struct sh_raft_set *set =
			sh_raft_members(sh_replica_raft(cs_node_replica(leader, group)));
		for (uint32_t i = 0; i < set->members.count; i++) {
			for (uint64_t at = 1; at <= cs->truth[group].count; at++) {
				CS_CHECK(cs, disk_holds(cs, set->members.node[i], group, at),
					"n%u g%u: its disk is without %" PRIu64,
					(uint32_t)set->members.node[i], group, at);
			}
		}
	}
}
