/* What changes a shard's log: batches of records, cuts and wipes, the sync, the trimmed front. */
#include <stdlib.h>

#include "persistence/db.h"
#include "persistence/reader.h"
#include "persistence/table.h"
#include "runtime/base/assert.h"

#define ROWS_FEW 65536u /* fewer are deleted one by one, if the disk has room for that */

static uint64_t load(const _Atomic uint64_t *position)
{
	return atomic_load_explicit(position, memory_order_acquire);
}

static void mark_dirty(struct ps_store *store, uint32_t shard)
{
	if (!store->shards[shard].dirty) {
		store->shards[shard].dirty = true;
		store->dirty[store->dirty_count++] = shard;
	}
}

static void batch_meta(struct ps_store *store, rocksdb_writebatch_t *batch, struct rt_bytes key,
	struct rt_bytes value)
{
	rocksdb_writebatch_put_cf(batch, store->family[PS_META], (const char *)key.data, key.size,
		(const char *)value.data, value.size);
}

static void batch_number(struct ps_store *store, rocksdb_writebatch_t *batch, const char *name,
	uint32_t shard, uint64_t number)
{
	uint8_t key[PS_META_SHARD_SIZE];
	uint8_t value[8];
	ps_put_u64(value, number);
	batch_meta(
		store, batch, ps_meta_shard(key, name, shard), rt_bytes_of(value, sizeof(value)));
}

static rt_err write_batch(struct ps_store *store, rocksdb_writebatch_t *batch,
	struct rt_errinfo *info, const char *what)
{
	char *message = NULL;
	rocksdb_write(store->db, store->wal, batch, &message);
	rocksdb_writebatch_clear(batch);
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, what);
}

static rt_err sync_wal(struct ps_store *store, struct rt_errinfo *info)
{
	char *message = NULL;
	rocksdb_flush_wal(store->db, 1, &message);
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, "sync");
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

/* ---- rows into the batch ---- */

static struct ps_run *begin_run(struct ps_store *store, uint32_t shard)
{
	const struct ps_shard *at = &store->shards[shard];
	struct ps_run *run = &store->runs[store->run_count++];
	*run = (struct ps_run){.shard = shard,
		.first = load(&at->first),
		.last = load(&at->last),
		.watermark = load(&at->watermark)};
	run->low = run->last;
	return run;
}

static void add_record(struct ps_store *store, struct ps_run *run, const struct ps_log_row *row)
{
	RT_ASSERT(row->offset == run->last + 1);
	uint8_t key[PS_KEY_LOG];
	ps_key_log(key, row->shard, row->offset);
	rocksdb_writebatch_put_cf(store->batch, store->family[PS_LOG], (const char *)key,
		sizeof(key), (const char *)row->record.data, row->record.size);
	run->last = row->offset;
}

/* Row by row: this library keeps one set of insert hints for rows and range deletions of a memtable
 * and trips over it. An uncommitted tail is short. */
static rt_err add_cut(struct ps_store *store, struct ps_run *run, uint64_t from)
{
	if (from <= run->watermark || from < run->first) {
		return RT_E_INVAL;
	}
	for (; run->last >= from; run->last--) {
		uint8_t key[PS_KEY_LOG];
		ps_key_log(key, run->shard, run->last);
		rocksdb_writebatch_delete_cf(
			store->batch, store->family[PS_LOG], (const char *)key, sizeof(key));
		run->cut = true;
	}
	run->low = run->last < run->low ? run->last : run->low;
	return RT_OK;
}

static void add_wipe(struct ps_run *run, uint64_t first)
{
	/* Rows written earlier in this very batch go with the others, when it is finished. */
	run->erase = run->erase || run->last > 0;
	run->first = first;
	run->last = run->watermark = first - 1;
	run->wipes++;
}

/* Derived rows go in the batch itself: their families have no insert hints. The watermark's row is
 * among them. Rows of the log cannot, so a row says what is left to do. */
static void batch_wipe(struct ps_store *store, rocksdb_writebatch_t *batch, uint32_t shard,
	uint64_t first, uint64_t last)
{
	static const enum ps_family derived[] = {PS_INDEX, PS_DEDUPE, PS_TAGS, PS_SNAPSHOTS};
	batch_number(store, batch, PS_META_FLOOR, shard, first);
	batch_number(store, batch, PS_META_WIPE, shard, last);
	uint8_t low[2];
	uint8_t high[PS_KEY_NAMED + 1];
	ps_put_u16(low, shard);
	struct rt_bytes end = ps_key_shard_end(high, shard);
	for (size_t i = 0; i < sizeof(derived) / sizeof(derived[0]); i++) {
		rocksdb_writebatch_delete_range_cf(batch, store->family[derived[i]],
			(const char *)low, sizeof(low), (const char *)end.data, end.size);
	}
}

static rt_err add_rows(struct ps_store *store, const struct ps_log_row *rows, size_t row_count,
	struct rt_errinfo *info)
{
	struct ps_run *run = NULL;
	store->run_count = 0;
	for (size_t i = 0; i < row_count; i++) {
		const struct ps_log_row *row = &rows[i];
		RT_ASSERT(row->shard < store->log_count && row->offset > 0);
		if (run == NULL || run->shard != row->shard) {
			RT_ASSERT(run == NULL || run->shard < row->shard);
			run = begin_run(store, row->shard);
		}
		if (row->kind == PS_ROW_RECORD) {
			add_record(store, run, row);
		} else if (row->kind == PS_ROW_WIPE) {
			add_wipe(run, row->offset);
		} else if (add_cut(store, run, row->offset) != RT_OK) {
			rocksdb_writebatch_clear(store->batch);
			return rt_errinfo_set(info, RT_E_INVAL,
				"shard %u: offset %llu is committed and cannot be cut off",
				row->shard, (unsigned long long)row->offset);
		}
	}
	for (uint32_t i = 0; i < store->run_count; i++) {
		const struct ps_run *done = &store->runs[i];
		if (done->erase) {
			batch_wipe(store, store->batch, done->shard, done->first, done->last);
		} else if (done->wipes > 0) { /* there has never been a record */
			batch_number(store, store->batch, PS_META_FLOOR, done->shard, done->first);
		}
	}
	return RT_OK;
}

/* ---- the batch onto the disk ---- */

/* Marks go down durably before the rows can be gone. After a crash the log ends where it does now
 * or where the batch ends it, so a tail that is cut and written again needs nothing. */
static rt_err lower_marks(struct ps_store *store, struct rt_errinfo *info)
{
	bool lower = false;
	for (uint32_t i = 0; i < store->run_count; i++) {
		const struct ps_run *run = &store->runs[i];
		if (run->last < ps_highwater_get(store->highwater, run->shard)) {
			ps_highwater_set(store->highwater, run->shard, run->last);
			lower = true;
		}
	}
	if (!lower) {
		return RT_OK;
	}
	rt_err err = ps_highwater_write(store->highwater, info);
	if (err == RT_OK) {
		err = ps_highwater_sync(store->highwater, info);
	}
	return err == RT_OK ? RT_OK : fail(store, err, info);
}

static bool takes_away(const struct ps_run *run)
{
	return run->cut || run->wipes > 0;
}

/* Around a batch that takes rows away: odd in between. The first step is in order before the write,
 * so who misses a row sees it. */
static void step_cuts(struct ps_store *store)
{
	for (uint32_t i = 0; i < store->run_count; i++) {
		if (takes_away(&store->runs[i])) {
			atomic_fetch_add(&store->shards[store->runs[i].shard].cuts, 1);
		}
	}
}

/* Release throughout: what a position promises is readable for who sees it. */
static void publish(struct ps_store *store)
{
	for (uint32_t i = 0; i < store->run_count; i++) {
		const struct ps_run *run = &store->runs[i];
		struct ps_shard *at = &store->shards[run->shard];
		if (run->wipes > 0) {
			if (run->erase) {
				at->chunk_end = 0;
			}
			atomic_store_explicit(&at->watermark, run->watermark, memory_order_release);
			atomic_store_explicit(&at->first, run->first, memory_order_release);
			atomic_store_explicit(&at->durable, run->last, memory_order_release);
		} else if (run->cut && load(&at->durable) > run->low) {
			atomic_store_explicit(&at->durable, run->low, memory_order_release);
		}
		atomic_store_explicit(&at->last, run->last, memory_order_release);
		mark_dirty(store, run->shard);
	}
}

/* A range of the log's rows. Whole files go at once and first: a file that held only the range
 * deletion would go too, and rows of files that lie partly in the range would be back. The range
 * deletion comes in a table file of its own, since it must not meet the memtable's insert hints
 * (see add_cut). */
static rt_err drop_rows(struct ps_store *store, uint32_t shard, uint64_t from, uint64_t end,
	struct rt_errinfo *info)
{
	if (from >= end) {
		return RT_OK;
	}
	uint8_t low[PS_KEY_LOG];
	uint8_t last[PS_KEY_LOG];
	uint8_t high[PS_KEY_LOG];
	ps_key_log(low, shard, from);
	ps_key_log(last, shard, end - 1);
	ps_key_log(high, shard, end);
	char *message = NULL;
	/* The end belongs to the range here. */
	rocksdb_delete_file_in_range_cf(store->db, store->family[PS_LOG], (const char *)low,
		sizeof(low), (const char *)last, sizeof(last), &message);
	if (message != NULL) {
		return ps_db_fail(store, message, info, "drop files");
	}
	struct ps_table table;
	ps_table_init(&table, store, PS_LOG, 0);
	ps_table_delete_range(
		&table, rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)));
	return ps_table_ingest(&table, info);
}

/* No sync: whatever is appended later stands behind it in the write-ahead log. */
static rt_err end_wipe(struct ps_store *store, rocksdb_writebatch_t *batch, uint32_t shard,
	struct rt_errinfo *info)
{
	uint8_t key[PS_META_SHARD_SIZE];
	struct rt_bytes row = ps_meta_shard(key, PS_META_WIPE, shard);
	rocksdb_writebatch_delete_cf(
		batch, store->family[PS_META], (const char *)row.data, row.size);
	return write_batch(store, batch, info, "wipe");
}

rt_err ps_log_finish_wipe(struct ps_store *store, rocksdb_writebatch_t *batch, uint32_t shard,
	uint64_t first, uint64_t last, struct rt_errinfo *info)
{
	rt_err err = drop_rows(store, shard, 1, first, info);
	if (err == RT_OK) {
		err = drop_rows(store, shard, last + 1, UINT64_MAX, info);
	}
	if (err == RT_E_NOSPACE) {
		return fail(store, err, info); /* in the middle there is no going on */
	}
	if (err != RT_OK) {
		return err;
	}
	return end_wipe(store, batch, shard, info);
}

static void count_wipes(struct ps_store *store)
{
	for (uint32_t i = 0; i < store->run_count; i++) {
		const struct ps_run *run = &store->runs[i];
		if (run->wipes > 0) {
			atomic_fetch_add(&store->shards[run->shard].wipes, run->wipes);
		}
	}
}

/* The batch is whole and durable before the first row of the log is gone. Nothing is written of
 * what was staged before: the indexer waits outside, then finds another number. */
static rt_err write_wiping(struct ps_store *store, struct rt_errinfo *info)
{
	uv_mutex_lock(&store->indexing);
	rt_err err = write_batch(store, store->batch, info, "append");
	if (err == RT_OK) {
		err = sync_wal(store, info);
	}
	if (err == RT_OK) {
		count_wipes(store);
	}
	for (uint32_t i = 0; err == RT_OK && i < store->run_count; i++) {
		const struct ps_run *run = &store->runs[i];
		if (run->erase) {
			err = ps_log_finish_wipe(
				store, store->batch, run->shard, run->first, run->last, info);
		}
	}
	if (err == RT_OK) {
		publish(store);
	}
	uv_mutex_unlock(&store->indexing);
	return err;
}

static rt_err write_rows(struct ps_store *store, struct rt_errinfo *info)
{
	bool erases = false;
	for (uint32_t i = 0; i < store->run_count; i++) {
		erases = erases || store->runs[i].erase;
	}
	rt_err err = lower_marks(store, info);
	if (err != RT_OK) {
		rocksdb_writebatch_clear(store->batch);
		return err;
	}
	step_cuts(store);
	if (erases) {
		err = write_wiping(store, info);
	} else {
		/* A wipe of what never had a record only says where the next one stands. */
		err = write_batch(store, store->batch, info, "append");
		if (err == RT_OK) {
			count_wipes(store);
			publish(store);
		}
	}
	step_cuts(store);
	return err;
}

/* ---- logs that nobody writes ---- */

static void step_erased(struct ps_store *store, const struct ps_erase *erase)
{
	for (uint32_t i = 0; i < erase->count; i++) {
		if (erase->had[i]) {
			atomic_fetch_add(&store->shards[erase->shards[i]].cuts, 1);
		}
	}
}

static rt_err lower_erased(struct ps_store *store, struct ps_erase *erase)
{
	for (uint32_t i = 0; i < erase->count; i++) {
		if (erase->had[i]) {
			ps_highwater_set(store->highwater, erase->shards[i], 0);
		}
	}
	rt_err err = ps_highwater_write(store->highwater, &erase->info);
	if (err == RT_OK) {
		err = ps_highwater_sync(store->highwater, &erase->info);
	}
	return err == RT_OK ? RT_OK : fail(store, err, &erase->info);
}

static void publish_erased(struct ps_store *store, const struct ps_erase *erase)
{
	for (uint32_t i = 0; i < erase->count; i++) {
		struct ps_shard *at = &store->shards[erase->shards[i]];
		if (erase->had[i]) {
			at->chunk_end = 0;
			atomic_fetch_add(&at->wipes, 1);
			atomic_store_explicit(&at->watermark, 0, memory_order_release);
			atomic_store_explicit(&at->first, 1, memory_order_release);
			atomic_store_explicit(&at->durable, 0, memory_order_release);
			atomic_store_explicit(&at->last, 0, memory_order_release);
		}
	}
}

static bool few_rows(const struct ps_store *store, const struct ps_erase *erase, uint32_t i)
{
	return erase->last[i] < erase->first[i] + ROWS_FEW && !ps_store_space_low(store);
}

/* Row by row, and no file that RocksDB holds up all writers for. */
static rt_err delete_rows(struct ps_store *store, rocksdb_writebatch_t *batch, uint32_t shard,
	uint64_t first, uint64_t last, struct rt_errinfo *info)
{
	rt_err err = RT_OK;
	for (uint64_t offset = first; err == RT_OK && offset <= last; offset++) {
		uint8_t key[PS_KEY_LOG];
		ps_key_log(key, shard, offset);
		rocksdb_writebatch_delete_cf(
			batch, store->family[PS_LOG], (const char *)key, sizeof(key));
		if (offset == last || (offset - first + 1) % PS_ROWS_PER_BATCH == 0) {
			err = write_batch(store, batch, info, "erase");
		}
	}
	return err;
}

static rt_err erase_one(
	struct ps_store *store, rocksdb_writebatch_t *batch, struct ps_erase *erase, uint32_t i)
{
	uint32_t shard = erase->shards[i];
	if (!few_rows(store, erase, i)) {
		return ps_log_finish_wipe(store, batch, shard, 1, 0, &erase->info);
	}
	rt_err err =
		delete_rows(store, batch, shard, erase->first[i], erase->last[i], &erase->info);
	return err == RT_OK ? end_wipe(store, batch, shard, &erase->info) : err;
}

/* As write_wiping, but the writer goes on. */
static rt_err erase_all(struct ps_store *store, rocksdb_writebatch_t *batch, struct ps_erase *erase)
{
	for (uint32_t i = 0; i < erase->count; i++) {
		if (erase->had[i]) {
			batch_wipe(store, batch, erase->shards[i], 1, 0);
		}
	}
	uv_mutex_lock(&store->indexing);
	rt_err err = write_batch(store, batch, &erase->info, "erase");
	if (err == RT_OK) {
		err = sync_wal(store, &erase->info);
	}
	if (err == RT_OK) {
		publish_erased(store, erase);
	}
	uv_mutex_unlock(&store->indexing);
	for (uint32_t i = 0; err == RT_OK && i < erase->count; i++) {
		if (erase->had[i]) {
			err = erase_one(store, batch, erase, i);
		}
	}
	return err;
}

void ps_erase_run(struct ps_erase *erase, struct ps_store *store)
{
	bool any = false;
	RT_ASSERT(erase->count <= PS_ERASE_MAX);
	for (uint32_t i = 0; i < erase->count; i++) {
		const struct ps_shard *at = &store->shards[erase->shards[i]];
		RT_ASSERT(erase->shards[i] < store->log_count);
		erase->first[i] = load(&at->first);
		erase->last[i] = load(&at->last);
		erase->had[i] = erase->first[i] > 1 || erase->last[i] > 0;
		any = any || erase->had[i];
	}
	erase->err = ps_db_writable(store, &erase->info);
	if (erase->err != RT_OK || !any) {
		return;
	}
	erase->err = lower_erased(store, erase);
	if (erase->err != RT_OK) {
		return;
	}
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	step_erased(store, erase);
	erase->err = erase_all(store, batch, erase);
	step_erased(store, erase);
	rocksdb_writebatch_destroy(batch);
}

void ps_erase_done(const struct ps_erase *erase, struct ps_store *store)
{
	for (uint32_t i = 0; erase->err == RT_OK && i < erase->count; i++) {
		store->shards[erase->shards[i]].wipes_done += erase->had[i];
	}
}

/* ---- what the writer calls ---- */

rt_err ps_store_append(struct ps_store *store, const struct ps_log_row *rows, size_t row_count,
	const struct ps_meta_row *meta, size_t meta_count, struct rt_errinfo *info)
{
	rt_err err = ps_db_writable(store, info);
	if (err == RT_OK) {
		err = add_rows(store, rows, row_count, info);
	}
	if (err != RT_OK) {
		return err;
	}
	for (size_t i = 0; i < meta_count; i++) {
		batch_meta(store, store->batch, meta[i].key, meta[i].value);
	}
	err = write_rows(store, info);
	if (err != RT_OK) {
		return err;
	}
	uint64_t bytes = 0;
	uint64_t records = 0;
	for (size_t i = 0; i < row_count; i++) {
		bytes += PS_KEY_LOG + rows[i].record.size;
		records += rows[i].kind == PS_ROW_RECORD;
	}
	atomic_fetch_add_explicit(&store->appended_records, records, memory_order_relaxed);
	atomic_fetch_add_explicit(&store->appended_bytes, bytes, memory_order_relaxed);
	return RT_OK;
}

rt_err ps_store_sync(struct ps_store *store, struct rt_errinfo *info)
{
	rt_err err = ps_db_writable(store, info);
	if (err == RT_OK) {
		err = sync_wal(store, info);
	}
	if (err != RT_OK) {
		return err;
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
	struct ps_log_row row = {.shard = shard, .kind = PS_ROW_CUT, .offset = from};
	return ps_store_append(store, &row, 1, NULL, 0, info);
}

rt_err ps_store_truncate_front(
	struct ps_store *store, uint32_t shard, uint64_t before, struct rt_errinfo *info)
{
	RT_ASSERT(shard < store->log_count);
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
	batch_number(store, store->batch, PS_META_FLOOR, shard, before);
	err = write_batch(store, store->batch, info, "truncate front");
	if (err == RT_OK) {
		/* Files are dropped below without a way back: the floor is durable first. */
		err = ps_store_sync(store, info);
	}
	if (err != RT_OK) {
		return err;
	}
	atomic_store_explicit(&at->first, before, memory_order_release);
	return drop_rows(store, shard, 0, before, info);
}
