#include <stdlib.h>

#include "persistence/db.h"
#include "persistence/files.h"

static rt_err copy_highwater(
	struct ps_store *store, const uint64_t *durable, const char *dir, struct rt_errinfo *info)
{
	struct ps_highwater *high = NULL;
	char *path = ps_path(dir, PS_HIGHWATER_NAME);
	rt_err err = ps_highwater_create(path, store->id, store->log_count, info);
	if (err == RT_OK) {
		err = ps_highwater_open(path, store->id, store->log_count, &high, info);
	}
	free(path);
	if (err != RT_OK) {
		return err;
	}
	for (uint32_t i = 0; i < store->log_count; i++) {
		ps_highwater_set(high, i, durable[i]);
	}
	err = ps_highwater_write(high, info);
	if (err == RT_OK) {
		err = ps_highwater_sync(high, info);
	}
	ps_highwater_close(high);
	return err;
}

static rt_err make(struct ps_store *store, const char *dir, struct rt_errinfo *info)
{
	char *message = NULL;
	rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(store->db, &message);
	if (message != NULL) {
		return ps_db_error(message, info, "checkpoint");
	}
	/* Size 0: memtables are flushed first, so the copy holds what has no WAL too. */
	rocksdb_checkpoint_create(checkpoint, dir, 0, &message);
	rocksdb_checkpoint_object_destroy(checkpoint);
	return message == NULL ? RT_OK : ps_db_error(message, info, "checkpoint");
}

rt_err ps_store_checkpoint(struct ps_store *store, const char *dir, struct rt_errinfo *info)
{
	char *fresh = ps_path(dir, "db.new");
	char *place = ps_path(dir, "db");
	/* Before the copy is made, so that it holds at least this much. */
	uint64_t *durable = calloc(store->log_count, sizeof(*durable));
	rt_err err = ps_db_writable(store, info);
	if (err == RT_OK && durable == NULL) {
		err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	if (err == RT_OK && ps_exists(place)) {
		err = rt_errinfo_set(info, RT_E_EXISTS, "%s holds a store already", dir);
	}
	for (uint32_t i = 0; err == RT_OK && i < store->log_count; i++) {
		durable[i] = ps_store_durable_offset(store, i);
	}
	if (err == RT_OK) {
		err = ps_dir_make(dir, info);
	}
	if (err == RT_OK) {
		err = ps_dir_remove(fresh, info);
	}
	if (err == RT_OK) {
		err = make(store, fresh, info);
	}
	if (err == RT_OK) {
		err = copy_highwater(store, durable, fresh, info);
	}
	if (err == RT_OK) {
		err = ps_dir_sync(fresh, info);
	}
	if (err == RT_OK) {
		err = ps_dir_rename(fresh, place, info);
	}
	if (err == RT_OK) {
		err = ps_dir_sync(dir, info);
	}
	free(durable);
	free(fresh);
	free(place);
	return err;
}
