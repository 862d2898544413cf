#include <stdlib.h>

#include "sharding/cache.h"
#include "tests/support/test.h"

/* Record i is i % 97 + 1 bytes, each of them i. */
static void put(struct sh_cache *cache, uint64_t i)
{
	uint8_t bytes[128];
	size_t size = i % 97 + 1;
	memset(bytes, (int)i, size);
	assert_err(sh_cache_reserve(cache, 1, size), RT_OK);
	sh_cache_push(cache, i, rt_bytes_of(bytes, size));
}

static void assert_there(const struct sh_cache *cache, uint64_t from, uint64_t upto)
{
	struct rt_bytes out;
	for (uint64_t i = from; i <= upto; i++) {
		assert_true(sh_cache_get(cache, i, &out));
		assert_int_equal(out.size, i % 97 + 1);
		assert_int_equal(out.data[0], (uint8_t)i);
		assert_int_equal(out.data[out.size - 1], (uint8_t)i);
	}
	assert_false(sh_cache_get(cache, from - 1, &out));
	assert_false(sh_cache_get(cache, upto + 1, &out));
}

static void holds_what_was_pushed(void **state)
{
	struct sh_cache cache = {0};
	(void)state;
	for (uint64_t i = 100; i < 5000; i++) {
		put(&cache, i);
	}
	assert_there(&cache, 100, 4999);
	sh_cache_clear(&cache);
	assert_int_equal(cache.memory, 0);
}

static void allocates_nothing_before_the_first_record_and_after_clear(void **state)
{
	struct sh_cache cache = {0};
	struct rt_bytes out;
	(void)state;
	assert_false(sh_cache_get(&cache, 1, &out));
	sh_cache_cut(&cache, 1);
	sh_cache_clear(&cache);
	put(&cache, 1);
	assert_true(cache.memory > 0);
	sh_cache_clear(&cache);
	assert_int_equal(cache.memory, 0);
	assert_null(cache.slots);
	assert_null(cache.head);
	assert_false(sh_cache_get(&cache, 1, &out));
}

static void a_window_that_slides_keeps_its_size(void **state)
{
	struct sh_cache cache = {0};
	uint64_t most = 0;
	(void)state;
	for (uint64_t i = 1; i < 100000; i++) {
		put(&cache, i);
		while (cache.count > 300) {
			sh_cache_drop(&cache);
		}
		most = cache.memory > most ? cache.memory : most;
	}
	assert_there(&cache, 99700, 99999);
	assert_true(most < 128u * 1024u);
	sh_cache_clear(&cache);
}

static void drops_to_nothing_and_goes_on_elsewhere(void **state)
{
	struct sh_cache cache = {0};
	(void)state;
	for (uint64_t i = 1; i <= 1000; i++) {
		put(&cache, i);
	}
	while (cache.count > 0) {
		sh_cache_drop(&cache);
	}
	assert_true(cache.memory < 64u * 1024u);
	put(&cache, 5000);
	put(&cache, 5001);
	assert_there(&cache, 5000, 5001);
	sh_cache_clear(&cache);
}

static void gives_a_big_record_back_with_it(void **state)
{
	struct sh_cache cache = {0};
	uint8_t *big = calloc(1, 1000000);
	(void)state;
	put(&cache, 1);
	assert_err(sh_cache_reserve(&cache, 1, 1000000), RT_OK);
	sh_cache_push(&cache, 2, rt_bytes_of(big, 1000000));
	assert_true(cache.memory > 1000000);
	sh_cache_drop(&cache);
	sh_cache_drop(&cache);
	assert_true(cache.memory < 64u * 1024u);
	put(&cache, 3);
	assert_there(&cache, 3, 3);
	sh_cache_clear(&cache);
	free(big);
}

static void a_cut_takes_back_the_newest(void **state)
{
	struct sh_cache cache = {0};
	(void)state;
	for (uint64_t cut = 1; cut <= 400; cut += 7) {
		for (uint64_t i = 1; i <= 400; i++) {
			put(&cache, i);
		}
		for (uint64_t i = 1; i < cut && i <= 20; i++) {
			sh_cache_drop(&cache);
		}
		sh_cache_cut(&cache, 401);
		assert_int_equal(cache.first + cache.count, 401);
		sh_cache_cut(&cache, cut);
		for (uint64_t i = cut; i <= 500; i++) {
			put(&cache, i);
		}
		assert_there(&cache, cut <= 20 ? cut : 21, 500);
		sh_cache_cut(&cache, 0);
		assert_int_equal(cache.count, 0);
	}
	sh_cache_clear(&cache);
}

/* A message is reserved for before it is known what it cuts off. */
static void a_cut_leaves_what_was_reserved(void **state)
{
	struct sh_cache cache = {0};
	uint8_t bytes[50] = {0};
	(void)state;
	for (uint64_t cut = 1; cut <= 101; cut++) {
		for (uint64_t i = 1; i <= 100; i++) {
			put(&cache, i);
		}
		assert_err(sh_cache_reserve(&cache, 2000, 2000 * sizeof(bytes)), RT_OK);
		sh_cache_cut(&cache, cut);
		for (uint64_t i = cut; i < cut + 2000; i++) {
			sh_cache_push(&cache, i, rt_bytes_of(bytes, sizeof(bytes)));
		}
		sh_cache_clear(&cache);
	}
}

static void random_use_equals_an_array(void **state)
{
	struct sh_cache cache = {0};
	uint64_t first = 1;
	uint64_t end = 1;
	uint32_t random = 12345;
	(void)state;
	for (int step = 0; step < 20000; step++) {
		random = random * 1664525u + 1013904223u;
		uint32_t what = random >> 16;
		if (what % 8 < 5) {
			put(&cache, end++);
		} else if (what % 8 < 7 && first < end) {
			sh_cache_drop(&cache);
			first++;
		} else if (first < end) {
			end = first + (what >> 3) % (end - first + 1);
			sh_cache_cut(&cache, end);
		}
		assert_int_equal(cache.count, end - first);
		if (first < end) {
			assert_there(&cache, first, end - 1);
		}
	}
	sh_cache_clear(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_what_was_pushed),
		cmocka_unit_test(allocates_nothing_before_the_first_record_and_after_clear),
		cmocka_unit_test(a_window_that_slides_keeps_its_size),
		cmocka_unit_test(drops_to_nothing_and_goes_on_elsewhere),
		cmocka_unit_test(gives_a_big_record_back_with_it),
		cmocka_unit_test(a_cut_takes_back_the_newest),
		cmocka_unit_test(a_cut_leaves_what_was_reserved),
		cmocka_unit_test(random_use_equals_an_array),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
