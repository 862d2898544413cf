/*
 * Clients of the account register. Each has one operation under way and repeats it with the same
 * command id, at the same node or at another, until it has an answer that says what became of it.
 */
#include <stdlib.h>
#include <string.h>

#include "actors/account/account.pb-c.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "sharding/shard.h"
#include "tests/clustersim/clustersim.h"

#define ID_BYTES 12u

/* One sending of an operation. */
struct attempt {
	uint32_t client, op, node, boot;
};
struct call {                /* At a node. */
	struct ac_call call; /* first */
	struct cs *cs;
	struct attempt attempt;
	uint8_t id[ID_BYTES];
	uint8_t payload[256];
};
struct reply {
	struct attempt attempt;
	struct cs_answer answer; /* last: its payload follows */
};

static struct cs_op *op_of(struct cs *cs, uint32_t id)
{
	return &cs->ops[id];
}

static bool is_read(const struct cs_op *op)
{
	return op->kind == CS_OP_BALANCE || op->kind == CS_OP_STALE;
}

/* Where nothing breaks every call is served, whatever moves. But a read may name an offset at a
 * node that stops being a member before it has it. */
static bool must_work(const struct cs *cs, const struct cs_op *op)
{
	return cs->shape.calm && op->kind != CS_OP_STALE;
}

static void wait_until(struct cs *cs, struct cs_client *client, uint64_t at)
{
	client->wait++;
	cs_at(cs, at,
		(struct cs_event){.kind = CS_EV_CLIENT, .node = client->id, .boot = client->wait});
}

/* ---- a new operation ---- */
static struct cs_op *op_new(struct cs *cs, struct cs_client *client)
{
	if (cs->op_count + 1 >= cs->op_cap) {
		cs->op_cap = cs->op_cap == 0 ? 1024 : cs->op_cap * 2;
		cs->ops = realloc(cs->ops, cs->op_cap * sizeof(*cs->ops));
		RT_ASSERT(cs->ops != NULL);
	}
	struct cs_op *op = &cs->ops[++cs->op_count];
	*op = (struct cs_op){.id = cs->op_count,
		.client = client->id,
		.entity = cs_below(cs, cs->shape.entities),
		.invoked = cs->now,
		.returned = CS_NEVER};
	client->op = op->id;
	return op;
}

/* An older command of any client that was carried out. */
static uint32_t old_command(struct cs *cs)
{
	for (uint32_t tries = 0; tries < 8 && cs->op_count > 1; tries++) {
		const struct cs_op *op = op_of(cs, 1 + cs_below(cs, cs->op_count - 1));
		if (op->outcome == CS_DONE && !is_read(op) && op->repeats == 0 &&
			op->kind != CS_OP_ADMIN) {
			return op->id;
		}
	}
	return 0;
}

/* The sequence number of the entity as this client could know it. */
static uint64_t known_seq(struct cs *cs, uint32_t entity)
{
	uint64_t seq = 0;
	for (uint32_t i = cs->op_count; i > 0 && i + 60 > cs->op_count; i--) {
		const struct cs_op *op = op_of(cs, i);
		if (op->entity == entity && op->outcome == CS_DONE && op->seq > seq &&
			op->kind != CS_OP_ADMIN) {
			seq = op->seq;
		}
	}
	return seq;
}

static bool is_open(struct cs *cs, uint32_t entity)
{
	return known_seq(cs, entity) > 0;
}

static void choose_command(struct cs *cs, struct cs_op *op)
{
	uint32_t what = cs_below(cs, 100);
	op->amount = 1 + cs_below(cs, 1000);
	if (what < 3 || (what < 60 && !is_open(cs, op->entity))) {
		op->kind = CS_OP_OPEN;
	} else if (what < 60) {
		op->kind = CS_OP_DEPOSIT;
	} else if (what < 80) {
		op->kind = CS_OP_WITHDRAW;
		op->amount *= 2;
	} else {
		op->kind = CS_OP_CHECK;
	}
	if (cs_chance(cs, cs->shape.expecting)) {
		op->expected = known_seq(cs, op->entity) + 1;
	}
}

static void choose(struct cs *cs, struct cs_client *client)
{
	struct cs_op *op = op_new(cs, client);
	uint32_t older = cs_chance(cs, cs->shape.repeats) ? old_command(cs) : 0;
	op = op_of(cs, client->op);
	if (older != 0) {
		const struct cs_op *first = op_of(cs, older);
		op->kind = first->kind;
		op->entity = first->entity;
		op->amount = first->amount;
		op->expected = first->expected;
		op->repeats = older;
	} else if (cs_chance(cs, cs->shape.reads)) {
		bool stale = cs_chance(cs, cs->shape.stale_reads);
		op->kind = stale ? CS_OP_STALE : CS_OP_BALANCE;
		op->after = stale && cs_chance(cs, 50)
				    ? client->known_after[cs->entity_shard[op->entity]]
				    : 0;
	} else {
		choose_command(cs, op);
	}
}

/* ---- sending ---- */
static void send_to(struct cs *cs, struct cs_client *client, uint32_t node)
{
	struct cs_op *op = op_of(cs, client->op);
	op->attempts++;
	cs->stats->calls++;
	if (!cs_net_reaches(cs, node)) {
		/* Never got there, or nobody knows that it did not. */
		op->unrun += !cs->nodes[node].up;
		return;
	}
	struct attempt *attempt = malloc(sizeof(*attempt));
	RT_ASSERT(attempt != NULL);
	*attempt = (struct attempt){client->id, op->id, node, cs->nodes[node].boot};
	uint64_t delay = cs_between(cs, cs->shape.delay_min, cs->shape.delay_max);
	if (!cs->healed && cs_chance(cs, cs->shape.late)) {
		delay += cs_below(cs, cs->shape.late_max);
	}
	cs_at(cs, cs->now + delay,
		(struct cs_event){.kind = CS_EV_CALL, .node = node, .data = attempt});
}

static void move_on(struct cs *cs, struct cs_client *client)
{
	const struct cs_node *node = cs_any_node(cs);
	client->node = node == NULL ? 1 : node->id;
}

static void try(struct cs *cs, struct cs_client *client)
{
	if (!cs->nodes[client->node].up) {
		move_on(cs, client);
	}
	CS_TRACE(cs, "c%u sends %u to n%u", client->id, client->op, client->node);
	client->backs_off = false;
	send_to(cs, client, client->node);
	if (cs_chance(cs, cs->shape.double_send)) {
		const struct cs_node *other = cs_any_node(cs);
		send_to(cs, client, other == NULL ? client->node : other->id);
	}
	wait_until(
		cs, client, cs->now + cs_between(cs, cs->shape.timeout_min, cs->shape.timeout_max));
}

static void begin(struct cs *cs, struct cs_client *client)
{
	static const char *const names[] = {
		"opens", "deposits", "withdraws", "writes a check", "reads", "reads stale", "asks"};
	choose(cs, client);
	if (cs_chance(cs, 20)) {
		move_on(cs, client);
	}
	const struct cs_op *op = op_of(cs, client->op);
	CS_TRACE(cs, "c%u %u %s %" PRId64 " %s expects %" PRIu64 " repeats %u after %" PRIu64,
		client->id, op->id, names[op->kind], op->amount, cs->entities[op->entity],
		op->expected, op->repeats, op->after);
	try(cs, client);
}

static void begin_admin(struct cs *cs, struct cs_client *client)
{
	if (!cs_admin_next(cs)) {
		wait_until(cs, client, cs->now + CS_MS(20));
		return;
	}
	struct cs_op *op = op_new(cs, client);
	op->kind = CS_OP_ADMIN;
	CS_TRACE(cs, "operator %u: %s", op->id, cs->admin.name);
	try(cs, client);
}

void cs_client_due(struct cs *cs, const struct cs_event *event)
{
	struct cs_client *client = &cs->clients[event->node];
	if (event->boot != client->wait) {
		return;
	}
	if (client->op != 0) {
		CS_CHECK(cs, client->backs_off || !must_work(cs, op_of(cs, client->op)),
			"nothing is broken, and op %u is not answered", client->op);
		cs->stats->retries++;
		if (cs_chance(cs, 60)) {
			move_on(cs, client);
		}
		try(cs, client);
	} else if (client->id == 0) {
		begin_admin(cs, client);
	} else if (!cs->quiet) {
		begin(cs, client);
	}
}

void cs_client_start(struct cs *cs)
{
	for (uint32_t i = 0; i < cs->shape.entities; i++) {
		snprintf(cs->entities[i], sizeof(cs->entities[i]), "a%u", i);
		struct ac_call call = {.in = {.type = rt_bytes_str("account"),
					       .id = rt_bytes_str(cs->entities[i])}};
		sh_region_address(&call, cs->shape.shards);
		cs->entity_shard[i] = call.shard;
	}
	for (uint32_t i = 0; i <= cs->shape.clients; i++) {
		struct cs_client *client = &cs->clients[i];
		client->id = i;
		client->node = 1;
		wait_until(cs, client, CS_MS(30) + cs_below(cs, CS_MS(100)));
	}
}

bool cs_client_idle(const struct cs *cs)
{
	for (uint32_t i = 0; i <= cs->shape.clients; i++) {
		if (cs->clients[i].op != 0) {
			return false;
		}
	}
	return cs_admin_idle(cs);
}

/* ---- at a node ---- */
static size_t pack(const struct cs_op *op, uint8_t *at)
{
	switch (op->kind) {
	case CS_OP_DEPOSIT: {
		Account__Deposit deposit = ACCOUNT__DEPOSIT__INIT;
		char ref[16];
		snprintf(ref, sizeof(ref), "r%u", op->repeats != 0 ? op->repeats : op->id);
		deposit.amount = op->amount;
		deposit.ref = ref;
		return account__deposit__pack(&deposit, at);
	}
	case CS_OP_WITHDRAW: {
		Account__WithdrawAtm withdraw = ACCOUNT__WITHDRAW_ATM__INIT;
		withdraw.amount = op->amount;
		return account__withdraw_atm__pack(&withdraw, at);
	}
	case CS_OP_CHECK: {
		Account__WriteCheck check = ACCOUNT__WRITE_CHECK__INIT;
		check.number = op->repeats != 0 ? op->repeats : op->id;
		check.amount = op->amount;
		return account__write_check__pack(&check, at);
	}
	default:
		return 0;
	}
}

static const char *name_of(struct cs *cs, const struct cs_op *op)
{
	static const char *const names[] = {
		"Open", "Deposit", "WithdrawAtm", "WriteCheck", "Balance", "Balance"};
	return op->kind == CS_OP_ADMIN ? cs->admin.name : names[op->kind];
}

static void take_payload(struct cs_answer *out, const struct ac_call *call)
{
	Account__Standing *standing = NULL;
	if (rt_bytes_equal(call->in.type, rt_bytes_str("account")) &&
		(call->out.payload.size > 0 || call->out.code == TROUPE__CODE__CODE_OK)) {
		standing = account__standing__unpack(
			NULL, call->out.payload.size, call->out.payload.data);
	}
	if (standing != NULL) {
		out->has_balance = true;
		out->balance = standing->balance;
		account__standing__free_unpacked(standing, NULL);
	}
}

static void done(struct ac_call *ac)
{
	struct call *call = (struct call *)ac;
	struct cs *cs = call->cs;
	const struct cs_node *node = &cs->nodes[call->attempt.node];
	const struct pr_answer *out = &ac->out;
	if (!node->muted && cs_net_reaches(cs, node->id)) {
		struct reply *reply = calloc(1, sizeof(*reply) + out->payload.size);
		RT_ASSERT(reply != NULL);
		reply->attempt = call->attempt;
		reply->answer = (struct cs_answer){.code = out->code,
			.events = out->events,
			.retry_after_ms = out->retry_after_ms,
			.shard = out->shard,
			.offset = out->offset,
			.seq = out->seq,
			.node = out->node,
			.repeated = out->repeated,
			.size = out->payload.size};
		snprintf(reply->answer.error, sizeof(reply->answer.error), "%.*s",
			(int)out->error.size, (const char *)out->error.data);
		if (out->payload.size > 0) {
			memcpy(reply->answer.payload, out->payload.data, out->payload.size);
		}
		take_payload(&reply->answer, ac);
		cs_at(cs, cs->now + cs_between(cs, cs->shape.delay_min, cs->shape.delay_max),
			(struct cs_event){
				.kind = CS_EV_ANSWER, .node = call->attempt.client, .data = reply});
	}
	ac_call_clear(ac);
	free(call);
}

static void make_id(const struct cs *cs, const struct cs_op *op, uint8_t out[ID_BYTES])
{
	uint64_t number = op->repeats != 0 ? op->repeats : op->id;
	uint64_t mixed = rt_hash_mix(number + cs->seed);
	memcpy(out, &mixed, 8);
	memcpy(out + 8, &number, 4);
}

static struct call *call_new(struct cs *cs, const struct attempt *attempt)
{
	const struct cs_op *op = op_of(cs, attempt->op);
	struct call *call = calloc(1, sizeof(*call));
	RT_ASSERT(call != NULL);
	call->cs = cs;
	call->attempt = *attempt;
	make_id(cs, op, call->id);
	bool admin = op->kind == CS_OP_ADMIN;
	size_t size = pack(op, call->payload);
	if (admin) {
		size = cs->admin.size;
		memcpy(call->payload, cs->admin.payload, size);
	}
	struct pr_call *in = &call->call.in;
	in->type = rt_bytes_str(admin ? "cluster" : "account");
	in->id = rt_bytes_str(admin ? "cluster" : cs->entities[op->entity]);
	in->name = rt_bytes_str(name_of(cs, op));
	in->payload = rt_bytes_of(call->payload, size);
	in->kind = TROUPE__KIND__KIND_QUERY;
	if (!is_read(op)) {
		in->kind = TROUPE__KIND__KIND_COMMAND;
		in->command_id = rt_bytes_of(call->id, sizeof(call->id));
	}
	in->expected = op->expected;
	in->stale = op->kind == CS_OP_STALE;
	in->after = op->after;
	call->call.done = done;
	return call;
}

void cs_client_call(struct cs *cs, struct cs_event *event)
{
	const struct attempt *attempt = event->data;
	struct cs_node *node = &cs->nodes[attempt->node];
	struct cs_op *op = op_of(cs, attempt->op);
	/* The payload of an operator's command that was answered is gone. */
	bool over = op->kind == CS_OP_ADMIN && op->outcome != CS_PENDING;
	if (!node->up || node->boot != attempt->boot || over) {
		op->unrun++; /* It will never get there. */
		return;
	}
	struct call *call = call_new(cs, attempt);
	if (cs_chance(cs, cs->shape.deadlines)) {
		call->call.deadline_ms =
			cs_node_clock_ns(node) / 1000000 + cs_between(cs, 100, 3000);
	}
	cs_node_call(node, &call->call);
}

/* ---- answers ---- */
static void finish(struct cs *cs, struct cs_client *client, enum cs_outcome outcome,
	const struct cs_answer *answer)
{
	struct cs_op *op = op_of(cs, client->op);
	op->outcome = outcome;
	op->returned = cs->now;
	op->seq = answer->seq;
	op->offset = answer->offset;
	op->events = answer->events;
	op->has_balance = answer->has_balance;
	op->balance = answer->balance;
	client->op = 0;
	cs->stats->commands += outcome == CS_DONE && !is_read(op);
	cs->stats->reads += outcome == CS_DONE && op->kind == CS_OP_BALANCE;
	cs->stats->stale += outcome == CS_DONE && op->kind == CS_OP_STALE;
	cs->stats->refusals += outcome == CS_REFUSED;
	cs->stats->conflicts += outcome == CS_CONFLICT;
	cs->stats->repeats += answer->repeated;
	if (op->kind == CS_OP_ADMIN) {
		cs_admin_answered(cs, answer);
		wait_until(cs, client, cs->now + (outcome == CS_DONE ? CS_MS(1) : CS_MS(200)));
		return;
	}
	if (outcome == CS_DONE && !is_read(op) &&
		answer->offset > client->known_after[answer->shard]) {
		client->known_after[answer->shard] = answer->offset;
	}
	wait_until(cs, client, cs->now + cs_below(cs, cs->shape.think_max));
}

/* Nothing was written, and nothing of it will be. */
static bool ran_not(uint32_t code)
{
	return code == TROUPE__CODE__CODE_REFUSED || code == TROUPE__CODE__CODE_CONFLICT ||
	       code == TROUPE__CODE__CODE_BUSY || code == TROUPE__CODE__CODE_UNAVAILABLE;
}

static void again(struct cs *cs, struct cs_client *client, const struct cs_answer *answer)
{
	const struct cs_op *op = op_of(cs, client->op);
	CS_CHECK(cs, !must_work(cs, op) || answer->code == TROUPE__CODE__CODE_BUSY,
		"nothing is broken, and op %u is answered code %u: %s", op->id, answer->code,
		answer->error);
	if (ran_not(answer->code) && op->unrun == op->attempts && !is_read(op) &&
		op->kind != CS_OP_ADMIN && cs_chance(cs, cs->shape.gives_up)) {
		cs->stats->given_up++;
		finish(cs, client, CS_GIVEN_UP, answer);
		return;
	}
	uint64_t wait = CS_MS(answer->retry_after_ms);
	wait += CS_MS(5) + cs_below(cs, CS_MS(60));
	cs->stats->unknown += answer->code == TROUPE__CODE__CODE_UNKNOWN ||
			      answer->code == TROUPE__CODE__CODE_TIMEOUT;
	cs->stats->busy += answer->code == TROUPE__CODE__CODE_BUSY;
	client->backs_off = true;
	wait_until(cs, client, cs->now + wait);
}

/* Everybody who is told that a command was carried out is told the same. */
static void check_same(struct cs *cs, const struct cs_op *op, const struct cs_answer *answer)
{
	if (op->outcome == CS_DONE && answer->code == TROUPE__CODE__CODE_OK && !is_read(op) &&
		op->kind != CS_OP_ADMIN) {
		CS_CHECK(cs,
			op->seq == answer->seq && op->offset == answer->offset &&
				op->events == answer->events && op->balance == answer->balance,
			"op %u was answered seq %" PRIu64 " at %" PRIu64 ", and now seq %" PRIu64
			" at %" PRIu64,
			op->id, op->seq, op->offset, answer->seq, answer->offset);
	}
}

void cs_client_answer(struct cs *cs, struct cs_event *event)
{
	const struct reply *reply = event->data;
	const struct cs_answer *answer = &reply->answer;
	struct cs_client *client = &cs->clients[reply->attempt.client];
	struct cs_op *op = op_of(cs, reply->attempt.op);
	cs->stats->answers++;
	op->unrun += ran_not(answer->code);
	CS_CHECK(cs, answer->code != TROUPE__CODE__CODE_OK || answer->error[0] == 0,
		"op %u is done, and yet its answer says: %s", op->id, answer->error);
	CS_TRACE(cs,
		"c%u %u is answered code %u seq %" PRIu64 " at %" PRIu64 " balance %" PRId64
		"%s by n%" PRIu64 " %s",
		client->id, op->id, answer->code, answer->seq, answer->offset, answer->balance,
		answer->repeated ? " again" : "", answer->node, answer->error);
	if (client->op != op->id) {
		check_same(cs, op, answer);
		return;
	}
	switch ((Troupe__Code)answer->code) {
	case TROUPE__CODE__CODE_OK:
		finish(cs, client, CS_DONE, answer);
		break;
	case TROUPE__CODE__CODE_REFUSED:
		finish(cs, client, CS_REFUSED, answer);
		break;
	case TROUPE__CODE__CODE_CONFLICT:
		finish(cs, client, CS_CONFLICT, answer);
		break;
	case TROUPE__CODE__CODE_NOT_FOUND:
		finish(cs, client, CS_NOT_FOUND, answer);
		break;
	case TROUPE__CODE__CODE_BUSY:
	case TROUPE__CODE__CODE_UNAVAILABLE:
	case TROUPE__CODE__CODE_UNKNOWN:
	case TROUPE__CODE__CODE_TIMEOUT:
		again(cs, client, answer);
		break;
	default:
		cs_fail(cs, "op %u is answered code %u: %s", op->id, answer->code, answer->error);
	}
}
