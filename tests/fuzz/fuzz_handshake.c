/* The first words of a peer. The first byte chooses:
 * 0  bytes as they are: decoded or refused; what is decoded encodes to what is decoded to the same;
 * 1  the same as the body of a hello, 2 of a welcome, 3 of a refusal: more of it is looked at. */
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/handshake.h"

static void check_same(const struct sh_handshake *a, const struct sh_handshake *b)
{
	RT_ASSERT(a->kind == b->kind && a->version_min == b->version_min &&
		  a->version_max == b->version_max);
	if (a->kind == SH_REFUSAL) {
		RT_ASSERT(strcmp(a->text, b->text) == 0);
		return;
	}
	RT_ASSERT(a->lane == b->lane && a->target == b->target);
	RT_ASSERT(strcmp(a->who.cluster, b->who.cluster) == 0 &&
		  strcmp(a->who.key, b->who.key) == 0 && strcmp(a->who.rpc, b->who.rpc) == 0 &&
		  strcmp(a->who.peer, b->who.peer) == 0);
	RT_ASSERT(a->who.node == b->who.node && a->who.instance == b->who.instance &&
		  a->who.incarnation == b->who.incarnation);
}

static void run(struct rt_bytes whole)
{
	struct sh_handshake words, again;
	uint8_t bytes[SH_HANDSHAKE_MAX];
	rt_err err = sh_handshake_decode(whole, &words);
	RT_ASSERT(err == RT_OK || err == RT_E_PROTO || err == RT_E_VERSION);
	if (err == RT_E_VERSION) {
		RT_ASSERT(words.kind == SH_HELLO && words.version_min != 0);
		RT_ASSERT(memchr(words.rpc, '\0', sizeof(words.rpc)) != NULL);
	}
	if (err != RT_OK) {
		return;
	}
	RT_ASSERT(words.kind == SH_REFUSAL || sh_identity_valid(&words.who));
	size_t size = sh_handshake_encode(&words, bytes);
	RT_ASSERT(sh_handshake_decode(rt_bytes_of(bytes, size), &again) == RT_OK);
	check_same(&words, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[SH_HANDSHAKE_MAX] = {'T', 'R', 'P', 'N'};
	if (size == 0) {
		return 0;
	}
	uint32_t kind = data[0] % 4;
	data++;
	size--;
	if (kind == 0) {
		run(rt_bytes_of(data, size));
		return 0;
	}
	if (size > sizeof(bytes) - SH_HANDSHAKE_HEAD) {
		return 0;
	}
	bytes[4] = (uint8_t)kind;
	bytes[6] = (uint8_t)(size & 0xff);
	bytes[7] = (uint8_t)(size >> 8);
	if (size > 0) {
		memcpy(bytes + SH_HANDSHAKE_HEAD, data, size);
	}
	run(rt_bytes_of(bytes, SH_HANDSHAKE_HEAD + size));
	return 0;
}
