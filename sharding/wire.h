/*
 * wire.h - how the shards of a node reach other nodes: a port, so that the simulator can be the
 * network.
 */
#ifndef SHARDING_WIRE_H
#define SHARDING_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

/* One does not queue behind another. */
enum sh_lane {
	SH_LANE_RAFT, /* consensus: peer.proto messages */
	SH_LANE_CALL, /* calls and answers, tables and reports: frame.h */
	SH_LANE_BULK, /* shards that are streamed: peer.proto messages with many records */
	SH_LANES
};

struct sh_wire {
	/* Copies. RT_E_CLOSED: not connected. RT_E_FULL: too much waits. */
	rt_err (*send)(void *arg, uint64_t node, enum sh_lane lane, struct rt_bytes frame);
	/* A frame would have a chance. */
	bool (*up)(void *arg, uint64_t node);
	void *arg;
};

#endif
