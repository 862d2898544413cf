/* Every allocation of a replica fails once, in a group that elects, writes, grows and installs:
 * nothing is half-done, and afterwards all goes on. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/hostbed.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool armed, hit;
static uint32_t left;

static bool fails(void)
{
	bool now = armed && hostbed_inside && left-- == 0;
	hit |= now;
	return now;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

struct group {
	struct hostbed *beds[5];
	uint32_t ends;
};

/* As the owner would: who has ended is opened again. */
static void revive(struct group *group, struct hostbed *bed)
{
	if (!hostbed_ended(bed)) {
		return;
	}
	group->ends++;
	hostbed_crash(bed);
	while (hostbed_try_open(bed, NULL) != RT_OK) {
		assert_true(hit);
	}
	hostbed_start(bed);
}

static struct hostbed *leader_of(const struct group *group)
{
	for (int i = 0; i < 3; i++) {
		if (group->beds[i]->leads) {
			return group->beds[i];
		}
	}
	return NULL;
}

static void pass_time(struct group *group, uint64_t ms)
{
	for (uint64_t at = 0; at < ms; at += 50) {
		for (int i = 0; i < 4; i++) {
			hostbed_wait(group->beds[i], 50);
			revive(group, group->beds[i]);
		}
		hostbed_run(group->beds);
		for (int i = 0; i < 4; i++) {
			revive(group, group->beds[i]);
		}
	}
}

static void write_some(struct group *group, int count)
{
	uint64_t first;
	for (int i = 0; i < count; i++) {
		struct hostbed *leader = leader_of(group);
		if (leader != NULL) {
			rt_err err = hostbed_try_propose(leader, 3, 7000, &first);
			assert_true(err == RT_OK || hit || err == RT_E_AGAIN);
			hostbed_inside = true;
			err = sh_replica_linearize(leader->replica, leader->now, leader);
			hostbed_inside = false;
			assert_true(err == RT_OK || hit || err == RT_E_AGAIN);
		}
		if (i % 4 == 3) {
			hostbed_run(group->beds);
		}
	}
}

/* One of those who follow hears nothing until its next records are in no cache any more. */
static void fall_behind(struct group *group)
{
	struct group rest = {.ends = group->ends};
	int n = 0;
	const struct hostbed *off = group->beds[0]->leads ? group->beds[1] : group->beds[0];
	for (int i = 0; i < 4; i++) {
		if (group->beds[i] != off) {
			rest.beds[n++] = group->beds[i];
		}
	}
	write_some(&rest, 12);
	hostbed_run(rest.beds);
	for (int i = 0; i < 3; i++) {
		revive(group, rest.beds[i]);
	}
	pass_time(group, 600);
}

static void live(struct group *group)
{
	uint64_t index;
	uint64_t floor;
	struct sh_members four = hostbed_members("1 2 3 4s");
	for (int i = 0; i < 4; i++) {
		struct hostbed *bed = hostbed_new((uint64_t)i + 1, i < 3 ? "1 2 3" : "");
		group->beds[i] = bed;
		bed->options.cache_bytes = 30000;
		bed->options.mark_every = 5;
		while (hostbed_try_open(bed, NULL) != RT_OK) {
			assert_true(hit);
		}
		hostbed_start(bed);
		revive(group, bed);
	}
	pass_time(group, 2500);
	write_some(group, 20);
	pass_time(group, 200);
	struct hostbed *leader = leader_of(group);
	if (leader != NULL) {
		hostbed_inside = true;
		rt_err err = sh_replica_compact(leader->replica, 40, &floor);
		err = err != RT_OK ? err
				   : sh_replica_propose_members(leader->replica, &four, &index);
		hostbed_inside = false;
		assert_true(err == RT_OK || hit);
	}
	pass_time(group, 2500);
	fall_behind(group);
	leader = leader_of(group);
	if (leader != NULL) {
		hostbed_inside = true;
		rt_err err = sh_replica_transfer(
			leader->replica, leader->now, leader->options.raft.node % 3 + 1);
		hostbed_inside = false;
		assert_true(err == RT_OK || hit);
	}
	write_some(group, 3);
	pass_time(group, 1000);
	write_some(group, 8);
	pass_time(group, 500);
}

static void assert_agree(struct group *group)
{
	pass_time(group, 4000);
	const struct hostbed *a = group->beds[0];
	assert_non_null(leader_of(group));
	assert_true(a->committed >= 3);
	for (int i = 1; i < 3; i++) {
		const struct hostbed *b = group->beds[i];
		assert_int_equal(a->end, b->end);
		assert_int_equal(a->committed, b->committed);
		for (uint64_t k = 1; k < a->end; k++) {
			assert_true(rt_bytes_equal(a->log[k], b->log[k]));
		}
	}
	for (int i = 0; i < 4; i++) {
		hostbed_free(group->beds[i]);
	}
}

static void each_allocation_may_fail(void **state)
{
	uint32_t ends = 0;
	uint32_t n = 0;
	(void)state;
	for (hit = true; hit; n++) {
		struct group group = {.ends = 0};
		left = n;
		armed = true;
		hostbed_short = true;
		hit = false;
		live(&group);
		armed = false;
		assert_agree(&group);
		ends += group.ends;
	}
	hostbed_short = false;
	print_message("%u allocations failed, %u replicas ended\n", n, ends);
	assert_true(n > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
