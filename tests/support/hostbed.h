/*
 * hostbed.h - replicas on a bench: the real host and core over a log in memory, with disk, network
 * and time in the hands of the test.
 *
 *     struct hostbed *bed = hostbed_new(1, "1 2 3");     node 1 of three voters
 *     hostbed_start(bed);
 *     hostbed_sync(bed);                                  all writes so far are durable
 *     hostbed_crash(bed); hostbed_open(bed);              the others are lost
 *
 * What is sent waits in `sent` until the test takes, passes on or forgets it.
 */
#ifndef TESTS_SUPPORT_HOSTBED_H
#define TESTS_SUPPORT_HOSTBED_H

#include "sharding/replica.h"
#include "tests/support/test.h"

#define HOSTBED_SHARD 7u

struct hostbed_message {
	struct sh_message message; /* its records are this struct's own */
	struct hostbed_message *next;
};

struct hostbed_op { /* One write, or one record of a proposal. */
	enum sh_write_kind kind;
	uint64_t number, index;
	struct rt_bytes key, bytes; /* malloc'd */
};

struct hostbed_row {
	struct rt_bytes key, bytes; /* of an op */
};

struct hostbed_read {
	struct sh_replica_read read;
	struct hostbed_read *next;
};

struct hostbed {
	struct sh_replica *replica;
	struct sh_replica_options options;
	uint64_t now;

	/* ---- disk ---- */
	struct hostbed_op *ops;
	size_t op_count, op_cap;
	uint64_t durable;     /* number of a write */
	uint64_t base;        /* numbers of a restarted replica begin behind this */
	struct rt_bytes *log; /* view of all ops: log[i] is the record at first + i */
	uint64_t first, end;  /* end: behind the last */
	struct hostbed_row rows[2];
	uint32_t row_count;
	uint32_t write_fails;  /* the n-th write from now fails; 0: none */
	const char *row_fails; /* this one cannot be read */
	bool read_full;        /* reads are refused */
	struct hostbed_read *reads;

	/* ---- network ---- */
	struct hostbed_message *sent;

	/* ---- what the owner was told ---- */
	bool leads;
	uint64_t lead_term, lead_last, leader;
	uint32_t leads_told, follows_told;
	uint64_t committed;
	uint32_t installs_told;
	uint64_t installed_first, installed_last;
	struct sh_raft_set members;
	bool removed;
	uint32_t readable_count;
	void *readable_ticket;
	rt_err readable_err;
	uint64_t readable_index;
};

/* True while the code under test runs, and not this bed: whose allocations a test may refuse. */
extern bool hostbed_inside;
/* Memory is short: RT_E_NOMEM and RT_E_CLOSED are expected answers. */
extern bool hostbed_short;
/* The replica has ended. */
bool hostbed_ended(struct hostbed *bed);

/* members: "1 2 3s", s for one that does not vote; "" for none. Not opened yet. */
struct hostbed *hostbed_new(uint64_t node, const char *members);
void hostbed_free(struct hostbed *bed);
struct sh_members hostbed_members(const char *members);

void hostbed_open(struct hostbed *bed);
rt_err hostbed_try_open(struct hostbed *bed, struct rt_errinfo *info);
void hostbed_start(struct hostbed *bed);
void hostbed_crash(struct hostbed *bed); /* what is not durable is gone */
void hostbed_sync(struct hostbed *bed);  /* until nothing more is written */
void hostbed_sync_to(struct hostbed *bed, uint64_t number);
/* Time passes; ticks whenever the replica wants one. */
void hostbed_wait(struct hostbed *bed, uint64_t ms);
/* One record of so many bytes at least. Returns its index. */
uint64_t hostbed_propose(struct hostbed *bed, size_t bytes);
rt_err hostbed_try_propose(struct hostbed *bed, uint32_t count, size_t bytes, uint64_t *out_first);
/* A record as it would be proposed; malloc'd. */
struct rt_bytes hostbed_record(uint64_t term, size_t bytes);
struct rt_bytes hostbed_members_record(uint64_t term, const char *members);

/* Answers the oldest read from the log, or with this error. */
bool hostbed_read(struct hostbed *bed, rt_err err);

/* The first sent message of a type, taken out; NULL: none. hostbed_drop frees it. */
struct hostbed_message *hostbed_take(struct hostbed *bed, enum sh_message_type type);
void hostbed_drop(struct hostbed_message *message);
void hostbed_forget(struct hostbed *bed); /* all that was sent */
uint32_t hostbed_count(const struct hostbed *bed, enum sh_message_type type);
/* Hands the replica a message; from and to are filled in. */
rt_err hostbed_give(struct hostbed *bed, uint64_t from, struct sh_raft_message head,
	const struct rt_bytes *records);
rt_err hostbed_pass(struct hostbed *bed, const struct hostbed_message *message);
/* Until nobody has anything to say or to sync. NULL ends the list. */
void hostbed_run(struct hostbed **beds);

/* A leader of three voters whose first entry is committed; alone: of one. */
struct hostbed *hostbed_leader(const char *members);
/* Grants and acknowledges as the other members would; the newest stored index. */
void hostbed_ack(struct hostbed *bed, uint64_t from, uint64_t index);
uint64_t hostbed_last(const struct hostbed *bed); /* of the log as written */
uint64_t hostbed_term(const struct hostbed *bed, uint64_t index);

#endif
