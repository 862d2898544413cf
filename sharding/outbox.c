/* Messages on their way out: parked until term and vote are durable, filled with records from the
 * cache or, for a peer that lags behind, from the log. */
#include <stdlib.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "sharding/host.h"

#define PARKED_MAX 256u /* more than one election's; what is over is lost like on a bad line */

struct parked {
	uint64_t hard_seq; /* leaves when this write is durable */
	struct sh_raft_message head;
};

struct sh_parked {
	uint32_t count, cap;
	struct parked items[];
};

/* One peer whose next records are not in the cache, and a piece of the log for it. */
struct sh_lag {
	struct sh_lag *next;
	uint64_t node;
	uint64_t first; /* index of records[0] */
	struct rt_bytes *records;
	uint32_t count;
	void *ticket; /* of the read under way */
};

static void send(struct sh_replica *replica, const struct sh_raft_message *head,
	const struct rt_bytes *records)
{
	struct sh_message message = {.head = *head, .shard = replica->shard, .records = records};
	replica->port->send(replica->arg, &message);
}

/* ---- parking ---- */
static bool must_wait(const struct sh_replica *replica)
{
	return replica->hard_seq > replica->durable;
}

/* The newer of two that say the same thing says it better, so that an acknowledgement for each
 * heartbeat does not pile up behind a slow disk. */
static void forget_older(struct sh_parked *parked, const struct sh_raft_message *head)
{
	for (uint32_t i = 0; i < parked->count; i++) {
		const struct sh_raft_message *old = &parked->items[i].head;
		if (old->to == head->to && old->type == head->type && old->term == head->term &&
			old->flags == head->flags) {
			parked->count--;
			memmove(&parked->items[i], &parked->items[i + 1],
				(parked->count - i) * sizeof(struct parked));
			return;
		}
	}
}

/* Without memory, or over the limit, it is as if the message was lost on the way. */
static void park(struct sh_replica *replica, const struct sh_raft_message *head)
{
	struct sh_parked *parked = replica->parked;
	if (parked != NULL) {
		forget_older(parked, head);
	}
	if (parked == NULL || parked->count == parked->cap) {
		uint32_t cap = parked == NULL ? 8 : parked->cap * 2;
		if (cap > PARKED_MAX) {
			return;
		}
		struct sh_parked *grown =
			realloc(parked, sizeof(*parked) + cap * sizeof(struct parked));
		if (grown == NULL) {
			return;
		}
		if (parked == NULL) {
			grown->count = 0;
		}
		grown->cap = cap;
		replica->parked = parked = grown;
	}
	parked->items[parked->count++] =
		(struct parked){.hard_seq = replica->hard_seq, .head = *head};
}

static void unpark(struct sh_replica *replica)
{
	struct sh_parked *parked = replica->parked;
	uint32_t done = 0;
	while (done < parked->count && parked->items[done].hard_seq <= replica->durable) {
		send(replica, &parked->items[done++].head, NULL);
	}
	parked->count -= done;
	if (parked->count == 0) {
		free(parked);
		replica->parked = NULL;
	} else if (done > 0) {
		memmove(parked->items, parked->items + done, parked->count * sizeof(struct parked));
	}
}

/* ---- pieces of the log for peers that lag ---- */
static struct sh_lag *find_lag(const struct sh_replica *replica, uint64_t node)
{
	struct sh_lag *lag = replica->lags;
	while (lag != NULL && lag->node != node) {
		lag = lag->next;
	}
	return lag;
}

static void empty_lag(struct sh_lag *lag)
{
	free(lag->records);
	lag->records = NULL;
	lag->count = 0;
}

/* Lags that hold nothing and wait for nothing go, as do those of who is no member any more. */
static void sweep(struct sh_replica *replica)
{
	const struct sh_members *members = &sh_raft_members(&replica->raft)->members;
	for (struct sh_lag **at = &replica->lags; *at != NULL;) {
		struct sh_lag *lag = *at;
		bool idle = lag->ticket == NULL && lag->count == 0;
		if (!idle && sh_members_find(members, lag->node) >= 0) {
			at = &lag->next;
		} else {
			*at = lag->next;
			empty_lag(lag);
			free(lag);
		}
	}
}

static void read_for(struct sh_replica *replica, uint64_t node, uint64_t from, uint64_t upto)
{
	struct sh_lag *lag = find_lag(replica, node);
	if (lag == NULL) {
		lag = calloc(1, sizeof(*lag));
		if (lag == NULL) {
			return;
		}
		lag->node = node;
		lag->next = replica->lags;
		replica->lags = lag;
	}
	if (lag->ticket != NULL) {
		return;
	}
	empty_lag(lag);
	if (replica->cache.count > 0 && replica->cache.first > from &&
		replica->cache.first <= upto) {
		upto = replica->cache.first - 1;
	}
	struct sh_replica_read read = {.from = from,
		.upto = upto,
		.max_bytes = SH_MESSAGE_BYTES,
		.max_count = SH_PIECE_RECORDS,
		.ticket = sh_host_ticket(replica)};
	lag->first = from;
	if (replica->port->read(replica->arg, &read) == RT_OK) {
		lag->ticket = read.ticket;
	}
	sweep(replica);
}

/* How many of the records are still what the log has there, as far as the core knows. */
static uint32_t still_true(const struct sh_replica *replica, uint64_t first,
	const struct rt_bytes *records, uint32_t count)
{
	uint32_t i = 0;
	struct ps_record record;
	while (i < count && ps_record_peek(records[i], &record) == RT_OK && record.term != 0 &&
		record.term == sh_raft_term_at(&replica->raft, first + i)) {
		i++;
	}
	return i;
}

/* One block: the views, then the bytes. */
static struct rt_bytes *copy_records(const struct rt_bytes *records, uint32_t count)
{
	size_t size = count * sizeof(*records);
	for (uint32_t i = 0; i < count; i++) {
		size += records[i].size;
	}
	struct rt_bytes *copy = malloc(size);
	if (copy == NULL) {
		return NULL;
	}
	uint8_t *at = (uint8_t *)(copy + count);
	for (uint32_t i = 0; i < count; i++) {
		copy[i] = rt_bytes_of(at, records[i].size);
		memcpy(at, records[i].data, records[i].size);
		at += records[i].size;
	}
	return copy;
}

rt_err sh_outbox_read_done(struct sh_replica *replica, const void *ticket, rt_err err,
	const struct rt_bytes *records, uint32_t count)
{
	struct sh_lag *lag = replica->lags;
	while (lag != NULL && lag->ticket != ticket) {
		lag = lag->next;
	}
	if (lag == NULL || ticket == NULL) {
		return RT_E_NOTFOUND;
	}
	lag->ticket = NULL;
	uint64_t node = lag->node;
	if (err == RT_OK && sh_raft_leads(&replica->raft) && !sh_host_inert(replica)) {
		count = still_true(replica, lag->first, records, count);
		lag->records = count == 0 ? NULL : copy_records(records, count);
		lag->count = lag->records == NULL ? 0 : count;
	}
	bool some = lag->count > 0;
	sweep(replica);
	/* Without a result the next tick tries again. */
	return some ? sh_host_pump(replica, sh_raft_resume(&replica->raft, node)) : RT_OK;
}

/* ---- offers ---- */
static bool record_for(const struct sh_replica *replica, const struct sh_lag *lag, uint64_t index,
	struct rt_bytes *out)
{
	if (sh_cache_get(&replica->cache, index, out)) {
		return true;
	}
	if (lag == NULL || index < lag->first || index - lag->first >= lag->count) {
		return false;
	}
	*out = lag->records[index - lag->first];
	/* It was read a while ago. */
	return still_true(replica, index, out, 1) == 1;
}

static uint32_t fill(const struct sh_replica *replica, const struct sh_raft_message *offer,
	struct rt_bytes records[SH_MESSAGE_RECORDS])
{
	const struct sh_lag *lag = find_lag(replica, offer->to);
	uint32_t most = offer->count < SH_MESSAGE_RECORDS ? offer->count : SH_MESSAGE_RECORDS;
	size_t bytes = 0;
	uint32_t n = 0;
	while (n < most && record_for(replica, lag, offer->index + 1 + n, &records[n])) {
		bytes += records[n].size;
		if (n > 0 && bytes > SH_MESSAGE_BYTES) {
			break;
		}
		n++;
	}
	return n;
}

static void used(struct sh_replica *replica, uint64_t node, uint64_t last)
{
	struct sh_lag *lag = find_lag(replica, node);
	if (lag != NULL && lag->ticket == NULL && last + 1 >= lag->first + lag->count) {
		empty_lag(lag);
		sweep(replica);
	}
}

/* Records wait for term and vote as well: refused now, and offered again when those are durable. */
static rt_err send_offer(struct sh_replica *replica, const struct sh_raft_message *offer)
{
	struct rt_bytes records[SH_MESSAGE_RECORDS];
	uint32_t n = 0;
	if (!must_wait(replica)) {
		n = fill(replica, offer, records);
		if (n == 0) {
			read_for(replica, offer->to, offer->index + 1, offer->index + offer->count);
		}
	}
	if (n > 0) {
		struct sh_raft_message head = *offer;
		head.count = n;
		send(replica, &head, records);
		used(replica, offer->to, offer->index + n);
	}
	return sh_raft_sent(&replica->raft, offer->to, n);
}

rt_err sh_outbox_send(struct sh_replica *replica, const struct sh_raft_message *head)
{
	if (head->type == SH_MSG_APPEND && head->count > 0) {
		return send_offer(replica, head);
	}
	if (must_wait(replica)) {
		park(replica, head);
	} else {
		send(replica, head, NULL);
	}
	return RT_OK;
}

void sh_outbox_host(struct sh_replica *replica, const struct sh_message *message)
{
	if (!must_wait(replica)) {
		replica->port->send(replica->arg, message);
	}
}

rt_err sh_outbox_resume(struct sh_replica *replica)
{
	const struct sh_raft *raft = &replica->raft;
	if (must_wait(replica)) {
		return RT_OK;
	}
	sweep(replica);
	for (uint32_t i = 0; sh_raft_leads(raft) && i < sh_raft_members(raft)->members.count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		const struct sh_lag *lag = peer->held ? find_lag(replica, peer->node) : NULL;
		if (peer->held && (lag == NULL || lag->ticket == NULL)) {
			rt_err err =
				sh_host_pump(replica, sh_raft_resume(&replica->raft, peer->node));
			if (err != RT_OK) {
				return err;
			}
		}
	}
	return RT_OK;
}

rt_err sh_outbox_durable(struct sh_replica *replica)
{
	if (replica->parked != NULL) {
		unpark(replica);
	}
	return sh_outbox_resume(replica);
}

void sh_outbox_follow(struct sh_replica *replica)
{
	for (struct sh_lag *lag = replica->lags; lag != NULL; lag = lag->next) {
		empty_lag(lag);
	}
	sweep(replica);
}

/* ---- life ---- */
void sh_outbox_free(struct sh_replica *replica)
{
	free(replica->parked);
	replica->parked = NULL;
	while (replica->lags != NULL) {
		struct sh_lag *lag = replica->lags;
		replica->lags = lag->next;
		empty_lag(lag);
		free(lag);
	}
}

uint64_t sh_outbox_memory(const struct sh_replica *replica)
{
	uint64_t bytes = 0;
	if (replica->parked != NULL) {
		bytes += sizeof(*replica->parked) + replica->parked->cap * sizeof(struct parked);
	}
	for (const struct sh_lag *lag = replica->lags; lag != NULL; lag = lag->next) {
		bytes += sizeof(*lag) + lag->count * sizeof(struct rt_bytes);
		for (uint32_t i = 0; i < lag->count; i++) {
			bytes += lag->records[i].size;
		}
	}
	return bytes;
}

uint32_t sh_outbox_parked(const struct sh_replica *replica)
{
	return replica->parked == NULL ? 0 : replica->parked->count;
}
