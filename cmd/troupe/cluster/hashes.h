/*
 * hashes.h - what nodes say their replicas hold, shard by shard, and whether it is the same.
 *
 * A hash stands for the records `first` to `upto` of a shard. Replicas of a living cluster are
 * never equally long, so those that are longer are asked again for the shortest one's end. Memory:
 * of the struct, until tr_hashes_done. Threads: one.
 */
#ifndef CMD_TROUPE_CLUSTER_HASHES_H
#define CMD_TROUPE_CLUSTER_HASHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/json.h"
#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

#define TR_HASH_MAX 64u

struct tr_hash {
	bool there; /* the node has a log of that shard */
	bool asked; /* once more: gone unless the next answer has it */
	uint64_t first, upto;
	char hash[TR_HASH_MAX + 1];
};

/* One node's, by number of shard. */
struct tr_hashes {
	uint64_t node;
	struct tr_hash *of;
	size_t count;
};

RT_NODISCARD rt_err tr_hashes_init(struct tr_hashes *hashes, uint64_t node, size_t count);
void tr_hashes_done(struct tr_hashes *hashes); /* zeroed is a no-op */
/* Takes what an answer says; once there was a question, of the shards in it only. RT_E_PROTO: info.
 */
RT_NODISCARD rt_err tr_hashes_read(
	struct tr_hashes *hashes, struct rt_bytes json, struct rt_errinfo *info);

/* The end of the shortest replica; 0: nobody has one. */
uint64_t tr_hashes_common(const struct tr_hashes *all, size_t count, size_t shard);
/* The question for a node's hashes up to the common ends, of the shards where it is longer:
 * {"upto":[[shard,offset],...]}. False: there is nothing to ask. */
bool tr_hashes_question(
	const struct tr_hashes *all, size_t count, const struct tr_hashes *of, struct pr_text *out);
/* All that are there begin and end alike and say the same. Nobody there is equal. */
bool tr_hashes_equal(const struct tr_hashes *all, size_t count, size_t shard);

#endif
