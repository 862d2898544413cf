#include "actors/page.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"

#define TAGS_SHOWN 64u

void ac_page_init(struct ac_page *page, bool json, uint32_t limit)
{
	*page = (struct ac_page){.json = json};
	page->limit = limit == 0 || limit > AC_PAGE_EVENTS ? AC_PAGE_EVENTS : limit;
}

void ac_page_done(struct ac_page *page)
{
	free(page->bytes);
	free(page->position);
	*page = (struct ac_page){0};
}

static uint8_t *reserve(struct ac_page *page, size_t size)
{
	if (page->size + size > page->cap) {
		page->cap = (page->size + size) * 2;
		page->bytes = realloc(page->bytes, page->cap);
		RT_ASSERT(page->bytes != NULL);
	}
	return page->bytes + page->size;
}

static char *string_of(struct ac_host *host, struct rt_bytes bytes)
{
	char *copy = rt_arena_copy(&host->arena, bytes.data, bytes.size);
	RT_ASSERT(copy != NULL);
	return copy;
}

/* JSON of the event's newest version, or why there is none. */
static struct rt_bytes event_json(struct ac_host *host, struct rt_bytes type_name,
	const struct ps_event *stored, struct pr_text *text)
{
	const struct ac_type *type = ac_registry_find(host->registry, type_name);
	struct rt_errinfo info = {0};
	struct troupe_event event = {0};
	rt_err err = type == NULL ? rt_errinfo_set(&info, RT_E_NOTFOUND,
					    "aggregate type is not loaded here")
				  : ac_event_read(host, type, stored, &event, &info);
	if (err == RT_OK) {
		pr_json_print_message(event.message, text);
	} else {
		pr_text_str(text, "{\"unreadable\":");
		pr_text_json_string(text, rt_bytes_str(info.text));
		pr_text_str(text, "}");
	}
	return rt_bytes_of(text->data, text->size);
}

static bool has_tag(const struct ps_event *event, struct rt_bytes wanted)
{
	struct rt_bytes cursor = event->tags, tag;
	while (ps_record_next_tag(&cursor, &tag)) {
		if (rt_bytes_equal(tag, wanted)) {
			return true;
		}
	}
	return wanted.size == 0;
}

static void fill_tags(struct ac_host *host, const struct ps_event *stored, Troupe__StoredEvent *out)
{
	struct rt_bytes cursor = stored->tags, tag;
	if (stored->tags.size == 0) {
		return;
	}
	out->tags = rt_arena_alloc(&host->arena, TAGS_SHOWN * sizeof(*out->tags));
	RT_ASSERT(out->tags != NULL);
	while (out->n_tags < TAGS_SHOWN && ps_record_next_tag(&cursor, &tag)) {
		out->tags[out->n_tags++] = string_of(host, tag);
	}
}

static void put(struct ac_page *page, const Troupe__StoredEvent *event)
{
	size_t size = troupe__stored_event__get_packed_size(event);
	uint8_t *at = reserve(page, size + 11);
	*at++ = 0x0a; /* field 1, length-delimited */
	at = pr_varint_put(at, size);
	troupe__stored_event__pack(event, at);
	page->size = (size_t)(at + size - page->bytes);
	page->count++;
}

static void add_event(struct ac_page *page, struct ac_host *host, const struct ac_page_row *row,
	const struct ps_record *head, const struct ps_event *stored, uint64_t seq)
{
	const uint8_t *bar = memchr(head->pid.data, '|', head->pid.size);
	size_t type_size = bar == NULL ? head->pid.size : (size_t)(bar - head->pid.data);
	struct rt_bytes type = rt_bytes_of(head->pid.data, type_size);
	struct rt_bytes id = {0};
	if (bar != NULL) {
		id = rt_bytes_of(bar + 1, head->pid.size - type_size - 1);
	}
	Troupe__StoredEvent out = TROUPE__STORED_EVENT__INIT;
	struct pr_text text = {0};
	struct rt_bytes payload =
		page->json ? event_json(host, type, stored, &text) : stored->payload;
	out.type = string_of(host, type);
	out.id = string_of(host, id);
	out.seq = seq;
	out.shard = row->shard;
	out.offset = row->offset;
	out.manifest = string_of(host, stored->manifest);
	out.version = stored->version;
	out.payload.data = (uint8_t *)(uintptr_t)payload.data;
	out.payload.len = payload.size;
	out.time_ms = head->time_ms;
	out.command_id.data = (uint8_t *)(uintptr_t)head->command_id.data;
	out.command_id.len = head->command_id.size;
	fill_tags(host, stored, &out);
	put(page, &out);
	pr_text_clear(&text);
	rt_arena_reset(&host->arena);
}

bool ac_page_add(struct ac_page *page, struct ac_host *host, const struct ac_page_row *row,
	uint64_t *from_seq)
{
	struct ps_record head;
	if (ps_record_decode(row->record, &head) != RT_OK) {
		return true; /* The reader checked it; nothing to show. */
	}
	struct rt_bytes cursor = head.events;
	struct ps_event stored;
	for (uint64_t seq = head.first_seq; ps_record_next_event(&cursor, &stored); seq++) {
		if ((from_seq != NULL && seq < *from_seq) || !has_tag(&stored, row->tag)) {
			continue;
		}
		if (from_seq != NULL &&
			(page->count == page->limit || page->size > AC_PAGE_BYTES)) {
			return false;
		}
		add_event(page, host, row, &head, &stored, seq);
		if (from_seq != NULL) {
			*from_seq = seq + 1;
		}
	}
	return page->count < page->limit && page->size <= AC_PAGE_BYTES;
}

void ac_page_answer(struct ac_page *page, struct ac_call *call)
{
	Troupe__EventPage rest = TROUPE__EVENT_PAGE__INIT;
	rest.next_seq = page->next_seq;
	rest.more = page->more;
	if (page->position != NULL) {
		rest.position = page->position;
	}
	size_t size = troupe__event_page__get_packed_size(&rest);
	uint8_t *at = reserve(page, size + 1);
	troupe__event_page__pack(&rest, at);
	page->size += size;
	ac_call_payload_take(call, page->bytes, page->size);
	page->bytes = NULL;
	page->size = page->cap = 0;
}
