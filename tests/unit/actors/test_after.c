/* Reads that must see an offset, and reads of a shard that does not lead. */
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.pb-c.h"
#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "tests/support/shardbed.h"
#include "tests/support/test.h"

#define COMMAND TROUPE__KIND__KIND_COMMAND
#define QUERY   TROUPE__KIND__KIND_QUERY
#define EVENTS  TROUPE__KIND__KIND_EVENTS
#define STATE   TROUPE__KIND__KIND_STATE
#define SHARD   1u

static struct bed bed;

static void end(struct bed_call *c)
{
	ac_call_clear(&c->call);
	uv_sem_destroy(&c->over);
}

static uint32_t command(const char *name, const char *payload)
{
	struct bed_call c;
	bed_call(&c, COMMAND, "a", name, payload);
	uint32_t code = bed_run(&bed, &c);
	end(&c);
	return code;
}

/* Leads in term 1; "a" has 100 at sequence number 2, offset 2. */
static int setup(void **state)
{
	(void)state;
	bed_open(&bed);
	bed_lead(&bed, 1);
	assert_int_equal(command("Open", ""), 0);
	assert_int_equal(command("Deposit", "{\"amount\":100}"), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bed_close(&bed);
	return 0;
}

static void make(struct bed_call *c, uint32_t kind, const char *name, uint64_t after)
{
	bed_call(c, kind, "a", name, "");
	c->call.in.after = after;
}

static void assert_answer(struct bed_call *c, const char *expected)
{
	assert_int_equal(bed_wait(c), 0);
	assert_string_equal(c->text, expected);
	end(c);
}

/* As a follower: the code, and the answer in *c. */
static uint32_t read_stale(struct bed_call *c)
{
	bed_do(&bed, bed_read, c);
	return bed_wait(c);
}

static void tail_is(struct bed *of, void *arg)
{
	uint64_t *tail = arg;
	tail[1] = of->shard.tail == tail[0];
}

static void wait_for_tail(uint64_t wanted)
{
	uint64_t tail[2] = {wanted};
	do {
		bed_do(&bed, tail_is, tail);
	} while (tail[1] == 0);
}

static void a_leader_answers_when_the_offset_is_committed(void **state)
{
	(void)state;
	struct bed_call deposit, first, second, known;
	bed_call(&deposit, COMMAND, "a", "Deposit", "{\"amount\":5}");
	bed_do(&bed, bed_submit, &deposit);
	wait_for_tail(3);
	make(&first, QUERY, "Balance", 3);
	make(&second, STATE, "", 3);
	make(&known, STATE, "", 2);
	bed_do(&bed, bed_submit, &first);
	bed_do(&bed, bed_submit, &second);
	bed_do(&bed, bed_submit, &known);
	assert_int_equal(bed_wait(&known), 0);
	assert_non_null(strstr(known.text, "\"balance\":100"));
	assert_false(bed_is_over(&first) || bed_is_over(&second));
	bed_write(&bed);
	bed_commit(&bed, 3);
	assert_answer(&first, "{\"balance\":105}");
	assert_int_equal(bed_wait(&second), 0);
	assert_non_null(strstr(second.text, "\"balance\":105"));
	bed_wait(&deposit);
	end(&deposit);
	end(&second);
	end(&known);
}

static void set_deadline(struct bed *of, void *call)
{
	((struct bed_call *)call)->call.deadline_ms = rt_worker_now_ms(of->worker) + 2;
}

static void an_offset_that_does_not_come_in_time_is_named(void **state)
{
	(void)state;
	struct bed_call c;
	for (int i = 0; i < 2; i++) { /* as a leader, as a follower */
		make(&c, QUERY, "Balance", 1000);
		bed_do(&bed, set_deadline, &c);
		bed_do(&bed, i == 0 ? bed_submit : bed_read, &c);
		assert_int_equal(bed_wait(&c), TROUPE__CODE__CODE_TIMEOUT);
		assert_non_null(strstr(c.text, "offset 1000 of shard 1"));
		assert_non_null(strstr(c.text, "committed: 2"));
		end(&c);
		bed_drop(&bed);
	}
	bed_lead(&bed, 2);
	bed_call(&c, COMMAND, "a", "Deposit", "{\"amount\":5}");
	c.call.in.after = 1000; /* means nothing to a command */
	assert_int_equal(bed_run(&bed, &c), 0);
	end(&c);
}

static void cut(struct bed *of, void *arg)
{
	(void)arg;
	ac_stream_cut(&of->shard, "closing");
}

static void waits_end_with_the_shard_or_the_node(void **state)
{
	(void)state;
	struct bed_call c;
	make(&c, QUERY, "Balance", 1000);
	bed_do(&bed, bed_submit, &c);
	bed_drop(&bed);
	assert_int_equal(bed_wait(&c), BED_MOVED);
	bed_do(&bed, bed_read, &c);
	bed_drop(&bed); /* of a follower: the store is lost */
	assert_int_equal(bed_wait(&c), BED_MOVED);
	bed_do(&bed, bed_read, &c);
	bed_do(&bed, cut, NULL);
	assert_int_equal(bed_wait(&c), TROUPE__CODE__CODE_UNAVAILABLE);
	assert_string_equal(c.text, "closing");
	end(&c);
}

static void count_entities(struct bed *of, void *arg)
{
	*(uint64_t *)arg = of->host.count.entities;
}

static void a_follower_serves_what_it_has(void **state)
{
	(void)state;
	struct bed_call c;
	bed_index(&bed);
	bed_drop(&bed);
	bed.host.confirm = bed_confirm;
	make(&c, QUERY, "Balance", 0);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":100}");
	assert_int_equal(c.call.out.seq, 2);
	assert_int_equal(c.call.out.shard, SHARD);
	make(&c, STATE, "", 2);
	assert_int_equal(read_stale(&c), 0);
	assert_non_null(strstr(c.text, "\"seq\":2,\"state\":{\"open\":true,\"balance\":100"));
	end(&c);
	make(&c, EVENTS, "", 0);
	assert_int_equal(read_stale(&c), 0);
	assert_non_null(strstr(c.text, "AccountOpened")); /* protobuf, with JSON inside */
	end(&c);
	make(&c, QUERY, "Balance", 0);
	c.call.in.payload = rt_bytes_str("{");
	assert_int_equal(read_stale(&c), TROUPE__CODE__CODE_BAD_REQUEST);
	end(&c);
	make(&c, QUERY, "Nothing", 0);
	assert_int_equal(read_stale(&c), TROUPE__CODE__CODE_NOT_FOUND);
	assert_string_equal(c.text, "account has no query \"Nothing\"");
	end(&c);
	bed_call(&c, QUERY, "b", "Balance", "");
	assert_int_equal(read_stale(&c), TROUPE__CODE__CODE_NOT_FOUND);
	assert_string_equal(c.text, "account/b has no events");
	end(&c);
	bed_call(&c, COMMAND, "a", "Deposit", "{\"amount\":1}");
	assert_int_equal(read_stale(&c), TROUPE__CODE__CODE_BAD_REQUEST);
	end(&c);
	bed_call(&c, QUERY, "a", "Balance", "");
	bed_do(&bed, bed_submit, &c); /* not said to be stale */
	assert_int_equal(bed_wait(&c), TROUPE__CODE__CODE_UNAVAILABLE);
	end(&c);
	uint64_t entities = 1;
	bed_do(&bed, count_entities, &entities);
	assert_int_equal(entities, 0);
	assert_int_equal(bed.confirms, 0);
}

static void a_follower_does_not_wait_for_events(void **state)
{
	(void)state;
	struct bed_call c;
	bed_index(&bed);
	bed_drop(&bed);
	/* from_seq 3, wait_ms 60000: nobody would wake it. */
	bed_call(&c, EVENTS, "a", "", "\x08\x03\x18\xe0\xd4\x03");
	bed_do(&bed, bed_read, &c);
	assert_int_equal(bed_wait(&c), 0);
	Troupe__EventPage *page = troupe__event_page__unpack(
		NULL, strlen(c.text), (const uint8_t *)c.text); /* of few bytes, none of them 0 */
	assert_non_null(page);
	assert_int_equal(page->n_events, 0);
	assert_int_equal(page->next_seq, 3);
	troupe__event_page__free_unpacked(page, NULL);
	end(&c);
}

static void a_follower_shows_only_what_is_committed(void **state)
{
	(void)state;
	struct bed_call c;
	bed_index(&bed);
	bed_drop(&bed);
	bed_replace(&bed, 3, 7, 107, "theirs"); /* in its log, and may be cut off again */
	make(&c, QUERY, "Balance", 0);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":100}");
	make(&c, EVENTS, "", 0);
	assert_int_equal(read_stale(&c), 0);
	assert_null(strstr(c.text, "theirs"));
	end(&c);
	bed_commit(&bed, 3);
	bed_index(&bed);
	make(&c, QUERY, "Balance", 3);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":107}");
}

/* The index has it a second later. */
static void a_follower_waits_for_the_commit_and_not_for_the_index(void **state)
{
	(void)state;
	struct bed_call c[3];
	bed_drop(&bed);
	bed_replace(&bed, 3, 7, 107, "theirs");
	for (int i = 0; i < 3; i++) {
		make(&c[i], i == 2 ? STATE : QUERY, "Balance", i == 0 ? 2 : 3);
		bed_do(&bed, bed_read, &c[i]);
	}
	assert_answer(&c[0], "{\"balance\":100}");
	assert_false(bed_is_over(&c[1]) || bed_is_over(&c[2]));
	bed_commit(&bed, 3);
	assert_answer(&c[1], "{\"balance\":107}");
	assert_int_equal(bed_wait(&c[2]), 0);
	assert_non_null(strstr(c[2].text, "\"balance\":107"));
	end(&c[2]);
}

static void reset(struct bed *of, void *arg)
{
	(void)arg;
	ac_shard_reset(&of->shard);
}

static void lead_upto_2(struct bed *of, void *arg)
{
	(void)arg;
	ac_shard_lead(&of->shard, 2, 2);
}

static void who_waits_at_a_follower_is_served_when_it_leads(void **state)
{
	(void)state;
	struct bed_call c;
	bed_index(&bed);
	bed_drop(&bed);
	bed_do(&bed, reset, NULL); /* what is committed is not known any more */
	make(&c, QUERY, "Balance", 2);
	bed_do(&bed, bed_read, &c);
	assert_false(bed_is_over(&c));
	bed_do(&bed, lead_upto_2, NULL);
	assert_answer(&c, "{\"balance\":100}");
}

static void put_snapshot(uint32_t version, uint64_t deposits, int64_t balance)
{
	uint8_t bytes[100];
	Account__Kind kind = ACCOUNT__KIND__DEPOSIT;
	Account__State stored = ACCOUNT__STATE__INIT;
	stored.open = true;
	stored.balance = balance;
	stored.deposits = deposits;
	stored.last_seq = 2;
	stored.n_kept_kinds = stored.n_kept_deltas = 1;
	stored.kept_kinds = &kind;
	stored.kept_deltas = &balance;
	struct ps_snapshot snapshot = {.seq = 2, .offset = 2, .version = version};
	snapshot.state = rt_bytes_of(bytes, account__state__pack(&stored, bytes));
	assert_err(ps_store_snapshot_put(
			   bed.host.store, SHARD, rt_bytes_str("account|a"), &snapshot, NULL),
		RT_OK);
}

static void a_stale_query_begins_at_a_snapshot_that_fits(void **state)
{
	(void)state;
	struct bed_call c;
	bed_index(&bed);
	bed_drop(&bed);
	put_snapshot(99, 1, 5000);
	make(&c, QUERY, "Balance", 0);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":100}");
	put_snapshot(1, 0, 5000); /* found out when half of it is in the state */
	make(&c, QUERY, "Balance", 0);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":100}");
	put_snapshot(1, 1, 5000); /* a wrong one, so that its use shows */
	make(&c, QUERY, "Balance", 0);
	bed_do(&bed, bed_read, &c);
	assert_answer(&c, "{\"balance\":5000}");
	make(&c, STATE, "", 0); /* says what the events say */
	assert_int_equal(read_stale(&c), 0);
	assert_non_null(strstr(c.text, "\"balance\":100"));
	end(&c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_leader_answers_when_the_offset_is_committed),
		TEST(an_offset_that_does_not_come_in_time_is_named),
		TEST(waits_end_with_the_shard_or_the_node),
		TEST(a_follower_serves_what_it_has),
		TEST(a_follower_does_not_wait_for_events),
		TEST(a_follower_shows_only_what_is_committed),
		TEST(a_follower_waits_for_the_commit_and_not_for_the_index),
		TEST(who_waits_at_a_follower_is_served_when_it_leads),
		TEST(a_stale_query_begins_at_a_snapshot_that_fits),
	};
	return cmocka_run_group_tests_name("actors/after", tests, NULL, NULL);
}
