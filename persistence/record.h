/*
 * record.h - one entry of a shard's log, encoded and taken apart.
 *
 * A command's record holds all its events, its id and its answer, so they are stored or lost
 * together. The encoding is the protobuf message troupe.Record of persistence/record.proto, written
 * and read here without protobuf-c: one copy in, views out.
 *
 * Memory: a decoded record borrows the bytes it was decoded from.
 * Limits: bytes from a disk or a peer are never trusted: order, counts and lengths are checked, and
 *         what does not fit is RT_E_CORRUPT. Who encodes keeps to the limits below.
 */
#ifndef PERSISTENCE_RECORD_H
#define PERSISTENCE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

enum ps_kind {
	PS_KIND_COMMAND = 1, /* Events of one accepted command. */
	PS_KIND_NOOP = 2,    /* A new leader's first entry. */
	PS_KIND_MEMBERS = 3, /* Group membership; its bytes are in answer, opaque to this module. */
};

#define PS_PID_MAX        200u /* bytes of "type|id" */
#define PS_COMMAND_ID_MAX 64u
#define PS_EVENTS_MAX     1000u
#define PS_RECORD_MAX     (1024u * 1024u)
#define PS_MANIFEST_MAX   200u
#define PS_TAG_MAX        200u /* bytes; 1 at least, no NUL, like manifests and pids */
#define PS_TAGS_MAX       64u  /* per event */
#define PS_SEQ_MAX        (UINT64_C(1) << 62)

struct ps_event {
	struct rt_bytes manifest; /* event type name, e.g. "MoneyDeposited" */
	uint32_t version;         /* of the event type; 1, 2, 3... */
	struct rt_bytes payload;
	struct rt_bytes tags; /* encoded: repeated field 4; walk with ps_record_next_tag */
};

struct ps_record {
	uint64_t term;
	uint32_t kind;
	uint64_t time_ms; /* wall clock of acceptance, Unix milliseconds; informative only */
	struct rt_bytes pid;
	uint64_t first_seq; /* of the first event; the others follow without gap */
	struct rt_bytes command_id;
	uint32_t event_count;
	struct rt_bytes events; /* encoded: walk with ps_record_next_event */
	struct rt_bytes answer; /* the reply payload a repeat of the command gets */
};

/* Checks the whole record, events and tags too, so that walking it cannot fail afterwards. */
RT_NODISCARD rt_err ps_record_decode(struct rt_bytes bytes, struct ps_record *out);
/* Term, kind, time_ms, pid and first_seq only, for filters: nothing behind them is looked at. */
RT_NODISCARD rt_err ps_record_peek(struct rt_bytes bytes, struct ps_record *out);

/* Walks: *cursor starts as record->events (event->tags); false at the end. */
bool ps_record_next_event(struct rt_bytes *cursor, struct ps_event *out);
bool ps_record_next_tag(struct rt_bytes *cursor, struct rt_bytes *out_tag);

/* Encoding, sizes first, one copy. An event to be written has its tags as an array. */
struct ps_event_out {
	struct rt_bytes manifest;
	uint32_t version;
	struct rt_bytes payload;
	const struct rt_bytes *tags;
	uint32_t tag_count;
};
size_t ps_record_size(const struct ps_record *head, const struct ps_event_out *events);
/* Writes exactly ps_record_size bytes; head->event_count events; returns the end. */
uint8_t *ps_record_encode(
	uint8_t *at, const struct ps_record *head, const struct ps_event_out *events);

#endif
