/* The host of the core under what a peer sends: frames, or a script of messages, timers, answers of
 * the disk and wishes of the owner. Its log lies in memory and is checked: no holes, nothing cut
 * that is committed, commits never go back, and what is on the disk can be opened at any time. */
#include <stdlib.h>

#include "proto/wire.h"
#include "sharding/mark.h"
#include "sharding/replica.h"
#include "tests/fuzz/script.h"

#define SELF      1u
#define SHARD     7u
#define LOG_MAX   4096u
#define READS_MAX 4u
#define FRAME_MAX (64u * 1024u)

struct rig {
	struct sh_replica *replica;
	uint64_t now;
	/* The disk. */
	struct rt_bytes log[LOG_MAX]; /* index first.. */
	uint64_t first, last;
	struct rt_bytes hard, mark;
	struct sh_replica_read reads[READS_MAX];
	uint32_t read_count;
	/* What was said. */
	uint64_t committed;
	uint64_t term;                 /* leads */
	struct sh_raft_message fetch;  /* the newest that left */
	struct sh_raft_message answer; /* the newest other one */
	enum sh_mark_state state;      /* of the row */
	bool lazy, ended;
};

static struct rt_bytes copy_of(struct rt_bytes bytes)
{
	uint8_t *copy = malloc(bytes.size + 1);
	RT_ASSERT(copy != NULL);
	memcpy(copy, bytes.data, bytes.size);
	return rt_bytes_of(copy, bytes.size);
}

static void forget(struct rt_bytes *bytes)
{
	free((void *)(uintptr_t)bytes->data);
	*bytes = (struct rt_bytes){0};
}

/* ---- the disk ---- */
static void cut(struct rig *rig, uint64_t from)
{
	while (rig->last >= from && rig->last >= rig->first) {
		forget(&rig->log[rig->last - rig->first]);
		rig->last--;
	}
}

static void note_row(struct rig *rig, const struct sh_write *write)
{
	struct rt_bytes *row = write->key.data[0] == 'h' ? &rig->hard : &rig->mark;
	RT_ASSERT(write->key.size == SH_KEY_BYTES);
	forget(row);
	*row = copy_of(write->bytes);
	if (row == &rig->mark) {
		struct sh_mark mark;
		RT_ASSERT(sh_mark_decode(*row, &mark) == RT_OK);
		rig->state = mark.state;
		sh_mark_clear(&mark);
	}
}

static rt_err port_write(void *arg, const struct sh_write *write)
{
	struct rig *rig = arg;
	switch (write->kind) {
	case SH_WRITE_RECORD:
		RT_ASSERT(write->index == rig->last + 1);
		if (write->index - rig->first >= LOG_MAX) {
			return RT_E_NOSPACE;
		}
		rig->log[write->index - rig->first] = copy_of(write->bytes);
		rig->last++;
		return RT_OK;
	case SH_WRITE_CUT:
		RT_ASSERT(write->index > rig->committed);
		cut(rig, write->index);
		return RT_OK;
	case SH_WRITE_WIPE:
		RT_ASSERT(rig->state != SH_MARK_NORMAL || rig->committed == 0);
		rig->committed = rig->state == SH_MARK_REMOVED ? 0 : rig->committed;
		cut(rig, 0);
		rig->first = write->index;
		rig->last = write->index - 1;
		return RT_OK;
	case SH_WRITE_META:
		note_row(rig, write);
		return RT_OK;
	}
	return RT_E_INVAL;
}

static rt_err port_read(void *arg, const struct sh_replica_read *read)
{
	struct rig *rig = arg;
	RT_ASSERT(read->from >= 1 && read->from <= read->upto);
	if (rig->read_count == READS_MAX) {
		return RT_E_FULL;
	}
	rig->reads[rig->read_count++] = *read;
	return RT_OK;
}

static uint64_t port_first(void *arg)
{
	const struct rig *rig = arg;
	return rig->first;
}

static rt_err port_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	const struct rig *rig = arg;
	struct rt_bytes row = key.data[0] == 'h' ? rig->hard : rig->mark;
	(void)info;
	if (row.data == NULL) {
		return RT_E_NOTFOUND;
	}
	*out = copy_of(row);
	return RT_OK;
}

static rt_err port_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	const struct rig *rig = arg;
	(void)info;
	for (uint64_t i = from < rig->first ? rig->first : from; i <= rig->last; i++) {
		if (!visit(visit_arg, i, rig->log[i - rig->first])) {
			break;
		}
	}
	return RT_OK;
}

/* ---- peers and owner ---- */
static void port_send(void *arg, const struct sh_message *message)
{
	static uint8_t frame[2 * SH_MESSAGE_BYTES + SH_MESSAGE_RECORDS * 8];
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct rig *rig = arg;
	struct sh_message again;
	size_t size = sh_message_size(message);
	RT_ASSERT(size <= sizeof(frame) && message->head.from == SELF);
	RT_ASSERT(sh_message_encode(frame, message) == frame + size);
	struct rt_bytes bytes = rt_bytes_of(frame, size);
	RT_ASSERT(sh_message_decode(&bytes, &again, records) == RT_OK);
	if (again.head.type == SH_MSG_FETCH) {
		rig->fetch = again.head;
	} else {
		rig->answer = again.head;
	}
}

static void port_lead(void *arg, uint64_t term, uint64_t last)
{
	struct rig *rig = arg;
	RT_ASSERT(last >= rig->committed && term != 0);
	rig->term = term;
}

static void port_follow(void *arg, uint64_t term, uint64_t leader)
{
	struct rig *rig = arg;
	(void)term;
	RT_ASSERT(leader != SELF);
	rig->term = 0;
}

static void port_committed(void *arg, uint64_t upto)
{
	struct rig *rig = arg;
	RT_ASSERT(upto > rig->committed && upto <= rig->last);
	rig->committed = upto;
}

static void port_installed(void *arg, uint64_t first, uint64_t last)
{
	struct rig *rig = arg;
	RT_ASSERT(first == rig->first && last == rig->last && last >= rig->committed);
	rig->committed = last;
}

static void port_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	(void)arg;
	RT_ASSERT(!removed || sh_members_find(&set->members, SELF) < 0);
}

static void port_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	const struct rig *rig = arg;
	(void)ticket;
	RT_ASSERT(err != RT_OK || index <= rig->committed);
}

static const struct sh_replica_port port = {.write = port_write,
	.read = port_read,
	.first = port_first,
	.meta = port_meta,
	.scan = port_scan,
	.send = port_send,
	.lead = port_lead,
	.follow = port_follow,
	.committed = port_committed,
	.installed = port_installed,
	.members = port_members,
	.readable = port_readable};

/* ---- a replica ---- */
static struct sh_members first_members(void)
{
	return (struct sh_members){.node = {1, 2, 3, 4}, .count = 4, .voters = 7};
}

/* RT_E_CLOSED: the replica gave up. That is for errors of this side (no space), never for what a
 * peer said. */
static void settle(struct rig *rig, rt_err err)
{
	if (err == RT_E_CLOSED) {
		RT_ASSERT(rig->last - rig->first + 1 >= LOG_MAX - SCRIPT_RECORDS);
		rig->ended = true;
		return;
	}
	sh_raft_check(sh_replica_raft(rig->replica));
	if (!rig->lazy) {
		err = sh_replica_durable(rig->replica, rig->now, sh_replica_written(rig->replica));
		RT_ASSERT(err == RT_OK || err == RT_E_CLOSED);
		rig->ended = err == RT_E_CLOSED;
		sh_raft_check(sh_replica_raft(rig->replica));
	}
}

static void rig_open(struct rig *rig)
{
	struct rt_errinfo info = {0};
	struct sh_replica_options options = {.shard = SHARD,
		.raft = {.node = SELF, .seed = 1},
		.first = first_members(),
		.mark_every = 5,
		.runs_max = 4,
		.port = &port,
		.arg = rig};
	rig->read_count = 0;
	rig->committed = 0;
	rig->term = 0;
	RT_ASSERT(sh_replica_open(&options, &rig->replica, &info) == RT_OK);
	settle(rig, sh_replica_start(rig->replica, rig->now));
}

static void rig_close(struct rig *rig)
{
	sh_replica_close(rig->replica);
	rig->replica = NULL;
}

/* ---- messages ---- */
static void receive(struct rig *rig, struct sh_message *message)
{
	message->shard = SHARD;
	message->head.to = SELF;
	rt_err err = sh_replica_recv(rig->replica, rig->now, message);
	RT_ASSERT(err == RT_OK || err == RT_E_PROTO || err == RT_E_CLOSED);
	settle(rig, err);
}

static void run_frame(struct rig *rig, struct rt_bytes body)
{
	static uint8_t bytes[FRAME_MAX + 10];
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct sh_message message;
	if (body.size > FRAME_MAX) {
		return;
	}
	uint8_t *at = pr_varint_put(bytes, body.size);
	memcpy(at, body.data, body.size);
	struct rt_bytes frame = rt_bytes_of(bytes, (size_t)(at - bytes) + body.size);
	if (sh_message_decode(&frame, &message, records) == RT_OK) {
		message.head.from = 2 + message.head.from % 4;
		receive(rig, &message);
	}
}

static void head_of(
	const struct rig *rig, struct rt_bytes *script, uint32_t byte, struct sh_raft_message *head)
{
	const struct sh_raft *raft = sh_replica_raft(rig->replica);
	head->from = 2 + byte % 4;
	head->term = script_near(script, raft->term);
	head->index = script_near(script, byte >= 128 ? raft->commit : raft->last);
	head->log_term = byte % 32 < 24 ? sh_raft_term_at(raft, head->index)
					: script_near(script, raft->term);
	head->commit = script_near(script, head->index + 2);
	head->hint = script_near(script, head->index);
	head->round = script_near(script, raft->round);
	head->stamp = byte % 8 < 6 ? raft->round_at : script_near(script, rig->now);
}

/* A chunk that answers the question, mostly. */
static void chunk_of(const struct rig *rig, struct rt_bytes *script, struct sh_message *message)
{
	struct sh_raft_message *head = &message->head;
	uint32_t byte = script_byte(script);
	head->from = byte % 16 == 0 ? head->from : rig->fetch.to;
	head->from = head->from == 0 ? 2 : head->from;
	head->round = byte % 32 == 1 ? head->round : rig->fetch.round;
	head->index = rig->fetch.index + (byte % 8 == 2 ? byte / 8 % 4 : 0);
	head->index += head->index == 0 && byte % 32 != 3;
	head->hint = byte % 8 == 4 ? head->index : head->hint;
	if (byte >= 128) {
		head->flags = SH_FLAG_LAST;
		message->set.index = script_near(script, head->index);
		message->set.members = script_members(script, &(struct sh_members){0});
		if (message->set.members.voters == 0) {
			message->set.members = first_members();
		}
	}
}

static void send_one(struct rig *rig, struct rt_bytes *script, uint32_t type)
{
	static const uint8_t flags[SH_MSG_TYPES] = {
		[SH_MSG_APPEND_RESULT] = SH_FLAG_REJECT | SH_FLAG_BEHIND,
		[SH_MSG_VOTE] = SH_FLAG_PRE | SH_FLAG_TRANSFER,
		[SH_MSG_VOTE_RESULT] = SH_FLAG_PRE | SH_FLAG_GRANTED};
	struct rt_bytes made[SCRIPT_RECORDS];
	struct sh_message message = {.records = made};
	uint32_t byte = script_byte(script);
	message.head.type = (uint8_t)type;
	message.head.flags = (uint8_t)(byte >> 2 & flags[type]);
	head_of(rig, script, byte, &message.head);
	if (type == SH_MSG_CHUNK) {
		chunk_of(rig, script, &message);
	}
	if (type == SH_MSG_APPEND || type == SH_MSG_CHUNK) {
		struct sh_members members = first_members();
		uint64_t term = message.head.log_term;
		message.head.count = script_byte(script) % (SCRIPT_RECORDS + 1);
		script_records(script, term == 0 ? 1 : term, &members, made);
		if (message.head.count > 0 && (message.head.flags & SH_FLAG_LAST) != 0) {
			struct ps_record record;
			RT_ASSERT(ps_record_peek(made[message.head.count - 1], &record) == RT_OK);
			message.head.log_term = record.term;
		}
	}
	receive(rig, &message);
}

/* What the newest message asked for is given. */
static void answer(struct rig *rig, struct rt_bytes *script)
{
	const struct sh_raft_message *asked = &rig->answer;
	struct sh_message message = {.head = {.from = asked->to,
					     .term = asked->term,
					     .index = asked->index + asked->count,
					     .round = asked->round,
					     .stamp = asked->stamp}};
	if (asked->type == SH_MSG_VOTE) {
		message.head.type = SH_MSG_VOTE_RESULT;
		message.head.flags = (uint8_t)((asked->flags & SH_FLAG_PRE) | SH_FLAG_GRANTED);
	} else if (asked->type == SH_MSG_APPEND) {
		message.head.type = SH_MSG_APPEND_RESULT;
	} else {
		return;
	}
	if (script_byte(script) % 4 == 0) {
		message.head.from = 2 + (message.head.from - 1) % 3;
	}
	receive(rig, &message);
}

/* ---- disk, owner ---- */
static void answer_read(struct rig *rig, struct rt_bytes *script)
{
	struct rt_bytes records[16];
	uint32_t byte = script_byte(script);
	if (rig->read_count == 0) {
		return;
	}
	struct sh_replica_read read = rig->reads[0];
	rig->read_count--;
	memmove(rig->reads, rig->reads + 1, rig->read_count * sizeof(rig->reads[0]));
	uint32_t count = 0;
	while (count < 1 + byte / 8 % 16 && read.from >= rig->first &&
		read.from + count <= rig->last && read.from + count <= read.upto) {
		records[count] = rig->log[read.from + count - rig->first];
		count++;
	}
	settle(rig, sh_replica_read_done(rig->replica, rig->now, read.ticket,
			    count > 0 && byte % 8 != 0 ? RT_OK : RT_E_IO, records, count));
}

static void propose(struct rig *rig, struct rt_bytes *script)
{
	struct rt_bytes made[SCRIPT_RECORDS];
	struct sh_members members = {.node = {1}, .count = 1, .voters = 1};
	uint64_t first;
	uint32_t count = 1 + script_byte(script) % SCRIPT_RECORDS;
	if (rig->term == 0 || rig->last - rig->first + 1 + count >= LOG_MAX) {
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct rt_bytes none = {0};
		script_records(&none, rig->term, &members, made);
	}
	rt_err err = sh_replica_propose(rig->replica, made, count, &first);
	if (err == RT_OK) {
		RT_ASSERT(first == rig->last + 1);
		for (uint32_t i = 0; i < count; i++) {
			rig->log[++rig->last - rig->first] = copy_of(made[i]);
		}
	}
	RT_ASSERT(err == RT_OK || err == RT_E_AGAIN || err == RT_E_CLOSED);
	settle(rig, err);
}

static void wish(struct rig *rig, struct rt_bytes *script)
{
	uint32_t byte = script_byte(script);
	uint64_t index;
	struct sh_members members = sh_raft_members(sh_replica_raft(rig->replica))->members;
	switch (byte % 8) {
	case 0:
		propose(rig, script);
		return;
	case 1:
		members = script_members(script, &members);
		settle(rig, sh_replica_propose_members(rig->replica, &members, &index));
		return;
	case 2:
		settle(rig, sh_replica_transfer(rig->replica, rig->now, byte / 8 % 5));
		return;
	case 3:
		settle(rig, sh_replica_compact(
				    rig->replica, script_near(script, rig->committed), &index));
		return;
	case 4:
		settle(rig, sh_replica_linearize(rig->replica, rig->now, rig));
		return;
	case 5:
		rig->lazy = byte / 8 % 4 == 0;
		return;
	case 6:
		settle(rig, sh_replica_renew(rig->replica, rig->now));
		return;
	default:
		rig_close(rig);
		rig_open(rig);
	}
}

static void step(struct rig *rig, struct rt_bytes *script)
{
	uint32_t op = script_byte(script) % 16;
	if (op >= SH_MSG_APPEND && op < SH_MSG_TYPES) {
		send_one(rig, script, op);
	} else if (op < 11) {
		rig->now += script_byte(script) * 8;
		settle(rig, sh_replica_tick(rig->replica, rig->now));
	} else if (op < 12) {
		uint64_t written = sh_replica_written(rig->replica);
		uint64_t upto = script_near(script, written);
		settle(rig, sh_replica_durable(
				    rig->replica, rig->now, upto < written ? upto : written));
	} else if (op < 13) {
		answer_read(rig, script);
	} else if (op < 15) {
		answer(rig, script);
	} else {
		wish(rig, script);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rig rig;
	struct rt_bytes script = rt_bytes_of(data, size);
	rig = (struct rig){.now = 10000, .first = 1};
	rig_open(&rig);
	if (script_byte(&script) % 4 == 0) {
		run_frame(&rig, script);
	}
	for (uint32_t steps = 0; script.size > 0 && steps < 500 && !rig.ended; steps++) {
		step(&rig, &script);
	}
	rig_close(&rig);
	rig.ended = false;
	rig_open(&rig); /* Whatever was said. */
	rig_close(&rig);
	cut(&rig, 0);
	forget(&rig.hard);
	forget(&rig.mark);
	return 0;
}
