#include "tests/support/actorbed.h"

#include <string.h>

#include "runtime/sched/ask.h"
#include "tests/support/test.h"

struct actorbed bed;

void bed_begin(uint64_t seed, uint32_t cap)
{
	memset(&bed, 0, sizeof(bed));
	struct rt_system_options options = {.workers = 3, .mailbox_cap = cap};
	struct rt_errinfo info;
	assert_err(rt_sim_new(&options, seed, &bed.sim, &info), RT_OK);
	for (uint32_t i = 0; i < 3; i++) {
		bed.worker[i] = rt_system_worker(rt_sim_system(bed.sim), i);
	}
}

void bed_run(void)
{
	assert_true(rt_sim_run(bed.sim, BED_STEPS));
}

void bed_end(void)
{
	rt_sim_free(bed.sim);
}

struct rt_ref bed_spawn(uint32_t worker, const struct rt_behaviour *behaviour, void *arg)
{
	struct rt_ref ref;
	assert_err(rt_spawn(bed.worker[worker], behaviour, arg, &ref), RT_OK);
	return ref;
}

void bed_tell(struct rt_ref to, uint32_t type, uint64_t word)
{
	struct rt_worker *worker = bed.worker[rt_ref_worker(to)];
	assert_err(rt_worker_tell(worker, to, type, &word, sizeof(word)), RT_OK);
}

struct rt_worker_stats bed_stats(void)
{
	struct rt_worker_stats sum = {0};
	for (int i = 0; i < 3; i++) {
		struct rt_worker_stats one;
		rt_worker_stats(bed.worker[i], &one);
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

/* ---- who answers ---- */

enum rt_turn bed_serve(struct rt_actor *self, struct rt_envelope *env)
{
	struct bed_server *server = rt_actor_state(self);
	switch (env->type) {
	case ADD:
		server->sum += env->body.words[0];
		rt_reply(self, env, SUM, &server->sum, sizeof(server->sum));
		return RT_DONE;
	case NOTHING:
		return RT_DONE;
	case SLEEP:
		server->kept = env;
		bed.starts++;
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

const struct rt_behaviour bed_server = {
	.name = "server", .turn = bed_serve, .state_size = sizeof(struct bed_server)};

/* ---- who asks ---- */

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
	bed.at_ms = rt_worker_now_ms(rt_actor_worker(self));
	if (env->type >= RT_MSG_FIRST) {
		bed.answers[env->type - RT_MSG_FIRST]++;
	} else {
		assert_int_equal(env->type, SUM);
		bed.answers[15]++;
		bed.value = env->body.words[0] > bed.value ? env->body.words[0] : bed.value;
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

void bed_ask(uint32_t worker, struct rt_ref whom, uint32_t type, uint64_t count)
{
	struct client init = {.server = whom, .type = type, .count = count, .timeout_ms = 100};
	bed_tell(bed_spawn(worker, &client, &init), GO, 0);
}
