#include "sharding/cluster_state.h"

#include <string.h>

/* ---- what is valid ---- */

bool sh_cluster_id_valid(const char *text)
{
	size_t size = strlen(text);
	return size == 32 && strspn(text, "0123456789abcdefABCDEF") == size;
}

bool sh_cluster_url_valid(const char *url)
{
	size_t size = strlen(url);
	for (size_t i = 0; i < size; i++) {
		if (url[i] <= ' ' || url[i] > '~') {
			return false;
		}
	}
	return size <= SH_CLUSTER_URL_MAX && strstr(url, "://") != NULL;
}

bool sh_cluster_placement_valid(const Troupe__Cluster__Placement *placement, uint32_t shard_count)
{
	bool preferred = false;
	if (placement->shard > shard_count || placement->n_replicas == 0 ||
		placement->n_replicas > SH_CLUSTER_REPLICATION_MAX) {
		return false;
	}
	for (size_t i = 0; i < placement->n_replicas; i++) {
		uint64_t node = placement->replicas[i];
		if (node == 0 || (i > 0 && node <= placement->replicas[i - 1])) {
			return false;
		}
		preferred = preferred || node == placement->preferred;
	}
	return preferred;
}

bool sh_cluster_settings_valid(uint32_t replication, uint32_t moves_max, uint32_t dead_after_ms)
{
	return replication >= 1 && replication <= SH_CLUSTER_REPLICATION_MAX && moves_max >= 1 &&
	       moves_max <= SH_CLUSTER_MOVES_MAX && dead_after_ms >= SH_CLUSTER_DEAD_AFTER_MIN &&
	       dead_after_ms <= SH_CLUSTER_DEAD_AFTER_MAX;
}

bool sh_cluster_valid(const Troupe__Cluster__ClusterState *state)
{
	uint64_t last = 0;
	if (!sh_cluster_id_valid(state->cluster) || state->shard_count == 0 ||
		state->shard_count > SH_SHARDS_MAX ||
		!sh_cluster_settings_valid(
			state->replication, state->moves_max, state->dead_after_ms) ||
		state->n_members == 0 || state->n_members > SH_CLUSTER_MEMBERS_MAX ||
		state->n_placements != state->shard_count + 1) {
		return false;
	}
	for (size_t i = 0; i < state->n_members; i++) {
		const Troupe__Cluster__Member *member = state->members[i];
		if (member->node <= last || member->node >= state->next_node ||
			(unsigned)member->state > SH_NODE_LEFT) {
			return false;
		}
		last = member->node;
	}
	for (uint32_t i = 0; i <= state->shard_count; i++) {
		if (state->placements[i]->shard != i ||
			!sh_cluster_placement_valid(state->placements[i], state->shard_count)) {
			return false;
		}
	}
	return true;
}

/* ---- looking around ---- */

static Troupe__Cluster__Member *find(const Troupe__Cluster__ClusterState *state, uint64_t node)
{
	for (size_t i = 0; i < state->n_members; i++) {
		if (state->members[i]->node == node) {
			return state->members[i];
		}
	}
	return NULL;
}

const Troupe__Cluster__Member *sh_cluster_member(
	const Troupe__Cluster__ClusterState *state, uint64_t node)
{
	return find(state, node);
}

uint32_t sh_cluster_count(
	const Troupe__Cluster__ClusterState *state, Troupe__Cluster__NodeState wanted)
{
	uint32_t count = 0;
	for (size_t i = 0; i < state->n_members; i++) {
		count += state->members[i]->state == wanted;
	}
	return count;
}

bool sh_cluster_holds(const Troupe__Cluster__Placement *placement, uint64_t node)
{
	for (size_t i = 0; i < placement->n_replicas; i++) {
		if (placement->replicas[i] == node) {
			return true;
		}
	}
	return false;
}

uint32_t sh_cluster_load(const Troupe__Cluster__ClusterState *state, uint64_t node)
{
	uint32_t load = 0;
	for (size_t i = 0; i < state->n_placements; i++) {
		load += sh_cluster_holds(state->placements[i], node);
	}
	return load;
}

/* ---- memory of the state ---- */

static void *take(void *unused, size_t size)
{
	(void)unused;
	return troupe_alloc(size);
}

static void give(void *unused, void *block)
{
	(void)unused;
	troupe_free(block);
}

static ProtobufCAllocator allocator = {take, give, NULL};

/* A copy that belongs to the state. */
static void *copy_of(const ProtobufCMessage *message)
{
	uint8_t *packed = troupe_alloc(protobuf_c_message_get_packed_size(message) + 1);
	size_t size = protobuf_c_message_pack(message, packed);
	void *copy = protobuf_c_message_unpack(message->descriptor, &allocator, size, packed);
	troupe_free(packed);
	return copy;
}

static void drop(void *message)
{
	protobuf_c_message_free_unpacked(message, &allocator);
}

static void set_text(char **field, const char *text)
{
	if (*field != protobuf_c_empty_string) {
		troupe_free(*field);
	}
	*field = troupe_strdup(text);
}

void sh_cluster_done(void *state)
{
	struct sh_cluster *cluster = state;
	if (cluster->at != NULL) {
		drop(cluster->at);
	}
}

/* ---- events ---- */

/* Everything is on the founder. */
static Troupe__Cluster__Placement *first_placement(uint32_t shard, uint64_t node)
{
	Troupe__Cluster__Placement placement = TROUPE__CLUSTER__PLACEMENT__INIT;
	placement.shard = shard;
	placement.replicas = &node;
	placement.n_replicas = 1;
	placement.preferred = node;
	return copy_of(&placement.base);
}

static bool apply_founded(struct sh_cluster *cluster, const Troupe__Cluster__ClusterFounded *event)
{
	if (cluster->at != NULL || event->founder == NULL || !sh_cluster_id_valid(event->cluster) ||
		event->shard_count == 0 || event->shard_count > SH_SHARDS_MAX ||
		event->founder->node != 1 || event->founder->state != SH_NODE_UP ||
		!sh_cluster_settings_valid(
			event->replication, event->moves_max, event->dead_after_ms)) {
		return false;
	}
	Troupe__Cluster__ClusterState *at = troupe_alloc(sizeof(*at));
	troupe__cluster__cluster_state__init(at);
	set_text(&at->cluster, event->cluster);
	at->shard_count = event->shard_count;
	at->replication = event->replication;
	at->moves_max = event->moves_max;
	at->dead_after_ms = event->dead_after_ms;
	at->next_node = 2;
	at->members = troupe_alloc(sizeof(*at->members));
	at->members[0] = copy_of(&event->founder->base);
	at->n_members = 1;
	at->n_placements = at->shard_count + 1;
	at->placements = troupe_alloc(at->n_placements * sizeof(*at->placements));
	for (uint32_t i = 0; i <= at->shard_count; i++) {
		at->placements[i] = first_placement(i, 1);
	}
	cluster->at = at;
	return true;
}

/* Who left longest ago is forgotten. */
static bool make_room(Troupe__Cluster__ClusterState *at)
{
	size_t i = 0;
	if (at->n_members < SH_CLUSTER_MEMBERS_MAX) {
		return true;
	}
	while (i < at->n_members && (at->members[i]->state != SH_NODE_LEFT ||
					    sh_cluster_load(at, at->members[i]->node) > 0)) {
		i++;
	}
	if (i == at->n_members) {
		return false;
	}
	drop(at->members[i]);
	at->n_members--;
	memmove(&at->members[i], &at->members[i + 1], (at->n_members - i) * sizeof(*at->members));
	return true;
}

static bool apply_joined(
	Troupe__Cluster__ClusterState *at, const Troupe__Cluster__NodeJoined *event)
{
	if (event->member == NULL || event->member->node != at->next_node ||
		event->member->state != SH_NODE_UP || !make_room(at)) {
		return false;
	}
	at->members = troupe_realloc(at->members, (at->n_members + 1) * sizeof(*at->members));
	at->members[at->n_members++] = copy_of(&event->member->base);
	at->next_node++;
	return true;
}

static bool apply_announced(
	Troupe__Cluster__ClusterState *at, const Troupe__Cluster__NodeAnnounced *event)
{
	Troupe__Cluster__Member *member = find(at, event->node);
	if (member == NULL || member->state == SH_NODE_LEFT) {
		return false;
	}
	set_text(&member->rpc, event->rpc);
	set_text(&member->peer, event->peer);
	return true;
}

static bool apply_state(
	Troupe__Cluster__ClusterState *at, const Troupe__Cluster__NodeStateChanged *event)
{
	static const bool edges[SH_NODE_LEFT + 1][SH_NODE_LEFT + 1] = {
		[SH_NODE_UP] = {[SH_NODE_DRAINING] = true, [SH_NODE_DEAD] = true},
		[SH_NODE_DRAINING] =
			{[SH_NODE_UP] = true, [SH_NODE_DEAD] = true, [SH_NODE_LEFT] = true},
		[SH_NODE_DEAD] =
			{[SH_NODE_UP] = true, [SH_NODE_DRAINING] = true, [SH_NODE_LEFT] = true},
	};
	Troupe__Cluster__Member *member = find(at, event->node);
	if (member == NULL || (unsigned)event->state > SH_NODE_LEFT ||
		!edges[member->state][event->state]) {
		return false;
	}
	member->drain = member->state == SH_NODE_DRAINING && event->state == SH_NODE_DEAD;
	member->state = event->state;
	return true;
}

static bool apply_placed(
	Troupe__Cluster__ClusterState *at, const Troupe__Cluster__ShardsPlaced *event)
{
	for (size_t i = 0; i < event->n_placements; i++) {
		const Troupe__Cluster__Placement *placed = event->placements[i];
		if (!sh_cluster_placement_valid(placed, at->shard_count)) {
			return false;
		}
		drop(at->placements[placed->shard]);
		at->placements[placed->shard] = copy_of(&placed->base);
	}
	return true;
}

static bool apply_configured(
	Troupe__Cluster__ClusterState *at, const Troupe__Cluster__ClusterConfigured *event)
{
	if (!sh_cluster_settings_valid(
		    event->replication, event->moves_max, event->dead_after_ms)) {
		return false;
	}
	at->replication = event->replication;
	at->moves_max = event->moves_max;
	at->dead_after_ms = event->dead_after_ms;
	return true;
}

bool sh_cluster_evolve(void *state, const struct troupe_event *event)
{
	struct sh_cluster *cluster = state;
	const void *message = event->message;
	if (event->index == SH_CLUSTER_FOUNDED) {
		return apply_founded(cluster, message);
	}
	if (cluster->at == NULL) {
		return false;
	}
	switch (event->index) {
	case SH_CLUSTER_JOINED:
		return apply_joined(cluster->at, message);
	case SH_CLUSTER_ANNOUNCED:
		return apply_announced(cluster->at, message);
	case SH_CLUSTER_STATE_CHANGED:
		return apply_state(cluster->at, message);
	case SH_CLUSTER_PLACED:
		return apply_placed(cluster->at, message);
	case SH_CLUSTER_CONFIGURED:
		return apply_configured(cluster->at, message);
	default:
		return false;
	}
}

/* ---- query and snapshots ---- */

bool sh_cluster_answer(
	const void *state, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out)
{
	const struct sh_cluster *cluster = state;
	(void)query;
	(void)message;
	if (cluster->at == NULL) {
		return troupe_refuse(out, "the cluster is not founded");
	}
	troupe_reply(out, &cluster->at->base);
	return true;
}

void sh_cluster_save(const void *state, struct troupe_out *out)
{
	const struct sh_cluster *cluster = state;
	Troupe__Cluster__ClusterState nothing = TROUPE__CLUSTER__CLUSTER_STATE__INIT;
	troupe_reply(out, cluster->at != NULL ? &cluster->at->base : &nothing.base);
}

bool sh_cluster_restore(void *state, const ProtobufCMessage *snapshot)
{
	struct sh_cluster *cluster = state;
	const Troupe__Cluster__ClusterState *saved = (const void *)snapshot;
	if (saved->cluster[0] == '\0') {
		return saved->n_members == 0 && saved->n_placements == 0;
	}
	if (!sh_cluster_valid(saved)) {
		return false;
	}
	cluster->at = copy_of(snapshot);
	return true;
}
