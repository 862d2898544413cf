/* troupe cluster check: do all replicas hold the same? */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/cluster/ask.h"
#include "cmd/troupe/cluster/commands.h"
#include "cmd/troupe/cluster/hashes.h"
#include "cmd/troupe/cluster/table.h"

struct check {
	const struct tr_options *options;
	struct tr_view view;
	struct tr_hashes *all; /* of the nodes that answered */
	size_t count;
	size_t silent, differing;
};

static void say_not_compared(const struct tr_member *member, const char *why)
{
	char name[80];
	tr_table_member(member, name, sizeof(name));
	fprintf(stderr, "troupe: %s %s; its replicas were not compared\n", name, why);
}

/* Asks one node. What it does not answer is said on standard error. */
static bool ask(struct check *check, const struct tr_member *member, const char *question,
	struct tr_hashes *hashes)
{
	struct tr_options there = *check->options;
	there.url = member->rpc;
	struct troupe_client *client = tr_client_open(&there);
	if (client == NULL) {
		return false;
	}
	const struct troupe_call call = tr_cluster_call("hash", question);
	struct rt_errinfo info = {0};
	struct troupe_answer answer;
	bool good = tr_client_ask(&there, client, &call, &answer) == TR_DONE;
	if (good && tr_hashes_read(hashes, rt_bytes_of(answer.payload, answer.payload_size),
			    &info) != RT_OK) {
		fprintf(stderr, "troupe: %s\n", info.text);
		good = false;
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	return good;
}

/* The hashes of all that each node has. A node that the cluster has given up is no reason to fail,
 * one that only does not answer is. */
static bool ask_all(struct check *check)
{
	const struct tr_view *view = &check->view;
	check->all = calloc(view->member_count + 1, sizeof(*check->all));
	if (check->all == NULL) {
		return false;
	}
	for (size_t i = 0; i < view->member_count; i++) {
		const struct tr_member *member = &view->members[i];
		struct tr_hashes *hashes = &check->all[check->count];
		if (tr_member_is(member, "left")) {
			continue;
		}
		if (tr_member_is(member, "dead")) {
			say_not_compared(member, "is dead");
			continue;
		}
		if (tr_hashes_init(hashes, member->node, view->group_count) != RT_OK) {
			return false;
		}
		if (ask(check, member, "", hashes)) {
			check->count++;
		} else {
			tr_hashes_done(hashes);
			say_not_compared(member, "did not answer");
			check->silent++;
		}
	}
	return true;
}

/* The longer ones once more, up to where the shortest ends. The ends are settled before the first
 * question: an answer must not move them. */
static bool ask_again(struct check *check)
{
	struct pr_text *questions = calloc(check->count + 1, sizeof(*questions));
	bool *needed = calloc(check->count + 1, sizeof(*needed));
	bool good = questions != NULL && needed != NULL;
	for (size_t i = 0; good && i < check->count; i++) {
		needed[i] =
			tr_hashes_question(check->all, check->count, &check->all[i], &questions[i]);
		pr_text_add(&questions[i], "", 1);
	}
	for (size_t i = 0; good && i < check->count; i++) {
		const struct tr_member *member = tr_view_member(&check->view, check->all[i].node);
		good = !needed[i] || ask(check, member, questions[i].data, &check->all[i]);
	}
	for (size_t i = 0; questions != NULL && i < check->count; i++) {
		pr_text_clear(&questions[i]);
	}
	free(questions);
	free(needed);
	return good;
}

/* A voter of a shard that has records, on a node that answered and shows none of them. */
static uint64_t missing_at(const struct check *check, const struct tr_group *group)
{
	for (size_t i = 0; i < check->count && group->commit > 0 && !group->moving; i++) {
		const struct tr_replica *replica = tr_group_replica(group, check->all[i].node);
		if (replica != NULL && replica->voter && !check->all[i].of[group->shard].there) {
			return replica->node;
		}
	}
	return 0;
}

static void add_json(
	const struct check *check, const struct tr_group *group, bool equal, struct pr_text *line)
{
	pr_text_printf(line, "{\"shard\":%" PRIu32 ",\"name\":\"%s\",\"equal\":%s,\"replicas\":[",
		group->shard, group->name, equal ? "true" : "false");
	const char *comma = "";
	for (size_t i = 0; i < check->count; i++) {
		const struct tr_hash *hash = &check->all[i].of[group->shard];
		if (hash->there) {
			pr_text_printf(line,
				"%s{\"node\":%" PRIu64 ",\"first\":%" PRIu64 ",\"upto\":%" PRIu64
				",\"hash\":",
				comma, check->all[i].node, hash->first, hash->upto);
			pr_text_json_string(line, rt_bytes_str(hash->hash));
			pr_text_str(line, "}");
			comma = ",";
		}
	}
	pr_text_str(line, "]}");
}

static void add_replicas(
	const struct check *check, const struct tr_group *group, bool equal, struct pr_text *line)
{
	const struct tr_hash *last = NULL;
	const char *comma = " on ";
	for (size_t i = 0; i < check->count; i++) {
		const struct tr_hash *hash = &check->all[i].of[group->shard];
		if (hash->there) {
			pr_text_printf(line, "%s%" PRIu64, comma, check->all[i].node);
			if (!equal) {
				pr_text_printf(line, " (%" PRIu64 " to %" PRIu64 ": %s)",
					hash->first, hash->upto, hash->hash);
			}
			comma = ", ";
			last = hash;
		}
	}
	if (equal && last != NULL) {
		pr_text_printf(line, ": %" PRIu64 " to %" PRIu64 ", %s", last->first, last->upto,
			last->hash);
	}
}

static void report(struct check *check, const struct tr_group *group)
{
	struct pr_text line = {0};
	uint64_t missing = missing_at(check, group);
	bool equal = missing == 0 && tr_hashes_equal(check->all, check->count, group->shard);
	check->differing += equal ? 0 : 1;
	if (check->options->json) {
		add_json(check, group, equal, &line);
	} else {
		pr_text_printf(&line, "shard %-5s  %-7s", group->name, equal ? "equal" : "DIFFERS");
		add_replicas(check, group, equal, &line);
		if (missing != 0) {
			pr_text_printf(&line, "; nothing on %" PRIu64, missing);
		}
	}
	tr_print_line(&line);
	pr_text_clear(&line);
}

static enum tr_exit compare(struct check *check)
{
	if (!ask_all(check)) {
		fprintf(stderr, "troupe: out of memory\n");
		return TR_UNAVAILABLE;
	}
	if (!ask_again(check)) {
		fprintf(stderr, "troupe: nothing was compared\n");
		return TR_UNAVAILABLE;
	}
	for (size_t i = 0; i < check->view.group_count; i++) {
		if (check->view.groups[i].shard < check->view.group_count) {
			report(check, &check->view.groups[i]);
		}
	}
	fprintf(stderr, "troupe: %zu shards on %zu nodes: %zu equal, %zu differ\n",
		check->view.group_count, check->count, check->view.group_count - check->differing,
		check->differing);
	return check->differing > 0 ? TR_REFUSED : check->silent > 0 ? TR_UNAVAILABLE : TR_DONE;
}

enum tr_exit tr_cluster_check(const struct tr_options *options)
{
	struct check check = {.options = options};
	enum tr_exit code = tr_cluster_look(options, &check.view);
	if (code != TR_DONE) {
		return code;
	}
	code = compare(&check);
	for (size_t i = 0; i < check.count; i++) {
		tr_hashes_done(&check.all[i]);
	}
	free(check.all);
	tr_view_done(&check.view);
	return code;
}
