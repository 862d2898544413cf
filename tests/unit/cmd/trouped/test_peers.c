#include "cmd/trouped/peers.h"
#include "tests/support/test.h"

static struct td_peers *peers_of(uint32_t connections)
{
	const struct td_peer_limits limits = {
		.connections = connections, .messages = 4, .calls = 10, .bytes = 1000};
	struct td_peers *peers = NULL;
	assert_err(td_peers_new(&limits, &peers), RT_OK);
	return peers;
}

static void finds_who_is_there_and_nobody_else(void **state)
{
	(void)state;
	struct td_peers *peers = peers_of(10);
	assert_true(td_peers_add(peers, 5, 0));
	assert_true(td_peers_add(peers, 5 + TD_PEER_SLOTS, 0));
	assert_non_null(td_peers_find(peers, 5));
	assert_ptr_not_equal(td_peers_find(peers, 5), td_peers_find(peers, 5 + TD_PEER_SLOTS));
	assert_null(td_peers_find(peers, 6));
	assert_null(td_peers_find(peers, 0));
	td_peers_remove(peers, 5);
	td_peers_remove(peers, 77);
	assert_null(td_peers_find(peers, 5));
	assert_int_equal(td_peers_count(peers), 1);
	td_peers_free(peers);
}

static void refuses_one_too_many(void **state)
{
	(void)state;
	struct td_peers *peers = peers_of(2);
	assert_true(td_peers_add(peers, 1, 0));
	assert_true(td_peers_add(peers, 2, 0));
	assert_false(td_peers_add(peers, 3, 0));
	td_peers_remove(peers, 1);
	assert_true(td_peers_add(peers, 3, 0));
	assert_false(td_peers_add(peers, 0, 0));
	td_peers_free(peers);
}

static void takes_nothing_when_it_says_no(void **state)
{
	(void)state;
	struct td_peers *peers = peers_of(2);
	assert_true(td_peers_add(peers, 1, 0));
	struct td_peer *peer = td_peers_find(peers, 1);
	assert_true(td_peer_take(peers, peer, 6, 500));
	assert_false(td_peer_take(peers, peer, 5, 10));
	assert_false(td_peer_take(peers, peer, 1, 501));
	assert_true(td_peer_take(peers, peer, 4, 500));
	td_peer_give(peer, 4, 500);
	td_peer_give(peer, 6, 500);
	for (int i = 0; i < 4; i++) {
		assert_true(td_peer_take(peers, peer, 1, 1));
	}
	assert_false(td_peer_take(peers, peer, 1, 1));
	td_peers_free(peers);
}

static void keeps_a_slot_until_its_messages_are_answered(void **state)
{
	(void)state;
	struct td_peers *peers = peers_of(2);
	assert_true(td_peers_add(peers, 9, 0));
	struct td_peer *old = td_peers_find(peers, 9);
	assert_true(td_peer_take(peers, old, 1, 1));
	td_peers_remove(peers, 9);
	assert_true(td_peers_add(peers, 9 + TD_PEER_SLOTS, 0));
	assert_ptr_not_equal(td_peers_find(peers, 9 + TD_PEER_SLOTS), old);
	td_peers_remove(peers, 9 + TD_PEER_SLOTS);
	td_peer_give(old, 1, 1);
	assert_true(td_peers_add(peers, 9 + 2 * TD_PEER_SLOTS, 0));
	assert_ptr_equal(td_peers_find(peers, 9 + 2 * TD_PEER_SLOTS), old);
	td_peers_free(peers);
}

static void sweeps_out_those_that_are_not_among_the_living(void **state)
{
	(void)state;
	struct td_peers *peers = peers_of(3);
	assert_true(td_peers_add(peers, 1, 101));
	assert_true(td_peers_add(peers, 2, 103));
	assert_true(td_peers_add(peers, 3, 0));
	const uint64_t living[] = {99, 103};
	assert_int_equal(td_peers_sweep(peers, living, 2), 1);
	assert_null(td_peers_find(peers, 1));
	assert_non_null(td_peers_find(peers, 2));
	assert_non_null(td_peers_find(peers, 3));
	assert_true(td_peers_add(peers, 4, 105));
	td_peers_free(peers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_who_is_there_and_nobody_else),
		cmocka_unit_test(refuses_one_too_many),
		cmocka_unit_test(takes_nothing_when_it_says_no),
		cmocka_unit_test(sweeps_out_those_that_are_not_among_the_living),
		cmocka_unit_test(keeps_a_slot_until_its_messages_are_answered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
