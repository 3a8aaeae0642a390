/* Limits of the process's own control groups and of all their ancestors, v1 and v2. Layer hw; one thread at a
 * time.
 *
 * Invariant: descriptors stay open from open to close, so that a sample costs one or two preads a group
 * without a limit and two more a group with one. Limits are read anew every time: they can be changed on a
 * live system.
 *
 * A group's path comes from /proc/self/cgroup. In a container without a cgroup namespace that path is the
 * host's and does not exist below the mount point; its own group then is the mount point itself, which the
 * walk reaches. */
#include "hw/hw_priv.h"

#include "base/mem.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CGROUP_LEVELS 24
/* v1 says "no limit" with LONG_MAX rounded down to a page. */
#define CGROUP_NONE (UINT64_C(1) << 60)

struct cgroup_files {     /* one flavour's names */
    const char *limit[2]; /* the hard limit, and the one above which the kernel throttles and reclaims */
    const char *used, *stat, *inactive_key;
};

static const struct cgroup_files cgroup_v1 = {
    {"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes", "memory.stat", "total_inactive_file"};
static const struct cgroup_files cgroup_v2 = {
    {"memory.max", "memory.high"}, "memory.current", "memory.stat", "inactive_file"};

struct cgroup_level {
    const struct cgroup_files *files;
    int limit[2], used, stat;
};

struct hw_cgroup {
    struct cgroup_level levels[CGROUP_LEVELS];
    size_t n_levels;
    unsigned cpus;
};

typedef void cgroup_visit(struct hw_cgroup *cg, const char *dir);

static void memory_level(struct hw_cgroup *cg, const char *dir, const struct cgroup_files *files)
{
    char path[HW_PATH];
    struct cgroup_level level = {files, {-1, -1}, -1, -1};
    if (cg->n_levels == CGROUP_LEVELS)
        return;
    for (int i = 0; i < 2; i++)
        if (files->limit[i] && hw_path(path, "%s/%s", dir, files->limit[i]))
            level.limit[i] = hw_text_open(path);
    if (level.limit[0] < 0 && level.limit[1] < 0)
        return; /* v2's root group, or a group that is not visible here */
    if (hw_path(path, "%s/%s", dir, files->used))
        level.used = hw_text_open(path);
    if (hw_path(path, "%s/%s", dir, files->stat))
        level.stat = hw_text_open(path);
    cg->levels[cg->n_levels++] = level;
}

static void memory_v1(struct hw_cgroup *cg, const char *dir)
{
    memory_level(cg, dir, &cgroup_v1);
}

static void cpus_of(struct hw_cgroup *cg, uint64_t quota_us, uint64_t period_us)
{
    if (!quota_us || !period_us)
        return;
    uint64_t cpus = quota_us / period_us + (quota_us % period_us != 0);
    if (cpus < cg->cpus)
        cg->cpus = (unsigned)cpus;
}

static void cpu_v1(struct hw_cgroup *cg, const char *dir)
{
    char path[HW_PATH];
    uint64_t quota, period; /* a quota of -1 means none, and does not parse */
    if (hw_path(path, "%s/cpu.cfs_quota_us", dir) && hw_text_u64(path, &quota) &&
        hw_path(path, "%s/cpu.cfs_period_us", dir) && hw_text_u64(path, &period))
        cpus_of(cg, quota, period);
}

static void all_v2(struct hw_cgroup *cg, const char *dir)
{
    char path[HW_PATH], line[128];
    memory_level(cg, dir, &cgroup_v2);
    if (!hw_path(path, "%s/cpu.max", dir) || !hw_text_line(path, line, sizeof(line)))
        return;
    struct str period = str_from(line);
    struct str quota = str_cut(&period, ' ');
    uint64_t quota_us, period_us;
    if (str_u64(quota, &quota_us) && str_u64(str_trim(period), &period_us)) /* "max" means none */
        cpus_of(cg, quota_us, period_us);
}

/* Visits base/path and every ancestor up to base. */
static void walk(struct hw_cgroup *cg, const char *base, struct str path, cgroup_visit *visit)
{
    char dir[HW_PATH];
    size_t n_base = strlen(base);
    /* ".." is how a namespace shows a group outside its root: only the root can be read from here. */
    if (str_find(path, STR("..")) >= 0 || !hw_path(dir, "%s%s%.*s", base, path.n ? "" : "/", STR_ARG(path)))
        hw_path(dir, "%s/", base);
    for (;;) {
        size_t n = strlen(dir);
        while (n > n_base && dir[n - 1] == '/')
            dir[--n] = '\0';
        visit(cg, dir);
        char *slash = strrchr(dir, '/');
        if (n <= n_base || !slash || (size_t)(slash - dir) < n_base)
            return;
        *slash = '\0';
    }
}

static bool controllers_have(struct str list, const char *name)
{
    while (list.n)
        if (str_eq_c(str_cut(&list, ','), name))
            return true;
    return false;
}

static void walk_v2(struct hw_cgroup *cg, const struct hw_roots *roots, struct str path)
{
    static const char *const mounts[] = {"", "/unified"}; /* alone, or beside v1 */
    for (size_t i = 0; i < TABLE_COUNT(mounts); i++) {
        char probe[HW_PATH], base[HW_PATH];
        if (hw_path(base, "%s/fs/cgroup%s", roots->sys, mounts[i]) &&
            hw_path(probe, "%s/cgroup.controllers", base) && access(probe, R_OK) == 0) {
            walk(cg, base, path, all_v2);
            return;
        }
    }
}

/* v1 mounts a controller under its own name or under the joined names ("cpu,cpuacct"); distributions link
 * both. */
static void walk_v1(struct hw_cgroup *cg, const struct hw_roots *roots, struct str list,
                    const char *controller, struct str path, cgroup_visit *visit)
{
    char base[HW_PATH];
    const struct str names[] = {str_from(controller), list};
    for (size_t i = 0; i < TABLE_COUNT(names); i++)
        if (hw_path(base, "%s/fs/cgroup/%.*s", roots->sys, STR_ARG(names[i])) && access(base, X_OK) == 0) {
            walk(cg, base, path, visit);
            return;
        }
}

struct hw_cgroup *hw_cgroup_open(const struct hw_roots *roots)
{
    struct hw_cgroup *cg = mem_new(struct hw_cgroup);
    char path[HW_PATH], text[8192];
    cg->cpus = UINT_MAX;
    if (!hw_path(path, "%s/self/cgroup", roots->proc) || !hw_text_read(path, text, sizeof(text)))
        return cg;
    struct str rest = str_from(text);
    while (rest.n) { /* "4:memory:/a/b", "0::/a/b" */
        struct str line = str_cut(&rest, '\n');
        struct str number = str_cut(&line, ':');
        struct str list = str_cut(&line, ':');
        if (str_eq_c(number, "0") && list.n == 0)
            walk_v2(cg, roots, line);
        if (controllers_have(list, "memory"))
            walk_v1(cg, roots, list, "memory", line, memory_v1);
        if (controllers_have(list, "cpu"))
            walk_v1(cg, roots, list, "cpu", line, cpu_v1);
    }
    return cg;
}

unsigned hw_cgroup_cpus(const struct hw_cgroup *cg)
{
    return cg->cpus;
}

static bool read_u64_at(int fd, uint64_t *ret_value)
{
    char text[64];
    return hw_text_pread(fd, text, sizeof(text)) && str_u64(str_trim(str_from(text)), ret_value);
}

static uint64_t level_limit(const struct cgroup_level *level)
{
    uint64_t limit = UINT64_MAX, value;
    for (int i = 0; i < 2; i++)
        if (read_u64_at(level->limit[i], &value) && value < CGROUP_NONE && value < limit)
            limit = value;
    return limit;
}

/* Page cache that is not in use goes first when the group is short, so it does not count as used. */
static uint64_t level_used(const struct cgroup_level *level)
{
    char text[8192];
    uint64_t used = 0, inactive = 0;
    if (!read_u64_at(level->used, &used))
        return 0;
    if (hw_text_pread(level->stat, text, sizeof(text)))
        (void)hw_text_find_u64(text, level->files->inactive_key, &inactive);
    return used > inactive ? used - inactive : 0;
}

struct hw_cgroup_memory hw_cgroup_memory(const struct hw_cgroup *cg)
{
    struct hw_cgroup_memory m = {UINT64_MAX, 0, UINT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < cg->n_levels; i++) {
        uint64_t limit = level_limit(&cg->levels[i]);
        if (limit == UINT64_MAX)
            continue;
        uint64_t used = level_used(&cg->levels[i]);
        uint64_t headroom = limit > used ? limit - used : 0;
        if (limit < m.lowest_limit_bytes)
            m.lowest_limit_bytes = limit;
        if (headroom < m.headroom_bytes || (headroom == m.headroom_bytes && limit < m.limit_bytes)) {
            m.headroom_bytes = headroom;
            m.limit_bytes = limit;
            m.used_bytes = used;
        }
    }
    return m;
}

void hw_cgroup_close(struct hw_cgroup *cg)
{
    if (!cg)
        return;
    for (size_t i = 0; i < cg->n_levels; i++) {
        const struct cgroup_level *level = &cg->levels[i];
        const int fds[] = {level->limit[0], level->limit[1], level->used, level->stat};
        for (size_t k = 0; k < TABLE_COUNT(fds); k++)
            if (fds[k] >= 0)
                close(fds[k]);
    }
    free(cg);
}
