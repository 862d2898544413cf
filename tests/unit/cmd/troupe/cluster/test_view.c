#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/cluster/view.h"
#include "tests/support/test.h"

#define HEAD                                                                                  \
	"{\"cluster\":\"0123456789abcdef0123456789abcdef\",\"version\":12,\"coordinator\":1," \
	"\"term\":3,\"replication\":2,\"shards\":2,\"movesMax\":4,\"deadAfterMs\":60000,"     \
	"\"moves\":0,\"new\":[1],"
#define NODE(n, state, reachable, replicas, leaders)                                               \
	"{\"node\":" #n ",\"name\":\"n" #n "\",\"rpc\":\"tcp://h:" #n "\",\"peer\":\"tcp://h:1" #n \
	"\",\"state\":\"" state "\",\"reachable\":" #reachable                                     \
	",\"heardMs\":40,\"replicas\":" #replicas ",\"leaders\":" #leaders "}"
#define REPLICA(n, voter, lag) "{\"node\":" #n ",\"voter\":" #voter ",\"lag\":" #lag "}"
#define GROUP(shard, name, leader, replicas, target, preferred, moving)              \
	"{\"shard\":" #shard ",\"name\":\"" name "\",\"leader\":" #leader            \
	",\"term\":3,\"commit\":123,\"replicas\":[" replicas "],\"target\":[" target \
	"],\"preferred\":" #preferred ",\"moving\":" #moving "}"
#define BOTH       REPLICA(1, true, 0) "," REPLICA(2, true, 0)
#define EVEN_NODES "\"nodes\":[" NODE(1, "up", true, 3, 2) "," NODE(2, "up", true, 3, 1) "],"

static struct tr_view view;
static struct rt_errinfo info;

static rt_err read_view(const char *json)
{
	tr_view_done(&view);
	memset(&info, 0, sizeof(info));
	return tr_view_read(rt_bytes_str(json), &view, &info);
}

static int done(void **state)
{
	(void)state;
	tr_view_done(&view);
	return 0;
}

static const char *groups_of_three(const char *second)
{
	static char text[2048];
	snprintf(text, sizeof(text), HEAD EVEN_NODES "\"groups\":[%s,%s,%s]}",
		GROUP(0, "0", 1, BOTH, "1,2", 1, false), second,
		GROUP(2, "meta", 1, BOTH, "1,2", 0, false));
	return text;
}

static void reads_what_a_coordinator_says(void **state)
{
	(void)state;
	assert_err(read_view(groups_of_three(
			   GROUP(1, "1", 2, BOTH "," REPLICA(3, false, 7), "1,2,3", 2, true))),
		RT_OK);
	assert_string_equal(view.cluster, "0123456789abcdef0123456789abcdef");
	assert_int_equal(view.version, 12);
	assert_int_equal(view.dead_after_ms, 60000);
	assert_int_equal(view.member_count, 2);
	assert_string_equal(view.members[1].rpc, "tcp://h:2");
	assert_true(view.members[1].reachable);
	assert_int_equal(view.group_count, 3);
	assert_int_equal(view.groups[1].replica_count, 3);
	assert_int_equal(view.groups[1].replicas[2].lag, 7);
	assert_false(view.groups[1].replicas[2].voter);
	assert_int_equal(view.groups[1].target[2], 3);
	assert_int_equal(view.groups[2].target[0], 1);
}

static void names_what_is_missing(void **state)
{
	(void)state;
	assert_err(read_view("{"), RT_E_PROTO);
	assert_err(read_view("[]"), RT_E_PROTO);
	assert_err(read_view("{}"), RT_E_PROTO);
	assert_non_null(strstr(info.text, "cluster: version"));
	assert_err(read_view(HEAD "\"groups\":[]}"), RT_E_PROTO);
	assert_non_null(strstr(info.text, "cluster: nodes"));
	assert_err(read_view(HEAD "\"nodes\":[{}],\"groups\":[]}"), RT_E_PROTO);
	assert_non_null(strstr(info.text, "a node: node"));
	assert_err(read_view(HEAD "\"nodes\":[],\"groups\":[{}]}"), RT_E_PROTO);
	assert_non_null(strstr(info.text, "a group: shard"));
	assert_err(read_view(groups_of_three(GROUP(1, "1", 2, "{\"node\":1}", "1", 2, true))),
		RT_E_PROTO);
	assert_non_null(strstr(info.text, "a replica: lag"));
	assert_err(
		read_view(groups_of_three(GROUP(1, "1", 2, BOTH, "\"x\"", 2, true))), RT_E_PROTO);
	assert_non_null(strstr(info.text, "a group: target"));
	assert_err(read_view(groups_of_three(GROUP(1, "1", -2, BOTH, "1", 2, true))), RT_E_PROTO);
	assert_non_null(strstr(info.text, "a group: leader"));
	assert_null(view.root);
}

static void finds_a_node_by_number_or_name(void **state)
{
	(void)state;
	assert_err(read_view(HEAD "\"nodes\":[" NODE(1, "up", true, 0, 0) "," NODE(
			   2, "left", false, 0, 0) ",{\"node\":7,\"name\":\"n2\",\"rpc\":\"\","
						   "\"peer\":\"\",\"state\":\"up\",\"reachable\":"
						   "true,\"heardMs\":0,\"replicas\":0,\"leaders\":"
						   "0}],\"groups\":[]}"),
		RT_OK);
	assert_int_equal(tr_view_find(&view, "1", &info)->node, 1);
	assert_int_equal(tr_view_find(&view, "n1", &info)->node, 1);
	assert_int_equal(tr_view_find(&view, "2", &info)->node, 2);
	/* Its name is another's now. */
	assert_int_equal(tr_view_find(&view, "n2", &info)->node, 7);
	assert_null(tr_view_find(&view, "n3", &info));
	assert_string_equal(
		info.text, "no node \"n3\" in this cluster; there are 1 (n1), 2 (n2), 7 (n2)");
	assert_null(tr_view_find(&view, "3", &info));
}

static void finds_a_shard_by_number_or_name(void **state)
{
	(void)state;
	assert_err(read_view(groups_of_three(GROUP(1, "1", 2, BOTH, "1,2", 2, false))), RT_OK);
	assert_int_equal(tr_view_shard(&view, "1", &info)->shard, 1);
	assert_int_equal(tr_view_shard(&view, "meta", &info)->shard, 2);
	assert_int_equal(tr_view_shard(&view, "2", &info)->shard, 2);
	assert_null(tr_view_shard(&view, "3", &info));
	assert_string_equal(info.text, "no shard \"3\" in this cluster; there are 0 to 1 and meta");
	assert_null(tr_view_shard(&view, "x", &info));
}

static bool is_even(const char *second)
{
	assert_err(read_view(groups_of_three(second)), RT_OK);
	return tr_view_is_even(&view, 2);
}

static void is_even_when_nothing_is_left_to_do(void **state)
{
	(void)state;
	assert_true(is_even(GROUP(1, "1", 2, BOTH, "1,2", 2, false)));
	assert_false(tr_view_is_even(&view, 3));
	/* no leader, another leader */
	assert_false(is_even(GROUP(1, "1", 0, BOTH, "1,2", 2, false)));
	assert_false(is_even(GROUP(1, "1", 1, BOTH, "1,2", 2, false)));
	/* moving; a replica too few, one too many, one elsewhere, one without a vote */
	assert_false(is_even(GROUP(1, "1", 2, BOTH, "1,2", 2, true)));
	assert_false(is_even(GROUP(1, "1", 2, REPLICA(2, true, 0), "1,2", 2, false)));
	assert_false(is_even(GROUP(1, "1", 2, BOTH, "2", 2, false)));
	assert_false(is_even(GROUP(1, "1", 2, BOTH, "2,3", 2, false)));
	assert_false(is_even(
		GROUP(1, "1", 2, REPLICA(1, false, 0) "," REPLICA(2, true, 0), "1,2", 2, false)));
	/* as placed, and that is too few for two nodes and two copies */
	assert_false(is_even(GROUP(1, "1", 2, REPLICA(2, true, 0), "2", 2, false)));
	/* fewer groups than there are */
	assert_err(read_view(HEAD EVEN_NODES "\"groups\":[]}"), RT_OK);
	assert_false(tr_view_is_even(&view, 2));
}

static void is_not_even_when_one_node_has_most(void **state)
{
	(void)state;
	assert_err(read_view(HEAD "\"nodes\":[" NODE(1, "up", true, 3, 3) "," NODE(2, "up", true, 3,
			   0) "],"
			      "\"groups\":[" GROUP(0, "0", 1, BOTH, "1,2", 1, false) "," GROUP(1,
				      "1", 1, BOTH, "1,2", 1,
				      false) "," GROUP(2, "meta", 1, BOTH, "1,2", 0, false) "]}"),
		RT_OK);
	assert_false(tr_view_is_even(&view, 2));
	/* Who cannot be reached or leaves does not count. */
	assert_err(read_view(HEAD "\"nodes\":[" NODE(1, "up", true, 3, 2) "," NODE(2, "up", false,
			   3, 1) "],"
				 "\"groups\":[" GROUP(0, "0", 1, BOTH, "1,2", 1, false) "," GROUP(
					 1, "1", 2, BOTH, "1,2", 2, false) "," GROUP(2, "meta", 1,
					 BOTH, "1,2", 0, false) "]}"),
		RT_OK);
	assert_false(tr_view_is_even(&view, 2));
	assert_true(tr_view_is_even(&view, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_a_coordinator_says),
		cmocka_unit_test(names_what_is_missing),
		cmocka_unit_test(finds_a_node_by_number_or_name),
		cmocka_unit_test(finds_a_shard_by_number_or_name),
		cmocka_unit_test(is_even_when_nothing_is_left_to_do),
		cmocka_unit_test(is_not_even_when_one_node_has_most),
	};
	return cmocka_run_group_tests(tests, NULL, done);
}
