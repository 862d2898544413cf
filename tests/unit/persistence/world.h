/*
 * world.h - a store in a directory of its own, with records of made-up entities, for the unit
 * tests of persistence/.
 */
#ifndef TESTS_UNIT_PERSISTENCE_WORLD_H
#define TESTS_UNIT_PERSISTENCE_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/db.h"
#include "persistence/record.h"
#include "persistence/store.h"
#include "tests/support/test.h"

#define WORLD_SHARDS 4u
#define WORLD_LOGS   (WORLD_SHARDS + 1u) /* with that of the cluster */

struct world {
	char dir[64];
	struct ps_store *store;
	uint64_t offset[WORLD_LOGS]; /* last one */
	uint64_t seq[WORLD_LOGS][8]; /* last one of entity "t|e<n>" of a shard */
};

static inline struct world *world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));
	assert_non_null(world);
	snprintf(world->dir, sizeof(world->dir), "/tmp/troupe-store-XXXXXX");
	assert_non_null(mkdtemp(world->dir));
	return world;
}

static inline rt_err world_try_open(struct world *world, struct rt_errinfo *info)
{
	struct ps_store_options options = {
		.dir = world->dir, .create = true, .shard_count = WORLD_SHARDS};
	return ps_store_open(&options, &world->store, info);
}

static inline void world_open(struct world *world)
{
	struct rt_errinfo info = {0};
	rt_err err = world_try_open(world, &info);
	if (err != RT_OK) {
		fail_msg("open: %s: %s", rt_err_name(err), info.text);
	}
}

/* For as long as this handle is open. Few rows are files all the same then. */
static inline void world_little_room(struct world *world)
{
	world->store->free_low = UINT64_MAX;
	ps_store_update_space(world->store);
	assert_true(ps_store_space_low(world->store));
}

static inline void world_free(struct world *world)
{
	ps_store_close(world->store);
	char command[200];
	snprintf(command, sizeof(command), "rm -rf '%s' '%s.copy'", world->dir, world->dir);
	assert_int_equal(system(command), 0);
	free(world);
}

/* The files of a store as a power cut leaves them: copied while it is open, after a sync. The list
 * of files first, and none of those may go meanwhile: compactions run on. Others may. */
static inline void world_crash_copy(struct world *world, char copy[80])
{
	char command[1000];
	snprintf(copy, 80, "%s.copy", world->dir);
	snprintf(command, sizeof(command),
		"rm -rf '%s' && mkdir -p '%s/db' && cp '%s/db/CURRENT' '%s'/db/MANIFEST-* '%s/db' "
		"&& "
		"(cp -rn '%s/.' '%s' 2>/dev/null; rm -f '%s/db/LOCK')",
		copy, copy, world->dir, world->dir, copy, world->dir, copy, copy);
	char *message = NULL;
	rocksdb_disable_file_deletions(world->store->db, &message);
	int code = system(command);
	rocksdb_enable_file_deletions(world->store->db, 0, &message);
	assert_int_equal(code, 0);
	assert_null(message);
}

/* The store's place holds what a power cut left; it is closed. */
static inline void world_crash(struct world *world)
{
	char copy[80];
	char command[300];
	world_crash_copy(world, copy);
	ps_store_close(world->store);
	world->store = NULL;
	snprintf(command, sizeof(command), "rm -rf '%s' && mv '%s' '%s'", world->dir, copy,
		world->dir);
	assert_int_equal(system(command), 0);
}

static inline struct rt_bytes world_pid(char out[32], uint32_t entity)
{
	snprintf(out, 32, "t|e%u", entity);
	return rt_bytes_str(out);
}

/* A record of `events` events of 100 bytes; its id is "s<shard>-o<offset>". Returns malloc'd. */
static inline struct rt_bytes world_record(
	uint32_t shard, uint32_t entity, uint64_t offset, uint64_t first_seq, uint32_t events)
{
	char pid[32];
	char id[64];
	uint8_t payload[100] = {0};
	struct ps_event_out list[8];
	static const struct rt_bytes tags[2] = {
		{(const uint8_t *)"even", 4}, {(const uint8_t *)"all", 3}};
	snprintf(id, sizeof(id), "s%u-o%llu", shard, (unsigned long long)offset);
	for (uint32_t i = 0; i < events; i++) {
		payload[i] = (uint8_t)(offset * 7 + i);
		list[i] = (struct ps_event_out){.manifest = rt_bytes_str("Happened"),
			.version = 1,
			.payload = rt_bytes_of(payload, sizeof(payload)),
			.tags = offset % 2 == 0 ? tags : tags + 1,
			.tag_count = offset % 2 == 0 ? 2 : 1};
	}
	struct ps_record head = {.term = 1,
		.kind = PS_KIND_COMMAND,
		.time_ms = 1790000000000u + offset,
		.pid = world_pid(pid, entity),
		.first_seq = first_seq,
		.command_id = rt_bytes_str(id),
		.event_count = events,
		.answer = rt_bytes_str("done")};
	size_t size = ps_record_size(&head, list);
	uint8_t *bytes = malloc(size);
	assert_non_null(bytes);
	ps_record_encode(bytes, &head, list);
	return rt_bytes_of(bytes, size);
}

/* Appends one record to each of `count` turns: entity turn % 8, 1 + turn % 3 events. */
static inline rt_err world_append(struct world *world, uint32_t shard, uint32_t count)
{
	rt_err err = RT_OK;
	for (uint32_t i = 0; err == RT_OK && i < count; i++) {
		uint64_t offset = world->offset[shard] + 1;
		uint32_t entity = (uint32_t)(offset % 8);
		uint32_t events = (uint32_t)(1 + offset % 3);
		uint64_t seq = world->seq[shard][entity] + 1;
		struct ps_log_row row = {.shard = shard,
			.offset = offset,
			.record = world_record(shard, entity, offset, seq, events)};
		err = ps_store_append(world->store, &row, 1, NULL, 0, NULL);
		free((void *)(uintptr_t)row.record.data);
		if (err == RT_OK) {
			world->offset[shard] = offset;
			world->seq[shard][entity] += events;
		}
	}
	return err;
}

static inline void world_fill(struct world *world, uint32_t count)
{
	for (uint32_t shard = 0; shard < WORLD_LOGS; shard++) {
		assert_err(world_append(world, shard, count), RT_OK);
	}
	assert_err(ps_store_sync(world->store, NULL), RT_OK);
}

static inline bool world_count(void *arg, uint64_t offset, struct rt_bytes record)
{
	struct ps_record got;
	(void)offset;
	if (ps_record_decode(record, &got) == RT_OK) {
		++*(uint64_t *)arg;
	}
	return true;
}

/* Records of a shard that can be read, from the first to the last. */
static inline uint64_t world_readable(struct world *world, uint32_t shard)
{
	uint64_t count = 0;
	struct rt_errinfo info = {0};
	rt_err err = ps_store_read(world->store, shard, 1, UINT64_MAX, world_count, &count, &info);
	if (err != RT_OK) {
		fail_msg("read: %s: %s", rt_err_name(err), info.text);
	}
	return count;
}

#endif
