#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "persistence/record.pb-c.h"
#include "tests/support/test.h"

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static struct rt_bytes text(const char *chars)
{
	return rt_bytes_str(chars);
}

static size_t encode(uint8_t *out, const struct ps_record *head, const struct ps_event_out *events)
{
	size_t size = ps_record_size(head, events);
	assert_ptr_equal(ps_record_encode(out, head, events), out + size);
	return size;
}

static struct ps_record sample_head(void)
{
	return (struct ps_record){.term = 7,
		.kind = PS_KIND_COMMAND,
		.time_ms = 1790000000000u,
		.pid = text("account|a-1"),
		.first_seq = 300,
		.command_id = text("0123456789abcdef"),
		.event_count = 2,
		.answer = text("fine")};
}

static const struct rt_bytes sample_tags[2] = {
	{(const uint8_t *)"red", 3}, {(const uint8_t *)"green", 5}};

static void sample_events(struct ps_event_out out[2])
{
	out[0] = (struct ps_event_out){
		.manifest = text("MoneyDeposited"), .version = 1, .payload = text("abc")};
	out[1] = (struct ps_event_out){.manifest = text("AccountClosed"),
		.version = 200,
		.payload = text(""),
		.tags = sample_tags,
		.tag_count = 2};
}

static void what_is_encoded_is_decoded(void **state)
{
	(void)state;
	uint8_t bytes[512];
	struct ps_event_out events[2];
	struct ps_record head = sample_head();
	sample_events(events);
	size_t size = encode(bytes, &head, events);
	struct ps_record got;
	assert_err(ps_record_decode(rt_bytes_of(bytes, size), &got), RT_OK);
	assert_int_equal(got.term, 7);
	assert_int_equal(got.time_ms, head.time_ms);
	assert_true(rt_bytes_equal(got.pid, head.pid));
	assert_int_equal(got.first_seq, 300);
	assert_true(rt_bytes_equal(got.command_id, head.command_id));
	assert_true(rt_bytes_equal(got.answer, head.answer));
	assert_int_equal(got.event_count, 2);
	struct ps_event event;
	assert_true(ps_record_next_event(&got.events, &event));
	assert_true(rt_bytes_equal(event.manifest, text("MoneyDeposited")));
	assert_true(rt_bytes_equal(event.payload, text("abc")));
	assert_int_equal(event.tags.size, 0);
	assert_true(ps_record_next_event(&got.events, &event));
	assert_int_equal(event.version, 200);
	struct rt_bytes tag;
	assert_true(ps_record_next_tag(&event.tags, &tag));
	assert_true(rt_bytes_equal(tag, text("red")));
	assert_true(ps_record_next_tag(&event.tags, &tag));
	assert_true(rt_bytes_equal(tag, text("green")));
	assert_false(ps_record_next_tag(&event.tags, &tag));
	assert_false(ps_record_next_event(&got.events, &event));
}

static void peek_reads_the_head_only(void **state)
{
	(void)state;
	uint8_t bytes[512];
	struct ps_event_out events[2];
	struct ps_record head = sample_head();
	sample_events(events);
	size_t size = encode(bytes, &head, events);
	struct ps_record got;
	assert_err(ps_record_peek(rt_bytes_of(bytes, size), &got), RT_OK);
	assert_int_equal(got.kind, PS_KIND_COMMAND);
	assert_true(rt_bytes_equal(got.pid, head.pid));
	assert_int_equal(got.first_seq, 300);
	assert_int_equal(got.events.size, 0);
}

/* protobuf-c packs the same record to the same bytes, for many random ones. */
static Troupe__Event *pb_event(const struct ps_event_out *event)
{
	Troupe__Event *pb = malloc(sizeof(*pb));
	assert_non_null(pb);
	troupe__event__init(pb);
	pb->manifest = strndup((const char *)event->manifest.data, event->manifest.size);
	pb->version = event->version;
	pb->payload.data = (uint8_t *)(uintptr_t)event->payload.data;
	pb->payload.len = event->payload.size;
	pb->n_tags = event->tag_count;
	pb->tags = calloc(event->tag_count + 1u, sizeof(*pb->tags));
	assert_non_null(pb->tags);
	for (uint32_t i = 0; i < event->tag_count; i++) {
		pb->tags[i] = strndup((const char *)event->tags[i].data, event->tags[i].size);
	}
	return pb;
}

static void pb_event_free(Troupe__Event *pb)
{
	for (size_t i = 0; i < pb->n_tags; i++) {
		free(pb->tags[i]);
	}
	free(pb->tags);
	free(pb->manifest);
	free(pb);
}

static void compare_with_protobuf(
	const struct ps_record *head, const struct ps_event_out *events, struct rt_bytes ours)
{
	Troupe__Record pb = TROUPE__RECORD__INIT;
	Troupe__Event *list[16];
	char *pid = strndup((const char *)head->pid.data, head->pid.size);
	pb.term = head->term;
	pb.kind = head->kind;
	pb.time_ms = head->time_ms;
	pb.pid = pid;
	pb.first_seq = head->first_seq;
	pb.command_id.data = (uint8_t *)(uintptr_t)head->command_id.data;
	pb.command_id.len = head->command_id.size;
	pb.answer.data = (uint8_t *)(uintptr_t)head->answer.data;
	pb.answer.len = head->answer.size;
	pb.n_events = head->event_count;
	pb.events = list;
	for (uint32_t i = 0; i < head->event_count; i++) {
		list[i] = pb_event(&events[i]);
	}
	assert_int_equal(troupe__record__get_packed_size(&pb), ours.size);
	uint8_t *theirs = malloc(ours.size);
	assert_non_null(theirs);
	troupe__record__pack(&pb, theirs);
	assert_memory_equal(theirs, ours.data, ours.size);
	free(theirs);
	free(pid);
	for (uint32_t i = 0; i < head->event_count; i++) {
		pb_event_free(list[i]);
	}
}

static struct rt_bytes random_text(char *out, size_t max)
{
	size_t size = 1 + rnd() % max;
	for (size_t i = 0; i < size; i++) {
		out[i] = (char)('a' + rnd() % 26);
	}
	return rt_bytes_of(out, size);
}

static void encodes_as_protobuf_does(void **state)
{
	(void)state;
	static uint8_t out[65536];
	static char room[16][5][200];
	struct ps_event_out events[16];
	struct rt_bytes tags[16][3];
	char pid[200];
	char id[64];
	char answer[200];
	for (int round = 0; round < 2000; round++) {
		struct ps_record head = {.kind = PS_KIND_COMMAND};
		head.term = rnd() >> (rnd() % 64);
		head.time_ms = rnd() >> (rnd() % 64);
		head.first_seq = 1 + (rnd() >> (3 + rnd() % 60));
		head.pid = random_text(pid, sizeof(pid));
		head.command_id = random_text(id, sizeof(id));
		head.answer = random_text(answer, sizeof(answer));
		head.answer.size = rnd() % 2 == 0 ? 0 : head.answer.size;
		head.event_count = (uint32_t)(rnd() % 16);
		for (uint32_t i = 0; i < head.event_count; i++) {
			events[i] = (struct ps_event_out){.manifest = random_text(room[i][0], 200),
				.version = (uint32_t)(rnd() >> (32 + rnd() % 32)),
				.payload = random_text(room[i][1], 200),
				.tags = tags[i],
				.tag_count = (uint32_t)(rnd() % 4)};
			for (uint32_t t = 0; t < events[i].tag_count; t++) {
				tags[i][t] = random_text(room[i][2 + t], 200);
			}
		}
		size_t size = encode(out, &head, events);
		compare_with_protobuf(&head, events, rt_bytes_of(out, size));
		struct ps_record got;
		assert_err(ps_record_decode(rt_bytes_of(out, size), &got), RT_OK);
		assert_int_equal(got.event_count, head.event_count);
	}
}

static void refuses_every_shortened_record(void **state)
{
	(void)state;
	uint8_t bytes[512];
	struct ps_event_out events[2];
	struct ps_record head = sample_head();
	sample_events(events);
	size_t size = encode(bytes, &head, events);
	size_t refused = 0;
	for (size_t cut = 0; cut < size; cut++) {
		/* On the heap, so that reading past the cut is seen. */
		uint8_t *copy = malloc(cut + 1);
		assert_non_null(copy);
		memcpy(copy, bytes, cut);
		struct ps_record got;
		refused += ps_record_decode(rt_bytes_of(copy, cut), &got) == RT_E_CORRUPT;
		free(copy);
	}
	/* A cut between the fields after first_seq leaves a smaller record that is well formed. */
	assert_true(refused >= size - 4);
}

static void survives_every_flipped_bit(void **state)
{
	(void)state;
	uint8_t bytes[512];
	struct ps_event_out events[2];
	struct ps_record head = sample_head();
	sample_events(events);
	size_t size = encode(bytes, &head, events);
	for (size_t bit = 0; bit < size * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		struct ps_record got;
		if (ps_record_decode(rt_bytes_of(bytes, size), &got) == RT_OK) {
			struct ps_event event;
			struct rt_bytes tag;
			while (ps_record_next_event(&got.events, &event)) {
				while (ps_record_next_tag(&event.tags, &tag)) {
				}
			}
		}
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void refuses(const char *bytes, size_t size)
{
	struct ps_record got;
	assert_err(ps_record_decode(rt_bytes_of(bytes, size), &got), RT_E_CORRUPT);
}

static void refuses_what_no_encoder_writes(void **state)
{
	(void)state;
	refuses("", 0);
	refuses("\x10\x02\x08\x01", 4);                       /* kind before term */
	refuses("\x10\x02\x10\x02", 4);                       /* kind twice */
	refuses("\x10\x00", 2);                               /* kind 0 */
	refuses("\x08\x05", 2);                               /* no kind */
	refuses("\x10\x01\x22\x01x", 5);                      /* no sequence number */
	refuses("\x10\x01\x28\x01", 4);                       /* no pid */
	refuses("\x10\x01\x22\x03x\0y\x28\x01", 9);           /* NUL in the pid */
	refuses("\x10\x01\x22\x01x\x28\x01\x3a\x00", 9);      /* event without a manifest */
	refuses("\x10\x02\x3a\x03\x0a\x01m", 7);              /* event in a leader's entry */
	refuses("\x10\x01\x22\x01x\x2d\x01\x01\x01\x01", 10); /* wrong wire type */
	refuses("\x10\x01\x22\x01x\x2b\x2c", 7);              /* group */
	refuses("\x10\x02\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13);
	refuses("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11);
	refuses("\x10\x02\x00\x00", 4); /* field number 0 */
}

static void skips_fields_of_a_newer_build(void **state)
{
	(void)state;
	static const char bytes[] = "\x10\x01\x22\x01x\x28\x01\x48\x05\x52\x02yz";
	struct ps_record got;
	assert_err(ps_record_decode(rt_bytes_of(bytes, sizeof(bytes) - 1), &got), RT_OK);
	assert_int_equal(got.first_seq, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(peek_reads_the_head_only),
		cmocka_unit_test(encodes_as_protobuf_does),
		cmocka_unit_test(refuses_every_shortened_record),
		cmocka_unit_test(survives_every_flipped_bit),
		cmocka_unit_test(refuses_what_no_encoder_writes),
		cmocka_unit_test(skips_fields_of_a_newer_build),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
