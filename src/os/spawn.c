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

__attribute__((noreturn)) static void child(const struct spawn_options *opt, pid_t parent, int out,
                                            int report)
{
    setpgid(0, 0);
    if (opt->death_signal) {
        prctl(PR_SET_PDEATHSIG, opt->death_signal);
        if (getppid() != parent) /* it died before the signal was set */
            _exit(127);
    }
    reset_signals();
    int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || dup2(report, 3) < 0)
        goto failed;
    report = 3;
    fcntl(report, F_SETFD, FD_CLOEXEC);
    close_from(4);
    if (opt->oom_score_adj)
        set_oom_score(opt->oom_score_adj);
    execve(opt->argv[0], (char *const *)(uintptr_t)opt->argv, (char *const *)(uintptr_t)opt->env);
failed:;
    int e = errno;
    if (write(report, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

enum rc spawn_start(const struct spawn_options *opt, struct spawn_child *ret_child, struct err *err)
{
    int out[2] = {-1, -1}, report[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot make a pipe for %s", opt->argv[0]);
        if (out[0] >= 0)
            close(out[0]), close(out[1]);
        return rc;
    }
    /* The ends that the child duplicates must not lie on 0…3, or dup2 would close one that is still needed.
     */
    for (int i = 0; i < 2; i++) {
        int *fd = i ? &report[1] : &out[1];
        if (*fd <= 3) {
            int high = fcntl(*fd, F_DUPFD_CLOEXEC, 4);
            if (high >= 0) {
                close(*fd);
                *fd = high;
            }
        }
    }
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old); /* no handler of ours may run in the child */
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child(opt, parent, out[1], report[1]);
    int saved = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    close(out[1]);
    close(report[1]);
    if (pid < 0) {
        errno = saved;
        enum rc rc = err_sys(err, RC_IO, "cannot start %s", opt->argv[0]);
        close(out[0]);
        close(report[0]);
        return rc;
    }
    setpgid(pid, pid); /* both sides set it: whoever comes first */
    int failed = 0;
    ssize_t n;
    do
        n = read(report[0], &failed, sizeof failed);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == (ssize_t)sizeof failed) {
        close(out[0]);
        siginfo_t info;
        while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
            ;
        errno = failed;
        enum rc rc = err_sys(err,
                             failed == ENOENT   ? RC_NOT_FOUND
                             : failed == EACCES ? RC_DENIED
                                                : RC_IO,
                             "cannot run %s", opt->argv[0]);
        err_hint(err, "check that the file exists, is executable and is built for this machine");
        return rc;
    }
    fcntl(out[0], F_SETFL, fcntl(out[0], F_GETFL) | O_NONBLOCK);
    *ret_child = (struct spawn_child){.pid = pid, .output = out[0], .pidfd = -1};
#ifdef SYS_pidfd_open
    ret_child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (ret_child->pidfd >= 0)
        fcntl(ret_child->pidfd, F_SETFD, FD_CLOEXEC);
#endif
    return RC_OK;
}
