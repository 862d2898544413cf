/*
 * field.h - one protobuf field off the front of a run of bytes; wire.c and guard.c share it, so
 * that they cannot disagree about what a field is.
 *
 * Stricter than protobuf asks: no groups, no field number 0, tags and lengths of at most five
 * bytes, varints that fit 64 bits. Memory: views borrow the bytes.
 */
#ifndef PROTO_FIELD_H
#define PROTO_FIELD_H

#include "proto/wire.h"

enum pr_wire {
	PR_WIRE_VARINT = 0,
	PR_WIRE_64 = 1,
	PR_WIRE_BYTES = 2,
	PR_WIRE_32 = 5
};

struct pr_field {
	uint32_t number;
	uint32_t wire;         /* enum pr_wire */
	uint64_t value;        /* PR_WIRE_VARINT */
	struct rt_bytes bytes; /* PR_WIRE_BYTES: the content; else the raw bytes of the value */
};

/* 1: a field, and the cursor stands behind it; 0: the end; -1: malformed. */
static inline int pr_field_next(struct rt_bytes *cursor, struct pr_field *out)
{
	if (cursor->size == 0) {
		return 0;
	}
	const uint8_t *at = cursor->data;
	const uint8_t *end = at + cursor->size;
	uint64_t tag;
	const uint8_t *next = pr_varint_get(at, end, &tag);
	if (next == NULL || next - at > 5 || tag > UINT32_MAX || tag < 8) {
		return -1;
	}
	out->number = (uint32_t)(tag >> 3);
	out->wire = (uint32_t)(tag & 7);
	out->value = 0;
	at = next;
	size_t size;
	uint64_t length;
	switch (out->wire) {
	case PR_WIRE_VARINT:
		next = pr_varint_get(at, end, &out->value);
		if (next == NULL) {
			return -1;
		}
		size = (size_t)(next - at);
		break;
	case PR_WIRE_BYTES:
		next = pr_varint_get(at, end, &length);
		if (next == NULL || next - at > 5 || length > (uint64_t)(end - next)) {
			return -1;
		}
		size = (size_t)length;
		at = next;
		break;
	case PR_WIRE_64:
	case PR_WIRE_32:
		size = out->wire == PR_WIRE_64 ? 8 : 4;
		break;
	default:
		return -1;
	}
	if (size > (size_t)(end - at)) {
		return -1;
	}
	out->bytes = rt_bytes_of(at, size);
	at += size;
	*cursor = rt_bytes_of(at, (size_t)(end - at));
	return 1;
}

#endif
