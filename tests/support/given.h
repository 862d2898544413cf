/*
 * given.h - given / when / then for aggregates: the functions of one entity called directly, with
 * every event and snapshot packed and unpacked as the journal does.
 *
 *     struct given g;
 *     given_new(&g, &account_aggregate, "alice");
 *     given_event(&g, &opened.base);
 *     when_command(&g, &deposit.base);
 *     then_event(&g, &deposited.base);
 *     then_reply(&g, &standing.base);
 *     given_free(&g);
 *
 * Only the main thread: failed claims longjmp.
 */
#ifndef TESTS_SUPPORT_GIVEN_H
#define TESTS_SUPPORT_GIVEN_H

#include "actors/out.h"
#include "tests/support/test.h"

#define GIVEN_HISTORY_MAX 4096u

struct given_stored {
	uint32_t index;
	size_t size;
	uint8_t *packed;
};

struct given {
	const struct troupe_aggregate *aggregate;
	const char *id;
	void *state;
	size_t state_bytes; /* what the state holds through troupe_alloc */
	struct troupe_out out;
	const uint8_t *command_id;
	size_t command_id_size;
	bool accepted;
	struct given_stored history[GIVEN_HISTORY_MAX];
	uint32_t history_size, before; /* before: history_size when the last command came */
};

void given_new(struct given *given, const struct troupe_aggregate *aggregate, const char *id);
void given_free(struct given *given); /* fails when the state leaks */

/* An event of the past: must fit the state. */
void given_event(struct given *given, const ProtobufCMessage *event);
void given_command_id(struct given *given, const void *id, size_t size);

/* Decides, and evolves the events of an accepted command. */
void when_command(struct given *given, const ProtobufCMessage *command);
void when_query(struct given *given, const ProtobufCMessage *query);
/* A fresh state from the whole history, which must be the same state. */
void when_replayed(struct given *given);
/* A fresh state from a snapshot of this one, which must save the same snapshot. */
void when_restored(struct given *given);

/* Exactly this one event, byte for byte. */
void then_event(struct given *given, const ProtobufCMessage *event);
void then_events(struct given *given, uint32_t count);
void then_reply(struct given *given, const ProtobufCMessage *reply);
/* No event, this text. */
void then_refused(struct given *given, const char *text);
/* The stored event must be called a contradiction. */
void then_contradicts(struct given *given, const ProtobufCMessage *event);
/* Unpacks the last reply; free with protobuf_c_message_free_unpacked(x, NULL). */
ProtobufCMessage *then_replied(struct given *given, const ProtobufCMessageDescriptor *descriptor);

#endif
