#include "tests/support/clusterbed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"

struct bed bed;

/* ---- the entity ---- */

static uint32_t run_command(uint32_t index, const ProtobufCMessage *message)
{
	const struct troupe_aggregate *aggregate = &sh_cluster_aggregate;
	struct troupe_command command = {
		.message = message, .index = index, .entity_id = "cluster"};
	ac_out_begin(&bed.out, aggregate);
	bool accepted = aggregate->decide(bed.entity, &command, &bed.out);
	assert_string_equal(bed.out.defect, "");
	if (!accepted) {
		bed.refusals++;
		return TROUPE__CODE__CODE_REFUSED;
	}
	for (uint32_t i = 0; i < bed.out.event_count; i++) {
		struct rt_bytes packed = ac_out_piece(&bed.out, &bed.out.events[i]);
		struct troupe_event event = {.index = bed.out.events[i].index, .seq = ++bed.seq};
		ProtobufCMessage *unpacked = protobuf_c_message_unpack(
			aggregate->events[event.index].message, NULL, packed.size, packed.data);
		event.message = unpacked;
		assert_true(aggregate->evolve(bed.entity, &event));
		protobuf_c_message_free_unpacked(unpacked, NULL);
	}
	return TROUPE__CODE__CODE_OK;
}

/* Leaves the reply in bed.out. */
static uint32_t run_ask(const char *name, bool command, struct rt_bytes payload, uint64_t expected)
{
	const struct troupe_aggregate *aggregate = &sh_cluster_aggregate;
	uint32_t index = 0;
	if (!command) {
		assert_string_equal(name, "State");
		ac_out_begin(&bed.out, aggregate);
		return bed.seq > 0 && aggregate->answer(bed.entity, 0, NULL, &bed.out)
			       ? TROUPE__CODE__CODE_OK
			       : TROUPE__CODE__CODE_NOT_FOUND;
	}
	ac_out_begin(&bed.out, aggregate);
	if (bed.refuse) {
		return TROUPE__CODE__CODE_REFUSED;
	}
	if (expected != 0 && expected != bed.seq + 1) {
		bed.conflicts++;
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
void bed_operate(const ProtobufCMessage *message)
{
	uint32_t index = 0;
	while (sh_cluster_aggregate.commands[index].message != message->descriptor) {
		index++;
	}
	assert_int_equal(run_command(index, message), TROUPE__CODE__CODE_OK);
	if (bed.groups[BED_META].leader != 0) {
		bed.inside = true;
		sh_coordinator_changed(bed.nodes[bed.groups[BED_META].leader].coordinator);
		bed.inside = false;
	}
}

Troupe__Cluster__ClusterState *bed_state(void)
{
	assert_int_equal(run_ask("State", false, (struct rt_bytes){0}, 0), TROUPE__CODE__CODE_OK);
	struct rt_bytes packed = ac_out_piece(&bed.out, &bed.out.reply);
	return troupe__cluster__cluster_state__unpack(NULL, packed.size, packed.data);
}

Troupe__Cluster__NodeState bed_state_of(uint64_t node)
{
	Troupe__Cluster__ClusterState *at = bed_state();
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
	struct bed_node *node = arg;
	bed.inside = false;
	if (bed.full || bed.ask_count == BED_ASKS) {
		return RT_E_FULL;
	}
	struct bed_asked *asked = &bed.asks[bed.ask_count++];
	*asked = (struct bed_asked){.from = node->id,
		.ticket = ticket,
		.expected = expected,
		.due = bed.now + 5,
		.command = command,
		.payload = malloc(payload.size + 1),
		.size = payload.size};
	assert_non_null(asked->payload);
	memcpy(asked->payload, payload.data, payload.size);
	snprintf(asked->name, sizeof(asked->name), "%s", name);
	bed.asked++;
	bed.commands += command;
	bed.inside = true;
	return RT_OK;
}

static void port_push(void *arg, uint64_t id, struct rt_bytes bytes)
{
	struct bed_node *node = &bed.nodes[id];
	(void)arg;
	assert_in_range(id, 1, BED_NODES);
	assert_err(pr_guard_check(&troupe__cluster__cluster_table__descriptor, bytes, NULL), RT_OK);
	node->pushes++;
	node->pushed_at = bed.now;
	if (!node->runs || bed.deaf == id) {
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
	for (uint32_t i = 0; i < bed.ask_count;) {
		struct bed_asked asked = bed.asks[i];
		if (asked.due > bed.now) {
			i++;
			continue;
		}
		memmove(&bed.asks[i], &bed.asks[i + 1],
			(bed.ask_count - i - 1) * sizeof(*bed.asks));
		bed.ask_count--;
		struct bed_node *node = &bed.nodes[asked.from];
		if (bed.mute != asked.from && node->runs && !(asked.command && bed.lose_commands)) {
			uint32_t code = run_ask(asked.name, asked.command,
				rt_bytes_of(asked.payload, asked.size), asked.expected);
			/* The bytes move on: bed.out is used again by what comes of the answer. */
			struct rt_bytes reply = {0};
			if (bed.out.has_reply) {
				reply = ac_out_piece(&bed.out, &bed.out.reply);
			}
			uint8_t *copy = malloc(reply.size + 1);
			assert_non_null(copy);
			if (reply.size > 0) {
				memcpy(copy, reply.data, reply.size);
			}
			bed.inside = true;
			sh_coordinator_answer(node->coordinator, bed.now, asked.ticket, code,
				bed.seq, rt_bytes_of(copy, reply.size));
			bed.inside = false;
			free(copy);
		}
		free(asked.payload);
	}
}

/* ---- nodes ---- */

void bed_start(uint64_t id)
{
	static struct sh_coordinator_port ports[BED_NODES + 1];
	struct bed_node *node = &bed.nodes[id];
	char key[32], name[32];
	ports[id] = (struct sh_coordinator_port){port_ask, port_push, node};
	snprintf(key, sizeof(key), "key%" PRIu64, id);
	snprintf(name, sizeof(name), "name%" PRIu64, id);
	struct sh_coordinator_options options = {.port = &ports[id],
		.node = id,
		.cluster = BED_CLUSTER,
		.key = key,
		.name = name,
		.shard_count = BED_SHARDS,
		.dead_after_ms = BED_DEAD_MS};
	assert_err(sh_coordinator_new(&options, &node->coordinator), RT_OK);
	node->id = id;
	node->instance++;
	node->runs = true;
	node->report_at = bed.now + id * 13 % 200;
	snprintf(node->rpc, sizeof(node->rpc), "tcp://h%" PRIu64 ":1", id);
	snprintf(node->peer, sizeof(node->peer), "tcp://h%" PRIu64 ":2", id);
}

void bed_stop(uint64_t id)
{
	struct bed_node *node = &bed.nodes[id];
	sh_coordinator_free(node->coordinator);
	node->coordinator = NULL;
	node->runs = false;
	if (node->table != NULL) {
		troupe__cluster__cluster_table__free_unpacked(node->table, NULL);
	}
	node->table = NULL;
	node->version = 0;
	for (uint32_t i = 0; i <= BED_META; i++) {
		if (bed.groups[i].leader == id) {
			bed.groups[i].leader = 0;
			bed.groups[i].leaderless_at = bed.now;
		}
	}
}

void bed_lead(uint32_t index, uint64_t id)
{
	struct bed_group *group = &bed.groups[index];
	if (index == BED_META && group->leader != 0 && bed.nodes[group->leader].runs) {
		sh_coordinator_follow(bed.nodes[group->leader].coordinator);
	}
	group->leader = id;
	group->term++;
	if (index == BED_META) {
		bed.inside = true;
		sh_coordinator_lead(bed.nodes[id].coordinator, bed.now, group->term);
		bed.inside = false;
	}
	bed.nodes[id].report_at = bed.now; /* Leaders speak up. */
}

void bed_begin(void)
{
	memset(&bed, 0, sizeof(bed));
	bed.now = 1000;
	bed.copy_ms = 300;
	bed.entity = calloc(1, sh_cluster_aggregate.state_size);
	assert_non_null(bed.entity);
	bed_start(1);
	bed.nodes[1].joined = true;
	for (uint32_t i = 0; i <= BED_META; i++) {
		assert_err(sh_members_put(&bed.groups[i].members, 1, true), RT_OK);
		bed_lead(i, 1);
	}
}

void bed_end(void)
{
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		if (bed.nodes[i].runs) {
			bed_stop(i);
		}
	}
	for (uint32_t i = 0; i < bed.ask_count; i++) {
		free(bed.asks[i].payload);
	}
	sh_cluster_aggregate.done(bed.entity);
	free(bed.entity);
	ac_out_done(&bed.out);
}

void bed_join(uint64_t id)
{
	char key[32];
	Troupe__Cluster__Join command = TROUPE__CLUSTER__JOIN__INIT;
	bed_start(id);
	snprintf(key, sizeof(key), "key%" PRIu64, id);
	command.key = key;
	command.rpc = bed.nodes[id].rpc;
	command.peer = bed.nodes[id].peer;
	bed_operate(&command.base);
	bed.nodes[id].joined = true;
}

static void report(uint64_t id, uint32_t worker)
{
	struct bed_node *node = &bed.nodes[id];
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replicas[BED_SHARDS + 1], *list[BED_SHARDS + 1];
	protobuf_c_boolean votes[BED_SHARDS + 1][SH_MEMBERS_MAX];
	uint64_t match[BED_SHARDS + 1][SH_MEMBERS_MAX], silent[SH_MEMBERS_MAX] = {0};
	report.node = id;
	report.worker = worker;
	report.workers = BED_WORKERS;
	report.instance = node->instance;
	report.version = node->version;
	report.rpc = node->rpc;
	report.peer = node->peer;
	report.replicas = list;
	for (uint32_t i = worker; i <= BED_META; i += BED_WORKERS) {
		struct bed_group *group = &bed.groups[i];
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
				if (group->members.node[k] == id) {
					match[i][k] = 0; /* It knows its own log. */
				}
			}
		}
	}
	uint8_t *packed = malloc(troupe__cluster__node_report__get_packed_size(&report) + 1);
	assert_non_null(packed);
	size_t size = troupe__cluster__node_report__pack(&report, packed);
	bed.inside = true;
	sh_coordinator_report(bed.nodes[bed.groups[BED_META].leader].coordinator, bed.now, id,
		rt_bytes_of(packed, size));
	bed.inside = false;
	free(packed);
}

/* ---- groups ---- */

static bool has_quorum(const struct bed_group *group)
{
	uint32_t living = 0;
	for (uint32_t i = 0; i < group->members.count; i++) {
		uint64_t node = group->members.node[i];
		living += sh_members_votes(&group->members, node) && bed.nodes[node].runs;
	}
	return living * 2 > sh_members_voter_count(&group->members);
}

static void elect(uint32_t index)
{
	struct bed_group *group = &bed.groups[index];
	if (bed.now < group->leaderless_at + 1000 || !has_quorum(group)) {
		return;
	}
	for (uint32_t i = 0; i < group->members.count; i++) {
		uint64_t node = group->members.node[i];
		if (sh_members_votes(&group->members, node) && bed.nodes[node].runs) {
			bed_lead(index, node);
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
	struct bed_group *group = &bed.groups[index];
	const struct bed_node *leader = &bed.nodes[group->leader];
	if (leader->table == NULL || !has_quorum(group)) {
		return;
	}
	const Troupe__Cluster__Placement *target = leader->table->state->placements[index];
	bool learns = false;
	for (size_t i = 0; i < target->n_replicas; i++) {
		uint64_t node = target->replicas[i];
		if (sh_members_find(&group->members, node) < 0) {
			assert_err(sh_members_put(&group->members, node, false), RT_OK);
			group->learner_at = bed.now;
			return;
		}
		if (!sh_members_votes(&group->members, node)) {
			learns = true;
			if (bed.nodes[node].runs && bed.now >= group->learner_at + bed.copy_ms) {
				assert_err(sh_members_put(&group->members, node, true), RT_OK);
				return;
			}
		}
	}
	if (learns) {
		return;
	}
	bool led = group->leader == target->preferred || !bed.nodes[target->preferred].runs ||
		   !sh_members_votes(&group->members, target->preferred);
	if (!led) {
		bed_lead(index, target->preferred);
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
			if (bed.nodes[target->replicas[i]].runs) {
				bed_lead(index, target->replicas[i]);
				return;
			}
		}
	}
}

static bool is_where_it_should_be(uint32_t index, const Troupe__Cluster__ClusterState *at)
{
	const struct bed_group *group = &bed.groups[index];
	const Troupe__Cluster__Placement *target = at->placements[index];
	return group->members.count == target->n_replicas &&
	       sh_members_voter_count(&group->members) == target->n_replicas &&
	       memcmp(group->members.node, target->replicas,
		       target->n_replicas * sizeof(uint64_t)) == 0;
}

static uint32_t moving(void)
{
	uint32_t count = 0;
	Troupe__Cluster__ClusterState *at = bed_state();
	for (uint32_t i = 0; i <= BED_META; i++) {
		struct bed_group *group = &bed.groups[i];
		bool settled = is_where_it_should_be(i, at);
		group->lost =
			!settled && (group->lost || (group->leader == 0 &&
							    bed.now > group->leaderless_at + 9000));
		count += !settled && !group->lost;
	}
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	return count;
}

void bed_step(void)
{
	bed.now += BED_STEP_MS;
	for (uint32_t i = 0; i <= BED_META; i++) {
		struct bed_group *group = &bed.groups[i];
		group->commit++;
		if (group->leader != 0 && (!bed.nodes[group->leader].runs || !has_quorum(group))) {
			if (i == BED_META && bed.nodes[group->leader].runs) {
				sh_coordinator_follow(bed.nodes[group->leader].coordinator);
			}
			group->leader = 0;
			group->leaderless_at = bed.now;
		}
		if (group->leader == 0) {
			elect(i);
		} else if (bed.now >= group->step_at) {
			group->step_at = bed.now + 50;
			reconcile(i);
		}
	}
	answer_asks();
	for (uint64_t id = 1; id <= BED_NODES && bed.groups[BED_META].leader != 0; id++) {
		if (bed.nodes[id].runs && bed.nodes[id].joined &&
			bed.now >= bed.nodes[id].report_at) {
			bed.nodes[id].report_at = bed.now + 200;
			report(id, 0);
			report(id, 1);
		}
	}
	for (uint64_t id = 1; id <= BED_NODES; id++) {
		struct bed_node *node = &bed.nodes[id];
		if (node->runs && bed.now >= sh_coordinator_next_timeout(node->coordinator)) {
			bed.inside = true;
			sh_coordinator_tick(node->coordinator, bed.now);
			bed.inside = false;
		}
	}
	if (bed.seq > 0 && bed.now % 100 == 0) {
		uint32_t count = moving();
		bed.moving_most = count > bed.moving_most ? count : bed.moving_most;
	}
}

void bed_pass(uint64_t ms)
{
	for (uint64_t until = bed.now + ms; bed.now < until;) {
		bed_step();
	}
}

/* Everything is where it should be, evenly, and stays there. */
static bool is_settled(void)
{
	Troupe__Cluster__ClusterState *at = bed_state();
	bool good = true;
	for (uint32_t i = 0; i <= BED_META && good; i++) {
		good = is_where_it_should_be(i, at) &&
		       bed.groups[i].leader == at->placements[i]->preferred;
	}
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	return good;
}

uint32_t bed_held_by(uint64_t id)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i <= BED_META; i++) {
		count += sh_members_find(&bed.groups[i].members, id) >= 0;
	}
	return count;
}

uint32_t bed_led_by(uint64_t id)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i <= BED_META; i++) {
		count += bed.groups[i].leader == id;
	}
	return count;
}

void bed_settle(void)
{
	uint64_t began = bed.now;
	uint64_t quiet = bed.seq, since = bed.now;
	while (!is_settled() || bed.now < since + 3000) {
		bed_step();
		if (bed.seq != quiet) {
			quiet = bed.seq;
			since = bed.now;
		}
		assert_true(bed.now < began + 300000);
	}
}

void bed_then_even(uint32_t replicas, uint64_t first, uint64_t last)
{
	uint32_t count = (uint32_t)(last - first + 1);
	for (uint64_t id = first; id <= last; id++) {
		uint32_t held = bed_held_by(id), led = bed_led_by(id);
		assert_in_range(held, replicas * (BED_SHARDS + 1) / count,
			(replicas * (BED_SHARDS + 1) + count - 1) / count);
		assert_in_range(led, (BED_SHARDS + 1) / count, (BED_SHARDS + count) / count);
	}
}

void bed_nodes(uint64_t count)
{
	bed_begin();
	bed_pass(500);
	for (uint64_t id = 2; id <= count; id++) {
		bed_join(id);
	}
	bed_settle();
	bed_then_even(count < 3 ? (uint32_t)count : 3, 1, count);
}

/* One that does not lead the meta group. */
uint64_t bed_bystander(void)
{
	return bed.groups[BED_META].leader == 2 ? 3 : 2;
}

void bed_drain(uint64_t id)
{
	Troupe__Cluster__Drain command = TROUPE__CLUSTER__DRAIN__INIT;
	command.node = id;
	bed_operate(&command.base);
}

void bed_wait_state(uint64_t id, Troupe__Cluster__NodeState wanted, uint64_t limit_ms)
{
	uint64_t began = bed.now;
	while (bed_state_of(id) != wanted) {
		bed_step();
		assert_true(bed.now <= began + limit_ms);
	}
}
