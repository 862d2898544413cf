#include "sharding/feed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/page.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"

#define WAIT_MAX_MS 60000u
#define SCAN_BYTES  (128u * 1024u) /* of one shard at a time */
#define READ_BYTES  (512u * 1024u) /* of one request before it looks at what it has */

struct request {
	struct ps_job job; /* first */
	struct sh_feed *feed;
	struct ac_call *call;
	struct ac_page page;
	char *type, *tag;
	uint64_t *position; /* per shard: the last offset looked at */
	struct ps_scan *scans;
	uint32_t scan_count, first_shard;
	uint64_t deadline_ms;
	struct rt_timer timer;
	bool waiting;
	struct request *next;
};

struct sh_feed {
	struct rt_post post; /* first */
	struct ac_host *host;
	uint32_t shard_count, turn;
	const _Atomic uint64_t *committed;
	struct request *requests;
	_Atomic uint32_t waiting; /* requests that want to hear of commits */
	_Atomic bool notified;    /* the post is under way */
	bool stopped;
};

/* ---- positions ---- */
void sh_position_print(const uint64_t *offsets, uint32_t shard_count, char *out)
{
	char *at = out + sprintf(out, "f1.");
	char *end = at;
	for (uint32_t i = 0; i < shard_count; i++) {
		if (i > 0) {
			*at++ = '.';
		}
		if (offsets[i] != 0) {
			at += sprintf(at, "%" PRIx64, offsets[i]);
			end = at;
		}
	}
	*end = '\0';
}

bool sh_position_parse(const char *token, uint64_t *offsets, uint32_t shard_count)
{
	memset(offsets, 0, shard_count * sizeof(*offsets));
	if (strncmp(token, "f1.", 3) != 0) {
		return false;
	}
	const char *at = token + 3;
	for (uint32_t shard = 0; *at != '\0'; at++) {
		if (*at == '.') {
			if (++shard == shard_count) {
				return false;
			}
			continue;
		}
		const char *digits = "0123456789abcdef";
		const char *digit = strchr(digits, *at);
		if (digit == NULL || shard >= shard_count || offsets[shard] >> 60 != 0) {
			return false;
		}
		offsets[shard] = offsets[shard] << 4 | (uint64_t)(digit - digits);
	}
	return true;
}

/* ---- one request ---- */
static void read_more(struct request *request);

static void clear_scans(struct request *request)
{
	for (uint32_t i = 0; i < request->scan_count; i++) {
		ps_scan_clear(&request->scans[i]);
	}
	request->scan_count = 0;
}

static void end(struct request *request)
{
	struct sh_feed *feed = request->feed;
	struct ac_call *call = request->call;
	struct request **slot = &feed->requests;
	while (*slot != NULL && *slot != request) {
		slot = &(*slot)->next;
	}
	if (*slot == request) {
		*slot = request->next;
	}
	if (request->waiting) {
		atomic_fetch_sub_explicit(&feed->waiting, 1, memory_order_relaxed);
	}
	rt_timer_stop(feed->host->worker, &request->timer);
	clear_scans(request);
	ac_page_done(&request->page);
	free(request->type);
	free(request->tag);
	free(request->position);
	free(request->scans);
	free(request);
	ac_answer(feed->host, call);
}

static void finish(struct request *request)
{
	struct sh_feed *feed = request->feed;
	request->page.position = malloc(SH_POSITION_MAX(feed->shard_count));
	RT_ASSERT(request->page.position != NULL);
	sh_position_print(request->position, feed->shard_count, request->page.position);
	request->call->out.code = TROUPE__CODE__CODE_OK;
	ac_page_answer(&request->page, request->call);
	end(request);
}

static void fail(struct request *request, uint32_t code, const char *text)
{
	ac_call_fail(request->call, code, "%s", text);
	end(request);
}

static uint64_t committed(const struct sh_feed *feed, uint32_t shard)
{
	/* Pairs with the release store of the region: what is at or below it can be read. */
	return atomic_load_explicit(&feed->committed[shard], memory_order_acquire);
}

static bool something_new(const struct request *request)
{
	for (uint32_t i = 0; i < request->feed->shard_count; i++) {
		if (committed(request->feed, i) > request->position[i]) {
			return true;
		}
	}
	return false;
}

/* On a reader thread: one shard after the other until there is enough. */
static void work(struct ps_job *job, struct ps_store *store)
{
	struct request *request = (struct request *)job;
	struct sh_feed *feed = request->feed;
	size_t bytes = 0;
	for (uint32_t i = 0; i < feed->shard_count && bytes < READ_BYTES; i++) {
		uint32_t shard = (request->first_shard + i) % feed->shard_count;
		uint64_t upto = committed(feed, shard);
		if (upto <= request->position[shard]) {
			continue;
		}
		struct ps_scan *scan = &request->scans[request->scan_count++];
		*scan = (struct ps_scan){.shard = shard,
			.from = request->position[shard] + 1,
			.upto = upto,
			.type = rt_bytes_str(request->type),
			.tag = rt_bytes_str(request->tag),
			.max_bytes = SCAN_BYTES};
		ps_scan_run(scan, store);
		for (size_t r = 0; r < scan->record_count; r++) {
			bytes += scan->records[r].size;
		}
		if (scan->err != RT_OK) {
			return;
		}
	}
}

/* Takes a shard's records into the page; false once it is full. */
static bool take_scan(struct request *request, const struct ps_scan *scan)
{
	for (size_t i = 0; i < scan->record_count; i++) {
		struct ac_page_row row = {.shard = scan->shard,
			.offset = scan->offsets[i],
			.record = scan->records[i],
			.tag = rt_bytes_str(request->tag)};
		bool room = ac_page_add(&request->page, request->feed->host, &row, NULL);
		request->position[scan->shard] = scan->offsets[i];
		if (!room) {
			return false;
		}
	}
	request->position[scan->shard] = scan->next - 1;
	return true;
}

static void read_done(struct ps_job *job)
{
	struct request *request = (struct request *)job;
	struct sh_feed *feed = request->feed;
	bool room = true;
	for (uint32_t i = 0; i < request->scan_count; i++) {
		const struct ps_scan *scan = &request->scans[i];
		if (scan->err != RT_OK) {
			fail(request, TROUPE__CODE__CODE_UNAVAILABLE, scan->info.text);
			return;
		}
		room = room && take_scan(request, scan);
	}
	clear_scans(request);
	bool more = !room || something_new(request);
	request->page.more = more;
	uint64_t now = rt_worker_now_ms(feed->host->worker);
	if (request->page.count > 0 || now >= request->deadline_ms || feed->stopped) {
		finish(request);
	} else if (more) {
		read_more(request);
	} else {
		request->waiting = true;
		/* Counted before the last look, so that a commit after it is heard of. */
		atomic_fetch_add_explicit(&feed->waiting, 1, memory_order_seq_cst);
		if (something_new(request)) {
			read_more(request);
		} else {
			rt_timer_start(
				feed->host->worker, &request->timer, request->deadline_ms - now);
		}
	}
}

static void read_more(struct request *request)
{
	struct sh_feed *feed = request->feed;
	if (request->waiting) {
		request->waiting = false;
		atomic_fetch_sub_explicit(&feed->waiting, 1, memory_order_relaxed);
	}
	rt_timer_stop(feed->host->worker, &request->timer);
	request->first_shard = feed->turn++ % feed->shard_count;
	request->job.work = work;
	request->job.done = read_done;
	if (ac_host_read(feed->host, &request->job) != RT_OK) {
		request->call->out.retry_after_ms = 50;
		fail(request, TROUPE__CODE__CODE_BUSY, "too many reads wait");
	}
}

static void time_is_up(struct rt_worker *worker, struct rt_timer *timer)
{
	(void)worker;
	finish(RT_CONTAINER(timer, struct request, timer));
}

static void wake_all(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	struct sh_feed *feed = (struct sh_feed *)post;
	atomic_store_explicit(&feed->notified, false, memory_order_seq_cst);
	for (struct request *request = feed->requests, *next; request != NULL; request = next) {
		next = request->next;
		if (request->waiting && something_new(request)) {
			read_more(request);
		}
	}
}

void sh_feed_progressed(struct sh_feed *feed)
{
	if (atomic_load_explicit(&feed->waiting, memory_order_seq_cst) > 0 &&
		!atomic_exchange_explicit(&feed->notified, true, memory_order_seq_cst)) {
		feed->post.next =
			NULL; /* Ours: nobody else posts it before notified is false again. */
		rt_worker_post_always(feed->host->worker, &feed->post);
	}
}

/* Fills the request from the call's ReadFeed; the text says what is wrong. */
static const char *read_request(struct request *request)
{
	struct sh_feed *feed = request->feed;
	struct rt_bytes payload = request->call->in.payload;
	Troupe__ReadFeed *in = NULL;
	if (pr_guard_check(&troupe__read_feed__descriptor, payload, NULL) == RT_OK) {
		in = troupe__read_feed__unpack(NULL, payload.size, payload.data);
	}
	if (in == NULL) {
		return "payload is not a ReadFeed";
	}
	const char *wrong = NULL;
	if (strcmp(in->position, "end") == 0) {
		for (uint32_t i = 0; i < feed->shard_count; i++) {
			request->position[i] = committed(feed, i);
		}
	} else if (in->position[0] != '\0' &&
		   !sh_position_parse(in->position, request->position, feed->shard_count)) {
		wrong = "field position: not a token of this node's feed";
	}
	request->type = strdup(in->type);
	request->tag = strdup(in->tag);
	RT_ASSERT(request->type != NULL && request->tag != NULL);
	uint32_t wait_ms = in->wait_ms < WAIT_MAX_MS ? in->wait_ms : WAIT_MAX_MS;
	request->deadline_ms = rt_worker_now_ms(feed->host->worker) + wait_ms;
	ac_page_init(&request->page, request->call->in.json, in->limit);
	troupe__read_feed__free_unpacked(in, NULL);
	return wrong;
}

/* A shard that is here has at least its first leader's entry. Without one of them a feed would skip
 * its events, and the position would say that they were seen. */
static uint32_t first_missing(const struct sh_feed *feed)
{
	uint32_t shard = 0;
	while (shard < feed->shard_count && committed(feed, shard) > 0) {
		shard++;
	}
	return shard;
}

void sh_feed_call(struct sh_feed *feed, struct ac_call *call)
{
	struct request *request = calloc(1, sizeof(*request));
	RT_ASSERT(request != NULL);
	request->feed = feed;
	request->call = call;
	request->position = calloc(feed->shard_count, sizeof(*request->position));
	request->scans = calloc(feed->shard_count, sizeof(*request->scans));
	RT_ASSERT(request->position != NULL && request->scans != NULL);
	rt_timer_init(&request->timer, time_is_up);
	request->next = feed->requests;
	feed->requests = request;
	const char *wrong = read_request(request);
	uint32_t missing = first_missing(feed);
	if (wrong != NULL) {
		fail(request, TROUPE__CODE__CODE_BAD_REQUEST, wrong);
	} else if (missing < feed->shard_count) {
		char text[128];
		snprintf(text, sizeof(text),
			"shard %u is not held by this node (now): read the feed from one that "
			"holds every shard",
			missing);
		request->call->out.retry_after_ms = 500;
		fail(request, TROUPE__CODE__CODE_UNAVAILABLE, text);
	} else {
		read_more(request);
	}
}

rt_err sh_feed_open(struct ac_host *host, uint32_t shard_count,
	const _Atomic uint64_t *committed_at, struct sh_feed **out)
{
	struct sh_feed *feed = calloc(1, sizeof(*feed));
	if (feed == NULL) {
		return RT_E_NOMEM;
	}
	feed->post.run = wake_all;
	feed->host = host;
	feed->shard_count = shard_count;
	feed->committed = committed_at;
	*out = feed;
	return RT_OK;
}

void sh_feed_stop(struct sh_feed *feed)
{
	feed->stopped = true;
	for (struct request *request = feed->requests, *next; request != NULL; request = next) {
		next = request->next;
		if (request->waiting) {
			finish(request);
		}
	}
}

void sh_feed_free(struct sh_feed *feed)
{
	free(feed);
}
