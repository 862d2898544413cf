/* The way of a call through the cluster: to the entity when this node serves its shard, forwarded
 * once to who is believed to lead, held while nobody is known to, or while leadership moves.
 *
 *   route --serves here----------------> entity --answer--> caller
 *     |  --another node leads----------> forwarded --answer--> caller
 *     |                                      |--moved: not run there; held
 *     |                                      |--connection broke: a command UNKNOWN, a read again
 *     |  --nobody is known, or moving--> held --leader known--> route
 *     |                                      |--too many: BUSY; too long: UNAVAILABLE
 *   from another node: served, held while this node is about to serve, else answered "moved"
 */
#include <stdlib.h>

#include "actors/entity.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "sharding/region_core.h"
#include "sharding/shard.h"

#define HELD_SHARD_MAX  1024u
#define HELD_REGION_MAX 16384u
#define HELD_MS         5000u /* without a leader */
#define SWEEP_MS        20u
#define PATIENCE_MS     10000u /* of a call that names no time */
#define GRACE_MS        500u   /* the other node counts the same time and answers first */
#define FORWARDS_MAX    65536u
#define REMOTE_MAX      65536u
#define BUSY_MS         50u

/* Number of a forwarded call: worker, place, generation. An answer finds its call by it. */
#define ID_WORKER_BITS 6u
#define ID_PLACE_BITS  20u

struct sh_forward {
	struct ac_call *call; /* NULL: free */
	uint64_t node;
	uint64_t expires_ms;
	uint32_t generation;
	uint32_t next_free;
	bool fresh; /* its frame has not left yet */
};

/* A call that another node forwarded. */
struct remote {
	struct ac_call call; /* first */
	struct sh_region *region;
	uint64_t from;
	uint8_t bytes[];
};

static void route(struct sh_region *region, struct ac_call *call);

static bool is_read(const struct ac_call *call)
{
	return call->in.kind == TROUPE__KIND__KIND_QUERY ||
	       call->in.kind == TROUPE__KIND__KIND_EVENTS ||
	       call->in.kind == TROUPE__KIND__KIND_STATE;
}

/* Has the shard's log, or did: good enough for who asks for a stale answer. */
static bool is_replica(const struct sh_region_shard *member)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	const struct sh_raft_set *set = sh_raft_members(raft);
	return set != NULL && !raft->installing && !raft->removed &&
	       sh_members_find(&set->members, raft->settings.node) >= 0;
}

/* A member hears it from the leader itself; others from outside. One that was removed and never
 * heard of it goes on believing in an old leader, or looks for one for ever: a word of a newer term
 * counts more, and so does one of the same term if no leader was heard here. */
static bool knows_itself(const struct sh_region_shard *member, uint64_t term)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	return is_replica(member) &&
	       (raft->term > term || (raft->term == term && raft->leader != 0));
}

uint64_t sh_calls_leader(const struct sh_region_shard *member)
{
	return knows_itself(member, member->route_term) ? sh_replica_raft(member->replica)->leader
							: member->leader;
}

static void answer(struct sh_region *region, struct ac_call *call)
{
	region->host.answered(&region->host, call);
}

/* ---- names ---- */
void sh_region_address(struct ac_call *call, uint32_t shard_count)
{
	uint8_t pid[PS_PID_MAX];
	size_t size = call->in.type.size;
	memcpy(pid, call->in.type.data, size);
	pid[size++] = '|';
	memcpy(pid + size, call->in.id.data, call->in.id.size);
	call->hash = rt_hash(pid, size + call->in.id.size);
	bool meta = call->in.kind == TROUPE__KIND__KIND_CLUSTER ||
		    rt_bytes_equal(call->in.type, rt_bytes_str("cluster"));
	call->shard = meta ? shard_count : sh_shard_of_hash(call->hash, shard_count);
}

static bool id_is_good(struct rt_bytes id)
{
	if (id.size == 0 || id.size > PR_ID_MAX) {
		return false;
	}
	for (size_t i = 0; i < id.size; i++) {
		if (id.data[i] <= ' ' || id.data[i] == '|' || id.data[i] == 0x7f) {
			return false;
		}
	}
	return true;
}

bool sh_calls_check(const struct ac_registry *registry, struct ac_call *call)
{
	if (ac_registry_find(registry, call->in.type) == NULL) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "no aggregate type \"%.*s\" here",
			(int)call->in.type.size, (const char *)call->in.type.data);
	} else if (!id_is_good(call->in.id)) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
			"field id: needs 1 to %u bytes without blanks, control characters or '|'",
			PR_ID_MAX);
	} else if (call->in.payload.size > PR_PAYLOAD_MAX) {
		ac_call_fail(call, TROUPE__CODE__CODE_TOO_LARGE, "field payload: over %u bytes",
			PR_PAYLOAD_MAX);
	} else if (call->in.command_id.size > PR_COMMAND_ID_MAX) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
			"field command_id: over %u bytes", PR_COMMAND_ID_MAX);
	} else {
		return true;
	}
	return false;
}

/* ---- held calls ---- */
static void start_sweep(struct sh_region *region)
{
	if (!region->sweeping) {
		region->sweeping = true;
		rt_timer_start(region->host.worker, &region->sweep, SWEEP_MS);
	}
}

static uint64_t deadline_of(struct sh_region *region, const struct ac_call *call)
{
	return call->deadline_ms != 0 ? call->deadline_ms : sh_region_now_ms(region) + PATIENCE_MS;
}

static void hold(struct sh_region *region, struct sh_region_shard *member, struct ac_call *call)
{
	if (member->held_count >= HELD_SHARD_MAX || region->held_count >= HELD_REGION_MAX) {
		call->out.retry_after_ms = BUSY_MS;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY,
			"shard %u has no leader yet and many calls wait for one",
			member->shard.index);
		answer(region, call);
		return;
	}
	if (call->held_until_ms == 0) {
		uint64_t limit = sh_region_now_ms(region) + HELD_MS;
		uint64_t deadline = deadline_of(region, call);
		call->held_until_ms = deadline < limit ? deadline : limit;
	}
	call->next = NULL;
	*member->held_end = call;
	member->held_end = &call->next;
	member->held_count++;
	region->held_count++;
	start_sweep(region);
}

static struct ac_call *take_held(struct sh_region *region, struct sh_region_shard *member)
{
	struct ac_call *calls = member->held;
	member->held = NULL;
	member->held_end = &member->held;
	region->held_count -= member->held_count;
	member->held_count = 0;
	return calls;
}

/* They keep their order, and who must go on waiting is held again. */
void sh_calls_wake(struct sh_region_shard *member)
{
	struct sh_region *region = sh_region_of(member);
	for (struct ac_call *call = take_held(region, member), *next; call != NULL; call = next) {
		next = call->next;
		sh_calls_again(region, call);
	}
}

/* ---- to another node ---- */
static bool grow_forwards(struct sh_region *region)
{
	uint32_t cap = region->forward_cap == 0 ? 256 : region->forward_cap * 2;
	if (cap > FORWARDS_MAX) {
		return false;
	}
	struct sh_forward *forwards = realloc(region->forwards, cap * sizeof(*forwards));
	if (forwards == NULL) {
		return false;
	}
	for (uint32_t i = region->forward_cap; i < cap; i++) {
		/* Answers to calls of an earlier process of this node may still come. */
		uint64_t begin = rt_hash_mix(region->options.instance + i);
		forwards[i] =
			(struct sh_forward){.next_free = i + 1, .generation = (uint32_t)begin};
	}
	region->forwards = forwards;
	region->forward_free = region->forward_cap;
	region->forward_cap = cap;
	return true;
}

static struct ac_call *take_forward(struct sh_region *region, uint32_t place)
{
	struct sh_forward *forward = &region->forwards[place];
	struct ac_call *call = forward->call;
	region->fresh_count -= forward->fresh;
	*forward = (struct sh_forward){
		.next_free = region->forward_free, .generation = forward->generation + 1};
	region->forward_free = place;
	region->forward_count--;
	return call;
}

static uint64_t id_of(const struct sh_region *region, uint32_t place)
{
	return (uint64_t)region->forwards[place].generation << (ID_WORKER_BITS + ID_PLACE_BITS) |
	       (uint64_t)place << ID_WORKER_BITS | rt_worker_index(region->host.worker);
}

static uint32_t worker_of_id(uint64_t id)
{
	return (uint32_t)(id & ((1u << ID_WORKER_BITS) - 1));
}

static void forward(struct sh_region *region, struct sh_region_shard *member, struct ac_call *call,
	uint64_t node)
{
	if (region->forward_free == region->forward_cap && !grow_forwards(region)) {
		call->out.retry_after_ms = BUSY_MS;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "too many calls are forwarded");
		answer(region, call);
		return;
	}
	uint64_t now = sh_region_now_ms(region);
	uint64_t deadline = deadline_of(region, call);
	uint32_t place = region->forward_free;
	struct pr_call copy = call->in;
	copy.call_id = id_of(region, place);
	copy.timeout_ms = deadline > now ? (uint32_t)(deadline - now) : 1;
	size_t size = pr_call_size(&copy);
	uint8_t *at = sh_outgoing_room(&region->outgoing, node, SH_OUTGOING_CALLS, size);
	if (at == NULL) {
		hold(region, member, call);
		return;
	}
	pr_call_put(at, &copy);
	struct sh_forward *slot = &region->forwards[place];
	region->forward_free = slot->next_free;
	slot->call = call;
	slot->node = node;
	slot->expires_ms = deadline + GRACE_MS;
	slot->fresh = true;
	region->forward_count++;
	region->fresh_count++;
	start_sweep(region);
}

void sh_calls_flushed(struct sh_region *region)
{
	for (uint32_t i = 0; region->fresh_count > 0 && i < region->forward_cap; i++) {
		region->fresh_count -= region->forwards[i].fresh;
		region->forwards[i].fresh = false;
	}
}

/* The frame with these calls did not leave: nobody ran them. */
void sh_calls_lost(struct sh_region *region, uint64_t node)
{
	for (uint32_t i = 0; i < region->forward_cap; i++) {
		struct sh_forward *slot = &region->forwards[i];
		if (slot->call != NULL && slot->fresh && slot->node == node) {
			struct ac_call *call = take_forward(region, i);
			hold(region, sh_region_member(region, call->shard), call);
		}
	}
}

/* No answer will come. A read may be asked again; whether a command ran is not known. */
static void give_up(struct sh_region *region, struct ac_call *call, uint32_t code, const char *why)
{
	if (is_read(call) && code == TROUPE__CODE__CODE_UNKNOWN) {
		hold(region, sh_region_member(region, call->shard), call);
		return;
	}
	ac_call_fail(call, code, "%s", why);
	answer(region, call);
}

void sh_calls_link(struct sh_region *region, uint64_t node, bool up)
{
	for (uint32_t i = 0; !up && i < region->forward_cap; i++) {
		if (region->forwards[i].call != NULL && region->forwards[i].node == node) {
			give_up(region, take_forward(region, i), TROUPE__CODE__CODE_UNKNOWN,
				"the connection to the leading node broke; the outcome is "
				"unknown, repeat with the same command id");
		}
	}
	for (uint32_t i = 0; i < region->member_count; i++) {
		struct sh_region_shard *member = &region->members[i];
		if (!up && member->leader == node) {
			member->leader = 0;
		}
		if (up && member->held_count > 0) {
			sh_calls_wake(member);
		}
	}
}

/* ---- answers from there ---- */
static void copy_answer(struct ac_call *call, const struct pr_answer *from)
{
	struct rt_bytes made = call->out.command_id;
	if (from->error.size == 0) {
		ac_call_payload(call, from->payload);
	} else {
		size_t size = from->payload.size + from->error.size;
		uint8_t *bytes = malloc(size);
		RT_ASSERT(bytes != NULL);
		if (from->payload.size > 0) {
			memcpy(bytes, from->payload.data, from->payload.size);
		}
		memcpy(bytes + from->payload.size, from->error.data, from->error.size);
		ac_call_payload_take(call, bytes, from->payload.size);
		call->out.error = rt_bytes_of(bytes + from->payload.size, from->error.size);
	}
	call->out.code = from->code;
	call->out.shard = from->shard;
	call->out.offset = from->offset;
	call->out.seq = from->seq;
	call->out.retry_after_ms = from->retry_after_ms;
	call->out.events = from->events;
	call->out.repeated = from->repeated;
	call->out.node = from->node;
	call->out.command_id = made;
}

static void moved(struct sh_region *region, struct ac_call *call, uint64_t from, uint64_t hint)
{
	struct sh_region_shard *member = sh_region_member(region, call->shard);
	if (hint != from && (member->leader == from || member->leader == 0)) {
		member->leader = hint;
	}
	/* Tried again by the clock, so that two nodes which point at each other do not spin. */
	hold(region, member, call);
}

void sh_calls_answers(struct sh_region *region, uint64_t from, struct rt_bytes answers)
{
	struct pr_answer got;
	while (pr_answers_next(&answers, &got) == 1) {
		uint32_t place =
			(uint32_t)(got.call_id >> ID_WORKER_BITS) & ((1u << ID_PLACE_BITS) - 1);
		if (worker_of_id(got.call_id) != rt_worker_index(region->host.worker) ||
			place >= region->forward_cap || region->forwards[place].call == NULL ||
			region->forwards[place].node != from ||
			id_of(region, place) != got.call_id) {
			continue; /* Late: its caller was answered. */
		}
		struct ac_call *call = take_forward(region, place);
		if (got.code == SH_CODE_MOVED) {
			moved(region, call, from, got.node);
		} else {
			copy_answer(call, &got);
			answer(region, call);
		}
	}
}

/* ---- calls from another node ---- */
static void remote_done(struct ac_call *call)
{
	struct remote *remote = (struct remote *)call;
	struct sh_region *region = remote->region;
	size_t size = pr_answer_size(&call->out);
	uint8_t *at = sh_outgoing_room(&region->outgoing, remote->from, SH_OUTGOING_ANSWERS, size);
	if (at != NULL) {
		pr_answer_put(at, &call->out);
	}
	region->remote_count--;
	ac_call_clear(call);
	free(remote);
}

static struct rt_bytes copy_view(uint8_t **at, struct rt_bytes view)
{
	struct rt_bytes copy = rt_bytes_of(*at, view.size);
	if (view.size > 0) {
		memcpy(*at, view.data, view.size);
		*at += view.size;
	}
	return copy;
}

static struct ac_call *remote_new(struct sh_region *region, uint64_t from, const struct pr_call *in)
{
	size_t size = in->type.size + in->id.size + in->name.size + in->payload.size +
		      in->command_id.size;
	struct remote *remote = malloc(sizeof(*remote) + size);
	RT_ASSERT(remote != NULL);
	*remote = (struct remote){.region = region, .from = from};
	uint8_t *at = remote->bytes;
	struct ac_call *call = &remote->call;
	call->in = *in;
	call->in.type = copy_view(&at, in->type);
	call->in.id = copy_view(&at, in->id);
	call->in.name = copy_view(&at, in->name);
	call->in.payload = copy_view(&at, in->payload);
	call->in.command_id = copy_view(&at, in->command_id);
	call->deadline_ms = sh_region_now_ms(region) + in->timeout_ms;
	call->done = remote_done;
	call->forwarded = true;
	call->out.call_id = in->call_id;
	region->remote_count++;
	if (region->options.calls != NULL) {
		atomic_fetch_add_explicit(region->options.calls, 1, memory_order_relaxed);
	}
	return call;
}

/* Lengths of what is hashed; the rest is looked at like a call of an own client. */
static bool can_be_addressed(const struct pr_call *in)
{
	return in->type.size <= PR_TYPE_MAX && in->id.size <= PR_ID_MAX;
}

static bool is_forwardable(const struct pr_call *in)
{
	const struct ac_call probe = {.in = *in};
	return in->kind == TROUPE__KIND__KIND_COMMAND || is_read(&probe);
}

/* False: why not is its answer. */
static bool may_enter(const struct sh_region *region, struct ac_call *call)
{
	if (region->remote_count > REMOTE_MAX) {
		call->out.retry_after_ms = BUSY_MS;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "too many forwarded calls");
		return false;
	}
	if (call->in.kind == TROUPE__KIND__KIND_CLUSTER) {
		return true;
	}
	if (!is_forwardable(&call->in)) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
			"field kind: %u is not forwarded", call->in.kind);
		return false;
	}
	return sh_calls_check(region->host.registry, call);
}

void sh_calls_frame(struct sh_region *region, uint64_t from, struct rt_bytes batch)
{
	struct pr_call in;
	while (pr_batch_next(&batch, &in) == 1) {
		struct ac_call probe = {.in = in};
		if (!can_be_addressed(&in)) {
			continue;
		}
		sh_region_address(&probe, region->options.shard_count);
		if (!sh_region_owns(region, probe.shard)) {
			continue;
		}
		struct ac_call *call = remote_new(region, from, &in);
		call->hash = probe.hash;
		call->shard = probe.shard;
		if (may_enter(region, call)) {
			route(region, call);
		} else {
			answer(region, call);
		}
	}
}

/* ---- the way ---- */
/* Who leads is not known here: somebody who should hold the shard may know. */
static uint64_t guess(struct sh_region *region, struct sh_region_shard *member)
{
	const Troupe__Cluster__Placement *target = sh_report_target(region, member->shard.index);
	const struct sh_wire *wire = region->options.wire;
	for (size_t i = 0; target != NULL && i < target->n_replicas; i++) {
		uint64_t node = target->replicas[member->guess++ % target->n_replicas];
		if (node != region->options.node && wire->up(wire->arg, node)) {
			return node;
		}
	}
	return 0;
}

static uint64_t whom(struct sh_region *region, struct sh_region_shard *member)
{
	const struct sh_wire *wire = region->options.wire;
	uint64_t self = region->options.node;
	if (wire == NULL) {
		return 0;
	}
	uint64_t leader = sh_calls_leader(member);
	if (leader != 0 && leader != self && wire->up(wire->arg, leader)) {
		return leader;
	}
	return leader == 0 && !is_replica(member) ? guess(region, member) : 0;
}

static void serve(struct sh_region *region, struct sh_region_shard *member, struct ac_call *call)
{
	if (call->in.kind == TROUPE__KIND__KIND_CLUSTER) {
		sh_ask_call(region, call);
	} else {
		ac_shard_call(&member->shard, call);
	}
}

static void not_here(struct sh_region *region, struct sh_region_shard *member, struct ac_call *call)
{
	if (member->serving == SH_PREPARING || member->hand_to != 0) {
		hold(region, member, call);
		return;
	}
	uint64_t leader = sh_calls_leader(member);
	call->out.code = SH_CODE_MOVED;
	call->out.node = leader == region->options.node ? 0 : leader;
	answer(region, call);
}

static void route(struct sh_region *region, struct ac_call *call)
{
	struct sh_region_shard *member = sh_region_member(region, call->shard);
	if (region->host.failed) {
		ac_shard_call(&member->shard, call); /* It says so. */
	} else if (call->in.stale && is_read(call) && is_replica(member)) {
		ac_shard_read(&member->shard, call);
	} else if (member->serving == SH_SERVING && member->hand_to == 0) {
		serve(region, member, call);
	} else if (call->forwarded) {
		not_here(region, member, call);
	} else {
		uint64_t node = whom(region, member);
		if (node != 0) {
			forward(region, member, call, node);
		} else {
			hold(region, member, call);
		}
	}
}

void sh_region_call(struct sh_region *region, struct ac_call *call)
{
	call->forwarded = false;
	call->held_until_ms = 0;
	route(region, call);
}

void sh_calls_again(struct sh_region *region, struct ac_call *call)
{
	call->next = NULL;
	*region->moved_end = call;
	region->moved_end = &call->next;
	start_sweep(region); /* At the latest. */
}

void sh_calls_turn(struct sh_region *region)
{
	struct ac_call *calls = region->moved;
	region->moved = NULL;
	region->moved_end = &region->moved;
	for (struct ac_call *next; calls != NULL; calls = next) {
		next = calls->next;
		calls->next = NULL;
		route(region, calls);
	}
}

void sh_calls_route(struct sh_region_shard *member, uint64_t leader, uint64_t term)
{
	if (term < member->route_term || knows_itself(member, term)) {
		return;
	}
	member->route_term = term;
	if (leader != 0 && leader != member->leader &&
		leader != sh_region_of(member)->options.node) {
		member->leader = leader;
		sh_calls_wake(member);
	}
}

/* ---- time ---- */
static void sweep_held(struct sh_region *region, struct sh_region_shard *member, uint64_t now)
{
	for (struct ac_call *call = take_held(region, member), *next; call != NULL; call = next) {
		next = call->next;
		if (call->held_until_ms > now) {
			call->next = NULL;
			route(region, call);
			continue;
		}
		call->out.retry_after_ms = BUSY_MS;
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE,
			"shard %u has no leader that can be reached; nothing was written",
			member->shard.index);
		answer(region, call);
	}
}

void sh_calls_sweep(struct rt_worker *worker, struct rt_timer *timer)
{
	struct sh_region *region = RT_CONTAINER(timer, struct sh_region, sweep);
	uint64_t now = rt_worker_now_ms(worker);
	region->sweeping = false;
	for (uint32_t i = 0; region->held_count > 0 && i < region->member_count; i++) {
		if (region->members[i].held_count > 0) {
			sweep_held(region, &region->members[i], now);
		}
	}
	for (uint32_t i = 0; region->forward_count > 0 && i < region->forward_cap; i++) {
		if (region->forwards[i].call != NULL && region->forwards[i].expires_ms <= now) {
			give_up(region, take_forward(region, i), TROUPE__CODE__CODE_TIMEOUT,
				"the leading node did not answer in time");
		}
	}
	if (region->held_count > 0 || region->forward_count > 0) {
		start_sweep(region);
	}
}

/* ---- end ---- */
void sh_calls_end(struct sh_region *region, const char *why)
{
	for (uint32_t i = 0; i < region->member_count; i++) {
		sh_calls_wake(&region->members[i]);
	}
	for (uint32_t i = 0; i < region->forward_cap; i++) {
		if (region->forwards[i].call != NULL) {
			struct ac_call *call = take_forward(region, i);
			ac_call_fail(call,
				is_read(call) ? TROUPE__CODE__CODE_UNAVAILABLE
					      : TROUPE__CODE__CODE_UNKNOWN,
				"%s", why);
			answer(region, call);
		}
	}
	sh_calls_turn(region); /* host.failed is set: each is told. */
}

void sh_calls_done(struct sh_region *region)
{
	free(region->forwards);
	region->forwards = NULL;
	region->forward_cap = 0;
}
