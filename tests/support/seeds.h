/*
 * seeds.h - the command line of a simulator: seeds run in processes of their own, and the trace of
 * one that fails.
 *
 *   PROGRAM [-s first] [-n seeds] [-j jobs] [-f file] [-t seconds] [-v] [-k] [-d] [-p seconds] [-l
 * n]
 *
 *   -s -n  seeds first..first+n-1        -f  those of a file too, one a line, # is a comment
 *   -v     one line per event            -t  seconds of the trace that a failure prints, 3
 *   -k     go on after a failed seed     -d  a hash of the whole trace of each seed
 *   -j     processes                     -p  a line of progress every so many seconds
 *   -l     every seed leans the n-th way, from 1, if the program has several
 *
 * Each job is a process that takes the next seed. A seed that fails, by a check or by a signal, is
 * run again with its trace.
 */
#ifndef TESTS_SUPPORT_SEEDS_H
#define TESTS_SUPPORT_SEEDS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/base/annot.h"

#define SEEDS_RING     (8u * 1024u * 1024u)
#define SEEDS_STATS    64u
#define SEEDS_US(n)    ((uint64_t)(n)*UINT64_C(1000000))
#define SEEDS_EXIT_BAD 3

struct seeds_trace {
	bool on;     /* format lines at all */
	bool print;  /* to stdout */
	bool digest; /* into hash */
	uint64_t hash;
	char failure[512];
	/* The last lines, each ended by a newline; a ring. */
	uint64_t end;
	char ring[];
};

struct seeds_program {
	/* Counters that a run adds to, in the order of their names; the first counts seeds. */
	const char *const *stats;
	uint32_t stat_count;
	/* Returns when all is well; else it ends the process (seeds_failed). */
	void (*run)(uint64_t seed, uint32_t leaning, uint64_t *stats, struct seeds_trace *trace);
};

/* Exit code: 0 all good, 1 something failed, 2 usage. */
int seeds_main(int argc, char **argv, const struct seeds_program *program);

/* A line with its time in microseconds in front. Only when trace->on. */
void seeds_line(struct seeds_trace *trace, uint64_t now_us, const char *format, va_list args)
	RT_PRINTF(3, 0);
/* The seed failed; ends the process. */
RT_NORETURN void seeds_failed(struct seeds_trace *trace, uint64_t seed, const char *shape,
	uint64_t now_us, const char *text);

#endif
