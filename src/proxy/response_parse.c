/* A backend's answer, parsed strictly: llhttp's callbacks, and the short way for whole chunks. Layer proxy;
 * loop thread only.
 *
 * What is not an answer by the letter of HTTP is refused: ambiguous framing, other protocols, 101. The pieces
 * of a body that one read brought are the server's segments, which lie in it, in order. */
#include "proxy/proxy_priv.h"

#include "base/hex.h"

#include <string.h>

/* ---- llhttp's callbacks ---- */

static int checked(enum head_problem p)
{
    return p == HEAD_FINE ? 0 : HPE_USER;
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    if (u->head_done) { /* a trailer */
        u->raw_ok = false;
        return 0;
    }
    return checked(head_name(&u->in->head, u->in->data, at, n));
}

static int on_header_field_complete(llhttp_t *p)
{
    struct up *u = p->data;
    if (!u->head_done)
        head_name_end(&u->in->head);
    return 0;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    return u->head_done ? 0 : checked(head_value(&u->in->head, u->in->data, at, n));
}

static int on_headers_complete(llhttp_t *p)
{
    struct up *u = p->data;
    const struct conn *c = u->c;
    struct head *h = &u->in->head;
    int status = llhttp_get_status_code(p);
    if (status == 101 || status < 100 || p->http_major != 1)
        return -1;
    u->interim = status < 200;
    if (u->interim)
        return 0;
    head_close(h, u->in->data);
    u->head_done = true;
    bool coded = h->seen[HDR_TRANSFER_ENCODING] != 0, sized = h->seen[HDR_CONTENT_LENGTH] != 0;
    if (c->head_only || status == 204 || status == 304) {
        u->framing = FRAME_NONE;
        return 1;
    }
    if (h->seen[HDR_CONTENT_LENGTH] > 1 || (coded && sized))
        return -1;
    if (coded) {
        if (h->seen[HDR_TRANSFER_ENCODING] > 1 ||
            !str_ieq(head_get(h, u->in->data, HDR_TRANSFER_ENCODING), STR("chunked")))
            return -1;
        u->framing = FRAME_CHUNKED;
    } else {
        u->framing = sized ? FRAME_LENGTH : FRAME_EOF;
        u->length = sized ? p->content_length : 0;
    }
    return 0;
}

void response_compact(struct http_server *s)
{
    char *to = s->segments[0].p;
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_segments; i++) {
        if (to + n != s->segments[i].p)
            memmove(to + n, s->segments[i].p, s->segments[i].n);
        n += s->segments[i].n;
    }
    s->segments[0].n = n;
    s->n_segments = 1;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    struct http_server *s = u->s;
    if (s->n_segments == SEGMENTS) {
        u->raw_ok = false;
        response_compact(s);
    }
    s->segments[s->n_segments++] = (struct segment){(char *)(uintptr_t)at, n};
    s->payload_end = at + n;
    return 0;
}

static int on_chunk_header(llhttp_t *p)
{
    struct up *u = p->data;
    u->in_chunk = true;
    return 0;
}

static int on_chunk_complete(llhttp_t *p)
{
    struct up *u = p->data;
    u->in_chunk = false;
    return 0;
}

static int on_extension(llhttp_t *p, const char *at, size_t n)
{
    (void)at;
    (void)n;
    struct up *u = p->data;
    u->raw_ok = false;
    return 0;
}

static int on_message_complete(llhttp_t *p)
{
    struct up *u = p->data;
    if (u->interim) {
        u->interim = false;
        head_reset(&u->in->head);
        return 0;
    }
    u->message_done = true;
    u->keep_alive = llhttp_should_keep_alive(p) && u->framing != FRAME_EOF && !u->cut;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_chunk_complete = on_chunk_complete,
    .on_chunk_extension_name = on_extension,
    .on_message_complete = on_message_complete,
};

void response_start(struct up *u)
{
    llhttp_init(&u->parser, HTTP_RESPONSE, &settings);
    u->parser.data = u;
    u->framing = FRAME_NONE;
    u->got_bytes = u->head_done = u->message_done = u->interim = u->keep_alive = u->cut = false;
    u->raw_ok = u->in_chunk = u->clean = u->limited = false;
}

/* ---- the short way ---- */

/* Whole chunks and nothing else, checked byte by byte: true, and their payloads are the segments. */
bool response_take_chunks(struct up *u, char *p, size_t n)
{
    struct http_server *s = u->s;
    for (size_t at = 0; at < n;) {
        size_t size = 0, digits = 0;
        for (int d; at < n && digits < 8 && (d = hex_digit(p[at])) >= 0; at++, digits++)
            size = size << 4 | (size_t)d;
        if (!digits || !size || n - at < size + 4 || memcmp(p + at, "\r\n", 2) != 0 ||
            memcmp(p + at + 2 + size, "\r\n", 2) != 0 || s->n_segments == SEGMENTS)
            return false;
        s->segments[s->n_segments++] = (struct segment){p + at + 2, size};
        at += size + 4;
    }
    return true;
}
