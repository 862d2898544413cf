/*
 * entity.h - one aggregate instance in memory: an actor whose messages are calls.
 *
 * Life: loading (recovers; calls wait) -> ready -> gone (passivated) | quarantined (its stored
 * events contradict it: every call is answered so, until the shard is dropped). A ready entity may
 * be paused while a command id is looked up on disk; calls wait in order. When the shard is
 * dropped, any of them leaves: out of the table at once, gone when its jobs and messages ended.
 *
 * Threads: the worker that owns the shard.
 */
#ifndef ACTORS_ENTITY_H
#define ACTORS_ENTITY_H

#include "actors/shard.h"

#define AC_WAITING_MAX 1024u

enum ac_entity_state {
	AC_LOADING,
	AC_READY,
	AC_PAUSED,
	AC_QUARANTINED
};

struct ac_entity {
	struct ac_shard *shard;
	const struct ac_type *type;
	const struct troupe_aggregate *aggregate;
	void *state;                       /* state_size bytes of the aggregate */
	struct ac_entity *chain;           /* in the shard's table, or among those that leave */
	struct ac_entity *chain_before;    /* while it leaves */
	struct ac_entity *colder, *hotter; /* in the host's order of use */
	struct ac_entity *next_quarantined;
	uint64_t hash;
	uint64_t used_ms;
	struct rt_ref actor;
	enum ac_entity_state status;
	bool reload;      /* its state is not what the log says: load it again once nothing pends */
	bool leaving;     /* its shard was dropped: calls are handed back */
	uint32_t queued;  /* calls told to the actor, not yet handled */
	uint32_t pending; /* what holds it here: answers in the shard's queue, lookups, a run */
	uint64_t seq;     /* of the state in memory */
	uint64_t committed; /* sequence number of the last committed event */
	uint64_t last_offset;
	struct ac_call *waiting, **waiting_end; /* while loading or paused */
	uint32_t waiting_count;

	/* Snapshots. */
	uint32_t events_since, snapshot_bytes;
	uint64_t bytes_since;
	struct ps_snapshot snapshot; /* taken, waiting for its offset to be committed */

	size_t memory, counted; /* bytes now; as last added to the host's sum */
	char *reason;           /* of the quarantine */
	uint16_t pid_size;
	char pid[]; /* "type|id", NUL-terminated */
};

/* Finds or makes the entity (then it starts loading). NULL: memory is short. */
struct ac_entity *ac_entity_get(
	struct ac_shard *shard, const struct ac_type *type, const struct ac_call *call);
struct ac_entity *ac_entity_find(const struct ac_shard *shard, uint64_t hash, struct rt_bytes pid);
/* Into its mailbox, or BUSY. */
void ac_entity_tell(struct ac_entity *entity, struct ac_call *call);
/* Takes it out of memory if nothing holds it there. */
bool ac_entity_passivate(struct ac_entity *entity);
void ac_entity_free(struct ac_entity *entity); /* whatever its state; its calls must be answered */
/* Takes it out of its shard, which was dropped; its waiting calls were taken. It may be gone then.
 */
void ac_entity_leave(struct ac_entity *entity);
/* After one of its pending entries is gone. An entity that leaves may be gone then. */
void ac_entity_settle(struct ac_entity *entity);
void ac_entity_touch(struct ac_entity *entity);
/* Ready; takes what waited, and settles. */
void ac_entity_resume(struct ac_entity *entity);
void ac_entity_quarantine(struct ac_entity *entity, const char *format, ...) RT_PRINTF(2, 3);
struct rt_bytes ac_entity_pid(const struct ac_entity *entity);
const char *ac_entity_id(const struct ac_entity *entity);

/* recover.c: starts reading from the store. */
void ac_entity_load(struct ac_entity *entity);
/* Applies one stored record to a state at *seq. Events at or below *seq are skipped. */
RT_NODISCARD rt_err ac_replay(struct ac_host *host, const struct ac_type *type, void *state,
	uint64_t *seq, uint64_t upto_seq, struct rt_bytes record, struct rt_errinfo *info);
/* Fills a fresh state. False: the snapshot cannot be used, read the events from the beginning. */
RT_NODISCARD bool ac_restore(struct ac_host *host, const struct troupe_aggregate *aggregate,
	void *state, const struct ps_snapshot *snapshot);
/* The event as a message of its newest version, in the host's arena. */
RT_NODISCARD rt_err ac_event_read(struct ac_host *host, const struct ac_type *type,
	const struct ps_event *stored, struct troupe_event *out, struct rt_errinfo *info);

/* decide.c: handles one call on a ready entity. */
void ac_entity_handle(struct ac_entity *entity, struct ac_call *call);
/* stream.c: reads of an entity's stream that go to the store; on a shard that does not lead, of its
 * state too. */
void ac_stream_call(struct ac_shard *shard, const struct ac_type *type, struct ac_call *call);
void ac_stream_wake(struct ac_shard *shard, const struct ac_entity *entity);
/* Takes the calls that wait for an event; those being read follow when that ends. */
void ac_stream_drop(struct ac_shard *shard, struct ac_chain *chain);
/* Ends waits for an event and for an offset, the node is closing. */
void ac_stream_cut(struct ac_shard *shard, const char *why);
/* repeat.c: the first answer of a command id that was seen, from its record. */
void ac_repeat_lookup(struct ac_entity *entity, struct ac_call *call, uint64_t offset);

#endif
