#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sharding/cluster_state.h"

enum {
	FOUND,
	JOIN,
	ANNOUNCE,
	DRAIN,
	LEAVE,
	REMOVE,
	SET_ALIVE,
	PLACE,
	MOVE,
	CONFIGURE
};

/* ---- what is valid ---- */

static bool is_key(const char *text)
{
	size_t size = strlen(text);
	for (size_t i = 0; i < size; i++) {
		if (!isalnum((unsigned char)text[i])) {
			return false;
		}
	}
	return size > 0 && size <= SH_CLUSTER_KEY_MAX;
}

/* Bytes above ASCII are parts of letters: the guard has seen to UTF-8. */
static bool is_name(const char *text)
{
	size_t size = strlen(text);
	for (size_t i = 0; i < size; i++) {
		if ((unsigned char)text[i] < ' ' || text[i] == 127) {
			return false;
		}
	}
	return size <= SH_CLUSTER_NAME_MAX;
}

static bool refuse_settings(
	struct troupe_out *out, uint32_t replication, uint32_t moves_max, uint32_t dead_after_ms)
{
	if (replication < 1 || replication > SH_CLUSTER_REPLICATION_MAX) {
		return troupe_refuse(
			out, "replication must be 1 to %u", SH_CLUSTER_REPLICATION_MAX);
	}
	if (moves_max < 1 || moves_max > SH_CLUSTER_MOVES_MAX) {
		return troupe_refuse(out, "moves_max must be 1 to %u", SH_CLUSTER_MOVES_MAX);
	}
	if (dead_after_ms < SH_CLUSTER_DEAD_AFTER_MIN ||
		dead_after_ms > SH_CLUSTER_DEAD_AFTER_MAX) {
		return troupe_refuse(out, "dead_after_ms must be %u to %u",
			SH_CLUSTER_DEAD_AFTER_MIN, SH_CLUSTER_DEAD_AFTER_MAX);
	}
	return true;
}

/* A member that has not left; NULL after a refusal. */
static const Troupe__Cluster__Member *present(
	const Troupe__Cluster__ClusterState *state, uint64_t node, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = sh_cluster_member(state, node);
	if (member == NULL) {
		troupe_refuse(out, "node %" PRIu64 " is not a member", node);
	} else if (member->state == SH_NODE_LEFT) {
		troupe_refuse(out, "node %" PRIu64 " has left the cluster", node);
		member = NULL;
	}
	return member;
}

/* ---- commands: who is a member ---- */

static bool refuse_member(struct troupe_out *out, const char *key, const char *name)
{
	if (!is_key(key)) {
		return troupe_refuse(
			out, "key must be 1 to %u letters and digits", SH_CLUSTER_KEY_MAX);
	}
	if (!is_name(name)) {
		return troupe_refuse(
			out, "name must be at most %u printable bytes", SH_CLUSTER_NAME_MAX);
	}
	return true;
}

/* What is not known yet is empty, and announced later. */
static bool refuse_urls(struct troupe_out *out, const char *rpc, const char *peer)
{
	if (rpc[0] != '\0' && !sh_cluster_url_valid(rpc)) {
		return troupe_refuse(
			out, "rpc must be a URL of at most %u bytes", SH_CLUSTER_URL_MAX);
	}
	if (peer[0] != '\0' && !sh_cluster_url_valid(peer)) {
		return troupe_refuse(
			out, "peer must be a URL of at most %u bytes", SH_CLUSTER_URL_MAX);
	}
	return true;
}

static bool decide_found(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Found *command, struct troupe_out *out)
{
	Troupe__Cluster__ClusterFounded event = TROUPE__CLUSTER__CLUSTER_FOUNDED__INIT;
	Troupe__Cluster__Member founder = TROUPE__CLUSTER__MEMBER__INIT;
	if (state != NULL) {
		return troupe_refuse(out, "cluster %s is founded already", state->cluster);
	}
	if (!sh_cluster_id_valid(command->cluster)) {
		return troupe_refuse(out, "cluster must be 32 hexadecimal digits");
	}
	if (command->shard_count == 0 || command->shard_count > SH_SHARDS_MAX) {
		return troupe_refuse(out, "shard_count must be 1 to %u", SH_SHARDS_MAX);
	}
	if (command->founder == NULL) {
		return troupe_refuse(out, "founder is missing");
	}
	event.cluster = command->cluster;
	event.shard_count = command->shard_count;
	event.replication =
		command->replication != 0 ? command->replication : SH_CLUSTER_REPLICATION;
	event.moves_max = SH_CLUSTER_MOVES;
	event.dead_after_ms =
		command->dead_after_ms != 0 ? command->dead_after_ms : SH_CLUSTER_DEAD_AFTER;
	founder = *command->founder;
	founder.node = 1;
	founder.state = SH_NODE_UP;
	founder.drain = false;
	if (founder.name[0] == '\0') {
		founder.name = (char *)(uintptr_t) "n1";
	}
	event.founder = &founder;
	if (!refuse_settings(out, event.replication, event.moves_max, event.dead_after_ms) ||
		!refuse_member(out, founder.key, founder.name) ||
		!refuse_urls(out, founder.rpc, founder.peer)) {
		return false;
	}
	troupe_emit(out, &event.base);
	return true;
}

static void emit_announced(uint64_t node, const char *rpc, const char *peer, struct troupe_out *out)
{
	Troupe__Cluster__NodeAnnounced event = TROUPE__CLUSTER__NODE_ANNOUNCED__INIT;
	event.node = node;
	event.rpc = (char *)(uintptr_t)rpc;
	event.peer = (char *)(uintptr_t)peer;
	troupe_emit(out, &event.base);
}

/* The members as they are once the joining one, given, is among them. */
static void reply_joined(const Troupe__Cluster__ClusterState *state,
	Troupe__Cluster__Member *joined, struct troupe_out *out)
{
	Troupe__Cluster__Member *list[SH_CLUSTER_NODES_MAX + 1];
	Troupe__Cluster__Joined reply = TROUPE__CLUSTER__JOINED__INIT;
	bool listed = false;
	for (size_t i = 0; i < state->n_members && reply.n_members < SH_CLUSTER_NODES_MAX; i++) {
		Troupe__Cluster__Member *member = state->members[i];
		if (member->node == joined->node) {
			list[reply.n_members++] = joined;
			listed = true;
		} else if (member->state != SH_NODE_LEFT) {
			list[reply.n_members++] = member;
		}
	}
	if (!listed) { /* New ones have the greatest number. */
		list[reply.n_members++] = joined;
	}
	reply.members = list;
	reply.cluster = state->cluster;
	reply.node = joined->node;
	reply.shard_count = state->shard_count;
	troupe_reply(out, &reply.base);
}

static bool join_again(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Member *known, const Troupe__Cluster__Join *command,
	struct troupe_out *out)
{
	Troupe__Cluster__Member member = *known;
	if (known->state == SH_NODE_LEFT) {
		return troupe_refuse(out,
			"node %" PRIu64 " has left the cluster; join with an empty data folder",
			known->node);
	}
	bool said = command->rpc[0] != '\0' || command->peer[0] != '\0';
	if (said && (strcmp(known->rpc, command->rpc) != 0 ||
			    strcmp(known->peer, command->peer) != 0)) {
		emit_announced(known->node, command->rpc, command->peer, out);
		member.rpc = command->rpc;
		member.peer = command->peer;
	}
	reply_joined(state, &member, out);
	return true;
}

static bool decide_join(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Join *command, struct troupe_out *out)
{
	char name[32];
	Troupe__Cluster__Member member = TROUPE__CLUSTER__MEMBER__INIT;
	Troupe__Cluster__NodeJoined event = TROUPE__CLUSTER__NODE_JOINED__INIT;
	if (command->cluster[0] != '\0' && strcmp(command->cluster, state->cluster) != 0) {
		return troupe_refuse(out, "this is cluster %s", state->cluster);
	}
	if (!refuse_member(out, command->key, command->name) ||
		!refuse_urls(out, command->rpc, command->peer)) {
		return false;
	}
	for (size_t i = 0; i < state->n_members; i++) {
		if (strcmp(state->members[i]->key, command->key) == 0) {
			return join_again(state, state->members[i], command, out);
		}
	}
	if (state->n_members - sh_cluster_count(state, SH_NODE_LEFT) >= SH_CLUSTER_NODES_MAX) {
		return troupe_refuse(
			out, "the cluster has %u nodes, which is the limit", SH_CLUSTER_NODES_MAX);
	}
	snprintf(name, sizeof(name), "n%" PRIu64, state->next_node);
	member.node = state->next_node;
	member.key = command->key;
	member.name = command->name[0] != '\0' ? command->name : name;
	member.rpc = command->rpc;
	member.peer = command->peer;
	event.member = &member;
	troupe_emit(out, &event.base);
	reply_joined(state, &member, out);
	return true;
}

static bool decide_announce(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Announce *command, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = present(state, command->node, out);
	if (member == NULL || !refuse_urls(out, command->rpc, command->peer)) {
		return false;
	}
	if (strcmp(member->rpc, command->rpc) != 0 || strcmp(member->peer, command->peer) != 0) {
		emit_announced(command->node, command->rpc, command->peer, out);
	}
	return true;
}

/* ---- commands: how members are ---- */

static bool change(uint64_t node, Troupe__Cluster__NodeState to, struct troupe_out *out)
{
	Troupe__Cluster__NodeStateChanged event = TROUPE__CLUSTER__NODE_STATE_CHANGED__INIT;
	event.node = node;
	event.state = to;
	troupe_emit(out, &event.base);
	return true;
}

static bool refuse_last(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Member *member, struct troupe_out *out)
{
	if (member->state == SH_NODE_UP && sh_cluster_count(state, SH_NODE_UP) == 1) {
		return troupe_refuse(
			out, "node %" PRIu64 " is the last one that is up", member->node);
	}
	return true;
}

static bool decide_drain(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Drain *command, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = present(state, command->node, out);
	if (member == NULL) {
		return false;
	}
	if (member->state == SH_NODE_DEAD) {
		return troupe_refuse(out, "node %" PRIu64 " is dead: remove it", command->node);
	}
	if (command->cancel) {
		return member->state == SH_NODE_UP || change(command->node, SH_NODE_UP, out);
	}
	if (member->state == SH_NODE_DRAINING) {
		return true;
	}
	return refuse_last(state, member, out) && change(command->node, SH_NODE_DRAINING, out);
}

static bool refuse_holder(
	const Troupe__Cluster__ClusterState *state, uint64_t node, struct troupe_out *out)
{
	uint32_t load = sh_cluster_load(state, node);
	if (load > 0) {
		return troupe_refuse(
			out, "node %" PRIu64 " is still to hold %" PRIu32 " shards", node, load);
	}
	return true;
}

static bool decide_leave(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Leave *command, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = sh_cluster_member(state, command->node);
	if (member != NULL && member->state == SH_NODE_LEFT) {
		return true;
	}
	member = present(state, command->node, out);
	if (member == NULL) {
		return false;
	}
	if (member->state != SH_NODE_DRAINING && !member->drain) {
		return troupe_refuse(out, "node %" PRIu64 " is not draining", command->node);
	}
	return refuse_holder(state, command->node, out) && change(command->node, SH_NODE_LEFT, out);
}

static bool decide_remove(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Remove *command, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = sh_cluster_member(state, command->node);
	if (member != NULL && member->state == SH_NODE_LEFT) {
		return true;
	}
	member = present(state, command->node, out);
	if (member == NULL) {
		return false;
	}
	if (member->state == SH_NODE_UP) {
		return troupe_refuse(out, "node %" PRIu64 " is up: drain it", command->node);
	}
	if (member->state == SH_NODE_DRAINING && !refuse_holder(state, command->node, out)) {
		return false;
	}
	return change(command->node, SH_NODE_LEFT, out);
}

static bool decide_alive(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__SetAlive *command, struct troupe_out *out)
{
	const Troupe__Cluster__Member *member = present(state, command->node, out);
	if (member == NULL) {
		return false;
	}
	if (command->alive == (member->state != SH_NODE_DEAD)) {
		return true;
	}
	if (command->alive) {
		return change(command->node, member->drain ? SH_NODE_DRAINING : SH_NODE_UP, out);
	}
	return refuse_last(state, member, out) && change(command->node, SH_NODE_DEAD, out);
}

/* ---- commands: what is where ---- */

static bool same_placement(const Troupe__Cluster__Placement *a, const Troupe__Cluster__Placement *b)
{
	return a->preferred == b->preferred && a->pinned == b->pinned &&
	       a->n_replicas == b->n_replicas &&
	       memcmp(a->replicas, b->replicas, a->n_replicas * sizeof(*a->replicas)) == 0;
}

/* Who newly is to hold a shard must be up; who holds it may be anything, even gone: it is replaced
 * when its turn comes, and until then another may be the preferred one. */
static bool refuse_replicas(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Placement *wanted, struct troupe_out *out)
{
	const Troupe__Cluster__Placement *now = state->placements[wanted->shard];
	for (size_t i = 0; i < wanted->n_replicas; i++) {
		if (sh_cluster_holds(now, wanted->replicas[i])) {
			continue;
		}
		const Troupe__Cluster__Member *member = present(state, wanted->replicas[i], out);
		if (member == NULL) {
			return false;
		}
		if (member->state != SH_NODE_UP) {
			return troupe_refuse(out, "shard %" PRIu32 ": node %" PRIu64 " is not up",
				wanted->shard, member->node);
		}
	}
	return true;
}

static bool decide_place(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Place *command, struct troupe_out *out)
{
	Troupe__Cluster__ShardsPlaced event = TROUPE__CLUSTER__SHARDS_PLACED__INIT;
	Troupe__Cluster__Placement *changed[SH_CLUSTER_GROUPS_MAX];
	event.placements = changed;
	for (size_t i = 0; i < command->n_placements; i++) {
		Troupe__Cluster__Placement *wanted = command->placements[i];
		if (i > 0 && wanted->shard <= command->placements[i - 1]->shard) {
			return troupe_refuse(out, "placements are not in the order of shards");
		}
		if (wanted->shard > state->shard_count) {
			return troupe_refuse(out, "there is no shard %" PRIu32, wanted->shard);
		}
		if (!sh_cluster_placement_valid(wanted, state->shard_count)) {
			return troupe_refuse(out,
				"shard %" PRIu32 " needs 1 to %u replicas, ascending, and "
				"one of them preferred",
				wanted->shard, SH_CLUSTER_REPLICATION_MAX);
		}
		if (!refuse_replicas(state, wanted, out)) {
			return false;
		}
		if (!same_placement(wanted, state->placements[wanted->shard])) {
			changed[event.n_placements++] = wanted;
		}
	}
	if (event.n_placements > 0) {
		troupe_emit(out, &event.base);
	}
	return true;
}

/* Position of the replica that makes room: one that is not up, else that of the fullest node. */
static size_t victim(
	const Troupe__Cluster__ClusterState *state, const Troupe__Cluster__Placement *placement)
{
	size_t best = 0;
	uint32_t most = 0;
	for (size_t i = 0; i < placement->n_replicas; i++) {
		const Troupe__Cluster__Member *member =
			sh_cluster_member(state, placement->replicas[i]);
		if (member == NULL || member->state != SH_NODE_UP) {
			return i;
		}
		uint32_t load = sh_cluster_load(state, member->node);
		if (load >= most) {
			most = load;
			best = i;
		}
	}
	return best;
}

/* The placement with this node in it, in `nodes`, which has room. */
static void put_node(const Troupe__Cluster__ClusterState *state,
	Troupe__Cluster__Placement *placement, uint64_t node, uint64_t *nodes)
{
	uint32_t up = sh_cluster_count(state, SH_NODE_UP);
	uint32_t wanted = up < state->replication ? up : state->replication;
	size_t out = placement->n_replicas < wanted ? SIZE_MAX : victim(state, placement);
	size_t count = 0;
	bool put = false;
	for (size_t i = 0; i < placement->n_replicas; i++) {
		if (i == out) {
			continue;
		}
		if (!put && placement->replicas[i] > node) {
			nodes[count++] = node;
			put = true;
		}
		nodes[count++] = placement->replicas[i];
	}
	if (!put) {
		nodes[count++] = node;
	}
	placement->replicas = nodes;
	placement->n_replicas = count;
}

static bool decide_move(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Move *command, struct troupe_out *out)
{
	uint64_t nodes[SH_CLUSTER_REPLICATION_MAX + 1];
	Troupe__Cluster__ShardsPlaced event = TROUPE__CLUSTER__SHARDS_PLACED__INIT;
	if (command->shard > state->shard_count) {
		return troupe_refuse(out, "there is no shard %" PRIu32, command->shard);
	}
	Troupe__Cluster__Placement placement = *state->placements[command->shard];
	Troupe__Cluster__Placement *list = &placement;
	placement.pinned = command->node != 0;
	if (command->node != 0) {
		const Troupe__Cluster__Member *member = present(state, command->node, out);
		if (member == NULL) {
			return false;
		}
		if (member->state != SH_NODE_UP) {
			return troupe_refuse(out, "node %" PRIu64 " is %s", command->node,
				member->state == SH_NODE_DEAD ? "dead" : "draining");
		}
		placement.preferred = command->node;
		if (!sh_cluster_holds(&placement, command->node)) {
			put_node(state, &placement, command->node, nodes);
		}
	}
	if (!same_placement(&placement, state->placements[command->shard])) {
		event.placements = &list;
		event.n_placements = 1;
		troupe_emit(out, &event.base);
	}
	return true;
}

static bool decide_configure(const Troupe__Cluster__ClusterState *state,
	const Troupe__Cluster__Configure *command, struct troupe_out *out)
{
	Troupe__Cluster__ClusterConfigured event = TROUPE__CLUSTER__CLUSTER_CONFIGURED__INIT;
	event.replication = command->replication != 0 ? command->replication : state->replication;
	event.moves_max = command->moves_max != 0 ? command->moves_max : state->moves_max;
	event.dead_after_ms =
		command->dead_after_ms != 0 ? command->dead_after_ms : state->dead_after_ms;
	if (!refuse_settings(out, event.replication, event.moves_max, event.dead_after_ms)) {
		return false;
	}
	if (event.replication != state->replication || event.moves_max != state->moves_max ||
		event.dead_after_ms != state->dead_after_ms) {
		troupe_emit(out, &event.base);
	}
	return true;
}

static bool decide(const void *state, const struct troupe_command *command, struct troupe_out *out)
{
	const Troupe__Cluster__ClusterState *at = ((const struct sh_cluster *)state)->at;
	const void *message = command->message;
	if (command->index == FOUND) {
		return decide_found(at, message, out);
	}
	if (at == NULL) {
		return troupe_refuse(out, "the cluster is not founded");
	}
	switch (command->index) {
	case JOIN:
		return decide_join(at, message, out);
	case ANNOUNCE:
		return decide_announce(at, message, out);
	case DRAIN:
		return decide_drain(at, message, out);
	case LEAVE:
		return decide_leave(at, message, out);
	case REMOVE:
		return decide_remove(at, message, out);
	case SET_ALIVE:
		return decide_alive(at, message, out);
	case PLACE:
		return decide_place(at, message, out);
	case MOVE:
		return decide_move(at, message, out);
	case CONFIGURE:
		return decide_configure(at, message, out);
	default:
		return troupe_refuse(out, "unknown command");
	}
}

static const struct troupe_command_type commands[] = {
	[FOUND] = {"Found", &troupe__cluster__found__descriptor, NULL},
	[JOIN] = {"Join", &troupe__cluster__join__descriptor, &troupe__cluster__joined__descriptor},
	[ANNOUNCE] = {"Announce", &troupe__cluster__announce__descriptor, NULL},
	[DRAIN] = {"Drain", &troupe__cluster__drain__descriptor, NULL},
	[LEAVE] = {"Leave", &troupe__cluster__leave__descriptor, NULL},
	[REMOVE] = {"Remove", &troupe__cluster__remove__descriptor, NULL},
	[SET_ALIVE] = {"SetAlive", &troupe__cluster__set_alive__descriptor, NULL},
	[PLACE] = {"Place", &troupe__cluster__place__descriptor, NULL},
	[MOVE] = {"Move", &troupe__cluster__move__descriptor, NULL},
	[CONFIGURE] = {"Configure", &troupe__cluster__configure__descriptor, NULL},
	{0},
};
static const struct troupe_event_type events[] = {
	[SH_CLUSTER_FOUNDED] = {"ClusterFounded", 1, &troupe__cluster__cluster_founded__descriptor,
		NULL},
	[SH_CLUSTER_JOINED] = {"NodeJoined", 1, &troupe__cluster__node_joined__descriptor, NULL},
	[SH_CLUSTER_ANNOUNCED] = {"NodeAnnounced", 1, &troupe__cluster__node_announced__descriptor,
		NULL},
	[SH_CLUSTER_STATE_CHANGED] = {"NodeStateChanged", 1,
		&troupe__cluster__node_state_changed__descriptor, NULL},
	[SH_CLUSTER_PLACED] = {"ShardsPlaced", 1, &troupe__cluster__shards_placed__descriptor,
		NULL},
	[SH_CLUSTER_CONFIGURED] = {"ClusterConfigured", 1,
		&troupe__cluster__cluster_configured__descriptor, NULL},
	{0},
};
static const struct troupe_query_type queries[] = {
	{"State", &troupe__cluster__nothing__descriptor,
		&troupe__cluster__cluster_state__descriptor},
	{0},
};

const struct troupe_aggregate sh_cluster_aggregate = {
	.name = SH_CLUSTER_TYPE,
	.state_size = sizeof(struct sh_cluster),
	.commands = commands,
	.queries = queries,
	.events = events,
	.done = sh_cluster_done,
	.decide = decide,
	.evolve = sh_cluster_evolve,
	.answer = sh_cluster_answer,
	.snapshot = &troupe__cluster__cluster_state__descriptor,
	.snapshot_version = 1,
	.save = sh_cluster_save,
	.restore = sh_cluster_restore,
};
