/*
 * family.h - what relates actors to others and to their own past: children, watching, becoming
 * somebody else, and putting messages aside.
 *
 * Threads: as in actor.h.
 */
#ifndef RUNTIME_SCHED_FAMILY_H
#define RUNTIME_SCHED_FAMILY_H

#include "runtime/sched/actor.h"

#define RT_WATCHING_MAX 65536u

/* Like rt_spawn; the child stops before its parent does, when the parent restarts too, and may
 * escalate a failure to it. RT_E_CLOSED: the parent is stopping. */
RT_NODISCARD rt_err rt_spawn_child(
	struct rt_actor *self, const struct rt_behaviour *behaviour, void *arg, struct rt_ref *out);
struct rt_ref rt_actor_parent(const struct rt_actor *self); /* RT_REF_NONE: none */

/* Sends self one RT_MSG_TERMINATED from ref when that actor stops, at once if it has. A second
 * watch of the same actor is a no-op. RT_E_NOMEM, RT_E_FULL: over RT_WATCHING_MAX. */
RT_NODISCARD rt_err rt_watch(struct rt_actor *self, struct rt_ref ref);
/* No RT_MSG_TERMINATED from ref is handled after this. */
void rt_unwatch(struct rt_actor *self, struct rt_ref ref);

/* The next message is handled by this behaviour; state stays, so its size must be the same. started
 * and stopped of the new behaviour are not called now; stopped is at the end. A restart returns to
 * the first behaviour. RT_E_NOMEM. */
RT_NODISCARD rt_err rt_become(struct rt_actor *self, const struct rt_behaviour *behaviour);

/* Puts the message of this turn aside. RT_E_FULL: over stash_cap, the message is still the turn's.
 */
RT_NODISCARD rt_err rt_stash(struct rt_actor *self, struct rt_envelope *env);
/* Puts all of them in front of the mailbox, in the order they came. */
void rt_unstash(struct rt_actor *self);

#endif
