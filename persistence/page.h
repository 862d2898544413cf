/*
 * page.h - a growing list of copied records, the result of a read. Private to this module.
 */
#ifndef PERSISTENCE_PAGE_H
#define PERSISTENCE_PAGE_H

#include "runtime/base/bytes.h"
#include "runtime/base/err.h"

struct ps_page {
	uint8_t *memory;
	size_t used, cap;
	struct rt_bytes *records; /* without data until ps_page_finish */
	uint64_t *offsets;
	size_t count, count_cap;
};

RT_NODISCARD rt_err ps_page_add(struct ps_page *page, uint64_t offset, struct rt_bytes record);
/* Makes records point at their bytes; nothing is added after it. */
void ps_page_finish(struct ps_page *page);
void ps_page_free(struct ps_page *page);

#endif
