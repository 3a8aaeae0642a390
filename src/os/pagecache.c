/* Pages of a file that are in memory: mincore(2). Layer os. */
#include "os/pagecache.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW (1024 * MIB)

/* For everyone else the kernel says that all pages are there. */
static bool may_ask(const char *path, const struct stat *st)
{
    return st->st_uid == geteuid() || geteuid() == 0 || access(path, W_OK) == 0;
}

static enum rc count(int fd, const char *path, uint64_t size, uint64_t *ret_bytes, struct err *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *seen = malloc(WINDOW / page);
    uint64_t bytes = 0;
    enum rc rc = seen ? RC_OK : err_set(err, RC_NOMEM, "no memory to look at the pages of %s", path);
    for (uint64_t at = 0; rc == RC_OK && at < size; at += WINDOW) {
        size_t n = size - at < WINDOW ? (size_t)(size - at) : WINDOW, pages = (n + page - 1) / page;
        void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)at);
        if (map == MAP_FAILED) {
            rc = err_sys(err, RC_IO, "cannot map %s", path);
            break;
        }
        if (mincore(map, n, seen) != 0)
            rc = err_sys(err, RC_IO, "cannot look at the pages of %s", path);
        for (size_t i = 0; rc == RC_OK && i < pages; i++)
            bytes += seen[i] & 1 ? (i + 1 < pages || n % page == 0 ? page : n % page) : 0;
        munmap(map, n);
    }
    free(seen);
    if (rc == RC_OK)
        *ret_bytes = bytes;
    return rc;
}

enum rc pagecache_resident(const char *path, uint64_t *bytes, uint64_t *file_bytes, struct err *err)
{
    struct stat st;
    uint64_t resident = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot open %s", path);
    enum rc rc = RC_OK;
    if (fstat(fd, &st) != 0)
        rc = err_sys(err, RC_IO, "cannot look at %s", path);
    else if (!may_ask(path, &st))
        rc = err_set(err, RC_DENIED, "the kernel tells only the owner of %s what of it is in memory", path);
    else
        rc = count(fd, path, (uint64_t)st.st_size, &resident, err);
    close(fd);
    if (rc != RC_OK)
        return rc;
    *bytes += resident;
    *file_bytes += (uint64_t)st.st_size;
    return RC_OK;
}
