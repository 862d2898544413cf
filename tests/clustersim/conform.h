/*
 * conform.h - the same random operations on the real store and on the one in memory, through the
 * interface that the product uses. What they answer is written down and has to be the same.
 *
 * One program is linked with the one, another with the other (conform_real.c, conform_mem.c): the
 * bed is what differs.
 */
#ifndef TESTS_CLUSTERSIM_CONFORM_H
#define TESTS_CLUSTERSIM_CONFORM_H

#include <stdatomic.h>
#include <stdio.h>

#include "persistence/catchup.h"
#include "persistence/indexer.h"
#include "persistence/reader.h"
#include "persistence/writer.h"

#define CONFORM_SHARDS 3u

struct conform_bed {
	struct ps_store *store;
	struct ps_writer *writer;
	struct ps_reader *reader;
	struct ps_indexer *indexer;
	struct ps_stage *stage;
	struct rt_worker *worker;
	void *inside;
};

/* A bed without data. */
void conform_bed_new(struct conform_bed *bed, uint64_t seed);
void conform_bed_free(struct conform_bed *bed);
void conform_bed_open(struct conform_bed *bed, bool leave_tail);
void conform_bed_close(struct conform_bed *bed); /* in order */
/* Until a completion has set it. */
void conform_bed_wait(struct conform_bed *bed, _Atomic bool *done);

/* Writes one line per answer. */
void conform_run(struct conform_bed *bed, uint64_t seed, uint32_t steps, FILE *out);

#endif
