/* A local function that hands its request on to an instance. Layer proxy; loop thread only.
 *
 * The path's beginning may be left out on the way (the name of a model that stands in it). From then on the
 * request is one like those of relayed routes: it is recorded, and a JSON body of an object is looked at, so
 * that a client that leaves is noticed as soon. What is no such body passes as it is. */
#include "proxy/proxy_priv.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the raw target that n decoded bytes of the path stand for. */
static size_t raw_length(struct str target, size_t n)
{
    size_t at = 0;
    for (; n > 0 && at < target.n; n--)
        at += target.p[at] == '%' ? 3 : 1;
    return at < target.n ? at : target.n;
}

/* Most of it was scanned while it came. */
static void look_at_body(struct conn *c)
{
    struct err err;
    const struct msg *m = c->in;
    c->scan_json =
        c->scan_ahead && m->body_n && body_model_end(&c->scan, m->data + m->head_n, m->body_n, &err) == RC_OK;
}

void http_forward(struct http_exchange *ex, const struct http_forward *how)
{
    struct conn *c = conn_of(ex);
    size_t raw = raw_length(c->target, how->skip);
    c->target.p += raw;
    c->target.n -= raw;
    if (str_starts(c->target, "%")) { /* the slash that is left stands there as %2F */
        c->target.p += 2;
        c->target.n -= 2;
        *(char *)(uintptr_t)c->target.p = '/';
    }
    c->path.p += how->skip;
    c->path.n -= how->skip;
    c->forwarded = true;
    c->call = dispatch_call(c->s, c->path);
    c->observe = how->observe;
    snprintf(c->model_text, sizeof c->model_text, "%.*s", STR_ARG(how->model));
    c->model = str_from(c->model_text);
    look_at_body(c);
    relay_start(c);
}
