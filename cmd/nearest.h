/*
 * nearest.h - what somebody may have meant by a word that is unknown.
 */
#ifndef CMD_NEAREST_H
#define CMD_NEAREST_H

/* The word of a NULL-terminated list with the least edit distance (insert, delete, replace, swap of
 * neighbours), when that is small enough to be a slip; else NULL. Letter case does not count. */
const char *cmd_nearest(const char *word, const char *const *words);

#endif
