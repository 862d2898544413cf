/* What a crash, a failing disk and a full queue leave of the store in memory. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/sched/sim.h"
#include "tests/clustersim/mem.h"
#include "tests/support/test.h"

#define ROUNDS 40u

struct bed {
	uint64_t now_us;
	struct rt_random random;
	struct mem_shape shape;
	struct mem_disk *disk;
	struct rt_sim *sim;
	struct rt_worker *worker;
	struct ps_store *store;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	struct ps_stage *stage;
	uint32_t done, failed;
};

static uint64_t now_ns(void *arg)
{
	return ((struct bed *)arg)->now_us * 1000;
}

static void open_bed(struct bed *bed)
{
	struct rt_sim_world world = {now_ns, bed, &bed->random};
	static struct rt_sim_world kept;
	kept = world;
	struct rt_system_options system = {.workers = 1};
	struct ps_store_options store = {
		.dir = "test", .create = true, .shard_count = 2, .leave_tail = true};
	assert_err(rt_sim_join(&system, &kept, &bed->sim, NULL), RT_OK);
	bed->worker = rt_system_worker(rt_sim_system(bed->sim), 0);
	assert_err(ps_store_open(&store, &bed->store, NULL), RT_OK);
	assert_err(ps_indexer_start(bed->store, 1, &bed->indexer, NULL), RT_OK);
	assert_err(ps_writer_start(bed->store, rt_sim_system(bed->sim), &bed->writer, NULL), RT_OK);
	assert_err(
		ps_reader_start(bed->store, rt_sim_system(bed->sim), 1, &bed->reader, NULL), RT_OK);
	bed->stage = ps_indexer_stage(bed->indexer, 0);
}

static void close_bed(struct bed *bed)
{
	assert_true(rt_sim_settle(bed->sim, 10000));
	ps_reader_stop(bed->reader);
	ps_writer_stop(bed->writer);
	ps_indexer_stop(bed->indexer);
	ps_store_close(bed->store);
	rt_sim_free(bed->sim);
}

static void new_bed(struct bed *bed, uint64_t seed)
{
	*bed = (struct bed){.shape = {.write_max = 50, .sync_min = 100, .sync_max = 2000}};
	bed->shape.survives = 50;
	rt_random_seed(&bed->random, seed);
	struct mem_disk_options options = {.name = "test",
		.now_us = &bed->now_us,
		.random = &bed->random,
		.shape = &bed->shape};
	bed->disk = mem_disk_new(&options);
	open_bed(bed);
}

static void done(struct ps_round *round, rt_err err)
{
	struct bed *bed = round->arg;
	bed->done += err == RT_OK;
	bed->failed += err != RT_OK;
	ps_round_release(round);
}

/* One record in each of both logs, and a row. */
static void submit(struct bed *bed, uint32_t number)
{
	struct ps_round *round = ps_round_acquire(bed->writer, bed->worker);
	for (uint32_t shard = 0; shard < 2; shard++) {
		struct ps_record head = {.term = number, .kind = PS_KIND_NOOP};
		uint32_t entry;
		uint8_t *at = ps_round_add(round, shard, ps_record_size(&head, NULL), &entry);
		ps_record_encode(at, &head, NULL);
		round->entries[entry].offset = number;
	}
	assert_err(ps_round_add_meta(round, rt_bytes_str("row"), rt_bytes_of(&number, 4)), RT_OK);
	round->done = done;
	round->arg = bed;
	ps_writer_submit(bed->writer, round);
}

static void pass(struct bed *bed, uint64_t us)
{
	for (uint64_t end = bed->now_us + us; bed->now_us < end; bed->now_us += 10) {
		mem_disk_run(bed->disk);
		assert_true(rt_sim_settle(bed->sim, 1000));
	}
}

static uint32_t row_of(struct bed *bed)
{
	struct rt_bytes value = {0};
	uint32_t number = 0;
	if (ps_store_meta_get(bed->store, rt_bytes_str("row"), &value, NULL) == RT_OK) {
		memcpy(&number, value.data, 4);
		free((void *)(uintptr_t)value.data);
	}
	return number;
}

static void a_crash_leaves_what_was_done_and_whole_rounds(void **state)
{
	(void)state;
	uint32_t lost = 0;
	uint32_t more = 0;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct bed bed;
		new_bed(&bed, seed);
		uint32_t sent = 0;
		uint32_t upto = rt_random_below(&bed.random, ROUNDS);
		while (sent < upto) {
			submit(&bed, ++sent);
			pass(&bed, rt_random_below(&bed.random, 600));
		}
		uint32_t was_done = bed.done;
		mem_disk_crash(bed.disk);
		close_bed(&bed);
		assert_int_equal(bed.done + bed.failed, sent);
		open_bed(&bed);
		uint64_t last = ps_store_last_offset(bed.store, 0);
		assert_int_equal(last, ps_store_last_offset(bed.store, 1));
		assert_int_equal(last, row_of(&bed));
		assert_true(last >= was_done && last <= sent);
		lost += last < sent;
		more += last > was_done;
		close_bed(&bed);
		mem_disk_free(bed.disk);
	}
	assert_true(lost > 20 && more > 20);
}

static void rows_come_back_to_an_earlier_chunk(void **state)
{
	(void)state;
	uint32_t behind = 0;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct bed bed;
		new_bed(&bed, seed);
		for (uint32_t number = 1; number <= 10; number++) {
			struct ps_record head = {.kind = PS_KIND_NOOP};
			submit(&bed, number);
			pass(&bed, 5000);
			ps_stage_record(bed.stage, 0, number, &head);
			ps_stage_flush(bed.stage);
			pass(&bed, PS_CHUNK_MS * 1000 + 10);
			assert_int_equal(ps_store_index_watermark(bed.store, 0), number);
		}
		mem_disk_crash(bed.disk);
		close_bed(&bed);
		open_bed(&bed);
		uint64_t watermark = ps_store_index_watermark(bed.store, 0);
		assert_true(watermark <= ps_store_last_offset(bed.store, 0));
		behind += watermark < 10;
		close_bed(&bed);
		mem_disk_free(bed.disk);
	}
	assert_true(behind > 20);
}

static void a_failed_write_fails_everything_after_it(void **state)
{
	(void)state;
	for (int how = MEM_BREAK_WRITE; how <= MEM_BREAK_SYNC; how++) {
		struct bed bed;
		new_bed(&bed, 7);
		submit(&bed, 1);
		pass(&bed, 5000);
		mem_disk_break(bed.disk, (enum mem_break)how);
		submit(&bed, 2);
		pass(&bed, 5000);
		assert_true(mem_disk_failed(bed.disk));
		submit(&bed, 3);
		pass(&bed, 5000);
		assert_int_equal(bed.done, 1);
		assert_int_equal(bed.failed, 2);
		mem_disk_crash(bed.disk);
		close_bed(&bed);
		open_bed(&bed);
		assert_false(mem_disk_failed(bed.disk));
		assert_true(ps_store_last_offset(bed.store, 0) >= 1);
		assert_true(ps_store_last_offset(bed.store, 0) <= 2);
		close_bed(&bed);
		mem_disk_free(bed.disk);
	}
}

static void an_orderly_close_keeps_all(void **state)
{
	(void)state;
	struct bed bed;
	new_bed(&bed, 3);
	for (uint32_t number = 1; number <= 5; number++) {
		submit(&bed, number);
	}
	assert_true(mem_disk_busy(bed.disk));
	pass(&bed, 20000);
	assert_false(mem_disk_busy(bed.disk));
	close_bed(&bed);
	open_bed(&bed);
	assert_int_equal(ps_store_last_offset(bed.store, 1), 5);
	assert_int_equal(row_of(&bed), 5);
	close_bed(&bed);
	mem_disk_free(bed.disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_crash_leaves_what_was_done_and_whole_rounds),
		cmocka_unit_test(rows_come_back_to_an_earlier_chunk),
		cmocka_unit_test(a_failed_write_fails_everything_after_it),
		cmocka_unit_test(an_orderly_close_keeps_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
