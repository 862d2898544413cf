#include "runtime/base/hash.h"
#include "runtime/sched/core.h"

static void put_back(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	env->next = actor->head;
	if (actor->head == NULL) {
		actor->tail = env;
	}
	actor->head = env;
	actor->count++;
	worker->queued++;
}

/* The asker learns that there will be no answer. */
static void end_failed_message(struct rt_worker *worker, struct rt_envelope *env)
{
	worker->current = NULL;
	rt_envelope_drop(env);
	if (env->ask != 0 && env->lane == RT_REQUEST) {
		rt_turn_round(env, RT_MSG_FAILED);
		rt_err err = rt_send(worker, env);
		RT_ASSERT(err == RT_OK); /* answers are never refused */
	} else {
		rt_envelope_free(worker, env);
	}
}

/* What the turn said about its message. */
static void after_message(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env,
	enum rt_turn turn)
{
	switch (turn) {
	case RT_AGAIN:
		put_back(worker, actor, env);
		break;
	case RT_KEEP:
		break;
	case RT_FAIL:
		end_failed_message(worker, env);
		break;
	case RT_DONE:
	case RT_STOP:
		if (__builtin_expect((env->flags & RT_ENV_OUT) != 0, 0)) {
			rt_envelope_drop(env);
		}
		rt_envelope_put(worker, env);
		break;
	}
}

static enum rt_turn run_message(struct rt_worker *worker, struct rt_actor *actor)
{
	struct rt_envelope *env = actor->head;
	actor->head = env->next;
	actor->count--;
	worker->queued--;
	worker->current = env;
	if (__builtin_expect(worker->chaos != NULL, 0)) {
		/* Where a payload lies in memory is chance. */
		uint64_t word = (env->flags & RT_ENV_OUT) != 0 ? 0 : env->body.words[0];
		uint64_t what = env->to.bits ^ rt_hash_mix(env->type) ^ word;
		worker->trace = rt_hash_mix(worker->trace ^ what);
	}
	enum rt_turn turn = __builtin_expect(env->lane == RT_REQUEST, 1)
				    ? actor->behaviour->turn(actor, env)
				    : rt_answer_turn(worker, actor, env);
	if (worker->current != NULL) {
		after_message(worker, actor, env, turn);
	}
	return turn;
}

/* Who waits for room with RT_AGAIN would never read the refusals that keep it waiting: answers go
 * in front. Order within a class stays. */
static void answers_first(struct rt_actor *actor)
{
	struct rt_envelope *first[2] = {NULL, NULL};
	struct rt_envelope **end[2] = {&first[0], &first[1]};
	struct rt_envelope *last[2] = {NULL, NULL};
	for (struct rt_envelope *env = actor->head; env != NULL; env = env->next) {
		last[env->lane] = env;
		*end[env->lane] = env;
		end[env->lane] = &env->next;
	}
	*end[RT_REQUEST] = NULL;
	*end[RT_ANSWER] = first[RT_REQUEST];
	actor->head = first[RT_ANSWER];
	actor->tail = last[RT_REQUEST] != NULL ? last[RT_REQUEST] : last[RT_ANSWER];
}

static void after_turn(struct rt_worker *worker, struct rt_actor *actor, enum rt_turn last)
{
	if (last == RT_AGAIN && worker->refused) {
		worker->stats.stalls++;
		if (actor->refusals > 0 && rt_refusals_full(actor)) {
			answers_first(actor);
		}
		actor->state = RT_ACTOR_STALLED;
		actor->run_next = worker->stalled;
		worker->stalled = actor;
	} else if (actor->head != NULL) {
		actor->state = RT_ACTOR_RUNNABLE;
		rt_run_push(worker, actor);
	} else {
		actor->state = RT_ACTOR_IDLE;
	}
}

static void run_actor(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_DASSERT(actor->state == RT_ACTOR_RUNNABLE);
	actor->state = RT_ACTOR_RUNNING;
	worker->refused = false;
	uint32_t quantum = RT_QUANTUM;
	if (__builtin_expect(worker->chaos != NULL, 0)) {
		quantum = 1 + rt_random_below(worker->chaos, RT_QUANTUM);
	}
	uint32_t count = 0;
	enum rt_turn turn = RT_DONE;
	while (turn <= RT_KEEP && count < quantum && actor->head != NULL) {
		turn = run_message(worker, actor);
		count++;
		if ((actor->flags & RT_ACTOR_STOP_ASKED) != 0) {
			turn = RT_STOP;
		}
	}
	worker->current = NULL;
	worker->stats.messages += count;
	worker->stats.turns++;
	if (turn <= RT_AGAIN) {
		after_turn(worker, actor, turn);
		return;
	}
	actor->state = RT_ACTOR_IDLE;
	if (turn == RT_STOP) {
		rt_actor_bury(worker, actor);
	} else {
		rt_actor_failed(worker, actor);
	}
}

static bool run_actors(struct rt_worker *worker)
{
	uint32_t turns = 0;
	uint32_t most = RT_ROUND_TURNS;
	if (__builtin_expect(worker->chaos != NULL, 0)) {
		most = 1 + rt_random_below(worker->chaos, RT_ROUND_TURNS);
	}
	while (worker->run_first != NULL && turns < most) {
		struct rt_actor *actor = worker->run_first;
		worker->run_first = actor->run_next;
		if (__builtin_expect(actor->state != RT_ACTOR_RUNNABLE, 0)) {
			rt_actor_unlist(
				worker, actor); /* stopped or suspended while it was listed */
			continue;
		}
		run_actor(worker, actor);
		turns++;
	}
	return turns > 0;
}

/* Whoever was refused tries again, once per round and after those that were not. */
static void unstall(struct rt_worker *worker)
{
	struct rt_actor *actor = worker->stalled;
	worker->stalled = NULL;
	while (actor != NULL) {
		struct rt_actor *next = actor->run_next;
		if (actor->state == RT_ACTOR_DEAD || actor->state == RT_ACTOR_WAITING) {
			rt_actor_unlist(worker, actor);
		} else {
			actor->state = RT_ACTOR_RUNNABLE;
			rt_run_push(worker, actor);
		}
		actor = next;
	}
}

bool rt_slice_is_idle(const struct rt_worker *worker)
{
	return worker->run_first == NULL && worker->posts_first == NULL &&
	       atomic_load_explicit(&worker->call, memory_order_relaxed) == 0;
}

bool rt_slice_is_stuck(const struct rt_worker *worker)
{
	return worker->stalled != NULL || worker->open != 0 || worker->dirty != 0;
}

static uint64_t look_at_clock(struct rt_worker *worker)
{
	const struct rt_ports *ports = &worker->system->ports;
	worker->now_ns = ports->now_ns(ports->arg);
	worker->now_ms = worker->now_ns / 1000000;
	return worker->now_ns;
}

static bool run_round(struct rt_worker *worker)
{
	(void)rt_intake(worker);
	bool ran = rt_timers_fire(worker);
	ran |= rt_posts_run(worker, RT_ROUND_POSTS);
	unstall(worker);
	ran |= run_actors(worker);
	if (ran && worker->hook != NULL) {
		worker->hook(worker, worker->hook_arg);
	}
	rt_publish(worker);
	return ran;
}

bool rt_slice(struct rt_worker *worker, uint64_t budget_ns)
{
	struct rt_worker *outer = rt_worker_current;
	rt_worker_current = worker;
	worker->in_slice = true;
	bool any = false;
	uint64_t end = look_at_clock(worker) + budget_ns;
	do {
		any |= run_round(worker);
	} while (worker->run_first != NULL && look_at_clock(worker) < end);
	worker->in_slice = false;
	rt_worker_current = outer;
	return any;
}
