/* script.h - a fuzzer's bytes read as numbers near those that mean something, and as records. */
#ifndef TESTS_FUZZ_SCRIPT_H
#define TESTS_FUZZ_SCRIPT_H

#include "persistence/record.h"
#include "runtime/base/assert.h"
#include "sharding/members.h"

static inline uint32_t script_byte(struct rt_bytes *script)
{
	if (script->size == 0) {
		return 0;
	}
	script->size--;
	return *script->data++;
}

/* The number itself as often as not, else some below or above it. */
static inline uint64_t script_near(struct rt_bytes *script, uint64_t number)
{
	uint32_t byte = script_byte(script);
	uint64_t down = byte % 8 < 4 ? 0 : byte % 8 - 3;
	return (number > down ? number - down : 0) + (byte >> 3) % 4 * (byte % 8 == 0);
}

/* One change away from these. */
static inline struct sh_members script_members(
	struct rt_bytes *script, const struct sh_members *from)
{
	struct sh_members members = *from;
	uint32_t byte = script_byte(script);
	if (byte % 2 == 0) {
		sh_members_remove(&members, 1 + byte / 2 % 4);
	} else {
		RT_MAYBE(sh_members_put(&members, 1 + byte / 2 % 6, byte / 16 % 2) == RT_OK);
	}
	return members;
}

#define SCRIPT_RECORDS 4u

/* Records of terms from `term` up: first entries of a term, seldom members. */
static inline void script_records(struct rt_bytes *script, uint64_t term,
	const struct sh_members *from, struct rt_bytes records[SCRIPT_RECORDS])
{
	static uint8_t room[SCRIPT_RECORDS][128];
	for (uint32_t i = 0; i < SCRIPT_RECORDS; i++) {
		uint8_t set[SH_MEMBERS_BYTES];
		struct ps_record record = {.kind = PS_KIND_NOOP};
		uint32_t byte = script_byte(script);
		record.term = term + byte % 3 * (byte / 3 % 2);
		if (byte % 16 == 15) {
			struct sh_members members = script_members(script, from);
			record.kind = PS_KIND_MEMBERS;
			record.answer = rt_bytes_of(set, sh_members_encode(&members, set));
		}
		size_t size = ps_record_size(&record, NULL);
		RT_ASSERT(size <= sizeof(room[i]));
		ps_record_encode(room[i], &record, NULL);
		records[i] = rt_bytes_of(room[i], size);
	}
}

#endif
