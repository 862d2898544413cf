/* sim: its command line is that of tests/support/seeds.h. */
#include <stdlib.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

static void run(uint64_t seed, uint32_t leaning, uint64_t *stats, struct seeds_trace *trace)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	RT_ASSERT(sim != NULL);
	(void)leaning;
	sim->seed = seed;
	sim->stats = (struct sim_stats *)(void *)stats;
	sim->trace = trace;
	sim_run(sim);
	free(sim);
}

int main(int argc, char **argv)
{
#define X(name) #name,
	static const char *const stats[] = {SIM_STATS(X)};
#undef X
	const struct seeds_program program = {
		.stats = stats, .stat_count = sizeof(stats) / sizeof(stats[0]), .run = run};
	return seeds_main(argc, argv, &program);
}
