/* Short-lived programs: see run.h. */
#include "os/run.h"

#include "base/clock.h"
#include "os/file.h"
#include "os/spawn.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reads until the end of the output; false when the deadline passed first. */
static bool drain(int fd, uint64_t deadline_ms, size_t max_bytes, struct buf *out)
{
    size_t kept = 0;
    char chunk[8192];
    for (;;) {
        uint64_t now = clock_mono_ms();
        if (now >= deadline_ms)
            return false;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, (int)(deadline_ms - now));
        if (ready < 0 && errno != EINTR)
            return true;
        if (ready <= 0)
            continue;
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return true;
        if (n < 0)
            continue;
        size_t take = (size_t)n < max_bytes - kept ? (size_t)n : max_bytes - kept;
        buf_append(out, chunk, take);
        kept += take;
    }
}

/* Waits for the end; false when the deadline passed first. */
static bool wait_exit(const struct spawn_child *c, uint64_t deadline_ms, int *ret_status)
{
    for (;;) {
        pid_t r = waitpid(c->pid, ret_status, WNOHANG);
        if (r == c->pid || (r < 0 && errno != EINTR))
            return true;
        uint64_t now = clock_mono_ms();
        if (now >= deadline_ms)
            return false;
        struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
        int ms = c->pidfd >= 0 ? (int)(deadline_ms - now) : 5;
        if (poll(&p, c->pidfd >= 0 ? 1 : 0, ms) < 0 && errno != EINTR)
            return false;
    }
}

enum rc run_capture(const char *const *argv, const char *const *env, unsigned timeout_ms, size_t max_bytes,
                    struct buf *out, int *ret_wait_status, struct err *err)
{
    char program[PATH_MAX];
    if (!file_find_program(argv[0], program, sizeof program)) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "no program \"%s\"", argv[0]);
        err_hint(err, "install it or put it on PATH");
        return rc;
    }
    const char *args[64] = {program};
    size_t n = 1;
    for (; argv[n]; n++) {
        if (n + 1 >= sizeof args / sizeof *args)
            return err_set(err, RC_INVALID, "too many arguments for %s", argv[0]);
        args[n] = argv[n];
    }
    struct spawn_options opt = {
        .argv = args, .env = env ? env : (const char *const *)environ, .death_signal = SIGKILL};
    struct spawn_child c;
    enum rc rc = spawn_start(&opt, &c, err);
    if (rc != RC_OK)
        return rc;
    uint64_t deadline = clock_mono_ms() + timeout_ms;
    int status = 0;
    bool in_time = drain(c.output, deadline, max_bytes, out) && wait_exit(&c, deadline, &status);
    if (!in_time) {
        kill(-c.pid, SIGKILL);
        while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
            ;
        rc = err_set(err, RC_TIMEOUT, "%s did not end within %u ms", program, timeout_ms);
    }
    close(c.output);
    if (c.pidfd >= 0)
        close(c.pidfd);
    if (in_time)
        *ret_wait_status = status;
    return rc;
}
