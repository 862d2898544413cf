#include "runtime/base/hist.h"

#include <string.h>

#include "runtime/base/assert.h"

#define SUB (UINT64_C(1) << RT_HIST_SUB_BITS)

/* Below SUB a bucket is a value; above, the top six bits of the value name it. */
static unsigned bucket_of(uint64_t value)
{
	if (value < SUB) {
		return (unsigned)value;
	}
	unsigned shift = 63u - (unsigned)__builtin_clzll(value) - RT_HIST_SUB_BITS;
	return ((shift + 1) << RT_HIST_SUB_BITS) + (unsigned)((value >> shift) - SUB);
}

static uint64_t bucket_top(unsigned index)
{
	if (index < SUB) {
		return index;
	}
	unsigned shift = (index >> RT_HIST_SUB_BITS) - 1;
	uint64_t base = (SUB + (index & (SUB - 1))) << shift;
	return base + ((UINT64_C(1) << shift) - 1);
}

void rt_hist_reset(struct rt_hist *hist)
{
	memset(hist, 0, sizeof(*hist));
}

void rt_hist_add(struct rt_hist *hist, uint64_t value)
{
	unsigned index = bucket_of(value);
	RT_ASSERT(index < RT_HIST_BUCKETS);
	hist->bucket[index]++;
	if (hist->count == 0 || value < hist->min) {
		hist->min = value;
	}
	if (value > hist->max) {
		hist->max = value;
	}
	hist->count++;
	hist->sum += value;
}

void rt_hist_merge(struct rt_hist *into, const struct rt_hist *from)
{
	if (from->count == 0) {
		return;
	}
	for (unsigned i = 0; i < RT_HIST_BUCKETS; i++) {
		into->bucket[i] += from->bucket[i];
	}
	if (into->count == 0 || from->min < into->min) {
		into->min = from->min;
	}
	if (from->max > into->max) {
		into->max = from->max;
	}
	into->count += from->count;
	into->sum += from->sum;
}

uint64_t rt_hist_percentile(const struct rt_hist *hist, double percent)
{
	if (hist->count == 0) {
		return 0;
	}
	double wanted = percent / 100.0 * (double)hist->count;
	uint64_t seen = 0;
	for (unsigned i = 0; i < RT_HIST_BUCKETS; i++) {
		seen += hist->bucket[i];
		if (seen > 0 && (double)seen >= wanted) {
			uint64_t top = bucket_top(i);
			return top < hist->max ? top : hist->max;
		}
	}
	return hist->max;
}
