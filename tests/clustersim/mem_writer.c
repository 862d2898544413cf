/* Group commit in virtual time: what queues during a sync is the next batch. */
#include <stdlib.h>

#include "tests/clustersim/mem_inside.h"

struct ps_writer {
	struct mem_store *store;
	struct ps_round *head, **tail; /* queued */
	struct ps_round *batch;        /* being written or synced */
	struct ps_round *idle;
	uint32_t rounds_out;
	bool stopped;
	rt_err failed; /* the first error: every later round gets it */
};

static void round_free(struct ps_round *round)
{
	for (uint32_t i = 0; i < round->meta_count; i++) {
		free((void *)(uintptr_t)round->meta[i].key.data);
	}
	free(round->meta);
	free(round->entries);
	free(round->bytes);
	free(round);
}

static void writer_free(struct ps_writer *writer)
{
	while (writer->idle != NULL) {
		struct ps_round *round = writer->idle;
		writer->idle = round->next;
		round_free(round);
	}
	free(writer);
}

/* ---- rounds ---- */
struct ps_round *ps_round_acquire(struct ps_writer *writer, struct rt_worker *worker)
{
	struct ps_round *round = writer->idle;
	if (round != NULL) {
		writer->idle = round->next;
	} else {
		round = calloc(1, sizeof(*round));
		RT_ASSERT(round != NULL);
	}
	writer->rounds_out++;
	round->writer = writer;
	round->worker = worker;
	round->next = NULL;
	return round;
}

static struct ps_entry *new_entry(struct ps_round *round, uint32_t shard)
{
	RT_ASSERT(shard < round->writer->store->disk->log_count);
	if (round->entry_count == round->entry_cap) {
		round->entry_cap = round->entry_cap == 0 ? 64 : round->entry_cap * 2;
		round->entries =
			realloc(round->entries, round->entry_cap * sizeof(*round->entries));
		RT_ASSERT(round->entries != NULL);
	}
	struct ps_entry *entry = &round->entries[round->entry_count++];
	*entry = (struct ps_entry){.shard = shard, .next = UINT32_MAX};
	return entry;
}

uint8_t *ps_round_add(struct ps_round *round, uint32_t shard, size_t size, uint32_t *out_entry)
{
	RT_ASSERT(size > 0 && size <= PS_RECORD_MAX);
	if (round->byte_cap - round->byte_count < size) {
		round->byte_cap = (round->byte_count + size) * 2;
		round->bytes = realloc(round->bytes, round->byte_cap);
		RT_ASSERT(round->bytes != NULL);
	}
	struct ps_entry *entry = new_entry(round, shard);
	entry->pos = (uint32_t)round->byte_count;
	entry->size = (uint32_t)size;
	*out_entry = round->entry_count - 1;
	round->byte_count += size;
	return round->bytes + entry->pos;
}

static rt_err add_step(
	struct ps_round *round, enum ps_row_kind kind, uint32_t shard, uint64_t offset)
{
	RT_ASSERT(offset > 0);
	struct ps_entry *entry = new_entry(round, shard);
	entry->kind = kind;
	entry->offset = offset;
	return RT_OK;
}

rt_err ps_round_cut(struct ps_round *round, uint32_t shard, uint64_t offset)
{
	return add_step(round, PS_ROW_CUT, shard, offset);
}

rt_err ps_round_wipe(struct ps_round *round, uint32_t shard, uint64_t first)
{
	round->wipes = true;
	return add_step(round, PS_ROW_WIPE, shard, first);
}

void ps_round_drop(struct ps_round *round, uint32_t entry)
{
	RT_ASSERT(entry < round->entry_count && round->entries[entry].kind == PS_ROW_RECORD);
	round->entries[entry].kind = PS_ROW_DROPPED;
}

rt_err ps_round_add_meta(struct ps_round *round, struct rt_bytes key, struct rt_bytes value)
{
	RT_ASSERT(key.size > 0 && key.data[0] != 0);
	if (round->meta_count == round->meta_cap) {
		round->meta_cap = round->meta_cap == 0 ? 8 : round->meta_cap * 2;
		round->meta = realloc(round->meta, round->meta_cap * sizeof(*round->meta));
	}
	uint8_t *copy = malloc(key.size + value.size);
	RT_ASSERT(round->meta != NULL && copy != NULL);
	memcpy(copy, key.data, key.size);
	if (value.size > 0) {
		memcpy(copy + key.size, value.data, value.size);
	}
	round->meta[round->meta_count++] = (struct ps_meta_row){
		rt_bytes_of(copy, key.size), rt_bytes_of(copy + key.size, value.size)};
	return RT_OK;
}

bool ps_round_is_full(const struct ps_round *round)
{
	return round->byte_count >= PS_ROUND_BYTES || round->entry_count >= PS_ROUND_RECORDS;
}

void ps_round_release(struct ps_round *round)
{
	struct ps_writer *writer = round->writer;
	for (uint32_t i = 0; i < round->meta_count; i++) {
		free((void *)(uintptr_t)round->meta[i].key.data);
	}
	round->meta_count = round->entry_count = 0;
	round->byte_count = 0;
	round->wipes = false;
	round->done = NULL;
	round->arg = NULL;
	round->next = writer->idle;
	writer->idle = round;
	if (--writer->rounds_out == 0 && writer->stopped) {
		writer_free(writer);
	}
}

static void run_done(struct rt_worker *worker, struct rt_post *post)
{
	struct ps_round *round = (struct ps_round *)(void *)post; /* post is the first member */
	(void)worker;
	if (round->wipes && round->result == RT_OK) {
		for (uint32_t i = 0; i < round->entry_count; i++) {
			const struct ps_entry *entry = &round->entries[i];
			struct ps_store *store = &round->writer->store->base;
			store->shards[entry->shard].wipes_done += entry->kind == PS_ROW_WIPE;
		}
	}
	round->done(round, round->result);
}

/* ---- a batch ---- */
static void hand_back(struct ps_writer *writer, struct ps_round *rounds, rt_err err)
{
	while (rounds != NULL) {
		struct ps_round *round = rounds;
		rounds = round->next;
		round->next = NULL;
		round->result = err;
		round->post.next = NULL;
		if (writer->store->crashed) {
			rt_worker_post_always(round->worker, &round->post);
		} else {
			mem_news(writer->store, round->worker, &round->post);
		}
	}
}

static void begin_batch(struct ps_writer *writer)
{
	struct mem_store *store = writer->store;
	struct mem_disk *disk = store->disk;
	writer->batch = writer->head;
	writer->head = NULL;
	writer->tail = &writer->head;
	uint64_t at = mem_now_us(disk);
	at = at > disk->stalled_until ? at : disk->stalled_until;
	mem_at(store, at + mem_below(disk, disk->options.shape->write_max + 1), MEM_EV_WRITE,
		writer);
}

static void end_batch(struct ps_writer *writer, rt_err err)
{
	struct ps_round *rounds = writer->batch;
	writer->batch = NULL;
	writer->failed = writer->failed == RT_OK ? err : writer->failed;
	hand_back(writer, rounds, writer->failed);
	if (writer->head != NULL) {
		begin_batch(writer);
	}
}

static void push_record(struct mem_ops *ops, const struct ps_round *round, uint32_t number,
	const struct ps_entry *entry)
{
	struct mem_op op = {.round = number, .shard = entry->shard, .offset = entry->offset};
	if (entry->kind == PS_ROW_RECORD) {
		op.kind = MEM_OP_RECORD;
		op.record = mem_record_new(rt_bytes_of(round->bytes + entry->pos, entry->size));
	} else {
		op.kind = entry->kind == PS_ROW_CUT ? MEM_OP_CUT : MEM_OP_WIPE;
	}
	mem_ops_push(ops, &op);
}

static void push_meta(struct mem_ops *ops, uint32_t number, const struct ps_meta_row *row)
{
	struct mem_op op = {.kind = MEM_OP_META, .round = number};
	op.row = (struct mem_row){(uint32_t)row->key.size, (uint32_t)row->value.size,
		malloc(row->key.size + row->value.size + 1)};
	RT_ASSERT(op.row.bytes != NULL);
	memcpy(op.row.bytes, row->key.data, row->key.size + row->value.size);
	mem_ops_push(ops, &op);
}

/* True: some log is wiped. */
static bool collect(struct ps_writer *writer)
{
	struct mem_ops *ops = &writer->store->unsynced;
	uint32_t number = 0;
	bool wipes = false;
	RT_ASSERT(ops->count == 0);
	for (const struct ps_round *round = writer->batch; round != NULL; round = round->next) {
		for (uint32_t i = 0; i < round->entry_count; i++) {
			if (round->entries[i].kind != PS_ROW_DROPPED) {
				push_record(ops, round, number, &round->entries[i]);
			}
		}
		for (uint32_t i = 0; i < round->meta_count; i++) {
			push_meta(ops, number, &round->meta[i]);
		}
		wipes = wipes || round->wipes;
		number++;
	}
	return wipes;
}

/* What the batch would do to one log. RT_E_INVAL: it cuts off what is indexed. */
static rt_err check_shard(const struct mem_store *store, uint32_t shard)
{
	const struct ps_shard *at = &store->base.shards[shard];
	uint64_t first = at->first;
	uint64_t last = at->last;
	uint64_t watermark = at->watermark;
	for (uint32_t i = 0; i < store->unsynced.count; i++) {
		const struct mem_op *op = &store->unsynced.items[i];
		if (op->kind == MEM_OP_META || op->shard != shard) {
			continue;
		}
		if (op->kind == MEM_OP_RECORD) {
			RT_ASSERT(op->offset == last + 1);
			last++;
		} else if (op->kind == MEM_OP_WIPE) {
			first = op->offset;
			last = watermark = first - 1;
		} else if (op->offset <= watermark || op->offset < first) {
			return RT_E_INVAL;
		} else {
			last = op->offset - 1 < last ? op->offset - 1 : last;
		}
	}
	return RT_OK;
}

static void show_row(struct mem_store *store, const struct mem_op *op)
{
	struct ps_shard *at = &store->base.shards[op->shard];
	struct mem_log *log = &store->logs[op->shard];
	switch (op->kind) {
	case MEM_OP_RECORD:
		mem_log_push(log, op->record);
		break;
	case MEM_OP_CUT:
		mem_log_cut(log, op->offset);
		at->durable = at->durable < op->offset - 1 ? at->durable : op->offset - 1;
		break;
	case MEM_OP_WIPE:
		mem_log_wipe(log, op->offset);
		mem_snapshots_wipe(&store->snapshots, op->shard);
		at->first = op->offset;
		at->durable = op->offset - 1;
		at->wipes++;
		mem_forget_marks(store, op->shard);
		at->watermark = op->offset - 1;
		break;
	case MEM_OP_META:
		mem_rows_put(&store->meta, rt_bytes_of(op->row.bytes, op->row.key_size),
			rt_bytes_of(op->row.bytes + op->row.key_size, op->row.size));
		return;
	}
	at->last = mem_log_last(log);
}

static rt_err break_down(struct ps_writer *writer, const char *why)
{
	mem_store_fail(writer->store, why);
	return RT_E_IO;
}

/* On a reader: nothing of these logs is being written. */
void ps_erase_run(struct ps_erase *erase, struct ps_store *base)
{
	struct mem_store *store = mem_store_of(base);
	erase->err = base->failed ? RT_E_CLOSED : RT_OK;
	for (uint32_t i = 0; erase->err == RT_OK && i < erase->count; i++) {
		const struct ps_shard *at = &base->shards[erase->shards[i]];
		erase->had[i] = at->first > 1 || at->last > 0;
		if (erase->had[i] && store->disk->broken) {
			mem_store_fail(store, "erase: the disk is broken");
			erase->err = RT_E_IO;
		} else if (erase->had[i]) {
			struct mem_ops ops = {0};
			struct mem_op op = {
				.kind = MEM_OP_WIPE, .shard = erase->shards[i], .offset = 1};
			for (uint32_t k = 0; k < store->unsynced.count; k++) {
				const struct mem_op *other = &store->unsynced.items[k];
				RT_ASSERT(other->kind == MEM_OP_META || other->shard != op.shard);
			}
			show_row(store, &op);
			mem_ops_push(&ops, &op);
			mem_image_apply(store->disk, &ops, UINT32_MAX);
		}
	}
}

void ps_erase_done(const struct ps_erase *erase, struct ps_store *store)
{
	for (uint32_t i = 0; erase->err == RT_OK && i < erase->count; i++) {
		store->shards[erase->shards[i]].wipes_done += erase->had[i];
	}
}

/* The batch becomes visible; a wipe makes it durable as well. */
static rt_err write_batch(struct ps_writer *writer)
{
	struct mem_store *store = writer->store;
	struct mem_disk *disk = store->disk;
	bool wipes = collect(writer);
	if (disk->broken && (disk->how == MEM_BREAK_WRITE || wipes)) {
		return break_down(writer, "append: the disk is broken");
	}
	for (uint32_t i = 0; i < disk->log_count; i++) {
		if (check_shard(store, i) != RT_OK) {
			mem_ops_done(&store->unsynced);
			return RT_E_INVAL;
		}
	}
	for (uint32_t i = 0; i < store->unsynced.count; i++) {
		show_row(store, &store->unsynced.items[i]);
	}
	if (wipes) {
		mem_image_apply(disk, &store->unsynced, UINT32_MAX);
	}
	return RT_OK;
}

void mem_writer_write(struct ps_writer *writer)
{
	struct mem_store *store = writer->store;
	struct mem_disk *disk = store->disk;
	const struct mem_shape *shape = disk->options.shape;
	rt_err err = writer->failed == RT_OK ? write_batch(writer) : writer->failed;
	if (err != RT_OK) {
		end_batch(writer, err);
		return;
	}
	uint64_t at = mem_now_us(disk) + mem_between(disk, shape->sync_min, shape->sync_max);
	if (mem_chance(disk, shape->slow_syncs)) {
		at += mem_below(disk, shape->slow_max + 1);
	}
	at = at > disk->stalled_until ? at : disk->stalled_until;
	mem_at(store, at, MEM_EV_SYNC, writer);
}

void mem_writer_synced(struct ps_writer *writer)
{
	struct mem_store *store = writer->store;
	if (store->disk->broken) {
		end_batch(writer, break_down(writer, "sync: the disk is broken"));
		return;
	}
	mem_image_apply(store->disk, &store->unsynced, UINT32_MAX);
	for (uint32_t i = 0; i < store->disk->log_count; i++) {
		store->base.shards[i].durable = store->base.shards[i].last;
	}
	store->base.syncs++;
	end_batch(writer, RT_OK);
}

void ps_writer_submit(struct ps_writer *writer, struct ps_round *round)
{
	RT_ASSERT(round->done != NULL && round->writer == writer && !writer->stopped);
	round->post.run = run_done;
	round->next = NULL;
	if (writer->store->crashed) {
		hand_back(writer, round, RT_E_IO);
		return;
	}
	*writer->tail = round;
	writer->tail = &round->next;
	if (writer->batch == NULL) {
		begin_batch(writer);
	}
}

void mem_writer_crash(struct ps_writer *writer)
{
	struct ps_round *queued = writer->head;
	writer->head = NULL;
	writer->tail = &writer->head;
	hand_back(writer, writer->batch, RT_E_IO);
	hand_back(writer, queued, RT_E_IO);
	writer->batch = NULL;
	writer->failed = RT_E_IO;
}

/* ---- life ---- */
rt_err ps_writer_start(struct ps_store *store, struct rt_system *system, struct ps_writer **out,
	struct rt_errinfo *info)
{
	(void)system;
	(void)info;
	struct ps_writer *writer = calloc(1, sizeof(*writer));
	RT_ASSERT(writer != NULL);
	writer->store = mem_store_of(store);
	writer->tail = &writer->head;
	writer->store->writer = writer;
	*out = writer;
	return RT_OK;
}

/* Nothing is under way: time has passed, or the power is gone (mem_disk_busy). */
void ps_writer_stop(struct ps_writer *writer)
{
	if (writer == NULL) {
		return;
	}
	RT_ASSERT(writer->store->crashed || writer->batch == NULL);
	writer->store->writer = NULL;
	writer->stopped = true;
	if (writer->rounds_out == 0) {
		writer_free(writer);
	}
}

bool mem_writer_busy(const struct ps_writer *writer)
{
	return writer->batch != NULL;
}
