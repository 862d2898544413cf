#include "sharding/region_shard.h"

#include <stdlib.h>
#include <string.h>

#include "persistence/reader.h"
#include "persistence/writer.h"
#include "runtime/base/clock.h"
#include "sharding/region_core.h"

#define FLIGHTS_KEPT 16u
#define READ_RECORDS 1024u

/* ---- the batch of a turn ---- */
static struct sh_flight *open_flight(struct sh_batch *batch)
{
	if (batch->open != NULL) {
		return batch->open;
	}
	struct sh_flight *flight = batch->kept;
	if (flight != NULL) {
		batch->kept = flight->next;
		batch->kept_count--;
	} else {
		flight = malloc(sizeof(*flight) + batch->member_count * sizeof(flight->part[0]));
	}
	if (flight != NULL) {
		flight->region = batch->region;
		flight->count = 0;
		batch->open = flight;
	}
	return flight;
}

rt_err sh_batch_join(struct sh_batch *batch, struct sh_region_shard *member)
{
	if (member->written) {
		return RT_OK;
	}
	struct sh_flight *flight = open_flight(batch);
	if (flight == NULL) {
		return RT_E_NOMEM;
	}
	flight->part[flight->count++].member = member;
	member->written = true;
	return RT_OK;
}

struct sh_flight *sh_batch_take(struct sh_batch *batch)
{
	struct sh_flight *flight = batch->open;
	for (uint32_t i = 0; flight != NULL && i < flight->count; i++) {
		struct sh_region_shard *member = flight->part[i].member;
		flight->part[i].written = sh_replica_written(member->replica);
		member->written = false;
	}
	batch->open = NULL;
	return flight;
}

void sh_batch_keep(struct sh_batch *batch, struct sh_flight *flight)
{
	if (batch->kept_count == FLIGHTS_KEPT) {
		free(flight);
		return;
	}
	flight->next = batch->kept;
	batch->kept = flight;
	batch->kept_count++;
}

void sh_batch_done(struct sh_batch *batch)
{
	free(batch->open);
	batch->open = NULL;
	while (batch->kept != NULL) {
		struct sh_flight *flight = batch->kept;
		batch->kept = flight->next;
		free(flight);
	}
}

/* ---- writes ---- */
static rt_err write_record(struct ps_round *round, uint32_t shard, const struct sh_write *write)
{
	uint32_t entry;
	uint8_t *at = ps_round_add(round, shard, write->bytes.size, &entry);
	if (at == NULL) {
		return RT_E_NOMEM;
	}
	memcpy(at, write->bytes.data, write->bytes.size);
	round->entries[entry].offset = write->index;
	return RT_OK;
}

rt_err sh_region_shard_write(void *arg, const struct sh_write *write)
{
	struct sh_region_shard *member = arg;
	struct ac_host *host = member->batch->host;
	uint32_t shard = member->shard.index;
	if (host->round == NULL) {
		host->round = ps_round_acquire(host->writer, host->worker);
	}
	if (host->round == NULL || sh_batch_join(member->batch, member) != RT_OK) {
		return RT_E_NOMEM;
	}
	switch (write->kind) {
	case SH_WRITE_RECORD:
		return write_record(host->round, shard, write);
	case SH_WRITE_CUT:
		return ps_round_cut(host->round, shard, write->index);
	case SH_WRITE_WIPE:
		sh_serve_wiped(member, write->index);
		return ps_round_wipe(host->round, shard, write->index);
	case SH_WRITE_META:
		return ps_round_add_meta(host->round, write->key, write->bytes);
	}
	return RT_E_INVAL;
}

/* ---- reads: records for a peer that is behind, off the worker ---- */
struct fetch {
	struct ps_job job; /* first */
	struct sh_region_shard *member;
	struct sh_replica_read read;
	rt_err err;
	struct rt_bytes records[READ_RECORDS];
	uint32_t count;
	size_t bytes;
};

static bool fetch_one(void *arg, uint64_t offset, struct rt_bytes record)
{
	struct fetch *fetch = arg;
	(void)offset;
	uint8_t *copy = malloc(record.size);
	if (copy == NULL) {
		fetch->err = RT_E_NOMEM;
		return false;
	}
	memcpy(copy, record.data, record.size);
	fetch->records[fetch->count++] = rt_bytes_of(copy, record.size);
	fetch->bytes += record.size;
	return fetch->count < fetch->read.max_count && fetch->count < READ_RECORDS &&
	       fetch->bytes < fetch->read.max_bytes;
}

static void fetch_work(struct ps_job *job, struct ps_store *store)
{
	struct fetch *fetch = (struct fetch *)job;
	const struct sh_replica_read *read = &fetch->read;
	uint64_t upto = read->from + read->max_count - 1; /* The store reads ahead, but no more. */
	rt_err err = ps_store_read(store, fetch->member->shard.index, read->from,
		upto < read->upto ? upto : read->upto, fetch_one, fetch, NULL);
	fetch->err = fetch->err == RT_OK ? err : fetch->err;
}

static void fetch_done(struct ps_job *job)
{
	struct fetch *fetch = (struct fetch *)job;
	struct sh_region_shard *member = fetch->member;
	struct sh_pace *pace = sh_region_of(member)->options.pace;
	if (pace != NULL) {
		sh_pace_took(pace, rt_clock_now_ns(), fetch->count, fetch->bytes);
	}
	rt_err err =
		sh_replica_read_done(member->replica, rt_worker_now_ms(member->batch->host->worker),
			fetch->read.ticket, fetch->err, fetch->records, fetch->count);
	for (uint32_t i = 0; i < fetch->count; i++) {
		free((void *)(uintptr_t)fetch->records[i].data);
	}
	free(fetch);
	if (err != RT_OK) {
		member->failed(member, err);
	}
}

rt_err sh_region_shard_read(void *arg, const struct sh_replica_read *read)
{
	struct sh_region_shard *member = arg;
	struct sh_pace *pace = sh_region_of(member)->options.pace;
	if (pace != NULL && !sh_pace_may(pace, rt_clock_now_ns())) {
		return RT_E_FULL;
	}
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	if (fetch == NULL) {
		return RT_E_FULL;
	}
	fetch->member = member;
	fetch->read = *read;
	fetch->job.work = fetch_work;
	fetch->job.done = fetch_done;
	rt_err err = ac_host_read(member->batch->host, &fetch->job);
	if (err != RT_OK) {
		free(fetch);
	}
	return err;
}

uint64_t sh_region_shard_first(void *arg)
{
	struct sh_region_shard *member = arg;
	return ps_store_first_offset(member->batch->host->store, member->shard.index);
}

rt_err sh_region_shard_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	struct sh_region_shard *member = arg;
	return ps_store_meta_get(member->batch->host->store, key, out, info);
}

rt_err sh_region_shard_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	struct sh_region_shard *member = arg;
	return ps_store_read(member->batch->host->store, member->shard.index, from, UINT64_MAX - 1,
		visit, visit_arg, info);
}
