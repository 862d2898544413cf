/* Readers in virtual time: a job's work is done at once, some time after it was asked for. */
#include <stdlib.h>

#include "tests/clustersim/mem_inside.h"

struct ps_reader {
	struct mem_store *store;
};

static void run_done(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_job *job = (struct ps_job *)(void *)post; /* post is the first member */
	(void)worker;
	job->done(job);
}

void mem_reader_run(struct ps_reader *reader, struct ps_job *job)
{
	struct mem_store *store = reader->store;
	store->reads--;
	job->work(job, &store->base);
	rt_worker_post_always(job->worker, &job->post);
}

rt_err ps_reader_submit(struct ps_reader *reader, struct rt_worker *worker, struct ps_job *job)
{
	struct mem_store *store = reader->store;
	struct mem_disk *disk = store->disk;
	const struct mem_shape *shape = disk->options.shape;
	RT_ASSERT(job->work != NULL && job->done != NULL);
	if (store->crashed) {
		return RT_E_CLOSED;
	}
	if (mem_chance(disk, shape->full_reads)) {
		return RT_E_FULL;
	}
	job->worker = worker;
	job->post = (struct rt_post){.run = run_done};
	job->next = NULL;
	uint64_t at = mem_now_us(disk) + mem_between(disk, shape->read_min, shape->read_max);
	if (mem_chance(disk, shape->slow_reads)) {
		at += mem_below(disk, shape->slow_read_max + 1);
	}
	store->reads++;
	mem_at(store, at, MEM_EV_READ, job);
	return RT_OK;
}

rt_err ps_reader_start(struct ps_store *store, struct rt_system *system, uint32_t threads,
	struct ps_reader **out, struct rt_errinfo *info)
{
	(void)system;
	(void)threads;
	(void)info;
	struct ps_reader *reader = calloc(1, sizeof(*reader));
	RT_ASSERT(reader != NULL);
	reader->store = mem_store_of(store);
	reader->store->reader = reader;
	*out = reader;
	return RT_OK;
}

void ps_reader_stop(struct ps_reader *reader)
{
	if (reader != NULL) {
		RT_ASSERT(reader->store->reads == 0);
		reader->store->reader = NULL;
		free(reader);
	}
}
