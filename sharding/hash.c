#include "sharding/hash.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"

struct walk {
	struct ps_job job; /* first */
	struct rt_post begin;
	const struct sh_hash_source *source;
	struct ac_call *call;
	uint64_t *upto; /* of each group; 0: not asked for */
	uint32_t group;
	struct ps_log_hash got;
	rt_err err;
	struct rt_errinfo info;
	struct pr_text text;
	bool some;
};

static void next(struct walk *walk);

static void end(struct walk *walk)
{
	const struct sh_hash_source *source = walk->source;
	struct ac_call *call = walk->call;
	if (walk->err == RT_OK) {
		pr_text_str(&walk->text, "]}");
		call->out.code = TROUPE__CODE__CODE_OK;
		ac_call_payload_take(call, (uint8_t *)walk->text.data, walk->text.size);
	} else {
		pr_text_clear(&walk->text);
		call->out.retry_after_ms = 100;
		ac_call_fail(call, TROUPE__CODE__CODE_UNAVAILABLE, "shard %u: %s", walk->group,
			walk->info.text[0] != '\0' ? walk->info.text : rt_err_text(walk->err));
	}
	free(walk->upto);
	free(walk);
	source->answered(source->host, call);
}

static void work(struct ps_job *job, struct ps_store *store)
{
	struct walk *walk = (struct walk *)job;
	walk->err =
		ps_store_hash(store, walk->group, walk->upto[walk->group], &walk->got, &walk->info);
}

static void done(struct ps_job *job)
{
	struct walk *walk = (struct walk *)job;
	if (walk->err != RT_OK) {
		end(walk);
		return;
	}
	if (walk->got.last >= walk->got.first) {
		pr_text_printf(&walk->text,
			"%s{\"shard\":%u,\"first\":%" PRIu64 ",\"upto\":%" PRIu64
			",\"hash\":\"%016" PRIx64 "\"}",
			walk->some ? "," : "", walk->group, walk->got.first, walk->got.last,
			walk->got.hash);
		walk->some = true;
	}
	walk->group++;
	next(walk);
}

static void next(struct walk *walk)
{
	while (walk->group < walk->source->group_count && walk->upto[walk->group] == 0) {
		walk->group++;
	}
	if (walk->group == walk->source->group_count) {
		end(walk);
		return;
	}
	walk->job.work = work;
	walk->job.done = done;
	walk->err = ac_host_read(walk->source->host, &walk->job);
	if (walk->err != RT_OK) {
		end(walk);
	}
}

static void limit(struct walk *walk, json_int_t group, json_int_t upto)
{
	if (group >= 0 && group < (json_int_t)walk->source->group_count && upto >= 0 &&
		(uint64_t)upto < walk->upto[group]) {
		walk->upto[group] = (uint64_t)upto;
	}
}

static void limit_all(struct walk *walk, const json_t *upto)
{
	for (uint32_t i = 0; json_is_integer(upto) && i < walk->source->group_count; i++) {
		limit(walk, i, json_integer_value(upto));
	}
	for (size_t i = 0; i < json_array_size(upto); i++) {
		const json_t *pair = json_array_get(upto, i);
		limit(walk, json_integer_value(json_array_get(pair, 0)),
			json_integer_value(json_array_get(pair, 1)));
	}
}

static bool read_request(struct walk *walk)
{
	struct rt_bytes payload = walk->call->in.payload;
	for (uint32_t i = 0; i < walk->source->group_count; i++) {
		walk->upto[i] =
			atomic_load_explicit(&walk->source->committed[i], memory_order_acquire);
	}
	if (payload.size == 0) {
		return true;
	}
	json_t *request =
		json_loadb((const char *)payload.data, payload.size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *shard = json_object_get(request, "shard");
	for (uint32_t i = 0; json_is_integer(shard) && i < walk->source->group_count; i++) {
		if ((json_int_t)i != json_integer_value(shard)) {
			walk->upto[i] = 0;
		}
	}
	limit_all(walk, json_object_get(request, "upto"));
	bool good = json_is_object(request);
	json_decref(request);
	return good;
}

static void begin(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	struct walk *walk = RT_CONTAINER(post, struct walk, begin);
	if (!read_request(walk)) {
		walk->err =
			rt_errinfo_set(&walk->info, RT_E_INVAL, "payload: expected a JSON object");
		end(walk);
		return;
	}
	pr_text_printf(&walk->text, "{\"node\":%" PRIu64 ",\"shards\":[", walk->source->node);
	next(walk);
}

void sh_hash_start(const struct sh_hash_source *source, struct ac_call *call)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	RT_ASSERT(walk != NULL);
	walk->source = source;
	walk->call = call;
	walk->upto = calloc(source->group_count, sizeof(*walk->upto));
	RT_ASSERT(walk->upto != NULL);
	walk->begin.run = begin;
	rt_worker_post_always(source->host->worker, &walk->begin);
}
