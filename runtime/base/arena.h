/*
 * arena.h - bump allocator: many small pieces, all given back at once.
 *
 * Threads: one owner at a time.
 * Memory:  pieces stay where they are until reset or done; 16-byte aligned, not zeroed.
 * Limits:  limit_bytes over all pieces since the last reset; over it alloc returns NULL, so a
 *          hostile message cannot make the decoder take more.
 */
#ifndef RUNTIME_BASE_ARENA_H
#define RUNTIME_BASE_ARENA_H

#include <stddef.h>

#include "runtime/base/annot.h"

struct rt_arena_block;

struct rt_arena {
	struct rt_arena_block *block; /* newest first */
	char *at, *end;
	size_t used_bytes, limit_bytes;
	size_t block_bytes;
};

/* Allocates nothing yet. block_bytes 0: 16 KiB; limit_bytes 0: no limit. */
void rt_arena_init(struct rt_arena *arena, size_t block_bytes, size_t limit_bytes);
void rt_arena_done(struct rt_arena *arena);
/* Gives everything back but one ordinary block, which the next round starts in. */
void rt_arena_reset(struct rt_arena *arena);
/* NULL: over the limit or out of memory. A size of 0 gives a pointer that may not be read. */
RT_NODISCARD void *rt_arena_alloc(struct rt_arena *arena, size_t size);
/* A copy with a zero byte behind it that size does not count. */
RT_NODISCARD void *rt_arena_copy(struct rt_arena *arena, const void *data, size_t size);

/* In the shape of ProtobufCAllocator: {rt_arena_alloc_for, rt_arena_free_for, &arena}. */
void *rt_arena_alloc_for(void *arena, size_t size);
void rt_arena_free_for(void *arena, void *piece); /* does nothing */

#endif
