/* What the pool calls in earnest: the planner, the model files, the launcher, /proc. Layer pool. Tests put
 * their own functions in place of these (pool_new_with). */
#include "pool/pool_priv.h"

#include "base/clock.h"
#include "os/file.h"

#include <stdio.h>
#include <string.h>

/* "RssAnon:  1234 kB" of /proc/PID/status. */
static bool anon_bytes(pid_t pid, uint64_t *ret_bytes)
{
    char path[48];
    struct buf b = {0};
    uint64_t kib = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    if (file_read(path, 0, &b, NULL) == RC_OK) {
        struct str text = buf_str(&b);
        ptrdiff_t at = str_find(text, STR("RssAnon:"));
        if (at >= 0) {
            text.p += at + 8;
            text.n -= (size_t)at + 8;
            struct str line = str_trim(str_cut(&text, '\n'));
            found = str_u64(str_trim(str_cut(&line, ' ')), &kib);
        }
    }
    buf_release(&b);
    if (found)
        *ret_bytes = kib * 1024;
    return found;
}

/* A number that changes when one of these fields of /proc/PID/stat does (proc(5)). */
static bool stat_stamp(pid_t pid, uint64_t fields, uint64_t *ret_stamp)
{
    char path[48];
    struct buf b = {0};
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    bool ok = file_read(path, 0, &b, NULL) == RC_OK;
    struct str rest = buf_str(&b);
    while (str_find(rest, STR(") ")) >= 0) /* the name may hold parentheses */
        (void)str_cut(&rest, ')');
    uint64_t stamp = 0;
    rest = str_trim(rest);
    for (unsigned field = 3; ok && rest.n > 0 && field < 64; field++) {
        uint64_t v;
        struct str word = str_cut(&rest, ' ');
        if ((fields >> field & 1) && str_u64(word, &v))
            stamp = stamp * 1000003u + v;
    }
    buf_release(&b);
    if (ok)
        *ret_stamp = stamp;
    return ok;
}

/* Pages that came in and memory that grew: what changes while weights are read, even when nothing is logged.
 */
static bool liveness(pid_t pid, uint64_t *ret_stamp)
{
    return stat_stamp(pid, 1ull << 10 | 1ull << 12 | 1ull << 24, ret_stamp); /* minflt, majflt, rss */
}

static bool cpu_ticks(pid_t pid, uint64_t *ret_ticks)
{
    return stat_stamp(pid, 1ull << 14 | 1ull << 15, ret_ticks); /* utime, stime */
}

static void oom_count(struct oom_count *ret)
{
    struct oom_paths paths; /* found anew each time: groups may be changed under us */
    oom_find("/proc", "/sys", &paths);
    oom_read(&paths, ret);
}

static size_t largest(const pid_t *skip, size_t n_skip, struct proc_use *ret, size_t cap)
{
    return procs_largest("/proc", skip, n_skip, ret, cap);
}

static bool process_name(pid_t pid, char ret_name[32])
{
    return procs_name("/proc", pid, ret_name);
}

const struct pool_deps pool_deps_real = {
    .facts = model_open_cached,
    .facts_unref = model_unref,
    .pack = plan_pack,
    .rebalance = plan_rebalance,
    .find_runtime = runtime_find_llama_server,
    .anon_bytes = anon_bytes,
    .liveness = liveness,
    .cpu_ticks = cpu_ticks,
    .oom_count = oom_count,
    .oom_named = oom_is_named,
    .largest = largest,
    .process_name = process_name,
    .now_ms = clock_mono_ms,
    .wall_ms = clock_wall_ms,
};

enum rc pool_new(const struct pool_options *opt, struct pool **ret_pool, struct err *err)
{
    struct pool_deps deps = pool_deps_real;
    deps.launch = launch_find(STR("exec"));
    deps.runtime = runtime_find(STR("llama-server"));
    return pool_new_with(opt, &deps, ret_pool, err);
}
