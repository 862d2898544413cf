/*
 * calculator.h - one IEEE double per entity: create it, ADD to it, MULTIPLY it.
 *
 * Rules: create is refused when the value exists, update when it does not; a result that is not
 *        finite is refused, and so are operands that are not. An event names its command as parent.
 */
#ifndef ACTORS_CALCULATOR_CALCULATOR_H
#define ACTORS_CALCULATOR_CALCULATOR_H

#include "actors/aggregate.h"

extern const struct troupe_aggregate calculator_aggregate;

#endif
