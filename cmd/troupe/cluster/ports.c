#include "cmd/troupe/cluster/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_PORT 7470u
#define LAST_PORT  32000u

static bool is_free(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int yes = 1;
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
		    bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
		    listen(fd, 1) == 0;
	if (fd >= 0) {
		close(fd);
	}
	return good;
}

static uint16_t port_of(unsigned long number)
{
	return number > UINT16_MAX ? 0 : (uint16_t)number;
}

/* Lines "RPC PEER", one a node. What is not there stays 0. */
static rt_err load(const char *path, size_t count, struct tr_ports *out, struct rt_errinfo *info)
{
	FILE *file = fopen(path, "re");
	if (file == NULL) {
		return errno == ENOENT ? RT_OK : rt_errinfo_set(info, RT_E_IO, "%s: %m", path);
	}
	char line[32];
	for (size_t i = 0; i < count && fgets(line, sizeof(line), file) != NULL; i++) {
		char *end = NULL;
		out[i].rpc = port_of(strtoul(line, &end, 10));
		out[i].peer = port_of(strtoul(end, NULL, 10));
	}
	fclose(file);
	return RT_OK;
}

/* More nodes than this time keep theirs. */
static rt_err save(
	const char *path, size_t count, const struct tr_ports *ports, struct rt_errinfo *info)
{
	FILE *file = fopen(path, "we");
	for (size_t i = 0; file != NULL && i < count; i++) {
		if (ports[i].rpc != 0) {
			fprintf(file, "%u %u\n", ports[i].rpc, ports[i].peer);
		}
	}
	if (file == NULL || fclose(file) != 0) {
		return rt_errinfo_set(info, RT_E_IO, "%s: %m", path);
	}
	return RT_OK;
}

static bool is_taken(const struct tr_ports *ports, size_t count, uint16_t port)
{
	for (size_t i = 0; i < count; i++) {
		if (ports[i].rpc == port || ports[i].peer == port) {
			return true;
		}
	}
	return false;
}

static rt_err find_pair(struct tr_ports *all, size_t index, struct rt_errinfo *info)
{
	all[index] = (struct tr_ports){0};
	for (uint16_t port = FIRST_PORT; port < LAST_PORT; port = (uint16_t)(port + 2)) {
		uint16_t next = (uint16_t)(port + 1);
		if (!is_taken(all, TR_NODES_MAX, port) && !is_taken(all, TR_NODES_MAX, next) &&
			is_free(port) && is_free(next)) {
			all[index] = (struct tr_ports){.rpc = port, .peer = next};
			return RT_OK;
		}
	}
	return rt_errinfo_set(info, RT_E_FULL, "no free ports");
}

static rt_err take_from(uint64_t base, size_t count, struct tr_ports *all, struct rt_errinfo *info)
{
	if (base + 2 * count > 65536) {
		return rt_errinfo_set(
			info, RT_E_FULL, "no %zu ports from %u on", 2 * count, (unsigned)base);
	}
	for (size_t i = 0; i < count; i++) {
		uint16_t port = (uint16_t)(base + 2 * i);
		all[i] = (struct tr_ports){.rpc = port, .peer = (uint16_t)(port + 1)};
		if (!is_free(all[i].rpc) || !is_free(all[i].peer)) {
			return rt_errinfo_set(info, RT_E_FULL, "port %u is in use",
				is_free(all[i].rpc) ? all[i].peer : all[i].rpc);
		}
	}
	return RT_OK;
}

rt_err tr_ports_settle(const char *file, size_t count, uint64_t base, struct tr_ports *out,
	struct rt_errinfo *info)
{
	struct tr_ports all[TR_NODES_MAX] = {{0}};
	rt_err err = load(file, TR_NODES_MAX, all, info);
	if (err == RT_OK && base != 0) {
		err = take_from(base, count, all, info);
	}
	for (size_t i = 0; err == RT_OK && base == 0 && i < count; i++) {
		if (all[i].rpc == 0 || !is_free(all[i].rpc) || !is_free(all[i].peer)) {
			err = find_pair(all, i, info);
		}
	}
	for (size_t i = 0; err == RT_OK && i < count; i++) {
		out[i] = all[i];
	}
	return err == RT_OK ? save(file, TR_NODES_MAX, all, info) : err;
}
