#include "sharding/hash.h"

#include <inttypes.h>
#include <stdlib.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"
#include "runtime/base/container.h"
#include "sharding/cluster.pb-c.h"

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
		bool wrong = walk->err == RT_E_INVAL;
		call->out.retry_after_ms = wrong ? 0 : 100;
		ac_call_fail(call,
			wrong ? TROUPE__CODE__CODE_BAD_REQUEST : TROUPE__CODE__CODE_UNAVAILABLE,
			"hash of shard %u: %s", walk->group,
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

static void ask_only(struct walk *walk, const Troupe__Cluster__HashRequest *request)
{
	for (uint32_t i = 0; request->n_shards > 0 && i < walk->source->group_count; i++) {
		bool asked = false;
		for (size_t n = 0; n < request->n_shards; n++) {
			asked = asked || request->shards[n] == i;
		}
		walk->upto[i] = asked ? walk->upto[i] : 0;
	}
	for (size_t n = 0; n < request->n_upto; n++) {
		const Troupe__Cluster__HashLimit *limit = request->upto[n];
		if (limit->shard < walk->source->group_count &&
			limit->upto < walk->upto[limit->shard]) {
			walk->upto[limit->shard] = limit->upto;
		}
	}
}

static rt_err read_request(struct walk *walk)
{
	struct rt_bytes packed = {0};
	for (uint32_t i = 0; i < walk->source->group_count; i++) {
		walk->upto[i] =
			atomic_load_explicit(&walk->source->committed[i], memory_order_acquire);
	}
	rt_err err = pr_json_parse(&troupe__cluster__hash_request__descriptor,
		walk->call->in.payload, &packed, &walk->info);
	Troupe__Cluster__HashRequest *request = NULL;
	if (err == RT_OK) {
		request = troupe__cluster__hash_request__unpack(NULL, packed.size, packed.data);
	}
	if (request != NULL) {
		ask_only(walk, request);
		troupe__cluster__hash_request__free_unpacked(request, NULL);
	}
	free((void *)(uintptr_t)packed.data);
	return err;
}

static void begin(struct rt_worker *worker, struct rt_post *post)
{
	(void)worker;
	struct walk *walk = RT_CONTAINER(post, struct walk, begin);
	walk->err = read_request(walk);
	if (walk->err != RT_OK) {
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
