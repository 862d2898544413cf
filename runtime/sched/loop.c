#include <sched.h>

#include "runtime/sched/core.h"

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

void rt_loop_wake(void *arg, struct rt_worker *worker)
{
	(void)arg;
	(void)uv_async_send(&worker->async);
}

/* libuv wakes the loop for the next timer, but only while the worker is parked. */
static void arm_wakeup(struct rt_worker *worker)
{
	uint64_t next_ms = rt_timers_next_ms(worker);
	if (next_ms == worker->timer_armed_ms) {
		return;
	}
	worker->timer_armed_ms = next_ms;
	if (next_ms == UINT64_MAX) {
		(void)uv_timer_stop(&worker->wakeup);
		return;
	}
	uv_update_time(&worker->loop);
	uint64_t now_ms = rt_worker_now_ms(worker);
	(void)uv_timer_start(
		&worker->wakeup, worker->on_wakeup, next_ms > now_ms ? next_ms - now_ms : 0, 0);
}

static void on_idle(uv_idle_t *handle);

/* When the other worker answers just after the spin was over, both park for every message and a
 * message takes as long as two wake-ups, for good. Who was woken so soon by a worker spins longer
 * next time. */
static void adapt_spin(struct rt_worker *worker)
{
	uint64_t least_ns = (uint64_t)worker->system->options.spin_us * 1000;
	uint64_t called = atomic_load_explicit(&worker->call, memory_order_relaxed);
	bool by_worker = (called & ~(RT_CALL_POST | RT_CALL_PARKED)) != 0;
	uint64_t parked_ns = uv_hrtime() - worker->parked_at_ns;
	if (!by_worker || parked_ns > RT_SHORT_PARK_NS) {
		worker->spin_ns = least_ns;
	} else if (worker->spin_ns < least_ns * RT_SPIN_STRETCH) {
		worker->spin_ns *= 2;
	}
}

static void unpark(struct rt_worker *worker)
{
	if (worker->parked) {
		worker->parked = false;
		adapt_spin(worker);
		rt_call_unpark(&worker->call);
		(void)uv_idle_start(&worker->idle, on_idle);
	}
}

static void leave(struct rt_worker *worker)
{
	rt_actor_bury_all(worker);
	rt_publish(worker);
	atomic_store_explicit(&worker->left, true, memory_order_relaxed);
	(void)uv_idle_stop(&worker->idle);
	uv_stop(&worker->loop);
}

static void park(struct rt_worker *worker)
{
	arm_wakeup(worker);
	/* Before the mark, so that whoever sees the mark twice can tell two parkings apart. */
	atomic_fetch_add_explicit(&worker->epoch, 1, memory_order_relaxed);
	if (!rt_call_park(&worker->call)) {
		return;
	}
	worker->parked = true;
	worker->parked_at_ns = uv_hrtime();
	worker->stats.parks++;
	(void)uv_idle_stop(&worker->idle);
	struct rt_system *system = worker->system;
	if (atomic_load_explicit(&system->stopping, memory_order_relaxed) != 0) {
		uv_mutex_lock(&system->mutex);
		uv_cond_signal(&system->idle);
		uv_mutex_unlock(&system->mutex);
	}
}

/* True: somebody called. A wake-up costs 40 us, most answers come sooner. */
static bool look_around(struct rt_worker *worker)
{
	uint32_t spin_us = worker->system->options.spin_us;
	if (spin_us == RT_SPIN_NONE) {
		return false;
	}
	uint64_t begin = uv_hrtime();
	uint64_t spent = 0;
	do {
		if (spent > (uint64_t)spin_us * 1000) {
			(void)sched_yield(); /* the one waited for may need this core */
		}
		for (int i = 0; i < 8; i++) {
			relax();
		}
		if (atomic_load_explicit(&worker->call, memory_order_relaxed) != 0) {
			return true;
		}
		spent = uv_hrtime() - begin;
	} while (spent < worker->spin_ns);
	return false;
}

static void give_way(struct rt_worker *worker)
{
	if ((++worker->waits & 7) != 0 && worker->system->options.spin_us != RT_SPIN_NONE) {
		for (int i = 0; i < 16; i++) {
			relax();
		}
	} else {
		(void)sched_yield();
	}
}

/* Runs actors for a while before libuv gets to look at its descriptors again: an iteration of its
 * loop costs as much as a hundred messages. */
static void on_idle(uv_idle_t *handle)
{
	struct rt_worker *worker = handle->data;
	if (atomic_load_explicit(&worker->system->stopping, memory_order_relaxed) == 2) {
		leave(worker);
		return;
	}
	uint64_t end = uv_hrtime() + RT_SLICE_NS;
	do {
		(void)rt_slice(worker, RT_SLICE_NS);
		if (!rt_slice_is_idle(worker)) {
			continue;
		}
		if (rt_slice_is_stuck(worker)) {
			give_way(worker);
			continue;
		}
		if (!look_around(worker)) {
			park(worker);
			return;
		}
	} while (uv_hrtime() < end);
}

static void on_async(uv_async_t *handle)
{
	unpark(handle->data);
}

static void on_wakeup(uv_timer_t *handle)
{
	struct rt_worker *worker = handle->data;
	worker->timer_armed_ms = UINT64_MAX;
	unpark(worker);
}

/* Callbacks of descriptors may have sent something or started a timer while the worker is parked.
 */
static void on_prepare(uv_prepare_t *handle)
{
	struct rt_worker *worker = handle->data;
	if (!worker->parked) {
		return;
	}
	if (rt_slice_is_stuck(worker) || worker->run_first != NULL || worker->posts_first != NULL) {
		unpark(worker);
	} else {
		arm_wakeup(worker);
	}
}

rt_err rt_loop_open(struct rt_worker *worker, struct rt_errinfo *info)
{
	int failed = uv_loop_init(&worker->loop);
	if (failed != 0) {
		return rt_errinfo_set(info, RT_E_IO, "worker loop: %s", uv_strerror(failed));
	}
	worker->looping = true;
	worker->on_wakeup = on_wakeup;
	worker->async.data = worker->idle.data = worker;
	worker->prepare.data = worker->wakeup.data = worker;
	failed = uv_async_init(&worker->loop, &worker->async, on_async);
	if (failed != 0) {
		return rt_errinfo_set(info, RT_E_IO, "worker wake-up: %s", uv_strerror(failed));
	}
	(void)uv_idle_init(&worker->loop, &worker->idle);
	(void)uv_prepare_init(&worker->loop, &worker->prepare);
	(void)uv_timer_init(&worker->loop, &worker->wakeup);
	(void)uv_idle_start(&worker->idle, on_idle);
	(void)uv_prepare_start(&worker->prepare, on_prepare);
	return RT_OK;
}

void rt_loop_run(void *arg)
{
	struct rt_worker *worker = arg;
	rt_worker_current = worker;
	(void)uv_run(&worker->loop, UV_RUN_DEFAULT);
	rt_worker_current = NULL;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle)) {
		uv_close(handle, NULL);
	}
}

void rt_loop_close(struct rt_worker *worker)
{
	uv_walk(&worker->loop, close_handle, NULL);
	(void)uv_run(&worker->loop, UV_RUN_DEFAULT);
	int failed = uv_loop_close(&worker->loop);
	RT_ASSERT(failed == 0);
	worker->looping = false;
}
