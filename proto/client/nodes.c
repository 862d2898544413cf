#include "proto/client/nodes.h"

#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWERS_MAX ((size_t)64 * 1024 * 1024) /* one message of a node */

/* Quiet counts twice per tick of 10 ms for a node that owes an ordinary answer, and once for one
 * that owes only reads which may wait for events: a ping goes out after 0.4 or 0.8 s, the node is
 * silent after 1 or 2 s. */
#define QUIET_PING      80u
#define QUIET_SILENT    200u
/* A node that is found silent again within this time gets twice as long, up to eight times. It may
 * be far away or sending an answer that takes long to arrive. */
#define SILENT_AGAIN_MS 60000u
#define DOUBLINGS_MAX   3u
#define DOUBT_TICKS     5u
#define DIAL_TICKS      3u /* what a connection may take before the next node is dialled as well */

/* Longer than an election, so that few calls are sent twice when a leader is lost. */
#define PATIENCE_MS      2000u
#define PATIENCE_DOUBLED 3u

bool pr_node_connected(const struct pr_node *node)
{
	return atomic_load_explicit(&node->pipes, memory_order_relaxed) > 0;
}

static bool usable(const struct pr_node *node)
{
	return pr_node_connected(node) &&
	       (node->nodes->count == 1 || (!node->silent && node->doubt_ticks == 0));
}

/* ---- which one ----------------------------------------------------------------------------- */

/* False: all of them are dialled, and nothing new is to be expected. */
static bool dial_next(struct pr_nodes *nodes, struct pr_errands *errands)
{
	for (uint32_t i = 0; i < nodes->count && nodes->dial_ticks == 0; i++) {
		struct pr_node *node = &nodes->all[(nodes->current + i) % nodes->count];
		if (!node->dialled) {
			node->dialled = true;
			nodes->dial_ticks = DIAL_TICKS;
			errands->dial = node;
		}
	}
	return nodes->dial_ticks > 0;
}

struct pr_node *pr_nodes_pick(struct pr_nodes *nodes, struct pr_errands *errands)
{
	for (uint32_t i = 0; i < nodes->count; i++) {
		struct pr_node *node = &nodes->all[(nodes->current + i) % nodes->count];
		if (usable(node)) {
			nodes->current = node->index;
			nodes->dial_ticks =
				0; /* when this one breaks, the next is dialled at once */
			return node;
		}
	}
	(void)dial_next(nodes, errands);
	return NULL;
}

void pr_nodes_leave(struct pr_nodes *nodes, struct pr_node *node, struct pr_errands *errands)
{
	if (node->index != nodes->current) {
		return; /* another message's fate has moved the client on already */
	}
	for (uint32_t i = 1; i < nodes->count; i++) {
		struct pr_node *other = &nodes->all[(nodes->current + i) % nodes->count];
		if (usable(other)) {
			nodes->current = other->index;
			return;
		}
	}
	if (dial_next(nodes, errands)) {
		node->doubt_ticks = DOUBT_TICKS; /* so that the new one is asked first */
	}
}

uint32_t pr_nodes_patience_ms(const struct pr_nodes *nodes, uint32_t tries)
{
	uint32_t doublings = tries < PATIENCE_DOUBLED ? tries : PATIENCE_DOUBLED;
	return nodes->count == 1 ? UINT32_MAX : PATIENCE_MS << doublings;
}

void pr_node_owes(struct pr_node *node, bool soon)
{
	node->owes++;
	node->owes_soon += soon;
}

void pr_node_settled(struct pr_node *node, bool soon)
{
	node->owes--;
	node->owes_soon -= soon;
}

void pr_node_heard(struct pr_node *node)
{
	node->quiet = 0;
	node->silent = false;
}

void pr_node_broke(struct pr_node *node)
{
	node->doubt_ticks = DOUBT_TICKS;
}

/* ---- silence ------------------------------------------------------------------------------- */

static void ask(struct pr_node *node, struct pr_errands *errands)
{
	if (node->ping == PR_PING_IDLE && pr_node_connected(node)) {
		node->ping = PR_PING_SENDING;
		node->errand = errands->ping;
		errands->ping = node;
	}
}

static void judge(struct pr_node *node, uint64_t now_ms, struct pr_errands *errands)
{
	bool again = node->silent_at_ms != 0 && now_ms - node->silent_at_ms < SILENT_AGAIN_MS;
	if (node->silent || node->quiet >= QUIET_PING) {
		ask(node, errands);
	}
	if (!node->silent && node->quiet >= QUIET_SILENT << (again ? node->doublings : 0)) {
		node->silent = true;
		node->silent_at_ms = now_ms;
		node->doublings = !again                            ? 1
				  : node->doublings < DOUBLINGS_MAX ? node->doublings + 1
								    : DOUBLINGS_MAX;
	}
}

void pr_nodes_tick(struct pr_nodes *nodes, uint64_t now_ms, struct pr_errands *errands)
{
	nodes->dial_ticks -= nodes->dial_ticks > 0;
	if (nodes->count == 1) {
		return;
	}
	for (uint32_t i = 0; i < nodes->count; i++) {
		struct pr_node *node = &nodes->all[i];
		node->doubt_ticks -= node->doubt_ticks > 0;
		if (!pr_node_connected(node)) {
			pr_node_heard(node); /* a new connection is a proof of life */
			continue;
		}
		node->quiet = node->owes == 0 ? 0 : node->quiet + 1 + (node->owes_soon > 0);
		judge(node, now_ms, errands);
	}
}

/* Any answer will do, also one that says no. */
static void ping_done(void *arg)
{
	struct pr_node *node = arg;
	struct pr_nodes *nodes = node->nodes;
	int result = nng_aio_result(node->ping_aio);
	pthread_mutex_lock(nodes->lock);
	bool sent = node->ping == PR_PING_SENDING;
	bool answered = result == 0 && !sent;
	node->ping = result == 0 && sent ? PR_PING_RECEIVING : PR_PING_IDLE;
	if (answered) {
		pr_node_heard(node);
	}
	pthread_mutex_unlock(nodes->lock);
	if (answered || (result != 0 && sent)) {
		nng_msg_free(nng_aio_get_msg(node->ping_aio));
	}
	if (answered) {
		nodes->wake(nodes->arg);
	} else if (result == 0) {
		nng_ctx_recv(node->ping_context, node->ping_aio);
	}
}

static void send_ping(struct pr_node *node)
{
	static const uint8_t ping[] = {0x0a, 4, 0x08, 1, 0x40, 7}; /* one call: id 1, kind PING */
	nng_msg *message;
	if (nng_msg_alloc(&message, sizeof(ping)) != 0) {
		pthread_mutex_lock(node->nodes->lock);
		node->ping = PR_PING_IDLE;
		pthread_mutex_unlock(node->nodes->lock);
		return;
	}
	memcpy(nng_msg_body(message), ping, sizeof(ping));
	nng_aio_set_msg(node->ping_aio, message);
	nng_ctx_send(node->ping_context, node->ping_aio);
}

void pr_errands_run(struct pr_errands *errands)
{
	if (errands->dial != NULL) {
		(void)nng_dialer_start(errands->dial->dialer, NNG_FLAG_NONBLOCK);
	}
	while (errands->ping != NULL) {
		struct pr_node *node = errands->ping;
		errands->ping = node->errand; /* before the send: its callback may use it again */
		send_ping(node);
	}
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Runs inside nng: takes no lock. */
static void pipe_changed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct pr_node *node = arg;
	(void)pipe;
	if (event == NNG_PIPE_EV_REM_POST) {
		atomic_fetch_sub(&node->pipes, 1);
	} else {
		atomic_fetch_add(&node->pipes, 1);
	}
	if (event == NNG_PIPE_EV_ADD_POST || node->nodes->count > 1) {
		node->nodes->wake(node->nodes->arg);
	}
}

static int open_node(struct pr_node *node, const char *url)
{
	int result = nng_req0_open(&node->socket);
	if (result != 0) {
		return result;
	}
	node->opened = true;
	nng_socket socket = node->socket;
	if ((result = nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, -1)) != 0 ||
		(result = nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, 20)) != 0 ||
		(result = nng_socket_set_ms(socket, NNG_OPT_RECONNMAXT, 500)) != 0 ||
		(result = nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, ANSWERS_MAX)) != 0 ||
		(result = nng_pipe_notify(socket, NNG_PIPE_EV_ADD_POST, pipe_changed, node)) != 0 ||
		(result = nng_pipe_notify(socket, NNG_PIPE_EV_REM_POST, pipe_changed, node)) != 0 ||
		(result = nng_ctx_open(&node->ping_context, socket)) != 0 ||
		(result = nng_aio_alloc(&node->ping_aio, ping_done, node)) != 0 ||
		(result = nng_dialer_create(&node->dialer, socket, url)) != 0) {
		return result;
	}
	(void)nng_dialer_set_bool(node->dialer, NNG_OPT_TCP_KEEPALIVE, true); /* tcp only */
	return 0;
}

static bool open_all(struct pr_nodes *nodes, char *urls, char *why, size_t why_size)
{
	while (urls != NULL) {
		const char *url = strsep(&urls, ",");
		int result = 0;
		if (*url == '\0' || nodes->count == PR_NODES_MAX) {
			snprintf(why, why_size, *url == '\0' ? "an empty URL" : "more than %u URLs",
				PR_NODES_MAX);
			return false;
		}
		struct pr_node *node = &nodes->all[nodes->count];
		node->nodes = nodes;
		node->index = nodes->count++;
		if ((result = open_node(node, url)) != 0) {
			snprintf(why, why_size, "%s: %s", url, nng_strerror(result));
			return false;
		}
	}
	return true;
}

bool pr_nodes_open(
	struct pr_nodes *nodes, const char *urls, uint64_t random, char *why, size_t why_size)
{
	char *copy = strdup(urls);
	if (copy == NULL) {
		snprintf(why, why_size, "out of memory");
		return false;
	}
	bool opened = open_all(nodes, copy, why, why_size);
	free(copy);
	if (opened) {
		nodes->current = (uint32_t)(random % nodes->count);
		struct pr_errands errands = {0};
		(void)dial_next(nodes, &errands);
		pr_errands_run(&errands);
	}
	return opened;
}

void pr_nodes_stop(struct pr_nodes *nodes)
{
	for (uint32_t i = 0; i < nodes->count; i++) {
		if (nodes->all[i].ping_aio != NULL) {
			nng_aio_stop(nodes->all[i].ping_aio);
			nng_aio_free(nodes->all[i].ping_aio);
		}
	}
}

void pr_nodes_close(struct pr_nodes *nodes)
{
	for (uint32_t i = 0; i < nodes->count; i++) {
		if (nodes->all[i].opened) {
			nng_close(nodes->all[i].socket);
		}
	}
}
