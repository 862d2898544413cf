/* The side of an install that gives. */
#include <stdlib.h>

#include "tests/support/hostbed.h"

static void two_may_fetch_at_once(void **state)
{
	struct hostbed *bed = hostbed_leader("1");
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	struct sh_replica_stats before;
	struct sh_replica_stats after;
	(void)state;
	sh_replica_stats(bed->replica, &before);
	assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK);
	fetch.round = 10;
	assert_err(hostbed_give(bed, 3, fetch, NULL), RT_OK);
	fetch.round = 11;
	assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK); /* a read for it is under way */
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes > before.memory_bytes);
	assert_true(hostbed_read(bed, RT_OK));
	assert_true(hostbed_read(bed, RT_OK));
	assert_null(bed->reads);
	for (uint64_t node = 2; node <= 3; node++) {
		struct hostbed_message *chunk = hostbed_take(bed, SH_MSG_CHUNK);
		assert_int_equal(chunk->message.head.to, node);
		assert_int_equal(chunk->message.head.round, node + 7);
		assert_int_equal(chunk->message.head.count, 1);
		hostbed_drop(chunk);
	}
	/* But not any number. */
	for (uint64_t node = 4; node < 100; node++) {
		assert_err(hostbed_give(bed, node, fetch, NULL), RT_OK);
	}
	uint32_t reads = 0;
	while (hostbed_read(bed, RT_OK)) {
		reads++;
	}
	assert_int_equal(reads, 14);
	bed->now += 20000;
	assert_err(sh_replica_tick(bed->replica, bed->now), RT_OK);
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes <= before.memory_bytes);
	hostbed_free(bed);
}

/* What was read for a question of before it was removed is no answer to one of afterwards. */
static void an_answer_of_before_a_renewal_meets_nobody(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	struct sh_members others = hostbed_members("2 3");
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	struct sh_raft_message append = {
		.type = SH_MSG_APPEND, .term = 5, .commit = 2, .count = 2, .round = 1, .stamp = 1};
	struct rt_bytes records[2] = {hostbed_record(5, 10), hostbed_record(5, 10)};
	uint64_t index;
	(void)state;
	assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK);
	struct hostbed_read *old = bed->reads;
	bed->reads = NULL;
	assert_err(sh_replica_propose_members(bed->replica, &others, &index), RT_OK);
	hostbed_ack(bed, 2, index);
	hostbed_ack(bed, 3, index);
	hostbed_sync(bed);
	assert_true(bed->removed);
	assert_err(sh_replica_renew(bed->replica, bed->now), RT_OK);
	hostbed_sync(bed);
	bed->committed = 0;
	assert_err(hostbed_give(bed, 2, append, records), RT_OK);
	hostbed_sync(bed);
	assert_int_equal(bed->committed, 2);
	assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK);
	assert_non_null(bed->reads);
	assert_err(
		sh_replica_read_done(bed->replica, bed->now, old->read.ticket, RT_OK, records, 1),
		RT_OK);
	assert_null(hostbed_take(bed, SH_MSG_CHUNK));
	assert_true(hostbed_read(bed, RT_OK));
	struct hostbed_message *chunk = hostbed_take(bed, SH_MSG_CHUNK);
	assert_int_equal(chunk->message.head.count, 2);
	hostbed_drop(chunk);
	free(old);
	free((void *)(uintptr_t)records[0].data);
	free((void *)(uintptr_t)records[1].data);
	hostbed_free(bed);
}

/* Who installs may be the one that its commits wait for. */
static void a_leader_gives_what_the_other_knows_to_be_committed(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	struct sh_raft_message fetch = {.type = SH_MSG_FETCH, .term = 1, .round = 9};
	(void)state;
	uint64_t index = hostbed_propose(bed, 10);
	hostbed_propose(bed, 10);
	hostbed_sync(bed);
	hostbed_propose(bed, 10);
	assert_int_equal(bed->committed, index - 1);
	const uint64_t commits[] = {0, index, 1000};
	const uint64_t given[] = {index - 1, index, index + 1}; /* no more than is durable */
	for (int i = 0; i < 3; i++) {
		fetch.commit = commits[i];
		assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK);
		assert_true(hostbed_read(bed, RT_OK));
		struct hostbed_message *chunk = hostbed_take(bed, SH_MSG_CHUNK);
		assert_int_equal(chunk->message.head.index, 1);
		assert_int_equal(chunk->message.head.count, given[i]);
		assert_int_equal(chunk->message.head.flags, SH_FLAG_LAST);
		hostbed_drop(chunk);
	}
	/* Nobody else does: what it has above may not be what is committed. */
	struct sh_raft_message beat = {.type = SH_MSG_APPEND,
		.term = 9,
		.index = 1,
		.log_term = 1,
		.round = 1,
		.stamp = 1};
	assert_err(hostbed_give(bed, 3, beat, NULL), RT_OK);
	hostbed_sync(bed);
	assert_err(hostbed_give(bed, 2, fetch, NULL), RT_OK);
	assert_true(hostbed_read(bed, RT_OK));
	struct hostbed_message *chunk = hostbed_take(bed, SH_MSG_CHUNK);
	assert_int_equal(chunk->message.head.count, index - 1);
	hostbed_drop(chunk);
	hostbed_free(bed);
}

/* They come with the end, and are kept for the next time. */
static void the_first_members_are_learnt_from_an_install(void **state)
{
	struct hostbed *beds[3] = {hostbed_leader("1 2s"), hostbed_new(2, ""), NULL};
	struct hostbed *target = beds[1];
	struct sh_members first = hostbed_members("1 2s");
	struct sh_raft_message install = {
		.type = SH_MSG_INSTALL, .term = 7, .index = 90, .log_term = 7, .round = 1};
	uint64_t floor;
	(void)state;
	for (int i = 0; i < 20; i++) {
		hostbed_propose(beds[0], 10);
	}
	hostbed_sync(beds[0]);
	assert_err(sh_replica_compact(beds[0]->replica, 20, &floor), RT_OK);
	hostbed_open(target);
	hostbed_start(target);
	for (int i = 0; i < 60; i++) {
		hostbed_wait(beds[0], 50);
		hostbed_wait(target, 50);
		hostbed_run(beds);
	}
	assert_int_equal(target->installs_told, 1);
	assert_int_equal(target->committed, 21);
	assert_err(hostbed_give(target, 3, install, NULL), RT_OK);
	hostbed_sync(target);
	hostbed_crash(target);
	hostbed_open(target);
	const struct sh_raft_set *set = sh_raft_members(sh_replica_raft(target->replica));
	assert_int_equal(set->index, 0);
	assert_true(sh_members_equal(&set->members, &first));
	hostbed_free(beds[0]);
	hostbed_free(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_may_fetch_at_once),
		cmocka_unit_test(a_leader_gives_what_the_other_knows_to_be_committed),
		cmocka_unit_test(the_first_members_are_learnt_from_an_install),
		cmocka_unit_test(an_answer_of_before_a_renewal_meets_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
