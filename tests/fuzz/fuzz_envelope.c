/* Any bytes: the guard and the hand-written walk agree about them, and what the guard lets pass is
 * unpacked by protobuf-c with bounded memory. */
#include <stdlib.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "proto/wire.h"
#include "runtime/base/assert.h"
#include "tests/unit/proto/kinds.pb-c.h"

/* A message of at most PR_FIELDS_MAX fields and PR_FRAME_MAX bytes: the bytes themselves (eight for
 * each byte of packed numbers), and for each field its struct, its pointer twice over while the
 * array grows, and protobuf-c's own note of it. */
#define MEMORY_MAX(size) ((size)*10 + (size_t)PR_FIELDS_MAX * 512)

static size_t used;

static void *count_alloc(void *data, size_t size)
{
	(void)data;
	used += size;
	return malloc(size);
}

static void count_free(void *data, void *block)
{
	(void)data;
	free(block);
}

static bool unpacks(const ProtobufCMessageDescriptor *type, struct rt_bytes bytes)
{
	ProtobufCAllocator allocator = {count_alloc, count_free, NULL};
	used = 0;
	ProtobufCMessage *message =
		protobuf_c_message_unpack(type, &allocator, bytes.size, bytes.data);
	if (message == NULL) {
		return false;
	}
	protobuf_c_message_free_unpacked(message, &allocator);
	return used <= MEMORY_MAX(bytes.size);
}

static bool calls_walk(struct rt_bytes bytes)
{
	struct pr_call call;
	int more;
	while ((more = pr_batch_next(&bytes, &call)) > 0) {
		size_t size = pr_call_size(&call);
		uint8_t *again = malloc(size);
		RT_ASSERT(again != NULL && pr_call_put(again, &call) == again + size);
		free(again);
	}
	return more == 0;
}

static bool answers_walk(struct rt_bytes bytes)
{
	struct pr_answer answer;
	int more;
	while ((more = pr_answers_next(&bytes, &answer)) > 0) {
		size_t size = pr_answer_size(&answer);
		uint8_t *again = malloc(size);
		RT_ASSERT(again != NULL && pr_answer_put(again, &answer) == again + size);
		free(again);
	}
	return more == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const types[] = {&troupe__batch__descriptor,
		&troupe__answers__descriptor, &troupe__event_page__descriptor,
		&troupe__type_list__descriptor, &kinds__all__descriptor, &kinds__node__descriptor};
	if (size == 0) {
		return 0;
	}
	size_t type = data[0] % (sizeof(types) / sizeof(types[0]));
	struct rt_bytes bytes = rt_bytes_of(data + 1, size - 1);
	struct rt_errinfo info;
	rt_err guard = pr_guard_check(types[type], bytes, &info);
	RT_ASSERT(guard == RT_OK || guard == RT_E_PROTO || guard == RT_E_TOOLARGE);
	RT_ASSERT(guard != RT_OK || unpacks(types[type], bytes));
	if (guard != RT_E_TOOLARGE) {
		RT_ASSERT(type != 0 || calls_walk(bytes) == (guard == RT_OK));
		RT_ASSERT(type != 1 || answers_walk(bytes) == (guard == RT_OK));
	}
	return 0;
}
