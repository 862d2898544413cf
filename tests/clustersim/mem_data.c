/* Records, logs, rows and snapshots as plain lists. */
#include <stdlib.h>

#include "runtime/base/hash.h"
#include "tests/clustersim/mem_inside.h"

static void *grown(void *items, uint32_t need, uint32_t *cap, size_t size)
{
	if (need <= *cap) {
		return items;
	}
	*cap = need + need / 2 + 16;
	items = realloc(items, *cap * size);
	RT_ASSERT(items != NULL);
	return items;
}

static uint8_t *copy_of(struct rt_bytes a, struct rt_bytes b)
{
	uint8_t *copy = malloc(a.size + b.size + 1);
	RT_ASSERT(copy != NULL);
	memcpy(copy, a.data, a.size);
	if (b.size > 0) {
		memcpy(copy + a.size, b.data, b.size);
	}
	return copy;
}

/* ---- records ---- */
struct mem_record *mem_record_new(struct rt_bytes bytes)
{
	struct mem_record *record = malloc(sizeof(*record) + bytes.size);
	RT_ASSERT(record != NULL);
	record->refs = 1;
	record->size = (uint32_t)bytes.size;
	memcpy(record->bytes, bytes.data, bytes.size);
	rt_err err = ps_record_decode(rt_bytes_of(record->bytes, bytes.size), &record->head);
	RT_ASSERT(err == RT_OK); /* Nobody writes anything else. */
	record->pid_hash = rt_hash(record->head.pid.data, record->head.pid.size);
	record->id_hash = ps_dedupe_hash(record->head.command_id);
	return record;
}

void mem_record_drop(struct mem_record *record)
{
	if (record != NULL && --record->refs == 0) {
		free(record);
	}
}

/* ---- logs ---- */
void mem_log_push(struct mem_log *log, struct mem_record *record)
{
	log->items = grown(log->items, log->count + 1, &log->cap, sizeof(*log->items));
	record->refs++;
	log->items[log->count++] = record;
}

void mem_log_cut(struct mem_log *log, uint64_t from)
{
	while (log->count > 0 && mem_log_last(log) >= from) {
		mem_record_drop(log->items[--log->count]);
	}
}

void mem_log_wipe(struct mem_log *log, uint64_t first)
{
	mem_log_cut(log, log->first);
	log->first = first;
}

void mem_log_copy(struct mem_log *to, const struct mem_log *from)
{
	mem_log_wipe(to, from->first);
	for (uint32_t i = 0; i < from->count; i++) {
		mem_log_push(to, from->items[i]);
	}
}

void mem_log_done(struct mem_log *log)
{
	mem_log_wipe(log, 1);
	free(log->items);
	*log = (struct mem_log){.first = 1};
}

/* ---- rows ---- */
static struct mem_row *row_at(const struct mem_rows *rows, struct rt_bytes key)
{
	for (uint32_t i = 0; i < rows->count; i++) {
		struct mem_row *row = &rows->items[i];
		if (rt_bytes_equal(key, rt_bytes_of(row->bytes, row->key_size))) {
			return row;
		}
	}
	return NULL;
}

void mem_rows_put(struct mem_rows *rows, struct rt_bytes key, struct rt_bytes value)
{
	struct mem_row *row = row_at(rows, key);
	if (row == NULL) {
		rows->items = grown(rows->items, rows->count + 1, &rows->cap, sizeof(*row));
		row = &rows->items[rows->count++];
		row->bytes = NULL;
	}
	uint8_t *bytes = copy_of(key, value);
	free(row->bytes);
	*row = (struct mem_row){(uint32_t)key.size, (uint32_t)value.size, bytes};
}

bool mem_rows_get(const struct mem_rows *rows, struct rt_bytes key, struct rt_bytes *out)
{
	const struct mem_row *row = row_at(rows, key);
	if (row != NULL) {
		*out = rt_bytes_of(row->bytes + row->key_size, row->size);
	}
	return row != NULL;
}

void mem_rows_copy(struct mem_rows *to, const struct mem_rows *from)
{
	mem_rows_done(to);
	for (uint32_t i = 0; i < from->count; i++) {
		const struct mem_row *row = &from->items[i];
		mem_rows_put(to, rt_bytes_of(row->bytes, row->key_size),
			rt_bytes_of(row->bytes + row->key_size, row->size));
	}
}

void mem_rows_done(struct mem_rows *rows)
{
	for (uint32_t i = 0; i < rows->count; i++) {
		free(rows->items[i].bytes);
	}
	free(rows->items);
	*rows = (struct mem_rows){0};
}

/* ---- snapshots: the two newest of an entity are kept ---- */
static bool is_of(const struct mem_snapshot *item, uint32_t shard, struct rt_bytes pid)
{
	return item->shard == shard &&
	       rt_bytes_equal(pid, rt_bytes_of(item->bytes, item->pid_size));
}

static void remove_at(struct mem_snapshots *list, uint32_t at)
{
	free(list->items[at].bytes);
	list->items[at] = list->items[--list->count];
}

/* Leaves the newest one that is not `seq` itself. */
static void drop_older(
	struct mem_snapshots *list, uint32_t shard, struct rt_bytes pid, uint64_t seq)
{
	uint64_t newest = 0;
	for (uint32_t i = 0; i < list->count; i++) {
		bool counts = is_of(&list->items[i], shard, pid);
		newest = counts && list->items[i].seq > newest ? list->items[i].seq : newest;
	}
	for (uint32_t i = 0; i < list->count;) {
		const struct mem_snapshot *item = &list->items[i];
		if (is_of(item, shard, pid) && (item->seq < newest || item->seq == seq)) {
			remove_at(list, i);
		} else {
			i++;
		}
	}
}

void mem_snapshots_put(struct mem_snapshots *list, uint32_t shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot)
{
	drop_older(list, shard, pid, snapshot->seq);
	list->items = grown(list->items, list->count + 1, &list->cap, sizeof(*list->items));
	list->items[list->count++] = (struct mem_snapshot){.shard = shard,
		.pid_size = (uint32_t)pid.size,
		.seq = snapshot->seq,
		.offset = snapshot->offset,
		.version = snapshot->version,
		.size = (uint32_t)snapshot->state.size,
		.bytes = copy_of(pid, snapshot->state)};
}

const struct mem_snapshot *mem_snapshots_get(const struct mem_snapshots *list, uint32_t shard,
	struct rt_bytes pid, uint64_t upto_seq, uint64_t last)
{
	const struct mem_snapshot *best = NULL;
	for (uint32_t i = 0; i < list->count; i++) {
		const struct mem_snapshot *item = &list->items[i];
		if (is_of(item, shard, pid) && item->seq <= upto_seq && item->offset <= last &&
			(best == NULL || item->seq > best->seq)) {
			best = item;
		}
	}
	return best;
}

void mem_snapshots_wipe(struct mem_snapshots *list, uint32_t shard)
{
	for (uint32_t i = 0; i < list->count;) {
		if (list->items[i].shard == shard) {
			remove_at(list, i);
		} else {
			i++;
		}
	}
}

void mem_snapshots_copy(struct mem_snapshots *to, const struct mem_snapshots *from)
{
	mem_snapshots_done(to);
	to->items = grown(to->items, from->count, &to->cap, sizeof(*to->items));
	for (uint32_t i = 0; i < from->count; i++) {
		to->items[to->count] = from->items[i];
		to->items[to->count++].bytes =
			copy_of(rt_bytes_of(from->items[i].bytes,
					from->items[i].pid_size + from->items[i].size),
				(struct rt_bytes){0});
	}
}

void mem_snapshots_done(struct mem_snapshots *list)
{
	for (uint32_t i = 0; i < list->count; i++) {
		free(list->items[i].bytes);
	}
	free(list->items);
	*list = (struct mem_snapshots){0};
}

/* ---- what rounds did ---- */
void mem_ops_push(struct mem_ops *ops, const struct mem_op *op)
{
	ops->items = grown(ops->items, ops->count + 1, &ops->cap, sizeof(*op));
	ops->items[ops->count++] = *op;
}

void mem_ops_done(struct mem_ops *ops)
{
	for (uint32_t i = 0; i < ops->count; i++) {
		mem_record_drop(ops->items[i].record);
		free(ops->items[i].row.bytes);
	}
	free(ops->items);
	*ops = (struct mem_ops){0};
}

static void apply(struct mem_image *image, const struct mem_op *op)
{
	switch (op->kind) {
	case MEM_OP_RECORD:
		RT_ASSERT(op->offset == mem_log_last(&image->logs[op->shard]) + 1);
		mem_log_push(&image->logs[op->shard], op->record);
		break;
	case MEM_OP_CUT:
		RT_ASSERT(op->offset > image->watermarks[op->shard]);
		mem_log_cut(&image->logs[op->shard], op->offset);
		break;
	case MEM_OP_WIPE:
		mem_log_wipe(&image->logs[op->shard], op->offset);
		image->watermarks[op->shard] = op->offset - 1;
		mem_snapshots_wipe(&image->snapshots, op->shard);
		break;
	case MEM_OP_META:
		mem_rows_put(&image->meta, rt_bytes_of(op->row.bytes, op->row.key_size),
			rt_bytes_of(op->row.bytes + op->row.key_size, op->row.size));
		break;
	}
}

void mem_image_apply(struct mem_disk *disk, struct mem_ops *ops, uint32_t rounds)
{
	for (uint32_t i = 0; i < ops->count && ops->items[i].round < rounds; i++) {
		apply(&disk->image, &ops->items[i]);
	}
	mem_ops_done(ops);
}
