/* What needs nothing of the client's inside: names of codes, and the blocking form of a call. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/client/client.h"

static const char no_text[] = "";

const char *troupe_code_name(int code)
{
	static const char *const names[] = {"ok", "refused", "conflict", "bad_request", "not_found",
		"busy", "unavailable", "unknown", "quarantined", "too_large", "timeout",
		"internal"};
	static const char *const own[] = {"no_connection", "closed", "protocol"};
	if (code >= 0 && code < (int)(sizeof(names) / sizeof(names[0]))) {
		return names[code];
	}
	if (code >= TROUPE_E_CONNECT && code <= TROUPE_E_PROTOCOL) {
		return own[code - TROUPE_E_CONNECT];
	}
	return "?";
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool done;
	struct troupe_answer *out;
};

/* One block holds all that the answer points to; it starts with the text, so that text is what
 * troupe_answer_free frees. */
static void keep(struct troupe_answer *out, const struct troupe_answer *answer)
{
	size_t text = strlen(answer->error) + 1;
	*out = *answer;
	char *block = malloc(text + answer->payload_size + answer->command_id_size);
	if (block == NULL) {
		out->code = TROUPE_UNKNOWN;
		out->error = no_text;
		out->payload = out->command_id = NULL;
		out->payload_size = out->command_id_size = 0;
		return;
	}
	out->error = memcpy(block, answer->error, text);
	out->payload = block + text;
	if (answer->payload_size > 0) {
		memcpy(block + text, answer->payload, answer->payload_size);
	}
	out->command_id = block + text + answer->payload_size;
	if (answer->command_id_size > 0) {
		memcpy(block + text + answer->payload_size, answer->command_id,
			answer->command_id_size);
	}
	/* cppcheck-suppress memleak ; out->error is the block */
}

static void wake(void *arg, const struct troupe_answer *answer)
{
	struct waiter *waiter = arg;
	pthread_mutex_lock(&waiter->lock);
	keep(waiter->out, answer);
	waiter->done = true;
	pthread_cond_signal(&waiter->wake);
	pthread_mutex_unlock(&waiter->lock);
}

int troupe_client_call(
	struct troupe_client *client, const struct troupe_call *call, struct troupe_answer *out)
{
	*out = (struct troupe_answer){.error = no_text};
	struct waiter waiter = {
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .done = false, .out = out};
	int code = troupe_client_submit(client, call, wake, &waiter);
	if (code != TROUPE_OK) {
		out->code = code;
		return code;
	}
	pthread_mutex_lock(&waiter.lock);
	while (!waiter.done) {
		pthread_cond_wait(&waiter.wake, &waiter.lock);
	}
	pthread_mutex_unlock(&waiter.lock);
	pthread_mutex_destroy(&waiter.lock);
	pthread_cond_destroy(&waiter.wake);
	return out->code;
}

void troupe_answer_free(struct troupe_answer *answer)
{
	if (answer->error != no_text) {
		free((char *)(uintptr_t)answer->error);
	}
	*answer = (struct troupe_answer){.error = no_text};
}
