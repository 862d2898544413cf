/* Linearizable reads through the host. */
#include <stdlib.h>

#include "tests/support/hostbed.h"

static const struct sh_raft *raft_of(const struct hostbed *bed)
{
	return sh_replica_raft(bed->replica);
}

static void *ticket(uintptr_t i)
{
	return (void *)i;
}

static rt_err ask(struct hostbed *bed, uintptr_t i)
{
	return sh_replica_linearize(bed->replica, bed->now, ticket(i));
}

/* A leader whose lease ran out, but that is still heard. */
static struct hostbed *without_lease(void)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	hostbed_ack(bed, 2, 1);
	hostbed_ack(bed, 3, 1);
	hostbed_sync(bed);
	bed->now += 600;
	assert_false(sh_raft_lease(raft_of(bed), bed->now));
	hostbed_forget(bed);
	return bed;
}

static void a_sole_voter_answers_at_once(void **state)
{
	struct hostbed *bed = hostbed_leader("1");
	(void)state;
	assert_err(ask(bed, 1), RT_OK);
	assert_int_equal(bed->readable_count, 1);
	assert_err(bed->readable_err, RT_OK);
	assert_int_equal(bed->readable_index, 1);
	hostbed_free(bed);
}

static void a_lease_answers_at_once(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	hostbed_ack(bed, 2, 1);
	assert_true(sh_raft_lease(raft_of(bed), bed->now));
	assert_err(ask(bed, 1), RT_OK);
	assert_int_equal(bed->readable_count, 1);
	assert_ptr_equal(bed->readable_ticket, ticket(1));
	hostbed_free(bed);
}

static void one_round_serves_all_that_wait(void **state)
{
	struct hostbed *bed = without_lease();
	(void)state;
	assert_err(ask(bed, 1), RT_OK);
	assert_int_equal(hostbed_count(bed, SH_MSG_APPEND), 2);
	uint64_t round = raft_of(bed)->round;
	for (uintptr_t i = 2; i <= 500; i++) {
		assert_err(ask(bed, i), RT_OK);
	}
	assert_int_equal(raft_of(bed)->round, round);
	assert_int_equal(bed->readable_count, 0);
	/* The round confirms only what was asked for before it began. */
	hostbed_ack(bed, 3, 1);
	assert_int_equal(bed->readable_count, 1);
	assert_ptr_equal(bed->readable_ticket, ticket(1));
	assert_int_equal(raft_of(bed)->round, round + 1);
	hostbed_ack(bed, 3, 1);
	assert_int_equal(bed->readable_count, 500);
	assert_ptr_equal(bed->readable_ticket, ticket(500));
	hostbed_free(bed);
}

static void a_heartbeat_repeats_a_lost_round(void **state)
{
	struct hostbed *bed = without_lease();
	(void)state;
	assert_err(ask(bed, 1), RT_OK);
	hostbed_forget(bed);
	hostbed_wait(bed, 1); /* One is due. */
	assert_int_equal(bed->readable_count, 0);
	assert_int_equal(hostbed_count(bed, SH_MSG_APPEND), 2);
	hostbed_ack(bed, 2, 1);
	assert_int_equal(bed->readable_count, 1);
	hostbed_free(bed);
}

static void an_answer_waits_until_its_index_is_durable_here(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	hostbed_ack(bed, 2, 1);
	hostbed_ack(bed, 3, 1);
	uint64_t index = hostbed_propose(bed, 10);
	hostbed_ack(bed, 2, index);
	hostbed_ack(bed, 3, index);
	assert_int_equal(raft_of(bed)->commit, index);
	assert_true(sh_raft_lease(raft_of(bed), bed->now));
	assert_err(ask(bed, 1), RT_OK);
	assert_int_equal(bed->readable_count, 0);
	hostbed_sync(bed);
	assert_int_equal(bed->readable_count, 1);
	assert_int_equal(bed->readable_index, index);
	hostbed_free(bed);
}

/* With a lease and without one in turn: nobody is lost or answered twice. */
static void waiters_of_all_kinds_are_answered_once(void **state)
{
	struct hostbed *bed = without_lease();
	(void)state;
	uint64_t index = hostbed_propose(bed, 10);
	assert_err(ask(bed, 1), RT_OK);
	assert_err(ask(bed, 2), RT_OK);
	hostbed_ack(bed, 2, index); /* the round of 1 */
	assert_int_equal(bed->readable_count, 1);
	hostbed_ack(bed, 3, index); /* that of 2, which was asked for before index was committed */
	assert_int_equal(bed->readable_count, 2);
	assert_int_equal(raft_of(bed)->commit, index);
	assert_true(sh_raft_lease(raft_of(bed), bed->now));
	assert_err(ask(bed, 3), RT_OK);
	bed->now += 600;
	assert_err(ask(bed, 4), RT_OK); /* a round */
	hostbed_ack(bed, 2, index);
	assert_true(sh_raft_lease(raft_of(bed), bed->now));
	bed->now += 600;
	assert_err(ask(bed, 5), RT_OK); /* a round */
	assert_err(ask(bed, 6), RT_OK); /* the next one */
	struct sh_raft_message ack = {.type = SH_MSG_APPEND_RESULT,
		.term = 1,
		.index = index,
		.round = raft_of(bed)->round - 1, /* gives a lease, not the round */
		.stamp = bed->now};
	assert_err(hostbed_give(bed, 3, ack, NULL), RT_OK);
	assert_true(sh_raft_lease(raft_of(bed), bed->now));
	assert_err(ask(bed, 7), RT_OK); /* the lease */
	assert_int_equal(bed->readable_count, 2);
	hostbed_sync(bed);
	assert_int_equal(bed->readable_count, 5); /* 3, 4 and 7 */
	hostbed_ack(bed, 2, index);
	assert_int_equal(bed->readable_count, 6);
	hostbed_ack(bed, 2, index);
	assert_int_equal(bed->readable_count, 7);
	hostbed_free(bed);
}

static void who_waits_learns_that_leadership_is_lost(void **state)
{
	struct hostbed *bed = without_lease();
	struct sh_raft_message beat = {.type = SH_MSG_APPEND,
		.term = 9,
		.index = 1,
		.log_term = 1,
		.round = 1,
		.stamp = 1};
	(void)state;
	assert_err(ask(bed, 1), RT_OK);
	assert_err(ask(bed, 2), RT_OK);
	assert_err(hostbed_give(bed, 3, beat, NULL), RT_OK);
	assert_int_equal(bed->readable_count, 2);
	assert_err(bed->readable_err, RT_E_FENCED);
	assert_err(ask(bed, 3), RT_E_FENCED);
	hostbed_free(bed);
}

static void too_many_are_refused(void **state)
{
	struct hostbed *bed = without_lease();
	struct sh_replica_stats stats;
	(void)state;
	for (uintptr_t i = 1; i <= 65536; i++) {
		assert_err(ask(bed, i), RT_OK);
	}
	assert_err(ask(bed, 70000), RT_E_FULL);
	sh_replica_stats(bed->replica, &stats);
	assert_true(stats.memory_bytes > 65536u * 16u);
	hostbed_ack(bed, 2, 1);
	hostbed_ack(bed, 2, 1);
	assert_int_equal(bed->readable_count, 65536);
	sh_replica_stats(bed->replica, &stats);
	assert_true(stats.memory_bytes < 10000);
	assert_err(ask(bed, 1), RT_OK);
	hostbed_free(bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sole_voter_answers_at_once),
		cmocka_unit_test(a_lease_answers_at_once),
		cmocka_unit_test(one_round_serves_all_that_wait),
		cmocka_unit_test(a_heartbeat_repeats_a_lost_round),
		cmocka_unit_test(an_answer_waits_until_its_index_is_durable_here),
		cmocka_unit_test(waiters_of_all_kinds_are_answered_once),
		cmocka_unit_test(who_waits_learns_that_leadership_is_lost),
		cmocka_unit_test(too_many_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
