#include "sharding/outgoing.h"

#include <stdlib.h>

#include "runtime/base/assert.h"
#include "sharding/transport.h"

#define ROOM_MIN  4096u
#define ROOM_KEPT (256u * 1024u)

struct sh_outgoing_peer {
	uint64_t node;
	struct gathered {
		uint8_t *bytes;
		size_t size, cap;
	} frame[SH_OUTGOING_KINDS];
};

static const enum sh_lane lane_of[SH_OUTGOING_KINDS] = {
	[SH_OUTGOING_RAFT] = SH_LANE_RAFT,
	[SH_OUTGOING_BULK] = SH_LANE_BULK,
	[SH_OUTGOING_CALLS] = SH_LANE_CALL,
	[SH_OUTGOING_ANSWERS] = SH_LANE_CALL,
	[SH_OUTGOING_SNAPSHOTS] = SH_LANE_CALL,
};
static const uint8_t first_byte[SH_OUTGOING_KINDS] = {
	[SH_OUTGOING_CALLS] = SH_FRAME_CALLS,
	[SH_OUTGOING_ANSWERS] = SH_FRAME_ANSWERS,
	[SH_OUTGOING_SNAPSHOTS] = SH_FRAME_SNAPSHOTS,
};

static struct sh_outgoing_peer *find(struct sh_outgoing *out, uint64_t node)
{
	for (uint32_t i = 0; i < out->count; i++) {
		if (out->peers[i].node == node) {
			return &out->peers[i];
		}
	}
	if (out->count == out->cap) {
		uint32_t cap = out->cap == 0 ? 4 : out->cap * 2;
		struct sh_outgoing_peer *peers = realloc(out->peers, cap * sizeof(*peers));
		if (peers == NULL) {
			return NULL;
		}
		out->peers = peers;
		out->cap = cap;
	}
	out->peers[out->count] = (struct sh_outgoing_peer){.node = node};
	return &out->peers[out->count++];
}

/* Answers are waited for: who asked may be connected to this node before this node is to it. */
static bool may_wait(enum sh_outgoing_kind kind, const struct gathered *frame)
{
	return kind == SH_OUTGOING_ANSWERS && frame->size <= SH_ANSWERS_KEPT;
}

static void send(
	struct sh_outgoing *out, uint64_t node, enum sh_outgoing_kind kind, struct gathered *frame)
{
	if (frame->size == 0) {
		return;
	}
	struct rt_bytes bytes = rt_bytes_of(frame->bytes, frame->size);
	if (out->wire->send(out->wire->arg, node, lane_of[kind], bytes) != RT_OK) {
		if (may_wait(kind, frame)) {
			return;
		}
		out->lost(out->arg, node, kind);
	}
	frame->size = 0;
	if (frame->cap > ROOM_KEPT) { /* One burst is no reason to stay large. */
		free(frame->bytes);
		*frame = (struct gathered){0};
	}
}

uint8_t *sh_outgoing_room(
	struct sh_outgoing *out, uint64_t node, enum sh_outgoing_kind kind, size_t size)
{
	struct sh_outgoing_peer *peer = out->wire == NULL ? NULL : find(out, node);
	if (peer == NULL || size + 1 > SH_FRAME_MAX) {
		return NULL;
	}
	struct gathered *frame = &peer->frame[kind];
	if (frame->size + size > SH_FRAME_MAX) {
		send(out, node, kind, frame);
	}
	if (frame->cap < frame->size + size + 1) {
		size_t cap = frame->cap == 0 ? ROOM_MIN : frame->cap * 2;
		cap = cap < frame->size + size + 1 ? frame->size + size + 1 : cap;
		uint8_t *bytes = realloc(frame->bytes, cap);
		if (bytes == NULL) {
			return NULL;
		}
		frame->bytes = bytes;
		frame->cap = cap;
	}
	RT_ASSERT(frame->bytes != NULL);
	if (frame->size == 0 && first_byte[kind] != 0) {
		frame->bytes[frame->size++] = first_byte[kind];
	}
	uint8_t *at = frame->bytes + frame->size;
	frame->size += size;
	out->dirty = true;
	return at;
}

void sh_outgoing_up(struct sh_outgoing *out)
{
	out->dirty = true;
}

void sh_outgoing_flush(struct sh_outgoing *out)
{
	if (!out->dirty) {
		return;
	}
	out->dirty = false;
	for (uint32_t i = 0; i < out->count; i++) {
		for (uint32_t kind = 0; kind < SH_OUTGOING_KINDS; kind++) {
			send(out, out->peers[i].node, (enum sh_outgoing_kind)kind,
				&out->peers[i].frame[kind]);
		}
	}
}

void sh_outgoing_done(struct sh_outgoing *out)
{
	for (uint32_t i = 0; i < out->count; i++) {
		for (uint32_t kind = 0; kind < SH_OUTGOING_KINDS; kind++) {
			free(out->peers[i].frame[kind].bytes);
		}
	}
	free(out->peers);
	out->peers = NULL;
	out->count = out->cap = 0;
}
