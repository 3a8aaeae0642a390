/* Why an instance's process ended, where its log and its wait status do not settle it. Layer pool; pure. */
#ifndef POOL_DEATH_H
#define POOL_DEATH_H

#include "os/oom.h"
#include "runtime/runtime.h"

struct death {
    int wait_status;
    enum runtime_failure told; /* by runtime_ops.classify */
    enum oom_verdict oom;      /* since shortly before */
};

/* What to take it for; completes the cause that classify gave: what the kernel's counters say, and that
 * nobody here asked it to end. */
enum runtime_failure death_explain(const struct death *d, struct err *cause);

#endif
