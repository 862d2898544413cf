/*
 * peers.h - who is connected, and how much of the node each connection uses right now.
 *
 * Threads: add and remove from nng's pipe events; find, take and give from any thread, without a
 *          lock. A slot of a gone connection is used again only when nothing of it is under way, so
 *          a take is always given back to the slot it was taken from.
 * Limits:  TD_PEER_SLOTS connections at most, fewer when told.
 */
#ifndef CMD_TROUPED_PEERS_H
#define CMD_TROUPED_PEERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define TD_PEER_SLOTS 4096u

struct td_peer {
	_Atomic uint32_t id; /* nng's pipe id; 0: free */
	_Atomic uint32_t messages, calls;
	_Atomic uint64_t bytes;
	_Atomic uint64_t key; /* of its connection (connection.h); 0: none */
	_Atomic bool cut;     /* it is being disconnected: nothing of it is answered any more */
};

struct td_peer_limits {
	uint32_t connections;
	uint32_t messages, calls; /* under way, of one connection */
	uint64_t bytes;
};

struct td_peers;

RT_NODISCARD rt_err td_peers_new(const struct td_peer_limits *limits, struct td_peers **out);
void td_peers_free(struct td_peers *peers);

/* False: over the limit of connections; refuse it. */
bool td_peers_add(struct td_peers *peers, uint32_t id, uint64_t key);
void td_peers_remove(struct td_peers *peers, uint32_t id);
/* The same, but looks first for those that are gone although nng never said so (connection.h). */
bool td_peers_admit(struct td_peers *peers, uint32_t id, uint64_t key);
/* Removes those whose key is not among the living; returns how many. */
uint32_t td_peers_sweep(struct td_peers *peers, const uint64_t *living, size_t count);
uint32_t td_peers_count(const struct td_peers *peers);

/* NULL: it is gone already. */
struct td_peer *td_peers_find(struct td_peers *peers, uint32_t id);
/* One message with so many calls and bytes. False: over a limit, nothing is taken. */
bool td_peer_take(
	const struct td_peers *peers, struct td_peer *peer, uint32_t calls, uint64_t bytes);
void td_peer_give(struct td_peer *peer, uint32_t calls, uint64_t bytes);

#endif
