#include <stdio.h>
#include <stdlib.h>

#include "persistence/chunk.h"
#include "persistence/db.h"
#include "persistence/files.h"
#include "persistence/indexer.h"
#include "persistence/torn.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"

#define FORMAT_VERSION  1u
#define STORE_ROW_BYTES 40u /* version u32, shard count u32, id */
#define CACHE_BYTES     (64u * 1024u * 1024u)
#define FREE_LOW_BYTES  (256u * 1024u * 1024u)
#define DIR_MAX         400u /* bytes of its path */
#define SHARDS_MAX      65535u
#define SHARDS_DEFAULT  64u
/* Twice what the indexer puts into a chunk: a chunk that a crash left half written lies within the
 * first one made again here, so its rows come out with the same keys. */
#define REINDEX_CHUNK   (2u * PS_CHUNK_RECORDS)

static void put_u32(uint8_t *at, uint32_t value)
{
	ps_put_u16(at, value >> 16);
	ps_put_u16(at + 2, value & 0xffff);
}

static uint32_t get_u32(const uint8_t *at)
{
	return ps_get_u16(at) << 16 | ps_get_u16(at + 2);
}

static struct ps_store *store_new(const struct ps_store_options *options)
{
	struct ps_store *store = calloc(1, sizeof(*store));
	if (store == NULL) {
		return NULL;
	}
	if (uv_mutex_init(&store->lock) != 0) {
		free(store);
		return NULL;
	}
	if (uv_mutex_init(&store->indexing) != 0) {
		uv_mutex_destroy(&store->lock);
		free(store);
		return NULL;
	}
	if (uv_cond_init(&store->room) != 0) {
		uv_mutex_destroy(&store->indexing);
		uv_mutex_destroy(&store->lock);
		free(store);
		return NULL;
	}
	store->free_low =
		options->free_space_low_bytes == 0 ? FREE_LOW_BYTES : options->free_space_low_bytes;
	store->dir = strdup(options->dir);
	store->db_dir = ps_path(options->dir, "db");
	store->tmp_dir = ps_path(options->dir, "tmp");
	store->batch = rocksdb_writebatch_create();
	return store;
}

static void store_free(struct ps_store *store)
{
	ps_db_close(store);
	ps_highwater_close(store->highwater);
	rocksdb_writebatch_destroy(store->batch);
	uv_cond_destroy(&store->room);
	uv_mutex_destroy(&store->indexing);
	uv_mutex_destroy(&store->lock);
	free(store->shards);
	free(store->dirty);
	free(store->runs);
	free(store->dir);
	free(store->db_dir);
	free(store->tmp_dir);
	free(store);
}

/* ---- a new store: made beside its place and moved there whole ---- */

static rt_err write_identity(struct ps_store *store, uint32_t shard_count, struct rt_errinfo *info)
{
	uint8_t random[16];
	int code = uv_random(NULL, NULL, random, sizeof(random), 0, NULL);
	if (code != 0) {
		return rt_errinfo_set(info, RT_E_IO, "no random bytes for the store's id");
	}
	for (size_t i = 0; i < sizeof(random); i++) {
		snprintf(&store->id[2 * i], 3, "%02x", random[i]);
	}
	uint8_t row[STORE_ROW_BYTES];
	put_u32(row, FORMAT_VERSION);
	put_u32(row + 4, shard_count);
	memcpy(row + 8, store->id, 32);
	char *message = NULL;
	rocksdb_put_cf(store->db, store->wal, store->family[PS_META], PS_META_STORE,
		sizeof(PS_META_STORE) - 1, (const char *)row, sizeof(row), &message);
	if (message != NULL) {
		return ps_db_error(message, info, "write format row");
	}
	return ps_db_flush(store, PS_META, info);
}

static rt_err fill_new(
	struct ps_store *store, const char *dir, uint32_t shard_count, struct rt_errinfo *info)
{
	rt_err err = ps_db_open(store, dir, true, CACHE_BYTES, info);
	if (err != RT_OK) {
		return err;
	}
	err = write_identity(store, shard_count, info);
	if (err != RT_OK) {
		return err;
	}
	char *path = ps_path(dir, PS_HIGHWATER_NAME);
	err = ps_highwater_create(path, store->id, shard_count + 1, info);
	free(path);
	return err;
}

static rt_err create(const struct ps_store_options *options, struct rt_errinfo *info)
{
	uint32_t shard_count = options->shard_count == 0 ? SHARDS_DEFAULT : options->shard_count;
	if (shard_count > SHARDS_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "a new store needs 1 to %u shards, not %u",
			SHARDS_MAX, shard_count);
	}
	struct ps_store *store = store_new(options);
	if (store == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	char *fresh = ps_path(options->dir, "db.new");
	rt_err err = ps_dir_remove(fresh, info);
	if (err == RT_OK) {
		err = fill_new(store, fresh, shard_count, info);
	}
	ps_db_close(store);
	if (err == RT_OK) {
		err = ps_dir_sync(fresh, info);
	}
	if (err == RT_OK) {
		err = ps_dir_rename(fresh, store->db_dir, info);
	}
	if (err == RT_OK) {
		err = ps_dir_sync(options->dir, info);
	}
	free(fresh);
	store_free(store);
	return err;
}

/* ---- an existing one ---- */

static rt_err read_identity(
	struct ps_store *store, const struct ps_store_options *options, struct rt_errinfo *info)
{
	struct rt_bytes row;
	rt_err err = ps_store_meta_get(
		store, rt_bytes_of(PS_META_STORE, sizeof(PS_META_STORE) - 1), &row, info);
	if (err == RT_E_NOTFOUND) {
		return rt_errinfo_set(
			info, RT_E_CORRUPT, "%s: the format row is missing", store->db_dir);
	}
	if (err != RT_OK) {
		return err;
	}
	uint32_t version = row.size >= 4 ? get_u32(row.data) : 0;
	if (version == FORMAT_VERSION && row.size == STORE_ROW_BYTES) {
		store->shard_count = get_u32(row.data + 4);
		memcpy(store->id, row.data + 8, 32);
	}
	size_t size = row.size;
	free((void *)(uintptr_t)row.data);
	if (version > FORMAT_VERSION) {
		return rt_errinfo_set(info, RT_E_VERSION,
			"%s has format %u, this build knows up to %u: use a newer build",
			store->db_dir, version, FORMAT_VERSION);
	}
	if (version == 0 || size != STORE_ROW_BYTES || store->shard_count == 0 ||
		store->shard_count > SHARDS_MAX) {
		return rt_errinfo_set(
			info, RT_E_CORRUPT, "%s: the format row is damaged", store->db_dir);
	}
	store->log_count = store->shard_count + 1; /* one more, of the cluster itself */
	if (options->shard_count != 0 && options->shard_count != store->shard_count) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"%s was made with %u shards and cannot be opened with %u", store->dir,
			store->shard_count, options->shard_count);
	}
	return RT_OK;
}

static rt_err read_number(struct ps_store *store, enum ps_family family, struct rt_bytes key,
	uint64_t *out, struct rt_errinfo *info)
{
	char *message = NULL;
	size_t size = 0;
	char *value = rocksdb_get_cf(store->db, store->point, store->family[family],
		(const char *)key.data, key.size, &size, &message);
	if (message != NULL) {
		return ps_db_error(message, info, "read position");
	}
	bool good = value == NULL || size == 8;
	if (value != NULL && good) {
		*out = ps_get_u64((const uint8_t *)value);
	}
	rocksdb_free(value);
	return good ? RT_OK
		    : rt_errinfo_set(
			      info, RT_E_CORRUPT, "%s: a position row is damaged", store->db_dir);
}

static rt_err read_last(
	struct ps_store *store, uint32_t shard, uint64_t *out, struct rt_errinfo *info)
{
	uint8_t low[PS_KEY_LOG];
	uint8_t high[PS_KEY_LOG];
	ps_key_log(low, shard, 0);
	ps_key_log(high, shard, UINT64_MAX);
	struct ps_range range = {
		rt_bytes_of(low, sizeof(low)), rt_bytes_of(high, sizeof(high)), true, 0};
	struct ps_iter iter;
	ps_iter_init(&iter, store, PS_LOG, &range);
	rocksdb_iter_seek_to_last(iter.it);
	if (ps_iter_valid(&iter) && ps_iter_key(&iter).size == PS_KEY_LOG) {
		*out = ps_get_u64(ps_iter_key(&iter).data + 2);
	}
	return ps_iter_done(&iter, info, "find the end of the log");
}

static rt_err check_end(
	struct ps_store *store, uint32_t shard, uint64_t last, struct rt_errinfo *info)
{
	uint64_t durable = ps_highwater_get(store->highwater, shard);
	uint64_t watermark = store->shards[shard].watermark;
	uint64_t expected = durable > watermark ? durable : watermark;
	if (last >= expected) {
		return RT_OK;
	}
	return rt_errinfo_set(info, RT_E_CORRUPT,
		"%s: shard %u ends at offset %llu but %llu was durable: the end of the log is "
		"lost (write-ahead log: %s)",
		store->db_dir, shard, (unsigned long long)last, (unsigned long long)expected,
		store->wal_names);
}

static rt_err load_shard(struct ps_store *store, uint32_t shard, struct rt_errinfo *info)
{
	uint8_t key[PS_META_SHARD_SIZE];
	uint8_t mark_key[PS_KEY_MARK + 1];
	uint64_t first = 1;
	uint64_t watermark = 0;
	uint64_t wiped = UINT64_MAX;
	rt_err err =
		read_number(store, PS_META, ps_meta_shard(key, PS_META_FLOOR, shard), &first, info);
	if (err == RT_OK) {
		err = read_number(
			store, PS_META, ps_meta_shard(key, PS_META_WIPE, shard), &wiped, info);
	}
	if (err == RT_OK && wiped != UINT64_MAX) {
		err = ps_log_finish_wipe(store, store->batch, shard, first, wiped, info);
	}
	if (err == RT_OK) {
		err = read_number(
			store, PS_INDEX, ps_key_mark(mark_key, shard, false), &watermark, info);
	}
	if (err == RT_OK) {
		err = read_number(store, PS_INDEX, ps_key_mark(mark_key, shard, true),
			&store->shards[shard].chunk_end, info);
	}
	uint64_t last = first - 1;
	if (err == RT_OK) {
		err = read_last(store, shard, &last, info);
	}
	if (err != RT_OK) {
		return err;
	}
	struct ps_shard *at = &store->shards[shard];
	at->first = first;
	at->watermark = watermark > first - 1 ? watermark : first - 1;
	at->last = last;
	at->durable = last; /* recovery put what it found into table files */
	err = check_end(store, shard, last, info);
	if (err == RT_OK && last != ps_highwater_get(store->highwater, shard)) {
		ps_highwater_set(store->highwater, shard, last);
	}
	return err;
}

static rt_err load_shards(struct ps_store *store, struct rt_errinfo *info)
{
	store->shards = calloc(store->log_count, sizeof(*store->shards));
	store->dirty = calloc(store->log_count, sizeof(*store->dirty));
	store->runs = calloc(store->log_count, sizeof(*store->runs));
	if (store->shards == NULL || store->dirty == NULL || store->runs == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	char *path = ps_path(store->db_dir, PS_HIGHWATER_NAME);
	rt_err err = ps_highwater_open(path, store->id, store->log_count, &store->highwater, info);
	free(path);
	if (err == RT_E_NOTFOUND) {
		err = RT_E_CORRUPT;
	}
	for (uint32_t shard = 0; err == RT_OK && shard < store->log_count; shard++) {
		err = load_shard(store, shard, info);
	}
	/* Release: pairs with the compaction filter of dedupe. */
	atomic_store_explicit(&store->loaded, err == RT_OK, memory_order_release);
	return err == RT_OK ? ps_highwater_write(store->highwater, info) : err;
}

/* ---- rows that a crash took from the index are made again from the log ---- */

struct reindex {
	struct ps_store *store;
	struct ps_chunk *chunk;
	uint32_t shard;
	void **memory; /* staged records of the chunk */
	size_t count, cap;
	rt_err err;
	struct rt_errinfo *info;
};

static void reindex_drop(struct reindex *job)
{
	for (size_t i = 0; i < job->count; i++) {
		free(job->memory[i]);
	}
	job->count = 0;
}

static rt_err reindex_write(struct reindex *job)
{
	rt_err err = ps_chunk_write(job->chunk, job->info);
	reindex_drop(job);
	return err;
}

static bool reindex_record(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct reindex *job = arg;
	struct ps_record record;
	if (ps_record_decode(bytes, &record) != RT_OK) {
		job->err = rt_errinfo_set(job->info, RT_E_CORRUPT,
			"%s: shard %u offset %llu: not a record", job->store->db_dir, job->shard,
			(unsigned long long)offset);
		return false;
	}
	struct ps_staged *staged = malloc(ps_staged_size(&record));
	if (staged == NULL) {
		job->err = rt_errinfo_set(job->info, RT_E_NOMEM, "out of memory");
		return false;
	}
	job->memory[job->count++] = staged;
	ps_staged_put(staged, job->shard, offset, &record);
	job->err = ps_chunk_add(job->chunk, staged);
	if (job->err == RT_OK && job->count == job->cap) {
		job->err = reindex_write(job);
	}
	return job->err == RT_OK;
}

static rt_err reindex(struct ps_store *store, struct rt_errinfo *info)
{
	struct reindex job = {.store = store, .cap = REINDEX_CHUNK, .info = info};
	uint64_t behind = 0;
	for (uint32_t i = 0; i < store->log_count; i++) {
		const struct ps_shard *shard = &store->shards[i];
		behind += shard->last > shard->watermark ? shard->last - shard->watermark : 0;
	}
	if (behind > 0) {
		rt_log(RT_LOG_INFO, "store", "%s was not closed: indexing %llu records again",
			store->dir, (unsigned long long)behind);
	}
	for (uint32_t i = 0; i < store->log_count && job.err == RT_OK; i++) {
		struct ps_shard *shard = &store->shards[i];
		if (shard->watermark >= shard->last) {
			continue;
		}
		if (job.chunk == NULL) {
			job.chunk = ps_chunk_new(store);
			job.memory = calloc(job.cap, sizeof(*job.memory));
		}
		if (job.chunk == NULL || job.memory == NULL) {
			job.err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
			break;
		}
		job.shard = i;
		if (job.count + (shard->last - shard->watermark) > job.cap) {
			job.err = reindex_write(&job);
			if (job.err != RT_OK) {
				break;
			}
		}
		rt_err err = ps_store_read(
			store, i, shard->watermark + 1, shard->last, reindex_record, &job, info);
		job.err = job.err != RT_OK ? job.err : err;
	}
	if (job.err == RT_OK && job.chunk != NULL) {
		job.err = reindex_write(&job);
	}
	reindex_drop(&job);
	free(job.memory);
	ps_chunk_free(job.chunk);
	if (job.err == RT_OK && behind >= REINDEX_CHUNK) {
		job.err = ps_db_flush(store, PS_INDEX, info); /* not again after the next crash */
	}
	return job.err;
}

/* RocksDB says "missing" of a file in several ways; in an existing store all are damage. */
static rt_err missing_is_corrupt(rt_err err, struct rt_errinfo *info)
{
	if (err == RT_E_IO && (strstr(info->text, "No such file") != NULL ||
				      strstr(info->text, "does not exist") != NULL ||
				      strstr(info->text, "Column family not found") != NULL)) {
		/* Which of the two is damaged cannot be told, so both are named. */
		return strstr(info->text, "MANIFEST") == NULL
			       ? rt_errinfo_wrap(info, RT_E_CORRUPT, "a file is missing")
			       : rt_errinfo_wrap(info, RT_E_CORRUPT,
					 "CURRENT names a manifest that is missing");
	}
	return err;
}

static bool names_a_file(const char *text)
{
	return strstr(text, ".sst") != NULL || strstr(text, ".log") != NULL ||
	       strstr(text, ".blob") != NULL || strstr(text, "MANIFEST") != NULL ||
	       strstr(text, "CURRENT") != NULL;
}

static rt_err open_database(
	struct ps_store *store, const struct ps_store_options *options, struct rt_errinfo *info)
{
	uint64_t cache = options->block_cache_bytes == 0 ? CACHE_BYTES : options->block_cache_bytes;
	ps_wal_names(store->db_dir, store->wal_names, sizeof(store->wal_names));
	rt_err err = ps_db_open(store, store->db_dir, false, cache, info);
	err = missing_is_corrupt(err, info);
	bool mended = false;
	if (err == RT_E_CORRUPT && ps_torn_mend(store->db_dir, &mended, NULL) == RT_OK && mended) {
		ps_db_close(store);
		*info = (struct rt_errinfo){0};
		err = missing_is_corrupt(
			ps_db_open(store, store->db_dir, false, cache, info), info);
	}
	if (err == RT_E_CORRUPT && !names_a_file(info->text)) {
		return rt_errinfo_wrap(info, err, "write-ahead log %s", store->wal_names);
	}
	return err;
}

static rt_err open_existing(
	const struct ps_store_options *options, struct ps_store **out, struct rt_errinfo *info)
{
	struct ps_store *store = store_new(options);
	if (store == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	rt_err err = open_database(store, options, info);
	if (err == RT_OK) {
		err = ps_dir_remove(store->tmp_dir, info); /* left by a crash; ours now */
	}
	if (err == RT_OK) {
		err = ps_dir_make(store->tmp_dir, info);
	}
	if (err == RT_OK) {
		err = read_identity(store, options, info);
	}
	if (err == RT_OK) {
		err = load_shards(store, info);
	}
	if (err == RT_OK && !options->leave_tail) {
		err = reindex(store, info);
	}
	if (err != RT_OK) {
		store_free(store);
		return err;
	}
	ps_store_update_space(store);
	*out = store;
	return RT_OK;
}

rt_err ps_store_open(
	const struct ps_store_options *options, struct ps_store **out, struct rt_errinfo *info)
{
	struct rt_errinfo local = {0};
	info = info == NULL ? &local : info;
	if (strlen(options->dir) > DIR_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "the directory's name is too long");
	}
	char *db_dir = ps_path(options->dir, "db");
	bool exists = ps_exists(db_dir);
	free(db_dir);
	rt_err err = RT_OK;
	if (!exists && !options->create) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "no store in %s", options->dir);
	}
	if (!exists) {
		err = ps_dir_make(options->dir, info);
		if (err == RT_OK) {
			err = create(options, info);
		}
	}
	if (err == RT_OK) {
		err = open_existing(options, out, info);
	}
	return err == RT_OK ? RT_OK : rt_errinfo_wrap(info, err, "open store");
}

void ps_store_close(struct ps_store *store)
{
	if (store == NULL) {
		return;
	}
	bool good = !atomic_load_explicit(&store->failed, memory_order_acquire);
	/* The index last: a manifest that lost its newest edit then only means indexing again. */
	static const enum ps_family order[] = {PS_LOG, PS_META, PS_SNAPSHOTS, PS_TAGS, PS_INDEX};
	for (size_t i = 0; good && i < sizeof(order) / sizeof(order[0]); i++) {
		good = ps_db_flush(store, order[i], NULL) == RT_OK;
	}
	if (good) {
		for (uint32_t i = 0; i < store->log_count; i++) {
			ps_highwater_set(store->highwater, i, store->shards[i].last);
		}
		good = ps_highwater_write(store->highwater, NULL) == RT_OK &&
		       ps_highwater_sync(store->highwater, NULL) == RT_OK;
	}
	(void)good; /* a store that cannot be flushed replays on the next open */
	store_free(store);
}
