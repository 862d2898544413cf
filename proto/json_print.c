#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/guard.h"
#include "proto/json.h"

#define EXACT_IN_DOUBLE ((uint64_t)1 << 53)

static void print_message(const ProtobufCMessage *message, struct pr_text *out);

static void print_u64(struct pr_text *out, uint64_t value, bool negative)
{
	char digits[24];
	size_t at = sizeof(digits);
	bool quoted = value > EXACT_IN_DOUBLE;
	if (quoted) {
		digits[--at] = '"';
	}
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	if (negative) {
		digits[--at] = '-';
	}
	if (quoted) {
		digits[--at] = '"';
	}
	pr_text_add(out, digits + at, sizeof(digits) - at);
}

static void print_i64(struct pr_text *out, int64_t value)
{
	print_u64(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

/* The shortest text that reads back as the same number. */
static void print_double(struct pr_text *out, double value, int from, int to)
{
	if (!isfinite(value)) {
		pr_text_str(out, isnan(value) ? "\"NaN\""
				 : value > 0  ? "\"Infinity\""
					      : "\"-Infinity\"");
		return;
	}
	char text[40];
	for (int digits = from; digits <= to; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		double back = strtod(text, NULL);
		if (from < 10 ? (float)back == (float)value : back == value) {
			break;
		}
	}
	for (char *at = text; *at != '\0'; at++) {
		if (*at == ',') { /* the process may have a locale */
			*at = '.';
		}
	}
	pr_text_str(out, text);
}

static void print_base64(struct pr_text *out, struct rt_bytes bytes)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	pr_text_add(out, "\"", 1);
	for (size_t i = 0; i < bytes.size; i += 3) {
		size_t left = bytes.size - i;
		uint32_t word = (uint32_t)bytes.data[i] << 16;
		word |= left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0;
		word |= left > 2 ? (uint32_t)bytes.data[i + 2] : 0;
		char quad[4] = {letters[word >> 18], letters[word >> 12 & 63],
			left > 1 ? letters[word >> 6 & 63] : '=',
			left > 2 ? letters[word & 63] : '='};
		pr_text_add(out, quad, 4);
	}
	pr_text_add(out, "\"", 1);
}

static void print_enum(
	struct pr_text *out, const ProtobufCEnumDescriptor *descriptor, int32_t value)
{
	const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(descriptor, value);
	if (known == NULL) {
		print_i64(out, value);
		return;
	}
	pr_text_json_string(out, rt_bytes_str(known->name));
}

static void print_text(struct pr_text *out, const char *string)
{
	pr_text_json_string(out, rt_bytes_str(string != NULL ? string : ""));
}

/* `at` is where protobuf-c's struct keeps one value of this type. */
static void print_value(struct pr_text *out, const ProtobufCFieldDescriptor *field, const void *at)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		print_i64(out, *(const int32_t *)at);
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		print_u64(out, *(const uint32_t *)at, false);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		print_i64(out, *(const int64_t *)at);
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		print_u64(out, *(const uint64_t *)at, false);
		break;
	case PROTOBUF_C_TYPE_FLOAT:
		print_double(out, (double)*(const float *)at, 6, 9);
		break;
	case PROTOBUF_C_TYPE_DOUBLE:
		print_double(out, *(const double *)at, 15, 17);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		pr_text_str(out, *(const protobuf_c_boolean *)at ? "true" : "false");
		break;
	case PROTOBUF_C_TYPE_ENUM:
		print_enum(out, field->descriptor, *(const int32_t *)at);
		break;
	case PROTOBUF_C_TYPE_STRING:
		print_text(out, *(const char *const *)at);
		break;
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *bytes = at;
		print_base64(out, rt_bytes_of(bytes->data, bytes->len));
		break;
	}
	case PROTOBUF_C_TYPE_MESSAGE:
		print_message(*(const ProtobufCMessage *const *)at, out);
		break;
	}
}

static size_t value_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	default:
		return 4;
	}
}

static void print_array(
	struct pr_text *out, const ProtobufCFieldDescriptor *field, const char *message)
{
	size_t count = *(const size_t *)(const void *)(message + field->quantifier_offset);
	const char *items = *(const char *const *)(const void *)(message + field->offset);
	pr_text_add(out, "[", 1);
	for (size_t i = 0; i < count; i++) {
		if (i > 0) {
			pr_text_add(out, ",", 1);
		}
		print_value(out, field, items + i * value_size(field->type));
	}
	pr_text_add(out, "]", 1);
}

/* Is there something to write for a field that is not repeated? */
static bool is_present(const ProtobufCFieldDescriptor *field, const char *message)
{
	const char *at = message + field->offset;
	const void *quantifier = message + field->quantifier_offset;
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
		return *(const uint32_t *)quantifier == field->id;
	}
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		return *(const void *const *)(const void *)at != NULL;
	}
	if (field->label != PROTOBUF_C_LABEL_OPTIONAL) {
		return true;
	}
	if (field->type == PROTOBUF_C_TYPE_STRING) {
		const void *string = *(const void *const *)(const void *)at;
		return string != NULL && string != field->default_value;
	}
	return *(const protobuf_c_boolean *)quantifier != 0;
}

static void print_message(const ProtobufCMessage *message, struct pr_text *out)
{
	const char *base = (const char *)message;
	const ProtobufCMessageDescriptor *descriptor = message->descriptor;
	bool first = true;
	pr_text_add(out, "{", 1);
	for (unsigned i = 0; i < descriptor->n_fields && !out->failed; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
		if (!repeated && !is_present(field, base)) {
			continue;
		}
		pr_text_add(out, ",\"", first ? 0 : 1);
		first = false;
		pr_text_json_string(out, rt_bytes_str(field->name));
		pr_text_add(out, ":", 1);
		if (repeated) {
			print_array(out, field, base);
		} else {
			print_value(out, field, base + field->offset);
		}
	}
	pr_text_add(out, "}", 1);
}

void pr_json_print_message(const ProtobufCMessage *message, struct pr_text *out)
{
	print_message(message, out);
}

rt_err pr_json_print(const ProtobufCMessageDescriptor *descriptor, struct rt_bytes packed,
	struct pr_text *out, struct rt_errinfo *info)
{
	rt_err err = pr_guard_check(descriptor, packed, info);
	if (err != RT_OK) {
		return err;
	}
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, packed.size, packed.data);
	if (message == NULL) {
		return rt_errinfo_set(info, RT_E_PROTO, "%s cannot be unpacked", descriptor->name);
	}
	print_message(message, out);
	protobuf_c_message_free_unpacked(message, NULL);
	return out->failed ? rt_errinfo_set(info, RT_E_TOOLARGE, "text over its limit") : RT_OK;
}
