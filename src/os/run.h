/* Runs a short-lived program and captures what it says. Layer os; blocking (with a deadline): for commands
 * and the work pool, never on the loop thread. No shell. */
#ifndef OS_RUN_H
#define OS_RUN_H

#include "base/buf.h"
#include "base/err.h"

/* stdout and stderr together go to out (cut at max_bytes; the program still runs on). env NULL = inherited.
 * RC_NOT_FOUND (no such program), RC_TIMEOUT (killed after timeout_ms), RC_OK else: look at *ret_wait_status.
 */
enum rc run_capture(const char *const *argv, const char *const *env, unsigned timeout_ms, size_t max_bytes,
                    struct buf *out, int *ret_wait_status, struct err *err);

#endif
