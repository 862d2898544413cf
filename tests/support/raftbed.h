/*
 * raftbed.h - a few members of one group on a bench: the real core, with network, disks and time in
 * the hands of the test.
 *
 *     struct bed *bed = bed_new("1 2 3s");      nodes 1 and 2 vote, 3 stands by
 *     bed_elect(bed, 1);
 *     bed_hold(bed, SH_MSG_APPEND, 1, 3);       ... what 1 sends to 3 waits in the network
 *     bed_write(bed, 1, 5);                     five records, then as much time as they need
 *     bed_crash(bed, 1);
 *     bed_free(bed);
 *
 * The bed does what raft.h asks of a host: outputs in order; nothing leaves before the hard states
 * issued before it are durable; offers are answered with what was really sent; writes become
 * durable in their order; a crash loses the others. A member's log is kept whole, its floor only
 * moves.
 *
 * After every input the bed checks what must always hold, and the test fails when it does not:
 * one leader per term; committed entries equal everywhere and in every later leader; a commit rests
 * on a quorum of disks; set in use = last of the log; votes and terms durable before they leave;
 * acknowledged = durable and equal to the leader's log; nothing committed is cut off.
 *
 * Nobody campaigns by itself until bed_awake: only leaders and the node of bed_elect have timers.
 * BED_TRACE=1 in the environment prints what happens.
 */
#ifndef TESTS_SUPPORT_RAFTBED_H
#define TESTS_SUPPORT_RAFTBED_H

#include "sharding/raft.h"
#include "tests/support/test.h"

#define BED_NODES 7u
#define BED_TERMS 4096u

struct bed_entry {
	uint64_t term, tag; /* tag: stands for the content */
	bool has_members;
	struct sh_members members;
};
struct bed_log { /* entries[i - 1] is the entry at index i */
	struct bed_entry *entries;
	uint64_t last, cap;
};

enum bed_write_kind {
	BED_HARD,
	BED_APPEND,
	BED_FLOOR,
	BED_INSTALLING,
	BED_INSTALLED
};
struct bed_write {
	enum bed_write_kind kind;
	uint64_t number, due;
	uint64_t term, vote; /* HARD; FLOOR, INSTALLED: term at the floor; INSTALLING: of the bar */
	uint64_t from,
		generation; /* APPEND; FLOOR, INSTALLED: from is the floor, INSTALLING: the bar */
	bool truncate;
	struct bed_log log;     /* APPEND: the entries from `from` on; INSTALLED: all */
	struct sh_raft_set set; /* FLOOR, INSTALLED: in force there */
	struct sh_members base; /* INSTALLED: before index 1 */
};
struct bed_disk { /* what a crash leaves */
	uint64_t term, vote, floor, floor_term;
	struct sh_raft_set set; /* in force at the floor */
	struct sh_members base; /* before index 1 */
	struct bed_log log;
	bool installing;
	uint64_t bar_index, bar_term; /* of a log that is not here any more */
};

struct bed_message {
	struct sh_raft_message head;
	struct bed_entry *entries;
	uint64_t due, behind; /* behind: the write of the sender it waits for */
	bool left, held;
};

struct bed_node {
	struct bed *bed;
	uint64_t id;
	struct sh_raft raft;
	struct sh_out_queue out;
	bool up, timers;
	struct bed_log log;
	struct sh_members base; /* before index 1 */
	bool sets;              /* its log ever had an entry with members */
	struct bed_disk disk;
	struct bed_write *writes;
	uint32_t write_count, write_cap;
	uint64_t written, hard_written, durable;
	bool disk_held;
	uint32_t most; /* entries sent of an offer; 0: they are not at hand */
	uint64_t disk_ms;
	uint64_t fetch_from, fetch_due;     /* install under way: source, when its bytes are here */
	uint64_t committed;                 /* as told by the core */
	uint64_t committed_at, longest_gap; /* when the commit moved last; ms between two moves */
	const struct bed_message *incoming;
	struct sh_raft_message offers[SH_MEMBERS_MAX];
	uint32_t offer_count;
	uint64_t used, said; /* index of the members in use; of those last told by SH_OUT_MEMBERS */
	uint64_t removed_at; /* 0: was never told to be removed */
};

struct bed_rule {
	uint8_t type;
	uint64_t from, to;
};

struct bed {
	uint64_t now, net_ms;
	struct sh_raft_settings settings;
	struct bed_node nodes[BED_NODES + 1]; /* [0] is not used */
	struct bed_message *messages;         /* in the order in which they were sent */
	uint32_t message_count, message_cap;
	bool cut[BED_NODES + 1][BED_NODES + 1];
	struct bed_rule holds[16];
	uint32_t hold_count;
	bool hold_installs; /* fetched only by bed_fetch */
	bool unsafe;        /* the test breaks a rule on purpose: no checks */
	uint64_t next_tag;
	struct bed_log truth;        /* every committed entry */
	uint64_t leaders[BED_TERMS]; /* by term */
	struct sh_raft_message last[SH_MSG_TYPES][BED_NODES + 1][BED_NODES + 1];
	uint64_t sent[SH_MSG_TYPES];
	bool trace;
};

/* ---- life ---- */
/* Members of every node named; "2s" stands by. Election 1,000 ms, heartbeat 100 ms, network and
 * disk 1 ms. */
struct bed *bed_new(const char *members);
struct bed *bed_new_with(const char *members, const struct sh_raft_settings *settings);
void bed_free(struct bed *bed);
struct sh_members bed_members(const char *text);
/* A node that knows no members. */
void bed_boot(struct bed *bed, uint64_t node);
/* Loses what is not durable; its messages in the network stay there. */
void bed_crash(struct bed *bed, uint64_t node);
void bed_start(struct bed *bed, uint64_t node);

/* ---- time ---- */
void bed_run(struct bed *bed, uint64_t ms);
void bed_settle(struct bed *bed); /* a few round trips, less than a heartbeat */
void bed_awake(struct bed *bed);  /* every node has its timers from now on */
void bed_asleep(struct bed *bed);
/* Only this node's timer runs until it leads; false after 20 s. */
bool bed_try_elect(struct bed *bed, uint64_t node);
void bed_elect(struct bed *bed, uint64_t node); /* fails when it cannot */
/* Until some node leads for whom everything proposed commits; 0 after ms. */
uint64_t bed_any_leader(struct bed *bed, uint64_t ms);
/* Until what this leader has at the end of its log is committed. */
bool bed_commits(struct bed *bed, uint64_t node, uint64_t ms);

/* ---- network ---- */
void bed_cut(struct bed *bed, uint64_t a, uint64_t b);
void bed_cut_way(struct bed *bed, uint64_t from, uint64_t to);
void bed_join(struct bed *bed, uint64_t a, uint64_t b);
void bed_isolate(struct bed *bed, uint64_t node);
void bed_heal(struct bed *bed); /* everything, for all */
/* Messages like this wait in the network from now on; type, from, to 0: any. */
void bed_hold(struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
/* They go on now, and new ones do not wait any more. */
void bed_release(struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
/* Those that wait or are under way get lost. How many. */
uint32_t bed_drop(struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
uint32_t bed_held(const struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
/* The oldest one that waits: delivered once, and it still waits. */
void bed_repeat(struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
/* The newest one that left, ever. */
const struct sh_raft_message *bed_last(
	const struct bed *bed, uint8_t type, uint64_t from, uint64_t to);
/* Made up by the test. The answer of the core. */
rt_err bed_say(
	struct bed *bed, const struct sh_raft_message *head, const struct bed_entry *entries);
/* What node `from` would send of its log in its term. */
rt_err bed_say_append(struct bed *bed, uint64_t from, uint64_t to, uint64_t prev, uint32_t count,
	uint64_t commit);

/* ---- disks ---- */
void bed_hold_disk(struct bed *bed, uint64_t node);
void bed_release_disk(struct bed *bed, uint64_t node);
/* The oldest `count` writes of a held disk become durable. */
void bed_finish(struct bed *bed, uint64_t node, uint32_t count);
/* Forgets terms up to here, as far as the core lets it. */
void bed_compact(struct bed *bed, uint64_t node, uint64_t floor);
/* The install under way at node: its bytes are here, its write is issued. */
void bed_fetch(struct bed *bed, uint64_t node);

/* ---- inputs ---- */
uint64_t bed_propose(struct bed *bed, uint64_t node, uint32_t count); /* first index */
/* Proposes and lets it settle. */
void bed_write(struct bed *bed, uint64_t node, uint32_t count);
rt_err bed_try_members(struct bed *bed, uint64_t node, const char *members);
uint64_t bed_change(struct bed *bed, uint64_t node, const char *members); /* index */
rt_err bed_transfer(struct bed *bed, uint64_t from, uint64_t to);
void bed_knock(struct bed *bed, uint64_t from, uint64_t to);

/* ---- looking ---- */
static inline struct sh_raft *bed_raft(struct bed *bed, uint64_t node)
{
	return &bed->nodes[node].raft;
}
bool bed_leads(const struct bed *bed, uint64_t node);
uint64_t bed_commit(const struct bed *bed, uint64_t node);
uint64_t bed_last_index(const struct bed *bed, uint64_t node);
uint64_t bed_term(const struct bed *bed, uint64_t node);
/* Term of the entry in the log of the bed, floor or not. */
uint64_t bed_term_of(const struct bed *bed, uint64_t node, uint64_t index);
const struct sh_raft_peer *bed_peer(const struct bed *bed, uint64_t leader, uint64_t node);
bool bed_uses(const struct bed *bed, uint64_t node, const char *members);
/* All up, same log, all committed. */
bool bed_converged(const struct bed *bed);

/* ---- between raftbed.c and raftbed_hands.c ---- */
void bed_step(struct bed *bed); /* one millisecond */
void bed_drain(struct bed_node *node);
struct bed_write *bed_disk_write(struct bed_node *node, enum bed_write_kind kind);
void bed_finish_oldest(struct bed_node *node);
void bed_fetch_now(struct bed_node *node);
bool bed_fits(const struct sh_raft_message *head, uint8_t type, uint64_t from, uint64_t to);
void bed_remove_message(struct bed *bed, uint32_t i);
rt_err bed_hear(struct bed *bed, const struct bed_message *message);

/* ---- raftbed_check.c ---- */
void bed_check_node(struct bed_node *node);
void bed_check_commit(struct bed_node *node, uint64_t commit);
void bed_check_members(struct bed_node *node, uint64_t index, const struct sh_members *members);
void bed_check_role(struct bed_node *node, enum sh_role role, uint64_t term);
void bed_check_ack(const struct bed_node *node, const struct sh_raft_message *ack);
void bed_check_leaving(const struct bed_node *node, const struct sh_raft_message *head);
void bed_check_cut(const struct bed_node *node, uint64_t from, const struct bed_entry *instead);
struct sh_raft_set bed_set_at(const struct bed_node *node, uint64_t index);
bool bed_entries_equal(const struct bed_entry *a, const struct bed_entry *b);

#endif
