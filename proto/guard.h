/*
 * guard.h - looks at bytes before protobuf-c does, which has no limits of its own.
 *
 * A scan driven by the descriptor: depth, number of fields, lengths inside their parent, wire
 * types, UTF-8 of strings (without NUL). Unknown fields pass. What passes can be unpacked in
 * bounded stack and memory. Threads: any. Blocking: never. Nothing is allocated.
 */
#ifndef PROTO_GUARD_H
#define PROTO_GUARD_H

#include <protobuf-c/protobuf-c.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

#define PR_DEPTH_MAX  32u
#define PR_FIELDS_MAX 32768u          /* in all, nested ones included: a page of 3,000 events */
#define PR_FRAME_MAX  (1024u * 1024u) /* one nng message */

/* RT_E_PROTO malformed, RT_E_TOOLARGE depth or field count; the detail (may be NULL) names the
 * field path and the byte position. */
RT_NODISCARD rt_err pr_guard_check(const ProtobufCMessageDescriptor *descriptor,
	struct rt_bytes bytes, struct rt_errinfo *info);

#endif
