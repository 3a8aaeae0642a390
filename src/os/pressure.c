/* See pressure.h. */
#include "os/pressure.h"

#include "base/buf.h"
#include "os/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- parsers ---- */

/* "12.34" */
static bool parse_pct(struct str s, double *ret)
{
    uint64_t whole, part = 0;
    struct str rest = s;
    struct str first = str_cut(&rest, '.');
    if (!str_u64(first, &whole) || whole > 100 || rest.n > 2 || (rest.n > 0 && !str_u64(rest, &part)))
        return false;
    *ret = (double)whole + (double)part / (rest.n == 1 ? 10 : 100);
    return true;
}

/* The value behind "key=" in a line of such words. */
static struct str value_of(struct str line, const char *key)
{
    size_t n = strlen(key);
    while (line.n) {
        struct str word = str_cut(&line, ' ');
        if (word.n > n && str_starts(word, key) && word.p[n] == '=')
            return (struct str){word.p + n + 1, word.n - n - 1};
    }
    return (struct str){"", 0};
}

bool pressure_parse(struct str text, struct pressure_stall *ret)
{
    struct pressure_stall s = {0};
    bool found = false;
    while (text.n) {
        struct str line = str_trim(str_cut(&text, '\n'));
        bool some = str_starts(line, "some "), full = str_starts(line, "full ");
        if (!some && !full)
            continue;
        if (!parse_pct(value_of(line, "avg10"), some ? &s.some_pct : &s.full_pct) ||
            !str_u64(value_of(line, "total"), some ? &s.some_us : &s.full_us))
            return false;
        found |= some;
    }
    if (found)
        *ret = s;
    return found;
}

bool pressure_events_parse(struct str text, struct pressure_events *ret)
{
    struct pressure_events e = {0};
    const struct {
        const char *word;
        uint64_t *value;
    } rows[] = {{"high", &e.high}, {"max", &e.max}, {"oom", &e.oom}, {"oom_kill", &e.oom_kill}};
    bool found = false;
    while (text.n) {
        struct str line = str_cut(&text, '\n');
        struct str word = str_cut(&line, ' ');
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            if (str_eq_c(word, rows[i].word) && str_u64(str_trim(line), rows[i].value))
                found = true;
    }
    if (found)
        *ret = e;
    return found;
}

/* ---- places ---- */

/* The path of the process's own group in v2's hierarchy, "/" for its root. */
static bool own_group(const char *proc_root, char *ret, size_t cap)
{
    char path[512];
    struct buf b = {0};
    bool found = false;
    snprintf(path, sizeof path, "%s/self/cgroup", proc_root);
    if (file_read(path, 0, &b, NULL) == RC_OK) {
        struct str rest = buf_str(&b);
        while (rest.n && !found) {
            struct str line = str_cut(&rest, '\n');
            if (!str_starts(line, "0::/"))
                continue;
            line.p += 3;
            line.n -= 3;
            /* outside of the namespace's root nothing can be read */
            found = str_find(line, STR("..")) < 0 && line.n < cap;
            if (found)
                snprintf(ret, cap, "%.*s", STR_ARG(line));
        }
    }
    buf_release(&b);
    return found;
}

static bool is_there(char *path, size_t cap, int n)
{
    return n > 0 && (size_t)n < cap && access(path, R_OK) == 0;
}

bool pressure_find(const char *proc_root, const char *sys_root, enum pressure_place place, char *ret_path,
                   size_t cap)
{
    static const char *const mounts[] = {"", "/unified"}; /* alone, or beside v1 */
    static const char *const files[] = {
        [PRESSURE_GROUP] = "memory.pressure",
        [PRESSURE_EVENTS] = "memory.events",
    };
    char group[512];
    if (place == PRESSURE_MACHINE)
        return is_there(ret_path, cap, snprintf(ret_path, cap, "%s/pressure/memory", proc_root));
    if (!own_group(proc_root, group, sizeof group) || strcmp(group, "/") == 0)
        return false;
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++)
        if (is_there(
                ret_path, cap,
                snprintf(ret_path, cap, "%s/fs/cgroup%s%s/%s", sys_root, mounts[i], group, files[place])))
            return true;
    return false;
}

int pressure_arm(const char *path, bool full, unsigned stall_ms, unsigned window_ms)
{
    char text[64];
    struct stat st;
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 ||
        st.st_size != 0) { /* a file that keeps what is written is none of the kernel's */
        close(fd);
        return -1;
    }
    int n =
        snprintf(text, sizeof text, "%s %u %u", full ? "full" : "some", stall_ms * 1000, window_ms * 1000);
    /* with its zero: the kernel ends the text at the last byte written */
    if (write(fd, text, (size_t)n + 1) != n + 1) {
        close(fd);
        return -1;
    }
    return fd;
}
