/* Workers that never spin: every message across workers is a park, a call and a wake-up. A lost
 * wake-up hangs, which the time limit of the tests turns into a failure. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/sched/actor.h"
#include "runtime/sched/stats.h"

#define WORKERS 3u
#define PAIRS   2u
#define HOPS    6000u
#define OUTSIDE 2u
#define POSTS   3000u

enum {
	BALL = 1
};

static uv_sem_t done;
static _Atomic unsigned posts_run, pairs_done;

static void check(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "stress_park: %s\n", what);
		abort();
	}
}

static enum rt_turn turn(struct rt_actor *self, struct rt_envelope *env)
{
	uint64_t left = env->body.words[0];
	if (left == 0) {
		atomic_fetch_add(&pairs_done, 1);
		uv_sem_post(&done);
		return RT_STOP;
	}
	left--;
	check(rt_tell(self, env->from, BALL, &left, sizeof(left)) == RT_OK, "no room");
	return RT_DONE;
}

static const struct rt_behaviour player = {.name = "player", .turn = turn};

struct hop {
	struct rt_post post;
	struct rt_system *system;
	unsigned left, at;
};

/* A post that goes on to the next worker. */
static void hop(struct rt_worker *worker, struct rt_post *post)
{
	struct hop *h = (struct hop *)post;
	check(worker == rt_worker_self(), "a post on the wrong thread");
	atomic_fetch_add(&posts_run, 1);
	if (h->left == 0) {
		uv_sem_post(&done);
		return;
	}
	h->left--;
	h->at = (h->at + 1) % WORKERS;
	rt_worker_post_always(rt_system_worker(h->system, h->at), post);
}

struct outside {
	uv_thread_t thread;
	struct rt_system *system;
	struct hop hops[POSTS / 100];
};

static void outside_main(void *arg)
{
	struct outside *outside = arg;
	for (unsigned i = 0; i < POSTS / 100; i++) {
		struct hop *h = &outside->hops[i];
		*h = (struct hop){.post = {.run = hop},
			.system = outside->system,
			.left = 99,
			.at = i % WORKERS};
		while (rt_worker_post(rt_system_worker(h->system, h->at), &h->post) != RT_OK) {
			uv_sleep(1);
		}
	}
}

int main(void)
{
	struct rt_system_options options = {
		.workers = WORKERS, .spin_us = RT_SPIN_NONE, .posts_max = 4};
	struct rt_system *system = NULL;
	struct rt_errinfo info;
	uv_sem_init(&done, 0);
	check(rt_system_new(&options, &system, &info) == RT_OK, "new");
	for (uint32_t i = 0; i < PAIRS * WORKERS; i++) {
		struct rt_worker *worker = rt_system_worker(system, i % WORKERS);
		struct rt_ref a, b;
		check(rt_spawn(worker, &player, NULL, &a) == RT_OK, "spawn");
		check(rt_spawn(rt_system_worker(system, (i + 1) % WORKERS), &player, NULL, &b) ==
				RT_OK,
			"spawn");
		struct rt_envelope *env = rt_envelope_new(worker, BALL);
		env->from = a;
		env->to = b;
		env->body.words[0] = HOPS;
		check(rt_send(worker, env) == RT_OK, "send");
	}
	check(rt_system_start(system, &info) == RT_OK, "start");
	static struct outside outside[OUTSIDE];
	for (unsigned i = 0; i < OUTSIDE; i++) {
		outside[i].system = system;
		uv_thread_create(&outside[i].thread, outside_main, &outside[i]);
	}
	for (unsigned i = 0; i < PAIRS * WORKERS + OUTSIDE * POSTS / 100; i++) {
		uv_sem_wait(&done);
	}
	for (unsigned i = 0; i < OUTSIDE; i++) {
		uv_thread_join(&outside[i].thread);
	}
	rt_system_stop(system);
	uint64_t messages = 0;
	uint64_t parks = 0;
	uint64_t wakes = 0;
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct rt_worker_stats stats;
		rt_worker_stats(rt_system_worker(system, i), &stats);
		messages += stats.messages;
		parks += stats.parks;
		wakes += stats.wakes;
	}
	check(messages == (uint64_t)PAIRS * WORKERS * (HOPS + 1), "messages got lost");
	check(atomic_load(&posts_run) == OUTSIDE * POSTS, "posts got lost");
	check(parks > 1000, "hardly anything was parked: the test tests nothing");
	printf("%llu messages, %llu parks, %llu wakes\n", (unsigned long long)messages,
		(unsigned long long)parks, (unsigned long long)wakes);
	rt_system_free(system);
	uv_sem_destroy(&done);
	return 0;
}
