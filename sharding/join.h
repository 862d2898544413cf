/*
 * join.h - asks a running cluster to take this node in.
 *
 * Blocking: until a member answers for the coordinator, or the time is over.
 */
#ifndef SHARDING_JOIN_H
#define SHARDING_JOIN_H

#include "runtime/base/err.h"
#include "sharding/cluster.pb-c.h"

/* urls: of any members, for clients, with commas between. key: of this node; the same one again is
 * the same node. *out is freed with protobuf-c. RT_E_UNAVAILABLE: nobody answered in time;
 * RT_E_INVAL: refused, and why. */
RT_NODISCARD rt_err sh_join(const char *urls, const char *key, const char *name,
	uint32_t timeout_ms, Troupe__Cluster__Joined **out, struct rt_errinfo *info);

#endif
