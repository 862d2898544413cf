/*
 * actor.h - actors: a mailbox, a state, and a behaviour that handles one message at a time.
 *
 * Threads: an actor lives on one worker for ever; everything here is called on that worker. A
 *          struct rt_actor * may be used inside its own callbacks only; a struct rt_ref anywhere.
 * Memory:  a stopped actor's cell is reused under a new generation.
 * Limits:  mailbox_cap messages; a sender on the same worker gets RT_E_FULL at once, one on another
 *          worker gets RT_E_FULL when the lane is full, else RT_MSG_REFUSED or RT_MSG_BUSY later.
 */
#ifndef RUNTIME_SCHED_ACTOR_H
#define RUNTIME_SCHED_ACTOR_H

#include "runtime/sched/envelope.h"
#include "runtime/sched/worker.h"

struct rt_actor;

/* What a turn returns about the message and the actor. */
enum rt_turn {
	RT_DONE, /* handled; the runtime frees the envelope unless it was answered, kept or stashed
		  */
	RT_KEEP, /* handled; the envelope is the actor's now, which answers or frees it later */
	/* Not handled yet: the same envelope comes again, before later ones. After a refused send
	 * it comes when others have had their turn, so an actor can wait for room without a queue
	 * of its own. Two actors that wait for room in each other's mailboxes wait for ever: let
	 * only one direction of a conversation wait, or give it a window. */
	RT_AGAIN,
	RT_STOP, /* handled, and the actor stops */
	RT_FAIL  /* the actor failed; what happens next is its supervision */
};

enum rt_policy {
	RT_POLICY_STOP,
	RT_POLICY_RESUME,
	RT_POLICY_RESTART,
	RT_POLICY_ESCALATE /* stop, and the parent fails; without a parent: stop */
};

struct rt_supervision {
	enum rt_policy policy;
	uint32_t backoff_min_ms; /* 0: the first restart is at once; doubles with every restart */
	uint32_t backoff_max_ms; /* 0: 30,000 */
	uint32_t restarts_max;   /* within window_ms, then it stops; 0: no limit */
	uint32_t window_ms;      /* 0: 60,000 */
};

struct rt_behaviour {
	const char *name;
	enum rt_turn (*turn)(struct rt_actor *self, struct rt_envelope *env);
	/* State is zeroed. An error undoes the spawn. May be NULL, like the next two. */
	rt_err (*started)(struct rt_actor *self, void *arg);
	void (*stopped)(struct rt_actor *self); /* releases what the state holds */
	/* After a failure, instead of stopped + zeroed state + started(arg). An error is a failure.
	 */
	rt_err (*restarted)(struct rt_actor *self);
	uint32_t state_size;  /* bytes; up to 64 lie in the actor's cell */
	uint32_t mailbox_cap; /* 0: the system's default */
	uint32_t stash_cap;   /* 0: as mailbox_cap */
	struct rt_supervision supervision;
};

/* A new actor on this worker, on that worker or before the system is started. arg is handed to
 * started; it must outlive the actor if the actor can be restarted. RT_E_NOMEM, or what started
 * returned; then nothing exists. */
RT_NODISCARD rt_err rt_spawn(struct rt_worker *worker, const struct rt_behaviour *behaviour,
	void *arg, struct rt_ref *out);
/* Stops an actor: at once, or after its turn if it is running. What is in its mailbox becomes dead
 * letters, asks get RT_MSG_GONE. On another worker: a message, in order with tells before it;
 * RT_E_FULL as in rt_send. */
RT_NODISCARD rt_err rt_stop(struct rt_worker *worker, struct rt_ref ref);

void *rt_actor_state(struct rt_actor *self); /* 8-byte aligned, state_size bytes */
struct rt_ref rt_actor_ref(const struct rt_actor *self);
struct rt_worker *rt_actor_worker(const struct rt_actor *self);
const char *rt_actor_name(const struct rt_actor *self);

/* Like rt_send with an inline payload of size <= RT_INLINE_MAX, copied. RT_E_NOMEM, RT_E_FULL. */
RT_NODISCARD rt_err rt_tell(
	struct rt_actor *self, struct rt_ref to, uint32_t type, const void *bytes, size_t size);
/* The same from code on the worker that is no actor. */
RT_NODISCARD rt_err rt_worker_tell(
	struct rt_worker *worker, struct rt_ref to, uint32_t type, const void *bytes, size_t size);

#endif
