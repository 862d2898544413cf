#include "cmd/trouped/address.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/trouped/listener.h"

#define CLUSTER_URL "tcp://127.0.0.1:0" /* without a tcp address to derive it from */

/* The parts of a tcp URL, borrowed from it. A host in brackets keeps them. */
struct address {
	const char *scheme, *host, *port;
	size_t scheme_size, host_size;
};

static bool address_of(const char *url, struct address *out)
{
	const char *host = strstr(url, "://");
	if (strncmp(url, "tcp", 3) != 0 || host == NULL) {
		return false;
	}
	host += 3;
	const char *port = strrchr(host, ':');
	const char *bracket = strrchr(host, ']');
	if (port == NULL || (bracket != NULL && port < bracket)) {
		return false;
	}
	*out = (struct address){.scheme = url,
		.scheme_size = (size_t)(host - url),
		.host = host,
		.host_size = (size_t)(port - host),
		.port = port + 1};
	return true;
}

/* An address that can be bound and not called. */
static bool is_wildcard(const char *url)
{
	static const char *const all[] = {"", "*", "0.0.0.0", "[::]", "[::0]"};
	struct address address;
	if (!address_of(url, &address)) {
		return false;
	}
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strlen(all[i]) == address.host_size &&
			memcmp(all[i], address.host, address.host_size) == 0) {
			return true;
		}
	}
	return false;
}

static bool first_address(const struct td_config *config, struct address *out, const char **out_url)
{
	for (size_t i = 0; i < config->rpc.count; i++) {
		if (address_of(config->rpc.items[i], out)) {
			*out_url = config->rpc.items[i];
			return true;
		}
	}
	return false;
}

static rt_err set_cluster(struct td_config *config, const char *url, struct rt_errinfo *info)
{
	config->cluster = strdup(url);
	return config->cluster != NULL ? RT_OK : rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
}

/* A node that listens to all clients and was told of no cluster does not open a second port to
 * everybody: then it is the loopback one. */
rt_err td_address_derive(struct td_config *config, struct rt_errinfo *info)
{
	struct address rpc;
	const char *url = NULL;
	char text[300];
	if (config->cluster != NULL) {
		return RT_OK;
	}
	if (!first_address(config, &rpc, &url)) {
		return set_cluster(config, CLUSTER_URL, info);
	}
	char *end = NULL;
	unsigned long port = strtoul(rpc.port, &end, 10);
	if (rpc.port[0] < '0' || rpc.port[0] > '9' || *end != '\0' || port >= 65535) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"cluster: no port follows from %s; say where other nodes call with "
			"--cluster",
			url);
	}
	port += port > 0 ? 1 : 0;
	bool loopback = is_wildcard(url) && config->advertise_cluster == NULL;
	int size = loopback ? snprintf(text, sizeof(text), "tcp://127.0.0.1:%lu", port)
			    : snprintf(text, sizeof(text), "%.*s%.*s:%lu", (int)rpc.scheme_size,
				      rpc.scheme, (int)rpc.host_size, rpc.host, port);
	if (size >= (int)sizeof(text)) {
		return rt_errinfo_set(info, RT_E_INVAL, "rpc: %s is too long", url);
	}
	return set_cluster(config, text, info);
}

static rt_err check_listen(
	const struct td_config *config, const char *name, const char *url, struct rt_errinfo *info)
{
	bool loopback = false;
	rt_err err = td_url_check(url, &loopback, info);
	if (err != RT_OK) {
		return rt_errinfo_wrap(info, err, "%s", name);
	}
	if (!loopback && !config->listen_anywhere) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"%s: other machines can reach %s, and there is no authentication yet; if "
			"that is meant, add --insecure-listen-anywhere",
			name, url);
	}
	return RT_OK;
}

/* What others are told must be a URL that they can call. */
static rt_err check_advertised(const char *name, const char *url, struct rt_errinfo *info)
{
	bool loopback = false;
	struct address address;
	if (url == NULL) {
		return RT_OK;
	}
	rt_err err = td_url_check(url, &loopback, info);
	if (err == RT_OK && is_wildcard(url)) {
		err = rt_errinfo_set(info, RT_E_INVAL, "nobody can call %s", url);
	}
	if (err == RT_OK && strncmp(url, "tcp", 3) == 0 &&
		(!address_of(url, &address) || strtoul(address.port, NULL, 10) == 0)) {
		err = rt_errinfo_set(info, RT_E_INVAL, "%s has no port", url);
	}
	return err == RT_OK ? err : rt_errinfo_wrap(info, err, "%s", name);
}

/* A node that is or will be one of several says how it is reached: addresses for everybody say
 * nothing to others. */
static rt_err check_reachable(const struct td_config *config, struct rt_errinfo *info)
{
	bool loopback = true;
	rt_err err = td_url_check(config->cluster, &loopback, info);
	if (err != RT_OK || (loopback && config->join.count == 0)) {
		return err;
	}
	if (config->advertise_cluster == NULL && is_wildcard(config->cluster)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"cluster: other nodes cannot call %s; say what they can call with "
			"--advertise-cluster",
			config->cluster);
	}
	if (config->advertise_rpc == NULL && is_wildcard(config->rpc.items[0])) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"rpc: clients cannot be told to call %s; say what they can call with "
			"--advertise-rpc",
			config->rpc.items[0]);
	}
	return RT_OK;
}

rt_err td_address_check(const struct td_config *config, struct rt_errinfo *info)
{
	rt_err err = RT_OK;
	bool loopback = false;
	for (size_t i = 0; err == RT_OK && i < config->rpc.count; i++) {
		err = check_listen(config, "rpc", config->rpc.items[i], info);
	}
	if (err == RT_OK) {
		err = check_listen(config, "cluster", config->cluster, info);
	}
	if (err == RT_OK && strncmp(config->cluster, "ws", 2) == 0) {
		err = rt_errinfo_set(info, RT_E_INVAL,
			"cluster: \"%s\": nodes talk over tcp or ipc", config->cluster);
	}
	for (size_t i = 0; err == RT_OK && i < config->join.count; i++) {
		err = td_url_check(config->join.items[i], &loopback, info);
		err = err == RT_OK ? err : rt_errinfo_wrap(info, err, "join");
	}
	if (err == RT_OK) {
		err = check_advertised("advertise-rpc", config->advertise_rpc, info);
	}
	if (err == RT_OK) {
		err = check_advertised("advertise-cluster", config->advertise_cluster, info);
	}
	return err == RT_OK ? check_reachable(config, info) : err;
}
