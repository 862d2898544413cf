/*
 * transport.h - frames between the nodes of a cluster, over nng's byte streams.
 *
 * Each node dials every other one, once per lane; a connection carries frames one way only, from
 * who dialled. A connection begins with a handshake that names cluster, node and process on both
 * sides (handshake.h); who does not fit is refused with a text that both sides log.
 *
 * Threads:  everything from any thread; the port's functions run on nng's threads, `receive` never
 *           twice at once for one peer and lane.
 * Order:    FIFO per peer and lane, over one connection. A broken one loses what it held.
 * Memory:   send copies. A received frame is counted (sh_frame_release).
 * Limits:   SH_FRAME_MAX bytes a frame; what waits to be sent, per peer and lane, and what was
 *           received and not released, per connection: beyond that send says full, and receiving
 *           pauses.
 * Blocking: only open and close.
 * Failure:  delivery may fail at any time, silently.
 */
#ifndef SHARDING_TRANSPORT_H
#define SHARDING_TRANSPORT_H

#include <stdatomic.h>

#include "sharding/wire.h"

#define SH_FRAME_MAX (8u * 1024u * 1024u)

struct sh_transport;

/* What a node is called by others, and how it proves it. */
struct sh_identity {
	char cluster[33];       /* 32 hexadecimal digits */
	uint64_t node;          /* from 1 */
	char key[33];           /* of this node's data, as the cluster's table has it */
	uint64_t instance;      /* random, of this process */
	uint64_t incarnation;   /* how often the data was opened by a node */
	const char *rpc, *peer; /* URLs for clients and for nodes; peer NULL: what was bound */
};

/* A received frame. */
struct sh_frame {
	uint64_t from;
	enum sh_lane lane;
	struct rt_bytes bytes;
	_Atomic uint32_t references; /* one to begin with: the receiver's */
};
void sh_frame_hold(struct sh_frame *frame, uint32_t count);
void sh_frame_release(struct sh_frame *frame); /* any thread */

struct sh_transport_port {
	/* The frame is the receiver's now. */
	void (*receive)(void *arg, struct sh_frame *frame);
	/* A node can be reached (its RAFT and CALL lanes stand) or no longer. After `false` nothing
	 * that was sent before will be answered for sure. */
	void (*changed)(void *arg, uint64_t node, bool up);
	/* May a node with this key be a member? Sets peer's URL as it says of itself. false: why
	 * says the reason in words. */
	bool (*known)(void *arg, const struct sh_identity *who, char *why, size_t room);
	/* A peer refused this node: another cluster, an unknown member, a clone that lives. */
	void (*refused)(void *arg, uint64_t node, const char *why);
};

struct sh_transport_options {
	struct sh_identity self;
	const char *listen;   /* nng URL: tcp://127.0.0.1:0, ipc:///path, tls+tcp://... */
	uint32_t silence_ms;  /* a connection that does not answer so long is closed; 0: 2,000 */
	uint64_t queue_bytes; /* per peer and lane; 0: 64 MiB */
	uint64_t unreleased_bytes; /* per connection; 0: 32 MiB */
	const struct sh_transport_port *port;
	void *arg;
};

/* Listens. RT_E_IO names the URL and what is wrong with it. */
RT_NODISCARD rt_err sh_transport_open(const struct sh_transport_options *options,
	struct sh_transport **out, struct rt_errinfo *info);
void sh_transport_close(struct sh_transport *transport); /* NULL is a no-op */
/* What was bound, with the real port. */
const char *sh_transport_url(const struct sh_transport *transport);

/* Dials a node from now on, again after each break (20 ms, doubling, up to 500 ms); another URL
 * than before: anew. NULL: hangs up. */
RT_NODISCARD rt_err sh_transport_peer(
	struct sh_transport *transport, uint64_t node, const char *url);
/* RT_E_CLOSED: not connected. RT_E_FULL: too much waits. In both cases nothing was sent. */
RT_NODISCARD rt_err sh_transport_send(
	struct sh_transport *transport, uint64_t node, enum sh_lane lane, struct rt_bytes frame);
bool sh_transport_up(const struct sh_transport *transport, uint64_t node);

struct sh_transport_stats {
	uint64_t frames_out, bytes_out, frames_in, bytes_in, dropped, connects, refused;
};
void sh_transport_stats(const struct sh_transport *transport, struct sh_transport_stats *out);

#endif
