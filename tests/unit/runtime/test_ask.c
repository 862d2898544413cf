/* Asks and their answers, and what a full mailbox refuses. */
#include <string.h>

#include "runtime/sched/ask.h"
#include "tests/support/actorbed.h"
#include "tests/support/test.h"

/* ---- asks ---- */

static const struct rt_behaviour resuming = {.name = "resuming",
	.turn = bed_serve,
	.state_size = sizeof(struct bed_server),
	.supervision = {.policy = RT_POLICY_RESUME}};

static void every_ask_is_answered(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 4);
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		for (uint32_t i = 0; i < 12; i++) {
			bed_ask(i % 3, s, ADD, 50);
		}
		bed_run();
		assert_int_equal(bed.answers[15], 600);
		assert_int_equal(bed.value, 600);
		assert_int_equal(bed_stats().pending, 0);
		assert_int_equal(bed_stats().queued, 0);
		bed_end();
	}
}

static void ask_times_out_after_its_time(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		uint64_t before = rt_sim_now_ms(bed.sim);
		bed_ask((uint32_t)seed % 3, bed_spawn(0, &bed_server, NULL), NOTHING, 3);
		bed_run();
		assert_int_equal(bed.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 3);
		assert_in_range(bed.at_ms - before, 300, 400);
		assert_int_equal(bed_stats().timeouts, 3);
		assert_int_equal(bed_stats().pending, 0);
		bed_end();
	}
}

static void late_answer_is_a_dead_letter(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		bed_ask((uint32_t)seed % 3, s, SLEEP, 1);
		bed_run();
		assert_int_equal(bed.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 1);
		bed_tell(s, WAKE, 0);
		bed_run();
		assert_int_equal(bed.answers[15], 0);
		assert_int_equal(bed_stats().dead[RT_DEAD_LATE], 1);
		struct rt_dead_letter last[4];
		assert_int_equal(rt_worker_dead_letters(bed.worker[seed % 3], last, 4), 1);
		assert_int_equal(last[0].type, SUM);
		assert_true(rt_ref_equal(last[0].from, s));
		bed_end();
	}
}

static void answer_may_come_in_a_later_turn(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		bed_ask((uint32_t)seed % 3, s, SLEEP, 1);
		while (bed.starts == 0) {
			rt_sim_step(bed.sim);
		}
		bed_tell(s, WAKE, 0);
		bed_run();
		assert_int_equal(bed.answers[15], 1);
		bed_end();
	}
}

static void asker_learns_that_nobody_is_there(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		bed_ask((uint32_t)seed % 3, s, QUIET,
			3); /* it stops without an answer: a timeout first */
		bed_run();
		assert_int_equal(bed.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 1);
		assert_int_equal(bed.answers[RT_MSG_GONE - RT_MSG_FIRST], 2);
		assert_int_equal(bed_stats().dead[RT_DEAD_GONE], 2);
		assert_int_equal(bed_stats().pending, 0);
		bed_end();
	}
}

static void asks_in_the_mailbox_of_a_stopped_actor_get_gone(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		struct rt_envelope *env = rt_envelope_new(bed.worker[0], QUIET);
		env->to = s;
		assert_err(rt_send(bed.worker[0], env), RT_OK);
		for (uint32_t i = 0; i < 6; i++) {
			bed_ask(i % 3, s, ADD, 1);
		}
		bed_run();
		assert_int_equal(bed.answers[RT_MSG_GONE - RT_MSG_FIRST], 6);
		assert_int_equal(
			bed_stats().dead[RT_DEAD_GONE] + bed_stats().dead[RT_DEAD_STOPPED], 6);
		bed_end();
	}
}

static void asker_learns_of_a_failure_and_others_go_on(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &resuming, NULL);
		bed_ask(1, s, BOOM, 4);
		bed_ask(2, s, ADD, 4);
		bed_run();
		assert_int_equal(bed.answers[RT_MSG_FAILED - RT_MSG_FIRST], 4);
		assert_int_equal(bed.answers[15], 4);
		assert_int_equal(bed.value, 4);
		assert_int_equal(bed_stats().failures, 4);
		bed_end();
	}
}

static enum rt_turn forward(struct rt_actor *self, struct rt_envelope *env)
{
	rt_err err = rt_forward(self, bed.ref, env);
	return err == RT_E_FULL ? RT_AGAIN : RT_DONE;
}

static const struct rt_behaviour forwarder = {.name = "forwarder", .turn = forward};

static void forwarded_ask_is_answered_to_the_first_asker(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 2);
		bed.ref = bed_spawn(0, &bed_server, NULL);
		struct rt_ref f = bed_spawn(1, &forwarder, NULL);
		for (uint32_t i = 0; i < 9; i++) {
			bed_ask(i % 3, f, ADD, 10);
		}
		bed_run();
		assert_int_equal(bed.answers[15], 90);
		assert_int_equal(bed.value, 90);
		bed_end();
	}
}

/* ---- refusals ---- */

struct flood {
	uint64_t left, sent, refused;
};

static enum rt_turn slow(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	if (env->type == BOOM) {
		return RT_FAIL;
	}
	bed.value += env->body.words[0];
	bed.count++;
	return RT_DONE;
}

static rt_err awake(struct rt_actor *self)
{
	(void)self;
	return RT_OK;
}

/* Backs off for a while, so that its mailbox fills up to its end. */
static const struct rt_behaviour sink = {.name = "sink",
	.turn = slow,
	.restarted = awake,
	.supervision = {.policy = RT_POLICY_RESTART, .backoff_min_ms = 20}};

static enum rt_turn flood_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct flood *flood = rt_actor_state(self);
	if (env->type == RT_MSG_REFUSED) {
		assert_int_equal(rt_envelope_refused(env), ADD);
		assert_int_equal(env->body.words[0], 1);
		bed.answers[8]++;
		return RT_DONE;
	}
	assert_int_equal(env->type, GO);
	while (flood->left > 0) {
		uint64_t one = 1;
		if (rt_tell(self, bed.ref, ADD, &one, sizeof(one)) != RT_OK) {
			return RT_AGAIN;
		}
		flood->left--;
		bed.answers[9]++;
	}
	return RT_DONE;
}

static rt_err start_flood(struct rt_actor *self, void *arg)
{
	(void)arg;
	((struct flood *)rt_actor_state(self))->left = 20000;
	return RT_OK;
}

static const struct rt_behaviour flooder = {.name = "flooder",
	.turn = flood_turn,
	.started = start_flood,
	.state_size = sizeof(struct flood)};

static void handled_and_refused_is_sent(void **state)
{
	(void)state;
	int refused = 0;
	for (uint64_t seed = 1; seed <= 5; seed++) {
		bed_begin(seed, 4);
		bed.ref = bed_spawn(0, &sink, NULL);
		bed_tell(bed.ref, BOOM, 0);
		for (uint32_t i = 0; i < 4; i++) {
			bed_tell(bed_spawn(i % 3, &flooder, NULL), GO, 0);
		}
		bed_run();
		assert_int_equal(bed.answers[9], 80000);
		assert_int_equal(bed.count + bed.answers[8], 80000);
		assert_int_equal(bed.value, bed.count);
		refused += bed.answers[8];
		bed_end();
	}
	assert_true(refused > 0);
}

static const struct rt_behaviour sleepy = {.name = "sleepy",
	.turn = slow,
	.restarted = awake,
	.supervision = {.policy = RT_POLICY_RESTART, .backoff_min_ms = 5000}};

static void ask_to_a_full_mailbox_is_answered_busy(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 5; seed++) {
		bed_begin(seed, 4);
		bed.ref = bed_spawn(0, &sleepy, NULL);
		bed_tell(bed.ref, BOOM, 0);
		bed_tell(bed_spawn(1, &flooder, NULL), GO, 0);
		while (bed.answers[8] == 0) {
			assert_true(rt_sim_step(bed.sim));
		}
		memset(bed.answers, 0, sizeof(bed.answers));
		bed_ask(2, bed.ref, SUM, 3);
		while (bed.answers[RT_MSG_BUSY - RT_MSG_FIRST] == 0) {
			assert_true(rt_sim_step(bed.sim));
			assert_int_equal(bed.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 0);
		}
		bed_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_ask_is_answered),
		cmocka_unit_test(ask_times_out_after_its_time),
		cmocka_unit_test(late_answer_is_a_dead_letter),
		cmocka_unit_test(answer_may_come_in_a_later_turn),
		cmocka_unit_test(asker_learns_that_nobody_is_there),
		cmocka_unit_test(asks_in_the_mailbox_of_a_stopped_actor_get_gone),
		cmocka_unit_test(asker_learns_of_a_failure_and_others_go_on),
		cmocka_unit_test(forwarded_ask_is_answered_to_the_first_asker),
		cmocka_unit_test(handled_and_refused_is_sent),
		cmocka_unit_test(ask_to_a_full_mailbox_is_answered_busy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
