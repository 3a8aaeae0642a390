/* Logging: see log.h. The level is the one process-wide setting; it is written before threads start. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static enum log_level max_level = LOG_INFO;
static bool to_journal;

static const struct {
    const char *word;
    int syslog;
} levels[] = {{"error", 3}, {"warn", 4}, {"info", 6}, {"debug", 7}};

void log_setup(enum log_level level, bool journal)
{
    max_level = level;
    to_journal = journal;
}

bool log_enabled(enum log_level level)
{
    return level <= max_level;
}

bool log_level_from(const char *word, enum log_level *ret_level)
{
    for (int i = 0; i < 4; i++)
        if (strcasecmp(word, levels[i].word) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    return false;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level > max_level)
        return;
    char line[2048];
    int n;
    if (to_journal) {
        n = snprintf(line, sizeof line, "<%d>", levels[level].syslog);
    } else {
        struct timespec ts;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &ts);
        gmtime_r(&ts.tv_sec, &tm);
        size_t at = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
        n = (int)at +
            snprintf(line + at, sizeof line - at, ".%03ldZ %-5s ", ts.tv_nsec / 1000000, levels[level].word);
    }
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    size_t len = (size_t)n + (size_t)m;
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    for (size_t i = 0; i < len; i++) /* one event, one line: nothing in it may start another */
        if (line[i] == '\n' || line[i] == '\r')
            line[i] = ' ';
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nowhere left to say it */
}

void log_err(enum log_level level, const char *what, const struct err *err)
{
    if (err->hint[0])
        log_write(level, "%s: %s (%s)", what, err->message, err->hint);
    else
        log_write(level, "%s: %s", what, err->message);
}
