/*
 * transport.h - frames between the nodes of a cluster, over nng's byte streams.
 *
 * Each node dials every other one, once per lane; a connection carries frames one way only, from
 * who dialled. A connection begins with a handshake that names cluster, node and process on both
 * sides (handshake.h); who does not fit is refused with a text that both sides log. RAFT is dialled
 * first and watched: a peer that says nothing for silence_ms loses all lanes.
 *
 * Threads:  everything from any thread. `receive` runs on nng's threads, never twice at once for
 *           one peer and lane; the rest of the port on one thread of the transport's own. None of
 *           it may block or close the transport.
 * Order:    FIFO per peer and lane, over one connection. A broken one loses what it held.
 * Memory:   send copies. A received frame is counted (sh_frame_release) and may outlive the
 *           transport.
 * Limits:   SH_FRAME_MAX bytes a frame; what waits to be sent, per peer and lane, and what was
 *           received and not released, per connection: beyond that send says full, and receiving
 *           pauses. One frame always fits. 2,048 nodes, ever.
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
	 * that was sent before will be answered for sure. BULK may come later. */
	void (*changed)(void *arg, uint64_t node, bool up);
	/* May a node with this key be a member? Asked about who dials and about who was dialled;
	 * its URLs are as it says of itself, valid during the call. false: why says the reason in
	 * words. */
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
/* NULL is a no-op. Calls `changed` for who was up; after it returns nothing of the port is called.
 */
void sh_transport_close(struct sh_transport *transport);
/* What was bound, with the real port. */
const char *sh_transport_url(const struct sh_transport *transport);

/* Dials a node from now on, again after each break (20 ms, doubling, up to 500 ms); another URL
 * than before: anew. NULL: hangs up, on what it dialled to us too; it may dial again, and `known`
 * is asked. RT_E_INVAL: this node itself, or a URL over 255 bytes. RT_E_NOMEM: also too many nodes.
 */
RT_NODISCARD rt_err sh_transport_peer(
	struct sh_transport *transport, uint64_t node, const char *url);
/* RT_E_CLOSED: not connected. RT_E_FULL: too much waits. RT_E_INVAL, RT_E_TOOLARGE: an empty or too
 * large frame. In all cases nothing was sent. */
RT_NODISCARD rt_err sh_transport_send(
	struct sh_transport *transport, uint64_t node, enum sh_lane lane, struct rt_bytes frame);
bool sh_transport_up(const struct sh_transport *transport, uint64_t node);

struct sh_transport_stats {
	uint64_t frames_out, bytes_out; /* taken by send */
	uint64_t frames_in, bytes_in;
	uint64_t dropped;  /* frames of frames_out that were still queued when a connection broke */
	uint64_t connects; /* lanes that we dialled and that stood */
	uint64_t refused;  /* handshakes, on either side */
};
void sh_transport_stats(const struct sh_transport *transport, struct sh_transport_stats *out);

#endif
