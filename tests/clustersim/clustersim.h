/*
 * clustersim.h - whole clusters of the real code in one thread, from one seed: workers, regions,
 * entities, replicas and coordinators of every node, over a store in memory (mem.h), a simulated
 * network and clocks, with clients that retry.
 *
 * A world is a heap of events in virtual time, and nodes that each say when they have something to
 * do next. A node is touched only in its turn (cs_node_run); what it sends, stores and answers
 * comes back as events.
 *
 * Order:   two runs of one seed take the same steps. Nothing may depend on addresses or the clock.
 * Time:    microseconds since the start of the world. A node's own clock starts anywhere and
 * drifts. Failure: a broken promise ends the process (cs_fail); the parent runs the seed again with
 * its trace (main.c).
 */
#ifndef TESTS_CLUSTERSIM_CLUSTERSIM_H
#define TESTS_CLUSTERSIM_CLUSTERSIM_H

#include <inttypes.h>
#include <stdio.h>

#include "actors/call.h"
#include "actors/registry.h"
#include "runtime/base/random.h"
#include "runtime/sched/sim.h"
#include "sharding/region.h"
#include "tests/clustersim/mem.h"
#include "tests/support/seeds.h"

#define CS_NODES    10u /* ids that are given in the life of a world */
#define CS_WORKERS  3u
#define CS_SHARDS   16u
#define CS_GROUPS   (CS_SHARDS + 1u)
#define CS_CLIENTS  8u
#define CS_ENTITIES 12u
#define CS_ATTEMPTS 64u
#define CS_NEVER    UINT64_MAX

#define CS_MS(n) ((uint64_t)(n)*UINT64_C(1000))
#define CS_S(n)  ((uint64_t)(n)*UINT64_C(1000000))

/* ---- what is counted ---- */
#define CS_STATS(X)   \
	X(seeds)      \
	X(virtual_ms) \
	X(events)     \
	X(slices)     \
	X(frames)     \
	X(lost)       \
	X(breaks)     \
	X(partitions) \
	X(crashes)    \
	X(restarts)   \
	X(leaves)     \
	X(pauses)     \
	X(jumps)      \
	X(joins)      \
	X(drains)     \
	X(removes)    \
	X(moves)      \
	X(installs)   \
	X(elections)  \
	X(commits)    \
	X(calls)      \
	X(answers)    \
	X(commands)   \
	X(refusals)   \
	X(conflicts)  \
	X(repeats)    \
	X(reads)      \
	X(stale)      \
	X(retries)    \
	X(unknown)    \
	X(busy)       \
	X(given_up)
struct cs_stats {
#define X(name) uint64_t name;
	CS_STATS(X)
#undef X
};

struct cs;
struct cs_node;

/* ---- events ---- */
enum cs_event_kind {
	CS_EV_FRAME,  /* reaches a node */
	CS_EV_CONN,   /* a connection stands again, or is found broken */
	CS_EV_CALL,   /* of a client reaches a node */
	CS_EV_ANSWER, /* reaches a client */
	CS_EV_CLIENT, /* a client's time has come */
	CS_EV_START,  /* a node starts again */
	CS_EV_KILL,
	/* These repeat, each at its own pace. */
	CS_EV_CRASH,
	CS_EV_CRASH_ALL,
	CS_EV_LEAVE, /* an orderly restart */
	CS_EV_PAUSE,
	CS_EV_LINKS,
	CS_EV_STALL,
	CS_EV_BREAK,
	CS_EV_JUMP,
	CS_EV_SPACE,
	CS_EV_JOIN,
	CS_EV_DRAIN,
	CS_EV_LOSE, /* a node goes for good */
	CS_EV_MOVE,
	CS_EV_REPEATING_END,
	/* The end of a seed. */
	CS_EV_FAULTS, /* begin */
	CS_EV_HEAL,
	CS_EV_QUIET,
	CS_EV_POLL,
	CS_EV_KINDS
};
struct cs_event {
	uint64_t at, seq;
	uint8_t kind;
	uint32_t node; /* or client */
	uint32_t boot; /* of the node; or number of the client's wait */
	void *data;    /* owned by the event, freed with free */
};

/* ---- network ---- */
struct cs_frame {
	struct cs_frame *next;
	uint32_t from, to, generation;
	enum sh_lane lane;
	size_t size;
	uint8_t bytes[];
};
struct cs_conn { /* One way, all lanes. */
	bool wanted, up;
	uint32_t generation; /* frames of an older one are lost */
	uint64_t last_at[SH_LANES];
	struct cs_frame *held, **held_end; /* while the way is cut and nobody has noticed */
	uint64_t cut_at;
};

/* ---- nodes ---- */
struct cs_seen { /* of one replica, by the checks */
	uint64_t term, commit, led_term;
	bool installing, candidate;
};
struct cs_node {
	struct cs *cs;
	uint32_t id, boot;
	bool exists, up;
	bool gone;            /* for good */
	bool drained;         /* an operator wants it to hold nothing */
	bool muted;           /* is being taken apart: nothing leaves any more */
	bool failing;         /* its store failed: a crash follows */
	bool leaving;         /* hands over, then stops */
	uint32_t handing;     /* workers that do */
	uint64_t joined_with; /* bit per node that it was told of when it joined */
	char name[16], key[33], rpc[24], peer[24];
	uint64_t clock_offset_ns, clock_ppm, instance;
	int64_t wall_offset_ms;
	struct mem_disk *disk;
	struct mem_shape shape;
	struct rt_sim_world world;
	struct rt_sim *sim;
	struct ps_store *store;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	struct sh_region *regions[CS_WORKERS];
	uint32_t worker_count;
	_Atomic uint64_t committed[CS_GROUPS], calls;
	struct sh_wire wire;
	struct sh_coordinator_options coordinator;
	uint64_t paused_until, wake_at;
	struct cs_conn out[CS_NODES + 1];
	struct cs_seen seen[CS_GROUPS];
	struct rt_post *garbage;
};

/* ---- clients ---- */
enum cs_op_kind {
	CS_OP_OPEN,
	CS_OP_DEPOSIT,
	CS_OP_WITHDRAW,
	CS_OP_CHECK,
	CS_OP_BALANCE,
	CS_OP_STALE,
	CS_OP_ADMIN /* of the cluster's own entity */
};
enum cs_outcome {
	CS_PENDING,
	CS_DONE,
	CS_REFUSED,
	CS_CONFLICT,
	CS_NOT_FOUND,
	CS_GIVEN_UP /* after answers that all said that nothing was written */
};
struct cs_answer {
	uint32_t code, events, retry_after_ms;
	uint64_t shard, offset, seq, node;
	bool repeated, has_balance;
	int64_t balance;
	char error[100];
	size_t size;
	uint8_t payload[]; /* of admin calls */
};
struct cs_op {
	uint32_t id, entity, client;
	enum cs_op_kind kind;
	int64_t amount;
	uint64_t expected, after;
	uint32_t repeats;           /* of this older one's id; 0: none */
	uint64_t invoked, returned; /* CS_NEVER: not yet */
	enum cs_outcome outcome;
	uint32_t attempts,
		unrun; /* sendings; those of which it is known that nothing was written */
	uint64_t seq, offset;
	uint32_t events;
	bool has_balance;
	int64_t balance;
};
struct cs_client {
	uint32_t id;
	uint32_t op; /* under way; 0: none */
	uint32_t node;
	uint32_t wait; /* number of the newest one */
	bool backs_off;
	uint64_t known_after[CS_SHARDS + 1];
};
struct cs_admin { /* One operator, one command at a time: client 0. */
	const char *name;
	uint8_t payload[256];
	size_t size;
	uint32_t wanted, made, joined; /* nodes that are to join; keys made; nodes that have */
	char key[33];
	struct {
		const char *name;
		uint32_t node, shard;
	} queue[16];
	uint32_t queued;
	uint32_t node; /* that the command is about */
	bool moved;    /* an operator has chosen who leads */
};

/* ---- truth ---- */
struct cs_record {
	uint64_t term, hash;
	uint32_t size;
	uint8_t *bytes;
};
struct cs_truth {                  /* What is known for good of one group. */
	struct cs_record *records; /* [0] is offset 1 */
	uint64_t count, cap;
	uint8_t *leader_of; /* by term */
	uint64_t term_cap;
};

/* ---- a world ---- */
struct cs_shape { /* The character of a seed. Times in microseconds, shares in percent or ppm. */
	const char *name;
	bool calm; /* nothing breaks: no call may fail, whatever moves */
	uint32_t nodes, replication, shards, workers, clients, entities;
	uint64_t every[CS_EV_KINDS];
	uint32_t election_ms, heartbeat_ms, mark_every, cache_bytes, dead_after_ms;
	uint32_t snapshot_every, passivate_ms, mailbox;
	/* network */
	uint32_t delay_min, delay_max, late, late_max; /* late: percent */
	uint32_t break_ppm;                            /* a frame breaks its connection */
	uint32_t drop, twice;                          /* harsher than any TCP is, percent */
	uint32_t one_way, silence_us;
	/* crashes */
	uint64_t down_max;
	uint32_t crash_lead, crash_install, at_leaders, pause_alone;
	uint32_t drift_ppm;
	struct mem_shape disk;
	/* clients */
	uint32_t client_loss, think_max, timeout_min, timeout_max, double_send, reads, stale_reads,
		repeats, expecting, deadlines, gives_up;
};

struct cs {
	uint64_t seed;
	uint32_t leaning; /* of every seed, from 1; 0: as the seed says */
	uint64_t now;
	struct rt_random random;
	struct cs_shape shape;
	struct ac_registry *registry;
	bool faults, healed, quiet;
	bool losing;                              /* a node is gone, and not removed yet */
	bool cut[CS_NODES + 1][CS_NODES + 1];     /* from, to */
	struct cs_node nodes[CS_NODES + 1];       /* by id */
	struct cs_client clients[CS_CLIENTS + 1]; /* [0]: the operator */
	struct cs_admin admin;
	char entities[CS_ENTITIES][24];
	uint32_t entity_shard[CS_ENTITIES];
	struct cs_op *ops; /* [0] is no op */
	uint32_t op_count, op_cap;
	struct cs_truth truth[CS_GROUPS];
	char cluster[33];
	uint64_t alone_until; /* the links stay as they are */
	struct cs_event *heap;
	uint32_t heap_count, heap_cap;
	uint64_t event_seq;
	struct cs_stats *stats;
	struct seeds_trace *trace;
};

static inline uint32_t cs_below(struct cs *cs, uint64_t bound)
{
	return rt_random_below(&cs->random, (uint32_t)bound);
}
static inline uint64_t cs_between(struct cs *cs, uint64_t low, uint64_t high)
{
	return low + cs_below(cs, high - low + 1);
}
static inline bool cs_chance(struct cs *cs, uint32_t percent)
{
	return percent > 0 && cs_below(cs, 100) < percent;
}
static inline uint32_t cs_groups(const struct cs *cs)
{
	return cs->shape.shards + 1;
}

/* ---- world.c ---- */
void cs_run(struct cs *cs); /* one seed to its end */
void cs_at(struct cs *cs, uint64_t at, struct cs_event event);
/* A node that is up, NULL: none. */
struct cs_node *cs_any_node(struct cs *cs);
/* Whom a fault meets: often the one that serves what a client wants. NULL: nobody. */
struct cs_node *cs_victim(struct cs *cs);
/* Not before all faults are over: a crash within that time, by chance. */
void cs_kill_by(struct cs *cs, struct cs_node *node, uint32_t percent, uint64_t within);

/* ---- shape.c ---- */
void cs_shape(struct cs *cs);

/* ---- node.c ---- */
void cs_node_make(struct cs *cs, uint32_t id, const char *key);
void cs_node_start(struct cs_node *node);
void cs_node_crash(struct cs_node *node);
/* In order: what is under way ends first. */
void cs_node_leave(struct cs_node *node);
void cs_node_free(struct cs_node *node);
/* Its turn: what is due on its disk and its workers. */
void cs_node_run(struct cs_node *node);
uint64_t cs_node_clock_ns(const struct cs_node *node);
void cs_node_frame(struct cs_node *node, const struct cs_frame *frame);
void cs_node_link(struct cs_node *node, uint32_t to, bool up);
void cs_node_call(struct cs_node *node, struct ac_call *call);
const struct sh_replica *cs_node_replica(const struct cs_node *node, uint32_t group);
bool cs_node_serves(const struct cs_node *node, uint32_t group);

/* ---- net.c ---- */
void cs_net_want(struct cs_node *node, uint32_t to);
rt_err cs_net_send(void *arg, uint64_t to, enum sh_lane lane, struct rt_bytes bytes);
bool cs_net_up(void *arg, uint64_t to);
void cs_net_frame(struct cs *cs, struct cs_event *event);
void cs_net_conn(struct cs *cs, const struct cs_event *event);
/* The node's process is gone: peers find out. */
void cs_net_down(struct cs_node *node);
void cs_net_started(struct cs_node *node);
void cs_net_links(struct cs *cs);
/* From all others, which hear each other well. */
void cs_net_isolate(struct cs *cs, uint32_t node);
void cs_net_heal(struct cs *cs);
void cs_net_done(struct cs *cs);
/* Can a client reach the node? */
bool cs_net_reaches(struct cs *cs, uint32_t node);

/* ---- client.c ---- */
void cs_client_start(struct cs *cs);
void cs_client_due(struct cs *cs, const struct cs_event *event);
void cs_client_call(struct cs *cs, struct cs_event *event);
void cs_client_answer(struct cs *cs, struct cs_event *event);
bool cs_client_idle(const struct cs *cs);

/* ---- admin.c ---- */
void cs_admin_join(struct cs *cs);
void cs_admin_drain(struct cs *cs);
void cs_admin_lose(struct cs *cs);
void cs_admin_move(struct cs *cs);
/* Fills in the next command; false: there is none. */
bool cs_admin_next(struct cs *cs);
void cs_admin_answered(struct cs *cs, const struct cs_answer *answer);
bool cs_admin_idle(const struct cs *cs);

/* ---- check.c ---- */
void cs_check_node(struct cs_node *node); /* after each of its turns */
/* Who serves a group; NULL: nobody, or more than one node. */
const struct cs_node *cs_check_leader(const struct cs *cs, uint32_t group);
void cs_check_opened(struct cs_node *node);
/* NULL: all members of all groups agree and the cluster is as it should be. Else why not. */
const char *cs_check_converged(struct cs *cs);
void cs_check_done(struct cs *cs);

/* ---- history.c ---- */
void cs_history_check(struct cs *cs);

/* ---- clock.c: what stands in for the clocks of the system ---- */
extern const struct cs_node *cs_clock_node; /* whose turn it is */

/* ---- trace.c ---- */
void cs_trace_log(void *cs, const char *line); /* what the nodes say */
void cs_trace_line(struct cs *cs, const char *format, ...) RT_PRINTF(2, 3);
#define CS_TRACE(cs, ...)                                 \
	do {                                              \
		if ((cs)->trace->on) {                    \
			cs_trace_line((cs), __VA_ARGS__); \
		}                                         \
	} while (0)
RT_NORETURN void cs_fail(struct cs *cs, const char *format, ...) RT_PRINTF(2, 3);
#define CS_CHECK(cs, cond, ...)                     \
	do {                                        \
		if (__builtin_expect(!(cond), 0)) { \
			cs_fail((cs), __VA_ARGS__); \
		}                                   \
	} while (0)

#endif
