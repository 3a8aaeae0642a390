/* Errors. Layer base; any thread; no state.
 *
 * Functions that can fail return enum rc (0 or negative) and take `struct err *` as last parameter, which may
 * be NULL. On failure it holds the code, the errno, a message naming the object, a hint saying what to do,
 * and where it was raised. Outputs are untouched on failure. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum [[nodiscard]] rc{
#define RC(name, value, word, http) name = value,
#include "base/rc.def"
#undef RC
};

struct err {
    enum rc code;
    int sys_errno;     /* 0 when no system call failed */
    char message[512]; /* one sentence that names the object; no trailing dot or newline */
    char hint[384];    /* what the user can do; empty if there is nothing useful to say */
    const char *file;  /* where it was raised (static) */
    int line;
};

/* Fills *err (if not NULL) and returns code. errno is not touched. */
__attribute__((format(printf, 5, 6))) enum rc err_set_at(struct err *err, enum rc code, const char *file,
                                                         int line, const char *fmt, ...);
/* Same, and appends strerror(errno) to the message and keeps errno. */
__attribute__((format(printf, 5, 6))) enum rc err_sys_at(struct err *err, enum rc code, const char *file,
                                                         int line, const char *fmt, ...);
/* Sets the hint of an error already set; err may be NULL. */
__attribute__((format(printf, 2, 3))) void err_hint(struct err *err, const char *fmt, ...);
/* Puts "context: " before the message; err may be NULL. */
__attribute__((format(printf, 2, 3))) void err_prefix(struct err *err, const char *fmt, ...);

/* The value is the code itself, spelled in the caller: it and its analysers see that an error is not RC_OK.
 */
#define err_set(err, code, ...)                                                                              \
    ((void)err_set_at((err), (code), __FILE__, __LINE__, __VA_ARGS__), (enum rc)(code))
#define err_sys(err, code, ...)                                                                              \
    ((void)err_sys_at((err), (code), __FILE__, __LINE__, __VA_ARGS__), (enum rc)(code))

/* "not_found" for RC_NOT_FOUND; static string, "unknown" for a number not in the table. */
const char *rc_word(enum rc code);
/* The HTTP status that fits the code. */
int rc_http_status(enum rc code);

#endif
