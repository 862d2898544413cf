/* The wheel of deadlines and the queue, with time given. */
#include <stdlib.h>
#include <string.h>

#include "proto/client/pending.h"
#include "proto/wire.h"
#include "tests/support/test.h"

static struct pr_pending *made(void)
{
	static const uint64_t id[2] = {1, 2};
	struct troupe_call call = {.type = "account", .id = "a", .name = "Open", .expected = -1};
	struct pr_pending *pending = pr_pending_new(&call, id);
	assert_non_null(pending);
	return pending;
}

static void a_call_is_due_at_its_time_and_not_before(void **state)
{
	(void)state;
	static const uint64_t waits[] = {0, 1, 9, 10, 11, 500, 5119, 5120, 5121, 20000, 100003};
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		for (uint64_t now = 1000; now < 1010; now++) {
			struct pr_wheel wheel = {.tick = now / PR_WHEEL_TICK_MS};
			struct pr_pending *pending = made();
			pr_wheel_add(&wheel, pending, now + waits[i]);
			struct pr_pending *due = NULL;
			uint64_t at = now;
			while (due == NULL) {
				at += PR_WHEEL_TICK_MS;
				due = pr_wheel_due(&wheel, at);
			}
			assert_ptr_equal(due, pending);
			assert_true(at >= now + waits[i]);
			assert_true(at <= now + waits[i] + 3 * (uint64_t)PR_WHEEL_TICK_MS);
			assert_int_equal(wheel.count, 0);
			free(pending);
		}
	}
}

static void a_wheel_that_slept_finds_everything(void **state)
{
	(void)state;
	struct pr_wheel wheel = {0};
	for (uint64_t i = 0; i < 1000; i++) {
		pr_wheel_add(&wheel, made(), 5000000 + i * 7);
	}
	struct pr_pending *due = pr_wheel_due(&wheel, 5000000 + 7000 + 30);
	unsigned count = 0;
	while (due != NULL) {
		struct pr_pending *next = due->wheel_next;
		free(due);
		due = next;
		count++;
	}
	assert_int_equal(count, 1000);
	assert_int_equal(wheel.count, 0);
	assert_null(pr_wheel_any(&wheel));
}

static void what_was_removed_is_not_due(void **state)
{
	(void)state;
	struct pr_wheel wheel = {0};
	struct pr_pending *all[9];
	for (int i = 0; i < 9; i++) {
		all[i] = made();
		pr_wheel_add(&wheel, all[i], 50); /* one slot */
	}
	for (int i = 0; i < 9; i += 2) { /* first, middle and last of the list */
		pr_wheel_remove(&wheel, all[i]);
		free(all[i]);
	}
	assert_int_equal(wheel.count, 4);
	struct pr_pending *one = pr_wheel_any(&wheel);
	assert_non_null(one);
	free(one);
	unsigned count = 0;
	for (struct pr_pending *due = pr_wheel_due(&wheel, 100), *next; due != NULL; due = next) {
		next = due->wheel_next;
		free(due);
		count++;
	}
	assert_int_equal(count, 3);
}

static void the_queue_keeps_its_order(void **state)
{
	(void)state;
	struct pr_queue queue = {0};
	struct pr_pending *all[5];
	for (int i = 0; i < 5; i++) {
		all[i] = made();
		pr_queue_push(&queue, all[i]);
	}
	pr_queue_remove(&queue, all[2]);
	pr_queue_remove(&queue, all[4]);
	pr_queue_push(&queue, all[2]);
	static const int order[] = {0, 1, 3, 2};
	for (int i = 0; i < 4; i++) {
		assert_ptr_equal(queue.head, all[order[i]]);
		pr_queue_remove(&queue, queue.head);
	}
	assert_int_equal(queue.count, 0);
	assert_null(queue.head);
	assert_null(queue.tail);
	for (int i = 0; i < 5; i++) {
		free(all[i]);
	}
}

static void each_try_carries_its_place_and_the_time_that_is_left(void **state)
{
	(void)state;
	static const uint64_t id[2] = {0x1111111111111111u, 0x2222222222222222u};
	struct troupe_call call = {.kind = TROUPE_COMMAND,
		.type = "account",
		.id = "a",
		.name = "Deposit",
		.payload = "xyz",
		.payload_size = 3,
		.json = true,
		.expected = 4,
		.stale = true,
		.after = 1 << 20};
	struct pr_pending *pending = pr_pending_new(&call, id);
	pending->deadline_ms = 10000;
	static const uint64_t nows[] = {0, 9000, 0, 9999, 20000};
	static const uint64_t mosts[] = {UINT64_MAX, 1000, 2000, 2000, 2000};
	static const uint32_t left[] = {10000, 1000, 2000, 1, 1};
	for (uint32_t i = 0; i < 5; i++) {
		uint8_t bytes[256];
		uint8_t *end = pr_pending_put(bytes, pending, i * 200, nows[i], mosts[i]);
		assert_true(end <= bytes + pending->body_size + PR_PENDING_OVERHEAD);
		struct rt_bytes cursor = rt_bytes_of(bytes, (size_t)(end - bytes));
		struct pr_call view;
		assert_int_equal(pr_batch_next(&cursor, &view), 1);
		assert_int_equal(cursor.size, 0);
		assert_int_equal(view.call_id, i * 200 + 1);
		assert_int_equal(view.timeout_ms, left[i]);
		assert_int_equal(view.expected, 5);
		assert_true(view.json);
		assert_true(view.stale);
		assert_int_equal(view.after, 1 << 20);
		assert_true(rt_bytes_equal(view.name, rt_bytes_str("Deposit")));
		assert_true(rt_bytes_equal(view.payload, rt_bytes_str("xyz")));
		assert_true(rt_bytes_equal(view.command_id, rt_bytes_of(id, 16)));
		assert_memory_equal(pending->body + pending->command_id_at, id, 16);
	}
	free(pending);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_is_due_at_its_time_and_not_before),
		cmocka_unit_test(a_wheel_that_slept_finds_everything),
		cmocka_unit_test(what_was_removed_is_not_due),
		cmocka_unit_test(the_queue_keeps_its_order),
		cmocka_unit_test(each_try_carries_its_place_and_the_time_that_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
