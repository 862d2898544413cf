/* store.h - what the parts of bench/store share: its options, its made-up records, its output. */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "persistence/record.h"
#include "persistence/store.h"

struct options {
	const char *dir; /* where the stores go; generate: the store */
	uint64_t entities, events;
	uint32_t group;
	bool generate, keep, reuse;
};

_Noreturn void bench_fail(const char *what, const char *why);
void bench_check(const char *what, rt_err err, const struct rt_errinfo *info);
/* aim: NULL for none. */
void bench_print(const char *bench, double value, const char *unit, const char *aim);

/* The i-th event of the whole run: entity i mod entities, in an order that looks like chance;
 * 128 bytes of payload, half of them random. Returns the record's size. */
#define BENCH_RECORD_MAX 512u
struct bench_record {
	uint32_t shard;
	uint64_t entity;
	struct rt_bytes pid; /* of a buffer inside */
	char pid_text[32];
	uint8_t bytes[BENCH_RECORD_MAX];
	size_t size;
};
#define BENCH_SHARDS 64u
void bench_record_make(
	struct bench_record *out, const struct options *options, uint64_t i, uint64_t *seed);
void bench_pid(struct bench_record *out, uint64_t entity);

/* The write side: raw appends, then the store. Leaves a closed store in dir with every record. */
void bench_write(const struct options *options);
/* The read side of that store. */
void bench_read(const struct options *options);
/* A store of valid account events, in bulk. */
void bench_generate(const struct options *options);

#endif
