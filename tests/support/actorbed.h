/*
 * actorbed.h - actors of three workers in the simulator, and one that answers and one that asks:
 * time is given, order is the seed's.
 *
 * Threads: one.
 */
#ifndef TESTS_SUPPORT_ACTORBED_H
#define TESTS_SUPPORT_ACTORBED_H

#include <stdint.h>

#include "runtime/sched/actor.h"
#include "runtime/sched/sim.h"
#include "runtime/sched/stats.h"

#define BED_SEEDS       40u
#define BED_STEPS       1000000u
#define FOR_SEEDS(seed) for (uint64_t seed = 1; seed <= BED_SEEDS; seed++)

enum {
	GO = 1,
	ADD,
	GET,
	SUM,
	NOTHING,
	BOOM,
	SLEEP,
	WAKE,
	QUIET,
	CHILD,
	RING
};

/* What a test looks at; empty again with each bed_begin. */
struct actorbed {
	struct rt_sim *sim;
	struct rt_worker *worker[3];
	int answers[16];
	uint64_t value;
	uint64_t at_ms;
	int count, stops, starts;
	struct rt_ref ref, other;
	char text[256];
};
extern struct actorbed bed;

/* A simulated system of three workers; cap: messages in a mailbox, 0 for the default. */
void bed_begin(uint64_t seed, uint32_t cap);
/* Until nothing is left to do. */
void bed_run(void);
void bed_end(void);
struct rt_ref bed_spawn(uint32_t worker, const struct rt_behaviour *behaviour, void *arg);
void bed_tell(struct rt_ref to, uint32_t type, uint64_t word);
/* Of all workers. */
struct rt_worker_stats bed_stats(void);

/* ADD: answered at once; SLEEP: with the next WAKE; NOTHING: never; BOOM: fails; others: stops. */
struct bed_server {
	uint64_t sum;
	struct rt_envelope *kept;
};
enum rt_turn bed_serve(struct rt_actor *self, struct rt_envelope *env);
extern const struct rt_behaviour bed_server;

/* An actor that asks so many times, one after the other, each for at most 100 ms. Its answers are
 * counted in bed.answers: at the kind from RT_MSG_FIRST on, SUM in the last. */
void bed_ask(uint32_t worker, struct rt_ref whom, uint32_t type, uint64_t count);

#endif
