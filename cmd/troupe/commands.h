/*
 * commands.h - the subcommands. Each prints its answers and says how the process ends.
 */
#ifndef CMD_TROUPE_COMMANDS_H
#define CMD_TROUPE_COMMANDS_H

#include "cmd/troupe/options.h"

enum tr_exit tr_send(const struct tr_options *options);
enum tr_exit tr_query(const struct tr_options *options);
enum tr_exit tr_events(const struct tr_options *options);
enum tr_exit tr_state(const struct tr_options *options);
enum tr_exit tr_feed(const struct tr_options *options);
enum tr_exit tr_types(const struct tr_options *options);
enum tr_exit tr_describe(const struct tr_options *options);
enum tr_exit tr_status(const struct tr_options *options);
enum tr_exit tr_verify(const struct tr_options *options);
enum tr_exit tr_bench(const struct tr_options *options);

#endif
