/* A shard whose leaders change while clients repeat their commands: all of it in any order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/random.h"
#include "tests/support/shardbed.h"
#include "tests/support/test.h"

static struct bed bed;

static int setup(void **state)
{
	(void)state;
	bed_open(&bed);
	bed_lead(&bed, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bed_close(&bed);
	return 0;
}

enum {
	ACCOUNTS = 5,
	IDS = 600,
	CALLS = 2 * IDS, /* two of each id, which may be under way together */
	ROUNDS = 6000
};

struct story {
	struct rt_random random;
	struct bed_call calls[CALLS];
	char ids[IDS][16];
	enum {
		IDLE,
		SENT,
		DONE
	} state[CALLS];
	uint64_t term;
	bool held;
	uint32_t drops, moved, unknown, repeated;
};

static uint32_t below(struct story *story, uint32_t bound)
{
	return rt_random_below(&story->random, bound);
}

static void send_call(struct story *story, uint32_t i)
{
	static const char *const accounts[ACCOUNTS] = {"r0", "r1", "r2", "r3", "r4"};
	struct bed_call *c = &story->calls[i];
	if (story->state[i] != IDLE) {
		return;
	}
	bed_call(c, TROUPE__KIND__KIND_COMMAND, accounts[i / 2 % ACCOUNTS], "Deposit",
		"{\"amount\":1}");
	bed_command_id(c, story->ids[i / 2]);
	story->state[i] = SENT;
	bed_do(&bed, bed_submit, c);
}

static void collect(struct story *story)
{
	for (uint32_t i = 0; i < CALLS; i++) {
		struct bed_call *c = &story->calls[i];
		if (story->state[i] != SENT || !bed_is_over(c)) {
			continue;
		}
		uint32_t code = bed_wait(c);
		story->moved += code == BED_MOVED;
		story->unknown += code == TROUPE__CODE__CODE_UNKNOWN;
		story->repeated += c->call.out.repeated;
		if (code != 0 && code != BED_MOVED && code != TROUPE__CODE__CODE_UNKNOWN) {
			fail_msg("call %u: %u %s", i, code, c->text);
		}
		story->state[i] = code == 0 ? DONE : IDLE;
		if (code != 0) {
			bed_end(c);
		}
	}
}

static void drop_with_open_round(struct bed *of, void *arg)
{
	(void)arg;
	ac_shard_drop(&of->shard, "dropped", ac_shard_proposed(&of->shard));
}

static void committed_now(struct bed *of, void *arg)
{
	*(uint64_t *)arg = of->shard.committed;
}

static void commit_some(struct story *story)
{
	uint64_t committed = 0, last = ps_store_last_offset(bed.host.store, 1);
	bed_do(&bed, committed_now, &committed);
	bed_commit(&bed, committed + below(story, (uint32_t)(last - committed) + 1));
}

/* The log keeps what was written, or loses some of it, and somebody leads again. */
static void change_leader(struct story *story)
{
	uint64_t committed = 0, last;
	bed_do(&bed, drop_with_open_round, NULL);
	story->drops++;
	if (below(story, 4) == 0) {
		bed_do(&bed, drop_with_open_round, NULL); /* nobody minds */
	}
	bed_discard(&bed);
	bed_do(&bed, committed_now, &committed);
	last = ps_store_last_offset(bed.host.store, 1);
	if (last > committed && below(story, 2) == 0) {
		bed_cut(&bed, committed + 1 + below(story, (uint32_t)(last - committed)));
	}
	bed_lead(&bed, ++story->term);
}

static void step(struct story *story)
{
	uint32_t dice = below(story, 100);
	if (dice < 50) {
		send_call(story, below(story, CALLS));
	} else if (dice < 70) {
		bed_do(&bed, committed_now, &(uint64_t){0}); /* a turn */
	} else if (dice < 80) {
		bed_write(&bed);
	} else if (dice < 90) {
		commit_some(story);
	} else if (dice < 93) {
		change_leader(story);
	} else if (dice < 96 && !story->held) {
		bed_hold_reads(&bed);
		story->held = true;
	} else if (story->held) {
		bed_release_reads(&bed);
		story->held = false;
	}
	collect(story);
}

static bool count_id(void *arg, uint64_t offset, struct rt_bytes bytes)
{
	uint32_t *times = arg;
	struct ps_record record;
	RT_ASSERT(ps_record_decode(bytes, &record) == RT_OK && offset > 0);
	if (record.command_id.size > 1 && record.command_id.data[0] == 'c') {
		times[strtoul((const char *)record.command_id.data + 1, NULL, 10)]++;
	}
	return true;
}

static void check_story(struct story *story)
{
	uint32_t times[IDS] = {0};
	uint64_t last = ps_store_last_offset(bed.host.store, 1);
	assert_err(ps_store_read(bed.host.store, 1, 1, last, count_id, times, NULL), RT_OK);
	for (uint32_t i = 0; i < IDS; i++) {
		assert_int_equal(times[i], 1); /* none lost, none done twice */
	}
	for (uint32_t i = 0; i < CALLS; i++) {
		struct rt_bytes bytes;
		struct ps_record record;
		assert_err(ps_store_get(bed.host.store, 1, story->calls[i].call.out.offset, &bytes,
				   NULL),
			RT_OK);
		assert_err(ps_record_decode(bytes, &record), RT_OK);
		assert_true(rt_bytes_equal(record.command_id, rt_bytes_str(story->ids[i / 2])));
		free((void *)(uintptr_t)bytes.data);
		bed_end(&story->calls[i]);
	}
	for (uint32_t i = 0; i < ACCOUNTS; i++) {
		char id[4] = {'r', (char)('0' + i)};
		char balance[40];
		char text[512];
		snprintf(balance, sizeof(balance), "{\"balance\":%u}", IDS / ACCOUNTS);
		assert_int_equal(
			bed_ask(&bed, TROUPE__KIND__KIND_QUERY, id, "Balance", "", text), 0);
		assert_string_equal(text, balance);
	}
}

static void whatever_happens_a_command_is_done_once(void **state)
{
	(void)state;
	static struct story story;
	const char *given = getenv("SEED");
	uint64_t seed = given == NULL ? uv_hrtime() : strtoull(given, NULL, 10);
	story = (struct story){.term = 1};
	rt_random_seed(&story.random, seed);
	print_message("SEED=%llu\n", (unsigned long long)seed);
	for (uint32_t i = 0; i < ACCOUNTS; i++) {
		assert_int_equal(bed_ask(&bed, TROUPE__KIND__KIND_COMMAND,
					 (char[3]){'r', (char)('0' + i)}, "Open", "", NULL),
			0);
	}
	for (uint32_t i = 0; i < IDS; i++) {
		snprintf(story.ids[i], sizeof(story.ids[i]), "c%u", i);
	}
	bed.host.snapshot_every = 3;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		step(&story);
	}
	if (story.held) {
		bed_release_reads(&bed);
	}
	for (uint32_t i = 0; i < CALLS; i++) {
		while (story.state[i] != DONE) {
			send_call(&story, i);
			bed_write(&bed);
			bed_commit(&bed, ps_store_last_offset(bed.host.store, 1));
			collect(&story);
		}
	}
	print_message("%u drops, %u moved, %u unknown, %u repeated\n", story.drops, story.moved,
		story.unknown, story.repeated);
	assert_true(story.moved > 0 && story.unknown > 0 && story.repeated > 0);
	check_story(&story);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			whatever_happens_a_command_is_done_once, setup, teardown),
	};
	return cmocka_run_group_tests_name("actors/shard_story", tests, NULL, NULL);
}
