/*
 * clock.h - the two clocks. Code that is simulated gets its time handed in and never calls these.
 */
#ifndef RUNTIME_BASE_CLOCK_H
#define RUNTIME_BASE_CLOCK_H

#include <stdint.h>
#include <uv.h>

/* Monotonic, for durations and deadlines. Its zero means nothing. */
static inline uint64_t rt_clock_now_ns(void)
{
	return uv_hrtime();
}

/* Milliseconds since 1970 UTC; can jump. For people and records, never for deadlines. */
static inline uint64_t rt_clock_wall_ms(void)
{
	uv_timeval64_t now = {0};
	(void)uv_gettimeofday(&now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_usec / 1000;
}

#endif
