/*
 * region_core.h - what the sources of the region (region.h) share. Nobody else includes it.
 *
 *   region.c       life, turns, time, what the replicas say
 *   region_frame.c frames of other nodes
 *   region_shard.c a replica's way to log and readers
 *   serve.c        from committed records to a shard that serves; known command ids
 *   calls.c        calls: here, held, forwarded, from elsewhere
 *   snapshots.c    snapshots of entities for those that may lead next
 *   report.c       tables from the coordinator, reports to it
 *   reconcile.c    groups that this node leads, towards their targets; hand-over
 *   ask.c          the coordinator's way to its entity, and its status
 */
#ifndef SHARDING_REGION_CORE_H
#define SHARDING_REGION_CORE_H

#include "persistence/reader.h"
#include "sharding/cluster.pb-c.h"
#include "sharding/outgoing.h"
#include "sharding/region.h"
#include "sharding/region_shard.h"

#define SH_UP_MAX     64u
#define SH_CODE_MOVED 64u /* between nodes only: not run, out.node may lead */

struct sh_forward;
struct sh_fill;

struct sh_region {
	struct ac_host host; /* first, so that a host leads back here */
	struct sh_region_options options;
	void (*answered)(struct ac_host *host, struct ac_call *call); /* the node's */
	uint32_t group_count;
	struct sh_region_shard *members; /* by group / worker_count */
	uint32_t member_count;
	uint32_t starting;        /* groups that must serve before the node does */
	struct sh_out_queue outs; /* of all cores of this worker */
	struct sh_batch batch;    /* of this turn */
	struct sh_outgoing outgoing;
	struct rt_bytes *views; /* records being proposed */
	uint32_t view_cap;
	void (*started)(void *arg);
	void *started_arg;
	bool stopped, closing;
	struct ps_erase erase; /* of members with renew set */
	bool erasing;
	uint64_t erased_ms;   /* when it began last */
	uint32_t hand_count;  /* members with hand_to */
	const void *readable; /* the newest read that was told its fate */
	bool several;         /* the cluster has more than this node */

	/* Time. */
	struct rt_timer tick; /* slow: space, idle entities */
	struct rt_timer beat; /* when the first replica wants it */
	uint64_t beat_at_ms;
	bool due;                              /* the beat fired */
	struct sh_region_shard *first_stirred; /* replicas that had an input in this turn */
	struct rt_timer sweep;
	bool sweeping;

	/* Calls. */
	struct ac_call *moved, **moved_end; /* to be routed anew at the end of the turn */
	uint32_t held_count;
	struct sh_forward *forwards;
	uint32_t forward_cap, forward_count, forward_free, fresh_count;
	uint32_t remote_count;

	/* The cluster. */
	Troupe__Cluster__ClusterTable *table; /* NULL: none yet */
	struct rt_timer steady;               /* reconcile, report */
	bool restless, hurried;               /* steady is wanted soon; it is set so */
	uint64_t report_at_ms;
	bool report_now;
	uint64_t up[SH_UP_MAX]; /* nodes that can be reached */
	uint32_t up_count;
	bool running;
	struct sh_coordinator *coordinator; /* on the owner of the meta group */
	struct sh_coordinator_port coordinator_port;
	struct rt_timer coordinate;
	void (*handed)(void *arg);
	void *handed_arg;
	uint64_t handed_by_ms;
	uint64_t ask_count;

	/* Known command ids are read for one shard after the other. */
	uint32_t next_fill;
	bool filling;

	struct rt_bytes records[SH_MESSAGE_RECORDS]; /* of the message being taken apart */
	uint64_t refused, refused_said_ms;
	size_t snapshot_bytes; /* of members: waiting for a commit */
};

static inline struct sh_region *sh_region_of(const struct sh_region_shard *member)
{
	return member->batch->region;
}
static inline struct sh_region_shard *sh_region_member(struct sh_region *region, uint32_t group)
{
	return &region->members[group / region->options.worker_count];
}
static inline bool sh_region_owns(const struct sh_region *region, uint32_t group)
{
	return group < region->group_count &&
	       group % region->options.worker_count == rt_worker_index(region->host.worker);
}
static inline bool sh_region_is_meta(const struct sh_region *region, uint32_t group)
{
	return group == region->options.shard_count;
}
static inline uint64_t sh_region_now_ms(const struct sh_region *region)
{
	return rt_worker_now_ms(region->host.worker);
}

/* ---- region.c ---- */
/* After any input to a replica: looks at the result. */
void sh_region_took(struct sh_region_shard *member, rt_err err);
/* A peer's message makes no sense: counted, and said now and then. */
void sh_region_nonsense(struct sh_region *region);

/* ---- region_frame.c ---- */
/* A frame did not leave. arg: the region. */
void sh_region_lost(void *arg, uint64_t node, enum sh_outgoing_kind kind);

/* ---- serve.c ---- */
void sh_serve_open(struct sh_region_shard *member);
void sh_serve_lead(struct sh_region_shard *member, uint64_t term);
void sh_serve_follow(struct sh_region_shard *member, uint64_t leader, const char *why);
void sh_serve_committed(struct sh_region_shard *member, uint64_t upto);
void sh_serve_wiped(struct sh_region_shard *member, uint64_t first);
/* What is here counts as nothing from now on; the log is wiped later. */
void sh_serve_removed(struct sh_region_shard *member);
void sh_serve_installed(struct sh_region_shard *member, uint64_t last);
/* Records of the open round are not proposed: the replica did not take them. */
void sh_serve_refused(struct sh_region_shard *member, const char *why);
/* Leads and could serve, unless something is still missing. */
void sh_serve_prepare(struct sh_region_shard *member);
void sh_fill_next(struct sh_region *region);

/* ---- snapshots.c ---- */
/* A leading entity stored a snapshot. host: the region's. */
void sh_snapshots_send(struct ac_host *host, struct ac_shard *shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot);
void sh_snapshots_frame(struct sh_region *region, struct rt_bytes body);
/* More is committed, as member->told says. */
void sh_snapshots_committed(struct sh_region_shard *member);
void sh_snapshots_drop(struct sh_region_shard *member);

/* ---- calls.c ---- */
/* For the next end of a turn. */
void sh_calls_again(struct sh_region *region, struct ac_call *call);
void sh_calls_turn(struct sh_region *region);
/* Who waits may find a way now. */
void sh_calls_wake(struct sh_region_shard *member);
void sh_calls_frame(struct sh_region *region, uint64_t from, struct rt_bytes batch);
void sh_calls_answers(struct sh_region *region, uint64_t from, struct rt_bytes answers);
void sh_calls_link(struct sh_region *region, uint64_t node, bool up);
void sh_calls_lost(struct sh_region *region, uint64_t node);
void sh_calls_flushed(struct sh_region *region);
void sh_calls_sweep(struct rt_worker *worker, struct rt_timer *timer);
/* Answers everything that waits. */
void sh_calls_end(struct sh_region *region, const char *why);
void sh_calls_done(struct sh_region *region);
/* Node that leads as far as is known here, 0: nobody. */
uint64_t sh_calls_leader(const struct sh_region_shard *member);
/* Somebody outside says who leads. */
void sh_calls_route(struct sh_region_shard *member, uint64_t leader, uint64_t term);
/* False: the call was answered: names, sizes. */
bool sh_calls_check(const struct ac_registry *registry, struct ac_call *call);

/* ---- report.c ---- */
/* Of the coordinator, or of a node that has it from there. */
void sh_report_table(struct sh_region *region, struct rt_bytes packed);
void sh_report_link(struct sh_region *region, uint64_t node, bool up);
void sh_report_tick(struct sh_region *region, uint64_t now_ms);
/* Who reports here although another node coordinates may have missed a table, and cannot be given
 * it by a coordinator that it refuses, as it has not heard of that member: it gets the one of here.
 */
void sh_report_relay(struct sh_region *region, uint64_t from, struct rt_bytes report);
const Troupe__Cluster__Placement *sh_report_target(const struct sh_region *region, uint32_t group);
void sh_report_done(struct sh_region *region);

/* ---- reconcile.c ---- */
void sh_reconcile(struct sh_region *region, uint64_t now_ms);
/* At the end of each turn: hand-overs that can begin, or are over. */
void sh_reconcile_turn(struct sh_region *region, uint64_t now_ms);
void sh_reconcile_over(struct sh_region_shard *member);
/* The next set of members on the way to the target, one change away. alive: bit i: member i
 * answers. False: it is as it should be, or nothing can be done now. */
bool sh_reconcile_next(const Troupe__Cluster__Placement *target, uint64_t self, uint32_t alive,
	struct sh_members *set);

/* ---- ask.c ---- */
RT_NODISCARD rt_err sh_ask_open(struct sh_region *region);
void sh_ask_lead(struct sh_region_shard *member);
void sh_ask_follow(struct sh_region_shard *member);
void sh_ask_report(struct sh_region *region, uint64_t from, struct rt_bytes report);
/* A call of kind CLUSTER at the leader of the meta group. */
void sh_ask_call(struct sh_region *region, struct ac_call *call);
/* An answer leaves: it may have changed the cluster. */
void sh_ask_answered(struct sh_region *region, const struct ac_call *call);
void sh_ask_done(struct sh_region *region);

#endif
