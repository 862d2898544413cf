/*
 * sim.h - a system of workers in one thread, driven by a seed: which worker goes next, how long,
 * what is published when, which lanes seem full, in which order they are drained.
 *
 * The code is the real one below rt_slice; there are no loops, clocks or threads. The same seed and
 * the same actors give the same trace. Memory orders are not covered: that is what stress tests
 * under ThreadSanitizer are for.
 */
#ifndef RUNTIME_SCHED_SIM_H
#define RUNTIME_SCHED_SIM_H

#include "runtime/base/random.h"
#include "runtime/sched/worker.h"

struct rt_sim;

RT_NODISCARD rt_err rt_sim_new(const struct rt_system_options *options, uint64_t seed,
	struct rt_sim **out, struct rt_errinfo *info);
void rt_sim_free(struct rt_sim *sim);
struct rt_system *rt_sim_system(struct rt_sim *sim); /* never start or free it */

/* One of several systems that live on one clock and draw from one random source: whoever owns these
 * moves the time. */
struct rt_sim_world {
	uint64_t (*now_ns)(void *arg);
	void *arg;
	struct rt_random *random;
};
/* The world stays where it is until rt_sim_free. */
RT_NODISCARD rt_err rt_sim_join(const struct rt_system_options *options,
	const struct rt_sim_world *world, struct rt_sim **out, struct rt_errinfo *info);
/* When it has something to do: now, at a timer, or UINT64_MAX, not before somebody posts. */
uint64_t rt_sim_next_ms(const struct rt_sim *sim);
/* Slices at the present time until nothing is left to do now (true) or most_slices are over. */
bool rt_sim_settle(struct rt_sim *sim, uint32_t most_slices);

/* One slice of one worker, or a jump of the clock to the next timer. False: nothing left to do. */
bool rt_sim_step(struct rt_sim *sim); /* not of one that joined a world */
/* Steps until nothing is left (true) or most_steps are over (false). */
bool rt_sim_run(struct rt_sim *sim, uint64_t most_steps);
uint64_t rt_sim_now_ms(const struct rt_sim *sim);
/* A hash over every message handled so far: to whom, its type and its first word. */
uint64_t rt_sim_trace(const struct rt_sim *sim);

#endif
