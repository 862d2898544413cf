#include "runtime/sched/lane.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"

rt_err rt_lane_init(struct rt_lane *lane, uint32_t slots)
{
	RT_ASSERT(slots != 0 && (slots & (slots - 1)) == 0);
	memset(lane, 0, sizeof(*lane));
	lane->w_slots = aligned_alloc(RT_CACHELINE, slots * sizeof(struct rt_envelope));
	lane->r_slots = lane->w_slots;
	lane->w_mask = lane->r_mask = slots - 1;
	return lane->w_slots != NULL ? RT_OK : RT_E_NOMEM;
}

void rt_lane_done(struct rt_lane *lane)
{
	free(lane->w_slots);
	memset(lane, 0, sizeof(*lane));
}
