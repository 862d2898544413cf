#include "cmd/trouped/screen.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_URL "tcp://127.0.0.1:7470"

/* Names after a label, broken at the width of a terminal. */
struct names {
	FILE *to;
	size_t column;
};

static void names_add(struct names *names, const char *word)
{
	size_t size = strlen(word) + 1;
	if (names->column + size > 88) {
		fprintf(names->to, "\n%*s", 25, "");
		names->column = 25;
	}
	fprintf(names->to, " %s", word);
	names->column += size;
}

static void print_type(const struct troupe_aggregate *type, FILE *to)
{
	fprintf(to, "  %-12s  commands ", type->name);
	struct names names = {.to = to, .column = 25};
	for (const struct troupe_command_type *c = type->commands; c->name != NULL; c++) {
		names_add(&names, c->name);
	}
	fputc('\n', to);
	if (type->queries != NULL && type->queries->name != NULL) {
		fprintf(to, "  %-12s  queries  ", "");
		names.column = 25;
		for (const struct troupe_query_type *q = type->queries; q->name != NULL; q++) {
			names_add(&names, q->name);
		}
		fputc('\n', to);
	}
}

static void print_store(const struct td_screen *screen, FILE *to)
{
	struct pr_text text = {0};
	sh_node_status(screen->node, &text);
	json_t *status = json_loadb(text.data != NULL ? text.data : "", text.size, 0, NULL);
	const json_t *store = json_object_get(status, "store");
	const char *id = json_string_value(json_object_get(store, "id"));
	char *path = realpath(screen->config->data, NULL);
	fprintf(to, "  data          %s\n", path != NULL ? path : screen->config->data);
	fprintf(to, "  store         %s\n", id != NULL ? id : "?");
	fprintf(to, "  shards        %zu\n", json_array_size(json_object_get(status, "shards")));
	free(path);
	json_decref(status);
	pr_text_clear(&text);
}

static void print_cluster(const struct td_screen *screen, FILE *to)
{
	if (screen->number == 0) {
		return;
	}
	const char *name = screen->config->name;
	fprintf(to, "  node          %" PRIu64 "%s%s%s of cluster %s\n", screen->number,
		name != NULL ? " (" : "", name != NULL ? name : "", name != NULL ? ")" : "",
		screen->cluster);
	fprintf(to, "  nodes call    %s\n", screen->peer);
}

static void print_try(const struct td_screen *screen, FILE *to)
{
	const char *url = td_listener_url(screen->listener, 0);
	char option[600] = "";
	if (strcmp(url, DEFAULT_URL) != 0) {
		snprintf(option, sizeof(option), "--url %s ", url);
	}
	const struct troupe_aggregate *first =
		ac_type_aggregate(ac_registry_at(screen->registry, 0));
	fprintf(to,
		"Try it in another terminal:\n"
		"  troupe %sdescribe %s\n"
		"  troupe %ssend %s/alice %s\n"
		"  troupe %sevents %s/alice\n",
		option, first->name, option, first->name, first->commands->name, option,
		first->name);
	if (screen->number != 0) {
		fprintf(to, "  troupe %scluster status\n", option);
	}
	fprintf(to, "Stop it with Ctrl-C or SIGTERM.\n");
}

void td_screen_print(const struct td_screen *screen, FILE *to)
{
	fprintf(to, "Troupe %s\n", TROUPE_VERSION);
	print_store(screen, to);
	for (size_t i = 0; i < screen->config->rpc.count; i++) {
		fprintf(to, "  %-12s  %s\n", i == 0 ? "serves" : "",
			td_listener_url(screen->listener, i));
	}
	print_cluster(screen, to);
	fprintf(to, "Aggregates\n");
	for (uint32_t i = 0; i < ac_registry_count(screen->registry); i++) {
		print_type(ac_type_aggregate(ac_registry_at(screen->registry, i)), to);
	}
	print_try(screen, to);
	fprintf(to, "ready %s\n", td_listener_url(screen->listener, 0));
	fflush(to);
}
