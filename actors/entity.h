/*
 * entity.h - one aggregate instance in memory: an actor whose messages are calls.
 *
 * Life: loading (recovers; calls wait) -> ready -> gone (passivated) | quarantined (its stored
 * events contradict it: every call is answered so, until the node starts again). A ready entity may
 * be paused while a command id is looked up on disk; calls wait in order.
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
	struct ac_entity *chain;           /* in the shard's table */
	struct ac_entity *colder, *hotter; /* in the host's order of use */
	struct ac_entity *next_quarantined;
	uint64_t hash;
	uint64_t used_ms;
	struct rt_ref actor;
	enum ac_entity_state status;
	bool reload;      /* its state is not what the log says: load it again once nothing pends */
	uint32_t queued;  /* calls told to the actor, not yet taken */
	uint32_t pending; /* of the shard's pending entries, those that name it */
	uint64_t seq;     /* of the state in memory */
	uint64_t committed; /* sequence number of the last committed event */
	uint64_t last_offset;
	uint64_t *tail; /* offsets of records that the index may not have yet, ascending */
	uint32_t tail_count, tail_cap;
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
/* After one of its pending entries is gone. */
void ac_entity_settle(struct ac_entity *entity);
void ac_entity_touch(struct ac_entity *entity);
void ac_entity_resume(struct ac_entity *entity); /* ready; takes what waited */
void ac_entity_quarantine(struct ac_entity *entity, const char *format, ...) RT_PRINTF(2, 3);
/* Forgets offsets that the index has by now; true when none is left above it. */
bool ac_entity_is_indexed(struct ac_entity *entity);
struct rt_bytes ac_entity_pid(const struct ac_entity *entity);
const char *ac_entity_id(const struct ac_entity *entity);

/* recover.c: starts reading from the store. */
void ac_entity_load(struct ac_entity *entity);
/* Applies one stored record to a state at *seq. Events at or below *seq are skipped. */
RT_NODISCARD rt_err ac_replay(struct ac_host *host, const struct ac_type *type, void *state,
	uint64_t *seq, uint64_t upto_seq, struct rt_bytes record, struct rt_errinfo *info);
/* The event as a message of its newest version, in the host's arena. */
RT_NODISCARD rt_err ac_event_read(struct ac_host *host, const struct ac_type *type,
	const struct ps_event *stored, struct troupe_event *out, struct rt_errinfo *info);

/* decide.c: handles one call on a ready entity. */
void ac_entity_handle(struct ac_entity *entity, struct ac_call *call);
/* stream.c: reads of an entity's stream that go to the store. */
void ac_stream_call(struct ac_shard *shard, const struct ac_type *type, struct ac_call *call);
void ac_stream_wake(struct ac_shard *shard, const struct ac_entity *entity);
void ac_stream_drop(struct ac_shard *shard, const char *why);
/* repeat.c: the first answer of a command id that was seen, from its record. */
void ac_repeat_lookup(struct ac_entity *entity, struct ac_call *call, uint64_t offset);

#endif
