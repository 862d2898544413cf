/*
 * unindexed.h - which committed records of a shard the index on disk may not have yet: offset and
 * hash of the persistence id, oldest first.
 *
 * The indexer lags on purpose. Whoever reads an entity takes its rows from the index and what is
 * newer from here, on a leader and on a follower alike, so that leadership can move at any time.
 *
 * Threads: the worker that owns the shard.
 * Memory:  16 bytes per record; none once all are indexed. Bounded by the indexer's backlog.
 */
#ifndef ACTORS_UNINDEXED_H
#define ACTORS_UNINDEXED_H

#include <stdint.h>

struct ac_unindexed {
	struct ac_unindexed_row {
		uint64_t offset, hash;
	} * rows; /* ring, power of two */
	uint32_t mask, head, count;
};

/* Offsets ascend. */
void ac_unindexed_add(struct ac_unindexed *list, uint64_t offset, uint64_t hash);
/* The index has everything up to there. */
void ac_unindexed_prune(struct ac_unindexed *list, uint64_t watermark);
/* Offsets with this hash, ascending; *out is malloc'd when there are some. Ids may share a hash. */
uint32_t ac_unindexed_find(const struct ac_unindexed *list, uint64_t hash, uint64_t **out);
void ac_unindexed_clear(struct ac_unindexed *list);

#endif
