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

/* A position that a read must include. */
struct tr_after {
	uint64_t offset; /* 0: none */
	int64_t shard;   /* -1: the entity's, whichever that is */
};

struct tr_options {
	const struct tr_command *command; /* NULL: none was given */
	const char *group;                /* its first word when it has two, else NULL */
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
	bool stale;
	struct tr_after after;
	uint64_t callers, entities, seconds, payload;

	/* Of the cluster's commands. */
	bool watch, shards, json, cancel, wait;
	uint64_t replication, moves_max, dead_after_s; /* 0: not given */
	const char *dir, *trouped;                     /* NULL: not given */
	uint64_t base_port;                            /* 0: free ones */
	const char *const *rest;                       /* behind "--" */
	uint64_t rest_count;
};

struct tr_command {
	const char *name; /* one word, or two with a blank between */
	const char *words, *summary;
	const char *about; /* the longer help */
	uint64_t words_min, words_max;
	uint32_t flags; /* TR_FLAG_ bits */
	enum tr_exit (*run)(const struct tr_options *options);
};

#define TR_FLAG_CLIENT    0x01u /* --url --timeout */
#define TR_FLAG_SEND      0x02u /* --command-id --expect */
#define TR_FLAG_FROM      0x04u
#define TR_FLAG_LIMIT     0x08u
#define TR_FLAG_FOLLOW    0x10u
#define TR_FLAG_AT        0x20u
#define TR_FLAG_FILTER    0x40u /* --type --tag */
#define TR_FLAG_BENCH     0x80u
#define TR_FLAG_READ      0x100u /* --stale --after */
#define TR_FLAG_STATUS    0x200u /* --watch --shards */
#define TR_FLAG_JSON      0x400u
#define TR_FLAG_DRAIN     0x800u  /* --cancel --wait */
#define TR_FLAG_CONFIGURE 0x1000u /* --replication --moves-max --dead-after */
#define TR_FLAG_UP        0x2000u /* --dir --base-port --trouped, and words behind "--" */

/* The subcommands, ended by one without a name. */
extern const struct tr_command tr_commands[];
const struct tr_command *tr_command_find(const char *name);
bool tr_command_is_group(const char *word); /* the first word of some with two */

/* RT_E_INVAL: info->text says what is wrong and what was probably meant. */
RT_NODISCARD rt_err tr_options_read(
	int argc, const char *const *argv, struct tr_options *out, struct rt_errinfo *info);

void tr_help(FILE *to);
void tr_group_help(const char *group, FILE *to); /* the commands with that first word */
void tr_command_help(const struct tr_command *command, FILE *to);

#endif
