#include "sharding/status.h"

#include <inttypes.h>
#include <stdlib.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"

struct walk {
	struct rt_post post; /* first */
	const struct sh_status_source *source;
	struct pr_text text;
	uint32_t next;
	void (*done)(void *arg, struct pr_text *text);
	void *arg;
};

#define NUMBER(text, name, value) pr_text_printf((text), "\"" name "\":%" PRIu64, (uint64_t)(value))

static void add_store(struct pr_text *text, const struct sh_status_source *source)
{
	struct ps_store_stats stats;
	ps_store_stats(source->store, &stats);
	pr_text_str(text, "\"store\":{\"id\":");
	pr_text_json_string(text, rt_bytes_str(ps_store_id(source->store)));
	pr_text_str(text, ",");
	NUMBER(text, "diskBytes", stats.disk_bytes);
	pr_text_str(text, ",");
	NUMBER(text, "freeBytes", stats.free_space_bytes);
	pr_text_str(text, ",");
	NUMBER(text, "memtableBytes", stats.memtable_bytes);
	pr_text_str(text, ",");
	NUMBER(text, "blockCacheBytes", stats.block_cache_bytes);
	pr_text_str(text, ",");
	NUMBER(text, "syncs", stats.syncs);
	pr_text_str(text, ",");
	NUMBER(text, "records", stats.appended_records);
	pr_text_str(text, ",");
	NUMBER(text, "recordBytes", stats.appended_bytes);
	pr_text_str(text, ",");
	NUMBER(text, "indexBacklog", ps_indexer_backlog(source->indexer));
	pr_text_printf(text,
		",\"spaceLow\":%s,\"failed\":%s,\"failure\":", stats.space_low ? "true" : "false",
		stats.failed ? "true" : "false");
	pr_text_json_string(text, rt_bytes_str(stats.failure));
	pr_text_str(text, "}");
}

static void add_shards(struct pr_text *text, const struct sh_status_source *source)
{
	uint64_t sum = 0;
	pr_text_str(text, ",\"shards\":[");
	for (uint32_t i = 0; i < source->shard_count; i++) {
		uint64_t offset = atomic_load_explicit(&source->committed[i], memory_order_relaxed);
		sum += offset;
		pr_text_printf(text, "%s%" PRIu64, i == 0 ? "" : ",", offset);
	}
	pr_text_str(text, "],");
	NUMBER(text, "offsets", sum);
}

static void add_worker(struct pr_text *text, struct sh_region *region)
{
	struct ac_counters *c = &sh_region_host(region)->count;
	const struct {
		const char *name;
		_Atomic uint64_t *value;
	} counters[] = {{"entities", &c->entities}, {"entityBytes", &c->memory},
		{"commands", &c->commands}, {"queries", &c->queries}, {"refused", &c->refused},
		{"repeated", &c->repeated}, {"events", &c->events}, {"recoveries", &c->recoveries},
		{"passivated", &c->passivated}, {"snapshots", &c->snapshots}};
	pr_text_str(text, "{");
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		pr_text_printf(text, "\"%s\":%" PRIu64 ",", counters[i].name,
			atomic_load_explicit(counters[i].value, memory_order_relaxed));
	}
	pr_text_str(text, "\"quarantined\":");
	sh_region_quarantined(region, text);
	pr_text_str(text, "}");
}

static void visit(struct rt_worker *worker, struct rt_post *post)
{
	struct walk *walk = (struct walk *)post;
	const struct sh_status_source *source = walk->source;
	struct sh_region *region = source->regions[rt_worker_index(worker)];
	pr_text_str(&walk->text, walk->next == 0 ? "" : ",");
	add_worker(&walk->text, region);
	if (++walk->next < source->worker_count) {
		post->next = NULL;
		rt_worker_post_always(rt_system_worker(source->system, walk->next), post);
		return;
	}
	pr_text_str(&walk->text, "]}");
	walk->done(walk->arg, &walk->text);
	free(walk);
}

void sh_status_start(const struct sh_status_source *source,
	void (*done)(void *arg, struct pr_text *text), void *arg)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	RT_ASSERT(walk != NULL);
	walk->source = source;
	walk->done = done;
	walk->arg = arg;
	walk->post.run = visit;
	pr_text_printf(&walk->text, "{\"version\":\"%s\",\"cluster\":\"%s\",", TROUPE_VERSION,
		source->self->cluster);
	NUMBER(&walk->text, "node", source->self->node);
	pr_text_str(&walk->text, ",");
	NUMBER(&walk->text, "uptimeMs", (rt_clock_now_ns() - source->opened_ns) / 1000000);
	pr_text_str(&walk->text, ",");
	NUMBER(&walk->text, "callsUnderWay", atomic_load(source->calls));
	pr_text_printf(
		&walk->text, ",\"serving\":%s,", atomic_load(source->failed) ? "false" : "true");
	add_store(&walk->text, source);
	add_shards(&walk->text, source);
	pr_text_str(&walk->text, ",\"workers\":[");
	rt_worker_post_always(rt_system_worker(source->system, 0), &walk->post);
}
