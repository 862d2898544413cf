#include "cmd/nearest.h"
#include "tests/support/test.h"

static const char *const words[] = {
	"send", "query", "events", "state", "feed", "types", "describe", "status", "verify", NULL};

static void finds_a_slip_of_the_finger(void **state)
{
	(void)state;
	assert_string_equal(cmd_nearest("sned", words), "send");
	assert_string_equal(cmd_nearest("evnets", words), "events");
	assert_string_equal(cmd_nearest("Query", words), "query");
	assert_string_equal(cmd_nearest("descibe", words), "describe");
	assert_string_equal(cmd_nearest("stat", words), "state");
	assert_string_equal(cmd_nearest("verfiy", words), "verify");
}

static void is_silent_about_something_else(void **state)
{
	(void)state;
	assert_null(cmd_nearest("bananas", words));
	assert_null(cmd_nearest("x", words));
	assert_null(cmd_nearest("", words));
	char endless[200];
	for (size_t i = 0; i < sizeof(endless) - 1; i++) {
		endless[i] = 'a';
	}
	endless[sizeof(endless) - 1] = '\0';
	assert_null(cmd_nearest(endless, words));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_a_slip_of_the_finger),
		cmocka_unit_test(is_silent_about_something_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
