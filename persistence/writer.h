/*
 * writer.h - group commit: the one thread that writes and syncs the log of a node.
 *
 * A worker fills a round with the records of one loop turn, of all its shards, and submits it. The
 * writer takes every round that queued during its last sync, makes one batch sorted by shard,
 * one sync, and hands the rounds back. No timer forms a batch.
 *
 * Threads:    acquire, reserve, add, submit, release on the owning worker; done on that worker.
 * Order:      rounds of one worker complete in the order of their submits.
 * Durability: done(RT_OK): every row of the round survives a power cut. Any other code: its fate is
 *             unknown until the store is opened again; every later round gets the same code.
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

struct ps_entry {           /* One record of a round. */
	uint32_t pos, size; /* in the round's buffer */
	uint32_t shard;
	uint32_t next; /* index of the next entry of the same shard in this round, UINT32_MAX: none
			*/
	uint64_t offset; /* set before submit */
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
/* A meta row (copied) written in the same batch, e.g. term and vote. */
RT_NODISCARD rt_err ps_round_add_meta(
	struct ps_round *round, struct rt_bytes key, struct rt_bytes value);
bool ps_round_is_full(const struct ps_round *round);
void ps_writer_submit(struct ps_writer *writer, struct ps_round *round);
void ps_round_release(struct ps_round *round);

#endif
