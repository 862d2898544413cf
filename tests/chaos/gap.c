/*
 * gap.c - watches how long an entity goes without an answer, through the C client library.
 *
 *     gap OUT COUNTS PREFIX STREAMS PACE_MS URL[,URL]...
 *
 * One client per last argument, which knows all nodes that this lists, and STREAMS accounts per
 * client, PREFIX-client-number. Each account has one deposit under way and sends the next one
 * PACE_MS after the answer. OUT gets a line per answer when the program ends: account, shard, sent
 * and answered in nanoseconds of CLOCK_MONOTONIC, attempts, code. COUNTS is a file of two numbers
 * of eight bytes, mapped: answers OK, and other ones. SIGTERM ends it.
 *
 * Threads: main submits what is due; callbacks write down and set what is due next. One lock.
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

#define CLIENTS_MAX 16u
#define DEADLINE_MS 30000u

struct stream {
	struct stream *next; /* in the queue of those that wait for their time */
	struct troupe_client *client;
	char id[64];
	uint64_t due, sent;
	bool opened;
};

struct seen {
	const struct stream *stream;
	uint64_t sent, answered;
	uint32_t shard, attempts;
	int code;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* All wait equally long, so who came first is due first. */
	struct stream *first, **last;
	struct seen *seen;
	size_t seen_count, seen_room;
	volatile uint64_t *counts;
	uint64_t pace_ns;
	uint32_t under_way;
} gap = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static volatile sig_atomic_t stopping;

static void on_stop(int number)
{
	(void)number;
	stopping = 1;
}

static void wait_for_turn(struct stream *stream, uint64_t due)
{
	stream->due = due;
	stream->next = NULL;
	*gap.last = stream;
	gap.last = &stream->next;
}

static void write_down(const struct seen *seen)
{
	if (gap.seen_count == gap.seen_room) {
		gap.seen_room = gap.seen_room == 0 ? 65536 : 2 * gap.seen_room;
		gap.seen = realloc(gap.seen, gap.seen_room * sizeof(*gap.seen));
		if (gap.seen == NULL) {
			abort();
		}
	}
	gap.seen[gap.seen_count++] = *seen;
	++gap.counts[seen->code == TROUPE_OK ? 0 : 1];
}

static void answered(void *arg, const struct troupe_answer *answer)
{
	struct stream *stream = arg;
	uint64_t now = rt_clock_now_ns();
	pthread_mutex_lock(&gap.lock);
	write_down(&(struct seen){.stream = stream,
		.sent = stream->sent,
		.answered = now,
		.shard = answer->shard,
		.attempts = answer->attempts,
		.code = answer->code});
	stream->opened |= answer->code == TROUPE_OK;
	wait_for_turn(stream, now + gap.pace_ns);
	gap.under_way--;
	pthread_cond_signal(&gap.changed);
	pthread_mutex_unlock(&gap.lock);
}

static void submit(struct stream *stream)
{
	static const uint8_t one[] = {1 << 3, 1};
	struct troupe_call call = {.kind = TROUPE_COMMAND,
		.type = "account",
		.id = stream->id,
		.name = stream->opened ? "Deposit" : "Open",
		.payload = one,
		.payload_size = stream->opened ? sizeof(one) : 0,
		.expected = -1};
	stream->sent = rt_clock_now_ns();
	int code = troupe_client_submit(stream->client, &call, answered, stream);
	if (code != 0) {
		fprintf(stderr, "gap: submit: %s\n", troupe_code_name(code));
		_exit(1);
	}
}

static void wait_some_ms(uint32_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&gap.changed, &gap.lock, &until);
}

static void run(void)
{
	pthread_mutex_lock(&gap.lock);
	while (!stopping || gap.under_way > 0) {
		struct stream *stream = gap.first;
		if (stopping || stream == NULL || stream->due > rt_clock_now_ns()) {
			wait_some_ms(1);
			continue;
		}
		gap.first = stream->next;
		gap.last = gap.first == NULL ? &gap.first : gap.last;
		gap.under_way++;
		pthread_mutex_unlock(&gap.lock);
		submit(stream);
		pthread_mutex_lock(&gap.lock);
	}
	pthread_mutex_unlock(&gap.lock);
}

static struct troupe_client *open_client(const char *urls)
{
	char error[200] = "";
	/* Many small messages: one that waits for a shard without a leader holds up few others. */
	struct troupe_client_options options = {
		.url = urls, .timeout_ms = DEADLINE_MS, .in_flight = 64};
	struct troupe_client *client = troupe_client_open(&options, error, sizeof(error));
	if (client == NULL) {
		fprintf(stderr, "gap: %s\n", error);
		_exit(1);
	}
	return client;
}

static void *map_counts(const char *path)
{
	FILE *file = fopen(path, "r+");
	void *at = file == NULL ? MAP_FAILED
				: mmap(NULL, 2 * sizeof(uint64_t), PROT_READ | PROT_WRITE,
					  MAP_SHARED, fileno(file), 0);
	if (at == MAP_FAILED) {
		perror(path);
		_exit(1);
	}
	fclose(file);
	return at;
}

static int write_out(const char *path)
{
	FILE *file = fopen(path, "w");
	if (file == NULL) {
		perror(path);
		return 1;
	}
	for (size_t i = 0; i < gap.seen_count; i++) {
		const struct seen *seen = &gap.seen[i];
		fprintf(file, "%s\t%" PRIu32 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu32 "\t%s\n",
			seen->stream->id, seen->shard, seen->sent, seen->answered, seen->attempts,
			troupe_code_name(seen->code));
	}
	return fclose(file) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc < 7 || argc > 6 + (int)CLIENTS_MAX) {
		fprintf(stderr, "gap OUT COUNTS PREFIX STREAMS PACE_MS URL[,URL]...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a run that fails leaves nothing behind */
	signal(SIGTERM, on_stop);
	signal(SIGPIPE, SIG_IGN);
	gap.last = &gap.first;
	gap.counts = map_counts(argv[2]);
	gap.pace_ns = strtoull(argv[5], NULL, 10) * 1000000;
	struct troupe_client *clients[CLIENTS_MAX];
	uint32_t count = (uint32_t)argc - 6, streams = (uint32_t)strtoul(argv[4], NULL, 10);
	uint64_t now = rt_clock_now_ns();
	for (uint32_t c = 0; c < count; c++) {
		clients[c] = open_client(argv[6 + c]);
		for (uint32_t i = 0; i < streams; i++) {
			struct stream *stream = calloc(1, sizeof(*stream));
			if (stream == NULL) {
				abort();
			}
			stream->client = clients[c];
			snprintf(stream->id, sizeof(stream->id), "%s-%u-%u", argv[3], c, i);
			wait_for_turn(stream, now);
		}
	}
	run();
	for (uint32_t c = 0; c < count; c++) {
		troupe_client_close(clients[c]);
	}
	return write_out(argv[1]);
}
