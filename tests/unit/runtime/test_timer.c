/* The heap against a plain list, with given time. */
#include "runtime/base/random.h"
#include "runtime/sched/sim.h"
#include "tests/support/test.h"

#define TIMERS 60u

static struct rt_timer timers[TIMERS];
static uint64_t due[TIMERS], order[TIMERS]; /* due 0: not running */
static uint64_t orders, fired, wrong;
static bool again;

static void fire(struct rt_worker *worker, struct rt_timer *timer)
{
	size_t i = (size_t)(timer - timers);
	uint64_t now = rt_worker_now_ms(worker);
	wrong += due[i] == 0 || due[i] > now;
	for (size_t k = 0; k < TIMERS; k++) {
		bool before = due[k] != 0 &&
			      (due[k] < due[i] || (due[k] == due[i] && order[k] < order[i]));
		wrong += before;
	}
	due[i] = 0;
	fired++;
	if (again && i % 4 == 0) {
		rt_timer_start(worker, timer, i % 3); /* 0: at once, but in the next round */
		due[i] = now + i % 3;
		order[i] = orders++;
	}
}

static void agrees_with_a_plain_list(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct rt_random random;
		rt_random_seed(&random, seed);
		struct rt_sim *sim = NULL;
		struct rt_system_options options = {.workers = 1};
		assert_err(rt_sim_new(&options, seed, &sim, NULL), RT_OK);
		struct rt_worker *worker = rt_system_worker(rt_sim_system(sim), 0);
		fired = wrong = orders = 0;
		again = true;
		for (size_t i = 0; i < TIMERS; i++) {
			rt_timer_init(&timers[i], fire);
			due[i] = 0;
		}
		for (int step = 0; step < 3000; step++) {
			uint32_t i = rt_random_below(&random, TIMERS);
			uint32_t what = rt_random_below(&random, 8);
			if (what < 4) {
				uint64_t after = 1 + rt_random_below(&random, 50);
				rt_timer_start(worker, &timers[i], after);
				due[i] = rt_worker_now_ms(worker) + after;
				order[i] = orders++;
			} else if (what < 6) {
				rt_timer_stop(worker, &timers[i]);
				due[i] = 0;
			} else {
				rt_sim_step(sim);
			}
		}
		again = false;
		assert_true(rt_sim_run(sim, 100000));
		for (size_t i = 0; i < TIMERS; i++) {
			assert_int_equal(due[i], 0);
		}
		assert_int_equal(wrong, 0);
		assert_true(fired > 100);
		rt_sim_free(sim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_a_plain_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
