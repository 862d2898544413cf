#include "sharding/mark.h"

#include <stdlib.h>

#include "runtime/base/assert.h"
#include "runtime/base/hash.h"

#define VERSION    1u
#define HEAD_BYTES 46u /* up to the base set */
#define HASH_BYTES 8u
#define RUN_BYTES  16u
#define COUNT_MAX  65535u

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
	for (int i = 0; i < 8; i++) {
		*at++ = (uint8_t)(value >> (8 * i));
	}
	return at;
}

static uint64_t get_u64(const uint8_t *at)
{
	uint64_t value = 0;
	for (int i = 0; i < 8; i++) {
		value |= (uint64_t)at[i] << (8 * i);
	}
	return value;
}

/* ---- keys and the hard state ---- */
static struct rt_bytes key_of(const char name[4], uint32_t shard, uint8_t out[SH_KEY_BYTES])
{
	memcpy(out, name, 4);
	out[4] = (uint8_t)(shard >> 8);
	out[5] = (uint8_t)shard;
	return rt_bytes_of(out, SH_KEY_BYTES);
}

struct rt_bytes sh_mark_hard_key(uint32_t shard, uint8_t out[SH_KEY_BYTES])
{
	return key_of("hard", shard, out);
}

struct rt_bytes sh_mark_key(uint32_t shard, uint8_t out[SH_KEY_BYTES])
{
	return key_of("raft", shard, out);
}

void sh_mark_hard_encode(uint64_t term, uint64_t vote, uint8_t out[SH_HARD_BYTES])
{
	put_u64(put_u64(out, term), vote);
}

rt_err sh_mark_hard_decode(struct rt_bytes bytes, uint64_t *out_term, uint64_t *out_vote)
{
	if (bytes.size != SH_HARD_BYTES) {
		return RT_E_CORRUPT;
	}
	*out_term = get_u64(bytes.data);
	*out_vote = get_u64(bytes.data + 8);
	return RT_OK;
}

/* ---- encode ---- */
void sh_mark_of(const struct sh_raft *raft, uint64_t mark, struct sh_mark *out)
{
	RT_ASSERT(mark >= raft->floor && mark <= raft->last);
	*out = (struct sh_mark){.state = SH_MARK_NORMAL,
		.floor = raft->floor,
		.floor_term = sh_raft_term_at(raft, raft->floor),
		.mark = mark,
		.base = *sh_raft_members_at(raft, raft->floor)};
	uint32_t i = 0;
	while (i < raft->set_count && raft->sets[i].index <= raft->floor) {
		i++;
	}
	out->sets = raft->sets + i;
	while (i < raft->set_count && raft->sets[i].index <= mark) {
		i++;
		out->set_count++;
	}
	i = 0;
	while (i < raft->run_count && raft->runs[i].first <= raft->floor) {
		i++;
	}
	out->runs = raft->runs + i;
	while (i < raft->run_count && raft->runs[i].first <= mark) {
		i++;
		out->run_count++;
	}
}

static uint8_t *put_set(uint8_t *at, const struct sh_raft_set *set)
{
	at = put_u64(at, set->index);
	return at + sh_members_encode(&set->members, at);
}

rt_err sh_mark_encode(const struct sh_mark *mark, struct rt_bytes *out)
{
	RT_ASSERT(mark->set_count <= COUNT_MAX && mark->run_count <= COUNT_MAX);
	size_t most = HEAD_BYTES + (1u + mark->set_count) * (8u + SH_MEMBERS_BYTES) +
		      (size_t)mark->run_count * RUN_BYTES + HASH_BYTES;
	uint8_t *bytes = malloc(most);
	if (bytes == NULL) {
		return RT_E_NOMEM;
	}
	uint8_t *at = bytes;
	*at++ = VERSION;
	*at++ = (uint8_t)mark->state;
	at = put_u64(at, mark->floor);
	at = put_u64(at, mark->floor_term);
	at = put_u64(at, mark->mark);
	at = put_u64(at, mark->bar_index);
	at = put_u64(at, mark->bar_term);
	*at++ = (uint8_t)mark->set_count;
	*at++ = (uint8_t)(mark->set_count >> 8);
	*at++ = (uint8_t)mark->run_count;
	*at++ = (uint8_t)(mark->run_count >> 8);
	at = put_set(at, &mark->base);
	for (uint32_t i = 0; i < mark->set_count; i++) {
		at = put_set(at, &mark->sets[i]);
	}
	for (uint32_t i = 0; i < mark->run_count; i++) {
		at = put_u64(at, mark->runs[i].first);
		at = put_u64(at, mark->runs[i].term);
	}
	at = put_u64(at, rt_hash(bytes, (size_t)(at - bytes)));
	*out = rt_bytes_of(bytes, (size_t)(at - bytes));
	return RT_OK;
}

/* ---- decode ---- */
static bool take_set(struct rt_bytes *rest, struct sh_raft_set *out)
{
	if (rest->size < 10) {
		return false;
	}
	size_t size = 10u + 8u * rest->data[8];
	if (rest->size < size ||
		sh_members_decode(rt_bytes_of(rest->data + 8, size - 8), &out->members) != RT_OK) {
		return false;
	}
	out->index = get_u64(rest->data);
	*rest = rt_bytes_of(rest->data + size, rest->size - size);
	return true;
}

static bool take_sets(struct rt_bytes *rest, struct sh_mark *mark, struct sh_raft_set *sets)
{
	if (!take_set(rest, &mark->base) || mark->base.index > mark->floor) {
		return false;
	}
	uint64_t last = mark->floor;
	for (uint32_t i = 0; i < mark->set_count; i++) {
		if (!take_set(rest, &sets[i]) || sets[i].index <= last ||
			sets[i].index > mark->mark || sets[i].members.count == 0) {
			return false;
		}
		last = sets[i].index;
	}
	return true;
}

static bool take_runs(struct rt_bytes *rest, const struct sh_mark *mark, struct sh_raft_run *runs)
{
	if (rest->size != (size_t)mark->run_count * RUN_BYTES) {
		return false;
	}
	struct sh_raft_run last = {mark->floor, mark->floor_term};
	for (uint32_t i = 0; i < mark->run_count; i++) {
		runs[i].first = get_u64(rest->data + i * RUN_BYTES);
		runs[i].term = get_u64(rest->data + i * RUN_BYTES + 8);
		if (runs[i].first <= last.first || runs[i].first > mark->mark ||
			runs[i].term <= last.term) {
			return false;
		}
		last = runs[i];
	}
	/* Term 0 is of the place before the first entry, never of one. */
	return mark->floor > 0 || mark->mark == 0 || (mark->run_count > 0 && runs[0].first == 1);
}

static bool head_ok(struct rt_bytes bytes, struct sh_mark *out)
{
	if (bytes.size < HEAD_BYTES + HASH_BYTES || bytes.data[0] != VERSION ||
		bytes.data[1] >= SH_MARK_STATES) {
		return false;
	}
	size_t size = bytes.size - HASH_BYTES;
	if (get_u64(bytes.data + size) != rt_hash(bytes.data, size)) {
		return false;
	}
	*out = (struct sh_mark){.state = (enum sh_mark_state)bytes.data[1],
		.floor = get_u64(bytes.data + 2),
		.floor_term = get_u64(bytes.data + 10),
		.mark = get_u64(bytes.data + 18),
		.bar_index = get_u64(bytes.data + 26),
		.bar_term = get_u64(bytes.data + 34),
		.set_count = (uint32_t)bytes.data[42] | (uint32_t)bytes.data[43] << 8,
		.run_count = (uint32_t)bytes.data[44] | (uint32_t)bytes.data[45] << 8};
	return out->floor <= out->mark && (out->floor == 0) == (out->floor_term == 0);
}

rt_err sh_mark_decode(struct rt_bytes bytes, struct sh_mark *out)
{
	struct sh_mark mark;
	if (!head_ok(bytes, &mark)) {
		return RT_E_CORRUPT;
	}
	struct sh_raft_set *sets =
		calloc(1, mark.set_count * sizeof(struct sh_raft_set) +
				  mark.run_count * sizeof(struct sh_raft_run) + 1u);
	if (sets == NULL) {
		return RT_E_NOMEM;
	}
	struct sh_raft_run *runs = (struct sh_raft_run *)(void *)(sets + mark.set_count);
	struct rt_bytes rest =
		rt_bytes_of(bytes.data + HEAD_BYTES, bytes.size - HEAD_BYTES - HASH_BYTES);
	if (!take_sets(&rest, &mark, sets) || !take_runs(&rest, &mark, runs)) {
		free(sets);
		return RT_E_CORRUPT;
	}
	mark.memory = sets;
	mark.sets = sets;
	mark.runs = runs;
	*out = mark;
	return RT_OK;
}

void sh_mark_clear(struct sh_mark *mark)
{
	free(mark->memory);
	*mark = (struct sh_mark){0};
}
