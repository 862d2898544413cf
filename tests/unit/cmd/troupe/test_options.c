#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/options.h"
#include "tests/support/test.h"

const struct tr_command tr_commands[] = {
	{"send", "TYPE/ID COMMAND [JSON]", "", "", 2, 3, TR_FLAG_CLIENT | TR_FLAG_SEND, NULL},
	{"events", "TYPE/ID", "", "", 1, 1,
		TR_FLAG_CLIENT | TR_FLAG_FROM | TR_FLAG_LIMIT | TR_FLAG_FOLLOW, NULL},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixes_words_and_flags),
		cmocka_unit_test(takes_the_url_from_flag_environment_or_default),
		cmocka_unit_test(suggests_what_was_meant),
		cmocka_unit_test(refuses_too_few_and_too_many_words),
		cmocka_unit_test(refuses_values_that_make_no_sense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
