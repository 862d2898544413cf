#include <stdlib.h>

#include "actors/unindexed.h"
#include "runtime/base/random.h"
#include "tests/support/test.h"

enum {
	STEPS = 30000,
	HASHES = 20
};

/* Random adds, prunes and looks against a plain array. */
static void finds_what_the_index_may_not_have(void **state)
{
	(void)state;
	static uint64_t at[STEPS + 1]; /* hash by offset, 0: none */
	struct ac_unindexed list = {0};
	struct rt_random random;
	uint64_t last = 0, watermark = 0;
	rt_random_seed(&random, 5);
	for (int step = 0; step < STEPS; step++) {
		uint32_t dice = rt_random_below(&random, 200);
		if (dice < 150) {
			last++; /* not every record is of an entity */
			at[last] = rt_random_below(&random, HASHES);
			if (at[last] != 0) {
				ac_unindexed_add(&list, last, at[last]);
			}
			continue;
		}
		if (dice == 150) {
			watermark += rt_random_below(&random, (uint32_t)(last - watermark) + 1);
			ac_unindexed_prune(&list, watermark);
		}
		uint64_t hash = 1 + rt_random_below(&random, HASHES), *found = NULL;
		uint32_t count = ac_unindexed_find(&list, hash, &found), seen = 0;
		for (uint64_t offset = watermark + 1; offset <= last; offset++) {
			if (at[offset] == hash) {
				assert_true(seen < count);
				assert_int_equal(found[seen++], offset);
			}
		}
		assert_int_equal(seen, count);
		free(found);
	}
	ac_unindexed_clear(&list);
}

static void gives_its_memory_back_when_all_is_indexed(void **state)
{
	(void)state;
	struct ac_unindexed list = {0};
	for (uint64_t offset = 1; offset <= 1000; offset++) {
		ac_unindexed_add(&list, offset, offset);
	}
	ac_unindexed_prune(&list, 999);
	assert_int_equal(list.count, 1);
	assert_non_null(list.rows);
	ac_unindexed_prune(&list, 1000);
	assert_null(list.rows);
	ac_unindexed_add(&list, 1, 1); /* of another log */
	ac_unindexed_clear(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_the_index_may_not_have),
		cmocka_unit_test(gives_its_memory_back_when_all_is_indexed),
	};
	return cmocka_run_group_tests_name("actors/unindexed", tests, NULL, NULL);
}
