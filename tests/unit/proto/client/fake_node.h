/*
 * fake_node.h - REP servers on free ports which behave as a test says, and what tests of the client
 * count its answers with.
 *
 * Threads: servers have their own; a test changes and reads what they note through the functions.
 */
#ifndef TESTS_UNIT_PROTO_CLIENT_FAKE_NODE_H
#define TESTS_UNIT_PROTO_CLIENT_FAKE_NODE_H

#include <nng/nng.h>
#include <pthread.h>

#include "proto/client/client.h"
#include "tests/support/test.h"

enum {
	CONTEXTS = 4,
	SEEN_MAX = 4096,
	REPLY_MAX = 2 * 1024 * 1024
};

enum mode {
	ECHO,       /* OK with the payload of the call */
	ONCE_CODE,  /* `code` for the first message, then as ECHO */
	CODE,       /* `code` for every call */
	GOING,      /* UNAVAILABLE for every call, and none should come back for long: it stops */
	GARBAGE,    /* answers with bytes that are no Answers */
	SILENT,     /* never answers */
	HALF,       /* answers every second call */
	REFUSE_ALL, /* one answer with call id 0 */
	HOLD,       /* answers nothing before `open` is set: a process that is stopped */
	HOLD_FEEDS, /* the same for feeds only; the rest as ECHO */
	HOLD_ALL_BUT_PINGS
};

struct server {
	nng_socket socket;
	char url[64];
	enum mode mode;
	uint32_t code;
	pthread_t threads[CONTEXTS];
	nng_aio *aios[CONTEXTS];

	/* Under one lock of all servers. */
	bool open, stopping, dead;
	unsigned messages, calls, biggest, waiting, pings;
	uint32_t timeout_ms; /* of the last call that is no ping */
	unsigned seen;
	uint8_t ids[SEEN_MAX][16]; /* command ids in the order of arrival */
};

/* url NULL: a free port. */
struct server *server_start(enum mode mode, uint32_t code, const char *url);
/* What it holds may be answered. */
void server_stop(struct server *server);
/* What it holds is not answered: kill -9. The struct stays readable until server_free. */
void server_kill(struct server *server);
void server_free(struct server *server);
void server_wait_messages(struct server *server, unsigned messages);
/* The one whose message comes first. */
struct server *server_wait_either(struct server *a, struct server *b);
void server_wait_pings(struct server *server, unsigned pings);
void server_release(struct server *server);
void server_set(struct server *server, enum mode mode);
unsigned server_messages(struct server *server);

/* A port on which nothing answers until somebody accepts. */
int listen_raw(char *url, size_t size);
/* Takes one message, closes the listener and goes away without an answer. Returns how many calls
 * it saw and keeps their ids. */
unsigned take_one_message_and_die(int listener, uint8_t ids[][16]);
/* A URL where nobody listens. */
void url_of_nobody(char *url, size_t size);

struct tally {
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned done;
	unsigned codes[128];
	unsigned attempts; /* of the last answer */
	unsigned wrong;    /* payloads that are not the call's */
	char error[128];
};

struct one { /* per call */
	struct tally *tally;
	uint32_t number;
	unsigned answers;
};

void tally_init(struct tally *tally);
void tally_wait(struct tally *tally, unsigned done);
void count_answer(void *arg, const struct troupe_answer *answer); /* arg: struct one */

struct troupe_client *client_open(const char *url);
struct troupe_call command(const void *payload, size_t size);
int submit(struct troupe_client *client, struct one *one);
void submit_many(
	struct troupe_client *client, struct one *ones, struct tally *tally, uint32_t count);

#endif
