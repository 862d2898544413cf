/* raft_group.c - groups of replicas in memory. */
#include <stdlib.h>
#include <string.h>

#include "bench/raft.h"

#define FRAME_ROOM (8u * 1024u * 1024u)

/* ---- the port: a disk that is never behind, a network that waits to be delivered ---- */
static rt_err port_write(void *arg, const struct sh_write *write)
{
	(void)arg;
	(void)write;
	return RT_OK;
}

static rt_err port_read(void *arg, const struct sh_replica_read *read)
{
	(void)arg;
	(void)read;
	raft_fail("group", "records are missing in memory");
}

static uint64_t port_first(void *arg)
{
	(void)arg;
	return 1;
}

static rt_err port_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	(void)arg;
	(void)key;
	(void)out;
	(void)info;
	return RT_E_NOTFOUND;
}

static rt_err port_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	(void)arg;
	(void)from;
	(void)visit;
	(void)visit_arg;
	(void)info;
	return RT_OK;
}

static void port_send(void *arg, const struct sh_message *message)
{
	const struct raft_node *node = arg;
	struct raft_frames *frames = &node->group->to[message->head.to - 1];
	size_t size = sh_message_size(message);
	if (frames->bytes == NULL) {
		frames->cap = FRAME_ROOM;
		frames->bytes = malloc(frames->cap);
	}
	if (frames->bytes == NULL || size > frames->cap - frames->size) {
		raft_fail("send", "no room");
	}
	sh_message_encode(frames->bytes + frames->size, message);
	frames->size += size;
	frames->count++;
}

static void port_lead(void *arg, uint64_t term, uint64_t last)
{
	struct raft_node *node = arg;
	(void)last;
	node->term = term;
}

static void port_follow(void *arg, uint64_t term, uint64_t leader)
{
	struct raft_node *node = arg;
	(void)term;
	(void)leader;
	node->term = 0;
}

static void port_committed(void *arg, uint64_t upto)
{
	struct raft_node *node = arg;
	node->committed = upto;
}

static void port_installed(void *arg, uint64_t first, uint64_t last)
{
	(void)arg;
	(void)first;
	(void)last;
}

static void port_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	(void)arg;
	(void)set;
	(void)removed;
}

static void port_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	(void)arg;
	(void)ticket;
	(void)err;
	(void)index;
}

static const struct sh_replica_port port = {.write = port_write,
	.read = port_read,
	.first = port_first,
	.meta = port_meta,
	.scan = port_scan,
	.send = port_send,
	.lead = port_lead,
	.follow = port_follow,
	.committed = port_committed,
	.installed = port_installed,
	.members = port_members,
	.readable = port_readable};

/* ---- a group ---- */
void raft_group_open(struct raft_group *group, uint32_t nodes, struct raft_frames *to,
	struct sh_out_queue *queue)
{
	struct rt_errinfo info = {0};
	struct sh_replica_options options = {.shard = 1, .port = &port, .queue = queue};
	*group = (struct raft_group){.nodes = nodes, .to = to, .now = 1000};
	for (uint32_t i = 0; i < nodes; i++) {
		raft_check("members", sh_members_put(&options.first, i + 1, true));
	}
	for (uint32_t i = 0; i < nodes; i++) {
		struct raft_node *node = &group->node[i];
		node->group = group;
		options.raft = (struct sh_raft_settings){.node = i + 1, .seed = i + 1};
		options.arg = node;
		if (sh_replica_open(&options, &node->replica, &info) != RT_OK) {
			raft_fail("open", info.text);
		}
		raft_check("start", sh_replica_start(node->replica, group->now));
		raft_group_durable(group, i);
	}
}

void raft_group_close(struct raft_group *group)
{
	for (uint32_t i = 0; i < group->nodes; i++) {
		sh_replica_close(group->node[i].replica);
	}
}

void raft_group_durable(struct raft_group *group, uint32_t node)
{
	struct sh_replica *replica = group->node[node].replica;
	raft_check("durable", sh_replica_durable(replica, group->now, sh_replica_written(replica)));
}

void raft_group_deliver(struct raft_group *group, uint32_t to)
{
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct raft_frames *frames = &group->to[to];
	struct rt_bytes frame = rt_bytes_of(frames->bytes, frames->size);
	struct sh_message message;
	frames->size = 0; /* Nobody sends to itself. */
	while (frame.size > 0) {
		raft_check("decode", sh_message_decode(&frame, &message, records));
		raft_check(
			"receive", sh_replica_recv(group->node[to].replica, group->now, &message));
	}
	raft_group_durable(group, to);
}

void raft_group_run(struct raft_group *group, uint64_t ms)
{
	for (uint64_t end = group->now + ms; group->now < end; group->now += 10) {
		for (uint32_t i = 0; i < group->nodes; i++) {
			raft_check("tick", sh_replica_tick(group->node[i].replica, group->now));
			raft_group_durable(group, i);
		}
		for (bool busy = true; busy;) {
			busy = false;
			for (uint32_t i = 0; i < group->nodes; i++) {
				if (group->to[i].size > 0) {
					raft_group_deliver(group, i);
					busy = true;
				}
			}
		}
	}
}

struct raft_node *raft_group_leader(struct raft_group *group)
{
	for (uint32_t tries = 0; tries < 10; tries++) {
		for (uint32_t i = 0; i < group->nodes; i++) {
			if (group->node[i].term != 0) {
				return &group->node[i];
			}
		}
		raft_group_run(group, 1000);
	}
	raft_fail("group", "nobody leads");
}
