#include <stdlib.h>

#include "persistence/db.h"
#include "runtime/base/assert.h"

#define SNAPSHOTS_KEPT  2
#define SNAPSHOT_HEAD   12u /* offset u64, version u32 */
#define READAHEAD_BYTES (1024u * 1024u)

static uint64_t mum(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide product = (wide)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t ps_dedupe_hash(struct rt_bytes id)
{
	/* The multiply-and-fold hash of wyhash; part of the format on disk. */
	const uint64_t k0 = UINT64_C(0xa0761d6478bd642f);
	const uint64_t k1 = UINT64_C(0xe7037ed1a0b428db);
	uint64_t hash = mum(id.size ^ k0, k1);
	for (size_t at = 0; at < id.size; at += 8) {
		uint8_t word[8] = {0};
		memcpy(word, id.data + at, id.size - at < 8 ? id.size - at : 8);
		hash = mum(hash ^ ps_get_u64(word) ^ k0, k1);
	}
	return mum(hash ^ k1, k0) >> 16;
}

static uint64_t watermark(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < store->log_count);
	return atomic_load_explicit(&store->shards[shard].watermark, memory_order_acquire);
}

static bool push(struct ps_offsets *list, uint64_t offset, size_t *cap)
{
	if (list->count == *cap) {
		size_t more = *cap == 0 ? 64 : *cap * 2;
		uint64_t *at = realloc(list->at, more * sizeof(*at));
		if (at == NULL) {
			return false;
		}
		list->at = at;
		*cap = more;
	}
	list->at[list->count++] = offset;
	return true;
}

static rt_err damaged(struct ps_store *store, const char *what, uint32_t shard, struct rt_bytes pid,
	struct rt_errinfo *info)
{
	return rt_errinfo_set(info, RT_E_CORRUPT, "%s: shard %u: damaged %s row of %.*s",
		store->db_dir, shard, what, (int)pid.size, (const char *)pid.data);
}

/* ---- index ---- */

struct index_walk {
	struct ps_store *store;
	uint64_t from_seq, watermark, next_seq; /* next_seq: what the next row has to begin with */
	struct ps_offsets list;
	size_t cap;
};

/* One row: offsets of records that hold events >= from_seq. */
static rt_err walk_row(struct index_walk *walk, uint64_t seq, struct rt_bytes value)
{
	const uint8_t *at = value.data;
	const uint8_t *end = at + value.size;
	uint64_t offset = 0;
	if (ps_get_varint(at, end, &offset) != NULL && offset > walk->watermark) {
		return RT_E_FULL; /* of a chunk that is being written, or was when a crash came */
	}
	if (walk->next_seq != 0 && seq != walk->next_seq) {
		return RT_E_CORRUPT; /* rows follow each other without gap or overlap */
	}
	offset = 0;
	while (at < end) {
		uint64_t delta;
		uint64_t events;
		at = ps_get_varint(at, end, &delta);
		at = at == NULL ? NULL : ps_get_varint(at, end, &events);
		if (at == NULL || delta == 0 || events > PS_EVENTS_MAX) {
			return RT_E_CORRUPT;
		}
		offset += delta;
		seq += events;
		if (offset > walk->watermark || walk->list.count == walk->list.max) {
			return RT_E_FULL;
		}
		if (seq > walk->from_seq && events > 0 && !push(&walk->list, offset, &walk->cap)) {
			return RT_E_NOMEM;
		}
	}
	walk->next_seq = seq;
	return RT_OK;
}

static rt_err walk_rows(struct index_walk *walk, struct ps_iter *iter)
{
	for (; ps_iter_valid(iter); rocksdb_iter_next(iter->it)) {
		struct rt_bytes key = ps_iter_key(iter);
		uint64_t seq = ps_get_u64(key.data + key.size - 8);
		rt_err err = walk_row(walk, seq, ps_iter_value(iter));
		if (err != RT_OK) {
			return err;
		}
	}
	return RT_OK;
}

/* NOLINTNEXTLINE(readability-function-size): a range and where its rows go */
rt_err ps_store_index(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	uint64_t from_seq, size_t max, uint64_t **out_offsets, size_t *out_count,
	struct rt_errinfo *info)
{
	RT_ASSERT(pid.size > 0 && pid.size <= PS_PID_MAX);
	struct index_walk walk = {
		.store = store, .from_seq = from_seq, .watermark = watermark(store, shard)};
	walk.list.max = max;
	uint8_t low[PS_KEY_NAMED];
	uint8_t high[PS_KEY_NAMED];
	uint8_t at[PS_KEY_NAMED];
	size_t size = ps_key_named(low, shard, pid, 0);
	(void)ps_key_named(high, shard, pid, UINT64_MAX);
	(void)ps_key_named(at, shard, pid, from_seq);
	struct ps_range range = {rt_bytes_of(low, size), rt_bytes_of(high, size), false, 0};
	struct ps_iter iter;
	ps_iter_init(&iter, store, PS_INDEX, &range);
	if (from_seq > 1) {
		/* The row that from_seq lies in begins at or before it. */
		rocksdb_iter_seek_for_prev(iter.it, (const char *)at, size);
	}
	if (from_seq <= 1 || !ps_iter_valid(&iter)) {
		rocksdb_iter_seek(iter.it, (const char *)low, size);
	}
	rt_err err = walk_rows(&walk, &iter);
	rt_err ended = ps_iter_done(&iter, info, "read index");
	if (ended == RT_OK && err == RT_E_CORRUPT) {
		ended = damaged(store, "index", shard, pid, info);
	} else if (ended == RT_OK && err == RT_E_NOMEM) {
		ended = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	if (ended != RT_OK) {
		free(walk.list.at);
		return ended;
	}
	*out_offsets = walk.list.at;
	*out_count = walk.list.count;
	return RT_OK;
}

/* ---- dedupe ---- */

static void dedupe_range(uint8_t low[PS_KEY_DEDUPE], uint8_t high[PS_KEY_DEDUPE], uint32_t shard,
	uint64_t low_hash, uint64_t high_hash)
{
	ps_key_dedupe(low, shard, low_hash, 0);
	ps_key_dedupe(high, shard, high_hash, UINT64_MAX);
}

static bool in_window(const struct ps_store *store, uint32_t shard, uint64_t offset, uint64_t mark)
{
	uint64_t first = atomic_load_explicit(&store->shards[shard].first, memory_order_acquire);
	return offset >= first && offset <= mark && offset + PS_DEDUPE_WINDOW > mark;
}

rt_err ps_store_dedupe_scan(struct ps_store *store, uint32_t shard, ps_visit_id_fn *visit,
	void *arg, struct rt_errinfo *info)
{
	uint64_t mark = watermark(store, shard);
	uint8_t low[PS_KEY_DEDUPE];
	uint8_t high[PS_KEY_DEDUPE];
	dedupe_range(low, high, shard, 0, UINT64_MAX >> 16);
	struct ps_range range = {rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)),
		true, READAHEAD_BYTES};
	struct ps_iter iter;
	ps_iter_init(&iter, store, PS_DEDUPE, &range);
	rocksdb_iter_seek(iter.it, (const char *)low, sizeof(low));
	bool go = true;
	for (; go && ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		const uint8_t *key = ps_iter_key(&iter).data;
		uint64_t offset = ps_get_u64(key + 8);
		if (in_window(store, shard, offset, mark)) {
			go = visit(arg, ps_key_dedupe_hash(key), offset);
		}
	}
	return ps_iter_done(&iter, info, "scan dedupe");
}

rt_err ps_dedupe_find(struct ps_store *store, const struct ps_id *id, struct ps_found *out,
	struct rt_errinfo *info)
{
	uint64_t mark = watermark(store, id->shard);
	uint64_t hash = ps_dedupe_hash(id->bytes);
	uint8_t low[PS_KEY_DEDUPE];
	uint8_t high[PS_KEY_DEDUPE];
	dedupe_range(low, high, id->shard, hash, hash);
	struct ps_range range = {
		rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)), false, 0};
	struct ps_iter iter;
	ps_iter_init(&iter, store, PS_DEDUPE, &range);
	rocksdb_iter_seek(iter.it, (const char *)low, sizeof(low));
	rt_err err = RT_E_NOTFOUND;
	for (; err == RT_E_NOTFOUND && ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		uint64_t offset = ps_get_u64(ps_iter_key(&iter).data + 8);
		if (!in_window(store, id->shard, offset, mark)) {
			continue;
		}
		err = ps_store_get(store, id->shard, offset, &out->record, info);
		if (err != RT_OK) {
			continue; /* not found: trimmed meanwhile */
		}
		struct ps_record record;
		err = ps_record_decode(out->record, &record);
		if (err == RT_OK && rt_bytes_equal(record.command_id, id->bytes)) {
			out->offset = offset;
			break;
		}
		free((void *)(uintptr_t)out->record.data);
		err = err == RT_OK ? RT_E_NOTFOUND
				   : rt_errinfo_set(info, RT_E_CORRUPT,
					     "%s: shard %u offset %llu: not a record",
					     store->db_dir, id->shard, (unsigned long long)offset);
	}
	rt_err ended = ps_iter_done(&iter, info, "look up command id");
	if (ended != RT_OK && err == RT_OK) {
		free((void *)(uintptr_t)out->record.data);
	}
	return ended != RT_OK ? ended : err;
}

rt_err ps_store_dedupe(struct ps_store *store, uint32_t shard, struct rt_bytes id,
	uint64_t *out_offset, struct rt_errinfo *info)
{
	struct ps_found found;
	struct ps_id wanted = {shard, id};
	rt_err err = ps_dedupe_find(store, &wanted, &found, info);
	if (err == RT_OK) {
		free((void *)(uintptr_t)found.record.data);
		*out_offset = found.offset;
	}
	return err;
}

/* ---- tags ---- */

/* NOLINTNEXTLINE(readability-function-size): a range and where its rows go */
rt_err ps_store_tagged(struct ps_store *store, uint32_t shard, struct rt_bytes tag, uint64_t from,
	uint64_t upto, struct ps_offsets *out, struct rt_errinfo *info)
{
	RT_ASSERT(tag.size > 0 && tag.size <= PS_TAG_MAX);
	uint64_t mark = watermark(store, shard);
	upto = upto < mark ? upto : mark;
	if (from > upto) {
		*out = (struct ps_offsets){.max = out->max};
		return RT_OK;
	}
	struct ps_offsets list = {.max = out->max};
	size_t cap = 0;
	uint8_t low[PS_KEY_NAMED];
	uint8_t high[PS_KEY_NAMED];
	size_t size = ps_key_named(low, shard, tag, from);
	(void)ps_key_named(high, shard, tag, upto == UINT64_MAX ? upto : upto + 1);
	struct ps_range range = {rt_bytes_of(low, size), rt_bytes_of(high, size), true, 0};
	struct ps_iter iter;
	rt_err err = RT_OK;
	ps_iter_init(&iter, store, PS_TAGS, &range);
	rocksdb_iter_seek(iter.it, (const char *)low, size);
	for (; err == RT_OK && ps_iter_valid(&iter) && list.count < list.max;
		rocksdb_iter_next(iter.it)) {
		struct rt_bytes key = ps_iter_key(&iter);
		if (!push(&list, ps_get_u64(key.data + key.size - 8), &cap)) {
			err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
		}
	}
	rt_err ended = ps_iter_done(&iter, info, "read tags");
	err = ended != RT_OK ? ended : err;
	if (err != RT_OK) {
		free(list.at);
		return err;
	}
	*out = list;
	return RT_OK;
}

/* ---- snapshots ---- */

static void snapshot_range(struct ps_iter *iter, struct ps_store *store, uint32_t shard,
	struct rt_bytes pid, uint64_t upto_seq)
{
	uint8_t low[PS_KEY_NAMED];
	uint8_t high[PS_KEY_NAMED];
	size_t size = ps_key_named(low, shard, pid, ~upto_seq);
	(void)ps_key_named(high, shard, pid, UINT64_MAX);
	struct ps_range range = {rt_bytes_of(low, size), rt_bytes_of(high, size), false, 0};
	ps_iter_init(iter, store, PS_SNAPSHOTS, &range);
	rocksdb_iter_seek(iter->it, (const char *)low, size);
}

static rt_err take_snapshot(const struct ps_iter *iter, uint64_t last, struct ps_snapshot *out)
{
	struct rt_bytes key = ps_iter_key(iter);
	struct rt_bytes value = ps_iter_value(iter);
	if (value.size < SNAPSHOT_HEAD) {
		return RT_E_CORRUPT;
	}
	struct ps_snapshot found = {.seq = ~ps_get_u64(key.data + key.size - 8),
		.offset = ps_get_u64(value.data),
		.version = ps_get_u16(value.data + 8) << 16 | ps_get_u16(value.data + 10)};
	if (found.offset > last) {
		return RT_E_NOTFOUND; /* of events that this log never made durable */
	}
	size_t size = value.size - SNAPSHOT_HEAD;
	uint8_t *state = malloc(size == 0 ? 1 : size);
	if (state == NULL) {
		return RT_E_NOMEM;
	}
	memcpy(state, value.data + SNAPSHOT_HEAD, size);
	found.state = rt_bytes_of(state, size);
	*out = found;
	return RT_OK;
}

rt_err ps_store_snapshot_get(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	uint64_t upto_seq, struct ps_snapshot *out, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->log_count && pid.size > 0 && pid.size <= PS_PID_MAX);
	uint64_t last = atomic_load_explicit(&store->shards[shard].last, memory_order_acquire);
	struct ps_iter iter;
	snapshot_range(&iter, store, shard, pid, upto_seq);
	rt_err err = RT_E_NOTFOUND;
	for (; err == RT_E_NOTFOUND && ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		err = take_snapshot(&iter, last, out);
	}
	rt_err ended = ps_iter_done(&iter, info, "read snapshot");
	if (ended != RT_OK && err == RT_OK) {
		free((void *)(uintptr_t)out->state.data);
	}
	if (ended == RT_OK && err == RT_E_CORRUPT) {
		return damaged(store, "snapshot", shard, pid, info);
	}
	return ended != RT_OK ? ended : err;
}

/* Deletes what lies behind the newest ones. */
static rt_err drop_older(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	rocksdb_writebatch_t *batch, struct rt_errinfo *info)
{
	struct ps_iter iter;
	int seen = 0;
	snapshot_range(&iter, store, shard, pid, UINT64_MAX);
	for (; ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		struct rt_bytes key = ps_iter_key(&iter);
		if (++seen >= SNAPSHOTS_KEPT) {
			rocksdb_writebatch_delete_cf(batch, store->family[PS_SNAPSHOTS],
				(const char *)key.data, key.size);
		}
	}
	return ps_iter_done(&iter, info, "read snapshots");
}

rt_err ps_store_snapshot_put(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->log_count && pid.size > 0 && pid.size <= PS_PID_MAX);
	rt_err err = ps_db_writable(store, info);
	size_t size = SNAPSHOT_HEAD + snapshot->state.size;
	uint8_t *value = err == RT_OK ? malloc(size) : NULL;
	if (value == NULL) {
		return err != RT_OK ? err : rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	uint8_t *at = ps_put_u64(value, snapshot->offset);
	at = ps_put_u16(at, snapshot->version >> 16);
	at = ps_put_u16(at, snapshot->version & 0xffff);
	memcpy(at, snapshot->state.data, snapshot->state.size);
	uint8_t key[PS_KEY_NAMED];
	size_t key_size = ps_key_named(key, shard, pid, ~snapshot->seq);
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	err = drop_older(store, shard, pid, batch, info);
	rocksdb_writebatch_put_cf(batch, store->family[PS_SNAPSHOTS], (const char *)key, key_size,
		(const char *)value, size);
	char *message = NULL;
	if (err == RT_OK) {
		rocksdb_write(store->db, store->no_wal, batch, &message);
	}
	rocksdb_writebatch_destroy(batch);
	free(value);
	return message == NULL ? err : ps_db_fail(store, message, info, "write snapshot");
}
