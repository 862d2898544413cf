/*
 * node_core.h - what the sources of the node (node.h) share. Nobody else includes it.
 *
 *   node.c        open and close, what regions report, its place in the cluster
 *   node_calls.c  calls of listeners: looked at, admitted, on their way to a worker
 */
#ifndef SHARDING_NODE_CORE_H
#define SHARDING_NODE_CORE_H

#include "sharding/feed.h"
#include "sharding/hash.h"
#include "sharding/node.h"
#include "sharding/peers.h"
#include "sharding/region_core.h"
#include "sharding/self.h"
#include "sharding/status.h"

#define SH_WORKERS_MAX 64u

struct sh_node {
	struct sh_node_options options;
	const struct ac_registry *registry;
	struct ps_store *store;
	struct rt_system *system;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	uint32_t shard_count, worker_count;
	struct sh_region **regions;
	struct sh_feed *feed;
	_Atomic uint64_t *committed;
	uint64_t opened_ns;
	uv_mutex_t mutex;
	uv_cond_t changed; /* regions started, calls drained, steps of close */
	uint32_t regions_busy;
	_Atomic uint64_t calls; /* under way */
	struct sh_pace pace;
	_Atomic bool closing, failed;
	bool running, handed;
	struct sh_status_source status;
	struct sh_self self;
	char name[40];
	_Atomic bool heard;     /* a table came in this life */
	uint64_t asked_ns;      /* who there is: of sh_node_wait_ready */
	_Atomic(char *) rpc;    /* URL for clients; never freed before the end */
	struct sh_peers *peers; /* NULL: a node alone */
	struct sh_hash_source hash;
	struct sh_coordinator_options coordinator;
};

/* A call that was admitted is done: it is its listener's again. */
void sh_node_answered(struct ac_host *host, struct ac_call *call);

#endif
