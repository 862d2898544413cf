/*
 * watch.h - one picture over the last on a terminal, without a flicker.
 *
 * A frame begins at the top left, overwrites line by line and clears only what is left over, so no
 * moment shows an empty screen. Lines beyond the terminal would scroll it, so the rest is counted.
 */
#ifndef CMD_TROUPE_CLUSTER_WATCH_H
#define CMD_TROUPE_CLUSTER_WATCH_H

#include "proto/json.h"

/* picture may be empty; trouble is shown below it. */
void tr_watch_frame(const struct pr_text *picture, const struct pr_text *trouble, size_t rows,
	struct pr_text *out);

#endif
