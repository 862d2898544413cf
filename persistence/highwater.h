/*
 * highwater.h - a small file beside the database that remembers how far each log was
 * durable, so that a log which lost its end is noticed.
 *
 * RocksDB cannot see a write-ahead log that was cut: what is left is a valid log. This file is
 * written (not synced) after every sync of the log, so it survives a killed process exactly, and
 * synced about once a second and at close, so after a power cut it is at most that much behind.
 * It never runs ahead of what was synced, except that a truncated tail lowers it, synced, first.
 *
 * Format: a page with magic, version, number of logs, store id and a checksum; then per log two
 *         slots of (offset, check), written in turn, so that a torn write leaves the other one.
 *         Version 1 had none for the last log, that of the cluster; open replaces such a file.
 * Threads: any for get, set, write and sync, each log set by one at a time.
 * Failure: one bad slot of a log is ignored; two are RT_E_CORRUPT with the file's name.
 */
#ifndef PERSISTENCE_HIGHWATER_H
#define PERSISTENCE_HIGHWATER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct ps_highwater;

/* A new file with all offsets 0, synced. id: 32 characters. */
RT_NODISCARD rt_err ps_highwater_create(
	const char *path, const char *id, uint32_t log_count, struct rt_errinfo *info);
/* RT_E_NOTFOUND, RT_E_VERSION, RT_E_CORRUPT (also: of another store). */
RT_NODISCARD rt_err ps_highwater_open(const char *path, const char *id, uint32_t log_count,
	struct ps_highwater **out, struct rt_errinfo *info);
void ps_highwater_close(struct ps_highwater *high);

uint64_t ps_highwater_get(struct ps_highwater *high, uint32_t shard);
void ps_highwater_set(struct ps_highwater *high, uint32_t shard, uint64_t offset);
/* Writes what was set since the last write. */
RT_NODISCARD rt_err ps_highwater_write(struct ps_highwater *high, struct rt_errinfo *info);
/* Beside writes too. */
RT_NODISCARD rt_err ps_highwater_sync(struct ps_highwater *high, struct rt_errinfo *info);

#endif
