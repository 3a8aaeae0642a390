/* From a parsed head to who answers: path, route, method, key, sizes. Layer proxy; loop thread only.
 *
 * Everything that can be refused is refused from the head alone, before a body is read. A refusal of a
 * request without a body keeps the connection; any other ends it, since the body would have to be read to be
 * skipped. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/mem.h"
#include "proxy/guard.h"
#include "proxy/put.h"

#include <string.h>

static const struct {
    unsigned bit;
    uint8_t method; /* llhttp_method_t */
} methods[] = {
    {HTTP_M_GET, HTTP_GET},       {HTTP_M_GET, HTTP_HEAD}, {HTTP_M_POST, HTTP_POST},
    {HTTP_M_DELETE, HTTP_DELETE}, {HTTP_M_PUT, HTTP_PUT},
};

static unsigned method_bit(uint8_t method)
{
    for (size_t i = 0; i < TABLE_COUNT(methods); i++)
        if (methods[i].method == method)
            return methods[i].bit;
    return 0;
}

/* A refusal that leaves the connection usable if the request has no body to skip. */
static void refuse(struct conn *c, int status, enum rc code, const char *text)
{
    c->refusal = (struct refusal){.status = status, .code = code, .text = text};
    c->refusal_waits = c->content_length == 0;
}

/* Percent-decodes into out (as long as in); -1 for a broken escape or a NUL. */
static ptrdiff_t decode(struct str in, char *out, bool plus)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char ch = in.p[i];
        if (ch == '%') {
            int hi = i + 2 < in.n ? hex_digit(in.p[i + 1]) : -1, lo = hi < 0 ? -1 : hex_digit(in.p[i + 2]);
            if (lo < 0 || !(hi | lo))
                return -1;
            ch = (char)(hi << 4 | lo);
            i += 2;
        } else if (ch == '+' && plus) {
            ch = ' ';
        }
        out[n++] = ch;
    }
    return (ptrdiff_t)n;
}

static bool has_dot_segment(struct str path)
{
    while (path.n) {
        struct str part = str_cut(&path, '/');
        if (str_eq(part, STR(".")) || str_eq(part, STR("..")))
            return true;
    }
    return false;
}

static bool split_target(struct conn *c)
{
    struct str t = c->target;
    const char *hash = memchr(t.p, '#', t.n);
    if (hash)
        c->target.n = t.n = (size_t)(hash - t.p);
    c->path = str_cut(&t, '?');
    c->query = t;
    if (memchr(c->path.p, '%', c->path.n)) {
        c->path_buf = mem_calloc(c->path.n + 1, 1);
        ptrdiff_t n = decode(c->path, c->path_buf, false);
        if (n < 0)
            return false;
        c->path = (struct str){c->path_buf, (size_t)n};
    }
    return !memchr(c->path.p, '.', c->path.n) || !has_dot_segment(c->path);
}

static bool route_matches(const struct conn *c, size_t i)
{
    const struct http_route *r = &c->s->opt.routes[i];
    size_t n = c->s->route_n[i];
    if (r->control && !c->control)
        return false;
    if (n > 1 && r->path[n - 1] == '*' && r->path[n - 2] == '/')
        return c->path.n >= n - 1 && !memcmp(r->path, c->path.p, n - 1);
    return n == c->path.n && !memcmp(r->path, c->path.p, n);
}

const struct dialect_call *dispatch_call(const struct http_server *s, struct str path)
{
    for (size_t i = 0; i < s->opt.n_routes; i++)
        if (s->opt.routes[i].call && str_eq_c(path, s->opt.routes[i].path))
            return s->opt.routes[i].call;
    return NULL;
}

static void find_route(struct conn *c)
{
    unsigned bit = method_bit(c->method);
    for (size_t i = 0; i < c->s->opt.n_routes; i++) {
        if (!route_matches(c, i))
            continue;
        c->allow |= c->s->opt.routes[i].methods;
        if (c->s->opt.routes[i].methods & bit) {
            c->route = &c->s->opt.routes[i];
            c->call = c->route->call;
            return;
        }
    }
    if (c->method == HTTP_OPTIONS)
        return;
    if (!c->allow) {
        refuse(c, 404, RC_NOT_FOUND, "there is no such path here");
        return;
    }
    refuse(c, 405, RC_UNSUPPORTED, "the path does not take this method");
    c->refusal.hint = "the field Allow of this answer names those that it takes";
}

static void deny(struct conn *c, const char *text, const char *hint)
{
    refuse(c, 403, RC_DENIED, text);
    c->refusal.hint = hint;
}

/* Where no key is asked for, a foreign page must not act through its visitor's browser. */
static void check_page(struct conn *c)
{
    const struct head *h = &c->in->head;
    if (c->local_peer || !c->route)
        return;
    if (c->route->control && h->seen[HDR_ORIGIN] && !local_origin_allowed(c)) {
        deny(c, "pages of that origin may not use the control interface", NULL);
        return;
    }
    if (auth_needed(c->s->auth) || c->route->open)
        return;
    struct str host = head_get(h, c->in->data, HDR_HOST);
    if (h->seen[HDR_HOST] && !guard_host(host, str_from(c->s->allowed_hosts)))
        deny(c, "the name in Host is not one that is served without an API key",
             "use the address or localhost, add the name to allowed_hosts, or set API keys");
    else if (h->seen[HDR_ORIGIN] && !local_origin_allowed(c) &&
             !guard_same_host(head_get(h, c->in->data, HDR_ORIGIN), host))
        deny(c, "pages of that origin may not ask here without an API key",
             "add the origin to cors_origin, or set API keys");
}

static void check_size(struct conn *c)
{
    uint64_t budget = c->s->opt.body_budget_bytes, used = c->s->count.body_bytes_in_flight;
    if (!c->content_length || c->content_length == UINT64_MAX)
        return;
    if (c->content_length > c->s->opt.max_body_bytes)
        refuse(c, 413, RC_LIMIT, NULL);
    else if (c->content_length > MSG_BYTES && (used >= budget || c->content_length > budget - used))
        refuse(c, 503, RC_BUSY, "too many large request bodies are in flight");
}

static void check_expect(struct conn *c)
{
    const struct head *h = &c->in->head;
    if (!h->seen[HDR_EXPECT] || c->http10)
        return;
    if (!str_ieq(head_get(h, c->in->data, HDR_EXPECT), STR("100-continue")))
        refuse(c, 417, RC_UNSUPPORTED, "the only expectation supported is 100-continue");
    c->expect = c->content_length != 0;
}

/* The client's X-Request-Id if it is short and harmless, else one of ours. */
static void choose_id(struct conn *c)
{
    struct str id = head_get(&c->in->head, c->in->data, HDR_X_REQUEST_ID);
    bool fine = id.n > 0 && id.n < sizeof c->id_text;
    for (size_t i = 0; fine && i < id.n; i++)
        fine = hex_digit(id.p[i]) >= 0 || (unsigned char)((id.p[i] | 0x20) - 'a') < 26 || id.p[i] == '-' ||
               id.p[i] == '_' || id.p[i] == '.';
    if (fine) {
        memcpy(c->id_text, id.p, id.n);
        return;
    }
    uint64_t x = c->s->id_seed + 0x9e3779b97f4a7c15u * ++c->s->id_count;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    struct put w = {c->id_text, c->id_text + sizeof c->id_text - 1, false};
    put_lit(&w, "req-");
    put_hex(&w, x ^ x >> 31);
}

static bool is_multipart(const struct conn *c)
{
    struct str type = head_get(&c->in->head, c->in->data, HDR_CONTENT_TYPE);
    return type.n > 10 && str_ieq((struct str){type.p, 10}, STR("multipart/"));
}

/* Bodies are scanned as they come: at their end the loop would stand still for a large one. */
static void begin_scan(struct conn *c)
{
    const struct http_route *r = c->route;
    c->scan_ahead = r->forwards && c->method == HTTP_POST;
    bool names_model = !r->local && (c->method == HTTP_POST || c->method == HTTP_PUT);
    c->scan_form = names_model && is_multipart(c);
    c->scan_json = names_model && !c->scan_form;
    if (c->scan_json || c->scan_ahead)
        body_model_init(&c->scan);
    if (c->scan_form) /* what is wrong with it is told when the body is looked at */
        (void)body_form_init(&c->form, head_get(&c->in->head, c->in->data, HDR_CONTENT_TYPE));
}

void dispatch_head(struct conn *c)
{
    c->t_head = clock_mono_us();
    c->wall_ms = server_wall_ms(c->s, c->t_head);
    choose_id(c);
    if (!split_target(c)) {
        refuse(c, 400, RC_INVALID, "the request's path is malformed");
        return;
    }
    find_route(c);
    if (!c->refusal.status)
        admit_head(c);
    if (!c->refusal.status)
        check_page(c);
    if (!c->refusal.status)
        check_size(c);
    if (!c->refusal.status)
        check_expect(c);
    if (!c->refusal.status && c->route)
        begin_scan(c);
}

void dispatch_request(struct conn *c)
{
    conn_deadline(c, 0);
    c->phase = PHASE_LOCAL;
    if (c->refusal.status) {
        errors_refuse(c, &c->refusal);
    } else if (c->method == HTTP_OPTIONS) {
        local_preflight(c);
    } else if (c->route->local) {
        c->route->local(c->route->arg, exchange_of(c));
    } else {
        relay_begin(c);
    }
}

/* ---- what local functions ask about a request ---- */

struct str http_method(const struct http_exchange *ex)
{
    return str_from(request_method_name(conn_of(ex)));
}

struct str http_path(const struct http_exchange *ex)
{
    return conn_of(ex)->path;
}

struct str http_target(const struct http_exchange *ex)
{
    return conn_of(ex)->target;
}

struct str http_header(const struct http_exchange *ex, const char *lower_name)
{
    const struct conn *c = conn_of(ex);
    return c->in ? head_find(&c->in->head, c->in->data, lower_name) : (struct str){"", 0};
}

struct str http_body(const struct http_exchange *ex)
{
    const struct msg *m = conn_of(ex)->in;
    return m ? (struct str){m->data + m->head_n, m->body_n} : (struct str){"", 0};
}

size_t dispatch_query_count(const struct conn *c, const char *key)
{
    struct str rest = c->query;
    size_t n = 0;
    while (rest.n) {
        struct str value = str_cut(&rest, '&');
        n += str_eq_c(str_cut(&value, '='), key);
    }
    return n;
}

bool http_query(const struct http_exchange *ex, const char *key, char *out, size_t cap)
{
    struct str rest = conn_of(ex)->query;
    while (rest.n) {
        struct str value = str_cut(&rest, '&'), name = str_cut(&value, '=');
        if (!str_eq_c(name, key) || value.n >= cap)
            continue;
        ptrdiff_t n = decode(value, out, true);
        if (n < 0)
            continue;
        out[n] = '\0';
        return true;
    }
    return false;
}
