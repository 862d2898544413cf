/* A store that was opened with its tail left aside, and how the tail gets its rows. */
#include <dlfcn.h>
#include <uv.h>

#include "persistence/catchup.h"
#include "persistence/chunk.h"
#include "tests/unit/persistence/world.h"

/* Stands before the library's: a crash in the middle of a chunk is a write that fails. */
static int writes_left = -1; /* -1: none fails */

void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options,
	rocksdb_writebatch_t *batch, char **message)
{
	static void (*real)(
		rocksdb_t *, const rocksdb_writeoptions_t *, rocksdb_writebatch_t *, char **);
	if (real == NULL) {
		*(void **)&real = dlsym(RTLD_NEXT, "rocksdb_write");
	}
	if (writes_left == 0) {
		*message = strdup("IO error: planted");
		return;
	}
	writes_left -= writes_left > 0;
	real(db, options, batch, message);
}

static _Atomic int tables_without_room;
static _Atomic bool tables_fail;

void rocksdb_sstfilewriter_finish(rocksdb_sstfilewriter_t *writer, char **message)
{
	static void (*real)(rocksdb_sstfilewriter_t *, char **);
	if (real == NULL) {
		*(void **)&real = dlsym(RTLD_NEXT, "rocksdb_sstfilewriter_finish");
	}
	if (atomic_load(&tables_without_room) > 0) {
		atomic_fetch_sub(&tables_without_room, 1);
		*message = strdup("IO error: No space left on device");
		return;
	}
	if (atomic_load(&tables_fail)) {
		*message = strdup("IO error: planted");
		return;
	}
	real(writer, message);
}

static void open_with_tail(struct world *world)
{
	struct ps_store_options options = {.dir = world->dir, .leave_tail = true};
	assert_err(ps_store_open(&options, &world->store, NULL), RT_OK);
}

static void assert_verified(struct world *world)
{
	ps_store_close(world->store);
	world->store = NULL;
	struct ps_verify_report report = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, NULL), RT_OK);
	assert_int_equal(report.problems, 0);
}

/* ---- on a worker ---- */

struct node {
	struct rt_post start; /* first */
	struct world *world;
	struct rt_system *system;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	struct ps_catchup catchup;
	uv_sem_t finished;
	rt_err err;
	uint64_t watermark; /* when done was called */
	bool wipe, done, inside;
};

static void caught_up(struct ps_catchup *catchup, rt_err err)
{
	struct node *node = catchup->arg;
	node->err = err;
	node->done = true;
	node->watermark = ps_store_index_watermark(catchup->store, catchup->shard);
	uv_sem_post(&node->finished);
}

static void begin(struct rt_worker *worker, struct rt_post *post)
{
	struct node *node = (struct node *)(void *)post;
	node->catchup.store = node->world->store;
	node->catchup.reader = node->reader;
	node->catchup.stage = ps_indexer_stage(node->indexer, 0);
	node->catchup.worker = worker;
	node->catchup.done = caught_up;
	node->catchup.arg = node;
	node->done = false;
	ps_catchup_start(&node->catchup);
	node->inside = node->done;
	if (node->wipe) { /* as the completion of a round with a wipe does */
		node->world->store->shards[node->catchup.shard].wipes_done++;
	}
}

static void catch_up(struct node *node, uint32_t shard, uint64_t upto, rt_err expected)
{
	node->catchup.shard = shard;
	node->catchup.upto = upto;
	node->start.run = begin;
	rt_worker_post_always(rt_system_worker(node->system, 0), &node->start);
	uv_sem_wait(&node->finished);
	assert_err(node->err, expected);
	assert_false(node->inside);
	assert_true(expected != RT_OK || node->watermark >= upto);
}

static void start(struct node *node)
{
	struct ps_store *store = node->world->store;
	struct rt_system_options options = {.workers = 1};
	assert_err(rt_system_new(&options, &node->system, NULL), RT_OK);
	assert_err(ps_indexer_start(store, 1, &node->indexer, NULL), RT_OK);
	assert_err(ps_reader_start(store, node->system, 1, &node->reader, NULL), RT_OK);
	assert_err(rt_system_start(node->system, NULL), RT_OK);
}

static void stop(struct node *node)
{
	ps_reader_stop(node->reader);
	rt_system_stop(node->system);
	ps_indexer_stop(node->indexer);
	rt_system_free(node->system);
	node->system = NULL;
}

static void what_is_committed_gets_its_rows(void **state)
{
	struct node *node = *state;
	struct world *world = node->world;
	static const uint8_t noop[] = {0x08, 1, 0x10, PS_KIND_NOOP};
	world_open(world);
	world_fill(world, 3000);
	for (uint64_t offset = 3001; offset <= 3005; offset++) {
		struct ps_log_row row = {
			.shard = 2, .offset = offset, .record = rt_bytes_of(noop, sizeof(noop))};
		assert_err(ps_store_append(world->store, &row, 1, NULL, 0, NULL), RT_OK);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	world_crash(world);
	open_with_tail(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(ps_store_index_watermark(world->store, shard), 0);
	}
	start(node);
	catch_up(node, 1, 2990, RT_OK);
	assert_int_equal(node->watermark, 2990);
	catch_up(node, 1, 2990, RT_OK); /* nothing to do, told later all the same */
	catch_up(node, 2, 3005, RT_OK);
	assert_int_equal(node->watermark, 3005);
	catch_up(node, 2, 3006, RT_E_CORRUPT);
	stop(node);
	/* What is not committed may still be cut, and only that. */
	assert_err(ps_store_truncate_tail(world->store, 1, 2990, NULL), RT_E_INVAL);
	assert_err(ps_store_truncate_tail(world->store, 1, 2991, NULL), RT_OK);
	assert_err(ps_store_truncate_tail(world->store, 0, 1, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	assert_verified(world);
	world_open(world);
	assert_int_equal(ps_store_last_offset(world->store, 0), 0);
	assert_int_equal(ps_store_index_watermark(world->store, 1), 2990);
}

static void it_waits_while_the_disk_is_full(void **state)
{
	struct node *node = *state;
	struct world *world = node->world;
	uint64_t offset;
	world_open(world);
	world_fill(world, 100);
	world_crash(world);
	open_with_tail(world);
	world_little_room(world);
	start(node);
	atomic_store(&tables_without_room, 1);
	catch_up(node, 1, 80, RT_OK);
	assert_int_equal(atomic_load(&tables_without_room), 0);
	catch_up(node, 1, 100, RT_OK);
	assert_err(ps_store_dedupe(world->store, 1, rt_bytes_str("s1-o17"), &offset, NULL), RT_OK);
	stop(node);
	assert_err(ps_db_writable(world->store, NULL), RT_OK);
	assert_verified(world);
}

static void signal_passage(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	uv_sem_post(&((struct node *)(void *)post)->finished);
}

/* What the worker was given before is done. */
static void pass(struct node *node)
{
	node->start.run = signal_passage;
	rt_worker_post_always(rt_system_worker(node->system, 0), &node->start);
	uv_sem_wait(&node->finished);
}

/* Who was told would serve from an index with holes. */
static void it_never_ends_when_the_index_failed(void **state)
{
	struct node *node = *state;
	struct world *world = node->world;
	struct ps_store_stats stats = {0};
	world_open(world);
	world_fill(world, 100);
	world_crash(world);
	open_with_tail(world);
	world_little_room(world);
	start(node);
	atomic_store(&tables_fail, true);
	node->catchup.shard = 1;
	node->catchup.upto = 100;
	node->start.run = begin;
	rt_worker_post_always(rt_system_worker(node->system, 0), &node->start);
	while (!stats.failed) {
		ps_store_stats(world->store, &stats);
		uv_sleep(1);
	}
	pass(node); /* it stages nothing any more */
	ps_indexer_stop(node->indexer);
	node->indexer = NULL;
	pass(node); /* behind what the indexer posted */
	assert_false(node->done);
	assert_int_equal(ps_store_index_watermark(world->store, 1), 0);
}

static void a_wipe_ends_it(void **state)
{
	struct node *node = *state;
	world_open(node->world);
	world_fill(node->world, 100);
	world_crash(node->world);
	open_with_tail(node->world);
	start(node);
	node->wipe = true;
	catch_up(node, 1, 100, RT_E_FENCED);
	stop(node);
	assert_int_equal(ps_store_index_watermark(node->world->store, 1), 0);
}

/* ---- a chunk that a crash left half-written ---- */

#define HOT     700u /* an entity with every other record */
#define RECORDS 5000u

static uint32_t entity_at(uint64_t offset)
{
	return offset % 2 == 0 ? HOT : (uint32_t)(offset / 2 % 600);
}

static uint64_t seq_at(uint64_t offset)
{
	return offset % 2 == 0 ? offset / 2 : offset / 2 / 600 + 1;
}

static void fill_hot(struct world *world)
{
	for (uint64_t offset = 1; offset <= RECORDS; offset++) {
		struct ps_log_row row = {.shard = 0,
			.offset = offset,
			.record = world_record(0, entity_at(offset), offset, seq_at(offset), 1)};
		assert_err(ps_store_append(world->store, &row, 1, NULL, 0, NULL), RT_OK);
		free((void *)(uintptr_t)row.record.data);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
}

static rt_err index_chunk(struct world *world, uint64_t from, uint64_t upto)
{
	struct ps_chunk *chunk = ps_chunk_new(world->store);
	struct ps_staged *staged[RECORDS];
	size_t count = 0;
	assert_non_null(chunk);
	for (uint64_t offset = from; offset <= upto; offset++) {
		struct ps_record record;
		struct rt_bytes bytes =
			world_record(0, entity_at(offset), offset, seq_at(offset), 1);
		assert_err(ps_record_decode(bytes, &record), RT_OK);
		staged[count] = malloc(ps_staged_size(&record));
		assert_non_null(staged[count]);
		ps_staged_put(staged[count], 0, offset, &record);
		assert_err(ps_chunk_add(chunk, staged[count++]), RT_OK);
		free((void *)(uintptr_t)bytes.data);
	}
	rt_err err = ps_chunk_write(chunk, NULL);
	ps_chunk_free(chunk);
	while (count > 0) {
		free(staged[--count]);
	}
	return err;
}

/* From any number on, the index tells each record up to the watermark. */
static void check_hot(struct world *world, uint64_t watermark)
{
	char pid[32];
	for (uint64_t seq = 1; seq <= RECORDS / 2; seq += 173) {
		uint64_t *offsets = NULL;
		size_t count = 0;
		struct rt_errinfo info = {0};
		rt_err err = ps_store_index(world->store, 0, world_pid(pid, HOT), seq, RECORDS,
			&offsets, &count, &info);
		if (err != RT_OK) {
			fail_msg("from %llu at %llu: %s", (unsigned long long)seq,
				(unsigned long long)watermark, info.text);
		}
		assert_int_equal(count, watermark / 2 >= seq ? watermark / 2 - seq + 1 : 0);
		for (size_t i = 0; i < count; i++) {
			assert_int_equal(offsets[i], 2 * (seq + i));
		}
		free(offsets);
	}
}

static void crash_in_a_chunk(struct world *world, int writes, uint64_t step)
{
	world_open(world);
	fill_hot(world);
	assert_err(index_chunk(world, 1, 100), RT_OK);
	writes_left = writes;
	rt_err err = index_chunk(world, 101, RECORDS - 50);
	writes_left = -1;
	assert_err(err, RT_E_IO);
	/* A full memtable is written at any time. */
	assert_err(ps_db_flush(world->store, PS_INDEX, NULL), RT_OK);
	world_crash(world);
	open_with_tail(world);
	uint64_t watermark = ps_store_index_watermark(world->store, 0);
	assert_int_equal(watermark, 100);
	check_hot(world, watermark);
	while (watermark < RECORDS) {
		uint64_t upto = watermark + step < RECORDS ? watermark + step : RECORDS;
		assert_err(index_chunk(world, watermark + 1, upto), RT_OK);
		watermark = upto;
		check_hot(world, watermark);
		if (watermark % 3 == 0) { /* and once more the chunks are other ones */
			assert_err(ps_db_flush(world->store, PS_INDEX, NULL), RT_OK);
			world_crash(world);
			open_with_tail(world);
			check_hot(world, watermark);
		}
	}
	assert_verified(world);
}

static void rows_of_a_half_written_chunk_do_no_harm(void **state)
{
	struct node *node = *state;
	for (int writes = 0; writes <= 4; writes++) {
		crash_in_a_chunk(node->world, writes, 300 + 401 * (uint64_t)(writes + 1));
		world_free(node->world);
		node->world = world_new();
	}
}

static int setup(void **state)
{
	struct node *node = calloc(1, sizeof(*node));
	assert_non_null(node);
	node->world = world_new();
	uv_sem_init(&node->finished, 0);
	*state = node;
	return 0;
}

static int teardown(void **state)
{
	struct node *node = *state;
	writes_left = -1;
	atomic_store(&tables_fail, false);
	if (node->system != NULL) {
		stop(node);
	}
	uv_sem_destroy(&node->finished);
	world_free(node->world);
	free(node);
	return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_committed_gets_its_rows),
		TEST(it_waits_while_the_disk_is_full),
		TEST(it_never_ends_when_the_index_failed),
		TEST(a_wipe_ends_it),
		TEST(rows_of_a_half_written_chunk_do_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
