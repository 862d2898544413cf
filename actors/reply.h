/*
 * reply.h - what goes into an aggregate's functions and what comes out of them: a call's payload as
 * a message, the host's `out` as a call's answer.
 *
 * Threads: the worker.
 * Memory:  messages lie in the host's arena until the caller resets it; answers are the call's.
 */
#ifndef ACTORS_REPLY_H
#define ACTORS_REPLY_H

#include "actors/shard.h"

/* The payload as a message, from protobuf or JSON. NULL: the call has failed with BAD_REQUEST and
 * is to be answered. */
ProtobufCMessage *ac_payload_read(
	struct ac_host *host, struct ac_call *call, const ProtobufCMessageDescriptor *descriptor);
/* What `out` replied, as JSON when the call wants that; refusal: why, or NULL. */
void ac_reply_take(struct ac_host *host, struct ac_call *call,
	const ProtobufCMessageDescriptor *descriptor, const char *refusal);
/* The aggregate did what it must not: logged, and the call fails with INTERNAL. */
void ac_reply_defect(
	struct ac_call *call, const struct troupe_aggregate *aggregate, const char *what);

/* Answers a query from a state at seq. True: the answer rests on the state; false: it does not
 * (unknown query, bad payload, a defect) and may leave at once. Counts the query. */
bool ac_query(struct ac_host *host, const struct ac_type *type, const void *state, uint64_t seq,
	struct ac_call *call);

#endif
