#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/trouped/listener.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "proto/wire.h"
#include "tests/support/test.h"
#include "tests/unit/cmd/trouped/fake_node.h"

#define PATIENCE_MS 10000

static const char *const any_port[] = {"tcp://127.0.0.1:0"};

struct house {
	struct sh_node *node;
	struct td_listener *listener;
};

static struct house house_open(struct td_listener_options options)
{
	struct house house = {.node = fake_node_new()};
	options.urls = any_port;
	options.url_count = 1;
	options.node = house.node;
	struct rt_errinfo info = {0};
	assert_err(td_listener_open(&options, &house.listener, &info), RT_OK);
	return house;
}

static void house_close(struct house *house)
{
	td_listener_stop(house->listener);
	fake_node_free(house->node);
	td_listener_close(house->listener);
}

static nng_socket dial(const struct house *house)
{
	nng_socket socket;
	assert_int_equal(nng_req0_open(&socket), 0);
	nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, PATIENCE_MS);
	nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, PATIENCE_MS);
	nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
	nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
	assert_int_equal(nng_dial(socket, td_listener_url(house->listener, 0), NULL, 0), 0);
	return socket;
}

static void send_bytes(nng_socket socket, const void *data, size_t size)
{
	nng_msg *message = NULL;
	assert_int_equal(nng_msg_alloc(&message, size), 0);
	if (size > 0) {
		memcpy(nng_msg_body(message), data, size);
	}
	assert_int_equal(nng_sendmsg(socket, message, 0), 0);
}

/* count calls with ids 100, 101, ... and the given payload. */
static void send_calls(nng_socket socket, uint32_t count, uint32_t kind, struct rt_bytes payload)
{
	size_t size = 0;
	struct pr_call call = {.type = rt_bytes_str("account"),
		.id = rt_bytes_str("x"),
		.name = rt_bytes_str("Deposit"),
		.kind = kind,
		.payload = payload};
	for (uint32_t i = 0; i < count; i++) {
		call.call_id = 100 + i;
		size += pr_call_size(&call);
	}
	uint8_t *bytes = malloc(size + 1);
	assert_non_null(bytes);
	uint8_t *at = bytes;
	for (uint32_t i = 0; i < count; i++) {
		call.call_id = 100 + i;
		at = pr_call_put(at, &call);
	}
	assert_true(at == bytes + size);
	send_bytes(socket, bytes, size);
	free(bytes);
}

/* Asserts that there are count answers with ids 100, 101, ... and this code. */
static void check_answers(nng_msg *message, uint32_t count, uint32_t code)
{
	struct rt_bytes cursor = rt_bytes_of(nng_msg_body(message), nng_msg_len(message));
	struct pr_answer answer;
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(pr_answers_next(&cursor, &answer), 1);
		assert_int_equal(answer.call_id, 100 + i);
		assert_int_equal(answer.code, code);
	}
	assert_int_equal(pr_answers_next(&cursor, &answer), 0);
}

static nng_msg *expect_answers(nng_socket socket, uint32_t count, uint32_t code)
{
	nng_msg *message = NULL;
	assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
	check_answers(message, count, code);
	return message;
}

static struct pr_answer first_of(nng_msg *message)
{
	struct rt_bytes cursor = rt_bytes_of(nng_msg_body(message), nng_msg_len(message));
	struct pr_answer answer;
	assert_int_equal(pr_answers_next(&cursor, &answer), 1);
	return answer;
}

static void answers_every_call_of_a_message_in_its_order(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	nng_socket socket = dial(&house);
	uint32_t counts[] = {1, 2, 15, 16, 17, 128, 1000};
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		send_calls(socket, counts[i], TROUPE__KIND__KIND_COMMAND, rt_bytes_str("abc"));
		nng_msg *message = expect_answers(socket, counts[i], TROUPE__CODE__CODE_OK);
		struct pr_answer answer = first_of(message);
		assert_true(rt_bytes_equal(answer.payload, rt_bytes_str("abc")));
		assert_int_equal(answer.seq, 7);
		nng_msg_free(message);
	}
	nng_close(socket);
	house_close(&house);
}

static void answers_a_ping_while_the_node_hangs(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	fake_node_hold(house.node, true);
	nng_socket waiting = dial(&house), socket = dial(&house);
	send_calls(waiting, 3, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
	fake_node_wait_seen(house.node, 3);
	send_calls(socket, 1, TROUPE__KIND__KIND_PING, (struct rt_bytes){0});
	nng_msg_free(expect_answers(socket, 1, TROUPE__CODE__CODE_OK));
	fake_node_hold(house.node, false);
	nng_msg_free(expect_answers(waiting, 3, TROUPE__CODE__CODE_OK));
	nng_close(socket);
	nng_close(waiting);
	house_close(&house);
}

static void adds_its_numbers_to_the_status_and_refuses_unknown_kinds(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	nng_socket socket = dial(&house);
	send_calls(socket, 1, TROUPE__KIND__KIND_STATUS, (struct rt_bytes){0});
	nng_msg *message = expect_answers(socket, 1, TROUPE__CODE__CODE_OK);
	struct pr_answer answer = first_of(message);
	const char *expected = "{\"fake\":true,\"rpc\":{\"connections\":1,";
	assert_memory_equal(answer.payload.data, expected, strlen(expected));
	nng_msg_free(message);
	send_calls(socket, 2, 99, (struct rt_bytes){0});
	nng_msg_free(expect_answers(socket, 2, TROUPE__CODE__CODE_BAD_REQUEST));
	nng_close(socket);
	house_close(&house);
}

static void answers_a_malformed_message_once_and_goes_on(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){.contexts = 2});
	nng_socket socket = dial(&house);
	for (int i = 0; i < 10; i++) {
		send_bytes(socket, "\x0a\x7f\x01", 3);
		nng_msg *message = NULL;
		assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
		struct pr_answer answer = first_of(message);
		assert_int_equal(answer.call_id, 0);
		assert_int_equal(answer.code, TROUPE__CODE__CODE_BAD_REQUEST);
		assert_true(answer.error.size > 0);
		nng_msg_free(message);
	}
	send_bytes(socket, "", 0);
	nng_msg_free(expect_answers(socket, 0, 0));
	send_calls(socket, 5, TROUPE__KIND__KIND_QUERY, (struct rt_bytes){0});
	nng_msg_free(expect_answers(socket, 5, TROUPE__CODE__CODE_OK));
	nng_close(socket);
	house_close(&house);
}

static void refuses_a_message_of_too_many_calls(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	nng_socket socket = dial(&house);
	uint8_t bytes[2 * (PR_CALLS_MAX + 1)];
	for (size_t i = 0; i < sizeof(bytes); i += 2) {
		bytes[i] = 0x0a; /* an empty call */
		bytes[i + 1] = 0;
	}
	send_bytes(socket, bytes, sizeof(bytes));
	nng_msg *message = NULL;
	assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
	assert_int_equal(first_of(message).code, TROUPE__CODE__CODE_TOO_LARGE);
	nng_msg_free(message);
	nng_close(socket);
	house_close(&house);
}

static void says_busy_over_the_limits_and_takes_all_of_it_back(void **state)
{
	(void)state;
	struct house house =
		house_open((struct td_listener_options){.client_calls_max = 10, .calls_max = 64});
	nng_socket socket = dial(&house);
	for (int round = 0; round < 20; round++) {
		send_calls(socket, 11, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
		nng_msg *message = expect_answers(socket, 11, TROUPE__CODE__CODE_BUSY);
		assert_int_equal(first_of(message).retry_after_ms, 20);
		nng_msg_free(message);
		send_calls(socket, 65, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
		nng_msg_free(expect_answers(socket, 65, TROUPE__CODE__CODE_BUSY));
		send_calls(socket, 10, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
		nng_msg_free(expect_answers(socket, 10, TROUPE__CODE__CODE_OK));
	}
	nng_close(socket);
	house_close(&house);
}

static void keeps_contexts_free_of_long_polls(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){.contexts = 4});
	fake_node_hold(house.node, true);
	nng_socket pollers[4];
	for (int i = 0; i < 3; i++) {
		pollers[i] = dial(&house);
		send_calls(pollers[i], 1, TROUPE__KIND__KIND_FEED, (struct rt_bytes){0});
	}
	fake_node_wait_seen(house.node, 3);
	pollers[3] = dial(&house);
	send_calls(pollers[3], 1, TROUPE__KIND__KIND_EVENTS, (struct rt_bytes){0});
	nng_msg_free(expect_answers(pollers[3], 1, TROUPE__CODE__CODE_BUSY));
	fake_node_hold(house.node, false);
	for (int i = 0; i < 3; i++) {
		nng_msg_free(expect_answers(pollers[i], 1, TROUPE__CODE__CODE_OK));
	}
	send_calls(pollers[3], 1, TROUPE__KIND__KIND_EVENTS, (struct rt_bytes){0});
	nng_msg_free(expect_answers(pollers[3], 1, TROUPE__CODE__CODE_OK));
	for (int i = 0; i < 4; i++) {
		nng_close(pollers[i]);
	}
	house_close(&house);
}

static void survives_clients_that_leave_before_the_answer(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){.contexts = 4});
	for (uint32_t round = 1; round <= 12; round++) {
		fake_node_hold(house.node, true);
		nng_socket socket = dial(&house);
		send_calls(socket, 5, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
		fake_node_wait_seen(house.node, 5 * round);
		nng_close(socket);
		fake_node_hold(house.node, false);
	}
	nng_socket socket = dial(&house);
	send_calls(socket, 5, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
	nng_msg_free(expect_answers(socket, 5, TROUPE__CODE__CODE_OK));
	nng_close(socket);
	house_close(&house);
}

static void refuses_connections_over_the_limit(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){.connections_max = 2});
	nng_socket first = dial(&house), second = dial(&house);
	send_calls(first, 1, TROUPE__KIND__KIND_PING, (struct rt_bytes){0});
	nng_msg_free(expect_answers(first, 1, TROUPE__CODE__CODE_OK));
	send_calls(second, 1, TROUPE__KIND__KIND_PING, (struct rt_bytes){0});
	nng_msg_free(expect_answers(second, 1, TROUPE__CODE__CODE_OK));
	nng_socket third;
	assert_int_equal(nng_req0_open(&third), 0);
	nng_socket_set_ms(third, NNG_OPT_RECVTIMEO, 200);
	nng_dial(third, td_listener_url(house.listener, 0), NULL, NNG_FLAG_NONBLOCK);
	send_calls(third, 1, TROUPE__KIND__KIND_PING, (struct rt_bytes){0});
	nng_msg *message = NULL;
	assert_int_not_equal(nng_recvmsg(third, &message, 0), 0);
	nng_close(third);
	nng_close(second);
	nng_close(first);
	house_close(&house);
}

static void answers_what_is_under_way_and_nothing_new_after_stop(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	fake_node_hold(house.node, true);
	nng_socket waiting = dial(&house), late = dial(&house);
	send_calls(late, 1, TROUPE__KIND__KIND_PING, (struct rt_bytes){0});
	nng_msg_free(expect_answers(late, 1, TROUPE__CODE__CODE_OK));
	send_calls(waiting, 4, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
	fake_node_wait_seen(house.node, 4);
	/* nng's REQ forgets an answer that is not being waited for when the connection closes. */
	nng_aio *waiter = NULL;
	assert_int_equal(nng_aio_alloc(&waiter, NULL, NULL), 0);
	nng_recv_aio(waiting, waiter);
	td_listener_stop(house.listener);
	send_calls(late, 2, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
	nng_msg_free(expect_answers(late, 2, TROUPE__CODE__CODE_UNAVAILABLE));
	fake_node_free(house.node);
	td_listener_close(house.listener);
	nng_aio_wait(waiter);
	assert_int_equal(nng_aio_result(waiter), 0);
	nng_msg *message = nng_aio_get_msg(waiter);
	check_answers(message, 4, TROUPE__CODE__CODE_OK);
	nng_msg_free(message);
	nng_aio_free(waiter);
	nng_close(late);
	nng_close(waiting);
}

/* ---- closing under load ---- */

struct hammer {
	pthread_t thread;
	char url[64];
	uint32_t answered;
};

/* Until it is refused or cut off. Only the main thread asserts. */
static void *hammer_on(void *arg)
{
	struct hammer *hammer = arg;
	nng_socket socket;
	nng_req0_open(&socket);
	/* One that was cut off between two messages has nobody to send to. */
	nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, PATIENCE_MS);
	nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, PATIENCE_MS);
	nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
	nng_dial(socket, hammer->url, NULL, 0);
	uint8_t bytes[400];
	for (bool go_on = true; go_on;) {
		uint8_t *at = bytes;
		nng_msg *message = NULL;
		for (uint64_t i = 0; i < 20; i++) {
			struct pr_call call = {.call_id = i};
			at = pr_call_put(at, &call);
		}
		struct pr_answer answer = {.code = TROUPE__CODE__CODE_INTERNAL};
		go_on = nng_send(socket, bytes, (size_t)(at - bytes), 0) == 0 &&
			nng_recvmsg(socket, &message, 0) == 0;
		if (go_on) {
			struct rt_bytes cursor =
				rt_bytes_of(nng_msg_body(message), nng_msg_len(message));
			(void)pr_answers_next(&cursor, &answer);
			go_on = answer.code == TROUPE__CODE__CODE_OK;
		}
		nng_msg_free(message);
		hammer->answered += go_on ? 1 : 0;
	}
	nng_close(socket);
	return NULL;
}

static void closes_under_load(void **state)
{
	(void)state;
	enum {
		HAMMERS = 6,
		ROUNDS = 5
	};
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct house house = house_open((struct td_listener_options){.contexts = 8});
		struct hammer hammers[HAMMERS] = {0};
		for (int i = 0; i < HAMMERS; i++) {
			strcpy(hammers[i].url, td_listener_url(house.listener, 0));
			pthread_create(&hammers[i].thread, NULL, hammer_on, &hammers[i]);
		}
		fake_node_wait_seen(house.node, 20 * HAMMERS * 20);
		house_close(&house);
		uint32_t answered = 0;
		for (int i = 0; i < HAMMERS; i++) {
			pthread_join(hammers[i].thread, NULL);
			answered += hammers[i].answered;
		}
		assert_true(answered > 0);
	}
}

/* ---- a client that never reads, by hand ---- */

static int sp_connect(const struct house *house)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const char *port = strrchr(td_listener_url(house->listener, 0), ':');
	to.sin_port = htons((uint16_t)strtol(port + 1, NULL, 10));
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	int small = 4096;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
	uint8_t theirs[8];
	assert_int_equal(send(fd, hello, 8, MSG_NOSIGNAL), 8);
	assert_int_equal(recv(fd, theirs, 8, MSG_WAITALL), 8);
	return fd;
}

/* True: the other side has closed. */
static bool sp_send_until_closed(int fd, const uint8_t *frame, size_t size)
{
	struct timeval patience = {.tv_sec = 10};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	for (int i = 0; i < 1000; i++) {
		if (send(fd, frame, size, MSG_NOSIGNAL) < 0) {
			return true;
		}
	}
	return false;
}

static void cuts_off_a_client_that_never_reads(void **state)
{
	(void)state;
	struct house house =
		house_open((struct td_listener_options){.contexts = 4, .send_timeout_ms = 50});
	nng_socket socket = dial(&house);
	int fd = sp_connect(&house);
	enum {
		PAYLOAD = 250 * 1024
	};
	uint8_t *payload = calloc(1, PAYLOAD), *frame = malloc(PAYLOAD + 200);
	assert_non_null(payload);
	assert_non_null(frame);
	struct pr_call call = {.call_id = 1, .payload = rt_bytes_of(payload, PAYLOAD)};
	size_t size = pr_call_size(&call) + 4;
	memset(frame, 0, 8);
	for (int i = 0; i < 8; i++) {
		frame[i] = (uint8_t)(size >> (56 - 8 * i));
	}
	memcpy(frame + 8, "\x80\0\0\1", 4);
	pr_call_put(frame + 12, &call);
	assert_true(sp_send_until_closed(fd, frame, size + 8));
	send_calls(socket, 3, TROUPE__KIND__KIND_COMMAND, (struct rt_bytes){0});
	nng_msg_free(expect_answers(socket, 3, TROUPE__CODE__CODE_OK));
	struct td_listener_stats stats;
	td_listener_stats(house.listener, &stats);
	assert_true(stats.send_failures >= 1);
	close(fd);
	free(payload);
	free(frame);
	nng_close(socket);
	house_close(&house);
}

static void cuts_off_a_message_over_the_frame_limit(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	int fd = sp_connect(&house);
	static const uint8_t huge[8] = {0, 0, 0, 2, 0, 0, 0, 0}; /* 8 GiB */
	assert_int_equal(send(fd, huge, 8, MSG_NOSIGNAL), 8);
	uint8_t byte;
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
	house_close(&house);
}

static void tells_loopback_from_the_rest(void **state)
{
	(void)state;
	static const char *const near[] = {"tcp://127.0.0.1:7470", "tcp://localhost:1",
		"tcp://[::1]:5", "ipc:///tmp/x", "ws://127.0.0.1:80/x", "tcp://127.9.9.9:1"};
	static const char *const far[] = {"tcp://0.0.0.0:7470", "tcp://*:7470", "tcp://:7470",
		"tcp://192.168.1.1:7470", "tcp://127.evil.example:1", "ws://*:80/", "tcp://[::]:5"};
	static const char *const bad[] = {
		"", "7470", "127.0.0.1:7470", "http://127.0.0.1/", "tls+tcp://127.0.0.1:1"};
	struct rt_errinfo info = {0};
	bool loopback = false;
	for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
		assert_err(td_url_check(near[i], &loopback, &info), RT_OK);
		assert_true(loopback);
	}
	for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
		assert_err(td_url_check(far[i], &loopback, &info), RT_OK);
		assert_false(loopback);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_err(td_url_check(bad[i], &loopback, &info), RT_E_INVAL);
	}
}

static void says_which_address_is_in_use(void **state)
{
	(void)state;
	struct house house = house_open((struct td_listener_options){0});
	const char *url = td_listener_url(house.listener, 0);
	struct td_listener_options options = {.urls = &url, .url_count = 1, .node = house.node};
	struct td_listener *second = NULL;
	struct rt_errinfo info = {0};
	assert_err(td_listener_open(&options, &second, &info), RT_E_IO);
	assert_non_null(strstr(info.text, url));
	assert_null(second);
	house_close(&house);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_every_call_of_a_message_in_its_order),
		cmocka_unit_test(answers_a_ping_while_the_node_hangs),
		cmocka_unit_test(adds_its_numbers_to_the_status_and_refuses_unknown_kinds),
		cmocka_unit_test(answers_a_malformed_message_once_and_goes_on),
		cmocka_unit_test(refuses_a_message_of_too_many_calls),
		cmocka_unit_test(says_busy_over_the_limits_and_takes_all_of_it_back),
		cmocka_unit_test(keeps_contexts_free_of_long_polls),
		cmocka_unit_test(survives_clients_that_leave_before_the_answer),
		cmocka_unit_test(refuses_connections_over_the_limit),
		cmocka_unit_test(answers_what_is_under_way_and_nothing_new_after_stop),
		cmocka_unit_test(closes_under_load),
		cmocka_unit_test(cuts_off_a_client_that_never_reads),
		cmocka_unit_test(cuts_off_a_message_over_the_frame_limit),
		cmocka_unit_test(tells_loopback_from_the_rest),
		cmocka_unit_test(says_which_address_is_in_use),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
