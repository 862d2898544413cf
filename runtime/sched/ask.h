/*
 * ask.h - questions with an answer or a timeout, and messages an actor sends itself later.
 *
 * Threads: as in actor.h.
 * Order:   answers have lanes of their own and may overtake tells.
 * Limits:  RT_PENDING_MAX questions and alarms per worker, then RT_E_NOMEM.
 * Failure: every ask gets exactly one of: the answer, RT_MSG_BUSY, RT_MSG_GONE, RT_MSG_FAILED,
 *          RT_MSG_TIMEOUT; what comes after that is a dead letter.
 */
#ifndef RUNTIME_SCHED_ASK_H
#define RUNTIME_SCHED_ASK_H

#include "runtime/sched/actor.h"

#define RT_PENDING_MAX (1u << 20)

/* Runs as a turn of the asking actor; env is the answer, like the envelope of a turn. Never called
 * when the asker has stopped or restarted since. */
typedef enum rt_turn rt_ask_fn(struct rt_actor *self, struct rt_envelope *env, void *arg);

/* Sends env (type and body set) to an actor and calls then with what comes back. timeout_ms 0:
 * 10,000. RT_OK moves env in; RT_E_FULL, RT_E_NOMEM leave it with the caller and then is not
 * called. */
RT_NODISCARD rt_err rt_ask(struct rt_actor *self, struct rt_ref to, struct rt_envelope *env,
	uint32_t timeout_ms, rt_ask_fn *then, void *arg);

/* Turns an ask around as its answer; moves env in and never fails. type and body are the answer's;
 * the request's payload, if it moved by pointer, has been taken out. In the turn that handles env
 * or later (after RT_KEEP), from the actor or other code on its worker. */
void rt_answer(struct rt_worker *worker, struct rt_envelope *env);
/* The same with an inline answer; drops the request's payload. */
void rt_reply(struct rt_actor *self, struct rt_envelope *env, uint32_t type, const void *bytes,
	size_t size);
/* Passes a message on; the answer goes to whoever asked first. Errors as in rt_send. */
RT_NODISCARD rt_err rt_forward(struct rt_actor *self, struct rt_ref to, struct rt_envelope *env);

/* Like rt_spawn, on another worker; then gets RT_MSG_SPAWNED: env->from is the new actor when
 * words[0] is RT_OK. arg crosses threads. */
RT_NODISCARD rt_err rt_spawn_on(struct rt_actor *self, uint32_t worker,
	const struct rt_behaviour *behaviour, void *arg, rt_ask_fn *then, void *then_arg);

struct rt_alarm {
	uint64_t bits; /* generation:32 | slot:32; 0: none */
};

/* Tells self this type with words[0] = word after so many milliseconds, once. An alarm is never
 * refused; it ends with its actor and with a restart. */
RT_NODISCARD rt_err rt_alarm_start(struct rt_actor *self, uint64_t after_ms, uint32_t type,
	uint64_t word, struct rt_alarm *out);
/* After this the message does not come, even if it waits in the mailbox. True: it was still to
 * come. A stale alarm or none is fine. */
bool rt_alarm_cancel(struct rt_actor *self, struct rt_alarm alarm);

#endif
