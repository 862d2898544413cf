/*
 * replica.h - one shard's member of its group: the Raft core with its log, its peers and its owner.
 *
 * The core (raft.h) decides, the replica does: it puts what must be durable into the batch of the
 * turn, holds messages back until what they rest on is durable, keeps the newest records in memory
 * for its peers, reads older ones from the log, streams a shard to who is too far behind, and tells
 * the owner what is committed. Everything outside is behind struct sh_replica_port, so that the
 * simulator runs this very code.
 *
 * Threads: the worker that owns the shard. The port's functions are called from inside the calls
 *          below and do not call back into the same replica, nor into one with the same queue.
 * Order:   writes are numbered in the order of the calls and become durable in that order.
 * Failure: a failed write ends the replica (sh_replica_fail): what was proposed and not committed
 *          has an unknown fate until the store is opened again. RT_E_CLOSED from any call: it has
 *          ended, now or before. RT_E_NOMEM: nothing changed. Bytes of a peer or of the disk that
 *          make no sense are refused and counted, never believed.
 * Limits:  records in memory: cache_bytes, but for those not durable or not committed yet; messages
 *          held back: those of one election at most. Proposals are bounded by the owner.
 */
#ifndef SHARDING_REPLICA_H
#define SHARDING_REPLICA_H

#include "sharding/message.h"

struct sh_replica;

enum sh_write_kind {
	SH_WRITE_RECORD, /* one record at index */
	SH_WRITE_CUT,    /* delete all records from index on */
	SH_WRITE_WIPE,   /* delete all records; the next one stands at index */
	SH_WRITE_META    /* a small row: key, bytes */
};
struct sh_write {
	enum sh_write_kind kind;
	uint64_t index;
	struct rt_bytes key, bytes; /* borrowed for the call */
};

struct sh_replica_read { /* Records from..upto, stopping at about max_bytes. */
	uint64_t from, upto;
	uint32_t max_bytes, max_count;
	void *ticket; /* the replica's; give it back */
};

typedef bool sh_scan_fn(void *arg, uint64_t index, struct rt_bytes record);

struct sh_replica_port {
	/* ---- the log ---- */
	/* Joins the batch of this turn, in order. Not RT_OK: the caller ends the replica. */
	rt_err (*write)(void *arg, const struct sh_write *write);
	/* Starts a read; sh_replica_read_done later. RT_E_FULL: tried again with the next tick. */
	rt_err (*read)(void *arg, const struct sh_replica_read *read);
	/* First index that is still in the log (1 for an untrimmed or empty one). */
	uint64_t (*first)(void *arg);
	/* While opening only, may block. meta: malloc'd, RT_E_NOTFOUND. scan: in order to the end.
	 */
	rt_err (*meta)(
		void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info);
	rt_err (*scan)(void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg,
		struct rt_errinfo *info);
	/* ---- peers ---- */
	/* The message and its records are borrowed for the call. Delivery may fail. */
	void (*send)(void *arg, const struct sh_message *message);
	/* ---- the owner ---- */
	/* Leads from now on; the log ends at last, all of it committed. */
	void (*lead)(void *arg, uint64_t term, uint64_t last);
	/* Does not lead (any more); leader 0: not known. Also when the known leader changes. */
	void (*follow)(void *arg, uint64_t term, uint64_t leader);
	/* Committed and durable here up to this index. */
	void (*committed)(void *arg, uint64_t upto);
	/* The log was replaced by one of a peer, first..last, all committed. */
	void (*installed)(void *arg, uint64_t first, uint64_t last);
	/* A set of members is committed; found to be removed: self is not in it. */
	void (*members)(void *arg, const struct sh_raft_set *set, bool removed);
	/* A read asked for with sh_replica_linearize: RT_OK serve at index, else start anew. */
	void (*readable)(void *arg, void *ticket, rt_err err, uint64_t index);
};

struct sh_replica_options {
	uint32_t shard;
	struct sh_raft_settings raft; /* rank is set from the shard */
	struct sh_members first;      /* of a new shard; count 0: waits to be added */
	uint32_t cache_bytes;         /* of records for peers; 0: 1 MiB */
	uint32_t mark_every;          /* commits between two marks; 0: 4,096 */
	uint32_t runs_max;            /* term changes kept above the floor; 0: 128 */
	struct sh_out_queue *queue;   /* of the thread, empty between calls; NULL: one of its own */
	const struct sh_replica_port *port;
	void *arg;
};

/* Reads hard state, mark and the log above it. RT_E_CORRUPT says what contradicts what. A replica
 * whose install was cut off by a crash opens empty, term and vote kept; a removed one opens removed
 * and takes part in nothing. */
RT_NODISCARD rt_err sh_replica_open(
	const struct sh_replica_options *options, struct sh_replica **out, struct rt_errinfo *info);
void sh_replica_close(struct sh_replica *replica); /* NULL is a no-op */

/* A sole voter leads at once: its first record joins the batch. Others wait. */
RT_NODISCARD rt_err sh_replica_start(struct sh_replica *replica, uint64_t now_ms);
RT_NODISCARD rt_err sh_replica_tick(struct sh_replica *replica, uint64_t now_ms);
uint64_t sh_replica_next_timeout(const struct sh_replica *replica);
/* RT_E_PROTO: refused, nothing changed. */
RT_NODISCARD rt_err sh_replica_recv(
	struct sh_replica *replica, uint64_t now_ms, const struct sh_message *message);

/* Records the owner put into the batch of this turn itself (one write of this replica): numbers
 * them, keeps copies for peers. RT_E_FENCED: does not lead (port->lead was not called), RT_E_AGAIN:
 * is handing leadership over; any code but RT_OK: the owner takes them out of the batch. */
RT_NODISCARD rt_err sh_replica_propose(struct sh_replica *replica, const struct rt_bytes *records,
	uint32_t count, uint64_t *out_first);
/* See sh_raft_propose_members. The entry takes the next index. */
RT_NODISCARD rt_err sh_replica_propose_members(
	struct sh_replica *replica, const struct sh_members *members, uint64_t *out_index);
RT_NODISCARD rt_err sh_replica_transfer(struct sh_replica *replica, uint64_t now_ms, uint64_t node);
void sh_replica_behind(struct sh_replica *replica, bool behind); /* See sh_raft_behind. */
/* See sh_raft_knock. */
RT_NODISCARD rt_err sh_replica_knock(struct sh_replica *replica, uint64_t now_ms, uint64_t node);
/* RT_OK: answers with port->readable, maybe from inside the call. RT_E_FENCED: does not lead.
 * RT_E_AGAIN: leads, but its first entry is not committed and durable yet. RT_E_FULL: too many
 * wait. */
RT_NODISCARD rt_err sh_replica_linearize(struct sh_replica *replica, uint64_t now_ms, void *ticket);

/* Number of the newest write; the owner remembers it when it submits a batch and says durable with
 * it when the batch is. */
uint64_t sh_replica_written(const struct sh_replica *replica);
RT_NODISCARD rt_err sh_replica_durable(
	struct sh_replica *replica, uint64_t now_ms, uint64_t written);
/* Answer to port->read: records from..from+count-1, borrowed. Not RT_OK: they could not be read. */
RT_NODISCARD rt_err sh_replica_read_done(struct sh_replica *replica, uint64_t now_ms, void *ticket,
	rt_err err, const struct rt_bytes *records, uint32_t count);
/* A write or sync failed: nothing leaves any more; waiting reads are told RT_E_UNKNOWN. */
void sh_replica_fail(struct sh_replica *replica);

/* The log may be trimmed up to here: moves the floor as far as peers allow, writes it; *out_floor
 * is what may be deleted once sh_replica_written of now is durable. */
RT_NODISCARD rt_err sh_replica_compact(
	struct sh_replica *replica, uint64_t upto, uint64_t *out_floor);
/* A removed replica is to be a member again: forgets everything but term and vote. RT_E_INVAL: it
 * is not removed. */
RT_NODISCARD rt_err sh_replica_renew(struct sh_replica *replica, uint64_t now_ms);
/* Takes part in nothing: a tombstone. */
bool sh_replica_removed(const struct sh_replica *replica);

/* A record that is in memory: those not yet committed and durable are. False: read the log. */
bool sh_replica_record(const struct sh_replica *replica, uint64_t index, struct rt_bytes *out);

struct sh_replica_stats {
	uint64_t memory_bytes; /* the replica, its core and its cache */
	uint64_t refused;      /* messages that made no sense */
	uint64_t parked;       /* messages held back now */
	uint64_t installs;     /* finished here */
};
void sh_replica_stats(const struct sh_replica *replica, struct sh_replica_stats *out);
/* For status pages, tests and the simulator's checks. */
const struct sh_raft *sh_replica_raft(const struct sh_replica *replica);

#endif
