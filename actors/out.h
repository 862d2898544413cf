/*
 * out.h - what the functions of an aggregate produced in one call, packed: the other side of
 * troupe_emit, troupe_reply, troupe_refuse and troupe_tag.
 *
 * Threads: one per worker, reused; ac_out_begin forgets the last use.
 * Memory:  everything lies in one growing buffer that keeps its size; positions, not pointers,
 * until the call is over. Failure: an aggregate that emits what its tables do not know has a
 * defect: `defect` says what.
 */
#ifndef ACTORS_OUT_H
#define ACTORS_OUT_H

#include "actors/aggregate.h"
#include "actors/registry.h"
#include "runtime/base/bytes.h"

#define AC_EMIT_MAX     1000u          /* events of one command */
#define AC_EMIT_BYTES   (256u * 1024u) /* one event */
#define AC_OUT_BYTES    (900u * 1024u) /* all of one command */
#define AC_REFUSAL_TEXT 240u
#define AC_TAGS_MAX     16u
#define AC_TAG_MAX      64u

struct ac_piece {
	uint32_t pos, size;
	uint32_t index; /* event: in the aggregate's table */
};

struct troupe_out {
	const struct troupe_aggregate *aggregate;
	/* Set while an upcaster runs: the one descriptor it may emit. */
	const ProtobufCMessageDescriptor *only;
	uint8_t *bytes;
	size_t size, cap;
	struct ac_piece *events;
	uint32_t event_count, event_cap;
	struct ac_piece reply;
	bool has_reply, refused;
	struct ac_piece tags[AC_TAGS_MAX];
	uint32_t tag_count;
	char refusal[AC_REFUSAL_TEXT];
	char defect[AC_REFUSAL_TEXT]; /* "" : none */
};

void ac_out_begin(struct troupe_out *out, const struct troupe_aggregate *aggregate);
void ac_out_done(struct troupe_out *out);
struct rt_bytes ac_out_piece(const struct troupe_out *out, const struct ac_piece *piece);

/* Whose memory troupe_alloc counts from here on, on this thread. NULL: nobody's. Returns the last.
 */
size_t *ac_memory_account(size_t *bytes);

#endif
