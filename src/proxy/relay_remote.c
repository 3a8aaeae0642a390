/* A request to a server beyond this machine. Layer proxy; loop thread only.
 *
 * What leaves is listed, not what stays: the body, and the fields of the client's head that the API needs.
 * The client's keys, cookies, addresses and agent stay here, and of the answer's head its cookies and the
 * account's names do. The key of the server is written into its head and nowhere else. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"
#include "proxy/put.h"

#include <string.h>

static const bool leaves[HDR_COUNT] = {
    [HDR_ACCEPT] = true,         [HDR_CONTENT_TYPE] = true,      [HDR_CONTENT_ENCODING] = true,
    [HDR_ANTHROPIC_BETA] = true, [HDR_ANTHROPIC_VERSION] = true, [HDR_OPENAI_BETA] = true,
};

static const bool comes_back[HDR_COUNT] = {
    [HDR_CONTENT_TYPE] = true,
    [HDR_CONTENT_ENCODING] = true,
    [HDR_RETRY_AFTER] = true,
};

const char *relay_model_there(const struct conn *c)
{
    return c->lease.remote ? c->lease.remote->model : c->lease.model;
}

void remote_hide_fields(bool drop[HDR_COUNT])
{
    for (size_t i = 0; i < HDR_COUNT; i++)
        drop[i] = drop[i] || !comes_back[i];
}

/* Its own path in place of the API's usual one. */
static void put_target(const struct conn *c, struct put *w)
{
    struct str target = made_target(c);
    put_cstr(w, c->lease.remote->path);
    if (str_starts(target, "/v1/"))
        target = (struct str){target.p + 3, target.n - 3};
    put_str(w, target);
}

void remote_put_head(struct conn *c, struct put *w, uint64_t body_n)
{
    const struct route_remote *r = c->lease.remote;
    const struct msg *m = c->in;
    bool drop[HDR_COUNT];
    for (size_t i = 0; i < HDR_COUNT; i++)
        drop[i] = !leaves[i];
    drop[HDR_CONTENT_TYPE] = made_translated(c);
    put_cstr(w, request_method_name(c));
    put_lit(w, " ");
    put_target(c, w);
    put_lit(w, " HTTP/1.1\r\nHost: ");
    put_cstr(w, r->host_field);
    put_lit(w, "\r\n");
    head_copy(&m->head, m->data, HEAD_TO_UPSTREAM, drop, w);
    if (made_translated(c))
        put_lit(w, "Content-Type: application/json\r\n");
    if (r->version && !m->head.seen[HDR_ANTHROPIC_VERSION]) {
        put_lit(w, "anthropic-version: ");
        put_cstr(w, r->version);
        put_lit(w, "\r\n");
    }
    if (r->auth)
        put_cstr(w, r->auth);
    put_lit(w, "User-Agent: arriero/" ARRIERO_VERSION "\r\nAccept-Encoding: identity\r\nX-Request-Id: ");
    put_cstr(w, c->id_text);
    put_lit(w, "\r\nContent-Length: ");
    put_u64(w, body_n);
    put_lit(w, "\r\n\r\n");
}
