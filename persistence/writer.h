/*
 * writer.h - group commit: the one thread that writes and syncs the log of a node.
 *
 * A worker fills a round with the records of one loop turn, of all its shards, and submits it. The
 * writer takes every round that queued during its last sync, makes one batch sorted by shard,
 * one sync, and hands the rounds back. No timer forms a batch. A round may also cut a shard's log
 * or wipe it (store.h): entries of one shard apply in the order in which they were added, over all
 * rounds.
 *
 * Threads:    acquire, reserve, add, submit, release on the owning worker; done on that worker.
 * Order:      rounds of one worker complete in the order of their submits.
 * Durability: done(RT_OK): every row of the round survives a power cut. A crash before leaves a
 *             batch, and so a round, there whole or not at all. Any other code: its fate is unknown
 *             until the store is opened again; every later round gets the same code.
 * Memory:     a round belongs to the worker until submit and again from done on; record bytes stay
 *             where they are until release.
 * Limits:     when the index backlog is over its bound the writer waits for the indexer.
 */
#ifndef PERSISTENCE_WRITER_H
#define PERSISTENCE_WRITER_H

#include "persistence/store.h"
#include "runtime/sched/worker.h"

#define PS_ROUND_BYTES   (512u * 1024u) /* a round over this or PS_ROUND_RECORDS asks for submit */
#define PS_ROUND_RECORDS 4096u

struct ps_writer;

struct ps_entry {           /* One record of a round, or what is done to a log. */
	uint32_t pos, size; /* in the round's buffer */
	uint32_t shard;
	uint32_t next; /* index of the next entry of the same shard in this round, UINT32_MAX: none
			*/
	uint64_t offset; /* set before submit */
	enum ps_row_kind kind;
};

struct ps_round {
	struct rt_post post; /* how it comes back; the writer's until done */
	struct ps_writer *writer;
	struct rt_worker *worker;
	struct ps_entry *entries;
	uint32_t entry_count;
	uint8_t *bytes;
	size_t byte_count;
	void (*done)(struct ps_round *round, rt_err err); /* on the worker */
	void *arg;
	struct ps_round *next; /* the worker's list or the writer's queue */
	/* rest private to writer.c */
	size_t byte_cap;
	uint32_t entry_cap;
	rt_err result;
	struct ps_meta_row *meta;
	uint32_t meta_count, meta_cap;
	bool wipes; /* has an entry that does */
};

RT_NODISCARD rt_err ps_writer_start(struct ps_store *store, struct rt_system *system,
	struct ps_writer **out, struct rt_errinfo *info);
/* Finishes what was submitted, then stops the thread. Completions are posted before it returns;
 * rounds may be released after it. NULL is a no-op. */
void ps_writer_stop(struct ps_writer *writer);

/* An empty round, recycled when possible. NULL only when memory is short. */
struct ps_round *ps_round_acquire(struct ps_writer *writer, struct rt_worker *worker);
/* Room for size bytes at the end of the round's buffer (it may move), and the entry that takes
 * them: returns the entry's index and where to write. The caller links `next` and sets `offset`. */
uint8_t *ps_round_add(struct ps_round *round, uint32_t shard, size_t size, uint32_t *out_entry);
/* Deletes all records of the shard from offset on; the next record stands at offset or, when the
 * log is shorter, at its end. Only what is not committed: a cut into what is staged fails the
 * store's writer for good (RT_E_INVAL). Costs as much as the records it deletes. RT_E_NOMEM. */
RT_NODISCARD rt_err ps_round_cut(struct ps_round *round, uint32_t shard, uint64_t offset);
/* Deletes all records of the shard with their index, ids, tags and snapshots; first_offset is
 * `first` then and the next record stands there. The round may go on with records. What the worker
 * staged of the shard before done is dropped, and nothing may read by its index meanwhile.
 * RT_E_NOMEM. */
RT_NODISCARD rt_err ps_round_wipe(struct ps_round *round, uint32_t shard, uint64_t first);
/* Takes a record out again, before submit: it is not written. Its place in the lists stays, so who
 * goes through entries later looks at kind. */
void ps_round_drop(struct ps_round *round, uint32_t entry);
/* A meta row (copied) written in the same batch, e.g. term and vote. */
RT_NODISCARD rt_err ps_round_add_meta(
	struct ps_round *round, struct rt_bytes key, struct rt_bytes value);
bool ps_round_is_full(const struct ps_round *round);
void ps_writer_submit(struct ps_writer *writer, struct ps_round *round);
void ps_round_release(struct ps_round *round);

#endif
