#include <string.h>

#include "runtime/base/random.h"
#include "runtime/sched/call.h"
#include "runtime/sched/lane.h"
#include "tests/support/test.h"

static void lane_is_fifo_bounded_and_shows_what_is_published(void **state)
{
	(void)state;
	struct rt_random random;
	rt_random_seed(&random, 7);
	for (uint32_t slots = 1; slots <= 64; slots *= 4) {
		struct rt_lane lane;
		assert_err(rt_lane_init(&lane, slots), RT_OK);
		uint64_t put = 0, published = 0, got = 0, released = 0;
		for (int step = 0; step < 20000; step++) {
			struct rt_envelope env = {.ask = put};
			switch (rt_random_below(&random, 5)) {
			case 0:
			case 1:
				assert_int_equal(rt_lane_has_room(&lane), put - released < slots);
				if (rt_lane_has_room(&lane)) {
					rt_lane_put(&lane, &env);
					put++;
				}
				break;
			case 2:
				assert_int_equal(rt_lane_publish(&lane), put != published);
				published = put;
				break;
			case 3:
				rt_lane_look(&lane);
				for (; rt_lane_peek(&lane) != NULL; rt_lane_next(&lane)) {
					assert_int_equal(rt_lane_peek(&lane)->ask, got);
					got++;
				}
				assert_int_equal(got, published);
				break;
			default:
				rt_lane_release(&lane);
				released = got;
				break;
			}
		}
		assert_true(got > slots);
		rt_lane_done(&lane);
	}
}

static void exactly_one_caller_wakes_a_parked_worker(void **state)
{
	(void)state;
	_Atomic uint64_t word = 0;
	assert_int_equal(rt_call_take(&word), 0);
	assert_false(rt_call_ring(&word, RT_CALL_LANE(3)));
	assert_false(rt_call_park(&word)); /* somebody has called */
	assert_int_equal(rt_call_take(&word), RT_CALL_LANE(3));
	assert_true(rt_call_park(&word));
	assert_true(rt_call_ring(&word, RT_CALL_POST));
	assert_false(rt_call_ring(&word, RT_CALL_LANE(0)));
	assert_int_equal(rt_call_take(&word), RT_CALL_POST | RT_CALL_LANE(0));
	assert_true(rt_call_park(&word));
	rt_call_unpark(&word); /* a timer woke it */
	assert_false(rt_call_ring(&word, RT_CALL_LANE(RT_WORKERS_MAX - 1)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lane_is_fifo_bounded_and_shows_what_is_published),
		cmocka_unit_test(exactly_one_caller_wakes_a_parked_worker),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
