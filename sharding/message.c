#include "sharding/message.h"

#include "persistence/record.h"
#include "proto/field.h"
#include "runtime/base/assert.h"

/* Field numbers of troupe.PeerMessage. Tags of all of them fit one byte. */
enum {
	F_TYPE = 1,
	F_FLAGS,
	F_SHARD,
	F_FROM,
	F_TO,
	F_TERM,
	F_INDEX,
	F_LOG_TERM,
	F_COMMIT,
	F_HINT,
	F_ROUND,
	F_STAMP,
	F_MEMBERS_INDEX,
	F_MEMBERS,
	F_RECORDS,
	NUMBERS = F_MEMBERS /* numbers stand before it */
};

/* Far from where adding to an index, a term or a time wraps. */
#define NUMBER_MAX (UINT64_C(1) << 62)

struct parts {
	uint64_t number[NUMBERS]; /* by field number; 0 is not used */
	struct rt_bytes members;
	struct rt_bytes *records;
	uint32_t count;
	size_t record_bytes;
};

static const uint8_t flags_of[SH_MSG_TYPES] = {
	[SH_MSG_APPEND_RESULT] = SH_FLAG_REJECT | SH_FLAG_BEHIND,
	[SH_MSG_VOTE] = SH_FLAG_PRE | SH_FLAG_TRANSFER,
	[SH_MSG_VOTE_RESULT] = SH_FLAG_PRE | SH_FLAG_GRANTED | SH_FLAG_TRANSFER,
	[SH_MSG_CHUNK] = SH_FLAG_LAST,
};

static bool has_records(uint64_t type)
{
	return type == SH_MSG_APPEND || type == SH_MSG_CHUNK;
}

static bool has_members(const struct sh_message *message)
{
	return (message->head.flags & SH_FLAG_LAST) != 0;
}

/* ---- encoding ---- */

static void numbers_of(const struct sh_message *message, uint64_t number[NUMBERS])
{
	const struct sh_raft_message *head = &message->head;
	number[0] = 0;
	number[F_TYPE] = head->type;
	number[F_FLAGS] = head->flags;
	number[F_SHARD] = message->shard;
	number[F_FROM] = head->from;
	number[F_TO] = head->to;
	number[F_TERM] = head->term;
	number[F_INDEX] = head->index;
	number[F_LOG_TERM] = head->log_term;
	number[F_COMMIT] = head->commit;
	number[F_HINT] = head->hint;
	number[F_ROUND] = head->round;
	number[F_STAMP] = head->stamp;
	number[F_MEMBERS_INDEX] = has_members(message) ? message->set.index : 0;
}

/* A zero is not written, as proto3 says. */
static size_t body_size(const struct sh_message *message, const uint64_t number[NUMBERS])
{
	size_t size = 0;
	for (uint32_t i = F_TYPE; i < NUMBERS; i++) {
		size += number[i] == 0 ? 0 : 1 + pr_varint_size(number[i]);
	}
	if (has_members(message)) {
		size += 2 + 2u + 8u * message->set.members.count; /* at most 58: a byte of length */
	}
	for (uint32_t i = 0; i < message->head.count; i++) {
		size_t bytes = message->records[i].size;
		size += 1 + pr_varint_size(bytes) + bytes;
	}
	return size;
}

size_t sh_message_size(const struct sh_message *message)
{
	uint64_t number[NUMBERS];
	numbers_of(message, number);
	size_t body = body_size(message, number);
	return pr_varint_size(body) + body;
}

static uint8_t *put_members(uint8_t *at, const struct sh_members *members)
{
	uint8_t bytes[SH_MEMBERS_BYTES];
	size_t size = sh_members_encode(members, bytes);
	*at++ = F_MEMBERS << 3 | PR_WIRE_BYTES;
	*at++ = (uint8_t)size;
	memcpy(at, bytes, size);
	return at + size;
}

/* What decode refuses is not sent: whoever sees this fail built the message wrongly. */
static void check(const struct sh_message *message)
{
	const struct sh_raft_message *head = &message->head;
	RT_ASSERT(head->type >= SH_MSG_APPEND && head->type < SH_MSG_TYPES);
	RT_ASSERT((head->flags & ~flags_of[head->type]) == 0);
	RT_ASSERT(head->from != 0 && head->to != 0 && head->from != head->to);
	RT_ASSERT(head->count <= (has_records(head->type) ? SH_MESSAGE_RECORDS : 0));
}

static uint8_t *put_records(uint8_t *at, const struct sh_message *message)
{
	size_t bytes = 0;
	for (uint32_t i = 0; i < message->head.count; i++) {
		struct rt_bytes record = message->records[i];
		*at++ = F_RECORDS << 3 | PR_WIRE_BYTES;
		at = pr_varint_put(at, record.size);
		memcpy(at, record.data, record.size);
		at += record.size;
		bytes += record.size;
	}
	RT_ASSERT(message->head.count <= 1 || bytes <= SH_MESSAGE_BYTES);
	return at;
}

uint8_t *sh_message_encode(uint8_t *at, const struct sh_message *message)
{
	uint64_t number[NUMBERS];
	check(message);
	numbers_of(message, number);
	at = pr_varint_put(at, body_size(message, number));
	for (uint32_t i = F_TYPE; i < NUMBERS; i++) {
		if (number[i] != 0) {
			*at++ = (uint8_t)(i << 3 | PR_WIRE_VARINT);
			at = pr_varint_put(at, number[i]);
		}
	}
	if (has_members(message)) {
		at = put_members(at, &message->set.members);
	}
	return put_records(at, message);
}

/* ---- decoding ---- */

static bool take_record(const struct pr_field *field, struct parts *parts)
{
	struct ps_record record;
	if (parts->count == SH_MESSAGE_RECORDS || field->bytes.size > PS_RECORD_MAX ||
		ps_record_peek(field->bytes, &record) != RT_OK) {
		return false;
	}
	parts->records[parts->count++] = field->bytes;
	parts->record_bytes += field->bytes.size;
	return true;
}

static bool take_field(const struct pr_field *field, struct parts *parts)
{
	if (field->number < NUMBERS) {
		parts->number[field->number] = field->value;
		return field->wire == PR_WIRE_VARINT;
	}
	if (field->number == F_MEMBERS) {
		parts->members = field->bytes;
		return field->wire == PR_WIRE_BYTES && field->bytes.size > 0;
	}
	if (field->number == F_RECORDS) {
		return field->wire == PR_WIRE_BYTES && take_record(field, parts);
	}
	return true;
}

/* Ascending numbers, equal ones only for records: nothing is said twice. */
static bool take_fields(struct rt_bytes body, struct parts *parts)
{
	struct pr_field field;
	uint32_t last = 0;
	int got;
	while ((got = pr_field_next(&body, &field)) > 0) {
		bool again = field.number == last && last == F_RECORDS;
		if ((field.number <= last && !again) || !take_field(&field, parts)) {
			return false;
		}
		last = field.number;
	}
	return got == 0;
}

static bool numbers_fit(const uint64_t number[NUMBERS])
{
	for (uint32_t i = F_TERM; i < NUMBERS; i++) {
		if (number[i] > NUMBER_MAX) {
			return false;
		}
	}
	return number[F_SHARD] <= UINT16_MAX && number[F_FROM] != 0 && number[F_TO] != 0 &&
	       number[F_FROM] != number[F_TO];
}

static bool take_set(const struct parts *parts, struct sh_raft_set *set)
{
	bool last = (parts->number[F_FLAGS] & SH_FLAG_LAST) != 0;
	if (!last) {
		return parts->members.size == 0 && parts->number[F_MEMBERS_INDEX] == 0;
	}
	set->index = parts->number[F_MEMBERS_INDEX];
	return sh_members_decode(parts->members, &set->members) == RT_OK &&
	       set->members.voters != 0;
}

static bool makes_sense(const struct parts *parts)
{
	uint64_t type = parts->number[F_TYPE];
	if (type < SH_MSG_APPEND || type >= SH_MSG_TYPES ||
		(parts->number[F_FLAGS] & ~(uint64_t)flags_of[type]) != 0) {
		return false;
	}
	return numbers_fit(parts->number) && (parts->count == 0 || has_records(type)) &&
	       (parts->count <= 1 || parts->record_bytes <= SH_MESSAGE_BYTES);
}

static struct sh_raft_message head_of(const struct parts *parts)
{
	const uint64_t *number = parts->number;
	return (struct sh_raft_message){.type = (uint8_t)number[F_TYPE],
		.flags = (uint8_t)number[F_FLAGS],
		.count = parts->count,
		.from = number[F_FROM],
		.to = number[F_TO],
		.term = number[F_TERM],
		.index = number[F_INDEX],
		.log_term = number[F_LOG_TERM],
		.commit = number[F_COMMIT],
		.hint = number[F_HINT],
		.round = number[F_ROUND],
		.stamp = number[F_STAMP]};
}

rt_err sh_message_decode(struct rt_bytes *frame, struct sh_message *out, struct rt_bytes *records)
{
	struct parts parts = {.records = records};
	struct sh_raft_set set = {0};
	uint64_t size;
	if (frame->size == 0) {
		return RT_E_PROTO;
	}
	const uint8_t *end = frame->data + frame->size;
	const uint8_t *at = pr_varint_get(frame->data, end, &size);
	if (at == NULL || size > (uint64_t)(end - at) ||
		!take_fields(rt_bytes_of(at, (size_t)size), &parts) || !makes_sense(&parts) ||
		!take_set(&parts, &set)) {
		return RT_E_PROTO;
	}
	at += size;
	*frame = rt_bytes_of(at, (size_t)(end - at));
	*out = (struct sh_message){.head = head_of(&parts),
		.shard = (uint32_t)parts.number[F_SHARD],
		.records = records,
		.set = set};
	return RT_OK;
}
