/*
 * registry.h - the aggregate types a node knows: compiled in, or from modules loaded at start.
 *
 * Threads: filled before workers start, read by all afterwards.
 */
#ifndef ACTORS_REGISTRY_H
#define ACTORS_REGISTRY_H

#include "actors/aggregate.h"
#include "proto/json.h"
#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

#define AC_TYPES_MAX 256u

struct ac_registry;

RT_NODISCARD rt_err ac_registry_new(struct ac_registry **out);
void ac_registry_free(struct ac_registry *registry); /* unloads modules */

/* Checks the tables (names, versions, upcaster chains, required functions). RT_E_INVAL says what is
 * wrong; RT_E_EXISTS: the type is known already. */
RT_NODISCARD rt_err ac_registry_add(struct ac_registry *registry,
	const struct troupe_aggregate *aggregate, struct rt_errinfo *info);
/* Loads a shared object and adds its aggregates. Refuses a file that others can write, a name
 * outside [A-Za-z0-9._-]{1,64}, another TROUPE_ABI. */
RT_NODISCARD rt_err ac_registry_load(
	struct ac_registry *registry, const char *file, struct rt_errinfo *info);

struct ac_type; /* an aggregate with its lookup tables */
const struct ac_type *ac_registry_find(const struct ac_registry *registry, struct rt_bytes name);
uint32_t ac_registry_count(const struct ac_registry *registry);
const struct ac_type *ac_registry_at(const struct ac_registry *registry, uint32_t index);
const struct troupe_aggregate *ac_type_aggregate(const struct ac_type *type);

/* Index in the aggregate's table, or -1. */
int ac_type_command(const struct ac_type *type, struct rt_bytes name);
int ac_type_query(const struct ac_type *type, struct rt_bytes name);
int ac_type_event(const struct ac_type *type, struct rt_bytes manifest);

/* TypeList of troupe.proto, packed or as JSON text; type NULL: all. */
void ac_registry_describe(const struct ac_registry *registry, const struct ac_type *type, bool json,
	struct pr_text *out);

#endif
