/* Memory pressure as the kernel tells it, for the pool. Layer daemon; loop thread.
 *
 * Triggers (os/pressure.h) wake the loop when tasks stall for memory, on the machine or in the daemon's
 * control group, and when that group brushes its limits. Where the kernel has stalls but allows no triggers,
 * they are read every two seconds. A level holds for ten seconds behind its latest sign. */
#ifndef DAEMON_PRESSURE_H
#define DAEMON_PRESSURE_H

#include "pool/yield.h"

#include <uv.h>

struct pressure_options {
    uv_loop_t *loop;
    const char *proc_root, *sys_root; /* NULL = "/proc", "/sys" */
    double some_pct, full_pct; /* of two seconds: from there on it is warn, critical; 0 = not looked at */
    /* The level, when it changes, and each further sign of what is not calm: somebody may look anew. */
    void (*told)(void *arg, enum yield_level level);
    void *arg;
};

struct pressure;
/* Never fails: a kernel that tells nothing gives a level that stays calm. */
struct pressure *pressure_start(const struct pressure_options *opt);
/* "triggers", "polled" or "none": how the level comes about. Static. */
const char *pressure_way(const struct pressure *p);
enum yield_level pressure_level(const struct pressure *p);
void pressure_stop(struct pressure *p); /* freed when the loop has closed its handles; NULL is fine */

#endif
