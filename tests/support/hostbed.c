#include "tests/support/hostbed.h"

#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"

bool hostbed_inside;
bool hostbed_short;

static rt_err leave(rt_err err)
{
	hostbed_inside = false;
	return err;
}
#define PRODUCT(call) (hostbed_inside = true, leave(call))

static void assert_ok(rt_err err)
{
	bool expected = hostbed_short && (err == RT_E_NOMEM || err == RT_E_CLOSED);
	assert_err(expected ? RT_OK : err, RT_OK);
}

static struct rt_bytes copy_of(struct rt_bytes bytes)
{
	uint8_t *copy = malloc(bytes.size + 1);
	assert_non_null(copy);
	if (bytes.size > 0) {
		memcpy(copy, bytes.data, bytes.size);
	}
	return rt_bytes_of(copy, bytes.size);
}

static void drop_bytes(struct rt_bytes bytes)
{
	free((void *)(uintptr_t)bytes.data);
}

/* ---- disk ---- */
static void apply(struct hostbed *bed, const struct hostbed_op *op)
{
	uint32_t i = 0;
	switch (op->kind) {
	case SH_WRITE_RECORD:
		if (bed->first == bed->end && bed->first == 0) {
			bed->first = bed->end = op->index;
		}
		assert_int_equal(op->index, bed->end);
		bed->log = realloc(bed->log, (bed->end + 1) * sizeof(*bed->log));
		bed->log[bed->end++] = op->bytes;
		return;
	case SH_WRITE_CUT:
		assert_true(op->index >= bed->first && op->index < bed->end);
		bed->end = op->index;
		return;
	case SH_WRITE_WIPE:
		bed->first = bed->end = op->index;
		return;
	case SH_WRITE_META:
		while (i < bed->row_count && !rt_bytes_equal(bed->rows[i].key, op->key)) {
			i++;
		}
		bed->row_count += i == bed->row_count;
		assert_true(bed->row_count <= 2);
		bed->rows[i] = (struct hostbed_row){op->key, op->bytes};
		return;
	}
}

static void add_op(struct hostbed *bed, struct hostbed_op op)
{
	if (bed->op_count == bed->op_cap) {
		bed->op_cap = bed->op_cap * 2 + 64;
		bed->ops = realloc(bed->ops, bed->op_cap * sizeof(*bed->ops));
	}
	op.key = copy_of(op.key);
	op.bytes = copy_of(op.bytes);
	bed->ops[bed->op_count++] = op;
	apply(bed, &op);
}

static rt_err port_write_outside(void *arg, const struct sh_write *write)
{
	struct hostbed *bed = arg;
	if (bed->write_fails > 0 && --bed->write_fails == 0) {
		return RT_E_IO;
	}
	add_op(bed, (struct hostbed_op){.kind = write->kind,
			    .number = bed->base + sh_replica_written(bed->replica) + 1,
			    .index = write->index,
			    .key = write->key,
			    .bytes = write->bytes});
	return RT_OK;
}

static rt_err port_write(void *arg, const struct sh_write *write)
{
	bool inside = hostbed_inside;
	hostbed_inside = false;
	rt_err err = port_write_outside(arg, write);
	hostbed_inside = inside;
	return err;
}

static rt_err port_read_outside(void *arg, const struct sh_replica_read *read)
{
	struct hostbed *bed = arg;
	if (bed->read_full) {
		return RT_E_FULL;
	}
	assert_true(read->from <= read->upto);
	struct hostbed_read *item = calloc(1, sizeof(*item));
	item->read = *read;
	struct hostbed_read **at = &bed->reads;
	while (*at != NULL) {
		at = &(*at)->next;
	}
	*at = item;
	return RT_OK;
}

static rt_err port_read(void *arg, const struct sh_replica_read *read)
{
	bool inside = hostbed_inside;
	hostbed_inside = false;
	rt_err err = port_read_outside(arg, read);
	hostbed_inside = inside;
	return err;
}

static uint64_t port_first(void *arg)
{
	const struct hostbed *bed = arg;
	return bed->first == bed->end ? 1 : bed->first;
}

static rt_err port_meta_outside(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	const struct hostbed *bed = arg;
	bool row_fails = bed->row_fails != NULL && memcmp(key.data, bed->row_fails, 4) == 0;
	if (bed->write_fails > 0 || row_fails) {
		return rt_errinfo_set(info, RT_E_IO, "planted");
	}
	for (uint32_t i = 0; i < bed->row_count; i++) {
		if (rt_bytes_equal(bed->rows[i].key, key)) {
			*out = copy_of(bed->rows[i].bytes);
			return RT_OK;
		}
	}
	return RT_E_NOTFOUND;
}

static rt_err port_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	bool inside = hostbed_inside;
	hostbed_inside = false;
	rt_err err = port_meta_outside(arg, key, out, info);
	hostbed_inside = inside;
	return err;
}

static rt_err port_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	const struct hostbed *bed = arg;
	if (bed->read_full) {
		return rt_errinfo_set(info, RT_E_IO, "planted");
	}
	for (uint64_t i = from > bed->first ? from : bed->first; i < bed->end; i++) {
		if (!visit(visit_arg, i, bed->log[i])) {
			return RT_OK;
		}
	}
	return RT_OK;
}

/* ---- network ---- */
static void port_send(void *arg, const struct sh_message *message)
{
	struct hostbed *bed = arg;
	bool inside = hostbed_inside;
	hostbed_inside = false;
	uint32_t count = message->head.count;
	struct hostbed_message *item = calloc(1, sizeof(*item));
	item->message = *message;
	struct rt_bytes *records = count == 0 ? NULL : calloc(count, sizeof(*records));
	for (uint32_t i = 0; i < count; i++) {
		records[i] = copy_of(message->records[i]);
	}
	item->message.records = records;
	struct hostbed_message **at = &bed->sent;
	while (*at != NULL) {
		at = &(*at)->next;
	}
	*at = item;
	hostbed_inside = inside;
}

struct hostbed_message *hostbed_take(struct hostbed *bed, enum sh_message_type type)
{
	for (struct hostbed_message **at = &bed->sent; *at != NULL; at = &(*at)->next) {
		struct hostbed_message *item = *at;
		if (item->message.head.type == type) {
			*at = item->next;
			return item;
		}
	}
	return NULL;
}

void hostbed_drop(struct hostbed_message *item)
{
	for (uint32_t i = 0; item != NULL && i < item->message.head.count; i++) {
		drop_bytes(item->message.records[i]);
	}
	free(item == NULL ? NULL : (void *)(uintptr_t)item->message.records);
	free(item);
}

void hostbed_forget(struct hostbed *bed)
{
	while (bed->sent != NULL) {
		struct hostbed_message *item = bed->sent;
		bed->sent = item->next;
		hostbed_drop(item);
	}
}

uint32_t hostbed_count(const struct hostbed *bed, enum sh_message_type type)
{
	uint32_t count = 0;
	for (const struct hostbed_message *item = bed->sent; item != NULL; item = item->next) {
		count += item->message.head.type == type;
	}
	return count;
}

rt_err hostbed_give(struct hostbed *bed, uint64_t from, struct sh_raft_message head,
	const struct rt_bytes *records)
{
	head.from = from;
	head.to = bed->options.raft.node;
	struct sh_message message = {.head = head, .shard = HOSTBED_SHARD, .records = records};
	return PRODUCT(sh_replica_recv(bed->replica, bed->now, &message));
}

rt_err hostbed_pass(struct hostbed *bed, const struct hostbed_message *item)
{
	return PRODUCT(sh_replica_recv(bed->replica, bed->now, &item->message));
}

/* ---- owner ---- */
static void port_lead(void *arg, uint64_t term, uint64_t last)
{
	struct hostbed *bed = arg;
	assert_false(bed->leads);
	assert_int_equal(bed->committed, last);
	bed->leads = true;
	bed->lead_term = term;
	bed->lead_last = last;
	bed->leads_told++;
}

static void port_follow(void *arg, uint64_t term, uint64_t leader)
{
	struct hostbed *bed = arg;
	(void)term;
	bed->leads = false;
	bed->leader = leader;
	bed->follows_told++;
}

static void port_committed(void *arg, uint64_t upto)
{
	struct hostbed *bed = arg;
	assert_true(upto > bed->committed && upto < bed->end);
	bed->committed = upto;
}

static void port_installed(void *arg, uint64_t first, uint64_t last)
{
	struct hostbed *bed = arg;
	bed->installs_told++;
	bed->installed_first = first;
	bed->installed_last = last;
	bed->committed = last;
}

static void port_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	struct hostbed *bed = arg;
	bed->members = *set;
	bed->removed = bed->removed || removed;
}

static void port_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	struct hostbed *bed = arg;
	assert_true(err != RT_OK || index <= bed->committed);
	bed->readable_count++;
	bed->readable_ticket = ticket;
	bed->readable_err = err;
	bed->readable_index = index;
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

/* ---- life ---- */
struct sh_members hostbed_members(const char *members)
{
	struct sh_members out = {0};
	for (const char *at = members; *at != 0;) {
		char *end;
		uint64_t node = strtoull(at, &end, 10);
		assert_err(sh_members_put(&out, node, *end != 's'), RT_OK);
		at = end + (*end == 's');
		at += *at == ' ';
	}
	return out;
}

struct hostbed *hostbed_new(uint64_t node, const char *members)
{
	struct hostbed *bed = calloc(1, sizeof(*bed));
	assert_non_null(bed);
	bed->now = 10000;
	bed->options = (struct sh_replica_options){.shard = HOSTBED_SHARD,
		.raft = {.node = node, .seed = node},
		.first = hostbed_members(members),
		.port = &port,
		.arg = bed};
	return bed;
}

static void drop_reads(struct hostbed *bed)
{
	while (bed->reads != NULL) {
		struct hostbed_read *read = bed->reads;
		bed->reads = read->next;
		free(read);
	}
}

void hostbed_free(struct hostbed *bed)
{
	sh_replica_close(bed->replica);
	hostbed_forget(bed);
	drop_reads(bed);
	for (size_t i = 0; i < bed->op_count; i++) {
		drop_bytes(bed->ops[i].key);
		drop_bytes(bed->ops[i].bytes);
	}
	free(bed->ops);
	free(bed->log);
	free(bed);
}

rt_err hostbed_try_open(struct hostbed *bed, struct rt_errinfo *info)
{
	return PRODUCT(sh_replica_open(&bed->options, &bed->replica, info));
}

void hostbed_open(struct hostbed *bed)
{
	struct rt_errinfo info = {0};
	rt_err err = hostbed_try_open(bed, &info);
	if (err != RT_OK) {
		print_error("%s\n", info.text);
	}
	assert_err(err, RT_OK);
}

void hostbed_start(struct hostbed *bed)
{
	assert_ok(PRODUCT(sh_replica_start(bed->replica, bed->now)));
	sh_raft_check(sh_replica_raft(bed->replica));
}

bool hostbed_ended(struct hostbed *bed)
{
	return PRODUCT(sh_replica_tick(bed->replica, bed->now)) == RT_E_CLOSED;
}

void hostbed_crash(struct hostbed *bed)
{
	sh_replica_close(bed->replica);
	bed->replica = NULL;
	while (bed->op_count > 0 && bed->ops[bed->op_count - 1].number > bed->durable) {
		struct hostbed_op *op = &bed->ops[--bed->op_count];
		drop_bytes(op->key);
		drop_bytes(op->bytes);
	}
	bed->base = bed->durable;
	bed->first = bed->end = bed->row_count = 0;
	for (size_t i = 0; i < bed->op_count; i++) {
		apply(bed, &bed->ops[i]);
	}
	hostbed_forget(bed);
	drop_reads(bed);
	bed->leads = false;
	bed->committed = bed->leader = 0;
	bed->write_fails = 0;
}

void hostbed_sync_to(struct hostbed *bed, uint64_t number)
{
	bed->durable = bed->base + number;
	rt_err err = PRODUCT(sh_replica_durable(bed->replica, bed->now, number));
	assert_true(err == RT_OK || err == RT_E_CLOSED || (hostbed_short && err == RT_E_NOMEM));
}

void hostbed_sync(struct hostbed *bed)
{
	while (bed->durable < bed->base + sh_replica_written(bed->replica)) {
		hostbed_sync_to(bed, sh_replica_written(bed->replica));
	}
	sh_raft_check(sh_replica_raft(bed->replica));
}

void hostbed_wait(struct hostbed *bed, uint64_t ms)
{
	uint64_t until = bed->now + ms;
	for (;;) {
		uint64_t next = sh_replica_next_timeout(bed->replica);
		if (next > until) {
			break;
		}
		bed->now = next > bed->now ? next : bed->now + 1;
		assert_ok(PRODUCT(sh_replica_tick(bed->replica, bed->now)));
	}
	bed->now = until;
	assert_ok(PRODUCT(sh_replica_tick(bed->replica, bed->now)));
}

struct rt_bytes hostbed_record(uint64_t term, size_t bytes)
{
	uint8_t *payload = calloc(1, bytes + 1);
	struct ps_record head = {.term = term,
		.kind = PS_KIND_COMMAND,
		.time_ms = 1,
		.pid = rt_bytes_str("t|a"),
		.first_seq = 1,
		.answer = rt_bytes_of(payload, bytes)};
	size_t size = ps_record_size(&head, NULL);
	uint8_t *out = malloc(size);
	ps_record_encode(out, &head, NULL);
	free(payload);
	return rt_bytes_of(out, size);
}

struct rt_bytes hostbed_members_record(uint64_t term, const char *text)
{
	uint8_t bytes[SH_MEMBERS_BYTES];
	struct sh_members members = hostbed_members(text);
	struct ps_record head = {.term = term,
		.kind = PS_KIND_MEMBERS,
		.answer = rt_bytes_of(bytes, sh_members_encode(&members, bytes))};
	size_t size = ps_record_size(&head, NULL);
	uint8_t *out = malloc(size);
	ps_record_encode(out, &head, NULL);
	return rt_bytes_of(out, size);
}

rt_err hostbed_try_propose(struct hostbed *bed, uint32_t count, size_t bytes, uint64_t *out_first)
{
	struct rt_bytes *records = calloc(count, sizeof(*records));
	uint64_t number = bed->base + sh_replica_written(bed->replica) + 1;
	for (uint32_t i = 0; i < count; i++) {
		records[i] = hostbed_record(sh_replica_raft(bed->replica)->term, bytes);
	}
	uint64_t end = bed->end;
	size_t ops = bed->op_count;
	for (uint32_t i = 0; bed->leads && i < count; i++) { /* The owner's batch. */
		add_op(bed, (struct hostbed_op){.kind = SH_WRITE_RECORD,
				    .number = number,
				    .index = end + i,
				    .bytes = records[i]});
	}
	rt_err err = PRODUCT(sh_replica_propose(bed->replica, records, count, out_first));
	if (err != RT_OK && bed->op_count > ops) {
		assert_int_equal(bed->op_count, ops + count);
		while (bed->op_count > ops) {
			drop_bytes(bed->ops[--bed->op_count].bytes);
			drop_bytes(bed->ops[bed->op_count].key);
		}
		bed->end = end;
	}
	assert_true(err != RT_OK || *out_first == end);
	for (uint32_t i = 0; i < count; i++) {
		drop_bytes(records[i]);
	}
	free(records);
	return err;
}

uint64_t hostbed_propose(struct hostbed *bed, size_t bytes)
{
	uint64_t index = 0;
	assert_err(hostbed_try_propose(bed, 1, bytes, &index), RT_OK);
	return index;
}

bool hostbed_read(struct hostbed *bed, rt_err err)
{
	struct hostbed_read *item = bed->reads;
	if (item == NULL) {
		return false;
	}
	bed->reads = item->next;
	const struct sh_replica_read *read = &item->read;
	uint32_t count = 0;
	size_t bytes = 0;
	if (read->from < bed->first || read->upto >= bed->end) {
		err = err == RT_OK ? RT_E_NOTFOUND : err;
	}
	while (err == RT_OK && read->from + count <= read->upto && count < read->max_count &&
		bytes < read->max_bytes) {
		bytes += bed->log[read->from + count++].size;
	}
	err = PRODUCT(sh_replica_read_done(bed->replica, bed->now, read->ticket, err,
		count == 0 ? NULL : &bed->log[read->from], count));
	assert_true(err == RT_OK || err == RT_E_CLOSED || (hostbed_short && err == RT_E_NOMEM));
	free(item);
	return true;
}

/* ---- a whole group ---- */
static bool run_once(struct hostbed **beds, struct hostbed *bed)
{
	struct hostbed_message *item = bed->sent;
	if (item != NULL) {
		bed->sent = item->next;
		for (struct hostbed **to = beds; *to != NULL; to++) {
			if ((*to)->options.raft.node == item->message.head.to) {
				assert_ok(hostbed_pass(*to, item));
				sh_raft_check(sh_replica_raft((*to)->replica));
			}
		}
		hostbed_drop(item);
		return true;
	}
	if (hostbed_read(bed, RT_OK)) {
		return true;
	}
	if (bed->durable < bed->base + sh_replica_written(bed->replica)) {
		hostbed_sync(bed);
		return true;
	}
	return false;
}

void hostbed_run(struct hostbed **beds)
{
	bool busy = true;
	for (int rounds = 0; busy; rounds++) {
		assert_true(rounds < 100000);
		busy = false;
		for (struct hostbed **bed = beds; *bed != NULL; bed++) {
			busy = run_once(beds, *bed) || busy;
		}
	}
}

void hostbed_ack(struct hostbed *bed, uint64_t from, uint64_t index)
{
	const struct sh_raft *raft = sh_replica_raft(bed->replica);
	struct sh_raft_message head = {.type = SH_MSG_APPEND_RESULT,
		.term = raft->term,
		.index = index,
		.round = raft->round,
		.stamp = raft->round_at};
	assert_err(hostbed_give(bed, from, head, NULL), RT_OK);
	sh_raft_check(raft);
}

static void grant(struct hostbed *bed, uint64_t from)
{
	const struct sh_raft *raft = sh_replica_raft(bed->replica);
	bool pre = raft->role == SH_PRE_CANDIDATE;
	struct sh_raft_message head = {.type = SH_MSG_VOTE_RESULT,
		.flags = (uint8_t)(SH_FLAG_GRANTED | (pre ? SH_FLAG_PRE : 0)),
		.term = raft->term + pre,
		.round = raft->round,
		.stamp = raft->round_at};
	assert_err(hostbed_give(bed, from, head, NULL), RT_OK);
}

struct hostbed *hostbed_leader(const char *members)
{
	struct hostbed *bed = hostbed_new(1, members);
	hostbed_open(bed);
	hostbed_start(bed);
	const struct sh_raft *raft = sh_replica_raft(bed->replica);
	while (raft->role == SH_FOLLOWER) {
		hostbed_wait(bed, 100);
	}
	for (uint32_t i = 0; i < 2 && raft->role != SH_LEADER; i++) {
		grant(bed, 2);
		hostbed_sync(bed);
	}
	if (raft->role != SH_LEADER) {
		grant(bed, 3);
	}
	hostbed_sync(bed);
	assert_int_equal(raft->role, SH_LEADER);
	for (uint64_t node = 2; node <= 3 && !bed->leads; node++) {
		hostbed_ack(bed, node, raft->noop);
	}
	assert_true(bed->leads);
	hostbed_sync(bed);
	hostbed_forget(bed);
	return bed;
}

uint64_t hostbed_last(const struct hostbed *bed)
{
	return bed->end - 1;
}

uint64_t hostbed_term(const struct hostbed *bed, uint64_t index)
{
	struct ps_record record;
	assert_true(index >= bed->first && index < bed->end);
	assert_err(ps_record_decode(bed->log[index], &record), RT_OK);
	return record.term;
}
