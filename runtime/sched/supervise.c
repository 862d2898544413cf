#include <stdlib.h>
#include <string.h>

#include "runtime/base/container.h"
#include "runtime/base/log.h"
#include "runtime/sched/more.h"

#define BACKOFF_MAX_DEFAULT_MS 30000u
#define WINDOW_DEFAULT_MS      60000u
#define START_AGAIN_MS         10u /* a start that fails is not tried in a circle */

static uint64_t backoff_ms(const struct rt_supervision *supervision, uint32_t restarts)
{
	uint64_t most = supervision->backoff_max_ms != 0 ? supervision->backoff_max_ms
							 : BACKOFF_MAX_DEFAULT_MS;
	uint32_t doublings = restarts - 1 < 32 ? restarts - 1 : 32;
	uint64_t delay = (uint64_t)supervision->backoff_min_ms << doublings;
	return delay < most ? delay : most;
}

/* Counts one more restart; false: too many in the window. */
static bool may_restart(
	struct rt_worker *worker, struct rt_more *more, const struct rt_supervision *supervision)
{
	uint64_t now_ms = rt_worker_now_ms(worker);
	uint64_t window = supervision->window_ms != 0 ? supervision->window_ms : WINDOW_DEFAULT_MS;
	if (more->restarts == 0 || now_ms - more->window_start_ms > window) {
		more->restarts = 0;
		more->window_start_ms = now_ms;
	}
	more->restarts++;
	return supervision->restarts_max == 0 || more->restarts <= supervision->restarts_max;
}

static rt_err start_again(struct rt_actor *actor)
{
	const struct rt_behaviour *behaviour = actor->behaviour;
	bool started = (actor->flags & RT_ACTOR_UNSTARTED) == 0;
	if (started && behaviour->restarted != NULL) {
		return behaviour->restarted(actor);
	}
	if (started && behaviour->stopped != NULL) {
		behaviour->stopped(actor);
	}
	if (behaviour->state_size > 0) {
		memset(rt_actor_state(actor), 0, behaviour->state_size);
	}
	rt_err err =
		behaviour->started != NULL ? behaviour->started(actor, actor->more->arg) : RT_OK;
	if (err == RT_OK) {
		actor->flags &= (uint8_t)~RT_ACTOR_UNSTARTED;
	} else {
		actor->flags |= RT_ACTOR_UNSTARTED;
	}
	return err;
}

static bool restart_later(struct rt_worker *worker, struct rt_actor *actor, uint64_t least_ms);

static void restart_now(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_ASSERT(actor->state == RT_ACTOR_WAITING);
	worker->stats.restarts++;
	actor->state = RT_ACTOR_RUNNING; /* it may send to itself and stop itself */
	rt_err err = start_again(actor);
	actor->state = RT_ACTOR_WAITING;
	bool stop = (actor->flags & RT_ACTOR_STOP_ASKED) != 0;
	if (!stop && err == RT_OK) {
		rt_actor_ready(worker, actor);
	} else if (stop || !restart_later(worker, actor, START_AGAIN_MS)) {
		rt_actor_bury(worker, actor);
	}
}

static void on_backoff(struct rt_worker *worker, struct rt_timer *timer)
{
	restart_now(worker, RT_CONTAINER(timer, struct rt_more, backoff)->actor);
}

/* Its mailbox keeps filling up to its cap meanwhile. */
static void suspend(struct rt_actor *actor)
{
	if (actor->state == RT_ACTOR_RUNNABLE || actor->state == RT_ACTOR_STALLED) {
		actor->flags |= RT_ACTOR_LISTED;
	}
	actor->state = RT_ACTOR_WAITING;
}

static bool restart_later(struct rt_worker *worker, struct rt_actor *actor, uint64_t least_ms)
{
	const struct rt_supervision *supervision = &actor->behaviour->supervision;
	struct rt_more *more = rt_more_of(actor);
	if (more == NULL || !may_restart(worker, more, supervision)) {
		return false;
	}
	rt_family_end(worker, more);
	rt_alarms_end_all(worker, more);
	rt_stash_to_mailbox(worker, actor);
	if (more->first != NULL) {
		actor->behaviour = more->first;
		more->first = NULL;
	}
	rt_timer_stop(worker, &more->backoff);
	suspend(actor);
	uint64_t delay_ms = backoff_ms(supervision, more->restarts);
	if (more->restarts == 1) {
		rt_log(RT_LOG_WARN, "actor", "%s failed; restarts in %llu ms",
			actor->behaviour->name, (unsigned long long)delay_ms);
	}
	if (delay_ms < least_ms) {
		delay_ms = least_ms;
	}
	if (delay_ms == 0) {
		restart_now(worker, actor);
	} else {
		rt_timer_init(&more->backoff, on_backoff);
		rt_timer_start(worker, &more->backoff, delay_ms);
	}
	return true;
}

static void stop_failed(struct rt_worker *worker, struct rt_actor *actor)
{
	rt_log(RT_LOG_WARN, "actor", "%s failed and is stopped", actor->behaviour->name);
	rt_actor_bury(worker, actor);
}

void rt_actor_failed(struct rt_worker *worker, struct rt_actor *actor)
{
	worker->stats.failures++;
	while (actor->behaviour->supervision.policy == RT_POLICY_ESCALATE) {
		struct rt_actor *parent = actor->more != NULL ? actor->more->parent : NULL;
		if (parent == NULL) {
			stop_failed(worker, actor);
			return;
		}
		struct rt_ref above = rt_actor_ref(parent);
		rt_actor_bury(worker, actor);
		actor = rt_actor_resolve(worker, above);
		if (actor == NULL) {
			return; /* the child's `stopped` has stopped it */
		}
		worker->stats.failures++;
	}
	RT_ASSERT(actor->state != RT_ACTOR_RUNNING && actor->state != RT_ACTOR_DEAD);
	switch (actor->behaviour->supervision.policy) {
	case RT_POLICY_RESUME:
		rt_actor_ready(worker, actor);
		break;
	case RT_POLICY_RESTART:
		if (!restart_later(worker, actor, 0)) {
			stop_failed(worker, actor);
		}
		break;
	case RT_POLICY_STOP:
	case RT_POLICY_ESCALATE:
		stop_failed(worker, actor);
		break;
	}
}
