/* What a replica finds on its disk when it is opened. */
#include <stdlib.h>

#include "persistence/record.h"
#include "sharding/mark.h"
#include "tests/support/hostbed.h"

static const struct sh_raft *raft_of(const struct hostbed *bed)
{
	return sh_replica_raft(bed->replica);
}

static struct hostbed_row *row_of(struct hostbed *bed, const char *name)
{
	for (uint32_t i = 0; i < bed->row_count; i++) {
		if (memcmp(bed->rows[i].key.data, name, 4) == 0) {
			return &bed->rows[i];
		}
	}
	return NULL;
}

static void remove_row(struct hostbed *bed, const char *name)
{
	struct hostbed_row *row = row_of(bed, name);
	*row = bed->rows[--bed->row_count];
	assert_null(row_of(bed, name));
}

static void reopen(struct hostbed *bed)
{
	hostbed_sync(bed);
	hostbed_crash(bed);
	hostbed_open(bed);
}

/* The story of terms and sets is the same, however much of it came from the mark. */
static void assert_story(const struct hostbed *bed, const struct sh_raft *raft)
{
	struct sh_raft_set set = {.members = bed->options.first};
	for (uint64_t i = 1; i <= raft->last; i++) {
		struct ps_record record;
		assert_err(ps_record_decode(bed->log[i], &record), RT_OK);
		if (record.kind == PS_KIND_MEMBERS) {
			set.index = i;
			assert_err(sh_members_decode(record.answer, &set.members), RT_OK);
		}
		if (i >= raft->floor) {
			const struct sh_raft_set *at = sh_raft_members_at(raft, i);
			assert_int_equal(sh_raft_term_at(raft, i), record.term);
			assert_int_equal(at->index, set.index);
			assert_true(sh_members_equal(&at->members, &set.members));
		}
	}
	sh_raft_check(raft);
}

static void a_store_of_before_marks_opens(void **state)
{
	struct hostbed *bed = hostbed_leader("1");
	(void)state;
	for (int i = 0; i < 20; i++) {
		hostbed_propose(bed, 100);
	}
	hostbed_sync(bed);
	hostbed_crash(bed);
	remove_row(bed, "raft");
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->last, 21);
	assert_int_equal(raft_of(bed)->term, 1);
	hostbed_start(bed);
	hostbed_sync(bed);
	assert_true(bed->leads);
	assert_int_equal(bed->committed, 22);
	assert_non_null(row_of(bed, "raft"));
	hostbed_free(bed);
}

static void marks_are_written_with_other_writes(void **state)
{
	struct hostbed *bed = hostbed_new(1, "1");
	uint32_t marks = 0;
	(void)state;
	bed->options.mark_every = 10;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	for (int i = 0; i < 100; i++) {
		size_t ops = bed->op_count;
		hostbed_propose(bed, 100);
		assert_true(bed->op_count - ops <= 2);
		marks += bed->op_count - ops == 2;
		ops = bed->op_count;
		hostbed_sync(bed);
		assert_int_equal(bed->op_count, ops); /* none of its own */
	}
	assert_in_range(marks, 8, 11);
	reopen(bed);
	assert_in_range(raft_of(bed)->commit, 80, 101);
	assert_int_equal(raft_of(bed)->last, 101);
	assert_story(bed, raft_of(bed));
	hostbed_start(bed);
	assert_true(bed->committed >= 80); /* said again */
	hostbed_free(bed);
}

/* Many terms and sets, opened at every length of the log. */
static struct hostbed *long_story(uint32_t mark_every, uint32_t runs_max)
{
	struct hostbed *bed = hostbed_new(1, "1");
	uint64_t index;
	bed->options.mark_every = mark_every;
	bed->options.runs_max = runs_max;
	hostbed_open(bed);
	for (uint64_t term = 1; term <= 30; term++) {
		hostbed_start(bed);
		hostbed_wait(bed, 3000); /* its being alone may not be committed */
		hostbed_sync(bed);
		if (!bed->leads) { /* alone by a set that may not be committed: after a while */
			hostbed_wait(bed, 3000);
			hostbed_sync(bed);
		}
		assert_true(bed->leads);
		assert_int_equal(bed->lead_term, term);
		for (uint64_t i = 0; i < term % 5; i++) {
			hostbed_propose(bed, 10);
		}
		struct sh_members members = hostbed_members(term % 2 == 0 ? "1" : "1 5s");
		assert_err(sh_replica_propose_members(bed->replica, &members, &index), RT_OK);
		for (uint64_t i = 0; i < term % 3; i++) {
			hostbed_propose(bed, 10);
		}
		hostbed_sync(bed);
		assert_int_equal(bed->committed, raft_of(bed)->last);
		hostbed_crash(bed);
		hostbed_open(bed);
		assert_story(bed, raft_of(bed));
		assert_true(sh_members_equal(&sh_raft_members(raft_of(bed))->members, &members));
		assert_int_equal(sh_raft_members(raft_of(bed))->index, index);
	}
	return bed;
}

static void terms_and_sets_come_back_from_mark_and_log(void **state)
{
	(void)state;
	for (uint32_t mark_every = 1; mark_every < 200; mark_every = mark_every * 2 + 1) {
		struct hostbed *bed = long_story(mark_every, 1000);
		/* Sets bound the story too. */
		assert_true(raft_of(bed)->set_count <= 18 || mark_every > 30);
		hostbed_free(bed);
	}
}

static void a_long_story_of_terms_moves_the_floor(void **state)
{
	struct hostbed *bed = long_story(3, 8);
	(void)state;
	assert_true(raft_of(bed)->floor > 50);
	assert_true(raft_of(bed)->run_count <= 12);
	assert_int_equal(bed->first, 1); /* The log stays whole. */
	hostbed_free(bed);
}

static void compaction_is_written_before_it_is_allowed(void **state)
{
	struct hostbed *bed = hostbed_leader("1");
	uint64_t floor = 0;
	(void)state;
	for (int i = 0; i < 20; i++) {
		hostbed_propose(bed, 100);
	}
	assert_err(sh_replica_compact(bed->replica, 15, &floor), RT_OK);
	assert_int_equal(floor, 1); /* the rest is not durable */
	hostbed_sync(bed);
	assert_err(sh_replica_compact(bed->replica, 15, &floor), RT_OK);
	assert_int_equal(floor, 15);
	hostbed_sync(bed);
	assert_err(sh_replica_compact(bed->replica, 12, &floor), RT_OK);
	assert_int_equal(floor, 12);
	hostbed_sync(bed);
	hostbed_crash(bed);
	bed->first = 16; /* trimmed */
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->floor, 15);
	assert_int_equal(raft_of(bed)->last, 21);
	hostbed_start(bed);
	hostbed_sync(bed);
	assert_int_equal(bed->committed, 22);
	/* All of it. */
	assert_err(sh_replica_compact(bed->replica, 100, &floor), RT_OK);
	assert_int_equal(floor, 22);
	hostbed_sync(bed);
	hostbed_crash(bed);
	bed->first = bed->end;
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->last, 22);
	hostbed_free(bed);
}

static void assert_corrupt(struct hostbed *bed)
{
	struct rt_errinfo info = {0};
	struct sh_replica *out = NULL;
	assert_err(sh_replica_open(&bed->options, &out, &info), RT_E_CORRUPT);
	assert_null(out);
	assert_string_not_equal(info.text, "");
	assert_memory_equal(info.text, "shard 7", 7);
}

static struct hostbed *closed(void)
{
	struct hostbed *bed = hostbed_new(1, "1");
	bed->options.mark_every = 10;
	hostbed_open(bed);
	hostbed_start(bed);
	hostbed_sync(bed);
	for (int i = 0; i < 30; i++) {
		hostbed_propose(bed, 10);
		hostbed_sync(bed);
	}
	hostbed_crash(bed);
	return bed;
}

static void a_mark_damaged_anywhere_is_refused(void **state)
{
	struct hostbed *bed = closed();
	struct rt_bytes row = row_of(bed, "raft")->bytes;
	uint8_t *bytes = (uint8_t *)(uintptr_t)row.data;
	(void)state;
	for (size_t i = 0; i < row.size; i++) {
		for (uint32_t x = 1; x < 256; x *= 2) {
			bytes[i] = (uint8_t)(bytes[i] ^ x);
			assert_corrupt(bed);
			bytes[i] = (uint8_t)(bytes[i] ^ x);
		}
	}
	for (size_t size = 0; size < row.size; size++) {
		row_of(bed, "raft")->bytes.size = size;
		assert_corrupt(bed);
	}
	row_of(bed, "raft")->bytes.size = row.size;
	row_of(bed, "hard")->bytes.size = 15;
	assert_corrupt(bed);
	row_of(bed, "hard")->bytes.size = 16;
	hostbed_open(bed);
	hostbed_free(bed);
}

static void a_log_that_does_not_fit_the_mark_is_refused(void **state)
{
	struct hostbed *bed = closed();
	struct rt_bytes *log = bed->log;
	struct rt_bytes kept;
	(void)state;
	uint64_t end = bed->end;
	bed->end = 15; /* lost its end */
	assert_corrupt(bed);
	bed->end = end;
	bed->first = 28; /* lost its beginning */
	assert_corrupt(bed);
	bed->first = 1;
	/* Other records than those of the mark: the last one that it describes, and later ones. */
	for (uint64_t i = 20; i < end; i++) {
		const struct rt_bytes bad[] = {rt_bytes_str("x"), hostbed_record(2, 10),
			hostbed_record(0, 10), hostbed_members_record(1, "1 2")};
		((uint8_t *)(uintptr_t)bad[3].data)[bad[3].size - 18] = 7; /* its count */
		for (int k = 0; k < 4; k++) {
			struct sh_replica *out = NULL;
			kept = log[i];
			log[i] = bad[k];
			rt_err err = sh_replica_open(&bed->options, &out, NULL);
			assert_true(err == RT_E_CORRUPT || i < 30 || (i == 30 && k == 3));
			sh_replica_close(out);
			log[i] = kept;
			if (k > 0) {
				free((void *)(uintptr_t)bad[k].data);
			}
		}
	}
	hostbed_open(bed);
	assert_int_equal(raft_of(bed)->commit, 30);
	hostbed_free(bed);
}

static void terms_over_the_hard_state_are_refused(void **state)
{
	struct hostbed *bed = closed();
	(void)state;
	remove_row(bed, "hard");
	assert_corrupt(bed);
	hostbed_free(bed);
}

static void a_log_without_mark_that_begins_later_is_refused(void **state)
{
	struct hostbed *bed = closed();
	(void)state;
	remove_row(bed, "raft");
	bed->first = 5;
	assert_corrupt(bed);
	hostbed_free(bed);
}

static void no_row_no_guess(void **state)
{
	struct hostbed *bed = closed();
	struct rt_errinfo info = {0};
	(void)state;
	bed->row_fails = "raft";
	assert_err(hostbed_try_open(bed, &info), RT_E_IO);
	assert_non_null(strstr(info.text, "shard 7: mark: planted"));
	bed->row_fails = NULL;
	hostbed_open(bed);
	hostbed_free(bed);
}

static void a_disk_that_cannot_be_read_is_an_error(void **state)
{
	struct hostbed *bed = closed();
	struct rt_errinfo info = {0};
	(void)state;
	bed->read_full = true;
	assert_err(hostbed_try_open(bed, &info), RT_E_IO);
	assert_non_null(strstr(info.text, "shard 7: log: planted"));
	bed->read_full = false;
	bed->write_fails = 1;
	assert_err(hostbed_try_open(bed, &info), RT_E_IO);
	assert_non_null(strstr(info.text, "shard 7: term and vote: planted"));
	bed->write_fails = 0;
	hostbed_open(bed);
	hostbed_free(bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_store_of_before_marks_opens),
		cmocka_unit_test(marks_are_written_with_other_writes),
		cmocka_unit_test(terms_and_sets_come_back_from_mark_and_log),
		cmocka_unit_test(a_long_story_of_terms_moves_the_floor),
		cmocka_unit_test(compaction_is_written_before_it_is_allowed),
		cmocka_unit_test(a_mark_damaged_anywhere_is_refused),
		cmocka_unit_test(a_log_that_does_not_fit_the_mark_is_refused),
		cmocka_unit_test(terms_over_the_hard_state_are_refused),
		cmocka_unit_test(a_log_without_mark_that_begins_later_is_refused),
		cmocka_unit_test(no_row_no_guess),
		cmocka_unit_test(a_disk_that_cannot_be_read_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
