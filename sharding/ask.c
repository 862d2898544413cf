/* The coordinator on the worker that owns the meta group: its way to the entity "cluster", to the
 * nodes, and the questions of operators. */
#include <stdlib.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "sharding/region_core.h"

#define RETRY_MS 100u

/* A question of the coordinator to its entity. */
struct ask {
	struct ac_call call; /* first */
	struct sh_region *region;
	uint64_t ticket;
	uint64_t id[2];
	uint8_t payload[];
};

static void arm(struct sh_region *region)
{
	uint64_t at = sh_coordinator_next_timeout(region->coordinator);
	uint64_t now_ms = sh_region_now_ms(region);
	if (at == UINT64_MAX) {
		rt_timer_stop(region->host.worker, &region->coordinate);
	} else {
		rt_timer_start(
			region->host.worker, &region->coordinate, at > now_ms ? at - now_ms : 1);
	}
}

static void coordinate(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, coordinate);
	if (!region->stopped && !region->host.failed) {
		sh_coordinator_tick(region->coordinator, rt_worker_now_ms(worker));
		arm(region);
	}
}

/* ---- questions ---- */
static void ask_done(struct ac_call *call)
{
	struct ask *ask = (struct ask *)call;
	struct sh_region *region = ask->region;
	sh_coordinator_answer(region->coordinator, sh_region_now_ms(region), ask->ticket,
		call->out.code, call->out.seq, call->out.payload);
	ac_call_clear(call);
	free(ask);
	if (!region->stopped) {
		arm(region);
	}
}

static bool is_ask(const struct ac_call *call)
{
	return call->done == ask_done;
}

static struct ask *ask_new(struct sh_region *region, const char *name, struct rt_bytes payload)
{
	struct ask *ask = calloc(1, sizeof(*ask) + payload.size);
	if (ask == NULL) {
		return NULL;
	}
	ask->region = region;
	/* A node leads a term once, so no two of these are the same. */
	ask->id[0] = region->options.node << 40 ^
		     sh_region_member(region, region->options.shard_count)->lead_term;
	ask->id[1] = region->options.instance ^ ++region->ask_count;
	if (payload.size > 0) {
		memcpy(ask->payload, payload.data, payload.size);
	}
	ask->call.in = (struct pr_call){.type = rt_bytes_str("cluster"),
		.id = rt_bytes_str("cluster"),
		.name = rt_bytes_str(name),
		.payload = rt_bytes_of(ask->payload, payload.size),
		.command_id = rt_bytes_of((const uint8_t *)ask->id, sizeof(ask->id))};
	return ask;
}

/* NOLINTNEXTLINE(readability-function-size): the port's shape */
static rt_err ask(void *arg, const char *name, bool command, struct rt_bytes payload,
	uint64_t expected, uint64_t ticket)
{
	struct sh_region *region = arg;
	uint32_t meta = region->options.shard_count;
	if (sh_region_member(region, meta)->serving != SH_SERVING || region->host.failed) {
		return RT_E_FULL;
	}
	struct ask *question = ask_new(region, name, payload);
	if (question == NULL) {
		return RT_E_FULL;
	}
	struct ac_call *call = &question->call;
	question->ticket = ticket;
	call->in.kind = command ? TROUPE__KIND__KIND_COMMAND : TROUPE__KIND__KIND_QUERY;
	call->in.expected = expected;
	call->deadline_ms = sh_region_now_ms(region) + 5000;
	call->done = ask_done;
	sh_region_address(call, meta);
	if (region->options.calls != NULL) {
		atomic_fetch_add_explicit(region->options.calls, 1, memory_order_relaxed);
	}
	/* If this node does not lead any more it is not asked elsewhere either. */
	call->forwarded = true;
	sh_calls_again(region, call);
	return RT_OK;
}

/* ---- tables ---- */
static void push_here(struct sh_region *region, struct rt_bytes frame)
{
	uint32_t self = rt_worker_index(region->host.worker);
	for (uint32_t i = 0; i < region->options.worker_count; i++) {
		if (i != self) {
			region->options.to_worker(region->options.arg, i, frame);
		}
	}
	sh_region_frame(region, region->options.node, SH_LANE_CALL, frame);
}

static void push(void *arg, uint64_t node, struct rt_bytes table)
{
	struct sh_region *region = arg;
	const struct sh_wire *wire = region->options.wire;
	uint8_t *bytes = malloc(table.size + 1);
	if (bytes == NULL) {
		return; /* The node reports an old version, and gets it again. */
	}
	bytes[0] = SH_FRAME_TABLE;
	memcpy(bytes + 1, table.data, table.size);
	struct rt_bytes frame = rt_bytes_of(bytes, table.size + 1);
	if (node == region->options.node) {
		push_here(region, frame);
	} else if (wire != NULL) {
		(void)wire->send(wire->arg, node, SH_LANE_CALL, frame);
	}
	free(bytes);
}

/* ---- what happens to it ---- */
rt_err sh_ask_open(struct sh_region *region)
{
	const struct sh_coordinator_options *options = region->options.coordinator;
	rt_timer_init(&region->coordinate, coordinate);
	if (options == NULL || !sh_region_owns(region, region->options.shard_count)) {
		return RT_OK;
	}
	region->coordinator_port =
		(struct sh_coordinator_port){.ask = ask, .push = push, .arg = region};
	struct sh_coordinator_options full = *options;
	full.port = &region->coordinator_port;
	full.node = region->options.node;
	full.shard_count = region->options.shard_count;
	return sh_coordinator_new(&full, &region->coordinator);
}

void sh_ask_lead(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	if (region->coordinator != NULL) {
		sh_coordinator_lead(
			region->coordinator, sh_region_now_ms(region), member->lead_term);
		region->report_now = true;
		arm(region);
	}
}

void sh_ask_follow(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	if (region->coordinator != NULL) {
		sh_coordinator_follow(region->coordinator);
		arm(region);
	}
}

void sh_ask_report(struct sh_region *region, uint64_t from, struct rt_bytes report)
{
	if (region->coordinator != NULL && !region->stopped) {
		sh_coordinator_report(region->coordinator, sh_region_now_ms(region), from, report);
		arm(region);
	}
}

void sh_ask_answered(struct sh_region *region, const struct ac_call *call)
{
	if (region->coordinator != NULL && call->shard == region->options.shard_count &&
		call->out.events > 0 && !is_ask(call)) {
		sh_coordinator_changed(region->coordinator);
		arm(region);
	}
}

void sh_ask_call(struct sh_region *region, struct ac_call *call)
{
	struct pr_text text = {0};
	rt_err err = RT_E_INVAL;
	if (!rt_bytes_equal(call->in.name, rt_bytes_str("status"))) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
			"field name: \"%.*s\" is not known; there are status and hash",
			(int)call->in.name.size, (const char *)call->in.name.data);
	} else if (region->coordinator == NULL) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "this node is in no cluster");
	} else {
		err = sh_coordinator_status(region->coordinator, sh_region_now_ms(region), &text);
		if (err != RT_OK) {
			call->out.retry_after_ms = RETRY_MS;
			ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE,
				"the coordinator is starting");
		}
	}
	if (err == RT_OK) {
		call->out.code = TROUPE__CODE__CODE_OK;
		ac_call_payload_take(call, (uint8_t *)text.data, text.size);
	} else {
		pr_text_clear(&text);
	}
	region->host.answered(&region->host, call);
}

void sh_ask_done(struct sh_region *region)
{
	sh_coordinator_free(region->coordinator);
	region->coordinator = NULL;
}
