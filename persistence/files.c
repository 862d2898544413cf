#include "persistence/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "runtime/base/assert.h"

static rt_err failed(struct rt_errinfo *info, const char *what, const char *path, int code)
{
	char text[64];
	uv_strerror_r(code, text, sizeof(text));
	return rt_errinfo_set(
		info, code == UV_ENOSPC ? RT_E_NOSPACE : RT_E_IO, "%s %s: %s", what, path, text);
}

char *ps_path(const char *dir, const char *name)
{
	size_t size = strlen(dir) + strlen(name) + 2;
	char *path = malloc(size);
	RT_ASSERT(path != NULL);
	snprintf(path, size, "%s/%s", dir, name);
	return path;
}

bool ps_exists(const char *path)
{
	uv_fs_t req;
	int code = uv_fs_stat(NULL, &req, path, NULL);
	uv_fs_req_cleanup(&req);
	return code == 0;
}

static int make_one(const char *dir)
{
	uv_fs_t req;
	int code = uv_fs_mkdir(NULL, &req, dir, 0750, NULL);
	uv_fs_req_cleanup(&req);
	return code == UV_EEXIST ? 0 : code;
}

rt_err ps_dir_make(const char *dir, struct rt_errinfo *info)
{
	char *path = ps_path(dir, "");
	int code = 0;
	for (char *at = path + 1; code == 0 && (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		code = make_one(path);
		*at = '/';
	}
	free(path);
	return code == 0 ? RT_OK : failed(info, "make directory", dir, code);
}

static int remove_files(const char *dir, uv_fs_t *list)
{
	uv_dirent_t entry;
	int code = 0;
	while (code == 0 && uv_fs_scandir_next(list, &entry) == 0) {
		uv_fs_t req;
		char *path = ps_path(dir, entry.name);
		code = uv_fs_unlink(NULL, &req, path, NULL);
		uv_fs_req_cleanup(&req);
		free(path);
	}
	return code;
}

rt_err ps_dir_remove(const char *dir, struct rt_errinfo *info)
{
	uv_fs_t list;
	int code = uv_fs_scandir(NULL, &list, dir, 0, NULL);
	if (code == UV_ENOENT) {
		uv_fs_req_cleanup(&list);
		return RT_OK;
	}
	if (code >= 0) {
		code = remove_files(dir, &list);
	}
	uv_fs_req_cleanup(&list);
	if (code == 0) {
		uv_fs_t req;
		code = uv_fs_rmdir(NULL, &req, dir, NULL);
		uv_fs_req_cleanup(&req);
	}
	return code == 0 ? RT_OK : failed(info, "remove", dir, code);
}

rt_err ps_dir_rename(const char *from, const char *to, struct rt_errinfo *info)
{
	uv_fs_t req;
	int code = uv_fs_rename(NULL, &req, from, to, NULL);
	uv_fs_req_cleanup(&req);
	return code == 0 ? RT_OK : failed(info, "rename to", to, code);
}

rt_err ps_dir_sync(const char *dir, struct rt_errinfo *info)
{
	uv_fs_t req;
	int file = uv_fs_open(NULL, &req, dir, UV_FS_O_RDONLY | UV_FS_O_DIRECTORY, 0, NULL);
	uv_fs_req_cleanup(&req);
	if (file < 0) {
		return failed(info, "open", dir, file);
	}
	int code = uv_fs_fsync(NULL, &req, file, NULL);
	uv_fs_req_cleanup(&req);
	uv_fs_close(NULL, &req, file, NULL);
	uv_fs_req_cleanup(&req);
	return code == 0 ? RT_OK : failed(info, "sync", dir, code);
}

void ps_wal_names(const char *dir, char *out, size_t size)
{
	uv_fs_t list;
	uv_dirent_t entry;
	size_t used = 0;
	out[0] = '\0';
	if (uv_fs_scandir(NULL, &list, dir, 0, NULL) >= 0) {
		while (uv_fs_scandir_next(&list, &entry) == 0 && used < size) {
			size_t length = strlen(entry.name);
			if (length > 4 && strcmp(entry.name + length - 4, ".log") == 0) {
				int n = snprintf(out + used, size - used, "%s%s",
					used == 0 ? "" : " ", entry.name);
				used += n > 0 ? (size_t)n : 0;
			}
		}
	}
	uv_fs_req_cleanup(&list);
	if (used == 0) {
		snprintf(out, size, "none left");
	}
}
