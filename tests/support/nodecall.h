/*
 * nodecall.h - a node in this process for tests: opened in a fresh folder, called and waited for.
 */
#ifndef TESTS_SUPPORT_NODECALL_H
#define TESTS_SUPPORT_NODECALL_H

#include <uv.h>

#include "sharding/node.h"

struct t_node {
	char dir[64];
	struct ac_registry *registry;
	struct sh_node *node;
	struct sh_node_options options;
};

/* A call whose answer can be waited for. Strings must outlive it. */
struct t_call {
	struct ac_call call; /* first */
	uv_sem_t answered;
	char error[512];
};

/* Makes the folder and opens a node with the given aggregates (ends with NULL) in it. */
void t_node_open(struct t_node *t, const struct troupe_aggregate *const *aggregates,
	const struct sh_node_options *options);
void t_node_close(struct t_node *t);
void t_node_reopen(struct t_node *t);
void t_node_remove(struct t_node *t); /* closes, deletes the folder */

/* Submits without waiting; t_wait afterwards. kind, "type", "id", name, JSON payload. */
void t_submit(struct t_node *t, struct t_call *c, uint32_t kind, const char *path, const char *name,
	const char *json);
/* Waits; returns the code. The answer stays readable until t_end. */
uint32_t t_wait(struct t_call *c);
void t_end(struct t_call *c);
/* Everything at once; the payload as text in out (may be NULL). */
uint32_t t_call(struct t_node *t, uint32_t kind, const char *path, const char *name,
	const char *json, char *out, size_t out_size);

#endif
