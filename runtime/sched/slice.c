#include "runtime/sched/core.h"

void rt_run_push(struct rt_worker *worker, struct rt_actor *actor)
{
	actor->run_next = NULL;
	if (worker->run_first == NULL) {
		worker->run_first = actor;
	} else {
		worker->run_last->run_next = actor;
	}
	worker->run_last = actor;
}

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

/* What the turn said about the message; false: no more messages in this turn. */
static bool after_message(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env,
	enum rt_turn turn)
{
	if (turn == RT_AGAIN && worker->current != NULL) {
		put_back(worker, actor, env);
		return false;
	}
	if (worker->current != NULL && turn != RT_KEEP) {
		rt_envelope_free(worker, env);
	}
	if (turn == RT_STOP || turn == RT_FAIL) {
		actor->flags |= RT_ACTOR_STOP_ASKED;
	}
	return (actor->flags & RT_ACTOR_STOP_ASKED) == 0;
}

static void run_actor(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_DASSERT(actor->state == RT_ACTOR_RUNNABLE);
	actor->state = RT_ACTOR_RUNNING;
	worker->refused = false;
	uint32_t count = 0;
	bool more = true;
	bool again = false;
	while (more && count < worker->quantum && actor->head != NULL) {
		struct rt_envelope *env = actor->head;
		actor->head = env->next;
		actor->count--;
		worker->queued--;
		count++;
		worker->current = env;
		enum rt_turn turn = actor->behaviour->turn(actor, env);
		again = turn == RT_AGAIN;
		more = after_message(worker, actor, env, turn);
	}
	worker->current = NULL;
	worker->handled += count;
	worker->turns++;
	if ((actor->flags & RT_ACTOR_STOP_ASKED) != 0) {
		actor->state = RT_ACTOR_IDLE;
		rt_actor_bury(worker, actor);
	} else if (again && worker->refused) {
		worker->stalls++;
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

static bool run_actors(struct rt_worker *worker)
{
	uint32_t turns = 0;
	while (worker->run_first != NULL && turns < RT_ROUND_TURNS) {
		struct rt_actor *actor = worker->run_first;
		worker->run_first = actor->run_next;
		if (actor->state == RT_ACTOR_DEAD) {
			rt_actor_release(worker, actor); /* stopped while it was listed */
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
		if (actor->state == RT_ACTOR_DEAD) {
			rt_actor_release(worker, actor);
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
