/*
 * solo.h - the replication port: one shard's member of its group, as the region sees it.
 *
 * The region writes records into its round and proposes them; the replica says at which index they
 * stand, and later that everything up to an index is committed. Behind the port stands a group with
 * one voter (solo.c): committed = stored. The Raft core takes its place with the same calls.
 *
 * Threads: the worker that owns the shard.
 * Order:   proposals of one replica are numbered in the order of the calls; commits only grow.
 * Failure: a failed write ends the replica (sh_solo_fail): what was proposed and not committed
 *          has an unknown fate until the store is opened again.
 */
#ifndef SHARDING_SOLO_H
#define SHARDING_SOLO_H

#include <stdbool.h>
#include <stdint.h>

#include "persistence/writer.h"
#include "runtime/base/err.h"

struct sh_solo;

struct sh_solo_events {
	/* This member leads from now on, in this term; its log ends at last. Records of earlier
	 * terms are committed by the first record of this one. */
	void (*lead)(void *arg, uint64_t term, uint64_t last);
	void (*committed)(void *arg, uint64_t upto);
};

struct sh_solo_options {
	struct ps_store *store;
	uint32_t shard;
	const struct sh_solo_events *events;
	void *arg;
};

/* Reads the hard state. Blocks, so before the workers run. */
RT_NODISCARD rt_err sh_solo_open(
	const struct sh_solo_options *options, struct sh_solo **out, struct rt_errinfo *info);
void sh_solo_close(struct sh_solo *replica); /* NULL is a no-op */

/* Starts a term: writes the vote into the round, calls lead. */
RT_NODISCARD rt_err sh_solo_start(struct sh_solo *replica, struct ps_round *round);
/* Numbers `count` records that stand in a round about to be submitted; *out_first is the index of
 * the first. RT_E_FENCED: does not lead. */
RT_NODISCARD rt_err sh_solo_propose(struct sh_solo *replica, uint32_t count, uint64_t *out_first);
/* Everything up to index is durable here. */
void sh_solo_stored(struct sh_solo *replica, uint64_t index);
void sh_solo_fail(struct sh_solo *replica);

#endif
