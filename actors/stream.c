/* Reads of one entity's stream: KIND_EVENTS, with long poll, and KIND_STATE. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "actors/page.h"
#include "actors/read.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"

#define WAIT_MAX_MS 60000u

/* One stream request under way; while it waits for an event it stands in the shard's list. */
struct ac_waiter {
	struct ac_read read; /* first */
	struct ac_shard *shard;
	const struct ac_type *type;
	struct ac_call *call;
	struct ac_page page;
	uint64_t from_seq, upto_seq;
	uint32_t limit, wait_ms;
	uint64_t started_ms;
	bool waiting, wake; /* wake: an event came while it was reading */
	struct rt_timer timer;
	struct ac_waiter *next;
	/* KIND_STATE */
	void *state;
	uint64_t seq;
	bool has_snapshot;
};

static void start(struct ac_waiter *waiter);

static void unlink_waiter(struct ac_waiter *waiter)
{
	struct ac_waiter **slot = &waiter->shard->waiters;
	while (*slot != NULL && *slot != waiter) {
		slot = &(*slot)->next;
	}
	if (*slot == waiter) {
		*slot = waiter->next;
	}
}

static void free_state(struct ac_waiter *waiter)
{
	if (waiter->state != NULL) {
		const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
		if (aggregate->done != NULL) {
			aggregate->done(waiter->state);
		}
		free(waiter->state);
	}
}

static void end(struct ac_waiter *waiter)
{
	struct ac_host *host = waiter->shard->host;
	unlink_waiter(waiter);
	rt_timer_stop(host->worker, &waiter->timer);
	ac_read_done(&waiter->read);
	ac_page_done(&waiter->page);
	free_state(waiter);
	ac_answer(host, waiter->call);
	free(waiter);
}

static void fail(struct ac_waiter *waiter, uint32_t code, const char *text)
{
	ac_call_fail(waiter->call, code, "%s", text);
	end(waiter);
}

static void finish_events(struct ac_waiter *waiter)
{
	waiter->call->out.code = TROUPE__CODE__CODE_OK;
	ac_page_answer(&waiter->page, waiter->call);
	end(waiter);
}

static uint64_t now_ms(void)
{
	return rt_clock_now_ns() / 1000000;
}

static void events_read(struct ac_read *read)
{
	struct ac_waiter *waiter = (struct ac_waiter *)read;
	struct ac_host *host = waiter->shard->host;
	if (read->load.err != RT_OK) {
		fail(waiter, TROUPE__CODE__CODE_UNAVAILABLE, read->load.info.text);
		return;
	}
	size_t cursor = 0;
	uint64_t offset;
	struct rt_bytes record;
	bool room = true;
	while (room && ac_read_next(read, &cursor, &offset, &record)) {
		struct ac_page_row row = {
			.shard = waiter->shard->index, .offset = offset, .record = record};
		room = ac_page_add(&waiter->page, host, &row, &waiter->page.next_seq);
	}
	if (room && read->load.more) {
		uint64_t next = read->load.next_seq;
		ac_read_clear(read);
		read->load.from_seq = next;
		ac_read_start(read, host);
		return;
	}
	waiter->page.more = !room;
	uint64_t waited = now_ms() - waiter->started_ms;
	if (waiter->page.count > 0 || waited >= waiter->wait_ms || !waiter->shard->leading) {
		finish_events(waiter);
	} else if (waiter->wake) {
		start(waiter);
	} else {
		waiter->waiting = true;
		rt_timer_start(host->worker, &waiter->timer, waiter->wait_ms - waited);
	}
}

static void time_is_up(struct rt_worker *worker, struct rt_timer *timer)
{
	(void)worker;
	struct ac_waiter *waiter = RT_CONTAINER(timer, struct ac_waiter, timer);
	finish_events(waiter);
}

void ac_stream_wake(struct ac_shard *shard, const struct ac_entity *entity)
{
	for (struct ac_waiter *waiter = shard->waiters, *next; waiter != NULL; waiter = next) {
		next = waiter->next;
		if (rt_bytes_equal(waiter->read.load.pid, ac_entity_pid(entity))) {
			waiter->wake = true;
			if (waiter->waiting) {
				start(waiter);
			}
		}
	}
}

void ac_stream_drop(struct ac_shard *shard, const char *why)
{
	for (struct ac_waiter *waiter = shard->waiters, *next; waiter != NULL; waiter = next) {
		next = waiter->next;
		if (waiter->waiting) {
			fail(waiter, TROUPE__CODE__CODE_UNAVAILABLE, why);
		}
	}
}

/* The state as JSON, from the snapshot message of the aggregate. */
static void answer_state(struct ac_waiter *waiter)
{
	struct ac_host *host = waiter->shard->host;
	const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
	struct ac_call *call = waiter->call;
	ac_out_begin(&host->out, aggregate);
	aggregate->save(waiter->state, &host->out);
	struct pr_text text = {0};
	pr_text_str(&text, "{\"type\":");
	pr_text_json_string(&text, call->in.type);
	pr_text_str(&text, ",\"id\":");
	pr_text_json_string(&text, call->in.id);
	pr_text_printf(&text, ",\"seq\":%" PRIu64 ",\"state\":", waiter->seq);
	rt_err err = pr_json_print(
		aggregate->snapshot, ac_out_piece(&host->out, &host->out.reply), &text, NULL);
	pr_text_str(&text, "}");
	if (err != RT_OK || text.failed) {
		pr_text_clear(&text);
		fail(waiter, TROUPE__CODE__CODE_INTERNAL, "the state cannot be shown");
		return;
	}
	call->out.code = TROUPE__CODE__CODE_OK;
	call->out.seq = waiter->seq;
	ac_call_payload_take(call, (uint8_t *)text.data, text.size);
	end(waiter);
}

static void state_read(struct ac_read *read)
{
	struct ac_waiter *waiter = (struct ac_waiter *)read;
	struct ac_host *host = waiter->shard->host;
	if (read->load.err != RT_OK) {
		fail(waiter, TROUPE__CODE__CODE_UNAVAILABLE, read->load.info.text);
		return;
	}
	size_t cursor = 0;
	uint64_t offset;
	struct rt_bytes record;
	struct rt_errinfo info = {0};
	rt_err err = RT_OK;
	while (err == RT_OK && ac_read_next(read, &cursor, &offset, &record)) {
		err = ac_replay(host, waiter->type, waiter->state, &waiter->seq, waiter->upto_seq,
			record, &info);
	}
	rt_arena_reset(&host->arena);
	if (err != RT_OK) {
		fail(waiter, TROUPE__CODE__CODE_QUARANTINED, info.text);
	} else if (read->load.more && waiter->seq < waiter->upto_seq) {
		uint64_t next = read->load.next_seq;
		ac_read_clear(read);
		read->load.from_seq = next;
		ac_read_start(read, host);
	} else if (waiter->seq == 0) {
		fail(waiter, TROUPE__CODE__CODE_NOT_FOUND, "the entity has no events");
	} else if (waiter->upto_seq != UINT64_MAX && waiter->seq < waiter->upto_seq) {
		ac_call_fail(waiter->call, TROUPE__CODE__CODE_NOT_FOUND,
			"the entity is at sequence number %" PRIu64, waiter->seq);
		waiter->call->out.seq = waiter->seq;
		end(waiter);
	} else {
		answer_state(waiter);
	}
}

/* (Re)starts reading at from_seq, with what the entity in memory knows now. */
static void start(struct ac_waiter *waiter)
{
	struct ac_shard *shard = waiter->shard;
	struct ac_call *call = waiter->call;
	uint8_t at[PS_PID_MAX];
	size_t size = call->in.type.size;
	memcpy(at, call->in.type.data, size);
	at[size++] = '|';
	memcpy(at + size, call->in.id.data, call->in.id.size);
	struct rt_bytes pid = rt_bytes_of(at, size + call->in.id.size);
	rt_timer_stop(shard->host->worker, &waiter->timer);
	waiter->waiting = false;
	waiter->wake = false;
	ac_read_done(&waiter->read);
	ac_read_init(&waiter->read, shard, pid, ac_entity_find(shard, call->hash, pid));
	bool events = call->in.kind == TROUPE__KIND__KIND_EVENTS;
	waiter->read.done = events ? events_read : state_read;
	waiter->read.load.from_seq = events ? waiter->from_seq : 1;
	waiter->read.load.upto_seq = waiter->upto_seq;
	ac_read_start(&waiter->read, shard->host);
}

static const char *read_events_request(struct ac_waiter *waiter)
{
	Troupe__ReadEvents *request = NULL;
	struct rt_bytes payload = waiter->call->in.payload;
	if (pr_guard_check(&troupe__read_events__descriptor, payload, NULL) == RT_OK) {
		request = troupe__read_events__unpack(NULL, payload.size, payload.data);
	}
	if (request == NULL) {
		return "payload is not a ReadEvents";
	}
	waiter->from_seq = request->from_seq == 0 ? 1 : request->from_seq;
	waiter->limit = request->limit;
	waiter->wait_ms = request->wait_ms < WAIT_MAX_MS ? request->wait_ms : WAIT_MAX_MS;
	waiter->upto_seq = UINT64_MAX;
	troupe__read_events__free_unpacked(request, NULL);
	ac_page_init(&waiter->page, waiter->call->in.json, waiter->limit);
	waiter->page.next_seq = waiter->from_seq;
	return NULL;
}

static const char *read_state_request(struct ac_waiter *waiter)
{
	const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
	if (aggregate->save == NULL) {
		return "this aggregate has no snapshot message, so its state cannot be shown";
	}
	Troupe__ReadState *request = NULL;
	struct rt_bytes payload = waiter->call->in.payload;
	if (pr_guard_check(&troupe__read_state__descriptor, payload, NULL) == RT_OK) {
		request = troupe__read_state__unpack(NULL, payload.size, payload.data);
	}
	if (request == NULL) {
		return "payload is not a ReadState";
	}
	waiter->upto_seq = request->at_seq == 0 ? UINT64_MAX : request->at_seq;
	troupe__read_state__free_unpacked(request, NULL);
	waiter->state = calloc(1, aggregate->state_size);
	RT_ASSERT(waiter->state != NULL);
	if (aggregate->init != NULL) {
		char id[PR_ID_MAX + 1] = {0};
		memcpy(id, waiter->call->in.id.data, waiter->call->in.id.size);
		aggregate->init(waiter->state, id);
	}
	return NULL;
}

void ac_stream_call(struct ac_shard *shard, const struct ac_type *type, struct ac_call *call)
{
	struct ac_waiter *waiter = calloc(1, sizeof(*waiter));
	RT_ASSERT(waiter != NULL);
	waiter->shard = shard;
	waiter->type = type;
	waiter->call = call;
	waiter->started_ms = now_ms();
	rt_timer_init(&waiter->timer, time_is_up);
	const char *wrong = call->in.kind == TROUPE__KIND__KIND_EVENTS ? read_events_request(waiter)
								       : read_state_request(waiter);
	if (wrong != NULL) {
		fail(waiter, TROUPE__CODE__CODE_BAD_REQUEST, wrong);
		return;
	}
	waiter->next = shard->waiters;
	shard->waiters = waiter;
	start(waiter);
}
