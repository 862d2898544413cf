#include "tests/support/raftbed.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG_NOOP    (UINT64_C(1) << 63)
#define TAG_MEMBERS (UINT64_C(1) << 62)

__attribute__((format(printf, 3, 4))) static void trace(
	const struct bed *bed, uint64_t node, const char *format, ...)
{
	if (!bed->trace) {
		return;
	}
	va_list args;
	va_start(args, format);
	printf("%8" PRIu64 "  %" PRIu64 "  ", bed->now, node);
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

static const char *type_name(uint8_t type)
{
	static const char *const names[SH_MSG_TYPES] = {"-", "append", "append-result", "vote",
		"vote-result", "install", "timeout-now", "removed", "fetch", "chunk"};
	return type < SH_MSG_TYPES ? names[type] : "?";
}

static void *grow(void *old, size_t bytes)
{
	void *now = realloc(old, bytes);
	assert_non_null(now);
	return now;
}

/* ---- logs ---- */

static void log_push(struct bed_log *log, const struct bed_entry *entry)
{
	if (log->last == log->cap) {
		log->cap = log->cap ? 2 * log->cap : 64;
		log->entries = grow(log->entries, log->cap * sizeof(*log->entries));
	}
	log->entries[log->last++] = *entry;
}

static void log_copy(struct bed_log *to, const struct bed_log *from, uint64_t last)
{
	to->last = 0;
	for (uint64_t i = 0; i < last; i++) {
		log_push(to, &from->entries[i]);
	}
}

static void log_free(struct bed_log *log)
{
	free(log->entries);
	*log = (struct bed_log){0};
}

/* ---- members ---- */

struct sh_members bed_members(const char *text)
{
	struct sh_members members = {0};
	while (*text) {
		char *end;
		uint64_t node = strtoull(text, &end, 10);
		assert_ptr_not_equal(end, text);
		assert_err(sh_members_put(&members, node, *end != 's'), RT_OK);
		end += *end == 's';
		text = end + strspn(end, " ");
	}
	return members;
}

/* ---- disks ---- */

struct bed_write *bed_disk_write(struct bed_node *node, enum bed_write_kind kind)
{
	if (node->write_count == node->write_cap) {
		node->write_cap = node->write_cap ? 2 * node->write_cap : 16;
		node->writes = grow(node->writes, node->write_cap * sizeof(*node->writes));
	}
	struct bed_write *write = &node->writes[node->write_count++];
	*write = (struct bed_write){
		.kind = kind, .number = ++node->written, .due = node->bed->now + node->disk_ms};
	return write;
}

static void disk_apply(struct bed_disk *disk, struct bed_write *write)
{
	switch (write->kind) {
	case BED_HARD:
		disk->term = write->term;
		disk->vote = write->vote;
		return;
	case BED_APPEND:
		if (write->truncate) {
			disk->log.last = write->from - 1;
		}
		assert_int_equal(disk->log.last, write->from - 1);
		for (uint64_t i = 0; i < write->log.last; i++) {
			log_push(&disk->log, &write->log.entries[i]);
		}
		return;
	case BED_INSTALLING:
		disk->installing = true;
		disk->bar_index = write->from;
		disk->bar_term = write->term;
		return;
	case BED_INSTALLED:
		disk->installing = false;
		log_copy(&disk->log, &write->log, write->log.last);
		disk->base = write->base;
		break;
	case BED_FLOOR:
		break;
	}
	disk->floor = write->from;
	disk->floor_term = write->term;
	disk->set = write->set;
}

static void after_install(struct bed_node *node, const struct bed_write *write)
{
	log_copy(&node->log, &write->log, write->log.last);
	node->base = write->base;
	node->sets = true;
	bed_check_commit(node, write->from);
	node->committed = write->from;
	assert_err(sh_raft_installed(&node->raft, write->from, write->term, &write->set), RT_OK);
}

void bed_finish_oldest(struct bed_node *node)
{
	struct bed_write write = node->writes[0];
	memmove(node->writes, node->writes + 1, --node->write_count * sizeof(write));
	disk_apply(&node->disk, &write);
	node->durable = write.number;
	trace(node->bed, node->id, "disk done %" PRIu64 " kind %d", write.number, (int)write.kind);
	if (write.kind == BED_APPEND) {
		uint64_t upto = write.from + write.log.last - 1;
		assert_err(sh_raft_stored(&node->raft, upto, write.generation), RT_OK);
	} else if (write.kind == BED_INSTALLED) {
		after_install(node, &write);
	}
	log_free(&write.log);
	bed_drain(node);
}

/* ---- network ---- */

bool bed_fits(const struct sh_raft_message *head, uint8_t type, uint64_t from, uint64_t to)
{
	return (type == 0 || type == head->type) && (from == 0 || from == head->from) &&
	       (to == 0 || to == head->to);
}

static void leave(struct bed *bed, struct bed_message *message)
{
	const struct sh_raft_message *head = &message->head;
	bed_check_leaving(&bed->nodes[head->from], head);
	message->left = true;
	message->due = bed->now + bed->net_ms;
	for (uint32_t i = 0; i < bed->hold_count; i++) {
		const struct bed_rule *rule = &bed->holds[i];
		message->held |= bed_fits(head, rule->type, rule->from, rule->to);
	}
	bed->last[head->type][head->from][head->to] = *head;
	bed->sent[head->type]++;
}

void bed_remove_message(struct bed *bed, uint32_t i)
{
	free(bed->messages[i].entries);
	memmove(&bed->messages[i], &bed->messages[i + 1],
		(--bed->message_count - i) * sizeof(bed->messages[0]));
}

static void post(struct bed_node *node, const struct sh_raft_message *head)
{
	struct bed *bed = node->bed;
	assert_true(head->to >= 1 && head->to <= BED_NODES && head->to != node->id);
	assert_int_equal(head->from, node->id);
	bed_check_ack(node, head);
	if (bed->message_count == bed->message_cap) {
		bed->message_cap = bed->message_cap ? 2 * bed->message_cap : 64;
		bed->messages = grow(bed->messages, bed->message_cap * sizeof(*bed->messages));
	}
	struct bed_message *message = &bed->messages[bed->message_count++];
	*message = (struct bed_message){.head = *head, .behind = node->hard_written};
	if (head->type == SH_MSG_APPEND && head->count > 0) {
		size_t bytes = head->count * sizeof(struct bed_entry);
		message->entries = grow(NULL, bytes);
		memcpy(message->entries, &node->log.entries[head->index], bytes);
	}
	trace(bed, node->id,
		"-> %" PRIu64 " %s flags %u term %" PRIu64 " index %" PRIu64
		" count %u commit %" PRIu64 " hint %" PRIu64,
		head->to, type_name(head->type), head->flags, head->term, head->index, head->count,
		head->commit, head->hint);
	if (message->behind <= node->durable) {
		leave(bed, message);
	}
}

static void let_leave(struct bed_node *node)
{
	struct bed *bed = node->bed;
	for (uint32_t i = 0; i < bed->message_count; i++) {
		struct bed_message *message = &bed->messages[i];
		if (message->head.from == node->id && !message->left &&
			message->behind <= node->durable) {
			leave(bed, message);
		}
	}
}

rt_err bed_hear(struct bed *bed, const struct bed_message *message)
{
	const struct sh_raft_message *head = &message->head;
	struct bed_node *node = &bed->nodes[head->to];
	struct sh_raft_entry *entries = NULL;
	if (head->type == SH_MSG_APPEND) {
		entries = grow(NULL, (head->count + 1) * sizeof(*entries));
	}
	for (uint32_t i = 0; entries != NULL && i < head->count; i++) {
		const struct bed_entry *entry = &message->entries[i];
		entries[i].term = entry->term;
		entries[i].members = entry->has_members ? &entry->members : NULL;
	}
	trace(bed, head->to, "<- %" PRIu64 " %s term %" PRIu64 " index %" PRIu64 " count %u",
		head->from, type_name(head->type), head->term, head->index, head->count);
	rt_err err = sh_raft_recv(&node->raft, bed->now, head, entries);
	free(entries);
	node->incoming = message;
	bed_drain(node);
	node->incoming = NULL;
	return err;
}

static bool reaches(const struct bed *bed, const struct sh_raft_message *head)
{
	return bed->nodes[head->to].up && !bed->cut[head->from][head->to];
}

static void deliver_due(struct bed *bed)
{
	for (uint32_t i = 0; i < bed->message_count;) {
		struct bed_message message = bed->messages[i];
		if (!message.left || message.held || message.due > bed->now) {
			i++;
			continue;
		}
		bed->messages[i].entries = NULL;
		bed_remove_message(bed, i);
		if (reaches(bed, &message.head)) {
			assert_err(bed_hear(bed, &message), RT_OK);
		}
		free(message.entries);
	}
}

/* ---- outputs ---- */

static void take_entries(struct bed_node *node, const struct sh_out *out, struct bed_log *to)
{
	for (uint32_t i = 0; i < out->append.count; i++) {
		struct bed_entry entry = {.term = out->append.term};
		switch (out->append.source) {
		case SH_FROM_PROPOSAL:
			entry.tag = ++node->bed->next_tag;
			break;
		case SH_FROM_MESSAGE:
			assert_non_null(node->incoming);
			assert_true(out->append.skip + i < node->incoming->head.count);
			entry = node->incoming->entries[out->append.skip + i];
			break;
		case SH_FROM_NOOP:
			entry.tag = TAG_NOOP | entry.term;
			break;
		case SH_FROM_MEMBERS:
			entry.tag = TAG_MEMBERS | ++node->bed->next_tag;
			entry.has_members = true;
			entry.members = sh_raft_members(&node->raft)->members;
			break;
		}
		log_push(to, &entry);
	}
}

static void on_append(struct bed_node *node, const struct sh_out *out)
{
	uint64_t from = out->append.from;
	struct bed_write *write = bed_disk_write(node, BED_APPEND);
	trace(node->bed, node->id, "append %" PRIu64 " count %u truncate %d", from,
		out->append.count, out->append.truncate);
	write->from = from;
	write->truncate = out->append.truncate;
	write->generation = out->append.generation;
	take_entries(node, out, &write->log);
	if (out->append.truncate) {
		bed_check_cut(node, from, &write->log.entries[0]);
		node->log.last = from - 1;
	}
	assert_int_equal(node->log.last, from - 1);
	for (uint64_t i = 0; i < write->log.last; i++) {
		log_push(&node->log, &write->log.entries[i]);
		node->sets |= write->log.entries[i].has_members;
	}
}

static void on_commit(struct bed_node *node, uint64_t commit)
{
	struct bed *bed = node->bed;
	trace(bed, node->id, "commit %" PRIu64, commit);
	bed_check_commit(node, commit);
	uint64_t gap = bed->now - node->committed_at;
	node->longest_gap = gap > node->longest_gap ? gap : node->longest_gap;
	node->committed_at = bed->now;
	node->committed = commit;
}

static void on_hard(struct bed_node *node, const struct sh_out *out)
{
	struct bed_write *write = bed_disk_write(node, BED_HARD);
	write->term = out->hard.term;
	write->vote = out->hard.vote;
	node->hard_written = write->number;
	trace(node->bed, node->id, "hard term %" PRIu64 " vote %" PRIu64, write->term, write->vote);
}

static void on_install(struct bed_node *node, const struct sh_out *out)
{
	struct bed_write *write = bed_disk_write(node, BED_INSTALLING);
	write->from = node->raft.bar_index;
	write->term = node->raft.bar_term;
	node->fetch_from = out->install.source;
	node->fetch_due = node->bed->now + 4 * node->bed->net_ms;
	node->log.last = node->committed = 0;
	node->base = (struct sh_members){0};
	trace(node->bed, node->id, "install from %" PRIu64, out->install.source);
}

static void on_send(struct bed_node *node, const struct sh_out *out)
{
	if (out->send.type == SH_MSG_APPEND && out->send.count > 0) {
		assert_true(node->offer_count < SH_MEMBERS_MAX);
		node->offers[node->offer_count++] = out->send;
	} else {
		post(node, &out->send);
	}
}

static void on_out(struct bed_node *node, const struct sh_out *out)
{
	switch (out->kind) {
	case SH_OUT_HARD:
		on_hard(node, out);
		break;
	case SH_OUT_APPEND:
		on_append(node, out);
		break;
	case SH_OUT_INSTALL:
		on_install(node, out);
		break;
	case SH_OUT_SEND:
		on_send(node, out);
		break;
	case SH_OUT_COMMIT:
		on_commit(node, out->commit);
		break;
	case SH_OUT_ROLE:
		trace(node->bed, node->id, "role %d leader %" PRIu64 " term %" PRIu64,
			(int)out->role.role, out->role.leader, out->role.term);
		bed_check_role(node, out->role.role, out->role.term);
		break;
	case SH_OUT_REMOVED:
		node->removed_at = out->removed;
		break;
	case SH_OUT_MEMBERS:
		bed_check_members(node, out->members.index, &out->members.set);
		break;
	}
}

static void answer_offer(struct bed_node *node)
{
	struct sh_raft_message offer = node->offers[0];
	memmove(node->offers, node->offers + 1, --node->offer_count * sizeof(offer));
	if (!sh_raft_leads(&node->raft) || node->raft.term != offer.term) {
		return;
	}
	offer.count = offer.count < node->most ? offer.count : node->most;
	if (offer.count > 0) {
		post(node, &offer);
	}
	/* A member that was removed by a later output has no offer any more. */
	rt_err err = sh_raft_sent(&node->raft, offer.to, offer.count);
	if (sh_members_find(&sh_raft_members(&node->raft)->members, offer.to) >= 0) {
		assert_err(err, RT_OK);
	}
}

void bed_drain(struct bed_node *node)
{
	for (;;) {
		struct sh_out out;
		if (sh_out_next(&node->out, &out)) {
			on_out(node, &out);
		} else if (node->offer_count > 0) {
			answer_offer(node);
		} else {
			break;
		}
	}
	sh_raft_applied(&node->raft,
		node->committed < node->raft.stored ? node->committed : node->raft.stored);
	let_leave(node);
	bed_check_node(node);
}

/* ---- installs ---- */

void bed_fetch_now(struct bed_node *node)
{
	struct bed *bed = node->bed;
	const struct bed_node *source = &bed->nodes[node->fetch_from];
	if (!source->up || bed->cut[source->id][node->id] || bed->cut[node->id][source->id]) {
		return;
	}
	uint64_t upto =
		source->committed < source->raft.stored ? source->committed : source->raft.stored;
	struct bed_write *write = bed_disk_write(node, BED_INSTALLED);
	write->from = upto;
	write->term = bed_term_of(bed, source->id, upto);
	write->set = bed_set_at(source, upto);
	write->base = source->base;
	log_copy(&write->log, &source->log, upto);
	node->fetch_from = 0;
	trace(bed, node->id, "fetched up to %" PRIu64, upto);
}

/* ---- time ---- */

static void step_node(struct bed_node *node)
{
	struct bed *bed = node->bed;
	while (node->up && !node->disk_held && node->write_count > 0 &&
		node->writes[0].due <= bed->now) {
		bed_finish_oldest(node);
	}
	if (node->up && node->fetch_from != 0 && !bed->hold_installs &&
		node->fetch_due <= bed->now) {
		bed_fetch_now(node);
	}
	bool timers = node->timers || node->raft.role == SH_LEADER;
	if (node->up && timers && sh_raft_next_timeout(&node->raft) <= bed->now) {
		assert_err(sh_raft_tick(&node->raft, bed->now), RT_OK);
		bed_drain(node);
	}
}

void bed_step(struct bed *bed)
{
	bed->now++;
	deliver_due(bed);
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		step_node(&bed->nodes[i]);
	}
}

/* ---- life ---- */

static void start(struct bed_node *node)
{
	struct bed_disk *disk = &node->disk;
	struct sh_raft_settings settings = node->bed->settings;
	settings.node = node->id;
	settings.seed = node->id * 7919 + node->bed->now;
	if (disk->installing) {
		disk->installing = false;
		disk->log.last = disk->floor = disk->floor_term = 0;
		disk->set = (struct sh_raft_set){.members = disk->base};
	}
	struct sh_raft_restore restore = {.term = disk->term,
		.vote = disk->vote,
		.floor = disk->floor,
		.floor_term = disk->floor_term,
		.set_index = disk->set.index,
		.members = disk->set.members,
		.commit = disk->floor,
		.bar_index = disk->bar_index,
		.bar_term = disk->bar_term};
	log_copy(&node->log, &disk->log, disk->log.last);
	node->base = disk->base;
	node->sets = true;
	node->committed = disk->floor;
	node->committed_at = node->bed->now;
	assert_err(sh_raft_init(&node->raft, &settings, &restore, &node->out), RT_OK);
	for (uint64_t i = disk->floor; i < disk->log.last; i++) {
		const struct bed_entry *entry = &disk->log.entries[i];
		assert_err(sh_raft_restore_entries(&node->raft, 1, entry->term,
				   entry->has_members ? &entry->members : NULL),
			RT_OK);
	}
	node->used = node->said = sh_raft_members(&node->raft)->index;
	node->up = true;
	assert_err(sh_raft_start(&node->raft, node->bed->now), RT_OK);
	trace(node->bed, node->id, "starts, term %" PRIu64 " last %" PRIu64, disk->term,
		disk->log.last);
	bed_drain(node);
}

void bed_start(struct bed *bed, uint64_t node)
{
	assert_false(bed->nodes[node].up);
	start(&bed->nodes[node]);
}

void bed_boot(struct bed *bed, uint64_t node)
{
	bed_start(bed, node);
}

static void stop(struct bed_node *node)
{
	sh_raft_done(&node->raft);
	sh_out_queue_done(&node->out);
	for (uint32_t i = 0; i < node->write_count; i++) {
		log_free(&node->writes[i].log);
	}
	node->write_count = 0;
	node->offer_count = 0;
	node->fetch_from = 0;
	node->written = node->durable = node->hard_written = 0;
	node->up = false;
	memset(&node->raft, 0, sizeof(node->raft));
	memset(&node->out, 0, sizeof(node->out));
}

void bed_crash(struct bed *bed, uint64_t id)
{
	struct bed_node *node = &bed->nodes[id];
	assert_true(node->up);
	trace(bed, id, "crashes");
	for (uint32_t i = 0; i < bed->message_count;) {
		if (bed->messages[i].head.from == id && !bed->messages[i].left) {
			bed_remove_message(bed, i);
		} else {
			i++;
		}
	}
	stop(node);
}

struct bed *bed_new_with(const char *members, const struct sh_raft_settings *settings)
{
	struct bed *bed = calloc(1, sizeof(*bed));
	assert_non_null(bed);
	bed->now = 1000;
	bed->net_ms = 1;
	bed->settings = *settings;
	bed->trace = getenv("BED_TRACE") != NULL;
	struct sh_members first = bed_members(members);
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		struct bed_node *node = &bed->nodes[i];
		*node = (struct bed_node){.bed = bed, .id = i, .disk_ms = 1, .most = 64};
		if (sh_members_find(&first, i) >= 0) {
			node->disk.base = node->disk.set.members = first;
		}
	}
	for (uint32_t i = 0; i < first.count; i++) {
		start(&bed->nodes[first.node[i]]);
	}
	return bed;
}

struct bed *bed_new(const char *members)
{
	struct sh_raft_settings settings = {.election_ms = 1000, .heartbeat_ms = 100};
	return bed_new_with(members, &settings);
}

void bed_free(struct bed *bed)
{
	for (uint64_t i = 1; i <= BED_NODES; i++) {
		struct bed_node *node = &bed->nodes[i];
		if (node->up) {
			stop(node);
		}
		free(node->writes);
		log_free(&node->log);
		log_free(&node->disk.log);
	}
	while (bed->message_count > 0) {
		bed_remove_message(bed, bed->message_count - 1);
	}
	free(bed->messages);
	log_free(&bed->truth);
	free(bed);
}
