/* The indexer in virtual time. Rows are computed when they are read, so all that a chunk does is to
 * move watermarks; what was staged has to be what the log holds. */
#include <stdlib.h>

#include "runtime/base/hash.h"
#include "tests/clustersim/mem_inside.h"

struct staged {
	uint32_t shard;
	uint16_t wipes; /* of the shard, when it was staged */
	uint64_t offset;
	bool has_rows;
	uint64_t pid_hash, id_hash, first_seq;
};

struct snapshot {
	struct snapshot *next;
	uint32_t shard, wipes, pid_size;
	struct ps_snapshot snapshot;
	uint8_t bytes[]; /* pid, state */
};

struct ps_stage {
	struct ps_indexer *indexer;
	struct staged *items; /* published first */
	uint32_t count, cap, published;
	uint8_t spare[64];
};

struct ps_indexer {
	struct mem_store *store;
	struct ps_stage *stages;
	uint32_t stage_count;
	struct snapshot *snapshots, **snapshots_tail;
	struct ps_barrier *barriers;
	uint64_t due; /* of the chunk event that is queued, MEM_NEVER: none */
};

/* ---- worker side ---- */
struct ps_stage *ps_indexer_stage(struct ps_indexer *indexer, uint32_t worker)
{
	RT_ASSERT(worker < indexer->stage_count);
	return &indexer->stages[worker];
}

uint64_t ps_indexer_backlog(const struct ps_indexer *indexer)
{
	return ps_store_backlog(&indexer->store->base);
}

static void wake_at(struct ps_indexer *indexer, uint64_t at)
{
	if (at < indexer->due && !indexer->store->crashed) {
		indexer->due = at;
		mem_at(indexer->store, at, MEM_EV_CHUNK, indexer);
	}
}

void ps_stage_record(
	struct ps_stage *stage, uint32_t shard, uint64_t offset, const struct ps_record *record)
{
	struct mem_store *store = stage->indexer->store;
	RT_ASSERT(shard < store->disk->log_count && offset > 0);
	if (stage->count == stage->cap) {
		stage->cap = stage->cap == 0 ? 256 : stage->cap * 2;
		stage->items = realloc(stage->items, stage->cap * sizeof(*stage->items));
		RT_ASSERT(stage->items != NULL);
	}
	bool rows = record->kind == PS_KIND_COMMAND;
	stage->items[stage->count++] = (struct staged){.shard = shard,
		.wipes = (uint16_t)store->base.shards[shard].wipes_done,
		.offset = offset,
		.has_rows = rows,
		.pid_hash = rows ? rt_hash(record->pid.data, record->pid.size) : 0,
		.id_hash = rows ? ps_dedupe_hash(record->command_id) : 0,
		.first_seq = record->first_seq};
}

void ps_stage_flush(struct ps_stage *stage)
{
	struct mem_disk *disk = stage->indexer->store->disk;
	if (stage->published == stage->count) {
		return;
	}
	stage->indexer->store->base.staged += stage->count - stage->published;
	stage->published = stage->count;
	uint32_t ripe = disk->options.shape->chunk_us;
	wake_at(stage->indexer,
		mem_now_us(disk) + (ripe == 0 ? PS_CHUNK_MS * 1000u : 1 + mem_below(disk, ripe)));
}

void ps_stage_snapshot(struct ps_stage *stage, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot)
{
	struct ps_indexer *indexer = stage->indexer;
	struct mem_disk *disk = indexer->store->disk;
	if (indexer->store->crashed) {
		return;
	}
	struct snapshot *node = malloc(sizeof(*node) + pid.size + snapshot->state.size);
	RT_ASSERT(node != NULL);
	memcpy(node->bytes, pid.data, pid.size);
	if (snapshot->state.size > 0) {
		memcpy(node->bytes + pid.size, snapshot->state.data, snapshot->state.size);
	}
	node->next = NULL;
	node->shard = shard;
	node->wipes = indexer->store->base.shards[shard].wipes_done;
	node->pid_size = (uint32_t)pid.size;
	node->snapshot = *snapshot;
	node->snapshot.state = rt_bytes_of(node->bytes + pid.size, snapshot->state.size);
	*indexer->snapshots_tail = node;
	indexer->snapshots_tail = &node->next;
	wake_at(indexer, mem_now_us(disk) + 1 + mem_below(disk, 250000));
}

void ps_stage_barrier(struct ps_stage *stage, struct ps_barrier *barrier)
{
	struct ps_indexer *indexer = stage->indexer;
	struct mem_disk *disk = indexer->store->disk;
	ps_stage_flush(stage);
	barrier->next = indexer->barriers;
	indexer->barriers = barrier;
	wake_at(indexer, mem_now_us(disk) + 1 + mem_below(disk, 2000));
}

/* ---- the thread's side ---- */
void mem_watermark(struct mem_store *store, uint32_t shard, uint64_t watermark)
{
	store->base.shards[shard].watermark = watermark;
	if (store->mark_count == store->mark_cap) {
		store->mark_cap = store->mark_cap == 0 ? 64 : store->mark_cap * 2;
		store->marks = realloc(store->marks, store->mark_cap * sizeof(*store->marks));
		RT_ASSERT(store->marks != NULL);
	}
	store->marks[store->mark_count++] = (struct mem_mark){shard, store->chunk, watermark};
}

void mem_forget_marks(struct mem_store *store, uint32_t shard)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < store->mark_count; i++) {
		if (store->marks[i].shard != shard) {
			store->marks[kept++] = store->marks[i];
		}
	}
	store->mark_count = kept;
}

/* The record behind these rows is the one that the log has. */
static void check_staged(const struct mem_store *store, const struct staged *staged)
{
	const struct mem_record *record = mem_log_at(&store->logs[staged->shard], staged->offset);
	RT_ASSERT(record != NULL);
	RT_ASSERT(staged->offset <= store->base.shards[staged->shard].durable);
	if (staged->has_rows) {
		RT_ASSERT(record->pid_hash == staged->pid_hash &&
			  record->id_hash == staged->id_hash &&
			  record->head.first_seq == staged->first_seq);
	}
}

static void write_stage(struct ps_indexer *indexer, struct ps_stage *stage)
{
	struct mem_store *store = indexer->store;
	for (uint32_t i = 0; i < stage->published; i++) {
		const struct staged *staged = &stage->items[i];
		if (staged->wipes == (uint16_t)store->base.shards[staged->shard].wipes) {
			check_staged(store, staged);
			RT_ASSERT(staged->offset > store->base.shards[staged->shard].watermark);
			mem_watermark(store, staged->shard, staged->offset);
		}
	}
	store->base.indexed += stage->published;
	stage->count -= stage->published;
	if (stage->count > 0) {
		memmove(stage->items, stage->items + stage->published,
			stage->count * sizeof(*stage->items));
	}
	stage->published = 0;
}

static void write_snapshots(struct ps_indexer *indexer, bool drop)
{
	struct mem_store *store = indexer->store;
	while (indexer->snapshots != NULL) {
		struct snapshot *node = indexer->snapshots;
		indexer->snapshots = node->next;
		if (!drop && node->wipes == store->base.shards[node->shard].wipes) {
			mem_snapshots_put(&store->snapshots, node->shard,
				rt_bytes_of(node->bytes, node->pid_size), &node->snapshot);
		}
		free(node);
	}
	indexer->snapshots_tail = &indexer->snapshots;
}

/* The memtables reach the disk now and then. */
static void maybe_flush(struct mem_store *store)
{
	struct mem_disk *disk = store->disk;
	if (store->unsynced.count > 0 || !mem_chance(disk, 20)) {
		return; /* The real one flushes the log before the index. */
	}
	for (uint32_t i = 0; i < disk->log_count; i++) {
		disk->image.watermarks[i] = store->base.shards[i].watermark;
	}
	mem_snapshots_copy(&disk->image.snapshots, &store->snapshots);
	store->mark_count = 0;
}

static void write_all(struct ps_indexer *indexer)
{
	struct mem_store *store = indexer->store;
	store->chunk++;
	if (!store->base.failed) {
		for (uint32_t i = 0; i < indexer->stage_count; i++) {
			write_stage(indexer, &indexer->stages[i]);
		}
	}
	write_snapshots(indexer, store->base.failed);
	if (!store->base.failed) {
		maybe_flush(store);
	}
}

void mem_indexer_run(struct ps_indexer *indexer)
{
	if (mem_now_us(indexer->store->disk) < indexer->due) {
		return; /* an earlier event took its place */
	}
	indexer->due = MEM_NEVER;
	write_all(indexer);
	/* Who waits for rows that will never be there waits for the end of the process. */
	while (indexer->barriers != NULL && !indexer->store->base.failed) {
		struct ps_barrier *barrier = indexer->barriers;
		indexer->barriers = barrier->next;
		barrier->post.next = NULL;
		rt_worker_post_always(barrier->worker, &barrier->post);
	}
}

rt_err ps_indexer_start(
	struct ps_store *store, uint32_t workers, struct ps_indexer **out, struct rt_errinfo *info)
{
	(void)info;
	struct ps_indexer *indexer = calloc(1, sizeof(*indexer));
	RT_ASSERT(indexer != NULL);
	indexer->store = mem_store_of(store);
	indexer->stages = calloc(workers, sizeof(*indexer->stages));
	RT_ASSERT(indexer->stages != NULL);
	indexer->stage_count = workers;
	for (uint32_t i = 0; i < workers; i++) {
		indexer->stages[i].indexer = indexer;
	}
	indexer->snapshots_tail = &indexer->snapshots;
	indexer->due = MEM_NEVER;
	indexer->store->indexer = indexer;
	*out = indexer;
	return RT_OK;
}

/* Whoever waits for a barrier waits for ever, as with the real one. */
void ps_indexer_stop(struct ps_indexer *indexer)
{
	if (indexer == NULL) {
		return;
	}
	struct mem_store *store = indexer->store;
	if (store->crashed || store->base.failed) {
		write_snapshots(indexer, true);
	} else {
		write_all(indexer);
	}
	for (uint32_t i = 0; i < indexer->stage_count; i++) {
		free(indexer->stages[i].items);
	}
	free(indexer->stages);
	store->indexer = NULL;
	free(indexer);
}
