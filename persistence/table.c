#include "persistence/table.h"

#include <stdio.h>

void ps_table_init(
	struct ps_table *table, struct ps_store *store, enum ps_family family, size_t rows)
{
	*table = (struct ps_table){.store = store,
		.family = family,
		.few = rows > 0 && rows <= PS_TABLE_FEW && !ps_store_space_low(store)};
}

/* ---- few rows ---- */
static void write_batch(struct ps_table *table)
{
	if (table->message == NULL && table->batch_rows > 0) {
		rocksdb_write(table->store->db, table->store->wal, table->batch, &table->message);
	}
	rocksdb_writebatch_clear(table->batch);
	table->batch_rows = 0;
}

static void batch_put(struct ps_table *table, struct rt_bytes key, struct rt_bytes value)
{
	if (table->batch == NULL) {
		table->batch = rocksdb_writebatch_create();
	}
	rocksdb_writebatch_put_cf(table->batch, table->store->family[table->family],
		(const char *)key.data, key.size, (const char *)value.data, value.size);
	if (++table->batch_rows == PS_ROWS_PER_BATCH) {
		write_batch(table);
	}
}

static rt_err end_batches(struct ps_table *table, struct rt_errinfo *info)
{
	if (table->batch == NULL) {
		return RT_OK;
	}
	write_batch(table);
	rocksdb_writebatch_destroy(table->batch);
	return table->message == NULL
		       ? RT_OK
		       : ps_db_fail(table->store, table->message, info, "write rows");
}

/* ---- a file ---- */

static bool begun(struct ps_table *table)
{
	struct ps_store *store = table->store;
	if (table->writer == NULL) {
		snprintf(table->path, sizeof(table->path), "%s/%06llu.sst", store->tmp_dir,
			(unsigned long long)atomic_fetch_add(&store->file_number, 1));
		table->env = rocksdb_envoptions_create();
		table->writer =
			rocksdb_sstfilewriter_create(table->env, store->options[table->family]);
		rocksdb_sstfilewriter_open(table->writer, table->path, &table->message);
	}
	return table->message == NULL;
}

void ps_table_put(struct ps_table *table, struct rt_bytes key, struct rt_bytes value)
{
	if (table->few) {
		batch_put(table, key, value);
	} else if (begun(table)) {
		rocksdb_sstfilewriter_put(table->writer, (const char *)key.data, key.size,
			(const char *)value.data, value.size, &table->message);
	}
}

void ps_table_delete_range(struct ps_table *table, struct rt_bytes low, struct rt_bytes high)
{
	if (begun(table)) {
		rocksdb_sstfilewriter_delete_range(table->writer, (const char *)low.data, low.size,
			(const char *)high.data, high.size, &table->message);
	}
}

/* Nothing of it is in the database yet. A disk that is full now may have room later. */
static rt_err fail_file(struct ps_table *table, struct rt_errinfo *info)
{
	(void)remove(table->path);
	if (strstr(table->message, "No space left") != NULL) {
		return ps_db_error(table->message, info, "write table");
	}
	return ps_db_fail(table->store, table->message, info, "write table");
}

rt_err ps_table_ingest(struct ps_table *table, struct rt_errinfo *info)
{
	struct ps_store *store = table->store;
	if (table->few) {
		return end_batches(table, info);
	}
	if (table->writer == NULL) {
		return RT_OK;
	}
	if (table->message == NULL) {
		rocksdb_sstfilewriter_finish(table->writer, &table->message);
	}
	rocksdb_sstfilewriter_destroy(table->writer);
	rocksdb_envoptions_destroy(table->env);
	if (table->message != NULL) {
		return fail_file(table, info);
	}
	/* Rows of the range in the memtable would be flushed with all writers held up. */
	rt_err err = ps_db_flush(store, table->family, info);
	if (err != RT_OK) {
		return err;
	}
	rocksdb_ingestexternalfileoptions_t *options = rocksdb_ingestexternalfileoptions_create();
	rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
	const char *files[1] = {table->path};
	rocksdb_ingest_external_file_cf(
		store->db, store->family[table->family], files, 1, options, &table->message);
	rocksdb_ingestexternalfileoptions_destroy(options);
	return table->message == NULL ? RT_OK : ps_db_fail(store, table->message, info, "ingest");
}
