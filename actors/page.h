/*
 * page.h - builds an EventPage from stored records, for streams and feeds: protobuf, with each
 * event's payload as stored or, when the caller wants JSON, as JSON text of its newest version.
 *
 * Limits: a page ends at `limit` events or about AC_PAGE_BYTES; a record is taken whole or in part,
 * by sequence number, so the next page goes on inside it.
 */
#ifndef ACTORS_PAGE_H
#define ACTORS_PAGE_H

#include "actors/shard.h"

#define AC_PAGE_BYTES  (384u * 1024u)
#define AC_PAGE_EVENTS 2000u

struct ac_page {
	uint8_t *bytes; /* repeated field 1 of EventPage so far */
	size_t size, cap;
	uint32_t count, limit;
	bool json, more;
	uint64_t next_seq;
	char *position; /* malloc'd, or NULL */
};

struct ac_page_row {
	uint32_t shard;
	uint64_t offset;
	struct rt_bytes record;
	struct rt_bytes tag; /* only events with it; size 0: all */
};

void ac_page_init(struct ac_page *page, bool json, uint32_t limit);
void ac_page_done(struct ac_page *page);
/* Adds the record's events. from_seq (may be NULL): skips events below it and moves it on. False:
 * the page is full and did not take (all of) it. */
bool ac_page_add(struct ac_page *page, struct ac_host *host, const struct ac_page_row *row,
	uint64_t *from_seq);
/* Puts the page into the call's answer. */
void ac_page_answer(struct ac_page *page, struct ac_call *call);

#endif
