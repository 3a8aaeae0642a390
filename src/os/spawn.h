/* Starts a supervised child: own process group, killed with its parent (parent-death signal), stdin from
 * /dev/null, stdout and stderr into one pipe, every other descriptor closed, signals reset. Layer os; call on
 * the main thread only (the parent-death signal follows the thread that forks). No shell. */
#ifndef OS_SPAWN_H
#define OS_SPAWN_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct spawn_options {
    const char *const *argv; /* argv[0] is the program's path */
    const char *const *env;  /* complete environment */
    int oom_score_adj;       /* 0 = unchanged; positive: the kernel takes it before us */
    int death_signal;        /* e.g. SIGKILL; 0 = none */
};

struct spawn_child {
    pid_t pid;
    int pidfd;  /* readable at its end; -1 on kernels without pidfd_open */
    int output; /* read end of stdout+stderr, non-blocking, close-on-exec */
};

/* RC_NOT_FOUND / RC_DENIED / RC_IO with errno when exec itself fails (reported through a pipe, so it is
 * certain). */
enum rc spawn_start(const struct spawn_options *opt, struct spawn_child *ret_child, struct err *err);

#endif
