#include "sharding/cache.h"

#include <stdlib.h>

#include "runtime/base/assert.h"

#define CHUNK_MIN 1024u
#define CHUNK_MAX 32768u
#define SLOTS_MIN 16u

struct sh_chunk {
	struct sh_chunk *prev, *next;
	uint32_t used, cap;
	uint8_t bytes[];
};

struct sh_slot {
	struct sh_chunk *chunk;
	uint32_t pos, size;
};

static struct sh_slot *slot_at(const struct sh_cache *cache, uint32_t i)
{
	return &cache->slots[(cache->start + i) & cache->mask];
}

static rt_err grow_slots(struct sh_cache *cache, uint32_t want)
{
	uint32_t cap = SLOTS_MIN;
	while (cap < want) {
		cap *= 2;
	}
	struct sh_slot *slots = calloc(cap, sizeof(*slots));
	if (slots == NULL) {
		return RT_E_NOMEM;
	}
	for (uint32_t i = 0; i < cache->count; i++) {
		slots[i] = *slot_at(cache, i);
	}
	cache->memory += cap * sizeof(*slots);
	if (cache->slots != NULL) {
		cache->memory -= (cache->mask + 1u) * sizeof(*slots);
	}
	free(cache->slots);
	cache->slots = slots;
	cache->start = 0;
	cache->mask = cap - 1;
	return RT_OK;
}

/* Twice the last one, so that a shard with little to do stays small. */
static rt_err add_chunk(struct sh_cache *cache, size_t bytes)
{
	size_t cap = CHUNK_MIN;
	if (cache->tail != NULL) {
		cap = cache->tail->cap >= CHUNK_MAX / 2 ? CHUNK_MAX : 2u * cache->tail->cap;
	}
	cap = cap < bytes ? bytes : cap;
	struct sh_chunk *chunk = cap > UINT32_MAX ? NULL : malloc(sizeof(*chunk) + cap);
	if (chunk == NULL) {
		return RT_E_NOMEM;
	}
	*chunk = (struct sh_chunk){.prev = cache->tail, .cap = (uint32_t)cap};
	if (cache->tail != NULL) {
		cache->tail->next = chunk;
	} else {
		cache->head = chunk;
	}
	cache->tail = chunk;
	cache->memory += sizeof(*chunk) + cap;
	return RT_OK;
}

static void remove_chunk(struct sh_cache *cache, struct sh_chunk *chunk)
{
	if (chunk == cache->head) {
		cache->head = chunk->next;
	} else {
		chunk->prev->next = chunk->next;
	}
	if (chunk == cache->tail) {
		cache->tail = chunk->prev;
	} else {
		chunk->next->prev = chunk->prev;
	}
	cache->memory -= sizeof(*chunk) + chunk->cap;
	free(chunk);
}

rt_err sh_cache_reserve(struct sh_cache *cache, uint32_t count, size_t bytes)
{
	if (cache->slots == NULL || cache->count + count > cache->mask + 1u) {
		rt_err err = grow_slots(cache, cache->count + count);
		if (err != RT_OK) {
			return err;
		}
	}
	if (cache->tail == NULL || cache->tail->cap - cache->tail->used < bytes) {
		return add_chunk(cache, bytes);
	}
	return RT_OK;
}

void sh_cache_push(struct sh_cache *cache, uint64_t index, struct rt_bytes record)
{
	struct sh_chunk *chunk = cache->tail;
	RT_ASSERT(chunk != NULL && chunk->cap - chunk->used >= record.size);
	RT_ASSERT(cache->count == 0 || index == cache->first + cache->count);
	if (cache->count == 0) {
		cache->first = index;
	}
	*slot_at(cache, cache->count++) =
		(struct sh_slot){.chunk = chunk, .pos = chunk->used, .size = (uint32_t)record.size};
	memcpy(chunk->bytes + chunk->used, record.data, record.size);
	chunk->used += (uint32_t)record.size;
}

bool sh_cache_get(const struct sh_cache *cache, uint64_t index, struct rt_bytes *out)
{
	if (cache->count == 0 || index < cache->first || index - cache->first >= cache->count) {
		return false;
	}
	const struct sh_slot *slot = slot_at(cache, (uint32_t)(index - cache->first));
	*out = rt_bytes_of(slot->chunk->bytes + slot->pos, slot->size);
	return true;
}

/* The newest chunk stays, since what was reserved lies in it. */
void sh_cache_cut(struct sh_cache *cache, uint64_t index)
{
	if (cache->count == 0 || cache->first + cache->count <= index) {
		return;
	}
	cache->count = index <= cache->first ? 0 : (uint32_t)(index - cache->first);
	const struct sh_slot *slot = slot_at(cache, cache->count); /* the first that goes */
	for (struct sh_chunk *chunk = slot->chunk->next; chunk != NULL && chunk != cache->tail;) {
		struct sh_chunk *next = chunk->next;
		remove_chunk(cache, chunk);
		chunk = next;
	}
	while (cache->count == 0 && cache->head != cache->tail) {
		remove_chunk(cache, cache->head);
	}
	cache->tail->used = cache->count > 0 && cache->tail == slot->chunk ? slot->pos : 0;
}

void sh_cache_drop(struct sh_cache *cache)
{
	RT_ASSERT(cache->count > 0);
	cache->start = (cache->start + 1) & cache->mask;
	cache->first++;
	cache->count--;
	const struct sh_chunk *keep = cache->count == 0 ? cache->tail : slot_at(cache, 0)->chunk;
	while (cache->head != keep) {
		remove_chunk(cache, cache->head);
	}
	if (cache->count > 0) {
		return;
	}
	/* The next record finds a chunk unless it would be a big one for nothing. */
	cache->tail->used = 0;
	if (cache->tail->cap > CHUNK_MAX) {
		remove_chunk(cache, cache->tail);
	}
}

void sh_cache_clear(struct sh_cache *cache)
{
	while (cache->head != NULL) {
		remove_chunk(cache, cache->head);
	}
	free(cache->slots);
	*cache = (struct sh_cache){0};
}
