/*
 * shard.h - the entities of one shard on the worker that owns it, and the order of their answers.
 *
 * A command's record gets its offset at once (`tail`), goes into the host's open round, and its
 * answer waits in `pending` until the shard's log is committed that far. What depends on
 * uncommitted state (queries, refusals, conflicts, repeats) waits behind it in the same queue.
 *
 * Threads: the owning worker.
 * Limits:  pending is bounded by the calls the node admits.
 */
#ifndef ACTORS_SHARD_H
#define ACTORS_SHARD_H

#include <stdatomic.h>

#include "actors/call.h"
#include "actors/dedupe.h"
#include "actors/out.h"
#include "actors/registry.h"
#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "persistence/writer.h"
#include "runtime/base/arena.h"
#include "runtime/sched/actor.h"

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
	bool leading; /* serves; otherwise every call is UNAVAILABLE */
	uint64_t term;
	uint64_t tail;      /* last offset given to a record */
	uint64_t committed; /* last committed one */

	/* Records of the open round. */
	struct ac_shard *touched_next;
	uint32_t first_entry, last_entry, entry_count;

	struct ac_pending *pending; /* ring */
	uint32_t pending_mask, pending_head, pending_count;

	struct ac_entity **table; /* by hash of the persistence id, chained */
	uint32_t table_mask, entity_count;
	struct ac_dedupe dedupe;
	struct ac_waiter *waiters; /* long polls on one entity's stream */
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
/* The replica leads from here on: term, and the last offset of its log, all of it committed. */
void ac_shard_lead(struct ac_shard *shard, uint64_t term, uint64_t tail);

/* A command, a query, a state or a stream request for an entity of this shard. Always answered. */
void ac_shard_call(struct ac_shard *shard, struct ac_call *call);
/* Puts a record into the open round; 0 when memory is short. For entities and for the replica. */
uint64_t ac_shard_append(
	struct ac_shard *shard, const struct ps_record *head, const struct ps_event_out *events);
/* Everything up to `upto` is committed: releases answers. */
void ac_shard_commit(struct ac_shard *shard, uint64_t upto);
/* Leadership or the store was lost: uncommitted commands are answered UNKNOWN, the rest
 * UNAVAILABLE, every entity leaves memory. */
void ac_shard_drop(struct ac_shard *shard, const char *why);

void ac_shard_hold(struct ac_shard *shard, enum ac_pending_kind kind, uint64_t offset,
	struct ac_entity *entity, struct ac_call *call);
void ac_answer(struct ac_host *host, struct ac_call *call);

static inline void ac_count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer, so a plain sum; readers may see it a little late. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

#endif
