/* Files, directories, XDG paths. Layer os; blocking; any thread; no state. */
#ifndef OS_FILE_H
#define OS_FILE_H

#include "base/buf.h"
#include "base/err.h"

/* Appends the whole file to out; RC_LIMIT past max bytes (0 = 1 MiB). Works for /proc and /sys files. */
enum rc file_read(const char *path, size_t max, struct buf *out, struct err *err);
/* Writes through a temporary file and rename; mode e.g. 0600. */
enum rc file_write_atomic(const char *path, struct str content, unsigned mode, struct err *err);
/* The same without waiting for the disk: it outlives this program, and not a power cut. */
enum rc file_replace(const char *path, struct str content, unsigned mode, struct err *err);
/* mkdir -p; existing directories are fine. */
enum rc file_mkdirs(const char *path, unsigned mode, struct err *err);
bool file_exists(const char *path);
bool file_is_executable(const char *path); /* a regular file that we may run */
/* Looks a program up in PATH (or takes a path with a slash); false if there is none. */
bool file_find_program(const char *name, char *ret_path, size_t cap);
/* First line of a small file parsed as a number ("max" and the like give false). */
bool file_read_u64(const char *path, uint64_t *ret_value);

/* XDG directories of arriero, e.g. "/home/u/.local/share/arriero". From the environment; no directory is
 * made. kind RUNTIME falls back to "/run/arriero" for root, else to "/tmp/arriero-UID". */
enum file_dir { FILE_DIR_CONFIG, FILE_DIR_DATA, FILE_DIR_CACHE, FILE_DIR_STATE, FILE_DIR_RUNTIME };
void file_dir(enum file_dir kind, char *ret_path, size_t cap);

#endif
