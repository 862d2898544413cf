/*
 * aggregate.h - what the author of an aggregate writes: pure functions over protobuf messages.
 *
 * An aggregate is a struct troupe_aggregate of constants. `decide` looks at the state and a command
 * and emits events or refuses; `evolve` applies one event to the state, the same way when the event
 * is new and when it is read again years later; `answer` answers a query from the state. All are
 * pure: no clock, no random source, no I/O, no threads; what they need comes in with the command.
 *
 * Threads: one entity is touched by one thread at a time; functions share no state between
 * entities. Memory:  the state struct is zeroed before init. What it points to comes from
 * troupe_alloc and its kin, which count it against the node's memory budget. Messages passed in are
 * borrowed for the call; messages emitted are packed at once and may live on the caller's stack.
 * Failure: a contradiction in a stored event (evolve returns false) stops that one entity, named in
 *          the log; the node goes on.
 *
 * This header includes nothing of Troupe and is installed as <troupe/aggregate.h>.
 */
#ifndef TROUPE_AGGREGATE_H
#define TROUPE_AGGREGATE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TROUPE_ABI 1u /* of this header; a module built against another one is refused */

/* Collects what decide or answer produces. */
struct troupe_out;

struct troupe_command {
	const ProtobufCMessage *message; /* of the descriptor named in the table */
	uint32_t index;                  /* in troupe_aggregate.commands */
	const char *entity_id;
	const uint8_t *command_id; /* unique per command */
	size_t command_id_size;
	uint64_t time_ms; /* Unix milliseconds when the node accepted it */
	uint64_t random;  /* the same on every run of this very command */
};

struct troupe_event {
	const ProtobufCMessage *message;
	uint32_t index; /* in troupe_aggregate.events */
	uint64_t seq;
	uint64_t time_ms;
};

/* Emits one event; the message's descriptor must be in the events table (checked). Events of one
 * decide are stored all or none, in this order. */
void troupe_emit(struct troupe_out *out, const ProtobufCMessage *event);
/* The reply of a command or the answer of a query. A command without one replies an empty payload.
 */
void troupe_reply(struct troupe_out *out, const ProtobufCMessage *reply);
/* Refuses; nothing is written. The text goes to the client. Returns false so that decide can
 * `return troupe_refuse(out, "insufficient funds")`. A reply may be given along with a refusal. */
bool troupe_refuse(struct troupe_out *out, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Adds a tag to the event being tagged (tags function only). */
void troupe_tag(struct troupe_out *out, const char *tag);

/* Memory of the state, counted per entity. Never NULL: the node stops rather than lie. */
void *troupe_alloc(size_t size);
void *troupe_realloc(void *block, size_t size);
void troupe_free(void *block);
char *troupe_strdup(const char *text);

struct troupe_command_type {
	const char *name;
	const ProtobufCMessageDescriptor *message;
	const ProtobufCMessageDescriptor *reply; /* NULL: no reply payload */
};
struct troupe_query_type {
	const char *name;
	const ProtobufCMessageDescriptor *message;
	const ProtobufCMessageDescriptor *reply;
};

/* One step from an older version of an event to the next: reads a message of `from` and emits the
 * same event as version from_version + 1 with troupe_emit (its descriptor is the next step's
 * `from`, or the event type's own for the last one). Ends with an entry whose from is NULL. */
struct troupe_upcast {
	uint32_t from_version;
	const ProtobufCMessageDescriptor *from;
	void (*step)(const ProtobufCMessage *old, struct troupe_out *out);
};
struct troupe_event_type {
	const char *name; /* the manifest; never changes */
	uint32_t version; /* the one written now, 1 or more */
	const ProtobufCMessageDescriptor *message;
	const struct troupe_upcast *upcasts; /* ascending; NULL: none */
};

struct troupe_aggregate {
	const char *name; /* the type in "type|id"; [a-z][a-z0-9_-]{0,31} */
	size_t state_size;
	/* Tables end with an entry whose name is NULL. */
	const struct troupe_command_type *commands;
	const struct troupe_query_type *queries;
	const struct troupe_event_type *events;

	void (*init)(void *state, const char *entity_id); /* NULL: zeroes are the first state */
	void (*done)(void *state); /* frees what the state points to; NULL: nothing */
	/* False after troupe_refuse. No event and true: accepted, nothing to write. */
	bool (*decide)(
		const void *state, const struct troupe_command *command, struct troupe_out *out);
	/* False: the event contradicts the state. */
	bool (*evolve)(void *state, const struct troupe_event *event);
	bool (*answer)(const void *state, uint32_t query, const ProtobufCMessage *message,
		struct troupe_out *out);
	void (*tags)(const struct troupe_event *event, struct troupe_out *out); /* NULL: none */

	/* Snapshots and `troupe state`: the state as one protobuf message. save replies it with
	 * troupe_reply; restore fills a fresh state. NULL: this aggregate is always replayed. */
	const ProtobufCMessageDescriptor *snapshot;
	uint32_t snapshot_version; /* an older snapshot is ignored, the events are read instead */
	void (*save)(const void *state, struct troupe_out *out);
	bool (*restore)(void *state, const ProtobufCMessage *snapshot);
};

/* What a module (--module FILE.so) exports as `const struct troupe_module troupe_module`. */
struct troupe_module {
	uint32_t abi; /* TROUPE_ABI */
	const char *name;
	const char *version;
	const struct troupe_aggregate *const *aggregates; /* ends with NULL */
};

#ifdef __cplusplus
}
#endif

#endif
