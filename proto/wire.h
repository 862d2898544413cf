/*
 * wire.h - the hot messages of troupe.proto by hand: Batch taken apart into views over the received
 * bytes, Answers written straight into the outgoing message. Checked against protobuf-c in tests.
 *
 * Memory: views borrow the bytes they were read from. Limits: guard included; never trusts a
 * length.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

#define PR_CALLS_MAX      1024u
#define PR_ID_MAX         128u
#define PR_TYPE_MAX       32u
#define PR_NAME_MAX       64u
#define PR_COMMAND_ID_MAX 64u
#define PR_PAYLOAD_MAX    (256u * 1024u)

struct pr_call {
	uint64_t call_id;
	struct rt_bytes type, id, name, payload, command_id;
	uint64_t expected; /* sequence number + 1; 0: any */
	uint64_t after;    /* offset in the entity's shard that a read must include; 0: any */
	uint32_t kind, timeout_ms;
	bool json, stale;
};

struct pr_answer {
	uint64_t call_id;
	uint32_t code, shard, retry_after_ms, events;
	uint64_t offset, seq, node;
	struct rt_bytes payload, error, command_id;
	bool repeated;
};

/* Walks a Batch: *cursor starts as the whole message. 1: a call; 0: the end; -1: malformed, stop.
 * Accepts what pr_guard_check accepts for Batch, without its field count (each field costs
 * nanoseconds and no memory here). The sizes above are the caller's to check, per call, so that one
 * call over a limit gets an answer and the others are served. */
int pr_batch_next(struct rt_bytes *cursor, struct pr_call *out);

size_t pr_answer_size(const struct pr_answer *answer); /* inside Answers, with tag and length */
uint8_t *pr_answer_put(uint8_t *at, const struct pr_answer *answer);
int pr_answers_next(struct rt_bytes *cursor, struct pr_answer *out); /* as pr_batch_next */
size_t pr_call_size(const struct pr_call *call);
uint8_t *pr_call_put(uint8_t *at, const struct pr_call *call);
/* One Call or Answer without the tag and length in front: for a sender that adds fields of its own
 * at either end, and for nodes that hand a call on. get takes the whole of body, as strictly as the
 * walks above; false: malformed, *out is of no use. */
size_t pr_call_body_size(const struct pr_call *call);
uint8_t *pr_call_body_put(uint8_t *at, const struct pr_call *call);
RT_NODISCARD bool pr_call_body_get(struct rt_bytes body, struct pr_call *out);
size_t pr_answer_body_size(const struct pr_answer *answer);
uint8_t *pr_answer_body_put(uint8_t *at, const struct pr_answer *answer);
RT_NODISCARD bool pr_answer_body_get(struct rt_bytes body, struct pr_answer *out);

/* Varints for other hand-written codecs (record.c). */
static inline size_t pr_varint_size(uint64_t value)
{
	return value == 0 ? 1 : (size_t)(63 - __builtin_clzll(value)) / 7 + 1;
}
static inline uint8_t *pr_varint_put(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}
/* NULL: cut off, or more than 64 bits. */
static inline const uint8_t *pr_varint_get(const uint8_t *at, const uint8_t *end, uint64_t *out)
{
	uint64_t value = 0;
	for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
		uint8_t byte = *at++;
		if (shift == 63 && byte > 1) {
			return NULL;
		}
		value |= (uint64_t)(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0) {
			*out = value;
			return at;
		}
	}
	return NULL;
}

#endif
