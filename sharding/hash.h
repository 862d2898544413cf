/*
 * hash.h - the content of this node's replicas as one number each, so that copies can be compared.
 *
 * Threads: start on any; the logs are read by reader threads, one group after the other.
 */
#ifndef SHARDING_HASH_H
#define SHARDING_HASH_H

#include <stdatomic.h>

#include "actors/shard.h"

struct sh_hash_source {
	struct ac_host *host; /* of worker 0 */
	const _Atomic uint64_t *committed;
	uint32_t group_count;
	uint64_t node;
	void (*answered)(struct ac_host *host, struct ac_call *call);
};

/* Payload: a HashRequest as JSON. Never beyond what is committed here. Answers with
 * {"node":N,"shards":[{"shard":N,"first":N,"upto":N,"hash":"16 digits"},...]}. */
void sh_hash_start(const struct sh_hash_source *source, struct ac_call *call);

#endif
