#include "runtime/sched/family.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/sched/more.h"

struct rt_more *rt_more_of(struct rt_actor *actor)
{
	if (actor->more == NULL) {
		actor->more = calloc(1, sizeof(*actor->more));
		if (actor->more != NULL) {
			actor->more->actor = actor;
			actor->more->alarms = RT_NO_INDEX;
		}
	}
	return actor->more;
}

/* ---- children ---- */

rt_err rt_spawn_child(
	struct rt_actor *self, const struct rt_behaviour *behaviour, void *arg, struct rt_ref *out)
{
	struct rt_worker *worker = rt_worker_here(self);
	if ((self->flags & RT_ACTOR_ENDING) != 0) {
		return RT_E_CLOSED;
	}
	struct rt_more *more = rt_more_of(self);
	return more != NULL ? rt_spawn_below(worker, behaviour, arg, more, out) : RT_E_NOMEM;
}

void rt_family_join(struct rt_actor *child, struct rt_more *parent)
{
	struct rt_more *more = child->more;
	more->parent = parent->actor;
	more->next = parent->first_child;
	if (more->next != NULL) {
		more->next->more->prev = child;
	}
	parent->first_child = child;
}

void rt_family_leave(struct rt_actor *actor)
{
	struct rt_more *more = actor->more;
	if (more == NULL || more->parent == NULL) {
		return;
	}
	if (more->prev != NULL) {
		more->prev->more->next = more->next;
	} else {
		RT_ASSERT(more->parent->more->first_child == actor);
		more->parent->more->first_child = more->next;
	}
	if (more->next != NULL) {
		more->next->more->prev = more->prev;
	}
	more->parent = more->next = more->prev = NULL;
}

struct rt_ref rt_actor_parent(const struct rt_actor *self)
{
	bool has = self->more != NULL && self->more->parent != NULL;
	return has ? rt_actor_ref(self->more->parent) : RT_REF_NONE;
}

/* ---- watching ---- */

static uint32_t watching_find(const struct rt_more *more, struct rt_ref ref)
{
	for (uint32_t i = 0; i < more->watching_count; i++) {
		if (rt_ref_equal(more->watching[i], ref)) {
			return i;
		}
	}
	return RT_NO_INDEX;
}

static rt_err watching_add(struct rt_more *more, struct rt_ref ref)
{
	if (more->watching_count == RT_WATCHING_MAX) {
		return RT_E_FULL;
	}
	if (more->watching_count == more->watching_cap) {
		uint32_t cap = more->watching_cap != 0 ? more->watching_cap * 2 : 4;
		struct rt_ref *grown = realloc(more->watching, cap * sizeof(*grown));
		if (grown == NULL) {
			return RT_E_NOMEM;
		}
		more->watching = grown;
		more->watching_cap = cap;
	}
	more->watching[more->watching_count++] = ref;
	return RT_OK;
}

/* Watching takes the answers' lane: it is never refused, and taking it back cannot overtake it. */
static rt_err send_control(
	struct rt_worker *worker, uint32_t type, struct rt_ref from, struct rt_ref to)
{
	struct rt_envelope *env = rt_envelope_new(worker, type);
	if (env == NULL) {
		return RT_E_NOMEM;
	}
	env->from = from;
	env->to = to;
	env->lane = RT_ANSWER;
	if (rt_ref_worker(to) == worker->index) {
		rt_actor_control(worker, rt_actor_resolve(worker, to), env);
		return RT_OK;
	}
	return rt_send(worker, env);
}

rt_err rt_watch(struct rt_actor *self, struct rt_ref ref)
{
	struct rt_worker *worker = rt_worker_here(self);
	struct rt_more *more = rt_more_of(self);
	if (more == NULL) {
		return RT_E_NOMEM;
	}
	if (rt_ref_worker(ref) >= worker->system->worker_count) {
		return RT_E_INVAL;
	}
	if (watching_find(more, ref) != RT_NO_INDEX) {
		return RT_OK;
	}
	rt_err err = watching_add(more, ref);
	if (err == RT_OK) {
		err = send_control(worker, RT_MSG_WATCH, rt_actor_ref(self), ref);
		more->watching_count -= err != RT_OK ? 1 : 0;
	}
	return err;
}

bool rt_watch_take(struct rt_actor *actor, struct rt_ref from)
{
	struct rt_more *more = actor->more;
	uint32_t at = more != NULL ? watching_find(more, from) : RT_NO_INDEX;
	if (at == RT_NO_INDEX) {
		return false;
	}
	more->watching[at] = more->watching[--more->watching_count];
	return true;
}

void rt_unwatch(struct rt_actor *self, struct rt_ref ref)
{
	if (rt_watch_take(self, ref)) {
		/* Out of memory leaves the other side a watcher that will not listen. */
		rt_err err =
			send_control(rt_worker_here(self), RT_MSG_UNWATCH, rt_actor_ref(self), ref);
		RT_MAYBE(err != RT_OK);
	}
}

static void tell_terminated(struct rt_worker *worker, struct rt_envelope *env)
{
	rt_err err = rt_send(worker, env);
	RT_ASSERT(err == RT_OK); /* answers are never refused */
}

void rt_control_watch(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	rt_turn_round(env, RT_MSG_TERMINATED);
	struct rt_more *more = actor != NULL ? rt_more_of(actor) : NULL;
	bool ending = actor == NULL || (actor->flags & RT_ACTOR_ENDING) != 0;
	if (!ending && more != NULL) {
		env->next = more->watchers;
		more->watchers = env;
	} else {
		/* Out of memory counts as terminated: who watches must not wait for ever. */
		tell_terminated(worker, env);
	}
}

void rt_control_unwatch(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	struct rt_envelope **at =
		actor != NULL && actor->more != NULL ? &actor->more->watchers : NULL;
	while (at != NULL && *at != NULL) {
		struct rt_envelope *watcher = *at;
		if (rt_ref_equal(watcher->to, env->from)) {
			*at = watcher->next;
			rt_envelope_free(worker, watcher);
			break;
		}
		at = &watcher->next;
	}
	rt_envelope_free(worker, env);
}

void rt_watch_tell_all(struct rt_worker *worker, struct rt_more *more)
{
	while (more->watchers != NULL) {
		struct rt_envelope *env = more->watchers;
		more->watchers = env->next;
		tell_terminated(worker, env);
	}
}

void rt_watch_end_all(struct rt_worker *worker, struct rt_actor *actor)
{
	struct rt_more *more = actor->more;
	while (more->watching_count > 0) {
		struct rt_ref ref = more->watching[--more->watching_count];
		rt_err err = send_control(worker, RT_MSG_UNWATCH, rt_actor_ref(actor), ref);
		RT_MAYBE(err != RT_OK);
	}
	free(more->watching);
	more->watching = NULL;
	more->watching_cap = 0;
}

/* ---- becoming, stashing ---- */

rt_err rt_become(struct rt_actor *self, const struct rt_behaviour *behaviour)
{
	RT_ASSERT(behaviour->state_size == self->behaviour->state_size);
	struct rt_more *more = rt_more_of(self);
	if (more == NULL) {
		return RT_E_NOMEM;
	}
	if (more->first == NULL) {
		more->first = self->behaviour;
	}
	self->behaviour = behaviour;
	return RT_OK;
}

rt_err rt_stash(struct rt_actor *self, struct rt_envelope *env)
{
	struct rt_worker *worker = rt_worker_here(self);
	RT_ASSERT(env == worker->current);
	struct rt_more *more = rt_more_of(self);
	if (more == NULL) {
		return RT_E_NOMEM;
	}
	uint32_t cap = self->behaviour->stash_cap != 0 ? self->behaviour->stash_cap : self->cap;
	if (more->stash_count >= cap) {
		return RT_E_FULL;
	}
	env->next = NULL;
	if (more->stash_first == NULL) {
		more->stash_first = env;
	} else {
		more->stash_last->next = env;
	}
	more->stash_last = env;
	more->stash_count++;
	worker->current = NULL;
	return RT_OK;
}

void rt_stash_to_mailbox(struct rt_worker *worker, struct rt_actor *actor)
{
	struct rt_more *more = actor->more;
	if (more == NULL || more->stash_first == NULL) {
		return;
	}
	more->stash_last->next = actor->head;
	if (actor->head == NULL) {
		actor->tail = more->stash_last;
	}
	actor->head = more->stash_first;
	actor->count += more->stash_count;
	worker->queued += more->stash_count;
	more->stash_first = more->stash_last = NULL;
	more->stash_count = 0;
}

void rt_unstash(struct rt_actor *self)
{
	rt_stash_to_mailbox(rt_worker_here(self), self);
}
