#include "actors/read.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

void ac_read_init(
	struct ac_read *read, const struct ac_shard *shard, struct rt_bytes pid, uint64_t hash)
{
	*read = (struct ac_read){0};
	RT_ASSERT(pid.size <= PS_PID_MAX);
	memcpy(read->pid, pid.data, pid.size);
	read->load.shard = shard->index;
	read->load.pid = rt_bytes_of(read->pid, pid.size);
	read->load.from_seq = 1;
	read->load.upto_seq = UINT64_MAX;
	read->tail_count = ac_unindexed_find(&shard->unindexed, hash, &read->tail);
	if (read->tail_count > 0) {
		read->tail_records = calloc(read->tail_count, sizeof(*read->tail_records));
		RT_ASSERT(read->tail_records != NULL);
	}
}

/* Another id with the same hash is passed over. */
static void read_newest(struct ac_read *read, struct ps_store *store)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < read->tail_count && read->load.err == RT_OK; i++) {
		struct rt_bytes bytes = {0};
		struct ps_record record;
		read->load.err = ps_store_get(
			store, read->load.shard, read->tail[i], &bytes, &read->load.info);
		if (read->load.err == RT_OK && ps_record_peek(bytes, &record) == RT_OK &&
			rt_bytes_equal(record.pid, read->load.pid)) {
			read->tail[kept] = read->tail[i];
			read->tail_records[kept++] = bytes;
		} else {
			free((void *)(uintptr_t)bytes.data);
		}
	}
	read->tail_count = kept;
	read->tail_read = kept;
}

static void work(struct ps_job *job, struct ps_store *store)
{
	struct ac_read *read = (struct ac_read *)job;
	ps_load_run(&read->load, store);
	if (read->load.err == RT_OK && !read->load.more) {
		read_newest(read, store);
	}
}

static void finish(struct ps_job *job)
{
	struct ac_read *read = (struct ac_read *)job;
	read->done(read);
}

_Static_assert(offsetof(struct ac_read, load.job.post) == 0, "refused() casts");

/* Never from inside start: done runs from a post of the worker's own. */
static void refused(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	struct ac_read *read = (struct ac_read *)post; /* The post is the first thing in the job. */
	read->done(read);
}

void ac_read_start(struct ac_read *read, struct ac_host *host)
{
	read->load.job.work = work;
	read->load.job.done = finish;
	rt_err err = ac_host_read(host, &read->load.job);
	if (err != RT_OK) {
		read->load.err = rt_errinfo_set(&read->load.info, err, "too many reads wait");
		read->load.job.post = (struct rt_post){.run = refused};
		rt_worker_post_always(host->worker, &read->load.job.post);
	}
}

bool ac_read_next(const struct ac_read *read, size_t *cursor, uint64_t *out_offset,
	struct rt_bytes *out_record)
{
	size_t at = (*cursor)++;
	if (at < read->load.record_count) {
		*out_offset = read->load.offsets[at];
		*out_record = read->load.records[at];
		return true;
	}
	at -= read->load.record_count;
	if (at < read->tail_read) {
		*out_offset = read->tail[at];
		*out_record = read->tail_records[at];
		return true;
	}
	return false;
}

void ac_read_clear(struct ac_read *read)
{
	ps_load_clear(&read->load);
	for (uint32_t i = 0; i < read->tail_read; i++) {
		free((void *)(uintptr_t)read->tail_records[i].data);
		read->tail_records[i] = (struct rt_bytes){0};
	}
	read->tail_read = 0;
}

void ac_read_done(struct ac_read *read)
{
	ac_read_clear(read);
	free(read->tail);
	free(read->tail_records);
	read->tail = NULL;
	read->tail_records = NULL;
	read->tail_count = 0;
}
