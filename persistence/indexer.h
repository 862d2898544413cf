/*
 * indexer.h - the low-priority thread that turns committed records into index, dedupe and tag rows,
 * in sorted chunks, and writes snapshots.
 *
 * Threads: stage and flush on the worker that owns the shard, in offset order per shard.
 * Memory:  stage copies what it needs. Staged bytes travel to the thread in blocks.
 * Order:   dedupe and tag files are ingested first, then the index rows in small batches, the
 *          watermark behind them in the same family, so it never promises more than is there.
 * Limits:  a chunk is cut at PS_CHUNK_RECORDS or after PS_CHUNK_MS; at most PS_BACKLOG_RECORDS
 *          wait, then the writer waits (ps_indexer_backlog).
 * Failure: a disk without room is tried again until it has some; a stop gives up, and the next open
 *          makes the rows. Anything else fails the store.
 */
#ifndef PERSISTENCE_INDEXER_H
#define PERSISTENCE_INDEXER_H

#include "persistence/record.h"
#include "persistence/store.h"
#include "runtime/sched/worker.h"

#define PS_CHUNK_RECORDS   131072u
#define PS_CHUNK_MS        1500u
#define PS_BACKLOG_RECORDS 524288u

struct ps_indexer;
struct ps_stage; /* one per worker */

RT_NODISCARD rt_err ps_indexer_start(
	struct ps_store *store, uint32_t workers, struct ps_indexer **out, struct rt_errinfo *info);
/* Writes everything staged, moves the watermark, stops. */
void ps_indexer_stop(struct ps_indexer *indexer);
struct ps_stage *ps_indexer_stage(struct ps_indexer *indexer, uint32_t worker);
uint64_t ps_indexer_backlog(const struct ps_indexer *indexer);

/* A committed record. Non-command kinds only move the watermark. What is staged before the worker
 * was told of a wipe of the shard is dropped. */
void ps_stage_record(
	struct ps_stage *stage, uint32_t shard, uint64_t offset, const struct ps_record *record);
/* A snapshot whose events are all committed; copied. Dropped silently when the queue is full. */
void ps_stage_snapshot(struct ps_stage *stage, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot);
/* Writes what this worker has staged without waiting for more, then runs post on the worker: the
 * rows are on disk. Posts that are open when the store fails or the indexer stops never run: who
 * went on would read an index with holes. */
struct ps_barrier {
	struct rt_post post;
	struct rt_worker *worker;
	struct ps_barrier *next;
};
void ps_stage_barrier(struct ps_stage *stage, struct ps_barrier *barrier);
/* Hands what is staged over. Call at the end of a turn; cheap when there is little. */
void ps_stage_flush(struct ps_stage *stage);

#endif
