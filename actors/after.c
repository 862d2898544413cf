/* Reads that name an offset they must see: they wait until it is committed here. */
#include <inttypes.h>
#include <stdlib.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"

struct ac_after {
	struct ac_shard *shard;
	struct ac_call *call;
	bool stale; /* came by ac_shard_read */
	struct rt_timer timer;
	struct ac_after *next;
};

static bool is_ripe(const struct ac_shard *shard, const struct ac_call *call)
{
	return call->in.after <= shard->committed;
}

static void unlink_after(struct ac_after *after)
{
	struct ac_shard *shard = after->shard;
	struct ac_after **slot = &shard->afters;
	while (*slot != after) {
		slot = &(*slot)->next;
	}
	*slot = after->next;
	if (shard->afters_end == &after->next) {
		shard->afters_end = slot;
	}
}

/* The call is the caller's. */
static struct ac_call *end(struct ac_after *after)
{
	struct ac_call *call = after->call;
	unlink_after(after);
	rt_timer_stop(after->shard->host->worker, &after->timer);
	free(after);
	return call;
}

static void time_is_up(struct rt_worker *worker, struct rt_timer *timer)
{
	struct ac_after *after = RT_CONTAINER(timer, struct ac_after, timer);
	struct ac_shard *shard = after->shard;
	struct ac_call *call = end(after);
	(void)worker;
	ac_call_fail(call, TROUPE__CODE__CODE_TIMEOUT,
		"offset %" PRIu64 " of shard %u cannot be seen here yet (committed: %" PRIu64 ")",
		call->in.after, shard->index, shard->committed);
	ac_answer(shard->host, call);
}

bool ac_after_wait(struct ac_shard *shard, struct ac_call *call, bool stale)
{
	struct rt_worker *worker = shard->host->worker;
	if (is_ripe(shard, call) || call->in.kind == TROUPE__KIND__KIND_COMMAND) {
		return false;
	}
	struct ac_after *after = calloc(1, sizeof(*after));
	RT_ASSERT(after != NULL);
	after->shard = shard;
	after->call = call;
	after->stale = stale;
	*shard->afters_end = after;
	shard->afters_end = &after->next;
	uint64_t now = rt_worker_now_ms(worker), wait_ms = AC_AFTER_MS;
	if (call->deadline_ms != 0 && call->deadline_ms < now + wait_ms) {
		wait_ms = call->deadline_ms > now ? call->deadline_ms - now : 0;
	}
	rt_timer_init(&after->timer, time_is_up);
	rt_timer_start(worker, &after->timer, wait_ms);
	return true;
}

/* Those that are ripe leave the list before the first is handled: whatever it leads to, the list is
 * whole. */
void ac_after_wake(struct ac_shard *shard)
{
	struct ac_call *stale = NULL, **stale_end = &stale;
	struct ac_call *fresh = NULL, **fresh_end = &fresh;
	for (struct ac_after *after = shard->afters, *next; after != NULL; after = next) {
		next = after->next;
		if (is_ripe(shard, after->call)) {
			struct ac_call ***at = after->stale ? &stale_end : &fresh_end;
			struct ac_call *call = end(after);
			call->next = NULL;
			**at = call;
			*at = &call->next;
		}
	}
	for (struct ac_call *call = stale, *next; call != NULL; call = next) {
		next = call->next;
		call->next = NULL;
		ac_shard_read(shard, call);
	}
	for (struct ac_call *call = fresh, *next; call != NULL; call = next) {
		next = call->next;
		call->next = NULL;
		ac_shard_call(shard, call);
	}
}

void ac_after_drop(struct ac_shard *shard, struct ac_chain *chain)
{
	struct ac_after *after = shard->afters;
	shard->afters = NULL;
	shard->afters_end = &shard->afters;
	while (after != NULL) {
		struct ac_after *next = after->next;
		rt_timer_stop(shard->host->worker, &after->timer);
		ac_chain_add(chain, after->call, TROUPE__CODE__CODE_UNAVAILABLE);
		free(after);
		after = next;
	}
}
