#include "sharding/transport.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "sharding/transport_parts.h"

#define SILENCE_MS       2000u
#define QUEUE_BYTES      (64u * 1024u * 1024u)
#define UNRELEASED_BYTES (32u * 1024u * 1024u)
#define ACCEPT_AGAIN_MS  100u /* after a failure, most likely of descriptors */
#define NEVER            UINT64_MAX

uint64_t sh_transport_now(void)
{
	return rt_clock_now_ns() / 1000000;
}

void sh_transport_wake(struct sh_transport *transport)
{
	uv_mutex_lock(&transport->lock);
	transport->woken = true;
	uv_cond_signal(&transport->wake);
	uv_mutex_unlock(&transport->lock);
}

void sh_transport_note_due(struct sh_transport *transport, uint64_t at)
{
	transport->due = at < transport->due ? at : transport->due;
}

/* ---- log ---- */

static uint64_t hash_of(uint64_t node, const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ node;
	for (; *text != '\0'; text++) {
		hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	}
	return hash;
}

/* Two texts may share a place; then both are said more often. */
static bool said_lately(
	struct sh_transport *transport, uint64_t node, const char *text, uint64_t period_ms)
{
	uint64_t hash = hash_of(node, text);
	uint64_t now = sh_transport_now();
	struct sh_note *note = &transport->notes[hash % SH_NOTES];
	if (note->hash == hash && now < note->at + period_ms) {
		return true;
	}
	*note = (struct sh_note){.hash = hash, .at = now};
	return false;
}

void sh_transport_log(
	struct sh_transport *transport, uint64_t node, uint64_t period_ms, const char *fmt, ...)
{
	char text[SH_REFUSAL_MAX + 512];
	va_list list;
	va_start(list, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, list);
	va_end(list);
	if (said_lately(transport, node, text, period_ms)) {
		return;
	}
	if (node == 0) {
		rt_log(RT_LOG_WARN, "transport", "%s", text);
	} else {
		rt_log(RT_LOG_WARN, "transport", "node %" PRIu64 ": %s", node, text);
	}
}

/* ---- nodes ---- */

static uint32_t slot_of(uint64_t node)
{
	return (uint32_t)(node * UINT64_C(0x9e3779b97f4a7c15) >> 52) % SH_SLOTS;
}

/* Any thread: a slot that is filled stays so, and what it points to is complete, since it was
 * stored (seq_cst) after. Places are never all taken. */
static struct sh_remote *find(const struct sh_transport *transport, uint64_t node)
{
	for (uint32_t at = slot_of(node);; at = (at + 1) % SH_SLOTS) {
		struct sh_remote *remote = atomic_load(&transport->slots[at]);
		if (remote == NULL || remote->node == node) {
			return remote;
		}
	}
}

static void remote_free(struct sh_remote *remote, uint32_t outlets)
{
	for (uint32_t i = 0; i < outlets; i++) {
		sh_outlet_done(&remote->outlet[i]);
	}
	free(remote->url);
	free(remote);
}

static struct sh_remote *remote_new(struct sh_transport *transport, uint64_t node)
{
	struct sh_remote *remote = calloc(1, sizeof(*remote));
	if (remote == NULL) {
		return NULL;
	}
	remote->transport = transport;
	remote->node = node;
	for (uint32_t i = 0; i < SH_LANES; i++) {
		if (sh_outlet_init(&remote->outlet[i], remote, (enum sh_lane)i) != RT_OK) {
			remote_free(remote, i);
			return NULL;
		}
	}
	return remote;
}

/* Under the lock. */
static struct sh_remote *find_or_make(struct sh_transport *transport, uint64_t node)
{
	struct sh_remote *remote = find(transport, node);
	uint32_t count = atomic_load(&transport->count);
	if (remote != NULL || count == SH_REMOTES_MAX) {
		return remote;
	}
	remote = remote_new(transport, node);
	if (remote == NULL) {
		return NULL;
	}
	uint32_t at = slot_of(node);
	while (atomic_load(&transport->slots[at]) != NULL) {
		at = (at + 1) % SH_SLOTS;
	}
	transport->remotes[count] = remote;
	atomic_store(&transport->slots[at], remote);
	atomic_store(&transport->count, count + 1);
	return remote;
}

struct sh_remote *sh_transport_remote(struct sh_transport *transport, uint64_t node)
{
	struct sh_remote *remote = find(transport, node);
	if (remote == NULL) {
		uv_mutex_lock(&transport->lock);
		remote = find_or_make(transport, node);
		uv_mutex_unlock(&transport->lock);
	}
	return remote;
}

static bool stands(const struct sh_remote *remote, enum sh_lane lane)
{
	const struct sh_line *line = remote->outlet[lane].line;
	return line != NULL && line->state == SH_LINE_STANDS;
}

void sh_remote_update(struct sh_remote *remote, const char *why)
{
	const struct sh_transport_options *options = &remote->transport->options;
	bool up = stands(remote, SH_LANE_RAFT) && stands(remote, SH_LANE_CALL);
	if (atomic_load(&remote->up) == up) {
		return;
	}
	atomic_store(&remote->up, up);
	if (up) {
		rt_log(RT_LOG_INFO, "transport", "node %" PRIu64 ": connected to %s", remote->node,
			remote->dialled);
	} else {
		rt_log(RT_LOG_WARN, "transport", "node %" PRIu64 ": lost %s: %s", remote->node,
			remote->dialled, why == NULL ? "hung up" : why);
	}
	options->port->changed(options->arg, remote->node, up);
}

/* Another URL than before, or none. */
static void redirect(struct sh_remote *remote)
{
	struct sh_transport *transport = remote->transport;
	uv_mutex_lock(&transport->lock);
	bool changed = remote->url_seen != remote->url_change;
	char url[SH_URL_MAX + 1];
	(void)snprintf(url, sizeof(url), "%s", remote->url == NULL ? "" : remote->url);
	remote->url_seen = remote->url_change;
	uv_mutex_unlock(&transport->lock);
	if (!changed) {
		return;
	}
	for (uint32_t i = 0; i < SH_LANES; i++) {
		sh_outlet_hang_up(&remote->outlet[i]);
		remote->outlet[i].next_at = 0;
		remote->outlet[i].backoff = SH_BACKOFF_MIN_MS;
	}
	sh_remote_update(remote, url[0] == '\0' ? NULL : "it has another URL now");
	memcpy(remote->dialled, url, sizeof(url));
	if (url[0] == '\0' && remote->inlet[SH_LANE_RAFT] != NULL) {
		sh_inlet_close(remote->inlet[SH_LANE_RAFT]);
	}
}

/* ---- the keeper ---- */

static void on_accepted(void *arg)
{
	struct sh_transport *transport = arg;
	atomic_store(&transport->accept_events, SH_RECEIVED);
	sh_transport_wake(transport);
}

static void accept_step(struct sh_transport *transport, uint64_t now)
{
	if (atomic_exchange(&transport->accept_events, 0) != 0) {
		int result = nng_aio_result(transport->accept);
		transport->accepting = false;
		transport->accept_at = now;
		if (result == 0) {
			sh_inlet_accept(transport, nng_aio_get_output(transport->accept, 0), now);
		} else if (result != NNG_ETIMEDOUT) {
			sh_transport_log(transport, 0, SH_NOTE_MS, "accepting on %s: %s",
				transport->url, nng_strerror(result));
			transport->accept_at = now + ACCEPT_AGAIN_MS;
		}
	}
	if (!transport->accepting && now >= transport->accept_at) {
		transport->accepting = true;
		nng_stream_listener_accept(transport->listener, transport->accept);
	}
	if (!transport->accepting) {
		sh_transport_note_due(transport, transport->accept_at);
	}
}

static void sweep(struct sh_transport *transport)
{
	struct sh_inlet **at = &transport->inlets;
	while (*at != NULL) {
		struct sh_inlet *inlet = *at;
		if (inlet->state == SH_INLET_DEAD) {
			*at = inlet->next;
			sh_inlet_release(inlet);
		} else {
			at = &inlet->next;
		}
	}
	transport->inlets_tail = at;
}

static void step(struct sh_transport *transport)
{
	uint64_t now = sh_transport_now();
	transport->due = NEVER;
	accept_step(transport, now);
	for (struct sh_inlet *at = transport->inlets; at != NULL; at = at->next) {
		sh_inlet_step(at, now);
	}
	sweep(transport);
	uint32_t count = atomic_load(&transport->count);
	for (uint32_t i = 0; i < count; i++) {
		redirect(transport->remotes[i]);
		for (uint32_t lane = 0; lane < SH_LANES; lane++) {
			sh_outlet_step(&transport->remotes[i]->outlet[lane], now);
		}
	}
}

static bool keep_on(struct sh_transport *transport)
{
	uv_mutex_lock(&transport->lock);
	while (!transport->woken && !transport->stopping) {
		uint64_t now = sh_transport_now();
		if (transport->due == NEVER) {
			uv_cond_wait(&transport->wake, &transport->lock);
		} else if (transport->due <= now) {
			break;
		} else {
			(void)uv_cond_timedwait(&transport->wake, &transport->lock,
				(transport->due - now) * 1000000);
		}
	}
	transport->woken = false;
	bool stop = transport->stopping;
	uv_mutex_unlock(&transport->lock);
	return !stop;
}

static void hang_up_all(struct sh_transport *transport)
{
	nng_stream_listener_close(transport->listener);
	nng_aio_stop(transport->accept);
	if (atomic_load(&transport->accept_events) != 0 && nng_aio_result(transport->accept) == 0) {
		nng_stream_free(nng_aio_get_output(transport->accept, 0));
	}
	for (uint32_t i = 0; i < atomic_load(&transport->count); i++) {
		struct sh_remote *remote = transport->remotes[i];
		for (uint32_t lane = 0; lane < SH_LANES; lane++) {
			sh_outlet_hang_up(&remote->outlet[lane]);
		}
		sh_remote_update(remote, NULL);
	}
	for (struct sh_inlet *at = transport->inlets; at != NULL; at = at->next) {
		sh_inlet_close(at);
	}
	sweep(transport);
}

static void keep(void *arg)
{
	struct sh_transport *transport = arg;
	do {
		step(transport);
	} while (keep_on(transport));
	hang_up_all(transport);
}

/* ---- open and close ---- */

/* What was bound: tcp with port 0 gets one. */
static rt_err bound_url(struct sh_transport *transport, const char *listen, struct rt_errinfo *info)
{
	nng_url *url = NULL;
	int port;
	char text[SH_URL_MAX + 1];
	(void)snprintf(text, sizeof(text), "%s", listen);
	if (nng_stream_listener_get_int(transport->listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0 &&
		nng_url_parse(&url, listen) == 0) {
		bool six = strchr(url->u_hostname, ':') != NULL;
		(void)snprintf(text, sizeof(text), "%s://%s%s%s:%d", url->u_scheme, six ? "[" : "",
			url->u_hostname, six ? "]" : "", port);
		nng_url_free(url);
	}
	transport->url = strdup(text);
	if (transport->url == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "open transport: no memory");
	}
	return RT_OK;
}

static rt_err listen_on(struct sh_transport *transport, const char *listen, struct rt_errinfo *info)
{
	int result = nng_stream_listener_alloc(&transport->listener, listen);
	if (result == 0) {
		result = nng_stream_listener_listen(transport->listener);
	}
	if (result == 0) {
		result = nng_aio_alloc(&transport->accept, on_accepted, transport);
	}
	if (result != 0) {
		return rt_errinfo_set(
			info, RT_E_IO, "listen for nodes on %s: %s", listen, nng_strerror(result));
	}
	nng_aio_set_timeout(transport->accept, 60000);
	return bound_url(transport, listen, info);
}

static rt_err take_options(struct sh_transport *transport,
	const struct sh_transport_options *options, struct rt_errinfo *info)
{
	struct sh_identity *self = &transport->options.self;
	transport->options = *options;
	transport->silence = options->silence_ms == 0 ? SILENCE_MS : options->silence_ms;
	if (options->queue_bytes == 0) {
		transport->options.queue_bytes = QUEUE_BYTES;
	}
	if (options->unreleased_bytes == 0) {
		transport->options.unreleased_bytes = UNRELEASED_BYTES;
	}
	transport->options.listen = NULL;
	self->rpc = strdup(options->self.rpc == NULL ? "" : options->self.rpc);
	self->peer = strdup(options->self.peer == NULL ? transport->url : options->self.peer);
	if (self->rpc == NULL || self->peer == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "open transport: no memory");
	}
	if (!sh_identity_valid(self)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"open transport: cluster, node, key or URL of this node cannot be said");
	}
	return RT_OK;
}

/* Of what was built, however little. */
static void dismantle(struct sh_transport *transport)
{
	for (uint32_t i = 0; i < atomic_load(&transport->count); i++) {
		remote_free(transport->remotes[i], SH_LANES);
	}
	nng_aio_free(transport->accept);
	nng_stream_listener_free(transport->listener);
	free((void *)(uintptr_t)transport->options.self.rpc);
	free((void *)(uintptr_t)transport->options.self.peer);
	free(transport->url);
	uv_cond_destroy(&transport->wake);
	uv_mutex_destroy(&transport->lock);
	free(transport);
}

static rt_err build(struct sh_transport *transport, const struct sh_transport_options *options,
	struct rt_errinfo *info)
{
	rt_err err = listen_on(transport, options->listen, info);
	if (err == RT_OK) {
		err = take_options(transport, options, info);
	}
	if (err == RT_OK && uv_thread_create(&transport->keeper, keep, transport) != 0) {
		err = rt_errinfo_set(info, RT_E_NOMEM, "open transport: no thread");
	}
	return err;
}

rt_err sh_transport_open(const struct sh_transport_options *options, struct sh_transport **out,
	struct rt_errinfo *info)
{
	struct sh_transport *transport = calloc(1, sizeof(*transport));
	if (transport == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "open transport: no memory");
	}
	transport->inlets_tail = &transport->inlets;
	if (uv_mutex_init(&transport->lock) != 0) {
		free(transport);
		return rt_errinfo_set(info, RT_E_NOMEM, "open transport: no mutex");
	}
	if (uv_cond_init(&transport->wake) != 0) {
		uv_mutex_destroy(&transport->lock);
		free(transport);
		return rt_errinfo_set(info, RT_E_NOMEM, "open transport: no condition");
	}
	rt_err err = build(transport, options, info);
	if (err != RT_OK) {
		dismantle(transport);
		return err;
	}
	*out = transport;
	return RT_OK;
}

void sh_transport_close(struct sh_transport *transport)
{
	if (transport == NULL) {
		return;
	}
	uv_mutex_lock(&transport->lock);
	transport->stopping = true;
	uv_cond_signal(&transport->wake);
	uv_mutex_unlock(&transport->lock);
	(void)uv_thread_join(&transport->keeper);
	dismantle(transport);
}

/* ---- what others call ---- */

const char *sh_transport_url(const struct sh_transport *transport)
{
	return transport->url;
}

/* Under the lock. Takes url. */
static rt_err set_url(struct sh_transport *transport, uint64_t node, char *url)
{
	struct sh_remote *remote =
		url == NULL ? find(transport, node) : find_or_make(transport, node);
	if (remote == NULL) {
		free(url);
		return url == NULL ? RT_OK : RT_E_NOMEM;
	}
	bool same = url == NULL ? remote->url == NULL
				: remote->url != NULL && strcmp(url, remote->url) == 0;
	if (same) {
		free(url);
		return RT_OK;
	}
	free(remote->url);
	remote->url = url;
	remote->url_change++;
	transport->woken = true;
	uv_cond_signal(&transport->wake);
	return RT_OK;
}

rt_err sh_transport_peer(struct sh_transport *transport, uint64_t node, const char *url)
{
	char *copy = NULL;
	if (node == 0 || node == transport->options.self.node ||
		(url != NULL && (url[0] == '\0' || strlen(url) > SH_URL_MAX))) {
		return RT_E_INVAL;
	}
	if (url != NULL && (copy = strdup(url)) == NULL) {
		return RT_E_NOMEM;
	}
	uv_mutex_lock(&transport->lock);
	rt_err err = set_url(transport, node, copy);
	uv_mutex_unlock(&transport->lock);
	return err;
}

rt_err sh_transport_send(
	struct sh_transport *transport, uint64_t node, enum sh_lane lane, struct rt_bytes frame)
{
	if (frame.size == 0 || lane >= SH_LANES) {
		return RT_E_INVAL;
	}
	if (frame.size > SH_FRAME_MAX) {
		return RT_E_TOOLARGE;
	}
	struct sh_remote *remote = find(transport, node);
	return remote == NULL ? RT_E_CLOSED : sh_outlet_send(&remote->outlet[lane], frame);
}

bool sh_transport_up(const struct sh_transport *transport, uint64_t node)
{
	const struct sh_remote *remote = find(transport, node);
	return remote != NULL && atomic_load(&remote->up);
}

void sh_transport_stats(const struct sh_transport *transport, struct sh_transport_stats *out)
{
	*out = (struct sh_transport_stats){.frames_out = atomic_load(&transport->frames_out),
		.bytes_out = atomic_load(&transport->bytes_out),
		.frames_in = atomic_load(&transport->frames_in),
		.bytes_in = atomic_load(&transport->bytes_in),
		.dropped = atomic_load(&transport->dropped),
		.connects = atomic_load(&transport->connects),
		.refused = atomic_load(&transport->refused)};
}
