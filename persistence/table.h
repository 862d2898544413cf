/*
 * table.h - a table file written by hand and moved into a family. Private to this module.
 *
 * Order:      rows ascend by key.
 * Durability: after ingest the rows survive a power cut.
 * Failure:    a bad call is remembered and answered by ingest, which also fails the store. But
 *             RT_E_NOSPACE while the file was being written changed nothing and may be tried again.
 */
#ifndef PERSISTENCE_TABLE_H
#define PERSISTENCE_TABLE_H

#include "persistence/db.h"

struct ps_table {
	struct ps_store *store;
	enum ps_family family;
	rocksdb_envoptions_t *env;
	rocksdb_sstfilewriter_t *writer; /* NULL before the first row */
	char *message;
	char path[512];
};

void ps_table_init(struct ps_table *table, struct ps_store *store, enum ps_family family);
void ps_table_put(struct ps_table *table, struct rt_bytes key, struct rt_bytes value);
void ps_table_delete_range(struct ps_table *table, struct rt_bytes low, struct rt_bytes high);
/* Moves the file in; one without rows is nothing. Ends the table. */
RT_NODISCARD rt_err ps_table_ingest(struct ps_table *table, struct rt_errinfo *info);

#endif
