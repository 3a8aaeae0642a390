/* Files, directories, XDG paths: see file.h. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum rc file_read(const char *path, size_t max, struct buf *out, struct err *err)
{
    if (max == 0)
        max = 1 << 20;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_sys(err, errno == ENOENT ? RC_NOT_FOUND : RC_IO, "cannot open %s", path);
    size_t start = out->n;
    enum rc rc = RC_OK;
    for (;;) {
        if (!buf_reserve(out, 16384)) {
            rc = err_set(err, RC_NOMEM, "no memory to read %s", path);
            break;
        }
        ssize_t n = read(fd, out->data + out->n, 16384);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = err_sys(err, RC_IO, "cannot read %s", path);
            break;
        }
        if (n == 0)
            break;
        out->n += (size_t)n;
        out->data[out->n] = '\0';
        if (out->n - start > max) {
            rc = err_set(err, RC_LIMIT, "%s is larger than %zu bytes", path, max);
            break;
        }
    }
    close(fd);
    if (rc != RC_OK && out->data) {
        out->n = start;
        out->data[start] = '\0';
    }
    return rc;
}

static bool write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        s.p += n;
        s.n -= (size_t)n;
    }
    return true;
}

static enum rc write_renamed(const char *path, struct str content, unsigned mode, bool to_disk,
                             struct err *err)
{
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.XXXXXX", path) >= (int)sizeof tmp)
        return err_set(err, RC_INVALID, "path too long: %s", path);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot write %s", path);
    bool ok = fchmod(fd, (mode_t)mode) == 0 && write_all(fd, content) && (!to_disk || fsync(fd) == 0);
    int saved = errno;
    close(fd);
    if (ok && rename(tmp, path) == 0)
        return RC_OK;
    errno = ok ? errno : saved;
    enum rc rc = err_sys(err, RC_IO, "cannot write %s", path);
    unlink(tmp);
    return rc;
}

enum rc file_write_atomic(const char *path, struct str content, unsigned mode, struct err *err)
{
    return write_renamed(path, content, mode, true, err);
}

enum rc file_replace(const char *path, struct str content, unsigned mode, struct err *err)
{
    return write_renamed(path, content, mode, false, err);
}

enum rc file_mkdirs(const char *path, unsigned mode, struct err *err)
{
    char p[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof p)
        return err_set(err, RC_INVALID, "not a usable directory name: \"%.64s\"", path);
    memcpy(p, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (p[i] != '/' && p[i] != '\0')
            continue;
        char kept = p[i];
        p[i] = '\0';
        if (mkdir(p, (mode_t)mode) < 0 && errno != EEXIST)
            return err_sys(err, RC_IO, "cannot make the directory %s", p);
        p[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) < 0)
        return err_sys(err, RC_IO, "cannot use the directory %s", path);
    return S_ISDIR(st.st_mode) ? RC_OK : err_set(err, RC_INVALID, "%s is not a directory", path);
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_executable(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

bool file_find_program(const char *name, char *ret_path, size_t cap)
{
    if (strchr(name, '/'))
        return file_is_executable(name) && snprintf(ret_path, cap, "%s", name) < (int)cap;
    struct str path = str_from(getenv("PATH"));
    while (path.n) {
        struct str dir = str_cut(&path, ':');
        char candidate[PATH_MAX];
        if (dir.n == 0)
            continue; /* an empty entry means the current directory: not for us */
        if (snprintf(candidate, sizeof candidate, "%.*s/%s", STR_ARG(dir), name) >= (int)sizeof candidate)
            continue;
        if (file_is_executable(candidate) && strlen(candidate) < cap) {
            memcpy(ret_path, candidate, strlen(candidate) + 1);
            return true;
        }
    }
    return false;
}

bool file_read_u64(const char *path, uint64_t *ret_value)
{
    char line[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, sizeof line);
    close(fd);
    if (n <= 0)
        return false;
    struct str s = {line, (size_t)n};
    return str_u64(str_trim(str_cut(&s, '\n')), ret_value);
}

void file_dir(enum file_dir kind, char *ret_path, size_t cap)
{
    static const struct {
        const char *env, *below_home;
    } dirs[] = {
        [FILE_DIR_CONFIG] = {"XDG_CONFIG_HOME", ".config"},
        [FILE_DIR_DATA] = {"XDG_DATA_HOME", ".local/share"},
        [FILE_DIR_CACHE] = {"XDG_CACHE_HOME", ".cache"},
        [FILE_DIR_STATE] = {"XDG_STATE_HOME", ".local/state"},
        [FILE_DIR_RUNTIME] = {"XDG_RUNTIME_DIR", NULL},
    };
    const char *base = getenv(dirs[kind].env);
    if (base && base[0] == '/') {
        snprintf(ret_path, cap, "%s/arriero", base);
    } else if (kind == FILE_DIR_RUNTIME) {
        if (geteuid() == 0)
            snprintf(ret_path, cap, "/run/arriero");
        else
            snprintf(ret_path, cap, "/tmp/arriero-%u", (unsigned)geteuid());
    } else {
        const char *home = getenv("HOME");
        snprintf(ret_path, cap, "%s/%s/arriero", home && home[0] == '/' ? home : "/root",
                 dirs[kind].below_home);
    }
}
