/* The writer, the indexer and the readers together, on real workers. */
#include <stdatomic.h>
#include <uv.h>

#include "persistence/db.h"
#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "persistence/writer.h"
#include "runtime/base/container.h"
#include "tests/unit/persistence/world.h"

#define WORKERS 2u
#define ROUNDS  60u
#define RECORDS 24u

struct node;

struct driver {
	struct rt_post start;
	struct node *node;
	struct rt_worker *worker;
	struct ps_stage *stage;
	uint32_t index, rounds, in_flight, wrong;
	uint64_t done_offset[WORLD_LOGS];
	rt_err result;
	struct ps_load load;
	struct ps_erase erase;
	char pid[32];
};

struct node {
	struct world *world;
	struct rt_system *system;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	struct driver driver[WORKERS];
	uv_sem_t finished;
};

static int setup(void **state)
{
	struct node *node = calloc(1, sizeof(*node));
	assert_non_null(node);
	node->world = world_new();
	world_open(node->world);
	uv_sem_init(&node->finished, 0);
	struct rt_errinfo info = {0};
	struct rt_system_options options = {.workers = WORKERS};
	assert_err(rt_system_new(&options, &node->system, &info), RT_OK);
	struct ps_store *store = node->world->store;
	assert_err(ps_writer_start(store, node->system, &node->writer, &info), RT_OK);
	assert_err(ps_indexer_start(store, WORKERS, &node->indexer, &info), RT_OK);
	assert_err(ps_reader_start(store, node->system, 2, &node->reader, &info), RT_OK);
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].node = node;
		node->driver[i].index = i;
		node->driver[i].worker = rt_system_worker(node->system, i);
		node->driver[i].stage = ps_indexer_stage(node->indexer, i);
	}
	assert_err(rt_system_start(node->system, &info), RT_OK);
	*state = node;
	return 0;
}

/* The order in which a node shuts down. */
static void stop(struct node *node)
{
	ps_reader_stop(node->reader);
	ps_writer_stop(node->writer);
	rt_system_stop(node->system);
	ps_indexer_stop(node->indexer);
	ps_store_close(node->world->store);
	node->world->store = NULL;
	rt_system_free(node->system);
	node->system = NULL;
}

static int teardown(void **state)
{
	struct node *node = *state;
	if (node->system != NULL) {
		stop(node);
	}
	uv_sem_destroy(&node->finished);
	world_free(node->world);
	free(node);
	return 0;
}

static void submit_round(struct driver *driver);

static void stage_round(struct driver *driver, const struct ps_round *round)
{
	for (uint32_t i = 0; i < round->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[i];
		struct ps_record record;
		driver->wrong += entry->offset != driver->done_offset[entry->shard] + 1;
		driver->done_offset[entry->shard] = entry->offset;
		driver->wrong +=
			ps_record_decode(rt_bytes_of(round->bytes + entry->pos, entry->size),
				&record) != RT_OK;
		ps_stage_record(driver->stage, entry->shard, entry->offset, &record);
	}
	ps_stage_flush(driver->stage);
}

static void round_done(struct ps_round *round, rt_err err)
{
	struct driver *driver = round->arg;
	driver->wrong += rt_worker_self() != driver->worker;
	driver->in_flight--;
	if (err == RT_OK) {
		stage_round(driver, round);
	} else {
		driver->result = err;
	}
	ps_round_release(round);
	while (driver->rounds < ROUNDS && driver->in_flight < 3) {
		submit_round(driver);
	}
	if (driver->in_flight == 0) {
		uv_sem_post(&driver->node->finished);
	}
}

/* A worker owns the shards whose number leaves its index, and so many of them. */
static uint32_t owned(uint32_t worker)
{
	return (WORLD_LOGS - worker + WORKERS - 1) / WORKERS;
}

static void submit_round(struct driver *driver)
{
	struct world *world = driver->node->world;
	struct ps_round *round = ps_round_acquire(driver->node->writer, driver->worker);
	for (uint32_t i = 0; i < RECORDS; i++) {
		uint32_t shard = (i % owned(driver->index)) * WORKERS + driver->index;
		uint64_t offset = ++world->offset[shard];
		uint32_t entity = (uint32_t)(offset % 8);
		struct rt_bytes record =
			world_record(shard, entity, offset, world->seq[shard][entity] + 1, 2);
		world->seq[shard][entity] += 2;
		uint32_t entry;
		uint8_t *at = ps_round_add(round, shard, record.size, &entry);
		memcpy(at, record.data, record.size);
		free((void *)(uintptr_t)record.data);
		round->entries[entry].offset = offset;
	}
	char value[16];
	snprintf(value, sizeof(value), "%u", driver->rounds);
	driver->wrong +=
		ps_round_add_meta(round, rt_bytes_of(driver->index == 0 ? "r/0" : "r/1", 3),
			rt_bytes_str(value)) != RT_OK;
	round->done = round_done;
	round->arg = driver;
	driver->rounds++;
	driver->in_flight++;
	ps_writer_submit(driver->node->writer, round);
}

static void begin(struct rt_worker *worker, struct rt_post *post)
{
	struct driver *driver = (struct driver *)(void *)post;
	(void)worker;
	submit_round(driver);
	submit_round(driver);
}

static struct node *main_node;

static void wake_main(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	(void)post;
	uv_sem_post(&main_node->finished);
}

static void run(struct node *node)
{
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = begin;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
}

static void what_completes_is_there_after_reopening(void **state)
{
	struct node *node = *state;
	struct world *world = node->world;
	run(node);
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(node->driver[i].wrong, 0);
		assert_err(node->driver[i].result, RT_OK);
		assert_int_equal(node->driver[i].rounds, ROUNDS);
	}
	stop(node);
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		uint64_t per_shard = ROUNDS * RECORDS / owned(shard % WORKERS);
		assert_int_equal(world_readable(world, shard), per_shard);
		assert_int_equal(ps_store_index_watermark(world->store, shard), per_shard);
	}
	struct rt_bytes value;
	assert_err(ps_store_meta_get(world->store, rt_bytes_str("r/1"), &value, NULL), RT_OK);
	assert_true(rt_bytes_equal(value, rt_bytes_str("59")));
	free((void *)(uintptr_t)value.data);
}

/* The store fails while rounds are under way: each is answered once, and what was answered with
 * RT_OK is there afterwards. */
static void a_failure_answers_every_round(void **state)
{
	struct node *node = *state;
	struct world *world = node->world;
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = begin;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
	}
	char *message = strdup("IO error: planted");
	assert_err(ps_db_fail(world->store, message, NULL, "test"), RT_E_IO);
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	uint64_t acknowledged[WORLD_LOGS];
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(node->driver[i].wrong, 0);
		assert_int_equal(node->driver[i].rounds, ROUNDS);
		assert_true(node->driver[i].result != RT_OK);
		for (uint32_t shard = i; shard < WORLD_LOGS; shard += WORKERS) {
			acknowledged[shard] = node->driver[i].done_offset[shard];
		}
	}
	stop(node);
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_true(world_readable(world, shard) >= acknowledged[shard]);
	}
}

/* The writer waits while too many records are staged, and goes on when the indexer is through. */
static void a_backlog_of_the_index_holds_the_writer(void **state)
{
	struct node *node = *state;
	struct ps_store *store = node->world->store;
	atomic_fetch_add(&store->staged, PS_BACKLOG_RECORDS + 1);
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = begin;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
	}
	/* Both workers have come back to their loops, so both have submitted. */
	struct rt_post barrier[WORKERS] = {0};
	main_node = node;
	for (uint32_t i = 0; i < WORKERS; i++) {
		barrier[i].run = wake_main;
		rt_worker_post_always(node->driver[i].worker, &barrier[i]);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	assert_int_equal(atomic_load(&store->syncs), 0);
	uv_mutex_lock(&store->lock);
	atomic_fetch_add(&store->indexed, PS_BACKLOG_RECORDS + 1);
	uv_cond_broadcast(&store->room);
	uv_mutex_unlock(&store->lock);
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	assert_true(atomic_load(&store->syncs) > 0);
	assert_int_equal(node->driver[0].rounds, ROUNDS);
}

static void load_done(struct ps_job *job)
{
	struct driver *driver =
		(struct driver *)(void *)((char *)job - offsetof(struct driver, load) -
					  offsetof(struct ps_load, job));
	driver->wrong += rt_worker_self() != driver->worker;
	uv_sem_post(&driver->node->finished);
}

static void load_work(struct ps_job *job, struct ps_store *store)
{
	ps_load_run((struct ps_load *)(void *)job, store);
}

static void begin_load(struct rt_worker *worker, struct rt_post *post)
{
	struct driver *driver = (struct driver *)(void *)post;
	driver->load = (struct ps_load){.job = {.work = load_work, .done = load_done},
		.shard = driver->index,
		.pid = world_pid(driver->pid, 5),
		.from_seq = 1,
		.upto_seq = UINT64_MAX};
	driver->wrong += ps_reader_submit(driver->node->reader, worker, &driver->load.job) != RT_OK;
}

static void a_reader_answers_on_the_worker_that_asked(void **state)
{
	struct node *node = *state;
	run(node);
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = begin_load;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(node->driver[i].wrong, 0);
		assert_err(node->driver[i].load.err, RT_OK);
		ps_load_clear(&node->driver[i].load);
	}
}

static void the_index_follows_while_running(void **state)
{
	struct node *node = *state;
	run(node);
	/* A stop of the indexer writes what is left, without the help of close or open. */
	struct ps_store *store = node->world->store;
	ps_reader_stop(node->reader);
	node->reader = NULL;
	ps_writer_stop(node->writer);
	node->writer = NULL;
	rt_system_stop(node->system);
	ps_indexer_stop(node->indexer);
	node->indexer = NULL;
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(
			ps_store_index_watermark(store, shard), node->world->offset[shard]);
	}
	struct ps_load load = {
		.shard = 1, .pid = rt_bytes_str("t|e4"), .from_seq = 1, .upto_seq = UINT64_MAX};
	ps_load_run(&load, store);
	assert_err(load.err, RT_OK);
	assert_int_equal(load.next_seq, node->world->seq[1][4] + 1);
	ps_load_clear(&load);
	uint64_t offset;
	assert_err(ps_store_dedupe(store, 1, rt_bytes_str("s1-o77"), &offset, NULL), RT_OK);
	assert_int_equal(offset, 77);
}

/* ---- rounds that take away ---- */

static void put(struct driver *driver, struct ps_round *round, uint32_t shard, uint64_t offset)
{
	uint32_t entry;
	struct rt_bytes record = world_record(shard, 1, offset, driver->rounds * 1000 + offset, 1);
	uint8_t *at = ps_round_add(round, shard, record.size, &entry);
	memcpy(at, record.data, record.size);
	free((void *)(uintptr_t)record.data);
	round->entries[entry].offset = offset;
}

static void step_done(struct ps_round *round, rt_err err)
{
	struct driver *driver = round->arg;
	driver->result = err != RT_OK ? err : driver->result;
	ps_round_release(round);
	if (--driver->in_flight == 0) {
		uv_sem_post(&driver->node->finished);
	}
}

static struct ps_round *begin_step(struct driver *driver)
{
	struct ps_round *round = ps_round_acquire(driver->node->writer, driver->worker);
	round->done = step_done;
	round->arg = driver;
	driver->rounds++;
	driver->in_flight++;
	return round;
}

/* Three rounds, of two shards each. The first number of a record says which round it is of. */
static void begin_steps(struct rt_worker *worker, struct rt_post *post)
{
	struct driver *driver = (struct driver *)(void *)post;
	uint32_t cut = driver->index;
	uint32_t wiped = driver->index + WORKERS;
	(void)worker;
	struct ps_round *round = begin_step(driver);
	for (uint64_t offset = 1; offset <= 10; offset++) {
		put(driver, round, cut, offset);
		put(driver, round, wiped, offset);
	}
	ps_writer_submit(driver->node->writer, round);
	round = begin_step(driver);
	driver->wrong += ps_round_cut(round, cut, 6) != RT_OK;
	driver->wrong += ps_round_wipe(round, wiped, 5) != RT_OK;
	put(driver, round, wiped, 5);
	put(driver, round, cut, 6);
	put(driver, round, wiped, 6);
	put(driver, round, cut, 7);
	put(driver, round, cut, 8);
	put(driver, round, cut, 9);
	ps_writer_submit(driver->node->writer, round);
	round = begin_step(driver);
	driver->wrong += ps_round_cut(round, cut, 8) != RT_OK;
	put(driver, round, cut, 8);
	put(driver, round, cut, 9);
	driver->wrong += ps_round_cut(round, wiped, 6) != RT_OK;
	put(driver, round, wiped, 6);
	put(driver, round, cut, 10);
	put(driver, round, wiped, 7);
	put(driver, round, cut, 11);
	for (uint32_t back = 1; back <= 3; back++) {
		ps_round_drop(round, round->entry_count - back);
	}
	ps_writer_submit(driver->node->writer, round);
}

static bool round_of(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct ps_record record = {0};
	char **at = arg;
	assert_err(ps_record_decode(bytes, &record), RT_OK);
	*(*at)++ = (char)('0' + record.first_seq / 1000);
	assert_int_equal(record.first_seq % 1000, offset);
	return true;
}

static void assert_log(struct ps_store *store, uint32_t shard, uint64_t first, const char *rounds)
{
	char got[32] = {0};
	char *at = got;
	assert_int_equal(ps_store_first_offset(store, shard), first);
	assert_err(ps_store_read(store, shard, first, UINT64_MAX, round_of, &at, NULL), RT_OK);
	assert_string_equal(got, rounds);
}

static void begin_and_wait(struct node *node, void (*script)(struct rt_worker *, struct rt_post *))
{
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = script;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
}

/* The writer is held by a backlog until everything is submitted, so the rounds but for the first
 * ones land in one batch. */
static void rounds_cut_and_wipe_in_the_order_of_their_submits(void **state)
{
	struct node *node = *state;
	struct ps_store *store = node->world->store;
	struct rt_post barrier[WORKERS] = {0};
	atomic_fetch_add(&store->staged, PS_BACKLOG_RECORDS + 1);
	main_node = node;
	for (uint32_t i = 0; i < WORKERS; i++) {
		node->driver[i].start.run = begin_steps;
		rt_worker_post_always(node->driver[i].worker, &node->driver[i].start);
		barrier[i].run = wake_main;
		rt_worker_post_always(node->driver[i].worker, &barrier[i]);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	uv_mutex_lock(&store->lock);
	atomic_fetch_add(&store->indexed, PS_BACKLOG_RECORDS + 1);
	uv_cond_broadcast(&store->room);
	uv_mutex_unlock(&store->lock);
	for (uint32_t i = 0; i < WORKERS; i++) {
		uv_sem_wait(&node->finished);
	}
	assert_true(atomic_load(&store->syncs) <= 2);
	for (uint32_t i = 0; i < WORKERS; i++) {
		assert_int_equal(node->driver[i].wrong, 0);
		assert_err(node->driver[i].result, RT_OK);
	}
	for (int turn = 0; turn < 2; turn++) {
		for (uint32_t i = 0; i < WORKERS; i++) {
			assert_log(node->world->store, i, 1, "111112233");
			assert_log(node->world->store, i + WORKERS, 5, "23");
		}
		if (turn == 0) {
			stop(node);
			world_open(node->world);
		}
	}
}

static void stage_made(struct driver *driver, uint64_t offset, uint64_t seq, uint32_t entity)
{
	struct ps_record record;
	struct rt_bytes bytes = world_record(driver->index, entity, offset, seq, 1);
	driver->wrong += ps_record_decode(bytes, &record) != RT_OK;
	ps_stage_record(driver->stage, driver->index, offset, &record);
	ps_stage_flush(driver->stage);
	free((void *)(uintptr_t)bytes.data);
}

static void wiped_done(struct ps_round *round, rt_err err)
{
	struct driver *driver = round->arg;
	if (driver->index == 0) { /* the other one's chunk is of the old log only */
		stage_made(driver, 3, 3001, 2);
	}
	step_done(round, err);
}

/* Records of the old log are staged when the writer has wiped it already and the worker does not
 * know yet. */
static void first_done(struct ps_round *round, rt_err err)
{
	struct driver *driver = round->arg;
	const struct ps_shard *shard = &driver->node->world->store->shards[driver->index];
	stage_made(driver, 1, 1001, 1);
	struct ps_round *next = begin_step(driver);
	next->done = wiped_done;
	driver->wrong += ps_round_wipe(next, driver->index, 3) != RT_OK;
	put(driver, next, driver->index, 3);
	ps_writer_submit(driver->node->writer, next);
	while (err == RT_OK && atomic_load(&shard->wipes) == 0) {
	}
	for (uint64_t offset = 2; offset <= 10; offset++) {
		stage_made(driver, offset, 1000 + offset, 1);
	}
	struct ps_snapshot snapshot = {.seq = 1001, .offset = 1, .state = rt_bytes_str("old")};
	ps_stage_snapshot(driver->stage, driver->index, rt_bytes_str("t|e1"), &snapshot);
	step_done(round, err);
}

static void begin_staging(struct rt_worker *worker, struct rt_post *post)
{
	struct driver *driver = (struct driver *)(void *)post;
	(void)worker;
	struct ps_round *round = begin_step(driver);
	round->done = first_done;
	for (uint64_t offset = 1; offset <= 10; offset++) {
		put(driver, round, driver->index, offset);
	}
	ps_writer_submit(driver->node->writer, round);
}

static uint32_t count_rows(struct ps_store *store, uint32_t shard)
{
	uint32_t count = 0;
	rocksdb_iterator_t *iter =
		rocksdb_create_iterator_cf(store->db, store->point, store->family[PS_INDEX]);
	for (rocksdb_iter_seek_to_first(iter); rocksdb_iter_valid(iter); rocksdb_iter_next(iter)) {
		size_t size;
		count += ps_get_u16((const uint8_t *)rocksdb_iter_key(iter, &size)) == shard;
	}
	rocksdb_iter_destroy(iter);
	return count;
}

/* The same when the log is erased: the reader has done it and the worker does not know yet. */
static void erase_work(struct ps_job *job, struct ps_store *store)
{
	ps_erase_run(RT_CONTAINER(job, struct ps_erase, job), store);
}

static void erase_done(struct ps_job *job)
{
	struct driver *driver = RT_CONTAINER(job, struct driver, erase.job);
	struct ps_store *store = driver->node->world->store;
	stage_made(driver, 11, 1011, 1);
	driver->wrong += driver->erase.err != RT_OK;
	ps_erase_done(&driver->erase, store);
	driver->in_flight--; /* the round before this one */
	struct ps_round *next = begin_step(driver);
	put(driver, next, driver->index, 1);
	stage_made(driver, 1, 2001, 1);
	ps_writer_submit(driver->node->writer, next);
}

static void filled_done(struct ps_round *round, rt_err err)
{
	struct driver *driver = round->arg;
	struct ps_store *store = driver->node->world->store;
	stage_made(driver, 1, 1001, 1);
	driver->erase = (struct ps_erase){.job = {.work = erase_work, .done = erase_done},
		.shards = {driver->index},
		.count = 1};
	driver->wrong +=
		ps_reader_submit(driver->node->reader, driver->worker, &driver->erase.job) != RT_OK;
	while (err == RT_OK && atomic_load(&store->shards[driver->index].wipes) == 0) {
	}
	for (uint64_t offset = 2; offset <= 10; offset++) {
		stage_made(driver, offset, 1000 + offset, 1);
	}
	struct ps_snapshot snapshot = {.seq = 1001, .offset = 1, .state = rt_bytes_str("old")};
	ps_stage_snapshot(driver->stage, driver->index, rt_bytes_str("t|e1"), &snapshot);
	driver->result = err;
	ps_round_release(round);
}

static void begin_erasing(struct rt_worker *worker, struct rt_post *post)
{
	struct driver *driver = (struct driver *)(void *)post;
	(void)worker;
	struct ps_round *round = begin_step(driver);
	round->done = filled_done;
	for (uint64_t offset = 1; offset <= 10; offset++) {
		put(driver, round, driver->index, offset);
	}
	ps_writer_submit(driver->node->writer, round);
}

/* As stop does, but for the close. */
static struct ps_store *stop_threads(struct node *node)
{
	ps_reader_stop(node->reader);
	ps_writer_stop(node->writer);
	rt_system_stop(node->system);
	ps_indexer_stop(node->indexer);
	node->reader = NULL;
	node->writer = NULL;
	node->indexer = NULL;
	return node->world->store;
}

static void what_was_staged_before_a_wipe_leaves_no_row(void **state)
{
	struct node *node = *state;
	begin_and_wait(node, begin_staging);
	struct ps_store *store = stop_threads(node);
	for (uint32_t i = 0; i < WORKERS; i++) {
		uint64_t offset = 0;
		struct ps_snapshot snapshot;
		assert_int_equal(node->driver[i].wrong, 0);
		assert_int_equal(ps_store_index_watermark(store, i), i == 0 ? 3 : 2);
		assert_err(ps_store_dedupe(store, i, rt_bytes_str("s0-o3"), &offset, NULL),
			i == 0 ? RT_OK : RT_E_NOTFOUND);
		assert_err(ps_store_snapshot_get(
				   store, i, rt_bytes_str("t|e1"), UINT64_MAX, &snapshot, NULL),
			RT_E_NOTFOUND);
		assert_int_equal(count_rows(store, i), i == 0 ? 2 : 0);
	}
}

static void what_was_staged_before_an_erase_leaves_no_row(void **state)
{
	struct node *node = *state;
	begin_and_wait(node, begin_erasing);
	struct ps_store *store = stop_threads(node);
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct ps_snapshot snapshot;
		assert_int_equal(node->driver[i].wrong, 0);
		assert_err(node->driver[i].result, RT_OK);
		assert_log(store, i, 1, "2");
		assert_int_equal(ps_store_index_watermark(store, i), 1);
		assert_err(ps_store_snapshot_get(
				   store, i, rt_bytes_str("t|e1"), UINT64_MAX, &snapshot, NULL),
			RT_E_NOTFOUND);
		assert_int_equal(count_rows(store, i), 2);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_completes_is_there_after_reopening),
		TEST(a_failure_answers_every_round),
		TEST(a_backlog_of_the_index_holds_the_writer),
		TEST(a_reader_answers_on_the_worker_that_asked),
		TEST(the_index_follows_while_running),
		TEST(rounds_cut_and_wipe_in_the_order_of_their_submits),
		TEST(what_was_staged_before_a_wipe_leaves_no_row),
		TEST(what_was_staged_before_an_erase_leaves_no_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
