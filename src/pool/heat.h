/* What the pool does about devices that are too hot: steps down while one stays so, and back up, one at a
 * time, when it has cooled. Layer pool; loop thread; struct heat is a plain value inside the pool.
 *
 * Levels come from outside (pool_heat), already with hysteresis. A step down bounds how many requests an
 * instance on the device is sent at a time and how soon after each other, and lets the planner see a slower
 * device: the next load goes elsewhere if it can. The further steps also ask the next load for smaller
 * micro-batches, and for a share of the layers on the CPU. Nothing is refused: who has no turn yet waits in
 * the model's line, whose order and bounds stay as they are; the longest pause between two is that of the
 * last step. */
#ifndef POOL_HEAT_H
#define POOL_HEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAT_STEPS       3
#define HEAT_MAX_DEVICES 17 /* HW_MAX_DEVICES and the host */

enum pool_heat_level { POOL_HEAT_NONE, POOL_HEAT_WARM, POOL_HEAT_HOT };

struct pool_device_heat {
    char device[24]; /* "CUDA0", "Host" */
    enum pool_heat_level level;
    unsigned celsius, critical_c; /* as read; where it becomes hot */
};

struct heat_row {
    struct pool_device_heat now;
    unsigned step;
    uint64_t moved_ms; /* the latest step, down or up */
};

struct heat {
    struct heat_row rows[HEAT_MAX_DEVICES];
    size_t n;
};

/* The step that follows at now_ms: down at once when it becomes hot, then after each dwell_ms that it stays
 * so; up after each dwell_ms that it is neither hot nor warm. Pure. */
unsigned heat_next(const struct heat_row *row, uint64_t dwell_ms, uint64_t now_ms);
/* Requests at a time of an instance with so many slots; 0 (no bound known) stays 0. Pure. */
uint32_t heat_share(unsigned step, uint32_t slots);
uint32_t heat_gap_ms(unsigned step); /* between two requests to an instance; at most a second */
double heat_slowness(unsigned step); /* as so many times slower the planner sees the device */

struct pool;
struct pool_instance;
struct plan_machine;

/* The hottest device that the instance computes on; NULL when none of them has a step. */
const struct heat_row *heat_of(const struct pool_instance *i);
uint32_t heat_slots(const struct pool_instance *i); /* what it is sent at a time; 0 = no bound */
bool heat_pauses(const struct pool_instance *i, uint64_t now_ms);
bool heat_has_pauses(const struct pool *p); /* some waiting request may be due without an event */
void heat_teach(const struct pool *p, struct plan_machine *m);

#endif
