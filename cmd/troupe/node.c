/* troupe types, describe and status: what a node is. */
#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/client.h"
#include "cmd/troupe/commands.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"

static void add_names(
	struct pr_text *line, const char *label, Troupe__MessageType *const *types, size_t count)
{
	pr_text_printf(line, ",\"%s\":[", label);
	for (size_t i = 0; i < count; i++) {
		pr_text_str(line, i > 0 ? "," : "");
		pr_text_json_string(line, rt_bytes_str(types[i]->name));
	}
	pr_text_str(line, "]");
}

static void add_fields(
	struct pr_text *line, const char *label, Troupe__FieldType *const *fields, size_t count)
{
	pr_text_printf(line, ",\"%s\":{", label);
	for (size_t i = 0; i < count; i++) {
		pr_text_str(line, i > 0 ? "," : "");
		pr_text_json_string(line, rt_bytes_str(fields[i]->name));
		pr_text_str(line, ":\"");
		pr_text_str(line, fields[i]->repeated ? "repeated " : "");
		pr_text_str(line, fields[i]->type);
		pr_text_str(line, "\"");
	}
	pr_text_str(line, "}");
}

static void add_messages(
	struct pr_text *line, const char *label, Troupe__MessageType *const *types, size_t count)
{
	pr_text_printf(line, ",\"%s\":[", label);
	for (size_t i = 0; i < count; i++) {
		const Troupe__MessageType *type = types[i];
		pr_text_str(line, i > 0 ? ",{\"name\":" : "{\"name\":");
		pr_text_json_string(line, rt_bytes_str(type->name));
		if (type->version > 0) {
			pr_text_printf(line, ",\"version\":%u", type->version);
		}
		add_fields(line, "fields", type->fields, type->n_fields);
		if (type->reply[0] != '\0') {
			add_fields(line, "reply", type->reply_fields, type->n_reply_fields);
		}
		pr_text_str(line, "}");
	}
	pr_text_str(line, "]");
}

static void print_type(const Troupe__AggregateType *type, bool all)
{
	struct pr_text line = {0};
	void (*add)(struct pr_text *, const char *, Troupe__MessageType *const *, size_t) =
		all ? add_messages : add_names;
	pr_text_str(&line, "{\"type\":");
	pr_text_json_string(&line, rt_bytes_str(type->name));
	add(&line, "commands", type->commands, type->n_commands);
	add(&line, "queries", type->queries, type->n_queries);
	add(&line, "events", type->events, type->n_events);
	pr_text_str(&line, "}");
	tr_print_line(&line);
	pr_text_clear(&line);
}

static enum tr_exit print_types(const struct troupe_answer *answer, bool all)
{
	Troupe__TypeList *list = NULL;
	if (pr_guard_check(&troupe__type_list__descriptor,
		    rt_bytes_of(answer->payload, answer->payload_size), NULL) == RT_OK) {
		list = troupe__type_list__unpack(NULL, answer->payload_size, answer->payload);
	}
	if (list == NULL) {
		fprintf(stderr, "troupe: the node's answer cannot be read\n");
		return TR_UNAVAILABLE;
	}
	for (size_t i = 0; i < list->n_types; i++) {
		print_type(list->types[i], all);
	}
	troupe__type_list__free_unpacked(list, NULL);
	return TR_DONE;
}

static enum tr_exit types_of(const struct tr_options *options, const char *type)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	const struct troupe_call call = {.kind = TROUPE_TYPES, .type = type, .expected = -1};
	struct troupe_answer answer;
	enum tr_exit code = tr_client_ask(options, client, &call, &answer);
	if (code == TR_DONE) {
		code = print_types(&answer, type != NULL);
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	return code;
}

enum tr_exit tr_types(const struct tr_options *options)
{
	return types_of(options, NULL);
}

enum tr_exit tr_describe(const struct tr_options *options)
{
	return types_of(options, options->words[0]);
}

enum tr_exit tr_status(const struct tr_options *options)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	const struct troupe_call call = {.kind = TROUPE_STATUS, .json = true, .expected = -1};
	struct troupe_answer answer;
	enum tr_exit code = tr_client_ask(options, client, &call, &answer);
	if (code == TR_DONE) {
		struct pr_text line = {0};
		pr_text_add(&line, answer.payload, answer.payload_size);
		tr_print_line(&line);
		pr_text_clear(&line);
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	return code;
}
