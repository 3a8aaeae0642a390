/* How fast a file comes from its disk: see bench.h. Layer hw; blocking. */
#include "hw/bench_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE        (4 * MIB)
#define LEAST        (16 * MIB)
#define MOST         (1024 * MIB)
#define MOST_SECONDS 3.0

static enum rc read_all(int fd, const char *path, uint64_t bytes, void *piece,
                        const struct hw_bench_control *control, struct hw_bench_disk *ret, struct err *err)
{
    double start = bench_now();
    while (ret->bytes + PIECE <= bytes && bench_now() - start < MOST_SECONDS) {
        if (bench_cancelled(control))
            return bench_cancel(err);
        bench_progress(control, "disk", (double)ret->bytes / (double)bytes);
        ssize_t n = pread(fd, piece, PIECE, (off_t)ret->bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, RC_IO, "cannot read %s", path);
        if (n == 0)
            break;
        ret->bytes += (uint64_t)n;
    }
    double took = bench_now() - start;
    ret->read_gbps = took > 0 ? (double)ret->bytes / took * 1e-9 : 0;
    return RC_OK;
}

enum rc hw_bench_disk(const char *path, uint64_t max_bytes, const struct hw_bench_control *control,
                      struct hw_bench_disk *ret_disk, struct err *err)
{
    struct hw_bench_disk out = {.direct = true};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0 && errno == EINVAL) {
        out.direct = false;
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot open %s", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    uint64_t bytes = (uint64_t)st.st_size < (max_bytes ? max_bytes : MOST) ? (uint64_t)st.st_size
                                                                           : (max_bytes ? max_bytes : MOST);
    void *piece = aligned_alloc(4096, PIECE);
    enum rc rc = RC_OK;
    if (!S_ISREG(st.st_mode) || bytes < LEAST)
        rc = err_set(err, RC_INVALID, "%s is too short to tell how fast its disk is", path);
    else if (!piece)
        rc = err_set(err, RC_NOMEM, "no memory to read %s", path);
    if (rc == RC_OK && !out.direct)
        (void)posix_fadvise(fd, 0, (off_t)bytes, POSIX_FADV_DONTNEED);
    if (rc == RC_OK)
        rc = read_all(fd, path, bytes, piece, control, &out, err);
    free(piece);
    close(fd);
    if (rc == RC_OK)
        *ret_disk = out;
    return rc;
}
