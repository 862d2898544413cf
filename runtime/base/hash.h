/*
 * hash.h - the stable 64-bit hash of persistence ids and other keys.
 *
 * MurmurHash64A (Austin Appleby, public domain) with seed 0, words read little-endian on every
 * machine. Which shard an entity lives in is computed from this number and shards are on disk:
 * the function must never change. Test vectors are in tests/unit/runtime/test_base.c.
 *
 * Not for untrusted keys in an unbounded table: somebody can make them collide.
 */
#ifndef RUNTIME_BASE_HASH_H
#define RUNTIME_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t rt_hash_word(const uint8_t *bytes)
{
	uint64_t word;
	memcpy(&word, bytes, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	word = __builtin_bswap64(word);
#endif
	return word;
}

/* A bijection that spreads every bit of x over the result; for numbers used as keys. */
static inline uint64_t rt_hash_mix(uint64_t x)
{
	x ^= x >> 33;
	x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}

static inline uint64_t rt_hash(const void *data, size_t size)
{
	const uint64_t m = UINT64_C(0xc6a4a7935bd1e995);
	const uint8_t *at = data;
	uint64_t h = (uint64_t)size * m;
	for (size_t left = size / 8; left > 0; left--, at += 8) {
		uint64_t k = rt_hash_word(at) * m;
		h = (h ^ ((k ^ (k >> 47)) * m)) * m;
	}
	if ((size & 7) != 0) {
		uint64_t tail = 0;
		for (size_t i = 0; i < (size & 7); i++) {
			tail |= (uint64_t)at[i] << (8 * i);
		}
		h = (h ^ tail) * m;
	}
	h = (h ^ (h >> 47)) * m;
	return h ^ (h >> 47);
}

#endif
