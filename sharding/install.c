/* A shard fetched from a peer, record by record, and the other side of that.
 *
 * The receiver asks, the source answers each question with one chunk: the receiver's disk sets the
 * pace and whoever asks again does no harm. Before the log is touched a row says that it is worth
 * nothing; the last chunk and the row that says it is whole become durable together.
 *
 *   MARKING --row durable--> FETCHING --chunk--> WRITING --durable--> FETCHING ...
 *                                     --last chunk--> FINISHING --durable--> the core goes on
 */
#include <stdlib.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "sharding/host.h"

#define SERVES_MAX 16u /* more than a group has members */

enum install_state {
	MARKING,
	FETCHING,
	WRITING,
	FINISHING
};

struct sh_install {
	enum install_state state;
	uint64_t source;   /* node */
	uint64_t target;   /* known to be committed up to here: less is not enough */
	uint64_t first;    /* of the log that comes */
	uint64_t next;     /* index to ask for, 0: from the source's first */
	uint64_t term;     /* of the newest record that came */
	uint64_t question; /* a chunk gives it back; late answers are known by it */
	uint64_t retry_at;
	uint64_t written; /* goes on when this write is durable */
	uint64_t end_term;
	struct sh_raft_set set; /* FINISHING: in force at the end */
};

struct sh_serve { /* One peer that fetches from here. */
	struct sh_serve *next;
	uint64_t node, question, asked_at;
	uint64_t from, upto;
	void *ticket; /* of the read under way */
};

/* ---- receiver ---- */
static void ask(struct sh_replica *replica)
{
	struct sh_install *in = replica->install;
	struct sh_message fetch = {.shard = replica->shard,
		.head = {.type = SH_MSG_FETCH,
			.from = replica->raft.settings.node,
			.to = in->source,
			.term = replica->raft.term,
			.index = in->next,
			.commit = in->next > in->target ? in->next - 1 : in->target,
			.round = in->question}};
	in->retry_at = replica->now + sh_host_election_ms(replica) / 2;
	sh_outbox_host(replica, &fetch);
}

static void ask_next(struct sh_replica *replica)
{
	struct sh_install *in = replica->install;
	in->state = FETCHING;
	/* No two questions of one install are the same, nor, since time passes, those of two. */
	in->question = replica->now << 20 | (replica->written & 0xfffff);
	ask(replica);
}

rt_err sh_install_begin(struct sh_replica *replica, uint64_t source)
{
	struct sh_install *in = replica->install;
	if (in != NULL) {
		in->source = source;
		if (in->state == FETCHING) {
			ask_next(replica);
		}
		return RT_OK;
	}
	in = calloc(1, sizeof(*in));
	if (in == NULL) {
		return RT_E_NOMEM;
	}
	in->source = source;
	in->target = replica->raft.install_index;
	replica->install = in;
	replica->store_count = 0;
	sh_cache_clear(&replica->cache);
	struct sh_mark mark = {.state = SH_MARK_INSTALLING, .base.members = replica->first};
	rt_err err = sh_host_write_mark(replica, &mark);
	in->written = replica->written;
	return err;
}

static rt_err finish(struct sh_replica *replica)
{
	struct sh_install *in = replica->install;
	uint64_t first = in->first;
	uint64_t end = in->next - 1;
	rt_err err = sh_raft_installed(&replica->raft, end, in->end_term, &in->set);
	if (err != RT_OK) {
		return sh_host_end(replica); /* The row says what the core does not know. */
	}
	if (in->set.index == 0) {
		replica->first = in->set.members;
	}
	free(in);
	replica->install = NULL;
	replica->installs++;
	replica->told = end;
	replica->marked = end;
	sh_raft_applied(&replica->raft, end);
	replica->port->installed(replica->arg, first, end);
	return sh_host_pump(replica, RT_OK);
}

rt_err sh_install_durable(struct sh_replica *replica)
{
	struct sh_install *in = replica->install;
	if (in == NULL || in->state == FETCHING || in->written > replica->durable) {
		return RT_OK;
	}
	if (in->state == FINISHING) {
		return finish(replica);
	}
	ask_next(replica);
	return RT_OK;
}

static rt_err check_records(const struct sh_message *message, uint64_t *term)
{
	for (uint32_t i = 0; i < message->head.count; i++) {
		struct ps_record record;
		struct rt_bytes bytes = message->records[i];
		if (bytes.size == 0 || bytes.size > PS_RECORD_MAX ||
			ps_record_decode(bytes, &record) != RT_OK || record.term < *term ||
			record.term == 0) {
			return RT_E_PROTO;
		}
		*term = record.term;
	}
	return RT_OK;
}

static rt_err check_last(const struct sh_message *message, uint64_t term, uint64_t end)
{
	bool same = term == 0 || message->head.log_term == term;
	return same && end > 0 && message->head.log_term != 0 && message->set.members.voters != 0 &&
			       message->set.index <= end
		       ? RT_OK
		       : RT_E_PROTO;
}

static rt_err write_records(
	struct sh_replica *replica, const struct sh_message *message, bool from_start)
{
	struct sh_write write = {.kind = SH_WRITE_WIPE, .index = message->head.index};
	rt_err err = from_start ? sh_host_write(replica, &write) : RT_OK;
	for (uint32_t i = 0; err == RT_OK && i < message->head.count; i++) {
		write = (struct sh_write){.kind = SH_WRITE_RECORD,
			.index = message->head.index + i,
			.bytes = message->records[i]};
		err = sh_host_write(replica, &write);
	}
	return err;
}

static rt_err write_end(struct sh_replica *replica, const struct sh_message *message)
{
	struct sh_install *in = replica->install;
	in->state = FINISHING;
	in->end_term = message->head.log_term;
	in->set = message->set;
	struct sh_mark mark = {.state = SH_MARK_NORMAL,
		.floor = in->next - 1,
		.floor_term = in->end_term,
		.mark = in->next - 1,
		.base = in->set};
	return sh_host_write_mark(replica, &mark);
}

static rt_err take_chunk(struct sh_replica *replica, const struct sh_message *message,
	bool from_start, uint64_t term)
{
	struct sh_install *in = replica->install;
	const struct sh_raft_message *head = &message->head;
	rt_err err = write_records(replica, message, from_start);
	in->first = from_start ? head->index : in->first;
	in->next = head->index + head->count;
	in->term = term;
	if (err == RT_OK && (head->flags & SH_FLAG_LAST) != 0 && in->next > in->target) {
		err = write_end(replica, message);
	} else if (from_start || head->count > 0) {
		in->state = WRITING;
	} /* else: the source knows no more yet; asked again by the clock */
	in->written = replica->written;
	return err == RT_OK ? RT_OK : sh_host_end(replica);
}

rt_err sh_install_chunk(struct sh_replica *replica, const struct sh_message *message)
{
	const struct sh_install *in = replica->install;
	const struct sh_raft_message *head = &message->head;
	if (in == NULL || in->state != FETCHING || head->from != in->source ||
		head->round != in->question) {
		return RT_OK;
	}
	/* From the source's first on: at the beginning, or when that moved past what is here. */
	bool from_start = in->next == 0 || (head->index > in->next && head->index == head->hint);
	if (head->index == 0 || head->index > UINT64_MAX / 2 ||
		(!from_start && head->index != in->next)) {
		return RT_E_PROTO;
	}
	uint64_t term = from_start ? 0 : in->term;
	rt_err err = check_records(message, &term);
	if (err == RT_OK && (head->flags & SH_FLAG_LAST) != 0) {
		err = check_last(message, term, head->index + head->count - 1);
	}
	return err == RT_OK ? take_chunk(replica, message, from_start, term) : err;
}

/* ---- source ---- */
static void send_chunk(struct sh_replica *replica, const struct sh_serve *serve,
	const struct rt_bytes *records, uint32_t count)
{
	const struct sh_raft *raft = &replica->raft;
	uint64_t end = serve->from + count - 1;
	struct sh_message chunk = {.shard = replica->shard,
		.records = records,
		.head = {.type = SH_MSG_CHUNK,
			.count = count,
			.from = raft->settings.node,
			.to = serve->node,
			.term = raft->term,
			.index = serve->from,
			.hint = replica->port->first(replica->arg),
			.round = serve->question}};
	/* Terms below the floor are not known any more; the next chunk ends higher. */
	if (end >= serve->upto && end >= raft->floor &&
		sh_raft_members_at(raft, end)->members.voters != 0) {
		chunk.head.flags = SH_FLAG_LAST;
		chunk.head.log_term = sh_raft_term_at(raft, end);
		chunk.set = *sh_raft_members_at(raft, end);
	}
	sh_outbox_host(replica, &chunk);
}

static struct sh_serve *serve_of(struct sh_replica *replica, uint64_t node)
{
	uint32_t count = 0;
	struct sh_serve *serve = replica->serves;
	for (; serve != NULL && serve->node != node; count++) {
		serve = serve->next;
	}
	if (serve == NULL && count < SERVES_MAX) {
		serve = calloc(1, sizeof(*serve));
		if (serve != NULL) {
			serve->node = node;
			serve->next = replica->serves;
			replica->serves = serve;
		}
	}
	return serve;
}

/* What may be sent: what is committed. A leader may know of less than who asks, and may need it to
 * learn of more; but all that is committed is in a leader's log [D 3.6.3]. */
static uint64_t may_send(const struct sh_replica *replica, const struct sh_raft_message *fetch)
{
	const struct sh_raft *raft = &replica->raft;
	if (!sh_raft_leads(raft) || fetch->commit <= replica->told) {
		return replica->told;
	}
	return fetch->commit < raft->stored ? fetch->commit : raft->stored;
}

void sh_install_fetch(struct sh_replica *replica, const struct sh_raft_message *fetch)
{
	uint64_t upto = may_send(replica, fetch);
	if (replica->install != NULL || upto == 0 || fetch->index > upto + 1) {
		return;
	}
	struct sh_serve *serve = serve_of(replica, fetch->from);
	if (serve == NULL || serve->ticket != NULL) {
		return; /* It will ask again. */
	}
	uint64_t first = replica->port->first(replica->arg);
	serve->asked_at = replica->now;
	serve->question = fetch->round;
	serve->from = fetch->index < first ? first : fetch->index;
	serve->upto = upto;
	if (serve->from > serve->upto) {
		send_chunk(replica, serve, NULL, 0);
		return;
	}
	struct sh_replica_read read = {.from = serve->from,
		.upto = serve->upto,
		.max_bytes = SH_MESSAGE_BYTES,
		.max_count = SH_PIECE_RECORDS,
		.ticket = sh_host_ticket(replica)};
	if (replica->port->read(replica->arg, &read) == RT_OK) {
		serve->ticket = read.ticket;
	}
}

rt_err sh_install_read_done(struct sh_replica *replica, const void *ticket, rt_err err,
	const struct rt_bytes *records, uint32_t count)
{
	struct sh_serve *serve = replica->serves;
	while (serve != NULL && serve->ticket != ticket) {
		serve = serve->next;
	}
	if (serve == NULL || ticket == NULL) {
		return RT_E_NOTFOUND;
	}
	serve->ticket = NULL;
	if (err == RT_OK && count > 0 && replica->install == NULL && !sh_host_inert(replica)) {
		send_chunk(replica, serve, records, count);
	}
	return RT_OK;
}

static bool still_fetches(const struct sh_replica *replica, const struct sh_serve *serve)
{
	return serve->ticket != NULL ||
	       replica->now - serve->asked_at < SH_HOLD_ELECTIONS * sh_host_election_ms(replica);
}

uint64_t sh_install_holds(const struct sh_replica *replica)
{
	uint64_t first = UINT64_MAX;
	for (const struct sh_serve *serve = replica->serves; serve != NULL; serve = serve->next) {
		if (still_fetches(replica, serve) && serve->from < first) {
			first = serve->from;
		}
	}
	return first;
}

/* ---- time, memory ---- */
void sh_install_tick(struct sh_replica *replica)
{
	const struct sh_install *in = replica->install;
	for (struct sh_serve **at = &replica->serves; *at != NULL;) {
		struct sh_serve *serve = *at;
		if (still_fetches(replica, serve)) {
			at = &serve->next;
		} else {
			*at = serve->next;
			free(serve);
		}
	}
	if (in != NULL && in->state == FETCHING && replica->now >= in->retry_at) {
		ask(replica);
	}
}

uint64_t sh_install_next_timeout(const struct sh_replica *replica)
{
	const struct sh_install *in = replica->install;
	return in != NULL && in->state == FETCHING ? in->retry_at : UINT64_MAX;
}

void sh_install_free(struct sh_replica *replica)
{
	free(replica->install);
	replica->install = NULL;
	while (replica->serves != NULL) {
		struct sh_serve *serve = replica->serves;
		replica->serves = serve->next;
		free(serve);
	}
}

uint64_t sh_install_memory(const struct sh_replica *replica)
{
	uint64_t bytes = replica->install == NULL ? 0 : sizeof(struct sh_install);
	for (const struct sh_serve *serve = replica->serves; serve != NULL; serve = serve->next) {
		bytes += sizeof(*serve);
	}
	return bytes;
}
