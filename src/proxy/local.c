/* Answers of our own: whole replies, streams, preflights. Layer proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "proxy/guard.h"
#include "proxy/put.h"

#include <limits.h>
#include <string.h>

#define LOCAL_FIELDS 1536u /* further fields of a preflight's answer */

bool local_origin_allowed(const struct conn *c)
{
    if (!c->in)
        return false;
    bool control = c->route && c->route->control;
    return guard_origin(head_get(&c->in->head, c->in->data, HDR_ORIGIN),
                        str_from(control ? "loopback" : c->s->cors_origin));
}

size_t local_cors(const struct conn *c, char *out, size_t cap)
{
    if (!c->in || !c->in->head.seen[HDR_ORIGIN] || !local_origin_allowed(c))
        return 0;
    struct put w = {out, out + cap, false};
    put_lit(&w, "Access-Control-Allow-Origin: ");
    put_str(&w, head_get(&c->in->head, c->in->data, HDR_ORIGIN));
    put_lit(&w, "\r\nVary: Origin\r\nAccess-Control-Expose-Headers: X-Request-Id, X-Arriero-Instance, "
                "X-Arriero-Queue-Ms, X-Arriero-Queue, Retry-After, X-RateLimit-Limit-Requests, "
                "X-RateLimit-Remaining-Requests, "
                "X-RateLimit-Reset-Requests, X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, "
                "X-RateLimit-Reset-Tokens\r\n");
    return w.over ? 0 : (size_t)(w.p - out);
}

size_t local_head(struct conn *c, int status, const char *content_type, char *out, size_t cap)
{
    struct put w = {out, out + cap, false};
    put_lit(&w, "HTTP/1.1 ");
    put_u64(&w, (uint64_t)status);
    put_lit(&w, " ");
    put_cstr(&w, errors_reason(status));
    put_lit(&w, "\r\nDate: ");
    put_cstr(&w, server_date(c->s));
    if (content_type && *content_type) {
        put_lit(&w, "\r\nContent-Type: ");
        put_cstr(&w, content_type);
        put_lit(&w, "\r\nX-Content-Type-Options: nosniff");
    }
    if (*c->id_text) {
        put_lit(&w, "\r\nX-Request-Id: ");
        put_cstr(&w, c->id_text);
    }
    put_lit(&w, "\r\n");
    admit_fields(c, &w);
    w.p += local_cors(c, w.p, (size_t)(w.end - w.p));
    if (!c->keep_alive)
        put_lit(&w, "Connection: close\r\n");
    else if (c->http10)
        put_lit(&w, "Connection: keep-alive\r\n");
    return w.over ? 0 : (size_t)(w.p - out);
}

size_t local_stream_head(struct conn *c, int status, const char *content_type, char *out, size_t cap)
{
    if (c->http10 || !c->complete || c->s->draining)
        c->keep_alive = false;
    c->status = status;
    size_t n = local_head(c, status, content_type, out, cap - 256);
    struct put w = {out + n, out + cap, false};
    put_lit(&w, "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n");
    if (!c->http10)
        put_lit(&w, "Transfer-Encoding: chunked\r\n");
    put_lit(&w, "\r\n");
    return (size_t)(w.p - out);
}

static void reply(struct conn *c, int status, const char *content_type, const char *more_fields,
                  struct str body, struct buf *own)
{
    if (c->phase == PHASE_CLOSED)
        return;
    if (!c->complete || c->s->draining)
        c->keep_alive = false;
    char head[2560], end[64];
    size_t n = local_head(c, status, content_type, head, sizeof head);
    struct put w = {end, end + sizeof end, false};
    if (status != 204 && status != 304) {
        put_lit(&w, "Content-Length: ");
        put_u64(&w, body.n);
        put_lit(&w, "\r\n");
    }
    put_lit(&w, "\r\n");
    c->status = status;
    bool bare = c->head_only || status == 204 || status == 304 || !body.n;
    struct iovec iov[4] = {{head, n},
                           {(void *)(uintptr_t)more_fields, strlen(more_fields)}, /* of any length */
                           {end, (size_t)(w.p - end)},
                           {(void *)(uintptr_t)body.p, body.n}};
    bool fine = bare || !own ? conn_write(c, iov, bare ? 3 : 4) : conn_write_taking(c, iov, 4, own);
    if (fine)
        conn_answered(c);
}

void local_reply(struct conn *c, int status, const char *content_type, const char *more_fields,
                 struct str body)
{
    reply(c, status, content_type, more_fields, body, NULL);
}

void local_reply_taking(struct conn *c, int status, const char *content_type, const char *more_fields,
                        struct buf *body)
{
    reply(c, status, content_type, more_fields, buf_str(body), body);
}

/* Names of fields and commas, and not too many. */
static bool is_list_of_names(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if (!((ch >= '0' && ch <= '9') || (unsigned char)((ch | 0x20) - 'a') < 26 ||
              (ch && strchr("-_, ", ch))))
            return false;
    }
    return s.n > 0 && s.n <= 800;
}

/* A page that may ask may send what fields it likes: clients add many of their own (x-stainless-…). Cookies
 * mean nothing here, so credentials are not spoken of. */
static void put_permissions(const struct conn *c, struct put *w)
{
    struct str asked =
        http_header((const struct http_exchange *)(const void *)c, "access-control-request-headers");
    struct str local =
        http_header((const struct http_exchange *)(const void *)c, "access-control-request-private-network");
    put_lit(w, "Access-Control-Allow-Methods: GET, POST, PUT, DELETE\r\nAccess-Control-Allow-Headers: ");
    put_str(w, is_list_of_names(asked) ? asked : STR("authorization, content-type, x-api-key, x-request-id"));
    put_lit(w, "\r\nAccess-Control-Max-Age: 600\r\n");
    if (str_ieq(local, STR("true"))) /* pages of the web ask for machines of the local network */
        put_lit(w, "Access-Control-Allow-Private-Network: true\r\n");
}

void local_allow(unsigned methods, struct put *w)
{
    static const struct {
        unsigned bit;
        const char *names;
    } words[] = {{HTTP_M_GET, "GET, HEAD, "},
                 {HTTP_M_POST, "POST, "},
                 {HTTP_M_PUT, "PUT, "},
                 {HTTP_M_DELETE, "DELETE, "}};
    put_lit(w, "Allow: ");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (methods & words[i].bit)
            put_cstr(w, words[i].names);
    put_lit(w, "OPTIONS\r\n");
}

void local_preflight(struct conn *c)
{
    struct put w;
    char fields[LOCAL_FIELDS];
    w = (struct put){fields, fields + sizeof fields - 1, false};
    local_allow(c->allow ? c->allow : UINT_MAX, &w);
    if (c->in->head.seen[HDR_ORIGIN] && local_origin_allowed(c))
        put_permissions(c, &w);
    *w.p = '\0';
    local_reply(c, 204, "", fields, (struct str){"", 0});
}

/* ---- the public side ---- */

void http_reply(struct http_exchange *ex, int status, const char *content_type, struct str body)
{
    struct conn *c = conn_of(ex);
    if (!conn_settle(c))
        local_reply(c, status, content_type, "", body);
}

void http_redirect(struct http_exchange *ex, int status, struct str location)
{
    struct conn *c = conn_of(ex);
    if (conn_settle(c))
        return;
    struct buf fields = {0};
    buf_puts(&fields, "Location: ");
    for (size_t i = 0; i < location.n; i++) { /* what a header field may not hold as it is */
        unsigned char ch = (unsigned char)location.p[i];
        if (ch > ' ' && ch < 0x7f)
            buf_append(&fields, &location.p[i], 1);
        else
            buf_printf(&fields, "%%%02X", ch);
    }
    buf_puts(&fields, "\r\n");
    local_reply(c, status, "", fields.data, (struct str){"", 0});
    buf_release(&fields);
}

void http_on_abort(struct http_exchange *ex, void (*fn)(void *arg), void *arg)
{
    struct conn *c = conn_of(ex);
    c->abort_fn = fn;
    c->abort_arg = arg;
}

void http_stream_start(struct http_exchange *ex, int status, const char *content_type)
{
    struct conn *c = conn_of(ex);
    if (c->phase == PHASE_CLOSED)
        return;
    char head[2048];
    size_t n = local_stream_head(c, status, content_type, head, sizeof head);
    c->phase = PHASE_STREAM;
    conn_release_input(c);
    struct iovec iov = {head, n};
    (void)conn_write(c, &iov, 1);
}

bool http_stream_write(struct http_exchange *ex, struct str bytes)
{
    struct conn *c = conn_of(ex);
    if (c->phase != PHASE_STREAM || c->broken || c->head_only)
        return false;
    if (!bytes.n)
        return true;
    if (conn_pending(c) + bytes.n > STREAM_PENDING) {
        c->broken = true; /* what is missing cannot be made up for: the stream must not look whole */
        return false;
    }
    char size[24];
    struct put w = {size, size + sizeof size, false};
    put_hex(&w, bytes.n);
    put_lit(&w, "\r\n");
    struct iovec iov[3] = {
        {size, (size_t)(w.p - size)}, {(void *)(uintptr_t)bytes.p, bytes.n}, {(void *)(uintptr_t) "\r\n", 2}};
    return c->http10 ? conn_write(c, iov + 1, 1) : conn_write(c, iov, 3);
}

void http_stream_end(struct http_exchange *ex)
{
    struct conn *c = conn_of(ex);
    if (conn_settle(c) || c->phase != PHASE_STREAM)
        return;
    c->abort_fn = NULL;
    if (c->broken) {
        c->phase = PHASE_FLUSH; /* the owner knows already */
        conn_lost(c, "client_closed", true);
        return;
    }
    struct iovec last = {(void *)(uintptr_t) "0\r\n\r\n", 5};
    if (!c->http10 && !c->head_only && !conn_write(c, &last, 1)) {
        c->phase = PHASE_FLUSH;
        conn_lost(c, "client_closed", true);
        return;
    }
    conn_answered(c);
}
