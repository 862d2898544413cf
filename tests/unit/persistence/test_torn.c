#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/persistence/world.h"

/* First file of the copy that matches and has data. */
static void find_file(const char *copy, const char *pattern, char path[200])
{
	char command[300];
	snprintf(command, sizeof(command), "find '%s/db' -name '%s' -size +0 | sort | tail -n 1",
		copy, pattern);
	FILE *list = popen(command, "r");
	assert_non_null(list);
	assert_non_null(fgets(path, 200, list));
	path[strcspn(path, "\n")] = '\0';
	pclose(list);
}

/* Appends the head of a record whose data reaches 1,000 bytes into the page after next, with data
 * up to a page border and `tail` from there on. */
static void append_torn(const char *path, uint8_t tail)
{
	static uint8_t record[3 * 4096];
	int fd = open(path, O_WRONLY | O_APPEND);
	assert_true(fd >= 0);
	size_t at = (size_t)lseek(fd, 0, SEEK_END);
	size_t border = 4096 - at % 4096 + (at % 4096 > 4000 ? 4096 : 0);
	size_t size = border + 1000;
	/* It must not cross a block of the log format. */
	assert_true(at / 32768 == (at + size) / 32768);
	memset(record, 0x5a, border);
	memset(record + border, tail, 1000);
	record[4] = (uint8_t)((size - 7) & 0xff);
	record[5] = (uint8_t)((size - 7) >> 8);
	record[6] = 1;
	assert_int_equal(write(fd, record, size), size);
	close(fd);
}

static rt_err open_copy(struct world *world, const char *copy, struct rt_errinfo *info)
{
	ps_store_close(world->store);
	world->store = NULL;
	struct ps_store_options options = {.dir = copy};
	return ps_store_open(&options, &world->store, info);
}

static void damage(struct world *world, const char *pattern, uint8_t tail, struct rt_errinfo *info,
	rt_err *out_err)
{
	char copy[80], path[200];
	world_open(world);
	world_fill(world, 50); /* ends inside a block, see append_torn */
	world_crash_copy(world, copy);
	find_file(copy, pattern, path);
	append_torn(path, tail);
	*out_err = open_copy(world, copy, info);
}

static void opens_whole_after_a_write_ahead_log_torn_to_zeros(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	rt_err err;
	damage(world, "*.log", 0, &info, &err);
	assert_err(err, RT_OK);
	assert_int_equal(ps_store_last_offset(world->store, 1), world->offset[1]);
}

static void opens_whole_after_a_manifest_torn_to_zeros(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	rt_err err;
	damage(world, "MANIFEST-*", 0, &info, &err);
	assert_err(err, RT_OK);
	assert_int_equal(ps_store_last_offset(world->store, 1), world->offset[1]);
}

static void refuses_a_wrong_last_record_without_a_missing_page(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	rt_err err;
	damage(world, "*.log", 0x77, &info, &err);
	assert_err(err, RT_E_CORRUPT);
	assert_non_null(strstr(info.text, ".log"));
}

static void refuses_a_wrong_last_edit_of_the_manifest(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	rt_err err;
	damage(world, "MANIFEST-*", 0x77, &info, &err);
	assert_err(err, RT_E_CORRUPT);
	assert_non_null(strstr(info.text, "MANIFEST"));
}

/* Zeros over records that were synced are no torn end: others follow. */
static void refuses_a_page_of_zeros_in_the_middle(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	char copy[80], path[200];
	static const uint8_t zeros[4096];
	world_open(world);
	world_fill(world, 500);
	world_crash_copy(world, copy);
	find_file(copy, "*.log", path);
	int fd = open(path, O_WRONLY);
	off_t size = lseek(fd, 0, SEEK_END);
	assert_true(size > 40960);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 8192), sizeof(zeros));
	assert_err(open_copy(world, copy, &info), RT_E_CORRUPT);
	assert_non_null(strstr(info.text, ".log"));
	assert_int_equal(lseek(fd, 0, SEEK_END), size); /* and nothing was cut */
	close(fd);
}

static void names_the_file_that_names_a_missing_manifest(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	char copy[80], path[200];
	world_open(world);
	world_crash_copy(world, copy);
	find_file(copy, "CURRENT", path);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs("MANIFEST-080005\n", file);
	fclose(file);
	assert_err(open_copy(world, copy, &info), RT_E_CORRUPT);
	assert_non_null(strstr(info.text, "CURRENT"));
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
		TEST(opens_whole_after_a_write_ahead_log_torn_to_zeros),
		TEST(opens_whole_after_a_manifest_torn_to_zeros),
		TEST(refuses_a_wrong_last_record_without_a_missing_page),
		TEST(refuses_a_wrong_last_edit_of_the_manifest),
		TEST(refuses_a_page_of_zeros_in_the_middle),
		TEST(names_the_file_that_names_a_missing_manifest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
