/* A directory that stands for a machine: /proc and /sys trees, scenario files. For the tests of hw/. */
#ifndef TEST_HW_TREE_H
#define TEST_HW_TREE_H

#include "hw/hw.h"

struct tree {
    char root[128], proc[160], sys[160];
};

void tree_make(struct tree *t);
/* Writes a file below the root, with its directories; content is formatted. An existing file keeps its inode.
 */
__attribute__((format(printf, 3, 4))) void tree_put(const struct tree *t, const char *path, const char *fmt,
                                                    ...);
void tree_link(const struct tree *t, const char *path, const char *target);
void tree_drop(const struct tree *t, const char *path); /* a file, or a directory with what is in it */
void tree_remove(struct tree *t);
/* meminfo and a one-CPU cpuinfo: the least that hw_open wants. */
void tree_put_host(const struct tree *t, unsigned long total_mib, unsigned long available_mib);
/* Opens, samples once, and leaves both to the caller; fails the test on an error. */
struct hw *tree_open(const struct tree *t, const char *nvml, struct hw_inventory *ret_inventory);

#endif
