/* What is read from the store. */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/hash.h"
#include "tests/clustersim/mem_inside.h"

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

static const struct ps_shard *shard_of(const struct ps_store *store, uint32_t shard)
{
	RT_ASSERT(shard < mem_store_of(store)->disk->log_count);
	return &store->shards[shard];
}

uint64_t ps_store_first_offset(const struct ps_store *store, uint32_t shard)
{
	return shard_of(store, shard)->first;
}

uint64_t ps_store_last_offset(const struct ps_store *store, uint32_t shard)
{
	return shard_of(store, shard)->last;
}

uint64_t ps_store_durable_offset(const struct ps_store *store, uint32_t shard)
{
	return shard_of(store, shard)->durable;
}

uint64_t ps_store_index_watermark(const struct ps_store *store, uint32_t shard)
{
	return shard_of(store, shard)->watermark;
}

bool ps_store_space_low(const struct ps_store *store)
{
	return mem_store_of(store)->disk->space_low;
}

uint64_t ps_store_backlog(const struct ps_store *store)
{
	return store->staged - store->indexed;
}

void ps_store_stats(struct ps_store *store, struct ps_store_stats *out)
{
	*out = (struct ps_store_stats){.syncs = store->syncs,
		.index_backlog = ps_store_backlog(store),
		.failed = store->failed,
		.space_low = ps_store_space_low(store)};
	memcpy(out->failure, store->failure, sizeof(out->failure));
}

void mem_store_fail(struct mem_store *store, const char *why)
{
	store->base.failed = true;
	snprintf(store->base.failure, sizeof(store->base.failure), "%s", why);
}

static struct rt_bytes bytes_of(const struct mem_record *record)
{
	return rt_bytes_of(record->bytes, record->size);
}

static rt_err copied(struct rt_bytes bytes, struct rt_bytes *out)
{
	uint8_t *copy = malloc(bytes.size + 1);
	RT_ASSERT(copy != NULL);
	memcpy(copy, bytes.data, bytes.size);
	*out = rt_bytes_of(copy, bytes.size);
	return RT_OK;
}

/* ---- the log ---- */
/* NOLINTNEXTLINE(readability-function-size): a range and its visitor */
rt_err ps_store_read(struct ps_store *store, uint32_t shard, uint64_t from, uint64_t upto,
	ps_visit_fn *visit, void *arg, struct rt_errinfo *info)
{
	const struct ps_shard *at = shard_of(store, shard);
	if (from < at->first) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "shard %u: offset %llu is trimmed",
			shard, (unsigned long long)from);
	}
	upto = upto < at->last ? upto : at->last;
	for (uint64_t offset = from; offset <= upto; offset++) {
		const struct mem_record *record =
			mem_log_at(&mem_store_of(store)->logs[shard], offset);
		RT_ASSERT(record != NULL);
		if (!visit(arg, offset, bytes_of(record))) {
			break;
		}
	}
	return RT_OK;
}

rt_err ps_store_get(struct ps_store *store, uint32_t shard, uint64_t offset, struct rt_bytes *out,
	struct rt_errinfo *info)
{
	(void)shard_of(store, shard);
	const struct mem_record *record = mem_log_at(&mem_store_of(store)->logs[shard], offset);
	if (record == NULL) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "shard %u: no offset %llu", shard,
			(unsigned long long)offset);
	}
	return copied(bytes_of(record), out);
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
	const struct ps_shard *at = shard_of(store, shard);
	*out = (struct ps_log_hash){.first = at->first, .last = at->first - 1};
	return ps_store_read(store, shard, at->first, upto < at->durable ? upto : at->durable,
		add_to_hash, out, info);
}

rt_err ps_store_meta_get(
	struct ps_store *store, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	struct rt_bytes value;
	(void)info;
	return mem_rows_get(&mem_store_of(store)->meta, key, &value) ? copied(value, out)
								     : RT_E_NOTFOUND;
}

/* ---- what is derived: looked for in the log, up to the watermark ---- */
static bool push(struct ps_offsets *list, uint64_t offset, size_t *cap)
{
	if (list->count == *cap) {
		*cap = *cap == 0 ? 64 : *cap * 2;
		list->at = realloc(list->at, *cap * sizeof(*list->at));
		RT_ASSERT(list->at != NULL);
	}
	list->at[list->count++] = offset;
	return list->count < list->max;
}

static const struct mem_record *indexed(const struct ps_store *store, uint32_t shard, uint64_t at)
{
	return at > shard_of(store, shard)->watermark
		       ? NULL
		       : mem_log_at(&mem_store_of(store)->logs[shard], at);
}

/* NOLINTNEXTLINE(readability-function-size): a range and where its rows go */
rt_err ps_store_index(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	uint64_t from_seq, size_t max, uint64_t **out_offsets, size_t *out_count,
	struct rt_errinfo *info)
{
	struct ps_offsets list = {.max = max};
	size_t cap = 0;
	uint64_t next_seq = 0;
	uint64_t hash = rt_hash(pid.data, pid.size);
	bool go = max > 0;
	const struct mem_record *record;
	for (uint64_t at = shard_of(store, shard)->first;
		go && (record = indexed(store, shard, at)) != NULL; at++) {
		const struct ps_record *head = &record->head;
		if (record->pid_hash != hash || head->event_count == 0 ||
			head->kind != PS_KIND_COMMAND || !rt_bytes_equal(head->pid, pid)) {
			continue;
		}
		if (next_seq != 0 && head->first_seq != next_seq) {
			free(list.at);
			return rt_errinfo_set(info, RT_E_CORRUPT, "damaged index row of %.*s",
				(int)pid.size, (const char *)pid.data);
		}
		next_seq = head->first_seq + head->event_count;
		go = next_seq <= from_seq || push(&list, at, &cap);
	}
	*out_offsets = list.at;
	*out_count = list.count;
	return RT_OK;
}

uint64_t ps_dedupe_hash(struct rt_bytes id)
{
	return rt_hash(id.data, id.size) >> 16;
}

static bool in_window(const struct ps_store *store, uint32_t shard, uint64_t offset)
{
	uint64_t mark = shard_of(store, shard)->watermark;
	return offset <= mark && offset + PS_DEDUPE_WINDOW > mark;
}

rt_err ps_dedupe_find(struct ps_store *store, const struct ps_id *id, struct ps_found *out,
	struct rt_errinfo *info)
{
	(void)info;
	uint64_t hash = ps_dedupe_hash(id->bytes);
	const struct mem_record *record;
	for (uint64_t at = shard_of(store, id->shard)->first;
		(record = indexed(store, id->shard, at)) != NULL; at++) {
		if (record->id_hash == hash && record->head.kind == PS_KIND_COMMAND &&
			in_window(store, id->shard, at) &&
			rt_bytes_equal(record->head.command_id, id->bytes)) {
			out->offset = at;
			return copied(bytes_of(record), &out->record);
		}
	}
	return RT_E_NOTFOUND;
}

rt_err ps_store_dedupe_scan(struct ps_store *store, uint32_t shard, ps_visit_id_fn *visit,
	void *arg, struct rt_errinfo *info)
{
	(void)info;
	bool go = true;
	const struct mem_record *record;
	for (uint64_t at = shard_of(store, shard)->first;
		go && (record = indexed(store, shard, at)) != NULL; at++) {
		if (record->head.kind == PS_KIND_COMMAND && record->head.command_id.size > 0 &&
			in_window(store, shard, at)) {
			go = visit(arg, record->id_hash, at);
		}
	}
	return RT_OK;
}

static bool has_tag(const struct ps_record *head, struct rt_bytes tag)
{
	struct rt_bytes events = head->events;
	struct ps_event event;
	while (ps_record_next_event(&events, &event)) {
		struct rt_bytes one;
		while (ps_record_next_tag(&event.tags, &one)) {
			if (rt_bytes_equal(one, tag)) {
				return true;
			}
		}
	}
	return false;
}

/* NOLINTNEXTLINE(readability-function-size): a range and where its rows go */
rt_err ps_store_tagged(struct ps_store *store, uint32_t shard, struct rt_bytes tag, uint64_t from,
	uint64_t upto, struct ps_offsets *out, struct rt_errinfo *info)
{
	(void)info;
	struct ps_offsets list = {.max = out->max};
	size_t cap = 0;
	bool go = list.max > 0;
	const struct mem_record *record;
	uint64_t first = shard_of(store, shard)->first;
	for (uint64_t at = from > first ? from : first;
		go && at <= upto && (record = indexed(store, shard, at)) != NULL; at++) {
		if (record->head.kind == PS_KIND_COMMAND && has_tag(&record->head, tag)) {
			go = push(&list, at, &cap);
		}
	}
	*out = list;
	return RT_OK;
}

rt_err ps_store_snapshot_get(struct ps_store *store, uint32_t shard, struct rt_bytes pid,
	uint64_t upto_seq, struct ps_snapshot *out, struct rt_errinfo *info)
{
	(void)info;
	const struct mem_snapshot *found = mem_snapshots_get(&mem_store_of(store)->snapshots, shard,
		pid, upto_seq, shard_of(store, shard)->last);
	if (found == NULL) {
		return RT_E_NOTFOUND;
	}
	*out = (struct ps_snapshot){
		.seq = found->seq, .offset = found->offset, .version = found->version};
	return copied(rt_bytes_of(found->bytes + found->pid_size, found->size), &out->state);
}

/* ---- the few functions of RocksDB that the real load.c calls ---- */
rt_err ps_db_error(char *message, struct rt_errinfo *info, const char *what)
{
	(void)message;
	return rt_errinfo_set(info, RT_E_IO, "%s", what);
}

void rocksdb_batched_multi_get_cf(rocksdb_t *db, const rocksdb_readoptions_t *options,
	rocksdb_column_family_handle_t *family, size_t count, const char *const *keys,
	const size_t *sizes, rocksdb_pinnableslice_t **values, char **messages, const bool sorted)
{
	struct mem_store *store = (struct mem_store *)db;
	(void)options;
	(void)family;
	(void)sorted;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *key = (const uint8_t *)keys[i];
		RT_ASSERT(sizes[i] == PS_KEY_LOG);
		struct mem_record *record =
			mem_log_at(&store->logs[ps_get_u16(key)], ps_get_u64(key + 2));
		if (record != NULL) {
			record->refs++;
		}
		values[i] = (rocksdb_pinnableslice_t *)record;
		messages[i] = NULL;
	}
}

const char *rocksdb_pinnableslice_value(const rocksdb_pinnableslice_t *value, size_t *size)
{
	const struct mem_record *record = (const struct mem_record *)value;
	*size = record->size;
	return (const char *)record->bytes;
}

void rocksdb_pinnableslice_destroy(rocksdb_pinnableslice_t *value)
{
	mem_record_drop((struct mem_record *)value);
}

void rocksdb_free(void *block)
{
	free(block);
}
