/* A group with one voter: it elects itself at start and commits what its own store holds. */
#include "sharding/solo.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

#define HARD_BYTES 16u /* term, vote: u64 little endian each */

struct sh_solo {
	struct sh_solo_options options;
	uint64_t term;
	uint64_t last;      /* proposed */
	uint64_t committed; /* = stored */
	bool leading;
};

/* "hard" + shard u16 BE */
static struct rt_bytes hard_key(uint32_t shard, uint8_t out[6])
{
	memcpy(out, "hard", 4);
	out[4] = (uint8_t)(shard >> 8);
	out[5] = (uint8_t)shard;
	return rt_bytes_of(out, 6);
}

rt_err sh_solo_open(
	const struct sh_solo_options *options, struct sh_solo **out, struct rt_errinfo *info)
{
	uint8_t key[6];
	struct rt_bytes hard = {0};
	uint64_t term = 0;
	rt_err err = ps_store_meta_get(options->store, hard_key(options->shard, key), &hard, info);
	if (err == RT_OK && hard.size == HARD_BYTES) {
		memcpy(&term, hard.data, sizeof(term));
	}
	free((void *)(uintptr_t)hard.data);
	if (err != RT_OK && err != RT_E_NOTFOUND) {
		return rt_errinfo_wrap(info, err, "shard %u: term and vote", options->shard);
	}
	struct sh_solo *replica = calloc(1, sizeof(*replica));
	if (replica == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "shard %u", options->shard);
	}
	replica->options = *options;
	replica->term = term;
	replica->last = ps_store_last_offset(options->store, options->shard);
	*out = replica;
	return RT_OK;
}

void sh_solo_close(struct sh_solo *replica)
{
	free(replica);
}

rt_err sh_solo_start(struct sh_solo *replica, struct ps_round *round)
{
	uint8_t key[6], hard[HARD_BYTES];
	uint64_t self = 1;
	replica->term++;
	memcpy(hard, &replica->term, 8);
	memcpy(hard + 8, &self, 8);
	rt_err err = ps_round_add_meta(
		round, hard_key(replica->options.shard, key), rt_bytes_of(hard, sizeof(hard)));
	if (err != RT_OK) {
		return err;
	}
	replica->leading = true;
	replica->committed = replica->last;
	replica->options.events->lead(replica->options.arg, replica->term, replica->last);
	return RT_OK;
}

rt_err sh_solo_propose(struct sh_solo *replica, uint32_t count, uint64_t *out_first)
{
	if (!replica->leading) {
		return RT_E_FENCED;
	}
	*out_first = replica->last + 1;
	replica->last += count;
	return RT_OK;
}

void sh_solo_stored(struct sh_solo *replica, uint64_t index)
{
	RT_ASSERT(index <= replica->last && index >= replica->committed);
	replica->committed = index;
	replica->options.events->committed(replica->options.arg, index);
}

void sh_solo_fail(struct sh_solo *replica)
{
	replica->leading = false;
}
