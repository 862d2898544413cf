/* Snapshots of entities, from the node that leads a shard to those that may lead it next: without
 * one a new leader reads an entity's whole history before it answers the first command.
 *
 * Nothing rests on them. They are sent once, on the lane of calls, and dropped where they are of no
 * use; one that comes before its commit is known here waits for that. */
#include <stdlib.h>
#include <string.h>

#include "proto/guard.h"
#include "sharding/region_core.h"

#define STATE_MAX   (64u * 1024u)   /* larger ones would hold up calls */
#define WAITING_MAX (1024u * 1024u) /* bytes of a region's that wait for a commit */
#define EACH        2u              /* of so many that are taken one is sent */

struct sh_snapshot {
	struct sh_snapshot *next;
	struct ps_snapshot snapshot; /* its state is in bytes, behind the pid */
	struct rt_bytes pid;
	size_t size;
	uint8_t bytes[];
};

/* ---- out ---- */
static bool is_due(const struct sh_region *region, uint64_t seq)
{
	uint64_t every = region->host.snapshot_every;
	return seq % (EACH * every) < every;
}

void sh_snapshots_send(struct ac_host *host, struct ac_shard *shard, struct rt_bytes pid,
	const struct ps_snapshot *snapshot)
{
	struct sh_region *region = (struct sh_region *)(void *)host;
	const struct sh_region_shard *member = sh_region_member(region, shard->index);
	const struct sh_members *set = &sh_raft_members(sh_replica_raft(member->replica))->members;
	if (set->count < 2 || snapshot->state.size > STATE_MAX || !is_due(region, snapshot->seq)) {
		return;
	}
	Troupe__Cluster__EntitySnapshot one = TROUPE__CLUSTER__ENTITY_SNAPSHOT__INIT;
	one.shard = shard->index;
	one.pid = (ProtobufCBinaryData){pid.size, (uint8_t *)(uintptr_t)pid.data};
	one.seq = snapshot->seq;
	one.offset = snapshot->offset;
	one.version = snapshot->version;
	one.state = (ProtobufCBinaryData){
		snapshot->state.size, (uint8_t *)(uintptr_t)snapshot->state.data};
	Troupe__Cluster__EntitySnapshot *list[] = {&one};
	Troupe__Cluster__EntitySnapshots message = TROUPE__CLUSTER__ENTITY_SNAPSHOTS__INIT;
	message.n_list = 1;
	message.list = list;
	size_t size = troupe__cluster__entity_snapshots__get_packed_size(&message);
	for (int i = 0; i < set->count; i++) {
		if (set->node[i] == region->options.node) {
			continue;
		}
		/* One behind the other they are one message. */
		uint8_t *at = sh_outgoing_room(
			&region->outgoing, set->node[i], SH_OUTGOING_SNAPSHOTS, size);
		if (at != NULL) {
			troupe__cluster__entity_snapshots__pack(&message, at);
		}
	}
}

/* ---- in ---- */
static void stage(const struct sh_region_shard *member, const struct sh_snapshot *kept)
{
	ps_stage_snapshot(
		sh_region_of(member)->host.stage, member->shard.index, kept->pid, &kept->snapshot);
}

static struct sh_snapshot *copy(const Troupe__Cluster__EntitySnapshot *from)
{
	size_t size = from->pid.len + from->state.len;
	struct sh_snapshot *kept = malloc(sizeof(*kept) + size);
	if (kept == NULL) {
		return NULL;
	}
	memcpy(kept->bytes, from->pid.data, from->pid.len);
	if (from->state.len > 0) {
		memcpy(kept->bytes + from->pid.len, from->state.data, from->state.len);
	}
	kept->next = NULL;
	kept->size = sizeof(*kept) + size;
	kept->pid = rt_bytes_of(kept->bytes, from->pid.len);
	kept->snapshot = (struct ps_snapshot){.seq = from->seq,
		.offset = from->offset,
		.version = from->version,
		.state = rt_bytes_of(kept->bytes + from->pid.len, from->state.len)};
	return kept;
}

static void take(struct sh_region *region, const Troupe__Cluster__EntitySnapshot *one)
{
	if (!sh_region_owns(region, one->shard) || one->pid.len == 0 || one->pid.len > PS_PID_MAX ||
		one->seq == 0 || one->offset == 0 || one->state.len > STATE_MAX) {
		return;
	}
	struct sh_region_shard *member = sh_region_member(region, one->shard);
	const struct sh_raft *raft = sh_replica_raft(member->replica);
	/* Far ahead of what is here it would wait for long, and there will be newer ones. */
	if (member->told == 0 || raft->installing || one->offset > raft->last ||
		region->snapshot_bytes > WAITING_MAX) {
		return;
	}
	struct sh_snapshot *kept = copy(one);
	if (kept == NULL) {
		return;
	}
	kept->next = member->snapshots;
	member->snapshots = kept;
	region->snapshot_bytes += kept->size;
	sh_snapshots_committed(member); /* It may be already. */
}

void sh_snapshots_frame(struct sh_region *region, struct rt_bytes body)
{
	const ProtobufCMessageDescriptor *type = &troupe__cluster__entity_snapshots__descriptor;
	Troupe__Cluster__EntitySnapshots *message = NULL;
	if (pr_guard_check(type, body, NULL) == RT_OK) {
		message = troupe__cluster__entity_snapshots__unpack(NULL, body.size, body.data);
	}
	for (size_t i = 0; message != NULL && i < message->n_list; i++) {
		take(region, message->list[i]);
	}
	if (message != NULL) {
		troupe__cluster__entity_snapshots__free_unpacked(message, NULL);
	}
}

void sh_snapshots_committed(struct sh_region_shard *member)
{
	struct sh_snapshot **at = &member->snapshots;
	while (*at != NULL) {
		struct sh_snapshot *kept = *at;
		if (kept->snapshot.offset > member->told) {
			at = &kept->next;
			continue;
		}
		stage(member, kept);
		*at = kept->next;
		sh_region_of(member)->snapshot_bytes -= kept->size;
		free(kept);
	}
}

void sh_snapshots_drop(struct sh_region_shard *member)
{
	while (member->snapshots != NULL) {
		struct sh_snapshot *kept = member->snapshots;
		member->snapshots = kept->next;
		sh_region_of(member)->snapshot_bytes -= kept->size;
		free(kept);
	}
}
