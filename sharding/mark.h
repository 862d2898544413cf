/*
 * mark.h - the row "raft" + shard in the meta family: what of a replica is not in its log.
 *
 * A mark says where the log's story may be read on from: floor, terms and membership sets up to an
 * index that was committed and durable. version u8 (1), state u8, floor, floor term, mark u64, the
 * bar's index and term u64, set count u8, run count u16; the set in force at the floor and those
 * above it: index u64 and the members (members.h); the runs above the floor: first u64, term u64;
 * at the end the hash of all that, u64. Numbers are little endian.
 *
 * Limits: bytes from a disk are never trusted: whatever is not what encode writes is RT_E_CORRUPT.
 */
#ifndef SHARDING_MARK_H
#define SHARDING_MARK_H

#include "sharding/raft.h"

enum sh_mark_state {
	SH_MARK_NORMAL,
	SH_MARK_INSTALLING, /* the log is worth nothing: it is being fetched from a peer */
	SH_MARK_REMOVED,    /* tombstone: a member no more */
	SH_MARK_STATES
};

struct sh_mark {
	enum sh_mark_state state;
	uint64_t floor, floor_term;
	uint64_t mark;                /* at least the floor */
	uint64_t bar_index, bar_term; /* see raft.h */
	struct sh_raft_set base;
	const struct sh_raft_set *sets; /* floor < index <= mark, ascending */
	const struct sh_raft_run *runs; /* floor < first <= mark, ascending, as are the terms */
	uint32_t set_count, run_count;
	void *memory; /* of a decoded one */
};

#define SH_HARD_BYTES 16u
#define SH_KEY_BYTES  6u
/* "hard" or "raft", shard u16 big endian. Returns a view of out. */
struct rt_bytes sh_mark_hard_key(uint32_t shard, uint8_t out[SH_KEY_BYTES]);
struct rt_bytes sh_mark_key(uint32_t shard, uint8_t out[SH_KEY_BYTES]);
void sh_mark_hard_encode(uint64_t term, uint64_t vote, uint8_t out[SH_HARD_BYTES]);
RT_NODISCARD rt_err sh_mark_hard_decode(
	struct rt_bytes bytes, uint64_t *out_term, uint64_t *out_vote);

/* State normal, up to mark; borrows the runs and sets of the core. */
void sh_mark_of(const struct sh_raft *raft, uint64_t mark, struct sh_mark *out);
/* malloc'd. */
RT_NODISCARD rt_err sh_mark_encode(const struct sh_mark *mark, struct rt_bytes *out);
RT_NODISCARD rt_err sh_mark_decode(struct rt_bytes bytes, struct sh_mark *out);
void sh_mark_clear(struct sh_mark *mark); /* of a decoded one */

#endif
