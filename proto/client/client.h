/*
 * client.h - the C client library of Troupe: asynchronous calls over nng REQ/REP, batched
 * naturally.
 *
 * Calls queue while at most two messages are in flight; whatever queued meanwhile goes into the
 * next message (up to 128 calls), so there is no linger time. A call that ends with "busy",
 * "unavailable", "unknown" or a lost connection is sent again with the same command id until its
 * deadline. Reads that may wait for events (TROUPE_EVENTS, TROUPE_FEED) travel alone, up to eight
 * at a time, so that they hold up nobody.
 *
 * Given several nodes of a cluster, it talks to one of them, any, and goes on to another with all
 * that is open when the connection breaks, when the node says nothing for 1 s (2 s when only reads
 * that may wait are open), or when it does not serve a call. A try of a call gets 2 s then, the
 * next ones more. Calls that are submitted in order arrive in order while nothing of this happens.
 *
 * Threads: any thread may call; callbacks run on the library's threads, may submit and must not
 *          block: no troupe_client_call and no troupe_client_close from inside one.
 * Memory:  the call is copied at submit; an answer and all it points to is borrowed for the
 *          callback.
 * Limits:  `queue` calls wait, then TROUPE_BUSY at once. A payload of 256 KiB.
 * Time:    deadlines are kept to about 20 ms.
 *
 * Installed as <troupe/client.h>; includes nothing of Troupe.
 */
#ifndef TROUPE_CLIENT_H
#define TROUPE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_client;

enum troupe_code { /* Code of troupe.proto, then the client's own */
	TROUPE_OK = 0,
	TROUPE_REFUSED = 1,
	TROUPE_CONFLICT = 2,
	TROUPE_BAD_REQUEST = 3,
	TROUPE_NOT_FOUND = 4,
	TROUPE_BUSY = 5,
	TROUPE_UNAVAILABLE = 6,
	TROUPE_UNKNOWN = 7,
	TROUPE_QUARANTINED = 8,
	TROUPE_TOO_LARGE = 9,
	TROUPE_TIMEOUT = 10,
	TROUPE_INTERNAL = 11,
	TROUPE_E_CONNECT = 100, /* no node answered before the deadline; nothing was sent */
	TROUPE_E_CLOSED = 101,  /* the client was closed first; outcome unknown */
	TROUPE_E_PROTOCOL = 102 /* the node's answer could not be read */
};
const char *troupe_code_name(int code);

enum troupe_kind { /* Kind of troupe.proto */
	TROUPE_COMMAND = 0,
	TROUPE_QUERY = 1,
	TROUPE_EVENTS = 2,
	TROUPE_STATE = 3,
	TROUPE_FEED = 4,
	TROUPE_TYPES = 5,
	TROUPE_STATUS = 6,
	TROUPE_PING = 7,
	TROUPE_CLUSTER = 8 /* name: "status" or "hash"; JSON text both ways */
};

struct troupe_client_options {
	/* nng URL: tcp://127.0.0.1:7470, ipc:///path, ws://... Several nodes of one cluster, at
	 * most 16, with commas and no blanks. */
	const char *url;
	uint32_t in_flight;  /* messages; 0: 2, at most 64 */
	uint32_t batch;      /* calls per message; 0: 128, at most 1,024 */
	uint32_t timeout_ms; /* default deadline of a call; 0: 10,000 */
	uint32_t queue;      /* waiting calls; 0: 65,536 */
};

struct troupe_call {
	enum troupe_kind kind;
	const char *type, *id, *name;
	const void *payload;
	size_t payload_size;
	bool json;              /* payload and answer are JSON text */
	const void *command_id; /* NULL: the library makes a random one of 16 bytes */
	size_t command_id_size;
	int64_t expected;    /* sequence number the entity must be at; -1: any */
	uint32_t timeout_ms; /* 0: the client's */
	bool stale;          /* reads: from what the node that is asked has, maybe behind */
	uint64_t after;      /* reads: include this offset of the entity's shard; 0: any */
};

struct troupe_answer {
	int code;          /* enum troupe_code */
	const char *error; /* "" when OK */
	const void *payload;
	size_t payload_size;
	uint32_t shard;
	uint64_t offset, seq;
	uint32_t events;
	uint32_t retry_after_ms;
	uint32_t attempts; /* how often it was sent */
	bool repeated;     /* the node had seen this command id before */
	const void *command_id;
	size_t command_id_size;
	uint64_t node; /* which served it; 0: it is no member of a cluster */
};

typedef void troupe_answer_fn(void *arg, const struct troupe_answer *answer);

/* Connects in the background; calls wait for the connection until their deadline. Returns NULL and
 * writes a reason into error (may be NULL) when a URL or memory is bad. */
struct troupe_client *troupe_client_open(
	const struct troupe_client_options *options, char *error, size_t error_size);
/* Gives what was sent up to 250 ms to be answered, answers everything else with TROUPE_E_CLOSED,
 * waits for callbacks, frees. */
void troupe_client_close(struct troupe_client *client);

/* 0: done will run exactly once, never from inside this call. TROUPE_BUSY (queue full or out of
 * memory), TROUPE_BAD_REQUEST (type, id, name or command id too long), TROUPE_TOO_LARGE (payload),
 * TROUPE_E_CLOSED: it will not.
 *
 * At the deadline the answer's code tells what is known: TROUPE_E_CONNECT nothing was ever sent,
 * TROUPE_BUSY or TROUPE_UNAVAILABLE every node that was asked said so and wrote nothing,
 * TROUPE_TIMEOUT the outcome of a command is unknown. */
int troupe_client_submit(struct troupe_client *client, const struct troupe_call *call,
	troupe_answer_fn *done, void *arg);

/* Blocking form for simple programs: returns out->code. The answer's pointers stay valid until
 * troupe_answer_free, which is harmless on any answer that this function filled. */
int troupe_client_call(
	struct troupe_client *client, const struct troupe_call *call, struct troupe_answer *out);
void troupe_answer_free(struct troupe_answer *answer);

#ifdef __cplusplus
}
#endif

#endif
