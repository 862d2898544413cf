#include "sharding/coordinator.h"

#include <inttypes.h>
#include <stdlib.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"
#include "sharding/coordinator_core.h"

#define TICK_MS       200u
#define REACH_MS      2000u
#define PUSH_SOON_MS  10u    /* after a change of leaders: several come together */
#define PUSH_APART_MS 50u    /* between two of those: a failover changes many, one by one */
#define PUSH_AGAIN_MS 500u   /* to whom did not get it */
#define PUSH_EVER_MS  10000u /* to everybody: changed leaders do not change the version */
#define ASK_EVER_MS   5000u  /* in case nobody said that the entity changed */
#define ASK_LOST_MS   10000u
#define LOST_MS       10000u /* a group without a leader for so long holds nothing up */

/* ---- life ---- */

static rt_err copy_text(char **cursor, const char **text, const char *fallback)
{
	const char *from = *text != NULL ? *text : fallback;
	size_t size = strlen(from) + 1;
	if (size > SH_CLUSTER_URL_MAX + 1) {
		return RT_E_INVAL;
	}
	memcpy(*cursor, from, size);
	*text = *cursor;
	*cursor += size;
	return RT_OK;
}

static rt_err copy_options(struct sh_coordinator *coordinator)
{
	struct sh_coordinator_options *options = &coordinator->options;
	const char **texts[] = {
		&options->cluster, &options->key, &options->name, &options->rpc, &options->peer};
	size_t count = sizeof(texts) / sizeof(texts[0]);
	bool founds = options->key != NULL;
	rt_err err = RT_OK;
	coordinator->texts = malloc(count * (SH_CLUSTER_URL_MAX + 1));
	char *cursor = coordinator->texts;
	if (cursor == NULL) {
		return RT_E_NOMEM;
	}
	for (size_t i = 0; i < count && err == RT_OK; i++) {
		err = copy_text(&cursor, texts[i], "");
	}
	options->key = founds ? options->key : NULL;
	options->tick_ms = options->tick_ms != 0 ? options->tick_ms : TICK_MS;
	options->reach_ms = options->reach_ms != 0 ? options->reach_ms : REACH_MS;
	return err;
}

rt_err sh_coordinator_new(const struct sh_coordinator_options *options, struct sh_coordinator **out)
{
	struct sh_coordinator *coordinator = calloc(1, sizeof(*coordinator));
	if (coordinator == NULL) {
		return RT_E_NOMEM;
	}
	coordinator->port = options->port;
	coordinator->options = *options;
	rt_err err = options->node == 0 ? RT_E_INVAL : copy_options(coordinator);
	if (err != RT_OK) {
		sh_coordinator_free(coordinator);
		return err;
	}
	*out = coordinator;
	return RT_OK;
}

static void drop_state(struct sh_coordinator *coordinator)
{
	if (coordinator->state != NULL) {
		troupe__cluster__cluster_state__free_unpacked(coordinator->state, NULL);
	}
	coordinator->state = NULL;
}

static void drop_buffers(struct sh_coordinator *coordinator)
{
	free(coordinator->groups);
	free(coordinator->next);
	free(coordinator->placements);
	free(coordinator->placement_list);
	free(coordinator->routes);
	free(coordinator->route_list);
	coordinator->groups = NULL;
	coordinator->next = NULL;
	coordinator->placements = NULL;
	coordinator->placement_list = NULL;
	coordinator->routes = NULL;
	coordinator->route_list = NULL;
	coordinator->group_count = 0;
	sh_reports_done(&coordinator->reports);
}

/* What was known is the next coordinator's to find out. */
static void forget(struct sh_coordinator *coordinator)
{
	drop_state(coordinator);
	drop_buffers(coordinator);
	coordinator->awake = false;
	coordinator->version = 0;
	coordinator->query = coordinator->command = (struct sh_ask){0};
	coordinator->told_count = 0;
}

void sh_coordinator_free(struct sh_coordinator *coordinator)
{
	if (coordinator != NULL) {
		forget(coordinator);
		free(coordinator->texts);
		free(coordinator);
	}
}

static rt_err make_buffers(struct sh_coordinator *coordinator, uint32_t count)
{
	rt_err err = sh_reports_init(
		&coordinator->reports, count, coordinator->options.reach_ms, coordinator->woke);
	coordinator->group_count = count;
	coordinator->groups = calloc(count, sizeof(*coordinator->groups));
	coordinator->next = calloc(count, sizeof(*coordinator->next));
	coordinator->placements = calloc(count, sizeof(*coordinator->placements));
	coordinator->placement_list = calloc(count, sizeof(*coordinator->placement_list));
	coordinator->routes = calloc(count, sizeof(*coordinator->routes));
	coordinator->route_list = calloc(count, sizeof(*coordinator->route_list));
	if (err != RT_OK || coordinator->groups == NULL || coordinator->next == NULL ||
		coordinator->placements == NULL || coordinator->placement_list == NULL ||
		coordinator->routes == NULL || coordinator->route_list == NULL) {
		drop_buffers(coordinator);
		return RT_E_NOMEM;
	}
	return RT_OK;
}

/* ---- what is heard ---- */

bool sh_coordinator_hears(const struct sh_coordinator *coordinator, uint64_t node)
{
	return node == coordinator->options.node ||
	       sh_reports_reachable(&coordinator->reports, node, coordinator->now);
}

uint64_t sh_coordinator_silent_ms(
	const struct sh_coordinator *coordinator, uint64_t node, uint64_t now_ms)
{
	const struct sh_seen_node *seen = sh_reports_node(&coordinator->reports, node);
	uint64_t since = coordinator->woke;
	if (node == coordinator->options.node) {
		return 0;
	}
	if (seen != NULL && seen->at_ms > since) {
		since = seen->at_ms;
	}
	return now_ms > since ? now_ms - since : 0;
}

void sh_coordinator_group(const struct sh_coordinator *coordinator, uint32_t group, uint64_t now_ms,
	struct sh_alloc_group *out)
{
	const Troupe__Cluster__Placement *placement = coordinator->state->placements[group];
	const struct sh_seen_group *seen = &coordinator->reports.groups[group];
	*out = (struct sh_alloc_group){.actual = seen->actual,
		.leader = sh_reports_led(&coordinator->reports, group, now_ms),
		.lost = now_ms > seen->led_at_ms + LOST_MS};
	out->target.count = (uint32_t)placement->n_replicas;
	memcpy(out->target.node, placement->replicas,
		placement->n_replicas * sizeof(*placement->replicas));
	out->target.preferred = placement->preferred;
	out->target.pinned = placement->pinned;
}

/* ---- asking the entity ---- */

static rt_err ask(struct sh_coordinator *coordinator, struct sh_ask *slot, const char *name,
	const ProtobufCMessage *message, uint64_t expected)
{
	RT_ASSERT(slot->ticket == 0);
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *packed = malloc(size + 1);
	if (packed == NULL) {
		return RT_E_NOMEM;
	}
	protobuf_c_message_pack(message, packed);
	*slot = (struct sh_ask){.ticket = ++coordinator->tickets, .at_ms = coordinator->now};
	coordinator->asking = true;
	rt_err err = coordinator->port->ask(coordinator->port->arg, name,
		slot == &coordinator->command, rt_bytes_of(packed, size), expected, slot->ticket);
	coordinator->asking = false;
	free(packed);
	if (err != RT_OK) {
		*slot = (struct sh_ask){0};
	}
	return err;
}

static void ask_state(struct sh_coordinator *coordinator)
{
	Troupe__Cluster__Nothing nothing = TROUPE__CLUSTER__NOTHING__INIT;
	if (coordinator->awake && coordinator->stale && coordinator->query.ticket == 0 &&
		ask(coordinator, &coordinator->query, "State", &nothing.base, 0) == RT_OK) {
		coordinator->stale = coordinator->query.ticket == 0;
		coordinator->asked_ms = coordinator->now;
	}
}

/* Rests on the state as it is known: true, a command is under way, or waits for the next tick. */
static bool command(
	struct sh_coordinator *coordinator, const char *name, const ProtobufCMessage *message)
{
	coordinator->doing = name;
	if (ask(coordinator, &coordinator->command, name, message, coordinator->version + 1) !=
		RT_OK) {
		coordinator->hold_ms = coordinator->now + coordinator->options.tick_ms;
	}
	return true;
}

static void found(struct sh_coordinator *coordinator)
{
	const struct sh_coordinator_options *options = &coordinator->options;
	Troupe__Cluster__Member founder = TROUPE__CLUSTER__MEMBER__INIT;
	Troupe__Cluster__Found message = TROUPE__CLUSTER__FOUND__INIT;
	if (options->key == NULL || options->node != 1 || coordinator->command.ticket != 0 ||
		coordinator->now < coordinator->hold_ms) {
		return;
	}
	founder.node = options->node;
	founder.key = (char *)(uintptr_t)options->key;
	founder.name = (char *)(uintptr_t)options->name;
	founder.rpc = (char *)(uintptr_t)options->rpc;
	founder.peer = (char *)(uintptr_t)options->peer;
	message.cluster = (char *)(uintptr_t)options->cluster;
	message.shard_count = options->shard_count;
	message.replication = options->replication;
	message.dead_after_ms = options->dead_after_ms;
	message.founder = &founder;
	coordinator->version = 0;
	command(coordinator, "Found", &message.base);
}

/* ---- decisions ---- */

static bool decide_alive(
	struct sh_coordinator *coordinator, const Troupe__Cluster__Member *member, uint32_t up)
{
	Troupe__Cluster__SetAlive message = TROUPE__CLUSTER__SET_ALIVE__INIT;
	uint64_t silent = sh_coordinator_silent_ms(coordinator, member->node, coordinator->now);
	bool heard = sh_coordinator_hears(coordinator, member->node);
	bool dead = member->state == SH_NODE_DEAD;
	bool last = member->state == SH_NODE_UP && up == 1;
	message.node = member->node;
	message.alive = dead;
	if (dead ? !heard : (last || heard || silent < coordinator->state->dead_after_ms)) {
		return false;
	}
	rt_log(RT_LOG_INFO, "coordinator",
		dead ? "node %" PRIu64 " is back after %" PRIu64 " ms"
		     : "node %" PRIu64 " is dead: not heard for %" PRIu64 " ms",
		member->node, silent);
	return command(coordinator, "SetAlive", &message.base);
}

static bool decide_urls(struct sh_coordinator *coordinator, const Troupe__Cluster__Member *member)
{
	const struct sh_seen_node *seen = sh_reports_node(&coordinator->reports, member->node);
	Troupe__Cluster__Announce message = TROUPE__CLUSTER__ANNOUNCE__INIT;
	if (seen == NULL || !sh_cluster_url_valid(seen->peer) ||
		(seen->rpc[0] != '\0' && !sh_cluster_url_valid(seen->rpc)) ||
		(strcmp(seen->rpc, member->rpc) == 0 && strcmp(seen->peer, member->peer) == 0)) {
		return false;
	}
	message.node = member->node;
	message.rpc = (char *)(uintptr_t)seen->rpc;
	message.peer = (char *)(uintptr_t)seen->peer;
	return command(coordinator, "Announce", &message.base);
}

/* No group has it as a member or is to have it, and of no group is that unknown: a leader that acts
 * on an older table may be about to make it a member, or to hand the group over to it. */
static bool is_empty(const struct sh_coordinator *coordinator, uint64_t node)
{
	for (uint32_t i = 0; i < coordinator->group_count; i++) {
		struct sh_alloc_group group;
		sh_coordinator_group(coordinator, i, coordinator->now, &group);
		if (coordinator->reports.groups[i].led_version < coordinator->version ||
			group.actual.count == 0 || sh_members_find(&group.actual, node) >= 0 ||
			sh_placement_has(&group.target, node)) {
			return false;
		}
	}
	return true;
}

static bool decide_leave(struct sh_coordinator *coordinator, const Troupe__Cluster__Member *member)
{
	Troupe__Cluster__Leave message = TROUPE__CLUSTER__LEAVE__INIT;
	bool draining = member->state == SH_NODE_DRAINING || member->drain;
	if (!draining || !is_empty(coordinator, member->node)) {
		return false;
	}
	rt_log(RT_LOG_INFO, "coordinator", "node %" PRIu64 " is drained and leaves", member->node);
	message.node = member->node;
	return command(coordinator, "Leave", &message.base);
}

static bool decide_members(struct sh_coordinator *coordinator)
{
	const Troupe__Cluster__ClusterState *state = coordinator->state;
	uint32_t up = 0;
	for (size_t i = 0; i < state->n_members; i++) {
		up += state->members[i]->state == SH_NODE_UP;
	}
	for (size_t i = 0; i < state->n_members; i++) {
		const Troupe__Cluster__Member *member = state->members[i];
		if (member->state != SH_NODE_LEFT && (decide_alive(coordinator, member, up) ||
							     decide_urls(coordinator, member) ||
							     decide_leave(coordinator, member))) {
			return true;
		}
	}
	return false;
}

/* A plan that is made before nodes could be heard would favour those that were quick. */
static bool knows_enough(const struct sh_coordinator *coordinator)
{
	const Troupe__Cluster__ClusterState *state = coordinator->state;
	if (coordinator->now >= coordinator->woke + coordinator->options.reach_ms) {
		return true;
	}
	for (size_t i = 0; i < state->n_members; i++) {
		if (state->members[i]->state == SH_NODE_UP &&
			!sh_coordinator_hears(coordinator, state->members[i]->node)) {
			return false;
		}
	}
	return true;
}

static uint32_t list_nodes(const struct sh_coordinator *coordinator,
	struct sh_alloc_node nodes[SH_CLUSTER_MEMBERS_MAX])
{
	const Troupe__Cluster__ClusterState *state = coordinator->state;
	uint32_t count = 0;
	for (size_t i = 0; i < state->n_members; i++) {
		const Troupe__Cluster__Member *member = state->members[i];
		if (member->state == SH_NODE_LEFT) {
			continue;
		}
		bool gone = member->state == SH_NODE_DRAINING || member->drain;
		nodes[count++] = (struct sh_alloc_node){.node = member->node,
			.usable = gone                            ? SH_NODE_GONE
				  : member->state == SH_NODE_DEAD ? SH_NODE_AWAY
								  : SH_NODE_USABLE,
			.reachable = sh_coordinator_hears(coordinator, member->node)};
	}
	return count;
}

static bool decide_placements(struct sh_coordinator *coordinator)
{
	struct sh_alloc_node nodes[SH_CLUSTER_MEMBERS_MAX];
	struct sh_allocation in = {.nodes = nodes,
		.node_count = list_nodes(coordinator, nodes),
		.groups = coordinator->groups,
		.group_count = coordinator->group_count,
		.replication = coordinator->state->replication,
		.moves_max = coordinator->state->moves_max};
	Troupe__Cluster__Place message = TROUPE__CLUSTER__PLACE__INIT;
	for (uint32_t i = 0; i < in.group_count; i++) {
		sh_coordinator_group(coordinator, i, coordinator->now, &coordinator->groups[i]);
	}
	if (!knows_enough(coordinator) ||
		sh_allocate(coordinator->options.strategy, &in, coordinator->next) == 0) {
		return false;
	}
	message.placements = coordinator->placement_list;
	for (uint32_t i = 0; i < in.group_count; i++) {
		struct sh_placement *next = &coordinator->next[i];
		Troupe__Cluster__Placement *placement =
			&coordinator->placements[message.n_placements];
		if (sh_placement_equal(next, &in.groups[i].target)) {
			continue;
		}
		troupe__cluster__placement__init(placement);
		placement->shard = i;
		placement->replicas = next->node;
		placement->n_replicas = next->count;
		placement->preferred = next->preferred;
		placement->pinned = next->pinned;
		coordinator->placement_list[message.n_placements++] = placement;
	}
	return command(coordinator, "Place", &message.base);
}

static void decide(struct sh_coordinator *coordinator)
{
	if (coordinator->state == NULL || coordinator->stale || coordinator->query.ticket != 0 ||
		coordinator->command.ticket != 0 || coordinator->now < coordinator->hold_ms) {
		return;
	}
	if (!decide_members(coordinator)) {
		(void)decide_placements(coordinator);
	}
}

/* ---- telling the nodes ---- */

static struct sh_told *told(struct sh_coordinator *coordinator, uint64_t node)
{
	uint32_t at = 0;
	while (at < coordinator->told_count && coordinator->told[at].node != node) {
		at++;
	}
	if (at == coordinator->told_count) {
		if (at == SH_CLUSTER_MEMBERS_MAX) { /* Some of these are no members any more. */
			at = 0;
			while (sh_cluster_member(coordinator->state, coordinator->told[at].node)) {
				at++;
				RT_ASSERT(at < SH_CLUSTER_MEMBERS_MAX);
			}
		} else {
			coordinator->told_count++;
		}
		coordinator->told[at] = (struct sh_told){.node = node};
	}
	return &coordinator->told[at];
}

static bool is_behind(const struct sh_coordinator *coordinator, const struct sh_told *node)
{
	const struct sh_seen_node *seen = sh_reports_node(&coordinator->reports, node->node);
	return seen != NULL && seen->version < coordinator->version && seen->at_ms >= node->at_ms &&
	       coordinator->now >= node->at_ms + PUSH_AGAIN_MS;
}

static bool is_due(const struct sh_coordinator *coordinator, const Troupe__Cluster__Member *member,
	const struct sh_told *node)
{
	if (member->state == SH_NODE_LEFT) {
		return node->farewell || is_behind(coordinator, node);
	}
	return node->version != coordinator->version ||
	       node->routes != coordinator->reports.routes || is_behind(coordinator, node) ||
	       coordinator->now >= node->at_ms + PUSH_EVER_MS;
}

/* malloc'd; data NULL: no memory. */
static struct rt_bytes pack_table(struct sh_coordinator *coordinator)
{
	Troupe__Cluster__ClusterTable table = TROUPE__CLUSTER__CLUSTER_TABLE__INIT;
	table.version = coordinator->version;
	table.coordinator = coordinator->options.node;
	table.term = coordinator->term;
	table.state = coordinator->state;
	table.routes = coordinator->route_list;
	for (uint32_t i = 0; i < coordinator->group_count; i++) {
		const struct sh_seen_group *seen = &coordinator->reports.groups[i];
		Troupe__Cluster__Route *route = &coordinator->routes[table.n_routes];
		if (seen->leader != 0) {
			troupe__cluster__route__init(route);
			route->shard = i;
			route->leader = seen->leader;
			route->term = seen->term;
			coordinator->route_list[table.n_routes++] = route;
		}
	}
	size_t size = troupe__cluster__cluster_table__get_packed_size(&table);
	uint8_t *packed = malloc(size + 1);
	if (packed != NULL) {
		troupe__cluster__cluster_table__pack(&table, packed);
	}
	return rt_bytes_of(packed, size);
}

static uint32_t list_due(struct sh_coordinator *coordinator, uint64_t due[SH_CLUSTER_MEMBERS_MAX])
{
	const Troupe__Cluster__ClusterState *state = coordinator->state;
	uint32_t count = 0;
	for (size_t i = 0; state != NULL && i < state->n_members; i++) {
		const Troupe__Cluster__Member *member = state->members[i];
		if (is_due(coordinator, member, told(coordinator, member->node))) {
			due[count++] = member->node;
		}
	}
	return count;
}

static void push(struct sh_coordinator *coordinator)
{
	const struct sh_coordinator_port *port = coordinator->port;
	uint64_t due[SH_CLUSTER_MEMBERS_MAX];
	uint32_t count = list_due(coordinator, due);
	coordinator->push_at = UINT64_MAX;
	if (count == 0) {
		return;
	}
	struct rt_bytes table = pack_table(coordinator);
	if (table.data == NULL) {
		return; /* The next tick tries again. */
	}
	coordinator->pushed = coordinator->now;
	for (uint32_t i = 0; i < count; i++) {
		struct sh_told *node = told(coordinator, due[i]);
		node->farewell = false;
		node->at_ms = coordinator->now;
		node->version = coordinator->version;
		node->routes = coordinator->reports.routes;
	}
	/* Nothing is looked at from here on: this node's own table may come back as a report, or as
	 * the end of leading. */
	for (uint32_t i = 0; i < count; i++) {
		port->push(port->arg, due[i], table);
	}
	free((void *)(uintptr_t)table.data);
}

/* ---- answers ---- */

static void note_farewells(
	struct sh_coordinator *coordinator, const Troupe__Cluster__ClusterState *newer)
{
	for (size_t i = 0; coordinator->state != NULL && i < coordinator->state->n_members; i++) {
		const Troupe__Cluster__Member *old = coordinator->state->members[i];
		const Troupe__Cluster__Member *member = sh_cluster_member(newer, old->node);
		if (old->state != SH_NODE_LEFT && member != NULL && member->state == SH_NODE_LEFT) {
			told(coordinator, old->node)->farewell = true;
		}
	}
}

static void take_state(struct sh_coordinator *coordinator, uint64_t seq, struct rt_bytes payload)
{
	Troupe__Cluster__ClusterState *state = NULL;
	if (pr_guard_check(&troupe__cluster__cluster_state__descriptor, payload, NULL) == RT_OK) {
		state = troupe__cluster__cluster_state__unpack(NULL, payload.size, payload.data);
	}
	if (state == NULL || !sh_cluster_valid(state) ||
		(coordinator->state != NULL &&
			state->shard_count != coordinator->state->shard_count) ||
		(coordinator->state == NULL &&
			make_buffers(coordinator, state->shard_count + 1) != RT_OK)) {
		if (state != NULL) {
			troupe__cluster__cluster_state__free_unpacked(state, NULL);
		}
		rt_log(RT_LOG_ERROR, "coordinator", "the state of the cluster cannot be used");
		return;
	}
	note_farewells(coordinator, state);
	drop_state(coordinator);
	coordinator->state = state;
	coordinator->version = seq;
}

static void answered_query(
	struct sh_coordinator *coordinator, uint32_t code, uint64_t seq, struct rt_bytes payload)
{
	if (code == TROUPE__CODE__CODE_OK) {
		take_state(coordinator, seq, payload);
	} else if (code == TROUPE__CODE__CODE_NOT_FOUND && coordinator->state == NULL) {
		found(coordinator);
	}
	/* Whatever else it was, the tick asks again. */
	ask_state(coordinator);
	decide(coordinator);
}

static void answered_command(
	struct sh_coordinator *coordinator, uint32_t code, uint64_t seq, struct rt_bytes payload)
{
	bool moved = seq != coordinator->version;
	(void)payload;
	if (code != TROUPE__CODE__CODE_OK && code != TROUPE__CODE__CODE_CONFLICT) {
		rt_log(RT_LOG_WARN, "coordinator", "command %s: code %" PRIu32, coordinator->doing,
			code);
		moved = false;
	}
	if (!moved) { /* Nothing new to decide from: not at once again. */
		coordinator->hold_ms = coordinator->now + coordinator->options.tick_ms;
	}
	coordinator->stale = true;
	ask_state(coordinator);
}

static void set_now(struct sh_coordinator *coordinator, uint64_t now_ms)
{
	coordinator->now = now_ms > coordinator->now ? now_ms : coordinator->now;
}

void sh_coordinator_answer(struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t ticket,
	uint32_t code, uint64_t seq, struct rt_bytes payload)
{
	set_now(coordinator, now_ms);
	if (!coordinator->awake || ticket == 0) {
		return;
	}
	if (coordinator->asking) {
		/* From inside, against the port's promise: no answer, or this would never end. */
		coordinator->query = coordinator->command = (struct sh_ask){0};
		coordinator->stale = true;
		return;
	}
	if (ticket == coordinator->query.ticket) {
		coordinator->query = (struct sh_ask){0};
		answered_query(coordinator, code, seq, payload);
	} else if (ticket == coordinator->command.ticket) {
		coordinator->command = (struct sh_ask){0};
		answered_command(coordinator, code, seq, payload);
	}
}

/* ---- waking, hearing, looking ---- */

void sh_coordinator_lead(struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t term)
{
	forget(coordinator);
	set_now(coordinator, now_ms);
	coordinator->awake = true;
	coordinator->term = term;
	coordinator->woke = coordinator->tick_at = coordinator->ticked = coordinator->now;
	coordinator->push_at = UINT64_MAX;
	coordinator->pushed = coordinator->hold_ms = 0;
	coordinator->stale = true;
	ask_state(coordinator);
}

void sh_coordinator_follow(struct sh_coordinator *coordinator)
{
	forget(coordinator);
}

void sh_coordinator_report(
	struct sh_coordinator *coordinator, uint64_t now_ms, uint64_t from, struct rt_bytes report)
{
	set_now(coordinator, now_ms);
	if (!coordinator->awake || coordinator->state == NULL) {
		return;
	}
	uint64_t routes = coordinator->reports.routes;
	rt_err err = sh_reports_take(
		&coordinator->reports, coordinator->state, coordinator->now, from, report);
	if (err == RT_E_PROTO) {
		rt_log(RT_LOG_DEBUG, "coordinator", "node %" PRIu64 ": a report makes no sense",
			from);
	}
	if (coordinator->reports.routes != routes && coordinator->push_at == UINT64_MAX) {
		uint64_t soon = coordinator->now + PUSH_SOON_MS;
		uint64_t apart = coordinator->pushed + PUSH_APART_MS;
		coordinator->push_at = soon > apart ? soon : apart;
	}
}

void sh_coordinator_changed(struct sh_coordinator *coordinator)
{
	coordinator->stale = true;
	ask_state(coordinator);
}

static void forget_lost(struct sh_coordinator *coordinator, struct sh_ask *slot)
{
	if (slot->ticket != 0 && coordinator->now >= slot->at_ms + ASK_LOST_MS) {
		*slot = (struct sh_ask){0};
		coordinator->stale = true;
	}
}

static void look(struct sh_coordinator *coordinator)
{
	uint64_t pause = coordinator->now - coordinator->ticked;
	if (pause > coordinator->options.reach_ms + coordinator->options.tick_ms) {
		/* This process stood still, and so did what it would have heard. */
		coordinator->woke = coordinator->now;
	}
	coordinator->ticked = coordinator->now;
	coordinator->tick_at = coordinator->now + coordinator->options.tick_ms;
	forget_lost(coordinator, &coordinator->query);
	forget_lost(coordinator, &coordinator->command);
	if (coordinator->state == NULL || coordinator->now >= coordinator->asked_ms + ASK_EVER_MS) {
		coordinator->stale = true;
	}
	ask_state(coordinator);
	decide(coordinator);
	push(coordinator);
}

void sh_coordinator_tick(struct sh_coordinator *coordinator, uint64_t now_ms)
{
	set_now(coordinator, now_ms);
	if (!coordinator->awake) {
		return;
	}
	if (coordinator->now >= coordinator->tick_at) {
		look(coordinator);
	} else if (coordinator->now >= coordinator->push_at) {
		push(coordinator);
	}
}

uint64_t sh_coordinator_next_timeout(const struct sh_coordinator *coordinator)
{
	if (!coordinator->awake) {
		return UINT64_MAX;
	}
	return coordinator->tick_at < coordinator->push_at ? coordinator->tick_at
							   : coordinator->push_at;
}
