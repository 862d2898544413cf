#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "sharding/coordinator.h"
#include "tests/support/clusterbed.h"

static json_t *status(uint64_t id)
{
	struct pr_text text = {0};
	json_error_t error;
	assert_err(sh_coordinator_status(bed.nodes[id].coordinator, bed.now, &text), RT_OK);
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
	bed_begin();
	bed_pass(500);
	Troupe__Cluster__ClusterState *at = bed_state();
	assert_string_equal(at->cluster, BED_CLUSTER);
	assert_string_equal(at->members[0]->name, "name1");
	assert_string_equal(at->members[0]->rpc, "tcp://h1:1"); /* As its report says. */
	assert_int_equal(at->dead_after_ms, BED_DEAD_MS);
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	assert_int_equal(bed.nodes[1].version, bed.seq);
	assert_int_equal(bed.seq, 2);
	bed_end();
}

static void grows_from_1_to_3_to_5_and_shrinks_to_3(void **unused)
{
	(void)unused;
	bed_begin();
	bed_pass(500);
	bed_settle();
	bed_join(2);
	bed_join(3);
	bed_settle();
	bed_then_even(3, 1, 3);
	bed_join(4);
	bed_join(5);
	bed_settle();
	bed_then_even(3, 1, 5);
	assert_in_range(bed.moving_most, 1, SH_CLUSTER_MOVES);
	bed_drain(1); /* which leads the meta group, maybe */
	bed_drain(2);
	bed_wait_state(1, SH_NODE_LEFT, 60000);
	bed_wait_state(2, SH_NODE_LEFT, 60000);
	bed_settle();
	bed_then_even(3, 3, 5);
	assert_int_equal(bed_held_by(1) + bed_held_by(2), 0);
	assert_int_equal(bed.refusals, 0);
	bed_end();
}

static void tells_a_node_that_left_so_once(void **unused)
{
	(void)unused;
	bed_nodes(4);
	bed.nodes[4].joined = false; /* It says nothing itself. */
	bed_drain(4);
	bed_wait_state(4, SH_NODE_LEFT, BED_DEAD_MS / 2);
	bed_pass(400);
	const Troupe__Cluster__ClusterState *known = bed.nodes[4].table->state;
	assert_int_equal(sh_cluster_member(known, 4)->state, SH_NODE_LEFT);
	uint32_t pushes = bed.nodes[4].pushes;
	bed.nodes[4].joined = true;
	bed_pass(20000);
	assert_int_equal(bed.nodes[4].pushes, pushes);
	/* Unless it does not know. */
	bed.nodes[4].version = 1;
	bed_pass(1000);
	assert_in_range(bed.nodes[4].pushes, pushes + 1, pushes + 2);
	bed_end();
}

static void a_draining_node_that_dies_leaves_too(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint64_t id = bed_bystander();
	Troupe__Cluster__SetAlive command = TROUPE__CLUSTER__SET_ALIVE__INIT;
	bed_stop(id);
	bed_pass(3000);
	bed_drain(id);
	command.node = id;
	bed_operate(&command.base);
	bed_wait_state(id, SH_NODE_LEFT, 60000);
	assert_int_equal(bed_held_by(id), 0);
	bed_end();
}

static void nobody_leaves_while_a_group_is_unknown(void **unused)
{
	(void)unused;
	bed_nodes(4);
	uint64_t id = bed_bystander();
	uint32_t index = 0;
	while (sh_members_find(&bed.groups[index].members, id) >= 0) {
		index++;
	}
	/* Its target says otherwise, but it has the only replica. */
	bed.groups[index].members = (struct sh_members){0};
	assert_err(sh_members_put(&bed.groups[index].members, id, true), RT_OK);
	bed_stop(id);
	bed.groups[index].leader = 0;
	bed_lead(BED_META, bed.groups[BED_META].leader);
	bed_drain(id);
	bed_pass(BED_DEAD_MS / 2);
	assert_int_equal(bed_held_by(id), 1);
	assert_int_equal(bed_state_of(id), SH_NODE_DRAINING);
	bed_start(id);
	bed_wait_state(id, SH_NODE_LEFT, 20000);
	bed_end();
}

static void replaces_a_dead_node_after_the_delay_and_not_before(void **unused)
{
	(void)unused;
	bed_nodes(4);
	uint64_t id = bed_bystander();
	uint64_t seq = bed.seq;
	bed_stop(id);
	bed_pass(BED_DEAD_MS - 1000);
	assert_int_equal(bed_state_of(id), SH_NODE_UP);
	assert_int_equal(bed.seq, seq);
	bed_wait_state(id, SH_NODE_DEAD, 2000);
	bed_settle();
	assert_int_equal(bed_held_by(id), 0);
	assert_int_equal(bed_held_by(1), BED_SHARDS + 1);
	bed_start(id);
	bed_wait_state(id, SH_NODE_UP, 1000);
	bed_settle();
	bed_then_even(3, 1, 4);
	bed_end();
}

static void moves_nothing_when_a_node_is_back_in_time(void **unused)
{
	(void)unused;
	bed_nodes(5);
	uint64_t seq = bed.seq;
	bed_stop(3);
	bed_pass(BED_DEAD_MS / 2);
	bed_start(3);
	bed_settle();
	assert_int_equal(bed.seq, seq);
	bed_then_even(3, 1, 5);
	bed_end();
}

static void keeps_the_place_of_a_dead_node_that_none_can_take(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed_stop(3);
	bed_wait_state(3, SH_NODE_DEAD, BED_DEAD_MS + 1000);
	bed_pass(10000);
	assert_int_equal(bed_held_by(3), BED_SHARDS + 1);
	bed_start(3);
	bed_settle();
	bed_then_even(3, 1, 3);
	bed_end();
}

static void a_new_coordinator_goes_on_in_the_middle(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed_join(4);
	bed_join(5);
	for (uint32_t i = 0; i < 6; i++) {
		bed_pass(400);
		uint64_t other = bed.groups[BED_META].leader == 1 ? 2 : 1;
		if (sh_members_votes(&bed.groups[BED_META].members, other)) {
			bed_lead(BED_META, other);
		}
	}
	bed_settle();
	bed_then_even(3, 1, 5);
	assert_in_range(bed.moving_most, 1, SH_CLUSTER_MOVES);
	bed_end();
}

static void a_coordinator_that_dies_is_replaced_like_any_node(void **unused)
{
	(void)unused;
	bed_nodes(4);
	bed_join(5);
	bed_pass(600);
	uint64_t id = bed.groups[BED_META].leader;
	bed_stop(id);
	bed_wait_state(id, SH_NODE_DEAD, BED_DEAD_MS + 3000);
	bed_settle();
	assert_int_equal(bed_held_by(id), 0);
	for (uint64_t i = 1; i <= 5; i++) {
		assert_true(i == id || bed_held_by(i) >= (BED_SHARDS + 1) * 3 / 4);
	}
	bed_end();
}

/* Not told of the change, so that its command meets another version. */
static void silently(const ProtobufCMessage *message)
{
	uint64_t leader = bed.groups[BED_META].leader;
	bed.groups[BED_META].leader = 0;
	bed_operate(message);
	bed.groups[BED_META].leader = leader;
}

static void asks_again_when_somebody_else_was_faster(void **unused)
{
	(void)unused;
	bed_nodes(3);
	Troupe__Cluster__Configure command = TROUPE__CLUSTER__CONFIGURE__INIT;
	bed_join(4);
	for (uint32_t i = 0; i < 40; i++) {
		command.dead_after_ms = BED_DEAD_MS + 1 + i;
		silently(&command.base);
		bed_pass(70);
	}
	bed_settle();
	bed_then_even(3, 1, 4);
	assert_true(bed.conflicts > 0);
	assert_int_equal(bed.refusals, 0);
	bed_end();
}

static void follows_an_operators_move_and_keeps_it(void **unused)
{
	(void)unused;
	bed_nodes(4);
	Troupe__Cluster__Move command = TROUPE__CLUSTER__MOVE__INIT;
	for (uint32_t i = 0; i < 8; i++) {
		command.shard = i;
		command.node = 4;
		bed_operate(&command.base);
	}
	bed_settle();
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(bed.groups[i].leader, 4);
	}
	bed_join(5);
	bed_settle();
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(bed.groups[i].leader, 4);
	}
	assert_in_range(bed_held_by(5), 10, 11);
	bed_end();
}

static void lost_quorums_hold_nothing_up(void **unused)
{
	(void)unused;
	bed_begin();
	bed_pass(500);
	for (uint64_t id = 2; id <= 7; id++) {
		bed_join(id);
	}
	bed_settle();
	Troupe__Cluster__Configure command = TROUPE__CLUSTER__CONFIGURE__INIT;
	command.moves_max = 1;
	bed_operate(&command.base);
	bed_pass(500);
	/* Two that the meta group can do without. */
	uint64_t gone[2] = {0};
	for (uint64_t id = 1, found = 0; id <= 7 && found < 2; id++) {
		if (sh_members_find(&bed.groups[BED_META].members, id) < 0) {
			gone[found++] = id;
		}
	}
	bed_stop(gone[0]);
	bed_stop(gone[1]);
	bed_wait_state(gone[0], SH_NODE_DEAD, BED_DEAD_MS + 1000);
	bed_wait_state(gone[1], SH_NODE_DEAD, BED_DEAD_MS + 1000);
	bed_pass(60000);
	uint32_t lost = 0;
	for (uint32_t i = 0; i <= BED_META; i++) {
		const struct sh_members *members = &bed.groups[i].members;
		int dead = (sh_members_find(members, gone[0]) >= 0) +
			   (sh_members_find(members, gone[1]) >= 0);
		assert_true(dead == 0 || dead == 2);
		lost += dead == 2;
	}
	assert_true(lost > 0);
	bed_start(gone[0]);
	bed_start(gone[1]);
	bed_settle();
	bed_then_even(3, 1, 7);
	bed_end();
}

static void does_not_take_its_own_sleep_for_the_death_of_others(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint64_t seq = bed.seq;
	bed.now += 10 * BED_DEAD_MS;
	sh_coordinator_tick(bed.nodes[bed.groups[BED_META].leader].coordinator, bed.now);
	bed_pass(5000);
	assert_int_equal(bed.seq, seq);
	bed_end();
}

static void announces_addresses_that_changed(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint64_t id = bed_bystander();
	bed_stop(id);
	bed_start(id);
	snprintf(bed.nodes[id].peer, sizeof(bed.nodes[id].peer), "tcp://elsewhere:2");
	bed_pass(1000);
	Troupe__Cluster__ClusterState *at = bed_state();
	assert_string_equal(at->members[id - 1]->peer, "tcp://elsewhere:2");
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
	/* What is no address is not even tried. */
	snprintf(bed.nodes[id].peer, sizeof(bed.nodes[id].peer), "no address");
	uint32_t commands = bed.commands;
	bed_pass(1000);
	assert_int_equal(bed.commands, commands);
	bed_end();
}

/* ---- pushes ---- */

static void tells_of_a_changed_leader_at_once(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed_pass(90);
	uint64_t node = bed.groups[3].leader == 2 ? 3 : 2;
	bed_lead(3, node);
	bed.groups[3].step_at = bed.now + 10000;
	uint64_t said = bed.now + BED_STEP_MS; /* when the next step lets the node report */
	bed_pass(2 * BED_STEP_MS + BED_STEP_MS);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_in_range(bed.nodes[id].pushed_at, said, said + 20);
		const Troupe__Cluster__ClusterTable *table = bed.nodes[id].table;
		assert_int_equal(table->routes[3]->shard, 3);
		assert_int_equal(table->routes[3]->leader, node);
		assert_int_equal(table->routes[3]->term, bed.groups[3].term);
	}
	bed_end();
}

static void pushes_again_to_who_missed_it_but_not_all_the_time(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint32_t pushes = bed.nodes[2].pushes;
	for (uint32_t i = 0; i < 500; i++) {
		bed.nodes[2].version = 0; /* It forgets what it is told. */
		bed_step();
	}
	assert_in_range(bed.nodes[2].pushes - pushes, 8, 10);
	bed_pass(1000);
	pushes = bed.nodes[2].pushes;
	bed_pass(9000);
	assert_in_range(bed.nodes[2].pushes - pushes, 0, 1);
	bed_end();
}

static void leaders_that_a_push_lost_are_told_later(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint64_t deaf = bed_bystander();
	bed.deaf = deaf;
	uint64_t node = bed.groups[3].leader == 2 ? 3 : 2;
	bed_lead(3, node);
	bed.groups[3].step_at = bed.now + 60000;
	bed_pass(500);
	bed.deaf = 0;
	assert_int_not_equal(bed.nodes[deaf].table->routes[3]->leader, node);
	bed_pass(11000);
	assert_int_equal(bed.nodes[deaf].table->routes[3]->leader, node);
	bed_end();
}

/* ---- the entity answers late, badly, or not at all ---- */

static void goes_on_when_an_answer_never_comes(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed_join(4);
	bed.mute = bed.groups[BED_META].leader;
	bed_pass(1000);
	bed.mute = 0;
	bed_pass(12000);
	bed_settle();
	bed_then_even(3, 1, 4);
	bed_end();
}

static void goes_on_when_a_command_gets_lost(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed.lose_commands = true;
	bed_join(4);
	bed_pass(1000);
	bed.lose_commands = false;
	bed_pass(12000);
	bed_settle();
	bed_then_even(3, 1, 4);
	bed_end();
}

static void decides_nothing_before_the_nodes_could_be_heard(void **unused)
{
	(void)unused;
	bed_nodes(5);
	uint64_t late = bed_bystander();
	Troupe__Cluster__Drain command = TROUPE__CLUSTER__DRAIN__INIT;
	command.node = late == 2 ? 3 : 2;
	uint64_t leader = bed.groups[BED_META].leader;
	silently(&command.base);
	bed.nodes[late].report_at = bed.now + 1500;
	uint32_t commands = bed.commands;
	bed_lead(BED_META, leader);
	bed_pass(1400);
	assert_int_equal(bed.commands, commands);
	bed_pass(400);
	assert_int_not_equal(bed.commands, commands);
	bed_end();
}

static void tries_again_at_the_next_tick_when_there_is_no_room(void **unused)
{
	(void)unused;
	bed_begin();
	bed.full = true;
	bed_pass(1000);
	assert_int_equal(bed.seq, 0);
	bed.full = false;
	bed_pass(500);
	assert_int_equal(bed.seq, 2);
	bed.full = true;
	bed_join(2);
	bed_pass(3000);
	bed.full = false;
	bed_settle();
	bed_then_even(2, 1, 2);
	bed_end();
}

static void does_not_insist_on_what_was_refused(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed.refuse = true;
	bed_join(4);
	uint32_t commands = bed.commands, asked = bed.asked;
	bed_pass(2000);
	assert_in_range(bed.commands - commands, 5, 11);
	assert_in_range(bed.asked - asked, 10, 25);
	bed.refuse = false;
	bed_settle();
	bed_then_even(3, 1, 4);
	bed_end();
}

static rt_err answer_at_once(void *arg, const char *name, bool command, struct rt_bytes payload,
	uint64_t expected, uint64_t ticket)
{
	struct sh_coordinator **coordinator = arg;
	(void)name;
	(void)command;
	(void)payload;
	(void)expected;
	bed.asked++;
	sh_coordinator_answer(*coordinator, bed.now, ticket, 5, 0, rt_bytes_str(""));
	return RT_OK;
}

static void survives_answers_from_inside_of_the_question(void **unused)
{
	(void)unused;
	struct sh_coordinator *coordinator = NULL;
	struct sh_coordinator_port port = {.ask = answer_at_once, .arg = &coordinator};
	struct sh_coordinator_options options = {.port = &port, .node = 1, .key = "k"};
	assert_err(sh_coordinator_new(&options, &coordinator), RT_OK);
	bed.asked = 0;
	sh_coordinator_lead(coordinator, 1000, 1);
	sh_coordinator_tick(coordinator, 1200);
	assert_int_equal(bed.asked, 2);
	sh_coordinator_free(coordinator);
}

static void is_idle_when_there_is_nothing_to_do(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint32_t asked = bed.asked, commands = bed.commands;
	bed_pass(60000);
	assert_int_equal(bed.commands, commands);
	assert_in_range(bed.asked - asked, 1, 13);
	bed_end();
}

static void nothing_awake_is_nothing_known(void **unused)
{
	(void)unused;
	bed_nodes(2);
	struct pr_text text = {0};
	uint64_t id = bed.groups[BED_META].leader == 1 ? 2 : 1;
	struct sh_coordinator *asleep = bed.nodes[id].coordinator;
	assert_err(sh_coordinator_status(asleep, bed.now, &text), RT_E_FENCED);
	assert_true(sh_coordinator_next_timeout(asleep) == UINT64_MAX);
	uint32_t asked = bed.asked;
	sh_coordinator_tick(asleep, bed.now);
	sh_coordinator_changed(asleep);
	sh_coordinator_report(asleep, bed.now, 1, rt_bytes_str("x"));
	sh_coordinator_answer(asleep, bed.now, 1, 0, 1, rt_bytes_str("x"));
	assert_int_equal(bed.asked, asked);
	sh_coordinator_lead(asleep, bed.now, 99);
	assert_err(sh_coordinator_status(asleep, bed.now, &text), RT_E_AGAIN);
	sh_coordinator_follow(asleep);
	pr_text_clear(&text);
	bed_end();
}

/* ---- reports that make no sense ---- */

static void give(uint64_t from, Troupe__Cluster__NodeReport *report)
{
	uint8_t packed[4096];
	assert_true(troupe__cluster__node_report__get_packed_size(report) <= sizeof(packed));
	size_t size = troupe__cluster__node_report__pack(report, packed);
	sh_coordinator_report(bed.nodes[bed.groups[BED_META].leader].coordinator, bed.now, from,
		rt_bytes_of(packed, size));
}

static void drops_reports_that_make_no_sense(void **unused)
{
	(void)unused;
	bed_nodes(3);
	uint64_t nodes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, zeroes[8] = {0};
	protobuf_c_boolean votes[8] = {true, true, true, true, true, true, true, true};
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
	Troupe__Cluster__ReplicaReport *list = &replica;
	uint64_t leader = bed.groups[0].leader;
	uint64_t liar = leader == 2 ? 3 : 2;
	report.node = liar;
	report.workers = 1;
	report.replicas = &list;
	report.n_replicas = 1;
	report.rpc = bed.nodes[liar].rpc;
	report.peer = bed.nodes[liar].peer;
	report.version = bed.seq;
	report.instance = bed.nodes[liar].instance;
	replica.leading = true;
	replica.leader = liar;
	replica.term = 1000;
	replica.nodes = nodes;
	replica.votes = votes;
	replica.match = zeroes;
	replica.n_nodes = replica.n_votes = replica.n_match = 3;
	for (uint32_t i = 0; i < 8; i++) {
		Troupe__Cluster__NodeReport bad = report;
		Troupe__Cluster__ReplicaReport bad_replica = replica, *bad_list = &bad_replica;
		bad.replicas = &bad_list;
		bad.node = i == 0 ? liar + 1 : liar;
		bad.workers = i == 1 ? 0 : 1;
		bad.worker = i == 2 ? 1 : 0;
		bad_replica.shard = i == 3 ? BED_SHARDS + 1 : 0;
		bad_replica.n_nodes = i == 4 ? 2 : 3;
		bad_replica.nodes = i == 5 ? zeroes : nodes;
		if (i == 6) {
			bad_replica.n_nodes = bad_replica.n_votes = bad_replica.n_match = 8;
		}
		give(i == 7 ? 9 : liar, &bad);
	}
	json_t *json = status(bed.groups[BED_META].leader);
	assert_int_equal(
		number(json_array_get(json_object_get(json, "groups"), 0), "leader"), leader);
	json_decref(json);
	give(liar, &report); /* This one does make sense. */
	json = status(bed.groups[BED_META].leader);
	assert_int_equal(
		number(json_array_get(json_object_get(json, "groups"), 0), "leader"), liar);
	json_decref(json);
	bed_end();
}

static void survives_any_bytes(void **unused)
{
	(void)unused;
	struct rt_random random;
	uint8_t bytes[512];
	rt_random_seed(&random, 7);
	bed_nodes(3);
	struct sh_coordinator *coordinator = bed.nodes[bed.groups[BED_META].leader].coordinator;
	for (uint32_t i = 0; i < 20000; i++) {
		Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
		Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
		Troupe__Cluster__ReplicaReport *list = &replica;
		report.node = 2;
		report.workers = 2;
		report.replicas = &list;
		report.n_replicas = 1;
		report.rpc = bed.nodes[2].rpc;
		report.peer = bed.nodes[2].peer;
		replica.shard = rt_random_below(&random, BED_SHARDS + 1);
		replica.term = rt_random_below(&random, 9);
		replica.leader = rt_random_below(&random, 5);
		size_t size = troupe__cluster__node_report__pack(&report, bytes);
		for (uint32_t k = rt_random_below(&random, 4); k > 0; k--) {
			bytes[rt_random_below(&random, (uint32_t)size)] =
				(uint8_t)rt_random_next(&random);
		}
		sh_coordinator_report(coordinator, bed.now, 2,
			rt_bytes_of(bytes, rt_random_below(&random, (uint32_t)size + 1)));
		sh_coordinator_answer(coordinator, bed.now, rt_random_below(&random, 3), 0,
			rt_random_next(&random), rt_bytes_of(bytes, size));
	}
	bed_settle();
	bed_then_even(3, 1, 3);
	bed_end();
}

static void a_leader_nobody_confirms_gives_way_to_an_older_term(void **unused)
{
	(void)unused;
	bed_nodes(3);
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
	bed_pass(5000);
	json_t *json = status(bed.groups[BED_META].leader);
	assert_int_equal(number(json_array_get(json_object_get(json, "groups"), 0), "leader"),
		bed.groups[0].leader);
	json_decref(json);
	bed_end();
}

/* ---- status ---- */

static void says_how_things_are(void **unused)
{
	(void)unused;
	bed_nodes(3);
	bed.copy_ms = 2000;
	bed_join(4);
	bed_pass(800);
	uint64_t id = bed.groups[BED_META].leader;
	json_t *json = status(id);
	assert_string_equal(json_string_value(json_object_get(json, "cluster")), BED_CLUSTER);
	assert_int_equal(number(json, "version"), bed.seq);
	assert_int_equal(number(json, "coordinator"), id);
	assert_int_equal(number(json, "term"), bed.groups[BED_META].term);
	assert_int_equal(number(json, "replication"), 3);
	assert_int_equal(number(json, "shards"), BED_SHARDS);
	assert_int_equal(number(json, "movesMax"), SH_CLUSTER_MOVES);
	assert_int_equal(number(json, "deadAfterMs"), BED_DEAD_MS);
	assert_int_equal(number(json, "moves"), SH_CLUSTER_MOVES);
	const json_t *nodes = json_object_get(json, "nodes");
	assert_int_equal(json_array_size(nodes), 4);
	const json_t *node = json_array_get(nodes, 1);
	assert_int_equal(number(node, "node"), 2);
	assert_string_equal(json_string_value(json_object_get(node, "state")), "up");
	assert_string_equal(json_string_value(json_object_get(node, "peer")), "tcp://h2:2");
	assert_true(json_is_true(json_object_get(node, "reachable")));
	assert_in_range(number(node, "heardMs"), 0, 210);
	assert_int_equal(number(node, "replicas"), bed_held_by(2));
	assert_int_equal(number(node, "leaders"), bed_led_by(2));
	const json_t *groups = json_object_get(json, "groups");
	assert_int_equal(json_array_size(groups), BED_SHARDS + 1);
	const json_t *group = json_array_get(groups, BED_META);
	assert_string_equal(json_string_value(json_object_get(group, "name")), "meta");
	assert_int_equal(number(group, "leader"), id);
	uint32_t learners = 0;
	for (uint32_t i = 0; i <= BED_META; i++) {
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
	bed_settle();
	json = status(bed.groups[BED_META].leader);
	assert_int_equal(number(json, "moves"), 0);
	json_decref(json);
	bed_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(founds_the_cluster_and_tells_its_node),
		cmocka_unit_test(grows_from_1_to_3_to_5_and_shrinks_to_3),
		cmocka_unit_test(tells_a_node_that_left_so_once),
		cmocka_unit_test(a_draining_node_that_dies_leaves_too),
		cmocka_unit_test(nobody_leaves_while_a_group_is_unknown),
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
		cmocka_unit_test(leaders_that_a_push_lost_are_told_later),
		cmocka_unit_test(goes_on_when_an_answer_never_comes),
		cmocka_unit_test(goes_on_when_a_command_gets_lost),
		cmocka_unit_test(decides_nothing_before_the_nodes_could_be_heard),
		cmocka_unit_test(tries_again_at_the_next_tick_when_there_is_no_room),
		cmocka_unit_test(does_not_insist_on_what_was_refused),
		cmocka_unit_test(survives_answers_from_inside_of_the_question),
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
