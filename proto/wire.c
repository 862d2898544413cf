#include "proto/wire.h"

#include "proto/field.h"
#include "proto/utf8.h"

static bool take_text(const struct pr_field *field, struct rt_bytes *out)
{
	*out = field->bytes;
	return field->wire == PR_WIRE_BYTES && pr_utf8_valid(field->bytes);
}

static bool take_bytes(const struct pr_field *field, struct rt_bytes *out)
{
	*out = field->bytes;
	return field->wire == PR_WIRE_BYTES;
}

static bool take_u64(const struct pr_field *field, uint64_t *out)
{
	*out = field->value;
	return field->wire == PR_WIRE_VARINT;
}

/* protobuf keeps the low half of a number that is too large. */
static bool take_u32(const struct pr_field *field, uint32_t *out)
{
	*out = (uint32_t)field->value;
	return field->wire == PR_WIRE_VARINT;
}

static bool take_bool(const struct pr_field *field, bool *out)
{
	*out = field->value != 0;
	return field->wire == PR_WIRE_VARINT;
}

static bool call_field(const struct pr_field *field, struct pr_call *out)
{
	switch (field->number) {
	case 1:
		return take_u64(field, &out->call_id);
	case 2:
		return take_text(field, &out->type);
	case 3:
		return take_text(field, &out->id);
	case 4:
		return take_text(field, &out->name);
	case 5:
		return take_bytes(field, &out->payload);
	case 6:
		return take_bytes(field, &out->command_id);
	case 7:
		return take_u64(field, &out->expected);
	case 8:
		return take_u32(field, &out->kind);
	case 9:
		return take_bool(field, &out->json);
	case 10:
		return take_u32(field, &out->timeout_ms);
	case 11:
		return take_bool(field, &out->stale);
	case 12:
		return take_u64(field, &out->after);
	default:
		return true;
	}
}

static bool answer_field(const struct pr_field *field, struct pr_answer *out)
{
	switch (field->number) {
	case 1:
		return take_u64(field, &out->call_id);
	case 2:
		return take_u32(field, &out->code);
	case 3:
		return take_u32(field, &out->shard);
	case 4:
		return take_u64(field, &out->offset);
	case 5:
		return take_u64(field, &out->seq);
	case 6:
		return take_bytes(field, &out->payload);
	case 7:
		return take_text(field, &out->error);
	case 8:
		return take_u32(field, &out->retry_after_ms);
	case 9:
		return take_u32(field, &out->events);
	case 10:
		return take_bytes(field, &out->command_id);
	case 11:
		return take_bool(field, &out->repeated);
	case 12:
		return take_u64(field, &out->node);
	default:
		return true;
	}
}

/* Batch and Answers have the same shape: field 1, repeated. Other fields are from the future. */
static int next_item(struct rt_bytes *cursor, struct rt_bytes *item)
{
	struct pr_field field;
	int got;
	while ((got = pr_field_next(cursor, &field)) > 0) {
		if (field.number == 1) {
			*item = field.bytes;
			return field.wire == PR_WIRE_BYTES ? 1 : -1;
		}
	}
	return got;
}

bool pr_call_body_get(struct rt_bytes body, struct pr_call *out)
{
	memset(out, 0, sizeof(*out));
	struct pr_field field;
	int got;
	while ((got = pr_field_next(&body, &field)) > 0) {
		if (!call_field(&field, out)) {
			return false;
		}
	}
	return got == 0;
}

bool pr_answer_body_get(struct rt_bytes body, struct pr_answer *out)
{
	memset(out, 0, sizeof(*out));
	struct pr_field field;
	int got;
	while ((got = pr_field_next(&body, &field)) > 0) {
		if (!answer_field(&field, out)) {
			return false;
		}
	}
	return got == 0;
}

int pr_batch_next(struct rt_bytes *cursor, struct pr_call *out)
{
	struct rt_bytes item;
	int got = next_item(cursor, &item);
	if (got <= 0) {
		return got;
	}
	return pr_call_body_get(item, out) ? 1 : -1;
}

int pr_answers_next(struct rt_bytes *cursor, struct pr_answer *out)
{
	struct rt_bytes item;
	int got = next_item(cursor, &item);
	if (got <= 0) {
		return got;
	}
	return pr_answer_body_get(item, out) ? 1 : -1;
}

/* All tags of these messages fit one byte. Zero and empty are not sent, as proto3 says. */
static size_t number_size(uint64_t value)
{
	return value == 0 ? 0 : 1 + pr_varint_size(value);
}

static size_t bytes_size(struct rt_bytes bytes)
{
	return bytes.size == 0 ? 0 : 1 + pr_varint_size(bytes.size) + bytes.size;
}

static uint8_t *number_put(uint8_t *at, unsigned number, uint64_t value)
{
	if (value == 0) {
		return at;
	}
	*at++ = (uint8_t)(number << 3 | PR_WIRE_VARINT);
	return pr_varint_put(at, value);
}

static uint8_t *bytes_put(uint8_t *at, unsigned number, struct rt_bytes bytes)
{
	if (bytes.size == 0) {
		return at;
	}
	*at++ = (uint8_t)(number << 3 | PR_WIRE_BYTES);
	at = pr_varint_put(at, bytes.size);
	memcpy(at, bytes.data, bytes.size);
	return at + bytes.size;
}

size_t pr_call_body_size(const struct pr_call *call)
{
	return number_size(call->call_id) + bytes_size(call->type) + bytes_size(call->id) +
	       bytes_size(call->name) + bytes_size(call->payload) + bytes_size(call->command_id) +
	       number_size(call->expected) + number_size(call->kind) + number_size(call->json) +
	       number_size(call->timeout_ms) + number_size(call->stale) + number_size(call->after);
}

size_t pr_answer_body_size(const struct pr_answer *answer)
{
	return number_size(answer->call_id) + number_size(answer->code) +
	       number_size(answer->shard) + number_size(answer->offset) + number_size(answer->seq) +
	       bytes_size(answer->payload) + bytes_size(answer->error) +
	       number_size(answer->retry_after_ms) + number_size(answer->events) +
	       bytes_size(answer->command_id) + number_size(answer->repeated) +
	       number_size(answer->node);
}

size_t pr_call_size(const struct pr_call *call)
{
	size_t body = pr_call_body_size(call);
	return 1 + pr_varint_size(body) + body;
}

uint8_t *pr_call_put(uint8_t *at, const struct pr_call *call)
{
	*at++ = 1 << 3 | PR_WIRE_BYTES;
	at = pr_varint_put(at, pr_call_body_size(call));
	return pr_call_body_put(at, call);
}

uint8_t *pr_call_body_put(uint8_t *at, const struct pr_call *call)
{
	at = number_put(at, 1, call->call_id);
	at = bytes_put(at, 2, call->type);
	at = bytes_put(at, 3, call->id);
	at = bytes_put(at, 4, call->name);
	at = bytes_put(at, 5, call->payload);
	at = bytes_put(at, 6, call->command_id);
	at = number_put(at, 7, call->expected);
	at = number_put(at, 8, call->kind);
	at = number_put(at, 9, call->json);
	at = number_put(at, 10, call->timeout_ms);
	at = number_put(at, 11, call->stale);
	return number_put(at, 12, call->after);
}

size_t pr_answer_size(const struct pr_answer *answer)
{
	size_t body = pr_answer_body_size(answer);
	return 1 + pr_varint_size(body) + body;
}

uint8_t *pr_answer_put(uint8_t *at, const struct pr_answer *answer)
{
	*at++ = 1 << 3 | PR_WIRE_BYTES;
	at = pr_varint_put(at, pr_answer_body_size(answer));
	return pr_answer_body_put(at, answer);
}

uint8_t *pr_answer_body_put(uint8_t *at, const struct pr_answer *answer)
{
	at = number_put(at, 1, answer->call_id);
	at = number_put(at, 2, answer->code);
	at = number_put(at, 3, answer->shard);
	at = number_put(at, 4, answer->offset);
	at = number_put(at, 5, answer->seq);
	at = bytes_put(at, 6, answer->payload);
	at = bytes_put(at, 7, answer->error);
	at = number_put(at, 8, answer->retry_after_ms);
	at = number_put(at, 9, answer->events);
	at = bytes_put(at, 10, answer->command_id);
	at = number_put(at, 11, answer->repeated);
	return number_put(at, 12, answer->node);
}
