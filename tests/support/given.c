#include "tests/support/given.h"

#include <stdlib.h>
#include <string.h>

static void *new_state(struct given *given)
{
	const struct troupe_aggregate *aggregate = given->aggregate;
	void *state = calloc(1, aggregate->state_size);
	assert_non_null(state);
	if (aggregate->init != NULL) {
		aggregate->init(state, given->id);
	}
	return state;
}

static void free_state(struct given *given, void *state)
{
	if (given->aggregate->done != NULL) {
		given->aggregate->done(state);
	}
	free(state);
}

void given_new(struct given *given, const struct troupe_aggregate *aggregate, const char *id)
{
	memset(given, 0, sizeof(*given));
	given->aggregate = aggregate;
	given->id = id;
	given->command_id = (const uint8_t *)"c-1";
	given->command_id_size = 3;
	ac_memory_account(&given->state_bytes);
	given->state = new_state(given);
}

void given_free(struct given *given)
{
	free_state(given, given->state);
	assert_int_equal(given->state_bytes, 0);
	ac_memory_account(NULL);
	for (uint32_t i = 0; i < given->history_size; i++) {
		free(given->history[i].packed);
	}
	ac_out_done(&given->out);
}

void given_command_id(struct given *given, const void *id, size_t size)
{
	given->command_id = id;
	given->command_id_size = size;
}

static bool evolve(struct given *given, void *state, uint32_t at)
{
	const struct given_stored *stored = &given->history[at];
	ProtobufCMessage *message =
		protobuf_c_message_unpack(given->aggregate->events[stored->index].message, NULL,
			stored->size, stored->packed);
	assert_non_null(message);
	struct troupe_event event = {
		.message = message, .index = stored->index, .seq = at + 1, .time_ms = 1};
	bool fits = given->aggregate->evolve(state, &event);
	protobuf_c_message_free_unpacked(message, NULL);
	return fits;
}

static void store(struct given *given, uint32_t index, struct rt_bytes packed)
{
	struct given_stored *stored = &given->history[given->history_size];
	assert_true(given->history_size < GIVEN_HISTORY_MAX);
	stored->index = index;
	stored->size = packed.size;
	stored->packed = malloc(packed.size + 1);
	assert_non_null(stored->packed);
	if (packed.size > 0) {
		memcpy(stored->packed, packed.data, packed.size);
	}
	given->history_size++;
}

/* Emitting is also how a test's own event gets its index. */
static void store_message(struct given *given, const ProtobufCMessage *event)
{
	ac_out_begin(&given->out, given->aggregate);
	troupe_emit(&given->out, event);
	assert_string_equal(given->out.defect, "");
	store(given, given->out.events[0].index, ac_out_piece(&given->out, &given->out.events[0]));
}

void given_event(struct given *given, const ProtobufCMessage *event)
{
	store_message(given, event);
	assert_true(evolve(given, given->state, given->history_size - 1));
}

void then_contradicts(struct given *given, const ProtobufCMessage *event)
{
	store_message(given, event);
	assert_false(evolve(given, given->state, given->history_size - 1));
	free(given->history[--given->history_size].packed);
}

void when_command(struct given *given, const ProtobufCMessage *command)
{
	const struct troupe_command_type *types = given->aggregate->commands;
	uint32_t index = 0;
	while (types[index].name != NULL && types[index].message != command->descriptor) {
		index++;
	}
	assert_non_null(types[index].name);
	struct troupe_command wanted = {.message = command,
		.index = index,
		.entity_id = given->id,
		.command_id = given->command_id,
		.command_id_size = given->command_id_size,
		.time_ms = 1,
		.random = 1};
	ac_out_begin(&given->out, given->aggregate);
	given->accepted = given->aggregate->decide(given->state, &wanted, &given->out);
	assert_string_equal(given->out.defect, "");
	assert_int_equal(given->out.refused, !given->accepted);
	given->before = given->history_size;
	if (!given->accepted) {
		return;
	}
	for (uint32_t i = 0; i < given->out.event_count; i++) {
		const struct ac_piece *piece = &given->out.events[i];
		store(given, piece->index, ac_out_piece(&given->out, piece));
		assert_true(evolve(given, given->state, given->history_size - 1));
	}
}

void when_query(struct given *given, const ProtobufCMessage *query)
{
	const struct troupe_query_type *types = given->aggregate->queries;
	uint32_t index = 0;
	while (types[index].name != NULL && types[index].message != query->descriptor) {
		index++;
	}
	assert_non_null(types[index].name);
	ac_out_begin(&given->out, given->aggregate);
	given->before = given->history_size;
	given->accepted = given->aggregate->answer(given->state, index, query, &given->out);
	assert_string_equal(given->out.defect, "");
	assert_int_equal(given->out.event_count, 0);
}

/* The snapshot in malloc'd memory. */
static struct rt_bytes saved(struct given *given, const void *state)
{
	ac_out_begin(&given->out, given->aggregate);
	given->aggregate->save(state, &given->out);
	assert_true(given->out.has_reply);
	struct rt_bytes piece = ac_out_piece(&given->out, &given->out.reply);
	uint8_t *copy = malloc(piece.size + 1);
	assert_non_null(copy);
	if (piece.size > 0) {
		memcpy(copy, piece.data, piece.size);
	}
	return rt_bytes_of(copy, piece.size);
}

static void replace_state(struct given *given, void *fresh)
{
	struct rt_bytes old = saved(given, given->state);
	struct rt_bytes new = saved(given, fresh);
	assert_true(rt_bytes_equal(old, new));
	free((void *)(uintptr_t)old.data);
	free((void *)(uintptr_t) new.data);
	free_state(given, given->state);
	given->state = fresh;
}

void when_replayed(struct given *given)
{
	void *fresh = new_state(given);
	for (uint32_t i = 0; i < given->history_size; i++) {
		assert_true(evolve(given, fresh, i));
	}
	replace_state(given, fresh);
}

void when_restored(struct given *given)
{
	struct rt_bytes bytes = saved(given, given->state);
	ProtobufCMessage *snapshot =
		protobuf_c_message_unpack(given->aggregate->snapshot, NULL, bytes.size, bytes.data);
	free((void *)(uintptr_t)bytes.data);
	assert_non_null(snapshot);
	void *fresh = new_state(given);
	assert_true(given->aggregate->restore(fresh, snapshot));
	protobuf_c_message_free_unpacked(snapshot, NULL);
	replace_state(given, fresh);
}

static void assert_same(const ProtobufCMessage *expected, struct rt_bytes found)
{
	size_t size = protobuf_c_message_get_packed_size(expected);
	uint8_t *packed = malloc(size + 1);
	assert_non_null(packed);
	protobuf_c_message_pack(expected, packed);
	assert_int_equal(found.size, size);
	assert_memory_equal(found.data, packed, size);
	free(packed);
}

void then_events(struct given *given, uint32_t count)
{
	assert_true(given->accepted);
	assert_int_equal(given->history_size - given->before, count);
}

void then_event(struct given *given, const ProtobufCMessage *event)
{
	then_events(given, 1);
	const struct given_stored *stored = &given->history[given->before];
	assert_ptr_equal(given->aggregate->events[stored->index].message, event->descriptor);
	assert_same(event, rt_bytes_of(stored->packed, stored->size));
}

void then_reply(struct given *given, const ProtobufCMessage *reply)
{
	assert_true(given->out.has_reply);
	assert_same(reply, ac_out_piece(&given->out, &given->out.reply));
}

void then_refused(struct given *given, const char *text)
{
	assert_false(given->accepted);
	assert_string_equal(given->out.refusal, text);
	assert_int_equal(given->out.event_count, 0);
	assert_int_equal(given->history_size, given->before);
}

ProtobufCMessage *then_replied(struct given *given, const ProtobufCMessageDescriptor *descriptor)
{
	assert_true(given->out.has_reply);
	struct rt_bytes bytes = ac_out_piece(&given->out, &given->out.reply);
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, bytes.size, bytes.data);
	assert_non_null(message);
	return message;
}
