/*
 * store.c - the event store alone: how fast it makes records durable and indexed, what it writes
 * and keeps for them, how fast it reads them back; and stores of any size in bulk.
 *
 * usage: store --dir DIR [--entities N] [--events N] [--group N] [--keep | --reuse]
 *            N events in all over N entities in groups of --group, one record each. A JSON line
 *            per figure. --keep leaves the store, --reuse only reads one that was kept.
 *        store --generate DIR --entities N --events N [--type account]
 *            N entities with N events each, for a daemon to open. Its shard count is 64.
 */
#include "bench/store.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/hash.h"

_Noreturn void bench_fail(const char *what, const char *why)
{
	fprintf(stderr, "store: %s: %s\n", what, why);
	exit(1);
}

void bench_check(const char *what, rt_err err, const struct rt_errinfo *info)
{
	if (err != RT_OK) {
		bench_fail(what, info != NULL ? info->text : rt_err_text(err));
	}
}

void bench_print(const char *bench, double value, const char *unit, const char *aim)
{
	printf("{\"bench\":\"store.%s\",\"value\":%.4g,\"unit\":\"%s\"", bench, value, unit);
	if (aim != NULL) {
		printf(",\"aim\":\"%s\"", aim);
	}
	printf("}\n");
	fflush(stdout);
}

static uint64_t next_random(uint64_t *seed)
{
	uint64_t x = *seed;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *seed = x;
}

void bench_pid(struct bench_record *out, uint64_t entity)
{
	int size = snprintf(out->pid_text, sizeof(out->pid_text), "account|acc-%08llu",
		(unsigned long long)entity);
	out->entity = entity;
	out->pid = rt_bytes_of(out->pid_text, (size_t)size);
	out->shard = (uint32_t)(rt_hash(out->pid_text, (size_t)size) % BENCH_SHARDS);
}

void bench_record_make(
	struct bench_record *out, const struct options *options, uint64_t i, uint64_t *seed)
{
	static const char template[] =
		"customer.id currencyEUR warehouse.berlin status:confirmed chan:web";
	uint8_t payload[128];
	uint8_t id[16];
	memcpy(payload, template, 64);
	for (size_t at = 64; at < sizeof(payload); at += 8) {
		uint64_t word = next_random(seed);
		memcpy(payload + at, &word, 8);
	}
	for (size_t at = 0; at < sizeof(id); at += 8) {
		uint64_t word = next_random(seed);
		memcpy(id + at, &word, 8);
	}
	/* A multiplier without a common factor visits every entity once per round. */
	bench_pid(out, i % options->entities * UINT64_C(2654435761) % options->entities);
	struct ps_event_out event = {.manifest = rt_bytes_str("MoneyDeposited"),
		.version = 1,
		.payload = rt_bytes_of(payload, sizeof(payload))};
	struct ps_record head = {.term = 1,
		.kind = PS_KIND_COMMAND,
		.time_ms = UINT64_C(1790000000000) + i / 100,
		.pid = out->pid,
		.first_seq = i / options->entities + 1,
		.command_id = rt_bytes_of(id, sizeof(id)),
		.event_count = 1};
	out->size = ps_record_size(&head, &event);
	if (out->size > sizeof(out->bytes)) {
		bench_fail("record", "too large");
	}
	ps_record_encode(out->bytes, &head, &event);
}

static _Noreturn void usage(void)
{
	fputs("usage: store --dir DIR [--entities N] [--events N] [--group N] "
	      "[--keep | --reuse]\n"
	      "       store --generate DIR --entities N --events N [--type account]\n",
		stderr);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || value == 0) {
		usage();
	}
	return value;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {{"dir", required_argument, NULL, 'd'},
		{"generate", required_argument, NULL, 'g'},
		{"entities", required_argument, NULL, 'n'},
		{"events", required_argument, NULL, 'm'}, {"group", required_argument, NULL, 'b'},
		{"type", required_argument, NULL, 't'}, {"keep", no_argument, NULL, 'k'},
		{NULL, 0, NULL, 0}};
	struct options options = {.entities = 100000, .events = 5000000, .group = 512};
	int option;
	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'g':
			options.generate = true;
			options.dir = optarg;
			break;
		case 'd':
			options.dir = optarg;
			break;
		case 'n':
			options.entities = number(optarg);
			break;
		case 'm':
			options.events = number(optarg);
			break;
		case 'b':
			options.group = (uint32_t)number(optarg);
			break;
		case 't':
			if (strcmp(optarg, "account") != 0) {
				usage();
			}
			break;
		case 'k':
			options.keep = true;
			break;
		case 'r':
			options.keep = options.reuse = true;
			break;
		default:
			usage();
		}
	}
	if (options.dir == NULL || optind != argc) {
		usage();
	}
	if (options.generate) {
		bench_generate(&options);
		return 0;
	}
	if (!options.reuse) {
		bench_write(&options);
	}
	bench_read(&options);
	return 0;
}
