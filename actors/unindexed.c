#include "actors/unindexed.h"

#include <stdlib.h>

#include "runtime/base/assert.h"

#define ROWS_MIN 64u

static const struct ac_unindexed_row *row_at(const struct ac_unindexed *list, uint32_t i)
{
	return &list->rows[(list->head + i) & list->mask];
}

static void grow(struct ac_unindexed *list)
{
	uint32_t size = list->rows == NULL ? ROWS_MIN : (list->mask + 1) * 2;
	struct ac_unindexed_row *rows = malloc(size * sizeof(*rows));
	RT_ASSERT(rows != NULL);
	for (uint32_t i = 0; i < list->count; i++) {
		rows[i] = *row_at(list, i);
	}
	free(list->rows);
	list->rows = rows;
	list->mask = size - 1;
	list->head = 0;
}

void ac_unindexed_add(struct ac_unindexed *list, uint64_t offset, uint64_t hash)
{
	RT_ASSERT(list->count == 0 || row_at(list, list->count - 1)->offset < offset);
	if (list->rows == NULL || list->count > list->mask) {
		grow(list);
	}
	list->rows[(list->head + list->count++) & list->mask] =
		(struct ac_unindexed_row){offset, hash};
}

void ac_unindexed_prune(struct ac_unindexed *list, uint64_t watermark)
{
	while (list->count > 0 && row_at(list, 0)->offset <= watermark) {
		list->head = (list->head + 1) & list->mask;
		list->count--;
	}
	if (list->count == 0 && list->mask > ROWS_MIN) {
		ac_unindexed_clear(list);
	}
}

uint32_t ac_unindexed_find(const struct ac_unindexed *list, uint64_t hash, uint64_t **out)
{
	uint32_t found = 0;
	for (uint32_t i = 0; i < list->count; i++) {
		found += row_at(list, i)->hash == hash;
	}
	if (found == 0) {
		return 0;
	}
	uint64_t *offsets = malloc(found * sizeof(*offsets));
	RT_ASSERT(offsets != NULL);
	found = 0;
	for (uint32_t i = 0; i < list->count; i++) {
		if (row_at(list, i)->hash == hash) {
			offsets[found++] = row_at(list, i)->offset;
		}
	}
	*out = offsets;
	return found;
}

void ac_unindexed_clear(struct ac_unindexed *list)
{
	free(list->rows);
	*list = (struct ac_unindexed){0};
}
