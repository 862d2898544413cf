#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/cluster/table.h"
#include "cmd/troupe/cluster/watch.h"
#include "tests/support/test.h"

/* Three nodes: the second hangs, the third drains; a fourth has left. Shard 1 moves from 3 to 2,
 * shard 2 has no leader, shard 3 is led by another than it should. */
static const char *const status =
	"{\"cluster\":\"00ff\",\"version\":12,\"coordinator\":1,\"term\":3,\"replication\":2,"
	"\"shards\":4,\"movesMax\":4,\"deadAfterMs\":60000,\"moves\":1,\"nodes\":["
	"{\"node\":1,\"name\":\"first\",\"rpc\":\"tcp://127.0.0.1:7470\",\"peer\":\"\","
	"\"state\":\"up\",\"reachable\":true,\"heardMs\":40,\"replicas\":5,\"leaders\":3},"
	"{\"node\":2,\"name\":\"\",\"rpc\":\"tcp://127.0.0.1:7472\",\"peer\":\"\","
	"\"state\":\"up\",\"reachable\":false,\"heardMs\":12345,\"replicas\":3,\"leaders\":0},"
	"{\"node\":3,\"name\":\"n3\",\"rpc\":\"tcp://127.0.0.1:7474\",\"peer\":\"\","
	"\"state\":\"draining\",\"reachable\":true,\"heardMs\":0,\"replicas\":2,\"leaders\":1},"
	"{\"node\":14,\"name\":\"n4\",\"rpc\":\"ipc:///x\",\"peer\":\"\",\"state\":\"left\","
	"\"reachable\":false,\"heardMs\":7200000,\"replicas\":0,\"leaders\":0}],\"groups\":["
	"{\"shard\":0,\"name\":\"0\",\"leader\":1,\"term\":3,\"commit\":123,\"replicas\":["
	"{\"node\":1,\"voter\":true,\"lag\":0},{\"node\":3,\"voter\":true,\"lag\":0}],"
	"\"target\":[1,3],\"preferred\":1,\"moving\":false},"
	"{\"shard\":1,\"name\":\"1\",\"leader\":3,\"term\":11,\"commit\":98765,\"replicas\":["
	"{\"node\":1,\"voter\":true,\"lag\":2},{\"node\":2,\"voter\":false,\"lag\":40},"
	"{\"node\":3,\"voter\":true,\"lag\":0}],"
	"\"target\":[1,2],\"preferred\":1,\"moving\":true},"
	"{\"shard\":2,\"name\":\"2\",\"leader\":0,\"term\":0,\"commit\":0,\"replicas\":[],"
	"\"target\":[1,2],\"preferred\":1,\"moving\":false},"
	"{\"shard\":3,\"name\":\"3\",\"leader\":1,\"term\":3,\"commit\":5,\"replicas\":["
	"{\"node\":1,\"voter\":true,\"lag\":0},{\"node\":2,\"voter\":true,\"lag\":0}],"
	"\"target\":[1,2],\"preferred\":2,\"moving\":false},"
	"{\"shard\":4,\"name\":\"meta\",\"leader\":1,\"term\":3,\"commit\":5,\"replicas\":["
	"{\"node\":1,\"voter\":true,\"lag\":0},{\"node\":2,\"voter\":true,\"lag\":0}],"
	"\"target\":[1,2],\"preferred\":0,\"moving\":true}]}";

static const char *const table =
	"cluster 00ff, version 12; coordinator first in term 3\n"
	"4 shards and the meta group, 2 replicas of each; 4 moves at a time; a node is dead after "
	"60 s\n"
	"\n"
	" NODE  NAME   STATE     ROLE         REPLICAS  LEADERS  REACHABLE     HEARD  RPC\n"
	"    1  first  up        coordinator         5        3  yes           0.0 s  "
	"tcp://127.0.0.1:7470\n"
	"    2  -      up        member              3        0  no             12 s  "
	"tcp://127.0.0.1:7472\n"
	"    3  n3     draining  member              2        1  yes           0.0 s  "
	"tcp://127.0.0.1:7474\n"
	"   14  n4     left      -                   0        0  no              2 h  ipc:///x\n"
	"\n"
	"5 groups: 4 led, 2 with all replicas, 3 moving\n"
	"  without a leader    2\n"
	"  short of replicas   2-meta\n"
	"  moving              1-2, meta\n"
	"  led by another      1, 3\n";

static const char *const lines =
	"\n"
	"SHARD  LEADER    TERM        COMMIT  REPLICAS              TARGET       PENDING\n"
	"    0       1       3           123  1 3                   1 3          -\n"
	"    1       3      11         98765  1-2 2*!-40 3          1 2          vote 2 -3 lead 1\n"
	"    2       -       0             0                        1 2          +1 +2 lead 1\n"
	"    3       1       3             5  1 2!                  1 2          lead 2\n"
	" meta       1       3             5  1 2!                  1 2          ending\n"
	"replicas: 2*: without a vote yet; 2!: not reachable; 2-40: 40 records behind\n";

static char *render(const char *json, bool groups)
{
	struct tr_view view;
	struct rt_errinfo info = {0};
	struct pr_text text = {0};
	assert_err(tr_view_read(rt_bytes_str(json), &view, &info), RT_OK);
	tr_table_add(&view, groups, &text);
	pr_text_add(&text, "", 1);
	tr_view_done(&view);
	assert_false(text.failed);
	return text.data;
}

static void shows_nodes_and_what_is_wrong_with_shards(void **state)
{
	(void)state;
	char *text = render(status, false);
	assert_string_equal(text, table);
	free(text);
}

static void shows_each_shard_with_what_is_left_to_do(void **state)
{
	(void)state;
	char *text = render(status, true);
	assert_memory_equal(text, table, strlen(table));
	assert_string_equal(text + strlen(table), lines);
	free(text);
}

/* Every other shard without a leader: more ranges than a person reads. */
static void counts_what_it_does_not_list(void **state)
{
	(void)state;
	struct pr_text json = {0};
	pr_text_str(&json,
		"{\"cluster\":\"0\",\"version\":1,\"coordinator\":0,\"term\":0,"
		"\"replication\":1,\"shards\":40,\"movesMax\":1,\"deadAfterMs\":1,\"moves\":0,"
		"\"nodes\":[],\"groups\":[");
	for (int i = 0; i < 40; i++) {
		pr_text_printf(&json,
			"%s{\"shard\":%d,\"name\":\"%d\",\"leader\":%d,\"term\":0,\"commit\":0,"
			"\"replicas\":[],\"target\":[],\"preferred\":0,\"moving\":false}",
			i > 0 ? "," : "", i, i, i % 2);
	}
	pr_text_str(&json, "]}");
	pr_text_add(&json, "", 1);
	char *text = render(json.data, false);
	assert_non_null(strstr(text, "coordinator none in term 0\n"));
	assert_non_null(
		strstr(text, "  without a leader    0, 2, 4, 6, 8, 10, 12, 14 and 12 more\n"));
	assert_non_null(strstr(text, "  short of replicas   0-39\n"));
	free(text);
	pr_text_clear(&json);
}

static void a_frame_overwrites_and_clears_only_the_rest(void **state)
{
	(void)state;
	struct pr_text picture = {0}, trouble = {0}, out = {0};
	pr_text_str(&picture, "one\ntwo\nthree\nfour\n");
	tr_watch_frame(&picture, &trouble, 24, &out);
	pr_text_add(&out, "", 1);
	assert_string_equal(
		out.data, "\033[Hone\033[K\r\ntwo\033[K\r\nthree\033[K\r\nfour\033[K\r\n\033[J");
	out.size = 0;
	pr_text_str(&trouble, "no status\n");
	tr_watch_frame(&picture, &trouble, 5, &out);
	pr_text_add(&out, "", 1);
	assert_string_equal(out.data, "\033[Hone\033[K\r\ntwo\033[K\r\n... 2 more lines\033[K\r\n"
				      "no status\033[K\r\n\033[J");
	pr_text_clear(&picture);
	pr_text_clear(&trouble);
	pr_text_clear(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_nodes_and_what_is_wrong_with_shards),
		cmocka_unit_test(shows_each_shard_with_what_is_left_to_do),
		cmocka_unit_test(counts_what_it_does_not_list),
		cmocka_unit_test(a_frame_overwrites_and_clears_only_the_rest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
