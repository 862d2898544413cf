/* An operator: nodes join, are drained, moved to and lost. */
#include <stdlib.h>
#include <string.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "sharding/cluster.pb-c.h"
#include "tests/clustersim/clustersim.h"

static uint32_t living(const struct cs *cs)
{
	uint32_t count = 0;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		count += cs->nodes[id].exists && !cs->nodes[id].gone && !cs->nodes[id].drained;
	}
	return count;
}

/* False: too much waits already. */
static bool enqueue(struct cs *cs, const char *name, uint32_t node, uint32_t shard)
{
	struct cs_admin *admin = &cs->admin;
	if (admin->queued == sizeof(admin->queue) / sizeof(admin->queue[0])) {
		return false;
	}
	admin->queue[admin->queued].name = name;
	admin->queue[admin->queued].node = node;
	admin->queue[admin->queued++].shard = shard;
	return true;
}

/* ---- what is to happen ---- */
void cs_admin_join(struct cs *cs)
{
	if (cs->admin.made + 1 < CS_NODES && cs->admin.wanted == cs->admin.joined) {
		cs->admin.wanted++;
	}
}

/* A member that may be missed, 0: none. */
static uint32_t spare(struct cs *cs)
{
	uint32_t id = 1 + cs_below(cs, CS_NODES);
	const struct cs_node *node = &cs->nodes[id];
	bool good =
		node->exists && !node->gone && !node->drained && living(cs) > cs->shape.replication;
	return good ? id : 0;
}

void cs_admin_drain(struct cs *cs)
{
	uint32_t id = spare(cs);
	if (id != 0 && enqueue(cs, "Drain", id, 0)) {
		cs->nodes[id].drained = true;
		cs->stats->drains++;
	}
}

/* Without it every group has a majority of those that vote now: one that was lost before may be
 * among them still. */
static bool may_lose(struct cs *cs, uint32_t id)
{
	for (uint32_t group = 0; group < cs_groups(cs); group++) {
		const struct cs_node *leader = cs_check_leader(cs, group);
		if (leader == NULL) {
			return false;
		}
		const struct sh_members *set =
			&sh_raft_members(sh_replica_raft(cs_node_replica(leader, group)))->members;
		uint32_t left = 0;
		for (uint32_t i = 0; i < set->count; i++) {
			bool stays = set->node[i] != id && !cs->nodes[set->node[i]].gone;
			left += stays && sh_members_votes(set, set->node[i]);
		}
		if (2 * left <= sh_members_voter_count(set)) {
			return false;
		}
	}
	return true;
}

/* Its machine burns down. Only one at a time: the next one has to wait until it is replaced. With
 * fewer than three replicas no loss is survived: a group on its way from three voters to two needs
 * both of these from the moment on at which its leader wants it. */
void cs_admin_lose(struct cs *cs)
{
	uint32_t id = spare(cs);
	if (id == 0 || cs->shape.replication < 3 || cs->losing || !cs->nodes[id].up ||
		!may_lose(cs, id) || !enqueue(cs, "Remove", id, 0)) {
		return;
	}
	CS_TRACE(cs, "n%u is LOST", id);
	cs->losing = true;
	cs->nodes[id].gone = true;
	cs->stats->removes++;
	cs_node_crash(&cs->nodes[id]);
}

void cs_admin_move(struct cs *cs)
{
	const struct cs_node *node = cs_any_node(cs);
	if (node != NULL && !node->drained && cs->admin.queued < 4 &&
		enqueue(cs, "Move", node->id, cs_below(cs, cs_groups(cs)))) {
		cs->stats->moves++;
		cs->admin.moved = true;
	}
}

/* ---- one after the other ---- */
static void join(struct cs *cs)
{
	struct cs_admin *admin = &cs->admin;
	uint32_t place = ++admin->made + 1;
	snprintf(admin->key, sizeof(admin->key), "%032" PRIx64, cs->seed + place);
	Troupe__Cluster__Join join = TROUPE__CLUSTER__JOIN__INIT;
	char rpc[32], peer[32], name[32];
	snprintf(rpc, sizeof(rpc), "tcp://10.0.0.%u:1", place);
	snprintf(peer, sizeof(peer), "tcp://10.0.0.%u:2", place);
	snprintf(name, sizeof(name), "n%u", place);
	join.key = admin->key;
	join.name = name;
	join.rpc = rpc;
	join.peer = peer;
	join.cluster = cs->cluster;
	admin->name = "Join";
	admin->size = troupe__cluster__join__pack(&join, admin->payload);
}

static void take_queued(struct cs *cs)
{
	struct cs_admin *admin = &cs->admin;
	uint32_t node = admin->node = admin->queue[0].node;
	admin->name = admin->queue[0].name;
	if (strcmp(admin->name, "Drain") == 0) {
		Troupe__Cluster__Drain drain = TROUPE__CLUSTER__DRAIN__INIT;
		drain.node = node;
		admin->size = troupe__cluster__drain__pack(&drain, admin->payload);
	} else if (strcmp(admin->name, "Remove") == 0) {
		Troupe__Cluster__Remove lost = TROUPE__CLUSTER__REMOVE__INIT;
		lost.node = node;
		admin->size = troupe__cluster__remove__pack(&lost, admin->payload);
	} else {
		Troupe__Cluster__Move move = TROUPE__CLUSTER__MOVE__INIT;
		move.node = node;
		move.shard = admin->queue[0].shard;
		admin->size = troupe__cluster__move__pack(&move, admin->payload);
	}
	memmove(&admin->queue[0], &admin->queue[1], --admin->queued * sizeof(admin->queue[0]));
}

bool cs_admin_next(struct cs *cs)
{
	struct cs_admin *admin = &cs->admin;
	if (admin->joined < admin->wanted) {
		join(cs);
		return true;
	}
	if (admin->queued > 0) {
		take_queued(cs);
		return true;
	}
	return false;
}

bool cs_admin_idle(const struct cs *cs)
{
	return cs->admin.joined == cs->admin.wanted && cs->admin.queued == 0;
}

static void joined(struct cs *cs, const struct cs_answer *answer)
{
	struct cs_admin *admin = &cs->admin;
	Troupe__Cluster__Joined *reply =
		troupe__cluster__joined__unpack(NULL, answer->size, answer->payload);
	CS_CHECK(cs,
		reply != NULL && reply->node >= 2 && reply->node <= CS_NODES &&
			!cs->nodes[reply->node].exists,
		"a node that joins is called %" PRIu64, reply == NULL ? 0 : reply->node);
	struct cs_node *node = &cs->nodes[reply->node];
	cs_node_make(cs, node->id, admin->key);
	for (size_t i = 0; i < reply->n_members; i++) {
		node->joined_with |= UINT64_C(1) << reply->members[i]->node;
	}
	troupe__cluster__joined__free_unpacked(reply, NULL);
	admin->joined++;
	cs->stats->joins++;
	cs_node_start(node);
}

void cs_admin_answered(struct cs *cs, const struct cs_answer *answer)
{
	bool good = answer->code == TROUPE__CODE__CODE_OK;
	if (strcmp(cs->admin.name, "Join") == 0 && good) {
		joined(cs, answer);
	} else if (strcmp(cs->admin.name, "Join") == 0) {
		/* There is no cluster yet; it is all that may be wrong. */
		CS_CHECK(cs, !cs->faults, "a node may not join: %s", answer->error);
		cs->admin.made--;
	} else if (strcmp(cs->admin.name, "Move") != 0) {
		bool removes = strcmp(cs->admin.name, "Remove") == 0;
		cs->losing = cs->losing && !(removes && good);
		if (!good) { /* Not dead yet, or dead just now. Its place is free again. */
			bool again = enqueue(cs, cs->admin.name, cs->admin.node, 0);
			RT_ASSERT(again);
		}
	}
}
