/* Cuts and wipes of a shard's log, in one batch with what is written before and after them. */
#include "persistence/db.h"
#include "persistence/reader.h"
#include "tests/unit/persistence/world.h"

#define BATCH_MAX 2048u

/* A batch being put together, and what the log of each shard has to be after it. The numbers of
 * events follow from the offset, so any tail can be written again; the term tells the copies apart.
 */
struct book {
	struct world *world;
	uint32_t term;
	uint64_t first[WORLD_LOGS], last[WORLD_LOGS];
	uint32_t terms[WORLD_LOGS][4096]; /* by offset */
	struct ps_log_row rows[BATCH_MAX];
	size_t count;
};

static struct rt_bytes make_record(const struct book *book, uint32_t shard, uint64_t offset)
{
	char pid[32];
	char id[64];
	struct ps_event_out events[3];
	static const struct rt_bytes tag = {(const uint8_t *)"all", 3};
	uint32_t entity = (uint32_t)(offset % 8);
	uint64_t seq = 1;
	for (uint64_t i = entity == 0 ? 8 : entity; i < offset; i += 8) {
		seq += 1 + i % 3;
	}
	snprintf(id, sizeof(id), "s%u-o%llu-t%u", shard, (unsigned long long)offset, book->term);
	for (uint32_t i = 0; i < 3; i++) {
		events[i] = (struct ps_event_out){.manifest = rt_bytes_str("Happened"),
			.version = 1,
			.payload = rt_bytes_str(id),
			.tags = &tag,
			.tag_count = 1};
	}
	struct ps_record head = {.term = book->term,
		.kind = PS_KIND_COMMAND,
		.time_ms = 1790000000000u,
		.pid = world_pid(pid, entity),
		.first_seq = seq,
		.command_id = rt_bytes_str(id),
		.event_count = (uint32_t)(1 + offset % 3),
		.answer = rt_bytes_str("done")};
	size_t size = ps_record_size(&head, events);
	uint8_t *bytes = malloc(size);
	assert_non_null(bytes);
	ps_record_encode(bytes, &head, events);
	return rt_bytes_of(bytes, size);
}

static void add(struct book *book, uint32_t shard, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t offset = ++book->last[shard];
		assert_true(book->count < BATCH_MAX && offset < 4096);
		book->terms[shard][offset] = book->term;
		book->rows[book->count++] = (struct ps_log_row){.shard = shard,
			.offset = offset,
			.record = make_record(book, shard, offset)};
	}
}

static void cut(struct book *book, uint32_t shard, uint64_t from)
{
	book->rows[book->count++] =
		(struct ps_log_row){.shard = shard, .kind = PS_ROW_CUT, .offset = from};
	book->last[shard] = from <= book->last[shard] ? from - 1 : book->last[shard];
	book->term++;
}

static void wipe(struct book *book, uint32_t shard, uint64_t first)
{
	book->rows[book->count++] =
		(struct ps_log_row){.shard = shard, .kind = PS_ROW_WIPE, .offset = first};
	book->first[shard] = first;
	book->last[shard] = first - 1;
	book->term++;
}

static rt_err write_book(struct book *book)
{
	rt_err err = ps_store_append(book->world->store, book->rows, book->count, NULL, 0, NULL);
	for (size_t i = 0; i < book->count; i++) {
		free((void *)(uintptr_t)book->rows[i].record.data);
	}
	book->count = 0;
	return err;
}

static void commit(struct book *book)
{
	assert_err(write_book(book), RT_OK);
	assert_err(ps_store_sync(book->world->store, NULL), RT_OK);
}

struct look {
	const struct book *book;
	uint32_t shard;
	uint64_t next;
};

static bool look_at(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct look *look = arg;
	struct ps_record record;
	assert_int_equal(offset, look->next++);
	assert_err(ps_record_decode(bytes, &record), RT_OK);
	assert_int_equal(record.term, look->book->terms[look->shard][offset]);
	return true;
}

/* Each log is what the book says. */
static void check(const struct book *book)
{
	const struct ps_store *store = book->world->store;
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(ps_store_first_offset(store, shard), book->first[shard]);
		assert_int_equal(ps_store_last_offset(store, shard), book->last[shard]);
		assert_int_equal(ps_store_durable_offset(store, shard), book->last[shard]);
		struct look look = {book, shard, book->first[shard]};
		assert_err(ps_store_read(book->world->store, shard, book->first[shard], UINT64_MAX,
				   look_at, &look, NULL),
			RT_OK);
		assert_int_equal(look.next, book->last[shard] + 1);
	}
}

static void close_book(struct book *book)
{
	ps_store_close(book->world->store);
	book->world->store = NULL;
}

static void print_line(void *arg, const char *line)
{
	(void)arg;
	print_message("%s\n", line);
}

/* And so it is after a clean restart; everything derived fits. */
static void check_reopened(struct book *book)
{
	close_book(book);
	struct ps_verify_report report = {0};
	struct rt_errinfo info = {0};
	rt_err err = ps_store_verify(book->world->dir, print_line, NULL, &report, &info);
	if (err != RT_OK || report.problems > 0) {
		fail_msg("verify: %s %s", rt_err_name(err), info.text);
	}
	world_open(book->world);
	check(book);
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_int_equal(
			ps_store_index_watermark(book->world->store, shard), book->last[shard]);
	}
}

/* And so after a crash now. The store goes on with the files of the crash. */
static void check_crashed(struct book *book)
{
	world_crash(book->world);
	world_open(book->world);
	check(book);
}

static uint64_t rows_of(struct book *book, enum ps_family family, uint32_t shard)
{
	uint8_t low[2];
	uint8_t high[2];
	uint64_t count = 0;
	ps_put_u16(low, shard);
	ps_put_u16(high, shard + 1);
	struct ps_range range = {rt_bytes_of(low, 2), rt_bytes_of(high, 2), true, 0};
	struct ps_iter iter;
	ps_iter_init(&iter, book->world->store, family, &range);
	rocksdb_iter_seek(iter.it, (const char *)low, 2);
	for (; ps_iter_valid(&iter); rocksdb_iter_next(iter.it)) {
		count++;
	}
	assert_err(ps_iter_done(&iter, NULL, "count"), RT_OK);
	return count;
}

/* ---- cuts ---- */

static void a_tail_is_cut_and_written_again_in_one_batch(void **state)
{
	struct book *book = *state;
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		add(book, shard, 100);
	}
	commit(book);
	add(book, 0, 3);
	add(book, 1, 10);
	cut(book, 1, 105); /* into what the same batch wrote */
	add(book, 1, 2);
	cut(book, 1, 91); /* and below it */
	add(book, 1, 30);
	cut(book, 1, 500); /* past the end: nothing */
	cut(book, 2, 1);
	add(book, 3, 1);
	assert_err(write_book(book), RT_OK);
	assert_int_equal(ps_store_last_offset(book->world->store, 1), 120);
	/* The new copies of 91..100 are not durable yet. */
	assert_int_equal(ps_store_durable_offset(book->world->store, 1), 90);
	assert_int_equal(ps_store_durable_offset(book->world->store, 2), 0);
	assert_int_equal(ps_store_durable_offset(book->world->store, 3), 100);
	assert_err(ps_store_sync(book->world->store, NULL), RT_OK);
	check(book);
	check_crashed(book);
	check_reopened(book);
}

static void a_crash_before_the_sync_leaves_the_old_tail(void **state)
{
	struct book *book = *state;
	char copy[80];
	add(book, 0, 100);
	commit(book);
	struct book *before = malloc(sizeof(*before));
	assert_non_null(before);
	memcpy(before, book, sizeof(*before));
	cut(book, 0, 51);
	add(book, 0, 20);
	assert_err(write_book(book), RT_OK);
	/* The log is written by the sync and not before, so this is what a crash leaves. */
	world_crash_copy(book->world, copy);
	close_book(book);
	struct ps_store_options options = {.dir = copy};
	assert_err(ps_store_open(&options, &before->world->store, NULL), RT_OK);
	check(before);
	free(before);
}

static void a_shorter_log_is_no_lost_end(void **state)
{
	struct book *book = *state;
	add(book, 1, 100);
	commit(book);
	cut(book, 1, 41);
	commit(book);
	check_crashed(book);
	add(book, 1, 100);
	commit(book);
	check_reopened(book);
}

static void what_is_indexed_is_not_cut(void **state)
{
	struct book *book = *state;
	add(book, 1, 50);
	commit(book);
	check_reopened(book); /* indexes it */
	struct book *before = malloc(sizeof(*before));
	assert_non_null(before);
	memcpy(before, book, sizeof(*before));
	add(book, 0, 5);
	add(book, 1, 5);
	cut(book, 1, 50);
	add(book, 2, 5);
	assert_err(write_book(book), RT_E_INVAL);
	check(before); /* nothing of it was written */
	memcpy(book, before, sizeof(*before));
	free(before);
	add(book, 1, 5);
	cut(book, 1, 51);
	add(book, 2, 5);
	commit(book);
	check_reopened(book);
}

/* ---- wipes ---- */

static void put_snapshot(struct book *book, uint32_t shard, uint64_t seq)
{
	struct ps_snapshot snapshot = {
		.seq = seq, .offset = 1, .version = 1, .state = rt_bytes_str("state")};
	assert_err(ps_store_snapshot_put(
			   book->world->store, shard, rt_bytes_str("t|e1"), &snapshot, NULL),
		RT_OK);
}

static const enum ps_family derived[] = {PS_INDEX, PS_DEDUPE, PS_TAGS, PS_SNAPSHOTS};

/* Logs of 200 records and all that is derived from them. */
static void fill(struct book *book, uint32_t from)
{
	for (uint32_t shard = from; shard < WORLD_LOGS; shard++) {
		add(book, shard, 200);
	}
	commit(book);
	check_reopened(book);
	put_snapshot(book, 1, 1);
	put_snapshot(book, 2, 1);
}

static void a_wipe_takes_the_log_and_what_is_derived(void **state)
{
	struct book *book = *state;
	fill(book, 0);
	wipe(book, 1, 1);
	add(book, 1, 30);
	add(book, 2, 1);
	commit(book);
	check(book);
	assert_int_equal(ps_store_index_watermark(book->world->store, 1), 0);
	assert_int_equal(rows_of(book, PS_LOG, 1), 30);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(rows_of(book, derived[i], 1), 0);
		assert_true(rows_of(book, derived[i], 0) > 0 || derived[i] == PS_SNAPSHOTS);
		assert_true(rows_of(book, derived[i], 2) > 0);
	}
	check_crashed(book);
	check_reopened(book);
	uint64_t offset;
	assert_err(ps_store_dedupe(book->world->store, 1, rt_bytes_str("s1-o7-t1"), &offset, NULL),
		RT_E_NOTFOUND);
	assert_err(ps_store_dedupe(book->world->store, 1, rt_bytes_str("s1-o7-t2"), &offset, NULL),
		RT_OK);
	struct ps_load load = {.shard = 1,
		.pid = rt_bytes_str("t|e1"),
		.from_seq = 1,
		.upto_seq = UINT64_MAX,
		.want_snapshot = true};
	ps_load_run(&load, book->world->store);
	assert_err(load.err, RT_OK);
	assert_false(load.has_snapshot);
	assert_int_equal(load.record_count, 4); /* 1, 9, 17, 25 */
	ps_load_clear(&load);
}

/* ---- logs that nobody writes are erased while others are written ---- */

struct erasing {
	struct ps_erase erase;
	struct ps_store *store;
};

static void erase_on_a_thread(void *arg)
{
	struct erasing *erasing = arg;
	ps_erase_run(&erasing->erase, erasing->store);
}

/* Shard 0 has nothing. */
static void erase_beside_the_writer(struct book *book)
{
	struct erasing erasing = {
		.erase = {.shards = {3, 0, 1}, .count = 3}, .store = book->world->store};
	uv_thread_t thread;
	assert_int_equal(uv_thread_create(&thread, erase_on_a_thread, &erasing), 0);
	for (uint32_t i = 0; i < 100; i++) {
		add(book, 2, 3);
		add(book, 4, 2);
		commit(book);
	}
	uv_thread_join(&thread);
	assert_err(erasing.erase.err, RT_OK);
	assert_true(erasing.erase.had[0] && !erasing.erase.had[1] && erasing.erase.had[2]);
	book->last[1] = book->last[3] = 0;
	book->term++;
}

static void erase_and_write_again(struct book *book)
{
	add(book, 1, 20); /* not indexed, and in the memtable among those of others */
	add(book, 2, 20);
	add(book, 3, 20);
	commit(book);
	erase_beside_the_writer(book);
	for (uint32_t shard = 1; shard <= 3; shard += 2) {
		assert_int_equal(ps_store_index_watermark(book->world->store, shard), 0);
		assert_int_equal(rows_of(book, PS_LOG, shard), 0);
		for (size_t i = 0; i < 4; i++) {
			assert_int_equal(rows_of(book, derived[i], shard), 0);
			assert_true(rows_of(book, derived[i], 2) > 0);
		}
	}
	check(book);
	check_crashed(book);
	add(book, 1, 30);
	add(book, 3, 1);
	commit(book);
	check(book);
	check_crashed(book);
	check_reopened(book);
}

static void logs_are_erased_beside_the_writer(void **state)
{
	struct book *book = *state;
	fill(book, 1);
	erase_and_write_again(book);
}

/* Then by file and range, as a log of very many records is. */
static void logs_are_erased_on_a_disk_with_little_room(void **state)
{
	struct book *book = *state;
	fill(book, 1);
	rocksdb_compact_range_cf(
		book->world->store->db, book->world->store->family[PS_LOG], NULL, 0, NULL, 0);
	world_little_room(book->world);
	erase_and_write_again(book);
}

static void a_wiped_log_begins_where_it_was_told(void **state)
{
	struct book *book = *state;
	static const uint64_t firsts[] = {1000, 1500, 700, 2, 1, 1};
	add(book, 1, 120);
	add(book, 3, 40);
	commit(book);
	for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
		add(book, 0, 1);
		wipe(book, 1, firsts[i]);
		if (i % 2 == 0) {
			add(book, 1, 20);
		}
		commit(book);
		check(book);
		check_crashed(book);
		add(book, 1, 15);
		commit(book);
		check_reopened(book);
	}
}

static void a_wipe_in_the_middle_of_a_batch(void **state)
{
	struct book *book = *state;
	add(book, 1, 60);
	add(book, 2, 60);
	commit(book);
	wipe(book, 1, 1);
	wipe(book, 1, 1);
	add(book, 1, 2);
	add(book, 2, 10);
	cut(book, 2, 31);
	add(book, 2, 5);
	wipe(book, 2, 20); /* below what it takes */
	add(book, 2, 6);
	cut(book, 2, 22);
	add(book, 2, 3);
	wipe(book, 2, 10);
	add(book, 2, 9);
	cut(book, 2, 12);
	add(book, 2, 1);
	wipe(book, 3, 5); /* there never was a record */
	add(book, 3, 2);
	commit(book);
	check(book);
	check_crashed(book);
	check_reopened(book);
}

/* ---- the front ---- */

static void compact_log(struct book *book)
{
	struct ps_store *store = book->world->store;
	assert_err(ps_db_flush(store, PS_LOG, NULL), RT_OK);
	rocksdb_compact_range_cf(store->db, store->family[PS_LOG], NULL, 0, NULL, 0);
}

static void trimming_the_front_keeps_a_file_that_ends_there(void **state)
{
	struct book *book = *state;
	add(book, 1, 200);
	commit(book);
	compact_log(book);
	add(book, 1, 10);
	commit(book);
	check_reopened(book);
	assert_err(ps_store_truncate_front(book->world->store, 1, 200, NULL), RT_OK);
	book->first[1] = 200;
	check(book);
}

static void what_a_wipe_takes_from_a_file_stays_away(void **state)
{
	struct book *book = *state;
	add(book, 1, 200);
	commit(book);
	compact_log(book);
	wipe(book, 1, 100);
	add(book, 1, 10);
	commit(book);
	check_reopened(book);
	compact_log(book);
	check_reopened(book);
}

/* ---- anything ---- */

static uint32_t draw(uint64_t *seed, uint32_t below)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((*seed >> 33) % below);
}

static void add_any(struct book *book, uint64_t *seed, uint32_t shard)
{
	uint64_t floor = ps_store_index_watermark(book->world->store, shard);
	for (uint32_t steps = draw(seed, 4); steps > 0; steps--) {
		uint64_t last = book->last[shard];
		floor = floor > book->first[shard] - 1 ? floor : book->first[shard] - 1;
		if (draw(seed, 12) == 0) {
			wipe(book, shard, 1 + draw(seed, 300));
			floor = 0;
		} else if (draw(seed, 4) == 0 && last > floor) {
			cut(book, shard, floor + 1 + draw(seed, (uint32_t)(last - floor)));
		} else if (last < 2000) {
			add(book, shard, draw(seed, 40));
		}
	}
}

static void any_order_of_changes_and_restarts(void **state)
{
	struct book *book = *state;
	for (uint64_t number = 1; number <= 6; number++) {
		uint64_t seed = number;
		print_message("seed %llu\n", (unsigned long long)number);
		for (uint32_t turn = 0; turn < 40; turn++) {
			for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
				add_any(book, &seed, shard);
			}
			commit(book);
			uint32_t then = draw(&seed, 16);
			if (then == 0) {
				check_reopened(book);
			} else if (then == 1) {
				check_crashed(book);
			} else if (then == 2) {
				compact_log(book);
			}
			check(book);
		}
	}
}

static int setup(void **state)
{
	struct book *book = calloc(1, sizeof(*book));
	assert_non_null(book);
	book->world = world_new();
	book->term = 1;
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		book->first[shard] = 1;
	}
	world_open(book->world);
	*state = book;
	return 0;
}

static int teardown(void **state)
{
	struct book *book = *state;
	world_free(book->world);
	free(book);
	return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_tail_is_cut_and_written_again_in_one_batch),
		TEST(a_crash_before_the_sync_leaves_the_old_tail),
		TEST(a_shorter_log_is_no_lost_end),
		TEST(what_is_indexed_is_not_cut),
		TEST(a_wipe_takes_the_log_and_what_is_derived),
		TEST(logs_are_erased_beside_the_writer),
		TEST(logs_are_erased_on_a_disk_with_little_room),
		TEST(a_wiped_log_begins_where_it_was_told),
		TEST(a_wipe_in_the_middle_of_a_batch),
		TEST(trimming_the_front_keeps_a_file_that_ends_there),
		TEST(what_a_wipe_takes_from_a_file_stays_away),
		TEST(any_order_of_changes_and_restarts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
