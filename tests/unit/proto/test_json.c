/* JSON by descriptor, both ways, checked with protobuf-c in the middle. */
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/json.h"
#include "proto/wire.h"
#include "tests/support/test.h"
#include "tests/unit/proto/kinds.pb-c.h"
#include "tests/unit/proto/kinds2.pb-c.h"

static const ProtobufCMessageDescriptor *const all = &kinds__all__descriptor;
static const ProtobufCMessageDescriptor *const pair = &kinds__pair__descriptor;

static ProtobufCMessage *parse(const ProtobufCMessageDescriptor *descriptor, const char *json)
{
	struct rt_errinfo info = {0};
	struct rt_bytes packed;
	rt_err err = pr_json_parse(descriptor, rt_bytes_str(json), &packed, &info);
	if (err != RT_OK) {
		fail_msg("%s: %s", json, info.text);
	}
	assert_err(pr_guard_check(descriptor, packed, NULL), RT_OK);
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, packed.size, packed.data);
	assert_non_null(message);
	free((void *)(uintptr_t)packed.data);
	return message;
}

static void assert_refused(
	const ProtobufCMessageDescriptor *descriptor, const char *json, const char *text)
{
	struct rt_errinfo info = {0};
	struct rt_bytes packed;
	assert_err(pr_json_parse(descriptor, rt_bytes_str(json), &packed, &info), RT_E_INVAL);
	if (strstr(info.text, text) == NULL) {
		fail_msg("%s: \"%s\" is not in \"%s\"", json, text, info.text);
	}
}

static void assert_prints(ProtobufCMessage *message, const char *json)
{
	struct pr_text text = {0};
	pr_json_print_message(message, &text);
	assert_false(text.failed);
	pr_text_add(&text, "", 1);
	assert_string_equal(text.data, json);
	pr_text_clear(&text);
}

/* json -> packed -> json. */
static void assert_round(
	const ProtobufCMessageDescriptor *descriptor, const char *json, const char *printed)
{
	ProtobufCMessage *message = parse(descriptor, json);
	assert_prints(message, printed);
	protobuf_c_message_free_unpacked(message, NULL);
}

static void reads_every_kind_of_field(void **state)
{
	(void)state;
	Kinds__All *m = (Kinds__All *)parse(all,
		"{\"i32\":-5,\"s32\":-6,\"sf32\":-7,\"u32\":4000000000,\"f32\":8,\"i64\":-9,"
		"\"s64\":\"-9223372036854775808\",\"sf64\":-11,\"u64\":\"18446744073709551615\","
		"\"f64\":13,\"real\":1.5,\"wide\":-2.25,\"flag\":true,\"colour\":\"BLUE\","
		"\"text\":\"h\\u00e9\",\"blob\":\"AAEC/w==\",\"pair\":{\"key\":\"k\",\"value\":3},"
		"\"numbers\":[1,\"2\",3.0],\"words\":[\"a\",\"\"],\"pairs\":[{},{\"key\":\"z\"}],"
		"\"packed_numbers\":[-1,0,1],\"doubles\":[0.5],\"colours\":[\"GREEN\",7],"
		"\"blobs\":[\"\",\"-_8\"],\"flags\":[false,true],\"choice_text\":\"\","
		"\"amountInCents\":77}");
	assert_int_equal(m->i32, -5);
	assert_int_equal(m->s32, -6);
	assert_int_equal(m->sf32, -7);
	assert_int_equal(m->u32, 4000000000u);
	assert_int_equal(m->f32, 8);
	assert_int_equal(m->i64, -9);
	assert_true(m->s64 == INT64_MIN);
	assert_int_equal(m->sf64, -11);
	assert_true(m->u64 == UINT64_MAX);
	assert_int_equal(m->f64, 13);
	assert_true(m->real > 1.4f && m->real < 1.6f);
	assert_true(m->wide < -2.2 && m->wide > -2.3);
	assert_int_equal(m->flag, 1);
	assert_int_equal(m->colour, KINDS__COLOUR__BLUE);
	assert_string_equal(m->text, "h\xc3\xa9");
	assert_int_equal(m->blob.len, 4);
	assert_memory_equal(m->blob.data, "\x00\x01\x02\xff", 4);
	assert_string_equal(m->pair->key, "k");
	assert_int_equal(m->numbers[2], 3);
	assert_int_equal(m->n_words, 2);
	assert_int_equal(m->n_pairs, 2);
	assert_int_equal(m->packed_numbers[0], -1);
	assert_int_equal(m->colours[1], 7);
	assert_int_equal(m->blobs[1].len, 2);
	assert_int_equal(m->flags[1], 1);
	assert_int_equal(m->choice_case, KINDS__ALL__CHOICE_CHOICE_TEXT);
	assert_int_equal(m->amount_in_cents, 77);
	kinds__all__free_unpacked(m, NULL);
}

static void prints_every_kind_of_field(void **state)
{
	(void)state;
	assert_round(all,
		"{\"i32\":-2147483648,\"u32\":4294967295,\"i64\":9007199254740992,"
		"\"s64\":9007199254740993,\"u64\":\"18446744073709551615\",\"real\":0.1,"
		"\"wide\":0.1,\"flag\":true,\"colour\":\"GREEN\",\"text\":"
		"\"\\\"\\\\\\n\\u0001\\u007f\","
		"\"blob\":\"AAE=\",\"pair\":{},\"numbers\":[1,2],\"blobs\":[\"AA==\",\"AAEC\"],"
		"\"choice_number\":0,\"otherFlag\":false}",
		"{\"i32\":-2147483648,\"s32\":0,\"sf32\":0,\"u32\":4294967295,\"f32\":0,"
		"\"i64\":9007199254740992,\"s64\":\"9007199254740993\",\"sf64\":0,"
		"\"u64\":\"18446744073709551615\",\"f64\":0,\"real\":0.1,\"wide\":0.1,\"flag\":"
		"true,"
		"\"colour\":\"GREEN\",\"text\":\"\\\"\\\\\\n\\u0001\\u007f\",\"blob\":\"AAE=\","
		"\"pair\":{\"key\":\"\",\"value\":0},\"numbers\":[1,2],\"words\":[],\"pairs\":[],"
		"\"packed_numbers\":[],\"doubles\":[],\"colours\":[],\"blobs\":[\"AA==\",\"AAEC\"],"
		"\"flags\":[],\"choice_number\":0,\"other_flag\":false,\"amount_in_cents\":0}");
}

static void prints_numbers_that_read_back(void **state)
{
	(void)state;
	static const double values[] = {
		0, 1, -1, 0.1, 1.0 / 3, 1e308, 5e-324, 123456789012345680.0};
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		Kinds__All m = KINDS__ALL__INIT;
		m.n_doubles = 1;
		m.doubles = (double[]){values[i]};
		struct pr_text text = {0};
		pr_json_print_message(&m.base, &text);
		pr_text_add(&text, "", 1);
		Kinds__All *back = (Kinds__All *)parse(all, text.data);
		assert_memory_equal(&back->doubles[0], &values[i], sizeof(double));
		kinds__all__free_unpacked(back, NULL);
		pr_text_clear(&text);
	}
}

static void empty_text_is_an_empty_message(void **state)
{
	(void)state;
	assert_round(pair, "", "{\"key\":\"\",\"value\":0}");
	assert_round(pair, "{}", "{\"key\":\"\",\"value\":0}");
	assert_round(pair, " {\"key\":null}\n", "{\"key\":\"\",\"value\":0}");
}

static void a_refusal_names_the_field(void **state)
{
	(void)state;
	assert_refused(pair, "{\"value\":\"x\"}", "field value: expected an integer, found \"x\"");
	assert_refused(pair, "{\"value\":1.5}", "field value: expected an integer, found 1.5");
	assert_refused(pair, "{\"value\":{}}", "field value: expected an integer, found an object");
	assert_refused(
		pair, "{\"value\":\"9223372036854775808\"}", "field value: expected an integer");
	assert_refused(pair, "{\"value\":\"\"}", "field value: expected an integer");
	assert_refused(pair, "{\"key\":5}", "field key: expected text, found 5");
	assert_refused(pair, "{\"key\":\"a\\u0000b\"}", "field key: text has a NUL");
	assert_refused(pair, "{\"keys\":5}", "field keys: Pair has no such field");
	assert_refused(pair, "{\"key\":\"a\",\"key\":\"b\"}", "duplicate");
	assert_refused(all, "{\"amount_in_cents\":1,\"amountInCents\":1}", "given twice");
	assert_refused(all, "{\"i32\":2147483648}", "field i32: expected a 32-bit integer");
	assert_refused(all, "{\"u32\":-1}", "field u32: expected an unsigned 32-bit integer");
	assert_refused(all, "{\"u64\":-1}", "field u64: expected an unsigned integer, found -1");
	assert_refused(all, "{\"u64\":\"-1\"}", "field u64");
	assert_refused(all, "{\"s64\":1e30}", "field s64");
	assert_refused(all, "{\"real\":1e300}", "field real: expected a number in range");
	assert_refused(all, "{\"wide\":\"NaN\"}", "field wide: expected a number");
	assert_refused(all, "{\"flag\":1}", "field flag: expected true or false, found 1");
	assert_refused(
		all, "{\"colour\":\"PINK\"}", "field colour: expected a name of enum Colour");
	assert_refused(all, "{\"blob\":\"A\"}", "field blob: expected base64");
	assert_refused(all, "{\"blob\":\"A*==\"}", "field blob: expected base64");
	assert_refused(all, "{\"blob\":\"AB==\"}", "field blob: expected base64");
	assert_refused(all, "{\"pair\":[]}", "field pair: expected an object, found an array");
	assert_refused(all, "{\"numbers\":1}", "field numbers: expected an array, found 1");
	assert_refused(
		all, "{\"numbers\":[1,null]}", "field numbers[1]: expected an integer, found null");
	assert_refused(all, "{\"pairs\":[{},{\"value\":true}]}",
		"field pairs[1].value: expected an integer, found true");
	assert_refused(
		all, "{\"choice_number\":1,\"choice_text\":\"\"}", "field choice_text: only one");
	assert_refused(all, "{\"other_number\":1,\"other_flag\":true,\"choice_text\":\"\"}",
		"field other_flag: only one");
}

static void refuses_what_is_not_json(void **state)
{
	(void)state;
	static const char *const bad[] = {"{", "{\"key\":NaN}", "{\"value\":Infinity}", "{'key':1}",
		"{\"key\":\"a\"}x", "\"\xff\"", "{\"value\":01}", "{\"value\":1,}",
		"{\"wide\":1e999}"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_refused(pair, bad[i], "not JSON");
	}
	assert_refused(pair, "[]", "expected an object, found an array");
	assert_refused(pair, "null", "expected an object, found null");
}

static void refuses_deep_and_long_text(void **state)
{
	(void)state;
	char deep[200];
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	assert_refused(pair, deep, "nested deeper than 32");
	assert_round(pair, "{\"key\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"}",
		"{\"key\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\",\"value\":0}");
	size_t size = (size_t)PR_PAYLOAD_MAX * 2 + 2;
	char *text = malloc(size);
	memset(text, ' ', size);
	memcpy(text, "{}", 2);
	text[size - 1] = '\0';
	assert_refused(pair, text, "text over");
	free(text);
}

static void proto2_presence_is_kept(void **state)
{
	(void)state;
	assert_round(&kinds2__old__descriptor, "{\"must\":0}", "{\"must\":0}");
	assert_round(&kinds2__old__descriptor, "{\"must\":1,\"may\":0,\"name\":\"\",\"blob\":\"\"}",
		"{\"must\":1,\"may\":0,\"name\":\"\",\"blob\":\"\"}");
	assert_refused(&kinds2__old__descriptor, "{\"may\":1}", "field must: missing");
}

static void print_guards_the_bytes(void **state)
{
	(void)state;
	struct pr_text text = {0};
	struct rt_errinfo info;
	assert_err(pr_json_print(pair, rt_bytes_of("\x0a\x05x", 3), &text, &info), RT_E_PROTO);
	assert_int_equal(text.size, 0);
	assert_err(pr_json_print(pair, rt_bytes_of("\x0a\x01x\x10\x07", 5), &text, &info), RT_OK);
	assert_memory_equal(text.data, "{\"key\":\"x\",\"value\":7}", text.size);
	pr_text_clear(&text);
	text.limit = 10;
	assert_err(pr_json_print(pair, rt_bytes_of("\x0a\x01x", 3), &text, &info), RT_E_TOOLARGE);
	pr_text_clear(&text);
}

static void strings_are_always_json(void **state)
{
	(void)state;
	struct pr_text text = {0};
	pr_text_json_string(&text, rt_bytes_of("a\xff\xc3\xa9\x00\xc3", 6));
	pr_text_printf(&text, "%s", "");
	pr_text_add(&text, "", 1);
	assert_string_equal(text.data, "\"a\xef\xbf\xbd\xc3\xa9\\u0000\xef\xbf\xbd\"");
	pr_text_clear(&text);
}

static void text_grows_up_to_its_limit(void **state)
{
	(void)state;
	struct pr_text text = {.limit = 1000};
	for (int i = 0; i < 50; i++) {
		pr_text_printf(&text, "%-20d", i);
	}
	assert_false(text.failed);
	assert_int_equal(text.size, 1000);
	pr_text_str(&text, "x");
	assert_true(text.failed);
	assert_int_equal(text.size, 1000);
	pr_text_clear(&text);
	assert_false(text.failed);
	char big[400];
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	pr_text_printf(&text, "<%s>", big);
	assert_int_equal(text.size, 401);
	pr_text_clear(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_every_kind_of_field),
		cmocka_unit_test(prints_every_kind_of_field),
		cmocka_unit_test(prints_numbers_that_read_back),
		cmocka_unit_test(empty_text_is_an_empty_message),
		cmocka_unit_test(a_refusal_names_the_field),
		cmocka_unit_test(refuses_what_is_not_json),
		cmocka_unit_test(refuses_deep_and_long_text),
		cmocka_unit_test(proto2_presence_is_kept),
		cmocka_unit_test(print_guards_the_bytes),
		cmocka_unit_test(strings_are_always_json),
		cmocka_unit_test(text_grows_up_to_its_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
