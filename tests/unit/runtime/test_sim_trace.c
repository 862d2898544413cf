#include <stdlib.h>
#include <string.h>

#include "runtime/sched/ask.h"
#include "runtime/sched/sim.h"
#include "runtime/sched/stats.h"
#include "tests/support/test.h"

#define WORKERS 3u
#define PEERS   8u
#define ROUNDS  60u

enum {
	GO = 1,
	BALL,
	ADD,
	SUM
};

static struct {
	struct rt_ref peer[WORKERS * PEERS];
	uint64_t balls, sum, answers, last[WORKERS * PEERS][WORKERS * PEERS];
	bool disorder;
} world;

struct peer {
	uint64_t number, thrown, asked;
	uint64_t seq[WORKERS * PEERS];
};

static enum rt_turn on_sum(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	(void)self;
	(void)arg;
	assert_true(env->type == SUM || env->type == RT_MSG_BUSY);
	world.answers++;
	world.sum += env->type == SUM ? env->body.words[0] : 1;
	return RT_DONE;
}

/* Throws numbered balls at all others in turn, and asks after each. */
static enum rt_turn go(struct rt_actor *self)
{
	struct peer *peer = rt_actor_state(self);
	while (peer->thrown < ROUNDS || peer->asked < ROUNDS) {
		uint64_t to = (peer->number + peer->thrown * 5 + 1) % (WORKERS * PEERS);
		if (peer->asked < peer->thrown) {
			struct rt_envelope *env = rt_envelope_new(rt_actor_worker(self), ADD);
			if (rt_ask(self, world.peer[to], env, 1000, on_sum, NULL) != RT_OK) {
				rt_envelope_free(rt_actor_worker(self), env);
				return RT_AGAIN;
			}
			peer->asked++;
			continue;
		}
		uint64_t words[2] = {peer->number, peer->seq[to] + 1};
		if (rt_tell(self, world.peer[to], BALL, words, sizeof(words)) != RT_OK) {
			return RT_AGAIN;
		}
		peer->seq[to]++;
		peer->thrown++;
	}
	return RT_DONE;
}

static enum rt_turn turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct peer *peer = rt_actor_state(self);
	uint64_t one = 1;
	switch (env->type) {
	case GO:
		return go(self);
	case ADD:
		rt_reply(self, env, SUM, &one, sizeof(one));
		return RT_DONE;
	case RT_MSG_REFUSED:
		world.disorder = true;
		return RT_DONE;
	default:
		world.disorder |=
			env->body.words[1] != ++world.last[env->body.words[0]][peer->number];
		world.balls++;
		return RT_DONE;
	}
}

static rt_err started(struct rt_actor *self, void *arg)
{
	((struct peer *)rt_actor_state(self))->number = *(uint64_t *)arg;
	return RT_OK;
}

static const struct rt_behaviour peer = {
	.name = "peer", .turn = turn, .started = started, .state_size = sizeof(struct peer)};

static uint64_t play(uint64_t seed)
{
	struct rt_system_options options = {.workers = WORKERS, .mailbox_cap = 4096};
	struct rt_sim *sim = NULL;
	memset(&world, 0, sizeof(world));
	assert_err(rt_sim_new(&options, seed, &sim, NULL), RT_OK);
	for (uint32_t i = 0; i < WORKERS * PEERS; i++) {
		uint64_t number = i;
		struct rt_worker *worker = rt_system_worker(rt_sim_system(sim), i % WORKERS);
		assert_err(rt_spawn(worker, &peer, &number, &world.peer[i]), RT_OK);
		assert_err(rt_worker_tell(worker, world.peer[i], GO, NULL, 0), RT_OK);
	}
	assert_true(rt_sim_run(sim, 1000000));
	uint64_t trace = rt_sim_trace(sim);
	rt_sim_free(sim);
	assert_int_equal(world.balls, WORKERS * PEERS * ROUNDS);
	assert_int_equal(world.answers, WORKERS * PEERS * ROUNDS);
	assert_int_equal(world.sum, WORKERS * PEERS * ROUNDS);
	assert_false(world.disorder);
	return trace;
}

static void same_seed_same_trace(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		assert_int_equal(play(seed), play(seed));
	}
}

static void other_seeds_other_traces(void **state)
{
	(void)state;
	uint64_t seen[100];
	for (uint64_t seed = 0; seed < 100; seed++) {
		seen[seed] = play(seed);
		for (uint64_t i = 0; i < seed; i++) {
			assert_int_not_equal(seen[i], seen[seed]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_seed_same_trace),
		cmocka_unit_test(other_seeds_other_traces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
