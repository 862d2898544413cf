/* A shard that loses its leadership and leads again, and which answers ask before they leave. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "runtime/base/random.h"
#include "tests/support/shardbed.h"
#include "tests/support/test.h"

#define COMMAND TROUPE__KIND__KIND_COMMAND
#define QUERY   TROUPE__KIND__KIND_QUERY
#define EVENTS  TROUPE__KIND__KIND_EVENTS
#define STATE   TROUPE__KIND__KIND_STATE

static struct bed bed;

static uint32_t run(
	uint32_t kind, const char *id, const char *name, const char *payload, char *text)
{
	return bed_ask(&bed, kind, id, name, payload, text);
}

static void assert_balance(const char *id, const char *expected)
{
	char text[512];
	assert_int_equal(run(QUERY, id, "Balance", "", text), 0);
	assert_string_equal(text, expected);
}

/* Leads in term 1; "a" has 100 at sequence number 2, offset 2. */
static int setup(void **state)
{
	(void)state;
	bed_open(&bed);
	bed_lead(&bed, 1);
	assert_int_equal(run(COMMAND, "a", "Open", "", NULL), 0);
	assert_int_equal(run(COMMAND, "a", "Deposit", "{\"amount\":100}", NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bed_close(&bed);
	return 0;
}

static void count(struct bed *of, void *arg)
{
	uint32_t *counts = arg;
	counts[0] = of->shard.entity_count;
	counts[1] = (uint32_t)of->host.count.entities;
	counts[2] = of->shard.pending_count;
	counts[3] = (uint32_t)of->host.count.quarantined;
	counts[4] = of->shard.leaving != NULL;
}

/* Turns of the worker until all that left is gone from memory. */
static void wait_until_gone(void)
{
	uint32_t counts[5];
	do {
		bed_do(&bed, count, counts);
	} while (counts[1] > counts[0]);
	assert_int_equal(counts[4], 0);
}

static void assert_nothing_left(void)
{
	uint32_t counts[5];
	wait_until_gone();
	bed_do(&bed, count, counts);
	assert_int_equal(counts[0], 0);
	assert_int_equal(counts[1], 0);
	assert_int_equal(counts[2], 0);
	assert_int_equal(counts[3], 0);
}

struct pending {
	struct bed_call unknown, query, refused, repeat;
};

static void tail_above(struct bed *of, void *arg)
{
	uint64_t *tail = arg;
	tail[1] = of->shard.tail > tail[0];
}

static void wait_for_tail(uint64_t above)
{
	uint64_t tail[2] = {above};
	do {
		bed_do(&bed, tail_above, tail);
	} while (tail[1] == 0);
}

static void pending_at_least(struct bed *of, void *arg)
{
	uint32_t *wanted = arg;
	wanted[1] = of->shard.pending_count >= wanted[0];
}

static void wait_for_pending(uint32_t count_)
{
	uint32_t wanted[2] = {count_};
	do {
		bed_do(&bed, pending_at_least, wanted);
	} while (wanted[1] == 0);
}

/* A deposit of 5 with id "x" at offset 3, and what rests on it. */
static void make_pending(struct pending *p)
{
	bed_call(&p->unknown, COMMAND, "a", "Deposit", "{\"amount\":5}");
	bed_command_id(&p->unknown, "x");
	bed_call(&p->query, QUERY, "a", "Balance", "");
	bed_call(&p->refused, COMMAND, "a", "WithdrawAtm", "{\"amount\":100000}");
	bed_call(&p->repeat, COMMAND, "a", "Deposit", "{\"amount\":5}");
	bed_command_id(&p->repeat, "x");
	bed_do(&bed, bed_submit, &p->unknown);
	bed_do(&bed, bed_submit, &p->query);
	bed_do(&bed, bed_submit, &p->refused);
	bed_do(&bed, bed_submit, &p->repeat);
	wait_for_pending(4);
}

static void end_pending(struct pending *p)
{
	bed_end(&p->unknown);
	bed_end(&p->query);
	bed_end(&p->refused);
	bed_end(&p->repeat);
}

static void assert_rewound(const struct bed_call *c)
{
	assert_int_equal(c->call.out.code, 0);
	assert_int_equal(c->call.out.seq, 0);
	assert_int_equal(c->call.out.payload.size + c->call.out.error.size, 0);
	assert_null(c->call.heap);
	assert_null(c->call.next);
	assert_false(c->call.out.repeated);
}

static void what_is_lost_is_forgotten_whole(void **state)
{
	(void)state;
	struct pending p;
	struct ps_snapshot snapshot;
	char text[512];
	bed.host.snapshot_every = 1; /* one waits for the lost offset, too */
	make_pending(&p);
	bed_drop(&bed);
	assert_int_equal(bed_wait(&p.unknown), TROUPE__CODE__CODE_UNKNOWN);
	assert_string_equal(p.unknown.text, "dropped");
	assert_int_equal(bed_wait(&p.query), BED_MOVED);
	assert_int_equal(bed_wait(&p.refused), BED_MOVED);
	assert_int_equal(bed_wait(&p.repeat), BED_MOVED);
	assert_rewound(&p.query);
	assert_rewound(&p.refused);
	assert_int_equal(p.query.call.out.command_id.size, 16);
	assert_ptr_equal(p.query.call.out.command_id.data, p.query.call.made_id);
	assert_nothing_left();
	bed_discard(&bed);
	/* Another leader had it otherwise. */
	bed_replace(&bed, 3, 7, 107, "y");
	bed_lead(&bed, 3);
	assert_balance("a", "{\"balance\":107}");
	/* The lost id is new, the other leader's is not. */
	assert_int_equal(bed_run(&bed, &p.repeat), 0);
	assert_string_equal(p.repeat.text, "{\"balance\":112}");
	assert_false(p.repeat.call.out.repeated);
	assert_int_equal(p.repeat.call.out.offset, 4);
	assert_int_equal(p.repeat.call.out.seq, 4);
	end_pending(&p);
	bed_call(&p.repeat, COMMAND, "a", "Deposit", "{\"amount\":7}");
	bed_command_id(&p.repeat, "y");
	assert_int_equal(bed_run(&bed, &p.repeat), 0);
	assert_true(p.repeat.call.out.repeated);
	bed_end(&p.repeat);
	/* No snapshot of the lost state, and the index points where it should. */
	bed_index(&bed);
	assert_int_equal(run(STATE, "a", "", "", text), 0);
	assert_non_null(strstr(text, "\"balance\":112"));
	rt_err err = ps_store_snapshot_get(
		bed.host.store, 1, rt_bytes_str("account|a"), 3, &snapshot, NULL);
	if (err == RT_OK) {
		assert_int_not_equal(snapshot.seq, 3);
		free((void *)(uintptr_t)snapshot.state.data);
	}
}

/* The records stayed in the log although their leader was gone when they were committed. */
static void what_was_unknown_may_be_there_and_is_not_done_twice(void **state)
{
	(void)state;
	struct pending p;
	make_pending(&p);
	bed_write(&bed);
	bed_drop(&bed);
	assert_int_equal(bed_wait(&p.unknown), TROUPE__CODE__CODE_UNKNOWN);
	assert_int_equal(bed_wait(&p.repeat), BED_MOVED);
	bed_lead(&bed, 2);
	assert_int_equal(bed_run(&bed, &p.repeat), 0);
	assert_true(p.repeat.call.out.repeated);
	assert_int_equal(p.repeat.call.out.offset, 3);
	assert_balance("a", "{\"balance\":105}");
	bed_wait(&p.query);
	bed_wait(&p.refused);
	end_pending(&p);
}

static void take_back(struct bed *of, void *arg)
{
	(void)arg;
	RT_ASSERT(ac_shard_proposed(&of->shard) == 3);
	ac_shard_drop(&of->shard, "taken back", ac_shard_proposed(&of->shard));
}

static void a_record_that_was_taken_back_was_not_written(void **state)
{
	(void)state;
	struct bed_call proposed, open;
	bed_call(&proposed, COMMAND, "a", "Deposit", "{\"amount\":1}");
	bed_call(&open, COMMAND, "a", "Deposit", "{\"amount\":2}");
	bed_do(&bed, bed_submit, &proposed);
	wait_for_tail(2);
	bed_write(&bed);
	bed_do(&bed, bed_submit, &open);
	wait_for_tail(3);
	bed_do(&bed, take_back, NULL);
	assert_int_equal(bed_wait(&proposed), TROUPE__CODE__CODE_UNKNOWN);
	assert_string_equal(proposed.text, "taken back");
	assert_int_equal(bed_wait(&open), BED_MOVED);
	assert_rewound(&open);
	bed_discard(&bed);
	bed_lead(&bed, 2);
	assert_int_equal(bed_run(&bed, &open), 0);
	assert_string_equal(open.text, "{\"balance\":103}");
	assert_false(open.call.out.repeated);
	bed_end(&proposed);
	bed_end(&open);
}

static void without_a_place_to_move_to_calls_are_answered(void **state)
{
	(void)state;
	struct pending p;
	bed.host.moved = NULL;
	make_pending(&p);
	bed_drop(&bed);
	assert_int_equal(bed_wait(&p.unknown), TROUPE__CODE__CODE_UNKNOWN);
	assert_int_equal(bed_wait(&p.query), TROUPE__CODE__CODE_UNAVAILABLE);
	assert_int_equal(bed_wait(&p.refused), TROUPE__CODE__CODE_UNAVAILABLE);
	/* Nothing of it was written, but what it repeats may have been. */
	assert_int_equal(bed_wait(&p.repeat), TROUPE__CODE__CODE_UNKNOWN);
	assert_string_equal(p.repeat.text, "dropped");
	assert_int_equal(p.query.call.out.events, 0);
	end_pending(&p);
	assert_nothing_left();
}

static void submit_and_drop(struct bed *of, void *arg)
{
	bed_submit(of, arg);
	ac_shard_drop(&of->shard, "dropped", UINT64_MAX);
}

static void a_message_in_the_mailbox_is_handed_back_at_its_turn(void **state)
{
	(void)state;
	struct bed_call c;
	bed_call(&c, COMMAND, "a", "Deposit", "{\"amount\":1}");
	bed_do(&bed, submit_and_drop, &c);
	assert_int_equal(bed_wait(&c), BED_MOVED);
	assert_rewound(&c);
	assert_nothing_left();
	bed_lead(&bed, 2);
	assert_balance("a", "{\"balance\":100}");
	bed_end(&c);
}

static void release(struct bed *of, void *arg)
{
	(void)arg;
	bed_release_reads(of);
}

static void lead_again(struct bed *of, void *arg)
{
	ac_shard_lead(&of->shard, *(uint64_t *)arg, of->shard.committed);
}

/* What was begun under the first leadership ends under the second and changes nothing. */
static void a_load_that_is_overtaken_is_thrown_away(void **state)
{
	(void)state;
	struct bed_call before, after;
	uint64_t term = 3;
	bed_drop(&bed);
	bed_lead(&bed, 2);
	bed_hold_reads(&bed);
	bed_call(&before, QUERY, "a", "Balance", "");
	bed_call(&after, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_submit, &before); /* loads */
	bed_drop(&bed);
	assert_int_equal(bed_wait(&before), BED_MOVED);
	bed_do(&bed, lead_again, &term);
	bed_do(&bed, bed_submit, &after);
	bed_do(&bed, release, NULL);
	assert_int_equal(bed_wait(&after), 0);
	assert_string_equal(after.text, "{\"balance\":100}");
	wait_until_gone();
	uint32_t counts[5];
	bed_do(&bed, count, counts);
	assert_int_equal(counts[0], 1);
	bed_end(&before);
	bed_end(&after);
}

static void is_paused(struct bed *of, void *arg)
{
	struct ac_entity *entity = ac_entity_find(
		&of->shard, rt_hash("account|a", strlen("account|a")), rt_bytes_str("account|a"));
	*(bool *)arg = entity != NULL && entity->status == AC_PAUSED && entity->waiting_count == 1;
}

static void a_pause_at_the_drop_ends_with_the_calls_handed_back(void **state)
{
	(void)state;
	struct bed_call fresh, behind;
	bool paused = false;
	bed.shard.dedupe.complete = false; /* every id is looked up on disk */
	bed_hold_reads(&bed);
	bed_call(&fresh, COMMAND, "a", "Deposit", "{\"amount\":1}");
	bed_call(&behind, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_submit, &fresh);
	bed_do(&bed, bed_submit, &behind);
	while (!paused) {
		bed_do(&bed, is_paused, &paused);
	}
	bed_drop(&bed);
	assert_int_equal(bed_wait(&behind), BED_MOVED);
	assert_false(bed_is_over(&fresh));
	bed_release_reads(&bed);
	assert_int_equal(bed_wait(&fresh), BED_MOVED);
	assert_rewound(&fresh);
	assert_nothing_left();
	bed_lead(&bed, 2);
	assert_int_equal(bed_run(&bed, &fresh), 0);
	assert_int_equal(bed_run(&bed, &behind), 0);
	assert_string_equal(behind.text, "{\"balance\":101}");
	bed_end(&fresh);
	bed_end(&behind);
}

static void looks_up(struct bed *of, void *arg)
{
	struct ac_entity *entity = ac_entity_find(
		&of->shard, rt_hash("account|a", strlen("account|a")), rt_bytes_str("account|a"));
	*(bool *)arg = entity != NULL && entity->pending == 1 && entity->queued == 0;
}

static void a_repeat_that_is_being_read_is_answered_all_the_same(void **state)
{
	(void)state;
	struct bed_call first, again;
	bool looks = false;
	bed_call(&first, COMMAND, "a", "Deposit", "{\"amount\":1}");
	bed_command_id(&first, "once");
	assert_int_equal(bed_run(&bed, &first), 0);
	bed_hold_reads(&bed);
	bed_call(&again, COMMAND, "a", "Deposit", "{\"amount\":1}");
	bed_command_id(&again, "once");
	bed_do(&bed, bed_submit, &again);
	while (!looks) {
		bed_do(&bed, looks_up, &looks);
	}
	bed_drop(&bed);
	assert_false(bed_is_over(&again));
	bed_release_reads(&bed);
	assert_int_equal(bed_wait(&again), 0); /* it is committed: true for ever */
	assert_true(again.call.out.repeated);
	assert_string_equal(again.text, first.text);
	assert_nothing_left();
	bed_end(&first);
	bed_end(&again);
}

static void reads_of_the_stream_move_with_the_shard(void **state)
{
	(void)state;
	struct bed_call poll, page, shown;
	uint64_t term = 2;
	/* from_seq 3, wait_ms 60000 */
	bed_call(&poll, EVENTS, "a", "", "\x08\x03\x18\xe0\xd4\x03");
	bed_do(&bed, bed_submit, &poll);
	bed_call(&shown, STATE, "a", "", "");
	assert_int_equal(bed_run(&bed, &shown), 0); /* the poll was read before it, and waits */
	bed_end(&shown);
	bed_hold_reads(&bed);
	bed_call(&page, EVENTS, "a", "", "");
	bed_call(&shown, STATE, "a", "", "");
	bed_do(&bed, bed_submit, &page);
	bed_do(&bed, bed_submit, &shown);
	bed_drop(&bed);
	assert_int_equal(bed_wait(&poll), BED_MOVED);
	assert_false(bed_is_over(&page));
	bed_do(&bed, lead_again, &term); /* too late: what they read was of the first term */
	bed_release_reads(&bed);
	assert_int_equal(bed_wait(&page), BED_MOVED);
	assert_int_equal(bed_wait(&shown), BED_MOVED);
	assert_rewound(&page);
	assert_rewound(&shown);
	bed_end(&poll);
	bed_end(&page);
	bed_end(&shown);
}

static void a_quarantined_entity_leaves_too(void **state)
{
	(void)state;
	/* Sequence number 3 is missing: the entity contradicts itself when it is read. */
	bed_drop(&bed);
	bed_replace(&bed, 3, 4, 1, "hole");
	bed_lead(&bed, 2);
	uint32_t code = run(QUERY, "a", "Balance", "", NULL);
	assert_true(
		code == TROUPE__CODE__CODE_QUARANTINED || code == TROUPE__CODE__CODE_UNAVAILABLE);
	bed_drop(&bed);
	assert_nothing_left();
	assert_null(bed.host.quarantined);
}

static void find(struct bed *of, void *arg)
{
	uint64_t *out = arg;
	struct ac_key key = ac_key_of(rt_bytes_str("theirs"));
	out[0] = ac_dedupe_find(&of->shard.dedupe, &key, &out[1]);
}

static void reset(struct bed *of, void *arg)
{
	(void)arg;
	ac_shard_reset(&of->shard);
}

static void a_follower_knows_the_ids_of_others(void **state)
{
	(void)state;
	struct bed_call c;
	uint64_t seen[2] = {0};
	bed_drop(&bed);
	bed_replace(&bed, 3, 7, 107, "theirs");
	bed_do(&bed, find, seen);
	assert_int_equal(seen[0], AC_SEEN_NEVER);
	bed_commit(&bed, 3);
	bed_do(&bed, find, seen);
	assert_int_equal(seen[0], AC_SEEN_RECENT);
	assert_int_equal(seen[1], 3);
	bed_lead(&bed, 2);
	bed_call(&c, COMMAND, "a", "Deposit", "{\"amount\":7}");
	bed_command_id(&c, "theirs");
	assert_int_equal(bed_run(&bed, &c), 0);
	assert_true(c.call.out.repeated);
	assert_int_equal(c.call.out.offset, 3);
	bed_end(&c);
	bed_drop(&bed);
	bed_do(&bed, reset, NULL);
	bed_do(&bed, find, seen);
	assert_int_equal(seen[0], AC_SEEN_PERHAPS);
	assert_int_equal(bed.shard.dedupe.order_count, 0);
}

/* ---- answers that ask ---- */
static void exactly_answers_that_rest_on_the_state_are_confirmed(void **state)
{
	(void)state;
	static const struct {
		uint32_t kind;
		const char *id, *name, *payload;
		uint64_t expected;
		uint32_t code, confirms;
	} cases[] = {
		{COMMAND, "a", "Deposit", "{\"amount\":1}", 0, TROUPE__CODE__CODE_OK, 0},
		{COMMAND, "a", "Deposit", "{\"amount\":0}", 0, TROUPE__CODE__CODE_REFUSED, 1},
		{COMMAND, "a", "Deposit", "{\"amount\":1}", 1, TROUPE__CODE__CODE_CONFLICT, 1},
		{COMMAND, "a", "Deposit", "nonsense", 0, TROUPE__CODE__CODE_BAD_REQUEST, 0},
		{COMMAND, "a", "Nothing", "", 0, TROUPE__CODE__CODE_NOT_FOUND, 0},
		{QUERY, "a", "Balance", "", 0, TROUPE__CODE__CODE_OK, 1},
		{QUERY, "a", "Balance", "[", 0, TROUPE__CODE__CODE_BAD_REQUEST, 0},
		{QUERY, "a", "Nothing", "", 0, TROUPE__CODE__CODE_NOT_FOUND, 0},
		{QUERY, "b", "Balance", "", 0, TROUPE__CODE__CODE_NOT_FOUND, 1},
		{STATE, "a", "", "", 0, TROUPE__CODE__CODE_OK, 1},
		{STATE, "a", "", "\x08\x63", 0, TROUPE__CODE__CODE_NOT_FOUND, 1},
		{STATE, "b", "", "", 0, TROUPE__CODE__CODE_NOT_FOUND, 1},
		{STATE, "a", "", "\x07", 0, TROUPE__CODE__CODE_BAD_REQUEST, 0},
		{EVENTS, "a", "", "", 0, TROUPE__CODE__CODE_OK, 1},
		{EVENTS, "b", "", "", 0, TROUPE__CODE__CODE_OK, 1},
	};
	bed.host.confirm = bed_confirm;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bed_call c;
		bed_call(&c, cases[i].kind, cases[i].id, cases[i].name, cases[i].payload);
		c.call.in.expected = cases[i].expected;
		c.call.in.stale = cases[i].kind == COMMAND; /* means nothing there */
		bed.confirms = 0;
		uint32_t code = bed_run(&bed, &c);
		if (code != cases[i].code || bed.confirms != cases[i].confirms) {
			fail_msg("case %zu: code %u, %u confirms", i, code, bed.confirms);
		}
		bed_end(&c);
	}
	/* A repeat rests on its record. A stale read of a leader rests on nothing. */
	struct bed_call c;
	bed.confirms = 0;
	for (int i = 0; i < 2; i++) {
		bed_call(&c, COMMAND, "a", "Deposit", "{\"amount\":1}");
		bed_command_id(&c, "twice");
		assert_int_equal(bed_run(&bed, &c), 0);
		assert_int_equal(c.call.out.repeated, i == 1);
		bed_end(&c);
	}
	bed_call(&c, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_read, &c);
	assert_int_equal(bed_wait(&c), 0);
	bed_end(&c);
	assert_int_equal(bed.confirms, 0);
}

static void confirmed(struct bed *of, void *arg)
{
	(void)arg;
	ac_answer_confirmed(&of->host, of->kept);
}

static void handle_anew(struct bed *of, void *arg)
{
	(void)arg;
	of->confirm_keeps = false;
	ac_call_rewind(of->kept);
	ac_shard_call(&of->shard, of->kept);
}

static void an_answer_asks_when_what_it_rests_on_is_committed(void **state)
{
	(void)state;
	struct pending p;
	bed.host.confirm = bed_confirm;
	make_pending(&p);
	bed_write(&bed);
	assert_int_equal(bed.confirms, 0);
	bed_commit(&bed, 3);
	assert_int_equal(bed_wait(&p.unknown), 0);
	assert_int_equal(bed_wait(&p.query), 0);
	assert_int_equal(bed_wait(&p.refused), TROUPE__CODE__CODE_REFUSED);
	assert_int_equal(bed_wait(&p.repeat), 0);
	assert_int_equal(bed.confirms, 2);
	end_pending(&p);
	/* Who is asked may keep the call, and answer or have it handled anew later. */
	bed.confirm_keeps = true;
	for (int i = 0; i < 2; i++) {
		bed.kept = NULL;
		bed_call(&p.query, QUERY, "a", "Balance", "");
		bed_do(&bed, bed_submit, &p.query);
		do {
			bed_do(&bed, pending_at_least, (uint32_t[2]){0});
		} while (bed.kept == NULL);
		assert_false(bed_is_over(&p.query));
		bed_do(&bed, i == 0 ? confirmed : handle_anew, NULL);
		assert_int_equal(bed_wait(&p.query), 0);
		assert_string_equal(p.query.text, "{\"balance\":105}");
		bed_end(&p.query);
	}
}

/* The answer to "do I lead" may be no, and the shard is dropped under whoever asked. */
static void who_asks_may_find_the_shard_dropped(void **state)
{
	(void)state;
	struct pending p;
	struct bed_call first, second;
	bed.host.confirm = bed_confirm;
	bed.confirm_drops = true;
	/* From the entity's turn. */
	bed_call(&first, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_submit, &first);
	assert_int_equal(bed_wait(&first), 0);
	assert_nothing_left();
	bed_end(&first);
	/* From the end of a load, with a second call behind the first. */
	bed_lead(&bed, 2);
	bed_hold_reads(&bed);
	bed_call(&first, QUERY, "a", "Balance", "");
	bed_call(&second, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_submit, &first);
	bed_do(&bed, bed_submit, &second);
	bed_do(&bed, release, NULL);
	assert_int_equal(bed_wait(&first), 0);
	assert_int_equal(bed_wait(&second), BED_MOVED);
	assert_nothing_left();
	bed_end(&first);
	bed_end(&second);
	/* From a commit. */
	bed_lead(&bed, 3);
	make_pending(&p);
	bed_write(&bed);
	bed_commit(&bed, 3);
	assert_int_equal(bed_wait(&p.unknown), 0);
	assert_int_equal(bed_wait(&p.query), 0);
	assert_int_equal(bed_wait(&p.refused), BED_MOVED);
	assert_int_equal(bed_wait(&p.repeat), BED_MOVED);
	assert_nothing_left();
	end_pending(&p);
}

/* A round that confirms leadership may find more committed. */
static void who_asks_may_find_more_committed(void **state)
{
	(void)state;
	struct bed_call deposits[3], queries[2];
	bed.host.confirm = bed_confirm;
	for (int i = 0; i < 3; i++) {
		bed_call(&deposits[i], COMMAND, "a", "Deposit", "{\"amount\":1}");
		bed_do(&bed, bed_submit, &deposits[i]);
		if (i < 2) {
			bed_call(&queries[i], QUERY, "a", "Balance", "");
			bed_do(&bed, bed_submit, &queries[i]);
		}
	}
	wait_for_pending(5);
	bed_write(&bed);
	bed.confirm_commits = true;
	bed_commit(&bed, 4);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(bed_wait(&deposits[i]), 0);
		assert_int_equal(deposits[i].call.out.offset, 3 + i);
		bed_end(&deposits[i]);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(bed_wait(&queries[i]), 0);
		assert_string_equal(
			queries[i].text, i == 0 ? "{\"balance\":101}" : "{\"balance\":102}");
		bed_end(&queries[i]);
	}
	bed_commit(&bed, 5);
	bed_drop(&bed);
	bed_lead(&bed, 2);
	assert_balance("a", "{\"balance\":103}");
}

static void passivate(struct bed *of, void *arg)
{
	struct ac_entity *entity = ac_entity_find(
		&of->shard, rt_hash("account|a", strlen("account|a")), rt_bytes_str("account|a"));
	*(bool *)arg = entity != NULL && ac_entity_passivate(entity);
}

/* The index lags behind; the entity may go before it has caught up. */
static void what_is_not_indexed_yet_is_read_all_the_same(void **state)
{
	(void)state;
	char text[512];
	for (int i = 0; i < 10; i++) {
		bool gone = false;
		assert_int_equal(run(COMMAND, "a", "Deposit", "{\"amount\":1}", NULL), 0);
		while (!gone) {
			bed_do(&bed, passivate, &gone);
		}
	}
	assert_balance("a", "{\"balance\":110}");
	assert_int_equal(run(STATE, "a", "", "", text), 0);
	assert_non_null(strstr(text, "\"balance\":110"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_lost_is_forgotten_whole),
		TEST(what_was_unknown_may_be_there_and_is_not_done_twice),
		TEST(a_record_that_was_taken_back_was_not_written),
		TEST(without_a_place_to_move_to_calls_are_answered),
		TEST(a_message_in_the_mailbox_is_handed_back_at_its_turn),
		TEST(a_load_that_is_overtaken_is_thrown_away),
		TEST(a_pause_at_the_drop_ends_with_the_calls_handed_back),
		TEST(a_repeat_that_is_being_read_is_answered_all_the_same),
		TEST(reads_of_the_stream_move_with_the_shard),
		TEST(a_quarantined_entity_leaves_too),
		TEST(a_follower_knows_the_ids_of_others),
		TEST(exactly_answers_that_rest_on_the_state_are_confirmed),
		TEST(an_answer_asks_when_what_it_rests_on_is_committed),
		TEST(who_asks_may_find_the_shard_dropped),
		TEST(who_asks_may_find_more_committed),
		TEST(what_is_not_indexed_yet_is_read_all_the_same),
	};
	return cmocka_run_group_tests_name("actors/shard", tests, NULL, NULL);
}
