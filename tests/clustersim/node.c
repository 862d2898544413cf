/* A node: what sharding/node.c does for a region, on simulated workers and a disk in memory. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "sharding/cluster.pb-c.h"
#include "tests/clustersim/clustersim.h"

#define SETTLE_MAX 100000u
#define BURST_MAX  40u /* slices in a row before the world goes on */
#define LEAVE_MS   1500u

/* ---- clocks ---- */
uint64_t cs_node_clock_ns(const struct cs_node *node)
{
	return node->clock_offset_ns + node->cs->now * node->clock_ppm / 1000;
}

static uint64_t now_ns(void *arg)
{
	return cs_node_clock_ns(arg);
}

/* When the node's clock shows that. */
static uint64_t when(const struct cs_node *node, uint64_t clock_ms)
{
	uint64_t ns = clock_ms * 1000000;
	if (clock_ms >= UINT64_MAX / 1000000) {
		return CS_NEVER;
	}
	if (ns <= cs_node_clock_ns(node)) {
		return node->cs->now;
	}
	return ((ns - node->clock_offset_ns) * 1000 + node->clock_ppm - 1) / node->clock_ppm;
}

/* ---- posts ---- */
/* Lives in one allocation with what it brings. */
struct box {
	struct rt_post post; /* first */
	struct cs_node *node;
	void (*run)(struct box *box, struct sh_region *region);
	uint64_t from;
	enum sh_lane lane;
	bool up;
	struct ac_call *call;
	size_t size;
	uint8_t bytes[];
};

static void open_box(struct rt_worker *worker, struct rt_post *post)
{
	struct box *box = (struct box *)post;
	box->run(box, rt_worker_data(worker));
	free(box);
}

static struct box *box_new(
	struct cs_node *node, void (*run)(struct box *, struct sh_region *), struct rt_bytes bytes)
{
	struct box *box = calloc(1, sizeof(*box) + bytes.size);
	RT_ASSERT(box != NULL);
	box->post.run = open_box;
	box->node = node;
	box->run = run;
	box->size = bytes.size;
	if (bytes.size > 0) {
		memcpy(box->bytes, bytes.data, bytes.size);
	}
	return box;
}

static void post(struct box *box, uint32_t worker)
{
	struct cs_node *node = box->node;
	rt_worker_post_always(rt_system_worker(rt_sim_system(node->sim), worker), &box->post);
	if (node->cs->now < node->wake_at) {
		node->wake_at = node->cs->now;
	}
	if (node->wake_at < node->paused_until) {
		node->wake_at = node->paused_until;
	}
}

static void give_frame(struct box *box, struct sh_region *region)
{
	sh_region_frame(region, box->from, box->lane, rt_bytes_of(box->bytes, box->size));
}

void cs_node_frame(struct cs_node *node, const struct cs_frame *frame)
{
	struct rt_bytes bytes = rt_bytes_of(frame->bytes, frame->size);
	uint64_t workers = sh_region_frame_workers(
		frame->lane, bytes, node->cs->shape.shards, node->worker_count);
	CS_CHECK(
		node->cs, workers != 0, "n%u: a frame of n%u is for nobody", node->id, frame->from);
	for (uint32_t i = 0; i < node->worker_count; i++) {
		if ((workers >> i & 1) != 0) {
			struct box *box = box_new(node, give_frame, bytes);
			box->from = frame->from;
			box->lane = frame->lane;
			post(box, i);
		}
	}
}

static void give_link(struct box *box, struct sh_region *region)
{
	sh_region_link(region, box->from, box->up);
}

void cs_node_link(struct cs_node *node, uint32_t to, bool up)
{
	for (uint32_t i = 0; node->up && i < node->worker_count; i++) {
		struct box *box = box_new(node, give_link, (struct rt_bytes){0});
		box->from = to;
		box->up = up;
		post(box, i);
	}
}

static void give_call(struct box *box, struct sh_region *region)
{
	sh_region_call(region, box->call);
}

void cs_node_call(struct cs_node *node, struct ac_call *call)
{
	sh_region_address(call, node->cs->shape.shards);
	node->calls++;
	struct box *box = box_new(node, give_call, (struct rt_bytes){0});
	box->call = call;
	post(box, call->shard % node->worker_count);
}

/* ---- what regions report ---- */
static void answered(struct ac_host *host, struct ac_call *call)
{
	struct cs_node *node = host->owner;
	call->out.call_id = call->in.call_id;
	node->calls--;
	call->done(call);
}

static void failed(void *arg, rt_err err)
{
	struct cs_node *node = arg;
	CS_TRACE(node->cs, "n%u its store failed: %s", node->id, rt_err_name(err));
	if (node->muted) {
		return;
	}
	CS_CHECK(node->cs, mem_disk_failed(node->disk), "n%u gives up with %s, its disk is well",
		node->id, rt_err_name(err));
	node->failing = true;
	cs_at(node->cs, node->cs->now + cs_below(node->cs, CS_MS(50)),
		(struct cs_event){.kind = CS_EV_KILL, .node = node->id, .boot = node->boot});
}

static void progressed(void *arg)
{
	(void)arg;
}

static void to_worker(void *arg, uint32_t worker, struct rt_bytes frame)
{
	struct cs_node *node = arg;
	struct box *box = box_new(node, give_frame, frame);
	box->from = node->id;
	box->lane = SH_LANE_CALL;
	post(box, worker);
}

static void dial_members(struct cs_node *node, const Troupe__Cluster__ClusterState *state)
{
	for (size_t i = 0; i < state->n_members; i++) {
		if (state->members[i]->state != TROUPE__CLUSTER__NODE_STATE__NODE_LEFT) {
			cs_net_want(node, (uint32_t)state->members[i]->node);
		}
	}
}

static void take_table(void *arg, const void *table, struct rt_bytes packed)
{
	(void)packed;
	const Troupe__Cluster__ClusterTable *unpacked = table;
	dial_members(arg, unpacked->state);
}

static void addresses(void *arg, const char **rpc, const char **peer)
{
	struct cs_node *node = arg;
	*rpc = node->rpc;
	*peer = node->peer;
}

static void started(void *arg)
{
	(void)arg;
}

/* ---- open ---- */
static void give_start(struct box *box, struct sh_region *region)
{
	sh_region_start(region, started, box->node);
}

static void open_region(struct cs_node *node, uint32_t i)
{
	struct cs *cs = node->cs;
	struct sh_region_options options = {
		.host = {.worker = rt_system_worker(rt_sim_system(node->sim), i),
			.registry = cs->registry,
			.store = node->store,
			.writer = node->writer,
			.reader = node->reader,
			.stage = ps_indexer_stage(node->indexer, i),
			.memory_max = UINT64_MAX,
			.passivate_after_ms = cs->shape.passivate_ms,
			.snapshot_every = cs->shape.snapshot_every,
			.answered = answered,
			.owner = node},
		.shard_count = cs->shape.shards,
		.worker_count = node->worker_count,
		.committed = node->committed,
		.calls = &node->calls,
		.node = node->id,
		.founder = node->id == 1,
		.election_ms = cs->shape.election_ms,
		.heartbeat_ms = cs->shape.heartbeat_ms,
		.mark_every = cs->shape.mark_every,
		.cache_bytes = cs->shape.cache_bytes,
		.seed = rt_random_next(&cs->random),
		.instance = node->instance,
		.wire = &node->wire,
		.coordinator = &node->coordinator,
		.addresses = addresses,
		.failed = failed,
		.progressed = progressed,
		.to_worker = to_worker,
		.table = take_table,
		.arg = node};
	struct rt_errinfo info = {0};
	rt_err err = sh_region_open(&options, &node->regions[i], &info);
	CS_CHECK(cs, err == RT_OK, "n%u cannot open: %s", node->id, info.text);
}

static void open_parts(struct cs_node *node)
{
	struct cs *cs = node->cs;
	struct rt_errinfo info = {0};
	/* Another process may have been given another number of them. */
	node->worker_count = 1 + (uint32_t)cs_below(cs, cs->shape.workers);
	RT_ASSERT(node->worker_count <= CS_WORKERS);
	struct rt_system_options system = {
		.workers = node->worker_count, .mailbox_cap = cs->shape.mailbox};
	struct ps_store_options store = {.dir = node->name,
		.create = true,
		.shard_count = cs->shape.shards,
		.leave_tail = true};
	node->world = (struct rt_sim_world){now_ns, node, &cs->random};
	rt_err err = rt_sim_join(&system, &node->world, &node->sim, &info);
	RT_ASSERT(err == RT_OK);
	err = ps_store_open(&store, &node->store, &info);
	CS_CHECK(cs, err == RT_OK, "n%u cannot open its store: %s", node->id, info.text);
	err = ps_indexer_start(node->store, node->worker_count, &node->indexer, &info);
	RT_ASSERT(err == RT_OK);
	err = ps_writer_start(node->store, rt_sim_system(node->sim), &node->writer, &info);
	RT_ASSERT(err == RT_OK);
	err = ps_reader_start(node->store, rt_sim_system(node->sim), 2, &node->reader, &info);
	RT_ASSERT(err == RT_OK);
}

/* From the table that was kept, so that a node which starts knows whom to look for. */
static void dial_known(struct cs_node *node)
{
	struct rt_bytes row = {0};
	if (ps_store_meta_get(node->store, rt_bytes_str("table"), &row, NULL) == RT_OK) {
		Troupe__Cluster__ClusterTable *table =
			troupe__cluster__cluster_table__unpack(NULL, row.size, row.data);
		CS_CHECK(node->cs, table != NULL, "n%u has kept a table that is none", node->id);
		dial_members(node, table->state);
		troupe__cluster__cluster_table__free_unpacked(table, NULL);
		free((void *)(uintptr_t)row.data);
	}
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		if ((node->joined_with >> id & 1) != 0) {
			cs_net_want(node, id);
		}
	}
}

void cs_node_make(struct cs *cs, uint32_t id, const char *key)
{
	struct cs_node *node = &cs->nodes[id];
	RT_ASSERT(!node->exists);
	node->exists = true;
	snprintf(node->name, sizeof(node->name), "n%u", id);
	snprintf(node->key, sizeof(node->key), "%s", key);
	snprintf(node->rpc, sizeof(node->rpc), "tcp://10.0.0.%u:1", id);
	snprintf(node->peer, sizeof(node->peer), "tcp://10.0.0.%u:2", id);
	node->clock_ppm =
		1000000 - cs->shape.drift_ppm + cs_below(cs, 2 * (uint64_t)cs->shape.drift_ppm + 1);
	node->shape = cs->shape.disk;
	struct mem_disk_options options = {.name = node->name,
		.now_us = &cs->now,
		.random = &cs->random,
		.shape = &node->shape};
	node->disk = mem_disk_new(&options);
	node->wire = (struct sh_wire){cs_net_send, cs_net_up, node};
	node->coordinator = (struct sh_coordinator_options){.cluster = cs->cluster,
		.key = id == 1 ? node->key : NULL,
		.name = node->name,
		.rpc = node->rpc,
		.peer = node->peer,
		.replication = cs->shape.replication,
		.dead_after_ms = cs->shape.dead_after_ms};
}

void cs_node_start(struct cs_node *node)
{
	struct cs *cs = node->cs;
	node->boot++;
	node->up = true;
	node->muted = node->failing = node->leaving = false;
	node->clock_offset_ns = UINT64_C(1000000000) * (1 + cs_below(cs, 1000000));
	node->paused_until = 0;
	node->wake_at = cs->now;
	node->calls = 0;
	node->instance = rt_random_next(&cs->random);
	cs->stats->restarts += node->boot > 1;
	CS_TRACE(cs, "n%u starts, its clock is %" PRIu64, node->id, cs_node_clock_ns(node));
	cs_clock_node = node;
	open_parts(node);
	for (uint32_t i = 0; i < node->worker_count; i++) {
		open_region(node, i);
	}
	cs_check_opened(node);
	for (uint32_t i = 0; i < node->worker_count; i++) {
		post(box_new(node, give_start, (struct rt_bytes){0}), i);
	}
	cs_net_started(node);
	dial_known(node);
	cs_clock_node = NULL;
}

/* ---- turns ---- */
static void plan(struct cs_node *node, bool settled)
{
	struct cs *cs = node->cs;
	uint64_t at = mem_disk_next_us(node->disk);
	uint64_t own =
		settled ? when(node, rt_sim_next_ms(node->sim)) : cs->now + 1 + cs_below(cs, 50);
	at = own < at ? own : at;
	at = at < node->paused_until ? node->paused_until : at;
	node->wake_at = at;
}

static void end_leave(struct cs_node *node);

void cs_node_run(struct cs_node *node)
{
	struct cs *cs = node->cs;
	if (node->paused_until > cs->now) {
		node->wake_at = node->paused_until;
		return;
	}
	cs_clock_node = node;
	mem_disk_run(node->disk);
	bool settled = rt_sim_settle(node->sim, 1 + cs_below(cs, BURST_MAX));
	cs->stats->slices++;
	if (!node->failing) {
		cs_check_node(node);
	}
	plan(node, settled);
	cs_clock_node = NULL;
	if (node->leaving && node->handing == 0 && !mem_disk_busy(node->disk) && settled) {
		end_leave(node);
	}
}

/* ---- close ---- */
static void give_drop(struct box *box, struct sh_region *region)
{
	(void)box;
	sh_region_drop(region, "the node is shutting down");
}

static void give_stop(struct box *box, struct sh_region *region)
{
	(void)box;
	sh_region_stop(region);
}

static void give_all(struct cs_node *node, void (*run)(struct box *, struct sh_region *))
{
	for (uint32_t i = 0; i < node->worker_count; i++) {
		post(box_new(node, run, (struct rt_bytes){0}), i);
	}
	bool settled = rt_sim_settle(node->sim, SETTLE_MAX);
	RT_ASSERT(settled);
}

static void take_apart(struct cs_node *node)
{
	cs_clock_node = node;
	give_all(node, give_drop);
	give_all(node, give_stop);
	ps_reader_stop(node->reader);
	ps_writer_stop(node->writer);
	ps_indexer_stop(node->indexer);
	for (uint32_t i = 0; i < node->worker_count; i++) {
		sh_region_free(node->regions[i]);
		node->regions[i] = NULL;
	}
	rt_sim_free(node->sim);
	node->sim = NULL;
	ps_store_close(node->store);
	node->up = node->leaving = false;
	node->wake_at = CS_NEVER;
	memset(node->seen, 0, sizeof(node->seen));
	cs_clock_node = NULL;
	cs_net_down(node);
}

void cs_node_crash(struct cs_node *node)
{
	CS_TRACE(node->cs, "n%u CRASHES", node->id);
	node->cs->stats->crashes++;
	node->muted = true;
	mem_disk_crash(node->disk);
	take_apart(node);
}

static void handed(void *arg)
{
	struct cs_node *node = arg;
	node->handing--;
}

static void give_hand_over(struct box *box, struct sh_region *region)
{
	sh_region_cut_waits(region);
	sh_region_hand_over(region, LEAVE_MS, handed, box->node);
}

void cs_node_leave(struct cs_node *node)
{
	if (node->leaving || node->failing) {
		return;
	}
	CS_TRACE(node->cs, "n%u is asked to stop", node->id);
	node->cs->stats->leaves++;
	node->leaving = true;
	node->handing = node->worker_count;
	for (uint32_t i = 0; i < node->worker_count; i++) {
		post(box_new(node, give_hand_over, (struct rt_bytes){0}), i);
	}
}

/* What still waits is told so, like a node that stops does. */
static void end_leave(struct cs_node *node)
{
	struct cs *cs = node->cs;
	CS_TRACE(cs, "n%u stops", node->id);
	cs_clock_node = node;
	give_all(node, give_drop);
	node->muted = true;
	if (mem_disk_busy(node->disk)) {
		mem_disk_crash(node->disk); /* Somebody loses patience. */
	}
	take_apart(node);
	cs_at(cs, cs->now + 1 + cs_below(cs, cs->shape.down_max),
		(struct cs_event){.kind = CS_EV_START, .node = node->id, .boot = node->boot});
}

void cs_node_free(struct cs_node *node)
{
	if (node->up) {
		node->muted = true;
		mem_disk_crash(node->disk);
		take_apart(node);
	}
	mem_disk_free(node->disk);
	node->disk = NULL;
}

const struct sh_replica *cs_node_replica(const struct cs_node *node, uint32_t group)
{
	return sh_region_replica(node->regions[group % node->worker_count], group);
}

bool cs_node_serves(const struct cs_node *node, uint32_t group)
{
	return sh_region_serves(node->regions[group % node->worker_count], group);
}
