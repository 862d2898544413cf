/* The schedules that broke consensus cores before, one function each. What random seeds find rarely
 * is done here on purpose, step by step. Membership is in test_raft_schedules_members.c. */
#include <stdio.h>

#include "tests/support/raftbed.h"

/* Figure 8 of the Raft paper. Node 1 of term `old` has an entry on a minority; node 5 leads a later
 * term with an entry of its own at the same place; node 1 leads again and copies the old entry to a
 * majority. Node 5 may still win and overwrite it: it must not have been called committed. */
static void an_entry_of_an_old_term_is_never_committed_by_counting(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4 5");
	bed_elect(bed, 1);
	bed_settle(bed);
	uint64_t old = bed_term(bed, 1);
	bed_isolate(bed, 1);
	bed_join(bed, 1, 2);
	bed_write(bed, 1, 1);
	assert_int_equal(bed_last_index(bed, 2), 2);

	bed_isolate(bed, 1);
	bed_isolate(bed, 2);
	bed_hold(bed, SH_MSG_APPEND, 5, 0);
	bed_elect(bed, 5);
	uint64_t rival = bed_term(bed, 5);
	bed_isolate(bed, 5);
	bed_drop(bed, SH_MSG_APPEND, 5, 0);
	bed_release(bed, SH_MSG_APPEND, 5, 0);
	bed_run(bed, 2500);
	assert_int_equal(bed_term_of(bed, 5, 2), rival);

	bed_join(bed, 1, 2);
	bed_join(bed, 1, 3);
	bed->nodes[1].most = 1;
	bed_elect(bed, 1);
	assert_true(bed_term(bed, 1) > rival);
	for (int i = 0; i < 20 && bed_peer(bed, 1, 3)->match < 2; i++) {
		bed_run(bed, 1);
	}
	assert_int_equal(bed_peer(bed, 1, 3)->match, 2);
	assert_int_equal(bed_term_of(bed, 3, 2), old);
	assert_int_equal(bed_commit(bed, 1), 1); /* three of five have it, and yet */

	bed_isolate(bed, 1);
	bed_isolate(bed, 2);
	bed_drop(bed, 0, 1, 0);
	bed_join(bed, 5, 3);
	bed_join(bed, 5, 4);
	bed_elect(bed, 5);
	bed_run(bed, 200);
	assert_int_equal(bed_term_of(bed, 3, 2), rival);
	assert_true(bed_commit(bed, 5) >= 3);
	bed_free(bed);
}

struct load {
	uint64_t net_ms, disk_ms, every_ms;
};

static void commits_under(const struct load *load)
{
	struct bed *bed = bed_new("1 2 3");
	bed->net_ms = load->net_ms;
	for (uint64_t i = 1; i <= 3; i++) {
		bed->nodes[i].disk_ms = load->disk_ms;
	}
	bed_elect(bed, 1);
	bed_run(bed, 500);
	struct bed_node *leader = &bed->nodes[1];
	leader->longest_gap = 0;
	leader->committed_at = bed->now;
	for (uint64_t ms = 0; ms < 5000; ms++) {
		if (ms % load->every_ms == 0) {
			bed_propose(bed, 1, 1);
		}
		bed_run(bed, 1);
	}
	uint64_t round = 2 * load->net_ms + load->disk_ms;
	uint64_t behind = bed_last_index(bed, 1) - bed_commit(bed, 1);
	assert_in_range(leader->longest_gap, 1, round + load->every_ms + 5);
	assert_in_range(behind, 0, 2 * (round / load->every_ms + 1));
	bed_free(bed);
}

/* Whoever counts only entries that its own newest write covers never commits under load. */
static void commits_keep_up_with_steady_proposals(void **state)
{
	(void)state;
	static const struct load loads[] = {{3, 1, 10}, {15, 10, 10}, {50, 10, 10}, {3, 1, 1},
		{3, 10, 1}, {15, 1, 1}, {50, 10, 1}};
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		commits_under(&loads[i]);
	}
}

/* A longest log in the lowest term: nobody's log is good enough for those whose terms are, and the
 * other way round. Who refuses a pre-vote has to say its real term. */
static void members_whose_terms_drifted_apart_find_a_leader(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 3);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 2);
	bed_write(bed, 1, 3);
	for (uint64_t i = 1; i <= 3; i++) {
		bed_crash(bed, i);
	}
	bed->nodes[2].disk.term += 3;
	bed->nodes[2].disk.vote = 2;
	bed->nodes[3].disk.term += 6;
	bed->nodes[3].disk.vote = 3;
	bed_heal(bed);
	for (uint64_t i = 1; i <= 3; i++) {
		bed_start(bed, i);
	}
	bed_awake(bed);
	assert_int_not_equal(bed_any_leader(bed, 8000), 0);
	bed_run(bed, 500);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* The first append of a term, late, twice, at a follower that forgot what is below its floor. */
static void an_append_that_reaches_below_the_floor_is_trimmed(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 20);
	bed_run(bed, 150);
	bed_compact(bed, 2, 21);
	assert_int_equal(bed_raft(bed, 2)->floor, 21);
	assert_err(bed_say_append(bed, 1, 2, 0, 2, 1), RT_OK);
	assert_err(bed_say_append(bed, 1, 2, 0, 0, 0), RT_OK);
	assert_int_equal(bed_last_index(bed, 2), 21);
	assert_int_equal(bed->nodes[2].write_count, 1); /* the floor's, and no other */

	bed_cut(bed, 1, 2);
	bed_propose(bed, 1, 3);
	assert_err(bed_say_append(bed, 1, 2, 18, 6, 21), RT_OK);
	assert_int_equal(bed_last_index(bed, 2), 24);
	bed_heal(bed);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* What was said before a later acknowledgement, and arrives after it. */
static void a_stale_rejection_does_not_stop_a_follower(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 20);
	uint64_t term = bed_term(bed, 1);
	bed_cut(bed, 1, 3);
	bed_run(bed, 1500);
	const struct sh_raft_peer *peer = bed_peer(bed, 1, 3);
	assert_int_equal(peer->state, SH_PEER_PROBE);
	uint64_t match = peer->match;
	assert_int_equal(match, 21);
	struct sh_raft_message late = {.type = SH_MSG_APPEND_RESULT,
		.flags = SH_FLAG_REJECT,
		.from = 3,
		.to = 1,
		.term = term,
		.index = match,
		.hint = match - 4,
		.round = peer->round}; /* an older one would not be looked at */
	bed_heal(bed);
	assert_err(bed_say(bed, &late, NULL), RT_OK);
	assert_true(peer->next > peer->match);
	for (uint64_t index = 1; index <= match; index++) {
		late.index = index;
		late.hint = 1;
		late.round = peer->round;
		assert_err(bed_say(bed, &late, NULL), RT_OK);
		assert_true(peer->next > match && peer->match == match);
	}
	for (int i = 0; i < 200; i++) {
		bed_propose(bed, 1, 1);
		bed_run(bed, 5);
	}
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	assert_int_equal(bed_term(bed, 1), term);
	bed_free(bed);
}

/* ---- crashes ---- */

static void ask_for_vote(struct bed *bed, uint64_t from, uint64_t to, uint64_t term)
{
	struct sh_raft_message vote = {.type = SH_MSG_VOTE,
		.from = from,
		.to = to,
		.term = term,
		.index = 1000,
		.log_term = term - 1,
		.round = 77};
	assert_err(bed_say(bed, &vote, NULL), RT_OK);
	bed_run(bed, 2);
}

/* Term and vote are on the disk, the entries that came next are not. */
static void a_crash_between_vote_and_entries_keeps_the_vote(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 1);
	bed_elect(bed, 3);
	bed_hold_disk(bed, 2);
	uint64_t term = bed_term(bed, 3);
	bed_write(bed, 3, 2);
	assert_int_equal(bed->nodes[2].disk.vote, 3);
	bed_isolate(bed, 3);
	for (int twice = 0; twice < 2; twice++) {
		bed_crash(bed, 2);
		assert_true(bed->nodes[2].disk.log.last < bed_last_index(bed, 3));
		bed_start(bed, 2);
		assert_int_equal(bed_term(bed, 2), term);
		bed_run(bed, 50);
	}
	bed_release_disk(bed, 2);
	bed_run(bed, 1500);
	ask_for_vote(bed, 1, 2, term);
	assert_false(bed_last(bed, SH_MSG_VOTE_RESULT, 2, 1)->flags & SH_FLAG_GRANTED);
	bed_heal(bed);
	bed_awake(bed);
	assert_int_not_equal(bed_any_leader(bed, 5000), 0);
	bed_run(bed, 500);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Entries are on the disk, nobody heard so. */
static void a_crash_between_entries_and_acknowledgement_repeats_nothing(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 3);
	bed_hold(bed, SH_MSG_APPEND_RESULT, 2, 1);
	bed_write(bed, 1, 4);
	assert_int_equal(bed_commit(bed, 1), 4);
	for (int twice = 0; twice < 2; twice++) {
		bed_crash(bed, 2);
		bed_drop(bed, 0, 2, 1);
		assert_int_equal(bed->nodes[2].disk.log.last, 8);
		bed_start(bed, 2);
		assert_int_equal(bed_last_index(bed, 2), 8);
		bed_run(bed, 120);
	}
	uint64_t writes = bed->nodes[2].written;
	bed_release(bed, SH_MSG_APPEND_RESULT, 2, 1);
	bed_run(bed, 300);
	assert_int_equal(bed_commit(bed, 1), 8);
	assert_int_equal(bed->nodes[2].written, writes);
	bed_heal(bed);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* A follower that is behind the floor of the leader. */
static struct bed *bed_with_an_install(void)
{
	struct bed *bed = bed_new("1 2 3");
	bed->hold_installs = true;
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_crash(bed, 3);
	bed_write(bed, 1, 20);
	bed_compact(bed, 1, 20);
	bed_start(bed, 3);
	for (int i = 0; i < 3000 && !bed_raft(bed, 3)->installing; i++) {
		bed_run(bed, 1);
	}
	assert_true(bed_raft(bed, 3)->installing);
	bed_settle(bed);
	return bed;
}

/* Nothing of the old log may come back: it has a hole to what was being installed. */
static void a_crash_in_the_middle_of_an_install_starts_empty_and_installs_again(void **state)
{
	(void)state;
	struct bed *bed = bed_with_an_install();
	uint64_t term = bed_term(bed, 3);
	for (int twice = 0; twice < 2; twice++) {
		assert_err(bed_say_append(bed, 1, 3, 0, 2, 2), RT_OK);
		assert_int_equal(bed_last_index(bed, 3), 0); /* appends are ignored meanwhile */
		uint64_t written = bed->nodes[3].written;
		bed_run(bed, 2500);
		assert_int_equal(bed->nodes[3].written, written); /* nor is it begun again */
		bed_crash(bed, 3);
		bed_start(bed, 3);
		assert_int_equal(bed_last_index(bed, 3), 0);
		assert_int_equal(bed_term(bed, 3), term);
		for (int i = 0; i < 3000 && !bed_raft(bed, 3)->installing; i++) {
			bed_run(bed, 1);
		}
		assert_true(bed_raft(bed, 3)->installing);
		bed_settle(bed);
	}
	bed_write(bed, 1, 5);
	bed_fetch(bed, 3);
	bed_write(bed, 1, 5);
	bed_run(bed, 1500);
	assert_true(bed_converged(bed));
	assert_int_equal(bed_last_index(bed, 3), 34);
	bed_free(bed);
}

/* The source is gone before its last byte: the next leader's log serves as well. */
static void an_install_goes_on_from_the_next_leader(void **state)
{
	(void)state;
	struct bed *bed = bed_with_an_install();
	bed_crash(bed, 1);
	bed_elect(bed, 2);
	bed->hold_installs = false;
	bed_write(bed, 2, 5);
	bed_run(bed, 5000);
	assert_false(bed_raft(bed, 3)->installing);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* ---- leaders that go ---- */

static void a_leader_that_hears_nobody_steps_down(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	uint64_t term = bed_term(bed, 1);
	bed_cut_way(bed, 2, 1);
	bed_cut_way(bed, 3, 1);
	bed_awake(bed);
	bed_run(bed, 2000);
	assert_false(bed_leads(bed, 1));
	uint64_t next = bed_any_leader(bed, 4000);
	assert_true(next == 2 || next == 3);
	bed_write(bed, next, 3);
	assert_true(bed_commits(bed, next, 100));
	assert_true(bed_term(bed, next) > term);
	bed_free(bed);
}

/* Leadership goes only to who has stored everything; proposals wait meanwhile. */
static void a_transfer_waits_until_its_target_has_everything(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_hold_disk(bed, 3);
	bed_write(bed, 1, 5);
	assert_err(bed_transfer(bed, 1, 3), RT_OK);
	bed_run(bed, 500);
	assert_int_equal(bed->sent[SH_MSG_TIMEOUT_NOW], 0);
	uint64_t first;
	assert_err(sh_raft_propose(bed_raft(bed, 1), 1, &first), RT_E_AGAIN);
	assert_err(bed_try_members(bed, 1, "1 2 3 4s"), RT_E_AGAIN);
	bed_release_disk(bed, 3);
	bed_settle(bed);
	assert_true(bed_leads(bed, 3));
	assert_int_equal(bed_last_index(bed, 3), 10);
	bed_run(bed, 200);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

static void a_transfer_to_a_dead_target_is_given_up(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 3);
	bed_write(bed, 1, 3);
	assert_err(bed_transfer(bed, 1, 3), RT_OK);
	bed_run(bed, 900);
	uint64_t first;
	assert_err(sh_raft_propose(bed_raft(bed, 1), 1, &first), RT_E_AGAIN);
	bed_run(bed, 200);
	bed_write(bed, 1, 1);
	assert_true(bed_commits(bed, 1, 100));
	bed_heal(bed);
	bed_run(bed, 500);
	assert_true(bed_leads(bed, 1));
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* The floor stays in reach of who is being sent the log, however eager the host compacts. */
static void an_install_ends_although_the_leader_compacts_under_load(void **state)
{
	(void)state;
	struct bed *bed = bed_with_an_install();
	uint64_t installs = bed->sent[SH_MSG_INSTALL];
	bed->nodes[3].disk_ms = 40;
	for (int i = 0; i < 400; i++) {
		bed_propose(bed, 1, 5);
		bed_run(bed, 5);
		bed_compact(bed, 1, bed_commit(bed, 1));
		if (bed->nodes[3].fetch_from != 0 && i % 80 == 40) {
			bed_fetch(bed, 3);
		}
	}
	bed_run(bed, 200);
	assert_false(bed_raft(bed, 3)->installing);
	assert_int_equal(bed_last_index(bed, 3), bed_last_index(bed, 1));
	assert_in_range(bed->sent[SH_MSG_INSTALL] - installs, 0, 1);
	bed_compact(bed, 1, bed_commit(bed, 1));
	assert_true(bed_raft(bed, 1)->floor > 1000); /* and then it moves again */
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_entry_of_an_old_term_is_never_committed_by_counting),
		cmocka_unit_test(commits_keep_up_with_steady_proposals),
		cmocka_unit_test(members_whose_terms_drifted_apart_find_a_leader),
		cmocka_unit_test(an_append_that_reaches_below_the_floor_is_trimmed),
		cmocka_unit_test(a_stale_rejection_does_not_stop_a_follower),
		cmocka_unit_test(a_crash_between_vote_and_entries_keeps_the_vote),
		cmocka_unit_test(a_crash_between_entries_and_acknowledgement_repeats_nothing),
		cmocka_unit_test(
			a_crash_in_the_middle_of_an_install_starts_empty_and_installs_again),
		cmocka_unit_test(an_install_goes_on_from_the_next_leader),
		cmocka_unit_test(a_leader_that_hears_nobody_steps_down),
		cmocka_unit_test(a_transfer_waits_until_its_target_has_everything),
		cmocka_unit_test(a_transfer_to_a_dead_target_is_given_up),
		cmocka_unit_test(an_install_ends_although_the_leader_compacts_under_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
