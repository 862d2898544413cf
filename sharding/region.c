#include "sharding/region.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/log.h"

#define TICK_MS 1000u

struct member { /* One shard and its replica. */
	struct ac_shard shard;
	struct sh_solo *replica;
	struct sh_region *region;
};

/* Loads the ids that the store knows into a shard's filter, off the worker. */
struct fill {
	struct ps_job job; /* first */
	struct member *member;
	struct ac_filter filter;
	rt_err err;
};

struct sh_region {
	struct ac_host host; /* first, so that a host leads back here */
	struct sh_region_options options;
	struct member *members; /* by shard / worker_count */
	uint32_t member_count;
	uint32_t starting; /* members whose first record is not committed */
	void (*started)(void *arg);
	void *started_arg;
	struct rt_timer tick;
	bool stopped, closing;
	uint32_t next_fill;
};

static struct member *member_of(struct sh_region *region, uint32_t shard)
{
	RT_ASSERT(shard % region->options.worker_count == rt_worker_index(region->host.worker));
	return &region->members[shard / region->options.worker_count];
}

static void on_lead(void *arg, uint64_t term, uint64_t last)
{
	struct member *member = arg;
	ac_shard_lead(&member->shard, term, last);
}

static void fill_next(struct sh_region *region);

static void on_committed(void *arg, uint64_t upto)
{
	struct member *member = arg;
	struct sh_region *region = member->region;
	/* Before the answers leave: who got one finds its events in the feed of another worker. */
	atomic_store_explicit(
		&region->options.committed[member->shard.index], upto, memory_order_release);
	ac_shard_commit(&member->shard, upto);
	if (region->starting > 0 && --region->starting == 0) {
		region->started(region->started_arg);
		fill_next(region);
	}
}

static const struct sh_solo_events replica_events = {.lead = on_lead, .committed = on_committed};

/* ---- rounds ---- */
static void fail(struct sh_region *region, rt_err err)
{
	if (region->host.failed) {
		return;
	}
	region->options.failed(region->options.arg, err);
	sh_region_drop(region, "a write to the store failed; its outcome is unknown until restart");
}

static void round_done(struct ps_round *round, rt_err err)
{
	struct sh_region *region = round->arg;
	if (err != RT_OK || region->host.failed) {
		ps_round_release(round);
		fail(region, err);
		return;
	}
	for (uint32_t i = 0; i < round->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[i];
		struct ps_record record;
		err = ps_record_decode(
			rt_bytes_of(round->bytes + entry->pos, entry->size), &record);
		RT_ASSERT(err == RT_OK); /* Written by this very process. */
		ps_stage_record(region->host.stage, entry->shard, entry->offset, &record);
	}
	for (uint32_t i = 0; i < round->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[i];
		if (entry->next == UINT32_MAX) { /* the last of its shard in this round */
			sh_solo_stored(member_of(region, entry->shard)->replica, entry->offset);
		}
	}
	ps_round_release(round);
	region->options.progressed(region->options.arg);
}

static void propose(struct sh_region *region, struct ac_shard *shard, struct ps_round *round)
{
	uint64_t first = 0;
	rt_err err = sh_solo_propose(
		member_of(region, shard->index)->replica, shard->entry_count, &first);
	/* Leadership is lost between turns, never inside one, and the shard is dropped then. */
	RT_ASSERT(err == RT_OK && first == round->entries[shard->first_entry].offset);
	shard->entry_count = 0;
}

/* Records that nobody will write any more; their callers were told already. */
static void discard(struct ac_host *host)
{
	for (struct ac_shard *shard = host->touched; shard != NULL; shard = shard->touched_next) {
		shard->entry_count = 0;
	}
	host->touched = NULL;
	ps_round_release(host->round);
	host->round = NULL;
}

static void end_of_turn(struct rt_worker *worker, void *arg)
{
	(void)worker;
	struct sh_region *region = arg;
	struct ac_host *host = &region->host;
	struct ps_round *round = host->round;
	if (region->stopped) {
		return;
	}
	if (round != NULL && host->failed) {
		discard(host);
	} else if (round != NULL) {
		host->round = NULL;
		for (struct ac_shard *shard = host->touched; shard != NULL;
			shard = shard->touched_next) {
			propose(region, shard, round);
		}
		host->touched = NULL;
		round->done = round_done;
		round->arg = region;
		ps_writer_submit(host->writer, round);
	}
	ps_stage_flush(host->stage);
	if (host->memory > host->memory_max) {
		ac_host_trim(host);
	}
}

/* ---- the filter of known command ids ---- */
static bool add_known(void *arg, uint64_t hash, uint64_t offset)
{
	(void)offset;
	ac_filter_add(arg, hash);
	return true;
}

static void fill_work(struct ps_job *job, struct ps_store *store)
{
	struct fill *fill = (struct fill *)job;
	fill->err = ps_store_dedupe_scan(
		store, fill->member->shard.index, add_known, &fill->filter, NULL);
}

static void fill_done(struct ps_job *job)
{
	struct fill *fill = (struct fill *)job;
	struct sh_region *region = fill->member->region;
	if (fill->err == RT_OK) {
		ac_filter_merge(&fill->member->shard.dedupe.filter[1], &fill->filter);
		fill->member->shard.dedupe.complete = true;
	} else {
		rt_log(RT_LOG_WARN, "region",
			"shard %u: known command ids cannot be read (%s): every "
			"new id is looked up on disk",
			fill->member->shard.index, rt_err_text(fill->err));
		ac_filter_clear(&fill->filter);
	}
	free(fill);
	fill_next(region);
}

/* One shard after the other, so that readers stay free for entities. */
static void fill_next(struct sh_region *region)
{
	while (region->next_fill < region->member_count && !region->closing) {
		struct member *member = &region->members[region->next_fill++];
		if (member->shard.dedupe.complete) {
			continue;
		}
		struct fill *fill = calloc(1, sizeof(*fill));
		if (fill == NULL) {
			return;
		}
		fill->member = member;
		fill->job.work = fill_work;
		fill->job.done = fill_done;
		if (ac_host_read(&region->host, &fill->job) != RT_OK) {
			free(fill);
			continue;
		}
		return;
	}
}

static void tick(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, tick);
	bool low = ps_store_space_low(region->host.store);
	if (low != region->host.read_only) {
		region->host.read_only = low;
		rt_log(RT_LOG_WARN, "region",
			low ? "disk space is low: commands are refused"
			    : "disk space is back: commands are served");
	}
	ac_host_trim_idle(&region->host, rt_worker_now_ms(worker));
	atomic_store_explicit(
		&region->host.count.memory, region->host.memory, memory_order_relaxed);
	rt_timer_start(worker, timer, TICK_MS);
}

/* ---- life ---- */
static rt_err open_members(struct sh_region *region, struct rt_errinfo *info)
{
	const struct sh_region_options *options = &region->options;
	uint32_t index = rt_worker_index(options->host.worker);
	region->members =
		calloc(options->shard_count / options->worker_count + 1, sizeof(*region->members));
	if (region->members == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "region");
	}
	for (uint32_t shard = index; shard < options->shard_count; shard += options->worker_count) {
		struct member *member = &region->members[region->member_count];
		member->region = region;
		struct sh_solo_options replica = {.store = options->host.store,
			.shard = shard,
			.events = &replica_events,
			.arg = member};
		rt_err err = sh_solo_open(&replica, &member->replica, info);
		if (err != RT_OK) {
			return err;
		}
		ac_shard_init(&member->shard, &region->host, shard);
		member->shard.dedupe.complete =
			ps_store_last_offset(options->host.store, shard) == 0;
		region->member_count++;
	}
	return RT_OK;
}

rt_err sh_region_open(
	const struct sh_region_options *options, struct sh_region **out, struct rt_errinfo *info)
{
	struct sh_region *region = calloc(1, sizeof(*region));
	if (region == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "region");
	}
	region->options = *options;
	region->host = options->host;
	rt_err err = ac_host_init(&region->host);
	if (err == RT_OK) {
		err = open_members(region, info);
	}
	if (err != RT_OK) {
		sh_region_free(region);
		return err;
	}
	rt_timer_init(&region->tick, tick);
	rt_worker_set_data(region->host.worker, region);
	rt_worker_set_turn_hook(region->host.worker, end_of_turn, region);
	*out = region;
	return RT_OK;
}

void sh_region_free(struct sh_region *region)
{
	if (region == NULL) {
		return;
	}
	for (uint32_t i = 0; i < region->member_count; i++) {
		sh_solo_close(region->members[i].replica);
	}
	free(region->members);
	ac_host_done(&region->host);
	free(region);
}

void sh_region_start(struct sh_region *region, void (*done)(void *arg), void *arg)
{
	struct ac_host *host = &region->host;
	region->started = done;
	region->started_arg = arg;
	region->starting = region->member_count;
	host->read_only = ps_store_space_low(host->store);
	rt_timer_start(host->worker, &region->tick, TICK_MS);
	if (region->member_count == 0) {
		done(arg);
		return;
	}
	host->round = ps_round_acquire(host->writer, host->worker);
	for (uint32_t i = 0; i < region->member_count; i++) {
		struct member *member = &region->members[i];
		rt_err err = host->round == NULL ? RT_E_NOMEM
						 : sh_solo_start(member->replica, host->round);
		struct ps_record noop = {.term = member->shard.term,
			.kind = PS_KIND_NOOP,
			.time_ms = rt_clock_wall_ms()};
		if (err != RT_OK || ac_shard_append(&member->shard, &noop, NULL) == 0) {
			fail(region, RT_E_NOMEM);
			return;
		}
	}
}

void sh_region_call(struct sh_region *region, struct ac_call *call)
{
	ac_shard_call(&member_of(region, call->shard)->shard, call);
}

void sh_region_cut_waits(struct sh_region *region)
{
	region->closing = true;
	for (uint32_t i = 0; i < region->member_count; i++) {
		ac_stream_drop(&region->members[i].shard, "the node is shutting down");
	}
}

void sh_region_drop(struct sh_region *region, const char *why)
{
	region->host.failed = true;
	region->host.reader = NULL;
	region->closing = true;
	for (uint32_t i = 0; i < region->member_count; i++) {
		sh_solo_fail(region->members[i].replica);
		ac_shard_drop(&region->members[i].shard, why);
	}
	if (region->starting > 0) {
		region->starting = 0;
		region->started(region->started_arg);
	}
}

void sh_region_stop(struct sh_region *region)
{
	region->stopped = true;
	rt_timer_stop(region->host.worker, &region->tick);
	for (uint32_t i = 0; i < region->member_count; i++) {
		ac_shard_done(&region->members[i].shard);
	}
	if (region->host.round != NULL) {
		discard(&region->host);
	}
	ps_stage_flush(region->host.stage);
}

struct ac_host *sh_region_host(struct sh_region *region)
{
	return &region->host;
}

void sh_region_quarantined(struct sh_region *region, struct pr_text *out)
{
	pr_text_str(out, "[");
	for (struct ac_entity *e = region->host.quarantined; e != NULL; e = e->next_quarantined) {
		pr_text_str(out, e == region->host.quarantined ? "{\"entity\":" : ",{\"entity\":");
		pr_text_json_string(out, ac_entity_pid(e));
		pr_text_str(out, ",\"reason\":");
		pr_text_json_string(out, rt_bytes_str(e->reason));
		pr_text_str(out, "}");
	}
	pr_text_str(out, "]");
}
