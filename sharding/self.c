#include "sharding/self.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "runtime/base/assert.h"

#define VERSION   1u
#define ROW_BYTES (2u + 16u + 2u * SH_ID_CHARS)

void sh_self_random(char out[SH_ID_CHARS + 1])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t bytes[SH_ID_CHARS / 2];
	int failed = uv_random(NULL, NULL, bytes, sizeof(bytes), 0, NULL);
	RT_ASSERT(failed == 0);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[SH_ID_CHARS] = '\0';
}

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

static rt_err write_row(struct ps_store *store, const struct sh_self *self, struct rt_errinfo *info)
{
	uint8_t row[ROW_BYTES] = {VERSION, self->founder};
	uint8_t *at = put_u64(put_u64(row + 2, self->node), self->incarnation);
	memcpy(at, self->cluster, SH_ID_CHARS);
	memcpy(at + SH_ID_CHARS, self->key, SH_ID_CHARS);
	struct ps_meta_row meta = {rt_bytes_str("self"), rt_bytes_of(row, sizeof(row))};
	rt_err err = ps_store_append(store, NULL, 0, &meta, 1, info);
	return err == RT_OK ? ps_store_sync(store, info) : err;
}

static rt_err read_row(struct rt_bytes row, struct sh_self *out, struct rt_errinfo *info)
{
	if (row.size != ROW_BYTES || row.data[0] != VERSION || row.data[1] > 1 ||
		get_u64(row.data + 2) == 0) {
		return rt_errinfo_set(
			info, RT_E_CORRUPT, "the row that says which node this is cannot be read");
	}
	*out = (struct sh_self){.founder = row.data[1] != 0,
		.node = get_u64(row.data + 2),
		.incarnation = get_u64(row.data + 10)};
	memcpy(out->cluster, row.data + 18, SH_ID_CHARS);
	memcpy(out->key, row.data + 18 + SH_ID_CHARS, SH_ID_CHARS);
	return RT_OK;
}

rt_err sh_self_open(struct ps_store *store, const struct sh_self *fresh, struct sh_self *out,
	struct rt_errinfo *info)
{
	struct rt_bytes row = {0};
	struct sh_self self = {.node = 1, .founder = true};
	rt_err err = ps_store_meta_get(store, rt_bytes_str("self"), &row, info);
	if (err == RT_OK) {
		err = read_row(row, &self, info);
		free((void *)(uintptr_t)row.data);
		if (err == RT_OK && fresh != NULL) {
			err = rt_errinfo_set(info, RT_E_EXISTS,
				"this data is node %llu of cluster %s already",
				(unsigned long long)self.node, self.cluster);
		}
	} else if (err == RT_E_NOTFOUND) {
		err = RT_OK;
		if (fresh != NULL) {
			self = *fresh;
		} else {
			sh_self_random(self.key);
			strncpy(self.cluster, ps_store_id(store), SH_ID_CHARS);
		}
	}
	if (err == RT_OK) {
		self.incarnation++;
		err = write_row(store, &self, info);
	}
	if (err == RT_OK) {
		*out = self;
	}
	return err;
}
