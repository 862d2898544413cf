/*
 * shard.h - the entities of one shard on the worker that owns it, and the order of their answers.
 *
 * A command's record gets its offset at once (`tail`), goes into the host's open round, and its
 * answer waits in `pending` until the shard's log is committed that far. What depends on
 * uncommitted state (queries, refusals, conflicts, repeats) waits behind it in the same queue.
 * A shard that does not lead has no entities: it follows what is committed, so that it can lead
 * at once, and serves stale reads from the store.
 *
 * Threads: the owning worker.
 * Limits:  pending, and calls that wait for an offset, are bounded by the calls the node admits.
 */
#ifndef ACTORS_SHARD_H
#define ACTORS_SHARD_H

#include <stdatomic.h>

#include "actors/call.h"
#include "actors/dedupe.h"
#include "actors/out.h"
#include "actors/registry.h"
#include "actors/unindexed.h"
#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "persistence/writer.h"
#include "runtime/base/arena.h"
#include "runtime/sched/actor.h"

struct ac_after;
struct ac_entity;
struct ac_shard;
struct ac_waiter;

/* One per worker: what its shards share. */
struct ac_host {
	struct rt_worker *worker;
	const struct ac_registry *registry;
	struct ps_store *store;
	struct ps_writer *writer;
	struct ps_reader *reader; /* NULL once the node stops */
	struct ps_stage *stage;
	uint64_t memory_max; /* bytes of entities before the coldest leave */
	uint32_t passivate_after_ms;
	uint32_t snapshot_every;
	void (*answered)(struct ac_host *host, struct ac_call *call); /* the node's; passes it on */
	/* A call of a shard that was dropped, of which nothing was written: rewound, the callee's,
	 * to be answered or handled anew, here or elsewhere. Not from inside ac_shard_call. NULL:
	 * it is answered (UNAVAILABLE). */
	void (*moved)(struct ac_host *host, struct ac_call *call);
	/* An answer that rests on the state alone (no record of its own) is ready: may it leave?
	 * False: the callee took the call, with its answer, and passes it to ac_answer_confirmed or
	 * rewinds it and has it handled anew. It may drop the shard or commit. NULL: always. */
	bool (*confirm)(struct ac_host *host, struct ac_shard *shard, struct ac_call *call);
	/* A snapshot of an entity goes to the store, borrowed: its events are committed. NULL:
	 * nobody else wants it. */
	void (*snapshot)(struct ac_host *host, struct ac_shard *shard, struct rt_bytes pid,
		const struct ps_snapshot *snapshot);
	void *owner;

	struct ps_round *round;    /* open round of this turn, or NULL */
	struct ac_shard *touched;  /* shards with records in it */
	struct troupe_out out;     /* of the running decide or answer */
	struct troupe_out scratch; /* tags and upcasts while `out` is in use */
	struct rt_arena arena;
	ProtobufCAllocator allocator; /* on arena */

	struct ac_entity *coldest, *hottest; /* every entity in memory, by last use */
	struct ac_entity *quarantined;
	uint64_t memory;                 /* bytes */
	uint64_t wall_ms, wall_asked_ms; /* the clock of records, and when it was read */
	bool read_only;                  /* disk space is low */
	bool failed;                     /* a write failed: nothing is served any more */

	/* Counters: written here, read by anyone (relaxed). */
	struct ac_counters {
		_Atomic uint64_t commands, queries, refused, repeated, events, recoveries,
			passivated, snapshots, entities, memory, quarantined;
	} count;
};

enum ac_pending_kind {
	AC_PENDING_RECORD, /* the answer of the record at this offset */
	AC_PENDING_HELD,   /* an answer that rests on everything up to this offset */
	AC_PENDING_REPEAT  /* a repeat of the command at this offset: its record is read then */
};

struct ac_pending {
	uint64_t offset;
	struct ac_call *call;
	struct ac_entity *entity;
	enum ac_pending_kind kind;
};

struct ac_shard {
	struct ac_host *host;
	uint32_t index;
	bool leading; /* serves; otherwise every call but a stale read is UNAVAILABLE */
	uint64_t term;
	uint32_t resets;    /* how often its log was replaced */
	uint64_t tail;      /* last offset given to a record, while it leads */
	uint64_t committed; /* last committed one, as far as it was told */
	uint64_t noted;     /* while it leads: last record that `unindexed` was told of */

	/* Records of the open round. */
	struct ac_shard *touched_next;
	uint32_t first_entry, last_entry, entry_count;

	struct ac_pending *pending; /* ring */
	uint32_t pending_mask, pending_head, pending_count;

	struct ac_entity **table; /* by hash of the persistence id, chained */
	uint32_t table_mask, entity_count;
	struct ac_entity *leaving; /* out of the table, with jobs or messages under way */
	struct ac_dedupe dedupe;
	struct ac_unindexed unindexed;
	struct ac_waiter *waiters; /* long polls on one entity's stream, and other reads of it */

	/* Reads that wait for an offset to be committed. */
	struct ac_after *afters, **afters_end;
};

/* Hands a job to the readers. RT_E_FULL; RT_E_CLOSED once the node stops. */
RT_NODISCARD rt_err ac_host_read(struct ac_host *host, struct ps_job *job);
RT_NODISCARD rt_err ac_host_init(struct ac_host *host);
void ac_host_done(struct ac_host *host);
/* Passivates by budget (at the end of a turn) and by idle time (now and then). */
void ac_host_trim(struct ac_host *host);
void ac_host_trim_idle(struct ac_host *host, uint64_t now_ms);

void ac_shard_init(struct ac_shard *shard, struct ac_host *host, uint32_t index);
void ac_shard_done(struct ac_shard *shard);
/* The replica leads from here on: term, and the last offset of its log, all of it committed. Every
 * record up to there was followed (ac_shard_follow_record) or is in the index on disk. Leads after
 * ac_shard_drop only. */
void ac_shard_lead(struct ac_shard *shard, uint64_t term, uint64_t tail);

/* A command, a query, a state or a stream request for an entity of this shard. Always answered.
 * A read with in.after waits until that offset is committed, up to the call's deadline or
 * AC_AFTER_MS, then TIMEOUT. */
void ac_shard_call(struct ac_shard *shard, struct ac_call *call);
/* A query, a state or a stream request from the store alone, whoever leads: what is committed here,
 * in.after included, waited for as above. Nothing of it stays in memory. A stream
 * request does not wait for events. On a shard that leads it is ac_shard_call, and a call that says
 * in.stale is answered without host->confirm. Always answered. */
void ac_shard_read(struct ac_shard *shard, struct ac_call *call);
#define AC_AFTER_MS 5000u
/* Puts a record into the open round; 0 when memory is short. For entities and for the replica. */
uint64_t ac_shard_append(
	struct ac_shard *shard, const struct ps_record *head, const struct ps_event_out *events);
/* The last offset that left with a round; those above it, up to tail, are in the open one. */
static inline uint64_t ac_shard_proposed(const struct ac_shard *shard)
{
	return shard->tail - shard->entry_count;
}
/* Everything up to `upto` is committed: releases answers. While it leads. */
void ac_shard_commit(struct ac_shard *shard, uint64_t upto);
/* Leadership or the store was lost. Commands with a record at or below kept_upto, whose fate is
 * open, are answered UNKNOWN; those above it were surely not written (ac_shard_proposed: the open
 * round is taken back; UINT64_MAX: nothing is sure) and are handed to host->moved with everything
 * that was not begun or rests on what is uncommitted. Command ids above `committed` are forgotten
 * and every entity leaves the shard at once, and memory as soon as nothing of it is under way: what
 * ends later is handed over then. Also ends waits of a shard that does not lead. */
void ac_shard_drop(struct ac_shard *shard, const char *why, uint64_t kept_upto);

/* ---- while it does not lead ---- */
/* A committed record, in order of the offsets, each once: keeps command ids as a leader does. */
void ac_shard_follow_record(
	struct ac_shard *shard, uint64_t offset, const struct ps_record *record);
/* Everything up to `upto` is committed, and followed: wakes reads that wait for it. */
void ac_shard_committed(struct ac_shard *shard, uint64_t upto);
/* The log is replaced by another one: no command id is known, and the filter is to be filled from
 * the store again (a filling that began before must not count). */
void ac_shard_reset(struct ac_shard *shard);

void ac_shard_hold(struct ac_shard *shard, enum ac_pending_kind kind, uint64_t offset,
	struct ac_entity *entity, struct ac_call *call);
void ac_answer(struct ac_host *host, struct ac_call *call);
/* An answer that rests on committed state: leaves through host->confirm. */
void ac_shard_answer(struct ac_shard *shard, struct ac_call *call);
/* The end of a call that host->confirm took. */
void ac_answer_confirmed(struct ac_host *host, struct ac_call *call);
/* A call whose shard was dropped under it: to host->moved or, without one, answered with code. */
void ac_hand_back(struct ac_host *host, struct ac_call *call, uint32_t code, const char *why);

/* Calls on their way out of a shard that is being dropped; `code` of each is its answer if nobody
 * takes it. */
struct ac_chain {
	struct ac_call *first, **end;
};
void ac_chain_add(struct ac_chain *chain, struct ac_call *call, uint32_t code);

/* after.c: True: the call waits and will be handled again. */
bool ac_after_wait(struct ac_shard *shard, struct ac_call *call, bool stale);
void ac_after_wake(struct ac_shard *shard);
void ac_after_drop(struct ac_shard *shard, struct ac_chain *chain);

static inline void ac_count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer, so a plain sum; readers may see it a little late. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static inline void ac_uncount(_Atomic uint64_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) - 1,
		memory_order_relaxed);
}

#endif
