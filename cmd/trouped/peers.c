#include "cmd/trouped/peers.h"

#include <pthread.h>
#include <stdlib.h>

#include "cmd/trouped/connection.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define SWEEP_EVERY_MS 50u
#define WINDOW         32u /* slots looked at for one id; pipe ids count up, so they spread evenly */

struct td_peers {
	struct td_peer_limits limits;
	pthread_mutex_t lock; /* of add and remove */
	_Atomic uint32_t count;
	_Atomic uint64_t swept_ms;
	struct td_peer slots[TD_PEER_SLOTS];
};

rt_err td_peers_new(const struct td_peer_limits *limits, struct td_peers **out)
{
	struct td_peers *peers = calloc(1, sizeof(*peers));
	if (peers == NULL) {
		return RT_E_NOMEM;
	}
	peers->limits = *limits;
	pthread_mutex_init(&peers->lock, NULL);
	*out = peers;
	return RT_OK;
}

void td_peers_free(struct td_peers *peers)
{
	if (peers != NULL) {
		pthread_mutex_destroy(&peers->lock);
		free(peers);
	}
}

static struct td_peer *slot_at(struct td_peers *peers, uint32_t id, uint32_t step)
{
	return &peers->slots[(id + step) % TD_PEER_SLOTS];
}

static struct td_peer *free_slot(struct td_peers *peers, uint32_t id)
{
	for (uint32_t step = 0; step < WINDOW; step++) {
		struct td_peer *peer = slot_at(peers, id, step);
		if (atomic_load(&peer->id) == 0 && atomic_load(&peer->messages) == 0) {
			return peer;
		}
	}
	return NULL;
}

bool td_peers_add(struct td_peers *peers, uint32_t id, uint64_t key)
{
	pthread_mutex_lock(&peers->lock);
	struct td_peer *peer = NULL;
	if (id != 0 && atomic_load(&peers->count) < peers->limits.connections) {
		peer = free_slot(peers, id);
	}
	if (peer != NULL) {
		atomic_store(&peer->cut, false);
		atomic_store(&peer->key, key);
		atomic_store(&peer->id, id);
		atomic_fetch_add(&peers->count, 1);
	}
	pthread_mutex_unlock(&peers->lock);
	return peer != NULL;
}

void td_peers_remove(struct td_peers *peers, uint32_t id)
{
	pthread_mutex_lock(&peers->lock);
	struct td_peer *peer = td_peers_find(peers, id);
	if (peer != NULL) {
		atomic_store(&peer->id, 0);
		atomic_fetch_sub(&peers->count, 1);
	}
	pthread_mutex_unlock(&peers->lock);
}

static bool contains(const uint64_t *keys, size_t count, uint64_t key)
{
	for (size_t i = 0; i < count; i++) {
		if (keys[i] == key) {
			return true;
		}
	}
	return false;
}

uint32_t td_peers_sweep(struct td_peers *peers, const uint64_t *living, size_t count)
{
	uint32_t removed = 0;
	pthread_mutex_lock(&peers->lock);
	for (size_t i = 0; i < TD_PEER_SLOTS; i++) {
		struct td_peer *peer = &peers->slots[i];
		uint64_t key = atomic_load(&peer->key);
		if (atomic_load(&peer->id) != 0 && key != 0 && !contains(living, count, key)) {
			atomic_store(&peer->id, 0);
			atomic_fetch_sub(&peers->count, 1);
			removed++;
		}
	}
	pthread_mutex_unlock(&peers->lock);
	return removed;
}

static void sweep(struct td_peers *peers)
{
	uint64_t now_ms = rt_clock_now_ns() / 1000000u;
	uint64_t last_ms = atomic_load(&peers->swept_ms);
	if (now_ms < last_ms + SWEEP_EVERY_MS ||
		!atomic_compare_exchange_strong(&peers->swept_ms, &last_ms, now_ms)) {
		return;
	}
	uint64_t *living = malloc(TD_PEER_SLOTS * sizeof(*living));
	if (living == NULL) {
		return;
	}
	uint32_t gone = td_peers_sweep(peers, living, td_connection_alive(living, TD_PEER_SLOTS));
	if (gone > 0) {
		rt_log(RT_LOG_WARN, "listener",
			"nng keeps %u connections that are gone; a restart frees them", gone);
	}
	free(living);
}

bool td_peers_admit(struct td_peers *peers, uint32_t id, uint64_t key)
{
	if (td_peers_add(peers, id, key)) {
		return true;
	}
	sweep(peers);
	return td_peers_add(peers, id, key);
}

uint32_t td_peers_count(const struct td_peers *peers)
{
	return atomic_load(&peers->count);
}

struct td_peer *td_peers_find(struct td_peers *peers, uint32_t id)
{
	for (uint32_t step = 0; id != 0 && step < WINDOW; step++) {
		struct td_peer *peer = slot_at(peers, id, step);
		if (atomic_load_explicit(&peer->id, memory_order_relaxed) == id) {
			return peer;
		}
	}
	return NULL;
}

bool td_peer_take(
	const struct td_peers *peers, struct td_peer *peer, uint32_t calls, uint64_t bytes)
{
	uint32_t messages = atomic_fetch_add(&peer->messages, 1) + 1;
	uint32_t all = atomic_fetch_add(&peer->calls, calls) + calls;
	uint64_t size = atomic_fetch_add(&peer->bytes, bytes) + bytes;
	if (messages > peers->limits.messages || all > peers->limits.calls ||
		size > peers->limits.bytes) {
		td_peer_give(peer, calls, bytes);
		return false;
	}
	return true;
}

void td_peer_give(struct td_peer *peer, uint32_t calls, uint64_t bytes)
{
	uint64_t had = atomic_fetch_sub(&peer->bytes, bytes);
	RT_ASSERT(had >= bytes);
	atomic_fetch_sub(&peer->calls, calls);
	/* Last: a slot without messages may be given to another connection. */
	atomic_fetch_sub(&peer->messages, 1);
}
