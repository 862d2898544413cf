#include "sharding/allocate.h"

#include "runtime/base/assert.h"

#define NOWHERE UINT32_MAX

/* What a plan counts as it goes. Indexes are positions in in->nodes. */
struct plan {
	const struct sh_allocation *in;
	struct sh_placement *next;
	uint32_t usable, wanted; /* nodes; replicas of a group */
	uint32_t budget;         /* groups that may still begin to move */
	uint32_t load[SH_CLUSTER_MEMBERS_MAX], leads[SH_CLUSTER_MEMBERS_MAX];
};

/* ---- placements ---- */

bool sh_placement_has(const struct sh_placement *placement, uint64_t node)
{
	for (uint32_t i = 0; i < placement->count; i++) {
		if (placement->node[i] == node) {
			return true;
		}
	}
	return false;
}

static bool same_replicas(const struct sh_placement *a, const struct sh_placement *b)
{
	return a->count == b->count && memcmp(a->node, b->node, a->count * sizeof(*a->node)) == 0;
}

bool sh_placement_equal(const struct sh_placement *a, const struct sh_placement *b)
{
	return same_replicas(a, b) && a->preferred == b->preferred && a->pinned == b->pinned;
}

bool sh_alloc_settled(const struct sh_alloc_group *group)
{
	const struct sh_placement *target = &group->target;
	return group->actual.count == target->count &&
	       sh_members_voter_count(&group->actual) == target->count &&
	       memcmp(group->actual.node, target->node, target->count * sizeof(uint64_t)) == 0;
}

static void put(struct sh_placement *placement, uint64_t node)
{
	uint32_t at = placement->count++;
	RT_ASSERT(at < SH_CLUSTER_REPLICATION_MAX);
	for (; at > 0 && placement->node[at - 1] > node; at--) {
		placement->node[at] = placement->node[at - 1];
	}
	placement->node[at] = node;
}

static void take_out(struct sh_placement *placement, uint64_t node)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < placement->count; i++) {
		if (placement->node[i] != node) {
			placement->node[kept++] = placement->node[i];
		}
	}
	RT_ASSERT(kept == placement->count - 1);
	placement->count = kept;
	placement->node[kept] = 0;
}

/* ---- nodes ---- */

static uint32_t slot(const struct sh_allocation *in, uint64_t node)
{
	uint32_t low = 0, high = in->node_count;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (in->nodes[middle].node < node) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low < in->node_count && in->nodes[low].node == node ? low : NOWHERE;
}

/* Position of a usable node, else NOWHERE. */
static uint32_t usable(const struct sh_allocation *in, uint64_t node)
{
	uint32_t at = slot(in, node);
	return at != NOWHERE && in->nodes[at].usable == SH_NODE_USABLE ? at : NOWHERE;
}

static bool is_away(const struct sh_allocation *in, uint64_t node)
{
	uint32_t at = slot(in, node);
	return at != NOWHERE && in->nodes[at].usable == SH_NODE_AWAY;
}

static bool may_take(const struct sh_allocation *in, uint32_t at)
{
	return in->nodes[at].usable == SH_NODE_USABLE && in->nodes[at].reachable;
}

static void count_load(struct plan *plan, const struct sh_placement *placement, int by)
{
	for (uint32_t i = 0; i < placement->count; i++) {
		uint32_t at = usable(plan->in, placement->node[i]);
		if (at != NOWHERE) {
			plan->load[at] = (uint32_t)((int)plan->load[at] + by);
		}
	}
}

static void count_lead(struct plan *plan, const struct sh_placement *placement, int by)
{
	uint32_t at = usable(plan->in, placement->preferred);
	if (at != NOWHERE) {
		plan->leads[at] = (uint32_t)((int)plan->leads[at] + by);
	}
}

/* The meta group comes first. */
static uint32_t nth_group(const struct sh_allocation *in, uint32_t i)
{
	return i == 0 ? in->group_count - 1 : i - 1;
}

static bool is_settled(const struct sh_alloc_group *group)
{
	return group->leader != 0 && sh_alloc_settled(group);
}

/* ---- who should lead ---- */

/* Whoever of the group's usable nodes leads least, if its preferred one is not among them. */
static void mend_preferred(struct plan *plan, struct sh_placement *placement)
{
	uint32_t best = NOWHERE;
	if (sh_placement_has(placement, placement->preferred) &&
		usable(plan->in, placement->preferred) != NOWHERE) {
		return;
	}
	for (uint32_t i = 0; i < placement->count; i++) {
		uint32_t at = usable(plan->in, placement->node[i]);
		if (at != NOWHERE && (best == NOWHERE || plan->leads[at] < plan->leads[best])) {
			best = at;
		}
	}
	placement->pinned = false;
	if (best != NOWHERE) {
		placement->preferred = plan->in->nodes[best].node;
	} else if (!sh_placement_has(placement, placement->preferred)) {
		placement->preferred = placement->node[0];
	}
}

/* One node hands groups to the next along a chain of nodes, so that the first leads one less and
 * the last one more. */
struct chain {
	uint32_t from[SH_CLUSTER_MEMBERS_MAX]; /* by position; NOWHERE: not reached */
	uint32_t group[SH_CLUSTER_MEMBERS_MAX];
	uint32_t queue[SH_CLUSTER_MEMBERS_MAX];
	uint32_t head, tail;
};

/* Goes on from node `at`; a node that leads so few that the chain pays off, or NOWHERE. */
static uint32_t extend(const struct plan *plan, struct chain *chain, uint32_t at, uint32_t few)
{
	const struct sh_allocation *in = plan->in;
	for (uint32_t g = 0; g < in->group_count; g++) {
		const struct sh_placement *placement = &plan->next[g];
		if (placement->pinned || placement->preferred != in->nodes[at].node) {
			continue;
		}
		for (uint32_t i = 0; i < placement->count; i++) {
			uint32_t to = usable(in, placement->node[i]);
			if (to == NOWHERE || chain->from[to] != NOWHERE) {
				continue;
			}
			chain->from[to] = at;
			chain->group[to] = g;
			chain->queue[chain->tail++] = to;
			if (plan->leads[to] <= few) {
				return to;
			}
		}
	}
	return NOWHERE;
}

static uint32_t fewest_leads(const struct plan *plan)
{
	uint32_t fewest = UINT32_MAX;
	for (uint32_t i = 0; i < plan->in->node_count; i++) {
		if (plan->in->nodes[i].usable == SH_NODE_USABLE && plan->leads[i] < fewest) {
			fewest = plan->leads[i];
		}
	}
	return fewest;
}

/* The shortest chain from `first` that evens leaders out is acted on; false: there is none. */
static bool hand_on(struct plan *plan, uint32_t first)
{
	struct chain chain = {.head = 0, .tail = 1};
	uint32_t last = NOWHERE;
	if (plan->leads[first] < fewest_leads(plan) + 2) {
		return false;
	}
	for (uint32_t i = 0; i < plan->in->node_count; i++) {
		chain.from[i] = NOWHERE;
	}
	chain.queue[0] = first;
	chain.from[first] = first;
	while (last == NOWHERE && chain.head < chain.tail) {
		last = extend(plan, &chain, chain.queue[chain.head++], plan->leads[first] - 2);
	}
	if (last == NOWHERE) {
		return false;
	}
	plan->leads[first]--;
	plan->leads[last]++;
	for (uint32_t at = last; at != first; at = chain.from[at]) {
		plan->next[chain.group[at]].preferred = plan->in->nodes[at].node;
	}
	return true;
}

static void spread_leaders(struct plan *plan)
{
	bool again = plan->usable > 1;
	/* Every chain lowers the sum of squares of leaders per node. */
	while (again) {
		again = false;
		for (uint32_t i = 0; i < plan->in->node_count; i++) {
			again = hand_on(plan, i) || again;
		}
	}
}

/* ---- groups that miss or lose replicas ---- */

/* The best node to add: a member already, which has the data; then the emptiest. */
static uint32_t best_to_add(const struct plan *plan, const struct sh_placement *placement,
	const struct sh_members *actual)
{
	uint32_t best = NOWHERE;
	bool best_has = false;
	for (uint32_t i = 0; i < plan->in->node_count; i++) {
		uint64_t node = plan->in->nodes[i].node;
		if (!may_take(plan->in, i) || sh_placement_has(placement, node)) {
			continue;
		}
		bool has = sh_members_find(actual, node) >= 0;
		if (best == NOWHERE || (has && !best_has) ||
			(has == best_has && plan->load[i] < plan->load[best])) {
			best = i;
			best_has = has;
		}
	}
	return best;
}

/* The best of too many usable replicas to give up: one that is not there yet, that of the fullest
 * node, one that does not lead. */
static uint64_t best_to_drop(const struct plan *plan, const struct sh_alloc_group *group,
	const struct sh_placement *placement)
{
	uint64_t best = 0, best_rank = 0;
	for (uint32_t i = 0; i < placement->count; i++) {
		uint64_t node = placement->node[i];
		if (placement->pinned && placement->preferred == node) {
			continue;
		}
		uint64_t load = plan->load[usable(plan->in, node)];
		uint64_t rank =
			(sh_members_find(&group->actual, node) < 0 ? UINT64_C(1) << 40 : 0) +
			load * 4 + (group->leader != node ? 2 : 0) +
			(placement->preferred != node ? 1 : 0);
		if (best == 0 || rank >= best_rank) {
			best = node;
			best_rank = rank;
		}
	}
	return best;
}

/* Nodes of the target that are not usable and yet keep their place. */
static void keep_others(
	const struct plan *plan, const struct sh_placement *target, struct sh_placement *out)
{
	bool away_kept = false;
	uint32_t living = out->count;
	for (int away = 0; away <= 1; away++) {
		for (uint32_t i = 0; i < target->count && out->count < plan->wanted; i++) {
			uint32_t at = slot(plan->in, target->node[i]);
			if (at != NOWHERE && !sh_placement_has(out, target->node[i]) &&
				is_away(plan->in, target->node[i]) == (away == 1)) {
				put(out, target->node[i]);
				away_kept = away_kept || away == 1;
			}
		}
	}
	/* See sh_least_shards in the header. */
	for (uint32_t i = 0; i < target->count && !away_kept && living % 2 == 0 &&
			     out->count == living && out->count < plan->in->replication;
		i++) {
		if (is_away(plan->in, target->node[i])) {
			put(out, target->node[i]);
			away_kept = true;
		}
	}
}

/* As many usable replicas as wanted, from the target with the least change. Loads are counted. */
static void repair(struct plan *plan, const struct sh_alloc_group *group, struct sh_placement *out)
{
	const struct sh_placement target = *out;
	uint32_t at;
	out->count = 0;
	memset(out->node, 0, sizeof(out->node));
	for (uint32_t i = 0; i < target.count; i++) {
		if (usable(plan->in, target.node[i]) != NOWHERE) {
			put(out, target.node[i]);
		}
	}
	while (out->count > plan->wanted) {
		uint64_t node = best_to_drop(plan, group, out);
		take_out(out, node);
		plan->load[usable(plan->in, node)]--;
	}
	while (out->count < plan->wanted &&
		(at = best_to_add(plan, out, &group->actual)) != NOWHERE) {
		put(out, plan->in->nodes[at].node);
		plan->load[at]++;
	}
	keep_others(plan, &target, out);
	if (out->count == 0) { /* Nobody can take it now. */
		*out = target;
	}
}

static bool needs_copy(const struct sh_alloc_group *group, uint64_t node)
{
	return sh_members_find(&group->actual, node) < 0 && !sh_placement_has(&group->target, node);
}

/* An emptier node instead of one that was chosen, if that costs no copy more. */
static bool choose_better(
	struct plan *plan, const struct sh_alloc_group *group, struct sh_placement *placement)
{
	const struct sh_allocation *in = plan->in;
	for (uint32_t i = 0; i < placement->count; i++) {
		uint64_t old = placement->node[i];
		uint32_t from = usable(in, old);
		if (from == NOWHERE || (placement->pinned && placement->preferred == old)) {
			continue;
		}
		for (uint32_t to = 0; to < in->node_count; to++) {
			uint64_t node = in->nodes[to].node;
			if (may_take(in, to) && plan->load[from] >= plan->load[to] + 2 &&
				!sh_placement_has(placement, node) &&
				needs_copy(group, node) <= needs_copy(group, old)) {
				take_out(placement, old);
				put(placement, node);
				plan->load[from]--;
				plan->load[to]++;
				return true;
			}
		}
	}
	return false;
}

/* Choices were made one by one; later ones may have left nodes empty that are in all the groups
 * that were still to choose. */
static void refine(struct plan *plan)
{
	const struct sh_allocation *in = plan->in;
	bool again = true;
	while (again) {
		again = false;
		for (uint32_t g = 0; g < in->group_count; g++) {
			if (!same_replicas(&plan->next[g], &in->groups[g].target)) {
				again = choose_better(plan, &in->groups[g], &plan->next[g]) ||
					again;
			}
		}
	}
}

/* Plans for all, so that what is begun now fits what will follow, and begins what may begin. */
static void repair_all(struct plan *plan)
{
	const struct sh_allocation *in = plan->in;
	for (uint32_t g = 0; g < in->group_count; g++) {
		if (in->groups[g].leader != 0) {
			repair(plan, &in->groups[g], &plan->next[g]);
		}
	}
	refine(plan);
	for (uint32_t i = 0; i < in->group_count; i++) {
		uint32_t g = nth_group(in, i);
		const struct sh_placement *target = &in->groups[g].target;
		struct sh_placement *next = &plan->next[g];
		if (same_replicas(next, target)) {
			continue;
		}
		if (is_settled(&in->groups[g]) && plan->budget == 0) {
			count_load(plan, next, -1);
			memcpy(next->node, target->node, sizeof(next->node));
			next->count = target->count;
			count_load(plan, next, 1);
			continue;
		}
		plan->budget -= is_settled(&in->groups[g]) ? 1 : 0;
		count_lead(plan, next, -1);
		mend_preferred(plan, next);
		count_lead(plan, next, 1);
	}
}

/* ---- groups that are whole, on nodes that are too full ---- */

/* A group that can go from one node to the other, best one that the first does not lead. */
static uint32_t group_to_swap(const struct plan *plan, uint32_t from, uint32_t to)
{
	const struct sh_allocation *in = plan->in;
	uint64_t old = in->nodes[from].node;
	uint32_t second = NOWHERE;
	for (uint32_t i = 0; i < in->group_count; i++) {
		uint32_t g = nth_group(in, i);
		const struct sh_placement *placement = &plan->next[g];
		bool leads = placement->preferred == old;
		if (!is_settled(&in->groups[g]) ||
			!same_replicas(placement, &in->groups[g].target) ||
			!sh_placement_has(placement, old) ||
			sh_placement_has(placement, in->nodes[to].node) ||
			(leads && placement->pinned)) {
			continue;
		}
		if (!leads && in->groups[g].leader != old) {
			return g;
		}
		second = second == NOWHERE ? g : second;
	}
	return second;
}

static void swap(struct plan *plan, uint32_t g, uint32_t from, uint32_t to)
{
	struct sh_placement *placement = &plan->next[g];
	count_lead(plan, placement, -1);
	take_out(placement, plan->in->nodes[from].node);
	put(placement, plan->in->nodes[to].node);
	mend_preferred(plan, placement);
	count_lead(plan, placement, 1);
	plan->load[from]--;
	plan->load[to]++;
	plan->budget--;
}

/* The pair of nodes with the greatest difference that have a group to swap. */
static bool even_out_once(struct plan *plan)
{
	const struct sh_allocation *in = plan->in;
	uint32_t best = 1, best_group = 0, best_from = 0, best_to = 0;
	for (uint32_t from = 0; from < in->node_count; from++) {
		for (uint32_t to = 0; to < in->node_count; to++) {
			if (in->nodes[from].usable != SH_NODE_USABLE || !may_take(in, to) ||
				plan->load[from] <= plan->load[to] + best) {
				continue;
			}
			uint32_t g = group_to_swap(plan, from, to);
			if (g != NOWHERE) {
				best = plan->load[from] - plan->load[to];
				best_group = g;
				best_from = from;
				best_to = to;
			}
		}
	}
	if (best > 1) {
		swap(plan, best_group, best_from, best_to);
	}
	return best > 1;
}

static void least_shards(const struct sh_allocation *in, struct sh_placement *next)
{
	struct plan plan = {.in = in, .next = next, .budget = in->moves_max};
	for (uint32_t i = 0; i < in->node_count; i++) {
		plan.usable += in->nodes[i].usable == SH_NODE_USABLE;
	}
	if (plan.usable == 0) {
		return;
	}
	plan.wanted = plan.usable < in->replication ? plan.usable : in->replication;
	for (uint32_t g = 0; g < in->group_count; g++) {
		bool moving = !is_settled(&in->groups[g]) && !in->groups[g].lost;
		plan.budget -= moving && plan.budget > 0 ? 1 : 0;
		count_load(&plan, &next[g], 1);
		count_lead(&plan, &next[g], 1);
	}
	for (uint32_t g = 0; g < in->group_count; g++) {
		count_lead(&plan, &next[g], -1);
		mend_preferred(&plan, &next[g]);
		count_lead(&plan, &next[g], 1);
	}
	repair_all(&plan);
	while (plan.budget > 0 && even_out_once(&plan)) {
	}
	spread_leaders(&plan);
}

const struct sh_strategy sh_least_shards = {.name = "least shards", .plan = least_shards};

uint32_t sh_allocate(const struct sh_strategy *strategy, const struct sh_allocation *in,
	struct sh_placement *next)
{
	uint32_t changed = 0;
	RT_ASSERT(in->group_count > 0 && in->node_count <= SH_CLUSTER_MEMBERS_MAX);
	RT_ASSERT(in->replication >= 1 && in->replication <= SH_CLUSTER_REPLICATION_MAX);
	for (uint32_t g = 0; g < in->group_count; g++) {
		next[g] = in->groups[g].target;
	}
	(strategy == NULL ? &sh_least_shards : strategy)->plan(in, next);
	for (uint32_t g = 0; g < in->group_count; g++) {
		RT_ASSERT(next[g].count > 0 && sh_placement_has(&next[g], next[g].preferred));
		changed += !sh_placement_equal(&next[g], &in->groups[g].target);
	}
	return changed;
}
