#include "actors/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

void ac_call_clear(struct ac_call *call)
{
	free(call->heap);
	call->heap = NULL;
}

void ac_call_rewind(struct ac_call *call)
{
	struct rt_bytes made = call->out.command_id;
	ac_call_clear(call);
	call->out = (struct pr_answer){.command_id = made};
	call->next = NULL;
}

/* Room for an answer's bytes; the last one asked for wins. */
static uint8_t *room(struct ac_call *call, size_t size)
{
	ac_call_clear(call);
	if (size <= AC_ANSWER_INLINE) {
		return call->inline_;
	}
	call->heap = malloc(size);
	RT_ASSERT(call->heap != NULL);
	return call->heap;
}

void ac_call_fail(struct ac_call *call, uint32_t code, const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	size_t size = length < 0 ? 0 : (size_t)length;
	if (size >= sizeof(text)) {
		size = sizeof(text) - 1;
	}
	uint8_t *at = room(call, size);
	memcpy(at, text, size);
	call->out.code = code;
	call->out.payload = (struct rt_bytes){0};
	call->out.error = rt_bytes_of(at, size);
}

void ac_call_refuse(
	struct ac_call *call, uint32_t code, const char *reason, struct rt_bytes payload)
{
	size_t size = strlen(reason);
	uint8_t *at = room(call, size + payload.size);
	memcpy(at, reason, size);
	if (payload.size > 0) {
		memcpy(at + size, payload.data, payload.size);
	}
	call->out.code = code;
	call->out.error = rt_bytes_of(at, size);
	call->out.payload = rt_bytes_of(at + size, payload.size);
}

void ac_call_payload(struct ac_call *call, struct rt_bytes payload)
{
	uint8_t *at = room(call, payload.size);
	if (payload.size > 0) {
		memcpy(at, payload.data, payload.size);
	}
	call->out.payload = rt_bytes_of(at, payload.size);
}

void ac_call_payload_take(struct ac_call *call, uint8_t *data, size_t size)
{
	ac_call_clear(call);
	call->heap = data;
	call->out.payload = rt_bytes_of(data, size);
}
