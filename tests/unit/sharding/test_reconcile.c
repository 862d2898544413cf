/* The steps of a group from the members it has to those it is to have. */
#include "sharding/region_core.h"
#include "tests/support/test.h"

#define ALL 0xffu

/* One step from set ("1 2 3": voters) towards target, as seen by node 1. The set then. */
static struct sh_members step(const uint64_t *set, uint32_t count, uint32_t alive,
	const uint64_t *target, uint32_t wanted)
{
	Troupe__Cluster__Placement placement = TROUPE__CLUSTER__PLACEMENT__INIT;
	struct sh_members members = {0};
	placement.replicas = (uint64_t *)(uintptr_t)target;
	placement.n_replicas = wanted;
	for (uint32_t i = 0; i < count; i++) {
		assert_err(sh_members_put(&members, set[i], true), RT_OK);
	}
	struct sh_members before = members;
	if (!sh_reconcile_next(&placement, 1, alive, &members)) {
		assert_memory_equal(&before, &members, sizeof(members));
	}
	return members;
}
#define LIST(...) ((const uint64_t[]){__VA_ARGS__}), sizeof((uint64_t[]){__VA_ARGS__}) / 8

static void assert_voters(const struct sh_members *set, const uint64_t *nodes, uint32_t count)
{
	assert_int_equal(set->count, count);
	for (uint32_t i = 0; i < count; i++) {
		assert_true(sh_members_votes(set, nodes[i]));
	}
}

static void who_is_missing_comes_without_a_vote_first(void **state)
{
	(void)state;
	struct sh_members set = step(LIST(1, 2), ALL, LIST(1, 2, 3));
	assert_int_equal(set.count, 3);
	assert_false(sh_members_votes(&set, 3));
}

static void who_should_not_be_there_goes_when_all_others_are_there(void **state)
{
	(void)state;
	struct sh_members set = step(LIST(1, 2, 3, 4), ALL, LIST(1, 2, 4));
	assert_voters(&set, LIST(1, 2, 4));
	set = step(LIST(1, 2), ALL, LIST(2));
	assert_voters(&set, LIST(1, 2)); /* a leader hands over first */
}

/* Node 2 is dead. Without 3 the group would need it. */
static void nobody_goes_who_is_needed_for_a_majority(void **state)
{
	(void)state;
	uint32_t without_2 = ALL & ~(1u << 1);
	struct sh_members set = step(LIST(1, 2, 3), without_2, LIST(1, 2));
	assert_voters(&set, LIST(1, 2, 3));
	set = step(LIST(1, 2, 3), ALL, LIST(1, 2));
	assert_voters(&set, LIST(1, 2));
}

static void the_dead_go_before_the_living(void **state)
{
	(void)state;
	uint32_t without_3 = ALL & ~(1u << 2);
	struct sh_members set = step(LIST(1, 2, 3), without_3, LIST(1));
	assert_voters(&set, LIST(1, 2));
	set = step(LIST(1, 2), ALL, LIST(1));
	assert_voters(&set, LIST(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_missing_comes_without_a_vote_first),
		cmocka_unit_test(who_should_not_be_there_goes_when_all_others_are_there),
		cmocka_unit_test(nobody_goes_who_is_needed_for_a_majority),
		cmocka_unit_test(the_dead_go_before_the_living),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
