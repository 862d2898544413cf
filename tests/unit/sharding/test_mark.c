#include <stdlib.h>

#include "runtime/base/hash.h"
#include "sharding/mark.h"
#include "tests/support/test.h"

static struct sh_members three(uint64_t a)
{
	struct sh_members members = {0};
	assert_err(sh_members_put(&members, a, true), RT_OK);
	assert_err(sh_members_put(&members, a + 1, true), RT_OK);
	assert_err(sh_members_put(&members, a + 5, false), RT_OK);
	return members;
}

static const struct sh_raft_run some_runs[] = {{11, 4}, {12, 7}, {90, 8}};
static struct sh_raft_set some_sets[2];

static struct sh_mark example(void)
{
	some_sets[0] = (struct sh_raft_set){20, three(3)};
	some_sets[1] = (struct sh_raft_set){100, three(9)};
	return (struct sh_mark){.state = SH_MARK_NORMAL,
		.floor = 10,
		.floor_term = 3,
		.mark = 100,
		.base = {5, three(1)},
		.sets = some_sets,
		.runs = some_runs,
		.set_count = 2,
		.run_count = 3};
}

/* Encodes what may be wrong, with a hash that is right. */
static rt_err decode_of(const struct sh_mark *mark)
{
	struct rt_bytes bytes;
	struct sh_mark out = {0};
	assert_err(sh_mark_encode(mark, &bytes), RT_OK);
	rt_err err = sh_mark_decode(bytes, &out);
	if (err == RT_OK) {
		sh_mark_clear(&out);
	}
	free((void *)(uintptr_t)bytes.data);
	return err;
}

static void comes_back_as_it_was_written(void **state)
{
	struct sh_mark mark = example();
	struct sh_mark out;
	struct rt_bytes bytes;
	(void)state;
	assert_err(sh_mark_encode(&mark, &bytes), RT_OK);
	assert_err(sh_mark_decode(bytes, &out), RT_OK);
	assert_int_equal(out.state, SH_MARK_NORMAL);
	assert_int_equal(out.floor, 10);
	assert_int_equal(out.floor_term, 3);
	assert_int_equal(out.mark, 100);
	assert_int_equal(out.base.index, 5);
	assert_true(sh_members_equal(&out.base.members, &mark.base.members));
	assert_int_equal(out.set_count, 2);
	assert_int_equal(out.sets[1].index, 100);
	assert_true(sh_members_equal(&out.sets[1].members, &some_sets[1].members));
	assert_int_equal(out.run_count, 3);
	assert_memory_equal(out.runs, some_runs, sizeof(some_runs));
	sh_mark_clear(&out);
	free((void *)(uintptr_t)bytes.data);
	for (int s = 0; s < SH_MARK_STATES; s++) {
		mark = (struct sh_mark){.state = (enum sh_mark_state)s};
		assert_err(decode_of(&mark), RT_OK);
	}
}

static void damage_of_any_bit_is_seen(void **state)
{
	struct sh_mark mark = example();
	struct sh_mark out;
	struct rt_bytes bytes;
	(void)state;
	assert_err(sh_mark_encode(&mark, &bytes), RT_OK);
	uint8_t *copy = malloc(bytes.size + 8);
	for (size_t i = 0; i < bytes.size * 8; i++) {
		memcpy(copy, bytes.data, bytes.size);
		copy[i / 8] = (uint8_t)(copy[i / 8] ^ 1u << i % 8);
		assert_err(sh_mark_decode(rt_bytes_of(copy, bytes.size), &out), RT_E_CORRUPT);
	}
	for (size_t size = 0; size < bytes.size; size++) {
		uint8_t *exact = malloc(size + 1); /* A reader beyond the end is seen. */
		memcpy(exact, bytes.data, size);
		assert_err(sh_mark_decode(rt_bytes_of(exact, size), &out), RT_E_CORRUPT);
		free(exact);
	}
	memcpy(copy, bytes.data, bytes.size);
	copy[bytes.size] = 0;
	assert_err(sh_mark_decode(rt_bytes_of(copy, bytes.size + 1), &out), RT_E_CORRUPT);
	free(copy);
	free((void *)(uintptr_t)bytes.data);
}

/* The hash is right, what it covers is not: every byte in turn, and all lengths. */
static void nonsense_with_a_good_hash_is_refused_or_consistent(void **state)
{
	struct sh_mark mark = example();
	struct rt_bytes bytes;
	uint32_t refused = 0;
	(void)state;
	assert_err(sh_mark_encode(&mark, &bytes), RT_OK);
	for (size_t i = 0; i < (bytes.size - 8) * 256; i++) {
		size_t cut = i % 3 == 0 ? 0 : i % (bytes.size - 8);
		size_t size = bytes.size - 8 - cut;
		uint8_t *copy = malloc(size + 8);
		memcpy(copy, bytes.data, size);
		if (i / 256 < size) {
			copy[i / 256] = (uint8_t)i;
		}
		uint64_t hash = rt_hash(copy, size);
		memcpy(copy + size, &hash, 8);
		struct sh_mark out = {0};
		rt_err err = sh_mark_decode(rt_bytes_of(copy, size + 8), &out);
		refused += err == RT_E_CORRUPT;
		if (err == RT_OK) {
			assert_true(out.floor <= out.mark);
			for (uint32_t r = 0; r < out.run_count; r++) {
				assert_true(out.runs[r].first <= out.mark);
			}
			sh_mark_clear(&out);
		}
		free(copy);
	}
	assert_true(refused > 1000);
	free((void *)(uintptr_t)bytes.data);
}

static void each_contradiction_is_refused(void **state)
{
	struct sh_raft_run runs[2] = {{11, 4}, {12, 5}};
	struct sh_raft_set sets[2] = {{20, three(3)}, {30, three(4)}};
	struct sh_mark good = example();
	(void)state;
	good.sets = sets;
	good.runs = runs;
	good.run_count = 2;
	assert_err(decode_of(&good), RT_OK);
	struct sh_mark bad = good;
	bad.mark = 9; /* below the floor */
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	bad = good;
	bad.floor_term = 0;
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	bad = good;
	bad.base.index = 11; /* above the floor */
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	bad = good;
	bad.floor = 11; /* the first run is not above it */
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	runs[1].first = 11;
	assert_err(decode_of(&good), RT_E_CORRUPT);
	runs[1].first = 101; /* above the mark */
	assert_err(decode_of(&good), RT_E_CORRUPT);
	runs[1] = (struct sh_raft_run){12, 4}; /* not a change */
	assert_err(decode_of(&good), RT_E_CORRUPT);
	runs[1].term = 5;
	sets[1].index = 20;
	assert_err(decode_of(&good), RT_E_CORRUPT);
	sets[1].index = 101;
	assert_err(decode_of(&good), RT_E_CORRUPT);
	sets[1].index = 100;
	assert_err(decode_of(&good), RT_OK);
	sets[0].members = (struct sh_members){0}; /* an entry of no members */
	assert_err(decode_of(&good), RT_E_CORRUPT);
	/* Entries of a log that begins at 1 have a term. */
	bad = (struct sh_mark){.mark = 5, .runs = runs};
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	runs[0] = (struct sh_raft_run){2, 1};
	bad.run_count = 1;
	assert_err(decode_of(&bad), RT_E_CORRUPT);
	runs[0].first = 1;
	assert_err(decode_of(&bad), RT_OK);
}

static void hard_state_is_sixteen_bytes(void **state)
{
	uint8_t key[SH_KEY_BYTES];
	uint8_t row[SH_HARD_BYTES];
	uint64_t term;
	uint64_t vote;
	(void)state;
	struct rt_bytes view = sh_mark_hard_key(0x1234, key);
	assert_memory_equal(view.data, "hard\x12\x34", 6);
	view = sh_mark_key(7, key);
	assert_memory_equal(view.data, "raft\0\7", 6);
	sh_mark_hard_encode(0x1122334455667788, 3, row);
	assert_int_equal(row[0], 0x88);
	assert_err(sh_mark_hard_decode(rt_bytes_of(row, 16), &term, &vote), RT_OK);
	assert_true(term == 0x1122334455667788 && vote == 3);
	assert_err(sh_mark_hard_decode(rt_bytes_of(row, 15), &term, &vote), RT_E_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back_as_it_was_written),
		cmocka_unit_test(damage_of_any_bit_is_seen),
		cmocka_unit_test(nonsense_with_a_good_hash_is_refused_or_consistent),
		cmocka_unit_test(each_contradiction_is_refused),
		cmocka_unit_test(hard_state_is_sixteen_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
