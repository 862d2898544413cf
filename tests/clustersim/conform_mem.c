/* The bed of the store in memory: a simulated worker and a clock that jumps. */
#include <stdlib.h>

#include "runtime/base/assert.h"
#include "runtime/sched/sim.h"
#include "tests/clustersim/conform.h"
#include "tests/clustersim/mem.h"

struct inside {
	uint64_t now_us;
	struct rt_random random;
	struct mem_shape shape;
	struct mem_disk *disk;
	struct rt_sim *sim;
	uint64_t seed;
};

void conform_bed_new(struct conform_bed *bed, uint64_t seed)
{
	struct inside *in = calloc(1, sizeof(*in));
	RT_ASSERT(in != NULL);
	in->seed = seed;
	rt_random_seed(&in->random, seed ^ 77);
	in->shape = (struct mem_shape){.write_max = 100,
		.sync_min = 50,
		.sync_max = 1000,
		.slow_syncs = 10,
		.slow_max = 10000,
		.late_news = 20,
		.late_max = 500,
		.read_max = 100};
	struct mem_disk_options options = {.name = "conform",
		.now_us = &in->now_us,
		.random = &in->random,
		.shape = &in->shape};
	in->disk = mem_disk_new(&options);
	*bed = (struct conform_bed){.inside = in};
}

void conform_bed_free(struct conform_bed *bed)
{
	struct inside *in = bed->inside;
	mem_disk_free(in->disk);
	free(in);
}

void conform_bed_open(struct conform_bed *bed, bool leave_tail)
{
	struct inside *in = bed->inside;
	struct rt_system_options system = {.workers = 1};
	struct ps_store_options options = {.dir = "conform",
		.create = true,
		.shard_count = CONFORM_SHARDS - 1, /* and the cluster's own log */
		.leave_tail = leave_tail};
	rt_err err = rt_sim_new(&system, in->seed, &in->sim, NULL);
	RT_ASSERT(err == RT_OK);
	bed->worker = rt_system_worker(rt_sim_system(in->sim), 0);
	err = ps_store_open(&options, &bed->store, NULL);
	RT_ASSERT(err == RT_OK);
	err = ps_indexer_start(bed->store, 1, &bed->indexer, NULL);
	RT_ASSERT(err == RT_OK);
	err = ps_writer_start(bed->store, rt_sim_system(in->sim), &bed->writer, NULL);
	RT_ASSERT(err == RT_OK);
	err = ps_reader_start(bed->store, rt_sim_system(in->sim), 2, &bed->reader, NULL);
	RT_ASSERT(err == RT_OK);
	bed->stage = ps_indexer_stage(bed->indexer, 0);
}

void conform_bed_wait(struct conform_bed *bed, _Atomic bool *done)
{
	struct inside *in = bed->inside;
	while (!*done) {
		uint64_t next = mem_disk_next_us(in->disk);
		RT_ASSERT(next != MEM_NEVER);
		in->now_us = next;
		mem_disk_run(in->disk);
		while (rt_sim_step(in->sim)) {
		}
	}
}

void conform_bed_close(struct conform_bed *bed)
{
	struct inside *in = bed->inside;
	ps_reader_stop(bed->reader);
	ps_writer_stop(bed->writer);
	ps_indexer_stop(bed->indexer);
	ps_store_close(bed->store);
	rt_sim_free(in->sim);
}
