/* conform_real|conform_mem [-s first] [-n seeds] [-c steps]: one line per operation, on stdout. */
#include <stdlib.h>
#include <unistd.h>

#include "tests/clustersim/conform.h"

int main(int argc, char **argv)
{
	uint64_t first = 1;
	uint64_t count = 5;
	uint32_t steps = 400;
	int c;
	while ((c = getopt(argc, argv, "s:n:c:")) != -1) {
		switch (c) {
		case 's':
			first = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			count = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			steps = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	for (uint64_t seed = first; seed < first + count; seed++) {
		struct conform_bed bed;
		conform_bed_new(&bed, seed);
		conform_run(&bed, seed, steps, stdout);
		conform_bed_free(&bed);
	}
	return 0;
}
