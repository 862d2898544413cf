#include "cmd/trouped/config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nearest.h"
#include "cmd/trouped/address.h"
#include "runtime/base/assert.h"

#define FILE_MAX (256u * 1024u)

enum kind {
	TEXT,
	LIST,
	COMMAS, /* a list, and each value holds one or more items */
	NUMBER,
	BYTES,
	YES_NO,
	LEVEL,
	SWITCH /* yes or no in the file, without a value on the command line */
};

struct setting {
	const char *name;
	enum kind kind;
	bool flag_only;
	size_t at;
	uint64_t min, max;
	const char *value, *help;
};

#define AT(field) offsetof(struct td_config, field)
static const struct setting settings[] = {
	{"data", TEXT, false, AT(data), 0, 0, "DIR", "where the store is (./troupe-data)"},
	{"rpc", LIST, false, AT(rpc), 0, 0, "URL",
		"where clients call: tcp, ws or ipc URL (tcp://127.0.0.1:7470); repeat for more"},
	{"module", LIST, false, AT(modules), 0, 0, "FILE",
		"shared object with aggregates, loaded at start; repeat for more"},
	{"workers", NUMBER, false, AT(workers), 0, 256, "N", "worker threads (0: cores - 1)"},
	{"shards", NUMBER, false, AT(shards), 0, 4096, "N",
		"shards of a new cluster, fixed for its life (0: 64)"},
	{"memory", BYTES, false, AT(memory_bytes), 0, UINT64_MAX, "BYTES",
		"budget of all entities in memory, with K, M or G (256M)"},
	{"passivate", NUMBER, false, AT(passivate_s), 0, 4000000, "SECONDS",
		"an entity idle that long leaves memory (120)"},
	{"snapshot-every", NUMBER, false, AT(snapshot_every), 0, 1000000, "N",
		"events of an entity between snapshots (50)"},
	{"create", YES_NO, false, AT(create), 0, 0, "yes|no",
		"make the store when there is none (yes)"},
	{"join", COMMAS, false, AT(join), 0, 0, "URL,...",
		"be a node of the cluster whose members serve clients there; repeat for more"},
	{"name", TEXT, false, AT(name), 0, 0, "NAME", "what people call this node"},
	{"cluster", TEXT, false, AT(cluster), 0, 0, "URL",
		"where other nodes call: tcp or ipc URL (rpc's host, its port + 1)"},
	{"advertise-rpc", TEXT, false, AT(advertise_rpc), 0, 0, "URL",
		"what clients are told to call (what was bound)"},
	{"advertise-cluster", TEXT, false, AT(advertise_cluster), 0, 0, "URL",
		"what other nodes are told to call (what was bound)"},
	{"replication", NUMBER, false, AT(replication), 1, 5, "N",
		"nodes that hold each shard of a new cluster (3)"},
	{"election-ms", NUMBER, false, AT(election_ms), 10, 60000, "MS",
		"a leader unheard so long is replaced; the same on all nodes (1000)"},
	{"heartbeat-ms", NUMBER, false, AT(heartbeat_ms), 1, 30000, "MS",
		"between two signs of life of a leader (100)"},
	{"dead-after", NUMBER, false, AT(dead_after_s), 1, 86400, "SECONDS",
		"a node of a new cluster unheard so long is replaced (60)"},
	{"log-level", LEVEL, false, AT(log_level), 0, 0, "LEVEL",
		"debug, info, warn, error or off (info)"},
	{"insecure-listen-anywhere", SWITCH, false, AT(listen_anywhere), 0, 0, NULL,
		"allow addresses that other machines reach; there is no authentication yet"},
	{"config", TEXT, true, AT(file), 0, 0, "FILE", "read settings from a file; flags win"},
	{"print-config", SWITCH, true, AT(print_config), 0, 0, NULL,
		"print the settings as a file, and end"},
	{"help", SWITCH, true, AT(help), 0, 0, NULL, "print this, and end"},
	{"version", SWITCH, true, AT(version), 0, 0, NULL, "print the version, and end"},
};
#undef AT
#define SETTING_COUNT (sizeof(settings) / sizeof(settings[0]))

static const struct setting *find(const char *name, size_t size)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (strlen(settings[i].name) == size && memcmp(settings[i].name, name, size) == 0) {
			return &settings[i];
		}
	}
	return NULL;
}

/* ", did you mean ...?" or nothing. */
static void suggest(const char *name, bool in_file, char *out, size_t room)
{
	const char *names[SETTING_COUNT + 1];
	size_t count = 0;
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (!in_file || !settings[i].flag_only) {
			names[count++] = settings[i].name;
		}
	}
	names[count] = NULL;
	const char *near = cmd_nearest(name, names);
	out[0] = '\0';
	if (near != NULL) {
		snprintf(out, room, "; did you mean %s%s?", in_file ? "" : "--", near);
	}
}

static rt_err set_text(char **field, const char *value, struct rt_errinfo *info)
{
	char *copy = strdup(value);
	if (copy == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	free(*field);
	*field = copy;
	return RT_OK;
}

static void list_clear(struct td_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i]);
		list->items[i] = NULL;
	}
	list->count = 0;
}

static rt_err list_add(struct td_list *list, const char *value, struct rt_errinfo *info)
{
	if (list->count == TD_LIST_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "at most %u of them", TD_LIST_MAX);
	}
	rt_err err = set_text(&list->items[list->count], value, info);
	list->count += err == RT_OK ? 1 : 0;
	return err;
}

static rt_err list_add_all(struct td_list *list, const char *value, struct rt_errinfo *info)
{
	rt_err err = RT_OK;
	for (const char *item = value; err == RT_OK && item != NULL;) {
		size_t size = strcspn(item, ",");
		char *copy = strndup(item, size);
		err = copy == NULL || size == 0
			      ? rt_errinfo_set(info, RT_E_INVAL, "\"%s\" has an empty item", value)
			      : list_add(list, copy, info);
		free(copy);
		item = item[size] == ',' ? item + size + 1 : NULL;
	}
	return err;
}

/* Digits, then K, M or G when units are allowed. */
static rt_err set_number(
	const struct setting *setting, uint64_t *field, const char *value, struct rt_errinfo *info)
{
	char *end = NULL;
	errno = 0;
	uint64_t number = strtoull(value, &end, 10);
	unsigned shift = 0;
	if (setting->kind == BYTES && *end != '\0') {
		shift = *end == 'K' || *end == 'k'   ? 10
			: *end == 'M' || *end == 'm' ? 20
			: *end == 'G' || *end == 'g' ? 30
						     : 0;
		end += shift > 0 ? 1 : 0;
	}
	if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0) {
		return rt_errinfo_set(info, RT_E_INVAL, "expected %s, found \"%s\"",
			setting->kind == BYTES ? "bytes such as 256M" : "a number", value);
	}
	if (number > setting->max >> shift) {
		return rt_errinfo_set(info, RT_E_INVAL, "%s is too large; at most %llu", value,
			(unsigned long long)setting->max);
	}
	if (number < setting->min) {
		return rt_errinfo_set(info, RT_E_INVAL, "%s is too small; at least %llu", value,
			(unsigned long long)setting->min);
	}
	*field = number << shift;
	return RT_OK;
}

static rt_err set_yes_no(bool *field, const char *value, struct rt_errinfo *info)
{
	bool yes = strcmp(value, "yes") == 0;
	if (!yes && strcmp(value, "no") != 0) {
		return rt_errinfo_set(info, RT_E_INVAL, "expected yes or no, found \"%s\"", value);
	}
	*field = yes;
	return RT_OK;
}

static rt_err apply(struct td_config *config, const struct setting *setting, const char *value,
	struct rt_errinfo *info)
{
	void *field = (char *)config + setting->at;
	if (value[0] == '\0') {
		return rt_errinfo_set(info, RT_E_INVAL, "a value is missing");
	}
	switch (setting->kind) {
	case TEXT:
		return set_text(field, value, info);
	case LIST:
		return list_add(field, value, info);
	case COMMAS:
		return list_add_all(field, value, info);
	case NUMBER:
	case BYTES:
		return set_number(setting, field, value, info);
	case YES_NO:
	case SWITCH:
		return set_yes_no(field, value, info);
	case LEVEL:
		break;
	}
	if (!rt_log_level_parse(value, field)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"expected debug, info, warn, error or off, found \"%s\"", value);
	}
	return RT_OK;
}

/* ---- flags ---- */

struct flag {
	const struct setting *setting;
	const char *value;
};

/* Reads the flag at argv[*at] and moves on. */
static rt_err next_flag(
	int argc, const char *const *argv, int *at, struct flag *out, struct rt_errinfo *info)
{
	const char *word = argv[(*at)++];
	if (strncmp(word, "--", 2) != 0) {
		return rt_errinfo_set(info, RT_E_INVAL, "unexpected word \"%s\"", word);
	}
	size_t size = strcspn(word + 2, "=");
	out->setting = find(word + 2, size);
	if (out->setting == NULL) {
		char hint[80];
		char name[72];
		snprintf(name, sizeof(name), "%.*s", (int)size, word + 2);
		suggest(name, false, hint, sizeof(hint));
		return rt_errinfo_set(info, RT_E_INVAL, "unknown option %s%s", word, hint);
	}
	if (word[2 + size] == '=') {
		out->value = word + 2 + size + 1;
	} else if (out->setting->kind == SWITCH) {
		out->value = "yes";
	} else if (*at < argc) {
		out->value = argv[(*at)++];
	} else {
		return rt_errinfo_set(info, RT_E_INVAL, "--%s: a value is missing (%s)",
			out->setting->name, out->setting->value);
	}
	return RT_OK;
}

static bool is_list(const struct setting *setting)
{
	return setting->kind == LIST || setting->kind == COMMAS;
}

static rt_err apply_flags(
	int argc, const char *const *argv, struct td_config *config, struct rt_errinfo *info)
{
	bool seen[SETTING_COUNT] = {false};
	for (int at = 1; at < argc;) {
		struct flag flag;
		rt_err err = next_flag(argc, argv, &at, &flag, info);
		if (err != RT_OK) {
			return err;
		}
		size_t index = (size_t)(flag.setting - settings);
		if (!seen[index] && is_list(flag.setting)) {
			list_clear((struct td_list *)(void *)((char *)config + flag.setting->at));
		}
		seen[index] = true;
		err = apply(config, flag.setting, flag.value, info);
		if (err != RT_OK) {
			return rt_errinfo_wrap(info, err, "--%s", flag.setting->name);
		}
	}
	return RT_OK;
}

/* ---- the file ---- */

static char *trimmed(char *text)
{
	text += strspn(text, " \t\r");
	size_t size = strlen(text);
	while (size > 0 && strchr(" \t\r", text[size - 1]) != NULL) {
		text[--size] = '\0';
	}
	return text;
}

static rt_err apply_line(struct td_config *config, char *line, struct rt_errinfo *info)
{
	line = trimmed(line);
	if (line[0] == '\0' || line[0] == '#') {
		return RT_OK;
	}
	char *equals = strchr(line, '=');
	if (equals == NULL) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "expected key = value, found \"%.60s\"", line);
	}
	*equals = '\0';
	const char *name = trimmed(line);
	const struct setting *setting = find(name, strlen(name));
	if (setting == NULL || setting->flag_only) {
		char hint[80];
		suggest(name, true, hint, sizeof(hint));
		return rt_errinfo_set(info, RT_E_INVAL, "unknown key \"%.60s\"%s", name, hint);
	}
	rt_err err = apply(config, setting, trimmed(equals + 1), info);
	return err == RT_OK ? err : rt_errinfo_wrap(info, err, "%s", setting->name);
}

static rt_err read_file(const char *path, char **out, struct rt_errinfo *info)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL) {
		return rt_errinfo_set(info, RT_E_IO, "%s: %m", path);
	}
	char *text = malloc(FILE_MAX + 1);
	size_t size = text != NULL ? fread(text, 1, FILE_MAX + 1, file) : 0;
	bool failed = ferror(file) != 0;
	fclose(file);
	if (text == NULL || failed || size > FILE_MAX || memchr(text, '\0', size) != NULL) {
		free(text);
		return rt_errinfo_set(info, RT_E_IO, "%s: %s", path,
			size > FILE_MAX ? "too large" : "cannot be read as text");
	}
	text[size] = '\0';
	*out = text;
	return RT_OK;
}

static rt_err apply_file(struct td_config *config, const char *path, struct rt_errinfo *info)
{
	char *text = NULL;
	rt_err err = read_file(path, &text, info);
	unsigned number = 1;
	for (char *line = text; err == RT_OK && line != NULL; number++) {
		char *next = strchr(line, '\n');
		if (next != NULL) {
			*next++ = '\0';
		}
		err = apply_line(config, line, info);
		if (err != RT_OK) {
			err = rt_errinfo_wrap(info, err, "%s:%u", path, number);
		}
		line = next;
	}
	free(text);
	return err;
}

/* ---- all of it ---- */

static void default_to(uint64_t *field, uint64_t value)
{
	*field = *field == 0 ? value : *field;
}

static rt_err apply_defaults(struct td_config *config, struct rt_errinfo *info)
{
	rt_err err = RT_OK;
	default_to(&config->memory_bytes, 256u << 20);
	default_to(&config->passivate_s, 120);
	default_to(&config->snapshot_every, 50);
	default_to(&config->replication, 3);
	default_to(&config->election_ms, 1000);
	default_to(&config->heartbeat_ms, 100);
	default_to(&config->dead_after_s, 60);
	if (config->data == NULL) {
		err = set_text(&config->data, "./troupe-data", info);
	}
	if (err == RT_OK && config->rpc.count == 0) {
		err = list_add(&config->rpc, "tcp://127.0.0.1:7470", info);
	}
	return err == RT_OK ? td_address_derive(config, info) : err;
}

/* A leader must be heard twice before its followers give it up. */
static rt_err check_timing(const struct td_config *config, struct rt_errinfo *info)
{
	if (config->heartbeat_ms * 2 >= config->election_ms) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"heartbeat-ms: %llu is too slow for election-ms %llu; less than half of it",
			(unsigned long long)config->heartbeat_ms,
			(unsigned long long)config->election_ms);
	}
	return RT_OK;
}

#define NAME_MAX_BYTES 64u

/* People say a node's name or its number in the same places, so a name is no number. */
static rt_err check_name(const char *name, struct rt_errinfo *info)
{
	bool digits = true;
	size_t size = 0;
	for (; name != NULL && name[size] != '\0'; size++) {
		char c = name[size];
		bool digit = c >= '0' && c <= '9';
		digits = digits && digit;
		if (!digit && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
			strchr("._-", c) == NULL) {
			return rt_errinfo_set(info, RT_E_INVAL,
				"name: letters, digits, dots, dashes and underscores only, found "
				"\"%.80s\"",
				name);
		}
	}
	if (name != NULL && (digits || size > NAME_MAX_BYTES)) {
		return rt_errinfo_set(info, RT_E_INVAL, "name: %s, found \"%.80s\"",
			digits ? "not a number" : "at most 64 bytes", name);
	}
	return RT_OK;
}

static rt_err check(const struct td_config *config, struct rt_errinfo *info)
{
	rt_err err = check_timing(config, info);
	if (err == RT_OK) {
		err = check_name(config->name, info);
	}
	return err == RT_OK ? td_address_check(config, info) : err;
}

/* The file's name must be known before the file is read, and its settings before the flags'. */
static rt_err find_file(
	int argc, const char *const *argv, struct td_config *config, struct rt_errinfo *info)
{
	for (int at = 1; at < argc;) {
		struct flag flag;
		rt_err err = next_flag(argc, argv, &at, &flag, info);
		if (err == RT_OK && strcmp(flag.setting->name, "config") == 0) {
			err = apply(config, flag.setting, flag.value, info);
		}
		if (err != RT_OK) {
			return err;
		}
	}
	return RT_OK;
}

rt_err td_config_read(
	int argc, const char *const *argv, struct td_config *out, struct rt_errinfo *info)
{
	*out = (struct td_config){.create = true, .log_level = RT_LOG_INFO};
	rt_err err = find_file(argc, argv, out, info);
	if (err == RT_OK && out->file != NULL) {
		char *path = out->file;
		out->file = NULL;
		err = apply_file(out, path, info);
		free(path);
	}
	if (err == RT_OK) {
		err = apply_flags(argc, argv, out, info);
	}
	if (err == RT_OK) {
		err = apply_defaults(out, info);
	}
	return err == RT_OK ? check(out, info) : err;
}

void td_config_done(struct td_config *config)
{
	free(config->data);
	free(config->file);
	free(config->cluster);
	free(config->advertise_rpc);
	free(config->advertise_cluster);
	free(config->name);
	list_clear(&config->rpc);
	list_clear(&config->join);
	list_clear(&config->modules);
	*config = (struct td_config){0};
}

static void print_text(const struct setting *setting, const char *text, FILE *to)
{
	fprintf(to, "%s%s = %s\n", text == NULL ? "# " : "", setting->name,
		text == NULL ? setting->value : text);
}

static void print_value(const struct setting *setting, const void *field, FILE *to)
{
	static const char *const levels[] = {"debug", "info", "warn", "error", "off"};
	const struct td_list *list = field;
	switch (setting->kind) {
	case TEXT:
		print_text(setting, *(char *const *)field, to);
		break;
	case LIST:
	case COMMAS:
		for (size_t i = 0; i < list->count; i++) {
			fprintf(to, "%s = %s\n", setting->name, list->items[i]);
		}
		if (list->count == 0) {
			print_text(setting, NULL, to);
		}
		break;
	case NUMBER:
	case BYTES:
		fprintf(to, "%s = %llu\n", setting->name,
			(unsigned long long)*(const uint64_t *)field);
		break;
	case YES_NO:
	case SWITCH:
		fprintf(to, "%s = %s\n", setting->name, *(const bool *)field ? "yes" : "no");
		break;
	case LEVEL:
		fprintf(to, "%s = %s\n", setting->name, levels[*(const enum rt_log_level *)field]);
		break;
	}
}

void td_config_print(const struct td_config *config, FILE *to)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (!settings[i].flag_only) {
			fprintf(to, "# %s\n", settings[i].help);
			print_value(&settings[i], (const char *)config + settings[i].at, to);
		}
	}
}

void td_config_help(FILE *to)
{
	fprintf(to, "Usage: trouped [OPTION]...\n"
		    "Runs one Troupe node: event-sourced aggregates with their store, in this "
		    "process;\n"
		    "alone, or with --join as one of a cluster.\n"
		    "\n");
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		char flag[48];
		snprintf(flag, sizeof(flag), "--%s %s", settings[i].name,
			settings[i].value != NULL ? settings[i].value : "");
		fprintf(to, "  %-27s %s\n", flag, settings[i].help);
	}
	fprintf(to, "\n"
		    "The file of --config holds `name = value` lines with the same names.\n"
		    "Nodes of one machine take over sooner with --election-ms 300 --heartbeat-ms "
		    "50.\n"
		    "Ends with 0 after SIGTERM or SIGINT, 2 when a setting is wrong, 70 when "
		    "storage failed,\n"
		    "1 when it cannot start for another reason.\n");
}
