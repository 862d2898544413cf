#include "cmd/troupe/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nearest.h"

#define DEFAULT_URL        "tcp://127.0.0.1:7470"
#define DEFAULT_TIMEOUT_MS 10000u
#define NAMES_MAX          32u
#define NAME_ROOM          32u

enum kind {
	TEXT,
	NUMBER,
	SECONDS, /* with fractions, kept in milliseconds */
	EXPECT,
	POSITION, /* SHARD:OFFSET or OFFSET */
	PORT,
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
	{"url", TEXT, AT(url), TR_FLAG_CLIENT, "URL,...",
		"the node, or some of a cluster ($TROUPE_URL, or " DEFAULT_URL ")"},
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
	{"stale", SWITCH, AT(stale), TR_FLAG_READ, NULL,
		"from the node that is asked, which may be behind"},
	{"after", POSITION, AT(after), TR_FLAG_READ, "[SHARD:]OFFSET",
		"include what stands there, as send printed it; wait for it if need be"},
	{"at", NUMBER, AT(at), TR_FLAG_AT, "SEQ", "as it was after event SEQ"},
	{"type", TEXT, AT(type), TR_FLAG_FILTER, "T", "only events of this aggregate type"},
	{"tag", TEXT, AT(tag), TR_FLAG_FILTER, "T", "only events with this tag"},
	{"callers", NUMBER, AT(callers), TR_FLAG_BENCH, "N", "calls under way at a time (256)"},
	{"entities", NUMBER, AT(entities), TR_FLAG_BENCH, "N", "accounts (10000)"},
	{"seconds", NUMBER, AT(seconds), TR_FLAG_BENCH, "S", "how long (5)"},
	{"payload", NUMBER, AT(payload), TR_FLAG_BENCH, "BYTES", "of a command, 8 to 1000 (128)"},
	{"watch", SWITCH, AT(watch), TR_FLAG_STATUS, NULL, "again every second until interrupted"},
	{"shards", SWITCH, AT(shards), TR_FLAG_STATUS, NULL, "a line for each shard as well"},
	{"json", SWITCH, AT(json), TR_FLAG_JSON, NULL, "as JSON, for programs"},
	{"cancel", SWITCH, AT(cancel), TR_FLAG_DRAIN, NULL, "let it stay"},
	{"wait", SWITCH, AT(wait), TR_FLAG_DRAIN, NULL, "say how far it is until it has left"},
	{"replication", NUMBER, AT(replication), TR_FLAG_CONFIGURE, "N",
		"nodes that hold each shard, 1 to 5"},
	{"moves-max", NUMBER, AT(moves_max), TR_FLAG_CONFIGURE, "N",
		"shards that change nodes at the same time"},
	{"dead-after", NUMBER, AT(dead_after_s), TR_FLAG_CONFIGURE, "SECONDS",
		"a node unheard so long is replaced"},
	{"dir", TEXT, AT(dir), TR_FLAG_UP, "DIR", "data and logs of all nodes (./cluster)"},
	{"base-port", PORT, AT(base_port), TR_FLAG_UP, "PORT",
		"the first of two ports for each node (free ones from 7470)"},
	{"trouped", TEXT, AT(trouped), TR_FLAG_UP, "PATH", "the daemon (the one beside troupe)"},
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

/* "cluster status" is of the group "cluster". */
static bool is_of_group(const struct tr_command *command, const char *group)
{
	size_t size = strlen(group);
	return strncmp(command->name, group, size) == 0 && command->name[size] == ' ';
}

bool tr_command_is_group(const char *word)
{
	for (const struct tr_command *c = tr_commands; c->name != NULL; c++) {
		if (is_of_group(c, word)) {
			return true;
		}
	}
	return false;
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

/* The words that may stand there, a group's name once. */
static void list_words(const char *group, char (*words)[NAME_ROOM], const char **names)
{
	size_t count = 0;
	for (const struct tr_command *c = tr_commands; c->name != NULL && count < NAMES_MAX; c++) {
		if (group != NULL && !is_of_group(c, group)) {
			continue;
		}
		const char *word = group != NULL ? c->name + strlen(group) + 1 : c->name;
		snprintf(words[count], NAME_ROOM, "%.*s", (int)strcspn(word, " "), word);
		names[count] = words[count];
		count++;
	}
	names[count] = NULL;
}

static rt_err unknown_command(const char *group, const char *word, struct rt_errinfo *info)
{
	char words[NAMES_MAX][NAME_ROOM];
	const char *names[NAMES_MAX + 1];
	list_words(group, words, names);
	const char *near = cmd_nearest(word, names);
	const char *before = group != NULL ? group : "", *blank = group != NULL ? " " : "";
	if (near == NULL) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "unknown command \"%s%s%.60s\"", before, blank, word);
	}
	return rt_errinfo_set(info, RT_E_INVAL,
		"unknown command \"%s%s%.60s\"; did you mean %s%s%s?", before, blank, word, before,
		blank, near);
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

static rt_err set_position(struct tr_after *field, const char *value, struct rt_errinfo *info)
{
	const char *colon = strchr(value, ':');
	char shard[24] = "0";
	uint64_t number = 0;
	if (colon != NULL) {
		snprintf(shard, sizeof(shard), "%.*s", (int)(colon - value), value);
	}
	if (set_number(&number, shard, NULL) != RT_OK || number > UINT32_MAX ||
		(colon != NULL && colon - value >= (ptrdiff_t)sizeof(shard)) ||
		set_number(&field->offset, colon != NULL ? colon + 1 : value, NULL) != RT_OK ||
		field->offset == 0) {
		return not_a("SHARD:OFFSET or OFFSET", value, info);
	}
	field->shard = colon != NULL ? (int64_t)number : -1;
	return RT_OK;
}

static rt_err set_port(uint64_t *field, const char *value, struct rt_errinfo *info)
{
	uint64_t number = 0;
	if (set_number(&number, value, NULL) != RT_OK || number == 0 || number > 65535) {
		return not_a("a port", value, info);
	}
	*field = number;
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
	case POSITION:
		err = set_position(field, value, info);
		break;
	case PORT:
		err = set_port(field, value, info);
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

/* The word, or two of them, that name the command. */
static rt_err take_command(struct tr_options *options, const char *word, struct rt_errinfo *info)
{
	char name[2 * NAME_ROOM];
	if (options->group == NULL && tr_command_is_group(word)) {
		options->group = word;
		return RT_OK;
	}
	int size =
		snprintf(name, sizeof(name), "%s%s%s", options->group != NULL ? options->group : "",
			options->group != NULL ? " " : "", word);
	options->command = size < (int)sizeof(name) ? tr_command_find(name) : NULL;
	return options->command != NULL ? RT_OK : unknown_command(options->group, word, info);
}

static rt_err take_word(struct tr_options *options, const char *word, struct rt_errinfo *info)
{
	if (options->command == NULL) {
		return take_command(options, word, info);
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
	if (options->help || (command == NULL && options->group == NULL)) {
		return RT_OK;
	}
	if (command == NULL) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "%s what? It takes one more word", options->group);
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

/* Behind "--" all is words, or for a command that hands them on its rest. */
static bool take_rest(int argc, const char *const *argv, int at, struct tr_options *out)
{
	if (out->command == NULL || (out->command->flags & TR_FLAG_UP) == 0) {
		return false;
	}
	out->rest = argv + at;
	out->rest_count = (uint64_t)(argc - at);
	return true;
}

/* The subcommand comes first; flags and words may mix after it. "--" ends the flags. */
rt_err tr_options_read(
	int argc, const char *const *argv, struct tr_options *out, struct rt_errinfo *info)
{
	const char *url = getenv("TROUPE_URL"); /* NOLINT(concurrency-mt-unsafe): before threads */
	*out = (struct tr_options){.url = url != NULL && url[0] != '\0' ? url : DEFAULT_URL,
		.timeout_ms = DEFAULT_TIMEOUT_MS,
		.expect = -1,
		.after = {.shard = -1},
		.callers = 256,
		.entities = 10000,
		.seconds = 5,
		.payload = 128};
	bool only_words = false;
	rt_err err = RT_OK;
	for (int at = 1; err == RT_OK && at < argc;) {
		if (!only_words && strcmp(argv[at], "--") == 0) {
			only_words = true;
			at = take_rest(argc, argv, at + 1, out) ? argc : at + 1;
		} else if (!only_words && strncmp(argv[at], "--", 2) == 0) {
			err = take_flag(argc, argv, &at, out, info);
		} else {
			err = take_word(out, argv[at++], info);
		}
	}
	return err == RT_OK ? check(out, info) : err;
}

static void print_summary(const struct tr_command *command, FILE *to)
{
	char left[48];
	snprintf(left, sizeof(left), "%s %s", command->name, command->words);
	fprintf(to, "  %-36s %s\n", left, command->summary);
}

void tr_help(FILE *to)
{
	fprintf(to, "Usage: troupe COMMAND [WORD]... [OPTION]...\n"
		    "Talks to a Troupe node or cluster.\n\n");
	for (const struct tr_command *c = tr_commands; c->name != NULL; c++) {
		print_summary(c, to);
	}
	fprintf(to, "\n"
		    "troupe COMMAND --help says more. All that call a node take --url URL and "
		    "--timeout S.\n"
		    "Answers are JSON lines on standard output; messages go to standard error.\n"
		    "Ends with 0 done, 1 refused by the aggregate, 2 wrong usage or input, 3 "
		    "unavailable.\n");
}

void tr_group_help(const char *group, FILE *to)
{
	fprintf(to, "Usage: troupe %s COMMAND [WORD]... [OPTION]...\n\n", group);
	for (const struct tr_command *c = tr_commands; c->name != NULL; c++) {
		if (is_of_group(c, group)) {
			print_summary(c, to);
		}
	}
	fprintf(to, "\ntroupe %s COMMAND --help says more.\n", group);
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
