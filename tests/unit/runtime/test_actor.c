/* Everything here runs in the simulator, under several seeds: time is given, order is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sched/ask.h"
#include "runtime/sched/family.h"
#include "runtime/sched/sim.h"
#include "runtime/sched/stats.h"
#include "tests/support/test.h"

#define SEEDS 40u
#define STEPS 1000000u

enum {
	GO = 1,
	ADD,
	GET,
	SUM,
	NOTHING,
	BOOM,
	SLEEP,
	WAKE,
	QUIET,
	CHILD,
	RING
};

/* ---- what a test looks at ---- */

static struct {
	struct rt_sim *sim;
	struct rt_worker *worker[3];
	int answers[16];
	uint64_t value;
	uint64_t at_ms;
	int count, stops, starts;
	struct rt_ref ref, other;
	char text[256];
} the;

static void begin(uint64_t seed, uint32_t cap)
{
	memset(&the, 0, sizeof(the));
	struct rt_system_options options = {.workers = 3, .mailbox_cap = cap};
	struct rt_errinfo info;
	assert_err(rt_sim_new(&options, seed, &the.sim, &info), RT_OK);
	for (uint32_t i = 0; i < 3; i++) {
		the.worker[i] = rt_system_worker(rt_sim_system(the.sim), i);
	}
}

static void run(void)
{
	assert_true(rt_sim_run(the.sim, STEPS));
}

static void end(void)
{
	rt_sim_free(the.sim);
}

static struct rt_ref spawn(uint32_t worker, const struct rt_behaviour *behaviour, void *arg)
{
	struct rt_ref ref;
	assert_err(rt_spawn(the.worker[worker], behaviour, arg, &ref), RT_OK);
	return ref;
}

static void tell(struct rt_ref to, uint32_t type, uint64_t word)
{
	struct rt_worker *worker = the.worker[rt_ref_worker(to)];
	assert_err(rt_worker_tell(worker, to, type, &word, sizeof(word)), RT_OK);
}

static struct rt_worker_stats stats(void)
{
	struct rt_worker_stats sum = {0};
	for (int i = 0; i < 3; i++) {
		struct rt_worker_stats one;
		rt_worker_stats(the.worker[i], &one);
		for (int k = 0; k < RT_DEAD_KINDS; k++) {
			sum.dead[k] += one.dead[k];
		}
		sum.actors += one.actors;
		sum.queued += one.queued;
		sum.pending += one.pending;
		sum.failures += one.failures;
		sum.restarts += one.restarts;
		sum.timeouts += one.timeouts;
	}
	return sum;
}

static void note(const char *word)
{
	size_t used = strlen(the.text);
	snprintf(the.text + used, sizeof(the.text) - used, "%s ", word);
}

#define FOR_SEEDS(seed) for (uint64_t seed = 1; seed <= SEEDS; seed++)

/* ---- asks ---- */

struct server {
	uint64_t sum;
	struct rt_envelope *kept;
};

static enum rt_turn serve(struct rt_actor *self, struct rt_envelope *env)
{
	struct server *server = rt_actor_state(self);
	switch (env->type) {
	case ADD:
		server->sum += env->body.words[0];
		rt_reply(self, env, SUM, &server->sum, sizeof(server->sum));
		return RT_DONE;
	case NOTHING:
		return RT_DONE;
	case SLEEP:
		server->kept = env;
		the.starts++;
		return RT_KEEP;
	case WAKE:
		rt_reply(self, server->kept, SUM, &server->sum, sizeof(server->sum));
		return RT_DONE;
	case BOOM:
		return RT_FAIL;
	default:
		return RT_STOP;
	}
}

static const struct rt_behaviour server = {
	.name = "server", .turn = serve, .state_size = sizeof(struct server)};
static const struct rt_behaviour resuming = {.name = "resuming",
	.turn = serve,
	.state_size = sizeof(struct server),
	.supervision = {.policy = RT_POLICY_RESUME}};

struct client {
	struct rt_ref server;
	uint64_t type, count, timeout_ms, seen;
};

static enum rt_turn ask_next(struct rt_actor *self);

static enum rt_turn on_answer(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	struct client *client = rt_actor_state(self);
	assert_ptr_equal(arg, client);
	if (client->seen + 1 < client->count && ask_next(self) == RT_AGAIN) {
		return RT_AGAIN; /* the same answer comes again */
	}
	the.at_ms = rt_worker_now_ms(rt_actor_worker(self));
	if (env->type >= RT_MSG_FIRST) {
		the.answers[env->type - RT_MSG_FIRST]++;
	} else {
		assert_int_equal(env->type, SUM);
		the.answers[15]++;
		the.value = env->body.words[0] > the.value ? env->body.words[0] : the.value;
	}
	client->seen++;
	return RT_DONE;
}

static enum rt_turn ask_next(struct rt_actor *self)
{
	struct client *client = rt_actor_state(self);
	struct rt_envelope *env = rt_envelope_new(rt_actor_worker(self), (uint32_t)client->type);
	env->body.words[0] = 1;
	rt_err err =
		rt_ask(self, client->server, env, (uint32_t)client->timeout_ms, on_answer, client);
	if (err == RT_E_FULL) {
		rt_envelope_free(rt_actor_worker(self), env);
		return RT_AGAIN;
	}
	return err == RT_OK ? RT_DONE : RT_FAIL;
}

static rt_err started_client(struct rt_actor *self, void *arg)
{
	memcpy(rt_actor_state(self), arg, sizeof(struct client));
	return RT_OK;
}

static enum rt_turn client_turn(struct rt_actor *self, struct rt_envelope *env)
{
	assert_int_equal(env->type, GO);
	return ask_next(self);
}

static const struct rt_behaviour client = {.name = "client",
	.turn = client_turn,
	.started = started_client,
	.state_size = sizeof(struct client)};

static void ask(uint32_t worker, struct rt_ref whom, uint32_t type, uint64_t count)
{
	struct client init = {.server = whom, .type = type, .count = count, .timeout_ms = 100};
	tell(spawn(worker, &client, &init), GO, 0);
}

static void every_ask_is_answered(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 4);
		struct rt_ref s = spawn(0, &server, NULL);
		for (uint32_t i = 0; i < 12; i++) {
			ask(i % 3, s, ADD, 50);
		}
		run();
		assert_int_equal(the.answers[15], 600);
		assert_int_equal(the.value, 600);
		assert_int_equal(stats().pending, 0);
		assert_int_equal(stats().queued, 0);
		end();
	}
}

static void ask_times_out_after_its_time(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		uint64_t before = rt_sim_now_ms(the.sim);
		ask((uint32_t)seed % 3, spawn(0, &server, NULL), NOTHING, 3);
		run();
		assert_int_equal(the.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 3);
		assert_in_range(the.at_ms - before, 300, 400);
		assert_int_equal(stats().timeouts, 3);
		assert_int_equal(stats().pending, 0);
		end();
	}
}

static void late_answer_is_a_dead_letter(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &server, NULL);
		ask((uint32_t)seed % 3, s, SLEEP, 1);
		run();
		assert_int_equal(the.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 1);
		tell(s, WAKE, 0);
		run();
		assert_int_equal(the.answers[15], 0);
		assert_int_equal(stats().dead[RT_DEAD_LATE], 1);
		struct rt_dead_letter last[4];
		assert_int_equal(rt_worker_dead_letters(the.worker[seed % 3], last, 4), 1);
		assert_int_equal(last[0].type, SUM);
		assert_true(rt_ref_equal(last[0].from, s));
		end();
	}
}

static void answer_may_come_in_a_later_turn(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &server, NULL);
		ask((uint32_t)seed % 3, s, SLEEP, 1);
		while (the.starts == 0) {
			rt_sim_step(the.sim);
		}
		tell(s, WAKE, 0);
		run();
		assert_int_equal(the.answers[15], 1);
		end();
	}
}

static void asker_learns_that_nobody_is_there(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &server, NULL);
		ask((uint32_t)seed % 3, s, QUIET,
			3); /* it stops without an answer: a timeout first */
		run();
		assert_int_equal(the.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 1);
		assert_int_equal(the.answers[RT_MSG_GONE - RT_MSG_FIRST], 2);
		assert_int_equal(stats().dead[RT_DEAD_GONE], 2);
		assert_int_equal(stats().pending, 0);
		end();
	}
}

static void asks_in_the_mailbox_of_a_stopped_actor_get_gone(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &server, NULL);
		struct rt_envelope *env = rt_envelope_new(the.worker[0], QUIET);
		env->to = s;
		assert_err(rt_send(the.worker[0], env), RT_OK);
		for (uint32_t i = 0; i < 6; i++) {
			ask(i % 3, s, ADD, 1);
		}
		run();
		assert_int_equal(the.answers[RT_MSG_GONE - RT_MSG_FIRST], 6);
		assert_int_equal(stats().dead[RT_DEAD_GONE] + stats().dead[RT_DEAD_STOPPED], 6);
		end();
	}
}

static void asker_learns_of_a_failure_and_others_go_on(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &resuming, NULL);
		ask(1, s, BOOM, 4);
		ask(2, s, ADD, 4);
		run();
		assert_int_equal(the.answers[RT_MSG_FAILED - RT_MSG_FIRST], 4);
		assert_int_equal(the.answers[15], 4);
		assert_int_equal(the.value, 4);
		assert_int_equal(stats().failures, 4);
		end();
	}
}

static enum rt_turn forward(struct rt_actor *self, struct rt_envelope *env)
{
	rt_err err = rt_forward(self, the.ref, env);
	return err == RT_E_FULL ? RT_AGAIN : RT_DONE;
}

static const struct rt_behaviour forwarder = {.name = "forwarder", .turn = forward};

static void forwarded_ask_is_answered_to_the_first_asker(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 2);
		the.ref = spawn(0, &server, NULL);
		struct rt_ref f = spawn(1, &forwarder, NULL);
		for (uint32_t i = 0; i < 9; i++) {
			ask(i % 3, f, ADD, 10);
		}
		run();
		assert_int_equal(the.answers[15], 90);
		assert_int_equal(the.value, 90);
		end();
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
	the.value += env->body.words[0];
	the.count++;
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
		the.answers[8]++;
		return RT_DONE;
	}
	assert_int_equal(env->type, GO);
	while (flood->left > 0) {
		uint64_t one = 1;
		if (rt_tell(self, the.ref, ADD, &one, sizeof(one)) != RT_OK) {
			return RT_AGAIN;
		}
		flood->left--;
		the.answers[9]++;
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
		begin(seed, 4);
		the.ref = spawn(0, &sink, NULL);
		tell(the.ref, BOOM, 0);
		for (uint32_t i = 0; i < 4; i++) {
			tell(spawn(i % 3, &flooder, NULL), GO, 0);
		}
		run();
		assert_int_equal(the.answers[9], 80000);
		assert_int_equal(the.count + the.answers[8], 80000);
		assert_int_equal(the.value, the.count);
		refused += the.answers[8];
		end();
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
		begin(seed, 4);
		the.ref = spawn(0, &sleepy, NULL);
		tell(the.ref, BOOM, 0);
		tell(spawn(1, &flooder, NULL), GO, 0);
		while (the.answers[8] == 0) {
			assert_true(rt_sim_step(the.sim));
		}
		memset(the.answers, 0, sizeof(the.answers));
		ask(2, the.ref, SUM, 3);
		while (the.answers[RT_MSG_BUSY - RT_MSG_FIRST] == 0) {
			assert_true(rt_sim_step(the.sim));
			assert_int_equal(the.answers[RT_MSG_TIMEOUT - RT_MSG_FIRST], 0);
		}
		end();
	}
}

/* ---- watching and families ---- */

static enum rt_turn watch_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == RT_MSG_TERMINATED) {
		assert_true(rt_ref_equal(env->from, the.ref));
		the.count++;
	} else if (env->type == GO) {
		assert_err(rt_watch(self, the.ref), RT_OK);
		assert_err(rt_watch(self, the.ref), RT_OK);
	} else if (env->type == QUIET) {
		rt_unwatch(self, the.ref);
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
		begin(seed, 0);
		the.ref = spawn(0, &server, NULL);
		struct rt_ref w[9];
		for (uint32_t i = 0; i < 9; i++) {
			w[i] = spawn(i % 3, &watcher, NULL);
			tell(w[i], GO, 0);
		}
		run();
		assert_int_equal(the.count, 0);
		for (uint32_t i = 0; i < 3; i++) {
			tell(w[i], QUIET, 0);    /* no longer interested */
			tell(w[3 + i], BOOM, 0); /* stops, still watching */
		}
		run();
		tell(the.ref, BOOM, 0);
		run();
		assert_int_equal(the.count, 3);
		for (uint32_t i = 0; i < 3; i++) {
			tell(w[i], GO, 0); /* too late: at once */
		}
		run();
		assert_int_equal(the.count, 6);
		assert_int_equal(stats().actors, 6);
		end();
	}
}

static void unwatch_wins_over_a_message_on_its_way(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		the.ref = spawn(0, &server, NULL);
		struct rt_ref w = spawn(1, &watcher, NULL);
		tell(w, GO, 0);
		run();
		tell(w, QUIET, 0);
		tell(the.ref, BOOM, 0);
		run();
		assert_int_equal(the.count, 0);
		end();
	}
}

static enum rt_turn family_turn(struct rt_actor *self, struct rt_envelope *env);
static void family_stopped(struct rt_actor *self)
{
	note(rt_actor_name(self));
	the.stops++;
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
		assert_err(rt_spawn_child(self, &grandchild, NULL, &the.other), RT_OK);
		return RT_DONE;
	case SLEEP: /* from inside: stop the whole family, oneself included */
		assert_err(rt_stop(rt_actor_worker(self), the.ref), RT_OK);
		return RT_DONE;
	case BOOM:
		return RT_FAIL;
	default:
		the.count++;
		return RT_DONE;
	}
}

static void children_stop_before_their_parent(void **state)
{
	(void)state;
	begin(1, 0);
	the.ref = spawn(0, &parent, NULL);
	tell(the.ref, GO, 0);
	run();
	assert_int_equal(stats().actors, 3);
	assert_err(rt_stop(the.worker[0], the.ref), RT_OK);
	assert_string_equal(the.text, "grandchild child parent ");
	assert_int_equal(stats().actors, 0);
	end();
}

static void a_grandchild_may_stop_its_family_in_its_turn(void **state)
{
	(void)state;
	begin(1, 0);
	the.ref = spawn(0, &parent, NULL);
	tell(the.ref, GO, 0);
	run();
	tell(the.other, SLEEP, 0);
	run();
	assert_string_equal(the.text, "child parent grandchild ");
	assert_int_equal(stats().actors, 0);
	end();
}

static void escalated_failure_restarts_the_parent_without_children(void **state)
{
	(void)state;
	begin(1, 0);
	the.ref = spawn(0, &parent, NULL);
	tell(the.ref, GO, 0);
	run();
	uint64_t before = rt_sim_now_ms(the.sim);
	tell(the.other, BOOM, 0);
	tell(the.ref, QUIET, 0);
	run();
	assert_string_equal(the.text, "grandchild child parent ");
	assert_int_equal(stats().actors, 1);
	assert_int_equal(stats().failures, 3);
	assert_int_equal(stats().restarts, 1);
	assert_true(rt_sim_now_ms(the.sim) - before >= 50);
	assert_true(the.count == 1);
	end();
}

/* ---- supervision ---- */

struct phoenix {
	uint64_t value;
};

static rt_err start_phoenix(struct rt_actor *self, void *arg)
{
	assert_int_equal(((struct phoenix *)rt_actor_state(self))->value, 0);
	((struct phoenix *)rt_actor_state(self))->value = *(uint64_t *)arg;
	the.starts++;
	return the.starts > 1 && the.starts < 4 && the.answers[12] != 0 ? RT_E_AGAIN : RT_OK;
}

static void stop_phoenix(struct rt_actor *self)
{
	assert_true(((struct phoenix *)rt_actor_state(self))->value >= 7);
	the.stops++;
}

static enum rt_turn phoenix_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct phoenix *phoenix = rt_actor_state(self);
	if (env->type == BOOM) {
		the.at_ms = rt_worker_now_ms(rt_actor_worker(self));
		return RT_FAIL;
	}
	phoenix->value += env->body.words[0];
	the.value = phoenix->value;
	the.count++;
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
		begin(seed, 0);
		struct rt_ref p = spawn(0, &phoenix, &seven);
		tell(p, ADD, 1);
		tell(p, BOOM, 0);
		tell(p, ADD, 2);
		tell(p, ADD, 3);
		run();
		assert_int_equal(the.value, 12);
		assert_int_equal(the.count, 3);
		assert_int_equal(the.starts, 2);
		assert_int_equal(the.stops, 1);
		end();
	}
}

static void back_off_doubles_up_to_its_maximum_and_gives_up(void **state)
{
	(void)state;
	begin(3, 0);
	struct rt_ref p = spawn(0, &phoenix, &seven);
	uint64_t last = 0;
	const uint64_t expected[] = {10, 20, 35, 35};
	for (int i = 0; i < 5; i++) {
		tell(p, BOOM, 0);
		tell(p, NOTHING, 0);
		run();
		uint64_t now = rt_sim_now_ms(the.sim);
		if (i < 4) {
			assert_in_range(now - the.at_ms, expected[i], expected[i] + 1);
			assert_int_equal(stats().actors, 1);
		}
		last = now;
	}
	(void)last;
	assert_int_equal(stats().actors, 0);
	assert_int_equal(stats().restarts, 4);
	assert_int_equal(stats().dead[RT_DEAD_STOPPED], 1);
	end();
}

static void restarts_outside_the_window_are_forgotten(void **state)
{
	(void)state;
	begin(3, 0);
	struct rt_ref p = spawn(0, &phoenix, &seven);
	for (int i = 0; i < 20; i++) {
		tell(p, BOOM, 0);
		run();
		struct rt_ref s = spawn(0, &server, NULL);
		ask(0, s, NOTHING, 4); /* 400 ms pass */
		run();
	}
	assert_int_equal(stats().restarts, 20);
	end();
}

static void a_start_that_fails_is_tried_again_later(void **state)
{
	(void)state;
	begin(3, 0);
	the.answers[12] = 1;
	struct rt_ref p = spawn(0, &phoenix, &seven);
	tell(p, BOOM, 0);
	tell(p, ADD, 1);
	run();
	assert_int_equal(the.starts, 4);
	assert_int_equal(the.stops, 1);
	assert_int_equal(the.value, 8);
	end();
}

static void a_failed_actor_harms_no_other(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref bad = spawn(0, &server, NULL);
		struct rt_ref good = spawn(0, &server, NULL);
		for (uint32_t i = 0; i < 3; i++) {
			ask(i, good, ADD, 5);
		}
		tell(bad, BOOM, 0);
		run();
		assert_int_equal(the.answers[15], 15);
		assert_int_equal(stats().failures, 1);
		end();
	}
}

/* ---- stash, become, alarms ---- */

static enum rt_turn open_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	if (env->type == BOOM) {
		return RT_FAIL;
	}
	the.value = the.value * 10 + env->body.words[0];
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
	the.answers[0] += err == RT_E_FULL;
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
		begin(seed, 0);
		struct rt_ref c = spawn(0, &closed, NULL);
		for (uint64_t i = 1; i <= 5; i++) {
			tell(c, ADD, i);
		}
		tell(c, WAKE, 0);
		tell(c, ADD, 6);
		run();
		assert_int_equal(the.answers[0], 1);
		assert_int_equal(the.value, 12346);
		end();
	}
}

static void restart_returns_to_the_first_behaviour(void **state)
{
	(void)state;
	begin(1, 0);
	struct rt_ref c = spawn(0, &closed, NULL);
	tell(c, WAKE, 0);
	tell(c, BOOM, 0);
	tell(c, ADD, 1);
	run();
	assert_int_equal(the.value, 0);
	tell(c, WAKE, 0);
	run();
	assert_int_equal(the.value, 1);
	end();
}

static struct rt_alarm alarms[4];

static enum rt_turn alarm_turn(struct rt_actor *self, struct rt_envelope *env)
{
	switch (env->type) {
	case GO:
		for (uint64_t i = 0; i < 4; i++) {
			assert_err(
				rt_alarm_start(self, the.at_ms * (4 - i), RING, i + 1, &alarms[i]),
				RT_OK);
		}
		return RT_DONE;
	case QUIET:
		assert_true(rt_alarm_cancel(self, alarms[1]));
		assert_false(rt_alarm_cancel(self, alarms[1]));
		return RT_DONE;
	case RING:
		assert_true(rt_ref_equal(env->from, rt_actor_ref(self)));
		the.value = the.value * 10 + env->body.words[0];
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
		begin(seed, 1); /* a full mailbox does not refuse an alarm */
		struct rt_ref s = spawn(0, &sleeper, NULL);
		uint64_t before = rt_sim_now_ms(the.sim);
		the.at_ms = 10;
		tell(s, GO, 0);
		rt_sim_run(the.sim, 2);
		while (stats().pending == 0) {
			rt_sim_step(the.sim);
		}
		tell(s, QUIET, 0);
		run();
		assert_int_equal(the.value, 431);
		assert_true(rt_sim_now_ms(the.sim) - before >= 40);
		assert_int_equal(stats().pending, 0);
		end();
	}
}

static void cancel_wins_over_an_alarm_in_the_mailbox(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		struct rt_ref s = spawn(0, &sleeper, NULL);
		/* All four are due at once: they come while WAKEs are handled, behind QUIET. */
		tell(s, GO, 0);
		for (int i = 0; i < 1000; i++) {
			tell(s, WAKE, 0);
		}
		tell(s, QUIET, 0);
		run();
		assert_int_equal(the.value, 134);
		end();
	}
}

static void alarms_end_with_a_restart_and_with_the_actor(void **state)
{
	(void)state;
	begin(1, 0);
	struct rt_ref s = spawn(0, &sleeper, NULL);
	tell(s, GO, 0);
	tell(s, BOOM, 0);
	run();
	assert_int_equal(the.value, 0);
	assert_int_equal(stats().pending, 0);
	tell(s, GO, 0);
	tell(s, NOTHING, 0);
	run();
	assert_int_equal(the.value, 0);
	assert_int_equal(stats().pending, 0);
	assert_int_equal(stats().actors, 0);
	end();
}

/* ---- fairness ---- */

static enum rt_turn hot_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == QUIET) {
		the.at_ms = (uint64_t)the.count; /* how much of the other went before */
		return RT_DONE;
	}
	the.count++;
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
		begin(seed, 0);
		struct rt_ref h = spawn(0, &hot, NULL);
		struct rt_ref neighbour = spawn(0, &hot, NULL);
		for (int i = 0; i < 500; i++) {
			tell(h, ADD, 20);
		}
		tell(neighbour, QUIET, 0);
		run();
		assert_int_equal(the.count, 10000);
		assert_in_range(the.at_ms, 1, 8);
		end();
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
	the.count++;
	return RT_DONE;
}

static enum rt_turn spawner_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	for (uint32_t i = 0; i < 3; i++) {
		rt_err err = rt_spawn_on(self, i, &server, NULL, on_spawned, (void *)(uintptr_t)i);
		the.answers[err == RT_OK ? 0 : 1]++;
	}
	assert_err(rt_spawn_on(self, 3, &server, NULL, on_spawned, NULL), RT_E_INVAL);
	return RT_DONE;
}

static const struct rt_behaviour spawner = {.name = "spawner", .turn = spawner_turn};

static void spawns_and_stops_on_other_workers(void **state)
{
	(void)state;
	FOR_SEEDS(seed)
	{
		begin(seed, 0);
		tell(spawn(0, &spawner, NULL), GO, 0);
		run();
		assert_int_equal(the.count, the.answers[0]);
		assert_true(the.count >= 1);
		assert_int_equal(stats().actors, 1);
		end();
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
