#include "runtime/sched/sim.h"

#include <stdlib.h>

#include "runtime/sched/core.h"

struct rt_sim {
	struct rt_sim_world world;
	struct rt_random random; /* alone: the world's */
	struct rt_system *system;
	uint64_t now_ns;
};

static uint64_t now_ns(void *arg)
{
	return ((struct rt_sim *)arg)->now_ns;
}

static uint64_t world_now_ns(void *arg)
{
	const struct rt_sim_world *world = &((struct rt_sim *)arg)->world;
	return world->now_ns(world->arg);
}

static void wake(void *arg, struct rt_worker *worker)
{
	(void)arg;
	(void)worker; /* every worker has its turn anyway */
}

static rt_err build(struct rt_sim *sim, const struct rt_system_options *options,
	struct rt_sim **out, struct rt_errinfo *info)
{
	const struct rt_ports ports = {.now_ns = world_now_ns, .wake = wake, .arg = sim};
	rt_err err = rt_system_build(options, &ports, &sim->system, info);
	if (err != RT_OK) {
		free(sim);
		return err;
	}
	sim->system->simulated = true;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		sim->system->workers[i]->chaos = sim->world.random;
	}
	*out = sim;
	return RT_OK;
}

rt_err rt_sim_new(const struct rt_system_options *options, uint64_t seed, struct rt_sim **out,
	struct rt_errinfo *info)
{
	struct rt_sim *sim = calloc(1, sizeof(*sim));
	if (sim == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "new simulation");
	}
	rt_random_seed(&sim->random, seed);
	sim->now_ns = UINT64_C(1000000000);
	sim->world = (struct rt_sim_world){now_ns, sim, &sim->random};
	return build(sim, options, out, info);
}

rt_err rt_sim_join(const struct rt_system_options *options, const struct rt_sim_world *world,
	struct rt_sim **out, struct rt_errinfo *info)
{
	struct rt_sim *sim = calloc(1, sizeof(*sim));
	if (sim == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "join simulation");
	}
	sim->world = *world;
	return build(sim, options, out, info);
}

void rt_sim_free(struct rt_sim *sim)
{
	if (sim != NULL) {
		rt_system_free(sim->system);
		free(sim);
	}
}

struct rt_system *rt_sim_system(struct rt_sim *sim)
{
	return sim->system;
}

static bool has_work(const struct rt_worker *worker)
{
	return !rt_slice_is_idle(worker) || rt_slice_is_stuck(worker);
}

static bool is_idle(struct rt_worker *worker)
{
	return !has_work(worker) && rt_timers_next_ms(worker) > rt_worker_now_ms(worker);
}

/* False: no timer either. */
static bool jump(struct rt_sim *sim)
{
	uint64_t next_ms = UINT64_MAX;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		uint64_t due_ms = rt_timers_next_ms(sim->system->workers[i]);
		next_ms = due_ms < next_ms ? due_ms : next_ms;
	}
	if (next_ms >= UINT64_MAX / 1000000) {
		return false;
	}
	sim->now_ns = next_ms * 1000000;
	return true;
}

uint64_t rt_sim_next_ms(const struct rt_sim *sim)
{
	uint64_t next_ms = UINT64_MAX;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		const struct rt_worker *worker = sim->system->workers[i];
		if (has_work(worker)) {
			return rt_sim_now_ms(sim);
		}
		uint64_t due_ms = rt_timers_next_ms(worker);
		next_ms = due_ms < next_ms ? due_ms : next_ms;
	}
	return next_ms;
}

bool rt_sim_settle(struct rt_sim *sim, uint32_t most_slices)
{
	for (uint32_t i = 0; i < most_slices; i++) {
		if (rt_sim_next_ms(sim) > rt_sim_now_ms(sim)) {
			return true;
		}
		uint32_t next = rt_random_below(sim->world.random, sim->system->worker_count);
		(void)rt_slice(sim->system->workers[next], 0);
	}
	return false;
}

bool rt_sim_step(struct rt_sim *sim)
{
	RT_ASSERT(sim->world.random == &sim->random);
	bool idle = true;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		idle = idle && is_idle(sim->system->workers[i]);
	}
	if (idle && !jump(sim)) {
		return false;
	}
	sim->now_ns += rt_random_below(&sim->random, 50000);
	uint32_t next = rt_random_below(&sim->random, sim->system->worker_count);
	(void)rt_slice(sim->system->workers[next], 0);
	return true;
}

bool rt_sim_run(struct rt_sim *sim, uint64_t most_steps)
{
	for (uint64_t i = 0; i < most_steps; i++) {
		if (!rt_sim_step(sim)) {
			return true;
		}
	}
	return false;
}

uint64_t rt_sim_now_ms(const struct rt_sim *sim)
{
	return sim->world.now_ns(sim->world.arg) / 1000000;
}

uint64_t rt_sim_trace(const struct rt_sim *sim)
{
	uint64_t trace = 0;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		trace = trace * 31 + sim->system->workers[i]->trace;
	}
	return trace;
}
