/*
 * fsfault.c - a preloaded library that makes file system calls of a program under test fail.
 *
 * FS_FAULT   op:mode[:after[:ppm]], several separated by commas.
 *              op     sync (fsync, fdatasync, sync_file_range), write (write, pwrite and their
 *                     vectors), open (creating), rename, alloc (fallocate)
 *              mode   EIO, ENOSPC: the call fails and does nothing
 *                     late: it is done, and EIO is answered all the same
 *                     lie: success is answered and nothing done (sync only)
 *                     short: half is written (write only)
 *                     kill: SIGKILL instead of the call; killed: SIGKILL right after it
 *              after  the first so many - 1 matching calls are left alone
 *              ppm    of a million later ones so many are hit; all when missing or 0
 * FS_MATCH   only files whose path has this in it
 * FS_TRIGGER only while a file of this name exists
 * FS_SEED    of the dice
 *
 * Threads: any; counting is atomic. Failure: an unreadable FS_FAULT ends the program with 99.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES_MAX 8

enum op {
	OP_SYNC,
	OP_WRITE,
	OP_OPEN,
	OP_RENAME,
	OP_ALLOC,
	OPS
};
enum mode {
	PASS,
	FAIL_EIO,
	FAIL_ENOSPC,
	LATE,
	LIE,
	SHORT,
	KILL,
	KILLED,
	MODES
};

struct rule {
	enum op op;
	enum mode mode;
	long after;
	long ppm;
	atomic_long seen;
};

static struct rule rules[RULES_MAX];
static size_t rule_count;
static const char *match, *trigger;
static _Atomic uint64_t dice;

static const char *const op_names[OPS] = {"sync", "write", "open", "rename", "alloc"};
static const char *const mode_names[MODES] = {
	"pass", "EIO", "ENOSPC", "late", "lie", "short", "kill", "killed"};

static int find(const char *const *names, int count, const char *word)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(names[i], word) == 0) {
			return i;
		}
	}
	fprintf(stderr, "fsfault: what is '%s'?\n", word);
	_exit(99);
}

__attribute__((constructor)) static void read_environment(void)
{
	const char *text = getenv("FS_FAULT");
	const char *seed = getenv("FS_SEED");

	match = getenv("FS_MATCH");
	trigger = getenv("FS_TRIGGER");
	dice = seed != NULL ? strtoull(seed, NULL, 10) : 1;
	while (text != NULL && *text != '\0' && rule_count < RULES_MAX) {
		char op[16], mode[16];
		struct rule *rule = &rules[rule_count++];
		if (sscanf(text, "%15[^:]:%15[^:,]:%ld:%ld", op, mode, &rule->after, &rule->ppm) <
			2) {
			fprintf(stderr, "fsfault: cannot read FS_FAULT at '%s'\n", text);
			_exit(99);
		}
		rule->op = (enum op)find(op_names, OPS, op);
		rule->mode = (enum mode)find(mode_names, MODES, mode);
		text = strchr(text, ',');
		text = text != NULL ? text + 1 : NULL;
	}
}

static bool roll(long ppm)
{
	uint64_t x = atomic_fetch_add(&dice, 0x9e3779b97f4a7c15u);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return (long)((x ^ (x >> 31)) % 1000000u) < ppm;
}

static bool matches_fd(int fd)
{
	char link[64], path[1024];

	if (match == NULL) {
		return true;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof(path) - 1);
	if (size < 0) {
		return false;
	}
	path[size] = '\0';
	return strstr(path, match) != NULL;
}

/* What is to happen to this call. Dies here for KILL. errno is the program's. */
static enum mode judge(enum op op, int fd, const char *path)
{
	int saved = errno;
	enum mode mode = PASS;

	for (size_t i = 0; i < rule_count && mode == PASS; i++) {
		struct rule *rule = &rules[i];
		if (rule->op != op || (trigger != NULL && access(trigger, F_OK) != 0)) {
			continue;
		}
		if (path != NULL ? match != NULL && strstr(path, match) == NULL : !matches_fd(fd)) {
			continue;
		}
		long seen = atomic_fetch_add(&rule->seen, 1) + 1;
		if (seen >= rule->after && (rule->ppm <= 0 || roll(rule->ppm))) {
			mode = rule->mode;
		}
	}
	if (mode == KILL) {
		raise(SIGKILL);
	}
	errno = saved;
	return mode;
}

/* The answer after the real call, or instead of it. */
static bool prevents(enum mode mode)
{
	return mode == FAIL_EIO || mode == FAIL_ENOSPC || mode == LIE;
}

static ssize_t answer(enum mode mode, ssize_t result)
{
	switch (mode) {
	case FAIL_ENOSPC:
		errno = ENOSPC;
		return -1;
	case FAIL_EIO:
	case LATE:
		errno = EIO;
		return -1;
	case LIE:
		return 0;
	case KILLED:
		raise(SIGKILL);
		return -1;
	default:
		return result;
	}
}

#define REAL(name)                                         \
	static __typeof__(name) *real;                     \
	if (real == NULL) {                                \
		*(void **)&real = dlsym(RTLD_NEXT, #name); \
	}

#define EXPORT __attribute__((visibility("default")))

EXPORT int fsync(int fd)
{
	REAL(fsync)
	enum mode mode = judge(OP_SYNC, fd, NULL);
	return (int)answer(mode, prevents(mode) ? 0 : real(fd));
}

EXPORT int fdatasync(int fd)
{
	REAL(fdatasync)
	enum mode mode = judge(OP_SYNC, fd, NULL);
	return (int)answer(mode, prevents(mode) ? 0 : real(fd));
}

EXPORT int sync_file_range(int fd, off64_t from, off64_t size, unsigned int flags)
{
	REAL(sync_file_range)
	/* Without flags it asks whether the call exists; that cannot fail. */
	enum mode mode = flags == 0 ? PASS : judge(OP_SYNC, fd, NULL);
	return (int)answer(mode, prevents(mode) ? 0 : real(fd, from, size, flags));
}

static size_t cut(enum mode mode, size_t size)
{
	return mode == SHORT && size > 1 ? size / 2 : size;
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
	REAL(write)
	enum mode mode = judge(OP_WRITE, fd, NULL);
	return answer(mode, prevents(mode) ? 0 : real(fd, data, cut(mode, size)));
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
	REAL(pwrite)
	enum mode mode = judge(OP_WRITE, fd, NULL);
	return answer(mode, prevents(mode) ? 0 : real(fd, data, cut(mode, size), at));
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	REAL(pwrite64)
	enum mode mode = judge(OP_WRITE, fd, NULL);
	return answer(mode, prevents(mode) ? 0 : real(fd, data, cut(mode, size), at));
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
	REAL(writev)
	enum mode mode = judge(OP_WRITE, fd, NULL);
	return answer(mode, prevents(mode) ? 0 : real(fd, parts, count));
}

EXPORT int fallocate(int fd, int how, off_t from, off_t size)
{
	REAL(fallocate)
	enum mode mode = judge(OP_ALLOC, fd, NULL);
	return (int)answer(mode, prevents(mode) ? 0 : real(fd, how, from, size));
}

EXPORT int fallocate64(int fd, int how, off64_t from, off64_t size)
{
	REAL(fallocate64)
	enum mode mode = judge(OP_ALLOC, fd, NULL);
	return (int)answer(mode, prevents(mode) ? 0 : real(fd, how, from, size));
}

EXPORT int rename(const char *from, const char *to)
{
	REAL(rename)
	enum mode mode = judge(OP_RENAME, -1, to);
	return (int)answer(mode, prevents(mode) ? 0 : real(from, to));
}

/* glibc's open is variadic; its mode counts only when a file may be made. */
static unsigned int mode_of(int flags, va_list more)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, unsigned int) : 0;
}

EXPORT int open(const char *path, int flags, ...)
{
	REAL(open)
	va_list more;
	va_start(more, flags);
	unsigned int rights = mode_of(flags, more);
	va_end(more);
	enum mode mode = (flags & O_CREAT) != 0 ? judge(OP_OPEN, -1, path) : PASS;
	return (int)answer(mode, prevents(mode) ? -1 : real(path, flags, rights));
}

EXPORT int open64(const char *path, int flags, ...)
{
	REAL(open64)
	va_list more;
	va_start(more, flags);
	unsigned int rights = mode_of(flags, more);
	va_end(more);
	enum mode mode = (flags & O_CREAT) != 0 ? judge(OP_OPEN, -1, path) : PASS;
	return (int)answer(mode, prevents(mode) ? -1 : real(path, flags, rights));
}
