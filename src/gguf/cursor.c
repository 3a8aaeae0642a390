/* The moving window: see cursor.h. */
#include "gguf/cursor.h"

#include "base/mem.h"

#include <endian.h>
#include <string.h>

enum rc cursor_init(struct cursor *c, const struct gguf_source *src, uint64_t limit, struct err *err)
{
    *c = (struct cursor){.src = src, .limit = limit, .err = err};
    c->window = malloc(CURSOR_WINDOW);
    return c->window ? RC_OK : err_set(err, RC_NOMEM, "no memory to read a model file");
}

void cursor_release(struct cursor *c)
{
    free(c->window);
    c->window = NULL;
}

uint64_t cursor_left(const struct cursor *c)
{
    return c->at < c->src->size ? c->src->size - c->at : 0;
}

static enum rc ends_early(struct cursor *c, uint64_t wanted)
{
    enum rc rc =
        err_set(c->err, RC_TRUNCATED,
                "the file ends at byte %llu, inside its metadata (%llu more bytes expected at %llu)",
                (unsigned long long)c->src->size, (unsigned long long)wanted, (unsigned long long)c->at);
    err_hint(c->err, "the download is incomplete or the file is damaged: fetch it again");
    return rc;
}

/* Reads the window anew from the cursor's place on. */
static enum rc refill(struct cursor *c, size_t n)
{
    if (c->at > c->limit || n > c->limit - c->at) {
        enum rc rc = err_set(c->err, RC_LIMIT, "the metadata is longer than %llu MiB",
                             (unsigned long long)(c->limit / MIB));
        err_hint(c->err, "no known model needs that much: the file is damaged or not a model");
        return rc;
    }
    ssize_t got = c->src->read_at(c->src, c->window, CURSOR_WINDOW, c->at);
    if (got < 0) {
        c->window_n = 0;
        return err_sys(c->err, RC_IO, "cannot read at byte %llu", (unsigned long long)c->at);
    }
    c->window_at = c->at;
    c->window_n = (size_t)got;
    return c->window_n < n ? ends_early(c, n) : RC_OK;
}

enum rc cursor_peek(struct cursor *c, size_t n, const unsigned char **ret_p)
{
    if (n > cursor_left(c))
        return ends_early(c, n);
    if (n > CURSOR_WINDOW)
        return err_set(c->err, RC_LIMIT, "a string of %zu bytes is over the limit", n);
    uint64_t into = c->at - c->window_at;
    if (c->at < c->window_at || into > c->window_n || n > c->window_n - into) {
        enum rc rc = refill(c, n);
        if (rc)
            return rc;
        into = 0;
    }
    *ret_p = c->window + into;
    return RC_OK;
}

enum rc cursor_skip(struct cursor *c, uint64_t n)
{
    if (n > cursor_left(c))
        return ends_early(c, n);
    c->at += n;
    return RC_OK;
}

enum rc cursor_u32(struct cursor *c, uint32_t *ret_value)
{
    const unsigned char *p;
    enum rc rc = cursor_peek(c, 4, &p);
    if (rc)
        return rc;
    memcpy(ret_value, p, 4);
    *ret_value = le32toh(*ret_value);
    c->at += 4;
    return RC_OK;
}

enum rc cursor_u64(struct cursor *c, uint64_t *ret_value)
{
    const unsigned char *p;
    enum rc rc = cursor_peek(c, 8, &p);
    if (rc)
        return rc;
    memcpy(ret_value, p, 8);
    *ret_value = le64toh(*ret_value);
    c->at += 8;
    return RC_OK;
}

enum rc cursor_copy(struct cursor *c, void *out, size_t n)
{
    unsigned char *to = out;
    if (n > cursor_left(c))
        return ends_early(c, n);
    while (n) {
        size_t step = n < CURSOR_WINDOW ? n : CURSOR_WINDOW;
        const unsigned char *p;
        enum rc rc = cursor_peek(c, step, &p);
        if (rc)
            return rc;
        memcpy(to, p, step);
        to += step;
        n -= step;
        c->at += step;
    }
    return RC_OK;
}

enum rc cursor_skip_strings(struct cursor *c, uint64_t count)
{
    if (count > cursor_left(c) / 8)
        return ends_early(c, count < UINT64_MAX / 8 ? count * 8 : UINT64_MAX);
    while (count--) {
        uint64_t n;
        enum rc rc = cursor_u64(c, &n);
        if (!rc)
            rc = cursor_skip(c, n);
        if (rc)
            return rc;
    }
    return RC_OK;
}
