#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "actors/reply.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

_Static_assert(PS_EVENTS_MAX >= AC_EMIT_MAX, "a record holds what a decide may emit");

/* Answers from the state: now, or behind the uncommitted records that the state rests on. */
static void answer(struct ac_entity *entity, struct ac_call *call)
{
	struct ac_shard *shard = entity->shard;
	if (entity->last_offset <= shard->committed) {
		ac_shard_answer(shard, call);
	} else {
		ac_shard_hold(shard, AC_PENDING_HELD, entity->last_offset, entity, call);
	}
}

static void defect(struct ac_entity *entity, struct ac_call *call, const char *what)
{
	ac_reply_defect(call, entity->aggregate, what);
	ac_answer(entity->shard->host, call);
}

/* Takes a snapshot of the state after the newest event, to be stored once that is committed. */
static void maybe_snapshot(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	const struct troupe_aggregate *aggregate = entity->aggregate;
	if (aggregate->save == NULL || entity->events_since < host->snapshot_every ||
		entity->bytes_since < entity->snapshot_bytes ||
		entity->snapshot.state.data != NULL) {
		return;
	}
	struct troupe_out *out = &host->scratch;
	ac_out_begin(out, aggregate);
	aggregate->save(entity->state, out);
	if (!out->has_reply || out->defect[0] != '\0') {
		rt_log(RT_LOG_ERROR, "entity", "%s: snapshot: %s", entity->pid,
			out->defect[0] != '\0' ? out->defect : "save replied nothing");
		entity->events_since = 0;
		return;
	}
	struct rt_bytes state = ac_out_piece(out, &out->reply);
	uint8_t *copy = malloc(state.size + 1);
	if (copy == NULL) {
		return;
	}
	memcpy(copy, state.data, state.size);
	entity->snapshot = (struct ps_snapshot){.seq = entity->seq,
		.offset = entity->last_offset,
		.version = aggregate->snapshot_version,
		.state = rt_bytes_of(copy, state.size)};
	entity->snapshot_bytes = (uint32_t)state.size;
	entity->events_since = 0;
	entity->bytes_since = 0;
}

/* Applies the emitted events to the state and fills `events` for the record, tags included. */
static const char *evolve_all(
	struct ac_entity *entity, uint64_t time_ms, struct ps_event_out *events)
{
	struct ac_host *host = entity->shard->host;
	const struct troupe_aggregate *aggregate = entity->aggregate;
	struct troupe_out *out = &host->out, *tags = &host->scratch;
	for (uint32_t i = 0; i < out->event_count; i++) {
		const struct ac_piece *piece = &out->events[i];
		const struct troupe_event_type *type = &aggregate->events[piece->index];
		struct rt_bytes payload = ac_out_piece(out, piece);
		events[i] = (struct ps_event_out){.manifest = rt_bytes_str(type->name),
			.version = type->version,
			.payload = payload};
		struct troupe_event event = {
			.index = piece->index, .seq = entity->seq + 1 + i, .time_ms = time_ms};
		event.message = protobuf_c_message_unpack(
			type->message, &host->allocator, payload.size, payload.data);
		if (event.message == NULL) {
			return "an emitted event cannot be read back";
		}
		if (!aggregate->evolve(entity->state, &event)) {
			return "evolve contradicts an event that decide emitted";
		}
		if (aggregate->tags == NULL) {
			continue;
		}
		ac_out_begin(tags, aggregate);
		aggregate->tags(&event, tags);
		if (tags->defect[0] != '\0') {
			return "tags";
		}
		struct rt_bytes *list =
			rt_arena_alloc(&host->arena, sizeof(*list) * (AC_TAGS_MAX + 1));
		for (uint32_t t = 0; t < tags->tag_count; t++) {
			struct rt_bytes tag = ac_out_piece(tags, &tags->tags[t]);
			list[t] = rt_bytes_of(
				rt_arena_copy(&host->arena, tag.data, tag.size), tag.size);
		}
		events[i].tags = list;
		events[i].tag_count = tags->tag_count;
	}
	return NULL;
}

/* The events are applied and go into the shard's log; the answer waits for the commit. */
static void write_events(struct ac_entity *entity, struct ac_call *call, uint64_t time_ms,
	const ProtobufCMessageDescriptor *reply)
{
	struct ac_shard *shard = entity->shard;
	struct ac_host *host = shard->host;
	struct troupe_out *out = &host->out;
	struct ps_event_out *events =
		rt_arena_alloc(&host->arena, out->event_count * sizeof(*events) + 1);
	size_t *last = ac_memory_account(&entity->memory);
	const char *wrong =
		events == NULL ? "too many events" : evolve_all(entity, time_ms, events);
	ac_memory_account(last);
	uint64_t offset = 0;
	struct ps_record head = {.term = shard->term,
		.kind = PS_KIND_COMMAND,
		.time_ms = time_ms,
		.pid = ac_entity_pid(entity),
		.first_seq = entity->seq + 1,
		.command_id = call->in.command_id,
		.event_count = out->event_count,
		.answer = out->has_reply ? ac_out_piece(out, &out->reply) : (struct rt_bytes){0}};
	if (wrong == NULL && ps_record_size(&head, events) > PS_RECORD_MAX) {
		wrong = "the record of one command is over 1 MiB";
	}
	if (wrong == NULL) {
		offset = ac_shard_append(shard, &head, events);
		wrong = offset == 0 ? "no memory for the record" : NULL;
	}
	if (wrong !=
		NULL) { /* The state is ahead of the log: read it again before the next call. */
		entity->reload = true;
		defect(entity, call, wrong);
		ac_entity_settle(entity);
		return;
	}
	struct ac_key key = ac_key_of(call->in.command_id);
	ac_dedupe_add(&shard->dedupe, &key, offset);
	entity->last_offset = offset;
	entity->seq += out->event_count;
	entity->events_since += out->event_count;
	entity->bytes_since += out->size;
	ac_count(&host->count.events, out->event_count);
	call->out.code = TROUPE__CODE__CODE_OK;
	call->out.offset = offset;
	call->out.seq = entity->seq;
	call->out.events = out->event_count;
	ac_reply_take(host, call, reply, NULL);
	ac_shard_hold(shard, AC_PENDING_RECORD, offset, entity, call);
	maybe_snapshot(entity);
}

/* Asked of the system once a millisecond. */
static uint64_t wall_ms(struct ac_host *host)
{
	uint64_t now_ms = rt_worker_now_ms(host->worker);
	if (host->wall_ms == 0 || host->wall_asked_ms != now_ms) {
		host->wall_asked_ms = now_ms;
		host->wall_ms = rt_clock_wall_ms();
	}
	return host->wall_ms;
}

static void decide(struct ac_entity *entity, struct ac_call *call)
{
	struct ac_host *host = entity->shard->host;
	int index = ac_type_command(entity->type, call->in.name);
	if (index < 0) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "%s has no command \"%.*s\"",
			entity->aggregate->name, (int)call->in.name.size,
			(const char *)call->in.name.data);
		ac_answer(host, call);
		return;
	}
	call->out.seq = entity->seq;
	if (call->in.expected != 0 && call->in.expected - 1 != entity->seq) {
		ac_call_fail(call, TROUPE__CODE__CODE_CONFLICT,
			"expected sequence number %" PRIu64 ", it is %" PRIu64,
			call->in.expected - 1, entity->seq);
		answer(entity, call);
		return;
	}
	const struct troupe_command_type *type = &entity->aggregate->commands[index];
	ProtobufCMessage *message = ac_payload_read(host, call, type->message);
	if (message == NULL) {
		ac_answer(host, call);
		return;
	}
	struct troupe_command command = {.message = message,
		.index = (uint32_t)index,
		.entity_id = ac_entity_id(entity),
		.command_id = call->in.command_id.data,
		.command_id_size = call->in.command_id.size,
		.time_ms = wall_ms(host),
		.random = rt_hash_mix(entity->hash ^
				      rt_hash(call->in.command_id.data, call->in.command_id.size))};
	ac_out_begin(&host->out, entity->aggregate);
	bool accepted = entity->aggregate->decide(entity->state, &command, &host->out);
	if (host->out.defect[0] != '\0') {
		defect(entity, call, host->out.defect);
	} else if (!accepted || host->out.refused) {
		ac_count(&host->count.refused, 1);
		ac_reply_take(host, call, type->reply,
			host->out.refusal[0] != '\0' ? host->out.refusal : "refused");
		answer(entity, call);
	} else if (host->out.event_count == 0) {
		ac_reply_take(host, call, type->reply, NULL);
		answer(entity, call);
	} else {
		write_events(entity, call, command.time_ms, type->reply);
	}
}

/* A command id that was seen gets its first answer; true: this call is taken care of. */
static bool is_repeat(struct ac_entity *entity, struct ac_call *call)
{
	struct ac_shard *shard = entity->shard;
	struct ac_key key = ac_key_of(call->in.command_id);
	uint64_t offset = 0;
	bool looked = call->out.repeated;
	call->out.repeated = false;
	switch (ac_dedupe_find(&shard->dedupe, &key, &offset)) {
	case AC_SEEN_NEVER:
		return false;
	case AC_SEEN_RECENT:
		if (offset > shard->committed) {
			ac_shard_hold(shard, AC_PENDING_REPEAT, offset, entity, call);
		} else {
			ac_repeat_lookup(entity, call, offset);
		}
		return true;
	case AC_SEEN_PERHAPS:
		if (looked) { /* The disk was asked and has it not. */
			return false;
		}
		ac_repeat_lookup(entity, call, 0);
		return true;
	}
	return false;
}

static void query(struct ac_entity *entity, struct ac_call *call)
{
	struct ac_host *host = entity->shard->host;
	if (ac_query(host, entity->type, entity->state, entity->seq, call)) {
		answer(entity, call);
	} else {
		ac_answer(host, call);
	}
}

void ac_entity_handle(struct ac_entity *entity, struct ac_call *call)
{
	struct ac_host *host = entity->shard->host;
	if (call->deadline_ms != 0 && rt_worker_now_ms(host->worker) > call->deadline_ms) {
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE,
			"the deadline passed before it ran; nothing was written");
		ac_answer(host, call);
		return;
	}
	call->out.code = TROUPE__CODE__CODE_OK;
	if (call->in.kind == TROUPE__KIND__KIND_QUERY) {
		query(entity, call);
	} else {
		ac_count(&host->count.commands, 1);
		if (is_repeat(entity, call)) {
			/* Taken care of. */
		} else if (host->read_only) {
			call->out.retry_after_ms = 1000;
			ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE,
				"disk space is low: the node only reads; nothing was written");
			ac_answer(host, call);
		} else {
			decide(entity, call);
		}
	}
	rt_arena_reset(&host->arena);
}
