#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdlib.h>
#include <string.h>

#include "bench/rpc.h"
#include "proto/client/client.h"
#include "proto/wire.h"

/* ---- the client library: asynchronous, batched naturally ---- */
static struct troupe_client *client;

static void library_open(const struct rpc_options *options)
{
	char error[256] = "";
	struct troupe_client_options settings = {
		.url = options->url,
		.in_flight = options->in_flight,
		.batch = options->batch,
		.timeout_ms = RPC_TIMEOUT_MS,
	};
	client = troupe_client_open(&settings, error, sizeof(error));
	if (client == NULL) {
		rpc_fail("client", error);
	}
}

static void library_done(void *arg, const struct troupe_answer *answer)
{
	rpc_answered(arg, answer->code, answer->seq, answer->error);
}

static void library_send(struct rpc_caller *caller)
{
	struct troupe_call call = {
		.kind = TROUPE_COMMAND,
		.type = RPC_TYPE,
		.id = caller->id,
		.name = caller->command,
		.payload = caller->payload,
		.payload_size = caller->payload_size,
		.expected = -1,
	};
	int code = troupe_client_submit(client, &call, library_done, caller);
	if (code != TROUPE_OK) {
		rpc_fail("submit", troupe_code_name(code));
	}
}

static void library_close(void)
{
	troupe_client_close(client);
}

const struct rpc_transport rpc_library = {library_open, library_send, library_close};

/* ---- a client of somebody else: a context per caller, one call in each message ---- */
struct foreign {
	struct rpc_caller *caller;
	nng_ctx ctx;
	nng_aio *aio;
	bool receiving;
};
static nng_socket socket;
static struct foreign *foreigners;
static uint32_t foreigner_count;

static void check(const char *what, int nng_code)
{
	if (nng_code != 0) {
		rpc_fail(what, nng_strerror(nng_code));
	}
}

static void foreign_answer(struct foreign *foreign, nng_msg *msg)
{
	struct rt_bytes cursor = {nng_msg_body(msg), nng_msg_len(msg)};
	struct pr_answer answer;
	if (pr_answers_next(&cursor, &answer) != 1) {
		rpc_fail("answer", "malformed");
	}
	if (answer.call_id != foreign->caller->index + UINT64_C(1)) {
		rpc_fail("answer", "of another call");
	}
	char error[128] = "";
	size_t size = answer.error.size < sizeof(error) ? answer.error.size : sizeof(error) - 1;
	if (size > 0) {
		memcpy(error, answer.error.data, size);
	}
	nng_msg_free(msg);
	rpc_answered(foreign->caller, (int)answer.code, answer.seq, error);
}

static void foreign_step(void *arg)
{
	struct foreign *foreign = arg;
	check(foreign->receiving ? "receive" : "send", nng_aio_result(foreign->aio));
	if (foreign->receiving) {
		foreign_answer(foreign, nng_aio_get_msg(foreign->aio));
	} else {
		foreign->receiving = true;
		nng_ctx_recv(foreign->ctx, foreign->aio);
	}
}

static void foreign_open(const struct rpc_options *options)
{
	foreigner_count = options->callers;
	foreigners = calloc(foreigner_count, sizeof(*foreigners));
	if (foreigners == NULL) {
		rpc_fail("callers", "out of memory");
	}
	check("socket", nng_req0_open(&socket));
	check("no resend", nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, -1));
	check("dial", nng_dial(socket, options->url, NULL, 0));
	for (uint32_t i = 0; i < foreigner_count; i++) {
		struct foreign *foreign = &foreigners[i];
		check("context", nng_ctx_open(&foreign->ctx, socket));
		check("aio", nng_aio_alloc(&foreign->aio, foreign_step, foreign));
		nng_aio_set_timeout(foreign->aio, (nng_duration)RPC_TIMEOUT_MS);
	}
}

static void foreign_send(struct rpc_caller *caller)
{
	struct foreign *foreign = &foreigners[caller->index];
	uint64_t command_id[2] = {rt_random_next(&caller->random), rt_random_next(&caller->random)};
	struct pr_call call = {
		.call_id = caller->index + UINT64_C(1),
		.type = {(const uint8_t *)RPC_TYPE, strlen(RPC_TYPE)},
		.id = {(const uint8_t *)caller->id, strlen(caller->id)},
		.name = {(const uint8_t *)caller->command, strlen(caller->command)},
		.payload = {caller->payload, caller->payload_size},
		.command_id = {(const uint8_t *)command_id, sizeof(command_id)},
	};
	nng_msg *msg;
	check("message", nng_msg_alloc(&msg, pr_call_size(&call)));
	(void)pr_call_put(nng_msg_body(msg), &call);
	foreign->caller = caller;
	foreign->receiving = false;
	nng_aio_set_msg(foreign->aio, msg);
	nng_ctx_send(foreign->ctx, foreign->aio);
}

static void foreign_close(void)
{
	for (uint32_t i = 0; i < foreigner_count; i++) {
		nng_aio_stop(foreigners[i].aio);
		nng_aio_free(foreigners[i].aio);
		nng_ctx_close(foreigners[i].ctx);
	}
	nng_close(socket);
	free(foreigners);
}

const struct rpc_transport rpc_foreign = {foreign_open, foreign_send, foreign_close};
