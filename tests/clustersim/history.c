/*
 * What clients were told, against what was written.
 *
 * With unique ids and one stream per entity the check is not a search: every command that was
 * carried out has its one record, with its events, where its answer says; what was refused has
 * none; order in real time is order in the stream; and what was read at a version is the fold of
 * the events up to it, with everything in it that was acknowledged before the read began.
 */
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.pb-c.h"
#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "tests/clustersim/clustersim.h"

struct step { /* The entity after one event. */
	int64_t balance;
	uint32_t op;
	uint64_t offset;
};
struct stream {
	struct step *steps; /* [0]: no event yet */
	uint64_t count, cap;
};
struct history {
	struct cs *cs;
	struct stream streams[CS_ENTITIES];
	uint64_t *record_of; /* by op: offset, 0: none */
};

static uint32_t entity_of(const struct cs *cs, struct rt_bytes pid)
{
	for (uint32_t i = 0; i < cs->shape.entities; i++) {
		char name[40];
		int size = snprintf(name, sizeof(name), "account|%s", cs->entities[i]);
		if (rt_bytes_equal(pid, rt_bytes_of(name, (size_t)size))) {
			return i;
		}
	}
	return CS_ENTITIES;
}

/* ---- the streams ---- */
static int64_t delta_of(struct cs *cs, const struct cs_op *op, const struct ps_event *event)
{
	int64_t delta = 0;
	bool good = false;
	size_t size = event->payload.size;
	const uint8_t *data = event->payload.data;
	if (rt_bytes_equal(event->manifest, rt_bytes_str("AccountOpened"))) {
		good = op->kind == CS_OP_OPEN;
	} else if (rt_bytes_equal(event->manifest, rt_bytes_str("MoneyDeposited"))) {
		Account__MoneyDeposited *m = account__money_deposited__unpack(NULL, size, data);
		good = op->kind == CS_OP_DEPOSIT && m != NULL && m->amount == op->amount;
		delta = op->amount;
		account__money_deposited__free_unpacked(m, NULL);
	} else if (rt_bytes_equal(event->manifest, rt_bytes_str("CheckWritten"))) {
		Account__CheckWritten *m = account__check_written__unpack(NULL, size, data);
		good = op->kind == CS_OP_CHECK && m != NULL && m->amount == op->amount &&
		       m->number == op->id;
		delta = -op->amount;
		account__check_written__free_unpacked(m, NULL);
	} else if (rt_bytes_equal(event->manifest, rt_bytes_str("AtmWithdrawn"))) {
		Account__AtmWithdrawn *m = account__atm_withdrawn__unpack(NULL, size, data);
		good = op->kind == CS_OP_WITHDRAW && m != NULL && m->amount == op->amount;
		delta = -op->amount;
		account__atm_withdrawn__free_unpacked(m, NULL);
	}
	CS_CHECK(cs, good, "the event of op %u is not what it asked for", op->id);
	return delta;
}

static void push_step(struct stream *stream, const struct step *step)
{
	if (stream->count == stream->cap) {
		stream->cap = stream->cap == 0 ? 64 : stream->cap * 2;
		stream->steps = realloc(stream->steps, stream->cap * sizeof(*stream->steps));
		RT_ASSERT(stream->steps != NULL);
	}
	stream->steps[stream->count++] = *step;
}

static struct cs_op *command_of(struct history *history, const struct ps_record *record)
{
	struct cs *cs = history->cs;
	uint32_t number = 0;
	if (record->command_id.size == 12) {
		memcpy(&number, record->command_id.data + 8, 4);
	}
	CS_CHECK(cs, number >= 1 && number <= cs->op_count && cs->ops[number].repeats == 0,
		"a command was written that nobody sent");
	return &cs->ops[number];
}

static void add_record(
	struct history *history, uint32_t shard, uint64_t offset, const struct ps_record *record)
{
	struct cs *cs = history->cs;
	struct cs_op *op = command_of(history, record);
	uint32_t entity = entity_of(cs, record->pid);
	CS_CHECK(cs, entity == op->entity && cs->entity_shard[entity] == shard,
		"op %u was written to another entity", op->id);
	CS_CHECK(cs, history->record_of[op->id] == 0,
		"op %u is there TWICE: %" PRIu64 " and %" PRIu64 " of shard %u", op->id,
		history->record_of[op->id], offset, shard);
	history->record_of[op->id] = offset;
	struct stream *stream = &history->streams[entity];
	CS_CHECK(cs, record->first_seq == stream->count && record->event_count == 1,
		"op %u of %s has number %" PRIu64 " after %" PRIu64, op->id, cs->entities[entity],
		record->first_seq, stream->count - 1);
	CS_CHECK(cs, op->expected == 0 || op->expected == record->first_seq,
		"op %u expected version %" PRIu64 " and was written as %" PRIu64, op->id,
		op->expected - 1, record->first_seq);
	struct rt_bytes events = record->events;
	struct ps_event event;
	while (ps_record_next_event(&events, &event)) {
		int64_t balance = stream->steps[stream->count - 1].balance;
		struct step step = {balance + delta_of(cs, op, &event), op->id, offset};
		CS_CHECK(cs, step.balance >= 0, "op %u overdraws %s", op->id, cs->entities[entity]);
		push_step(stream, &step);
	}
	Account__Standing *standing =
		account__standing__unpack(NULL, record->answer.size, record->answer.data);
	CS_CHECK(cs,
		standing != NULL && standing->balance == stream->steps[stream->count - 1].balance,
		"op %u has another answer than its events give", op->id);
	account__standing__free_unpacked(standing, NULL);
}

static void build(struct history *history)
{
	struct cs *cs = history->cs;
	for (uint32_t i = 0; i < CS_ENTITIES; i++) {
		push_step(&history->streams[i], &(struct step){0});
	}
	for (uint32_t shard = 0; shard < cs->shape.shards; shard++) {
		for (uint64_t at = 1; at <= cs->truth[shard].count; at++) {
			const struct cs_record *stored = &cs->truth[shard].records[at - 1];
			struct ps_record record;
			rt_err err =
				ps_record_decode(rt_bytes_of(stored->bytes, stored->size), &record);
			RT_ASSERT(err == RT_OK);
			if (record.kind == PS_KIND_COMMAND) {
				add_record(history, shard, at, &record);
			}
		}
	}
}

/* ---- commands ---- */
static void check_done(struct history *history, const struct cs_op *op)
{
	struct cs *cs = history->cs;
	uint32_t first = op->repeats != 0 ? op->repeats : op->id;
	const struct stream *stream = &history->streams[op->entity];
	uint64_t offset = history->record_of[first];
	CS_CHECK(cs, offset != 0, "op %u was ACKNOWLEDGED AND IS LOST", op->id);
	CS_CHECK(cs,
		offset == op->offset && op->events == 1 && op->seq < stream->count &&
			stream->steps[op->seq].op == first,
		"op %u was answered seq %" PRIu64 " at %" PRIu64 ", it is at %" PRIu64, op->id,
		op->seq, op->offset, offset);
	CS_CHECK(cs, op->has_balance && op->balance == stream->steps[op->seq].balance,
		"op %u was answered a balance of %" PRId64, op->id, op->balance);
}

/* Another sending of it may have been carried out later, unless each is known not to have been. */
static void check_refused(struct history *history, const struct cs_op *op)
{
	CS_CHECK(history->cs,
		op->repeats != 0 || op->attempts > op->unrun || history->record_of[op->id] == 0,
		"op %u was refused and is there, at %" PRIu64 "; %u sendings", op->id,
		history->record_of[op->id], op->attempts);
}

/* What returned before another began stands before it. */
static void check_order(struct history *history, uint32_t entity)
{
	const struct stream *stream = &history->streams[entity];
	uint64_t latest = 0;
	uint32_t latest_op = 0;
	for (uint64_t seq = 1; seq < stream->count; seq++) {
		const struct cs_op *op = &history->cs->ops[stream->steps[seq].op];
		/* Who was refused and is there was sent more than once. */
		CS_CHECK(history->cs, op->outcome != CS_DONE || op->returned >= latest,
			"op %u had returned before op %u began, and stands behind it", op->id,
			latest_op);
		if (op->invoked > latest) {
			latest = op->invoked;
			latest_op = op->id;
		}
	}
}

/* ---- reads, and refusals, which are reads as well ---- */
static bool is_linear_read(const struct cs_op *op)
{
	return (op->kind == CS_OP_BALANCE && op->outcome == CS_DONE) ||
	       (op->kind != CS_OP_STALE && op->kind != CS_OP_ADMIN &&
		       (op->outcome == CS_CONFLICT || op->outcome == CS_REFUSED));
}

static void check_version(struct history *history, const struct cs_op *op)
{
	struct cs *cs = history->cs;
	const struct stream *stream = &history->streams[op->entity];
	CS_CHECK(cs, op->seq < stream->count, "op %u saw version %" PRIu64 " of %" PRIu64, op->id,
		op->seq, stream->count - 1);
	CS_CHECK(cs, !op->has_balance || op->balance == stream->steps[op->seq].balance,
		"op %u read %" PRId64 " at version %" PRIu64 ", it was %" PRId64, op->id,
		op->balance, op->seq, stream->steps[op->seq].balance);
	if (op->seq > 0) {
		const struct cs_op *last = &cs->ops[stream->steps[op->seq].op];
		CS_CHECK(cs, last->invoked <= op->returned, "op %u saw op %u before it began",
			op->id, last->id);
	}
	CS_CHECK(cs, op->outcome != CS_CONFLICT || op->seq + 1 != op->expected,
		"op %u is in conflict with the version it expects", op->id);
}

/* The newest version that anybody was shown, by answer or read, until each moment. */
struct shown {
	uint64_t at, seq;
	uint32_t op;
};

static int by_time(const void *left, const void *right)
{
	const struct shown *a = left;
	const struct shown *b = right;
	if (a->at != b->at) {
		return a->at < b->at ? -1 : 1;
	}
	return a->op < b->op ? -1 : a->op > b->op;
}

static struct shown *collect_shown(const struct cs *cs, uint32_t entity, uint32_t *out_count)
{
	struct shown *list = calloc(cs->op_count + 1u, sizeof(*list));
	RT_ASSERT(list != NULL);
	for (uint32_t i = 1; i <= cs->op_count; i++) {
		const struct cs_op *op = &cs->ops[i];
		bool shows = op->kind != CS_OP_STALE && op->kind != CS_OP_ADMIN &&
			     (op->outcome == CS_DONE || is_linear_read(op));
		if (shows && op->entity == entity) {
			list[(*out_count)++] = (struct shown){op->returned, op->seq, i};
		}
	}
	qsort(list, *out_count, sizeof(*list), by_time);
	uint64_t newest = 0;
	for (uint32_t i = 0; i < *out_count; i++) {
		newest = list[i].seq > newest ? list[i].seq : newest;
		list[i].seq = newest;
	}
	return list;
}

/* Newest version shown before that moment. */
static uint64_t shown_before(const struct shown *list, uint32_t count, uint64_t at)
{
	uint32_t low = 0;
	uint32_t high = count;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (list[middle].at < at) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low == 0 ? 0 : list[low - 1].seq;
}

static void check_reads(struct history *history, uint32_t entity)
{
	struct cs *cs = history->cs;
	uint32_t count = 0;
	struct shown *list = collect_shown(cs, entity, &count);
	for (uint32_t i = 1; i <= cs->op_count; i++) {
		const struct cs_op *op = &cs->ops[i];
		if (op->entity != entity || op->kind == CS_OP_ADMIN) {
			continue;
		}
		uint64_t before = shown_before(list, count, op->invoked);
		bool none = op->kind == CS_OP_BALANCE && op->outcome == CS_NOT_FOUND;
		if (is_linear_read(op) || none) {
			CS_CHECK(cs, (none ? 0 : op->seq) >= before,
				"STALE: op %u saw version %" PRIu64 ", %" PRIu64
				" had been shown before",
				op->id, op->seq, before);
		}
	}
	free(list);
}

static uint64_t offset_shown(const struct history *history, const struct cs_op *op)
{
	/* A stale read that is to include an offset: its version is not older than that. */
	const struct stream *stream = &history->streams[op->entity];
	uint64_t seq = 0;
	for (uint64_t i = 1; i < stream->count && stream->steps[i].offset <= op->after; i++) {
		seq = i;
	}
	return seq;
}

static void check_op(struct history *history, const struct cs_op *op)
{
	if (op->kind == CS_OP_ADMIN || op->outcome == CS_PENDING) {
		return;
	}
	bool reads = op->kind == CS_OP_BALANCE || op->kind == CS_OP_STALE;
	if (op->outcome == CS_DONE && !reads) {
		check_done(history, op);
		return;
	}
	if (op->outcome != CS_NOT_FOUND && op->outcome != CS_GIVEN_UP) {
		check_version(history, op);
	}
	if (!reads) {
		check_refused(history, op);
	}
	if (op->kind == CS_OP_STALE && op->after != 0) {
		uint64_t seq = op->outcome == CS_NOT_FOUND ? 0 : op->seq;
		CS_CHECK(history->cs, seq >= offset_shown(history, op),
			"op %u is to include offset %" PRIu64 " and saw version %" PRIu64, op->id,
			op->after, seq);
	}
}

void cs_history_check(struct cs *cs)
{
	struct history history = {.cs = cs};
	history.record_of = calloc(cs->op_count + 1u, sizeof(uint64_t));
	RT_ASSERT(history.record_of != NULL);
	build(&history);
	for (uint32_t i = 1; i <= cs->op_count; i++) {
		check_op(&history, &cs->ops[i]);
	}
	for (uint32_t i = 0; i < cs->shape.entities; i++) {
		check_order(&history, i);
		check_reads(&history, i);
	}
	for (uint32_t i = 0; i < CS_ENTITIES; i++) {
		free(history.streams[i].steps);
	}
	free(history.record_of);
}
