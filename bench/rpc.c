/*
 * rpc.c - durable commands a second against a running node: callers that each wait for an answer,
 * then ask again.
 *
 * Deposits of 128 bytes to accounts opened by this run; every answer is counted per account and the
 * sequence numbers must come out gapless, so no figure stands on lost or doubled commands. The last
 * JSON line says commands/s, latency, CPU of server and client per command. Lines before it say
 * when the measured time begins and ends, for who watches the nodes meanwhile, and what was
 * answered in each stretch of it.
 */
#include "bench/rpc.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/client/client.h"
#include "proto/wire.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define DEPOSIT_AMOUNT_FIELD 0x08u /* field 1, varint */
#define DEPOSIT_REF_FIELD    0x12u /* field 2, bytes */
#define ID_BYTES             40u
#define PAYLOAD_MIN          8u
#define PACE_NS              1000000u
#define STEP_NS              20000000u

enum phase {
	PHASE_OPEN,
	PHASE_DEPOSIT,
};

struct account {
	char id[ID_BYTES];
	_Atomic uint64_t answers, seq_sum;
};

static struct rpc_options options = {
	.callers = 256,
	.entities = 10000,
	.payload = RPC_PAYLOAD_BYTES,
	.warm_seconds = 0.5,
	.seconds = 2.0,
};
static const struct rpc_transport *transport = &rpc_library;
static struct account *accounts;
static struct rpc_caller *callers;
static enum phase phase;
static size_t payload_size; /* of a deposit */
static _Atomic uint32_t next_open;
static _Atomic uint64_t measure_from_ns, measure_to_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
/* Under lock. */
static uint32_t running;
static struct rt_hist hist, stretch;
static struct rpc_caller *waiting; /* for their turn at --rate */
static bool pacing;

void rpc_fail(const char *what, const char *why)
{
	fprintf(stderr, "rpc: %s: %s\n", what, why);
	_exit(1); /* From any thread: destructors would wait for calls under way. */
}

static void stop_caller(void)
{
	pthread_mutex_lock(&lock);
	if (--running == 0) {
		pthread_cond_signal(&idle);
	}
	pthread_mutex_unlock(&lock);
}

/* False: the phase has nothing more for this caller. */
static bool prepare(struct rpc_caller *caller)
{
	if (phase == PHASE_OPEN) {
		caller->entity = atomic_fetch_add_explicit(&next_open, 1, memory_order_relaxed);
		if (caller->entity >= options.entities) {
			return false;
		}
		caller->command = "Open";
		caller->payload_size = 0;
	} else {
		if (caller->sent_ns >= atomic_load_explicit(&measure_to_ns, memory_order_relaxed)) {
			return false;
		}
		caller->entity = rt_random_below(&caller->random, options.entities);
		caller->command = "Deposit";
		caller->payload_size = payload_size;
	}
	caller->id = accounts[caller->entity].id;
	return true;
}

static void next_call(struct rpc_caller *caller, uint64_t now)
{
	caller->sent_ns = now;
	if (prepare(caller)) {
		transport->send(caller);
	} else {
		stop_caller();
	}
}

/* ---- a steady rate ---- */
static bool wait_turn(struct rpc_caller *caller)
{
	pthread_mutex_lock(&lock);
	bool waits = pacing;
	if (waits) {
		caller->next = waiting;
		waiting = caller;
	}
	pthread_mutex_unlock(&lock);
	return waits;
}

/* What is due by now and finds a caller without a call; what finds none is not sent later. */
static void send_due(uint64_t *paced_ns, uint64_t now)
{
	uint64_t due = (now - *paced_ns) * options.rate / 1000000000u;
	*paced_ns += due * 1000000000u / options.rate;
	while (due-- > 0) {
		pthread_mutex_lock(&lock);
		struct rpc_caller *caller = waiting;
		if (caller != NULL) {
			waiting = caller->next;
		}
		pthread_mutex_unlock(&lock);
		if (caller == NULL) {
			return;
		}
		next_call(caller, now);
	}
}

static void stop_pacing(void)
{
	pthread_mutex_lock(&lock);
	pacing = false;
	struct rpc_caller *caller = waiting;
	waiting = NULL;
	pthread_mutex_unlock(&lock);
	while (caller != NULL) {
		struct rpc_caller *next = caller->next;
		next_call(caller, rt_clock_now_ns()); /* The time is over: it stops. */
		caller = next;
	}
}

void rpc_answered(struct rpc_caller *caller, int code, uint64_t seq, const char *error)
{
	uint64_t now = rt_clock_now_ns();
	if (code != TROUPE_OK) {
		rpc_fail(troupe_code_name(code), error);
	}
	struct account *account = &accounts[caller->entity];
	atomic_fetch_add_explicit(&account->answers, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&account->seq_sum, seq, memory_order_relaxed);
	if (phase == PHASE_DEPOSIT &&
		now >= atomic_load_explicit(&measure_from_ns, memory_order_relaxed) &&
		now < atomic_load_explicit(&measure_to_ns, memory_order_relaxed)) {
		pthread_mutex_lock(&lock);
		rt_hist_add(&hist, now - caller->sent_ns);
		rt_hist_add(&stretch, now - caller->sent_ns);
		pthread_mutex_unlock(&lock);
	}
	if (!wait_turn(caller)) {
		next_call(caller, now);
	}
}

static void start_phase(enum phase next)
{
	phase = next;
	running = options.callers;
	for (uint32_t i = 0; i < options.callers; i++) {
		next_call(&callers[i], rt_clock_now_ns());
	}
}

static void await_phase(void)
{
	pthread_mutex_lock(&lock);
	while (running > 0) {
		pthread_cond_wait(&idle, &lock);
	}
	pthread_mutex_unlock(&lock);
}

/* A deposit of one cent whose reference fills the payload (but for a byte, where a length of one
 * byte is too short and one of two too long). */
static void fill_payload(struct rpc_caller *caller)
{
	uint8_t *at = caller->payload;
	*at++ = DEPOSIT_AMOUNT_FIELD;
	*at++ = 1;
	*at++ = DEPOSIT_REF_FIELD;
	uint32_t rest = options.payload - (uint32_t)(at - caller->payload);
	uint32_t size = rest < 130 ? (rest - 1 < 127 ? rest - 1 : 127) : rest - 2;
	at = pr_varint_put(at, size);
	payload_size = (size_t)(at - caller->payload) + size;
	for (uint32_t i = 0; i < size; i++) {
		*at++ = (uint8_t)('0' + rt_random_below(&caller->random, 75));
	}
}

static void set_up(void)
{
	accounts = calloc(options.entities, sizeof(*accounts));
	callers = calloc(options.callers, sizeof(*callers));
	if (accounts == NULL || callers == NULL) {
		rpc_fail("accounts", "out of memory");
	}
	/* New names for every run: sequence numbers start at 1. */
	unsigned long long run = (unsigned long long)rt_clock_wall_ms();
	for (uint32_t i = 0; i < options.entities; i++) {
		snprintf(accounts[i].id, sizeof(accounts[i].id), "%llx-%05u", run, i);
	}
	for (uint32_t i = 0; i < options.callers; i++) {
		struct rpc_caller *caller = &callers[i];
		caller->index = i;
		rt_random_seed(&caller->random, run + i);
		fill_payload(caller);
	}
}

/* Open is 1, the deposits follow without a gap: their sum is known from their number. */
static void check_accounts(void)
{
	for (uint32_t i = 0; i < options.entities; i++) {
		uint64_t count = accounts[i].answers;
		if (accounts[i].seq_sum != count * (count + 1) / 2) {
			rpc_fail(accounts[i].id, "sequence numbers have gaps or repeats");
		}
	}
}

static double cpu_seconds(clockid_t clock)
{
	struct timespec spent = {0};
	(void)clock_gettime(clock, &spent);
	return (double)spent.tv_sec + (double)spent.tv_nsec / 1e9;
}

static void nap(double seconds)
{
	struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	while (nanosleep(&left, &left) != 0) {
	}
}

static void mark(const char *what)
{
	printf("{\"bench\":\"rpc.%s\"}\n", what);
	fflush(stdout);
}

static void print_stretch(double seconds)
{
	pthread_mutex_lock(&lock);
	struct rt_hist now = stretch;
	rt_hist_reset(&stretch);
	pthread_mutex_unlock(&lock);
	printf("{\"bench\":\"rpc.stretch\",\"value\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
	       "\"max_us\":%.1f}\n",
		(double)now.count / seconds, (double)rt_hist_percentile(&now, 50.0) / 1e3,
		(double)rt_hist_percentile(&now, 99.0) / 1e3,
		(double)rt_hist_percentile(&now, 100.0) / 1e3);
	fflush(stdout);
}

/* Lets time pass until end, sends at --rate meanwhile and tells about stretches. */
static void spend(uint64_t end, bool tells)
{
	uint64_t now = rt_clock_now_ns();
	uint64_t paced = now;
	uint64_t told = now;
	uint64_t every = tells ? (uint64_t)(options.every_seconds * 1e9) : 0;
	while (now < end) {
		if (options.rate > 0) {
			send_due(&paced, now);
		}
		if (every > 0 && now - told >= every) {
			print_stretch((double)(now - told) / 1e9);
			told = now;
		}
		uint64_t left = end - now;
		uint64_t step = options.rate > 0 ? PACE_NS : every > 0 ? STEP_NS : left;
		nap((double)(step < left ? step : left) / 1e9);
		now = rt_clock_now_ns();
	}
}

static void measure(void)
{
	clockid_t server;
	bool has_server = options.server > 0 && clock_getcpuclockid(options.server, &server) == 0;
	uint64_t start = rt_clock_now_ns();
	measure_from_ns = start + (uint64_t)(options.warm_seconds * 1e9);
	measure_to_ns = measure_from_ns + (uint64_t)(options.seconds * 1e9);
	pacing = options.rate > 0;
	start_phase(PHASE_DEPOSIT);
	spend(measure_from_ns, false);
	mark("begins");
	double server_before = has_server ? cpu_seconds(server) : 0;
	double client_before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
	spend(measure_to_ns, true);
	double server_after = has_server ? cpu_seconds(server) : 0;
	double client_after = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
	mark("ends");
	stop_pacing();
	await_phase();
	check_accounts();
	if (hist.count == 0) {
		rpc_fail("measure", "no answers");
	}
	double count = (double)hist.count;
	printf("{\"bench\":\"rpc\",\"mode\":\"%s\",\"callers\":%u,\"entities\":%u,\"value\":%.1f,"
	       "\"unit\":\"commands/s\",\"count\":%llu,\"p50_us\":%.1f,\"p99_us\":%.1f,"
	       "\"p999_us\":%.1f,\"server_us\":%.3f,\"client_us\":%.3f}\n",
		options.foreign ? "foreign" : "library", options.callers, options.entities,
		count / options.seconds, (unsigned long long)hist.count,
		(double)rt_hist_percentile(&hist, 50.0) / 1e3,
		(double)rt_hist_percentile(&hist, 99.0) / 1e3,
		(double)rt_hist_percentile(&hist, 99.9) / 1e3,
		(server_after - server_before) * 1e6 / count,
		(client_after - client_before) * 1e6 / count);
}

static _Noreturn void usage(int status)
{
	fprintf(status == 0 ? stdout : stderr,
		"usage: rpc --url URL[,URL] [--callers N] [--entities N] [--payload BYTES]\n"
		"           [--seconds S] [--warm S] [--every S] [--rate N] [--in-flight N]\n"
		"           [--batch N] [--foreign] [--server PID]\n");
	exit(status);
}

static void read_options(int argc, char **argv)
{
	static const struct option names[] = {
		{"url", required_argument, NULL, 'u'},
		{"callers", required_argument, NULL, 'c'},
		{"entities", required_argument, NULL, 'e'},
		{"seconds", required_argument, NULL, 's'},
		{"warm", required_argument, NULL, 'w'},
		{"every", required_argument, NULL, 't'},
		{"rate", required_argument, NULL, 'r'},
		{"payload", required_argument, NULL, 'l'},
		{"in-flight", required_argument, NULL, 'k'},
		{"batch", required_argument, NULL, 'b'},
		{"foreign", no_argument, NULL, 'f'},
		{"server", required_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	uint32_t *numbers[128] = {
		['c'] = &options.callers,
		['e'] = &options.entities,
		['k'] = &options.in_flight,
		['b'] = &options.batch,
		['r'] = &options.rate,
		['l'] = &options.payload,
	};
	int name;
	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (name == 'u') {
			options.url = optarg;
		} else if (name == 's') {
			options.seconds = atof(optarg);
		} else if (name == 'w') {
			options.warm_seconds = atof(optarg);
		} else if (name == 't') {
			options.every_seconds = atof(optarg);
		} else if (name == 'f') {
			options.foreign = true;
			transport = &rpc_foreign;
		} else if (name == 'p') {
			options.server = atoi(optarg);
		} else if (name < 128 && numbers[name] != NULL) {
			*numbers[name] = (uint32_t)strtoul(optarg, NULL, 10);
		} else {
			usage(name == 'h' ? 0 : 2);
		}
	}
	if (options.url == NULL || options.callers == 0 || options.entities == 0 ||
		options.payload < PAYLOAD_MIN || options.payload > RPC_PAYLOAD_MAX ||
		options.seconds <= 0 || optind != argc) {
		usage(2);
	}
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	rt_hist_reset(&hist);
	set_up();
	transport->open(&options);
	start_phase(PHASE_OPEN);
	await_phase();
	measure();
	transport->close();
	return 0;
}
