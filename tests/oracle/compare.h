/* One case: the planner's answer beside the oracle's. Tests only. */
#ifndef ORACLE_COMPARE_H
#define ORACLE_COMPARE_H

#include "case.h"
#include "golden.h"

#include "gguf/model.h"

enum outcome {
    COMPARED,
    NO_ESTIMATE,    /* the planner refuses the architecture */
    BOTH_REFUSED,   /* as it should */
    ONLY_WE_REFUSE, /* wrong */
    ONLY_IT_REFUSES /* wrong */
};

struct device_error {
    char name[16];
    uint64_t want[PARTS];
    int64_t error[PARTS]; /* ours minus the oracle's, bytes */
};

struct comparison {
    const struct oracle_case *c;
    enum outcome outcome;
    struct device_error devices[CASE_DEVICES + 1];
    size_t n_devices;
    char why[256]; /* the planner's or the oracle's reason */
};

void compare(const struct oracle_case *c, const struct model *m, const struct golden *g, unsigned isa,
             struct comparison *ret);
/* Weights (or context) equal on every device to half a MiB. */
bool comparison_exact(const struct comparison *c, int part);
/* Every part of every device equal to the byte. */
bool comparison_equal(const struct comparison *c);
/* The most by which one device is predicted too small, bytes; 0 if none. */
uint64_t comparison_under(const struct comparison *c);

#endif
