#include "runtime/base/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

#define BLOCK_DEFAULT ((size_t)16 * 1024)
#define ALIGN         ((size_t)16)

struct rt_arena_block {
	struct rt_arena_block *older;
	size_t size; /* behind this header */
};

_Static_assert(sizeof(struct rt_arena_block) % ALIGN == 0, "pieces start aligned");

void rt_arena_init(struct rt_arena *arena, size_t block_bytes, size_t limit_bytes)
{
	memset(arena, 0, sizeof(*arena));
	arena->block_bytes = block_bytes != 0 ? block_bytes : BLOCK_DEFAULT;
	arena->limit_bytes = limit_bytes != 0 ? limit_bytes : SIZE_MAX;
}

static void release(struct rt_arena_block *block)
{
	while (block != NULL) {
		struct rt_arena_block *older = block->older;
		free(block);
		block = older;
	}
}

void rt_arena_done(struct rt_arena *arena)
{
	release(arena->block);
	memset(arena, 0, sizeof(*arena));
}

static void enter(struct rt_arena *arena, struct rt_arena_block *block)
{
	arena->block = block;
	arena->at = (char *)(block + 1);
	arena->end = arena->at + block->size;
}

void rt_arena_reset(struct rt_arena *arena)
{
	struct rt_arena_block *keep = NULL;
	struct rt_arena_block *block = arena->block;
	while (block != NULL) {
		struct rt_arena_block *older = block->older;
		if (keep == NULL && block->size == arena->block_bytes) {
			keep = block;
		} else {
			free(block);
		}
		block = older;
	}
	arena->used_bytes = 0;
	arena->block = NULL;
	arena->at = arena->end = NULL;
	if (keep != NULL) {
		keep->older = NULL;
		enter(arena, keep);
	}
}

/* A piece bigger than a block gets one of its own, placed behind the current block so that the
 * rest of that one stays in use. */
static void *alloc_block(struct rt_arena *arena, size_t size)
{
	bool own = size > arena->block_bytes / 4 && arena->block != NULL;
	size_t bytes = own || size > arena->block_bytes ? size : arena->block_bytes;
	struct rt_arena_block *block = malloc(sizeof(*block) + bytes);
	if (block == NULL) {
		return NULL;
	}
	block->size = bytes;
	if (own) {
		block->older = arena->block->older;
		arena->block->older = block;
		return block + 1;
	}
	block->older = arena->block;
	enter(arena, block);
	arena->at += size;
	return block + 1;
}

void *rt_arena_alloc(struct rt_arena *arena, size_t size)
{
	RT_ASSERT(arena->block_bytes != 0);
	if (size > SIZE_MAX / 2) {
		return NULL;
	}
	size = (size + ALIGN - 1) & ~(ALIGN - 1);
	if (size > arena->limit_bytes - arena->used_bytes) {
		return NULL;
	}
	void *piece;
	if (size <= (size_t)(arena->end - arena->at)) {
		piece = arena->at;
		arena->at += size;
	} else {
		piece = alloc_block(arena, size);
	}
	if (piece != NULL) {
		arena->used_bytes += size;
	}
	return piece;
}

void *rt_arena_copy(struct rt_arena *arena, const void *data, size_t size)
{
	if (size == SIZE_MAX) {
		return NULL;
	}
	char *piece = rt_arena_alloc(arena, size + 1);
	if (piece != NULL) {
		if (size > 0) {
			memcpy(piece, data, size);
		}
		piece[size] = '\0';
	}
	return piece;
}

void *rt_arena_alloc_for(void *arena, size_t size)
{
	return rt_arena_alloc(arena, size);
}

void rt_arena_free_for(void *arena, void *piece)
{
	(void)arena;
	(void)piece;
}
