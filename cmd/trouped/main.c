/* trouped: one node. Wiring, life and death of the process. */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "actors/account/account.h"
#include "actors/calculator/calculator.h"
#include "cmd/trouped/config.h"
#include "cmd/trouped/listener.h"
#include "cmd/trouped/screen.h"
#include "runtime/base/log.h"
#include "sharding/cluster.h"

#define EXIT_USAGE       2
#define EXIT_STORAGE     70
#define READY_WITHIN_MS  30000u
#define READY_STEP_MS    100u
#define STOP_WITHIN_USEC 4700000 /* of the 5 s that a stop may take */

/* ---- what ends the process ---- */

static sem_t something_happened;
static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t late_exit_code;
static _Atomic int failing; /* 0; 1: the reason is being written; 2: it can be read */
static char failure[512];
static _Atomic bool has_left; /* the cluster, on purpose */
static _Atomic int refused;   /* like failing: the cluster does not take this node */
static char refusal[512];

static void on_stop_signal(int number)
{
	if (stop_signal != 0) {
		_Exit(128 + number);
	}
	stop_signal = number;
	sem_post(&something_happened);
}

/* What was acknowledged is on disk; only the flush that spares the next start a replay is missing.
 */
static void on_late(int number)
{
	(void)number;
	_Exit(late_exit_code);
}

static void on_storage_failed(void *arg, const char *why)
{
	(void)arg;
	int none = 0;
	if (atomic_compare_exchange_strong(&failing, &none, 1)) {
		strncpy(failure, why, sizeof(failure) - 1);
		atomic_store(&failing, 2);
		sem_post(&something_happened);
	}
}

static void on_left(void *arg)
{
	(void)arg;
	if (!atomic_exchange(&has_left, true)) {
		sem_post(&something_happened);
	}
}

static void on_refused(void *arg, const char *why)
{
	(void)arg;
	int none = 0;
	if (atomic_compare_exchange_strong(&refused, &none, 1)) {
		strncpy(refusal, why, sizeof(refusal) - 1);
		atomic_store(&refused, 2);
		sem_post(&something_happened);
	}
}

static bool ended(void)
{
	return stop_signal != 0 || atomic_load(&failing) == 2 || atomic_load(&refused) == 2 ||
	       atomic_load(&has_left);
}

static void catch_signal(int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

static void wait_for_the_end(void)
{
	while (!ended()) {
		while (sem_wait(&something_happened) != 0 && errno == EINTR) {
		}
	}
}

static void start_stop_clock(int exit_code)
{
	late_exit_code = exit_code;
	catch_signal(SIGALRM, on_late);
	struct itimerval limit = {.it_value = {.tv_sec = STOP_WITHIN_USEC / 1000000,
					  .tv_usec = STOP_WITHIN_USEC % 1000000}};
	setitimer(ITIMER_REAL, &limit, NULL);
}

/* ---- start ---- */

struct house {
	struct td_config config;
	struct ac_registry *registry;
	struct sh_node *node;
	struct td_listener *listener;
	char join[2048]; /* URLs with commas */
};

static rt_err fill_registry(struct house *house, struct rt_errinfo *info)
{
	rt_err err = ac_registry_new(&house->registry);
	if (err == RT_OK) {
		err = ac_registry_add(house->registry, &account_aggregate, info);
	}
	if (err == RT_OK) {
		err = ac_registry_add(house->registry, &calculator_aggregate, info);
	}
	if (err == RT_OK) {
		err = ac_registry_add(house->registry, &sh_cluster_aggregate, info);
	}
	for (size_t i = 0; err == RT_OK && i < house->config.modules.count; i++) {
		err = ac_registry_load(house->registry, house->config.modules.items[i], info);
		if (err != RT_OK) {
			err = rt_errinfo_wrap(
				info, err, "module %s", house->config.modules.items[i]);
		}
	}
	return err;
}

static rt_err join_urls(struct house *house, struct rt_errinfo *info)
{
	size_t at = 0;
	for (size_t i = 0; i < house->config.join.count; i++) {
		const char *url = house->config.join.items[i];
		size_t room = sizeof(house->join) - at;
		int size = snprintf(house->join + at, room, "%s%s", i == 0 ? "" : ",", url);
		if (size < 0 || (size_t)size >= room) {
			return rt_errinfo_set(info, RT_E_TOOLARGE, "join: too many URLs");
		}
		at += (size_t)size;
	}
	return RT_OK;
}

static rt_err open_node(struct house *house, struct rt_errinfo *info)
{
	const struct td_config *config = &house->config;
	rt_err err = join_urls(house, info);
	if (err != RT_OK) {
		return err;
	}
	const struct sh_node_options options = {
		.dir = config->data,
		.create = config->create,
		.shard_count = (uint32_t)config->shards,
		.workers = (uint32_t)config->workers,
		.entity_memory_bytes = config->memory_bytes,
		.passivate_after_ms = (uint32_t)(config->passivate_s * 1000),
		.snapshot_every = (uint32_t)config->snapshot_every,
		.cluster = {.listen = config->cluster,
			.advertise = config->advertise_cluster,
			.name = config->name,
			.join = config->join.count > 0 ? house->join : NULL,
			.replication = (uint32_t)config->replication,
			.dead_after_ms = (uint32_t)(config->dead_after_s * 1000),
			.election_ms = (uint32_t)config->election_ms,
			.heartbeat_ms = (uint32_t)config->heartbeat_ms,
			.left = on_left,
			.refused = on_refused},
		.failed = on_storage_failed,
	};
	return sh_node_open(&options, house->registry, &house->node, info);
}

static rt_err open_listener(struct house *house, struct rt_errinfo *info)
{
	const struct td_listener_options options = {
		.urls = (const char *const *)house->config.rpc.items,
		.url_count = house->config.rpc.count,
		.node = house->node,
	};
	return td_listener_open(&options, &house->listener, info);
}

/* A connection is a descriptor, and the store keeps its files open. */
static void allow_many_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static rt_err start(struct house *house, struct rt_errinfo *info)
{
	rt_err err = fill_registry(house, info);
	if (err == RT_OK) {
		err = open_node(house, info);
	}
	if (err == RT_OK) {
		err = open_listener(house, info);
	}
	if (err == RT_OK) {
		const char *given = house->config.advertise_rpc;
		sh_node_advertise(
			house->node, given != NULL ? given : td_listener_url(house->listener, 0));
	}
	return err;
}

/* Who starts a node to use it wants to know when it is of use. */
static void wait_until_ready(struct house *house)
{
	uint32_t left_ms = house->config.join.count > 0 ? READY_WITHIN_MS : 0;
	bool ready = sh_node_wait_ready(house->node, 0);
	for (; !ready && left_ms > 0 && !ended(); left_ms -= READY_STEP_MS) {
		ready = sh_node_wait_ready(house->node, READY_STEP_MS);
	}
	if (!ready) {
		rt_log(RT_LOG_WARN, "trouped",
			"not every shard has a leader that is known here yet; calls wait for one");
	}
}

/* Calls under way are answered by the node, and their answers sent before the listener goes. */
static void stop(struct house *house)
{
	sh_node_hand_over(house->node);
	if (house->listener != NULL) {
		td_listener_stop(house->listener);
	}
	/* Clients go on to other nodes when their connections end, which the store takes longer
	 * for. */
	bool answered = sh_node_drain(house->node);
	if (answered) {
		td_listener_close(house->listener);
	}
	sh_node_close(house->node);
	if (!answered) {
		td_listener_close(house->listener);
	}
	if (house->registry != NULL) {
		ac_registry_free(house->registry);
	}
}

static int serve(struct house *house)
{
	struct td_screen screen = {.config = &house->config,
		.registry = house->registry,
		.listener = house->listener,
		.node = house->node};
	sh_node_identity(house->node, &screen.cluster, &screen.number, &screen.peer);
	wait_until_ready(house);
	td_screen_print(&screen, stdout);
	wait_for_the_end();
	if (atomic_load(&failing) == 2) {
		rt_log(RT_LOG_ERROR, "trouped", "storage failed, stopping: %s", failure);
		return EXIT_STORAGE;
	}
	if (atomic_load(&refused) == 2) {
		rt_log(RT_LOG_ERROR, "trouped", "the cluster refuses this node: %s", refusal);
		return EXIT_FAILURE;
	}
	if (atomic_load(&has_left)) {
		rt_log(RT_LOG_INFO, "trouped", "this node has left its cluster; stopping");
		return EXIT_SUCCESS;
	}
	rt_log(RT_LOG_INFO, "trouped", "stopping after signal %d", (int)stop_signal);
	return EXIT_SUCCESS;
}

static int run(struct house *house)
{
	rt_log_set_level(house->config.log_level);
	allow_many_files();
	sem_init(&something_happened, 0, 0);
	catch_signal(SIGTERM, on_stop_signal);
	catch_signal(SIGINT, on_stop_signal);
	struct rt_errinfo info = {0};
	rt_err err = start(house, &info);
	int code = EXIT_FAILURE;
	if (err != RT_OK) {
		fprintf(stderr, "trouped: %s\n",
			info.text[0] != '\0' ? info.text : rt_err_text(err));
	} else {
		code = serve(house);
	}
	start_stop_clock(code);
	stop(house);
	if (atomic_load(&failing) == 2 && code == EXIT_SUCCESS) {
		rt_log(RT_LOG_ERROR, "trouped", "storage failed while stopping: %s", failure);
		code = EXIT_STORAGE;
	}
	if (code == EXIT_SUCCESS) {
		rt_log(RT_LOG_INFO, "trouped", "stopped");
	}
	return code;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* a peer that leaves must not end the node */
	struct house house = {0};
	struct rt_errinfo info = {0};
	int code = EXIT_SUCCESS;
	rt_err err = td_config_read(argc, (const char *const *)argv, &house.config, &info);
	if (house.config.help) {
		td_config_help(stdout);
	} else if (err != RT_OK) {
		fprintf(stderr, "trouped: %s\nTry trouped --help.\n", info.text);
		code = EXIT_USAGE;
	} else if (house.config.version) {
		printf("trouped %s\n", TROUPE_VERSION);
	} else if (house.config.print_config) {
		td_config_print(&house.config, stdout);
	} else {
		code = run(&house);
	}
	td_config_done(&house.config);
	return code;
}
