/* Runs all recorded cases through the planner and prints a table an architecture. Tests only. */
#ifndef ORACLE_REPORT_H
#define ORACLE_REPORT_H

#include "compare.h"

struct report_options {
    const char *arch, *shape, *only; /* NULL = all */
    const char *json;                /* figures for the benchmarks page; NULL = none */
    unsigned worst;
    bool each; /* one line a case and device with all errors */
};

/* *ret_met: every goal is met (docs: weights and context exact; compute's median error at most 1 %, p99 at
 * most 3 %; no device under by more than 1 MiB; nothing refused by one side only). */
enum rc report(const char *goldens, const char *dir, const struct report_options *o, bool *ret_met,
               struct err *err);

#endif
