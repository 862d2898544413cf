/*
 * rpc.h - callers that deposit money over the wire, and two ways to send what they say.
 *
 * Threads: a caller has one call under way, so one thread at a time touches it; what they count
 *          together is locked or atomic.
 * Memory:  all of it lives until the program ends.
 */
#ifndef BENCH_RPC_H
#define BENCH_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/random.h"

#define RPC_TYPE          "account"
#define RPC_PAYLOAD_BYTES 128u  /* unless said otherwise */
#define RPC_PAYLOAD_MAX   1000u /* an account takes 1,024 bytes of reference */
#define RPC_TIMEOUT_MS    10000u

struct rpc_options {
	const char *url; /* of one node or, for the library, of several with commas */
	uint32_t callers, entities;
	uint32_t payload; /* bytes of a deposit */
	uint32_t rate;    /* commands a second; 0: each caller goes on when it is answered */
	uint32_t in_flight, batch; /* of the client library; 0: its defaults */
	bool foreign;              /* one call per message, straight on libnng */
	double warm_seconds, seconds;
	double every_seconds; /* a line about each such stretch; 0: none */
	int server;           /* process id, 0: not known */
};

struct rpc_caller {
	struct rpc_caller *next; /* of those that wait for their turn at --rate */
	uint32_t index, entity;
	const char *id, *command;
	uint8_t payload[RPC_PAYLOAD_MAX];
	size_t payload_size;
	uint64_t sent_ns;
	struct rt_random random;
};

struct rpc_transport {
	void (*open)(const struct rpc_options *options);
	/* Sends the caller's call; rpc_answered runs once, later, on any thread. */
	void (*send)(struct rpc_caller *caller);
	void (*close)(void); /* nothing is under way any more */
};
extern const struct rpc_transport rpc_library; /* proto/client */
extern const struct rpc_transport rpc_foreign;

/* Counts the answer and sends the caller's next call unless the phase is over. */
void rpc_answered(struct rpc_caller *caller, int code, uint64_t seq, const char *error);
_Noreturn void rpc_fail(const char *what, const char *why);

#endif
