#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/field.h"
#include "proto/guard.h"
#include "proto/json.h"
#include "proto/utf8.h"

#define TEXT_MAX       ((size_t)PR_PAYLOAD_MAX * 2)
#define PATH_MAX_BYTES 192
#define NAME_BYTES     128

/* Packed protobuf grows here; a pr_text is a buffer of bytes as good as any. */
struct parse {
	struct pr_text packed;
	struct rt_errinfo *info;
	char path[PATH_MAX_BYTES];
	size_t path_size;
	rt_err err;
};

static bool put_message(
	struct parse *parse, const ProtobufCMessageDescriptor *descriptor, json_t *object);

/* ---- the path in messages ------------------------------------------------------------------ */

static size_t path_push(struct parse *parse, const char *name)
{
	size_t before = parse->path_size;
	size_t room = sizeof(parse->path) - before;
	int wrote = snprintf(parse->path + before, room, "%s%s", before > 0 ? "." : "", name);
	parse->path_size += wrote < 0 ? 0 : (size_t)wrote < room ? (size_t)wrote : room - 1;
	return before;
}

static size_t path_push_index(struct parse *parse, size_t index)
{
	size_t before = parse->path_size;
	size_t room = sizeof(parse->path) - before;
	int wrote = snprintf(parse->path + before, room, "[%zu]", index);
	parse->path_size += wrote < 0 ? 0 : (size_t)wrote < room ? (size_t)wrote : room - 1;
	return before;
}

static void path_pop(struct parse *parse, size_t before)
{
	parse->path_size = before;
	parse->path[before] = '\0';
}

static bool fail(struct parse *parse, const char *why)
{
	parse->err = rt_errinfo_set(parse->info, RT_E_INVAL, "%s%s%s%s",
		parse->path_size > 0 ? "field " : "", parse->path, parse->path_size > 0 ? ": " : "",
		why);
	return false;
}

/* "expected an integer, found \"x\"" */
static bool fail_type(struct parse *parse, const char *expected, const json_t *found)
{
	char text[64] = "?";
	switch (json_typeof(found)) {
	case JSON_STRING:
		snprintf(text, sizeof(text), "\"%.40s\"", json_string_value(found));
		break;
	case JSON_INTEGER:
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(found));
		break;
	case JSON_REAL:
		snprintf(text, sizeof(text), "%g", json_real_value(found));
		break;
	case JSON_OBJECT:
		snprintf(text, sizeof(text), "an object");
		break;
	case JSON_ARRAY:
		snprintf(text, sizeof(text), "an array");
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		snprintf(text, sizeof(text), json_is_true(found) ? "true" : "false");
		break;
	case JSON_NULL:
		snprintf(text, sizeof(text), "null");
		break;
	}
	char why[128];
	snprintf(why, sizeof(why), "expected %s, found %s", expected, text);
	return fail(parse, why);
}

/* ---- packing ------------------------------------------------------------------------------- */

static void put_varint(struct parse *parse, uint64_t value)
{
	uint8_t bytes[10];
	size_t size = (size_t)(pr_varint_put(bytes, value) - bytes);
	pr_text_add(&parse->packed, (const char *)bytes, size);
}

static void put_fixed(struct parse *parse, uint64_t value, size_t size)
{
	char bytes[8];
	for (size_t i = 0; i < size; i++) {
		bytes[i] = (char)(uint8_t)(value >> 8 * i);
	}
	pr_text_add(&parse->packed, bytes, size);
}

static void put_tag(struct parse *parse, const ProtobufCFieldDescriptor *field, enum pr_wire wire)
{
	put_varint(parse, (uint64_t)field->id << 3 | (uint64_t)wire);
}

static void put_bytes(struct parse *parse, const char *data, size_t size)
{
	put_varint(parse, size);
	pr_text_add(&parse->packed, data, size);
}

/* Makes room for the length in front of what was packed since `start`. */
static void put_length_before(struct parse *parse, size_t start)
{
	struct pr_text *packed = &parse->packed;
	size_t size = packed->size - start;
	size_t shift = pr_varint_size(size);
	put_fixed(parse, 0, 8); /* room, taken back below */
	if (packed->failed) {
		return;
	}
	packed->size -= 8;
	memmove(packed->data + start + shift, packed->data + start, size);
	pr_varint_put((uint8_t *)packed->data + start, size);
	packed->size += shift;
}

/* ---- scalars ------------------------------------------------------------------------------- */

struct range {
	const char *name;
	int64_t low;
	uint64_t high;
};

static const struct range range_i32 = {"a 32-bit integer", INT32_MIN, INT32_MAX};
static const struct range range_u32 = {"an unsigned 32-bit integer", 0, UINT32_MAX};
static const struct range range_i64 = {"an integer", INT64_MIN, INT64_MAX};
static const struct range range_u64 = {"an unsigned integer", 0, UINT64_MAX};

static bool digits_only(const char *text)
{
	text += *text == '-';
	if (*text == '\0') {
		return false;
	}
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9') {
			return false;
		}
	}
	return true;
}

/* The two's complement bits of the number; false: not a whole number or out of range. */
static bool whole_number(const json_t *value, const struct range *range, uint64_t *out)
{
	bool negative;
	uint64_t bits;
	if (json_is_integer(value)) {
		json_int_t number = json_integer_value(value);
		negative = number < 0;
		bits = (uint64_t)number;
	} else if (json_is_real(value)) {
		double number = json_real_value(value);
		if (!(fabs(number) <= 9007199254740992.0) || floor(number) < number) {
			return false;
		}
		negative = number < 0;
		bits = (uint64_t)(int64_t)number;
	} else if (json_is_string(value) && digits_only(json_string_value(value))) {
		const char *text = json_string_value(value);
		negative = *text == '-';
		errno = 0;
		bits = negative ? (uint64_t)strtoll(text, NULL, 10) : strtoull(text, NULL, 10);
		if (errno != 0) {
			return false;
		}
		negative = negative && bits != 0;
	} else {
		return false;
	}
	*out = bits;
	return negative ? (int64_t)bits >= range->low : bits <= range->high;
}

static bool take_whole(
	struct parse *parse, const json_t *value, const struct range *range, uint64_t *out)
{
	return whole_number(value, range, out) || fail_type(parse, range->name, value);
}

static bool take_double(struct parse *parse, const json_t *value, bool is_float, double *out)
{
	if (json_is_number(value)) {
		*out = json_number_value(value);
	} else {
		return fail_type(parse, "a number", value);
	}
	if (!isfinite(*out) || (is_float && fabs(*out) > (double)FLT_MAX)) {
		return fail_type(parse, "a number in range", value);
	}
	return true;
}

static bool take_enum(struct parse *parse, const ProtobufCEnumDescriptor *descriptor,
	const json_t *value, uint64_t *out)
{
	if (json_is_string(value)) {
		const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value_by_name(
			descriptor, json_string_value(value));
		if (known == NULL) {
			char expected[96];
			snprintf(expected, sizeof(expected), "a name of enum %s",
				descriptor->short_name);
			return fail_type(parse, expected, value);
		}
		*out = (uint64_t)(int64_t)known->value;
		return true;
	}
	return take_whole(parse, value, &range_i32, out);
}

static int base64_value(char letter)
{
	if (letter >= 'A' && letter <= 'Z') {
		return letter - 'A';
	}
	if (letter >= 'a' && letter <= 'z') {
		return letter - 'a' + 26;
	}
	if (letter >= '0' && letter <= '9') {
		return letter - '0' + 52;
	}
	if (letter == '+' || letter == '-') {
		return 62;
	}
	return letter == '/' || letter == '_' ? 63 : -1;
}

/* Padding may be missing, as proto3 allows; bits that mean nothing must be zero. */
static bool put_base64(struct parse *parse, const json_t *value)
{
	if (!json_is_string(value)) {
		return fail_type(parse, "base64 text", value);
	}
	const char *text = json_string_value(value);
	size_t size = json_string_length(value);
	for (int i = 0; i < 2 && size % 4 == 0 && size > 0 && text[size - 1] == '='; i++) {
		size--;
		if (i == 0 && text[size - 1] == '=') {
			size--;
			break;
		}
	}
	if (size % 4 == 1) {
		return fail(parse, "expected base64 text, found a part of one");
	}
	put_varint(parse, size / 4 * 3 + (size % 4 > 0 ? size % 4 - 1 : 0));
	uint32_t word = 0;
	unsigned bits = 0;
	for (size_t i = 0; i < size; i++) {
		int six = base64_value(text[i]);
		if (six < 0) {
			return fail(parse, "expected base64 text, found another character");
		}
		word = word << 6 | (uint32_t)six;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			put_fixed(parse, word >> bits & 0xff, 1);
		}
	}
	if ((word & ((1u << bits) - 1)) != 0) {
		return fail(parse, "expected base64 text, found bits after its end");
	}
	return true;
}

static enum pr_wire wire_of(ProtobufCType type)
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

/* The bits of a number as its wire type wants them. */
static bool take_bits(struct parse *parse, const ProtobufCFieldDescriptor *field,
	const json_t *value, uint64_t *out)
{
	double real = 0;
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return take_whole(parse, value, &range_i32, out);
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SINT64:
		if (!take_whole(parse, value,
			    field->type == PROTOBUF_C_TYPE_SINT32 ? &range_i32 : &range_i64, out)) {
			return false;
		}
		*out = *out << 1 ^ (0 - (*out >> 63));
		return true;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return take_whole(parse, value, &range_u32, out);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return take_whole(parse, value, &range_i64, out);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return take_whole(parse, value, &range_u64, out);
	case PROTOBUF_C_TYPE_FLOAT: {
		if (!take_double(parse, value, true, &real)) {
			return false;
		}
		float narrow = (float)real;
		uint32_t bits;
		memcpy(&bits, &narrow, sizeof(bits));
		*out = bits;
		return true;
	}
	case PROTOBUF_C_TYPE_DOUBLE:
		if (!take_double(parse, value, false, &real)) {
			return false;
		}
		memcpy(out, &real, sizeof(real));
		return true;
	case PROTOBUF_C_TYPE_BOOL:
		*out = json_is_true(value);
		return json_is_boolean(value) || fail_type(parse, "true or false", value);
	default:
		return take_enum(parse, field->descriptor, value, out);
	}
}

static void put_bits(struct parse *parse, enum pr_wire wire, uint64_t bits)
{
	if (wire == PR_WIRE_VARINT) {
		put_varint(parse, bits);
	} else {
		put_fixed(parse, bits, wire == PR_WIRE_32 ? 4 : 8);
	}
}

/* ---- fields -------------------------------------------------------------------------------- */

/* Text, bytes or a message, with its tag. */
static bool put_run(struct parse *parse, const ProtobufCFieldDescriptor *field, json_t *value)
{
	if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		if (!json_is_object(value)) {
			return fail_type(parse, "an object", value);
		}
		put_tag(parse, field, PR_WIRE_BYTES);
		size_t start = parse->packed.size;
		if (!put_message(parse, field->descriptor, value)) {
			return false;
		}
		put_length_before(parse, start);
		return true;
	}
	put_tag(parse, field, PR_WIRE_BYTES);
	if (field->type == PROTOBUF_C_TYPE_BYTES) {
		return put_base64(parse, value);
	}
	if (!json_is_string(value)) {
		return fail_type(parse, "text", value);
	}
	size_t size = json_string_length(value);
	const char *text = json_string_value(value);
	if (memchr(text, '\0', size) != NULL) {
		return fail(parse, "text has a NUL");
	}
	put_bytes(parse, text, size);
	return true;
}

static bool put_items(struct parse *parse, const ProtobufCFieldDescriptor *field, json_t *array)
{
	enum pr_wire wire = wire_of(field->type);
	bool packed = wire != PR_WIRE_BYTES && (field->flags & PROTOBUF_C_FIELD_FLAG_PACKED) != 0;
	if (packed && json_array_size(array) > 0) {
		put_tag(parse, field, PR_WIRE_BYTES);
	}
	size_t start = parse->packed.size;
	for (size_t i = 0; i < json_array_size(array); i++) {
		size_t before = path_push_index(parse, i);
		json_t *item = json_array_get(array, i);
		uint64_t bits;
		if (wire == PR_WIRE_BYTES) {
			if (!put_run(parse, field, item)) {
				return false;
			}
		} else {
			if (!take_bits(parse, field, item, &bits)) {
				return false;
			}
			if (!packed) {
				put_tag(parse, field, wire);
			}
			put_bits(parse, wire, bits);
		}
		path_pop(parse, before);
	}
	if (packed && json_array_size(array) > 0) {
		put_length_before(parse, start);
	}
	return true;
}

static bool is_default(const ProtobufCFieldDescriptor *field, const json_t *value, uint64_t bits)
{
	if (field->label != PROTOBUF_C_LABEL_NONE ||
		(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
		return false;
	}
	if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES) {
		return json_is_string(value) && json_string_length(value) == 0;
	}
	return field->type != PROTOBUF_C_TYPE_MESSAGE && bits == 0;
}

static bool put_field(struct parse *parse, const ProtobufCFieldDescriptor *field, json_t *value)
{
	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		return json_is_array(value) ? put_items(parse, field, value)
					    : fail_type(parse, "an array", value);
	}
	enum pr_wire wire = wire_of(field->type);
	uint64_t bits = 0;
	if (wire != PR_WIRE_BYTES && !take_bits(parse, field, value, &bits)) {
		return false;
	}
	if (is_default(field, value, bits)) {
		return true;
	}
	if (wire == PR_WIRE_BYTES) {
		return put_run(parse, field, value);
	}
	put_tag(parse, field, wire);
	put_bits(parse, wire, bits);
	return true;
}

/* some_name -> someName */
static const char *camel(const char *name, char *out, size_t out_size)
{
	size_t used = 0;
	bool up = false;
	for (; *name != '\0' && used + 1 < out_size; name++) {
		if (*name == '_') {
			up = true;
			continue;
		}
		bool lower = *name >= 'a' && *name <= 'z';
		out[used++] = up && lower ? (char)(*name - 'a' + 'A') : *name;
		up = false;
	}
	out[used] = '\0';
	return out;
}

/* The member of the object that is meant for this field. NULL: none, or named twice. */
static json_t *member_of(
	struct parse *parse, const ProtobufCFieldDescriptor *field, json_t *object, size_t *used)
{
	json_t *value = json_object_get(object, field->name);
	json_t *second = NULL;
	if (strchr(field->name, '_') != NULL) {
		char other[NAME_BYTES];
		second = json_object_get(object, camel(field->name, other, sizeof(other)));
	}
	if (value != NULL && second != NULL) {
		fail(parse, "given twice");
		return NULL;
	}
	value = value != NULL ? value : second;
	*used += value != NULL;
	return value;
}

/* Is another member of this field's oneof given as well? Earlier fields are enough to look at. */
static bool oneof_taken(struct parse *parse, const ProtobufCMessageDescriptor *descriptor,
	unsigned index, json_t *object)
{
	const ProtobufCFieldDescriptor *field = &descriptor->fields[index];
	for (unsigned i = 0; i < index; i++) {
		const ProtobufCFieldDescriptor *other = &descriptor->fields[i];
		if ((field->flags & other->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
			field->quantifier_offset != other->quantifier_offset) {
			continue;
		}
		size_t ignored = 0;
		json_t *value = member_of(parse, other, object, &ignored);
		if (value != NULL && !json_is_null(value)) {
			return true;
		}
	}
	return false;
}

/* Some member of the object has no field: name it. */
static bool fail_unknown(
	struct parse *parse, const ProtobufCMessageDescriptor *descriptor, json_t *object)
{
	const char *key;
	json_t *value;
	json_object_foreach(object, key, value)
	{
		bool known =
			protobuf_c_message_descriptor_get_field_by_name(descriptor, key) != NULL;
		for (unsigned i = 0; i < descriptor->n_fields && !known; i++) {
			char other[NAME_BYTES];
			camel(descriptor->fields[i].name, other, sizeof(other));
			known = strcmp(key, other) == 0;
		}
		if (!known) {
			char name[64];
			snprintf(name, sizeof(name), "%.60s", key);
			path_push(parse, name);
			break;
		}
	}
	char why[160];
	snprintf(why, sizeof(why), "%s has no such field", descriptor->short_name);
	return fail(parse, why);
}

/* Recursion is bounded: the text's depth was checked before it was parsed. */
static bool put_message(
	struct parse *parse, const ProtobufCMessageDescriptor *descriptor, json_t *object)
{
	size_t used = 0;
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		size_t before = path_push(parse, field->name);
		json_t *value = member_of(parse, field, object, &used);
		if (parse->err != RT_OK) {
			return false;
		}
		if (value == NULL || json_is_null(value)) {
			if (field->label == PROTOBUF_C_LABEL_REQUIRED) {
				return fail(parse, "missing");
			}
			path_pop(parse, before);
			continue;
		}
		if (oneof_taken(parse, descriptor, i, object)) {
			return fail(parse, "only one of its oneof may be given");
		}
		if (!put_field(parse, field, value)) {
			return false;
		}
		path_pop(parse, before);
	}
	return used == json_object_size(object) || fail_unknown(parse, descriptor, object);
}

/* jansson allows 2,048 levels of recursion, and a worker's stack is no place for that. */
static bool shallow(struct rt_bytes json)
{
	uint32_t depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < json.size; i++) {
		uint8_t byte = json.data[i];
		if (quoted) {
			i += byte == '\\';
			quoted = byte != '"';
		} else if (byte == '"') {
			quoted = true;
		} else if (byte == '{' || byte == '[') {
			if (++depth > PR_DEPTH_MAX) {
				return false;
			}
		} else if (byte == '}' || byte == ']') {
			depth -= depth > 0;
		}
	}
	return true;
}

rt_err pr_json_parse(const ProtobufCMessageDescriptor *descriptor, struct rt_bytes json,
	struct rt_bytes *out, struct rt_errinfo *info)
{
	if (json.size > TEXT_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "text over %zu bytes", TEXT_MAX);
	}
	if (!shallow(json)) {
		return rt_errinfo_set(info, RT_E_INVAL, "nested deeper than %u", PR_DEPTH_MAX);
	}
	bool empty = json.size == 0;
	json_error_t why;
	json_t *root = json_loadb(empty ? "{}" : (const char *)json.data, empty ? 2 : json.size,
		JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
	if (root == NULL) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "not JSON: %s at byte %d", why.text, why.position);
	}
	struct parse parse = {.info = info, .packed = {.limit = TEXT_MAX}};
	if (!json_is_object(root)) {
		fail_type(&parse, "an object", root);
	} else if (put_message(&parse, descriptor, root) && parse.packed.failed) {
		parse.err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	json_decref(root);
	if (parse.err == RT_OK && parse.packed.data == NULL) {
		parse.packed.data =
			malloc(1); /* an empty message, but still the caller's to free */
		parse.err = parse.packed.data == NULL ? RT_E_NOMEM : RT_OK;
	}
	if (parse.err != RT_OK) {
		pr_text_clear(&parse.packed);
		return parse.err;
	}
	*out = rt_bytes_of(parse.packed.data, parse.packed.size);
	return RT_OK;
}
