/* Any text: refused with a reason, or packed to a message that prints as JSON which packs to the
 * same bytes. Any bytes that pass the guard print as JSON. */
#include <jansson.h>
#include <stdlib.h>

#include "proto/guard.h"
#include "proto/json.h"
#include "runtime/base/assert.h"
#include "tests/unit/proto/kinds.pb-c.h"

static void text_goes_round(const ProtobufCMessageDescriptor *type, struct rt_bytes json)
{
	struct rt_errinfo info = {0};
	struct rt_bytes packed;
	struct rt_bytes again;
	rt_err err = pr_json_parse(type, json, &packed, &info);
	if (err != RT_OK) {
		RT_ASSERT(err == RT_E_INVAL && info.text[0] != '\0');
		return;
	}
	struct pr_text text = {0};
	RT_ASSERT(pr_json_print(type, packed, &text, &info) == RT_OK);
	RT_ASSERT(pr_json_parse(type, rt_bytes_of(text.data, text.size), &again, &info) == RT_OK);
	RT_ASSERT(rt_bytes_equal(packed, again));
	pr_text_clear(&text);
	free((void *)(uintptr_t)packed.data);
	free((void *)(uintptr_t)again.data);
}

static void bytes_print_as_json(const ProtobufCMessageDescriptor *type, struct rt_bytes bytes)
{
	struct pr_text text = {0};
	if (pr_json_print(type, bytes, &text, NULL) == RT_OK) {
		json_t *root = json_loadb(
			text.data, text.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
		RT_ASSERT(root != NULL);
		json_decref(root);
	}
	pr_text_clear(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0) {
		return 0;
	}
	const ProtobufCMessageDescriptor *type =
		(data[0] & 1) != 0 ? &kinds__node__descriptor : &kinds__all__descriptor;
	struct rt_bytes rest = rt_bytes_of(data + 1, size - 1);
	if ((data[0] & 2) != 0) {
		bytes_print_as_json(type, rest);
	} else {
		text_goes_round(type, rest);
	}
	return 0;
}
