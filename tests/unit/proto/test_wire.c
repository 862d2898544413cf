/* The hand-written codecs against protobuf-c: same bytes out, same values in, same refusals. */
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "proto/wire.h"
#include "tests/support/test.h"

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t rnd_number(void)
{
	return rnd() % 3 == 0 ? 0 : rnd() >> rnd() % 64;
}

/* Text from a small store, sometimes empty, sometimes not ASCII. */
static const char *rnd_text(void)
{
	static const char *const texts[] = {"", "a", "account", "acc-000042", "Übung.π@/+=-",
		"a name that is longer than eight bytes", "\xf0\x9f\x8e\xad masks"};
	return texts[rnd() % (sizeof(texts) / sizeof(texts[0]))];
}

static struct rt_bytes rnd_bytes(void)
{
	static uint8_t store[512];
	for (size_t i = 0; i < sizeof(store); i++) {
		store[i] = (uint8_t)(i * 37 + 11);
	}
	return rt_bytes_of(store + rnd() % 100, rnd() % 3 == 0 ? 0 : rnd() % 400);
}

static struct pr_call rnd_call(void)
{
	return (struct pr_call){.call_id = rnd_number(),
		.type = rt_bytes_str(rnd_text()),
		.id = rt_bytes_str(rnd_text()),
		.name = rt_bytes_str(rnd_text()),
		.payload = rnd_bytes(),
		.command_id = rnd_bytes(),
		.expected = rnd_number(),
		.kind = (uint32_t)(rnd() % 10),
		.timeout_ms = (uint32_t)rnd_number(),
		.json = rnd() % 2 == 0,
		.stale = rnd() % 2 == 0,
		.after = rnd_number()};
}

static ProtobufCBinaryData binary(struct rt_bytes bytes)
{
	return (ProtobufCBinaryData){bytes.size, (uint8_t *)(uintptr_t)bytes.data};
}

static char *text_of(struct rt_bytes bytes)
{
	return (char *)(uintptr_t)bytes.data;
}

static void fill_call(Troupe__Call *out, const struct pr_call *call)
{
	troupe__call__init(out);
	out->call_id = call->call_id;
	out->type = text_of(call->type);
	out->id = text_of(call->id);
	out->name = text_of(call->name);
	out->payload = binary(call->payload);
	out->command_id = binary(call->command_id);
	out->expected = call->expected;
	out->kind = call->kind;
	out->json = call->json;
	out->timeout_ms = call->timeout_ms;
	out->stale = call->stale;
	out->after = call->after;
}

static void assert_same_text(struct rt_bytes view, const char *text)
{
	assert_true(rt_bytes_equal(view, rt_bytes_str(text)));
}

static void assert_same_call(const struct pr_call *view, const Troupe__Call *call)
{
	assert_int_equal(view->call_id, call->call_id);
	assert_same_text(view->type, call->type);
	assert_same_text(view->id, call->id);
	assert_same_text(view->name, call->name);
	assert_true(
		rt_bytes_equal(view->payload, rt_bytes_of(call->payload.data, call->payload.len)));
	assert_true(rt_bytes_equal(
		view->command_id, rt_bytes_of(call->command_id.data, call->command_id.len)));
	assert_int_equal(view->expected, call->expected);
	assert_int_equal(view->kind, call->kind);
	assert_int_equal(view->timeout_ms, call->timeout_ms);
	assert_int_equal(view->json, call->json != 0);
	assert_int_equal(view->stale, call->stale != 0);
	assert_int_equal(view->after, call->after);
}

static void calls_are_the_bytes_protobuf_c_writes(void **state)
{
	(void)state;
	for (int round = 0; round < 2000; round++) {
		enum {
			N = 5
		};
		struct pr_call calls[N];
		Troupe__Call messages[N];
		Troupe__Call *pointers[N];
		size_t n = rnd() % (N + 1);
		size_t size = 0;
		for (size_t i = 0; i < n; i++) {
			calls[i] = rnd_call();
			fill_call(&messages[i], &calls[i]);
			pointers[i] = &messages[i];
			size += pr_call_size(&calls[i]);
		}
		Troupe__Batch batch = TROUPE__BATCH__INIT;
		batch.n_calls = n;
		batch.calls = pointers;
		assert_int_equal(size, troupe__batch__get_packed_size(&batch));
		uint8_t *ours = malloc(size + 1);
		uint8_t *theirs = malloc(size + 1);
		uint8_t *at = ours;
		for (size_t i = 0; i < n; i++) {
			at = pr_call_put(at, &calls[i]);
		}
		assert_int_equal(at - ours, size);
		troupe__batch__pack(&batch, theirs);
		assert_memory_equal(ours, theirs, size);
		free(ours);
		free(theirs);
	}
}

static void answers_are_the_bytes_protobuf_c_writes(void **state)
{
	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct pr_answer answer = {.call_id = rnd_number(),
			.code = (uint32_t)(rnd() % 12),
			.shard = (uint32_t)(rnd() % 64),
			.retry_after_ms = (uint32_t)rnd_number(),
			.events = (uint32_t)(rnd() % 4),
			.offset = rnd_number(),
			.seq = rnd_number(),
			.payload = rnd_bytes(),
			.error = rt_bytes_str(rnd_text()),
			.command_id = rnd_bytes(),
			.repeated = rnd() % 2 == 0,
			.node = rnd_number()};
		Troupe__Answer message = TROUPE__ANSWER__INIT;
		message.call_id = answer.call_id;
		message.code = answer.code;
		message.shard = answer.shard;
		message.retry_after_ms = answer.retry_after_ms;
		message.events = answer.events;
		message.offset = answer.offset;
		message.seq = answer.seq;
		message.payload = binary(answer.payload);
		message.error = text_of(answer.error);
		message.command_id = binary(answer.command_id);
		message.repeated = answer.repeated;
		message.node = answer.node;
		Troupe__Answer *pointer = &message;
		Troupe__Answers answers = TROUPE__ANSWERS__INIT;
		answers.n_answers = 1;
		answers.answers = &pointer;
		uint8_t ours[2048];
		uint8_t theirs[2048];
		size_t size = pr_answer_size(&answer);
		assert_int_equal(size, troupe__answers__get_packed_size(&answers));
		assert_int_equal(pr_answer_put(ours, &answer) - ours, size);
		troupe__answers__pack(&answers, theirs);
		assert_memory_equal(ours, theirs, size);
		struct rt_bytes cursor = rt_bytes_of(ours, size);
		struct pr_answer back;
		assert_int_equal(pr_answers_next(&cursor, &back), 1);
		assert_int_equal(back.call_id, answer.call_id);
		assert_int_equal(back.code, answer.code);
		assert_int_equal(back.shard, answer.shard);
		assert_int_equal(back.offset, answer.offset);
		assert_int_equal(back.seq, answer.seq);
		assert_int_equal(back.events, answer.events);
		assert_int_equal(back.retry_after_ms, answer.retry_after_ms);
		assert_int_equal(back.repeated, answer.repeated);
		assert_int_equal(back.node, answer.node);
		assert_true(rt_bytes_equal(back.payload, answer.payload));
		assert_true(rt_bytes_equal(back.error, answer.error));
		assert_true(rt_bytes_equal(back.command_id, answer.command_id));
		assert_int_equal(pr_answers_next(&cursor, &back), 0);
	}
}

static void a_body_alone_is_what_stands_in_the_message(void **state)
{
	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct pr_call call = rnd_call();
		uint8_t whole[2048];
		uint8_t body[2048];
		size_t size = pr_call_body_size(&call);
		size_t front = pr_call_size(&call) - size;
		pr_call_put(whole, &call);
		assert_ptr_equal(pr_call_body_put(body, &call), body + size);
		assert_memory_equal(whole + front, body, size);
		Troupe__Call message;
		fill_call(&message, &call);
		struct pr_call back;
		assert_true(pr_call_body_get(rt_bytes_of(body, size), &back));
		assert_same_call(&back, &message);

		struct pr_answer answer = {.call_id = rnd_number(),
			.error = rt_bytes_str(rnd_text()),
			.node = rnd_number()};
		size = pr_answer_body_size(&answer);
		front = pr_answer_size(&answer) - size;
		pr_answer_put(whole, &answer);
		assert_ptr_equal(pr_answer_body_put(body, &answer), body + size);
		assert_memory_equal(whole + front, body, size);
		struct pr_answer again;
		assert_true(pr_answer_body_get(rt_bytes_of(body, size), &again));
		assert_int_equal(again.call_id, answer.call_id);
		assert_int_equal(again.node, answer.node);
		assert_true(rt_bytes_equal(again.error, answer.error));
	}
}

static void a_body_alone_is_read_as_strictly_as_a_message(void **state)
{
	(void)state;
	struct pr_call call;
	struct pr_answer answer;
	static const struct {
		const char *bytes;
		size_t size;
	} bad[] = {
		{"\x08", 1},                 /* call_id without its number */
		{"\x0a\x01x", 3},            /* call_id as bytes */
		{"\x3a\x03\xed\xa0\x80", 5}, /* error as a surrogate; expected as bytes */
		{"\x58", 1},                 /* cut off */
		{"\x62\x00", 2},             /* after and node as bytes */
		{"\x5a\x00", 2},             /* stale and repeated as bytes */
		{"\x08\x01\x0b", 3},         /* a group behind a good field */
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct rt_bytes bytes = rt_bytes_of(bad[i].bytes, bad[i].size);
		assert_false(pr_call_body_get(bytes, &call));
		assert_false(pr_answer_body_get(bytes, &answer));
	}
	assert_true(pr_call_body_get(rt_bytes_of("", 0), &call));
	assert_true(pr_answer_body_get(rt_bytes_of("", 0), &answer));
	uint8_t body[512];
	struct pr_call full = {.call_id = 1,
		.type = rt_bytes_str("account"),
		.name = rt_bytes_str("Deposit"),
		.after = 300};
	size_t size = pr_call_body_size(&full);
	pr_call_body_put(body, &full);
	unsigned accepted = 0;
	for (size_t cut = 0; cut < size; cut++) {
		accepted += pr_call_body_get(rt_bytes_of(body, cut), &call);
	}
	assert_int_equal(accepted, 4); /* before each of its four fields */
}

/* -1: the walk refuses; else the number of calls. Compares with protobuf-c on the way. */
static int walk(struct rt_bytes bytes, const Troupe__Batch *batch)
{
	struct pr_call call;
	int count = 0;
	int got;
	while ((got = pr_batch_next(&bytes, &call)) > 0) {
		if (batch != NULL) {
			assert_true((size_t)count < batch->n_calls);
			assert_same_call(&call, batch->calls[count]);
		}
		count++;
	}
	return got < 0 ? -1 : count;
}

static void assert_all_agree(const uint8_t *data, size_t size)
{
	struct rt_bytes bytes = rt_bytes_of(data, size);
	rt_err guard = pr_guard_check(&troupe__batch__descriptor, bytes, NULL);
	assert_true(guard == RT_OK || guard == RT_E_PROTO);
	assert_int_equal(guard == RT_OK, walk(bytes, NULL) >= 0);
	if (guard == RT_OK) {
		Troupe__Batch *batch = troupe__batch__unpack(NULL, size, data);
		assert_non_null(batch);
		assert_int_equal(walk(bytes, batch), (int)batch->n_calls);
		troupe__batch__free_unpacked(batch, NULL);
	}
}

static size_t two_calls(uint8_t *out)
{
	uint8_t *at = out;
	for (int i = 0; i < 2; i++) {
		struct pr_call call = {.call_id = 300 + (uint64_t)i,
			.type = rt_bytes_str("account"),
			.id = rt_bytes_str("α-000042"),
			.name = rt_bytes_str("Deposit"),
			.payload = rt_bytes_of("\x08\x96\x01", 3),
			.command_id = rt_bytes_of("0123456789abcdef", 16),
			.expected = 7,
			.kind = (uint32_t)i + 1,
			.timeout_ms = 5000,
			.json = true,
			.stale = true,
			.after = 300};
		at = pr_call_put(at, &call);
	}
	return (size_t)(at - out);
}

static void a_batch_cut_anywhere_is_refused_or_shorter(void **state)
{
	(void)state;
	uint8_t whole[512];
	size_t size = two_calls(whole);
	assert_int_equal(walk(rt_bytes_of(whole, size), NULL), 2);
	for (size_t cut = 0; cut <= size; cut++) {
		uint8_t *copy = malloc(cut + 1); /* the sanitizer sees a read beyond the cut */
		memcpy(copy + 1, whole, cut);
		assert_all_agree(copy + 1, cut);
		int calls = walk(rt_bytes_of(copy + 1, cut), NULL);
		assert_int_equal(calls, cut == 0 ? 0 : cut == size / 2 ? 1 : cut == size ? 2 : -1);
		free(copy);
	}
}

static void walk_guard_and_protobuf_c_agree_on_damaged_batches(void **state)
{
	(void)state;
	uint8_t whole[512];
	size_t size = two_calls(whole);
	for (int round = 0; round < 200000; round++) {
		uint8_t bytes[512];
		memcpy(bytes, whole, size);
		for (uint64_t n = rnd() % 4 + 1; n > 0; n--) {
			bytes[rnd() % size] =
				(uint8_t)(rnd() % 2 == 0 ? rnd() : rnd() % 16 * 8 + 2);
		}
		assert_all_agree(bytes, size);
	}
}

static void refuses_what_is_no_field(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t size;
	} bad[] = {
		{"\x00\x01", 2},                                      /* field number 0 */
		{"\x0b\x0c", 2},                                      /* a group */
		{"\x0e", 1},                                          /* wire type 6 */
		{"\x08\x01", 2},                                      /* calls as a number */
		{"\x0a\x02\x08", 3},                                  /* longer than the message */
		{"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, /* 2^64 - 1 bytes */
		{"\x0a\x80\x80\x80\x80\x80\x00", 7},                  /* would be 0 bytes */
		{"\x8a\x80\x80\x80\x80\x00\x00", 7},                  /* a tag of six bytes */
		{"\x0a\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 13}, /* 65 bits */
		{"\x0a\x03\x12\x01\x00", 5},                                  /* NUL in a text */
		{"\x0a\x04\x12\x02\xc0\x80", 6},                              /* overlong NUL */
		{"\x0a\x05\x12\x03\xed\xa0\x80", 7},                          /* surrogate */
		{"\x0a\x06\x12\x04\xf4\x90\x80\x80", 8},                      /* above U+10FFFF */
		{"\x0a\x03\x12\x01\xff", 5},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct rt_bytes bytes = rt_bytes_of(bad[i].bytes, bad[i].size);
		assert_int_equal(walk(bytes, NULL), -1);
		assert_err(pr_guard_check(&troupe__batch__descriptor, bytes, NULL), RT_E_PROTO);
	}
}

static void fields_of_the_future_are_skipped(void **state)
{
	(void)state;
	/* Batch: field 9 as a number; Call: field 100 as text, field 101 fixed64, then call_id. */
	static const char bytes[] = "\x48\x05\x0a\x12\xa2\x06\x03xyz\xa9\x06"
				    "12345678\x08\x2a";
	struct rt_bytes cursor = rt_bytes_of(bytes, sizeof(bytes) - 1);
	struct pr_call call;
	assert_int_equal(pr_batch_next(&cursor, &call), 1);
	assert_int_equal(call.call_id, 42);
	assert_int_equal(pr_batch_next(&cursor, &call), 0);
	assert_all_agree((const uint8_t *)bytes, sizeof(bytes) - 1);
}

static void the_last_of_a_field_counts(void **state)
{
	(void)state;
	static const char bytes[] = "\x0a\x0a\x08\x01\x12\x01x\x08\x02\x12\x01y";
	struct rt_bytes cursor = rt_bytes_of(bytes, sizeof(bytes) - 1);
	struct pr_call call;
	assert_int_equal(pr_batch_next(&cursor, &call), 1);
	assert_int_equal(call.call_id, 2);
	assert_same_text(call.type, "y");
	assert_all_agree((const uint8_t *)bytes, sizeof(bytes) - 1);
}

static void varints_come_back(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (uint64_t near = 0; near < 3; near++) {
			uint64_t value = ((uint64_t)1 << bit) - 1 + near;
			uint8_t bytes[10];
			uint8_t *end = pr_varint_put(bytes, value);
			assert_int_equal(end - bytes, pr_varint_size(value));
			uint64_t back = 0;
			assert_ptr_equal(pr_varint_get(bytes, end, &back), end);
			assert_true(back == value);
			assert_null(pr_varint_get(bytes, end - 1, &back));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_are_the_bytes_protobuf_c_writes),
		cmocka_unit_test(answers_are_the_bytes_protobuf_c_writes),
		cmocka_unit_test(a_body_alone_is_what_stands_in_the_message),
		cmocka_unit_test(a_body_alone_is_read_as_strictly_as_a_message),
		cmocka_unit_test(a_batch_cut_anywhere_is_refused_or_shorter),
		cmocka_unit_test(walk_guard_and_protobuf_c_agree_on_damaged_batches),
		cmocka_unit_test(refuses_what_is_no_field),
		cmocka_unit_test(fields_of_the_future_are_skipped),
		cmocka_unit_test(the_last_of_a_field_counts),
		cmocka_unit_test(varints_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
