/*
 * clustersim [-s first] [-n seeds] [-j jobs] [-f file] [-t seconds] [-v] [-k] [-d] [-p seconds] [-l
 * n]
 *
 *   -s -n  seeds first..first+n-1        -f  those of a file too, one a line, # is a comment
 *   -v     one line per event            -t  seconds of the trace that a failure prints, 3
 *   -k     go on after a failed seed     -d  a hash of the whole trace of each seed
 *   -j     processes                     -p  a line of progress every so many seconds
 *   -l     every seed leans the n-th way of shape.c, from 1
 *
 * Each job is a process that takes the next seed. A seed that fails, by a check or by a signal, is
 * run again with its trace. Exit code: 0 all good, 1 something failed, 2 usage.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/log.h"
#include "tests/clustersim/clustersim.h"

#define JOBS_MAX  64u
#define SEEDS_MAX 4096u /* of a file */

struct shared {
	_Atomic uint64_t next;
	uint64_t seed[JOBS_MAX];
	struct cs_stats stats[JOBS_MAX];
};

struct options {
	uint64_t first, count;
	uint32_t jobs, trace_seconds, progress_seconds, leaning;
	bool verbose, keep_going, digest;
	uint64_t file_seeds[SEEDS_MAX];
	uint32_t file_count;
};

static struct options opt = {.first = 1, .count = 0, .jobs = 1, .trace_seconds = 3};
static struct shared *shared;
static struct cs_trace *traces[JOBS_MAX];

static void *map(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RT_ASSERT(at != MAP_FAILED);
	return at;
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- one seed ---- */
static void run_seed(uint64_t seed, struct cs_stats *stats, struct cs_trace *trace)
{
	struct cs *cs = calloc(1, sizeof(*cs));
	RT_ASSERT(cs != NULL);
	cs->seed = seed;
	cs->leaning = opt.leaning;
	cs->stats = stats;
	cs->trace = trace;
	trace->on = trace->on || opt.verbose || opt.digest;
	trace->print = opt.verbose;
	trace->digest = opt.digest;
	trace->hash = 0;
	rt_log_set_level(trace->on ? RT_LOG_INFO : RT_LOG_OFF);
	rt_log_set_sink(cs_trace_log, cs);
	cs_run(cs);
	free(cs);
	if (opt.digest) {
		printf("seed %" PRIu64 " trace %016" PRIx64 "\n", seed, trace->hash);
	}
}

static uint64_t seed_of(uint64_t number)
{
	return number < opt.file_count ? opt.file_seeds[number]
				       : opt.first + (number - opt.file_count);
}

static void job(uint32_t slot)
{
	for (;;) {
		uint64_t number = shared->next++;
		if (number >= opt.count + opt.file_count) {
			break;
		}
		shared->seed[slot] = seed_of(number);
		run_seed(shared->seed[slot], &shared->stats[slot], traces[slot]);
	}
	exit(0);
}

static pid_t start_job(uint32_t slot)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		job(slot);
	}
	RT_ASSERT(pid > 0);
	return pid;
}

/* ---- failures ---- */
static void say_how(uint64_t seed, int status, const struct cs_trace *trace)
{
	if (trace->failure[0] != 0) {
		printf("FAILED %s\n", trace->failure);
	} else if (WIFSIGNALED(status)) {
		printf("FAILED seed %" PRIu64 ": signal %d\n", seed, WTERMSIG(status));
	} else {
		printf("FAILED seed %" PRIu64 ": exit code %d\n", seed, WEXITSTATUS(status));
	}
}

static void run_again(uint64_t seed)
{
	struct cs_trace *trace = map(sizeof(*trace) + CS_TRACE_RING);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct cs_stats stats = {0};
		opt.verbose = opt.digest = false;
		trace->on = true;
		run_seed(seed, &stats, trace);
		exit(0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	cs_trace_dump(trace, CS_S(opt.trace_seconds), stdout);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("seed %" PRIu64 " did not fail again: it is not deterministic\n", seed);
	}
	munmap(trace, sizeof(*trace) + CS_TRACE_RING);
}

/* ---- the parent ---- */
static void add_stats(struct cs_stats *sum, const struct cs_stats *more)
{
#define X(name) sum->name += more->name;
	CS_STATS(X)
#undef X
}

static void say_sum(double began, uint32_t failed, FILE *out)
{
	struct cs_stats sum = {0};
	for (uint32_t i = 0; i < opt.jobs; i++) {
		add_stats(&sum, &shared->stats[i]);
	}
	double took = seconds() - began;
	fprintf(out, "%" PRIu64 " seeds, %u failed, %.1f s, %.0f seeds/s:", sum.seeds, failed, took,
		(double)sum.seeds / took);
#define X(name) fprintf(out, " " #name " %" PRIu64, sum.name);
	CS_STATS(X)
#undef X
	fprintf(out, "\n");
	fflush(out);
}

static uint32_t slot_of(const pid_t *pids, pid_t pid)
{
	for (uint32_t i = 0; i < opt.jobs; i++) {
		if (pids[i] == pid) {
			return i;
		}
	}
	return opt.jobs;
}

static void stop_all(const pid_t *pids)
{
	for (uint32_t i = 0; i < opt.jobs; i++) {
		if (pids[i] > 0) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
	}
}

/* Waits for a job to end, with lines of progress meanwhile. */
static pid_t wait_for_any(int *status, double began, uint32_t failed)
{
	static double next;
	for (;;) {
		bool progress = opt.progress_seconds > 0;
		pid_t pid = waitpid(-1, status, progress ? WNOHANG : 0);
		if (pid != 0) {
			return pid;
		}
		if (seconds() >= next) {
			next = seconds() + opt.progress_seconds;
			say_sum(began, failed, stderr);
		}
		nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
	}
}

static uint32_t run_all(double began)
{
	pid_t pids[JOBS_MAX] = {0};
	uint32_t running = opt.jobs;
	uint32_t failed = 0;
	for (uint32_t i = 0; i < opt.jobs; i++) {
		pids[i] = start_job(i);
	}
	while (running > 0) {
		int status = 0;
		pid_t pid = wait_for_any(&status, began, failed);
		uint32_t slot = slot_of(pids, pid);
		if (slot == opt.jobs) {
			continue;
		}
		pids[slot] = 0;
		running--;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			continue;
		}
		failed++;
		say_how(shared->seed[slot], status, traces[slot]);
		traces[slot]->failure[0] = 0;
		if (!opt.keep_going) {
			stop_all(pids);
			if (!opt.verbose) {
				run_again(shared->seed[slot]);
			}
			return failed;
		}
		pids[slot] = start_job(slot);
		running++;
	}
	return failed;
}

/* ---- options ---- */
static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);
	if (*end != 0 || end == text) {
		fprintf(stderr, "not a number: %s\n", text);
		exit(2);
	}
	return value;
}

static void read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[512];
	if (file == NULL) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(2);
	}
	while (fgets(line, sizeof(line), file) != NULL && opt.file_count < SEEDS_MAX) {
		char *end;
		uint64_t seed = strtoull(line, &end, 10);
		if (end != line) {
			opt.file_seeds[opt.file_count++] = seed;
		}
	}
	fclose(file);
}

static void parse(int argc, char **argv)
{
	int c;
	while ((c = getopt(argc, argv, "s:n:j:f:t:p:l:vkd")) != -1) {
		switch (c) {
		case 's':
			opt.first = number(optarg);
			break;
		case 'n':
			opt.count = number(optarg);
			break;
		case 'j':
			opt.jobs = (uint32_t)number(optarg);
			break;
		case 'f':
			read_file(optarg);
			break;
		case 't':
			opt.trace_seconds = (uint32_t)number(optarg);
			break;
		case 'p':
			opt.progress_seconds = (uint32_t)number(optarg);
			break;
		case 'l':
			opt.leaning = (uint32_t)number(optarg);
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'k':
			opt.keep_going = true;
			break;
		case 'd':
			opt.digest = true;
			break;
		default:
			exit(2);
		}
	}
	opt.jobs = opt.jobs < 1 || opt.jobs > JOBS_MAX ? 1 : opt.jobs;
	opt.count = opt.count == 0 && opt.file_count == 0 ? 100 : opt.count;
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	shared = map(sizeof(*shared));
	for (uint32_t i = 0; i < opt.jobs; i++) {
		traces[i] = map(sizeof(*traces[i]) + CS_TRACE_RING);
	}
	double began = seconds();
	uint32_t failed = run_all(began);
	if (!opt.digest) {
		say_sum(began, failed, stdout);
	}
	return failed > 0 ? 1 : 0;
}
