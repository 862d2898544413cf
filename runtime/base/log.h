/*
 * log.h - one line per event on standard error, for operators.
 *
 *   ts=2026-01-31T12:00:00.123Z level=info module=store msg="opened /var/lib/troupe"
 *
 * Threads:  any; lines never mix.
 * Limits:   a line holds 1,000 bytes of text; longer text is cut and ends in "...".
 * Blocking: writes to standard error; a full pipe blocks. Never on the path of a command.
 *
 * Text may come from anywhere: control characters, quotes and bytes that are not UTF-8 leave
 * escaped, so nobody can forge a line.
 */
#ifndef RUNTIME_BASE_LOG_H
#define RUNTIME_BASE_LOG_H

#include <stdbool.h>

#include "runtime/base/annot.h"

enum rt_log_level {
	RT_LOG_DEBUG,
	RT_LOG_INFO,
	RT_LOG_WARN,
	RT_LOG_ERROR,
	RT_LOG_OFF
};

/* module: a word, e.g. "store"; fmt: a sentence for people, no newline. */
void rt_log(enum rt_log_level level, const char *module, const char *fmt, ...) RT_PRINTF(3, 4);

void rt_log_set_level(enum rt_log_level level); /* default: RT_LOG_INFO */
bool rt_log_enabled(enum rt_log_level level);   /* before text that is dear to make */
/* "debug", "info", "warn", "error", "off"; false: none of these, *out untouched. */
bool rt_log_level_parse(const char *name, enum rt_log_level *out);

/* Sends whole lines (with newline) elsewhere; NULL: back to standard error. Set before threads. */
void rt_log_set_sink(void (*sink)(void *arg, const char *line), void *arg);

#endif
