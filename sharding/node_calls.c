/* Calls of listeners: what is wrong with one is said at once, the others go to the worker of their
 * shard, a chain per worker. */
#include <stdlib.h>
#include <string.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/clock.h"
#include "runtime/base/container.h"
#include "runtime/base/random.h"
#include "sharding/node_core.h"

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
	sh_node_answered(sh_region_host(node->regions[0]), call);
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
	struct ac_call *first[SH_WORKERS_MAX] = {0}, *last[SH_WORKERS_MAX];
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
