/*
 * world.h - a small group of the real core with everything around it as plain, copyable data.
 *
 * Each node has its own clock and disk: what was not completed is lost in a crash. Messages in
 * flight are a set: any of them may come next, or never, which is all that a network may lose or
 * reorder. A step is one thing that happens to one node; the checks of spec/raft.md run after each.
 *
 * Memory: a world is copied by ex_world_copy; nothing in it is on the heap.
 * Limits: EX_*; a world that would pass one of them is marked as violated, so none is passed
 *         unseen, but for messages: a full network loses its oldest, and counts them.
 */
#ifndef TESTS_EXPLORE_WORLD_H
#define TESTS_EXPLORE_WORLD_H

#include "sharding/raft.h"

#define EX_NODES    4u
#define EX_LOG      12u /* entries */
#define EX_BATCH    8u  /* entries in a message or a write */
#define EX_MESSAGES 40u
#define EX_WRITES   8u
#define EX_PARKED   12u
#define EX_TERMS    12u
#define EX_SETS     5u
#define EX_STEPS    160u

struct ex_entry {
	uint8_t term;
	uint8_t set; /* 0: an ordinary record, else 1 + position in the scenario's sets */
};

struct ex_message { /* struct sh_raft_message in small */
	uint8_t type, flags, from, to, term, index, log_term, commit, hint, count;
	uint16_t round;
	uint32_t stamp;
	struct ex_entry entry[EX_BATCH];
};

enum ex_write_kind {
	EX_WRITE_HARD,
	EX_WRITE_APPEND,
	EX_WRITE_INSTALLING
};
struct ex_write {
	uint8_t kind, term, vote, from, count; /* INSTALLING: term and from are the bar */
	bool truncate;
	uint16_t generation;
	struct ex_entry entry[EX_BATCH];
};

struct ex_disk {
	uint8_t term, vote, floor, size, bar_term, bar_index;
	bool installing; /* the mark of an install */
	bool blank;      /* knows no members but those in its log */
	bool removed;
	struct ex_entry log[EX_LOG + 1]; /* from 1 */
};

struct ex_node {
	struct sh_raft raft;
	struct sh_raft_run runs[EX_LOG * 2 + 2];
	struct sh_raft_set sets[EX_LOG + 4];
	uint64_t clock;
	uint8_t size;                    /* of the log as the core wants it */
	struct ex_entry log[EX_LOG + 1]; /* from 1 */
	struct ex_disk disk;
	uint8_t write_count, parked_count;
	struct ex_write write[EX_WRITES];
	struct ex_message parked[EX_PARKED];
	uint8_t parked_after[EX_PARKED]; /* writes to complete before it leaves */
};

enum ex_step_kind {
	EX_DELIVER,      /* a message */
	EX_DELIVER_LATE, /* a request for a vote, when the leader's protection is over */
	EX_REPEAT,       /* delivers a message and keeps it in flight */
	EX_DISK,         /* the oldest write of a node completes */
	EX_CRASH,        /* and restart */
	EX_TIMEOUT,      /* a node campaigns; arg: who is asked and answers the pre-vote at once */
	EX_BEAT,         /* a leader's heartbeat is due */
	EX_SILENCE,      /* a leader finds out that it is not heard */
	EX_PROPOSE,
	EX_CHANGE, /* arg: position in the scenario's sets */
	EX_READ,
	EX_TRANSFER, /* arg: to whom */
	EX_COMPACT,
	EX_FETCHED, /* the shard of the source of an install is here and durable */
	EX_RENEW,   /* a removed node begins anew */
	EX_STEP_KINDS
};
struct ex_step {
	uint8_t kind, node, arg;
};

struct ex_image { /* what a node starts from */
	uint8_t term, vote;
	const char *log; /* a character per entry: its term 1..9, or a..e: a set, in the term of
			    `sets_term` */
};

struct ex_scenario {
	const char *name, *about;
	uint8_t nodes, set_count, term_max;
	uint8_t sets_term;               /* of entries a..e of an image */
	struct sh_members sets[EX_SETS]; /* the first: where all begin */
	struct ex_image image[EX_NODES];
	const char *prefix;               /* steps before the search, see ex_prefix */
	uint8_t budget[EX_STEP_KINDS];    /* how often; messages, DISK and FETCHED: any number */
	uint8_t crash_mask, timeout_mask; /* nodes that may, 0: all */
	uint8_t slow_disks;               /* nodes whose writes complete by a step of their own */
	bool fine_prevotes;               /* pre-votes are messages like others */
	bool beats;                       /* the first heartbeats of a leader are kept too */
	bool one_clock;                   /* clocks are one, so that leases mean something */
	uint8_t batch;                    /* entries in a message */
	uint8_t depth, quick_depth;       /* how deep it goes by hand and in CI */
};

struct ex_read {
	uint8_t node, need; /* node 0: none under way */
	struct sh_raft_read read;
};

struct ex_world {
	const struct ex_scenario *scenario;
	bool bad;
	uint8_t budget[EX_STEP_KINDS];
	/* What an observer of the whole has seen. */
	struct ex_entry committed[EX_LOG + 1];
	uint8_t committed_in[EX_LOG + 1]; /* the term of who said so first */
	uint8_t leader_of[EX_TERMS + 1];
	uint8_t answered; /* committed entries that a client may know of */
	struct ex_read read;
	uint8_t message_count;
	struct ex_message message[EX_MESSAGES];
	struct ex_node node[EX_NODES]; /* node i + 1 */
};

void ex_world_init(struct ex_world *world, const struct ex_scenario *scenario);
void ex_world_copy(struct ex_world *to, const struct ex_world *from);
/* The scenario's steps before the search: words of a letter and nodes, see step.c. */
void ex_prefix(struct ex_world *world);
/* All that may happen next. */
uint32_t ex_steps(const struct ex_world *world, struct ex_step steps[EX_STEPS]);
/* world->bad afterwards: a check failed, ex_reason says which. */
void ex_apply(struct ex_world *world, struct ex_step step);
/* Equal for worlds that have the same future. */
uint64_t ex_hash(const struct ex_world *world);

const char *ex_reason(void);
uint64_t ex_lost(void); /* messages that found the network full, ever */
void ex_print_step(const struct ex_world *before, struct ex_step step);
void ex_print_world(const struct ex_world *world);

/* ---- between world.c, step.c and state.c ---- */
__attribute__((format(printf, 2, 3))) void ex_fail(struct ex_world *world, const char *format, ...);
/* Acts on what the core put out; cause: the message that it was about. */
void ex_act(struct ex_world *world, uint32_t at, const struct ex_message *cause);
void ex_deliver(struct ex_world *world, const struct ex_message *m);
void ex_disk(struct ex_world *world, uint32_t at);
void ex_restart(struct ex_world *world, uint32_t at);
void ex_renew(struct ex_world *world, uint32_t at);
void ex_fetched(struct ex_world *world, uint32_t at);
/* Messages that can do nothing any more. */
void ex_drop_void(struct ex_world *world);
void ex_take_message(struct ex_world *world, uint32_t at);
void ex_check(struct ex_world *world);
/* Position + 1 of the last set in log[1..upto], 0: the first one of all; *index: of its entry. */
uint8_t ex_last_set(const struct ex_entry *log, uint32_t upto, uint32_t *index);
extern bool ex_keep_beats;

#endif
