/*
 * address.h - where a node listens, and what it tells others to call.
 *
 * Without --cluster other nodes call the host of the first tcp rpc URL at its port + 1; port 0
 * stays 0. A node that listens to all clients (0.0.0.0) and says nothing about a cluster does not
 * open a second port to everybody: then it is loopback's. Threads: one.
 */
#ifndef CMD_TROUPED_ADDRESS_H
#define CMD_TROUPED_ADDRESS_H

#include "cmd/trouped/config.h"

/* Fills config->cluster unless it was given. RT_E_INVAL: no port follows from the rpc URL. */
RT_NODISCARD rt_err td_address_derive(struct td_config *config, struct rt_errinfo *info);

/* RT_E_INVAL: not a URL; one that other machines reach though nobody said so; one for all addresses
 * where others must be told a single one. */
RT_NODISCARD rt_err td_address_check(const struct td_config *config, struct rt_errinfo *info);

#endif
