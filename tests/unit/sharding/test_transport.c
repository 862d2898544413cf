/* Frames between nodes: order, sizes, limits. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/support/transportbed.h"

static struct bed_node one, two;

static void pair_open(const char *listen)
{
	bed_log_begin();
	bed_prepare(&one, 1);
	bed_prepare(&two, 2);
	if (listen != NULL) {
		two.options.listen = listen;
	}
	bed_start(&one);
	bed_start(&two);
}

static void pair_done(void)
{
	bed_done(&one);
	bed_done(&two);
}

static void send_all(enum sh_lane lane, uint64_t count, size_t size)
{
	for (uint64_t i = 0; i < count; i++) {
		rt_err err;
		while ((err = bed_send(&one, 2, lane, i, size)) == RT_E_FULL) {
			bed_wait_frames(&two, 1, lane, two.frames[1][lane] + 1);
		}
		assert_err(err, RT_OK);
	}
}

static void delivers_frames_in_order_on_every_lane(void **state)
{
	(void)state;
	pair_open(NULL);
	bed_connect(&one, &two);
	while (bed_send(&one, 2, SH_LANE_BULK, 0, 100) != RT_OK) {
		(void)usleep(1000);
	}
	for (uint64_t i = 0; i < 5000; i++) {
		assert_err(bed_send(&one, 2, SH_LANE_RAFT, i, 8 + i % 300), RT_OK);
		assert_err(bed_send(&one, 2, SH_LANE_CALL, i, 8 + i % 3000), RT_OK);
		assert_err(bed_send(&one, 2, SH_LANE_BULK, i + 1, 8 + i % 700), RT_OK);
	}
	for (uint32_t lane = 0; lane < SH_LANES; lane++) {
		bed_wait_frames(&two, 1, (enum sh_lane)lane, 5000 + (lane == SH_LANE_BULK));
	}
	assert_false(two.disordered);
	pair_done();
}

static void carries_the_largest_frame_and_refuses_a_larger_one(void **state)
{
	(void)state;
	pair_open(NULL);
	bed_connect(&one, &two);
	send_all(SH_LANE_RAFT, 20, SH_FRAME_MAX);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 20);
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, SH_FRAME_MAX + 1), RT_E_TOOLARGE);
	assert_err(
		sh_transport_send(one.transport, 2, SH_LANE_RAFT, rt_bytes_of("", 0)), RT_E_INVAL);
	assert_false(two.disordered);
	pair_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(delivers_frames_in_order_on_every_lane),
		cmocka_unit_test(carries_the_largest_frame_and_refuses_a_larger_one),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
