/* Which workers a frame of another node is for: never none, whatever is in it. */
#include <string.h>

#include "proto/wire.h"
#include "sharding/outgoing.h"
#include "sharding/region.h"
#include "tests/support/test.h"

#define SHARDS 8u

static uint8_t frame[256];

static size_t answers(const uint64_t *ids, size_t count)
{
	uint8_t *at = frame;
	*at++ = SH_FRAME_ANSWERS;
	for (size_t i = 0; i < count; i++) {
		struct pr_answer answer = {.call_id = ids[i]};
		at = pr_answer_put(at, &answer);
	}
	return (size_t)(at - frame);
}

static uint64_t workers(enum sh_lane lane, size_t size, uint32_t count)
{
	return sh_region_frame_workers(lane, rt_bytes_of(frame, size), SHARDS, count);
}

static void answers_go_to_who_asked(void **state)
{
	(void)state;
	uint64_t ids[] = {64 * 7 + 2, 64 * 9 + 0};
	assert_int_equal(workers(SH_LANE_CALL, answers(ids, 2), 3), 1u << 2 | 1u << 0);
	assert_int_equal(workers(SH_LANE_CALL, answers(ids, 1), 3), 1u << 2);
}

/* An answer waits for its connection, and a process with fewer workers came meanwhile. */
static void answers_to_a_worker_that_is_gone(void **state)
{
	(void)state;
	uint64_t ids[] = {64 * 7 + 2};
	assert_int_equal(workers(SH_LANE_CALL, answers(ids, 1), 2), 1u << 0);
	assert_int_equal(workers(SH_LANE_CALL, answers(ids, 1), 1), 1u << 0);
}

static void reports_go_to_the_meta_group(void **state)
{
	(void)state;
	frame[0] = SH_FRAME_REPORT;
	assert_int_equal(workers(SH_LANE_CALL, 1, 3), 1u << SHARDS % 3);
	frame[0] = SH_FRAME_TABLE;
	assert_int_equal(workers(SH_LANE_CALL, 1, 3), 7);
	assert_int_equal(workers(SH_LANE_CALL, 1, 64), UINT64_MAX);
}

static void what_cannot_be_read_goes_to_the_first(void **state)
{
	(void)state;
	memset(frame, 0xff, sizeof(frame));
	assert_int_equal(workers(SH_LANE_RAFT, 9, 3), 1);
	assert_int_equal(workers(SH_LANE_BULK, sizeof(frame), 3), 1);
	frame[0] = SH_FRAME_CALLS;
	assert_int_equal(workers(SH_LANE_CALL, 1, 3), 1);
	assert_int_equal(workers(SH_LANE_CALL, 40, 3), 1);
	frame[0] = SH_FRAME_ANSWERS;
	assert_int_equal(workers(SH_LANE_CALL, 40, 3), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_go_to_who_asked),
		cmocka_unit_test(answers_to_a_worker_that_is_gone),
		cmocka_unit_test(reports_go_to_the_meta_group),
		cmocka_unit_test(what_cannot_be_read_goes_to_the_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
