#include "actors/entity.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/log.h"

#define ACTOR_BYTES 160u /* what the scheduler keeps for it */

static enum rt_turn turn(struct rt_actor *self, struct rt_envelope *env);
static rt_err started(struct rt_actor *self, void *arg);

/* A failed turn leaves the entity as it is: what failed is one command, and its caller knows. */
static const struct rt_behaviour behaviour = {
	.name = "entity",
	.turn = turn,
	.started = started,
	.state_size = sizeof(struct ac_entity *),
	.mailbox_cap = AC_WAITING_MAX,
	.supervision = {.policy = RT_POLICY_RESUME},
};

static rt_err started(struct rt_actor *self, void *arg)
{
	*(struct ac_entity **)rt_actor_state(self) = arg;
	return RT_OK;
}

static void wait_for_state(struct ac_entity *entity, struct ac_call *call)
{
	if (entity->waiting_count == AC_WAITING_MAX) {
		call->out.retry_after_ms = 20;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "%u calls wait for this entity already",
			AC_WAITING_MAX);
		ac_answer(entity->shard->host, call);
		return;
	}
	call->next = NULL;
	*entity->waiting_end = call;
	entity->waiting_end = &call->next;
	entity->waiting_count++;
}

static void take(struct ac_entity *entity, struct ac_call *call)
{
	if (entity->leaving) {
		ac_hand_back(entity->shard->host, call, TROUPE__CODE__CODE_UNAVAILABLE,
			"the shard is no longer served here");
		return;
	}
	switch (entity->status) {
	case AC_READY:
		if (entity->reload) {
			wait_for_state(entity, call);
		} else {
			ac_entity_handle(entity, call);
		}
		return;
	case AC_LOADING:
	case AC_PAUSED:
		wait_for_state(entity, call);
		return;
	case AC_QUARANTINED:
		ac_call_fail(call, TROUPE__CODE__CODE_QUARANTINED, "%s", entity->reason);
		ac_answer(entity->shard->host, call);
		return;
	}
}

static enum rt_turn turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct ac_entity *entity = *(struct ac_entity **)rt_actor_state(self);
	struct ac_call *call;
	memcpy(&call, env->body.bytes, sizeof(call));
	ac_entity_touch(entity);
	take(entity, call);
	entity->queued--; /* not before: the shard may be dropped meanwhile */
	if (entity->leaving) {
		ac_entity_settle(entity);
	}
	return RT_DONE;
}

void ac_entity_tell(struct ac_entity *entity, struct ac_call *call)
{
	rt_err err = rt_worker_tell(entity->shard->host->worker, entity->actor,
		TROUPE__KIND__KIND_COMMAND, &call, sizeof(call));
	if (err == RT_OK) {
		entity->queued++;
		return;
	}
	call->out.retry_after_ms = 20;
	ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "the entity's mailbox is full");
	ac_answer(entity->shard->host, call);
}

/* ---- order of use ---- */
static void unlink_use(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	*(entity->colder ? &entity->colder->hotter : &host->coldest) = entity->hotter;
	*(entity->hotter ? &entity->hotter->colder : &host->hottest) = entity->colder;
	entity->colder = entity->hotter = NULL;
}

static void link_hottest(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	entity->colder = host->hottest;
	entity->hotter = NULL;
	*(host->hottest ? &host->hottest->hotter : &host->coldest) = entity;
	host->hottest = entity;
}

void ac_entity_touch(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	entity->used_ms = rt_worker_now_ms(host->worker);
	if (host->hottest != entity) {
		unlink_use(entity);
		link_hottest(entity);
	}
}

/* Brings the host's sum up to date with what the entity's state takes now. */
static void count_memory(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	host->memory += entity->memory - entity->counted;
	entity->counted = entity->memory;
}

/* ---- table ---- */
struct ac_entity *ac_entity_find(const struct ac_shard *shard, uint64_t hash, struct rt_bytes pid)
{
	if (shard->table == NULL) {
		return NULL;
	}
	struct ac_entity *entity = shard->table[(hash >> 8) & shard->table_mask];
	while (entity != NULL &&
		(entity->hash != hash || !rt_bytes_equal(ac_entity_pid(entity), pid))) {
		entity = entity->chain;
	}
	return entity;
}

static bool grow_table(struct ac_shard *shard)
{
	uint32_t size = shard->table == NULL ? 64 : (shard->table_mask + 1) * 2;
	struct ac_entity **table = calloc(size, sizeof(struct ac_entity *));
	if (table == NULL) {
		return false;
	}
	for (uint32_t i = 0; shard->table != NULL && i <= shard->table_mask; i++) {
		for (struct ac_entity *e = shard->table[i], *next; e != NULL; e = next) {
			next = e->chain;
			struct ac_entity **slot = &table[(e->hash >> 8) & (size - 1)];
			e->chain = *slot;
			*slot = e;
		}
	}
	free(shard->table);
	shard->table = table;
	shard->table_mask = size - 1;
	return true;
}

static void remove_from_table(struct ac_entity *entity)
{
	struct ac_shard *shard = entity->shard;
	struct ac_entity **slot = &shard->table[(entity->hash >> 8) & shard->table_mask];
	while (*slot != entity) {
		slot = &(*slot)->chain;
	}
	*slot = entity->chain;
	shard->entity_count--;
}

static void remove_from_leaving(struct ac_entity *entity)
{
	struct ac_shard *shard = entity->shard;
	*(entity->chain_before ? &entity->chain_before->chain : &shard->leaving) = entity->chain;
	if (entity->chain != NULL) {
		entity->chain->chain_before = entity->chain_before;
	}
}

static void remove_from_quarantined(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	struct ac_entity **slot = &host->quarantined;
	while (*slot != entity) {
		slot = &(*slot)->next_quarantined;
	}
	*slot = entity->next_quarantined;
	ac_uncount(&host->count.quarantined);
}

static void fill(struct ac_entity *entity, struct ac_shard *shard, const struct ac_type *type,
	const struct ac_call *call)
{
	const struct troupe_aggregate *aggregate = ac_type_aggregate(type);
	size_t type_size = call->in.type.size, id_size = call->in.id.size;
	entity->shard = shard;
	entity->type = type;
	entity->aggregate = aggregate;
	entity->hash = call->hash;
	entity->status = AC_LOADING;
	entity->waiting_end = &entity->waiting;
	entity->pid_size = (uint16_t)(type_size + 1 + id_size);
	memcpy(entity->pid, call->in.type.data, type_size);
	entity->pid[type_size] = '|';
	memcpy(entity->pid + type_size + 1, call->in.id.data, id_size);
	entity->memory = sizeof(*entity) + entity->pid_size + ACTOR_BYTES + aggregate->state_size;
}

struct ac_entity *ac_entity_get(
	struct ac_shard *shard, const struct ac_type *type, const struct ac_call *call)
{
	struct ac_host *host = shard->host;
	if ((shard->table == NULL || shard->entity_count > shard->table_mask) &&
		!grow_table(shard)) {
		return NULL;
	}
	size_t pid_size = call->in.type.size + 1 + call->in.id.size;
	struct ac_entity *entity = calloc(1, sizeof(*entity) + pid_size + 1);
	void *state = calloc(1, ac_type_aggregate(type)->state_size);
	if (entity == NULL || state == NULL ||
		rt_spawn(host->worker, &behaviour, entity, &entity->actor) != RT_OK) {
		free(entity);
		free(state);
		return NULL;
	}
	fill(entity, shard, type, call);
	entity->state = state;
	struct ac_entity **slot = &shard->table[(entity->hash >> 8) & shard->table_mask];
	entity->chain = *slot;
	*slot = entity;
	shard->entity_count++;
	link_hottest(entity);
	count_memory(entity);
	ac_count(&host->count.entities, 1);
	ac_entity_load(entity);
	return entity;
}

static void drop_state(struct ac_entity *entity)
{
	if (entity->aggregate->done != NULL) {
		size_t *last = ac_memory_account(&entity->memory);
		entity->aggregate->done(entity->state);
		ac_memory_account(last);
	}
}

void ac_entity_free(struct ac_entity *entity)
{
	struct ac_host *host = entity->shard->host;
	rt_err err = rt_stop(host->worker, entity->actor);
	RT_ASSERT(err == RT_OK);
	drop_state(entity);
	unlink_use(entity);
	if (entity->status == AC_QUARANTINED) {
		remove_from_quarantined(entity);
	}
	if (entity->leaving) {
		remove_from_leaving(entity);
	} else {
		remove_from_table(entity);
	}
	host->memory -= entity->counted;
	ac_uncount(&host->count.entities);
	free((void *)(uintptr_t)entity->snapshot.state.data);
	free(entity->state);
	free(entity->reason);
	free(entity);
}

bool ac_entity_passivate(struct ac_entity *entity)
{
	bool held = entity->status != AC_READY || entity->pending > 0 || entity->queued > 0 ||
		    entity->waiting_count > 0 || entity->leaving;
	if (held) {
		return false;
	}
	ac_count(&entity->shard->host->count.passivated, 1);
	ac_entity_free(entity);
	return true;
}

static void go_if_idle(struct ac_entity *entity)
{
	if (entity->status != AC_LOADING && entity->pending == 0 && entity->queued == 0) {
		ac_entity_free(entity);
	}
}

void ac_entity_leave(struct ac_entity *entity)
{
	struct ac_shard *shard = entity->shard;
	RT_ASSERT(!entity->leaving && entity->waiting == NULL);
	remove_from_table(entity);
	entity->leaving = true;
	entity->chain = shard->leaving;
	entity->chain_before = NULL;
	if (shard->leaving != NULL) {
		shard->leaving->chain_before = entity;
	}
	shard->leaving = entity;
	go_if_idle(entity);
}

/* A state that the log does not confirm is thrown away and read again. */
static void load_again(struct ac_entity *entity)
{
	drop_state(entity);
	memset(entity->state, 0, entity->aggregate->state_size);
	entity->reload = false;
	entity->status = AC_LOADING;
	entity->seq = 0;
	ac_entity_load(entity);
}

void ac_entity_settle(struct ac_entity *entity)
{
	struct ac_shard *shard = entity->shard;
	struct ps_snapshot *snapshot = &entity->snapshot;
	if (entity->leaving) {
		go_if_idle(entity);
		return;
	}
	if (snapshot->state.data != NULL && snapshot->offset <= shard->committed) {
		ps_stage_snapshot(
			shard->host->stage, shard->index, ac_entity_pid(entity), snapshot);
		if (shard->host->snapshot != NULL) {
			shard->host->snapshot(shard->host, shard, ac_entity_pid(entity), snapshot);
		}
		ac_count(&shard->host->count.snapshots, 1);
		free((void *)(uintptr_t)snapshot->state.data);
		*snapshot = (struct ps_snapshot){0};
	}
	count_memory(entity);
	if (entity->reload && entity->pending == 0 && entity->status == AC_READY) {
		load_again(entity);
	}
}

void ac_entity_resume(struct ac_entity *entity)
{
	entity->status = AC_READY;
	entity->pending++; /* the shard may be dropped in the middle */
	/* Calls wait on for a state that is to be read again. */
	while (entity->waiting != NULL && entity->status == AC_READY && !entity->reload) {
		struct ac_call *call = entity->waiting;
		entity->waiting = call->next;
		if (entity->waiting == NULL) {
			entity->waiting_end = &entity->waiting;
		}
		entity->waiting_count--;
		take(entity, call);
	}
	entity->pending--;
	ac_entity_settle(entity);
}

void ac_entity_quarantine(struct ac_entity *entity, const char *format, ...)
{
	struct ac_host *host = entity->shard->host;
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	rt_log(RT_LOG_ERROR, "entity", "%s is quarantined: %s", entity->pid, text);
	entity->reason = strdup(text);
	RT_ASSERT(entity->reason != NULL);
	entity->status = AC_QUARANTINED;
	entity->next_quarantined = host->quarantined;
	host->quarantined = entity;
	ac_count(&host->count.quarantined, 1);
	while (entity->waiting != NULL) {
		struct ac_call *call = entity->waiting;
		entity->waiting = call->next;
		take(entity, call);
	}
	entity->waiting_end = &entity->waiting;
	entity->waiting_count = 0;
}

struct rt_bytes ac_entity_pid(const struct ac_entity *entity)
{
	return rt_bytes_of(entity->pid, entity->pid_size);
}

const char *ac_entity_id(const struct ac_entity *entity)
{
	return strchr(entity->pid, '|') + 1;
}
