/* Systems that are stopped while outside threads post, timers fire and actors talk: every accepted
 * post runs exactly once, in order per thread, and nothing leaks. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/sched/actor.h"

#define ROUNDS  30u
#define WORKERS 2u
#define OUTSIDE 3u
#define POSTS   400u

static _Atomic unsigned go_on;

static void check(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "stress_stop: %s\n", what);
		abort();
	}
}

struct outside;

struct number {
	struct rt_post post;
	struct outside *owner;
	uint32_t seq;
	bool accepted;
	unsigned runs;
};

struct outside {
	uv_thread_t thread;
	struct rt_system *system;
	uint32_t last[WORKERS]; /* the worker's */
	struct number numbers[POSTS];
};

static void run_number(struct rt_worker *worker, struct rt_post *post)
{
	struct number *number = (struct number *)post;
	uint32_t *last = &number->owner->last[rt_worker_index(worker)];
	check(number->seq > *last, "posts of one thread out of order");
	*last = number->seq;
	number->runs++;
}

static void outside_main(void *arg)
{
	struct outside *outside = arg;
	for (uint32_t i = 0; i < POSTS; i++) {
		struct number *number = &outside->numbers[i];
		*number = (struct number){
			.post = {.run = run_number}, .owner = outside, .seq = i + 1};
		struct rt_worker *worker = rt_system_worker(outside->system, i / 10 % WORKERS);
		if (i % 3 == 0) {
			rt_worker_post_always(worker, &number->post);
			number->accepted = true;
		} else {
			number->accepted = rt_worker_post(worker, &number->post) == RT_OK;
		}
		if (i == POSTS / 2) {
			atomic_fetch_add(&go_on, 1);
		}
	}
}

enum {
	BALL = 1
};

/* Never ends by itself. */
static enum rt_turn turn(struct rt_actor *self, struct rt_envelope *env)
{
	uint64_t *left = rt_actor_state(self);
	if (++*left > 2000) {
		return RT_DONE;
	}
	return rt_tell(self, env->from, BALL, NULL, 0) == RT_OK ? RT_DONE : RT_AGAIN;
}

static const struct rt_behaviour player = {
	.name = "player", .turn = turn, .state_size = sizeof(uint64_t)};

static void again(struct rt_worker *worker, struct rt_timer *timer)
{
	rt_timer_start(worker, timer, 0);
}

static void start_timer(struct rt_worker *worker, struct rt_post *post)
{
	struct rt_timer *timer = (struct rt_timer *)(void *)(post + 1);
	rt_timer_init(timer, again);
	rt_timer_start(worker, timer, 0);
}

static struct outside outside[OUTSIDE];

static void round_of(unsigned round)
{
	struct rt_system_options options = {
		.workers = WORKERS, .spin_us = round % 2 != 0 ? RT_SPIN_NONE : 5, .posts_max = 32};
	struct rt_system *system = NULL;
	struct rt_errinfo info;
	check(rt_system_new(&options, &system, &info) == RT_OK, "new");
	struct rt_ref ref[2];
	for (uint32_t i = 0; i < 2; i++) {
		check(rt_spawn(rt_system_worker(system, i), &player, NULL, &ref[i]) == RT_OK,
			"spawn");
	}
	struct rt_envelope *env = rt_envelope_new(rt_system_worker(system, 0), BALL);
	env->from = ref[0];
	env->to = ref[1];
	check(rt_send(rt_system_worker(system, 0), env) == RT_OK, "send");
	static struct {
		struct rt_post post;
		struct rt_timer timer;
	} ticking;
	ticking.post = (struct rt_post){.run = start_timer};
	if (round % 10 == 0) { /* such a worker is never idle: stop waits and gives up */
		rt_worker_post_always(rt_system_worker(system, 0), &ticking.post);
	}
	check(rt_system_start(system, &info) == RT_OK, "start");
	atomic_store(&go_on, 0);
	for (unsigned i = 0; i < OUTSIDE; i++) {
		outside[i] = (struct outside){.system = system};
		uv_thread_create(&outside[i].thread, outside_main, &outside[i]);
	}
	while (atomic_load(&go_on) == 0) {
		uv_sleep(1);
	}
	rt_system_stop(system);
	for (unsigned i = 0; i < OUTSIDE; i++) {
		uv_thread_join(&outside[i].thread);
	}
	rt_system_free(system);
	for (unsigned i = 0; i < OUTSIDE; i++) {
		for (unsigned k = 0; k < POSTS; k++) {
			const struct number *number = &outside[i].numbers[k];
			check(number->runs == (number->accepted ? 1 : 0),
				"a post ran twice or never");
		}
	}
}

int main(void)
{
	for (unsigned round = 1; round <= ROUNDS; round++) {
		round_of(round);
	}
	return 0;
}
