/*
 * raft.c - what replication costs: the core's steps, host and codec around it, a commit without
 * disk and network, memory of a group that idles or has a long log, one voter against synced
 * batches.
 *
 * usage: raft core | host | latency | codec | memory
 *        raft one DIR BATCH SECONDS
 * One JSON line.
 */
#include "bench/raft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/record.h"

_Noreturn void raft_fail(const char *what, const char *why)
{
	fprintf(stderr, "raft: %s: %s\n", what, why);
	exit(1);
}

void raft_check(const char *what, rt_err err)
{
	if (err != RT_OK) {
		raft_fail(what, rt_err_text(err));
	}
}

void raft_records_make(struct raft_records *out, uint64_t term)
{
	for (uint32_t i = 0; i < RAFT_BATCH_MAX; i++) {
		char pid[32];
		uint8_t id[16] = {(uint8_t)i};
		uint8_t payload[40];
		memset(payload, (int)i, sizeof(payload));
		snprintf(pid, sizeof(pid), "account|acc-%08u", i);
		struct ps_event_out event = {.manifest = rt_bytes_str("MoneyDeposited"),
			.version = 1,
			.payload = rt_bytes_of(payload, sizeof(payload))};
		struct ps_record head = {.term = term,
			.kind = PS_KIND_COMMAND,
			.time_ms = UINT64_C(1790000000000),
			.pid = rt_bytes_str(pid),
			.first_seq = 17,
			.command_id = rt_bytes_of(id, sizeof(id)),
			.event_count = 1,
			.answer = rt_bytes_of(payload, 24)};
		size_t size = ps_record_size(&head, &event);
		if (size > RAFT_RECORD_BYTES) {
			raft_fail("record", "too large");
		}
		ps_record_encode(out->room[i], &head, &event);
		out->record[i] = rt_bytes_of(out->room[i], size);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} benches[] = {{"core", raft_bench_core}, {"host", raft_bench_host},
		{"latency", raft_bench_latency}, {"codec", raft_bench_codec},
		{"memory", raft_bench_memory}};
	for (size_t i = 0; argc == 2 && i < sizeof(benches) / sizeof(benches[0]); i++) {
		if (strcmp(argv[1], benches[i].name) == 0) {
			benches[i].run();
			return 0;
		}
	}
	if (argc == 5 && strcmp(argv[1], "one") == 0) {
		long batch = strtol(argv[3], NULL, 10);
		double seconds = strtod(argv[4], NULL);
		if (batch > 0 && batch <= (long)RAFT_BATCH_MAX && seconds > 0) {
			raft_bench_one(argv[2], (uint32_t)batch, seconds);
			return 0;
		}
	}
	fputs("usage: raft core | host | latency | codec | memory\n"
	      "       raft one DIR BATCH SECONDS\n",
		stderr);
	return 2;
}
