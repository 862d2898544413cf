/* What a turn says to other nodes when the wire takes it, and when it does not. */
#include <string.h>

#include "sharding/outgoing.h"
#include "tests/support/test.h"

static struct {
	struct sh_outgoing out;
	rt_err takes;
	uint32_t sent, lost;
	size_t size;
	uint8_t bytes[64];
} the;

static rt_err take(void *arg, uint64_t to, enum sh_lane lane, struct rt_bytes bytes)
{
	(void)arg;
	assert_int_equal(to, 2);
	assert_int_equal(lane, SH_LANE_CALL);
	if (the.takes == RT_OK) {
		the.sent++;
		the.size = bytes.size;
		memcpy(the.bytes, bytes.data,
			bytes.size < sizeof(the.bytes) ? bytes.size : sizeof(the.bytes));
	}
	return the.takes;
}

static void lose(void *arg, uint64_t node, enum sh_outgoing_kind kind)
{
	(void)arg;
	(void)kind;
	assert_int_equal(node, 2);
	the.lost++;
}

static const struct sh_wire wire = {.send = take};

static int setup(void **state)
{
	(void)state;
	memset(&the, 0, sizeof(the));
	the.out = (struct sh_outgoing){.wire = &wire, .lost = lose};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sh_outgoing_done(&the.out);
	return 0;
}

static void say(enum sh_outgoing_kind kind, const char *text, size_t size)
{
	uint8_t *at = sh_outgoing_room(&the.out, 2, kind, size);
	assert_non_null(at);
	memset(at, text[0], size);
}

static void one_frame_for_a_turn(void **state)
{
	(void)state;
	say(SH_OUTGOING_CALLS, "a", 1);
	say(SH_OUTGOING_CALLS, "b", 1);
	sh_outgoing_flush(&the.out);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.sent, 1);
	assert_int_equal(the.size, 3);
	assert_memory_equal(the.bytes,
		"\x01"
		"ab",
		3);
}

static void calls_that_are_not_taken_are_lost_at_once(void **state)
{
	(void)state;
	the.takes = RT_E_CLOSED;
	say(SH_OUTGOING_CALLS, "a", 1);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.lost, 1);
	the.takes = RT_OK;
	sh_outgoing_up(&the.out);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.sent, 0);
}

static void answers_wait_for_a_connection(void **state)
{
	(void)state;
	the.takes = RT_E_CLOSED;
	say(SH_OUTGOING_ANSWERS, "a", 1);
	sh_outgoing_flush(&the.out);
	say(SH_OUTGOING_ANSWERS, "b", 1);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.lost, 0);
	the.takes = RT_OK;
	sh_outgoing_up(&the.out);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.sent, 1);
	assert_memory_equal(the.bytes,
		"\x02"
		"ab",
		3);
	sh_outgoing_up(&the.out);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.sent, 1);
}

static void no_more_answers_wait_than_there_is_room_for(void **state)
{
	(void)state;
	the.takes = RT_E_CLOSED;
	say(SH_OUTGOING_ANSWERS, "a", SH_ANSWERS_KEPT - 1);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.lost, 0);
	say(SH_OUTGOING_ANSWERS, "b", 1);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.lost, 1);
	the.takes = RT_OK;
	say(SH_OUTGOING_ANSWERS, "c", 1);
	sh_outgoing_flush(&the.out);
	assert_int_equal(the.size, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_frame_for_a_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(
			calls_that_are_not_taken_are_lost_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_wait_for_a_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(
			no_more_answers_wait_than_there_is_room_for, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
