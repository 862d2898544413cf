#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/account/account.h"
#include "actors/calculator/calculator.h"
#include "actors/registry.h"
#include "proto/troupe.pb-c.h"
#include "tests/support/test.h"

static struct rt_errinfo info;

static rt_err add(const struct troupe_aggregate *aggregate)
{
	struct ac_registry *registry;
	assert_err(ac_registry_new(&registry), RT_OK);
	info = (struct rt_errinfo){0};
	rt_err err = ac_registry_add(registry, aggregate, &info);
	ac_registry_free(registry);
	return err;
}

static void finds_types_and_messages_by_name(void **state)
{
	(void)state;
	struct ac_registry *registry;
	assert_err(ac_registry_new(&registry), RT_OK);
	assert_err(ac_registry_add(registry, &account_aggregate, NULL), RT_OK);
	assert_err(ac_registry_add(registry, &calculator_aggregate, NULL), RT_OK);
	const struct ac_type *type = ac_registry_find(registry, rt_bytes_str("account"));
	assert_ptr_equal(ac_type_aggregate(type), &account_aggregate);
	assert_null(ac_registry_find(registry, rt_bytes_str("accoun")));
	assert_null(ac_registry_find(registry, rt_bytes_str("")));
	int deposit = ac_type_command(type, rt_bytes_str("Deposit"));
	assert_string_equal(account_aggregate.commands[deposit].name, "Deposit");
	assert_int_equal(ac_type_command(type, rt_bytes_str("Deposi")), -1);
	assert_int_equal(ac_type_command(type, rt_bytes_str("Deposits")), -1);
	assert_int_equal(ac_type_query(type, rt_bytes_str("Deposit")), -1);
	assert_true(ac_type_event(type, rt_bytes_str("MoneyDeposited")) >= 0);
	assert_err(ac_registry_add(registry, &account_aggregate, &info), RT_E_EXISTS);
	ac_registry_free(registry);
}

static void refuses_tables_that_cannot_work(void **state)
{
	(void)state;
	struct troupe_aggregate bad = account_aggregate;
	bad.name = "Account";
	assert_err(add(&bad), RT_E_INVAL);
	assert_non_null(strstr(info.text, "[a-z]"));
	bad = account_aggregate;
	bad.decide = NULL;
	assert_err(add(&bad), RT_E_INVAL);
	bad = account_aggregate;
	bad.save = NULL;
	assert_err(add(&bad), RT_E_INVAL);
	assert_non_null(strstr(info.text, "save and restore come together"));
	bad = account_aggregate;
	bad.state_size = 0;
	assert_err(add(&bad), RT_E_INVAL);
	struct troupe_event_type events[] = {
		account_aggregate.events[0], account_aggregate.events[0], {NULL, 0, NULL, NULL}};
	bad = account_aggregate;
	bad.events = events;
	assert_err(add(&bad), RT_E_INVAL);
	assert_non_null(strstr(info.text, "twice"));
	events[1] = account_aggregate.events[1];
	events[1].version = 0;
	assert_err(add(&bad), RT_E_INVAL);
}

static void step(const ProtobufCMessage *old, struct troupe_out *out)
{
	(void)old;
	(void)out;
}

static void upcasters_must_lead_to_the_current_version(void **state)
{
	(void)state;
	const ProtobufCMessageDescriptor *any = account_aggregate.events[0].message;
	struct troupe_upcast upcasts[] = {{1, any, step}, {3, any, step}, {0, NULL, NULL}};
	struct troupe_event_type events[] = {account_aggregate.events[0], {NULL, 0, NULL, NULL}};
	struct troupe_aggregate aggregate = account_aggregate;
	events[0].version = 4;
	events[0].upcasts = upcasts;
	aggregate.events = events;
	assert_err(add(&aggregate), RT_E_INVAL);
	assert_non_null(strstr(info.text, "one version a step"));
	upcasts[1].from_version = 2;
	assert_err(add(&aggregate), RT_E_INVAL);
	assert_non_null(strstr(info.text, "end at version 3, the event is version 4"));
	events[0].version = 3;
	assert_err(add(&aggregate), RT_OK);
}

static void refuses_files_that_are_no_modules(void **state)
{
	(void)state;
	struct ac_registry *registry;
	assert_err(ac_registry_new(&registry), RT_OK);
	assert_err(ac_registry_load(registry, "/nonexistent/x.so", &info), RT_E_NOTFOUND);
	assert_err(ac_registry_load(registry, "/tmp/bad name.so", &info), RT_E_INVAL);
	assert_err(ac_registry_load(registry, "/tmp", &info), RT_E_INVAL);
	char path[] = "/tmp/troupe-moduleXXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "no elf", 6), 6);
	assert_int_equal(fchmod(fd, 0666), 0);
	assert_err(ac_registry_load(registry, path, &info), RT_E_INVAL);
	assert_non_null(strstr(info.text, "others cannot write"));
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_err(ac_registry_load(registry, path, &info), RT_E_INVAL);
	assert_non_null(strstr(info.text, path));
	close(fd);
	unlink(path);
	ac_registry_free(registry);
}

static void describes_types_with_their_fields(void **state)
{
	(void)state;
	struct ac_registry *registry;
	assert_err(ac_registry_new(&registry), RT_OK);
	assert_err(ac_registry_add(registry, &account_aggregate, NULL), RT_OK);
	struct pr_text packed = {0};
	ac_registry_describe(registry, NULL, false, &packed);
	Troupe__TypeList *list =
		troupe__type_list__unpack(NULL, packed.size, (const uint8_t *)packed.data);
	assert_non_null(list);
	assert_int_equal(list->n_types, 1);
	assert_string_equal(list->types[0]->name, "account");
	Troupe__MessageType *deposit = list->types[0]->commands[1];
	assert_string_equal(deposit->name, "Deposit");
	assert_string_equal(deposit->fields[0]->name, "amount");
	assert_string_equal(deposit->fields[0]->type, "int64");
	assert_string_equal(deposit->reply_fields[0]->name, "balance");
	troupe__type_list__free_unpacked(list, NULL);
	pr_text_clear(&packed);
	ac_registry_free(registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_types_and_messages_by_name),
		cmocka_unit_test(refuses_tables_that_cannot_work),
		cmocka_unit_test(upcasters_must_lead_to_the_current_version),
		cmocka_unit_test(refuses_files_that_are_no_modules),
		cmocka_unit_test(describes_types_with_their_fields),
	};
	return cmocka_run_group_tests_name("actors/registry", tests, NULL, NULL);
}
