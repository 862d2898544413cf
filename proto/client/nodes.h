/*
 * nodes.h - the nodes a client knows, with one REQ socket each: which of them it talks to, and
 * which are gone, silent or in doubt.
 *
 * A client talks to one node at a time, so that calls arrive in the order in which they were
 * submitted while nothing breaks; it starts with any of them, so that clients spread. It dials
 * another when it needs one, and from then on nng keeps that connection up or tries to, so that a
 * dead node costs no call anything. It goes on to another node when the connection breaks, when a
 * ping is not answered (a stopped process keeps its connections), or when a node turns calls away.
 * A silent node is used again once it answers the ping, which stays out until then. With one URL
 * there is nowhere to go: nothing of this is done.
 *
 * Threads: under the client's lock, but for open, stop, close and errands_run, which call nng.
 * Time:    silence is counted in ticks of the client's clock, so that a client that did not run
 *          blames no node.
 * Limits:  PR_NODES_MAX nodes; at most one ping under way per node.
 */
#ifndef PROTO_CLIENT_NODES_H
#define PROTO_CLIENT_NODES_H

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define PR_NODES_MAX 16u

enum pr_ping { /* IDLE -> SENDING -> RECEIVING -> IDLE, moved on by the callback of its aio */
	PR_PING_IDLE,
	PR_PING_SENDING,
	PR_PING_RECEIVING
};

struct pr_nodes;

struct pr_node {
	struct pr_nodes *nodes;
	uint32_t index;
	nng_socket socket;
	nng_dialer dialer;
	bool opened;
	atomic_int pipes; /* written by nng's threads; above 0: connected */

	bool dialled;
	bool silent;            /* a ping was not answered, and still is not */
	uint32_t owes;          /* messages that it has not answered */
	uint32_t owes_soon;     /* of these, the ones that wait for no event */
	uint32_t quiet;         /* how long it has said nothing while it owed something */
	uint32_t doublings;     /* of its patience, when it is found silent again and again */
	uint64_t silent_at_ms;  /* when it was last found silent; 0: never */
	uint32_t doubt_ticks;   /* others first: its connection broke, or another is dialled */
	struct pr_node *errand; /* the next to be pinged */
	enum pr_ping ping;
	nng_ctx ping_context;
	nng_aio *ping_aio;
};

struct pr_nodes {
	struct pr_node all[PR_NODES_MAX];
	uint32_t count, current;
	uint32_t dial_ticks; /* until the next one may be dialled */
	pthread_mutex_t *lock;
	void (*wake)(void *arg); /* something may be possible now; takes no lock, may run in nng */
	void *arg;
};

/* What is to be done once the lock is left. */
struct pr_errands {
	struct pr_node *dial, *ping;
};

/* `urls` is a list with commas. `random` decides where to begin; that node is dialled. False: why
 * says what is wrong with which URL; close it all the same. */
RT_NODISCARD bool pr_nodes_open(
	struct pr_nodes *nodes, const char *urls, uint64_t random, char *why, size_t why_size);
/* Before close. After this nothing calls wake but pipes that end. */
void pr_nodes_stop(struct pr_nodes *nodes);
void pr_nodes_close(struct pr_nodes *nodes);

bool pr_node_connected(const struct pr_node *node);
/* The node to send to; NULL: none can be used now, and the errands may help. */
struct pr_node *pr_nodes_pick(struct pr_nodes *nodes, struct pr_errands *errands);
/* The node did not serve what it was asked, while others might. */
void pr_nodes_leave(struct pr_nodes *nodes, struct pr_node *node, struct pr_errands *errands);
/* What a try gets when there are other nodes to ask, after so many earlier ones; UINT32_MAX: all
 * the time there is. The node is told, and says by then that it has not begun. */
uint32_t pr_nodes_patience_ms(const struct pr_nodes *nodes, uint32_t tries);
/* A message goes to the node; it was answered, or the client has given it up. */
void pr_node_owes(struct pr_node *node, bool soon);
void pr_node_settled(struct pr_node *node, bool soon);
void pr_node_heard(struct pr_node *node);
/* The connection broke under a message. nng reports the pipe's end only later. */
void pr_node_broke(struct pr_node *node);
/* Once per tick of the clock while anything is outstanding. */
void pr_nodes_tick(struct pr_nodes *nodes, uint64_t now_ms, struct pr_errands *errands);

void pr_errands_run(struct pr_errands *errands);

#endif
