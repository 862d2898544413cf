#include "cmd/troupe/cluster/table.h"

#include <inttypes.h>
#include <string.h>

#define RANGES_MAX 8u

static void add_age(uint64_t ms, struct pr_text *out)
{
	double seconds = (double)ms / 1000;
	char text[32];
	if (seconds < 10) {
		snprintf(text, sizeof(text), "%.1f s", seconds);
	} else if (seconds < 120) {
		snprintf(text, sizeof(text), "%.0f s", seconds);
	} else if (seconds < 7200) {
		snprintf(text, sizeof(text), "%.0f min", seconds / 60);
	} else {
		snprintf(text, sizeof(text), "%.0f h", seconds / 3600);
	}
	pr_text_printf(out, "%8s", text);
}

void tr_table_member(const struct tr_member *member, char *out, size_t room)
{
	if (member->name[0] != '\0') {
		snprintf(out, room, "%s", member->name);
	} else {
		snprintf(out, room, "node %" PRIu64, member->node);
	}
}

/* ---- the head ---- */

static void add_head(const struct tr_view *view, struct pr_text *out)
{
	const struct tr_member *coordinator = tr_view_member(view, view->coordinator);
	char name[80] = "none";
	if (coordinator != NULL) {
		tr_table_member(coordinator, name, sizeof(name));
	}
	pr_text_printf(out, "cluster %s, version %" PRIu64 "; coordinator %s in term %" PRIu64 "\n",
		view->cluster, view->version, name, view->term);
	pr_text_printf(out,
		"%" PRIu64 " shards and the meta group, %" PRIu64 " replicas of each; %" PRIu64
		" moves at a time; a node is dead after %" PRIu64 " s\n\n",
		view->shards, view->replication, view->moves_max, view->dead_after_ms / 1000);
}

/* ---- nodes ---- */

static int name_width(const struct tr_view *view)
{
	size_t width = strlen("NAME");
	for (size_t i = 0; i < view->member_count; i++) {
		size_t size = strlen(view->members[i].name);
		width = size > width ? size : width;
	}
	return (int)(width > 64 ? 64 : width);
}

static void add_members(const struct tr_view *view, struct pr_text *out)
{
	int width = name_width(view);
	pr_text_printf(out, "%5s  %-*s  %-8s  %-11s  %8s  %7s  %-9s  %8s  %s\n", "NODE", width,
		"NAME", "STATE", "ROLE", "REPLICAS", "LEADERS", "REACHABLE", "HEARD", "RPC");
	for (size_t i = 0; i < view->member_count; i++) {
		const struct tr_member *member = &view->members[i];
		pr_text_printf(out,
			"%5" PRIu64 "  %-*.*s  %-8s  %-11s  %8" PRIu64 "  %7" PRIu64 "  %-9s  ",
			member->node, width, width, member->name[0] != '\0' ? member->name : "-",
			member->state,
			member->node == view->coordinator ? "coordinator"
			: tr_member_is(member, "left")    ? "-"
							  : "member",
			member->replicas, member->leaders, member->reachable ? "yes" : "no");
		add_age(member->heard_ms, out);
		pr_text_printf(out, "  %s\n", member->rpc);
	}
	pr_text_str(out, "\n");
}

/* ---- all shards in a few lines ---- */

typedef bool group_test(const struct tr_view *view, const struct tr_group *group);

static bool is_led(const struct tr_view *view, const struct tr_group *group)
{
	(void)view;
	return group->leader != 0;
}

static bool is_unled(const struct tr_view *view, const struct tr_group *group)
{
	return !is_led(view, group);
}

/* Not as many reachable voters as it should have holders. */
static bool is_short(const struct tr_view *view, const struct tr_group *group)
{
	return tr_group_sound(view, group) < group->target_count ||
	       group->target_count < view->replication;
}

static bool is_whole(const struct tr_view *view, const struct tr_group *group)
{
	return !is_short(view, group);
}

static bool is_moving(const struct tr_view *view, const struct tr_group *group)
{
	(void)view;
	return !tr_group_is_placed(group);
}

static bool is_led_elsewhere(const struct tr_view *view, const struct tr_group *group)
{
	(void)view;
	return group->leader != 0 && group->preferred != 0 && group->leader != group->preferred;
}

static size_t count_groups(const struct tr_view *view, group_test *test)
{
	size_t count = 0;
	for (size_t i = 0; i < view->group_count; i++) {
		count += test(view, &view->groups[i]) ? 1 : 0;
	}
	return count;
}

/* "0, 4-7, meta"; beyond RANGES_MAX ranges the rest is a number. */
static void add_ranges(const struct tr_view *view, group_test *test, struct pr_text *out)
{
	size_t ranges = 0, shown = 0;
	for (size_t i = 0; i < view->group_count && ranges < RANGES_MAX; i++) {
		size_t end = i;
		while (end < view->group_count && test(view, &view->groups[end])) {
			end++;
		}
		if (end == i) {
			continue;
		}
		pr_text_printf(out, "%s%s", ranges > 0 ? ", " : "", view->groups[i].name);
		if (end - i > 1) {
			pr_text_printf(out, "-%s", view->groups[end - 1].name);
		}
		ranges++;
		shown += end - i;
		i = end;
	}
	size_t more = count_groups(view, test) - shown;
	if (more > 0) {
		pr_text_printf(out, " and %zu more", more);
	}
}

static void add_those(
	const struct tr_view *view, const char *label, group_test *test, struct pr_text *out)
{
	if (count_groups(view, test) > 0) {
		pr_text_printf(out, "  %-18s  ", label);
		add_ranges(view, test, out);
		pr_text_str(out, "\n");
	}
}

static void add_summary(const struct tr_view *view, struct pr_text *out)
{
	pr_text_printf(out, "%zu groups: %zu led, %zu with all replicas, %zu moving\n",
		view->group_count, count_groups(view, is_led), count_groups(view, is_whole),
		count_groups(view, is_moving));
	add_those(view, "without a leader", is_unled, out);
	add_those(view, "short of replicas", is_short, out);
	add_those(view, "moving", is_moving, out);
	add_those(view, "led by another", is_led_elsewhere, out);
}

/* ---- a line for each ---- */

static void add_replicas(
	const struct tr_view *view, const struct tr_group *group, struct pr_text *out)
{
	size_t begin = out->size;
	for (size_t i = 0; i < group->replica_count; i++) {
		const struct tr_replica *replica = &group->replicas[i];
		const struct tr_member *member = tr_view_member(view, replica->node);
		pr_text_printf(out, "%s%" PRIu64 "%s%s", i > 0 ? " " : "", replica->node,
			replica->voter ? "" : "*", member != NULL && member->reachable ? "" : "!");
		if (replica->lag > 0) {
			pr_text_printf(out, "-%" PRIu64, replica->lag);
		}
	}
	size_t size = out->size - begin;
	pr_text_printf(out, "%*s", size < 20 ? (int)(20 - size) : 0, "");
}

static void add_target(const struct tr_group *group, struct pr_text *out)
{
	size_t begin = out->size;
	for (size_t i = 0; i < group->target_count; i++) {
		pr_text_printf(out, "%s%" PRIu64, i > 0 ? " " : "", group->target[i]);
	}
	size_t size = out->size - begin;
	pr_text_printf(out, "%*s", size < 11 ? (int)(11 - size) : 0, "");
}

/* What its leader still has to do: "+4 -1 vote 3 lead 2". */
static void add_pending(const struct tr_group *group, struct pr_text *out)
{
	const char *blank = "";
	for (size_t i = 0; i < group->target_count; i++) {
		const struct tr_replica *replica = tr_group_replica(group, group->target[i]);
		if (replica == NULL || !replica->voter) {
			pr_text_printf(out, "%s%s%" PRIu64, blank, replica == NULL ? "+" : "vote ",
				group->target[i]);
			blank = " ";
		}
	}
	for (size_t i = 0; i < group->replica_count; i++) {
		if (!tr_group_targets(group, group->replicas[i].node)) {
			pr_text_printf(out, "%s-%" PRIu64, blank, group->replicas[i].node);
			blank = " ";
		}
	}
	if (group->preferred != 0 && group->preferred != group->leader) {
		pr_text_printf(out, "%slead %" PRIu64, blank, group->preferred);
		blank = " ";
	}
	pr_text_str(out, blank[0] != '\0' ? "\n" : group->moving ? "ending\n" : "-\n");
}

static void add_groups(const struct tr_view *view, struct pr_text *out)
{
	pr_text_printf(out, "\n%5s  %6s  %6s  %12s  %-20s  %-11s  %s\n", "SHARD", "LEADER", "TERM",
		"COMMIT", "REPLICAS", "TARGET", "PENDING");
	for (size_t i = 0; i < view->group_count; i++) {
		const struct tr_group *group = &view->groups[i];
		char leader[24] = "-";
		if (group->leader != 0) {
			snprintf(leader, sizeof(leader), "%" PRIu64, group->leader);
		}
		pr_text_printf(out, "%5s  %6s  %6" PRIu64 "  %12" PRIu64 "  ", group->name, leader,
			group->term, group->commit);
		add_replicas(view, group, out);
		pr_text_str(out, "  ");
		add_target(group, out);
		pr_text_str(out, "  ");
		add_pending(group, out);
	}
	pr_text_str(out, "replicas: 2*: without a vote yet; 2!: not reachable; 2-40: 40 records "
			 "behind\n");
}

void tr_table_add(const struct tr_view *view, bool groups, struct pr_text *out)
{
	add_head(view, out);
	add_members(view, out);
	add_summary(view, out);
	if (groups) {
		add_groups(view, out);
	}
}
