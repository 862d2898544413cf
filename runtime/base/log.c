#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"

#define TEXT_MAX   1000u
#define LINE_BYTES (TEXT_MAX * 4 + 160) /* every byte may become \xNN */

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};
static _Atomic int least = RT_LOG_INFO;
static void (*line_sink)(void *arg, const char *line);
static void *line_sink_arg;

void rt_log_set_level(enum rt_log_level level)
{
	atomic_store_explicit(&least, (int)level, memory_order_relaxed);
}

bool rt_log_enabled(enum rt_log_level level)
{
	return (int)level >= atomic_load_explicit(&least, memory_order_relaxed);
}

bool rt_log_level_parse(const char *name, enum rt_log_level *out)
{
	for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*out = (enum rt_log_level)i;
			return true;
		}
	}
	return false;
}

void rt_log_set_sink(void (*sink)(void *arg, const char *line), void *arg)
{
	line_sink = sink;
	line_sink_arg = arg;
}

/* Days since 1970 to a date: Howard Hinnant's civil_from_days, for dates after 1970. */
static int put_time(char *out, size_t room, uint64_t wall_ms)
{
	uint64_t seconds = wall_ms / 1000;
	uint64_t z = seconds / 86400 + 719468;
	uint64_t era = z / 146097;
	uint64_t doe = z - era * 146097;
	uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	uint64_t mp = (5 * doy + 2) / 153;
	unsigned day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
	unsigned month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
	unsigned year = (unsigned)(yoe + era * 400 + (month <= 2 ? 1 : 0));
	unsigned of_day = (unsigned)(seconds % 86400);
	return snprintf(out, room, "ts=%04u-%02u-%02uT%02u:%02u:%02u.%03uZ ", year, month, day,
		of_day / 3600, of_day / 60 % 60, of_day % 60, (unsigned)(wall_ms % 1000));
}

/* Length of the well-formed UTF-8 sequence at s, 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
	size_t n = s[0] < 0x80                   ? 1
		   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
		   : (s[0] & 0xf0) == 0xe0       ? 3
						 : 4;
	if (n == 4 && (s[0] < 0xf0 || s[0] > 0xf4)) {
		return 0;
	}
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
	bool outside = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
	bool control = n == 2 && s[0] == 0xc2 && s[1] < 0xa0;
	return overlong || outside || control ? 0 : n;
}

static char *put_escaped(char *out, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *s = (const unsigned char *)text;
	while (*s != '\0') {
		size_t n = utf8_length(s);
		if (*s == '"' || *s == '\\') {
			*out++ = '\\';
			*out++ = (char)*s++;
		} else if (*s == '\n') {
			*out++ = '\\';
			*out++ = 'n';
			s++;
		} else if (n == 0 || *s < 0x20 || *s == 0x7f) {
			*out++ = '\\';
			*out++ = 'x';
			*out++ = hex[*s >> 4];
			*out++ = hex[*s & 15];
			s++;
		} else {
			memcpy(out, s, n);
			out += n;
			s += n;
		}
	}
	return out;
}

void rt_log(enum rt_log_level level, const char *module, const char *fmt, ...)
{
	if (!rt_log_enabled(level) || (unsigned)level >= RT_LOG_OFF) {
		return;
	}
	char text[TEXT_MAX + 1];
	va_list args;
	va_start(args, fmt);
	int length = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (length < 0) {
		return;
	}
	if ((size_t)length > TEXT_MAX) {
		memcpy(text + TEXT_MAX - 3, "...", 4);
	}
	char line[LINE_BYTES];
	int used = put_time(line, sizeof(line), rt_clock_wall_ms());
	char *at = line + used;
	at += snprintf(at, 80, "level=%s module=%.32s msg=\"", level_names[level], module);
	at = put_escaped(at, text);
	memcpy(at, "\"\n", 3);
	if (line_sink != NULL) {
		line_sink(line_sink_arg, line);
		return;
	}
	/* Standard error is unbuffered and locked: one call is one write. */
	(void)fwrite(line, 1, (size_t)(at + 2 - line), stderr);
}
