/* The schedules of membership, one function each: see test_raft_schedules.c. */
#include "tests/support/raftbed.h"

enum where {
	COMPACTED_BEFORE,
	COMPACTED_AFTER,
	RESTARTED,
	COMPACTED_AND_RESTARTED,
	WHERES
};

/* The entry that names the set to go back to is below the floor, or was read from the disk. */
static void roll_back(enum where where)
{
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_boot(bed, 4);
	bed_change(bed, 1, "1 2 3 4s");
	bed_settle(bed);
	bed_write(bed, 1, 20);
	if (where == COMPACTED_BEFORE || where == COMPACTED_AND_RESTARTED) {
		bed_compact(bed, 1, bed_commit(bed, 1));
	}
	bed_isolate(bed, 1);
	bed_change(bed, 1, "1 2 3 4");
	if (where == COMPACTED_AFTER) {
		bed_compact(bed, 1, bed_commit(bed, 1));
	}
	bed_settle(bed);
	if (where == RESTARTED || where == COMPACTED_AND_RESTARTED) {
		bed_crash(bed, 1);
		bed_start(bed, 1);
	}
	assert_true(bed_uses(bed, 1, "1 2 3 4"));
	bed_elect(bed, 2);
	bed_write(bed, 2, 2);
	bed_heal(bed);
	bed_run(bed, 2000);
	assert_true(bed_uses(bed, 1, "1 2 3 4s"));
	assert_true(bed_converged(bed));
	bed_free(bed);
}

static void an_uncommitted_change_is_rolled_back_after_compaction_and_restart(void **state)
{
	(void)state;
	for (int where = 0; where < WHERES; where++) {
		roll_back((enum where)where);
	}
}

/* Entries 2 and 3 are records, 4 is a change, 5 a record, all in one message. */
static void cut_at(uint64_t from)
{
	struct bed *bed = bed_new("1 2 3 4 5");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_isolate(bed, 1);
	bed_propose(bed, 1, 2);
	bed_change(bed, 1, "1 2 3 4 5 6s");
	bed_propose(bed, 1, 1);
	for (uint64_t i = 2; i <= 5; i++) {
		if (from > 2) {
			assert_err(bed_say_append(bed, 1, i, 1, (uint32_t)from - 2, 1), RT_OK);
		}
	}
	assert_err(bed_say_append(bed, 1, 3, 1, 4, 1), RT_OK);
	assert_true(bed_uses(bed, 3, "1 2 3 4 5 6s"));
	assert_int_equal(sh_raft_members(bed_raft(bed, 3))->index, 4);
	bed_settle(bed);
	bed_elect(bed, 2);
	bed_run(bed, 200);
	assert_int_equal(bed_term_of(bed, 3, from), bed_term(bed, 2));
	assert_true(bed_uses(bed, 3, from > 4 ? "1 2 3 4 5 6s" : "1 2 3 4 5"));
	bed_heal(bed);
	bed_run(bed, 2000);
	assert_true(bed_uses(bed, 1, from > 4 ? "1 2 3 4 5 6s" : "1 2 3 4 5"));
	bed_free(bed);
}

static void a_change_in_the_middle_of_a_batch_is_in_use_exactly_while_it_is_in_the_log(void **state)
{
	(void)state;
	for (uint64_t from = 2; from <= 5; from++) {
		cut_at(from);
	}
}

/* It still thinks it has no vote; the quorum of the new set needs it. */
static void a_promoted_voter_that_does_not_know_it_votes(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3s");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_cut(bed, 1, 3);
	uint64_t index = bed_change(bed, 1, "1 2 3");
	bed_run(bed, 150);
	assert_true(bed_commit(bed, 1) >= index);
	bed_crash(bed, 1);
	assert_true(bed_uses(bed, 3, "1 2 3s"));
	bed_awake(bed);
	assert_int_equal(bed_any_leader(bed, 5000), 2);
	bed_run(bed, 200);
	assert_true(bed_uses(bed, 3, "1 2 3"));
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Two leaders of different terms change one set in two ways: the majorities of {1 2 3 4 5} and of
 * {2 3 4} need not meet. The later leader has to commit something first (Ongaro 2015). */
static void a_change_waits_for_the_first_entry_of_its_leaders_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_boot(bed, 5);
	bed_change(bed, 1, "1 2 3 4 5s");
	bed_run(bed, 150);
	bed_isolate(bed, 1);
	bed_isolate(bed, 5);
	bed_join(bed, 1, 5);
	bed_change(bed, 1, "1 2 3 4 5");
	bed_run(bed, 150);
	assert_int_equal(bed_last_index(bed, 5), 3);
	bed_cut(bed, 1, 5);

	bed_hold(bed, SH_MSG_APPEND, 2, 0);
	bed_elect(bed, 2);
	bed_cut(bed, 2, 4);
	bed_settle(bed);
	assert_err(bed_try_members(bed, 2, "2 3 4 5s"), RT_E_AGAIN);
	bed_cut(bed, 2, 3);
	bed_drop(bed, SH_MSG_APPEND, 2, 0);
	bed_release(bed, SH_MSG_APPEND, 2, 0);

	/* Nothing of node 2 is committed: node 1 may win, and its change stands. */
	bed_run(bed, 2500);
	bed_isolate(bed, 2);
	bed_isolate(bed, 3);
	bed_join(bed, 1, 4);
	bed_join(bed, 1, 5);
	bed_join(bed, 4, 5);
	bed_elect(bed, 1);
	bed_run(bed, 200);
	assert_true(bed_commit(bed, 1) >= 4);
	bed_heal(bed);
	bed_run(bed, 2500);
	assert_true(bed_uses(bed, 2, "1 2 3 4 5"));
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Node 2 hears that A is committed in the message that brings B, then loses B. */
static void a_change_taken_back_leaves_the_one_that_was_committed_with_its_arrival(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4 5");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_boot(bed, 6);
	uint64_t a = bed_change(bed, 1, "1 2 3 4 5 6s");
	while (bed_commit(bed, 1) < a) {
		bed_run(bed, 1);
	}
	bed_isolate(bed, 1);
	bed_drop(bed, SH_MSG_APPEND, 1, 0);
	assert_true(bed_commit(bed, 2) < a);
	uint64_t b = bed_change(bed, 1, "1 2 3 4 5s 6s");
	assert_err(bed_say_append(bed, 1, 2, a, 1, a), RT_OK);
	assert_int_equal(bed_commit(bed, 2), a);
	assert_true(bed_uses(bed, 2, "1 2 3 4 5s 6s"));
	bed_settle(bed);
	bed_elect(bed, 3);
	bed_run(bed, 300);
	assert_int_equal(bed_term_of(bed, 2, b), bed_term(bed, 3));
	assert_true(bed_uses(bed, 2, "1 2 3 4 5 6s"));
	bed_heal(bed);
	bed_run(bed, 2500);
	assert_true(bed_uses(bed, 1, "1 2 3 4 5 6s"));
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* It leads on, without a vote of its own, until who stays has its removal. */
static void a_leader_that_is_removed_steps_down_when_that_is_committed(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_cut(bed, 1, 4);
	bed_cut(bed, 1, 3);
	uint64_t index = bed_change(bed, 1, "2 3 4");
	bed_run(bed, 500);
	assert_true(bed_leads(bed, 1));
	assert_true(bed_commit(bed, 1) < index); /* node 2 is no majority of three */
	bed_join(bed, 1, 3);
	bed_run(bed, 300);
	assert_true(bed_commit(bed, 1) >= index);
	assert_false(bed_leads(bed, 1));
	assert_int_equal(bed->nodes[1].removed_at, index);
	bed_heal(bed);
	bed_awake(bed);
	uint64_t next = bed_any_leader(bed, 5000);
	assert_in_range(next, 2, 4);
	bed_write(bed, next, 3);
	assert_true(bed_commits(bed, next, 100));
	assert_int_equal(bed_raft(bed, 1)->role, SH_FOLLOWER);
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_uncommitted_change_is_rolled_back_after_compaction_and_restart),
		cmocka_unit_test(
			a_change_in_the_middle_of_a_batch_is_in_use_exactly_while_it_is_in_the_log),
		cmocka_unit_test(a_promoted_voter_that_does_not_know_it_votes),
		cmocka_unit_test(a_change_waits_for_the_first_entry_of_its_leaders_term),
		cmocka_unit_test(
			a_change_taken_back_leaves_the_one_that_was_committed_with_its_arrival),
		cmocka_unit_test(a_leader_that_is_removed_steps_down_when_that_is_committed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
