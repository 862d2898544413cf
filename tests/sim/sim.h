/*
 * sim.h - whole groups of the real core, host and codec, in one thread, from one seed.
 *
 * A world is nodes with a clock, a disk and links to each other; every node has a replica of every
 * group, all on its one disk. What happens is a heap of events in virtual time. A message crosses
 * the network as the bytes of the codec; what survives a crash is the disk's image.
 *
 * Order:   two runs of one seed take the same steps. Nothing may depend on addresses or the clock.
 * Time:    microseconds since the start of the world, `at`; a node's own clock is in milliseconds,
 *          starts anywhere and may drift.
 * Failure: a broken promise ends the process (sim_fail); the parent runs the seed again with its
 *          trace (main.c).
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <inttypes.h>
#include <stdio.h>

#include "runtime/base/random.h"
#include "sharding/replica.h"
#include "tests/support/seeds.h"

#define SIM_NODES   7u
#define SIM_GROUPS  3u
#define SIM_TICKETS 32u
#define SIM_ROWS    4u

/* ---- what is counted ---- */
#define SIM_STATS(X)    \
	X(seeds)        \
	X(virtual_ms)   \
	X(events)       \
	X(commits)      \
	X(elections)    \
	X(leaders)      \
	X(crashes)      \
	X(adds)         \
	X(promotions)   \
	X(removals)     \
	X(readds)       \
	X(transfers)    \
	X(compactions)  \
	X(trims)        \
	X(installs)     \
	X(reads_lease)  \
	X(reads_round)  \
	X(reads_lost)   \
	X(proposals)    \
	X(acknowledged) \
	X(write_errors) \
	X(log_reads)    \
	X(messages)     \
	X(bytes)        \
	X(dropped)      \
	X(doubled)      \
	X(partitions)
struct sim_stats {
#define X(name) uint64_t name;
	SIM_STATS(X)
#undef X
};

/* ---- records and logs (log.c) ---- */
struct sim_record {
	uint32_t refs, size;
	uint32_t kind; /* ps_kind */
	uint64_t term;
	uint64_t hash;                    /* of size and bytes; of long records not every byte */
	uint64_t id;                      /* of a proposal */
	const struct sh_members *members; /* PS_KIND_MEMBERS */
	uint8_t bytes[];
};
/* NULL: not a record. */
struct sim_record *sim_record_new(struct rt_bytes bytes);
void sim_record_drop(struct sim_record *record);
uint64_t sim_record_hash(struct rt_bytes bytes);

struct sim_log { /* Records first..last; a reference to each. */
	struct sim_record **items;
	uint32_t head, count, cap;
	uint64_t first; /* what the next one is called when there is none */
	uint64_t *sets; /* indexes of the membership records, ascending */
	uint32_t set_count, set_cap;
};
static inline uint64_t sim_log_last(const struct sim_log *log)
{
	return log->first + log->count - 1;
}
static inline struct sim_record *sim_log_at(const struct sim_log *log, uint64_t index)
{
	if (index < log->first || index - log->first >= log->count) {
		return NULL;
	}
	return log->items[log->head + (uint32_t)(index - log->first)];
}
void sim_log_push(struct sim_log *log, struct sim_record *record);
void sim_log_cut(struct sim_log *log, uint64_t from);
void sim_log_trim(struct sim_log *log, uint64_t upto);
void sim_log_wipe(struct sim_log *log, uint64_t next);
void sim_log_copy(struct sim_log *to, const struct sim_log *from);
void sim_log_done(struct sim_log *log);
/* The last membership record, NULL when the log has none. */
const struct sim_record *sim_log_members(const struct sim_log *log, uint64_t *out_index);

/* ---- disk (disk.c) ---- */
enum sim_op_kind {
	SIM_OP_RECORD,
	SIM_OP_CUT,
	SIM_OP_WIPE,
	SIM_OP_META,
	SIM_OP_TRIM,
	SIM_OP_INSTALLING /* no write: from here on the image counts for nothing */
};
struct sim_row {
	uint8_t key[16];
	uint32_t key_size, size;
	uint8_t *bytes;
};
struct sim_op {
	enum sim_op_kind kind;
	uint32_t group;
	uint64_t index;
	bool installing; /* WIPE: the log comes from a peer and is not whole yet */
	struct sim_record *record;
	struct sim_row row;
};
struct sim_batch {
	struct sim_op *ops;
	uint32_t count, cap;
	uint64_t written[SIM_GROUPS];
};
struct sim_disk {
	struct sim_batch open, queued, flying;
	bool busy;
	bool broken, refuses; /* the next round fails; or the next write already */
	uint64_t stalled_until;
	uint64_t news_at; /* rounds are told in order */
};

/* ---- a world ---- */
struct sim_ticket { /* A linearizable read under way. */
	bool used, lease;
	uint64_t need; /* newest index anybody had seen committed when it began */
	uint64_t begun;
};

struct sim_replica { /* One group on one node. */
	struct sim *sim;
	struct sim_node *node;
	uint32_t group;
	struct sh_replica *replica;
	uint64_t timer_at; /* of the event that is queued, UINT64_MAX: none */
	/* Disk: what was written, and what survives. */
	struct sim_log view, image;
	struct sim_row rows[SIM_ROWS];
	uint64_t hard_term, hard_vote; /* of the image */
	bool image_lost;               /* an install began: a restart is empty */
	uint64_t durable;              /* newest write the replica was told is */
	uint64_t trim_upto, trim_written;
	/* The owner. */
	bool leading;
	uint64_t lead_term;
	uint64_t committed;
	bool told_removed;
	struct sim_ticket tickets[SIM_TICKETS];
	/* As last seen by the checks. */
	uint64_t seen_term, seen_commit, seen_led_term;
	bool seen_installing, seen_candidate, seen_removed;
	bool remains; /* the log still has what an install that was cut off left */
};

struct sim_node {
	uint32_t id; /* from 1 */
	uint32_t boot;
	bool up, failing; /* failing: its disk refused, a crash follows */
	uint64_t clock_offset_ms;
	uint32_t clock_ppm;
	struct sh_out_queue queue;
	struct sim_disk disk;
	struct sim_replica replicas[SIM_GROUPS];
	struct {
		uint8_t *bytes;
		size_t size, cap;
	} out[SIM_NODES + 1]; /* by destination */
};

struct sim_entry { /* A committed one. */
	uint64_t term, hash;
	uint64_t commit_term; /* of the node where it was first seen committed */
};
struct sim_truth {                 /* What is known for good of one group. */
	struct sim_entry *entries; /* [0] is index 1 */
	uint64_t count, cap;
	struct sh_raft_set *sets;
	uint32_t set_count, set_cap;
	uint8_t *leader_of; /* by term */
	uint64_t term_cap;
	uint8_t *ids; /* one bit per proposal that is committed */
	uint64_t ids_cap;
	uint64_t told; /* newest index an owner was told to be committed */
};

enum sim_event_kind {
	SIM_EV_FRAME,
	SIM_EV_TIMER,
	SIM_EV_ROUND,   /* a disk round is over */
	SIM_EV_DURABLE, /* ... and the replicas hear of it */
	SIM_EV_LOG_READ,
	SIM_EV_KILL,
	SIM_EV_START,
	SIM_EV_CUT_OFF,
	/* These repeat, each at its own pace. */
	SIM_EV_PROPOSE,
	SIM_EV_CHANGE,
	SIM_EV_TRANSFER,
	SIM_EV_COMPACT,
	SIM_EV_READ,
	SIM_EV_CRASH,
	SIM_EV_LINKS,
	SIM_EV_STALL,
	SIM_EV_BREAK,
	SIM_EV_TRIANGLE,
	SIM_EV_SWEEP,
	SIM_EV_REPEATING_END,
	/* The end of a seed: no more faults; no more load; do all agree? */
	SIM_EV_HEAL,
	SIM_EV_QUIET,
	SIM_EV_POLL,
	SIM_EV_KINDS
};
struct sim_event {
	uint64_t at, seq;
	uint8_t kind, node, group;
	uint32_t boot;
	void *data; /* owned by the event */
};

struct sim_shape { /* The character of a seed. Times in microseconds, shares in percent. */
	const char *name;
	uint32_t nodes, voters, groups, min_voters;
	uint64_t every[SIM_EV_KINDS]; /* mean time between two of a kind, 0: never */
	/* network */
	uint32_t drop, twice, late, one_way, torn;
	uint64_t delay_min, delay_max, late_max;
	bool frames; /* all for one peer in a turn is one frame */
	/* disk */
	uint64_t sync_min, sync_max, stall_max;
	uint32_t slow_syncs, late_news, survives;
	/* crashes */
	uint64_t down_max;
	uint32_t crash_lead, crash_hard, crash_install, crash_promote, isolate_lead,
		isolate_transfer;
	/* load */
	uint32_t burst, long_records, huge_records, trailing, remove, read_all;
	uint32_t drift_ppm;
	/* the replica's options */
	uint32_t election_ms, heartbeat_ms, window, cache_bytes, mark_every, runs_max;
};

struct sim {
	uint64_t seed;
	uint64_t now;
	struct rt_random random;
	struct sim_shape shape;
	bool healed, quiet;
	bool cut[SIM_NODES + 1][SIM_NODES + 1]; /* from, to */
	struct sim_node nodes[SIM_NODES];
	struct sim_truth truth[SIM_GROUPS];
	struct sh_members first;
	uint64_t next_id;
	struct sim_event *heap;
	uint32_t heap_count, heap_cap;
	uint64_t event_seq;
	struct sim_stats *stats;
	struct seeds_trace *trace;
};

#define SIM_MS(n) ((uint64_t)(n)*UINT64_C(1000))
#define SIM_S(n)  ((uint64_t)(n)*UINT64_C(1000000))

static inline uint32_t sim_below(struct sim *sim, uint64_t bound)
{
	return rt_random_below(&sim->random, (uint32_t)bound);
}
static inline uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
	return low + sim_below(sim, high - low + 1);
}
static inline bool sim_chance(struct sim *sim, uint32_t percent)
{
	return percent > 0 && sim_below(sim, 100) < percent;
}
static inline struct sim_node *sim_node(struct sim *sim, uint64_t id)
{
	return &sim->nodes[id - 1];
}

/* ---- world.c ---- */
/* Runs one seed to its end. */
void sim_run(struct sim *sim);
void sim_at(struct sim *sim, uint64_t at, struct sim_event event);
uint64_t sim_clock(const struct sim *sim, const struct sim_node *node);
/* Around every call into a node's replicas. end writes, sends, sets timers and checks. */
void sim_turn_end(struct sim *sim, struct sim_node *node);
/* Result of a call into a replica; anything but RT_OK is the disk's doing or a defect. */
void sim_took(struct sim_replica *r, rt_err err, const char *what);
void sim_crash(struct sim *sim, struct sim_node *node);
/* Its disk refused: its replicas stop, a crash follows. */
void sim_node_fail(struct sim *sim, struct sim_node *node);
/* With a chance in percent the node crashes within that time. */
void sim_kill_by(struct sim *sim, struct sim_node *node, uint32_t percent, uint64_t within);

/* ---- shape.c ---- */
void sim_shape(struct sim *sim);

/* ---- net.c ---- */
void sim_net_send(struct sim_replica *r, const struct sh_message *message);
void sim_net_flush(struct sim *sim, struct sim_node *node);
void sim_net_frame(struct sim *sim, struct sim_event *event);
void sim_net_links(struct sim *sim);
void sim_net_isolate(struct sim *sim, uint32_t node);
void sim_net_cut(struct sim *sim, uint64_t a, uint64_t b);
void sim_net_heal(struct sim *sim);

/* ---- disk.c ---- */
void sim_disk_add(struct sim_replica *r, const struct sim_op *op);
rt_err sim_disk_write(struct sim_replica *r, const struct sh_write *write);
/* Takes back the last n records written in this turn. */
void sim_disk_unwrite(struct sim_replica *r, uint32_t n);
void sim_disk_submit(struct sim *sim, struct sim_node *node);
void sim_disk_round(struct sim *sim, struct sim_event *event);
void sim_disk_durable(struct sim *sim, struct sim_event *event);
void sim_disk_crash(struct sim *sim, struct sim_node *node);
void sim_disk_done(struct sim_node *node);
rt_err sim_disk_read(struct sim_replica *r, const struct sh_replica_read *read);
void sim_disk_read_done(struct sim *sim, struct sim_event *event);
void sim_disk_break(struct sim *sim);
void sim_disk_stall(struct sim *sim);

/* ---- port.c ---- */
extern const struct sh_replica_port sim_port;

/* ---- load.c: what owners and operators do ---- */
void sim_load_propose(struct sim *sim);
void sim_load_change(struct sim *sim);
void sim_load_transfer(struct sim *sim);
void sim_load_compact(struct sim *sim);
void sim_load_trim(struct sim_replica *r);
void sim_load_read(struct sim *sim);
/* A follower no longer hears its leader, and later a voter that hears both falls and is back. */
void sim_load_triangle(struct sim *sim);
void sim_load_sweep(struct sim *sim);
/* The bytes a proposal had, for comparing; size 0 when there is no such id. */
bool sim_load_is(const struct sim_record *record);

/* ---- check.c ---- */
void sim_check_step(struct sim_replica *r);
void sim_check_send(struct sim_replica *r, const struct sh_message *message);
void sim_check_op(struct sim_replica *r, const struct sim_op *op);
/* After a cut, before a wipe reaches the image: what is committed stays on a quorum. */
void sim_check_loss(struct sim_replica *r);
void sim_check_hard(struct sim_replica *r, struct rt_bytes row);
void sim_check_opened(struct sim_replica *r);
void sim_check_told(struct sim_replica *r, uint64_t upto);
void sim_check_installed(struct sim_replica *r, uint64_t first, uint64_t last);
void sim_check_lead(struct sim_replica *r, uint64_t term, uint64_t last);
/* NULL: every group has one leader and all its members agree. Else why not. */
const char *sim_check_converged(struct sim *sim);
void sim_check_end(struct sim *sim);

/* ---- trace.c ---- */
void sim_trace_line(struct sim *sim, const char *format, ...) RT_PRINTF(2, 3);
#define SIM_TRACE(sim, ...)                                 \
	do {                                                \
		if ((sim)->trace->on) {                     \
			sim_trace_line((sim), __VA_ARGS__); \
		}                                           \
	} while (0)
void sim_trace_message(struct sim *sim, const char *what, const struct sh_message *message);
RT_NORETURN void sim_fail(struct sim *sim, const char *format, ...) RT_PRINTF(2, 3);
#define SIM_CHECK(r, cond, ...)                               \
	do {                                                  \
		if (__builtin_expect(!(cond), 0)) {           \
			sim_fail_at((r), #cond, __VA_ARGS__); \
		}                                             \
	} while (0)
RT_NORETURN void sim_fail_at(const struct sim_replica *r, const char *cond, const char *format, ...)
	RT_PRINTF(3, 4);

#endif
