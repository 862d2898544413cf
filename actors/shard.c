#include "actors/shard.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

#define ARENA_BLOCK (64u * 1024u)
#define ARENA_LIMIT (16u * 1024u * 1024u)
#define TRIM_TRIES  64u

rt_err ac_host_init(struct ac_host *host)
{
	rt_arena_init(&host->arena, ARENA_BLOCK, ARENA_LIMIT);
	host->allocator = (ProtobufCAllocator){.alloc = rt_arena_alloc_for,
		.free = rt_arena_free_for,
		.allocator_data = &host->arena};
	return RT_OK;
}

rt_err ac_host_read(struct ac_host *host, struct ps_job *job)
{
	return host->reader == NULL ? RT_E_CLOSED
				    : ps_reader_submit(host->reader, host->worker, job);
}

void ac_host_done(struct ac_host *host)
{
	rt_arena_done(&host->arena);
	ac_out_done(&host->out);
	ac_out_done(&host->scratch);
}

void ac_host_trim(struct ac_host *host)
{
	struct ac_entity *entity = host->coldest;
	for (uint32_t tries = 0;
		host->memory > host->memory_max && entity != NULL && tries < TRIM_TRIES; tries++) {
		struct ac_entity *next = entity->hotter;
		if (ac_entity_passivate(entity)) {
			tries = 0;
		}
		entity = next;
	}
	atomic_store_explicit(&host->count.memory, host->memory, memory_order_relaxed);
}

void ac_host_trim_idle(struct ac_host *host, uint64_t now_ms)
{
	uint32_t tries = 0;
	struct ac_entity *entity = host->coldest;
	while (entity != NULL && tries++ < 4096 &&
		entity->used_ms + host->passivate_after_ms <= now_ms) {
		struct ac_entity *next = entity->hotter;
		(void)ac_entity_passivate(entity);
		entity = next;
	}
}

void ac_shard_init(struct ac_shard *shard, struct ac_host *host, uint32_t index)
{
	*shard = (struct ac_shard){.host = host, .index = index};
	shard->first_entry = shard->last_entry = UINT32_MAX;
	shard->afters_end = &shard->afters;
	ac_dedupe_init(&shard->dedupe, PS_DEDUPE_WINDOW);
}

void ac_shard_done(struct ac_shard *shard)
{
	RT_ASSERT(shard->afters == NULL && shard->pending_count == 0);
	for (uint32_t i = 0; shard->table != NULL && i <= shard->table_mask; i++) {
		while (shard->table[i] != NULL) {
			ac_entity_free(shard->table[i]);
		}
	}
	while (shard->leaving != NULL) {
		ac_entity_free(shard->leaving);
	}
	free(shard->table);
	free(shard->pending);
	ac_dedupe_done(&shard->dedupe);
	ac_unindexed_clear(&shard->unindexed);
	shard->host = NULL;
	shard->table = NULL;
	shard->pending = NULL;
	shard->entry_count = 0;
	shard->leading = false;
}

void ac_shard_lead(struct ac_shard *shard, uint64_t term, uint64_t tail)
{
	RT_ASSERT(shard->pending_count == 0 && shard->entry_count == 0);
	RT_ASSERT(shard->entity_count == 0 && tail >= shard->committed);
	shard->term = term;
	shard->tail = tail;
	shard->committed = tail;
	shard->noted = tail;
	shard->leading = true;
	ac_after_wake(shard);
}

void ac_answer(struct ac_host *host, struct ac_call *call)
{
	host->answered(host, call);
}

void ac_answer_confirmed(struct ac_host *host, struct ac_call *call)
{
	host->answered(host, call);
}

void ac_shard_answer(struct ac_shard *shard, struct ac_call *call)
{
	struct ac_host *host = shard->host;
	bool stale = call->in.stale && call->in.kind != TROUPE__KIND__KIND_COMMAND;
	if (stale || host->confirm == NULL || host->confirm(host, shard, call)) {
		ac_answer(host, call);
	}
}

void ac_hand_back(struct ac_host *host, struct ac_call *call, uint32_t code, const char *why)
{
	if (host->moved != NULL) {
		ac_call_rewind(call);
		host->moved(host, call);
		return;
	}
	call->out.events = 0;
	ac_call_fail(call, code, "%s", why);
	ac_answer(host, call);
}

/* Persistence id of a call in `at`, which has room for PS_PID_MAX bytes. */
static struct rt_bytes pid_of(const struct ac_call *call, uint8_t *at)
{
	size_t type = call->in.type.size, id = call->in.id.size;
	memcpy(at, call->in.type.data, type);
	at[type] = '|';
	memcpy(at + type + 1, call->in.id.data, id);
	return rt_bytes_of(at, type + 1 + id);
}

static bool is_stream_call(const struct ac_call *call)
{
	return call->in.kind == TROUPE__KIND__KIND_EVENTS ||
	       call->in.kind == TROUPE__KIND__KIND_STATE;
}

static void not_served(struct ac_shard *shard, struct ac_call *call)
{
	ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "shard %u is not served here now",
		shard->index);
	ac_answer(shard->host, call);
}

void ac_shard_call(struct ac_shard *shard, struct ac_call *call)
{
	struct ac_host *host = shard->host;
	call->out.shard = shard->index;
	if (host->failed || !shard->leading) {
		not_served(shard, call);
		return;
	}
	if (call->in.after > shard->committed && ac_after_wait(shard, call, false)) {
		return;
	}
	const struct ac_type *type = ac_registry_find(host->registry, call->in.type);
	RT_ASSERT(type != NULL); /* The node looked already. */
	if (is_stream_call(call)) {
		ac_stream_call(shard, type, call);
		return;
	}
	uint8_t at[PS_PID_MAX];
	struct rt_bytes pid = pid_of(call, at);
	struct ac_entity *entity = ac_entity_find(shard, call->hash, pid);
	if (entity == NULL) {
		entity = ac_entity_get(shard, type, call);
	}
	if (entity == NULL) {
		call->out.retry_after_ms = 100;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "no memory for the entity");
		ac_answer(host, call);
		return;
	}
	ac_entity_tell(entity, call);
}

void ac_shard_read(struct ac_shard *shard, struct ac_call *call)
{
	struct ac_host *host = shard->host;
	if (shard->leading) {
		ac_shard_call(shard, call);
		return;
	}
	call->out.shard = shard->index;
	if (host->failed) {
		not_served(shard, call);
	} else if (!is_stream_call(call) && call->in.kind != TROUPE__KIND__KIND_QUERY) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST, "field stale: reads only");
		ac_answer(host, call);
	} else if (!ac_after_wait(shard, call, true)) {
		const struct ac_type *type = ac_registry_find(host->registry, call->in.type);
		RT_ASSERT(type != NULL); /* The node looked already. */
		ac_stream_call(shard, type, call);
	}
}

uint64_t ac_shard_append(
	struct ac_shard *shard, const struct ps_record *head, const struct ps_event_out *events)
{
	struct ac_host *host = shard->host;
	if (host->round == NULL) {
		host->round = ps_round_acquire(host->writer, host->worker);
		if (host->round == NULL) {
			return 0;
		}
	}
	struct ps_round *round = host->round;
	uint32_t entry;
	uint8_t *at = ps_round_add(round, shard->index, ps_record_size(head, events), &entry);
	if (at == NULL) {
		return 0;
	}
	ps_record_encode(at, head, events);
	round->entries[entry].offset = ++shard->tail;
	round->entries[entry].next = UINT32_MAX;
	if (shard->entry_count++ == 0) {
		shard->first_entry = entry;
		shard->touched_next = host->touched;
		host->touched = shard;
	} else {
		round->entries[shard->last_entry].next = entry;
	}
	shard->last_entry = entry;
	return shard->tail;
}

static void grow_pending(struct ac_shard *shard)
{
	uint32_t size = shard->pending == NULL ? 64 : (shard->pending_mask + 1) * 2;
	struct ac_pending *ring = malloc(size * sizeof(*ring));
	RT_ASSERT(ring != NULL && (shard->pending != NULL || shard->pending_count == 0));
	for (uint32_t i = 0; i < shard->pending_count; i++) {
		ring[i] = shard->pending[(shard->pending_head + i) & shard->pending_mask];
	}
	free(shard->pending);
	shard->pending = ring;
	shard->pending_head = 0;
	shard->pending_mask = size - 1;
}

void ac_shard_hold(struct ac_shard *shard, enum ac_pending_kind kind, uint64_t offset,
	struct ac_entity *entity, struct ac_call *call)
{
	if (shard->pending == NULL || shard->pending_count > shard->pending_mask) {
		grow_pending(shard);
	}
	entity->pending++;
	shard->pending[(shard->pending_head + shard->pending_count++) & shard->pending_mask] =
		(struct ac_pending){.offset = offset, .call = call, .entity = entity, .kind = kind};
}

static struct ac_pending take_pending(struct ac_shard *shard)
{
	struct ac_pending taken = shard->pending[shard->pending_head];
	shard->pending_head = (shard->pending_head + 1) & shard->pending_mask;
	shard->pending_count--;
	return taken;
}

static void forget_indexed(struct ac_shard *shard)
{
	uint64_t watermark = ps_store_index_watermark(shard->host->store, shard->index);
	ac_dedupe_prune(&shard->dedupe, watermark);
	ac_unindexed_prune(&shard->unindexed, watermark);
}

/* Of all of them before the first answer leaves: one of them may end in a drop of the shard, or in
 * another commit. */
static void note_committed(struct ac_shard *shard)
{
	for (uint32_t i = 0; i < shard->pending_count; i++) {
		const struct ac_pending *item =
			&shard->pending[(shard->pending_head + i) & shard->pending_mask];
		if (item->offset > shard->committed) {
			return;
		}
		if (item->kind == AC_PENDING_RECORD && item->offset > shard->noted) {
			ac_unindexed_add(&shard->unindexed, item->offset, item->entity->hash);
			shard->noted = item->offset;
		}
	}
}

void ac_shard_commit(struct ac_shard *shard, uint64_t upto)
{
	RT_ASSERT(shard->leading && upto >= shard->committed && upto <= shard->tail);
	shard->committed = upto;
	note_committed(shard);
	while (shard->pending_count > 0 && shard->pending[shard->pending_head].offset <= upto) {
		struct ac_pending item = take_pending(shard);
		struct ac_entity *entity = item.entity;
		switch (item.kind) {
		case AC_PENDING_RECORD:
			entity->committed = item.call->out.seq;
			if (shard->waiters != NULL) {
				ac_stream_wake(shard, entity);
			}
			ac_answer(shard->host, item.call);
			break;
		case AC_PENDING_HELD:
			ac_shard_answer(shard, item.call);
			break;
		case AC_PENDING_REPEAT:
			ac_repeat_lookup(entity, item.call, item.offset);
			break;
		}
		entity->pending--; /* not before: confirm may drop the shard */
		ac_entity_settle(entity);
	}
	ac_dedupe_prune(&shard->dedupe, ps_store_index_watermark(shard->host->store, shard->index));
	if (shard->afters != NULL) {
		ac_after_wake(shard);
	}
}

/* ---- the end of leadership ---- */
void ac_chain_add(struct ac_chain *chain, struct ac_call *call, uint32_t code)
{
	call->out.code = code;
	call->next = NULL;
	*chain->end = call;
	chain->end = &call->next;
}

static void drop_pending(struct ac_shard *shard, struct ac_chain *chain, uint64_t kept_upto,
	struct ac_chain *unknown)
{
	while (shard->pending_count > 0) {
		struct ac_pending item = take_pending(shard);
		item.entity->pending--;
		if (item.kind == AC_PENDING_RECORD && item.offset <= kept_upto) {
			ac_chain_add(unknown, item.call, TROUPE__CODE__CODE_UNKNOWN);
		} else { /* What a repeat repeats may have been written. */
			bool repeat = item.kind == AC_PENDING_REPEAT;
			ac_chain_add(chain, item.call,
				repeat ? TROUPE__CODE__CODE_UNKNOWN
				       : TROUPE__CODE__CODE_UNAVAILABLE);
		}
	}
}

static void drop_entities(struct ac_shard *shard, struct ac_chain *chain)
{
	for (uint32_t i = 0; shard->table != NULL && i <= shard->table_mask; i++) {
		while (shard->table[i] != NULL) {
			struct ac_entity *entity = shard->table[i];
			while (entity->waiting != NULL) {
				struct ac_call *call = entity->waiting;
				entity->waiting = call->next;
				ac_chain_add(chain, call, TROUPE__CODE__CODE_UNAVAILABLE);
			}
			entity->waiting_end = &entity->waiting;
			entity->waiting_count = 0;
			ac_entity_leave(entity);
		}
	}
	RT_ASSERT(shard->entity_count == 0);
}

void ac_shard_drop(struct ac_shard *shard, const char *why, uint64_t kept_upto)
{
	struct ac_host *host = shard->host;
	struct ac_chain chain = {.end = &chain.first}, unknown = {.end = &unknown.first};
	shard->leading = false;
	drop_pending(shard, &chain, kept_upto, &unknown);
	ac_stream_drop(shard, &chain);
	ac_after_drop(shard, &chain);
	drop_entities(shard, &chain);
	ac_dedupe_cut(&shard->dedupe, shard->committed + 1);
	/* Calls leave when nothing of the lost state is left, whatever that leads to. */
	for (struct ac_call *call = unknown.first, *next; call != NULL; call = next) {
		next = call->next;
		call->next = NULL;
		call->out.events = 0;
		ac_call_fail(call, TROUPE__CODE__CODE_UNKNOWN, "%s", why);
		ac_answer(host, call);
	}
	for (struct ac_call *call = chain.first, *next; call != NULL; call = next) {
		next = call->next;
		call->next = NULL;
		ac_hand_back(host, call, call->out.code, why);
	}
}

/* ---- while another one leads ---- */
void ac_shard_follow_record(struct ac_shard *shard, uint64_t offset, const struct ps_record *record)
{
	RT_ASSERT(!shard->leading);
	if (record->kind != PS_KIND_COMMAND) {
		return;
	}
	ac_unindexed_add(&shard->unindexed, offset, rt_hash(record->pid.data, record->pid.size));
	if (record->command_id.size > 0) {
		struct ac_key key = ac_key_of(record->command_id);
		ac_dedupe_add(&shard->dedupe, &key, offset);
	}
	forget_indexed(shard);
}

void ac_shard_committed(struct ac_shard *shard, uint64_t upto)
{
	RT_ASSERT(!shard->leading && upto >= shard->committed);
	shard->committed = upto;
	if (shard->afters != NULL) {
		ac_after_wake(shard);
	}
}

void ac_shard_reset(struct ac_shard *shard)
{
	RT_ASSERT(!shard->leading && shard->entity_count == 0);
	ac_dedupe_reset(&shard->dedupe);
	ac_unindexed_clear(&shard->unindexed);
	shard->resets++;
	shard->committed = 0;
	shard->tail = 0;
}
