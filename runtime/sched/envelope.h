/*
 * envelope.h - what actors are sent: a reference to whom, and a 64-byte envelope.
 *
 * Threads: an envelope belongs to one worker; between workers its bytes are copied.
 * Memory:  from the worker's pool. A small payload lies inside; a bigger one moves by pointer, and
 *          whoever ends the envelope's life calls drop (any worker's thread).
 * Order:   FIFO per sender and class, nothing between two senders. An answer may overtake an
 *          earlier request of the same sender to the same receiver: if it must not, send the last
 *          word as a request.
 */
#ifndef RUNTIME_SCHED_ENVELOPE_H
#define RUNTIME_SCHED_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct rt_worker;

/* generation:32 | worker:8 | index:24. Never leaves the process. When its actor has stopped, the
 * reference is stale for ever and what is sent to it is a dead letter. */
struct rt_ref {
	uint64_t bits; /* 0: nobody */
};

#define RT_REF_NONE ((struct rt_ref){0})

static inline bool rt_ref_equal(struct rt_ref a, struct rt_ref b)
{
	return a.bits == b.bits;
}
static inline bool rt_ref_is_none(struct rt_ref ref)
{
	return ref.bits == 0;
}
static inline uint32_t rt_ref_worker(struct rt_ref ref)
{
	return (uint32_t)(ref.bits >> 24) & 0xff;
}

/* Requests can be refused; answers never are, because whoever can get one has made room for it. */
enum rt_class {
	RT_REQUEST,
	RT_ANSWER
};

/* Types of the runtime's own messages; an application's are below RT_MSG_FIRST. */
enum {
	RT_MSG_FIRST = 0x7fff0000,
	RT_MSG_BUSY = RT_MSG_FIRST, /* to an ask: the mailbox was full; payload comes back */
	RT_MSG_GONE,                /* to an ask: no such actor (any more); payload comes back */
	RT_MSG_TIMEOUT,             /* to an ask: no answer in time */
	RT_MSG_FAILED,              /* to an ask: the actor failed while it handled it */
	RT_MSG_REFUSED,             /* a tell comes back: mailbox full; see rt_envelope_refused */
	RT_MSG_TERMINATED,          /* from: a watched actor that has stopped */
	RT_MSG_SPAWNED,             /* to rt_spawn_on: words[0] is an rt_err, from the new actor */
	RT_MSG_INTERNAL             /* from here on never seen by an actor */
};

#define RT_INLINE_MAX 24u

enum {
	RT_ENV_OUT = 1
}; /* flags: body.out is in use and owned by the envelope */

struct rt_envelope {
	struct rt_envelope *next; /* mailbox, pool or stash; the owner's */
	struct rt_ref to, from;
	uint64_t ask; /* generation:32 | slot:32 in the asking worker's table; 0: a tell */
	uint32_t type;
	uint16_t size; /* of an inline payload */
	uint8_t lane;  /* enum rt_class */
	uint8_t flags;
	union {
		uint8_t bytes[RT_INLINE_MAX];
		uint64_t words[RT_INLINE_MAX / 8];
		struct {
			void *bytes;
			void (*drop)(void *bytes); /* may be NULL */
			size_t size;               /* as the sender says */
		} out;
	} body;
};

_Static_assert(sizeof(struct rt_envelope) == 64, "one cache line");

/* An empty request of this type from the worker's pool, zeroed. NULL: out of memory. */
RT_NODISCARD struct rt_envelope *rt_envelope_new(struct rt_worker *worker, uint32_t type);
/* Drops the payload and gives the envelope back. */
void rt_envelope_free(struct rt_worker *worker, struct rt_envelope *env);

/* Hands the payload over: drop will be called exactly once, unless body.out is taken out again. */
static inline void rt_envelope_set_out(
	struct rt_envelope *env, void *bytes, size_t size, void (*drop)(void *bytes))
{
	env->flags |= RT_ENV_OUT;
	env->body.out.bytes = bytes;
	env->body.out.drop = drop;
	env->body.out.size = size;
}

/* Moves the payload out of the envelope to the caller. */
static inline void *rt_envelope_take_out(struct rt_envelope *env)
{
	env->flags &= (uint8_t)~RT_ENV_OUT;
	return env->body.out.bytes;
}

/* The type a tell had before it came back as RT_MSG_REFUSED. */
static inline uint32_t rt_envelope_refused(const struct rt_envelope *env)
{
	return (uint32_t)env->ask;
}

/* Sends env->body from env->from (RT_REF_NONE: nobody to answer) to env->to. On the worker.
 * RT_OK moves env in: delivered, on its way, or a dead letter. RT_E_FULL: the mailbox, or the lane
 * to the other worker, has no room; env and its payload stay the caller's. */
RT_NODISCARD rt_err rt_send(struct rt_worker *worker, struct rt_envelope *env);

#endif
