/*
 * dedupe.h - which command ids a shard has seen: exactly for the newest, by a filter for the rest.
 *
 * Ids whose record is not yet covered by the index watermark are here, with the record's offset.
 * Older ones are rows on disk; a Bloom filter in two generations says "never seen" for nearly every
 * fresh id, so that only repeats (and a few percent of false alarms) cost a read.
 *
 * Threads: the worker that owns the shard; ac_filter_add also on a reader thread for a filter that
 *          nobody else has.
 * Memory:  about 40 bytes per recent id; the filter takes up to 2 MiB a shard, only as ids arrive.
 */
#ifndef ACTORS_DEDUPE_H
#define ACTORS_DEDUPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/bytes.h"

#define AC_KEY_BYTES    16u
#define AC_FILTER_BYTES (1024u * 1024u)

/* An id as the tables know it: 16 bytes that are the id itself when it fits, else two hashes of it.
 */
struct ac_key {
	uint8_t bytes[AC_KEY_BYTES];
	uint64_t hash;
};
struct ac_key ac_key_of(struct rt_bytes id);

struct ac_filter {      /* one generation; zeroes are an empty one */
	uint64_t *bits; /* AC_FILTER_BYTES, or NULL */
	uint64_t count;
};
/* hash: ps_dedupe_hash of the id. */
void ac_filter_add(struct ac_filter *filter, uint64_t hash);
bool ac_filter_has(const struct ac_filter *filter, uint64_t hash);
void ac_filter_merge(struct ac_filter *into, struct ac_filter *from); /* empties from */
void ac_filter_clear(struct ac_filter *filter);

struct ac_recent {
	uint8_t key[AC_KEY_BYTES];
	uint64_t offset;
};

struct ac_dedupe {
	struct ac_recent *order; /* oldest first: a ring, power of two */
	uint32_t order_mask, order_head, order_count;
	/* Open addressing over the ring: 1 + position, 0 free. Four bytes an id, so that looking
	 * for an id that is not there seldom leaves the cache. */
	uint32_t *slots;
	uint32_t slot_mask;
	struct ac_filter filter[2]; /* newer, older */
	uint64_t window;            /* ids per generation */
	bool complete;              /* the filter knows every row on disk */
};

enum ac_seen {
	AC_SEEN_NEVER,
	AC_SEEN_RECENT, /* *out_offset is its record's */
	AC_SEEN_PERHAPS /* look on disk */
};

void ac_dedupe_init(struct ac_dedupe *dedupe, uint64_t window);
void ac_dedupe_done(struct ac_dedupe *dedupe);
/* *out_offset is set for AC_SEEN_RECENT only. */
enum ac_seen ac_dedupe_find(
	const struct ac_dedupe *dedupe, const struct ac_key *key, uint64_t *out_offset);
/* Offsets ascend, but for what was cut. */
void ac_dedupe_add(struct ac_dedupe *dedupe, const struct ac_key *key, uint64_t offset);
/* Forgets the exact entries at or below the index watermark; the filter still knows them. */
void ac_dedupe_prune(struct ac_dedupe *dedupe, uint64_t watermark);
/* Forgets the exact entries at or above offset: their records are no more. The filter keeps them,
 * which costs a look on disk. As slow as the table is long. */
void ac_dedupe_cut(struct ac_dedupe *dedupe, uint64_t offset);
/* Forgets everything: another log stands on disk, and whoever knows its ids fills the filter. */
void ac_dedupe_reset(struct ac_dedupe *dedupe);

#endif
