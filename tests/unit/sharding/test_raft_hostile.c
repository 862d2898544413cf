/* Messages that no member which keeps to the protocol sends, and disks that contradict themselves:
 * refused, and nothing has changed. */
#include <string.h>

#include "tests/support/raftbed.h"

static struct bed *bed_at_work(void)
{
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 9);
	bed_run(bed, 150);
	return bed;
}

/* The answer; the core must be as it was unless it took the message. */
static rt_err say(struct bed *bed, struct sh_raft_message message, const struct bed_entry *entries)
{
	struct sh_raft before = *bed_raft(bed, message.to);
	uint64_t written = bed->nodes[message.to].written;
	rt_err err = bed_say(bed, &message, entries);
	if (err != RT_OK) {
		before.now = bed_raft(bed, message.to)->now; /* time goes on */
		assert_memory_equal(&before, bed_raft(bed, message.to), sizeof(before));
		assert_int_equal(bed->nodes[message.to].written, written);
	}
	return err;
}

static struct sh_raft_message from_leader(uint8_t type)
{
	return (struct sh_raft_message){
		.type = type, .from = 1, .to = 2, .term = 1, .index = 10, .log_term = 1};
}

static void messages_that_are_none_are_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	static const uint8_t types[] = {0, SH_MSG_FETCH, SH_MSG_CHUNK, SH_MSG_TYPES, 255};
	for (size_t i = 0; i < sizeof(types); i++) {
		m.type = types[i];
		assert_err(say(bed, m, NULL), RT_E_PROTO);
	}
	m = from_leader(SH_MSG_APPEND);
	m.flags = 0x80;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m = from_leader(SH_MSG_APPEND);
	m.term = 0;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m = from_leader(SH_MSG_APPEND);
	m.from = 0;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m.from = 2;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m = from_leader(SH_MSG_VOTE);
	m.count = 3;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	bed_free(bed);
}

static void a_message_for_another_node_is_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	m.to = 3;
	struct sh_raft before = *bed_raft(bed, 2);
	assert_err(sh_raft_recv(bed_raft(bed, 2), bed->now, &m, NULL), RT_E_PROTO);
	assert_memory_equal(&before, bed_raft(bed, 2), sizeof(before));
	bed_free(bed);
}

static void entries_whose_terms_make_no_sense_are_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	m.term = 5;
	m.log_term = 1;
	m.count = 2;
	struct bed_entry falling[] = {{.term = 3, .tag = 1}, {.term = 2, .tag = 2}};
	assert_err(say(bed, m, falling), RT_E_PROTO);
	struct bed_entry ahead[] = {{.term = 3, .tag = 1}, {.term = 6, .tag = 2}};
	assert_err(say(bed, m, ahead), RT_E_PROTO);
	m.log_term = 6;
	struct bed_entry six[] = {{.term = 6, .tag = 1}, {.term = 6, .tag = 2}};
	assert_err(say(bed, m, six), RT_E_PROTO);
	m.log_term = 1;
	m.index = UINT64_MAX - 1;
	struct bed_entry fine[] = {{.term = 3, .tag = 1}, {.term = 3, .tag = 2}};
	assert_err(say(bed, m, fine), RT_OK); /* answered: does not fit */
	assert_int_equal(bed_last_index(bed, 2), 10);
	m.term = 1;
	m.index = 0;
	m.log_term = 0;
	struct bed_entry zero[] = {{.term = 0, .tag = 1}, {.term = 1, .tag = 2}};
	assert_err(say(bed, m, zero), RT_E_PROTO);
	bed_free(bed);
}

/* An empty log would take it for an entry before all terms. */
static void an_entry_without_a_term_is_refused_by_an_empty_log(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	m.index = m.log_term = 0;
	m.count = 1;
	struct bed_entry zero = {.term = 0, .tag = 1};
	assert_err(say(bed, m, &zero), RT_E_PROTO);
	assert_int_equal(bed_last_index(bed, 2), 0);
	bed_free(bed);
}

/* Whatever term it names: what is committed stays. */
static void committed_entries_are_not_undone(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	assert_int_equal(bed_commit(bed, 2), 10);
	struct bed_entry other[] = {{.term = 7, .tag = 1}, {.term = 7, .tag = 2}};
	for (uint64_t index = 1; index < 10; index++) {
		struct sh_raft_message m = from_leader(SH_MSG_APPEND);
		m.from = 3;
		m.term = 7;
		m.index = index;
		m.log_term = 1;
		m.count = 2;
		bed->unsafe = true; /* a term that nobody was elected in */
		(void)bed_say(bed, &m, other);
		bed->unsafe = false;
		assert_int_equal(bed_last_index(bed, 2), 10);
		assert_int_equal(bed_term_of(bed, 2, index + 1), 1);
	}
	bed_free(bed);
}

/* The entry at the floor would have another term than the one that is known there. */
static void what_contradicts_the_floor_is_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	bed_compact(bed, 2, 5);
	struct bed_entry other[4] = {{.term = 1}, {.term = 1}, {.term = 3}, {.term = 3}};
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	m.from = 3;
	m.term = 7;
	m.index = 2;
	m.count = 4;
	assert_err(say(bed, m, other), RT_E_PROTO);
	m.count = 2; /* all of it below */
	assert_err(say(bed, m, other), RT_OK);
	assert_int_equal(bed_last_index(bed, 2), 10);
	bed_compact(bed, 2, 10);
	m.index = 8;
	m.count = 4; /* agrees at the floor, goes on above */
	assert_err(say(bed, m, other), RT_OK);
	assert_int_equal(bed_last_index(bed, 2), 12);
	bed_free(bed);
}

/* Late, repeated, or for nothing: who has what is at the floor needs nothing. */
static void an_install_that_is_not_needed_changes_nothing(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	bed_cut(bed, 1, 2);
	bed_propose(bed, 1, 5);
	assert_err(bed_say_append(bed, 1, 2, 10, 5, 10), RT_OK);
	bed_run(bed, 5);
	struct sh_raft_message m = from_leader(SH_MSG_INSTALL);
	static const uint64_t floors[] = {5, 10, 13};
	for (size_t i = 0; i < 3; i++) {
		m.index = floors[i];
		assert_err(say(bed, m, NULL), RT_OK);
		assert_false(bed_raft(bed, 2)->installing);
		assert_int_equal(bed_last_index(bed, 2), 15);
		assert_int_equal(bed_commit(bed, 2), floors[i] > 10 ? floors[i] : 10);
	}
	bed_run(bed, 2);
	m.index = 0;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m.index = 14;
	m.log_term = 0;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	bed_isolate(bed, 1);
	bed_elect(bed, 2);
	bed_run(bed, 150);
	m = from_leader(SH_MSG_INSTALL);
	m.to = 3;
	m.index = 1000;
	assert_err(say(bed, m, NULL), RT_OK); /* of a term that is over */
	assert_false(bed_raft(bed, 3)->installing);
	bed_free(bed);
}

static void a_second_leader_of_the_term_is_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = from_leader(SH_MSG_APPEND);
	m.from = 2;
	m.to = 1;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m = from_leader(SH_MSG_INSTALL);
	m.from = 2;
	m.to = 1;
	assert_true(say(bed, m, NULL) != RT_OK || bed_leads(bed, 1));
	assert_true(bed_leads(bed, 1));
	bed_free(bed);
}

static void results_from_the_future_are_refused(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = {
		.type = SH_MSG_APPEND_RESULT, .from = 2, .to = 1, .term = 1, .index = 11};
	assert_err(say(bed, m, NULL), RT_E_PROTO); /* beyond the last entry */
	m.index = UINT64_MAX;
	assert_err(say(bed, m, NULL), RT_E_PROTO);
	m.index = 10;
	m.round = bed_raft(bed, 1)->round + 1;
	assert_err(say(bed, m, NULL), RT_E_PROTO); /* a round that was not begun */
	m.round = 0;
	m.stamp = bed->now + 100000;
	assert_err(say(bed, m, NULL), RT_E_PROTO); /* a lease without end */
	m.stamp = 0;
	m.flags = SH_FLAG_REJECT;
	m.index = UINT64_MAX;
	m.hint = UINT64_MAX;
	(void)say(bed, m, NULL);
	m.index = 10;
	(void)say(bed, m, NULL);
	m.hint = 0;
	(void)say(bed, m, NULL);
	assert_int_equal(bed_peer(bed, 1, 2)->match, 10);
	bed_write(bed, 1, 3);
	bed_run(bed, 150);
	assert_true(bed_converged(bed));
	bed_free(bed);
}

static void strangers_change_nothing(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	for (uint8_t type = SH_MSG_APPEND; type < SH_MSG_FETCH; type++) {
		struct sh_raft_message m = {
			.type = type, .from = 6, .to = 1, .term = 1, .index = 10, .log_term = 1};
		(void)bed_say(bed, &m, NULL);
		bed_run(bed, 2);
		assert_true(bed_leads(bed, 1));
		assert_int_equal(bed_commit(bed, 1), 10);
	}
	bed_write(bed, 1, 3);
	assert_true(bed_commits(bed, 1, 50));
	bed_free(bed);
}

/* Two leaders cannot be: who leads ignores a take-over that it did not order. */
static void a_leader_is_not_talked_out_of_leading(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft_message m = {.type = SH_MSG_TIMEOUT_NOW, .from = 2, .to = 1, .term = 1};
	assert_err(say(bed, m, NULL), RT_OK);
	m.type = SH_MSG_REMOVED;
	m.index = 100;
	m.round = bed_raft(bed, 1)->round;
	m.stamp = bed_raft(bed, 1)->round_at;
	assert_err(say(bed, m, NULL), RT_OK);
	assert_true(bed_leads(bed, 1));
	bed_free(bed);
}

/* ---- the host and its disk ---- */

static rt_err restore(const struct sh_raft_restore *restore, uint32_t count, uint64_t term)
{
	struct sh_raft raft;
	struct sh_out_queue out = {0};
	struct sh_raft_settings settings = {.node = 1};
	rt_err err = sh_raft_init(&raft, &settings, restore, &out);
	if (err != RT_OK) {
		return err;
	}
	if (term != 0) {
		err = sh_raft_restore_entries(&raft, count, term, NULL);
	}
	if (err == RT_OK) {
		err = sh_raft_start(&raft, 1000);
	}
	sh_raft_done(&raft);
	sh_out_queue_done(&out);
	return err;
}

static void a_disk_that_contradicts_itself_is_refused(void **state)
{
	(void)state;
	struct sh_raft_restore good = {.term = 5,
		.floor = 10,
		.floor_term = 3,
		.set_index = 4,
		.members = bed_members("1 2 3"),
		.commit = 12};
	assert_err(restore(&good, 2, 4), RT_OK);
	assert_err(restore(&good, 1, 4), RT_E_CORRUPT); /* ends before what was committed */
	assert_err(restore(&good, 2, 2), RT_E_CORRUPT); /* a term below the floor's */
	assert_err(restore(&good, 2, 6), RT_E_CORRUPT); /* one above the hard state's */
	struct sh_raft_restore bad = good;
	bad.commit = 9;
	assert_err(restore(&bad, 2, 4), RT_E_CORRUPT);
	bad = good;
	bad.set_index = 11;
	assert_err(restore(&bad, 2, 4), RT_E_CORRUPT);
	bad = good;
	bad.floor_term = 0;
	assert_err(restore(&bad, 2, 4), RT_E_CORRUPT);
	bad = good;
	bad.term = 2; /* an install brought a floor of a term it was never in */
	bad.commit = 10;
	assert_err(restore(&bad, 2, 3), RT_OK);
}

static void a_host_that_miscounts_is_told(void **state)
{
	(void)state;
	struct bed *bed = bed_at_work();
	struct sh_raft *raft = bed_raft(bed, 1);
	assert_err(sh_raft_stored(raft, 11, raft->generation), RT_E_INVAL);
	assert_err(sh_raft_stored(raft, 11, raft->generation + 1), RT_OK);
	assert_int_equal(raft->stored, 10);
	uint64_t first;
	assert_err(sh_raft_propose(raft, 0, &first), RT_E_INVAL);
	assert_err(sh_raft_propose(bed_raft(bed, 2), 1, &first), RT_E_FENCED);
	assert_err(sh_raft_transfer(raft, bed->now, 1), RT_E_INVAL);
	assert_err(sh_raft_transfer(raft, bed->now, 6), RT_E_INVAL);
	assert_err(sh_raft_transfer(bed_raft(bed, 2), bed->now, 1), RT_E_FENCED);
	assert_err(sh_raft_sent(raft, 2, 5), RT_OK); /* nothing was offered */
	assert_err(sh_raft_sent(raft, 6, 5), RT_OK);
	assert_err(sh_raft_resume(raft, 2), RT_OK);
	assert_err(sh_raft_resume(bed_raft(bed, 2), 1), RT_OK);
	assert_int_equal(bed_peer(bed, 1, 2)->next, 11);
	assert_err(sh_raft_tick(raft, bed->now), RT_OK); /* too early */
	struct sh_raft_set set = {0, bed_members("1 2 3")};
	assert_err(sh_raft_installed(raft, 20, 1, &set), RT_E_INVAL);
	sh_raft_applied(raft, 1000);
	assert_int_equal(raft->applied, 10);
	sh_raft_compact(raft, 1000);
	assert_int_equal(raft->floor, 10);
	bed_drain(&bed->nodes[1]);
	bed_free(bed);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_that_are_none_are_refused),
		cmocka_unit_test(a_message_for_another_node_is_refused),
		cmocka_unit_test(entries_whose_terms_make_no_sense_are_refused),
		cmocka_unit_test(an_entry_without_a_term_is_refused_by_an_empty_log),
		cmocka_unit_test(committed_entries_are_not_undone),
		cmocka_unit_test(a_second_leader_of_the_term_is_refused),
		cmocka_unit_test(results_from_the_future_are_refused),
		cmocka_unit_test(strangers_change_nothing),
		cmocka_unit_test(a_leader_is_not_talked_out_of_leading),
		cmocka_unit_test(a_disk_that_contradicts_itself_is_refused),
		cmocka_unit_test(a_host_that_miscounts_is_told),
		cmocka_unit_test(what_contradicts_the_floor_is_refused),
		cmocka_unit_test(an_install_that_is_not_needed_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
