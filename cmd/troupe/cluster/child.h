/*
 * child.h - one node as a process below this one: started, listened to, ended.
 *
 * What it writes goes into a log file, each line behind its name, so that the logs of several can
 * be read as one. It is in a process group of its own, since Ctrl-C is for us to hand on, and gets
 * a SIGTERM when we die. Threads:  one. Started before this process has any others. Blocking:
 * never; the owner polls `out`.
 */
#ifndef CMD_TROUPE_CLUSTER_CHILD_H
#define CMD_TROUPE_CLUSTER_CHILD_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "runtime/base/err.h"

#define TR_CHILD_NAME 16u
#define TR_CHILD_LINE 2048u

struct tr_child {
	char name[TR_CHILD_NAME];
	char log_path[512];
	pid_t pid;  /* 0: not running */
	int out;    /* its standard output and error; -1: none */
	int status; /* of waitpid, when it has ended */
	bool ready; /* it has said so */
	FILE *log;
	char line[TR_CHILD_LINE]; /* not whole yet */
	size_t line_size;
	char last[256]; /* last line it wrote */
};

/* argv[0] is a path, or a name to look for in PATH. RT_E_IO: info. */
RT_NODISCARD rt_err tr_child_start(
	struct tr_child *child, const char *const *argv, struct rt_errinfo *info);
/* Takes what is there. */
void tr_child_read(struct tr_child *child);
/* True once, when it has ended: status is set, and all it wrote is in the log. */
bool tr_child_reap(struct tr_child *child);
void tr_child_signal(const struct tr_child *child, int number); /* not running: no-op */
/* "with exit code 1", "killed by signal 9". */
void tr_child_ending(const struct tr_child *child, char *out, size_t room);
void tr_child_done(struct tr_child *child);

#endif
