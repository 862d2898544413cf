/* How a replica ends: a write failed, and from then on nothing leaves. */
#include <stdlib.h>

#include "tests/support/hostbed.h"

/* Node 1 as leader of a term says: entries after index. terms[i] of each, ends with 0. */
static rt_err append(struct hostbed *bed, uint64_t term, uint64_t index, uint64_t log_term,
	const uint64_t *terms, uint64_t commit)
{
	struct rt_bytes records[16] = {{0}};
	uint32_t count = 0;
	for (; terms != NULL && terms[count] != 0; count++) {
		records[count] = hostbed_record(terms[count], 20);
	}
	struct sh_raft_message head = {.type = SH_MSG_APPEND,
		.term = term,
		.index = index,
		.log_term = log_term,
		.commit = commit,
		.count = count,
		.round = 1,
		.stamp = 1};
	rt_err err = hostbed_give(bed, 1, head, records);
	for (uint32_t i = 0; i < count; i++) {
		free((void *)(uintptr_t)records[i].data);
	}
	return err;
}

static void assert_silent(struct hostbed *bed)
{
	uint64_t out;
	struct sh_members members = hostbed_members("1 2 3 4s");
	struct sh_raft_message head = {.type = SH_MSG_VOTE, .term = 99, .round = 1};
	hostbed_forget(bed);
	size_t ops = bed->op_count;
	assert_err(sh_replica_tick(bed->replica, bed->now + 9000), RT_E_CLOSED);
	assert_err(hostbed_give(bed, 3, head, NULL), RT_E_CLOSED);
	assert_err(hostbed_try_propose(bed, 1, 1, &out), RT_E_CLOSED);
	assert_err(sh_replica_propose_members(bed->replica, &members, &out), RT_E_CLOSED);
	assert_err(sh_replica_transfer(bed->replica, bed->now, 2), RT_E_CLOSED);
	assert_err(sh_replica_linearize(bed->replica, bed->now, NULL), RT_E_CLOSED);
	assert_err(sh_replica_durable(bed->replica, bed->now, sh_replica_written(bed->replica)),
		RT_E_CLOSED);
	assert_err(sh_replica_read_done(bed->replica, bed->now, NULL, RT_OK, NULL, 0), RT_E_CLOSED);
	assert_err(sh_replica_compact(bed->replica, 1, &out), RT_E_CLOSED);
	assert_err(sh_replica_renew(bed->replica, bed->now), RT_E_CLOSED);
	assert_true(sh_replica_next_timeout(bed->replica) == UINT64_MAX);
	assert_null(bed->sent);
	assert_int_equal(bed->op_count, ops);
	sh_replica_fail(bed->replica);
}

static void nothing_leaves_after_a_failed_write(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	hostbed_propose(bed, 10);
	hostbed_ack(bed, 2, 1);
	hostbed_wait(bed, 2000); /* no quorum: no leader, no lease */
	sh_replica_fail(bed->replica);
	assert_silent(bed);
	hostbed_free(bed);
}

static void waiting_reads_learn_of_the_end(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	hostbed_wait(bed, 600); /* the lease is over */
	assert_err(sh_replica_linearize(bed->replica, bed->now, bed), RT_OK);
	assert_int_equal(bed->readable_count, 0);
	sh_replica_fail(bed->replica);
	assert_int_equal(bed->readable_count, 1);
	assert_err(bed->readable_err, RT_E_UNKNOWN);
	assert_silent(bed);
	hostbed_free(bed);
}

/* Whichever write of whichever input it is. */
static void a_refused_write_ends_the_replica(void **state)
{
	const uint64_t terms[] = {3, 3, 0};
	const uint64_t new[] = {4, 4, 0};
	(void)state;
	for (uint32_t n = 1; n <= 20; n++) {
		struct hostbed *bed = hostbed_new(2, "1 2 3");
		bed->options.mark_every = 1;
		hostbed_open(bed);
		bed->write_fails = n;
		rt_err err = sh_replica_start(bed->replica, bed->now);
		if (err == RT_OK) {
			err = append(bed, 3, 0, 0, terms, 1);
		}
		if (err == RT_OK) {
			hostbed_sync(bed);
			err = append(bed, 4, 1, 3, new, 1);
		}
		if (err == RT_OK) {
			hostbed_sync(bed);
			err = append(bed, 4, 3, 4, new, 3);
		}
		assert_true((err == RT_E_CLOSED) == (bed->write_fails == 0));
		if (err == RT_E_CLOSED) {
			assert_silent(bed);
		}
		bool all = err == RT_OK;
		hostbed_free(bed);
		if (all) {
			assert_true(n > 8);
			return;
		}
	}
	fail();
}

static void rare_writes_end_it_too(void **state)
{
	uint64_t floor;
	struct hostbed *bed = hostbed_leader("1");
	(void)state;
	bed->write_fails = 1;
	assert_err(sh_replica_compact(bed->replica, 1, &floor), RT_E_CLOSED);
	assert_silent(bed);
	hostbed_free(bed);
	/* The mark of a new leader. */
	bed = hostbed_new(1, "1");
	bed->options.mark_every = 2;
	hostbed_open(bed);
	hostbed_start(bed);
	bed->write_fails = 1;
	hostbed_sync_to(bed, sh_replica_written(bed->replica));
	assert_silent(bed);
	hostbed_free(bed);
	/* A tombstone that is lifted. */
	struct sh_members others = hostbed_members("2 3");
	for (uint32_t n = 1; n <= 2; n++) {
		bed = hostbed_leader("1 2 3");
		assert_err(sh_replica_propose_members(bed->replica, &others, &floor), RT_OK);
		hostbed_ack(bed, 2, floor);
		hostbed_ack(bed, 3, floor);
		hostbed_sync(bed);
		assert_true(bed->removed);
		bed->write_fails = n;
		assert_err(sh_replica_renew(bed->replica, bed->now), RT_E_CLOSED);
		assert_silent(bed);
		hostbed_free(bed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_leaves_after_a_failed_write),
		cmocka_unit_test(waiting_reads_learn_of_the_end),
		cmocka_unit_test(a_refused_write_ends_the_replica),
		cmocka_unit_test(rare_writes_end_it_too),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
