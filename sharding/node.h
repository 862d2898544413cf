/*
 * node.h - one running node: store, writer, indexer, readers, workers, a shard region on each.
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
	void (*failed)(void *arg, const char *why); /* a write or sync failed: any thread, once */
	void *arg;
};

RT_NODISCARD rt_err sh_node_open(const struct sh_node_options *options,
	const struct ac_registry *registry, struct sh_node **out, struct rt_errinfo *info);
void sh_node_close(struct sh_node *node);

/* A chain of calls (ac_call.next) from one listener thread. Every call's done runs exactly once, on
 * a worker, or at once on this thread when the node refuses it (BUSY, BAD_REQUEST, NOT_FOUND). */
void sh_node_submit(struct sh_node *node, struct ac_call *chain);

/* JSON object for people and scrapers: store, shards, entities, scheduler, quarantined entities.
 * Waits for each worker in turn, so never on a worker. out is overwritten. */
void sh_node_status(struct sh_node *node, struct pr_text *out);

#endif
