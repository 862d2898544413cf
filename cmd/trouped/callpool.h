/*
 * callpool.h - room for the calls of messages under way, in blocks that are used again.
 *
 * Threads: any; one short lock per block of TD_BLOCK_CALLS calls.
 * Memory:  blocks are made when first needed, zeroed, and kept until free. The one given back last
 *          is taken first, because it is still in the cache.
 * Limits:  `calls` in all; then take says no.
 */
#ifndef CMD_TROUPED_CALLPOOL_H
#define CMD_TROUPED_CALLPOOL_H

#include "actors/call.h"
#include "runtime/base/err.h"

#define TD_BLOCK_CALLS 16u

struct td_block {
	struct td_block *next;
	struct ac_call calls[TD_BLOCK_CALLS];
};

struct td_callpool;

RT_NODISCARD rt_err td_callpool_new(uint32_t calls, struct td_callpool **out);
void td_callpool_free(struct td_callpool *pool); /* every block is back */

/* NULL: over the limit or out of memory. */
struct td_block *td_callpool_take(struct td_callpool *pool);
/* A chain of blocks; NULL is fine. */
void td_callpool_give(struct td_callpool *pool, struct td_block *chain);

#endif
