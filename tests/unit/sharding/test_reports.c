#include <stdlib.h>

#include "sharding/reports.h"
#include "tests/support/test.h"

#define REACH_MS 2000u
#define SHARDS   4u

static struct sh_reports reports;
static Troupe__Cluster__ClusterState state;
static Troupe__Cluster__Member members[3], *member_list[3];

static int setup(void **unused)
{
	(void)unused;
	troupe__cluster__cluster_state__init(&state);
	state.shard_count = SHARDS;
	state.members = member_list;
	state.n_members = 3;
	for (uint32_t i = 0; i < 3; i++) {
		troupe__cluster__member__init(&members[i]);
		members[i].node = i + 1;
		member_list[i] = &members[i];
	}
	return sh_reports_init(&reports, SHARDS + 1, REACH_MS, 1000) == RT_OK ? 0 : -1;
}

static int teardown(void **unused)
{
	(void)unused;
	sh_reports_done(&reports);
	return 0;
}

/* What a node says of shard 0. */
struct said {
	uint64_t from, leader, term, instance;
	uint32_t members; /* 1..members, all vote; 0: it does not lead */
	uint64_t commit;
};

static rt_err hear(uint64_t now_ms, struct said said)
{
	uint64_t nodes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, match[8] = {0};
	protobuf_c_boolean votes[8] = {1, 1, 1, 1, 1, 1, 1, 1};
	uint8_t packed[1024];
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	Troupe__Cluster__ReplicaReport replica = TROUPE__CLUSTER__REPLICA_REPORT__INIT;
	Troupe__Cluster__ReplicaReport *list = &replica;
	report.node = said.from;
	report.workers = 1;
	report.instance = said.instance;
	report.replicas = &list;
	report.n_replicas = 1;
	replica.leader = said.leader;
	replica.term = said.term;
	replica.leading = said.members > 0;
	replica.commit = replica.last = said.commit;
	replica.nodes = nodes;
	replica.votes = votes;
	replica.match = match;
	replica.n_nodes = replica.n_votes = replica.n_match = said.members;
	size_t size = troupe__cluster__node_report__pack(&report, packed);
	return sh_reports_take(&reports, &state, now_ms, said.from, rt_bytes_of(packed, size));
}

static void knows_nothing_at_first(void **unused)
{
	(void)unused;
	assert_false(sh_reports_reachable(&reports, 1, 1000));
	assert_null(sh_reports_node(&reports, 1));
	assert_int_equal(sh_reports_leader(&reports, 0, 1000), 0);
	assert_int_equal(sh_reports_led(&reports, 0, 1000), 0);
}

static void believes_a_leader_as_long_as_it_is_heard(void **unused)
{
	(void)unused;
	assert_err(
		hear(5000, (struct said){.from = 2, .leader = 2, .term = 3, .members = 3}), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5000 + REACH_MS - 1), 2);
	assert_int_equal(sh_reports_led(&reports, 0, 5000 + REACH_MS), 0);
	assert_true(sh_reports_reachable(&reports, 2, 5000 + REACH_MS - 1));
	assert_false(sh_reports_reachable(&reports, 2, 5000 + REACH_MS));
	assert_int_equal(reports.groups[0].actual.count, 3);
	/* Others still name it. */
	assert_err(hear(7500, (struct said){.from = 1, .leader = 2, .term = 3}), RT_OK);
	assert_int_equal(sh_reports_leader(&reports, 0, 7500), 2);
	assert_int_equal(sh_reports_led(&reports, 0, 7500), 0);
}

static void believes_the_higher_term(void **unused)
{
	(void)unused;
	assert_err(
		hear(5000, (struct said){.from = 2, .leader = 2, .term = 3, .members = 3}), RT_OK);
	assert_err(hear(5001, (struct said){.from = 1, .leader = 3, .term = 4}), RT_OK);
	assert_int_equal(sh_reports_leader(&reports, 0, 5001), 3);
	assert_int_equal(sh_reports_led(&reports, 0, 5001), 0);
	uint64_t routes = reports.routes;
	assert_err(
		hear(5002, (struct said){.from = 2, .leader = 2, .term = 3, .members = 3}), RT_OK);
	assert_int_equal(sh_reports_leader(&reports, 0, 5002), 3);
	assert_int_equal(reports.routes, routes);
	assert_err(
		hear(5003, (struct said){.from = 3, .leader = 3, .term = 4, .members = 2}), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5003), 3);
	assert_int_equal(reports.groups[0].actual.count, 2);
	assert_int_equal(reports.routes, routes);
}

static void believes_a_leader_of_an_older_term_once_nobody_confirms_the_newer(void **unused)
{
	(void)unused;
	assert_err(hear(5000, (struct said){.from = 1, .leader = 3, .term = UINT64_MAX}), RT_OK);
	struct said real = {.from = 2, .leader = 2, .term = 3, .members = 3};
	assert_err(hear(5000 + REACH_MS - 1, real), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5000 + REACH_MS - 1), 0);
	assert_err(hear(5000 + REACH_MS, real), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5000 + REACH_MS), 2);
}

static void notices_who_leads_no_longer(void **unused)
{
	(void)unused;
	struct said leads = {.from = 2, .leader = 2, .term = 3, .members = 3};
	assert_err(hear(5000, leads), RT_OK);
	assert_err(hear(5001, (struct said){.from = 2, .term = 3}), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5001), 0);
	assert_err(hear(5002, leads), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5002), 2);
	/* It was started anew, and another worker of it speaks first. */
	assert_err(hear(5003, (struct said){.from = 2, .term = 0, .instance = 9}), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5003), 0);
}

static void who_serves_on_under_another_leader_leads_no_longer(void **unused)
{
	(void)unused;
	struct said leads = {.from = 2, .leader = 2, .term = 3, .members = 3};
	assert_err(hear(5000, leads), RT_OK);
	leads.leader = 3;
	leads.term = 4;
	assert_err(hear(5001, leads), RT_OK);
	assert_int_equal(sh_reports_led(&reports, 0, 5001), 0);
	assert_int_equal(sh_reports_leader(&reports, 0, 5001), 3);
}

static void does_not_route_to_who_is_no_member(void **unused)
{
	(void)unused;
	assert_err(hear(5000, (struct said){.from = 1, .leader = 4, .term = 3}), RT_OK);
	assert_int_equal(sh_reports_leader(&reports, 0, 5000), 0);
	members[2].state = SH_NODE_LEFT;
	assert_err(hear(5000, (struct said){.from = 1, .leader = 3, .term = 3}), RT_OK);
	assert_int_equal(sh_reports_leader(&reports, 0, 5000), 0);
}

static void takes_only_the_version_of_who_has_left(void **unused)
{
	(void)unused;
	members[2].state = SH_NODE_LEFT;
	assert_err(hear(5000, (struct said){.from = 3, .leader = 3, .term = 9, .members = 3}),
		RT_E_CLOSED);
	assert_int_equal(sh_reports_leader(&reports, 0, 5000), 0);
	assert_non_null(sh_reports_node(&reports, 3));
}

static void refuses_strangers_and_lies(void **unused)
{
	(void)unused;
	assert_err(hear(5000, (struct said){.from = 4}), RT_E_PROTO);
	assert_err(hear(5000, (struct said){.from = 1, .leader = 1, .term = 9, .members = 8}),
		RT_E_PROTO);
	assert_null(sh_reports_node(&reports, 1));
	assert_int_equal(sh_reports_leader(&reports, 0, 5000), 0);
	assert_int_equal(reports.dropped, 2);
	assert_err(
		sh_reports_take(&reports, &state, 5000, 1, rt_bytes_str("\xff\xff")), RT_E_PROTO);
}

static void keeps_an_address_of_the_greatest_length_and_refuses_more(void **unused)
{
	(void)unused;
	char url[SH_CLUSTER_URL_MAX + 2];
	uint8_t packed[1024];
	Troupe__Cluster__NodeReport report = TROUPE__CLUSTER__NODE_REPORT__INIT;
	memset(url, 'u', sizeof(url));
	report.node = 1;
	report.workers = 1;
	report.rpc = report.peer = url;
	url[SH_CLUSTER_URL_MAX + 1] = '\0';
	size_t size = troupe__cluster__node_report__pack(&report, packed);
	assert_err(
		sh_reports_take(&reports, &state, 5000, 1, rt_bytes_of(packed, size)), RT_E_PROTO);
	url[SH_CLUSTER_URL_MAX] = '\0';
	size = troupe__cluster__node_report__pack(&report, packed);
	assert_err(sh_reports_take(&reports, &state, 5000, 1, rt_bytes_of(packed, size)), RT_OK);
	assert_string_equal(sh_reports_node(&reports, 1)->peer, url);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(knows_nothing_at_first, setup, teardown),
		cmocka_unit_test_setup_teardown(
			believes_a_leader_as_long_as_it_is_heard, setup, teardown),
		cmocka_unit_test_setup_teardown(believes_the_higher_term, setup, teardown),
		cmocka_unit_test_setup_teardown(
			believes_a_leader_of_an_older_term_once_nobody_confirms_the_newer, setup,
			teardown),
		cmocka_unit_test_setup_teardown(notices_who_leads_no_longer, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_serves_on_under_another_leader_leads_no_longer, setup, teardown),
		cmocka_unit_test_setup_teardown(
			does_not_route_to_who_is_no_member, setup, teardown),
		cmocka_unit_test_setup_teardown(
			takes_only_the_version_of_who_has_left, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_strangers_and_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(
			keeps_an_address_of_the_greatest_length_and_refuses_more, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
