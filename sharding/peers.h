/*
 * peers.h - the other nodes as one node sees them: who may talk to it, how to reach them, and the
 * way of what they say to the workers.
 *
 * Threads: open and close alone; table on worker 0; the rest from any.
 */
#ifndef SHARDING_PEERS_H
#define SHARDING_PEERS_H

#include "runtime/sched/worker.h"
#include "sharding/cluster.pb-c.h"
#include "sharding/self.h"
#include "sharding/wire.h"

struct sh_peers;

struct sh_peers_options {
	struct sh_self self;
	const char *listen, *advertise; /* see node.h */
	struct rt_system *system;
	uint32_t shard_count;
	uint32_t silence_ms;
	void (*refused)(void *arg, const char *why); /* by everybody; may be NULL */
	void (*left)(void *arg); /* this node is a member no more; may be NULL */
	void *arg;
};

/* Listens; frames go to the regions once the workers run. */
RT_NODISCARD rt_err sh_peers_open(
	const struct sh_peers_options *options, struct sh_peers **out, struct rt_errinfo *info);
/* Nothing reaches the workers any more. After the workers stopped, before the regions go. NULL is a
 * no-op. */
void sh_peers_close(struct sh_peers *peers);
void sh_peers_free(struct sh_peers *peers); /* after the system is freed; NULL is a no-op */

/* Who belongs to the cluster; dials who is new and hangs up on who left. */
void sh_peers_members(
	struct sh_peers *peers, Troupe__Cluster__Member *const *members, size_t count);
/* On a worker: what has come for consensus and still waits goes to its region now. */
void sh_peers_drain(struct sh_peers *peers, struct rt_worker *worker);
/* NULL peers: NULL, and 0. */
const struct sh_wire *sh_peers_wire(const struct sh_peers *peers);
uint64_t sh_peers_instance(const struct sh_peers *peers);
const char *sh_peers_url(const struct sh_peers *peers); /* as others should know it */

#endif
