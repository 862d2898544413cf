#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.h"
#include "proto/troupe.pb-c.h"
#include "sharding/feed.h"
#include "tests/support/nodecall.h"
#include "tests/support/test.h"

#define COMMAND TROUPE__KIND__KIND_COMMAND
#define QUERY   TROUPE__KIND__KIND_QUERY

static const struct troupe_aggregate *const aggregates[] = {&account_aggregate, NULL};
static char text[4096];

static void open_small(struct t_node *t)
{
	t_node_open(t, aggregates, &(struct sh_node_options){.shard_count = 4});
}

static uint32_t command(struct t_node *t, const char *path, const char *name, const char *json)
{
	return t_call(t, COMMAND, path, name, json, text, sizeof(text));
}

static void keeps_the_register_of_an_account(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	assert_int_equal(command(&t, "account/a", "Open", ""), TROUPE__CODE__CODE_OK);
	assert_int_equal(command(&t, "account/a", "Deposit", "{\"amount\":1000000}"), 0);
	assert_string_equal(text, "{\"balance\":1000000}");
	assert_int_equal(
		command(&t, "account/a", "WriteCheck", "{\"number\":1,\"amount\":400000}"), 0);
	assert_int_equal(command(&t, "account/a", "WithdrawAtm", "{\"amount\":600001}"),
		TROUPE__CODE__CODE_REFUSED);
	assert_string_equal(text, "insufficient funds");
	assert_int_equal(t_call(&t, QUERY, "account/a", "Balance", "{}", text, sizeof(text)), 0);
	assert_string_equal(text, "{\"balance\":600000}");
	t_node_reopen(&t);
	assert_int_equal(t_call(&t, QUERY, "account/a", "Balance", "{}", text, sizeof(text)), 0);
	assert_string_equal(text, "{\"balance\":600000}");
	t_node_remove(&t);
}

static void names_what_is_wrong(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	assert_int_equal(command(&t, "nothing/a", "Open", ""), TROUPE__CODE__CODE_NOT_FOUND);
	assert_string_equal(text, "no aggregate type \"nothing\" here");
	assert_int_equal(command(&t, "account/a", "Jump", ""), TROUPE__CODE__CODE_NOT_FOUND);
	assert_string_equal(text, "account has no command \"Jump\"");
	assert_int_equal(command(&t, "account/a b", "Open", ""), TROUPE__CODE__CODE_BAD_REQUEST);
	assert_int_equal(command(&t, "account/a", "Deposit", "{\"amount\":\"x\"}"),
		TROUPE__CODE__CODE_BAD_REQUEST);
	assert_non_null(strstr(text, "amount"));
	assert_int_equal(t_call(&t, QUERY, "account/a", "Balance", "", text, sizeof(text)),
		TROUPE__CODE__CODE_NOT_FOUND);
	t_node_remove(&t);
}

/* The same id: while the first is under way, after it, after a restart. One event, one answer. */
static void a_command_id_counts_once(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	assert_int_equal(command(&t, "account/a", "Open", ""), 0);
	struct t_call c[3] = {0};
	for (int i = 0; i < 3; i++) {
		c[i].call.in.command_id = rt_bytes_str("once");
		t_submit(&t, &c[i], COMMAND, "account/a", "Deposit", "{\"amount\":5}");
	}
	uint64_t seq = 0;
	unsigned repeated = 0;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(t_wait(&c[i]), 0);
		seq = seq == 0 ? c[i].call.out.seq : seq;
		assert_int_equal(c[i].call.out.seq, seq);
		assert_memory_equal(c[i].call.out.payload.data, "{\"balance\":5}", 13);
		repeated += c[i].call.out.repeated;
		t_end(&c[i]);
	}
	assert_int_equal(repeated, 2);
	t_node_reopen(&t);
	struct t_call again = {.call.in.command_id = rt_bytes_str("once")};
	t_submit(&t, &again, COMMAND, "account/a", "Deposit", "{\"amount\":5}");
	assert_int_equal(t_wait(&again), 0);
	assert_true(again.call.out.repeated);
	assert_int_equal(again.call.out.seq, seq);
	t_end(&again);
	struct t_call other = {.call.in.command_id = rt_bytes_str("once")};
	t_submit(&t, &other, COMMAND, "account/a", "Open", "");
	assert_int_equal(t_wait(&other), 0); /* an id means the first command, whatever it was */
	assert_int_equal(other.call.out.seq, seq);
	t_end(&other);
	assert_int_equal(t_call(&t, QUERY, "account/a", "Balance", "", text, sizeof(text)), 0);
	assert_string_equal(text, "{\"balance\":5}");
	t_node_remove(&t);
}

static void an_old_expected_number_is_a_conflict(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	assert_int_equal(command(&t, "account/a", "Open", ""), 0);
	struct t_call c = {.call.in.expected = 1}; /* at 0 */
	t_submit(&t, &c, COMMAND, "account/a", "Deposit", "{\"amount\":5}");
	assert_int_equal(t_wait(&c), TROUPE__CODE__CODE_CONFLICT);
	assert_int_equal(c.call.out.seq, 1);
	t_end(&c);
	c = (struct t_call){.call.in.expected = 2}; /* at 1 */
	t_submit(&t, &c, COMMAND, "account/a", "Deposit", "{\"amount\":5}");
	assert_int_equal(t_wait(&c), 0);
	assert_int_equal(c.call.out.seq, 2);
	t_end(&c);
	t_node_remove(&t);
}

static Troupe__EventPage *page_of(struct t_call *c)
{
	assert_int_equal(t_wait(c), 0);
	Troupe__EventPage *page = troupe__event_page__unpack(
		NULL, c->call.out.payload.size, c->call.out.payload.data);
	assert_non_null(page);
	t_end(c);
	return page;
}

static Troupe__EventPage *read_events(struct t_node *t, const char *path, uint64_t from)
{
	Troupe__ReadEvents request = TROUPE__READ_EVENTS__INIT;
	uint8_t bytes[64];
	request.from_seq = from;
	size_t size = troupe__read_events__pack(&request, bytes);
	const char *slash = strchr(path, '/');
	struct t_call c = {0};
	t_submit(t, &c, TROUPE__KIND__KIND_PING, path, "", "");
	t_wait(&c);
	c.call.in = (struct pr_call){.type = rt_bytes_of(path, (size_t)(slash - path)),
		.id = rt_bytes_str(slash + 1),
		.kind = TROUPE__KIND__KIND_EVENTS,
		.json = true,
		.payload = rt_bytes_of(bytes, size)};
	sh_node_submit(t->node, &c.call);
	return page_of(&c);
}

static Troupe__EventPage *read_feed(struct t_node *t, const char *position, uint32_t limit)
{
	Troupe__ReadFeed request = TROUPE__READ_FEED__INIT;
	uint8_t bytes[1024];
	request.position = (char *)(uintptr_t)position;
	request.limit = limit;
	size_t size = troupe__read_feed__pack(&request, bytes);
	struct t_call c = {0};
	t_submit(t, &c, TROUPE__KIND__KIND_PING, "account/a", "", "");
	t_wait(&c);
	c.call.in = (struct pr_call){
		.kind = TROUPE__KIND__KIND_FEED, .payload = rt_bytes_of(bytes, size)};
	sh_node_submit(t->node, &c.call);
	return page_of(&c);
}

static void shows_the_stream_and_past_states(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	assert_int_equal(command(&t, "account/a", "Open", ""), 0);
	for (int i = 1; i <= 120; i++) {
		assert_int_equal(command(&t, "account/a", "Deposit", "{\"amount\":10}"), 0);
	}
	for (int round = 0; round < 2; round++) {
		Troupe__EventPage *page = read_events(&t, "account/a", 0);
		assert_int_equal(page->n_events, 121);
		for (size_t i = 0; i < page->n_events; i++) {
			assert_int_equal(page->events[i]->seq, i + 1);
		}
		assert_string_equal(page->events[1]->manifest, "MoneyDeposited");
		assert_int_equal(page->next_seq, 122);
		assert_false(page->more);
		troupe__event_page__free_unpacked(page, NULL);
		page = read_events(&t, "account/a", 100);
		assert_int_equal(page->n_events, 22);
		assert_int_equal(page->events[0]->seq, 100);
		troupe__event_page__free_unpacked(page, NULL);
		t_node_reopen(&t); /* the second time everything comes from the index */
	}
	struct t_call c = {0};
	Troupe__ReadState request = TROUPE__READ_STATE__INIT;
	uint8_t bytes[16];
	request.at_seq = 61;
	size_t size = troupe__read_state__pack(&request, bytes);
	t_submit(&t, &c, TROUPE__KIND__KIND_PING, "account/a", "", "");
	t_wait(&c);
	c.call.in = (struct pr_call){.type = rt_bytes_str("account"),
		.id = rt_bytes_str("a"),
		.kind = TROUPE__KIND__KIND_STATE,
		.payload = rt_bytes_of(bytes, size)};
	sh_node_submit(t.node, &c.call);
	assert_int_equal(t_wait(&c), 0);
	snprintf(text, sizeof(text), "%.*s", (int)c.call.out.payload.size,
		(const char *)c.call.out.payload.data);
	assert_non_null(strstr(text, "\"seq\":61"));
	assert_non_null(strstr(text, "\"balance\":600"));
	t_end(&c);
	t_node_remove(&t);
}

static void the_feed_has_every_event_once(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	char path[64];
	for (int i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), "account/a%d", i % 7);
		(void)command(&t, path, "Open", "");
		assert_int_equal(command(&t, path, "Deposit", "{\"amount\":10}"), 0);
	}
	char position[SH_POSITION_MAX(64)] = "";
	uint64_t seen[7] = {0};
	size_t total = 0;
	for (bool more = true; more;) {
		Troupe__EventPage *page = read_feed(&t, position, 9);
		for (size_t i = 0; i < page->n_events; i++) {
			unsigned which = (unsigned)(page->events[i]->id[1] - '0');
			assert_int_equal(page->events[i]->seq, ++seen[which]);
		}
		total += page->n_events;
		more = page->n_events > 0;
		snprintf(position, sizeof(position), "%s", page->position);
		troupe__event_page__free_unpacked(page, NULL);
	}
	assert_int_equal(total, 57);
	t_node_remove(&t);
}

static void positions_survive_printing(void **state)
{
	(void)state;
	uint64_t in[5] = {0, 17, 0, UINT64_C(0xabcdef0123), 0}, out[5];
	char token[SH_POSITION_MAX(5)];
	sh_position_print(in, 5, token);
	assert_string_equal(token, "f1..11..abcdef0123");
	assert_true(sh_position_parse(token, out, 5));
	assert_memory_equal(in, out, sizeof(in));
	assert_false(sh_position_parse(token, out, 3));
	assert_false(sh_position_parse("f2.1", out, 5));
	assert_false(sh_position_parse("f1.G", out, 5));
}

/* Far more entities than the budget holds: each is right when it comes back. */
static void passivates_within_its_budget(void **state)
{
	(void)state;
	struct t_node t;
	t_node_open(&t, aggregates,
		&(struct sh_node_options){.shard_count = 4, .entity_memory_bytes = 256 * 1024});
	enum {
		ENTITIES = 2000
	};
	struct t_call *calls = calloc(ENTITIES, sizeof(*calls));
	char(*paths)[32] = calloc(ENTITIES, sizeof(*paths));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < ENTITIES; i++) {
			snprintf(paths[i], sizeof(paths[i]), "account/e%d", i);
			calls[i] = (struct t_call){0};
			t_submit(&t, &calls[i], round < 2 ? COMMAND : QUERY, paths[i],
				round == 0   ? "Open"
				: round == 1 ? "Deposit"
					     : "Balance",
				round == 1 ? "{\"amount\":7}" : "");
		}
		for (int i = 0; i < ENTITIES; i++) {
			assert_int_equal(t_wait(&calls[i]), 0);
			if (round == 2) {
				assert_memory_equal(
					calls[i].call.out.payload.data, "{\"balance\":7}", 13);
			}
			t_end(&calls[i]);
		}
		t_node_reopen(&t);
	}
	for (int i = 0; i < ENTITIES; i++) {
		assert_int_equal(t_call(&t, QUERY, paths[i], "Balance", "", text, sizeof(text)), 0);
		assert_string_equal(text, "{\"balance\":7}");
	}
	struct pr_text status = {0};
	sh_node_status(t.node, &status);
	pr_text_add(&status, "", 1);
	const char *bytes = strstr(status.data, "\"entityBytes\":");
	assert_non_null(bytes);
	assert_true(strtoull(bytes + 14, NULL, 10) <= 256 * 1024);
	assert_null(strstr(status.data, "\"passivated\":0,"));
	pr_text_clear(&status);
	free(calls);
	free(paths);
	t_node_remove(&t);
}

static void serves_from_several_workers(void **state)
{
	(void)state;
	struct t_node t;
	t_node_open(&t, aggregates, &(struct sh_node_options){.shard_count = 16, .workers = 3});
	enum {
		ENTITIES = 300
	};
	struct t_call *calls = calloc(ENTITIES, sizeof(*calls));
	char(*paths)[32] = calloc(ENTITIES, sizeof(*paths));
	for (int i = 0; i < ENTITIES; i++) {
		snprintf(paths[i], sizeof(paths[i]), "account/e%d", i);
		t_submit(&t, &calls[i], COMMAND, paths[i], "Open", "");
	}
	for (int i = 0; i < ENTITIES; i++) {
		assert_int_equal(t_wait(&calls[i]), 0);
		t_end(&calls[i]);
	}
	size_t total = 0;
	char position[SH_POSITION_MAX(16)] = "";
	for (size_t last = 1; last > 0;) {
		Troupe__EventPage *page = read_feed(&t, position, 50);
		last = page->n_events;
		total += last;
		snprintf(position, sizeof(position), "%s", page->position);
		troupe__event_page__free_unpacked(page, NULL);
	}
	assert_int_equal(total, ENTITIES);
	free(calls);
	free(paths);
	t_node_remove(&t);
}

/* The reader asks first, the event comes later: it must not have to ask again. */
static void a_waiting_feed_hears_of_the_next_event(void **state)
{
	(void)state;
	struct t_node t;
	open_small(&t);
	Troupe__ReadFeed request = TROUPE__READ_FEED__INIT;
	uint8_t bytes[64];
	request.position = (char *)(uintptr_t) "end";
	request.wait_ms = 30000;
	size_t size = troupe__read_feed__pack(&request, bytes);
	for (int round = 0; round < 20; round++) {
		struct t_call c = {0};
		t_submit(&t, &c, TROUPE__KIND__KIND_PING, "account/a", "", "");
		t_wait(&c);
		c.call.in = (struct pr_call){
			.kind = TROUPE__KIND__KIND_FEED, .payload = rt_bytes_of(bytes, size)};
		sh_node_submit(t.node, &c.call);
		struct pr_text status = {0}; /* passes every worker, so the request has arrived */
		sh_node_status(t.node, &status);
		pr_text_clear(&status);
		char path[32];
		snprintf(path, sizeof(path), "account/w%d", round);
		assert_int_equal(command(&t, path, "Open", ""), 0);
		Troupe__EventPage *page = page_of(&c);
		assert_int_equal(page->n_events, 1);
		assert_string_equal(page->events[0]->id, path + 8);
		troupe__event_page__free_unpacked(page, NULL);
	}
	t_node_remove(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_the_register_of_an_account),
		cmocka_unit_test(names_what_is_wrong),
		cmocka_unit_test(a_command_id_counts_once),
		cmocka_unit_test(an_old_expected_number_is_a_conflict),
		cmocka_unit_test(shows_the_stream_and_past_states),
		cmocka_unit_test(the_feed_has_every_event_once),
		cmocka_unit_test(positions_survive_printing),
		cmocka_unit_test(passivates_within_its_budget),
		cmocka_unit_test(serves_from_several_workers),
		cmocka_unit_test(a_waiting_feed_hears_of_the_next_event),
	};
	return cmocka_run_group_tests_name("sharding/node", tests, NULL, NULL);
}
