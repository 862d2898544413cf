/* What a peer sends. The first byte chooses:
 * 0  a frame: decoded or refused; what is decoded encodes to a frame that is decoded to the same;
 * 1  the same with a length that fits, so that more of it is looked at;
 * 2  a script of messages, timers, completions and wishes, small numbers near those of the node.
 * Every decoded message goes to a follower and to a leader, both the real core, which may refuse it
 * but keeps its invariants; refused, it has changed nothing. */
#include <stdlib.h>

#include "proto/wire.h"
#include "sharding/message.h"
#include "tests/fuzz/script.h"

#define SELF      1u
#define FRAME_MAX (64u * 1024u)

/* ---- codec ---- */
static bool same_message(const struct sh_message *a, const struct sh_message *b)
{
	const struct sh_raft_message *x = &a->head;
	const struct sh_raft_message *y = &b->head;
	bool same = x->type == y->type && x->flags == y->flags && x->count == y->count &&
		    x->from == y->from && x->to == y->to && x->term == y->term &&
		    x->index == y->index && x->log_term == y->log_term && x->commit == y->commit &&
		    x->hint == y->hint && x->round == y->round && x->stamp == y->stamp &&
		    a->shard == b->shard && a->set.index == b->set.index &&
		    sh_members_equal(&a->set.members, &b->set.members);
	for (uint32_t i = 0; same && i < x->count; i++) {
		same = rt_bytes_equal(a->records[i], b->records[i]);
	}
	return same;
}

static void check_codec(const struct sh_message *message)
{
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct sh_message again;
	size_t size = sh_message_size(message);
	uint8_t *bytes = malloc(size);
	RT_ASSERT(bytes != NULL);
	RT_ASSERT(sh_message_encode(bytes, message) == bytes + size);
	struct rt_bytes frame = rt_bytes_of(bytes, size);
	RT_ASSERT(sh_message_decode(&frame, &again, records) == RT_OK && frame.size == 0);
	RT_ASSERT(same_message(message, &again));
	free(bytes);
}

/* ---- a node ---- */
struct rig {
	struct sh_raft raft;
	struct sh_out_queue queue;
	uint64_t now;
	uint64_t written, generation; /* newest write */
	uint32_t send_max;            /* entries of an offer that are at hand */
	bool lazy;                    /* stored only when the script says so */
};

static void act(struct rig *rig, const struct sh_out *out)
{
	switch (out->kind) {
	case SH_OUT_APPEND:
		RT_ASSERT(out->append.count > 0);
		rig->written = out->append.from + out->append.count - 1;
		rig->generation = out->append.generation;
		return;
	case SH_OUT_SEND:
		RT_ASSERT(out->send.to != SELF && out->send.from == SELF);
		if (out->send.type == SH_MSG_APPEND && out->send.count > 0) {
			uint32_t count = out->send.count;
			count = count < rig->send_max ? count : rig->send_max;
			RT_ASSERT(sh_raft_sent(&rig->raft, out->send.to, count) == RT_OK);
		}
		return;
	case SH_OUT_COMMIT:
		sh_raft_applied(&rig->raft, out->commit);
		return;
	case SH_OUT_HARD:
	case SH_OUT_INSTALL:
	case SH_OUT_MEMBERS:
	case SH_OUT_ROLE:
	case SH_OUT_REMOVED:
		return;
	}
}

static void drain(struct rig *rig)
{
	struct sh_out out;
	while (sh_out_next(&rig->queue, &out)) {
		act(rig, &out);
	}
}

static void settle(struct rig *rig)
{
	drain(rig);
	sh_raft_check(&rig->raft);
	if (!rig->lazy) {
		RT_ASSERT(sh_raft_stored(&rig->raft, rig->written, rig->generation) == RT_OK);
		drain(rig);
		sh_raft_check(&rig->raft);
	}
}

static struct sh_members first_members(void)
{
	return (struct sh_members){.node = {1, 2, 3, 4}, .count = 4, .voters = 7};
}

static void rig_open(struct rig *rig)
{
	struct sh_raft_settings settings = {.node = SELF, .seed = 1};
	struct sh_raft_restore restore = {.term = 4, .vote = 2, .members = first_members()};
	struct sh_members without = first_members();
	*rig = (struct rig){.now = 10000, .send_max = 1000};
	sh_members_remove(&without, 4);
	RT_ASSERT(sh_raft_init(&rig->raft, &settings, &restore, &rig->queue) == RT_OK);
	RT_ASSERT(sh_raft_restore_entries(&rig->raft, 3, 1, NULL) == RT_OK);
	RT_ASSERT(sh_raft_restore_entries(&rig->raft, 1, 2, &without) == RT_OK);
	RT_ASSERT(sh_raft_restore_entries(&rig->raft, 5, 4, NULL) == RT_OK);
	RT_ASSERT(sh_raft_start(&rig->raft, rig->now) == RT_OK);
	settle(rig);
}

static void grant(struct rig *rig, uint8_t flags)
{
	struct sh_raft_message vote = {.type = SH_MSG_VOTE_RESULT,
		.flags = flags | SH_FLAG_GRANTED,
		.from = 2,
		.to = SELF,
		.term = rig->raft.term + (flags != 0),
		.round = rig->raft.round,
		.stamp = rig->now};
	RT_ASSERT(sh_raft_recv(&rig->raft, rig->now, &vote, NULL) == RT_OK);
	settle(rig);
}

static void rig_lead(struct rig *rig)
{
	rig->now = sh_raft_next_timeout(&rig->raft);
	RT_ASSERT(sh_raft_tick(&rig->raft, rig->now) == RT_OK);
	settle(rig);
	grant(rig, SH_FLAG_PRE);
	grant(rig, 0);
	RT_ASSERT(sh_raft_leads(&rig->raft));
}

static void rig_close(struct rig *rig)
{
	sh_raft_done(&rig->raft);
	sh_out_queue_done(&rig->queue);
}

/* What the host hands on beside the message. False: it would refuse the message. */
static bool entries_of(const struct sh_message *message, struct sh_raft_entry *entries)
{
	static struct sh_members members[SH_MESSAGE_RECORDS];
	for (uint32_t i = 0; i < message->head.count; i++) {
		struct ps_record record;
		if (ps_record_peek(message->records[i], &record) != RT_OK) {
			return false;
		}
		entries[i] = (struct sh_raft_entry){.term = record.term};
		if (record.kind != PS_KIND_MEMBERS) {
			continue;
		}
		if (ps_record_decode(message->records[i], &record) != RT_OK ||
			sh_members_decode(record.answer, &members[i]) != RT_OK) {
			return false;
		}
		entries[i].members = &members[i];
	}
	return true;
}

static void receive(struct rig *rig, const struct sh_message *message)
{
	static struct sh_raft_entry entries[SH_MESSAGE_RECORDS];
	if (!entries_of(message, entries)) {
		return;
	}
	struct sh_raft before = rig->raft;
	rt_err err = sh_raft_recv(&rig->raft, rig->now, &message->head, entries);
	RT_ASSERT(err == RT_OK || err == RT_E_PROTO);
	if (err == RT_E_PROTO) {
		RT_ASSERT(rig->queue.count == rig->queue.head);
		RT_ASSERT(rig->raft.term == before.term && rig->raft.vote == before.vote &&
			  rig->raft.role == before.role && rig->raft.leader == before.leader &&
			  rig->raft.last == before.last && rig->raft.commit == before.commit &&
			  rig->raft.deadline == before.deadline);
	}
	settle(rig);
}

/* ---- frames ---- */
static void run_frame(struct rig rigs[2], struct rt_bytes frame)
{
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct sh_message message;
	while (sh_message_decode(&frame, &message, records) == RT_OK) {
		check_codec(&message);
		for (uint32_t i = 0; i < 2; i++) {
			receive(&rigs[i], &message);
			message.head.from = 2 + message.head.from % 4;
			message.head.to = SELF;
			receive(&rigs[i], &message);
		}
	}
}

static void run_fitted(struct rig rigs[2], struct rt_bytes body)
{
	static uint8_t frame[FRAME_MAX + 10];
	if (body.size > FRAME_MAX) {
		return;
	}
	uint8_t *at = pr_varint_put(frame, body.size);
	if (body.size > 0) {
		memcpy(at, body.data, body.size);
	}
	run_frame(rigs, rt_bytes_of(frame, (size_t)(at - frame) + body.size));
}

/* ---- scripts ---- */
static void send_one(struct rig *rig, struct rt_bytes *script, uint32_t type)
{
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	static const uint8_t flags[SH_MSG_TYPES] = {
		[SH_MSG_APPEND_RESULT] = SH_FLAG_REJECT | SH_FLAG_BEHIND,
		[SH_MSG_VOTE] = SH_FLAG_PRE | SH_FLAG_TRANSFER,
		[SH_MSG_VOTE_RESULT] = SH_FLAG_PRE | SH_FLAG_GRANTED};
	struct rt_bytes made[SCRIPT_RECORDS];
	const struct sh_raft *raft = &rig->raft;
	struct sh_message message = {.records = made};
	struct sh_raft_message *head = &message.head;
	uint32_t byte = script_byte(script);
	head->type = (uint8_t)type;
	head->from = 2 + byte % 4;
	head->to = SELF;
	head->flags = (uint8_t)(byte >> 2 & flags[type]);
	head->term = script_near(script, raft->term);
	head->index = script_near(script, byte >= 128 ? raft->commit : raft->last);
	head->log_term = byte % 32 < 24 ? sh_raft_term_at(raft, head->index)
					: script_near(script, raft->term);
	head->commit = script_near(script, head->index + 2);
	head->hint = script_near(script, head->index);
	head->round = script_near(script, raft->round);
	head->stamp = byte % 8 < 6 ? raft->round_at : script_near(script, rig->now);
	if (type == SH_MSG_APPEND || type == SH_MSG_CHUNK) {
		head->count = script_byte(script) % (SCRIPT_RECORDS + 1);
		script_records(script, head->log_term, &sh_raft_members(raft)->members, made);
	}
	check_codec(&message);
	uint8_t bytes[1024];
	size_t size = sh_message_size(&message);
	RT_ASSERT(size <= sizeof(bytes));
	sh_message_encode(bytes, &message);
	struct rt_bytes frame = rt_bytes_of(bytes, size);
	RT_ASSERT(sh_message_decode(&frame, &message, records) == RT_OK);
	receive(rig, &message);
}

static void install(struct rig *rig, struct rt_bytes *script)
{
	struct sh_raft_set set = {.index = script_byte(script) % 8,
		.members = script_members(script, &sh_raft_members(&rig->raft)->members)};
	uint64_t index = script_near(script, 12);
	uint64_t term = script_near(script, rig->raft.term);
	rt_err err = sh_raft_installed(&rig->raft, index, term, &set);
	RT_ASSERT(err == RT_OK || err == RT_E_INVAL);
}

static void look(struct rig *rig, struct rt_bytes *script)
{
	struct sh_raft_read read;
	if (sh_raft_read_begin(&rig->raft, rig->now, &read) == RT_OK) {
		read.round -= script_byte(script) % 2;
		RT_MAYBE(sh_raft_read_ok(&rig->raft, &read) == RT_OK);
	}
	RT_MAYBE(sh_raft_lease(&rig->raft, rig->now));
}

static void wish(struct rig *rig, struct rt_bytes *script)
{
	struct sh_members members;
	uint64_t index;
	uint32_t byte = script_byte(script);
	switch (byte % 8) {
	case 0:
		RT_MAYBE(sh_raft_propose(&rig->raft, 1 + byte / 8, &index) == RT_OK);
		return;
	case 1:
		members = script_members(script, &sh_raft_members(&rig->raft)->members);
		RT_MAYBE(sh_raft_propose_members(&rig->raft, &members, &index) == RT_OK);
		return;
	case 2:
		RT_MAYBE(sh_raft_transfer(&rig->raft, rig->now, byte / 8 % 5) == RT_OK);
		return;
	case 3:
		RT_ASSERT(sh_raft_resume(&rig->raft, byte / 8 % 5) == RT_OK);
		return;
	case 4:
		sh_raft_compact(&rig->raft, script_near(script, rig->raft.commit));
		return;
	case 5:
		install(rig, script);
		return;
	case 6:
		rig->lazy = byte / 8 % 2 != 0;
		rig->send_max = byte / 16;
		return;
	default:
		look(rig, script);
	}
}

static void run_script(struct rig *rig, struct rt_bytes script)
{
	for (uint32_t steps = 0; script.size > 0 && steps < 500; steps++) {
		uint32_t op = script_byte(&script) % 16;
		if (op >= SH_MSG_APPEND && op < SH_MSG_TYPES) {
			if (op != SH_MSG_CHUNK || script.size > 8) {
				send_one(rig, &script, op);
			}
		} else if (op < 12) {
			rig->now += script_byte(&script) * 8;
			RT_ASSERT(sh_raft_tick(&rig->raft, rig->now) == RT_OK);
		} else if (op < 14) {
			uint64_t index = script_near(&script, rig->written);
			RT_MAYBE(sh_raft_stored(&rig->raft, index, rig->generation) == RT_OK);
		} else {
			wish(rig, &script);
		}
		settle(rig);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig rigs[2];
	if (size == 0) {
		return 0;
	}
	struct rt_bytes rest = rt_bytes_of(data + 1, size - 1);
	rig_open(&rigs[0]);
	rig_open(&rigs[1]);
	rig_lead(&rigs[1]);
	switch (data[0] % 4) {
	case 0:
		run_frame(rigs, rest);
		break;
	case 1:
		run_fitted(rigs, rest);
		break;
	default:
		run_script(&rigs[0], rest);
		run_script(&rigs[1], rest);
	}
	rig_close(&rigs[0]);
	rig_close(&rigs[1]);
	return 0;
}
