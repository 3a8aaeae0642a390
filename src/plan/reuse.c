/* See reuse.h. */
#include "plan/reuse.h"

#include <math.h>

#define GROWTH   1.7
#define SOON_S   300.0
#define MADE_UP  1.0         /* weight of the gap that was not seen */
#define REMEMBER (1 - 0.002) /* some five hundred uses */

static double soon(double left_s)
{
    return SOON_S / (SOON_S + left_s);
}

void reuse_seen(struct reuse *r, double gap_s)
{
    if (!(gap_s >= 0) || !isfinite(gap_s))
        return;
    unsigned k = 0;
    for (double end = GROWTH; k + 1 < REUSE_BUCKETS && gap_s >= end; end *= GROWTH)
        k++;
    for (unsigned i = 0; i < REUSE_BUCKETS; i++)
        r->gaps[i] *= REMEMBER;
    r->gaps[k] += 1;
    r->span_s += gap_s;
    r->n++;
}

double reuse_chance(const struct reuse *r, double idle_s)
{
    if (!(idle_s >= 0))
        idle_s = 0;
    double mean = r->n ? r->span_s / (double)r->n : 0;
    double weight = MADE_UP, sum = MADE_UP * soon(fmax(idle_s, mean));
    double from = 0, to = 1; /* the first bucket begins at 0 */
    for (unsigned k = 0; k < REUSE_BUCKETS; k++) {
        from = k ? to : 0;
        to = k ? to * GROWTH : GROWTH;
        if (to <= idle_s)
            continue;
        double begin = fmax(from, idle_s), share = r->gaps[k] * (to - begin) / (to - from);
        weight += share;
        sum += share * soon((begin + to) / 2 - idle_s);
    }
    return sum / weight;
}
