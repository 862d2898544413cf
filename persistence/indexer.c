#include "persistence/indexer.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "persistence/chunk.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"

#define BLOCK_BYTES      65536u
#define BLOCKS_KEPT      128u
#define TICK_MS          250u
#define HOUSEKEEPING_MS  1000u
#define RETRY_MS         500u    /* on a full disk */
#define FLUSH_RECORDS    524288u /* index rows of so many records may be lost in a crash */
#define SNAPSHOTS_QUEUED 4096u
#define SNAPSHOT_BYTES   (64u * 1024u * 1024u)

/* Staged records, end to end. The worker appends, the indexer reads what was published. */
struct block {
	_Atomic(struct block *) next; /* set once, when this one is full */
	_Atomic size_t published;
	size_t used;  /* worker */
	size_t taken; /* indexer */
	size_t cap;
	struct block *link; /* list of blocks that a chunk still points into, or of free ones */
	_Alignas(8) uint8_t bytes[];
};

struct ps_stage {
	struct ps_indexer *indexer;
	struct block *tail;                        /* worker */
	uint64_t unflushed;                        /* worker: records since the last flush */
	_Alignas(RT_CACHELINE) struct block *head; /* indexer */
};

struct snapshot_node {
	struct snapshot_node *next;
	uint32_t shard;
	uint32_t wipes; /* of the shard when it was staged */
	struct rt_bytes pid;
	struct ps_snapshot snapshot;
	size_t size;
	uint8_t bytes[];
};

struct ps_indexer {
	/* Set at start. */
	struct ps_store *store;
	struct ps_stage *stages;
	uint32_t stage_count;
	uv_thread_t thread;

	/* Under lock. */
	uv_mutex_t lock;
	uv_cond_t wake;
	bool woken, stopping;
	struct block *spare;
	uint32_t spare_count;
	struct snapshot_node *snapshots, **snapshots_tail;
	size_t snapshot_count, snapshot_bytes;
	struct ps_barrier *barriers;

	/* Indexer thread. */
	struct ps_chunk *chunk;
	struct block *held; /* read to the end, still pointed into by the chunk */
	uint64_t pending;   /* records in the chunk, those without rows too */
	uint64_t since_ms;  /* of the first pending one */
	uint64_t unsaved;   /* records indexed since the last flush of the family */
	uint64_t kept_ms;   /* last housekeeping */
	uint64_t full_ms;   /* when the disk had no room for the chunk; 0: it has */
	struct ps_barrier *waiting;
};

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000u;
}

/* ---- worker side ---- */

static struct block *block_new(struct ps_indexer *indexer, size_t size)
{
	struct block *block = NULL;
	if (size <= BLOCK_BYTES) {
		uv_mutex_lock(&indexer->lock);
		block = indexer->spare;
		if (block != NULL) {
			indexer->spare = block->link;
			indexer->spare_count--;
		}
		uv_mutex_unlock(&indexer->lock);
		size = BLOCK_BYTES;
	}
	if (block == NULL) {
		block = malloc(sizeof(*block) + size);
		RT_ASSERT(block != NULL); /* a committed record must not go missing */
		block->cap = size;
	}
	atomic_init(&block->next, NULL);
	atomic_init(&block->published, 0);
	block->used = 0;
	block->taken = 0;
	block->link = NULL;
	return block;
}

struct ps_stage *ps_indexer_stage(struct ps_indexer *indexer, uint32_t worker)
{
	RT_ASSERT(worker < indexer->stage_count);
	return &indexer->stages[worker];
}

uint64_t ps_indexer_backlog(const struct ps_indexer *indexer)
{
	return ps_store_backlog(indexer->store);
}

static void wake_indexer(struct ps_indexer *indexer)
{
	uv_mutex_lock(&indexer->lock);
	indexer->woken = true;
	uv_mutex_unlock(&indexer->lock);
	uv_cond_signal(&indexer->wake);
}

void ps_stage_record(
	struct ps_stage *stage, uint32_t shard, uint64_t offset, const struct ps_record *record)
{
	RT_ASSERT(shard < stage->indexer->store->log_count && offset > 0);
	size_t size = ps_staged_size(record);
	struct block *block = stage->tail;
	if (block->cap - block->used < size) {
		struct block *more = block_new(stage->indexer, size);
		ps_stage_flush(stage);
		/* Release: pairs with the indexer's acquire; it leaves the old block for good. */
		atomic_store_explicit(&block->next, more, memory_order_release);
		stage->tail = block = more;
		if (ps_store_backlog(stage->indexer->store) >= PS_CHUNK_RECORDS) {
			wake_indexer(stage->indexer);
		}
	}
	struct ps_staged *staged = (struct ps_staged *)(void *)(block->bytes + block->used);
	ps_staged_put(staged, shard, offset, record);
	staged->wipes = (uint16_t)stage->indexer->store->shards[shard].wipes_done;
	block->used += size;
	stage->unflushed++;
}

void ps_stage_flush(struct ps_stage *stage)
{
	if (stage->unflushed == 0) {
		return;
	}
	atomic_fetch_add_explicit(
		&stage->indexer->store->staged, stage->unflushed, memory_order_relaxed);
	stage->unflushed = 0;
	/* Release: pairs with the indexer's acquire of published. */
	atomic_store_explicit(&stage->tail->published, stage->tail->used, memory_order_release);
}

void ps_stage_snapshot(struct ps_stage *stage, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot)
{
	struct ps_indexer *indexer = stage->indexer;
	size_t size = pid.size + snapshot->state.size;
	struct snapshot_node *node = malloc(sizeof(*node) + size);
	if (node == NULL) {
		return;
	}
	memcpy(node->bytes, pid.data, pid.size);
	if (snapshot->state.size > 0) {
		memcpy(node->bytes + pid.size, snapshot->state.data, snapshot->state.size);
	}
	node->next = NULL;
	node->shard = shard;
	node->wipes = indexer->store->shards[shard].wipes_done;
	node->size = size;
	node->pid = rt_bytes_of(node->bytes, pid.size);
	node->snapshot = *snapshot;
	node->snapshot.state = rt_bytes_of(node->bytes + pid.size, snapshot->state.size);
	uv_mutex_lock(&indexer->lock);
	bool room = indexer->snapshot_count < SNAPSHOTS_QUEUED &&
		    indexer->snapshot_bytes + size <= SNAPSHOT_BYTES && !indexer->stopping;
	if (room) {
		*indexer->snapshots_tail = node;
		indexer->snapshots_tail = &node->next;
		indexer->snapshot_count++;
		indexer->snapshot_bytes += size;
	}
	uv_mutex_unlock(&indexer->lock);
	if (!room) {
		free(node);
	}
}

void ps_stage_barrier(struct ps_stage *stage, struct ps_barrier *barrier)
{
	struct ps_indexer *indexer = stage->indexer;
	ps_stage_flush(stage);
	uv_mutex_lock(&indexer->lock);
	barrier->next = indexer->barriers;
	indexer->barriers = barrier;
	indexer->woken = true;
	uv_mutex_unlock(&indexer->lock);
	uv_cond_signal(&indexer->wake);
}

/* ---- indexer thread ---- */

static void release_blocks(struct ps_indexer *indexer)
{
	while (indexer->held != NULL) {
		struct block *block = indexer->held;
		indexer->held = block->link;
		uv_mutex_lock(&indexer->lock);
		bool keep = block->cap == BLOCK_BYTES && indexer->spare_count < BLOCKS_KEPT;
		if (keep) {
			block->link = indexer->spare;
			indexer->spare = block;
			indexer->spare_count++;
		}
		uv_mutex_unlock(&indexer->lock);
		if (!keep) {
			free(block);
		}
	}
}

static void fail(struct ps_indexer *indexer, const struct rt_errinfo *info)
{
	char *message = strdup(info->text);
	RT_ASSERT(message != NULL);
	(void)ps_db_fail(indexer->store, message, NULL, "index");
}

/* A full disk is no end: commands are refused then, nothing is lost, and it may have room again.
 * The chunk is tried now and then; meanwhile the entities keep what it holds. */
static bool no_room(struct ps_indexer *indexer, const struct rt_errinfo *info)
{
	if (indexer->full_ms == 0) {
		rt_log(RT_LOG_WARN, "store", "the index waits for room on the disk: %s",
			info->text);
	}
	indexer->full_ms = now_ms();
	uv_mutex_lock(&indexer->store->lock);
	atomic_store(&indexer->store->index_waits, true);
	uv_cond_broadcast(&indexer->store->room);
	uv_mutex_unlock(&indexer->store->lock);
	return false;
}

/* False: not now. */
static bool write_chunk(struct ps_indexer *indexer)
{
	struct ps_store *store = indexer->store;
	struct rt_errinfo info = {0};
	if (indexer->full_ms != 0 && now_ms() - indexer->full_ms < RETRY_MS) {
		return false;
	}
	rt_err err = ps_db_writable(store, NULL);
	if (err == RT_OK) {
		err = ps_chunk_write(indexer->chunk, &info);
		if (err == RT_E_NOSPACE && ps_db_writable(store, NULL) == RT_OK) {
			return no_room(indexer, &info);
		}
		if (err != RT_OK) {
			fail(indexer, &info);
		}
	}
	indexer->full_ms = 0;
	atomic_store(&store->index_waits, false);
	/* After a failure the rows are made again from the log at the next open. */
	ps_chunk_clear(indexer->chunk);
	release_blocks(indexer);
	indexer->unsaved += indexer->pending;
	uv_mutex_lock(&store->lock);
	/* Under the lock, so that a writer between its look and its wait is not missed. */
	atomic_fetch_add_explicit(&store->indexed, indexer->pending, memory_order_release);
	uv_cond_broadcast(&store->room);
	uv_mutex_unlock(&store->lock);
	indexer->pending = 0;
	return true;
}

/* Takes what one stage published, at most until the chunk is full. */
static void drain_stage(struct ps_indexer *indexer, struct ps_stage *stage)
{
	for (;;) {
		struct block *block = stage->head;
		struct block *next = atomic_load_explicit(&block->next, memory_order_acquire);
		size_t end = atomic_load_explicit(&block->published, memory_order_acquire);
		while (block->taken < end && indexer->pending < PS_CHUNK_RECORDS) {
			const struct ps_staged *staged =
				(const struct ps_staged *)(void *)(block->bytes + block->taken);
			rt_err err = ps_chunk_add(indexer->chunk, staged);
			if (err != RT_OK) {
				struct rt_errinfo info = {0};
				(void)rt_errinfo_set(&info, err, "out of memory");
				fail(indexer, &info);
			}
			block->taken += ps_staged_bytes(staged);
			if (indexer->pending++ == 0) {
				indexer->since_ms = now_ms();
			}
		}
		/* next was read before published: all of a block with a successor is seen. */
		if (block->taken < end || next == NULL) {
			return;
		}
		stage->head = next;
		block->link = indexer->held;
		indexer->held = block;
	}
}

static void write_snapshot(struct ps_store *store, const struct snapshot_node *node)
{
	uv_mutex_lock(&store->indexing);
	if (node->wipes == atomic_load(&store->shards[node->shard].wipes)) {
		rt_err err =
			ps_store_snapshot_put(store, node->shard, node->pid, &node->snapshot, NULL);
		RT_MAYBE(err != RT_OK); /* costs time at the next recovery, nothing else */
	}
	uv_mutex_unlock(&store->indexing);
}

static void write_snapshots(struct ps_indexer *indexer)
{
	uv_mutex_lock(&indexer->lock);
	struct snapshot_node *node = indexer->snapshots;
	indexer->snapshots = NULL;
	indexer->snapshots_tail = &indexer->snapshots;
	indexer->snapshot_count = 0;
	indexer->snapshot_bytes = 0;
	uv_mutex_unlock(&indexer->lock);
	while (node != NULL) {
		struct snapshot_node *next = node->next;
		write_snapshot(indexer->store, node);
		free(node);
		node = next;
	}
}

static void start_flush(struct ps_store *store)
{
	rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
	rocksdb_flushoptions_set_wait(options, 0);
	char *message = NULL;
	rocksdb_flush_cf(store->db, options, store->family[PS_INDEX], &message);
	rocksdb_flushoptions_destroy(options);
	if (message != NULL) {
		(void)ps_db_fail(store, message, NULL, "flush index");
	}
}

static void keep_house(struct ps_indexer *indexer)
{
	struct ps_store *store = indexer->store;
	uint64_t now = now_ms();
	if (now - indexer->kept_ms < HOUSEKEEPING_MS) {
		return;
	}
	indexer->kept_ms = now;
	ps_store_update_space(store);
	uint64_t syncs = atomic_load_explicit(&store->syncs, memory_order_relaxed);
	if (syncs != store->highwater_syncs && ps_db_writable(store, NULL) == RT_OK) {
		struct rt_errinfo info = {0};
		store->highwater_syncs = syncs;
		if (ps_highwater_sync(store->highwater, &info) != RT_OK) {
			fail(indexer, &info);
		}
	}
	if (indexer->unsaved >= FLUSH_RECORDS && !ps_store_space_low(store) &&
		ps_db_writable(store, NULL) == RT_OK) {
		indexer->unsaved = 0;
		start_flush(store);
	}
}

/* What was staged before a barrier was published before it, so the next look sees it. */
static bool wait_for_work(struct ps_indexer *indexer)
{
	uv_mutex_lock(&indexer->lock);
	if (!indexer->woken && !indexer->stopping) {
		uv_cond_timedwait(&indexer->wake, &indexer->lock, TICK_MS * UINT64_C(1000000));
	}
	indexer->woken = false;
	bool stopping = indexer->stopping;
	while (indexer->barriers != NULL) {
		struct ps_barrier *barrier = indexer->barriers;
		indexer->barriers = barrier->next;
		barrier->next = indexer->waiting;
		indexer->waiting = barrier;
	}
	uv_mutex_unlock(&indexer->lock);
	return !stopping;
}

static void release_barriers(struct ps_indexer *indexer)
{
	while (indexer->waiting != NULL) {
		struct ps_barrier *barrier = indexer->waiting;
		indexer->waiting = barrier->next; /* posted, it is the worker's */
		barrier->post.next = NULL;
		rt_worker_post_always(barrier->worker, &barrier->post);
	}
}

/* Takes what was published and writes what is ripe. False: the disk is full. */
static bool write_ripe(struct ps_indexer *indexer, bool now)
{
	for (;;) {
		for (uint32_t i = 0; i < indexer->stage_count; i++) {
			drain_stage(indexer, &indexer->stages[i]);
		}
		bool full = indexer->pending >= PS_CHUNK_RECORDS;
		bool old = now_ms() - indexer->since_ms >= PS_CHUNK_MS;
		bool ripe = indexer->pending > 0 && (full || old || now);
		if (ripe && !write_chunk(indexer)) {
			return false;
		}
		if (!full) {
			return true;
		}
	}
}

static void run(void *arg)
{
	struct ps_indexer *indexer = arg;
	prctl(PR_SET_NAME, "ps-indexer");
	rocksdb_set_perf_level(rocksdb_disable);
	bool go = true;
	while (go) {
		go = wait_for_work(indexer);
		bool now = !go || indexer->waiting != NULL;
		if (write_ripe(indexer, now) && go &&
			ps_db_writable(indexer->store, NULL) == RT_OK) {
			release_barriers(indexer);
		}
		write_snapshots(indexer);
		keep_house(indexer);
	}
}

static void indexer_free(struct ps_indexer *indexer)
{
	release_blocks(indexer);
	for (uint32_t i = 0; i < indexer->stage_count; i++) {
		for (struct block *block = indexer->stages[i].head; block != NULL;) {
			struct block *next = atomic_load(&block->next);
			free(block);
			block = next;
		}
	}
	while (indexer->spare != NULL) {
		struct block *block = indexer->spare;
		indexer->spare = block->link;
		free(block);
	}
	ps_chunk_free(indexer->chunk);
	uv_cond_destroy(&indexer->wake);
	uv_mutex_destroy(&indexer->lock);
	free(indexer->stages);
	free(indexer);
}

rt_err ps_indexer_start(
	struct ps_store *store, uint32_t workers, struct ps_indexer **out, struct rt_errinfo *info)
{
	RT_ASSERT(workers > 0);
	struct ps_indexer *indexer = calloc(1, sizeof(*indexer));
	if (indexer == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	int code = uv_mutex_init(&indexer->lock);
	RT_ASSERT(code == 0);
	code = uv_cond_init(&indexer->wake);
	RT_ASSERT(code == 0);
	indexer->store = store;
	indexer->kept_ms = now_ms();
	indexer->snapshots_tail = &indexer->snapshots;
	indexer->chunk = ps_chunk_new(store);
	indexer->stages = aligned_alloc(RT_CACHELINE, workers * sizeof(*indexer->stages));
	if (indexer->chunk == NULL || indexer->stages == NULL) {
		indexer_free(indexer);
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	memset(indexer->stages, 0, workers * sizeof(*indexer->stages));
	indexer->stage_count = workers;
	for (uint32_t i = 0; i < workers; i++) {
		struct ps_stage *stage = &indexer->stages[i];
		stage->indexer = indexer;
		stage->head = stage->tail = block_new(indexer, 0);
	}
	if (uv_thread_create(&indexer->thread, run, indexer) != 0) {
		indexer_free(indexer);
		return rt_errinfo_set(info, RT_E_NOMEM, "cannot start the indexer thread");
	}
	*out = indexer;
	return RT_OK;
}

void ps_indexer_stop(struct ps_indexer *indexer)
{
	if (indexer == NULL) {
		return;
	}
	uv_mutex_lock(&indexer->lock);
	indexer->stopping = true;
	uv_mutex_unlock(&indexer->lock);
	uv_cond_signal(&indexer->wake);
	uv_thread_join(&indexer->thread);
	indexer_free(indexer);
}
