#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/transport_parts.h"

#define CHUNK_BYTES (64u * 1024u)
#define IOV_MAX_NNG 8u /* what an aio takes */
#define PONG_BYTES  64u

/* ---- frames that wait ---- */

static struct sh_chunk *chunk_new(size_t room)
{
	struct sh_chunk *chunk = malloc(sizeof(*chunk) + room);
	if (chunk != NULL) {
		*chunk = (struct sh_chunk){.room = room};
	}
	return chunk;
}

static void chunk_put(struct sh_chunk *chunk, struct rt_bytes frame)
{
	uint8_t *at = chunk->data + chunk->used;
	RT_ASSERT(SH_LENGTH + frame.size <= chunk->room - chunk->used);
	at[0] = (uint8_t)(frame.size & 0xff);
	at[1] = (uint8_t)(frame.size >> 8 & 0xff);
	at[2] = (uint8_t)(frame.size >> 16 & 0xff);
	at[3] = (uint8_t)(frame.size >> 24 & 0xff);
	memcpy(at + SH_LENGTH, frame.data, frame.size);
	chunk->used += SH_LENGTH + frame.size;
	chunk->frames++;
}

static void queue_link(struct sh_outlet *outlet, struct sh_chunk *chunk)
{
	*(outlet->last == NULL ? &outlet->queue : &outlet->last->next) = chunk;
	outlet->last = chunk;
}

/* own: a chunk that the frame is in already, because it is large. */
static rt_err queue_put(struct sh_outlet *outlet, struct rt_bytes frame, struct sh_chunk *own)
{
	const struct sh_transport *transport = outlet->remote->transport;
	size_t need = SH_LENGTH + frame.size;
	/* One frame always fits, whatever the limit. */
	if (outlet->queued != 0 && outlet->queued + need > transport->options.queue_bytes) {
		return RT_E_FULL;
	}
	if (own != NULL) {
		queue_link(outlet, own);
		outlet->queued += need;
		return RT_OK;
	}
	struct sh_chunk *last = outlet->last;
	if (last == NULL || last->room - last->used < need) {
		last = outlet->spare != NULL ? outlet->spare : chunk_new(CHUNK_BYTES);
		if (last == NULL) {
			return RT_E_NOMEM;
		}
		outlet->spare = NULL;
		queue_link(outlet, last);
	}
	chunk_put(last, frame);
	outlet->queued += need;
	return RT_OK;
}

/* Frames end where chunks end, so that a ping may stand between two. */
static void flight_ping(struct sh_outlet *outlet)
{
	struct sh_chunk *ping = chunk_new(SH_LENGTH);
	if (ping == NULL) {
		return;
	}
	memset(ping->data, 0, SH_LENGTH);
	ping->used = SH_LENGTH;
	struct sh_chunk **at = outlet->flown == 0 ? &outlet->flight : &outlet->flight->next;
	ping->next = *at;
	*at = ping;
	outlet->queued += SH_LENGTH;
	outlet->ping = false;
}

/* Under the lock, by who sends. False: nothing is left to send. */
static bool flight_load(struct sh_outlet *outlet)
{
	if (outlet->flight == NULL) {
		outlet->flight = outlet->queue;
		outlet->flown = 0;
		outlet->queue = NULL;
		outlet->last = NULL;
	}
	if (outlet->ping) {
		flight_ping(outlet);
	}
	outlet->sending = outlet->flight != NULL;
	return outlet->sending;
}

/* By who sends, without the lock. */
static void flight_start(struct sh_outlet *outlet, struct sh_line *line)
{
	nng_iov iov[IOV_MAX_NNG];
	unsigned count = 0;
	size_t flown = outlet->flown;
	for (struct sh_chunk *at = outlet->flight; at != NULL && count < IOV_MAX_NNG;
		at = at->next) {
		iov[count++] = (nng_iov){at->data + flown, at->used - flown};
		flown = 0;
	}
	RT_ASSERT(count > 0 && nng_aio_set_iov(line->send, count, iov) == 0);
	nng_stream_send(line->stream, line->send);
}

/* Returns chunks that left whole; the caller frees them. */
static struct sh_chunk *flight_land(struct sh_outlet *outlet, size_t size)
{
	struct sh_chunk *landed = NULL;
	while (size > 0) {
		struct sh_chunk *chunk = outlet->flight;
		RT_ASSERT(chunk != NULL);
		size_t left = chunk->used - outlet->flown;
		if (size < left) {
			outlet->flown += size;
			break;
		}
		size -= left;
		outlet->flown = 0;
		outlet->flight = chunk->next;
		chunk->next = landed;
		landed = chunk;
	}
	return landed;
}

static void chunks_free(struct sh_chunk *chunk)
{
	while (chunk != NULL) {
		struct sh_chunk *next = chunk->next;
		free(chunk);
		chunk = next;
	}
}

/* Under the lock: one of the usual size stays for the next frame. */
static struct sh_chunk *spare_keep(struct sh_outlet *outlet, struct sh_chunk *landed)
{
	if (landed == NULL || outlet->spare != NULL || landed->room != CHUNK_BYTES) {
		return landed;
	}
	struct sh_chunk *rest = landed->next;
	*landed = (struct sh_chunk){.room = CHUNK_BYTES};
	outlet->spare = landed;
	return rest;
}

rt_err sh_outlet_send(struct sh_outlet *outlet, struct rt_bytes frame)
{
	struct sh_transport *transport = outlet->remote->transport;
	struct sh_chunk *own = NULL;
	if (SH_LENGTH + frame.size > CHUNK_BYTES) {
		own = chunk_new(SH_LENGTH + frame.size);
		if (own == NULL) {
			return RT_E_NOMEM;
		}
		chunk_put(own, frame);
	}
	uv_mutex_lock(&outlet->lock);
	struct sh_line *line = outlet->standing;
	rt_err err = line == NULL ? RT_E_CLOSED : queue_put(outlet, frame, own);
	bool start = err == RT_OK && !outlet->sending && flight_load(outlet);
	if (start) {
		atomic_fetch_add(&outlet->launching, 1);
	}
	uv_mutex_unlock(&outlet->lock);
	if (start) {
		flight_start(outlet, line);
		atomic_fetch_sub(&outlet->launching, 1);
	}
	if (err != RT_OK) {
		free(own);
		return err;
	}
	atomic_fetch_add_explicit(&transport->frames_out, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&transport->bytes_out, frame.size, memory_order_relaxed);
	return RT_OK;
}

/* ---- callbacks of nng ---- */

static void tell(struct sh_line *line, enum sh_event event)
{
	atomic_fetch_or(&line->events, (uint32_t)event);
	sh_transport_wake(line->outlet->remote->transport);
}

static void broken(struct sh_line *line, const char *why)
{
	/* Two callbacks may find it broken; either reason will do. */
	atomic_store(&line->why, why);
	tell(line, SH_BROKEN);
}

static void on_dialled(void *arg)
{
	tell(arg, SH_DIALLED);
}

static void on_sent(void *arg)
{
	struct sh_line *line = arg;
	struct sh_outlet *outlet = line->outlet;
	if (!atomic_load(&line->stands)) {
		tell(line, SH_SENT);
		return;
	}
	int result = nng_aio_result(line->send);
	if (result != 0) {
		broken(line, nng_strerror(result));
		return;
	}
	size_t size = nng_aio_count(line->send);
	struct sh_chunk *landed = flight_land(outlet, size);
	uv_mutex_lock(&outlet->lock);
	RT_ASSERT(outlet->queued >= size);
	outlet->queued -= size;
	landed = spare_keep(outlet, landed);
	bool more = flight_load(outlet);
	uv_mutex_unlock(&outlet->lock);
	chunks_free(landed);
	if (more) {
		flight_start(outlet, line);
	}
}

static bool receive_more(struct sh_line *line)
{
	nng_iov iov = {line->buffer + line->have, sizeof(line->buffer) - line->have};
	if (atomic_load(&line->stands)) {
		iov = (nng_iov){line->buffer, PONG_BYTES};
	}
	if (iov.iov_len == 0) {
		return false;
	}
	RT_ASSERT(nng_aio_set_iov(line->recv, 1, &iov) == 0);
	nng_stream_recv(line->stream, line->recv);
	return true;
}

static void on_received(void *arg)
{
	static const uint8_t pongs[PONG_BYTES];
	struct sh_line *line = arg;
	if (!atomic_load(&line->stands)) {
		tell(line, SH_RECEIVED);
		return;
	}
	int result = nng_aio_result(line->recv);
	if (result != 0) {
		broken(line, nng_strerror(result));
		return;
	}
	size_t size = nng_aio_count(line->recv);
	if (memcmp(line->buffer, pongs, size) != 0) {
		broken(line, "it sent what is no pong");
		return;
	}
	atomic_store(&line->heard, sh_transport_now());
	(void)receive_more(line);
}

/* ---- a try ---- */

/* Aios go before what they worked on: see transport_parts.h. */
static void line_free(struct sh_line *line)
{
	if (line->dialer != NULL) {
		nng_stream_dialer_close(line->dialer);
	}
	if (line->stream != NULL) {
		nng_stream_close(line->stream);
	}
	nng_aio *aio[] = {line->dial, line->send, line->recv};
	for (uint32_t i = 0; i < 3; i++) {
		if (aio[i] != NULL) {
			nng_aio_stop(aio[i]);
		}
	}
	/* It may have been dialled when nobody wanted it any more. */
	if (line->stream == NULL && line->dial != NULL &&
		(atomic_load(&line->events) & SH_DIALLED) != 0 && nng_aio_result(line->dial) == 0) {
		line->stream = nng_aio_get_output(line->dial, 0);
	}
	for (uint32_t i = 0; i < 3; i++) {
		nng_aio_free(aio[i]);
	}
	nng_stream_free(line->stream);
	nng_stream_dialer_free(line->dialer);
	free(line);
}

/* Frees what did not leave. Nobody sends any more. */
static void queue_drop(struct sh_outlet *outlet)
{
	uint64_t frames = 0;
	for (struct sh_chunk *at = outlet->flight; at != NULL; at = at->next) {
		frames += at->frames;
	}
	for (struct sh_chunk *at = outlet->queue; at != NULL; at = at->next) {
		frames += at->frames;
	}
	atomic_fetch_add(&outlet->remote->transport->dropped, frames);
	chunks_free(outlet->flight);
	chunks_free(outlet->queue);
	outlet->flight = NULL;
	outlet->queue = NULL;
	outlet->last = NULL;
	outlet->queued = 0;
	outlet->flown = 0;
	outlet->sending = false;
	outlet->ping = false;
}

void sh_outlet_hang_up(struct sh_outlet *outlet)
{
	struct sh_line *line = outlet->line;
	if (line == NULL) {
		return;
	}
	uv_mutex_lock(&outlet->lock);
	outlet->standing = NULL;
	uv_mutex_unlock(&outlet->lock);
	while (atomic_load(&outlet->launching) != 0) {
		(void)sched_yield();
	}
	/* Chunks in flight are read by nng until its aio is stopped. */
	outlet->line = NULL;
	line_free(line);
	uv_mutex_lock(&outlet->lock);
	queue_drop(outlet);
	uv_mutex_unlock(&outlet->lock);
}

/* since: when the try began; one that ran into its time limit has waited already. */
static void later(struct sh_outlet *outlet, uint64_t since)
{
	outlet->next_at = since + outlet->backoff;
	outlet->backoff =
		outlet->backoff * 2 < SH_BACKOFF_MAX_MS ? outlet->backoff * 2 : SH_BACKOFF_MAX_MS;
}

/* Ends a try or a connection. Without its RAFT lane nobody listens whether a node lives, so the
 * others go with it. */
static void fall(struct sh_outlet *outlet, const char *why, uint64_t now)
{
	struct sh_remote *remote = outlet->remote;
	struct sh_line *line = outlet->line;
	bool stood = line != NULL && line->state == SH_LINE_STANDS;
	if (stood && now - line->stood > SH_STABLE_MS) {
		outlet->backoff = SH_BACKOFF_MIN_MS;
	}
	later(outlet, stood || line == NULL ? now : line->began);
	if (outlet->lane == SH_LANE_RAFT && stood) {
		for (uint32_t i = SH_LANE_RAFT + 1; i < SH_LANES; i++) {
			sh_outlet_hang_up(&remote->outlet[i]);
			remote->outlet[i].next_at = 0;
			remote->outlet[i].backoff = SH_BACKOFF_MIN_MS;
		}
	}
	sh_outlet_hang_up(outlet);
	sh_remote_update(remote, why);
}

static void fall_dialling(struct sh_outlet *outlet, const char *why, uint64_t now)
{
	struct sh_remote *remote = outlet->remote;
	sh_transport_log(remote->transport, remote->node, SH_NOTE_DOWN_MS, "cannot reach %s: %s",
		remote->dialled, why);
	fall(outlet, why, now);
}

static void fall_refused(struct sh_outlet *outlet, bool theirs, const char *why, uint64_t now)
{
	struct sh_remote *remote = outlet->remote;
	struct sh_transport *transport = remote->transport;
	atomic_fetch_add(&transport->refused, 1);
	sh_transport_log(transport, remote->node, SH_NOTE_MS, "%s %s: %s",
		theirs ? "was refused by" : "refused", remote->dialled, why);
	if (theirs) {
		transport->options.port->refused(transport->options.arg, remote->node, why);
	}
	fall(outlet, why, now);
}

static void dial(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_remote *remote = outlet->remote;
	struct sh_line *line = calloc(1, sizeof(*line));
	if (line == NULL) {
		later(outlet, now);
		return;
	}
	outlet->line = line;
	line->outlet = outlet;
	line->state = SH_LINE_DIALLING;
	line->began = now;
	line->deadline = now + SH_CONNECT_MS + SH_HANDSHAKE_MS;
	int result = nng_stream_dialer_alloc(&line->dialer, remote->dialled);
	if (result != 0 || (result = nng_aio_alloc(&line->dial, on_dialled, line)) != 0 ||
		(result = nng_aio_alloc(&line->send, on_sent, line)) != 0 ||
		(result = nng_aio_alloc(&line->recv, on_received, line)) != 0) {
		fall_dialling(outlet, nng_strerror(result), now);
		return;
	}
	nng_aio_set_timeout(line->dial, SH_CONNECT_MS);
	nng_aio_set_timeout(line->send, SH_HANDSHAKE_MS);
	/* The other side may take a while to see that an earlier process of ours is gone. */
	nng_duration patience = (nng_duration)(SH_HANDSHAKE_MS + remote->transport->silence);
	nng_aio_set_timeout(line->recv, patience);
	nng_stream_dialer_dial(line->dialer, line->dial);
}

static void greet(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	struct sh_remote *remote = outlet->remote;
	int result = nng_aio_result(line->dial);
	if (result != 0) {
		fall_dialling(outlet, nng_strerror(result), now);
		return;
	}
	line->stream = nng_aio_get_output(line->dial, 0);
	/* ipc has no such option. */
	(void)nng_stream_set_bool(line->stream, NNG_OPT_TCP_NODELAY, true);
	struct sh_handshake hello = {.kind = SH_HELLO,
		.version_min = SH_VERSION_MIN,
		.version_max = SH_VERSION_MAX,
		.lane = outlet->lane,
		.target = remote->node,
		.who = remote->transport->options.self};
	nng_iov iov = {line->buffer, sh_handshake_encode(&hello, line->buffer)};
	line->state = SH_LINE_GREETING;
	line->deadline = now + SH_HANDSHAKE_MS + remote->transport->silence;
	RT_ASSERT(nng_aio_set_iov(line->send, 1, &iov) == 0);
	nng_stream_send(line->stream, line->send);
}

static void ask(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	int result = nng_aio_result(line->send);
	if (result != 0) {
		fall_dialling(outlet, nng_strerror(result), now);
		return;
	}
	/* A fresh connection takes 4 KiB at once; one that does not is of no use. */
	size_t size;
	if (sh_handshake_size(line->buffer, &size) != RT_OK || nng_aio_count(line->send) != size) {
		fall_dialling(outlet, "it took half of the hello", now);
		return;
	}
	line->state = SH_LINE_ASKING;
	(void)receive_more(line);
}

static void stand(struct sh_outlet *outlet, const struct sh_identity *who, uint64_t now)
{
	struct sh_line *line = outlet->line;
	struct sh_remote *remote = outlet->remote;
	if (outlet->lane == SH_LANE_RAFT) {
		remote->instance = who->instance;
	}
	if (who->incarnation > remote->incarnation) {
		remote->incarnation = who->incarnation;
	}
	line->state = SH_LINE_STANDS;
	line->stood = now;
	line->pinged = now;
	atomic_store(&line->heard, now);
	atomic_store(&line->stands, true);
	/* From now on the keeper watches the silence, and a lane without traffic is a good one. */
	nng_aio_set_timeout(line->send, NNG_DURATION_INFINITE);
	nng_aio_set_timeout(line->recv, NNG_DURATION_INFINITE);
	(void)receive_more(line);
	uv_mutex_lock(&outlet->lock);
	RT_ASSERT(outlet->standing == NULL && outlet->queue == NULL && !outlet->sending);
	outlet->standing = line;
	uv_mutex_unlock(&outlet->lock);
	atomic_fetch_add(&remote->transport->connects, 1);
	sh_remote_update(remote, NULL);
}

static void welcomed(struct sh_outlet *outlet, const struct sh_handshake *answer, uint64_t now)
{
	struct sh_remote *remote = outlet->remote;
	char why[SH_REFUSAL_MAX + 1];
	if (!sh_gate_welcome(remote, answer, why)) {
		fall_refused(outlet, false, why, now);
	} else if (outlet->lane != SH_LANE_RAFT && answer->who.instance != remote->instance) {
		fall(&remote->outlet[SH_LANE_RAFT], "another process took its place", now);
	} else {
		stand(outlet, &answer->who, now);
	}
}

static void answered(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	int result = nng_aio_result(line->recv);
	if (result != 0) {
		fall_dialling(outlet, nng_strerror(result), now);
		return;
	}
	line->have += nng_aio_count(line->recv);
	size_t size = SH_HANDSHAKE_HEAD;
	rt_err err =
		line->have < SH_HANDSHAKE_HEAD ? RT_OK : sh_handshake_size(line->buffer, &size);
	if (err == RT_OK && line->have < size && receive_more(line)) {
		return;
	}
	struct sh_handshake answer;
	err = err != RT_OK ? err
			   : sh_handshake_decode(rt_bytes_of(line->buffer, line->have), &answer);
	if (err != RT_OK || answer.kind == SH_HELLO) {
		fall_dialling(outlet, "what it answered is no welcome", now);
	} else if (answer.kind == SH_REFUSAL) {
		fall_refused(outlet, true, answer.text, now);
	} else {
		welcomed(outlet, &answer, now);
	}
}

/* ---- a connection that stands ---- */

static void ping(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	line->pinged = now;
	uv_mutex_lock(&outlet->lock);
	outlet->ping = true;
	bool start = !outlet->sending && flight_load(outlet);
	uv_mutex_unlock(&outlet->lock);
	if (start) {
		flight_start(outlet, line);
	}
}

static void watch(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	struct sh_transport *transport = outlet->remote->transport;
	if (outlet->lane != SH_LANE_RAFT) {
		return;
	}
	uint64_t heard = atomic_load(&line->heard);
	if (now >= heard + transport->silence) {
		fall(outlet, "it is silent", now);
		return;
	}
	uint64_t spoke = heard > line->pinged ? heard : line->pinged;
	if (now >= spoke + transport->silence / 4) {
		ping(outlet, now);
		spoke = now;
	}
	sh_transport_note_due(transport, heard + transport->silence);
	sh_transport_note_due(transport, spoke + transport->silence / 4);
}

static bool wanted(const struct sh_outlet *outlet)
{
	const struct sh_line *raft = outlet->remote->outlet[SH_LANE_RAFT].line;
	return outlet->remote->dialled[0] != '\0' &&
	       (outlet->lane == SH_LANE_RAFT || (raft != NULL && raft->state == SH_LINE_STANDS));
}

static void step_line(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_line *line = outlet->line;
	uint32_t events = atomic_exchange(&line->events, 0);
	if ((events & SH_BROKEN) != 0) {
		fall(outlet, atomic_load(&line->why), now);
	} else if ((events & SH_DIALLED) != 0) {
		greet(outlet, now);
	} else if ((events & SH_SENT) != 0) {
		ask(outlet, now);
	} else if ((events & SH_RECEIVED) != 0) {
		answered(outlet, now);
	} else if (line->state != SH_LINE_STANDS && now >= line->deadline) {
		fall_dialling(outlet, "no answer in time", now);
	}
}

void sh_outlet_step(struct sh_outlet *outlet, uint64_t now)
{
	struct sh_transport *transport = outlet->remote->transport;
	if (outlet->line == NULL && wanted(outlet) && now >= outlet->next_at) {
		dial(outlet, now);
	}
	if (outlet->line != NULL) {
		step_line(outlet, now);
	}
	if (outlet->line != NULL && outlet->line->state == SH_LINE_STANDS) {
		watch(outlet, now);
	}
	if (outlet->line == NULL && wanted(outlet)) {
		sh_transport_note_due(transport, outlet->next_at);
	} else if (outlet->line != NULL && outlet->line->state != SH_LINE_STANDS) {
		sh_transport_note_due(transport, outlet->line->deadline);
	}
}

rt_err sh_outlet_init(struct sh_outlet *outlet, struct sh_remote *remote, enum sh_lane lane)
{
	*outlet = (struct sh_outlet){.remote = remote, .lane = lane, .backoff = SH_BACKOFF_MIN_MS};
	return uv_mutex_init(&outlet->lock) == 0 ? RT_OK : RT_E_NOMEM;
}

void sh_outlet_done(struct sh_outlet *outlet)
{
	RT_ASSERT(outlet->line == NULL);
	free(outlet->spare);
	uv_mutex_destroy(&outlet->lock);
}
