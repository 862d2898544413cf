/*
 * handshake.h - the first words on a connection between nodes, as bytes.
 *
 * Who dialled says hello; the other side answers welcome, or a refusal with a reason in words. All
 * three are one shape: "TRPN", kind and size of the body (u16 little endian), and the body, fields
 * of protobuf in ascending order. A reader skips fields that it does not know, so that a later
 * version still learns why it is refused; kinds differ, so that nobody takes his own echo for an
 * answer.
 *
 * Memory: the URLs of a decoded handshake point into it: it is not to be copied.
 * Limits: bytes from a peer are never trusted. Decoding checks sizes, the order of fields, that
 *         names are what sh_identity says and URLs printable; of another version only the version.
 */
#ifndef SHARDING_HANDSHAKE_H
#define SHARDING_HANDSHAKE_H

#include "sharding/transport.h"

/* What this program speaks. */
#define SH_VERSION_MIN 1u
#define SH_VERSION_MAX 1u

#define SH_HANDSHAKE_HEAD 8u
#define SH_HANDSHAKE_MAX  4096u /* head and body */
#define SH_URL_MAX        255u
#define SH_REFUSAL_MAX    1023u

enum sh_greeting {
	SH_HELLO = 1,
	SH_WELCOME,
	SH_REFUSAL
};

struct sh_handshake {
	enum sh_greeting kind;
	uint32_t version_min,
		version_max;           /* welcome: both are the one that is spoken from now on */
	enum sh_lane lane;             /* hello */
	uint64_t target;               /* hello: the node it wants to talk to */
	struct sh_identity who;        /* not in a refusal */
	char text[SH_REFUSAL_MAX + 1]; /* refusal */
	char rpc[SH_URL_MAX + 1], peer[SH_URL_MAX + 1];
};

/* May this be said? rpc may be empty: a node that serves no clients yet. */
bool sh_identity_valid(const struct sh_identity *who);
/* who is valid, text ends; returns the size. */
size_t sh_handshake_encode(const struct sh_handshake *handshake, uint8_t out[SH_HANDSHAKE_MAX]);
/* From the first SH_HANDSHAKE_HEAD bytes: of how many bytes the whole is. RT_E_PROTO: none. */
RT_NODISCARD rt_err sh_handshake_size(const uint8_t *head, size_t *out);
/* Of the whole. RT_E_PROTO: malformed. RT_E_VERSION: a hello of versions that this program does not
 * speak; out has them and, where they are readable, node, cluster and URLs. */
RT_NODISCARD rt_err sh_handshake_decode(struct rt_bytes whole, struct sh_handshake *out);

#endif
