#include "tests/support/transportbed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "tests/support/test.h"

#define PATIENCE_NS UINT64_C(30000000000)

/* ---- log ---- */

static struct {
	uv_mutex_t lock;
	uv_cond_t seen;
	bool open;
	size_t used;
	char text[256 * 1024];
} captured;

static void capture(void *arg, const char *line)
{
	(void)arg;
	uv_mutex_lock(&captured.lock);
	size_t size = strlen(line);
	if (size < sizeof(captured.text) - captured.used) {
		memcpy(captured.text + captured.used, line, size + 1);
		captured.used += size;
	}
	uv_cond_broadcast(&captured.seen);
	uv_mutex_unlock(&captured.lock);
}

void bed_log_begin(void)
{
	if (!captured.open) {
		assert_int_equal(uv_mutex_init(&captured.lock), 0);
		assert_int_equal(uv_cond_init(&captured.seen), 0);
		captured.open = true;
		rt_log_set_sink(capture, NULL);
	}
	uv_mutex_lock(&captured.lock);
	captured.used = 0;
	captured.text[0] = '\0';
	uv_mutex_unlock(&captured.lock);
}

uint32_t bed_log_count(const char *part)
{
	uint32_t count = 0;
	uv_mutex_lock(&captured.lock);
	for (const char *at = captured.text; (at = strstr(at, part)) != NULL; at++) {
		count++;
	}
	uv_mutex_unlock(&captured.lock);
	return count;
}

bool bed_logged(const char *part)
{
	return bed_log_count(part) > 0;
}

void bed_wait_log(const char *part)
{
	uint64_t end = uv_hrtime() + PATIENCE_NS;
	uv_mutex_lock(&captured.lock);
	while (strstr(captured.text, part) == NULL && uv_hrtime() < end) {
		(void)uv_cond_timedwait(&captured.seen, &captured.lock, end - uv_hrtime());
	}
	bool found = strstr(captured.text, part) != NULL;
	uv_mutex_unlock(&captured.lock);
	if (!found) {
		fail_msg("not logged: %s\nbut: %s", part, captured.text);
	}
}

/* ---- port ---- */

static uint64_t number_of(const struct sh_frame *frame)
{
	uint64_t number = UINT64_MAX;
	if (frame->bytes.size >= sizeof(number)) {
		memcpy(&number, frame->bytes.data, sizeof(number));
	}
	return number;
}

static void take(struct bed_node *node, struct sh_frame *frame)
{
	uint64_t from = frame->from;
	node->busy[from][frame->lane] = false;
	node->frames[from][frame->lane]++;
	node->bytes[from][frame->lane] += frame->bytes.size;
	if (number_of(frame) != node->next[from][frame->lane]++) {
		node->disordered = true;
	}
	uv_cond_broadcast(&node->seen);
}

static void on_receive(void *arg, struct sh_frame *frame)
{
	struct bed_node *node = arg;
	uv_mutex_lock(&node->lock);
	node->twice |= node->busy[frame->from][frame->lane];
	node->busy[frame->from][frame->lane] = true;
	uv_mutex_unlock(&node->lock);
	uv_mutex_lock(&node->lock);
	take(node, frame);
	bool keep = node->keep && node->kept_count < 4096;
	if (keep) {
		node->kept[node->kept_count++] = frame;
	}
	uv_mutex_unlock(&node->lock);
	if (!keep) {
		sh_frame_release(frame);
	}
}

static void on_changed(void *arg, uint64_t peer, bool up)
{
	struct bed_node *node = arg;
	uv_mutex_lock(&node->lock);
	node->up[peer] = up;
	node->changes[peer]++;
	uv_cond_broadcast(&node->seen);
	uv_mutex_unlock(&node->lock);
}

static bool on_known(void *arg, const struct sh_identity *who, char *why, size_t room)
{
	struct bed_node *node = arg;
	uv_mutex_lock(&node->lock);
	node->asked++;
	bool known = strcmp(who->key, node->stranger) != 0;
	uv_mutex_unlock(&node->lock);
	if (!known) {
		(void)snprintf(why, room, "key %s is of no member", who->key);
	}
	return known;
}

static void on_refused(void *arg, uint64_t peer, const char *why)
{
	struct bed_node *node = arg;
	(void)peer;
	uv_mutex_lock(&node->lock);
	node->refusals++;
	(void)snprintf(node->refusal, sizeof(node->refusal), "%s", why);
	uv_cond_broadcast(&node->seen);
	uv_mutex_unlock(&node->lock);
}

static const struct sh_transport_port bed_port = {on_receive, on_changed, on_known, on_refused};

/* ---- nodes ---- */

const char *bed_cluster(void)
{
	static char cluster[33];
	if (cluster[0] == '\0') {
		(void)snprintf(cluster, sizeof(cluster), "00000000%08x%016" PRIx64,
			(unsigned)uv_os_getpid(), uv_hrtime());
	}
	return cluster;
}

void bed_prepare(struct bed_node *node, uint64_t id)
{
	memset(node, 0, sizeof(*node));
	node->options = (struct sh_transport_options){.self = {.node = id,
							      .key = BED_KEY,
							      .instance = 0xa0 + id,
							      .incarnation = 1,
							      .rpc = "tcp://127.0.0.1:7000"},
		.listen = "tcp://127.0.0.1:0",
		.port = &bed_port,
		.arg = node};
	memcpy(node->options.self.cluster, bed_cluster(), sizeof(node->options.self.cluster));
	assert_int_equal(uv_mutex_init(&node->lock), 0);
	assert_int_equal(uv_cond_init(&node->seen), 0);
}

void bed_start(struct bed_node *node)
{
	struct rt_errinfo info = {0};
	rt_err err = sh_transport_open(&node->options, &node->transport, &info);
	if (err != RT_OK) {
		fail_msg("%s", info.text);
	}
}

void bed_stop(struct bed_node *node)
{
	sh_transport_close(node->transport);
	node->transport = NULL;
}

void bed_shun(struct bed_node *node, const char *key)
{
	uv_mutex_lock(&node->lock);
	(void)snprintf(node->stranger, sizeof(node->stranger), "%s", key == NULL ? "" : key);
	uv_mutex_unlock(&node->lock);
}

void bed_release_kept(struct bed_node *node)
{
	uv_mutex_lock(&node->lock);
	uint32_t count = node->kept_count;
	node->kept_count = 0;
	node->keep = false;
	uv_mutex_unlock(&node->lock);
	for (uint32_t i = 0; i < count; i++) {
		sh_frame_release(node->kept[i]);
	}
}

void bed_done(struct bed_node *node)
{
	bed_stop(node);
	bed_release_kept(node);
	assert_false(node->twice);
	uv_cond_destroy(&node->seen);
	uv_mutex_destroy(&node->lock);
}

void bed_dial(struct bed_node *a, const struct bed_node *b)
{
	assert_err(sh_transport_peer(
			   a->transport, b->options.self.node, sh_transport_url(b->transport)),
		RT_OK);
}

void bed_connect(struct bed_node *a, struct bed_node *b)
{
	bed_dial(a, b);
	bed_dial(b, a);
	bed_wait_up(a, b->options.self.node, true);
	bed_wait_up(b, a->options.self.node, true);
}

uint64_t bed_frames(struct bed_node *node, uint64_t from, enum sh_lane lane)
{
	uv_mutex_lock(&node->lock);
	uint64_t frames = node->frames[from][lane];
	uv_mutex_unlock(&node->lock);
	return frames;
}

/* ---- waiting ---- */

struct wish {
	uint64_t peer, count;
	enum sh_lane lane;
	bool up;
	const char *part;
};

static bool is_up(const struct bed_node *node, const struct wish *wish)
{
	return node->up[wish->peer] == wish->up;
}

static bool has_changes(const struct bed_node *node, const struct wish *wish)
{
	return node->changes[wish->peer] >= wish->count;
}

static bool has_frames(const struct bed_node *node, const struct wish *wish)
{
	return node->frames[wish->peer][wish->lane] >= wish->count;
}

static bool has_refusal(const struct bed_node *node, const struct wish *wish)
{
	return strstr(node->refusal, wish->part) != NULL;
}

static bool has_refusals(const struct bed_node *node, const struct wish *wish)
{
	return node->refusals >= wish->count;
}

static void wait_for(struct bed_node *node,
	bool (*holds)(const struct bed_node *node, const struct wish *wish), struct wish wish,
	const char *what)
{
	uint64_t end = uv_hrtime() + PATIENCE_NS;
	uv_mutex_lock(&node->lock);
	while (!holds(node, &wish) && uv_hrtime() < end) {
		(void)uv_cond_timedwait(&node->seen, &node->lock, end - uv_hrtime());
	}
	bool held = holds(node, &wish);
	uv_mutex_unlock(&node->lock);
	if (!held) {
		fail_msg("node %u waited in vain: %s", (unsigned)node->options.self.node, what);
	}
}

void bed_wait_up(struct bed_node *node, uint64_t peer, bool up)
{
	wait_for(node, is_up, (struct wish){.peer = peer, .up = up}, up ? "up" : "down");
}

void bed_wait_changes(struct bed_node *node, uint64_t peer, uint32_t count)
{
	wait_for(node, has_changes, (struct wish){.peer = peer, .count = count}, "changes");
}

void bed_wait_frames(struct bed_node *node, uint64_t from, enum sh_lane lane, uint64_t count)
{
	wait_for(node, has_frames, (struct wish){.peer = from, .count = count, .lane = lane},
		"frames");
}

void bed_wait_refusal(struct bed_node *node, const char *part)
{
	wait_for(node, has_refusal, (struct wish){.part = part}, part);
}

void bed_wait_refusals(struct bed_node *node, uint32_t count)
{
	wait_for(node, has_refusals, (struct wish){.count = count}, "refusals");
}

rt_err bed_send(struct bed_node *node, uint64_t to, enum sh_lane lane, uint64_t number, size_t size)
{
	uint8_t *bytes = calloc(1, size);
	assert_non_null(bytes);
	memcpy(bytes, &number, sizeof(number));
	rt_err err = sh_transport_send(node->transport, to, lane, rt_bytes_of(bytes, size));
	free(bytes);
	return err;
}

void bed_idle(struct bed_node *node, uint64_t ms)
{
	uint64_t end = uv_hrtime() + ms * 1000000;
	uv_mutex_lock(&node->lock);
	while (uv_hrtime() < end) {
		(void)uv_cond_timedwait(&node->seen, &node->lock, end - uv_hrtime());
	}
	uv_mutex_unlock(&node->lock);
}

/* ---- fakes ---- */

static void fake_begin(struct bed_fake *fake)
{
	memset(fake, 0, sizeof(*fake));
	assert_int_equal(nng_aio_alloc(&fake->aio, NULL, NULL), 0);
	nng_aio_set_timeout(fake->aio, 20000);
}

static int fake_wait(struct bed_fake *fake)
{
	nng_aio_wait(fake->aio);
	return nng_aio_result(fake->aio);
}

void bed_fake_listen(struct bed_fake *fake)
{
	int port;
	fake_begin(fake);
	assert_int_equal(nng_stream_listener_alloc(&fake->listener, "tcp://127.0.0.1:0"), 0);
	assert_int_equal(nng_stream_listener_listen(fake->listener), 0);
	assert_int_equal(
		nng_stream_listener_get_int(fake->listener, NNG_OPT_TCP_BOUND_PORT, &port), 0);
	(void)snprintf(fake->url, sizeof(fake->url), "tcp://127.0.0.1:%d", port);
}

static size_t stream_recv(struct bed_fake *fake, nng_stream *stream, void *bytes, size_t room)
{
	nng_iov iov = {bytes, room};
	assert_int_equal(nng_aio_set_iov(fake->aio, 1, &iov), 0);
	nng_stream_recv(stream, fake->aio);
	int result = fake_wait(fake);
	if (result != 0 && result != NNG_ECONNSHUT && result != NNG_ECONNRESET) {
		fail_msg("receive: %s", nng_strerror(result));
	}
	return result == 0 ? nng_aio_count(fake->aio) : 0;
}

static bool stream_hear(struct bed_fake *fake, nng_stream *stream)
{
	uint8_t bytes[SH_HANDSHAKE_MAX];
	size_t have = 0;
	size_t size = SH_HANDSHAKE_HEAD;
	while (have < size) {
		size_t got = stream_recv(fake, stream, bytes + have, size - have);
		if (got == 0) {
			return false;
		}
		have += got;
		if (have == SH_HANDSHAKE_HEAD) {
			assert_err(sh_handshake_size(bytes, &size), RT_OK);
		}
	}
	rt_err err = sh_handshake_decode(rt_bytes_of(bytes, size), &fake->heard);
	assert_true(err == RT_OK || err == RT_E_VERSION);
	return true;
}

void bed_fake_hear(struct bed_fake *fake)
{
	nng_stream *stream;
	do {
		nng_stream_listener_accept(fake->listener, fake->aio);
		assert_int_equal(fake_wait(fake), 0);
		stream = nng_aio_get_output(fake->aio, 0);
	} while (!stream_hear(fake, stream));
	assert_int_equal(fake->heard.kind, SH_HELLO);
	nng_stream_free(fake->lane[fake->heard.lane]);
	fake->lane[fake->heard.lane] = stream;
}

static void fake_say(struct bed_fake *fake, enum sh_lane lane, const struct sh_handshake *words)
{
	uint8_t bytes[SH_HANDSHAKE_MAX];
	bed_fake_send(fake, lane, bytes, sh_handshake_encode(words, bytes));
}

void bed_fake_welcome(struct bed_fake *fake, uint64_t id)
{
	struct sh_handshake words = bed_hello(id, id, SH_LANE_RAFT);
	words.kind = SH_WELCOME;
	fake_say(fake, fake->heard.lane, &words);
}

void bed_fake_serve(struct bed_fake *fake, uint64_t id)
{
	for (uint32_t i = 0; i < SH_LANES; i++) {
		bed_fake_hear(fake);
		bed_fake_welcome(fake, id);
	}
}

void bed_fake_dial(struct bed_fake *fake, const struct bed_node *node, enum sh_lane lane)
{
	nng_stream_dialer *dialer;
	if (fake->aio == NULL) {
		fake_begin(fake);
	}
	assert_int_equal(nng_stream_dialer_alloc(&dialer, sh_transport_url(node->transport)), 0);
	nng_stream_dialer_dial(dialer, fake->aio);
	assert_int_equal(fake_wait(fake), 0);
	fake->lane[lane] = nng_aio_get_output(fake->aio, 0);
	nng_stream_dialer_free(dialer);
}

void bed_fake_greet(struct bed_fake *fake, enum sh_lane lane, struct sh_handshake hello)
{
	hello.who.rpc = hello.rpc;
	hello.who.peer = hello.peer;
	fake_say(fake, lane, &hello);
	assert_true(stream_hear(fake, fake->lane[lane]));
}

bool bed_fake_try_send(struct bed_fake *fake, enum sh_lane lane, const void *bytes, size_t size)
{
	nng_iov iov = {(void *)(uintptr_t)bytes, size};
	while (iov.iov_len > 0) {
		assert_int_equal(nng_aio_set_iov(fake->aio, 1, &iov), 0);
		nng_stream_send(fake->lane[lane], fake->aio);
		if (fake_wait(fake) != 0) {
			return false;
		}
		iov.iov_buf = (uint8_t *)iov.iov_buf + nng_aio_count(fake->aio);
		iov.iov_len -= nng_aio_count(fake->aio);
	}
	return true;
}

void bed_fake_send(struct bed_fake *fake, enum sh_lane lane, const void *bytes, size_t size)
{
	assert_true(bed_fake_try_send(fake, lane, bytes, size));
}

size_t bed_fake_recv(struct bed_fake *fake, enum sh_lane lane, void *bytes, size_t room)
{
	return stream_recv(fake, fake->lane[lane], bytes, room);
}

void bed_fake_recv_all(struct bed_fake *fake, enum sh_lane lane, void *bytes, size_t size)
{
	for (size_t have = 0; have < size;) {
		size_t got = bed_fake_recv(fake, lane, (uint8_t *)bytes + have, size - have);
		assert_true(got > 0);
		have += got;
	}
}

void bed_fake_done(struct bed_fake *fake)
{
	for (uint32_t i = 0; i < SH_LANES; i++) {
		nng_stream_free(fake->lane[i]);
	}
	if (fake->listener != NULL) {
		nng_stream_listener_close(fake->listener);
		nng_stream_listener_free(fake->listener);
	}
	nng_aio_free(fake->aio);
	memset(fake, 0, sizeof(*fake));
}

struct sh_handshake bed_hello(uint64_t id, uint64_t target, enum sh_lane lane)
{
	struct sh_handshake hello = {.kind = SH_HELLO,
		.version_min = SH_VERSION_MIN,
		.version_max = SH_VERSION_MAX,
		.lane = lane,
		.target = target,
		.who = {.node = id,
			.key = BED_KEY,
			.instance = 0xa0 + id,
			.incarnation = 1,
			.rpc = "tcp://127.0.0.1:7000",
			.peer = "tcp://127.0.0.1:7001"},
		.rpc = "tcp://127.0.0.1:7000",
		.peer = "tcp://127.0.0.1:7001"};
	memcpy(hello.who.cluster, bed_cluster(), sizeof(hello.who.cluster));
	return hello;
}
