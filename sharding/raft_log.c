/* The core's log: runs of equal terms, sets of members, floor and commit. No record is here. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/raft_core.h"

static rt_err grow(void **items, uint32_t *cap, uint32_t need, size_t size)
{
	if (need <= *cap) {
		return RT_OK;
	}
	uint32_t to = need < 2 ? 2 : need + need / 2;
	void *more = realloc(*items, to * size);
	if (more == NULL) {
		return RT_E_NOMEM;
	}
	*items = more;
	*cap = to;
	return RT_OK;
}

rt_err sh_core_log_reserve(struct sh_raft *raft, uint32_t changes)
{
	void *runs = raft->runs;
	void *sets = raft->sets;
	rt_err err = grow(&runs, &raft->run_cap, raft->run_count + changes, sizeof(*raft->runs));
	raft->runs = runs;
	if (err == RT_OK) {
		err = grow(&sets, &raft->set_cap, raft->set_count + changes, sizeof(*raft->sets));
		raft->sets = sets;
	}
	return err;
}

rt_err sh_core_log_init(struct sh_raft *raft, const struct sh_raft_restore *restore)
{
	if (restore->commit < restore->floor || restore->set_index > restore->floor ||
		(restore->floor > 0) != (restore->floor_term > 0)) {
		return RT_E_CORRUPT;
	}
	rt_err err = sh_core_log_reserve(raft, 1);
	if (err != RT_OK) {
		return err;
	}
	struct sh_raft_set set = {restore->set_index, restore->members};
	sh_core_log_reset(raft, restore->floor, restore->floor_term, &set);
	return RT_OK;
}

/* An empty log above a floor. */
void sh_core_log_reset(
	struct sh_raft *raft, uint64_t floor, uint64_t term, const struct sh_raft_set *set)
{
	raft->floor = raft->last = floor;
	raft->runs[0] = (struct sh_raft_run){floor, term};
	raft->run_count = 1;
	raft->sets[0] = *set;
	raft->set_count = 1;
}

bool sh_core_at_least(uint64_t term, uint64_t index, uint64_t than_term, uint64_t than_index)
{
	return term > than_term || (term == than_term && index >= than_index);
}

void sh_core_raise_bar(struct sh_raft *raft, uint64_t term, uint64_t index)
{
	if (sh_core_at_least(term, index, raft->bar_term, raft->bar_index)) {
		raft->bar_term = term;
		raft->bar_index = index;
	}
}

static const struct sh_raft_run *run_at(const struct sh_raft *raft, uint64_t index)
{
	const struct sh_raft_run *run = &raft->runs[raft->run_count - 1];
	while (run->first > index && run > raft->runs) {
		run--;
	}
	return run;
}

uint64_t sh_raft_term_at(const struct sh_raft *raft, uint64_t index)
{
	return index < raft->floor || index > raft->last ? 0 : run_at(raft, index)->term;
}

/* First index above the floor of the term that index has. */
uint64_t sh_core_run_first(const struct sh_raft *raft, uint64_t index)
{
	uint64_t first = run_at(raft, index)->first;
	return first > raft->floor ? first : raft->floor + 1;
}

const struct sh_raft_set *sh_raft_members(const struct sh_raft *raft)
{
	return &raft->sets[raft->set_count - 1];
}

const struct sh_raft_set *sh_raft_members_at(const struct sh_raft *raft, uint64_t index)
{
	const struct sh_raft_set *set = sh_raft_members(raft);
	while (set->index > index && set > raft->sets) {
		set--;
	}
	return set;
}

/* A set is in force from the moment its entry is in the log [D 4.1]. */
void sh_core_log_push(
	struct sh_raft *raft, uint32_t count, uint64_t term, const struct sh_members *members)
{
	if (raft->runs[raft->run_count - 1].term != term) {
		RT_ASSERT(raft->run_count < raft->run_cap);
		raft->runs[raft->run_count++] = (struct sh_raft_run){raft->last + 1, term};
	}
	raft->last += count;
	if (members != NULL) {
		RT_ASSERT(raft->set_count < raft->set_cap);
		raft->sets[raft->set_count++] = (struct sh_raft_set){raft->last, *members};
	}
}

/* Removes from..last. The sets that go leave in force the last one that stays, which the floor
 * always has [D 4.1]. */
void sh_core_log_cut(struct sh_raft *raft, uint64_t from)
{
	RT_ASSERT(from > raft->commit && from > raft->floor && from <= raft->last);
	while (raft->runs[raft->run_count - 1].first >= from) {
		raft->run_count--;
	}
	while (raft->sets[raft->set_count - 1].index >= from) {
		raft->set_count--;
	}
	raft->last = from - 1;
	raft->stored = raft->stored < raft->last ? raft->stored : raft->last;
	raft->verified = raft->verified < raft->last ? raft->verified : raft->last;
	raft->generation++;
}

void sh_core_say_members(struct sh_raft *raft, const struct sh_raft_set *set, bool committed)
{
	struct sh_out *out = sh_core_emit(raft, SH_OUT_MEMBERS);
	out->members.index = set->index;
	out->members.set = set->members;
	out->members.committed = committed;
}

/* Entries up to index are committed: for good, in every later leader's log [D 3.6.3]. */
void sh_core_commit(struct sh_raft *raft, uint64_t index)
{
	if (index <= raft->commit) {
		return;
	}
	RT_ASSERT(index <= raft->last);
	uint64_t before = raft->commit;
	raft->commit = index;
	sh_core_emit(raft, SH_OUT_COMMIT)->commit = index;
	for (uint32_t i = 0; i < raft->set_count; i++) {
		if (raft->sets[i].index > before && raft->sets[i].index <= index) {
			sh_core_say_members(raft, &raft->sets[i], true);
		}
	}
}

/* Somebody is being sent the log up to the floor or beyond: it must not move out of reach. */
static bool installs_under_way(const struct sh_raft *raft)
{
	for (int i = 0; raft->role == SH_LEADER && i < sh_raft_members(raft)->members.count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		if (peer->state == SH_PEER_INSTALL &&
			raft->now - peer->heard_at <= raft->settings.election_ms) {
			return true;
		}
	}
	return false;
}

void sh_raft_compact(struct sh_raft *raft, uint64_t floor)
{
	floor = floor < raft->commit ? floor : raft->commit;
	floor = floor < raft->stored ? floor : raft->stored;
	floor = floor < raft->applied ? floor : raft->applied;
	if (floor <= raft->floor || installs_under_way(raft)) {
		return;
	}
	uint32_t run = (uint32_t)(run_at(raft, floor) - raft->runs);
	raft->run_count -= run;
	memmove(raft->runs, raft->runs + run, raft->run_count * sizeof(*raft->runs));
	raft->runs[0].first = floor;
	uint32_t set = (uint32_t)(sh_raft_members_at(raft, floor) - raft->sets);
	raft->set_count -= set;
	memmove(raft->sets, raft->sets + set, raft->set_count * sizeof(*raft->sets));
	raft->floor = floor;
}

static void check_log(const struct sh_raft *raft)
{
	RT_ASSERT(raft->run_count > 0 && raft->run_count <= raft->run_cap);
	RT_ASSERT(raft->runs[0].first <= raft->floor);
	for (uint32_t i = 1; i < raft->run_count; i++) {
		RT_ASSERT(raft->runs[i].first > raft->floor && raft->runs[i].first <= raft->last);
		RT_ASSERT(raft->runs[i].first > raft->runs[i - 1].first);
		RT_ASSERT(raft->runs[i].term > raft->runs[i - 1].term);
	}
	RT_ASSERT(raft->set_count > 0 && raft->set_count <= raft->set_cap);
	RT_ASSERT(raft->sets[0].index <= raft->floor);
	for (uint32_t i = 1; i < raft->set_count; i++) {
		RT_ASSERT(raft->sets[i].index > raft->floor && raft->sets[i].index <= raft->last);
		RT_ASSERT(raft->sets[i].index > raft->sets[i - 1].index);
	}
}

void sh_raft_check(const struct sh_raft *raft)
{
	check_log(raft);
	RT_ASSERT(raft->floor <= raft->commit && raft->commit <= raft->last);
	RT_ASSERT(raft->stored <= raft->last && raft->verified <= raft->last);
	RT_ASSERT(raft->applied <= raft->commit && raft->floor <= raft->applied);
	RT_ASSERT(sh_raft_term_at(raft, raft->last) <= raft->term);
	const struct sh_members *members = &sh_raft_members(raft)->members;
	RT_ASSERT(members->count <= SH_MEMBERS_MAX && members->voters >> members->count == 0);
	RT_ASSERT(RT_IMPLIES(raft->role == SH_LEADER || raft->role == SH_CANDIDATE,
		raft->vote == raft->settings.node));
	RT_ASSERT(RT_IMPLIES(raft->installing, raft->role == SH_FOLLOWER && raft->last == 0));
	if (raft->role != SH_LEADER) {
		RT_ASSERT(raft->transferee == 0 && raft->leader != raft->settings.node);
		return;
	}
	RT_ASSERT(raft->leader == raft->settings.node && raft->noop > 0);
	RT_ASSERT(sh_raft_term_at(raft, raft->last) == raft->term);
	for (int i = 0; i < members->count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		RT_ASSERT(peer->node == members->node[i]);
		RT_ASSERT(peer->next > peer->match && peer->match <= raft->last);
		RT_ASSERT(peer->next <= raft->last + 1);
		RT_ASSERT(peer->group_count <= SH_INFLIGHT_GROUPS);
		RT_ASSERT(peer->group_messages < SH_INFLIGHT_GROUP);
	}
}
