/* troupe events, feed and state: what is stored. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/troupe/client.h"
#include "cmd/troupe/commands.h"
#include "proto/guard.h"
#include "proto/troupe.pb-c.h"

#define FOLLOW_WAIT_MS 20000u /* of one long poll; then the next one is sent */
#define LIMIT_MAX      UINT32_MAX

/* A read that goes on page by page. */
struct reading {
	const struct tr_options *options;
	struct troupe_client *client;
	struct troupe_call call;
	uint64_t left; /* events until --limit; UINT64_MAX: no limit */
	uint64_t next_seq;
	char *position; /* feed; malloc'd */
	uint8_t *request;
	bool feed, stop;
};

static void add_event(struct pr_text *line, const Troupe__StoredEvent *event)
{
	pr_text_str(line, "{\"type\":");
	pr_text_json_string(line, rt_bytes_str(event->type));
	pr_text_str(line, ",\"id\":");
	pr_text_json_string(line, rt_bytes_str(event->id));
	pr_text_printf(line, ",\"seq\":%" PRIu64 ",\"event\":", event->seq);
	pr_text_json_string(line, rt_bytes_str(event->manifest));
	pr_text_printf(line, ",\"version\":%u,\"data\":", event->version);
	if (event->payload.len > 0) {
		pr_text_add(line, (const char *)event->payload.data, event->payload.len);
	} else {
		pr_text_str(line, "{}");
	}
	pr_text_printf(line, ",\"timeMs\":%" PRIu64 ",\"commandId\":", event->time_ms);
	tr_add_command_id(line, event->command_id.data, event->command_id.len);
	if (event->n_tags > 0) {
		pr_text_str(line, ",\"tags\":[");
		for (size_t i = 0; i < event->n_tags; i++) {
			pr_text_str(line, i > 0 ? "," : "");
			pr_text_json_string(line, rt_bytes_str(event->tags[i]));
		}
		pr_text_str(line, "]");
	}
	pr_text_printf(line, ",\"shard\":%u,\"offset\":%" PRIu64, event->shard, event->offset);
}

/* The position stands on a page's last event: whoever goes on from the newest position it has seen
 * misses nothing. */
static void print_page(struct reading *reading, const Troupe__EventPage *page)
{
	struct pr_text line = {0};
	for (size_t i = 0; i < page->n_events && !reading->stop && reading->left > 0; i++) {
		add_event(&line, page->events[i]);
		if (reading->feed && i + 1 == page->n_events) {
			pr_text_str(&line, ",\"position\":");
			pr_text_json_string(&line, rt_bytes_str(page->position));
		}
		pr_text_str(&line, "}");
		reading->stop = !tr_print_line(&line);
		reading->left -= reading->left == UINT64_MAX ? 0 : 1;
	}
	pr_text_clear(&line);
}

static uint32_t page_limit(const struct reading *reading)
{
	return reading->left == UINT64_MAX ? 0
	       : reading->left < LIMIT_MAX ? (uint32_t)reading->left
					   : LIMIT_MAX;
}

static uint32_t wait_ms(const struct reading *reading)
{
	return reading->options->follow ? FOLLOW_WAIT_MS : 0;
}

static size_t pack(struct reading *reading, const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	free(reading->request);
	reading->request = malloc(size + 1);
	if (reading->request == NULL) {
		fprintf(stderr, "troupe: out of memory\n");
		exit(TR_UNAVAILABLE); /* NOLINT(concurrency-mt-unsafe): nothing to clean up */
	}
	protobuf_c_message_pack(message, reading->request);
	return size;
}

static void next_request(struct reading *reading)
{
	if (reading->feed) {
		Troupe__ReadFeed request = TROUPE__READ_FEED__INIT;
		request.position = reading->position;
		request.type =
			(char *)(uintptr_t)(reading->options->type != NULL ? reading->options->type
									   : "");
		request.tag =
			(char *)(uintptr_t)(reading->options->tag != NULL ? reading->options->tag
									  : "");
		request.limit = page_limit(reading);
		request.wait_ms = wait_ms(reading);
		reading->call.payload_size = pack(reading, &request.base);
	} else {
		Troupe__ReadEvents request = TROUPE__READ_EVENTS__INIT;
		request.from_seq = reading->next_seq;
		request.limit = page_limit(reading);
		request.wait_ms = wait_ms(reading);
		reading->call.payload_size = pack(reading, &request.base);
	}
	reading->call.payload = reading->request;
	reading->call.timeout_ms = (uint32_t)reading->options->timeout_ms + wait_ms(reading);
}

/* Prints the page and remembers where to go on. */
static enum tr_exit take_page(struct reading *reading, const struct troupe_answer *answer)
{
	Troupe__EventPage *page = NULL;
	if (pr_guard_check(&troupe__event_page__descriptor,
		    rt_bytes_of(answer->payload, answer->payload_size), NULL) == RT_OK) {
		page = troupe__event_page__unpack(NULL, answer->payload_size, answer->payload);
	}
	if (page == NULL) {
		fprintf(stderr, "troupe: the node's answer cannot be read\n");
		return TR_UNAVAILABLE;
	}
	print_page(reading, page);
	reading->next_seq = page->next_seq;
	if (reading->feed) {
		free(reading->position);
		reading->position = strdup(page->position);
	}
	if ((!page->more && !reading->options->follow) || reading->left == 0) {
		reading->stop = true;
	}
	troupe__event_page__free_unpacked(page, NULL);
	return TR_DONE;
}

static enum tr_exit read_all(struct reading *reading)
{
	enum tr_exit code = TR_DONE;
	reading->left = reading->options->limit > 0 ? reading->options->limit : UINT64_MAX;
	reading->client = tr_client_open(reading->options);
	if (reading->client == NULL) {
		return TR_USAGE;
	}
	while (code == TR_DONE && !reading->stop) {
		struct troupe_answer answer;
		next_request(reading);
		code = tr_client_ask(reading->options, reading->client, &reading->call, &answer);
		if (code == TR_DONE) {
			code = tr_check_after(reading->options, &answer);
		}
		if (code == TR_DONE) {
			code = take_page(reading, &answer);
		}
		troupe_answer_free(&answer);
	}
	troupe_client_close(reading->client);
	free(reading->request);
	return code;
}

enum tr_exit tr_events(const struct tr_options *options)
{
	char *type = NULL;
	struct reading reading = {.options = options, .next_seq = 1};
	if (options->from != NULL) {
		char *end = NULL;
		errno = 0;
		reading.next_seq = strtoull(options->from, &end, 10);
		if (options->from[0] < '0' || options->from[0] > '9' || *end != '\0' ||
			errno != 0) {
			fprintf(stderr,
				"troupe: --from: expected a sequence number, found \"%s\"\n",
				options->from);
			return TR_USAGE;
		}
	}
	if (!tr_entity_of(options->words[0], &type, &reading.call.id)) {
		return TR_USAGE;
	}
	reading.call.kind = TROUPE_EVENTS;
	reading.call.type = type;
	reading.call.json = true;
	reading.call.expected = -1;
	tr_read_options(options, &reading.call);
	enum tr_exit code = read_all(&reading);
	free(reading.position);
	free(type);
	return code;
}

enum tr_exit tr_feed(const struct tr_options *options)
{
	struct reading reading = {.options = options, .feed = true};
	reading.position = strdup(options->from != NULL ? options->from : "");
	reading.call.kind = TROUPE_FEED;
	reading.call.json = true;
	reading.call.expected = -1;
	enum tr_exit code = read_all(&reading);
	if (code == TR_DONE && !options->follow && reading.position != NULL) {
		fprintf(stderr, "troupe: go on with --from %s\n", reading.position);
	}
	free(reading.position);
	return code;
}

enum tr_exit tr_state(const struct tr_options *options)
{
	char *type = NULL;
	const char *id = NULL;
	if (!tr_entity_of(options->words[0], &type, &id)) {
		return TR_USAGE;
	}
	struct troupe_client *client = tr_client_open(options);
	if (client == NULL) {
		free(type);
		return TR_USAGE;
	}
	Troupe__ReadState request = TROUPE__READ_STATE__INIT;
	uint8_t packed[16];
	request.at_seq = options->at;
	struct troupe_call call = {.kind = TROUPE_STATE,
		.type = type,
		.id = id,
		.payload = packed,
		.payload_size = troupe__read_state__pack(&request, packed),
		.json = true,
		.expected = -1};
	tr_read_options(options, &call);
	struct troupe_answer answer;
	enum tr_exit code = tr_client_ask(options, client, &call, &answer);
	if (code == TR_DONE) {
		code = tr_check_after(options, &answer);
	}
	if (code == TR_DONE) {
		struct pr_text line = {0};
		pr_text_add(&line, answer.payload, answer.payload_size);
		tr_print_line(&line);
		pr_text_clear(&line);
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	free(type);
	return code;
}
