#include "persistence/writer.h"

#include <stdlib.h>
#include <sys/prctl.h>

#include "persistence/db.h"
#include "persistence/indexer.h"
#include "runtime/base/assert.h"

#define ROUNDS_KEPT 64u /* recycled per writer */

struct ps_writer {
	/* Set at start. */
	struct ps_store *store;
	struct rt_system *system;
	uv_thread_t thread;
	struct rt_worker **workers;
	uint32_t worker_count;

	/* Under lock. */
	uv_mutex_t lock;
	uv_cond_t queued;
	struct ps_round *head, **tail;
	struct ps_round *idle;
	uint32_t idle_count;
	uint32_t rounds_out; /* acquired and not released; the last one frees a stopped writer */
	bool waiting, stopping, stopped;

	/* Writer thread. */
	struct ps_log_row *rows;
	struct ps_meta_row *meta;
	size_t row_cap, meta_cap;
	size_t *start; /* counting sort by shard */
	rt_err failed; /* the first error: every later round gets it */
};

static void round_free(struct ps_round *round)
{
	for (uint32_t i = 0; i < round->meta_count; i++) {
		free((void *)(uintptr_t)round->meta[i].key.data);
	}
	free(round->meta);
	free(round->entries);
	free(round->bytes);
	free(round);
}

static void writer_free(struct ps_writer *writer)
{
	while (writer->idle != NULL) {
		struct ps_round *round = writer->idle;
		writer->idle = round->next;
		round_free(round);
	}
	uv_cond_destroy(&writer->queued);
	uv_mutex_destroy(&writer->lock);
	free(writer->workers);
	free(writer->rows);
	free(writer->meta);
	free(writer->start);
	free(writer);
}

/* ---- rounds, on workers ---- */

struct ps_round *ps_round_acquire(struct ps_writer *writer, struct rt_worker *worker)
{
	uv_mutex_lock(&writer->lock);
	struct ps_round *round = writer->idle;
	if (round != NULL) {
		writer->idle = round->next;
		writer->idle_count--;
	} else {
		round = calloc(1, sizeof(*round));
	}
	writer->rounds_out += round != NULL;
	uv_mutex_unlock(&writer->lock);
	if (round == NULL) {
		return NULL;
	}
	round->writer = writer;
	round->worker = worker;
	round->next = NULL;
	return round;
}

static bool entry_room(struct ps_round *round)
{
	if (round->entry_count < round->entry_cap) {
		return true;
	}
	uint32_t cap = round->entry_cap == 0 ? 64 : round->entry_cap * 2;
	struct ps_entry *entries = realloc(round->entries, cap * sizeof(*entries));
	if (entries == NULL) {
		return false;
	}
	round->entries = entries;
	round->entry_cap = cap;
	return true;
}

uint8_t *ps_round_add(struct ps_round *round, uint32_t shard, size_t size, uint32_t *out_entry)
{
	RT_ASSERT(size > 0 && size <= PS_RECORD_MAX);
	RT_ASSERT(shard < round->writer->store->log_count);
	if (!entry_room(round)) {
		return NULL;
	}
	if (round->byte_cap - round->byte_count < size) {
		size_t cap = round->byte_cap == 0 ? 16384 : round->byte_cap * 2;
		cap = cap - round->byte_count < size ? round->byte_count + size : cap;
		uint8_t *bytes = cap > UINT32_MAX ? NULL : realloc(round->bytes, cap);
		if (bytes == NULL) {
			return NULL;
		}
		round->bytes = bytes;
		round->byte_cap = cap;
	}
	struct ps_entry *entry = &round->entries[round->entry_count];
	*entry = (struct ps_entry){.pos = (uint32_t)round->byte_count,
		.size = (uint32_t)size,
		.shard = shard,
		.next = UINT32_MAX};
	*out_entry = round->entry_count++;
	round->byte_count += size;
	return round->bytes + entry->pos;
}

static rt_err add_step(struct ps_round *round, const struct ps_entry *entry)
{
	RT_ASSERT(entry->offset > 0 && entry->shard < round->writer->store->log_count);
	if (!entry_room(round)) {
		return RT_E_NOMEM;
	}
	round->entries[round->entry_count++] = *entry;
	return RT_OK;
}

rt_err ps_round_cut(struct ps_round *round, uint32_t shard, uint64_t offset)
{
	struct ps_entry entry = {
		.kind = PS_ROW_CUT, .shard = shard, .offset = offset, .next = UINT32_MAX};
	return add_step(round, &entry);
}

rt_err ps_round_wipe(struct ps_round *round, uint32_t shard, uint64_t first)
{
	struct ps_entry entry = {
		.kind = PS_ROW_WIPE, .shard = shard, .offset = first, .next = UINT32_MAX};
	rt_err err = add_step(round, &entry);
	round->wipes = round->wipes || err == RT_OK;
	return err;
}

void ps_round_drop(struct ps_round *round, uint32_t entry)
{
	RT_ASSERT(entry < round->entry_count && round->entries[entry].kind == PS_ROW_RECORD);
	round->entries[entry].kind = PS_ROW_DROPPED;
}

rt_err ps_round_add_meta(struct ps_round *round, struct rt_bytes key, struct rt_bytes value)
{
	RT_ASSERT(key.size > 0 && key.data[0] != 0); /* a NUL begins this module's own keys */
	if (round->meta_count == round->meta_cap) {
		uint32_t cap = round->meta_cap == 0 ? 8 : round->meta_cap * 2;
		struct ps_meta_row *meta = realloc(round->meta, cap * sizeof(*meta));
		if (meta == NULL) {
			return RT_E_NOMEM;
		}
		round->meta = meta;
		round->meta_cap = cap;
	}
	uint8_t *copy = malloc(key.size + value.size);
	if (copy == NULL) {
		return RT_E_NOMEM;
	}
	memcpy(copy, key.data, key.size);
	if (value.size > 0) {
		memcpy(copy + key.size, value.data, value.size);
	}
	round->meta[round->meta_count++] = (struct ps_meta_row){
		rt_bytes_of(copy, key.size), rt_bytes_of(copy + key.size, value.size)};
	return RT_OK;
}

bool ps_round_is_full(const struct ps_round *round)
{
	return round->byte_count >= PS_ROUND_BYTES || round->entry_count >= PS_ROUND_RECORDS;
}

void ps_round_release(struct ps_round *round)
{
	struct ps_writer *writer = round->writer;
	for (uint32_t i = 0; i < round->meta_count; i++) {
		free((void *)(uintptr_t)round->meta[i].key.data);
	}
	round->meta_count = 0;
	round->entry_count = 0;
	round->byte_count = 0;
	round->wipes = false;
	round->done = NULL;
	round->arg = NULL;
	if (round->byte_cap > 4u * PS_ROUND_BYTES) {
		free(round->bytes); /* one huge round is no reason to stay huge */
		round->bytes = NULL;
		round->byte_cap = 0;
	}
	uv_mutex_lock(&writer->lock);
	bool keep = writer->idle_count < ROUNDS_KEPT;
	if (keep) {
		round->next = writer->idle;
		writer->idle = round;
		writer->idle_count++;
	}
	bool last = --writer->rounds_out == 0 && writer->stopped;
	uv_mutex_unlock(&writer->lock);
	if (!keep) {
		round_free(round);
	}
	if (last) {
		writer_free(writer);
	}
}

/* From here on the worker stages records of the new logs. */
static void count_wipes(const struct ps_round *round)
{
	for (uint32_t i = 0; i < round->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[i];
		if (entry->kind == PS_ROW_WIPE) {
			round->writer->store->shards[entry->shard].wipes_done++;
		}
	}
}

static void run_done(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_round *round = (struct ps_round *)(void *)post; /* post is the first member */
	(void)worker;
	if (round->wipes && round->result == RT_OK) {
		count_wipes(round);
	}
	round->done(round, round->result);
}

void ps_writer_submit(struct ps_writer *writer, struct ps_round *round)
{
	RT_ASSERT(round->done != NULL && round->writer == writer);
	round->post.run = run_done;
	round->next = NULL;
	uv_mutex_lock(&writer->lock);
	RT_ASSERT(!writer->stopping);
	*writer->tail = round;
	writer->tail = &round->next;
	bool wake = writer->waiting;
	uv_mutex_unlock(&writer->lock);
	if (wake) {
		uv_cond_signal(&writer->queued);
	}
}

/* ---- the thread ---- */

/* Everything that queued, or NULL when it is time to stop. */
static struct ps_round *take(struct ps_writer *writer)
{
	uv_mutex_lock(&writer->lock);
	while (writer->head == NULL && !writer->stopping) {
		writer->waiting = true;
		uv_cond_wait(&writer->queued, &writer->lock);
	}
	writer->waiting = false;
	struct ps_round *rounds = writer->head;
	writer->head = NULL;
	writer->tail = &writer->head;
	uv_mutex_unlock(&writer->lock);
	return rounds;
}

static bool make_room(struct ps_writer *writer, const struct ps_round *rounds)
{
	size_t rows = 0;
	size_t meta = 0;
	for (const struct ps_round *round = rounds; round != NULL; round = round->next) {
		rows += round->entry_count;
		meta += round->meta_count;
	}
	if (rows > writer->row_cap) {
		free(writer->rows);
		writer->row_cap = rows * 2;
		writer->rows = calloc(writer->row_cap, sizeof(*writer->rows));
	}
	if (meta > writer->meta_cap) {
		free(writer->meta);
		writer->meta_cap = meta * 2;
		writer->meta = calloc(writer->meta_cap, sizeof(*writer->meta));
	}
	if ((rows > 0 && writer->rows == NULL) || (meta > 0 && writer->meta == NULL)) {
		writer->row_cap = writer->rows == NULL ? 0 : writer->row_cap;
		writer->meta_cap = writer->meta == NULL ? 0 : writer->meta_cap;
		return false;
	}
	return true;
}

/* Sorted by shard; within a shard in the order of submits and adds. */
static size_t sort_rows(struct ps_writer *writer, const struct ps_round *rounds)
{
	size_t *start = writer->start;
	uint32_t shards = writer->store->log_count;
	memset(start, 0, (shards + 1u) * sizeof(*start));
	size_t count = 0;
	for (const struct ps_round *round = rounds; round != NULL; round = round->next) {
		for (uint32_t i = 0; i < round->entry_count; i++) {
			uint32_t one = round->entries[i].kind != PS_ROW_DROPPED;
			start[round->entries[i].shard + 1u] += one;
			count += one;
		}
	}
	for (uint32_t i = 0; i < shards; i++) {
		start[i + 1] += start[i];
	}
	for (const struct ps_round *round = rounds; round != NULL; round = round->next) {
		for (uint32_t i = 0; i < round->entry_count; i++) {
			const struct ps_entry *entry = &round->entries[i];
			if (entry->kind != PS_ROW_DROPPED) {
				writer->rows[start[entry->shard]++] = (struct ps_log_row){
					entry->shard, entry->kind, entry->offset,
					rt_bytes_of(round->bytes + entry->pos, entry->size)};
			}
		}
	}
	return count;
}

static rt_err write_rounds(struct ps_writer *writer, const struct ps_round *rounds)
{
	if (!make_room(writer, rounds)) {
		/* Nothing was written, but a round between two that were must not be missing. */
		return RT_E_NOMEM;
	}
	size_t count = sort_rows(writer, rounds);
	size_t meta = 0;
	for (const struct ps_round *round = rounds; round != NULL; round = round->next) {
		for (uint32_t i = 0; i < round->meta_count; i++) {
			writer->meta[meta++] = round->meta[i];
		}
	}
	rt_err err = ps_store_append(writer->store, writer->rows, count, writer->meta, meta, NULL);
	return err == RT_OK ? ps_store_sync(writer->store, NULL) : err;
}

/* One chain of posts per worker, so that each is woken once. A round that was posted may be in use
 * again at once, so it leaves the list first. */
static void hand_back(struct ps_writer *writer, struct ps_round *rounds, rt_err err)
{
	for (uint32_t i = 0; rounds != NULL && i < writer->worker_count; i++) {
		struct rt_post *first = NULL;
		struct rt_post **last = &first;
		struct ps_round *rest = NULL;
		struct ps_round **tail = &rest;
		for (struct ps_round *round = rounds; round != NULL; round = round->next) {
			if (round->worker == writer->workers[i]) {
				round->result = err;
				round->post.next = NULL;
				*last = &round->post;
				last = &round->post.next;
			} else {
				*tail = round;
				tail = &round->next;
			}
		}
		*tail = NULL;
		rounds = rest;
		if (first != NULL) {
			rt_worker_post_always(writer->workers[i], first);
		}
	}
	RT_ASSERT(rounds == NULL); /* every round belongs to a worker of this system */
}

static void wait_for_indexer(struct ps_store *store)
{
	if (ps_store_backlog(store) <= PS_BACKLOG_RECORDS) {
		return;
	}
	uv_mutex_lock(&store->lock);
	/* On a full disk that could take for ever; commands are refused there already. */
	while (ps_store_backlog(store) > PS_BACKLOG_RECORDS && !atomic_load(&store->failed) &&
		!atomic_load(&store->index_waits)) {
		uv_cond_wait(&store->room, &store->lock);
	}
	uv_mutex_unlock(&store->lock);
}

static void run(void *arg)
{
	struct ps_writer *writer = arg;
	prctl(PR_SET_NAME, "ps-writer");
	rocksdb_set_perf_level(rocksdb_disable);
	for (;;) {
		struct ps_round *rounds = take(writer);
		if (rounds == NULL) {
			return;
		}
		wait_for_indexer(writer->store);
		if (writer->failed == RT_OK) {
			writer->failed = write_rounds(writer, rounds);
		}
		hand_back(writer, rounds, writer->failed);
	}
}

rt_err ps_writer_start(struct ps_store *store, struct rt_system *system, struct ps_writer **out,
	struct rt_errinfo *info)
{
	struct ps_writer *writer = calloc(1, sizeof(*writer));
	if (writer == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	writer->store = store;
	writer->system = system;
	writer->tail = &writer->head;
	writer->worker_count = rt_system_worker_count(system);
	writer->workers = calloc(writer->worker_count, sizeof(*writer->workers));
	writer->start = calloc(store->log_count + 1u, sizeof(*writer->start));
	int code = uv_mutex_init(&writer->lock);
	RT_ASSERT(code == 0);
	code = uv_cond_init(&writer->queued);
	RT_ASSERT(code == 0);
	if (writer->workers == NULL || writer->start == NULL) {
		writer_free(writer);
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	for (uint32_t i = 0; i < writer->worker_count; i++) {
		writer->workers[i] = rt_system_worker(system, i);
	}
	if (uv_thread_create(&writer->thread, run, writer) != 0) {
		writer_free(writer);
		return rt_errinfo_set(info, RT_E_NOMEM, "cannot start the writer thread");
	}
	*out = writer;
	return RT_OK;
}

void ps_writer_stop(struct ps_writer *writer)
{
	if (writer == NULL) {
		return;
	}
	uv_mutex_lock(&writer->lock);
	writer->stopping = true;
	uv_mutex_unlock(&writer->lock);
	uv_cond_signal(&writer->queued);
	uv_thread_join(&writer->thread);
	uv_mutex_lock(&writer->lock);
	writer->stopped = true;
	bool last = writer->rounds_out == 0;
	uv_mutex_unlock(&writer->lock);
	if (last) {
		writer_free(writer);
	}
}
