/*
 * torn.h - the end of a log file that a power cut left half-written.
 *
 * A file system may make a file longer before all its new pages are there: the missing ones read as
 * zeros, and the last record, which nobody synced, has a wrong checksum. RocksDB 7.8.3 refuses to
 * open then, be it the manifest or a write-ahead log, although nothing that was durable is missing.
 * A flipped bit never looks like that, so it stays an error.
 *
 * Blocking: reads the files. Used only after an open failed. Private to this module.
 */
#ifndef PERSISTENCE_TORN_H
#define PERSISTENCE_TORN_H

#include <stdbool.h>

#include "runtime/base/err.h"

/* Cuts, synced, the torn last record of the manifest or of the newest write-ahead log in dir, with
 * a line in the log. *out_mended: there was one. Whether durable records are missing afterwards is
 * for the high-water mark to say. RT_E_IO. */
RT_NODISCARD rt_err ps_torn_mend(const char *dir, bool *out_mended, struct rt_errinfo *info);

#endif
