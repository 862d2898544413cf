/* What kind of world a seed is. Every other seed leans towards a schedule that random ones hardly
 * ever find. */
#include "tests/sim/sim.h"

static uint32_t pick(struct sim *sim, const uint32_t *of, uint32_t count)
{
	return of[sim_below(sim, count)];
}
#define PICK(...)                                  \
	pick(sim, (const uint32_t[]){__VA_ARGS__}, \
		sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void any_group(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "any";
	shape->nodes = PICK(5, 5, 5, 5, 5, 5, 3, 3, 4, 6, 7);
	shape->voters = PICK(3, 3, 3, 4, 5, 1, 2);
	shape->voters = shape->voters > shape->nodes ? shape->nodes : shape->voters;
	shape->min_voters = PICK(1, 2, 3, 3);
	shape->groups = PICK(1, 1, 1, 1, 1, 1, 1, 2, 2, 3);
	shape->election_ms = 300;
	shape->heartbeat_ms = 50;
	shape->window = PICK(5, 50, 0);
	shape->cache_bytes = PICK(2048, 8192, 65536, 0);
	shape->mark_every = PICK(1, 5, 20, 100, 0);
	shape->runs_max = PICK(2, 4, 16, 0);
	shape->drift_ppm = PICK(0, 0, 1000, 50000);
}

static void any_faults(struct sim *sim, struct sim_shape *shape)
{
	shape->drop = sim_chance(sim, 70) ? sim_below(sim, 10) : 0;
	shape->twice = PICK(0, 2, 5);
	shape->late = PICK(0, 2, 5, 10);
	shape->late_max = SIM_MS(300);
	shape->torn = PICK(0, 0, 0, 1);
	shape->one_way = PICK(0, 30, 60);
	shape->delay_min = 100;
	shape->delay_max = PICK(500, 2000, 10000, 20000);
	shape->frames = sim_chance(sim, 50);
	shape->sync_min = 100;
	shape->sync_max = PICK(300, 2000, 5000, 10000);
	shape->slow_syncs = PICK(0, 2, 5);
	shape->stall_max = SIM_MS(150);
	shape->late_news = PICK(0, 30);
	shape->survives = 50;
	shape->down_max = PICK(50000, 500000, 2000000);
	shape->crash_lead = PICK(0, 5, 10);
	shape->crash_hard = PICK(0, 1);
	shape->crash_install = 20;
	shape->crash_promote = 15;
	shape->isolate_lead = PICK(0, 5, 10);
	shape->isolate_transfer = PICK(0, 10);
}

static void any_pace(struct sim *sim, struct sim_shape *shape)
{
	shape->every[SIM_EV_PROPOSE] = PICK(20000, 40000, 80000);
	shape->every[SIM_EV_CHANGE] = PICK(200000, 600000);
	shape->every[SIM_EV_TRANSFER] = PICK(1000000, 3000000);
	shape->every[SIM_EV_COMPACT] = PICK(200000, 600000, 2000000);
	shape->every[SIM_EV_READ] = 60000;
	shape->every[SIM_EV_CRASH] = PICK(700000, 1500000, 4000000);
	shape->every[SIM_EV_LINKS] = PICK(500000, 1500000);
	shape->every[SIM_EV_STALL] = SIM_S(3);
	shape->every[SIM_EV_BREAK] = PICK(0, 8000000, 20000000);
	shape->every[SIM_EV_SWEEP] = SIM_MS(700);
	shape->burst = PICK(0, 1, 1, 2);
	shape->long_records = 2;
	shape->huge_records = PICK(0, 0, 0, 0, 1);
	shape->trailing = 20;
	shape->remove = 30;
	shape->read_all = 10;
}

/* ---- leanings, by seed number ---- */
static void crash_after_election(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "five voters, the elected one dies";
	shape->nodes = shape->voters = 5;
	shape->min_voters = 4;
	shape->crash_lead = 60;
	shape->crash_hard = 5;
	shape->down_max = PICK(100000, 1000000);
}

static void slow_disks(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "slow disks";
	shape->sync_min = SIM_MS(5);
	shape->sync_max = PICK(40000, 150000);
	shape->slow_syncs = 10;
	shape->stall_max = SIM_MS(600);
	shape->every[SIM_EV_STALL] = SIM_S(1);
	shape->crash_hard = 4;
}

static void promotion_then_death(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "two voters, one is promoted, one dies";
	shape->nodes = PICK(3, 4);
	shape->voters = shape->min_voters = 2;
	shape->every[SIM_EV_CHANGE] = SIM_MS(150);
	shape->crash_promote = 70;
	shape->remove = 50;
	shape->every[SIM_EV_CRASH] = SIM_S(5);
}

static void two_leaders(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "four voters, leaders are cut off";
	shape->nodes = PICK(4, 5);
	shape->voters = 4;
	shape->min_voters = 3;
	shape->isolate_lead = 60;
	shape->one_way = 50;
	shape->every[SIM_EV_CHANGE] = SIM_MS(100);
	shape->every[SIM_EV_LINKS] = SIM_MS(400);
}

static void transfers_and_reads(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "transfers and reads";
	shape->every[SIM_EV_TRANSFER] = SIM_MS(120);
	shape->every[SIM_EV_READ] = SIM_MS(10);
	shape->read_all = 30;
	shape->drift_ppm = 50000;
	shape->late = 20;
	shape->late_max = PICK(300000, 600000);
	shape->delay_max = PICK(500, 2000, 10000);
	shape->sync_max = PICK(300, 2000, 5000);
	shape->isolate_transfer = 50;
	shape->one_way = 0;
	shape->every[SIM_EV_LINKS] = SIM_MS(300);
	shape->every[SIM_EV_CRASH] = PICK(1000000, 5000000);
}

static void drifting_clocks(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "drifting clocks and reads of cut off leaders";
	shape->drift_ppm = 50000;
	shape->isolate_lead = PICK(0, 30, 80);
	shape->every[SIM_EV_TRIANGLE] = PICK(300000, 700000);
	shape->late = PICK(0, 10, 20);
	shape->down_max = PICK(5000, 20000, 500000);
	shape->sync_max = PICK(300, 2000);
	shape->delay_max = PICK(500, 2000);
	shape->every[SIM_EV_READ] = SIM_MS(8);
	shape->every[SIM_EV_LINKS] = SIM_MS(400);
	shape->crash_lead = 0;
	shape->every[SIM_EV_CRASH] = PICK(500000, 4000000);
}

static void installs(struct sim *sim, struct sim_shape *shape)
{
	shape->name = "installs, small caches, long records";
	shape->every[SIM_EV_COMPACT] = SIM_MS(60);
	shape->trailing = PICK(1, 4, 20);
	shape->cache_bytes = PICK(512, 4096);
	shape->runs_max = PICK(1, 2, 4);
	shape->long_records = 10;
	shape->huge_records = PICK(0, 1);
	shape->crash_install = 40;
	shape->remove = 50;
	shape->every[SIM_EV_CHANGE] = SIM_MS(250);
	shape->down_max = SIM_S(3);
}

void sim_shape(struct sim *sim)
{
	static void (*const leanings[])(struct sim *, struct sim_shape *) = {crash_after_election,
		slow_disks, promotion_then_death, two_leaders, transfers_and_reads, drifting_clocks,
		installs};
	struct sim_shape *shape = &sim->shape;
	any_group(sim, shape);
	any_faults(sim, shape);
	any_pace(sim, shape);
	if (sim->seed % 2 == 1) {
		leanings[sim->seed / 2 % (sizeof(leanings) / sizeof(leanings[0]))](sim, shape);
	}
}
