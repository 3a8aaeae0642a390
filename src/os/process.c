/* Other processes: see process.h. */
#include "os/process.h"

#include "os/file.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PIDFD_SIGNAL_PROCESS_GROUP
#define PIDFD_SIGNAL_PROCESS_GROUP (1u << 2) /* Linux 6.9 */
#endif

static bool read_of(pid_t pid, const char *name, struct buf *out)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    return file_read(path, 0, out, NULL) == RC_OK && out->n > 0;
}

/* "PID (name) state ppid …": the name may hold parentheses and spaces, and ends with the last parenthesis. */
static bool start_of(struct str stat, uint64_t *ret_ticks)
{
    while (str_find(stat, STR(") ")) >= 0)
        (void)str_cut(&stat, ')');
    stat = str_trim(stat);
    struct str word = str_cut(&stat, ' '); /* field 3 */
    if (str_eq_c(word, "Z") || str_eq_c(word, "X"))
        return false;
    for (unsigned field = 4; field <= 22 && stat.n > 0; field++)
        word = str_cut(&stat, ' ');
    return stat.n > 0 && str_u64(word, ret_ticks);
}

bool process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
    struct buf text = {0};
    bool ok = read_of(pid, "stat", &text) && start_of(buf_str(&text), ret_ticks);
    buf_release(&text);
    return ok;
}

bool process_command_hash(pid_t pid, uint64_t *ret_hash)
{
    struct buf text = {0};
    bool ok = read_of(pid, "cmdline", &text);
    if (ok)
        *ret_hash = str_hash(buf_str(&text), 1);
    buf_release(&text);
    return ok;
}

bool process_is_ours(pid_t pid)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%ld", (long)pid);
    return stat(path, &st) == 0 && st.st_uid == geteuid();
}

void process_boot_id(char *out, size_t cap)
{
    struct buf text = {0};
    out[0] = '\0';
    if (file_read("/proc/sys/kernel/random/boot_id", 0, &text, NULL) == RC_OK) {
        struct str id = str_trim(buf_str(&text));
        if (id.n > 0 && id.n < cap)
            snprintf(out, cap, "%.*s", STR_ARG(id));
    }
    buf_release(&text);
}

static int pidfd_of(pid_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, pid, 0); /* always close-on-exec */
#else
    errno = ENOSYS;
    return -1;
#endif
}

bool process_can_hold(void)
{
    int fd = pidfd_of(getpid());
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

enum rc process_hold(pid_t pid, uint64_t start_ticks, int *ret_fd, struct err *err)
{
    uint64_t ticks;
    int fd = pidfd_of(pid);
    if (fd < 0 && errno != ESRCH && errno != EINVAL)
        return err_sys(err, errno == ENOSYS || errno == EPERM ? RC_UNSUPPORTED : RC_IO,
                       "cannot hold process %ld", (long)pid);
    if (fd < 0 || !process_start_ticks(pid, &ticks) || ticks != start_ticks) {
        if (fd >= 0)
            close(fd);
        return err_set(err, RC_NOT_FOUND, "process %ld is gone%s", (long)pid,
                       fd >= 0 ? ", and another one has its number" : "");
    }
    *ret_fd = fd;
    return RC_OK;
}

bool process_is_over(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;
    do
        r = poll(&p, 1, 0);
    while (r < 0 && errno == EINTR);
    return r > 0 && (p.revents & POLLIN);
}

/* A group's number is not given away as long as its leader is there. */
void process_signal(int fd, pid_t pid, int signo)
{
    if (process_is_over(fd))
        return;
#ifdef SYS_pidfd_send_signal
    if (syscall(SYS_pidfd_send_signal, fd, signo, NULL, PIDFD_SIGNAL_PROCESS_GROUP) == 0)
        return;
#endif
    if (getpgid(pid) == pid)
        kill(-pid, signo);
    else
        kill(pid, signo);
}
