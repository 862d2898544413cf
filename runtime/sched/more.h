/*
 * more.h - what few actors need: family, watching, stash, alarms, restarts. Only runtime/sched/.
 */
#ifndef RUNTIME_SCHED_MORE_H
#define RUNTIME_SCHED_MORE_H

#include "runtime/sched/core.h"

struct rt_more {
	struct rt_actor *parent, *first_child, *next, *prev; /* next, prev: siblings */
	const struct rt_behaviour *first; /* before the first rt_become, or NULL */
	void *arg;
	struct rt_envelope *watchers; /* ready RT_MSG_TERMINATED, one per watcher */
	struct rt_ref *watching;
	uint32_t watching_count, watching_cap;
	struct rt_envelope *stash_first, *stash_last;
	uint32_t stash_count;
	uint32_t alarms; /* first slot, RT_NO_INDEX: none */
	struct rt_actor *actor;
	struct rt_timer backoff;
	uint64_t window_start_ms;
	uint32_t restarts;
};

/* The actor's, made on first use. NULL: out of memory. */
struct rt_more *rt_more_of(struct rt_actor *actor);

/* actor.c: stops all children, their children first. */
void rt_family_end(struct rt_worker *worker, struct rt_more *more);

/* family.c: parts of spawning, burying and restarting. */
void rt_family_join(struct rt_actor *child, struct rt_more *parent);
void rt_family_leave(struct rt_actor *actor);
void rt_watch_tell_all(struct rt_worker *worker, struct rt_more *more);
void rt_watch_end_all(struct rt_worker *worker, struct rt_actor *actor);
/* A RT_MSG_TERMINATED has come: true if the actor still wants it. */
bool rt_watch_take(struct rt_actor *actor, struct rt_ref from);
void rt_stash_to_mailbox(struct rt_worker *worker, struct rt_actor *actor);

/* ask.c */
void rt_alarms_end_all(struct rt_worker *worker, struct rt_more *more);

#endif
