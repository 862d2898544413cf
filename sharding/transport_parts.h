/*
 * transport_parts.h - what the transport is made of; only its own files include this.
 *
 *   outlet    our connection to a node on one lane: we dialled, we send      transport_out.c
 *   inlet     a connection somebody dialled to us: we receive                transport_in.c
 *   gate      who may connect, and in which words he is refused              transport_gate.c
 *   remote    a node: three outlets, at most three inlets                    transport.c
 *
 * Threads: one thread per transport, the keeper, does everything that is rare: it dials, greets,
 *          judges, pings, closes, and calls port->changed, known and refused. Callbacks of nng only
 *          note that something happened and wake it, except on a connection that stands: there
 *          they move frames themselves, on nng's threads. Fields belong to the keeper unless they
 *          say otherwise.
 * Order:   nng 1.5.2 may run the callback of an aio after nng_aio_stop returned if another thread
 *          was just starting it. So an aio is started by the keeper, by its own callback, or by a
 *          sender that the keeper waits for (`launching`); only the keeper stops one.
 *          A receive or send on a closed stream never ends by itself: after nng_stream_close
 *          always nng_aio_stop. An aio that runs into its time limit may still be looked at, with
 *          its stream or dialer, after nng_aio_stop returned; only nng_aio_free waits for that. So
 *          aios are freed first, streams and dialers after them.
 */
#ifndef SHARDING_TRANSPORT_PARTS_H
#define SHARDING_TRANSPORT_PARTS_H

#include <nng/nng.h>
#include <uv.h>

#include "sharding/handshake.h"

#define SH_REMOTES_MAX    2048u /* nodes ever seen */
#define SH_SLOTS          4096u
#define SH_UNFINISHED_MAX 256u /* accepted, no valid hello yet */
#define SH_HANDSHAKE_MS   2000u
#define SH_CONNECT_MS     750u
#define SH_BACKOFF_MIN_MS 20u
#define SH_BACKOFF_MAX_MS 500u
#define SH_STABLE_MS      1000u /* a connection that stood so long is redialled at once */
#define SH_NOTES          256u
#define SH_NOTE_MS        5000u  /* the same words about the same node no more often */
#define SH_NOTE_DOWN_MS   60000u /* that it cannot be reached */
#define SH_LENGTH         4u     /* u32 little endian in front of each frame; 0: ping, pong */

/* What a callback of nng noted for the keeper. */
enum sh_event {
	SH_DIALLED = 1,
	SH_SENT = 2,
	SH_RECEIVED = 4,
	SH_BROKEN = 8,
	SH_RESUME = 16
};

/* Frames, each with its length, whole ones only. */
struct sh_chunk {
	struct sh_chunk *next;
	size_t room, used;
	uint32_t frames;
	uint8_t data[];
};

enum sh_line_state {
	SH_LINE_DIALLING,
	SH_LINE_GREETING, /* the hello is on its way */
	SH_LINE_ASKING,   /* waits for the answer */
	SH_LINE_STANDS
};

/* One try of an outlet. */
struct sh_line {
	struct sh_outlet *outlet;
	enum sh_line_state state;
	uint64_t began, deadline;
	nng_stream_dialer *dialer;
	nng_stream *stream;
	nng_aio *dial, *send, *recv;
	_Atomic uint32_t events;   /* enum sh_event */
	_Atomic bool stands;       /* callbacks move bytes themselves */
	_Atomic uint64_t heard;    /* ms */
	uint64_t pinged, stood;    /* ms */
	_Atomic(const char *) why; /* of SH_BROKEN */
	size_t have;               /* of the answer */
	uint8_t buffer[SH_HANDSHAKE_MAX];
};

struct sh_outlet {
	struct sh_remote *remote;
	enum sh_lane lane;
	struct sh_line *line; /* NULL: none */
	uint64_t next_at, backoff;

	uv_mutex_t lock;               /* of what follows */
	struct sh_line *standing;      /* takes frames; NULL: none does */
	struct sh_chunk *queue, *last; /* waits */
	struct sh_chunk *spare;
	uint64_t queued; /* bytes, with those in flight */
	bool sending, ping;
	_Atomic uint32_t launching; /* senders that are about to start line->send */

	/* Whoever set `sending`, and then the callback. */
	struct sh_chunk *flight;
	size_t flown; /* bytes of its first chunk */
};

enum sh_inlet_state {
	SH_INLET_HELLO,
	SH_INLET_HELD, /* another process of that node may be alive: watches whether it is */
	SH_INLET_REFUSING,
	SH_INLET_WELCOMING,
	SH_INLET_STANDS,
	SH_INLET_DEAD
};

struct sh_box;

struct sh_inlet {
	struct sh_inlet *next; /* in the order they were accepted */
	struct sh_transport *transport;
	struct sh_remote *remote; /* from WELCOMING on */
	enum sh_inlet_state state;
	uint64_t deadline, greeted; /* ms */
	nng_stream *stream;
	nng_aio *recv, *send;
	struct sh_handshake *hello;
	char address[64];
	_Atomic uint32_t events; /* enum sh_event */
	_Atomic bool stands;
	_Atomic uint64_t heard;
	_Atomic uint64_t ponged;   /* ms */
	_Atomic(const char *) why; /* of SH_BROKEN */

	/* The keeper until it stands, then the callback of recv. */
	uint8_t *buffer;
	size_t room, have;
	struct sh_box *big; /* a frame that is read into directly */
	size_t big_have;

	uv_mutex_t lock; /* of what follows */
	bool closed;     /* the transport may be gone */
	bool paused;
	bool pong_busy, pong_due;

	_Atomic uint64_t unreleased; /* bytes */
	_Atomic uint32_t references; /* the transport's and one of each frame */
};

struct sh_remote {
	struct sh_transport *transport;
	uint64_t node;
	char *url;           /* transport->lock; NULL: hung up */
	uint64_t url_change; /* transport->lock */
	uint64_t url_seen;
	char dialled[SH_URL_MAX + 1]; /* empty: hung up */
	struct sh_outlet outlet[SH_LANES];
	struct sh_inlet *inlet[SH_LANES];
	uint64_t instance;    /* the process our RAFT lane goes to */
	uint64_t incarnation; /* highest seen */
	bool unreachable;     /* was logged */
	_Atomic bool up;
};

struct sh_note {
	uint64_t hash, at;
};

struct sh_transport {
	struct sh_transport_options options; /* its strings are owned */
	char *url;
	uint64_t silence;
	nng_stream_listener *listener;
	nng_aio *accept;
	bool accepting;
	uint64_t accept_at;
	_Atomic uint32_t accept_events;
	struct sh_inlet *inlets, **inlets_tail;
	uint32_t unfinished;
	uint64_t due; /* when the keeper has something to do by itself */
	struct sh_note notes[SH_NOTES];

	uv_thread_t keeper;
	bool keeping;
	uv_mutex_t lock; /* of what follows, and of making a remote */
	uv_cond_t wake;
	bool woken, stopping;

	_Atomic uint32_t count;
	struct sh_remote *remotes[SH_REMOTES_MAX];
	_Atomic(struct sh_remote *) slots[SH_SLOTS]; /* by hash; never taken out */

	_Atomic uint64_t frames_out, bytes_out, frames_in, bytes_in, dropped, connects, refused;
};

/* ---- transport.c ---- */
uint64_t sh_transport_now(void); /* ms */
void sh_transport_wake(struct sh_transport *transport);
void sh_transport_note_due(struct sh_transport *transport, uint64_t at);
/* NULL: out of memory, or too many nodes. */
struct sh_remote *sh_transport_remote(struct sh_transport *transport, uint64_t node);
/* What a node can be reached for may have changed. */
void sh_remote_update(struct sh_remote *remote, const char *why);
/* Logs, unless the same was said about the same node in the last period_ms. */
void sh_transport_log(struct sh_transport *transport, uint64_t node, uint64_t period_ms,
	const char *fmt, ...) RT_PRINTF(4, 5);

/* ---- transport_gate.c: true: welcome. false: why says the reason, both sides named. ---- */
bool sh_gate_version(struct sh_transport *transport, const struct sh_handshake *hello, char *why);
/* Calls port->known. */
bool sh_gate_hello(struct sh_transport *transport, const struct sh_handshake *hello, char *why);
bool sh_gate_welcome(const struct sh_remote *remote, const struct sh_handshake *welcome, char *why);
void sh_gate_clone(const struct sh_inlet *old, const struct sh_handshake *hello, char *why);

/* ---- transport_out.c ---- */
RT_NODISCARD rt_err sh_outlet_init(
	struct sh_outlet *outlet, struct sh_remote *remote, enum sh_lane lane);
void sh_outlet_done(struct sh_outlet *outlet);
RT_NODISCARD rt_err sh_outlet_send(struct sh_outlet *outlet, struct rt_bytes frame);
void sh_outlet_step(struct sh_outlet *outlet, uint64_t now);
/* Also a line that is still dialling. */
void sh_outlet_hang_up(struct sh_outlet *outlet);

/* ---- transport_in.c ---- */
/* Owns the stream. */
void sh_inlet_accept(struct sh_transport *transport, nng_stream *stream, uint64_t now);
void sh_inlet_step(struct sh_inlet *inlet, uint64_t now);
void sh_inlet_close(struct sh_inlet *inlet);
/* After it is closed. */
void sh_inlet_release(struct sh_inlet *inlet);

#endif
