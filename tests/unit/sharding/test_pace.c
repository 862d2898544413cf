/* How fast logs are read for peers that are behind. */
#include "sharding/pace.h"
#include "tests/support/test.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)
#define PIECE  (256u * 1024u)

/* Pieces of so many records, read in so long by one that tries every `step` and takes what it may.
 */
static uint32_t small_pieces(struct sh_pace *pace, uint64_t from, uint64_t ns, uint64_t step,
	bool busy, uint32_t records)
{
	uint32_t count = 0;
	for (uint64_t now = from; now < from + ns; now += step) {
		if (busy) {
			sh_pace_busy(pace, now);
		}
		for (uint32_t i = 0; i < 1000 && sh_pace_may(pace, now); i++) {
			sh_pace_took(pace, now, records, PIECE);
			count++;
		}
	}
	return count;
}

static uint32_t pieces(struct sh_pace *pace, uint64_t from, uint64_t ns, uint64_t step, bool busy)
{
	return small_pieces(pace, from, ns, step, busy, 0);
}

static void a_busy_node_reads_so_much_a_second(void **state)
{
	(void)state;
	static const uint64_t steps[] = {1 * MS, 15 * MS, 100 * MS};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct sh_pace pace = {0};
		uint32_t count = pieces(&pace, 7 * SECOND, 10 * SECOND, steps[i], true);
		/* 64 a second, and what the burst allows. */
		assert_in_range(count, 630, 650);
	}
}

static void many_small_records_cost_more(void **state)
{
	(void)state;
	struct sh_pace pace = {0};
	uint32_t records = PIECE / SH_PACE_RECORD;
	uint32_t count = small_pieces(&pace, 7 * SECOND, 10 * SECOND, 15 * MS, true, records);
	assert_in_range(count, 315, 325);
}

static void an_idle_node_reads_without_a_limit(void **state)
{
	(void)state;
	struct sh_pace pace = {0};
	assert_int_equal(pieces(&pace, 7 * SECOND, SECOND, 100 * MS, false), 10 * 1000);
	sh_pace_busy(&pace, 8 * SECOND);
	assert_false(sh_pace_may(&pace, 8 * SECOND));
	assert_false(sh_pace_may(&pace, 9 * SECOND));
	assert_true(sh_pace_may(&pace, 9 * SECOND + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_busy_node_reads_so_much_a_second),
		cmocka_unit_test(many_small_records_cost_more),
		cmocka_unit_test(an_idle_node_reads_without_a_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
