/* What must never reach protobuf-c, which has no limits of its own. */
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/wire.h"
#include "tests/support/test.h"
#include "tests/unit/proto/kinds.pb-c.h"

static const ProtobufCMessageDescriptor *const all = &kinds__all__descriptor;
static const ProtobufCMessageDescriptor *const node = &kinds__node__descriptor;

/* A chain of `depth` Node.child, built from the inside out at the end of a buffer. */
static struct rt_bytes chain(uint8_t *buffer, size_t size, size_t depth)
{
	uint8_t *at = buffer + size;
	for (size_t i = 0; i < depth; i++) {
		size_t inner = (size_t)(buffer + size - at);
		at -= pr_varint_size(inner) + 1;
		at[0] = 0x0a;
		pr_varint_put(at + 1, inner);
	}
	return rt_bytes_of(at, (size_t)(buffer + size - at));
}

static void refuses_a_nesting_bomb(void **state)
{
	(void)state;
	static uint8_t buffer[64 * 1024];
	struct rt_errinfo info;
	assert_err(pr_guard_check(node, chain(buffer, sizeof(buffer), PR_DEPTH_MAX), NULL), RT_OK);
	assert_err(pr_guard_check(node, chain(buffer, sizeof(buffer), PR_DEPTH_MAX + 1), &info),
		RT_E_TOOLARGE);
	assert_non_null(strstr(info.text, "nested too deeply"));
	assert_err(pr_guard_check(node, chain(buffer, sizeof(buffer), 15000), NULL), RT_E_TOOLARGE);
}

static void refuses_a_megabyte_of_empty_messages(void **state)
{
	(void)state;
	size_t size = 1024 * 1024;
	uint8_t *bytes = malloc(size);
	for (size_t i = 0; i < size; i += 2) {
		bytes[i] = 0x12;
		bytes[i + 1] = 0;
	}
	assert_err(pr_guard_check(node, rt_bytes_of(bytes, size), NULL), RT_E_TOOLARGE);
	size_t most = (size_t)PR_FIELDS_MAX * 2;
	assert_err(pr_guard_check(node, rt_bytes_of(bytes, most), NULL), RT_OK);
	free(bytes);
}

static void counts_fields_across_levels(void **state)
{
	(void)state;
	/* 400 children of 100 empty children each: no level has many, all together do. */
	static uint8_t bytes[400 * (3 + 200)];
	uint8_t *at = bytes;
	for (int i = 0; i < 400; i++) {
		*at++ = 0x12;
		at = pr_varint_put(at, 200);
		for (int j = 0; j < 100; j++) {
			*at++ = 0x12;
			*at++ = 0;
		}
	}
	size_t size = (size_t)(at - bytes);
	assert_err(pr_guard_check(node, rt_bytes_of(bytes, size), NULL), RT_E_TOOLARGE);
	assert_err(pr_guard_check(node, rt_bytes_of(bytes, size / 2), NULL), RT_OK);
}

static void assert_refused(const char *bytes, size_t size, const char *text)
{
	struct rt_errinfo info = {0};
	assert_err(pr_guard_check(all, rt_bytes_of(bytes, size), &info), RT_E_PROTO);
	if (strstr(info.text, text) == NULL) {
		fail_msg("\"%s\" is not in \"%s\"", text, info.text);
	}
}

static void names_the_field_and_the_place(void **state)
{
	(void)state;
	assert_refused("\x0d"
		       "1234",
		5, "field i32, byte 1: wrong wire type");
	assert_refused("\x8a\x01\x03\x0a\x01\xff", 6, "field pair.key, byte 5: text is not UTF-8");
	assert_refused("\x08\x01\x7a\x05xy", 6, "byte 2: malformed or cut off");
	assert_refused("\x8a\x01\x02\x0a\x05", 5, "field pair, byte 3: malformed");
}

static void packed_and_unpacked_are_both_allowed(void **state)
{
	(void)state;
	/* numbers (18) packed, packed_numbers (21) unpacked, doubles (22) packed. */
	static const char good[] = "\x92\x01\x03\x01\xff\x7f\xa8\x01\x02\xb2\x01\x08"
				   "12345678";
	assert_err(pr_guard_check(all, rt_bytes_of(good, sizeof(good) - 1), NULL), RT_OK);
	Kinds__All *message = kinds__all__unpack(NULL, sizeof(good) - 1, (const uint8_t *)good);
	assert_non_null(message);
	assert_int_equal(message->n_numbers, 2);
	assert_int_equal(message->n_packed_numbers, 1);
	assert_int_equal(message->n_doubles, 1);
	kinds__all__free_unpacked(message, NULL);
	assert_refused("\xb2\x01\x07"
		       "1234567",
		10, "packed numbers");
	assert_refused("\x92\x01\x02\x01\xff", 5, "packed numbers");
	assert_refused("\x0a\x01\x01", 3, "wrong wire type"); /* i32 is not repeated */
}

static void what_passes_can_be_unpacked(void **state)
{
	(void)state;
	uint64_t seed = 42;
	static const uint8_t tags[] = {0x08, 0x10, 0x1d, 0x72, 0x7a, 0x82, 0x8a, 0x92, 0x9a, 0xa2,
		0x01, 0x00, 0x02, 0x05, 0xff, 0x80};
	unsigned passed = 0;
	for (int round = 0; round < 300000; round++) {
		uint8_t bytes[24];
		size_t size = (size_t)round % sizeof(bytes);
		for (size_t i = 0; i < size; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[i] = tags[seed >> 60];
		}
		if (pr_guard_check(all, rt_bytes_of(bytes, size), NULL) == RT_OK) {
			Kinds__All *message = kinds__all__unpack(NULL, size, bytes);
			assert_non_null(message);
			kinds__all__free_unpacked(message, NULL);
			passed++;
		}
	}
	assert_true(passed > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_a_nesting_bomb),
		cmocka_unit_test(refuses_a_megabyte_of_empty_messages),
		cmocka_unit_test(counts_fields_across_levels),
		cmocka_unit_test(names_the_field_and_the_place),
		cmocka_unit_test(packed_and_unpacked_are_both_allowed),
		cmocka_unit_test(what_passes_can_be_unpacked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
