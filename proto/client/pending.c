#include "proto/client/pending.h"

#include <stdlib.h>

#include "proto/wire.h"

static struct rt_bytes text_or_empty(const char *text)
{
	return rt_bytes_str(text != NULL ? text : "");
}

static bool too_long(const char *text, size_t most)
{
	return text != NULL && strnlen(text, most + 1) > most;
}

int pr_pending_check(const struct troupe_call *call)
{
	if ((unsigned)call->kind > TROUPE_CLUSTER || too_long(call->type, PR_TYPE_MAX) ||
		too_long(call->id, PR_ID_MAX) || too_long(call->name, PR_NAME_MAX) ||
		call->command_id_size > PR_COMMAND_ID_MAX) {
		return TROUPE_BAD_REQUEST;
	}
	return call->payload_size > PR_PAYLOAD_MAX ? TROUPE_TOO_LARGE : TROUPE_OK;
}

struct pr_pending *pr_pending_new(const struct troupe_call *call, const uint64_t id_number[2])
{
	struct pr_call body = {.type = text_or_empty(call->type),
		.id = text_or_empty(call->id),
		.name = text_or_empty(call->name),
		.payload = rt_bytes_of(call->payload, call->payload_size),
		.command_id = rt_bytes_of(call->command_id, call->command_id_size),
		.expected = call->expected < 0 ? 0 : (uint64_t)call->expected + 1,
		.kind = (uint32_t)call->kind,
		.json = call->json,
		.stale = call->stale,
		.after = call->after};
	if (call->kind != TROUPE_COMMAND) {
		body.command_id.size = 0;
	} else if (call->command_id == NULL || call->command_id_size == 0) {
		body.command_id = rt_bytes_of(id_number, 16);
	}
	size_t size = pr_call_body_size(&body);
	struct pr_pending *pending = malloc(sizeof(*pending) + size);
	if (pending == NULL) {
		return NULL;
	}
	*pending = (struct pr_pending){.outcome_known = true,
		.slow = call->kind == TROUPE_EVENTS || call->kind == TROUPE_FEED,
		.command_id_size = (uint16_t)body.command_id.size,
		.body_size = (uint32_t)size};
	pr_call_body_put(pending->body, &body);
	/* The id ends where a body of what stands in front of it would end. */
	struct pr_call front = {.type = body.type,
		.id = body.id,
		.name = body.name,
		.payload = body.payload,
		.command_id = body.command_id};
	pending->command_id_at = (uint32_t)(pr_call_body_size(&front) - body.command_id.size);
	return pending;
}

uint8_t *pr_pending_put(uint8_t *at, const struct pr_pending *pending, uint32_t index, uint64_t now,
	uint64_t most_ms)
{
	uint64_t left = pending->deadline_ms > now ? pending->deadline_ms - now : 1;
	left = left < most_ms ? left : most_ms;
	size_t size = 1 + pr_varint_size(index + 1) + pending->body_size + 1 + pr_varint_size(left);
	*at++ = 0x0a;
	at = pr_varint_put(at, size);
	*at++ = 0x08;
	at = pr_varint_put(at, index + 1);
	memcpy(at, pending->body, pending->body_size);
	at += pending->body_size;
	*at++ = 0x50;
	return pr_varint_put(at, left);
}

/* Calls back and frees. No lock; the call is in no list. */
static void finish(struct pr_pending *pending, struct troupe_answer *answer)
{
	answer->attempts = pending->attempts;
	if (answer->command_id_size == 0 && pending->command_id_size > 0) {
		answer->command_id = pending->body + pending->command_id_at;
		answer->command_id_size = pending->command_id_size;
	}
	pending->done(pending->arg, answer);
	free(pending);
}

void pr_pending_finish_own(struct pr_pending *pending, int code, const char *error)
{
	struct troupe_answer answer = {.code = code, .error = error};
	finish(pending, &answer);
}

void pr_pending_finish_expired(struct pr_pending *pending)
{
	if (pending->attempts == 0) {
		pr_pending_finish_own(pending, TROUPE_E_CONNECT,
			"not sent before the deadline: no connection, or earlier calls are not "
			"answered");
	} else if (pending->outcome_known && pending->flight == NULL && pending->last_code != 0) {
		pr_pending_finish_own(pending, pending->last_code,
			pending->last_code == TROUPE_BUSY
				? "the node was busy until the deadline"
				: "the node was unavailable until the deadline");
	} else {
		pr_pending_finish_own(pending, TROUPE_TIMEOUT, "no answer before the deadline");
	}
}

void pr_pending_finish_answered(struct pr_pending *pending, const struct pr_answer *view)
{
	/* The text has to end with a NUL; only refusals have one. */
	char text[512];
	size_t size = view->error.size < sizeof(text) ? view->error.size : sizeof(text) - 1;
	if (size > 0) {
		memcpy(text, view->error.data, size);
	}
	text[size] = '\0';
	struct troupe_answer answer = {.code = (int)view->code,
		.error = text,
		.payload = view->payload.data,
		.payload_size = view->payload.size,
		.shard = view->shard,
		.offset = view->offset,
		.seq = view->seq,
		.events = view->events,
		.retry_after_ms = view->retry_after_ms,
		.repeated = view->repeated,
		.node = view->node,
		.command_id = view->command_id.data,
		.command_id_size = view->command_id.size};
	finish(pending, &answer);
}

bool pr_may_retry(uint32_t code)
{
	return code == TROUPE_BUSY || code == TROUPE_UNAVAILABLE || code == TROUPE_UNKNOWN ||
	       code == TROUPE_TIMEOUT;
}

void pr_queue_push(struct pr_queue *queue, struct pr_pending *pending)
{
	pending->queue_next = NULL;
	pending->queue_prev = queue->tail;
	if (queue->tail != NULL) {
		queue->tail->queue_next = pending;
	} else {
		queue->head = pending;
	}
	queue->tail = pending;
	queue->count++;
	pending->queued = true;
}

void pr_queue_remove(struct pr_queue *queue, struct pr_pending *pending)
{
	if (pending->queue_prev != NULL) {
		pending->queue_prev->queue_next = pending->queue_next;
	} else {
		queue->head = pending->queue_next;
	}
	if (pending->queue_next != NULL) {
		pending->queue_next->queue_prev = pending->queue_prev;
	} else {
		queue->tail = pending->queue_prev;
	}
	queue->count--;
	pending->queued = false;
}

void pr_wheel_add(struct pr_wheel *wheel, struct pr_pending *pending, uint64_t due_ms)
{
	/* Never into a slot that this turn has passed already: it would be found a turn too late.
	 */
	uint64_t tick = due_ms / PR_WHEEL_TICK_MS + 1;
	tick = tick <= wheel->tick ? wheel->tick + 1 : tick;
	struct pr_pending **slot = &wheel->slots[tick % PR_WHEEL_SLOTS];
	pending->due_ms = due_ms;
	pending->wheel_next = *slot;
	pending->wheel_link = slot;
	if (*slot != NULL) {
		(*slot)->wheel_link = &pending->wheel_next;
	}
	*slot = pending;
	wheel->count++;
}

void pr_wheel_remove(struct pr_wheel *wheel, struct pr_pending *pending)
{
	*pending->wheel_link = pending->wheel_next;
	if (pending->wheel_next != NULL) {
		pending->wheel_next->wheel_link = pending->wheel_link;
	}
	pending->wheel_link = NULL;
	wheel->count--;
}

struct pr_pending *pr_wheel_due(struct pr_wheel *wheel, uint64_t now_ms)
{
	struct pr_pending *due = NULL;
	uint64_t now = now_ms / PR_WHEEL_TICK_MS;
	if (now > wheel->tick + PR_WHEEL_SLOTS) {
		wheel->tick = now - PR_WHEEL_SLOTS; /* once round finds everything */
	}
	while (wheel->tick < now) {
		wheel->tick++;
		struct pr_pending *at = wheel->slots[wheel->tick % PR_WHEEL_SLOTS];
		while (at != NULL) {
			struct pr_pending *next = at->wheel_next;
			if (at->due_ms <= now_ms) {
				pr_wheel_remove(wheel, at);
				at->wheel_next = due;
				due = at;
			}
			at = next;
		}
	}
	return due;
}

struct pr_pending *pr_wheel_any(struct pr_wheel *wheel)
{
	for (uint32_t i = 0; i < PR_WHEEL_SLOTS && wheel->count > 0; i++) {
		struct pr_pending *pending = wheel->slots[i];
		if (pending != NULL) {
			pr_wheel_remove(wheel, pending);
			return pending;
		}
	}
	return NULL;
}
