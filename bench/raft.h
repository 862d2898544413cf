/* raft.h - what the parts of bench/raft share: made-up records, whole groups in memory, output. */
#ifndef BENCH_RAFT_H
#define BENCH_RAFT_H

#include "sharding/replica.h"

_Noreturn void raft_fail(const char *what, const char *why);
void raft_check(const char *what, rt_err err);

/* A command's record of about 150 bytes: one event, an id, an answer. */
#define RAFT_BATCH_MAX    100u
#define RAFT_RECORD_BYTES 192u
struct raft_records {
	struct rt_bytes record[RAFT_BATCH_MAX];
	uint8_t room[RAFT_BATCH_MAX][RAFT_RECORD_BYTES];
};
void raft_records_make(struct raft_records *out, uint64_t term);

/* A group whose members are replicas that say everything is durable at once. What they say to each
 * other lies in frames until it is delivered. */
#define RAFT_NODES 3u
struct raft_frames {
	uint8_t *bytes;
	size_t size, cap;
	uint64_t count; /* messages, ever */
};
struct raft_group {
	struct raft_node {
		struct raft_group *group;
		struct sh_replica *replica;
		uint64_t term; /* leads */
		uint64_t committed;
	} node[RAFT_NODES];
	uint32_t nodes;
	struct raft_frames *to; /* RAFT_NODES, may be shared by groups that take turns */
	uint64_t now;
};
/* Opens and starts; a sole voter leads. */
void raft_group_open(struct raft_group *group, uint32_t nodes, struct raft_frames *to,
	struct sh_out_queue *queue);
void raft_group_close(struct raft_group *group);
/* Everything to this node. */
void raft_group_deliver(struct raft_group *group, uint32_t to);
void raft_group_durable(struct raft_group *group, uint32_t node);
/* Time passes, messages arrive. */
void raft_group_run(struct raft_group *group, uint64_t ms);
struct raft_node *raft_group_leader(struct raft_group *group);

/* One JSON line each. */
void raft_bench_core(void);
void raft_bench_host(void);
void raft_bench_latency(void);
void raft_bench_codec(void);
void raft_bench_memory(void);
/* One voter on a store in dir against the same records written straight. */
void raft_bench_one(const char *dir, uint32_t batch, double seconds);

#endif
