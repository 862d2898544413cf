/* A shard fetched from a peer: both sides, and whatever goes wrong between them. */
#include <stdlib.h>

#include "persistence/record.h"
#include "sharding/mark.h"
#include "tests/support/hostbed.h"

#define LAST 60u

static const struct sh_raft *raft_of(const struct hostbed *bed)
{
	return sh_replica_raft(bed->replica);
}

/* Node 1 alone, LAST records of 20 KB, its floor at the end. Node 2 was just added, and knows
 * nothing. A chunk holds 13 of them. */
struct pair {
	struct hostbed *source, *target;
	struct hostbed *both[3];
};

static void pair_open(struct pair *pair)
{
	struct sh_members members = hostbed_members("1 2s");
	uint64_t index;
	uint64_t floor;
	struct hostbed *source = hostbed_leader("1");
	while (hostbed_last(source) < LAST) {
		hostbed_propose(source, 20000);
		hostbed_sync(source);
	}
	assert_err(sh_replica_compact(source->replica, LAST, &floor), RT_OK);
	assert_int_equal(floor, LAST);
	assert_err(sh_replica_propose_members(source->replica, &members, &index), RT_OK);
	hostbed_sync(source);
	struct hostbed *target = hostbed_new(2, "");
	hostbed_open(target);
	hostbed_start(target);
	hostbed_sync(target);
	*pair = (struct pair){source, target, {source, target, NULL}};
}

static void pair_close(struct pair *pair)
{
	hostbed_free(pair->source);
	hostbed_free(pair->target);
}

static void pass_time(struct pair *pair, uint64_t ms)
{
	for (uint64_t at = 0; at < ms; at += 50) {
		hostbed_wait(pair->source, 50);
		hostbed_wait(pair->target, 50);
		hostbed_run(pair->both);
	}
}

static void assert_same(const struct pair *pair)
{
	const struct hostbed *a = pair->source;
	const struct hostbed *b = pair->target;
	assert_int_equal(a->end, b->end);
	assert_true(b->first >= a->first);
	for (uint64_t i = b->first; i < b->end; i++) {
		assert_true(rt_bytes_equal(a->log[i], b->log[i]));
	}
	assert_int_equal(b->committed, b->end - 1);
	assert_true(sh_members_equal(
		&sh_raft_members(raft_of(a))->members, &sh_raft_members(raft_of(b))->members));
}

/* Everything is passed on until this has happened so many times; the item that did it is kept. */
static struct hostbed_message *run_until(struct pair *pair, enum sh_message_type type, int times)
{
	for (int step = 0; step < 10000; step++) {
		for (int i = 0; i < 2; i++) {
			struct hostbed *bed = pair->both[i];
			struct hostbed_message *item = bed->sent;
			if (item == NULL) {
				hostbed_read(bed, RT_OK);
				hostbed_sync(bed);
				continue;
			}
			bed->sent = item->next;
			if (item->message.head.type == type && --times == 0) {
				return item;
			}
			assert_err(hostbed_pass(pair->both[1 - i], item), RT_OK);
			hostbed_drop(item);
		}
		if (step % 10 == 9) {
			hostbed_wait(pair->source, 50);
			hostbed_wait(pair->target, 50);
		}
	}
	fail_msg("never seen");
	return NULL;
}

static void a_new_member_gets_the_whole_shard(void **state)
{
	struct pair pair;
	struct sh_replica_stats stats;
	(void)state;
	pair_open(&pair);
	pass_time(&pair, 3000);
	assert_same(&pair);
	assert_int_equal(pair.target->installs_told, 1);
	assert_int_equal(pair.target->installed_first, 1);
	assert_true(pair.target->installed_last >= LAST);
	sh_replica_stats(pair.target->replica, &stats);
	assert_int_equal(stats.installs, 1);
	/* It goes on like everybody else. */
	hostbed_propose(pair.source, 100);
	pass_time(&pair, 300);
	assert_same(&pair);
	hostbed_crash(pair.target);
	hostbed_open(pair.target);
	assert_true(raft_of(pair.target)->floor >= LAST);
	assert_int_equal(raft_of(pair.target)->last, LAST + 2);
	hostbed_start(pair.target);
	pass_time(&pair, 300);
	assert_same(&pair);
	assert_int_equal(pair.target->installs_told, 1);
	pair_close(&pair);
}

static void nothing_is_asked_for_before_the_row_is_durable(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *install = run_until(&pair, SH_MSG_INSTALL, 1);
	hostbed_sync(pair.target);
	hostbed_forget(pair.target);
	assert_err(hostbed_pass(pair.target, install), RT_OK);
	hostbed_drop(install);
	hostbed_wait(pair.target, 2000);
	assert_int_equal(hostbed_count(pair.target, SH_MSG_FETCH), 0);
	hostbed_sync(pair.target);
	assert_int_equal(hostbed_count(pair.target, SH_MSG_FETCH), 1);
	pair_close(&pair);
}

/* What comes before the awaited write on the disk is not it. */
static void each_step_waits_for_its_own_write(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct sh_raft_message install = {
		.type = SH_MSG_INSTALL, .term = 7, .index = LAST, .log_term = 1, .round = 1};
	assert_err(hostbed_give(pair.target, 1, install, NULL), RT_OK); /* a term, a row */
	uint64_t row = sh_replica_written(pair.target->replica);
	hostbed_sync_to(pair.target, row - 1);
	assert_int_equal(hostbed_count(pair.target, SH_MSG_FETCH), 0);
	hostbed_sync_to(pair.target, row);
	assert_int_equal(hostbed_count(pair.target, SH_MSG_FETCH), 1);
	for (bool last = false; !last;) {
		struct hostbed_message *fetch = hostbed_take(pair.target, SH_MSG_FETCH);
		assert_err(hostbed_pass(pair.source, fetch), RT_OK);
		assert_true(hostbed_read(pair.source, RT_OK));
		struct hostbed_message *chunk = hostbed_take(pair.source, SH_MSG_CHUNK);
		last = (chunk->message.head.flags & SH_FLAG_LAST) != 0;
		assert_err(hostbed_pass(pair.target, chunk), RT_OK);
		uint64_t written = sh_replica_written(pair.target->replica);
		hostbed_sync_to(pair.target, written - 1);
		assert_int_equal(hostbed_count(pair.target, SH_MSG_FETCH), 0);
		assert_int_equal(pair.target->installs_told, 0);
		hostbed_sync_to(pair.target, written);
		assert_int_equal(pair.target->installs_told, last);
		hostbed_drop(fetch);
		hostbed_drop(chunk);
	}
	pair_close(&pair);
}

/* A crash after each chunk that becomes durable; and again at the same place. */
static void a_crash_in_the_middle_starts_over(void **state)
{
	(void)state;
	for (int times = 1; times <= 5; times++) {
		for (int lost = 0; lost < 2; lost++) {
			struct pair pair;
			pair_open(&pair);
			for (int twice = 0; twice < 2; twice++) {
				struct hostbed_message *chunk =
					run_until(&pair, SH_MSG_CHUNK, times);
				assert_err(hostbed_pass(pair.target, chunk), RT_OK);
				bool last = (chunk->message.head.flags & SH_FLAG_LAST) != 0;
				hostbed_drop(chunk);
				if (lost == 0) {
					hostbed_sync(pair.target);
				}
				hostbed_crash(pair.target);
				hostbed_open(pair.target);
				bool whole = last && lost == 0;
				assert_int_equal(raft_of(pair.target)->last > 0, whole);
				hostbed_start(pair.target);
				assert_int_equal(hostbed_last(pair.target) > 0, whole);
				if (whole) {
					break;
				}
			}
			pass_time(&pair, 4000);
			assert_same(&pair);
			pair_close(&pair);
		}
	}
}

/* They are in no entry: a leader that still has the first one sends all entries and no members. */
static void a_cut_off_install_keeps_the_first_members(void **state)
{
	struct hostbed *bed = hostbed_new(2, "1 2");
	struct sh_members first = hostbed_members("1 2");
	struct sh_raft_message install = {
		.type = SH_MSG_INSTALL, .term = 7, .index = LAST, .log_term = 1, .round = 1};
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	assert_err(hostbed_give(bed, 1, install, NULL), RT_OK);
	hostbed_sync(bed);
	bed->options.first = (struct sh_members){0}; /* of a new shard only */
	for (int i = 0; i < 3; i++) {
		hostbed_crash(bed);
		hostbed_open(bed);
		assert_int_equal(raft_of(bed)->last, 0);
		assert_true(sh_members_equal(&sh_raft_members(raft_of(bed))->members, &first));
		hostbed_start(bed);
		hostbed_sync(bed);
	}
	hostbed_free(bed);
}

static void lost_questions_and_answers_are_repeated(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	for (int i = 1; i <= 4; i++) {
		hostbed_drop(run_until(&pair, i % 2 == 0 ? SH_MSG_FETCH : SH_MSG_CHUNK, 2));
	}
	pass_time(&pair, 4000);
	assert_same(&pair);
	pair_close(&pair);
}

static void late_and_doubled_chunks_do_no_harm(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *first = run_until(&pair, SH_MSG_CHUNK, 1);
	assert_err(hostbed_pass(pair.target, first), RT_OK);
	assert_err(hostbed_pass(pair.target, first), RT_OK);
	struct hostbed_message *third = run_until(&pair, SH_MSG_CHUNK, 2);
	assert_err(hostbed_pass(pair.target, first), RT_OK);
	assert_err(hostbed_pass(pair.target, third), RT_OK);
	assert_err(hostbed_pass(pair.target, first), RT_OK);
	pass_time(&pair, 4000);
	assert_same(&pair);
	assert_int_equal(pair.target->first, 1);
	/* After a crash the answers to questions of before are not those of now. */
	hostbed_crash(pair.target);
	hostbed_open(pair.target);
	hostbed_start(pair.target);
	assert_err(hostbed_pass(pair.target, third), RT_OK);
	pass_time(&pair, 500);
	assert_same(&pair);
	hostbed_drop(first);
	hostbed_drop(third);
	pair_close(&pair);
}

/* A chunk of a question of before would open a hole, or make the log begin in the middle. */
static void a_chunk_that_was_not_asked_for_is_no_answer(void **state)
{
	struct pair pair;
	struct sh_replica_stats stats;
	(void)state;
	pair_open(&pair);
	hostbed_drop(run_until(&pair, SH_MSG_CHUNK, 1));
	struct hostbed_message *good = run_until(&pair, SH_MSG_CHUNK, 2);
	assert_true(good->message.head.index > 1);
	size_t ops = pair.target->op_count;
	struct hostbed_message bad = *good;
	bad.message.head.index += 3; /* a hole */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.head.index = 0;
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.head.index = UINT64_MAX - 3;
	bad.message.head.hint = bad.message.head.index;
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad = *good;
	bad.message.head.index--; /* again */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad = *good;
	bad.message.head.round++; /* another question */
	assert_err(hostbed_pass(pair.target, &bad), RT_OK);
	bad = *good;
	bad.message.head.from = 3; /* not asked */
	assert_err(hostbed_pass(pair.target, &bad), RT_OK);
	bad = *good;
	bad.message.head.flags = SH_FLAG_LAST; /* no members, no term */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.head.log_term = 1;
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.set.members = hostbed_members("1");
	bad.message.set.index = 10000;
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.set.index = 1;
	bad.message.head.log_term = 2; /* not that of the last record */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	bad.message.head.log_term = 1;
	bad.message.set.members = hostbed_members("1s 2s"); /* nobody votes */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	struct rt_bytes records[2] = {good->message.records[0], hostbed_record(1, 10)};
	bad = *good;
	bad.message.records = records;
	bad.message.head.count = 2;
	((uint8_t *)(uintptr_t)records[1].data)[0] = 0; /* damaged */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	free((void *)(uintptr_t)records[1].data);
	records[1] = hostbed_record(0, 10); /* no term */
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	free((void *)(uintptr_t)records[1].data);
	assert_int_equal(pair.target->op_count, ops);
	sh_replica_stats(pair.target->replica, &stats);
	assert_int_equal(stats.refused, 11);
	assert_err(hostbed_pass(pair.target, good), RT_OK);
	assert_true(pair.target->op_count > ops);
	hostbed_drop(good);
	pass_time(&pair, 3000);
	assert_same(&pair);
	pair_close(&pair);
}

static void a_shard_without_an_entry_is_no_end(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *good = run_until(&pair, SH_MSG_CHUNK, 1);
	struct hostbed_message bad = *good;
	bad.message.head.index = 1;
	bad.message.head.count = 0;
	bad.message.head.flags = SH_FLAG_LAST;
	bad.message.head.log_term = 1;
	bad.message.set.members = hostbed_members("1");
	assert_err(hostbed_pass(pair.target, &bad), RT_E_PROTO);
	assert_err(hostbed_pass(pair.target, good), RT_OK);
	hostbed_drop(good);
	pass_time(&pair, 3000);
	assert_same(&pair);
	pair_close(&pair);
}

/* A node that joins has records before it has the entry that names members. */
static void who_knows_no_members_gives_no_end(void **state)
{
	struct hostbed *bed = hostbed_new(2, "");
	struct rt_bytes records[2] = {hostbed_record(1, 10), hostbed_record(1, 10)};
	struct sh_raft_message head = {
		.type = SH_MSG_APPEND, .term = 1, .count = 2, .commit = 2, .round = 1, .stamp = 1};
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	assert_err(hostbed_give(bed, 1, head, records), RT_OK);
	hostbed_sync(bed);
	assert_int_equal(bed->committed, 2);
	assert_err(hostbed_give(bed, 3, fetch, NULL), RT_OK);
	assert_true(hostbed_read(bed, RT_OK));
	struct hostbed_message *chunk = hostbed_take(bed, SH_MSG_CHUNK);
	assert_non_null(chunk);
	assert_int_equal(chunk->message.head.count, 2);
	assert_int_equal(chunk->message.head.flags, 0);
	hostbed_drop(chunk);
	free((void *)(uintptr_t)records[0].data);
	free((void *)(uintptr_t)records[1].data);
	hostbed_free(bed);
}

/* The source's log lost its front while it was being fetched: from its new first on. */
static void a_source_that_was_trimmed_is_fetched_anew(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	hostbed_drop(run_until(&pair, SH_MSG_CHUNK, 2));
	pair.source->first = 40;
	pass_time(&pair, 4000);
	assert_same(&pair);
	assert_int_equal(pair.target->first, 40);
	assert_int_equal(pair.target->installed_first, 40);
	pair_close(&pair);
}

/* All of it: the end and its term are enough to go on from. */
static void a_source_without_records_gives_its_end(void **state)
{
	struct pair pair;
	struct hostbed_message *fetch;
	(void)state;
	pair_open(&pair);
	fetch = run_until(&pair, SH_MSG_FETCH, 1);
	struct sh_raft_message head = fetch->message.head;
	hostbed_forget(pair.source);
	head.index = LAST + 2; /* behind the end: there is nothing yet */
	assert_err(hostbed_give(pair.source, 2, head, NULL), RT_OK);
	struct hostbed_message *chunk = hostbed_take(pair.source, SH_MSG_CHUNK);
	assert_int_equal(chunk->message.head.count, 0);
	assert_int_equal(chunk->message.head.index, LAST + 2);
	assert_int_equal(chunk->message.head.flags, SH_FLAG_LAST);
	assert_int_equal(chunk->message.head.log_term, 1);
	assert_err(hostbed_pass(pair.target, chunk), RT_OK);
	hostbed_drop(chunk);
	hostbed_drop(fetch);
	hostbed_sync(pair.target);
	assert_int_equal(pair.target->installed_first, LAST + 2);
	assert_int_equal(pair.target->installed_last, LAST + 1);
	assert_int_equal(raft_of(pair.target)->floor, LAST + 1);
	hostbed_crash(pair.target);
	hostbed_open(pair.target);
	assert_int_equal(raft_of(pair.target)->floor, LAST + 1);
	hostbed_start(pair.target);
	hostbed_propose(pair.source, 100);
	pass_time(&pair, 1000);
	assert_same(&pair);
	/* Beyond what is known here: no answer. */
	head.index = LAST + 20;
	hostbed_forget(pair.source);
	assert_err(hostbed_give(pair.source, 2, head, NULL), RT_OK);
	assert_null(hostbed_take(pair.source, SH_MSG_CHUNK));
	assert_null(pair.source->reads);
	pair_close(&pair);
}

static void goes_on_from_another_source(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *chunk = run_until(&pair, SH_MSG_CHUNK, 2);
	/* Node 3 leads a newer term. */
	hostbed_forget(pair.target);
	struct sh_raft_message beat = {.type = SH_MSG_APPEND,
		.term = 5,
		.index = LAST,
		.log_term = 1,
		.round = 1,
		.stamp = 1};
	assert_err(hostbed_give(pair.target, 3, beat, NULL), RT_OK);
	hostbed_sync(pair.target);
	hostbed_wait(pair.target, 600);
	struct hostbed_message *fetch = hostbed_take(pair.target, SH_MSG_FETCH);
	while (fetch->message.head.to != 3) {
		hostbed_drop(fetch);
		fetch = hostbed_take(pair.target, SH_MSG_FETCH);
	}
	assert_int_equal(fetch->message.head.index, chunk->message.head.index);
	/* The old one's answer does not count any more; the new one has the same records. */
	size_t ops = pair.target->op_count;
	assert_err(hostbed_pass(pair.target, chunk), RT_OK);
	assert_int_equal(pair.target->op_count, ops);
	chunk->message.head.from = 3;
	chunk->message.head.round = fetch->message.head.round;
	assert_err(hostbed_pass(pair.target, chunk), RT_OK);
	assert_true(pair.target->op_count > ops);
	/* And while a write is under way it is the next question that goes to somebody else. */
	beat.term = 6;
	assert_err(hostbed_give(pair.target, 4, beat, NULL), RT_OK);
	hostbed_forget(pair.target);
	hostbed_sync(pair.target);
	hostbed_drop(fetch);
	fetch = hostbed_take(pair.target, SH_MSG_FETCH);
	assert_int_equal(fetch->message.head.to, 4);
	hostbed_drop(fetch);
	hostbed_drop(chunk);
	pair_close(&pair);
}

static void an_installing_replica_gives_nothing(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	hostbed_drop(run_until(&pair, SH_MSG_CHUNK, 3));
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	uint64_t floor;
	hostbed_forget(pair.target);
	assert_err(hostbed_give(pair.target, 3, fetch, NULL), RT_OK);
	assert_null(pair.target->reads);
	assert_null(pair.target->sent);
	assert_err(sh_replica_compact(pair.target->replica, 5, &floor), RT_E_AGAIN);
	pair_close(&pair);
}

/* It had much, fell far behind, and is behind the floor now. */
static void pair_open_late(struct pair *pair)
{
	uint64_t floor;
	pair_open(pair);
	pass_time(pair, 3000);
	assert_same(pair);
	for (int i = 0; i < 30; i++) {
		hostbed_propose(pair->source, 20000);
	}
	hostbed_sync(pair->source);
	hostbed_forget(pair->source);
	hostbed_wait(pair->source, 20000); /* nobody waits for it any more */
	hostbed_forget(pair->source);
	assert_err(sh_replica_compact(pair->source->replica, LAST + 20, &floor), RT_OK);
	assert_int_equal(floor, LAST + 20);
	hostbed_sync(pair->source);
}

static void a_member_that_fell_behind_the_floor_is_installed_anew(void **state)
{
	struct pair pair;
	(void)state;
	pair_open_late(&pair);
	struct hostbed_message *chunk = run_until(&pair, SH_MSG_CHUNK, 2);
	/* What it was told of stays told; what it had is gone: it gives nothing away. */
	assert_int_equal(pair.target->committed, LAST + 1);
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	hostbed_forget(pair.target);
	assert_err(hostbed_give(pair.target, 3, fetch, NULL), RT_OK);
	assert_null(pair.target->reads);
	assert_null(pair.target->sent);
	hostbed_drop(chunk);
	pass_time(&pair, 4000);
	assert_same(&pair);
	assert_int_equal(pair.target->installs_told, 2);
	pair_close(&pair);
}

static void an_end_below_what_was_told_is_none(void **state)
{
	struct pair pair;
	(void)state;
	pair_open_late(&pair);
	struct hostbed_message *chunk = run_until(&pair, SH_MSG_CHUNK, 1);
	struct hostbed_message early = *chunk;
	early.message.head.flags = SH_FLAG_LAST;
	early.message.head.log_term = 1;
	early.message.set.members = hostbed_members("1");
	assert_err(hostbed_pass(pair.target, &early), RT_OK);
	hostbed_sync(pair.target);
	assert_int_equal(pair.target->installs_told, 1);
	hostbed_drop(chunk);
	pass_time(&pair, 4000);
	assert_same(&pair);
	pair_close(&pair);
}

static void compaction_holds_while_a_peer_fetches(void **state)
{
	struct pair pair;
	uint64_t floor = 99;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *chunk = run_until(&pair, SH_MSG_CHUNK, 3);
	assert_err(sh_replica_compact(pair.source->replica, LAST, &floor), RT_OK);
	assert_int_equal(floor, 0);
	/* It is a member no more, but still fetches. */
	struct sh_members alone = hostbed_members("1");
	uint64_t index;
	assert_err(sh_replica_propose_members(pair.source->replica, &alone, &index), RT_OK);
	hostbed_sync(pair.source);
	assert_err(sh_replica_compact(pair.source->replica, LAST, &floor), RT_OK);
	assert_int_equal(floor, chunk->message.head.index - 1);
	hostbed_drop(chunk);
	/* Nobody is waited for forever. */
	pair.source->now += 20000;
	assert_err(sh_replica_tick(pair.source->replica, pair.source->now), RT_OK);
	assert_err(sh_replica_compact(pair.source->replica, 1000, &floor), RT_OK);
	assert_int_equal(floor, index);
	pair_close(&pair);
}

static void a_source_that_cannot_read_is_asked_again(void **state)
{
	struct pair pair;
	(void)state;
	pair_open(&pair);
	struct hostbed_message *fetch = run_until(&pair, SH_MSG_FETCH, 2);
	hostbed_forget(pair.source);
	pair.source->read_full = true;
	assert_err(hostbed_pass(pair.source, fetch), RT_OK);
	assert_null(pair.source->reads);
	pair.source->read_full = false;
	assert_err(hostbed_pass(pair.source, fetch), RT_OK);
	assert_err(hostbed_pass(pair.source, fetch), RT_OK); /* one read, not two */
	assert_true(hostbed_read(pair.source, RT_E_IO));
	assert_false(hostbed_read(pair.source, RT_OK));
	assert_null(hostbed_take(pair.source, SH_MSG_CHUNK));
	hostbed_drop(fetch);
	pass_time(&pair, 3000);
	assert_same(&pair);
	pair_close(&pair);
}

/* Every write of the way fails once. */
static void a_refused_write_ends_it(void **state)
{
	(void)state;
	for (uint32_t n = 1;; n++) {
		struct pair pair;
		bool ended = false;
		pair_open(&pair);
		pair.target->write_fails = n;
		for (int step = 0; step < 400 && !ended; step++) {
			hostbed_wait(pair.source, 50);
			hostbed_sync(pair.source);
			while (hostbed_read(pair.source, RT_OK)) {
			}
			pair.target->now += 50;
			ended = sh_replica_tick(pair.target->replica, pair.target->now) ==
				RT_E_CLOSED;
			while (!ended && pair.source->sent != NULL) {
				struct hostbed_message *item = pair.source->sent;
				pair.source->sent = item->next;
				ended = hostbed_pass(pair.target, item) == RT_E_CLOSED;
				hostbed_drop(item);
			}
			while (!ended &&
				sh_replica_written(pair.target->replica) > pair.target->durable) {
				hostbed_sync(pair.target);
			}
			for (struct hostbed_message *item; (item = pair.target->sent) != NULL;) {
				pair.target->sent = item->next;
				assert_err(hostbed_pass(pair.source, item), RT_OK);
				hostbed_drop(item);
			}
			if (pair.target->committed > LAST && pair.target->write_fails > 0) {
				break;
			}
		}
		assert_int_equal(ended, pair.target->write_fails == 0);
		/* Whatever was durable, it opens and gets there. */
		hostbed_crash(pair.target);
		hostbed_open(pair.target);
		hostbed_start(pair.target);
		pass_time(&pair, 4000);
		assert_same(&pair);
		pair_close(&pair);
		if (!ended) {
			assert_true(n > LAST);
			return;
		}
		n += n > 5 && n < LAST ? 7 : 0;
	}
}

/* ---- tombstones ---- */
static void a_removed_replica_leaves_a_tombstone_and_can_be_renewed(void **state)
{
	struct pair pair;
	uint64_t index;
	struct sh_members voters = hostbed_members("1 2");
	struct sh_members alone = hostbed_members("1");
	(void)state;
	pair_open(&pair);
	pass_time(&pair, 3000);
	assert_err(sh_replica_propose_members(pair.source->replica, &voters, &index), RT_OK);
	pass_time(&pair, 500);
	assert_same(&pair);
	assert_err(sh_replica_renew(pair.target->replica, pair.target->now), RT_E_INVAL);
	/* The voter is cut off, removed meanwhile by the leader that needs its answer no more. */
	assert_err(sh_replica_propose_members(pair.source->replica, &alone, &index), RT_OK);
	hostbed_forget(pair.source);
	hostbed_sync(pair.source);
	hostbed_forget(pair.source);
	for (int i = 0; i < 200 && !sh_replica_removed(pair.target->replica); i++) {
		hostbed_wait(pair.target, 50);
		hostbed_wait(pair.source, 50);
		for (struct hostbed_message *item; (item = pair.target->sent) != NULL;) {
			pair.target->sent = item->next;
			assert_err(hostbed_pass(pair.source, item), RT_OK);
			hostbed_drop(item);
		}
		struct hostbed_message *word = hostbed_take(pair.source, SH_MSG_REMOVED);
		if (word != NULL) {
			assert_err(hostbed_pass(pair.target, word), RT_OK);
			hostbed_drop(word);
		}
		hostbed_forget(pair.source);
	}
	assert_true(sh_replica_removed(pair.target->replica));
	assert_false(pair.target->removed); /* said when it is for good */
	assert_err(sh_replica_renew(pair.target->replica, pair.target->now), RT_E_INVAL);
	hostbed_sync(pair.target);
	assert_true(pair.target->removed);
	assert_int_equal(sh_members_find(&pair.target->members.members, 2), -1);
	hostbed_crash(pair.target);
	hostbed_open(pair.target);
	assert_true(sh_replica_removed(pair.target->replica));
	hostbed_start(pair.target);
	size_t ops = pair.target->op_count;
	struct sh_raft_message vote = {.type = SH_MSG_VOTE, .term = 50, .round = 1};
	assert_err(hostbed_give(pair.target, 1, vote, NULL), RT_OK);
	assert_err(sh_replica_tick(pair.target->replica, pair.target->now + 9000), RT_OK);
	assert_err(sh_replica_propose_members(pair.target->replica, &voters, &index), RT_E_FENCED);
	assert_err(sh_replica_linearize(pair.target->replica, 0, NULL), RT_E_FENCED);
	assert_err(sh_replica_compact(pair.target->replica, 1, &index), RT_E_AGAIN);
	assert_null(pair.target->sent);
	assert_int_equal(pair.target->op_count, ops);
	/* Added again. */
	uint64_t term = raft_of(pair.target)->term;
	assert_err(sh_replica_renew(pair.target->replica, pair.target->now + 9000), RT_OK);
	pair.target->now += 9000;
	assert_int_equal(raft_of(pair.target)->term, term);
	assert_int_equal(pair.target->first, pair.target->end);
	hostbed_sync(pair.target);
	voters = hostbed_members("1 2s");
	assert_err(sh_replica_propose_members(pair.source->replica, &voters, &index), RT_OK);
	pass_time(&pair, 4000);
	assert_same(&pair);
	pair_close(&pair);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_member_gets_the_whole_shard),
		cmocka_unit_test(nothing_is_asked_for_before_the_row_is_durable),
		cmocka_unit_test(each_step_waits_for_its_own_write),
		cmocka_unit_test(a_crash_in_the_middle_starts_over),
		cmocka_unit_test(a_cut_off_install_keeps_the_first_members),
		cmocka_unit_test(lost_questions_and_answers_are_repeated),
		cmocka_unit_test(late_and_doubled_chunks_do_no_harm),
		cmocka_unit_test(a_chunk_that_was_not_asked_for_is_no_answer),
		cmocka_unit_test(a_shard_without_an_entry_is_no_end),
		cmocka_unit_test(who_knows_no_members_gives_no_end),
		cmocka_unit_test(a_source_that_was_trimmed_is_fetched_anew),
		cmocka_unit_test(a_source_without_records_gives_its_end),
		cmocka_unit_test(goes_on_from_another_source),
		cmocka_unit_test(an_installing_replica_gives_nothing),
		cmocka_unit_test(a_member_that_fell_behind_the_floor_is_installed_anew),
		cmocka_unit_test(an_end_below_what_was_told_is_none),
		cmocka_unit_test(compaction_holds_while_a_peer_fetches),
		cmocka_unit_test(a_source_that_cannot_read_is_asked_again),
		cmocka_unit_test(a_refused_write_ends_it),
		cmocka_unit_test(a_removed_replica_leaves_a_tombstone_and_can_be_renewed),
	};
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]); /* one, by name */
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
