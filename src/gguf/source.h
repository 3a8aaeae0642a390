/* Where GGUF bytes come from: a file read with pread, or a block of memory (tests, fuzzing). Layer gguf; a
 * source is used by one thread at a time. Files are never mapped, so one that shrinks while it is read gives
 * a short read and not a SIGBUS. */
#ifndef GGUF_SOURCE_H
#define GGUF_SOURCE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct gguf_source {
    /* Reads up to n bytes at an offset; fewer only at the end. -1 with errno on failure. */
    ssize_t (*read_at)(const struct gguf_source *src, void *out, size_t n, uint64_t offset);
    uint64_t size;    /* bytes when it was opened */
    int64_t mtime_ns; /* 0 for memory */
    uint64_t dev, ino;
    const void *memory; /* borrowed; NULL for a file */
    int fd;             /* owned; -1 for memory */
};

/* A regular file. RC_IO with errno; RC_INVALID for directories, devices and pipes. */
enum rc gguf_source_open(const char *path, struct gguf_source *ret_source, struct err *err);
void gguf_source_memory(const void *data, size_t n, struct gguf_source *ret_source);
/* Whether the file still has the size and the time it had when it was opened. */
bool gguf_source_unchanged(const struct gguf_source *src);
void gguf_source_close(struct gguf_source *src);

#endif
