#include "runtime/sched/ask.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/sched/more.h"

#define CHUNK_SLOTS        256u
#define TIMEOUT_DEFAULT_MS 10000u
#define RETRY_MS           10u
#define TIMEOUT_LISTS      8u

enum kind {
	FREE,
	ASK,
	ALARM
};

/* One question or alarm of an actor of this worker. */
struct rt_pending {
	struct rt_timer timer; /* ALARM, or an ASK that is in no list */
	uint64_t due_ms;       /* ASK */
	struct rt_ref who;
	rt_ask_fn *then; /* ASK */
	void *arg;
	uint64_t word; /* ALARM */
	uint32_t type;
	uint32_t next, prev; /* ALARM: the actor's others; ASK: of its list; FREE: next free */
	uint32_t list;       /* of timeouts; RT_NO_INDEX: none */
	uint32_t generation, slot;
	enum kind kind;
};

/* The questions with one timeout, which is the order in which they are due: most questions of a
 * program have one of a few timeouts, and a heap of them costs more than the question. */
struct rt_timeouts {
	struct rt_timer timer; /* for the first one, or earlier */
	uint64_t timeout_ms;   /* 0: the list was never used */
	uint32_t first, last;
};

/* ---- slots ---- */

static struct rt_pending *slot_at(const struct rt_worker *worker, uint32_t slot)
{
	return &worker->pending[slot / CHUNK_SLOTS][slot % CHUNK_SLOTS];
}

static void on_timer(struct rt_worker *worker, struct rt_timer *timer);

static struct rt_pending *slot_new(struct rt_worker *worker)
{
	uint32_t slot = worker->pending_made;
	if (slot >= RT_PENDING_MAX) {
		return NULL;
	}
	if (worker->pending == NULL) {
		worker->pending = calloc(RT_PENDING_MAX / CHUNK_SLOTS, sizeof(*worker->pending));
		if (worker->pending == NULL) {
			return NULL;
		}
	}
	struct rt_pending **chunk = &worker->pending[slot / CHUNK_SLOTS];
	if (*chunk == NULL) {
		*chunk = calloc(CHUNK_SLOTS, sizeof(struct rt_pending));
		if (*chunk == NULL) {
			return NULL;
		}
	}
	worker->pending_made++;
	struct rt_pending *pending = slot_at(worker, slot);
	pending->slot = slot;
	pending->generation = 1;
	pending->list = RT_NO_INDEX;
	rt_timer_init(&pending->timer, on_timer);
	return pending;
}

/* pending_free is slot + 1, so that a zeroed worker has none. */
static struct rt_pending *slot_take(struct rt_worker *worker, enum kind kind, struct rt_ref who)
{
	struct rt_pending *pending;
	if (worker->pending_free != 0) {
		pending = slot_at(worker, worker->pending_free - 1);
		worker->pending_free = pending->next;
	} else {
		pending = slot_new(worker);
		if (pending == NULL) {
			return NULL;
		}
	}
	RT_ASSERT(pending->kind == FREE);
	pending->kind = kind;
	pending->who = who;
	worker->pending_count++;
	return pending;
}

/* ---- timeouts ---- */

static void time_out(struct rt_worker *worker, struct rt_pending *pending);

static void list_remove(struct rt_worker *worker, struct rt_pending *pending)
{
	struct rt_timeouts *list = &worker->timeouts[pending->list];
	if (pending->prev != RT_NO_INDEX) {
		slot_at(worker, pending->prev)->next = pending->next;
	} else {
		list->first = pending->next;
	}
	if (pending->next != RT_NO_INDEX) {
		slot_at(worker, pending->next)->prev = pending->prev;
	} else {
		list->last = pending->prev;
	}
	pending->list = RT_NO_INDEX;
}

/* The timer is not stopped when the first one is answered: it looks who is first when it fires. */
static void on_list_timer(struct rt_worker *worker, struct rt_timer *timer)
{
	struct rt_timeouts *list = (struct rt_timeouts *)timer;
	uint64_t now_ms = rt_worker_now_ms(worker);
	while (list->first != RT_NO_INDEX) {
		struct rt_pending *pending = slot_at(worker, list->first);
		if (pending->due_ms > now_ms) {
			rt_timer_start(worker, timer, pending->due_ms - now_ms);
			return;
		}
		list_remove(worker, pending);
		time_out(worker, pending);
	}
}

static struct rt_timeouts *list_of(struct rt_worker *worker, uint32_t timeout_ms)
{
	if (__builtin_expect(worker->timeouts == NULL, 0)) {
		worker->timeouts = calloc(TIMEOUT_LISTS, sizeof(*worker->timeouts));
	}
	for (uint32_t i = 0; worker->timeouts != NULL && i < TIMEOUT_LISTS; i++) {
		struct rt_timeouts *list = &worker->timeouts[i];
		if (list->timeout_ms == timeout_ms) {
			return list;
		}
		bool unused = list->timeout_ms == 0;
		if (unused || (list->first == RT_NO_INDEX && list->timer.place == 0)) {
			rt_timer_init(&list->timer, on_list_timer);
			list->timeout_ms = timeout_ms;
			list->first = list->last = RT_NO_INDEX;
			return list;
		}
	}
	return NULL;
}

static void start_timeout(struct rt_worker *worker, struct rt_pending *pending, uint32_t timeout_ms)
{
	struct rt_timeouts *list = list_of(worker, timeout_ms);
	if (list == NULL) {
		rt_timer_start(worker, &pending->timer, timeout_ms);
		return;
	}
	pending->due_ms = rt_worker_now_ms(worker) + timeout_ms;
	pending->list = (uint32_t)(list - worker->timeouts);
	pending->next = RT_NO_INDEX;
	pending->prev = list->last;
	if (list->last != RT_NO_INDEX) {
		slot_at(worker, list->last)->next = pending->slot;
	} else {
		list->first = pending->slot;
	}
	list->last = pending->slot;
	if (list->timer.place == 0) {
		rt_timer_start(worker, &list->timer, timeout_ms);
	}
}

static void end_timeout(struct rt_worker *worker, struct rt_pending *pending)
{
	if (pending->list != RT_NO_INDEX) {
		list_remove(worker, pending);
	} else {
		rt_timer_stop(worker, &pending->timer);
	}
}

static void alarm_unlink(struct rt_worker *worker, struct rt_pending *pending)
{
	struct rt_actor *actor = rt_actor_resolve(worker, pending->who);
	if (pending->prev != RT_NO_INDEX) {
		slot_at(worker, pending->prev)->next = pending->next;
	} else if (actor != NULL) {
		actor->more->alarms = pending->next;
	}
	if (pending->next != RT_NO_INDEX) {
		slot_at(worker, pending->next)->prev = pending->prev;
	}
}

static void slot_free(struct rt_worker *worker, struct rt_pending *pending)
{
	RT_ASSERT(pending->kind != FREE);
	end_timeout(worker, pending);
	if (pending->kind == ALARM) {
		alarm_unlink(worker, pending);
	}
	pending->kind = FREE;
	pending->generation += pending->generation == UINT32_MAX ? 2 : 1;
	pending->next = worker->pending_free;
	worker->pending_free = pending->slot + 1;
	worker->pending_count--;
}

static uint64_t id_of(const struct rt_pending *pending)
{
	return (uint64_t)pending->generation << 32 | pending->slot;
}

static struct rt_pending *find(struct rt_worker *worker, uint64_t id, struct rt_ref who)
{
	uint32_t slot = (uint32_t)id;
	if (slot >= worker->pending_made) {
		return NULL;
	}
	struct rt_pending *pending = slot_at(worker, slot);
	bool same = pending->generation == (uint32_t)(id >> 32) && pending->kind != FREE;
	return same && rt_ref_equal(pending->who, who) ? pending : NULL;
}

void rt_pending_drop(struct rt_worker *worker, const struct rt_envelope *env)
{
	struct rt_pending *pending = find(worker, env->ask, env->to);
	if (pending != NULL) {
		slot_free(worker, pending);
	}
}

void rt_pending_done(struct rt_worker *worker)
{
	for (uint32_t i = 0; i < worker->pending_made; i += CHUNK_SLOTS) {
		free(worker->pending[i / CHUNK_SLOTS]);
	}
	free(worker->pending);
	free(worker->timeouts);
	worker->timeouts = NULL;
	worker->pending = NULL;
	worker->pending_made = 0;
}

/* The time is over. The slot stays until its message is handled: an answer that is in the mailbox
 * already still wins, and a cancelled alarm is recognised. */
static void time_out(struct rt_worker *worker, struct rt_pending *pending)
{
	if (rt_actor_resolve(worker, pending->who) == NULL) {
		slot_free(worker, pending);
		return;
	}
	bool ask = pending->kind == ASK;
	struct rt_envelope *env = rt_envelope_new(worker, ask ? RT_MSG_TIMEOUT : pending->type);
	if (env == NULL) {
		rt_timer_start(worker, &pending->timer, RETRY_MS);
		return;
	}
	worker->stats.timeouts += ask ? 1 : 0;
	env->to = pending->who;
	env->from = ask ? RT_REF_NONE : pending->who;
	env->ask = id_of(pending);
	env->lane = RT_ANSWER;
	env->flags = ask ? 0 : RT_ENV_ALARM;
	env->body.words[0] = ask ? 0 : pending->word;
	env->size = ask ? 0 : sizeof(pending->word);
	rt_err err = rt_send(worker, env);
	RT_ASSERT(err == RT_OK);
}

static void on_timer(struct rt_worker *worker, struct rt_timer *timer)
{
	time_out(worker, (struct rt_pending *)timer);
}

/* ---- questions ---- */

rt_err rt_ask(struct rt_actor *self, struct rt_ref to, struct rt_envelope *env, uint32_t timeout_ms,
	rt_ask_fn *then, void *arg)
{
	struct rt_worker *worker = rt_worker_here(self);
	struct rt_pending *pending = slot_take(worker, ASK, rt_actor_self(self));
	if (pending == NULL) {
		return RT_E_NOMEM;
	}
	pending->then = then;
	pending->arg = arg;
	env->to = to;
	env->from = pending->who;
	env->ask = id_of(pending);
	env->lane = RT_REQUEST;
	start_timeout(worker, pending, timeout_ms != 0 ? timeout_ms : TIMEOUT_DEFAULT_MS);
	rt_err err = rt_send(worker, env);
	if (err != RT_OK) {
		slot_free(worker, pending);
		env->ask = 0;
	}
	return err;
}

static enum rt_turn continue_ask(
	struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	uint64_t id = env->ask;
	struct rt_pending *pending = find(worker, id, env->to);
	if (pending == NULL || pending->kind != ASK) {
		worker->current = NULL;
		rt_dead_letter(worker, env, RT_DEAD_LATE);
		return RT_DONE;
	}
	env->ask = 0;
	env->flags |= RT_ENV_SEEN;
	enum rt_turn turn = pending->then(actor, env, pending->arg);
	if (turn == RT_AGAIN && worker->current != NULL) {
		end_timeout(worker, pending);
		env->ask = id;
		env->flags &= (uint8_t)~RT_ENV_SEEN;
		return turn;
	}
	slot_free(worker, pending);
	return turn;
}

static enum rt_turn discard(struct rt_worker *worker, struct rt_envelope *env)
{
	worker->current = NULL;
	rt_envelope_free(worker, env);
	return RT_DONE;
}

enum rt_turn rt_answer_turn(
	struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env)
{
	if ((env->flags & RT_ENV_SEEN) != 0) {
		return actor->behaviour->turn(actor, env);
	}
	if (env->type == RT_MSG_REFUSED) {
		RT_ASSERT(actor->refusals > 0 && worker->refusals_unread > 0);
		actor->refusals--;
		worker->refusals_unread--;
	} else if (env->type == RT_MSG_TERMINATED) {
		if (!rt_watch_take(actor, env->from)) {
			return discard(worker, env);
		}
	} else if ((env->flags & RT_ENV_ALARM) != 0) {
		struct rt_pending *pending = find(worker, env->ask, env->to);
		if (pending == NULL) {
			return discard(worker, env);
		}
		slot_free(worker, pending);
		env->ask = 0;
		env->flags = 0;
	} else {
		return continue_ask(worker, actor, env);
	}
	env->flags |= RT_ENV_SEEN;
	return actor->behaviour->turn(actor, env);
}

/* ---- answers ---- */

void rt_turn_round(struct rt_envelope *env, uint32_t type)
{
	struct rt_ref from = env->from;
	env->from = env->to;
	env->to = from;
	env->lane = RT_ANSWER;
	env->type = type;
}

void rt_answer(struct rt_worker *worker, struct rt_envelope *env)
{
	if (env == worker->current) {
		worker->current = NULL;
	}
	if (env->ask == 0 || env->lane != RT_REQUEST || rt_ref_is_none(env->from)) {
		env->ask = 0;
		rt_dead_letter(worker, env, RT_DEAD_LATE);
		return;
	}
	rt_turn_round(env, env->type);
	rt_err err = rt_send(worker, env);
	RT_ASSERT(err == RT_OK); /* answers are never refused */
}

void rt_reply(struct rt_actor *self, struct rt_envelope *env, uint32_t type, const void *bytes,
	size_t size)
{
	RT_ASSERT(size <= RT_INLINE_MAX && type < RT_MSG_FIRST);
	rt_envelope_drop(env);
	env->type = type;
	env->size = (uint16_t)size;
	if (size > 0) {
		memmove(env->body.bytes, bytes, size);
	}
	rt_answer(rt_worker_here(self), env);
}

rt_err rt_forward(struct rt_actor *self, struct rt_ref to, struct rt_envelope *env)
{
	struct rt_worker *worker = rt_worker_here(self);
	struct rt_ref before = env->to;
	env->to = to;
	env->flags &= RT_ENV_OUT;
	env->lane = env->ask != 0 ? env->lane : RT_REQUEST;
	rt_err err = rt_send(worker, env);
	if (err != RT_OK) {
		env->to = before;
	} else if (env == worker->current) {
		worker->current = NULL;
	}
	return err;
}

rt_err rt_spawn_on(struct rt_actor *self, uint32_t worker, const struct rt_behaviour *behaviour,
	void *arg, rt_ask_fn *then, void *then_arg)
{
	struct rt_worker *here = rt_worker_here(self);
	if (worker >= here->system->worker_count) {
		return RT_E_INVAL;
	}
	struct rt_envelope *env = rt_envelope_new(here, RT_MSG_SPAWN);
	if (env == NULL) {
		return RT_E_NOMEM;
	}
	env->body.words[0] = (uint64_t)(uintptr_t)behaviour;
	env->body.words[1] = (uint64_t)(uintptr_t)arg;
	struct rt_ref nobody = rt_ref_make(UINT32_MAX, worker << RT_INDEX_BITS | RT_INDEX_MASK);
	rt_err err = rt_ask(self, nobody, env, 0, then, then_arg);
	if (err != RT_OK) {
		rt_envelope_free(here, env);
	}
	return err;
}

void rt_control_spawn(struct rt_worker *worker, struct rt_envelope *env)
{
	const struct rt_behaviour *behaviour = (const void *)(uintptr_t)env->body.words[0];
	void *arg = (void *)(uintptr_t)env->body.words[1];
	struct rt_ref made = RT_REF_NONE;
	rt_err err = rt_spawn(worker, behaviour, arg, &made);
	rt_turn_round(env, RT_MSG_SPAWNED);
	env->from = made;
	env->body.words[0] = (uint64_t)err;
	env->size = sizeof(env->body.words[0]);
	err = rt_send(worker, env);
	RT_ASSERT(err == RT_OK);
}

/* ---- alarms ---- */

rt_err rt_alarm_start(struct rt_actor *self, uint64_t after_ms, uint32_t type, uint64_t word,
	struct rt_alarm *out)
{
	struct rt_worker *worker = rt_worker_here(self);
	struct rt_more *more = rt_more_of(self);
	struct rt_pending *pending =
		more != NULL ? slot_take(worker, ALARM, rt_actor_self(self)) : NULL;
	if (pending == NULL) {
		return RT_E_NOMEM;
	}
	pending->type = type;
	pending->word = word;
	pending->prev = RT_NO_INDEX;
	pending->next = more->alarms;
	if (more->alarms != RT_NO_INDEX) {
		slot_at(worker, more->alarms)->prev = pending->slot;
	}
	more->alarms = pending->slot;
	rt_timer_start(worker, &pending->timer, after_ms);
	out->bits = id_of(pending);
	return RT_OK;
}

bool rt_alarm_cancel(struct rt_actor *self, struct rt_alarm alarm)
{
	struct rt_worker *worker = rt_worker_here(self);
	struct rt_pending *pending = find(worker, alarm.bits, rt_actor_self(self));
	if (pending == NULL || pending->kind != ALARM) {
		return false;
	}
	slot_free(worker, pending);
	return true;
}

void rt_alarms_end_all(struct rt_worker *worker, struct rt_more *more)
{
	while (more->alarms != RT_NO_INDEX) {
		slot_free(worker, slot_at(worker, more->alarms));
	}
}
