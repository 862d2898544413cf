/* store_write.c - raw appends, then the same groups through writer and indexer. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/store.h"
#include "persistence/db.h"
#include "persistence/indexer.h"
#include "persistence/writer.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define IN_FLIGHT   2u /* one being written, one queued: groups stay as they were submitted */
#define RAW_SECONDS 1.5
#define KEY_BYTES   10u

static double seconds_since(uint64_t start)
{
	return (double)(rt_clock_now_ns() - start) / 1e9;
}

/* Events a second of plain appends with fdatasync of groups of this many bytes. */
static double raw_rate(const struct options *options, size_t group_bytes)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/raw.%d", options->dir, (int)getpid());
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	char *block = malloc(group_bytes);
	if (fd < 0 || block == NULL || unlink(path) != 0) {
		bench_fail(path, strerror(errno));
	}
	memset(block, 'e', group_bytes);
	uint64_t groups = 0;
	uint64_t start = rt_clock_now_ns();
	for (; seconds_since(start) < RAW_SECONDS; groups++) {
		if (write(fd, block, group_bytes) != (ssize_t)group_bytes || fdatasync(fd) != 0) {
			bench_fail(path, strerror(errno));
		}
	}
	double rate = (double)(groups * options->group) / seconds_since(start);
	free(block);
	close(fd);
	return rate;
}

static uint64_t written_bytes(void)
{
	FILE *file = fopen("/proc/self/io", "r");
	char line[128];
	unsigned long long wrote = 0;
	unsigned long long cancelled = 0;
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		(void)sscanf(line, "write_bytes: %llu", &wrote);
		(void)sscanf(line, "cancelled_write_bytes: %llu", &cancelled);
	}
	if (file != NULL) {
		fclose(file);
	}
	return wrote - cancelled;
}

/* ---- what the payload is worth when it is compressed ---- */

typedef size_t compress_fn(void *to, size_t cap, const void *from, size_t size, int level);

/* Bytes per record of the records alone, in the order of a shard's log, with zstd in blocks of 128
 * KiB. The library is the one RocksDB stands on. */
static double compressed_record_bytes(const struct options *options)
{
	enum {
		SAMPLE = 65536,
		BLOCK = 131072
	};
	void *library = dlopen("libzstd.so.1", RTLD_NOW);
	compress_fn *compress = NULL;
	if (library != NULL) {
		*(void **)&compress = dlsym(library, "ZSTD_compress");
	}
	if (compress == NULL) {
		return 0;
	}
	char *block = malloc(BLOCK);
	char *out = malloc(2 * BLOCK);
	size_t used = 0;
	size_t total = 0;
	uint64_t count = 0;
	uint64_t seed = 7;
	struct bench_record record;
	for (uint64_t i = 0; i < options->events && count < SAMPLE; i++) {
		bench_record_make(&record, options, i, &seed);
		if (record.shard != 0 && options->events > BENCH_SHARDS * (uint64_t)SAMPLE) {
			continue;
		}
		if (used + record.size > BLOCK) {
			total += compress(out, 2 * BLOCK, block, used, 3);
			used = 0;
		}
		memcpy(block + used, record.bytes, record.size);
		used += record.size;
		count++;
	}
	total += used > 0 ? compress(out, 2 * BLOCK, block, used, 3) : 0;
	free(block);
	free(out);
	return (double)total / (double)count;
}

/* ---- the worker that feeds the writer and stages what came back ---- */

struct feeder {
	struct rt_post start;
	const struct options *options;
	struct ps_writer *writer;
	struct ps_stage *stage;
	struct rt_worker *worker;
	sem_t finished;
	uint64_t made, done, seed, bytes;
	uint64_t offset[BENCH_SHARDS];
	uint64_t submitted_ns[IN_FLIGHT + 1];
	uint64_t rounds_made, rounds_done;
	struct rt_hist commit;
};

static void submit(struct feeder *feeder);

static void round_done(struct ps_round *round, rt_err err)
{
	struct feeder *feeder = round->arg;
	bench_check("commit", err, NULL);
	rt_hist_add(&feeder->commit,
		rt_clock_now_ns() - feeder->submitted_ns[feeder->rounds_done++ % (IN_FLIGHT + 1)]);
	for (uint32_t i = 0; i < round->entry_count; i++) {
		const struct ps_entry *entry = &round->entries[i];
		struct ps_record record;
		bench_check("decode",
			ps_record_decode(
				rt_bytes_of(round->bytes + entry->pos, entry->size), &record),
			NULL);
		ps_stage_record(feeder->stage, entry->shard, entry->offset, &record);
	}
	ps_stage_flush(feeder->stage);
	feeder->done += round->entry_count;
	ps_round_release(round);
	if (feeder->made < feeder->options->events) {
		submit(feeder);
	} else if (feeder->done == feeder->made) {
		sem_post(&feeder->finished);
	}
}

static void submit(struct feeder *feeder)
{
	struct ps_round *round = ps_round_acquire(feeder->writer, feeder->worker);
	struct bench_record record;
	for (uint32_t i = 0; i < feeder->options->group && feeder->made < feeder->options->events;
		i++) {
		bench_record_make(&record, feeder->options, feeder->made++, &feeder->seed);
		uint32_t entry;
		uint8_t *at = ps_round_add(round, record.shard, record.size, &entry);
		memcpy(at, record.bytes, record.size);
		round->entries[entry].offset = ++feeder->offset[record.shard];
		feeder->bytes += record.size + KEY_BYTES;
	}
	round->done = round_done;
	round->arg = feeder;
	feeder->submitted_ns[feeder->rounds_made++ % (IN_FLIGHT + 1)] = rt_clock_now_ns();
	ps_writer_submit(feeder->writer, round);
}

static void begin(struct rt_worker *worker, struct rt_post *post)
{
	struct feeder *feeder = (struct feeder *)(void *)post;
	feeder->worker = worker;
	for (uint32_t i = 0; i < IN_FLIGHT && feeder->made < feeder->options->events; i++) {
		submit(feeder);
	}
}

/* Seconds until every event was durable and indexed. */
static double run(struct feeder *feeder, struct ps_store *store)
{
	struct rt_errinfo info = {0};
	struct rt_system *system = NULL;
	struct ps_indexer *indexer = NULL;
	struct rt_system_options options = {.workers = 1};
	bench_check("workers", rt_system_new(&options, &system, &info), &info);
	bench_check("indexer", ps_indexer_start(store, 1, &indexer, &info), &info);
	bench_check("writer", ps_writer_start(store, system, &feeder->writer, &info), &info);
	feeder->stage = ps_indexer_stage(indexer, 0);
	bench_check("workers", rt_system_start(system, &info), &info);
	feeder->start.run = begin;
	uint64_t start = rt_clock_now_ns();
	rt_worker_post_always(rt_system_worker(system, 0), &feeder->start);
	sem_wait(&feeder->finished);
	double durable = seconds_since(start);
	ps_writer_stop(feeder->writer);
	rt_system_stop(system);
	ps_indexer_stop(indexer);
	double indexed = seconds_since(start);
	rt_system_free(system);
	bench_print("durable_only", (double)feeder->made / durable, "/s", NULL);
	return indexed;
}

static void add_snapshots(const struct options *options, struct ps_store *store)
{
	static uint8_t state[200];
	uint64_t last_seq = options->events / options->entities;
	struct bench_record record;
	for (uint64_t entity = 0; entity < options->entities; entity += 37) {
		bench_pid(&record, entity);
		struct ps_snapshot snapshot = {.seq = last_seq,
			.offset = 1,
			.version = 1,
			.state = rt_bytes_of(state, 200)};
		bench_check("snapshot",
			ps_store_snapshot_put(store, record.shard, record.pid, &snapshot, NULL),
			NULL);
	}
}

/* Waits until flushes and compactions are through. */
static void settle(struct ps_store *store)
{
	static const char *const names[] = {"rocksdb.compaction-pending",
		"rocksdb.num-running-compactions", "rocksdb.num-running-flushes",
		"rocksdb.mem-table-flush-pending"};
	for (int family = 0; family < PS_FAMILIES; family++) {
		bench_check("flush", ps_db_flush(store, (enum ps_family)family, NULL), NULL);
	}
	for (uint64_t busy = 1; busy != 0;) {
		usleep(100000);
		busy = 0;
		for (int family = 0; family < PS_FAMILIES; family++) {
			for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
				uint64_t value = 0;
				if (rocksdb_property_int_cf(store->db, store->family[family],
					    names[i], &value) == 0) {
					busy += value;
				}
			}
		}
	}
	for (int family = 0; family < PS_FAMILIES; family++) {
		char *levels = rocksdb_property_value_cf(
			store->db, store->family[family], "rocksdb.cfstats-no-file-histogram");
		uint64_t bytes = 0;
		rocksdb_property_int_cf(
			store->db, store->family[family], "rocksdb.total-sst-files-size", &bytes);
		if (getenv("BENCH_LEVELS") != NULL) {
			fprintf(stderr, "family %d: %.1f MB\n%s", family, (double)bytes / 1e6,
				levels);
		}
		free(levels);
	}
}

static uint64_t disk_bytes(const char *dir)
{
	char path[5000];
	snprintf(path, sizeof(path), "%s/db", dir);
	DIR *list = opendir(path);
	uint64_t bytes = 0;
	for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
		struct stat st;
		snprintf(path, sizeof(path), "%s/db/%s", dir, entry->d_name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			bytes += (uint64_t)st.st_size;
		}
	}
	if (list != NULL) {
		closedir(list);
	}
	return bytes;
}

void bench_write(const struct options *options)
{
	char dir[4096];
	struct rt_errinfo info = {0};
	struct ps_store *store = NULL;
	struct feeder *feeder = calloc(1, sizeof(*feeder));
	if (feeder == NULL || sem_init(&feeder->finished, 0, 0) != 0) {
		bench_fail("start", strerror(errno));
	}
	feeder->options = options;
	feeder->seed = 7;
	snprintf(dir, sizeof(dir), "%s/store", options->dir);
	struct ps_store_options open = {.dir = dir, .create = true, .shard_count = BENCH_SHARDS};
	bench_check("open", ps_store_open(&open, &store, &info), &info);
	if (ps_store_last_offset(store, 0) != 0) {
		bench_fail(dir, "is there already");
	}
	struct bench_record record;
	uint64_t seed = 7;
	bench_record_make(&record, options, 0, &seed);
	double before = raw_rate(options, options->group * (record.size + KEY_BYTES));
	uint64_t written = written_bytes();
	double indexed = run(feeder, store);
	written = written_bytes() - written;
	double after = raw_rate(options, options->group * (record.size + KEY_BYTES));
	double raw = (before + after) / 2;
	double rate = (double)feeder->made / indexed;
	bench_print("raw", raw, "/s", NULL);
	bench_print("durable", rate, "/s", NULL);
	bench_print("durable_ratio", rate / raw, "x of raw", ">= 0.16");
	bench_print(
		"commit_p50", (double)rt_hist_percentile(&feeder->commit, 50.0) / 1e3, "us", NULL);
	bench_print(
		"commit_p99", (double)rt_hist_percentile(&feeder->commit, 99.0) / 1e3, "us", NULL);
	add_snapshots(options, store);
	uint64_t late = written_bytes();
	settle(store);
	ps_store_close(store);
	late = written_bytes() - late;
	uint64_t disk = disk_bytes(dir);
	bench_print("record_bytes", (double)feeder->bytes / (double)feeder->made, "bytes", NULL);
	bench_print("amplification_running", (double)written / (double)feeder->bytes, "x", NULL);
	bench_print(
		"amplification", (double)(written + late) / (double)feeder->bytes, "x", "<= 2.0");
	bench_print("disk_bytes", (double)disk / (double)feeder->made, "bytes an event", NULL);
	bench_print("compressed_bytes", compressed_record_bytes(options), "bytes an event", NULL);
	bench_print("disk", (double)disk / (double)feeder->made / compressed_record_bytes(options),
		"x of compressed", "<= 1.1");
	free(feeder);
}
