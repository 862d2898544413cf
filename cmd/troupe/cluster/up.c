/* troupe cluster up: a whole cluster on this machine, for trying out and for tests. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/troupe/cluster/ask.h"
#include "cmd/troupe/cluster/child.h"
#include "cmd/troupe/cluster/commands.h"
#include "cmd/troupe/cluster/ports.h"
#include "cmd/troupe/cluster/table.h"
#include "runtime/base/clock.h"

#define READY_WITHIN_MS 60000u
#define EVEN_WITHIN_MS  60000u
#define STOP_WITHIN_MS  10000u
#define LOOK_EVERY_MS   250u
#define LOOK_WITHIN_MS  1000u
#define ARGS_MAX        64u
#define URL_ROOM        40u
/* A node is one hop away from the others here, so silence means more than between machines. */
#define ELECTION_MS     "300"
#define HEARTBEAT_MS    "50"

struct up_node {
	struct tr_child child;
	char data[512], rpc[URL_ROOM], peer[URL_ROOM];
	bool old; /* its folder is from an earlier time */
	bool joins, started;
};

struct up {
	const struct tr_options *options;
	const char *dir;
	char trouped[PATH_MAX];
	struct up_node nodes[TR_NODES_MAX];
	size_t count;
	char urls[TR_NODES_MAX * URL_ROOM];
	int signals;     /* signalfd */
	unsigned stops;  /* how often somebody said stop */
	bool killed;     /* at least one had to be */
	sigset_t before; /* signal mask */
};

/* ---- what is there ---- */

static bool is_filled(const char *path)
{
	DIR *dir = opendir(path);
	bool filled = false;
	for (struct dirent *entry = dir != NULL ? readdir(dir) : NULL; /* NOLINT: one thread */
		entry != NULL; entry = readdir(dir)) {                 /* NOLINT: one thread */
		filled = filled || entry->d_name[0] != '.';
	}
	if (dir != NULL) {
		closedir(dir);
	}
	return filled;
}

static rt_err make_folder(const char *path, struct rt_errinfo *info)
{
	if (mkdir(path, 0777) != 0 && errno != EEXIST) {
		return rt_errinfo_set(info, RT_E_IO, "%s: %m", path);
	}
	return RT_OK;
}

/* Beside this program: installed, or in a build tree. Else PATH has to know it. */
static void find_trouped(const char *given, char *out, size_t room)
{
	static const char *const places[] = {"trouped", "../trouped/trouped"};
	char self[PATH_MAX];
	snprintf(out, room, "%s", given != NULL ? given : "trouped");
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (given != NULL || size <= 0) {
		return;
	}
	self[size] = '\0';
	char *slash = strrchr(self, '/');
	for (size_t i = 0; slash != NULL && i < sizeof(places) / sizeof(places[0]); i++) {
		char path[PATH_MAX + 32];
		snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - self), self, places[i]);
		if (access(path, X_OK) == 0 && strlen(path) < room) {
			snprintf(out, room, "%s", path);
			return;
		}
	}
}

/* The first node founds the cluster, unless there is one already: then it is found by its oldest
 * node, and who is new joins that. */
static size_t founder_of(const struct up *up)
{
	for (size_t i = 0; i < up->count; i++) {
		if (up->nodes[i].old) {
			return i;
		}
	}
	return 0;
}

static rt_err name_node(
	const struct up *up, uint8_t number, struct up_node *out, struct rt_errinfo *info)
{
	char name[TR_CHILD_NAME];
	out->child.out = -1;
	snprintf(name, sizeof(name), "n%u", number);
	int data = snprintf(out->data, sizeof(out->data), "%s/%s", up->dir, name);
	int log = snprintf(
		out->child.log_path, sizeof(out->child.log_path), "%s/%s.log", up->dir, name);
	if (data >= (int)sizeof(out->data) || log >= (int)sizeof(out->child.log_path)) {
		return rt_errinfo_set(info, RT_E_INVAL, "--dir: too long");
	}
	memcpy(out->child.name, name, sizeof(name));
	out->old = is_filled(out->data);
	return RT_OK;
}

static rt_err name_nodes(struct up *up, struct rt_errinfo *info)
{
	rt_err err = RT_OK;
	for (size_t i = 0; err == RT_OK && i < up->count; i++) {
		err = name_node(up, (uint8_t)(i + 1), &up->nodes[i], info);
	}
	if (err != RT_OK) {
		return err;
	}
	size_t founder = founder_of(up);
	for (size_t i = 0; i < up->count; i++) {
		up->nodes[i].joins = i != founder;
	}
	return RT_OK;
}

static void warn_of_others(const struct up *up)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/n%zu", up->dir, up->count + 1);
	if (is_filled(path)) {
		fprintf(stderr,
			"troupe: %s was a node of this cluster, too, and stays down; shards that "
			"need it do not serve\n",
			path);
	}
}

static rt_err settle_ports(struct up *up, struct rt_errinfo *info)
{
	struct tr_ports ports[TR_NODES_MAX];
	char file[600];
	snprintf(file, sizeof(file), "%s/ports", up->dir);
	rt_err err = tr_ports_settle(file, up->count, up->options->base_port, ports, info);
	for (size_t i = 0; err == RT_OK && i < up->count; i++) {
		struct up_node *node = &up->nodes[i];
		size_t used = strlen(up->urls);
		snprintf(node->rpc, sizeof(node->rpc), "tcp://127.0.0.1:%u", ports[i].rpc);
		snprintf(node->peer, sizeof(node->peer), "tcp://127.0.0.1:%u", ports[i].peer);
		snprintf(up->urls + used, sizeof(up->urls) - used, "%s%s", i > 0 ? "," : "",
			node->rpc);
	}
	return err;
}

static rt_err prepare(struct up *up, struct rt_errinfo *info)
{
	find_trouped(up->options->trouped, up->trouped, sizeof(up->trouped));
	rt_err err = make_folder(up->dir, info);
	if (err == RT_OK) {
		err = name_nodes(up, info);
	}
	if (err == RT_OK) {
		warn_of_others(up);
		err = settle_ports(up, info);
	}
	return err;
}

/* ---- events ---- */

static void take_signals(struct up *up)
{
	struct signalfd_siginfo signal;
	while (read(up->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		if (signal.ssi_signo != SIGCHLD) {
			up->stops++;
		}
	}
}

static void say_ended(const struct up *up, const struct up_node *node)
{
	const struct tr_child *child = &node->child;
	char ending[64];
	tr_child_ending(child, ending, sizeof(ending));
	if (up->stops == 0) {
		fprintf(stderr, "troupe: %s %s; %s has more%s%s\n", child->name, ending,
			child->log_path, child->last[0] != '\0' ? ": " : "", child->last);
	} else if (child->status != 0) {
		fprintf(stderr, "troupe: %s %s\n", child->name, ending);
	}
}

/* Waits for something to happen, at most so long, and takes it in. */
static void pump(struct up *up, uint64_t wait_ms)
{
	struct pollfd polls[TR_NODES_MAX + 1] = {{.fd = up->signals, .events = POLLIN}};
	for (size_t i = 0; i < up->count; i++) {
		polls[i + 1] = (struct pollfd){.fd = up->nodes[i].child.out, .events = POLLIN};
	}
	if (poll(polls, up->count + 1, (int)wait_ms) < 0 && errno != EINTR) {
		up->stops++; /* cannot happen; without it we would spin */
	}
	take_signals(up);
	for (size_t i = 0; i < up->count; i++) {
		struct up_node *node = &up->nodes[i];
		bool was_ready = node->child.ready;
		if (node->child.out >= 0) {
			tr_child_read(&node->child);
		}
		if (tr_child_reap(&node->child)) {
			say_ended(up, node);
		} else if (node->child.ready && !was_ready) {
			fprintf(stderr, "troupe: %s serves at %s\n", node->child.name, node->rpc);
		}
	}
}

static uint64_t now_ms(void)
{
	return rt_clock_now_ns() / 1000000;
}

static size_t running(const struct up *up)
{
	size_t count = 0;
	for (size_t i = 0; i < up->count; i++) {
		count += up->nodes[i].child.pid != 0 ? 1 : 0;
	}
	return count;
}

/* ---- start ---- */

static size_t add_words(const char **argv, size_t at, const char *const *words)
{
	for (; *words != NULL; words++) {
		argv[at++] = *words;
	}
	return at;
}

static rt_err start_node(struct up *up, struct up_node *node, struct rt_errinfo *info)
{
	const char *argv[ARGS_MAX];
	const char *const own[] = {up->trouped, "--data", node->data, "--rpc", node->rpc,
		"--cluster", node->peer, "--name", node->child.name, "--election-ms", ELECTION_MS,
		"--heartbeat-ms", HEARTBEAT_MS, NULL};
	const char *const join[] = {"--join", up->nodes[founder_of(up)].rpc, NULL};
	size_t at = add_words(argv, 0, own);
	if (node->joins) {
		at = add_words(argv, at, join);
	}
	for (size_t i = 0; i < up->options->rest_count; i++) {
		argv[at++] = up->options->rest[i];
	}
	argv[at] = NULL;
	return tr_child_start(&node->child, argv, info);
}

/* Waits for all that were started. False: one has ended or takes too long, or we are to stop. */
static bool wait_ready(struct up *up)
{
	uint64_t deadline = now_ms() + READY_WITHIN_MS;
	for (;;) {
		const struct up_node *missing = NULL;
		for (size_t i = 0; i < up->count; i++) {
			const struct up_node *node = &up->nodes[i];
			if (node->started && node->child.pid == 0) {
				return false; /* has been said */
			}
			if (node->started && !node->child.ready) {
				missing = node;
			}
		}
		uint64_t now = now_ms();
		if (missing == NULL || up->stops > 0) {
			return up->stops == 0;
		}
		if (now >= deadline) {
			fprintf(stderr, "troupe: %s is not ready after %u s; see %s\n",
				missing->child.name, READY_WITHIN_MS / 1000,
				missing->child.log_path);
			return false;
		}
		pump(up, deadline - now);
	}
}

static bool start_one(struct up *up, struct up_node *node)
{
	struct rt_errinfo info = {0};
	node->started = true;
	if (start_node(up, node, &info) != RT_OK) {
		fprintf(stderr, "troupe: %s\n", info.text);
		return false;
	}
	return true;
}

/* Whoever has data first and all at once, since alone none of them may have a quorum; then who is
 * new, one by one, so that their numbers are in the order of their names. */
static bool start_all(struct up *up)
{
	size_t founder = founder_of(up);
	for (size_t i = 0; i < up->count; i++) {
		struct up_node *node = &up->nodes[i];
		if ((node->old || i == founder) && !start_one(up, node)) {
			return false;
		}
	}
	bool good = wait_ready(up);
	for (size_t i = 0; good && i < up->count; i++) {
		struct up_node *node = &up->nodes[i];
		good = node->started || (start_one(up, node) && wait_ready(up));
	}
	return good;
}

/* ---- until the shards are spread ---- */

static void say_progress(const struct tr_view *view, size_t nodes, char *text, size_t room)
{
	size_t reachable = 0, placed = 0, led = 0;
	for (size_t i = 0; i < view->member_count; i++) {
		reachable += view->members[i].reachable ? 1 : 0;
	}
	for (size_t i = 0; i < view->group_count; i++) {
		const struct tr_group *group = &view->groups[i];
		placed += tr_group_is_placed(group) &&
					  group->target_count >= tr_view_copies(view, nodes)
				  ? 1
				  : 0;
		led += group->leader != 0 && group->leader == group->preferred ? 1 : 0;
	}
	snprintf(text, room,
		"%zu of %zu nodes are reachable; of %zu groups %zu have all replicas, %zu are led "
		"by who should",
		reachable, nodes, view->group_count, placed, led);
}

/* True: all is spread. False: not yet; text says how far it is. */
static bool look(
	struct troupe_client *client, size_t nodes, struct tr_view *view, char *text, size_t room)
{
	struct troupe_call call = tr_cluster_call("status", "");
	struct rt_errinfo info = {0};
	struct troupe_answer answer;
	call.timeout_ms = LOOK_WITHIN_MS;
	bool even = false;
	tr_view_done(view);
	if (troupe_client_call(client, &call, &answer) != TROUPE_OK) {
		snprintf(text, room, "no status: %s",
			answer.error[0] != '\0' ? answer.error : troupe_code_name(answer.code));
	} else if (tr_view_read(rt_bytes_of(answer.payload, answer.payload_size), view, &info) !=
		   RT_OK) {
		snprintf(text, room, "%.200s", info.text);
	} else {
		say_progress(view, nodes, text, room);
		even = tr_view_is_even(view, nodes);
	}
	troupe_answer_free(&answer);
	return even;
}

static bool wait_even(struct up *up, struct troupe_client *client, struct tr_view *view)
{
	uint64_t deadline = now_ms() + EVEN_WITHIN_MS;
	char text[300] = "", last[300] = "";
	while (up->stops == 0 && running(up) > 0) {
		if (look(client, up->count, view, text, sizeof(text))) {
			return true;
		}
		if (strcmp(text, last) != 0) {
			fprintf(stderr, "troupe: %s\n", text);
			snprintf(last, sizeof(last), "%s", text);
		}
		if (now_ms() >= deadline) {
			fprintf(stderr, "troupe: the shards are not spread evenly after %u s\n",
				EVEN_WITHIN_MS / 1000);
			return view->root != NULL;
		}
		pump(up, LOOK_EVERY_MS);
	}
	return false;
}

/* ---- what people see ---- */

static void print_nodes(const struct up *up, const struct tr_view *view)
{
	printf("%-5s  %-22s  %8s  %8s  %7s  %s\n", "NODE", "RPC", "PID", "REPLICAS", "LEADERS",
		"LOG");
	for (size_t i = 0; i < up->count; i++) {
		const struct up_node *node = &up->nodes[i];
		const struct tr_member *member = tr_view_find(view, node->child.name, NULL);
		printf("%-5s  %-22s  %8d  %8" PRIu64 "  %7" PRIu64 "  %s\n", node->child.name,
			node->rpc, (int)node->child.pid, member != NULL ? member->replicas : 0,
			member != NULL ? member->leaders : 0, node->child.log_path);
	}
}

static void print_screen(const struct up *up, const struct tr_view *view)
{
	printf("A cluster of %zu: %" PRIu64 " shards, %" PRIu64 " replicas of each, data in %s\n",
		up->count, view->shards, tr_view_copies(view, up->count), up->dir);
	print_nodes(up, view);
	printf("Try it in another terminal:\n"
	       "  export TROUPE_URL=%s\n"
	       "  troupe send account/alice Open\n"
	       "  troupe cluster status --watch\n"
	       "  kill -9 %d            and see who leads instead\n"
	       "  troupe cluster check\n"
	       "Stop all with Ctrl-C.\n"
	       "ready %s\n",
		up->urls, (int)up->nodes[up->count - 1].child.pid, up->urls);
	fflush(stdout);
}

/* ---- the end ---- */

static void signal_all(const struct up *up, int number)
{
	for (size_t i = 0; i < up->count; i++) {
		tr_child_signal(&up->nodes[i].child, number);
	}
}

/* All at once, then a limit; who is told a second time means it. */
static void stop(struct up *up)
{
	uint64_t deadline = now_ms() + STOP_WITHIN_MS;
	unsigned stops = up->stops;
	if (running(up) > 0) {
		fprintf(stderr, "troupe: stopping %zu nodes\n", running(up));
	}
	up->stops += up->stops == 0 ? 1 : 0;
	signal_all(up, SIGTERM);
	while (running(up) > 0) {
		uint64_t now = now_ms();
		if (up->stops > (stops == 0 ? 1 : stops) || now >= deadline) {
			up->killed = true;
			signal_all(up, SIGKILL);
			deadline = now + STOP_WITHIN_MS;
			stops = up->stops;
		}
		pump(up, deadline > now ? deadline - now : 0);
	}
}

static void catch_signals(struct up *up)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &signals, &up->before);
	up->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

static enum tr_exit serve(struct up *up)
{
	struct tr_options there = *up->options;
	struct tr_view view = {0};
	there.url = up->urls;
	struct troupe_client *client = tr_client_open(&there);
	if (client == NULL) {
		return TR_UNAVAILABLE;
	}
	bool even = wait_even(up, client, &view);
	troupe_client_close(client);
	if (even) {
		print_screen(up, &view);
	}
	tr_view_done(&view);
	while (even && up->stops == 0 && running(up) > 0) {
		pump(up, UINT32_MAX / 4);
	}
	return up->stops > 0 ? TR_DONE : TR_UNAVAILABLE;
}

static enum tr_exit run(struct up *up)
{
	enum tr_exit code = TR_UNAVAILABLE;
	catch_signals(up);
	if (start_all(up)) {
		code = serve(up);
	} else if (up->stops > 0) {
		code = TR_DONE;
	}
	stop(up);
	for (size_t i = 0; i < up->count; i++) {
		tr_child_done(&up->nodes[i].child);
	}
	close(up->signals);
	pthread_sigmask(SIG_SETMASK, &up->before, NULL);
	return up->killed ? TR_UNAVAILABLE : code;
}

/* Options that differ from node to node are ours. */
static bool check_rest(const struct tr_options *options)
{
	static const char *const ours[] = {"--data", "--rpc", "--cluster", "--name", "--join"};
	if (options->rest_count > ARGS_MAX - 20) {
		fprintf(stderr, "troupe: too many options for trouped\n");
		return false;
	}
	for (uint64_t i = 0; i < options->rest_count; i++) {
		for (size_t j = 0; j < sizeof(ours) / sizeof(ours[0]); j++) {
			size_t size = strlen(ours[j]);
			const char *word = options->rest[i];
			if (strncmp(word, ours[j], size) == 0 &&
				(word[size] == '\0' || word[size] == '=')) {
				fprintf(stderr, "troupe: cluster up sets %s itself\n", ours[j]);
				return false;
			}
		}
	}
	return true;
}

enum tr_exit tr_cluster_up(const struct tr_options *options)
{
	char *end = NULL;
	struct rt_errinfo info = {0};
	unsigned long count = strtoul(options->words[0], &end, 10);
	if (options->words[0][0] < '0' || options->words[0][0] > '9' || *end != '\0' ||
		count == 0 || count > TR_NODES_MAX) {
		fprintf(stderr, "troupe: expected how many nodes, 1 to %u, found \"%s\"\n",
			TR_NODES_MAX, options->words[0]);
		return TR_USAGE;
	}
	if (!check_rest(options)) {
		return TR_USAGE;
	}
	struct up *up = calloc(1, sizeof(*up));
	if (up == NULL) {
		fprintf(stderr, "troupe: out of memory\n");
		return TR_UNAVAILABLE;
	}
	up->options = options;
	up->dir = options->dir != NULL ? options->dir : "./cluster";
	up->count = count;
	enum tr_exit code = TR_USAGE;
	if (prepare(up, &info) == RT_OK) {
		code = run(up);
	} else {
		fprintf(stderr, "troupe: %s\n", info.text);
	}
	free(up);
	return code;
}
