#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "actors/out.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "sharding/allocate.h"
#include "sharding/coordinator.h"
#include "tests/support/test.h"

/* A cluster in virtual time: the real aggregate, a coordinator per node, and groups that do in time
 * what the table of their leader says. */
#define CLUSTER "0123456789abcdef0123456789abcdef"
#define NODES   12u
#define SHARDS  16u
#define META    SHARDS
#define STEP_MS 10u
#define ASKS    64u
#define DEAD_MS 30000u
#define WORKERS 2u

struct node {
	struct sh_coordinator *coordinator;
	uint64_t id, instance, version;
	Troupe__Cluster__ClusterTable *table;
	bool runs, joined;
	char rpc[64], peer[64];
	uint64_t report_at, pushed_at;
	uint32_t pushes;
};

struct group {
	struct sh_members members;
	uint64_t leader, term, commit;
	uint64_t leaderless_at, step_at;
	uint64_t learner_at; /* when the newest member began to copy */
};

struct asked {
	uint64_t from, ticket, expected, due;
	char name[32];
	bool command;
	uint8_t *payload;
	size_t size;
};

static struct {
	uint64_t now;
	struct node nodes[NODES + 1]; /* by number */
	struct group groups[SHARDS + 1];
	struct asked asks[ASKS];
	uint32_t ask_count, asked, commands, conflicts, refusals;
	void *entity;
	uint64_t seq;
	struct troupe_out out;
	uint32_t copy_ms;
	uint32_t moving_most; /* groups that moved at the same time, at most */
	uint64_t mute;        /* this node's asks are lost */
	bool full;            /* asks find no room */
} w;

/* ---- the entity ---- */

static uint32_t run_command(uint32_t index, const ProtobufCMessage *message)
{
	const struct troupe_aggregate *aggregate = &sh_cluster_aggregate;
	struct troupe_command command = {
		.message = message, .index = index, .entity_id = "cluster"};
	ac_out_begin(&w.out, aggregate);
	bool accepted = aggregate->decide(w.entity, &command, &w.out);
	assert_string_equal(w.out.defect, "");
	if (!accepted) {
		w.refusals++;
		return TROUPE__CODE__CODE_REFUSED;
	}
	for (uint32_t i = 0; i < w.out.event_count; i++) {
		struct rt_bytes packed = ac_out_piece(&w.out, &w.out.events[i]);
		struct troupe_event event = {.index = w.out.events[i].index, .seq = ++w.seq};
		ProtobufCMessage *unpacked = protobuf_c_message_unpack(
			aggregate->events[event.index].message, NULL, packed.size, packed.data);
		event.message = unpacked;
		assert_true(aggregate->evolve(w.entity, &event));
		protobuf_c_message_free_unpacked(unpacked, NULL);
	}
	return TROUPE__CODE__CODE_OK;
}

/* Leaves the reply in w.out. */
static uint32_t run_ask(const char *name, bool command, struct rt_bytes payload, uint64_t expected)
{
	const struct troupe_aggregate *aggregate = &sh_cluster_aggregate;
	uint32_t index = 0;
	if (!command) {
		assert_string_equal(name, "State");
		ac_out_begin(&w.out, aggregate);
		return w.seq > 0 && aggregate->answer(w.entity, 0, NULL, &w.out)
			       ? TROUPE__CODE__CODE_OK
			       : TROUPE__CODE__CODE_NOT_FOUND;
	}
	ac_out_begin(&w.out, aggregate);
	if (expected != 0 && expected != w.seq + 1) {
		w.conflicts++;
		return TROUPE__CODE__CODE_CONFLICT;
	}
	while (strcmp(aggregate->commands[index].name, name) != 0) {
		index++;
		assert_non_null(aggregate->commands[index].name);
	}
	assert_err(pr_guard_check(aggregate->commands[index].message, payload, NULL), RT_OK);
	ProtobufCMessage *message = protobuf_c_message_unpack(
		aggregate->commands[index].message, NULL, payload.size, payload.data);
	assert_non_null(message);
	uint32_t code = run_command(index, message);
	protobuf_c_message_free_unpacked(message, NULL);
	return code;
}

/* An operator or a joining node, on the node that leads the meta group. */
static void operate(const ProtobufCMessage *message)
{
	uint32_t index = 0;
	while (sh_cluster_aggregate.commands[index].message != message->descriptor) {
		index++;
	}
	assert_int_equal(run_command(index, message), TROUPE__CODE__CODE_OK);
	if (w.groups[META].leader != 0) {
		sh_coordinator_changed(w.nodes[w.groups[META].leader].coordinator);
	}
}

static Troupe__Cluster__ClusterState *state(void)
{
	assert_int_equal(run_ask("State", false, (struct rt_bytes){0}, 0), TROUPE__CODE__CODE_OK);
	struct rt_bytes packed = ac_out_piece(&w.out, &w.out.reply);
	return troupe__cluster__cluster_state__unpack(NULL, packed.size, packed.data);
}

static Troupe__Cluster__NodeState state_of(uint64_t node)
{
	Troupe__Cluster__ClusterState *at = state();
	const Troupe__Cluster__Member *member = sh_cluster_member(at, node);
	Troupe__Cluster__NodeState found =
		member != NULL ? member->state : (Troupe__Cluster__NodeState)99;
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	return found;
}

/* ---- the port ---- */

static rt_err port_ask(void *arg, const char *name, bool command, struct rt_bytes payload,
	uint64_t expected, uint64_t ticket)
{
	struct node *node = arg;
	if (w.full || w.ask_count == ASKS) {
		return RT_E_FULL;
	}
	struct asked *asked = &w.asks[w.ask_count++];
	*asked = (struct asked){.from = node->id,
		.ticket = ticket,
		.expected = expected,
		.due = w.now + 5,
		.command = command,
		.payload = malloc(payload.size + 1),
		.size = payload.size};
	assert_non_null(asked->payload);
	memcpy(asked->payload, payload.data, payload.size);
	snprintf(asked->name, sizeof(asked->name), "%s", name);
	w.asked++;
	w.commands += command;
	return RT_OK;
}

static void port_push(void *arg, uint64_t id, struct rt_bytes bytes)
{
	struct node *node = &w.nodes[id];
	(void)arg;
	assert_in_range(id, 1, NODES);
	assert_err(pr_guard_check(&troupe__cluster__cluster_table__descriptor, bytes, NULL), RT_OK);
	node->pushes++;
	node->pushed_at = w.now;
	if (!node->runs) {
		return;
	}
	Troupe__Cluster__ClusterTable *table =
		troupe__cluster__cluster_table__unpack(NULL, bytes.size, bytes.data);
	assert_non_null(table);
	assert_true(sh_cluster_valid(table->state));
	assert_true(table->version >= node->version);
	if (node->table != NULL) {
		troupe__cluster__cluster_table__free_unpacked(node->table, NULL);
	}
	node->table = table;
	node->version = table->version;
}

static void answer_asks(void)
{
	for (uint32_t i = 0; i < w.ask_count;) {
		struct asked asked = w.asks[i];
		if (asked.due > w.now) {
			i++;
			continue;
		}
		memmove(&w.asks[i], &w.asks[i + 1], (w.ask_count - i - 1) * sizeof(*w.asks));
		w.ask_count--;
		struct node *node = &w.nodes[asked.from];
		if (w.mute != asked.from && node->runs) {
			uint32_t code = run_ask(asked.name, asked.command,
				rt_bytes_of(asked.payload, asked.size), asked.expected);
			/* The bytes move on: w.out is used again by what comes of the answer. */
			struct rt_bytes reply = {0};
			if (w.out.has_reply) {
				reply = ac_out_piece(&w.out, &w.out.reply);
			}
			uint8_t *copy = malloc(reply.size + 1);
			assert_non_null(copy);
			if (reply.size > 0) {
				memcpy(copy, reply.data, reply.size);
			}
			sh_coordinator_answer(node->coordinator, w.now, asked.ticket, code, w.seq,
				rt_bytes_of(copy, reply.size));
			free(copy);
		}
		free(asked.payload);
	}
}

/* ---- nodes ---- */

static void start(uint64_t id)
{
	static struct sh_coordinator_port ports[NODES + 1];
	struct node *node = &w.nodes[id];
	char key[32], name[32];
	ports[id] = (struct sh_coordinator_port){port_ask, port_push, node};
	snprintf(key, sizeof(key), "key%" PRIu64, id);
	snprintf(name, sizeof(name), "name%" PRIu64, id);
	struct sh_coordinator_options options = {.port = &ports[id],
		.node = id,
		.cluster = CLUSTER,
		.key = key,
		.name = name,
		.shard_count = SHARDS,
		.dead_after_ms = DEAD_MS};
	assert_err(sh_coordinator_new(&options, &node->coordinator), RT_OK);
	node->id = id;
	node->instance++;
	node->runs = true;
	node->report_at = w.now + id * 13 % 200;
	snprintf(node->rpc, sizeof(node->rpc), "tcp://h%" PRIu64 ":1", id);
	snprintf(node->peer, sizeof(node->peer), "tcp://h%" PRIu64 ":2", id);
}

static void stop(uint64_t id)
{
	struct node *node = &w.nodes[id];
	sh_coordinator_free(node->coordinator);
	node->coordinator = NULL;
	node->runs = false;
	if (node->table != NULL) {
		troupe__cluster__cluster_table__free_unpacked(node->table, NULL);
	}
	node->table = NULL;
	node->version = 0;
	for (uint32_t i = 0; i <= META; i++) {
		if (w.groups[i].leader == id) {
			w.groups[i].leader = 0;
			w.groups[i].leaderless_at = w.now;
		}
	}
}

static void lead(uint32_t index, uint64_t id)
{
	struct group *group = &w.groups[index];
	if (index == META && group->leader != 0 && w.nodes[group->leader].runs) {
		sh_coordinator_follow(w.nodes[group->leader].coordinator);
	}
	group->leader = id;
	group->term++;
	if (index == META) {
		sh_coordinator_lead(w.nodes[id].coordinator, w.now, group->term);
	}
	w.nodes[id].report_at = w.now; /* Leaders speak up. */
}

static void begin(void)
{
	memset(&w, 0, sizeof(w));
	w.now = 1000;
	w.copy_ms = 300;
	w.entity = calloc(1, sh_cluster_aggregate.state_size);
	assert_non_null(w.entity);
	start(1);
	w.nodes[1].joined = true;
	for (uint32_t i = 0; i <= META; i++) {
		assert_err(sh_members_put(&w.groups[i].members, 1, true), RT_OK);
		lead(i, 1);
	}
}

static void end(void)
{
	for (uint64_t i = 1; i <= NODES; i++) {
		if (w.nodes[i].runs) {
			stop(i);
		}
	}
	for (uint32_t i = 0; i < w.ask_count; i++) {
		free(w.asks[i].payload);
	}
	sh_cluster_aggregate.done(w.entity);
	free(w.entity);
	ac_out_done(&w.out);
}

static void join(uint64_t id)
{
	char key[32];
	Troupe__Cluster__Join command = TROUPE__CLUSTER__JOIN__INIT;
	start(id);
	snprintf(key, sizeof(key), "key%" PRIu64, id);
	command.key = key;
	command.rpc = w.nodes[id].rpc;
	command.peer = w.nodes[id].peer;
	operate(&command.base);
	w.nodes[id].joined = true;
}

static void report(uint64_t id, uint32_t worker)
{
	struct node *node = &w.nodes[id];
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replicas[SHARDS + 1], *list[SHARDS + 1];
	protobuf_c_boolean votes[SHARDS + 1][SH_MEMBERS_MAX];
	uint64_t match[SHARDS + 1][SH_MEMBERS_MAX], silent[SH_MEMBERS_MAX] = {0};
	report.node = id;
	report.worker = worker;
	report.workers = WORKERS;
	report.instance = node->instance;
	report.version = node->version;
	report.rpc = node->rpc;
	report.peer = node->peer;
	report.replicas = list;
	for (uint32_t i = worker; i <= META; i += WORKERS) {
		struct group *group = &w.groups[i];
		if (sh_members_find(&group->members, id) < 0) {
			continue;
		}
		Troupe__Cluster__ReplicaReport *replica = &replicas[report.n_replicas];
		troupe__cluster__replica_report__init(replica);
		list[report.n_replicas++] = replica;
		replica->shard = i;
		replica->term = group->term;
		replica->leader = group->leader;
		replica->commit = replica->last = group->commit;
		replica->leading = group->leader == id;
		if (replica->leading) {
			replica->nodes = group->members.node;
			replica->votes = votes[i];
			replica->match = match[i];
			replica->silent_ms = silent;
			replica->n_nodes = replica->n_votes = replica->n_match =
				replica->n_silent_ms = group->members.count;
			for (uint32_t k = 0; k < group->members.count; k++) {
				votes[i][k] =
					sh_members_votes(&group->members, group->members.node[k]);
				match[i][k] = votes[i][k] ? group->commit : group->commit / 2;
			}
		}
	}
	uint8_t *packed = malloc(troupe__cluster__node_report__get_packed_size(&report) + 1);
	assert_non_null(packed);
	size_t size = troupe__cluster__node_report__pack(&report, packed);
	sh_coordinator_report(
		w.nodes[w.groups[META].leader].coordinator, w.now, id, rt_bytes_of(packed, size));
	free(packed);
}

/* ---- groups ---- */

static bool has_quorum(const struct group *group)
{
	uint32_t living = 0;
	for (uint32_t i = 0; i < group->members.count; i++) {
		uint64_t node = group->members.node[i];
		living += sh_members_votes(&group->members, node) && w.nodes[node].runs;
	}
	return living * 2 > sh_members_voter_count(&group->members);
}

static void elect(uint32_t index)
{
	struct group *group = &w.groups[index];
	if (w.now < group->leaderless_at + 1000 || !has_quorum(group)) {
		return;
	}
	for (uint32_t i = 0; i < group->members.count; i++) {
		uint64_t node = group->members.node[i];
		if (sh_members_votes(&group->members, node) && w.nodes[node].runs) {
			lead(index, node);
			return;
		}
	}
}

static bool wants(const Troupe__Cluster__Placement *target, uint64_t node)
{
	for (size_t i = 0; i < target->n_replicas; i++) {
		if (target->replicas[i] == node) {
			return true;
		}
	}
	return false;
}

/* Add, promote, hand over, remove: one thing at a time, as real leaders do. */
static void reconcile(uint32_t index)
{
	struct group *group = &w.groups[index];
	const struct node *leader = &w.nodes[group->leader];
	if (leader->table == NULL || !has_quorum(group)) {
		return;
	}
	const Troupe__Cluster__Placement *target = leader->table->state->placements[index];
	bool learns = false;
	for (size_t i = 0; i < target->n_replicas; i++) {
		uint64_t node = target->replicas[i];
		if (sh_members_find(&group->members, node) < 0) {
			assert_err(sh_members_put(&group->members, node, false), RT_OK);
			group->learner_at = w.now;
			return;
		}
		if (!sh_members_votes(&group->members, node)) {
			learns = true;
			if (w.nodes[node].runs && w.now >= group->learner_at + w.copy_ms) {
				assert_err(sh_members_put(&group->members, node, true), RT_OK);
				return;
			}
		}
	}
	if (learns) {
		return;
	}
	bool led = group->leader == target->preferred || !w.nodes[target->preferred].runs ||
		   !sh_members_votes(&group->members, target->preferred);
	if (!led) {
		lead(index, target->preferred);
		return;
	}
	for (uint32_t i = 0; i < group->members.count; i++) {
		uint64_t node = group->members.node[i];
		if (!wants(target, node) && node != group->leader) {
			sh_members_remove(&group->members, node);
			return;
		}
	}
	if (!wants(target, group->leader)) {
		for (size_t i = 0; i < target->n_replicas; i++) {
			if (w.nodes[target->replicas[i]].runs) {
				lead(index, target->replicas[i]);
				return;
			}
		}
	}
}

static bool is_where_it_should_be(uint32_t index, const Troupe__Cluster__ClusterState *at)
{
	const struct group *group = &w.groups[index];
	const Troupe__Cluster__Placement *target = at->placements[index];
	return group->members.count == target->n_replicas &&
	       sh_members_voter_count(&group->members) == target->n_replicas &&
	       memcmp(group->members.node, target->replicas,
		       target->n_replicas * sizeof(uint64_t)) == 0;
}

static uint32_t moving(void)
{
	uint32_t count = 0;
	Troupe__Cluster__ClusterState *at = state();
	for (uint32_t i = 0; i <= META; i++) {
		count += !is_where_it_should_be(i, at);
	}
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	return count;
}

static void step(void)
{
	w.now += STEP_MS;
	for (uint32_t i = 0; i <= META; i++) {
		struct group *group = &w.groups[i];
		group->commit++;
		if (group->leader != 0 && (!w.nodes[group->leader].runs || !has_quorum(group))) {
			if (i == META && w.nodes[group->leader].runs) {
				sh_coordinator_follow(w.nodes[group->leader].coordinator);
			}
			group->leader = 0;
			group->leaderless_at = w.now;
		}
		if (group->leader == 0) {
			elect(i);
		} else if (w.now >= group->step_at) {
			group->step_at = w.now + 50;
			reconcile(i);
		}
	}
	answer_asks();
	for (uint64_t id = 1; id <= NODES && w.groups[META].leader != 0; id++) {
		if (w.nodes[id].runs && w.nodes[id].joined && w.now >= w.nodes[id].report_at) {
			w.nodes[id].report_at = w.now + 200;
			report(id, 0);
			report(id, 1);
		}
	}
	for (uint64_t id = 1; id <= NODES; id++) {
		struct node *node = &w.nodes[id];
		if (node->runs && w.now >= sh_coordinator_next_timeout(node->coordinator)) {
			sh_coordinator_tick(node->coordinator, w.now);
		}
	}
	if (w.seq > 0 && w.now % 100 == 0) {
		uint32_t count = moving();
		w.moving_most = count > w.moving_most ? count : w.moving_most;
	}
}

static void pass(uint64_t ms)
{
	for (uint64_t until = w.now + ms; w.now < until;) {
		step();
	}
}

/* Everything is where it should be, evenly, and stays there. */
static bool is_settled(void)
{
	Troupe__Cluster__ClusterState *at = state();
	bool good = true;
	for (uint32_t i = 0; i <= META && good; i++) {
		good = is_where_it_should_be(i, at) &&
		       w.groups[i].leader == at->placements[i]->preferred;
	}
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	return good;
}

static uint32_t held_by(uint64_t id)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i <= META; i++) {
		count += sh_members_find(&w.groups[i].members, id) >= 0;
	}
	return count;
}

static uint32_t led_by(uint64_t id)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i <= META; i++) {
		count += w.groups[i].leader == id;
	}
	return count;
}

static void settle(void)
{
	uint64_t began = w.now;
	uint64_t quiet = w.seq, since = w.now;
	while (!is_settled() || w.now < since + 3000) {
		step();
		if (w.seq != quiet) {
			quiet = w.seq;
			since = w.now;
		}
		assert_true(w.now < began + 300000);
	}
}

static void then_even(uint32_t replicas, uint64_t first, uint64_t last)
{
	uint32_t count = (uint32_t)(last - first + 1);
	for (uint64_t id = first; id <= last; id++) {
		uint32_t held = held_by(id), led = led_by(id);
		assert_in_range(held, replicas * (SHARDS + 1) / count,
			(replicas * (SHARDS + 1) + count - 1) / count);
		assert_in_range(led, (SHARDS + 1) / count, (SHARDS + count) / count);
	}
}

static void given_nodes(uint64_t count)
{
	begin();
	pass(500);
	for (uint64_t id = 2; id <= count; id++) {
		join(id);
	}
	settle();
	then_even(count < 3 ? (uint32_t)count : 3, 1, count);
}

/* One that does not lead the meta group. */
static uint64_t bystander(void)
{
	return w.groups[META].leader == 2 ? 3 : 2;
}

static void drain(uint64_t id)
{
	Troupe__Cluster__Drain command = TROUPE__CLUSTER__DRAIN__INIT;
	command.node = id;
	operate(&command.base);
}

static void wait_state(uint64_t id, Troupe__Cluster__NodeState wanted, uint64_t limit_ms)
{
	uint64_t began = w.now;
	while (state_of(id) != wanted) {
		step();
		assert_true(w.now <= began + limit_ms);
	}
}

static json_t *status(uint64_t id)
{
	struct pr_text text = {0};
	json_error_t error;
	assert_err(sh_coordinator_status(w.nodes[id].coordinator, w.now, &text), RT_OK);
	json_t *json = json_loadb(text.data, text.size, 0, &error);
	if (json == NULL) {
		print_message("%s\n%.*s\n", error.text, (int)text.size, text.data);
	}
	assert_non_null(json);
	pr_text_clear(&text);
	return json;
}

static long number(const json_t *json, const char *name)
{
	const json_t *value = json_object_get(json, name);
	assert_true(json_is_integer(value));
	return (long)json_integer_value(value);
}

/* ---- stories ---- */

static void founds_the_cluster_and_tells_its_node(void **unused)
{
	(void)unused;
	begin();
	pass(500);
	Troupe__Cluster__ClusterState *at = state();
	assert_string_equal(at->cluster, CLUSTER);
	assert_string_equal(at->members[0]->name, "name1");
	assert_string_equal(at->members[0]->rpc, "tcp://h1:1"); /* As its report says. */
	assert_int_equal(at->dead_after_ms, DEAD_MS);
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	assert_int_equal(w.nodes[1].version, w.seq);
	assert_int_equal(w.seq, 2);
	end();
}

static void grows_from_1_to_3_to_5_and_shrinks_to_3(void **unused)
{
	(void)unused;
	begin();
	pass(500);
	settle();
	join(2);
	join(3);
	settle();
	then_even(3, 1, 3);
	join(4);
	join(5);
	settle();
	then_even(3, 1, 5);
	assert_in_range(w.moving_most, 1, SH_CLUSTER_MOVES);
	drain(1); /* which leads the meta group, maybe */
	drain(2);
	wait_state(1, SH_NODE_LEFT, 60000);
	wait_state(2, SH_NODE_LEFT, 60000);
	settle();
	then_even(3, 3, 5);
	assert_int_equal(held_by(1) + held_by(2), 0);
	assert_int_equal(w.refusals, 0);
	end();
}

static void tells_a_node_that_left_so_once(void **unused)
{
	(void)unused;
	given_nodes(4);
	drain(4);
	wait_state(4, SH_NODE_LEFT, 60000);
	pass(400);
	const Troupe__Cluster__ClusterState *known = w.nodes[4].table->state;
	assert_int_equal(sh_cluster_member(known, 4)->state, SH_NODE_LEFT);
	uint32_t pushes = w.nodes[4].pushes;
	pass(20000);
	assert_int_equal(w.nodes[4].pushes, pushes);
	/* Unless it does not know. */
	w.nodes[4].version = 1;
	pass(1000);
	assert_in_range(w.nodes[4].pushes, pushes + 1, pushes + 2);
	end();
}

static void replaces_a_dead_node_after_the_delay_and_not_before(void **unused)
{
	(void)unused;
	given_nodes(4);
	uint64_t id = bystander();
	uint64_t seq = w.seq;
	stop(id);
	pass(DEAD_MS - 1000);
	assert_int_equal(state_of(id), SH_NODE_UP);
	assert_int_equal(w.seq, seq);
	wait_state(id, SH_NODE_DEAD, 2000);
	settle();
	assert_int_equal(held_by(id), 0);
	assert_int_equal(held_by(1), SHARDS + 1);
	start(id);
	wait_state(id, SH_NODE_UP, 1000);
	settle();
	then_even(3, 1, 4);
	end();
}

static void moves_nothing_when_a_node_is_back_in_time(void **unused)
{
	(void)unused;
	given_nodes(5);
	uint64_t seq = w.seq;
	stop(3);
	pass(DEAD_MS / 2);
	start(3);
	settle();
	assert_int_equal(w.seq, seq);
	then_even(3, 1, 5);
	end();
}

static void keeps_the_place_of_a_dead_node_that_none_can_take(void **unused)
{
	(void)unused;
	given_nodes(3);
	stop(3);
	wait_state(3, SH_NODE_DEAD, DEAD_MS + 1000);
	pass(10000);
	assert_int_equal(held_by(3), SHARDS + 1);
	start(3);
	settle();
	then_even(3, 1, 3);
	end();
}

static void a_new_coordinator_goes_on_in_the_middle(void **unused)
{
	(void)unused;
	given_nodes(3);
	join(4);
	join(5);
	for (uint32_t i = 0; i < 6; i++) {
		pass(400);
		uint64_t other = w.groups[META].leader == 1 ? 2 : 1;
		if (sh_members_votes(&w.groups[META].members, other)) {
			lead(META, other);
		}
	}
	settle();
	then_even(3, 1, 5);
	assert_in_range(w.moving_most, 1, SH_CLUSTER_MOVES);
	end();
}

static void a_coordinator_that_dies_is_replaced_like_any_node(void **unused)
{
	(void)unused;
	given_nodes(4);
	join(5);
	pass(600);
	uint64_t id = w.groups[META].leader;
	stop(id);
	wait_state(id, SH_NODE_DEAD, DEAD_MS + 3000);
	settle();
	assert_int_equal(held_by(id), 0);
	for (uint64_t i = 1; i <= 5; i++) {
		assert_true(i == id || held_by(i) >= (SHARDS + 1) * 3 / 4);
	}
	end();
}

/* Not told of the change, so that its command meets another version. */
static void silently(const ProtobufCMessage *message)
{
	uint64_t leader = w.groups[META].leader;
	w.groups[META].leader = 0;
	operate(message);
	w.groups[META].leader = leader;
}

static void asks_again_when_somebody_else_was_faster(void **unused)
{
	(void)unused;
	given_nodes(3);
	Troupe__Cluster__Configure command = TROUPE__CLUSTER__CONFIGURE__INIT;
	join(4);
	for (uint32_t i = 0; i < 40; i++) {
		command.dead_after_ms = DEAD_MS + 1 + i;
		silently(&command.base);
		pass(70);
	}
	settle();
	then_even(3, 1, 4);
	assert_true(w.conflicts > 0);
	assert_int_equal(w.refusals, 0);
	end();
}

static void follows_an_operators_move_and_keeps_it(void **unused)
{
	(void)unused;
	given_nodes(4);
	Troupe__Cluster__Move command = TROUPE__CLUSTER__MOVE__INIT;
	for (uint32_t i = 0; i < 8; i++) {
		command.shard = i;
		command.node = 4;
		operate(&command.base);
	}
	settle();
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(w.groups[i].leader, 4);
	}
	join(5);
	settle();
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(w.groups[i].leader, 4);
	}
	assert_in_range(held_by(5), 10, 11);
	end();
}

static void lost_quorums_hold_nothing_up(void **unused)
{
	(void)unused;
	begin();
	pass(500);
	for (uint64_t id = 2; id <= 7; id++) {
		join(id);
	}
	settle();
	Troupe__Cluster__Configure command = TROUPE__CLUSTER__CONFIGURE__INIT;
	command.moves_max = 1;
	operate(&command.base);
	pass(500);
	/* Two that the meta group can do without. */
	uint64_t gone[2] = {0};
	for (uint64_t id = 1, found = 0; id <= 7 && found < 2; id++) {
		if (sh_members_find(&w.groups[META].members, id) < 0) {
			gone[found++] = id;
		}
	}
	stop(gone[0]);
	stop(gone[1]);
	wait_state(gone[0], SH_NODE_DEAD, DEAD_MS + 1000);
	wait_state(gone[1], SH_NODE_DEAD, DEAD_MS + 1000);
	pass(60000);
	uint32_t lost = 0;
	for (uint32_t i = 0; i <= META; i++) {
		const struct sh_members *members = &w.groups[i].members;
		int dead = (sh_members_find(members, gone[0]) >= 0) +
			   (sh_members_find(members, gone[1]) >= 0);
		assert_true(dead == 0 || dead == 2);
		lost += dead == 2;
	}
	assert_true(lost > 0);
	start(gone[0]);
	start(gone[1]);
	settle();
	then_even(3, 1, 7);
	end();
}

static void does_not_take_its_own_sleep_for_the_death_of_others(void **unused)
{
	(void)unused;
	given_nodes(3);
	uint64_t seq = w.seq;
	w.now += 10 * DEAD_MS;
	sh_coordinator_tick(w.nodes[w.groups[META].leader].coordinator, w.now);
	pass(5000);
	assert_int_equal(w.seq, seq);
	end();
}

static void announces_addresses_that_changed(void **unused)
{
	(void)unused;
	given_nodes(3);
	uint64_t id = bystander();
	stop(id);
	start(id);
	snprintf(w.nodes[id].peer, sizeof(w.nodes[id].peer), "tcp://elsewhere:2");
	pass(1000);
	Troupe__Cluster__ClusterState *at = state();
	assert_string_equal(at->members[id - 1]->peer, "tcp://elsewhere:2");
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	/* What is no address is not even tried. */
	snprintf(w.nodes[id].peer, sizeof(w.nodes[id].peer), "no address");
	uint32_t commands = w.commands;
	pass(1000);
	assert_int_equal(w.commands, commands);
	end();
}

/* ---- pushes ---- */

static void tells_of_a_changed_leader_at_once(void **unused)
{
	(void)unused;
	given_nodes(3);
	pass(90);
	uint64_t node = w.groups[3].leader == 2 ? 3 : 2;
	lead(3, node);
	w.groups[3].step_at = w.now + 10000;
	uint64_t said = w.now + STEP_MS; /* when the next step lets the node report */
	pass(2 * STEP_MS + STEP_MS);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_in_range(w.nodes[id].pushed_at, said, said + 20);
		const Troupe__Cluster__ClusterTable *table = w.nodes[id].table;
		assert_int_equal(table->routes[3]->shard, 3);
		assert_int_equal(table->routes[3]->leader, node);
		assert_int_equal(table->routes[3]->term, w.groups[3].term);
	}
	end();
}

static void pushes_again_to_who_missed_it_but_not_all_the_time(void **unused)
{
	(void)unused;
	given_nodes(3);
	uint32_t pushes = w.nodes[2].pushes;
	for (uint32_t i = 0; i < 500; i++) {
		w.nodes[2].version = 0; /* It forgets what it is told. */
		step();
	}
	assert_in_range(w.nodes[2].pushes - pushes, 8, 10);
	pass(1000);
	pushes = w.nodes[2].pushes;
	pass(9000);
	assert_in_range(w.nodes[2].pushes - pushes, 0, 1);
	end();
}

/* ---- the entity answers late, badly, or not at all ---- */

static void goes_on_when_an_answer_never_comes(void **unused)
{
	(void)unused;
	given_nodes(3);
	join(4);
	w.mute = w.groups[META].leader;
	pass(1000);
	w.mute = 0;
	pass(12000);
	settle();
	then_even(3, 1, 4);
	end();
}

static void tries_again_at_the_next_tick_when_there_is_no_room(void **unused)
{
	(void)unused;
	begin();
	w.full = true;
	pass(1000);
	assert_int_equal(w.seq, 0);
	w.full = false;
	pass(500);
	assert_int_equal(w.seq, 2);
	w.full = true;
	join(2);
	pass(3000);
	w.full = false;
	settle();
	then_even(2, 1, 2);
	end();
}

static void is_idle_when_there_is_nothing_to_do(void **unused)
{
	(void)unused;
	given_nodes(3);
	uint32_t asked = w.asked, commands = w.commands;
	pass(60000);
	assert_int_equal(w.commands, commands);
	assert_in_range(w.asked - asked, 1, 13);
	end();
}

static void nothing_awake_is_nothing_known(void **unused)
{
	(void)unused;
	given_nodes(2);
	struct pr_text text = {0};
	uint64_t id = w.groups[META].leader == 1 ? 2 : 1;
	struct sh_coordinator *asleep = w.nodes[id].coordinator;
	assert_err(sh_coordinator_status(asleep, w.now, &text), RT_E_FENCED);
	assert_true(sh_coordinator_next_timeout(asleep) == UINT64_MAX);
	uint32_t asked = w.asked;
	sh_coordinator_tick(asleep, w.now);
	sh_coordinator_changed(asleep);
	sh_coordinator_report(asleep, w.now, 1, rt_bytes_str("x"));
	sh_coordinator_answer(asleep, w.now, 1, 0, 1, rt_bytes_str("x"));
	assert_int_equal(w.asked, asked);
	sh_coordinator_lead(asleep, w.now, 99);
	assert_err(sh_coordinator_status(asleep, w.now, &text), RT_E_AGAIN);
	sh_coordinator_follow(asleep);
	pr_text_clear(&text);
	end();
}

/* ---- reports that make no sense ---- */

static void give(uint64_t from, Troupe__Cluster__NodeReport *report)
{
	uint8_t packed[4096];
	assert_true(troupe__cluster__node_report__get_packed_size(report) <= sizeof(packed));
	size_t size = troupe__cluster__node_report__pack(report, packed);
	sh_coordinator_report(
		w.nodes[w.groups[META].leader].coordinator, w.now, from, rt_bytes_of(packed, size));
}

static void drops_reports_that_make_no_sense(void **unused)
{
	(void)unused;
	given_nodes(3);
	uint64_t nodes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, zeroes[8] = {0};
	protobuf_c_boolean votes[8] = {true, true, true, true, true, true, true, true};
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
	Troupe__Cluster__ReplicaReport *list = &replica;
	uint64_t leader = w.groups[0].leader;
	uint64_t liar = leader == 2 ? 3 : 2;
	report.node = liar;
	report.workers = 1;
	report.replicas = &list;
	report.n_replicas = 1;
	report.rpc = w.nodes[liar].rpc;
	report.peer = w.nodes[liar].peer;
	report.version = w.seq;
	report.instance = w.nodes[liar].instance;
	replica.leading = true;
	replica.leader = liar;
	replica.term = 1000;
	replica.nodes = nodes;
	replica.votes = votes;
	replica.match = zeroes;
	replica.n_nodes = replica.n_votes = replica.n_match = 3;
	for (uint32_t i = 0; i < 10; i++) {
		Troupe__Cluster__NodeReport bad = report;
		Troupe__Cluster__ReplicaReport bad_replica = replica, *bad_list = &bad_replica;
		bad.replicas = &bad_list;
		bad.node = i == 0 ? liar + 1 : liar;
		bad.workers = i == 1 ? 0 : 1;
		bad.worker = i == 2 ? 1 : 0;
		bad_replica.shard = i == 3 ? SHARDS + 1 : 0;
		bad_replica.n_nodes = i == 4 ? 2 : 3;
		bad_replica.nodes = i == 5 ? zeroes : nodes;
		bad_replica.leader = i == 6 ? leader : liar;
		bad_replica.commit = i == 7 ? 1 : 0;
		if (i == 8) {
			bad_replica.n_nodes = bad_replica.n_votes = bad_replica.n_match = 8;
		}
		give(i == 9 ? 9 : liar, &bad);
	}
	json_t *json = status(w.groups[META].leader);
	assert_int_equal(
		number(json_array_get(json_object_get(json, "groups"), 0), "leader"), leader);
	json_decref(json);
	give(liar, &report); /* This one does make sense. */
	json = status(w.groups[META].leader);
	assert_int_equal(
		number(json_array_get(json_object_get(json, "groups"), 0), "leader"), liar);
	json_decref(json);
	end();
}

static void survives_any_bytes(void **unused)
{
	(void)unused;
	struct rt_random random;
	uint8_t bytes[512];
	rt_random_seed(&random, 7);
	given_nodes(3);
	struct sh_coordinator *coordinator = w.nodes[w.groups[META].leader].coordinator;
	for (uint32_t i = 0; i < 20000; i++) {
		Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
		Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
		Troupe__Cluster__ReplicaReport *list = &replica;
		report.node = 2;
		report.workers = 2;
		report.replicas = &list;
		report.n_replicas = 1;
		report.rpc = w.nodes[2].rpc;
		report.peer = w.nodes[2].peer;
		replica.shard = rt_random_below(&random, SHARDS + 1);
		replica.term = rt_random_below(&random, 9);
		replica.leader = rt_random_below(&random, 5);
		size_t size = troupe__cluster__node_report__pack(&report, bytes);
		for (uint32_t k = rt_random_below(&random, 4); k > 0; k--) {
			bytes[rt_random_below(&random, (uint32_t)size)] =
				(uint8_t)rt_random_next(&random);
		}
		sh_coordinator_report(coordinator, w.now, 2,
			rt_bytes_of(bytes, rt_random_below(&random, (uint32_t)size + 1)));
		sh_coordinator_answer(coordinator, w.now, rt_random_below(&random, 3), 0,
			rt_random_next(&random), rt_bytes_of(bytes, size));
	}
	settle();
	then_even(3, 1, 3);
	end();
}

static void a_leader_nobody_confirms_gives_way_to_an_older_term(void **unused)
{
	(void)unused;
	given_nodes(3);
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
	Troupe__Cluster__ReplicaReport *list = &replica;
	report.node = 2;
	report.workers = 1;
	report.replicas = &list;
	report.n_replicas = 1;
	replica.term = UINT64_MAX;
	replica.leader = 3;
	give(2, &report);
	pass(5000);
	json_t *json = status(w.groups[META].leader);
	assert_int_equal(number(json_array_get(json_object_get(json, "groups"), 0), "leader"),
		w.groups[0].leader);
	json_decref(json);
	end();
}

/* ---- status ---- */

static void says_how_things_are(void **unused)
{
	(void)unused;
	given_nodes(3);
	w.copy_ms = 2000;
	join(4);
	pass(800);
	uint64_t id = w.groups[META].leader;
	json_t *json = status(id);
	assert_string_equal(json_string_value(json_object_get(json, "cluster")), CLUSTER);
	assert_int_equal(number(json, "version"), w.seq);
	assert_int_equal(number(json, "coordinator"), id);
	assert_int_equal(number(json, "term"), w.groups[META].term);
	assert_int_equal(number(json, "replication"), 3);
	assert_int_equal(number(json, "shards"), SHARDS);
	assert_int_equal(number(json, "movesMax"), SH_CLUSTER_MOVES);
	assert_int_equal(number(json, "deadAfterMs"), DEAD_MS);
	assert_int_equal(number(json, "moves"), SH_CLUSTER_MOVES);
	const json_t *nodes = json_object_get(json, "nodes");
	assert_int_equal(json_array_size(nodes), 4);
	const json_t *node = json_array_get(nodes, 1);
	assert_int_equal(number(node, "node"), 2);
	assert_string_equal(json_string_value(json_object_get(node, "state")), "up");
	assert_string_equal(json_string_value(json_object_get(node, "peer")), "tcp://h2:2");
	assert_true(json_is_true(json_object_get(node, "reachable")));
	assert_in_range(number(node, "heardMs"), 0, 210);
	assert_int_equal(number(node, "replicas"), held_by(2));
	assert_int_equal(number(node, "leaders"), led_by(2));
	const json_t *groups = json_object_get(json, "groups");
	assert_int_equal(json_array_size(groups), SHARDS + 1);
	const json_t *group = json_array_get(groups, META);
	assert_string_equal(json_string_value(json_object_get(group, "name")), "meta");
	assert_int_equal(number(group, "leader"), id);
	uint32_t learners = 0;
	for (uint32_t i = 0; i <= META; i++) {
		const json_t *replicas = json_object_get(json_array_get(groups, i), "replicas");
		for (size_t k = 0; k < json_array_size(replicas); k++) {
			const json_t *replica = json_array_get(replicas, k);
			bool voter = json_is_true(json_object_get(replica, "voter"));
			learners += !voter;
			assert_true(voter == (number(replica, "lag") == 0));
		}
	}
	assert_true(learners > 0);
	json_decref(json);
	settle();
	json = status(w.groups[META].leader);
	assert_int_equal(number(json, "moves"), 0);
	json_decref(json);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(founds_the_cluster_and_tells_its_node),
		cmocka_unit_test(grows_from_1_to_3_to_5_and_shrinks_to_3),
		cmocka_unit_test(tells_a_node_that_left_so_once),
		cmocka_unit_test(replaces_a_dead_node_after_the_delay_and_not_before),
		cmocka_unit_test(moves_nothing_when_a_node_is_back_in_time),
		cmocka_unit_test(keeps_the_place_of_a_dead_node_that_none_can_take),
		cmocka_unit_test(a_new_coordinator_goes_on_in_the_middle),
		cmocka_unit_test(a_coordinator_that_dies_is_replaced_like_any_node),
		cmocka_unit_test(asks_again_when_somebody_else_was_faster),
		cmocka_unit_test(follows_an_operators_move_and_keeps_it),
		cmocka_unit_test(lost_quorums_hold_nothing_up),
		cmocka_unit_test(does_not_take_its_own_sleep_for_the_death_of_others),
		cmocka_unit_test(announces_addresses_that_changed),
		cmocka_unit_test(tells_of_a_changed_leader_at_once),
		cmocka_unit_test(pushes_again_to_who_missed_it_but_not_all_the_time),
		cmocka_unit_test(goes_on_when_an_answer_never_comes),
		cmocka_unit_test(tries_again_at_the_next_tick_when_there_is_no_room),
		cmocka_unit_test(is_idle_when_there_is_nothing_to_do),
		cmocka_unit_test(nothing_awake_is_nothing_known),
		cmocka_unit_test(drops_reports_that_make_no_sense),
		cmocka_unit_test(survives_any_bytes),
		cmocka_unit_test(a_leader_nobody_confirms_gives_way_to_an_older_term),
		cmocka_unit_test(says_how_things_are),
	};
	rt_log_set_level(getenv("LOG") != NULL ? RT_LOG_DEBUG : RT_LOG_OFF);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
