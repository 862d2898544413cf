/* Every allocation of the runtime fails once: n = 0, 1, ... until it works, and nothing leaks. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/sched/ask.h"
#include "runtime/sched/family.h"
#include "runtime/sched/sim.h"
#include "runtime/sched/stats.h"
#include "tests/support/test.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

static bool armed, hit;
static uint32_t left;

static bool fails(void)
{
	bool now = armed && left-- == 0;
	hit |= now;
	return now;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return fails() ? NULL : __real_aligned_alloc(align, size);
}

/* ---- building ---- */

static void a_system_that_cannot_be_built_leaves_nothing(void **state)
{
	(void)state;
	struct rt_system_options options = {.workers = 3};
	rt_err err = RT_E_NOMEM;
	uint32_t n = 0;
	for (; err != RT_OK; n++) {
		struct rt_system *system = NULL;
		struct rt_errinfo info;
		armed = true;
		left = n;
		err = rt_system_new(&options, &system, &info);
		armed = false;
		if (err != RT_OK) {
			assert_null(system);
			assert_err(err, RT_E_NOMEM);
		}
		rt_system_free(system);
		assert_true(n < 200);
	}
	assert_true(n > 10);
}

/* ---- actors ---- */

enum {
	GO = 1,
	ADD,
	RING
};

static struct {
	int done, errors;
	struct rt_ref server;
} the;

static enum rt_turn server_turn(struct rt_actor *self, struct rt_envelope *env)
{
	rt_reply(self, env, ADD, NULL, 0);
	return RT_DONE;
}

static const struct rt_behaviour server = {
	.name = "server", .turn = server_turn, .state_size = 100};

static enum rt_turn on_answer(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	(void)self;
	(void)env;
	(void)arg;
	the.done++;
	return RT_DONE;
}

static void count(rt_err err)
{
	assert_true(err == RT_OK || err == RT_E_NOMEM || err == RT_E_FULL);
	the.errors += err != RT_OK;
}

static enum rt_turn all_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct rt_worker *worker = rt_actor_worker(self);
	struct rt_ref made;
	struct rt_alarm alarm;
	if (env->type != GO) {
		return RT_DONE;
	}
	count(rt_spawn_child(self, &server, NULL, &made));
	count(rt_watch(self, the.server));
	count(rt_alarm_start(self, 5, RING, 0, &alarm));
	count(rt_spawn_on(self, 1, &server, NULL, on_answer, NULL));
	struct rt_envelope *ask = rt_envelope_new(worker, ADD);
	rt_err err = RT_E_NOMEM;
	if (ask != NULL) {
		err = rt_ask(self, the.server, ask, 50, on_answer, NULL);
		if (err != RT_OK) {
			rt_envelope_free(worker, ask);
		}
	}
	count(err);
	err = rt_stash(self, env);
	count(err);
	return RT_DONE;
}

static const struct rt_behaviour all = {.name = "all", .turn = all_turn};

static void actors_survive_any_failed_allocation(void **state)
{
	(void)state;
	bool failed = true;
	for (uint32_t n = 0; failed; n++) {
		struct rt_system_options options = {.workers = 2};
		struct rt_sim *sim = NULL;
		assert_err(rt_sim_new(&options, 5, &sim, NULL), RT_OK);
		memset(&the, 0, sizeof(the));
		struct rt_worker *worker = rt_system_worker(rt_sim_system(sim), 0);
		struct rt_worker *other = rt_system_worker(rt_sim_system(sim), 1);
		struct rt_ref ref = RT_REF_NONE;
		armed = true;
		left = n;
		count(rt_spawn(other, &server, NULL, &the.server));
		count(rt_spawn(worker, &all, NULL, &ref));
		count(rt_worker_tell(worker, ref, GO, NULL, 0));
		assert_true(rt_sim_run(sim, 100000));
		armed = false;
		failed = hit;
		hit = false;
		struct rt_worker_stats stats;
		rt_worker_stats(worker, &stats);
		assert_int_equal(stats.pending, 0);
		rt_sim_free(sim);
		assert_true(n < 100);
		assert_true(failed || n > 10);
	}
	assert_int_equal(the.errors, 0);
	assert_int_equal(the.done, 2);
}

static void arena_says_no_when_memory_is_short(void **state)
{
	(void)state;
	struct rt_arena arena;
	rt_arena_init(&arena, 0, 0);
	armed = true;
	left = 0;
	assert_null(rt_arena_alloc(&arena, 10));
	armed = false;
	assert_int_equal(arena.used_bytes, 0);
	assert_non_null(rt_arena_alloc(&arena, 10));
	rt_arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_system_that_cannot_be_built_leaves_nothing),
		cmocka_unit_test(actors_survive_any_failed_allocation),
		cmocka_unit_test(arena_says_no_when_memory_is_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
