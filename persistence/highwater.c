#include "persistence/highwater.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "persistence/files.h"
#include "runtime/base/assert.h"

#define HEAD_BYTES 4096u
#define MAGIC      "troupe high-water mark\n"
#define VERSION    2u
#define OLDER      1u /* has no pair of the last log */

struct head {
	char magic[24];
	uint32_t version;
	uint32_t log_count;
	char id[32];
	uint64_t check; /* of the bytes before it */
};

struct slot {
	uint64_t offset, check;
};

struct pair {
	struct slot slot[2];
};

struct ps_highwater {
	char *path;
	uv_file file;
	uint32_t log_count;
	uv_mutex_t lock;    /* what follows; `write` holds it to its end */
	uint32_t low, high; /* shards set since the last write: low <= shard < high */
	struct pair *pairs;
	uint8_t *turn; /* slot of a shard to write next */
};

static uint64_t mix(uint64_t value, uint64_t seed)
{
	uint64_t x = value ^ (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static uint64_t head_check(const struct head *head)
{
	const uint8_t *bytes = (const uint8_t *)head;
	uint64_t sum = 0;
	for (size_t i = 0; i < offsetof(struct head, check); i++) {
		sum = mix(sum ^ bytes[i], i);
	}
	return sum;
}

static rt_err failed(struct rt_errinfo *info, const char *what, const char *path, ssize_t code)
{
	char text[64];
	uv_strerror_r((int)code, text, sizeof(text));
	return rt_errinfo_set(
		info, code == UV_ENOSPC ? RT_E_NOSPACE : RT_E_IO, "%s %s: %s", what, path, text);
}

static ssize_t transfer(uv_file file, void *bytes, size_t size, int64_t at, bool out)
{
	uv_fs_t req;
	size_t done = 0;
	while (done < size) {
		uv_buf_t buf = uv_buf_init((char *)bytes + done, (unsigned)(size - done));
		int64_t where = at + (int64_t)done;
		ssize_t n = out ? uv_fs_write(NULL, &req, file, &buf, 1, where, NULL)
				: uv_fs_read(NULL, &req, file, &buf, 1, where, NULL);
		uv_fs_req_cleanup(&req);
		if (n <= 0) {
			return n == 0 ? UV_EOF : n;
		}
		done += (size_t)n;
	}
	return 0;
}

static int sync_file(uv_file file)
{
	uv_fs_t req;
	int code = uv_fs_fdatasync(NULL, &req, file, NULL);
	uv_fs_req_cleanup(&req);
	return code;
}

static int open_file(const char *path, int flags)
{
	uv_fs_t req;
	int file = uv_fs_open(NULL, &req, path, flags, 0640, NULL);
	uv_fs_req_cleanup(&req);
	return file;
}

static void close_file(uv_file file)
{
	uv_fs_t req;
	uv_fs_close(NULL, &req, file, NULL);
	uv_fs_req_cleanup(&req);
}

static struct pair empty_pair(uint32_t log)
{
	struct slot slot = {0, mix(0, log)};
	return (struct pair){{slot, slot}};
}

/* A whole file, synced. */
static rt_err write_file(const char *path, const char *id, const struct pair *pairs, uint32_t count,
	struct rt_errinfo *info)
{
	size_t size = HEAD_BYTES + count * sizeof(struct pair);
	uint8_t *image = calloc(1, size);
	if (image == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	struct head head = {.magic = MAGIC, .version = VERSION, .log_count = count};
	memcpy(head.id, id, sizeof(head.id));
	head.check = head_check(&head);
	memcpy(image, &head, sizeof(head));
	memcpy(image + HEAD_BYTES, pairs, count * sizeof(struct pair));
	int file = open_file(path, UV_FS_O_CREAT | UV_FS_O_TRUNC | UV_FS_O_WRONLY);
	ssize_t code = file;
	if (file >= 0) {
		code = transfer(file, image, size, 0, true);
		if (code == 0) {
			code = sync_file(file);
		}
		close_file(file);
	}
	free(image);
	return code < 0 ? failed(info, "create", path, code) : RT_OK;
}

rt_err ps_highwater_create(
	const char *path, const char *id, uint32_t log_count, struct rt_errinfo *info)
{
	struct pair *pairs = calloc(log_count, sizeof(*pairs));
	if (pairs == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	for (uint32_t i = 0; i < log_count; i++) {
		pairs[i] = empty_pair(i);
	}
	rt_err err = write_file(path, id, pairs, log_count, info);
	free(pairs);
	return err;
}

static rt_err check_head(const struct head *head, const struct ps_highwater *high, const char *id,
	struct rt_errinfo *info)
{
	if (memcmp(head->magic, MAGIC, sizeof(MAGIC)) != 0 || head->check != head_check(head)) {
		return rt_errinfo_set(info, RT_E_CORRUPT, "%s: damaged header", high->path);
	}
	if (head->version != VERSION && head->version != OLDER) {
		return rt_errinfo_set(info, RT_E_VERSION, "%s: format %u, this build knows %u",
			high->path, head->version, VERSION);
	}
	uint32_t count = high->log_count - (head->version == OLDER);
	if (head->log_count != count || memcmp(head->id, id, 32) != 0) {
		return rt_errinfo_set(
			info, RT_E_CORRUPT, "%s: belongs to another store", high->path);
	}
	return RT_OK;
}

static rt_err check_pairs(struct ps_highwater *high, uint32_t count, struct rt_errinfo *info)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct slot *slot = high->pairs[i].slot;
		bool good0 = slot[0].check == mix(slot[0].offset, i);
		bool good1 = slot[1].check == mix(slot[1].offset, i);
		if (!good0 && !good1) {
			return rt_errinfo_set(
				info, RT_E_CORRUPT, "%s: damaged at shard %u", high->path, i);
		}
		/* The newer of two good ones stays; a bad one is the next to be written. */
		high->turn[i] = !good0 ? 0 : !good1 ? 1 : slot[0].offset >= slot[1].offset;
	}
	return RT_OK;
}

/* Makes a file of this version beside the older one and moves it there: a crash leaves either. */
static rt_err upgrade(struct ps_highwater *high, const char *id, struct rt_errinfo *info)
{
	size_t length = strlen(high->path);
	char *fresh = malloc(length + sizeof(".new"));
	char *dir = strdup(high->path);
	rt_err err = RT_OK;
	if (fresh == NULL || dir == NULL) {
		err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	} else {
		memcpy(fresh, high->path, length);
		memcpy(fresh + length, ".new", sizeof(".new"));
		*strrchr(dir, '/') = '\0';
		err = write_file(fresh, id, high->pairs, high->log_count, info);
		if (err == RT_OK) {
			err = ps_dir_rename(fresh, high->path, info);
		}
		if (err == RT_OK) {
			err = ps_dir_sync(dir, info);
		}
	}
	free(fresh);
	free(dir);
	if (err != RT_OK) {
		return err;
	}
	close_file(high->file);
	high->file = open_file(high->path, UV_FS_O_RDWR);
	return high->file < 0 ? failed(info, "open", high->path, high->file) : RT_OK;
}

static rt_err load(struct ps_highwater *high, const char *id, struct rt_errinfo *info)
{
	struct head head;
	uint32_t count = high->log_count;
	ssize_t code = transfer(high->file, &head, sizeof(head), 0, false);
	if (code == 0) {
		rt_err err = check_head(&head, high, id, info);
		if (err != RT_OK) {
			return err;
		}
		count = head.log_count;
		code = transfer(
			high->file, high->pairs, count * sizeof(struct pair), HEAD_BYTES, false);
	}
	if (code == UV_EOF) {
		return rt_errinfo_set(info, RT_E_CORRUPT, "%s: too short", high->path);
	}
	if (code < 0) {
		return failed(info, "read", high->path, code);
	}
	rt_err err = check_pairs(high, count, info);
	if (err == RT_OK && count < high->log_count) {
		high->pairs[count] = empty_pair(count);
		err = upgrade(high, id, info);
	}
	return err;
}

rt_err ps_highwater_open(const char *path, const char *id, uint32_t log_count,
	struct ps_highwater **out, struct rt_errinfo *info)
{
	struct ps_highwater *high = calloc(1, sizeof(*high));
	if (high == NULL || uv_mutex_init(&high->lock) != 0) {
		free(high);
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	high->file = -1;
	high->log_count = log_count;
	high->low = log_count;
	high->path = strdup(path);
	high->pairs = calloc(log_count, sizeof(*high->pairs));
	high->turn = calloc(log_count, 1);
	rt_err err;
	if (high->path == NULL || high->pairs == NULL || high->turn == NULL) {
		err = rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	} else {
		high->file = open_file(path, UV_FS_O_RDWR);
		err = high->file == UV_ENOENT
			      ? rt_errinfo_set(info, RT_E_NOTFOUND, "%s: missing", path)
		      : high->file < 0 ? failed(info, "open", path, high->file)
				       : load(high, id, info);
	}
	if (err != RT_OK) {
		ps_highwater_close(high);
		return err;
	}
	*out = high;
	return RT_OK;
}

void ps_highwater_close(struct ps_highwater *high)
{
	if (high == NULL) {
		return;
	}
	if (high->file >= 0) {
		close_file(high->file);
	}
	uv_mutex_destroy(&high->lock);
	free(high->path);
	free(high->pairs);
	free(high->turn);
	free(high);
}

static uint64_t get(const struct ps_highwater *high, uint32_t shard)
{
	RT_ASSERT(shard < high->log_count);
	return high->pairs[shard].slot[!high->turn[shard]].offset;
}

uint64_t ps_highwater_get(struct ps_highwater *high, uint32_t shard)
{
	uv_mutex_lock(&high->lock);
	uint64_t offset = get(high, shard);
	uv_mutex_unlock(&high->lock);
	return offset;
}

void ps_highwater_set(struct ps_highwater *high, uint32_t shard, uint64_t offset)
{
	uv_mutex_lock(&high->lock);
	bool lower = offset < get(high, shard);
	/* Of two good slots the higher one counts, so both have to come down. */
	for (int i = 0; i < (lower ? 2 : 1); i++) {
		struct slot *slot = &high->pairs[shard].slot[high->turn[shard]];
		*slot = (struct slot){offset, mix(offset, shard)};
		high->turn[shard] = !high->turn[shard];
	}
	high->low = shard < high->low ? shard : high->low;
	high->high = shard >= high->high ? shard + 1 : high->high;
	uv_mutex_unlock(&high->lock);
}

static rt_err write_set(struct ps_highwater *high, struct rt_errinfo *info)
{
	if (high->low >= high->high) {
		return RT_OK;
	}
	int64_t at = HEAD_BYTES + (int64_t)(high->low * sizeof(struct pair));
	ssize_t code = transfer(high->file, &high->pairs[high->low],
		(high->high - high->low) * sizeof(struct pair), at, true);
	if (code < 0) {
		return failed(info, "write", high->path, code);
	}
	high->low = high->log_count;
	high->high = 0;
	return RT_OK;
}

rt_err ps_highwater_write(struct ps_highwater *high, struct rt_errinfo *info)
{
	uv_mutex_lock(&high->lock);
	rt_err err = write_set(high, info);
	uv_mutex_unlock(&high->lock);
	return err;
}

rt_err ps_highwater_sync(struct ps_highwater *high, struct rt_errinfo *info)
{
	int code = sync_file(high->file);
	return code < 0 ? failed(info, "sync", high->path, code) : RT_OK;
}
