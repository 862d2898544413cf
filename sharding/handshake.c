#include "sharding/handshake.h"

#include <string.h>

#include "proto/field.h"
#include "runtime/base/assert.h"

/* Tags of all of them fit one byte. */
enum {
	F_VERSION_MIN = 1,
	F_VERSION_MAX,
	F_LANE,
	F_TARGET,
	F_CLUSTER,
	F_NODE,
	F_KEY,
	F_INSTANCE,
	F_INCARNATION,
	F_RPC,
	F_PEER,
	F_TEXT,
	FIELDS
};

/* Which field is which kind of thing; the rest are numbers. */
static const bool is_text[FIELDS] = {
	[F_CLUSTER] = true, [F_KEY] = true, [F_RPC] = true, [F_PEER] = true, [F_TEXT] = true};

#define NUMBER_MAX (UINT64_C(1) << 62)

static const uint8_t magic[4] = {'T', 'R', 'P', 'N'};

/* ---- what may be said ---- */

static bool is_name(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (text[i] <= ' ' || text[i] > '~') {
			return false;
		}
	}
	return size > 0;
}

static bool is_cluster(const char *text)
{
	return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

static bool is_url(const char *url)
{
	return url != NULL && strlen(url) <= SH_URL_MAX && is_name(url, strlen(url));
}

static bool ends(const char *text, size_t room)
{
	return memchr(text, '\0', room) != NULL;
}

bool sh_identity_valid(const struct sh_identity *who)
{
	return ends(who->cluster, sizeof(who->cluster)) && is_cluster(who->cluster) &&
	       ends(who->key, sizeof(who->key)) && is_name(who->key, strlen(who->key)) &&
	       who->node != 0 && who->node <= NUMBER_MAX && who->incarnation <= NUMBER_MAX &&
	       who->rpc != NULL && (who->rpc[0] == '\0' || is_url(who->rpc)) && is_url(who->peer);
}

/* ---- encoding ---- */

static uint8_t *put_number(uint8_t *at, uint32_t field, uint64_t value)
{
	if (value == 0) {
		return at;
	}
	*at++ = (uint8_t)(field << 3 | PR_WIRE_VARINT);
	return pr_varint_put(at, value);
}

static uint8_t *put_text(uint8_t *at, uint32_t field, const char *text)
{
	size_t size = strlen(text);
	*at++ = (uint8_t)(field << 3 | PR_WIRE_BYTES);
	at = pr_varint_put(at, size);
	memcpy(at, text, size);
	return at + size;
}

static uint8_t *put_who(uint8_t *at, const struct sh_identity *who)
{
	RT_ASSERT(sh_identity_valid(who));
	at = put_text(at, F_CLUSTER, who->cluster);
	at = put_number(at, F_NODE, who->node);
	at = put_text(at, F_KEY, who->key);
	at = put_number(at, F_INSTANCE, who->instance);
	at = put_number(at, F_INCARNATION, who->incarnation);
	at = put_text(at, F_RPC, who->rpc);
	return put_text(at, F_PEER, who->peer);
}

size_t sh_handshake_encode(const struct sh_handshake *handshake, uint8_t out[SH_HANDSHAKE_MAX])
{
	uint8_t *at = out + SH_HANDSHAKE_HEAD;
	at = put_number(at, F_VERSION_MIN, handshake->version_min);
	at = put_number(at, F_VERSION_MAX, handshake->version_max);
	if (handshake->kind == SH_HELLO) {
		RT_ASSERT(handshake->lane < SH_LANES && handshake->target != 0);
		at = put_number(at, F_LANE, handshake->lane);
		at = put_number(at, F_TARGET, handshake->target);
	}
	if (handshake->kind == SH_REFUSAL) {
		at = put_text(at, F_TEXT, handshake->text);
	} else {
		at = put_who(at, &handshake->who);
	}
	size_t body = (size_t)(at - out) - SH_HANDSHAKE_HEAD;
	memcpy(out, magic, sizeof(magic));
	out[4] = (uint8_t)handshake->kind;
	out[5] = 0;
	out[6] = (uint8_t)(body & 0xff);
	out[7] = (uint8_t)(body >> 8);
	return SH_HANDSHAKE_HEAD + body;
}

/* ---- decoding ---- */

struct parts {
	uint64_t number[FIELDS];
	struct rt_bytes text[FIELDS];
};

/* Ascending numbers: nothing is said twice. */
static bool take_fields(struct rt_bytes body, struct parts *parts)
{
	struct pr_field field;
	uint32_t last = 0;
	int got;
	while ((got = pr_field_next(&body, &field)) > 0) {
		if (field.number <= last) {
			return false;
		}
		last = field.number;
		if (field.number >= FIELDS) {
			continue;
		}
		if (field.wire != (is_text[field.number] ? PR_WIRE_BYTES : PR_WIRE_VARINT)) {
			return false;
		}
		parts->number[field.number] = field.value;
		parts->text[field.number] = field.bytes;
	}
	return got == 0;
}

/* false: it is too long, or holds what does not belong; out is empty then. */
static bool text_of(struct rt_bytes bytes, char *out, size_t room)
{
	out[0] = '\0';
	if (bytes.size >= room || !is_name((const char *)bytes.data, bytes.size)) {
		return false;
	}
	memcpy(out, bytes.data, bytes.size);
	out[bytes.size] = '\0';
	return true;
}

static bool who_of(const struct parts *parts, struct sh_handshake *out)
{
	struct sh_identity *who = &out->who;
	bool cluster = text_of(parts->text[F_CLUSTER], who->cluster, sizeof(who->cluster));
	bool key = text_of(parts->text[F_KEY], who->key, sizeof(who->key));
	bool rpc = parts->text[F_RPC].size == 0 || /* a node that serves no clients yet */
		   text_of(parts->text[F_RPC], out->rpc, sizeof(out->rpc));
	bool peer = text_of(parts->text[F_PEER], out->peer, sizeof(out->peer));
	who->node = parts->number[F_NODE];
	who->instance = parts->number[F_INSTANCE];
	who->incarnation = parts->number[F_INCARNATION];
	who->rpc = out->rpc;
	who->peer = out->peer;
	return cluster && key && rpc && peer && sh_identity_valid(who);
}

/* Words for people: whoever shows them escapes what is strange, as rt_log does. */
static bool refusal_of(struct rt_bytes text, struct sh_handshake *out)
{
	if (text.size == 0 || text.size > SH_REFUSAL_MAX || memchr(text.data, '\0', text.size)) {
		return false;
	}
	memcpy(out->text, text.data, text.size);
	out->text[text.size] = '\0';
	return true;
}

static rt_err hello_of(const struct parts *parts, struct sh_handshake *out)
{
	bool who = who_of(parts, out);
	if (out->version_min > SH_VERSION_MAX || out->version_max < SH_VERSION_MIN) {
		return RT_E_VERSION;
	}
	out->target = parts->number[F_TARGET];
	if (!who || parts->number[F_LANE] >= SH_LANES || out->target == 0 ||
		out->target > NUMBER_MAX) {
		return RT_E_PROTO;
	}
	out->lane = (enum sh_lane)parts->number[F_LANE];
	return RT_OK;
}

rt_err sh_handshake_size(const uint8_t *head, size_t *out)
{
	size_t size = SH_HANDSHAKE_HEAD + (size_t)(head[6] | head[7] << 8);
	if (memcmp(head, magic, sizeof(magic)) != 0 || head[4] < SH_HELLO || head[4] > SH_REFUSAL ||
		head[5] != 0 || size > SH_HANDSHAKE_MAX) {
		return RT_E_PROTO;
	}
	*out = size;
	return RT_OK;
}

rt_err sh_handshake_decode(struct rt_bytes whole, struct sh_handshake *out)
{
	struct parts parts = {0};
	size_t size;
	if (whole.size < SH_HANDSHAKE_HEAD || sh_handshake_size(whole.data, &size) != RT_OK ||
		size != whole.size) {
		return RT_E_PROTO;
	}
	struct rt_bytes body =
		rt_bytes_of(whole.data + SH_HANDSHAKE_HEAD, size - SH_HANDSHAKE_HEAD);
	*out = (struct sh_handshake){.kind = (enum sh_greeting)whole.data[4]};
	if (!take_fields(body, &parts) || parts.number[F_VERSION_MIN] == 0 ||
		parts.number[F_VERSION_MAX] > UINT32_MAX ||
		parts.number[F_VERSION_MIN] > parts.number[F_VERSION_MAX]) {
		return RT_E_PROTO;
	}
	out->version_min = (uint32_t)parts.number[F_VERSION_MIN];
	out->version_max = (uint32_t)parts.number[F_VERSION_MAX];
	switch (out->kind) {
	case SH_HELLO:
		return hello_of(&parts, out);
	case SH_WELCOME:
		return who_of(&parts, out) ? RT_OK : RT_E_PROTO;
	case SH_REFUSAL:
		break;
	}
	return refusal_of(parts.text[F_TEXT], out) ? RT_OK : RT_E_PROTO;
}
