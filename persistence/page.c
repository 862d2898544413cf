#include "persistence/page.h"

#include <stdlib.h>

static bool grow_list(struct ps_page *page)
{
	size_t cap = page->count_cap == 0 ? 64 : page->count_cap * 2;
	struct rt_bytes *records = realloc(page->records, cap * sizeof(*records));
	if (records == NULL) {
		return false;
	}
	page->records = records;
	uint64_t *offsets = realloc(page->offsets, cap * sizeof(*offsets));
	if (offsets == NULL) {
		return false;
	}
	page->offsets = offsets;
	page->count_cap = cap;
	return true;
}

static bool grow_memory(struct ps_page *page, size_t size)
{
	size_t cap = page->cap == 0 ? 8192 : page->cap * 2;
	cap = cap - page->used < size ? page->used + size : cap;
	uint8_t *memory = realloc(page->memory, cap);
	if (memory == NULL) {
		return false;
	}
	page->memory = memory;
	page->cap = cap;
	return true;
}

rt_err ps_page_add(struct ps_page *page, uint64_t offset, struct rt_bytes record)
{
	if (page->count == page->count_cap && !grow_list(page)) {
		return RT_E_NOMEM;
	}
	if (page->cap - page->used < record.size && !grow_memory(page, record.size)) {
		return RT_E_NOMEM;
	}
	memcpy(page->memory + page->used, record.data, record.size);
	page->records[page->count] = rt_bytes_of(NULL, record.size);
	page->offsets[page->count++] = offset;
	page->used += record.size;
	return RT_OK;
}

void ps_page_finish(struct ps_page *page)
{
	const uint8_t *at = page->memory;
	for (size_t i = 0; i < page->count; i++) {
		page->records[i].data = at;
		at += page->records[i].size;
	}
}

void ps_page_free(struct ps_page *page)
{
	free(page->memory);
	free(page->records);
	free(page->offsets);
	*page = (struct ps_page){0};
}
