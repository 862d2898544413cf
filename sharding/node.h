/*
 * node.h - one running node: store, writer, indexer, readers, workers, a shard region on each, and
 * the transport to the other nodes of its cluster.
 *
 * Threads: open and close from one thread that is no worker; submit and status from any.
 * Blocking: open replays and re-indexes what a crash left, with progress in the log. close answers
 *           what is under way, flushes and stops, bounded by about two seconds plus the disk.
 */
#ifndef SHARDING_NODE_H
#define SHARDING_NODE_H

#include "actors/call.h"
#include "actors/registry.h"
#include "runtime/base/err.h"

struct sh_node;

/* A node's place among others. All zero: a node alone. */
struct sh_node_cluster {
	const char *listen;    /* URL where other nodes reach this one; NULL: nowhere */
	const char *advertise; /* what they are told instead of what was bound; NULL: that */
	const char *name;      /* for people; NULL: "node" and the number */
	const char *join; /* URLs of members, with commas: where a new store asks to be taken in */
	uint32_t join_ms; /* how long; 0: 60,000 */
	uint32_t replication;   /* of a new cluster; 0: 3 */
	uint32_t dead_after_ms; /* of a new cluster; 0: 60,000 */
	uint32_t election_ms;   /* 0: 1,000 */
	uint32_t heartbeat_ms;  /* 0: 100 */
	/* This node has left the cluster: its replicas are elsewhere. Any thread, once. */
	void (*left)(void *arg);
	/* Another node refuses this one for good: a clone of a live one, another cluster. */
	void (*refused)(void *arg, const char *why);
};

struct sh_node_options {
	const char *dir;
	bool create;                   /* make the store when there is none */
	uint32_t shard_count;          /* new store: 0 is 64; existing: 0 or equal */
	uint32_t workers;              /* 0: one less than the cores, at least 1 */
	uint32_t readers;              /* 0: 2 */
	uint64_t entity_memory_bytes;  /* budget of all entities in memory; 0: 256 MiB */
	uint32_t passivate_after_ms;   /* idle; 0: 120,000 */
	uint32_t snapshot_every;       /* events; 0: 50 */
	uint64_t block_cache_bytes;    /* 0: 64 MiB */
	uint64_t free_space_low_bytes; /* 0: 256 MiB */
	uint32_t calls_max;            /* calls under way on the node, then BUSY; 0: 65,536 */
	struct sh_node_cluster cluster;
	void (*failed)(void *arg, const char *why); /* a write or sync failed: any thread, once */
	void *arg;
};

RT_NODISCARD rt_err sh_node_open(const struct sh_node_options *options,
	const struct ac_registry *registry, struct sh_node **out, struct rt_errinfo *info);
/* Three steps to the end, each of which does the ones before it if they were not done: leadership
 * goes to other nodes while calls are still served (forwarded); calls under way are answered and
 * new ones refused; everything stops. NULL is a no-op. */
void sh_node_hand_over(struct sh_node *node);
bool sh_node_drain(struct sh_node *node); /* false: some calls are answered by close only */
void sh_node_close(struct sh_node *node);

/* Who this node is: its cluster's id, its number, and the URL at which other nodes reach it ("": a
 * node alone). They live as long as the node. */
void sh_node_identity(
	const struct sh_node *node, const char **cluster, uint64_t *number, const char **peer);
/* URL at which clients reach this node, for the others to know; copied. */
void sh_node_advertise(struct sh_node *node, const char *rpc);
/* Waits until every shard's leader is known here, at most so long. False: it is not. A node that
 * joined and was not heard asks once more, which may take 2 s. One thread at a time. */
bool sh_node_wait_ready(struct sh_node *node, uint32_t timeout_ms);

/* A chain of calls (ac_call.next) from one listener thread. Every call's done runs exactly once, on
 * a worker, or at once on this thread when the node refuses it (BUSY, BAD_REQUEST, NOT_FOUND). */
void sh_node_submit(struct sh_node *node, struct ac_call *chain);

/* JSON object for people and scrapers: store, shards, entities, scheduler, quarantined entities.
 * Waits for each worker in turn, so never on a worker. out is overwritten. */
void sh_node_status(struct sh_node *node, struct pr_text *out);

#endif
