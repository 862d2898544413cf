#include "sharding/replica.h"

#include <stdlib.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "sharding/host.h"

#define SMALL_BYTES 160u  /* a record of the replica's own: first of a term, members */
#define QUIET_MS    2000u /* without entries for so long, and nothing outstanding: idle */
#define SETS_MAX    16u   /* above the floor; SETS_MAX / 2 stay */

/* ---- writing ---- */
rt_err sh_host_end(struct sh_replica *replica)
{
	struct sh_out out;
	if (!replica->failed) {
		replica->failed = true;
		replica->led = false;
		while (sh_out_next(replica->queue, &out)) {
			/* The queue belongs to others too. */
		}
		sh_host_forget(replica);
		sh_reads_end(replica, RT_E_UNKNOWN);
	}
	return RT_E_CLOSED;
}

rt_err sh_host_write(struct sh_replica *replica, const struct sh_write *write)
{
	rt_err err = replica->port->write(replica->arg, write);
	replica->written += err == RT_OK;
	return err;
}

rt_err sh_host_write_mark(struct sh_replica *replica, const struct sh_mark *mark)
{
	uint8_t key[SH_KEY_BYTES];
	struct sh_write write = {.kind = SH_WRITE_META, .key = sh_mark_key(replica->shard, key)};
	struct sh_mark row = *mark;
	row.bar_index = replica->raft.bar_index;
	row.bar_term = replica->raft.bar_term;
	rt_err err = sh_mark_encode(&row, &write.bytes);
	if (err == RT_OK) {
		err = sh_host_write(replica, &write);
		free((void *)(uintptr_t)write.bytes.data);
	}
	return err;
}

rt_err sh_host_mark(struct sh_replica *replica)
{
	struct sh_mark mark;
	uint64_t index = replica->told > replica->raft.floor ? replica->told : replica->raft.floor;
	sh_mark_of(&replica->raft, index, &mark);
	rt_err err = sh_host_write_mark(replica, &mark);
	if (err == RT_OK) {
		replica->marked = index;
		replica->unmarked = false;
	}
	return err;
}

static rt_err write_hard(struct sh_replica *replica, uint64_t term, uint64_t vote)
{
	uint8_t key[SH_KEY_BYTES];
	uint8_t row[SH_HARD_BYTES];
	sh_mark_hard_encode(term, vote, row);
	struct sh_write write = {.kind = SH_WRITE_META,
		.key = sh_mark_hard_key(replica->shard, key),
		.bytes = rt_bytes_of(row, sizeof(row))};
	rt_err err = sh_host_write(replica, &write);
	replica->hard_seq = replica->written;
	return err;
}

/* When all places are taken the newest waits for the next write: told a little later, never early.
 */
static void remember_store(struct sh_replica *replica, uint64_t index, uint64_t generation)
{
	if (replica->store_count == SH_STORES) {
		replica->store_count--;
	}
	replica->stores[(replica->store_head + replica->store_count++) % SH_STORES] =
		(struct sh_stored){replica->written, index, generation};
}

static rt_err write_entry(struct sh_replica *replica, uint64_t index, struct rt_bytes record)
{
	struct sh_write write = {.kind = SH_WRITE_RECORD, .index = index, .bytes = record};
	rt_err err = sh_host_write(replica, &write);
	if (err == RT_OK) {
		sh_cache_push(&replica->cache, index, record);
	}
	return err;
}

static rt_err write_own(struct sh_replica *replica, uint64_t index, uint64_t term, uint32_t kind)
{
	uint8_t members[SH_MEMBERS_BYTES];
	uint8_t bytes[SMALL_BYTES];
	struct ps_record record = {.term = term, .kind = kind, .time_ms = replica->now};
	if (kind == PS_KIND_MEMBERS) {
		const struct sh_raft_set *set = sh_raft_members(&replica->raft);
		record.answer = rt_bytes_of(members, sh_members_encode(&set->members, members));
	}
	size_t size = ps_record_size(&record, NULL);
	RT_ASSERT(size <= sizeof(bytes));
	ps_record_encode(bytes, &record, NULL);
	rt_err err = sh_cache_reserve(&replica->cache, 1, size);
	return err == RT_OK ? write_entry(replica, index, rt_bytes_of(bytes, size)) : err;
}

/* ---- outputs of the core ---- */
static rt_err on_append(struct sh_replica *replica, const struct sh_out *out)
{
	uint64_t from = out->append.from;
	rt_err err = RT_OK;
	if (out->append.truncate) {
		struct sh_write cut = {.kind = SH_WRITE_CUT, .index = from};
		err = sh_host_write(replica, &cut);
		sh_cache_cut(&replica->cache, from);
	}
	switch (out->append.source) {
	case SH_FROM_PROPOSAL: /* The owner wrote them. */
		for (uint32_t i = 0; i < out->append.count; i++) {
			sh_cache_push(&replica->cache, from + i, replica->records[i]);
		}
		replica->written++;
		break;
	case SH_FROM_MESSAGE:
		for (uint32_t i = 0; err == RT_OK && i < out->append.count; i++) {
			err = write_entry(
				replica, from + i, replica->records[out->append.skip + i]);
		}
		break;
	case SH_FROM_NOOP:
	case SH_FROM_MEMBERS:
		if (err == RT_OK) {
			err = write_own(replica, from, out->append.term,
				out->append.source == SH_FROM_NOOP ? PS_KIND_NOOP
								   : PS_KIND_MEMBERS);
		}
		break;
	}
	remember_store(replica, from + out->append.count - 1, out->append.generation);
	replica->quiet_at = replica->now + QUIET_MS;
	/* The batch is being written anyway. */
	if (err == RT_OK && replica->told >= replica->marked + replica->mark_every) {
		err = sh_host_mark(replica);
	}
	return err;
}

static void on_role(struct sh_replica *replica, const struct sh_out *out)
{
	if (out->role.role == SH_LEADER) {
		replica->leader_told = out->role.leader;
		return; /* port->lead: when the first entry of the term is committed and durable */
	}
	bool changed = replica->led || out->role.leader != replica->leader_told;
	replica->led = false;
	replica->leader_told = out->role.leader;
	sh_outbox_follow(replica);
	sh_reads_end(replica, RT_E_FENCED);
	if (changed) {
		replica->port->follow(replica->arg, out->role.term, out->role.leader);
	}
}

static rt_err on_removed(struct sh_replica *replica)
{
	struct sh_mark mark = {.state = SH_MARK_REMOVED};
	rt_err err = sh_host_write_mark(replica, &mark);
	replica->tombstone = replica->written;
	replica->removed = true; /* The core said before that it follows nobody. */
	return err;
}

static rt_err on_output(struct sh_replica *replica, const struct sh_out *out)
{
	struct sh_raft_set set;
	switch (out->kind) {
	case SH_OUT_HARD:
		return write_hard(replica, out->hard.term, out->hard.vote);
	case SH_OUT_APPEND:
		return on_append(replica, out);
	case SH_OUT_INSTALL:
		return sh_install_begin(replica, out->install.source);
	case SH_OUT_SEND:
		return sh_outbox_send(replica, &out->send);
	case SH_OUT_COMMIT:
		return RT_OK; /* settle */
	case SH_OUT_MEMBERS:
		if (out->members.committed) {
			set = (struct sh_raft_set){
				.index = out->members.index, .members = out->members.set};
			replica->port->members(replica->arg, &set, false);
		}
		return RT_OK;
	case SH_OUT_ROLE:
		on_role(replica, out);
		return RT_OK;
	case SH_OUT_REMOVED:
		return on_removed(replica);
	}
	return RT_OK;
}

/* An input that was refused may have said something first: a newer term. */
rt_err sh_host_pump(struct sh_replica *replica, rt_err err)
{
	struct sh_out out;
	while (sh_out_next(replica->queue, &out)) {
		if (on_output(replica, &out) != RT_OK) {
			return sh_host_end(replica);
		}
	}
	return err;
}

/* ---- what follows from an input ---- */
static rt_err maybe_lead(struct sh_replica *replica)
{
	const struct sh_raft *raft = &replica->raft;
	if (replica->led || !sh_raft_leads(raft) || replica->told < raft->noop) {
		return RT_OK;
	}
	replica->led = true;
	replica->port->lead(replica->arg, raft->term, raft->last);
	/* Records behind the mark are read at each start; here is a batch of its own for it. */
	if (replica->told - replica->marked < replica->mark_every / 4) {
		return RT_OK;
	}
	return sh_host_mark(replica) == RT_OK ? RT_OK : sh_host_end(replica);
}

static void trim_cache(struct sh_replica *replica)
{
	struct sh_cache *cache = &replica->cache;
	bool alone = sh_raft_members(&replica->raft)->members.count < 2;
	uint64_t most = alone ? 0 : replica->cache_bytes;
	while (cache->count > 0 && cache->first <= replica->told && cache->memory > most) {
		sh_cache_drop(cache);
	}
}

static bool peer_installs(const struct sh_replica *replica)
{
	const struct sh_raft *raft = &replica->raft;
	for (uint32_t i = 0; sh_raft_leads(raft) && i < sh_raft_members(raft)->members.count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		if (peer->state == SH_PEER_INSTALL &&
			raft->now - peer->heard_at <
				SH_HOLD_ELECTIONS * sh_host_election_ms(replica)) {
			return true;
		}
	}
	return false;
}

/* The floor is a place in the story of terms: the log below it stays. */
static void trim_story(struct sh_replica *replica)
{
	struct sh_raft *raft = &replica->raft;
	uint64_t floor = 0;
	if (raft->run_count > replica->runs_max) {
		floor = raft->runs[raft->run_count - (replica->runs_max + 1) / 2].first;
	}
	if (raft->set_count > SETS_MAX &&
		raft->sets[raft->set_count - SETS_MAX / 2].index > floor) {
		floor = raft->sets[raft->set_count - SETS_MAX / 2].index;
	}
	floor = floor > replica->told ? replica->told : floor;
	if (floor > raft->floor && !peer_installs(replica) &&
		sh_install_holds(replica) == UINT64_MAX) {
		sh_raft_compact(raft, floor);
	}
}

static rt_err settle(struct sh_replica *replica, rt_err err)
{
	const struct sh_raft *raft = &replica->raft;
	if (err != RT_OK || sh_host_inert(replica)) {
		return err;
	}
	uint64_t upto = raft->commit < raft->stored ? raft->commit : raft->stored;
	if (upto > replica->told && replica->install == NULL) {
		replica->told = upto;
		replica->port->committed(replica->arg, upto);
		sh_raft_applied(&replica->raft, upto);
	}
	err = maybe_lead(replica);
	if (err == RT_OK) {
		err = sh_reads_settle(replica);
	}
	trim_cache(replica);
	trim_story(replica);
	return err;
}

/* RT_E_CLOSED: no input is taken any more. */
static rt_err enter(struct sh_replica *replica, uint64_t now_ms)
{
	replica->now = now_ms > replica->now ? now_ms : replica->now;
	return replica->failed ? RT_E_CLOSED : RT_OK;
}

/* ---- inputs ---- */
rt_err sh_replica_start(struct sh_replica *replica, uint64_t now_ms)
{
	rt_err err = enter(replica, now_ms);
	RT_ASSERT(!replica->started);
	if (err != RT_OK || replica->removed) {
		return err;
	}
	replica->started = true;
	if (replica->wipe) {
		err = sh_host_wipe(replica);
	} else if (replica->unmarked) {
		err = sh_host_mark(replica);
	}
	if (err == RT_OK) {
		err = sh_raft_start(&replica->raft, replica->now);
	}
	return err == RT_OK ? settle(replica, sh_host_pump(replica, RT_OK)) : sh_host_end(replica);
}

static uint64_t quiet_due(const struct sh_replica *replica)
{
	bool settled = replica->told == replica->raft.last && replica->cache.memory > 0;
	return settled ? replica->quiet_at : UINT64_MAX;
}

static rt_err stored(struct sh_replica *replica);

rt_err sh_replica_tick(struct sh_replica *replica, uint64_t now_ms)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK || sh_host_inert(replica)) {
		return err;
	}
	if (quiet_due(replica) <= replica->now) {
		sh_cache_clear(&replica->cache);
	}
	sh_install_tick(replica);
	err = stored(replica); /* If memory was short. */
	if (err == RT_OK) {
		err = sh_host_pump(replica, sh_raft_tick(&replica->raft, replica->now));
	}
	if (err == RT_OK) {
		err = sh_outbox_resume(replica);
	}
	return settle(replica, err);
}

uint64_t sh_replica_next_timeout(const struct sh_replica *replica)
{
	if (sh_host_inert(replica)) {
		return UINT64_MAX;
	}
	uint64_t next = sh_raft_next_timeout(&replica->raft);
	uint64_t install = sh_install_next_timeout(replica);
	uint64_t quiet = quiet_due(replica);
	next = install < next ? install : next;
	return quiet < next ? quiet : next;
}

/* What the core must know of the records. *sets: malloc'd, for those that change the members. */
static rt_err describe(const struct sh_message *message, struct sh_raft_entry *entries,
	struct sh_members **sets, size_t *out_bytes)
{
	struct ps_record record;
	struct sh_members *set = NULL;
	for (uint32_t i = 0; i < message->head.count; i++) {
		struct rt_bytes bytes = message->records[i];
		if (bytes.size == 0 || bytes.size > PS_RECORD_MAX ||
			ps_record_peek(bytes, &record) != RT_OK || record.term == 0) {
			return RT_E_PROTO;
		}
		entries[i] = (struct sh_raft_entry){.term = record.term};
		*out_bytes += bytes.size;
		if (record.kind != PS_KIND_MEMBERS) {
			continue;
		}
		if (*sets == NULL) { /* No more of them than records that are left. */
			*sets = set = calloc(message->head.count - i, sizeof(*set));
		}
		if (set == NULL) {
			return RT_E_NOMEM;
		}
		if (ps_record_decode(bytes, &record) != RT_OK ||
			sh_members_decode(record.answer, set) != RT_OK || set->voters == 0) {
			return RT_E_PROTO;
		}
		entries[i].members = set++;
	}
	return RT_OK;
}

static rt_err recv_append(struct sh_replica *replica, const struct sh_message *message)
{
	struct sh_raft_entry entries[SH_MESSAGE_RECORDS];
	struct sh_members *sets = NULL;
	uint32_t count = message->head.count;
	if (count > SH_MESSAGE_RECORDS) {
		return RT_E_PROTO;
	}
	size_t bytes = 0;
	rt_err err = describe(message, entries, &sets, &bytes);
	if (err == RT_OK && count > 0) {
		err = sh_cache_reserve(&replica->cache, count, bytes);
	}
	if (err == RT_OK) {
		replica->records = message->records;
		err = sh_raft_recv(&replica->raft, replica->now, &message->head, entries);
		err = sh_host_pump(replica, err);
		replica->records = NULL;
	}
	free(sets);
	return err;
}

static rt_err dispatch(struct sh_replica *replica, const struct sh_message *message)
{
	const struct sh_raft_message *head = &message->head;
	if (message->shard != replica->shard || head->to != replica->raft.settings.node ||
		head->from == 0 || head->from == head->to) {
		return RT_E_PROTO;
	}
	switch (head->type) {
	case SH_MSG_APPEND:
		return recv_append(replica, message);
	case SH_MSG_FETCH:
		sh_install_fetch(replica, head);
		return RT_OK;
	case SH_MSG_CHUNK:
		return head->count > SH_MESSAGE_RECORDS ? RT_E_PROTO
							: sh_install_chunk(replica, message);
	default:
		return sh_host_pump(
			replica, sh_raft_recv(&replica->raft, replica->now, head, NULL));
	}
}

rt_err sh_replica_recv(
	struct sh_replica *replica, uint64_t now_ms, const struct sh_message *message)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK || sh_host_inert(replica)) {
		return err;
	}
	err = dispatch(replica, message);
	replica->refused += err == RT_E_PROTO;
	return settle(replica, err);
}

rt_err sh_replica_propose(struct sh_replica *replica, const struct rt_bytes *records,
	uint32_t count, uint64_t *out_first)
{
	RT_ASSERT(count > 0);
	size_t bytes = 0;
	if (replica->failed) {
		return RT_E_CLOSED;
	}
	if (!replica->led) {
		return RT_E_FENCED;
	}
	for (uint32_t i = 0; i < count; i++) {
		bytes += records[i].size;
	}
	rt_err err = sh_cache_reserve(&replica->cache, count, bytes);
	if (err != RT_OK) {
		return err;
	}
	replica->records = records;
	err = sh_host_pump(replica, sh_raft_propose(&replica->raft, count, out_first));
	replica->records = NULL;
	return settle(replica, err);
}

rt_err sh_replica_propose_members(
	struct sh_replica *replica, const struct sh_members *members, uint64_t *out_index)
{
	if (sh_host_inert(replica)) {
		return replica->failed ? RT_E_CLOSED : RT_E_FENCED;
	}
	if (sh_raft_leads(&replica->raft) && !replica->led) {
		return RT_E_AGAIN;
	}
	return settle(replica,
		sh_host_pump(replica, sh_raft_propose_members(&replica->raft, members, out_index)));
}

rt_err sh_replica_transfer(struct sh_replica *replica, uint64_t now_ms, uint64_t node)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK || sh_host_inert(replica)) {
		return err != RT_OK ? err : RT_E_FENCED;
	}
	err = sh_raft_transfer(&replica->raft, replica->now, node);
	return settle(replica, sh_host_pump(replica, err));
}

void sh_replica_behind(struct sh_replica *replica, bool behind)
{
	sh_raft_behind(&replica->raft, behind);
}

rt_err sh_replica_knock(struct sh_replica *replica, uint64_t now_ms, uint64_t node)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK || sh_host_inert(replica)) {
		return err;
	}
	err = sh_raft_knock(&replica->raft, replica->now, node);
	return settle(replica, sh_host_pump(replica, err));
}

rt_err sh_replica_linearize(struct sh_replica *replica, uint64_t now_ms, void *ticket)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK) {
		return err;
	}
	if (sh_host_inert(replica) || !sh_raft_leads(&replica->raft)) {
		return RT_E_FENCED;
	}
	if (!replica->led) {
		return RT_E_AGAIN;
	}
	err = sh_reads_add(replica, ticket);
	return settle(replica, err);
}

/* ---- completions ---- */
uint64_t sh_replica_written(const struct sh_replica *replica)
{
	return replica->written;
}

/* The newest of what is durable says it all. It stays until the core has taken it. */
static rt_err stored(struct sh_replica *replica)
{
	uint32_t done = 0;
	const struct sh_stored *newest = NULL;
	while (done < replica->store_count) {
		const struct sh_stored *store =
			&replica->stores[(replica->store_head + done) % SH_STORES];
		if (store->written > replica->durable) {
			break;
		}
		newest = store;
		done++;
	}
	if (newest == NULL) {
		return RT_OK;
	}
	rt_err err = sh_raft_stored(&replica->raft, newest->index, newest->generation);
	if (err == RT_E_NOMEM) {
		return err;
	}
	replica->store_head = (uint8_t)((replica->store_head + done) % SH_STORES);
	replica->store_count = (uint8_t)(replica->store_count - done);
	return sh_host_pump(replica, err);
}

static void buried(struct sh_replica *replica)
{
	const struct sh_raft_set *known = sh_raft_members(&replica->raft);
	struct sh_raft_set set = known != NULL ? *known : (struct sh_raft_set){0};
	sh_members_remove(&set.members, replica->raft.settings.node);
	replica->tombstone = 0;
	sh_host_forget(replica);
	replica->port->members(replica->arg, &set, true);
}

rt_err sh_replica_durable(struct sh_replica *replica, uint64_t now_ms, uint64_t written)
{
	rt_err err = enter(replica, now_ms);
	RT_ASSERT(written <= replica->written);
	if (err != RT_OK || written <= replica->durable) {
		return err;
	}
	replica->durable = written;
	if (replica->removed) {
		if (replica->tombstone != 0 && replica->tombstone <= written) {
			buried(replica);
		}
		return RT_OK;
	}
	err = sh_outbox_durable(replica);
	if (err == RT_OK) {
		err = stored(replica);
	}
	if (err == RT_OK) {
		err = sh_install_durable(replica);
	}
	return settle(replica, err);
}

rt_err sh_replica_read_done(struct sh_replica *replica, uint64_t now_ms, void *ticket, rt_err err,
	const struct rt_bytes *records, uint32_t count)
{
	rt_err ended = enter(replica, now_ms);
	if (ended != RT_OK) {
		return ended;
	}
	rt_err done = sh_outbox_read_done(replica, ticket, err, records, count);
	if (done == RT_E_NOTFOUND) {
		done = sh_install_read_done(replica, ticket, err, records, count);
	}
	/* A ticket of before it was renewed: nobody waits. */
	return settle(replica, done == RT_E_NOTFOUND ? RT_OK : done);
}

void sh_replica_fail(struct sh_replica *replica)
{
	(void)sh_host_end(replica);
}

/* ---- rarely ---- */
rt_err sh_replica_compact(struct sh_replica *replica, uint64_t upto, uint64_t *out_floor)
{
	if (replica->failed) {
		return RT_E_CLOSED;
	}
	if (sh_host_inert(replica) || replica->install != NULL) {
		return RT_E_AGAIN;
	}
	uint64_t held = sh_install_holds(replica);
	if (peer_installs(replica)) {
		held = replica->port->first(replica->arg);
	}
	upto = upto < held ? upto : held - 1;
	upto = upto < replica->told ? upto : replica->told;
	sh_raft_compact(&replica->raft, upto);
	if (sh_host_mark(replica) != RT_OK) {
		return sh_host_end(replica);
	}
	*out_floor = upto < replica->raft.floor ? upto : replica->raft.floor;
	return RT_OK;
}

rt_err sh_replica_renew(struct sh_replica *replica, uint64_t now_ms)
{
	rt_err err = enter(replica, now_ms);
	if (err != RT_OK) {
		return err;
	}
	if (!replica->removed || replica->tombstone != 0) {
		return RT_E_INVAL;
	}
	struct sh_raft old = replica->raft;
	sh_raft_done(&replica->raft);
	replica->first = (struct sh_members){0}; /* What added and removed it are entries. */
	err = sh_host_blank(replica, &old);
	if (err == RT_OK) {
		err = sh_host_wipe(replica);
	}
	if (err == RT_OK) {
		err = sh_raft_start(&replica->raft, replica->now);
	}
	if (err != RT_OK) {
		return sh_host_end(replica);
	}
	replica->removed = false;
	replica->started = true;
	replica->told = 0;
	replica->leader_told = 0;
	return settle(replica, sh_host_pump(replica, RT_OK));
}

bool sh_replica_removed(const struct sh_replica *replica)
{
	return replica->removed;
}

bool sh_replica_record(const struct sh_replica *replica, uint64_t index, struct rt_bytes *out)
{
	return sh_cache_get(&replica->cache, index, out);
}

void sh_replica_stats(const struct sh_replica *replica, struct sh_replica_stats *out)
{
	const struct sh_raft *raft = &replica->raft;
	*out = (struct sh_replica_stats){
		.memory_bytes = sizeof(*replica) + raft->run_cap * sizeof(*raft->runs) +
				raft->set_cap * sizeof(*raft->sets) + replica->cache.memory +
				sh_outbox_memory(replica) + sh_install_memory(replica) +
				sh_reads_memory(replica),
		.refused = replica->refused,
		.parked = sh_outbox_parked(replica),
		.installs = replica->installs};
}

const struct sh_raft *sh_replica_raft(const struct sh_replica *replica)
{
	return &replica->raft;
}
