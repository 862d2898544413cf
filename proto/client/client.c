/*
 * Every accepted call is in the wheel (its deadline or its next try) and, besides, in one of three
 * places:
 *
 *	queue     waits for a flight to be free
 *	flight    is in a message that was sent or is being sent; flight->calls[flight_index]
 *	(neither) backs off before the next try, or is being delivered by the thread that holds it
 *
 * A flight is one message at a time, on a REQ context of the node it goes to: IDLE -> SENDING ->
 * RECEIVING -> DELIVERING -> IDLE. Only the callback of its aio moves it on; taking it from IDLE to
 * SENDING is done under the lock by whoever finds work for it. nng is called without the lock,
 * except nng_aio_cancel, whose callback never runs on the caller's stack.
 */
#include "proto/client/client.h"

#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "proto/client/nodes.h"
#include "proto/client/pending.h"
#include "proto/guard.h"
#include "proto/wire.h"

#define FLIGHTS_MAX    64u
#define SLOW_FLIGHTS   8u
#define MESSAGE_SOFT   ((size_t)PR_FRAME_MAX / 2) /* no further call once a message is larger */
#define SPREAD_AT      8u                         /* fewer calls than this go out together */
#define BACKOFF_MIN_MS 10u
#define BACKOFF_MAX_MS 1000u
#define DRAIN_MS       250u
#define GRACE_MS       100u /* an aio outlives the deadlines of its calls, which the wheel keeps */

/* A node that passed the call on waits 0.5 s longer for the other one, and then says so. */
#define PATIENCE_GRACE_MS 1000u
#define BUSY_TRIES        4u /* "busy" is mostly about load, which other nodes pass on as well */

enum flight_state {
	IDLE,
	SENDING,
	RECEIVING,
	DELIVERING
};

struct pr_flight {
	struct troupe_client *client;
	struct pr_node *node; /* where the message goes; set while the flight is not idle */
	nng_ctx contexts[PR_NODES_MAX];
	bool opened[PR_NODES_MAX];
	nng_aio *aio;
	enum flight_state state;
	bool slow;
	uint32_t limit; /* calls */
	uint32_t count; /* of calls, answered ones included */
	uint32_t live;
	uint64_t last_deadline_ms;
	uint32_t ticks_left;       /* until the client gives the node up */
	nng_msg *message;          /* built, not yet given to nng */
	struct pr_flight *go_next; /* list of flights to send */
	struct pr_pending **calls;
};

struct troupe_client {
	/* Set at creation. */
	uint32_t queue_max, timeout_ms, flight_count;
	uint64_t id_salt[2];
	nng_aio *kick;
	pthread_t clock;
	bool clock_started;

	/* Written by many. */
	atomic_uint_fast64_t ids;
	atomic_uint launching; /* threads between leaving the lock and the end of their nng call */
	atomic_bool kicked;

	pthread_mutex_t lock;
	pthread_cond_t clock_wake;
	bool closing, clock_stop;
	bool ticking; /* the clock thread comes by itself; else it waits for clock_wake */
	struct pr_queue fast, slow;
	struct pr_wheel wheel;
	struct pr_nodes nodes;
	uint32_t in_flight; /* calls; the others in the wheel wait */
	uint64_t random;
	struct pr_flight flights[FLIGHTS_MAX + SLOW_FLIGHTS];
};

/* What is to be done after the lock is left. */
struct chores {
	struct pr_flight *go;
	struct pr_errands errands;
	bool tick;
};

/* Callbacks that submit only queue: their flight, free again afterwards, takes them all at once. */
static _Thread_local const struct troupe_client *delivering;

/* A bijection of 64 bits (splitmix64's), so that a count becomes different and spread numbers. */
static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
	value = (value ^ value >> 27) * 0x94d049bb133111ebu;
	return value ^ value >> 31;
}

/* ---- taking flights ------------------------------------------------------------------------ */

/* Encodes flight->calls into a message of its own. False: no memory. */
static bool build(struct pr_flight *flight, size_t room, uint64_t now)
{
	uint64_t last = now;
	uint32_t longest = 0;
	if (nng_msg_alloc(&flight->message, room) != 0) {
		return false;
	}
	uint8_t *start = nng_msg_body(flight->message);
	uint8_t *at = start;
	for (uint32_t i = 0; i < flight->count; i++) {
		struct pr_pending *pending = flight->calls[i];
		uint32_t most = flight->slow ? UINT32_MAX
					     : pr_nodes_patience_ms(
						       &flight->client->nodes, pending->attempts);
		longest = most > longest ? most : longest;
		at = pr_pending_put(at, pending, i, now, most);
		pending->attempts++;
		last = pending->deadline_ms > last ? pending->deadline_ms : last;
	}
	nng_msg_chop(flight->message, room - (size_t)(at - start));
	flight->last_deadline_ms = last;
	flight->ticks_left = longest / PR_WHEEL_TICK_MS + PATIENCE_GRACE_MS / PR_WHEEL_TICK_MS;
	nng_aio_set_timeout(flight->aio, (nng_duration)(last - now + GRACE_MS));
	return true;
}

/* Fills an idle flight from the queue. Lock held. */
static bool load(struct pr_flight *flight, struct pr_node *node, struct pr_queue *queue,
	uint32_t most, uint64_t now)
{
	size_t room = 0;
	uint32_t count = 0;
	while (queue->head != NULL && count < most && room < MESSAGE_SOFT) {
		struct pr_pending *pending = queue->head;
		pr_queue_remove(queue, pending);
		pending->flight = flight;
		pending->flight_index = count;
		flight->calls[count++] = pending;
		room += pending->body_size + PR_PENDING_OVERHEAD;
	}
	flight->count = flight->live = count;
	if (count > 0 && build(flight, room, now)) {
		flight->state = SENDING;
		flight->node = node;
		flight->client->in_flight += count;
		pr_node_owes(node, !flight->slow);
		return true;
	}
	flight->count = flight->live = 0;
	for (uint32_t i = 0; i < count; i++) { /* out of memory: the next tick tries again */
		flight->calls[i]->flight = NULL;
		pr_queue_push(queue, flight->calls[i]);
	}
	return false;
}

static bool open_flight(struct pr_flight *flight, const struct pr_node *node)
{
	bool *opened = &flight->opened[node->index];
	if (!*opened) {
		*opened = nng_ctx_open(&flight->contexts[node->index], node->socket) == 0;
	}
	return *opened;
}

/* Gives waiting calls to idle flights, in even shares so that both sides always have work. */
static void pump_queue(
	struct troupe_client *client, struct pr_queue *queue, bool slow, struct chores *chores)
{
	struct pr_node *node =
		queue->count > 0 ? pr_nodes_pick(&client->nodes, &chores->errands) : NULL;
	if (node == NULL) {
		return;
	}
	uint32_t from = slow ? client->flight_count : 0;
	uint32_t to = slow ? from + SLOW_FLIGHTS : client->flight_count;
	uint32_t idle = 0;
	for (uint32_t i = from; i < to && queue->count > 0; i++) {
		idle += client->flights[i].state == IDLE;
	}
	if (idle == 0) {
		return;
	}
	uint64_t now = nng_clock();
	uint32_t share = (queue->count + idle - 1) / idle;
	share = share < SPREAD_AT ? SPREAD_AT : share;
	for (uint32_t i = from; i < to && queue->count > 0; i++) {
		struct pr_flight *flight = &client->flights[i];
		uint32_t most = share < flight->limit ? share : flight->limit;
		if (flight->state == IDLE && open_flight(flight, node) &&
			load(flight, node, queue, most, now)) {
			flight->go_next = chores->go;
			chores->go = flight;
		}
	}
}

static void pump(struct troupe_client *client, struct chores *chores)
{
	if (client->closing) {
		return;
	}
	if (client->wheel.count > 0 && !client->ticking) {
		client->ticking = chores->tick = true;
	}
	pump_queue(client, &client->fast, false, chores);
	pump_queue(client, &client->slow, true, chores);
}

/* Leaves the lock and does what was found to do. The count keeps close from freeing what this
 * thread still uses; its pair is the acquiring load there. */
static void leave(struct troupe_client *client, struct chores *chores)
{
	if (chores->go == NULL && !chores->tick && chores->errands.dial == NULL &&
		chores->errands.ping == NULL) {
		pthread_mutex_unlock(&client->lock);
		return;
	}
	atomic_fetch_add_explicit(&client->launching, 1, memory_order_relaxed);
	pthread_mutex_unlock(&client->lock);
	while (chores->go != NULL) {
		struct pr_flight *flight = chores->go;
		chores->go = flight->go_next; /* before the send: its callback may use it again */
		nng_aio_set_msg(flight->aio, flight->message);
		nng_ctx_send(flight->contexts[flight->node->index], flight->aio);
	}
	pr_errands_run(&chores->errands);
	if (chores->tick) {
		pthread_cond_signal(&client->clock_wake);
	}
	atomic_fetch_sub_explicit(&client->launching, 1, memory_order_release);
}

/* ---- answers ------------------------------------------------------------------------------- */

/* Lock held. Twice as long with each try, and a random half of it, so that clients spread. */
static void back_off(struct troupe_client *client, struct pr_pending *pending, uint32_t at_least_ms)
{
	uint32_t shift = pending->attempts < 8 ? pending->attempts : 8;
	uint64_t span = (uint64_t)BACKOFF_MIN_MS << (shift > 0 ? shift - 1 : 0);
	span = span > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : span;
	client->random += 0x9e3779b97f4a7c15u;
	uint64_t wait = span / 2 + mix(client->random) % (span / 2 + 1);
	uint64_t due = nng_clock() + (wait > at_least_ms ? wait : at_least_ms);
	pending->flight = NULL;
	pr_wheel_add(
		&client->wheel, pending, due < pending->deadline_ms ? due : pending->deadline_ms);
}

/* Lock held. */
static void enqueue(struct troupe_client *client, struct pr_pending *pending)
{
	pending->flight = NULL;
	pr_queue_push(pending->slow ? &client->slow : &client->fast, pending);
	pr_wheel_add(&client->wheel, pending, pending->deadline_ms);
}

/* Finishes the call, or puts it on the list of those to try again, with due_ms as the wait that the
 * node asked for. */
static void settle(
	struct pr_pending *pending, const struct pr_answer *view, struct pr_pending **again)
{
	if (!pr_may_retry(view->code)) {
		pr_pending_finish_answered(pending, view);
		return;
	}
	pending->last_code = (int)view->code;
	if (view->code == TROUPE_UNKNOWN || view->code == TROUPE_TIMEOUT) {
		pending->outcome_known = false;
	}
	pending->due_ms = view->retry_after_ms;
	pending->queue_next = *again;
	*again = pending;
}

static struct pr_pending *take_call(struct pr_flight *flight, uint64_t call_id)
{
	if (call_id == 0 || call_id > flight->count) {
		return NULL;
	}
	struct pr_pending *pending = flight->calls[call_id - 1];
	flight->calls[call_id - 1] = NULL;
	return pending;
}

/* The flight's calls are this thread's alone. Returns those to try again. */
static struct pr_pending *deliver_message(struct pr_flight *flight, nng_msg *message)
{
	struct rt_bytes cursor = rt_bytes_of(nng_msg_body(message), nng_msg_len(message));
	struct pr_pending *again = NULL;
	struct pr_answer view;
	struct pr_answer for_all = {.code = TROUPE_E_PROTOCOL,
		.error = rt_bytes_str("the node's message has no answer for this call")};
	int got;
	while ((got = pr_answers_next(&cursor, &view)) > 0) {
		struct pr_pending *pending = take_call(flight, view.call_id);
		if (pending != NULL) {
			settle(pending, &view, &again);
		} else if (view.call_id == 0 && view.code != TROUPE_OK) {
			for_all = view;
		}
	}
	if (got < 0) {
		for_all = (struct pr_answer){.code = TROUPE_E_PROTOCOL,
			.error = rt_bytes_str("the node's message could not be read")};
	}
	for (uint32_t i = 1; i <= flight->count; i++) {
		struct pr_pending *pending = take_call(flight, i);
		if (pending != NULL) {
			settle(pending, &for_all, &again);
		}
	}
	return again;
}

/* Lock held: takes what is left of the flight out of the wheel, for the caller to deal with. */
static void unhook(struct pr_flight *flight)
{
	pr_node_settled(flight->node, !flight->slow);
	for (uint32_t i = 0; i < flight->count; i++) {
		if (flight->calls[i] != NULL) {
			pr_wheel_remove(&flight->client->wheel, flight->calls[i]);
		}
	}
	flight->client->in_flight -= flight->live;
	flight->live = 0;
}

/* Lock held. A node that served nothing of a message may be cut off from the others or about to
 * stop, and one that turns a call away again may be so too: the next is asked then, at once when
 * this one said that it serves nobody. */
static void try_again(struct pr_flight *flight, struct pr_pending *again, uint32_t asked,
	struct pr_errands *errands)
{
	struct troupe_client *client = flight->client;
	bool insists = false;
	uint32_t count = 0;
	for (const struct pr_pending *at = again; at != NULL; at = at->queue_next) {
		insists = insists || at->attempts > (at->last_code == TROUPE_BUSY ? BUSY_TRIES : 1);
		count++;
	}
	if (count > 0 && (insists || count == asked)) {
		pr_nodes_leave(&client->nodes, flight->node, errands);
	}
	bool others = client->nodes.count > 1 && count == asked;
	while (again != NULL) {
		struct pr_pending *pending = again;
		again = pending->queue_next;
		if (others && pending->last_code == TROUPE_UNAVAILABLE && pending->attempts <= 1) {
			enqueue(client, pending);
		} else {
			back_off(client, pending, (uint32_t)pending->due_ms);
		}
	}
}

static void arrived(struct pr_flight *flight, nng_msg *message)
{
	struct troupe_client *client = flight->client;
	struct chores chores = {0};
	pthread_mutex_lock(&client->lock);
	flight->state = DELIVERING;
	uint32_t asked = flight->live;
	unhook(flight);
	pr_node_heard(flight->node);
	pthread_mutex_unlock(&client->lock);

	const struct troupe_client *before = delivering;
	delivering = client;
	struct pr_pending *again = deliver_message(flight, message);
	delivering = before;
	nng_msg_free(message);

	pthread_mutex_lock(&client->lock);
	try_again(flight, again, asked, &chores.errands);
	flight->state = IDLE;
	flight->count = 0;
	pump(client, &chores);
	leave(client, &chores);
}

/* The message was not sent, or its answer will not come. Another node gets the calls at once, the
 * first time. */
static void failed(struct pr_flight *flight, int result)
{
	struct troupe_client *client = flight->client;
	struct chores chores = {0};
	pthread_mutex_lock(&client->lock);
	unhook(flight);
	if (result == NNG_ECONNRESET) {
		pr_node_broke(flight->node);
	}
	for (uint32_t i = 0; i < flight->count; i++) {
		struct pr_pending *pending = flight->calls[i];
		if (pending == NULL) {
			continue;
		}
		if (flight->state == SENDING) {
			pending->attempts--;
		} else {
			pending->outcome_known = false;
		}
		if (client->nodes.count > 1 && pending->attempts <= 1) {
			enqueue(client, pending);
		} else {
			back_off(client, pending, 0);
		}
	}
	flight->state = IDLE;
	flight->count = 0;
	pump(client, &chores);
	leave(client, &chores);
}

static void receive(struct pr_flight *flight)
{
	struct troupe_client *client = flight->client;
	pthread_mutex_lock(&client->lock);
	flight->state = RECEIVING;
	uint64_t now = nng_clock();
	uint64_t left = flight->last_deadline_ms > now ? flight->last_deadline_ms - now : 0;
	pthread_mutex_unlock(&client->lock);
	nng_aio_set_timeout(flight->aio, (nng_duration)(left + GRACE_MS));
	nng_ctx_recv(flight->contexts[flight->node->index], flight->aio);
}

static void flight_done(void *arg)
{
	struct pr_flight *flight = arg;
	int result = nng_aio_result(flight->aio);
	bool sending = flight->state == SENDING; /* only this callback moves it on from there */
	if (result == 0 && sending) {
		receive(flight);
	} else if (result == 0) {
		arrived(flight, nng_aio_get_msg(flight->aio));
	} else {
		if (sending) {
			nng_msg_free(nng_aio_get_msg(flight->aio));
		}
		failed(flight, result);
	}
}

/* ---- time and connections ------------------------------------------------------------------ */

/* Lock held. The deadline has passed wherever the call is now. */
static void withdraw(struct troupe_client *client, struct pr_pending *pending)
{
	struct pr_flight *flight = pending->flight;
	if (pending->queued) {
		pr_queue_remove(pending->slow ? &client->slow : &client->fast, pending);
	} else if (flight != NULL) {
		flight->calls[pending->flight_index] = NULL;
		flight->live--;
		client->in_flight--;
		if (flight->live == 0 && flight->state == RECEIVING) {
			nng_aio_cancel(flight->aio);
		}
	}
}

/* Lock held. Returns the calls that have run out of time, linked by queue_next. */
static struct pr_pending *take_expired(struct troupe_client *client, uint64_t now)
{
	struct pr_pending *expired = NULL;
	struct pr_pending *due = pr_wheel_due(&client->wheel, now);
	while (due != NULL) {
		struct pr_pending *pending = due;
		due = pending->wheel_next;
		if (now >= pending->deadline_ms) {
			withdraw(client, pending);
			pending->queue_next = expired;
			expired = pending;
		} else {
			enqueue(client, pending);
		}
	}
	return expired;
}

/* Lock held. Takes messages back from nodes that will not answer them. Once is not always enough:
 * there is nothing to cancel between the end of the send and the begin of the receive. */
static void recall(struct troupe_client *client, struct pr_errands *errands)
{
	uint32_t count = client->nodes.count > 1 ? client->flight_count + SLOW_FLIGHTS : 0;
	for (uint32_t i = 0; i < count; i++) {
		struct pr_flight *flight = &client->flights[i];
		if (flight->state != SENDING && flight->state != RECEIVING) {
			continue;
		}
		flight->ticks_left -= flight->ticks_left > 0;
		if (flight->ticks_left == 0) {
			pr_nodes_leave(&client->nodes, flight->node, errands);
		}
		if (flight->ticks_left == 0 || flight->node->silent ||
			(flight->state == SENDING && !pr_node_connected(flight->node))) {
			nng_aio_cancel(flight->aio);
		}
	}
}

/* Lock held at both ends, not in between. */
static void tick(struct troupe_client *client)
{
	struct chores chores = {0};
	struct pr_pending *expired = NULL;
	if (!client->closing) {
		uint64_t now = nng_clock();
		expired = take_expired(client, now);
		pr_nodes_tick(&client->nodes, now, &chores.errands);
		recall(client, &chores.errands);
	}
	pump(client, &chores);
	leave(client, &chores);
	const struct troupe_client *before = delivering;
	delivering = client;
	while (expired != NULL) {
		struct pr_pending *pending = expired;
		expired = pending->queue_next;
		pr_pending_finish_expired(pending);
	}
	delivering = before;
	pthread_mutex_lock(&client->lock);
}

static void add_ms(struct timespec *time, uint32_t ms)
{
	time->tv_nsec += (long)ms * 1000000;
	time->tv_sec += time->tv_nsec / 1000000000;
	time->tv_nsec %= 1000000000;
}

/* A thread of our own, asleep while no call is outstanding: nng 1.5.2 spins for the rest of the
 * millisecond whenever one of its sleeps ends, which was a third of the client's CPU. */
static void *keep_time(void *arg)
{
	struct troupe_client *client = arg;
	pthread_mutex_lock(&client->lock);
	while (!client->clock_stop) {
		client->ticking = client->wheel.count > 0;
		if (!client->ticking) {
			pthread_cond_wait(&client->clock_wake, &client->lock);
			continue;
		}
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		add_ms(&until, PR_WHEEL_TICK_MS);
		(void)pthread_cond_timedwait(&client->clock_wake, &client->lock, &until);
		tick(client);
	}
	pthread_mutex_unlock(&client->lock);
	return NULL;
}

static void kicked(void *arg)
{
	struct troupe_client *client = arg;
	struct chores chores = {0};
	atomic_store(&client->kicked, false);
	pthread_mutex_lock(&client->lock);
	pump(client, &chores);
	leave(client, &chores);
}

/* Runs inside nng: takes no lock, and leaves the work to an aio. */
static void wake_up(void *arg)
{
	struct troupe_client *client = arg;
	if (!atomic_exchange(&client->kicked, true)) {
		nng_sleep_aio(0, client->kick);
	}
}

/* ---- life ---------------------------------------------------------------------------------- */

static int open_flights(struct troupe_client *client, const struct troupe_client_options *options)
{
	uint32_t batch = options->batch == 0 ? 128 : options->batch;
	for (uint32_t i = 0; i < client->flight_count + SLOW_FLIGHTS; i++) {
		struct pr_flight *flight = &client->flights[i];
		flight->client = client;
		flight->slow = i >= client->flight_count;
		flight->limit = flight->slow ? 1 : batch < PR_CALLS_MAX ? batch : PR_CALLS_MAX;
		flight->calls = calloc(flight->limit, sizeof(struct pr_pending *));
		if (flight->calls == NULL) {
			return NNG_ENOMEM;
		}
		int result = nng_aio_alloc(&flight->aio, flight_done, flight);
		if (result != 0) {
			return result;
		}
	}
	return 0;
}

/* The application's signals are not for this thread. */
static int start_clock(struct troupe_client *client)
{
	sigset_t all;
	sigset_t before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int result = pthread_create(&client->clock, NULL, keep_time, client);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	client->clock_started = result == 0;
	if (result == 0) {
		pthread_setname_np(client->clock, "troupe:clock");
	}
	return result == 0 ? 0 : NNG_ENOMEM;
}

static void init_locks(struct troupe_client *client)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&client->clock_wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&client->lock, NULL);
}

static int open_client(struct troupe_client *client, const struct troupe_client_options *options)
{
	uint64_t seeds[3];
	if (getrandom(seeds, sizeof(seeds), 0) != (ssize_t)sizeof(seeds)) {
		return NNG_ENOENT;
	}
	client->id_salt[0] = seeds[0];
	client->id_salt[1] = seeds[1];
	client->random = seeds[2];
	client->flight_count = options->in_flight == 0 ? 2 : options->in_flight;
	client->flight_count =
		client->flight_count < FLIGHTS_MAX ? client->flight_count : FLIGHTS_MAX;
	client->queue_max = options->queue == 0 ? 65536 : options->queue;
	client->timeout_ms = options->timeout_ms == 0 ? 10000 : options->timeout_ms;
	client->wheel.tick = nng_clock() / PR_WHEEL_TICK_MS;
	client->nodes.lock = &client->lock;
	client->nodes.wake = wake_up;
	client->nodes.arg = client;
	int result = 0;
	if ((result = start_clock(client)) != 0 ||
		(result = nng_aio_alloc(&client->kick, kicked, client)) != 0) {
		return result;
	}
	return open_flights(client, options);
}

struct troupe_client *troupe_client_open(
	const struct troupe_client_options *options, char *error, size_t error_size)
{
	char why[256] = "open: no URL";
	struct troupe_client *client = NULL;
	if (options != NULL && options->url != NULL) {
		snprintf(why, sizeof(why), "open: out of memory");
		client = calloc(1, sizeof(*client));
	}
	if (client != NULL) {
		init_locks(client);
		int result = open_client(client, options);
		if (result != 0) {
			snprintf(why, sizeof(why), "open: %s", nng_strerror(result));
		} else if (pr_nodes_open(&client->nodes, options->url, client->random, why,
				   sizeof(why))) {
			return client;
		}
		troupe_client_close(client);
	}
	if (error != NULL && error_size > 0) {
		snprintf(error, error_size, "%s", why);
	}
	return NULL;
}

static void stop(nng_aio *aio)
{
	if (aio != NULL) {
		nng_aio_stop(aio);
	}
}

static void stop_clock(struct troupe_client *client)
{
	if (!client->clock_started) {
		return;
	}
	pthread_mutex_lock(&client->lock);
	client->clock_stop = true;
	pthread_cond_signal(&client->clock_wake);
	pthread_mutex_unlock(&client->lock);
	pthread_join(client->clock, NULL);
}

/* Messages that are out get a moment to be answered. That is polite, and it is needed: when libnng
 * 1.5.2 closes a connection between the length and the body of an arriving message, it waits for
 * that message for ever (tcptran_pipe_recv_cb starts the second read on an aio that refuses it). */
static void drain(struct troupe_client *client)
{
	for (uint32_t waited_ms = 0; waited_ms < DRAIN_MS; waited_ms += 2) {
		bool busy = false;
		pthread_mutex_lock(&client->lock);
		for (uint32_t i = 0; i < FLIGHTS_MAX + SLOW_FLIGHTS; i++) {
			const struct pr_flight *flight = &client->flights[i];
			busy = busy || (flight->state != IDLE && pr_node_connected(flight->node));
		}
		pthread_mutex_unlock(&client->lock);
		if (!busy) {
			break;
		}
		nng_msleep(2);
	}
}

/* Copes with a client that is only half open. nng_aio_stop waits for a callback that runs. */
void troupe_client_close(struct troupe_client *client)
{
	if (client == NULL) {
		return;
	}
	pthread_mutex_lock(&client->lock);
	client->closing = true;
	pthread_mutex_unlock(&client->lock);
	drain(client);
	/* Pairs with leave: after this nobody starts anything on an aio any more. */
	while (atomic_load_explicit(&client->launching, memory_order_acquire) != 0) {
		nng_msleep(1);
	}
	stop_clock(client);
	stop(client->kick);
	pr_nodes_stop(&client->nodes);
	for (uint32_t i = 0; i < FLIGHTS_MAX + SLOW_FLIGHTS; i++) {
		stop(client->flights[i].aio);
		nng_aio_free(client->flights[i].aio); /* NULL is fine */
	}
	/* Only now: nng 1.5.2 frees a socket under a thread that is still leaving nng_ctx_send, and
	 * under its own that ends an aio whose time is up, for which only nng_aio_free waits. */
	pr_nodes_close(&client->nodes);
	struct pr_pending *pending;
	while ((pending = pr_wheel_any(&client->wheel)) != NULL) {
		pr_pending_finish_own(pending, TROUPE_E_CLOSED, "the client was closed");
	}
	nng_aio_free(client->kick); /* pipes that end have called it until now */
	for (uint32_t i = 0; i < FLIGHTS_MAX + SLOW_FLIGHTS; i++) {
		free(client->flights[i].calls);
	}
	pthread_cond_destroy(&client->clock_wake);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

int troupe_client_submit(struct troupe_client *client, const struct troupe_call *call,
	troupe_answer_fn *done, void *arg)
{
	int code = pr_pending_check(call);
	if (code != TROUPE_OK) {
		return code;
	}
	uint64_t count = atomic_fetch_add_explicit(&client->ids, 1, memory_order_relaxed);
	uint64_t id[2] = {client->id_salt[0], mix(client->id_salt[1] + count)};
	struct pr_pending *pending = pr_pending_new(call, id);
	if (pending == NULL) {
		return TROUPE_BUSY;
	}
	pending->done = done;
	pending->arg = arg;
	pending->deadline_ms =
		nng_clock() + (call->timeout_ms != 0 ? call->timeout_ms : client->timeout_ms);

	struct chores chores = {0};
	pthread_mutex_lock(&client->lock);
	if (client->closing || client->wheel.count - client->in_flight >= client->queue_max) {
		code = client->closing ? TROUPE_E_CLOSED : TROUPE_BUSY;
		pthread_mutex_unlock(&client->lock);
		free(pending);
		return code;
	}
	pr_queue_push(pending->slow ? &client->slow : &client->fast, pending);
	pr_wheel_add(&client->wheel, pending, pending->deadline_ms);
	if (delivering != client) {
		pump(client, &chores);
	}
	leave(client, &chores);
	return TROUPE_OK;
}
