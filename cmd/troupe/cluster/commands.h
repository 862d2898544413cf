/*
 * commands.h - the subcommands of troupe cluster.
 */
#ifndef CMD_TROUPE_CLUSTER_COMMANDS_H
#define CMD_TROUPE_CLUSTER_COMMANDS_H

#include "cmd/troupe/options.h"

enum tr_exit tr_cluster_status(const struct tr_options *options);
enum tr_exit tr_cluster_drain(const struct tr_options *options);
enum tr_exit tr_cluster_move(const struct tr_options *options);
enum tr_exit tr_cluster_remove(const struct tr_options *options);
enum tr_exit tr_cluster_configure(const struct tr_options *options);
enum tr_exit tr_cluster_check(const struct tr_options *options);
enum tr_exit tr_cluster_up(const struct tr_options *options);

#endif
