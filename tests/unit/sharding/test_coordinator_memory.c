#include <stdlib.h>

#include "runtime/base/log.h"
#include "tests/support/clusterbed.h"

/* The linker sends allocations of our own code here (module.mk). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

static uint32_t period, offset, seen,
	failed; /* of `period` allocations in a coordinator one fails */

static bool fails(void)
{
	if (period == 0 || !bed.inside || seen++ % period != offset) {
		return false;
	}
	failed++;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

static void is_made_whole_or_not_at_all(void **unused)
{
	(void)unused;
	struct sh_coordinator_options options = {.node = 1};
	struct sh_coordinator *coordinator = NULL;
	rt_err err = RT_E_NOMEM;
	for (uint32_t i = 0; err != RT_OK; i++) {
		period = UINT32_MAX;
		offset = i;
		seen = 0;
		bed.inside = true;
		err = sh_coordinator_new(&options, &coordinator);
		bed.inside = false;
		period = 0;
		assert_true(err == RT_OK || err == RT_E_NOMEM);
		assert_true(i < 10);
	}
	sh_coordinator_free(coordinator);
	options.node = 0;
	assert_err(sh_coordinator_new(&options, &coordinator), RT_E_INVAL);
}

static void does_its_work_as_soon_as_there_is_memory(void **unused)
{
	(void)unused;
	for (uint32_t i = 0; i < 12; i++) {
		bed_begin();
		period = 2 + i / 2;
		offset = i % 2;
		seen = failed = 0;
		bed_pass(2000);
		period = 0;
		bed_pass(1000);
		period = 2 + i / 2;
		bed_join(2);
		bed_join(3);
		bed_lead(BED_META, 1);
		bed_pass(5000);
		assert_true(failed > 0);
		period = 0;
		bed_settle();
		bed_then_even(3, 1, 3);
		bed_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_made_whole_or_not_at_all),
		cmocka_unit_test(does_its_work_as_soon_as_there_is_memory),
	};
	rt_log_set_level(RT_LOG_OFF);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
