/* How full the devices are, and who fills them: for yielding to others and for views. Layer pool; loop
 * thread. */
#ifndef POOL_GAUGE_H
#define POOL_GAUGE_H

#include "os/procs.h"
#include "pool/pool_priv.h"

#define GAUGE_OTHERS 4

struct gauge { /* a device, or the host */
    bool host;
    char name[24];
    char key[96];                      /* of a device's reserves */
    uint64_t total_bytes, free_bytes;  /* as sampled */
    uint64_t margin_bytes;             /* kept free; 0 on a device where nothing of ours runs */
    uint64_t own_bytes, foreign_bytes; /* taken: by our instances, by everybody else */
    int64_t slack_bytes; /* free, and freed by those that leave, less what own instances still will touch,
                          * less the margin */
    struct proc_use others[GAUGE_OTHERS]; /* the largest of them on a device, as its driver tells; no names;
                                           * bytes 0 = not told */
    size_t n_others;
};
struct gauges {
    struct gauge rows[HW_MAX_DEVICES + 1]; /* the host is the last */
    size_t n;
};

static inline uint64_t gauge_short(const struct gauge *g)
{
    return g->slack_bytes < 0 ? -(uint64_t)g->slack_bytes : 0;
}
/* What a reserve takes of it. */
uint64_t gauge_of(const struct gauge *g, const struct reserve *r);

/* Of the latest inventory. Workers of RPC backends are left out: nobody else can take memory of one that
 * serves us. */
void gauges_read(struct pool *p, struct gauges *ret);

#endif
