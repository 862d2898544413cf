/* A pairing heap: intrusive, starts in O(1), stops in O(log n) amortised, and never allocates. */
#include "runtime/sched/core.h"

enum {
	CHILD,
	NEXT,
	PREV
}; /* PREV of a first child is its parent */
enum {
	IDLE,
	ARMED
};

static struct rt_timer *link_of(const struct rt_timer *timer, int which)
{
	return timer->heap[which];
}

static bool before(const struct rt_timer *a, const struct rt_timer *b)
{
	return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

/* Two roots without siblings become one. */
static struct rt_timer *meld(struct rt_timer *a, struct rt_timer *b)
{
	if (a == NULL || b == NULL) {
		return a != NULL ? a : b;
	}
	if (before(b, a)) {
		struct rt_timer *swap = a;
		a = b;
		b = swap;
	}
	struct rt_timer *child = link_of(a, CHILD);
	b->heap[NEXT] = child;
	b->heap[PREV] = a;
	if (child != NULL) {
		child->heap[PREV] = b;
	}
	a->heap[CHILD] = b;
	a->heap[NEXT] = a->heap[PREV] = NULL;
	return a;
}

static struct rt_timer *meld_pairs(struct rt_timer *first)
{
	struct rt_timer *pairs = NULL;
	while (first != NULL) {
		struct rt_timer *a = first;
		struct rt_timer *b = link_of(a, NEXT);
		first = b != NULL ? link_of(b, NEXT) : NULL;
		a->heap[NEXT] = a->heap[PREV] = NULL;
		if (b != NULL) {
			b->heap[NEXT] = b->heap[PREV] = NULL;
		}
		struct rt_timer *pair = meld(a, b);
		pair->heap[NEXT] = pairs;
		pairs = pair;
	}
	struct rt_timer *root = NULL;
	while (pairs != NULL) {
		struct rt_timer *next = link_of(pairs, NEXT);
		pairs->heap[NEXT] = NULL;
		root = meld(root, pairs);
		pairs = next;
	}
	return root;
}

static void cut(struct rt_timer *timer)
{
	struct rt_timer *next = link_of(timer, NEXT);
	struct rt_timer *prev = link_of(timer, PREV);
	if (link_of(prev, CHILD) == timer) {
		prev->heap[CHILD] = next;
	} else {
		prev->heap[NEXT] = next;
	}
	if (next != NULL) {
		next->heap[PREV] = prev;
	}
}

void rt_timer_init(struct rt_timer *timer, void (*fire)(struct rt_worker *, struct rt_timer *))
{
	*timer = (struct rt_timer){.fire = fire};
}

void rt_timer_stop(struct rt_worker *worker, struct rt_timer *timer)
{
	RT_DASSERT(rt_is_owner(worker));
	if (timer->place == IDLE) {
		return;
	}
	RT_ASSERT(timer->place == ARMED && worker->timers != NULL);
	struct rt_timer *below = meld_pairs(link_of(timer, CHILD));
	if (timer == worker->timers) {
		worker->timers = below;
	} else {
		cut(timer);
		worker->timers = meld(worker->timers, below);
	}
	timer->heap[CHILD] = timer->heap[NEXT] = timer->heap[PREV] = NULL;
	timer->place = IDLE;
}

void rt_timer_start(struct rt_worker *worker, struct rt_timer *timer, uint64_t after_ms)
{
	RT_ASSERT(timer->fire != NULL);
	rt_timer_stop(worker, timer);
	uint64_t now_ms = rt_worker_now_ms(worker);
	timer->due_ms = after_ms < UINT64_MAX - now_ms ? now_ms + after_ms : UINT64_MAX;
	timer->order = worker->timer_order++;
	timer->place = ARMED;
	worker->timers = meld(worker->timers, timer);
}

uint64_t rt_timers_next_ms(const struct rt_worker *worker)
{
	return worker->timers != NULL ? worker->timers->due_ms : UINT64_MAX;
}

bool rt_timers_fire(struct rt_worker *worker)
{
	/* A timer that starts itself again at once has its turn in the next round. */
	uint64_t end = worker->timer_order;
	bool any = false;
	while (worker->timers != NULL && worker->timers->due_ms <= worker->now_ms &&
		worker->timers->order < end) {
		struct rt_timer *timer = worker->timers;
		rt_timer_stop(worker, timer);
		timer->fire(worker, timer);
		any = true;
	}
	return any;
}
