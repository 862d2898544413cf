/* Disks by name, what happens on them in time, and crashes. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/clustersim/mem_inside.h"

#define DISKS_MAX 64u

static struct mem_disk *disks[DISKS_MAX];

uint64_t mem_now_us(const struct mem_disk *disk)
{
	return *disk->options.now_us;
}

uint32_t mem_below(struct mem_disk *disk, uint32_t bound)
{
	return rt_random_below(disk->options.random, bound);
}

uint32_t mem_between(struct mem_disk *disk, uint32_t low, uint32_t high)
{
	return low + mem_below(disk, high > low ? high - low + 1 : 1);
}

bool mem_chance(struct mem_disk *disk, uint32_t percent)
{
	return percent > 0 && mem_below(disk, 100) < percent;
}

/* ---- disks ---- */
struct mem_disk *mem_disk_new(const struct mem_disk_options *options)
{
	struct mem_disk *disk = calloc(1, sizeof(*disk));
	RT_ASSERT(disk != NULL);
	disk->options = *options;
	snprintf(disk->name, sizeof(disk->name), "%s", options->name);
	uint32_t at = 0;
	while (at < DISKS_MAX && disks[at] != NULL) {
		at++;
	}
	RT_ASSERT(at < DISKS_MAX);
	disks[at] = disk;
	return disk;
}

static struct mem_disk *find(const char *name)
{
	for (uint32_t i = 0; i < DISKS_MAX; i++) {
		if (disks[i] != NULL && strcmp(disks[i]->name, name) == 0) {
			return disks[i];
		}
	}
	return NULL;
}

void mem_disk_erase(struct mem_disk *disk)
{
	RT_ASSERT(disk->store == NULL);
	for (uint32_t i = 0; i < disk->log_count; i++) {
		mem_log_done(&disk->image.logs[i]);
	}
	free(disk->image.logs);
	free(disk->image.watermarks);
	mem_rows_done(&disk->image.meta);
	mem_snapshots_done(&disk->image.snapshots);
	disk->image = (struct mem_image){0};
	disk->exists = false;
	disk->log_count = disk->shard_count = 0;
}

void mem_disk_free(struct mem_disk *disk)
{
	if (disk == NULL) {
		return;
	}
	mem_disk_erase(disk);
	for (uint32_t i = 0; i < DISKS_MAX; i++) {
		disks[i] = disks[i] == disk ? NULL : disks[i];
	}
	free(disk);
}

void mem_disk_stall(struct mem_disk *disk, uint64_t until_us)
{
	disk->stalled_until = until_us;
}

void mem_disk_break(struct mem_disk *disk, enum mem_break how)
{
	disk->broken = true;
	disk->how = how;
}

bool mem_disk_busy(const struct mem_disk *disk)
{
	const struct mem_store *store = disk->store;
	return store != NULL && (store->reads > 0 || store->news > 0 ||
					(store->writer != NULL && mem_writer_busy(store->writer)));
}

bool mem_disk_broken(const struct mem_disk *disk)
{
	return disk->broken;
}

bool mem_disk_failed(const struct mem_disk *disk)
{
	return disk->store != NULL && disk->store->base.failed;
}

void mem_disk_space_low(struct mem_disk *disk, bool low)
{
	disk->space_low = low;
}

bool mem_disk_exists(const struct mem_disk *disk)
{
	return disk->exists;
}

uint64_t mem_disk_first(const struct mem_disk *disk, uint32_t shard)
{
	return shard < disk->log_count ? disk->image.logs[shard].first : 1;
}

uint64_t mem_disk_last(const struct mem_disk *disk, uint32_t shard)
{
	return shard < disk->log_count ? mem_log_last(&disk->image.logs[shard]) : 0;
}

struct rt_bytes mem_disk_record(const struct mem_disk *disk, uint32_t shard, uint64_t offset)
{
	const struct mem_record *record =
		shard < disk->log_count ? mem_log_at(&disk->image.logs[shard], offset) : NULL;
	return record == NULL ? (struct rt_bytes){0} : rt_bytes_of(record->bytes, record->size);
}

struct rt_bytes mem_disk_written(const struct mem_disk *disk, uint32_t shard, uint64_t offset)
{
	const struct mem_record *record =
		disk->store == NULL ? NULL : mem_log_at(&disk->store->logs[shard], offset);
	return record == NULL ? (struct rt_bytes){0} : rt_bytes_of(record->bytes, record->size);
}

/* ---- time ---- */
static bool before(const struct mem_event *a, const struct mem_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void mem_at(struct mem_store *store, uint64_t at, enum mem_event_kind kind, void *what)
{
	if (store->heap_count == store->heap_cap) {
		store->heap_cap = store->heap_cap == 0 ? 64 : store->heap_cap * 2;
		store->heap = realloc(store->heap, store->heap_cap * sizeof(*store->heap));
		RT_ASSERT(store->heap != NULL);
	}
	struct mem_event event = {at, store->event_order++, kind, what};
	uint32_t i = store->heap_count++;
	for (; i > 0 && before(&event, &store->heap[(i - 1) / 2]); i = (i - 1) / 2) {
		store->heap[i] = store->heap[(i - 1) / 2];
	}
	store->heap[i] = event;
}

static struct mem_event take_event(struct mem_store *store)
{
	struct mem_event top = store->heap[0];
	struct mem_event last = store->heap[--store->heap_count];
	uint32_t i = 0;
	for (uint32_t child = 1; child < store->heap_count; child = 2 * i + 1) {
		if (child + 1 < store->heap_count &&
			before(&store->heap[child + 1], &store->heap[child])) {
			child++;
		}
		if (!before(&store->heap[child], &last)) {
			break;
		}
		store->heap[i] = store->heap[child];
		i = child;
	}
	store->heap[i] = last;
	return top;
}

struct news {
	struct rt_worker *worker;
	struct rt_post *post;
};

void mem_news(struct mem_store *store, struct rt_worker *worker, struct rt_post *post)
{
	struct mem_disk *disk = store->disk;
	uint64_t at = mem_now_us(disk);
	if (mem_chance(disk, disk->options.shape->late_news)) {
		at += mem_below(disk, disk->options.shape->late_max);
	}
	store->news_at = at > store->news_at ? at : store->news_at;
	struct news *news = malloc(sizeof(*news));
	RT_ASSERT(news != NULL);
	*news = (struct news){worker, post};
	store->news++;
	mem_at(store, store->news_at, MEM_EV_NEWS, news);
}

static void tell(struct news *news)
{
	rt_worker_post_always(news->worker, news->post);
	free(news);
}

static void happen(struct mem_store *store, const struct mem_event *event)
{
	switch (event->kind) {
	case MEM_EV_WRITE:
		mem_writer_write(event->what);
		break;
	case MEM_EV_SYNC:
		mem_writer_synced(event->what);
		break;
	case MEM_EV_NEWS:
		store->news--;
		tell(event->what);
		break;
	case MEM_EV_READ:
		mem_reader_run(store->reader, event->what);
		break;
	case MEM_EV_CHUNK:
		mem_indexer_run(event->what);
		break;
	}
}

uint64_t mem_disk_next_us(const struct mem_disk *disk)
{
	const struct mem_store *store = disk->store;
	return store == NULL || store->heap_count == 0 ? MEM_NEVER : store->heap[0].at;
}

void mem_disk_run(struct mem_disk *disk)
{
	struct mem_store *store = disk->store;
	while (store != NULL && store->heap_count > 0 && store->heap[0].at <= mem_now_us(disk)) {
		struct mem_event event = take_event(store);
		happen(store, &event);
	}
}

/* ---- crashes ---- */
/* Rows that were in memory only are gone, back to some chunk. */
static void lose_rows(struct mem_store *store)
{
	struct mem_disk *disk = store->disk;
	uint32_t upto =
		disk->options.shape->keeps_rows ? store->chunk : mem_below(disk, store->chunk + 1);
	for (uint32_t i = 0; i < store->mark_count && store->marks[i].chunk <= upto; i++) {
		const struct mem_mark *mark = &store->marks[i];
		disk->image.watermarks[mark->shard] = mark->watermark;
	}
	if (mem_chance(disk, 50)) {
		mem_snapshots_copy(&disk->image.snapshots, &store->snapshots);
	}
}

void mem_disk_crash(struct mem_disk *disk)
{
	struct mem_store *store = disk->store;
	if (store == NULL || store->crashed) {
		return;
	}
	store->crashed = true;
	uint32_t rounds = 0;
	if (store->unsynced.count > 0 && mem_chance(disk, disk->options.shape->survives)) {
		uint32_t most = store->unsynced.items[store->unsynced.count - 1].round + 1;
		rounds = mem_chance(disk, 50) ? most : mem_below(disk, most + 1);
	}
	lose_rows(store); /* first: a wipe among the rounds takes all of them */
	mem_image_apply(disk, &store->unsynced, rounds);
	if (store->writer != NULL) {
		mem_writer_crash(store->writer);
	}
	while (store->heap_count > 0) {
		struct mem_event event = take_event(store);
		if (event.kind == MEM_EV_NEWS || event.kind == MEM_EV_READ) {
			happen(store, &event); /* Nobody waits for ever. */
		}
	}
	disk->broken = false;
	disk->stalled_until = 0;
}

/* ---- open and close ---- */
static void make_new(struct mem_disk *disk, uint32_t shard_count)
{
	disk->shard_count = shard_count == 0 ? 64 : shard_count;
	disk->log_count = disk->shard_count + 1;
	disk->image.logs = calloc(disk->log_count, sizeof(*disk->image.logs));
	disk->image.watermarks = calloc(disk->log_count, sizeof(uint64_t));
	RT_ASSERT(disk->image.logs != NULL && disk->image.watermarks != NULL);
	for (uint32_t i = 0; i < disk->log_count; i++) {
		disk->image.logs[i].first = 1;
	}
	snprintf(disk->id, sizeof(disk->id), "%016llx%016llx",
		(unsigned long long)rt_random_next(disk->options.random),
		(unsigned long long)rt_random_next(disk->options.random));
	disk->exists = true;
}

static void load_shard(struct mem_store *store, uint32_t shard)
{
	struct mem_disk *disk = store->disk;
	struct mem_log *log = &store->logs[shard];
	log->first = 1;
	mem_log_copy(log, &disk->image.logs[shard]);
	struct ps_shard *at = &store->base.shards[shard];
	at->first = log->first;
	at->last = at->durable = mem_log_last(log);
	uint64_t watermark = disk->image.watermarks[shard];
	at->watermark = watermark > log->first - 1 ? watermark : log->first - 1;
	RT_ASSERT(at->watermark <= at->last); /* The real store calls that a lost end. */
}

static struct mem_store *store_new(struct mem_disk *disk)
{
	struct mem_store *store = calloc(1, sizeof(*store));
	RT_ASSERT(store != NULL);
	store->disk = disk;
	store->base.db = (rocksdb_t *)store;
	store->base.db_dir = disk->name;
	store->base.dir = disk->name;
	memcpy(store->base.id, disk->id, sizeof(disk->id));
	store->base.shard_count = disk->shard_count;
	store->base.log_count = disk->log_count;
	store->base.shards = calloc(disk->log_count, sizeof(*store->base.shards));
	store->logs = calloc(disk->log_count, sizeof(*store->logs));
	RT_ASSERT(store->base.shards != NULL && store->logs != NULL);
	for (uint32_t i = 0; i < disk->log_count; i++) {
		load_shard(store, i);
	}
	mem_rows_copy(&store->meta, &disk->image.meta);
	mem_snapshots_copy(&store->snapshots, &disk->image.snapshots);
	return store;
}

rt_err ps_store_open(
	const struct ps_store_options *options, struct ps_store **out, struct rt_errinfo *info)
{
	struct mem_disk *disk = find(options->dir);
	if (disk == NULL || (!disk->exists && !options->create)) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "no store in %s", options->dir);
	}
	if (disk->store != NULL) {
		return rt_errinfo_set(info, RT_E_FENCED, "%s is open", options->dir);
	}
	if (!disk->exists) {
		make_new(disk, options->shard_count);
	} else if (options->shard_count != 0 && options->shard_count != disk->shard_count) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "%s has %u shards", options->dir, disk->shard_count);
	}
	struct mem_store *store = store_new(disk);
	for (uint32_t i = 0; i < disk->log_count && !options->leave_tail; i++) {
		mem_watermark(store, i, store->base.shards[i].last);
	}
	disk->store = store;
	*out = &store->base;
	return RT_OK;
}

static void save(struct mem_store *store)
{
	struct mem_disk *disk = store->disk;
	mem_image_apply(disk, &store->unsynced, UINT32_MAX);
	for (uint32_t i = 0; i < disk->log_count; i++) {
		disk->image.watermarks[i] = store->base.shards[i].watermark;
	}
	mem_snapshots_copy(&disk->image.snapshots, &store->snapshots);
}

void ps_store_close(struct ps_store *base)
{
	if (base == NULL) {
		return;
	}
	struct mem_store *store = mem_store_of(base);
	struct mem_disk *disk = store->disk;
	RT_ASSERT(store->writer == NULL && store->reader == NULL && store->indexer == NULL);
	if (base->failed) {
		mem_disk_crash(disk);
	} else if (!store->crashed) {
		save(store);
	}
	RT_ASSERT(store->news == 0 && store->reads == 0);
	for (uint32_t i = 0; i < disk->log_count; i++) {
		mem_log_done(&store->logs[i]);
	}
	mem_rows_done(&store->meta);
	mem_snapshots_done(&store->snapshots);
	mem_ops_done(&store->unsynced);
	free(store->marks);
	free(store->heap);
	free(store->logs);
	free(base->shards);
	free(store);
	disk->store = NULL;
}
