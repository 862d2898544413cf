#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "tests/sim/sim.h"

#define WHOLE 1024u /* longer records are hashed by their ends */

uint64_t sim_record_hash(struct rt_bytes bytes)
{
	if (bytes.size <= WHOLE) {
		return rt_hash(bytes.data, bytes.size);
	}
	return rt_hash_mix(rt_hash(bytes.data, WHOLE / 2) ^ bytes.size) ^
	       rt_hash(bytes.data + bytes.size - WHOLE / 2, WHOLE / 2);
}

struct sim_record *sim_record_new(struct rt_bytes bytes)
{
	struct ps_record head;
	struct sh_members set = {0};
	if (ps_record_peek(bytes, &head) != RT_OK) {
		return NULL;
	}
	bool members = head.kind == PS_KIND_MEMBERS;
	if (members && (ps_record_decode(bytes, &head) != RT_OK ||
			       sh_members_decode(head.answer, &set) != RT_OK)) {
		return NULL;
	}
	struct sim_record *record = malloc(sizeof(*record) + bytes.size);
	RT_ASSERT(record != NULL);
	*record = (struct sim_record){.refs = 1,
		.size = (uint32_t)bytes.size,
		.kind = head.kind,
		.term = head.term,
		.hash = sim_record_hash(bytes),
		.id = head.kind == PS_KIND_COMMAND ? head.first_seq : 0};
	memcpy(record->bytes, bytes.data, bytes.size);
	if (members) {
		struct sh_members *copy = malloc(sizeof(*copy));
		RT_ASSERT(copy != NULL);
		*copy = set;
		record->members = copy;
	}
	return record;
}

void sim_record_drop(struct sim_record *record)
{
	if (record != NULL && --record->refs == 0) {
		free((void *)(uintptr_t)record->members);
		free(record);
	}
}

void sim_log_push(struct sim_log *log, struct sim_record *record)
{
	if (log->head + log->count == log->cap) {
		if (log->head > log->cap / 2) {
			memmove(log->items, log->items + log->head,
				log->count * sizeof(*log->items));
			log->head = 0;
		} else {
			log->cap = log->cap == 0 ? 256 : log->cap * 2;
			log->items = realloc(log->items, log->cap * sizeof(*log->items));
			RT_ASSERT(log->items != NULL);
		}
	}
	record->refs++;
	log->items[log->head + log->count++] = record;
	if (record->members != NULL) {
		if (log->set_count == log->set_cap) {
			log->set_cap = log->set_cap == 0 ? 16 : log->set_cap * 2;
			log->sets = realloc(log->sets, log->set_cap * sizeof(*log->sets));
			RT_ASSERT(log->sets != NULL);
		}
		log->sets[log->set_count++] = sim_log_last(log);
	}
}

void sim_log_cut(struct sim_log *log, uint64_t from)
{
	while (log->count > 0 && sim_log_last(log) >= from) {
		sim_record_drop(log->items[log->head + --log->count]);
	}
	while (log->set_count > 0 && log->sets[log->set_count - 1] >= from) {
		log->set_count--;
	}
}

void sim_log_trim(struct sim_log *log, uint64_t upto)
{
	while (log->count > 0 && log->first <= upto) {
		sim_record_drop(log->items[log->head++]);
		log->count--;
		log->first++;
	}
}

void sim_log_wipe(struct sim_log *log, uint64_t next)
{
	sim_log_cut(log, 0);
	log->head = 0;
	log->first = next;
}

void sim_log_copy(struct sim_log *to, const struct sim_log *from)
{
	sim_log_wipe(to, from->first);
	for (uint32_t i = 0; i < from->count; i++) {
		sim_log_push(to, from->items[from->head + i]);
	}
}

void sim_log_done(struct sim_log *log)
{
	sim_log_wipe(log, 1);
	free(log->items);
	free(log->sets);
	*log = (struct sim_log){.first = 1};
}

const struct sim_record *sim_log_members(const struct sim_log *log, uint64_t *out_index)
{
	if (log->set_count == 0 || log->sets[log->set_count - 1] < log->first) {
		return NULL;
	}
	*out_index = log->sets[log->set_count - 1];
	return sim_log_at(log, *out_index);
}
