/*
 * shardbed.h - one shard on a real store, writer, indexer and reader, with the test in the place of
 * the region and its replica: the test says when a round is written and what is committed.
 *
 * Threads: everything is called on the main thread, which asserts; bed_do runs a function on the
 *          worker and waits, so that what one function does is one turn: no job ends inside it.
 */
#ifndef TESTS_SUPPORT_SHARDBED_H
#define TESTS_SUPPORT_SHARDBED_H

#include <uv.h>

#include "actors/shard.h"

struct bed_call {
	struct ac_call call; /* first */
	uv_sem_t over;       /* answered or moved */
	bool moved;
	char text[512]; /* payload or error */
};

struct bed {
	char dir[64];
	struct ac_registry *registry;
	struct rt_system *system;
	struct rt_worker *worker;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader; /* one thread, so that bed_hold_reads holds everything */
	struct ac_host host;
	struct ac_shard shard;
	uint64_t staged;
	uv_sem_t stepped, reads;
	/* host.confirm, when the test sets it to bed_confirm */
	bool confirm_drops;   /* the shard is dropped from inside it */
	bool confirm_commits; /* or everything is committed */
	bool confirm_keeps;   /* it takes the call */
	uint32_t confirms;
	struct ac_call *kept;
};

void bed_open(struct bed *bed); /* with host.moved; follows nobody, leads nothing */
void bed_close(struct bed *bed);
void bed_do(struct bed *bed, void (*run)(struct bed *bed, void *arg), void *arg);
bool bed_confirm(struct ac_host *host, struct ac_shard *shard, struct ac_call *call);

/* The round of the last turns is proposed and on disk, and back. */
void bed_write(struct bed *bed);
/* ... or is taken back. */
void bed_discard(struct bed *bed);
/* Another log: from `from` on there is one record, a deposit into account "a" as its event of the
 * same number, with this command id. A wrong balance is a contradiction. */
void bed_replace(struct bed *bed, uint64_t from, int64_t amount, int64_t balance, const char *id);
/* Records from `from` on are cut off. */
void bed_cut(struct bed *bed, uint64_t from);
/* Records up to here go to the indexer, and the shard is told, leading or following. */
void bed_commit(struct bed *bed, uint64_t upto);
void bed_index(struct bed *bed); /* waits until what was staged is indexed */
/* bed_commit of the whole log, bed_index, ac_shard_lead. */
void bed_lead(struct bed *bed, uint64_t term);
void bed_drop(struct bed *bed);
/* Reads wait in the reader until released; each hold needs its release. */
void bed_hold_reads(struct bed *bed);
void bed_release_reads(struct bed *bed);

/* Fills a call of account `id`; payload is JSON, for EVENTS and STATE packed. Strings are kept. */
void bed_call(
	struct bed_call *c, uint32_t kind, const char *id, const char *name, const char *payload);
void bed_command_id(struct bed_call *c, const char *id);
/* To ac_shard_call (arg is the bed_call), for bed_do. */
void bed_submit(struct bed *bed, void *call);
void bed_read(struct bed *bed, void *call); /* to ac_shard_read */
/* Waits for the end; the code, or BED_MOVED. */
#define BED_MOVED 1000u
uint32_t bed_wait(struct bed_call *c);
/* False: neither answered nor moved yet. */
bool bed_is_over(struct bed_call *c);
/* A whole call: submit, write, commit, wait; the answer's text stays in *c. */
uint32_t bed_run(struct bed *bed, struct bed_call *c);
void bed_end(struct bed_call *c); /* frees what it holds */
/* bed_call to bed_end; text: NULL, or has the room of bed_call's. */
uint32_t bed_ask(struct bed *bed, uint32_t kind, const char *id, const char *name,
	const char *payload, char *text);

#endif
