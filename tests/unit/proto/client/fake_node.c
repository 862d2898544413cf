#include "tests/unit/proto/client/fake_node.h"

#include <netinet/in.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/guard.h"
#include "proto/wire.h"

#define NO_ANSWER SIZE_MAX

/* Of all servers, so that a test can wait for any of them. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;

struct server_context {
	struct server *server;
	nng_ctx context;
	nng_aio *aio;
};

static void note_call(struct server *server, const struct pr_call *call)
{
	if (call->kind == TROUPE_PING) {
		return;
	}
	server->calls++;
	server->timeout_ms = call->timeout_ms;
	if (call->command_id.size == 16 && server->seen < SEEN_MAX) {
		memcpy(server->ids[server->seen++], call->command_id.data, 16);
	}
}

static uint8_t *answer_call(
	const struct server *server, const struct pr_call *call, uint32_t code, uint8_t *at)
{
	uint32_t wait_ms = server->mode == GOING ? 60000 : code == TROUPE_BUSY ? 15 : 0;
	struct pr_answer answer = {.call_id = call->call_id,
		.code = code,
		.seq = call->expected,
		.payload = call->payload,
		.retry_after_ms = wait_ms,
		.error = rt_bytes_str(code != 0 ? "the server says no" : "")};
	return pr_answer_put(at, &answer);
}

static bool holds(const struct server *server, const struct pr_call *call)
{
	bool held = server->mode == HOLD ||
		    (server->mode == HOLD_FEEDS && call->kind == TROUPE_FEED) ||
		    (server->mode == HOLD_ALL_BUT_PINGS && call->kind != TROUPE_PING);
	return held && !server->open && !server->stopping;
}

/* Lock held. A ping alone is not counted among the messages. */
static void note_message(struct server *server, struct rt_bytes bytes)
{
	struct pr_call first;
	if (pr_batch_next(&bytes, &first) > 0 && first.kind == TROUPE_PING) {
		server->pings++;
	} else {
		server->messages++;
	}
}

/* Returns the size of the answer; NO_ANSWER: none is given. */
static size_t serve(struct server *server, nng_msg *message, uint8_t *reply)
{
	struct rt_bytes cursor = rt_bytes_of(nng_msg_body(message), nng_msg_len(message));
	struct pr_call call;
	uint8_t *at = reply;
	unsigned count = 0;
	pthread_mutex_lock(&lock);
	note_message(server, cursor);
	unsigned nth = server->messages;
	while (pr_batch_next(&cursor, &call) > 0) {
		note_call(server, &call);
		count++;
		while (holds(server, &call)) {
			server->waiting++;
			pthread_cond_broadcast(&change);
			pthread_cond_wait(&change, &lock);
			server->waiting--;
		}
		bool failing = server->mode == CODE || server->mode == GOING ||
			       (server->mode == ONCE_CODE && nth == 1);
		if (server->mode != HALF || count % 2 == 0) {
			at = answer_call(server, &call, failing ? server->code : 0, at);
		}
	}
	server->biggest = count > server->biggest ? count : server->biggest;
	enum mode mode = server->mode;
	bool mute = mode == SILENT || server->dead;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
	if (mute) {
		return NO_ANSWER;
	}
	if (mode == GARBAGE) {
		memset(reply, 0xff, 32);
		return 32;
	}
	if (mode == REFUSE_ALL) {
		struct pr_answer answer = {
			.code = TROUPE_BAD_REQUEST, .error = rt_bytes_str("no batch")};
		at = pr_answer_put(reply, &answer);
	}
	return (size_t)(at - reply);
}

static bool transfer(nng_aio *aio)
{
	nng_aio_wait(aio);
	return nng_aio_result(aio) == 0;
}

static void *server_thread(void *arg)
{
	struct server_context *own = arg;
	struct server *server = own->server;
	uint8_t *reply = malloc(REPLY_MAX);
	for (;;) {
		nng_ctx_recv(own->context, own->aio);
		if (!transfer(own->aio)) {
			break;
		}
		nng_msg *message = nng_aio_get_msg(own->aio);
		size_t size = serve(server, message, reply);
		nng_msg_free(message);
		if (size == NO_ANSWER) {
			continue;
		}
		nng_msg_alloc(&message, 0);
		nng_msg_append(message, reply, size);
		nng_aio_set_msg(own->aio, message);
		nng_ctx_send(own->context, own->aio);
		if (!transfer(own->aio)) {
			nng_msg_free(message);
		}
	}
	free(reply);
	free(own);
	return NULL;
}

struct server *server_start(enum mode mode, uint32_t code, const char *url)
{
	struct server *server = calloc(1, sizeof(*server));
	server->mode = mode;
	server->code = code;
	assert_int_equal(nng_rep0_open(&server->socket), 0);
	nng_listener listener;
	assert_int_equal(
		nng_listen(server->socket, url != NULL ? url : "tcp://127.0.0.1:0", &listener, 0),
		0);
	int port = 0;
	assert_int_equal(nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port), 0);
	snprintf(server->url, sizeof(server->url), "tcp://127.0.0.1:%d", port);
	for (int i = 0; i < CONTEXTS; i++) {
		struct server_context *own = calloc(1, sizeof(*own));
		own->server = server;
		assert_int_equal(nng_ctx_open(&own->context, server->socket), 0);
		assert_int_equal(nng_aio_alloc(&own->aio, NULL, NULL), 0);
		server->aios[i] = own->aio;
		assert_int_equal(pthread_create(&server->threads[i], NULL, server_thread, own), 0);
	}
	return server;
}

static void stop(struct server *server, bool dead)
{
	pthread_mutex_lock(&lock);
	server->stopping = true;
	server->dead = dead;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
	/* The socket last: nng frees it under a thread that is still inside nng_ctx_recv. */
	for (int i = 0; i < CONTEXTS; i++) {
		nng_aio_stop(server->aios[i]);
		pthread_join(server->threads[i], NULL);
		nng_aio_free(server->aios[i]);
	}
	nng_close(server->socket);
}

void server_kill(struct server *server)
{
	stop(server, true);
}

void server_free(struct server *server)
{
	free(server);
}

void server_stop(struct server *server)
{
	stop(server, false);
	server_free(server);
}

void server_wait_messages(struct server *server, unsigned messages)
{
	pthread_mutex_lock(&lock);
	while (server->messages < messages) {
		pthread_cond_wait(&change, &lock);
	}
	pthread_mutex_unlock(&lock);
}

struct server *server_wait_either(struct server *a, struct server *b)
{
	pthread_mutex_lock(&lock);
	while (a->messages + b->messages == 0) {
		pthread_cond_wait(&change, &lock);
	}
	struct server *first = a->messages > 0 ? a : b;
	pthread_mutex_unlock(&lock);
	return first;
}

void server_wait_pings(struct server *server, unsigned pings)
{
	pthread_mutex_lock(&lock);
	while (server->pings < pings) {
		pthread_cond_wait(&change, &lock);
	}
	pthread_mutex_unlock(&lock);
}

void server_set(struct server *server, enum mode mode)
{
	pthread_mutex_lock(&lock);
	server->mode = mode;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

unsigned server_messages(struct server *server)
{
	pthread_mutex_lock(&lock);
	unsigned messages = server->messages;
	pthread_mutex_unlock(&lock);
	return messages;
}

void server_release(struct server *server)
{
	pthread_mutex_lock(&lock);
	server->open = true;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

/* ---- the client's side --------------------------------------------------------------------- */

void tally_init(struct tally *tally)
{
	memset(tally, 0, sizeof(*tally));
	pthread_mutex_init(&tally->lock, NULL);
	pthread_cond_init(&tally->change, NULL);
}

void count_answer(void *arg, const struct troupe_answer *answer)
{
	struct one *one = arg;
	struct tally *tally = one->tally;
	pthread_mutex_lock(&tally->lock);
	one->answers++;
	tally->done++;
	tally->codes[answer->code & 127]++;
	tally->attempts = answer->attempts;
	snprintf(tally->error, sizeof(tally->error), "%s", answer->error);
	if (answer->code == TROUPE_OK &&
		(answer->payload_size != sizeof(one->number) ||
			memcmp(answer->payload, &one->number, sizeof(one->number)) != 0)) {
		tally->wrong++;
	}
	pthread_cond_broadcast(&tally->change);
	pthread_mutex_unlock(&tally->lock);
}

void tally_wait(struct tally *tally, unsigned done)
{
	pthread_mutex_lock(&tally->lock);
	while (tally->done < done) {
		pthread_cond_wait(&tally->change, &tally->lock);
	}
	pthread_mutex_unlock(&tally->lock);
}

struct troupe_client *client_open(const char *url)
{
	char error[128];
	struct troupe_client_options options = {.url = url, .timeout_ms = 30000};
	struct troupe_client *client = troupe_client_open(&options, error, sizeof(error));
	assert_non_null(client);
	return client;
}

struct troupe_call command(const void *payload, size_t size)
{
	return (struct troupe_call){.kind = TROUPE_COMMAND,
		.type = "account",
		.id = "acc-1",
		.name = "Deposit",
		.payload = payload,
		.payload_size = size,
		.expected = -1};
}

int submit(struct troupe_client *client, struct one *one)
{
	struct troupe_call call = command(&one->number, sizeof(one->number));
	return troupe_client_submit(client, &call, count_answer, one);
}

void submit_many(
	struct troupe_client *client, struct one *ones, struct tally *tally, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		ones[i] = (struct one){.tally = tally, .number = i};
		assert_int_equal(submit(client, &ones[i]), TROUPE_OK);
	}
}

/* A node of few lines that takes one message and goes away without an answer. Returns how many
 * calls it saw and keeps their ids. */
unsigned take_one_message_and_die(int listener, uint8_t ids[][16])
{
	static uint8_t frame[PR_FRAME_MAX];
	int connection = accept(listener, NULL, NULL);
	assert_true(connection >= 0);
	assert_int_equal(send(connection, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL), 8);
	assert_int_equal(recv(connection, frame, 8 + 12, MSG_WAITALL), 8 + 12);
	size_t size = (size_t)frame[14] << 8 | frame[15]; /* with the request id */
	size_t rest = size - 4;
	assert_int_equal(recv(connection, frame, rest, MSG_WAITALL), (ssize_t)rest);
	struct rt_bytes cursor = rt_bytes_of(frame, rest);
	struct pr_call call;
	unsigned calls = 0;
	while (pr_batch_next(&cursor, &call) > 0) {
		memcpy(ids[calls++], call.command_id.data, 16);
	}
	struct linger reset = {.l_onoff = 1};
	setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(connection);
	close(listener);
	return calls;
}

int listen_raw(char *url, size_t size)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	int yes = 1; /* the port is used again at once */
	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)), 0);
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	snprintf(url, size, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
	return listener;
}

void url_of_nobody(char *url, size_t size)
{
	close(listen_raw(url, size));
}
