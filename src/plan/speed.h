/* The speed model over a layout. Layer plan, internal. */
#ifndef PLAN_SPEED_H
#define PLAN_SPEED_H

#include "plan/memory.h"

/* Seconds that each device takes (the host is the last), without what was learned: the part that grows with
 * bytes and products, which learned factors multiply, and the fixed part of starting kernels. */
struct speed_seconds {
    double variable[LAYOUT_MAX_BACKENDS], fixed[LAYOUT_MAX_BACKENDS];
    int n;
};
/* One token with `depth` tokens in the cache before it. */
void speed_decode(const struct layout *l, const struct plan_machine *machine, double depth,
                  struct speed_seconds *ret);
/* Tokens of the cache that are assumed in use. */
double speed_depth(const struct layout *l);
/* A prompt of `tokens` behind `depth` tokens, in micro-batches. */
void speed_prefill(const struct layout *l, const struct plan_machine *machine, double depth, uint32_t tokens,
                   struct speed_seconds *ret);
/* Factors of layout device d (the host: layout_host). */
const struct plan_taught *speed_taught(const struct layout *l, const struct plan_machine *machine, int d);

/* The layout of an estimate again; `devices` holds PLAN_MAX_DEVICES and must live as long as est. */
enum rc speed_layout(struct estimator *est, const struct model *m, const struct plan_estimate *e,
                     const struct plan_machine *machine, struct plan_device *devices, struct err *err);

/* What speed_of says of decoding, in a fraction of its time. */
double speed_decode_tps(const struct layout *l, const struct plan_machine *machine);
void speed_of(const struct layout *l, const struct plan_machine *machine, struct plan_speed *ret_speed);
/* GB/s that all cores of the host read together: as measured or a guess from their number. */
double speed_host_bandwidth(const struct plan_host *h);

#endif
