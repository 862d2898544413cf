/* What kind of world a seed is. Every other seed leans towards a schedule that random ones hardly
 * ever find. */
#include "tests/clustersim/clustersim.h"

static uint32_t pick(struct cs *cs, const uint32_t *of, uint32_t count)
{
	return of[cs_below(cs, count)];
}
#define PICK(...)                                 \
	pick(cs, (const uint32_t[]){__VA_ARGS__}, \
		sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void any_cluster(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "any";
	shape->nodes = PICK(1, 3, 3, 3, 4, 5);
	shape->replication = PICK(3, 3, 3, 1, 2, 5);
	shape->shards = PICK(1, 1, 2, 3, 4, 8, 16);
	shape->workers = PICK(1, 1, 2, 3);
	shape->clients = PICK(2, 4, 8);
	shape->entities = PICK(1, 2, 4, 8, 12);
	shape->election_ms = PICK(150, 300);
	shape->heartbeat_ms = shape->election_ms / 6;
	shape->mark_every = PICK(1, 5, 20, 100, 0);
	shape->cache_bytes = PICK(1024, 4096, 65536, 0);
	shape->dead_after_ms = PICK(2000, 5000, 20000);
	shape->snapshot_every = PICK(3, 10, 50);
	shape->passivate_ms = PICK(20, 200, 2000, 100000);
	shape->mailbox = PICK(2, 8, 1024);
}

static void any_network(struct cs *cs, struct cs_shape *shape)
{
	shape->delay_min = 50;
	shape->delay_max = PICK(300, 1000, 5000, 20000);
	shape->late = PICK(0, 1, 5);
	shape->late_max = PICK(20000, 200000);
	shape->break_ppm = PICK(0, 0, 100, 1000, 10000);
	shape->drop = PICK(0, 0, 0, 0, 1, 5, 30);
	shape->twice = PICK(0, 0, 0, 2);
	shape->one_way = PICK(0, 0, 0, 50);
	shape->silence_us = PICK(200000, 500000, 2000000);
}

static void any_disk(struct cs *cs, struct cs_shape *shape)
{
	shape->disk = (struct mem_shape){.write_max = 200,
		.sync_min = 50,
		.sync_max = PICK(300, 2000, 10000),
		.slow_syncs = PICK(0, 1, 5),
		.slow_max = PICK(20000, 150000),
		.late_news = PICK(0, 20),
		.late_max = 3000,
		.survives = 50,
		.read_min = 20,
		.read_max = PICK(100, 1000, 10000),
		.slow_reads = PICK(0, 2),
		.slow_read_max = 50000,
		.full_reads = PICK(0, 0, 3),
		.chunk_us = PICK(2000, 50000, 0)};
}

static void any_faults(struct cs *cs, struct cs_shape *shape)
{
	shape->down_max = PICK(3000, 20000, 300000, 2000000);
	shape->at_leaders = PICK(0, 0, 50);
	shape->pause_alone = PICK(0, 0, 50);
	shape->crash_lead = PICK(0, 0, 5);
	shape->crash_install = PICK(0, 20);
	shape->drift_ppm = PICK(0, 0, 1000, 50000);
	shape->every[CS_EV_CRASH] = PICK(0, 1000000, 2500000, 6000000);
	shape->every[CS_EV_CRASH_ALL] = PICK(0, 0, 0, 6000000);
	shape->every[CS_EV_LEAVE] = PICK(0, 0, 3000000, 6000000);
	shape->every[CS_EV_PAUSE] = PICK(0, 0, 1500000);
	shape->every[CS_EV_LINKS] = PICK(0, 700000, 1500000);
	shape->every[CS_EV_STALL] = PICK(0, 2000000);
	shape->every[CS_EV_BREAK] = PICK(0, 0, 5000000);
	shape->every[CS_EV_JUMP] = PICK(0, 1000000);
	shape->every[CS_EV_SPACE] = PICK(0, 0, 0, 3000000);
	shape->every[CS_EV_JOIN] = PICK(0, 0, 5000000);
	shape->every[CS_EV_DRAIN] = PICK(0, 0, 5000000);
	shape->every[CS_EV_LOSE] = PICK(0, 0, 7000000);
	shape->every[CS_EV_MOVE] = PICK(0, 0, 1000000);
}

static void any_load(struct cs *cs, struct cs_shape *shape)
{
	shape->client_loss = PICK(0, 1, 5, 20);
	shape->think_max = PICK(2000, 20000, 60000);
	shape->timeout_min = PICK(100000, 500000);
	shape->timeout_max = PICK(600000, 3000000);
	shape->double_send = PICK(0, 0, 5, 20);
	shape->reads = PICK(20, 50);
	shape->stale_reads = PICK(0, 30);
	shape->repeats = PICK(0, 5, 20);
	shape->expecting = PICK(0, 10, 50);
	shape->deadlines = PICK(0, 50);
	shape->gives_up = PICK(0, 20, 50);
}

/* ---- leanings, by seed number ---- */
static void calm(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "nothing happens";
	for (int i = 0; i < CS_EV_KINDS; i++) {
		shape->every[i] = 0;
	}
	shape->break_ppm = shape->drop = shape->twice = shape->late = 0;
	shape->crash_lead = shape->crash_install = shape->client_loss = 0;
	shape->calm = true;
	shape->nodes = PICK(3, 5);
	shape->every[CS_EV_MOVE] = PICK(0, 150000, 500000);
	shape->drift_ppm = PICK(0, 1000);
	shape->delay_max = PICK(300, 1000, 5000);
	shape->timeout_min = 2000000;
	shape->timeout_max = 3000000;
	shape->deadlines = 0;
	shape->disk.slow_syncs = shape->disk.full_reads = shape->disk.slow_reads = 0;
	shape->disk.sync_max = PICK(300, 2000);
}

static void cut_off_leaders(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "leaders are cut off and read from";
	shape->nodes = PICK(3, 5);
	shape->replication = 3;
	shape->every[CS_EV_LINKS] = PICK(300000, 700000);
	shape->every[CS_EV_CRASH] = 0;
	shape->reads = 60;
	shape->entities = PICK(1, 2);
	shape->drift_ppm = 50000;
	shape->think_max = 2000;
	shape->every[CS_EV_PAUSE] = PICK(200000, 700000);
	shape->at_leaders = 80;
	shape->pause_alone = PICK(0, 60);
	shape->client_loss = 0;
	shape->delay_max = PICK(300, 1000);
}

static void quick_restarts(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "quick restarts, calls wait";
	shape->nodes = PICK(3, 4);
	shape->replication = 3;
	shape->down_max = 3000;
	shape->every[CS_EV_CRASH] = 250000;
	shape->every[CS_EV_STALL] = 300000;
	shape->every[CS_EV_LINKS] = PICK(0, 700000);
	shape->think_max = 1000;
	shape->clients = 8;
	shape->timeout_min = 50000;
	shape->timeout_max = 400000;
	shape->at_leaders = PICK(0, 50);
}

static void power_cuts(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "power cuts";
	shape->every[CS_EV_CRASH_ALL] = 2000000;
	shape->every[CS_EV_CRASH] = 1000000;
	shape->down_max = PICK(20000, 300000);
	shape->disk.sync_max = PICK(2000, 20000);
}

static void members_come_and_go(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "members come and go";
	shape->nodes = PICK(3, 4);
	shape->replication = PICK(1, 2, 3, 3);
	shape->every[CS_EV_JOIN] = 3000000;
	shape->every[CS_EV_DRAIN] = 4000000;
	shape->every[CS_EV_LOSE] = PICK(0, 5000000);
	shape->every[CS_EV_MOVE] = PICK(0, 500000);
	shape->dead_after_ms = 2000;
	shape->mark_every = PICK(1, 5);
	shape->cache_bytes = 1024;
}

static void hand_overs(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "hand-overs";
	shape->nodes = PICK(3, 5);
	shape->replication = 3;
	shape->every[CS_EV_MOVE] = 200000;
	shape->every[CS_EV_LEAVE] = 2000000;
	shape->every[CS_EV_CRASH] = PICK(0, 4000000);
	shape->think_max = 2000;
	shape->entities = PICK(1, 4);
}

static void bad_network(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "bad network";
	shape->drop = PICK(5, 15, 30);
	shape->twice = PICK(2, 10);
	shape->late = 10;
	shape->late_max = 300000;
	shape->one_way = 50;
	shape->break_ppm = PICK(1000, 20000);
}

static void small_rooms(struct cs *cs, struct cs_shape *shape)
{
	shape->name = "small mailboxes, slow and failing disks";
	shape->mailbox = 2;
	shape->clients = 8;
	shape->entities = PICK(1, 2);
	shape->think_max = 500;
	shape->disk.full_reads = 10;
	shape->disk.slow_syncs = 10;
	shape->disk.slow_max = 300000;
	shape->passivate_ms = 20;
	shape->every[CS_EV_BREAK] = 3000000;
	shape->every[CS_EV_STALL] = 1000000;
	shape->every[CS_EV_SPACE] = 2000000;
}

void cs_shape(struct cs *cs)
{
	static void (*const leanings[])(struct cs *, struct cs_shape *) = {calm, cut_off_leaders,
		power_cuts, quick_restarts, members_come_and_go, hand_overs, bad_network,
		small_rooms};
	struct cs_shape *shape = &cs->shape;
	any_cluster(cs, shape);
	any_network(cs, shape);
	any_disk(cs, shape);
	any_faults(cs, shape);
	any_load(cs, shape);
	uint32_t count = sizeof(leanings) / sizeof(leanings[0]);
	if (cs->leaning != 0) {
		leanings[(cs->leaning - 1) % count](cs, shape);
	} else if (cs->seed % 2 == 1) {
		leanings[cs->seed / 2 % count](cs, shape);
	}
}
