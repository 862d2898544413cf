/*
 * json.h - protobuf messages from and to JSON text by descriptor alone, so that every module has
 * JSON without code of its own.
 *
 * Mapping: proto3's: field names as in the .proto (lowerCamelCase accepted too), int64 as number or
 * string in, number out when |n| <= 2^53 else string; bytes as base64; enums by name; missing
 * fields are defaults; unknown or duplicate fields, wrong types, numbers out of range, NaN and
 * Infinity are errors that name the field; null is the default. Default values are written out; of
 * a oneof only the member that is set. A map is an array of {"key":,"value":}, as protobuf-c has no
 * maps. Limits: depth
 * PR_DEPTH_MAX, text PR_PAYLOAD_MAX * 2.
 */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include <protobuf-c/protobuf-c.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

/* A growing text buffer: written at the end, never beyond a limit; failed once it would. */
struct pr_text {
	char *data;              /* malloc'd, not NUL-terminated */
	size_t size, cap, limit; /* limit 0: 16 MiB */
	bool failed;
};
void pr_text_clear(struct pr_text *text);
void pr_text_add(struct pr_text *text, const char *data, size_t size);
void pr_text_str(struct pr_text *text, const char *string);
void pr_text_printf(struct pr_text *text, const char *format, ...) RT_PRINTF(2, 3);
void pr_text_json_string(struct pr_text *text, struct rt_bytes bytes); /* quoted and escaped */

/* Packs the JSON text into malloc'd protobuf bytes. RT_E_INVAL: info->text is
 * "field amount: expected an integer, found \"x\"" and alike. Empty text is "{}". */
RT_NODISCARD rt_err pr_json_parse(const ProtobufCMessageDescriptor *descriptor,
	struct rt_bytes json, struct rt_bytes *out, struct rt_errinfo *info);
/* Appends {"field":...}. The packed bytes are guarded first. RT_E_PROTO. */
RT_NODISCARD rt_err pr_json_print(const ProtobufCMessageDescriptor *descriptor,
	struct rt_bytes packed, struct pr_text *out, struct rt_errinfo *info);
/* The same from an unpacked message. */
void pr_json_print_message(const ProtobufCMessage *message, struct pr_text *out);

#endif
