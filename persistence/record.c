#include "persistence/record.h"

#include "runtime/base/assert.h"

/* Field numbers of troupe.Record and troupe.Event. */
enum {
	REC_TERM = 1,
	REC_KIND,
	REC_TIME,
	REC_PID,
	REC_FIRST_SEQ,
	REC_COMMAND_ID,
	REC_EVENT,
	REC_ANSWER,
};
enum {
	EV_MANIFEST = 1,
	EV_VERSION,
	EV_PAYLOAD,
	EV_TAG,
};
enum {
	WIRE_VARINT = 0,
	WIRE_I64 = 1,
	WIRE_LEN = 2,
	WIRE_I32 = 5,
};

struct field {
	uint32_t number, wire;
	uint64_t number_value;
	struct rt_bytes bytes;
	const uint8_t *start; /* of the tag */
};

static bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
	uint64_t value = 0;
	const uint8_t *p = *at;
	for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
		uint8_t byte = *p++;
		if (shift == 63 && byte > 1) {
			return false;
		}
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*at = p;
			*out = value;
			return true;
		}
	}
	return false;
}

static bool take_field(const uint8_t **at, const uint8_t *end, struct field *out)
{
	uint64_t tag;
	out->start = *at;
	if (!take_varint(at, end, &tag) || tag >> 3 == 0 || tag >> 3 > 536870911u) {
		return false;
	}
	out->number = (uint32_t)(tag >> 3);
	out->wire = (uint32_t)(tag & 7);
	out->number_value = 0;
	uint64_t size;
	switch (out->wire) {
	case WIRE_VARINT:
		return take_varint(at, end, &out->number_value);
	case WIRE_LEN:
		if (!take_varint(at, end, &size)) {
			return false;
		}
		break;
	case WIRE_I64:
		size = 8;
		break;
	case WIRE_I32:
		size = 4;
		break;
	default:
		return false;
	}
	if (size > (uint64_t)(end - *at)) {
		return false;
	}
	out->bytes = rt_bytes_of(*at, (size_t)size);
	*at += size;
	return true;
}

/* Ascending numbers, equal ones only for the repeated field: one spelling per record, so that a
 * record read and written again is the same bytes. */
static bool in_order(uint32_t last, uint32_t number, uint32_t repeated)
{
	return number > last || (number == last && number == repeated);
}

static bool wire_is(const struct field *f, uint32_t wire)
{
	return f->wire == wire;
}

static void extend(struct rt_bytes *run, const struct field *f, const uint8_t *end)
{
	if (run->size == 0) {
		run->data = f->start;
	}
	run->size = (size_t)(end - run->data);
}

static bool text_ok(struct rt_bytes text, size_t max)
{
	return text.size > 0 && text.size <= max && memchr(text.data, 0, text.size) == NULL;
}

static bool event_field(struct ps_event *event, const struct field *f, const uint8_t *end)
{
	switch (f->number) {
	case EV_MANIFEST:
		event->manifest = f->bytes;
		return wire_is(f, WIRE_LEN) && text_ok(f->bytes, PS_MANIFEST_MAX);
	case EV_VERSION:
		event->version = (uint32_t)f->number_value;
		return wire_is(f, WIRE_VARINT) && f->number_value <= UINT32_MAX;
	case EV_PAYLOAD:
		event->payload = f->bytes;
		return wire_is(f, WIRE_LEN);
	case EV_TAG:
		extend(&event->tags, f, end);
		return wire_is(f, WIRE_LEN) && text_ok(f->bytes, PS_TAG_MAX);
	default:
		return true;
	}
}

static bool parse_event(struct rt_bytes bytes, struct ps_event *event)
{
	const uint8_t *at = bytes.data;
	const uint8_t *end = at + bytes.size;
	uint32_t last = 0;
	uint32_t tags = 0;
	memset(event, 0, sizeof(*event));
	while (at < end) {
		struct field f;
		if (!take_field(&at, end, &f) || !in_order(last, f.number, EV_TAG) ||
			!event_field(event, &f, at)) {
			return false;
		}
		last = f.number;
		tags += f.number == EV_TAG;
	}
	return event->manifest.size > 0 && tags <= PS_TAGS_MAX;
}

static bool record_number(struct ps_record *record, const struct field *f)
{
	if (!wire_is(f, WIRE_VARINT)) {
		return false;
	}
	switch (f->number) {
	case REC_TERM:
		record->term = f->number_value;
		return true;
	case REC_KIND:
		record->kind = (uint32_t)f->number_value;
		return f->number_value <= 255;
	case REC_TIME:
		record->time_ms = f->number_value;
		return true;
	default:
		record->first_seq = f->number_value;
		return true;
	}
}

static bool record_bytes(struct ps_record *record, const struct field *f, const uint8_t *end)
{
	struct ps_event event;
	if (!wire_is(f, WIRE_LEN)) {
		return false;
	}
	switch (f->number) {
	case REC_PID:
		record->pid = f->bytes;
		return text_ok(f->bytes, PS_PID_MAX);
	case REC_COMMAND_ID:
		record->command_id = f->bytes;
		return f->bytes.size <= PS_COMMAND_ID_MAX;
	case REC_EVENT:
		extend(&record->events, f, end);
		return ++record->event_count <= PS_EVENTS_MAX && parse_event(f->bytes, &event);
	default:
		record->answer = f->bytes;
		return true;
	}
}

static bool record_field(struct ps_record *record, const struct field *f, const uint8_t *end)
{
	switch (f->number) {
	case REC_TERM:
	case REC_KIND:
	case REC_TIME:
	case REC_FIRST_SEQ:
		return record_number(record, f);
	case REC_PID:
	case REC_COMMAND_ID:
	case REC_EVENT:
	case REC_ANSWER:
		return record_bytes(record, f, end);
	default:
		return true;
	}
}

static bool record_makes_sense(const struct ps_record *record)
{
	if (record->kind == 0) {
		return false;
	}
	if (record->kind != PS_KIND_COMMAND) {
		return record->event_count == 0;
	}
	return record->pid.size > 0 && record->first_seq > 0 &&
	       record->first_seq <= PS_SEQ_MAX - record->event_count;
}

rt_err ps_record_decode(struct rt_bytes bytes, struct ps_record *out)
{
	if (bytes.size == 0 || bytes.size > PS_RECORD_MAX) {
		return RT_E_CORRUPT;
	}
	struct ps_record record = {0};
	const uint8_t *at = bytes.data;
	const uint8_t *end = at + bytes.size;
	uint32_t last = 0;
	while (at < end) {
		struct field f;
		if (!take_field(&at, end, &f) || !in_order(last, f.number, REC_EVENT) ||
			!record_field(&record, &f, at)) {
			return RT_E_CORRUPT;
		}
		last = f.number;
	}
	if (!record_makes_sense(&record)) {
		return RT_E_CORRUPT;
	}
	*out = record;
	return RT_OK;
}

rt_err ps_record_peek(struct rt_bytes bytes, struct ps_record *out)
{
	struct ps_record record = {0};
	const uint8_t *at = bytes.data;
	const uint8_t *end = at + bytes.size;
	uint32_t last = 0;
	while (at < end && last < REC_FIRST_SEQ) {
		struct field f;
		if (!take_field(&at, end, &f) || !in_order(last, f.number, 0)) {
			return RT_E_CORRUPT;
		}
		if (f.number > REC_FIRST_SEQ) {
			break;
		}
		if (!record_field(&record, &f, at)) {
			return RT_E_CORRUPT;
		}
		last = f.number;
	}
	if (record.kind == 0 || (record.kind == PS_KIND_COMMAND && record.pid.size == 0)) {
		return RT_E_CORRUPT;
	}
	*out = record;
	return RT_OK;
}

bool ps_record_next_event(struct rt_bytes *cursor, struct ps_event *out)
{
	if (cursor->size == 0) {
		return false;
	}
	const uint8_t *at = cursor->data;
	const uint8_t *end = at + cursor->size;
	struct field f;
	bool good = take_field(&at, end, &f) && parse_event(f.bytes, out);
	RT_ASSERT(good); /* decode saw every event of this run */
	*cursor = rt_bytes_of(at, (size_t)(end - at));
	return true;
}

bool ps_record_next_tag(struct rt_bytes *cursor, struct rt_bytes *out_tag)
{
	if (cursor->size == 0) {
		return false;
	}
	const uint8_t *at = cursor->data;
	const uint8_t *end = at + cursor->size;
	struct field f;
	bool good = take_field(&at, end, &f);
	RT_ASSERT(good);
	*out_tag = f.bytes;
	*cursor = rt_bytes_of(at, (size_t)(end - at));
	return true;
}

static size_t varint_size(uint64_t value)
{
	unsigned bits = 64u - (unsigned)__builtin_clzll(value | 1);
	return (bits + 6) / 7;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

/* proto3: a field with its default value is not written. All our tags fit in one byte. */
static size_t number_size(uint64_t value)
{
	return value == 0 ? 0 : 1 + varint_size(value);
}

static size_t bytes_size(size_t size)
{
	return size == 0 ? 0 : 1 + varint_size(size) + size;
}

static uint8_t *put_number(uint8_t *at, uint32_t field, uint64_t value)
{
	if (value == 0) {
		return at;
	}
	*at++ = (uint8_t)(field << 3 | WIRE_VARINT);
	return put_varint(at, value);
}

static uint8_t *put_bytes(uint8_t *at, uint32_t field, struct rt_bytes bytes)
{
	if (bytes.size == 0) {
		return at;
	}
	*at++ = (uint8_t)(field << 3 | WIRE_LEN);
	at = put_varint(at, bytes.size);
	memcpy(at, bytes.data, bytes.size);
	return at + bytes.size;
}

static size_t event_size(const struct ps_event_out *event)
{
	size_t size = bytes_size(event->manifest.size) + number_size(event->version) +
		      bytes_size(event->payload.size);
	for (uint32_t i = 0; i < event->tag_count; i++) {
		size += bytes_size(event->tags[i].size);
	}
	return size;
}

size_t ps_record_size(const struct ps_record *head, const struct ps_event_out *events)
{
	size_t size = number_size(head->term) + number_size(head->kind) +
		      number_size(head->time_ms) + bytes_size(head->pid.size) +
		      number_size(head->first_seq) + bytes_size(head->command_id.size) +
		      bytes_size(head->answer.size);
	for (uint32_t i = 0; i < head->event_count; i++) {
		size_t body = event_size(&events[i]);
		size += 1 + varint_size(body) + body;
	}
	return size;
}

static uint8_t *put_event(uint8_t *at, const struct ps_event_out *event)
{
	*at++ = (uint8_t)(REC_EVENT << 3 | WIRE_LEN);
	at = put_varint(at, event_size(event));
	at = put_bytes(at, EV_MANIFEST, event->manifest);
	at = put_number(at, EV_VERSION, event->version);
	at = put_bytes(at, EV_PAYLOAD, event->payload);
	for (uint32_t i = 0; i < event->tag_count; i++) {
		at = put_bytes(at, EV_TAG, event->tags[i]);
	}
	return at;
}

uint8_t *ps_record_encode(
	uint8_t *at, const struct ps_record *head, const struct ps_event_out *events)
{
	const uint8_t *start = at;
	at = put_number(at, REC_TERM, head->term);
	at = put_number(at, REC_KIND, head->kind);
	at = put_number(at, REC_TIME, head->time_ms);
	at = put_bytes(at, REC_PID, head->pid);
	at = put_number(at, REC_FIRST_SEQ, head->first_seq);
	at = put_bytes(at, REC_COMMAND_ID, head->command_id);
	for (uint32_t i = 0; i < head->event_count; i++) {
		at = put_event(at, &events[i]);
	}
	at = put_bytes(at, REC_ANSWER, head->answer);
	RT_DASSERT((size_t)(at - start) == ps_record_size(head, events));
	(void)start;
	return at;
}
