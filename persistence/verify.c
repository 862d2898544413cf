#include <stdio.h>
#include <stdlib.h>

#include "persistence/db.h"
#include "persistence/files.h"
#include "runtime/base/assert.h"

#define READAHEAD      (2u * 1024u * 1024u)
#define PROGRESS_EVERY 1000000u

/* The last sequence number of each entity of one shard: an open table keyed by a hash of the pid.
 * Two entities with one hash of 64 bits would be reported, not missed. */
struct known {
	uint64_t hash, seq;
};

struct verify {
	struct ps_store *store;
	void (*progress)(void *arg, const char *line);
	void *arg;
	struct ps_verify_report report;
	/* one shard */
	uint32_t shard;
	uint64_t trimmed; /* its log does not begin at 1: first sequence numbers are unknown */
	uint64_t next;    /* offset */
	struct known *known;
	size_t known_count, known_cap;
	/* rows of the index against the log */
	uint64_t indexed_records, indexable_records;
};

static void say(struct verify *verify, const char *line)
{
	if (verify->progress != NULL) {
		verify->progress(verify->arg, line);
	}
}

static void problem(struct verify *verify, uint64_t offset, const char *what)
{
	char line[200];
	verify->report.problems++;
	snprintf(line, sizeof(line), "shard %u offset %llu: %s", verify->shard,
		(unsigned long long)offset, what);
	say(verify, line);
}

static uint64_t hash_pid(struct rt_bytes pid)
{
	uint64_t hash = UINT64_C(1469598103934665603);
	for (size_t i = 0; i < pid.size; i++) {
		hash = (hash ^ pid.data[i]) * UINT64_C(1099511628211);
	}
	return hash ^ hash >> 29 ^ 1;
}

static bool grow(struct verify *verify)
{
	size_t cap = verify->known_cap == 0 ? 1024 : verify->known_cap * 2;
	struct known *known = calloc(cap, sizeof(*known));
	if (known == NULL) {
		return false;
	}
	for (size_t i = 0; i < verify->known_cap; i++) {
		const struct known *old = &verify->known[i];
		if (old->hash != 0) {
			size_t at = old->hash & (cap - 1);
			while (known[at].hash != 0) {
				at = (at + 1) & (cap - 1);
			}
			known[at] = *old;
		}
	}
	free(verify->known);
	verify->known = known;
	verify->known_cap = cap;
	return true;
}

static struct known *entity(struct verify *verify, struct rt_bytes pid)
{
	if (verify->known_count * 2 >= verify->known_cap && !grow(verify)) {
		return NULL;
	}
	uint64_t hash = hash_pid(pid);
	size_t at = hash & (verify->known_cap - 1);
	while (verify->known[at].hash != 0 && verify->known[at].hash != hash) {
		at = (at + 1) & (verify->known_cap - 1);
	}
	if (verify->known[at].hash == 0) {
		verify->known[at].hash = hash;
		verify->known_count++;
	}
	return &verify->known[at];
}

static bool check_record(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct verify *verify = arg;
	struct ps_record record;
	verify->next = offset + 1;
	if (++verify->report.records % PROGRESS_EVERY == 0) {
		char line[80];
		snprintf(line, sizeof(line), "%llu records",
			(unsigned long long)verify->report.records);
		say(verify, line);
	}
	if (ps_record_decode(bytes, &record) != RT_OK) {
		problem(verify, offset, "not a record");
		return true;
	}
	verify->report.events += record.event_count;
	if (record.kind != PS_KIND_COMMAND || record.event_count == 0) {
		return true;
	}
	verify->indexable_records++;
	struct known *known = entity(verify, record.pid);
	if (known == NULL) {
		return false;
	}
	bool follows = record.first_seq == known->seq + 1 || (known->seq == 0 && verify->trimmed);
	if (!follows) {
		problem(verify, offset, "sequence number does not follow the entity's last one");
	}
	known->seq = record.first_seq + record.event_count - 1;
	return true;
}

static rt_err check_log(struct verify *verify, struct rt_errinfo *info)
{
	struct ps_store *store = verify->store;
	uint64_t first = ps_store_first_offset(store, verify->shard);
	verify->trimmed = first > 1;
	verify->next = first;
	rt_err err =
		ps_store_read(store, verify->shard, first, UINT64_MAX, check_record, verify, info);
	if (err == RT_OK && verify->next <= ps_store_last_offset(store, verify->shard)) {
		err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	return err;
}

/* Each row against the log: right entity, right sequence numbers. */
static rt_err check_index_row(
	struct verify *verify, struct rt_bytes key, struct rt_bytes value, struct rt_errinfo *info)
{
	const uint8_t *at = value.data;
	const uint8_t *end = at + value.size;
	uint64_t first = ps_store_first_offset(verify->store, verify->shard);
	struct rt_bytes pid = rt_bytes_of(key.data + 2, key.size - 11);
	uint64_t seq = ps_get_u64(key.data + key.size - 8);
	uint64_t offset = 0;
	while (at != NULL && at < end) {
		uint64_t delta = 0;
		uint64_t events = 0;
		at = ps_get_varint(at, end, &delta);
		at = at == NULL ? NULL : ps_get_varint(at, end, &events);
		offset += delta;
		if (at == NULL) {
			break;
		}
		if (offset >= first) {
			struct rt_bytes bytes = {0};
			struct ps_record record;
			rt_err err =
				ps_store_get(verify->store, verify->shard, offset, &bytes, info);
			if (err != RT_OK && err != RT_E_NOTFOUND) {
				return err;
			}
			if (err != RT_OK || ps_record_decode(bytes, &record) != RT_OK ||
				!rt_bytes_equal(record.pid, pid) || record.first_seq != seq ||
				record.event_count != events) {
				problem(verify, offset, "an index row points at something else");
			}
			verify->indexed_records += events > 0;
			free((void *)(uintptr_t)bytes.data);
		}
		seq += events;
	}
	if (at == NULL) {
		problem(verify, offset, "damaged index row");
	}
	return RT_OK;
}

static void shard_range(struct verify *verify, struct ps_iter *iter, enum ps_family family)
{
	uint8_t low[2];
	uint8_t high[PS_KEY_NAMED + 1];
	ps_put_u16(low, verify->shard);
	struct ps_range range = {rt_bytes_of(low, sizeof(low)),
		ps_key_shard_end(high, verify->shard), true, READAHEAD};
	ps_iter_init(iter, verify->store, family, &range);
	rocksdb_iter_seek(iter->it, (const char *)low, sizeof(low));
}

static rt_err check_index(struct verify *verify, struct rt_errinfo *info)
{
	struct ps_iter iter;
	rt_err err = RT_OK;
	shard_range(verify, &iter, PS_INDEX);
	for (; err == RT_OK && ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		struct rt_bytes key = ps_iter_key(&iter);
		if (key.size > 11) {
			err = check_index_row(verify, key, ps_iter_value(&iter), info);
		}
	}
	rt_err ended = ps_iter_done(&iter, info, "verify index");
	if (verify->indexed_records < verify->indexable_records) {
		problem(verify, 0, "records without an index row");
	}
	return ended != RT_OK ? ended : err;
}

/* Reads a family's rows of the shard for their checksums. */
static rt_err check_family(
	struct verify *verify, enum ps_family family, uint64_t *count, struct rt_errinfo *info)
{
	struct ps_iter iter;
	shard_range(verify, &iter, family);
	for (; ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		(void)ps_iter_value(&iter);
		++*count;
	}
	return ps_iter_done(&iter, info, "verify");
}

static rt_err check_shard(struct verify *verify, struct rt_errinfo *info)
{
	uint64_t rows = 0;
	verify->known_count = 0;
	verify->indexed_records = 0;
	verify->indexable_records = 0;
	if (verify->known != NULL) {
		memset(verify->known, 0, verify->known_cap * sizeof(*verify->known));
	}
	rt_err err = check_log(verify, info);
	verify->report.entities += verify->known_count;
	if (err == RT_OK) {
		err = check_index(verify, info);
	}
	if (err == RT_OK) {
		err = check_family(verify, PS_DEDUPE, &rows, info);
	}
	if (err == RT_OK) {
		err = check_family(verify, PS_TAGS, &rows, info);
	}
	if (err == RT_OK) {
		err = check_family(verify, PS_SNAPSHOTS, &verify->report.snapshots, info);
	}
	return err;
}

rt_err ps_store_verify(const char *dir, void (*progress)(void *arg, const char *line), void *arg,
	struct ps_verify_report *out, struct rt_errinfo *info)
{
	struct rt_errinfo local = {0};
	info = info == NULL ? &local : info;
	struct verify verify = {.progress = progress, .arg = arg};
	struct ps_store_options options = {.dir = dir};
	rt_err err = ps_store_open(&options, &verify.store, info);
	if (err != RT_OK) {
		return err;
	}
	for (uint32_t i = 0; err != RT_E_NOMEM && i < verify.store->log_count; i++) {
		verify.shard = i;
		rt_err one = check_shard(&verify, info);
		if (one != RT_OK) {
			problem(&verify, verify.next, info->text);
			err = one; /* the other shards are looked at all the same */
		}
	}
	free(verify.known);
	ps_store_close(verify.store);
	*out = verify.report;
	return err;
}
