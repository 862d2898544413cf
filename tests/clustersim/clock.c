/* Stands in for libuv's two clocks, so that no code here sees the real time: the ones of the node
 * whose turn it is. */
#include <uv.h>

#include "tests/clustersim/clustersim.h"

#define WALL_MS UINT64_C(1700000000000)

const struct cs_node *cs_clock_node;

uint64_t uv_hrtime(void)
{
	return cs_clock_node == NULL ? 1 : cs_node_clock_ns(cs_clock_node);
}

int uv_gettimeofday(uv_timeval64_t *out)
{
	uint64_t ms = WALL_MS;
	if (cs_clock_node != NULL) {
		ms += cs_clock_node->cs->now / 1000;
		ms += (uint64_t)cs_clock_node->wall_offset_ms;
	}
	out->tv_sec = (int64_t)(ms / 1000);
	out->tv_usec = (int32_t)(ms % 1000 * 1000);
	return 0;
}
