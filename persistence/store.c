#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "persistence/db.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"

#define SCAN_READAHEAD  (2u * 1024u * 1024u)
#define SCAN_LONG       4096u /* records: worth reading so far ahead for */
#define PIECE_READAHEAD (256u * 1024u)
#define PIECE_LONG      128u /* as one reads who does not come back: not worth a place in the cache */

uint32_t ps_store_shard_count(const struct ps_store *store)
{
	return store->shard_count;
}

uint32_t ps_store_log_count(const struct ps_store *store)
{
	return store->log_count;
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
	RT_ASSERT(shard < store->log_count);
	return load(&store->shards[shard].first);
}

uint64_t ps_store_last_offset(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->log_count);
	return load(&store->shards[shard].last);
}

uint64_t ps_store_durable_offset(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->log_count);
	return load(&store->shards[shard].durable);
}

uint64_t ps_store_index_watermark(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->log_count);
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

static rt_err gap(struct ps_store *store, uint32_t shard, uint64_t offset, struct rt_errinfo *info)
{
	return rt_errinfo_set(info, RT_E_CORRUPT, "%s: shard %u: offset %llu is missing",
		store->db_dir, shard, (unsigned long long)offset);
}

/* Whether rows of a shard were taken away since cuts was read. Who looks after missing a row: the
 * number was stepped before the row went. */
static bool was_cut(const struct ps_shard *at, uint64_t cuts)
{
	return cuts % 2 != 0 || load(&at->cuts) != cuts;
}

static size_t ahead_of(uint64_t records)
{
	return records > SCAN_LONG ? SCAN_READAHEAD : records > PIECE_LONG ? PIECE_READAHEAD : 0;
}

/* NOLINTNEXTLINE(readability-function-size): a range and its visitor */
rt_err ps_store_read(struct ps_store *store, uint32_t shard, uint64_t from, uint64_t upto,
	ps_visit_fn *visit, void *arg, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->log_count);
	struct ps_shard *at = &store->shards[shard];
	uint64_t cuts = load(&at->cuts);
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
		true, ahead_of(upto - from + 1)};
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
	if (err == RT_OK && go && next <= upto && !was_cut(at, cuts)) {
		return gap(store, shard, next, info);
	}
	return err;
}

rt_err ps_store_get(struct ps_store *store, uint32_t shard, uint64_t offset, struct rt_bytes *out,
	struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->log_count);
	const struct ps_shard *at = &store->shards[shard];
	uint64_t cuts = load(&at->cuts);
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
		return was_cut(at, cuts) ? RT_E_NOTFOUND : gap(store, shard, offset, info);
	}
	*out = rt_bytes_of(value, size);
	return RT_OK;
}

static bool add_to_hash(void *arg, uint64_t offset, struct rt_bytes record)
{
	struct ps_log_hash *sum = arg;
	uint64_t one = rt_hash_mix(rt_hash(record.data, record.size) + offset);
	sum->hash = rt_hash_mix(sum->hash + one);
	sum->last = offset;
	return true;
}

rt_err ps_store_hash(struct ps_store *store, uint32_t shard, uint64_t upto, struct ps_log_hash *out,
	struct rt_errinfo *info)
{
	uint64_t durable = ps_store_durable_offset(store, shard);
	uint64_t first = ps_store_first_offset(store, shard);
	*out = (struct ps_log_hash){.first = first, .last = first - 1};
	return ps_store_read(
		store, shard, first, upto < durable ? upto : durable, add_to_hash, out, info);
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
