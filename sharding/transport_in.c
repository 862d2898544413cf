#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "sharding/transport_parts.h"

#define READ_BYTES  (128u * 1024u)
#define LARGE_BYTES 4096u /* the rest of such a frame is read into its own memory */

struct sh_box {
	struct sh_inlet *inlet;
	size_t size; /* of the whole box */
	struct sh_frame frame;
	uint8_t data[];
};

static void tell(struct sh_inlet *inlet, enum sh_event event)
{
	atomic_fetch_or(&inlet->events, (uint32_t)event);
	sh_transport_wake(inlet->transport);
}

static void broken(struct sh_inlet *inlet, const char *why)
{
	atomic_store(&inlet->why, why);
	tell(inlet, SH_BROKEN);
}

/* ---- frames ---- */

static struct sh_box *box_new(struct sh_inlet *inlet, size_t size)
{
	struct sh_box *box = malloc(sizeof(*box) + size);
	if (box == NULL) {
		return NULL;
	}
	box->inlet = inlet;
	box->size = sizeof(*box) + size;
	box->frame.from = inlet->hello->who.node;
	box->frame.lane = inlet->hello->lane;
	box->frame.bytes.data = box->data;
	box->frame.bytes.size = size;
	atomic_init(&box->frame.references, 1);
	return box;
}

static void deliver(struct sh_box *box)
{
	struct sh_inlet *inlet = box->inlet;
	struct sh_transport *transport = inlet->transport;
	atomic_fetch_add(&inlet->references, 1);
	atomic_fetch_add(&inlet->unreleased, box->size);
	atomic_fetch_add_explicit(&transport->frames_in, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(
		&transport->bytes_in, box->frame.bytes.size, memory_order_relaxed);
	transport->options.port->receive(transport->options.arg, &box->frame);
}

void sh_frame_hold(struct sh_frame *frame, uint32_t count)
{
	uint32_t before = atomic_fetch_add(&frame->references, count);
	RT_ASSERT(before > 0 && before + count > before);
}

/* Reading goes on when half of the limit is free, so that it does not stutter. */
static void give_back(struct sh_inlet *inlet, size_t size)
{
	uint64_t before = atomic_fetch_sub(&inlet->unreleased, size);
	RT_ASSERT(before >= size);
	/* The transport may be gone, and what it allowed with it: both are looked at under the lock
	 * only. A pause is decided under it too, after one more look at `unreleased`, so that
	 * either this sees the pause or the pause sees this. */
	uv_mutex_lock(&inlet->lock);
	if (inlet->paused && !inlet->closed) {
		uint64_t half = inlet->transport->options.unreleased_bytes / 2;
		if (before > half && before - size <= half) {
			tell(inlet, SH_RESUME);
		}
	}
	uv_mutex_unlock(&inlet->lock);
}

void sh_frame_release(struct sh_frame *frame)
{
	uint32_t before = atomic_fetch_sub(&frame->references, 1);
	RT_ASSERT(before > 0);
	if (before > 1) {
		return;
	}
	struct sh_box *box = RT_CONTAINER(frame, struct sh_box, frame);
	struct sh_inlet *inlet = box->inlet;
	give_back(inlet, box->size);
	free(box);
	sh_inlet_release(inlet);
}

/* ---- a connection that stands, on nng's threads ---- */

static void receive_more(struct sh_inlet *inlet)
{
	nng_iov iov[2];
	unsigned count = 0;
	if (inlet->big != NULL) {
		size_t left = inlet->big->frame.bytes.size - inlet->big_have;
		iov[count++] = (nng_iov){inlet->big->data + inlet->big_have, left};
	}
	iov[count++] = (nng_iov){inlet->buffer + inlet->have, inlet->room - inlet->have};
	RT_ASSERT(nng_aio_set_iov(inlet->recv, count, iov) == 0);
	nng_stream_recv(inlet->stream, inlet->recv);
}

static void pong_send(struct sh_inlet *inlet)
{
	static uint8_t pong[SH_LENGTH];
	nng_iov iov = {pong, sizeof(pong)};
	RT_ASSERT(nng_aio_set_iov(inlet->send, 1, &iov) == 0);
	nng_stream_send(inlet->stream, inlet->send);
}

/* One at a time: whoever does not read them gets no more of them. */
static void pong(struct sh_inlet *inlet)
{
	uv_mutex_lock(&inlet->lock);
	bool start = !inlet->pong_busy;
	inlet->pong_busy = true;
	inlet->pong_due = !start;
	uv_mutex_unlock(&inlet->lock);
	if (start) {
		pong_send(inlet);
	}
}

static void on_sent(void *arg)
{
	struct sh_inlet *inlet = arg;
	if (!atomic_load(&inlet->stands)) {
		tell(inlet, SH_SENT);
		return;
	}
	int result = nng_aio_result(inlet->send);
	if (result != 0) {
		broken(inlet, nng_strerror(result));
		return;
	}
	uv_mutex_lock(&inlet->lock);
	bool again = inlet->pong_due;
	inlet->pong_due = false;
	inlet->pong_busy = again;
	uv_mutex_unlock(&inlet->lock);
	if (again) {
		pong_send(inlet);
	}
}

/* A frame that the buffer does not hold whole. False: no memory. */
static bool big_begin(struct sh_inlet *inlet, size_t size, struct rt_bytes start)
{
	inlet->big = box_new(inlet, size);
	if (inlet->big == NULL) {
		return false;
	}
	memcpy(inlet->big->data, start.data, start.size);
	inlet->big_have = start.size;
	return true;
}

static size_t big_fill(struct sh_inlet *inlet, size_t size)
{
	struct sh_box *big = inlet->big;
	if (big == NULL) {
		return size;
	}
	size_t left = big->frame.bytes.size - inlet->big_have;
	size_t taken = size < left ? size : left;
	inlet->big_have += taken;
	if (taken == left) {
		inlet->big = NULL;
		deliver(big);
	}
	return size - taken;
}

static uint32_t length_at(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

/* Takes one frame, or a ping, off the front. 0: what is there is not enough for one. */
static size_t take(struct sh_inlet *inlet, struct rt_bytes rest, bool *pinged, const char **why)
{
	if (rest.size < SH_LENGTH) {
		return 0;
	}
	size_t size = length_at(rest.data);
	rest = rt_bytes_of(rest.data + SH_LENGTH, rest.size - SH_LENGTH);
	if (size == 0) {
		*pinged = true;
		return SH_LENGTH;
	}
	if (size > SH_FRAME_MAX) {
		*why = "a frame is too large, or it is none";
		return 0;
	}
	if (size > rest.size) {
		if (size < LARGE_BYTES) {
			return 0;
		}
		*why = big_begin(inlet, size, rest) ? NULL : "no memory for a frame";
		return SH_LENGTH + rest.size;
	}
	struct sh_box *box = box_new(inlet, size);
	if (box == NULL) {
		*why = "no memory for a frame";
		return 0;
	}
	memcpy(box->data, rest.data, size);
	deliver(box);
	return SH_LENGTH + size;
}

/* NULL: all is well. */
static const char *take_all(struct sh_inlet *inlet, bool *pinged)
{
	const char *why = NULL;
	size_t at = 0;
	size_t taken;
	do {
		struct rt_bytes rest = rt_bytes_of(inlet->buffer + at, inlet->have - at);
		taken = take(inlet, rest, pinged, &why);
		at += taken;
	} while (taken > 0 && why == NULL);
	inlet->have -= at;
	memmove(inlet->buffer, inlet->buffer + at, inlet->have);
	return why;
}

static bool pause_full(struct sh_inlet *inlet)
{
	uint64_t limit = inlet->transport->options.unreleased_bytes;
	if (atomic_load(&inlet->unreleased) <= limit) {
		return false;
	}
	uv_mutex_lock(&inlet->lock);
	bool paused = atomic_load(&inlet->unreleased) > limit;
	inlet->paused = paused;
	uv_mutex_unlock(&inlet->lock);
	return paused;
}

static void on_received(void *arg)
{
	struct sh_inlet *inlet = arg;
	bool pinged = false;
	if (!atomic_load(&inlet->stands)) {
		tell(inlet, SH_RECEIVED);
		return;
	}
	int result = nng_aio_result(inlet->recv);
	if (result != 0) {
		broken(inlet, nng_strerror(result));
		return;
	}
	uint64_t now = sh_transport_now();
	atomic_store(&inlet->heard, now);
	inlet->have += big_fill(inlet, nng_aio_count(inlet->recv));
	const char *why = take_all(inlet, &pinged);
	if (why != NULL) {
		broken(inlet, why);
		return;
	}
	/* A ping may be stuck behind a large frame on a slow line; what moves is alive. */
	if (pinged || now >= atomic_load(&inlet->ponged) + inlet->transport->silence / 4) {
		atomic_store(&inlet->ponged, now);
		pong(inlet);
	}
	if (pause_full(inlet)) {
		sh_transport_wake(inlet->transport);
	} else {
		receive_more(inlet);
	}
}

/* ---- life, by the keeper ---- */

/* Without the port, which differs each time and would make every line a new one. */
static void address_of(nng_stream *stream, char *out, size_t room)
{
	nng_sockaddr address;
	char text[48];
	int result = UV_EINVAL;
	if (nng_stream_get_addr(stream, NNG_OPT_REMADDR, &address) != 0) {
		address.s_family = NNG_AF_UNSPEC;
	}
	if (address.s_family == NNG_AF_INET) {
		result = uv_inet_ntop(AF_INET, &address.s_in.sa_addr, text, sizeof(text));
	} else if (address.s_family == NNG_AF_INET6) {
		result = uv_inet_ntop(AF_INET6, address.s_in6.sa_addr, text, sizeof(text));
	}
	(void)snprintf(out, room, "%s", result == 0 ? text : "a local process");
}

void sh_inlet_release(struct sh_inlet *inlet)
{
	if (atomic_fetch_sub(&inlet->references, 1) == 1) {
		uv_mutex_destroy(&inlet->lock);
		free(inlet);
	}
}

/* What only an open connection needs. Aios go before what they worked on: see transport_parts.h. */
static void strip(struct sh_inlet *inlet)
{
	nng_aio_free(inlet->recv);
	nng_aio_free(inlet->send);
	nng_stream_free(inlet->stream);
	free(inlet->buffer);
	free(inlet->hello);
	free(inlet->big);
	inlet->stream = NULL;
	inlet->recv = NULL;
	inlet->send = NULL;
	inlet->buffer = NULL;
	inlet->hello = NULL;
	inlet->big = NULL;
}

static bool build(struct sh_inlet *inlet)
{
	inlet->buffer = malloc(SH_HANDSHAKE_MAX);
	inlet->room = SH_HANDSHAKE_MAX;
	inlet->hello = calloc(1, sizeof(*inlet->hello));
	return inlet->buffer != NULL && inlet->hello != NULL &&
	       nng_aio_alloc(&inlet->recv, on_received, inlet) == 0 &&
	       nng_aio_alloc(&inlet->send, on_sent, inlet) == 0;
}

static bool unfinished(const struct sh_inlet *inlet)
{
	return inlet->state == SH_INLET_HELLO || inlet->state == SH_INLET_HELD ||
	       inlet->state == SH_INLET_REFUSING;
}

static void make_room(struct sh_transport *transport)
{
	struct sh_inlet *at = transport->inlets;
	while (at != NULL && !unfinished(at)) {
		at = at->next;
	}
	RT_ASSERT(at != NULL);
	sh_inlet_close(at);
}

void sh_inlet_accept(struct sh_transport *transport, nng_stream *stream, uint64_t now)
{
	struct sh_inlet *inlet = calloc(1, sizeof(*inlet));
	if (inlet == NULL || uv_mutex_init(&inlet->lock) != 0) {
		nng_stream_free(stream);
		free(inlet);
		return;
	}
	inlet->transport = transport;
	inlet->stream = stream;
	atomic_init(&inlet->references, 1);
	if (!build(inlet)) {
		strip(inlet);
		sh_inlet_release(inlet);
		return;
	}
	/* Whoever does not get to the point makes room for who does: honest ones take an instant.
	 */
	if (transport->unfinished == SH_UNFINISHED_MAX) {
		make_room(transport);
	}
	transport->unfinished++;
	*transport->inlets_tail = inlet;
	transport->inlets_tail = &inlet->next;
	(void)nng_stream_set_bool(stream, NNG_OPT_TCP_NODELAY, true);
	address_of(stream, inlet->address, sizeof(inlet->address));
	inlet->deadline = now + SH_HANDSHAKE_MS;
	/* The keeper watches the deadline, however the hello comes in. */
	nng_aio_set_timeout(inlet->recv, 2 * SH_HANDSHAKE_MS);
	nng_aio_set_timeout(inlet->send, SH_HANDSHAKE_MS);
	receive_more(inlet);
}

/* Without its RAFT lane nobody listens whether the node lives, so the others go with it. */
static void part(struct sh_inlet *inlet)
{
	struct sh_remote *remote = inlet->remote;
	enum sh_lane lane = SH_LANE_RAFT;
	inlet->remote = NULL;
	while (remote->inlet[lane] != inlet) {
		lane++;
		RT_ASSERT(lane < SH_LANES);
	}
	remote->inlet[lane] = NULL;
	for (uint32_t i = 0; lane == SH_LANE_RAFT && i < SH_LANES; i++) {
		if (remote->inlet[i] != NULL) {
			sh_inlet_close(remote->inlet[i]);
		}
	}
}

/* Frames that are out keep its memory, not the connection. */
void sh_inlet_close(struct sh_inlet *inlet)
{
	if (inlet->state == SH_INLET_DEAD) {
		return;
	}
	if (unfinished(inlet)) {
		inlet->transport->unfinished--;
	}
	inlet->state = SH_INLET_DEAD;
	uv_mutex_lock(&inlet->lock);
	inlet->closed = true;
	uv_mutex_unlock(&inlet->lock);
	nng_stream_close(inlet->stream);
	nng_aio_stop(inlet->recv);
	nng_aio_stop(inlet->send);
	strip(inlet);
	if (inlet->remote != NULL) {
		part(inlet);
	}
}

static void say(struct sh_inlet *inlet, const struct sh_handshake *words)
{
	nng_iov iov = {inlet->buffer, sh_handshake_encode(words, inlet->buffer)};
	RT_ASSERT(nng_aio_set_iov(inlet->send, 1, &iov) == 0);
	nng_stream_send(inlet->stream, inlet->send);
}

/* It stays open until the other side closed: closing first could take the words away again. */
static void refuse(struct sh_inlet *inlet, const char *why)
{
	struct sh_transport *transport = inlet->transport;
	struct sh_handshake words = {
		.kind = SH_REFUSAL, .version_min = SH_VERSION_MIN, .version_max = SH_VERSION_MAX};
	atomic_fetch_add(&transport->refused, 1);
	sh_transport_log(transport, inlet->hello->who.node, SH_NOTE_MS, "refused %s: %s",
		inlet->address, why);
	(void)snprintf(words.text, sizeof(words.text), "%s", why);
	inlet->state = SH_INLET_REFUSING;
	say(inlet, &words);
}

static void welcome(struct sh_inlet *inlet, struct sh_remote *remote)
{
	struct sh_transport *transport = inlet->transport;
	const struct sh_handshake *hello = inlet->hello;
	struct sh_handshake words = {.kind = SH_WELCOME, .who = transport->options.self};
	uint32_t version =
		hello->version_max < SH_VERSION_MAX ? hello->version_max : SH_VERSION_MAX;
	words.version_min = version;
	words.version_max = version;
	/* The old connection ends before the new one begins: `receive` is never called twice at
	 * once. */
	struct sh_inlet *old = remote->inlet[hello->lane];
	if (old != NULL) {
		sh_inlet_close(old);
	}
	transport->unfinished--;
	inlet->state = SH_INLET_WELCOMING;
	inlet->remote = remote;
	remote->inlet[hello->lane] = inlet;
	if (hello->who.incarnation > remote->incarnation) {
		remote->incarnation = hello->who.incarnation;
	}
	say(inlet, &words);
}

/* Another process of the same node was connected when this one said hello. If it is heard after
 * that, it lives; when it is silent for long enough, or closes, it does not. */
static void judge_clone(struct sh_inlet *inlet, struct sh_remote *remote, uint64_t now)
{
	struct sh_transport *transport = inlet->transport;
	const struct sh_inlet *old = remote->inlet[SH_LANE_RAFT];
	if (old == NULL || old->hello->who.instance == inlet->hello->who.instance) {
		welcome(inlet, remote);
		return;
	}
	uint64_t heard = atomic_load(&old->heard);
	if (heard > inlet->greeted) {
		char why[SH_REFUSAL_MAX + 1];
		sh_gate_clone(old, inlet->hello, why);
		refuse(inlet, why);
	} else if (now >= heard + transport->silence) {
		welcome(inlet, remote);
	} else {
		inlet->state = SH_INLET_HELD;
		inlet->deadline = heard + transport->silence + SH_HANDSHAKE_MS;
		/* It is not told when the old one is heard: looks again soon. */
		sh_transport_note_due(transport, now + 10);
	}
}

static void judge(struct sh_inlet *inlet, uint64_t now)
{
	struct sh_transport *transport = inlet->transport;
	const struct sh_handshake *hello = inlet->hello;
	char why[SH_REFUSAL_MAX + 1];
	if (!sh_gate_hello(transport, hello, why)) {
		refuse(inlet, why);
		return;
	}
	struct sh_remote *remote = sh_transport_remote(transport, hello->who.node);
	if (remote == NULL) {
		sh_inlet_close(inlet);
		return;
	}
	if (hello->lane == SH_LANE_RAFT) {
		judge_clone(inlet, remote, now);
		return;
	}
	const struct sh_inlet *raft = remote->inlet[SH_LANE_RAFT];
	if (raft == NULL || raft->hello->who.instance != hello->who.instance) {
		/* Its first lane just broke; the other side will see that too and dial anew. */
		sh_inlet_close(inlet);
		return;
	}
	welcome(inlet, remote);
}

static void close_stranger(struct sh_inlet *inlet, const char *why)
{
	sh_transport_log(inlet->transport, 0, SH_NOTE_MS, "closed a connection from %s: %s",
		inlet->address, why);
	sh_inlet_close(inlet);
}

static void hear_hello(struct sh_inlet *inlet, uint64_t now)
{
	if (nng_aio_result(inlet->recv) != 0) {
		close_stranger(inlet, nng_strerror(nng_aio_result(inlet->recv)));
		return;
	}
	inlet->have += nng_aio_count(inlet->recv);
	size_t size = SH_HANDSHAKE_HEAD;
	rt_err err =
		inlet->have < SH_HANDSHAKE_HEAD ? RT_OK : sh_handshake_size(inlet->buffer, &size);
	if (err == RT_OK && inlet->have < size) {
		receive_more(inlet);
		return;
	}
	err = err != RT_OK
		      ? err
		      : sh_handshake_decode(rt_bytes_of(inlet->buffer, inlet->have), inlet->hello);
	inlet->have = 0;
	inlet->greeted = now;
	if (err == RT_E_VERSION) {
		char why[SH_REFUSAL_MAX + 1];
		(void)sh_gate_version(inlet->transport, inlet->hello, why);
		refuse(inlet, why);
	} else if (err != RT_OK || inlet->hello->kind != SH_HELLO) {
		close_stranger(inlet, "it said no hello of a node");
	} else {
		judge(inlet, now);
	}
}

static void stand(struct sh_inlet *inlet, uint64_t now)
{
	uint8_t *buffer = malloc(READ_BYTES);
	if (buffer == NULL) {
		sh_inlet_close(inlet);
		return;
	}
	free(inlet->buffer);
	inlet->buffer = buffer;
	inlet->room = READ_BYTES;
	inlet->state = SH_INLET_STANDS;
	atomic_store(&inlet->ponged, now);
	atomic_store(&inlet->heard, now);
	nng_aio_set_timeout(inlet->recv, NNG_DURATION_INFINITE);
	nng_aio_set_timeout(inlet->send, NNG_DURATION_INFINITE);
	atomic_store(&inlet->stands, true);
	receive_more(inlet);
}

static void said(struct sh_inlet *inlet, uint64_t now)
{
	if (nng_aio_result(inlet->send) != 0) {
		sh_inlet_close(inlet);
	} else if (inlet->state == SH_INLET_WELCOMING) {
		stand(inlet, now);
	} else {
		receive_more(inlet);
	}
}

/* A paused one hears nothing, but says that it is there; a dead peer shows when it goes on. */
static void watch(struct sh_inlet *inlet, uint64_t now)
{
	struct sh_transport *transport = inlet->transport;
	uv_mutex_lock(&inlet->lock);
	bool paused = inlet->paused;
	uv_mutex_unlock(&inlet->lock);
	if (inlet->hello->lane != SH_LANE_RAFT) {
		return;
	}
	if (paused) {
		uint64_t due = atomic_load(&inlet->ponged) + transport->silence / 4;
		if (now >= due) {
			atomic_store(&inlet->ponged, now);
			pong(inlet);
			due = now + transport->silence / 4;
		}
		sh_transport_note_due(transport, due);
		return;
	}
	uint64_t silent_at = atomic_load(&inlet->heard) + 2 * transport->silence;
	if (now >= silent_at) {
		sh_transport_log(transport, inlet->hello->who.node, SH_NOTE_MS,
			"closed its connection: it is silent");
		sh_inlet_close(inlet);
		return;
	}
	sh_transport_note_due(transport, silent_at);
}

static void resume(struct sh_inlet *inlet, uint64_t now)
{
	uv_mutex_lock(&inlet->lock);
	bool paused = inlet->paused;
	inlet->paused = false;
	uv_mutex_unlock(&inlet->lock);
	if (paused) {
		atomic_store(&inlet->heard, now);
		receive_more(inlet);
	}
}

static void step_events(struct sh_inlet *inlet, uint32_t events, uint64_t now)
{
	if ((events & SH_BROKEN) != 0) {
		sh_transport_log(inlet->transport, inlet->hello->who.node, SH_NOTE_MS,
			"its connection ended: %s", atomic_load(&inlet->why));
		sh_inlet_close(inlet);
	} else if ((events & SH_RESUME) != 0) {
		resume(inlet, now);
	} else if ((events & SH_SENT) != 0) {
		said(inlet, now);
	} else if ((events & SH_RECEIVED) != 0 && inlet->state == SH_INLET_HELLO) {
		hear_hello(inlet, now);
	} else if ((events & SH_RECEIVED) != 0) {
		sh_inlet_close(inlet); /* who was refused has gone */
	}
}

void sh_inlet_step(struct sh_inlet *inlet, uint64_t now)
{
	if (inlet->state == SH_INLET_DEAD) {
		return;
	}
	step_events(inlet, atomic_exchange(&inlet->events, 0), now);
	if (inlet->state == SH_INLET_HELD) {
		RT_ASSERT(inlet->hello != NULL);
		judge_clone(
			inlet, sh_transport_remote(inlet->transport, inlet->hello->who.node), now);
	}
	if (inlet->state == SH_INLET_STANDS) {
		watch(inlet, now);
	} else if (unfinished(inlet) && now >= inlet->deadline) {
		if (inlet->state == SH_INLET_HELLO) {
			close_stranger(inlet, "it said no hello in time");
		} else {
			sh_inlet_close(inlet);
		}
	} else if (unfinished(inlet)) {
		sh_transport_note_due(inlet->transport, inlet->deadline);
	}
	/* A welcome that does not leave is ended by the time limit of its aio. */
}
