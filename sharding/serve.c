/* From committed records to a shard that serves.
 *
 *   committed --in memory--> staged for the indexer
 *             --not in memory (from before the start, or installed)--> catch-up reads them from
 * disk leads     --all staged--> serves
 *
 * What is staged and not indexed yet is remembered by the shard (actors/unindexed.h). */
#include <stdlib.h>

#include "actors/entity.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "runtime/base/log.h"
#include "sharding/region_core.h"

#define SETTLE_MS 3000u

/* Loads the ids that the store knows into a shard's filter, off the worker. */
struct sh_fill {
	struct ps_job job; /* first */
	struct sh_region_shard *member;
	struct ac_filter filter;
	uint32_t fills;
	rt_err err;
};

static void stage(struct sh_region_shard *member);

void sh_serve_open(struct sh_region_shard *member)
{
	struct ps_store *store = sh_region_of(member)->host.store;
	/* What lies above may not be committed; it is staged once it is known to be. */
	member->staged = ps_store_index_watermark(store, member->shard.index);
	member->shard.dedupe.complete = ps_store_last_offset(store, member->shard.index) == 0;
}

/* ---- records that are not in memory ---- */
static void caught_up(struct ps_catchup *catchup, rt_err err)
{
	struct sh_region_shard *member = catchup->arg;
	struct sh_region *region = sh_region_of(member);
	member->catching = false;
	if (region->stopped || region->host.failed) {
		return;
	}
	if (member->fills != member->catch_fills) {
		err = RT_E_FENCED; /* The log was replaced; the writer may not have come to it yet.
				    */
	}
	if (err == RT_OK) {
		member->staged = catchup->upto;
		member->fills++;
		region->next_fill = 0;
	} else if (err != RT_E_FENCED && err != RT_E_CLOSED) {
		rt_log(RT_LOG_ERROR, "region", "shard %u: %s", member->shard.index,
			catchup->scan.info.text);
		member->failed(member, err);
		return;
	}
	stage(member);
	if (member->serving != SH_SERVING) {
		ac_shard_committed(&member->shard, member->staged);
	}
	sh_serve_prepare(member);
	sh_fill_next(region);
}

static void start_catchup(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	struct ac_host *host = &region->host;
	if (host->reader == NULL) {
		return; /* The node stops. */
	}
	member->shard.dedupe.complete = false;
	member->catch_fills = ++member->fills;
	member->catching = true;
	sh_replica_behind(member->replica, true);
	member->catchup = (struct ps_catchup){.store = host->store,
		.reader = host->reader,
		.stage = host->stage,
		.worker = host->worker,
		.shard = member->shard.index,
		.upto = member->told,
		.done = caught_up,
		.arg = member};
	ps_catchup_start(&member->catchup);
}

static void stage(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	while (!member->catching && member->staged < member->told) {
		struct rt_bytes bytes;
		struct ps_record record;
		if (!sh_replica_record(member->replica, member->staged + 1, &bytes)) {
			start_catchup(member);
			return;
		}
		rt_err err = ps_record_decode(bytes, &record);
		RT_ASSERT(err == RT_OK); /* It was checked when it came in. */
		ps_stage_record(region->host.stage, member->shard.index, ++member->staged, &record);
		if (!member->shard.leading && record.kind == PS_KIND_COMMAND) {
			ac_shard_follow_record(&member->shard, member->staged, &record);
		}
	}
	sh_replica_behind(member->replica, member->catching);
}

/* ---- to serve ---- */
static void serve(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	member->serving = SH_SERVING;
	member->leader = region->options.node;
	/* Who handed leadership over may still be there, and be the preferred one. */
	member->quiet_until_ms = sh_region_now_ms(region) + SETTLE_MS;
	ac_shard_lead(&member->shard, member->lead_term, member->staged);
	region->report_now = true;
	if (sh_region_is_meta(region, member->shard.index)) {
		sh_ask_lead(member);
	}
	sh_calls_wake(member);
	if (member->starts_node) {
		member->starts_node = false;
		if (--region->starting == 0) {
			region->started(region->started_arg);
		}
	}
	if (!member->shard.dedupe.complete) {
		region->next_fill = 0;
		sh_fill_next(region);
	}
}

void sh_serve_prepare(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	if (member->serving != SH_PREPARING || member->catching || region->host.failed ||
		region->stopped || raft->transferee != 0 || member->staged < raft->last) {
		return;
	}
	serve(member);
}

void sh_serve_lead(struct sh_region_shard *member, uint64_t term)
{
	member->serving = SH_PREPARING;
	member->lead_term = term;
	member->leader = sh_region_of(member)->options.node;
	sh_serve_prepare(member);
}

static void stop_serving(struct sh_region_shard *member, const char *why)
{
	struct ac_shard *shard = &member->shard;
	if (member->serving == SH_SERVING) {
		/* What was proposed may be committed yet; what waits in the open round will not. */
		ac_shard_drop(shard, why, shard->tail - shard->entry_count);
		if (sh_region_is_meta(sh_region_of(member), shard->index)) {
			sh_ask_follow(member);
		}
	}
	sh_reconcile_over(member);
}

void sh_serve_follow(struct sh_region_shard *member, uint64_t leader, const char *why)
{
	stop_serving(member, why);
	member->serving = SH_ASLEEP;
	/* That nobody leads as far as the replica knows does not make what others said untrue. */
	if (leader != 0 || member->leader == sh_region_of(member)->options.node) {
		member->leader = leader;
	}
	sh_region_of(member)->report_now = true;
	sh_calls_wake(member);
}

void sh_serve_refused(struct sh_region_shard *member, const char *why)
{
	stop_serving(member, why);
	/* It still leads, as far as it knows, and serves again if nobody takes over. */
	member->serving =
		sh_raft_leads(sh_replica_raft(member->replica)) ? SH_PREPARING : SH_ASLEEP;
	if (member->serving == SH_ASLEEP) {
		member->leader = 0;
	}
}

/* ---- commits ---- */
static void publish(struct sh_region_shard *member, uint64_t upto)
{
	member->told = upto;
	/* Before the answers leave: who got one finds its events in the feed of another worker. */
	atomic_store_explicit(&sh_region_of(member)->options.committed[member->shard.index], upto,
		memory_order_release);
}

void sh_serve_committed(struct sh_region_shard *member, uint64_t upto)
{
	member->told = upto;
	stage(member);
	publish(member, upto);
	if (member->serving == SH_SERVING) {
		ac_shard_commit(&member->shard, upto);
	} else {
		ac_shard_committed(&member->shard, member->staged);
		sh_serve_prepare(member);
	}
	if (member->snapshots != NULL) {
		sh_snapshots_committed(member);
	}
}

void sh_serve_wiped(struct sh_region_shard *member, uint64_t first)
{
	RT_ASSERT(member->serving != SH_SERVING);
	member->staged = first - 1;
	member->fills++;
	publish(member, first - 1);
	ac_shard_reset(&member->shard);
	sh_snapshots_drop(member);
}

void sh_serve_removed(struct sh_region_shard *member)
{
	stop_serving(member, "this node no longer has the shard; the outcome is unknown, repeat "
			     "with the same command id");
	member->serving = SH_ASLEEP;
	sh_serve_wiped(member, 1);
}

void sh_serve_installed(struct sh_region_shard *member, uint64_t last)
{
	publish(member, last);
	stage(member);
	ac_shard_committed(&member->shard, member->staged);
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
	struct sh_fill *fill = (struct sh_fill *)job;
	fill->err = ps_store_dedupe_scan(
		store, fill->member->shard.index, add_known, &fill->filter, NULL);
}

static void fill_done(struct ps_job *job)
{
	struct sh_fill *fill = (struct sh_fill *)job;
	struct sh_region_shard *member = fill->member;
	struct sh_region *region = sh_region_of(member);
	region->filling = false;
	if (fill->err == RT_OK && fill->fills == member->fills) {
		ac_filter_merge(&member->shard.dedupe.filter[1], &fill->filter);
		member->shard.dedupe.complete = true;
	} else {
		if (fill->err != RT_OK) {
			rt_log(RT_LOG_WARN, "region",
				"shard %u: known command ids cannot be read (%s): every "
				"new id is looked up on disk",
				member->shard.index, rt_err_text(fill->err));
		}
		ac_filter_clear(&fill->filter);
	}
	free(fill);
	sh_fill_next(region);
}

static bool start_fill(struct sh_region *region, struct sh_region_shard *member)
{
	struct sh_fill *fill = calloc(1, sizeof(*fill));
	if (fill == NULL) {
		return false;
	}
	fill->member = member;
	fill->fills = member->fills;
	fill->job.work = fill_work;
	fill->job.done = fill_done;
	if (ac_host_read(&region->host, &fill->job) != RT_OK) {
		free(fill);
		return false;
	}
	region->filling = true;
	return true;
}

/* One shard after the other, so that readers stay free for entities. */
void sh_fill_next(struct sh_region *region)
{
	while (!region->filling && region->next_fill < region->member_count && !region->closing &&
		region->starting == 0) {
		struct sh_region_shard *member = &region->members[region->next_fill++];
		if (!member->shard.dedupe.complete && !member->catching && member->told > 0) {
			(void)start_fill(region, member);
		}
	}
}
