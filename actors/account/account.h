/*
 * account.h - the account register: deposits, checks and cash withdrawals of one account.
 *
 * Rules:  money is integer cents. An account is opened once, before anything else. Amounts are
 *         above 0; the balance never goes below 0 nor beyond int64. A refusal for insufficient
 *         funds replies the balance.
 * Memory: the state keeps counts and the newest ACCOUNT_LEDGER_KEPT ledger entries of 16 bytes; all
 *         older ones are in the entity's event stream.
 */
#ifndef ACTORS_ACCOUNT_ACCOUNT_H
#define ACTORS_ACCOUNT_ACCOUNT_H

#include "actors/aggregate.h"

#define ACCOUNT_LEDGER_KEPT 128u
#define ACCOUNT_REF_MAX     1024u /* bytes of a deposit's reference */

extern const struct troupe_aggregate account_aggregate;

#endif
