#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/json.h"
#include "proto/utf8.h"

#define TEXT_LIMIT ((size_t)16 * 1024 * 1024)

void pr_text_clear(struct pr_text *text)
{
	free(text->data);
	*text = (struct pr_text){.limit = text->limit};
}

static bool reserve(struct pr_text *text, size_t more)
{
	size_t limit = text->limit != 0 ? text->limit : TEXT_LIMIT;
	if (text->failed || more > limit || text->size > limit - more) {
		text->failed = true;
		return false;
	}
	size_t need = text->size + more;
	if (need <= text->cap) {
		return true;
	}
	size_t cap = text->cap < 256 ? 256 : text->cap * 2;
	cap = cap > limit ? limit : cap;
	cap = cap < need ? need : cap;
	char *data = realloc(text->data, cap);
	if (data == NULL) {
		text->failed = true;
		return false;
	}
	text->data = data;
	text->cap = cap;
	return true;
}

void pr_text_add(struct pr_text *text, const char *data, size_t size)
{
	if (size > 0 && reserve(text, size)) {
		memcpy(text->data + text->size, data, size);
		text->size += size;
	}
}

void pr_text_str(struct pr_text *text, const char *string)
{
	pr_text_add(text, string, strlen(string));
}

void pr_text_printf(struct pr_text *text, const char *format, ...)
{
	char small[256];
	va_list args;
	va_start(args, format);
	int need = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (need < 0) {
		text->failed = true;
		return;
	}
	if ((size_t)need < sizeof(small)) {
		pr_text_add(text, small, (size_t)need);
		return;
	}
	if (!reserve(text, (size_t)need + 1)) {
		return;
	}
	va_start(args, format);
	vsnprintf(text->data + text->size, (size_t)need + 1, format, args);
	va_end(args);
	text->size += (size_t)need;
}

static bool plain(uint8_t byte)
{
	return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

static void add_control(struct pr_text *text, uint8_t byte)
{
	static const char *const short_forms[0x20] = {
		['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
	if (byte == '"') {
		pr_text_add(text, "\\\"", 2);
	} else if (byte == '\\') {
		pr_text_add(text, "\\\\", 2);
	} else if (byte < 0x20 && short_forms[byte] != NULL) {
		pr_text_add(text, short_forms[byte], 2);
	} else {
		pr_text_printf(text, "\\u%04x", byte);
	}
}

/* What is no UTF-8 becomes U+FFFD byte by byte: the output is JSON whatever came in. */
void pr_text_json_string(struct pr_text *text, struct rt_bytes bytes)
{
	pr_text_add(text, "\"", 1);
	size_t i = 0;
	while (i < bytes.size) {
		size_t start = i;
		while (i < bytes.size && plain(bytes.data[i])) {
			i++;
		}
		pr_text_add(text, (const char *)bytes.data + start, i - start);
		if (i == bytes.size) {
			break;
		}
		size_t length = pr_utf8_length(rt_bytes_of(bytes.data + i, bytes.size - i));
		if (length > 1) {
			pr_text_add(text, (const char *)bytes.data + i, length);
		} else if (bytes.data[i] < 0x80) {
			add_control(text, bytes.data[i]);
		} else {
			pr_text_add(text, "\xef\xbf\xbd", 3);
		}
		i += length > 1 ? length : 1;
	}
	pr_text_add(text, "\"", 1);
}
