#include "persistence/catchup.h"

#include <stdio.h>

#include "persistence/db.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"

static void wait_then(
	struct ps_catchup *catchup, void (*run)(struct rt_worker *worker, struct rt_post *post))
{
	catchup->barrier.post.run = run;
	catchup->barrier.worker = catchup->worker;
	ps_stage_barrier(catchup->stage, &catchup->barrier);
}

static void finish(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_catchup *catchup = RT_CONTAINER(post, struct ps_catchup, barrier.post);
	(void)worker;
	catchup->done(catchup, catchup->err);
}

static void end(struct ps_catchup *catchup, rt_err err)
{
	catchup->err = err;
	wait_then(catchup, finish);
}

static void read_page(struct rt_worker *worker, struct rt_post *post);

/* A record without rows moves the watermark over what the page skipped. */
static void stage_page(struct ps_catchup *catchup)
{
	const struct ps_scan *scan = &catchup->scan;
	uint64_t last = 0;
	for (size_t i = 0; i < scan->record_count; i++) {
		struct ps_record record;
		if (ps_record_decode(scan->records[i], &record) != RT_OK) {
			catchup->err = rt_errinfo_set(&catchup->scan.info, RT_E_CORRUPT,
				"shard %u offset %llu: not a record", catchup->shard,
				(unsigned long long)scan->offsets[i]);
			return;
		}
		last = scan->offsets[i];
		ps_stage_record(catchup->stage, catchup->shard, last, &record);
	}
	if (last < scan->next - 1) {
		struct ps_record none = {.kind = PS_KIND_NOOP};
		ps_stage_record(catchup->stage, catchup->shard, scan->next - 1, &none);
	}
	ps_stage_flush(catchup->stage);
}

static void page_done(struct ps_job *job)
{
	struct ps_catchup *catchup = RT_CONTAINER(job, struct ps_catchup, scan.job);
	struct ps_scan *scan = &catchup->scan;
	catchup->err = scan->err;
	if (catchup->wipes != catchup->store->shards[catchup->shard].wipes_done) {
		catchup->err = RT_E_FENCED;
	} else if (catchup->err == RT_OK && scan->next == scan->from) {
		catchup->err = rt_errinfo_set(&scan->info, RT_E_CORRUPT,
			"shard %u: the log ends before offset %llu", catchup->shard,
			(unsigned long long)scan->from);
	} else if (catchup->err == RT_OK) {
		stage_page(catchup);
	}
	ps_scan_clear(scan);
	scan->from = scan->next;
	if (catchup->err != RT_OK || scan->from > catchup->upto) {
		end(catchup, catchup->err);
	} else if (ps_store_backlog(catchup->store) >= PS_CHUNK_RECORDS) {
		wait_then(catchup, read_page);
	} else {
		read_page(catchup->worker, &catchup->barrier.post);
	}
}

static void page_work(struct ps_job *job, struct ps_store *store)
{
	ps_scan_run(RT_CONTAINER(job, struct ps_scan, job), store);
}

static void read_page(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_catchup *catchup = RT_CONTAINER(post, struct ps_catchup, barrier.post);
	rt_err err = catchup->stopped
			     ? RT_E_CLOSED
			     : ps_reader_submit(catchup->reader, worker, &catchup->scan.job);
	if (err == RT_E_FULL) {
		wait_then(catchup, read_page);
	} else if (err != RT_OK) {
		end(catchup, err);
	}
}

void ps_catchup_start(struct ps_catchup *catchup)
{
	RT_ASSERT(catchup->done != NULL && catchup->shard < catchup->store->log_count);
	catchup->err = RT_OK;
	catchup->wipes = catchup->store->shards[catchup->shard].wipes_done;
	catchup->scan = (struct ps_scan){.job = {.work = page_work, .done = page_done},
		.shard = catchup->shard,
		.from = ps_store_index_watermark(catchup->store, catchup->shard) + 1,
		.upto = catchup->upto};
	if (catchup->scan.from > catchup->upto) {
		end(catchup, RT_OK);
	} else {
		read_page(catchup->worker, &catchup->barrier.post);
	}
}
