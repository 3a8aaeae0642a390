/* What a job writes: cut into lines, its tail kept in memory, a bounded copy in a file. Layer launch; loop
 * thread; one owner. File trouble (a full disk, a directory that vanished) ends the copy, never the job. */
#ifndef LAUNCH_OUTPUT_H
#define LAUNCH_OUTPUT_H

#include "base/str.h"

#define OUTPUT_LINE_MAX 4096               /* a longer line is cut */
#define OUTPUT_FILE_MAX (4u * 1024 * 1024) /* then the file becomes PATH.1 and a new one begins */

struct output {
    char *tail; /* the last bytes, twice tail_max long so that moving them is rare */
    size_t tail_n, tail_max;
    char line[OUTPUT_LINE_MAX];
    size_t line_n;
    bool line_cut;
    char *path; /* NULL = no file */
    int fd;
    size_t file_n;
};

/* A new file for a job's output, open for appending; that of an earlier run is kept as PATH.1. -1: errno
 * tells why not. */
int output_file_new(const char *path);
/* tail_max 0 = 64 KiB. path may be NULL; a file of an earlier run is kept as PATH.1. */
void output_init(struct output *o, const char *path, size_t tail_max);
void output_release(struct output *o);
/* Takes bytes; calls fn for every line that they complete. fn may be NULL. */
void output_add(struct output *o, const char *p, size_t n, void (*fn)(void *arg, struct str line), void *arg);
/* The end: what stands there without a newline counts as a line. */
void output_flush(struct output *o, void (*fn)(void *arg, struct str line), void *arg);
/* Borrowed until the next output_add. */
struct str output_tail(const struct output *o);

#endif
