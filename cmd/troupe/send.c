/* troupe send and troupe query: one call to one entity. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cmd/troupe/client.h"
#include "cmd/troupe/commands.h"
#include "proto/wire.h"

/* The JSON argument: a word, "-" for standard input, or nothing. malloc'd, NULL: said why not. */
static char *read_json(const char *word)
{
	if (word == NULL || strcmp(word, "-") != 0) {
		char *copy = strdup(word != NULL ? word : "{}");
		return copy;
	}
	size_t cap = (size_t)PR_PAYLOAD_MAX * 2 + 2;
	char *text = malloc(cap);
	if (text == NULL) {
		return NULL;
	}
	size_t size = fread(text, 1, cap - 1, stdin);
	text[size] = '\0';
	if (ferror(stdin) || size == cap - 1 || strlen(text) != size) {
		fprintf(stderr, "troupe: standard input: %s\n",
			ferror(stdin)     ? "cannot be read"
			: size == cap - 1 ? "too large"
					  : "holds a NUL byte");
		free(text);
		return NULL;
	}
	return text;
}

void tr_make_id(char out[TR_MADE_ID_BYTES])
{
	uint8_t bytes[(TR_MADE_ID_BYTES - 1) / 2];
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes)) {
		abort(); /* the kernel promises it for up to 256 bytes */
	}
	for (size_t i = 0; i < sizeof(bytes); i++) {
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
	}
}

static void add_reply(struct pr_text *line, const struct troupe_answer *answer)
{
	if (answer->payload_size > 0) {
		pr_text_str(line, ",\"reply\":");
		pr_text_add(line, answer->payload, answer->payload_size);
	}
}

void tr_print_sent(const struct troupe_call *call, const struct troupe_answer *answer)
{
	struct pr_text line = {0};
	if (answer->code == TROUPE_OK) {
		pr_text_printf(&line,
			"{\"ok\":true,\"seq\":%" PRIu64
			",\"events\":%u,\"shard\":%u,\"offset\":%" PRIu64,
			answer->seq, answer->events, answer->shard, answer->offset);
	} else if (answer->code == TROUPE_CONFLICT) {
		pr_text_printf(&line,
			"{\"conflict\":true,\"seq\":%" PRIu64 ",\"expected\":%" PRId64, answer->seq,
			call->expected);
	} else {
		pr_text_str(&line, "{\"refused\":");
		pr_text_json_string(&line, rt_bytes_str(answer->error));
		pr_text_printf(&line, ",\"seq\":%" PRIu64, answer->seq);
	}
	pr_text_str(&line, ",\"commandId\":");
	tr_add_command_id(&line, call->command_id, call->command_id_size);
	if (answer->repeated) {
		pr_text_str(&line, ",\"repeated\":true");
	}
	add_reply(&line, answer);
	pr_text_str(&line, "}");
	tr_print_line(&line);
	pr_text_clear(&line);
}

static bool outcome_is_open(int code)
{
	return code == TROUPE_UNKNOWN || code == TROUPE_TIMEOUT || code == TROUPE_E_CLOSED ||
	       code == TROUPE_E_PROTOCOL;
}

enum tr_exit tr_send_call(const struct tr_options *options, const struct troupe_call *call)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	struct troupe_answer answer;
	enum tr_exit code = tr_client_ask(options, client, call, &answer);
	if (code == TR_DONE || code == TR_REFUSED) {
		tr_print_sent(call, &answer);
	} else if (outcome_is_open(answer.code)) {
		fprintf(stderr,
			"troupe: it may or may not have been done; repeat it with --command-id "
			"%s\n",
			(const char *)call->command_id);
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	return code;
}

enum tr_exit tr_send(const struct tr_options *options)
{
	char *type = NULL;
	const char *id = NULL;
	if (!tr_entity_of(options->words[0], &type, &id)) {
		return TR_USAGE;
	}
	char *json = read_json(options->words[2]);
	enum tr_exit code = TR_USAGE;
	if (json != NULL) {
		char made[TR_MADE_ID_BYTES];
		tr_make_id(made);
		const char *command_id = options->command_id != NULL ? options->command_id : made;
		const struct troupe_call call = {.kind = TROUPE_COMMAND,
			.type = type,
			.id = id,
			.name = options->words[1],
			.payload = json,
			.payload_size = strlen(json),
			.json = true,
			.command_id = command_id,
			.command_id_size = strlen(command_id),
			.expected = options->expect};
		code = tr_send_call(options, &call);
	}
	free(json);
	free(type);
	return code;
}

/* Who asks for a particular view wants to know whose it is. */
static void add_where(
	struct pr_text *line, const struct tr_options *options, const struct troupe_answer *answer)
{
	if ((options->stale || options->after.offset > 0) && answer->node > 0) {
		pr_text_printf(
			line, ",\"node\":%" PRIu64 ",\"shard\":%u", answer->node, answer->shard);
	}
}

static enum tr_exit query_call(const struct tr_options *options, const struct troupe_call *call)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	struct troupe_answer answer;
	struct pr_text line = {0};
	enum tr_exit code = tr_client_ask(options, client, call, &answer);
	if (code == TR_DONE) {
		pr_text_printf(&line, "{\"seq\":%" PRIu64, answer.seq);
	} else if (code == TR_REFUSED) {
		pr_text_str(&line, "{\"refused\":");
		pr_text_json_string(&line, rt_bytes_str(answer.error));
		pr_text_printf(&line, ",\"seq\":%" PRIu64, answer.seq);
	}
	if (code == TR_DONE || code == TR_REFUSED) {
		add_where(&line, options, &answer);
		add_reply(&line, &answer);
		pr_text_str(&line, "}");
		code = tr_check_after(options, &answer) == TR_DONE ? code : TR_USAGE;
		tr_print_line(&line);
	}
	pr_text_clear(&line);
	troupe_answer_free(&answer);
	troupe_client_close(client);
	return code;
}

enum tr_exit tr_query(const struct tr_options *options)
{
	char *type = NULL;
	const char *id = NULL;
	if (!tr_entity_of(options->words[0], &type, &id)) {
		return TR_USAGE;
	}
	char *json = read_json(options->words[2]);
	enum tr_exit code = TR_USAGE;
	if (json != NULL) {
		struct troupe_call call = {.kind = TROUPE_QUERY,
			.type = type,
			.id = id,
			.name = options->words[1],
			.payload = json,
			.payload_size = strlen(json),
			.json = true,
			.expected = -1};
		tr_read_options(options, &call);
		code = query_call(options, &call);
	}
	free(json);
	free(type);
	return code;
}
