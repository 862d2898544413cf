/*
 * message.h - what members of a shard's group say to each other, as bytes.
 *
 * A frame between two nodes is messages of any shards, one after the other. The encoding is that of
 * the protobuf message troupe.PeerMessage (sharding/peer.proto, each with its length in front),
 * written and read without protobuf-c like records: one copy in, views out.
 *
 * Memory: a decoded message borrows the frame.
 * Limits: bytes from a peer are never trusted. Decoding checks lengths and the order of fields;
 *         that the type is known, has such flags, and records or members only where they belong;
 *         that two different nodes talk; the limits below and that no number but a node is over
 *         2^62, a shard not over 65,535; every record as far as ps_record_peek looks. Whether it
 *         makes sense here and now is the receiver's question.
 */
#ifndef SHARDING_MESSAGE_H
#define SHARDING_MESSAGE_H

#include "sharding/raft.h"

#define SH_MESSAGE_BYTES   (256u * 1024u) /* of records in one message; one alone may be larger */
#define SH_MESSAGE_RECORDS 1024u
/* For who is far behind: what is written in one go with a piece waits for it. */
#define SH_PIECE_RECORDS   256u

struct sh_message {
	struct sh_raft_message head;
	uint32_t shard;
	const struct rt_bytes *records; /* head.count of them: APPEND, CHUNK */
	struct sh_raft_set set;         /* last CHUNK: the members in force at its end */
};

size_t sh_message_size(const struct sh_message *message);
/* Writes exactly sh_message_size bytes; returns the end. */
uint8_t *sh_message_encode(uint8_t *at, const struct sh_message *message);
/* Takes the first message off the frame. records has room for SH_MESSAGE_RECORDS; out->records
 * points to it. RT_E_PROTO: not a message; the frame is not to be read on. */
RT_NODISCARD rt_err sh_message_decode(
	struct rt_bytes *frame, struct sh_message *out, struct rt_bytes *records);

#endif
