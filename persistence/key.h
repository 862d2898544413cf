/*
 * key.h - the keys of the families, as bytes. Numbers are big endian, so that keys sort by them.
 *
 *   log        shard u16, offset u64
 *   index      shard u16, pid, 0, first seq u64     and the watermark row: shard u16, 0
 *                                                   and the open chunk's: shard u16, 0, 1
 *   dedupe     shard u16, hash of the command id u48, offset u64
 *   tags       shard u16, tag, 0, offset u64
 *   snapshots  shard u16, pid, 0, ~seq u64          newest first
 *
 * Pids and tags hold no NUL (record.h), so no key is another's prefix.
 */
#ifndef PERSISTENCE_KEY_H
#define PERSISTENCE_KEY_H

#include "persistence/record.h"

#define PS_KEY_LOG    10u
#define PS_KEY_DEDUPE 16u
#define PS_KEY_NAMED  (2u + PS_PID_MAX + 1u + 8u) /* the longest with a pid or tag inside */

static inline uint8_t *ps_put_u16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
	return at + 2;
}

static inline uint8_t *ps_put_u64(uint8_t *at, uint64_t value)
{
	uint64_t be = __builtin_bswap64(value);
	memcpy(at, &be, 8);
	return at + 8;
}

static inline uint32_t ps_get_u16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static inline uint64_t ps_get_u64(const uint8_t *at)
{
	uint64_t be;
	memcpy(&be, at, 8);
	return __builtin_bswap64(be);
}

#define PS_KEY_MARK 3u /* the watermark; one byte more for the open chunk */
static inline struct rt_bytes ps_key_mark(uint8_t out[PS_KEY_MARK + 1], uint32_t shard, bool chunk)
{
	ps_put_u16(out, shard);
	out[2] = 0;
	out[3] = 1;
	return rt_bytes_of(out, PS_KEY_MARK + chunk);
}

/* Above every key that begins with the shard, in any family. */
static inline struct rt_bytes ps_key_shard_end(uint8_t out[PS_KEY_NAMED + 1], uint32_t shard)
{
	if (shard < 0xffff) {
		ps_put_u16(out, shard + 1);
		return rt_bytes_of(out, 2);
	}
	memset(out, 0xff, PS_KEY_NAMED + 1);
	return rt_bytes_of(out, PS_KEY_NAMED + 1);
}

static inline void ps_key_log(uint8_t out[PS_KEY_LOG], uint32_t shard, uint64_t offset)
{
	ps_put_u64(ps_put_u16(out, shard), offset);
}

/* pid or tag; returns the size. */
static inline size_t ps_key_named(
	uint8_t out[PS_KEY_NAMED], uint32_t shard, struct rt_bytes name, uint64_t number)
{
	uint8_t *at = ps_put_u16(out, shard);
	memcpy(at, name.data, name.size);
	at += name.size;
	*at++ = 0;
	return (size_t)(ps_put_u64(at, number) - out);
}

static inline void ps_key_dedupe(
	uint8_t out[PS_KEY_DEDUPE], uint32_t shard, uint64_t hash, uint64_t offset)
{
	uint8_t *at = ps_put_u16(out, shard);
	ps_put_u64(at, hash << 16);
	ps_put_u64(at + 6, offset);
}

static inline uint64_t ps_key_dedupe_hash(const uint8_t *key)
{
	return ps_get_u64(key + 2) >> 16;
}

/* LEB128, as in protobuf. put: up to 10 bytes. get: NULL when the bytes end or it is too long. */
static inline uint8_t *ps_put_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

static inline const uint8_t *ps_get_varint(const uint8_t *at, const uint8_t *end, uint64_t *out)
{
	uint64_t value = 0;
	for (unsigned shift = 0; shift < 64 && at < end; shift += 7) {
		uint8_t byte = *at++;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return at;
		}
	}
	return NULL;
}

#endif
