#include "sharding/join.h"

#include <stdlib.h>

#include "proto/client/client.h"
#include "proto/guard.h"

static rt_err read_reply(
	const struct troupe_answer *answer, Troupe__Cluster__Joined **out, struct rt_errinfo *info)
{
	struct rt_bytes bytes = rt_bytes_of(answer->payload, answer->payload_size);
	if (pr_guard_check(&troupe__cluster__joined__descriptor, bytes, NULL) == RT_OK) {
		*out = troupe__cluster__joined__unpack(NULL, bytes.size, bytes.data);
	}
	if (*out == NULL || (*out)->node == 0 || strlen((*out)->cluster) != 32 ||
		(*out)->shard_count == 0) {
		if (*out != NULL) {
			troupe__cluster__joined__free_unpacked(*out, NULL);
		}
		*out = NULL;
		return rt_errinfo_set(info, RT_E_PROTO, "the cluster's answer cannot be read");
	}
	return RT_OK;
}

static rt_err ask(struct troupe_client *client, const struct troupe_call *call,
	Troupe__Cluster__Joined **out, struct rt_errinfo *info)
{
	struct troupe_answer answer;
	int code = troupe_client_call(client, call, &answer);
	rt_err err;
	if (code == TROUPE_OK) {
		err = read_reply(&answer, out, info);
	} else if (code == TROUPE_REFUSED) {
		err = rt_errinfo_set(info, RT_E_INVAL, "refused: %s", answer.error);
	} else {
		err = rt_errinfo_set(info, RT_E_UNAVAILABLE, "%s%s%s", troupe_code_name(code),
			answer.error[0] != '\0' ? ": " : "", answer.error);
	}
	troupe_answer_free(&answer);
	return err;
}

/* NOLINTNEXTLINE(readability-function-size): what a node says of itself */
rt_err sh_join(const char *urls, const char *key, const char *name, uint32_t timeout_ms,
	Troupe__Cluster__Joined **out, struct rt_errinfo *info)
{
	char why[256] = "";
	const struct troupe_client_options options = {.url = urls, .timeout_ms = timeout_ms};
	*out = NULL;
	struct troupe_client *client = troupe_client_open(&options, why, sizeof(why));
	if (client == NULL) {
		return rt_errinfo_set(info, RT_E_INVAL, "join: %s", why);
	}
	Troupe__Cluster__Join join = TROUPE__CLUSTER__JOIN__INIT;
	join.key = (char *)(uintptr_t)key; /* protobuf-c only reads it */
	join.name = (char *)(uintptr_t)name;
	size_t size = troupe__cluster__join__get_packed_size(&join);
	uint8_t *payload = malloc(size + 1);
	rt_err err = RT_E_NOMEM;
	if (payload != NULL) {
		troupe__cluster__join__pack(&join, payload);
		const struct troupe_call call = {.kind = TROUPE_COMMAND,
			.type = "cluster",
			.id = "cluster",
			.name = "Join",
			.payload = payload,
			.payload_size = size,
			.expected = -1};
		err = ask(client, &call, out, info);
	}
	free(payload);
	troupe_client_close(client);
	return err == RT_OK ? RT_OK : rt_errinfo_wrap(info, err, "join %s", urls);
}
