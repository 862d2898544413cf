/* troupe cluster status: who is there, and where the shards are. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cmd/troupe/cluster/ask.h"
#include "cmd/troupe/cluster/commands.h"
#include "cmd/troupe/cluster/table.h"
#include "cmd/troupe/cluster/watch.h"

/* One answer as JSON or as a table. False: it cannot be read, info says why. */
static bool add_answer(const struct tr_options *options, const struct troupe_answer *answer,
	struct pr_text *out, struct rt_errinfo *info)
{
	if (options->json) {
		pr_text_add(out, answer->payload, answer->payload_size);
		pr_text_str(out, "\n");
		return true;
	}
	struct tr_view view;
	if (tr_view_read(rt_bytes_of(answer->payload, answer->payload_size), &view, info) !=
		RT_OK) {
		return false;
	}
	tr_table_add(&view, options->shards, out);
	tr_view_done(&view);
	return true;
}

static bool print(struct pr_text *text)
{
	bool written = text->size == 0 || fwrite(text->data, 1, text->size, stdout) == text->size;
	bool good = !text->failed && written && fflush(stdout) == 0;
	text->size = 0;
	return good;
}

static enum tr_exit status_once(const struct tr_options *options, struct troupe_client *client)
{
	const struct troupe_call call = tr_cluster_call("status", "");
	struct rt_errinfo info = {0};
	struct troupe_answer answer;
	struct pr_text text = {0};
	enum tr_exit code = tr_client_ask(options, client, &call, &answer);
	if (code == TR_DONE && !add_answer(options, &answer, &text, &info)) {
		fprintf(stderr, "troupe: %s\n", info.text);
		code = TR_UNAVAILABLE;
	}
	if (code == TR_DONE) {
		print(&text);
	}
	pr_text_clear(&text);
	troupe_answer_free(&answer);
	return code;
}

/* ---- again and again ---- */

#define SHOW_CURSOR "\033[?25h\033[?7h"
#define HIDE_CURSOR "\033[?25l\033[?7l" /* and long lines are cut, not wrapped */

/* Whatever the call under way does: a person who wants to leave leaves at once. */
static void on_leave(int number)
{
	(void)number;
	_Exit(TR_DONE);
}

static void on_leave_terminal(int number)
{
	(void)number;
	if (write(STDOUT_FILENO, SHOW_CURSOR, strlen(SHOW_CURSOR)) < 0) {
		_Exit(TR_UNAVAILABLE);
	}
	_Exit(TR_DONE);
}

static void catch_leaving(bool terminal)
{
	struct sigaction action = {.sa_handler = terminal ? on_leave_terminal : on_leave};
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

static size_t terminal_rows(void)
{
	struct winsize size = {0};
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2 ? size.ws_row : 24;
}

static void pause_s(time_t seconds)
{
	struct timespec left = {.tv_sec = seconds};
	while (nanosleep(&left, &left) != 0) {
	}
}

/* Asks once; the picture, or below the last one what is wrong. */
static void look(const struct tr_options *options, struct troupe_client *client,
	struct pr_text *picture, struct pr_text *trouble)
{
	const struct troupe_call call = tr_cluster_call("status", "");
	struct rt_errinfo info = {0};
	struct troupe_answer answer;
	struct pr_text fresh = {0};
	trouble->size = 0;
	int code = troupe_client_call(client, &call, &answer);
	if (code != TROUPE_OK) {
		pr_text_printf(trouble, "no status from %s: %s%s%s\n", options->url,
			troupe_code_name(code), answer.error[0] != '\0' ? ": " : "", answer.error);
	} else if (!add_answer(options, &answer, &fresh, &info)) {
		pr_text_printf(trouble, "%s\n", info.text);
	} else {
		pr_text_clear(picture);
		*picture = fresh;
		fresh = (struct pr_text){0};
	}
	pr_text_clear(&fresh);
	troupe_answer_free(&answer);
}

/* One picture: over the last one on a terminal, behind it elsewhere. */
static bool show(const struct tr_options *options, bool terminal, const struct pr_text *picture,
	const struct pr_text *trouble)
{
	struct pr_text out = {0};
	if (terminal) {
		tr_watch_frame(picture, trouble, terminal_rows(), &out);
	} else {
		if (trouble->size == 0) {
			pr_text_add(&out, picture->data, picture->size);
			pr_text_str(&out, options->json ? "" : "\n");
		} else {
			fprintf(stderr, "troupe: %.*s", (int)trouble->size, trouble->data);
		}
	}
	bool good = print(&out);
	pr_text_clear(&out);
	return good;
}

static enum tr_exit watch(const struct tr_options *options, struct troupe_client *client)
{
	bool terminal = isatty(STDOUT_FILENO) == 1 && !options->json;
	struct pr_text picture = {0}, trouble = {0};
	catch_leaving(terminal);
	if (terminal) {
		fputs(HIDE_CURSOR "\033[2J", stdout);
	}
	do {
		look(options, client, &picture, &trouble);
	} while (show(options, terminal, &picture, &trouble) && (pause_s(1), true));
	pr_text_clear(&picture);
	pr_text_clear(&trouble);
	return TR_DONE; /* nobody reads on */
}

enum tr_exit tr_cluster_status(const struct tr_options *options)
{
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		return TR_USAGE;
	}
	enum tr_exit code = options->watch ? watch(options, client) : status_once(options, client);
	troupe_client_close(client);
	return code;
}
