#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sharding/cluster.h"
#include "tests/support/given.h"

#define CLUSTER "0123456789abcdef0123456789ABCDEF"
#define TEXT(x) ((char *)(uintptr_t)(x))

static struct given g;

static void found_with(const char *id, uint32_t shards, uint32_t replication)
{
	Troupe__Cluster__Found command = TROUPE__CLUSTER__FOUND__INIT;
	Troupe__Cluster__Member founder = TROUPE__CLUSTER__MEMBER__INIT;
	founder.key = TEXT("key1");
	founder.rpc = TEXT("tcp://h1:1");
	founder.peer = TEXT("tcp://h1:2");
	command.cluster = TEXT(id);
	command.shard_count = shards;
	command.replication = replication;
	command.founder = &founder;
	when_command(&g, &command.base);
}

static void join(const char *key, const char *rpc, const char *peer)
{
	Troupe__Cluster__Join command = TROUPE__CLUSTER__JOIN__INIT;
	command.key = TEXT(key);
	command.rpc = TEXT(rpc);
	command.peer = TEXT(peer);
	when_command(&g, &command.base);
}

static void join_nth(uint32_t n)
{
	char key[32];
	snprintf(key, sizeof(key), "key%" PRIu32, n);
	join(key, "tcp://h:1", "tcp://h:2");
}

/* A cluster of 4 shards and the meta group. */
static void given_nodes(uint32_t count)
{
	given_new(&g, &sh_cluster_aggregate, "cluster");
	found_with(CLUSTER, 4, 0);
	then_events(&g, 1);
	for (uint32_t i = 2; i <= count; i++) {
		join_nth(i);
		then_events(&g, 1);
	}
}

static void drain(uint64_t node, bool cancel)
{
	Troupe__Cluster__Drain command = TROUPE__CLUSTER__DRAIN__INIT;
	command.node = node;
	command.cancel = cancel;
	when_command(&g, &command.base);
}

static void leave(uint64_t node)
{
	Troupe__Cluster__Leave command = TROUPE__CLUSTER__LEAVE__INIT;
	command.node = node;
	when_command(&g, &command.base);
}

static void remove_node(uint64_t node)
{
	Troupe__Cluster__Remove command = TROUPE__CLUSTER__REMOVE__INIT;
	command.node = node;
	when_command(&g, &command.base);
}

static void set_alive(uint64_t node, bool alive)
{
	Troupe__Cluster__SetAlive command = TROUPE__CLUSTER__SET_ALIVE__INIT;
	command.node = node;
	command.alive = alive;
	when_command(&g, &command.base);
}

static void move(uint32_t shard, uint64_t node)
{
	Troupe__Cluster__Move command = TROUPE__CLUSTER__MOVE__INIT;
	command.shard = shard;
	command.node = node;
	when_command(&g, &command.base);
}

static void announce(uint64_t node, const char *rpc, const char *peer)
{
	Troupe__Cluster__Announce command = TROUPE__CLUSTER__ANNOUNCE__INIT;
	command.node = node;
	command.rpc = TEXT(rpc);
	command.peer = TEXT(peer);
	when_command(&g, &command.base);
}

static void configure(uint32_t replication, uint32_t moves_max, uint32_t dead_after_ms)
{
	Troupe__Cluster__Configure command = TROUPE__CLUSTER__CONFIGURE__INIT;
	command.replication = replication;
	command.moves_max = moves_max;
	command.dead_after_ms = dead_after_ms;
	when_command(&g, &command.base);
}

/* nodes ends with 0. */
static void place(uint32_t shard, uint64_t preferred, const uint64_t *nodes)
{
	Troupe__Cluster__Place command = TROUPE__CLUSTER__PLACE__INIT;
	Troupe__Cluster__Placement placement = TROUPE__CLUSTER__PLACEMENT__INIT;
	Troupe__Cluster__Placement *list = &placement;
	placement.shard = shard;
	placement.preferred = preferred;
	placement.replicas = (uint64_t *)(uintptr_t)nodes;
	while (nodes[placement.n_replicas] != 0) {
		placement.n_replicas++;
	}
	command.placements = &list;
	command.n_placements = 1;
	when_command(&g, &command.base);
}
#define NODES(...) ((const uint64_t[]){__VA_ARGS__, 0})

static Troupe__Cluster__ClusterState *state(void)
{
	Troupe__Cluster__Nothing query = TROUPE__CLUSTER__NOTHING__INIT;
	when_query(&g, &query.base);
	assert_true(g.accepted);
	return (void *)then_replied(&g, &troupe__cluster__cluster_state__descriptor);
}

static void free_state(Troupe__Cluster__ClusterState *at)
{
	troupe__cluster__cluster_state__free_unpacked(at, NULL);
}

static void then_state(uint64_t node, Troupe__Cluster__NodeState wanted)
{
	Troupe__Cluster__ClusterState *at = state();
	assert_int_equal(sh_cluster_member(at, node)->state, wanted);
	free_state(at);
}

static void then_placed(uint32_t shard, uint64_t preferred, const uint64_t *nodes)
{
	Troupe__Cluster__ClusterState *at = state();
	const Troupe__Cluster__Placement *placement = at->placements[shard];
	assert_int_equal(placement->preferred, preferred);
	for (size_t i = 0; i < placement->n_replicas; i++) {
		assert_int_equal(placement->replicas[i], nodes[i]);
	}
	assert_int_equal(nodes[placement->n_replicas], 0);
	free_state(at);
}

static void done(void)
{
	when_replayed(&g);
	when_restored(&g);
	given_free(&g);
}

/* ---- founding ---- */

static void founds_a_cluster_of_one_that_holds_everything(void **unused)
{
	(void)unused;
	given_nodes(1);
	Troupe__Cluster__ClusterState *at = state();
	assert_string_equal(at->cluster, CLUSTER);
	assert_int_equal(at->replication, 3);
	assert_int_equal(at->moves_max, SH_CLUSTER_MOVES);
	assert_int_equal(at->dead_after_ms, 60000);
	assert_int_equal(at->n_members, 1);
	assert_string_equal(at->members[0]->name, "n1");
	assert_int_equal(at->n_placements, 5);
	assert_true(sh_cluster_valid(at));
	free_state(at);
	for (uint32_t i = 0; i <= 4; i++) {
		then_placed(i, 1, NODES(1));
	}
	done();
}

static void refuses_everything_before_it_is_founded(void **unused)
{
	(void)unused;
	Troupe__Cluster__Nothing query = TROUPE__CLUSTER__NOTHING__INIT;
	given_new(&g, &sh_cluster_aggregate, "cluster");
	join_nth(2);
	then_refused(&g, "the cluster is not founded");
	drain(1, false);
	then_refused(&g, "the cluster is not founded");
	when_query(&g, &query.base);
	then_refused(&g, "the cluster is not founded");
	Troupe__Cluster__NodeStateChanged event = TROUPE__CLUSTER__NODE_STATE_CHANGED__INIT;
	then_contradicts(&g, &event.base);
	done();
}

static void refuses_to_be_founded_twice_or_with_nonsense(void **unused)
{
	(void)unused;
	Troupe__Cluster__Found empty = TROUPE__CLUSTER__FOUND__INIT;
	given_new(&g, &sh_cluster_aggregate, "cluster");
	found_with("short", 4, 0);
	then_refused(&g, "cluster must be 32 hexadecimal digits");
	found_with("0123456789abcdef0123456789abcdeg", 4, 0);
	then_refused(&g, "cluster must be 32 hexadecimal digits");
	found_with(CLUSTER, 0, 0);
	then_refused(&g, "shard_count must be 1 to 1024");
	found_with(CLUSTER, 1025, 0);
	then_refused(&g, "shard_count must be 1 to 1024");
	found_with(CLUSTER, 4, 6);
	then_refused(&g, "replication must be 1 to 5");
	empty.cluster = TEXT(CLUSTER);
	empty.shard_count = 4;
	when_command(&g, &empty.base);
	then_refused(&g, "founder is missing");
	found_with(CLUSTER, 1024, 5);
	then_events(&g, 1);
	found_with(CLUSTER, 4, 0);
	then_refused(&g, "cluster " CLUSTER " is founded already");
	done();
}

/* ---- joining ---- */

static void numbers_nodes_as_they_join_and_tells_them_the_others(void **unused)
{
	(void)unused;
	given_nodes(2);
	join_nth(3);
	then_events(&g, 1);
	Troupe__Cluster__Joined *reply =
		(void *)then_replied(&g, &troupe__cluster__joined__descriptor);
	assert_int_equal(reply->node, 3);
	assert_int_equal(reply->shard_count, 4);
	assert_string_equal(reply->cluster, CLUSTER);
	assert_int_equal(reply->n_members, 3);
	assert_string_equal(reply->members[0]->peer, "tcp://h1:2");
	assert_int_equal(reply->members[2]->node, 3);
	assert_string_equal(reply->members[2]->name, "n3");
	troupe__cluster__joined__free_unpacked(reply, NULL);
	done();
}

static void gives_the_same_key_the_same_node_again(void **unused)
{
	(void)unused;
	given_nodes(3);
	join_nth(2);
	then_events(&g, 0);
	Troupe__Cluster__Joined *reply =
		(void *)then_replied(&g, &troupe__cluster__joined__descriptor);
	assert_int_equal(reply->node, 2);
	assert_int_equal(reply->n_members, 3);
	troupe__cluster__joined__free_unpacked(reply, NULL);
	done();
}

static void joining_again_elsewhere_announces_and_changes_nothing_else(void **unused)
{
	(void)unused;
	given_nodes(3);
	drain(2, false);
	set_alive(2, false);
	join("key2", "tcp://new:1", "tcp://new:2");
	Troupe__Cluster__NodeAnnounced event = TROUPE__CLUSTER__NODE_ANNOUNCED__INIT;
	event.node = 2;
	event.rpc = TEXT("tcp://new:1");
	event.peer = TEXT("tcp://new:2");
	then_event(&g, &event.base);
	Troupe__Cluster__Joined *reply =
		(void *)then_replied(&g, &troupe__cluster__joined__descriptor);
	assert_int_equal(reply->node, 2);
	assert_int_equal(reply->members[1]->node, 2);
	assert_string_equal(reply->members[1]->rpc, "tcp://new:1");
	troupe__cluster__joined__free_unpacked(reply, NULL);
	then_state(2, SH_NODE_DEAD);
	done();
}

static void refuses_a_key_that_left_and_another_cluster(void **unused)
{
	(void)unused;
	given_nodes(2);
	drain(2, false);
	leave(2);
	then_events(&g, 1);
	join_nth(2);
	then_refused(&g, "node 2 has left the cluster; join with an empty data folder");
	Troupe__Cluster__Join command = TROUPE__CLUSTER__JOIN__INIT;
	command.cluster = TEXT("ffffffffffffffffffffffffffffffff");
	when_command(&g, &command.base);
	then_refused(&g, "this is cluster " CLUSTER);
	done();
}

static void refuses_joins_that_make_no_sense(void **unused)
{
	(void)unused;
	char long_url[SH_CLUSTER_URL_MAX + 2];
	memset(long_url, 'a', sizeof(long_url));
	memcpy(long_url, "tcp://", 6);
	long_url[SH_CLUSTER_URL_MAX + 1] = '\0';
	given_nodes(1);
	join("", "tcp://h:1", "tcp://h:2");
	then_refused(&g, "key must be 1 to 32 letters and digits");
	join("a b", "tcp://h:1", "tcp://h:2");
	then_refused(&g, "key must be 1 to 32 letters and digits");
	join("012345678901234567890123456789012", "tcp://h:1", "tcp://h:2");
	then_refused(&g, "key must be 1 to 32 letters and digits");
	join("k", "h:1", "tcp://h:2");
	then_refused(&g, "rpc must be a URL of at most 255 bytes");
	join("k", "tcp://h:1", long_url);
	then_refused(&g, "peer must be a URL of at most 255 bytes");
	join("k", "tcp://h:1\n", "tcp://h:2");
	then_refused(&g, "rpc must be a URL of at most 255 bytes");
	long_url[SH_CLUSTER_URL_MAX] = '\0';
	join("k", "tcp://h:1", long_url);
	then_events(&g, 1);
	done();
}

static void refuses_the_node_after_the_last(void **unused)
{
	(void)unused;
	given_nodes(SH_CLUSTER_NODES_MAX);
	join_nth(SH_CLUSTER_NODES_MAX + 1);
	then_refused(&g, "the cluster has 64 nodes, which is the limit");
	drain(7, false);
	leave(7);
	join_nth(SH_CLUSTER_NODES_MAX + 1);
	then_events(&g, 1);
	done();
}

static void forgets_who_left_first_when_too_many_have(void **unused)
{
	(void)unused;
	given_nodes(1);
	for (uint32_t i = 2; i <= SH_CLUSTER_MEMBERS_MAX + 2; i++) {
		join_nth(i);
		then_events(&g, 1);
		drain(i, false);
		leave(i);
		then_events(&g, 1);
	}
	Troupe__Cluster__ClusterState *at = state();
	assert_int_equal(at->n_members, SH_CLUSTER_MEMBERS_MAX);
	assert_non_null(sh_cluster_member(at, 1));
	assert_null(sh_cluster_member(at, 2));
	assert_null(sh_cluster_member(at, 3));
	assert_non_null(sh_cluster_member(at, 4));
	assert_int_equal(at->next_node, SH_CLUSTER_MEMBERS_MAX + 3);
	free_state(at);
	done();
}

/* ---- the states of nodes ---- */

static void announces_only_what_is_new(void **unused)
{
	(void)unused;
	given_nodes(2);
	announce(2, "tcp://h:1", "tcp://h:2");
	then_events(&g, 0);
	announce(2, "tcp://h:1", "tcp://h:3");
	then_events(&g, 1);
	announce(9, "tcp://h:1", "tcp://h:3");
	then_refused(&g, "node 9 is not a member");
	announce(2, "h", "tcp://h:3");
	then_refused(&g, "rpc must be a URL of at most 255 bytes");
	done();
}

static void drains_and_takes_it_back(void **unused)
{
	(void)unused;
	given_nodes(2);
	drain(2, false);
	then_events(&g, 1);
	drain(2, false);
	then_events(&g, 0);
	then_state(2, SH_NODE_DRAINING);
	drain(2, true);
	then_events(&g, 1);
	drain(2, true);
	then_events(&g, 0);
	then_state(2, SH_NODE_UP);
	done();
}

static void refuses_to_drain_the_last_node_that_is_up(void **unused)
{
	(void)unused;
	given_nodes(3);
	drain(2, false);
	set_alive(3, false);
	then_events(&g, 1);
	drain(1, false);
	then_refused(&g, "node 1 is the last one that is up");
	set_alive(1, false);
	then_refused(&g, "node 1 is the last one that is up");
	drain(3, false);
	then_refused(&g, "node 3 is dead: remove it");
	drain(4, false);
	then_refused(&g, "node 4 is not a member");
	done();
}

static void goes_on_draining_what_died_meanwhile(void **unused)
{
	(void)unused;
	given_nodes(3);
	drain(2, false);
	set_alive(2, false);
	then_events(&g, 1);
	then_state(2, SH_NODE_DEAD);
	set_alive(2, true);
	then_events(&g, 1);
	then_state(2, SH_NODE_DRAINING);
	set_alive(2, true);
	then_events(&g, 0);
	set_alive(2, false);
	leave(2);
	then_events(&g, 1);
	then_state(2, SH_NODE_LEFT);
	done();
}

static void comes_back_as_it_was(void **unused)
{
	(void)unused;
	given_nodes(2);
	set_alive(2, false);
	then_events(&g, 1);
	set_alive(2, false);
	then_events(&g, 0);
	set_alive(2, true);
	then_events(&g, 1);
	then_state(2, SH_NODE_UP);
	done();
}

static void leaves_only_when_it_is_to_hold_nothing(void **unused)
{
	(void)unused;
	given_nodes(2);
	leave(2);
	then_refused(&g, "node 2 is not draining");
	place(3, 2, NODES(1, 2));
	then_events(&g, 1);
	drain(2, false);
	leave(2);
	then_refused(&g, "node 2 is still to hold 1 shards");
	place(3, 1, NODES(1));
	leave(2);
	then_events(&g, 1);
	leave(2);
	then_events(&g, 0);
	drain(2, false);
	then_refused(&g, "node 2 has left the cluster");
	set_alive(2, true);
	then_refused(&g, "node 2 has left the cluster");
	done();
}

static void removes_the_dead_and_the_drained_only(void **unused)
{
	(void)unused;
	given_nodes(4);
	remove_node(2);
	then_refused(&g, "node 2 is up: drain it");
	place(0, 1, NODES(1, 2, 3));
	set_alive(2, false);
	remove_node(2);
	then_events(&g, 1);
	remove_node(2);
	then_events(&g, 0);
	drain(3, false);
	remove_node(3);
	then_refused(&g, "node 3 is still to hold 1 shards");
	drain(4, false);
	remove_node(4);
	then_events(&g, 1);
	remove_node(5);
	then_refused(&g, "node 5 is not a member");
	done();
}

static void calls_impossible_changes_of_state_contradictions(void **unused)
{
	(void)unused;
	given_nodes(2);
	Troupe__Cluster__NodeStateChanged event = TROUPE__CLUSTER__NODE_STATE_CHANGED__INIT;
	event.node = 2;
	event.state = SH_NODE_UP;
	then_contradicts(&g, &event.base);
	event.state = SH_NODE_LEFT;
	then_contradicts(&g, &event.base);
	event.state = (Troupe__Cluster__NodeState)7;
	then_contradicts(&g, &event.base);
	event.node = 3;
	event.state = SH_NODE_DEAD;
	then_contradicts(&g, &event.base);
	Troupe__Cluster__NodeJoined joined = TROUPE__CLUSTER__NODE_JOINED__INIT;
	then_contradicts(&g, &joined.base);
	Troupe__Cluster__Member member = TROUPE__CLUSTER__MEMBER__INIT;
	member.node = 2;
	joined.member = &member;
	then_contradicts(&g, &joined.base);
	done();
}

/* ---- placing ---- */

static void places_what_is_valid_and_writes_only_changes(void **unused)
{
	(void)unused;
	given_nodes(5);
	place(4, 5, NODES(1, 2, 3, 4, 5));
	then_events(&g, 1);
	then_placed(4, 5, NODES(1, 2, 3, 4, 5));
	place(4, 5, NODES(1, 2, 3, 4, 5));
	then_events(&g, 0);
	done();
}

/* Until its turn comes to be replaced; the rest of the plan is carried out. */
static void a_node_that_has_left_may_keep_its_place(void **unused)
{
	(void)unused;
	given_nodes(4);
	place(1, 3, NODES(1, 2, 3));
	set_alive(3, false);
	remove_node(3);
	place(1, 2, NODES(1, 2, 3));
	then_events(&g, 1);
	then_placed(1, 2, NODES(1, 2, 3));
	place(2, 1, NODES(1, 3));
	then_refused(&g, "node 3 has left the cluster");
	done();
}

static void refuses_placements_that_cannot_be(void **unused)
{
	(void)unused;
	static const char needs[] =
		"shard 1 needs 1 to 5 replicas, ascending, and one of them preferred";
	given_nodes(6);
	place(5, 1, NODES(1));
	then_refused(&g, "there is no shard 5");
	place(1, 1, NODES(2, 1));
	then_refused(&g, needs);
	place(1, 1, NODES(1, 1));
	then_refused(&g, needs);
	place(1, 3, NODES(1, 2));
	then_refused(&g, needs);
	place(1, 0, NODES(1, 2));
	then_refused(&g, needs);
	place(1, 1, NODES(1, 2, 3, 4, 5, 6));
	then_refused(&g, needs);
	place(1, 0, (const uint64_t[]){0});
	then_refused(&g, needs);
	place(1, 1, NODES(1, 9));
	then_refused(&g, "node 9 is not a member");
	drain(2, false);
	place(1, 1, NODES(1, 2));
	then_refused(&g, "shard 1: node 2 is not up");
	set_alive(3, false);
	remove_node(3);
	place(1, 1, NODES(1, 3));
	then_refused(&g, "node 3 has left the cluster");
	Troupe__Cluster__Place twice = TROUPE__CLUSTER__PLACE__INIT;
	Troupe__Cluster__Placement one = TROUPE__CLUSTER__PLACEMENT__INIT;
	Troupe__Cluster__Placement *list[] = {&one, &one};
	uint64_t node = 1;
	one.replicas = &node;
	one.n_replicas = 1;
	one.preferred = 1;
	twice.placements = list;
	twice.n_placements = 2;
	when_command(&g, &twice.base);
	then_refused(&g, "placements are not in the order of shards");
	done();
}

static void keeps_a_replica_on_a_node_that_died(void **unused)
{
	(void)unused;
	given_nodes(3);
	place(1, 1, NODES(1, 2, 3));
	set_alive(3, false);
	place(1, 2, NODES(1, 2, 3));
	then_events(&g, 1);
	done();
}

/* ---- moving ---- */

static void moves_leadership_to_a_replica_and_pins_it(void **unused)
{
	(void)unused;
	given_nodes(3);
	place(1, 1, NODES(1, 2, 3));
	move(1, 3);
	then_events(&g, 1);
	then_placed(1, 3, NODES(1, 2, 3));
	Troupe__Cluster__ClusterState *at = state();
	assert_true(at->placements[1]->pinned);
	free_state(at);
	move(1, 3);
	then_events(&g, 0);
	move(1, 0);
	then_events(&g, 1);
	move(1, 0);
	then_events(&g, 0);
	then_placed(1, 3, NODES(1, 2, 3));
	done();
}

static void moves_a_shard_in_the_place_of_the_fullest_node(void **unused)
{
	(void)unused;
	given_nodes(4);
	for (uint32_t i = 0; i <= 4; i++) {
		place(i, 1, i == 0 ? NODES(1, 2, 4) : NODES(1, 2, 3));
	}
	move(1, 4);
	then_events(&g, 1);
	then_placed(1, 4, NODES(1, 3, 4));
	set_alive(1, false);
	move(2, 4);
	then_placed(2, 4, NODES(2, 3, 4));
	done();
}

static void moves_into_free_room_when_there_is_some(void **unused)
{
	(void)unused;
	given_nodes(3);
	move(4, 3);
	then_placed(4, 3, NODES(1, 3));
	move(4, 2);
	then_placed(4, 2, NODES(1, 2, 3));
	done();
}

static void moves_nothing_to_who_cannot_take_it(void **unused)
{
	(void)unused;
	given_nodes(3);
	drain(2, false);
	set_alive(3, false);
	move(1, 2);
	then_refused(&g, "node 2 is draining");
	move(1, 3);
	then_refused(&g, "node 3 is dead");
	move(1, 4);
	then_refused(&g, "node 4 is not a member");
	move(5, 1);
	then_refused(&g, "there is no shard 5");
	done();
}

/* ---- settings ---- */

static void configures_within_limits(void **unused)
{
	(void)unused;
	given_nodes(1);
	configure(0, 0, 0);
	then_events(&g, 0);
	configure(5, 0, 0);
	Troupe__Cluster__ClusterConfigured event = TROUPE__CLUSTER__CLUSTER_CONFIGURED__INIT;
	event.replication = 5;
	event.moves_max = SH_CLUSTER_MOVES;
	event.dead_after_ms = 60000;
	then_event(&g, &event.base);
	configure(6, 0, 0);
	then_refused(&g, "replication must be 1 to 5");
	configure(0, 257, 0);
	then_refused(&g, "moves_max must be 1 to 256");
	configure(0, 0, 99);
	then_refused(&g, "dead_after_ms must be 100 to 86400000");
	configure(1, 256, 86400000);
	then_events(&g, 1);
	done();
}

static void ignores_a_snapshot_that_contradicts_itself(void **unused)
{
	(void)unused;
	given_nodes(2);
	Troupe__Cluster__ClusterState *at = state();
	void *fresh = calloc(1, sh_cluster_aggregate.state_size);
	assert_non_null(fresh);
	at->next_node = 2;
	assert_false(sh_cluster_aggregate.restore(fresh, &at->base));
	at->next_node = 3;
	at->placements[2]->preferred = 2;
	assert_false(sh_cluster_aggregate.restore(fresh, &at->base));
	at->placements[2]->preferred = 1;
	at->shard_count = 5;
	assert_false(sh_cluster_aggregate.restore(fresh, &at->base));
	at->shard_count = 4;
	assert_true(sh_cluster_aggregate.restore(fresh, &at->base));
	sh_cluster_aggregate.done(fresh);
	free(fresh);
	free_state(at);
	done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(founds_a_cluster_of_one_that_holds_everything),
		cmocka_unit_test(refuses_everything_before_it_is_founded),
		cmocka_unit_test(refuses_to_be_founded_twice_or_with_nonsense),
		cmocka_unit_test(numbers_nodes_as_they_join_and_tells_them_the_others),
		cmocka_unit_test(gives_the_same_key_the_same_node_again),
		cmocka_unit_test(joining_again_elsewhere_announces_and_changes_nothing_else),
		cmocka_unit_test(refuses_a_key_that_left_and_another_cluster),
		cmocka_unit_test(refuses_joins_that_make_no_sense),
		cmocka_unit_test(refuses_the_node_after_the_last),
		cmocka_unit_test(forgets_who_left_first_when_too_many_have),
		cmocka_unit_test(announces_only_what_is_new),
		cmocka_unit_test(drains_and_takes_it_back),
		cmocka_unit_test(refuses_to_drain_the_last_node_that_is_up),
		cmocka_unit_test(goes_on_draining_what_died_meanwhile),
		cmocka_unit_test(comes_back_as_it_was),
		cmocka_unit_test(leaves_only_when_it_is_to_hold_nothing),
		cmocka_unit_test(removes_the_dead_and_the_drained_only),
		cmocka_unit_test(calls_impossible_changes_of_state_contradictions),
		cmocka_unit_test(places_what_is_valid_and_writes_only_changes),
		cmocka_unit_test(a_node_that_has_left_may_keep_its_place),
		cmocka_unit_test(refuses_placements_that_cannot_be),
		cmocka_unit_test(keeps_a_replica_on_a_node_that_died),
		cmocka_unit_test(moves_leadership_to_a_replica_and_pins_it),
		cmocka_unit_test(moves_a_shard_in_the_place_of_the_fullest_node),
		cmocka_unit_test(moves_into_free_room_when_there_is_some),
		cmocka_unit_test(moves_nothing_to_who_cannot_take_it),
		cmocka_unit_test(configures_within_limits),
		cmocka_unit_test(ignores_a_snapshot_that_contradicts_itself),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
