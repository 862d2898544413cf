/*
 * table.h - a view of the cluster as text for people, lines of at most 120 columns where names
 * allow it.
 */
#ifndef CMD_TROUPE_CLUSTER_TABLE_H
#define CMD_TROUPE_CLUSTER_TABLE_H

#include "cmd/troupe/cluster/view.h"
#include "proto/json.h"

/* The whole picture; with a line for each group when asked. */
void tr_table_add(const struct tr_view *view, bool groups, struct pr_text *out);

/* "n1", or "node 1" for one without a name. */
void tr_table_member(const struct tr_member *member, char *out, size_t room);

#endif
