#include "cmd/troupe/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nearest.h"

#define DEFAULT_URL        "tcp://127.0.0.1:7470"
#define DEFAULT_TIMEOUT_MS 10000u
#define FLAGS_MAX          32u

enum kind {
	TEXT,
	NUMBER,
	SECONDS, /* with fractions, kept in milliseconds */
	EXPECT,
	SWITCH
};

struct flag {
	const char *name;
	enum kind kind;
	size_t at;
	uint32_t of; /* TR_FLAG_ bit of the commands that have it; 0: all */
	const char *value, *help;
};

#define AT(field) offsetof(struct tr_options, field)
static const struct flag flags[] = {
	{"url", TEXT, AT(url), TR_FLAG_CLIENT, "URL", "the node ($TROUPE_URL, or " DEFAULT_URL ")"},
	{"timeout", SECONDS, AT(timeout_ms), TR_FLAG_CLIENT, "SECONDS", "give up after (10)"},
	{"command-id", TEXT, AT(command_id), TR_FLAG_SEND, "ID",
		"any text of 1 to 64 bytes; a repeat with the same id gets the first answer"},
	{"expect", EXPECT, AT(expect), TR_FLAG_SEND, "SEQ",
		"sequence number the entity must be at, else conflict"},
	{"from", TEXT, AT(from), TR_FLAG_FROM, "FROM",
		"events: sequence number; feed: position, or \"end\" for new events only"},
	{"limit", NUMBER, AT(limit), TR_FLAG_LIMIT, "N", "stop after N events"},
	{"follow", SWITCH, AT(follow), TR_FLAG_FOLLOW, NULL,
		"go on with new events until interrupted"},
	{"at", NUMBER, AT(at), TR_FLAG_AT, "SEQ", "as it was after event SEQ"},
	{"type", TEXT, AT(type), TR_FLAG_FILTER, "T", "only events of this aggregate type"},
	{"tag", TEXT, AT(tag), TR_FLAG_FILTER, "T", "only events with this tag"},
	{"callers", NUMBER, AT(callers), TR_FLAG_BENCH, "N", "calls under way at a time (256)"},
	{"entities", NUMBER, AT(entities), TR_FLAG_BENCH, "N", "accounts (10000)"},
	{"seconds", NUMBER, AT(seconds), TR_FLAG_BENCH, "S", "how long (5)"},
	{"payload", NUMBER, AT(payload), TR_FLAG_BENCH, "BYTES", "of a command, 8 to 1000 (128)"},
	{"help", SWITCH, AT(help), 0, NULL, "print this, and end"},
};
#undef AT
#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

static bool belongs(const struct flag *flag, const struct tr_command *command)
{
	return flag->of == 0 || command == NULL || (command->flags & flag->of) != 0;
}

static const struct flag *find_flag(const char *name, size_t size, const struct tr_command *command)
{
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (strlen(flags[i].name) == size && memcmp(flags[i].name, name, size) == 0 &&
			belongs(&flags[i], command)) {
			return &flags[i];
		}
	}
	return NULL;
}

const struct tr_command *tr_command_find(const char *name)
{
	for (const struct tr_command *c = tr_commands; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0) {
			return c;
		}
	}
	return NULL;
}

static rt_err unknown_flag(
	const char *word, size_t size, const struct tr_command *command, struct rt_errinfo *info)
{
	const char *names[FLAG_COUNT + 1];
	size_t count = 0;
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (belongs(&flags[i], command)) {
			names[count++] = flags[i].name;
		}
	}
	names[count] = NULL;
	char name[72];
	snprintf(name, sizeof(name), "%.*s", (int)size, word + 2);
	const char *near = cmd_nearest(name, names);
	const char *of = command != NULL ? command->name : "troupe";
	if (near == NULL) {
		return rt_errinfo_set(info, RT_E_INVAL, "%s has no option --%s", of, name);
	}
	return rt_errinfo_set(
		info, RT_E_INVAL, "%s has no option --%s; did you mean --%s?", of, name, near);
}

static rt_err unknown_command(const char *word, struct rt_errinfo *info)
{
	const char *names[32];
	size_t count = 0;
	for (const struct tr_command *c = tr_commands; c->name != NULL && count < 30; c++) {
		names[count++] = c->name;
	}
	names[count++] = "help";
	names[count] = NULL;
	const char *near = cmd_nearest(word, names);
	if (near == NULL) {
		return rt_errinfo_set(info, RT_E_INVAL, "unknown command \"%.60s\"", word);
	}
	return rt_errinfo_set(
		info, RT_E_INVAL, "unknown command \"%.60s\"; did you mean %s?", word, near);
}

static rt_err not_a(const char *what, const char *value, struct rt_errinfo *info)
{
	return rt_errinfo_set(info, RT_E_INVAL, "expected %s, found \"%.60s\"", what, value);
}

static rt_err set_number(uint64_t *field, const char *value, struct rt_errinfo *info)
{
	char *end = NULL;
	errno = 0;
	uint64_t number = strtoull(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0) {
		return not_a("a number", value, info);
	}
	*field = number;
	return RT_OK;
}

static rt_err set_seconds(uint64_t *field_ms, const char *value, struct rt_errinfo *info)
{
	char *end = NULL;
	double seconds = strtod(value, &end);
	if (value[0] < '0' || value[0] > '9' || *end != '\0' || !(seconds > 0) || seconds > 600) {
		return not_a("seconds, more than 0 and at most 600", value, info);
	}
	*field_ms = (uint64_t)(seconds * 1000 + 0.5);
	*field_ms += *field_ms == 0 ? 1 : 0;
	return RT_OK;
}

static rt_err set_flag(struct tr_options *options, const struct flag *flag, const char *value,
	struct rt_errinfo *info)
{
	void *field = (char *)options + flag->at;
	uint64_t number = 0;
	rt_err err = RT_OK;
	switch (flag->kind) {
	case TEXT:
		*(const char **)field = value;
		break;
	case NUMBER:
		err = set_number(field, value, info);
		break;
	case SECONDS:
		err = set_seconds(field, value, info);
		break;
	case EXPECT:
		err = set_number(&number, value, info);
		if (err == RT_OK && number > INT64_MAX) {
			err = not_a("a sequence number", value, info);
		}
		if (err == RT_OK) {
			*(int64_t *)field = (int64_t)number;
		}
		break;
	case SWITCH:
		*(bool *)field = true;
		break;
	}
	return err == RT_OK ? err : rt_errinfo_wrap(info, err, "--%s", flag->name);
}

/* Reads the flag at argv[*at] and moves past it and its value. */
static rt_err take_flag(int argc, const char *const *argv, int *at, struct tr_options *options,
	struct rt_errinfo *info)
{
	const char *word = argv[(*at)++];
	size_t size = strcspn(word + 2, "=");
	const struct flag *flag = find_flag(word + 2, size, options->command);
	if (flag == NULL) {
		return unknown_flag(word, size, options->command, info);
	}
	const char *value = NULL;
	if (word[2 + size] == '=') {
		value = word + 2 + size + 1;
		if (flag->kind == SWITCH) {
			return rt_errinfo_set(info, RT_E_INVAL, "--%s takes no value", flag->name);
		}
	} else if (flag->kind != SWITCH) {
		if (*at == argc) {
			return rt_errinfo_set(info, RT_E_INVAL, "--%s: a value is missing (%s)",
				flag->name, flag->value);
		}
		value = argv[(*at)++];
	}
	return set_flag(options, flag, value, info);
}

static rt_err take_word(struct tr_options *options, const char *word, struct rt_errinfo *info)
{
	if (options->command == NULL) {
		options->command = tr_command_find(word);
		return options->command != NULL ? RT_OK : unknown_command(word, info);
	}
	if (options->word_count == options->command->words_max) {
		return rt_errinfo_set(info, RT_E_INVAL, "%s: unexpected word \"%.60s\"",
			options->command->name, word);
	}
	options->words[options->word_count++] = word;
	return RT_OK;
}

static rt_err check(const struct tr_options *options, struct rt_errinfo *info)
{
	const struct tr_command *command = options->command;
	if (options->help || command == NULL) {
		return RT_OK;
	}
	if (options->word_count < command->words_min) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "%s needs %s", command->name, command->words);
	}
	if (options->command_id != NULL &&
		(options->command_id[0] == '\0' || strlen(options->command_id) > 64)) {
		return rt_errinfo_set(info, RT_E_INVAL, "--command-id: 1 to 64 bytes");
	}
	return RT_OK;
}

/* The subcommand comes first; flags and words may mix after it. "--" ends the flags. */
rt_err tr_options_read(
	int argc, const char *const *argv, struct tr_options *out, struct rt_errinfo *info)
{
	const char *url = getenv("TROUPE_URL"); /* NOLINT(concurrency-mt-unsafe): before threads */
	*out = (struct tr_options){.url = url != NULL && url[0] != '\0' ? url : DEFAULT_URL,
		.timeout_ms = DEFAULT_TIMEOUT_MS,
		.expect = -1,
		.callers = 256,
		.entities = 10000,
		.seconds = 5,
		.payload = 128};
	bool only_words = false;
	rt_err err = RT_OK;
	for (int at = 1; err == RT_OK && at < argc;) {
		if (!only_words && strcmp(argv[at], "--") == 0) {
			only_words = true;
			at++;
		} else if (!only_words && strncmp(argv[at], "--", 2) == 0) {
			err = take_flag(argc, argv, &at, out, info);
		} else {
			err = take_word(out, argv[at++], info);
		}
	}
	return err == RT_OK ? check(out, info) : err;
}

void tr_help(FILE *to)
{
	fprintf(to, "Usage: troupe COMMAND [WORD]... [OPTION]...\n"
		    "Talks to a Troupe node.\n\n");
	for (const struct tr_command *c = tr_commands; c->name != NULL; c++) {
		char left[48];
		snprintf(left, sizeof(left), "%s %s", c->name, c->words);
		fprintf(to, "  %-36s %s\n", left, c->summary);
	}
	fprintf(to, "\n"
		    "troupe COMMAND --help says more. All that call a node take --url URL and "
		    "--timeout S.\n"
		    "Answers are JSON lines on standard output; messages go to standard error.\n"
		    "Ends with 0 done, 1 refused by the aggregate, 2 wrong usage or input, 3 "
		    "unavailable.\n");
}

void tr_command_help(const struct tr_command *command, FILE *to)
{
	fprintf(to, "Usage: troupe %s %s [OPTION]...\n%s.\n\n%s\n", command->name, command->words,
		command->summary, command->about);
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (belongs(&flags[i], command)) {
			char left[40];
			snprintf(left, sizeof(left), "--%s %s", flags[i].name,
				flags[i].value != NULL ? flags[i].value : "");
			fprintf(to, "  %-22s %s\n", left, flags[i].help);
		}
	}
}
