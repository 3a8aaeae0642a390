/* The kernel's out-of-memory kills: see oom.h. */
#include "os/oom.h"

#include "base/mem.h"
#include "os/file.h"

#include <stdio.h>
#include <string.h>
#include <sys/klog.h>

#define KLOG_READ_ALL 3 /* syslog(2): SYSLOG_ACTION_READ_ALL, the last bytes of the ring */
#define KLOG_BYTES    (64 * 1024)

/* "oom_kill 3" in a line of its own. */
static bool counter(const char *path, uint64_t *ret)
{
    struct buf b = {0};
    bool found = false;
    if (!path[0] || file_read(path, 0, &b, NULL) != RC_OK)
        return false;
    for (struct str rest = buf_str(&b); rest.n > 0 && !found;) {
        struct str value = str_cut(&rest, '\n'), key = str_cut(&value, ' ');
        found = str_eq_c(key, "oom_kill") && str_u64(str_trim(value), ret);
    }
    buf_release(&b);
    return found;
}

/* A group's file: below its own path, or at the mount, which a namespace's root is. */
static void find_group(const char *mount, struct str path, const char *file, char *out, size_t cap)
{
    uint64_t n;
    int w = snprintf(out, cap, "%s%.*s/%s", mount, path.n > 1 ? (int)path.n : 0, path.p, file);
    if (w > 0 && (size_t)w < cap && counter(out, &n))
        return;
    w = snprintf(out, cap, "%s/%s", mount, file);
    if (w < 0 || (size_t)w >= cap || !counter(out, &n))
        out[0] = '\0';
}

void oom_find(const char *proc, const char *sys, struct oom_paths *ret)
{
    char path[64], mount[128];
    struct buf b = {0};
    *ret = (struct oom_paths){0};
    snprintf(ret->vmstat, sizeof ret->vmstat, "%s/vmstat", proc);
    snprintf(path, sizeof path, "%s/self/cgroup", proc);
    if (file_read(path, 0, &b, NULL) != RC_OK)
        return;
    for (struct str rest = buf_str(&b); rest.n > 0 && !ret->group[0];) { /* "4:memory:/a", "0::/a" */
        struct str line = str_cut(&rest, '\n'), number = str_cut(&line, ':'), list = str_cut(&line, ':');
        bool v2 = str_eq_c(number, "0") && list.n == 0, v1 = str_eq_c(list, "memory");
        snprintf(mount, sizeof mount, "%s/fs/cgroup%s", sys, v1 ? "/memory" : "");
        if (v1 || v2)
            find_group(mount, line, v1 ? "memory.oom_control" : "memory.events", ret->group,
                       sizeof ret->group);
    }
    buf_release(&b);
}

void oom_read(const struct oom_paths *p, struct oom_count *ret)
{
    *ret = (struct oom_count){0};
    ret->machine_known = counter(p->vmstat, &ret->machine);
    ret->group_known = counter(p->group, &ret->group);
}

bool oom_log_names(struct str log, pid_t pid)
{
    char text[48];
    int n = snprintf(text, sizeof text, "Killed process %ld ", (long)pid);
    return pid > 0 && str_find(log, (struct str){text, (size_t)n}) >= 0;
}

bool oom_is_named(pid_t pid)
{
    auto_free char *log = mem_calloc(KLOG_BYTES, 1);
    int n = klogctl(KLOG_READ_ALL, log, KLOG_BYTES);
    return n > 0 && oom_log_names((struct str){log, (size_t)n}, pid);
}

enum oom_verdict oom_judge(const struct oom_count *before, const struct oom_count *after, bool named)
{
    bool group = before->group_known && after->group_known && after->group > before->group;
    bool known = before->machine_known && after->machine_known;
    bool machine = known && after->machine > before->machine;
    if (!group && !machine)
        return known ? OOM_NONE : OOM_UNKNOWN;
    return named ? OOM_NAMED : group ? OOM_GROUP : OOM_SOMEONE;
}
