/* Connections between nodes: when they stand, when they fall, and who notices. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/random.h"
#include "tests/support/test.h"
#include "tests/support/transportbed.h"

#define SILENCE_MS 200u
#define LONG_MS    1000u /* where a busy machine must not look like silence */

static struct bed_node one, two;

static void pair_prepare(void)
{
	bed_log_begin();
	bed_prepare(&one, 1);
	bed_prepare(&two, 2);
	one.options.silence_ms = SILENCE_MS;
	two.options.silence_ms = SILENCE_MS;
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

static uint64_t ms(void)
{
	return uv_hrtime() / 1000000;
}

/* The same node, started again. */
static void restart(struct bed_node *node, const char *listen)
{
	bed_stop(node);
	node->options.listen = listen;
	node->options.self.instance += 0x1000;
	node->options.self.incarnation++;
	memset(node->next, 0, sizeof(node->next));
	memset(node->frames, 0, sizeof(node->frames));
	bed_start(node);
}

static void reconnects_when_the_peer_opens_the_same_url_again(void **state)
{
	(void)state;
	char url[64];
	pair_open();
	(void)snprintf(url, sizeof(url), "%s", sh_transport_url(two.transport));
	bed_connect(&one, &two);
	for (uint32_t i = 1; i <= 3; i++) {
		restart(&two, url);
		bed_wait_changes(&one, 2, 1 + 2 * i);
		bed_wait_up(&one, 2, true);
		bed_dial(&two, &one);
		bed_wait_up(&two, 1, true);
		assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 8), RT_OK);
		bed_wait_frames(&two, 1, SH_LANE_RAFT, 1);
		assert_err(bed_send(&two, 1, SH_LANE_CALL, i - 1, 8), RT_OK);
		bed_wait_frames(&one, 2, SH_LANE_CALL, i);
	}
	assert_false(one.disordered);
	assert_int_equal(one.refusals + two.refusals, 0);
	pair_done();
}

static void follows_the_peer_to_another_url(void **state)
{
	(void)state;
	pair_open();
	bed_connect(&one, &two);
	restart(&two, "tcp://127.0.0.1:0");
	bed_wait_up(&one, 2, false);
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 8), RT_E_CLOSED);
	bed_dial(&one, &two);
	bed_wait_up(&one, 2, true);
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 8), RT_OK);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 1);
	pair_done();
}

static void hangs_up_in_both_directions(void **state)
{
	(void)state;
	pair_open();
	bed_connect(&one, &two);
	bed_shun(&one, BED_KEY);
	assert_err(sh_transport_peer(one.transport, 2, NULL), RT_OK);
	bed_wait_up(&one, 2, false);
	assert_false(sh_transport_up(one.transport, 2));
	assert_err(bed_send(&one, 2, SH_LANE_RAFT, 0, 8), RT_E_CLOSED);
	bed_wait_up(&two, 1, false);
	bed_wait_refusal(&two, "is of no member");
	assert_int_equal(one.changes[2], 2);
	pair_done();
}

static void an_idle_connection_stands(void **state)
{
	(void)state;
	pair_prepare();
	one.options.silence_ms = LONG_MS;
	two.options.silence_ms = LONG_MS;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	bed_idle(&one, 5 * LONG_MS / 2);
	assert_int_equal(one.changes[2], 1);
	assert_int_equal(two.changes[1], 1);
	pair_done();
}

/* ---- peers that are not ours ---- */

static void fake_open(struct bed_fake *fake, uint32_t silence_ms)
{
	pair_prepare();
	one.options.silence_ms = silence_ms;
	bed_start(&one);
	bed_fake_listen(fake);
	assert_err(sh_transport_peer(one.transport, 3, fake->url), RT_OK);
	bed_fake_serve(fake, 3);
	bed_wait_up(&one, 3, true);
}

static void asks_four_times_in_a_silence_whether_the_peer_lives(void **state)
{
	(void)state;
	struct bed_fake fake;
	uint8_t ping[4];
	fake_open(&fake, LONG_MS);
	uint64_t begin = ms();
	for (uint32_t i = 0; i < 8; i++) {
		bed_fake_recv_all(&fake, SH_LANE_RAFT, ping, 4);
		assert_memory_equal(ping, "\0\0\0\0", 4);
		bed_fake_send(&fake, SH_LANE_RAFT, ping, 4);
	}
	assert_true(ms() - begin >= 7 * (LONG_MS / 4));
	assert_int_equal(one.changes[3], 1);
	bed_fake_done(&fake);
	pair_done();
}

static void notices_a_silent_peer_and_dials_again(void **state)
{
	(void)state;
	struct bed_fake fake;
	uint64_t begin = ms();
	fake_open(&fake, SILENCE_MS);
	bed_wait_up(&one, 3, false);
	assert_in_range(ms() - begin, SILENCE_MS, 5000);
	bed_wait_log("it is silent");
	bed_fake_serve(&fake, 3);
	bed_wait_up(&one, 3, true);
	bed_fake_done(&fake);
	pair_done();
}

static void a_word_that_is_no_pong_ends_the_connection(void **state)
{
	(void)state;
	struct bed_fake fake;
	fake_open(&fake, LONG_MS);
	bed_fake_send(&fake, SH_LANE_CALL, "hello", 5);
	bed_wait_up(&one, 3, false);
	bed_wait_log("what is no pong");
	bed_fake_done(&fake);
	pair_done();
}

static void a_broken_raft_lane_takes_the_others_with_it(void **state)
{
	(void)state;
	struct bed_fake fake;
	uint8_t byte;
	fake_open(&fake, LONG_MS);
	nng_stream_free(fake.lane[SH_LANE_RAFT]);
	fake.lane[SH_LANE_RAFT] = NULL;
	bed_wait_up(&one, 3, false);
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_CALL, &byte, 1), 0);
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_BULK, &byte, 1), 0);
	bed_fake_done(&fake);
	pair_done();
}

static void a_broken_call_lane_is_dialled_again_alone(void **state)
{
	(void)state;
	struct bed_fake fake;
	fake_open(&fake, LONG_MS);
	nng_stream_free(fake.lane[SH_LANE_CALL]);
	fake.lane[SH_LANE_CALL] = NULL;
	bed_wait_up(&one, 3, false);
	bed_fake_hear(&fake);
	assert_int_equal(fake.heard.lane, SH_LANE_CALL);
	bed_fake_welcome(&fake, 3);
	bed_wait_up(&one, 3, true);
	bed_fake_done(&fake);
	pair_done();
}

static void a_lane_that_another_process_answers_means_a_restart(void **state)
{
	(void)state;
	struct bed_fake fake;
	struct sh_handshake words;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	fake_open(&fake, LONG_MS);
	nng_stream_free(fake.lane[SH_LANE_CALL]);
	fake.lane[SH_LANE_CALL] = NULL;
	bed_fake_hear(&fake);
	words = bed_hello(3, 3, SH_LANE_CALL);
	words.kind = SH_WELCOME;
	words.who.instance++;
	bed_fake_send(&fake, SH_LANE_CALL, bytes, sh_handshake_encode(&words, bytes));
	/* It begins anew: RAFT first. */
	bed_fake_hear(&fake);
	assert_int_equal(fake.heard.lane, SH_LANE_RAFT);
	uv_mutex_lock(&one.lock);
	assert_int_equal(one.changes[3], 2); /* it was not up in between */
	uv_mutex_unlock(&one.lock);
	bed_fake_done(&fake);
	pair_done();
}

static void closes_an_accepted_connection_that_is_silent(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	uint8_t byte;
	uint64_t begin = ms();
	pair_open();
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, bed_hello(3, 1, SH_LANE_RAFT));
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_RAFT, &byte, 1), 0);
	assert_in_range(ms() - begin, 2 * SILENCE_MS, 10000);
	bed_wait_log("closed its connection: it is silent");
	bed_fake_done(&fake);
	pair_done();
}

/* It does not read pings while it waits for room, so it says by itself that it is there. */
static void a_peer_that_waits_for_room_is_not_taken_for_dead(void **state)
{
	(void)state;
	pair_prepare();
	one.options.silence_ms = LONG_MS;
	two.options.silence_ms = LONG_MS;
	two.options.unreleased_bytes = 1000;
	two.keep = true;
	bed_start(&one);
	bed_start(&two);
	bed_connect(&one, &two);
	for (uint64_t i = 0; i < 20; i++) {
		assert_err(bed_send(&one, 2, SH_LANE_RAFT, i, 100 * 1024), RT_OK);
	}
	bed_idle(&one, 5 * LONG_MS / 2);
	assert_int_equal(one.changes[2], 1);
	assert_int_equal(two.changes[1], 1);
	assert_true(bed_frames(&two, 1, SH_LANE_RAFT) < 20);
	bed_release_kept(&two);
	bed_wait_frames(&two, 1, SH_LANE_RAFT, 20);
	assert_false(two.disordered);
	pair_done();
}

/* A ping would have to wait behind the frame. */
static void a_frame_that_takes_long_is_a_sign_of_life(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	static const uint8_t length[4] = {0, 0, 16, 0}; /* 1 MiB */
	uint8_t pong[4] = {1, 1, 1, 1};
	pair_prepare();
	one.options.silence_ms = LONG_MS;
	bed_start(&one);
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, bed_hello(3, 1, SH_LANE_RAFT));
	bed_fake_send(&fake, SH_LANE_RAFT, length, sizeof(length));
	for (uint64_t end = ms() + LONG_MS; ms() < end;) {
		bed_fake_send(&fake, SH_LANE_RAFT, "a piece", 7);
		bed_idle(&one, 5);
	}
	for (uint32_t i = 0; i < 3; i++) {
		bed_fake_recv_all(&fake, SH_LANE_RAFT, pong, 4);
		assert_memory_equal(pong, "\0\0\0\0", 4);
	}
	bed_fake_done(&fake);
	pair_done();
}

/* ---- many at once ---- */

struct sender {
	struct bed_node *node;
	uv_thread_t thread;
	_Atomic bool stop;
};

static void send_on(void *arg)
{
	struct sender *sender = arg;
	uint8_t bytes[3000] = {0};
	struct rt_random random;
	rt_random_seed(&random, (uint64_t)(uintptr_t)sender);
	while (!atomic_load(&sender->stop)) {
		for (uint32_t i = 0; i < 100; i++) {
			uint32_t size = 1 + rt_random_below(&random, sizeof(bytes));
			enum sh_lane lane = (enum sh_lane)rt_random_below(&random, SH_LANES);
			rt_err err = sh_transport_send(
				sender->node->transport, 2, lane, rt_bytes_of(bytes, size));
			if (err == RT_E_FULL) {
				break;
			}
		}
		(void)sh_transport_up(sender->node->transport, 2);
	}
}

static void senders_survive_connections_that_come_and_go(void **state)
{
	(void)state;
	char url[64];
	struct sender senders[3] = {0};
	pair_prepare();
	one.options.queue_bytes = 256 * 1024;
	bed_start(&one);
	bed_start(&two);
	(void)snprintf(url, sizeof(url), "%s", sh_transport_url(two.transport));
	bed_connect(&one, &two);
	for (uint32_t i = 0; i < 3; i++) {
		senders[i].node = &one;
		assert_int_equal(uv_thread_create(&senders[i].thread, send_on, &senders[i]), 0);
	}
	for (uint32_t i = 0; i < 6; i++) {
		if (i % 2 == 0) {
			restart(&two, url);
		} else {
			assert_err(sh_transport_peer(one.transport, 2, NULL), RT_OK);
			bed_wait_up(&one, 2, false);
			bed_dial(&one, &two);
		}
		bed_wait_up(&one, 2, true);
		bed_wait_frames(&two, 1, SH_LANE_CALL, bed_frames(&two, 1, SH_LANE_CALL) + 100);
	}
	for (uint32_t i = 0; i < 3; i++) {
		atomic_store(&senders[i].stop, true);
		assert_int_equal(uv_thread_join(&senders[i].thread), 0);
	}
	pair_done();
}

static void closes_while_it_dials_and_greets(void **state)
{
	(void)state;
	struct bed_fake fake;
	pair_prepare();
	bed_fake_listen(&fake); /* answers nothing */
	for (uint32_t i = 0; i < 20; i++) {
		bed_start(&one);
		assert_err(sh_transport_peer(one.transport, 3, fake.url), RT_OK);
		assert_err(sh_transport_peer(one.transport, 4, "tcp://127.0.0.1:1"), RT_OK);
		assert_err(sh_transport_peer(one.transport, 5, "tcp://no.host.invalid:1"), RT_OK);
		assert_err(sh_transport_peer(one.transport, 6, "nonsense"), RT_OK);
		bed_idle(&one, i % 4);
		bed_stop(&one);
	}
	bed_fake_done(&fake);
	bed_done(&one);
	bed_done(&two);
}

static void says_once_that_a_peer_cannot_be_reached(void **state)
{
	(void)state;
	pair_open();
	assert_err(sh_transport_peer(one.transport, 4, "tcp://127.0.0.1:1"), RT_OK);
	bed_wait_log("node 4: cannot reach tcp://127.0.0.1:1: Connection refused");
	bed_idle(&one, 500);
	assert_int_equal(bed_log_count("node 4: cannot reach"), 1);
	pair_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reconnects_when_the_peer_opens_the_same_url_again),
		cmocka_unit_test(follows_the_peer_to_another_url),
		cmocka_unit_test(hangs_up_in_both_directions),
		cmocka_unit_test(an_idle_connection_stands),
		cmocka_unit_test(asks_four_times_in_a_silence_whether_the_peer_lives),
		cmocka_unit_test(notices_a_silent_peer_and_dials_again),
		cmocka_unit_test(a_word_that_is_no_pong_ends_the_connection),
		cmocka_unit_test(a_broken_raft_lane_takes_the_others_with_it),
		cmocka_unit_test(a_broken_call_lane_is_dialled_again_alone),
		cmocka_unit_test(a_lane_that_another_process_answers_means_a_restart),
		cmocka_unit_test(closes_an_accepted_connection_that_is_silent),
		cmocka_unit_test(a_peer_that_waits_for_room_is_not_taken_for_dead),
		cmocka_unit_test(a_frame_that_takes_long_is_a_sign_of_life),
		cmocka_unit_test(senders_survive_connections_that_come_and_go),
		cmocka_unit_test(closes_while_it_dials_and_greets),
		cmocka_unit_test(says_once_that_a_peer_cannot_be_reached),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
