/* Growing buffer: see buf.h. */
#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_release(struct buf *b)
{
    free(b->data);
    size_t max = b->max;
    *b = (struct buf){.max = max};
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t need, with_nul;
    if (b->failed)
        return false;
    if (__builtin_add_overflow(b->n, more, &need) || (b->max && need > b->max) ||
        __builtin_add_overflow(need, 1u, &with_nul)) {
        b->failed = true;
        return false;
    }
    if (with_nul <= b->cap)
        return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < with_nul && cap < SIZE_MAX / 2)
        cap += cap / 2;
    if (cap < with_nul)
        cap = with_nul;
    if (b->max && cap > b->max + 1)
        cap = b->max + 1;
    char *p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    b->data[b->n] = '\0';
    return true;
}

bool buf_append(struct buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n))
        return false;
    if (n)
        memcpy(b->data + b->n, p, n);
    b->n += n;
    b->data[b->n] = '\0';
    return true;
}

bool buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_put_str(struct buf *b, struct str s)
{
    return buf_append(b, s.p, s.n);
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char small[256];
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return false;
    }
    if ((size_t)n < sizeof small)
        return buf_append(b, small, (size_t)n);
    if (!buf_reserve(b, (size_t)n))
        return false;
    va_start(ap, fmt);
    vsnprintf(b->data + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
    return true;
}

void buf_consume(struct buf *b, size_t n)
{
    if (n >= b->n) {
        buf_clear(b);
        return;
    }
    memmove(b->data, b->data + n, b->n - n + 1);
    b->n -= n;
}

bool buf_put_json(struct buf *b, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    buf_append(b, "\"", 1);
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_append(b, s.p + from, i - from);
        from = i + 1;
        char esc[6] = {'\\', (char)c, 0, 0, 0, 0};
        size_t n = 2;
        if (c == '\n')
            esc[1] = 'n';
        else if (c == '\t')
            esc[1] = 't';
        else if (c == '\r')
            esc[1] = 'r';
        else if (c < 0x20) {
            esc[1] = 'u', esc[2] = '0', esc[3] = '0', esc[4] = hex[c >> 4], esc[5] = hex[c & 15];
            n = 6;
        }
        buf_append(b, esc, n);
    }
    if (from < s.n) /* no arithmetic on a NULL of no bytes */
        buf_append(b, s.p + from, s.n - from);
    return buf_append(b, "\"", 1);
}

struct str buf_str(const struct buf *b)
{
    return (struct str){b->data, b->n};
}

char *buf_take(struct buf *b)
{
    char *p = b->data ? b->data : mem_strdup("");
    size_t max = b->max;
    *b = (struct buf){.max = max};
    return p;
}
