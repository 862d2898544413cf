/*
 * table.h - rows for a family: many as a table file that is moved in, few as batches. Private to
 * this module.
 *
 * While RocksDB moves a file in, it syncs twice and lets nobody write; that pays for many rows
 * only.
 *
 * Order:      rows ascend by key.
 * Durability: what is flushed to disk by anyone after ingest is not there without the rows. A file
 *             survives a power cut, and so do batches once the write-ahead log is synced; RocksDB
 *             syncs it before it installs a flush.
 * Failure:    a bad call is remembered and answered by ingest, which also fails the store. But
 *             RT_E_NOSPACE while a file was being written changed nothing and may be tried again.
 */
#ifndef PERSISTENCE_TABLE_H
#define PERSISTENCE_TABLE_H

#include "persistence/db.h"

struct ps_table {
	struct ps_store *store;
	enum ps_family family;
	rocksdb_envoptions_t *env;
	rocksdb_sstfilewriter_t *writer; /* NULL before the first row */
	rocksdb_writebatch_t *batch;     /* of few rows; NULL before the first one */
	uint32_t batch_rows;
	bool few;
	char *message;
	char path[512];
};

#define PS_TABLE_FEW      16384u
#define PS_ROWS_PER_BATCH 256u /* a batch holds the write queue that the log stands in */

/* rows: not more than so many will be put. */
void ps_table_init(
	struct ps_table *table, struct ps_store *store, enum ps_family family, size_t rows);
void ps_table_put(struct ps_table *table, struct rt_bytes key, struct rt_bytes value);
/* In a file whatever their number: the family may have insert hints. */
void ps_table_delete_range(struct ps_table *table, struct rt_bytes low, struct rt_bytes high);
/* Moves the file in; one without rows is nothing. Ends the table. */
RT_NODISCARD rt_err ps_table_ingest(struct ps_table *table, struct rt_errinfo *info);

#endif
