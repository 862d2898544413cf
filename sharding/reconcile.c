/* A group that this node leads, towards what the coordinator's table wants of it, one step at a
 * time: missing nodes are added without a vote, get one when they have caught up, those that should
 * not be there are removed, and leadership goes to who should have it.
 *
 * Leadership moves without anybody noticing but by a pause: calls are held from the moment a
 * hand-over is wanted; when nothing of the shard is under way any more the replica is told; held
 * calls then follow the leader. */
#include "runtime/base/assert.h"
#include "runtime/base/log.h"
#include "sharding/region_core.h"

#define HANDS_MAX     8u    /* hand-overs at a time that nobody waits for */
#define QUIET_MS      5000u /* after one that failed */
#define NEAR_ENTRIES  1000u
#define READY_ENTRIES 64u
#define MEMBERS_SPARE 1u

static bool is_near(const struct sh_raft *raft, uint64_t node)
{
	int at = sh_members_find(&sh_raft_members(raft)->members, node);
	return at >= 0 && node != raft->settings.node &&
	       sh_members_votes(&sh_raft_members(raft)->members, node) &&
	       raft->peers[at].match + NEAR_ENTRIES >= raft->last &&
	       raft->now - raft->peers[at].heard_at <= raft->settings.election_ms;
}

/* Nobody waits for this one: it has everything, took it over, and answers without delay. */
static bool is_ready(const struct sh_raft *raft, uint64_t node)
{
	int at = sh_members_find(&sh_raft_members(raft)->members, node);
	return is_near(raft, node) && !raft->peers[at].behind &&
	       raft->peers[at].match + READY_ENTRIES >= raft->last &&
	       raft->now - raft->peers[at].heard_at <= 2 * raft->settings.heartbeat_ms;
}

/* The voter that has most of the log, of those that could serve at once or of all; 0: none. */
static uint64_t best_heir(const struct sh_raft *raft, bool behind_too)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint64_t best = 0;
	uint64_t most = 0;
	for (int i = 0; i < members->count; i++) {
		if (is_near(raft, members->node[i]) && raft->peers[i].match >= most &&
			(behind_too || !raft->peers[i].behind)) {
			most = raft->peers[i].match;
			best = members->node[i];
		}
	}
	return best;
}

static void begin_hand_over(struct sh_region_shard *member, uint64_t node, uint64_t now_ms)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	if (member->hand_to == 0) {
		sh_region_of(member)->hand_count++;
	}
	sh_region_of(member)->restless = true;
	member->hand_to = node;
	member->handing = false;
	member->hand_until_ms = now_ms + raft->settings.election_ms;
}

void sh_reconcile_over(struct sh_region_shard *member)
{
	if (member->hand_to != 0) {
		sh_region_of(member)->hand_count--;
		member->hand_to = 0;
		member->handing = false;
	}
}

/* ---- one step of a group ---- */
static bool has(const Troupe__Cluster__Placement *target, uint64_t node)
{
	for (size_t i = 0; i < target->n_replicas; i++) {
		if (target->replicas[i] == node) {
			return true;
		}
	}
	return false;
}

/* Without one more of them the voters still have a majority that answers. */
static bool may_go(const struct sh_members *set, uint32_t alive, int at)
{
	uint32_t without = set->voters & ~(1u << at);
	return 2 * __builtin_popcount(without & alive) > __builtin_popcount(without);
}

/* A node that is dead goes before one that lives: else the group may be left with the dead. */
bool sh_reconcile_next(const Troupe__Cluster__Placement *target, uint64_t self, uint32_t alive,
	struct sh_members *set)
{
	uint32_t strangers = 0;
	for (int i = 0; i < set->count; i++) {
		strangers += !has(target, set->node[i]);
	}
	bool room = set->count + MEMBERS_SPARE <= SH_MEMBERS_MAX;
	for (size_t i = 0; (room || strangers == 0) && i < target->n_replicas; i++) {
		uint64_t node = target->replicas[i];
		int at = sh_members_find(set, node);
		if (at < 0 || (set->voters >> at & 1) == 0) {
			return sh_members_put(set, node, at >= 0) == RT_OK;
		}
	}
	for (int i = 0; strangers > 0 && i < set->count; i++) {
		if (set->node[i] != self && !has(target, set->node[i]) && may_go(set, alive, i)) {
			sh_members_remove(set, set->node[i]);
			return true;
		}
	}
	return false;
}

/* Bit i: member i acknowledged something in this term, and within an election timeout, or is this
 * node. A new leader has yet to hear who lives. */
static uint32_t alive_members(const struct sh_raft *raft)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint32_t alive = 0;
	for (int i = 0; i < members->count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		bool heard = members->node[i] == raft->settings.node ||
			     (peer->match > 0 &&
				     raft->now - peer->heard_at <= raft->settings.election_ms);
		alive |= (uint32_t)heard << i;
	}
	return alive;
}

static void change_members(struct sh_region_shard *member, const struct sh_members *next)
{
	uint64_t index = 0;
	if (member->shard.entry_count > 0) {
		return; /* Their offsets are given already. */
	}
	rt_err err = sh_replica_propose_members(member->replica, next, &index);
	if (err == RT_OK) {
		RT_ASSERT(index == member->shard.tail + 1);
		member->shard.tail = index;
		sh_region_of(member)->report_now = true;
	}
	/* RT_E_AGAIN: a change is under way, or who is to vote is not ready. */
	sh_region_took(member, err);
}

static void step(
	struct sh_region_shard *member, const Troupe__Cluster__Placement *target, uint64_t now_ms)
{
	struct sh_region *region = sh_region_of(member);
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	struct sh_members set = sh_raft_members(raft)->members;
	if (sh_reconcile_next(target, region->options.node, alive_members(raft), &set)) {
		region->restless = true;
		change_members(member, &set);
		return;
	}
	bool stays = has(target, region->options.node);
	uint64_t heir = is_ready(raft, target->preferred) ? target->preferred : 0;
	if (!stays && heir == 0) {
		heir = best_heir(raft, false);
	}
	bool wanted = !stays || target->preferred != region->options.node;
	region->restless = region->restless || wanted;
	bool calm = now_ms >= member->quiet_until_ms || !stays;
	if (wanted && heir != 0 && calm && region->hand_count < HANDS_MAX) {
		begin_hand_over(member, heir, now_ms);
	}
}

/* Removed while it could not be told, and everybody it knows of is gone, too: it would look for a
 * leader for ever. Who leads now, as others say, tells it. */
static void knock(struct sh_region_shard *member, uint64_t now_ms)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	uint64_t leader = sh_calls_leader(member);
	if (raft->role == SH_PRE_CANDIDATE && leader != 0 && leader != raft->settings.node &&
		sh_members_find(&sh_raft_members(raft)->members, leader) < 0) {
		sh_region_of(member)->restless = true;
		sh_region_took(member, sh_replica_knock(member->replica, now_ms, leader));
	}
}

void sh_reconcile(struct sh_region *region, uint64_t now_ms)
{
	for (uint32_t i = 0; i < region->member_count && !region->host.failed; i++) {
		struct sh_region_shard *member = &region->members[i];
		const Troupe__Cluster__Placement *target =
			sh_report_target(region, member->shard.index);
		if (member->serving == SH_SERVING && member->hand_to == 0 && target != NULL &&
			target->n_replicas > 0 && region->handed == NULL) {
			step(member, target, now_ms);
		} else if (member->serving == SH_ASLEEP) {
			knock(member, now_ms);
		}
	}
}

/* ---- hand-overs under way ---- */
static void give_up(struct sh_region_shard *member, uint64_t now_ms)
{
	member->quiet_until_ms = now_ms + QUIET_MS;
	sh_reconcile_over(member);
	sh_calls_wake(member);
}

static void advance(struct sh_region_shard *member, uint64_t now_ms)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	bool quiet = member->shard.pending_count == 0 && member->shard.entry_count == 0 &&
		     raft->commit == raft->last;
	if (!member->handing && quiet) {
		member->handing = true;
		rt_err err = sh_replica_transfer(member->replica, now_ms, member->hand_to);
		sh_region_took(member, err);
		if (err != RT_OK) {
			give_up(member, now_ms);
		}
	} else if (now_ms >= member->hand_until_ms || (member->handing && raft->transferee == 0)) {
		give_up(member, now_ms);
	}
}

static bool leads_others(const struct sh_region_shard *member)
{
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	return sh_raft_leads(raft) && best_heir(raft, true) != 0;
}

/* Leadership of everything is to leave this node. */
static void watch_leaving(struct sh_region *region, uint64_t now_ms)
{
	bool some = false;
	for (uint32_t i = 0; i < region->member_count && now_ms < region->handed_by_ms; i++) {
		struct sh_region_shard *member = &region->members[i];
		if (!leads_others(member)) {
			continue;
		}
		some = true;
		if (member->serving == SH_SERVING && member->hand_to == 0) {
			const struct sh_raft *raft = sh_replica_raft(member->replica);
			uint64_t heir = best_heir(raft, false);
			begin_hand_over(member, heir != 0 ? heir : best_heir(raft, true), now_ms);
		}
	}
	if (!some) {
		void (*handed)(void *arg) = region->handed;
		region->handed = NULL;
		handed(region->handed_arg);
	}
}

void sh_reconcile_turn(struct sh_region *region, uint64_t now_ms)
{
	if (region->handed != NULL) {
		watch_leaving(region, now_ms);
	}
	for (uint32_t i = 0; region->hand_count > 0 && i < region->member_count; i++) {
		if (region->members[i].hand_to != 0) {
			advance(&region->members[i], now_ms);
		}
	}
}

void sh_region_hand_over(
	struct sh_region *region, uint32_t timeout_ms, void (*done)(void *arg), void *arg)
{
	region->handed = done;
	region->handed_arg = arg;
	region->handed_by_ms = sh_region_now_ms(region) + timeout_ms;
	region->restless = true;
	if (region->host.failed || region->options.wire == NULL) {
		region->handed = NULL;
		done(arg);
	}
}
