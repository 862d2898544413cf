/*
 * store_generate.c - accounts in bulk: table files written in order and moved into place, so that a
 * hundred million events take minutes. A shard's accounts take turns: the first event of each, then
 * the second of each, as if all had been used at the same time.
 *
 * Account n is "account|acc-%08n" with AccountOpened and then deposits of one unit, so that its
 * balance after M events is (M - 1) * 100 cents. Records carry no command id.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/store.h"
#include "persistence/db.h"
#include "persistence/table.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "sharding/mark.h"

#define DEPOSIT_CENTS 100u
#define FILE_RECORDS  1000000u /* of the log in one table file */

struct shard {
	uint32_t *accounts; /* their numbers, ascending: so are their names */
	uint64_t count;
};

static void place(const struct options *options, struct shard *shards)
{
	struct bench_record record;
	for (int pass = 0; pass < 2; pass++) {
		for (uint64_t i = 0; i < options->entities; i++) {
			bench_pid(&record, i);
			struct shard *shard = &shards[record.shard];
			if (pass == 1) {
				shard->accounts[shard->count] = (uint32_t)i;
			}
			shard->count++;
		}
		for (uint32_t i = 0; pass == 0 && i < BENCH_SHARDS; i++) {
			shards[i].accounts = calloc(shards[i].count + 1, sizeof(uint32_t));
			if (shards[i].accounts == NULL) {
				bench_fail("generate", "out of memory");
			}
			shards[i].count = 0;
		}
	}
}

static void make(struct bench_record *record, uint64_t account, uint64_t seq)
{
	bench_pid(record, account);
	uint8_t payload[32];
	uint8_t *at = payload;
	struct ps_event_out event = {.manifest = rt_bytes_str("AccountOpened"), .version = 1};
	if (seq > 1) {
		event.manifest = rt_bytes_str("MoneyDeposited");
		*at++ = 1 << 3; /* amount */
		at = ps_put_varint(at, DEPOSIT_CENTS);
		*at++ = 2 << 3; /* balance */
		at = ps_put_varint(at, (seq - 1) * DEPOSIT_CENTS);
	}
	event.payload = rt_bytes_of(payload, (size_t)(at - payload));
	struct ps_record head = {.term = 1,
		.kind = PS_KIND_COMMAND,
		.time_ms = UINT64_C(1790000000000) + seq * 1000,
		.pid = record->pid,
		.first_seq = seq,
		.event_count = 1};
	record->size = ps_record_size(&head, &event);
	ps_record_encode(record->bytes, &head, &event);
}

static void ingest(struct ps_table *table)
{
	struct rt_errinfo info = {0};
	bench_check("ingest", ps_table_ingest(table, &info), &info);
	ps_table_init(table, table->store, table->family);
}

static void write_log(struct ps_store *store, uint32_t number, const struct shard *shard,
	const struct options *options)
{
	struct ps_table table;
	struct bench_record record;
	uint64_t offset = 0;
	ps_table_init(&table, store, PS_LOG);
	for (uint64_t seq = 1; seq <= options->events; seq++) {
		for (uint64_t i = 0; i < shard->count; i++) {
			uint8_t key[PS_KEY_LOG];
			make(&record, shard->accounts[i], seq);
			ps_key_log(key, number, ++offset);
			ps_table_put(&table, rt_bytes_of(key, sizeof(key)),
				rt_bytes_of(record.bytes, record.size));
			if (offset % FILE_RECORDS == 0) {
				ingest(&table);
			}
		}
	}
	ingest(&table);
}

/* One row per account, behind the shard's watermark row, which sorts first. */
static void write_index(struct ps_store *store, uint32_t number, const struct shard *shard,
	const struct options *options)
{
	struct ps_table table;
	struct bench_record record;
	uint8_t watermark[8];
	uint8_t key[PS_KEY_NAMED];
	uint8_t *value = malloc(options->events * 12);
	if (value == NULL) {
		bench_fail("generate", "out of memory");
	}
	ps_table_init(&table, store, PS_INDEX);
	ps_put_u16(key, number);
	key[2] = 0;
	ps_put_u64(watermark, shard->count * options->events);
	ps_table_put(&table, rt_bytes_of(key, 3), rt_bytes_of(watermark, sizeof(watermark)));
	for (uint64_t i = 0; i < shard->count; i++) {
		uint8_t *at = value;
		bench_pid(&record, shard->accounts[i]);
		for (uint64_t seq = 1; seq <= options->events; seq++) {
			at = ps_put_varint(at, seq == 1 ? i + 1 : shard->count);
			at = ps_put_varint(at, 1);
		}
		size_t size = ps_key_named(key, number, record.pid, 1);
		ps_table_put(
			&table, rt_bytes_of(key, size), rt_bytes_of(value, (size_t)(at - value)));
	}
	ingest(&table);
	free(value);
}

/* The term that the records are of, and whom this node voted for in it: itself. */
static void write_terms(struct ps_store *store)
{
	struct rt_errinfo info = {0};
	struct ps_meta_row rows[BENCH_SHARDS];
	uint8_t keys[BENCH_SHARDS][SH_KEY_BYTES];
	uint8_t hard[SH_HARD_BYTES];
	sh_mark_hard_encode(1, 1, hard);
	for (uint32_t i = 0; i < BENCH_SHARDS; i++) {
		rows[i] = (struct ps_meta_row){
			sh_mark_hard_key(i, keys[i]), rt_bytes_of(hard, sizeof(hard))};
	}
	bench_check("terms", ps_store_append(store, NULL, 0, rows, BENCH_SHARDS, &info), &info);
	bench_check("terms", ps_store_sync(store, &info), &info);
}

static struct ps_store *open_store(const char *dir, bool create)
{
	struct rt_errinfo info = {0};
	struct ps_store *store = NULL;
	struct ps_store_options options = {
		.dir = dir, .create = create, .shard_count = BENCH_SHARDS};
	bench_check("open", ps_store_open(&options, &store, &info), &info);
	return store;
}

void bench_generate(const struct options *options)
{
	if (options->entities > 100000000) {
		bench_fail("generate", "names have eight digits");
	}
	uint64_t start = rt_clock_now_ns();
	struct shard *shards = calloc(BENCH_SHARDS, sizeof(*shards));
	struct ps_store *store = open_store(options->dir, true);
	if (shards == NULL || ps_store_last_offset(store, 0) != 0) {
		bench_fail(options->dir, "holds records already");
	}
	place(options, shards);
	for (uint32_t i = 0; i < BENCH_SHARDS; i++) {
		if (shards[i].count > 0) {
			write_log(store, i, &shards[i], options);
			write_index(store, i, &shards[i], options);
		}
		free(shards[i].accounts);
	}
	write_terms(store);
	/* Opening it again takes the positions from the rows. */
	ps_store_close(store);
	store = open_store(options->dir, false);
	uint64_t total = 0;
	for (uint32_t i = 0; i < BENCH_SHARDS; i++) {
		total += ps_store_last_offset(store, i);
	}
	ps_store_close(store);
	free(shards);
	if (total != options->entities * options->events) {
		bench_fail("generate", "the store holds another number of records");
	}
	double seconds = (double)(rt_clock_now_ns() - start) / 1e9;
	bench_print("generated", (double)total / seconds, "events/s", NULL);
	bench_print("generated_balance", (double)((options->events - 1) * DEPOSIT_CENTS), "cents",
		NULL);
}
