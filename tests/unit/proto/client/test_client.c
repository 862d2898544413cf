/* The client library against one fake node, which behaves as each test says. */
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "proto/wire.h"
#include "tests/unit/proto/client/fake_node.h"

static void a_call_comes_back_with_its_answer(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct troupe_call call = command("hello", 5);
	call.expected = 6;
	call.command_id = "my own id";
	call.command_id_size = 9;
	struct troupe_answer answer;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
	assert_int_equal(answer.code, TROUPE_OK);
	assert_int_equal(answer.payload_size, 5);
	assert_memory_equal(answer.payload, "hello", 5);
	assert_string_equal(answer.error, "");
	assert_int_equal(answer.seq, 7);
	assert_int_equal(answer.attempts, 1);
	assert_int_equal(answer.command_id_size, 9);
	assert_memory_equal(answer.command_id, "my own id", 9);
	troupe_answer_free(&answer);
	troupe_answer_free(&answer);
	call = (struct troupe_call){.kind = TROUPE_PING, .expected = -1};
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
	assert_int_equal(answer.command_id_size, 0);
	troupe_answer_free(&answer);
	troupe_client_close(client);
	server_stop(server);
}

static void made_ids_are_found_in_the_answer(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	for (int i = 0; i < 8; i++) { /* expected and json are encoded behind the id */
		struct troupe_call call = command("x", 1);
		call.json = i % 2 == 1;
		call.expected = i < 2 ? -1 : i < 4 ? 0 : i < 6 ? 1000 : 100000000;
		struct troupe_answer answer;
		assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
		assert_int_equal(answer.command_id_size, 16);
		assert_memory_equal(answer.command_id, server->ids[i], 16);
		assert_int_equal(answer.seq, (uint64_t)(call.expected + 1));
		troupe_answer_free(&answer);
	}
	assert_int_equal(server->seen, 8);
	assert_memory_not_equal(server->ids[0], server->ids[1], 16);
	troupe_client_close(client);
	server_stop(server);
}

static void what_queues_meanwhile_goes_into_the_next_message(void **state)
{
	(void)state;
	enum {
		N = 1000
	};
	struct server *server = server_start(HOLD, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	static struct one ones[N];
	submit_many(client, ones, &tally, 1);
	server_wait_messages(server, 1);
	submit_many(client, ones + 1, &tally, N - 1);
	server_wait_messages(server, 2);
	server_release(server);
	tally_wait(&tally, N);
	assert_int_equal(tally.codes[TROUPE_OK], N);
	assert_int_equal(server->calls, N);
	assert_int_equal(server->biggest, 128);
	assert_true(server->messages <= 2 + (N - 2 + 127) / 128 + 2);
	troupe_client_close(client);
	server_stop(server);
}

static void a_repeat_carries_the_same_id(void **state)
{
	(void)state;
	static const int codes[] = {
		TROUPE_BUSY, TROUPE_UNAVAILABLE, TROUPE_UNKNOWN, TROUPE_TIMEOUT};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct server *server = server_start(ONCE_CODE, (uint32_t)codes[i], NULL);
		struct troupe_client *client = client_open(server->url);
		struct troupe_call call = command("x", 1);
		struct troupe_answer answer;
		assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
		assert_int_equal(answer.attempts, 2);
		assert_int_equal(server->seen, 2);
		assert_memory_equal(server->ids[0], server->ids[1], 16);
		troupe_answer_free(&answer);
		troupe_client_close(client);
		server_stop(server);
	}
}

static void final_codes_are_not_repeated(void **state)
{
	(void)state;
	static const int codes[] = {TROUPE_REFUSED, TROUPE_CONFLICT, TROUPE_BAD_REQUEST,
		TROUPE_NOT_FOUND, TROUPE_QUARANTINED, TROUPE_TOO_LARGE, TROUPE_INTERNAL, 99};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct server *server = server_start(CODE, (uint32_t)codes[i], NULL);
		struct troupe_client *client = client_open(server->url);
		struct troupe_call call = command("x", 1);
		struct troupe_answer answer;
		assert_int_equal(troupe_client_call(client, &call, &answer), codes[i]);
		assert_string_equal(answer.error, "the server says no");
		assert_int_equal(answer.attempts, 1);
		troupe_answer_free(&answer);
		troupe_client_close(client);
		server_stop(server);
	}
}

static void at_the_deadline_the_code_tells_what_is_known(void **state)
{
	(void)state;
	static const int codes[][2] = {{TROUPE_BUSY, TROUPE_BUSY},
		{TROUPE_UNAVAILABLE, TROUPE_UNAVAILABLE}, {TROUPE_UNKNOWN, TROUPE_TIMEOUT}};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct server *server = server_start(CODE, (uint32_t)codes[i][0], NULL);
		struct troupe_client *client = client_open(server->url);
		struct troupe_call call = command("x", 1);
		call.timeout_ms = 150;
		bool seen = false;
		for (int round = 0; round < 20 && !seen; round++) {
			struct troupe_answer answer;
			int code = troupe_client_call(client, &call, &answer);
			/* A try that is under way at the deadline may still be carried out. */
			assert_true(code == codes[i][1] || code == TROUPE_TIMEOUT);
			assert_true(answer.attempts >= 1);
			seen = code == codes[i][1] && answer.attempts >= 2;
			troupe_answer_free(&answer);
		}
		assert_true(seen);
		troupe_client_close(client);
		server_stop(server);
	}
}

static void survives_a_connection_that_breaks_midway(void **state)
{
	(void)state;
	enum {
		N = 300
	};
	char url[64];
	int listener = listen_raw(url, sizeof(url));
	struct troupe_client *client = client_open(url);
	struct tally tally;
	tally_init(&tally);
	static struct one ones[N];
	static uint8_t lost[N][16];
	submit_many(client, ones, &tally, N);
	unsigned taken = take_one_message_and_die(listener, lost);
	assert_true(taken > 0);
	struct server *server = server_start(ECHO, 0, url);
	tally_wait(&tally, N);
	assert_int_equal(tally.codes[TROUPE_OK], N);
	assert_int_equal(tally.wrong, 0);
	assert_int_equal(server->calls, N);
	/* The calls of the lost message come again under their ids. */
	for (unsigned i = 0; i < taken; i++) {
		bool again = false;
		for (unsigned j = 0; j < server->seen && !again; j++) {
			again = memcmp(lost[i], server->ids[j], 16) == 0;
		}
		assert_true(again);
	}
	troupe_client_close(client);
	server_stop(server);
}

static void waits_for_a_node_that_starts_later_and_again(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	char url[64];
	snprintf(url, sizeof(url), "%s", server->url);
	server_stop(server);
	struct troupe_client *client = client_open(url);
	struct tally tally;
	tally_init(&tally);
	struct one ones[20];
	submit_many(client, ones, &tally, 10);
	server = server_start(ECHO, 0, url);
	tally_wait(&tally, 10);
	server_stop(server);
	submit_many(client, ones + 10, &tally, 10);
	server = server_start(ECHO, 0, url);
	tally_wait(&tally, 20);
	assert_int_equal(tally.codes[TROUPE_OK], 20);
	troupe_client_close(client);
	server_stop(server);
}

static void answers_that_cannot_be_read_are_an_error(void **state)
{
	(void)state;
	struct server *server = server_start(GARBAGE, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	struct one ones[50];
	submit_many(client, ones, &tally, 50);
	tally_wait(&tally, 50);
	assert_int_equal(tally.codes[TROUPE_E_PROTOCOL], 50);
	troupe_client_close(client);
	server_stop(server);
}

static void calls_without_an_answer_are_an_error(void **state)
{
	(void)state;
	struct server *server = server_start(HALF, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	struct one one = {.tally = &tally};
	assert_int_equal(submit(client, &one), TROUPE_OK);
	tally_wait(&tally, 1);
	assert_int_equal(tally.codes[TROUPE_E_PROTOCOL], 1);
	assert_string_equal(tally.error, "the node's message has no answer for this call");
	troupe_client_close(client);
	server_stop(server);
}

static void an_answer_without_a_call_id_is_for_all(void **state)
{
	(void)state;
	struct server *server = server_start(REFUSE_ALL, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	struct one ones[20];
	submit_many(client, ones, &tally, 20);
	tally_wait(&tally, 20);
	assert_int_equal(tally.codes[TROUPE_BAD_REQUEST], 20);
	assert_string_equal(tally.error, "no batch");
	troupe_client_close(client);
	server_stop(server);
}

static void a_silent_node_costs_the_deadline_and_no_more(void **state)
{
	(void)state;
	struct server *server = server_start(SILENT, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct troupe_call call = command("x", 1);
	call.timeout_ms = 100;
	for (int i = 0; i < 4; i++) { /* more than there are messages in flight */
		nng_time start = nng_clock();
		struct troupe_answer answer;
		assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_TIMEOUT);
		nng_time took = nng_clock() - start;
		assert_true(took >= 100 && took < 5000);
		troupe_answer_free(&answer);
	}
	server_wait_messages(server, 4); /* flights are free again */
	troupe_client_close(client);
	server_stop(server);
}

static void without_a_node_nothing_was_sent(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	char url[64];
	snprintf(url, sizeof(url), "%s", server->url);
	server_stop(server);
	struct troupe_client *client = client_open(url);
	struct troupe_call call = command("x", 1);
	call.timeout_ms = 50;
	struct troupe_answer answer;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_E_CONNECT);
	assert_int_equal(answer.attempts, 0);
	troupe_answer_free(&answer);
	troupe_client_close(client);
}

static void close_answers_what_is_outstanding(void **state)
{
	(void)state;
	enum {
		N = 2000
	};
	struct server *server = server_start(SILENT, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	static struct one ones[N];
	submit_many(client, ones, &tally, N);
	server_wait_messages(server, 2);
	troupe_client_close(client);
	assert_int_equal(tally.codes[TROUPE_E_CLOSED], N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(ones[i].answers, 1);
	}
	server_stop(server);
}

static void close_while_answers_arrive(void **state)
{
	(void)state;
	enum {
		N = 500
	};
	for (int round = 0; round < 20; round++) {
		struct server *server = server_start(ECHO, 0, NULL);
		struct troupe_client *client = client_open(server->url);
		struct tally tally;
		tally_init(&tally);
		static struct one ones[N];
		submit_many(client, ones, &tally, N);
		tally_wait(&tally, (unsigned)round * 25);
		troupe_client_close(client);
		assert_int_equal(tally.codes[TROUPE_OK] + tally.codes[TROUPE_E_CLOSED], N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(ones[i].answers, 1);
		}
		server_stop(server);
	}
}

static void a_full_queue_refuses_at_once(void **state)
{
	(void)state;
	struct server *server = server_start(HOLD, 0, NULL);
	struct troupe_client_options options = {
		.url = server->url, .in_flight = 1, .batch = 1, .queue = 10};
	struct troupe_client *client = troupe_client_open(&options, NULL, 0);
	assert_non_null(client);
	struct tally tally;
	tally_init(&tally);
	struct one ones[12];
	submit_many(client, ones, &tally, 1);
	server_wait_messages(server, 1);
	submit_many(client, ones + 1, &tally, 10);
	assert_int_equal(submit(client, &ones[11]), TROUPE_BUSY);
	server_release(server);
	tally_wait(&tally, 11);
	assert_int_equal(tally.codes[TROUPE_OK], 11);
	troupe_client_close(client);
	server_stop(server);
}

static void waiting_feeds_hold_up_nobody(void **state)
{
	(void)state;
	struct server *server = server_start(HOLD_FEEDS, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	uint32_t number = 0;
	struct one feeds[3] = {{&tally, 0, 0}, {&tally, 0, 0}, {&tally, 0, 0}};
	struct troupe_call feed = {.kind = TROUPE_FEED,
		.payload = &number,
		.payload_size = sizeof(number),
		.expected = -1};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(
			troupe_client_submit(client, &feed, count_answer, &feeds[i]), TROUPE_OK);
	}
	server_wait_messages(server, 3);
	struct troupe_call call = command("x", 1);
	struct troupe_answer answer;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
	troupe_answer_free(&answer);
	assert_int_equal(tally.done, 0);
	server_release(server);
	tally_wait(&tally, 3);
	assert_int_equal(tally.codes[TROUPE_OK], 3);
	troupe_client_close(client);
	server_stop(server);
}

struct chain {
	struct one one;
	struct troupe_client *client;
	atomic_uint left;
};

static void again(void *arg, const struct troupe_answer *answer)
{
	struct chain *chain = arg;
	if (answer->code == TROUPE_OK && atomic_fetch_sub(&chain->left, 1) > 1) {
		struct troupe_call call = command("x", 1);
		if (troupe_client_submit(chain->client, &call, again, chain) == TROUPE_OK) {
			return;
		}
	}
	pthread_mutex_lock(&chain->one.tally->lock);
	chain->one.tally->done++;
	chain->one.tally->codes[answer->code & 127]++;
	pthread_cond_broadcast(&chain->one.tally->change);
	pthread_mutex_unlock(&chain->one.tally->lock);
}

static void callbacks_submit_and_still_fill_messages(void **state)
{
	(void)state;
	enum {
		CHAINS = 256,
		LINKS = 50
	};
	struct server *server = server_start(ECHO, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	static struct chain chains[CHAINS];
	for (int i = 0; i < CHAINS; i++) {
		chains[i].one.tally = &tally;
		chains[i].client = client;
		atomic_store(&chains[i].left, LINKS);
		struct troupe_call call = command("x", 1);
		assert_int_equal(troupe_client_submit(client, &call, again, &chains[i]), TROUPE_OK);
	}
	tally_wait(&tally, CHAINS);
	assert_int_equal(tally.codes[TROUPE_OK], CHAINS);
	assert_int_equal(server->calls, CHAINS * LINKS);
	/* Two messages of 128 at best; far fewer than half of that would mean no batching. */
	assert_true(server->messages < CHAINS * LINKS / 32);
	troupe_client_close(client);
	server_stop(server);
}

struct caller {
	struct troupe_client *client;
	unsigned ok;
};

static void *caller_thread(void *arg)
{
	struct caller *caller = arg;
	for (uint32_t i = 0; i < 50; i++) {
		struct troupe_call call = command(&i, sizeof(i));
		struct troupe_answer answer;
		int code = troupe_client_call(caller->client, &call, &answer);
		caller->ok += code == TROUPE_OK && answer.payload_size == sizeof(i) &&
			      memcmp(answer.payload, &i, sizeof(i)) == 0;
		troupe_answer_free(&answer);
	}
	return NULL;
}

static void sixty_four_threads_get_their_own_answers(void **state)
{
	(void)state;
	struct server *server = server_start(ONCE_CODE, TROUPE_BUSY, NULL);
	struct troupe_client *client = client_open(server->url);
	pthread_t threads[64];
	struct caller callers[64];
	for (int i = 0; i < 64; i++) {
		callers[i] = (struct caller){.client = client};
		assert_int_equal(pthread_create(&threads[i], NULL, caller_thread, &callers[i]), 0);
	}
	for (int i = 0; i < 64; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(callers[i].ok, 50);
	}
	troupe_client_close(client);
	server_stop(server);
}

static void bad_calls_are_refused_at_once(void **state)
{
	(void)state;
	struct server *server = server_start(ECHO, 0, NULL);
	struct troupe_client *client = client_open(server->url);
	char id[PR_ID_MAX + 2];
	memset(id, 'x', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	struct troupe_call call = command("x", 1);
	struct troupe_answer answer;
	call.id = id;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_BAD_REQUEST);
	troupe_answer_free(&answer);
	id[PR_ID_MAX] = '\0';
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
	troupe_answer_free(&answer);
	char *big = calloc(1, PR_PAYLOAD_MAX + 1);
	call = command(big, PR_PAYLOAD_MAX + 1);
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_TOO_LARGE);
	troupe_answer_free(&answer);
	call.payload_size--;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_OK);
	assert_int_equal(answer.payload_size, PR_PAYLOAD_MAX);
	troupe_answer_free(&answer);
	free(big);
	call = command("x", 1);
	call.command_id = id;
	call.command_id_size = PR_COMMAND_ID_MAX + 1;
	assert_int_equal(troupe_client_call(client, &call, &answer), TROUPE_BAD_REQUEST);
	troupe_client_close(client);
	server_stop(server);
}

static void big_calls_share_messages_below_the_limit(void **state)
{
	(void)state;
	/* 20 payloads of 100 KiB: no message may be above a node's limit of 1 MiB. */
	struct server *server = server_start(CODE, TROUPE_REFUSED, NULL);
	assert_int_equal(nng_socket_set_size(server->socket, NNG_OPT_RECVMAXSZ, PR_FRAME_MAX), 0);
	struct troupe_client *client = client_open(server->url);
	struct tally tally;
	tally_init(&tally);
	struct one ones[20];
	char *big = calloc(1, 100 * 1024);
	for (uint32_t i = 0; i < 20; i++) {
		ones[i] = (struct one){.tally = &tally, .number = i};
		struct troupe_call call = command(big, 100 * 1024);
		call.name = "Deposit";
		assert_int_equal(
			troupe_client_submit(client, &call, count_answer, &ones[i]), TROUPE_OK);
	}
	free(big);
	tally_wait(&tally, 20);
	assert_int_equal(tally.codes[TROUPE_REFUSED], 20);
	assert_int_equal(tally.attempts, 1);
	troupe_client_close(client);
	server_stop(server);
}

static void a_bad_url_says_why(void **state)
{
	(void)state;
	char error[128] = "";
	struct troupe_client_options options = {.url = "gopher://x"};
	assert_null(troupe_client_open(&options, error, sizeof(error)));
	assert_non_null(strstr(error, "gopher://x: "));
	options.url = NULL;
	assert_null(troupe_client_open(&options, error, sizeof(error)));
	assert_string_equal(error, "open: no URL");
	assert_null(troupe_client_open(&options, NULL, 0));
}

static void codes_are_those_of_the_wire(void **state)
{
	(void)state;
	for (int code = 0; code <= TROUPE__CODE__CODE_INTERNAL; code++) {
		const ProtobufCEnumValue *value =
			protobuf_c_enum_descriptor_get_value(&troupe__code__descriptor, code);
		assert_non_null(value);
		char name[64];
		snprintf(name, sizeof(name), "%s", value->name + strlen("CODE_"));
		for (char *at = name; *at != '\0'; at++) {
			*at = *at >= 'A' && *at <= 'Z' ? (char)(*at + 32) : *at;
		}
		assert_string_equal(troupe_code_name(code), name);
	}
	assert_string_equal(troupe_code_name(12), "?");
	assert_string_equal(troupe_code_name(-1), "?");
	assert_string_equal(troupe_code_name(TROUPE_E_PROTOCOL), "protocol");
	assert_int_equal(TROUPE_PING, TROUPE__KIND__KIND_PING);
	assert_int_equal(TROUPE_CLUSTER, TROUPE__KIND__KIND_CLUSTER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_comes_back_with_its_answer),
		cmocka_unit_test(made_ids_are_found_in_the_answer),
		cmocka_unit_test(what_queues_meanwhile_goes_into_the_next_message),
		cmocka_unit_test(a_repeat_carries_the_same_id),
		cmocka_unit_test(final_codes_are_not_repeated),
		cmocka_unit_test(at_the_deadline_the_code_tells_what_is_known),
		cmocka_unit_test(survives_a_connection_that_breaks_midway),
		cmocka_unit_test(waits_for_a_node_that_starts_later_and_again),
		cmocka_unit_test(answers_that_cannot_be_read_are_an_error),
		cmocka_unit_test(calls_without_an_answer_are_an_error),
		cmocka_unit_test(an_answer_without_a_call_id_is_for_all),
		cmocka_unit_test(a_silent_node_costs_the_deadline_and_no_more),
		cmocka_unit_test(without_a_node_nothing_was_sent),
		cmocka_unit_test(close_answers_what_is_outstanding),
		cmocka_unit_test(close_while_answers_arrive),
		cmocka_unit_test(a_full_queue_refuses_at_once),
		cmocka_unit_test(waiting_feeds_hold_up_nobody),
		cmocka_unit_test(callbacks_submit_and_still_fill_messages),
		cmocka_unit_test(sixty_four_threads_get_their_own_answers),
		cmocka_unit_test(bad_calls_are_refused_at_once),
		cmocka_unit_test(big_calls_share_messages_below_the_limit),
		cmocka_unit_test(a_bad_url_says_why),
		cmocka_unit_test(codes_are_those_of_the_wire),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
