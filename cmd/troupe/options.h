/*
 * options.h - the words of a troupe command line: which subcommand, its words and its flags.
 *
 * Memory: borrows argv. Threads: one.
 */
#ifndef CMD_TROUPE_OPTIONS_H
#define CMD_TROUPE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/base/err.h"

#define TR_WORDS_MAX 3u

/* What the process ends with. */
enum tr_exit {
	TR_DONE = 0,
	TR_REFUSED = 1, /* by the aggregate, a conflict, or a store that verify finds damaged */
	TR_USAGE = 2,
	TR_UNAVAILABLE = 3
};

struct tr_command;

struct tr_options {
	const struct tr_command *command; /* NULL: none was given */
	const char *words[TR_WORDS_MAX];
	uint64_t word_count;
	bool help;

	const char *url;
	uint64_t timeout_ms;
	const char *command_id; /* NULL: one is made */
	int64_t expect;         /* -1: any */
	const char *from, *type, *tag;
	uint64_t limit, at; /* 0: not given */
	bool follow;
	uint64_t callers, entities, seconds, payload;
};

struct tr_command {
	const char *name, *words, *summary;
	const char *about; /* the longer help */
	uint64_t words_min, words_max;
	uint32_t flags; /* TR_FLAG_ bits */
	enum tr_exit (*run)(const struct tr_options *options);
};

#define TR_FLAG_CLIENT 0x01u /* --url --timeout */
#define TR_FLAG_SEND   0x02u /* --command-id --expect */
#define TR_FLAG_FROM   0x04u
#define TR_FLAG_LIMIT  0x08u
#define TR_FLAG_FOLLOW 0x10u
#define TR_FLAG_AT     0x20u
#define TR_FLAG_FILTER 0x40u /* --type --tag */
#define TR_FLAG_BENCH  0x80u

/* The subcommands, ended by one without a name. */
extern const struct tr_command tr_commands[];
const struct tr_command *tr_command_find(const char *name);

/* RT_E_INVAL: info->text says what is wrong and what was probably meant. */
RT_NODISCARD rt_err tr_options_read(
	int argc, const char *const *argv, struct tr_options *out, struct rt_errinfo *info);

void tr_help(FILE *to);
void tr_command_help(const struct tr_command *command, FILE *to);

#endif
