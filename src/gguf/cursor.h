/* A window that moves over a source: every read is checked against the end, skips touch no bytes. Layer gguf;
 * one thread. Memory: one window, whatever the file says. */
#ifndef GGUF_CURSOR_H
#define GGUF_CURSOR_H

#include "gguf/source.h"
#include "base/str.h"

/* Also the longest string that can be looked at in one piece. */
#define CURSOR_WINDOW (256u * 1024u)

struct cursor {
    const struct gguf_source *src;
    unsigned char *window; /* owned, CURSOR_WINDOW bytes */
    uint64_t window_at;    /* offset of window[0] in the source */
    size_t window_n;       /* valid bytes in it */
    uint64_t at;           /* offset of the next byte */
    uint64_t limit; /* reading past this offset is RC_LIMIT: what precedes the tensor data is never so long */
    struct err *err; /* where failures are described; may be NULL */
};

enum rc cursor_init(struct cursor *c, const struct gguf_source *src, uint64_t limit, struct err *err);
void cursor_release(struct cursor *c);

/* Bytes between here and the end of the source. */
uint64_t cursor_left(const struct cursor *c);
/* Makes n (at most CURSOR_WINDOW) bytes readable at *ret_p, without moving. Valid until the next call.
 * RC_TRUNCATED when the source ends before, RC_IO, RC_LIMIT. */
enum rc cursor_peek(struct cursor *c, size_t n, const unsigned char **ret_p);
/* RC_TRUNCATED when fewer than n bytes are left. */
enum rc cursor_skip(struct cursor *c, uint64_t n);
enum rc cursor_u32(struct cursor *c, uint32_t *ret_value);
enum rc cursor_u64(struct cursor *c, uint64_t *ret_value);
/* Copies n bytes out; n may be larger than the window. */
enum rc cursor_copy(struct cursor *c, void *out, size_t n);
/* Skips count strings, each a u64 length and its bytes. */
enum rc cursor_skip_strings(struct cursor *c, uint64_t count);

#endif
