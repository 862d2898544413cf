#include "persistence/chunk.h"

#include <stdlib.h>

#include "persistence/table.h"
#include "runtime/base/assert.h"

#define PAIRS_PER_ROW 1024u /* one row of a hot entity stays below a block or two */

struct ps_chunk {
	struct ps_store *store;
	const struct ps_staged **items; /* in order of arrival, then sorted */
	const struct ps_staged **sorted;
	size_t count, cap;
	uint64_t *last;  /* per shard: highest offset, 0 when untouched */
	uint16_t *wipes; /* per shard: of what was added */
	size_t *start;   /* per shard: counting sort */
	rocksdb_writebatch_t *batch;
	uint32_t batch_rows;
};

static uint64_t locate(struct rt_bytes pid)
{
	const uint8_t *bar = memchr(pid.data, '|', pid.size);
	const uint8_t *id = bar == NULL ? pid.data : bar + 1;
	size_t size = (size_t)(pid.data + pid.size - id);
	uint8_t head[8] = {0};
	memcpy(head, id, size < 8 ? size : 8);
	return ps_get_u64(head);
}

static size_t tags_size(const struct ps_record *record)
{
	size_t size = 0;
	struct rt_bytes events = record->events;
	struct ps_event event;
	while (ps_record_next_event(&events, &event)) {
		struct rt_bytes tag;
		while (ps_record_next_tag(&event.tags, &tag)) {
			size += 1 + tag.size;
		}
	}
	return size;
}

size_t ps_staged_size(const struct ps_record *record)
{
	size_t size = sizeof(struct ps_staged);
	if (record->kind == PS_KIND_COMMAND) {
		size += record->pid.size + tags_size(record);
	}
	return (size + 7) & ~(size_t)7;
}

size_t ps_staged_bytes(const struct ps_staged *staged)
{
	return (sizeof(*staged) + staged->pid_size + staged->tags_size + 7) & ~(size_t)7;
}

void ps_staged_put(
	struct ps_staged *at, uint32_t shard, uint64_t offset, const struct ps_record *record)
{
	*at = (struct ps_staged){.offset = offset, .shard = (uint16_t)shard};
	if (record->kind != PS_KIND_COMMAND) {
		return;
	}
	at->first_seq = record->first_seq;
	at->events = record->event_count;
	at->pid_size = (uint16_t)record->pid.size;
	at->locate = locate(record->pid);
	at->has_id = record->command_id.size > 0;
	at->hash = at->has_id ? ps_dedupe_hash(record->command_id) : 0;
	memcpy(at->bytes, record->pid.data, record->pid.size);
	uint8_t *end = at->bytes + record->pid.size;
	struct rt_bytes events = record->events;
	struct ps_event event;
	while (ps_record_next_event(&events, &event)) {
		struct rt_bytes tag;
		while (ps_record_next_tag(&event.tags, &tag)) {
			*end++ = (uint8_t)tag.size;
			memcpy(end, tag.data, tag.size);
			end += tag.size;
		}
	}
	at->tags_size = (uint32_t)(end - (at->bytes + record->pid.size));
}

struct ps_chunk *ps_chunk_new(struct ps_store *store)
{
	struct ps_chunk *chunk = calloc(1, sizeof(*chunk));
	if (chunk == NULL) {
		return NULL;
	}
	chunk->store = store;
	chunk->last = calloc(store->log_count, sizeof(*chunk->last));
	chunk->wipes = calloc(store->log_count, sizeof(*chunk->wipes));
	chunk->start = calloc(store->log_count + 1u, sizeof(*chunk->start));
	chunk->batch = rocksdb_writebatch_create();
	if (chunk->last == NULL || chunk->wipes == NULL || chunk->start == NULL) {
		ps_chunk_free(chunk);
		return NULL;
	}
	return chunk;
}

void ps_chunk_free(struct ps_chunk *chunk)
{
	if (chunk == NULL) {
		return;
	}
	rocksdb_writebatch_destroy(chunk->batch);
	free(chunk->items);
	free(chunk->sorted);
	free(chunk->last);
	free(chunk->wipes);
	free(chunk->start);
	free(chunk);
}

static rt_err grow(struct ps_chunk *chunk)
{
	size_t cap = chunk->cap == 0 ? 1024 : chunk->cap * 2;
	const struct ps_staged **items = realloc(chunk->items, cap * sizeof(*items));
	if (items == NULL) {
		return RT_E_NOMEM;
	}
	chunk->items = items;
	items = realloc(chunk->sorted, cap * sizeof(*items));
	if (items == NULL) {
		return RT_E_NOMEM;
	}
	chunk->sorted = items;
	chunk->cap = cap;
	return RT_OK;
}

static uint16_t wipes_now(const struct ps_chunk *chunk, uint32_t shard)
{
	return (uint16_t)atomic_load_explicit(
		&chunk->store->shards[shard].wipes, memory_order_relaxed);
}

/* Leaves out what was added of a shard. */
static void forget(struct ps_chunk *chunk, uint32_t shard)
{
	size_t kept = 0;
	for (size_t i = 0; i < chunk->count && chunk->last[shard] != 0; i++) {
		if (chunk->items[i]->shard != shard) {
			chunk->items[kept++] = chunk->items[i];
		}
	}
	chunk->count = chunk->last[shard] != 0 ? kept : chunk->count;
	chunk->last[shard] = 0;
}

/* Holding `indexing`, so nothing is wiped until the rows are written. */
static void forget_wiped(struct ps_chunk *chunk)
{
	for (uint32_t shard = 0; shard < chunk->store->log_count; shard++) {
		if (chunk->last[shard] != 0 && chunk->wipes[shard] != wipes_now(chunk, shard)) {
			forget(chunk, shard);
		}
	}
}

rt_err ps_chunk_add(struct ps_chunk *chunk, const struct ps_staged *staged)
{
	RT_ASSERT(staged->shard < chunk->store->log_count);
	if (staged->wipes != chunk->wipes[staged->shard]) {
		forget(chunk, staged->shard);
		chunk->wipes[staged->shard] = staged->wipes;
	}
	RT_ASSERT(staged->offset > chunk->last[staged->shard]);
	if (staged->pid_size > 0) {
		if (chunk->count == chunk->cap && grow(chunk) != RT_OK) {
			return RT_E_NOMEM;
		}
		chunk->items[chunk->count++] = staged;
	}
	chunk->last[staged->shard] = staged->offset;
	return RT_OK;
}

size_t ps_chunk_count(const struct ps_chunk *chunk)
{
	return chunk->count;
}

void ps_chunk_clear(struct ps_chunk *chunk)
{
	memset(chunk->last, 0, chunk->store->log_count * sizeof(*chunk->last));
	chunk->count = 0;
}

static void sort_by_shard(struct ps_chunk *chunk)
{
	size_t *start = chunk->start;
	uint32_t shards = chunk->store->log_count;
	memset(start, 0, (shards + 1u) * sizeof(*start));
	for (size_t i = 0; i < chunk->count; i++) {
		start[chunk->items[i]->shard + 1u]++;
	}
	for (uint32_t i = 0; i < shards; i++) {
		start[i + 1] += start[i];
	}
	for (size_t i = 0; i < chunk->count; i++) {
		chunk->sorted[start[chunk->items[i]->shard]++] = chunk->items[i];
	}
	/* Each start now stands at the end of its shard. */
}

static int by_entity(const void *left, const void *right)
{
	const struct ps_staged *a = *(const struct ps_staged *const *)left;
	const struct ps_staged *b = *(const struct ps_staged *const *)right;
	if (a->locate != b->locate) {
		return a->locate < b->locate ? -1 : 1;
	}
	size_t size = a->pid_size < b->pid_size ? a->pid_size : b->pid_size;
	int order = memcmp(a->bytes, b->bytes, size);
	if (order != 0) {
		return order;
	}
	if (a->pid_size != b->pid_size) {
		return a->pid_size < b->pid_size ? -1 : 1;
	}
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int by_hash(const void *left, const void *right)
{
	const struct ps_staged *a = *(const struct ps_staged *const *)left;
	const struct ps_staged *b = *(const struct ps_staged *const *)right;
	if (a->hash != b->hash) {
		return a->hash < b->hash ? -1 : 1;
	}
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static rt_err flush_batch(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	struct ps_store *store = chunk->store;
	char *message = NULL;
	if (chunk->batch_rows > 0) {
		rocksdb_write(store->db, store->no_wal, chunk->batch, &message);
		rocksdb_writebatch_clear(chunk->batch);
		chunk->batch_rows = 0;
	}
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, "write index");
}

static rt_err added(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	return ++chunk->batch_rows < PS_ROWS_PER_BATCH ? RT_OK : flush_batch(chunk, info);
}

static rt_err put_index(struct ps_chunk *chunk, const uint8_t *key, size_t key_size,
	struct rt_bytes value, struct rt_errinfo *info)
{
	rocksdb_writebatch_put_cf(chunk->batch, chunk->store->family[PS_INDEX], (const char *)key,
		key_size, (const char *)value.data, value.size);
	return added(chunk, info);
}

static bool same_entity(const struct ps_staged *a, const struct ps_staged *b)
{
	return a->locate == b->locate && a->pid_size == b->pid_size &&
	       memcmp(a->bytes, b->bytes, a->pid_size) == 0;
}

/* One row from items[0] on; returns how many went in. */
static size_t index_row(const struct ps_staged **items, size_t count, uint8_t *value, size_t *size)
{
	uint8_t *at = value;
	uint64_t offset = 0;
	uint64_t seq = items[0]->first_seq;
	size_t used = 0;
	while (used < count && used < PAIRS_PER_ROW && same_entity(items[0], items[used]) &&
		items[used]->first_seq == seq) {
		at = ps_put_varint(at, items[used]->offset - offset);
		at = ps_put_varint(at, items[used]->events);
		offset = items[used]->offset;
		seq += items[used]->events;
		used++;
		RT_ASSERT(used == count || items[used]->offset > offset ||
			  items[used]->shard != items[0]->shard ||
			  !same_entity(items[0], items[used]));
	}
	*size = (size_t)(at - value);
	return used;
}

/* A chunk that a crash left half-written may have had its rows begin at other records: they would
 * overlap with the row that these went into. */
static rt_err drop_stale(struct ps_chunk *chunk, const struct ps_staged **items, size_t count,
	struct rt_errinfo *info)
{
	uint64_t end = chunk->store->shards[items[0]->shard].chunk_end;
	rt_err err = RT_OK;
	for (size_t i = 1; err == RT_OK && i < count && items[i]->offset <= end; i++) {
		uint8_t key[PS_KEY_NAMED];
		size_t size = ps_key_named(key, items[i]->shard,
			rt_bytes_of(items[i]->bytes, items[i]->pid_size), items[i]->first_seq);
		rocksdb_writebatch_delete_cf(
			chunk->batch, chunk->store->family[PS_INDEX], (const char *)key, size);
		err = added(chunk, info);
	}
	return err;
}

static rt_err write_index(struct ps_chunk *chunk, const struct ps_staged **items, size_t count,
	struct rt_errinfo *info)
{
	uint8_t key[PS_KEY_NAMED];
	uint8_t value[PAIRS_PER_ROW * 16];
	for (size_t i = 0; i < count;) {
		size_t size;
		const struct ps_staged *first = items[i];
		if (first->events == 0) {
			i++; /* Nothing to recover from it; its id is in the dedupe family. */
			continue;
		}
		size_t used = index_row(&items[i], count - i, value, &size);
		size_t key_size = ps_key_named(key, first->shard,
			rt_bytes_of(first->bytes, first->pid_size), first->first_seq);
		rt_err err = put_index(chunk, key, key_size, rt_bytes_of(value, size), info);
		if (err == RT_OK) {
			err = drop_stale(chunk, &items[i], used, info);
		}
		if (err != RT_OK) {
			return err;
		}
		i += used;
	}
	return RT_OK;
}

static rt_err write_dedupe(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	struct ps_table table;
	ps_table_init(&table, chunk->store, PS_DEDUPE, chunk->count);
	size_t begin = 0;
	for (uint32_t shard = 0; shard < chunk->store->log_count; shard++) {
		size_t end = chunk->start[shard];
		qsort(&chunk->sorted[begin], end - begin, sizeof(*chunk->sorted), by_hash);
		for (size_t i = begin; i < end; i++) {
			const struct ps_staged *item = chunk->sorted[i];
			if (!item->has_id) {
				continue;
			}
			uint8_t key[PS_KEY_DEDUPE];
			ps_key_dedupe(key, shard, item->hash, item->offset);
			ps_table_put(&table, rt_bytes_of(key, sizeof(key)), rt_bytes_of("", 0));
		}
		begin = end;
	}
	return ps_table_ingest(&table, info);
}

struct tag_row {
	struct rt_bytes tag;
	uint32_t shard;
	uint64_t offset;
};

static int by_tag(const void *left, const void *right)
{
	const struct tag_row *a = left;
	const struct tag_row *b = right;
	if (a->shard != b->shard) {
		return a->shard < b->shard ? -1 : 1;
	}
	size_t size = a->tag.size < b->tag.size ? a->tag.size : b->tag.size;
	int order = memcmp(a->tag.data, b->tag.data, size);
	if (order != 0) {
		return order;
	}
	if (a->tag.size != b->tag.size) {
		return a->tag.size < b->tag.size ? -1 : 1;
	}
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static size_t collect_tags(const struct ps_chunk *chunk, struct tag_row *rows)
{
	size_t count = 0;
	for (size_t i = 0; i < chunk->count; i++) {
		const struct ps_staged *item = chunk->items[i];
		const uint8_t *at = item->bytes + item->pid_size;
		const uint8_t *end = at + item->tags_size;
		for (; at < end; at += 1 + *at) {
			if (rows != NULL) {
				rows[count] = (struct tag_row){
					rt_bytes_of(at + 1, *at), item->shard, item->offset};
			}
			count++;
		}
	}
	return count;
}

static rt_err write_tags(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	size_t count = collect_tags(chunk, NULL);
	if (count == 0) {
		return RT_OK;
	}
	struct tag_row *rows = calloc(count, sizeof(*rows));
	if (rows == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	(void)collect_tags(chunk, rows);
	qsort(rows, count, sizeof(*rows), by_tag);
	struct ps_table table;
	ps_table_init(&table, chunk->store, PS_TAGS, count);
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && by_tag(&rows[i - 1], &rows[i]) == 0) {
			continue; /* two events of a record with the same tag */
		}
		uint8_t key[PS_KEY_NAMED];
		size_t size = ps_key_named(key, rows[i].shard, rows[i].tag, rows[i].offset);
		ps_table_put(&table, rt_bytes_of(key, size), rt_bytes_of("", 0));
	}
	free(rows);
	return ps_table_ingest(&table, info);
}

static void put_mark(struct ps_chunk *chunk, uint32_t shard, bool open, uint64_t offset)
{
	uint8_t key[PS_KEY_MARK + 1];
	uint8_t value[8];
	struct rt_bytes mark = ps_key_mark(key, shard, open);
	ps_put_u64(value, offset);
	rocksdb_writebatch_put_cf(chunk->batch, chunk->store->family[PS_INDEX],
		(const char *)mark.data, mark.size, (const char *)value, sizeof(value));
	chunk->batch_rows++;
}

/* How far the chunk goes, before its first row: see drop_stale. */
static rt_err write_open(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	for (uint32_t shard = 0; shard < chunk->store->log_count; shard++) {
		uint64_t end = chunk->store->shards[shard].chunk_end;
		if (chunk->last[shard] > end) {
			put_mark(chunk, shard, true, chunk->last[shard]);
		}
	}
	return flush_batch(chunk, info);
}

static rt_err write_watermarks(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	for (uint32_t shard = 0; shard < chunk->store->log_count; shard++) {
		struct ps_shard *at = &chunk->store->shards[shard];
		if (chunk->last[shard] == 0) {
			continue;
		}
		put_mark(chunk, shard, false, chunk->last[shard]);
		if (chunk->last[shard] >= at->chunk_end) {
			uint8_t key[PS_KEY_MARK + 1];
			struct rt_bytes mark = ps_key_mark(key, shard, true);
			rocksdb_writebatch_delete_cf(chunk->batch, chunk->store->family[PS_INDEX],
				(const char *)mark.data, mark.size);
			at->chunk_end = 0;
		}
	}
	return flush_batch(chunk, info);
}

static rt_err write_rows(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	if (chunk->start[chunk->store->log_count - 1] == 0) {
		return RT_OK; /* only watermarks move, nothing is sorted */
	}
	rt_err err = write_dedupe(chunk, info);
	if (err == RT_OK) {
		err = write_tags(chunk, info);
	}
	if (err == RT_OK) {
		err = write_open(chunk, info);
	}
	size_t begin = 0;
	for (uint32_t shard = 0; err == RT_OK && shard < chunk->store->log_count; shard++) {
		size_t end = chunk->start[shard];
		qsort(&chunk->sorted[begin], end - begin, sizeof(*chunk->sorted), by_entity);
		err = write_index(chunk, &chunk->sorted[begin], end - begin, info);
		begin = end;
	}
	return err == RT_OK ? flush_batch(chunk, info) : err;
}

static rt_err write_all(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	struct ps_store *store = chunk->store;
	forget_wiped(chunk);
	sort_by_shard(chunk);
	rt_err err = write_rows(chunk, info);
	if (err == RT_OK) {
		err = write_watermarks(chunk, info);
	}
	for (uint32_t shard = 0; err == RT_OK && shard < store->log_count; shard++) {
		if (chunk->last[shard] != 0) {
			/* Release: pairs with readers that look for the rows below it. */
			atomic_store_explicit(&store->shards[shard].watermark, chunk->last[shard],
				memory_order_release);
		}
	}
	return err;
}

rt_err ps_chunk_write(struct ps_chunk *chunk, struct rt_errinfo *info)
{
	struct ps_store *store = chunk->store;
	uv_mutex_lock(&store->indexing);
	rt_err err = write_all(chunk, info);
	uv_mutex_unlock(&store->indexing);
	if (err == RT_OK) {
		ps_chunk_clear(chunk);
		atomic_fetch_add_explicit(&store->chunks, 1, memory_order_relaxed);
	}
	return err;
}
