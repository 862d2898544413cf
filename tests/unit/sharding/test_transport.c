/* Frames between nodes: order, sizes, limits. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/random.h"
#include "tests/support/test.h"
#include "tests/support/transportbed.h"

static struct bed_node one, two;

static void pair_prepare(void)
{
	bed_log_begin();
	bed_prepare(&one, 1);
	bed_prepare(&two, 2);
}

static void pair_open(void)
{
	pair_prepare();
	bed_start(&one);
	bed_start(&two);
}

static void pair_done(void)
{
	bed_done(&one);
	bed_done(&two);
}

/* Waits for room: what arrived made some. */
static void send_all(enum sh_lane lane, uint64_t count, size_t size)
{
	for (uint64_t i = 0; i < count; i++) {
		rt_err err;
		while ((err = bed_send(&one, 2, lane, i, size)) == RT_E_FULL) {
			bed_idle(&two, 1);
		}
		assert_err(err, RT_OK);
	}
}

static void wait_for_bulk(void)
{
	rt_err err;
	while ((err = bed_send(&one, 2, SH_LANE_BULK, 0, 8)) == RT_E_CLOSED) {
		bed_idle(&one, 1);
	}
	assert_err(err, RT_OK);
}

static void delivers_frames_in_order_on_every_lane(void **state)
{
	(void)state;
	pair_open();
	bed_connect(&one, &two);
	wait_for_bulk();
	for (uint64_t i = 0; i < 5000; i++) {
		assert_err(bed_send(&one, 2, SH_LANE_RAFT, i, 8 + i % 300), RT_OK);
		assert_err(bed_send(&one, 2, SH_LANE_CALL, i, 8 + i % 3000), RT_OK);
		assert_err(bed_send(&one, 2, SH_LANE_BULK, i + 1, 8 + i % 9000), RT_OK);
	}
	for (uint32_t lane = 0; lane < SH_LANES; lane++) {
		bed_wait_frames(&two, 1, (enum sh_lane)lane, 5000 + (lane == SH_LANE_BULK));
	}
	assert_false(two.disordered);
	struct sh_transport_stats sent, received;
	sh_transport_stats(one.transport, &sent);
	sh_transport_stats(two.transport, &received);
	assert_int_equal(sent.frames_out, 15001);
	assert_int_equal(received.frames_in, 15001);
	assert_int_equal(sent.bytes_out, received.bytes_in);
	assert_int_equal(sent.dropped, 0);
	pair_done();
}

static void carries_the_largest_frame_and_refuses_a_larger_one(void **state)
{
	(void)state;
	pair_open();
	bed_connect(&one, &two);
	send_all(SH_LANE_RAFT, 20, SH_FRAME_MAX);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 20);
	assert_int_equal(two.bytes[1][SH_LANE_RAFT], 20ull * SH_FRAME_MAX);
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, SH_FRAME_MAX + 1), RT_E_TOOLARGE);
	assert_err(
		sh_transport_send(one.transport, 2, SH_LANE_RAFT, rt_bytes_of("", 0)), RT_E_INVAL);
	assert_false(two.disordered);
	pair_done();
}

static void works_over_ipc(void **state)
{
	(void)state;
	char folder[] = "/tmp/transport-XXXXXX";
	char url[2][64];
	assert_non_null(mkdtemp(folder));
	pair_prepare();
	(void)snprintf(url[0], sizeof(url[0]), "ipc://%s/one", folder);
	(void)snprintf(url[1], sizeof(url[1]), "ipc://%s/two", folder);
	one.options.listen = url[0];
	two.options.listen = url[1];
	bed_start(&one);
	bed_start(&two);
	assert_string_equal(sh_transport_url(one.transport), url[0]);
	bed_connect(&one, &two);
	send_all(SH_LANE_CALL, 2000, 1000);
	send_all(SH_LANE_RAFT, 3, SH_FRAME_MAX);
	bed_wait_frames(&two, 1, SH_LANE_CALL, 2000);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 3);
	assert_false(two.disordered);
	pair_done();
	assert_int_equal(rmdir(folder), 0);
}

/* The peer keeps what it gets: it stops reading, the sender's queue fills, and neither holds more
 * than it may. */
static void says_full_when_the_peer_does_not_release(void **state)
{
	(void)state;
	const size_t size = 64 * 1024;
	pair_prepare();
	one.options.queue_bytes = 1024 * 1024;
	two.options.unreleased_bytes = 1024 * 1024;
	two.keep = true;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	rt_err err = RT_OK;
	uint64_t sent = 0;
	/* Kernel buffers take some more: full for good is full twice with a pause between. */
	for (uint32_t full = 0; full < 20;) {
		err = bed_send(&one, 2, SH_LANE_CALL, sent, size);
		sent += err == RT_OK;
		assert_true(sent < 2000);
		full = err == RT_E_FULL ? full + 1 : 0;
		if (err == RT_E_FULL) {
			bed_idle(&one, 10);
		}
	}
	assert_err(err, RT_E_FULL);
	uv_mutex_lock(&two.lock);
	uint64_t held = two.bytes[1][SH_LANE_CALL];
	uv_mutex_unlock(&two.lock);
	assert_in_range(held, 1024 * 1024 - size, 1024 * 1024 + 3 * size);
	/* The lane that is full does not stop another one. */
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 100), RT_OK);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 1);
	bed_release_kept(&two);
	bed_wait_frames(&two, 1, SH_LANE_CALL, sent);
	assert_false(two.disordered);
	assert_err(bed_send(&one, 2, SH_LANE_CALL, sent, size), RT_OK);
	bed_wait_frames(&two, 1, SH_LANE_CALL, sent + 1);
	pair_done();
}

static void goes_on_when_the_limit_is_smaller_than_a_frame(void **state)
{
	(void)state;
	pair_prepare();
	one.options.queue_bytes = 10;
	two.options.unreleased_bytes = 10;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	send_all(SH_LANE_RAFT, 300, 1000);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 300);
	assert_false(two.disordered);
	pair_done();
}

static void frames_outlive_their_connection_and_their_transport(void **state)
{
	(void)state;
	pair_prepare();
	two.keep = true;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	send_all(SH_LANE_RAFT, 100, 100);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 100);
	send_all(SH_LANE_CALL, 3, 300 * 1024);
	bed_wait_frames(&two, 1, SH_LANE_CALL, 3);
	sh_frame_hold(two.kept[0], 2);
	bed_stop(&one);
	bed_wait_up(&two, 1, false);
	sh_frame_release(two.kept[0]);
	bed_stop(&two);
	sh_frame_release(two.kept[0]);
	assert_int_equal(two.kept[0]->bytes.size, 100);
	assert_int_equal(two.kept[0]->from, 1);
	pair_done();
}

/* What would make a connection read on finds it gone. */
static void frames_outlive_a_transport_that_waited_for_room(void **state)
{
	(void)state;
	pair_prepare();
	two.options.unreleased_bytes = 10000;
	two.keep = true;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	send_all(SH_LANE_CALL, 20, 200 * 1024);
	bed_wait_frames(&two, 1, SH_LANE_CALL, 1);
	bed_idle(&two, 50);
	bed_stop(&two);
	assert_true(two.kept_count > 0 && two.kept_count < 20);
	bed_release_kept(&two);
	pair_done();
}

static void says_closed_to_whom_it_does_not_know(void **state)
{
	(void)state;
	pair_open();
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 8), RT_E_CLOSED);
	assert_false(sh_transport_up(one.transport, 2));
	assert_err(sh_transport_peer(one.transport, 2, NULL), RT_OK);
	assert_err(sh_transport_peer(one.transport, 1, "tcp://127.0.0.1:1"), RT_E_INVAL);
	assert_err(sh_transport_peer(one.transport, 0, "tcp://127.0.0.1:1"), RT_E_INVAL);
	assert_err(sh_transport_peer(one.transport, 2, ""), RT_E_INVAL);
	pair_done();
}

static void names_the_url_it_cannot_listen_on(void **state)
{
	(void)state;
	struct rt_errinfo info = {0};
	struct sh_transport *transport = NULL;
	pair_open();
	struct sh_transport_options options = two.options;
	options.listen = sh_transport_url(one.transport);
	assert_err(sh_transport_open(&options, &transport, &info), RT_E_IO);
	assert_non_null(strstr(info.text, options.listen));
	assert_non_null(strstr(info.text, "in use"));
	options.listen = "carrier-pigeon://x";
	assert_err(sh_transport_open(&options, &transport, &info), RT_E_IO);
	options.listen = "tcp://127.0.0.1:0";
	options.self.cluster[3] = 'X';
	assert_err(sh_transport_open(&options, &transport, &info), RT_E_INVAL);
	options = two.options;
	options.self.rpc = "tcp://a b";
	assert_err(sh_transport_open(&options, &transport, &info), RT_E_INVAL);
	assert_null(transport);
	pair_done();
}

/* ---- byte by byte ---- */

static void put_length(uint8_t *at, uint32_t length)
{
	for (uint32_t i = 0; i < 4; i++) {
		at[i] = (uint8_t)(length >> 8 * i);
	}
}

static void frames_arrive_whole_however_they_were_cut(void **state)
{
	(void)state;
	enum {
		COUNT = 400,
		ROOM = 4 * 1024 * 1024
	};
	struct bed_fake fake = {0};
	struct rt_random random;
	uint8_t *bytes = calloc(1, ROOM);
	assert_non_null(bytes);
	size_t used = 0;
	rt_random_seed(&random, 7);
	for (uint64_t i = 0; i < COUNT; i++) {
		uint32_t size = 8 + rt_random_below(&random, i % 8 == 0 ? 60000 : 6000);
		put_length(bytes + used, size);
		memcpy(bytes + used + 4, &i, 8);
		used += 4 + size + (i % 5 == 0 ? 4 : 0); /* a ping, now and then */
		assert_true(used < ROOM);
	}
	pair_open();
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, bed_hello(2, 1, SH_LANE_RAFT));
	assert_int_equal(fake.heard.kind, SH_WELCOME);
	for (size_t at = 0; at < used;) {
		size_t piece = 1 + rt_random_below(&random, at % 3 == 0 ? 9 : 20000);
		piece = piece < used - at ? piece : used - at;
		bed_fake_send(&fake, SH_LANE_RAFT, bytes + at, piece);
		at += piece;
	}
	bed_wait_frames(&one, 2, SH_LANE_RAFT, COUNT);
	assert_false(one.disordered);
	free(bytes);
	bed_fake_done(&fake);
	pair_done();
}

static void a_frame_too_large_on_the_wire_closes_the_connection(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	uint8_t length[4];
	pair_open();
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, bed_hello(2, 1, SH_LANE_RAFT));
	put_length(length, SH_FRAME_MAX + 1);
	bed_fake_send(&fake, SH_LANE_RAFT, length, 4);
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_RAFT, length, 4), 0);
	bed_wait_log("too large");
	bed_fake_done(&fake);
	pair_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(delivers_frames_in_order_on_every_lane),
		cmocka_unit_test(carries_the_largest_frame_and_refuses_a_larger_one),
		cmocka_unit_test(works_over_ipc),
		cmocka_unit_test(says_full_when_the_peer_does_not_release),
		cmocka_unit_test(goes_on_when_the_limit_is_smaller_than_a_frame),
		cmocka_unit_test(frames_outlive_their_connection_and_their_transport),
		cmocka_unit_test(frames_outlive_a_transport_that_waited_for_room),
		cmocka_unit_test(says_closed_to_whom_it_does_not_know),
		cmocka_unit_test(names_the_url_it_cannot_listen_on),
		cmocka_unit_test(frames_arrive_whole_however_they_were_cut),
		cmocka_unit_test(a_frame_too_large_on_the_wire_closes_the_connection),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
