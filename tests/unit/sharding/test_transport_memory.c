/* Every allocation of the transport fails once, from opening to the first frame that arrived. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"
#include "tests/support/transportbed.h"

/* Allocations until one fails; below 0: none does. */
static _Atomic int64_t left = -1;
static _Atomic bool failed;

static bool fails(void)
{
	if (atomic_load(&left) < 0 || atomic_fetch_sub(&left, 1) != 0) {
		return false;
	}
	atomic_store(&failed, true);
	return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

static struct bed_node one, two;

static void open_anyway(struct bed_node *node)
{
	struct rt_errinfo info = {0};
	rt_err err = sh_transport_open(&node->options, &node->transport, &info);
	if (err != RT_OK) {
		assert_err(err, RT_E_NOMEM);
		assert_string_not_equal(info.text, "");
		assert_null(node->transport);
		bed_start(node);
	}
}

static void dial_anyway(struct bed_node *a, const struct bed_node *b)
{
	uint64_t id = b->options.self.node;
	rt_err err = sh_transport_peer(a->transport, id, sh_transport_url(b->transport));
	if (err != RT_OK) {
		assert_err(err, RT_E_NOMEM);
		bed_dial(a, b);
	}
}

/* What is lost with a connection is sent again. */
static void send_anyway(enum sh_lane lane, size_t size)
{
	static uint8_t bytes[200 * 1024];
	while (bed_frames(&two, 1, lane) == 0) {
		rt_err err = sh_transport_send(one.transport, 2, lane, rt_bytes_of(bytes, size));
		assert_true(err == RT_OK || err == RT_E_NOMEM || err == RT_E_CLOSED);
		bed_idle(&two, 2);
	}
}

static void whatever_fails_is_tried_again(void **state)
{
	(void)state;
	int64_t n = 0;
	do {
		bed_log_begin();
		bed_prepare(&one, 1);
		bed_prepare(&two, 2);
		atomic_store(&failed, false);
		atomic_store(&left, n);
		open_anyway(&one);
		open_anyway(&two);
		dial_anyway(&one, &two);
		bed_wait_up(&one, 2, true);
		send_anyway(SH_LANE_RAFT, 100);
		send_anyway(SH_LANE_CALL, sizeof("x"));
		send_anyway(SH_LANE_BULK, 200 * 1024);
		atomic_store(&left, -1);
		bed_done(&one);
		bed_done(&two);
		n++;
	} while (atomic_load(&failed));
	assert_in_range(n, 20, 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_fails_is_tried_again),
	};
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
