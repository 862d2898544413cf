#include "actors/registry.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/troupe.pb-c.h"
#include "runtime/base/assert.h"

#define NAME_MAX_BYTES 64u

struct ac_type {
	const struct troupe_aggregate *aggregate;
	size_t name_size;
	uint32_t command_count, query_count, event_count;
};

struct ac_registry {
	struct ac_type types[AC_TYPES_MAX];
	uint32_t count;
	void *modules[AC_TYPES_MAX];
	uint32_t module_count;
};

rt_err ac_registry_new(struct ac_registry **out)
{
	struct ac_registry *registry = calloc(1, sizeof(*registry));
	if (registry == NULL) {
		return RT_E_NOMEM;
	}
	*out = registry;
	return RT_OK;
}

void ac_registry_free(struct ac_registry *registry)
{
	if (registry == NULL) {
		return;
	}
	for (uint32_t i = 0; i < registry->module_count; i++) {
		dlclose(registry->modules[i]);
	}
	free(registry);
}

static bool type_name_is_good(const char *name)
{
	if (name == NULL || name[0] < 'a' || name[0] > 'z' || strlen(name) > 32) {
		return false;
	}
	for (const char *at = name; *at != '\0'; at++) {
		bool good = (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') ||
			    *at == '-' || *at == '_';
		if (!good) {
			return false;
		}
	}
	return true;
}

static bool message_name_is_good(const char *name)
{
	size_t size = strlen(name);
	if (size == 0 || size > NAME_MAX_BYTES) {
		return false;
	}
	for (size_t i = 0; i < size; i++) {
		if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '.') {
			return false;
		}
	}
	return true;
}

static rt_err check_events(const struct troupe_aggregate *a, struct rt_errinfo *info)
{
	for (uint32_t i = 0; a->events[i].name != NULL; i++) {
		const struct troupe_event_type *event = &a->events[i];
		if (!message_name_is_good(event->name) || event->message == NULL ||
			event->version == 0) {
			return rt_errinfo_set(info, RT_E_INVAL,
				"aggregate %s: event %u: needs a name, a version from 1 and a "
				"message",
				a->name, i);
		}
		for (uint32_t k = 0; k < i; k++) {
			if (strcmp(a->events[k].name, event->name) == 0 ||
				a->events[k].message == event->message) {
				return rt_errinfo_set(info, RT_E_INVAL,
					"aggregate %s: event %s: its name or message stands twice",
					a->name, event->name);
			}
		}
		uint32_t expected = 0;
		const struct troupe_upcast *step = event->upcasts;
		for (; step != NULL && step->from != NULL; step++) {
			if (step->step == NULL ||
				(expected != 0 && step->from_version != expected)) {
				return rt_errinfo_set(info, RT_E_INVAL,
					"aggregate %s: event %s: upcasters must go up one version "
					"a step",
					a->name, event->name);
			}
			expected = step->from_version + 1;
		}
		if (expected != 0 && expected != event->version) {
			return rt_errinfo_set(info, RT_E_INVAL,
				"aggregate %s: event %s: upcasters end at version %u, the event is "
				"version %u",
				a->name, event->name, expected, event->version);
		}
	}
	return RT_OK;
}

static rt_err check(const struct troupe_aggregate *a, struct rt_errinfo *info)
{
	if (!type_name_is_good(a->name)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"aggregate name \"%s\": needs [a-z][a-z0-9_-]{0,31}",
			a->name ? a->name : "");
	}
	if (a->commands == NULL || a->queries == NULL || a->events == NULL || a->decide == NULL ||
		a->evolve == NULL || (a->answer == NULL && a->queries[0].name != NULL)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"aggregate %s: commands, queries, events, decide, evolve and answer are "
			"needed",
			a->name);
	}
	if (a->state_size == 0 || a->state_size > 1024u * 1024u) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"aggregate %s: state size must be 1 byte to 1 MiB", a->name);
	}
	if ((a->save == NULL) != (a->restore == NULL) || (a->save != NULL && a->snapshot == NULL)) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"aggregate %s: snapshot, save and restore come together", a->name);
	}
	for (uint32_t i = 0; a->commands[i].name != NULL; i++) {
		if (!message_name_is_good(a->commands[i].name) || a->commands[i].message == NULL) {
			return rt_errinfo_set(info, RT_E_INVAL,
				"aggregate %s: command %u: needs a name and a message", a->name, i);
		}
	}
	for (uint32_t i = 0; a->queries[i].name != NULL; i++) {
		if (!message_name_is_good(a->queries[i].name) || a->queries[i].message == NULL ||
			a->queries[i].reply == NULL) {
			return rt_errinfo_set(info, RT_E_INVAL,
				"aggregate %s: query %u: needs a name, a message and a reply",
				a->name, i);
		}
	}
	return check_events(a, info);
}

rt_err ac_registry_add(struct ac_registry *registry, const struct troupe_aggregate *aggregate,
	struct rt_errinfo *info)
{
	rt_err err = check(aggregate, info);
	if (err != RT_OK) {
		return err;
	}
	if (ac_registry_find(registry, rt_bytes_str(aggregate->name)) != NULL) {
		return rt_errinfo_set(info, RT_E_EXISTS, "aggregate %s: the type is known already",
			aggregate->name);
	}
	if (registry->count == AC_TYPES_MAX) {
		return rt_errinfo_set(
			info, RT_E_FULL, "more than %u aggregate types", AC_TYPES_MAX);
	}
	struct ac_type *type = &registry->types[registry->count++];
	type->aggregate = aggregate;
	type->name_size = strlen(aggregate->name);
	while (aggregate->commands[type->command_count].name != NULL) {
		type->command_count++;
	}
	while (aggregate->queries[type->query_count].name != NULL) {
		type->query_count++;
	}
	while (aggregate->events[type->event_count].name != NULL) {
		type->event_count++;
	}
	return RT_OK;
}

static rt_err check_file(const char *file, struct rt_errinfo *info)
{
	const char *base = strrchr(file, '/');
	base = base == NULL ? file : base + 1;
	size_t size = strlen(base);
	bool good = size >= 1 && size <= NAME_MAX_BYTES;
	for (size_t i = 0; i < size; i++) {
		good = good && (isalnum((unsigned char)base[i]) || strchr("._-", base[i]) != NULL);
	}
	if (!good) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"module %s: the file name must match [A-Za-z0-9._-]{1,64}", file);
	}
	struct stat st;
	if (stat(file, &st) != 0) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "module %s: %m", file);
	}
	if (!S_ISREG(st.st_mode) || (st.st_mode & S_IWOTH) != 0) {
		return rt_errinfo_set(info, RT_E_INVAL,
			"module %s: must be a regular file that others cannot write", file);
	}
	return RT_OK;
}

rt_err ac_registry_load(struct ac_registry *registry, const char *file, struct rt_errinfo *info)
{
	rt_err err = check_file(file, info);
	if (err != RT_OK) {
		return err;
	}
	if (registry->module_count == AC_TYPES_MAX) {
		return rt_errinfo_set(info, RT_E_FULL, "more than %u modules", AC_TYPES_MAX);
	}
	char path[4096];
	if (realpath(file, path) == NULL) {
		return rt_errinfo_set(info, RT_E_NOTFOUND, "module %s: %m", file);
	}
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL) {
		return rt_errinfo_set(info, RT_E_INVAL, "module %s: %s", file, dlerror());
	}
	registry->modules[registry->module_count++] = handle;
	const struct troupe_module *module = dlsym(handle, "troupe_module");
	if (module == NULL) {
		return rt_errinfo_set(
			info, RT_E_INVAL, "module %s: exports no symbol troupe_module", file);
	}
	if (module->abi != TROUPE_ABI) {
		return rt_errinfo_set(info, RT_E_VERSION,
			"module %s: built for aggregate interface %u, this node has %u", file,
			module->abi, TROUPE_ABI);
	}
	for (uint32_t i = 0; module->aggregates != NULL && module->aggregates[i] != NULL; i++) {
		err = ac_registry_add(registry, module->aggregates[i], info);
		if (err != RT_OK) {
			return rt_errinfo_wrap(info, err, "module %s", file);
		}
	}
	return RT_OK;
}

const struct ac_type *ac_registry_find(const struct ac_registry *registry, struct rt_bytes name)
{
	for (uint32_t i = 0; i < registry->count; i++) {
		const struct ac_type *type = &registry->types[i];
		if (type->name_size == name.size &&
			memcmp(type->aggregate->name, name.data, name.size) == 0) {
			return type;
		}
	}
	return NULL;
}

uint32_t ac_registry_count(const struct ac_registry *registry)
{
	return registry->count;
}

const struct ac_type *ac_registry_at(const struct ac_registry *registry, uint32_t index)
{
	RT_ASSERT(index < registry->count);
	return &registry->types[index];
}

const struct troupe_aggregate *ac_type_aggregate(const struct ac_type *type)
{
	return type->aggregate;
}

static bool named(const char *name, struct rt_bytes wanted)
{
	return strncmp(name, (const char *)wanted.data, wanted.size) == 0 &&
	       name[wanted.size] == '\0';
}

int ac_type_command(const struct ac_type *type, struct rt_bytes name)
{
	for (uint32_t i = 0; i < type->command_count; i++) {
		if (named(type->aggregate->commands[i].name, name)) {
			return (int)i;
		}
	}
	return -1;
}

int ac_type_query(const struct ac_type *type, struct rt_bytes name)
{
	for (uint32_t i = 0; i < type->query_count; i++) {
		if (named(type->aggregate->queries[i].name, name)) {
			return (int)i;
		}
	}
	return -1;
}

int ac_type_event(const struct ac_type *type, struct rt_bytes manifest)
{
	for (uint32_t i = 0; i < type->event_count; i++) {
		if (named(type->aggregate->events[i].name, manifest)) {
			return (int)i;
		}
	}
	return -1;
}
