/* What the kernel tells of memory pressure: stalls (/proc/pressure/memory, and memory.pressure of the
 * process's own control group) and a group's brushes with its limits (memory.events). Layer os; the readers
 * and the parsers may be called from any thread; they block as little as files of /proc do.
 *
 * Sources: https://docs.kernel.org/accounting/psi.html and .../admin-guide/cgroup-v2.html. A trigger is a
 * descriptor that becomes readable as priority (POLLPRI) when tasks were stalled for so long within a window;
 * windows of whole multiples of two seconds need no privilege. */
#ifndef OS_PRESSURE_H
#define OS_PRESSURE_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

struct pressure_stall {        /* of one file */
    double some_pct, full_pct; /* of the latest ten seconds: some task, every task was stalled */
    uint64_t some_us, full_us; /* since boot */
};
/* "some avg10=0.00 avg60=… total=0\nfull …"; false on anything else. A file without "full" has none. */
bool pressure_parse(struct str text, struct pressure_stall *ret);

struct pressure_events { /* of a control group, since it was made; what its kernel does not tell is 0 */
    uint64_t high;       /* tasks were throttled above memory.high */
    uint64_t max;        /* use was about to pass memory.max */
    uint64_t oom, oom_kill;
};
/* "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"; false without any of the known words. */
bool pressure_events_parse(struct str text, struct pressure_events *ret);

enum pressure_place {
    PRESSURE_MACHINE, /* stalls of the machine */
    PRESSURE_GROUP,   /* stalls of this process's control group: v2's, and not its root */
    PRESSURE_EVENTS,  /* of that group */
    PRESSURE_PLACES
};
/* The file, in cap bytes at ret_path; proc_root "/proc", sys_root "/sys". False: there is none. */
bool pressure_find(const char *proc_root, const char *sys_root, enum pressure_place place, char *ret_path,
                   size_t cap);

/* Arms a trigger: `some` (full: every) task stalled for stall_ms within window_ms, which is a multiple of
 * 2000. A descriptor to poll for POLLPRI (POLLERR: the group is gone) and to close, or -1: the kernel has no
 * triggers, or allows none. */
int pressure_arm(const char *path, bool full, unsigned stall_ms, unsigned window_ms);

#endif
