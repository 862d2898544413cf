/*
 * load.c - the load of load.py through the C client library: its batches, its retries.
 *
 *     load URL[,URL] HISTORY COUNTS SEED RATE OUTSTANDING ENTITY...
 *
 * Keeps up to OUTSTANDING operations under way on one client, RATE of them a second, and appends a
 * line of history (history.py) to HISTORY for each. COUNTS is a file of two numbers of eight bytes,
 * mapped: commands answered OK, and operations that the library gave up and that are asked for
 * again. SIGTERM: no new operations, ends when all have their answer.
 *
 * Threads: main submits; callbacks of the library write lines and put operations back. One lock
 * guards all that both touch.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "proto/client/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/random.h"

#define OLD_MAX     512u
#define DEADLINE_MS 60000u
#define ANY         (-1)

enum kind {
	DEPOSIT,
	CHECK,
	ATM,
	READ
};
static const char *const names[] = {"Deposit", "WriteCheck", "WithdrawAtm", "Balance"};
static const char *const words[] = {"deposit", "check", "atm", "balance"};

struct op {
	struct op *next;
	char id[48];
	const char *entity;
	enum kind kind;
	int64_t amount, expected;
	uint64_t t0;
	uint32_t attempts;
	bool late;   /* an attempt may still be on its way */
	bool repeat; /* of a command that has its answer */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct troupe_client *client;
	FILE *history;
	volatile uint64_t *acked, *given_up;
	char **entities;
	uint32_t entity_count;
	struct rt_random random;
	struct op *ready; /* to be sent before new ones are made */
	struct op old[OLD_MAX];
	uint64_t old_count, made, seed;
	uint32_t under_way, limit;
	bool several;         /* nodes */
	uint64_t seen[65536]; /* newest sequence number of an entity */
	int odd;              /* answers nobody should get */
} load = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static volatile sig_atomic_t stopping;

static void on_stop(int number)
{
	(void)number;
	stopping = 1;
}

static uint64_t dice(uint64_t sides)
{
	return rt_random_next(&load.random) % sides;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
	while (value > 127) {
		*at++ = (uint8_t)(value | 128);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

/* Field 1 of a Standing; 0 when it is not there, as protobuf has it. */
static int64_t read_balance(const uint8_t *at, size_t size)
{
	uint64_t value = 0;
	for (size_t i = 1; size > 1 && at[0] == 8 && i < size && i < 11; i++) {
		value |= (uint64_t)(at[i] & 127) << (7 * (i - 1));
		if (at[i] < 128) {
			break;
		}
	}
	return (int64_t)value;
}

/* ---- what to do next; under the lock ---- */

static struct op *op_new(enum kind kind, const char *entity, int64_t amount)
{
	struct op *op = calloc(1, sizeof(*op));
	if (op == NULL) {
		abort();
	}
	op->kind = kind;
	op->entity = entity;
	op->amount = amount;
	op->expected = ANY;
	snprintf(op->id, sizeof(op->id), "%" PRIu64 "-c-%" PRIu64, load.seed, ++load.made);
	return op;
}

static void put_ready(struct op *op)
{
	op->next = load.ready;
	load.ready = op;
}

static struct op *again(const struct op *first)
{
	struct op *op = malloc(sizeof(*op));
	if (op == NULL) {
		abort();
	}
	*op = *first;
	op->next = NULL;
	op->t0 = 0;
	op->attempts = 0;
	op->late = false;
	op->repeat = true;
	return op;
}

static struct op *make(void)
{
	uint32_t number = dice(5) == 0 ? 0 : (uint32_t)dice(load.entity_count);
	const char *entity = load.entities[number];
	uint64_t x = dice(100);
	if (x < 20) {
		return op_new(READ, entity, 0);
	}
	if (x < 55) {
		return op_new(DEPOSIT, entity, 1 + (int64_t)dice(10000));
	}
	if (x < 78) {
		return op_new(dice(2) == 0 ? CHECK : ATM, entity, 1 + (int64_t)dice(20000));
	}
	if (x < 84) {
		struct op *op = op_new(DEPOSIT, entity, 1 + (int64_t)dice(100));
		op->expected = load.seen[number] == 0 ? 1 : (int64_t)load.seen[number];
		return op;
	}
	if (x < 90 && load.old_count > 0) {
		uint64_t kept = load.old_count < OLD_MAX ? load.old_count : OLD_MAX;
		return again(&load.old[dice(kept)]);
	}
	struct op *op = op_new(DEPOSIT, entity, 1 + (int64_t)dice(100));
	if (x < 94) {
		put_ready(again(op)); /* a twin */
	} else {
		op->kind = ATM; /* one side of a transfer */
		strcat(op->id, ".out");
	}
	return op;
}

/* ---- answers ---- */

static const char *outcome_of(int code)
{
	switch (code) {
	case TROUPE_OK:
		return "ok";
	case TROUPE_REFUSED:
		return "rejected";
	case TROUPE_CONFLICT:
		return "conflict";
	default:
		return NULL;
	}
}

static void settled(const struct op *op)
{
	if (op->repeat) {
		return;
	}
	++*load.acked;
	load.old[load.old_count++ < OLD_MAX ? load.old_count - 1 : dice(OLD_MAX)] = *op;
	size_t size = strlen(op->id);
	if (size > 4 && strcmp(op->id + size - 4, ".out") == 0) {
		const char *entity = load.entities[dice(load.entity_count)];
		struct op *in = op_new(DEPOSIT, entity, op->amount);
		snprintf(in->id, sizeof(in->id), "%.*s.in", (int)size - 4, op->id);
		put_ready(in);
	}
}

static void write_line(const struct op *op, const struct troupe_answer *answer, uint64_t now)
{
	bool has_balance = answer->code == TROUPE_OK || answer->payload_size > 0;
	fprintf(load.history,
		"%s\t99\t%s\t%s\t%" PRId64 "\t%" PRId64 "\t%" PRIu64 "\t%" PRIu64 "\t%s\t%" PRIu64
		"\t%" PRId64 "\t%" PRIu64 "\t%d\t%u\t%d\n",
		op->id, op->entity, words[op->kind], op->amount, op->expected, op->t0, now,
		outcome_of(answer->code), answer->seq,
		has_balance ? read_balance(answer->payload, answer->payload_size) : -1,
		answer->code == TROUPE_OK && op->kind != READ ? answer->offset : answer->node,
		answer->repeated, op->attempts, op->late);
}

/* With the time as the daemons write it. */
static void say_odd(const struct op *op, const struct troupe_answer *answer)
{
	struct timespec now;
	struct tm parts;
	char text[16];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	strftime(text, sizeof(text), "%H:%M:%S", &parts);
	fprintf(stderr, "%s.%03ld odd answer: %s %s, attempt %u: %s: %s\n", text,
		now.tv_nsec / 1000000, op->entity, op->id, answer->attempts,
		troupe_code_name(answer->code), answer->error);
}

static void answered(void *arg, const struct troupe_answer *answer)
{
	struct op *op = arg;
	uint64_t now = rt_clock_now_ns();
	pthread_mutex_lock(&load.lock);
	op->attempts += answer->attempts;
	/* With several nodes, one that ended may have handed an attempt on to another. */
	op->late |= load.several && answer->attempts > 1;
	if (outcome_of(answer->code) != NULL) {
		write_line(op, answer, now);
		for (uint32_t i = 0; i < load.entity_count; i++) {
			if (load.entities[i] == op->entity && load.seen[i] < answer->seq) {
				load.seen[i] = answer->seq;
			}
		}
		if (answer->code == TROUPE_OK && op->kind != READ) {
			settled(op);
		}
		free(op);
	} else {
		bool may_retry = answer->code == TROUPE_BUSY ||
				 answer->code == TROUPE_UNAVAILABLE ||
				 answer->code == TROUPE_UNKNOWN || answer->code == TROUPE_TIMEOUT ||
				 answer->code == TROUPE_E_CONNECT;
		if (!may_retry) {
			say_odd(op, answer);
			load.odd++;
		}
		op->late |= answer->code != TROUPE_BUSY && answer->code != TROUPE_E_CONNECT;
		++*load.given_up;
		put_ready(op);
	}
	load.under_way--;
	pthread_cond_signal(&load.changed);
	pthread_mutex_unlock(&load.lock);
}

/* ---- sending; the lock is not held over submit ---- */

static void submit(struct op *op)
{
	uint8_t payload[32], *end = payload;
	if (op->kind == CHECK) {
		*end++ = 1 << 3;
		*end++ = 7;
		*end++ = 2 << 3;
		end = put_varint(end, (uint64_t)op->amount);
	} else if (op->kind != READ) {
		*end++ = 1 << 3;
		end = put_varint(end, (uint64_t)op->amount);
	}
	struct troupe_call call = {.kind = op->kind == READ ? TROUPE_QUERY : TROUPE_COMMAND,
		.type = "account",
		.id = op->entity,
		.name = names[op->kind],
		.payload = payload,
		.payload_size = (size_t)(end - payload),
		.command_id = op->kind == READ ? NULL : op->id,
		.command_id_size = op->kind == READ ? 0 : strlen(op->id),
		.expected = op->expected};
	if (op->t0 == 0) {
		op->t0 = rt_clock_now_ns();
	}
	int code = troupe_client_submit(load.client, &call, answered, op);
	if (code != 0) {
		fprintf(stderr, "submit: %s\n", troupe_code_name(code));
		exit(1);
	}
}

/* The next operation, or NULL when nothing may be sent now. */
static struct op *next_op(bool due)
{
	struct op *op = NULL;
	if (load.under_way < load.limit) {
		op = load.ready;
		if (op != NULL) {
			load.ready = op->next;
		} else if (due && !stopping) {
			op = make();
		}
		load.under_way += op != NULL;
	}
	return op;
}

static bool all_done(void)
{
	return stopping && load.under_way == 0 && load.ready == NULL;
}

static void run(uint64_t rate)
{
	uint64_t start = rt_clock_now_ns(), sent = 0;
	pthread_mutex_lock(&load.lock);
	while (!all_done()) {
		uint64_t allowed = (rt_clock_now_ns() - start) / 1000 * rate / 1000000;
		struct op *op = next_op(sent < allowed);
		if (op != NULL) {
			pthread_mutex_unlock(&load.lock);
			submit(op);
			sent++;
			pthread_mutex_lock(&load.lock);
			continue;
		}
		sent = sent + rate < allowed ? allowed : sent; /* no rush after a pause */
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 2000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&load.changed, &load.lock, &until);
	}
	pthread_mutex_unlock(&load.lock);
}

static void *map_counters(const char *path)
{
	FILE *file = fopen(path, "r+");
	void *at = file == NULL ? MAP_FAILED
				: mmap(NULL, 2 * sizeof(uint64_t), PROT_READ | PROT_WRITE,
					  MAP_SHARED, fileno(file), 0);
	if (at == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	fclose(file);
	return at;
}

int main(int argc, char **argv)
{
	if (argc < 8 || argc - 7 > 65536) {
		fprintf(stderr, "load URL[,URL] HISTORY COUNTS SEED RATE OUTSTANDING ENTITY...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a run that fails leaves nothing behind */
	signal(SIGTERM, on_stop);
	signal(SIGPIPE, SIG_IGN);
	load.history = fopen(argv[2], "w");
	load.acked = map_counters(argv[3]);
	load.given_up = load.acked + 1;
	load.several = strchr(argv[1], ',') != NULL;
	load.seed = strtoull(argv[4], NULL, 10);
	load.limit = (uint32_t)strtoul(argv[6], NULL, 10);
	load.entities = argv + 7;
	load.entity_count = (uint32_t)(argc - 7);
	rt_random_seed(&load.random, load.seed);
	struct troupe_client_options options = {.url = argv[1], .timeout_ms = DEADLINE_MS};
	char error[200] = "";
	load.client = troupe_client_open(&options, error, sizeof(error));
	if (load.history == NULL || load.client == NULL) {
		fprintf(stderr, "load: %s\n", load.history == NULL ? argv[2] : error);
		return 1;
	}
	run(strtoull(argv[5], NULL, 10));
	troupe_client_close(load.client);
	fclose(load.history);
	return load.odd > 0 ? 1 : 0;
}
