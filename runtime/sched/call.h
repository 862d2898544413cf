/*
 * call.h - the call word: one word per worker that decides draining and waking.
 *
 * Bit 0: the worker is parked (blocks in its loop). Bit 1: its post list is not empty. Bit 2 + i:
 * worker i has published in a lane to it. Callers set a bit and read the parked mark in one step,
 * the worker parks by one compare and swap from 0: either the caller sees the mark, or the swap
 * fails. No store is ordered before a load of another word, so nothing is seq_cst.
 */
#ifndef RUNTIME_SCHED_CALL_H
#define RUNTIME_SCHED_CALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RT_CALL_PARKED     UINT64_C(1)
#define RT_CALL_POST       UINT64_C(2)
#define RT_CALL_LANE(from) (UINT64_C(4) << (from))
#define RT_WORKERS_MAX     62u

/* Any thread, after publishing. True: the caller, and nobody else, must wake the worker. Release
 * pairs with the acquire in rt_call_take; the relaxed exchange continues the release sequence. */
static inline bool rt_call_ring(_Atomic uint64_t *word, uint64_t bit)
{
	uint64_t old = atomic_fetch_or_explicit(word, bit, memory_order_release);
	if ((old & RT_CALL_PARKED) == 0) {
		return false;
	}
	old = atomic_fetch_and_explicit(word, ~RT_CALL_PARKED, memory_order_relaxed);
	return (old & RT_CALL_PARKED) != 0;
}

/* The worker: the bits set since the last time. Acquire pairs with every rt_call_ring. */
static inline uint64_t rt_call_take(_Atomic uint64_t *word)
{
	if (atomic_load_explicit(word, memory_order_relaxed) == 0) {
		return 0;
	}
	return atomic_exchange_explicit(word, 0, memory_order_acquire);
}

/* The worker, everything published. False: somebody called. Release makes what it published before
 * visible to whoever reads the mark; acquire is for what it reads once woken. */
static inline bool rt_call_park(_Atomic uint64_t *word)
{
	uint64_t none = 0;
	return atomic_compare_exchange_strong_explicit(
		word, &none, RT_CALL_PARKED, memory_order_acq_rel, memory_order_relaxed);
}

/* The worker, when its loop has returned for whatever reason. */
static inline void rt_call_unpark(_Atomic uint64_t *word)
{
	atomic_fetch_and_explicit(word, ~RT_CALL_PARKED, memory_order_acquire);
}

#endif
