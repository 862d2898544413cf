/* Which changes of members are taken up, and when. */
#include "tests/support/raftbed.h"

static void one_change_at_a_time(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	assert_err(bed_try_members(bed, 1, "1 2 3 4s"), RT_E_AGAIN); /* nothing of the term yet */
	bed_settle(bed);
	bed_isolate(bed, 1);
	uint64_t index = bed_change(bed, 1, "1 2 3 4s");
	assert_true(bed_uses(bed, 1, "1 2 3 4s")); /* from when it is in the log */
	assert_err(bed_try_members(bed, 1, "1 2 3"), RT_E_AGAIN);
	assert_err(bed_try_members(bed, 1, "1 2 3 4s 5s"), RT_E_AGAIN);
	bed_heal(bed);
	bed_run(bed, 150);
	assert_int_equal(bed_commit(bed, 1), index);
	bed_change(bed, 1, "1 2 3 4s 5s");
	bed_free(bed);
}

static void a_change_is_one_difference(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4s");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	static const char *const wrong[] = {
		"1 2 3 4s", "1 2 3 4 5s", "1 2 5s 3", "1 2", "1s 2s 3s 4s", "", "2 3 4"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_err(bed_try_members(bed, 1, wrong[i]), RT_E_INVAL);
	}
	assert_int_equal(bed_last_index(bed, 1), 1);
	assert_err(bed_try_members(bed, 2, "1 2 3"), RT_E_FENCED);
	bed_change(bed, 1, "1 2 3 4");
	bed_free(bed);
}

static void the_last_voter_cannot_go(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2s");
	bed_settle(bed);
	assert_true(bed_leads(bed, 1));
	assert_err(bed_try_members(bed, 1, "2s"), RT_E_INVAL);
	assert_err(bed_try_members(bed, 1, "1s 2s"), RT_E_INVAL);
	bed_free(bed);
}

/* A voter that has most of the log still to come would hold up every commit. */
static void a_standby_is_promoted_within_the_window(void **state)
{
	(void)state;
	struct sh_raft_settings settings = {.election_ms = 1000, .heartbeat_ms = 100, .window = 10};
	struct bed *bed = bed_new_with("1 2 3 4s", &settings);
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_cut(bed, 1, 4);
	bed_write(bed, 1, 10);
	assert_int_equal(bed_peer(bed, 1, 4)->match, 1);
	bed_propose(bed, 1, 1);
	bed_run(bed, 20);
	assert_err(bed_try_members(bed, 1, "1 2 3 4"), RT_E_AGAIN); /* eleven behind */
	bed_join(bed, 1, 4);
	bed_run(bed, 150);
	bed_cut(bed, 1, 4);
	bed_write(bed, 1, 10);
	bed_change(bed, 1, "1 2 3 4"); /* ten */
	bed_free(bed);
}

static void a_standby_that_fell_silent_is_not_promoted(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4s");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_cut(bed, 1, 4);
	bed_run(bed, 1500);
	assert_err(bed_try_members(bed, 1, "1 2 3 4"), RT_E_AGAIN);
	bed_join(bed, 1, 4);
	bed_run(bed, 150);
	bed_change(bed, 1, "1 2 3 4");
	bed_free(bed);
}

static void a_standby_counts_for_nothing(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3s 4s 5s");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 2);
	bed_write(bed, 1, 3);
	assert_int_equal(bed_last_index(bed, 5), 4);
	assert_int_equal(bed_commit(bed, 1), 1);
	bed_run(bed, 2000);
	assert_false(bed_leads(bed, 1)); /* nor do they keep a leader in office */
	bed_free(bed);
}

/* From nothing, over standing by, to a vote; then the others go one by one. */
static void a_group_moves_to_other_nodes(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 30);
	for (uint64_t i = 4; i <= 6; i++) {
		bed_boot(bed, i);
	}
	static const char *const steps[] = {"1 2 3 4s", "1 2 3 4", "1 3 4", "1 3 4 5s", "1 3 4 5",
		"1 4 5", "1 4 5 6s", "1 4 5 6", "4 5 6"};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		bed_change(bed, 1, steps[i]);
		bed_run(bed, 250);
		assert_int_equal(bed_commit(bed, 1), bed_last_index(bed, 1));
	}
	assert_false(bed_leads(bed, 1));
	bed_awake(bed);
	uint64_t leader = bed_any_leader(bed, 5000);
	assert_in_range(leader, 4, 6);
	bed_write(bed, leader, 5);
	bed_run(bed, 3000);
	for (uint64_t i = 1; i <= 3; i++) {
		assert_true(bed_raft(bed, i)->removed);
		bed_crash(bed, i);
	}
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Cut off while the group moved to nodes it never heard of. */
static void who_knows_nobody_of_the_group_any_more_is_told_at_the_door(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 3);
	bed_boot(bed, 4);
	static const char *const steps[] = {"1 2", "1 2 4s", "1 2 4", "1 4"};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		bed_change(bed, 1, steps[i]);
		bed_run(bed, 250);
	}
	assert_err(bed_transfer(bed, 1, 4), RT_OK);
	bed_run(bed, 250);
	assert_true(bed_leads(bed, 4));
	bed_change(bed, 4, "4");
	bed_run(bed, 250);
	bed_crash(bed, 1);
	bed_crash(bed, 2);
	bed_heal(bed);
	bed_awake(bed);
	bed_run(bed, 5000);
	struct sh_raft *lost = bed_raft(bed, 3);
	assert_int_equal(lost->role, SH_PRE_CANDIDATE);
	assert_false(lost->removed);
	bed_knock(bed, 3, 2); /* a member as far as it knows: asked already */
	bed_settle(bed);
	assert_false(lost->removed);
	bed_knock(bed, 3, 4);
	bed_settle(bed);
	assert_true(lost->removed);
	bed_knock(bed, 3, 4);
	bed_run(bed, 1000);
	assert_true(bed_leads(bed, 4));
	bed_free(bed);
}

/* Its log is the longest, so nobody else can win: it has to stand once more to hand the entry on.
 */
static void who_is_removed_by_an_entry_that_nobody_else_has_stands(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_isolate(bed, 1);
	bed_change(bed, 1, "2");
	bed_settle(bed);
	bed_crash(bed, 1);
	bed_start(bed, 1);
	assert_true(bed_uses(bed, 1, "2"));
	bed_heal(bed);
	bed_awake(bed);
	bed_run(bed, 15000);
	assert_true(bed_leads(bed, 2));
	assert_true(bed_uses(bed, 2, "2"));
	bed_write(bed, 2, 1);
	assert_true(bed_commits(bed, 2, 100));
	assert_false(bed_leads(bed, 1));
	bed_free(bed);
}

/* A leader without a vote goes on until that is committed, and stays a member. */
static void a_leader_that_gives_up_its_vote_steps_down(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	uint64_t index = bed_change(bed, 1, "1s 2 3");
	assert_true(bed_leads(bed, 1));
	bed_run(bed, 200);
	assert_int_equal(bed_commit(bed, 1), index);
	assert_false(bed_leads(bed, 1));
	assert_false(bed_raft(bed, 1)->removed);
	bed_elect(bed, 2);
	bed_write(bed, 2, 3);
	bed_run(bed, 200);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Who is new begins at the end of the log and finds its way back by rejections. */
static void a_new_member_gets_the_whole_log(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 300);
	bed_boot(bed, 7);
	bed_change(bed, 1, "1 2 3 7s");
	bed_run(bed, 300);
	assert_int_equal(bed_last_index(bed, 7), 302);
	assert_true(bed_uses(bed, 7, "1 2 3 7s"));
	assert_int_equal(bed_commit(bed, 7), 302);
	bed_free(bed);
}

/* Everything is below the floor: it gets the shard, and with it the set in force there. */
static void a_new_member_gets_an_install_when_the_log_is_gone(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 300);
	bed_boot(bed, 7);
	bed_compact(bed, 1, 250);
	bed_change(bed, 1, "1 2 3 7s");
	bed_run(bed, 1500);
	assert_int_equal(bed_last_index(bed, 7), 302);
	assert_true(bed_uses(bed, 7, "1 2 3 7s"));
	assert_true(bed_raft(bed, 7)->floor > 250);
	bed_crash(bed, 7);
	bed_start(bed, 7);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_change_at_a_time),
		cmocka_unit_test(a_change_is_one_difference),
		cmocka_unit_test(the_last_voter_cannot_go),
		cmocka_unit_test(a_standby_is_promoted_within_the_window),
		cmocka_unit_test(a_standby_that_fell_silent_is_not_promoted),
		cmocka_unit_test(a_standby_counts_for_nothing),
		cmocka_unit_test(a_group_moves_to_other_nodes),
		cmocka_unit_test(who_knows_nobody_of_the_group_any_more_is_told_at_the_door),
		cmocka_unit_test(who_is_removed_by_an_entry_that_nobody_else_has_stands),
		cmocka_unit_test(a_leader_that_gives_up_its_vote_steps_down),
		cmocka_unit_test(a_new_member_gets_the_whole_log),
		cmocka_unit_test(a_new_member_gets_an_install_when_the_log_is_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
