/* What of a file lies in the kernel's page cache. Layer os; blocking (a system call a GiB of file); any
 * thread. */
#ifndef OS_PAGECACHE_H
#define OS_PAGECACHE_H

#include "base/err.h"

#include <stdint.h>

/* Bytes of the file that are in memory, and its size, added to what the two hold already (a model may have
 * several files). RC_DENIED: the kernel tells only who may write the file or owns it; RC_IO. */
enum rc pagecache_resident(const char *path, uint64_t *bytes, uint64_t *file_bytes, struct err *err);

/* The share of the file that is in memory, 0 to 1: of files larger than PAGECACHE_LOOK told from windows all
 * over it, so that the answer takes no more than a millisecond. RC_DENIED, RC_IO as above. */
#define PAGECACHE_LOOK (256ull << 20)
enum rc pagecache_share(const char *path, double *ret_share, struct err *err);

#endif
