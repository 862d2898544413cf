/* troupe: the command line. The table of subcommands, and which of them runs. */
#include <signal.h>
#include <string.h>

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
		2, 3, TR_FLAG_CLIENT, tr_query},
	{"events", "TYPE/ID", "read an entity's events",
		"One line per event, oldest first.\n"
		"  troupe events account/alice --from 3 --follow\n",
		1, 1, TR_FLAG_CLIENT | TR_FLAG_FROM | TR_FLAG_LIMIT | TR_FLAG_FOLLOW, tr_events},
	{"state", "TYPE/ID", "show an entity's state", "  troupe state account/alice --at 2\n", 1,
		1, TR_FLAG_CLIENT | TR_FLAG_AT, tr_state},
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
	{"verify", "DIR", "check the store of a stopped node",
		"Reads everything with its checksums, and checks the index against the log.\n"
		"Exit code 1: something is wrong; standard error says what.\n"
		"  troupe verify ./troupe-data\n",
		1, 1, 0, tr_verify},
	{"bench", "", "measure durable commands per second",
		"Opens accounts named bench-N on the node, then deposits to random ones.\n", 0, 0,
		TR_FLAG_CLIENT | TR_FLAG_BENCH, tr_bench},
	{"version", "", "print the version", "", 0, 0, 0, NULL},
	{"help", "[COMMAND]", "explain a command", "", 0, 1, 0, NULL},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};

static enum tr_exit explain(const char *name)
{
	const struct tr_command *command = name != NULL ? tr_command_find(name) : NULL;
	if (command != NULL && command->run != NULL) {
		tr_command_help(command, stdout);
		return TR_DONE;
	}
	tr_help(name == NULL || command != NULL ? stdout : stderr);
	return name == NULL || command != NULL ? TR_DONE : TR_USAGE;
}

static enum tr_exit run(const struct tr_options *options)
{
	const struct tr_command *command = options->command;
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
	return explain(options->words[0]);
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
		fprintf(stderr, "troupe: %s\nTry troupe %s%s--help.\n", info.text,
			options.command != NULL ? options.command->name : "",
			options.command != NULL ? " " : "");
		return TR_USAGE;
	}
	return (int)run(&options);
}
