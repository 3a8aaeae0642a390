/* Texts of a request and its answer, kept where its key allows it. Layer proxy; loop thread only.
 *
 * The request's text is its body; the answer's is taken where bytes leave for the client, so that it is what
 * the client got, whoever made it. Both are cut at CAPTURE_BYTES. Nothing is kept without c->capture. */
#include "proxy/proxy_priv.h"

#include "base/hex.h"
#include "base/mem.h"

#include <string.h>

#define CAPTURE_BYTES ((size_t)32 * 1024)

struct capture {
    struct buf request, sent;
};

static void put_some(struct buf *b, const void *p, size_t n)
{
    size_t room = CAPTURE_BYTES - b->n;
    (void)buf_append(b, p, n < room ? n : room);
}

void capture_begin(struct conn *c)
{
    const struct msg *m = c->in;
    if (!c->key || !c->key->spec.captures || c->capture)
        return;
    c->capture = mem_new(struct capture);
    if (m && m->body_n)
        put_some(&c->capture->request, m->data + m->head_n, m->body_n);
}

void capture_sent(struct conn *c, const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++)
        put_some(&c->capture->sent, iov[i].iov_base, iov[i].iov_len);
}

void capture_end(struct conn *c)
{
    if (!c->capture)
        return;
    buf_release(&c->capture->request);
    buf_release(&c->capture->sent);
    free(c->capture);
    c->capture = NULL;
}

struct str capture_request(const struct conn *c)
{
    return c->capture ? buf_str(&c->capture->request) : (struct str){"", 0};
}

/* What chunks carry; the last may be cut. */
static void put_chunks(struct str s, struct buf *out)
{
    while (s.n) {
        struct str line = str_cut(&s, '\n');
        size_t size = 0;
        for (size_t i = 0; i < line.n && i < 8; i++) {
            int digit = hex_digit(line.p[i]);
            if (digit < 0)
                break;
            size = size * 16 + (size_t)digit;
        }
        size_t part = size < s.n ? size : s.n;
        (void)buf_append(out, s.p, part);
        s.p += part;
        s.n -= part;
        (void)str_cut(&s, '\n');
    }
}

void capture_response(const struct conn *c, struct buf *out)
{
    struct str s = c->capture ? buf_str(&c->capture->sent) : (struct str){"", 0};
    ptrdiff_t end = str_find(s, STR("\r\n\r\n"));
    if (end < 0)
        return;
    struct str head = {s.p, (size_t)end}, body = {s.p + end + 4, s.n - (size_t)end - 4};
    if (str_find(head, STR("Transfer-Encoding: chunked")) >= 0)
        put_chunks(body, out);
    else
        (void)buf_put_str(out, body);
}
