#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "actors/read.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"

struct recovery {
	struct ac_read read; /* first */
	struct ac_entity *entity;
	bool without_snapshot; /* it was of another version or could not be restored */
};

/* Runs the upcasters from the stored version up; *payload ends as the newest version's bytes. */
static rt_err upcast(struct ac_host *host, const struct troupe_event_type *type,
	const struct ps_event *stored, struct rt_bytes *payload, struct rt_errinfo *info)
{
	const struct troupe_upcast *step = type->upcasts;
	while (step != NULL && step->from != NULL && step->from_version != stored->version) {
		step++;
	}
	for (; step != NULL && step->from != NULL; step++) {
		rt_err err = pr_guard_check(step->from, *payload, info);
		if (err != RT_OK) {
			return err;
		}
		ProtobufCMessage *old = protobuf_c_message_unpack(
			step->from, &host->allocator, payload->size, payload->data);
		if (old == NULL) {
			return rt_errinfo_set(info, RT_E_CORRUPT, "cannot be read");
		}
		struct troupe_out *out = &host->scratch;
		ac_out_begin(out, NULL);
		const struct troupe_upcast *next = step + 1;
		out->only = next->from != NULL ? next->from : type->message;
		step->step(old, out);
		if (out->defect[0] != '\0' || out->event_count != 1) {
			return rt_errinfo_set(info, RT_E_INVAL, "upcaster from version %u: %s",
				step->from_version,
				out->defect[0] != '\0' ? out->defect : "must emit one event");
		}
		struct rt_bytes newer = ac_out_piece(out, &out->events[0]);
		uint8_t *copy = rt_arena_copy(&host->arena, newer.data, newer.size);
		if (copy == NULL) {
			return rt_errinfo_set(info, RT_E_NOMEM, "event too large");
		}
		*payload = rt_bytes_of(copy, newer.size);
	}
	return RT_OK;
}

rt_err ac_event_read(struct ac_host *host, const struct ac_type *type,
	const struct ps_event *stored, struct troupe_event *out, struct rt_errinfo *info)
{
	int index = ac_type_event(type, stored->manifest);
	int shown = (int)stored->manifest.size;
	const char *name = (const char *)stored->manifest.data;
	if (index < 0) {
		return rt_errinfo_set(
			info, RT_E_VERSION, "event type %.*s is not known", shown, name);
	}
	const struct troupe_event_type *event = &ac_type_aggregate(type)->events[index];
	if (stored->version > event->version) {
		return rt_errinfo_set(info, RT_E_VERSION,
			"event %.*s has version %u, this node knows up to %u", shown, name,
			stored->version, event->version);
	}
	struct rt_bytes payload = stored->payload;
	if (stored->version != event->version) {
		if (event->upcasts == NULL) {
			return rt_errinfo_set(info, RT_E_VERSION,
				"event %.*s has version %u and no upcaster leads to %u", shown,
				name, stored->version, event->version);
		}
		rt_err err = upcast(host, event, stored, &payload, info);
		if (err != RT_OK) {
			return rt_errinfo_wrap(info, err, "event %.*s", shown, name);
		}
	}
	rt_err err = pr_guard_check(event->message, payload, info);
	if (err != RT_OK) {
		return rt_errinfo_wrap(info, RT_E_CORRUPT, "event %.*s", shown, name);
	}
	out->message = protobuf_c_message_unpack(
		event->message, &host->allocator, payload.size, payload.data);
	if (out->message == NULL) {
		return rt_errinfo_set(info, RT_E_CORRUPT, "event %.*s cannot be read", shown, name);
	}
	out->index = (uint32_t)index;
	return RT_OK;
}

/* NOLINTNEXTLINE(readability-function-size): a state and its position */
rt_err ac_replay(struct ac_host *host, const struct ac_type *type, void *state, uint64_t *seq,
	uint64_t upto_seq, struct rt_bytes record, struct rt_errinfo *info)
{
	struct ps_record head;
	if (ps_record_decode(record, &head) != RT_OK) {
		return rt_errinfo_set(info, RT_E_CORRUPT, "record cannot be read");
	}
	struct rt_bytes cursor = head.events;
	struct ps_event stored;
	for (uint64_t at = head.first_seq; ps_record_next_event(&cursor, &stored); at++) {
		if (at <= *seq) {
			continue;
		}
		if (at > upto_seq) {
			return RT_OK;
		}
		if (at != *seq + 1) {
			return rt_errinfo_set(info, RT_E_CORRUPT, "event %llu follows event %llu",
				(unsigned long long)at, (unsigned long long)*seq);
		}
		struct troupe_event event = {.seq = at, .time_ms = head.time_ms};
		rt_err err = ac_event_read(host, type, &stored, &event, info);
		if (err != RT_OK) {
			return err;
		}
		bool good = ac_type_aggregate(type)->evolve(state, &event);
		rt_arena_reset(&host->arena);
		if (!good) {
			return rt_errinfo_set(info, RT_E_CORRUPT,
				"event %llu (%.*s) contradicts the state", (unsigned long long)at,
				(int)stored.manifest.size, (const char *)stored.manifest.data);
		}
		*seq = at;
	}
	return RT_OK;
}

bool ac_restore(struct ac_host *host, const struct troupe_aggregate *aggregate, void *state,
	const struct ps_snapshot *snapshot)
{
	if (aggregate->restore == NULL || snapshot->version != aggregate->snapshot_version ||
		pr_guard_check(aggregate->snapshot, snapshot->state, NULL) != RT_OK) {
		return false;
	}
	ProtobufCMessage *message = protobuf_c_message_unpack(
		aggregate->snapshot, &host->allocator, snapshot->state.size, snapshot->state.data);
	bool good = message != NULL && aggregate->restore(state, message);
	rt_arena_reset(&host->arena);
	return good;
}

static bool restore(struct ac_entity *entity, const struct ps_snapshot *snapshot)
{
	if (!ac_restore(entity->shard->host, entity->aggregate, entity->state, snapshot)) {
		return false;
	}
	entity->seq = snapshot->seq;
	entity->snapshot_bytes = (uint32_t)snapshot->state.size;
	return true;
}

static void start_over(struct recovery *recovery)
{
	struct ac_entity *entity = recovery->entity;
	const struct troupe_aggregate *aggregate = entity->aggregate;
	if (aggregate->done != NULL) {
		aggregate->done(entity->state);
	}
	memset(entity->state, 0, aggregate->state_size);
	if (aggregate->init != NULL) {
		aggregate->init(entity->state, ac_entity_id(entity));
	}
	entity->seq = 0;
	recovery->without_snapshot = true;
	ac_read_clear(&recovery->read);
	recovery->read.load.want_snapshot = false;
	recovery->read.load.from_seq = 1;
	ac_read_start(&recovery->read, entity->shard->host);
}

/* Nothing is known about the entity: its callers are told, and it leaves memory. */
static void give_up(struct recovery *recovery)
{
	struct ac_entity *entity = recovery->entity;
	struct ac_host *host = entity->shard->host;
	const struct rt_errinfo *info = &recovery->read.load.info;
	if (recovery->read.load.err != RT_E_FULL) {
		rt_log(RT_LOG_ERROR, "entity", "%s cannot be read: %s", entity->pid, info->text);
	}
	while (entity->waiting != NULL) {
		struct ac_call *call = entity->waiting;
		entity->waiting = call->next;
		call->out.retry_after_ms = 100;
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "entity cannot be read: %s",
			info->text);
		ac_answer(host, call);
	}
	entity->waiting_end = &entity->waiting;
	entity->waiting_count = 0;
	entity->status = AC_READY;
	entity->reload = true; /* until it leaves, nobody may use this state */
	if (!ac_entity_passivate(entity)) {
		ac_entity_settle(entity);
	}
}

static void finish(struct recovery *recovery)
{
	struct ac_entity *entity = recovery->entity;
	ac_read_done(&recovery->read);
	free(recovery);
	entity->committed = entity->seq;
	ac_count(&entity->shard->host->count.recoveries, 1);
	ac_entity_resume(entity);
}

static void page_read(struct ac_read *read)
{
	struct recovery *recovery = (struct recovery *)read;
	struct ac_entity *entity = recovery->entity;
	struct ac_host *host = entity->shard->host;
	if (entity->leaving) {
		ac_read_done(read);
		free(recovery);
		entity->status = AC_READY;
		ac_entity_settle(entity);
		return;
	}
	if (read->load.err != RT_OK) {
		give_up(recovery);
		ac_read_done(read);
		free(recovery);
		return;
	}
	size_t *last = ac_memory_account(&entity->memory);
	rt_err err = RT_OK;
	if (read->load.has_snapshot && entity->seq == 0 && !recovery->without_snapshot &&
		!restore(entity, &read->load.snapshot)) {
		start_over(recovery);
		ac_memory_account(last);
		return;
	}
	size_t cursor = 0;
	uint64_t offset;
	struct rt_bytes record;
	struct rt_errinfo info = {0};
	while (err == RT_OK && ac_read_next(read, &cursor, &offset, &record)) {
		entity->last_offset = offset;
		entity->bytes_since += record.size;
		uint64_t before = entity->seq;
		err = ac_replay(
			host, entity->type, entity->state, &entity->seq, UINT64_MAX, record, &info);
		entity->events_since += (uint32_t)(entity->seq - before);
	}
	ac_memory_account(last);
	rt_arena_reset(&host->arena);
	if (err != RT_OK) {
		ac_read_done(read);
		free(recovery);
		ac_entity_quarantine(entity, "%s", info.text);
	} else if (read->load.more) {
		uint64_t next = read->load.next_seq;
		ac_read_clear(read);
		read->load.want_snapshot = false;
		read->load.from_seq = next;
		ac_read_start(read, host);
	} else {
		finish(recovery);
	}
}

void ac_entity_load(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	const struct troupe_aggregate *aggregate = entity->aggregate;
	struct recovery *recovery = calloc(1, sizeof(*recovery));
	RT_ASSERT(recovery != NULL);
	ac_read_init(&recovery->read, entity->shard, ac_entity_pid(entity), entity->hash);
	recovery->entity = entity;
	recovery->read.done = page_read;
	recovery->read.load.want_snapshot = aggregate->restore != NULL;
	entity->events_since = 0;
	entity->bytes_since = 0;
	if (aggregate->init != NULL) {
		size_t *last = ac_memory_account(&entity->memory);
		aggregate->init(entity->state, ac_entity_id(entity));
		ac_memory_account(last);
	}
	ac_read_start(&recovery->read, host);
}
