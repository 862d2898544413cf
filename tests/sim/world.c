/* A world from its first event to its last. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

#define HEAL_AT    SIM_S(22)
#define QUIET_AT   SIM_S(25)
#define BOUND      SIM_S(20) /* from quiet to all agree */
#define POLL_EVERY SIM_MS(100)
#define EVENTS_MAX 4000000u
#define NEVER      UINT64_MAX

/* ---- events: a binary heap ---- */
static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void sim_at(struct sim *sim, uint64_t at, struct sim_event event)
{
	if (sim->heap_count == sim->heap_cap) {
		sim->heap_cap = sim->heap_cap == 0 ? 1024 : sim->heap_cap * 2;
		sim->heap = realloc(sim->heap, sim->heap_cap * sizeof(*sim->heap));
		RT_ASSERT(sim->heap != NULL);
	}
	event.at = at;
	event.seq = sim->event_seq++;
	uint32_t i = sim->heap_count++;
	for (; i > 0 && before(&event, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2) {
		sim->heap[i] = sim->heap[(i - 1) / 2];
	}
	sim->heap[i] = event;
}

static struct sim_event next_event(struct sim *sim)
{
	struct sim_event top = sim->heap[0];
	struct sim_event last = sim->heap[--sim->heap_count];
	uint32_t i = 0;
	for (;;) {
		uint32_t child = 2 * i + 1;
		if (child >= sim->heap_count) {
			break;
		}
		if (child + 1 < sim->heap_count &&
			before(&sim->heap[child + 1], &sim->heap[child])) {
			child++;
		}
		if (!before(&sim->heap[child], &last)) {
			break;
		}
		sim->heap[i] = sim->heap[child];
		i = child;
	}
	sim->heap[i] = last;
	return top;
}

/* ---- a node's clock ---- */
uint64_t sim_clock(const struct sim *sim, const struct sim_node *node)
{
	return node->clock_offset_ms + sim->now * node->clock_ppm / UINT64_C(1000000000);
}

/* When the node's clock shows that. */
static uint64_t when(const struct sim *sim, const struct sim_node *node, uint64_t clock_ms)
{
	if (clock_ms <= sim_clock(sim, node)) {
		return sim->now + 500;
	}
	uint64_t ns = (clock_ms - node->clock_offset_ms) * UINT64_C(1000000000);
	return (ns + node->clock_ppm - 1) / node->clock_ppm;
}

static void set_timer(struct sim *sim, struct sim_replica *r)
{
	uint64_t clock = sh_replica_next_timeout(r->replica);
	uint64_t at = clock == UINT64_MAX ? NEVER : when(sim, r->node, clock);
	if (at < r->timer_at) {
		r->timer_at = at;
		sim_at(sim, at,
			(struct sim_event){.kind = SIM_EV_TIMER,
				.node = (uint8_t)r->node->id,
				.group = (uint8_t)r->group,
				.boot = r->node->boot});
	}
}

/* ---- turns ---- */
void sim_turn_end(struct sim *sim, struct sim_node *node)
{
	if (node->failing) {
		sim_net_flush(sim, node);
		return;
	}
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		sim_check_step(&node->replicas[g]);
	}
	sim_disk_submit(sim, node);
	sim_net_flush(sim, node);
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		set_timer(sim, &node->replicas[g]);
	}
}

void sim_took(struct sim_replica *r, rt_err err, const char *what)
{
	if (err == RT_OK || r->node->failing) {
		return;
	}
	if (r->node->disk.broken && r->node->disk.refuses) {
		r->sim->stats->write_errors++;
		sim_node_fail(r->sim, r->node);
		return;
	}
	sim_fail_at(r, what, "answered %s", rt_err_name(err));
}

void sim_node_fail(struct sim *sim, struct sim_node *node)
{
	SIM_TRACE(sim, "n%u stops", node->id);
	node->failing = true;
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		node->replicas[g].leading = false;
		sh_replica_fail(node->replicas[g].replica);
	}
	sim_kill_by(sim, node, 100, SIM_MS(50));
}

void sim_kill_by(struct sim *sim, struct sim_node *node, uint32_t percent, uint64_t within)
{
	if (!sim->healed && sim_chance(sim, percent)) {
		sim_at(sim, sim->now + sim_below(sim, within + 1),
			(struct sim_event){.kind = SIM_EV_KILL,
				.node = (uint8_t)node->id,
				.boot = node->boot});
	}
}

static void tick(struct sim *sim, const struct sim_event *event)
{
	struct sim_node *node = sim_node(sim, event->node);
	struct sim_replica *r = &node->replicas[event->group];
	if (event->at != r->timer_at || node->failing) {
		return;
	}
	r->timer_at = NEVER;
	sim_took(r, sh_replica_tick(r->replica, sim_clock(sim, node)), "tick");
	sim_turn_end(sim, node);
}

/* ---- crashes and restarts ---- */
static void open_replica(struct sim *sim, struct sim_replica *r)
{
	struct sim_node *node = r->node;
	struct sh_replica_options options = {
		.shard = r->group + 1,
		.raft = {.node = node->id,
			.election_ms = sim->shape.election_ms,
			.heartbeat_ms = sim->shape.heartbeat_ms,
			.window = sim->shape.window,
			.seed = rt_random_next(&sim->random)},
		.cache_bytes = sim->shape.cache_bytes,
		.mark_every = sim->shape.mark_every,
		.runs_max = sim->shape.runs_max,
		.port = &sim_port,
		.arg = r,
		.queue = &node->queue,
	};
	if (sh_members_find(&sim->first, node->id) >= 0) {
		options.first = sim->first;
	}
	struct rt_errinfo info = {0};
	if (sh_replica_open(&options, &r->replica, &info) != RT_OK) {
		sim_fail_at(r, "open", "%s", info.text);
	}
	r->timer_at = NEVER;
	r->leading = r->told_removed = false;
	r->committed = r->durable = r->trim_upto = 0;
	r->seen_term = r->seen_commit = r->seen_led_term = 0;
	r->seen_installing = r->seen_candidate = false;
	memset(r->tickets, 0, sizeof(r->tickets));
	sim_check_opened(r);
}

static void start_node(struct sim *sim, struct sim_node *node)
{
	node->boot++;
	node->up = true;
	node->failing = false;
	node->clock_offset_ms = sim_chance(sim, 50) ? sim_below(sim, 1000000000) : 1;
	SIM_TRACE(sim, "n%u starts, its clock is %" PRIu64, node->id, sim_clock(sim, node));
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		open_replica(sim, &node->replicas[g]);
	}
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		struct sim_replica *r = &node->replicas[g];
		sim_took(r, sh_replica_start(r->replica, sim_clock(sim, node)), "start");
	}
	sim_turn_end(sim, node);
}

static void close_node(struct sim *sim, struct sim_node *node)
{
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		sh_replica_close(node->replicas[g].replica);
		node->replicas[g].replica = NULL;
	}
	for (uint32_t to = 1; to <= SIM_NODES; to++) {
		node->out[to].size = 0;
	}
	node->up = false;
}

void sim_crash(struct sim *sim, struct sim_node *node)
{
	SIM_TRACE(sim, "n%u CRASHES", node->id);
	sim->stats->crashes++;
	close_node(sim, node);
	sim_disk_crash(sim, node);
	uint64_t down = SIM_MS(1) + sim_below(sim, sim->healed ? SIM_MS(5) : sim->shape.down_max);
	sim_at(sim, sim->now + down,
		(struct sim_event){
			.kind = SIM_EV_START, .node = (uint8_t)node->id, .boot = node->boot});
}

static void crash_somebody(struct sim *sim)
{
	struct sim_node *node = sim_node(sim, 1 + sim_below(sim, sim->shape.nodes));
	if (node->up && !sim->healed) {
		sim_crash(sim, node);
	}
}

/* ---- phases ---- */
static void heal(struct sim *sim)
{
	SIM_TRACE(sim, "all faults end");
	sim->healed = true;
	sim_net_heal(sim);
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		struct sim_node *node = sim_node(sim, id);
		node->disk.stalled_until = 0;
		if (node->up && (node->failing || node->disk.broken)) {
			sim_crash(sim, node);
		}
		if (!node->up) {
			start_node(sim, node);
		}
	}
}

static bool poll(struct sim *sim)
{
	const char *why = sim_check_converged(sim);
	if (why == NULL) {
		return true;
	}
	if (sim->now > QUIET_AT + BOUND) {
		sim_fail(sim, "no agreement %d s after the last fault: %s",
			(int)((sim->now - HEAL_AT) / SIM_S(1)), why);
	}
	sim_at(sim, sim->now + POLL_EVERY, (struct sim_event){.kind = SIM_EV_POLL});
	return false;
}

static void repeat(struct sim *sim, enum sim_event_kind kind)
{
	uint64_t mean = sim->shape.every[kind];
	if (mean > 0 && (!sim->quiet || kind == SIM_EV_SWEEP)) {
		sim_at(sim, sim->now + 1 + sim_below(sim, 2 * mean),
			(struct sim_event){.kind = (uint8_t)kind});
	}
}

/* ---- the run ---- */
static void happen_to_all(struct sim *sim, enum sim_event_kind kind)
{
	switch (kind) {
	case SIM_EV_PROPOSE:
		sim_load_propose(sim);
		break;
	case SIM_EV_CHANGE:
		sim_load_change(sim);
		break;
	case SIM_EV_TRANSFER:
		sim_load_transfer(sim);
		break;
	case SIM_EV_COMPACT:
		sim_load_compact(sim);
		break;
	case SIM_EV_READ:
		sim_load_read(sim);
		break;
	case SIM_EV_CRASH:
		crash_somebody(sim);
		break;
	case SIM_EV_LINKS:
		sim_net_links(sim);
		break;
	case SIM_EV_STALL:
		sim_disk_stall(sim);
		break;
	case SIM_EV_BREAK:
		sim_disk_break(sim);
		break;
	case SIM_EV_SWEEP:
		sim_load_sweep(sim);
		break;
	case SIM_EV_TRIANGLE:
		sim_load_triangle(sim);
		break;
	default:
		RT_ASSERT(false);
	}
	repeat(sim, kind);
}

static void happen_to_node(struct sim *sim, struct sim_event *event)
{
	struct sim_node *node = sim_node(sim, event->node);
	if (event->kind == SIM_EV_FRAME) {
		sim_net_frame(sim, event);
		return;
	}
	if (event->boot != node->boot || node->up == (event->kind == SIM_EV_START)) {
		return;
	}
	switch ((enum sim_event_kind)event->kind) {
	case SIM_EV_TIMER:
		tick(sim, event);
		break;
	case SIM_EV_ROUND:
		sim_disk_round(sim, event);
		break;
	case SIM_EV_DURABLE:
		sim_disk_durable(sim, event);
		break;
	case SIM_EV_LOG_READ:
		sim_disk_read_done(sim, event);
		break;
	case SIM_EV_KILL:
		if (!sim->healed || node->failing) {
			sim_crash(sim, node);
		}
		break;
	case SIM_EV_START:
		start_node(sim, node);
		break;
	case SIM_EV_CUT_OFF:
		if (!sim->healed) {
			sim_net_isolate(sim, node->id);
		}
		break;
	default:
		RT_ASSERT(false);
	}
}

static void begin(struct sim *sim)
{
	rt_random_seed(&sim->random, sim->seed);
	sim_shape(sim);
	SIM_TRACE(sim, "seed %" PRIu64 " is %s: %u nodes, %u voters, %u groups", sim->seed,
		sim->shape.name, sim->shape.nodes, sim->shape.voters, sim->shape.groups);
	for (uint32_t id = 1; id <= sim->shape.voters; id++) {
		RT_ASSERT(sh_members_put(&sim->first, id, true) == RT_OK);
	}
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		struct sim_node *node = sim_node(sim, id);
		node->id = id;
		node->clock_ppm = 1000000 - sim->shape.drift_ppm +
				  sim_below(sim, 2 * sim->shape.drift_ppm + 1);
		for (uint32_t g = 0; g < SIM_GROUPS; g++) {
			struct sim_replica *r = &node->replicas[g];
			r->sim = sim;
			r->node = node;
			r->group = g;
			r->view.first = r->image.first = 1;
		}
		start_node(sim, node);
	}
	for (int kind = SIM_EV_PROPOSE; kind < SIM_EV_REPEATING_END; kind++) {
		repeat(sim, (enum sim_event_kind)kind);
	}
	sim_at(sim, HEAL_AT, (struct sim_event){.kind = SIM_EV_HEAL});
	sim_at(sim, QUIET_AT, (struct sim_event){.kind = SIM_EV_QUIET});
}

static void end(struct sim *sim)
{
	sim_check_end(sim);
	sim->stats->seeds++;
	sim->stats->virtual_ms += sim->now / SIM_MS(1);
	sim->stats->events += sim->event_seq;
	for (uint32_t i = 0; i < sim->heap_count; i++) {
		free(sim->heap[i].data);
	}
	free(sim->heap);
	for (uint32_t id = 1; id <= sim->shape.nodes; id++) {
		struct sim_node *node = sim_node(sim, id);
		close_node(sim, node);
		sim_disk_done(node);
		sh_out_queue_done(&node->queue);
		for (uint32_t to = 1; to <= SIM_NODES; to++) {
			free(node->out[to].bytes);
		}
	}
	for (uint32_t g = 0; g < SIM_GROUPS; g++) {
		free(sim->truth[g].entries);
		free(sim->truth[g].sets);
		free(sim->truth[g].leader_of);
		free(sim->truth[g].ids);
	}
}

void sim_run(struct sim *sim)
{
	begin(sim);
	for (bool done = false; !done;) {
		struct sim_event event = next_event(sim);
		sim->now = event.at;
		if (sim->event_seq > EVENTS_MAX) {
			sim_fail(sim, "more than %u events: somebody is busy with nothing",
				EVENTS_MAX);
		}
		if (event.kind == SIM_EV_HEAL) {
			heal(sim);
		} else if (event.kind == SIM_EV_QUIET) {
			sim->quiet = true;
			done = poll(sim);
		} else if (event.kind == SIM_EV_POLL) {
			done = poll(sim);
		} else if (event.kind >= SIM_EV_PROPOSE) {
			happen_to_all(sim, (enum sim_event_kind)event.kind);
		} else {
			happen_to_node(sim, &event);
		}
		free(event.data);
	}
	end(sim);
}
