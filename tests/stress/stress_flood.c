/* Senders without a window onto slow actors: handled + refused = sent, asks are answered exactly
 * once, whatever is full. And actors that stop and start under it: nothing is answered twice. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/sched/ask.h"
#include "runtime/sched/family.h"
#include "runtime/sched/stats.h"

#define WORKERS  3u
#define SENDERS  6u
#define TELLS    60000u
#define ASKS     20000u
#define ATTEMPTS 20 /* rounds, each a process of its own image */

enum {
	GO = 1,
	WORK,
	QUESTION,
	ANSWER,
	SLOW
};

static struct rt_ref slow[WORKERS];
static struct rt_ref mortal[WORKERS];
static _Atomic uint64_t handled, refused, dropped, answers[8], answered;
static uv_sem_t done;

static void check(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "stress_flood: %s\n", what);
		abort();
	}
}

static void drop(void *bytes)
{
	atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
	free(bytes);
}

static void account(_Atomic uint64_t *counter)
{
	static _Atomic uint64_t accounted;
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	if (atomic_fetch_add(&accounted, 1) + 1 == (uint64_t)SENDERS * TELLS) {
		uv_sem_post(&done);
	}
}

/* ---- the slow ones ---- */

static enum rt_turn slow_turn(struct rt_actor *self, struct rt_envelope *env)
{
	if (env->type == SLOW) {
		return RT_FAIL; /* backs off, and its mailbox fills up */
	}
	if (env->type == QUESTION) {
		rt_reply(self, env, ANSWER, NULL, 0);
		return RT_DONE;
	}
	check(env->type == WORK, "a strange message");
	bool fails = atomic_load_explicit(&handled, memory_order_relaxed) % 20000 == 0;
	account(&handled);
	return fails ? RT_FAIL : RT_DONE;
}

static rt_err slow_restarted(struct rt_actor *self)
{
	(void)self;
	return RT_OK;
}

static const struct rt_behaviour slow_one = {.name = "slow",
	.turn = slow_turn,
	.restarted = slow_restarted,
	.mailbox_cap = 16,
	.supervision = {.policy = RT_POLICY_RESTART, .backoff_min_ms = 5, .backoff_max_ms = 5}};

/* ---- senders of tells ---- */

struct sender {
	uint64_t sent, asked, came;
	uint64_t number;
};

static rt_err started(struct rt_actor *self, void *arg)
{
	((struct sender *)rt_actor_state(self))->number = *(uint64_t *)arg;
	return RT_OK;
}

static enum rt_turn tell_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct sender *s = rt_actor_state(self);
	if (env->type == RT_MSG_REFUSED) {
		check(rt_envelope_refused(env) == WORK, "a strange refusal");
		account(&refused);
		return RT_DONE;
	}
	for (uint32_t i = 0; s->sent < TELLS; i++) {
		if (i == 100) {
			return RT_AGAIN;
		}
		struct rt_worker *worker = rt_actor_worker(self);
		struct rt_envelope *out = rt_envelope_new(worker, WORK);
		out->to = slow[(s->number + s->sent) % WORKERS];
		out->from = rt_actor_ref(self);
		rt_envelope_set_out(out, malloc(8), 8, drop);
		if (rt_send(worker, out) != RT_OK) {
			rt_envelope_free(worker, out);
			atomic_fetch_sub_explicit(&dropped, 1, memory_order_relaxed);
			return RT_AGAIN;
		}
		s->sent++;
	}
	return RT_DONE;
}

static const struct rt_behaviour teller = {.name = "teller",
	.turn = tell_turn,
	.started = started,
	.state_size = sizeof(struct sender)};

/* ---- senders of asks, to actors that come and go ---- */

static enum rt_turn mortal_turn(struct rt_actor *self, struct rt_envelope *env)
{
	uint64_t *count = rt_actor_state(self);
	if (++*count % 50 == 0) {
		return RT_FAIL;
	}
	rt_reply(self, env, ANSWER, NULL, 0);
	return *count == 333 ? RT_STOP : RT_DONE;
}

static const struct rt_behaviour mortal_one = {.name = "mortal",
	.turn = mortal_turn,
	.state_size = sizeof(uint64_t),
	.supervision = {.policy = RT_POLICY_RESUME}};

static enum rt_turn on_answer(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	struct sender *s = rt_actor_state(self);
	check(arg == s, "the wrong asker");
	check(++s->came <= s->asked, "an answer too many");
	atomic_fetch_add(&answers[env->type == ANSWER ? 7 : env->type - RT_MSG_FIRST], 1);
	if (atomic_fetch_add(&answered, 1) + 1 == (uint64_t)SENDERS * ASKS) {
		uv_sem_post(&done);
	}
	return RT_DONE;
}

static enum rt_turn ask_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	struct sender *s = rt_actor_state(self);
	for (uint32_t i = 0; s->asked < ASKS; i++) {
		if (i == 50) {
			return RT_AGAIN;
		}
		struct rt_worker *worker = rt_actor_worker(self);
		struct rt_envelope *out = rt_envelope_new(worker, QUESTION);
		uint64_t to = s->number + s->asked;
		struct rt_ref whom =
			to % 2 == 0 ? mortal[to / 2 % WORKERS] : slow[to / 2 % WORKERS];
		if (rt_ask(self, whom, out, 60000, on_answer, s) != RT_OK) {
			rt_envelope_free(worker, out);
			return RT_AGAIN;
		}
		s->asked++;
	}
	return RT_DONE;
}

static const struct rt_behaviour asker = {
	.name = "asker", .turn = ask_turn, .started = started, .state_size = sizeof(struct sender)};

int main(int argc, char **argv)
{
	int attempt = argc > 1 ? atoi(argv[1]) : 1;
	struct rt_system_options options = {.workers = WORKERS, .mailbox_cap = 64};
	struct rt_system *system = NULL;
	struct rt_errinfo info;
	uv_sem_init(&done, 0);
	check(rt_system_new(&options, &system, &info) == RT_OK, "new");
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct rt_worker *worker = rt_system_worker(system, i);
		check(rt_spawn(worker, &slow_one, NULL, &slow[i]) == RT_OK, "spawn");
		check(rt_spawn(worker, &mortal_one, NULL, &mortal[i]) == RT_OK, "spawn");
		check(rt_worker_tell(worker, slow[i], SLOW, NULL, 0) == RT_OK, "tell");
	}
	for (uint32_t i = 0; i < SENDERS * 2; i++) {
		uint64_t number = i;
		struct rt_worker *worker = rt_system_worker(system, i % WORKERS);
		struct rt_ref ref;
		check(rt_spawn(worker, i < SENDERS ? &teller : &asker, &number, &ref) == RT_OK,
			"spawn");
		check(rt_worker_tell(worker, ref, GO, NULL, 0) == RT_OK, "tell");
	}
	check(rt_system_start(system, &info) == RT_OK, "start");
	for (uint32_t i = 0; i < 2; i++) {
		uv_sem_wait(&done);
	}
	rt_system_stop(system);
	uint64_t bounced = 0;
	uint64_t pending = 0;
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct rt_worker_stats stats;
		rt_worker_stats(rt_system_worker(system, i), &stats);
		bounced += stats.bounced;
		pending += stats.pending;
	}
	rt_system_free(system);
	printf("handled %llu, refused %llu; answers %llu, busy %llu, gone %llu, failed %llu; "
	       "bounced %llu\n",
		(unsigned long long)handled, (unsigned long long)refused,
		(unsigned long long)answers[7], (unsigned long long)answers[0],
		(unsigned long long)answers[1], (unsigned long long)answers[3],
		(unsigned long long)bounced);
	check(handled + refused == (uint64_t)SENDERS * TELLS, "handled + refused is not sent");
	check(dropped == (uint64_t)SENDERS * TELLS, "a payload got lost");
	check(answered == (uint64_t)SENDERS * ASKS, "an ask without an answer");
	/* What overflows depends on who gets a core when. A round in which nothing did shows
	 * nothing. */
	if (refused == 0 || answers[1] == 0 || answers[3] == 0) {
		check(attempt < ATTEMPTS, "nothing was full, gone or failed in any round");
		char next[16];
		snprintf(next, sizeof(next), "%d", attempt + 1);
		execl("/proc/self/exe", argv[0], next, (char *)NULL);
		check(false, "exec");
	}
	check(pending == 0, "questions are still open");
	uv_sem_destroy(&done);
	return 0;
}
