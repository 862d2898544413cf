#include "tests/unit/cmd/trouped/fake_node.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"

struct sh_node {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	struct ac_call *first, **last;
	uint32_t seen;
	bool hold, stop;
};

static void answer(struct ac_call *call)
{
	call->out = (struct pr_answer){.call_id = call->in.call_id, .seq = 7};
	ac_call_payload(call, call->in.kind == TROUPE__KIND__KIND_STATUS
				      ? rt_bytes_str("{\"fake\":true}")
				      : call->in.payload);
	call->done(call);
}

static void *serve(void *arg)
{
	struct sh_node *node = arg;
	pthread_mutex_lock(&node->lock);
	while (!node->stop || node->first != NULL) {
		if (node->first == NULL || (node->hold && !node->stop)) {
			pthread_cond_wait(&node->changed, &node->lock);
			continue;
		}
		struct ac_call *call = node->first;
		node->first = NULL;
		node->last = &node->first;
		pthread_cond_broadcast(&node->changed);
		pthread_mutex_unlock(&node->lock);
		while (call != NULL) {
			struct ac_call *next = call->next; /* the call is gone after done */
			answer(call);
			call = next;
		}
		pthread_mutex_lock(&node->lock);
	}
	pthread_mutex_unlock(&node->lock);
	return NULL;
}

struct sh_node *fake_node_new(void)
{
	struct sh_node *node = calloc(1, sizeof(*node));
	RT_ASSERT(node != NULL);
	pthread_mutex_init(&node->lock, NULL);
	pthread_cond_init(&node->changed, NULL);
	node->last = &node->first;
	RT_ASSERT(pthread_create(&node->thread, NULL, serve, node) == 0);
	return node;
}

void fake_node_free(struct sh_node *node)
{
	pthread_mutex_lock(&node->lock);
	node->stop = true;
	pthread_cond_broadcast(&node->changed);
	pthread_mutex_unlock(&node->lock);
	pthread_join(node->thread, NULL);
	pthread_cond_destroy(&node->changed);
	pthread_mutex_destroy(&node->lock);
	free(node);
}

void fake_node_hold(struct sh_node *node, bool hold)
{
	pthread_mutex_lock(&node->lock);
	node->hold = hold;
	pthread_cond_broadcast(&node->changed);
	while (!hold && node->first != NULL) {
		pthread_cond_wait(&node->changed, &node->lock);
	}
	pthread_mutex_unlock(&node->lock);
}

void fake_node_wait_seen(struct sh_node *node, uint32_t calls)
{
	pthread_mutex_lock(&node->lock);
	while (node->seen < calls) {
		pthread_cond_wait(&node->changed, &node->lock);
	}
	pthread_mutex_unlock(&node->lock);
}

void sh_node_submit(struct sh_node *node, struct ac_call *chain)
{
	pthread_mutex_lock(&node->lock);
	*node->last = chain;
	for (struct ac_call *call = chain; call != NULL; call = call->next) {
		node->last = &call->next;
		node->seen++;
	}
	pthread_cond_broadcast(&node->changed);
	pthread_mutex_unlock(&node->lock);
}

/* actors/call.h, as far as the listener uses it. */

void ac_call_clear(struct ac_call *call)
{
	free(call->heap);
	call->heap = NULL;
}

void ac_call_payload_take(struct ac_call *call, uint8_t *data, size_t size)
{
	ac_call_clear(call);
	call->heap = data;
	call->out.payload = rt_bytes_of(data, size);
}

void ac_call_payload(struct ac_call *call, struct rt_bytes payload)
{
	uint8_t *copy = malloc(payload.size + 1);
	RT_ASSERT(copy != NULL);
	if (payload.size > 0) {
		memcpy(copy, payload.data, payload.size);
	}
	ac_call_payload_take(call, copy, payload.size);
}
