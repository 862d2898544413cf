/* The life of an actor: who watches it, its family, supervision, behaviours, alarms, neighbours. */
#include <stdio.h>
#include <string.h>

#include "runtime/sched/ask.h"
#include "runtime/sched/family.h"
#include "tests/support/actorbed.h"
#include "tests/support/test.h"

/* ---- watching and families ---- */

static void note(const char *word)
{
	size_t used = strlen(bed.text);
	snprintf(bed.text + used, sizeof(bed.text) - used, "%s ", word);
}

static enum rt_turn watch_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == RT_MSG_TERMINATED) {
		assert_true(rt_ref_equal(env->from, bed.ref));
		bed.count++;
	} else if (env->type == GO) {
		assert_err(rt_watch(self, bed.ref), RT_OK);
		assert_err(rt_watch(self, bed.ref), RT_OK);
	} else if (env->type == QUIET) {
		rt_unwatch(self, bed.ref);
	} else {
		return RT_STOP;
	}
	return RT_DONE;
}

static const struct rt_behaviour watcher = {.name = "watcher", .turn = watch_turn};

static void watchers_learn_once_that_it_stopped(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		bed.ref = bed_spawn(0, &bed_server, NULL);
		struct rt_ref w[9];
		for (uint32_t i = 0; i < 9; i++) {
			w[i] = bed_spawn(i % 3, &watcher, NULL);
			bed_tell(w[i], GO, 0);
		}
		bed_run();
		assert_int_equal(bed.count, 0);
		for (uint32_t i = 0; i < 3; i++) {
			bed_tell(w[i], QUIET, 0);    /* no longer interested */
			bed_tell(w[3 + i], BOOM, 0); /* stops, still watching */
		}
		bed_run();
		bed_tell(bed.ref, BOOM, 0);
		bed_run();
		assert_int_equal(bed.count, 3);
		for (uint32_t i = 0; i < 3; i++) {
			bed_tell(w[i], GO, 0); /* too late: at once */
		}
		bed_run();
		assert_int_equal(bed.count, 6);
		assert_int_equal(bed_stats().actors, 6);
		bed_end();
	}
}

static void unwatch_wins_over_a_message_on_its_way(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		bed.ref = bed_spawn(0, &bed_server, NULL);
		struct rt_ref w = bed_spawn(1, &watcher, NULL);
		bed_tell(w, GO, 0);
		bed_run();
		bed_tell(w, QUIET, 0);
		bed_tell(bed.ref, BOOM, 0);
		bed_run();
		assert_int_equal(bed.count, 0);
		bed_end();
	}
}

static enum rt_turn family_turn(struct rt_actor *self, struct rt_envelope *env);
static void family_stopped(struct rt_actor *self)
{
	note(rt_actor_name(self));
	bed.stops++;
}

static const struct rt_behaviour grandchild = {.name = "grandchild",
	.turn = family_turn,
	.stopped = family_stopped,
	.supervision = {.policy = RT_POLICY_ESCALATE}};
static const struct rt_behaviour child = {.name = "child",
	.turn = family_turn,
	.stopped = family_stopped,
	.supervision = {.policy = RT_POLICY_ESCALATE}};
static const struct rt_behaviour parent = {.name = "parent",
	.turn = family_turn,
	.stopped = family_stopped,
	.supervision = {.policy = RT_POLICY_RESTART, .backoff_min_ms = 50}};

static enum rt_turn family_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct rt_ref made;
	switch (env->type) {
	case GO:
		assert_err(rt_spawn_child(self, &child, NULL, &made), RT_OK);
		assert_err(rt_tell(self, made, CHILD, NULL, 0), RT_OK);
		return RT_DONE;
	case CHILD:
		assert_false(rt_ref_is_none(rt_actor_parent(self)));
		assert_err(rt_spawn_child(self, &grandchild, NULL, &bed.other), RT_OK);
		return RT_DONE;
	case SLEEP: /* from inside: stop the whole family, oneself included */
		assert_err(rt_stop(rt_actor_worker(self), bed.ref), RT_OK);
		return RT_DONE;
	case BOOM:
		return RT_FAIL;
	default:
		bed.count++;
		return RT_DONE;
	}
}

static void children_stop_before_their_parent(void **state)
{
	(void)state;
	bed_begin(1, 0);
	bed.ref = bed_spawn(0, &parent, NULL);
	bed_tell(bed.ref, GO, 0);
	bed_run();
	assert_int_equal(bed_stats().actors, 3);
	assert_err(rt_stop(bed.worker[0], bed.ref), RT_OK);
	assert_string_equal(bed.text, "grandchild child parent ");
	assert_int_equal(bed_stats().actors, 0);
	bed_end();
}

static void a_grandchild_may_stop_its_family_in_its_turn(void **state)
{
	(void)state;
	bed_begin(1, 0);
	bed.ref = bed_spawn(0, &parent, NULL);
	bed_tell(bed.ref, GO, 0);
	bed_run();
	bed_tell(bed.other, SLEEP, 0);
	bed_run();
	assert_string_equal(bed.text, "child parent grandchild ");
	assert_int_equal(bed_stats().actors, 0);
	bed_end();
}

static void escalated_failure_restarts_the_parent_without_children(void **state)
{
	(void)state;
	bed_begin(1, 0);
	bed.ref = bed_spawn(0, &parent, NULL);
	bed_tell(bed.ref, GO, 0);
	bed_run();
	uint64_t before = rt_sim_now_ms(bed.sim);
	bed_tell(bed.other, BOOM, 0);
	bed_tell(bed.ref, QUIET, 0);
	bed_run();
	assert_string_equal(bed.text, "grandchild child parent ");
	assert_int_equal(bed_stats().actors, 1);
	assert_int_equal(bed_stats().failures, 3);
	assert_int_equal(bed_stats().restarts, 1);
	assert_true(rt_sim_now_ms(bed.sim) - before >= 50);
	assert_true(bed.count == 1);
	bed_end();
}

/* ---- supervision ---- */

struct phoenix {
	uint64_t value;
};

static rt_err start_phoenix(struct rt_actor *self, void *arg)
{
	assert_int_equal(((struct phoenix *)rt_actor_state(self))->value, 0);
	((struct phoenix *)rt_actor_state(self))->value = *(uint64_t *)arg;
	bed.starts++;
	return bed.starts > 1 && bed.starts < 4 && bed.answers[12] != 0 ? RT_E_AGAIN : RT_OK;
}

static void stop_phoenix(struct rt_actor *self)
{
	assert_true(((struct phoenix *)rt_actor_state(self))->value >= 7);
	bed.stops++;
}

static enum rt_turn phoenix_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct phoenix *phoenix = rt_actor_state(self);
	if (env->type == BOOM) {
		bed.at_ms = rt_worker_now_ms(rt_actor_worker(self));
		return RT_FAIL;
	}
	phoenix->value += env->body.words[0];
	bed.value = phoenix->value;
	bed.count++;
	return RT_DONE;
}

static const struct rt_behaviour phoenix = {.name = "phoenix",
	.turn = phoenix_turn,
	.started = start_phoenix,
	.stopped = stop_phoenix,
	.state_size = sizeof(struct phoenix),
	.supervision = {.policy = RT_POLICY_RESTART,
		.backoff_min_ms = 10,
		.backoff_max_ms = 35,
		.restarts_max = 4,
		.window_ms = 1000}};

static uint64_t seven = 7;

static void restart_gives_a_fresh_state_and_keeps_the_mailbox(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref p = bed_spawn(0, &phoenix, &seven);
		bed_tell(p, ADD, 1);
		bed_tell(p, BOOM, 0);
		bed_tell(p, ADD, 2);
		bed_tell(p, ADD, 3);
		bed_run();
		assert_int_equal(bed.value, 12);
		assert_int_equal(bed.count, 3);
		assert_int_equal(bed.starts, 2);
		assert_int_equal(bed.stops, 1);
		bed_end();
	}
}

static void back_off_doubles_up_to_its_maximum_and_gives_up(void **state)
{
	(void)state;
	bed_begin(3, 0);
	struct rt_ref p = bed_spawn(0, &phoenix, &seven);
	uint64_t last = 0;
	const uint64_t expected[] = {10, 20, 35, 35};
	for (int i = 0; i < 5; i++) {
		bed_tell(p, BOOM, 0);
		bed_tell(p, NOTHING, 0);
		bed_run();
		uint64_t now = rt_sim_now_ms(bed.sim);
		if (i < 4) {
			assert_in_range(now - bed.at_ms, expected[i], expected[i] + 1);
			assert_int_equal(bed_stats().actors, 1);
		}
		last = now;
	}
	(void)last;
	assert_int_equal(bed_stats().actors, 0);
	assert_int_equal(bed_stats().restarts, 4);
	assert_int_equal(bed_stats().dead[RT_DEAD_STOPPED], 1);
	bed_end();
}

static void restarts_outside_the_window_are_forgotten(void **state)
{
	(void)state;
	bed_begin(3, 0);
	struct rt_ref p = bed_spawn(0, &phoenix, &seven);
	for (int i = 0; i < 20; i++) {
		bed_tell(p, BOOM, 0);
		bed_run();
		struct rt_ref s = bed_spawn(0, &bed_server, NULL);
		bed_ask(0, s, NOTHING, 4); /* 400 ms pass */
		bed_run();
	}
	assert_int_equal(bed_stats().restarts, 20);
	bed_end();
}

static void a_start_that_fails_is_tried_again_later(void **state)
{
	(void)state;
	bed_begin(3, 0);
	bed.answers[12] = 1;
	struct rt_ref p = bed_spawn(0, &phoenix, &seven);
	bed_tell(p, BOOM, 0);
	bed_tell(p, ADD, 1);
	bed_run();
	assert_int_equal(bed.starts, 4);
	assert_int_equal(bed.stops, 1);
	assert_int_equal(bed.value, 8);
	bed_end();
}

static void a_failed_actor_harms_no_other(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref bad = bed_spawn(0, &bed_server, NULL);
		struct rt_ref good = bed_spawn(0, &bed_server, NULL);
		for (uint32_t i = 0; i < 3; i++) {
			bed_ask(i, good, ADD, 5);
		}
		bed_tell(bad, BOOM, 0);
		bed_run();
		assert_int_equal(bed.answers[15], 15);
		assert_int_equal(bed_stats().failures, 1);
		bed_end();
	}
}

/* ---- stash, become, alarms ---- */

static enum rt_turn open_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	if (env->type == BOOM) {
		return RT_FAIL;
	}
	bed.value = bed.value * 10 + env->body.words[0];
	return RT_DONE;
}

static const struct rt_behaviour opened = {
	.name = "opened", .turn = open_turn, .supervision = {.policy = RT_POLICY_RESTART}};

static enum rt_turn closed_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == WAKE) {
		rt_unstash(self);
		assert_err(rt_become(self, &opened), RT_OK);
		return RT_DONE;
	}
	rt_err err = rt_stash(self, env);
	bed.answers[0] += err == RT_E_FULL;
	return RT_DONE;
}

static const struct rt_behaviour closed = {.name = "closed",
	.turn = closed_turn,
	.stash_cap = 4,
	.supervision = {.policy = RT_POLICY_RESTART}};

static void stash_keeps_the_order_and_is_bounded(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref c = bed_spawn(0, &closed, NULL);
		for (uint64_t i = 1; i <= 5; i++) {
			bed_tell(c, ADD, i);
		}
		bed_tell(c, WAKE, 0);
		bed_tell(c, ADD, 6);
		bed_run();
		assert_int_equal(bed.answers[0], 1);
		assert_int_equal(bed.value, 12346);
		bed_end();
	}
}

static void restart_returns_to_the_first_behaviour(void **state)
{
	(void)state;
	bed_begin(1, 0);
	struct rt_ref c = bed_spawn(0, &closed, NULL);
	bed_tell(c, WAKE, 0);
	bed_tell(c, BOOM, 0);
	bed_tell(c, ADD, 1);
	bed_run();
	assert_int_equal(bed.value, 0);
	bed_tell(c, WAKE, 0);
	bed_run();
	assert_int_equal(bed.value, 1);
	bed_end();
}

static struct rt_alarm alarms[4];

static enum rt_turn alarm_turn(struct rt_actor *self, struct rt_envelope *env)
{
	switch (env->type) {
	case GO:
		for (uint64_t i = 0; i < 4; i++) {
			assert_err(
				rt_alarm_start(self, bed.at_ms * (4 - i), RING, i + 1, &alarms[i]),
				RT_OK);
		}
		return RT_DONE;
	case QUIET:
		assert_true(rt_alarm_cancel(self, alarms[1]));
		assert_false(rt_alarm_cancel(self, alarms[1]));
		return RT_DONE;
	case RING:
		assert_true(rt_ref_equal(env->from, rt_actor_ref(self)));
		bed.value = bed.value * 10 + env->body.words[0];
		assert_false(rt_alarm_cancel(self, alarms[env->body.words[0] - 1]));
		return RT_DONE;
	case WAKE:
		return RT_DONE;
	case BOOM:
		return RT_FAIL;
	default:
		return RT_STOP;
	}
}

static const struct rt_behaviour sleeper = {
	.name = "sleeper", .turn = alarm_turn, .supervision = {.policy = RT_POLICY_RESTART}};

static void alarms_ring_in_time_unless_cancelled(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 1); /* a full mailbox does not refuse an alarm */
		struct rt_ref s = bed_spawn(0, &sleeper, NULL);
		uint64_t before = rt_sim_now_ms(bed.sim);
		bed.at_ms = 10;
		bed_tell(s, GO, 0);
		rt_sim_run(bed.sim, 2);
		while (bed_stats().pending == 0) {
			rt_sim_step(bed.sim);
		}
		bed_tell(s, QUIET, 0);
		bed_run();
		assert_int_equal(bed.value, 431);
		assert_true(rt_sim_now_ms(bed.sim) - before >= 40);
		assert_int_equal(bed_stats().pending, 0);
		bed_end();
	}
}

static void cancel_wins_over_an_alarm_in_the_mailbox(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref s = bed_spawn(0, &sleeper, NULL);
		/* All four are due at once: they come while WAKEs are handled, behind QUIET. */
		bed_tell(s, GO, 0);
		for (int i = 0; i < 1000; i++) {
			bed_tell(s, WAKE, 0);
		}
		bed_tell(s, QUIET, 0);
		bed_run();
		assert_int_equal(bed.value, 134);
		bed_end();
	}
}

static void alarms_end_with_a_restart_and_with_the_actor(void **state)
{
	(void)state;
	bed_begin(1, 0);
	struct rt_ref s = bed_spawn(0, &sleeper, NULL);
	bed_tell(s, GO, 0);
	bed_tell(s, BOOM, 0);
	bed_run();
	assert_int_equal(bed.value, 0);
	assert_int_equal(bed_stats().pending, 0);
	bed_tell(s, GO, 0);
	bed_tell(s, NOTHING, 0);
	bed_run();
	assert_int_equal(bed.value, 0);
	assert_int_equal(bed_stats().pending, 0);
	assert_int_equal(bed_stats().actors, 0);
	bed_end();
}

/* ---- fairness ---- */

static enum rt_turn hot_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == QUIET) {
		bed.at_ms = (uint64_t)bed.count; /* how much of the other went before */
		return RT_DONE;
	}
	bed.count++;
	/* Never empty: it sends itself what it has handled. */
	uint64_t again = env->body.words[0] - 1;
	if (again > 0) {
		assert_err(rt_tell(self, rt_actor_ref(self), ADD, &again, sizeof(again)), RT_OK);
	}
	return RT_DONE;
}

static const struct rt_behaviour hot = {.name = "hot", .turn = hot_turn};

static void a_hot_actor_delays_its_neighbour_by_one_turn(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		struct rt_ref h = bed_spawn(0, &hot, NULL);
		struct rt_ref neighbour = bed_spawn(0, &hot, NULL);
		for (int i = 0; i < 500; i++) {
			bed_tell(h, ADD, 20);
		}
		bed_tell(neighbour, QUIET, 0);
		bed_run();
		assert_int_equal(bed.count, 10000);
		assert_in_range(bed.at_ms, 1, 8);
		bed_end();
	}
}

/* ---- spawning elsewhere ---- */

static enum rt_turn on_spawned(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	(void)self;
	assert_int_equal(env->type, RT_MSG_SPAWNED);
	assert_int_equal(rt_ref_worker(env->from), (uintptr_t)arg);
	assert_int_equal(env->body.words[0], RT_OK);
	if (rt_stop(rt_actor_worker(self), env->from) != RT_OK) {
		return RT_AGAIN;
	}
	bed.count++;
	return RT_DONE;
}

static enum rt_turn spawner_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	for (uint32_t i = 0; i < 3; i++) {
		rt_err err =
			rt_spawn_on(self, i, &bed_server, NULL, on_spawned, (void *)(uintptr_t)i);
		bed.answers[err == RT_OK ? 0 : 1]++;
	}
	assert_err(rt_spawn_on(self, 3, &bed_server, NULL, on_spawned, NULL), RT_E_INVAL);
	return RT_DONE;
}

static const struct rt_behaviour spawner = {.name = "spawner", .turn = spawner_turn};

static void spawns_and_stops_on_other_workers(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		bed_begin(seed, 0);
		bed_tell(bed_spawn(0, &spawner, NULL), GO, 0);
		bed_run();
		assert_int_equal(bed.count, bed.answers[0]);
		assert_true(bed.count >= 1);
		assert_int_equal(bed_stats().actors, 1);
		bed_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watchers_learn_once_that_it_stopped),
		cmocka_unit_test(unwatch_wins_over_a_message_on_its_way),
		cmocka_unit_test(children_stop_before_their_parent),
		cmocka_unit_test(a_grandchild_may_stop_its_family_in_its_turn),
		cmocka_unit_test(escalated_failure_restarts_the_parent_without_children),
		cmocka_unit_test(restart_gives_a_fresh_state_and_keeps_the_mailbox),
		cmocka_unit_test(back_off_doubles_up_to_its_maximum_and_gives_up),
		cmocka_unit_test(restarts_outside_the_window_are_forgotten),
		cmocka_unit_test(a_start_that_fails_is_tried_again_later),
		cmocka_unit_test(a_failed_actor_harms_no_other),
		cmocka_unit_test(stash_keeps_the_order_and_is_bounded),
		cmocka_unit_test(restart_returns_to_the_first_behaviour),
		cmocka_unit_test(alarms_ring_in_time_unless_cancelled),
		cmocka_unit_test(cancel_wins_over_an_alarm_in_the_mailbox),
		cmocka_unit_test(alarms_end_with_a_restart_and_with_the_actor),
		cmocka_unit_test(a_hot_actor_delays_its_neighbour_by_one_turn),
		cmocka_unit_test(spawns_and_stops_on_other_workers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
