/*
 * client.h - what the subcommands share: one call to the node, and what its failure looks like.
 *
 * Threads: one. Blocking: until the answer or --timeout.
 */
#ifndef CMD_TROUPE_CLIENT_H
#define CMD_TROUPE_CLIENT_H

#include "cmd/troupe/options.h"
#include "proto/client/client.h"
#include "proto/json.h"

/* NULL: the reason is on standard error. */
struct troupe_client *tr_client_open(const struct tr_options *options);

/* TYPE/ID taken apart; false: said so on standard error. out_type must be freed, out_id is in it.
 */
bool tr_entity_of(const char *word, char **out_type, const char **out_id);

/* Calls, and says on standard error what went wrong unless the answer is OK, a refusal or a
 * conflict. The answer is to be freed in any case. */
enum tr_exit tr_client_ask(const struct tr_options *options, struct troupe_client *client,
	const struct troupe_call *call, struct troupe_answer *out);
enum tr_exit tr_exit_of(int code);

/* --stale and --after into a read. */
void tr_read_options(const struct tr_options *options, struct troupe_call *call);
/* The answer is about the shard that --after names, else said so: an offset of another shard means
 * nothing. */
enum tr_exit tr_check_after(const struct tr_options *options, const struct troupe_answer *answer);

/* What became of a command: one line. */
void tr_print_sent(const struct troupe_call *call, const struct troupe_answer *answer);
#define TR_MADE_ID_BYTES 33u
/* A random command id, printable, so that it can be given again with --command-id. */
void tr_make_id(char out[TR_MADE_ID_BYTES]);
/* Sends a command and prints what became of it. */
enum tr_exit tr_send_call(const struct tr_options *options, const struct troupe_call *call);

/* Prints the line and empties it. False: nobody reads standard output any more. */
bool tr_print_line(struct pr_text *line);

/* As text when printable, else in hexadecimal; quoted. */
void tr_add_command_id(struct pr_text *line, const void *id, size_t size);

/* "; did you mean ...?" for the part of the call that the node does not know, else "". */
void tr_suggest(const struct tr_options *options, struct troupe_client *client,
	const struct troupe_call *call, char *out, size_t room);

#endif
