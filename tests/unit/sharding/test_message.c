#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "proto/wire.h"
#include "sharding/message.h"
#include "sharding/peer.pb-c.h"
#include "tests/support/test.h"

#define FRAME_MAX (2u * PS_RECORD_MAX)

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static struct rt_bytes scratch[SH_MESSAGE_RECORDS];

static rt_err decode(struct rt_bytes *frame, struct sh_message *out)
{
	return sh_message_decode(frame, out, scratch);
}

static rt_err decode_whole(const uint8_t *bytes, size_t size)
{
	struct rt_bytes frame = rt_bytes_of(bytes, size);
	struct sh_message message;
	return decode(&frame, &message);
}

/* ---- samples ---- */

static uint8_t record_room[8][64];
static struct rt_bytes sample_records[8];

/* A command, a first entry of a term, members: everything a log holds. */
static void make_records(void)
{
	for (uint32_t i = 0; i < 8; i++) {
		struct ps_record record = {.term = 3 + i,
			.kind = 1 + i % 3,
			.time_ms = 1790000000000u,
			.pid = rt_bytes_str("note|n"),
			.first_seq = i + 1};
		size_t size = ps_record_size(&record, NULL);
		assert_true(size <= sizeof(record_room[i]));
		ps_record_encode(record_room[i], &record, NULL);
		sample_records[i] = rt_bytes_of(record_room[i], size);
	}
}

static struct sh_members three(void)
{
	struct sh_members members = {0};
	assert_err(sh_members_put(&members, 9, true), RT_OK);
	assert_err(sh_members_put(&members, 2, true), RT_OK);
	assert_err(sh_members_put(&members, 77, false), RT_OK);
	return members;
}

#define SAMPLES 12u

/* One of every type, and of every shape a type has. */
static struct sh_message sample(uint32_t i)
{
	static const struct sh_raft_message heads[SAMPLES] = {
		{.type = SH_MSG_APPEND, .index = 300, .log_term = 3, .commit = 290, .count = 8},
		{.type = SH_MSG_APPEND, .index = 308, .log_term = 10, .commit = 308},
		{.type = SH_MSG_APPEND_RESULT, .index = 308},
		{.type = SH_MSG_APPEND_RESULT, .flags = SH_FLAG_REJECT, .index = 300, .hint = 12},
		{.type = SH_MSG_VOTE, .flags = SH_FLAG_PRE, .index = 308, .log_term = 10},
		{.type = SH_MSG_VOTE, .flags = SH_FLAG_TRANSFER, .index = 308, .log_term = 10},
		{.type = SH_MSG_VOTE_RESULT, .flags = SH_FLAG_PRE | SH_FLAG_GRANTED},
		{.type = SH_MSG_INSTALL, .index = 4096, .log_term = 9},
		{.type = SH_MSG_TIMEOUT_NOW},
		{.type = SH_MSG_REMOVED, .index = 17},
		{.type = SH_MSG_FETCH, .index = 1},
		{.type = SH_MSG_CHUNK,
			.flags = SH_FLAG_LAST,
			.index = 301,
			.log_term = 10,
			.count = 4},
	};
	struct sh_message message = {.head = heads[i], .shard = 12 + i, .records = sample_records};
	message.head.from = 2;
	message.head.to = UINT64_C(0xfeedfacecafebeef);
	message.head.term = 11;
	message.head.round = 4000000000u;
	message.head.stamp = 123456789;
	if ((message.head.flags & SH_FLAG_LAST) != 0) {
		message.set = (struct sh_raft_set){.index = 17, .members = three()};
	}
	return message;
}

static size_t encode(uint8_t *out, const struct sh_message *message)
{
	size_t size = sh_message_size(message);
	assert_ptr_equal(sh_message_encode(out, message), out + size);
	return size;
}

static void assert_same(const struct sh_message *a, const struct sh_message *b)
{
	const struct sh_raft_message *x = &a->head;
	const struct sh_raft_message *y = &b->head;
	assert_int_equal(a->shard, b->shard);
	assert_int_equal(x->type, y->type);
	assert_int_equal(x->flags, y->flags);
	assert_int_equal(x->count, y->count);
	assert_int_equal(x->from, y->from);
	assert_int_equal(x->to, y->to);
	assert_int_equal(x->term, y->term);
	assert_int_equal(x->index, y->index);
	assert_int_equal(x->log_term, y->log_term);
	assert_int_equal(x->commit, y->commit);
	assert_int_equal(x->hint, y->hint);
	assert_int_equal(x->round, y->round);
	assert_int_equal(x->stamp, y->stamp);
	assert_int_equal(a->set.index, b->set.index);
	assert_true(sh_members_equal(&a->set.members, &b->set.members));
	for (uint32_t i = 0; i < x->count; i++) {
		assert_true(rt_bytes_equal(a->records[i], b->records[i]));
	}
}

/* ---- round trips ---- */

static void every_type_survives_the_wire(void **state)
{
	(void)state;
	uint8_t bytes[1024];
	bool seen[SH_MSG_TYPES] = {false};
	for (uint32_t i = 0; i < SAMPLES; i++) {
		struct sh_message message = sample(i);
		struct sh_message got;
		struct rt_bytes frame = rt_bytes_of(bytes, encode(bytes, &message));
		assert_err(decode(&frame, &got), RT_OK);
		assert_int_equal(frame.size, 0);
		assert_same(&got, &message);
		seen[got.head.type] = true;
	}
	for (uint32_t type = SH_MSG_APPEND; type < SH_MSG_TYPES; type++) {
		assert_true(seen[type]);
	}
}

static void a_frame_holds_many_messages(void **state)
{
	(void)state;
	uint8_t bytes[8192];
	uint8_t *at = bytes;
	for (uint32_t i = 0; i < SAMPLES; i++) {
		struct sh_message message = sample(i);
		at = sh_message_encode(at, &message);
	}
	struct rt_bytes frame = rt_bytes_of(bytes, (size_t)(at - bytes));
	for (uint32_t i = 0; i < SAMPLES; i++) {
		struct sh_message message = sample(i);
		struct sh_message got;
		assert_err(decode(&frame, &got), RT_OK);
		assert_same(&got, &message);
	}
	assert_int_equal(frame.size, 0);
	struct sh_message none;
	assert_err(decode(&frame, &none), RT_E_PROTO);
}

static void numbers_survive_up_to_their_limit(void **state)
{
	(void)state;
	uint8_t bytes[256];
	struct sh_message message = {
		.shard = UINT16_MAX,
		.head = {.type = SH_MSG_VOTE,
			.from = UINT64_MAX,
			.to = 1,
			.term = UINT64_C(1) << 62,
			.index = UINT64_C(1) << 62,
			.log_term = UINT64_C(1) << 62,
			.commit = UINT64_C(1) << 62,
			.hint = UINT64_C(1) << 62,
			.round = UINT64_C(1) << 62,
			.stamp = UINT64_C(1) << 62},
	};
	struct rt_bytes frame = rt_bytes_of(bytes, encode(bytes, &message));
	struct sh_message got;
	assert_err(decode(&frame, &got), RT_OK);
	assert_same(&got, &message);
	message.head.term++;
	assert_err(decode_whole(bytes, encode(bytes, &message)), RT_E_PROTO);
	message.head.term = 1;
	message.head.stamp++;
	assert_err(decode_whole(bytes, encode(bytes, &message)), RT_E_PROTO);
}

static void the_largest_messages_survive(void **state)
{
	(void)state;
	static struct rt_bytes many[SH_MESSAGE_RECORDS];
	uint8_t *bytes = malloc(FRAME_MAX);
	uint8_t *big = malloc(PS_RECORD_MAX);
	assert_non_null(bytes);
	assert_non_null(big);
	struct sh_message message = sample(0);
	struct sh_message got;
	for (uint32_t i = 0; i < SH_MESSAGE_RECORDS; i++) {
		many[i] = sample_records[i % 8];
	}
	message.records = many;
	message.head.count = SH_MESSAGE_RECORDS;
	struct rt_bytes frame = rt_bytes_of(bytes, encode(bytes, &message));
	assert_err(decode(&frame, &got), RT_OK);
	assert_same(&got, &message);

	/* One record as large as a record may be; what is behind its head is not looked at. */
	memset(big, 0, PS_RECORD_MAX);
	memcpy(big, sample_records[0].data, sample_records[0].size);
	uint8_t *answer = big + sample_records[0].size;
	*answer++ = 8 << 3 | 2;
	many[0] = rt_bytes_of(big, PS_RECORD_MAX);
	message.head.count = 1;
	frame = rt_bytes_of(bytes, encode(bytes, &message));
	assert_err(decode(&frame, &got), RT_OK);
	assert_same(&got, &message);
	free(big);
	free(bytes);
}

/* ---- protobuf-c agrees ---- */

static void pb_of(const struct sh_message *message, Troupe__PeerMessage *pb,
	ProtobufCBinaryData *records, uint8_t members[SH_MEMBERS_BYTES])
{
	const struct sh_raft_message *head = &message->head;
	troupe__peer_message__init(pb);
	pb->type = head->type;
	pb->flags = head->flags;
	pb->shard = message->shard;
	pb->from = head->from;
	pb->to = head->to;
	pb->term = head->term;
	pb->index = head->index;
	pb->log_term = head->log_term;
	pb->commit = head->commit;
	pb->hint = head->hint;
	pb->round = head->round;
	pb->stamp = head->stamp;
	if ((head->flags & SH_FLAG_LAST) != 0) {
		pb->members_index = message->set.index;
		pb->members.data = members;
		pb->members.len = sh_members_encode(&message->set.members, members);
	}
	pb->n_records = head->count;
	pb->records = records;
	for (uint32_t i = 0; i < head->count; i++) {
		records[i].data = (uint8_t *)(uintptr_t)message->records[i].data;
		records[i].len = message->records[i].size;
	}
}

static void compare_with_protobuf(const struct sh_message *message)
{
	uint8_t ours[1024];
	uint8_t theirs[1024];
	uint8_t members[SH_MEMBERS_BYTES];
	ProtobufCBinaryData records[8];
	Troupe__PeerMessage pb;
	pb_of(message, &pb, records, members);
	size_t body = troupe__peer_message__get_packed_size(&pb);
	assert_true(body < sizeof(theirs) - 10);
	uint8_t *start = pr_varint_put(theirs, body);
	size_t size = (size_t)(start - theirs) + troupe__peer_message__pack(&pb, start);
	assert_int_equal(encode(ours, message), size);
	assert_memory_equal(ours, theirs, size);

	struct rt_bytes frame = rt_bytes_of(theirs, size);
	struct sh_message got;
	assert_err(decode(&frame, &got), RT_OK);
	assert_same(&got, message);
}

static uint64_t some_number(void)
{
	return rnd() % 4 == 0 ? 0 : rnd() >> (2 + rnd() % 62);
}

static void protobuf_writes_and_reads_the_same_bytes(void **state)
{
	(void)state;
	for (uint32_t round = 0; round < 5000; round++) {
		struct sh_message message = sample(round % SAMPLES);
		if (round >= SAMPLES) {
			message.shard = (uint32_t)(rnd() & UINT16_MAX);
			message.head.term = some_number();
			message.head.index = some_number();
			message.head.log_term = some_number();
			message.head.commit = some_number();
			message.head.hint = some_number();
			message.head.round = some_number();
			message.head.stamp = some_number();
			message.set.index =
				(message.head.flags & SH_FLAG_LAST) != 0 ? some_number() : 0;
			message.head.count = message.head.count == 0 ? 0 : (uint32_t)(rnd() % 9);
		}
		compare_with_protobuf(&message);
	}
}

/* ---- what is refused ---- */

/* Copies, so that a sanitizer sees a read behind the end. */
static rt_err decode_copy(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size == 0 ? 1 : size);
	assert_non_null(copy);
	if (size > 0) {
		memcpy(copy, bytes, size);
	}
	rt_err err = decode_whole(copy, size);
	free(copy);
	return err;
}

static void refuses_every_frame_that_is_cut_off(void **state)
{
	(void)state;
	uint8_t bytes[1024];
	for (uint32_t i = 0; i < SAMPLES; i++) {
		struct sh_message message = sample(i);
		size_t size = encode(bytes, &message);
		for (size_t cut = 0; cut < size; cut++) {
			assert_err(decode_copy(bytes, cut), RT_E_PROTO);
		}
		assert_err(decode_copy(bytes, size), RT_OK);
	}
}

static bool inside(struct rt_bytes part, struct rt_bytes whole)
{
	return part.data >= whole.data && part.size <= whole.size &&
	       (size_t)(part.data - whole.data) <= whole.size - part.size;
}

static void assert_in_bounds(const struct sh_message *message, struct rt_bytes whole)
{
	const struct sh_raft_message *head = &message->head;
	assert_in_range(head->type, SH_MSG_APPEND, SH_MSG_TYPES - 1);
	assert_int_equal(head->flags & ~SH_FLAGS, 0);
	assert_true(head->from != 0 && head->to != 0 && head->from != head->to);
	assert_true(head->count <= SH_MESSAGE_RECORDS && message->shard <= UINT16_MAX);
	for (uint32_t i = 0; i < head->count; i++) {
		struct ps_record record;
		assert_true(inside(message->records[i], whole));
		assert_err(ps_record_peek(message->records[i], &record), RT_OK);
	}
	if ((head->flags & SH_FLAG_LAST) != 0) {
		assert_true(message->set.members.voters != 0);
		assert_true(message->set.members.count <= SH_MEMBERS_MAX);
	}
}

static void a_flipped_bit_is_refused_or_harmless(void **state)
{
	(void)state;
	uint8_t bytes[1024];
	uint8_t again[1024];
	uint32_t refused = 0;
	for (uint32_t i = 0; i < SAMPLES; i++) {
		struct sh_message message = sample(i);
		size_t size = encode(bytes, &message);
		for (size_t bit = 0; bit < 8 * size; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			struct rt_bytes frame = rt_bytes_of(bytes, size);
			struct sh_message got;
			memset(&got, 0xa5, sizeof(got));
			if (decode(&frame, &got) == RT_OK) {
				assert_in_bounds(&got, rt_bytes_of(bytes, size));
				assert_true(sh_message_size(&got) <= sizeof(again));
				assert_err(decode_whole(again, encode(again, &got)), RT_OK);
			} else {
				assert_ptr_equal(frame.data, bytes);
				assert_int_equal(got.head.count, 0xa5a5a5a5u); /* untouched */
				refused++;
			}
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
	assert_true(refused > 1000);
}

/* A message by hand: its fields, and the length in front. */
struct made {
	uint8_t bytes[FRAME_MAX];
	size_t size;
};

static struct made *made_of(const uint8_t *fields, size_t size)
{
	static struct made made;
	uint8_t *at = pr_varint_put(made.bytes, size);
	memcpy(at, fields, size);
	made.size = (size_t)(at - made.bytes) + size;
	return &made;
}

#define ASSERT_FIELDS(expected, ...)                                        \
	do {                                                                \
		const uint8_t fields[] = {__VA_ARGS__};                     \
		const struct made *made = made_of(fields, sizeof(fields));  \
		assert_err(decode_copy(made->bytes, made->size), expected); \
	} while (0)

#define FROM_TO 0x20, 1, 0x28, 2

static void refuses_types_flags_and_nodes_it_does_not_know(void **state)
{
	(void)state;
	ASSERT_FIELDS(RT_OK, 0x08, SH_MSG_APPEND, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, 0, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_TYPES, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, 0x81, 0x02, FROM_TO); /* 257 */
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_VOTE, 0x10, 32, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_VOTE, 0x10, 0x81, 0x02, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_VOTE, 0x10, SH_FLAG_REJECT, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x10, SH_FLAG_LAST, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x20, 1);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x28, 1);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x20, 3, 0x28, 3);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x18, 0x80, 0x80, 0x04, FROM_TO);
}

static void refuses_fields_in_disorder_and_of_the_wrong_kind(void **state)
{
	(void)state;
	ASSERT_FIELDS(RT_E_PROTO, 0x20, 1, 0x08, SH_MSG_APPEND, 0x28, 2);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x08, SH_MSG_APPEND, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x0a, 0, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, 0x1a, 0, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x70, 1);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x79, 0x10, 2, 0x42, 4, 0, 0, 0, 0);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x78, 1);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x33);
	/* A field of a later version is passed over. */
	ASSERT_FIELDS(RT_OK, 0x08, SH_MSG_APPEND, FROM_TO, 0x82, 0x01, 2, 'h', 'i');
}

static void refuses_members_that_are_none_or_out_of_place(void **state)
{
	(void)state;
#define LAST    0x08, SH_MSG_CHUNK, 0x10, SH_FLAG_LAST, FROM_TO
#define NODE(n) n, 0, 0, 0, 0, 0, 0, 0
	ASSERT_FIELDS(RT_OK, LAST, 0x72, 10, 1, 1, NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, LAST);
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 0);
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 2, 0, 0);
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 10, 1, 0, NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 10, 1, 3, NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 10, 1, 1, NODE(0));
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 10, 2, 1, NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 18, 2, 1, NODE(5), NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, LAST, 0x72, 18, 2, 1, NODE(6), NODE(5));
	ASSERT_FIELDS(RT_OK, 0x08, SH_MSG_CHUNK, FROM_TO);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_CHUNK, FROM_TO, 0x68, 1);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_CHUNK, FROM_TO, 0x72, 10, 1, 1, NODE(5));
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_VOTE, FROM_TO, 0x72, 10, 1, 1, NODE(5));
}

static void refuses_records_that_are_none_or_out_of_place(void **state)
{
	(void)state;
	ASSERT_FIELDS(RT_OK, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 2, 0x10, 2);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_VOTE, FROM_TO, 0x7a, 2, 0x10, 2);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_FETCH, FROM_TO, 0x7a, 2, 0x10, 2);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 0);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 2, 0x10, 0);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 2, 0x10, 1); /* no pid */
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 3, 0x10, 2);
	ASSERT_FIELDS(RT_E_PROTO, 0x08, SH_MSG_APPEND, FROM_TO, 0x7a, 0xff, 0xff, 0xff, 0xff, 0x0f);
}

static size_t put_head(uint8_t *fields)
{
	static const uint8_t head[] = {0x08, SH_MSG_APPEND, FROM_TO};
	memcpy(fields, head, sizeof(head));
	return sizeof(head);
}

/* count records of this size: a leader's first entry with an answer that fills it. */
static rt_err decode_records(uint32_t count, size_t record_size)
{
	uint8_t *fields = malloc(FRAME_MAX);
	assert_non_null(fields);
	size_t size = put_head(fields);
	for (uint32_t i = 0; i < count; i++) {
		fields[size++] = 0x7a;
		uint8_t *at = pr_varint_put(fields + size, record_size);
		memset(at, 0, record_size);
		memcpy(at, (const uint8_t[]){0x10, 2, 0x42}, record_size < 3 ? 2 : 3);
		size = (size_t)(at - fields) + record_size;
	}
	const struct made *made = made_of(fields, size);
	rt_err err = decode_copy(made->bytes, made->size);
	free(fields);
	return err;
}

static void refuses_more_records_than_a_message_holds(void **state)
{
	(void)state;
	assert_err(decode_records(SH_MESSAGE_RECORDS, 2), RT_OK);
	assert_err(decode_records(SH_MESSAGE_RECORDS + 1, 2), RT_E_PROTO);
	assert_err(decode_records(100000, 2), RT_E_PROTO);
	assert_err(decode_records(1, PS_RECORD_MAX), RT_OK);
	assert_err(decode_records(1, PS_RECORD_MAX + 1), RT_E_PROTO);
	assert_err(decode_records(2, SH_MESSAGE_BYTES / 2), RT_OK);
	assert_err(decode_records(2, SH_MESSAGE_BYTES / 2 + 1), RT_E_PROTO);
}

static void refuses_a_length_that_lies(void **state)
{
	(void)state;
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
		0x08, SH_MSG_APPEND, FROM_TO};
	static const uint8_t endless[] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t nothing[] = {0};
	static const uint8_t too_short[] = {5, 0x08, SH_MSG_APPEND, FROM_TO};
	assert_err(decode_copy(huge, sizeof(huge)), RT_E_PROTO);
	assert_err(decode_copy(endless, sizeof(endless)), RT_E_PROTO);
	assert_err(decode_copy(nothing, sizeof(nothing)), RT_E_PROTO);
	assert_err(decode_copy(too_short, sizeof(too_short)), RT_E_PROTO);
	assert_err(decode_copy(NULL, 0), RT_E_PROTO);
}

static void noise_is_refused_or_in_bounds(void **state)
{
	(void)state;
	uint8_t bytes[256];
	for (uint32_t round = 0; round < 200000; round++) {
		struct sh_message message = sample((uint32_t)(rnd() % SAMPLES));
		message.head.count = message.head.count == 0 ? 0 : (uint32_t)(rnd() % 3);
		size_t size = encode(bytes, &message);
		for (uint64_t n = 1 + rnd() % 4; n > 0; n--) {
			bytes[rnd() % size] = (uint8_t)rnd();
		}
		struct rt_bytes frame = rt_bytes_of(bytes, size);
		struct sh_message got;
		while (decode(&frame, &got) == RT_OK) {
			assert_in_bounds(&got, rt_bytes_of(bytes, size));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_survives_the_wire),
		cmocka_unit_test(a_frame_holds_many_messages),
		cmocka_unit_test(numbers_survive_up_to_their_limit),
		cmocka_unit_test(the_largest_messages_survive),
		cmocka_unit_test(protobuf_writes_and_reads_the_same_bytes),
		cmocka_unit_test(refuses_every_frame_that_is_cut_off),
		cmocka_unit_test(a_flipped_bit_is_refused_or_harmless),
		cmocka_unit_test(refuses_types_flags_and_nodes_it_does_not_know),
		cmocka_unit_test(refuses_fields_in_disorder_and_of_the_wrong_kind),
		cmocka_unit_test(refuses_members_that_are_none_or_out_of_place),
		cmocka_unit_test(refuses_records_that_are_none_or_out_of_place),
		cmocka_unit_test(refuses_more_records_than_a_message_holds),
		cmocka_unit_test(refuses_a_length_that_lies),
		cmocka_unit_test(noise_is_refused_or_in_bounds),
	};
	make_records();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
