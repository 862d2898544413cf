/* Linearizable reads: a leader may answer when a quorum followed it after the question came. */
#include "tests/support/raftbed.h"

#define ELECTION_MS  1000u
#define HEARTBEAT_MS 100u

static rt_err begin(struct bed *bed, uint64_t node, struct sh_raft_read *read)
{
	rt_err err = sh_raft_read_begin(bed_raft(bed, node), bed->now, read);
	bed_drain(&bed->nodes[node]);
	return err;
}

static rt_err is_ok(struct bed *bed, uint64_t node, const struct sh_raft_read *read)
{
	return sh_raft_read_ok(bed_raft(bed, node), read);
}

static bool lease(struct bed *bed, uint64_t node)
{
	return sh_raft_lease(bed_raft(bed, node), bed->now);
}

static void a_read_waits_for_a_round_that_began_after_it(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	struct sh_raft_read read, later;
	assert_err(begin(bed, 1, &read), RT_OK);
	assert_int_equal(read.index, bed_commit(bed, 1));
	assert_err(is_ok(bed, 1, &read), RT_E_AGAIN);
	bed_run(bed, 1);
	assert_err(is_ok(bed, 1, &read), RT_E_AGAIN);
	bed_run(bed, 1);
	assert_err(is_ok(bed, 1, &read), RT_OK);
	bed_isolate(bed, 1);
	assert_err(begin(bed, 1, &later), RT_OK);
	assert_err(is_ok(bed, 1, &read), RT_OK);
	bed_run(bed, 500);
	assert_err(is_ok(bed, 1, &later), RT_E_AGAIN);
	bed_free(bed);
}

/* The rounds under way when the question came prove nothing about what came after them. */
static void answers_to_older_rounds_do_not_count(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_hold(bed, SH_MSG_APPEND_RESULT, 0, 1);
	bed_run(bed, 350);
	bed_cut_way(bed, 1, 2);
	bed_cut_way(bed, 1, 3);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_release(bed, SH_MSG_APPEND_RESULT, 0, 1);
	bed_run(bed, 20);
	assert_err(is_ok(bed, 1, &read), RT_E_AGAIN);
	bed_heal(bed);
	bed_run(bed, 150);
	assert_err(is_ok(bed, 1, &read), RT_OK);
	bed_free(bed);
}

static void a_deposed_leader_answers_no_read(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 1);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_elect(bed, 2);
	bed_write(bed, 2, 3);
	assert_false(is_ok(bed, 1, &read) == RT_OK);
	bed_heal(bed);
	bed_run(bed, 300);
	assert_err(is_ok(bed, 1, &read), RT_E_FENCED);
	assert_err(begin(bed, 1, &read), RT_E_FENCED);
	bed_free(bed);
}

/* The same node leads again: what it promised in the other term is void. */
static void a_read_does_not_outlive_its_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_settle(bed);
	assert_err(bed_transfer(bed, 1, 2), RT_OK);
	bed_run(bed, 150);
	assert_true(bed_leads(bed, 2));
	assert_err(bed_transfer(bed, 2, 1), RT_OK);
	bed_run(bed, 150);
	assert_true(bed_leads(bed, 1));
	assert_err(is_ok(bed, 1, &read), RT_E_FENCED);
	bed_free(bed);
}

/* Its log has all that is committed, but it does not know how far that is. */
static void a_new_leader_answers_nothing_before_its_first_entry_is_committed(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_hold(bed, SH_MSG_APPEND, 1, 0);
	bed_elect(bed, 1);
	bed_run(bed, 50);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_E_AGAIN);
	bed_drop(bed, SH_MSG_APPEND_RESULT, 0, 0);
	assert_false(lease(bed, 1));
	for (uint64_t i = 2; i <= 3; i++) {
		struct sh_raft_message said = {.type = SH_MSG_APPEND_RESULT,
			.from = i,
			.to = 1,
			.term = bed_term(bed, 1),
			.round = bed_raft(bed, 1)->round,
			.stamp = bed_raft(bed, 1)->round_at};
		assert_err(bed_say(bed, &said, NULL), RT_OK);
	}
	assert_false(lease(bed, 1));
	assert_err(begin(bed, 1, &read), RT_E_AGAIN);
	bed_release(bed, SH_MSG_APPEND, 1, 0);
	bed_settle(bed);
	assert_err(begin(bed, 1, &read), RT_OK);
	assert_true(lease(bed, 1));
	bed_free(bed);
}

static void a_minority_confirms_no_read(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4 5s 6s");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 3);
	bed_isolate(bed, 4);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_settle(bed);
	assert_err(is_ok(bed, 1, &read), RT_E_AGAIN); /* two of four, and two that do not vote */
	bed_join(bed, 1, 3);
	bed_run(bed, 150);
	assert_err(is_ok(bed, 1, &read), RT_OK);
	bed_free(bed);
}

/* ---- lease ---- */

/* Counted from when the round began, not from when its answers came. */
static void a_lease_lasts_half_an_election_timeout_from_the_start_of_a_round(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_run(bed, HEARTBEAT_MS - bed->now % HEARTBEAT_MS); /* The next beat is far. */
	bed_settle(bed);
	bed_hold(bed, SH_MSG_APPEND_RESULT, 0, 1);
	bed_drop(bed, SH_MSG_APPEND_RESULT, 0, 1);
	struct sh_raft_read read;
	uint64_t start = bed->now;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_run(bed, 50);
	bed_isolate(bed, 1);
	bed_heal(bed);
	bed_cut_way(bed, 1, 2);
	bed_cut_way(bed, 1, 3);
	bed_release(bed, SH_MSG_APPEND_RESULT, 0, 1);
	bed_run(bed, 10);
	assert_int_equal(bed_peer(bed, 1, 2)->stamp, start);
	assert_true(lease(bed, 1));
	bed_run(bed, start + ELECTION_MS / 2 - bed->now - 1);
	assert_true(lease(bed, 1));
	bed_run(bed, 1);
	assert_false(lease(bed, 1));
	bed_free(bed);
}

/* No other leader can have committed anything while a lease lasts, whoever is cut off from whom. */
static void a_lease_is_over_before_anyone_else_leads(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 1);
	bed->nodes[2].timers = true;
	for (uint64_t over = 0; !bed_leads(bed, 2); over++) {
		bed_run(bed, 1);
		assert_true(over < 5000);
		assert_false(lease(bed, 1) && bed_raft(bed, 2)->role >= SH_CANDIDATE);
	}
	assert_false(lease(bed, 1));
	bed_free(bed);
}

/* Votes of a transfer do not wait for the leader's silence. The word may arrive long after the
 * attempt was given up. */
static void a_lease_ends_when_a_transfer_begins(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	assert_true(lease(bed, 1));
	bed_hold(bed, SH_MSG_TIMEOUT_NOW, 1, 2);
	assert_err(bed_transfer(bed, 1, 2), RT_OK);
	assert_false(lease(bed, 1));
	bed_run(bed, 1200);
	assert_int_equal(bed_raft(bed, 1)->transferee, 0);
	bed_write(bed, 1, 3);
	assert_false(lease(bed, 1)); /* for good in this term: */
	bed_cut(bed, 1, 3);
	bed_cut_way(bed, 2, 1);
	bed_release(bed, SH_MSG_TIMEOUT_NOW, 1, 2);
	bed_run(bed, 20);
	assert_true(bed_leads(bed, 2));
	assert_true(bed_leads(bed, 1)); /* it knows nothing of that */
	assert_false(lease(bed, 1));
	bed_write(bed, 2, 1);
	assert_int_equal(bed_commit(bed, 2), bed_last_index(bed, 2));
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	bed_run(bed, 50);
	assert_false(is_ok(bed, 1, &read) == RT_OK);
	bed_free(bed);
}

static void a_sole_voter_needs_nobodys_word(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1");
	bed_settle(bed);
	struct sh_raft_read read;
	assert_err(begin(bed, 1, &read), RT_OK);
	assert_err(is_ok(bed, 1, &read), RT_OK);
	assert_true(lease(bed, 1));
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_waits_for_a_round_that_began_after_it),
		cmocka_unit_test(answers_to_older_rounds_do_not_count),
		cmocka_unit_test(a_deposed_leader_answers_no_read),
		cmocka_unit_test(a_read_does_not_outlive_its_term),
		cmocka_unit_test(a_new_leader_answers_nothing_before_its_first_entry_is_committed),
		cmocka_unit_test(a_minority_confirms_no_read),
		cmocka_unit_test(a_lease_lasts_half_an_election_timeout_from_the_start_of_a_round),
		cmocka_unit_test(a_lease_is_over_before_anyone_else_leads),
		cmocka_unit_test(a_lease_ends_when_a_transfer_begins),
		cmocka_unit_test(a_sole_voter_needs_nobodys_word),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
