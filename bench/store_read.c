/* store_read.c - entities and feeds read back, from a cold and from a warm machine. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/store.h"
#include "persistence/reader.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define LOADS 400u
#define HELD  30u /* entities whose blocks fit into the block cache */

static void drop_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
}

/* The whole page cache as root, else this store's files. */
static void drop_caches(const char *dir)
{
	sync();
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	bool dropped = fd >= 0 && write(fd, "3", 1) == 1;
	if (fd >= 0) {
		close(fd);
	}
	char path[5000];
	snprintf(path, sizeof(path), "%s/db", dir);
	DIR *list = dropped ? NULL : opendir(path);
	for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
		snprintf(path, sizeof(path), "%s/db/%s", dir, entry->d_name);
		drop_file(path);
	}
	if (list != NULL) {
		closedir(list);
	}
}

static struct ps_store *open_store(const char *dir)
{
	struct rt_errinfo info = {0};
	struct ps_store *store = NULL;
	struct ps_store_options options = {.dir = dir};
	bench_check("open", ps_store_open(&options, &store, &info), &info);
	return store;
}

static struct ps_store *open_cold(const char *dir)
{
	drop_caches(dir);
	return open_store(dir);
}

/* LOADS times one of `span` entities, spread; the median in microseconds. */
static double loads(
	struct ps_store *store, const struct options *options, uint64_t span, bool want_snapshot)
{
	static struct rt_hist hist;
	memset(&hist, 0, sizeof(hist));
	uint64_t wanted = options->events / options->entities;
	for (uint64_t i = 0; i < LOADS; i++) {
		uint64_t entity = ((want_snapshot ? 0 : 5) + i % span * 37 * 101) %
				  (options->entities / 37 * 37);
		struct bench_record record;
		bench_pid(&record, entity);
		struct ps_load load = {.shard = record.shard,
			.pid = record.pid,
			.from_seq = 1,
			.upto_seq = UINT64_MAX,
			.want_snapshot = want_snapshot};
		uint64_t start = rt_clock_now_ns();
		ps_load_run(&load, store);
		rt_hist_add(&hist, rt_clock_now_ns() - start);
		bench_check("load", load.err, &load.info);
		if (want_snapshot ? !load.has_snapshot : load.record_count < wanted) {
			bench_fail(record.pid_text, "loaded short");
		}
		ps_load_clear(&load);
	}
	return (double)rt_hist_percentile(&hist, 50.0) / 1e3;
}

static bool count_record(void *arg, uint64_t offset, struct rt_bytes record)
{
	uint64_t *count = arg;
	(void)offset;
	count[0]++;
	count[1] += record.size + record.data[record.size / 2];
	return true;
}

static double scan_feeds(struct ps_store *store, const struct options *options)
{
	uint64_t count[2] = {0};
	uint64_t start = rt_clock_now_ns();
	for (uint32_t shard = 0; shard < BENCH_SHARDS; shard++) {
		struct rt_errinfo info = {0};
		bench_check("feed",
			ps_store_read(store, shard, 1, UINT64_MAX, count_record, count, &info),
			&info);
	}
	double seconds = (double)(rt_clock_now_ns() - start) / 1e9;
	if (count[0] != options->events) {
		bench_fail("feed", "read short");
	}
	return (double)count[0] / seconds;
}

void bench_read(const struct options *options)
{
	char dir[4096];
	snprintf(dir, sizeof(dir), "%s/store", options->dir);
	uint64_t start = rt_clock_now_ns();
	struct ps_store *store = open_cold(dir);
	bench_print("open_cold", (double)(rt_clock_now_ns() - start) / 1e6, "ms", NULL);
	bench_print("cold", loads(store, options, LOADS, false), "us", "<= 5000");
	ps_store_close(store);
	store = open_cold(dir);
	bench_print("snapshot", loads(store, options, LOADS, true), "us", "<= 300");
	ps_store_close(store);
	store = open_store(dir);
	(void)loads(store, options, LOADS, false);
	bench_print("warm_pages", loads(store, options, LOADS, false), "us", NULL);
	(void)loads(store, options, HELD, false);
	bench_print("warm", loads(store, options, HELD, false), "us", "<= 250");
	bench_print("warm_snapshot", loads(store, options, HELD, true), "us", NULL);
	ps_store_close(store);
	store = open_cold(dir);
	bench_print("feed", scan_feeds(store, options), "events/s", ">= 2e6");
	bench_print("feed_warm", scan_feeds(store, options), "events/s", NULL);
	ps_store_close(store);
	if (!options->keep) {
		char command[4200];
		snprintf(command, sizeof(command), "rm -rf '%s'", dir);
		(void)!system(command);
	}
}
