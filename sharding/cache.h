/*
 * cache.h - the newest records of one shard's log, in memory, by index.
 *
 * A replica sends its peers from here and only what is older from the log. Records lie one behind
 * the other in chunks; an index without gaps finds them.
 *
 * Memory: copies what is pushed. Nothing is allocated before the first record; chunks grow with
 *         the use. A view is good until the record is dropped, cut or cleared away.
 * Limits: the owner drops from the front by `memory` (bytes allocated, not bytes of records).
 */
#ifndef SHARDING_CACHE_H
#define SHARDING_CACHE_H

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

struct sh_chunk;
struct sh_slot;

struct sh_cache {
	struct sh_slot *slots; /* ring */
	struct sh_chunk *head, *tail;
	uint64_t first; /* index of the oldest record; meaningless when count is 0 */
	uint64_t memory;
	uint32_t mask, start, count;
};

/* Makes room, so that the next `count` pushes of `bytes` together cannot fail. RT_E_NOMEM: nothing
 * changed. */
RT_NODISCARD rt_err sh_cache_reserve(struct sh_cache *cache, uint32_t count, size_t bytes);
/* Room was reserved. index follows the newest record; into an empty cache any will do. */
void sh_cache_push(struct sh_cache *cache, uint64_t index, struct rt_bytes record);
/* False: not here. */
bool sh_cache_get(const struct sh_cache *cache, uint64_t index, struct rt_bytes *out);
/* Takes back everything from index on. */
void sh_cache_cut(struct sh_cache *cache, uint64_t index);
/* The oldest record goes. There is one. */
void sh_cache_drop(struct sh_cache *cache);
/* Everything goes, the memory too. */
void sh_cache_clear(struct sh_cache *cache);

#endif
