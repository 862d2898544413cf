/*
 * pending.h - the calls a client has accepted and not yet answered: encoded bytes, a queue and a
 * wheel of deadlines.
 *
 * Threads: under the client's lock; a call that was taken out of queue, wheel and flight belongs to
 *          the thread that took it.
 * Limits:  every operation is O(1); a turn of the wheel looks at each call once in about 5 s.
 */
#ifndef PROTO_CLIENT_PENDING_H
#define PROTO_CLIENT_PENDING_H

#include "proto/client/client.h"
#include "runtime/base/bytes.h"

#define PR_WHEEL_SLOTS   512u
/* How late a deadline or the end of a back-off may be noticed. */
#define PR_WHEEL_TICK_MS 10u

#define PR_PENDING_OVERHEAD 24u /* tag, length, call id and time limit */

struct pr_answer;
struct pr_flight;

struct pr_pending {
	struct pr_pending *queue_next, *queue_prev;
	struct pr_pending *wheel_next, **wheel_link; /* wheel_link NULL: not in the wheel */
	struct pr_flight *flight;                    /* NULL: waits */
	uint32_t flight_index;
	uint64_t due_ms;      /* when the wheel hands it out */
	uint64_t deadline_ms; /* on nng_clock */
	troupe_answer_fn *done;
	void *arg;
	uint32_t attempts;
	int last_code;      /* of the last attempt that was answered; 0: none was */
	bool outcome_known; /* every attempt so far was answered with "nothing was written" */
	bool queued;
	bool slow; /* may wait for events: travels alone */
	uint16_t command_id_size;
	uint32_t command_id_at; /* in body */
	uint32_t body_size;     /* Call without call_id and timeout_ms, which each attempt adds */
	uint8_t body[];
};

struct pr_queue {
	struct pr_pending *head, *tail;
	uint32_t count;
};

struct pr_wheel {
	struct pr_pending *slots[PR_WHEEL_SLOTS];
	uint64_t tick; /* the last one that was looked at */
	uint32_t count;
};

/* The encoded copy of a call. id_number makes command ids: two random words and a count. NULL: out
 * of memory. The sizes were checked. */
struct pr_pending *pr_pending_new(const struct troupe_call *call, const uint64_t id_number[2]);

/* TROUPE_OK, TROUPE_BAD_REQUEST or TROUPE_TOO_LARGE. */
int pr_pending_check(const struct troupe_call *call);
/* One try: writes body_size + at most PR_PENDING_OVERHEAD bytes. call_id is index + 1, the place in
 * the flight; the node gets what is left of the deadline, but at most most_ms. */
uint8_t *pr_pending_put(uint8_t *at, const struct pr_pending *pending, uint32_t index, uint64_t now,
	uint64_t most_ms);

/* Each calls back and frees; no lock may be held, the call is in no list any more. */
void pr_pending_finish_answered(struct pr_pending *pending, const struct pr_answer *view);
void pr_pending_finish_own(struct pr_pending *pending, int code, const char *error);
void pr_pending_finish_expired(struct pr_pending *pending);

/* Answered so, a call may be tried again with the same command id. */
bool pr_may_retry(uint32_t code);

void pr_queue_push(struct pr_queue *queue, struct pr_pending *pending);
void pr_queue_remove(struct pr_queue *queue, struct pr_pending *pending);

void pr_wheel_add(struct pr_wheel *wheel, struct pr_pending *pending, uint64_t due_ms);
void pr_wheel_remove(struct pr_wheel *wheel, struct pr_pending *pending);
/* Takes out what is due, linked by wheel_next; looks at no more than one turn of the wheel. */
struct pr_pending *pr_wheel_due(struct pr_wheel *wheel, uint64_t now_ms);
/* Takes out any one; NULL: empty. O(slots), for closing. */
struct pr_pending *pr_wheel_any(struct pr_wheel *wheel);

#endif
