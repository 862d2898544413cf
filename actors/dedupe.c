#include "actors/dedupe.h"

#include <stdlib.h>
#include <string.h>

#include "persistence/store.h"
#include "runtime/base/assert.h"
#include "runtime/base/hash.h"

#define BLOCK_WORDS 8u /* one cache line */
#define BLOCKS      (AC_FILTER_BYTES / 64u)
#define PROBES      5u

struct ac_key ac_key_of(struct rt_bytes id)
{
	struct ac_key key = {.hash = ps_dedupe_hash(id)};
	if (id.size <= AC_KEY_BYTES) {
		memcpy(key.bytes, id.data, id.size);
		return key;
	}
	uint64_t first = rt_hash(id.data, id.size);
	uint64_t second = rt_hash(id.data + 1, id.size - 1) ^ rt_hash_mix(first + id.size);
	memcpy(key.bytes, &first, 8);
	memcpy(key.bytes + 8, &second, 8);
	return key;
}

static uint64_t mix(const uint8_t key[AC_KEY_BYTES])
{
	uint64_t a, b;
	memcpy(&a, key, 8);
	memcpy(&b, key + 8, 8);
	return rt_hash_mix(a ^ (b << 32 | b >> 32));
}

void ac_filter_add(struct ac_filter *filter, uint64_t hash)
{
	if (filter->bits == NULL) {
		filter->bits = calloc(1, AC_FILTER_BYTES);
		RT_ASSERT(filter->bits != NULL);
	}
	uint64_t h = rt_hash_mix(hash);
	uint64_t *block = filter->bits + (h >> 40) % BLOCKS * BLOCK_WORDS;
	for (unsigned i = 0; i < PROBES; i++, h >>= 7) {
		block[(h >> 3) & 7] |= UINT64_C(1) << ((h * 0x9E3779B1u >> 20) & 63);
	}
	filter->count++;
}

bool ac_filter_has(const struct ac_filter *filter, uint64_t hash)
{
	if (filter->count == 0) {
		return false;
	}
	uint64_t h = rt_hash_mix(hash);
	const uint64_t *block = filter->bits + (h >> 40) % BLOCKS * BLOCK_WORDS;
	for (unsigned i = 0; i < PROBES; i++, h >>= 7) {
		if ((block[(h >> 3) & 7] & UINT64_C(1) << ((h * 0x9E3779B1u >> 20) & 63)) == 0) {
			return false;
		}
	}
	return true;
}

void ac_filter_merge(struct ac_filter *into, struct ac_filter *from)
{
	if (from->bits != NULL && into->bits != NULL) {
		for (size_t i = 0; i < AC_FILTER_BYTES / sizeof(uint64_t); i++) {
			into->bits[i] |= from->bits[i];
		}
		into->count += from->count;
		ac_filter_clear(from);
	} else if (from->bits != NULL) {
		*into = *from;
		*from = (struct ac_filter){0};
	}
}

void ac_filter_clear(struct ac_filter *filter)
{
	free(filter->bits);
	*filter = (struct ac_filter){0};
}

void ac_dedupe_init(struct ac_dedupe *dedupe, uint64_t window)
{
	*dedupe = (struct ac_dedupe){.window = window};
}

void ac_dedupe_done(struct ac_dedupe *dedupe)
{
	free(dedupe->slots);
	free(dedupe->order);
	ac_filter_clear(&dedupe->filter[0]);
	ac_filter_clear(&dedupe->filter[1]);
	*dedupe = (struct ac_dedupe){0};
}

static const struct ac_recent *at_slot(const struct ac_dedupe *dedupe, uint32_t slot)
{
	return &dedupe->order[dedupe->slots[slot] - 1];
}

/* The slot that holds key, or the free one where it would go. */
static uint32_t place(const struct ac_dedupe *dedupe, const uint8_t key[AC_KEY_BYTES])
{
	uint32_t at = (uint32_t)mix(key) & dedupe->slot_mask;
	while (dedupe->slots[at] != 0 && memcmp(at_slot(dedupe, at)->key, key, AC_KEY_BYTES) != 0) {
		at = (at + 1) & dedupe->slot_mask;
	}
	return at;
}

enum ac_seen ac_dedupe_find(
	const struct ac_dedupe *dedupe, const struct ac_key *key, uint64_t *out_offset)
{
	if (dedupe->slots != NULL) {
		uint32_t slot = place(dedupe, key->bytes);
		if (dedupe->slots[slot] != 0) {
			*out_offset = at_slot(dedupe, slot)->offset;
			return AC_SEEN_RECENT;
		}
	}
	if (!dedupe->complete || ac_filter_has(&dedupe->filter[0], key->hash) ||
		ac_filter_has(&dedupe->filter[1], key->hash)) {
		return AC_SEEN_PERHAPS;
	}
	return AC_SEEN_NEVER;
}

/* Fills zeroed slots. Of two entries with one key the newer one counts. */
static void place_all(struct ac_dedupe *dedupe)
{
	for (uint32_t i = 0; i < dedupe->order_count; i++) {
		uint32_t position = (dedupe->order_head + i) & dedupe->order_mask;
		dedupe->slots[place(dedupe, dedupe->order[position].key)] = position + 1;
	}
}

/* The ring doubles, and the slots, four times as many, are filled anew. */
static void grow(struct ac_dedupe *dedupe)
{
	uint32_t size = dedupe->order == NULL ? 64 : (dedupe->order_mask + 1) * 2;
	struct ac_recent *order = malloc(size * sizeof(*order));
	uint32_t *slots = calloc((size_t)size * 4, sizeof(*slots));
	RT_ASSERT(order != NULL && slots != NULL);
	RT_ASSERT(dedupe->order != NULL || dedupe->order_count == 0);
	for (uint32_t i = 0; i < dedupe->order_count; i++) {
		order[i] = dedupe->order[(dedupe->order_head + i) & dedupe->order_mask];
	}
	free(dedupe->order);
	free(dedupe->slots);
	dedupe->order = order;
	dedupe->order_head = 0;
	dedupe->order_mask = size - 1;
	dedupe->slots = slots;
	dedupe->slot_mask = size * 4 - 1;
	place_all(dedupe);
}

static uint64_t newest(const struct ac_dedupe *dedupe)
{
	uint32_t last = dedupe->order_head + dedupe->order_count - 1;
	return dedupe->order_count == 0 ? 0 : dedupe->order[last & dedupe->order_mask].offset;
}

void ac_dedupe_add(struct ac_dedupe *dedupe, const struct ac_key *key, uint64_t offset)
{
	RT_ASSERT(offset > newest(dedupe));
	if (dedupe->order == NULL || dedupe->order_count > dedupe->order_mask) {
		grow(dedupe);
	}
	uint32_t position = (dedupe->order_head + dedupe->order_count++) & dedupe->order_mask;
	dedupe->order[position].offset = offset;
	memcpy(dedupe->order[position].key, key->bytes, AC_KEY_BYTES);
	dedupe->slots[place(dedupe, key->bytes)] = position + 1;
	if (dedupe->filter[0].count >= dedupe->window) {
		ac_filter_clear(&dedupe->filter[1]);
		dedupe->filter[1] = dedupe->filter[0];
		dedupe->filter[0] = (struct ac_filter){0};
	}
	ac_filter_add(&dedupe->filter[0], key->hash);
}

/* Takes a slot out and moves back what stood behind it, so that no search stops too early. */
static void erase(struct ac_dedupe *dedupe, uint32_t at)
{
	uint32_t hole = at;
	for (uint32_t i = (at + 1) & dedupe->slot_mask; dedupe->slots[i] != 0;
		i = (i + 1) & dedupe->slot_mask) {
		uint32_t home = (uint32_t)mix(at_slot(dedupe, i)->key) & dedupe->slot_mask;
		if (((i - home) & dedupe->slot_mask) >= ((i - hole) & dedupe->slot_mask)) {
			dedupe->slots[hole] = dedupe->slots[i];
			hole = i;
		}
	}
	dedupe->slots[hole] = 0;
}

void ac_dedupe_prune(struct ac_dedupe *dedupe, uint64_t watermark)
{
	while (dedupe->order_count > 0) {
		const struct ac_recent *oldest = &dedupe->order[dedupe->order_head];
		if (oldest->offset > watermark) {
			return;
		}
		uint32_t at = place(dedupe, oldest->key);
		if (dedupe->slots[at] == dedupe->order_head + 1) {
			erase(dedupe, at);
		}
		dedupe->order_head = (dedupe->order_head + 1) & dedupe->order_mask;
		dedupe->order_count--;
	}
}

void ac_dedupe_cut(struct ac_dedupe *dedupe, uint64_t offset)
{
	uint32_t before = dedupe->order_count;
	while (newest(dedupe) >= offset && dedupe->order_count > 0) {
		dedupe->order_count--;
	}
	if (dedupe->order_count < before) {
		/* Taking slots out one by one would lose an older entry of the same key. */
		memset(dedupe->slots, 0, ((size_t)dedupe->slot_mask + 1) * sizeof(*dedupe->slots));
		place_all(dedupe);
	}
}

void ac_dedupe_reset(struct ac_dedupe *dedupe)
{
	uint64_t window = dedupe->window;
	ac_dedupe_done(dedupe);
	ac_dedupe_init(dedupe, window);
}
