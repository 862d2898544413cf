/* The store in memory that the cluster simulator uses, against the real one: two programs run the
 * same random operations and have to write the same lines. */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/test.h"

#define SEEDS "-n 4"

static FILE *start(const char *program, const char *arguments)
{
	char self[400] = {0};
	char command[600];
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(command, sizeof(command), "%s/../../clustersim/%s %s 2>/dev/null", dirname(self),
		program, arguments);
	FILE *pipe = popen(command, "r"); /* NOLINT: a program of this build */
	assert_non_null(pipe);
	return pipe;
}

/* The number of the first line that differs, 0: none does. */
static unsigned first_difference(const char *a, const char *b, unsigned *out_lines)
{
	static char left[65536], right[65536];
	FILE *one = start("conform_mem", a);
	FILE *other = start("conform_real", b);
	unsigned differs = 0;
	for (*out_lines = 0; differs == 0; (*out_lines)++) {
		char *x = fgets(left, sizeof(left), one);
		char *y = fgets(right, sizeof(right), other);
		if (x == NULL && y == NULL) {
			break;
		}
		if (x == NULL || y == NULL || strcmp(x, y) != 0) {
			differs = *out_lines + 1;
		}
	}
	int codes = pclose(one) | pclose(other);
	assert_true(differs != 0 || codes == 0);
	return differs;
}

static void answers_what_the_real_store_answers(void **state)
{
	(void)state;
	unsigned lines = 0;
	assert_int_equal(first_difference(SEEDS, SEEDS, &lines), 0);
	assert_true(lines > 1000);
}

static void the_comparison_sees_a_difference(void **state)
{
	(void)state;
	unsigned lines = 0;
	assert_int_not_equal(first_difference("-s 2 -n 1", "-s 3 -n 1", &lines), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_what_the_real_store_answers),
		cmocka_unit_test(the_comparison_sees_a_difference),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
