#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/log.h"
#include "sharding/join.h"
#include "sharding/node_core.h"

#define MIB              (1024u * 1024u)
#define CALLS_MAX        65536u
#define CLOSE_WAIT_NS    (2000u * UINT64_C(1000000))
#define HAND_OVER_MS     1000u
#define JOIN_MS          60000u
#define READY_LOOK_MS    20u
#define ASK_AGAIN_NS     (3000u * UINT64_C(1000000))
#define ASK_WITHIN_MS    2000u
#define READERS_DEFAULT  2u
#define MEMORY_DEFAULT   (256u * MIB)
#define IDLE_DEFAULT     120000u
#define SNAPSHOT_DEFAULT 50u

/* ---- steps on every worker, waited for ---- */
struct step {
	struct rt_post post; /* first */
	struct sh_node *node;
	void (*run)(struct sh_node *node, struct sh_region *region);
	bool async; /* the step itself says when it is done */
};

static void step_done(void *arg)
{
	struct sh_node *node = arg;
	uv_mutex_lock(&node->mutex);
	node->regions_busy--;
	uv_cond_broadcast(&node->changed);
	uv_mutex_unlock(&node->mutex);
}

static void run_step(struct rt_worker *worker, struct rt_post *post)
{
	struct step *step = (struct step *)post;
	struct sh_node *node = step->node;
	bool async = step->async; /* the step may be gone once run says it is done */
	step->run(node, rt_worker_data(worker));
	if (!async) {
		step_done(node);
	}
}

static void on_every_worker(
	struct sh_node *node, void (*run)(struct sh_node *, struct sh_region *), bool async)
{
	struct step steps[SH_WORKERS_MAX];
	node->regions_busy = node->worker_count;
	for (uint32_t i = 0; i < node->worker_count; i++) {
		steps[i] = (struct step){
			.post = {.run = run_step}, .node = node, .run = run, .async = async};
		rt_worker_post_always(rt_system_worker(node->system, i), &steps[i].post);
	}
	uv_mutex_lock(&node->mutex);
	while (node->regions_busy > 0) {
		uv_cond_wait(&node->changed, &node->mutex);
	}
	uv_mutex_unlock(&node->mutex);
}

/* ---- what regions report ---- */
void sh_node_answered(struct ac_host *host, struct ac_call *call)
{
	struct sh_node *node = host->owner;
	call->out.call_id = call->in.call_id;
	call->done(call);
	/* The call is the listener's again. The last one out wakes whoever closes. */
	if (atomic_fetch_sub_explicit(&node->calls, 1, memory_order_acq_rel) == 1 &&
		atomic_load_explicit(&node->closing, memory_order_acquire)) {
		uv_mutex_lock(&node->mutex);
		uv_cond_broadcast(&node->changed);
		uv_mutex_unlock(&node->mutex);
	}
}

static void drop_region(struct rt_worker *worker, struct rt_post *post)
{
	sh_region_drop(rt_worker_data(worker),
		"a write to the store failed; its outcome is unknown until restart");
	free(post);
}

static void store_failed(void *arg, rt_err err)
{
	struct sh_node *node = arg;
	if (atomic_exchange(&node->failed, true)) {
		return;
	}
	struct ps_store_stats stats;
	ps_store_stats(node->store, &stats);
	rt_log(RT_LOG_ERROR, "node", "the store failed (%s): %s", rt_err_text(err), stats.failure);
	for (uint32_t i = 0; i < node->worker_count; i++) {
		struct rt_post *post = calloc(1, sizeof(*post));
		RT_ASSERT(post != NULL);
		*post = (struct rt_post){.run = drop_region};
		rt_worker_post_always(rt_system_worker(node->system, i), post);
	}
	if (node->options.failed != NULL) {
		node->options.failed(node->options.arg, stats.failure);
	}
}

static void progressed(void *arg)
{
	sh_feed_progressed(((struct sh_node *)arg)->feed);
}

/* ---- the cluster ---- */
static void addresses(void *arg, const char **rpc, const char **peer)
{
	struct sh_node *node = arg;
	const char *url = atomic_load_explicit(&node->rpc, memory_order_acquire);
	*rpc = url == NULL ? "" : url;
	*peer = sh_peers_url(node->peers);
}

void sh_node_identity(
	const struct sh_node *node, const char **cluster, uint64_t *number, const char **peer)
{
	*cluster = node->self.cluster;
	*number = node->self.node;
	*peer = sh_peers_url(node->peers);
}

void sh_node_advertise(struct sh_node *node, const char *rpc)
{
	char *copy = strdup(rpc);
	RT_ASSERT(copy != NULL && atomic_load(&node->rpc) == NULL);
	atomic_store_explicit(&node->rpc, copy, memory_order_release);
}

/* A frame for another worker of this node. */
struct inner {
	struct rt_post post; /* first */
	uint64_t node;
	size_t size;
	uint8_t bytes[];
};

static void run_inner(struct rt_worker *worker, struct rt_post *post)
{
	struct inner *inner = (struct inner *)post;
	sh_region_frame(rt_worker_data(worker), inner->node, SH_LANE_CALL,
		rt_bytes_of(inner->bytes, inner->size));
	free(inner);
}

static void to_worker(void *arg, uint32_t worker, struct rt_bytes frame)
{
	struct sh_node *node = arg;
	struct inner *inner = malloc(sizeof(*inner) + frame.size);
	if (inner == NULL) {
		return; /* Tables and reports come again. */
	}
	*inner = (struct inner){.post.run = run_inner, .node = node->self.node, .size = frame.size};
	memcpy(inner->bytes, frame.data, frame.size);
	rt_worker_post_always(rt_system_worker(node->system, worker), &inner->post);
}

static void drain_peers(void *arg, struct rt_worker *worker)
{
	struct sh_node *node = arg;
	sh_peers_drain(node->peers, worker);
}

static bool has_left(const struct sh_node *node, const Troupe__Cluster__ClusterState *state)
{
	for (size_t i = 0; i < state->n_members; i++) {
		if (state->members[i]->node == node->self.node) {
			return state->members[i]->state == TROUPE__CLUSTER__NODE_STATE__NODE_LEFT;
		}
	}
	return false;
}

static void new_table(void *arg, const void *got, struct rt_bytes packed)
{
	struct sh_node *node = arg;
	const Troupe__Cluster__ClusterTable *table = got;
	(void)packed;
	if (node->peers != NULL) {
		sh_peers_members(node->peers, table->state->members, table->state->n_members);
	}
	atomic_store_explicit(&node->heard, true, memory_order_relaxed);
	if (has_left(node, table->state) && node->options.cluster.left != NULL) {
		node->options.cluster.left(node->options.arg);
	}
}

/* ---- open and close ---- */
static rt_err open_regions(struct sh_node *node, struct rt_errinfo *info)
{
	const struct sh_node_options *o = &node->options;
	node->regions = calloc(node->worker_count, sizeof(struct sh_region *));
	node->committed = calloc(node->shard_count + 1u, sizeof(*node->committed));
	if (node->regions == NULL || node->committed == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "regions");
	}
	bool coordinates = ac_registry_find(node->registry, rt_bytes_str("cluster")) != NULL;
	for (uint32_t i = 0; i < node->worker_count; i++) {
		struct sh_region_options region = {
			.host = {.worker = rt_system_worker(node->system, i),
				.registry = node->registry,
				.store = node->store,
				.writer = node->writer,
				.reader = node->reader,
				.stage = ps_indexer_stage(node->indexer, i),
				.memory_max = o->entity_memory_bytes / node->worker_count,
				.passivate_after_ms = o->passivate_after_ms,
				.snapshot_every = o->snapshot_every,
				.answered = sh_node_answered,
				.owner = node},
			.shard_count = node->shard_count,
			.worker_count = node->worker_count,
			.committed = node->committed,
			.calls = &node->calls,
			.pace = &node->pace,
			.node = node->self.node,
			.founder = node->self.founder,
			.election_ms = o->cluster.election_ms,
			.heartbeat_ms = o->cluster.heartbeat_ms,
			.seed = rt_clock_now_ns(),
			.instance = sh_peers_instance(node->peers),
			.wire = sh_peers_wire(node->peers),
			.coordinator = coordinates ? &node->coordinator : NULL,
			.addresses = addresses,
			.failed = store_failed,
			.progressed = progressed,
			.to_worker = to_worker,
			.drain = node->peers == NULL ? NULL : drain_peers,
			.table = new_table,
			.arg = node};
		rt_err err = sh_region_open(&region, &node->regions[i], info);
		if (err != RT_OK) {
			return err;
		}
	}
	node->status = (struct sh_status_source){.store = node->store,
		.system = node->system,
		.indexer = node->indexer,
		.regions = node->regions,
		.committed = node->committed,
		.calls = &node->calls,
		.failed = &node->failed,
		.opened_ns = node->opened_ns,
		.shard_count = node->shard_count,
		.worker_count = node->worker_count,
		.self = &node->self};
	node->hash = (struct sh_hash_source){.host = sh_region_host(node->regions[0]),
		.committed = node->committed,
		.group_count = node->shard_count + 1,
		.node = node->self.node,
		.answered = sh_node_answered};
	return sh_feed_open(
		sh_region_host(node->regions[0]), node->shard_count, node->committed, &node->feed);
}

static void start_region(struct sh_node *node, struct sh_region *region)
{
	sh_region_start(region, step_done, node);
}

/* A store that is not there yet becomes a member of a cluster that is. */
static rt_err join(struct sh_node *node, struct ps_store_options *store, struct sh_self *out,
	Troupe__Cluster__Joined **joined, struct rt_errinfo *info)
{
	const struct sh_node_cluster *cluster = &node->options.cluster;
	struct sh_self self = {0};
	sh_self_random(self.key);
	rt_log(RT_LOG_INFO, "node", "joining the cluster at %s", cluster->join);
	rt_err err = sh_join(cluster->join, self.key, cluster->name == NULL ? "" : cluster->name,
		cluster->join_ms == 0 ? JOIN_MS : cluster->join_ms, joined, info);
	if (err != RT_OK) {
		return err;
	}
	rt_log(RT_LOG_INFO, "node", "joined cluster %s as node %llu", (*joined)->cluster,
		(unsigned long long)(*joined)->node);
	self.node = (*joined)->node;
	memcpy(self.cluster, (*joined)->cluster, SH_ID_CHARS);
	store->create = true;
	store->shard_count = (*joined)->shard_count;
	err = ps_store_open(store, &node->store, info);
	*out = self;
	return err;
}

static rt_err open_store(
	struct sh_node *node, Troupe__Cluster__Joined **joined, struct rt_errinfo *info)
{
	const struct sh_node_options *o = &node->options;
	struct sh_self fresh = {0};
	struct ps_store_options store = {.dir = o->dir,
		.create = o->create && o->cluster.join == NULL,
		.shard_count = o->shard_count,
		.block_cache_bytes = o->block_cache_bytes,
		.free_space_low_bytes = o->free_space_low_bytes,
		.leave_tail = true};
	rt_err err = ps_store_open(&store, &node->store, info);
	bool absent = err == RT_E_NOTFOUND && o->cluster.join != NULL && o->create;
	if (absent) {
		err = join(node, &store, &fresh, joined, info);
	}
	if (err == RT_OK) {
		err = sh_self_open(node->store, absent ? &fresh : NULL, &node->self, info);
	}
	if (err == RT_OK && !absent && o->cluster.join != NULL) {
		rt_log(RT_LOG_INFO, "node", "this data is node %llu of cluster %s: nothing to join",
			(unsigned long long)node->self.node, node->self.cluster);
	}
	return err;
}

/* Whom it was told of last. */
static void read_table(struct sh_node *node)
{
	struct rt_bytes row = {0};
	Troupe__Cluster__ClusterTable *table = NULL;
	if (ps_store_meta_get(node->store, rt_bytes_str("table"), &row, NULL) != RT_OK) {
		return;
	}
	if (pr_guard_check(&troupe__cluster__cluster_table__descriptor, row, NULL) == RT_OK) {
		table = troupe__cluster__cluster_table__unpack(NULL, row.size, row.data);
	}
	if (table != NULL && table->state != NULL) {
		sh_peers_members(node->peers, table->state->members, table->state->n_members);
	}
	if (table != NULL) {
		troupe__cluster__cluster_table__free_unpacked(table, NULL);
	}
	free((void *)(uintptr_t)row.data);
}

static void peers_refused(void *arg, const char *why)
{
	struct sh_node *node = arg;
	if (node->options.cluster.refused != NULL) {
		node->options.cluster.refused(node->options.arg, why);
	}
}

static void peers_left(void *arg)
{
	struct sh_node *node = arg;
	if (node->options.cluster.left != NULL) {
		node->options.cluster.left(node->options.arg);
	}
}

static rt_err open_peers(
	struct sh_node *node, const Troupe__Cluster__Joined *joined, struct rt_errinfo *info)
{
	const struct sh_node_cluster *cluster = &node->options.cluster;
	snprintf(node->name, sizeof(node->name), "%s", cluster->name == NULL ? "" : cluster->name);
	if (node->name[0] == '\0') {
		snprintf(node->name, sizeof(node->name), "node%llu",
			(unsigned long long)node->self.node);
	}
	node->coordinator = (struct sh_coordinator_options){.cluster = node->self.cluster,
		.key = node->self.key,
		.name = node->name,
		.replication = cluster->replication,
		.dead_after_ms = cluster->dead_after_ms};
	if (cluster->listen == NULL) {
		return RT_OK;
	}
	const struct sh_peers_options options = {.self = node->self,
		.listen = cluster->listen,
		.advertise = cluster->advertise,
		.system = node->system,
		.shard_count = node->shard_count,
		.refused = peers_refused,
		.left = peers_left,
		.arg = node};
	rt_err err = sh_peers_open(&options, &node->peers, info);
	node->coordinator.peer = err == RT_OK ? sh_peers_url(node->peers) : NULL;
	if (err == RT_OK && joined != NULL) {
		sh_peers_members(node->peers, joined->members, joined->n_members);
	} else if (err == RT_OK) {
		read_table(node);
	}
	return err;
}

static rt_err open_threads(struct sh_node *node, struct rt_errinfo *info)
{
	const struct sh_node_options *o = &node->options;
	/* A worker waits for clients and for the disk, which take longer than a spin pays for, and
	 * the writer and nng's threads want the core. */
	struct rt_system_options system = {.workers = o->workers, .spin_us = RT_SPIN_NONE};
	rt_err err = rt_system_new(&system, &node->system, info);
	if (err != RT_OK) {
		return err;
	}
	node->worker_count = rt_system_worker_count(node->system);
	if (node->worker_count > SH_WORKERS_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "more than %u workers", SH_WORKERS_MAX);
	}
	err = ps_indexer_start(node->store, node->worker_count, &node->indexer, info);
	if (err == RT_OK) {
		err = ps_writer_start(node->store, node->system, &node->writer, info);
	}
	if (err == RT_OK) {
		err = ps_reader_start(node->store, node->system, o->readers, &node->reader, info);
	}
	return err;
}

static rt_err open_parts(struct sh_node *node, struct rt_errinfo *info)
{
	Troupe__Cluster__Joined *joined = NULL;
	rt_err err = open_store(node, &joined, info);
	if (err == RT_OK) {
		node->shard_count = ps_store_shard_count(node->store);
		err = open_threads(node, info);
	}
	if (err == RT_OK) {
		err = open_peers(node, joined, info);
	}
	if (joined != NULL) {
		troupe__cluster__joined__free_unpacked(joined, NULL);
	}
	if (err == RT_OK) {
		err = open_regions(node, info);
	}
	if (err == RT_OK) {
		err = rt_system_start(node->system, info);
	}
	if (err == RT_OK) {
		node->running = true;
		on_every_worker(node, start_region, true);
		if (node->failed) {
			err = rt_errinfo_set(info, RT_E_IO, "the first write to the store failed");
		}
	}
	return err;
}

static void set_defaults(struct sh_node_options *o)
{
	o->readers = o->readers == 0 ? READERS_DEFAULT : o->readers;
	o->entity_memory_bytes =
		o->entity_memory_bytes == 0 ? MEMORY_DEFAULT : o->entity_memory_bytes;
	o->passivate_after_ms = o->passivate_after_ms == 0 ? IDLE_DEFAULT : o->passivate_after_ms;
	o->snapshot_every = o->snapshot_every == 0 ? SNAPSHOT_DEFAULT : o->snapshot_every;
	o->calls_max = o->calls_max == 0 ? CALLS_MAX : o->calls_max;
}

rt_err sh_node_open(const struct sh_node_options *options, const struct ac_registry *registry,
	struct sh_node **out, struct rt_errinfo *info)
{
	struct sh_node *node = calloc(1, sizeof(*node));
	if (node == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "node");
	}
	node->options = *options;
	node->registry = registry;
	node->opened_ns = rt_clock_now_ns();
	node->asked_ns = node->opened_ns;
	set_defaults(&node->options);
	uv_mutex_init(&node->mutex);
	uv_cond_init(&node->changed);
	rt_err err = open_parts(node, info);
	if (err != RT_OK) {
		sh_node_close(node);
		return err;
	}
	*out = node;
	return RT_OK;
}

static void drop_rest(struct sh_node *node, struct sh_region *region)
{
	(void)node;
	sh_region_drop(region, "the node is shutting down");
}

static void hand_over(struct sh_node *node, struct sh_region *region)
{
	sh_region_hand_over(region, HAND_OVER_MS, step_done, node);
}

void sh_node_hand_over(struct sh_node *node)
{
	if (node != NULL && node->running && !node->failed && !node->handed) {
		node->handed = true;
		on_every_worker(node, hand_over, true);
	}
}

static void stop_region(struct sh_node *node, struct sh_region *region)
{
	(void)node;
	sh_region_stop(region);
}

/* Long polls are cut short so that they do not hold up the close. */
static void cut_waits(struct sh_node *node, struct sh_region *region)
{
	if (region == node->regions[0]) {
		sh_feed_stop(node->feed);
	}
	sh_region_cut_waits(region);
}

bool sh_node_drain(struct sh_node *node)
{
	sh_node_hand_over(node);
	if (node == NULL || atomic_exchange(&node->closing, true) || !node->running) {
		return true;
	}
	on_every_worker(node, cut_waits, false);
	uint64_t end = rt_clock_now_ns() + CLOSE_WAIT_NS;
	uv_mutex_lock(&node->mutex);
	while (atomic_load(&node->calls) > 0 && rt_clock_now_ns() < end) {
		uv_cond_timedwait(&node->changed, &node->mutex, 50u * UINT64_C(1000000));
	}
	uv_mutex_unlock(&node->mutex);
	if (atomic_load(&node->calls) > 0) {
		rt_log(RT_LOG_WARN, "node", "%llu calls were still under way",
			(unsigned long long)atomic_load(&node->calls));
	}
	return atomic_load(&node->calls) == 0;
}

void sh_node_close(struct sh_node *node)
{
	if (node == NULL) {
		return;
	}
	(void)sh_node_drain(node);
	/* Peers go on talking: the regions must be silent before the writer can end. */
	if (node->running) {
		on_every_worker(node, drop_rest, false);
	}
	if (node->writer != NULL) {
		ps_writer_stop(node->writer);
	}
	if (node->reader != NULL) {
		ps_reader_stop(node->reader);
	}
	if (node->running) {
		on_every_worker(node, stop_region, false);
	}
	if (node->indexer != NULL) {
		ps_indexer_stop(node->indexer);
	}
	if (node->running) {
		rt_system_stop(node->system);
	}
	sh_peers_close(node->peers);
	for (uint32_t i = 0; node->regions != NULL && i < node->worker_count; i++) {
		sh_region_free(node->regions[i]);
	}
	sh_feed_free(node->feed);
	rt_system_free(node->system);
	sh_peers_free(node->peers);
	ps_store_close(node->store);
	free(atomic_load(&node->rpc));
	free(node->regions);
	free(node->committed);
	uv_cond_destroy(&node->changed);
	uv_mutex_destroy(&node->mutex);
	free(node);
}

struct status_wait {
	uv_sem_t made;
	struct pr_text *out;
};

static void status_waited(void *arg, struct pr_text *text)
{
	struct status_wait *wait = arg;
	*wait->out = *text;
	uv_sem_post(&wait->made);
}

void sh_node_status(struct sh_node *node, struct pr_text *out)
{
	struct status_wait wait = {.out = out};
	uv_sem_init(&wait.made, 0);
	sh_status_start(&node->status, status_waited, &wait);
	uv_sem_wait(&wait.made);
	uv_sem_destroy(&wait.made);
}

/* ---- is it of use yet? ---- */
struct ready {
	struct rt_post post; /* first */
	uv_sem_t looked;
	uint32_t unknown; /* groups without a leader that this worker knows of */
};

static void look(struct rt_worker *worker, struct rt_post *post)
{
	struct ready *ready = (struct ready *)post;
	ready->unknown = sh_region_unknown(rt_worker_data(worker));
	uv_sem_post(&ready->looked);
}

static uint32_t unknown_leaders(struct sh_node *node)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i < node->worker_count; i++) {
		struct ready ready = {.post.run = look};
		uv_sem_init(&ready.looked, 0);
		rt_worker_post_always(rt_system_worker(node->system, i), &ready.post);
		uv_sem_wait(&ready.looked);
		uv_sem_destroy(&ready.looked);
		sum += ready.unknown;
	}
	return sum;
}

/* A member that has just moved is told of by where it was. Until it was heard of, and of everything
 * else, a node that joined asks again who there is. */
static void ask_again(struct sh_node *node)
{
	const struct sh_node_cluster *cluster = &node->options.cluster;
	uint64_t now_ns = rt_clock_now_ns();
	if (cluster->join == NULL || node->peers == NULL ||
		atomic_load_explicit(&node->heard, memory_order_relaxed) ||
		now_ns - node->asked_ns < ASK_AGAIN_NS) {
		return;
	}
	Troupe__Cluster__Joined *joined = NULL;
	struct rt_errinfo info = {0};
	rt_err err =
		sh_join(cluster->join, node->self.key, node->name, ASK_WITHIN_MS, &joined, &info);
	node->asked_ns = rt_clock_now_ns();
	if (err == RT_OK) {
		sh_peers_members(node->peers, joined->members, joined->n_members);
		troupe__cluster__joined__free_unpacked(joined, NULL);
	} else {
		rt_log(RT_LOG_WARN, "node", "no member is connected yet: %s", info.text);
	}
}

bool sh_node_wait_ready(struct sh_node *node, uint32_t timeout_ms)
{
	ask_again(node);
	uint64_t end = rt_clock_now_ns() + timeout_ms * UINT64_C(1000000);
	while (unknown_leaders(node) > 0) {
		if (rt_clock_now_ns() >= end) {
			return false;
		}
		uv_sleep(READY_LOOK_MS);
	}
	return true;
}
