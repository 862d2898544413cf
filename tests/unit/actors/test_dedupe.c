#include <stdio.h>
#include <string.h>

#include "actors/dedupe.h"
#include "runtime/base/random.h"
#include "tests/support/test.h"

static struct ac_key key_of(uint64_t n, char *text)
{
	int size = sprintf(text, "command-%llu", (unsigned long long)n);
	return ac_key_of(rt_bytes_of(text, (size_t)size));
}

static void finds_every_recent_id_with_its_offset(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	char text[64];
	ac_dedupe_init(&dedupe, 1000000);
	dedupe.complete = true;
	for (uint64_t i = 1; i <= 20000; i++) {
		struct ac_key key = key_of(i, text);
		uint64_t offset;
		assert_int_not_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_RECENT);
		ac_dedupe_add(&dedupe, &key, i);
	}
	for (uint64_t i = 1; i <= 20000; i++) {
		struct ac_key key = key_of(i, text);
		uint64_t offset = 0;
		assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_RECENT);
		assert_int_equal(offset, i);
	}
	ac_dedupe_done(&dedupe);
}

/* Random adds and prunes against a plain array: what is above the watermark is exact, what is at or
 * below it is never called new. */
static void forgets_exactly_what_the_index_has(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	struct rt_random random;
	char text[64];
	rt_random_seed(&random, 11);
	ac_dedupe_init(&dedupe, 1000000);
	dedupe.complete = true;
	uint64_t tail = 0, watermark = 0;
	for (int step = 0; step < 2000; step++) {
		for (uint32_t n = rt_random_below(&random, 40); n > 0; n--) {
			tail++;
			struct ac_key key = key_of(tail, text);
			ac_dedupe_add(&dedupe, &key, tail);
		}
		if (tail > watermark) {
			watermark += rt_random_below(&random, (uint32_t)(tail - watermark) + 1);
		}
		ac_dedupe_prune(&dedupe, watermark);
		assert_int_equal(dedupe.order_count, tail - watermark);
		uint64_t probe = 1 + rt_random_below(&random, (uint32_t)tail + 1);
		struct ac_key key = key_of(probe, text);
		uint64_t offset = 0;
		enum ac_seen seen = ac_dedupe_find(&dedupe, &key, &offset);
		if (probe <= watermark) {
			assert_int_equal(seen, AC_SEEN_PERHAPS);
		} else if (probe <= tail) {
			assert_int_equal(seen, AC_SEEN_RECENT);
			assert_int_equal(offset, probe);
		}
	}
	ac_dedupe_done(&dedupe);
}

static void a_fresh_id_seldom_needs_the_disk(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	char text[64];
	ac_dedupe_init(&dedupe, 1u << 20);
	dedupe.complete = true;
	for (uint64_t i = 1; i <= (1u << 20); i++) {
		struct ac_key key = key_of(i, text);
		ac_dedupe_add(&dedupe, &key, i);
		ac_dedupe_prune(&dedupe, i);
	}
	unsigned alarms = 0;
	for (uint64_t i = 0; i < 100000; i++) {
		struct ac_key key = key_of(UINT64_C(1) << 40 | i, text);
		uint64_t offset;
		alarms += ac_dedupe_find(&dedupe, &key, &offset) != AC_SEEN_NEVER;
	}
	assert_true(alarms < 6000); /* a full generation: 3 to 5 in a hundred */
	ac_dedupe_done(&dedupe);
}

static void an_incomplete_filter_never_says_never(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	char text[64];
	ac_dedupe_init(&dedupe, 1000);
	struct ac_key key = key_of(1, text);
	uint64_t offset;
	assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_PERHAPS);
	ac_dedupe_done(&dedupe);
}

static void keeps_one_whole_window_through_generations(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	char text[64];
	ac_dedupe_init(&dedupe, 1000);
	dedupe.complete = true;
	for (uint64_t i = 1; i <= 5500; i++) {
		struct ac_key key = key_of(i, text);
		ac_dedupe_add(&dedupe, &key, i);
		ac_dedupe_prune(&dedupe, i);
	}
	for (uint64_t i = 4501; i <= 5500; i++) {
		struct ac_key key = key_of(i, text);
		uint64_t offset;
		assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_PERHAPS);
	}
	ac_dedupe_done(&dedupe);
}

static void long_ids_keep_apart(void **state)
{
	(void)state;
	char a[40], b[40];
	memset(a, 'x', sizeof(a));
	memcpy(b, a, sizeof(b));
	b[39] = 'y';
	struct ac_key ka = ac_key_of(rt_bytes_of(a, sizeof(a)));
	struct ac_key kb = ac_key_of(rt_bytes_of(b, sizeof(b)));
	assert_memory_not_equal(ka.bytes, kb.bytes, AC_KEY_BYTES);
}

/* Random adds, prunes and cuts against a plain array, few ids so that they come back: an id that
 * was cut off is as it was before, one below is still exact. */
static void a_tail_that_is_cut_off_was_never_seen(void **state)
{
	(void)state;
	enum {
		IDS = 400,
		STEPS = 20000
	};
	struct ac_dedupe dedupe;
	struct rt_random random;
	static uint64_t at[STEPS + 1]; /* id by offset */
	char text[64];
	uint64_t last = 0, pruned = 0;
	rt_random_seed(&random, 11);
	ac_dedupe_init(&dedupe, 1000);
	for (int step = 0; step < STEPS; step++) {
		uint64_t dice = rt_random_below(&random, 100);
		if (dice < 90) {
			at[++last] = 1 + rt_random_below(&random, IDS);
			struct ac_key key = key_of(at[last], text);
			ac_dedupe_add(&dedupe, &key, last);
		} else if (dice < 96) {
			uint64_t back = rt_random_below(&random, 40);
			last = last > pruned + back ? last - back : last;
			ac_dedupe_cut(&dedupe, last + 1);
		} else {
			pruned = last > pruned + 60 ? last - 60 : pruned;
			ac_dedupe_prune(&dedupe, pruned);
		}
		uint64_t id = 1 + rt_random_below(&random, IDS), expected = 0, offset = 0;
		for (uint64_t i = pruned + 1; i <= last; i++) {
			expected = at[i] == id ? i : expected;
		}
		struct ac_key key = key_of(id, text);
		enum ac_seen seen = ac_dedupe_find(&dedupe, &key, &offset);
		assert_int_equal(seen == AC_SEEN_RECENT, expected != 0);
		assert_int_equal(offset, expected);
	}
	ac_dedupe_cut(&dedupe, 1);
	assert_int_equal(dedupe.order_count, 0);
	ac_dedupe_done(&dedupe);
}

static void a_reset_table_knows_nothing_and_says_so(void **state)
{
	(void)state;
	struct ac_dedupe dedupe;
	char text[64];
	uint64_t offset;
	ac_dedupe_init(&dedupe, 1000);
	dedupe.complete = true;
	ac_dedupe_cut(&dedupe, 1);
	struct ac_key key = key_of(1, text);
	ac_dedupe_add(&dedupe, &key, 900);
	ac_dedupe_reset(&dedupe);
	assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_PERHAPS);
	ac_dedupe_add(&dedupe, &key, 1); /* offsets begin anew */
	assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_RECENT);
	ac_dedupe_reset(&dedupe);
	dedupe.complete = true;
	assert_int_equal(ac_dedupe_find(&dedupe, &key, &offset), AC_SEEN_NEVER);
	ac_dedupe_done(&dedupe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_every_recent_id_with_its_offset),
		cmocka_unit_test(forgets_exactly_what_the_index_has),
		cmocka_unit_test(a_fresh_id_seldom_needs_the_disk),
		cmocka_unit_test(an_incomplete_filter_never_says_never),
		cmocka_unit_test(keeps_one_whole_window_through_generations),
		cmocka_unit_test(long_ids_keep_apart),
		cmocka_unit_test(a_tail_that_is_cut_off_was_never_seen),
		cmocka_unit_test(a_reset_table_knows_nothing_and_says_so),
	};
	return cmocka_run_group_tests_name("actors/dedupe", tests, NULL, NULL);
}
