#include "actors/reply.h"

#include <stdlib.h>

#include "proto/guard.h"
#include "proto/troupe.pb-c.h"
#include "runtime/base/log.h"

ProtobufCMessage *ac_payload_read(
	struct ac_host *host, struct ac_call *call, const ProtobufCMessageDescriptor *descriptor)
{
	struct rt_errinfo info = {0};
	struct rt_bytes payload = call->in.payload;
	uint8_t *heap = NULL;
	rt_err err;
	if (call->in.json) {
		struct rt_bytes packed = {0};
		err = pr_json_parse(descriptor, payload, &packed, &info);
		heap = (uint8_t *)(uintptr_t)packed.data;
		payload = packed;
	} else {
		err = pr_guard_check(descriptor, payload, &info);
	}
	ProtobufCMessage *message = NULL;
	if (err == RT_OK) {
		message = protobuf_c_message_unpack(
			descriptor, &host->allocator, payload.size, payload.data);
		if (message == NULL) {
			rt_errinfo_set(&info, RT_E_PROTO, "payload is not a %s", descriptor->name);
		}
	}
	free(heap);
	if (message == NULL) {
		ac_call_fail(call, TROUPE__CODE__CODE_BAD_REQUEST, "%s", info.text);
	}
	return message;
}

void ac_reply_take(struct ac_host *host, struct ac_call *call,
	const ProtobufCMessageDescriptor *descriptor, const char *refusal)
{
	const struct troupe_out *out = &host->out;
	struct rt_bytes packed = {0};
	struct pr_text text = {0};
	if (out->has_reply) {
		packed = ac_out_piece(out, &out->reply);
		if (call->in.json && descriptor != NULL &&
			pr_json_print(descriptor, packed, &text, NULL) == RT_OK) {
			packed = rt_bytes_of(text.data, text.size);
		}
	}
	if (refusal != NULL) {
		ac_call_refuse(call, TROUPE__CODE__CODE_REFUSED, refusal, packed);
	} else {
		ac_call_payload(call, packed);
	}
	pr_text_clear(&text);
}

void ac_reply_defect(
	struct ac_call *call, const struct troupe_aggregate *aggregate, const char *what)
{
	const struct pr_call *in = &call->in;
	rt_log(RT_LOG_ERROR, "entity", "%s|%.*s: call %.*s: defect in the aggregate: %s",
		aggregate->name, (int)in->id.size, (const char *)in->id.data, (int)in->name.size,
		(const char *)in->name.data, what);
	ac_call_fail(call, TROUPE__CODE__CODE_INTERNAL, "defect in aggregate %s: %s",
		aggregate->name, what);
}

bool ac_query(struct ac_host *host, const struct ac_type *type, const void *state, uint64_t seq,
	struct ac_call *call)
{
	const struct troupe_aggregate *aggregate = ac_type_aggregate(type);
	const struct pr_call *in = &call->in;
	int index = ac_type_query(type, in->name);
	ac_count(&host->count.queries, 1);
	call->out.seq = seq;
	if (index < 0) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "%s has no query \"%.*s\"",
			aggregate->name, (int)in->name.size, (const char *)in->name.data);
		return false;
	}
	if (seq == 0) {
		ac_call_fail(call, TROUPE__CODE__CODE_NOT_FOUND, "%s/%.*s has no events",
			aggregate->name, (int)in->id.size, (const char *)in->id.data);
		return true;
	}
	const struct troupe_query_type *query = &aggregate->queries[index];
	ProtobufCMessage *message = ac_payload_read(host, call, query->message);
	if (message == NULL) {
		return false;
	}
	struct troupe_out *out = &host->out;
	ac_out_begin(out, aggregate);
	bool good = aggregate->answer(state, (uint32_t)index, message, out);
	if (out->defect[0] != '\0') {
		ac_reply_defect(call, aggregate, out->defect);
		return false;
	}
	const char *refusal = out->refusal[0] != '\0' ? out->refusal : "refused";
	call->out.code = TROUPE__CODE__CODE_OK;
	ac_reply_take(host, call, query->reply, good && !out->refused ? NULL : refusal);
	return true;
}
