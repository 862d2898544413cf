/*
 * worker.h - the node's worker threads: one libuv loop each, actors pinned to one of them, and the
 * door for threads that are not workers.
 *
 * Threads: rt_system_* anywhere; rt_worker_* on that worker unless said otherwise.
 * Order:   posts of one thread to one worker run in order.
 * Limits:  bounded posts are refused with RT_E_FULL over the worker's limit; unbounded ones are for
 *          completions of work that was itself bounded.
 */
#ifndef RUNTIME_SCHED_WORKER_H
#define RUNTIME_SCHED_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "runtime/base/err.h"

struct rt_system;
struct rt_worker;

#define RT_SPIN_NONE UINT32_MAX

struct rt_system_options {
	uint32_t workers; /* 0: one less than the cores, at least one */
	uint32_t spin_us; /* before a worker blocks in its loop; 0: 20; RT_SPIN_NONE: not at all */
	uint32_t mailbox_cap; /* default per actor; 0: 1024 */
	uint32_t posts_max;   /* bounded posts waiting per worker; 0: 65536 */
	uint32_t actors_max;  /* per worker; 0: 16 M */
};

RT_NODISCARD rt_err rt_system_new(
	const struct rt_system_options *options, struct rt_system **out, struct rt_errinfo *info);
RT_NODISCARD rt_err rt_system_start(struct rt_system *system, struct rt_errinfo *info);
/* Waits until no worker has anything to run (2 s at most), then every worker stops its actors and
 * leaves its loop, and is joined. Posts that come later run on the caller's thread, here or in
 * rt_system_free. Idempotent. Not on a worker. */
void rt_system_stop(struct rt_system *system);
void rt_system_free(struct rt_system *system); /* not running; NULL is a no-op */
uint32_t rt_system_worker_count(const struct rt_system *system);
struct rt_worker *rt_system_worker(struct rt_system *system, uint32_t index);

/* Intrusive: the node must stay alive until run is called. A chain (next) is posted at once. */
struct rt_post {
	struct rt_post *next;
	void (*run)(struct rt_worker *worker, struct rt_post *post);
};
/* Any thread; each node counts for the limit. RT_E_FULL, RT_E_CLOSED (the worker has left): nothing
 * is posted, the chain stays the caller's. */
RT_NODISCARD rt_err rt_worker_post(struct rt_worker *worker, struct rt_post *post);
void rt_worker_post_always(struct rt_worker *worker, struct rt_post *post); /* any thread */

struct rt_system *rt_worker_system(struct rt_worker *worker);
uint32_t rt_worker_index(const struct rt_worker *worker);
uv_loop_t *rt_worker_loop(struct rt_worker *worker);
uint64_t rt_worker_now_ms(struct rt_worker *worker);   /* monotonic, cached per slice */
uint64_t rt_worker_clock_ms(struct rt_worker *worker); /* the same clock, read now */
/* The worker running on this thread, or NULL. */
struct rt_worker *rt_worker_self(void);
/* One pointer for the layer above (the shard region). */
void rt_worker_set_data(struct rt_worker *worker, void *data);
void *rt_worker_data(struct rt_worker *worker);
/* Called at the end of every round in which a post or an actor ran, before the worker publishes to
 * others or parks: where records of the turn are proposed as one batch. */
void rt_worker_set_turn_hook(
	struct rt_worker *worker, void (*hook)(struct rt_worker *worker, void *arg), void *arg);

/* One-shot timers in milliseconds, intrusive, on the owning worker. Start moves a running one. */
struct rt_timer {
	void *heap[3];
	uint64_t due_ms, order;
	uint32_t place;
	void (*fire)(struct rt_worker *worker, struct rt_timer *timer);
};
void rt_timer_init(struct rt_timer *timer, void (*fire)(struct rt_worker *, struct rt_timer *));
void rt_timer_start(struct rt_worker *worker, struct rt_timer *timer, uint64_t after_ms);
void rt_timer_stop(struct rt_worker *worker, struct rt_timer *timer);

#endif
