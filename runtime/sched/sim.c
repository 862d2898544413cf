#include "runtime/sched/sim.h"

#include <stdlib.h>

#include "runtime/sched/core.h"

struct rt_sim {
	struct rt_random random;
	struct rt_system *system;
	uint64_t now_ns;
};

static uint64_t now_ns(void *arg)
{
	return ((struct rt_sim *)arg)->now_ns;
}

static void wake(void *arg, struct rt_worker *worker)
{
	(void)arg;
	(void)worker; /* every worker has its turn anyway */
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
	const struct rt_ports ports = {.now_ns = now_ns, .wake = wake, .arg = sim};
	rt_err err = rt_system_build(options, &ports, &sim->system, info);
	if (err != RT_OK) {
		free(sim);
		return err;
	}
	sim->system->simulated = true;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		sim->system->workers[i]->chaos = &sim->random;
	}
	*out = sim;
	return RT_OK;
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

static bool is_idle(struct rt_worker *worker)
{
	return rt_slice_is_idle(worker) && !rt_slice_is_stuck(worker) &&
	       rt_timers_next_ms(worker) > rt_worker_now_ms(worker);
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

bool rt_sim_step(struct rt_sim *sim)
{
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
	return sim->now_ns / 1000000;
}

uint64_t rt_sim_trace(const struct rt_sim *sim)
{
	uint64_t trace = 0;
	for (uint32_t i = 0; i < sim->system->worker_count; i++) {
		trace = trace * 31 + sim->system->workers[i]->trace;
	}
	return trace;
}
