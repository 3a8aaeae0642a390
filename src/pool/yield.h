/* Who gives memory back when others have taken some, and how: pure decisions. Layer pool; no state, no clock.
 *
 * When: a device is short when less than its margin is free beside what own instances still will touch. A
 * shortage is answered at once where it is deep or the kernel reports pressure, else when it has lasted; what
 * is freed restores the whole margin. So between "answered" and "restored" lies a band in which nothing
 * happens, and a load, which leaves the margin free, never causes an answer by itself.
 *
 * Who: each instance may yield in one of several ways, each cheaper and freeing less than the next. The
 * cheapest list of steps that covers the shortage of every device is taken. */
#ifndef POOL_YIELD_H
#define POOL_YIELD_H

#include "plan/plan.h"

#define YIELD_DEVICES (PLAN_MAX_DEVICES + 1)

/* How hard the host's memory is pressed. */
enum yield_level { YIELD_CALM, YIELD_WARN, YIELD_CRITICAL, YIELD_LEVELS };
const char *yield_level_word(enum yield_level l);

/* ---- when ---- */

enum yield_when {
    YIELD_REST,  /* nothing is short, or too little to act */
    YIELD_LATER, /* if it lasts */
    YIELD_NOW
};
/* slack: free bytes less the margin, less what own instances still will touch. short_ms: for how long it has
 * been YIELD_LATER or worse; after_ms: how long it may. */
enum yield_when yield_when(int64_t slack, uint64_t margin, enum yield_level level, uint64_t short_ms,
                           uint64_t after_ms);
/* The level that the host's free memory alone tells, for kernels that tell no pressure. */
enum yield_level yield_level_of(int64_t slack, uint64_t margin);

/* ---- who ---- */

enum yield_kind {             /* from mild to hard; a harder one of an instance frees no less on any device */
                  YIELD_DROP, /* caches of idle conversations */
                  YIELD_SHRINK, /* loaded again in less memory */
                  YIELD_SLEEP,
                  YIELD_EVICT,
                  YIELD_KINDS
};
const char *yield_kind_word(enum yield_kind k);

struct yield_resident {
    bool busy, pinned;
    bool can[YIELD_KINDS];
    uint64_t frees[YIELD_KINDS][YIELD_DEVICES];
    double cost[YIELD_KINDS]; /* > 0 */
};

struct yield_step {
    uint32_t resident;
    enum yield_kind kind;
};

/* The steps, at most one a resident, that free short_bytes of each of n_devices at the least cost; where all
 * together free less than that, as much as they can. A busy one is asked to leave, when its requests have
 * ended, under YIELD_CRITICAL only, and so is a pinned one; one step of a busy one is worth any number of
 * steps of idle ones, and one of a pinned one any number of either. Caches are dropped of pinned ones, too.
 * Unless it is critical, nobody takes a step that frees less than an eighth of every shortage: a model on a
 * GPU does not leave for the little RAM that it has. Exact as long as the search stays within its bound of
 * steps, which a dozen residents never reach; beyond it, the cheapest list that was found. n up to
 * PLAN_MAX_RESIDENTS; returns how many steps there are, in the order of residents. */
size_t yield_choose(const uint64_t *short_bytes, size_t n_devices, const struct yield_resident *residents,
                    size_t n, enum yield_level level, struct yield_step *ret_steps);

#endif
