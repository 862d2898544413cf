#include "cmd/troupe/cluster/view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

static rt_err not_as_expected(const char *what, const char *why, struct rt_errinfo *info)
{
	return rt_errinfo_set(
		info, RT_E_PROTO, "the status of the cluster cannot be read: %s: %s", what, why);
}

/* Unsigned numbers of an object by name; the list ends with NULL. */
struct number {
	const char *name;
	uint64_t *out;
};

static rt_err read_numbers(const json_t *object, const struct number *numbers, const char *what,
	struct rt_errinfo *info)
{
	for (; numbers->name != NULL; numbers++) {
		const json_t *value = json_object_get(object, numbers->name);
		if (!json_is_integer(value) || json_integer_value(value) < 0) {
			return not_as_expected(what, numbers->name, info);
		}
		*numbers->out = (uint64_t)json_integer_value(value);
	}
	return RT_OK;
}

static rt_err read_text(const json_t *object, const char *name, const char **out, const char *what,
	struct rt_errinfo *info)
{
	*out = json_string_value(json_object_get(object, name));
	return *out != NULL ? RT_OK : not_as_expected(what, name, info);
}

static rt_err read_bool(const json_t *object, const char *name, bool *out, const char *what,
	struct rt_errinfo *info)
{
	const json_t *value = json_object_get(object, name);
	*out = json_is_true(value);
	return json_is_boolean(value) ? RT_OK : not_as_expected(what, name, info);
}

static rt_err read_member(const json_t *object, struct tr_member *out, struct rt_errinfo *info)
{
	const struct number numbers[] = {{"node", &out->node}, {"heardMs", &out->heard_ms},
		{"replicas", &out->replicas}, {"leaders", &out->leaders}, {NULL, NULL}};
	rt_err err = read_numbers(object, numbers, "a node", info);
	if (err == RT_OK) {
		err = read_text(object, "name", &out->name, "a node", info);
	}
	if (err == RT_OK) {
		err = read_text(object, "rpc", &out->rpc, "a node", info);
	}
	if (err == RT_OK) {
		err = read_text(object, "peer", &out->peer, "a node", info);
	}
	if (err == RT_OK) {
		err = read_text(object, "state", &out->state, "a node", info);
	}
	return err == RT_OK ? read_bool(object, "reachable", &out->reachable, "a node", info) : err;
}

static rt_err read_replica(const json_t *object, struct tr_replica *out, struct rt_errinfo *info)
{
	const struct number numbers[] = {{"node", &out->node}, {"lag", &out->lag}, {NULL, NULL}};
	rt_err err = read_numbers(object, numbers, "a replica", info);
	return err == RT_OK ? read_bool(object, "voter", &out->voter, "a replica", info) : err;
}

static rt_err read_group(const json_t *object, struct tr_group *out, struct rt_errinfo *info)
{
	uint64_t shard = 0;
	const struct number numbers[] = {{"shard", &shard}, {"leader", &out->leader},
		{"term", &out->term}, {"commit", &out->commit}, {"preferred", &out->preferred},
		{NULL, NULL}};
	rt_err err = read_numbers(object, numbers, "a group", info);
	if (err == RT_OK) {
		err = read_text(object, "name", &out->name, "a group", info);
	}
	if (err == RT_OK) {
		err = read_bool(object, "moving", &out->moving, "a group", info);
	}
	out->shard = (uint32_t)shard;
	return err == RT_OK && shard > UINT32_MAX ? not_as_expected("a group", "shard", info) : err;
}

/* Its replicas and target; *replicas and *targets are where there is room, and move on. */
static rt_err read_holders(const json_t *object, struct tr_group *out, struct tr_replica **replicas,
	uint64_t **targets, struct rt_errinfo *info)
{
	size_t i = 0;
	const json_t *item = NULL;
	out->replicas = *replicas;
	out->target = *targets;
	rt_err err = RT_OK;
	json_array_foreach(json_object_get(object, "replicas"), i, item)
	{
		err = err == RT_OK ? read_replica(item, (*replicas)++, info) : err;
		out->replica_count++;
	}
	json_array_foreach(json_object_get(object, "target"), i, item)
	{
		if (err == RT_OK && (!json_is_integer(item) || json_integer_value(item) < 0)) {
			err = not_as_expected("a group", "target", info);
		}
		*(*targets)++ = (uint64_t)json_integer_value(item);
		out->target_count++;
	}
	return err;
}

static rt_err read_groups(struct tr_view *view, const json_t *groups, struct rt_errinfo *info)
{
	size_t i = 0, replica_count = 0, target_count = 0;
	const json_t *item = NULL;
	json_array_foreach(groups, i, item)
	{
		replica_count += json_array_size(json_object_get(item, "replicas"));
		target_count += json_array_size(json_object_get(item, "target"));
	}
	view->groups = calloc(json_array_size(groups) + 1, sizeof(*view->groups));
	view->replicas = calloc(replica_count + 1, sizeof(*view->replicas));
	view->targets = calloc(target_count + 1, sizeof(*view->targets));
	if (view->groups == NULL || view->replicas == NULL || view->targets == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	struct tr_replica *replicas = view->replicas;
	uint64_t *targets = view->targets;
	rt_err err = RT_OK;
	json_array_foreach(groups, i, item)
	{
		struct tr_group *group = &view->groups[view->group_count++];
		err = err == RT_OK ? read_group(item, group, info) : err;
		err = err == RT_OK ? read_holders(item, group, &replicas, &targets, info) : err;
	}
	return err;
}

static rt_err read_members(struct tr_view *view, const json_t *nodes, struct rt_errinfo *info)
{
	size_t i = 0;
	const json_t *item = NULL;
	rt_err err = RT_OK;
	view->members = calloc(json_array_size(nodes) + 1, sizeof(*view->members));
	if (view->members == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "out of memory");
	}
	json_array_foreach(nodes, i, item)
	{
		struct tr_member *member = &view->members[view->member_count++];
		err = err == RT_OK ? read_member(item, member, info) : err;
	}
	return err;
}

static rt_err read_view(struct tr_view *view, struct rt_errinfo *info)
{
	const struct number numbers[] = {{"version", &view->version},
		{"coordinator", &view->coordinator}, {"term", &view->term},
		{"replication", &view->replication}, {"shards", &view->shards},
		{"movesMax", &view->moves_max}, {"deadAfterMs", &view->dead_after_ms},
		{"moves", &view->moves}, {NULL, NULL}};
	const json_t *nodes = json_object_get(view->root, "nodes");
	const json_t *groups = json_object_get(view->root, "groups");
	rt_err err = read_numbers(view->root, numbers, "cluster", info);
	if (err == RT_OK) {
		err = read_text(view->root, "cluster", &view->cluster, "cluster", info);
	}
	if (err == RT_OK && (!json_is_array(nodes) || !json_is_array(groups))) {
		err = not_as_expected("cluster", json_is_array(nodes) ? "groups" : "nodes", info);
	}
	if (err == RT_OK) {
		err = read_members(view, nodes, info);
	}
	return err == RT_OK ? read_groups(view, groups, info) : err;
}

rt_err tr_view_read(struct rt_bytes json, struct tr_view *out, struct rt_errinfo *info)
{
	json_error_t error;
	*out = (struct tr_view){.root = json_loadb((const char *)json.data, json.size,
					JSON_REJECT_DUPLICATES, &error)};
	rt_err err = out->root != NULL ? read_view(out, info)
				       : not_as_expected("no JSON", error.text, info);
	if (err != RT_OK) {
		tr_view_done(out);
	}
	return err;
}

void tr_view_done(struct tr_view *view)
{
	free(view->members);
	free(view->groups);
	free(view->replicas);
	free(view->targets);
	json_decref(view->root);
	*view = (struct tr_view){0};
}

/* ---- looking ---- */

const struct tr_member *tr_view_member(const struct tr_view *view, uint64_t node)
{
	for (size_t i = 0; i < view->member_count; i++) {
		if (view->members[i].node == node) {
			return &view->members[i];
		}
	}
	return NULL;
}

static bool read_number(const char *word, uint64_t *out)
{
	char *end = NULL;
	errno = 0;
	*out = strtoull(word, &end, 10);
	return word[0] >= '0' && word[0] <= '9' && *end == '\0' && errno == 0;
}

/* "1 (n1), 2 (n2)" as far as there is room. */
static void list_members(const struct tr_view *view, char *out, size_t room)
{
	size_t used = 0;
	out[0] = '\0';
	for (size_t i = 0; i < view->member_count && used < room; i++) {
		const struct tr_member *member = &view->members[i];
		used += (size_t)snprintf(out + used, room - used, "%s%" PRIu64 "%s%s%s",
			i > 0 ? ", " : "", member->node, member->name[0] != '\0' ? " (" : "",
			member->name, member->name[0] != '\0' ? ")" : "");
	}
}

/* A name can be used again when its first node has left: who is still there wins. */
const struct tr_member *tr_view_find(
	const struct tr_view *view, const char *word, struct rt_errinfo *info)
{
	uint64_t node = 0;
	const struct tr_member *found = NULL;
	if (read_number(word, &node)) {
		found = tr_view_member(view, node);
	} else {
		for (size_t i = 0; i < view->member_count; i++) {
			const struct tr_member *member = &view->members[i];
			bool same = strcmp(member->name, word) == 0;
			if (same && (found == NULL || tr_member_is(found, "left"))) {
				found = member;
			}
		}
	}
	if (found == NULL) {
		char names[256];
		list_members(view, names, sizeof(names));
		(void)rt_errinfo_set(info, RT_E_NOTFOUND,
			"no node \"%.64s\" in this cluster; there are %s", word, names);
	}
	return found;
}

const struct tr_group *tr_view_shard(
	const struct tr_view *view, const char *word, struct rt_errinfo *info)
{
	for (size_t i = 0; i < view->group_count; i++) {
		uint64_t shard = 0;
		if (strcmp(view->groups[i].name, word) == 0 ||
			(read_number(word, &shard) && view->groups[i].shard == shard)) {
			return &view->groups[i];
		}
	}
	(void)rt_errinfo_set(info, RT_E_NOTFOUND,
		"no shard \"%.64s\" in this cluster; there are 0 to %" PRIu64 " and meta", word,
		view->shards > 0 ? view->shards - 1 : 0);
	return NULL;
}

bool tr_member_is(const struct tr_member *member, const char *state)
{
	return strcmp(member->state, state) == 0;
}

/* ---- judging ---- */

bool tr_group_targets(const struct tr_group *group, uint64_t node)
{
	for (size_t i = 0; i < group->target_count; i++) {
		if (group->target[i] == node) {
			return true;
		}
	}
	return false;
}

const struct tr_replica *tr_group_replica(const struct tr_group *group, uint64_t node)
{
	for (size_t i = 0; i < group->replica_count; i++) {
		if (group->replicas[i].node == node) {
			return &group->replicas[i];
		}
	}
	return NULL;
}

bool tr_group_is_placed(const struct tr_group *group)
{
	if (group->moving || group->replica_count != group->target_count) {
		return false;
	}
	for (size_t i = 0; i < group->replica_count; i++) {
		if (!group->replicas[i].voter ||
			!tr_group_targets(group, group->replicas[i].node)) {
			return false;
		}
	}
	return true;
}

size_t tr_group_sound(const struct tr_view *view, const struct tr_group *group)
{
	size_t count = 0;
	for (size_t i = 0; i < group->replica_count; i++) {
		const struct tr_member *member = tr_view_member(view, group->replicas[i].node);
		count += group->replicas[i].voter && member != NULL && member->reachable ? 1 : 0;
	}
	return count;
}

/* The spread that a placement may have and still be called even. */
static bool is_close(uint64_t least, uint64_t most)
{
	uint64_t slack = most / 8;
	return most - least <= (slack < 1 ? 1 : slack);
}

static bool members_are_even(const struct tr_view *view, size_t nodes)
{
	uint64_t least_replicas = UINT64_MAX, most_replicas = 0;
	uint64_t least_leaders = UINT64_MAX, most_leaders = 0;
	size_t up = 0;
	for (size_t i = 0; i < view->member_count; i++) {
		const struct tr_member *member = &view->members[i];
		if (!tr_member_is(member, "up") || !member->reachable) {
			continue;
		}
		up++;
		least_replicas =
			member->replicas < least_replicas ? member->replicas : least_replicas;
		most_replicas = member->replicas > most_replicas ? member->replicas : most_replicas;
		least_leaders = member->leaders < least_leaders ? member->leaders : least_leaders;
		most_leaders = member->leaders > most_leaders ? member->leaders : most_leaders;
	}
	return up >= nodes && up > 0 && is_close(least_replicas, most_replicas) &&
	       is_close(least_leaders, most_leaders);
}

uint64_t tr_view_copies(const struct tr_view *view, size_t nodes)
{
	return view->replication < nodes ? view->replication : nodes;
}

bool tr_view_is_even(const struct tr_view *view, size_t nodes)
{
	uint64_t copies = tr_view_copies(view, nodes);
	for (size_t i = 0; i < view->group_count; i++) {
		const struct tr_group *group = &view->groups[i];
		bool led = group->leader != 0 &&
			   (group->preferred == 0 || group->preferred == group->leader);
		if (!led || !tr_group_is_placed(group) || group->target_count < copies) {
			return false;
		}
	}
	return view->group_count == view->shards + 1 && view->moves == 0 &&
	       members_are_even(view, nodes);
}
