/* What the kernel has killed for want of memory: its counters, of the machine and of our own control group
 * (v1 or v2), and the names in its log where we may read it. Layer os; each call is a read or two of /proc,
 * or one call to the kernel: short enough for the loop.
 *
 * /proc/vmstat's oom_kill counts the kills of all groups too, so a count that stands still is proof that none
 * happened. */
#ifndef OS_OOM_H
#define OS_OOM_H

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct oom_count {
    uint64_t machine, group;
    bool machine_known, group_known;
};

struct oom_paths {
    char vmstat[64], group[512]; /* group: "" = none is readable */
};
/* proc and sys: "/proc" and "/sys", elsewhere in tests. */
void oom_find(const char *proc, const char *sys, struct oom_paths *ret);
void oom_read(const struct oom_paths *p, struct oom_count *ret);

/* The end of the kernel's log says that it killed the process; false also where it may not be read, and in a
 * container whose numbers of processes are not the kernel's. */
bool oom_is_named(pid_t pid);
bool oom_log_names(struct str log, pid_t pid); /* the pure part of it */

enum oom_verdict {
    OOM_UNKNOWN, /* the counters cannot be read */
    OOM_NONE,    /* nothing was killed for want of memory */
    OOM_SOMEONE, /* a process of this machine was */
    OOM_GROUP,   /* one of our control group was */
    OOM_NAMED    /* the kernel's log names this one */
};
/* Of a process that was killed between the two readings. */
enum oom_verdict oom_judge(const struct oom_count *before, const struct oom_count *after, bool named);

#endif
