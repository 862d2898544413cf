/* Who stands for election, who gets a vote, and what protects a leader. */
#include "tests/support/raftbed.h"

#define ELECTION_MS 1000u

static const struct sh_raft_message *answer(struct bed *bed, uint64_t from, uint64_t to)
{
	return bed_last(bed, SH_MSG_VOTE_RESULT, from, to);
}

/* Asks node `to` for a vote as node `from` would with the better log. */
static bool is_granted(struct bed *bed, uint64_t from, uint64_t to, uint64_t term, uint8_t flags)
{
	struct sh_raft_message vote = {.type = SH_MSG_VOTE,
		.flags = flags,
		.from = from,
		.to = to,
		.term = term,
		.index = 1000,
		.log_term = term - 1,
		.round = 7777};
	uint64_t before = bed->sent[SH_MSG_VOTE_RESULT];
	assert_err(bed_say(bed, &vote, NULL), RT_OK);
	bed_run(bed, 1);
	assert_int_equal(bed->sent[SH_MSG_VOTE_RESULT], before + 1);
	return (answer(bed, to, from)->flags & SH_FLAG_GRANTED) != 0;
}

/* ---- who stands ---- */

/* It could win with entries that a crash takes from it again. */
static void nobody_campaigns_on_what_is_not_stored(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_hold_disk(bed, 2);
	bed_write(bed, 1, 3);
	assert_int_equal(bed_last_index(bed, 2), 4);
	bed_isolate(bed, 1);
	uint64_t asked = bed->sent[SH_MSG_VOTE];
	bed->nodes[2].timers = true;
	bed_run(bed, 5000);
	assert_int_equal(bed->sent[SH_MSG_VOTE], asked);
	bed_release_disk(bed, 2);
	bed_elect(bed, 2);
	bed_free(bed);
}

static void who_is_told_to_take_over_does_not_before_all_is_stored(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_hold_disk(bed, 2);
	bed_write(bed, 1, 3);
	struct sh_raft_message now = {
		.type = SH_MSG_TIMEOUT_NOW, .from = 1, .to = 2, .term = bed_term(bed, 1)};
	assert_err(bed_say(bed, &now, NULL), RT_OK);
	assert_int_equal(bed_raft(bed, 2)->role, SH_FOLLOWER);
	assert_int_equal(bed_term(bed, 2), bed_term(bed, 1));
	bed_free(bed);
}

static void a_standby_does_not_stand(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3s");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 1);
	bed_isolate(bed, 2);
	bed->nodes[3].timers = true;
	uint64_t asked = bed->sent[SH_MSG_VOTE];
	bed_run(bed, 5000);
	assert_int_equal(bed->sent[SH_MSG_VOTE], asked);
	struct sh_raft_message now = {
		.type = SH_MSG_TIMEOUT_NOW, .from = 1, .to = 3, .term = bed_term(bed, 3)};
	assert_err(bed_say(bed, &now, NULL), RT_OK);
	assert_int_equal(bed_raft(bed, 3)->role, SH_FOLLOWER);
	bed_free(bed);
}

/* Pre-vote: whoever cannot win does not raise the term, and disturbs nobody when it is back. */
static void an_isolated_member_keeps_its_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	uint64_t term = bed_term(bed, 1);
	bed_isolate(bed, 3);
	bed->nodes[3].timers = true;
	bed_run(bed, 20000);
	assert_int_equal(bed_raft(bed, 3)->role, SH_PRE_CANDIDATE);
	assert_int_equal(bed_term(bed, 3), term);
	bed_heal(bed);
	bed_run(bed, 3000);
	assert_true(bed_leads(bed, 1));
	assert_int_equal(bed_term(bed, 1), term);
	bed_free(bed);
}

/* One after the other, so that votes do not split; another shard begins with another node. */
static void voters_stand_in_the_order_of_their_rank(void **state)
{
	(void)state;
	for (uint32_t rank = 0; rank < 3; rank++) {
		struct sh_raft_settings settings = {
			.election_ms = 1000, .heartbeat_ms = 100, .rank = rank};
		struct bed *bed = bed_new_with("1 2 3", &settings);
		bed_awake(bed);
		uint64_t first = bed_any_leader(bed, 3000);
		assert_int_equal(first, (3 - rank) % 3 + 1);
		assert_int_equal(bed_term(bed, first), 1);
		bed_crash(bed, first);
		assert_int_equal(bed_any_leader(bed, 3000), first % 3 + 1);
		bed_free(bed);
	}
}

/* ---- who gets a vote ---- */

static void a_vote_leaves_when_it_is_on_the_disk(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_isolate(bed, 3);
	bed_hold_disk(bed, 2);
	assert_false(bed_try_elect(bed, 1));
	assert_int_equal(bed_raft(bed, 2)->vote, 1);
	assert_int_equal(answer(bed, 2, 1)->flags, SH_FLAG_PRE | SH_FLAG_GRANTED);
	bed_release_disk(bed, 2);
	bed_elect(bed, 1);
	bed_free(bed);
}

static void a_term_has_one_vote(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_run(bed, 2000);
	assert_true(is_granted(bed, 2, 1, 5, 0));
	bed_run(bed, 5);
	assert_false(is_granted(bed, 3, 1, 5, 0));
	assert_true(is_granted(bed, 2, 1, 5, 0));           /* its answer may have been lost */
	assert_true(is_granted(bed, 3, 1, 6, SH_FLAG_PRE)); /* pre-votes bind nobody */
	assert_true(is_granted(bed, 2, 1, 6, SH_FLAG_PRE));
	bed_free(bed);
}

static void a_log_that_is_behind_gets_no_vote(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 3);
	bed_write(bed, 1, 1);
	bed_isolate(bed, 1);
	bed_heal(bed);
	bed_crash(bed, 1);
	assert_false(bed_try_elect(bed, 3));
	bed_elect(bed, 2);
	bed_run(bed, 200);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* An entry of a later term beats any number of an earlier one. */
static void the_later_last_term_wins_not_the_longer_log(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_write(bed, 1, 10);
	bed_run(bed, 2000);
	bed_elect(bed, 2);
	bed_settle(bed);
	bed_heal(bed);
	bed_isolate(bed, 2);
	bed_crash(bed, 2);
	assert_false(bed_try_elect(bed, 1));
	bed_elect(bed, 3);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

/* Measured from the leader's last word, not from when the own timer happens to fire. */
static void a_leader_heard_within_an_election_timeout_is_protected(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_run(bed, 5);
	uint64_t heard = bed_raft(bed, 2)->contact;
	uint64_t term = bed_term(bed, 2) + 1;
	bed_run(bed, heard + ELECTION_MS - bed->now - 2);
	assert_false(is_granted(bed, 3, 2, term, SH_FLAG_PRE));
	assert_int_equal(bed->now, heard + ELECTION_MS - 1);
	assert_false(is_granted(bed, 3, 2, term, 0));
	assert_int_equal(bed_term(bed, 2), term - 1); /* and its term is not believed either */
	assert_true(is_granted(bed, 3, 2, term, SH_FLAG_PRE));
	assert_true(bed_raft(bed, 2)->deadline > bed->now);
	bed_free(bed);
}

static void a_leader_is_not_disturbed_by_votes(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	assert_false(is_granted(bed, 2, 1, bed_term(bed, 1) + 5, 0));
	assert_true(bed_leads(bed, 1));
	assert_true(is_granted(bed, 2, 1, bed_term(bed, 1) + 1, SH_FLAG_TRANSFER));
	assert_false(bed_leads(bed, 1));
	bed_free(bed);
}

/* The word that it gave its leader before the crash may carry a lease. */
static void a_restarted_voter_refuses_votes_for_an_election_timeout(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	uint64_t term = bed_term(bed, 2) + 1;
	bed_isolate(bed, 1);
	bed_crash(bed, 2);
	bed_start(bed, 2);
	assert_false(is_granted(bed, 3, 2, term, SH_FLAG_PRE));
	bed_run(bed, ELECTION_MS - 5);
	assert_false(is_granted(bed, 3, 2, term, 0));
	bed_run(bed, 10);
	assert_true(is_granted(bed, 3, 2, term, SH_FLAG_PRE));
	bed_free(bed);
}

static void a_refused_pre_vote_says_the_real_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_settle(bed);
	bed_isolate(bed, 1);
	bed_run(bed, 3000);
	uint64_t term = bed_term(bed, 2);
	assert_false(is_granted(bed, 3, 2, term, SH_FLAG_PRE));
	assert_int_equal(answer(bed, 2, 3)->term, term);
	assert_int_equal(answer(bed, 2, 3)->flags, SH_FLAG_PRE);
	struct sh_raft_message behind = {.type = SH_MSG_VOTE,
		.flags = SH_FLAG_PRE,
		.from = 3,
		.to = 2,
		.term = term + 4,
		.index = 0,
		.round = 7};
	assert_err(bed_say(bed, &behind, NULL), RT_OK);
	bed_run(bed, 1);
	assert_int_equal(answer(bed, 2, 3)->term, term);
	assert_int_equal(bed_term(bed, 2), term);
	bed_free(bed);
}

/* Votes of a campaign that was given up count for no later one, nor do those of strangers. */
static void only_votes_for_this_campaign_count(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4s");
	bed_hold(bed, SH_MSG_VOTE_RESULT, 0, 1);
	bed->nodes[1].timers = true;
	bed_run(bed, 1500);
	const struct sh_raft *raft = bed_raft(bed, 1);
	assert_int_equal(raft->role, SH_PRE_CANDIDATE);
	struct sh_raft_message vote = {.type = SH_MSG_VOTE_RESULT,
		.flags = SH_FLAG_PRE | SH_FLAG_GRANTED,
		.from = 4,
		.to = 1,
		.term = 1,
		.round = raft->round,
		.stamp = raft->round_at};
	assert_err(bed_say(bed, &vote, NULL), RT_OK); /* has no vote */
	vote.from = 6;
	assert_err(bed_say(bed, &vote, NULL), RT_OK); /* is no member */
	vote.from = 2;
	vote.round--;
	assert_err(bed_say(bed, &vote, NULL), RT_OK); /* meant another campaign */
	vote.round++;
	assert_int_equal(raft->role, SH_PRE_CANDIDATE);
	assert_err(bed_say(bed, &vote, NULL), RT_OK);
	assert_int_equal(raft->role, SH_CANDIDATE);
	bed_free(bed);
}

/* It came into the term by another word than a vote: its vote is free. */
static void a_vote_not_given_yet_is_given_in_the_running_term(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_run(bed, 2000);
	struct sh_raft_message m = {
		.type = SH_MSG_APPEND_RESULT, .from = 3, .to = 2, .term = 4, .round = 1};
	assert_err(bed_say(bed, &m, NULL), RT_OK);
	assert_int_equal(bed_term(bed, 2), 4);
	assert_int_equal(bed_raft(bed, 2)->vote, 0);
	bed_run(bed, 5);
	bed_hold_disk(bed, 2);
	struct sh_raft_message vote = {.type = SH_MSG_VOTE,
		.from = 1,
		.to = 2,
		.term = 4,
		.index = 5,
		.log_term = 3,
		.round = 9};
	assert_err(bed_say(bed, &vote, NULL), RT_OK);
	bed_run(bed, 5);
	assert_int_equal(bed->sent[SH_MSG_VOTE_RESULT], 0);
	bed_release_disk(bed, 2);
	bed_run(bed, 5);
	assert_int_equal(answer(bed, 2, 1)->flags, SH_FLAG_GRANTED);
	assert_int_equal(bed->nodes[2].disk.vote, 1);
	assert_false(is_granted(bed, 3, 2, 4, 0));
	bed_free(bed);
}

/* A leader with a vote in a five-member set needs two others, not one. */
static void a_majority_is_more_than_half(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3 4");
	bed_isolate(bed, 3);
	bed_isolate(bed, 4);
	assert_false(bed_try_elect(bed, 1));
	bed_heal(bed);
	bed_isolate(bed, 4);
	bed_elect(bed, 1);
	bed_free(bed);
}

/* ---- removal ---- */

static struct bed *bed_with_a_removed_member(void)
{
	struct bed *bed = bed_new("1 2 3 4");
	bed_elect(bed, 1);
	bed_write(bed, 1, 3);
	bed_isolate(bed, 4);
	bed_change(bed, 1, "1 2 3");
	bed_run(bed, 200);
	return bed;
}

/* Nobody sends it anything any more; asking is how it hears. */
static void a_removed_member_is_told_when_it_campaigns(void **state)
{
	(void)state;
	struct bed *bed = bed_with_a_removed_member();
	bed_heal(bed);
	bed->nodes[4].timers = true;
	bed_run(bed, 3000);
	assert_int_equal(bed->nodes[4].removed_at, 5);
	assert_true(bed_raft(bed, 4)->removed);
	assert_true(bed_leads(bed, 1));
	uint64_t asked = bed->sent[SH_MSG_VOTE];
	bed_run(bed, 5000);
	assert_int_equal(bed->sent[SH_MSG_VOTE], asked);
	assert_err(bed_say_append(bed, 1, 4, 0, 2, 2), RT_OK);
	assert_int_equal(bed_last_index(bed, 4), 4); /* and takes part in nothing */
	bed_free(bed);
}

/* It may have been added again since an older answer was written. */
static void removal_is_believed_only_as_the_answer_to_the_own_campaign(void **state)
{
	(void)state;
	struct bed *bed = bed_with_a_removed_member();
	struct sh_raft_message removed = {
		.type = SH_MSG_REMOVED, .from = 1, .to = 4, .term = bed_term(bed, 1), .index = 5};
	assert_err(bed_say(bed, &removed, NULL), RT_OK); /* it did not ask */
	bed->nodes[4].timers = true;
	bed_run(bed, 3000);
	const struct sh_raft *raft = bed_raft(bed, 4);
	assert_int_equal(raft->role, SH_PRE_CANDIDATE);
	removed.round = raft->round - 1;
	removed.stamp = raft->round_at;
	assert_err(bed_say(bed, &removed, NULL), RT_OK); /* of an earlier campaign */
	removed.round = raft->round;
	removed.stamp = raft->round_at - 1;
	assert_err(bed_say(bed, &removed, NULL), RT_OK); /* of an earlier life */
	removed.stamp = raft->round_at;
	removed.index = 0;
	assert_err(bed_say(bed, &removed, NULL), RT_OK); /* of a set older than its own */
	assert_false(raft->removed);
	removed.index = 5;
	assert_err(bed_say(bed, &removed, NULL), RT_OK);
	assert_true(raft->removed);
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_campaigns_on_what_is_not_stored),
		cmocka_unit_test(who_is_told_to_take_over_does_not_before_all_is_stored),
		cmocka_unit_test(a_standby_does_not_stand),
		cmocka_unit_test(an_isolated_member_keeps_its_term),
		cmocka_unit_test(voters_stand_in_the_order_of_their_rank),
		cmocka_unit_test(a_vote_leaves_when_it_is_on_the_disk),
		cmocka_unit_test(a_term_has_one_vote),
		cmocka_unit_test(a_log_that_is_behind_gets_no_vote),
		cmocka_unit_test(the_later_last_term_wins_not_the_longer_log),
		cmocka_unit_test(a_leader_heard_within_an_election_timeout_is_protected),
		cmocka_unit_test(a_leader_is_not_disturbed_by_votes),
		cmocka_unit_test(a_restarted_voter_refuses_votes_for_an_election_timeout),
		cmocka_unit_test(a_refused_pre_vote_says_the_real_term),
		cmocka_unit_test(only_votes_for_this_campaign_count),
		cmocka_unit_test(a_majority_is_more_than_half),
		cmocka_unit_test(a_removed_member_is_told_when_it_campaigns),
		cmocka_unit_test(removal_is_believed_only_as_the_answer_to_the_own_campaign),
		cmocka_unit_test(a_vote_not_given_yet_is_given_in_the_running_term),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
