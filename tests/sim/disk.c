/* A node's disk: what its replicas write in a turn is one batch; all batches that queued while a
 * round ran are the next round; a round is in the image whole or not at all. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

#define READ_RECORDS 1024u

static void batch_push(struct sim_batch *batch, const struct sim_op *op)
{
	if (batch->count == batch->cap) {
		batch->cap = batch->cap == 0 ? 64 : batch->cap * 2;
		batch->ops = realloc(batch->ops, batch->cap * sizeof(*batch->ops));
		RT_ASSERT(batch->ops != NULL);
	}
	batch->ops[batch->count++] = *op;
}

static void batch_clear(struct sim_batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		sim_record_drop(batch->ops[i].record);
		free(batch->ops[i].row.bytes);
	}
	batch->count = 0;
}

/* ---- writing ---- */
/* Takes over what op holds. */
void sim_disk_add(struct sim_replica *r, const struct sim_op *op)
{
	sim_check_op(r, op);
	switch (op->kind) {
	case SIM_OP_RECORD:
		sim_log_push(&r->view, op->record);
		break;
	case SIM_OP_CUT:
		sim_log_cut(&r->view, op->index);
		break;
	case SIM_OP_WIPE:
		sim_log_wipe(&r->view, op->index);
		break;
	case SIM_OP_TRIM:
		sim_log_trim(&r->view, op->index);
		break;
	case SIM_OP_META:
	case SIM_OP_INSTALLING:
		break;
	}
	batch_push(&r->node->disk.open, op);
}

static void note_write(struct sim_replica *r, const struct sh_write *write)
{
	static const char *const kinds[] = {"record", "cut", "wipe", "meta"};
	SIM_TRACE(r->sim, "n%u g%u write %s %" PRIu64 " %.4s %zu bytes", r->node->id, r->group + 1,
		kinds[write->kind], write->index,
		write->kind == SH_WRITE_META ? (const char *)write->key.data : "",
		write->bytes.size);
}

static void keep_row(struct sim_row *row, struct rt_bytes key, struct rt_bytes bytes)
{
	RT_ASSERT(key.size <= sizeof(row->key));
	memcpy(row->key, key.data, key.size);
	row->key_size = (uint32_t)key.size;
	row->size = (uint32_t)bytes.size;
	row->bytes = malloc(bytes.size + 1);
	RT_ASSERT(row->bytes != NULL);
	memcpy(row->bytes, bytes.data, bytes.size);
}

rt_err sim_disk_write(struct sim_replica *r, const struct sh_write *write)
{
	if (r->node->disk.broken && r->node->disk.refuses) {
		return RT_E_IO;
	}
	note_write(r, write);
	struct sim_op op = {.group = r->group, .index = write->index};
	switch (write->kind) {
	case SH_WRITE_RECORD:
		op.kind = SIM_OP_RECORD;
		op.record = sim_record_new(write->bytes);
		SIM_CHECK(r, op.record != NULL, "wrote something that is no record at %" PRIu64,
			write->index);
		break;
	case SH_WRITE_CUT:
		op.kind = SIM_OP_CUT;
		break;
	case SH_WRITE_WIPE:
		op.kind = SIM_OP_WIPE;
		op.installing = sh_replica_raft(r->replica)->installing;
		break;
	case SH_WRITE_META:
		op.kind = SIM_OP_META;
		keep_row(&op.row, write->key, write->bytes);
		if (op.row.key[0] == 'h') {
			sim_kill_by(r->sim, r->node, r->sim->shape.crash_hard, SIM_MS(5));
		}
		break;
	}
	sim_disk_add(r, &op);
	return RT_OK;
}

void sim_disk_unwrite(struct sim_replica *r, uint32_t n)
{
	struct sim_batch *open = &r->node->disk.open;
	for (uint32_t i = 0; i < n; i++) {
		struct sim_op *op = &open->ops[--open->count];
		RT_ASSERT(op->kind == SIM_OP_RECORD && op->group == r->group);
		sim_log_cut(&r->view, op->index);
		sim_record_drop(op->record);
	}
}

/* ---- rounds ---- */
static void start_round(struct sim *sim, struct sim_node *node)
{
	struct sim_disk *disk = &node->disk;
	struct sim_batch idle = disk->flying;
	disk->flying = disk->queued;
	disk->queued = idle;
	disk->busy = true;
	uint64_t takes = sim_between(sim, sim->shape.sync_min, sim->shape.sync_max);
	if (!sim->healed && sim_chance(sim, sim->shape.slow_syncs)) {
		takes += sim_below(sim, sim->shape.stall_max);
	}
	uint64_t at = sim->now > disk->stalled_until ? sim->now : disk->stalled_until;
	sim_at(sim, at + takes,
		(struct sim_event){
			.kind = SIM_EV_ROUND, .node = (uint8_t)node->id, .boot = node->boot});
}

void sim_disk_submit(struct sim *sim, struct sim_node *node)
{
	struct sim_disk *disk = &node->disk;
	if (disk->open.count == 0) {
		return;
	}
	for (uint32_t i = 0; i < disk->open.count; i++) {
		batch_push(&disk->queued, &disk->open.ops[i]);
	}
	disk->open.count = 0;
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		disk->queued.written[g] = sh_replica_written(node->replicas[g].replica);
	}
	if (!disk->busy) {
		start_round(sim, node);
	}
}

static void put_row(struct sim_replica *r, struct sim_row *row)
{
	struct rt_bytes key = rt_bytes_of(row->key, row->key_size);
	struct sim_row *at = r->rows;
	while (at < r->rows + SIM_ROWS && at->key_size != 0 &&
		!rt_bytes_equal(key, rt_bytes_of(at->key, at->key_size))) {
		at++;
	}
	RT_ASSERT(at < r->rows + SIM_ROWS);
	free(at->bytes);
	*at = *row;
	row->bytes = NULL;
	if (at->key[0] == 'h') {
		sim_check_hard(r, rt_bytes_of(at->bytes, at->size));
	}
}

static void apply(struct sim *sim, struct sim_node *node, struct sim_op *op)
{
	struct sim_replica *r = &node->replicas[op->group];
	switch (op->kind) {
	case SIM_OP_RECORD:
		sim_log_push(&r->image, op->record);
		break;
	case SIM_OP_CUT:
		sim_log_cut(&r->image, op->index);
		sim_check_loss(r);
		break;
	case SIM_OP_WIPE:
		sim_log_wipe(&r->image, op->index);
		r->image_lost = op->installing;
		sim_check_loss(r);
		break;
	case SIM_OP_TRIM:
		sim_log_trim(&r->image, op->index);
		break;
	case SIM_OP_META:
		put_row(r, &op->row);
		break;
	case SIM_OP_INSTALLING:
		r->image_lost = true;
		sim_check_loss(r);
		break;
	}
	RT_MAYBE(sim->healed);
}

static void apply_flying(struct sim *sim, struct sim_node *node)
{
	struct sim_batch *flying = &node->disk.flying;
	for (uint32_t i = 0; i < flying->count; i++) {
		apply(sim, node, &flying->ops[i]);
	}
}

static void fail_all(struct sim *sim, struct sim_node *node)
{
	SIM_TRACE(sim, "n%u write error", node->id);
	sim->stats->write_errors++;
	sim_node_fail(sim, node);
}

void sim_disk_round(struct sim *sim, struct sim_event *event)
{
	struct sim_node *node = sim_node(sim, event->node);
	struct sim_disk *disk = &node->disk;
	if (node->failing) {
		return;
	}
	if (disk->broken) {
		if (sim_chance(sim, 50)) {
			apply_flying(sim, node);
			batch_clear(&disk->flying);
		}
		fail_all(sim, node);
		return;
	}
	apply_flying(sim, node);
	uint64_t *written = malloc(sizeof(disk->flying.written));
	RT_ASSERT(written != NULL);
	memcpy(written, disk->flying.written, sizeof(disk->flying.written));
	batch_clear(&disk->flying);
	disk->busy = false;
	uint64_t at = sim->now;
	if (sim_chance(sim, sim->shape.late_news)) {
		at += sim_below(sim, SIM_MS(3));
	}
	disk->news_at = at > disk->news_at ? at : disk->news_at;
	sim_at(sim, disk->news_at,
		(struct sim_event){.kind = SIM_EV_DURABLE,
			.node = (uint8_t)node->id,
			.boot = node->boot,
			.data = written});
	if (disk->queued.count > 0) {
		start_round(sim, node);
	}
}

void sim_disk_durable(struct sim *sim, struct sim_event *event)
{
	struct sim_node *node = sim_node(sim, event->node);
	const uint64_t *written = event->data;
	for (uint32_t g = 0; g < sim->shape.groups && !node->failing; g++) {
		struct sim_replica *r = &node->replicas[g];
		if (written[g] > r->durable) {
			SIM_TRACE(sim, "n%u g%u durable %" PRIu64, node->id, g + 1, written[g]);
			r->durable = written[g];
			sim_took(r,
				sh_replica_durable(r->replica, sim_clock(sim, node), written[g]),
				"durable");
			sim_load_trim(r);
		}
	}
	sim_turn_end(sim, node);
}

/* ---- crashes and errors ---- */
void sim_disk_crash(struct sim *sim, struct sim_node *node)
{
	struct sim_disk *disk = &node->disk;
	if (disk->busy && disk->flying.count > 0 && sim_chance(sim, sim->shape.survives)) {
		SIM_TRACE(sim, "n%u the round under way survives", node->id);
		apply_flying(sim, node);
	}
	batch_clear(&disk->open);
	batch_clear(&disk->queued);
	batch_clear(&disk->flying);
	disk->busy = disk->broken = disk->refuses = false;
	disk->stalled_until = disk->news_at = 0;
	for (uint32_t g = 0; g < sim->shape.groups; g++) {
		sim_log_copy(&node->replicas[g].view, &node->replicas[g].image);
	}
}

void sim_disk_done(struct sim_node *node)
{
	struct sim_batch *batches[] = {&node->disk.open, &node->disk.queued, &node->disk.flying};
	for (size_t i = 0; i < 3; i++) {
		batch_clear(batches[i]);
		free(batches[i]->ops);
	}
	for (uint32_t g = 0; g < SIM_GROUPS; g++) {
		struct sim_replica *r = &node->replicas[g];
		sim_log_done(&r->view);
		sim_log_done(&r->image);
		for (uint32_t i = 0; i < SIM_ROWS; i++) {
			free(r->rows[i].bytes);
		}
	}
}

void sim_disk_break(struct sim *sim)
{
	struct sim_node *node = sim_node(sim, 1 + sim_below(sim, sim->shape.nodes));
	if (node->up && !node->failing && !sim->healed) {
		node->disk.broken = true;
		node->disk.refuses = sim_chance(sim, 40);
		SIM_TRACE(sim, "n%u its disk breaks%s", node->id,
			node->disk.refuses ? ", at once" : "");
	}
}

void sim_disk_stall(struct sim *sim)
{
	struct sim_node *node = sim_node(sim, 1 + sim_below(sim, sim->shape.nodes));
	if (!sim->healed && sim->shape.stall_max > 0) {
		node->disk.stalled_until = sim->now + sim_below(sim, sim->shape.stall_max);
		SIM_TRACE(sim, "n%u its disk stalls until %.6f", node->id,
			(double)node->disk.stalled_until / 1e6);
	}
}

/* ---- reading ---- */
rt_err sim_disk_read(struct sim_replica *r, const struct sh_replica_read *read)
{
	struct sim *sim = r->sim;
	if (!sim->healed && sim_chance(sim, 5)) {
		return RT_E_FULL;
	}
	sim->stats->log_reads++;
	SIM_TRACE(sim, "n%u g%u reads its log %" PRIu64 "..%" PRIu64, r->node->id, r->group + 1,
		read->from, read->upto);
	struct sh_replica_read *copy = malloc(sizeof(*copy));
	RT_ASSERT(copy != NULL);
	*copy = *read;
	sim_at(sim, sim->now + 50 + sim_below(sim, sim_chance(sim, 10) ? SIM_MS(20) : SIM_MS(1)),
		(struct sim_event){.kind = SIM_EV_LOG_READ,
			.node = (uint8_t)r->node->id,
			.group = (uint8_t)r->group,
			.boot = r->node->boot,
			.data = copy});
	return RT_OK;
}

/* What a store shows between a write and its sync is either. */
void sim_disk_read_done(struct sim *sim, struct sim_event *event)
{
	static struct rt_bytes records[READ_RECORDS];
	struct sim_node *node = sim_node(sim, event->node);
	struct sim_replica *r = &node->replicas[event->group];
	const struct sh_replica_read *read = event->data;
	if (node->failing) {
		return;
	}
	const struct sim_log *log = sim_chance(sim, 50) ? &r->view : &r->image;
	uint32_t count = 0;
	size_t size = 0;
	uint64_t now = sim_clock(sim, node);
	rt_err err = !sim->healed && sim_chance(sim, 2) ? RT_E_IO : RT_OK;
	while (err == RT_OK && count < READ_RECORDS && count < read->max_count &&
		read->from + count <= read->upto) {
		const struct sim_record *record = sim_log_at(log, read->from + count);
		if (record == NULL || (count > 0 && size + record->size > read->max_bytes)) {
			break;
		}
		size += record->size;
		records[count++] = rt_bytes_of(record->bytes, record->size);
	}
	if (err == RT_OK && count == 0) {
		err = RT_E_NOTFOUND;
	}
	SIM_TRACE(sim, "n%u g%u has read %" PRIu64 " +%u %s", node->id, r->group + 1, read->from,
		count, rt_err_name(err));
	sim_took(r, sh_replica_read_done(r->replica, now, read->ticket, err, records, count),
		"read done");
	sim_turn_end(sim, node);
}
