#include "tests/clustersim/conform.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "runtime/base/hash.h"
#include "runtime/base/random.h"

#define PIDS     6u
#define IDS      40u
#define LOG_MAX  4000u
#define META_MAX 6u

/* What the caller of the store knows of a record. */
struct entry {
	uint32_t pid, id, events;
	uint64_t first_seq;
};
struct log { /* entries[0] is at offset first */
	uint64_t first, committed;
	uint32_t count;
	struct entry entries[LOG_MAX];
};
struct run {
	struct conform_bed *bed;
	struct rt_random random;
	FILE *out;
	uint64_t now;
	bool failed; /* a cut of what is committed: no round is taken any more */
	struct log logs[CONFORM_SHARDS];
};

static uint32_t below(struct run *run, uint32_t bound)
{
	return rt_random_below(&run->random, bound);
}

static bool chance(struct run *run, uint32_t percent)
{
	return below(run, 100) < percent;
}

static uint64_t last_of(const struct log *log)
{
	return log->first + log->count - 1;
}

static void say_bytes(struct run *run, const char *what, struct rt_bytes bytes)
{
	fprintf(run->out, " %s %zu:%016" PRIx64, what, bytes.size,
		rt_hash(bytes.data == NULL ? (const uint8_t *)"" : bytes.data, bytes.size));
}

/* ---- records ---- */
static struct rt_bytes pid_of(uint32_t pid, char out[32])
{
	snprintf(out, 32, "%s|%u", pid % 2 == 0 ? "account" : "note", pid);
	return rt_bytes_str(out);
}

static struct rt_bytes id_of(uint32_t id, char out[32])
{
	snprintf(out, 32, "command-%u", id);
	return rt_bytes_str(out);
}

static uint64_t next_seq(const struct log *log, uint32_t pid)
{
	uint64_t seq = 1;
	for (uint32_t i = 0; i < log->count; i++) {
		if (log->entries[i].pid == pid) {
			seq = log->entries[i].first_seq + log->entries[i].events;
		}
	}
	return seq;
}

/* Puts a record behind the log's end into the round, and into the log unless it is dropped. */
static void add_record(struct run *run, struct ps_round *round, uint32_t shard)
{
	struct log *log = &run->logs[shard];
	char pid[32], id[32];
	uint8_t payload[300];
	struct rt_bytes tags[2] = {rt_bytes_str("red"), rt_bytes_str("blue")};
	struct entry entry = {
		.pid = below(run, PIDS), .id = below(run, IDS), .events = below(run, 4)};
	bool noop = chance(run, 8);
	entry.pid = noop ? PIDS : entry.pid;
	entry.events = noop ? 0 : entry.events;
	entry.first_seq = next_seq(log, entry.pid);
	uint32_t size = below(run, sizeof(payload));
	memset(payload, (int)below(run, 256), size);
	struct ps_event_out events[4];
	for (uint32_t i = 0; i < entry.events; i++) {
		events[i] = (struct ps_event_out){.manifest = rt_bytes_str("Happened"),
			.version = 1,
			.payload = rt_bytes_of(payload, size),
			.tags = tags,
			.tag_count = below(run, 3)};
	}
	struct ps_record head = {
		.term = 1, .kind = noop ? PS_KIND_NOOP : PS_KIND_COMMAND, .time_ms = run->now++};
	if (!noop) {
		head.pid = pid_of(entry.pid, pid);
		head.first_seq = entry.first_seq;
		head.command_id = chance(run, 90) ? id_of(entry.id, id) : (struct rt_bytes){0};
		head.event_count = entry.events;
		head.answer = rt_bytes_of(payload, size / 2);
	}
	uint32_t at;
	uint8_t *room = ps_round_add(round, shard, ps_record_size(&head, events), &at);
	RT_ASSERT(room != NULL);
	ps_record_encode(room, &head, events);
	round->entries[at].offset = last_of(log) + 1;
	if (chance(run, 5)) {
		ps_round_drop(round, at);
	} else if (log->count < LOG_MAX) {
		log->entries[log->count++] = entry;
	}
}

/* ---- rounds ---- */
struct waited {
	_Atomic bool done;
	rt_err err;
};

static void round_done(struct ps_round *round, rt_err err)
{
	struct waited *waited = round->arg;
	waited->err = err;
	waited->done = true;
}

static void fill_shard(struct run *run, struct ps_round *round, uint32_t shard)
{
	struct log *log = &run->logs[shard];
	if (chance(run, 4)) {
		log->first = chance(run, 70) ? 1 : 1 + below(run, 50);
		log->committed = log->first - 1;
		log->count = 0;
		rt_err err = ps_round_wipe(round, shard, log->first);
		RT_ASSERT(err == RT_OK);
	} else if (chance(run, 15)) {
		uint64_t from = log->committed + 1 + below(run, 4);
		rt_err err = ps_round_cut(round, shard, from);
		RT_ASSERT(err == RT_OK);
		while (log->count > 0 && last_of(log) >= from) {
			log->count--;
		}
	}
	for (uint32_t n = below(run, 12); n > 0 && log->count < LOG_MAX; n--) {
		add_record(run, round, shard);
	}
}

static void put_meta(struct run *run, struct ps_round *round)
{
	char key[16];
	uint8_t value[40];
	snprintf(key, sizeof(key), "raft%u", below(run, META_MAX));
	uint32_t size = below(run, sizeof(value));
	memset(value, (int)below(run, 256), sizeof(value));
	rt_err err = ps_round_add_meta(round, rt_bytes_str(key), rt_bytes_of(value, size));
	RT_ASSERT(err == RT_OK);
}

static void do_rounds(struct run *run)
{
	struct waited waited[4] = {0};
	struct ps_round *rounds[4];
	uint32_t count = 1 + below(run, 4);
	for (uint32_t r = 0; r < count; r++) {
		rounds[r] = ps_round_acquire(run->bed->writer, run->bed->worker);
		RT_ASSERT(rounds[r] != NULL);
		for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
			if (chance(run, 60)) {
				fill_shard(run, rounds[r], shard);
			}
		}
		for (uint32_t n = below(run, 3); n > 0; n--) {
			put_meta(run, rounds[r]);
		}
		rounds[r]->done = round_done;
		rounds[r]->arg = &waited[r];
		ps_writer_submit(run->bed->writer, rounds[r]);
	}
	for (uint32_t r = 0; r < count; r++) {
		conform_bed_wait(run->bed, &waited[r].done);
		fprintf(run->out, "round %s\n", rt_err_name(waited[r].err));
		ps_round_release(rounds[r]);
	}
}

/* A cut of what is committed is refused, and so is everything after it. */
static void do_bad_cut(struct run *run)
{
	struct waited waited = {0};
	uint32_t shard = below(run, CONFORM_SHARDS);
	uint64_t watermark = ps_store_index_watermark(run->bed->store, shard);
	if (watermark < run->logs[shard].first) {
		return;
	}
	struct ps_round *round = ps_round_acquire(run->bed->writer, run->bed->worker);
	RT_ASSERT(round != NULL);
	rt_err err = ps_round_cut(round, shard, watermark);
	RT_ASSERT(err == RT_OK);
	put_meta(run, round);
	round->done = round_done;
	round->arg = &waited;
	ps_writer_submit(run->bed->writer, round);
	conform_bed_wait(run->bed, &waited.done);
	fprintf(run->out, "cut of committed records: %s\n", rt_err_name(waited.err));
	ps_round_release(round);
	run->failed = true;
}

/* ---- what is committed gets its rows ---- */
struct barrier {
	struct ps_barrier barrier;
	_Atomic bool done;
};

static void barrier_done(struct rt_worker *worker, struct rt_post *post)
{
	struct barrier *barrier = RT_CONTAINER(post, struct barrier, barrier.post);
	(void)worker;
	barrier->done = true;
}

static void wait_for_rows(struct run *run)
{
	for (int i = 0; i < 2; i++) { /* Snapshots come after the first one. */
		struct barrier barrier = {
			.barrier = {.post = {.run = barrier_done}, .worker = run->bed->worker}};
		ps_stage_barrier(run->bed->stage, &barrier.barrier);
		conform_bed_wait(run->bed, &barrier.done);
	}
}

static void stage_snapshot(struct run *run, uint32_t shard)
{
	const struct log *log = &run->logs[shard];
	char pid[32];
	uint8_t state[100];
	uint32_t n = (uint32_t)(log->committed + 1 - log->first);
	if (n == 0) {
		return;
	}
	const struct entry *entry = &log->entries[below(run, n)];
	if (entry->pid == PIDS || entry->events == 0) {
		return;
	}
	memset(state, (int)below(run, 256), sizeof(state));
	struct ps_snapshot snapshot = {.seq = entry->first_seq + entry->events - 1,
		.offset = log->first + (uint64_t)(entry - log->entries),
		.version = 1 + below(run, 70000),
		.state = rt_bytes_of(state, below(run, sizeof(state)))};
	ps_stage_snapshot(run->bed->stage, shard, pid_of(entry->pid, pid), &snapshot);
}

static bool stage_one(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	struct run *run = arg;
	struct ps_record record;
	rt_err err = ps_record_decode(bytes, &record);
	RT_ASSERT(err == RT_OK);
	uint32_t shard = (uint32_t)run->now; /* lent */
	ps_stage_record(run->bed->stage, shard, offset, &record);
	return true;
}

static void do_commit(struct run *run)
{
	for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
		struct log *log = &run->logs[shard];
		uint64_t upto = log->committed + below(run, 12);
		upto = upto < last_of(log) ? upto : last_of(log);
		uint64_t now = run->now;
		run->now = shard;
		rt_err err = log->committed < upto
				     ? ps_store_read(run->bed->store, shard, log->committed + 1,
					       upto, stage_one, run, NULL)
				     : RT_OK;
		run->now = now;
		RT_ASSERT(err == RT_OK);
		log->committed = upto;
		for (uint32_t n = below(run, 3); n > 0; n--) {
			stage_snapshot(run, shard);
		}
	}
	wait_for_rows(run);
}

static void erase_work(struct ps_job *job, struct ps_store *store)
{
	ps_erase_run(RT_CONTAINER(job, struct ps_erase, job), store);
}

struct erasing {
	struct ps_erase erase;
	_Atomic bool done;
};

static void erase_done(struct ps_job *job)
{
	struct erasing *erasing = RT_CONTAINER(job, struct erasing, erase.job);
	erasing->done = true;
}

static void do_erase(struct run *run)
{
	struct erasing erasing = {.erase.job = {.work = erase_work, .done = erase_done}};
	struct ps_erase *erase = &erasing.erase;
	uint32_t from = below(run, CONFORM_SHARDS);
	for (uint32_t shard = from; shard < CONFORM_SHARDS; shard += 2) {
		run->logs[shard].first = 1;
		run->logs[shard].committed = run->logs[shard].count = 0;
		erase->shards[erase->count++] = shard;
	}
	rt_err err = ps_reader_submit(run->bed->reader, run->bed->worker, &erase->job);
	RT_ASSERT(err == RT_OK);
	conform_bed_wait(run->bed, &erasing.done);
	ps_erase_done(erase, run->bed->store);
	fprintf(run->out, "erase from %u: %s", from, rt_err_name(erase->err));
	for (uint32_t i = 0; i < erase->count; i++) {
		fprintf(run->out, " %d", erase->had[i]);
	}
	fprintf(run->out, "\n");
}

static void catchup_done(struct ps_catchup *catchup, rt_err err)
{
	struct waited *waited = catchup->arg;
	waited->err = err;
	waited->done = true;
}

static void do_catchup(struct run *run)
{
	for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
		struct log *log = &run->logs[shard];
		struct waited waited = {0};
		uint64_t upto = log->committed + below(run, 30);
		upto = upto < last_of(log) ? upto : last_of(log);
		struct ps_catchup catchup = {.store = run->bed->store,
			.reader = run->bed->reader,
			.stage = run->bed->stage,
			.worker = run->bed->worker,
			.shard = shard,
			.upto = upto,
			.done = catchup_done,
			.arg = &waited};
		ps_catchup_start(&catchup);
		conform_bed_wait(run->bed, &waited.done);
		fprintf(run->out, "catchup %u upto %" PRIu64 ": %s\n", shard, upto,
			rt_err_name(waited.err));
		log->committed = upto;
	}
}

/* ---- reads ---- */
static void say_list(
	struct run *run, const struct rt_bytes *records, const uint64_t *offsets, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		fprintf(run->out, " %" PRIu64, offsets[i]);
		say_bytes(run, "", records[i]);
	}
}

static void do_load(struct run *run)
{
	char pid[32];
	struct ps_load load = {.shard = below(run, CONFORM_SHARDS),
		.from_seq = below(run, 3) == 0 ? 1 + below(run, 30) : 1,
		.upto_seq = below(run, 3) == 0 ? 1 + below(run, 60) : UINT64_MAX,
		.want_snapshot = chance(run, 50),
		.max_bytes = chance(run, 50) ? 1 + below(run, 3000) : 0};
	load.pid = pid_of(below(run, PIDS), pid);
	ps_load_run(&load, run->bed->store);
	fprintf(run->out, "load %u %s: %s more %d next %" PRIu64, load.shard, pid,
		rt_err_name(load.err), load.more, load.next_seq);
	if (load.has_snapshot) {
		fprintf(run->out, " snapshot %" PRIu64 "@%" PRIu64 " v%u", load.snapshot.seq,
			load.snapshot.offset, load.snapshot.version);
		say_bytes(run, "", load.snapshot.state);
	}
	say_list(run, load.records, load.offsets, load.record_count);
	fprintf(run->out, "\n");
	ps_load_clear(&load);
}

static void do_lookup(struct run *run)
{
	char text[32];
	uint32_t shard = below(run, CONFORM_SHARDS);
	struct ps_lookup lookup = {.shard = shard};
	struct rt_bytes id = id_of(below(run, IDS), text);
	memcpy(lookup.id, id.data, id.size);
	lookup.id_size = (uint8_t)id.size;
	lookup.offset =
		chance(run, 30) ? 1 + below(run, (uint32_t)last_of(&run->logs[shard]) + 2) : 0;
	ps_lookup_run(&lookup, run->bed->store);
	fprintf(run->out, "lookup %u %s: %s found %d", shard, text, rt_err_name(lookup.err),
		lookup.found);
	if (lookup.found) {
		fprintf(run->out, " at %" PRIu64, lookup.offset);
		say_bytes(run, "", lookup.record);
	}
	fprintf(run->out, "\n");
	ps_lookup_clear(&lookup);
}

static void do_scan(struct run *run)
{
	char pid[32];
	uint32_t shard = below(run, CONFORM_SHARDS);
	const struct log *log = &run->logs[shard];
	struct ps_scan scan = {.shard = shard,
		.from = log->first + below(run, 40),
		.upto = log->committed,
		.max_bytes = chance(run, 50) ? 1 + below(run, 2000) : 0};
	if (chance(run, 30)) {
		scan.type = rt_bytes_str("account");
	}
	if (chance(run, 30)) {
		scan.tag = rt_bytes_str(chance(run, 50) ? "red" : "blue");
	}
	if (chance(run, 30)) {
		scan.pid = pid_of(below(run, PIDS), pid);
	}
	ps_scan_run(&scan, run->bed->store);
	fprintf(run->out, "scan %u %" PRIu64 "..%" PRIu64 ": %s next %" PRIu64, shard, scan.from,
		scan.upto, rt_err_name(scan.err), scan.next);
	say_list(run, scan.records, scan.offsets, scan.record_count);
	fprintf(run->out, "\n");
	ps_scan_clear(&scan);
}

struct seen {
	struct run *run;
	uint64_t hash, count;
	uint32_t most;
};

static bool see(void *arg, uint64_t offset, struct rt_bytes record)
{
	struct seen *seen = arg;
	seen->hash = rt_hash_mix(seen->hash ^ offset) ^ rt_hash(record.data, record.size);
	return ++seen->count < seen->most;
}

static bool see_id(void *arg, uint64_t hash, uint64_t offset)
{
	struct seen *seen = arg;
	(void)hash;
	seen->hash += rt_hash_mix(offset); /* whatever the order */
	seen->count++;
	return true;
}

static void do_read(struct run *run)
{
	for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
		const struct log *log = &run->logs[shard];
		struct ps_store *store = run->bed->store;
		struct seen seen = {.run = run, .most = 1 + below(run, 300)};
		struct seen ids = {.run = run};
		uint64_t from = 1 + below(run, (uint32_t)last_of(log) + 2);
		rt_err err =
			ps_store_read(store, shard, from, from + below(run, 100), see, &seen, NULL);
		rt_err scanned = ps_store_dedupe_scan(store, shard, see_id, &ids, NULL);
		struct rt_bytes one = {0};
		rt_err got = ps_store_get(store, shard, from, &one, NULL);
		fprintf(run->out,
			"read %u %" PRIu64 ": %s %" PRIu64 ":%016" PRIx64 " log %" PRIu64
			"..%" PRIu64 " durable %" PRIu64 " rows %" PRIu64 " ids %s %" PRIu64
			":%016" PRIx64 " get %s",
			shard, from, rt_err_name(err), seen.count, seen.hash,
			ps_store_first_offset(store, shard), ps_store_last_offset(store, shard),
			ps_store_durable_offset(store, shard),
			ps_store_index_watermark(store, shard), rt_err_name(scanned), ids.count,
			ids.hash, rt_err_name(got));
		if (got == RT_OK) {
			say_bytes(run, "", one);
			free((void *)(uintptr_t)one.data);
		}
		fprintf(run->out, "\n");
		RT_ASSERT(ps_store_last_offset(store, shard) == last_of(log));
	}
}

static void do_rows(struct run *run)
{
	char pid[32], key[16];
	uint32_t shard = below(run, CONFORM_SHARDS);
	uint64_t *offsets = NULL;
	size_t count = 0;
	uint64_t from = 1 + below(run, 30);
	rt_err err = ps_store_index(run->bed->store, shard, pid_of(below(run, PIDS), pid), from,
		1 + below(run, 20), &offsets, &count, NULL);
	fprintf(run->out, "index %u %s from %" PRIu64 ": %s", shard, pid, from, rt_err_name(err));
	for (size_t i = 0; err == RT_OK && i < count; i++) {
		fprintf(run->out, " %" PRIu64, offsets[i]);
	}
	free(offsets);
	snprintf(key, sizeof(key), "raft%u", below(run, META_MAX));
	struct rt_bytes value = {0};
	err = ps_store_meta_get(run->bed->store, rt_bytes_str(key), &value, NULL);
	fprintf(run->out, " meta %s %s", key, rt_err_name(err));
	if (err == RT_OK) {
		say_bytes(run, "", value);
		free((void *)(uintptr_t)value.data);
	}
	struct ps_log_hash hash = {0};
	err = ps_store_hash(run->bed->store, shard, 1 + below(run, 100), &hash, NULL);
	fprintf(run->out, " hash %s %" PRIu64 "..%" PRIu64 ":%016" PRIx64 " logs %u\n",
		rt_err_name(err), hash.first, hash.last, hash.hash,
		ps_store_log_count(run->bed->store));
}

/* ---- open and close ---- */
static void do_reopen(struct run *run, bool leave_tail)
{
	conform_bed_close(run->bed);
	conform_bed_open(run->bed, leave_tail);
	run->failed = false;
	fprintf(run->out, "opens again%s\n", leave_tail ? ", its tail is left" : "");
	for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
		struct log *log = &run->logs[shard];
		log->committed = leave_tail ? log->committed : last_of(log);
	}
}

static void step(struct run *run)
{
	static void (*const reads[])(struct run *) = {do_load, do_load, do_load, do_lookup,
		do_lookup, do_scan, do_scan, do_read, do_rows};
	uint32_t what = below(run, 100);
	if (what < 25 && !run->failed) {
		do_rounds(run);
	} else if (what < 40) {
		do_commit(run);
	} else if (what < 43) {
		do_reopen(run, chance(run, 70));
	} else if (what < 46) {
		do_catchup(run);
	} else if (what < 47 && !run->failed) {
		do_bad_cut(run);
	} else if (what < 49 && !run->failed) {
		do_erase(run);
	} else {
		reads[below(run, sizeof(reads) / sizeof(reads[0]))](run);
	}
}

void conform_run(struct conform_bed *bed, uint64_t seed, uint32_t steps, FILE *out)
{
	struct run *run = calloc(1, sizeof(*run));
	RT_ASSERT(run != NULL);
	run->bed = bed;
	run->out = out;
	rt_random_seed(&run->random, seed);
	for (uint32_t shard = 0; shard < CONFORM_SHARDS; shard++) {
		run->logs[shard].first = 1;
	}
	conform_bed_open(bed, true);
	for (uint32_t i = 0; i < steps; i++) {
		fprintf(out, "%" PRIu64 ".%u ", seed, i);
		step(run);
	}
	conform_bed_close(bed);
	free(run);
}
