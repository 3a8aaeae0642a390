/* Launchers: where a job runs. Layer launch (base and os below); one file each behind launch.def (exec.c: a
 * child of this process). Loop thread only; callbacks come on the loop thread, never inside start(). */
#ifndef LAUNCH_LAUNCH_H
#define LAUNCH_LAUNCH_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define LAUNCH_STATUS_UNKNOWN (-1) /* a wait status that nobody could ask for */

struct launch_spec {
    const char *const *argv; /* borrowed during start() */
    const char *const *env;  /* complete environment */
    const char *log_path;    /* file that gets a bounded copy of the log, or NULL */
    size_t log_tail_bytes;   /* kept in memory; 0 = 64 KiB */
    int oom_score_adj;       /* when memory runs out the kernel takes it before us; 0 = as us */
    /* The job may outlive us: it writes into log_path itself (which must be given), where it is followed. */
    bool detach;
    /* With detach: called with the events' argument before the job can do anything. It goes on only when this
     * has succeeded and we are still alive. */
    enum rc (*known)(void *arg, pid_t pid, struct err *err);
};

struct launch_found { /* a job that an earlier process of ours left */
    pid_t pid;
    uint64_t start_ticks;
    const char *log_path; /* NULL = not followed; borrowed */
    bool replay;          /* the lines that its log has are told as if it wrote them now */
    size_t log_tail_bytes;
};

struct launch_job; /* from start() until its close callback */

struct launch_events { /* any may be NULL; arg is the caller's */
    void (*line)(void *arg,
                 struct str line); /* one line of stdout or stderr, without newline, ≤ 4096 bytes */
    void (*exited)(void *arg, int wait_status); /* once; output has been read to its end before. The status of
                                                   a job that was taken over is LAUNCH_STATUS_UNKNOWN */
};

struct launch_ops {
    const char *name;
    enum rc (*start)(uv_loop_t *loop, const struct launch_spec *spec, const struct launch_events *events,
                     void *arg, struct launch_job **ret_job, struct err *err);
    /* Takes over a job that was detached. RC_NOT_FOUND: it is gone, or its number is another's. NULL: jobs of
     * this launcher cannot be detached. */
    enum rc (*adopt)(uv_loop_t *loop, const struct launch_found *found, const struct launch_events *events,
                     void *arg, struct launch_job **ret_job, struct err *err);
    /* Forgets a detached job, as close does, and lets it run. NULL as above. */
    void (*leave)(struct launch_job *job, void (*closed)(void *arg), void *arg);
    /* Signals the whole job (its process group). No-op after exit. */
    void (*signal)(struct launch_job *job, int signo);
    pid_t (*pid)(const struct launch_job *job);           /* 0 when remote or gone */
    struct str (*log_tail)(const struct launch_job *job); /* borrowed until the next line */
    /* Forgets the job; kills it if it still runs; events stop at once. closed(arg) is called when every
     * handle of the loop is gone and the memory is free; may be NULL. */
    void (*close)(struct launch_job *job, void (*closed)(void *arg), void *arg);
};

const struct launch_ops *launch_find(struct str name);

#endif
