/*
 * stats.h - what a worker has done, and what got lost.
 *
 * Threads: on the worker, or when it does not run.
 */
#ifndef RUNTIME_SCHED_STATS_H
#define RUNTIME_SCHED_STATS_H

#include "runtime/sched/envelope.h"

/* X(name, text) */
#define RT_DEAD_LIST(X)                                  \
	X(GONE, "no such actor")                         \
	X(STOPPED, "was in the mailbox when it stopped") \
	X(REFUSED, "mailbox full and no sender to tell") \
	X(LATE, "answer to nobody's question (any more)")

enum rt_dead {
#define X(name, text) RT_DEAD_##name,
	RT_DEAD_LIST(X)
#undef X
	RT_DEAD_KINDS
};

const char *rt_dead_text(enum rt_dead kind);

struct rt_worker_stats {
	uint64_t messages, turns;     /* handled */
	uint64_t parks, wakes;        /* times it blocked; times it woke another worker */
	uint64_t sent_away;           /* envelopes put into lanes */
	uint64_t refusals;            /* sends that got RT_E_FULL */
	uint64_t bounced;             /* requests from other workers sent back as refused or busy */
	uint64_t stalls;              /* turns that waited for room */
	uint64_t timeouts;            /* of asks */
	uint64_t failures, restarts;  /* of actors */
	uint64_t dead[RT_DEAD_KINDS]; /* dead letters by kind */
	uint32_t actors, queued;      /* now: living actors, messages in mailboxes */
	uint32_t pending, posts;      /* now: asks and alarms, posts not run yet */
};

void rt_worker_stats(struct rt_worker *worker, struct rt_worker_stats *out);

#define RT_DEAD_VISIBLE 16u

struct rt_dead_letter {
	uint64_t at_ms; /* rt_worker_now_ms */
	struct rt_ref to, from;
	uint32_t type;
	enum rt_dead kind;
};

/* The last ones, newest first; returns how many (max at most). */
uint32_t rt_worker_dead_letters(struct rt_worker *worker, struct rt_dead_letter *out, uint32_t max);

#endif
