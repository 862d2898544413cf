#include <stdlib.h>
#include <string.h>

#include "actors/account/account.h"
#include "actors/account/account.pb-c.h"
#include "tests/support/given.h"

static struct given g;

static void open_account(void)
{
	Account__Open command = ACCOUNT__OPEN__INIT;
	given_new(&g, &account_aggregate, "alice");
	when_command(&g, &command.base);
	then_events(&g, 1);
}

static void deposit(int64_t amount, const char *ref)
{
	Account__Deposit command = ACCOUNT__DEPOSIT__INIT;
	command.amount = amount;
	command.ref = (char *)(uintptr_t)ref;
	when_command(&g, &command.base);
}

static void write_check(uint64_t number, int64_t amount)
{
	Account__WriteCheck command = ACCOUNT__WRITE_CHECK__INIT;
	command.number = number;
	command.amount = amount;
	when_command(&g, &command.base);
}

static void withdraw(int64_t amount)
{
	Account__WithdrawAtm command = ACCOUNT__WITHDRAW_ATM__INIT;
	command.amount = amount;
	when_command(&g, &command.base);
}

static void then_balance(int64_t balance)
{
	Account__Standing reply = ACCOUNT__STANDING__INIT;
	reply.balance = balance;
	then_reply(&g, &reply.base);
}

static Account__LedgerPage *ledger(uint64_t from_seq, uint32_t limit)
{
	Account__Ledger query = ACCOUNT__LEDGER__INIT;
	query.from_seq = from_seq;
	query.limit = limit;
	when_query(&g, &query.base);
	return (void *)then_replied(&g, &account__ledger_page__descriptor);
}

static void free_page(Account__LedgerPage *page)
{
	protobuf_c_message_free_unpacked(&page->base, NULL);
}

static void walks_through_the_article(void **unused)
{
	(void)unused;
	Account__MoneyDeposited deposited = ACCOUNT__MONEY_DEPOSITED__INIT;
	Account__CheckWritten written = ACCOUNT__CHECK_WRITTEN__INIT;
	Account__AtmWithdrawn withdrawn = ACCOUNT__ATM_WITHDRAWN__INIT;
	open_account();
	deposit(1000000, "salary");
	deposited.amount = deposited.balance = 1000000;
	deposited.ref = (char *)(uintptr_t) "salary";
	then_event(&g, &deposited.base);
	then_balance(1000000);
	write_check(101, 400000);
	written.number = 101;
	written.amount = 400000;
	written.balance = 600000;
	then_event(&g, &written.base);
	then_balance(600000);
	withdraw(20000);
	withdrawn.amount = 20000;
	withdrawn.balance = 580000;
	then_event(&g, &withdrawn.base);
	then_balance(580000);
	when_replayed(&g);
	when_restored(&g);
	Account__Balance query = ACCOUNT__BALANCE__INIT;
	when_query(&g, &query.base);
	then_balance(580000);
	given_free(&g);
}

static void refuses_everything_before_it_is_open(void **unused)
{
	(void)unused;
	Account__Balance query = ACCOUNT__BALANCE__INIT;
	given_new(&g, &account_aggregate, "alice");
	deposit(1, "");
	then_refused(&g, "account is not open");
	write_check(1, 1);
	then_refused(&g, "account is not open");
	withdraw(1);
	then_refused(&g, "account is not open");
	when_query(&g, &query.base);
	then_refused(&g, "account is not open");
	given_free(&g);
}

static void refuses_to_open_twice(void **unused)
{
	(void)unused;
	Account__Open command = ACCOUNT__OPEN__INIT;
	open_account();
	deposit(7, "");
	when_command(&g, &command.base);
	then_refused(&g, "account is open already");
	then_balance(7);
	given_free(&g);
}

static void refuses_to_overdraw_and_says_the_balance(void **unused)
{
	(void)unused;
	open_account();
	deposit(100, "");
	write_check(1, 101);
	then_refused(&g, "insufficient funds");
	then_balance(100);
	withdraw(INT64_MAX);
	then_refused(&g, "insufficient funds");
	then_balance(100);
	withdraw(100);
	then_events(&g, 1);
	then_balance(0);
	given_free(&g);
}

static void refuses_amounts_that_are_not_above_0(void **unused)
{
	(void)unused;
	static const int64_t amounts[] = {0, -1, INT64_MIN};
	open_account();
	deposit(5, "");
	for (size_t i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
		deposit(amounts[i], "");
		then_refused(&g, "amount must be above 0");
		write_check(1, amounts[i]);
		then_refused(&g, "amount must be above 0");
		withdraw(amounts[i]);
		then_refused(&g, "amount must be above 0");
	}
	given_free(&g);
}

static void refuses_a_balance_beyond_int64(void **unused)
{
	(void)unused;
	open_account();
	deposit(INT64_MAX, "");
	then_balance(INT64_MAX);
	deposit(1, "");
	then_refused(&g, "balance would be too large");
	then_balance(INT64_MAX);
	given_free(&g);
}

static void takes_a_reference_of_1_kib_and_not_more(void **unused)
{
	(void)unused;
	char ref[ACCOUNT_REF_MAX + 2];
	memset(ref, 'r', sizeof(ref));
	ref[ACCOUNT_REF_MAX] = '\0';
	open_account();
	deposit(1, ref);
	then_events(&g, 1);
	ref[ACCOUNT_REF_MAX] = 'r';
	ref[ACCOUNT_REF_MAX + 1] = '\0';
	deposit(1, ref);
	then_refused(&g, "ref is longer than 1024 bytes");
	given_free(&g);
}

static void ledger_lists_entries_with_running_balances(void **unused)
{
	(void)unused;
	open_account();
	Account__LedgerPage *page = ledger(0, 0);
	assert_int_equal(page->n_entries, 0);
	assert_int_equal(page->oldest_kept_seq, 0);
	assert_false(page->older_in_events || page->more);
	free_page(page);
	deposit(500, "");
	write_check(9, 200);
	withdraw(50);
	page = ledger(0, 0);
	assert_int_equal(page->n_entries, 3);
	assert_int_equal(page->oldest_kept_seq, 2);
	assert_int_equal(page->balance, 250);
	assert_int_equal(page->entries[1]->seq, 3);
	assert_int_equal(page->entries[1]->kind, ACCOUNT__KIND__CHECK);
	assert_int_equal(page->entries[1]->delta, -200);
	assert_int_equal(page->entries[0]->balance, 500);
	assert_int_equal(page->entries[1]->balance, 300);
	assert_int_equal(page->entries[2]->balance, 250);
	assert_false(page->older_in_events || page->more);
	free_page(page);
	given_free(&g);
}

static void ledger_keeps_the_newest_entries_and_says_so(void **unused)
{
	(void)unused;
	open_account();
	for (int64_t i = 1; i <= 300; i++) {
		deposit(i, "");
		then_events(&g, 1);
	}
	/* Events 2..301; the newest 128 are 174..301. */
	Account__LedgerPage *page = ledger(0, 0);
	assert_int_equal(page->n_entries, ACCOUNT_LEDGER_KEPT);
	assert_int_equal(page->oldest_kept_seq, 174);
	assert_true(page->older_in_events);
	assert_false(page->more);
	assert_int_equal(page->entries[0]->delta, 173);
	assert_int_equal(page->entries[127]->seq, 301);
	assert_int_equal(page->entries[127]->balance, 300 * 301 / 2);
	free_page(page);
	page = ledger(200, 10);
	assert_int_equal(page->n_entries, 10);
	assert_int_equal(page->entries[0]->seq, 200);
	assert_int_equal(page->entries[0]->balance, 199 * 200 / 2);
	assert_int_equal(page->entries[9]->seq, 209);
	assert_true(page->more);
	free_page(page);
	page = ledger(302, 10);
	assert_int_equal(page->n_entries, 0);
	assert_false(page->more);
	free_page(page);
	page = ledger(UINT64_MAX, UINT32_MAX);
	assert_int_equal(page->n_entries, 0);
	free_page(page);
	given_free(&g);
}

static void a_long_life_replays_and_restores_to_the_same_state(void **unused)
{
	(void)unused;
	unsigned seed = 20261120;
	print_message("seed %u\n", seed);
	open_account();
	for (uint64_t i = 0; i < 1000; i++) {
		int64_t amount = rand_r(&seed) % 1000 - 10;
		switch (rand_r(&seed) % 3) {
		case 0:
			deposit(amount, "x");
			break;
		case 1:
			write_check(i, amount);
			break;
		default:
			withdraw(amount);
			break;
		}
		if (i % 97 == 0) {
			when_replayed(&g);
			when_restored(&g);
		}
	}
	when_replayed(&g);
	assert_true(g.state_bytes < 4096);
	given_free(&g);
}

static void calls_impossible_events_contradictions(void **unused)
{
	(void)unused;
	Account__AccountOpened opened = ACCOUNT__ACCOUNT_OPENED__INIT;
	Account__MoneyDeposited deposited = ACCOUNT__MONEY_DEPOSITED__INIT;
	Account__CheckWritten written = ACCOUNT__CHECK_WRITTEN__INIT;
	Account__AtmWithdrawn withdrawn = ACCOUNT__ATM_WITHDRAWN__INIT;
	given_new(&g, &account_aggregate, "alice");
	deposited.amount = deposited.balance = 10;
	then_contradicts(&g, &deposited.base);
	given_event(&g, &opened.base);
	then_contradicts(&g, &opened.base);
	given_event(&g, &deposited.base);
	then_contradicts(&g, &deposited.base); /* 20 is not 10 */
	written.amount = 11;
	written.balance = -1;
	then_contradicts(&g, &written.base);
	withdrawn.amount = INT64_MIN;
	then_contradicts(&g, &withdrawn.base);
	given_free(&g);
}

static void refuses_snapshots_that_make_no_sense(void **unused)
{
	(void)unused;
	Account__State saved = ACCOUNT__STATE__INIT;
	Account__Kind kinds[ACCOUNT_LEDGER_KEPT + 1] = {0};
	int64_t deltas[ACCOUNT_LEDGER_KEPT + 1] = {0};
	given_new(&g, &account_aggregate, "alice");
	saved.balance = -1;
	assert_false(account_aggregate.restore(g.state, &saved.base));
	saved.balance = 1;
	saved.n_kept_kinds = saved.n_kept_deltas = 3;
	saved.kept_kinds = kinds;
	saved.kept_deltas = deltas;
	saved.deposits = 3;
	assert_false(account_aggregate.restore(g.state, &saved.base)); /* last_seq 0 */
	saved.last_seq = 1000;
	saved.n_kept_deltas = 2;
	assert_false(account_aggregate.restore(g.state, &saved.base));
	saved.n_kept_kinds = saved.n_kept_deltas = ACCOUNT_LEDGER_KEPT + 1;
	assert_false(account_aggregate.restore(g.state, &saved.base));
	given_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walks_through_the_article),
		cmocka_unit_test(refuses_everything_before_it_is_open),
		cmocka_unit_test(refuses_to_open_twice),
		cmocka_unit_test(refuses_to_overdraw_and_says_the_balance),
		cmocka_unit_test(refuses_amounts_that_are_not_above_0),
		cmocka_unit_test(refuses_a_balance_beyond_int64),
		cmocka_unit_test(takes_a_reference_of_1_kib_and_not_more),
		cmocka_unit_test(ledger_lists_entries_with_running_balances),
		cmocka_unit_test(ledger_keeps_the_newest_entries_and_says_so),
		cmocka_unit_test(a_long_life_replays_and_restores_to_the_same_state),
		cmocka_unit_test(calls_impossible_events_contradictions),
		cmocka_unit_test(refuses_snapshots_that_make_no_sense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
