/* Preloaded into the daemon: a disk that fills up and a clock that jumps, at the word of the harness. Tests
 * only.
 *
 * The harness and this library map the same file, named by CHAOS_FAULTS (struct control;
 * tests/chaos/faults.py writes it). CHAOS_DISKS names up to DISKS folders, separated by colons: while bit n
 * of `full` is set, what would make a file below the n-th folder longer or new fails with ENOSPC, as on a
 * full disk; reading, deleting and overwriting go on. `jump_ms` is added to CLOCK_REALTIME, however it is
 * read; CLOCK_MONOTONIC does not jump on Linux, and does not here.
 *
 * LD_PRELOAD leaves the environment at once: the daemon's children live without faults. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DISKS 4

struct control {
    _Atomic int64_t jump_ms;
    _Atomic uint32_t full;
    _Atomic uint32_t refused; /* writes that failed for it: tells the harness that the fault was met */
};

static struct control none, *control = &none;
static char disks[DISKS][PATH_MAX];
static size_t n_disks;

static struct {
    int (*clock_gettime)(clockid_t, struct timespec *);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*mkdir)(const char *, mode_t);
    int (*rename)(const char *, const char *);
    int (*ftruncate)(int, off_t);
    int (*posix_fallocate)(int, off_t, off_t);
    FILE *(*fopen)(const char *, const char *);
} real;

#define FIND(name) (*(void **)&real.name = dlsym(RTLD_NEXT, #name))

static void find(void)
{
    FIND(clock_gettime);
    FIND(write);
    FIND(pwrite);
    FIND(writev);
    FIND(open);
    FIND(openat);
    FIND(mkdir);
    FIND(rename);
    FIND(ftruncate);
    FIND(posix_fallocate);
    FIND(fopen);
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("CHAOS_FAULTS"), *list = getenv("CHAOS_DISKS");
    find();
    unsetenv("LD_PRELOAD");
    for (const char *p = list; p && *p && n_disks < DISKS; p += strcspn(p, ":"), p += *p == ':')
        snprintf(disks[n_disks++], PATH_MAX, "%.*s", (int)strcspn(p, ":"), p);
    int fd = path ? real.open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        control = at;
    close(fd);
}

/* ---- the disk ---- */

static int is_on_full_disk(const char *path)
{
    uint32_t full = control->full;
    for (size_t i = 0; i < n_disks; i++) {
        size_t n = strlen(disks[i]);
        if ((full & 1u << i) && strncmp(path, disks[i], n) == 0 && (path[n] == '/' || path[n] == '\0')) {
            control->refused++;
            return 1;
        }
    }
    return 0;
}

static int fd_is_full(int fd, off_t end)
{
    char link[48], path[PATH_MAX];
    struct stat st;
    int saved = errno;
    if (!control->full)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    int full = 0;
    if (n > 0 && path[0] == '/' && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        path[n] = '\0';
        full = (end < 0 || end > st.st_size) && is_on_full_disk(path);
    }
    errno = saved;
    return full;
}

static off_t end_of_write(int fd, size_t n)
{
    int flags = fcntl(fd, F_GETFL);
    off_t at = flags >= 0 && (flags & O_APPEND) ? -1 : lseek(fd, 0, SEEK_CUR);
    return at < 0 ? -1 : at + (off_t)n;
}

static int no_space(void)
{
    errno = ENOSPC;
    return -1;
}

ssize_t write(int fd, const void *data, size_t n)
{
    return control->full && fd_is_full(fd, end_of_write(fd, n)) ? no_space() : real.write(fd, data, n);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    return control->full && fd_is_full(fd, -1) ? no_space() : real.writev(fd, v, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return fd_is_full(fd, at + (off_t)n) ? no_space() : real.pwrite(fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    return pwrite(fd, data, n, at);
}

int ftruncate(int fd, off_t size)
{
    return fd_is_full(fd, size) ? no_space() : real.ftruncate(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    return fd_is_full(fd, at + n) ? ENOSPC : real.posix_fallocate(fd, at, n);
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    return posix_fallocate(fd, at, n);
}

/* A new file needs a place in its folder. Relative paths are not the daemon's habit. */
static int is_refused(const char *path, int flags)
{
    return control->full && (flags & O_CREAT) && access(path, F_OK) != 0 && is_on_full_disk(path);
}

static mode_t mode_of(int flags, va_list ap)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return is_refused(path, flags) ? no_space() : real.open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return is_refused(path, flags) ? no_space() : real.open(path, flags | O_LARGEFILE, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return path[0] == '/' && is_refused(path, flags) ? no_space() : real.openat(dir, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
    if (mode[0] != 'r' && is_refused(path, O_CREAT)) {
        errno = ENOSPC;
        return NULL;
    }
    return real.fopen(path, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return is_refused(path, O_CREAT) ? no_space() : real.mkdir(path, mode);
}

/* ---- the clock ---- */

static int jumps(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = real.clock_gettime(id, t);
    int64_t jump = rc == 0 && jumps(id) ? control->jump_ms : 0;
    if (jump) {
        int64_t ns = t->tv_nsec + jump % 1000 * 1000000;
        t->tv_sec += (time_t)(jump / 1000 + (ns >= 1000000000) - (ns < 0));
        t->tv_nsec = (long)((ns + 1000000000) % 1000000000);
    }
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
