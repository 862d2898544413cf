/* scenarios.h - the small cases that are gone through. */
#ifndef TESTS_EXPLORE_SCENARIOS_H
#define TESTS_EXPLORE_SCENARIOS_H

#include "tests/explore/world.h"

extern const struct ex_scenario ex_scenarios[];
extern const uint32_t ex_scenario_count;

#endif
