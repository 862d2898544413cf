/*
 * pace.h - how fast a node reads its logs for peers that are far behind.
 *
 * Without a limit a newcomer takes whatever the node has left, and more: its pieces are large, and
 * commands queue behind them on every core and disk of the group. While commands are carried out
 * the pieces are spread in time (the generic cell rate algorithm); an idle node sends at full
 * speed.
 *
 * Threads: any; one struct for all workers of a node.
 */
#ifndef SHARDING_PACE_H
#define SHARDING_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SH_PACE_BYTES    (16u * 1024u * 1024u) /* a second */
#define SH_PACE_RECORD   128u                  /* bytes that one costs beside its own */
#define SH_PACE_BURST_NS UINT64_C(100000000)   /* about what lies between two tries */
#define SH_PACE_BUSY_NS  UINT64_C(1000000000)  /* after the newest command */

struct sh_pace {
	_Atomic uint64_t paid_ns; /* what was read so far is paid for by then */
	_Atomic uint64_t busy_ns; /* newest command; 0: none yet */
};

static inline void sh_pace_busy(struct sh_pace *pace, uint64_t now_ns)
{
	atomic_store_explicit(&pace->busy_ns, now_ns, memory_order_relaxed);
}

/* Whether a read may begin now. */
static inline bool sh_pace_may(struct sh_pace *pace, uint64_t now_ns)
{
	uint64_t busy_ns = atomic_load_explicit(&pace->busy_ns, memory_order_relaxed);
	return busy_ns == 0 || now_ns - busy_ns > SH_PACE_BUSY_NS ||
	       atomic_load_explicit(&pace->paid_ns, memory_order_relaxed) <=
		       now_ns + SH_PACE_BURST_NS;
}

/* So much was read. */
static inline void sh_pace_took(
	struct sh_pace *pace, uint64_t now_ns, uint32_t records, size_t bytes)
{
	uint64_t cost = (uint64_t)records * SH_PACE_RECORD + bytes;
	uint64_t cost_ns = cost * UINT64_C(1000000000) / SH_PACE_BYTES;
	uint64_t was = atomic_load_explicit(&pace->paid_ns, memory_order_relaxed);
	uint64_t next;
	do {
		next = (was > now_ns ? was : now_ns) + cost_ns;
	} while (!atomic_compare_exchange_weak_explicit(
		&pace->paid_ns, &was, next, memory_order_relaxed, memory_order_relaxed));
}

#endif
