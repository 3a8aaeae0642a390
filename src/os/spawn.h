/* Starts a supervised child: own process group, killed with its parent (parent-death signal) if that is
 * wanted, stdin from /dev/null, stdout and stderr into one pipe or file, every other descriptor closed,
 * signals reset. Layer os; call on the main thread only (the parent-death signal follows the thread that
 * forks). No shell. */
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
    bool session;            /* it leads a session too: no hangup of our terminal reaches it */
    int output;              /* stdout and stderr go there, borrowed; 0 = into a new pipe */
    /* Called while the child waits to become the program: what must be known of it before it can do anything.
     * A failure ends it, and so does our death. May be NULL. */
    enum rc (*known)(void *arg, pid_t pid, struct err *err);
    void *arg;
};

struct spawn_child {
    pid_t pid;
    int pidfd;  /* readable at its end; -1 on kernels without pidfd_open */
    int output; /* read end of stdout+stderr, non-blocking, close-on-exec; -1 when it was told where to */
};

/* RC_NOT_FOUND / RC_DENIED / RC_IO with errno when exec itself fails (reported through a pipe, so it is
 * certain). */
enum rc spawn_start(const struct spawn_options *opt, struct spawn_child *ret_child, struct err *err);

#endif
