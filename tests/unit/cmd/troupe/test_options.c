#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/options.h"
#include "tests/support/test.h"

const struct tr_command tr_commands[] = {
	{"send", "TYPE/ID COMMAND [JSON]", "", "", 2, 3, TR_FLAG_CLIENT | TR_FLAG_SEND, NULL},
	{"events", "TYPE/ID", "", "", 1, 1,
		TR_FLAG_CLIENT | TR_FLAG_FROM | TR_FLAG_LIMIT | TR_FLAG_FOLLOW, NULL},
	{"query", "TYPE/ID QUERY", "", "", 2, 3, TR_FLAG_CLIENT | TR_FLAG_READ, NULL},
	{"cluster status", "", "", "", 0, 0, TR_FLAG_CLIENT | TR_FLAG_STATUS | TR_FLAG_JSON, NULL},
	{"cluster drain", "NODE", "", "", 1, 1, TR_FLAG_CLIENT | TR_FLAG_DRAIN, NULL},
	{"cluster configure", "", "", "", 0, 0, TR_FLAG_CLIENT | TR_FLAG_CONFIGURE, NULL},
	{"cluster up", "N", "", "", 1, 1, TR_FLAG_UP, NULL},
	{"verify", "DIR", "", "", 1, 1, 0, NULL},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

static struct tr_options options;
static struct rt_errinfo info;

static rt_err read_args(const char *const *words)
{
	const char *argv[16] = {"troupe"};
	int argc = 1;
	for (; words[argc - 1] != NULL; argc++) {
		argv[argc] = words[argc - 1];
	}
	memset(&info, 0, sizeof(info));
	return tr_options_read(argc, argv, &options, &info);
}
#define READ(...) read_args((const char *const[]){__VA_ARGS__, NULL})

static void assert_says(const char *text)
{
	assert_string_equal(info.text, text);
}

static void mixes_words_and_flags(void **state)
{
	(void)state;
	assert_err(READ("send", "--expect", "7", "account/a", "--timeout=0.5", "Deposit",
			   "--command-id", "x y", "{\"amount\":-1}"),
		RT_OK);
	assert_string_equal(options.command->name, "send");
	assert_int_equal(options.word_count, 3);
	assert_string_equal(options.words[2], "{\"amount\":-1}");
	assert_int_equal(options.expect, 7);
	assert_int_equal(options.timeout_ms, 500);
	assert_string_equal(options.command_id, "x y");
	assert_err(READ("send", "account/a", "Deposit", "-"), RT_OK);
	assert_string_equal(options.words[2], "-");
	assert_int_equal(options.expect, -1);
	assert_err(READ("events", "--", "--odd/--id"), RT_OK);
	assert_string_equal(options.words[0], "--odd/--id");
}

static void takes_the_url_from_flag_environment_or_default(void **state)
{
	(void)state;
	unsetenv("TROUPE_URL");
	assert_err(READ("events", "a/b"), RT_OK);
	assert_string_equal(options.url, "tcp://127.0.0.1:7470");
	setenv("TROUPE_URL", "ipc:///x", 1);
	assert_err(READ("events", "a/b"), RT_OK);
	assert_string_equal(options.url, "ipc:///x");
	assert_err(READ("events", "a/b", "--url", "tcp://127.0.0.1:1"), RT_OK);
	assert_string_equal(options.url, "tcp://127.0.0.1:1");
	unsetenv("TROUPE_URL");
}

static void suggests_what_was_meant(void **state)
{
	(void)state;
	assert_err(READ("sned", "a/b", "C"), RT_E_INVAL);
	assert_says("unknown command \"sned\"; did you mean send?");
	assert_err(READ("frobnicate"), RT_E_INVAL);
	assert_says("unknown command \"frobnicate\"");
	assert_err(READ("events", "a/b", "--folow"), RT_E_INVAL);
	assert_says("events has no option --folow; did you mean --follow?");
	assert_err(READ("verify", "d", "--url", "x"), RT_E_INVAL);
	assert_says("verify has no option --url");
}

static void refuses_too_few_and_too_many_words(void **state)
{
	(void)state;
	assert_err(READ("send", "a/b"), RT_E_INVAL);
	assert_says("send needs TYPE/ID COMMAND [JSON]");
	assert_err(READ("send", "a/b", "C", "{}", "more"), RT_E_INVAL);
	assert_says("send: unexpected word \"more\"");
	assert_err(READ("send", "--help"), RT_OK);
	assert_true(options.help);
}

static void refuses_values_that_make_no_sense(void **state)
{
	(void)state;
	assert_err(READ("send", "a/b", "C", "--expect", "-1"), RT_E_INVAL);
	assert_says("--expect: expected a number, found \"-1\"");
	assert_err(READ("send", "a/b", "C", "--timeout", "0"), RT_E_INVAL);
	assert_err(READ("send", "a/b", "C", "--timeout", "nan"), RT_E_INVAL);
	assert_err(READ("send", "a/b", "C", "--timeout"), RT_E_INVAL);
	assert_says("--timeout: a value is missing (SECONDS)");
	assert_err(READ("send", "a/b", "C", "--command-id", ""), RT_E_INVAL);
	assert_err(READ("send", "a/b", "C", "--command-id",
			   "12345678901234567890123456789012345678901234567890123456789012345"),
		RT_E_INVAL);
	assert_says("--command-id: 1 to 64 bytes");
	assert_err(READ("events", "a/b", "--follow=yes"), RT_E_INVAL);
	assert_err(READ("events", "a/b", "--limit", "99999999999999999999"), RT_E_INVAL);
}

static void two_words_name_a_command_of_the_cluster(void **state)
{
	(void)state;
	assert_err(READ("cluster", "drain", "n3", "--wait", "--url", "tcp://a:1,tcp://b:2"), RT_OK);
	assert_string_equal(options.command->name, "cluster drain");
	assert_string_equal(options.words[0], "n3");
	assert_true(options.wait);
	assert_false(options.cancel);
	assert_string_equal(options.url, "tcp://a:1,tcp://b:2");
	assert_err(READ("cluster", "status", "--watch", "--shards", "--json"), RT_OK);
	assert_true(options.watch && options.shards && options.json);
	assert_err(READ("cluster", "--help"), RT_OK);
	assert_null(options.command);
	assert_string_equal(options.group, "cluster");
	assert_err(READ("cluster"), RT_E_INVAL);
	assert_says("cluster what? It takes one more word");
	assert_err(READ("cluster", "stauts"), RT_E_INVAL);
	assert_says("unknown command \"cluster stauts\"; did you mean cluster status?");
	assert_err(READ("cluster", "bananas"), RT_E_INVAL);
	assert_says("unknown command \"cluster bananas\"");
	assert_err(READ("clustre"), RT_E_INVAL);
	assert_says("unknown command \"clustre\"; did you mean cluster?");
	assert_err(READ("status"), RT_E_INVAL);
	assert_err(READ("cluster", "drain"), RT_E_INVAL);
	assert_says("cluster drain needs NODE");
	assert_err(READ("cluster", "drain", "1", "--watch"), RT_E_INVAL);
	assert_says("cluster drain has no option --watch");
	assert_err(READ("cluster", "configure", "--replication", "5", "--moves-max", "2",
			   "--dead-after", "30"),
		RT_OK);
	assert_int_equal(options.replication, 5);
	assert_int_equal(options.moves_max, 2);
	assert_int_equal(options.dead_after_s, 30);
	assert_false(tr_command_is_group("cluster "));
	assert_false(tr_command_is_group("send"));
}

static void what_stands_behind_two_dashes_is_for_the_nodes(void **state)
{
	(void)state;
	assert_err(READ("cluster", "up", "3", "--dir", "d", "--base-port", "9000", "--trouped",
			   "/t", "--", "--shards", "8"),
		RT_OK);
	assert_string_equal(options.words[0], "3");
	assert_string_equal(options.dir, "d");
	assert_string_equal(options.trouped, "/t");
	assert_int_equal(options.base_port, 9000);
	assert_int_equal(options.rest_count, 2);
	assert_string_equal(options.rest[0], "--shards");
	assert_string_equal(options.rest[1], "8");
	assert_err(READ("cluster", "up", "3", "--"), RT_OK);
	assert_int_equal(options.rest_count, 0);
	assert_err(READ("cluster", "up", "--", "3"), RT_E_INVAL);
	assert_says("cluster up needs N");
	assert_err(READ("cluster", "up", "3", "--base-port", "65536"), RT_E_INVAL);
	assert_says("--base-port: expected a port, found \"65536\"");
	assert_err(READ("cluster", "up", "3", "--base-port", "0"), RT_E_INVAL);
}

static void a_read_can_name_the_position_it_must_include(void **state)
{
	(void)state;
	assert_err(READ("query", "a/b", "Q"), RT_OK);
	assert_int_equal(options.after.offset, 0);
	assert_int_equal(options.after.shard, -1);
	assert_err(READ("query", "a/b", "Q", "--stale", "--after", "12"), RT_OK);
	assert_true(options.stale);
	assert_int_equal(options.after.offset, 12);
	assert_int_equal(options.after.shard, -1);
	assert_err(READ("query", "a/b", "Q", "--after=63:18446744073709551615"), RT_OK);
	assert_int_equal(options.after.offset, UINT64_MAX);
	assert_int_equal(options.after.shard, 63);
	assert_err(READ("query", "a/b", "Q", "--after", "0:7"), RT_OK);
	assert_int_equal(options.after.shard, 0);
	static const char *const wrong[] = {"", ":", "1:", ":1", "x", "1:x", "-1", "1:0", "0",
		"1:2:3", "4294967296:1", "1000000000000000000000000000000:1"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_err(READ("query", "a/b", "Q", "--after", wrong[i]), RT_E_INVAL);
		assert_non_null(strstr(info.text, "--after: expected SHARD:OFFSET or OFFSET"));
	}
	assert_err(READ("send", "a/b", "C", "--stale"), RT_E_INVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixes_words_and_flags),
		cmocka_unit_test(takes_the_url_from_flag_environment_or_default),
		cmocka_unit_test(suggests_what_was_meant),
		cmocka_unit_test(refuses_too_few_and_too_many_words),
		cmocka_unit_test(refuses_values_that_make_no_sense),
		cmocka_unit_test(two_words_name_a_command_of_the_cluster),
		cmocka_unit_test(what_stands_behind_two_dashes_is_for_the_nodes),
		cmocka_unit_test(a_read_can_name_the_position_it_must_include),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
