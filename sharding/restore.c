/* Opens a replica from hard state, mark and log, and takes one back to nothing. */
#include <stdlib.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "sharding/host.h"

#define CACHE_DEFAULT (1024u * 1024u)
#define MARK_DEFAULT  4096u
#define RUNS_DEFAULT  128u

struct scan {
	struct sh_replica *replica;
	struct rt_errinfo *info;
	uint64_t next;  /* index expected */
	uint64_t check; /* this one is described by the mark already */
	uint64_t term;  /* of the records gathered */
	uint32_t count; /* of them */
	rt_err err;
};

static rt_err corrupt(struct rt_errinfo *info, const struct sh_replica *replica, const char *what)
{
	return rt_errinfo_set(info, RT_E_CORRUPT, "shard %u: %s", replica->shard, what);
}

/* ---- rows ---- */
static rt_err read_hard(
	struct sh_replica *replica, uint64_t *out_term, uint64_t *out_vote, struct rt_errinfo *info)
{
	uint8_t key[SH_KEY_BYTES];
	struct rt_bytes row = {0};
	*out_term = *out_vote = 0;
	rt_err err = replica->port->meta(
		replica->arg, sh_mark_hard_key(replica->shard, key), &row, info);
	if (err == RT_E_NOTFOUND) {
		return RT_OK;
	}
	if (err != RT_OK) {
		return rt_errinfo_wrap(info, err, "shard %u: term and vote", replica->shard);
	}
	err = sh_mark_hard_decode(row, out_term, out_vote);
	free((void *)(uintptr_t)row.data);
	return err == RT_OK ? RT_OK : corrupt(info, replica, "term and vote: not 16 bytes");
}

/* *out_found false: a new shard, or one of before there were marks. */
static rt_err read_mark(
	struct sh_replica *replica, struct sh_mark *out, bool *out_found, struct rt_errinfo *info)
{
	uint8_t key[SH_KEY_BYTES];
	struct rt_bytes row = {0};
	rt_err err =
		replica->port->meta(replica->arg, sh_mark_key(replica->shard, key), &row, info);
	*out_found = err != RT_E_NOTFOUND;
	if (err == RT_E_NOTFOUND) {
		return RT_OK;
	}
	if (err != RT_OK) {
		return rt_errinfo_wrap(info, err, "shard %u: mark", replica->shard);
	}
	err = sh_mark_decode(row, out);
	free((void *)(uintptr_t)row.data);
	if (err == RT_E_CORRUPT) {
		return corrupt(info, replica, "the mark is damaged");
	}
	return err == RT_OK ? RT_OK : rt_errinfo_set(info, err, "shard %u: mark", replica->shard);
}

/* ---- the entries that a mark describes ---- */
static uint64_t mark_term_at(const struct sh_mark *mark, uint64_t index)
{
	uint64_t term = mark->floor_term;
	for (uint32_t i = 0; i < mark->run_count && mark->runs[i].first <= index; i++) {
		term = mark->runs[i].term;
	}
	return term;
}

static rt_err give(
	struct sh_replica *replica, uint64_t count, uint64_t term, const struct sh_members *members)
{
	rt_err err = RT_OK;
	while (err == RT_OK && count > 0) {
		uint32_t some = count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
		err = sh_raft_restore_entries(&replica->raft, some, term, members);
		count -= some;
	}
	return err;
}

/* From each change, of term or of members, to the next. */
static rt_err give_marked(struct sh_replica *replica, const struct sh_mark *mark)
{
	uint64_t at = mark->floor + 1;
	uint32_t run = 0;
	uint32_t set = 0;
	rt_err err = RT_OK;
	while (err == RT_OK && at <= mark->mark) {
		while (run < mark->run_count && mark->runs[run].first <= at) {
			run++;
		}
		uint64_t term = run == 0 ? mark->floor_term : mark->runs[run - 1].term;
		if (set < mark->set_count && mark->sets[set].index == at) {
			err = give(replica, 1, term, &mark->sets[set++].members);
			at++;
			continue;
		}
		uint64_t end = mark->mark + 1;
		if (run < mark->run_count && mark->runs[run].first < end) {
			end = mark->runs[run].first;
		}
		if (set < mark->set_count && mark->sets[set].index < end) {
			end = mark->sets[set].index;
		}
		err = give(replica, end - at, term, NULL);
		at = end;
	}
	return err;
}

/* ---- the log above it ---- */
static rt_err give_gathered(struct scan *scan)
{
	uint32_t count = scan->count;
	scan->count = 0;
	return count == 0 ? RT_OK
			  : sh_raft_restore_entries(&scan->replica->raft, count, scan->term, NULL);
}

static rt_err take_entry(struct scan *scan, uint64_t index, struct rt_bytes bytes)
{
	struct ps_record record;
	struct sh_members members;
	if (index != scan->next || ps_record_peek(bytes, &record) != RT_OK || record.term == 0) {
		return RT_E_CORRUPT;
	}
	scan->next++;
	if (index == scan->check) {
		uint64_t term = scan->term;
		scan->term = 0;
		return record.term == term ? RT_OK : RT_E_CORRUPT;
	}
	rt_err err = RT_OK;
	if (record.kind == PS_KIND_MEMBERS) {
		if (ps_record_decode(bytes, &record) != RT_OK ||
			sh_members_decode(record.answer, &members) != RT_OK) {
			return RT_E_CORRUPT;
		}
		err = give_gathered(scan);
		return err != RT_OK ? err
				    : sh_raft_restore_entries(
					      &scan->replica->raft, 1, record.term, &members);
	}
	if (record.term != scan->term || scan->count == UINT32_MAX) {
		err = give_gathered(scan);
		scan->term = record.term;
	}
	scan->count++;
	return err;
}

static bool visit(void *arg, uint64_t index, struct rt_bytes bytes)
{
	struct scan *scan = arg;
	scan->err = take_entry(scan, index, bytes);
	return scan->err == RT_OK;
}

static rt_err read_log(
	struct sh_replica *replica, const struct sh_mark *mark, struct rt_errinfo *info)
{
	struct scan scan = {.replica = replica, .next = mark->mark + 1};
	uint64_t first = replica->port->first(replica->arg);
	if (first > mark->floor + 1) {
		return corrupt(info, replica, "the log begins above the floor");
	}
	if (mark->mark > 0 && first <= mark->mark) {
		scan.next = scan.check = mark->mark;
		scan.term = mark_term_at(mark, mark->mark);
	}
	rt_err err = replica->port->scan(replica->arg, scan.next, visit, &scan, info);
	if (err != RT_OK) {
		return rt_errinfo_wrap(info, err, "shard %u: log", replica->shard);
	}
	if (scan.err == RT_OK) {
		scan.err = give_gathered(&scan);
	}
	if (scan.err == RT_OK && scan.next <= mark->mark && mark->mark > mark->floor) {
		return corrupt(info, replica, "the log ends below the mark");
	}
	return scan.err == RT_OK
		       ? RT_OK
		       : rt_errinfo_set(info, scan.err, "shard %u: log: index %llu does not fit",
				 replica->shard, (unsigned long long)scan.next);
}

/* ---- open ---- */
rt_err sh_host_blank(struct sh_replica *replica, const struct sh_raft *old)
{
	struct sh_raft_settings settings = old->settings;
	struct sh_raft_restore restore = {.term = old->term,
		.vote = old->vote,
		.members = replica->first,
		.bar_index = old->bar_index,
		.bar_term = old->bar_term};
	return sh_raft_init(&replica->raft, &settings, &restore, replica->queue);
}

static rt_err restore_normal(struct sh_replica *replica, const struct sh_mark *mark, uint64_t term,
	uint64_t vote, struct rt_errinfo *info)
{
	struct sh_raft_settings settings = replica->raft.settings;
	struct sh_raft_restore restore = {.term = term,
		.vote = vote,
		.floor = mark->floor,
		.floor_term = mark->floor_term,
		.set_index = mark->base.index,
		.members = mark->base.members,
		.commit = mark->mark,
		.bar_index = mark->bar_index,
		.bar_term = mark->bar_term};
	rt_err err = sh_raft_init(&replica->raft, &settings, &restore, replica->queue);
	if (err == RT_OK) {
		err = give_marked(replica, mark);
	}
	if (err != RT_OK) {
		return rt_errinfo_set(
			info, err, "shard %u: the mark contradicts term and vote", replica->shard);
	}
	replica->marked = mark->mark;
	return read_log(replica, mark, info);
}

static rt_err restore(
	struct sh_replica *replica, const struct sh_members *first, struct rt_errinfo *info)
{
	struct sh_mark mark = {.base.members = *first};
	uint64_t term;
	uint64_t vote;
	bool found = false;
	rt_err err = read_hard(replica, &term, &vote, info);
	if (err == RT_OK) {
		err = read_mark(replica, &mark, &found, info);
	}
	if (err != RT_OK) {
		return err;
	}
	replica->unmarked = !found;
	if (mark.base.index == 0) {
		replica->first = mark.base.members;
	}
	replica->removed = mark.state == SH_MARK_REMOVED;
	replica->wipe = mark.state == SH_MARK_INSTALLING;
	struct sh_raft kept = {.settings = replica->raft.settings,
		.term = term,
		.vote = vote,
		.bar_index = mark.bar_index,
		.bar_term = mark.bar_term};
	err = mark.state == SH_MARK_NORMAL ? restore_normal(replica, &mark, term, vote, info)
					   : sh_host_blank(replica, &kept);
	sh_mark_clear(&mark);
	return err;
}

rt_err sh_replica_open(
	const struct sh_replica_options *options, struct sh_replica **out, struct rt_errinfo *info)
{
	struct sh_replica *replica = calloc(1, sizeof(*replica));
	if (replica == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "shard %u", options->shard);
	}
	replica->queue = options->queue != NULL ? options->queue : &replica->own;
	replica->port = options->port;
	replica->arg = options->arg;
	replica->shard = options->shard;
	replica->cache_bytes = options->cache_bytes == 0 ? CACHE_DEFAULT : options->cache_bytes;
	replica->mark_every = options->mark_every == 0 ? MARK_DEFAULT : options->mark_every;
	replica->runs_max = options->runs_max == 0 ? RUNS_DEFAULT : options->runs_max;
	replica->raft.settings = options->raft;
	replica->raft.settings.rank = options->shard;
	rt_err err = restore(replica, &options->first, info);
	if (err != RT_OK) {
		sh_replica_close(replica);
		return err;
	}
	*out = replica;
	return RT_OK;
}

/* ---- back to nothing ---- */
rt_err sh_host_wipe(struct sh_replica *replica)
{
	struct sh_write wipe = {.kind = SH_WRITE_WIPE, .index = 1};
	struct sh_mark mark = {.state = SH_MARK_NORMAL, .base.members = replica->first};
	rt_err err = sh_host_write(replica, &wipe);
	replica->marked = 0;
	replica->unmarked = false;
	return err == RT_OK ? sh_host_write_mark(replica, &mark) : err;
}

void sh_host_forget(struct sh_replica *replica)
{
	sh_outbox_free(replica);
	sh_install_free(replica);
	sh_cache_clear(&replica->cache);
	replica->store_count = 0;
}

void sh_replica_close(struct sh_replica *replica)
{
	if (replica == NULL) {
		return;
	}
	sh_host_forget(replica);
	free(replica->reads);
	sh_raft_done(&replica->raft);
	if (replica->queue == &replica->own) {
		sh_out_queue_done(&replica->own);
	}
	free(replica);
}
