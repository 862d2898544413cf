#include <stdlib.h>
#include <string.h>

#include "runtime/sched/more.h"

static struct rt_actor *cell_at(const struct rt_worker *worker, uint32_t index)
{
	return &worker->slabs[index / RT_SLAB_CELLS][index % RT_SLAB_CELLS];
}

/* ---- cells ---- */

static struct rt_actor *cell_new(struct rt_worker *worker)
{
	uint32_t index = worker->actors_made;
	if (index >= worker->actors_max) {
		return NULL;
	}
	struct rt_actor **slab = &worker->slabs[index / RT_SLAB_CELLS];
	if (*slab == NULL) {
		*slab = aligned_alloc(128, RT_SLAB_CELLS * sizeof(struct rt_actor));
		if (*slab == NULL) {
			return NULL;
		}
	}
	worker->actors_made++;
	struct rt_actor *actor = &(*slab)[index % RT_SLAB_CELLS];
	actor->generation = 1;
	actor->address = worker->index << RT_INDEX_BITS | index;
	return actor;
}

static struct rt_actor *cell_take(struct rt_worker *worker)
{
	struct rt_actor *actor = worker->free_actors;
	if (actor != NULL) {
		RT_DASSERT(actor->state == RT_ACTOR_DEAD);
		worker->free_actors = actor->run_next;
		return actor;
	}
	return cell_new(worker);
}

static void release(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_DASSERT(actor->state == RT_ACTOR_DEAD && actor->head == NULL);
	actor->run_next = worker->free_actors;
	worker->free_actors = actor;
}

static bool is_outside(const struct rt_actor *actor)
{
	return actor->behaviour->state_size > RT_CELL_STATE;
}

/* ---- start ---- */

static const struct rt_behaviour nothing = {.name = "not started"};

static void cell_fill(
	struct rt_worker *worker, struct rt_actor *actor, const struct rt_behaviour *behaviour)
{
	actor->head = actor->tail = NULL;
	actor->run_next = NULL;
	actor->behaviour = behaviour;
	actor->count = 0;
	actor->cap = behaviour->mailbox_cap != 0 ? behaviour->mailbox_cap
						 : worker->system->options.mailbox_cap;
	actor->more = NULL;
	actor->state = RT_ACTOR_IDLE;
	actor->flags = 0;
	actor->refusals = 0;
	memset(&actor->data, 0, sizeof(actor->data));
	worker->actor_count++;
}

static rt_err make_more(struct rt_actor *actor, const struct rt_behaviour *behaviour, void *arg,
	struct rt_more *parent)
{
	if (behaviour->state_size > RT_CELL_STATE) {
		actor->data.outside = calloc(1, behaviour->state_size);
		if (actor->data.outside == NULL) {
			return RT_E_NOMEM;
		}
	}
	bool again = behaviour->supervision.policy == RT_POLICY_RESTART && arg != NULL;
	if (parent != NULL || again) {
		struct rt_more *more = rt_more_of(actor);
		if (more == NULL) {
			return RT_E_NOMEM;
		}
		more->arg = arg;
	}
	if (parent != NULL) {
		rt_family_join(actor, parent);
	}
	return RT_OK;
}

static rt_err call_started(struct rt_worker *worker, struct rt_actor *actor, void *arg)
{
	struct rt_worker *outer = rt_worker_current;
	rt_worker_current = worker;
	actor->state = RT_ACTOR_RUNNING; /* it may send to itself and stop itself */
	rt_err err = actor->behaviour->started(actor, arg);
	actor->state = RT_ACTOR_IDLE;
	rt_worker_current = outer;
	return err;
}

rt_err rt_spawn_below(struct rt_worker *worker, const struct rt_behaviour *behaviour, void *arg,
	struct rt_more *parent, struct rt_ref *out)
{
	RT_DASSERT(rt_is_owner(worker));
	struct rt_actor *actor = cell_take(worker);
	if (actor == NULL) {
		return RT_E_NOMEM;
	}
	cell_fill(worker, actor, behaviour);
	rt_err err = RT_OK;
	if (parent != NULL || behaviour->state_size > RT_CELL_STATE || arg != NULL) {
		err = make_more(actor, behaviour, arg, parent);
	}
	if (err == RT_OK && behaviour->started != NULL) {
		err = call_started(worker, actor, arg);
	}
	if (err != RT_OK) {
		actor->flags |= RT_ACTOR_UNSTARTED;
		rt_actor_bury(worker, actor);
		return err;
	}
	*out = rt_actor_ref(actor);
	if ((actor->flags & RT_ACTOR_STOP_ASKED) != 0) {
		rt_actor_bury(worker, actor);
	} else {
		rt_actor_ready(worker, actor);
	}
	return RT_OK;
}

rt_err rt_spawn(struct rt_worker *worker, const struct rt_behaviour *behaviour, void *arg,
	struct rt_ref *out)
{
	return rt_spawn_below(worker, behaviour, arg, NULL, out);
}

void rt_actor_ready(struct rt_worker *worker, struct rt_actor *actor)
{
	if ((actor->flags & RT_ACTOR_LISTED) != 0) {
		actor->flags &= (uint8_t)~RT_ACTOR_LISTED;
		actor->state = RT_ACTOR_RUNNABLE;
	} else if (actor->head != NULL) {
		actor->state = RT_ACTOR_RUNNABLE;
		rt_run_push(worker, actor);
	} else {
		actor->state = RT_ACTOR_IDLE;
	}
}

void rt_actor_unlist(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_ASSERT(actor->state == RT_ACTOR_DEAD || actor->state == RT_ACTOR_WAITING);
	if (actor->state == RT_ACTOR_DEAD) {
		release(worker, actor);
	} else {
		actor->flags &= (uint8_t)~RT_ACTOR_LISTED;
	}
}

/* ---- end ---- */

static void end_more(struct rt_worker *worker, struct rt_actor *actor)
{
	struct rt_more *more = actor->more;
	rt_family_leave(actor);
	rt_timer_stop(worker, &more->backoff);
	rt_alarms_end_all(worker, more);
	rt_watch_end_all(worker, actor);
	rt_stash_to_mailbox(worker, actor);
}

static void end_mailbox(struct rt_worker *worker, struct rt_actor *actor)
{
	struct rt_envelope *env = actor->head;
	worker->queued -= actor->count;
	actor->head = actor->tail = NULL;
	actor->count = 0;
	while (env != NULL) {
		struct rt_envelope *next = env->next;
		rt_dead_letter(worker, env, RT_DEAD_STOPPED);
		env = next;
	}
}

/* One actor without children. */
static void bury_one(struct rt_worker *worker, struct rt_actor *actor)
{
	bool listed = actor->state == RT_ACTOR_RUNNABLE || actor->state == RT_ACTOR_STALLED ||
		      (actor->flags & RT_ACTOR_LISTED) != 0;
	struct rt_more *more = actor->more;
	actor->flags |= RT_ACTOR_ENDING;
	actor->state = RT_ACTOR_RUNNING; /* nothing schedules it while `stopped` sends */
	if (actor->behaviour->stopped != NULL && (actor->flags & RT_ACTOR_UNSTARTED) == 0) {
		actor->behaviour->stopped(actor);
		more = actor->more;
	}
	if (is_outside(actor)) {
		free(actor->data.outside);
	}
	if (more != NULL) {
		end_more(worker, actor);
	}
	/* 0 would be nobody, the highest stands for a worker itself (rt_spawn_on). */
	actor->generation += actor->generation >= UINT32_MAX - 1 ? 3 : 1;
	actor->behaviour = &nothing;
	actor->state = RT_ACTOR_DEAD;
	actor->more = NULL;
	worker->actor_count--;
	if (actor->head != NULL) {
		end_mailbox(worker, actor);
	}
	if (more != NULL) {
		rt_watch_tell_all(worker, more);
		free(more);
	}
	if (!listed) {
		release(worker, actor);
	}
}

void rt_family_end(struct rt_worker *worker, struct rt_more *more)
{
	while (more->first_child != NULL) {
		struct rt_actor *actor = more->first_child;
		actor->flags |= RT_ACTOR_ENDING;
		RT_ASSERT(actor->more != NULL); /* it has a parent */
		while (actor->more->first_child != NULL) {
			actor = actor->more->first_child;
			RT_ASSERT(actor->more != NULL);
			actor->flags |= RT_ACTOR_ENDING;
		}
		if (actor->state == RT_ACTOR_RUNNING) {
			actor->flags |= RT_ACTOR_STOP_ASKED; /* it stops its own ancestor */
			rt_family_leave(actor);
		} else {
			bury_one(worker, actor);
		}
	}
}

void rt_actor_bury(struct rt_worker *worker, struct rt_actor *actor)
{
	RT_ASSERT(actor->state != RT_ACTOR_DEAD && actor->state != RT_ACTOR_RUNNING);
	struct rt_worker *outer = rt_worker_current;
	rt_worker_current = worker;
	actor->flags |= RT_ACTOR_ENDING;
	if (actor->more != NULL) {
		rt_family_end(worker, actor->more);
	}
	bury_one(worker, actor);
	rt_worker_current = outer;
}

void rt_actor_bury_all(struct rt_worker *worker)
{
	for (uint32_t i = 0; i < worker->actors_made; i++) {
		struct rt_actor *actor = cell_at(worker, i);
		if (actor->state != RT_ACTOR_DEAD) {
			rt_actor_bury(worker, actor);
		}
	}
}

rt_err rt_stop(struct rt_worker *worker, struct rt_ref ref)
{
	RT_DASSERT(rt_is_owner(worker));
	if (rt_ref_worker(ref) != worker->index) {
		struct rt_envelope *env = rt_envelope_new(worker, RT_MSG_STOP);
		if (env == NULL) {
			return RT_E_NOMEM;
		}
		env->to = ref;
		rt_err err = rt_send(worker, env);
		if (err != RT_OK) {
			rt_envelope_free(worker, env);
		}
		return err;
	}
	struct rt_actor *actor = rt_actor_resolve(worker, ref);
	if (actor == NULL || (actor->flags & RT_ACTOR_ENDING) != 0) {
		return RT_OK;
	}
	if (actor->state == RT_ACTOR_RUNNING) {
		actor->flags |= RT_ACTOR_STOP_ASKED;
	} else {
		rt_actor_bury(worker, actor);
	}
	return RT_OK;
}

void rt_actor_control(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	switch (env->type) {
	case RT_MSG_WATCH:
		rt_control_watch(worker, actor, env);
		break;
	case RT_MSG_UNWATCH:
		rt_control_unwatch(worker, actor, env);
		break;
	case RT_MSG_SPAWN:
		rt_control_spawn(worker, env);
		break;
	default:
		RT_ASSERT(env->type == RT_MSG_STOP);
		if (actor != NULL) {
			rt_actor_bury(worker, actor);
		}
		rt_envelope_free(worker, env);
		break;
	}
}

/* ---- self ---- */

void *rt_actor_state(struct rt_actor *self)
{
	return is_outside(self) ? self->data.outside : (void *)&self->data;
}

struct rt_ref rt_actor_ref(const struct rt_actor *self)
{
	return rt_actor_self(self);
}

struct rt_worker *rt_actor_worker(const struct rt_actor *self)
{
	return rt_worker_here(self);
}

const char *rt_actor_name(const struct rt_actor *self)
{
	return self->behaviour->name;
}
