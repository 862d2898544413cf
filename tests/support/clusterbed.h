/*
 * clusterbed.h - a cluster in virtual time, without bytes on a wire: the real aggregate "cluster",
 * a real coordinator per node, and groups that do, step by step, what the table of their leader
 * says.
 *
 *     bed_nodes(3);                 three nodes, everything settled
 *     bed_stop(2);                  a process is killed
 *     bed_wait_state(2, SH_NODE_DEAD, 31000);
 *     bed_settle();
 *     bed_end();
 *
 * Only the main thread: failed claims longjmp.
 */
#ifndef TESTS_SUPPORT_CLUSTERBED_H
#define TESTS_SUPPORT_CLUSTERBED_H

#include "actors/out.h"
#include "sharding/allocate.h"
#include "sharding/coordinator.h"
#include "tests/support/test.h"

#define BED_CLUSTER "0123456789abcdef0123456789abcdef"
#define BED_NODES   12u
#define BED_SHARDS  16u
#define BED_META    BED_SHARDS
#define BED_STEP_MS 10u
#define BED_ASKS    64u
#define BED_DEAD_MS 30000u
#define BED_WORKERS 2u

struct bed_node {
	struct sh_coordinator *coordinator;
	uint64_t id, instance, version;
	Troupe__Cluster__ClusterTable *table;
	bool runs, joined;
	char rpc[64], peer[64];
	uint64_t report_at, pushed_at;
	uint32_t pushes;
};

struct bed_group {
	struct sh_members members;
	uint64_t leader, term, commit;
	uint64_t leaderless_at, step_at;
	bool lost;           /* had no leader for long since it was last where it should be */
	uint64_t learner_at; /* when the newest member began to copy */
};

struct bed_asked {
	uint64_t from, ticket, expected, due;
	char name[32];
	bool command;
	uint8_t *payload;
	size_t size;
};

struct bed {
	uint64_t now;
	struct bed_node nodes[BED_NODES + 1]; /* by number */
	struct bed_group groups[BED_SHARDS + 1];
	struct bed_asked asks[BED_ASKS];
	uint32_t ask_count, asked, commands, conflicts, refusals;
	void *entity;
	uint64_t seq;
	struct troupe_out out;
	uint32_t copy_ms;
	uint32_t moving_most; /* groups that moved at the same time, at most, lost ones aside */
	uint64_t mute;        /* this node's asks are lost */
	bool inside;          /* a coordinator runs, not the bed */
	bool full;            /* asks find no room */
	uint64_t deaf;        /* this node gets no tables */
	bool refuse;          /* every command */
	bool lose_commands;   /* they do nothing, and nobody answers */
};
extern struct bed bed;

void bed_begin(void); /* node 1, which founds */
void bed_nodes(uint64_t count);
void bed_end(void);

void bed_start(uint64_t id);
void bed_stop(uint64_t id);
void bed_join(uint64_t id);
void bed_drain(uint64_t id);
/* Makes a node the leader of a group, in a new term. */
void bed_lead(uint32_t index, uint64_t id);
uint64_t bed_bystander(void); /* a node that does not lead the meta group */

/* A command of an operator: must be accepted; the coordinator hears of it. */
void bed_operate(const ProtobufCMessage *message);
Troupe__Cluster__ClusterState *bed_state(void); /* to be freed */
Troupe__Cluster__NodeState bed_state_of(uint64_t node);

void bed_step(void);
void bed_pass(uint64_t ms);
/* Until everything is where it should be, and nothing is decided any more. */
void bed_settle(void);
void bed_wait_state(uint64_t id, Troupe__Cluster__NodeState wanted, uint64_t limit_ms);

uint32_t bed_held_by(uint64_t id); /* groups */
uint32_t bed_led_by(uint64_t id);
/* Nodes first..last hold all groups, so many replicas of each, and nobody much more than others. */
void bed_then_even(uint32_t replicas, uint64_t first, uint64_t last);

#endif
