/* troupe bench: asynchronous deposits through the client library, and how long they took. */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "actors/account/account.pb-c.h"
#include "cmd/troupe/client.h"
#include "cmd/troupe/commands.h"
#include "proto/wire.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"
#include "runtime/base/random.h"

#define CALLERS_MAX  65536u
#define ENTITIES_MAX 10000000u
#define PAYLOAD_MIN  8u
#define PAYLOAD_MAX  1000u
#define ID_BYTES     24u

struct bench;

/* One call at a time; the next one is sent from the answer of the last. */
struct caller {
	struct bench *bench;
	uint64_t sent_ns;
	char id[ID_BYTES];
};

struct bench {
	const struct tr_options *options;
	struct troupe_client *client;
	struct caller *callers;
	uint8_t payload[PAYLOAD_MAX + 32];
	size_t payload_size;

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t finished;
	struct rt_random random;
	struct rt_hist latency;
	uint64_t under_way, next_entity, done, refused, failed;
	int first_failure; /* code */
	bool opening, stop;
	uint64_t end_ns;
};

/* Under the lock: the next thing this caller does, or false when it is done. */
static bool next_call(struct caller *caller)
{
	struct bench *bench = caller->bench;
	uint64_t entity = 0;
	if (bench->stop) {
		return false;
	}
	if (bench->opening) {
		if (bench->next_entity == bench->options->entities) {
			return false;
		}
		entity = bench->next_entity++;
	} else {
		if (rt_clock_now_ns() >= bench->end_ns) {
			return false;
		}
		entity = rt_random_below(&bench->random, (uint32_t)bench->options->entities);
	}
	snprintf(caller->id, sizeof(caller->id), "bench-%" PRIu64, entity);
	return true;
}

static void step(struct caller *caller);

static void count(struct bench *bench, const struct caller *caller, int code)
{
	if (code == TROUPE_OK) {
		bench->done++;
		rt_hist_add(&bench->latency, rt_clock_now_ns() - caller->sent_ns);
	} else if (code == TROUPE_REFUSED) {
		bench->refused++;
	} else {
		bench->failed++;
		bench->stop = true; /* a node that is gone must not be hammered */
		bench->first_failure = bench->first_failure == 0 ? code : bench->first_failure;
	}
}

static void leave(struct bench *bench)
{
	if (--bench->under_way == 0) {
		pthread_cond_signal(&bench->finished);
	}
}

static void answered(void *arg, const struct troupe_answer *answer)
{
	struct caller *caller = arg;
	pthread_mutex_lock(&caller->bench->lock);
	count(caller->bench, caller, answer->code);
	pthread_mutex_unlock(&caller->bench->lock);
	step(caller);
}

/* Sends the caller's next call, or takes it out of the count. */
static void step(struct caller *caller)
{
	struct bench *bench = caller->bench;
	pthread_mutex_lock(&bench->lock);
	bool go_on = next_call(caller);
	bool opening = bench->opening;
	if (!go_on) {
		leave(bench);
	}
	pthread_mutex_unlock(&bench->lock);
	if (!go_on) {
		return;
	}
	const struct troupe_call call = {.kind = TROUPE_COMMAND,
		.type = "account",
		.id = caller->id,
		.name = opening ? "Open" : "Deposit",
		.payload = opening ? NULL : bench->payload,
		.payload_size = opening ? 0 : bench->payload_size,
		.expected = -1};
	caller->sent_ns = rt_clock_now_ns();
	int code = troupe_client_submit(bench->client, &call, answered, caller);
	if (code != TROUPE_OK) {
		pthread_mutex_lock(&bench->lock);
		count(bench, caller, code);
		leave(bench);
		pthread_mutex_unlock(&bench->lock);
	}
}

static void run_phase(struct bench *bench, bool opening)
{
	bench->opening = opening;
	bench->done = bench->refused = 0;
	rt_hist_reset(&bench->latency);
	bench->under_way = bench->options->callers;
	bench->end_ns = rt_clock_now_ns() + bench->options->seconds * UINT64_C(1000000000);
	for (uint64_t i = 0; i < bench->options->callers; i++) {
		step(&bench->callers[i]);
	}
	pthread_mutex_lock(&bench->lock);
	while (bench->under_way > 0) {
		pthread_cond_wait(&bench->finished, &bench->lock);
	}
	pthread_mutex_unlock(&bench->lock);
}

static double cpu_us(void)
{
	struct rusage usage = {0};
	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void print_result(const struct bench *bench, double seconds, double client_us)
{
	const struct rt_hist *h = &bench->latency;
	double done = bench->done > 0 ? (double)bench->done : 1;
	struct pr_text line = {0};
	pr_text_printf(&line,
		"{\"commands\":%" PRIu64 ",\"seconds\":%.3f,\"perSecond\":%.0f,\"p50Us\":%.0f,"
		"\"p99Us\":%.0f,\"p999Us\":%.0f,\"maxUs\":%.0f,\"clientCpuUs\":%.2f,",
		bench->done, seconds, (double)bench->done / seconds,
		(double)rt_hist_percentile(h, 50) / 1e3, (double)rt_hist_percentile(h, 99) / 1e3,
		(double)rt_hist_percentile(h, 99.9) / 1e3, (double)h->max / 1e3, client_us / done);
	pr_text_printf(&line,
		"\"refused\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"callers\":%" PRIu64
		",\"entities\":%" PRIu64 ",\"payload\":%zu}",
		bench->refused, bench->failed, bench->options->callers, bench->options->entities,
		bench->payload_size);
	tr_print_line(&line);
	pr_text_clear(&line);
}

/* A deposit of one cent whose reference makes it as large as asked. */
static void make_payload(struct bench *bench)
{
	char ref[PAYLOAD_MAX + 1];
	size_t size = (size_t)bench->options->payload;
	size_t room = size - 2; /* the amount */
	size_t length = room - 1 - pr_varint_size(room);
	memset(ref, 'r', length);
	ref[length] = '\0';
	Account__Deposit deposit = ACCOUNT__DEPOSIT__INIT;
	deposit.amount = 1;
	deposit.ref = ref;
	bench->payload_size = account__deposit__pack(&deposit, bench->payload);
}

static bool in_range(const char *flag, uint64_t value, uint64_t least, uint64_t most)
{
	if (value >= least && value <= most) {
		return true;
	}
	fprintf(stderr, "troupe: --%s: %" PRIu64 " to %" PRIu64 "\n", flag, least, most);
	return false;
}

static enum tr_exit run_bench(struct bench *bench)
{
	fprintf(stderr, "troupe: opening %" PRIu64 " accounts\n", bench->options->entities);
	run_phase(bench, true);
	if (bench->failed == 0) {
		fprintf(stderr, "troupe: depositing for %" PRIu64 " s with %" PRIu64 " callers\n",
			bench->options->seconds, bench->options->callers);
		double cpu = cpu_us();
		uint64_t began = rt_clock_now_ns();
		run_phase(bench, false);
		print_result(bench, (double)(rt_clock_now_ns() - began) / 1e9, cpu_us() - cpu);
	}
	if (bench->failed > 0) {
		fprintf(stderr, "troupe: %s: %s\n", bench->options->url,
			troupe_code_name(bench->first_failure));
		return tr_exit_of(bench->first_failure);
	}
	return TR_DONE;
}

enum tr_exit tr_bench(const struct tr_options *options)
{
	if (!in_range("callers", options->callers, 1, CALLERS_MAX) ||
		!in_range("entities", options->entities, 1, ENTITIES_MAX) ||
		!in_range("seconds", options->seconds, 1, 3600) ||
		!in_range("payload", options->payload, PAYLOAD_MIN, PAYLOAD_MAX)) {
		return TR_USAGE;
	}
	struct bench *bench = calloc(1, sizeof(*bench));
	struct caller *callers = calloc(options->callers, sizeof(*callers));
	enum tr_exit code = TR_UNAVAILABLE;
	if (bench != NULL && callers != NULL) {
		bench->options = options;
		bench->callers = callers;
		pthread_mutex_init(&bench->lock, NULL);
		pthread_cond_init(&bench->finished, NULL);
		rt_random_seed(&bench->random, rt_clock_now_ns());
		make_payload(bench);
		for (uint64_t i = 0; i < options->callers; i++) {
			callers[i].bench = bench;
		}
		bench->client = tr_client_open(options);
		code = bench->client != NULL ? run_bench(bench) : TR_USAGE;
		if (bench->client != NULL) {
			troupe_client_close(bench->client);
		}
		pthread_cond_destroy(&bench->finished);
		pthread_mutex_destroy(&bench->lock);
	}
	free(callers);
	free(bench);
	return code;
}
