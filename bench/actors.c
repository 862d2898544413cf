/*
 * actors.c - what sending messages costs on one machine, without storage or network.
 *
 * usage: actors [spread|fanin|pingpong|ask|spawn|mem|idle] [local|hash|split]
 *
 * Two workers. The same workloads as bench/peers/; every run checks its counts and is repeated with
 * more messages until it lasts a second. One JSON line per workload. ACTORS_SECONDS, ACTORS_WORKERS
 * and ACTORS_TIMEOUT_MS (of an ask) change that.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/sched/actor.h"
#include "runtime/sched/ask.h"
#include "runtime/sched/stats.h"

#define ENTITIES       10000u
#define SPREAD_SENDERS 4u
#define FANIN_SENDERS  10u
#define PAIRS          16u
#define WINDOW         512u
#define ACK_EVERY      256u
#define BURST          256u
#define IDLE_ACTORS    300000u
#define REPORT_CAP     (1u << 20)

enum {
	START = 1,
	WORK,
	COLLECT,
	REPORT,
	ACK,
	BALL,
	QUESTION,
	ANSWER
};

enum place {
	LOCAL,
	HASH,
	SPLIT
};

/* Set up before a run, read by its actors. */
static struct {
	struct rt_system *system;
	uint32_t workers;
	struct rt_ref *target;
	uint32_t target_count;
	struct rt_ref report;
	uint64_t wanted; /* reports */
	uint64_t total;  /* messages of a fan-in */
	uint64_t sum, got;
	_Atomic uint64_t handled;
	uint32_t timeout_ms;
	uv_sem_t done;
} run;

static void die(const char *what)
{
	fprintf(stderr, "actors: %s\n", what);
	exit(1);
}

static struct rt_ref spawn(uint32_t worker, const struct rt_behaviour *behaviour, void *arg)
{
	struct rt_ref ref;
	if (rt_spawn(rt_system_worker(run.system, worker), behaviour, arg, &ref) != RT_OK) {
		die("cannot spawn");
	}
	return ref;
}

static bool tell(struct rt_actor *self, struct rt_ref to, uint32_t type, uint64_t a, uint64_t b)
{
	uint64_t words[2] = {a, b};
	return rt_tell(self, to, type, words, sizeof(words)) == RT_OK;
}

/* ---- who hears that it is over ---- */

static enum rt_turn report_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	run.sum += env->body.words[0];
	if (++run.got == run.wanted) {
		uv_sem_post(&run.done);
	}
	return RT_DONE;
}

static const struct rt_behaviour report = {
	.name = "report", .turn = report_turn, .mailbox_cap = REPORT_CAP};

/* ---- spread ---- */

struct entity {
	uint64_t sum;
};

static enum rt_turn entity_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct entity *entity = rt_actor_state(self);
	if (env->type == WORK) {
		entity->sum += env->body.words[0];
		return RT_DONE;
	}
	return tell(self, run.report, REPORT, entity->sum, 0) ? RT_DONE : RT_AGAIN;
}

/* What counts for the check: with more than two workers a question may overtake what others sent
 * before, because order is promised per sender only. */
static void entity_stopped(struct rt_actor *self)
{
	const struct entity *entity = rt_actor_state(self);
	atomic_fetch_add_explicit(&run.handled, entity->sum, memory_order_relaxed);
}

static const struct rt_behaviour entity = {.name = "entity",
	.turn = entity_turn,
	.stopped = entity_stopped,
	.state_size = sizeof(struct entity)};

struct sender {
	uint64_t sent, acked, count, first;
	struct rt_ref target;
};

static rt_err started_sender(struct rt_actor *self, void *arg)
{
	memcpy(rt_actor_state(self), arg, sizeof(struct sender));
	return RT_OK;
}

static enum rt_turn spread_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct sender *s = rt_actor_state(self);
	if (env->type == RT_MSG_REFUSED) {
		die("a message was refused");
	}
	uint64_t at = (s->first + s->sent) % run.target_count;
	for (uint32_t i = 0; s->sent < s->count; i++) {
		if (i == BURST || !tell(self, run.target[at], WORK, 1, s->sent + 1)) {
			return RT_AGAIN;
		}
		s->sent++;
		if (++at == run.target_count) {
			at = 0;
		}
	}
	return tell(self, run.report, REPORT, 0, 0) ? RT_DONE : RT_AGAIN;
}

static const struct rt_behaviour spread_sender = {.name = "sender",
	.turn = spread_turn,
	.started = started_sender,
	.state_size = sizeof(struct sender)};

/* Asks all entities for their sums, as fast as there is room. */
static enum rt_turn collect_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	struct sender *s = rt_actor_state(self);
	for (uint32_t i = 0; s->sent < run.target_count; i++) {
		if (i == BURST || !tell(self, run.target[s->sent], COLLECT, 0, 0)) {
			return RT_AGAIN;
		}
		s->sent++;
	}
	return RT_STOP;
}

static const struct rt_behaviour collector = {
	.name = "collector", .turn = collect_turn, .state_size = sizeof(struct sender)};

/* ---- fan-in ---- */

static enum rt_turn sink_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct entity *sink = rt_actor_state(self);
	uint64_t seq = env->body.words[1];
	if (seq % ACK_EVERY == 0 && !tell(self, env->from, ACK, seq, 0)) {
		return RT_AGAIN;
	}
	sink->sum += env->body.words[0];
	if (sink->sum == run.total && !tell(self, run.report, REPORT, 0, 0)) {
		die("no room for the report");
	}
	return RT_DONE;
}

static const struct rt_behaviour sink = {.name = "sink",
	.turn = sink_turn,
	.mailbox_cap = 8192,
	.state_size = sizeof(struct entity)};

static enum rt_turn window_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct sender *s = rt_actor_state(self);
	if (env->type == RT_MSG_REFUSED) {
		die("a message was refused");
	}
	if (env->type == ACK) {
		s->acked = env->body.words[0];
	}
	while (s->sent < s->count && s->sent - s->acked < WINDOW) {
		if (!tell(self, s->target, WORK, 1, s->sent + 1)) {
			return RT_AGAIN;
		}
		s->sent++;
	}
	return RT_DONE;
}

static const struct rt_behaviour window_sender = {.name = "window sender",
	.turn = window_turn,
	.started = started_sender,
	.state_size = sizeof(struct sender)};

/* ---- ping-pong ---- */

static enum rt_turn pong_turn(struct rt_actor *self, struct rt_envelope *env)
{
	bool sent = tell(self, env->from, BALL, env->body.words[0], env->body.words[1]);
	return sent ? RT_DONE : RT_AGAIN;
}

static const struct rt_behaviour pong = {.name = "pong", .turn = pong_turn};

static enum rt_turn ping_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct sender *s = rt_actor_state(self);
	if (env->type == BALL && env->body.words[0] != s->count - s->sent) {
		die("a ball came twice");
	}
	if (env->type == BALL) {
		s->sent++;
	}
	if (s->sent == s->count) {
		return tell(self, run.report, REPORT, s->sent, 0) ? RT_DONE : RT_AGAIN;
	}
	if (!tell(self, s->target, BALL, s->count - s->sent, 0)) {
		s->sent -= env->type == BALL ? 1 : 0;
		return RT_AGAIN;
	}
	return RT_DONE;
}

static const struct rt_behaviour ping = {.name = "ping",
	.turn = ping_turn,
	.started = started_sender,
	.state_size = sizeof(struct sender)};

/* ---- ask ---- */

static enum rt_turn server_turn(struct rt_actor *self, struct rt_envelope *env)
{
	struct entity *server = rt_actor_state(self);
	server->sum += env->body.words[0];
	rt_reply(self, env, ANSWER, &server->sum, sizeof(server->sum));
	return RT_DONE;
}

static const struct rt_behaviour server = {
	.name = "server", .turn = server_turn, .state_size = sizeof(struct entity)};

static enum rt_turn ask_once(struct rt_actor *self);

static enum rt_turn on_answer(struct rt_actor *self, struct rt_envelope *env, void *arg)
{
	struct sender *s = arg;
	if (env->type != ANSWER || env->body.words[0] != s->sent + 1) {
		die("a wrong answer");
	}
	if (s->sent + 1 < s->count) {
		if (ask_once(self) == RT_AGAIN) {
			return RT_AGAIN;
		}
		s->sent++;
		return RT_DONE;
	}
	return tell(self, run.report, REPORT, s->sent + 1, 0) ? RT_DONE : RT_AGAIN;
}

static enum rt_turn ask_once(struct rt_actor *self)
{
	struct sender *s = rt_actor_state(self);
	struct rt_worker *worker = rt_actor_worker(self);
	struct rt_envelope *env = rt_envelope_new(worker, QUESTION);
	if (env == NULL) {
		die("out of memory");
	}
	env->body.words[0] = 1;
	if (rt_ask(self, s->target, env, run.timeout_ms, on_answer, s) != RT_OK) {
		rt_envelope_free(worker, env);
		return RT_AGAIN;
	}
	return RT_DONE;
}

static enum rt_turn client_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	return ask_once(self);
}

static const struct rt_behaviour client = {.name = "client",
	.turn = client_turn,
	.started = started_sender,
	.state_size = sizeof(struct sender)};

/* ---- spawn ---- */

static enum rt_turn tiny_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)self;
	(void)env;
	return RT_STOP;
}

static const struct rt_behaviour tiny = {.name = "tiny", .turn = tiny_turn};

static enum rt_turn spawner_turn(struct rt_actor *self, struct rt_envelope *env)
{
	(void)env;
	struct sender *s = rt_actor_state(self);
	for (uint32_t i = 0; s->sent < s->count; i++) {
		struct rt_ref made;
		if (i == 64) {
			return RT_AGAIN;
		}
		if (rt_spawn(rt_actor_worker(self), &tiny, NULL, &made) != RT_OK ||
			!tell(self, made, WORK, 0, 0)) {
			die("cannot spawn");
		}
		s->sent++;
	}
	return tell(self, run.report, REPORT, s->sent, 0) ? RT_DONE : RT_AGAIN;
}

static const struct rt_behaviour spawner = {.name = "spawner",
	.turn = spawner_turn,
	.started = started_sender,
	.state_size = sizeof(struct sender)};

/* ---- running ---- */

struct starter {
	struct rt_post post;
	struct rt_ref ref[64];
	uint32_t count;
};

static void post_starts(struct rt_worker *worker, struct rt_post *post)
{
	struct starter *starter = (struct starter *)post;
	for (uint32_t i = 0; i < starter->count; i++) {
		if (rt_worker_tell(worker, starter->ref[i], START, NULL, 0) != RT_OK) {
			die("cannot start");
		}
	}
}

/* Starts the actors on their workers and waits for all reports; seconds. */
static double start_and_wait(const struct rt_ref *ref, uint32_t count)
{
	static struct starter starters[8];
	memset(starters, 0, sizeof(starters));
	for (uint32_t i = 0; i < count; i++) {
		struct starter *starter = &starters[rt_ref_worker(ref[i])];
		starter->ref[starter->count++] = ref[i];
	}
	uint64_t begin = rt_clock_now_ns();
	for (uint32_t i = 0; i < run.workers; i++) {
		starters[i].post.run = post_starts;
		rt_worker_post_always(rt_system_worker(run.system, i), &starters[i].post);
	}
	uv_sem_wait(&run.done);
	return (double)(rt_clock_now_ns() - begin) * 1e-9;
}

static void open_system(void)
{
	struct rt_system_options options = {.workers = run.workers};
	struct rt_errinfo info;
	if (rt_system_new(&options, &run.system, &info) != RT_OK) {
		die(info.text);
	}
	run.got = run.sum = run.wanted = 0;
	atomic_store(&run.handled, 0);
	run.report = spawn(0, &report, NULL);
}

static void start_system(void)
{
	struct rt_errinfo info;
	if (rt_system_start(run.system, &info) != RT_OK) {
		die(info.text);
	}
}

static void close_system(uint64_t wanted_sum)
{
	rt_system_stop(run.system);
	if (run.sum != wanted_sum) {
		fprintf(stderr, "actors: counted %llu, wanted %llu\n", (unsigned long long)run.sum,
			(unsigned long long)wanted_sum);
		exit(1);
	}
	rt_system_free(run.system);
}

static void spawn_targets(uint32_t count)
{
	run.target = calloc(count, sizeof(*run.target));
	run.target_count = count;
	for (uint32_t i = 0; i < count; i++) {
		run.target[i] = spawn(i % run.workers, &entity, NULL);
	}
}

static double run_spread(uint64_t messages, enum place place)
{
	(void)place;
	open_system();
	spawn_targets(ENTITIES);
	struct rt_ref senders[SPREAD_SENDERS];
	for (uint32_t i = 0; i < SPREAD_SENDERS; i++) {
		struct sender init = {.first = i * 7919, .count = messages / SPREAD_SENDERS};
		senders[i] = spawn(i % run.workers, &spread_sender, &init);
	}
	struct rt_ref collect = spawn(0, &collector, NULL);
	start_system();
	run.wanted = SPREAD_SENDERS;
	double seconds = start_and_wait(senders, SPREAD_SENDERS);
	run.got = 0;
	run.wanted = ENTITIES;
	seconds += start_and_wait(&collect, 1);
	rt_system_stop(run.system);
	run.sum = atomic_load(&run.handled);
	close_system(messages / SPREAD_SENDERS * SPREAD_SENDERS);
	free(run.target);
	return seconds;
}

static double run_fanin(uint64_t messages, enum place place)
{
	(void)place;
	open_system();
	struct sender init = {.count = messages / FANIN_SENDERS};
	init.target = spawn(0, &sink, NULL);
	struct rt_ref senders[FANIN_SENDERS];
	for (uint32_t i = 0; i < FANIN_SENDERS; i++) {
		senders[i] = spawn((i + 1) % run.workers, &window_sender, &init);
	}
	start_system();
	run.total = init.count * FANIN_SENDERS;
	run.wanted = 1;
	double seconds = start_and_wait(senders, FANIN_SENDERS);
	close_system(0);
	return seconds;
}

static uint32_t partner_of(uint32_t i, enum place place)
{
	uint32_t hashed = (uint32_t)((uint64_t)i * 2654435761u >> 13);
	uint32_t there = place == LOCAL ? i : place == SPLIT ? i + 1 : hashed;
	return there % run.workers;
}

static double run_pairs(uint64_t rounds, enum place place, const struct rt_behaviour *first,
	const struct rt_behaviour *second)
{
	open_system();
	struct rt_ref start[PAIRS];
	for (uint32_t i = 0; i < PAIRS; i++) {
		struct sender init = {.count = rounds / PAIRS};
		init.target = spawn(partner_of(i, place), second, NULL);
		start[i] = spawn(i % run.workers, first, &init);
	}
	start_system();
	run.wanted = PAIRS;
	double seconds = start_and_wait(start, PAIRS);
	close_system(rounds / PAIRS * PAIRS);
	return seconds;
}

/* Every round is two messages. */
static double run_pingpong(uint64_t messages, enum place place)
{
	return run_pairs(messages / 2, place, &ping, &pong);
}

static double run_ask(uint64_t calls, enum place place)
{
	return run_pairs(calls, place, &client, &server);
}

static double run_spawn(uint64_t actors, enum place place)
{
	(void)place;
	open_system();
	struct rt_ref start[8];
	for (uint32_t i = 0; i < run.workers; i++) {
		struct sender init = {.count = actors / run.workers};
		start[i] = spawn(i, &spawner, &init);
	}
	start_system();
	run.wanted = run.workers;
	double seconds = start_and_wait(start, run.workers);
	close_system(actors / run.workers * run.workers);
	return seconds;
}

static double resident_bytes(void)
{
	long size = 0;
	long resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2) {
		die("cannot read /proc/self/statm");
	}
	fclose(file);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* Resident bytes per actor after it has handled one message; its state counts too. */
static double run_mem(uint64_t messages, enum place place)
{
	(void)messages;
	(void)place;
	open_system();
	run.target = calloc(IDLE_ACTORS, sizeof(*run.target));
	memset(run.target, 1, IDLE_ACTORS * sizeof(*run.target));
	double before = resident_bytes();
	run.target_count = IDLE_ACTORS;
	for (uint32_t i = 0; i < IDLE_ACTORS; i++) {
		run.target[i] = spawn(i % run.workers, &entity, NULL);
	}
	struct rt_ref collect = spawn(0, &collector, NULL);
	start_system();
	run.wanted = IDLE_ACTORS;
	(void)start_and_wait(&collect, 1);
	double after = resident_bytes();
	close_system(0);
	free(run.target);
	return (after - before) / IDLE_ACTORS;
}

static double cpu_seconds(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Percent of one core that workers with nothing to do take. */
static double run_idle(uint64_t messages, enum place place)
{
	(void)messages;
	(void)place;
	open_system();
	start_system();
	uv_sleep(100);
	uint64_t begin = rt_clock_now_ns();
	double cpu = cpu_seconds();
	uv_sleep(2000);
	cpu = cpu_seconds() - cpu;
	double seconds = (double)(rt_clock_now_ns() - begin) * 1e-9;
	close_system(0);
	return 100 * cpu / seconds;
}

/* ---- command line ---- */

static const struct workload {
	const char *name;
	double (*go)(uint64_t messages, enum place place);
	uint64_t messages; /* of the first try */
	bool placed;
} workloads[] = {
	{"spread", run_spread, 4000000, false},
	{"fanin", run_fanin, 4000000, false},
	{"pingpong", run_pingpong, 2000000, true},
	{"ask", run_ask, 1000000, true},
	{"spawn", run_spawn, 4000000, false},
	{"mem", run_mem, 0, false},
	{"idle", run_idle, 0, false},
};

static const char *const places[] = {"local", "hash", "split"};

static void measure(const struct workload *workload, enum place place)
{
	const char *config = workload->placed ? places[place] : "";
	if (workload->go == run_mem) {
		printf("{\"bench\":\"mem\",\"config\":\"%u "
		       "actors\",\"value\":%.0f,\"unit\":\"B\"}\n",
			IDLE_ACTORS, run_mem(0, place));
		return;
	}
	if (workload->go == run_idle) {
		printf("{\"bench\":\"idle\",\"config\":\"%u workers\",\"value\":%.4f,"
		       "\"unit\":\"%%\"}\n",
			run.workers, run_idle(0, place));
		return;
	}
	const char *text = getenv("ACTORS_SECONDS");
	double least = text != NULL ? atof(text) : 1.0;
	uint64_t messages = workload->messages;
	double cpu = cpu_seconds();
	double seconds = workload->go(messages, place);
	while (seconds < least) {
		double factor = seconds > 0.001 ? 1.2 * least / seconds : 100;
		messages = (uint64_t)((double)messages * (factor < 100 ? factor : 100));
		cpu = cpu_seconds();
		seconds = workload->go(messages, place);
	}
	cpu = (cpu_seconds() - cpu) / (double)messages * 1e9;
	printf("{\"bench\":\"%s\",\"config\":\"%s\",\"value\":%.2f,\"unit\":\"M/"
	       "s\",\"cpu_ns\":%.1f}\n",
		workload->name, config, (double)messages / seconds * 1e-6, cpu);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *text = getenv("ACTORS_WORKERS");
	run.workers = text != NULL ? (uint32_t)atoi(text) : 2;
	if (run.workers < 1 || run.workers > 8) {
		die("1 to 8 workers");
	}
	text = getenv("ACTORS_TIMEOUT_MS");
	run.timeout_ms = text != NULL ? (uint32_t)atoi(text) : 0;
	uv_sem_init(&run.done, 0);
	bool found = false;
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
		const struct workload *workload = &workloads[i];
		if (argc > 1 && strcmp(argv[1], workload->name) != 0) {
			continue;
		}
		for (int place = LOCAL; place <= (workload->placed ? SPLIT : LOCAL); place++) {
			if (argc <= 2 || strcmp(argv[2], places[place]) == 0) {
				found = true;
				measure(workload, (enum place)place);
			}
		}
	}
	if (!found) {
		die("usage: actors [spread|fanin|pingpong|ask|spawn|mem|idle] [local|hash|split]");
	}
	uv_sem_destroy(&run.done);
	return 0;
}
