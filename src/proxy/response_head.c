/* The head of a relayed answer: the backend's fields, and our own. Layer proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "proxy/put.h"

/* What describes the backend's body and is not true of one that is made here. */
static const bool of_body[HDR_COUNT] = {[HDR_CONTENT_TYPE] = true, [HDR_CONTENT_ENCODING] = true};

/* Its place when it came to wait, and the seconds that it was to wait. */
static void put_queue(const struct conn *c, struct put *w)
{
    put_lit(w, "X-Arriero-Queue: ");
    put_u64(w, c->lease.queue_position);
    put_lit(w, "; expected=");
    put_u64(w, c->lease.queue_expected_ms / 1000);
    put_lit(w, ".");
    put_u64(w, c->lease.queue_expected_ms % 1000 / 100);
    put_lit(w, "\r\n");
}

static void put_fields(const struct conn *c, const struct head *h, const char *data, struct put *w)
{
    bool drop[HDR_COUNT] = {false};
    if (!c->lease.remote) {
        head_copy(h, data, HEAD_TO_CLIENT, c->made ? of_body : NULL, w);
        return;
    }
    if (c->made)
        memcpy(drop, of_body, sizeof drop);
    remote_hide_fields(drop);
    head_copy(h, data, HEAD_TO_CLIENT, drop, w);
}

/* Ids come from file names and configurations, which may hold anything. */
static void put_id(struct put *w, const char *id)
{
    for (const char *p = id; *p; p++)
        put_bytes(w, *p > 0x20 && *p < 0x7f ? p : "?", 1);
}

void response_put_lease(const struct conn *c, struct put *w)
{
    put_lit(w, "X-Arriero-Instance: ");
    put_id(w, c->lease.instance);
    put_lit(w, "\r\nX-Arriero-Route: ");
    put_id(w, c->lease.model);
    put_lit(w, "\r\nX-Arriero-Queue-Ms: ");
    put_u64(w, c->t_wait_us / 1000);
    put_lit(w, "\r\n");
    if (c->lease.queue_position)
        put_queue(c, w);
}

void response_put_head(struct up *u, struct put *w)
{
    struct conn *c = u->c;
    const struct msg *m = u->in;
    const struct head *h = &m->head;
    put_lit(w, "HTTP/1.1 ");
    put_u64(w, (uint64_t)c->status);
    put_lit(w, " ");
    put_cstr(w, errors_reason(c->status));
    put_lit(w, "\r\n");
    put_fields(c, h, m->data, w);
    if (c->made) {
        put_lit(w, "Content-Type: ");
        put_cstr(w, made_type(c));
        put_lit(w, "\r\n");
    }
    if (u->framing == FRAME_LENGTH ||
        (u->framing == FRAME_NONE && h->seen[HDR_CONTENT_LENGTH] && c->head_only)) {
        put_lit(w, "Content-Length: ");
        if (u->framing == FRAME_LENGTH)
            put_u64(w, u->length);
        else
            put_str(w, head_get(h, m->data, HDR_CONTENT_LENGTH));
        put_lit(w, "\r\n");
    } else if (u->framing != FRAME_NONE && !c->http10) {
        put_lit(w, "Transfer-Encoding: chunked\r\n");
    }
    if (!c->keep_alive)
        put_lit(w, "Connection: close\r\n");
    else if (c->http10)
        put_lit(w, "Connection: keep-alive\r\n");
    if (c->streamed)
        put_lit(w, "X-Accel-Buffering: no\r\n");
    put_lit(w, "X-Request-Id: ");
    put_cstr(w, c->id_text);
    put_lit(w, "\r\n");
    response_put_lease(c, w);
    admit_fields(c, w);
    if (c->in && c->in->head.seen[HDR_ORIGIN])
        w->p += local_cors(c, w->p, (size_t)(w->end - w->p));
    put_lit(w, "\r\n");
}
