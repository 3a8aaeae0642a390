/* The body of an answer, framed for the client. Layer proxy; loop thread only.
 *
 * A chunked body is validated by llhttp; when a read starts and ends between chunks and carried neither
 * extensions nor trailers, its very bytes go out, else its payload is framed again as one chunk, in place. */
#include "proxy/proxy_priv.h"

#include "proxy/put.h"

#include <string.h>

/* Whether the read ended just behind a chunk (or behind the last one). What llhttp was given since the last
 * payload is compared with what must stand there, so the start of a size line does not pass for a boundary.
 */
static bool ends_clean(const struct up *u, struct str raw, bool first)
{
    static const struct str after[2] = {{"\r\n", 2}, {"\r\n0\r\n\r\n", 7}};
    if (u->in_chunk)
        return false;
    if (!u->s->n_segments && first)
        return !u->message_done && str_ends(raw, "\r\n\r\n"); /* the head, and nothing else */
    if (!u->s->n_segments)
        return u->raw_ok && (u->message_done ? str_eq_c(raw, "0\r\n\r\n") : !raw.n);
    struct str rest = {u->s->payload_end, (size_t)(raw.p + raw.n - u->s->payload_end)};
    return str_eq(rest, after[u->message_done]);
}

/* The payload as one chunk, in place, and behind it the last one. In front of a payload there is room: the
 * headroom, or the head that was parsed and is written anew. Behind it there is the tailroom. */
struct str response_frame_chunk(struct str payload, bool last)
{
    char *p = (char *)(uintptr_t)payload.p, size[24];
    struct put w = {size, size + sizeof size, false};
    struct put tail = {p + payload.n, p + payload.n + READ_TAILROOM, false};
    if (payload.n) {
        put_hex(&w, payload.n);
        put_lit(&w, "\r\n");
        put_lit(&tail, "\r\n");
        p -= w.p - size;
        memmove(p, size, (size_t)(w.p - size));
    }
    if (last)
        put_lit(&tail, "0\r\n\r\n");
    return (struct str){p, (size_t)(tail.p - p)};
}

/* The bytes that go out for the segments of one read, contiguous, framed for the client. raw covers the read.
 */
struct str response_frame(struct up *u, struct str raw, bool first)
{
    struct http_server *s = u->s;
    bool chunked = (u->framing == FRAME_CHUNKED || u->framing == FRAME_EOF || u->c->told) && !u->c->http10;
    if (u->framing == FRAME_CHUNKED) {
        u->clean = ends_clean(u, raw, first);
        if (u->raw_ok && u->clean && chunked)
            return raw;
    }
    if (s->n_segments > 1)
        response_compact(s);
    struct str out = {raw.p + raw.n, 0}; /* where there is room for the last chunk */
    if (s->n_segments)
        out = (struct str){s->segments[0].p, s->segments[0].n};
    return chunked ? response_frame_chunk(out, u->message_done) : out;
}
