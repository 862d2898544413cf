/*
 * raft_one.c - one voter on a real store against the same records written straight.
 *
 * One worker, one round under way, in spells that alternate: written straight into shard 0; through
 * a replica with one voter into shard 1. A record is made once and copied into the round by both.
 * A pair of neighbouring spells gives one ratio and one difference; what is printed are medians
 * over the pairs. The time of a round ends when its owner knows: done, or port->committed.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/raft.h"
#include "persistence/writer.h"
#include "runtime/base/clock.h"

#define SPELL     8u /* rounds */
#define WARM      8u /* pairs that do not count */
#define PAIRS_MAX 65536u

enum {
	STRAIGHT,
	REPLICA,
	KINDS
};

struct spell {
	double rate;   /* records a second */
	double p50_us; /* of its rounds */
	double cpu_us; /* of the worker, a round */
};

struct one {
	struct rt_post start;
	struct rt_worker *worker;
	struct ps_writer *writer;
	struct ps_round *round; /* being filled */
	struct sh_replica *replica;
	struct raft_records records;
	sem_t finished;
	uint32_t batch;
	uint64_t offset; /* of shard 0 */
	uint64_t written, committed, expected;
	bool starting;

	uint32_t kind, rounds; /* of this spell */
	uint64_t submitted_ns, spell_ns, spell_cpu_ns, end_ns;
	double took_us[SPELL];
	struct spell (*spells)[KINDS];
	uint32_t pairs;
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile(double *values, uint32_t count, uint32_t percent)
{
	qsort(values, count, sizeof(*values), by_value);
	return values[(uint64_t)(count - 1) * percent / 100];
}

static uint64_t cpu_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- rounds ---- */
static void next_round(struct one *one);

static void fill(struct one *one, uint32_t shard, struct rt_bytes *views)
{
	struct ps_round *round = one->round;
	for (uint32_t i = 0; i < one->batch; i++) {
		struct rt_bytes record = one->records.record[i];
		uint32_t entry;
		uint8_t *at = ps_round_add(round, shard, record.size, &entry);
		if (at == NULL) {
			raft_fail("round", "no memory");
		}
		memcpy(at, record.data, record.size);
	}
	for (uint32_t i = 0; i < one->batch; i++) {
		const struct ps_entry *entry = &round->entries[i];
		views[i] = rt_bytes_of(round->bytes + entry->pos, entry->size);
	}
}

static void ended(struct one *one)
{
	uint64_t now = rt_clock_now_ns();
	one->took_us[one->rounds++] = (double)(now - one->submitted_ns) / 1e3;
	if (one->rounds < SPELL) {
		return;
	}
	struct spell *spell = &one->spells[one->pairs][one->kind];
	spell->rate = (double)SPELL * one->batch * 1e9 / (double)(now - one->spell_ns);
	spell->p50_us = percentile(one->took_us, SPELL, 50);
	uint64_t cpu = cpu_ns();
	spell->cpu_us = (double)(cpu - one->spell_cpu_ns) / (SPELL * 1e3);
	one->spell_cpu_ns = cpu;
	one->rounds = 0;
	one->kind = (one->kind + 1) % KINDS;
	one->pairs += one->kind == STRAIGHT;
	one->spell_ns = now;
}

static void round_done(struct ps_round *round, rt_err err)
{
	struct one *one = round->arg;
	raft_check("commit", err);
	if (one->kind == REPLICA || one->starting) {
		raft_check("durable", sh_replica_durable(one->replica,
					      rt_worker_now_ms(one->worker), one->written));
		if (one->committed != one->expected) {
			raft_fail("replica", "not committed");
		}
	}
	ps_round_release(round);
	if (one->starting) {
		one->starting = false;
		one->spell_ns = rt_clock_now_ns();
		one->spell_cpu_ns = cpu_ns();
	} else {
		ended(one);
	}
	if (rt_clock_now_ns() < one->end_ns && one->pairs < PAIRS_MAX) {
		next_round(one);
	} else {
		sem_post(&one->finished);
	}
}

static void open_round(struct one *one)
{
	one->round = ps_round_acquire(one->writer, one->worker);
	if (one->round == NULL) {
		raft_fail("round", "no memory");
	}
	one->round->done = round_done;
	one->round->arg = one;
}

static void next_round(struct one *one)
{
	struct rt_bytes views[RAFT_BATCH_MAX];
	uint64_t first = one->offset + 1;
	one->submitted_ns = rt_clock_now_ns();
	open_round(one);
	fill(one, one->kind == STRAIGHT ? 0 : 1, views);
	if (one->kind == STRAIGHT) {
		one->offset += one->batch;
	} else {
		raft_check("propose", sh_replica_propose(one->replica, views, one->batch, &first));
		one->written = sh_replica_written(one->replica);
		one->expected = first + one->batch - 1;
	}
	for (uint32_t i = 0; i < one->batch; i++) {
		one->round->entries[i].offset = first + i;
	}
	ps_writer_submit(one->writer, one->round);
}

/* ---- the replica's port ---- */
static rt_err port_write(void *arg, const struct sh_write *write)
{
	struct one *one = arg;
	uint32_t entry;
	if (write->kind == SH_WRITE_META) {
		return ps_round_add_meta(one->round, write->key, write->bytes);
	}
	if (write->kind != SH_WRITE_RECORD) {
		raft_fail("replica", "cuts its log");
	}
	uint8_t *at = ps_round_add(one->round, 1, write->bytes.size, &entry);
	if (at == NULL) {
		return RT_E_NOMEM;
	}
	memcpy(at, write->bytes.data, write->bytes.size);
	one->round->entries[entry].offset = write->index;
	return RT_OK;
}

static rt_err port_read(void *arg, const struct sh_replica_read *read)
{
	(void)arg;
	(void)read;
	return RT_E_FULL;
}

static uint64_t port_first(void *arg)
{
	(void)arg;
	return 1;
}

static rt_err port_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	(void)arg;
	(void)key;
	(void)out;
	(void)info;
	return RT_E_NOTFOUND; /* The store is new. */
}

static rt_err port_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	(void)arg;
	(void)from;
	(void)visit;
	(void)visit_arg;
	(void)info;
	return RT_OK;
}

static void port_send(void *arg, const struct sh_message *message)
{
	(void)arg;
	(void)message;
	raft_fail("replica", "sends to itself");
}

static void port_lead(void *arg, uint64_t term, uint64_t last)
{
	struct one *one = arg;
	(void)last;
	raft_records_make(&one->records, term);
}

static void port_follow(void *arg, uint64_t term, uint64_t leader)
{
	(void)arg;
	(void)term;
	(void)leader;
	raft_fail("replica", "does not lead");
}

static void port_committed(void *arg, uint64_t upto)
{
	struct one *one = arg;
	one->committed = upto;
}

static void port_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	(void)arg;
	(void)set;
	(void)removed;
}

static const struct sh_replica_port port = {.write = port_write,
	.read = port_read,
	.first = port_first,
	.meta = port_meta,
	.scan = port_scan,
	.send = port_send,
	.lead = port_lead,
	.follow = port_follow,
	.committed = port_committed,
	.members = port_members};

/* ---- one run ---- */
static void begin(struct rt_worker *worker, struct rt_post *post)
{
	struct one *one = (struct one *)(void *)post;
	struct rt_errinfo info = {0};
	struct sh_replica_options options = {
		.shard = 1, .raft = {.node = 1, .seed = 1}, .port = &port, .arg = one};
	raft_check("members", sh_members_put(&options.first, 1, true));
	one->worker = worker;
	one->starting = true;
	one->expected = 1;
	open_round(one);
	if (sh_replica_open(&options, &one->replica, &info) != RT_OK) {
		raft_fail("open", info.text);
	}
	raft_check("start", sh_replica_start(one->replica, rt_worker_now_ms(worker)));
	one->written = sh_replica_written(one->replica);
	ps_writer_submit(one->writer, one->round);
}

/* Quartiles of a number that every pair of spells has. */
struct quartiles {
	double low, middle, high;
};

static struct quartiles over_pairs(
	const struct one *one, double (*number)(const struct spell pair[KINDS]))
{
	static double values[PAIRS_MAX];
	uint32_t count = one->pairs - WARM;
	for (uint32_t i = 0; i < count; i++) {
		values[i] = number(one->spells[WARM + i]);
	}
	double middle = percentile(values, count, 50); /* Sorts. */
	return (struct quartiles){
		percentile(values, count, 25), middle, percentile(values, count, 75)};
}

static double rate(const struct spell pair[KINDS])
{
	return pair[REPLICA].rate;
}
static double straight_rate(const struct spell pair[KINDS])
{
	return pair[STRAIGHT].rate;
}
static double ratio(const struct spell pair[KINDS])
{
	return pair[REPLICA].rate / pair[STRAIGHT].rate;
}
static double p50(const struct spell pair[KINDS])
{
	return pair[REPLICA].p50_us;
}
static double more(const struct spell pair[KINDS])
{
	return pair[REPLICA].p50_us - pair[STRAIGHT].p50_us;
}
static double more_cpu(const struct spell pair[KINDS])
{
	return pair[REPLICA].cpu_us - pair[STRAIGHT].cpu_us;
}

static void print(const struct one *one)
{
	struct quartiles ratios = over_pairs(one, ratio);
	struct quartiles mores = over_pairs(one, more);
	struct quartiles cpus = over_pairs(one, more_cpu);
	printf("{\"bench\":\"raft.one%u\",\"value\":%.0f,\"unit\":\"/s\",\"straight\":%.0f,"
	       "\"ratio\":%.4f,\"ratio_q25\":%.4f,\"ratio_q75\":%.4f,\"p50_us\":%.1f,"
	       "\"more_us\":%.2f,\"more_q25\":%.2f,\"more_q75\":%.2f,\"more_cpu_us\":%.2f,"
	       "\"more_cpu_q25\":%.2f,\"more_cpu_q75\":%.2f,\"pairs\":%u}\n",
		one->batch, over_pairs(one, rate).middle, over_pairs(one, straight_rate).middle,
		ratios.middle, ratios.low, ratios.high, over_pairs(one, p50).middle, mores.middle,
		mores.low, mores.high, cpus.middle, cpus.low, cpus.high, one->pairs - WARM);
}

void raft_bench_one(const char *dir, uint32_t batch, double seconds)
{
	char path[4096];
	struct rt_errinfo info = {0};
	struct ps_store *store = NULL;
	struct rt_system *system = NULL;
	struct rt_system_options system_options = {.workers = 1};
	struct one *one = calloc(1, sizeof(*one));
	snprintf(path, sizeof(path), "%s/one%u", dir, batch);
	struct ps_store_options open = {.dir = path, .create = true, .shard_count = 2};
	if (one == NULL || sem_init(&one->finished, 0, 0) != 0) {
		raft_fail("start", strerror(errno));
	}
	one->spells = calloc(PAIRS_MAX + 1, sizeof(*one->spells));
	if (one->spells == NULL) {
		raft_fail("start", "no memory");
	}
	if (ps_store_open(&open, &store, &info) != RT_OK ||
		rt_system_new(&system_options, &system, &info) != RT_OK ||
		ps_writer_start(store, system, &one->writer, &info) != RT_OK ||
		rt_system_start(system, &info) != RT_OK) {
		raft_fail(path, info.text);
	}
	one->batch = batch;
	one->end_ns = rt_clock_now_ns() + (uint64_t)(seconds * 1e9);
	one->start.run = begin;
	rt_worker_post_always(rt_system_worker(system, 0), &one->start);
	while (sem_wait(&one->finished) != 0) {
		/* A signal. */
	}
	ps_writer_stop(one->writer);
	rt_system_stop(system);
	sh_replica_close(one->replica);
	rt_system_free(system);
	ps_store_close(store);
	if (one->pairs <= WARM) {
		raft_fail("one", "too few rounds for the time");
	}
	print(one);
	free(one->spells);
	free(one);
}
