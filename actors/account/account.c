#include "actors/account/account.h"

#include <string.h>

#include "actors/account/account.pb-c.h"

enum {
	OPEN,
	DEPOSIT,
	WRITE_CHECK,
	WITHDRAW_ATM
};
enum {
	ACCOUNT_OPENED,
	MONEY_DEPOSITED,
	CHECK_WRITTEN,
	ATM_WITHDRAWN
};
enum {
	BALANCE,
	LEDGER
};

struct entry {
	int64_t delta;
	uint8_t kind;
};

/* Every event after AccountOpened is one ledger entry, so an entry's sequence number follows from
 * its place and its balance from the deltas after it. */
struct account {
	bool open;
	uint16_t kept, first, cap; /* a ring that grows to ACCOUNT_LEDGER_KEPT */
	int64_t balance;
	uint64_t deposits, checks, withdrawals, last_seq;
	struct entry *ring;
};

static uint64_t entry_count(const struct account *account)
{
	return account->deposits + account->checks + account->withdrawals;
}

static struct entry *ring_at(const struct account *account, uint32_t index)
{
	return &account->ring[(account->first + index) % account->cap];
}

static void ring_grow(struct account *account)
{
	/* Grows only while first is 0: the ring turns at its full size. */
	account->cap = account->cap == 0 ? 4 : (uint16_t)(account->cap * 2u);
	account->ring = troupe_realloc(account->ring, account->cap * sizeof *account->ring);
}

static void ring_push(struct account *account, uint8_t kind, int64_t delta)
{
	if (account->kept == ACCOUNT_LEDGER_KEPT) {
		account->first = (uint16_t)((account->first + 1u) % account->cap);
		account->kept--;
	} else if (account->kept == account->cap) {
		ring_grow(account);
	}
	*ring_at(account, account->kept) = (struct entry){.delta = delta, .kind = kind};
	account->kept++;
}

static void done(void *state)
{
	struct account *account = state;
	troupe_free(account->ring);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void reply_balance(struct troupe_out *out, int64_t balance)
{
	Account__Standing reply = ACCOUNT__STANDING__INIT;
	reply.balance = balance;
	troupe_reply(out, &reply.base);
}

static bool decide_open(const struct account *account, struct troupe_out *out)
{
	if (account->open) {
		reply_balance(out, account->balance);
		return troupe_refuse(out, "account is open already");
	}
	Account__AccountOpened event = ACCOUNT__ACCOUNT_OPENED__INIT;
	troupe_emit(out, &event.base);
	reply_balance(out, 0);
	return true;
}

static bool decide_deposit(
	const struct account *account, const Account__Deposit *command, struct troupe_out *out)
{
	int64_t balance;
	if (command->amount <= 0) {
		return troupe_refuse(out, "amount must be above 0");
	}
	if (strlen(command->ref) > ACCOUNT_REF_MAX) {
		return troupe_refuse(out, "ref is longer than %u bytes", ACCOUNT_REF_MAX);
	}
	if (__builtin_add_overflow(account->balance, command->amount, &balance)) {
		reply_balance(out, account->balance);
		return troupe_refuse(out, "balance would be too large");
	}
	Account__MoneyDeposited event = ACCOUNT__MONEY_DEPOSITED__INIT;
	event.amount = command->amount;
	event.balance = balance;
	event.ref = command->ref;
	troupe_emit(out, &event.base);
	reply_balance(out, balance);
	return true;
}

/* False after a refusal. */
static bool can_pay(const struct account *account, int64_t amount, struct troupe_out *out)
{
	if (amount <= 0) {
		return troupe_refuse(out, "amount must be above 0");
	}
	if (amount > account->balance) {
		reply_balance(out, account->balance);
		return troupe_refuse(out, "insufficient funds");
	}
	return true;
}

static bool decide_check(
	const struct account *account, const Account__WriteCheck *command, struct troupe_out *out)
{
	if (!can_pay(account, command->amount, out)) {
		return false;
	}
	Account__CheckWritten event = ACCOUNT__CHECK_WRITTEN__INIT;
	event.number = command->number;
	event.amount = command->amount;
	event.balance = account->balance - command->amount;
	troupe_emit(out, &event.base);
	reply_balance(out, event.balance);
	return true;
}

static bool decide_atm(
	const struct account *account, const Account__WithdrawAtm *command, struct troupe_out *out)
{
	if (!can_pay(account, command->amount, out)) {
		return false;
	}
	Account__AtmWithdrawn event = ACCOUNT__ATM_WITHDRAWN__INIT;
	event.amount = command->amount;
	event.balance = account->balance - command->amount;
	troupe_emit(out, &event.base);
	reply_balance(out, event.balance);
	return true;
}

static bool decide(const void *state, const struct troupe_command *command, struct troupe_out *out)
{
	const struct account *account = state;
	const void *message = command->message;
	if (command->index == OPEN) {
		return decide_open(account, out);
	}
	if (!account->open) {
		return troupe_refuse(out, "account is not open");
	}
	switch (command->index) {
	case DEPOSIT:
		return decide_deposit(account, message, out);
	case WRITE_CHECK:
		return decide_check(account, message, out);
	case WITHDRAW_ATM:
		return decide_atm(account, message, out);
	default:
		return troupe_refuse(out, "unknown command");
	}
}

/* ---- events -------------------------------------------------------------------------------- */

/* False: the stored amount or balance is not one that follows from the state. */
static bool apply(
	struct account *account, uint8_t kind, uint64_t *count, int64_t delta, int64_t balance)
{
	int64_t sum;
	if (!account->open || __builtin_add_overflow(account->balance, delta, &sum) ||
		sum != balance || sum < 0) {
		return false;
	}
	account->balance = sum;
	(*count)++;
	ring_push(account, kind, delta);
	return true;
}

static bool apply_deposit(struct account *account, const Account__MoneyDeposited *event)
{
	return event->amount > 0 && apply(account, ACCOUNT__KIND__DEPOSIT, &account->deposits,
					    event->amount, event->balance);
}

static bool apply_check(struct account *account, const Account__CheckWritten *event)
{
	return event->amount > 0 && apply(account, ACCOUNT__KIND__CHECK, &account->checks,
					    -event->amount, event->balance);
}

static bool apply_atm(struct account *account, const Account__AtmWithdrawn *event)
{
	return event->amount > 0 && apply(account, ACCOUNT__KIND__ATM, &account->withdrawals,
					    -event->amount, event->balance);
}

static bool evolve(void *state, const struct troupe_event *event)
{
	struct account *account = state;
	const void *message = event->message;
	account->last_seq = event->seq;
	switch (event->index) {
	case ACCOUNT_OPENED:
		if (account->open) {
			return false;
		}
		account->open = true;
		return true;
	case MONEY_DEPOSITED:
		return apply_deposit(account, message);
	case CHECK_WRITTEN:
		return apply_check(account, message);
	case ATM_WITHDRAWN:
		return apply_atm(account, message);
	default:
		return false;
	}
}

/* ---- queries ------------------------------------------------------------------------------- */

static void answer_ledger(
	const struct account *account, const Account__Ledger *query, struct troupe_out *out)
{
	Account__Entry entries[ACCOUNT_LEDGER_KEPT];
	Account__Entry *list[ACCOUNT_LEDGER_KEPT];
	Account__LedgerPage page = ACCOUNT__LEDGER_PAGE__INIT;
	uint64_t oldest = account->last_seq - account->kept + 1;
	uint32_t limit = query->limit == 0 ? ACCOUNT_LEDGER_KEPT : query->limit;
	uint32_t end = account->kept; /* one past the newest of the page */
	uint32_t start = 0;
	if (query->from_seq > oldest) {
		start = query->from_seq - oldest < end ? (uint32_t)(query->from_seq - oldest) : end;
	}
	if (end - start > limit) {
		end = start + limit;
	}
	int64_t balance = account->balance;
	for (uint32_t i = account->kept; i-- > start;) {
		const struct entry *kept = ring_at(account, i);
		if (i < end) {
			Account__Entry *entry = &entries[i - start];
			account__entry__init(entry);
			entry->seq = oldest + i;
			entry->kind = (Account__Kind)kept->kind;
			entry->delta = kept->delta;
			entry->balance = balance;
			list[i - start] = entry;
		}
		balance -= kept->delta;
	}
	page.entries = list;
	page.n_entries = end - start;
	page.oldest_kept_seq = account->kept == 0 ? 0 : oldest;
	page.older_in_events = entry_count(account) > account->kept;
	page.more = end < account->kept;
	page.balance = account->balance;
	troupe_reply(out, &page.base);
}

static bool answer(
	const void *state, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out)
{
	const struct account *account = state;
	if (!account->open) {
		return troupe_refuse(out, "account is not open");
	}
	if (query == BALANCE) {
		reply_balance(out, account->balance);
	} else {
		answer_ledger(account, (const void *)message, out);
	}
	return true;
}

/* ---- snapshots ----------------------------------------------------------------------------- */

static void save(const void *state, struct troupe_out *out)
{
	const struct account *account = state;
	Account__Kind kinds[ACCOUNT_LEDGER_KEPT];
	int64_t deltas[ACCOUNT_LEDGER_KEPT];
	Account__State saved = ACCOUNT__STATE__INIT;
	for (uint32_t i = 0; i < account->kept; i++) {
		kinds[i] = (Account__Kind)ring_at(account, i)->kind;
		deltas[i] = ring_at(account, i)->delta;
	}
	saved.open = account->open;
	saved.balance = account->balance;
	saved.deposits = account->deposits;
	saved.checks = account->checks;
	saved.withdrawals = account->withdrawals;
	saved.last_seq = account->last_seq;
	saved.n_kept_kinds = saved.n_kept_deltas = account->kept;
	saved.kept_kinds = kinds;
	saved.kept_deltas = deltas;
	troupe_reply(out, &saved.base);
}

static bool restore(void *state, const ProtobufCMessage *snapshot)
{
	struct account *account = state;
	const Account__State *saved = (const void *)snapshot;
	if (saved->n_kept_kinds != saved->n_kept_deltas || saved->balance < 0 ||
		saved->n_kept_kinds > ACCOUNT_LEDGER_KEPT ||
		saved->n_kept_kinds > saved->last_seq) {
		return false;
	}
	account->open = saved->open;
	account->balance = saved->balance;
	account->deposits = saved->deposits;
	account->checks = saved->checks;
	account->withdrawals = saved->withdrawals;
	account->last_seq = saved->last_seq;
	for (size_t i = 0; i < saved->n_kept_kinds; i++) {
		ring_push(account, (uint8_t)saved->kept_kinds[i], saved->kept_deltas[i]);
	}
	return saved->n_kept_kinds <= entry_count(account);
}

static const struct troupe_command_type commands[] = {
	[OPEN] = {"Open", &account__open__descriptor, &account__standing__descriptor},
	[DEPOSIT] = {"Deposit", &account__deposit__descriptor, &account__standing__descriptor},
	[WRITE_CHECK] = {"WriteCheck", &account__write_check__descriptor,
		&account__standing__descriptor},
	[WITHDRAW_ATM] = {"WithdrawAtm", &account__withdraw_atm__descriptor,
		&account__standing__descriptor},
	{0},
};
static const struct troupe_event_type events[] = {
	[ACCOUNT_OPENED] = {"AccountOpened", 1, &account__account_opened__descriptor, NULL},
	[MONEY_DEPOSITED] = {"MoneyDeposited", 1, &account__money_deposited__descriptor, NULL},
	[CHECK_WRITTEN] = {"CheckWritten", 1, &account__check_written__descriptor, NULL},
	[ATM_WITHDRAWN] = {"AtmWithdrawn", 1, &account__atm_withdrawn__descriptor, NULL},
	{0},
};
static const struct troupe_query_type queries[] = {
	[BALANCE] = {"Balance", &account__balance__descriptor, &account__standing__descriptor},
	[LEDGER] = {"Ledger", &account__ledger__descriptor, &account__ledger_page__descriptor},
	{0},
};

const struct troupe_aggregate account_aggregate = {
	.name = "account",
	.state_size = sizeof(struct account),
	.commands = commands,
	.queries = queries,
	.events = events,
	.done = done,
	.decide = decide,
	.evolve = evolve,
	.answer = answer,
	.snapshot = &account__state__descriptor,
	.snapshot_version = 1,
	.save = save,
	.restore = restore,
};
