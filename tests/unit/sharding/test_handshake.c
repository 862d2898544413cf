/* The first words on a connection, as bytes. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/random.h"
#include "sharding/handshake.h"
#include "tests/support/test.h"

static struct sh_handshake hello(void)
{
	struct sh_handshake words = {.kind = SH_HELLO,
		.version_min = 1,
		.version_max = 3,
		.lane = SH_LANE_BULK,
		.target = 7,
		.who = {.cluster = "0123456789abcdef0123456789abcdef",
			.node = 300,
			.key = "some-key",
			.instance = UINT64_MAX,
			.incarnation = 12,
			.rpc = "tcp://127.0.0.1:7000",
			.peer = "ipc:///tmp/x"}};
	return words;
}

static void check_same(const struct sh_identity *a, const struct sh_identity *b)
{
	assert_string_equal(a->cluster, b->cluster);
	assert_string_equal(a->key, b->key);
	assert_string_equal(a->rpc, b->rpc);
	assert_string_equal(a->peer, b->peer);
	assert_true(a->node == b->node && a->instance == b->instance &&
		    a->incarnation == b->incarnation);
}

static rt_err decode(const uint8_t *bytes, size_t size, struct sh_handshake *out)
{
	/* Exactly as large, so that a sanitizer sees a step too far. */
	uint8_t *copy = malloc(size == 0 ? 1 : size);
	assert_non_null(copy);
	memcpy(copy, bytes, size);
	rt_err err = sh_handshake_decode(rt_bytes_of(copy, size), out);
	free(copy);
	return err;
}

static void what_was_said_is_understood(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	struct sh_handshake said = hello();
	struct sh_handshake heard;
	size_t size = sh_handshake_encode(&said, bytes);
	size_t told = 0;
	assert_err(sh_handshake_size(bytes, &told), RT_OK);
	assert_int_equal(told, size);
	assert_err(decode(bytes, size, &heard), RT_OK);
	assert_int_equal(heard.kind, SH_HELLO);
	assert_int_equal(heard.version_min, 1);
	assert_int_equal(heard.version_max, 3);
	assert_int_equal(heard.lane, SH_LANE_BULK);
	assert_int_equal(heard.target, 7);
	check_same(&heard.who, &said.who);

	said.kind = SH_WELCOME;
	size = sh_handshake_encode(&said, bytes);
	assert_err(decode(bytes, size, &heard), RT_OK);
	assert_int_equal(heard.kind, SH_WELCOME);
	check_same(&heard.who, &said.who);

	said.kind = SH_REFUSAL;
	memset(said.text, 'x', SH_REFUSAL_MAX);
	size = sh_handshake_encode(&said, bytes);
	assert_err(decode(bytes, size, &heard), RT_OK);
	assert_string_equal(heard.text, said.text);
}

static void the_longest_hello_fits(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	char url[SH_URL_MAX + 2];
	struct sh_handshake said = hello();
	struct sh_handshake heard;
	memset(url, 'u', sizeof(url));
	url[SH_URL_MAX] = '\0';
	said.who.rpc = url;
	said.who.peer = url;
	memset(said.who.key, 'k', 32);
	said.who.node = UINT64_C(1) << 62;
	assert_true(sh_identity_valid(&said.who));
	assert_err(decode(bytes, sh_handshake_encode(&said, bytes), &heard), RT_OK);
	check_same(&heard.who, &said.who);
	url[SH_URL_MAX] = 'u';
	url[SH_URL_MAX + 1] = '\0';
	assert_false(sh_identity_valid(&said.who));
}

static void a_node_that_serves_no_clients_yet_may_speak(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	struct sh_handshake said = hello();
	struct sh_handshake heard;
	said.who.rpc = "";
	assert_true(sh_identity_valid(&said.who));
	assert_err(decode(bytes, sh_handshake_encode(&said, bytes), &heard), RT_OK);
	check_same(&heard.who, &said.who);
}

static void an_identity_that_cannot_be_said_is_not_valid(void **state)
{
	(void)state;
	struct sh_identity who = hello().who;
	assert_true(sh_identity_valid(&who));
	who.cluster[31] = '\0';
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.cluster[5] = 'G';
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.key[0] = '\0';
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	memset(who.key, 'k', sizeof(who.key));
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.node = 0;
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.rpc = "tcp://a\nb";
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.peer = NULL;
	assert_false(sh_identity_valid(&who));
	who = hello().who;
	who.rpc = NULL;
	assert_false(sh_identity_valid(&who));
}

static void every_cut_is_refused(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	struct sh_handshake said = hello();
	struct sh_handshake heard;
	size_t size = sh_handshake_encode(&said, bytes);
	for (size_t cut = 0; cut < size; cut++) {
		assert_err(decode(bytes, cut, &heard), RT_E_PROTO);
		/* The same with a head that fits. */
		if (cut >= SH_HANDSHAKE_HEAD) {
			uint8_t fitted[SH_HANDSHAKE_MAX];
			memcpy(fitted, bytes, cut);
			fitted[6] = (uint8_t)((cut - SH_HANDSHAKE_HEAD) & 0xff);
			fitted[7] = (uint8_t)((cut - SH_HANDSHAKE_HEAD) >> 8);
			assert_err(decode(fitted, cut, &heard), RT_E_PROTO);
		}
	}
	bytes[size] = 0;
	assert_err(decode(bytes, size + 1, &heard), RT_E_PROTO);
}

static void a_head_that_is_none_is_refused(void **state)
{
	(void)state;
	size_t size;
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\1\0\0\0", &size), RT_OK);
	assert_int_equal(size, 8);
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\1\0\xf8\x0f", &size), RT_OK);
	assert_int_equal(size, SH_HANDSHAKE_MAX);
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\1\0\xf9\x0f", &size), RT_E_PROTO);
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\0\0\0\0", &size), RT_E_PROTO);
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\4\0\0\0", &size), RT_E_PROTO);
	assert_err(sh_handshake_size((const uint8_t *)"TRPN\1\1\0\0", &size), RT_E_PROTO);
	assert_err(sh_handshake_size((const uint8_t *)"TRPM\1\0\0\0", &size), RT_E_PROTO);
}

/* Fields behind the head, as protobuf writes them. */
static size_t whole(uint8_t *out, enum sh_greeting kind, const char *body, size_t size)
{
	memcpy(out, "TRPN", 4);
	out[4] = (uint8_t)kind;
	out[5] = 0;
	out[6] = (uint8_t)size;
	out[7] = 0;
	memcpy(out + 8, body, size);
	return size + 8;
}

#define ANSWER(bytes, body) decode(bytes, whole(bytes, SH_REFUSAL, body, sizeof(body) - 1), &heard)

static void fields_are_said_once_in_order_and_unknown_ones_skipped(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	struct sh_handshake heard;
	assert_err(ANSWER(bytes, "\x08\1\x10\1\x62\2no"), RT_OK);
	assert_string_equal(heard.text, "no");
	assert_err(ANSWER(bytes, "\x08\1\x10\1\x62\2no\x68\5"), RT_OK);      /* field 13 */
	assert_err(ANSWER(bytes, "\x10\1\x08\1\x62\2no"), RT_E_PROTO);       /* order */
	assert_err(ANSWER(bytes, "\x08\1\x08\1\x10\1\x62\2no"), RT_E_PROTO); /* twice */
	assert_err(ANSWER(bytes, "\x0a\1x\x10\1\x62\2no"), RT_E_PROTO);      /* bytes, not number */
	assert_err(ANSWER(bytes, "\x08\1\x10\1\x60\2"), RT_E_PROTO);         /* number, not bytes */
	assert_err(ANSWER(bytes, "\x08\1\x10\1\x62\3n\0o"), RT_E_PROTO);     /* no text */
	assert_err(ANSWER(bytes, "\x08\1\x10\1"), RT_E_PROTO);               /* no reason */
	assert_err(ANSWER(bytes, "\x08\2\x10\1\x62\2no"), RT_E_PROTO);       /* versions 2 to 1 */
	assert_err(ANSWER(bytes, "\x10\1\x62\2no"), RT_E_PROTO);             /* versions 0 to 1 */
}

/* It can be told why, though nothing else of it is understood. */
static void of_another_version_only_the_version_counts(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	struct sh_handshake heard;
	const char body[] = "\x08\x09\x10\x0a\x18\x63\x2a\1?\x30\5\x52\5tcp:x";
	assert_err(decode(bytes, whole(bytes, SH_HELLO, body, sizeof(body) - 1), &heard),
		RT_E_VERSION);
	assert_int_equal(heard.version_min, 9);
	assert_int_equal(heard.version_max, 10);
	assert_int_equal(heard.who.node, 5);
	assert_string_equal(heard.who.rpc, "tcp:x");
}

static void flipped_bits_never_make_an_invalid_one(void **state)
{
	(void)state;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	uint8_t damaged[SH_HANDSHAKE_MAX];
	struct sh_handshake said = hello();
	struct sh_handshake heard;
	size_t size = sh_handshake_encode(&said, bytes);
	for (size_t bit = 0; bit < size * 8; bit++) {
		memcpy(damaged, bytes, size);
		damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (decode(damaged, size, &heard) == RT_OK && heard.kind != SH_REFUSAL) {
			assert_true(sh_identity_valid(&heard.who));
			assert_true(heard.lane < SH_LANES);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_said_is_understood),
		cmocka_unit_test(the_longest_hello_fits),
		cmocka_unit_test(a_node_that_serves_no_clients_yet_may_speak),
		cmocka_unit_test(an_identity_that_cannot_be_said_is_not_valid),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(a_head_that_is_none_is_refused),
		cmocka_unit_test(fields_are_said_once_in_order_and_unknown_ones_skipped),
		cmocka_unit_test(of_another_version_only_the_version_counts),
		cmocka_unit_test(flipped_bits_never_make_an_invalid_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
