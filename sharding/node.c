#include "sharding/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "sharding/feed.h"
#include "sharding/hash.h"
#include "sharding/join.h"
#include "sharding/peers.h"
#include "sharding/region_core.h"
#include "sharding/status.h"

#define MIB              (1024u * 1024u)
#define CALLS_MAX        65536u
#define CLOSE_WAIT_NS    (2000u * UINT64_C(1000000))
#define HAND_OVER_MS     1000u
#define JOIN_MS          60000u
#define READY_LOOK_MS    20u
#define WORKERS_MAX      64u
#define READERS_DEFAULT  2u
#define MEMORY_DEFAULT   (256u * MIB)
#define IDLE_DEFAULT     120000u
#define SNAPSHOT_DEFAULT 50u

struct sh_node {
	struct sh_node_options options;
	const struct ac_registry *registry;
	struct ps_store *store;
	struct rt_system *system;
	struct ps_writer *writer;
	struct ps_indexer *indexer;
	struct ps_reader *reader;
	uint32_t shard_count, worker_count;
	struct sh_region **regions;
	struct sh_feed *feed;
	_Atomic uint64_t *committed;
	uint64_t opened_ns;
	uv_mutex_t mutex;
	uv_cond_t changed; /* regions started, calls drained, steps of close */
	uint32_t regions_busy;
	_Atomic uint64_t calls; /* under way */
	_Atomic bool closing, failed;
	bool running, handed;
	struct sh_status_source status;
	struct sh_self self;
	char name[40];
	_Atomic(char *) rpc;    /* URL for clients; never freed before the end */
	struct sh_peers *peers; /* NULL: a node alone */
	struct sh_hash_source hash;
	struct sh_coordinator_options coordinator;
};

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
	struct step steps[WORKERS_MAX];
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
static void answered(struct ac_host *host, struct ac_call *call)
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
	if (has_left(node, table->state) && node->options.cluster.left != NULL) {
		node->options.cluster.left(node->options.arg);
	}
}

/* ---- calls ---- */
static void refuse(struct sh_node *node, struct ac_call *call)
{
	(void)node;
	call->out.call_id = call->in.call_id;
	call->done(call);
}

/* A random id for a command that came without one. */
static void make_command_id(struct ac_call *call)
{
	static _Thread_local struct rt_random random;
	static _Thread_local bool seeded;
	if (!seeded) {
		uint64_t seed = rt_clock_now_ns();
		(void)uv_random(NULL, NULL, &seed, sizeof(seed), 0, NULL);
		rt_random_seed(&random, seed);
		seeded = true;
	}
	uint64_t words[2] = {rt_random_next(&random), rt_random_next(&random)};
	memcpy(call->made_id, words, sizeof(words));
	call->in.command_id = rt_bytes_of(call->made_id, sizeof(call->made_id));
	call->out.command_id = call->in.command_id;
}

/* False: answered already. */
static bool check_entity_call(struct sh_node *node, struct ac_call *call)
{
	if (call->in.kind != TROUPE__KIND__KIND_CLUSTER && !sh_calls_check(node->registry, call)) {
		refuse(node, call);
		return false;
	}
	if (call->in.kind == TROUPE__KIND__KIND_COMMAND && call->in.command_id.size == 0) {
		make_command_id(call);
	}
	if (call->in.kind == TROUPE__KIND__KIND_CLUSTER) {
		call->in.type = call->in.id = rt_bytes_str("cluster");
	}
	sh_region_address(call, node->shard_count);
	return true;
}

/* Needs no entity: answered on this thread or on worker 0. False: it does need one. */
static bool answer_at_once(struct sh_node *node, struct ac_call *call)
{
	struct pr_text text = {0};
	const struct ac_type *type = NULL;
	switch (call->in.kind) {
	case TROUPE__KIND__KIND_PING:
		refuse(node, call);
		return true;
	case TROUPE__KIND__KIND_TYPES:
		if (call->in.type.size > 0) {
			type = ac_registry_find(node->registry, call->in.type);
			if (type == NULL) {
				ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND,
					"no aggregate type \"%.*s\" here", (int)call->in.type.size,
					(const char *)call->in.type.data);
				refuse(node, call);
				return true;
			}
		}
		ac_registry_describe(node->registry, type, call->in.json, &text);
		ac_call_payload_take(call, (uint8_t *)text.data, text.size);
		refuse(node, call);
		return true;
	default:
		return false;
	}
}

static void status_made(void *arg, struct pr_text *text)
{
	struct ac_call *call = arg;
	struct sh_node *node = call->entity;
	call->out.code = TROUPE__CODE__CODE_OK;
	ac_call_payload_take(call, (uint8_t *)text->data, text->size);
	answered(sh_region_host(node->regions[0]), call);
}

static void take_chain(struct rt_worker *worker, struct rt_post *post)
{
	struct sh_region *region = rt_worker_data(worker);
	struct ac_call *call = RT_CONTAINER(post, struct ac_call, post);
	while (call != NULL) {
		struct ac_call *next = call->next;
		call->next = NULL;
		sh_region_call(region, call);
		call = next;
	}
}

static void take_feed(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	struct ac_call *call = RT_CONTAINER(post, struct ac_call, post);
	sh_feed_call(call->entity, call);
}

/* Over the node's limits, or not serving: answered; true when it may go on. */
static bool admit(struct sh_node *node, struct ac_call *call)
{
	if (atomic_load_explicit(&node->closing, memory_order_acquire) ||
		atomic_load_explicit(&node->failed, memory_order_relaxed)) {
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "the node is %s",
			node->closing ? "shutting down" : "stopped after a failed write");
		refuse(node, call);
		return false;
	}
	if (atomic_fetch_add_explicit(&node->calls, 1, memory_order_relaxed) >=
		node->options.calls_max) {
		atomic_fetch_sub_explicit(&node->calls, 1, memory_order_relaxed);
		call->out.retry_after_ms = 20;
		ac_call_fail(call, TROUPE__CODE__CODE_BUSY, "%u calls are under way",
			node->options.calls_max);
		refuse(node, call);
		return false;
	}
	return true;
}

static void unadmit(struct sh_node *node)
{
	atomic_fetch_sub_explicit(&node->calls, 1, memory_order_relaxed);
}

static bool is_hash(const struct ac_call *call)
{
	return call->in.kind == TROUPE__KIND__KIND_CLUSTER &&
	       rt_bytes_equal(call->in.name, rt_bytes_str("hash"));
}

void sh_node_submit(struct sh_node *node, struct ac_call *chain)
{
	struct ac_call *first[WORKERS_MAX] = {0}, *last[WORKERS_MAX];
	for (struct ac_call *call = chain, *next; call != NULL; call = next) {
		next = call->next;
		call->next = NULL;
		call->heap = NULL;
		call->out = (struct pr_answer){0};
		if (answer_at_once(node, call) || !admit(node, call)) {
			continue;
		}
		uint32_t worker = 0;
		if (call->in.kind == TROUPE__KIND__KIND_FEED) {
			call->entity = node->feed;
			call->post = (struct rt_post){.run = take_feed};
			rt_worker_post_always(rt_system_worker(node->system, 0), &call->post);
			continue;
		}
		if (call->in.kind == TROUPE__KIND__KIND_STATUS) {
			call->entity = node;
			sh_status_start(&node->status, status_made, call);
			continue;
		}
		if (is_hash(call)) {
			sh_hash_start(&node->hash, call);
			continue;
		}
		if (call->in.kind > TROUPE__KIND__KIND_STATE &&
			call->in.kind != TROUPE__KIND__KIND_CLUSTER) {
			ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST,
				"field kind: %u is not known", call->in.kind);
			unadmit(node);
			refuse(node, call);
			continue;
		}
		if (!check_entity_call(node, call)) {
			unadmit(node);
			continue;
		}
		worker = call->shard % node->worker_count;
		if (first[worker] == NULL) {
			first[worker] = call;
		} else {
			last[worker]->next = call;
		}
		last[worker] = call;
	}
	for (uint32_t i = 0; i < node->worker_count; i++) {
		if (first[i] != NULL) {
			first[i]->post = (struct rt_post){.run = take_chain};
			rt_worker_post_always(rt_system_worker(node->system, i), &first[i]->post);
		}
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
				.answered = answered,
				.owner = node},
			.shard_count = node->shard_count,
			.worker_count = node->worker_count,
			.committed = node->committed,
			.calls = &node->calls,
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
		.answered = answered};
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
	if (node->worker_count > WORKERS_MAX) {
		return rt_errinfo_set(info, RT_E_INVAL, "more than %u workers", WORKERS_MAX);
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

bool sh_node_wait_ready(struct sh_node *node, uint32_t timeout_ms)
{
	uint64_t end = rt_clock_now_ns() + timeout_ms * UINT64_C(1000000);
	while (unknown_leaders(node) > 0) {
		if (rt_clock_now_ns() >= end) {
			return false;
		}
		uv_sleep(READY_LOOK_MS);
	}
	return true;
}
