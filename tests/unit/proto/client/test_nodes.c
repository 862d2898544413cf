/* The client library with several nodes, of which some are dead, die, are frozen or of no use. */
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <stdio.h>
#include <string.h>

#include "proto/client/nodes.h"
#include "proto/guard.h"
#include "tests/unit/proto/client/fake_node.h"

/* Both orders, often enough that a client begins with each of its nodes. */
#define ROUNDS 12

static struct troupe_client *client_of(const char *first, const char *second)
{
	char urls[256];
	snprintf(urls, sizeof(urls), "%s,%s", first, second);
	return client_open(urls);
}

static int call(struct troupe_client *client, struct troupe_answer *answer)
{
	struct troupe_call ask = command("x", 1);
	return troupe_client_call(client, &ask, answer);
}

static void call_ok(struct troupe_client *client)
{
	struct troupe_answer answer;
	assert_int_equal(call(client, &answer), TROUPE_OK);
	troupe_answer_free(&answer);
}

/* The ids that `from` has seen are among those of `to`. */
static void assert_ids_again(const struct server *from, const struct server *to)
{
	assert_true(from->seen > 0);
	for (unsigned i = 0; i < from->seen; i++) {
		bool again = false;
		for (unsigned j = 0; j < to->seen && !again; j++) {
			again = memcmp(from->ids[i], to->ids[j], 16) == 0;
		}
		assert_true(again);
	}
}

struct pair {
	struct server *servers[2];
	struct troupe_client *client;
	int used; /* which one the client talks to */
};

/* Two nodes and a client whose first message has arrived at one of them. */
static void pair_open(struct pair *pair, enum mode mode, struct one *ones, struct tally *tally)
{
	pair->servers[0] = server_start(mode, TROUPE_UNAVAILABLE, NULL);
	pair->servers[1] = server_start(mode, TROUPE_UNAVAILABLE, NULL);
	pair->client = client_of(pair->servers[0]->url, pair->servers[1]->url);
	tally_init(tally);
	submit_many(pair->client, ones, tally, 1);
	struct server *first = server_wait_either(pair->servers[0], pair->servers[1]);
	pair->used = first == pair->servers[0] ? 0 : 1;
}

static struct server *used(struct pair *pair)
{
	return pair->servers[pair->used];
}

static struct server *other(struct pair *pair)
{
	return pair->servers[1 - pair->used];
}

static void pair_close(struct pair *pair)
{
	troupe_client_close(pair->client);
	server_stop(pair->servers[0]);
	server_stop(pair->servers[1]);
}

static void a_node_that_is_dead_from_the_start_costs_little(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	char nobody[64];
	url_of_nobody(nobody, sizeof(nobody));
	for (int round = 0; round < ROUNDS; round++) {
		struct troupe_client *client = round % 2 == 0 ? client_of(nobody, server->url)
							      : client_of(server->url, nobody);
		nng_time start = nng_clock();
		struct troupe_answer answer;
		assert_int_equal(call(client, &answer), TROUPE_OK);
		assert_int_equal(answer.attempts, 1);
		assert_true(nng_clock() - start < 2000);
		troupe_answer_free(&answer);
		troupe_client_close(client);
	}
	server_stop(server);
}

static void calls_stay_with_one_node_while_nothing_breaks(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, ECHO, &one, &tally);
	for (int i = 0; i < 300; i++) {
		call_ok(pair.client);
	}
	assert_int_equal(server_messages(other(&pair)), 0);
	assert_int_equal(used(&pair)->calls, 301);
	pair_close(&pair);
}

static void clients_spread_over_the_nodes(void **state)
{
	(void)state;
	struct server *first = server_start(ECHO, 0, NULL);
	struct server *second = server_start(ECHO, 0, NULL);
	unsigned rounds = 0;
	while (server_messages(first) == 0 || server_messages(second) == 0) {
		struct troupe_client *client = client_of(first->url, second->url);
		call_ok(client);
		troupe_client_close(client);
		assert_true(++rounds < 200);
	}
	server_stop(first);
	server_stop(second);
}

static void what_a_dying_node_leaves_open_goes_to_another_with_the_same_ids(void **state)
{
	(void)state;
	enum {
		N = 600
	};
	static struct one ones[N];
	for (int round = 0; round < ROUNDS; round++) {
		struct pair pair;
		struct tally tally;
		pair_open(&pair, HOLD, ones, &tally);
		submit_many(pair.client, ones + 1, &tally, N - 1);
		server_wait_messages(used(&pair), 2);
		server_release(other(&pair));
		nng_time start = nng_clock();
		server_kill(used(&pair));
		tally_wait(&tally, N);
		assert_true(nng_clock() - start < 2000);
		assert_int_equal(tally.codes[TROUPE_OK], N);
		assert_int_equal(tally.wrong, 0);
		assert_int_equal(other(&pair)->calls, N);
		assert_ids_again(used(&pair), other(&pair));
		troupe_client_close(pair.client);
		server_stop(other(&pair));
		server_free(used(&pair));
	}
}

static void a_frozen_node_is_left_and_not_asked_again(void **state)
{
	(void)state;
	enum {
		N = 600
	};
	static struct one ones[N];
	struct pair pair;
	struct tally tally;
	pair_open(&pair, HOLD, ones, &tally);
	submit_many(pair.client, ones + 1, &tally, N - 1);
	server_wait_messages(used(&pair), 2);
	server_release(other(&pair));
	nng_time start = nng_clock();
	tally_wait(&tally, N);
	assert_true(nng_clock() - start < 10000);
	assert_int_equal(tally.codes[TROUPE_OK], N);
	assert_int_equal(other(&pair)->calls, N);
	assert_ids_again(used(&pair), other(&pair));
	for (int i = 0; i < 100; i++) {
		call_ok(pair.client);
	}
	assert_int_equal(server_messages(used(&pair)), 2);
	pair_close(&pair);
}

static void a_node_that_thaws_is_used_again(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, HOLD, &one, &tally);
	server_release(other(&pair));
	tally_wait(&tally, 1);
	assert_int_equal(tally.codes[TROUPE_OK], 1);
	server_release(used(&pair)); /* its answers to the call and the ping come late */
	server_kill(other(&pair));
	for (int i = 0; i < 10; i++) {
		call_ok(pair.client);
	}
	troupe_client_close(pair.client);
	server_stop(used(&pair));
	server_free(other(&pair));
}

static void a_node_that_comes_back_is_used_again(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, ECHO, &one, &tally);
	tally_wait(&tally, 1);
	struct server *first = used(&pair);
	server_kill(first);
	call_ok(pair.client);
	struct server *again = server_start(ECHO, 0, first->url);
	server_kill(other(&pair));
	call_ok(pair.client);
	assert_int_equal(server_messages(again), 1);
	troupe_client_close(pair.client);
	server_stop(again);
	server_free(first);
	server_free(other(&pair));
}

static void a_node_that_lives_and_serves_nothing_is_left(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, HOLD_ALL_BUT_PINGS, &one, &tally);
	server_release(other(&pair));
	tally_wait(&tally, 1);
	assert_int_equal(tally.codes[TROUPE_OK], 1);
	assert_int_equal(tally.attempts, 2);
	assert_true(used(&pair)->pings > 1);
	/* Each was told how long the client would wait. */
	assert_int_equal(used(&pair)->timeout_ms, 2000);
	assert_int_equal(other(&pair)->timeout_ms, 4000);
	assert_ids_again(used(&pair), other(&pair));
	pair_close(&pair);
}

static void a_node_that_turns_calls_away_is_left(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		struct pair pair;
		struct tally tally;
		struct one one;
		pair_open(&pair, CODE, &one, &tally);
		server_set(other(&pair), ECHO);
		nng_time start = nng_clock();
		tally_wait(&tally, 1);
		assert_true(nng_clock() - start < 2000);
		assert_int_equal(tally.codes[TROUPE_OK], 1);
		unsigned refused = server_messages(used(&pair));
		for (int i = 0; i < 100; i++) {
			call_ok(pair.client);
		}
		assert_int_equal(server_messages(used(&pair)), refused);
		pair_close(&pair);
	}
}

/* Waiting as long as it says is for those who know no other. */
static void what_a_stopping_node_turns_away_goes_to_another_at_once(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, HOLD, &one, &tally);
	server_set(used(&pair), GOING);
	server_release(other(&pair));
	server_release(used(&pair));
	tally_wait(&tally, 1);
	assert_int_equal(tally.codes[TROUPE_OK], 1);
	assert_int_equal(tally.attempts, 2);
	assert_int_equal(server_messages(used(&pair)), 1);
	pair_close(&pair);
}

static void submit_feed(struct troupe_client *client, struct one *one)
{
	struct troupe_call feed = {.kind = TROUPE_FEED,
		.payload = &one->number,
		.payload_size = sizeof(one->number),
		.expected = -1};
	assert_int_equal(troupe_client_submit(client, &feed, count_answer, one), TROUPE_OK);
}

static void waiting_feeds_move_when_their_node_dies(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one ones[4];
	pair_open(&pair, HOLD_FEEDS, ones, &tally);
	tally_wait(&tally, 1);
	for (uint32_t i = 1; i < 4; i++) {
		ones[i] = (struct one){.tally = &tally, .number = i};
		submit_feed(pair.client, &ones[i]);
	}
	server_wait_messages(used(&pair), 4);
	server_release(other(&pair));
	server_kill(used(&pair));
	tally_wait(&tally, 4);
	assert_int_equal(tally.codes[TROUPE_OK], 4);
	troupe_client_close(pair.client);
	server_stop(other(&pair));
	server_free(used(&pair));
}

static void waiting_feeds_move_when_their_node_freezes(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one ones[2];
	pair_open(&pair, HOLD_FEEDS, ones, &tally);
	tally_wait(&tally, 1);
	ones[1] = (struct one){.tally = &tally, .number = 1};
	submit_feed(pair.client, &ones[1]);
	server_wait_pings(used(&pair), 2); /* waiting alone does not move a feed */
	assert_int_equal(server_messages(other(&pair)), 0);
	server_release(other(&pair));
	server_set(used(&pair), HOLD);
	tally_wait(&tally, 2);
	assert_int_equal(tally.codes[TROUPE_OK], 2);
	assert_int_equal(server_messages(used(&pair)), 2);
	pair_close(&pair);
}

static void without_any_node_nothing_was_sent(void **state)
{
	(void)state;
	char first[64];
	char second[64];
	url_of_nobody(first, sizeof(first));
	url_of_nobody(second, sizeof(second));
	struct troupe_client *client = client_of(first, second);
	struct troupe_call ask = command("x", 1);
	ask.timeout_ms = 200;
	struct troupe_answer answer;
	assert_int_equal(troupe_client_call(client, &ask, &answer), TROUPE_E_CONNECT);
	assert_int_equal(answer.attempts, 0);
	troupe_answer_free(&answer);
	struct server *server = server_start(ECHO, 0, second);
	call_ok(client);
	troupe_client_close(client);
	server_stop(server);
}

static void when_all_nodes_die_the_deadline_ends_the_call(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one one;
	pair_open(&pair, HOLD, &one, &tally);
	struct troupe_call ask = command("x", 1);
	ask.timeout_ms = 400;
	struct one late = {.tally = &tally};
	assert_int_equal(troupe_client_submit(pair.client, &ask, count_answer, &late), TROUPE_OK);
	server_wait_messages(used(&pair), 2);
	server_kill(other(&pair));
	server_kill(used(&pair));
	tally_wait(&tally, 1);
	assert_int_equal(tally.codes[TROUPE_TIMEOUT], 1); /* it was sent */
	assert_int_equal(late.answers, 1);
	ask.timeout_ms = 100;
	struct troupe_answer answer;
	assert_int_equal(troupe_client_call(pair.client, &ask, &answer), TROUPE_E_CONNECT);
	troupe_answer_free(&answer);
	troupe_client_close(pair.client);
	server_free(used(&pair));
	server_free(other(&pair));
}

static void close_does_not_wait_for_frozen_nodes(void **state)
{
	(void)state;
	struct pair pair;
	struct tally tally;
	struct one ones[10];
	pair_open(&pair, HOLD, ones, &tally);
	submit_many(pair.client, ones + 1, &tally, 9);
	server_wait_pings(used(&pair), 1);
	nng_time start = nng_clock();
	troupe_client_close(pair.client);
	assert_true(nng_clock() - start < 5000);
	assert_int_equal(tally.codes[TROUPE_E_CLOSED], 10);
	server_stop(pair.servers[0]);
	server_stop(pair.servers[1]);
}

static void a_bad_list_says_which_url(void **state)
{
	(void)state;
	static const char *const bad[][2] = {
		{"", "an empty URL"},
		{"tcp://127.0.0.1:1,,tcp://127.0.0.1:2", "an empty URL"},
		{",tcp://127.0.0.1:1", "an empty URL"},
		{"tcp://127.0.0.1:1,", "an empty URL"},
		{"tcp://127.0.0.1:1,gopher://x,tcp://127.0.0.1:2", "gopher://x: "},
		{"tcp://127.0.0.1:1, tcp://127.0.0.1:2", " tcp://127.0.0.1:2: "},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char error[128] = "";
		struct troupe_client_options options = {.url = bad[i][0]};
		assert_null(troupe_client_open(&options, error, sizeof(error)));
		assert_memory_equal(error, bad[i][1], strlen(bad[i][1]));
	}
	char urls[PR_NODES_MAX * 32 + 32] = "";
	for (unsigned i = 1; i <= PR_NODES_MAX + 1; i++) {
		snprintf(urls + strlen(urls), sizeof(urls) - strlen(urls), "%stcp://127.0.0.1:%u",
			i > 1 ? "," : "", i);
		char error[128] = "";
		struct troupe_client_options options = {.url = urls};
		struct troupe_client *client = troupe_client_open(&options, error, sizeof(error));
		assert_int_equal(client != NULL, i <= PR_NODES_MAX);
		assert_string_equal(error, i <= PR_NODES_MAX ? "" : "more than 16 URLs");
		troupe_client_close(client);
	}
}

/* ---- the rules alone, with time given ------------------------------------------------------ */

static void bench_init(struct pr_nodes *nodes, uint32_t count)
{
	memset(nodes, 0, sizeof(*nodes));
	nodes->count = count;
	for (uint32_t i = 0; i < count; i++) {
		nodes->all[i].nodes = nodes;
		nodes->all[i].index = i;
	}
}

static void connect_node(struct pr_nodes *nodes, uint32_t index)
{
	nodes->all[index].dialled = true;
	atomic_store(&nodes->all[index].pipes, 1);
}

static uint32_t ticks_until_silent(struct pr_nodes *nodes, struct pr_node *node, uint64_t now)
{
	uint32_t ticks = 0;
	struct pr_errands errands = {0};
	while (!node->silent) {
		pr_nodes_tick(nodes, now, &errands);
		ticks++;
		assert_true(ticks < 10000);
	}
	return ticks;
}

static void a_quiet_node_is_pinged_first_and_silent_later(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 2);
	connect_node(&nodes, 0);
	struct pr_node *node = &nodes.all[0];
	struct pr_errands errands = {0};
	for (int i = 0; i < 1000; i++) { /* it owes nothing */
		pr_nodes_tick(&nodes, 5, &errands);
	}
	assert_null(errands.ping);
	pr_node_owes(node, true);
	uint32_t ticks = 0;
	while (errands.ping == NULL) {
		pr_nodes_tick(&nodes, 5, &errands);
		ticks++;
	}
	assert_int_equal(ticks, 40);
	assert_ptr_equal(errands.ping, node);
	assert_int_equal(node->ping, PR_PING_SENDING);
	assert_int_equal(ticks_until_silent(&nodes, node, 5), 60);
	assert_null(pr_nodes_pick(&nodes, &errands));
	assert_ptr_equal(errands.dial, &nodes.all[1]);
	pr_node_heard(node);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), node);
	pr_node_settled(node, true);
	pr_node_owes(node, false);
	assert_int_equal(ticks_until_silent(&nodes, node, 100000), 200); /* only feeds wait */
}

static void a_node_found_silent_again_gets_more_time(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 2);
	connect_node(&nodes, 0);
	struct pr_node *node = &nodes.all[0];
	pr_node_owes(node, true);
	static const uint64_t nows[] = {1000, 2000, 60000, 119999, 179000, 300000, 300001};
	static const uint32_t ticks[] = {100, 200, 400, 800, 800, 100, 200};
	for (size_t i = 0; i < sizeof(nows) / sizeof(nows[0]); i++) {
		assert_int_equal(ticks_until_silent(&nodes, node, nows[i]), ticks[i]);
		pr_node_heard(node);
	}
}

static void nodes_are_dialled_one_after_the_other_and_once(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 3);
	nodes.current = 1;
	static const uint32_t order[] = {1, 2, 0};
	for (int i = 0; i < 3; i++) {
		struct pr_errands errands = {0};
		assert_null(pr_nodes_pick(&nodes, &errands));
		assert_ptr_equal(errands.dial, &nodes.all[order[i]]);
		for (int tick = 0; tick < 3; tick++) {
			errands = (struct pr_errands){0};
			assert_null(pr_nodes_pick(&nodes, &errands));
			assert_null(errands.dial);
			pr_nodes_tick(&nodes, 1, &errands);
		}
	}
	struct pr_errands errands = {0};
	assert_null(pr_nodes_pick(&nodes, &errands));
	assert_null(errands.dial);
	connect_node(&nodes, 0);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), &nodes.all[0]);
	connect_node(&nodes, 1);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), &nodes.all[0]); /* no going back */
}

static void the_next_node_is_dialled_at_once_when_a_connection_breaks(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 2);
	struct pr_errands errands = {0};
	assert_null(pr_nodes_pick(&nodes, &errands));
	assert_ptr_equal(errands.dial, &nodes.all[0]);
	connect_node(&nodes, 0);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), &nodes.all[0]);
	pr_node_broke(&nodes.all[0]);
	assert_null(pr_nodes_pick(&nodes, &errands));
	assert_ptr_equal(errands.dial, &nodes.all[1]);
}

static void a_node_is_left_for_one_that_is_there_or_may_be(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 2);
	connect_node(&nodes, 0);
	struct pr_node *first = &nodes.all[0];
	struct pr_node *second = &nodes.all[1];
	struct pr_errands errands = {0};
	pr_nodes_leave(&nodes, first, &errands);
	assert_ptr_equal(errands.dial, second);
	assert_null(pr_nodes_pick(&nodes, &errands)); /* a moment for the new one */
	connect_node(&nodes, 1);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), second);
	pr_nodes_leave(&nodes, first, &errands); /* an older message: the client is elsewhere */
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), second);
	for (int i = 0; i < 10; i++) {
		pr_nodes_tick(&nodes, 1, &errands);
	}
	pr_nodes_leave(&nodes, second, &errands);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), first);
	atomic_store(&second->pipes, 0);
	pr_nodes_leave(&nodes, first, &errands); /* nowhere to go */
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), first);
}

static void with_one_url_nothing_is_held_against_a_node(void **state)
{
	(void)state;
	struct pr_nodes nodes;
	bench_init(&nodes, 1);
	connect_node(&nodes, 0);
	struct pr_node *node = &nodes.all[0];
	struct pr_errands errands = {0};
	pr_node_owes(node, true);
	pr_node_broke(node);
	pr_nodes_leave(&nodes, node, &errands);
	for (int i = 0; i < 10000; i++) {
		pr_nodes_tick(&nodes, 1, &errands);
	}
	assert_null(errands.ping);
	assert_ptr_equal(pr_nodes_pick(&nodes, &errands), node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_is_dead_from_the_start_costs_little),
		cmocka_unit_test(calls_stay_with_one_node_while_nothing_breaks),
		cmocka_unit_test(clients_spread_over_the_nodes),
		cmocka_unit_test(what_a_dying_node_leaves_open_goes_to_another_with_the_same_ids),
		cmocka_unit_test(a_frozen_node_is_left_and_not_asked_again),
		cmocka_unit_test(a_node_that_thaws_is_used_again),
		cmocka_unit_test(a_node_that_comes_back_is_used_again),
		cmocka_unit_test(a_node_that_lives_and_serves_nothing_is_left),
		cmocka_unit_test(a_node_that_turns_calls_away_is_left),
		cmocka_unit_test(what_a_stopping_node_turns_away_goes_to_another_at_once),
		cmocka_unit_test(waiting_feeds_move_when_their_node_dies),
		cmocka_unit_test(waiting_feeds_move_when_their_node_freezes),
		cmocka_unit_test(without_any_node_nothing_was_sent),
		cmocka_unit_test(when_all_nodes_die_the_deadline_ends_the_call),
		cmocka_unit_test(close_does_not_wait_for_frozen_nodes),
		cmocka_unit_test(a_bad_list_says_which_url),
		cmocka_unit_test(a_quiet_node_is_pinged_first_and_silent_later),
		cmocka_unit_test(a_node_found_silent_again_gets_more_time),
		cmocka_unit_test(nodes_are_dialled_one_after_the_other_and_once),
		cmocka_unit_test(the_next_node_is_dialled_at_once_when_a_connection_breaks),
		cmocka_unit_test(a_node_is_left_for_one_that_is_there_or_may_be),
		cmocka_unit_test(with_one_url_nothing_is_held_against_a_node),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
