/*
 * core.h - inside of the scheduler: worker, actor cell, and what its files call of each other.
 * Only runtime/sched/ includes this.
 *
 * Threads: everything in a worker and its actors belongs to that worker, plain and non-atomic.
 * Shared are only: call, posts, posts_waiting, epoch, left, and the lanes' two indexes.
 */
#ifndef RUNTIME_SCHED_CORE_H
#define RUNTIME_SCHED_CORE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "runtime/base/assert.h"
#include "runtime/base/random.h"
#include "runtime/sched/actor.h"
#include "runtime/sched/call.h"
#include "runtime/sched/lane.h"
#include "runtime/sched/stats.h"
#include "runtime/sched/worker.h"

#define RT_SLAB_CELLS    1024u
#define RT_CELL_STATE    64u
#define RT_NO_INDEX      UINT32_MAX
#define RT_QUANTUM       8u  /* messages per turn: a neighbour waits 8 us, throughput is the same */
#define RT_ROUND_TURNS   32u /* turns before the worker publishes and looks around */
#define RT_ROUND_POSTS   256u
#define RT_LANE_BATCH    64u    /* unpublished envelopes to one worker */
#define RT_QUEUED_MAX    2048u  /* lanes are drained below this: intake must not outrun handling */
#define RT_HEADROOM      4096u  /* lanes over a mailbox's cap: local floods do not starve others */
#define RT_REFUSALS_MAX  32768u /* unread ones of one sender, or its mailbox cap */
#define RT_SLICE_NS      50000u
#define RT_SHORT_PARK_NS 200000u
#define RT_SPIN_STRETCH  8u
#define RT_INDEX_BITS    24u
#define RT_INDEX_MASK    ((1u << RT_INDEX_BITS) - 1)

/* Messages the runtime sends itself; handled when they are delivered. */
enum {
	RT_MSG_STOP = RT_MSG_INTERNAL,
	RT_MSG_WATCH,
	RT_MSG_UNWATCH,
	RT_MSG_SPAWN
};

/* Flags: ask names an alarm; an answer has been looked at before and comes again. */
enum {
	RT_ENV_ALARM = 2,
	RT_ENV_SEEN = 4
};

enum rt_actor_state {
	RT_ACTOR_IDLE,     /* no messages, in no list */
	RT_ACTOR_RUNNABLE, /* in the run queue */
	RT_ACTOR_RUNNING,  /* in its turn, in no list */
	RT_ACTOR_STALLED,  /* in the stalled list: its last send was refused */
	RT_ACTOR_WAITING,  /* backs off before a restart */
	RT_ACTOR_DEAD      /* free, or LISTED */
};

enum {
	RT_ACTOR_STOP_ASKED = 1, /* it stops after its turn */
	RT_ACTOR_LISTED = 2,     /* WAITING or DEAD, and still in the run queue or stalled list */
	RT_ACTOR_ENDING = 4,     /* no more children */
	RT_ACTOR_UNSTARTED = 8   /* started has failed: nothing for stopped to release */
};

struct rt_more; /* what few actors need: parent, watchers, stash, alarms, restarts */

/* Header and state: two cache lines, one prefetch pair. */
struct rt_actor {
	struct rt_envelope *head, *tail;
	struct rt_actor *run_next; /* run queue, stalled list or free list: never two at once */
	const struct rt_behaviour *behaviour;
	uint32_t count, cap;
	uint32_t generation;
	uint32_t address; /* worker:8 | index:24 */
	struct rt_more *more;
	uint8_t state, flags;
	uint16_t refusals; /* unread RT_MSG_REFUSED */
	uint32_t spare;
	union {
		uint64_t words[RT_CELL_STATE / 8];
		void *outside; /* a state that does not fit */
	} data;
};

_Static_assert(sizeof(struct rt_actor) == 128, "header and state are a pair of cache lines");

struct rt_out {
	struct rt_lane *lane[2];
	struct rt_envelope *owed_first, *owed_last; /* answers that found no room */
	uint32_t unpublished;
};

struct rt_in {
	struct rt_lane *lane[2];
};

/* The outside world, so that a simulator can take its place. */
struct rt_ports {
	uint64_t (*now_ns)(void *arg);
	void (*wake)(void *arg, struct rt_worker *worker); /* any thread */
	void *arg;
};

struct rt_worker {
	alignas(128) _Atomic uint64_t call;
	alignas(128) _Atomic(struct rt_post *) posts; /* newest first */
	_Atomic uint32_t posts_waiting;
	alignas(128) _Atomic uint64_t
		epoch; /* of parking; written by the owner, read by rt_system_stop */
	_Atomic bool left;

	/* The owner's. */
	alignas(128) struct rt_system *system;
	uint32_t index;
	bool parked, refused, in_slice;
	bool looping, threaded; /* set while no worker runs */
	struct rt_actor *run_first, *run_last;
	struct rt_actor *stalled;
	struct rt_envelope *current; /* NULL: taken by the turn */
	struct rt_envelope *pool;
	uint32_t queued;
	uint64_t now_ms, now_ns;
	uint64_t open;  /* lanes known to hold something, as in the call word */
	uint64_t dirty; /* receivers with unpublished or owed envelopes */

	struct rt_actor **slabs;
	uint32_t actor_count, actors_made, actors_max;
	struct rt_actor *free_actors;
	struct rt_envelope *chunks;
	uint32_t chunk_left;

	struct rt_post *posts_first, *posts_last;
	struct rt_timer *timers;
	uint64_t timer_order, timer_armed_ms;
	void (*hook)(struct rt_worker *worker, void *arg);
	void *hook_arg;
	void *data;
	struct rt_out out[RT_WORKERS_MAX];
	struct rt_in in[RT_WORKERS_MAX];
	uint64_t waits;
	uint64_t parked_at_ns, spin_ns;
	struct rt_worker_stats stats; /* the counts, not the `now` part */
	struct rt_dead_letter dead_letters[RT_DEAD_VISIBLE];
	uint64_t dead_next;
	uint32_t refusals_unread; /* RT_MSG_REFUSED in all mailboxes */

	struct rt_pending **pending; /* chunks */
	uint32_t pending_made, pending_free, pending_count;
	struct rt_timeouts *timeouts; /* made on the first ask */
	struct rt_random *chaos;      /* simulated: who decides; else NULL */
	uint64_t trace;

	uv_loop_t loop;
	uv_async_t async;
	uv_idle_t idle;
	uv_prepare_t prepare;
	uv_timer_t wakeup;
	uv_timer_cb on_wakeup;
	uv_thread_t thread;
};

enum rt_system_state {
	RT_SYSTEM_NEW,
	RT_SYSTEM_RUNNING,
	RT_SYSTEM_STOPPED
};

struct rt_system {
	struct rt_system_options options;
	struct rt_ports ports;
	uint32_t worker_count;
	enum rt_system_state state;
	bool simulated;
	struct rt_worker **workers;
	struct rt_lane *lanes;     /* [class][from][to] */
	_Atomic uint32_t stopping; /* 1: park when idle; 2: leave */
	uv_mutex_t mutex;
	uv_cond_t idle; /* a worker has parked while stopping */
};

extern _Thread_local struct rt_worker *rt_worker_current;

/* system.c: everything but loops and threads. */
RT_NODISCARD rt_err rt_system_build(const struct rt_system_options *options,
	const struct rt_ports *ports, struct rt_system **out, struct rt_errinfo *info);

/* loop.c */
RT_NODISCARD rt_err rt_loop_open(struct rt_worker *worker, struct rt_errinfo *info);
void rt_loop_run(void *worker); /* a thread's main */
void rt_loop_close(struct rt_worker *worker);
void rt_loop_wake(void *arg, struct rt_worker *worker);

/* slice.c. Runs what is there for about budget_ns: no clock, thread or kernel but through the
 * ports. True: something ran. */
bool rt_slice(struct rt_worker *worker, uint64_t budget_ns);
/* Nothing to do but wait for others: nothing runnable and nothing called. */
bool rt_slice_is_idle(const struct rt_worker *worker);
/* Waits for room elsewhere: stalled actors, refused lanes, owed answers. */
bool rt_slice_is_stuck(const struct rt_worker *worker);

/* send.c */
void rt_deliver(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env);
void rt_publish(struct rt_worker *worker);
void rt_intake(struct rt_worker *worker);
/* Counts it and frees it; a request that asks gets RT_MSG_GONE instead. */
void rt_dead_letter(struct rt_worker *worker, struct rt_envelope *env, enum rt_dead kind);
void rt_envelope_drop(struct rt_envelope *env); /* the payload only */
void rt_envelope_pool_done(struct rt_worker *worker);

/* actor.c */
/* Stops it now with all its descendants. Not the one whose turn it is. */
void rt_actor_bury(struct rt_worker *worker, struct rt_actor *actor);
void rt_actor_bury_all(struct rt_worker *worker);
/* A popped actor that is not RUNNABLE. */
void rt_actor_unlist(struct rt_worker *worker, struct rt_actor *actor);
/* Handles a message of the runtime's own and frees it; actor may be NULL. */
void rt_actor_control(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env);
/* Into the run queue if it has messages. */
void rt_actor_ready(struct rt_worker *worker, struct rt_actor *actor);

/* parent: NULL or the parent's. */
RT_NODISCARD rt_err rt_spawn_below(struct rt_worker *worker, const struct rt_behaviour *behaviour,
	void *arg, struct rt_more *parent, struct rt_ref *out);

/* supervise.c: a turn or start of actor has failed, it is in no turn any more. */
void rt_actor_failed(struct rt_worker *worker, struct rt_actor *actor);

/* ask.c. A turn for an envelope of the answers' class. */
enum rt_turn rt_answer_turn(
	struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env);
void rt_turn_round(struct rt_envelope *env, uint32_t type);
/* An answer that will not be handled: its question is over. */
void rt_pending_drop(struct rt_worker *worker, const struct rt_envelope *env);
void rt_pending_done(struct rt_worker *worker);
void rt_control_spawn(struct rt_worker *worker, struct rt_envelope *env);

/* family.c */
void rt_control_watch(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env);
void rt_control_unwatch(struct rt_worker *worker, struct rt_actor *actor, struct rt_envelope *env);

/* post.c */
void rt_posts_take(struct rt_worker *worker);
bool rt_posts_run(struct rt_worker *worker, uint32_t most);

/* timer.c */
bool rt_timers_fire(struct rt_worker *worker);
/* When the next timer is due, UINT64_MAX: never. */
uint64_t rt_timers_next_ms(const struct rt_worker *worker);

static inline bool rt_chance(struct rt_worker *worker, uint32_t one_in)
{
	return __builtin_expect(worker->chaos != NULL, 0) &&
	       rt_random_below(worker->chaos, one_in) == 0;
}

/* NULL: stopped, or of another worker; a stopped actor's cell has the next generation already. */
static inline struct rt_actor *rt_actor_resolve(const struct rt_worker *worker, struct rt_ref ref)
{
	uint32_t index = (uint32_t)ref.bits & RT_INDEX_MASK;
	if (__builtin_expect(index >= worker->actors_made, 0)) {
		return NULL;
	}
	struct rt_actor *actor = &worker->slabs[index / RT_SLAB_CELLS][index % RT_SLAB_CELLS];
	return actor->generation == (uint32_t)(ref.bits >> 32) ? actor : NULL;
}

/* On its thread, or nobody runs it and the caller is no worker either (set-up, tests). */
static inline bool rt_is_owner(const struct rt_worker *worker)
{
	return rt_worker_current == worker || (rt_worker_current == NULL && !worker->threaded);
}

static inline void rt_run_push(struct rt_worker *worker, struct rt_actor *actor)
{
	actor->run_next = NULL;
	if (worker->run_first == NULL) {
		worker->run_first = actor;
	} else {
		worker->run_last->run_next = actor;
	}
	worker->run_last = actor;
}

static inline struct rt_ref rt_actor_self(const struct rt_actor *actor)
{
	return (struct rt_ref){(uint64_t)actor->generation << 32 | actor->address};
}

/* The worker that runs the caller, from the thread: one load. */
static inline struct rt_worker *rt_worker_here(const struct rt_actor *actor)
{
	struct rt_worker *worker = rt_worker_current;
	RT_DASSERT(worker != NULL && worker->index == actor->address >> RT_INDEX_BITS);
	(void)actor;
	return worker;
}

static inline void rt_envelope_put(struct rt_worker *worker, struct rt_envelope *env)
{
	env->next = worker->pool;
	worker->pool = env;
}

/* A sender that does not read its refusals gets no more of them: its tells to others are full. */
static inline bool rt_refusals_full(const struct rt_actor *actor)
{
	return actor->refusals >= (actor->cap < RT_REFUSALS_MAX ? actor->cap : RT_REFUSALS_MAX);
}

static inline struct rt_ref rt_ref_make(uint32_t generation, uint32_t address)
{
	return (struct rt_ref){(uint64_t)generation << 32 | address};
}

#endif
