#include "tests/support/shardbed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.h"
#include "actors/account/account.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "runtime/base/hash.h"
#include "tests/support/test.h"

#define SHARD 1u

struct step {
	struct rt_post post; /* first */
	struct bed *bed;
	void (*run)(struct bed *bed, void *arg);
	void *arg;
};

static void run_step(struct rt_worker *worker, struct rt_post *post)
{
	struct step *step = (struct step *)post;
	(void)worker;
	step->run(step->bed, step->arg);
	uv_sem_post(&step->bed->stepped);
}

void bed_do(struct bed *bed, void (*run)(struct bed *bed, void *arg), void *arg)
{
	struct step step = {.post = {.run = run_step}, .bed = bed, .run = run, .arg = arg};
	rt_worker_post_always(bed->worker, &step.post);
	uv_sem_wait(&bed->stepped);
}

static void over(struct ac_call *call, bool moved)
{
	struct bed_call *c = (struct bed_call *)call;
	struct rt_bytes text = call->out.error.size > 0 ? call->out.error : call->out.payload;
	c->moved = moved;
	snprintf(c->text, sizeof(c->text), "%.*s", (int)text.size,
		text.size > 0 ? (const char *)text.data : "");
	ac_call_clear(call);
	uv_sem_post(&c->over);
}

static void answered(struct ac_host *host, struct ac_call *call)
{
	(void)host;
	over(call, false);
}

static void moved(struct ac_host *host, struct ac_call *call)
{
	(void)host;
	over(call, true);
}

static void drop_shard(struct bed *bed, void *arg)
{
	(void)arg;
	ac_shard_drop(&bed->shard, "dropped", UINT64_MAX);
}

bool bed_confirm(struct ac_host *host, struct ac_shard *shard, struct ac_call *call)
{
	struct bed *bed = host->owner;
	bed->confirms++;
	if (bed->confirm_drops) {
		drop_shard(bed, NULL);
	}
	if (bed->confirm_commits) {
		ac_shard_commit(shard, shard->tail);
	}
	if (bed->confirm_keeps) {
		bed->kept = call;
	}
	return !bed->confirm_keeps;
}

static void start(struct bed *bed, void *arg)
{
	(void)arg;
	assert_err(ac_host_init(&bed->host), RT_OK);
	ac_shard_init(&bed->shard, &bed->host, SHARD);
	bed->shard.dedupe.complete = true;
}

void bed_open(struct bed *bed)
{
	struct rt_errinfo info = {0};
	*bed = (struct bed){0};
	snprintf(bed->dir, sizeof(bed->dir), "/tmp/troupe-shard-XXXXXX");
	assert_non_null(mkdtemp(bed->dir));
	struct ps_store_options store = {.dir = bed->dir, .create = true, .shard_count = 2};
	assert_err(ps_store_open(&store, &bed->host.store, &info), RT_OK);
	assert_err(ac_registry_new(&bed->registry), RT_OK);
	assert_err(ac_registry_add(bed->registry, &account_aggregate, &info), RT_OK);
	struct rt_system_options system = {.workers = 1};
	assert_err(rt_system_new(&system, &bed->system, &info), RT_OK);
	bed->worker = rt_system_worker(bed->system, 0);
	assert_err(ps_writer_start(bed->host.store, bed->system, &bed->writer, &info), RT_OK);
	assert_err(ps_indexer_start(bed->host.store, 1, &bed->indexer, &info), RT_OK);
	assert_err(ps_reader_start(bed->host.store, bed->system, 1, &bed->reader, &info), RT_OK);
	bed->host.worker = bed->worker;
	bed->host.registry = bed->registry;
	bed->host.writer = bed->writer;
	bed->host.reader = bed->reader;
	bed->host.stage = ps_indexer_stage(bed->indexer, 0);
	bed->host.memory_max = 64u * 1024u * 1024u;
	bed->host.passivate_after_ms = 60000;
	bed->host.snapshot_every = 50;
	bed->host.answered = answered;
	bed->host.moved = moved;
	bed->host.owner = bed;
	uv_sem_init(&bed->stepped, 0);
	uv_sem_init(&bed->reads, 0);
	assert_err(rt_system_start(bed->system, &info), RT_OK);
	bed_do(bed, start, NULL);
}

static void finish(struct bed *bed, void *arg)
{
	(void)arg;
	ac_shard_done(&bed->shard);
	ac_host_done(&bed->host);
	if (bed->host.round != NULL) {
		ps_round_release(bed->host.round);
	}
}

static void fail_store(struct bed *bed, void *arg)
{
	bed->host.failed = true;
	bed->host.reader = NULL;
	drop_shard(bed, arg);
}

void bed_close(struct bed *bed)
{
	ps_writer_stop(bed->writer);
	bed_do(bed, fail_store, NULL);
	ps_reader_stop(bed->reader);
	bed_do(bed, finish, NULL);
	ps_indexer_stop(bed->indexer);
	rt_system_stop(bed->system);
	rt_system_free(bed->system);
	ps_store_close(bed->host.store);
	ac_registry_free(bed->registry);
	uv_sem_destroy(&bed->stepped);
	uv_sem_destroy(&bed->reads);
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", bed->dir);
	assert_int_equal(system(command), 0);
}

/* ---- the log ---- */
static void forget_round(struct bed *bed)
{
	bed->host.round = NULL;
	bed->host.touched = NULL;
	bed->shard.entry_count = 0;
}

static void written(struct ps_round *round, rt_err err)
{
	struct bed *bed = round->arg;
	ps_round_release(round);
	assert_true(err == RT_OK);
	uv_sem_post(&bed->stepped);
}

static void submit_round(struct bed *bed, struct ps_round *round)
{
	round->done = written;
	round->arg = bed;
	ps_writer_submit(bed->writer, round);
}

static void write_round(struct bed *bed, void *arg)
{
	struct ps_round *round = bed->host.round;
	*(bool *)arg = round != NULL;
	if (round != NULL) {
		forget_round(bed);
		submit_round(bed, round);
	}
}

void bed_write(struct bed *bed)
{
	bool any = false;
	bed_do(bed, write_round, &any);
	if (any) {
		uv_sem_wait(&bed->stepped);
	}
}

static void discard_round(struct bed *bed, void *arg)
{
	(void)arg;
	if (bed->host.round != NULL) {
		ps_round_release(bed->host.round);
		forget_round(bed);
	}
}

void bed_discard(struct bed *bed)
{
	bed_do(bed, discard_round, NULL);
}

struct other {
	uint64_t from;
	int64_t amount, balance;
	const char *id;
};

static void replace(struct bed *bed, void *arg)
{
	const struct other *other = arg;
	struct ps_round *round = ps_round_acquire(bed->writer, bed->worker);
	Account__MoneyDeposited event = ACCOUNT__MONEY_DEPOSITED__INIT;
	uint8_t payload[64];
	uint32_t entry;
	event.amount = other->amount;
	event.balance = other->balance;
	size_t size = account__money_deposited__pack(&event, payload);
	struct ps_event_out out = {.manifest = rt_bytes_str("MoneyDeposited"),
		.version = 1,
		.payload = rt_bytes_of(payload, size)};
	struct ps_record head = {.term = 99,
		.kind = PS_KIND_COMMAND,
		.pid = rt_bytes_str("account|a"),
		.first_seq = other->from,
		.command_id = rt_bytes_str(other->id),
		.event_count = 1};
	if (ps_store_last_offset(bed->host.store, SHARD) >= other->from) {
		RT_ASSERT(ps_round_cut(round, SHARD, other->from) == RT_OK);
	}
	uint8_t *at = ps_round_add(round, SHARD, ps_record_size(&head, &out), &entry);
	ps_record_encode(at, &head, &out);
	round->entries[entry].offset = other->from;
	submit_round(bed, round);
}

void bed_replace(struct bed *bed, uint64_t from, int64_t amount, int64_t balance, const char *id)
{
	struct other other = {from, amount, balance, id};
	bed_do(bed, replace, &other);
	uv_sem_wait(&bed->stepped);
}

static void cut(struct bed *bed, void *arg)
{
	struct ps_round *round = ps_round_acquire(bed->writer, bed->worker);
	RT_ASSERT(ps_round_cut(round, SHARD, *(const uint64_t *)arg) == RT_OK);
	submit_round(bed, round);
}

void bed_cut(struct bed *bed, uint64_t from)
{
	bed_do(bed, cut, &from);
	uv_sem_wait(&bed->stepped);
}

struct commit {
	uint64_t offset;
	struct rt_bytes bytes;
};

static void stage(struct bed *bed, void *arg)
{
	const struct commit *commit = arg;
	struct ps_record record;
	RT_ASSERT(ps_record_decode(commit->bytes, &record) == RT_OK);
	ps_stage_record(bed->host.stage, SHARD, commit->offset, &record);
	if (!bed->shard.leading) {
		ac_shard_follow_record(&bed->shard, commit->offset, &record);
	}
}

static void commit_upto(struct bed *bed, void *arg)
{
	if (bed->shard.leading) {
		ac_shard_commit(&bed->shard, *(const uint64_t *)arg);
	} else {
		ac_shard_committed(&bed->shard, *(const uint64_t *)arg);
	}
	ps_stage_flush(bed->host.stage);
}

void bed_commit(struct bed *bed, uint64_t upto)
{
	while (bed->staged < upto) {
		struct commit commit = {.offset = bed->staged + 1};
		assert_err(ps_store_get(bed->host.store, SHARD, commit.offset, &commit.bytes, NULL),
			RT_OK);
		bed_do(bed, stage, &commit);
		free((void *)(uintptr_t)commit.bytes.data);
		bed->staged++;
	}
	bed_do(bed, commit_upto, &upto);
}

struct barrier {
	struct ps_barrier barrier; /* first */
	struct bed *bed;
};

static void indexed(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	uv_sem_post(&RT_CONTAINER(post, struct barrier, barrier.post)->bed->stepped);
}

static void ask_index(struct bed *bed, void *arg)
{
	struct barrier *barrier = arg;
	barrier->barrier.worker = bed->worker;
	barrier->barrier.post.run = indexed;
	ps_stage_barrier(bed->host.stage, &barrier->barrier);
}

void bed_index(struct bed *bed)
{
	struct barrier barrier = {.bed = bed};
	bed_do(bed, ask_index, &barrier);
	uv_sem_wait(&bed->stepped);
}

static void lead(struct bed *bed, void *arg)
{
	ac_shard_lead(&bed->shard, *(const uint64_t *)arg, bed->shard.committed);
}

void bed_lead(struct bed *bed, uint64_t term)
{
	bed_commit(bed, ps_store_last_offset(bed->host.store, SHARD));
	bed_index(bed);
	bed_do(bed, lead, &term);
}

void bed_drop(struct bed *bed)
{
	bed_do(bed, drop_shard, NULL);
}

struct hold {
	struct ps_job job; /* first */
	struct bed *bed;
};

static void hold_work(struct ps_job *job, struct ps_store *store)
{
	(void)store;
	uv_sem_wait(&((struct hold *)job)->bed->reads);
}

static void hold_done(struct ps_job *job)
{
	free(job);
}

static void hold(struct bed *bed, void *arg)
{
	struct hold *held = calloc(1, sizeof(*held));
	(void)arg;
	RT_ASSERT(held != NULL);
	*held = (struct hold){.job = {.work = hold_work, .done = hold_done}, .bed = bed};
	RT_ASSERT(ac_host_read(&bed->host, &held->job) == RT_OK);
}

void bed_hold_reads(struct bed *bed)
{
	bed_do(bed, hold, NULL);
}

void bed_release_reads(struct bed *bed)
{
	uv_sem_post(&bed->reads);
}

/* ---- calls ---- */
void bed_call(
	struct bed_call *c, uint32_t kind, const char *id, const char *name, const char *payload)
{
	static char ids[16];
	static unsigned made;
	char pid[64];
	*c = (struct bed_call){0};
	uv_sem_init(&c->over, 0);
	c->call.in = (struct pr_call){.type = rt_bytes_str("account"),
		.id = rt_bytes_str(id),
		.name = rt_bytes_str(name),
		.payload = rt_bytes_str(payload),
		.kind = kind,
		.json = true};
	snprintf(ids, sizeof(ids), "made-%u", ++made);
	memcpy(c->call.made_id, ids, sizeof(c->call.made_id));
	c->call.in.command_id = rt_bytes_of(c->call.made_id, sizeof(c->call.made_id));
	c->call.out.command_id = c->call.in.command_id;
	snprintf(pid, sizeof(pid), "account|%s", id);
	c->call.hash = rt_hash(pid, strlen(pid));
	c->call.shard = SHARD;
}

void bed_command_id(struct bed_call *c, const char *id)
{
	c->call.in.command_id = rt_bytes_str(id);
	c->call.out.command_id = (struct rt_bytes){0};
}

void bed_submit(struct bed *bed, void *call)
{
	ac_shard_call(&bed->shard, call);
}

void bed_read(struct bed *bed, void *call)
{
	((struct bed_call *)call)->call.in.stale = true;
	ac_shard_read(&bed->shard, call);
}

uint32_t bed_wait(struct bed_call *c)
{
	uv_sem_wait(&c->over);
	return c->moved ? BED_MOVED : c->call.out.code;
}

bool bed_is_over(struct bed_call *c)
{
	bool is = uv_sem_trywait(&c->over) == 0;
	if (is) {
		uv_sem_post(&c->over);
	}
	return is;
}

static void look(struct bed *bed, void *arg)
{
	*(bool *)arg = bed->shard.tail > bed->shard.committed;
}

/* Until the command's record is in the open round or the call is over: a turn of the worker at a
 * time, since the entity may have to be read first. */
uint32_t bed_run(struct bed *bed, struct bed_call *c)
{
	bed_do(bed, bed_submit, c);
	while (!bed_is_over(c)) {
		bool open = false;
		bed_do(bed, look, &open);
		if (open) {
			bed_write(bed);
			bed_commit(bed, ps_store_last_offset(bed->host.store, SHARD));
		}
	}
	return bed_wait(c);
}

void bed_end(struct bed_call *c)
{
	ac_call_clear(&c->call);
	uv_sem_destroy(&c->over);
}

uint32_t bed_ask(struct bed *bed, uint32_t kind, const char *id, const char *name,
	const char *payload, char *text)
{
	struct bed_call c;
	bed_call(&c, kind, id, name, payload);
	uint32_t code = bed_run(bed, &c);
	if (text != NULL) {
		strcpy(text, c.text);
	}
	bed_end(&c);
	return code;
}
