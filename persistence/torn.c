#include "persistence/torn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "persistence/files.h"
#include "runtime/base/log.h"

/* The format of RocksDB's log files (db/log_format.h): blocks of 32 KiB, in them fragments of
 * checksum u32, size u16, type u8, data. */
#define BLOCK       32768u
#define HEAD        7u
#define PAGE        4096u
#define ZEROS_LEAST 32u /* so many zeros are no coincidence */
#define NAME_MAX_   64

enum type {
	ZERO = 0,
	FULL = 1,
	FIRST = 2,
	MIDDLE = 3,
	LAST = 4
};

struct fragment {
	enum type type;
	size_t size; /* with its head */
	bool good;   /* whole, and its checksum right */
};

struct file {
	const uint8_t *data;
	size_t size;
};

static uint32_t crc32c(const uint8_t *at, size_t size)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < size; i++) {
		crc ^= at[i];
		for (int bit = 0; bit < 8; bit++) {
			crc = crc >> 1 ^ (UINT32_C(0x82f63b78) & (0u - (crc & 1u)));
		}
	}
	return ~crc;
}

static uint32_t read_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

/* The fragment at a place where a head fits. */
static struct fragment look(const struct file *file, size_t at)
{
	const uint8_t *head = file->data + at;
	struct fragment found = {
		.type = (enum type)head[6], .size = HEAD + (size_t)(head[4] | head[5] << 8)};
	size_t left = BLOCK - at % BLOCK;
	if (found.size > left || at + found.size > file->size || found.type > LAST) {
		return found;
	}
	uint32_t crc = crc32c(head + 6, found.size - 6);
	uint32_t masked = (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
	found.good = found.type != ZERO && masked == read_u32(head);
	return found;
}

/* Where the next fragment's head can be; the end of the file when there is none. */
static size_t next_head(const struct file *file, size_t at)
{
	size_t left = BLOCK - at % BLOCK;
	at = left < HEAD ? at + left : at;
	return at + HEAD <= file->size ? at : file->size;
}

/* A page after `from` that is nothing but zeros, to its end or that of the file. */
static bool has_missing_page(const struct file *file, size_t from)
{
	for (size_t page = (from / PAGE + 1) * PAGE; page < file->size; page += PAGE) {
		size_t end = page + PAGE < file->size ? page + PAGE : file->size;
		size_t at = page;
		while (at < end && file->data[at] == 0) {
			at++;
		}
		if (at == end && end - page >= ZEROS_LEAST) {
			return true;
		}
	}
	return false;
}

/* Does a record begin behind the bad fragment at `at`? Then that is no torn end. */
static bool has_later_record(const struct file *file, size_t at)
{
	struct fragment bad = look(file, at);
	size_t left = BLOCK - at % BLOCK;
	at = next_head(file, at + (bad.size <= left ? bad.size : left));
	while (at < file->size) {
		struct fragment found = look(file, at);
		if (found.good && (found.type == FULL || found.type == FIRST)) {
			return true;
		}
		at = next_head(file, at + (found.good ? found.size : BLOCK - at % BLOCK));
	}
	return false;
}

/* Where the torn last record begins; file->size when the file does not end in one. */
static size_t find_torn(const struct file *file)
{
	size_t start = 0;
	bool inside = false;
	for (size_t at = next_head(file, 0); at < file->size;) {
		struct fragment found = look(file, at);
		bool end_of_data = found.type == ZERO && found.size == HEAD && !inside;
		if (end_of_data || (!found.good && at + found.size > file->size)) {
			return file->size; /* RocksDB ends there by itself */
		}
		if (!found.good) {
			start = inside ? start : at;
			bool torn = has_missing_page(file, start) && !has_later_record(file, at);
			return torn ? start : file->size;
		}
		start = found.type == FULL || found.type == FIRST ? at : start;
		inside = found.type == FIRST || found.type == MIDDLE;
		at = next_head(file, at + found.size);
	}
	return file->size;
}

static rt_err cut(const char *path, int fd, size_t from, size_t size, struct rt_errinfo *info)
{
	rt_log(RT_LOG_WARN, "store",
		"%s: the last record was never synced and is half-written after a power cut; %zu "
		"bytes from %zu on are dropped",
		path, size - from, from);
	if (ftruncate(fd, (off_t)from) != 0 || fsync(fd) != 0) {
		char why[64];
		uv_strerror_r(-errno, why, sizeof(why));
		return rt_errinfo_set(info, RT_E_IO, "%s: cut at %zu: %s", path, from, why);
	}
	return RT_OK;
}

static rt_err mend_open(const char *path, int fd, bool *out_mended, struct rt_errinfo *info)
{
	struct stat stat;
	if (fstat(fd, &stat) != 0 || stat.st_size == 0) {
		return RT_OK;
	}
	size_t size = (size_t)stat.st_size;
	void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		char why[64];
		uv_strerror_r(-errno, why, sizeof(why));
		return rt_errinfo_set(info, RT_E_IO, "%s: map: %s", path, why);
	}
	struct file file = {data, size};
	size_t from = find_torn(&file);
	munmap(data, size);
	if (from == size) {
		return RT_OK;
	}
	*out_mended = true;
	return cut(path, fd, from, size, info);
}

static rt_err mend(const char *dir, const char *name, bool *out_mended, struct rt_errinfo *info)
{
	char *path = ps_path(dir, name);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	rt_err err = RT_OK;
	if (fd >= 0) { /* what cannot be opened is not torn; the open will name it */
		err = mend_open(path, fd, out_mended, info);
		close(fd);
	}
	free(path);
	return err;
}

static void manifest_name(const char *dir, char name[NAME_MAX_])
{
	char *path = ps_path(dir, "CURRENT");
	FILE *file = fopen(path, "re");
	free(path);
	name[0] = '\0';
	if (file == NULL) {
		return;
	}
	if (fgets(name, NAME_MAX_, file) == NULL || strncmp(name, "MANIFEST-", 9) != 0) {
		name[0] = '\0';
	}
	fclose(file);
	name[strspn(name, "MANIFEST-0123456789")] = '\0';
}

static bool has_data(const char *dir, const char *name)
{
	struct stat info;
	char *path = ps_path(dir, name);
	bool has = stat(path, &info) == 0 && info.st_size > 0;
	free(path);
	return has;
}

static void newest_wal_name(const char *dir, char name[NAME_MAX_])
{
	uv_fs_t list;
	uv_dirent_t entry;
	uint64_t newest = 0;
	name[0] = '\0';
	if (uv_fs_scandir(NULL, &list, dir, 0, NULL) >= 0) {
		while (uv_fs_scandir_next(&list, &entry) == 0) {
			char *end;
			uint64_t number = strtoull(entry.name, &end, 10);
			if (strcmp(end, ".log") == 0 && strlen(entry.name) < NAME_MAX_ &&
				number >= newest && has_data(dir, entry.name)) {
				newest = number;
				memcpy(name, entry.name, strlen(entry.name) + 1);
			}
		}
	}
	uv_fs_req_cleanup(&list);
}

rt_err ps_torn_mend(const char *dir, bool *out_mended, struct rt_errinfo *info)
{
	char name[NAME_MAX_];
	*out_mended = false;
	manifest_name(dir, name);
	rt_err err = name[0] == '\0' ? RT_OK : mend(dir, name, out_mended, info);
	newest_wal_name(dir, name);
	if (err == RT_OK && name[0] != '\0') {
		err = mend(dir, name, out_mended, info);
	}
	return err;
}
