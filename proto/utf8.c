#include "proto/utf8.h"

size_t pr_utf8_length(struct rt_bytes text)
{
	if (text.size == 0) {
		return 0;
	}
	uint8_t first = text.data[0];
	if (first < 0x80) {
		return first != 0 ? 1 : 0;
	}
	size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
	if (first < 0xc2 || first > 0xf4 || text.size < length) {
		return 0;
	}
	for (size_t i = 1; i < length; i++) {
		if ((text.data[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	uint8_t second = text.data[1];
	if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
		(first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
		return 0;
	}
	return length;
}

/* Eight bytes at a time while all are ASCII and none is zero, which is nearly always. */
static bool ascii8(const uint8_t *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	const uint64_t ones = 0x0101010101010101u;
	const uint64_t highs = 0x8080808080808080u;
	return (word & highs) == 0 && ((word - ones) & highs) == 0;
}

bool pr_utf8_valid(struct rt_bytes text)
{
	while (text.size > 0) {
		size_t step;
		if (text.size >= 8 && ascii8(text.data)) {
			step = 8;
		} else {
			step = pr_utf8_length(text);
		}
		if (step == 0) {
			return false;
		}
		text.data += step;
		text.size -= step;
	}
	return true;
}
