#include <stdlib.h>
#include <string.h>

#include "runtime/sched/core.h"

#define SPIN_US_DEFAULT     20u
#define MAILBOX_CAP_DEFAULT 1024u
#define POSTS_MAX_DEFAULT   65536u
#define ACTORS_MAX          (1u << 24)
#define STOP_WAIT_NS        UINT64_C(2000000000)
#define STOP_LOOK_NS        UINT64_C(20000000)

_Thread_local struct rt_worker *rt_worker_current;

/* ---- building ---- */

static void fill_options(struct rt_system_options *options)
{
	if (options->workers == 0) {
		unsigned cores = uv_available_parallelism();
		options->workers = cores > 1 ? cores - 1 : 1;
	}
	if (options->workers > RT_WORKERS_MAX) {
		options->workers = RT_WORKERS_MAX;
	}
	if (options->spin_us == 0) {
		options->spin_us = SPIN_US_DEFAULT;
	}
	if (options->mailbox_cap == 0) {
		options->mailbox_cap = MAILBOX_CAP_DEFAULT;
	}
	if (options->posts_max == 0) {
		options->posts_max = POSTS_MAX_DEFAULT;
	}
	if (options->actors_max == 0 || options->actors_max > ACTORS_MAX) {
		options->actors_max = ACTORS_MAX;
	}
}

/* 2,048 slots are the best for two workers; lanes grow with the square of the workers. */
static rt_err build_lanes(struct rt_system *system)
{
	uint32_t n = system->worker_count;
	size_t bytes = (size_t)2 * n * n * sizeof(struct rt_lane);
	system->lanes = aligned_alloc(RT_CACHELINE, bytes);
	if (system->lanes == NULL) {
		return RT_E_NOMEM;
	}
	memset(system->lanes, 0, bytes);
	for (uint32_t i = 0; i < 2 * n * n; i++) {
		uint32_t from = i / n % n;
		uint32_t to = i % n;
		struct rt_lane *lane = &system->lanes[i];
		system->workers[from]->out[to].lane[i / (n * n)] = lane;
		system->workers[to]->in[from].lane[i / (n * n)] = lane;
		rt_err err = from == to ? RT_OK : rt_lane_init(lane, n <= 4 ? 2048 : 512);
		if (err != RT_OK) {
			return err;
		}
	}
	return RT_OK;
}

static rt_err build_worker(struct rt_system *system, uint32_t index)
{
	size_t bytes = (sizeof(struct rt_worker) + 127) & ~(size_t)127;
	struct rt_worker *worker = aligned_alloc(128, bytes);
	if (worker == NULL) {
		return RT_E_NOMEM;
	}
	memset(worker, 0, bytes);
	system->workers[index] = worker;
	worker->system = system;
	worker->index = index;
	worker->timer_armed_ms = UINT64_MAX;
	worker->spin_ns = (uint64_t)system->options.spin_us * 1000;
	worker->actors_max = system->options.actors_max;
	uint32_t slabs = (worker->actors_max + RT_SLAB_CELLS - 1) / RT_SLAB_CELLS;
	worker->slabs = calloc(slabs, sizeof(*worker->slabs));
	return worker->slabs != NULL ? RT_OK : RT_E_NOMEM;
}

rt_err rt_system_build(const struct rt_system_options *options, const struct rt_ports *ports,
	struct rt_system **out, struct rt_errinfo *info)
{
	struct rt_system *system = calloc(1, sizeof(*system));
	if (system == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "new system");
	}
	if (options != NULL) {
		system->options = *options;
	}
	fill_options(&system->options);
	system->ports = *ports;
	(void)uv_mutex_init(&system->mutex);
	(void)uv_cond_init(&system->idle);
	uint32_t count = system->options.workers;
	system->workers = calloc(count, sizeof(struct rt_worker *));
	rt_err err = system->workers != NULL ? RT_OK : RT_E_NOMEM;
	system->worker_count = err == RT_OK ? count : 0;
	for (uint32_t i = 0; i < count && err == RT_OK; i++) {
		err = build_worker(system, i);
	}
	if (err == RT_OK) {
		err = build_lanes(system);
	}
	if (err != RT_OK) {
		rt_system_free(system);
		return rt_errinfo_set(info, err, "new system of %u workers", (unsigned)count);
	}
	*out = system;
	return RT_OK;
}

static uint64_t now_ns(void *arg)
{
	(void)arg;
	return uv_hrtime();
}

rt_err rt_system_new(
	const struct rt_system_options *options, struct rt_system **out, struct rt_errinfo *info)
{
	const struct rt_ports ports = {.now_ns = now_ns, .wake = rt_loop_wake};
	struct rt_system *system;
	rt_err err = rt_system_build(options, &ports, &system, info);
	if (err != RT_OK) {
		return err;
	}
	for (uint32_t i = 0; i < system->worker_count; i++) {
		err = rt_loop_open(system->workers[i], info);
		if (err != RT_OK) {
			rt_system_free(system);
			return err;
		}
	}
	*out = system;
	return RT_OK;
}

/* ---- starting and stopping ---- */

rt_err rt_system_start(struct rt_system *system, struct rt_errinfo *info)
{
	RT_ASSERT(system->state == RT_SYSTEM_NEW && system->workers[0]->looping);
	system->state = RT_SYSTEM_RUNNING;
	for (uint32_t i = 0; i < system->worker_count; i++) {
		struct rt_worker *worker = system->workers[i];
		int failed = uv_thread_create(&worker->thread, rt_loop_run, worker);
		if (failed != 0) {
			rt_err err = rt_errinfo_set(info, RT_E_NOMEM, "start worker %u: %s",
				(unsigned)i, uv_strerror(failed));
			rt_system_stop(system);
			return err;
		}
		worker->threaded = true;
	}
	return RT_OK;
}

static void call_all(struct rt_system *system, uint32_t stopping)
{
	atomic_store_explicit(&system->stopping, stopping, memory_order_relaxed);
	for (uint32_t i = 0; i < system->worker_count; i++) {
		struct rt_worker *worker = system->workers[i];
		/* The release in the call is what publishes `stopping`. */
		if (worker->threaded && rt_call_ring(&worker->call, RT_CALL_POST)) {
			rt_loop_wake(NULL, worker);
		}
	}
}

static bool is_parked(struct rt_worker *worker, uint64_t *epoch)
{
	bool parked = !worker->threaded ||
		      atomic_load_explicit(&worker->call, memory_order_acquire) == RT_CALL_PARKED;
	*epoch = atomic_load_explicit(&worker->epoch, memory_order_relaxed);
	return parked;
}

/* All parked twice and none has woken in between: there was a moment when all were parked, and a
 * worker publishes before it parks, so nothing is on its way. */
static bool all_parked(struct rt_system *system)
{
	uint64_t first[RT_WORKERS_MAX];
	uint64_t second;
	for (uint32_t i = 0; i < system->worker_count; i++) {
		if (!is_parked(system->workers[i], &first[i])) {
			return false;
		}
	}
	for (uint32_t i = 0; i < system->worker_count; i++) {
		if (!is_parked(system->workers[i], &second) || second != first[i]) {
			return false;
		}
	}
	return true;
}

static void wait_until_idle(struct rt_system *system)
{
	uint64_t end = uv_hrtime() + STOP_WAIT_NS;
	uv_mutex_lock(&system->mutex);
	while (!all_parked(system) && uv_hrtime() < end) {
		(void)uv_cond_timedwait(&system->idle, &system->mutex, STOP_LOOK_NS);
	}
	uv_mutex_unlock(&system->mutex);
}

/* What arrived after its worker left runs here: a post is always run. */
static void run_late_posts(struct rt_worker *worker)
{
	rt_worker_current = worker;
	do {
		rt_posts_take(worker);
	} while (rt_posts_run(worker, UINT32_MAX));
	rt_worker_current = NULL;
}

void rt_system_stop(struct rt_system *system)
{
	if (system->state == RT_SYSTEM_STOPPED) {
		return;
	}
	RT_ASSERT(rt_worker_current == NULL);
	system->state = RT_SYSTEM_STOPPED;
	if (!system->simulated) {
		call_all(system, 1);
		wait_until_idle(system);
		call_all(system, 2);
	}
	for (uint32_t i = 0; i < system->worker_count; i++) {
		if (system->workers[i]->threaded) {
			uv_thread_join(&system->workers[i]->thread);
			system->workers[i]->threaded = false;
		}
	}
	for (uint32_t i = 0; i < system->worker_count; i++) {
		run_late_posts(system->workers[i]);
	}
}

/* ---- freeing ---- */

static void free_in_lane(struct rt_lane *lane)
{
	if (lane->w_slots == NULL) {
		return;
	}
	for (uint32_t at = lane->r_head; at != lane->w_tail; at++) {
		rt_envelope_drop(&lane->w_slots[at & lane->w_mask]);
	}
	rt_lane_done(lane);
}

static void free_worker(struct rt_worker *worker)
{
	if (worker->slabs != NULL) {
		rt_worker_current = worker;
		rt_actor_bury_all(worker);
		rt_worker_current = NULL;
	}
	for (uint32_t i = 0; i < worker->system->worker_count; i++) {
		struct rt_envelope *env = worker->out[i].owed_first;
		for (; env != NULL; env = env->next) {
			rt_envelope_drop(env);
		}
	}
	if (worker->looping) {
		rt_loop_close(worker);
	}
}

static void free_memory(struct rt_worker *worker)
{
	rt_envelope_pool_done(worker);
	rt_pending_done(worker);
	for (uint32_t i = 0; worker->slabs != NULL && i < worker->actors_made; i += RT_SLAB_CELLS) {
		free(worker->slabs[i / RT_SLAB_CELLS]);
	}
	free(worker->slabs);
	free(worker);
}

void rt_system_free(struct rt_system *system)
{
	if (system == NULL) {
		return;
	}
	RT_ASSERT(system->state != RT_SYSTEM_RUNNING);
	uint32_t count = system->worker_count;
	for (uint32_t i = 0; i < count && system->workers[i] != NULL; i++) {
		run_late_posts(system->workers[i]);
	}
	for (uint32_t i = 0; i < count && system->workers[i] != NULL; i++) {
		free_worker(system->workers[i]);
	}
	for (uint32_t i = 0; system->lanes != NULL && i < 2 * count * count; i++) {
		free_in_lane(&system->lanes[i]);
	}
	for (uint32_t i = 0; i < count && system->workers[i] != NULL; i++) {
		free_memory(system->workers[i]);
	}
	free(system->lanes);
	free(system->workers);
	uv_cond_destroy(&system->idle);
	uv_mutex_destroy(&system->mutex);
	free(system);
}

/* ---- looking ---- */

uint32_t rt_system_worker_count(const struct rt_system *system)
{
	return system->worker_count;
}

struct rt_worker *rt_system_worker(struct rt_system *system, uint32_t index)
{
	RT_ASSERT(index < system->worker_count);
	return system->workers[index];
}

struct rt_system *rt_worker_system(struct rt_worker *worker)
{
	return worker->system;
}

uint32_t rt_worker_index(const struct rt_worker *worker)
{
	return worker->index;
}

uv_loop_t *rt_worker_loop(struct rt_worker *worker)
{
	RT_ASSERT(worker->looping);
	return &worker->loop;
}

uint64_t rt_worker_clock_ms(struct rt_worker *worker)
{
	const struct rt_ports *ports = &worker->system->ports;
	return ports->now_ns(ports->arg) / 1000000;
}

uint64_t rt_worker_now_ms(struct rt_worker *worker)
{
	if (worker->in_slice) {
		return worker->now_ms;
	}
	const struct rt_ports *ports = &worker->system->ports;
	return ports->now_ns(ports->arg) / 1000000;
}

struct rt_worker *rt_worker_self(void)
{
	return rt_worker_current;
}

void rt_worker_set_data(struct rt_worker *worker, void *data)
{
	worker->data = data;
}

void *rt_worker_data(struct rt_worker *worker)
{
	return worker->data;
}

void rt_worker_set_turn_hook(
	struct rt_worker *worker, void (*hook)(struct rt_worker *worker, void *arg), void *arg)
{
	worker->hook = hook;
	worker->hook_arg = arg;
}
