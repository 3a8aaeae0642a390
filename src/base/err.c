/* Errors: see err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    enum rc code;
    const char *word;
    int http;
} table[] = {
#define RC(name, value, word, http) {name, word, http},
#include "base/rc.def"
#undef RC
};

__attribute__((format(printf, 5, 0))) static void fill(struct err *err, enum rc code, const char *file,
                                                       int line, const char *fmt, va_list ap)
{
    err->code = code;
    err->sys_errno = 0;
    err->hint[0] = '\0';
    err->file = file;
    err->line = line;
    vsnprintf(err->message, sizeof err->message, fmt, ap);
}

enum rc err_set_at(struct err *err, enum rc code, const char *file, int line, const char *fmt, ...)
{
    if (!err)
        return code;
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, file, line, fmt, ap);
    va_end(ap);
    errno = saved;
    return code;
}

enum rc err_sys_at(struct err *err, enum rc code, const char *file, int line, const char *fmt, ...)
{
    if (!err)
        return code;
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, file, line, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->message);
    snprintf(err->message + n, sizeof err->message - n, ": %s", strerror(saved));
    err->sys_errno = saved;
    errno = saved;
    return code;
}

void err_hint(struct err *err, const char *fmt, ...)
{
    if (!err)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->hint, sizeof err->hint, fmt, ap);
    va_end(ap);
}

void err_prefix(struct err *err, const char *fmt, ...)
{
    if (!err)
        return;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->message);
    snprintf(err->message + n, sizeof err->message - n, ": %.*s", (int)(sizeof err->message - n), old);
}

const char *rc_word(enum rc code)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == code)
            return table[i].word;
    return "unknown";
}

int rc_http_status(enum rc code)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == code)
            return table[i].http;
    return 500;
}
