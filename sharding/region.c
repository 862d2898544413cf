#include "sharding/region.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/field.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "sharding/region_core.h"

#define TICK_MS    1000u
#define STEADY_MS  50u /* while something is to be done */
#define CALM_MS    250u
#define ERASE_MS   1000u
#define REFUSED_MS 5000u /* between two lines about messages that make no sense */

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
	fail(sh_region_of(member), err);
}

/* It may want its time sooner now. */
static void stir(struct sh_region_shard *member)
{
	if (!member->stirred) {
		member->stirred = true;
		member->next_stirred = sh_region_of(member)->first_stirred;
		sh_region_of(member)->first_stirred = member;
	}
}

void sh_region_nonsense(struct sh_region *region)
{
	uint64_t now = sh_region_now_ms(region);
	region->refused++;
	if (now - region->refused_said_ms >= REFUSED_MS) {
		region->refused_said_ms = now;
		rt_log(RT_LOG_WARN, "region", "%llu messages of peers made no sense so far",
			(unsigned long long)region->refused);
	}
}

/* Short memory is like a lost message. */
void sh_region_took(struct sh_region_shard *member, rt_err err)
{
	struct sh_region *region = sh_region_of(member);
	stir(member);
	if (err == RT_E_CLOSED) {
		fail(region, err);
	} else if (err == RT_E_PROTO) {
		sh_region_nonsense(region);
	}
}

/* ---- what the replica says ---- */
static void on_send(void *arg, const struct sh_message *message)
{
	struct sh_region_shard *member = arg;
	struct sh_region *region = sh_region_of(member);
	enum sh_outgoing_kind kind =
		message->head.type == SH_MSG_CHUNK ? SH_OUTGOING_BULK : SH_OUTGOING_RAFT;
	uint8_t *at = sh_outgoing_room(
		&region->outgoing, message->head.to, kind, sh_message_size(message));
	if (at != NULL) { /* Else it is lost on the way. */
		sh_message_encode(at, message);
	}
}

static void on_lead(void *arg, uint64_t term, uint64_t last)
{
	(void)last;
	sh_serve_lead(arg, term);
}

static void on_follow(void *arg, uint64_t term, uint64_t leader)
{
	(void)term;
	sh_serve_follow(arg, leader,
		"this node no longer leads the shard; the outcome is unknown, repeat with the "
		"same command id");
}

static void on_committed(void *arg, uint64_t upto)
{
	sh_serve_committed(arg, upto);
}

static void on_installed(void *arg, uint64_t first, uint64_t last)
{
	struct sh_region_shard *member = arg;
	rt_log(RT_LOG_INFO, "region", "shard %u: offsets %llu to %llu were fetched from a peer",
		member->shard.index, (unsigned long long)first, (unsigned long long)last);
	sh_serve_installed(member, last);
}

static void on_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	struct sh_region_shard *member = arg;
	struct sh_region *region = sh_region_of(member);
	(void)set;
	region->report_now = true;
	if (removed) {
		member->renew = true;
		sh_serve_removed(member);
	}
}

/* An answer that may not leave: nothing of it must be left when another is made. */
static void unsay(struct ac_host *host, struct ac_call *call)
{
	ac_call_rewind(call);
	host->moved(host, call);
}

static void on_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	struct sh_region_shard *member = arg;
	struct ac_host *host = &sh_region_of(member)->host;
	(void)index;
	sh_region_of(member)->readable = ticket;
	if (err == RT_OK) {
		ac_answer_confirmed(host, ticket);
	} else {
		unsay(host, ticket);
	}
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

/* ---- what entities say ---- */
/* Nothing of it was done: it is routed anew. */
static void call_moved(struct ac_host *host, struct ac_call *call)
{
	sh_calls_again((struct sh_region *)(void *)host, call);
}

static void call_answered(struct ac_host *host, struct ac_call *call)
{
	struct sh_region *region = (struct sh_region *)(void *)host;
	if (region->several && call->out.node == 0) {
		call->out.node = region->options.node;
	}
	sh_ask_answered(region, call);
	region->answered(host, call);
}

/* An answer that rests on what this node knows may leave only if nobody else can have led by the
 * time it was made: the clock is read again, since a node may have been stopped in between. */
static bool confirm(struct ac_host *host, struct ac_shard *shard, struct ac_call *call)
{
	struct sh_region *region = (struct sh_region *)(void *)host;
	struct sh_region_shard *member = RT_CONTAINER(shard, struct sh_region_shard, shard);
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	if (sh_raft_members(raft)->members.count == 1) {
		return true;
	}
	uint64_t now_ms = rt_worker_clock_ms(host->worker);
	if (sh_raft_lease(raft, now_ms)) {
		return true;
	}
	region->readable = NULL;
	rt_err err = sh_replica_linearize(member->replica, now_ms, call);
	stir(member);
	if (err != RT_OK && region->readable != call) {
		unsay(host, call);
	}
	return false;
}

/* ---- rounds ---- */
static void round_done(struct ps_round *round, rt_err err)
{
	struct sh_flight *flight = round->arg;
	struct sh_region *region = flight->region;
	ps_round_release(round);
	uint64_t now_ms = sh_region_now_ms(region);
	for (uint32_t i = 0; i < flight->count && err == RT_OK && !region->host.failed; i++) {
		struct sh_region_shard *member = flight->part[i].member;
		err = sh_replica_durable(member->replica, now_ms, flight->part[i].written);
		err = err == RT_E_NOMEM ? RT_OK : err;
		stir(member);
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
	struct sh_region_shard *member = sh_region_member(region, shard->index);
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
			sh_serve_refused(member, "the leadership of the shard is moving");
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
		stir(sh_region_member(region, shard->index));
	}
	if (host->touched != NULL && region->options.pace != NULL) {
		sh_pace_busy(region->options.pace, rt_clock_now_ns());
	}
	host->touched = NULL;
	struct sh_flight *flight = sh_batch_take(&region->batch);
	struct ps_round *round = host->round;
	host->round = NULL;
	if (flight == NULL) {
		ps_round_release(round);
		return RT_OK;
	}
	round->done = round_done;
	round->arg = flight;
	ps_writer_submit(host->writer, round);
	return RT_OK;
}

/* ---- time ---- */
/* After the posts of the turn: what peers said while this worker was busy counts first. */
static void tick_replicas(struct sh_region *region)
{
	uint64_t now_ms = sh_region_now_ms(region);
	for (uint32_t i = 0; i < region->member_count && !region->host.failed; i++) {
		struct sh_region_shard *member = &region->members[i];
		stir(member);
		if (sh_replica_next_timeout(member->replica) <= now_ms) {
			sh_region_took(member, sh_replica_tick(member->replica, now_ms));
			sh_serve_prepare(member);
		}
	}
}

static void beat(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, beat);
	(void)worker;
	region->due = true;
	region->beat_at_ms = UINT64_MAX;
}

/* For the earliest of those who may have become earlier: who wants it later now is looked at when
 * the beat fires. */
static void arm(struct sh_region *region)
{
	uint64_t next = region->beat_at_ms;
	while (region->first_stirred != NULL) {
		struct sh_region_shard *member = region->first_stirred;
		region->first_stirred = member->next_stirred;
		member->stirred = false;
		uint64_t at = sh_replica_next_timeout(member->replica);
		next = at < next ? at : next;
	}
	if (next == region->beat_at_ms) {
		return;
	}
	region->beat_at_ms = next;
	uint64_t now_ms = sh_region_now_ms(region);
	rt_timer_start(region->host.worker, &region->beat, next > now_ms ? next - now_ms : 0);
}

/* A replica that was removed gives its space back and may be a member again. Its log is emptied for
 * that on a reader thread, while the writer goes on with the others. */
static void renew(struct sh_region *region, uint64_t now_ms)
{
	const struct ps_erase *erase = &region->erase;
	for (uint32_t i = 0; i < erase->count && !region->host.failed; i++) {
		struct sh_region_shard *member = sh_region_member(region, erase->shards[i]);
		member->renew = member->wanted = false;
		rt_err err = sh_replica_renew(member->replica, now_ms);
		RT_ASSERT(err != RT_E_INVAL);
		sh_region_took(member, err);
	}
}

static void erase_work(struct ps_job *job, struct ps_store *store)
{
	ps_erase_run(RT_CONTAINER(job, struct ps_erase, job), store);
}

static void erase_done(struct ps_job *job)
{
	struct sh_region *region = RT_CONTAINER(job, struct sh_region, erase.job);
	region->erasing = false;
	ps_erase_done(&region->erase, region->host.store);
	if (region->stopped || region->host.failed) {
		return;
	}
	if (region->erase.err != RT_OK) {
		rt_log(RT_LOG_ERROR, "region", "removed logs: %s", region->erase.info.text);
		fail(region, region->erase.err);
		return;
	}
	renew(region, sh_region_now_ms(region));
}

/* All that wait, since one sync is for all of them; now and then, or at once for those that are
 * spoken to, since they are to be members. */
static void erase_removed(struct sh_region *region, uint64_t now_ms)
{
	bool wanted = false;
	struct ps_erase *erase = &region->erase;
	if (region->erasing) {
		return;
	}
	*erase = (struct ps_erase){.job = {.work = erase_work, .done = erase_done}};
	for (uint32_t i = 0; i < region->member_count && erase->count < PS_ERASE_MAX; i++) {
		const struct sh_region_shard *member = &region->members[i];
		if (member->renew) {
			erase->shards[erase->count++] = member->shard.index;
			wanted = wanted || member->wanted;
		}
	}
	region->restless = region->restless || erase->count > 0;
	if (erase->count == 0 || (!wanted && now_ms < region->erased_ms + ERASE_MS)) {
		return;
	}
	region->erased_ms = now_ms;
	region->erasing = ac_host_read(&region->host, &erase->job) == RT_OK;
}

/* Hand-overs and routed calls may make records, records make messages, so in this order. */
static void serve_turn(struct sh_region *region)
{
	struct ac_host *host = &region->host;
	if (region->due) {
		region->due = false;
		if (region->options.drain != NULL) {
			region->options.drain(region->options.arg, host->worker);
		}
		tick_replicas(region);
	}
	if (region->moved != NULL) {
		sh_calls_turn(region);
	}
	if (host->round != NULL && !host->failed) {
		rt_err err = submit(region);
		if (err != RT_OK) {
			fail(region, err);
		}
	}
	if (!host->failed) {
		sh_reconcile_turn(region, sh_region_now_ms(region));
	}
	if (host->round != NULL && !host->failed) { /* What the hand-over wrote. */
		rt_err err = submit(region);
		if (err != RT_OK) {
			fail(region, err);
		}
	}
}

static void end_of_turn(struct rt_worker *worker, void *arg)
{
	(void)worker;
	struct sh_region *region = arg;
	struct ac_host *host = &region->host;
	if (region->stopped) {
		return;
	}
	if (!host->failed) {
		serve_turn(region);
	}
	if (region->moved != NULL) {
		sh_calls_turn(region);
	}
	if (host->round != NULL && host->failed) {
		discard(region);
	}
	sh_outgoing_flush(&region->outgoing);
	if (region->fresh_count > 0) {
		sh_calls_flushed(region);
	}
	ps_stage_flush(host->stage);
	if (host->memory > host->memory_max) {
		ac_host_trim(host);
	}
	if (region->first_stirred != NULL && !host->failed) {
		arm(region);
	}
	if ((region->restless || region->report_now) && !region->hurried) {
		region->hurried = true;
		rt_timer_start(host->worker, &region->steady, STEADY_MS);
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

static void steady(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, steady);
	uint64_t now_ms = rt_worker_now_ms(worker);
	if (region->host.failed || region->stopped) {
		return;
	}
	region->restless = region->hand_count > 0;
	erase_removed(region, now_ms);
	sh_reconcile(region, now_ms);
	sh_report_tick(region, now_ms);
	region->hurried = region->restless;
	rt_timer_start(worker, timer, region->restless ? STEADY_MS : CALM_MS);
}

/* ---- life ---- */
static rt_err open_member(struct sh_region *region, uint32_t group, struct rt_errinfo *info)
{
	const struct sh_region_options *options = &region->options;
	struct sh_region_shard *member = &region->members[region->member_count];
	member->batch = &region->batch;
	member->failed = member_failed;
	member->held_end = &member->held;
	ac_shard_init(&member->shard, &region->host, group);
	sh_serve_open(member);
	struct sh_replica_options replica = {.shard = group,
		.raft = {.node = options->node,
			.election_ms = options->election_ms,
			.heartbeat_ms = options->heartbeat_ms,
			.seed = rt_hash_mix(options->seed + options->node * 1024 + group)},
		.queue = &region->outs,
		.mark_every = options->mark_every,
		.cache_bytes = options->cache_bytes,
		.port = &replica_port,
		.arg = member};
	if (options->founder) {
		replica.first =
			(struct sh_members){.node = {options->node}, .count = 1, .voters = 1};
	}
	rt_err err = sh_replica_open(&replica, &member->replica, info);
	if (err == RT_OK) {
		region->member_count++;
		sh_replica_behind(
			member->replica, member->staged < sh_replica_raft(member->replica)->last);
		member->renew = sh_replica_removed(member->replica);
	}
	return err;
}

static rt_err open_members(struct sh_region *region, struct rt_errinfo *info)
{
	const struct sh_region_options *options = &region->options;
	uint32_t most = region->group_count / options->worker_count + 1;
	region->batch =
		(struct sh_batch){.host = &region->host, .region = region, .member_count = most};
	region->members = calloc(most, sizeof(*region->members));
	if (region->members == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "region");
	}
	rt_err err = RT_OK;
	for (uint32_t group = rt_worker_index(options->host.worker);
		err == RT_OK && group < region->group_count; group += options->worker_count) {
		err = open_member(region, group, info);
	}
	return err;
}

static void init(struct sh_region *region, const struct sh_region_options *options)
{
	region->options = *options;
	region->host = options->host;
	region->answered = options->host.answered;
	region->host.answered = call_answered;
	region->host.moved = call_moved;
	region->host.confirm = confirm;
	region->host.snapshot = options->wire == NULL ? NULL : sh_snapshots_send;
	region->group_count = options->shard_count + 1;
	region->moved_end = &region->moved;
	region->beat_at_ms = UINT64_MAX;
	region->outgoing =
		(struct sh_outgoing){.wire = options->wire, .lost = sh_region_lost, .arg = region};
	rt_timer_init(&region->tick, tick);
	rt_timer_init(&region->beat, beat);
	rt_timer_init(&region->steady, steady);
	rt_timer_init(&region->sweep, sh_calls_sweep);
}

rt_err sh_region_open(
	const struct sh_region_options *options, struct sh_region **out, struct rt_errinfo *info)
{
	struct sh_region *region = calloc(1, sizeof(*region));
	if (region == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "region");
	}
	init(region, options);
	rt_err err = ac_host_init(&region->host);
	if (err == RT_OK) {
		err = open_members(region, info);
	}
	if (err == RT_OK) {
		err = sh_ask_open(region);
	}
	if (err != RT_OK) {
		sh_region_free(region);
		return err;
	}
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
		sh_snapshots_drop(&region->members[i]);
	}
	sh_batch_done(&region->batch);
	sh_outgoing_done(&region->outgoing);
	sh_calls_done(region);
	sh_report_done(region);
	sh_ask_done(region);
	free(region->views);
	free(region->members);
	sh_out_queue_done(&region->outs);
	ac_host_done(&region->host);
	free(region);
}

static bool is_alone(const struct sh_region_shard *member)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	return set != NULL && set->members.count == 1 &&
	       set->members.node[0] == raft->settings.node && !sh_replica_removed(member->replica);
}

void sh_region_start(struct sh_region *region, void (*done)(void *arg), void *arg)
{
	struct ac_host *host = &region->host;
	region->started = done;
	region->started_arg = arg;
	host->read_only = ps_store_space_low(host->store);
	rt_timer_start(host->worker, &region->tick, TICK_MS);
	rt_timer_start(host->worker, &region->steady, STEADY_MS);
	region->starting = 1; /* this function */
	for (uint32_t i = 0; i < region->member_count; i++) {
		region->members[i].starts_node = is_alone(&region->members[i]);
		region->starting += region->members[i].starts_node;
	}
	for (uint32_t i = 0; i < region->member_count; i++) {
		rt_err err = sh_replica_start(region->members[i].replica, sh_region_now_ms(region));
		stir(&region->members[i]);
		if (err != RT_OK) {
			fail(region, err);
			return;
		}
	}
	region->running = true;
	if (--region->starting == 0) {
		done(arg);
	}
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
		struct ac_shard *shard = &region->members[i].shard;
		sh_replica_fail(region->members[i].replica);
		region->members[i].catchup.stopped = true;
		ac_shard_drop(shard, why, UINT64_MAX);
		region->members[i].serving = SH_ASLEEP;
	}
	sh_calls_end(region, why);
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
	rt_timer_stop(region->host.worker, &region->steady);
	rt_timer_stop(region->host.worker, &region->sweep);
	rt_timer_stop(region->host.worker, &region->coordinate);
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

const struct sh_replica *sh_region_replica(const struct sh_region *region, uint32_t group)
{
	return sh_region_owns(region, group)
		       ? region->members[group / region->options.worker_count].replica
		       : NULL;
}

bool sh_region_serves(const struct sh_region *region, uint32_t group)
{
	return sh_region_owns(region, group) &&
	       region->members[group / region->options.worker_count].serving == SH_SERVING;
}

uint32_t sh_region_unknown(const struct sh_region *region)
{
	uint32_t unknown = 0;
	for (uint32_t i = 0; i < region->member_count; i++) {
		const struct sh_region_shard *member = &region->members[i];
		uint64_t leader = sh_calls_leader(member);
		bool here = leader == region->options.node;
		unknown += leader == 0 || (here && member->serving != SH_SERVING);
	}
	return unknown;
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
