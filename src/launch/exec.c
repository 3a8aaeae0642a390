/* The launcher "exec": a child of this process. Layer launch; loop thread.
 *
 * The child leads a process group of its own and dies with us (os/spawn.h); a detached one leads a session,
 * writes into a file that is followed, and may be taken over by another process of ours, to which it is no
 * child: that one sees its end by the pidfd alone. Its end comes from a pidfd polled
 * by the loop, or from SIGCHLD on kernels without one. `exited` comes when the child is reaped and its output
 * has ended; a grandchild that keeps the pipe open is given OUTPUT_GRACE_MS. The group is killed while the
 * leader is still a zombie, so that its number cannot belong to anyone else. Handles are closed first, memory
 * is freed by the last close callback. */
#include "launch/launch.h"

#include "base/mem.h"
#include "launch/follow.h"
#include "launch/output.h"
#include "os/process.h"
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_GRACE_MS 250
#define READ_BUDGET     (256u * 1024) /* bytes a turn of the loop, so that a flood does not stall the others */

struct launch_job {
    uv_loop_t *loop;
    struct launch_events events;
    void *arg;
    pid_t pid; /* 0 once reaped */
    int pidfd, output_fd;
    int wait_status;
    bool reaped, output_ended, told, closing;
    bool adopted;     /* not our child */
    unsigned handles; /* not yet closed */
    uv_poll_t output_poll, pid_poll;
    uv_signal_t sigchld;
    uv_timer_t timer; /* grace for the output; first look without a pidfd */
    bool has_output_poll, has_pid_poll, has_sigchld;
    struct output output;
    struct follow *follow; /* of a detached one: instead of output_fd */
    void (*closed)(void *arg);
    void *closed_arg;
};

static void on_line(void *arg, struct str line)
{
    struct launch_job *j = arg;
    if (!j->closing && j->events.line)
        j->events.line(j->arg, line);
}

static void on_part_closed(void *job)
{
    struct launch_job *j = job;
    if (--j->handles > 0)
        return;
    output_release(&j->output);
    void (*closed)(void *) = j->closed;
    void *arg = j->closed_arg;
    free(j);
    if (closed)
        closed(arg);
}

static void on_handle_closed(uv_handle_t *h)
{
    on_part_closed(h->data);
}

static void close_handle(struct launch_job *j, uv_handle_t *h)
{
    if (!uv_is_closing(h))
        uv_close(h, on_handle_closed);
    (void)j;
}

static void end_output(struct launch_job *j)
{
    if (j->output_ended)
        return;
    j->output_ended = true;
    if (j->has_output_poll)
        uv_poll_stop(&j->output_poll);
    output_flush(&j->output, on_line, j);
}

/* Closing a poll handle takes its descriptor's number out of the loop's epoll set once more: had the
 * descriptor been closed before, the number could belong to a client by then, who would never be heard again.
 */
static void close_poll(struct launch_job *j, bool has_poll, uv_poll_t *poll, int *fd)
{
    if (has_poll)
        close_handle(j, (uv_handle_t *)poll);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_all(struct launch_job *j)
{
    end_output(j);
    close_poll(j, j->has_output_poll, &j->output_poll, &j->output_fd);
    if (j->follow)
        follow_close(take_ptr(j->follow), on_part_closed, j);
    close_poll(j, j->has_pid_poll, &j->pid_poll, &j->pidfd);
    if (j->has_sigchld)
        close_handle(j, (uv_handle_t *)&j->sigchld);
    close_handle(j, (uv_handle_t *)&j->timer);
}

static void on_bytes(void *arg, const char *p, size_t n)
{
    struct launch_job *j = arg;
    if (!j->output_ended)
        output_add(&j->output, p, n, on_line, j);
}

/* Reads what is there; true when the output has ended. */
static bool read_output(struct launch_job *j, size_t budget)
{
    char chunk[16384];
    while (budget > 0) {
        ssize_t n = read(j->output_fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return false;
        if (n <= 0)
            return true;
        output_add(&j->output, chunk, (size_t)n, on_line, j);
        budget -= (size_t)n < budget ? (size_t)n : budget;
    }
    return false;
}

static void tell_if_over(struct launch_job *j)
{
    if (!j->reaped)
        return;
    if (j->closing) {
        close_all(j);
        return;
    }
    if (!j->output_ended || j->told)
        return;
    j->told = true;
    uv_timer_stop(&j->timer);
    if (j->events.exited)
        j->events.exited(j->arg, j->wait_status);
}

static void on_grace_over(uv_timer_t *t)
{
    struct launch_job *j = t->data;
    end_output(j);
    tell_if_over(j);
}

static void on_output(uv_poll_t *h, int status, int events)
{
    struct launch_job *j = h->data;
    (void)events;
    if (j->output_ended || !(status < 0 || read_output(j, READ_BUDGET)))
        return;
    end_output(j);
    tell_if_over(j);
}

/* Reaps the child if it has ended. */
static bool has_ended(struct launch_job *j)
{
    siginfo_t info = {0};
    if (j->adopted) {
        j->wait_status = LAUNCH_STATUS_UNKNOWN;
        return process_is_over(j->pidfd);
    }
    int r;
    do
        r = waitid(P_PID, (id_t)j->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    while (r < 0 && errno == EINTR);
    if (r == 0 && info.si_pid == 0)
        return false;
    if (r == 0) {
        kill(-j->pid, SIGKILL); /* what is left of its group; the zombie still holds the number */
        while (waitpid(j->pid, &j->wait_status, 0) < 0 && errno == EINTR)
            ;
    } /* else somebody else reaped it: the status is lost, the end is certain */
    return true;
}

/* The job is over: nothing more can come than what is there. */
static void read_rest(struct launch_job *j)
{
    while (j->follow && follow_read(j->follow))
        ;
    if (j->output_fd < 0 || read_output(j, READ_BUDGET))
        end_output(j);
    else
        uv_timer_start(&j->timer, on_grace_over, OUTPUT_GRACE_MS, 0);
}

static void look_for_end(struct launch_job *j)
{
    if (j->reaped || !has_ended(j))
        return;
    j->reaped = true;
    j->pid = 0;
    if (j->has_pid_poll)
        uv_poll_stop(&j->pid_poll);
    if (j->has_sigchld)
        uv_signal_stop(&j->sigchld);
    if (!j->closing && !j->output_ended)
        read_rest(j);
    tell_if_over(j);
}

static void on_pidfd(uv_poll_t *h, int status, int events)
{
    (void)status;
    (void)events;
    look_for_end(h->data);
}

static void on_sigchld(uv_signal_t *h, int signo)
{
    (void)signo;
    look_for_end(h->data);
}

static void on_first_look(uv_timer_t *t)
{
    look_for_end(t->data);
}

/* Arms the handles; on failure those that were made are counted and still have to be closed. */
static int arm(struct launch_job *j)
{
    uv_timer_init(j->loop, &j->timer);
    j->timer.data = j->output_poll.data = j->pid_poll.data = j->sigchld.data = j;
    j->handles = 1 + (j->follow != NULL);
    int r = 0;
    if (j->output_fd >= 0) {
        r = uv_poll_init(j->loop, &j->output_poll, j->output_fd);
        if (r < 0)
            return r;
        j->has_output_poll = true;
        j->handles++;
        r = uv_poll_start(&j->output_poll, UV_READABLE, on_output);
    }
    if (r < 0)
        return r;
    if (j->pidfd >= 0 && uv_poll_init(j->loop, &j->pid_poll, j->pidfd) == 0) {
        j->has_pid_poll = true;
        j->handles++;
        return uv_poll_start(&j->pid_poll, UV_READABLE, on_pidfd);
    }
    if (j->adopted)
        return UV_ENOSYS;
    r = uv_signal_init(j->loop, &j->sigchld);
    if (r < 0)
        return r;
    j->has_sigchld = true;
    j->handles++;
    r = uv_signal_start(&j->sigchld, on_sigchld, SIGCHLD);
    if (r == 0) /* it may have ended before the signal was watched */
        uv_timer_start(&j->timer, on_first_look, 0, 0);
    return r;
}

static void signal_job(struct launch_job *j, int signo)
{
    if (j->adopted)
        process_signal(j->pidfd, j->pid, signo);
    else
        kill(-j->pid, signo);
}

static void exec_close(struct launch_job *j, void (*closed)(void *arg), void *arg)
{
    j->closing = true;
    j->closed = closed;
    j->closed_arg = arg;
    uv_timer_stop(&j->timer);
    if (j->reaped) {
        close_all(j);
        return;
    }
    signal_job(j, SIGKILL);
    end_output(j); /* close_all follows when the child is reaped */
    if (j->has_sigchld)
        uv_timer_start(&j->timer, on_first_look, 0, 0);
}

static void exec_leave(struct launch_job *j, void (*closed)(void *arg), void *arg)
{
    j->closing = true;
    j->closed = closed;
    j->closed_arg = arg;
    uv_timer_stop(&j->timer);
    close_all(j);
}

static struct launch_job *job_new(uv_loop_t *loop, const struct launch_events *events, void *arg)
{
    struct launch_job *j = mem_new(struct launch_job);
    j->loop = loop;
    j->events = *events;
    j->arg = arg;
    j->output_fd = -1;
    return j;
}

/* A job that cannot be watched is none. */
static enum rc begin(struct launch_job *j, const char *what, struct launch_job **ret_job, struct err *err)
{
    int r = arm(j);
    if (r == 0) {
        *ret_job = j;
        return RC_OK;
    }
    if (!j->adopted) {
        kill(-j->pid, SIGKILL);
        while (waitpid(j->pid, &j->wait_status, 0) < 0 && errno == EINTR)
            ;
    }
    j->reaped = true;
    j->closing = true;
    close_all(j);
    return err_set(err, RC_IO, "cannot watch %s: %s", what, uv_strerror(r));
}

static enum rc exec_start(uv_loop_t *loop, const struct launch_spec *spec, const struct launch_events *events,
                          void *arg, struct launch_job **ret_job, struct err *err)
{
    if (!spec->argv || !spec->argv[0] || (spec->detach && !spec->log_path))
        return err_set(err, RC_INVALID, "a job without a program, or a detached one without a log");
    struct spawn_child child;
    struct spawn_options opt = {.argv = spec->argv, .env = spec->env, .oom_score_adj = spec->oom_score_adj};
    int fd = -1;
    if (spec->detach) {
        fd = output_file_new(spec->log_path);
        if (fd < 0)
            return err_sys(err, RC_IO, "cannot write %s", spec->log_path);
        opt.output = fd;
        opt.session = true;
        opt.known = spec->known;
        opt.arg = arg;
    } else {
        opt.death_signal = SIGKILL;
    }
    enum rc rc = spawn_start(&opt, &child, err);
    if (fd >= 0)
        close(fd);
    if (rc != RC_OK)
        return rc;
    struct launch_job *j = job_new(loop, events, arg);
    j->pid = child.pid;
    j->pidfd = child.pidfd;
    j->output_fd = child.output;
    output_init(&j->output, spec->detach ? NULL : spec->log_path, spec->log_tail_bytes);
    if (spec->detach)
        (void)!follow_start(loop, spec->log_path, 0, on_bytes, j, &j->follow, NULL);
    return begin(j, spec->argv[0], ret_job, err);
}

/* The end of what it wrote so far, and how far that goes. */
static uint64_t read_tail(struct launch_job *j, const char *path)
{
    struct stat st;
    char chunk[16384];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    off_t end = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : 0;
    off_t at = end > (off_t)j->output.tail_max ? end - (off_t)j->output.tail_max : 0;
    while (at < end) {
        size_t want = end - at < (off_t)sizeof chunk ? (size_t)(end - at) : sizeof chunk;
        ssize_t n = pread(fd, chunk, want, at);
        if (n <= 0)
            break;
        output_add(&j->output, chunk, (size_t)n, NULL, NULL);
        at += n;
    }
    close(fd);
    return (uint64_t)at;
}

static enum rc exec_adopt(uv_loop_t *loop, const struct launch_found *found,
                          const struct launch_events *events, void *arg, struct launch_job **ret_job,
                          struct err *err)
{
    int pidfd;
    char what[40];
    enum rc rc = process_hold(found->pid, found->start_ticks, &pidfd, err);
    if (rc != RC_OK)
        return rc;
    struct launch_job *j = job_new(loop, events, arg);
    j->adopted = true;
    j->pid = found->pid;
    j->pidfd = pidfd;
    output_init(&j->output, NULL, found->log_tail_bytes);
    if (found->log_path) {
        uint64_t from = found->replay ? 0 : read_tail(j, found->log_path);
        (void)!follow_start(loop, found->log_path, from, on_bytes, j, &j->follow, NULL);
    }
    snprintf(what, sizeof what, "process %ld", (long)found->pid);
    return begin(j, what, ret_job, err);
}

static void exec_signal(struct launch_job *j, int signo)
{
    if (!j->reaped)
        signal_job(j, signo);
}

static pid_t exec_pid(const struct launch_job *j)
{
    return j->pid;
}

static struct str exec_log_tail(const struct launch_job *j)
{
    return output_tail(&j->output);
}

extern const struct launch_ops launch_exec;
const struct launch_ops launch_exec = {
    .name = "exec",
    .start = exec_start,
    .adopt = exec_adopt,
    .leave = exec_leave,
    .signal = exec_signal,
    .pid = exec_pid,
    .log_tail = exec_log_tail,
    .close = exec_close,
};
