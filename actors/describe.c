#include <stdlib.h>
#include <string.h>

#include "actors/registry.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/arena.h"
#include "runtime/base/assert.h"

static const char *field_type(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return "int32";
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return "int64";
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return "uint32";
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return "uint64";
	case PROTOBUF_C_TYPE_FLOAT:
		return "float";
	case PROTOBUF_C_TYPE_DOUBLE:
		return "double";
	case PROTOBUF_C_TYPE_BOOL:
		return "bool";
	case PROTOBUF_C_TYPE_ENUM:
		return ((const ProtobufCEnumDescriptor *)field->descriptor)->name;
	case PROTOBUF_C_TYPE_STRING:
		return "string";
	case PROTOBUF_C_TYPE_BYTES:
		return "bytes";
	case PROTOBUF_C_TYPE_MESSAGE:
		return ((const ProtobufCMessageDescriptor *)field->descriptor)->name;
	default:
		return "unknown";
	}
}

static size_t describe_fields(
	struct rt_arena *arena, const ProtobufCMessageDescriptor *message, Troupe__FieldType ***out)
{
	if (message == NULL) {
		return 0;
	}
	Troupe__FieldType **fields =
		rt_arena_alloc(arena, (message->n_fields + 1) * sizeof(*fields));
	for (unsigned i = 0; i < message->n_fields; i++) {
		fields[i] = rt_arena_alloc(arena, sizeof(**fields));
		troupe__field_type__init(fields[i]);
		fields[i]->name = (char *)(uintptr_t)message->fields[i].name;
		fields[i]->type = (char *)(uintptr_t)field_type(&message->fields[i]);
		fields[i]->repeated = message->fields[i].label == PROTOBUF_C_LABEL_REPEATED;
	}
	*out = fields;
	return message->n_fields;
}

static Troupe__MessageType *describe_message(struct rt_arena *arena, const char *name,
	const ProtobufCMessageDescriptor *message, const ProtobufCMessageDescriptor *reply)
{
	Troupe__MessageType *out = rt_arena_alloc(arena, sizeof(*out));
	troupe__message_type__init(out);
	out->name = (char *)(uintptr_t)name;
	out->n_fields = describe_fields(arena, message, &out->fields);
	out->n_reply_fields = describe_fields(arena, reply, &out->reply_fields);
	if (reply != NULL) {
		out->reply = (char *)(uintptr_t)reply->name;
	}
	return out;
}

static Troupe__AggregateType *describe_type(
	struct rt_arena *arena, const struct troupe_aggregate *aggregate)
{
	enum {
		TABLE_MAX = 256
	};
	Troupe__AggregateType *out = rt_arena_alloc(arena, sizeof(*out));
	troupe__aggregate_type__init(out);
	out->name = (char *)(uintptr_t)aggregate->name;
	out->commands = rt_arena_alloc(arena, TABLE_MAX * sizeof(*out->commands));
	out->queries = rt_arena_alloc(arena, TABLE_MAX * sizeof(*out->queries));
	out->events = rt_arena_alloc(arena, TABLE_MAX * sizeof(*out->events));
	for (const struct troupe_command_type *c = aggregate->commands;
		c->name != NULL && out->n_commands < TABLE_MAX; c++) {
		out->commands[out->n_commands++] =
			describe_message(arena, c->name, c->message, c->reply);
	}
	for (const struct troupe_query_type *q = aggregate->queries;
		q->name != NULL && out->n_queries < TABLE_MAX; q++) {
		out->queries[out->n_queries++] =
			describe_message(arena, q->name, q->message, q->reply);
	}
	for (const struct troupe_event_type *e = aggregate->events;
		e->name != NULL && out->n_events < TABLE_MAX; e++) {
		out->events[out->n_events] = describe_message(arena, e->name, e->message, NULL);
		out->events[out->n_events++]->version = e->version;
	}
	return out;
}

void ac_registry_describe(const struct ac_registry *registry, const struct ac_type *type, bool json,
	struct pr_text *out)
{
	struct rt_arena arena;
	rt_arena_init(&arena, 16u * 1024u, 0);
	Troupe__TypeList list = TROUPE__TYPE_LIST__INIT;
	uint32_t count = ac_registry_count(registry);
	list.types = rt_arena_alloc(&arena, (count + 1) * sizeof(*list.types));
	for (uint32_t i = 0; i < count; i++) {
		const struct ac_type *each = ac_registry_at(registry, i);
		if (type == NULL || type == each) {
			list.types[list.n_types++] = describe_type(&arena, ac_type_aggregate(each));
		}
	}
	if (json) {
		pr_json_print_message(&list.base, out);
	} else {
		size_t size = troupe__type_list__get_packed_size(&list);
		uint8_t *bytes = rt_arena_alloc(&arena, size);
		troupe__type_list__pack(&list, bytes);
		pr_text_add(out, (const char *)bytes, size);
	}
	rt_arena_done(&arena);
}
