/*
 * hist.h - histogram of 64-bit values, 32 buckets per power of two: at most 3.2 % too high.
 *
 * Threads: one owner; merge needs both to hold still.
 * Memory:  15 KiB inline, nothing allocated.
 */
#ifndef RUNTIME_BASE_HIST_H
#define RUNTIME_BASE_HIST_H

#include <stdint.h>

#define RT_HIST_SUB_BITS 5u
#define RT_HIST_BUCKETS  ((64u - RT_HIST_SUB_BITS + 1u) << RT_HIST_SUB_BITS)

struct rt_hist {
	uint64_t count, sum, min, max; /* sum wraps */
	uint64_t bucket[RT_HIST_BUCKETS];
};

void rt_hist_reset(struct rt_hist *hist);
void rt_hist_add(struct rt_hist *hist, uint64_t value);
void rt_hist_merge(struct rt_hist *into, const struct rt_hist *from);
/* The value that percent (0 to 100) of all are not above; an upper bound, never above max. 0:
 * empty. */
uint64_t rt_hist_percentile(const struct rt_hist *hist, double percent);

#endif
