/* fake_node.h - sh_node for the listener's tests: one thread that answers each
 * call with its own payload, or keeps the calls until told. */
#ifndef TESTS_UNIT_CMD_TROUPED_FAKE_NODE_H
#define TESTS_UNIT_CMD_TROUPED_FAKE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "sharding/node.h"

struct sh_node *fake_node_new(void);
void fake_node_free(struct sh_node *node); /* answers what it keeps */

void fake_node_hold(struct sh_node *node, bool hold); /* false: answers what it kept */
/* Waits until so many calls have come in since new. */
void fake_node_wait_seen(struct sh_node *node, uint32_t calls);

#endif
