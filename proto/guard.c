#include "proto/guard.h"

#include <stdio.h>

#include "proto/field.h"
#include "proto/utf8.h"

struct scan {
	const uint8_t *start;
	uint32_t fields;
	uint32_t depth;
	const ProtobufCFieldDescriptor *path[PR_DEPTH_MAX];
	struct rt_errinfo *info;
};

static rt_err refuse(const struct scan *scan, rt_err code, const uint8_t *at, const char *why)
{
	char path[160] = "";
	size_t used = 0;
	for (uint32_t i = 0; i < scan->depth && used < sizeof(path); i++) {
		int wrote = snprintf(path + used, sizeof(path) - used, "%s%s", i > 0 ? "." : "",
			scan->path[i]->name);
		used += wrote > 0 ? (size_t)wrote : sizeof(path);
	}
	return rt_errinfo_set(scan->info, code, "%s%s%sbyte %zu: %s", used > 0 ? "field " : "",
		path, used > 0 ? ", " : "", (size_t)(at - scan->start), why);
}

static uint32_t wire_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
		return PR_WIRE_32;
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return PR_WIRE_64;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE:
		return PR_WIRE_BYTES;
	default:
		return PR_WIRE_VARINT;
	}
}

static bool packed_valid(uint32_t wire, struct rt_bytes bytes)
{
	if (wire != PR_WIRE_VARINT) {
		return bytes.size % (wire == PR_WIRE_32 ? 4 : 8) == 0;
	}
	const uint8_t *at = bytes.data;
	const uint8_t *end = at + bytes.size;
	while (at < end) {
		uint64_t value;
		at = pr_varint_get(at, end, &value);
		if (at == NULL) {
			return false;
		}
	}
	return true;
}

static rt_err check_message(
	struct scan *scan, const ProtobufCMessageDescriptor *descriptor, struct rt_bytes bytes);

static rt_err check_field(
	struct scan *scan, const ProtobufCFieldDescriptor *known, const struct pr_field *field)
{
	const uint8_t *at = field->bytes.data;
	uint32_t wire = wire_of(known->type);
	if (field->wire != wire) {
		bool packed = known->label == PROTOBUF_C_LABEL_REPEATED &&
			      field->wire == PR_WIRE_BYTES && wire != PR_WIRE_BYTES;
		if (!packed) {
			return refuse(scan, RT_E_PROTO, at, "wrong wire type");
		}
		return packed_valid(wire, field->bytes)
			       ? RT_OK
			       : refuse(scan, RT_E_PROTO, at, "packed numbers are cut off");
	}
	if (known->type == PROTOBUF_C_TYPE_STRING && !pr_utf8_valid(field->bytes)) {
		return refuse(scan, RT_E_PROTO, at, "text is not UTF-8 or has a NUL");
	}
	if (known->type == PROTOBUF_C_TYPE_MESSAGE) {
		return check_message(scan, known->descriptor, field->bytes);
	}
	return RT_OK;
}

/* Recursion is bounded by PR_DEPTH_MAX. */
static rt_err check_message(
	struct scan *scan, const ProtobufCMessageDescriptor *descriptor, struct rt_bytes bytes)
{
	struct pr_field field;
	int got;
	while ((got = pr_field_next(&bytes, &field)) > 0) {
		const uint8_t *at = field.bytes.data;
		if (++scan->fields > PR_FIELDS_MAX) {
			return refuse(scan, RT_E_TOOLARGE, at, "too many fields");
		}
		const ProtobufCFieldDescriptor *known =
			protobuf_c_message_descriptor_get_field(descriptor, field.number);
		if (known == NULL) {
			continue;
		}
		if (scan->depth == PR_DEPTH_MAX) {
			return refuse(scan, RT_E_TOOLARGE, at, "nested too deeply");
		}
		scan->path[scan->depth++] = known;
		rt_err err = check_field(scan, known, &field);
		if (err != RT_OK) {
			return err;
		}
		scan->depth--;
	}
	return got == 0 ? RT_OK : refuse(scan, RT_E_PROTO, bytes.data, "malformed or cut off");
}

rt_err pr_guard_check(const ProtobufCMessageDescriptor *descriptor, struct rt_bytes bytes,
	struct rt_errinfo *info)
{
	struct scan scan = {.start = bytes.data, .info = info};
	return check_message(&scan, descriptor, bytes);
}
