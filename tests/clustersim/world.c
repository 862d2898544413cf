/* A world from its first event to its last. */
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.h"
#include "runtime/base/assert.h"
#include "sharding/cluster.h"
#include "tests/clustersim/clustersim.h"

#define FAULTS_AT  CS_MS(1500)
#define HEAL_AT    CS_S(14)
#define QUIET_AT   CS_S(16)
#define BOUND      CS_S(60) /* from quiet to all agree */
#define POLL_EVERY CS_MS(250)
#define EVENTS_MAX 3000000u

/* ---- events: a binary heap ---- */
static bool before(const struct cs_event *a, const struct cs_event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void cs_at(struct cs *cs, uint64_t at, struct cs_event event)
{
	if (cs->heap_count == cs->heap_cap) {
		cs->heap_cap = cs->heap_cap == 0 ? 1024 : cs->heap_cap * 2;
		cs->heap = realloc(cs->heap, cs->heap_cap * sizeof(*cs->heap));
		RT_ASSERT(cs->heap != NULL);
	}
	event.at = at;
	event.seq = cs->event_seq++;
	uint32_t i = cs->heap_count++;
	for (; i > 0 && before(&event, &cs->heap[(i - 1) / 2]); i = (i - 1) / 2) {
		cs->heap[i] = cs->heap[(i - 1) / 2];
	}
	cs->heap[i] = event;
}

static struct cs_event next_event(struct cs *cs)
{
	struct cs_event top = cs->heap[0];
	struct cs_event last = cs->heap[--cs->heap_count];
	uint32_t i = 0;
	for (uint32_t child = 1; child < cs->heap_count; child = 2 * i + 1) {
		if (child + 1 < cs->heap_count && before(&cs->heap[child + 1], &cs->heap[child])) {
			child++;
		}
		if (!before(&cs->heap[child], &last)) {
			break;
		}
		cs->heap[i] = cs->heap[child];
		i = child;
	}
	cs->heap[i] = last;
	return top;
}

/* ---- faults of nodes ---- */
struct cs_node *cs_any_node(struct cs *cs)
{
	uint32_t start = cs_below(cs, CS_NODES);
	for (uint32_t i = 0; i < CS_NODES; i++) {
		struct cs_node *node = &cs->nodes[1 + (start + i) % CS_NODES];
		if (node->up) {
			return node;
		}
	}
	return NULL;
}

struct cs_node *cs_victim(struct cs *cs)
{
	uint32_t shard = cs->entity_shard[cs_below(cs, cs->shape.entities)];
	const struct cs_node *leader = cs_check_leader(cs, shard);
	return leader != NULL && cs_chance(cs, cs->shape.at_leaders) ? &cs->nodes[leader->id]
								     : cs_any_node(cs);
}

void cs_kill_by(struct cs *cs, struct cs_node *node, uint32_t percent, uint64_t within)
{
	if (cs->faults && !cs->healed && cs_chance(cs, percent)) {
		cs_at(cs, cs->now + cs_below(cs, within + 1),
			(struct cs_event){
				.kind = CS_EV_KILL, .node = node->id, .boot = node->boot});
	}
}

static void crash(struct cs *cs, struct cs_node *node)
{
	uint64_t down = CS_MS(1) + cs_below(cs, cs->healed ? CS_MS(20) : cs->shape.down_max);
	cs_node_crash(node);
	if (!node->gone) {
		cs_at(cs, cs->now + down,
			(struct cs_event){
				.kind = CS_EV_START, .node = node->id, .boot = node->boot});
	}
}

static void crash_all(struct cs *cs)
{
	CS_TRACE(cs, "the power fails");
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		if (cs->nodes[id].up) {
			crash(cs, &cs->nodes[id]);
		}
	}
}

static void pause_node(struct cs *cs, struct cs_node *node)
{
	uint64_t most = cs_chance(cs, 30) ? CS_S(3) : CS_MS(600);
	cs->stats->pauses++;
	if (cs_chance(cs, cs->shape.pause_alone)) {
		/* It wakes up when others lead, and nobody tells it. */
		cs_net_isolate(cs, node->id);
		most = CS_MS(cs->shape.election_ms) * 6;
		cs->alone_until = cs->now + most + CS_MS(50);
	}
	node->paused_until = cs->now + cs_below(cs, most);
	CS_TRACE(cs, "n%u pauses until %.6f", node->id, (double)node->paused_until / 1e6);
}

static void jump(struct cs *cs, struct cs_node *node)
{
	node->wall_offset_ms += (int64_t)cs_below(cs, 7200000) - 3600000;
	cs->stats->jumps++;
	CS_TRACE(cs, "n%u its wall clock jumps", node->id);
}

static void stall(struct cs *cs, struct cs_node *node)
{
	uint64_t until = cs->now + cs_below(cs, CS_MS(800));
	CS_TRACE(cs, "n%u its disk stalls until %.6f", node->id, (double)until / 1e6);
	mem_disk_stall(node->disk, until);
}

static void break_disk(struct cs *cs, struct cs_node *node)
{
	enum mem_break how = cs_chance(cs, 50) ? MEM_BREAK_WRITE : MEM_BREAK_SYNC;
	CS_TRACE(cs, "n%u its disk breaks (%d)", node->id, (int)how);
	mem_disk_break(node->disk, how);
}

static void fill_disk(struct cs *cs, struct cs_node *node)
{
	bool low = cs_chance(cs, 30);
	CS_TRACE(cs, "n%u its disk is %s", node->id, low ? "nearly full" : "not full");
	mem_disk_space_low(node->disk, low);
}

/* ---- phases ---- */
static void heal(struct cs *cs)
{
	CS_TRACE(cs, "all faults end");
	cs->healed = true;
	cs_net_heal(cs);
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		struct cs_node *node = &cs->nodes[id];
		if (!node->exists || node->gone) {
			continue;
		}
		mem_disk_space_low(node->disk, false);
		mem_disk_stall(node->disk, 0);
		node->paused_until = 0;
		node->shape.bad_reads = node->shape.full_reads = 0;
		if (node->up && (node->failing || mem_disk_broken(node->disk))) {
			cs_node_crash(node);
		}
		if (!node->up) {
			cs_node_start(node);
		}
	}
}

static bool poll(struct cs *cs)
{
	const char *why = cs_client_idle(cs) ? cs_check_converged(cs) : "calls are under way";
	if (why == NULL) {
		return true;
	}
	if (cs->now > QUIET_AT + BOUND) {
		cs_fail(cs, "no agreement %d s after the last fault: %s",
			(int)((cs->now - HEAL_AT) / CS_S(1)), why);
	}
	cs_at(cs, cs->now + POLL_EVERY, (struct cs_event){.kind = CS_EV_POLL});
	return false;
}

static void repeat(struct cs *cs, enum cs_event_kind kind)
{
	uint64_t mean = cs->shape.every[kind];
	if (mean > 0 && !cs->healed) {
		cs_at(cs, cs->now + 1 + cs_below(cs, 2 * mean),
			(struct cs_event){.kind = (uint8_t)kind});
	}
}

static void begin_faults(struct cs *cs)
{
	CS_TRACE(cs, "faults begin");
	cs->faults = true;
	for (int kind = CS_EV_CRASH; kind < CS_EV_REPEATING_END; kind++) {
		repeat(cs, (enum cs_event_kind)kind);
	}
}

/* ---- the run ---- */
static void happen_to_any(struct cs *cs, enum cs_event_kind kind)
{
	struct cs_node *node = cs_victim(cs);
	if (node == NULL || node->leaving) {
		return;
	}
	switch (kind) {
	case CS_EV_CRASH:
		crash(cs, node);
		break;
	case CS_EV_LEAVE:
		cs_node_leave(node);
		break;
	case CS_EV_PAUSE:
		pause_node(cs, node);
		break;
	case CS_EV_STALL:
		stall(cs, node);
		break;
	case CS_EV_BREAK:
		break_disk(cs, node);
		break;
	case CS_EV_JUMP:
		jump(cs, node);
		break;
	case CS_EV_SPACE:
		fill_disk(cs, node);
		break;
	default:
		RT_ASSERT(false);
	}
}

static void happen_to_all(struct cs *cs, enum cs_event_kind kind)
{
	if (cs->healed) {
		return;
	}
	switch (kind) {
	case CS_EV_CRASH_ALL:
		crash_all(cs);
		break;
	case CS_EV_LINKS:
		cs_net_links(cs);
		break;
	case CS_EV_JOIN:
		cs_admin_join(cs);
		break;
	case CS_EV_DRAIN:
		cs_admin_drain(cs);
		break;
	case CS_EV_LOSE:
		cs_admin_lose(cs);
		break;
	case CS_EV_MOVE:
		cs_admin_move(cs);
		break;
	default:
		happen_to_any(cs, kind);
	}
	repeat(cs, kind);
}

static void happen_to_node(struct cs *cs, const struct cs_event *event)
{
	struct cs_node *node = &cs->nodes[event->node];
	if (event->boot != node->boot || node->gone) {
		return;
	}
	if (event->kind == CS_EV_START && !node->up) {
		cs_node_start(node);
	} else if (event->kind == CS_EV_KILL && node->up && (!cs->healed || node->failing)) {
		crash(cs, node);
	}
}

static void happen(struct cs *cs, struct cs_event *event)
{
	switch ((enum cs_event_kind)event->kind) {
	case CS_EV_FRAME:
		cs_net_frame(cs, event);
		break;
	case CS_EV_CONN:
		cs_net_conn(cs, event);
		break;
	case CS_EV_CALL:
		cs_client_call(cs, event);
		break;
	case CS_EV_ANSWER:
		cs_client_answer(cs, event);
		break;
	case CS_EV_CLIENT:
		cs_client_due(cs, event);
		break;
	case CS_EV_START:
	case CS_EV_KILL:
		happen_to_node(cs, event);
		break;
	case CS_EV_FAULTS:
		begin_faults(cs);
		break;
	case CS_EV_HEAL:
		heal(cs);
		break;
	case CS_EV_QUIET:
		CS_TRACE(cs, "clients begin nothing new");
		cs->quiet = true;
		break;
	default:
		happen_to_all(cs, (enum cs_event_kind)event->kind);
	}
	free(event->data);
}

static void begin(struct cs *cs)
{
	rt_random_seed(&cs->random, cs->seed);
	cs_shape(cs);
	CS_TRACE(cs, "seed %" PRIu64 " is %s: %u nodes, %u replicas, %u shards, %u workers",
		cs->seed, cs->shape.name, cs->shape.nodes, cs->shape.replication, cs->shape.shards,
		cs->shape.workers);
	rt_err err = ac_registry_new(&cs->registry);
	RT_ASSERT(err == RT_OK);
	err = ac_registry_add(cs->registry, &account_aggregate, NULL);
	RT_ASSERT(err == RT_OK);
	err = ac_registry_add(cs->registry, &sh_cluster_aggregate, NULL);
	RT_ASSERT(err == RT_OK);
	snprintf(cs->cluster, sizeof(cs->cluster), "%032" PRIx64, cs->seed);
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		cs->nodes[id].cs = cs;
		cs->nodes[id].id = id;
		cs->nodes[id].wake_at = CS_NEVER;
	}
	char key[33];
	snprintf(key, sizeof(key), "%032" PRIx64, cs->seed + 1);
	cs_node_make(cs, 1, key);
	cs_node_start(&cs->nodes[1]);
	cs_client_start(cs);
	cs_at(cs, FAULTS_AT, (struct cs_event){.kind = CS_EV_FAULTS});
	cs_at(cs, HEAL_AT, (struct cs_event){.kind = CS_EV_HEAL});
	cs_at(cs, QUIET_AT, (struct cs_event){.kind = CS_EV_QUIET});
	cs_at(cs, QUIET_AT + 1, (struct cs_event){.kind = CS_EV_POLL});
	cs->admin.wanted = cs->shape.nodes - 1;
}

static void end(struct cs *cs)
{
	cs_check_done(cs);
	cs_history_check(cs);
	cs->stats->seeds++;
	cs->stats->virtual_ms += cs->now / CS_MS(1);
	cs->stats->events += cs->event_seq;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		cs_node_free(&cs->nodes[id]);
	}
	cs_net_done(cs);
	for (uint32_t i = 0; i < cs->heap_count; i++) {
		free(cs->heap[i].data);
	}
	free(cs->heap);
	for (uint32_t g = 0; g < CS_GROUPS; g++) {
		for (uint64_t i = 0; i < cs->truth[g].count; i++) {
			free(cs->truth[g].records[i].bytes);
		}
		free(cs->truth[g].records);
		free(cs->truth[g].leader_of);
	}
	free(cs->ops);
	ac_registry_free(cs->registry);
}

static struct cs_node *next_node(struct cs *cs)
{
	struct cs_node *first = NULL;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		struct cs_node *node = &cs->nodes[id];
		if (node->up && (first == NULL || node->wake_at < first->wake_at)) {
			first = node;
		}
	}
	return first;
}

void cs_run(struct cs *cs)
{
	begin(cs);
	for (bool done = false; !done;) {
		CS_CHECK(cs, cs->event_seq < EVENTS_MAX,
			"more than %u events: somebody is busy "
			"with nothing",
			EVENTS_MAX);
		struct cs_node *node = next_node(cs);
		if (node != NULL && node->wake_at < cs->heap[0].at) {
			cs->now = node->wake_at > cs->now ? node->wake_at : cs->now;
			cs_node_run(node);
			continue;
		}
		struct cs_event event = next_event(cs);
		cs->now = event.at > cs->now ? event.at : cs->now;
		if (event.kind == CS_EV_POLL) {
			done = poll(cs);
		} else {
			happen(cs, &event);
		}
	}
	end(cs);
}
