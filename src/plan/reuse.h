/* How soon a model will be wanted again, from when it was wanted before: what its place in memory is worth.
 * Layer plan; pure, no clock; the owner of the model's requests keeps one of these for it.
 *
 * The gaps between uses are counted in buckets that grow by 1.7 from one second to three days, the older the
 * less. After a pause of t, the gaps that were longer than t are those it may be in, each with what would be
 * left of it; one made-up gap stands for what was never seen: another pause as long as this one, or as the
 * mean gap if that is longer. The chance is the mean of SOON / (SOON + time left): 1 = at once, 1/2 = in five
 * minutes, near 0 = not for days. `make bench-policy` compares what follows from it with other policies. */
#ifndef PLAN_REUSE_H
#define PLAN_REUSE_H

#include <stdint.h>

#define REUSE_BUCKETS 24

struct reuse { /* zeros = never used */
    double gaps[REUSE_BUCKETS];
    double span_s; /* of all gaps */
    uint64_t n;    /* gaps */
};

/* It was used again gap_s seconds after its latest use had ended; 0 = while it was in use. */
void reuse_seen(struct reuse *r, double gap_s);
/* From 0 to 1, after idle_s seconds without use. */
double reuse_chance(const struct reuse *r, double idle_s);

#endif
