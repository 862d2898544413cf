/*
 * screen.h - what a node says when it starts: one screen, then the line "ready URL" for programs.
 */
#ifndef CMD_TROUPED_SCREEN_H
#define CMD_TROUPED_SCREEN_H

#include <stdio.h>

#include "actors/registry.h"
#include "cmd/trouped/config.h"
#include "cmd/trouped/listener.h"
#include "sharding/node.h"

struct td_screen {
	const struct td_config *config;
	const struct ac_registry *registry;
	const struct td_listener *listener;
	struct sh_node *node;

	/* Its place in the cluster; number 0: says nothing of one. */
	uint64_t number;
	const char *cluster; /* id */
	const char *peer;    /* URL that other nodes call */
};

void td_screen_print(const struct td_screen *screen, FILE *to);

#endif
