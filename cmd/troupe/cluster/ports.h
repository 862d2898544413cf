/*
 * ports.h - which ports the nodes of a local cluster listen on.
 *
 * Each has two: for clients, and for nodes. A cluster that starts again takes the ones it had,
 * since its nodes remember where the others were; only those that something else has taken
 * meanwhile are replaced. They are kept in a file of the cluster's folder. Free ones are looked for
 * from 7470 on, below the range that outgoing connections use. Threads: one.
 */
#ifndef CMD_TROUPE_CLUSTER_PORTS_H
#define CMD_TROUPE_CLUSTER_PORTS_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define TR_NODES_MAX 16u

struct tr_ports {
	uint16_t rpc, peer;
};

/* Fills out[0..count). base 0: the ones in the file, or free ones; else base, base + 1, ...
 * RT_E_IO: the file cannot be read or written. RT_E_FULL: a port that was asked for is in use, or
 * none is free. */
RT_NODISCARD rt_err tr_ports_settle(const char *file, size_t count, uint64_t base,
	struct tr_ports *out, struct rt_errinfo *info);

#endif
