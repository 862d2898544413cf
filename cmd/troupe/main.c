/* troupe: the command line. The table of subcommands, and which of them runs. */
#include <signal.h>
#include <string.h>

#include "cmd/troupe/cluster/commands.h"
#include "cmd/troupe/commands.h"
#include "runtime/base/log.h"

const struct tr_command tr_commands[] = {
	{"send", "TYPE/ID COMMAND [JSON]", "send a command to an entity",
		"JSON holds the command's fields; - reads it from standard input, nothing means "
		"{}.\n"
		"Prints {\"ok\":true,\"seq\":...} or, with exit code 1, {\"refused\":\"why\"} or\n"
		"{\"conflict\":true,\"seq\":CURRENT}.\n"
		"  troupe send account/alice Deposit '{\"amount\": 1000000}'\n",
		2, 3, TR_FLAG_CLIENT | TR_FLAG_SEND, tr_send},
	{"query", "TYPE/ID QUERY [JSON]", "ask an entity",
		"Sees only what is committed. Writes nothing.\n"
		"  troupe query account/alice Balance\n",
		2, 3, TR_FLAG_CLIENT | TR_FLAG_READ, tr_query},
	{"events", "TYPE/ID", "read an entity's events",
		"One line per event, oldest first.\n"
		"  troupe events account/alice --from 3 --follow\n",
		1, 1, TR_FLAG_CLIENT | TR_FLAG_FROM | TR_FLAG_LIMIT | TR_FLAG_FOLLOW | TR_FLAG_READ,
		tr_events},
	{"state", "TYPE/ID", "show an entity's state", "  troupe state account/alice --at 2\n", 1,
		1, TR_FLAG_CLIENT | TR_FLAG_AT | TR_FLAG_READ, tr_state},
	{"feed", "", "read the events of all entities",
		"In commit order of each shard. Lines carry a position at times: --from the newest "
		"one\n"
		"goes on without a gap.\n"
		"  troupe feed --type account --from end --follow\n",
		0, 0,
		TR_FLAG_CLIENT | TR_FLAG_FROM | TR_FLAG_LIMIT | TR_FLAG_FOLLOW | TR_FLAG_FILTER,
		tr_feed},
	{"types", "", "list the aggregate types", "One line per type.\n", 0, 0, TR_FLAG_CLIENT,
		tr_types},
	{"describe", "TYPE", "show a type's commands, queries, events and their fields",
		"  troupe describe account\n", 1, 1, TR_FLAG_CLIENT, tr_describe},
	{"status", "", "show the node's numbers", "One JSON object.\n", 0, 0, TR_FLAG_CLIENT,
		tr_status},
	{"cluster status", "", "show the nodes of a cluster and where the shards are",
		"With --shards also who leads each, who holds it, who should, and what is still to "
		"do.\n"
		"  troupe cluster status --watch\n",
		0, 0, TR_FLAG_CLIENT | TR_FLAG_STATUS | TR_FLAG_JSON, tr_cluster_status},
	{"cluster drain", "NODE", "take all shards from a node; then it leaves",
		"NODE is its number or name. It goes on serving until others have its shards.\n"
		"Interrupting --wait does not stop the drain.\n"
		"  troupe cluster drain n3 --wait\n",
		1, 1, TR_FLAG_CLIENT | TR_FLAG_DRAIN, tr_cluster_drain},
	{"cluster move", "SHARD NODE", "let a node lead a shard, and hold it if it does not",
		"SHARD is a number, or meta.\n  troupe cluster move 12 n2\n", 2, 2, TR_FLAG_CLIENT,
		tr_cluster_move},
	{"cluster remove", "NODE", "give up a dead or drained node for good",
		"Its number is never used again; its data is not let in again.\n"
		"  troupe cluster remove n3\n",
		1, 1, TR_FLAG_CLIENT, tr_cluster_remove},
	{"cluster configure", "", "change a cluster's settings",
		"  troupe cluster configure --replication 5\n", 0, 0,
		TR_FLAG_CLIENT | TR_FLAG_CONFIGURE, tr_cluster_configure},
	{"cluster check", "", "compare the replicas of all shards",
		"Asks every node for a hash of what it holds, up to where the shortest replica "
		"ends.\n"
		"Exit code 1: some differ. 3: some could not be asked.\n",
		0, 0, TR_FLAG_CLIENT | TR_FLAG_JSON, tr_cluster_check},
	{"cluster up", "N", "run a cluster of N nodes on this machine",
		"Stays until Ctrl-C, which stops all. The same --dir again goes on with the same "
		"cluster.\n"
		"What stands behind -- goes to each trouped.\n"
		"  troupe cluster up 3\n"
		"  troupe cluster up 5 --dir /tmp/five -- --replication 5 --shards 16\n",
		1, 1, TR_FLAG_UP, tr_cluster_up},
	{"verify", "DIR", "check the store of a stopped node",
		"Reads everything with its checksums, and checks the index against the log.\n"
		"Exit code 1: something is wrong; standard error says what.\n"
		"  troupe verify ./troupe-data\n",
		1, 1, 0, tr_verify},
	{"bench", "", "measure durable commands per second",
		"Opens accounts named bench-N on the node, then deposits to random ones.\n", 0, 0,
		TR_FLAG_CLIENT | TR_FLAG_BENCH, tr_bench},
	{"version", "", "print the version", "", 0, 0, 0, NULL},
	{"help", "[COMMAND]", "explain a command", "", 0, 2, 0, NULL},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

static enum tr_exit explain(const char *name)
{
	const struct tr_command *command = tr_command_find(name);
	if (command != NULL && command->run != NULL) {
		tr_command_help(command, stdout);
		return TR_DONE;
	}
	if (command == NULL && tr_command_is_group(name)) {
		tr_group_help(name, stdout);
		return TR_DONE;
	}
	tr_help(command != NULL ? stdout : stderr);
	return command != NULL ? TR_DONE : TR_USAGE;
}

/* troupe help [WORD [WORD]] */
static enum tr_exit help(const struct tr_options *options)
{
	char name[64];
	if (options->word_count == 0) {
		tr_help(stdout);
		return TR_DONE;
	}
	snprintf(name, sizeof(name), "%s%s%s", options->words[0],
		options->word_count > 1 ? " " : "",
		options->word_count > 1 ? options->words[1] : "");
	return explain(name);
}

static enum tr_exit run(const struct tr_options *options)
{
	const struct tr_command *command = options->command;
	if (command == NULL && options->group != NULL) {
		return explain(options->group);
	}
	if (command == NULL) {
		tr_help(options->help ? stdout : stderr);
		return options->help ? TR_DONE : TR_USAGE;
	}
	if (options->help) {
		return explain(command->name);
	}
	if (command->run != NULL) {
		return command->run(options);
	}
	if (strcmp(command->name, "version") == 0) {
		printf("troupe %s\n", TROUPE_VERSION);
		return TR_DONE;
	}
	return help(options);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* a node that goes away is an answer, not our end */
	rt_log_set_level(RT_LOG_WARN);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("troupe %s\n", TROUPE_VERSION);
		return TR_DONE;
	}
	struct tr_options options;
	struct rt_errinfo info = {0};
	if (tr_options_read(argc, (const char *const *)argv, &options, &info) != RT_OK) {
		const char *name = options.command != NULL ? options.command->name : options.group;
		fprintf(stderr, "troupe: %s\nTry troupe %s%s--help.\n", info.text,
			name != NULL ? name : "", name != NULL ? " " : "");
		return TR_USAGE;
	}
	return (int)run(&options);
}
