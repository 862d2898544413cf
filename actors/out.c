#include "actors/out.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

void ac_out_begin(struct troupe_out *out, const struct troupe_aggregate *aggregate)
{
	out->aggregate = aggregate;
	out->only = NULL;
	out->size = 0;
	out->event_count = 0;
	out->tag_count = 0;
	out->has_reply = false;
	out->refused = false;
	out->refusal[0] = '\0';
	out->defect[0] = '\0';
}

void ac_out_done(struct troupe_out *out)
{
	free(out->bytes);
	free(out->events);
	*out = (struct troupe_out){0};
}

struct rt_bytes ac_out_piece(const struct troupe_out *out, const struct ac_piece *piece)
{
	return rt_bytes_of(out->bytes + piece->pos, piece->size);
}

static void set_defect(struct troupe_out *out, const char *what, const char *name)
{
	if (out->defect[0] == '\0') {
		snprintf(out->defect, sizeof(out->defect), "%s: %s", what, name);
	}
}

/* Room for size bytes; false (and a defect) over the limit. */
static bool reserve(struct troupe_out *out, size_t size, const char *name)
{
	if (out->size + size > AC_OUT_BYTES) {
		set_defect(out, "more output than a record may hold", name);
		return false;
	}
	if (out->size + size > out->cap) {
		size_t cap = (out->size + size) * 2;
		uint8_t *bytes = realloc(out->bytes, cap);
		RT_ASSERT(bytes != NULL);
		out->bytes = bytes;
		out->cap = cap;
	}
	return true;
}

static bool pack(struct troupe_out *out, const ProtobufCMessage *message, struct ac_piece *piece)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	const char *name = message->descriptor->name;
	if (size > AC_EMIT_BYTES) {
		set_defect(out, "message over 256 KiB", name);
		return false;
	}
	if (!reserve(out, size, name)) {
		return false;
	}
	protobuf_c_message_pack(message, out->bytes + out->size);
	piece->pos = (uint32_t)out->size;
	piece->size = (uint32_t)size;
	out->size += size;
	return true;
}

/* Index of the event type with this descriptor, or -1. */
static int event_index(const struct troupe_aggregate *aggregate, const void *descriptor)
{
	for (int i = 0; aggregate->events[i].name != NULL; i++) {
		if (aggregate->events[i].message == descriptor) {
			return i;
		}
	}
	return -1;
}

void troupe_emit(struct troupe_out *out, const ProtobufCMessage *event)
{
	int index = 0;
	if (out->only != NULL) {
		if (out->only != event->descriptor) {
			set_defect(out, "upcaster emits another message", event->descriptor->name);
			return;
		}
	} else {
		index = event_index(out->aggregate, event->descriptor);
		if (index < 0) {
			set_defect(out, "not an event of this aggregate", event->descriptor->name);
			return;
		}
	}
	if (out->event_count == AC_EMIT_MAX) {
		set_defect(out, "more than 1000 events of one command", out->aggregate->name);
		return;
	}
	if (out->event_count == out->event_cap) {
		uint32_t cap = out->event_cap == 0 ? 16 : out->event_cap * 2;
		struct ac_piece *events = realloc(out->events, cap * sizeof(*events));
		RT_ASSERT(events != NULL);
		out->events = events;
		out->event_cap = cap;
	}
	struct ac_piece *piece = &out->events[out->event_count];
	if (pack(out, event, piece)) {
		piece->index = (uint32_t)index;
		out->event_count++;
	}
}

void troupe_reply(struct troupe_out *out, const ProtobufCMessage *reply)
{
	out->has_reply = pack(out, reply, &out->reply);
}

bool troupe_refuse(struct troupe_out *out, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(out->refusal, sizeof(out->refusal), format, args);
	va_end(args);
	out->refused = true;
	return false;
}

void troupe_tag(struct troupe_out *out, const char *tag)
{
	size_t size = strlen(tag);
	if (size == 0 || size > AC_TAG_MAX || out->tag_count == AC_TAGS_MAX) {
		set_defect(out, "tag empty, longer than 64 bytes or over 16", tag);
		return;
	}
	if (reserve(out, size, "tag")) {
		memcpy(out->bytes + out->size, tag, size);
		out->tags[out->tag_count++] =
			(struct ac_piece){.pos = (uint32_t)out->size, .size = (uint32_t)size};
		out->size += size;
	}
}

/* ---- memory of states ---- */
static _Thread_local size_t *account;

size_t *ac_memory_account(size_t *bytes)
{
	size_t *last = account;
	account = bytes;
	return last;
}

void *troupe_realloc(void *block, size_t size)
{
	if (account != NULL && block != NULL) {
		*account -= malloc_usable_size(block);
	}
	void *moved = realloc(block, size == 0 ? 1 : size);
	RT_ASSERT(moved != NULL);
	if (account != NULL) {
		*account += malloc_usable_size(moved);
	}
	return moved;
}

void *troupe_alloc(size_t size)
{
	void *block = troupe_realloc(NULL, size);
	memset(block, 0, size);
	return block;
}

void troupe_free(void *block)
{
	if (account != NULL && block != NULL) {
		*account -= malloc_usable_size(block);
	}
	free(block);
}

char *troupe_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = troupe_alloc(size);
	memcpy(copy, text, size);
	return copy;
}
