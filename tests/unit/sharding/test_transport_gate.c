/* Who may connect, and what is said to who may not. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"
#include "tests/support/transportbed.h"

#define SILENCE_MS 400u

static struct bed_node one, two, other;

static void all_prepare(void)
{
	bed_log_begin();
	bed_prepare(&one, 1);
	bed_prepare(&two, 2);
	bed_prepare(&other, 2);
	one.options.silence_ms = SILENCE_MS;
	two.options.silence_ms = SILENCE_MS;
	other.options.silence_ms = SILENCE_MS;
	other.options.self.instance = 0xb2;
	two.options.self.rpc = "tcp://127.0.0.1:7002";
	other.options.self.rpc = "tcp://127.0.0.1:7003";
}

static void all_done(void)
{
	bed_done(&one);
	bed_done(&two);
	bed_done(&other);
}

/* Two dials one and hears these words, which one logs as well; both sides are named. */
static void check_refused(const char *part)
{
	char logged[256];
	bed_dial(&two, &one);
	bed_wait_refusal(&two, part);
	(void)snprintf(
		logged, sizeof(logged), "was refused by %s: ", sh_transport_url(one.transport));
	bed_wait_log(logged);
	bed_wait_log("node 2: refused 127.0.0.1: ");
	assert_non_null(strstr(two.refusal, "(node 1 at tcp://127.0.0.1:7000 refuses node 2 at "
					    "tcp://127.0.0.1:7002)"));
	assert_true(bed_log_count(part) >= 2);
	assert_false(sh_transport_up(two.transport, 1));
	assert_int_equal(two.changes[1], 0);
	assert_int_equal(bed_frames(&one, 2, SH_LANE_RAFT), 0);
}

static void refuses_another_cluster(void **state)
{
	(void)state;
	all_prepare();
	two.options.self.cluster[0] = 'f';
	bed_start(&one);
	bed_start(&two);
	char words[128];
	(void)snprintf(words, sizeof(words), "this is cluster %s, not f%s", bed_cluster(),
		bed_cluster() + 1);
	check_refused(words);
	assert_int_equal(one.asked, 0);
	all_done();
}

static void refuses_whom_the_port_does_not_know(void **state)
{
	(void)state;
	all_prepare();
	bed_shun(&one, BED_KEY);
	bed_start(&one);
	bed_start(&two);
	check_refused("key fedcba98765432100123456789abcdef is of no member");
	/* Known now: it is let in by itself. */
	bed_shun(&one, NULL);
	bed_wait_up(&two, 1, true);
	all_done();
}

static void refuses_who_wanted_another_node(void **state)
{
	(void)state;
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	assert_err(sh_transport_peer(two.transport, 3, sh_transport_url(one.transport)), RT_OK);
	bed_wait_refusal(&two, "you wanted node 3, this is node 1");
	bed_wait_log("refused 127.0.0.1: ");
	all_done();
}

static void refuses_an_old_copy(void **state)
{
	(void)state;
	all_prepare();
	two.options.self.incarnation = 5;
	bed_start(&one);
	bed_start(&two);
	bed_dial(&two, &one);
	bed_wait_up(&two, 1, true);
	bed_stop(&two);
	two.changes[1] = 0;
	two.options.self.incarnation = 4;
	two.options.self.instance++;
	bed_start(&two);
	check_refused("an old copy of the data of node 2: incarnation 4, but 5 was here already");
	all_done();
}

static void refuses_a_second_process_of_a_node_that_lives(void **state)
{
	(void)state;
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	bed_start(&other);
	bed_dial(&other, &one);
	bed_wait_up(&other, 1, true);
	check_refused("node 2 is already running as another process (instance 00000000000000b2, "
		      "tcp://127.0.0.1:7003; this one is instance 00000000000000a2)");
	assert_true(sh_transport_up(other.transport, 1));
	assert_int_equal(other.changes[1], 1);
	/* As soon as it ends, the other is let in. */
	bed_stop(&other);
	bed_wait_up(&two, 1, true);
	all_done();
}

static void accepts_a_restarted_node_without_a_word_of_refusal(void **state)
{
	(void)state;
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	bed_dial(&two, &one);
	for (uint32_t i = 0; i < 10; i++) {
		bed_wait_up(&two, 1, true);
		bed_stop(&two);
		two.options.self.instance++;
		two.options.self.incarnation++;
		bed_start(&two);
		bed_dial(&two, &one);
	}
	bed_wait_up(&two, 1, true);
	assert_int_equal(two.refusals, 0);
	all_done();
}

/* Its machine stopped without a word: the connection still stands here. */
static void accepts_a_second_process_when_the_first_is_silent(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, bed_hello(2, 1, SH_LANE_RAFT));
	assert_int_equal(fake.heard.kind, SH_WELCOME);
	two.options.self.instance++;
	bed_stop(&two);
	bed_start(&two);
	bed_dial(&two, &one);
	bed_wait_up(&two, 1, true);
	assert_int_equal(two.refusals, 0);
	bed_fake_done(&fake);
	all_done();
}

static void refuses_a_clone_of_itself(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	struct sh_handshake hello = bed_hello(1, 1, SH_LANE_RAFT);
	all_prepare();
	bed_start(&one);
	hello.who.instance = 0xcc;
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, hello);
	assert_int_equal(fake.heard.kind, SH_REFUSAL);
	assert_non_null(strstr(fake.heard.text,
		"node 1 is already running as another process (instance 00000000000000a1"));
	bed_fake_done(&fake);
	all_done();
}

static void refuses_another_version(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	struct sh_handshake hello = bed_hello(2, 1, SH_LANE_RAFT);
	all_prepare();
	bed_start(&one);
	hello.version_min = SH_VERSION_MAX + 1;
	hello.version_max = SH_VERSION_MAX + 3;
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, hello);
	assert_int_equal(fake.heard.kind, SH_REFUSAL);
	assert_non_null(strstr(fake.heard.text, "speaks versions 1 to 1 of the protocol"));
	assert_non_null(
		strstr(fake.heard.text, "not 2 to 4 (node 1 at tcp://127.0.0.1:7000 refuses "
					"node 2 at tcp://127.0.0.1:7000)"));
	bed_wait_log("not 2 to 4");
	bed_fake_done(&fake);
	/* A range that overlaps is welcome, in the newest both speak. */
	hello.version_min = SH_VERSION_MIN;
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_greet(&fake, SH_LANE_RAFT, hello);
	assert_int_equal(fake.heard.kind, SH_WELCOME);
	assert_int_equal(fake.heard.version_max, SH_VERSION_MAX);
	bed_fake_done(&fake);
	all_done();
}

/* ---- at the side that dials ---- */

static void check_answer_refused(struct sh_handshake words, const char *part)
{
	struct bed_fake fake;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	uint8_t byte;
	all_prepare();
	bed_start(&one);
	bed_fake_listen(&fake);
	assert_err(sh_transport_peer(one.transport, 3, fake.url), RT_OK);
	bed_shun(&one, "wrong");
	bed_fake_hear(&fake);
	bed_fake_send(&fake, SH_LANE_RAFT, bytes, sh_handshake_encode(&words, bytes));
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_RAFT, &byte, 1), 0);
	bed_wait_log(part);
	assert_false(sh_transport_up(one.transport, 3));
	bed_fake_done(&fake);
	all_done();
}

static void checks_the_answer_of_whom_it_dialled(void **state)
{
	(void)state;
	struct sh_handshake words = bed_hello(3, 3, SH_LANE_RAFT);
	words.kind = SH_WELCOME;
	words.who.cluster[0] = 'f';
	char part[128];
	(void)snprintf(part, sizeof(part), "it is of cluster f%s, not %s", bed_cluster() + 1,
		bed_cluster());
	check_answer_refused(words, part);
	words = bed_hello(4, 4, SH_LANE_RAFT);
	words.kind = SH_WELCOME;
	check_answer_refused(words, "wanted node 3, found node 4 (node 1 at");
	words = bed_hello(3, 3, SH_LANE_RAFT);
	words.kind = SH_WELCOME;
	(void)snprintf(words.who.key, sizeof(words.who.key), "wrong");
	check_answer_refused(words, "key wrong is of no member");
	words = bed_hello(3, 3, SH_LANE_RAFT);
	words.kind = SH_WELCOME;
	words.version_min = 9;
	words.version_max = 9;
	check_answer_refused(words, "not 9 to 9");
	words = bed_hello(3, 3, SH_LANE_RAFT); /* an echo */
	check_answer_refused(words, "what it answered is no welcome");
}

/* ---- strangers ---- */

static void closes_who_says_nothing_that_makes_sense(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	uint8_t byte;
	static const char *const words[] = {"GET / HTTP/1.1\r\n\r\n", "TRPN\x01\x01xx",
		"TRPN\x02\0\x01\0\x01", "TRPN\x01\0\xff\xff"};
	static const size_t size[] = {18, 8, 9, 8};
	all_prepare();
	bed_start(&one);
	for (uint32_t i = 0; i < 4; i++) {
		bed_fake_dial(&fake, &one, SH_LANE_RAFT);
		bed_fake_send(&fake, SH_LANE_RAFT, words[i], size[i]);
		assert_int_equal(bed_fake_recv(&fake, SH_LANE_RAFT, &byte, 1), 0);
		bed_fake_done(&fake);
	}
	bed_wait_log("closed a connection from 127.0.0.1: it said no hello of a node");
	bed_start(&two);
	bed_connect(&one, &two);
	all_done();
}

/* The rest of the hello never comes. Others are served meanwhile. */
static void closes_who_stops_in_the_middle_of_a_hello(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	struct sh_handshake hello = bed_hello(2, 1, SH_LANE_RAFT);
	uint8_t bytes[SH_HANDSHAKE_MAX];
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	size_t size = sh_handshake_encode(&hello, bytes);
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	bed_fake_send(&fake, SH_LANE_RAFT, bytes, size - 1);
	bed_connect(&one, &two);
	assert_int_equal(bed_fake_recv(&fake, SH_LANE_RAFT, bytes, 1), 0);
	bed_wait_log("closed a connection from 127.0.0.1: it said no hello in time");
	bed_fake_done(&fake);
	all_done();
}

/* Nor does a byte now and then buy more time. */
static void closes_who_never_gets_to_the_end_of_a_hello(void **state)
{
	(void)state;
	struct bed_fake fake = {0};
	struct sh_handshake hello = bed_hello(2, 1, SH_LANE_RAFT);
	uint8_t bytes[SH_HANDSHAKE_MAX];
	all_prepare();
	bed_start(&one);
	size_t size = sh_handshake_encode(&hello, bytes);
	bed_fake_dial(&fake, &one, SH_LANE_RAFT);
	size_t at = 0;
	while (at < size && bed_fake_try_send(&fake, SH_LANE_RAFT, bytes + at, 1)) {
		bed_idle(&one, 30);
		at++;
	}
	assert_true(at < size);
	bed_wait_log("closed a connection from 127.0.0.1: it said no hello in time");
	bed_fake_done(&fake);
	all_done();
}

/* More than 256 that say nothing: the oldest make room. */
static void a_crowd_of_silent_strangers_keeps_nobody_out(void **state)
{
	(void)state;
	enum {
		CROWD = 300
	};
	static struct bed_fake crowd[CROWD];
	uint8_t byte;
	all_prepare();
	bed_start(&one);
	bed_start(&two);
	for (uint32_t i = 0; i < CROWD; i++) {
		bed_fake_dial(&crowd[i], &one, SH_LANE_RAFT);
	}
	bed_connect(&one, &two);
	assert_int_equal(bed_fake_recv(&crowd[0], SH_LANE_RAFT, &byte, 1), 0);
	assert_false(bed_logged("closed a connection")); /* time was not up */
	for (uint32_t i = 0; i < CROWD; i++) {
		bed_fake_done(&crowd[i]);
	}
	all_done();
}

static void says_the_same_to_the_same_peer_once(void **state)
{
	(void)state;
	all_prepare();
	two.options.self.cluster[0] = 'f';
	bed_start(&one);
	bed_start(&two);
	bed_dial(&two, &one);
	bed_wait_refusals(&two, 4);
	assert_int_equal(bed_log_count("was refused by"), 1);
	assert_int_equal(bed_log_count("node 2: refused 127.0.0.1"), 1);
	all_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_another_cluster),
		cmocka_unit_test(refuses_whom_the_port_does_not_know),
		cmocka_unit_test(refuses_who_wanted_another_node),
		cmocka_unit_test(refuses_an_old_copy),
		cmocka_unit_test(refuses_a_second_process_of_a_node_that_lives),
		cmocka_unit_test(accepts_a_restarted_node_without_a_word_of_refusal),
		cmocka_unit_test(accepts_a_second_process_when_the_first_is_silent),
		cmocka_unit_test(refuses_a_clone_of_itself),
		cmocka_unit_test(refuses_another_version),
		cmocka_unit_test(checks_the_answer_of_whom_it_dialled),
		cmocka_unit_test(closes_who_says_nothing_that_makes_sense),
		cmocka_unit_test(closes_who_stops_in_the_middle_of_a_hello),
		cmocka_unit_test(closes_who_never_gets_to_the_end_of_a_hello),
		cmocka_unit_test(a_crowd_of_silent_strangers_keeps_nobody_out),
		cmocka_unit_test(says_the_same_to_the_same_peer_once),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
