/* See procs.h. Resident pages less those shared with files (proc(5): statm) come from one short file a
 * process, where status would be a long one. */
#include "os/procs.h"

#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_small(const char *proc_root, pid_t pid, const char *file, char *out, size_t cap)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s/%ld/%s", proc_root, (long)pid, file);
    if (n < 0 || (size_t)n >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, out, cap - 1);
    close(fd);
    if (got <= 0)
        return false;
    out[got] = '\0';
    return true;
}

bool procs_name(const char *proc_root, pid_t pid, char ret_name[32])
{
    char text[32];
    if (!read_small(proc_root, pid, "comm", text, sizeof text))
        return false;
    struct str all = str_from(text), name = str_cut(&all, '\n');
    for (size_t i = 0; i < name.n; i++)
        ret_name[i] = (unsigned char)name.p[i] < 0x20 || name.p[i] == 0x7f ? '?' : name.p[i];
    ret_name[name.n] = '\0';
    return name.n > 0;
}

static bool own_bytes(const char *proc_root, pid_t pid, uint64_t *ret_bytes)
{
    char text[128];
    uint64_t size, resident, shared, page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!read_small(proc_root, pid, "statm", text, sizeof text))
        return false;
    struct str rest = str_from(text);
    if (!str_u64(str_cut(&rest, ' '), &size) || !str_u64(str_cut(&rest, ' '), &resident) ||
        !str_u64(str_cut(&rest, ' '), &shared))
        return false;
    resident = resident > shared ? resident - shared : 0;
    return !__builtin_mul_overflow(resident, page, ret_bytes);
}

static bool is_one_of(pid_t pid, const pid_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == pid)
            return true;
    return false;
}

/* Keeps ret sorted, largest first. */
static size_t insert(struct proc_use *ret, size_t n, size_t cap, pid_t pid, uint64_t bytes)
{
    if (n == cap && ret[n - 1].bytes >= bytes)
        return n;
    size_t at = n < cap ? n++ : cap - 1;
    for (; at > 0 && ret[at - 1].bytes < bytes; at--)
        ret[at] = ret[at - 1];
    ret[at] = (struct proc_use){.pid = pid, .bytes = bytes};
    return n;
}

size_t procs_largest(const char *proc_root, const pid_t *skip, size_t n_skip, struct proc_use *ret,
                     size_t cap)
{
    size_t n = 0, named = 0;
    DIR *dir = cap ? opendir(proc_root) : NULL;
    if (!dir)
        return 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        uint64_t pid, bytes;
        if (!str_u64(str_from(e->d_name), &pid) || pid == 0 || pid > INT32_MAX ||
            is_one_of((pid_t)pid, skip, n_skip) || !own_bytes(proc_root, (pid_t)pid, &bytes) || bytes == 0)
            continue;
        n = insert(ret, n, cap, (pid_t)pid, bytes);
    }
    closedir(dir);
    for (size_t i = 0; i < n; i++)
        if (procs_name(proc_root, ret[i].pid, ret[i].name))
            ret[named++] = ret[i];
    return named;
}
