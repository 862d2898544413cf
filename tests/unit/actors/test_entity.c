#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/aggregate.h"
#include "proto/troupe.pb-c.h"
#include "tests/support/nodecall.h"
#include "tests/support/test.h"
#include "tests/unit/actors/probe.pb-c.h"

#define COMMAND TROUPE__KIND__KIND_COMMAND
#define QUERY   TROUPE__KIND__KIND_QUERY

struct state {
	int64_t total;
	uint64_t whites;
	char *note; /* so that memory is counted and freed */
};

static bool decide(const void *at, const struct troupe_command *command, struct troupe_out *out)
{
	const struct state *state = at;
	const Probe__Add *add = (const Probe__Add *)command->message;
	if (add->amount == 0) {
		return troupe_refuse(out, "nothing to add to %lld", (long long)state->total);
	}
	if (add->wrong_event) {
		Probe__Other other = PROBE__OTHER__INIT;
		troupe_emit(out, &other.base);
	}
	for (uint32_t i = 0; i < (add->times == 0 ? 1 : add->times); i++) {
		Probe__Added added = PROBE__ADDED__INIT;
		added.amount = add->forget_one ? -1 : add->amount;
		added.colour = (char *)(uintptr_t) "blue";
		troupe_emit(out, &added.base);
	}
	Probe__Total total = PROBE__TOTAL__INIT;
	total.total = state->total + add->amount;
	troupe_reply(out, &total.base);
	return true;
}

static bool evolve(void *at, const struct troupe_event *event)
{
	struct state *state = at;
	const Probe__Added *added = (const Probe__Added *)event->message;
	state->total +=
		added->amount; /* before the check: a half-changed state must be thrown away */
	state->whites += strcmp(added->colour, "white") == 0;
	troupe_free(state->note);
	state->note = troupe_strdup(added->colour);
	return added->amount != -1;
}

static bool answer(
	const void *at, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out)
{
	(void)query;
	(void)message;
	const struct state *state = at;
	Probe__Total total = PROBE__TOTAL__INIT;
	total.total = state->total * 1000 + (int64_t)state->whites;
	troupe_reply(out, &total.base);
	return true;
}

static unsigned saves, restores;

static void save(const void *at, struct troupe_out *out)
{
	const struct state *state = at;
	Probe__State stored = PROBE__STATE__INIT;
	stored.total = state->total;
	stored.whites = state->whites;
	saves++;
	troupe_reply(out, &stored.base);
}

static bool restore(void *at, const ProtobufCMessage *snapshot)
{
	struct state *state = at;
	const Probe__State *stored = (const Probe__State *)snapshot;
	state->total = stored->total;
	state->whites = stored->whites;
	restores++;
	return true;
}

static void done(void *at)
{
	troupe_free(((struct state *)at)->note);
}

static void from_v1(const ProtobufCMessage *old, struct troupe_out *out)
{
	Probe__AddedV2 newer = PROBE__ADDED_V2__INIT;
	newer.amount = ((const Probe__AddedV1 *)old)->amount;
	newer.colour = (char *)(uintptr_t) "white";
	troupe_emit(out, &newer.base);
}

static void from_v2(const ProtobufCMessage *old, struct troupe_out *out)
{
	const Probe__AddedV2 *v2 = (const Probe__AddedV2 *)old;
	Probe__Added newer = PROBE__ADDED__INIT;
	newer.amount = v2->amount;
	newer.colour = v2->colour;
	newer.weight = 1;
	troupe_emit(out, &newer.base);
}

static const struct troupe_upcast upcasts[] = {
	{1, &probe__added_v1__descriptor, from_v1},
	{2, &probe__added_v2__descriptor, from_v2},
	{0, NULL, NULL},
};
static const struct troupe_command_type commands[] = {
	{"Add", &probe__add__descriptor, &probe__total__descriptor}, {NULL, NULL, NULL}};
static const struct troupe_query_type queries[] = {
	{"Ask", &probe__ask__descriptor, &probe__total__descriptor}, {NULL, NULL, NULL}};
static const struct troupe_event_type events_v3[] = {
	{"Added", 3, &probe__added__descriptor, upcasts}, {NULL, 0, NULL, NULL}};
/* The same event as the first release knew it: same fields, version 1. */
static const struct troupe_event_type events_v1[] = {
	{"Added", 1, &probe__added__descriptor, NULL}, {NULL, 0, NULL, NULL}};

#define PROBE(the_events)                                                                   \
	{                                                                                   \
		.name = "probe", .state_size = sizeof(struct state), .commands = commands,  \
		.queries = queries, .events = (the_events), .done = done, .decide = decide, \
		.evolve = evolve, .answer = answer, .snapshot = &probe__state__descriptor,  \
		.snapshot_version = 1, .save = save, .restore = restore                     \
	}
static struct troupe_aggregate probe = PROBE(events_v3);
static const struct troupe_aggregate *const aggregates[] = {&probe, NULL};
static char text[1024];

static void open_node(struct t_node *t)
{
	probe = (struct troupe_aggregate)PROBE(events_v3);
	saves = restores = 0;
	t_node_open(t, aggregates, &(struct sh_node_options){.shard_count = 2});
}

static uint32_t add(struct t_node *t, const char *json)
{
	return t_call(t, COMMAND, "probe/p", "Add", json, text, sizeof(text));
}

static void assert_total(struct t_node *t, const char *expected)
{
	assert_int_equal(t_call(t, QUERY, "probe/p", "Ask", "", text, sizeof(text)), 0);
	assert_string_equal(text, expected);
}

static void many_callers_at_once_see_each_other(void **state)
{
	(void)state;
	struct t_node t;
	open_node(&t);
	enum {
		CALLS = 200
	};
	struct t_call *calls = calloc(CALLS, sizeof(*calls));
	for (int i = 0; i < CALLS; i++) {
		t_submit(&t, &calls[i], COMMAND, "probe/p", "Add", "{\"amount\":\"1\"}");
	}
	for (int i = 0; i < CALLS; i++) {
		assert_int_equal(t_wait(&calls[i]), 0);
		snprintf(text, sizeof(text), "{\"total\":%d}", i + 1);
		assert_memory_equal(calls[i].call.out.payload.data, text, strlen(text));
		assert_int_equal(calls[i].call.out.seq, i + 1);
		t_end(&calls[i]);
	}
	free(calls);
	assert_total(&t, "{\"total\":200000}");
	assert_true(saves >= 1);
	t_node_reopen(&t);
	assert_total(&t, "{\"total\":200000}");
	assert_int_equal(restores, 1);
	t_node_remove(&t);
}

static void a_defect_in_one_command_harms_nothing_else(void **state)
{
	(void)state;
	struct t_node t;
	open_node(&t);
	assert_int_equal(add(&t, "{\"amount\":1,\"times\":3}"), 0);
	assert_int_equal(
		add(&t, "{\"amount\":1,\"wrongEvent\":true}"), TROUPE__CODE__CODE_INTERNAL);
	assert_non_null(strstr(text, "not an event of this aggregate"));
	assert_total(&t, "{\"total\":3000}");
	/* decide and evolve disagree: nothing is written and the half-changed state is read again.
	 */
	assert_int_equal(add(&t, "{\"amount\":1,\"forgetOne\":true}"), TROUPE__CODE__CODE_INTERNAL);
	assert_total(&t, "{\"total\":3000}");
	assert_int_equal(add(&t, "{\"amount\":1,\"times\":2000}"), TROUPE__CODE__CODE_INTERNAL);
	assert_int_equal(add(&t, "{}"), TROUPE__CODE__CODE_REFUSED);
	assert_string_equal(text, "nothing to add to 3");
	assert_int_equal(add(&t, "{\"amount\":1}"), 0);
	assert_total(&t, "{\"total\":4000}");
	t_node_remove(&t);
}

static void reads_events_of_older_versions(void **state)
{
	(void)state;
	struct t_node t;
	open_node(&t);
	probe.events = events_v1;
	assert_int_equal(add(&t, "{\"amount\":1,\"times\":5}"), 0);
	probe.events = events_v3;
	t_node_reopen(&t);
	assert_total(&t, "{\"total\":5005}"); /* five became white */
	assert_int_equal(add(&t, "{\"amount\":1}"), 0);
	assert_total(&t, "{\"total\":6005}");
	t_node_reopen(&t);
	assert_total(&t, "{\"total\":6005}");
	t_node_remove(&t);
}

static void an_entity_whose_events_are_too_new_is_quarantined_alone(void **state)
{
	(void)state;
	struct t_node t;
	open_node(&t);
	assert_int_equal(add(&t, "{\"amount\":1}"), 0);
	probe.events = events_v1;
	t_node_reopen(&t);
	assert_int_equal(t_call(&t, QUERY, "probe/p", "Ask", "", text, sizeof(text)),
		TROUPE__CODE__CODE_QUARANTINED);
	assert_string_equal(text, "event Added has version 3, this node knows up to 1");
	assert_int_equal(add(&t, "{\"amount\":1}"), TROUPE__CODE__CODE_QUARANTINED);
	assert_int_equal(
		t_call(&t, COMMAND, "probe/q", "Add", "{\"amount\":1}", text, sizeof(text)), 0);
	struct pr_text status = {0};
	sh_node_status(t.node, &status);
	pr_text_add(&status, "", 1);
	assert_non_null(strstr(status.data, "{\"entity\":\"probe|p\",\"reason\":\"event Added"));
	pr_text_clear(&status);
	t_node_remove(&t);
}

static void a_snapshot_of_another_version_is_left_alone(void **state)
{
	(void)state;
	struct t_node t;
	open_node(&t);
	for (int i = 0; i < 60; i++) {
		assert_int_equal(add(&t, "{\"amount\":1}"), 0);
	}
	assert_true(saves > 0);
	probe.snapshot_version = 2;
	t_node_reopen(&t);
	assert_total(&t, "{\"total\":60000}");
	assert_int_equal(restores, 0);
	t_node_remove(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_callers_at_once_see_each_other),
		cmocka_unit_test(a_defect_in_one_command_harms_nothing_else),
		cmocka_unit_test(reads_events_of_older_versions),
		cmocka_unit_test(an_entity_whose_events_are_too_new_is_quarantined_alone),
		cmocka_unit_test(a_snapshot_of_another_version_is_left_alone),
	};
	return cmocka_run_group_tests_name("actors/entity", tests, NULL, NULL);
}
