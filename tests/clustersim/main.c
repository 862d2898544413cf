/* clustersim: its command line is that of tests/support/seeds.h. */
#include <stdlib.h>

#include "runtime/base/assert.h"
#include "runtime/base/log.h"
#include "tests/clustersim/clustersim.h"

static void run(uint64_t seed, uint32_t leaning, uint64_t *stats, struct seeds_trace *trace)
{
	struct cs *cs = calloc(1, sizeof(*cs));
	RT_ASSERT(cs != NULL);
	cs->seed = seed;
	cs->leaning = leaning;
	cs->stats = (struct cs_stats *)(void *)stats;
	cs->trace = trace;
	rt_log_set_level(trace->on ? RT_LOG_INFO : RT_LOG_OFF);
	rt_log_set_sink(cs_trace_log, cs);
	cs_run(cs);
	free(cs);
}

int main(int argc, char **argv)
{
#define X(name) #name,
	static const char *const stats[] = {CS_STATS(X)};
#undef X
	const struct seeds_program program = {
		.stats = stats, .stat_count = sizeof(stats) / sizeof(stats[0]), .run = run};
	return seeds_main(argc, argv, &program);
}
