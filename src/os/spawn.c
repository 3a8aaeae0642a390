/* Starting supervised children: see spawn.h. Between fork and exec only async-signal-safe calls are made. */
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void reset_signals(void)
{
    struct sigaction def = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            sigaction(sig, &def, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_from(int first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)first, ~0u, 0u) == 0)
        return;
#endif
    for (int fd = first; fd < 65536; fd++)
        close(fd);
}

/* Writes the number without stdio: called between fork and exec. */
static void set_oom_score(int value)
{
    char digits[16];
    int n = 0, v = value < 0 ? -value : value;
    do
        digits[sizeof digits - 1 - (size_t)n++] = (char)('0' + v % 10);
    while ((v /= 10) && n < 10);
    if (value < 0)
        digits[sizeof digits - 1 - (size_t)n++] = '-';
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, digits + sizeof digits - (size_t)n, (size_t)n) < 0)
        errno = 0; /* the kernel may refuse; the child runs all the same */
    close(fd);
}

enum { REPORT_FD = 3, GATE_FD, FIRST_SPARE }; /* in the child */

/* Ends of pipes on the child's side and on ours; -1 = none. */
struct pipes {
    int out[2], report[2], gate[2]; /* output, failure of exec, leave to exec */
};

/* The end of the parent without its leave reads as the end of the pipe. */
static bool has_leave(void)
{
    char byte;
    ssize_t n;
    do
        n = read(GATE_FD, &byte, 1);
    while (n < 0 && errno == EINTR);
    close(GATE_FD);
    return n == 1;
}

__attribute__((noreturn)) static void child(const struct spawn_options *opt, pid_t parent,
                                            const struct pipes *p)
{
    int report = p->report[1];
    if (opt->session)
        setsid();
    else
        setpgid(0, 0);
    if (opt->death_signal) {
        prctl(PR_SET_PDEATHSIG, opt->death_signal);
        if (getppid() != parent) /* it died before the signal was set */
            _exit(127);
    }
    reset_signals();
    int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(p->out[1], 1) < 0 || dup2(p->out[1], 2) < 0 ||
        dup2(report, REPORT_FD) < 0 || (opt->known && dup2(p->gate[0], GATE_FD) < 0))
        goto failed;
    report = REPORT_FD;
    fcntl(report, F_SETFD, FD_CLOEXEC);
    close_from(opt->known ? FIRST_SPARE : GATE_FD); /* locks of ours, and our end of the gate */
    if (opt->oom_score_adj)
        set_oom_score(opt->oom_score_adj);
    if (opt->known && !has_leave())
        _exit(127);
    execve(opt->argv[0], (char *const *)(uintptr_t)opt->argv, (char *const *)(uintptr_t)opt->env);
failed:;
    int e = errno;
    if (write(report, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_pipes(struct pipes *p)
{
    for (int i = 0; i < 2; i++) {
        close_one(&p->out[i]);
        close_one(&p->report[i]);
        close_one(&p->gate[i]);
    }
}

/* The ends that the child duplicates must not lie where it puts them, or dup2 would close one that is still
 * needed. */
static bool lift(int *fd)
{
    if (*fd < 0 || *fd >= FIRST_SPARE)
        return true;
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_SPARE);
    if (high < 0)
        return false;
    close(*fd);
    *fd = high;
    return true;
}

static bool open_pipes(const struct spawn_options *opt, struct pipes *p)
{
    *p = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    if (opt->output)
        p->out[1] = fcntl(opt->output, F_DUPFD_CLOEXEC, FIRST_SPARE);
    else if (pipe2(p->out, O_CLOEXEC) < 0)
        return false;
    return p->out[1] >= 0 && pipe2(p->report, O_CLOEXEC) == 0 &&
           (!opt->known || pipe2(p->gate, O_CLOEXEC) == 0) && lift(&p->out[1]) && lift(&p->report[1]) &&
           lift(&p->gate[0]);
}

static void reap(pid_t pid)
{
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

/* Leave to go on, once all is known of it. */
static enum rc give_leave(const struct spawn_options *opt, pid_t pid, struct pipes *p, struct err *err)
{
    enum rc rc = opt->known ? opt->known(opt->arg, pid, err) : RC_OK;
    if (rc == RC_OK && opt->known && write(p->gate[1], "", 1) != 1)
        rc = err_sys(err, RC_IO, "cannot start %s", opt->argv[0]);
    close_one(&p->gate[1]);
    return rc;
}

/* The program runs, or why not: exec closes the pipe. */
static enum rc hear(const struct spawn_options *opt, const struct pipes *p, struct err *err)
{
    int failed = 0;
    ssize_t n;
    do
        n = read(p->report[0], &failed, sizeof failed);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof failed)
        return RC_OK;
    errno = failed;
    enum rc rc = err_sys(err,
                         failed == ENOENT   ? RC_NOT_FOUND
                         : failed == EACCES ? RC_DENIED
                                            : RC_IO,
                         "cannot run %s", opt->argv[0]);
    err_hint(err, "check that the file exists, is executable and is built for this machine");
    return rc;
}

static pid_t fork_quietly(const struct spawn_options *opt, const struct pipes *p)
{
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old); /* no handler of ours may run in the child */
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child(opt, parent, p);
    int saved = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return pid;
}

enum rc spawn_start(const struct spawn_options *opt, struct spawn_child *ret_child, struct err *err)
{
    struct pipes p;
    enum rc rc;
    if (!open_pipes(opt, &p)) {
        rc = err_sys(err, RC_IO, "cannot make a pipe for %s", opt->argv[0]);
        close_pipes(&p);
        return rc;
    }
    pid_t pid = fork_quietly(opt, &p);
    if (pid < 0) {
        rc = err_sys(err, RC_IO, "cannot start %s", opt->argv[0]);
        close_pipes(&p);
        return rc;
    }
    close_one(&p.out[1]);
    close_one(&p.report[1]);
    close_one(&p.gate[0]);
    if (!opt->session)
        setpgid(pid, pid); /* both sides set it: whoever comes first */
    rc = give_leave(opt, pid, &p, err);
    if (rc == RC_OK)
        rc = hear(opt, &p, err);
    if (rc != RC_OK) {
        close_pipes(&p);
        reap(pid);
        return rc;
    }
    close_one(&p.report[0]);
    if (p.out[0] >= 0)
        fcntl(p.out[0], F_SETFL, fcntl(p.out[0], F_GETFL) | O_NONBLOCK);
    *ret_child = (struct spawn_child){.pid = pid, .output = p.out[0], .pidfd = -1};
#ifdef SYS_pidfd_open
    ret_child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (ret_child->pidfd >= 0)
        fcntl(ret_child->pidfd, F_SETFD, FD_CLOEXEC);
#endif
    return RC_OK;
}
