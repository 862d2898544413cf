#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/hist.h"
#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "tests/support/test.h"

/* MurmurHash64A, seed 0. These numbers are on users' disks. */
static void hash_never_changes(void **state)
{
	(void)state;
	assert_int_equal(rt_hash("", 0), 0);
	assert_int_equal(rt_hash("a", 1), UINT64_C(0x071717d2d36b6b11));
	assert_int_equal(rt_hash("account|x", 9), UINT64_C(0xa9d75a0f3683bd48));
	assert_int_equal(rt_hash("hello, world of actors", 22), UINT64_C(0x2a57900e4bcafc72));
}

static void hash_spreads_ids_over_64_shards(void **state)
{
	(void)state;
	unsigned count[64] = {0};
	for (int i = 0; i < 64000; i++) {
		char id[32];
		int n = snprintf(id, sizeof(id), "account|%d", i);
		count[rt_hash(id, (size_t)n) % 64]++;
	}
	for (int i = 0; i < 64; i++) {
		assert_in_range(count[i], 850, 1150);
	}
}

static void same_seed_same_numbers(void **state)
{
	(void)state;
	struct rt_random a, b, c;
	rt_random_seed(&a, 42);
	rt_random_seed(&b, 42);
	rt_random_seed(&c, 43);
	bool differs = false;
	for (int i = 0; i < 100; i++) {
		uint64_t x = rt_random_next(&a);
		assert_int_equal(x, rt_random_next(&b));
		differs |= x != rt_random_next(&c);
		assert_in_range(rt_random_below(&a, 7), 0, 6);
		(void)rt_random_next(&b);
	}
	assert_true(differs);
	uint64_t zero = 0;
	assert_int_equal(rt_random_splitmix(&zero), UINT64_C(0xe220a8397b1dcdaf));
}

static void arena_stops_at_its_limit(void **state)
{
	(void)state;
	struct rt_arena arena;
	rt_arena_init(&arena, 1024, 10000);
	size_t got = 0;
	char *last = NULL;
	while ((last = rt_arena_alloc(&arena, 100)) != NULL) {
		assert_int_equal((uintptr_t)last % 16, 0);
		memset(last, 0xab, 100);
		got++;
	}
	assert_int_equal(got, 10000 / 112);
	assert_null(rt_arena_alloc(&arena, SIZE_MAX - 8));
	rt_arena_reset(&arena);
	assert_null(rt_arena_alloc(&arena, 10001));
	char *big = rt_arena_alloc(&arena, 9000);
	assert_non_null(big);
	memset(big, 1, 9000);
	rt_arena_done(&arena);
}

static void arena_copies_with_a_zero_behind(void **state)
{
	(void)state;
	struct rt_arena arena;
	rt_arena_init(&arena, 0, 0);
	for (int round = 0; round < 3; round++) {
		for (size_t size = 0; size < 40000; size = size * 2 + 1) {
			char *bytes = calloc(1, size + 1);
			memset(bytes, 'x', size);
			char *copy = rt_arena_copy(&arena, bytes, size);
			assert_int_equal(strlen(copy), size);
			free(bytes);
		}
		rt_arena_reset(&arena);
	}
	rt_arena_done(&arena);
}

static void percentiles_are_within_a_bucket(void **state)
{
	(void)state;
	static struct rt_hist a, b;
	rt_hist_reset(&a);
	rt_hist_reset(&b);
	assert_int_equal(rt_hist_percentile(&a, 50), 0);
	for (uint64_t i = 1; i <= 1000000; i++) {
		rt_hist_add(i % 2 != 0 ? &a : &b, i);
	}
	rt_hist_merge(&a, &b);
	assert_int_equal(a.count, 1000000);
	assert_in_range(rt_hist_percentile(&a, 50), 500000, 516000);
	assert_in_range(rt_hist_percentile(&a, 99.9), 999000, 1000000);
	assert_int_equal(rt_hist_percentile(&a, 100), 1000000);
	assert_int_equal(a.min, 1);
	rt_hist_add(&a, UINT64_MAX);
	assert_int_equal(rt_hist_percentile(&a, 100), UINT64_MAX);
}

static char seen[8192];
static void sink(void *arg, const char *line)
{
	(void)arg;
	snprintf(seen, sizeof(seen), "%s", line);
}

static void log_lines_cannot_be_forged(void **state)
{
	(void)state;
	rt_log_set_sink(sink, NULL);
	rt_log(RT_LOG_WARN, "store", "opened %s", "a\"\nlevel=error\x1b[31m \xc3\xa4 \xff\xc2\x9b");
	assert_non_null(
		strstr(seen, " level=warn module=store msg=\"opened a\\\"\\nlevel=error\\x1b[31m "
			     "\xc3\xa4 \\xff\\xc2\\x9b\"\n"));
	assert_ptr_equal(strchr(seen, '\n'), seen + strlen(seen) - 1);
	char longer[3000];
	memset(longer, 1, sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	rt_log(RT_LOG_WARN, "store", "%s", longer);
	assert_non_null(strstr(seen, "\\x01...\"\n"));
	seen[0] = '\0';
	rt_log(RT_LOG_DEBUG, "store", "quiet");
	assert_string_equal(seen, "");
	enum rt_log_level level = RT_LOG_OFF;
	assert_true(rt_log_level_parse("debug", &level));
	assert_int_equal(level, RT_LOG_DEBUG);
	assert_false(rt_log_level_parse("loud", &level));
	rt_log_set_sink(NULL, NULL);
}

static void clocks_go_forward(void **state)
{
	(void)state;
	uint64_t before = rt_clock_now_ns();
	assert_true(rt_clock_now_ns() >= before);
	assert_true(rt_clock_wall_ms() > UINT64_C(1700000000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_never_changes),
		cmocka_unit_test(hash_spreads_ids_over_64_shards),
		cmocka_unit_test(same_seed_same_numbers),
		cmocka_unit_test(arena_stops_at_its_limit),
		cmocka_unit_test(arena_copies_with_a_zero_behind),
		cmocka_unit_test(percentiles_are_within_a_bucket),
		cmocka_unit_test(log_lines_cannot_be_forged),
		cmocka_unit_test(clocks_go_forward),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
