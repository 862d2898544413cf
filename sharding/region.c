#include "sharding/region.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/log.h"
#include "sharding/region_shard.h"

#define NODE         1u /* the only one, until nodes have names */
#define TICK_MS      1000u
#define BEAT_MS      10u
#define READ_RECORDS 1024u
#define FLIGHTS_KEPT 16u

/* Loads the ids that the store knows into a shard's filter, off the worker. */
struct fill {
	struct ps_job job; /* first */
	struct sh_region_shard *member;
	struct ac_filter filter;
	rt_err err;
};

struct sh_region {
	struct ac_host host; /* first, so that a host leads back here */
	struct sh_region_options options;
	struct sh_region_shard *members; /* by shard / worker_count */
	uint32_t member_count;
	uint32_t starting;        /* members that do not lead yet */
	struct sh_out_queue outs; /* of all cores of this worker */
	struct sh_batch batch;    /* of this turn */
	struct rt_bytes *views;   /* records being proposed */
	uint32_t view_cap;
	struct rt_timer beat;
	bool beating;
	void (*started)(void *arg);
	void *started_arg;
	struct rt_timer tick;
	bool stopped, closing;
	uint32_t next_fill;
};

static struct sh_region *region_of(const struct sh_region_shard *member)
{
	return member->batch->region;
}

static struct sh_region_shard *member_of(struct sh_region *region, uint32_t shard)
{
	RT_ASSERT(shard % region->options.worker_count == rt_worker_index(region->host.worker));
	return &region->members[shard / region->options.worker_count];
}

static void fill_next(struct sh_region *region);

static void fail(struct sh_region *region, rt_err err)
{
	if (region->host.failed) {
		return;
	}
	region->options.failed(region->options.arg, err);
	sh_region_drop(region, "a write to the store failed; its outcome is unknown until restart");
}

static void member_failed(struct sh_region_shard *member, rt_err err)
{
	fail(region_of(member), err);
}

/* ---- what the replica says ---- */
static void on_send(void *arg, const struct sh_message *message)
{
	/* A group of one has nobody to talk to. */
	(void)arg;
	(void)message;
}

static void on_lead(void *arg, uint64_t term, uint64_t last)
{
	struct sh_region_shard *member = arg;
	struct sh_region *region = region_of(member);
	ac_shard_lead(&member->shard, term, last);
	if (region->starting > 0 && --region->starting == 0) {
		region->started(region->started_arg);
		fill_next(region);
	}
}

static void on_follow(void *arg, uint64_t term, uint64_t leader)
{
	struct sh_region_shard *member = arg;
	(void)term;
	(void)leader;
	if (member->shard.leading) {
		ac_shard_drop(&member->shard,
			"this node no longer leads the shard; the outcome is "
			"unknown, repeat with the same command id",
			UINT64_MAX);
	}
}

/* Committed records go to the indexer. Those in the log at open are there already. */
static void stage(struct sh_region_shard *member, uint64_t upto)
{
	while (member->staged < upto) {
		struct rt_bytes bytes;
		struct ps_record record;
		bool here = sh_replica_record(member->replica, ++member->staged, &bytes);
		RT_ASSERT(here); /* A record is in memory until it is committed and durable. */
		rt_err err = ps_record_decode(bytes, &record);
		RT_ASSERT(err == RT_OK); /* It was checked when it came in. */
		ps_stage_record(region_of(member)->host.stage, member->shard.index, member->staged,
			&record);
	}
}

static void on_committed(void *arg, uint64_t upto)
{
	struct sh_region_shard *member = arg;
	struct sh_region *region = region_of(member);
	stage(member, upto);
	/* Before the answers leave: who got one finds its events in the feed of another worker. */
	atomic_store_explicit(
		&region->options.committed[member->shard.index], upto, memory_order_release);
	if (member->shard.leading) {
		ac_shard_commit(&member->shard, upto);
	}
}

static void on_installed(void *arg, uint64_t first, uint64_t last)
{
	/* A group of one is never sent a shard. */
	(void)arg;
	(void)first;
	(void)last;
	RT_ASSERT(false);
}

static void on_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	(void)arg;
	(void)set;
	(void)removed;
}

static void on_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	(void)arg;
	(void)ticket;
	(void)err;
	(void)index;
}

static const struct sh_replica_port replica_port = {
	.write = sh_region_shard_write,
	.read = sh_region_shard_read,
	.first = sh_region_shard_first,
	.meta = sh_region_shard_meta,
	.scan = sh_region_shard_scan,
	.send = on_send,
	.lead = on_lead,
	.follow = on_follow,
	.committed = on_committed,
	.installed = on_installed,
	.members = on_members,
	.readable = on_readable,
};

/* ---- rounds ---- */
static void round_done(struct ps_round *round, rt_err err)
{
	struct sh_flight *flight = round->arg;
	struct sh_region *region = flight->region;
	ps_round_release(round);
	uint64_t now_ms = rt_worker_now_ms(region->host.worker);
	for (uint32_t i = 0; i < flight->count && err == RT_OK && !region->host.failed; i++) {
		err = sh_replica_durable(
			flight->part[i].member->replica, now_ms, flight->part[i].written);
	}
	sh_batch_keep(&region->batch, flight);
	if (err != RT_OK || region->host.failed) {
		fail(region, err);
		return;
	}
	region->options.progressed(region->options.arg);
}

static bool collect(struct sh_region *region, const struct ac_shard *shard)
{
	if (shard->entry_count > region->view_cap) {
		uint32_t cap = shard->entry_count * 2;
		struct rt_bytes *views = realloc(region->views, cap * sizeof(*views));
		if (views == NULL) {
			return false;
		}
		region->views = views;
		region->view_cap = cap;
	}
	const struct ps_round *round = region->host.round;
	uint32_t at = shard->first_entry;
	for (uint32_t i = 0; i < shard->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[at];
		region->views[i] = rt_bytes_of(round->bytes + entry->pos, entry->size);
		at = entry->next;
	}
	return true;
}

/* Records of a shard whose leadership is gone leave the round; their callers were told. */
static void take_back(struct ps_round *round, const struct ac_shard *shard)
{
	uint32_t at = shard->first_entry;
	for (uint32_t i = 0; i < shard->entry_count; i++) {
		uint32_t next = round->entries[at].next;
		ps_round_drop(round, at);
		at = next;
	}
}

static rt_err propose(struct sh_region *region, struct ac_shard *shard)
{
	struct sh_region_shard *member = member_of(region, shard->index);
	struct ps_round *round = region->host.round;
	uint64_t first = 0;
	if (!collect(region, shard) || sh_batch_join(&region->batch, member) != RT_OK) {
		return RT_E_NOMEM;
	}
	rt_err err = shard->leading ? sh_replica_propose(member->replica, region->views,
					      shard->entry_count, &first)
				    : RT_E_FENCED;
	if (err == RT_E_FENCED || err == RT_E_AGAIN) {
		take_back(round, shard);
		if (shard->leading) {
			ac_shard_drop(shard, "the leadership of the shard is moving",
				ac_shard_proposed(shard));
		}
		err = RT_OK;
	} else {
		RT_ASSERT(err != RT_OK || first == round->entries[shard->first_entry].offset);
	}
	shard->entry_count = 0;
	return err;
}

/* Records that nobody will write any more; their callers were told already. */
static void discard(struct sh_region *region)
{
	struct ac_host *host = &region->host;
	for (struct ac_shard *shard = host->touched; shard != NULL; shard = shard->touched_next) {
		shard->entry_count = 0;
	}
	host->touched = NULL;
	ps_round_release(host->round);
	host->round = NULL;
}

static rt_err submit(struct sh_region *region)
{
	struct ac_host *host = &region->host;
	for (struct ac_shard *shard = host->touched; shard != NULL; shard = shard->touched_next) {
		rt_err err = propose(region, shard);
		if (err != RT_OK) {
			return err;
		}
	}
	host->touched = NULL;
	struct sh_flight *flight = sh_batch_take(&region->batch);
	struct ps_round *round = host->round;
	host->round = NULL;
	round->done = round_done;
	round->arg = flight;
	ps_writer_submit(host->writer, round);
	return RT_OK;
}

static void end_of_turn(struct rt_worker *worker, void *arg)
{
	(void)worker;
	struct sh_region *region = arg;
	struct ac_host *host = &region->host;
	if (region->stopped) {
		return;
	}
	if (host->round != NULL && !host->failed) {
		rt_err err = submit(region);
		if (err != RT_OK) {
			fail(region, err);
		}
	}
	if (host->round != NULL && host->failed) {
		discard(region);
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
	struct sh_region *region = region_of(fill->member);
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
		struct sh_region_shard *member = &region->members[region->next_fill++];
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

/* Gives every replica that wants it the time. True: one of them has peers or looks for them. */
static bool tick_replicas(struct sh_region *region, uint64_t now_ms)
{
	bool peers = false;
	for (uint32_t i = 0; i < region->member_count && !region->host.failed; i++) {
		struct sh_replica *replica = region->members[i].replica;
		rt_err err = sh_replica_next_timeout(replica) <= now_ms
				     ? sh_replica_tick(replica, now_ms)
				     : RT_OK;
		if (err != RT_OK) {
			fail(region, err);
		}
		peers = peers || sh_raft_next_timeout(sh_replica_raft(replica)) != UINT64_MAX;
	}
	return peers;
}

/* Elections and heartbeats. A group of one needs neither, and the slow tick is enough for it. */
static void beat(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, beat);
	region->beating = tick_replicas(region, rt_worker_now_ms(worker));
	if (region->beating) {
		rt_timer_start(worker, timer, BEAT_MS);
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
	if (!region->beating) {
		beat(worker, &region->beat);
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
	uint32_t most = options->shard_count / options->worker_count + 1;
	region->batch =
		(struct sh_batch){.host = &region->host, .region = region, .member_count = most};
	region->members = calloc(most, sizeof(*region->members));
	if (region->members == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "region");
	}
	for (uint32_t shard = index; shard < options->shard_count; shard += options->worker_count) {
		struct sh_region_shard *member = &region->members[region->member_count];
		member->batch = &region->batch;
		member->failed = member_failed;
		ac_shard_init(&member->shard, &region->host, shard);
		member->staged = ps_store_last_offset(options->host.store, shard);
		struct sh_replica_options replica = {.shard = shard,
			.raft = {.node = NODE, .seed = NODE},
			.first = {.node = {NODE}, .count = 1, .voters = 1},
			.queue = &region->outs,
			.port = &replica_port,
			.arg = member};
		rt_err err = sh_replica_open(&replica, &member->replica, info);
		if (err != RT_OK) {
			return err;
		}
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
	rt_timer_init(&region->beat, beat);
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
		sh_replica_close(region->members[i].replica);
	}
	sh_batch_done(&region->batch);
	free(region->views);
	free(region->members);
	sh_out_queue_done(&region->outs);
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
	uint64_t now_ms = rt_worker_now_ms(host->worker);
	for (uint32_t i = 0; i < region->member_count; i++) {
		rt_err err = sh_replica_start(region->members[i].replica, now_ms);
		if (err != RT_OK) {
			fail(region, err);
			return;
		}
	}
	beat(host->worker, &region->beat);
}

void sh_region_call(struct sh_region *region, struct ac_call *call)
{
	ac_shard_call(&member_of(region, call->shard)->shard, call);
}

void sh_region_cut_waits(struct sh_region *region)
{
	region->closing = true;
	for (uint32_t i = 0; i < region->member_count; i++) {
		ac_stream_cut(&region->members[i].shard, "the node is shutting down");
	}
}

void sh_region_drop(struct sh_region *region, const char *why)
{
	region->host.failed = true;
	region->host.reader = NULL;
	region->closing = true;
	for (uint32_t i = 0; i < region->member_count; i++) {
		sh_replica_fail(region->members[i].replica);
		ac_shard_drop(&region->members[i].shard, why, UINT64_MAX);
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
	rt_timer_stop(region->host.worker, &region->beat);
	for (uint32_t i = 0; i < region->member_count; i++) {
		ac_shard_done(&region->members[i].shard);
	}
	if (region->host.round != NULL) {
		discard(region);
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
