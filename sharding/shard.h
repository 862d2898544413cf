/*
 * shard.h - which shard an entity belongs to: a hash of its persistence id, modulo the number of
 * shards that was fixed when the store was made. Stable for ever: it decides where data lies.
 */
#ifndef SHARDING_SHARD_H
#define SHARDING_SHARD_H

#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/hash.h"

#define SH_SHARDS_DEFAULT 64u
#define SH_SHARDS_MAX     1024u

static inline uint32_t sh_shard_of_hash(uint64_t hash, uint32_t shard_count)
{
	return (uint32_t)(hash % shard_count);
}

/* pid is "type|id". */
static inline uint32_t sh_shard_of(struct rt_bytes pid, uint32_t shard_count)
{
	return sh_shard_of_hash(rt_hash(pid.data, pid.size), shard_count);
}

#endif
