#include "cmd/troupe/client.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nearest.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"

#define NAMES_MAX 256u

struct troupe_client *tr_client_open(const struct tr_options *options)
{
	char error[256] = "";
	const struct troupe_client_options o = {
		.url = options->url, .timeout_ms = (uint32_t)options->timeout_ms};
	struct troupe_client *client = troupe_client_open(&o, error, sizeof(error));
	if (client == NULL) {
		fprintf(stderr, "troupe: %s: %s\n", options->url, error);
	}
	return client;
}

bool tr_entity_of(const char *word, char **out_type, const char **out_id)
{
	const char *slash = strchr(word, '/');
	if (slash == NULL || slash == word || slash[1] == '\0') {
		fprintf(stderr, "troupe: expected TYPE/ID such as account/alice, found \"%s\"\n",
			word);
		return false;
	}
	char *copy = strdup(word);
	if (copy == NULL) {
		fprintf(stderr, "troupe: out of memory\n");
		return false;
	}
	copy[slash - word] = '\0';
	*out_type = copy;
	*out_id = copy + (slash - word) + 1;
	return true;
}

enum tr_exit tr_exit_of(int code)
{
	switch (code) {
	case TROUPE_OK:
		return TR_DONE;
	case TROUPE_REFUSED:
	case TROUPE_CONFLICT:
		return TR_REFUSED;
	case TROUPE_BAD_REQUEST:
	case TROUPE_NOT_FOUND:
	case TROUPE_TOO_LARGE:
		return TR_USAGE;
	default:
		return TR_UNAVAILABLE;
	}
}

static void collect(const char **names, size_t *count, const char *name)
{
	if (*count + 1 < NAMES_MAX) {
		names[(*count)++] = name;
		names[*count] = NULL;
	}
}

/* Nothing when the word itself is known: then it is not the word that is wrong. */
static const char *nearest_other(const char *word, const char *const *names)
{
	const char *near = cmd_nearest(word, names);
	return near != NULL && strcmp(near, word) == 0 ? NULL : near;
}

static const char *nearest_in(const Troupe__TypeList *list, const struct troupe_call *call)
{
	const char *names[NAMES_MAX] = {NULL};
	size_t count = 0;
	const Troupe__AggregateType *known = NULL;
	for (size_t i = 0; i < list->n_types; i++) {
		collect(names, &count, list->types[i]->name);
		if (strcmp(list->types[i]->name, call->type) == 0) {
			known = list->types[i];
		}
	}
	if (known == NULL) {
		return nearest_other(call->type, names);
	}
	count = 0;
	names[0] = NULL;
	if (call->name == NULL) {
		return NULL;
	}
	size_t all = call->kind == TROUPE_QUERY ? known->n_queries : known->n_commands;
	for (size_t i = 0; i < all; i++) {
		collect(names, &count,
			(call->kind == TROUPE_QUERY ? known->queries : known->commands)[i]->name);
	}
	return nearest_other(call->name, names);
}

void tr_suggest(const struct tr_options *options, struct troupe_client *client,
	const struct troupe_call *call, char *out, size_t room)
{
	const struct troupe_call types = {
		.kind = TROUPE_TYPES, .expected = -1, .timeout_ms = (uint32_t)options->timeout_ms};
	struct troupe_answer answer;
	out[0] = '\0';
	if (troupe_client_call(client, &types, &answer) == TROUPE_OK &&
		pr_guard_check(&troupe__type_list__descriptor,
			rt_bytes_of(answer.payload, answer.payload_size), NULL) == RT_OK) {
		Troupe__TypeList *list =
			troupe__type_list__unpack(NULL, answer.payload_size, answer.payload);
		const char *near = list != NULL ? nearest_in(list, call) : NULL;
		if (near != NULL) {
			snprintf(out, room, "; did you mean %s?", near);
		}
		if (list != NULL) {
			troupe__type_list__free_unpacked(list, NULL);
		}
	}
	troupe_answer_free(&answer);
}

static void explain(const struct tr_options *options, struct troupe_client *client,
	const struct troupe_call *call, const struct troupe_answer *answer)
{
	char hint[128] = "";
	const char *text = answer->error != NULL ? answer->error : "";
	if (answer->code == TROUPE_E_CONNECT) {
		fprintf(stderr,
			"troupe: no node answered at %s within %g s; is trouped running there?\n",
			options->url, (double)options->timeout_ms / 1000);
		return;
	}
	if (answer->code == TROUPE_NOT_FOUND) {
		tr_suggest(options, client, call, hint, sizeof(hint));
	}
	char name[40];
	snprintf(name, sizeof(name), "%s", troupe_code_name(answer->code));
	for (char *c = strchr(name, '_'); c != NULL; c = strchr(c, '_')) {
		*c = ' ';
	}
	fprintf(stderr, "troupe: %s%s%s%s\n", name, text[0] != '\0' ? ": " : "", text, hint);
}

enum tr_exit tr_client_ask(const struct tr_options *options, struct troupe_client *client,
	const struct troupe_call *call, struct troupe_answer *out)
{
	out->code = troupe_client_call(client, call, out);
	enum tr_exit code = tr_exit_of(out->code);
	if (code != TR_DONE && code != TR_REFUSED) {
		explain(options, client, call, out);
	}
	return code;
}

void tr_read_options(const struct tr_options *options, struct troupe_call *call)
{
	call->stale = options->stale;
	call->after = options->after.offset;
}

enum tr_exit tr_check_after(const struct tr_options *options, const struct troupe_answer *answer)
{
	if (options->after.shard < 0 || options->after.shard == (int64_t)answer->shard) {
		return TR_DONE;
	}
	fprintf(stderr, "troupe: --after: %s is in shard %u, not in %" PRId64 "\n",
		options->words[0], answer->shard, options->after.shard);
	return TR_USAGE;
}

bool tr_print_line(struct pr_text *line)
{
	pr_text_str(line, "\n");
	bool good = !line->failed && fwrite(line->data, 1, line->size, stdout) == line->size &&
		    fflush(stdout) == 0;
	line->size = 0;
	return good;
}

void tr_add_command_id(struct pr_text *line, const void *id, size_t size)
{
	const uint8_t *bytes = id;
	bool printable = true;
	for (size_t i = 0; i < size; i++) {
		printable = printable && bytes[i] >= ' ' && bytes[i] < 0x7f;
	}
	if (printable) {
		pr_text_json_string(line, rt_bytes_of(id, size));
		return;
	}
	pr_text_str(line, "\"");
	for (size_t i = 0; i < size; i++) {
		pr_text_printf(line, "%02x", bytes[i]);
	}
	pr_text_str(line, "\"");
}
