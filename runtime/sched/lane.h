/*
 * lane.h - bounded one-way queue of envelopes from one worker to another.
 *
 * Threads:  exactly one worker sends, exactly one receives.
 * Order:    FIFO. Nothing is promised between two lanes.
 * Memory:   send copies the envelope and leaves the original with the caller; a slot is free again
 *           as soon as it is copied out, not when it is handled: an actor that waits for room keeps
 *           its own message, and two of them would wait for each other.
 * Limits:   slots is a power of two; a full lane is an answer, not a wait.
 * Blocking: never. After creation nothing here allocates or enters the kernel.
 */
#ifndef RUNTIME_SCHED_LANE_H
#define RUNTIME_SCHED_LANE_H

#include <stdalign.h>
#include <stdatomic.h>

#include "runtime/sched/envelope.h"

struct rt_lane {
	alignas(RT_CACHELINE) _Atomic uint32_t tail; /* written by the sender */
	alignas(RT_CACHELINE) _Atomic uint32_t head; /* written by the receiver */
	/* The sender's. */
	alignas(RT_CACHELINE) struct rt_envelope *w_slots;
	uint32_t w_mask, w_tail, w_head_seen, w_published;
	/* The receiver's. */
	alignas(RT_CACHELINE) const struct rt_envelope *r_slots;
	uint32_t r_mask, r_head, r_tail_seen;
};

RT_NODISCARD rt_err rt_lane_init(struct rt_lane *lane, uint32_t slots);
void rt_lane_done(struct rt_lane *lane);

/* Sender. Pairs with the release in rt_lane_release: the slots before head have been copied out. */
static inline bool rt_lane_has_room(struct rt_lane *lane)
{
	if (lane->w_tail - lane->w_head_seen > lane->w_mask) {
		lane->w_head_seen = atomic_load_explicit(&lane->head, memory_order_acquire);
	}
	return lane->w_tail - lane->w_head_seen <= lane->w_mask;
}

/* Sender, only with room. Nothing is visible to the receiver before rt_lane_publish. */
static inline void rt_lane_put(struct rt_lane *lane, const struct rt_envelope *env)
{
	lane->w_slots[lane->w_tail++ & lane->w_mask] = *env;
}

/* Sender. True: there was something. Pairs with the acquire in rt_lane_look. */
static inline bool rt_lane_publish(struct rt_lane *lane)
{
	if (lane->w_published == lane->w_tail) {
		return false;
	}
	lane->w_published = lane->w_tail;
	atomic_store_explicit(&lane->tail, lane->w_tail, memory_order_release);
	return true;
}

/* Receiver: what is published from here on waits for the next look, so that one lane cannot keep
 * its reader for ever. Pairs with the release in rt_lane_publish. */
static inline void rt_lane_look(struct rt_lane *lane)
{
	lane->r_tail_seen = atomic_load_explicit(&lane->tail, memory_order_acquire);
}

/* Receiver: borrows the oldest envelope until rt_lane_next; NULL: none at the last look. */
static inline const struct rt_envelope *rt_lane_peek(const struct rt_lane *lane)
{
	bool any = lane->r_head != lane->r_tail_seen;
	return any ? &lane->r_slots[lane->r_head & lane->r_mask] : NULL;
}

static inline void rt_lane_next(struct rt_lane *lane)
{
	lane->r_head++;
}

/* Receiver: gives the slots read so far back to the sender. */
static inline void rt_lane_release(struct rt_lane *lane)
{
	atomic_store_explicit(&lane->head, lane->r_head, memory_order_release);
}

#endif
