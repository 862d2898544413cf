#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sharding/members.h"

static struct sh_members of(const uint64_t *nodes, uint32_t count, uint32_t voters)
{
	struct sh_members members = {0};
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(sh_members_put(&members, nodes[i], (voters >> i & 1) != 0), RT_OK);
	}
	return members;
}

static void keeps_nodes_in_order_with_their_votes(void **state)
{
	(void)state;
	uint64_t nodes[] = {30, 10, 20};
	struct sh_members members = of(nodes, 3, 0x5); /* 30 and 20 vote */
	assert_true(sh_members_valid(&members));
	assert_int_equal(members.node[0], 10);
	assert_int_equal(members.node[2], 30);
	assert_false(sh_members_votes(&members, 10));
	assert_true(sh_members_votes(&members, 20));
	assert_true(sh_members_votes(&members, 30));
	assert_false(sh_members_votes(&members, 40));
	assert_int_equal(sh_members_voter_count(&members), 2);
	assert_int_equal(sh_members_rank(&members, 20), 0);
	assert_int_equal(sh_members_rank(&members, 30), 1);
	assert_int_equal(sh_members_rank(&members, 10), 0);
}

static void equal_sets_are_equal_bytes(void **state)
{
	(void)state;
	uint64_t up[] = {1, 2, 3};
	uint64_t down[] = {3, 2, 1};
	struct sh_members a = of(up, 3, 0x7);
	struct sh_members b = of(down, 3, 0x7);
	assert_memory_equal(&a, &b, sizeof(a));
	sh_members_remove(&b, 2);
	sh_members_remove(&b, 9);
	assert_false(sh_members_equal(&a, &b));
	assert_int_equal(sh_members_put(&b, 2, true), RT_OK);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_true(sh_members_equal(&a, &b));
}

static void distance_counts_nodes_that_differ(void **state)
{
	(void)state;
	uint64_t nodes[] = {1, 2, 3};
	struct sh_members a = of(nodes, 3, 0x7);
	struct sh_members b = of(nodes, 2, 0x3);
	assert_int_equal(sh_members_distance(&a, &a), 0);
	assert_int_equal(sh_members_distance(&a, &b), 1);
	assert_int_equal(sh_members_distance(&b, &a), 1);
	assert_int_equal(sh_members_put(&b, 2, false), RT_OK);
	assert_int_equal(sh_members_distance(&a, &b), 2);
}

static void refuses_node_zero_and_too_many(void **state)
{
	(void)state;
	struct sh_members members = {0};
	assert_int_equal(sh_members_put(&members, 0, true), RT_E_INVAL);
	for (uint64_t node = 1; node <= SH_MEMBERS_MAX; node++) {
		assert_int_equal(sh_members_put(&members, node, true), RT_OK);
	}
	assert_int_equal(sh_members_put(&members, 100, true), RT_E_FULL);
	assert_int_equal(sh_members_put(&members, 3, false), RT_OK);
	assert_int_equal(sh_members_voter_count(&members), SH_MEMBERS_MAX - 1);
}

static void decodes_what_it_encodes_and_nothing_else(void **state)
{
	(void)state;
	uint64_t nodes[] = {1, 0x1122334455667788, UINT64_MAX};
	struct sh_members members = of(nodes, 3, 0x6);
	uint8_t bytes[SH_MEMBERS_BYTES + 1];
	size_t size = sh_members_encode(&members, bytes);
	struct sh_members back;
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size), &back), RT_OK);
	assert_memory_equal(&back, &members, sizeof(back));
	for (size_t cut = 0; cut < size; cut++) {
		assert_int_equal(sh_members_decode(rt_bytes_of(bytes, cut), &back), RT_E_CORRUPT);
	}
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size + 1), &back), RT_E_CORRUPT);
	bytes[1] = 0x8; /* a vote of nobody */
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size), &back), RT_E_CORRUPT);
	bytes[1] = 0x6;
	bytes[0] = SH_MEMBERS_MAX + 1;
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size), &back), RT_E_CORRUPT);
	bytes[0] = 3;
	memset(bytes + 2 + 8, 0, 8); /* node 0 in the middle */
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size), &back), RT_E_CORRUPT);
	bytes[2 + 8] = 1; /* the same node twice */
	assert_int_equal(sh_members_decode(rt_bytes_of(bytes, size), &back), RT_E_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_nodes_in_order_with_their_votes),
		cmocka_unit_test(equal_sets_are_equal_bytes),
		cmocka_unit_test(distance_counts_nodes_that_differ),
		cmocka_unit_test(refuses_node_zero_and_too_many),
		cmocka_unit_test(decodes_what_it_encodes_and_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
