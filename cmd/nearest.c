#include "cmd/nearest.h"

#include <stddef.h>
#include <string.h>

#define WORD_MAX 64u

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Optimal string alignment with three rows. */
static unsigned distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
	unsigned rows[3][WORD_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *row = rows[2];
	for (size_t j = 0; j <= b_size; j++) {
		last[j] = (unsigned)j;
		before[j] = 0;
	}
	for (size_t i = 1; i <= a_size; i++) {
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_size; j++) {
			unsigned cost = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
			row[j] = least(least(row[j - 1], last[j]) + 1, last[j - 1] + cost);
			if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
				lower(a[i - 2]) == lower(b[j - 1])) {
				row[j] = least(row[j], before[j - 2] + 1);
			}
		}
		unsigned *spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[b_size];
}

const char *cmd_nearest(const char *word, const char *const *words)
{
	size_t size = strlen(word);
	if (size == 0 || size > WORD_MAX) {
		return NULL;
	}
	const char *best = NULL;
	unsigned best_distance = (unsigned)(size < 4 ? 1 : size < 8 ? 2 : 3);
	for (; *words != NULL; words++) {
		size_t other = strlen(*words);
		if (other > WORD_MAX) {
			continue;
		}
		unsigned d = distance(word, size, *words, other);
		if (d < best_distance || (best == NULL && d == best_distance)) {
			best = *words;
			best_distance = d;
		}
	}
	return best;
}
