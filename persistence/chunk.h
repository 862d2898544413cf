/*
 * chunk.h - many committed records sorted into index, dedupe and tag rows at once. Private to this
 * module: the indexer fills chunks from workers, open fills one from the log.
 *
 * Order:   dedupe and tag rows go to table files that are ingested first, then the index rows in
 *          small batches, the watermark in the last one. Index rows and watermark are one family,
 *          so a memtable that reaches the disk with the watermark holds or follows the rows. A row
 *          before them says how far the chunk goes, so that rows of one that a crash cut off are
 *          found again, however the records are cut into chunks then.
 * Memory:  a staged record is a header and its bytes in one piece; a chunk borrows them.
 * Threads: one at a time.
 */
#ifndef PERSISTENCE_CHUNK_H
#define PERSISTENCE_CHUNK_H

#include "persistence/db.h"
#include "persistence/record.h"

struct ps_staged {
	uint64_t offset, first_seq;
	uint64_t hash;   /* of the command id, meaningful when has_id */
	uint64_t locate; /* the id's first eight bytes: sorts like the pid within a type */
	uint32_t events;
	uint32_t tags_size; /* after the pid: size u8 and bytes of each */
	uint16_t shard;
	uint16_t pid_size; /* 0: only moves the watermark */
	uint16_t wipes;    /* of its shard when it was staged, the lower half */
	bool has_id;
	uint8_t bytes[]; /* pid, tags */
};

/* Bytes to reserve, a multiple of 8, and the copy into 8-aligned memory of that size. */
size_t ps_staged_size(const struct ps_record *record);
size_t ps_staged_bytes(const struct ps_staged *staged);
void ps_staged_put(
	struct ps_staged *at, uint32_t shard, uint64_t offset, const struct ps_record *record);

struct ps_chunk;
struct ps_chunk *ps_chunk_new(struct ps_store *store); /* NULL: out of memory */
void ps_chunk_free(struct ps_chunk *chunk);
/* Offsets of one shard ascend, between wipes. RT_E_NOMEM. */
RT_NODISCARD rt_err ps_chunk_add(struct ps_chunk *chunk, const struct ps_staged *staged);
size_t ps_chunk_count(const struct ps_chunk *chunk);
/* Forgets what was added. */
void ps_chunk_clear(struct ps_chunk *chunk);
/* Writes the rows, moves the watermarks, empties the chunk. What is of a log that was wiped since
 * is left out. A failure fails the store, but for RT_E_NOSPACE with ps_db_writable still RT_OK: the
 * chunk is as it was, to be written later. */
RT_NODISCARD rt_err ps_chunk_write(struct ps_chunk *chunk, struct rt_errinfo *info);

#endif
