/* Sources of GGUF bytes: see source.h. */
#include "gguf/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t stat_mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static ssize_t read_file(const struct gguf_source *src, void *out, size_t n, uint64_t offset)
{
    size_t done = 0;
    if (offset > INT64_MAX)
        return 0;
    while (done < n) {
        ssize_t got = pread(src->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static ssize_t read_memory(const struct gguf_source *src, void *out, size_t n, uint64_t offset)
{
    if (offset >= src->size)
        return 0;
    if (n > src->size - offset)
        n = (size_t)(src->size - offset);
    memcpy(out, (const char *)src->memory + offset, n);
    return (ssize_t)n;
}

enum rc gguf_source_open(const char *path, struct gguf_source *ret_source, struct err *err)
{
    /* O_NONBLOCK: a pipe under that name must not hang the caller. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot open %s", path);
        err_hint(err, errno == EACCES ? "let this user read the file and its folders"
                                      : "check the path; `arriero models` lists the models found");
        return rc;
    }
    struct stat st;
    if (fstat(fd, &st)) {
        enum rc rc = err_sys(err, RC_IO, "cannot look at %s", path);
        close(fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        enum rc rc = err_set(err, RC_INVALID, "%s is not a regular file", path);
        err_hint(err, "give the path of a .gguf file");
        return rc;
    }
    *ret_source = (struct gguf_source){
        .read_at = read_file,
        .size = (uint64_t)st.st_size,
        .mtime_ns = stat_mtime_ns(&st),
        .dev = st.st_dev,
        .ino = st.st_ino,
        .fd = fd,
    };
    return RC_OK;
}

void gguf_source_memory(const void *data, size_t n, struct gguf_source *ret_source)
{
    *ret_source = (struct gguf_source){.read_at = read_memory, .size = n, .memory = data, .fd = -1};
}

bool gguf_source_unchanged(const struct gguf_source *src)
{
    struct stat st;
    if (src->fd < 0)
        return true;
    return fstat(src->fd, &st) == 0 && (uint64_t)st.st_size == src->size &&
           stat_mtime_ns(&st) == src->mtime_ns;
}

void gguf_source_close(struct gguf_source *src)
{
    if (src->fd >= 0)
        close(src->fd);
    src->fd = -1;
}
