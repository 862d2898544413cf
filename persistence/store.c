#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "persistence/db.h"
#include "persistence/table.h"
#include "runtime/base/assert.h"

#define SCAN_READAHEAD (2u * 1024u * 1024u)
#define SCAN_LONG      4096u /* records: worth reading ahead for */

uint32_t ps_store_shard_count(const struct ps_store *store)
{
	return store->shard_count;
}

const char *ps_store_id(const struct ps_store *store)
{
	return store->id;
}

static uint64_t load(const _Atomic uint64_t *position)
{
	return atomic_load_explicit(position, memory_order_acquire);
}

uint64_t ps_store_first_offset(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->shard_count);
	return load(&store->shards[shard].first);
}

uint64_t ps_store_last_offset(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->shard_count);
	return load(&store->shards[shard].last);
}

uint64_t ps_store_durable_offset(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->shard_count);
	return load(&store->shards[shard].durable);
}

uint64_t ps_store_index_watermark(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->shard_count);
	return load(&store->shards[shard].watermark);
}

bool ps_store_space_low(const struct ps_store *store)
{
	return atomic_load_explicit(&store->space_low, memory_order_relaxed);
}

void ps_store_update_space(struct ps_store *store)
{
	struct statvfs fs;
	if (statvfs(store->db_dir, &fs) != 0) {
		return;
	}
	uint64_t space = (uint64_t)fs.f_bavail * fs.f_frsize;
	atomic_store_explicit(&store->free_space, space, memory_order_relaxed);
	atomic_store_explicit(&store->space_low, space < store->free_low, memory_order_relaxed);
}

static void mark_dirty(struct ps_store *store, uint32_t shard)
{
	if (!store->shards[shard].dirty) {
		store->shards[shard].dirty = true;
		store->dirty[store->dirty_count++] = shard;
	}
}

static void batch_meta(struct ps_store *store, struct rt_bytes key, struct rt_bytes value)
{
	rocksdb_writebatch_put_cf(store->batch, store->family[PS_META], (const char *)key.data,
		key.size, (const char *)value.data, value.size);
}

static rt_err write_batch(struct ps_store *store, struct rt_errinfo *info, const char *what)
{
	char *message = NULL;
	rocksdb_write(store->db, store->wal, store->batch, &message);
	rocksdb_writebatch_clear(store->batch);
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, what);
}

rt_err ps_store_append(struct ps_store *store, const struct ps_log_row *rows, size_t row_count,
	const struct ps_meta_row *meta, size_t meta_count, struct rt_errinfo *info)
{
	rt_err err = ps_db_writable(store, info);
	if (err != RT_OK) {
		return err;
	}
	uint64_t bytes = 0;
	for (size_t i = 0; i < row_count; i++) {
		const struct ps_log_row *row = &rows[i];
		RT_ASSERT(row->shard < store->shard_count && row->offset > 0);
		RT_ASSERT(i == 0 || rows[i - 1].shard < row->shard ||
			  (rows[i - 1].shard == row->shard && rows[i - 1].offset < row->offset));
		uint8_t key[PS_KEY_LOG];
		ps_key_log(key, row->shard, row->offset);
		rocksdb_writebatch_put_cf(store->batch, store->family[PS_LOG], (const char *)key,
			sizeof(key), (const char *)row->record.data, row->record.size);
		bytes += sizeof(key) + row->record.size;
	}
	for (size_t i = 0; i < meta_count; i++) {
		batch_meta(store, meta[i].key, meta[i].value);
	}
	err = write_batch(store, info, "append");
	if (err != RT_OK) {
		return err;
	}
	for (size_t i = 0; i < row_count; i++) {
		mark_dirty(store, rows[i].shard);
		/* Release: the row is readable for who sees it counted. */
		atomic_store_explicit(
			&store->shards[rows[i].shard].last, rows[i].offset, memory_order_release);
	}
	atomic_fetch_add_explicit(&store->appended_records, row_count, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->appended_bytes, bytes, memory_order_relaxed);
	return RT_OK;
}

static rt_err fail(struct ps_store *store, rt_err err, struct rt_errinfo *info)
{
	/* The database is well, a file beside it is not: fail the handle all the same. */
	struct rt_errinfo local = {0};
	const struct rt_errinfo *from = info == NULL ? &local : info;
	size_t size = strlen(from->text) + 1;
	char *message = malloc(size);
	RT_ASSERT(message != NULL);
	memcpy(message, from->text, size);
	(void)ps_db_fail(store, message, NULL, "store");
	return err;
}

rt_err ps_store_sync(struct ps_store *store, struct rt_errinfo *info)
{
	rt_err err = ps_db_writable(store, info);
	if (err != RT_OK) {
		return err;
	}
	char *message = NULL;
	rocksdb_flush_wal(store->db, 1, &message);
	if (message != NULL) {
		return ps_db_fail(store, message, info, "sync");
	}
	for (uint32_t i = 0; i < store->dirty_count; i++) {
		struct ps_shard *shard = &store->shards[store->dirty[i]];
		uint64_t last = atomic_load_explicit(&shard->last, memory_order_relaxed);
		shard->dirty = false;
		ps_highwater_set(store->highwater, store->dirty[i], last);
		atomic_store_explicit(&shard->durable, last, memory_order_release);
	}
	store->dirty_count = 0;
	atomic_fetch_add_explicit(&store->syncs, 1, memory_order_relaxed);
	err = ps_highwater_write(store->highwater, info);
	return err == RT_OK ? RT_OK : fail(store, err, info);
}

rt_err ps_store_truncate_tail(
	struct ps_store *store, uint32_t shard, uint64_t from, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->shard_count);
	rt_err err = ps_db_writable(store, info);
	if (err != RT_OK) {
		return err;
	}
	struct ps_shard *at = &store->shards[shard];
	if (from <= load(&at->watermark) || from < load(&at->first)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"shard %u: offset %llu is committed and cannot be cut off", shard,
			(unsigned long long)from);
	}
	if (from > load(&at->last)) {
		return RT_OK;
	}
	/* The mark goes down durably before the rows can be gone. */
	if (ps_highwater_get(store->highwater, shard) >= from) {
		ps_highwater_set(store->highwater, shard, from - 1);
		err = ps_highwater_write(store->highwater, info);
		if (err == RT_OK) {
			err = ps_highwater_sync(store->highwater, info);
		}
		if (err != RT_OK) {
			return fail(store, err, info);
		}
	}
	/* Row by row: this library keeps one set of insert hints for rows and range deletions of a
	 * memtable and trips over it. An uncommitted tail is short. */
	for (uint64_t offset = load(&at->last); offset >= from; offset--) {
		uint8_t key[PS_KEY_LOG];
		ps_key_log(key, shard, offset);
		rocksdb_writebatch_delete_cf(
			store->batch, store->family[PS_LOG], (const char *)key, sizeof(key));
	}
	err = write_batch(store, info, "truncate tail");
	if (err != RT_OK) {
		return err;
	}
	atomic_store_explicit(&at->last, from - 1, memory_order_release);
	if (load(&at->durable) >= from) {
		atomic_store_explicit(&at->durable, from - 1, memory_order_release);
	}
	mark_dirty(store, shard);
	return RT_OK;
}

/* A range deletion comes in a table file of its own, since it must not meet the memtable's insert
 * hints (see truncate_tail). Whole files in the range go at once, the rest with compaction. */
static rt_err drop_front(
	struct ps_store *store, uint32_t shard, uint64_t before, struct rt_errinfo *info)
{
	uint8_t low[PS_KEY_LOG];
	uint8_t high[PS_KEY_LOG];
	ps_key_log(low, shard, 0);
	ps_key_log(high, shard, before);
	struct ps_table table;
	ps_table_init(&table, store, PS_LOG);
	ps_table_delete_range(
		&table, rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)));
	rt_err err = ps_table_ingest(&table, info);
	if (err != RT_OK) {
		return err;
	}
	char *message = NULL;
	rocksdb_delete_file_in_range_cf(store->db, store->family[PS_LOG], (const char *)low,
		sizeof(low), (const char *)high, sizeof(high), &message);
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, "truncate front");
}

rt_err ps_store_truncate_front(
	struct ps_store *store, uint32_t shard, uint64_t before, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->shard_count);
	rt_err err = ps_db_writable(store, info);
	if (err != RT_OK) {
		return err;
	}
	struct ps_shard *at = &store->shards[shard];
	uint64_t first = load(&at->first);
	if (before <= first) {
		return RT_OK;
	}
	if (before > load(&at->watermark) + 1) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"shard %u: offset %llu is not indexed yet and cannot be dropped", shard,
			(unsigned long long)before);
	}
	uint8_t key[PS_META_FLOOR_SIZE];
	uint8_t value[8];
	ps_put_u64(value, before);
	batch_meta(store, ps_meta_floor(key, shard), rt_bytes_of(value, sizeof(value)));
	err = write_batch(store, info, "truncate front");
	if (err == RT_OK) {
		/* Files are dropped below without a way back: the floor is durable first. */
		err = ps_store_sync(store, info);
	}
	if (err != RT_OK) {
		return err;
	}
	atomic_store_explicit(&at->first, before, memory_order_release);
	return drop_front(store, shard, before, info);
}

static rt_err gap(struct ps_store *store, uint32_t shard, uint64_t offset, struct rt_errinfo *info)
{
	return rt_errinfo_set(info, RT_E_CORRUPT, "%s: shard %u: offset %llu is missing",
		store->db_dir, shard, (unsigned long long)offset);
}

/* NOLINTNEXTLINE(readability-function-size): a range and its visitor */
rt_err ps_store_read(struct ps_store *store, uint32_t shard, uint64_t from, uint64_t upto,
	ps_visit_fn *visit, void *arg, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->shard_count);
	struct ps_shard *at = &store->shards[shard];
	uint64_t first = load(&at->first);
	uint64_t last = load(&at->last);
	if (from < first) {
		return rt_errinfo_set(info, RT_E_NOTFOUND,
			"shard %u: offset %llu is trimmed, the log begins at %llu", shard,
			(unsigned long long)from, (unsigned long long)first);
	}
	if (upto > last) {
		upto = last;
	}
	if (from > upto) {
		return RT_OK;
	}
	uint8_t low[PS_KEY_LOG];
	uint8_t high[PS_KEY_LOG];
	ps_key_log(low, shard, from);
	ps_key_log(high, shard, upto + 1);
	struct ps_range range = {rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)),
		true, upto - from > SCAN_LONG ? SCAN_READAHEAD : 0};
	struct ps_iter iter;
	ps_iter_init(&iter, store, PS_LOG, &range);
	rocksdb_iter_seek(iter.it, (const char *)low, sizeof(low));
	uint64_t next = from;
	bool go = true;
	for (; go && ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		if (ps_get_u64(ps_iter_key(&iter).data + 2) != next) {
			break;
		}
		go = visit(arg, next, ps_iter_value(&iter));
		next++;
	}
	rt_err err = ps_iter_done(&iter, info, "read log");
	/* A tail cut off meanwhile is no gap. */
	uint64_t now = load(&at->last);
	if (err == RT_OK && go && next <= (now < upto ? now : upto)) {
		return gap(store, shard, next, info);
	}
	return err;
}

rt_err ps_store_get(struct ps_store *store, uint32_t shard, uint64_t offset, struct rt_bytes *out,
	struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->shard_count);
	const struct ps_shard *at = &store->shards[shard];
	if (offset < load(&at->first) || offset > load(&at->last)) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "shard %u: no offset %llu", shard,
			(unsigned long long)offset);
	}
	uint8_t key[PS_KEY_LOG];
	ps_key_log(key, shard, offset);
	char *message = NULL;
	size_t size;
	char *value = rocksdb_get_cf(store->db, store->point, store->family[PS_LOG],
		(const char *)key, sizeof(key), &size, &message);
	if (message != NULL) {
		return ps_db_error(message, info, "read record");
	}
	if (value == NULL) {
		return gap(store, shard, offset, info);
	}
	*out = rt_bytes_of(value, size);
	return RT_OK;
}

rt_err ps_store_meta_get(
	struct ps_store *store, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	char *message = NULL;
	size_t size;
	char *value = rocksdb_get_cf(store->db, store->point, store->family[PS_META],
		(const char *)key.data, key.size, &size, &message);
	if (message != NULL) {
		return ps_db_error(message, info, "read meta");
	}
	if (value == NULL) {
		return RT_E_NOTFOUND;
	}
	*out = rt_bytes_of(value, size);
	return RT_OK;
}

static uint64_t property_sum(struct ps_store *store, const char *name)
{
	uint64_t sum = 0;
	for (int i = 0; i < PS_FAMILIES; i++) {
		uint64_t value = 0;
		if (rocksdb_property_int_cf(store->db, store->family[i], name, &value) == 0) {
			sum += value;
		}
	}
	return sum;
}

void ps_store_stats(struct ps_store *store, struct ps_store_stats *out)
{
	*out = (struct ps_store_stats){
		.disk_bytes = property_sum(store, "rocksdb.total-sst-files-size") +
			      property_sum(store, "rocksdb.total-blob-file-size"),
		.memtable_bytes = property_sum(store, "rocksdb.cur-size-all-mem-tables"),
		.block_cache_bytes = rocksdb_cache_get_usage(store->cache),
		.free_space_bytes = load(&store->free_space),
		.syncs = load(&store->syncs),
		.appended_records = load(&store->appended_records),
		.appended_bytes = load(&store->appended_bytes),
		.index_backlog = ps_store_backlog(store),
		.index_chunks = load(&store->chunks),
		.space_low = ps_store_space_low(store),
		.failed = atomic_load_explicit(&store->failed, memory_order_acquire),
	};
	if (out->failed) {
		uv_mutex_lock(&store->lock);
		memcpy(out->failure, store->failure, sizeof(out->failure));
		uv_mutex_unlock(&store->lock);
	}
}

uint64_t ps_store_backlog(const struct ps_store *store)
{
	uint64_t done = load(&store->indexed); /* first, so that the difference is not negative */
	return load(&store->staged) - done;
}
