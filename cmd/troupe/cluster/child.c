#include "cmd/troupe/cluster/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_NO_PROGRAM 127

/* In the child, between fork and exec: nothing but system calls. */
static void become(const char *const *argv, int out, pid_t parent)
{
	sigset_t none;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent) {
		_exit(EXIT_NO_PROGRAM);
	}
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (in < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
		dup2(out, STDERR_FILENO) < 0) {
		_exit(EXIT_NO_PROGRAM);
	}
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	static const char why[] = "cannot be run\n";
	if (write(STDERR_FILENO, why, sizeof(why) - 1) < 0) {
		_exit(EXIT_NO_PROGRAM);
	}
	_exit(EXIT_NO_PROGRAM);
}

rt_err tr_child_start(struct tr_child *child, const char *const *argv, struct rt_errinfo *info)
{
	int ends[2] = {-1, -1};
	child->ready = false;
	child->line_size = 0;
	child->last[0] = '\0';
	if (child->log == NULL) {
		child->log = fopen(child->log_path, "ae");
	}
	if (child->log == NULL) {
		return rt_errinfo_set(info, RT_E_IO, "%s: %m", child->log_path);
	}
	if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
		return rt_errinfo_set(info, RT_E_IO, "%s: no pipe: %m", child->name);
	}
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == 0) {
		become(argv, ends[1], parent);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return rt_errinfo_set(info, RT_E_IO, "%s: cannot be started: %m", child->name);
	}
	child->pid = pid;
	child->out = ends[0];
	return RT_OK;
}

static void take_line(struct tr_child *child)
{
	child->line[child->line_size] = '\0';
	fprintf(child->log, "%s | %s\n", child->name, child->line);
	if (strncmp(child->line, "ready ", 6) == 0) {
		child->ready = true;
	}
	if (child->line_size > 0) {
		snprintf(child->last, sizeof(child->last), "%.*s", (int)sizeof(child->last) - 1,
			child->line);
	}
	child->line_size = 0;
}

static void take(struct tr_child *child, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (data[i] == '\n' || child->line_size == sizeof(child->line) - 1) {
			take_line(child);
		}
		if (data[i] != '\n') {
			child->line[child->line_size++] = data[i];
		}
	}
}

void tr_child_read(struct tr_child *child)
{
	char data[4096];
	while (child->out >= 0) {
		ssize_t size = read(child->out, data, sizeof(data));
		if (size > 0) {
			take(child, data, (size_t)size);
		} else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
			close(child->out);
			child->out = -1;
		} else if (errno == EAGAIN) {
			break;
		}
	}
	fflush(child->log);
}

bool tr_child_reap(struct tr_child *child)
{
	if (child->pid == 0 || waitpid(child->pid, &child->status, WNOHANG) != child->pid) {
		return false;
	}
	tr_child_read(child);
	if (child->line_size > 0) {
		take_line(child);
	}
	if (child->out >= 0) {
		close(child->out);
		child->out = -1;
	}
	child->pid = 0;
	return true;
}

void tr_child_signal(const struct tr_child *child, int number)
{
	if (child->pid != 0) {
		kill(child->pid, number);
	}
}

void tr_child_ending(const struct tr_child *child, char *out, size_t room)
{
	if (WIFSIGNALED(child->status)) {
		snprintf(out, room, "was killed by signal %d", WTERMSIG(child->status));
	} else {
		snprintf(out, room, "ended with exit code %d", WEXITSTATUS(child->status));
	}
}

void tr_child_done(struct tr_child *child)
{
	if (child->out >= 0) {
		close(child->out);
		child->out = -1;
	}
	if (child->log != NULL) {
		fclose(child->log);
		child->log = NULL;
	}
}
