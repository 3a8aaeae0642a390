/* Owned, growing, capped byte buffer. Layer base; one owner, no locking.
 * A failed append (cap passed, memory short) sets `failed` and leaves the content as it was; later appends do
 * nothing, so a writer may check once at the end. data is always NUL-terminated when not NULL. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/str.h"

struct buf {
    char *data;
    size_t n, cap;
    size_t max; /* 0 = no cap */
    bool failed;
};

void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory, clears failed */
bool buf_append(struct buf *b, const void *p, size_t n);
bool buf_puts(struct buf *b, const char *s);
bool buf_put_str(struct buf *b, struct str s);
__attribute__((format(printf, 2, 3))) bool buf_printf(struct buf *b, const char *fmt, ...);
bool buf_reserve(struct buf *b, size_t more); /* room for `more` further bytes */
void buf_consume(struct buf *b, size_t n);    /* drops the first n bytes */
/* The content without terminating NUL, quoted as a JSON string (quotes included). */
bool buf_put_json(struct buf *b, struct str s);
struct str buf_str(const struct buf *b);
/* Hands the memory to the caller (free()); the buffer is empty afterwards. Never NULL. */
char *buf_take(struct buf *b);

#endif
