#include "persistence/db.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/assert.h"

#define LOCK_TRIES   60
#define LOCK_WAIT_MS 50u

static const char *const family_names[PS_FAMILIES] = {
	"default", "log", "index", "dedupe", "tags", "snapshots", "meta"};

/* What holds for the database and is repeated for each family. The info log only speaks when it is
 * fatal: this library is built with assertions and one of them is a full disk under its log. */
#define COMMON                                                                         \
	"wal_recovery_mode=kTolerateCorruptedTailRecords;manual_wal_flush=true;"       \
	"max_total_wal_size=268435456;bytes_per_sync=1048576;max_background_jobs=2;"   \
	"info_log_level=FATAL_LEVEL;keep_log_file_num=2;max_open_files=-1;"            \
	"allow_concurrent_memtable_write=false;avoid_flush_during_shutdown=true;"      \
	"max_write_buffer_number=4;target_file_size_base=67108864;"                    \
	"level_compaction_dynamic_level_bytes=true;skip_stats_update_on_db_open=true;" \
	"compression=kLZ4Compression;bottommost_compression=kZSTD;"
/* Whole shards lie in files of their own, so that a shard can be dropped by the file. LZ4 above and
 * ZSTD at the bottom: with ZSTD everywhere files could move down as they are, but each flush cost
 * three times the CPU, which commands then waited for. */
#define BY_SHARD "sst_partitioner_factory={id=SstPartitionerFixedPrefixFactory;length=2;};"

#define BY_AGE                                                                          \
	"compaction_style=kCompactionStyleUniversal;level0_slowdown_writes_trigger=64;" \
	"level0_stop_writes_trigger=96;"

static const char *const family_options[PS_FAMILIES] = {
	[PS_DEFAULT] = COMMON "write_buffer_size=1048576",
	[PS_LOG] = COMMON BY_SHARD
	"write_buffer_size=134217728;memtable_insert_with_hint_prefix_extractor=fixed:2;"
	"level0_file_num_compaction_trigger=8;level0_slowdown_writes_trigger=24;"
	"level0_stop_writes_trigger=40;max_bytes_for_level_base=67108864;"
	"optimize_filters_for_hits=true",
	/* Many small additions, merged by age: levels would rewrite everything for each few. */
	[PS_INDEX] =
		COMMON BY_AGE "write_buffer_size=67108864;level0_file_num_compaction_trigger=8",
	[PS_DEDUPE] =
		COMMON BY_AGE "write_buffer_size=4194304;level0_file_num_compaction_trigger=32",
	[PS_TAGS] = COMMON BY_AGE "write_buffer_size=4194304;level0_file_num_compaction_trigger=16",
	[PS_SNAPSHOTS] = COMMON BY_SHARD
	"write_buffer_size=33554432;enable_blob_files=true;min_blob_size=4096;"
	"blob_compression_type=kLZ4Compression;enable_blob_garbage_collection=true",
	[PS_META] = COMMON "write_buffer_size=4194304",
};

static const size_t block_bytes[PS_FAMILIES] = {
	[PS_DEFAULT] = 4096,
	[PS_LOG] = 8192,
	[PS_INDEX] = 8192,
	[PS_DEDUPE] = 8192,
	[PS_TAGS] = 8192,
	[PS_SNAPSHOTS] = 8192,
	[PS_META] = 4096,
};

/* The prefix of a key with a name inside is all but its number. */
static char *named_prefix(void *state, const char *key, size_t size, size_t *out_size)
{
	(void)state;
	*out_size = size - 8;
	return (char *)(uintptr_t)key; /* RocksDB only reads it */
}

static unsigned char named_in_domain(void *state, const char *key, size_t size)
{
	(void)state;
	return size > 11 && key[size - 9] == 0;
}

static unsigned char named_in_range(void *state, const char *key, size_t size)
{
	(void)state;
	(void)key;
	(void)size;
	return 0;
}

static const char *named_name(void *state)
{
	(void)state;
	return "troupe.named";
}

static void no_destructor(void *state)
{
	(void)state;
}

/* Dedupe rows older than the window go when a compaction meets them. */
/* NOLINTBEGIN(readability-function-size,readability-non-const-parameter): RocksDB's type */
static unsigned char dedupe_filter(void *state, int level, const char *key, size_t key_size,
	const char *value, size_t value_size, char **new_value, size_t *new_size,
	unsigned char *changed)
/* NOLINTEND(readability-function-size,readability-non-const-parameter) */
{
	(void)level, (void)value, (void)value_size, (void)new_value, (void)new_size, (void)changed;
	const struct ps_store *store = state;
	if (key_size != PS_KEY_DEDUPE) {
		return 0;
	}
	uint32_t shard = ps_get_u16((const uint8_t *)key);
	uint64_t offset = ps_get_u64((const uint8_t *)key + 8);
	/* Compactions begin inside the open. Acquire: pairs with the release at its end. */
	if (!atomic_load_explicit(&store->loaded, memory_order_acquire) ||
		shard >= store->log_count) {
		return 0;
	}
	return offset + PS_DEDUPE_WINDOW <=
	       atomic_load_explicit(&store->shards[shard].watermark, memory_order_relaxed);
}

static const char *dedupe_filter_name(void *state)
{
	(void)state;
	return "troupe.dedupe-window";
}

rt_err ps_db_error(char *message, struct rt_errinfo *info, const char *what)
{
	RT_ASSERT(message != NULL);
	rt_err code = RT_E_IO;
	if (strstr(message, "No space left") != NULL) {
		code = RT_E_NOSPACE;
	} else if (strncmp(message, "Corruption", 10) == 0) {
		code = RT_E_CORRUPT;
	} else if (strncmp(message, "Shutdown in progress", 20) == 0) {
		code = RT_E_CLOSED;
	}
	rt_errinfo_set(info, code, "%s: %s", what, message);
	rocksdb_free(message);
	return code;
}

rt_err ps_db_fail(struct ps_store *store, char *message, struct rt_errinfo *info, const char *what)
{
	struct rt_errinfo own = {0};
	rt_err code = ps_db_error(message, &own, what);
	if (info != NULL) {
		*info = own;
	}
	uv_mutex_lock(&store->lock);
	if (!atomic_load_explicit(&store->failed, memory_order_relaxed)) {
		store->failure_code = code;
		snprintf(store->failure, sizeof(store->failure), "%.255s", own.text);
		/* Release: who sees failed may read the text under the lock. */
		atomic_store_explicit(&store->failed, true, memory_order_release);
	}
	uv_cond_broadcast(&store->room);
	uv_mutex_unlock(&store->lock);
	return code;
}

rt_err ps_db_writable(struct ps_store *store, struct rt_errinfo *info)
{
	if (!atomic_load_explicit(&store->failed, memory_order_acquire)) {
		return RT_OK;
	}
	uv_mutex_lock(&store->lock);
	rt_errinfo_set(info, RT_E_CLOSED, "the store failed before: %s", store->failure);
	uv_mutex_unlock(&store->lock);
	return RT_E_CLOSED;
}

static void set_filter(rocksdb_block_based_table_options_t *table, bool whole_key)
{
	rocksdb_block_based_options_set_filter_policy(
		table, rocksdb_filterpolicy_create_ribbon_hybrid(10, 1));
	rocksdb_block_based_options_set_whole_key_filtering(table, whole_key);
}

static rocksdb_block_based_table_options_t *table_options(
	struct ps_store *store, enum ps_family family)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
	rocksdb_block_based_options_set_block_cache(table, store->cache);
	rocksdb_block_based_options_set_block_size(table, block_bytes[family]);
	rocksdb_block_based_options_set_format_version(table, 5);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
	if (family == PS_INDEX || family == PS_SNAPSHOTS || family == PS_DEDUPE) {
		set_filter(table, false);
	} else if (family == PS_LOG) {
		set_filter(table, true); /* not on the last level: there most keys are */
	}
	return table;
}

static rocksdb_options_t *family_option(
	struct ps_store *store, enum ps_family family, struct rt_errinfo *info)
{
	rocksdb_options_t *base = rocksdb_options_create();
	rocksdb_options_t *options = rocksdb_options_create();
	char *message = NULL;
	rocksdb_get_options_from_string(base, family_options[family], options, &message);
	rocksdb_options_destroy(base);
	if (message != NULL) {
		(void)ps_db_error(message, info, "options");
		rocksdb_options_destroy(options);
		return NULL;
	}
	rocksdb_block_based_table_options_t *table = table_options(store, family);
	rocksdb_options_set_block_based_table_factory(options, table);
	rocksdb_block_based_options_destroy(table);
	if (family == PS_INDEX || family == PS_SNAPSHOTS) {
		rocksdb_options_set_prefix_extractor(
			options, rocksdb_slicetransform_create(NULL, no_destructor, named_prefix,
					 named_in_domain, named_in_range, named_name));
	} else if (family == PS_DEDUPE) {
		rocksdb_options_set_prefix_extractor(
			options, rocksdb_slicetransform_create_fixed_prefix(8));
		store->filter = rocksdb_compactionfilter_create(
			store, no_destructor, dedupe_filter, dedupe_filter_name);
		rocksdb_options_set_compaction_filter(options, store->filter);
	}
	return options;
}

/* Flushes and compactions take what commands leave of the CPU: at the same priority they halve the
 * rate of commands for as long as they run. When they fall behind, RocksDB holds up the writer. */
static void lower_background_priority(rocksdb_options_t *options)
{
	rocksdb_env_t *env = rocksdb_create_default_env();
	rocksdb_env_lower_thread_pool_cpu_priority(env);
	rocksdb_env_lower_high_priority_thread_pool_cpu_priority(env);
	rocksdb_options_set_env(options, env);
	rocksdb_env_destroy(env); /* only the handle: the default environment stays */
}

static rt_err make_options(struct ps_store *store, bool create, struct rt_errinfo *info)
{
	for (int i = 0; i < PS_FAMILIES; i++) {
		store->options[i] = family_option(store, (enum ps_family)i, info);
		if (store->options[i] == NULL) {
			return RT_E_INVAL;
		}
	}
	lower_background_priority(store->options[PS_DEFAULT]);
	rocksdb_options_set_create_if_missing(store->options[PS_DEFAULT], create);
	rocksdb_options_set_create_missing_column_families(store->options[PS_DEFAULT], create);
	return RT_OK;
}

rt_err ps_db_open(struct ps_store *store, const char *dir, bool create, uint64_t cache_bytes,
	struct rt_errinfo *info)
{
	store->cache = rocksdb_cache_create_lru(cache_bytes);
	rt_err err = make_options(store, create, info);
	if (err != RT_OK) {
		return err;
	}
	store->wal = rocksdb_writeoptions_create();
	store->no_wal = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(store->no_wal, 1);
	store->point = rocksdb_readoptions_create(); /* verify_checksums is the default */
	char *message = NULL;
	for (int tries = 0; tries < LOCK_TRIES; tries++) {
		rocksdb_free(message);
		message = NULL;
		store->db = rocksdb_open_column_families(store->options[PS_DEFAULT], dir,
			PS_FAMILIES, family_names, (const rocksdb_options_t *const *)store->options,
			store->family, &message);
		if (message == NULL || strstr(message, "LOCK: Resource temporarily") == NULL) {
			break;
		}
		/* A process that was killed holds its lock until its memory is given back. */
		uv_sleep(LOCK_WAIT_MS);
	}
	if (message == NULL) {
		return RT_OK;
	}
	store->db = NULL;
	if (strstr(message, "lock") != NULL && strstr(message, "LOCK") != NULL) {
		rocksdb_free(message);
		return rt_errinfo_set(info, RT_E_FENCED, "%s is open in another process", dir);
	}
	return ps_db_error(message, info, dir);
}

void ps_db_close(struct ps_store *store)
{
	if (store->db != NULL) {
		rocksdb_cancel_all_background_work(store->db, 1);
		/* The library asserts that no handle is left when it closes. */
		for (int i = 0; i < PS_FAMILIES; i++) {
			rocksdb_column_family_handle_destroy(store->family[i]);
		}
		rocksdb_close(store->db);
		store->db = NULL;
	}
	for (int i = 0; i < PS_FAMILIES; i++) {
		if (store->options[i] != NULL) {
			rocksdb_options_destroy(store->options[i]);
			store->options[i] = NULL;
		}
	}
	if (store->filter != NULL) {
		rocksdb_compactionfilter_destroy(store->filter);
		store->filter = NULL;
	}
	if (store->wal != NULL) {
		rocksdb_writeoptions_destroy(store->wal);
		rocksdb_writeoptions_destroy(store->no_wal);
		rocksdb_readoptions_destroy(store->point);
		store->wal = NULL;
	}
	if (store->cache != NULL) {
		rocksdb_cache_destroy(store->cache);
		store->cache = NULL;
	}
}

rt_err ps_db_flush(struct ps_store *store, enum ps_family family, struct rt_errinfo *info)
{
	rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
	rocksdb_flushoptions_set_wait(options, 1);
	char *message = NULL;
	rocksdb_flush_cf(store->db, options, store->family[family], &message);
	rocksdb_flushoptions_destroy(options);
	return message == NULL ? RT_OK : ps_db_fail(store, message, info, "flush");
}

void ps_iter_init(struct ps_iter *iter, struct ps_store *store, enum ps_family family,
	const struct ps_range *range)
{
	RT_ASSERT(range->lower.size <= sizeof(iter->lower));
	RT_ASSERT(range->upper.size <= sizeof(iter->upper));
	memcpy(iter->lower, range->lower.data, range->lower.size);
	memcpy(iter->upper, range->upper.data, range->upper.size);
	iter->options = rocksdb_readoptions_create();
	rocksdb_readoptions_set_iterate_lower_bound(
		iter->options, (const char *)iter->lower, range->lower.size);
	rocksdb_readoptions_set_iterate_upper_bound(
		iter->options, (const char *)iter->upper, range->upper.size);
	rocksdb_readoptions_set_total_order_seek(iter->options, range->total);
	if (range->readahead > 0) {
		rocksdb_readoptions_set_readahead_size(iter->options, range->readahead);
		rocksdb_readoptions_set_fill_cache(iter->options, 0);
	}
	iter->it = rocksdb_create_iterator_cf(store->db, iter->options, store->family[family]);
}

bool ps_iter_valid(const struct ps_iter *iter)
{
	return rocksdb_iter_valid(iter->it);
}

struct rt_bytes ps_iter_key(const struct ps_iter *iter)
{
	size_t size;
	const char *key = rocksdb_iter_key(iter->it, &size);
	return rt_bytes_of(key, size);
}

struct rt_bytes ps_iter_value(const struct ps_iter *iter)
{
	size_t size;
	const char *value = rocksdb_iter_value(iter->it, &size);
	return rt_bytes_of(value, size);
}

rt_err ps_iter_done(struct ps_iter *iter, struct rt_errinfo *info, const char *what)
{
	char *message = NULL;
	rocksdb_iter_get_error(iter->it, &message);
	rocksdb_iter_destroy(iter->it);
	rocksdb_readoptions_destroy(iter->options);
	return message == NULL ? RT_OK : ps_db_error(message, info, what);
}
