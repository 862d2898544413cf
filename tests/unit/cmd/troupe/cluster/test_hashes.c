#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/cluster/hashes.h"
#include "tests/support/test.h"

#define NODES 3

static struct tr_hashes all[NODES];
static struct rt_errinfo info;

static int fresh(void **state)
{
	(void)state;
	for (size_t i = 0; i < NODES; i++) {
		tr_hashes_done(&all[i]);
		assert_err(tr_hashes_init(&all[i], i + 1, 3), RT_OK);
	}
	memset(&info, 0, sizeof(info));
	return 0;
}

static int done(void **state)
{
	(void)state;
	for (size_t i = 0; i < NODES; i++) {
		tr_hashes_done(&all[i]);
	}
	return 0;
}

static void answer(size_t node, const char *json)
{
	assert_err(tr_hashes_read(&all[node - 1], rt_bytes_str(json), &info), RT_OK);
}

static void assert_asks(size_t node, const char *expected)
{
	struct pr_text text = {0};
	bool asks = tr_hashes_question(all, NODES, &all[node - 1], &text);
	pr_text_add(&text, "", 1);
	assert_int_equal(asks, expected != NULL);
	if (expected != NULL) {
		assert_string_equal(text.data, expected);
	}
	pr_text_clear(&text);
}

static void asks_longer_replicas_again_for_the_common_part(void **state)
{
	(void)state;
	answer(1, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"a\"},"
		  "{\"shard\":2,\"first\":1,\"upto\":5,\"hash\":\"b\"}]}");
	answer(2, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":7,\"hash\":\"c\"},"
		  "{\"shard\":2,\"first\":1,\"upto\":6,\"hash\":\"d\"}]}");
	answer(3, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":8,\"hash\":\"e\"},"
		  "{\"shard\":2,\"first\":1,\"upto\":7,\"hash\":\"f\"}]}");
	assert_false(tr_hashes_equal(all, NODES, 0));
	assert_asks(1, "{\"upto\":[{\"shard\":0,\"upto\":7}]}");
	assert_asks(2, "{\"upto\":[{\"shard\":2,\"upto\":5}]}");
	assert_asks(3, "{\"upto\":[{\"shard\":0,\"upto\":7},"
		       "{\"shard\":2,\"upto\":5}]}");
	/* Shard 2 has grown meanwhile, and was not asked for. */
	answer(1, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":7,\"hash\":\"c\"},"
		  "{\"shard\":2,\"first\":1,\"upto\":6,\"hash\":\"g\"}]}");
	assert_int_equal(all[0].of[2].upto, 5);
	answer(2, "{\"shards\":[{\"shard\":2,\"first\":1,\"upto\":5,\"hash\":\"b\"}]}");
	answer(3, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":7,\"hash\":\"c\"},"
		  "{\"shard\":2,\"first\":1,\"upto\":5,\"hash\":\"x\"}]}");
	assert_true(tr_hashes_equal(all, NODES, 0));
	assert_true(tr_hashes_equal(all, NODES, 1)); /* nobody has it */
	assert_false(tr_hashes_equal(all, NODES, 2));
}

static void asks_nobody_when_all_end_alike(void **state)
{
	(void)state;
	answer(1, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}");
	answer(2, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}");
	assert_asks(1, NULL);
	assert_asks(2, NULL);
	assert_asks(3, NULL);
	assert_true(tr_hashes_equal(all, NODES, 0));
}

static void a_replica_that_has_moved_away_meanwhile_is_left_out(void **state)
{
	(void)state;
	answer(1, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}");
	answer(2, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":7,\"hash\":\"c\"}]}");
	assert_asks(1, "{\"upto\":[{\"shard\":0,\"upto\":7}]}");
	answer(1, "{\"shards\":[]}");
	assert_false(all[0].of[0].there);
	assert_true(tr_hashes_equal(all, NODES, 0));
}

static void replicas_that_begin_differently_differ(void **state)
{
	(void)state;
	answer(1, "{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}");
	answer(2, "{\"shards\":[{\"shard\":0,\"first\":2,\"upto\":9,\"hash\":\"a\"}]}");
	assert_false(tr_hashes_equal(all, NODES, 0));
}

static void refuses_what_is_no_answer(void **state)
{
	(void)state;
	char long_hash[160];
	snprintf(long_hash, sizeof(long_hash),
		"{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":\"%065d\"}]}", 0);
	const char *const wrong[] = {"", "{}", "{\"shards\":1}", "{\"shards\":[{}]}",
		"{\"shards\":[{\"shard\":3,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}",
		"{\"shards\":[{\"shard\":-1,\"first\":1,\"upto\":9,\"hash\":\"a\"}]}",
		"{\"shards\":[{\"shard\":0,\"first\":1,\"upto\":9,\"hash\":1}]}", long_hash};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_err(tr_hashes_read(&all[1], rt_bytes_str(wrong[i]), &info), RT_E_PROTO);
		assert_non_null(strstr(info.text, "node 2"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(asks_longer_replicas_again_for_the_common_part, fresh),
		cmocka_unit_test_setup(asks_nobody_when_all_end_alike, fresh),
		cmocka_unit_test_setup(a_replica_that_has_moved_away_meanwhile_is_left_out, fresh),
		cmocka_unit_test_setup(replicas_that_begin_differently_differ, fresh),
		cmocka_unit_test_setup(refuses_what_is_no_answer, fresh),
	};
	return cmocka_run_group_tests(tests, NULL, done);
}
