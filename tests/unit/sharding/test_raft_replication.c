/* Appends and acknowledgements: what is believed, what is repeated, how much is under way. */
#include "tests/support/raftbed.h"

static const struct sh_raft_message *ack(struct bed *bed, uint64_t from, uint64_t to)
{
	return bed_last(bed, SH_MSG_APPEND_RESULT, from, to);
}

/* ---- acknowledgements ---- */

static void an_acknowledgement_covers_what_is_stored(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_hold_disk(bed, 2);
	bed_write(bed, 1, 3);
	bed_write(bed, 1, 3);
	bed_run(bed, 200);
	assert_int_equal(bed_last_index(bed, 2), 7);
	assert_int_equal(ack(bed, 2, 1)->index, 1);
	bed_finish(bed, 2, 1);
	bed_settle(bed);
	assert_int_equal(ack(bed, 2, 1)->index, 4);
	assert_int_equal(bed_peer(bed, 1, 2)->match, 4);
	bed_free(bed);
}

static void an_acknowledgement_says_whether_its_host_is_behind(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	sh_raft_behind(bed_raft(bed, 2), true);
	bed_run(bed, 150); /* a heartbeat */
	assert_true(bed_peer(bed, 1, 2)->behind);
	assert_false(bed_peer(bed, 1, 3)->behind);
	sh_raft_behind(bed_raft(bed, 2), false);
	bed_run(bed, 150);
	assert_false(bed_peer(bed, 1, 2)->behind);
	bed_free(bed);
}

/* Entries of an earlier leader are stored here, and a heartbeat of the next one says nothing of
 * them: calling them its own would commit them in place of its entries. */
static void an_acknowledgement_covers_what_this_leader_verified(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_isolate(bed, 1);
	bed_write(bed, 1, 8);
	bed_run(bed, 2500);
	bed_elect(bed, 2);
	bed_write(bed, 2, 1);
	bed_join(bed, 1, 2);
	bed_hold(bed, SH_MSG_APPEND, 2, 1);
	bed_drop(bed, SH_MSG_APPEND, 2, 1);
	assert_int_equal(bed_last_index(bed, 1), 9);
	assert_err(bed_say_append(bed, 2, 1, 1, 0, 3), RT_OK);
	bed_run(bed, 5);
	assert_int_equal(ack(bed, 1, 2)->index, 1);
	assert_int_equal(bed_commit(bed, 1), 1);
	assert_err(bed_say_append(bed, 2, 1, 1, 1, 3), RT_OK);
	assert_int_equal(bed_commit(bed, 1), 2);
	bed_release(bed, SH_MSG_APPEND, 2, 1);
	bed_heal(bed);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* A write that was cut off since comes to its end when other entries stand in its place. */
static void a_late_completion_of_what_was_cut_off_is_not_believed(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_hold_disk(bed, 1);
	bed_propose(bed, 1, 4);
	bed_run(bed, 2500);
	bed_elect(bed, 2);
	bed_write(bed, 2, 6);
	bed_heal(bed);
	assert_err(bed_say_append(bed, 2, 1, 1, 7, 1), RT_OK);
	assert_int_equal(bed_last_index(bed, 1), 8);
	assert_int_equal(bed->nodes[1].writes[0].from, 2);
	bed_finish(bed, 1, 1); /* its own four */
	bed_run(bed, 5);
	assert_int_equal(bed_raft(bed, 1)->stored, 1);
	assert_true(ack(bed, 1, 2)->index <= 1);
	bed_release_disk(bed, 1);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* A commit index may run ahead of what the message verifies. */
static void a_follower_commits_no_further_than_it_verified(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_run(bed, 150);
	bed_cut(bed, 1, 2);
	bed_write(bed, 1, 5);
	bed_isolate(bed, 1);
	assert_err(bed_say_append(bed, 1, 2, 1, 2, 6), RT_OK);
	assert_int_equal(bed_commit(bed, 2), 3);
	bed_free(bed);
}

/* ---- what is sent ---- */

static void the_host_may_send_fewer_than_offered(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed->nodes[1].most = 3;
	bed_write(bed, 1, 100);
	assert_true(bed_commits(bed, 1, 50));
	bed_run(bed, 150);
	assert_true(bed_converged(bed));

	bed->nodes[1].most = 0; /* not at hand: the core waits to be told */
	bed_write(bed, 1, 10);
	bed_run(bed, 1500);
	assert_int_equal(bed_last_index(bed, 2), 101);
	assert_true(bed_leads(bed, 1));
	bed->nodes[1].most = 3;
	assert_err(sh_raft_resume(bed_raft(bed, 1), 2), RT_OK);
	bed_drain(&bed->nodes[1]);
	bed_settle(bed);
	assert_int_equal(bed_last_index(bed, 2), 111);
	assert_int_equal(bed_commit(bed, 1), 111);
	assert_int_equal(bed_last_index(bed, 3), 101);
	bed_free(bed);
}

static void a_probe_is_one_entry(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_cut(bed, 1, 3);
	bed_write(bed, 1, 50);
	bed_run(bed, 1500);
	assert_int_equal(bed_peer(bed, 1, 3)->state, SH_PEER_PROBE);
	bed_join(bed, 1, 3);
	bed_hold(bed, SH_MSG_APPEND, 1, 3);
	for (int i = 0; i < 5; i++) {
		bed_write(bed, 1, 1);
	}
	uint32_t probes = 0;
	for (uint32_t i = 0; i < bed->message_count; i++) {
		assert_in_range(bed->messages[i].head.count, 0, 1);
		probes += bed->messages[i].head.count;
	}
	assert_in_range(probes, 1, 2); /* of 55; again with a heartbeat */
	bed_release(bed, SH_MSG_APPEND, 1, 3);
	bed_run(bed, 20);
	assert_int_equal(bed_last_index(bed, 3), 56);
	assert_int_equal(bed_peer(bed, 1, 3)->state, SH_PEER_PIPELINE);
	bed_free(bed);
}

static void at_most_64_messages_are_in_flight(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_hold(bed, SH_MSG_APPEND_RESULT, 0, 1);
	uint64_t sent = bed->sent[SH_MSG_APPEND];
	for (int i = 0; i < 200; i++) {
		bed_propose(bed, 1, 1);
	}
	assert_int_equal(bed->sent[SH_MSG_APPEND] - sent, 2 * 64);
	bed_settle(bed);
	assert_int_equal(bed_last_index(bed, 2), 65);
	bed_release(bed, SH_MSG_APPEND_RESULT, 0, 1);
	bed_settle(bed);
	assert_int_equal(bed_commit(bed, 1), 201);
	bed_free(bed);
}

/* Nothing but the last word of a peer counts: all others may get lost. */
static void lost_acknowledgements_freeze_nobody(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 3);
	for (int i = 0; i < 500; i++) {
		bed_propose(bed, 1, 1);
		bed_run(bed, 1);
		if (i % 20 != 0) {
			bed_drop(bed, SH_MSG_APPEND_RESULT, 2, 1);
		}
	}
	bed_settle(bed);
	assert_true(bed_commits(bed, 1, 200));
	bed_heal(bed);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

static void lost_appends_are_sent_again(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 3);
	for (int i = 0; i < 300; i++) {
		bed_propose(bed, 1, 1);
		if (i % 3 == 0) {
			bed_drop(bed, SH_MSG_APPEND, 1, 2);
		}
		bed_run(bed, 1);
	}
	bed_run(bed, 300);
	assert_true(bed_commits(bed, 1, 100));
	bed_free(bed);
}

/* All appends of a while arrive last first, then once more. */
static void duplicates_and_reordering_are_harmless(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_hold(bed, SH_MSG_APPEND, 1, 2);
	for (int i = 0; i < 30; i++) {
		bed_propose(bed, 1, 1);
		bed_run(bed, 1);
	}
	assert_err(bed_say_append(bed, 1, 2, 1, 20, 3), RT_OK);
	for (uint64_t prev = 30; prev > 0; prev -= 3) {
		assert_err(bed_say_append(bed, 1, 2, prev, 1, 1), RT_OK);
		assert_err(bed_say_append(bed, 1, 2, 1, 4, 3), RT_OK);
	}
	assert_int_equal(bed_last_index(bed, 2), 22);
	for (int i = 0; i < 3; i++) {
		bed_repeat(bed, SH_MSG_APPEND, 1, 2);
		bed_run(bed, 1);
	}
	bed_release(bed, SH_MSG_APPEND, 1, 2);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	assert_int_equal(bed_term(bed, 1), 1);
	bed_free(bed);
}

static void an_acknowledgement_that_was_overtaken_takes_nothing_back(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 9);
	struct sh_raft_message old = {
		.type = SH_MSG_APPEND_RESULT, .from = 2, .to = 1, .term = bed_term(bed, 1)};
	for (old.index = 0; old.index < 10; old.index++) {
		old.round = bed_peer(bed, 1, 2)->round; /* an older one would not be looked at */
		assert_err(bed_say(bed, &old, NULL), RT_OK);
		assert_int_equal(bed_peer(bed, 1, 2)->match, 10);
		assert_int_equal(bed_peer(bed, 1, 2)->next, 11);
	}
	bed_write(bed, 1, 1);
	assert_int_equal(bed_commit(bed, 1), 11);
	bed_free(bed);
}

/* The reply names a later term; that is how a leader that slept hears of it. */
static void an_append_of_an_old_term_is_refused_with_the_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_elect(bed, 2);
	bed_settle(bed);
	uint64_t last = bed_last_index(bed, 3);
	struct sh_raft_message old = {.type = SH_MSG_APPEND,
		.count = 1,
		.from = 1,
		.to = 3,
		.term = 1,
		.index = 1,
		.log_term = 1,
		.commit = 2};
	struct bed_entry entry = {.term = 1, .tag = 99};
	assert_err(bed_say(bed, &old, &entry), RT_OK);
	bed_run(bed, 1);
	assert_int_equal(bed_last_index(bed, 3), last);
	assert_int_equal(bed_raft(bed, 3)->leader, 2);
	assert_true(ack(bed, 3, 1)->flags & SH_FLAG_REJECT);
	assert_int_equal(ack(bed, 3, 1)->term, bed_term(bed, 2));
	bed_free(bed);
}

/* A whole term is skipped per rejection, not one entry. */
static void a_long_wrong_tail_is_skipped_by_terms(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_write(bed, 1, 500);
	bed_run(bed, 2500);
	bed_elect(bed, 2);
	bed_write(bed, 2, 600);
	bed_heal(bed);
	bed_run(bed, 150);
	assert_int_equal(bed_last_index(bed, 1), bed_last_index(bed, 2));
	assert_true(bed_commits(bed, 2, 10));
	bed_free(bed);
}

static void a_sole_voter_leads_and_commits_alone(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1");
	assert_true(bed_leads(bed, 1));
	bed_hold_disk(bed, 1);
	bed_propose(bed, 1, 3);
	bed_run(bed, 10);
	assert_int_equal(bed_commit(bed, 1), 0);
	bed_release_disk(bed, 1);
	bed_run(bed, 10);
	assert_int_equal(bed_commit(bed, 1), 4);
	assert_true(sh_raft_next_timeout(bed_raft(bed, 1)) == UINT64_MAX);
	bed_crash(bed, 1);
	bed_start(bed, 1);
	assert_true(bed_leads(bed, 1));
	bed_settle(bed);
	assert_int_equal(bed_commit(bed, 1), 5);
	assert_int_equal(bed_term(bed, 1), 2);
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_acknowledgement_covers_what_is_stored),
		cmocka_unit_test(an_acknowledgement_says_whether_its_host_is_behind),
		cmocka_unit_test(an_acknowledgement_covers_what_this_leader_verified),
		cmocka_unit_test(a_late_completion_of_what_was_cut_off_is_not_believed),
		cmocka_unit_test(a_follower_commits_no_further_than_it_verified),
		cmocka_unit_test(the_host_may_send_fewer_than_offered),
		cmocka_unit_test(a_probe_is_one_entry),
		cmocka_unit_test(at_most_64_messages_are_in_flight),
		cmocka_unit_test(lost_acknowledgements_freeze_nobody),
		cmocka_unit_test(lost_appends_are_sent_again),
		cmocka_unit_test(duplicates_and_reordering_are_harmless),
		cmocka_unit_test(an_acknowledgement_that_was_overtaken_takes_nothing_back),
		cmocka_unit_test(an_append_of_an_old_term_is_refused_with_the_term),
		cmocka_unit_test(a_long_wrong_tail_is_skipped_by_terms),
		cmocka_unit_test(a_sole_voter_leads_and_commits_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
