/* The bed of the real store: threads, and a folder that is removed at the end. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "tests/clustersim/conform.h"

struct inside {
	char dir[64];
	struct rt_system *system;
};

void conform_bed_new(struct conform_bed *bed, uint64_t seed)
{
	(void)seed;
	struct inside *in = calloc(1, sizeof(*in));
	RT_ASSERT(in != NULL);
	strcpy(in->dir, "/tmp/troupe-conform-XXXXXX");
	char *made = mkdtemp(in->dir);
	RT_ASSERT(made != NULL);
	*bed = (struct conform_bed){.inside = in};
}

void conform_bed_free(struct conform_bed *bed)
{
	struct inside *in = bed->inside;
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", in->dir);
	int code = system(command); /* NOLINT: a folder of our own making */
	RT_ASSERT(code == 0);
	free(in);
}

void conform_bed_open(struct conform_bed *bed, bool leave_tail)
{
	struct inside *in = bed->inside;
	struct rt_errinfo info = {0};
	struct rt_system_options system = {.workers = 1, .spin_us = RT_SPIN_NONE};
	struct ps_store_options options = {.dir = in->dir,
		.create = true,
		.shard_count = CONFORM_SHARDS - 1, /* and the cluster's own log */
		.free_space_low_bytes = 1,
		.leave_tail = leave_tail};
	rt_err err = rt_system_new(&system, &in->system, &info);
	RT_ASSERT(err == RT_OK);
	bed->worker = rt_system_worker(in->system, 0);
	err = ps_store_open(&options, &bed->store, &info);
	if (err != RT_OK) {
		fprintf(stderr, "%s\n", info.text);
	}
	RT_ASSERT(err == RT_OK);
	err = ps_indexer_start(bed->store, 1, &bed->indexer, &info);
	RT_ASSERT(err == RT_OK);
	err = ps_writer_start(bed->store, in->system, &bed->writer, &info);
	RT_ASSERT(err == RT_OK);
	err = ps_reader_start(bed->store, in->system, 2, &bed->reader, &info);
	RT_ASSERT(err == RT_OK);
	bed->stage = ps_indexer_stage(bed->indexer, 0);
	err = rt_system_start(in->system, &info);
	RT_ASSERT(err == RT_OK);
}

void conform_bed_wait(struct conform_bed *bed, _Atomic bool *done)
{
	(void)bed;
	while (!*done) {
		sched_yield();
	}
}

void conform_bed_close(struct conform_bed *bed)
{
	struct inside *in = bed->inside;
	ps_reader_stop(bed->reader);
	ps_writer_stop(bed->writer);
	rt_system_stop(in->system);
	ps_indexer_stop(bed->indexer);
	ps_store_close(bed->store);
	rt_system_free(in->system);
}
