/*
 * feed.h - reads over all shards of a node in commit order per shard, as a long poll.
 *
 * A request is answered at once when there is something after its position, else at the commit that
 * brings something, else empty when its time is up. The position is one printable token.
 *
 * Threads: the desk lives on worker 0; sh_feed_progressed from any worker.
 */
#ifndef SHARDING_FEED_H
#define SHARDING_FEED_H

#include <stdatomic.h>

#include "actors/shard.h"

struct sh_feed;

/* committed: the newest committed offset of every shard of the node. */
RT_NODISCARD rt_err sh_feed_open(struct ac_host *host, uint32_t shard_count,
	const _Atomic uint64_t *committed, struct sh_feed **out);
void sh_feed_free(struct sh_feed *feed);
/* On worker 0. Always answered. */
void sh_feed_call(struct sh_feed *feed, struct ac_call *call);
void sh_feed_progressed(struct sh_feed *feed);
/* Answers everything that waits; on worker 0. */
void sh_feed_stop(struct sh_feed *feed);

/* Tokens: "f1." and the offset of each shard in hexadecimal, dots between, zeros left out. */
#define SH_POSITION_MAX(shards) (8u + 17u * (shards))
void sh_position_print(const uint64_t *offsets, uint32_t shard_count, char *out);
/* False: not a token of a feed with that many shards. */
bool sh_position_parse(const char *token, uint64_t *offsets, uint32_t shard_count);

#endif
