#include "cmd/troupe/cluster/hashes.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

rt_err tr_hashes_init(struct tr_hashes *hashes, uint64_t node, size_t count)
{
	*hashes = (struct tr_hashes){.node = node, .count = count};
	hashes->of = calloc(count + 1, sizeof(*hashes->of));
	return hashes->of != NULL ? RT_OK : RT_E_NOMEM;
}

void tr_hashes_done(struct tr_hashes *hashes)
{
	free(hashes->of);
	*hashes = (struct tr_hashes){0};
}

/* -1: not one. */
static json_int_t number_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	return json_is_integer(value) ? json_integer_value(value) : -1;
}

static rt_err read_one(
	struct tr_hashes *hashes, const json_t *object, bool again, struct rt_errinfo *info)
{
	json_int_t shard = number_of(object, "shard");
	json_int_t first = number_of(object, "first");
	json_int_t upto = number_of(object, "upto");
	const char *hash = json_string_value(json_object_get(object, "hash"));
	if (shard < 0 || (size_t)shard >= hashes->count || first < 0 || upto < 0 || hash == NULL ||
		strlen(hash) > TR_HASH_MAX) {
		return rt_errinfo_set(info, RT_E_PROTO, "a hash of node %" PRIu64 " cannot be read",
			hashes->node);
	}
	struct tr_hash *out = &hashes->of[shard];
	if (again && !out->asked) {
		return RT_OK; /* it may be longer by now */
	}
	out->there = true;
	out->first = (uint64_t)first;
	out->upto = (uint64_t)upto;
	memcpy(out->hash, hash, strlen(hash) + 1);
	return RT_OK;
}

/* What was asked for once more counts only if it is answered. */
static bool forget_asked(struct tr_hashes *hashes)
{
	bool some = false;
	for (size_t i = 0; i < hashes->count; i++) {
		struct tr_hash *hash = &hashes->of[i];
		some = some || hash->asked;
		hash->there = hash->there && !hash->asked;
	}
	return some;
}

rt_err tr_hashes_read(struct tr_hashes *hashes, struct rt_bytes json, struct rt_errinfo *info)
{
	json_error_t error;
	json_t *root = json_loadb((const char *)json.data, json.size, 0, &error);
	const json_t *shards = json_object_get(root, "shards");
	rt_err err = RT_OK;
	if (!json_is_array(shards)) {
		err = rt_errinfo_set(info, RT_E_PROTO,
			"the hashes of node %" PRIu64 " cannot be read", hashes->node);
	}
	bool again = err == RT_OK && forget_asked(hashes);
	for (size_t i = 0; err == RT_OK && i < json_array_size(shards); i++) {
		err = read_one(hashes, json_array_get(shards, i), again, info);
	}
	json_decref(root);
	return err;
}

uint64_t tr_hashes_common(const struct tr_hashes *all, size_t count, size_t shard)
{
	uint64_t least = UINT64_MAX;
	for (size_t i = 0; i < count; i++) {
		const struct tr_hash *hash = &all[i].of[shard];
		least = hash->there && hash->upto < least ? hash->upto : least;
	}
	return least == UINT64_MAX ? 0 : least;
}

bool tr_hashes_question(
	const struct tr_hashes *all, size_t count, const struct tr_hashes *of, struct pr_text *out)
{
	size_t asked = 0;
	pr_text_str(out, "{\"upto\":[");
	for (size_t shard = 0; shard < of->count; shard++) {
		uint64_t common = tr_hashes_common(all, count, shard);
		if (of->of[shard].there && of->of[shard].upto > common) {
			pr_text_printf(out, "%s{\"shard\":%zu,\"upto\":%" PRIu64 "}",
				asked > 0 ? "," : "", shard, common);
			of->of[shard].asked = true;
			asked++;
		}
	}
	pr_text_str(out, "]}");
	return asked > 0;
}

static bool same(const struct tr_hash *a, const struct tr_hash *b)
{
	return a->first == b->first && a->upto == b->upto && strcmp(a->hash, b->hash) == 0;
}

bool tr_hashes_equal(const struct tr_hashes *all, size_t count, size_t shard)
{
	const struct tr_hash *first = NULL;
	for (size_t i = 0; i < count; i++) {
		const struct tr_hash *hash = &all[i].of[shard];
		if (!hash->there) {
			continue;
		}
		if (first != NULL && !same(first, hash)) {
			return false;
		}
		first = hash;
	}
	return true;
}
