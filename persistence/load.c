#include <stdlib.h>

#include "persistence/db.h"
#include "persistence/page.h"
#include "persistence/reader.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"

#define LOAD_BYTES      (1024u * 1024u)
#define SCAN_BYTES      (256u * 1024u)
#define SCAN_LOOKS      262144u /* records that one scan looks at, matching or not */
#define INDEX_PAGE      1024u
#define GET_BATCH       64u
#define RECORD_OVERHEAD 32u /* of the lists, counted against max_bytes */

/* ---- many records by offset ---- */

struct batch {
	struct ps_store *store;
	uint32_t shard;
	struct rt_errinfo *info;
};

static rt_err not_a_record(const struct batch *batch, uint64_t offset)
{
	return rt_errinfo_set(batch->info, RT_E_CORRUPT,
		"%s: shard %u offset %llu: missing or not a record", batch->store->db_dir,
		batch->shard, (unsigned long long)offset);
}

typedef rt_err take_fn(void *arg, uint64_t offset, struct rt_bytes record);

/* Reads sorted offsets with one call per GET_BATCH; take is given them in order and may end the
 * run with RT_E_FULL. */
static rt_err get_batch(
	const struct batch *batch, const uint64_t *offsets, size_t count, take_fn *take, void *arg)
{
	uint8_t keys[GET_BATCH][PS_KEY_LOG];
	const char *list[GET_BATCH] = {NULL};
	size_t sizes[GET_BATCH] = {0};
	rocksdb_pinnableslice_t *values[GET_BATCH];
	char *messages[GET_BATCH];
	struct ps_store *store = batch->store;
	RT_ASSERT(count <= GET_BATCH);
	if (count == 0) {
		return RT_OK;
	}
	for (size_t i = 0; i < count; i++) {
		ps_key_log(keys[i], batch->shard, offsets[i]);
		list[i] = (const char *)keys[i];
		sizes[i] = PS_KEY_LOG;
	}
	rocksdb_batched_multi_get_cf(store->db, store->point, store->family[PS_LOG], count, list,
		sizes, values, messages, true);
	rt_err err = RT_OK;
	for (size_t i = 0; i < count; i++) {
		if (messages[i] != NULL) {
			if (err == RT_OK) {
				err = ps_db_error(messages[i], batch->info, "read record");
			} else {
				rocksdb_free(messages[i]);
			}
		} else if (values[i] == NULL) {
			err = err == RT_OK ? not_a_record(batch, offsets[i]) : err;
		} else {
			size_t size;
			const char *value = rocksdb_pinnableslice_value(values[i], &size);
			err = err == RT_OK ? take(arg, offsets[i], rt_bytes_of(value, size)) : err;
		}
		if (values[i] != NULL) {
			rocksdb_pinnableslice_destroy(values[i]);
		}
	}
	return err;
}

static rt_err get_all(
	const struct batch *batch, const uint64_t *offsets, size_t count, take_fn *take, void *arg)
{
	rt_err err = RT_OK;
	for (size_t at = 0; err == RT_OK && at < count; at += GET_BATCH) {
		size_t some = count - at < GET_BATCH ? count - at : GET_BATCH;
		err = get_batch(batch, offsets + at, some, take, arg);
	}
	return err;
}

/* ---- an entity ---- */

struct loading {
	struct ps_load *load;
	struct batch batch;
	struct ps_page page;
	uint64_t next_seq;
	size_t max_bytes;
};

static rt_err load_record(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct loading *loading = arg;
	struct ps_load *load = loading->load;
	struct ps_record record;
	if (loading->page.used + loading->page.count * RECORD_OVERHEAD >= loading->max_bytes) {
		return RT_E_FULL;
	}
	if (ps_record_decode(bytes, &record) != RT_OK || record.kind != PS_KIND_COMMAND ||
		!rt_bytes_equal(record.pid, load->pid)) {
		return not_a_record(&loading->batch, offset);
	}
	/* Only the first record may begin before what was asked for. */
	bool follows = record.first_seq == loading->next_seq ||
		       (loading->page.count == 0 && record.first_seq < loading->next_seq &&
			       record.first_seq + record.event_count > loading->next_seq);
	if (!follows) {
		return rt_errinfo_set(loading->batch.info, RT_E_CORRUPT,
			"%s: shard %u offset %llu: sequence number %llu where %llu was expected",
			loading->batch.store->db_dir, load->shard, (unsigned long long)offset,
			(unsigned long long)record.first_seq,
			(unsigned long long)loading->next_seq);
	}
	if (record.first_seq > load->upto_seq) {
		return RT_E_FULL;
	}
	loading->next_seq = record.first_seq + record.event_count;
	return ps_page_add(&loading->page, offset, bytes);
}

static rt_err find_snapshot(struct ps_load *load, struct ps_store *store)
{
	if (!load->want_snapshot) {
		return RT_OK;
	}
	rt_err err = ps_store_snapshot_get(
		store, load->shard, load->pid, load->upto_seq, &load->snapshot, &load->info);
	if (err == RT_E_NOTFOUND) {
		return RT_OK;
	}
	if (err == RT_E_CORRUPT) { /* it only saved time */
		rt_log(RT_LOG_ERROR, "store", "%.*s: snapshot unreadable, its events are used: %s",
			(int)load->pid.size, (const char *)load->pid.data, load->info.text);
		load->info = (struct rt_errinfo){0};
		return RT_OK;
	}
	load->has_snapshot = err == RT_OK;
	if (err == RT_OK && load->from_seq <= load->snapshot.seq) {
		load->from_seq = load->snapshot.seq + 1;
	}
	return err;
}

static rt_err load_records(struct loading *loading)
{
	struct ps_load *load = loading->load;
	for (;;) {
		uint64_t *offsets = NULL;
		size_t count = 0;
		rt_err err = ps_store_index(loading->batch.store, load->shard, load->pid,
			loading->next_seq, INDEX_PAGE, &offsets, &count, &load->info);
		if (err == RT_OK) {
			err = get_all(&loading->batch, offsets, count, load_record, loading);
		}
		free(offsets);
		if (err != RT_OK) {
			load->more = err == RT_E_FULL && loading->next_seq <= load->upto_seq;
			return err == RT_E_FULL ? RT_OK : err;
		}
		if (count < INDEX_PAGE) {
			return RT_OK;
		}
	}
}

void ps_load_run(struct ps_load *load, struct ps_store *store)
{
	RT_ASSERT(load->shard < store->log_count);
	load->has_snapshot = false;
	load->more = false;
	load->err = find_snapshot(load, store);
	load->from_seq = load->from_seq == 0 ? 1 : load->from_seq;
	struct loading loading = {.load = load,
		.batch = {store, load->shard, &load->info},
		.next_seq = load->from_seq,
		.max_bytes = load->max_bytes == 0 ? LOAD_BYTES : load->max_bytes};
	if (load->err == RT_OK) {
		load->err = load_records(&loading);
	}
	ps_page_finish(&loading.page);
	load->records = loading.page.records;
	load->offsets = loading.page.offsets;
	load->record_count = loading.page.count;
	load->memory = loading.page.memory;
	load->next_seq = loading.next_seq;
}

void ps_load_clear(struct ps_load *load)
{
	if (load->has_snapshot) {
		free((void *)(uintptr_t)load->snapshot.state.data);
	}
	load->has_snapshot = false;
	load->snapshot = (struct ps_snapshot){0};
	free(load->records);
	free(load->offsets);
	free(load->memory);
	load->records = NULL;
	load->offsets = NULL;
	load->memory = NULL;
	load->record_count = 0;
}

/* ---- a command id ---- */

void ps_lookup_run(struct ps_lookup *lookup, struct ps_store *store)
{
	RT_ASSERT(lookup->id_size <= PS_COMMAND_ID_MAX && lookup->shard < store->log_count);
	lookup->found = false;
	struct ps_found found = {.offset = lookup->offset};
	if (lookup->offset != 0) {
		lookup->err = ps_store_get(
			store, lookup->shard, lookup->offset, &found.record, &lookup->info);
	} else {
		struct ps_id id = {lookup->shard, rt_bytes_of(lookup->id, lookup->id_size)};
		lookup->err = ps_dedupe_find(store, &id, &found, &lookup->info);
	}
	if (lookup->err == RT_OK) {
		lookup->found = true;
		lookup->offset = found.offset;
		lookup->record = found.record;
	} else if (lookup->err == RT_E_NOTFOUND) {
		lookup->err = RT_OK;
	}
}

void ps_lookup_clear(struct ps_lookup *lookup)
{
	if (lookup->found) {
		free((void *)(uintptr_t)lookup->record.data);
	}
	lookup->record = (struct rt_bytes){0};
	lookup->found = false;
}

/* ---- a feed ---- */

struct scanning {
	struct ps_scan *scan;
	struct batch batch;
	struct ps_page page;
	size_t max_bytes;
	uint64_t looks;
	rt_err err;
};

static bool has_tag(struct rt_bytes bytes, struct rt_bytes tag, bool *out)
{
	struct ps_record record;
	if (ps_record_decode(bytes, &record) != RT_OK) {
		return false;
	}
	*out = false;
	struct ps_event event;
	while (!*out && ps_record_next_event(&record.events, &event)) {
		struct rt_bytes one;
		while (!*out && ps_record_next_tag(&event.tags, &one)) {
			*out = rt_bytes_equal(one, tag);
		}
	}
	return true;
}

/* False when the bytes are no record. */
static bool matches(const struct ps_scan *scan, struct rt_bytes bytes, bool *out)
{
	struct ps_record head;
	if (ps_record_peek(bytes, &head) != RT_OK) {
		return false;
	}
	*out = head.kind == PS_KIND_COMMAND;
	if (*out && scan->pid.size > 0) {
		*out = rt_bytes_equal(head.pid, scan->pid);
	}
	if (*out && scan->type.size > 0) {
		*out = head.pid.size > scan->type.size && head.pid.data[scan->type.size] == '|' &&
		       memcmp(head.pid.data, scan->type.data, scan->type.size) == 0;
	}
	return !*out || scan->tag.size == 0 || has_tag(bytes, scan->tag, out);
}

static rt_err scan_record(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct scanning *scanning = arg;
	struct ps_scan *scan = scanning->scan;
	bool match = false;
	if (!matches(scan, bytes, &match)) {
		return not_a_record(&scanning->batch, offset);
	}
	if (match) {
		rt_err err = ps_page_add(&scanning->page, offset, bytes);
		if (err != RT_OK) {
			return err;
		}
	}
	scan->next = offset + 1;
	bool full =
		scanning->page.used + scanning->page.count * RECORD_OVERHEAD >= scanning->max_bytes;
	return full || ++scanning->looks >= SCAN_LOOKS ? RT_E_FULL : RT_OK;
}

static bool scan_visit(void *arg, uint64_t offset, struct rt_bytes record)
{
	struct scanning *scanning = arg;
	scanning->err = scan_record(scanning, offset, record);
	return scanning->err == RT_OK;
}

/* What the tag rows cover is read by them; the rest of the log is looked through. */
static rt_err scan_tagged(struct scanning *scanning, struct ps_store *store)
{
	struct ps_scan *scan = scanning->scan;
	for (;;) {
		uint64_t mark = ps_store_index_watermark(store, scan->shard);
		uint64_t end = mark < scan->upto ? mark : scan->upto;
		if (scan->next > end) {
			return RT_OK;
		}
		struct ps_offsets found = {.max = INDEX_PAGE};
		rt_err err = ps_store_tagged(
			store, scan->shard, scan->tag, scan->next, end, &found, &scan->info);
		if (err == RT_OK) {
			err = get_all(
				&scanning->batch, found.at, found.count, scan_record, scanning);
		}
		free(found.at);
		if (err != RT_OK) {
			return err;
		}
		if (found.count < INDEX_PAGE) {
			scan->next = end + 1;
		}
	}
}

void ps_scan_run(struct ps_scan *scan, struct ps_store *store)
{
	RT_ASSERT(scan->shard < store->log_count);
	struct scanning scanning = {.scan = scan,
		.batch = {store, scan->shard, &scan->info},
		.max_bytes = scan->max_bytes == 0 ? SCAN_BYTES : scan->max_bytes};
	scan->next = scan->from == 0 ? 1 : scan->from;
	rt_err err = RT_OK;
	if (scan->tag.size > 0) {
		err = scan_tagged(&scanning, store);
	}
	if (err == RT_OK && scan->next <= scan->upto) {
		err = ps_store_read(store, scan->shard, scan->next, scan->upto, scan_visit,
			&scanning, &scan->info);
		err = err == RT_OK ? scanning.err : err;
	}
	scan->err = err == RT_E_FULL ? RT_OK : err;
	ps_page_finish(&scanning.page);
	scan->records = scanning.page.records;
	scan->offsets = scanning.page.offsets;
	scan->record_count = scanning.page.count;
	scan->memory = scanning.page.memory;
}

void ps_scan_clear(struct ps_scan *scan)
{
	free(scan->records);
	free(scan->offsets);
	free(scan->memory);
	scan->records = NULL;
	scan->offsets = NULL;
	scan->memory = NULL;
	scan->record_count = 0;
}
