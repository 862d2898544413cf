/*
 * touch.c - wakes many sleeping accounts once each and checks every answer.
 *
 * usage: touch --url URL --entities N [--count N] [--callers N] [--prefix TEXT] [--digits N]
 *              [--events N] [--balance CENTS] [--query]
 *
 * Accounts PREFIX0000000... were generated with EVENTS events and BALANCE cents (a balance that
 * depends on nothing else, so that any answer can be checked). The first pass deposits one cent to
 * COUNT of them, spread over all; the second asks the first tenth of those again, asleep once more
 * by then when memory is short. --query only asks COUNT accounts. One JSON line.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/client/client.h"
#include "proto/wire.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define STRIDE      UINT64_C(7368787) /* prime: visits every account once */
#define TIMEOUT_MS  60000u
#define ID_BYTES    64u
#define WRONG_SHOWN 5u

struct caller {
	char id[ID_BYTES];
	uint64_t sent_ns;
};

static const char *url, *prefix = "acc-";
static uint64_t entities = 0, count = 0, events = 10, balance = 0;
static uint32_t callers_wanted = 256, digits = 8;
static struct troupe_client *client;
static bool query_only;
static bool asking; /* this pass */
static uint64_t pass_count;
static _Atomic uint64_t next_index, wrong;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static uint32_t running;    /* under lock */
static struct rt_hist hist; /* under lock */

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "touch: %s: %s\n", what, why);
	_exit(1);
}

static void answered(void *arg, const struct troupe_answer *answer);

/* False: the pass is over for this caller. */
static bool next_call(struct caller *caller)
{
	static const uint8_t one_cent[] = {0x08, 0x01}; /* Deposit.amount = 1 */
	uint64_t index = atomic_fetch_add_explicit(&next_index, 1, memory_order_relaxed);
	if (index >= pass_count) {
		return false;
	}
	snprintf(caller->id, sizeof(caller->id), "%s%0*llu", prefix, (int)digits,
		(unsigned long long)(index * STRIDE % entities));
	struct troupe_call call = {
		.kind = asking ? TROUPE_QUERY : TROUPE_COMMAND,
		.type = "account",
		.id = caller->id,
		.name = asking ? "Balance" : "Deposit",
		.payload = asking ? NULL : one_cent,
		.payload_size = asking ? 0 : sizeof(one_cent),
		.expected = -1,
	};
	caller->sent_ns = rt_clock_now_ns();
	int code = troupe_client_submit(client, &call, answered, caller);
	if (code != TROUPE_OK) {
		fail("submit", troupe_code_name(code));
	}
	return true;
}

static void stop_caller(void)
{
	pthread_mutex_lock(&lock);
	if (--running == 0) {
		pthread_cond_signal(&idle);
	}
	pthread_mutex_unlock(&lock);
}

/* The only field of Standing. An empty message is a balance of 0. */
static uint64_t balance_of(const struct troupe_answer *answer)
{
	const uint8_t *at = answer->payload;
	uint64_t value = 0;
	if (answer->payload_size > 1 && at[0] == 0x08 &&
		pr_varint_get(at + 1, at + answer->payload_size, &value) == NULL) {
		value = UINT64_MAX;
	}
	return value;
}

static void answered(void *arg, const struct troupe_answer *answer)
{
	struct caller *caller = arg;
	uint64_t now = rt_clock_now_ns();
	uint64_t found = balance_of(answer);
	uint64_t more = query_only ? 0 : 1; /* events and cents since the store was generated */
	if (answer->code != TROUPE_OK || found != balance + more || answer->seq != events + more) {
		if (atomic_fetch_add(&wrong, 1) < WRONG_SHOWN) {
			fprintf(stderr, "touch: %s: %s %s, balance %llu, seq %llu\n", caller->id,
				troupe_code_name(answer->code), answer->error,
				(unsigned long long)found, (unsigned long long)answer->seq);
		}
	}
	pthread_mutex_lock(&lock);
	rt_hist_add(&hist, now - caller->sent_ns);
	pthread_mutex_unlock(&lock);
	if (!next_call(caller)) {
		stop_caller();
	}
}

static double pass(struct caller *callers, bool ask, uint64_t how_many)
{
	uint64_t start = rt_clock_now_ns();
	asking = ask;
	pass_count = how_many;
	next_index = 0;
	running = callers_wanted;
	for (uint32_t i = 0; i < callers_wanted; i++) {
		if (!next_call(&callers[i])) {
			stop_caller();
		}
	}
	pthread_mutex_lock(&lock);
	while (running > 0) {
		pthread_cond_wait(&idle, &lock);
	}
	pthread_mutex_unlock(&lock);
	return (double)(rt_clock_now_ns() - start) / 1e9;
}

static _Noreturn void usage(void)
{
	fprintf(stderr, "usage: touch --url URL --entities N [--count N] [--callers N]\n"
			"             [--prefix TEXT] [--digits N] [--events N] [--balance CENTS] "
			"[--query]\n");
	exit(2);
}

static void read_options(int argc, char **argv)
{
	static const struct option names[] = {
		{"url", required_argument, NULL, 'u'},
		{"prefix", required_argument, NULL, 'p'},
		{"entities", required_argument, NULL, 'n'},
		{"count", required_argument, NULL, 'c'},
		{"events", required_argument, NULL, 'e'},
		{"balance", required_argument, NULL, 'b'},
		{"callers", required_argument, NULL, 'k'},
		{"digits", required_argument, NULL, 'd'},
		{"query", no_argument, NULL, 'q'},
		{0},
	};
	int name;
	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		uint64_t value = optarg == NULL ? 0 : strtoull(optarg, NULL, 10);
		switch (name) {
		case 'u':
			url = optarg;
			break;
		case 'p':
			prefix = optarg;
			break;
		case 'n':
			entities = value;
			break;
		case 'c':
			count = value;
			break;
		case 'e':
			events = value;
			break;
		case 'b':
			balance = value;
			break;
		case 'k':
			callers_wanted = (uint32_t)value;
			break;
		case 'q':
			query_only = true;
			break;
		case 'd':
			digits = (uint32_t)value;
			break;
		default:
			usage();
		}
	}
	if (url == NULL || entities == 0 || count > entities || callers_wanted == 0 ||
		strlen(prefix) + digits >= ID_BYTES || optind != argc) {
		usage();
	}
	count = count == 0 ? entities : count;
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	char error[256] = "";
	struct troupe_client_options settings = {.url = url, .timeout_ms = TIMEOUT_MS};
	client = troupe_client_open(&settings, error, sizeof(error));
	struct caller *callers = calloc(callers_wanted, sizeof(*callers));
	if (client == NULL || callers == NULL) {
		fail("client", error);
	}
	rt_hist_reset(&hist);
	double seconds = pass(callers, query_only, count);
	uint64_t p50 = rt_hist_percentile(&hist, 50.0), p99 = rt_hist_percentile(&hist, 99.0);
	uint64_t again = query_only ? 0 : count / 10;
	double again_seconds = pass(callers, true, again);
	troupe_client_close(client);
	free(callers);
	printf("{\"bench\":\"touch\",\"count\":%llu,\"again\":%llu,\"wrong\":%llu,\"seconds\":%.3f,"
	       "\"again_seconds\":%.3f,\"value\":%.1f,\"unit\":\"/s\",\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f}\n",
		(unsigned long long)count, (unsigned long long)again, (unsigned long long)wrong,
		seconds, again_seconds, (double)count / seconds, (double)p50 / 1e3,
		(double)p99 / 1e3);
	return wrong == 0 ? 0 : 1;
}
