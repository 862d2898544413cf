/*
 * self.h - who a node is: the row "self" of its store, made once and for all.
 *
 * A store without the row, new or of before there were clusters, becomes node 1 of a cluster of its
 * own, whose id is the store's. A node that joined has what the coordinator gave it.
 *
 * Threads: before the writer of the store runs.
 */
#ifndef SHARDING_SELF_H
#define SHARDING_SELF_H

#include "persistence/store.h"

#define SH_ID_CHARS 32u

struct sh_self {
	char cluster[SH_ID_CHARS + 1]; /* hexadecimal, like the key */
	char key[SH_ID_CHARS + 1];     /* of this node's data; the cluster's table has it too */
	uint64_t node;
	uint64_t incarnation; /* how often the store was opened by a node, with this time */
	bool founder;         /* groups without a log begin with this node as their only member */
};

/* 32 random hexadecimal digits. */
void sh_self_random(char out[SH_ID_CHARS + 1]);
/* Reads the row, or writes `fresh` (NULL: of a founder), and counts the incarnation. RT_E_CORRUPT:
 * the row is none; RT_E_EXISTS: fresh, but the store is somebody already. */
RT_NODISCARD rt_err sh_self_open(struct ps_store *store, const struct sh_self *fresh,
	struct sh_self *out, struct rt_errinfo *info);

#endif
