#include "cmd/trouped/callpool.h"

#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/assert.h"

struct td_callpool {
	pthread_mutex_t lock;
	struct td_block *idle;
	uint32_t made, max, out;
};

rt_err td_callpool_new(uint32_t calls, struct td_callpool **out)
{
	struct td_callpool *pool = calloc(1, sizeof(*pool));
	if (pool == NULL) {
		return RT_E_NOMEM;
	}
	pthread_mutex_init(&pool->lock, NULL);
	pool->max = (calls + TD_BLOCK_CALLS - 1) / TD_BLOCK_CALLS;
	*out = pool;
	return RT_OK;
}

void td_callpool_free(struct td_callpool *pool)
{
	if (pool == NULL) {
		return;
	}
	RT_ASSERT(pool->out == 0);
	while (pool->idle != NULL) {
		struct td_block *block = pool->idle;
		pool->idle = block->next;
		free(block);
	}
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

struct td_block *td_callpool_take(struct td_callpool *pool)
{
	bool make = false;
	pthread_mutex_lock(&pool->lock);
	struct td_block *block = pool->idle;
	if (block != NULL) {
		pool->idle = block->next;
		pool->out++;
	} else if (pool->made < pool->max) {
		pool->made++;
		pool->out++;
		make = true;
	}
	pthread_mutex_unlock(&pool->lock);
	if (make) {
		block = calloc(1, sizeof(*block));
		if (block == NULL) {
			pthread_mutex_lock(&pool->lock);
			pool->made--;
			pool->out--;
			pthread_mutex_unlock(&pool->lock);
		}
	}
	if (block != NULL) {
		block->next = NULL;
	}
	return block;
}

void td_callpool_give(struct td_callpool *pool, struct td_block *chain)
{
	if (chain == NULL) {
		return;
	}
	uint32_t count = 1;
	struct td_block *last = chain;
	for (; last->next != NULL; last = last->next) {
		count++;
	}
	pthread_mutex_lock(&pool->lock);
	last->next = pool->idle;
	pool->idle = chain;
	RT_ASSERT(pool->out >= count);
	pool->out -= count;
	pthread_mutex_unlock(&pool->lock);
}
