/* Reads of one entity's stream: KIND_EVENTS, with long poll, KIND_STATE and, on a shard that does
 * not lead, KIND_QUERY. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "actors/page.h"
#include "actors/read.h"
#include "actors/reply.h"
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
	uint64_t term; /* of the shard when it started; what came before is not known by now */
	uint32_t resets;
	bool stale;         /* served by a shard that does not lead */
	bool waiting, wake; /* wake: an event came while it was reading */
	struct rt_timer timer;
	struct ac_waiter *next;
	/* KIND_STATE, KIND_QUERY */
	void *state;
	uint64_t seq;
	bool without_snapshot; /* it was tried, or is not wanted */
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

static void clear_state(struct ac_waiter *waiter)
{
	const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
	if (waiter->state != NULL && aggregate->done != NULL) {
		aggregate->done(waiter->state);
	}
	free(waiter->state);
	waiter->state = NULL;
}

static void make_state(struct ac_waiter *waiter)
{
	const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
	clear_state(waiter);
	waiter->seq = 0;
	waiter->state = calloc(1, aggregate->state_size);
	RT_ASSERT(waiter->state != NULL);
	if (aggregate->init != NULL) {
		char id[PR_ID_MAX + 1] = {0};
		memcpy(id, waiter->call->in.id.data, waiter->call->in.id.size);
		aggregate->init(waiter->state, id);
	}
}

/* The call is the caller's. */
static struct ac_call *end(struct ac_waiter *waiter)
{
	struct ac_call *call = waiter->call;
	unlink_waiter(waiter);
	rt_timer_stop(waiter->shard->host->worker, &waiter->timer);
	ac_read_done(&waiter->read);
	ac_page_done(&waiter->page);
	clear_state(waiter);
	free(waiter);
	return call;
}

static void fail(struct ac_waiter *waiter, uint32_t code, const char *text)
{
	struct ac_host *host = waiter->shard->host;
	ac_call_fail(waiter->call, code, "%s", text);
	ac_answer(host, end(waiter));
}

/* The answer shows what the entity is, or was when the caller wants no more than that. */
static void finish(struct ac_waiter *waiter)
{
	struct ac_shard *shard = waiter->shard;
	if (waiter->stale) {
		ac_answer(shard->host, end(waiter));
	} else {
		ac_shard_answer(shard, end(waiter));
	}
}

static void finish_events(struct ac_waiter *waiter)
{
	waiter->call->out.code = TROUPE__CODE__CODE_OK;
	ac_page_answer(&waiter->page, waiter->call);
	finish(waiter);
}

/* The shard was dropped while it was read: what was read may be older than what another leader has
 * answered since, even if this one leads again. Or its log went, and with it what a stale read was
 * to include. True: the call is gone. */
static bool is_overtaken(struct ac_waiter *waiter)
{
	struct ac_shard *shard = waiter->shard;
	bool same = waiter->resets == shard->resets;
	if (waiter->stale ? same : shard->leading && shard->term == waiter->term) {
		return false;
	}
	ac_hand_back(shard->host, end(waiter), TROUPE__CODE__CODE_UNAVAILABLE,
		"the shard is no longer served here");
	return true;
}

/* The store could not be read. */
static void fail_read(struct ac_waiter *waiter)
{
	waiter->call->out.retry_after_ms = 100;
	fail(waiter, TROUPE__CODE__CODE_UNAVAILABLE, waiter->read.load.info.text);
}

static uint64_t now_ms(void)
{
	return rt_clock_now_ns() / 1000000;
}

static void events_read(struct ac_read *read)
{
	struct ac_waiter *waiter = (struct ac_waiter *)read;
	struct ac_host *host = waiter->shard->host;
	if (is_overtaken(waiter)) {
		return;
	}
	if (read->load.err != RT_OK) {
		fail_read(waiter);
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
	if (waiter->page.count > 0 || waited >= waiter->wait_ms || waiter->stale) {
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

void ac_stream_drop(struct ac_shard *shard, struct ac_chain *chain)
{
	for (struct ac_waiter *waiter = shard->waiters, *next; waiter != NULL; waiter = next) {
		next = waiter->next;
		if (waiter->waiting) {
			ac_chain_add(chain, end(waiter), TROUPE__CODE__CODE_UNAVAILABLE);
		}
	}
}

void ac_stream_cut(struct ac_shard *shard, const char *why)
{
	struct ac_chain chain = {.end = &chain.first};
	ac_stream_drop(shard, &chain);
	ac_after_drop(shard, &chain);
	for (struct ac_call *call = chain.first, *next; call != NULL; call = next) {
		next = call->next;
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "%s", why);
		ac_answer(shard->host, call);
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
	finish(waiter);
}

static void answer_query(struct ac_waiter *waiter)
{
	struct ac_host *host = waiter->shard->host;
	(void)ac_query(host, waiter->type, waiter->state, waiter->seq, waiter->call);
	rt_arena_reset(&host->arena);
	finish(waiter);
}

static void not_found(struct ac_waiter *waiter)
{
	struct ac_call *call = waiter->call;
	call->out.seq = waiter->seq;
	if (waiter->seq == 0) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "the entity has no events");
	} else {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND,
			"the entity is at sequence number %" PRIu64, waiter->seq);
	}
	finish(waiter);
}

/* False: the snapshot was of no use, and everything is read anew. */
static bool use_snapshot(struct ac_waiter *waiter)
{
	struct ac_read *read = &waiter->read;
	const struct troupe_aggregate *aggregate = ac_type_aggregate(waiter->type);
	if (waiter->without_snapshot || !read->load.has_snapshot) {
		return true;
	}
	waiter->without_snapshot = true;
	if (ac_restore(waiter->shard->host, aggregate, waiter->state, &read->load.snapshot)) {
		waiter->seq = read->load.snapshot.seq;
		return true;
	}
	make_state(waiter);
	ac_read_clear(read);
	read->load.want_snapshot = false;
	read->load.from_seq = 1;
	ac_read_start(read, waiter->shard->host);
	return false;
}

static void state_read(struct ac_read *read)
{
	struct ac_waiter *waiter = (struct ac_waiter *)read;
	struct ac_host *host = waiter->shard->host;
	if (is_overtaken(waiter)) {
		return;
	}
	if (read->load.err != RT_OK) {
		fail_read(waiter);
		return;
	}
	if (!use_snapshot(waiter)) {
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
		read->load.want_snapshot = false;
		read->load.from_seq = next;
		ac_read_start(read, host);
	} else if (waiter->call->in.kind == TROUPE__KIND__KIND_QUERY) {
		answer_query(waiter);
	} else if (waiter->seq == 0 ||
		   (waiter->upto_seq != UINT64_MAX && waiter->seq < waiter->upto_seq)) {
		not_found(waiter);
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
	waiter->term = shard->term;
	waiter->resets = shard->resets;
	ac_read_done(&waiter->read);
	ac_read_init(&waiter->read, shard, pid, call->hash);
	bool events = call->in.kind == TROUPE__KIND__KIND_EVENTS;
	waiter->read.done = events ? events_read : state_read;
	waiter->read.load.from_seq = events ? waiter->from_seq : 1;
	waiter->read.load.upto_seq = waiter->upto_seq;
	waiter->read.load.want_snapshot = !events && !waiter->without_snapshot;
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
	waiter->without_snapshot = true;
	make_state(waiter);
	return NULL;
}

static const char *read_query_request(struct ac_waiter *waiter)
{
	waiter->upto_seq = UINT64_MAX;
	waiter->without_snapshot = ac_type_aggregate(waiter->type)->restore == NULL;
	make_state(waiter);
	return NULL;
}

static const char *read_request(struct ac_waiter *waiter)
{
	switch (waiter->call->in.kind) {
	case TROUPE__KIND__KIND_EVENTS:
		return read_events_request(waiter);
	case TROUPE__KIND__KIND_STATE:
		return read_state_request(waiter);
	default:
		return read_query_request(waiter);
	}
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
	waiter->stale = !shard->leading;
	const char *wrong = read_request(waiter);
	if (wrong != NULL) {
		fail(waiter, TROUPE__CODE__CODE_BAD_REQUEST, wrong);
		return;
	}
	waiter->next = shard->waiters;
	shard->waiters = waiter;
	start(waiter);
}
