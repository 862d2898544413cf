#include <dirent.h>
#include <sys/stat.h>

#include "persistence/db.h"
#include "persistence/reader.h"
#include "tests/unit/persistence/world.h"

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

static void reads_back_what_was_appended(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 100);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(world_readable(world, shard), 100);
		assert_int_equal(ps_store_last_offset(world->store, shard), 100);
		assert_int_equal(ps_store_durable_offset(world->store, shard), 100);
	}
	struct rt_bytes record;
	assert_err(ps_store_get(world->store, 2, 50, &record, NULL), RT_OK);
	struct rt_bytes expected = world_record(2, 50 % 8, 50, 0, 1);
	struct ps_record got;
	assert_err(ps_record_decode(record, &got), RT_OK);
	assert_true(rt_bytes_equal(got.command_id, rt_bytes_str("s2-o50")));
	free((void *)(uintptr_t)record.data);
	free((void *)(uintptr_t)expected.data);
	assert_err(ps_store_get(world->store, 2, 101, &record, NULL), RT_E_NOTFOUND);
}

static uint64_t wal_bytes(const struct world *world)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/db", world->dir);
	DIR *dir = opendir(path);
	assert_non_null(dir);
	uint64_t bytes = 0;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		size_t length = strlen(entry->d_name);
		if (length > 4 && strcmp(entry->d_name + length - 4, ".log") == 0) {
			struct stat st;
			snprintf(path, sizeof(path), "%s/db/%s", world->dir, entry->d_name);
			assert_int_equal(stat(path, &st), 0);
			bytes += (uint64_t)st.st_size;
		}
	}
	closedir(dir);
	return bytes;
}

static void a_clean_close_leaves_no_log_to_replay(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 500);
	assert_true(wal_bytes(world) > 0);
	ps_store_close(world->store);
	world->store = NULL;
	assert_int_equal(wal_bytes(world), 0);
	world_open(world);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(ps_store_last_offset(world->store, shard), 500);
		assert_int_equal(ps_store_index_watermark(world->store, shard), 500);
		assert_int_equal(world_readable(world, shard), 500);
	}
}

static void meta_rows_come_back(void **state)
{
	struct world *world = *state;
	world_open(world);
	struct ps_meta_row row = {rt_bytes_str("vote/1"), rt_bytes_str("7 a")};
	assert_err(ps_store_append(world->store, NULL, 0, &row, 1, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	ps_store_close(world->store);
	world_open(world);
	struct rt_bytes value;
	assert_err(ps_store_meta_get(world->store, row.key, &value, NULL), RT_OK);
	assert_true(rt_bytes_equal(value, row.value));
	free((void *)(uintptr_t)value.data);
	assert_err(ps_store_meta_get(world->store, rt_bytes_str("vote/2"), &value, NULL),
		RT_E_NOTFOUND);
}

static void reopen(struct world *world)
{
	ps_store_close(world->store);
	world->store = NULL;
	world_open(world);
}

static void an_entity_is_loaded_by_its_index_rows(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 400);
	reopen(world); /* indexes what was appended */
	char pid[32];
	for (uint32_t entity = 0; entity < 8; entity++) {
		struct ps_load load = {.shard = 1,
			.pid = world_pid(pid, entity),
			.from_seq = 1,
			.upto_seq = UINT64_MAX};
		ps_load_run(&load, world->store);
		assert_string_equal(rt_err_name(load.err), "RT_OK");
		assert_int_equal(load.record_count, 50);
		assert_false(load.more);
		assert_int_equal(load.next_seq, world->seq[1][entity] + 1);
		ps_load_clear(&load);
	}
	struct ps_load none = {
		.shard = 1, .pid = rt_bytes_str("t|e"), .from_seq = 1, .upto_seq = UINT64_MAX};
	ps_load_run(&none, world->store);
	assert_err(none.err, RT_OK);
	assert_int_equal(none.record_count, 0);
	ps_load_clear(&none);
}

static void an_entity_is_loaded_in_pages_from_any_number(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 400);
	reopen(world);
	for (uint64_t from = 1; from <= world->seq[0][3]; from++) {
		uint64_t next = from;
		bool more = true;
		for (int page = 0; more; page++) {
			struct ps_load load = {.shard = 0,
				.pid = rt_bytes_str("t|e3"),
				.from_seq = next,
				.upto_seq = UINT64_MAX,
				.max_bytes = 3000};
			ps_load_run(&load, world->store);
			assert_err(load.err, RT_OK);
			struct ps_record first;
			assert_err(ps_record_decode(load.records[0], &first), RT_OK);
			assert_true(first.first_seq <= next);
			assert_true(first.first_seq + first.event_count > next);
			next = load.next_seq;
			more = load.more;
			ps_load_clear(&load);
			assert_true(page < 50);
		}
		assert_int_equal(next, world->seq[0][3] + 1);
	}
}

static void a_snapshot_replaces_what_came_before(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 400);
	reopen(world);
	static uint8_t big[10000];
	memset(big, 'x', sizeof(big));
	for (uint64_t seq = 10; seq <= 40; seq += 10) {
		struct ps_snapshot snapshot = {.seq = seq,
			.offset = 300,
			.version = 70000,
			.state = rt_bytes_of(big, seq * 200)};
		assert_err(ps_store_snapshot_put(
				   world->store, 0, rt_bytes_str("t|e3"), &snapshot, NULL),
			RT_OK);
	}
	reopen(world);
	struct ps_load load = {.shard = 0,
		.pid = rt_bytes_str("t|e3"),
		.from_seq = 1,
		.upto_seq = UINT64_MAX,
		.want_snapshot = true};
	ps_load_run(&load, world->store);
	assert_err(load.err, RT_OK);
	assert_true(load.has_snapshot);
	assert_int_equal(load.snapshot.seq, 40);
	assert_int_equal(load.snapshot.version, 70000);
	assert_int_equal(load.snapshot.state.size, 8000);
	assert_int_equal(load.next_seq, world->seq[0][3] + 1);
	ps_load_clear(&load);
	/* The newest two are kept. */
	struct ps_snapshot got;
	assert_err(ps_store_snapshot_get(world->store, 0, rt_bytes_str("t|e3"), 39, &got, NULL),
		RT_OK);
	assert_int_equal(got.seq, 30);
	free((void *)(uintptr_t)got.state.data);
	assert_err(ps_store_snapshot_get(world->store, 0, rt_bytes_str("t|e3"), 29, &got, NULL),
		RT_E_NOTFOUND);
}

static void a_damaged_snapshot_costs_time_only(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 100);
	struct ps_snapshot snapshot = {
		.seq = 10, .offset = 50, .version = 1, .state = rt_bytes_str("qW3rTy7-the-state")};
	struct rt_bytes pid = rt_bytes_str("t|e3");
	assert_err(ps_store_snapshot_put(world->store, 0, pid, &snapshot, NULL), RT_OK);
	ps_store_close(world->store);
	char command[200];
	snprintf(command, sizeof(command),
		"LC_ALL=C sed -i s/qW3rTy7/qW3rTy6/ $(LC_ALL=C grep -l qW3rTy7 %s/db/*.sst)",
		world->dir);
	assert_int_equal(system(command), 0);
	world_open(world);
	struct ps_snapshot got;
	assert_err(
		ps_store_snapshot_get(world->store, 0, pid, UINT64_MAX, &got, NULL), RT_E_CORRUPT);
	struct ps_load load = {.shard = 0,
		.pid = pid,
		.from_seq = 1,
		.upto_seq = UINT64_MAX,
		.want_snapshot = true};
	ps_load_run(&load, world->store);
	assert_err(load.err, RT_OK);
	assert_false(load.has_snapshot);
	assert_int_equal(load.from_seq, 1);
	assert_int_equal(load.next_seq, world->seq[0][3] + 1);
	ps_load_clear(&load);
}

static void a_command_id_is_found_once_indexed(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	uint64_t offset = 0;
	assert_err(ps_store_dedupe(world->store, 3, rt_bytes_str("s3-o123"), &offset, NULL),
		RT_E_NOTFOUND);
	reopen(world);
	assert_err(ps_store_dedupe(world->store, 3, rt_bytes_str("s3-o123"), &offset, NULL), RT_OK);
	assert_int_equal(offset, 123);
	assert_err(ps_store_dedupe(world->store, 3, rt_bytes_str("s2-o123"), &offset, NULL),
		RT_E_NOTFOUND);
	struct ps_lookup lookup = {.shard = 3, .id_size = 7};
	memcpy(lookup.id, "s3-o299", 7);
	ps_lookup_run(&lookup, world->store);
	assert_err(lookup.err, RT_OK);
	assert_true(lookup.found);
	assert_int_equal(lookup.offset, 299);
	ps_lookup_clear(&lookup);
	lookup.offset = 0;
	lookup.id[0] = 'x';
	ps_lookup_run(&lookup, world->store);
	assert_err(lookup.err, RT_OK);
	assert_false(lookup.found);
	ps_lookup_clear(&lookup);
}

static bool visit_id(void *arg, uint64_t hash, uint64_t offset)
{
	uint64_t *sum = arg;
	sum[0]++;
	sum[1] += offset;
	sum[2] += hash;
	return true;
}

static void known_ids_can_be_scanned(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	reopen(world);
	uint64_t sum[3] = {0};
	uint64_t hashes = 0;
	char id[32];
	for (int i = 1; i <= 300; i++) {
		snprintf(id, sizeof(id), "s1-o%d", i);
		hashes += ps_dedupe_hash(rt_bytes_str(id));
	}
	assert_err(ps_store_dedupe_scan(world->store, 1, visit_id, sum, NULL), RT_OK);
	assert_int_equal(sum[0], 300);
	assert_int_equal(sum[1], 300 * 301 / 2);
	assert_int_equal(sum[2], hashes);
}

static void append_entries_without_commands(struct world *world, uint32_t shard, uint64_t upto)
{
	enum {
		GROUP = 4096
	};
	static struct ps_log_row rows[GROUP];
	static const uint8_t noop[] = {0x08, 1, 0x10, PS_KIND_NOOP};
	while (world->offset[shard] < upto) {
		size_t count = 0;
		while (count < GROUP && world->offset[shard] < upto) {
			rows[count++] = (struct ps_log_row){.shard = shard,
				.offset = ++world->offset[shard],
				.record = rt_bytes_of(noop, sizeof(noop))};
		}
		assert_err(ps_store_append(world->store, rows, count, NULL, 0, NULL), RT_OK);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
}

static void an_id_older_than_the_window_is_forgotten(void **state)
{
	struct world *world = *state;
	world_open(world);
	assert_err(world_append(world, 0, 2), RT_OK);
	append_entries_without_commands(world, 0, PS_DEDUPE_WINDOW + 1);
	reopen(world);
	uint64_t offset = 0;
	assert_err(ps_store_dedupe(world->store, 0, rt_bytes_str("s0-o1"), &offset, NULL),
		RT_E_NOTFOUND);
	assert_err(ps_store_dedupe(world->store, 0, rt_bytes_str("s0-o2"), &offset, NULL), RT_OK);
	uint64_t sum[3] = {0};
	assert_err(ps_store_dedupe_scan(world->store, 0, visit_id, sum, NULL), RT_OK);
	assert_int_equal(sum[0], 1);
	/* Its row goes when a compaction meets it. */
	uint64_t keys = 0;
	rocksdb_compactoptions_t *all = rocksdb_compactoptions_create();
	rocksdb_compactoptions_set_bottommost_level_compaction(all, 2);
	rocksdb_compact_range_cf_opt(
		world->store->db, world->store->family[PS_DEDUPE], all, NULL, 0, NULL, 0);
	rocksdb_compactoptions_destroy(all);
	rocksdb_iterator_t *iter = rocksdb_create_iterator_cf(
		world->store->db, world->store->point, world->store->family[PS_DEDUPE]);
	for (rocksdb_iter_seek_to_first(iter); rocksdb_iter_valid(iter); rocksdb_iter_next(iter)) {
		keys++;
	}
	rocksdb_iter_destroy(iter);
	assert_int_equal(keys, 1);
}

static void scan(struct world *world, struct ps_scan *scan, size_t expected)
{
	size_t count = 0;
	scan->next = scan->from;
	while (scan->next <= scan->upto) {
		scan->from = scan->next;
		ps_scan_run(scan, world->store);
		assert_err(scan->err, RT_OK);
		count += scan->record_count;
		ps_scan_clear(scan);
	}
	assert_int_equal(count, expected);
	assert_int_equal(scan->next, scan->upto + 1);
}

static void a_feed_is_read_with_filters(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	reopen(world);
	world_fill(world, 100); /* above the watermark: tags are looked for in the log */
	struct ps_scan all = {.shard = 0, .from = 1, .upto = 400, .max_bytes = 5000};
	scan(world, &all, 400);
	struct ps_scan part = {.shard = 0, .from = 101, .upto = 150};
	scan(world, &part, 50);
	struct ps_scan even = {
		.shard = 0, .from = 1, .upto = 400, .tag = rt_bytes_str("even"), .max_bytes = 5000};
	scan(world, &even, 200);
	struct ps_scan missing = {.shard = 0, .from = 1, .upto = 400, .tag = rt_bytes_str("eve")};
	scan(world, &missing, 0);
	struct ps_scan typed = {.shard = 0, .from = 1, .upto = 400, .type = rt_bytes_str("t")};
	scan(world, &typed, 400);
	struct ps_scan other = {.shard = 0, .from = 1, .upto = 400, .type = rt_bytes_str("t|")};
	scan(world, &other, 0);
	struct ps_scan one = {.shard = 0, .from = 1, .upto = 400, .pid = rt_bytes_str("t|e3")};
	scan(world, &one, 50);
}

static void refuses_another_shard_count(void **state)
{
	struct world *world = *state;
	world_open(world);
	ps_store_close(world->store);
	world->store = NULL;
	struct rt_errinfo info = {0};
	struct ps_store_options options = {.dir = world->dir, .shard_count = 9};
	assert_err(ps_store_open(&options, &world->store, &info), RT_E_INVAL);
	assert_non_null(strstr(info.text, "made with 4 shards"));
	options.shard_count = 0;
	assert_err(ps_store_open(&options, &world->store, &info), RT_OK);
	assert_int_equal(ps_store_shard_count(world->store), 4);
}

static void makes_64_shards_when_nobody_says_how_many(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	struct ps_store_options options = {.dir = world->dir, .create = true};
	assert_err(ps_store_open(&options, &world->store, &info), RT_OK);
	assert_int_equal(ps_store_shard_count(world->store), 64);
}

/* Every test here fills it too; this one looks at what only its place could break. */
static void the_log_of_the_cluster_is_one_more(void **state)
{
	struct world *world = *state;
	world_open(world);
	uint32_t cluster = ps_store_shard_count(world->store);
	assert_int_equal(ps_store_log_count(world->store), cluster + 1);
	world_fill(world, 20);
	char pid[32];
	struct ps_snapshot taken = {.seq = 3, .offset = 9, .state = rt_bytes_str("state")}, got;
	assert_err(ps_store_snapshot_put(world->store, cluster, world_pid(pid, 1), &taken, NULL),
		RT_OK);
	reopen(world);
	assert_int_equal(world_readable(world, cluster), 20);
	assert_int_equal(ps_store_index_watermark(world->store, cluster), 20);
	uint64_t *offsets = NULL;
	size_t count = 0;
	assert_err(ps_store_index(world->store, cluster, world_pid(pid, 1), 1, 100, &offsets,
			   &count, NULL),
		RT_OK);
	assert_int_equal(count, 3);
	assert_int_equal(offsets[2], 17);
	free(offsets);
	uint64_t offset = 0;
	assert_err(ps_store_dedupe(world->store, cluster, rt_bytes_str("s4-o17"), &offset, NULL),
		RT_OK);
	assert_int_equal(offset, 17);
	assert_err(ps_store_snapshot_get(
			   world->store, cluster, world_pid(pid, 1), UINT64_MAX, &got, NULL),
		RT_OK);
	free((void *)(uintptr_t)got.state.data);
	/* It is wiped like any other, and alone. */
	struct ps_log_row wipe = {.shard = cluster, .kind = PS_ROW_WIPE, .offset = 31};
	assert_err(ps_store_append(world->store, &wipe, 1, NULL, 0, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	reopen(world);
	assert_int_equal(ps_store_first_offset(world->store, cluster), 31);
	assert_int_equal(ps_store_last_offset(world->store, cluster), 30);
	assert_err(ps_store_snapshot_get(
			   world->store, cluster, world_pid(pid, 1), UINT64_MAX, &got, NULL),
		RT_E_NOTFOUND);
	assert_int_equal(world_readable(world, cluster - 1), 20);
}

static uint64_t hash_of(struct world *world, uint32_t shard, uint64_t upto, uint64_t last)
{
	struct ps_log_hash got;
	assert_err(ps_store_hash(world->store, shard, upto, &got, NULL), RT_OK);
	assert_int_equal(got.first, 1);
	assert_int_equal(got.last, last);
	return got.hash;
}

/* Records of the log of the other world's shard 0 into this one's shard 1: `swap` takes two of them
 * in the other order, `flip` changes one bit of one. */
static void copy_log(struct world *from, struct world *to, uint64_t swap, uint64_t flip)
{
	for (uint64_t offset = 1; offset <= 20; offset++) {
		struct ps_log_row row = {.shard = 1, .offset = offset};
		uint64_t source = offset == swap       ? offset + 1
				  : offset == swap + 1 ? offset - 1
						       : offset;
		assert_err(ps_store_get(from->store, 0, source, &row.record, NULL), RT_OK);
		if (offset == flip) {
			((uint8_t *)(uintptr_t)row.record.data)[row.record.size - 1] ^= 0x10;
		}
		assert_err(ps_store_append(to->store, &row, 1, NULL, 0, NULL), RT_OK);
		free((void *)(uintptr_t)row.record.data);
	}
	assert_err(ps_store_sync(to->store, NULL), RT_OK);
}

static void equal_logs_have_equal_hashes(void **state)
{
	struct world *world = *state;
	world_open(world);
	assert_err(world_append(world, 0, 20), RT_OK);
	assert_int_equal(hash_of(world, 0, UINT64_MAX, 0), hash_of(world, 1, UINT64_MAX, 0));
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	uint64_t whole = hash_of(world, 0, UINT64_MAX, 20), part = hash_of(world, 0, 19, 19);
	assert_int_not_equal(whole, part);
	static const struct {
		uint64_t swap, flip;
		bool equal;
	} copies[] = {{0, 0, true}, {7, 0, false}, {0, 1, false}, {0, 20, false}};
	for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++) {
		struct world *other = world_new();
		world_open(other);
		copy_log(world, other, copies[i].swap == 0 ? UINT64_MAX - 1 : copies[i].swap,
			copies[i].flip);
		assert_int_equal(hash_of(other, 1, 100, 20) == whole, copies[i].equal);
		assert_int_equal(
			hash_of(other, 1, 19, 19) == part, copies[i].equal || copies[i].flip == 20);
		world_free(other);
	}
}

static void refuses_a_second_owner(void **state)
{
	struct world *world = *state;
	world_open(world);
	struct ps_store *second = NULL;
	struct rt_errinfo info = {0};
	struct ps_store_options options = {.dir = world->dir};
	assert_err(ps_store_open(&options, &second, &info), RT_E_FENCED);
}

static void makes_no_store_unless_told(void **state)
{
	struct world *world = *state;
	struct rt_errinfo info = {0};
	struct ps_store_options options = {.dir = world->dir};
	assert_err(ps_store_open(&options, &world->store, &info), RT_E_NOTFOUND);
	assert_null(world->store);
}

static void counts_what_is_stored(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	ps_store_close(world->store);
	world->store = NULL;
	struct ps_verify_report report = {0};
	struct rt_errinfo info = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, &info), RT_OK);
	assert_int_equal(report.records, 300 * WORLD_LOGS);
	assert_int_equal(report.entities, 8 * WORLD_LOGS);
	assert_int_equal(report.events, 600 * WORLD_LOGS);
	assert_int_equal(report.problems, 0);
}

static void finds_records_that_contradict_each_other(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 30);
	world->seq[2][5] += 1; /* a hole in the numbers of one entity */
	world_fill(world, 30);
	ps_store_close(world->store);
	world->store = NULL;
	struct ps_verify_report report = {0};
	assert_err(ps_store_verify(world->dir, NULL, NULL, &report, NULL), RT_OK);
	assert_int_equal(report.problems, 1);
}

static void a_checkpoint_is_a_store_of_its_own(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	char copy[80];
	snprintf(copy, sizeof(copy), "%s.copy", world->dir);
	struct rt_errinfo info = {0};
	assert_err(ps_store_checkpoint(world->store, copy, &info), RT_OK);
	assert_err(ps_store_checkpoint(world->store, copy, &info), RT_E_EXISTS);
	world_fill(world, 50);
	struct ps_store_options options = {.dir = copy};
	struct ps_store *other = NULL;
	assert_err(ps_store_open(&options, &other, &info), RT_OK);
	assert_string_equal(ps_store_id(other), ps_store_id(world->store));
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(ps_store_last_offset(other, shard), 300);
	}
	ps_store_close(other);
	assert_int_equal(world_readable(world, 0), 350);
}

static void the_tail_can_be_cut_and_written_again(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 100);
	assert_err(ps_store_truncate_tail(world->store, 1, 81, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	assert_int_equal(ps_store_last_offset(world->store, 1), 80);
	reopen(world);
	assert_int_equal(world_readable(world, 1), 80);
	struct rt_bytes bytes = world_record(1, 3, 81, 1000, 1);
	struct ps_log_row row = {.shard = 1, .offset = 81, .record = bytes};
	assert_err(ps_store_append(world->store, &row, 1, NULL, 0, NULL), RT_OK);
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
	free((void *)(uintptr_t)bytes.data);
	assert_int_equal(world_readable(world, 1), 81);
	/* What is indexed is committed and stays. */
	assert_err(ps_store_truncate_tail(world->store, 1, 80, NULL), RT_E_INVAL);
}

static void the_front_can_be_trimmed(void **state)
{
	struct world *world = *state;
	world_open(world);
	world_fill(world, 300);
	assert_err(ps_store_truncate_front(world->store, 2, 200, NULL), RT_E_INVAL);
	reopen(world);
	assert_err(ps_store_truncate_front(world->store, 2, 200, NULL), RT_OK);
	struct rt_bytes record;
	uint64_t count = 0;
	for (int round = 0; round < 2; round++) {
		assert_int_equal(ps_store_first_offset(world->store, 2), 200);
		assert_err(ps_store_get(world->store, 2, 199, &record, NULL), RT_E_NOTFOUND);
		assert_err(
			ps_store_read(world->store, 2, 199, UINT64_MAX, world_count, &count, NULL),
			RT_E_NOTFOUND);
		count = 0;
		assert_err(
			ps_store_read(world->store, 2, 200, UINT64_MAX, world_count, &count, NULL),
			RT_OK);
		assert_int_equal(count, 101);
		reopen(world);
	}
	assert_err(ps_store_truncate_front(world->store, 2, 301, NULL), RT_OK);
	reopen(world);
	assert_int_equal(ps_store_first_offset(world->store, 2), 301);
	assert_int_equal(ps_store_last_offset(world->store, 2), 300);
	assert_int_equal(world_readable(world, 1), 300);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(reads_back_what_was_appended),
		TEST(a_clean_close_leaves_no_log_to_replay),
		TEST(meta_rows_come_back),
		TEST(an_entity_is_loaded_by_its_index_rows),
		TEST(an_entity_is_loaded_in_pages_from_any_number),
		TEST(a_snapshot_replaces_what_came_before),
		TEST(a_damaged_snapshot_costs_time_only),
		TEST(a_command_id_is_found_once_indexed),
		TEST(known_ids_can_be_scanned),
		TEST(an_id_older_than_the_window_is_forgotten),
		TEST(a_feed_is_read_with_filters),
		TEST(refuses_another_shard_count),
		TEST(makes_64_shards_when_nobody_says_how_many),
		TEST(the_log_of_the_cluster_is_one_more),
		TEST(equal_logs_have_equal_hashes),
		TEST(refuses_a_second_owner),
		TEST(makes_no_store_unless_told),
		TEST(counts_what_is_stored),
		TEST(finds_records_that_contradict_each_other),
		TEST(a_checkpoint_is_a_store_of_its_own),
		TEST(the_tail_can_be_cut_and_written_again),
		TEST(the_front_can_be_trimmed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
