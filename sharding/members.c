#include "sharding/members.h"

#include <string.h>

#include "runtime/base/assert.h"

bool sh_members_valid(const struct sh_members *members)
{
	if (members->count > SH_MEMBERS_MAX || members->voters >> members->count != 0) {
		return false;
	}
	for (int i = 0; i < members->count; i++) {
		if (members->node[i] == 0 || (i > 0 && members->node[i] <= members->node[i - 1])) {
			return false;
		}
	}
	return true;
}

int sh_members_find(const struct sh_members *members, uint64_t node)
{
	for (int i = 0; i < members->count; i++) {
		if (members->node[i] == node) {
			return i;
		}
	}
	return -1;
}

static bool votes_at(const struct sh_members *members, int i)
{
	return (members->voters >> i & 1) != 0;
}

bool sh_members_votes(const struct sh_members *members, uint64_t node)
{
	int i = sh_members_find(members, node);
	return i >= 0 && votes_at(members, i);
}

uint32_t sh_members_voter_count(const struct sh_members *members)
{
	return (uint32_t)__builtin_popcount(members->voters);
}

uint32_t sh_members_rank(const struct sh_members *members, uint64_t node)
{
	uint32_t rank = 0;
	for (int i = 0; i < members->count && members->node[i] < node; i++) {
		rank += votes_at(members, i);
	}
	return sh_members_votes(members, node) ? rank : 0;
}

static void set_vote(struct sh_members *members, int i, bool votes)
{
	uint32_t bit = 1u << i;
	members->voters = (uint8_t)(votes ? members->voters | bit : members->voters & ~bit);
}

rt_err sh_members_put(struct sh_members *members, uint64_t node, bool votes)
{
	if (node == 0) {
		return RT_E_INVAL;
	}
	int at = sh_members_find(members, node);
	if (at >= 0) {
		set_vote(members, at, votes);
		return RT_OK;
	}
	if (members->count == SH_MEMBERS_MAX) {
		return RT_E_FULL;
	}
	at = members->count++;
	for (; at > 0 && members->node[at - 1] > node; at--) {
		members->node[at] = members->node[at - 1];
		set_vote(members, at, votes_at(members, at - 1));
	}
	members->node[at] = node;
	set_vote(members, at, votes);
	return RT_OK;
}

void sh_members_remove(struct sh_members *members, uint64_t node)
{
	int at = sh_members_find(members, node);
	if (at < 0) {
		return;
	}
	members->count--;
	for (; at < members->count; at++) {
		members->node[at] = members->node[at + 1];
		set_vote(members, at, votes_at(members, at + 1));
	}
	members->node[at] = 0;
	set_vote(members, at, false);
}

bool sh_members_equal(const struct sh_members *a, const struct sh_members *b)
{
	return a->count == b->count && a->voters == b->voters &&
	       memcmp(a->node, b->node, sizeof(a->node)) == 0;
}

static uint32_t missing_or_other(const struct sh_members *a, const struct sh_members *b)
{
	uint32_t count = 0;
	for (int i = 0; i < a->count; i++) {
		int at = sh_members_find(b, a->node[i]);
		count += at < 0 || votes_at(a, i) != votes_at(b, at);
	}
	return count;
}

uint32_t sh_members_distance(const struct sh_members *a, const struct sh_members *b)
{
	uint32_t count = missing_or_other(a, b);
	for (int i = 0; i < b->count; i++) {
		count += sh_members_find(a, b->node[i]) < 0;
	}
	return count;
}

size_t sh_members_encode(const struct sh_members *members, uint8_t out[SH_MEMBERS_BYTES])
{
	RT_ASSERT(members->count <= SH_MEMBERS_MAX);
	uint8_t *at = out;
	*at++ = members->count;
	*at++ = members->voters;
	for (int i = 0; i < members->count; i++) {
		for (int byte = 0; byte < 8; byte++) {
			*at++ = (uint8_t)(members->node[i] >> (8 * byte));
		}
	}
	return (size_t)(at - out);
}

rt_err sh_members_decode(struct rt_bytes bytes, struct sh_members *out)
{
	if (bytes.size < 2 || bytes.data[0] > SH_MEMBERS_MAX ||
		bytes.size != 2u + 8u * bytes.data[0]) {
		return RT_E_CORRUPT;
	}
	struct sh_members members = {.count = bytes.data[0], .voters = bytes.data[1]};
	const uint8_t *at = bytes.data + 2;
	for (int i = 0; i < members.count; i++) {
		for (int byte = 0; byte < 8; byte++) {
			members.node[i] |= (uint64_t)*at++ << (8 * byte);
		}
	}
	if (!sh_members_valid(&members)) {
		return RT_E_CORRUPT;
	}
	*out = members;
	return RT_OK;
}
