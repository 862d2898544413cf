/* troupe verify: checks a stopped node's store, without the node. */
#include <inttypes.h>

#include "cmd/troupe/client.h"
#include "cmd/troupe/commands.h"
#include "persistence/store.h"

static void print_progress(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "troupe: %s\n", line);
}

static enum tr_exit exit_of(rt_err err)
{
	switch (err) {
	case RT_E_NOTFOUND:
	case RT_E_INVAL:
	case RT_E_VERSION:
		return TR_USAGE;
	case RT_E_CORRUPT:
		return TR_REFUSED;
	default:
		return TR_UNAVAILABLE;
	}
}

enum tr_exit tr_verify(const struct tr_options *options)
{
	struct ps_verify_report report = {0};
	struct rt_errinfo info = {0};
	rt_err err = ps_store_verify(options->words[0], print_progress, NULL, &report, &info);
	if (err != RT_OK) {
		fprintf(stderr, "troupe: %s: %s\n", options->words[0],
			info.text[0] != '\0' ? info.text : rt_err_text(err));
	}
	if (err != RT_OK && err != RT_E_CORRUPT) {
		return exit_of(err);
	}
	bool sound = err == RT_OK && report.problems == 0;
	struct pr_text line = {0};
	pr_text_printf(&line,
		"{\"ok\":%s,\"records\":%" PRIu64 ",\"events\":%" PRIu64 ",\"entities\":%" PRIu64
		",\"snapshots\":%" PRIu64 ",\"problems\":%" PRIu64 "}",
		sound ? "true" : "false", report.records, report.events, report.entities,
		report.snapshots, report.problems);
	tr_print_line(&line);
	pr_text_clear(&line);
	return sound ? TR_DONE : TR_REFUSED;
}
