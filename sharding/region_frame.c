/* Frames of other nodes: taken apart, and who of this node's workers is meant. */
#include "proto/field.h"
#include "proto/troupe.pb-c.h"
#include "sharding/region_core.h"

#define SHARD_FIELD 3u /* of a peer message */

static void take_messages(struct sh_region *region, uint64_t from, struct rt_bytes frame)
{
	struct sh_message message;
	while (frame.size > 0 && !region->host.failed) {
		if (sh_message_decode(&frame, &message, region->records) != RT_OK ||
			message.head.from != from) {
			sh_region_nonsense(region);
			return;
		}
		if (sh_region_owns(region, message.shard)) {
			struct sh_region_shard *member = sh_region_member(region, message.shard);
			member->wanted = member->renew;
			sh_region_took(member, sh_replica_recv(member->replica,
						       sh_region_now_ms(region), &message));
		}
	}
}

void sh_region_frame(
	struct sh_region *region, uint64_t from, enum sh_lane lane, struct rt_bytes frame)
{
	if (region->stopped || region->host.failed || frame.size == 0) {
		return;
	}
	if (lane != SH_LANE_CALL) {
		take_messages(region, from, frame);
		return;
	}
	struct rt_bytes body = rt_bytes_of(frame.data + 1, frame.size - 1);
	switch (frame.data[0]) {
	case SH_FRAME_CALLS:
		sh_calls_frame(region, from, body);
		return;
	case SH_FRAME_ANSWERS:
		sh_calls_answers(region, from, body);
		return;
	case SH_FRAME_TABLE:
		sh_report_table(region, body);
		return;
	case SH_FRAME_REPORT:
		sh_report_relay(region, from, body);
		sh_ask_report(region, from, body);
		return;
	case SH_FRAME_SNAPSHOTS:
		sh_snapshots_frame(region, body);
		return;
	default: /* Of a newer version: it will say the same in a way that is known here. */
		return;
	}
}

/* Shard of the message at the front; it is taken off. False: not a message. */
static bool next_shard(struct rt_bytes *frame, uint32_t *out)
{
	uint64_t size;
	const uint8_t *end = frame->data + frame->size;
	const uint8_t *at = pr_varint_get(frame->data, end, &size);
	if (at == NULL || size > (uint64_t)(end - at)) {
		return false;
	}
	struct rt_bytes body = rt_bytes_of(at, (size_t)size);
	at += size;
	*frame = rt_bytes_of(at, (size_t)(end - at));
	struct pr_field field;
	*out = 0;
	while (pr_field_next(&body, &field) > 0 && field.number <= SHARD_FIELD) {
		if (field.number == SHARD_FIELD) {
			*out = (uint32_t)field.value;
		}
	}
	return true;
}

static uint64_t call_workers(struct rt_bytes body, uint32_t shard_count, uint32_t worker_count)
{
	struct ac_call call = {0};
	uint64_t workers = 0;
	while (pr_batch_next(&body, &call.in) == 1) {
		if (call.in.type.size <= PR_TYPE_MAX && call.in.id.size <= PR_ID_MAX) {
			sh_region_address(&call, shard_count);
			workers |= UINT64_C(1) << call.shard % worker_count;
		}
	}
	return workers;
}

static uint64_t answer_workers(struct rt_bytes body)
{
	struct pr_answer got;
	uint64_t workers = 0;
	while (pr_answers_next(&body, &got) == 1) {
		workers |= UINT64_C(1) << (got.call_id & 63);
	}
	return workers;
}

static uint64_t frame_workers(enum sh_lane lane, struct rt_bytes frame, uint32_t shard_count,
	uint32_t worker_count, uint64_t all)
{
	uint64_t workers = 0;
	uint32_t shard;
	if (lane != SH_LANE_CALL) {
		while (frame.size > 0 && next_shard(&frame, &shard)) {
			workers |= UINT64_C(1) << shard % worker_count;
		}
		return workers;
	}
	struct rt_bytes body = rt_bytes_of(frame.data + 1, frame.size - 1);
	switch (frame.data[0]) {
	case SH_FRAME_CALLS:
		return call_workers(body, shard_count, worker_count);
	case SH_FRAME_ANSWERS:
		return answer_workers(body) & all;
	case SH_FRAME_REPORT:
		return UINT64_C(1) << shard_count % worker_count;
	default:
		return all;
	}
}

/* What cannot be read, and answers to a process of this node that had more workers, go to the first
 * one: it takes them as they come. */
uint64_t sh_region_frame_workers(
	enum sh_lane lane, struct rt_bytes frame, uint32_t shard_count, uint32_t worker_count)
{
	uint64_t all = worker_count == 64 ? UINT64_MAX : (UINT64_C(1) << worker_count) - 1;
	if (worker_count == 1 || frame.size == 0) {
		return all;
	}
	uint64_t workers = frame_workers(lane, frame, shard_count, worker_count, all);
	return workers == 0 ? 1 : workers;
}

void sh_region_link(struct sh_region *region, uint64_t node, bool up)
{
	if (!region->stopped) {
		sh_report_link(region, node, up);
		sh_calls_link(region, node, up);
		if (up) {
			sh_outgoing_up(&region->outgoing);
		}
	}
}

void sh_region_lost(void *arg, uint64_t node, enum sh_outgoing_kind kind)
{
	if (kind == SH_OUTGOING_CALLS) {
		sh_calls_lost(arg, node);
	}
}
