/* What an instance takes, by device. Layer pool; a value. */
#ifndef POOL_RESERVE_H
#define POOL_RESERVE_H

#include "plan/plan.h"

struct reserve_row {
    char key[96]; /* UUID, else the device's name */
    char name[24];
    uint64_t bytes;
};
struct reserve {
    struct reserve_row rows[PLAN_MAX_DEVICES];
    size_t n;
    uint64_t host_bytes;
    uint64_t host_mapped_bytes; /* part of host_bytes: weights in the page cache, which the kernel calls
                                   available */
};
uint64_t reserve_on(const struct reserve *r, const char *key);

#endif
