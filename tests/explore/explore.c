/*
 * explore.c - goes through all that can happen to a small group of the real core.
 *
 *     explore [--depth N] [--seconds S] [--memory MB] [--only NAME] [--quick] [--stop] [--list]
 *
 * Each scenario is searched depth first, two steps deeper each time, until its depth or the time is
 * reached or nothing new is left ("whole"), so that a violation is found by a nearly shortest path.
 * What was seen with as many steps left is not entered again. Times are CPU time, per scenario;
 * --quick takes depths and seconds meant for CI. On a violation, a failed assertion too, prints the
 * path and the state of the group after each step, and exits with 1;
 * --stop does so before the other scenarios.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/explore/scenarios.h"

#define DEPTH_MAX 64u

static struct search {
	const struct ex_scenario *scenario;
	uint32_t depth; /* of this round */
	struct ex_world world[DEPTH_MAX + 1];
	struct ex_step path[DEPTH_MAX];
	uint32_t at;    /* steps on the path */
	uint64_t *seen; /* hash above, steps left below SEEN_BITS */
	uint64_t seen_mask, seen_count;
	uint64_t transitions, states, all_transitions, not_kept;
	double began, seconds;
	bool out_of_time;
	bool cut; /* by the depth: there is more */
} search;

#define LEFT_BITS 6u
#define LEFT_MASK ((1u << LEFT_BITS) - 1)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* True when it was entered before with as many steps left. A full table forgets: more work, no
 * state unseen. */
static bool seen_before(uint64_t hash, uint32_t left)
{
	uint64_t key = hash & ~(uint64_t)LEFT_MASK;
	key = key == 0 ? 1u << LEFT_BITS : key;
	for (uint64_t i = 0, at = hash >> 20; i < 16; i++, at++) {
		uint64_t *slot = &search.seen[at & search.seen_mask];
		if (*slot == 0) {
			*slot = key | left;
			search.states++;
			return false;
		}
		if ((*slot & ~(uint64_t)LEFT_MASK) == key) {
			if ((*slot & LEFT_MASK) >= left) {
				return true;
			}
			*slot = key | left;
			return false;
		}
	}
	search.not_kept++;
	return false;
}

/* ---- a violation ---- */
static void print_path(uint32_t steps)
{
	static struct ex_world world;
	ex_world_init(&world, search.scenario);
	ex_prefix(&world);
	printf("%s: from\n", search.scenario->name);
	ex_print_world(&world);
	for (uint32_t i = 0; i < steps; i++) {
		printf("%3u", i + 1);
		ex_print_step(&world, search.path[i]);
		if (i + 1 < steps || world.bad) {
			ex_apply(&world, search.path[i]);
			ex_print_world(&world);
		}
	}
}

static void report(const char *what)
{
	char reason[256];
	snprintf(reason, sizeof(reason), "%s", what);
	print_path(search.at);
	printf("VIOLATED %s: %s\n", search.scenario->name, reason);
	fflush(stdout);
}

/* A failed assertion of the core. The path leads up to it. */
static void on_abort(int sig)
{
	signal(sig, SIG_DFL);
	report("an assertion failed in the last step");
	_Exit(1);
}

/* ---- the search ---- */
static bool time_is_up(void)
{
	if ((search.transitions & 4095) == 0 && now() - search.began > search.seconds) {
		search.out_of_time = true;
	}
	return search.out_of_time;
}

/* False: violated. */
static bool dive(uint32_t level) // NOLINT(misc-no-recursion)
{
	struct ex_step steps[EX_STEPS];
	uint32_t count = ex_steps(&search.world[level], steps);
	for (uint32_t i = 0; i < count; i++) {
		struct ex_world *next = &search.world[level + 1];
		ex_world_copy(next, &search.world[level]);
		search.path[level] = steps[i];
		search.at = level + 1;
		ex_apply(next, steps[i]);
		search.transitions++;
		if (next->bad) {
			report(ex_reason());
			return false;
		}
		uint32_t left = search.depth - level - 1;
		bool news = !seen_before(ex_hash(next), left);
		search.cut = search.cut || (news && left == 0);
		if (news && left > 0 && !dive(level + 1)) {
			return false;
		}
		if (time_is_up()) {
			return true;
		}
	}
	return true;
}

static bool run(const struct ex_scenario *scenario, uint32_t depth)
{
	search.scenario = scenario;
	search.began = now();
	search.out_of_time = false;
	search.all_transitions = 0;
	uint64_t lost = ex_lost();
	uint32_t done = 0;
	uint64_t states = 0;
	for (search.depth = depth % 2 == 0 ? 4 : 5; search.depth <= depth; search.depth += 2) {
		memset(search.seen, 0, (search.seen_mask + 1) * sizeof(search.seen[0]));
		search.transitions = search.states = search.not_kept = 0;
		search.at = 0;
		search.cut = false;
		ex_world_init(&search.world[0], scenario);
		ex_prefix(&search.world[0]);
		ex_check(&search.world[0]);
		bool good = !search.world[0].bad;
		if (!good) {
			report(ex_reason());
		}
		good = good && dive(0);
		search.all_transitions += search.transitions;
		states = search.states > states ? search.states : states;
		if (!good) {
			return false;
		}
		if (search.out_of_time) {
			break;
		}
		done = search.depth;
		if (!search.cut) {
			break;
		}
	}
	double took = now() - search.began;
	printf("%-10s depth %2u of %2u %11llu states %12llu transitions %7.1f s %5.2f M/s",
		scenario->name, done, depth, (unsigned long long)states,
		(unsigned long long)search.all_transitions, took,
		(double)search.all_transitions / took / 1e6);
	printf("%s", search.out_of_time ? "  cut by time" : search.cut ? "" : "  whole");
	if (ex_lost() > lost) {
		printf("  %llu messages lost", (unsigned long long)(ex_lost() - lost));
	}
	if (search.not_kept > 0) {
		printf("  %llu states forgotten", (unsigned long long)search.not_kept);
	}
	printf("\n");
	fflush(stdout);
	return true;
}

static struct options {
	uint32_t depth;
	double seconds;
	uint64_t memory_mb;
	const char *only;
	bool quick, stop;
} options = {0, 0, 128, NULL, false, false};

/* The scenarios and where they start. */
static void list(void)
{
	for (uint32_t i = 0; i < ex_scenario_count; i++) {
		printf("%s: %s\n", ex_scenarios[i].name, ex_scenarios[i].about);
		ex_world_init(&search.world[0], &ex_scenarios[i]);
		ex_prefix(&search.world[0]);
		ex_print_world(&search.world[0]);
	}
}

static bool parse(int argc, char **argv)
{
	static const struct option names[] = {{"depth", required_argument, NULL, 'd'},
		{"seconds", required_argument, NULL, 's'}, {"memory", required_argument, NULL, 'm'},
		{"only", required_argument, NULL, 'o'}, {"quick", no_argument, NULL, 'q'},
		{"stop", no_argument, NULL, 'x'}, {"list", no_argument, NULL, 'l'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "d:s:m:o:qxl", names, NULL)) != -1;) {
		switch (c) {
		case 'd':
			options.depth = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'm':
			options.memory_mb = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			options.only = optarg;
			break;
		case 'q':
			options.quick = true;
			break;
		case 'x':
			options.stop = true;
			break;
		case 'l':
			list();
			exit(0);
		default:
			return false;
		}
	}
	return options.depth <= DEPTH_MAX && options.memory_mb > 0;
}

int main(int argc, char **argv)
{
	if (!parse(argc, argv)) {
		fprintf(stderr, "explore [--depth N] [--seconds S] [--memory MB] [--only NAME] "
				"[--quick] [--stop] [--list]\n");
		return 2;
	}
	uint64_t slots = 1u << 16;
	while (slots * 2 * sizeof(uint64_t) <= options.memory_mb << 20) {
		slots *= 2;
	}
	search.seen_mask = slots - 1;
	search.seen = malloc(slots * sizeof(uint64_t));
	search.seconds = options.seconds > 0 ? options.seconds : options.quick ? 3 : 600;
	if (search.seen == NULL) {
		return 2;
	}
	signal(SIGABRT, on_abort);
	uint32_t passed = 0;
	uint32_t failed = 0;
	for (uint32_t i = 0; i < ex_scenario_count && !(options.stop && failed > 0); i++) {
		const struct ex_scenario *scenario = &ex_scenarios[i];
		if (options.only != NULL && strcmp(options.only, scenario->name) != 0) {
			continue;
		}
		uint32_t depth = options.quick ? scenario->quick_depth : scenario->depth;
		depth = options.depth > 0 ? options.depth : depth;
		if (run(scenario, depth)) {
			passed++;
		} else {
			failed++;
		}
	}
	printf("%u passed, %u failed\n", passed, failed);
	free(search.seen);
	return failed > 0 || passed == 0;
}
