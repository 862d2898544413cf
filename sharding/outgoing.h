/*
 * outgoing.h - what one worker says to other nodes in one turn, gathered to one frame per node and
 * kind.
 *
 * Threads: the worker.
 * Memory:  copies nothing twice: who says something writes it straight into the frame.
 * Limits:  SH_FRAME_MAX bytes a frame; a fuller one is sent before the turn ends. Answers that the
 *          wire does not take stay, up to SH_ANSWERS_KEPT bytes for a node, and go with the next.
 */
#ifndef SHARDING_OUTGOING_H
#define SHARDING_OUTGOING_H

#include <stddef.h>

#include "sharding/wire.h"

enum sh_outgoing_kind {
	SH_OUTGOING_RAFT,
	SH_OUTGOING_BULK,
	SH_OUTGOING_CALLS,   /* troupe.Batch behind a byte SH_FRAME_CALLS */
	SH_OUTGOING_ANSWERS, /* troupe.Answers behind a byte SH_FRAME_ANSWERS */
	SH_OUTGOING_SNAPSHOTS,
	SH_OUTGOING_KINDS
};

/* First byte of a frame of the CALL lane. */
enum sh_frame_kind {
	SH_FRAME_CALLS = 1,
	SH_FRAME_ANSWERS,
	SH_FRAME_TABLE,    /* troupe.cluster.ClusterTable */
	SH_FRAME_REPORT,   /* troupe.cluster.NodeReport */
	SH_FRAME_SNAPSHOTS /* troupe.cluster.EntitySnapshots */
};

#define SH_ANSWERS_KEPT 65536u

struct sh_outgoing_peer;
struct sh_outgoing {
	const struct sh_wire *wire;
	struct sh_outgoing_peer *peers;
	uint32_t count, cap;
	bool dirty;
	/* A frame was not taken: what it held will not arrive. */
	void (*lost)(void *arg, uint64_t node, enum sh_outgoing_kind kind);
	void *arg;
};

/* Room for size bytes behind what is there already. NULL: no memory, or too large for a frame. */
uint8_t *sh_outgoing_room(
	struct sh_outgoing *out, uint64_t node, enum sh_outgoing_kind kind, size_t size);
/* A connection stands: what was kept goes with the next flush. */
void sh_outgoing_up(struct sh_outgoing *out);
/* Sends what was gathered. */
void sh_outgoing_flush(struct sh_outgoing *out);
void sh_outgoing_done(struct sh_outgoing *out);

#endif
