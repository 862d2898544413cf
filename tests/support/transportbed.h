/*
 * transportbed.h - nodes with a real transport, and what they saw.
 *
 * Threads: tests wait here for conditions; the transport's threads only count and signal.
 */
#ifndef TESTS_SUPPORT_TRANSPORTBED_H
#define TESTS_SUPPORT_TRANSPORTBED_H

#include <nng/nng.h>
#include <uv.h>

#include "sharding/handshake.h"

#define BED_NODES 8u
#define BED_KEY   "fedcba98765432100123456789abcdef"

/* The same for all nodes of this process and for no other: a test that runs beside this one may get
 * a port that a node here just left, and is not to be taken for it. Begins with 0. */
const char *bed_cluster(void);

struct bed_node {
	struct sh_transport_options options;
	struct sh_transport *transport;
	uv_mutex_t lock; /* of what follows */
	uv_cond_t seen;
	bool up[BED_NODES];
	uint32_t changes[BED_NODES]; /* calls of `changed` */
	uint64_t frames[BED_NODES][SH_LANES], bytes[BED_NODES][SH_LANES];
	uint64_t next[BED_NODES][SH_LANES]; /* number the next frame should have */
	bool disordered, busy[BED_NODES][SH_LANES], twice;
	bool keep; /* does not release */
	struct sh_frame *kept[4096];
	uint32_t kept_count;
	uint32_t refusals;
	char refusal[SH_REFUSAL_MAX + 1];
	char stranger[64]; /* key that `known` refuses, in which words */
	uint32_t asked;    /* calls of `known` */
};

/* Node of the bed's cluster on a free port of 127.0.0.1, instance and incarnation as the node says;
 * options may be changed before bed_start. */
void bed_prepare(struct bed_node *node, uint64_t id);
void bed_start(struct bed_node *node);
void bed_stop(struct bed_node *node); /* closes the transport, keeps what was seen */
void bed_done(struct bed_node *node); /* stops, releases what was kept */
/* a dials b. */
void bed_dial(struct bed_node *a, const struct bed_node *b);
/* Each is up for the other. */
void bed_connect(struct bed_node *a, struct bed_node *b);

uint64_t bed_frames(struct bed_node *node, uint64_t from, enum sh_lane lane);
/* These wait and fail the test when it does not come. */
void bed_wait_up(struct bed_node *node, uint64_t peer, bool up);
void bed_wait_changes(struct bed_node *node, uint64_t peer, uint32_t count);
void bed_wait_frames(struct bed_node *node, uint64_t from, enum sh_lane lane, uint64_t count);
void bed_wait_refusal(struct bed_node *node, const char *part);
void bed_wait_refusals(struct bed_node *node, uint32_t count);
void bed_wait_log(const char *part);

/* From now on `known` knows nobody with this key; NULL: everybody. */
void bed_shun(struct bed_node *node, const char *key);
void bed_release_kept(struct bed_node *node);
/* Numbered frames: the first 8 bytes count from 0. */
rt_err bed_send(
	struct bed_node *node, uint64_t to, enum sh_lane lane, uint64_t number, size_t size);

/* Lets time pass: the only way to see that something does not happen. */
void bed_idle(struct bed_node *node, uint64_t ms);

/* A peer that is not our transport: the other end of one connection, byte by byte. */
struct bed_fake {
	nng_stream_listener *listener; /* NULL: it dialled */
	char url[64];
	nng_aio *aio;
	nng_stream *lane[SH_LANES];
	struct sh_handshake heard;
};
void bed_fake_listen(struct bed_fake *fake);
/* Accepts one connection and reads its hello into heard; its lane is open then. */
void bed_fake_hear(struct bed_fake *fake);
/* Answers on that lane as node id of the bed's cluster. */
void bed_fake_welcome(struct bed_fake *fake, uint64_t id);
/* Until the node that dials it is up. */
void bed_fake_serve(struct bed_fake *fake, uint64_t id);
void bed_fake_dial(struct bed_fake *fake, const struct bed_node *node, enum sh_lane lane);
/* Greets as who and reads the answer into heard. */
void bed_fake_greet(struct bed_fake *fake, enum sh_lane lane, struct sh_handshake hello);
void bed_fake_send(struct bed_fake *fake, enum sh_lane lane, const void *bytes, size_t size);
bool bed_fake_try_send(struct bed_fake *fake, enum sh_lane lane, const void *bytes, size_t size);
/* Number of bytes, at most room; 0: the other side closed it. */
size_t bed_fake_recv(struct bed_fake *fake, enum sh_lane lane, void *bytes, size_t room);
void bed_fake_recv_all(struct bed_fake *fake, enum sh_lane lane, void *bytes, size_t size);
void bed_fake_done(struct bed_fake *fake);
/* What node id of the bed would say to a target. */
struct sh_handshake bed_hello(uint64_t id, uint64_t target, enum sh_lane lane);

/* Captures what is logged from now on; NULL-terminated lines in one text. */
void bed_log_begin(void);
bool bed_logged(const char *part);
uint32_t bed_log_count(const char *part);

#endif
