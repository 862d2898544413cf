/* The file of the high-water marks: its older form, and the log of the cluster that it lacked. */
#include <stddef.h>

#include "persistence/files.h"
#include "tests/unit/persistence/world.h"

#define PAGE 4096u

/* The first form as its writer made it, so that it does not change with the code under test. */
struct old_head {
	char magic[24];
	uint32_t version, shard_count;
	char id[32];
	uint64_t check;
};

static uint64_t old_mix(uint64_t value, uint64_t seed)
{
	uint64_t x = value ^ (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static void path_of(const struct world *world, const char *name, char out[160])
{
	snprintf(out, 160, "%s/db/%s", world->dir, name);
}

static void write_old(
	const struct world *world, uint32_t shard_count, const char id[33], const uint64_t *offsets)
{
	struct old_head head = {.magic = "troupe high-water mark\n", .version = 1};
	uint8_t page[PAGE] = {0};
	char path[160];
	head.shard_count = shard_count;
	memcpy(head.id, id, 32);
	for (size_t i = 0; i < offsetof(struct old_head, check); i++) {
		head.check = old_mix(head.check ^ ((const uint8_t *)&head)[i], i);
	}
	memcpy(page, &head, sizeof(head));
	path_of(world, PS_HIGHWATER_NAME, path);
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(page, 1, PAGE, file), PAGE);
	for (uint32_t i = 0; i < shard_count; i++) {
		uint64_t before = offsets[i] == 0 ? 0 : offsets[i] - 1;
		uint64_t pair[4] = {before, old_mix(before, i), offsets[i], old_mix(offsets[i], i)};
		assert_int_equal(fwrite(pair, sizeof(pair), 1, file), 1);
	}
	assert_int_equal(fclose(file), 0);
}

/* A folder as the first version left it: shards full, nothing of the cluster. */
static void make_old(struct world *world, const uint64_t *offsets)
{
	char id[33];
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_SHARDS; shard++) {
		assert_err(world_append(world, shard, 40), RT_OK);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	memcpy(id, ps_store_id(world->store), sizeof(id));
	ps_store_close(world->store);
	world->store = NULL;
	write_old(world, WORLD_SHARDS, id, offsets);
}

static const uint64_t whole[WORLD_SHARDS] = {40, 40, 40, 40};

static void a_folder_of_the_first_version_opens(void **state)
{
	struct world *world = *state;
	make_old(world, whole);
	for (uint32_t turn = 0; turn < 2; turn++) {
		world_open(world);
		assert_int_equal(ps_store_shard_count(world->store), WORLD_SHARDS);
		assert_int_equal(ps_store_log_count(world->store), WORLD_LOGS);
		assert_int_equal(ps_store_last_offset(world->store, 2), 40);
		assert_int_equal(
			ps_store_last_offset(world->store, WORLD_SHARDS), (uint64_t)turn * 7);
		if (turn == 0) {
			assert_err(world_append(world, WORLD_SHARDS, 7), RT_OK);
			assert_err(ps_store_sync(world->store, NULL), RT_OK);
		}
		ps_store_close(world->store);
		world->store = NULL;
	}
	struct ps_verify_report report = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, NULL), RT_OK);
	assert_int_equal(report.records, 4 * 40 + 7);
	assert_int_equal(report.problems, 0);
}

/* Nothing that the older file knew is forgotten with it. */
static void a_lost_end_is_noticed_in_the_older_file(void **state)
{
	struct world *world = *state;
	static const uint64_t longer[WORLD_SHARDS] = {40, 40, 41, 40};
	struct rt_errinfo info = {0};
	make_old(world, longer);
	for (uint32_t turn = 0; turn < 2; turn++) { /* before and after the file was replaced */
		assert_err(world_try_open(world, &info), RT_E_CORRUPT);
		assert_non_null(strstr(info.text, "shard 2 ends at offset 40 but 41"));
	}
}

/* A crash came while the new file was written: the older one is in its place. */
static void what_a_cut_off_upgrade_left_is_no_hindrance(void **state)
{
	struct world *world = *state;
	char path[160];
	make_old(world, whole);
	path_of(world, PS_HIGHWATER_NAME ".new", path);
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	fputs("half a page", file);
	fclose(file);
	world_open(world);
	assert_int_equal(ps_store_log_count(world->store), WORLD_LOGS);
	assert_false(ps_exists(path));
}

static void refuses_an_older_file_of_another_store(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	make_old(world, whole);
	write_old(world, WORLD_SHARDS, "0123456789abcdef0123456789abcdef", whole);
	assert_err(world_try_open(world, &info), RT_E_CORRUPT);
	assert_non_null(strstr(info.text, "another store"));
}

static void refuses_an_older_file_of_another_size(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	char id[33];
	world_open(world);
	memcpy(id, ps_store_id(world->store), sizeof(id));
	ps_store_close(world->store);
	world->store = NULL;
	static const uint64_t none[WORLD_LOGS] = {0};
	write_old(world, WORLD_LOGS, id, none); /* version 1 had no such thing */
	assert_err(world_try_open(world, &info), RT_E_CORRUPT);
	assert_non_null(strstr(info.text, "another store"));
}

static void a_lost_end_of_the_cluster_s_log_is_noticed(void **state)
{
	struct world *world = *state;
	struct ps_highwater *high = NULL;
	char path[160], id[33];
	struct rt_errinfo info = {0};
	world_open(world);
	world_fill(world, 5);
	memcpy(id, ps_store_id(world->store), sizeof(id));
	ps_store_close(world->store);
	world->store = NULL;
	path_of(world, PS_HIGHWATER_NAME, path);
	assert_err(ps_highwater_open(path, id, WORLD_LOGS, &high, &info), RT_OK);
	assert_int_equal(ps_highwater_get(high, WORLD_SHARDS), 5);
	ps_highwater_set(high, WORLD_SHARDS, 6);
	assert_err(ps_highwater_write(high, &info), RT_OK);
	ps_highwater_close(high);
	assert_err(world_try_open(world, &info), RT_E_CORRUPT);
	assert_non_null(strstr(info.text, "shard 4 ends at offset 5 but 6"));
}

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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_folder_of_the_first_version_opens),
		TEST(a_lost_end_is_noticed_in_the_older_file),
		TEST(what_a_cut_off_upgrade_left_is_no_hindrance),
		TEST(refuses_an_older_file_of_another_store),
		TEST(refuses_an_older_file_of_another_size),
		TEST(a_lost_end_of_the_cluster_s_log_is_noticed),
	};
	return cmocka_run_group_tests_name("persistence/highwater", tests, NULL, NULL);
}
