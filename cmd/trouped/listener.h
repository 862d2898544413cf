/*
 * listener.h - the door for clients: nng REP sockets that take batches of calls apart, hand them to
 * the node, and send one message of answers back for each.
 *
 * Threads:  open, stop and close from one thread. Messages are taken apart on nng's threads and
 *           answered on the thread that finishes their last call.
 * Memory:   a message is kept until its last call is done, because the calls are views of it.
 * Limits:   all below; what is over one is answered BUSY (calls), refused (connections) or cut off
 *           (a message over PR_FRAME_MAX, an answer that the client does not take in time).
 * Blocking: close waits for the calls under way; the node must still answer them or have done so.
 */
#ifndef CMD_TROUPED_LISTENER_H
#define CMD_TROUPED_LISTENER_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "sharding/node.h"

#define TD_URLS_MAX 16u

struct td_listener;

struct td_listener_options {
	const char *const *urls; /* tcp://, ipc://, ws:// */
	size_t url_count;
	struct sh_node *node;
	uint32_t contexts;            /* messages under way in all; 0: 1024 */
	uint32_t connections_max;     /* 0: 1024 */
	uint32_t calls_max;           /* under way in all; 0: 65,536 */
	uint64_t bytes_max;           /* of messages under way in all; 0: 256 MiB */
	uint32_t client_calls_max;    /* under way of one connection; 0: 16,384 */
	uint32_t client_messages_max; /* 0: 256 */
	uint64_t client_bytes_max;    /* 0: 32 MiB */
	uint32_t send_timeout_ms;     /* then the connection is closed; 0: 250 */
	uint32_t default_deadline_ms; /* of a call that names none; 0: 30,000 */
};

/* RT_E_INVAL: a URL that nng does not read. RT_E_IO: address in use, not permitted. RT_E_NOMEM. */
RT_NODISCARD rt_err td_listener_open(const struct td_listener_options *options,
	struct td_listener **out, struct rt_errinfo *info);
/* What a client dials: as given, with the port filled in where it was 0. Valid until close. */
const char *td_listener_url(const struct td_listener *listener, size_t index);

/* No call reaches the node once this has returned: new ones are answered UNAVAILABLE, new
 * connections refused. Calls under way go on. Idempotent. */
void td_listener_stop(struct td_listener *listener);
/* Stops, waits until everything under way is answered and sent, closes and frees. NULL is a no-op.
 */
void td_listener_close(struct td_listener *listener);

struct td_listener_stats {
	uint32_t connections;
	uint32_t messages_under_way;
	uint64_t messages, calls; /* since open */
	uint64_t malformed, busy, refused_connections, send_failures;
};
void td_listener_stats(const struct td_listener *listener, struct td_listener_stats *out);

/* True: only programs on this machine can reach it (loopback address, ipc, inproc). RT_E_INVAL: not
 * a URL, or a transport that is not offered. */
RT_NODISCARD rt_err td_url_check(const char *url, bool *out_loopback, struct rt_errinfo *info);

#endif
