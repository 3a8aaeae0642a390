/* Pages of a file that are in memory: mincore(2). Layer os. */
#include "os/pagecache.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW  (1024 * MIB)
#define WINDOWS 64u       /* of a large file */
#define WHOLE   (2 * MIB) /* a multiple of every size of pages */

/* For everyone else the kernel says that all pages are there. */
static bool may_ask(const char *path, const struct stat *st)
{
    return st->st_uid == geteuid() || geteuid() == 0 || access(path, W_OK) == 0;
}

/* Adds what of the window is in memory; seen has a byte for each page. */
static enum rc count_window(int fd, const char *path, uint64_t at, size_t n, unsigned char *seen,
                            uint64_t *bytes, struct err *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (n + page - 1) / page;
    void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)at);
    if (map == MAP_FAILED)
        return err_sys(err, RC_IO, "cannot map %s", path);
    enum rc rc = RC_OK;
    if (mincore(map, n, seen) != 0)
        rc = err_sys(err, RC_IO, "cannot look at the pages of %s", path);
    for (size_t i = 0; rc == RC_OK && i < pages; i++)
        *bytes += seen[i] & 1 ? (i + 1 < pages || n % page == 0 ? page : n % page) : 0;
    munmap(map, n);
    return rc;
}

/* Looks at windows of `window` bytes, the beginnings of which lie `step` apart. */
static enum rc count(int fd, const char *path, uint64_t size, size_t window, uint64_t step,
                     uint64_t *ret_bytes, uint64_t *ret_looked, struct err *err)
{
    unsigned char *seen = malloc(window / (size_t)sysconf(_SC_PAGESIZE));
    uint64_t bytes = 0, looked = 0;
    enum rc rc = seen ? RC_OK : err_set(err, RC_NOMEM, "no memory to look at the pages of %s", path);
    for (uint64_t at = 0; rc == RC_OK && at < size; at += step) {
        size_t n = size - at < window ? (size_t)(size - at) : window;
        rc = count_window(fd, path, at, n, seen, &bytes, err);
        looked += n;
    }
    free(seen);
    if (rc == RC_OK) {
        *ret_bytes = bytes;
        *ret_looked = looked;
    }
    return rc;
}

/* exact: all of it. */
static enum rc look(const char *path, bool exact, uint64_t *ret_bytes, uint64_t *ret_looked, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot open %s", path);
    enum rc rc = RC_OK;
    if (fstat(fd, &st) != 0)
        rc = err_sys(err, RC_IO, "cannot look at %s", path);
    else if (!may_ask(path, &st))
        rc = err_set(err, RC_DENIED, "the kernel tells only the owner of %s what of it is in memory", path);
    uint64_t size = rc == RC_OK ? (uint64_t)st.st_size : 0;
    if (rc == RC_OK && (exact || size <= PAGECACHE_LOOK))
        rc = count(fd, path, size, WINDOW, WINDOW, ret_bytes, ret_looked, err);
    else if (rc == RC_OK) /* windows begin at whole pages */
        rc = count(fd, path, size, PAGECACHE_LOOK / WINDOWS, size / WINDOWS / WHOLE * WHOLE, ret_bytes,
                   ret_looked, err);
    close(fd);
    return rc;
}

enum rc pagecache_resident(const char *path, uint64_t *bytes, uint64_t *file_bytes, struct err *err)
{
    uint64_t resident, size;
    enum rc rc = look(path, true, &resident, &size, err);
    if (rc != RC_OK)
        return rc;
    *bytes += resident;
    *file_bytes += size;
    return RC_OK;
}

enum rc pagecache_share(const char *path, double *ret_share, struct err *err)
{
    uint64_t resident, size;
    enum rc rc = look(path, false, &resident, &size, err);
    if (rc == RC_OK)
        *ret_share = size ? (double)resident / (double)size : 1;
    return rc;
}
