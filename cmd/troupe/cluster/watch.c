#include "cmd/troupe/cluster/watch.h"

#include <string.h>

#define HOME        "\033[H"
#define TO_LINE_END "\033[K"
#define TO_THE_END  "\033[J"

static size_t count_lines(const struct pr_text *text)
{
	size_t count = 0;
	for (size_t i = 0; i < text->size; i++) {
		count += text->data[i] == '\n' ? 1 : 0;
	}
	return count;
}

static void add_lines(const struct pr_text *text, size_t most, struct pr_text *out)
{
	for (size_t at = 0; at < text->size && most > 0; most--) {
		const char *line = text->data + at;
		const char *end = memchr(line, '\n', text->size - at);
		size_t size = end != NULL ? (size_t)(end - line) : text->size - at;
		pr_text_add(out, line, size);
		pr_text_str(out, TO_LINE_END "\r\n");
		at += size + 1;
	}
}

void tr_watch_frame(const struct pr_text *picture, const struct pr_text *trouble, size_t rows,
	struct pr_text *out)
{
	size_t below = count_lines(trouble) + 2; /* how many more, and where the cursor rests */
	size_t room = rows > below ? rows - below : 1;
	size_t lines = count_lines(picture);
	pr_text_str(out, HOME);
	add_lines(picture, room, out);
	if (lines > room) {
		pr_text_printf(out, "... %zu more lines" TO_LINE_END "\r\n", lines - room);
	}
	add_lines(trouble, count_lines(trouble), out);
	pr_text_str(out, TO_THE_END);
}
