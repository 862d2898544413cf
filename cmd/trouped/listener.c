#include "cmd/trouped/listener.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/trouped/callpool.h"
#include "cmd/trouped/connection.h"
#include "cmd/trouped/peers.h"
#include "proto/guard.h"
#include "proto/json.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define FRAME_SLACK     64u /* SP header in front of a message */
#define BUSY_RETRY_MS   20u
#define LINGER_MS       20
#define CLOSE_WITHIN_S  1
#define ANSWERS_MAX     (32u * 1024u * 1024u) /* of one message */
#define DEADLINE_MAX_MS (10u * 60u * 1000u)

/* What a door does. Each edge is taken by exactly one thread:
 *
 *   RECEIVING --message--> WORKING --last call done--> SENDING --sent or failed--> RECEIVING
 *       |                                                 |
 *       +------------------ socket closed ----------------+--> SHUT
 */
enum door_state {
	RECEIVING,
	WORKING,
	SENDING,
	SHUT
};

/* One nng context: one message at a time. */
struct door {
	struct td_listener *listener;
	nng_ctx ctx;
	nng_aio *aio;
	enum door_state state;

	/* While WORKING. */
	nng_msg *request;
	nng_pipe pipe;
	struct td_peer *peer; /* NULL: connection gone */
	struct td_block *blocks, *last;
	uint32_t count; /* calls */
	bool polls;     /* counted in listener.polls */

	_Alignas(RT_CACHELINE) _Atomic uint32_t remaining;
};

struct td_listener {
	struct td_listener_options options;
	nng_socket socket;
	bool open;    /* the socket */
	sem_t closed; /* the socket, at the end */
	struct td_callpool *pool;
	struct td_peers *peers;
	struct door *doors;
	uint32_t door_count;
	char *urls[TD_URLS_MAX];

	_Alignas(RT_CACHELINE) _Atomic bool stopping;
	_Atomic uint32_t submitting; /* threads between looking at stopping and leaving the node */
	_Atomic uint32_t active;     /* doors that are not RECEIVING */
	_Atomic uint32_t polls;      /* doors that may wait long for events */
	_Atomic uint64_t bytes;      /* of messages under way */
	_Atomic uint64_t messages, calls, malformed, busy, refused, send_failures;
};

static void receive(struct door *door)
{
	door->state = RECEIVING;
	nng_aio_set_timeout(door->aio, NNG_DURATION_INFINITE);
	nng_ctx_recv(door->ctx, door->aio);
}

/* Gives up everything the message held except the context. */
static void release(struct door *door)
{
	struct td_listener *listener = door->listener;
	size_t size = nng_msg_len(door->request);
	if (door->peer != NULL) {
		td_peer_give(door->peer, door->count, size);
		door->peer = NULL;
	}
	atomic_fetch_sub_explicit(&listener->bytes, size, memory_order_relaxed);
	if (door->polls) {
		door->polls = false;
		atomic_fetch_sub_explicit(&listener->polls, 1, memory_order_relaxed);
	}
	nng_msg_free(door->request);
	door->request = NULL;
	td_callpool_give(listener->pool, door->blocks);
	door->blocks = NULL;
	door->last = NULL;
	door->count = 0;
}

/* The count falls last: until then close waits and the door is there. */
static void again(struct door *door)
{
	struct td_listener *listener = door->listener;
	receive(door);
	atomic_fetch_sub(&listener->active, 1);
}

static bool is_cut(const struct td_peer *peer)
{
	return peer != NULL && atomic_load_explicit(&peer->cut, memory_order_relaxed);
}

/* Disconnects a client. Until nng has noticed, what comes from it is dropped. */
static void cut_off(struct door *door)
{
	struct td_peer *peer =
		td_peers_find(door->listener->peers, (uint32_t)nng_pipe_id(door->pipe));
	if (peer == NULL || atomic_exchange(&peer->cut, true)) {
		return;
	}
	uint64_t key = atomic_load(&peer->key);
	if (key == 0) {
		nng_pipe_close(door->pipe);
	} else {
		/* False: the client has left, and nng will notice. */
		(void)td_connection_sever(key);
	}
}

/* Many clients that do not read must not take the last doors from those that do. */
static nng_duration patience_ms(struct td_listener *listener)
{
	uint32_t scarce = listener->door_count - listener->door_count / 4;
	nng_duration whole = (nng_duration)listener->options.send_timeout_ms;
	return atomic_load_explicit(&listener->active, memory_order_relaxed) < scarce
		       ? whole
		       : whole / 8 + 1;
}

/* Sends the answers; without any (no memory for them) the client is cut off, so that it repeats. */
static void answer(struct door *door, nng_msg *reply)
{
	bool cut = is_cut(door->peer);
	release(door);
	if (reply == NULL) {
		cut_off(door);
	}
	if (reply == NULL || cut) {
		nng_msg_free(reply);
		again(door);
		return;
	}
	door->state = SENDING;
	nng_aio_set_timeout(door->aio, patience_ms(door->listener));
	nng_aio_set_msg(door->aio, reply);
	nng_ctx_send(door->ctx, door->aio);
}

static nng_msg *message_of(size_t size)
{
	nng_msg *message = NULL;
	return nng_msg_alloc(&message, size) == 0 ? message : NULL;
}

/* A walk over the calls of a door in their order. */
struct walk {
	struct td_block *block;
	uint32_t left, at;
};

static struct walk walk_of(const struct door *door)
{
	return (struct walk){.block = door->blocks, .left = door->count};
}

static struct ac_call *next_of(struct walk *walk)
{
	if (walk->left == 0) {
		return NULL;
	}
	if (walk->at == TD_BLOCK_CALLS) {
		walk->block = walk->block->next;
		walk->at = 0;
	}
	walk->left--;
	return &walk->block->calls[walk->at++];
}

/* All calls are done: one message with their answers, in the order of the calls. */
static void finish(struct door *door)
{
	size_t size = 0;
	struct ac_call *call;
	for (struct walk walk = walk_of(door); (call = next_of(&walk)) != NULL;) {
		size_t one = pr_answer_size(&call->out);
		if (size > 0 && size + one > ANSWERS_MAX &&
			call->in.kind != TROUPE__KIND__KIND_COMMAND) {
			/* Reads can be asked for again, one message each. */
			ac_call_clear(call);
			call->out = (struct pr_answer){.call_id = call->in.call_id,
				.code = TROUPE__CODE__CODE_TOO_LARGE,
				.error = rt_bytes_str("answers of one message exceed 32 MiB; "
						      "ask for less at a time")};
			one = pr_answer_size(&call->out);
		}
		size += one;
	}
	nng_msg *reply = message_of(size);
	uint8_t *at = reply != NULL ? nng_msg_body(reply) : NULL;
	for (struct walk walk = walk_of(door); (call = next_of(&walk)) != NULL;) {
		if (at != NULL) {
			at = pr_answer_put(at, &call->out);
		}
		ac_call_clear(call);
	}
	RT_ASSERT(reply == NULL || at == (uint8_t *)nng_msg_body(reply) + size);
	answer(door, reply);
}

/* Release: the answer is written before the count falls; acquire: the last one sees all answers. */
static void drop(struct door *door, uint32_t count)
{
	if (atomic_fetch_sub_explicit(&door->remaining, count, memory_order_acq_rel) == count) {
		finish(door);
	}
}

static void call_done(struct ac_call *call)
{
	drop(call->owner, 1);
}

/* One answer to a message that cannot be taken apart. */
static void refuse_message(struct door *door, uint32_t code, const char *text)
{
	struct pr_answer one = {.code = code, .error = rt_bytes_str(text)};
	nng_msg *reply = message_of(pr_answer_size(&one));
	if (reply != NULL) {
		pr_answer_put(nng_msg_body(reply), &one);
	}
	atomic_fetch_add_explicit(&door->listener->malformed, 1, memory_order_relaxed);
	answer(door, reply);
}

/* The same answer to every call of a message, without taking room for calls. */
static void refuse_calls(struct door *door, const struct pr_answer *with)
{
	struct rt_bytes body = rt_bytes_of(nng_msg_body(door->request), nng_msg_len(door->request));
	struct pr_answer one = *with;
	struct pr_call call;
	size_t size = 0;
	for (struct rt_bytes cursor = body; pr_batch_next(&cursor, &call) == 1;) {
		one.call_id = call.call_id;
		size += pr_answer_size(&one);
	}
	nng_msg *reply = message_of(size);
	if (reply != NULL) {
		uint8_t *at = nng_msg_body(reply);
		for (struct rt_bytes cursor = body; pr_batch_next(&cursor, &call) == 1;) {
			one.call_id = call.call_id;
			at = pr_answer_put(at, &one);
		}
	}
	atomic_fetch_add_explicit(&door->listener->busy, 1, memory_order_relaxed);
	answer(door, reply);
}

static void refuse_busy(struct door *door, const char *text)
{
	const struct pr_answer busy = {.code = TROUPE__CODE__CODE_BUSY,
		.error = rt_bytes_str(text),
		.retry_after_ms = BUSY_RETRY_MS};
	refuse_calls(door, &busy);
}

/* RT_E_FULL: no room for more calls. */
static rt_err add_call(struct door *door, const struct pr_call *in, uint64_t now_ms)
{
	struct td_listener *listener = door->listener;
	uint32_t place = door->count % TD_BLOCK_CALLS;
	if (place == 0) {
		struct td_block *block = td_callpool_take(listener->pool);
		if (block == NULL) {
			return RT_E_FULL;
		}
		*(door->last == NULL ? &door->blocks : &door->last->next) = block;
		door->last = block;
	}
	struct ac_call *call = &door->last->calls[place];
	uint32_t wait_ms =
		in->timeout_ms == 0 ? listener->options.default_deadline_ms : in->timeout_ms;
	call->next = NULL;
	call->in = *in;
	call->deadline_ms = now_ms + (wait_ms < DEADLINE_MAX_MS ? wait_ms : DEADLINE_MAX_MS);
	call->done = call_done;
	call->owner = door;
	call->slot = door->count++;
	call->out = (struct pr_answer){.call_id = in->call_id};
	return RT_OK;
}

/* RT_E_PROTO, RT_E_TOOLARGE or RT_E_FULL; then info says what of it. */
static rt_err take_apart(struct door *door, struct rt_bytes body, struct rt_errinfo *info)
{
	if (body.size > PR_FRAME_MAX) {
		return rt_errinfo_set(
			info, RT_E_TOOLARGE, "a message holds at most %u bytes", PR_FRAME_MAX);
	}
	rt_err err = pr_guard_check(&troupe__batch__descriptor, body, info);
	if (err != RT_OK) {
		return err;
	}
	uint64_t now_ms = rt_clock_now_ns() / 1000000u;
	struct pr_call in;
	int more = 0;
	while ((more = pr_batch_next(&body, &in)) == 1) {
		if (door->count == PR_CALLS_MAX) {
			return rt_errinfo_set(info, RT_E_TOOLARGE,
				"a message holds at most %u calls", PR_CALLS_MAX);
		}
		err = add_call(door, &in, now_ms);
		if (err != RT_OK) {
			return rt_errinfo_set(
				info, err, "too many calls are under way on this node");
		}
	}
	if (more < 0) {
		return rt_errinfo_set(info, RT_E_PROTO, "calls[%u]: malformed", door->count);
	}
	return RT_OK;
}

/* The node's numbers get the door's beside them. */
static void add_stats(struct td_listener *listener, struct ac_call *call)
{
	struct rt_bytes node = call->out.payload;
	if (node.size < 2 || node.data[node.size - 1] != '}') {
		return;
	}
	struct td_listener_stats stats;
	td_listener_stats(listener, &stats);
	struct pr_text text = {0};
	pr_text_add(&text, (const char *)node.data, node.size - 1);
	pr_text_printf(&text,
		",\"rpc\":{\"connections\":%u,\"messagesUnderWay\":%u,\"messages\":%llu,"
		"\"calls\":%llu,\"malformed\":%llu,\"busy\":%llu,\"refusedConnections\":%llu,"
		"\"sendFailures\":%llu}}",
		stats.connections, stats.messages_under_way, (unsigned long long)stats.messages,
		(unsigned long long)stats.calls, (unsigned long long)stats.malformed,
		(unsigned long long)stats.busy, (unsigned long long)stats.refused_connections,
		(unsigned long long)stats.send_failures);
	if (text.failed) {
		pr_text_clear(&text);
	} else {
		ac_call_payload_take(call, (uint8_t *)text.data, text.size);
	}
}

static void status_done(struct ac_call *call)
{
	struct door *door = call->owner;
	add_stats(door->listener, call);
	drop(door, 1);
}

/* Long polls keep their context for as long as they wait; some are kept for everybody else. */
static bool may_poll(struct door *door)
{
	struct td_listener *listener = door->listener;
	if (door->polls) {
		return true;
	}
	uint32_t limit = listener->door_count - listener->door_count / 4;
	if (atomic_fetch_add_explicit(&listener->polls, 1, memory_order_relaxed) >= limit) {
		atomic_fetch_sub_explicit(&listener->polls, 1, memory_order_relaxed);
		return false;
	}
	door->polls = true;
	return true;
}

/* True: answered here. */
static bool answer_at_door(struct door *door, struct ac_call *call)
{
	switch (call->in.kind) {
	case TROUPE__KIND__KIND_COMMAND:
	case TROUPE__KIND__KIND_QUERY:
	case TROUPE__KIND__KIND_STATE:
	case TROUPE__KIND__KIND_TYPES:
	case TROUPE__KIND__KIND_CLUSTER:
		return false;
	case TROUPE__KIND__KIND_STATUS:
		call->done = status_done;
		return false;
	case TROUPE__KIND__KIND_EVENTS:
	case TROUPE__KIND__KIND_FEED:
		if (may_poll(door)) {
			return false;
		}
		call->out.code = TROUPE__CODE__CODE_BUSY;
		call->out.error = rt_bytes_str("too many readers wait for events");
		call->out.retry_after_ms = 10 * BUSY_RETRY_MS;
		return true;
	case TROUPE__KIND__KIND_PING:
		return true;
	default:
		call->out.code = TROUPE__CODE__CODE_BAD_REQUEST;
		call->out.error = rt_bytes_str("field kind: no such kind of call");
		return true;
	}
}

/* Hands the calls to the node as one chain. The door holds one count of its own until this has
 * returned, because the last answer gives the door away. */
static void submit(struct door *door)
{
	struct ac_call *chain = NULL;
	struct ac_call **tail = &chain;
	uint32_t here = 1;
	atomic_store_explicit(&door->remaining, door->count + 1, memory_order_relaxed);
	struct ac_call *call;
	for (struct walk walk = walk_of(door); (call = next_of(&walk)) != NULL;) {
		if (answer_at_door(door, call)) {
			here++;
		} else {
			*tail = call;
			tail = &call->next;
		}
	}
	if (chain != NULL) {
		sh_node_submit(door->listener->options.node, chain);
	}
	drop(door, here);
}

static bool over_limits(struct door *door, struct td_peer *peer, size_t size)
{
	struct td_listener *listener = door->listener;
	if (peer != NULL) {
		if (!td_peer_take(listener->peers, peer, door->count, size)) {
			return true;
		}
		door->peer = peer;
	}
	return atomic_load_explicit(&listener->bytes, memory_order_relaxed) >
	       listener->options.bytes_max;
}

/* Takes part in the handshake of td_listener_stop: both sides write, then read, in one order. */
static void submit_unless_stopping(struct door *door)
{
	struct td_listener *listener = door->listener;
	atomic_fetch_add(&listener->submitting, 1);
	bool stopping = atomic_load(&listener->stopping);
	if (!stopping) {
		submit(door);
	}
	atomic_fetch_sub(&listener->submitting, 1);
	if (stopping) {
		const struct pr_answer unavailable = {.code = TROUPE__CODE__CODE_UNAVAILABLE,
			.error = rt_bytes_str("the node is shutting down"),
			.retry_after_ms = 10 * BUSY_RETRY_MS};
		refuse_calls(door, &unavailable);
	}
}

static void received(struct door *door)
{
	struct td_listener *listener = door->listener;
	door->state = WORKING;
	door->request = nng_aio_get_msg(door->aio);
	door->pipe = nng_msg_get_pipe(door->request);
	nng_aio_set_msg(door->aio, NULL);
	struct td_peer *peer = td_peers_find(listener->peers, (uint32_t)nng_pipe_id(door->pipe));
	if (is_cut(peer)) {
		nng_msg_free(door->request);
		door->request = NULL;
		receive(door);
		return;
	}
	size_t size = nng_msg_len(door->request);
	atomic_fetch_add(&listener->active, 1);
	atomic_fetch_add_explicit(&listener->bytes, size, memory_order_relaxed);
	atomic_fetch_add_explicit(&listener->messages, 1, memory_order_relaxed);

	struct rt_errinfo info;
	info.text[0] = '\0';
	rt_err err = take_apart(door, rt_bytes_of(nng_msg_body(door->request), size), &info);
	atomic_fetch_add_explicit(&listener->calls, door->count, memory_order_relaxed);
	if (err == RT_E_FULL) {
		refuse_busy(door, info.text);
	} else if (err != RT_OK) {
		refuse_message(door,
			err == RT_E_TOOLARGE ? TROUPE__CODE__CODE_TOO_LARGE
					     : TROUPE__CODE__CODE_BAD_REQUEST,
			info.text);
	} else if (over_limits(door, peer, size)) {
		refuse_busy(door, "too many calls of this connection are under way");
	} else {
		submit_unless_stopping(door);
	}
}

static void sent(struct door *door, int result)
{
	struct td_listener *listener = door->listener;
	if (result != 0) {
		nng_msg_free(nng_aio_get_msg(door->aio));
		nng_aio_set_msg(door->aio, NULL);
		atomic_fetch_add_explicit(&listener->send_failures, 1, memory_order_relaxed);
		if (result == NNG_ETIMEDOUT) {
			/* It does not read: without this it would hold a context for each answer.
			 */
			cut_off(door);
		}
	}
	if (result == NNG_ECLOSED) {
		door->state = SHUT;
		atomic_fetch_sub(&listener->active, 1);
		return;
	}
	again(door);
}

static void on_aio(void *arg)
{
	struct door *door = arg;
	int result = nng_aio_result(door->aio);
	if (door->state == SENDING) {
		sent(door, result);
	} else if (result == 0) {
		received(door);
	} else if (result == NNG_ECLOSED || result == NNG_ECANCELED) {
		door->state = SHUT;
	} else {
		receive(door);
	}
}

/* An nng thread: must not block. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct td_listener *listener = arg;
	uint32_t id = (uint32_t)nng_pipe_id(pipe);
	if (event == NNG_PIPE_EV_REM_POST) {
		td_peers_remove(listener->peers, id);
	} else if (atomic_load(&listener->stopping) ||
		   !td_peers_admit(listener->peers, id, td_connection_key(pipe))) {
		atomic_fetch_add_explicit(&listener->refused, 1, memory_order_relaxed);
		nng_pipe_close(pipe);
	}
}

static void defaults(struct td_listener_options *options)
{
#define OR(field, value) (options->field != 0 ? options->field : (value))
	options->contexts = OR(contexts, 1024);
	options->connections_max = OR(connections_max, 1024);
	options->calls_max = OR(calls_max, 65536);
	options->bytes_max = OR(bytes_max, 256u << 20);
	options->client_calls_max = OR(client_calls_max, 16384);
	options->client_messages_max = OR(client_messages_max, 256);
	options->client_bytes_max = OR(client_bytes_max, 32u << 20);
	options->send_timeout_ms = OR(send_timeout_ms, 250);
	options->default_deadline_ms = OR(default_deadline_ms, 30000);
#undef OR
}

static rt_err open_doors(struct td_listener *listener, struct rt_errinfo *info)
{
	uint32_t count = listener->options.contexts;
	listener->doors = aligned_alloc(RT_CACHELINE, count * sizeof(*listener->doors));
	if (listener->doors == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "no memory for %u contexts", count);
	}
	memset(listener->doors, 0, count * sizeof(*listener->doors));
	for (; listener->door_count < count; listener->door_count++) {
		struct door *door = &listener->doors[listener->door_count];
		door->listener = listener;
		door->state = SHUT;
		int failed = nng_aio_alloc(&door->aio, on_aio, door);
		if (failed == 0) {
			failed = nng_ctx_open(&door->ctx, listener->socket);
		}
		if (failed != 0) {
			nng_aio_free(door->aio);
			return rt_errinfo_set(info, RT_E_NOMEM, "context %u: %s",
				listener->door_count, nng_strerror(failed));
		}
	}
	return RT_OK;
}

/* What clients dial: the port that the system chose in place of 0. */
static char *dialable(nng_listener at, const char *url)
{
	char text[512];
	int port = 0;
	size_t length = strlen(url);
	if (length > 2 && strcmp(url + length - 2, ":0") == 0 &&
		nng_listener_get_int(at, NNG_OPT_TCP_BOUND_PORT, &port) == 0) {
		snprintf(text, sizeof(text), "%.*s:%d", (int)(length - 2), url, port);
		return strdup(text);
	}
	return strdup(url);
}

static rt_err listen_on(struct td_listener *listener, size_t index, struct rt_errinfo *info)
{
	const char *url = listener->options.urls[index];
	nng_listener at;
	int failed = nng_listener_create(&at, listener->socket, url);
	if (failed == 0) {
		/* Only tcp has it; a dead peer would keep its place for ever. */
		(void)nng_listener_set_bool(at, NNG_OPT_TCP_KEEPALIVE, true);
		failed = nng_listener_start(at, 0);
	}
	if (failed != 0) {
		return rt_errinfo_set(info, failed == NNG_EINVAL ? RT_E_INVAL : RT_E_IO,
			"listen on %s: %s", url, nng_strerror(failed));
	}
	listener->urls[index] = dialable(at, url);
	return listener->urls[index] != NULL ? RT_OK : RT_E_NOMEM;
}

static rt_err open_socket(struct td_listener *listener, struct rt_errinfo *info)
{
	int failed = nng_rep0_open(&listener->socket);
	if (failed != 0) {
		return rt_errinfo_set(info, RT_E_NOMEM, "open socket: %s", nng_strerror(failed));
	}
	listener->open = true;
	/* Before listening: nng's default is no limit at all. */
	failed = nng_socket_set_size(
		listener->socket, NNG_OPT_RECVMAXSZ, PR_FRAME_MAX + FRAME_SLACK);
	if (failed == 0) {
		failed = nng_pipe_notify(listener->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, listener);
	}
	if (failed == 0) {
		failed = nng_pipe_notify(listener->socket, NNG_PIPE_EV_REM_POST, on_pipe, listener);
	}
	if (failed != 0) {
		return rt_errinfo_set(info, RT_E_IO, "set up socket: %s", nng_strerror(failed));
	}
	return RT_OK;
}

static rt_err set_up(struct td_listener *listener, struct rt_errinfo *info)
{
	const struct td_listener_options *options = &listener->options;
	const struct td_peer_limits limits = {.connections = options->connections_max,
		.messages = options->client_messages_max,
		.calls = options->client_calls_max,
		.bytes = options->client_bytes_max};
	rt_err err = td_peers_new(&limits, &listener->peers);
	if (err == RT_OK) {
		err = td_callpool_new(options->calls_max, &listener->pool);
	}
	if (err == RT_OK) {
		err = open_socket(listener, info);
	}
	if (err == RT_OK) {
		err = open_doors(listener, info);
	}
	for (uint32_t i = 0; err == RT_OK && i < listener->door_count; i++) {
		receive(&listener->doors[i]);
	}
	for (size_t i = 0; err == RT_OK && i < options->url_count; i++) {
		err = listen_on(listener, i, info);
	}
	return err;
}

rt_err td_listener_open(const struct td_listener_options *options, struct td_listener **out,
	struct rt_errinfo *info)
{
	if (options->url_count == 0 || options->url_count > TD_URLS_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "1 to %u URLs", TD_URLS_MAX);
	}
	struct td_listener *listener = aligned_alloc(RT_CACHELINE, sizeof(*listener));
	if (listener == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "no memory");
	}
	memset(listener, 0, sizeof(*listener));
	listener->options = *options;
	defaults(&listener->options);
	rt_err err = set_up(listener, info);
	if (err != RT_OK) {
		td_listener_close(listener);
		return err;
	}
	*out = listener;
	return RT_OK;
}

const char *td_listener_url(const struct td_listener *listener, size_t index)
{
	return index < TD_URLS_MAX ? listener->urls[index] : NULL;
}

void td_listener_stop(struct td_listener *listener)
{
	/* The nng listeners stay: closing one closes its connections and loses answers. */
	atomic_store(&listener->stopping, true);
	while (atomic_load(&listener->submitting) > 0) {
		nng_msleep(1);
	}
}

static void *close_socket(void *arg)
{
	struct td_listener *listener = arg;
	nng_close(listener->socket);
	sem_post(&listener->closed);
	return NULL;
}

/* False: nng waits for a connection that it lost track of (connection.h). Then its threads may
 * still come back, and everything they know must stay. */
static bool close_in_time(struct td_listener *listener)
{
	pthread_t thread;
	struct timespec until;
	sem_init(&listener->closed, 0, 0);
	if (pthread_create(&thread, NULL, close_socket, listener) != 0) {
		return false;
	}
	timespec_get(&until, TIME_UTC);
	until.tv_sec += CLOSE_WITHIN_S;
	int result;
	while ((result = sem_timedwait(&listener->closed, &until)) != 0 && errno == EINTR) {
	}
	if (result != 0) {
		pthread_detach(thread);
		rt_log(RT_LOG_WARN, "listener",
			"nng does not close its connections; left as they are");
		return false;
	}
	pthread_join(thread, NULL);
	sem_destroy(&listener->closed);
	return true;
}

void td_listener_close(struct td_listener *listener)
{
	if (listener == NULL) {
		return;
	}
	td_listener_stop(listener);
	while (atomic_load(&listener->active) > 0) {
		nng_msleep(1);
	}
	if (listener->open) {
		if (td_peers_count(listener->peers) > 0) {
			/* nng does not linger: a context is done when its answer is with the
			 * connection, and closing throws away what the kernel has not taken. */
			nng_msleep(LINGER_MS);
		}
		if (!close_in_time(listener)) {
			return;
		}
	}
	for (uint32_t i = 0; i < listener->door_count; i++) {
		nng_aio_stop(listener->doors[i].aio); /* waits for its callback */
		nng_aio_free(listener->doors[i].aio);
	}
	free(listener->doors);
	td_callpool_free(listener->pool);
	td_peers_free(listener->peers);
	for (size_t i = 0; i < TD_URLS_MAX; i++) {
		free(listener->urls[i]);
	}
	free(listener);
}

void td_listener_stats(const struct td_listener *listener, struct td_listener_stats *out)
{
	*out = (struct td_listener_stats){
		.connections = td_peers_count(listener->peers),
		.messages_under_way = atomic_load(&listener->active),
		.messages = atomic_load(&listener->messages),
		.calls = atomic_load(&listener->calls),
		.malformed = atomic_load(&listener->malformed),
		.busy = atomic_load(&listener->busy),
		.refused_connections = atomic_load(&listener->refused),
		.send_failures = atomic_load(&listener->send_failures),
	};
}
