#include "runtime/sched/core.h"

static void push(struct rt_worker *worker, struct rt_post *post)
{
	RT_ASSERT(post != NULL);
	/* The list is newest first, so a chain goes in backwards. */
	struct rt_post *newest = NULL;
	struct rt_post *oldest = post;
	while (post != NULL) {
		struct rt_post *next = post->next;
		post->next = newest;
		newest = post;
		post = next;
	}
	RT_ASSERT(oldest != NULL);
	struct rt_post *old = atomic_load_explicit(&worker->posts, memory_order_relaxed);
	do {
		oldest->next = old;
	} while (!atomic_compare_exchange_weak_explicit(&worker->posts, &old, newest,
		memory_order_release, memory_order_relaxed)); /* pairs with rt_posts_take */
	if (rt_call_ring(&worker->call, RT_CALL_POST)) {
		worker->system->ports.wake(worker->system->ports.arg, worker);
	}
}

static uint32_t count_chain(const struct rt_post *post)
{
	uint32_t count = 0;
	for (; post != NULL; post = post->next) {
		RT_ASSERT(post->run != NULL);
		count++;
	}
	return count;
}

rt_err rt_worker_post(struct rt_worker *worker, struct rt_post *post)
{
	uint32_t count = count_chain(post);
	/* A hint for a limit, it orders nothing. */
	uint32_t before =
		atomic_fetch_add_explicit(&worker->posts_waiting, count, memory_order_relaxed);
	bool full = before + count > worker->system->options.posts_max;
	bool left = atomic_load_explicit(&worker->left, memory_order_relaxed);
	if (full || left) {
		atomic_fetch_sub_explicit(&worker->posts_waiting, count, memory_order_relaxed);
		return left ? RT_E_CLOSED : RT_E_FULL;
	}
	push(worker, post);
	return RT_OK;
}

void rt_worker_post_always(struct rt_worker *worker, struct rt_post *post)
{
	uint32_t count = count_chain(post);
	atomic_fetch_add_explicit(&worker->posts_waiting, count, memory_order_relaxed);
	push(worker, post);
}

void rt_posts_take(struct rt_worker *worker)
{
	/* Acquire pairs with the release in push: what the poster wrote is ours. */
	struct rt_post *post = atomic_exchange_explicit(&worker->posts, NULL, memory_order_acquire);
	if (post == NULL) {
		return;
	}
	struct rt_post *last = post;
	struct rt_post *first = NULL;
	while (post != NULL) {
		struct rt_post *next = post->next;
		post->next = first;
		first = post;
		post = next;
	}
	if (worker->posts_first == NULL) {
		worker->posts_first = first;
	} else {
		worker->posts_last->next = first;
	}
	worker->posts_last = last;
}

bool rt_posts_run(struct rt_worker *worker, uint32_t most)
{
	uint32_t count = 0;
	while (worker->posts_first != NULL && count < most) {
		struct rt_post *post = worker->posts_first;
		worker->posts_first = post->next;
		post->next =
			NULL; /* A node is posted again as it is: this list must not come along. */
		count++;
		post->run(worker, post); /* the node may be gone afterwards */
	}
	if (count > 0) {
		atomic_fetch_sub_explicit(&worker->posts_waiting, count, memory_order_relaxed);
	}
	return count > 0;
}
