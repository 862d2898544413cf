/* troupe cluster drain, move, remove and configure: what an operator decides. */
#include <inttypes.h>
#include <time.h>

#include "cmd/troupe/cluster/ask.h"
#include "cmd/troupe/cluster/commands.h"
#include "cmd/troupe/cluster/table.h"

#define LOOK_EVERY_MS 500

/* The node of a word, by a look at the cluster. 0: said on standard error why not. */
static uint64_t node_of(const struct tr_view *view, const char *word)
{
	struct rt_errinfo info = {0};
	const struct tr_member *member = tr_view_find(view, word, &info);
	if (member == NULL) {
		fprintf(stderr, "troupe: %s\n", info.text);
	}
	return member != NULL ? member->node : 0;
}

/* Which node the word names in the cluster that answers. */
static enum tr_exit find_node(const struct tr_options *options, const char *word, uint64_t *out)
{
	struct tr_view view;
	enum tr_exit code = tr_cluster_look(options, &view);
	if (code == TR_DONE) {
		*out = node_of(&view, word);
		code = *out != 0 ? TR_DONE : TR_USAGE;
		tr_view_done(&view);
	}
	return code;
}

/* ---- drain ---- */

static void pause_ms(long ms)
{
	struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	while (nanosleep(&left, &left) != 0) {
	}
}

/* One look at a draining node. TR_DONE with *out_left: it is gone. */
static enum tr_exit see_drain(const struct tr_options *options, struct troupe_client *client,
	uint64_t node, uint64_t *replicas, bool *out_left)
{
	struct tr_view view;
	char name[80];
	enum tr_exit code = tr_cluster_view(options, client, &view);
	if (code != TR_DONE) {
		fprintf(stderr, "troupe: the drain goes on without us\n");
		return code;
	}
	const struct tr_member *member = tr_view_member(&view, node);
	*out_left = member == NULL || tr_member_is(member, "left");
	if (member != NULL) {
		tr_table_member(member, name, sizeof(name));
		if (*out_left) {
			fprintf(stderr, "troupe: %s has left\n", name);
		} else if (!tr_member_is(member, "draining")) {
			fprintf(stderr, "troupe: %s drains no longer; it is %s\n", name,
				member->state);
			code = TR_REFUSED;
		} else if (member->replicas != *replicas) {
			fprintf(stderr, "troupe: %s: %" PRIu64 " replicas left\n", name,
				member->replicas);
		}
		*replicas = member->replicas;
	}
	tr_view_done(&view);
	return code;
}

static enum tr_exit wait_drained(const struct tr_options *options, uint64_t node)
{
	uint64_t replicas = UINT64_MAX;
	bool left = false;
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	enum tr_exit code = see_drain(options, client, node, &replicas, &left);
	while (code == TR_DONE && !left) {
		pause_ms(LOOK_EVERY_MS);
		code = see_drain(options, client, node, &replicas, &left);
	}
	troupe_client_close(client);
	return code;
}

enum tr_exit tr_cluster_drain(const struct tr_options *options)
{
	uint64_t node = 0;
	char json[96];
	if (options->cancel && options->wait) {
		fprintf(stderr, "troupe: --cancel ends at once; there is nothing to --wait for\n");
		return TR_USAGE;
	}
	enum tr_exit code = find_node(options, options->words[0], &node);
	if (code == TR_DONE) {
		snprintf(json, sizeof(json), "{\"node\":%" PRIu64 ",\"cancel\":%s}", node,
			options->cancel ? "true" : "false");
		code = tr_cluster_command(options, "Drain", json);
	}
	return code == TR_DONE && options->wait ? wait_drained(options, node) : code;
}

/* ---- the others ---- */

enum tr_exit tr_cluster_move(const struct tr_options *options)
{
	struct tr_view view;
	struct rt_errinfo info = {0};
	char json[96];
	enum tr_exit code = tr_cluster_look(options, &view);
	if (code != TR_DONE) {
		return code;
	}
	const struct tr_group *group = tr_view_shard(&view, options->words[0], &info);
	if (group == NULL) {
		fprintf(stderr, "troupe: %s\n", info.text);
	}
	uint64_t node = group != NULL ? node_of(&view, options->words[1]) : 0;
	if (node != 0) {
		snprintf(json, sizeof(json), "{\"shard\":%" PRIu32 ",\"node\":%" PRIu64 "}",
			group->shard, node);
	}
	tr_view_done(&view);
	return node != 0 ? tr_cluster_command(options, "Move", json) : TR_USAGE;
}

enum tr_exit tr_cluster_remove(const struct tr_options *options)
{
	uint64_t node = 0;
	char json[48];
	enum tr_exit code = find_node(options, options->words[0], &node);
	if (code != TR_DONE) {
		return code;
	}
	snprintf(json, sizeof(json), "{\"node\":%" PRIu64 "}", node);
	return tr_cluster_command(options, "Remove", json);
}

static bool is_at_most(const char *flag, uint64_t value, uint64_t most)
{
	if (value > most) {
		fprintf(stderr, "troupe: --%s: at most %" PRIu64 "\n", flag, most);
	}
	return value <= most;
}

enum tr_exit tr_cluster_configure(const struct tr_options *options)
{
	char json[128];
	if (options->replication == 0 && options->moves_max == 0 && options->dead_after_s == 0) {
		fprintf(stderr, "troupe: cluster configure needs --replication, --moves-max or "
				"--dead-after\n");
		return TR_USAGE;
	}
	if (!is_at_most("replication", options->replication, 5) ||
		!is_at_most("moves-max", options->moves_max, UINT32_MAX) ||
		!is_at_most("dead-after", options->dead_after_s, UINT32_MAX / 1000)) {
		return TR_USAGE;
	}
	snprintf(json, sizeof(json),
		"{\"replication\":%" PRIu64 ",\"moves_max\":%" PRIu64 ",\"dead_after_ms\":%" PRIu64
		"}",
		options->replication, options->moves_max, options->dead_after_s * 1000);
	return tr_cluster_command(options, "Configure", json);
}
