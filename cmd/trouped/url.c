#include <nng/nng.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/trouped/listener.h"

static bool scheme_is(const char *scheme, const char *const *list)
{
	for (; *list != NULL; list++) {
		if (strcmp(scheme, *list) == 0) {
			return true;
		}
	}
	return false;
}

/* 127.0.0.0/8 in plain dotted form only: what looks odd counts as reachable from elsewhere. */
static bool ipv4_loopback(const char *host)
{
	if (strncmp(host, "127.", 4) != 0) {
		return false;
	}
	unsigned dots = 0;
	for (const char *c = host; *c != '\0'; c++) {
		if (*c == '.') {
			dots++;
		} else if (*c < '0' || *c > '9') {
			return false;
		}
	}
	return dots == 3;
}

static bool host_loopback(const char *host)
{
	return host != NULL && (strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
				       strcmp(host, "[::1]") == 0 || ipv4_loopback(host));
}

rt_err td_url_check(const char *url, bool *out_loopback, struct rt_errinfo *info)
{
	static const char *const local[] = {"ipc", "unix", "abstract", "inproc", NULL};
	static const char *const net[] = {"tcp", "tcp4", "tcp6", "ws", NULL};
	nng_url *parsed = NULL;
	if (strstr(url, "://") == NULL || nng_url_parse(&parsed, url) != 0) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"\"%s\" is not a URL such as tcp://127.0.0.1:7470 or "
			"ipc:///run/troupe.sock",
			url);
	}
	rt_err err = RT_OK;
	if (scheme_is(parsed->u_scheme, local)) {
		*out_loopback = true;
	} else if (scheme_is(parsed->u_scheme, net)) {
		*out_loopback = host_loopback(parsed->u_hostname);
	} else {
		err = rt_errinfo_set(info, RT_E_INVAL,
			"\"%s\": transport %s is not offered; use tcp, ws or ipc", url,
			parsed->u_scheme);
	}
	nng_url_free(parsed);
	return err;
}
