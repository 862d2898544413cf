/*
 * call.h - one request on its way through a node: from a listener to an entity and back.
 *
 * Threads: made by a listener, then owned by the worker of its shard until `done`, which runs there
 *          exactly once, never from inside the submit.
 * Memory:  the views (type ... command_id) are borrowed until done. The answer's bytes belong to
 * the call: read them in done or later, then ac_call_clear.
 */
#ifndef ACTORS_CALL_H
#define ACTORS_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"
#include "runtime/base/bytes.h"
#include "runtime/sched/worker.h"

#define AC_ANSWER_INLINE 48u

struct ac_call {
	struct ac_call *next; /* a chain at submit, then the runtime's own lists */
	struct rt_post post;  /* the runtime's */

	/* Set by the listener. */
	struct pr_call in;
	uint64_t deadline_ms; /* on the clock of rt_worker_now_ms; 0: none */
	void (*done)(struct ac_call *call);
	void *owner;
	uint32_t slot; /* the listener's */

	/* Set by the runtime before done; out.call_id is copied from in.call_id. */
	struct pr_answer out;

	/* Private to actors/ and sharding/. */
	uint64_t hash;
	uint64_t held_until_ms; /* waits for a leader until then; 0: has not waited yet */
	bool forwarded;         /* by another node: goes no further */
	uint32_t shard;
	uint32_t state;
	void *entity;
	uint8_t *heap; /* answer bytes that do not fit the inline space */
	uint8_t inline_[AC_ANSWER_INLINE];
	uint8_t made_id[16]; /* command id made by the node */
};

/* Frees what the answer needed; the call may be used again afterwards. */
void ac_call_clear(struct ac_call *call);
/* Forgets what was answered, so that it can be handled again from the beginning; the command id
 * that the node made for it stays. */
void ac_call_rewind(struct ac_call *call);

/* For whoever answers: sets code and error text (formatted, kept by the call). */
void ac_call_fail(struct ac_call *call, uint32_t code, const char *format, ...) RT_PRINTF(3, 4);
/* A refusal with its reason and, perhaps, a reply payload; both copied. */
void ac_call_refuse(
	struct ac_call *call, uint32_t code, const char *reason, struct rt_bytes payload);
/* Copies the payload into the call. */
void ac_call_payload(struct ac_call *call, struct rt_bytes payload);
/* Takes malloc'd memory as the payload. */
void ac_call_payload_take(struct ac_call *call, uint8_t *data, size_t size);

#endif
