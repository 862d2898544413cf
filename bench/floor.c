/*
 * floor.c - what the machine itself takes: a synced append, and a round trip through libnng.
 *
 * usage: floor sync DIR SECONDS    256-byte appends to a growing file, fdatasync after each
 *        floor echo SECONDS        one caller, REQ to REP over TCP loopback, each in its own
 * process
 *
 * The two medians together are the least that a durable command of one caller can take. One JSON
 * line each.
 */
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/hist.h"

#define APPEND_BYTES  256
#define REQUEST_BYTES 200
#define ANSWER_BYTES  32
#define WARM_NS       100000000u

static struct rt_hist hist;

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "floor: %s: %s\n", what, why);
	exit(1);
}

static void check(const char *what, int nng_code)
{
	if (nng_code != 0) {
		fail(what, nng_strerror(nng_code));
	}
}

static void print(const char *bench, uint64_t elapsed_ns)
{
	printf("{\"bench\":\"%s\",\"value\":%.1f,\"unit\":\"/s\",\"count\":%llu,\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f}\n",
		bench, (double)hist.count * 1e9 / (double)elapsed_ns,
		(unsigned long long)hist.count, (double)rt_hist_percentile(&hist, 50.0) / 1e3,
		(double)rt_hist_percentile(&hist, 99.0) / 1e3);
}

static void measure_sync(const char *dir, double seconds)
{
	char path[4096];
	if (snprintf(path, sizeof(path), "%s/floor.%d", dir, (int)getpid()) >= (int)sizeof(path)) {
		fail(dir, "too long");
	}
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || unlink(path) != 0) {
		fail(path, strerror(errno));
	}
	char block[APPEND_BYTES];
	memset(block, 'e', sizeof(block));
	uint64_t start = rt_clock_now_ns();
	uint64_t end = start + (uint64_t)(seconds * 1e9);
	uint64_t now = start;
	while (now < end) {
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) ||
			fdatasync(fd) != 0) {
			fail(path, strerror(errno));
		}
		uint64_t done = rt_clock_now_ns();
		rt_hist_add(&hist, done - now);
		now = done;
	}
	close(fd);
	print("floor.sync", now - start);
}

/* ---- the echo: the server is the parent's child and dies with it ---- */
struct side {
	nng_aio *aio;
	nng_ctx ctx;
	bool receiving; /* what the aio does now */
	uint64_t start_ns, sent_ns, end_ns;
	uint64_t finished_ns; /* 0: still running */
	nng_mtx *lock;
	nng_cv *done;
};

static void serve_step(void *arg)
{
	struct side *side = arg;
	check("serve", nng_aio_result(side->aio));
	if (side->receiving) {
		nng_msg *msg = nng_aio_get_msg(side->aio);
		check("trim", nng_msg_chop(msg, nng_msg_len(msg) - ANSWER_BYTES));
		nng_aio_set_msg(side->aio, msg);
		side->receiving = false;
		nng_ctx_send(side->ctx, side->aio);
	} else {
		side->receiving = true;
		nng_ctx_recv(side->ctx, side->aio);
	}
}

static _Noreturn void serve(int port_pipe)
{
	static struct side side = {.receiving = true};
	nng_socket socket;
	nng_listener listener;
	int port = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	check("socket", nng_rep0_open(&socket));
	check("listen", nng_listen(socket, "tcp://127.0.0.1:0", &listener, 0));
	check("port", nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port));
	check("context", nng_ctx_open(&side.ctx, socket));
	check("aio", nng_aio_alloc(&side.aio, serve_step, &side));
	nng_ctx_recv(side.ctx, side.aio);
	if (write(port_pipe, &port, sizeof(port)) != (ssize_t)sizeof(port)) {
		fail("pipe", strerror(errno));
	}
	for (;;) {
		pause();
	}
}

static void request(struct side *side, uint64_t now)
{
	nng_msg *msg;
	check("message", nng_msg_alloc(&msg, REQUEST_BYTES));
	side->sent_ns = now;
	side->receiving = false;
	nng_aio_set_msg(side->aio, msg);
	nng_ctx_send(side->ctx, side->aio);
}

static void ask_step(void *arg)
{
	struct side *side = arg;
	check("ask", nng_aio_result(side->aio));
	if (!side->receiving) {
		side->receiving = true;
		nng_ctx_recv(side->ctx, side->aio);
		return;
	}
	uint64_t now = rt_clock_now_ns();
	nng_msg_free(nng_aio_get_msg(side->aio));
	if (side->sent_ns >= side->start_ns) {
		rt_hist_add(&hist, now - side->sent_ns);
	}
	if (now < side->end_ns) {
		request(side, now);
		return;
	}
	nng_mtx_lock(side->lock);
	side->finished_ns = now;
	nng_cv_wake(side->done);
	nng_mtx_unlock(side->lock);
}

static void measure_echo(double seconds)
{
	static struct side side;
	int ports[2], port = 0;
	if (pipe(ports) != 0) {
		fail("pipe", strerror(errno));
	}
	pid_t server = fork(); /* Before the first use of nng: its threads do not survive a fork. */
	if (server == 0) {
		serve(ports[1]);
	}
	close(ports[1]);
	if (server < 0 || read(ports[0], &port, sizeof(port)) != (ssize_t)sizeof(port)) {
		fail("server", "did not start");
	}
	char url[64];
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
	nng_socket socket;
	check("socket", nng_req0_open(&socket));
	check("no resend", nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, -1));
	check("dial", nng_dial(socket, url, NULL, 0));
	check("lock", nng_mtx_alloc(&side.lock));
	check("condition", nng_cv_alloc(&side.done, side.lock));
	check("context", nng_ctx_open(&side.ctx, socket));
	check("aio", nng_aio_alloc(&side.aio, ask_step, &side));
	uint64_t now = rt_clock_now_ns();
	side.start_ns = now + WARM_NS;
	side.end_ns = side.start_ns + (uint64_t)(seconds * 1e9);
	request(&side, now);
	nng_mtx_lock(side.lock);
	while (side.finished_ns == 0) {
		nng_cv_wait(side.done);
	}
	nng_mtx_unlock(side.lock);
	print("floor.echo", side.finished_ns - side.start_ns);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	nng_close(socket);
}

int main(int argc, char **argv)
{
	rt_hist_reset(&hist);
	if (argc == 4 && strcmp(argv[1], "sync") == 0) {
		measure_sync(argv[2], atof(argv[3]));
	} else if (argc == 3 && strcmp(argv[1], "echo") == 0) {
		measure_echo(atof(argv[2]));
	} else {
		fprintf(stderr, "usage: floor sync DIR SECONDS | floor echo SECONDS\n");
		return 2;
	}
	return 0;
}
