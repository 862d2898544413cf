#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sched/actor.h"
#include "runtime/sched/worker.h"
#include "tests/support/test.h"

static struct rt_system *new_system(struct rt_system_options options)
{
	struct rt_system *system = NULL;
	struct rt_errinfo info;
	assert_err(rt_system_new(&options, &system, &info), RT_OK);
	return system;
}

static void start(struct rt_system *system)
{
	struct rt_errinfo info;
	assert_err(rt_system_start(system, &info), RT_OK);
}

/* ---- posts ---- */

#define POSTS 10000

static struct {
	struct rt_post post;
	int number;
} posts[POSTS];
static int post_next, post_wrong, hooks;
static struct rt_worker *post_worker;

static void run_post(struct rt_worker *worker, struct rt_post *post)
{
	int number = (int)(((char *)post - (char *)posts) / (long)sizeof(posts[0]));
	post_wrong += number != post_next || worker != rt_worker_self() || worker != post_worker;
	post_next++;
}

static void hook(struct rt_worker *worker, void *arg)
{
	(void)worker;
	++*(int *)arg;
}

static void runs_posts_in_order_and_chains_whole(void **state)
{
	(void)state;
	struct rt_system *system = new_system((struct rt_system_options){.workers = 2});
	post_worker = rt_system_worker(system, 1);
	post_next = post_wrong = hooks = 0;
	rt_worker_set_turn_hook(post_worker, hook, &hooks);
	start(system);
	assert_null(rt_worker_self());
	for (int i = 0; i < POSTS;) {
		int chain = i % 7 + 1;
		for (int k = i; k < i + chain && k < POSTS; k++) {
			posts[k].post.run = run_post;
			posts[k].post.next =
				k + 1 < i + chain && k + 1 < POSTS ? &posts[k + 1].post : NULL;
		}
		if (i % 2 == 0) {
			assert_err(rt_worker_post(post_worker, &posts[i].post), RT_OK);
		} else {
			rt_worker_post_always(post_worker, &posts[i].post);
		}
		i += chain;
	}
	rt_system_stop(system);
	rt_system_stop(system);
	assert_int_equal(post_next, POSTS);
	assert_int_equal(post_wrong, 0);
	assert_in_range(hooks, 1, POSTS);
	rt_system_free(system);
}

static void refuses_posts_over_the_limit(void **state)
{
	(void)state;
	struct rt_system *system =
		new_system((struct rt_system_options){.workers = 1, .posts_max = 3});
	post_worker = rt_system_worker(system, 0);
	post_next = post_wrong = 0;
	for (int i = 0; i < 5; i++) {
		posts[i].post = (struct rt_post){.run = run_post};
	}
	posts[0].post.next = &posts[1].post;
	assert_err(rt_worker_post(post_worker, &posts[0].post), RT_OK);
	posts[2].post.next = &posts[3].post;
	assert_err(rt_worker_post(post_worker, &posts[2].post), RT_E_FULL);
	assert_ptr_equal(posts[2].post.next, &posts[3].post);
	rt_worker_post_always(post_worker, &posts[2].post);
	assert_err(rt_worker_post(post_worker, &posts[4].post), RT_E_FULL);
	start(system);
	rt_system_stop(system);
	assert_int_equal(post_next, 4);
	assert_int_equal(post_wrong, 0);
	assert_err(rt_worker_post(post_worker, &posts[4].post), RT_E_CLOSED);
	rt_worker_post_always(post_worker, &posts[4].post);
	rt_system_free(system);
	assert_int_equal(post_next, 5);
}

/* ---- timers ---- */

#define TIMERS 500

static struct rt_timer timers[TIMERS];
static int fired[TIMERS], fired_count;
static uint64_t last_due;
static bool fired_wrong;

static void fire(struct rt_worker *worker, struct rt_timer *timer)
{
	fired[timer - timers]++;
	fired_count++;
	fired_wrong |= timer->due_ms < last_due || rt_worker_now_ms(worker) < timer->due_ms;
	last_due = timer->due_ms;
}

static void start_timers(struct rt_worker *worker, struct rt_post *post)
{
	(void)post;
	for (int i = 0; i < TIMERS; i++) {
		rt_timer_init(&timers[i], fire);
		rt_timer_start(worker, &timers[i], (uint64_t)(i * 7919 % 20 + 1));
	}
	for (int i = 0; i < TIMERS; i += 3) {
		rt_timer_stop(worker, &timers[i]);
		rt_timer_stop(worker, &timers[i]);
	}
	for (int i = 0; i < TIMERS; i += 5) {
		rt_timer_start(worker, &timers[i], (uint64_t)(i % 11));
	}
}

static uv_sem_t all_fired;
static void last_fire(struct rt_worker *worker, struct rt_timer *timer)
{
	(void)worker;
	(void)timer;
	uv_sem_post(&all_fired);
}

static void start_last(struct rt_worker *worker, struct rt_post *post)
{
	static struct rt_timer last;
	start_timers(worker, post);
	rt_timer_init(&last, last_fire);
	rt_timer_start(worker, &last, 25);
}

static void fires_timers_once_and_in_order(void **state)
{
	(void)state;
	struct rt_system *system = new_system((struct rt_system_options){.workers = 1});
	struct rt_post post = {.run = start_last};
	uv_sem_init(&all_fired, 0);
	start(system);
	assert_err(rt_worker_post(rt_system_worker(system, 0), &post), RT_OK);
	uv_sem_wait(&all_fired);
	rt_system_stop(system);
	uv_sem_destroy(&all_fired);
	int expected = 0;
	for (int i = 0; i < TIMERS; i++) {
		int want = i % 3 != 0 || i % 5 == 0;
		assert_int_equal(fired[i], want);
		expected += want;
	}
	assert_int_equal(fired_count, expected);
	assert_false(fired_wrong);
	rt_system_free(system);
}

/* ---- tells ---- */

enum {
	COUNT_DOWN = 1,
	HOLD
};

struct counter {
	struct rt_ref peer;
	uint64_t seen;
};

static _Atomic uint64_t turns_seen;

static enum rt_turn count_down(struct rt_actor *self, struct rt_envelope *env)
{
	uint64_t left = env->body.words[0];
	atomic_fetch_add(&turns_seen, 1);
	if (left == 0) {
		return RT_STOP;
	}
	left--;
	rt_err err = rt_tell(self, env->from, COUNT_DOWN, &left, sizeof(left));
	return err == RT_OK ? RT_DONE : RT_FAIL;
}

static const struct rt_behaviour counter = {
	.name = "counter", .turn = count_down, .state_size = sizeof(struct counter)};

static void tell_from(struct rt_system *system, struct rt_ref from, struct rt_ref to, uint64_t n)
{
	struct rt_worker *worker = rt_system_worker(system, rt_ref_worker(from));
	struct rt_envelope *env = rt_envelope_new(worker, COUNT_DOWN);
	assert_non_null(env);
	env->from = from;
	env->to = to;
	env->body.words[0] = n;
	assert_err(rt_send(worker, env), RT_OK);
}

static void tells_back_and_forth(uint32_t there)
{
	struct rt_system *system = new_system((struct rt_system_options){.workers = 2});
	struct rt_ref a, b;
	atomic_store(&turns_seen, 0);
	assert_err(rt_spawn(rt_system_worker(system, 0), &counter, NULL, &a), RT_OK);
	assert_err(rt_spawn(rt_system_worker(system, there), &counter, NULL, &b), RT_OK);
	tell_from(system, a, b, 5000);
	start(system);
	rt_system_stop(system);
	assert_int_equal(atomic_load(&turns_seen), 5001);
	rt_system_free(system);
}

static void tells_on_one_worker(void **state)
{
	(void)state;
	tells_back_and_forth(0);
}

static void tells_across_workers(void **state)
{
	(void)state;
	tells_back_and_forth(1);
}

static int dropped;
static void drop(void *bytes)
{
	dropped++;
	free(bytes);
}

static enum rt_turn hold(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	(void)env;
	return RT_AGAIN;
}

static const struct rt_behaviour holder = {.name = "holder", .turn = hold, .mailbox_cap = 2};

static struct rt_envelope *with_payload(struct rt_worker *worker, struct rt_ref to)
{
	struct rt_envelope *env = rt_envelope_new(worker, HOLD);
	assert_non_null(env);
	env->to = to;
	rt_envelope_set_out(env, malloc(10), 10, drop);
	return env;
}

static void full_mailbox_leaves_the_payload_with_the_sender(void **state)
{
	(void)state;
	struct rt_system *system = new_system((struct rt_system_options){.workers = 2});
	struct rt_worker *worker = rt_system_worker(system, 0);
	struct rt_ref ref;
	dropped = 0;
	assert_err(rt_spawn(worker, &holder, NULL, &ref), RT_OK);
	assert_err(rt_send(worker, with_payload(worker, ref)), RT_OK);
	assert_err(rt_send(worker, with_payload(worker, ref)), RT_OK);
	struct rt_envelope *third = with_payload(worker, ref);
	assert_err(rt_send(worker, third), RT_E_FULL);
	assert_int_equal(dropped, 0);
	rt_envelope_free(worker, third);
	assert_int_equal(dropped, 1);
	/* Stopping drops what waits, and what comes later. */
	assert_err(rt_stop(worker, ref), RT_OK);
	assert_int_equal(dropped, 3);
	assert_err(rt_send(worker, with_payload(worker, ref)), RT_OK);
	assert_int_equal(dropped, 4);
	/* The cell is used again, the old reference is not. */
	struct rt_ref next;
	assert_err(rt_spawn(worker, &holder, NULL, &next), RT_OK);
	assert_false(rt_ref_equal(ref, next));
	assert_err(rt_send(worker, with_payload(worker, ref)), RT_OK);
	assert_int_equal(dropped, 5);
	/* In a mailbox or in a lane when the system is freed. */
	struct rt_ref away;
	assert_err(rt_spawn(rt_system_worker(system, 1), &holder, NULL, &away), RT_OK);
	assert_err(rt_send(worker, with_payload(worker, next)), RT_OK);
	assert_err(rt_send(worker, with_payload(worker, away)), RT_OK);
	rt_system_free(system);
	assert_int_equal(dropped, 7);
}

static int stopped_big;
struct big {
	char bytes[1000];
};

static rt_err started_big(struct rt_actor *self, void *arg)
{
	struct big *big = rt_actor_state(self);
	for (size_t i = 0; i < sizeof(big->bytes); i++) {
		if (big->bytes[i] != 0) {
			return RT_E_INVAL;
		}
	}
	memset(big, 7, sizeof(*big));
	return arg != NULL ? RT_E_AGAIN : RT_OK;
}

static void stop_big(struct rt_actor *self)
{
	stopped_big += ((struct big *)rt_actor_state(self))->bytes[999];
}

static const struct rt_behaviour big = {.name = "big",
	.turn = hold,
	.started = started_big,
	.stopped = stop_big,
	.state_size = sizeof(struct big)};

static void a_start_that_fails_leaves_nothing(void **state)
{
	(void)state;
	struct rt_system *system =
		new_system((struct rt_system_options){.workers = 1, .actors_max = 2});
	struct rt_worker *worker = rt_system_worker(system, 0);
	struct rt_ref ref[3];
	stopped_big = 0;
	assert_err(rt_spawn(worker, &big, &ref, &ref[0]), RT_E_AGAIN);
	assert_int_equal(stopped_big, 0);
	assert_err(rt_spawn(worker, &big, NULL, &ref[0]), RT_OK);
	assert_err(rt_spawn(worker, &big, NULL, &ref[1]), RT_OK);
	assert_err(rt_spawn(worker, &big, NULL, &ref[2]), RT_E_NOMEM);
	assert_err(rt_stop(worker, ref[1]), RT_OK);
	assert_err(rt_stop(worker, ref[1]), RT_OK);
	assert_int_equal(stopped_big, 7);
	assert_err(rt_spawn(worker, &big, NULL, &ref[2]), RT_OK);
	rt_system_free(system);
	assert_int_equal(stopped_big, 21);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_posts_in_order_and_chains_whole),
		cmocka_unit_test(refuses_posts_over_the_limit),
		cmocka_unit_test(fires_timers_once_and_in_order),
		cmocka_unit_test(tells_on_one_worker),
		cmocka_unit_test(tells_across_workers),
		cmocka_unit_test(full_mailbox_leaves_the_payload_with_the_sender),
		cmocka_unit_test(a_start_that_fails_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
