/*
 * read.h - reads an entity's stream off the worker: what the index has, page by page, then the
 * newest records, whose offsets only the entity in memory knows.
 *
 * Threads: start and done on the worker, in between a reader thread has it.
 * Memory:  the owner's; ac_read_clear frees what a page brought.
 */
#ifndef ACTORS_READ_H
#define ACTORS_READ_H

#include "actors/entity.h"

struct ac_read {
	struct ps_load load; /* first, so that its job leads back here */
	uint8_t pid[PS_PID_MAX];
	uint64_t *tail; /* offsets that the index may not have yet, ascending */
	uint32_t tail_count, tail_read;
	struct rt_bytes *tail_records;
	void (*done)(struct ac_read *read);
};

/* hash: of pid. Everything that is committed now will be read. */
void ac_read_init(
	struct ac_read *read, const struct ac_shard *shard, struct rt_bytes pid, uint64_t hash);
/* Reads the page that starts at load.from_seq; done runs on the worker. An error ends in
 * load.err, RT_E_FULL included. */
void ac_read_start(struct ac_read *read, struct ac_host *host);
/* The records of the page in order, then, when it was the last, those of the tail. */
bool ac_read_next(const struct ac_read *read, size_t *cursor, uint64_t *out_offset,
	struct rt_bytes *out_record);
/* Frees the page; the tail stays for the next one. */
void ac_read_clear(struct ac_read *read);
void ac_read_done(struct ac_read *read);

#endif
