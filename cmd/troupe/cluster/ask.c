#include "cmd/troupe/cluster/ask.h"

#include <string.h>

struct troupe_call tr_cluster_call(const char *name, const char *payload)
{
	return (struct troupe_call){.kind = TROUPE_CLUSTER,
		.name = name,
		.payload = payload,
		.payload_size = strlen(payload),
		.json = true,
		.expected = -1};
}

enum tr_exit tr_cluster_view(
	const struct tr_options *options, struct troupe_client *client, struct tr_view *out)
{
	const struct troupe_call call = tr_cluster_call("status", "");
	struct troupe_answer answer;
	enum tr_exit code = tr_client_ask(options, client, &call, &answer);
	if (code == TR_DONE) {
		struct rt_errinfo info = {0};
		if (tr_view_read(rt_bytes_of(answer.payload, answer.payload_size), out, &info) !=
			RT_OK) {
			fprintf(stderr, "troupe: %s\n", info.text);
			code = TR_UNAVAILABLE;
		}
	}
	troupe_answer_free(&answer);
	return code;
}

enum tr_exit tr_cluster_look(const struct tr_options *options, struct tr_view *out)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	enum tr_exit code = tr_cluster_view(options, client, out);
	troupe_client_close(client);
	return code;
}

enum tr_exit tr_cluster_command(
	const struct tr_options *options, const char *name, const char *json)
{
	char id[TR_MADE_ID_BYTES];
	tr_make_id(id);
	const struct troupe_call call = {.kind = TROUPE_COMMAND,
		.type = "cluster",
		.id = "cluster",
		.name = name,
		.payload = json,
		.payload_size = strlen(json),
		.json = true,
		.command_id = id,
		.command_id_size = strlen(id),
		.expected = -1};
	return tr_send_call(options, &call);
}
