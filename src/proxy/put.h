/* Appends to a fixed block of memory; what does not fit sets `over` and is left out. Layer proxy; no state.
 */
#ifndef PROXY_PUT_H
#define PROXY_PUT_H

#include "base/str.h"

#include <string.h>

struct put {
    char *p, *end;
    bool over;
};

static inline void put_bytes(struct put *w, const void *p, size_t n)
{
    if ((size_t)(w->end - w->p) < n) {
        w->over = true;
        return;
    }
    if (n > 0) /* memcpy takes no NULL, not even for nothing */
        memcpy(w->p, p, n);
    w->p += n;
}
#define put_lit(w, lit) put_bytes((w), "" lit, sizeof(lit) - 1)
static inline void put_cstr(struct put *w, const char *s)
{
    put_bytes(w, s, strlen(s));
}
static inline void put_str(struct put *w, struct str s)
{
    put_bytes(w, s.p, s.n);
}
static inline void put_u64(struct put *w, uint64_t v)
{
    char text[20];
    size_t at = sizeof text;
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put_bytes(w, text + at, sizeof text - at);
}
/* Quoted as in JSON; control characters, which no name of ours has, are left out. */
static inline void put_json_string(struct put *w, const char *s)
{
    put_lit(w, "\"");
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\')
            put_lit(w, "\\");
        if (ch >= 0x20)
            put_bytes(w, s, 1);
    }
    put_lit(w, "\"");
}
static inline void put_hex(struct put *w, uint64_t v)
{
    char text[16];
    size_t at = sizeof text;
    do {
        text[--at] = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v);
    put_bytes(w, text + at, sizeof text - at);
}

#endif
