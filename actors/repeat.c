#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"

struct repeat {
	struct ps_lookup lookup; /* first */
	struct ac_entity *entity;
	struct ac_call *call;
	bool paused; /* the entity waits for the result */
};

/* The record's answer, as the first caller got it. */
static void answer_from(struct repeat *repeat, const struct ps_record *record)
{
	struct ac_entity *entity = repeat->entity;
	struct ac_call *call = repeat->call;
	struct ac_host *host = entity->shard->host;
	if (!rt_bytes_equal(record->pid, ac_entity_pid(entity)) ||
		!rt_bytes_equal(record->command_id, call->in.command_id)) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
			"command id was used before, for %.*s", (int)record->pid.size,
			(const char *)record->pid.data);
		return;
	}
	call->out.code = TROUPE__CODE__CODE_OK;
	call->out.repeated = true;
	call->out.offset = repeat->lookup.offset;
	call->out.events = record->event_count;
	call->out.seq = record->first_seq + record->event_count - 1;
	struct rt_bytes payload = record->answer;
	struct pr_text text = {0};
	int index = ac_type_command(entity->type, call->in.name);
	const ProtobufCMessageDescriptor *reply =
		index < 0 ? NULL : entity->aggregate->commands[index].reply;
	if (call->in.json && reply != NULL && pr_json_print(reply, payload, &text, NULL) == RT_OK) {
		payload = rt_bytes_of(text.data, text.size);
	}
	ac_call_payload(call, payload);
	pr_text_clear(&text);
	ac_count(&host->count.repeated, 1);
}

/* First in line again, and known to be new. */
static void handle_new(struct ac_entity *entity, struct ac_call *call)
{
	call->out.repeated = true;
	call->next = entity->waiting;
	if (entity->waiting == NULL) {
		entity->waiting_end = &call->next;
	}
	entity->waiting = call;
	entity->waiting_count++;
}

static void looked_up(struct ps_job *job)
{
	struct repeat *repeat = (struct repeat *)job;
	struct ac_entity *entity = repeat->entity;
	struct ac_call *call = repeat->call;
	struct ac_host *host = entity->shard->host;
	bool paused = repeat->paused;
	struct ps_record record;
	if (repeat->lookup.err == RT_OK && repeat->lookup.found &&
		ps_record_decode(repeat->lookup.record, &record) == RT_OK) {
		/* Committed, so it is the answer whoever leads by now. */
		answer_from(repeat, &record);
		ac_answer(host, call);
	} else if (entity->leaving) {
		ac_hand_back(host, call, TROUPE__CODE__CODE_UNKNOWN,
			"the shard is no longer served here");
	} else if (repeat->lookup.err == RT_OK && !repeat->lookup.found) {
		RT_ASSERT(paused); /* A committed record does not go while the shard is led. */
		handle_new(entity, call);
	} else {
		ac_call_fail(call, TROUPE__CODE__CODE_UNKNOWN,
			"the first answer cannot be read: %s", repeat->lookup.info.text);
		ac_answer(host, call);
	}
	ps_lookup_clear(&repeat->lookup);
	free(repeat);
	entity->pending--;
	if (paused && !entity->leaving) {
		ac_entity_resume(entity);
	} else {
		ac_entity_settle(entity);
	}
}

static void work(struct ps_job *job, struct ps_store *store)
{
	ps_lookup_run((struct ps_lookup *)job, store);
}

void ac_repeat_lookup(struct ac_entity *entity, struct ac_call *call, uint64_t offset)
{
	struct ac_host *host = entity->shard->host;
	struct repeat *repeat = calloc(1, sizeof(*repeat));
	RT_ASSERT(repeat != NULL);
	repeat->entity = entity;
	repeat->call = call;
	repeat->paused = offset == 0;
	repeat->lookup.shard = entity->shard->index;
	repeat->lookup.offset = offset;
	repeat->lookup.id_size = (uint8_t)call->in.command_id.size;
	memcpy(repeat->lookup.id, call->in.command_id.data, call->in.command_id.size);
	repeat->lookup.job.work = work;
	repeat->lookup.job.done = looked_up;
	if (ac_host_read(host, &repeat->lookup.job) != RT_OK) {
		free(repeat);
		call->out.retry_after_ms = 50;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "too many reads wait");
		ac_answer(host, call);
		return;
	}
	entity->pending++;
	if (repeat->paused) {
		entity->status = AC_PAUSED;
	}
}
