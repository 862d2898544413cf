/* The schedules in which disk and host have a part: crashes at every write, installs under load.
 * The core's own are in test_raft_schedules.c. */
#include <string.h>

#include "persistence/record.h"
#include "sharding/mark.h"
#include "tests/support/hostbed.h"

struct trio {
	struct hostbed *bed[4]; /* the last one ends the list */
	uint64_t voted[64];     /* by term: whom node 2 gave its vote */
	uint64_t acknowledged;  /* the most that node 2 ever said is stored, of the newest term */
};

static const struct sh_raft *raft_of(const struct hostbed *bed)
{
	return sh_replica_raft(bed->replica);
}

static void trio_open(struct trio *trio)
{
	memset(trio, 0, sizeof(*trio));
	for (uint64_t i = 0; i < 3; i++) {
		trio->bed[i] = hostbed_new(i + 1, "1 2 3");
		hostbed_open(trio->bed[i]);
		hostbed_start(trio->bed[i]);
		hostbed_sync(trio->bed[i]);
	}
}

static void trio_close(struct trio *trio)
{
	for (int i = 0; i < 3; i++) {
		hostbed_free(trio->bed[i]);
	}
}

/* A term has one vote, whatever crashed in between; an entry that node 2 called stored is. */
static void hear(struct trio *trio, const struct sh_raft_message *head)
{
	bool granted = head->type == SH_MSG_VOTE_RESULT && head->flags == SH_FLAG_GRANTED;
	if (head->from != 2) {
		return;
	}
	if (granted) {
		assert_true(head->term < 64);
		assert_true(trio->voted[head->term] == 0 || trio->voted[head->term] == head->to);
		trio->voted[head->term] = head->to;
	}
	if (head->type == SH_MSG_APPEND_RESULT && head->flags == 0) {
		trio->acknowledged =
			head->index > trio->acknowledged ? head->index : trio->acknowledged;
	}
}

static bool pass_one(struct trio *trio, struct hostbed *from)
{
	struct hostbed_message *item = from->sent;
	if (item == NULL) {
		return false;
	}
	from->sent = item->next;
	hear(trio, &item->message.head);
	assert_err(hostbed_pass(trio->bed[item->message.head.to - 1], item), RT_OK);
	hostbed_drop(item);
	return true;
}

/* Everybody's disk is fast, but for node 2's, which does `writes` more and then hangs. */
static void pass_all(struct trio *trio, uint64_t writes)
{
	for (bool busy = true; busy;) {
		busy = false;
		for (int i = 0; i < 3; i++) {
			struct hostbed *bed = trio->bed[i];
			uint64_t upto = sh_replica_written(bed->replica);
			if (i == 1 && upto > writes) {
				upto = writes;
			}
			if (bed->durable < bed->base + upto) {
				hostbed_sync_to(bed, upto);
				busy = true;
			}
			busy = hostbed_read(bed, RT_OK) || pass_one(trio, bed) || busy;
		}
	}
}

static void pass_time(struct trio *trio, uint64_t ms, uint64_t writes)
{
	for (uint64_t at = 0; at < ms; at += 50) {
		for (int i = 0; i < 3; i++) {
			hostbed_wait(trio->bed[i], 50);
		}
		pass_all(trio, writes);
	}
}

static struct hostbed *leader(struct trio *trio)
{
	for (int i = 0; i < 3; i++) {
		if (trio->bed[i]->leads) {
			return trio->bed[i];
		}
	}
	return NULL;
}

static void converge(struct trio *trio)
{
	pass_time(trio, 4000, UINT64_MAX);
	assert_non_null(leader(trio));
	hostbed_propose(leader(trio), 10);
	pass_time(trio, 1000, UINT64_MAX);
	const struct hostbed *first = trio->bed[0];
	for (int i = 1; i < 3; i++) {
		const struct hostbed *bed = trio->bed[i];
		assert_int_equal(bed->end, first->end);
		assert_int_equal(bed->committed, bed->end - 1);
		for (uint64_t at = 1; at < bed->end; at++) {
			assert_true(rt_bytes_equal(bed->log[at], first->log[at]));
		}
	}
}

static void remembers_its_votes(const struct trio *trio)
{
	const struct sh_raft *raft = raft_of(trio->bed[1]);
	for (uint64_t term = 1; term < 64; term++) {
		uint64_t vote = trio->voted[term];
		assert_true(vote == 0 || raft->term > term ||
			    (raft->term == term && raft->vote == vote));
	}
}

/* An election, entries, another election, more of them; node 2 loses all but its first `keep`
 * writes, comes back, and loses all but `keep` more. True: it had time to vote and to store. */
static bool crash_after(uint64_t keep)
{
	struct trio trio;
	trio_open(&trio);
	for (int twice = 0; twice < 2; twice++) {
		uint64_t writes = sh_replica_written(trio.bed[1]->replica) + keep;
		pass_time(&trio, 2500, writes);
		for (int i = 0; i < 3 && leader(&trio) != NULL; i++) {
			hostbed_propose(leader(&trio), 100);
			pass_time(&trio, 100, writes);
		}
		uint64_t stored = trio.acknowledged;
		hostbed_crash(trio.bed[1]);
		hostbed_open(trio.bed[1]);
		assert_true(raft_of(trio.bed[1])->last >= stored);
		remembers_its_votes(&trio);
		hostbed_start(trio.bed[1]);
	}
	bool enough = trio.voted[1] != 0 && trio.acknowledged >= 7;
	converge(&trio);
	trio_close(&trio);
	return enough;
}

static void a_crash_after_any_write_breaks_no_promise(void **state)
{
	(void)state;
	bool enough = false;
	for (uint64_t keep = 0; keep < 16; keep++) {
		enough = crash_after(keep);
	}
	assert_true(enough);
}

/* ---- installs ---- */

struct pair {
	struct hostbed *source, *target;
};

/* Node 1 alone with a log that nobody can tell the terms of; node 2 was just added. */
static void pair_open(struct pair *pair, uint64_t last)
{
	struct sh_members members = hostbed_members("1 2s");
	uint64_t index, floor;
	pair->source = hostbed_leader("1");
	while (hostbed_last(pair->source) < last) {
		hostbed_propose(pair->source, 20000);
		hostbed_sync(pair->source);
	}
	assert_err(sh_replica_compact(pair->source->replica, last, &floor), RT_OK);
	assert_err(sh_replica_propose_members(pair->source->replica, &members, &index), RT_OK);
	hostbed_sync(pair->source);
	pair->target = hostbed_new(2, "");
	hostbed_open(pair->target);
	hostbed_start(pair->target);
	hostbed_sync(pair->target);
}

static void give_all(struct hostbed *from, struct hostbed *to)
{
	while (from->sent != NULL) {
		struct hostbed_message *item = from->sent;
		from->sent = item->next;
		assert_err(hostbed_pass(to, item), RT_OK);
		hostbed_drop(item);
	}
}

/* Trims what it may, as soon as it may: the log begins behind the floor. */
static void trim(struct hostbed *bed)
{
	uint64_t floor = 0;
	rt_err err = sh_replica_compact(bed->replica, bed->committed, &floor);
	assert_true(err == RT_OK || err == RT_E_AGAIN);
	hostbed_sync(bed);
	if (err == RT_OK && floor + 1 > bed->first && floor < bed->end) {
		bed->first = floor + 1;
	}
}

static void an_install_ends_although_the_source_trims_under_load(void **state)
{
	(void)state;
	struct pair pair;
	pair_open(&pair, 60);
	for (int step = 0; step < 400; step++) {
		if (step < 200) {
			hostbed_propose(pair.source, 2000);
		}
		hostbed_sync(pair.source);
		trim(pair.source);
		hostbed_wait(pair.source, 20);
		hostbed_wait(pair.target, 20);
		hostbed_read(pair.source, RT_OK);
		give_all(pair.source, pair.target);
		if (step % 3 == 0) { /* its disk is slow */
			hostbed_sync(pair.target);
		}
		give_all(pair.target, pair.source);
	}
	assert_int_equal(pair.target->installs_told, 1);
	assert_int_equal(pair.target->end, pair.source->end);
	assert_in_range(pair.source->first, 1, 70); /* who fetches is waited for a while */
	hostbed_wait(pair.source, 20000);
	trim(pair.source);
	assert_true(pair.source->first > 200);
	for (uint64_t i = pair.source->first; i < pair.source->end; i++) {
		assert_true(rt_bytes_equal(pair.source->log[i], pair.target->log[i]));
	}
	hostbed_free(pair.source);
	hostbed_free(pair.target);
}

/* The last chunk and the row that says so are one; half of it is nothing. */
static void an_install_counts_when_the_last_of_its_writes_is_durable(void **state)
{
	(void)state;
	struct pair pair;
	pair_open(&pair, 60);
	struct hostbed *target = pair.target;
	for (int step = 0; step < 400; step++) {
		hostbed_sync(pair.source);
		hostbed_wait(pair.source, 20);
		hostbed_wait(target, 20);
		hostbed_read(pair.source, RT_OK);
		give_all(pair.source, target);
		uint64_t written = sh_replica_written(target->replica);
		while (target->durable < target->base + written) {
			bool before = raft_of(target)->installing;
			hostbed_sync_to(target, target->durable - target->base + 1);
			bool all = target->durable == target->base + written;
			assert_true(all || before == raft_of(target)->installing);
			assert_true(all || !before || target->installs_told == 0);
		}
		give_all(target, pair.source);
	}
	assert_int_equal(target->installs_told, 1);
	assert_int_equal(target->committed, target->end - 1);
	hostbed_free(pair.source);
	hostbed_free(pair.target);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_crash_after_any_write_breaks_no_promise),
		cmocka_unit_test(an_install_ends_although_the_source_trims_under_load),
		cmocka_unit_test(an_install_counts_when_the_last_of_its_writes_is_durable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
