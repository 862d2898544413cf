#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/transport_parts.h"

/* Where it can be found: a node that serves no clients yet names no URL for them. */
static const char *place_of(const struct sh_identity *who)
{
	if (who->rpc != NULL && who->rpc[0] != '\0') {
		return who->rpc;
	}
	return who->peer != NULL && who->peer[0] != '\0' ? who->peer : "an unknown URL";
}

/* What is to blame, then who refuses whom. */
static bool refuse(struct sh_transport *transport, const struct sh_identity *whom, char *why,
	const char *reason)
{
	const struct sh_identity *self = &transport->options.self;
	(void)snprintf(why, SH_REFUSAL_MAX + 1,
		"%s (node %" PRIu64 " at %s refuses node %" PRIu64 " at %s)", reason, self->node,
		place_of(self), whom->node, place_of(whom));
	return false;
}

bool sh_gate_version(struct sh_transport *transport, const struct sh_handshake *hello, char *why)
{
	char reason[128];
	(void)snprintf(reason, sizeof(reason),
		"this node speaks versions %u to %u of the protocol between nodes, not %u to %u",
		SH_VERSION_MIN, SH_VERSION_MAX, hello->version_min, hello->version_max);
	return refuse(transport, &hello->who, why, reason);
}

static bool running(struct sh_transport *transport, const struct sh_identity *old,
	const struct sh_identity *new, char *why)
{
	char reason[512];
	(void)snprintf(reason, sizeof(reason),
		"node %" PRIu64 " is already running as another process (instance %016" PRIx64
		", %s; this one is instance %016" PRIx64 ")",
		old->node, old->instance, place_of(old), new->instance);
	return refuse(transport, new, why, reason);
}

static bool check_hello(
	struct sh_transport *transport, const struct sh_handshake *hello, char *reason, size_t room)
{
	const struct sh_identity *self = &transport->options.self;
	if (strcmp(self->cluster, hello->who.cluster) != 0) {
		(void)snprintf(reason, room, "this is cluster %s, not %s", self->cluster,
			hello->who.cluster);
		return false;
	}
	if (hello->target != self->node) {
		(void)snprintf(reason, room, "you wanted node %" PRIu64 ", this is node %" PRIu64,
			hello->target, self->node);
		return false;
	}
	return true;
}

static bool check_who(
	struct sh_transport *transport, const struct sh_identity *who, char *reason, size_t room)
{
	reason[0] = '\0';
	if (!transport->options.port->known(transport->options.arg, who, reason, room)) {
		reason[room - 1] = '\0';
		if (reason[0] == '\0') {
			(void)snprintf(
				reason, room, "node %" PRIu64 " is not known here", who->node);
		}
		return false;
	}
	const struct sh_remote *remote = sh_transport_remote(transport, who->node);
	if (remote != NULL && who->incarnation < remote->incarnation) {
		(void)snprintf(reason, room,
			"an old copy of the data of node %" PRIu64 ": incarnation %" PRIu64
			", but %" PRIu64 " was here already",
			who->node, who->incarnation, remote->incarnation);
		return false;
	}
	return true;
}

bool sh_gate_hello(struct sh_transport *transport, const struct sh_handshake *hello, char *why)
{
	const struct sh_identity *self = &transport->options.self;
	char reason[512];
	if (!check_hello(transport, hello, reason, sizeof(reason))) {
		return refuse(transport, &hello->who, why, reason);
	}
	if (hello->who.node == self->node) {
		return running(transport, self, &hello->who, why);
	}
	return check_who(transport, &hello->who, reason, sizeof(reason)) ||
	       refuse(transport, &hello->who, why, reason);
}

bool sh_gate_welcome(const struct sh_remote *remote, const struct sh_handshake *welcome, char *why)
{
	struct sh_transport *transport = remote->transport;
	const struct sh_identity *self = &transport->options.self;
	char reason[512];
	if (welcome->version_min != welcome->version_max || welcome->version_min < SH_VERSION_MIN ||
		welcome->version_min > SH_VERSION_MAX) {
		return sh_gate_version(transport, welcome, why);
	}
	if (strcmp(self->cluster, welcome->who.cluster) != 0) {
		(void)snprintf(reason, sizeof(reason), "it is of cluster %s, not %s",
			welcome->who.cluster, self->cluster);
		return refuse(transport, &welcome->who, why, reason);
	}
	if (welcome->who.node != remote->node) {
		(void)snprintf(reason, sizeof(reason),
			"wanted node %" PRIu64 ", found node %" PRIu64, remote->node,
			welcome->who.node);
		return refuse(transport, &welcome->who, why, reason);
	}
	return check_who(transport, &welcome->who, reason, sizeof(reason)) ||
	       refuse(transport, &welcome->who, why, reason);
}

void sh_gate_clone(const struct sh_inlet *old, const struct sh_handshake *hello, char *why)
{
	RT_ASSERT(old->hello->who.instance != hello->who.instance);
	(void)running(old->transport, &old->hello->who, &hello->who, why);
}
