#include <stdlib.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/sched/core.h"

#define CHUNK_ENVELOPES 4096u

/* ---- pool: the first envelope of a chunk links the chunks ---- */

static RT_COLD bool pool_grow(struct rt_worker *worker)
{
	struct rt_envelope *chunk =
		aligned_alloc(RT_CACHELINE, CHUNK_ENVELOPES * sizeof(struct rt_envelope));
	if (chunk == NULL) {
		return false;
	}
	chunk->next = worker->chunks;
	worker->chunks = chunk;
	worker->chunk_left = CHUNK_ENVELOPES - 1;
	return true;
}

static struct rt_envelope *pool_take(struct rt_worker *worker)
{
	struct rt_envelope *env = worker->pool;
	if (__builtin_expect(env != NULL, 1)) {
		worker->pool = env->next;
		return env;
	}
	if (worker->chunk_left == 0 && !pool_grow(worker)) {
		return NULL;
	}
	return &worker->chunks[CHUNK_ENVELOPES - worker->chunk_left--];
}

void rt_envelope_pool_done(struct rt_worker *worker)
{
	while (worker->chunks != NULL) {
		struct rt_envelope *chunk = worker->chunks;
		worker->chunks = chunk->next;
		free(chunk);
	}
	worker->pool = NULL;
	worker->chunk_left = 0;
}

struct rt_envelope *rt_envelope_new(struct rt_worker *worker, uint32_t type)
{
	RT_DASSERT(rt_is_owner(worker));
	struct rt_envelope *env = pool_take(worker);
	if (env != NULL) {
		env->from = RT_REF_NONE;
		env->ask = 0;
		env->type = type;
		env->size = 0;
		env->lane = RT_REQUEST;
		env->flags = 0;
		memset(&env->body, 0, sizeof(env->body));
	}
	return env;
}

void rt_envelope_drop(struct rt_envelope *env)
{
	if ((env->flags & RT_ENV_OUT) != 0) {
		env->flags &= (uint8_t)~RT_ENV_OUT;
		if (env->body.out.drop != NULL) {
			env->body.out.drop(env->body.out.bytes);
		}
	}
}

void rt_envelope_free(struct rt_worker *worker, struct rt_envelope *env)
{
	rt_envelope_drop(env);
	rt_envelope_put(worker, env);
}

/* ---- here ---- */

void rt_deliver(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	env->next = NULL;
	if (actor->head == NULL) {
		actor->head = env;
	} else {
		actor->tail->next = env;
	}
	actor->tail = env;
	actor->count++;
	worker->queued++;
	if (actor->state == RT_ACTOR_IDLE) {
		actor->state = RT_ACTOR_RUNNABLE;
		rt_run_push(worker, actor);
	}
}

/* ---- elsewhere ---- */

static void publish_to(struct rt_worker *worker, uint32_t to)
{
	struct rt_out *out = &worker->out[to];
	out->unpublished = 0;
	bool any = rt_lane_publish(out->lane[RT_ANSWER]);
	any |= rt_lane_publish(out->lane[RT_REQUEST]);
	struct rt_worker *there = worker->system->workers[to];
	if (any && rt_call_ring(&there->call, RT_CALL_LANE(worker->index))) {
		worker->stats.wakes++;
		worker->system->ports.wake(worker->system->ports.arg, there);
	}
}

static void put(struct rt_worker *worker, uint32_t to, struct rt_envelope *env)
{
	struct rt_out *out = &worker->out[to];
	rt_lane_put(out->lane[env->lane], env);
	rt_envelope_put(worker, env); /* the payload has moved with the copy */
	worker->stats.sent_away++;
	worker->dirty |= UINT64_C(1) << to;
	if (++out->unpublished >= RT_LANE_BATCH) {
		publish_to(worker, to);
	}
}

/* An answer that finds no room waits here in order. Bounded: whoever it goes to has an ask, a watch
 * or a request of its own outstanding for it. */
static void owe(struct rt_worker *worker, uint32_t to, struct rt_envelope *env)
{
	struct rt_out *out = &worker->out[to];
	env->next = NULL;
	if (out->owed_first == NULL) {
		out->owed_first = env;
	} else {
		out->owed_last->next = env;
	}
	out->owed_last = env;
	worker->dirty |= UINT64_C(1) << to;
}

static void settle(struct rt_worker *worker, uint32_t to)
{
	struct rt_out *out = &worker->out[to];
	while (out->owed_first != NULL && rt_lane_has_room(out->lane[RT_ANSWER])) {
		struct rt_envelope *env = out->owed_first;
		out->owed_first = env->next;
		put(worker, to, env);
	}
}

void rt_publish(struct rt_worker *worker)
{
	uint64_t left = 0;
	for (uint64_t dirty = worker->dirty; dirty != 0; dirty &= dirty - 1) {
		uint32_t to = (uint32_t)__builtin_ctzll(dirty);
		if (rt_chance(worker, 4)) {
			left |= UINT64_C(1) << to;
			continue;
		}
		settle(worker, to);
		publish_to(worker, to);
		if (worker->out[to].owed_first != NULL) {
			left |= UINT64_C(1) << to;
		}
	}
	worker->dirty = left;
}

static bool has_too_many_refusals(struct rt_worker *worker, struct rt_ref from)
{
	if (__builtin_expect(worker->refusals_unread == 0, 1) ||
		rt_ref_worker(from) != worker->index) {
		return false;
	}
	const struct rt_actor *actor = rt_actor_resolve(worker, from);
	return actor != NULL && rt_refusals_full(actor);
}

static rt_err send_away(struct rt_worker *worker, struct rt_envelope *env)
{
	uint32_t to = rt_ref_worker(env->to);
	if (rt_ref_is_none(env->to) || to >= worker->system->worker_count) {
		rt_dead_letter(worker, env, RT_DEAD_GONE);
		return RT_OK;
	}
	struct rt_out *out = &worker->out[to];
	bool room = env->lane == RT_ANSWER ? out->owed_first == NULL
					   : !has_too_many_refusals(worker, env->from);
	if (room && !rt_chance(worker, 16) && rt_lane_has_room(out->lane[env->lane])) {
		put(worker, to, env);
		return RT_OK;
	}
	if (env->lane == RT_ANSWER) {
		owe(worker, to, env);
		return RT_OK;
	}
	worker->refused = true;
	worker->stats.refusals++;
	return RT_E_FULL;
}

rt_err rt_send(struct rt_worker *worker, struct rt_envelope *env)
{
	RT_DASSERT(rt_is_owner(worker));
	if (rt_ref_worker(env->to) != worker->index) {
		return send_away(worker, env);
	}
	struct rt_actor *actor = rt_actor_resolve(worker, env->to);
	if (__builtin_expect(actor == NULL, 0)) {
		if (env->type >= RT_MSG_INTERNAL) {
			rt_actor_control(worker, NULL, env);
		} else {
			rt_dead_letter(worker, env, RT_DEAD_GONE);
		}
		return RT_OK;
	}
	if (actor->count >= actor->cap && env->lane == RT_REQUEST) {
		worker->refused = true;
		worker->stats.refusals++;
		return RT_E_FULL;
	}
	rt_deliver(worker, actor, env);
	return RT_OK;
}

static inline rt_err tell(struct rt_worker *worker, struct rt_ref from, struct rt_ref to,
	uint32_t type, struct rt_bytes bytes)
{
	RT_ASSERT(bytes.size <= RT_INLINE_MAX);
	struct rt_envelope *env = rt_envelope_new(worker, type);
	if (__builtin_expect(env == NULL, 0)) {
		return RT_E_NOMEM;
	}
	/* Nearly all are a word or two, and a call of memcpy for so little is dear. */
	if (bytes.size == 8) {
		memcpy(env->body.bytes, bytes.data, 8);
	} else if (bytes.size == 16) {
		memcpy(env->body.bytes, bytes.data, 16);
	} else if (bytes.size > 0) {
		memcpy(env->body.bytes, bytes.data, bytes.size);
	}
	env->size = (uint16_t)bytes.size;
	env->from = from;
	env->to = to;
	rt_err err = rt_send(worker, env);
	if (__builtin_expect(err != RT_OK, 0)) {
		rt_envelope_put(worker, env);
	}
	return err;
}

rt_err rt_tell(
	struct rt_actor *self, struct rt_ref to, uint32_t type, const void *bytes, size_t size)
{
	struct rt_worker *worker = rt_worker_here(self);
	return tell(worker, rt_actor_self(self), to, type, rt_bytes_of(bytes, size));
}

rt_err rt_worker_tell(
	struct rt_worker *worker, struct rt_ref to, uint32_t type, const void *bytes, size_t size)
{
	return tell(worker, RT_REF_NONE, to, type, rt_bytes_of(bytes, size));
}

/* ---- from elsewhere ---- */

/* True: the request is too much for its mailbox and goes back, or is dropped when nobody asks. */
static bool is_too_much(const struct rt_actor *actor, const struct rt_envelope *env)
{
	return env->lane == RT_REQUEST && env->type < RT_MSG_INTERNAL &&
	       actor->count >= actor->cap && actor->count - actor->cap >= RT_HEADROOM;
}

/* Whether the way back has room for a refusal. */
static bool can_refuse(struct rt_worker *worker, struct rt_ref from)
{
	uint32_t to = rt_ref_worker(from);
	if (rt_ref_is_none(from) || to == worker->index || to >= worker->system->worker_count) {
		return true;
	}
	return rt_lane_has_room(worker->out[to].lane[RT_ANSWER]);
}

static void send_back(struct rt_worker *worker, struct rt_envelope *env)
{
	if (rt_ref_is_none(env->from)) {
		rt_dead_letter(worker, env, RT_DEAD_REFUSED);
		return;
	}
	worker->stats.bounced++;
	if (env->ask != 0) {
		rt_turn_round(env, RT_MSG_BUSY);
	} else {
		env->ask = env->type;
		rt_turn_round(env, RT_MSG_REFUSED);
	}
	rt_err err = rt_send(worker, env);
	RT_ASSERT(err == RT_OK); /* answers are never refused */
}

static void take_in(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	if (__builtin_expect(env->type >= RT_MSG_INTERNAL, 0)) {
		rt_actor_control(worker, actor, env);
	} else if (actor == NULL) {
		rt_dead_letter(worker, env, RT_DEAD_GONE);
	} else {
		if (env->type == RT_MSG_REFUSED && env->lane == RT_ANSWER) {
			actor->refusals++;
			worker->refusals_unread++;
		}
		rt_deliver(worker, actor, env);
	}
}

/* False: envelopes stay in the lane because their refusals would find no room. Answers are always
 * taken, so this cannot be a circle. */
static bool drain(struct rt_worker *worker, uint32_t from, enum rt_class class)
{
	struct rt_lane *lane = worker->in[from].lane[class];
	const struct rt_envelope *in;
	rt_lane_look(lane);
	while ((in = rt_lane_peek(lane)) != NULL) {
		struct rt_actor *actor = rt_actor_resolve(worker, in->to);
		bool back = actor != NULL && is_too_much(actor, in);
		struct rt_envelope *env = NULL;
		if (!back || can_refuse(worker, in->from)) {
			env = pool_take(worker);
		}
		if (env == NULL) {
			break;
		}
		*env = *in;
		rt_lane_next(lane);
		if (back) {
			send_back(worker, env);
		} else {
			take_in(worker, actor, env);
		}
	}
	rt_lane_release(lane);
	return in == NULL;
}

static void drain_all(struct rt_worker *worker)
{
	uint64_t skip = 0;
	if (__builtin_expect(worker->chaos != NULL, 0)) {
		skip = rt_random_next(worker->chaos);
	}
	for (uint64_t open = worker->open & ~skip; open != 0; open &= open - 1) {
		if (worker->queued >= RT_QUEUED_MAX && worker->run_first != NULL) {
			break;
		}
		uint32_t from = (uint32_t)__builtin_ctzll(open) - 2;
		bool whole = drain(worker, from, RT_ANSWER);
		if (drain(worker, from, RT_REQUEST) && whole) {
			worker->open &= ~RT_CALL_LANE(from);
		}
	}
}

void rt_intake(struct rt_worker *worker)
{
	uint64_t called = rt_call_take(&worker->call);
	if ((called & RT_CALL_POST) != 0) {
		rt_posts_take(worker);
	}
	worker->open |= called & ~(RT_CALL_POST | RT_CALL_PARKED);
	if (worker->open != 0) {
		drain_all(worker);
	}
}
