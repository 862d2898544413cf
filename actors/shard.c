#include "actors/shard.h"

#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
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
	ac_dedupe_init(&shard->dedupe, PS_DEDUPE_WINDOW);
}

void ac_shard_done(struct ac_shard *shard)
{
	for (uint32_t i = 0; shard->table != NULL && i <= shard->table_mask; i++) {
		while (shard->table[i] != NULL) {
			ac_entity_free(shard->table[i]);
		}
	}
	free(shard->table);
	free(shard->pending);
	ac_dedupe_done(&shard->dedupe);
	*shard = (struct ac_shard){0};
}

void ac_shard_lead(struct ac_shard *shard, uint64_t term, uint64_t tail)
{
	RT_ASSERT(shard->pending_count == 0 && shard->entry_count == 0);
	shard->term = term;
	shard->tail = tail;
	shard->committed = tail;
	shard->leading = true;
}

void ac_answer(struct ac_host *host, struct ac_call *call)
{
	host->answered(host, call);
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

void ac_shard_call(struct ac_shard *shard, struct ac_call *call)
{
	struct ac_host *host = shard->host;
	call->out.shard = shard->index;
	if (host->failed || !shard->leading) {
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE,
			"shard %u is not served here now", shard->index);
		ac_answer(host, call);
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

void ac_shard_commit(struct ac_shard *shard, uint64_t upto)
{
	RT_ASSERT(upto >= shard->committed && upto <= shard->tail);
	shard->committed = upto;
	while (shard->pending_count > 0 && shard->pending[shard->pending_head].offset <= upto) {
		struct ac_pending item = take_pending(shard);
		struct ac_entity *entity = item.entity;
		entity->pending--;
		if (item.kind == AC_PENDING_REPEAT) {
			ac_repeat_lookup(entity, item.call, item.offset);
			continue;
		}
		if (item.kind == AC_PENDING_RECORD) {
			entity->committed = item.call->out.seq;
			if (shard->waiters != NULL) {
				ac_stream_wake(shard, entity);
			}
		}
		ac_answer(shard->host, item.call);
		ac_entity_settle(entity);
	}
	ac_dedupe_prune(&shard->dedupe, ps_store_index_watermark(shard->host->store, shard->index));
}

void ac_shard_drop(struct ac_shard *shard, const char *why)
{
	struct ac_host *host = shard->host;
	shard->leading = false;
	while (shard->pending_count > 0) {
		struct ac_pending item = take_pending(shard);
		item.entity->pending--;
		item.call->out.events = 0;
		bool unknown = item.kind != AC_PENDING_HELD;
		ac_call_fail(item.call,
			unknown ? TROUPE__CODE__CODE_UNKNOWN : TROUPE__CODE__CODE_UNAVAILABLE, "%s",
			why);
		ac_answer(host, item.call);
	}
	ac_stream_drop(shard, why);
	for (uint32_t i = 0; shard->table != NULL && i <= shard->table_mask; i++) {
		for (struct ac_entity *e = shard->table[i]; e != NULL; e = e->chain) {
			while (e->waiting != NULL) {
				struct ac_call *call = e->waiting;
				e->waiting = call->next;
				ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "%s", why);
				ac_answer(host, call);
			}
			e->waiting_end = &e->waiting;
			e->waiting_count = 0;
			e->reload = true;
		}
	}
}
