/*
 * files.h - the few things done to directories, synchronously. Private to this module.
 *
 * Memory:  paths come malloc'd. Out of memory here stops the process: nothing is open yet.
 * Failure: RT_E_IO or RT_E_NOSPACE with the path in the detail.
 */
#ifndef PERSISTENCE_FILES_H
#define PERSISTENCE_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/err.h"

#define PS_HIGHWATER_NAME "HIGHWATER" /* in the database's directory; RocksDB leaves it alone */

char *ps_path(const char *dir, const char *name);
bool ps_exists(const char *path);
/* With its parents; one that exists is fine. */
RT_NODISCARD rt_err ps_dir_make(const char *dir, struct rt_errinfo *info);
/* A directory of files, without subdirectories; a missing one is fine. */
RT_NODISCARD rt_err ps_dir_remove(const char *dir, struct rt_errinfo *info);
RT_NODISCARD rt_err ps_dir_rename(const char *from, const char *to, struct rt_errinfo *info);
/* Makes names in a directory durable. */
RT_NODISCARD rt_err ps_dir_sync(const char *dir, struct rt_errinfo *info);
/* "000012.log 000015.log", cut to size. */
void ps_wal_names(const char *dir, char *out, size_t size);

#endif
