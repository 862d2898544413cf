/*
 * host.h - what the sources of the replica (replica.h) share. Nobody else includes it.
 *
 *   replica.c   inputs, the pump of the core's outputs, completions of writes
 *   restore.c   from the rows and the log on disk to a core, and back to nothing
 *   outbox.c    messages that wait for a durable term and vote; records for peers
 *   install.c   fetching a shard from a peer, and being fetched from
 *   reads.c     linearizable reads that wait for a round
 *
 * Every function that returns an rt_err may end the replica: RT_E_CLOSED, sh_host_end was called.
 */
#ifndef SHARDING_HOST_H
#define SHARDING_HOST_H

#include "sharding/cache.h"
#include "sharding/mark.h"
#include "sharding/replica.h"

#define SH_STORES 8u

struct sh_parked;
struct sh_lag;
struct sh_serve;
struct sh_install;
struct sh_reads;

struct sh_replica {
	struct sh_raft raft;
	/* The set of index 0, which is in no entry: whoever begins anew at the first one knows it
	 * from here. None once an entry below the floor took its place. */
	struct sh_members first;
	struct sh_out_queue *queue, own;
	const struct sh_replica_port *port;
	void *arg;
	uint32_t shard, cache_bytes, mark_every, runs_max;

	uint64_t now;
	uint64_t written, durable; /* numbers of writes */
	uint64_t hard_seq;         /* newest write of term and vote */
	uint64_t told;             /* committed and durable: said to the owner */
	uint64_t marked;           /* index of the newest mark */
	uint64_t quiet_at;         /* an idle replica gives its cache back then */
	uint64_t tombstone;        /* write of the row that says removed, until durable */
	uint64_t leader_told;
	uintptr_t ticket; /* of the newest read */
	bool led;         /* port->lead was called in this term */
	bool failed, removed, started;
	bool unmarked; /* there is no row yet */
	bool wipe;     /* an install was cut off: the log goes at start */

	/* Writes of entries that are not durable yet: everything up to index under generation. */
	struct sh_stored {
		uint64_t written, index, generation;
	} stores[SH_STORES];
	uint8_t store_head, store_count;

	const struct rt_bytes *records; /* of the message or proposal being handled */
	struct sh_cache cache;
	struct sh_parked *parked;
	struct sh_lag *lags;
	struct sh_serve *serves;
	struct sh_install *install;
	struct sh_reads *reads;
	uint64_t refused, installs;
};

/* ---- replica.c ---- */
/* Fail-stop; RT_E_CLOSED. */
rt_err sh_host_end(struct sh_replica *replica);
/* Acts on the core's outputs until there is none. err is that of the call into the core. */
RT_NODISCARD rt_err sh_host_pump(struct sh_replica *replica, rt_err err);
/* One more write. */
RT_NODISCARD rt_err sh_host_write(struct sh_replica *replica, const struct sh_write *write);
RT_NODISCARD rt_err sh_host_write_mark(struct sh_replica *replica, const struct sh_mark *mark);
/* The row as the core stands now. */
RT_NODISCARD rt_err sh_host_mark(struct sh_replica *replica);
static inline bool sh_host_inert(const struct sh_replica *replica)
{
	return replica->failed || replica->removed || !replica->started;
}
/* Of a read that is about to begin. It is a number, so that a late answer meets nobody else. */
static inline void *sh_host_ticket(struct sh_replica *replica)
{
	return (void *)++replica->ticket;
}
static inline uint64_t sh_host_election_ms(const struct sh_replica *replica)
{
	return replica->raft.settings.election_ms == 0 ? 1000 : replica->raft.settings.election_ms;
}

/* ---- restore.c ---- */
/* A core that knows settings, term, vote and bar of an old one, the first set and nothing else. */
RT_NODISCARD rt_err sh_host_blank(struct sh_replica *replica, const struct sh_raft *old);
/* Frees what is there on demand. */
void sh_host_forget(struct sh_replica *replica);
/* The log goes, the row says so. */
RT_NODISCARD rt_err sh_host_wipe(struct sh_replica *replica);

/* ---- outbox.c ---- */
RT_NODISCARD rt_err sh_outbox_send(struct sh_replica *replica, const struct sh_raft_message *head);
/* Of hosts: leaves now or, while term and vote are not durable, never. */
void sh_outbox_host(struct sh_replica *replica, const struct sh_message *message);
/* Something became durable. */
RT_NODISCARD rt_err sh_outbox_durable(struct sh_replica *replica);
/* Peers whose records were not at hand are tried again. */
RT_NODISCARD rt_err sh_outbox_resume(struct sh_replica *replica);
/* RT_E_NOTFOUND: not a ticket of a peer that lags behind. */
RT_NODISCARD rt_err sh_outbox_read_done(struct sh_replica *replica, const void *ticket, rt_err err,
	const struct rt_bytes *records, uint32_t count);
/* What was read for peers belongs to a leader. */
void sh_outbox_follow(struct sh_replica *replica);
void sh_outbox_free(struct sh_replica *replica);
uint64_t sh_outbox_memory(const struct sh_replica *replica);
uint32_t sh_outbox_parked(const struct sh_replica *replica);

/* ---- install.c ---- */
/* Also when another source is to be asked from now on. */
RT_NODISCARD rt_err sh_install_begin(struct sh_replica *replica, uint64_t source);
RT_NODISCARD rt_err sh_install_durable(struct sh_replica *replica);
void sh_install_tick(struct sh_replica *replica);
uint64_t sh_install_next_timeout(const struct sh_replica *replica);
RT_NODISCARD rt_err sh_install_chunk(struct sh_replica *replica, const struct sh_message *message);
void sh_install_fetch(struct sh_replica *replica, const struct sh_raft_message *fetch);
/* RT_E_NOTFOUND: not a ticket of a peer that fetches. */
RT_NODISCARD rt_err sh_install_read_done(struct sh_replica *replica, const void *ticket, rt_err err,
	const struct rt_bytes *records, uint32_t count);
#define SH_HOLD_ELECTIONS 16u /* who fetches and is not heard of for so many timeouts is gone */
/* The first index that peers which fetch from here still need, UINT64_MAX: none does. */
uint64_t sh_install_holds(const struct sh_replica *replica);
void sh_install_free(struct sh_replica *replica);
uint64_t sh_install_memory(const struct sh_replica *replica);

/* ---- reads.c ---- */
RT_NODISCARD rt_err sh_reads_add(struct sh_replica *replica, void *ticket);
RT_NODISCARD rt_err sh_reads_settle(struct sh_replica *replica);
/* Everybody who waits is told so. */
void sh_reads_end(struct sh_replica *replica, rt_err err);
uint64_t sh_reads_memory(const struct sh_replica *replica);

#endif
