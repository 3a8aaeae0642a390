/* A log file that another process appends to, read as it grows. Layer launch; loop thread.
 *
 * The writer holds the file itself, so that it can write on when nobody reads. The file is kept small by us:
 * past OUTPUT_FILE_MAX its content becomes PATH.1 and it is cut to nothing, which a writer in append mode
 * does not notice; what it writes in between the two is lost. Changes are told by inotify, and looked for
 * every FOLLOW_LOOK_MS where the kernel has no watches left. */
#ifndef LAUNCH_FOLLOW_H
#define LAUNCH_FOLLOW_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define FOLLOW_LOOK_MS 250u

struct follow; /* from start to its closed callback */
typedef void (*follow_fn)(void *arg, const char *p, size_t n);

/* Begins at byte `from`, or at the end if the file is shorter. Errors: RC_NOT_FOUND, RC_IO (no regular file
 * of ours). */
enum rc follow_start(uv_loop_t *loop, const char *path, uint64_t from, follow_fn fn, void *arg,
                     struct follow **ret_follow, struct err *err);
/* Reads what is there now, up to a bound; fn is called inside. True: there may be more. */
bool follow_read(struct follow *f);
/* No further call of fn; closed(arg) when its handles are gone. */
void follow_close(struct follow *f, void (*closed)(void *arg), void *arg);

#endif
