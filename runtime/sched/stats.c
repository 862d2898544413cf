#include "runtime/sched/stats.h"

#include "runtime/sched/core.h"

const char *rt_dead_text(enum rt_dead kind)
{
	static const char *const texts[] = {
#define X(name, text) text,
		RT_DEAD_LIST(X)
#undef X
	};
	return (unsigned)kind < RT_DEAD_KINDS ? texts[kind] : "?";
}

void rt_worker_stats(struct rt_worker *worker, struct rt_worker_stats *out)
{
	*out = worker->stats;
	out->actors = worker->actor_count;
	out->queued = worker->queued;
	out->pending = worker->pending_count;
	out->posts = atomic_load_explicit(&worker->posts_waiting, memory_order_relaxed);
}

/* What an actor sent itself or only waited for is no loss to anybody. */
static bool is_silent(const struct rt_envelope *env)
{
	return (env->flags & RT_ENV_ALARM) != 0 || env->type == RT_MSG_TIMEOUT ||
	       env->type == RT_MSG_TERMINATED;
}

static void remember(struct rt_worker *worker, const struct rt_envelope *env, enum rt_dead kind)
{
	worker->stats.dead[kind]++;
	struct rt_dead_letter *letter =
		&worker->dead_letters[worker->dead_next++ % RT_DEAD_VISIBLE];
	letter->at_ms = worker->now_ms;
	letter->to = env->to;
	letter->from = env->from;
	letter->type = env->type;
	letter->kind = kind;
}

void rt_dead_letter(struct rt_worker *worker, struct rt_envelope *env, enum rt_dead kind)
{
	if (!is_silent(env)) {
		remember(worker, env, kind);
	}
	bool answers_here = env->lane == RT_ANSWER && rt_ref_worker(env->to) == worker->index;
	if (env->lane == RT_REQUEST && env->ask != 0 && !rt_ref_is_none(env->from)) {
		rt_turn_round(env, RT_MSG_GONE);
		rt_err err = rt_send(worker, env);
		RT_ASSERT(err == RT_OK); /* answers are never refused */
		return;
	}
	if (env->type == RT_MSG_REFUSED) {
		bool unread = kind == RT_DEAD_STOPPED && (env->flags & RT_ENV_SEEN) == 0;
		worker->refusals_unread -= unread ? 1 : 0;
	} else if (answers_here && env->ask != 0) {
		rt_pending_drop(worker, env);
	}
	rt_envelope_free(worker, env);
}

uint32_t rt_worker_dead_letters(struct rt_worker *worker, struct rt_dead_letter *out, uint32_t max)
{
	uint64_t have = worker->dead_next < RT_DEAD_VISIBLE ? worker->dead_next : RT_DEAD_VISIBLE;
	uint32_t count = max < have ? max : (uint32_t)have;
	for (uint32_t i = 0; i < count; i++) {
		out[i] = worker->dead_letters[(worker->dead_next - 1 - i) % RT_DEAD_VISIBLE];
	}
	return count;
}
