#include <math.h>

#include "actors/calculator/calculator.h"
#include "actors/calculator/calculator.pb-c.h"
#include "tests/support/given.h"

static struct given g;

static void create(double number)
{
	Calculator__Create command = CALCULATOR__CREATE__INIT;
	command.value = number;
	when_command(&g, &command.base);
}

static void update(Calculator__Operation operation, double operand)
{
	Calculator__Update command = CALCULATOR__UPDATE__INIT;
	command.operation = operation;
	command.value = operand;
	when_command(&g, &command.base);
}

static void given_value(double number)
{
	given_new(&g, &calculator_aggregate, "v1");
	create(number);
	then_events(&g, 1);
}

static void then_value(double number)
{
	Calculator__Result reply = CALCULATOR__RESULT__INIT;
	reply.value = number;
	then_reply(&g, &reply.base);
}

static void multiplies_3_by_3(void **unused)
{
	(void)unused;
	Calculator__ValueCreated created = CALCULATOR__VALUE_CREATED__INIT;
	Calculator__ValueUpdated updated = CALCULATOR__VALUE_UPDATED__INIT;
	Calculator__Value query = CALCULATOR__VALUE__INIT;
	given_value(3);
	created.parent_id = (char *)(uintptr_t) "c-1";
	created.value = 3;
	then_event(&g, &created.base);
	given_command_id(&g, "c-2", 3);
	update(CALCULATOR__OPERATION__MULTIPLY, 3);
	updated.parent_id = (char *)(uintptr_t) "c-2";
	updated.operation = CALCULATOR__OPERATION__MULTIPLY;
	updated.operand = 3;
	updated.value = 9;
	then_event(&g, &updated.base);
	then_value(9);
	when_replayed(&g);
	when_restored(&g);
	when_query(&g, &query.base);
	then_value(9);
	given_free(&g);
}

static void adds_and_multiplies_in_order(void **unused)
{
	(void)unused;
	given_value(2);
	update(CALCULATOR__OPERATION__ADD, 1);
	update(CALCULATOR__OPERATION__MULTIPLY, 10);
	then_value(30);
	update(CALCULATOR__OPERATION__ADD, -0.5);
	then_value(29.5);
	update(CALCULATOR__OPERATION__MULTIPLY, 0);
	then_value(0);
	when_replayed(&g);
	given_free(&g);
}

static void refuses_to_create_twice(void **unused)
{
	(void)unused;
	given_value(1);
	create(1);
	then_refused(&g, "value with id v1 exists already");
	given_free(&g);
}

static void refuses_to_update_what_does_not_exist(void **unused)
{
	(void)unused;
	Calculator__Value query = CALCULATOR__VALUE__INIT;
	given_new(&g, &calculator_aggregate, "v1");
	update(CALCULATOR__OPERATION__ADD, 1);
	then_refused(&g, "value with id v1 does not exist");
	when_query(&g, &query.base);
	then_refused(&g, "value does not exist");
	given_free(&g);
}

static void refuses_results_that_are_not_finite(void **unused)
{
	(void)unused;
	given_value(1e308);
	update(CALCULATOR__OPERATION__MULTIPLY, 10);
	then_refused(&g, "the result is too large");
	update(CALCULATOR__OPERATION__ADD, 1e308);
	then_refused(&g, "the result is too large");
	update(CALCULATOR__OPERATION__MULTIPLY, -10);
	then_refused(&g, "the result is too large");
	given_free(&g);
}

static void refuses_operands_that_are_not_finite(void **unused)
{
	(void)unused;
	static const double bad[] = {NAN, INFINITY, -INFINITY};
	given_value(1);
	for (int i = 0; i < 3; i++) {
		create(bad[i]);
		then_refused(&g, "value must be a finite number");
		update(CALCULATOR__OPERATION__ADD, bad[i]);
		then_refused(&g, "value must be a finite number");
		update(CALCULATOR__OPERATION__MULTIPLY, bad[i]);
		then_refused(&g, "value must be a finite number");
	}
	given_free(&g);
}

static void refuses_operations_it_does_not_know(void **unused)
{
	(void)unused;
	given_value(1);
	update((Calculator__Operation)4, 2);
	then_refused(&g, "operation must be ADD or MULTIPLY");
	given_free(&g);
}

static void names_binary_command_ids_in_hex(void **unused)
{
	(void)unused;
	Calculator__ValueCreated created = CALCULATOR__VALUE_CREATED__INIT;
	given_new(&g, &calculator_aggregate, "v1");
	given_command_id(&g, "\x00\xff\x7f", 3);
	create(1);
	created.parent_id = (char *)(uintptr_t) "00ff7f";
	created.value = 1;
	then_event(&g, &created.base);
	given_free(&g);
}

static void calls_impossible_events_contradictions(void **unused)
{
	(void)unused;
	Calculator__ValueCreated created = CALCULATOR__VALUE_CREATED__INIT;
	Calculator__ValueUpdated updated = CALCULATOR__VALUE_UPDATED__INIT;
	given_new(&g, &calculator_aggregate, "v1");
	created.parent_id = updated.parent_id = (char *)(uintptr_t) "c";
	updated.operation = CALCULATOR__OPERATION__ADD;
	then_contradicts(&g, &updated.base);
	created.value = INFINITY;
	then_contradicts(&g, &created.base);
	created.value = 1;
	given_event(&g, &created.base);
	then_contradicts(&g, &created.base);
	updated.value = NAN;
	then_contradicts(&g, &updated.base);
	given_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(multiplies_3_by_3),
		cmocka_unit_test(adds_and_multiplies_in_order),
		cmocka_unit_test(refuses_to_create_twice),
		cmocka_unit_test(refuses_to_update_what_does_not_exist),
		cmocka_unit_test(refuses_results_that_are_not_finite),
		cmocka_unit_test(refuses_operands_that_are_not_finite),
		cmocka_unit_test(refuses_operations_it_does_not_know),
		cmocka_unit_test(names_binary_command_ids_in_hex),
		cmocka_unit_test(calls_impossible_events_contradictions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
