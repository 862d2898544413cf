#include "tests/support/seeds.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/hash.h"

#define JOBS_MAX  64u
#define SEEDS_MAX 4096u /* of a file */

struct shared {
	_Atomic uint64_t next;
	uint64_t seed[JOBS_MAX];
	uint64_t stats[JOBS_MAX][SEEDS_STATS];
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
static struct seeds_trace *traces[JOBS_MAX];
static const struct seeds_program *program;

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

/* ---- the trace ---- */
static void keep(struct seeds_trace *trace, const char *line, size_t size)
{
	if (trace->digest) {
		trace->hash = rt_hash_mix(trace->hash * 31 + rt_hash(line, size));
	}
	if (trace->print) {
		fwrite(line, 1, size, stdout);
	}
	if (trace->digest || trace->print) {
		return;
	}
	for (size_t i = 0; i < size; i++) {
		trace->ring[(trace->end + i) % SEEDS_RING] = line[i];
	}
	trace->end += size;
}

void seeds_line(struct seeds_trace *trace, uint64_t now_us, const char *format, va_list args)
{
	char line[512];
	int head = snprintf(line, sizeof(line), "%5" PRIu64 ".%06" PRIu64 " ", now_us / SEEDS_US(1),
		now_us % SEEDS_US(1));
	int body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
	size_t size = (size_t)(head + body);
	if (size > sizeof(line) - 2) {
		size = sizeof(line) - 2;
	}
	line[size++] = '\n';
	keep(trace, line, size);
}

/* A line starts with its time: "   12.345678 ". */
static uint64_t line_time(const char *line)
{
	char *end;
	uint64_t seconds = strtoull(line, &end, 10);
	return *end == '.' ? SEEDS_US(seconds) + strtoull(end + 1, NULL, 10) : 0;
}

/* Lines of the last `us` before the failure. */
static void dump(const struct seeds_trace *trace, uint64_t us, FILE *out)
{
	uint64_t size = trace->end < SEEDS_RING ? trace->end : SEEDS_RING;
	char *text = malloc(size + 1);
	if (text == NULL) {
		return;
	}
	uint64_t newest = 0;
	uint64_t line = 0;
	for (uint64_t i = 0; i < size; i++) {
		text[i] = trace->ring[(trace->end - size + i) % SEEDS_RING];
		text[i + 1] = 0;
		if (text[i] == '\n') {
			newest = line_time(text + line);
			line = i + 1;
		}
	}
	line = 0;
	for (uint64_t i = 0; i < size; i++) {
		if (text[i] == '\n') {
			if (line_time(text + line) + us >= newest) {
				fwrite(text + line, 1, i + 1 - line, out);
			}
			line = i + 1;
		}
	}
	free(text);
}

RT_NORETURN void seeds_failed(struct seeds_trace *trace, uint64_t seed, const char *shape,
	uint64_t now_us, const char *text)
{
	snprintf(trace->failure, sizeof(trace->failure), "seed %" PRIu64 " (%s) at %.6f: %s", seed,
		shape, (double)now_us / 1e6, text);
	fflush(NULL);
	_exit(SEEDS_EXIT_BAD);
}

/* ---- one seed ---- */
static void run_seed(uint64_t seed, uint64_t *stats, struct seeds_trace *trace)
{
	trace->on = trace->on || opt.verbose || opt.digest;
	trace->print = opt.verbose;
	trace->digest = opt.digest;
	trace->hash = 0;
	program->run(seed, opt.leaning, stats, trace);
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
		run_seed(shared->seed[slot], shared->stats[slot], traces[slot]);
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
static void say_how(uint64_t seed, int status, const struct seeds_trace *trace)
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
	struct seeds_trace *trace = map(sizeof(*trace) + SEEDS_RING);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		uint64_t stats[SEEDS_STATS] = {0};
		opt.verbose = opt.digest = false;
		trace->on = true;
		run_seed(seed, stats, trace);
		exit(0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	dump(trace, SEEDS_US(opt.trace_seconds), stdout);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("seed %" PRIu64 " did not fail again: it is not deterministic\n", seed);
	}
	munmap(trace, sizeof(*trace) + SEEDS_RING);
}

/* ---- the parent ---- */
static void say_sum(double began, uint32_t failed, FILE *out)
{
	uint64_t sum[SEEDS_STATS] = {0};
	for (uint32_t i = 0; i < opt.jobs; i++) {
		for (uint32_t k = 0; k < program->stat_count; k++) {
			sum[k] += shared->stats[i][k];
		}
	}
	double took = seconds() - began;
	fprintf(out, "%" PRIu64 " seeds, %u failed, %.1f s, %.0f seeds/s:", sum[0], failed, took,
		(double)sum[0] / took);
	for (uint32_t k = 0; k < program->stat_count; k++) {
		fprintf(out, " %s %" PRIu64, program->stats[k], sum[k]);
	}
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

/* Waits for a job to end, with lines of progress meanwhile. SIGCHLD is blocked, so that one that
 * ends between the two calls is not missed. */
static pid_t wait_for_any(int *status, double began, uint32_t failed)
{
	const struct timespec patience = {.tv_sec = opt.progress_seconds};
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		pid_t pid = waitpid(-1, status, opt.progress_seconds > 0 ? WNOHANG : 0);
		if (pid != 0) {
			return pid;
		}
		if (sigtimedwait(&child, NULL, &patience) < 0) {
			say_sum(began, failed, stderr);
		}
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

int seeds_main(int argc, char **argv, const struct seeds_program *what)
{
	program = what;
	RT_ASSERT(what->stat_count > 0 && what->stat_count <= SEEDS_STATS);
	sigset_t child;
	parse(argc, argv);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	RT_ASSERT(sigprocmask(SIG_BLOCK, &child, NULL) == 0);
	shared = map(sizeof(*shared));
	for (uint32_t i = 0; i < opt.jobs; i++) {
		traces[i] = map(sizeof(*traces[i]) + SEEDS_RING);
	}
	double began = seconds();
	uint32_t failed = run_all(began);
	if (!opt.digest) {
		say_sum(began, failed, stdout);
	}
	return failed > 0 ? 1 : 0;
}
