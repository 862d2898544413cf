#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/random.h"
#include "sharding/allocate.h"
#include "tests/support/test.h"

/* A cluster whose groups do what their targets say, each as soon as the dice allow. */
struct world {
	struct sh_alloc_node nodes[SH_CLUSTER_MEMBERS_MAX];
	uint32_t node_count;
	struct sh_alloc_group groups[SH_CLUSTER_GROUPS_MAX];
	struct sh_placement next[SH_CLUSTER_GROUPS_MAX];
	uint32_t group_count, replication, moves_max;
	uint32_t copies;    /* replicas that were sent to a node that did not have them */
	uint32_t handovers; /* changes of preferred */
	uint32_t slow;      /* of 10 groups so many do nothing in a round */
	struct rt_random random;
};

static struct world w;

static const struct sh_allocation *view(void)
{
	static struct sh_allocation in;
	in = (struct sh_allocation){.nodes = w.nodes,
		.node_count = w.node_count,
		.groups = w.groups,
		.group_count = w.group_count,
		.replication = w.replication,
		.moves_max = w.moves_max};
	return &in;
}

static struct sh_alloc_node *node_of(uint64_t node)
{
	for (uint32_t i = 0; i < w.node_count; i++) {
		if (w.nodes[i].node == node) {
			return &w.nodes[i];
		}
	}
	return NULL;
}

static bool lives(uint64_t node)
{
	const struct sh_alloc_node *at = node_of(node);
	return at != NULL && at->usable != SH_NODE_AWAY && at->reachable;
}

static void set_actual(struct sh_alloc_group *group)
{
	group->actual = (struct sh_members){0};
	for (uint32_t i = 0; i < group->target.count; i++) {
		assert_err(sh_members_put(&group->actual, group->target.node[i], true), RT_OK);
	}
}

/* The preferred one if it can, else anybody of a living majority. */
static void elect(struct sh_alloc_group *group)
{
	uint32_t living = 0;
	group->leader = 0;
	for (uint32_t i = 0; i < group->actual.count; i++) {
		uint64_t node = group->actual.node[i];
		if (lives(node)) {
			living++;
			group->leader = group->leader == 0 || node == group->target.preferred
						? node
						: group->leader;
		}
	}
	if (living * 2 <= group->actual.count) {
		group->leader = 0;
	}
	group->lost = group->leader == 0;
}

static void elect_all(void)
{
	for (uint32_t i = 0; i < w.group_count; i++) {
		elect(&w.groups[i]);
	}
}

static uint32_t moving(void)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < w.group_count; i++) {
		count += !sh_alloc_settled(&w.groups[i]) && !w.groups[i].lost;
	}
	return count;
}

static void add_node(void)
{
	uint64_t node = w.node_count == 0 ? 1 : w.nodes[w.node_count - 1].node + 1;
	w.nodes[w.node_count++] = (struct sh_alloc_node){node, SH_NODE_USABLE, true};
}

static void drop_node(uint64_t node)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < w.node_count; i++) {
		if (w.nodes[i].node != node) {
			w.nodes[kept++] = w.nodes[i];
		}
	}
	w.node_count = kept;
}

static void begin(uint32_t shards, uint32_t replication, uint32_t moves_max)
{
	uint64_t seed = w.random.word[0];
	w = (struct world){.group_count = shards + 1,
		.replication = replication,
		.moves_max = moves_max,
		.slow = 3};
	rt_random_seed(&w.random, seed);
	add_node();
	for (uint32_t i = 0; i < w.group_count; i++) {
		w.groups[i].target = (struct sh_placement){{1}, 1, 1, false};
		set_actual(&w.groups[i]);
	}
	elect_all();
}

/* One plan, taken over. False: it changed nothing. */
static bool plan(void)
{
	uint32_t before = moving();
	uint32_t changed = sh_allocate(NULL, view(), w.next);
	for (uint32_t i = 0; i < w.group_count; i++) {
		struct sh_alloc_group *group = &w.groups[i];
		for (uint32_t k = 0; k < w.next[i].count; k++) {
			uint64_t node = w.next[i].node[k];
			assert_true(k == 0 || node > w.next[i].node[k - 1]);
			if (!sh_placement_has(&group->target, node)) {
				assert_true(lives(node));
				assert_int_equal(node_of(node)->usable, SH_NODE_USABLE);
				w.copies += sh_members_find(&group->actual, node) < 0;
			}
		}
		w.handovers += w.next[i].preferred != group->target.preferred;
		group->target = w.next[i];
	}
	assert_true(moving() <= (before > w.moves_max ? before : w.moves_max));
	return changed > 0;
}

static void let_groups_move(void)
{
	for (uint32_t i = 0; i < w.group_count; i++) {
		if (w.groups[i].leader != 0 && rt_random_below(&w.random, 10) >= w.slow) {
			set_actual(&w.groups[i]);
		}
	}
	elect_all();
}

static uint32_t settle(void)
{
	uint32_t rounds = 0;
	elect_all();
	while (plan() || moving() > 0) {
		let_groups_move();
		assert_true(++rounds < 20000);
	}
	return rounds;
}

static uint32_t usable_count(void)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < w.node_count; i++) {
		count += w.nodes[i].usable == SH_NODE_USABLE;
	}
	return count;
}

static uint32_t load_of(uint64_t node)
{
	uint32_t load = 0;
	for (uint32_t i = 0; i < w.group_count; i++) {
		load += sh_placement_has(&w.groups[i].target, node);
	}
	return load;
}

static uint32_t leads_of(uint64_t node)
{
	uint32_t leads = 0;
	for (uint32_t i = 0; i < w.group_count; i++) {
		leads += w.groups[i].target.preferred == node;
	}
	return leads;
}

static void then_even(bool leaders_too)
{
	uint32_t least = UINT32_MAX, most = 0, fewest = UINT32_MAX, many = 0;
	for (uint32_t i = 0; i < w.node_count; i++) {
		if (w.nodes[i].usable == SH_NODE_USABLE) {
			uint32_t load = load_of(w.nodes[i].node), leads = leads_of(w.nodes[i].node);
			least = load < least ? load : least;
			most = load > most ? load : most;
			fewest = leads < fewest ? leads : fewest;
			many = leads > many ? leads : many;
		}
	}
	if (most - least > 1 || (leaders_too && many - fewest > 1)) {
		print_message("replicas %u to %u, leaders %u to %u\n", least, most, fewest, many);
		fail();
	}
}

/* As many usable replicas as there can be, at most one dead one beside them, never a drained one.
 */
static void then_whole(void)
{
	uint32_t wanted = usable_count() < w.replication ? usable_count() : w.replication;
	for (uint32_t i = 0; i < w.group_count; i++) {
		const struct sh_placement *target = &w.groups[i].target;
		uint32_t good = 0;
		for (uint32_t k = 0; k < target->count; k++) {
			const struct sh_alloc_node *node = node_of(target->node[k]);
			assert_non_null(node);
			assert_int_not_equal(node->usable, SH_NODE_GONE);
			good += node->usable == SH_NODE_USABLE;
		}
		assert_int_equal(good, wanted);
		assert_true(target->count <= w.replication && target->count - good <= 1);
		assert_true(target->count == good || good % 2 == 0);
		assert_int_equal(node_of(target->preferred)->usable, SH_NODE_USABLE);
	}
}

static void then_good(void)
{
	then_whole();
	then_even(true);
}

static uint32_t fair_share(void)
{
	uint32_t wanted = usable_count() < w.replication ? usable_count() : w.replication;
	return (w.group_count * wanted + usable_count() - 1) / usable_count();
}

static void changes_nothing_in_a_cluster_of_one(void **unused)
{
	(void)unused;
	begin(64, 3, 4);
	assert_false(plan());
}

static void a_second_and_third_node_get_everything(void **unused)
{
	(void)unused;
	begin(64, 3, 4);
	add_node();
	settle();
	then_good();
	assert_int_equal(w.copies, 65);
	add_node();
	settle();
	then_good();
	assert_int_equal(w.copies, 130);
	assert_int_equal(load_of(1), 65);
}

static void a_new_node_gets_its_fair_share_and_nothing_else_moves(void **unused)
{
	(void)unused;
	for (uint32_t replication = 1; replication <= 5; replication++) {
		begin(64, replication, 8);
		for (uint32_t i = 1; i < 12; i++) {
			uint64_t newest;
			w.copies = 0;
			add_node();
			newest = w.nodes[w.node_count - 1].node;
			settle();
			then_good();
			assert_true(w.copies <= fair_share());
			assert_int_equal(w.copies, load_of(newest));
		}
	}
}

static void a_new_node_takes_over_its_share_of_leaders_only(void **unused)
{
	(void)unused;
	begin(64, 3, 8);
	for (uint32_t i = 0; i < 3; i++) {
		add_node();
	}
	settle();
	add_node();
	w.handovers = 0;
	settle();
	then_good();
	/* A chain now and then costs one more. */
	assert_true(w.handovers <= 2 * leads_of(5));
}

static void replaces_just_what_a_lost_node_held(void **unused)
{
	(void)unused;
	for (int drained = 0; drained <= 1; drained++) {
		begin(64, 3, 8);
		for (uint32_t i = 0; i < 5; i++) {
			add_node();
		}
		settle();
		for (uint64_t node = 6; node >= 4; node--) {
			uint32_t load = load_of(node);
			w.copies = 0;
			node_of(node)->usable = drained ? SH_NODE_GONE : SH_NODE_AWAY;
			settle();
			then_good();
			assert_int_equal(load_of(node), 0);
			/* One more where the emptiest node has all these groups already. */
			assert_in_range(w.copies, load, load + 1);
			drop_node(node);
		}
	}
}

static void goes_from_1_to_3_to_5_to_3(void **unused)
{
	(void)unused;
	begin(256, 3, 8);
	add_node();
	add_node();
	settle();
	then_good();
	add_node();
	add_node();
	settle();
	then_good();
	node_of(1)->usable = node_of(2)->usable = SH_NODE_GONE;
	settle();
	then_good();
	assert_int_equal(load_of(1) + load_of(2), 0);
	assert_int_equal(load_of(3), 257);
}

static void keeps_the_place_of_the_dead_where_nobody_can_take_it(void **unused)
{
	(void)unused;
	begin(16, 3, 8);
	add_node();
	add_node();
	settle();
	w.copies = 0;
	node_of(3)->usable = SH_NODE_AWAY;
	settle();
	then_good();
	assert_int_equal(load_of(3), 17);
	assert_int_equal(leads_of(3), 0);
	node_of(3)->usable = SH_NODE_USABLE;
	settle();
	then_good();
	assert_int_equal(w.copies, 0);
}

static void shrinks_groups_whose_dead_only_cost_votes(void **unused)
{
	(void)unused;
	begin(16, 5, 8);
	for (uint32_t i = 0; i < 4; i++) {
		add_node();
	}
	settle();
	node_of(5)->usable = SH_NODE_AWAY;
	settle();
	then_good();
	assert_int_equal(load_of(5), 17); /* 4 and 5 need 3 votes alike */
	node_of(4)->usable = SH_NODE_AWAY;
	settle();
	then_good();
	assert_int_equal(load_of(4) + load_of(5), 0); /* 3 need 2 */
}

static void a_drained_node_loses_all_even_without_a_replacement(void **unused)
{
	(void)unused;
	begin(16, 3, 8);
	add_node();
	add_node();
	settle();
	node_of(1)->usable = SH_NODE_GONE;
	settle();
	then_good();
	assert_int_equal(load_of(1), 0);
	node_of(2)->usable = SH_NODE_GONE;
	settle();
	then_good();
	assert_int_equal(load_of(3), 17);
}

static void gives_nothing_to_who_is_not_reachable(void **unused)
{
	(void)unused;
	begin(16, 3, 8);
	add_node();
	add_node();
	add_node();
	node_of(4)->reachable = false;
	settle();
	assert_int_equal(load_of(4), 0);
	node_of(2)->usable = SH_NODE_GONE;
	settle();
	assert_int_equal(load_of(2), 17); /* There is no other node for it. */
	node_of(4)->reachable = true;
	settle();
	then_good();
	assert_int_equal(load_of(2), 0);
	assert_int_equal(load_of(4), 17);
}

static void follows_the_replication_factor(void **unused)
{
	(void)unused;
	static const uint32_t factors[] = {1, 5, 2, 4, 3, 1, 3};
	begin(64, 3, 8);
	for (uint32_t i = 0; i < 5; i++) {
		add_node();
	}
	settle();
	uint32_t before = w.replication;
	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++) {
		uint32_t more = factors[i] > before ? factors[i] - before : 0;
		w.copies = 0;
		w.replication = factors[i];
		settle();
		then_good();
		assert_int_equal(w.copies, w.group_count * more);
		before = factors[i];
	}
}

static void moves_the_meta_group_first(void **unused)
{
	(void)unused;
	begin(64, 3, 1);
	add_node();
	assert_true(plan());
	assert_int_equal(w.groups[64].target.count, 2);
	assert_int_equal(w.groups[0].target.count, 1);
}

static void begins_no_more_moves_than_allowed(void **unused)
{
	(void)unused;
	begin(64, 3, 5);
	w.slow = 10; /* Nothing ever gets done. */
	add_node();
	add_node();
	plan();
	assert_int_equal(moving(), 5);
	plan();
	plan();
	assert_int_equal(moving(), 5);
	w.slow = 0;
	let_groups_move();
	assert_int_equal(moving(), 0);
	plan();
	assert_int_equal(moving(), 5);
}

static void groups_without_a_quorum_hold_nothing_up(void **unused)
{
	(void)unused;
	begin(64, 3, 2);
	for (uint32_t i = 0; i < 6; i++) {
		add_node();
	}
	settle();
	node_of(6)->usable = node_of(7)->usable = SH_NODE_AWAY;
	settle();
	uint32_t lost = 0;
	for (uint32_t i = 0; i < w.group_count; i++) {
		const struct sh_placement *target = &w.groups[i].target;
		bool both = sh_placement_has(target, 6) && sh_placement_has(target, 7);
		assert_int_equal(w.groups[i].leader == 0, both);
		assert_true(both || (!sh_placement_has(target, 6) && !sh_placement_has(target, 7)));
		lost += both;
	}
	assert_true(lost > 2);
	node_of(7)->usable = SH_NODE_USABLE;
	settle();
	then_good();
}

static void a_pinned_preference_stays_while_its_node_lives(void **unused)
{
	(void)unused;
	begin(64, 3, 8);
	for (uint32_t i = 0; i < 3; i++) {
		add_node();
	}
	settle();
	uint32_t pinned = 0;
	for (uint32_t i = 0; i < w.group_count; i++) {
		if (sh_placement_has(&w.groups[i].target, 2) && i % 2 == 0) {
			w.groups[i].target.preferred = 2;
			w.groups[i].target.pinned = true;
			pinned++;
		}
	}
	assert_true(pinned > 20);
	for (uint32_t i = 0; i < 3; i++) {
		add_node();
		settle();
		then_whole();
		then_even(false);
		assert_int_equal(leads_of(2), pinned);
	}
	w.replication = 1;
	settle();
	assert_int_equal(leads_of(2), pinned);
	node_of(2)->usable = SH_NODE_GONE;
	settle();
	then_good();
}

static void a_move_whose_node_died_goes_where_the_data_is(void **unused)
{
	(void)unused;
	begin(1, 3, 8);
	add_node();
	add_node();
	settle();
	add_node();
	add_node();
	/* Somebody wants shard 0 on 4 instead of 3, and then 4 is gone. */
	w.groups[0].target = (struct sh_placement){{1, 2, 4}, 3, 1, false};
	elect_all();
	node_of(4)->usable = SH_NODE_AWAY;
	elect_all();
	plan();
	assert_true(load_of(3) > load_of(5));
	assert_true(sh_placement_has(&w.groups[0].target, 3));
	assert_true(sh_alloc_settled(&w.groups[0]));
}

/* A node may be lost without a group losing its quorum for good. */
static bool can_spare(uint64_t node)
{
	for (uint32_t i = 0; i < w.group_count; i++) {
		uint32_t living = 0;
		for (uint32_t k = 0; k < w.groups[i].actual.count; k++) {
			uint64_t other = w.groups[i].actual.node[k];
			living += other != node && lives(other);
		}
		if (living * 2 <= w.groups[i].actual.count) {
			return false;
		}
	}
	return usable_count() > 1;
}

static void something_happens(void)
{
	struct sh_alloc_node *node = &w.nodes[rt_random_below(&w.random, w.node_count)];
	switch (rt_random_below(&w.random, 6)) {
	case 0:
	case 1:
		if (usable_count() < 20 && w.node_count < 60) {
			add_node();
		}
		break;
	case 2:
		if (node->usable == SH_NODE_USABLE && usable_count() > 1) {
			node->usable = SH_NODE_GONE;
		}
		break;
	case 3:
		if (node->usable == SH_NODE_USABLE && can_spare(node->node)) {
			node->usable = SH_NODE_AWAY;
		}
		break;
	case 4:
		if (node->usable == SH_NODE_AWAY) {
			node->usable = SH_NODE_USABLE;
		} else if (node->usable == SH_NODE_GONE && load_of(node->node) == 0 &&
			   can_spare(node->node)) {
			drop_node(node->node);
		}
		break;
	default:
		w.replication = 1 + rt_random_below(&w.random, 5);
		break;
	}
	elect_all();
}

static void reaches_an_even_state_from_anywhere(void **unused)
{
	(void)unused;
	uint64_t seed = 20260101;
	const char *given = getenv("SEED");
	uint32_t runs = given != NULL ? 1 : 60;
	seed = given != NULL ? strtoull(given, NULL, 0) : seed;
	for (uint32_t run = 0; run < runs; run++, seed++) {
		print_message("seed %" PRIu64 "\n", seed);
		rt_random_seed(&w.random, seed);
		w.random.word[0] = seed;
		begin(1 + rt_random_below(&w.random, 100), 3, 1 + rt_random_below(&w.random, 12));
		for (uint32_t step = 0; step < 30; step++) {
			something_happens();
			if (rt_random_below(&w.random, 3) == 0) {
				settle();
				then_good();
				continue;
			}
			for (uint32_t k = rt_random_below(&w.random, 5); k > 0; k--) {
				plan();
				let_groups_move();
			}
		}
	}
}

static void plans_for_the_largest_cluster(void **unused)
{
	(void)unused;
	begin(1024, 5, 256);
	w.slow = 0;
	for (uint32_t i = 1; i < 64; i++) {
		add_node();
	}
	settle();
	then_good();
	node_of(33)->usable = SH_NODE_GONE;
	settle();
	then_good();
}

static void other_strategy(const struct sh_allocation *in, struct sh_placement *next)
{
	next[0].preferred = in->nodes[0].node;
	next[0].pinned = true;
}

static void another_strategy_can_be_plugged_in(void **unused)
{
	(void)unused;
	static const struct sh_strategy other = {.name = "other", .plan = other_strategy};
	begin(4, 3, 8);
	assert_int_equal(sh_allocate(&other, view(), w.next), 1);
	assert_true(w.next[0].pinned);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_nothing_in_a_cluster_of_one),
		cmocka_unit_test(a_second_and_third_node_get_everything),
		cmocka_unit_test(a_new_node_gets_its_fair_share_and_nothing_else_moves),
		cmocka_unit_test(a_new_node_takes_over_its_share_of_leaders_only),
		cmocka_unit_test(replaces_just_what_a_lost_node_held),
		cmocka_unit_test(goes_from_1_to_3_to_5_to_3),
		cmocka_unit_test(keeps_the_place_of_the_dead_where_nobody_can_take_it),
		cmocka_unit_test(shrinks_groups_whose_dead_only_cost_votes),
		cmocka_unit_test(a_drained_node_loses_all_even_without_a_replacement),
		cmocka_unit_test(gives_nothing_to_who_is_not_reachable),
		cmocka_unit_test(follows_the_replication_factor),
		cmocka_unit_test(moves_the_meta_group_first),
		cmocka_unit_test(begins_no_more_moves_than_allowed),
		cmocka_unit_test(groups_without_a_quorum_hold_nothing_up),
		cmocka_unit_test(a_pinned_preference_stays_while_its_node_lives),
		cmocka_unit_test(a_move_whose_node_died_goes_where_the_data_is),
		cmocka_unit_test(reaches_an_even_state_from_anywhere),
		cmocka_unit_test(plans_for_the_largest_cluster),
		cmocka_unit_test(another_strategy_can_be_plugged_in),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
