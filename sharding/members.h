/*
 * members.h - the nodes that replicate one shard, and which of them vote.
 *
 * Memory: a plain value; equal sets are equal bytes.
 */
#ifndef SHARDING_MEMBERS_H
#define SHARDING_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

#define SH_MEMBERS_MAX   7u
#define SH_MEMBERS_BYTES (2u + 8u * SH_MEMBERS_MAX) /* encoded, at most */

struct sh_members {
	uint64_t node[SH_MEMBERS_MAX]; /* ascending, from 1; behind count all zero */
	uint8_t count;
	uint8_t voters; /* bit i: node[i] votes */
};

/* Nodes in order, none twice, votes only of nodes. */
bool sh_members_valid(const struct sh_members *members);
/* Position of a node, -1 when it is no member. */
int sh_members_find(const struct sh_members *members, uint64_t node);
bool sh_members_votes(const struct sh_members *members, uint64_t node);
uint32_t sh_members_voter_count(const struct sh_members *members);
/* Position of a node among the voters, 0 when it is none. */
uint32_t sh_members_rank(const struct sh_members *members, uint64_t node);
/* Adds a node or changes whether it votes. RT_E_FULL: SH_MEMBERS_MAX. RT_E_INVAL: node 0. */
RT_NODISCARD rt_err sh_members_put(struct sh_members *members, uint64_t node, bool votes);
void sh_members_remove(struct sh_members *members, uint64_t node);
bool sh_members_equal(const struct sh_members *a, const struct sh_members *b);
/* How many nodes came, went or changed their vote between two sets. */
uint32_t sh_members_distance(const struct sh_members *a, const struct sh_members *b);

/* count u8, voters u8, then each node u64 little endian. encode returns the size. */
size_t sh_members_encode(const struct sh_members *members, uint8_t out[SH_MEMBERS_BYTES]);
/* RT_E_CORRUPT: not what encode writes (order, zero, length, a vote without a node). */
RT_NODISCARD rt_err sh_members_decode(struct rt_bytes bytes, struct sh_members *out);

#endif
