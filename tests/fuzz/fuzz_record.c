/* Any bytes: decoded or refused; what is decoded can be walked, and encodes to a record that is
 * decoded to the same. */
#include <stdlib.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"

#define EVENTS 64
#define TAGS   8

static void same(struct rt_bytes a, struct rt_bytes b)
{
	RT_ASSERT(rt_bytes_equal(a, b));
}

static void encode_again(const struct ps_record *record, const struct ps_event_out *events)
{
	size_t size = ps_record_size(record, events);
	uint8_t *bytes = malloc(size);
	struct ps_record again;
	RT_ASSERT(bytes != NULL);
	RT_ASSERT(ps_record_encode(bytes, record, events) == bytes + size);
	RT_ASSERT(ps_record_decode(rt_bytes_of(bytes, size), &again) == RT_OK);
	RT_ASSERT(again.term == record->term && again.kind == record->kind &&
		  again.first_seq == record->first_seq && again.event_count == record->event_count);
	same(again.pid, record->pid);
	same(again.command_id, record->command_id);
	same(again.answer, record->answer);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rt_bytes tags[EVENTS][TAGS];
	struct ps_event_out events[EVENTS];
	struct ps_record record;
	struct ps_record head;
	rt_err peeked = ps_record_peek(rt_bytes_of(data, size), &head);
	if (ps_record_decode(rt_bytes_of(data, size), &record) != RT_OK) {
		return 0;
	}
	RT_ASSERT(peeked == RT_OK && head.kind == record.kind);
	same(head.pid, record.pid);
	struct rt_bytes cursor = record.events;
	struct ps_event event;
	uint32_t count = 0;
	bool whole = record.event_count <= EVENTS;
	while (ps_record_next_event(&cursor, &event)) {
		uint32_t tag_count = 0;
		struct rt_bytes tag;
		while (ps_record_next_tag(&event.tags, &tag)) {
			if (count < EVENTS && tag_count < TAGS) {
				tags[count][tag_count] = tag;
			}
			tag_count++;
		}
		whole = whole && tag_count <= TAGS;
		if (count < EVENTS) {
			events[count] = (struct ps_event_out){event.manifest, event.version,
				event.payload, tags[count], tag_count};
		}
		count++;
	}
	RT_ASSERT(count == record.event_count);
	if (whole) {
		encode_again(&record, events);
	}
	return 0;
}
