/*
 * config.h - the settings of trouped: from flags, then a file, then defaults.
 *
 * The file holds `key = value` lines with the names of the flags; # starts a comment line; rpc,
 * join and module may stand more than once. A flag given at all replaces what the file says under
 * that name.
 * Memory: strings are copied; td_config_done frees them. Threads: one.
 */
#ifndef CMD_TROUPED_CONFIG_H
#define CMD_TROUPED_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/base/err.h"
#include "runtime/base/log.h"

#define TD_LIST_MAX 16u

struct td_list {
	char *items[TD_LIST_MAX];
	size_t count;
};

struct td_config {
	char *data;
	struct td_list rpc, modules;
	uint64_t workers, shards, memory_bytes, passivate_s, snapshot_every; /* 0: the node's own */
	bool create;
	bool listen_anywhere;
	enum rt_log_level log_level;

	char *cluster; /* where other nodes call: given, or the host of the first tcp rpc URL and
			  its port + 1 (0 stays 0) */
	char *advertise_rpc, *advertise_cluster, *name; /* NULL: not given */
	struct td_list join;                            /* rpc URLs of members */
	uint64_t replication, election_ms, heartbeat_ms, dead_after_s;

	/* From flags only. */
	char *file;
	bool print_config, help, version;
};

/* RT_E_INVAL: info->text is for the user, with the line of the file or the flag in it. RT_E_IO: the
 * file cannot be read. Call td_config_done in any case. */
RT_NODISCARD rt_err td_config_read(
	int argc, const char *const *argv, struct td_config *out, struct rt_errinfo *info);
void td_config_done(struct td_config *config);

/* All settings in the format of the file: reading them back gives the same. */
void td_config_print(const struct td_config *config, FILE *to);
void td_config_help(FILE *to);

#endif
