/* The host of the core: what leaves when, what is told when, what is remembered. */
#include <stdlib.h>

#include "sharding/mark.h"
#include "sharding/replica.h"
#include "tests/support/hostbed.h"

static const struct sh_raft *raft_of(const struct hostbed *bed)
{
	return sh_replica_raft(bed->replica);
}

static struct hostbed *follower(void)
{
	struct hostbed *bed = hostbed_new(2, "1 2 3");
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	return bed;
}

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

static void assert_acks(struct hostbed *bed, uint64_t index)
{
	struct hostbed_message *ack = hostbed_take(bed, SH_MSG_APPEND_RESULT);
	assert_non_null(ack);
	assert_int_equal(ack->message.head.flags & SH_FLAG_REJECT, 0);
	assert_int_equal(ack->message.head.index, index);
	hostbed_drop(ack);
}

/* ---- durability ---- */
static void a_sole_voter_leads_when_its_first_entry_is_durable(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1");
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	assert_true(raft_of(bed)->role == SH_LEADER);
	assert_false(bed->leads);
	hostbed_sync(bed);
	assert_true(bed->leads);
	assert_int_equal(bed->lead_term, 1);
	assert_int_equal(bed->lead_last, 1);
	assert_int_equal(hostbed_term(bed, 1), 1);
	assert_true(sh_replica_next_timeout(bed->replica) >= bed->now + 1000);
	hostbed_free(bed);
}

static void a_proposal_is_committed_when_it_is_durable(void **state)
{
	struct hostbed *bed = hostbed_leader("1");
	struct rt_bytes record;
	uint64_t first;
	(void)state;
	assert_err(hostbed_try_propose(bed, 3, 100, &first), RT_OK);
	uint64_t number = sh_replica_written(bed->replica);
	assert_int_equal(first, 2);
	assert_int_equal(hostbed_propose(bed, 10), 5);
	assert_int_equal(bed->committed, 1);
	assert_true(sh_replica_record(bed->replica, 4, &record));
	hostbed_sync_to(bed, number);
	assert_int_equal(bed->committed, 4);
	assert_true(sh_replica_record(bed->replica, 5, &record));
	hostbed_sync(bed);
	assert_int_equal(bed->committed, 5);
	assert_false(sh_replica_record(bed->replica, 5, &record)); /* There are no peers. */
	hostbed_free(bed);
}

static void votes_leave_when_term_and_vote_are_durable(void **state)
{
	struct hostbed *bed = follower();
	struct sh_replica_stats stats;
	(void)state;
	bed->now += 5000;
	struct sh_raft_message vote = {.type = SH_MSG_VOTE, .term = 3, .round = 1, .stamp = 1};
	assert_err(hostbed_give(bed, 3, vote, NULL), RT_OK);
	assert_null(bed->sent);
	sh_replica_stats(bed->replica, &stats);
	assert_int_equal(stats.parked, 1);
	hostbed_sync(bed);
	struct hostbed_message *result = hostbed_take(bed, SH_MSG_VOTE_RESULT);
	assert_true((result->message.head.flags & SH_FLAG_GRANTED) != 0);
	hostbed_drop(result);
	sh_replica_stats(bed->replica, &stats);
	assert_int_equal(stats.parked, 0);
	/* And it is kept. */
	hostbed_crash(bed);
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->term, 3);
	assert_int_equal(raft_of(bed)->vote, 3);
	hostbed_free(bed);
}

static void own_votes_are_asked_for_when_the_own_vote_is_durable(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1 2 3");
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_wait(bed, 3000);
	struct sh_raft_message grant = {.type = SH_MSG_VOTE_RESULT,
		.flags = SH_FLAG_PRE | SH_FLAG_GRANTED,
		.term = 1,
		.round = raft_of(bed)->round,
		.stamp = raft_of(bed)->round_at};
	assert_true(hostbed_count(bed, SH_MSG_VOTE) >= 2);
	hostbed_forget(bed);
	assert_err(hostbed_give(bed, 2, grant, NULL), RT_OK);
	assert_int_equal(hostbed_count(bed, SH_MSG_VOTE), 0);
	hostbed_sync(bed);
	assert_int_equal(hostbed_count(bed, SH_MSG_VOTE), 2);
	hostbed_free(bed);
}

static void what_is_parked_is_bounded_by_the_newest_of_each_kind(void **state)
{
	struct hostbed *bed = follower();
	struct sh_replica_stats stats;
	const uint64_t terms[] = {5, 0};
	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_err(append(bed, 5, 0, 0, terms, 0), RT_OK);
	}
	for (uint64_t node = 3; node < 600; node++) {
		struct sh_raft_message vote = {.type = SH_MSG_VOTE, .term = 1, .round = 1};
		assert_err(hostbed_give(bed, node, vote, NULL), RT_OK);
	}
	sh_replica_stats(bed->replica, &stats);
	assert_in_range(stats.parked, 200, 256);
	assert_null(bed->sent);
	hostbed_sync(bed);
	assert_int_equal(hostbed_count(bed, SH_MSG_APPEND_RESULT), 2); /* before, after */
	hostbed_free(bed);
}

static void heartbeats_leave_without_waiting_for_the_own_log(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	hostbed_ack(bed, 2, 1);
	hostbed_ack(bed, 3, 1);
	hostbed_propose(bed, 100);
	assert_int_equal(hostbed_count(bed, SH_MSG_APPEND), 2);
	hostbed_forget(bed);
	hostbed_wait(bed, 100);
	assert_true(hostbed_count(bed, SH_MSG_APPEND) >= 2);
	hostbed_free(bed);
}

static void acknowledges_only_what_is_durable(void **state)
{
	struct hostbed *bed = follower();
	const uint64_t terms[] = {5, 5, 0};
	(void)state;
	assert_err(append(bed, 5, 0, 0, NULL, 0), RT_OK);
	hostbed_sync(bed);
	hostbed_forget(bed);
	assert_err(append(bed, 5, 0, 0, terms, 0), RT_OK);
	uint64_t two = sh_replica_written(bed->replica);
	assert_err(append(bed, 5, 2, 5, terms, 4), RT_OK);
	assert_null(bed->sent);
	assert_int_equal(bed->committed, 0); /* Committed, but not durable here. */
	hostbed_sync_to(bed, two - 1);
	assert_null(bed->sent);
	hostbed_sync_to(bed, two);
	assert_acks(bed, 2);
	assert_int_equal(bed->committed, 2);
	hostbed_sync(bed);
	assert_acks(bed, 4);
	assert_int_equal(bed->committed, 4);
	hostbed_free(bed);
}

static void a_completion_of_what_was_cut_off_is_ignored(void **state)
{
	struct hostbed *bed = follower();
	const uint64_t old[] = {4, 4, 4, 0};
	const uint64_t new[] = {6, 0};
	struct rt_bytes record;
	(void)state;
	assert_err(append(bed, 5, 0, 0, old, 0), RT_OK);
	uint64_t written = sh_replica_written(bed->replica);
	assert_err(append(bed, 6, 1, 4, new, 0), RT_OK);
	assert_int_equal(hostbed_last(bed), 2);
	hostbed_sync_to(bed, written);
	assert_int_equal(hostbed_count(bed, SH_MSG_APPEND_RESULT), 0);
	assert_true(raft_of(bed)->stored <= 1);
	assert_true(sh_replica_record(bed->replica, 2, &record));
	assert_false(sh_replica_record(bed->replica, 3, &record));
	hostbed_sync(bed);
	assert_acks(bed, 2);
	assert_int_equal(hostbed_term(bed, 2), 6);
	hostbed_crash(bed);
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->last, 2);
	assert_int_equal(sh_raft_term_at(raft_of(bed), 2), 6);
	hostbed_free(bed);
}

static void more_writes_in_flight_than_places_are_all_acknowledged(void **state)
{
	struct hostbed *bed = follower();
	const uint64_t one[] = {5, 0};
	(void)state;
	for (uint64_t i = 0; i < 40; i++) {
		assert_err(append(bed, 5, i, i == 0 ? 0 : 5, one, 0), RT_OK);
	}
	uint64_t stored = 0;
	for (uint64_t n = 1; n <= sh_replica_written(bed->replica); n++) {
		hostbed_sync_to(bed, n);
		assert_true(raft_of(bed)->stored >= stored);
		stored = raft_of(bed)->stored;
		assert_true(n < sh_replica_written(bed->replica) || stored == 40);
		assert_true(stored <= n);
	}
	hostbed_free(bed);
}

static void commits_are_told_when_durable_here(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	(void)state;
	uint64_t index = hostbed_propose(bed, 10);
	hostbed_ack(bed, 2, index);
	hostbed_ack(bed, 3, index);
	assert_int_equal(raft_of(bed)->commit, index);
	assert_int_equal(bed->committed, index - 1);
	hostbed_sync(bed);
	assert_int_equal(bed->committed, index);
	hostbed_free(bed);
}

/* ---- peers ---- */
static void sends_as_many_records_as_fit(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	uint64_t first;
	(void)state;
	hostbed_ack(bed, 2, 1);
	assert_err(hostbed_try_propose(bed, 9, 60000, &first), RT_OK);
	uint64_t next = first;
	for (struct hostbed_message *m; (m = hostbed_take(bed, SH_MSG_APPEND)) != NULL;) {
		if (m->message.head.to == 2 && m->message.head.count > 0) {
			size_t bytes = 0;
			for (uint32_t i = 0; i < m->message.head.count; i++) {
				bytes += m->message.records[i].size;
			}
			assert_int_equal(m->message.head.index, next - 1);
			assert_true(bytes <= SH_MESSAGE_BYTES);
			next += m->message.head.count;
		}
		hostbed_drop(m);
	}
	assert_int_equal(next, first + 9);
	/* One alone may be larger. */
	hostbed_propose(bed, 900000);
	uint32_t seen = 0;
	for (struct hostbed_message *m; (m = hostbed_take(bed, SH_MSG_APPEND)) != NULL;) {
		seen += m->message.head.to == 2 && m->message.head.count == 1;
		hostbed_drop(m);
	}
	assert_int_equal(seen, 1);
	assert_err(hostbed_try_propose(bed, 3000, 10, &first), RT_OK);
	for (struct hostbed_message *m; (m = hostbed_take(bed, SH_MSG_APPEND)) != NULL;) {
		assert_true(m->message.head.count <= SH_MESSAGE_RECORDS);
		hostbed_drop(m);
	}
	hostbed_free(bed);
}

/* A leader with 400 records of which the cache holds few; node 3 has only the first entry. */
static struct hostbed *leader_with_old_records(const char *members)
{
	struct hostbed *bed = hostbed_leader(members);
	struct rt_bytes record;
	bed->options.cache_bytes = 0;
	for (int i = 0; i < 400; i++) {
		hostbed_ack(bed, 2, hostbed_propose(bed, 8000));
		hostbed_sync(bed);
	}
	hostbed_forget(bed);
	assert_false(sh_replica_record(bed->replica, 200, &record));
	return bed;
}

static uint64_t sent_to(struct hostbed *bed, uint64_t node, uint64_t next)
{
	for (struct hostbed_message *m; (m = hostbed_take(bed, SH_MSG_APPEND)) != NULL;) {
		if (m->message.head.to == node && m->message.head.count > 0) {
			assert_int_equal(m->message.head.index, next - 1);
			for (uint32_t i = 0; i < m->message.head.count; i++) {
				assert_true(
					rt_bytes_equal(m->message.records[i], bed->log[next + i]));
			}
			next += m->message.head.count;
		}
		hostbed_drop(m);
	}
	return next;
}

static void reads_what_a_slow_peer_needs_from_the_log(void **state)
{
	struct hostbed *bed = leader_with_old_records("1 2 3");
	struct sh_replica_stats before;
	struct sh_replica_stats after;
	(void)state;
	sh_replica_stats(bed->replica, &before);
	assert_true(before.memory_bytes < 1024u * 1024u + 300000u);
	hostbed_ack(bed, 3, 1);
	assert_non_null(bed->reads);
	uint64_t next = 2;
	int reads = 0;
	while (next <= 401) {
		next = sent_to(bed, 3, next);
		hostbed_ack(bed, 3, next - 1);
		reads += hostbed_read(bed, RT_OK);
		assert_true(reads < 30);
	}
	assert_true(reads > 5);
	assert_null(bed->reads);
	hostbed_sync(bed);
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes <= before.memory_bytes);
	hostbed_free(bed);
}

static void a_read_that_fails_is_tried_again_with_the_next_tick(void **state)
{
	struct hostbed *bed = leader_with_old_records("1 2 3");
	(void)state;
	bed->read_full = true;
	hostbed_ack(bed, 3, 1);
	assert_null(bed->reads);
	bed->read_full = false;
	hostbed_wait(bed, 100);
	assert_non_null(bed->reads);
	hostbed_read(bed, RT_E_IO);
	assert_null(bed->reads);
	hostbed_forget(bed);
	hostbed_wait(bed, 100);
	assert_true(hostbed_read(bed, RT_OK));
	assert_true(sent_to(bed, 3, 2) > 20);
	hostbed_free(bed);
}

/* Between question and answer the log may become that of another leader. */
static void never_sends_what_was_read_and_is_not_in_the_log_any_more(void **state)
{
	struct hostbed *bed = leader_with_old_records("1 2 3");
	struct rt_bytes wrong[30];
	(void)state;
	for (int i = 0; i < 30; i++) {
		wrong[i] = hostbed_record(i < 4 ? 1 : 9, 20);
	}
	hostbed_ack(bed, 3, 1);
	struct hostbed_read *read = bed->reads;
	bed->reads = NULL;
	assert_int_equal(read->read.from, 2);
	assert_err(
		sh_replica_read_done(bed->replica, bed->now, read->read.ticket, RT_OK, wrong, 30),
		RT_OK);
	for (struct hostbed_message *m; (m = hostbed_take(bed, SH_MSG_APPEND)) != NULL;) {
		assert_true(m->message.head.to != 3 || m->message.head.count <= 4);
		hostbed_drop(m);
	}
	/* Nobody waits for that ticket any more. */
	assert_err(
		sh_replica_read_done(bed->replica, bed->now, read->read.ticket, RT_OK, wrong, 30),
		RT_OK);
	free(read);
	for (int i = 0; i < 30; i++) {
		free((void *)(uintptr_t)wrong[i].data);
	}
	hostbed_free(bed);
}

static void records_wait_for_term_and_vote_too(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1 2s");
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	assert_true(raft_of(bed)->role == SH_LEADER);
	assert_null(bed->sent);
	hostbed_sync(bed);
	assert_int_equal(sent_to(bed, 2, 1), 2);
	hostbed_free(bed);
}

/* ---- leadership ---- */
static void leads_when_the_first_entry_is_committed_and_durable(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1 2 3");
	uint64_t index;
	struct sh_members members = hostbed_members("1 2 3 4s");
	(void)state;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_wait(bed, 3000);
	for (int i = 0; i < 2; i++) {
		struct sh_raft_message grant = {.type = SH_MSG_VOTE_RESULT,
			.flags = (uint8_t)(SH_FLAG_GRANTED | (i == 0 ? SH_FLAG_PRE : 0)),
			.term = 1,
			.round = raft_of(bed)->round,
			.stamp = raft_of(bed)->round_at};
		assert_err(hostbed_give(bed, 2, grant, NULL), RT_OK);
	}
	assert_true(raft_of(bed)->role == SH_LEADER);
	assert_err(hostbed_try_propose(bed, 1, 1, &index), RT_E_FENCED);
	assert_err(sh_replica_linearize(bed->replica, bed->now, bed), RT_E_AGAIN);
	hostbed_ack(bed, 2, 1);
	hostbed_ack(bed, 3, 1);
	assert_int_equal(raft_of(bed)->commit, 1);
	assert_err(sh_replica_propose_members(bed->replica, &members, &index), RT_E_AGAIN);
	assert_false(bed->leads);
	hostbed_sync(bed);
	assert_true(bed->leads);
	assert_err(sh_replica_propose_members(bed->replica, &members, &index), RT_OK);
	assert_int_equal(index, 2);
	hostbed_ack(bed, 2, 2);
	hostbed_ack(bed, 3, 2);
	assert_int_equal(bed->members.index, 2);
	assert_true(sh_members_equal(&bed->members.members, &members));
	/* The entry says so to who reads the log. */
	hostbed_sync(bed);
	hostbed_crash(bed);
	hostbed_open(bed);
	assert_true(sh_members_equal(&sh_raft_members(raft_of(bed))->members, &members));
	hostbed_free(bed);
}

static void says_whom_it_follows(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	struct sh_raft_message head = {.type = SH_MSG_APPEND, .term = 9, .round = 1, .stamp = 1};
	uint64_t first;
	(void)state;
	head.index = 1;
	head.log_term = 1;
	assert_err(hostbed_give(bed, 3, head, NULL), RT_OK);
	assert_false(bed->leads);
	assert_int_equal(bed->leader, 3);
	assert_err(hostbed_try_propose(bed, 1, 10, &first), RT_E_FENCED);
	assert_err(sh_replica_transfer(bed->replica, bed->now, 2), RT_E_FENCED);
	uint32_t told = bed->follows_told;
	assert_err(hostbed_give(bed, 3, head, NULL), RT_OK);
	assert_int_equal(bed->follows_told, told);
	head.term = 10;
	assert_err(hostbed_give(bed, 2, head, NULL), RT_OK);
	assert_int_equal(bed->leader, 2);
	hostbed_wait(bed, 5000); /* silence */
	assert_int_equal(bed->leader, 0);
	hostbed_free(bed);
}

static void a_leader_that_hands_over_takes_no_proposals(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	uint64_t first;
	(void)state;
	uint64_t index = hostbed_propose(bed, 10);
	assert_err(sh_replica_transfer(bed->replica, bed->now, 9), RT_E_INVAL);
	assert_err(sh_replica_transfer(bed->replica, bed->now, 2), RT_OK);
	assert_err(hostbed_try_propose(bed, 2, 10, &first), RT_E_AGAIN);
	assert_int_equal(hostbed_count(bed, SH_MSG_TIMEOUT_NOW), 0);
	hostbed_ack(bed, 2, index);
	assert_int_equal(hostbed_count(bed, SH_MSG_TIMEOUT_NOW), 1);
	hostbed_wait(bed, 150);
	hostbed_ack(bed, 2, index);
	hostbed_ack(bed, 3, index);
	for (int i = 0; i < 10; i++) {
		hostbed_wait(bed, 100);
		hostbed_ack(bed, 2, index);
		hostbed_ack(bed, 3, index);
	}
	assert_err(hostbed_try_propose(bed, 2, 10, &first), RT_OK);
	assert_int_equal(first, index + 1);
	hostbed_free(bed);
}

/* The entry that removes the leader is committed by the others, before it is durable here. */
static void its_removal_is_told_when_the_tombstone_is_durable(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	struct sh_members others = hostbed_members("2 3");
	uint64_t index;
	(void)state;
	assert_err(sh_replica_propose_members(bed->replica, &others, &index), RT_OK);
	hostbed_ack(bed, 2, index);
	hostbed_ack(bed, 3, index);
	assert_true(sh_replica_removed(bed->replica));
	assert_false(bed->leads);
	uint64_t tombstone = sh_replica_written(bed->replica);
	hostbed_sync_to(bed, tombstone - 1);
	assert_false(bed->removed);
	hostbed_sync_to(bed, tombstone);
	assert_true(bed->removed);
	assert_true(sh_members_equal(&bed->members.members, &others));
	hostbed_free(bed);
}

/* Two peers far behind, one of them answered; then leadership is lost between the other's question
 * and its answer. */
static void what_was_read_for_peers_is_forgotten_with_leadership(void **state)
{
	struct hostbed *bed = leader_with_old_records("1 2 3 4s");
	struct sh_replica_stats before;
	struct sh_replica_stats after;
	struct sh_raft_message beat = {.type = SH_MSG_APPEND,
		.term = 9,
		.index = 1,
		.log_term = 1,
		.round = 1,
		.stamp = 1};
	(void)state;
	sh_replica_stats(bed->replica, &before);
	hostbed_ack(bed, 3, 1);
	hostbed_ack(bed, 4, 1);
	assert_true(hostbed_read(bed, RT_OK));
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes > before.memory_bytes);
	assert_err(hostbed_give(bed, 3, beat, NULL), RT_OK);
	hostbed_sync(bed);
	hostbed_forget(bed);
	while (hostbed_read(bed, RT_OK)) {
	}
	assert_null(bed->sent);
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes <= before.memory_bytes + 64);
	hostbed_free(bed);
}

static void what_was_read_for_a_peer_goes_when_it_is_removed(void **state)
{
	struct hostbed *bed = leader_with_old_records("1 2 3");
	struct sh_members two = hostbed_members("1 2");
	struct sh_replica_stats before;
	struct sh_replica_stats after;
	uint64_t index;
	(void)state;
	sh_replica_stats(bed->replica, &before);
	hostbed_ack(bed, 3, 1);
	while (hostbed_read(bed, RT_OK) && bed->reads != NULL) {
	}
	assert_err(sh_replica_propose_members(bed->replica, &two, &index), RT_OK);
	hostbed_sync(bed);
	sh_replica_stats(bed->replica, &after);
	assert_true(after.memory_bytes <= before.memory_bytes + 1024);
	hostbed_free(bed);
}

/* A second term while the first is not durable: what rests on the first leaves with it. */
static void each_message_waits_for_its_own_hard_state(void **state)
{
	struct hostbed *bed = follower();
	(void)state;
	bed->now += 5000;
	struct sh_raft_message vote = {.type = SH_MSG_VOTE, .term = 3, .round = 1, .stamp = 1};
	assert_err(hostbed_give(bed, 3, vote, NULL), RT_OK);
	uint64_t first = sh_replica_written(bed->replica);
	bed->now += 5000;
	vote.term = 4;
	assert_err(hostbed_give(bed, 1, vote, NULL), RT_OK);
	hostbed_sync_to(bed, first);
	assert_int_equal(hostbed_count(bed, SH_MSG_VOTE_RESULT), 1);
	struct hostbed_message *result = hostbed_take(bed, SH_MSG_VOTE_RESULT);
	assert_int_equal(result->message.head.to, 3);
	hostbed_drop(result);
	hostbed_sync(bed);
	assert_int_equal(hostbed_count(bed, SH_MSG_VOTE_RESULT), 1);
	hostbed_free(bed);
}

/* ---- a real group ---- */
static void three_replicas_agree(void **state)
{
	struct hostbed *beds[4] = {0};
	(void)state;
	for (uint64_t node = 1; node <= 3; node++) {
		beds[node - 1] = hostbed_new(node, "1 2 3");
		hostbed_open(beds[node - 1]);
		hostbed_start(beds[node - 1]);
	}
	for (int step = 0; step < 400; step++) {
		for (int i = 0; i < 3; i++) {
			hostbed_wait(beds[i], 25);
			if (beds[i]->leads && step % 7 != 0) {
				hostbed_propose(beds[i], (size_t)step);
			}
		}
		hostbed_run(beds);
	}
	assert_int_equal(beds[0]->leads + beds[1]->leads + beds[2]->leads, 1);
	assert_true(beds[0]->committed > 100);
	for (uint64_t i = 1; i < beds[0]->end; i++) {
		assert_true(rt_bytes_equal(beds[0]->log[i], beds[1]->log[i]));
		assert_true(rt_bytes_equal(beds[0]->log[i], beds[2]->log[i]));
	}
	for (int i = 0; i < 3; i++) {
		hostbed_free(beds[i]);
	}
}

/* ---- memory ---- */
static void an_idle_group_takes_two_kilobytes(void **state)
{
	struct hostbed *bed = hostbed_leader("1 2 3");
	struct sh_replica_stats stats;
	struct sh_out_queue queue = {0};
	(void)state;
	for (int i = 0; i < 100; i++) {
		uint64_t index = hostbed_propose(bed, 1000);
		hostbed_sync(bed);
		hostbed_ack(bed, 2, index);
		hostbed_ack(bed, 3, index);
	}
	sh_replica_stats(bed->replica, &stats);
	assert_true(stats.memory_bytes > 100000);
	for (int i = 0; i < 30; i++) {
		hostbed_wait(bed, 100);
		hostbed_ack(bed, 2, 101);
		hostbed_ack(bed, 3, 101);
	}
	sh_replica_stats(bed->replica, &stats);
	print_message("an idle group: %u bytes\n", (unsigned)stats.memory_bytes);
	assert_true(stats.memory_bytes <= 2048);
	hostbed_free(bed);
	/* One queue serves all replicas of a thread. */
	bed = hostbed_new(1, "1");
	bed->options.queue = &queue;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	assert_true(bed->leads);
	hostbed_free(bed);
	assert_true(queue.cap > 0);
	sh_out_queue_done(&queue);
}

static void the_cache_is_bounded_but_for_what_is_not_durable(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1 2s 3s");
	struct sh_replica_stats stats;
	struct rt_bytes record;
	uint64_t last = 0;
	(void)state;
	bed->options.cache_bytes = 100000;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	for (int i = 0; i < 300; i++) {
		last = hostbed_propose(bed, 1000);
	}
	assert_true(sh_replica_record(bed->replica, 2, &record));
	hostbed_sync(bed);
	assert_int_equal(bed->committed, last);
	sh_replica_stats(bed->replica, &stats);
	assert_true(stats.memory_bytes < 110000);
	assert_false(sh_replica_record(bed->replica, 2, &record));
	assert_true(sh_replica_record(bed->replica, last, &record));
	assert_true(rt_bytes_equal(record, bed->log[last]));
	hostbed_free(bed);
}

/* ---- nonsense ---- */
static void messages_that_make_no_sense_are_refused_and_counted(void **state)
{
	struct hostbed *bed = follower();
	struct sh_replica_stats stats;
	struct sh_raft_message head = {
		.type = SH_MSG_APPEND, .term = 2, .count = 1, .round = 1, .stamp = 1};
	struct rt_bytes record = rt_bytes_str("\x08\xff\xff\xff");
	struct sh_message message = {.head = head, .shard = HOSTBED_SHARD, .records = &record};
	(void)state;
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	record = rt_bytes_of(record.data, 0);
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	head.count = SH_MESSAGE_RECORDS + 1;
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	head.count = 0;
	assert_err(hostbed_give(bed, 2, head, NULL), RT_E_PROTO); /* from itself */
	assert_err(hostbed_give(bed, 0, head, NULL), RT_E_PROTO);
	message.head.count = 0;
	message.head.from = 1;
	message.head.to = 2;
	message.shard++;
	assert_err(sh_replica_recv(bed->replica, bed->now, &message), RT_E_PROTO);
	message.shard--;
	message.head.to = 3;
	assert_err(sh_replica_recv(bed->replica, bed->now, &message), RT_E_PROTO);
	head.type = SH_MSG_CHUNK;
	head.count = SH_MESSAGE_RECORDS + 1;
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	/* A set of members that is none. */
	head = (struct sh_raft_message){
		.type = SH_MSG_APPEND, .term = 2, .count = 1, .round = 1, .stamp = 1};
	record = hostbed_members_record(2, "1 2");
	((uint8_t *)(uintptr_t)record.data)[record.size - 18] = 9; /* count */
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	free((void *)(uintptr_t)record.data);
	record = hostbed_members_record(2, "1s 2s"); /* nobody votes */
	assert_err(hostbed_give(bed, 1, head, &record), RT_E_PROTO);
	free((void *)(uintptr_t)record.data);
	sh_replica_stats(bed->replica, &stats);
	assert_int_equal(stats.refused, 10);
	assert_int_equal(raft_of(bed)->last, 0);
	hostbed_free(bed);
}

static void who_would_undo_what_is_committed_is_refused(void **state)
{
	struct hostbed *bed = follower();
	const uint64_t terms[] = {2, 2, 0};
	const uint64_t other[] = {3, 0};
	(void)state;
	assert_err(append(bed, 2, 0, 0, terms, 2), RT_OK);
	hostbed_sync(bed);
	assert_int_equal(bed->committed, 2);
	assert_err(append(bed, 7, 0, 0, other, 2), RT_E_PROTO);
	hostbed_sync(bed);
	hostbed_crash(bed);
	hostbed_open(bed);
	assert_int_equal(sh_raft_term_at(raft_of(bed), 2), 2);
	hostbed_free(bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sole_voter_leads_when_its_first_entry_is_durable),
		cmocka_unit_test(a_proposal_is_committed_when_it_is_durable),
		cmocka_unit_test(votes_leave_when_term_and_vote_are_durable),
		cmocka_unit_test(own_votes_are_asked_for_when_the_own_vote_is_durable),
		cmocka_unit_test(what_is_parked_is_bounded_by_the_newest_of_each_kind),
		cmocka_unit_test(heartbeats_leave_without_waiting_for_the_own_log),
		cmocka_unit_test(acknowledges_only_what_is_durable),
		cmocka_unit_test(a_completion_of_what_was_cut_off_is_ignored),
		cmocka_unit_test(more_writes_in_flight_than_places_are_all_acknowledged),
		cmocka_unit_test(commits_are_told_when_durable_here),
		cmocka_unit_test(sends_as_many_records_as_fit),
		cmocka_unit_test(reads_what_a_slow_peer_needs_from_the_log),
		cmocka_unit_test(a_read_that_fails_is_tried_again_with_the_next_tick),
		cmocka_unit_test(never_sends_what_was_read_and_is_not_in_the_log_any_more),
		cmocka_unit_test(records_wait_for_term_and_vote_too),
		cmocka_unit_test(leads_when_the_first_entry_is_committed_and_durable),
		cmocka_unit_test(says_whom_it_follows),
		cmocka_unit_test(a_leader_that_hands_over_takes_no_proposals),
		cmocka_unit_test(its_removal_is_told_when_the_tombstone_is_durable),
		cmocka_unit_test(what_was_read_for_peers_is_forgotten_with_leadership),
		cmocka_unit_test(what_was_read_for_a_peer_goes_when_it_is_removed),
		cmocka_unit_test(each_message_waits_for_its_own_hard_state),
		cmocka_unit_test(three_replicas_agree),
		cmocka_unit_test(an_idle_group_takes_two_kilobytes),
		cmocka_unit_test(the_cache_is_bounded_but_for_what_is_not_durable),
		cmocka_unit_test(messages_that_make_no_sense_are_refused_and_counted),
		cmocka_unit_test(who_would_undo_what_is_committed_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
