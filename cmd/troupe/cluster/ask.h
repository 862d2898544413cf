/*
 * ask.h - questions about the cluster, and commands to its coordinator.
 *
 * Threads: one. Blocking: until the answer or --timeout.
 */
#ifndef CMD_TROUPE_CLUSTER_ASK_H
#define CMD_TROUPE_CLUSTER_ASK_H

#include "cmd/troupe/client.h"
#include "cmd/troupe/cluster/view.h"

/* The call for "status" or "hash"; payload is JSON text, borrowed, "" for none. */
struct troupe_call tr_cluster_call(const char *name, const char *payload);

/* Asks for the status. What went wrong is on standard error; TR_DONE: out is to be freed. */
enum tr_exit tr_cluster_view(
	const struct tr_options *options, struct troupe_client *client, struct tr_view *out);
/* The same with a client of its own. */
enum tr_exit tr_cluster_look(const struct tr_options *options, struct tr_view *out);

/* Sends a command to the entity "cluster" and prints what became of it. */
enum tr_exit tr_cluster_command(
	const struct tr_options *options, const char *name, const char *json);

#endif
