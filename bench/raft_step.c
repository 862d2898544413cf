/* raft_step.c - what a record and a message cost in memory: core alone, codec alone, all of it. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/raft.h"
#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define DEPTH   32u        /* batches under way: half of what a peer takes */
#define SPAN_NS 250000000u /* of one measurement */
#define GROUPS  1000u

static const uint32_t batches[] = {1, 10, 100};
#define BATCHES (sizeof(batches) / sizeof(batches[0]))

/* Sums of one run; times of the leader alone and of everybody. */
struct sums {
	uint64_t leader_ns, all_ns, records, messages;
};

static double per(uint64_t ns, uint64_t count)
{
	return (double)ns / (double)count;
}

static void print(const char *bench, const struct sums sums[BATCHES], double message_ns)
{
	printf("{\"bench\":\"raft.%s\",\"value\":%.1f,\"unit\":\"ns\",\"message\":%.1f", bench,
		per(sums[BATCHES - 1].leader_ns, sums[BATCHES - 1].records), message_ns);
	for (uint32_t i = 0; i < BATCHES; i++) {
		printf(",\"leader%u\":%.1f,\"group%u\":%.1f", batches[i],
			per(sums[i].leader_ns, sums[i].records), batches[i],
			per(sums[i].all_ns, sums[i].records));
	}
	printf("}\n");
}

/* ---- the core alone: messages are structs, every write is stored at once ---- */
struct cores {
	struct sh_raft raft[RAFT_NODES];
	struct sh_out_queue queue;
	struct sh_raft_message inbox[RAFT_NODES][8 * DEPTH];
	uint32_t inbox_count[RAFT_NODES];
	struct sh_raft_entry entries[SH_MESSAGE_RECORDS];
	uint64_t now, received;
};

static void pump(struct cores *cores, uint32_t at)
{
	struct sh_raft *raft = &cores->raft[at];
	struct sh_out out;
	while (sh_out_next(&cores->queue, &out)) {
		if (out.kind == SH_OUT_APPEND) {
			raft_check("stored",
				sh_raft_stored(raft, out.append.from + out.append.count - 1,
					out.append.generation));
		} else if (out.kind == SH_OUT_COMMIT) {
			sh_raft_applied(raft, out.commit);
		} else if (out.kind == SH_OUT_SEND) {
			uint32_t to = (uint32_t)out.send.to - 1;
			if (cores->inbox_count[to] == 8 * DEPTH) {
				raft_fail("core", "inbox is full");
			}
			cores->inbox[to][cores->inbox_count[to]++] = out.send;
			if (out.send.type == SH_MSG_APPEND && out.send.count > 0) {
				raft_check("sent", sh_raft_sent(raft, out.send.to, out.send.count));
			}
		}
	}
}

static void deliver(struct cores *cores, uint32_t at)
{
	for (uint32_t i = 0; i < cores->inbox_count[at]; i++) {
		raft_check("receive", sh_raft_recv(&cores->raft[at], cores->now,
					      &cores->inbox[at][i], cores->entries));
		pump(cores, at);
		cores->received++;
	}
	cores->inbox_count[at] = 0;
}

static void deliver_all(struct cores *cores)
{
	while (cores->inbox_count[0] + cores->inbox_count[1] + cores->inbox_count[2] > 0) {
		for (uint32_t i = 0; i < RAFT_NODES; i++) {
			deliver(cores, i);
		}
	}
}

/* Node 1 leads. */
static struct cores *cores_new(void)
{
	struct cores *cores = calloc(1, sizeof(*cores));
	struct sh_raft_restore restore = {0};
	if (cores == NULL) {
		raft_fail("core", "no memory");
	}
	for (uint32_t i = 0; i < RAFT_NODES; i++) {
		raft_check("members", sh_members_put(&restore.members, i + 1, true));
	}
	for (uint32_t i = 0; i < RAFT_NODES; i++) {
		struct sh_raft_settings settings = {.node = i + 1, .seed = 1};
		raft_check(
			"init", sh_raft_init(&cores->raft[i], &settings, &restore, &cores->queue));
		raft_check("start", sh_raft_start(&cores->raft[i], 1000));
		pump(cores, i);
	}
	for (uint32_t i = 0; i < SH_MESSAGE_RECORDS; i++) {
		cores->entries[i].term = 1; /* That of the first leader. */
	}
	cores->now = sh_raft_next_timeout(&cores->raft[0]);
	raft_check("tick", sh_raft_tick(&cores->raft[0], cores->now));
	pump(cores, 0);
	deliver_all(cores);
	if (!sh_raft_leads(&cores->raft[0])) {
		raft_fail("core", "nobody leads");
	}
	return cores;
}

static void cores_free(struct cores *cores)
{
	for (uint32_t i = 0; i < RAFT_NODES; i++) {
		sh_raft_done(&cores->raft[i]);
	}
	sh_out_queue_done(&cores->queue);
	free(cores);
}

static void run_cores(struct cores *cores, uint32_t batch, struct sums *sums)
{
	uint64_t begin = rt_clock_now_ns();
	uint64_t received = cores->received;
	while (rt_clock_now_ns() - begin < SPAN_NS) {
		uint64_t start = rt_clock_now_ns();
		uint64_t first;
		for (uint32_t i = 0; i < DEPTH; i++) {
			raft_check("propose", sh_raft_propose(&cores->raft[0], batch, &first));
			pump(cores, 0);
		}
		uint64_t proposed = rt_clock_now_ns();
		deliver(cores, 1);
		deliver(cores, 2);
		uint64_t followed = rt_clock_now_ns();
		deliver(cores, 0);
		uint64_t end = rt_clock_now_ns();
		if (cores->raft[0].commit != first + batch - 1) {
			raft_fail("core", "not committed");
		}
		deliver_all(cores);
		sums->leader_ns += (proposed - start) + (end - followed);
		sums->all_ns += end - start;
		sums->records += DEPTH * batch;
	}
	sums->messages += cores->received - received;
}

void raft_bench_core(void)
{
	struct sums sums[BATCHES] = {0};
	uint64_t before = 0;
	struct cores *cores = cores_new();
	run_cores(cores, 10, &(struct sums){0});
	for (uint32_t i = 0; i < BATCHES; i++) {
		run_cores(cores, batches[i], &sums[i]);
	}
	/* Heartbeats and their answers: what a message costs that brings nothing. */
	uint64_t received = cores->received;
	for (before = rt_clock_now_ns(); rt_clock_now_ns() - before < SPAN_NS;) {
		cores->now = sh_raft_next_timeout(&cores->raft[0]);
		raft_check("tick", sh_raft_tick(&cores->raft[0], cores->now));
		pump(cores, 0);
		deliver_all(cores);
	}
	print("core", sums, per(rt_clock_now_ns() - before, cores->received - received));
	cores_free(cores);
}

/* ---- host and codec around it ---- */
static void run_group(struct raft_group *group, uint32_t batch, struct sums *sums)
{
	struct raft_records *records = calloc(1, sizeof(*records));
	struct raft_node *leader = raft_group_leader(group);
	uint32_t at = (uint32_t)(leader - group->node);
	if (records == NULL) {
		raft_fail("host", "no memory");
	}
	raft_records_make(records, leader->term);
	for (uint64_t begin = rt_clock_now_ns(); rt_clock_now_ns() - begin < SPAN_NS;) {
		uint64_t start = rt_clock_now_ns();
		uint64_t first;
		for (uint32_t i = 0; i < DEPTH; i++) {
			raft_check("propose", sh_replica_propose(leader->replica, records->record,
						      batch, &first));
			raft_group_durable(group, at);
		}
		uint64_t proposed = rt_clock_now_ns();
		raft_group_deliver(group, (at + 1) % RAFT_NODES);
		raft_group_deliver(group, (at + 2) % RAFT_NODES);
		uint64_t followed = rt_clock_now_ns();
		raft_group_deliver(group, at);
		uint64_t end = rt_clock_now_ns();
		if (leader->committed != first + batch - 1) {
			raft_fail("host", "not committed");
		}
		sums->leader_ns += (proposed - start) + (end - followed);
		sums->all_ns += end - start;
		sums->records += DEPTH * batch;
	}
	free(records);
}

static void frames_free(struct raft_frames frames[RAFT_NODES])
{
	for (uint32_t i = 0; i < RAFT_NODES; i++) {
		free(frames[i].bytes);
	}
}

void raft_bench_host(void)
{
	struct raft_frames frames[RAFT_NODES] = {0};
	struct sh_out_queue queue = {0};
	struct raft_group group;
	struct sums sums[BATCHES] = {0};
	raft_group_open(&group, RAFT_NODES, frames, &queue);
	run_group(&group, 10, &(struct sums){0});
	for (uint32_t i = 0; i < BATCHES; i++) {
		run_group(&group, batches[i], &sums[i]);
	}
	uint64_t count = frames[0].count + frames[1].count + frames[2].count;
	uint64_t before = rt_clock_now_ns();
	while (rt_clock_now_ns() - before < SPAN_NS) {
		raft_group_run(&group, 1000);
	}
	uint64_t spent = rt_clock_now_ns() - before;
	count = frames[0].count + frames[1].count + frames[2].count - count;
	print("host", sums, per(spent, count));
	raft_group_close(&group);
	sh_out_queue_done(&queue);
	frames_free(frames);
}

/* ---- how long a commit takes when neither disk nor network does ---- */
static double commit_us(struct raft_group *group, uint32_t callers)
{
	static struct rt_hist hist;
	struct raft_records *records = calloc(1, sizeof(*records));
	struct raft_node *leader = raft_group_leader(group);
	uint32_t at = (uint32_t)(leader - group->node);
	if (records == NULL) {
		raft_fail("latency", "no memory");
	}
	raft_records_make(records, leader->term);
	rt_hist_reset(&hist);
	for (uint64_t begin = rt_clock_now_ns(); rt_clock_now_ns() - begin < SPAN_NS;) {
		uint64_t start = rt_clock_now_ns();
		uint64_t first = 0;
		for (uint32_t i = 0; i < callers; i++) {
			raft_check("propose",
				sh_replica_propose(leader->replica, records->record, 1, &first));
			raft_group_durable(group, at);
		}
		raft_group_deliver(group, (at + 1) % RAFT_NODES);
		raft_group_deliver(group, (at + 2) % RAFT_NODES);
		raft_group_deliver(group, at);
		rt_hist_add(&hist, rt_clock_now_ns() - start);
		if (leader->committed != first) {
			raft_fail("latency", "not committed");
		}
	}
	free(records);
	return (double)rt_hist_percentile(&hist, 50.0) / 1e3;
}

void raft_bench_latency(void)
{
	struct raft_frames frames[RAFT_NODES] = {0};
	struct sh_out_queue queue = {0};
	struct raft_group group;
	raft_group_open(&group, RAFT_NODES, frames, &queue);
	(void)commit_us(&group, 1);
	double one = commit_us(&group, 1);
	double sixteen = commit_us(&group, 16);
	printf("{\"bench\":\"raft.latency\",\"value\":%.2f,\"unit\":\"us\",\"p50_us\":%.2f,"
	       "\"p50_16_us\":%.2f}\n",
		one, one, sixteen);
	raft_group_close(&group);
	sh_out_queue_done(&queue);
	frames_free(frames);
}

/* ---- the codec alone ---- */
void raft_bench_codec(void)
{
	enum {
		TURNS = 20000
	};
	struct raft_records *records = calloc(1, sizeof(*records));
	static struct rt_bytes views[SH_MESSAGE_RECORDS];
	static uint8_t frame[RAFT_BATCH_MAX * (RAFT_RECORD_BYTES + 4u) + 256u];
	if (records == NULL) {
		raft_fail("codec", "no memory");
	}
	raft_records_make(records, 3);
	struct sh_message message = {.shard = 12,
		.records = records->record,
		.head = {.type = SH_MSG_APPEND,
			.from = 1,
			.to = 2,
			.term = 3,
			.index = 1000000,
			.log_term = 3,
			.commit = 999990,
			.round = 100000,
			.stamp = 100000000,
			.count = RAFT_BATCH_MAX}};
	uint64_t sum = 0;
	uint64_t start = rt_clock_now_ns();
	for (uint32_t i = 0; i < TURNS; i++) {
		sum += sh_message_size(&message);
		sum += (uint64_t)(sh_message_encode(frame, &message) - frame);
	}
	uint64_t encoded = rt_clock_now_ns();
	for (uint32_t i = 0; i < TURNS; i++) {
		uint8_t *at = frame + 100;
		for (uint32_t k = 0; k < RAFT_BATCH_MAX; k++) {
			memcpy(at, records->record[k].data, records->record[k].size);
			at += records->record[k].size;
		}
		__asm__ volatile("" ::: "memory");
	}
	uint64_t copied = rt_clock_now_ns();
	size_t size = sh_message_size(&message);
	sh_message_encode(frame, &message);
	uint64_t decoding = rt_clock_now_ns();
	for (uint32_t i = 0; i < TURNS; i++) {
		struct rt_bytes bytes = rt_bytes_of(frame, size);
		struct sh_message got;
		raft_check("decode", sh_message_decode(&bytes, &got, views));
		sum += got.head.count;
	}
	uint64_t decoded = rt_clock_now_ns();
	uint64_t count = (uint64_t)TURNS * RAFT_BATCH_MAX;
	printf("{\"bench\":\"raft.codec\",\"value\":%.1f,\"unit\":\"ns\",\"copy\":%.1f,"
	       "\"decode\":%.1f,\"record_bytes\":%zu,\"sum\":%llu}\n",
		per(encoded - start, count), per(copied - encoded, count),
		per(decoded - decoding, count), records->record[0].size, (unsigned long long)sum);
	free(records);
}

/* ---- groups that idle ---- */
static size_t heap_bytes(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
}

struct memory {
	double heap;    /* bytes of a replica by the allocator's account */
	uint64_t stats; /* the largest by its own */
};

static struct memory measure_memory(uint32_t nodes)
{
	struct raft_group *groups = calloc(GROUPS, sizeof(*groups));
	struct raft_frames frames[RAFT_NODES] = {0};
	struct sh_out_queue queue = {0};
	struct memory memory = {0};
	if (groups == NULL) {
		raft_fail("memory", "no memory");
	}
	raft_group_open(&groups[0], nodes, frames, &queue); /* Takes frames and queue. */
	raft_group_leader(&groups[0]);
	size_t before = heap_bytes();
	for (uint32_t i = 1; i < GROUPS; i++) {
		raft_group_open(&groups[i], nodes, frames, &queue);
		raft_group_leader(&groups[i]);
		raft_group_run(&groups[i], 5000);
	}
	memory.heap = (double)(heap_bytes() - before) / ((GROUPS - 1) * nodes);
	for (uint32_t i = 0; i < GROUPS; i++) {
		for (uint32_t k = 0; i > 0 && k < nodes; k++) {
			struct sh_replica_stats stats;
			sh_replica_stats(groups[i].node[k].replica, &stats);
			memory.stats = stats.memory_bytes > memory.stats ? stats.memory_bytes
									 : memory.stats;
		}
		raft_group_close(&groups[i]);
	}
	sh_out_queue_done(&queue);
	frames_free(frames);
	free(groups);
	return memory;
}

/* The largest of three members behind a million records, right after the last one. */
static uint64_t measure_million(void)
{
	enum {
		MILLION = 1000000
	};
	struct raft_frames frames[RAFT_NODES] = {0};
	struct sh_out_queue queue = {0};
	struct raft_group group;
	struct raft_records *records = calloc(1, sizeof(*records));
	raft_group_open(&group, RAFT_NODES, frames, &queue);
	struct raft_node *leader = raft_group_leader(&group);
	uint32_t at = (uint32_t)(leader - group.node);
	uint64_t first = 0;
	if (records == NULL) {
		raft_fail("memory", "no memory");
	}
	raft_records_make(records, leader->term);
	while (first + RAFT_BATCH_MAX <= MILLION) {
		raft_check("propose", sh_replica_propose(leader->replica, records->record,
					      RAFT_BATCH_MAX, &first));
		for (uint32_t i = 0; i < RAFT_NODES; i++) {
			raft_group_durable(&group, (at + i) % RAFT_NODES);
			raft_group_deliver(&group, (at + i + 1) % RAFT_NODES);
		}
	}
	uint64_t most = 0;
	for (uint32_t i = 0; i < RAFT_NODES; i++) {
		struct sh_replica_stats stats;
		sh_replica_stats(group.node[i].replica, &stats);
		most = stats.memory_bytes > most ? stats.memory_bytes : most;
	}
	free(records);
	raft_group_close(&group);
	sh_out_queue_done(&queue);
	frames_free(frames);
	return most;
}

void raft_bench_memory(void)
{
	struct memory one = measure_memory(1);
	struct memory three = measure_memory(3);
	printf("{\"bench\":\"raft.memory\",\"value\":%.0f,\"unit\":\"B\",\"one\":%.0f,"
	       "\"one_stats\":%llu,\"three\":%.0f,\"three_stats\":%llu,\"million_kib\":%.1f}\n",
		three.heap, one.heap, (unsigned long long)one.stats, three.heap,
		(unsigned long long)three.stats, (double)measure_million() / 1024.0);
}
