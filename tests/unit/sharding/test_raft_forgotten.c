/* Found by the simulator: logs that were forgotten, votes that are taken away, members nobody ever
 * heard, members of earlier terms. */
#include "runtime/base/bytes.h"
#include "sharding/raft.h"
#include "tests/support/test.h"

struct one {
	struct sh_raft raft;
	struct sh_out_queue queue;
	struct sh_raft_message said; /* the newest */
};

static struct sh_members members_of(uint8_t count, uint8_t voters)
{
	struct sh_members members = {0};
	for (uint8_t i = 0; i < count; i++) {
		assert_err(sh_members_put(&members, i + 1u, (voters >> i & 1) != 0), RT_OK);
	}
	return members;
}

static void open_one(struct one *one, const struct sh_raft_restore *restore)
{
	struct sh_raft_settings settings = {.node = 1, .election_ms = 300, .seed = 1};
	*one = (struct one){0};
	assert_err(sh_raft_init(&one->raft, &settings, restore, &one->queue), RT_OK);
}

static void drain(struct one *one)
{
	struct sh_out out;
	while (sh_out_next(&one->queue, &out)) {
		if (out.kind == SH_OUT_SEND) {
			one->said = out.send;
		}
	}
}

static void start_one(struct one *one)
{
	assert_err(sh_raft_start(&one->raft, 0), RT_OK);
	drain(one);
}

static void close_one(struct one *one)
{
	sh_raft_check(&one->raft);
	sh_raft_done(&one->raft);
	sh_out_queue_done(&one->queue);
}

static void hear(struct one *one, uint64_t now, struct sh_raft_message message)
{
	message.from = 2;
	message.to = 1;
	assert_err(sh_raft_recv(&one->raft, now, &message, NULL), RT_OK);
	drain(one);
}

static bool votes_for(struct one *one, uint64_t term, uint64_t index, uint64_t log_term)
{
	hear(one, term * 1000,
		(struct sh_raft_message){
			.type = SH_MSG_VOTE, .term = term, .index = index, .log_term = log_term});
	assert_int_equal(one->said.type, SH_MSG_VOTE_RESULT);
	return (one->said.flags & SH_FLAG_GRANTED) != 0;
}

static void a_node_that_forgot_its_log_votes_as_if_it_had_it(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.term = 3, .bar_index = 10, .bar_term = 2});
	start_one(&one);
	assert_false(votes_for(&one, 4, 9, 2));
	assert_false(votes_for(&one, 5, 100, 1));
	assert_true(votes_for(&one, 6, 10, 2));
	assert_true(votes_for(&one, 7, 1, 3));
	close_one(&one);
}

static void a_log_that_an_install_replaces_still_counts_in_votes(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.term = 1, .members = members_of(3, 7)});
	assert_err(sh_raft_restore_entries(&one.raft, 5, 1, NULL), RT_OK);
	start_one(&one);
	hear(&one, 500,
		(struct sh_raft_message){
			.type = SH_MSG_INSTALL, .term = 2, .index = 9, .log_term = 2});
	assert_true(one.raft.installing);
	assert_false(votes_for(&one, 3, 4, 1));
	assert_true(votes_for(&one, 4, 5, 1));
	close_one(&one);
}

/* It was of a leader nobody followed, and may be all that would hinder the two that are left. */
static void what_nobody_else_had_does_not_count_when_it_is_forgotten(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.term = 7, .members = members_of(3, 7)});
	assert_err(sh_raft_restore_entries(&one.raft, 5, 7, NULL), RT_OK);
	start_one(&one);
	hear(&one, 500,
		(struct sh_raft_message){
			.type = SH_MSG_INSTALL, .term = 8, .index = 9, .log_term = 6});
	assert_true(one.raft.installing);
	assert_false(votes_for(&one, 9, 8, 6));
	assert_true(votes_for(&one, 10, 9, 6));
	close_one(&one);
}

static void a_node_below_what_it_forgot_does_not_stand(void **state)
{
	(void)state;
	struct one one;
	struct sh_raft_restore restore = {
		.term = 2, .members = members_of(3, 7), .bar_index = 4, .bar_term = 1};
	open_one(&one, &restore);
	assert_err(sh_raft_restore_entries(&one.raft, 3, 1, NULL), RT_OK);
	start_one(&one);
	assert_true(sh_raft_next_timeout(&one.raft) == UINT64_MAX);
	close_one(&one);
	open_one(&one, &restore);
	assert_err(sh_raft_restore_entries(&one.raft, 4, 1, NULL), RT_OK);
	start_one(&one);
	assert_true(sh_raft_next_timeout(&one.raft) < UINT64_MAX);
	close_one(&one);
}

/* The set {1 2}, then 1 is to lose its vote: 2 alone may decide that, and may not have it. */
static bool stands_when_demoted(uint64_t commit)
{
	struct one one;
	struct sh_members after = members_of(2, 2);
	open_one(&one, &(struct sh_raft_restore){.term = 1, .members = members_of(2, 3)});
	assert_err(sh_raft_restore_entries(&one.raft, 1, 1, NULL), RT_OK);
	assert_err(sh_raft_restore_entries(&one.raft, 1, 1, &after), RT_OK);
	one.raft.commit = one.raft.applied = commit;
	start_one(&one);
	bool stands = sh_raft_next_timeout(&one.raft) < UINT64_MAX;
	close_one(&one);
	return stands;
}

static void who_loses_its_vote_stands_until_that_is_committed(void **state)
{
	(void)state;
	assert_true(stands_when_demoted(1));
	assert_false(stands_when_demoted(2));
}

static void a_learner_nobody_heard_is_not_promoted(void **state)
{
	(void)state;
	struct one one;
	uint64_t index;
	struct sh_members learner = members_of(2, 1);
	struct sh_members voter = members_of(2, 3);
	open_one(&one, &(struct sh_raft_restore){.members = members_of(1, 1)});
	start_one(&one);
	assert_err(sh_raft_stored(&one.raft, 1, one.raft.generation), RT_OK);
	drain(&one);
	assert_err(sh_raft_propose_members(&one.raft, &learner, &index), RT_OK);
	drain(&one);
	assert_err(sh_raft_stored(&one.raft, 2, one.raft.generation), RT_OK);
	drain(&one);
	assert_err(sh_raft_propose_members(&one.raft, &voter, &index), RT_E_AGAIN);
	hear(&one, 10,
		(struct sh_raft_message){.type = SH_MSG_APPEND_RESULT,
			.round = one.raft.round,
			.term = one.raft.term,
			.index = 1});
	assert_err(sh_raft_propose_members(&one.raft, &voter, &index), RT_OK);
	drain(&one);
	close_one(&one);
}

/* The leader that took itself out of {1 2} may live, with a lease of what 1 said before it fell. */
static enum sh_role role_at_start(uint64_t commit)
{
	struct one one;
	struct sh_members after = members_of(1, 1);
	open_one(&one, &(struct sh_raft_restore){.term = 1, .members = members_of(2, 3)});
	assert_err(sh_raft_restore_entries(&one.raft, 1, 1, NULL), RT_OK);
	assert_err(sh_raft_restore_entries(&one.raft, 1, 1, &after), RT_OK);
	one.raft.commit = one.raft.applied = commit;
	start_one(&one);
	enum sh_role role = one.raft.role;
	close_one(&one);
	return role;
}

static void a_sole_voter_leads_at_once_when_that_set_is_known_to_be_committed(void **state)
{
	(void)state;
	assert_int_equal(role_at_start(2), SH_LEADER);
	assert_int_equal(role_at_start(1), SH_FOLLOWER);
}

static void change(struct one *one, struct sh_members members)
{
	uint64_t index;
	assert_err(sh_raft_propose_members(&one->raft, &members, &index), RT_OK);
	drain(one);
	assert_err(sh_raft_stored(&one->raft, index, one->raft.generation), RT_OK);
	drain(one);
}

/* 2 is removed, renewed and added again: what it had in an earlier term of this leader is gone. */
static void a_leader_knows_nothing_of_members_from_its_earlier_terms(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.members = members_of(1, 1)});
	start_one(&one);
	assert_err(sh_raft_stored(&one.raft, 1, one.raft.generation), RT_OK);
	drain(&one);
	change(&one, members_of(2, 1));
	hear(&one, 10,
		(struct sh_raft_message){.type = SH_MSG_APPEND_RESULT,
			.term = one.raft.term,
			.index = 2,
			.round = one.raft.round});
	assert_int_equal(one.raft.peers[1].match, 2);
	struct sh_members alone = members_of(1, 1);
	struct sh_raft_entry entry = {.term = 9, .members = &alone};
	struct sh_raft_message append = {.type = SH_MSG_APPEND,
		.from = 3,
		.to = 1,
		.term = 9,
		.index = 2,
		.log_term = one.raft.term,
		.count = 1,
		.commit = 3};
	assert_err(sh_raft_recv(&one.raft, 20, &append, &entry), RT_OK);
	drain(&one);
	assert_err(sh_raft_stored(&one.raft, 3, one.raft.generation), RT_OK);
	drain(&one);
	assert_err(sh_raft_tick(&one.raft, sh_raft_next_timeout(&one.raft)), RT_OK);
	drain(&one);
	assert_int_equal(one.raft.role, SH_LEADER);
	assert_err(sh_raft_stored(&one.raft, one.raft.last, one.raft.generation), RT_OK);
	drain(&one);
	change(&one, members_of(2, 1));
	assert_int_equal(one.raft.peers[1].match, 0);
	close_one(&one);
}

/* The same within one term: the answer of the member that it was arrives when it is one again, with
 * an empty log. */
static void an_answer_of_an_earlier_membership_does_not_count(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.members = members_of(1, 1)});
	start_one(&one);
	assert_err(sh_raft_stored(&one.raft, 1, one.raft.generation), RT_OK);
	drain(&one);
	change(&one, members_of(2, 1));
	struct sh_raft_message late = {.type = SH_MSG_APPEND_RESULT,
		.term = one.raft.term,
		.index = 2,
		.round = one.raft.round};
	change(&one, members_of(1, 1));
	change(&one, members_of(2, 1));
	hear(&one, 10, late);
	assert_int_equal(one.raft.peers[1].match, 0);
	late.round = one.raft.round;
	hear(&one, 10, late);
	assert_int_equal(one.raft.peers[1].match, 2);
	close_one(&one);
}

static void a_host_cannot_have_sent_what_is_not_there(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.members = members_of(1, 1)});
	start_one(&one);
	assert_err(sh_raft_stored(&one.raft, 1, one.raft.generation), RT_OK);
	drain(&one);
	struct sh_members two = members_of(2, 1);
	uint64_t index;
	assert_err(sh_raft_propose_members(&one.raft, &two, &index), RT_OK);
	assert_err(sh_raft_propose(&one.raft, 1, &index), RT_OK);
	drain(&one);
	assert_true(one.raft.peers[1].offered);
	assert_err(sh_raft_sent(&one.raft, 2, 3), RT_E_INVAL);
	assert_true(one.raft.peers[1].offered);
	assert_err(sh_raft_sent(&one.raft, 2, 1), RT_OK);
	drain(&one);
	close_one(&one);
}

/* The log that was fetched ends in a term that this node never heard of. */
static void an_install_brings_its_term(void **state)
{
	(void)state;
	struct one one;
	open_one(&one, &(struct sh_raft_restore){.term = 2, .members = members_of(2, 3)});
	start_one(&one);
	hear(&one, 10,
		(struct sh_raft_message){
			.type = SH_MSG_INSTALL, .term = 3, .index = 7, .log_term = 2});
	assert_true(one.raft.installing);
	struct sh_raft_set set = {.index = 1, .members = members_of(2, 3)};
	assert_err(sh_raft_installed(&one.raft, 9, 5, &set), RT_OK);
	assert_int_equal(one.raft.term, 5);
	assert_int_equal(one.raft.vote, 0);
	assert_int_equal(one.raft.commit, 9);
	drain(&one);
	/* Once more, of what it has: nothing is dropped. */
	hear(&one, 20,
		(struct sh_raft_message){
			.type = SH_MSG_INSTALL, .term = 5, .index = 9, .log_term = 5});
	assert_false(one.raft.installing);
	assert_int_equal(one.said.type, SH_MSG_APPEND_RESULT);
	assert_int_equal(one.said.index, 9);
	close_one(&one);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_node_that_forgot_its_log_votes_as_if_it_had_it),
		cmocka_unit_test(a_log_that_an_install_replaces_still_counts_in_votes),
		cmocka_unit_test(what_nobody_else_had_does_not_count_when_it_is_forgotten),
		cmocka_unit_test(a_node_below_what_it_forgot_does_not_stand),
		cmocka_unit_test(who_loses_its_vote_stands_until_that_is_committed),
		cmocka_unit_test(a_sole_voter_leads_at_once_when_that_set_is_known_to_be_committed),
		cmocka_unit_test(a_leader_knows_nothing_of_members_from_its_earlier_terms),
		cmocka_unit_test(an_answer_of_an_earlier_membership_does_not_count),
		cmocka_unit_test(a_host_cannot_have_sent_what_is_not_there),
		cmocka_unit_test(an_install_brings_its_term),
		cmocka_unit_test(a_learner_nobody_heard_is_not_promoted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
