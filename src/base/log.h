/* Logging to stderr. Layer base; any thread. Lines are written with one write(2) each.
 * Libraries log at debug only; the daemon decides what a person sees. No secret is ever passed here. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Set once at start, before threads. With journal = true lines carry the <N> prefixes of sd-daemon(3) and no
 * time; else an RFC 3339 time. */
void log_setup(enum log_level level, bool journal);
bool log_enabled(enum log_level level);
bool log_level_from(const char *word, enum log_level *ret_level); /* error|warn|info|debug */

__attribute__((format(printf, 2, 3))) void log_write(enum log_level level, const char *fmt, ...);
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_write(LOG_DEBUG, __VA_ARGS__);                                                               \
    } while (0)

/* "what: message (hint)" at the given level. */
void log_err(enum log_level level, const char *what, const struct err *err);

#endif
