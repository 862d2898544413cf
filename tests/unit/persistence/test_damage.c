/*
 * Files of a store that were cut, flipped or lost: it is opened whole, or refused with the file's
 * name, or the read that meets the damage says so. Never is anything missing silently.
 *
 * This process only changes files. Stores are made and looked at by children, so that one which
 * ends without a clean close, or is stopped by an assertion of the library, is just a result.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persistence/db.h"
#include "persistence/reader.h"
#include "tests/unit/persistence/world.h"

#define RECORDS 40u

/* A child of an instrumented build takes ten times as long: it looks at every tenth place. */
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define STRIDE 10
#else
#define STRIDE 1
#endif

enum result {
	WHOLE = 0,
	ONE_MORE = 1, /* whole, and a record that was written and never synced */
	NAMED = 10,   /* refused or failed with RT_E_CORRUPT and a file's name */
	UNNAMED,      /* the same without a name */
	OTHER,        /* another error */
	SHORT,        /* opened and read without an error, something is missing */
	ABORTED,
	RESULTS
};

static int setup(void **state)
{
	*state = world_new();
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

/* ---- children ---- */

static int child_result(pid_t child)
{
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : ABORTED;
}

static void need(bool good)
{
	if (!good) {
		_exit(99);
	}
}

/* clean: closed as a node does, with everything in table files. Else killed after a sync and one
 * record more that reached the file and was never synced. */
static void make(struct world *world, bool clean)
{
	pid_t child = fork();
	if (child == 0) {
		struct rt_errinfo info = {0};
		need(world_try_open(world, &info) == RT_OK);
		for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
			need(world_append(world, shard, RECORDS / 2) == RT_OK);
			need(ps_store_sync(world->store, NULL) == RT_OK);
			need(world_append(world, shard, RECORDS / 2) == RT_OK);
			need(ps_store_sync(world->store, NULL) == RT_OK);
		}
		if (!clean) {
			char *message = NULL;
			need(world_append(world, 0, 1) == RT_OK);
			rocksdb_flush_wal(world->store->db, 0, &message);
			need(message == NULL);
			_exit(0);
		}
		ps_store_close(world->store);
		need(world_try_open(world, &info) == RT_OK); /* indexes */
		static uint8_t state[6000];
		struct ps_snapshot snapshot = {1, 1, 1, {state, sizeof(state)}};
		need(ps_store_snapshot_put(
			     world->store, 0, rt_bytes_str("t|e1"), &snapshot, NULL) == RT_OK);
		ps_store_close(world->store);
		_exit(0);
	}
	assert_int_equal(child_result(child), 0);
}

static bool names_file(const char *text)
{
	static const char *const names[] = {
		".sst", ".log", ".blob", "MANIFEST", "CURRENT", "HIGHWATER", "OPTIONS"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strstr(text, names[i]) != NULL) {
			return true;
		}
	}
	return false;
}

static void judge(rt_err err, const struct rt_errinfo *info)
{
	if (err != RT_OK) {
		if (getenv("SHOW") != NULL) {
			fprintf(stderr, "%s: %s\n", rt_err_name(err), info->text);
		}
		_exit(err != RT_E_CORRUPT ? OTHER : names_file(info->text) ? NAMED : UNNAMED);
	}
}

static void look_at_entities(struct ps_store *store, uint32_t shard)
{
	size_t count = 0;
	for (uint32_t entity = 0; entity < 8; entity++) {
		char pid[32];
		struct ps_load load = {.shard = shard,
			.pid = world_pid(pid, entity),
			.from_seq = 1,
			.upto_seq = UINT64_MAX};
		ps_load_run(&load, store);
		judge(load.err, &load.info);
		count += load.record_count;
	}
	if (count < RECORDS) {
		_exit(SHORT);
	}
}

static void look_at_ids(struct ps_store *store, uint32_t shard)
{
	for (uint32_t i = 1; i <= RECORDS; i++) {
		char id[32];
		uint64_t offset = 0;
		struct rt_errinfo info = {0};
		snprintf(id, sizeof(id), "s%u-o%u", shard, i);
		rt_err err = ps_store_dedupe(store, shard, rt_bytes_str(id), &offset, &info);
		if (err == RT_E_NOTFOUND) {
			_exit(SHORT);
		}
		judge(err, &info);
	}
}

static int look(struct world *world)
{
	pid_t child = fork();
	if (child == 0) {
		struct rt_errinfo info = {0};
		judge(world_try_open(world, &info), &info);
		uint64_t total = 0;
		for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
			uint64_t count = 0;
			rt_err err = ps_store_read(
				world->store, shard, 1, UINT64_MAX, world_count, &count, &info);
			judge(err, &info);
			if (count < RECORDS) {
				_exit(SHORT);
			}
			look_at_entities(world->store, shard);
			look_at_ids(world->store, shard);
			total += count;
		}
		_exit(total == RECORDS * WORLD_LOGS ? WHOLE : ONE_MORE);
	}
	return child_result(child);
}

/* ---- files ---- */

static void keep(const struct world *world)
{
	char command[300];
	snprintf(command, sizeof(command), "rm -rf '%s.copy' && cp -a '%s' '%s.copy'", world->dir,
		world->dir, world->dir);
	assert_int_equal(system(command), 0);
}

static void bring_back(const struct world *world)
{
	char command[300];
	snprintf(command, sizeof(command), "rm -rf '%s' && cp -a '%s.copy' '%s'", world->dir,
		world->dir, world->dir);
	assert_int_equal(system(command), 0);
}

/* The n-th file of the database whose name has this in it; false when there are fewer. */
static bool find(const struct world *world, const char *part, int n, char path[400])
{
	snprintf(path, 400, "%s/db", world->dir);
	struct dirent **names;
	int count = scandir(path, &names, NULL, alphasort);
	bool found = false;
	for (int i = 0; i < count; i++) {
		if (!found && strstr(names[i]->d_name, part) != NULL && n-- == 0) {
			snprintf(path, 400, "%s/db/%s", world->dir, names[i]->d_name);
			found = true;
		}
		free(names[i]);
	}
	free(names);
	return found;
}

static long size_of(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return (long)st.st_size;
}

/* The write-ahead log that holds the records. */
static void find_wal(const struct world *world, char path[400])
{
	char other[400];
	long best = 0;
	for (int file = 0; find(world, ".log", file, other); file++) {
		if (size_of(other) > best) {
			best = size_of(other);
			memcpy(path, other, 400);
		}
	}
	assert_true(best > 0);
}

static void flip(const char *path, long at, uint8_t mask)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= mask;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* Flips one bit at many places of each file of a kind, and counts what came of it. */
static void flip_all(struct world *world, const char *part, int places, int results[RESULTS])
{
	char path[400];
	for (int file = 0; find(world, part, file, path); file++) {
		long size = size_of(path);
		long step = size * STRIDE / places > 0 ? size * STRIDE / places : 1;
		for (long at = 0; at < size; at += step) {
			flip(path, at, (uint8_t)(1u << at % 8));
			int result = look(world);
			if (result == SHORT || result == UNNAMED || result == OTHER) {
				print_message(
					"%s: byte %ld of %ld: result %d\n", path, at, size, result);
			}
			results[result < RESULTS ? result : OTHER]++;
			bring_back(world);
		}
	}
	print_message("          %s: %d whole, %d named, %d other, %d aborted\n", part,
		results[WHOLE] + results[ONE_MORE], results[NAMED],
		results[OTHER] + results[UNNAMED], results[ABORTED]);
}

static void never_silently_short(struct world *world, const char *part, int places)
{
	int results[RESULTS] = {0};
	flip_all(world, part, places, results);
	assert_int_equal(results[SHORT], 0);
	assert_int_equal(results[UNNAMED], 0);
	assert_int_equal(results[OTHER], 0);
	assert_int_equal(results[ABORTED], 0);
}

/* ---- tests ---- */

static void a_tail_torn_at_any_byte_loses_only_what_was_not_synced(void **state)
{
	struct world *world = *state;
	make(world, false);
	char path[400];
	keep(world);
	assert_int_equal(look(world), ONE_MORE);
	bring_back(world);
	find_wal(world, path);
	long size = size_of(path);
	int refused = 0;
	int whole = 0;
	for (long cut = 1; cut < 600; cut += STRIDE) {
		assert_int_equal(truncate(path, size - cut), 0);
		int result = look(world);
		/* First the record that was not synced is gone, then ones that were. */
		whole += result == WHOLE && refused == 0;
		refused += result == NAMED;
		assert_true(result == WHOLE || result == NAMED);
		assert_int_equal((whole + refused - 1) * STRIDE + 1, cut);
		bring_back(world);
	}
	assert_true(whole > 100 / STRIDE && refused > 50 / STRIDE);
}

static void a_flipped_bit_in_the_write_ahead_log_is_seen(void **state)
{
	struct world *world = *state;
	make(world, false);
	keep(world);
	never_silently_short(world, ".log", 150);
}

static void a_lost_write_ahead_log_is_seen(void **state)
{
	struct world *world = *state;
	make(world, false);
	char path[400];
	find_wal(world, path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(look(world), NAMED);
}

static void a_flipped_bit_in_a_table_file_is_seen(void **state)
{
	struct world *world = *state;
	make(world, true);
	keep(world);
	never_silently_short(world, ".sst", 25);
}

static void a_flipped_bit_in_the_manifest_is_seen(void **state)
{
	struct world *world = *state;
	make(world, true);
	keep(world);
	never_silently_short(world, "MANIFEST", 150);
}

static void a_flipped_bit_in_a_small_file_is_seen(void **state)
{
	struct world *world = *state;
	make(world, true);
	keep(world);
	never_silently_short(world, "CURRENT", 16);
	never_silently_short(world, "HIGHWATER", 60);
	never_silently_short(world, "IDENTITY", 4);
	never_silently_short(world, "OPTIONS", 10);
}

static void a_lost_file_is_seen(void **state)
{
	struct world *world = *state;
	make(world, true);
	keep(world);
	static const char *const parts[] = {".sst", "MANIFEST", "CURRENT", "HIGHWATER"};
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char path[400];
		for (int file = 0; find(world, parts[i], file, path); file++) {
			assert_int_equal(unlink(path), 0);
			int result = look(world);
			if (result != NAMED) {
				print_message("without %s: result %d\n", path, result);
			}
			assert_int_equal(result, NAMED);
			bring_back(world);
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_tail_torn_at_any_byte_loses_only_what_was_not_synced),
		TEST(a_flipped_bit_in_the_write_ahead_log_is_seen),
		TEST(a_lost_write_ahead_log_is_seen),
		TEST(a_flipped_bit_in_a_table_file_is_seen),
		TEST(a_flipped_bit_in_the_manifest_is_seen),
		TEST(a_flipped_bit_in_a_small_file_is_seen),
		TEST(a_lost_file_is_seen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
