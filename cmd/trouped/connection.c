#include "cmd/trouped/connection.h"

#include <dirent.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/hash.h"

#define DISCARD_BYTES ((size_t)1 << 30)

/* An address without padding, in network order, as nng and the kernel both keep it. */
struct place {
	uint8_t bytes[18];
};

static uint64_t key_of(const struct place *local, const struct place *remote)
{
	uint8_t both[2 * sizeof(struct place)];
	memcpy(both, local, sizeof(*local));
	memcpy(both + sizeof(*local), remote, sizeof(*remote));
	return rt_hash(both, sizeof(both)) | 1;
}

static bool place_of_nng(const nng_sockaddr *from, struct place *out)
{
	memset(out, 0, sizeof(*out));
	if (from->s_family == NNG_AF_INET) {
		memcpy(out->bytes, &from->s_in.sa_port, 2);
		memcpy(out->bytes + 2, &from->s_in.sa_addr, 4);
		return true;
	}
	if (from->s_family == NNG_AF_INET6) {
		memcpy(out->bytes, &from->s_in6.sa_port, 2);
		memcpy(out->bytes + 2, from->s_in6.sa_addr, 16);
		return true;
	}
	return false;
}

static bool place_of_kernel(const struct sockaddr_storage *from, struct place *out)
{
	memset(out, 0, sizeof(*out));
	if (from->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)from;
		memcpy(out->bytes, &in->sin_port, 2);
		memcpy(out->bytes + 2, &in->sin_addr, 4);
		return true;
	}
	if (from->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
		memcpy(out->bytes, &in6->sin6_port, 2);
		memcpy(out->bytes + 2, &in6->sin6_addr, 16);
		return true;
	}
	return false;
}

uint64_t td_connection_key(nng_pipe pipe)
{
	nng_sockaddr here, there;
	struct place local, remote;
	if (nng_pipe_get_addr(pipe, NNG_OPT_LOCADDR, &here) != 0 ||
		nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &there) != 0 ||
		!place_of_nng(&here, &local) || !place_of_nng(&there, &remote)) {
		return 0;
	}
	return key_of(&local, &remote);
}

/* 0: the descriptor is not a connected TCP socket. */
static uint64_t key_of_descriptor(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	struct place local, remote;
	socklen_t here_size = sizeof(here), there_size = sizeof(there);
	if (getpeername(fd, (struct sockaddr *)&there, &there_size) != 0 ||
		getsockname(fd, (struct sockaddr *)&here, &here_size) != 0 ||
		!place_of_kernel(&here, &local) || !place_of_kernel(&there, &remote)) {
		return 0;
	}
	return key_of(&local, &remote);
}

/* Calls take for the key of every connection until it says true; that is returned. */
static bool each_connection(bool (*take)(void *arg, int fd, uint64_t key), void *arg)
{
	bool taken = false;
	DIR *all = opendir("/proc/self/fd");
	if (all == NULL) {
		return false;
	}
	/* Each caller reads a directory stream of its own. */
	for (struct dirent *entry; !taken && (entry = readdir(all)) != NULL;) {
		int fd = (int)strtol(entry->d_name, NULL, 10);
		uint64_t key = key_of_descriptor(fd);
		taken = key != 0 && take(arg, fd, key);
	}
	closedir(all);
	return taken;
}

static bool sever(int fd)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
	struct sock_fprog drop = {.len = 1, .filter = &nothing};
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	/* Who goes on sending would put the end of file off, and megabytes may wait in front of it.
	 * TCP discards with MSG_TRUNC, under the socket's lock: nng sees all of a read or its end.
	 */
	(void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &drop, sizeof(drop));
	while (recv(fd, NULL, DISCARD_BYTES, MSG_TRUNC | MSG_DONTWAIT) > 0) {
	}
	return shutdown(fd, SHUT_RD) == 0;
}

static bool sever_if(void *arg, int fd, uint64_t key)
{
	return key == *(const uint64_t *)arg && sever(fd);
}

bool td_connection_sever(uint64_t key)
{
	return key != 0 && each_connection(sever_if, &key);
}

struct keys {
	uint64_t *list;
	size_t count, max;
};

static bool collect(void *arg, int fd, uint64_t key)
{
	struct keys *keys = arg;
	(void)fd;
	keys->list[keys->count++] = key;
	return keys->count == keys->max;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written through keys */
size_t td_connection_alive(uint64_t *list, size_t max)
{
	struct keys keys = {.list = list, .max = max};
	(void)each_connection(collect, &keys);
	return keys.count;
}
