#include "persistence/reader.h"

#include <stdlib.h>
#include <sys/prctl.h>

#include "persistence/db.h"
#include "runtime/base/assert.h"

#define THREADS_MAX 64u

struct ps_reader {
	/* Set at start. */
	struct ps_store *store;
	uv_thread_t *threads;
	uint32_t thread_count;

	/* Under lock. */
	uv_mutex_t lock;
	uv_cond_t queued;
	struct ps_job *head, **tail;
	uint32_t waiting_jobs, idle_threads;
	bool stopping;
};

static void run_done(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_job *job = (struct ps_job *)(void *)post; /* post is the first member */
	(void)worker;
	job->done(job);
}

static struct ps_job *take(struct ps_reader *reader)
{
	uv_mutex_lock(&reader->lock);
	while (reader->head == NULL && !reader->stopping) {
		reader->idle_threads++;
		uv_cond_wait(&reader->queued, &reader->lock);
		reader->idle_threads--;
	}
	struct ps_job *job = reader->head;
	if (job != NULL) {
		reader->head = job->next;
		reader->waiting_jobs--;
		if (reader->head == NULL) {
			reader->tail = &reader->head;
		}
	}
	uv_mutex_unlock(&reader->lock);
	return job;
}

static void run(void *arg)
{
	struct ps_reader *reader = arg;
	prctl(PR_SET_NAME, "ps-reader");
	rocksdb_set_perf_level(rocksdb_disable);
	struct ps_job *job;
	while ((job = take(reader)) != NULL) {
		job->work(job, reader->store);
		rt_worker_post_always(job->worker, &job->post);
	}
}

rt_err ps_reader_submit(struct ps_reader *reader, struct rt_worker *worker, struct ps_job *job)
{
	RT_ASSERT(job->work != NULL && job->done != NULL);
	job->worker = worker;
	job->post.run = run_done;
	job->post.next = NULL;
	job->next = NULL;
	uv_mutex_lock(&reader->lock);
	rt_err err = reader->stopping                       ? RT_E_CLOSED
		     : reader->waiting_jobs >= PS_READS_MAX ? RT_E_FULL
							    : RT_OK;
	bool wake = false;
	if (err == RT_OK) {
		*reader->tail = job;
		reader->tail = &job->next;
		reader->waiting_jobs++;
		wake = reader->idle_threads > 0;
	}
	uv_mutex_unlock(&reader->lock);
	if (wake) {
		uv_cond_signal(&reader->queued);
	}
	return err;
}

static void join(struct ps_reader *reader)
{
	uv_mutex_lock(&reader->lock);
	reader->stopping = true;
	uv_mutex_unlock(&reader->lock);
	uv_cond_broadcast(&reader->queued);
	for (uint32_t i = 0; i < reader->thread_count; i++) {
		uv_thread_join(&reader->threads[i]);
	}
	uv_cond_destroy(&reader->queued);
	uv_mutex_destroy(&reader->lock);
	free(reader->threads);
	free(reader);
}

rt_err ps_reader_start(struct ps_store *store, struct rt_system *system, uint32_t threads,
	struct ps_reader **out, struct rt_errinfo *info)
{
	(void)system;
	threads = threads == 0 ? 2 : threads;
	if (threads > THREADS_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "%u reader threads are too many", threads);
	}
	struct ps_reader *reader = calloc(1, sizeof(*reader));
	uv_thread_t *list = calloc(threads, sizeof(*list));
	if (reader == NULL || list == NULL) {
		free(reader);
		free(list);
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	reader->store = store;
	reader->threads = list;
	reader->tail = &reader->head;
	int code = uv_mutex_init(&reader->lock);
	RT_ASSERT(code == 0);
	code = uv_cond_init(&reader->queued);
	RT_ASSERT(code == 0);
	while (reader->thread_count < threads &&
		uv_thread_create(&list[reader->thread_count], run, reader) == 0) {
		reader->thread_count++;
	}
	if (reader->thread_count < threads) {
		join(reader);
		return rt_errinfo_set(info, RT_E_NOMEM, "cannot start the reader threads");
	}
	*out = reader;
	return RT_OK;
}

void ps_reader_stop(struct ps_reader *reader)
{
	if (reader != NULL) {
		join(reader);
	}
}
