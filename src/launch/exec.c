/* The launcher "exec": a child of this process. Layer launch; loop thread.
 *
 * The child leads a process group of its own and dies with us (os/spawn.h). Its end comes from a pidfd polled
 * by the loop, or from SIGCHLD on kernels without one. `exited` comes when the child is reaped and its output
 * has ended; a grandchild that keeps the pipe open is given OUTPUT_GRACE_MS. The group is killed while the
 * leader is still a zombie, so that its number cannot belong to anyone else. Handles are closed first, memory
 * is freed by the last close callback. */
#include "launch/launch.h"

#include "base/mem.h"
#include "launch/output.h"
#include "os/spawn.h"

#include <errno.h>
#include <signal.h>
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
    unsigned handles; /* not yet closed */
    uv_poll_t output_poll, pid_poll;
    uv_signal_t sigchld;
    uv_timer_t timer; /* grace for the output; first look without a pidfd */
    bool has_output_poll, has_pid_poll, has_sigchld;
    struct output output;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void on_line(void *arg, struct str line)
{
    struct launch_job *j = arg;
    if (!j->closing && j->events.line)
        j->events.line(j->arg, line);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct launch_job *j = h->data;
    if (--j->handles > 0)
        return;
    output_release(&j->output);
    void (*closed)(void *) = j->closed;
    void *arg = j->closed_arg;
    free(j);
    if (closed)
        closed(arg);
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
    close_poll(j, j->has_pid_poll, &j->pid_poll, &j->pidfd);
    if (j->has_sigchld)
        close_handle(j, (uv_handle_t *)&j->sigchld);
    close_handle(j, (uv_handle_t *)&j->timer);
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
static void look_for_end(struct launch_job *j)
{
    if (j->reaped)
        return;
    siginfo_t info = {0};
    int r;
    do
        r = waitid(P_PID, (id_t)j->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    while (r < 0 && errno == EINTR);
    if (r == 0 && info.si_pid == 0)
        return;
    if (r == 0) {
        kill(-j->pid, SIGKILL); /* what is left of its group; the zombie still holds the number */
        while (waitpid(j->pid, &j->wait_status, 0) < 0 && errno == EINTR)
            ;
    } /* else somebody else reaped it: the status is lost, the end is certain */
    j->reaped = true;
    j->pid = 0;
    if (j->has_pid_poll)
        uv_poll_stop(&j->pid_poll);
    if (j->has_sigchld)
        uv_signal_stop(&j->sigchld);
    if (!j->closing && !j->output_ended) {
        if (read_output(j, READ_BUDGET))
            end_output(j);
        else
            uv_timer_start(&j->timer, on_grace_over, OUTPUT_GRACE_MS, 0);
    }
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
    j->handles = 1;
    int r = uv_poll_init(j->loop, &j->output_poll, j->output_fd);
    if (r < 0)
        return r;
    j->has_output_poll = true;
    j->handles++;
    r = uv_poll_start(&j->output_poll, UV_READABLE, on_output);
    if (r < 0)
        return r;
    if (j->pidfd >= 0 && uv_poll_init(j->loop, &j->pid_poll, j->pidfd) == 0) {
        j->has_pid_poll = true;
        j->handles++;
        return uv_poll_start(&j->pid_poll, UV_READABLE, on_pidfd);
    }
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
    kill(-j->pid, SIGKILL);
    end_output(j); /* close_all follows when the child is reaped */
    if (j->has_sigchld)
        uv_timer_start(&j->timer, on_first_look, 0, 0);
}

static enum rc exec_start(uv_loop_t *loop, const struct launch_spec *spec, const struct launch_events *events,
                          void *arg, struct launch_job **ret_job, struct err *err)
{
    if (!spec->argv || !spec->argv[0])
        return err_set(err, RC_INVALID, "a job without a program");
    struct spawn_child child;
    struct spawn_options opt = {
        .argv = spec->argv, .env = spec->env, .oom_score_adj = spec->oom_score_adj, .death_signal = SIGKILL};
    enum rc rc = spawn_start(&opt, &child, err);
    if (rc != RC_OK)
        return rc;
    struct launch_job *j = mem_new(struct launch_job);
    j->loop = loop;
    j->events = *events;
    j->arg = arg;
    j->pid = child.pid;
    j->pidfd = child.pidfd;
    j->output_fd = child.output;
    output_init(&j->output, spec->log_path, spec->log_tail_bytes);
    int r = arm(j);
    if (r < 0) {
        kill(-j->pid, SIGKILL);
        while (waitpid(j->pid, &j->wait_status, 0) < 0 && errno == EINTR)
            ;
        j->reaped = true;
        j->closing = true;
        close_all(j);
        return err_set(err, RC_IO, "cannot watch %s: %s", spec->argv[0], uv_strerror(r));
    }
    *ret_job = j;
    return RC_OK;
}

static void exec_signal(struct launch_job *j, int signo)
{
    if (!j->reaped)
        kill(-j->pid, signo);
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
    .signal = exec_signal,
    .pid = exec_pid,
    .log_tail = exec_log_tail,
    .close = exec_close,
};
