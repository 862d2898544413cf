#include <inttypes.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/base/random.h"
#include "tests/support/clusterbed.h"

static uint32_t up_count(void)
{
	uint32_t count = 0;
	for (uint64_t id = 1; id <= BED_NODES; id++) {
		count += bed.nodes[id].joined && bed_state_of(id) == SH_NODE_UP;
	}
	return count;
}

static void stop_or_start(uint64_t *stopped, uint64_t id)
{
	if (*stopped != 0) {
		bed_start(*stopped);
		*stopped = 0;
	} else if (bed.nodes[id].runs && bed.nodes[id].joined && up_count() > 2) {
		bed_stop(id);
		*stopped = id;
	}
}

static void something_happens(struct rt_random *random, uint64_t *stopped)
{
	uint64_t id = 1 + rt_random_below(random, BED_NODES);
	struct bed_node *node = &bed.nodes[id];
	switch (rt_random_below(random, 7)) {
	case 0:
	case 1:
		if (!node->joined) {
			bed_join(id);
		}
		break;
	case 2:
		stop_or_start(stopped, id);
		break;
	case 3:
		if (node->joined && bed_state_of(id) == SH_NODE_UP && up_count() > 4) {
			bed_drain(id);
		}
		break;
	case 4:
		if (node->runs && sh_members_votes(&bed.groups[BED_META].members, id)) {
			bed_lead(BED_META, id);
		}
		break;
	case 5:
		bed.full = !bed.full;
		break;
	default:
		bed.mute = bed.mute != 0 ? 0 : id;
		break;
	}
}

/* A node that died or is drained holds nothing, all others the same. */
static void then_even_among_those_that_are_up(void)
{
	uint32_t up = up_count(), replicas = up < 3 ? up : 3;
	for (uint64_t id = 1; id <= BED_NODES; id++) {
		uint32_t held = bed_held_by(id), led = bed_led_by(id);
		if (!bed.nodes[id].joined || bed_state_of(id) != SH_NODE_UP) {
			assert_int_equal(held, 0);
			continue;
		}
		assert_in_range(held, replicas * (BED_SHARDS + 1) / up,
			(replicas * (BED_SHARDS + 1) + up - 1) / up);
		assert_in_range(led, (BED_SHARDS + 1) / up, (BED_SHARDS + up) / up);
	}
}

static void settles_whatever_happened(void **unused)
{
	(void)unused;
	const char *given = getenv("SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : 4711;
	for (uint32_t run = 0; run < (given != NULL ? 1 : 10); run++, seed++) {
		struct rt_random random;
		uint64_t stopped = 0;
		print_message("seed %" PRIu64 "\n", seed);
		rt_random_seed(&random, seed);
		bed_begin();
		bed_pass(500);
		for (uint32_t i = 0; i < 60; i++) {
			something_happens(&random, &stopped);
			bed_pass(rt_random_below(&random, 4000));
		}
		if (stopped != 0) {
			bed_start(stopped);
		}
		bed.full = false;
		bed.mute = 0;
		bed_pass(15000);
		bed_settle();
		then_even_among_those_that_are_up();
		/* A decision that is taken back looks done to who has not heard that it began. */
		assert_in_range(bed.moving_most, 0, SH_CLUSTER_MOVES + 3);
		assert_int_equal(bed.refusals, 0);
		bed_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settles_whatever_happened),
	};
	rt_log_set_level(getenv("LOG") != NULL ? RT_LOG_DEBUG : RT_LOG_OFF);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
