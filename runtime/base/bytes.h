/*
 * bytes.h - a borrowed run of bytes. Whoever hands one out says until when it may be read.
 */
#ifndef RUNTIME_BASE_BYTES_H
#define RUNTIME_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rt_bytes {
	const uint8_t *data;
	size_t size;
};

static inline struct rt_bytes rt_bytes_of(const void *data, size_t size)
{
	return (struct rt_bytes){(const uint8_t *)data, size};
}

static inline struct rt_bytes rt_bytes_str(const char *text)
{
	return rt_bytes_of(text, strlen(text));
}

static inline bool rt_bytes_equal(struct rt_bytes a, struct rt_bytes b)
{
	return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

#endif
