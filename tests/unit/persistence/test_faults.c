/*
 * Calls that fail: the store says so, takes no more writes, closes without an abort, and opens
 * again with everything that was acknowledged.
 *
 * The functions below stand before libc's for the libraries of this program too.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "tests/unit/persistence/world.h"

static char fault_file[32]; /* part of the path; set while no call is under way */
static _Atomic int fault_errno;
static _Atomic int fault_hits;
static _Atomic bool fault_sync, fault_write;

static bool hit(int fd, const _Atomic bool *which)
{
	if (!atomic_load(which)) {
		return false;
	}
	char link[64];
	char path[512];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof(path) - 1);
	if (size < 0) {
		return false;
	}
	path[size] = '\0';
	if (strstr(path, "troupe-store-") == NULL || strstr(path, fault_file) == NULL) {
		return false;
	}
	atomic_fetch_add(&fault_hits, 1);
	errno = atomic_load(&fault_errno);
	return true;
}

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);
	if (function == NULL) {
		abort();
	}
	return function;
}

int fdatasync(int fd)
{
	return hit(fd, &fault_sync) ? -1 : REAL(fdatasync)(fd);
}

int fsync(int fd)
{
	return hit(fd, &fault_sync) ? -1 : REAL(fsync)(fd);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	return hit(fd, &fault_write) ? -1 : REAL(write)(fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
	return hit(fd, &fault_write) ? -1 : REAL(pwrite)(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t at)
{
	return hit(fd, &fault_write) ? -1 : REAL(pwrite64)(fd, bytes, size, at);
}

static void arm(const char *file, int code, bool sync, bool write_too)
{
	snprintf(fault_file, sizeof(fault_file), "%s", file);
	atomic_store(&fault_errno, code);
	atomic_store(&fault_hits, 0);
	atomic_store(&fault_sync, sync);
	atomic_store(&fault_write, write_too);
}

static void disarm(void)
{
	atomic_store(&fault_sync, false);
	atomic_store(&fault_write, false);
}

static int setup(void **state)
{
	struct world *world = world_new();
	world_open(world);
	world_fill(world, 50);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	disarm();
	world_free(*state);
	return 0;
}

/* One more record per shard and a sync, with the fault; then everything that follows from it. */
static void a_commit_fails(struct world *world, rt_err expected)
{
	struct rt_errinfo info = {0};
	rt_err err = RT_OK;
	for (uint32_t shard = 0; err == RT_OK && shard < WORLD_LOGS; shard++) {
		err = world_append(world, shard, 1);
	}
	if (err == RT_OK) {
		err = ps_store_sync(world->store, &info);
	}
	assert_err(err, expected);
	assert_true(atomic_load(&fault_hits) > 0);
	struct ps_store_stats stats;
	ps_store_stats(world->store, &stats);
	assert_true(stats.failed);
	assert_true(strlen(stats.failure) > 0);
	disarm();
	/* The device works again, the handle does not: the fate of the last records is unknown. */
	assert_err(world_append(world, 0, 1), RT_E_CLOSED);
	assert_err(ps_store_sync(world->store, NULL), RT_E_CLOSED);
	uint64_t readable = 0;
	assert_err(ps_store_read(world->store, 1, 1, 50, world_count, &readable, NULL), RT_OK);
	assert_int_equal(readable, 50);
}

static void everything_acknowledged_is_there(struct world *world)
{
	ps_store_close(world->store);
	world->store = NULL;
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_in_range(world_readable(world, shard), 50, 51);
		world->offset[shard] = ps_store_last_offset(world->store, shard);
	}
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_err(world_append(world, shard, 10), RT_OK);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
}

static void a_sync_of_the_log_that_fails(void **state)
{
	arm(".log", EIO, true, false);
	a_commit_fails(*state, RT_E_IO);
	everything_acknowledged_is_there(*state);
}

static void a_write_of_the_log_that_fails(void **state)
{
	arm(".log", EIO, false, true);
	a_commit_fails(*state, RT_E_IO);
	everything_acknowledged_is_there(*state);
}

static void a_full_disk_under_the_log(void **state)
{
	arm(".log", ENOSPC, false, true);
	a_commit_fails(*state, RT_E_NOSPACE);
	everything_acknowledged_is_there(*state);
}

static void a_full_disk_at_the_sync(void **state)
{
	arm(".log", ENOSPC, true, false);
	a_commit_fails(*state, RT_E_NOSPACE);
	everything_acknowledged_is_there(*state);
}

static void a_high_water_mark_that_cannot_be_written(void **state)
{
	arm("HIGHWATER", EIO, false, true);
	a_commit_fails(*state, RT_E_IO);
	everything_acknowledged_is_there(*state);
}

/* Memtables cannot be flushed at close: the next open replays the log instead. */
static void close_under(struct world *world, const char *file, int code)
{
	arm(file, code, true, true);
	ps_store_close(world->store);
	world->store = NULL;
	assert_true(atomic_load(&fault_hits) > 0);
	disarm();
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(world_readable(world, shard), 50);
	}
}

static void a_close_that_cannot_write_table_files(void **state)
{
	close_under(*state, ".sst", EIO);
}

static void a_close_on_a_full_disk(void **state)
{
	close_under(*state, "", ENOSPC);
}

static void a_close_that_cannot_write_the_manifest(void **state)
{
	close_under(*state, "MANIFEST", EIO);
}

static void index_fails(struct world *world, int code)
{
	struct ps_indexer *indexer = NULL;
	world_little_room(world);
	assert_err(ps_indexer_start(world->store, 1, &indexer, NULL), RT_OK);
	struct ps_stage *stage = ps_indexer_stage(indexer, 0);
	for (uint64_t offset = 1; offset <= 50; offset++) {
		struct rt_bytes bytes;
		struct ps_record record;
		assert_err(ps_store_get(world->store, 0, offset, &bytes, NULL), RT_OK);
		assert_err(ps_record_decode(bytes, &record), RT_OK);
		ps_stage_record(stage, 0, offset, &record);
		free((void *)(uintptr_t)bytes.data);
	}
	ps_stage_flush(stage);
	arm(".sst", code, true, true);
	ps_indexer_stop(indexer);
	assert_true(atomic_load(&fault_hits) > 0);
	disarm();
	assert_int_equal(ps_store_index_watermark(world->store, 0), 0);
}

/* The index fails in the background: that fails the store, and nothing is lost by it. */
static void a_chunk_that_cannot_be_written(void **state)
{
	struct world *world = *state;
	uint64_t offset;
	index_fails(world, EIO);
	assert_err(world_append(world, 0, 1), RT_E_CLOSED);
	everything_acknowledged_is_there(world);
	assert_err(ps_store_dedupe(world->store, 0, rt_bytes_str("s0-o17"), &offset, NULL), RT_OK);
}

/* But not a full disk: a stop gives up, the store goes on. */
static void a_chunk_without_room(void **state)
{
	struct world *world = *state;
	uint64_t offset;
	index_fails(world, ENOSPC);
	assert_err(world_append(world, 0, 1), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	everything_acknowledged_is_there(world);
	assert_err(ps_store_dedupe(world->store, 0, rt_bytes_str("s0-o51"), &offset, NULL), RT_OK);
}

static void a_mark_that_cannot_be_lowered_keeps_the_tail(void **state)
{
	struct world *world = *state;
	arm("HIGHWATER", EIO, false, true);
	assert_err(ps_store_truncate_tail(world->store, 1, 31, NULL), RT_E_IO);
	assert_true(atomic_load(&fault_hits) > 0);
	disarm();
	ps_store_close(world->store);
	world_open(world);
	assert_int_equal(ps_store_last_offset(world->store, 1), 50);
	/* And one that cannot be synced. */
	ps_store_close(world->store);
	world_open(world);
	struct ps_log_row row = {.shard = 1, .offset = 51, .record = world_record(1, 3, 51, 99, 1)};
	assert_err(ps_store_append(world->store, &row, 1, NULL, 0, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	free((void *)(uintptr_t)row.record.data);
	arm("HIGHWATER", EIO, true, false);
	assert_err(ps_store_truncate_tail(world->store, 1, 51, NULL), RT_E_IO);
	assert_true(atomic_load(&fault_hits) > 0);
}

/* Shards 1 and 2 become three other records each, above and among the old ones, and the store fails
 * when the batch is durable and the old records are not gone yet. */
static void a_wipe_fails(struct world *world)
{
	struct ps_log_row rows[8];
	for (uint32_t i = 0; i < 8; i++) {
		uint32_t shard = 1 + i / 4;
		uint64_t offset = (shard == 1 ? 61 : 11) + (i % 4 == 0 ? 0 : i % 4 - 1);
		rows[i] = (struct ps_log_row){.shard = shard, .offset = offset};
		if (i % 4 == 0) {
			rows[i].kind = PS_ROW_WIPE;
		} else {
			rows[i].record = world_record(shard, 7, offset, i % 4, 1);
		}
	}
	arm("/tmp/0", EIO, true, true); /* the table file with the range deletion */
	assert_err(ps_store_append(world->store, rows, 8, NULL, 0, NULL), RT_E_IO);
	assert_true(atomic_load(&fault_hits) > 0);
	disarm();
	for (uint32_t i = 0; i < 8; i++) {
		free((void *)(uintptr_t)rows[i].record.data);
	}
}

static void shard_was_wiped(struct world *world, uint32_t shard, uint64_t first, uint64_t count)
{
	uint64_t read = 0;
	uint64_t offset = 0;
	char id[32];
	assert_int_equal(ps_store_first_offset(world->store, shard), first);
	assert_int_equal(ps_store_last_offset(world->store, shard), first + count - 1);
	assert_err(ps_store_read(world->store, shard, first, UINT64_MAX, world_count, &read, NULL),
		RT_OK);
	assert_int_equal(read, count);
	snprintf(id, sizeof(id), "s%u-o%llu", shard, (unsigned long long)first + 1);
	assert_err(ps_store_dedupe(world->store, shard, rt_bytes_str(id), &offset, NULL), RT_OK);
	snprintf(id, sizeof(id), "s%u-o17", shard);
	assert_err(ps_store_dedupe(world->store, shard, rt_bytes_str(id), &offset, NULL),
		RT_E_NOTFOUND);
	world->offset[shard] = first + count - 1;
	memset(world->seq[shard], 0, sizeof(world->seq[shard]));
}

static void a_wipe_that_is_cut_off_is_ended_by_an_open(void **state)
{
	struct world *world = *state;
	ps_store_close(world->store);
	world_open(world); /* indexes it all */
	/* Records in files that are dropped whole, so the batch has to be durable by then. */
	rocksdb_compact_range_cf(world->store->db, world->store->family[PS_LOG], NULL, 0, NULL, 0);
	a_wipe_fails(world);
	world_crash(world);
	struct rt_errinfo info = {0};
	arm("/tmp/0", EIO, true, true);
	assert_err(world_try_open(world, &info), RT_E_IO); /* once more cut off */
	disarm();
	for (uint32_t turn = 0; turn < 2; turn++) {
		world_open(world);
		shard_was_wiped(world, 1, 61, 3 + turn);
		shard_was_wiped(world, 2, 11, 3 + turn);
		if (turn == 0) { /* what is appended now is not taken by another open */
			assert_err(world_append(world, 1, 1), RT_OK);
			assert_err(world_append(world, 2, 1), RT_OK);
			assert_err(ps_store_sync(world->store, NULL), RT_OK);
		}
		world_crash(world);
	}
	struct ps_verify_report report = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, NULL), RT_OK);
	assert_int_equal(report.problems, 0);
	assert_int_equal(report.records, (WORLD_LOGS - 2) * 50 + 2 * 4);
}

static void erase_fails(struct world *world, const char *file)
{
	struct ps_erase erase = {.shards = {2, 1}, .count = 2};
	world_little_room(world);
	arm(file, EIO, true, true);
	ps_erase_run(&erase, world->store);
	assert_err(erase.err, RT_E_IO);
	assert_true(atomic_load(&fault_hits) > 0);
	disarm();
	assert_err(world_append(world, 0, 1), RT_E_CLOSED);
	world_crash(world);
}

static void an_erase_that_is_cut_off_is_ended_by_an_open(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	ps_store_close(world->store);
	world_open(world); /* indexes it all */
	erase_fails(world, "/tmp/0");
	arm("/tmp/0", EIO, true, true);
	assert_err(world_try_open(world, &info), RT_E_IO); /* once more cut off */
	disarm();
	for (uint32_t turn = 0; turn < 2; turn++) {
		world_open(world);
		for (uint32_t shard = 1; shard <= 2; shard++) {
			assert_int_equal(ps_store_first_offset(world->store, shard), 1);
			assert_int_equal(ps_store_last_offset(world->store, shard), turn);
			assert_int_equal(world_readable(world, shard), turn);
			if (turn == 0) { /* what is appended now is not taken by another open */
				memset(world->seq[shard], 0, sizeof(world->seq[shard]));
				world->offset[shard] = 0;
				assert_err(world_append(world, shard, 1), RT_OK);
				assert_err(ps_store_sync(world->store, NULL), RT_OK);
			}
		}
		world_crash(world);
	}
	struct ps_verify_report report = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, NULL), RT_OK);
	assert_int_equal(report.problems, 0);
	assert_int_equal(report.records, (WORLD_LOGS - 2) * 50 + 2);
}

static void an_erase_that_cannot_lower_the_mark_takes_nothing(void **state)
{
	struct world *world = *state;
	erase_fails(world, "HIGHWATER");
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(world_readable(world, shard), 50);
	}
}

static void an_open_that_cannot_write(void **state)
{
	struct world *world = *state;
	ps_store_close(world->store);
	world->store = NULL;
	arm("", ENOSPC, true, true);
	struct rt_errinfo info = {0};
	assert_err(world_try_open(world, &info), RT_E_NOSPACE);
	disarm();
	everything_acknowledged_is_there(world);
}

static void low_space_is_told_before_writes_fail(void **state)
{
	struct world *world = *state;
	ps_store_close(world->store);
	struct ps_store_options options = {.dir = world->dir, .free_space_low_bytes = UINT64_MAX};
	assert_err(ps_store_open(&options, &world->store, NULL), RT_OK);
	assert_true(ps_store_space_low(world->store));
	struct ps_store_stats stats;
	ps_store_stats(world->store, &stats);
	assert_true(stats.space_low && stats.free_space_bytes > 0);
	assert_err(world_append(world, 0, 1), RT_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_sync_of_the_log_that_fails),
		TEST(a_write_of_the_log_that_fails),
		TEST(a_full_disk_under_the_log),
		TEST(a_full_disk_at_the_sync),
		TEST(a_high_water_mark_that_cannot_be_written),
		TEST(a_close_that_cannot_write_table_files),
		TEST(a_close_on_a_full_disk),
		TEST(a_close_that_cannot_write_the_manifest),
		TEST(a_chunk_that_cannot_be_written),
		TEST(a_chunk_without_room),
		TEST(a_mark_that_cannot_be_lowered_keeps_the_tail),
		TEST(a_wipe_that_is_cut_off_is_ended_by_an_open),
		TEST(an_erase_that_is_cut_off_is_ended_by_an_open),
		TEST(an_erase_that_cannot_lower_the_mark_takes_nothing),
		TEST(an_open_that_cannot_write),
		TEST(low_space_is_told_before_writes_fail),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
