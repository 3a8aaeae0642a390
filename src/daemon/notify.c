/* Talking to the service manager: see notify.h. Protocol: sd_notify(3), sd_watchdog_enabled(3), and
 * $JOURNAL_STREAM, $INVOCATION_ID and $SYSTEMD_EXEC_PID in systemd.exec(5). */
#include "daemon/notify.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

bool notify_send(const char *fmt, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof sa.sun_path || (path[0] != '/' && path[0] != '@'))
        return false;
    memcpy(sa.sun_path, path, n);
    if (path[0] == '@')
        sa.sun_path[0] = '\0'; /* the abstract name space */
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (len <= 0)
        return false;
    size_t size = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    socklen_t sa_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    ssize_t sent = sendto(fd, text, size, MSG_NOSIGNAL, (struct sockaddr *)&sa, sa_len);
    close(fd);
    return sent == (ssize_t)size;
}

bool notify_reloading(void)
{
    return notify_send("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_mono_us());
}

uint64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us = 0, wanted = 0;
    if (!usec || !str_u64(str_from(usec), &us) || us < 2000)
        return 0;
    if (pid && (!str_u64(str_from(pid), &wanted) || wanted != (uint64_t)getpid()))
        return 0;
    return us / 2000; /* half of it */
}

/* $SYSTEMD_EXEC_PID is set since systemd 248; before that a shell below the unit cannot be told apart. */
bool notify_unit_spares_children(void)
{
    const char *mode = getenv("ARRIERO_KILL_MODE"), *pid = getenv("SYSTEMD_EXEC_PID");
    uint64_t started = 0;
    if (!mode || strcmp(mode, "process") != 0 || !getenv("INVOCATION_ID"))
        return false;
    return !pid || (str_u64(str_from(pid), &started) && started == (uint64_t)getpid());
}

bool notify_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    uint64_t dev, ino;
    if (!stream || fstat(STDERR_FILENO, &st) != 0)
        return false;
    struct str rest = str_from(stream), first = str_cut(&rest, ':');
    return str_u64(first, &dev) && str_u64(rest, &ino) && dev == st.st_dev && ino == st.st_ino;
}
