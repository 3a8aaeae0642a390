/* Parsing of requests: llhttp's callbacks, and the rules that a lenient parser would let pass. Layer proxy;
 * loop thread only. llhttp runs strict; what it leaves open (Host, versions, Transfer-Encoding beside
 * Content-Length, chunked in HTTP/1.0, the form of the target) is refused here, before anything is routed. */
#include "proxy/proxy_priv.h"

#include <stddef.h>
#include <string.h>

/* Callbacks stop the parser by returning this. */
#define STOP (-1)

static void refuse(struct conn *c, int status, enum rc code, const char *text)
{
    if (!c->refusal.status)
        c->refusal = (struct refusal){.status = status, .code = code, .text = text};
}

static int checked(struct conn *c, enum head_problem p)
{
    if (p == HEAD_FINE)
        return 0;
    if (p == HEAD_TOO_MANY)
        refuse(c, 431, RC_LIMIT, "the request has more than 100 header fields");
    else
        refuse(c, 400, RC_INVALID, "the request's head is malformed");
    return HPE_USER;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    return checked(c, head_target(&c->in->head, c->in->data, at, n));
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    if (c->phase != PHASE_HEAD) /* a trailer: not passed on, not kept */
        return 0;
    return checked(c, head_name(&c->in->head, c->in->data, at, n));
}

static int on_header_field_complete(llhttp_t *p)
{
    struct conn *c = p->data;
    head_name_end(&c->in->head);
    return 0;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    if (c->phase != PHASE_HEAD)
        return 0;
    return checked(c, head_value(&c->in->head, c->in->data, at, n));
}

static bool host_is_fine(struct str host)
{
    static const char allowed[] = "-._~%!$&'()*+,;=:[]";
    for (size_t i = 0; i < host.n; i++) {
        unsigned char ch = (unsigned char)host.p[i];
        bool alnum = (ch >= '0' && ch <= '9') || (unsigned char)((ch | 0x20) - 'a') < 26;
        if (!alnum && (!ch || !strchr(allowed, ch)))
            return false;
    }
    return host.n > 0;
}

static void check_framing(struct conn *c, const llhttp_t *p)
{
    const struct head *h = &c->in->head;
    if (h->seen[HDR_TRANSFER_ENCODING]) {
        if (c->http10)
            refuse(c, 400, RC_INVALID, "Transfer-Encoding is not part of HTTP/1.0");
        if (h->seen[HDR_CONTENT_LENGTH])
            refuse(c, 400, RC_INVALID, "a request with Transfer-Encoding and Content-Length is ambiguous");
        if (h->seen[HDR_TRANSFER_ENCODING] > 1 ||
            !str_ieq(head_get(h, c->in->data, HDR_TRANSFER_ENCODING), STR("chunked")))
            refuse(c, 501, RC_UNSUPPORTED, "the only Transfer-Encoding supported is chunked");
        c->content_length = UINT64_MAX;
    } else {
        c->content_length = h->seen[HDR_CONTENT_LENGTH] ? p->content_length : 0;
    }
    if (h->seen[HDR_CONTENT_LENGTH] > 1)
        refuse(c, 400, RC_INVALID, "the request has more than one Content-Length");
}

/* Origin form, or absolute form (RFC 9112, 3.2.2), or "*" for OPTIONS. */
static void check_target(struct conn *c)
{
    struct str t = head_str(c->in->data, c->in->head.target);
    size_t scheme = t.n > 8 && str_ieq((struct str){t.p, 8}, STR("https://"))  ? 8
                    : t.n > 7 && str_ieq((struct str){t.p, 7}, STR("http://")) ? 7
                                                                               : 0;
    if (scheme) {
        struct str rest = {t.p + scheme, t.n - scheme};
        size_t host = 0;
        while (host < rest.n && rest.p[host] != '/' && rest.p[host] != '?')
            host++;
        if (!host_is_fine((struct str){rest.p, host}))
            refuse(c, 400, RC_INVALID, "the request's target has no valid host");
        t = host < rest.n && rest.p[host] == '/' ? (struct str){rest.p + host, rest.n - host} : STR("/");
    } else if (!(t.n && t.p[0] == '/') && !(str_eq(t, STR("*")) && c->method == HTTP_OPTIONS)) {
        refuse(c, 400, RC_INVALID, "the request's target is not a path");
    }
    c->target = t;
}

/* llhttp takes a request line that ends behind its target for HTTP/0.9. */
static bool names_version(const struct msg *m)
{
    const char *nl = memchr(m->data, '\n', m->n);
    return nl && memmem(m->data, (size_t)(nl - m->data), " HTTP/", 6);
}

static int on_headers_complete(llhttp_t *p)
{
    struct conn *c = p->data;
    struct head *h = &c->in->head;
    head_close(h, c->in->data);
    c->method = llhttp_get_method(p);
    c->http10 = p->http_major == 1 && p->http_minor == 0;
    c->head_only = c->method == HTTP_HEAD;
    c->keep_alive = llhttp_should_keep_alive(p) != 0;
    if (!p->http_major && !names_version(c->in))
        refuse(c, 400, RC_INVALID, "the request line names no version of HTTP");
    else if (p->http_major != 1 || p->http_minor > 1)
        refuse(c, 505, RC_UNSUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    if (c->method == HTTP_CONNECT)
        refuse(c, 405, RC_UNSUPPORTED, "CONNECT is not supported");
    if (h->seen[HDR_HOST] > 1 || (!h->seen[HDR_HOST] && !c->http10))
        refuse(c, 400, RC_INVALID, "an HTTP/1.1 request needs exactly one Host field");
    if (h->seen[HDR_HOST] && !host_is_fine(head_get(h, c->in->data, HDR_HOST)))
        refuse(c, 400, RC_INVALID, "the Host field is malformed");
    check_framing(c, p);
    check_target(c);
    if (!c->refusal.status)
        dispatch_head(c);
    if (c->refusal.status && !c->refusal_waits)
        return STOP;
    p->upgrade = 0; /* no other protocol is spoken: the request is answered as it is */
    c->phase = PHASE_BODY;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    struct msg *m = c->in;
    if (!m->head_n)
        m->head_n = (size_t)(at - m->data); /* of a length-delimited body: it starts here */
    char *to = m->data + m->head_n + m->body_n;
    if (m->body_n + n > c->s->opt.max_body_bytes) {
        refuse(c, 413, RC_LIMIT, NULL);
        return HPE_USER;
    }
    if (to != at) /* chunked: close the gaps that the framing leaves */
        memmove(to, at, n);
    m->body_n += n;
    return 0;
}

static int on_chunk_header(llhttp_t *p)
{
    struct conn *c = p->data;
    if (p->content_length <= c->s->opt.max_body_bytes)
        return 0;
    refuse(c, 413, RC_LIMIT, NULL);
    return STOP;
}

static int on_message_complete(llhttp_t *p)
{
    struct conn *c = p->data;
    c->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

void request_reset(struct conn *c)
{
    memset(&c->complete, 0, offsetof(struct conn, scan) - offsetof(struct conn, complete));
    c->lease.model[0] = c->lease.instance[0] = c->model_text[0] = '\0';
    c->lease.replace_model = false;
    llhttp_init(&c->parser, HTTP_REQUEST, &settings);
    c->parser.data = c;
}

static const char *llhttp_problem(llhttp_errno_t e)
{
    switch (e) {
    case HPE_INVALID_METHOD: return "the request's method is unknown";
    case HPE_INVALID_URL: return "the request's target is malformed";
    case HPE_INVALID_VERSION: return "the request's HTTP version is malformed";
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH: return "the request's Content-Length is malformed or ambiguous";
    case HPE_INVALID_TRANSFER_ENCODING: return "the request's Transfer-Encoding is malformed or ambiguous";
    case HPE_INVALID_CHUNK_SIZE: return "the request has a malformed chunk";
    case HPE_INVALID_HEADER_TOKEN: return "the request has a malformed header field";
    default: return "the request is not valid HTTP/1.1";
    }
}

/* Scans what came of the body; false if it is refused already. */
static bool look_at_body(struct conn *c)
{
    const struct msg *m = c->in;
    if (c->scan_json || c->scan_ahead)
        return body_model_scan(&c->scan, m->data + m->head_n, m->body_n) || c->scan_ahead;
    return !c->scan_form || body_form_scan(&c->form, m->data + m->head_n, m->body_n);
}

static void parsed_all(struct conn *c)
{
    struct msg *m = c->in;
    m->parsed = m->n;
    if (c->phase == PHASE_HEAD) {
        if (m->n >= MSG_BYTES)
            errors_refuse(c, &(struct refusal){.status = 431,
                                               .code = RC_LIMIT,
                                               .text = "the request's head is larger than 16 KiB"});
        return;
    }
    if (c->content_length == UINT64_MAX) { /* the framing that was consumed leaves its room to what comes */
        if (!m->head_n)
            m->head_n = m->n;
        m->parsed = m->n = m->head_n + m->body_n;
    }
    if (c->expect && !m->body_n) {
        c->expect = false;
        struct iovec go = {(void *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25};
        if (!conn_write(c, &go, 1))
            return;
    }
    /* Framing is not free: what carries almost no body is cut off. */
    if (c->request_bytes / 8 > c->s->opt.max_body_bytes + MSG_BYTES) {
        errors_refuse(c, &(struct refusal){.status = 413, .code = RC_LIMIT, .text = NULL});
        return;
    }
    if (m->body_n && !look_at_body(c))
        dispatch_request(c); /* refuses, without waiting for the rest */
}

void request_parse(struct conn *c)
{
    struct msg *m = c->in;
    c->request_bytes += m->n - m->parsed;
    llhttp_errno_t e = llhttp_execute(&c->parser, m->data + m->parsed, m->n - m->parsed);
    if (e == HPE_OK) {
        parsed_all(c);
        return;
    }
    if (e == HPE_PAUSED && c->complete) {
        m->parsed = (size_t)(llhttp_get_error_pos(&c->parser) - m->data);
        c->request_bytes -= m->n - m->parsed;
        dispatch_request(c);
        return;
    }
    if (c->refusal.status) {
        errors_refuse(c, &c->refusal);
        return;
    }
    /* The reason's text is all that tells a size past 64 bits from one that is no number. */
    const char *why = llhttp_get_error_reason(&c->parser);
    if (e == HPE_INVALID_CHUNK_SIZE && why && strstr(why, "overflow")) {
        errors_refuse(c, &(struct refusal){.status = 413, .code = RC_LIMIT});
        return;
    }
    int status = e == HPE_INVALID_VERSION ? 505 : e == HPE_INVALID_METHOD ? 501 : 400;
    errors_refuse(c, &(struct refusal){.status = status, .code = RC_INVALID, .text = llhttp_problem(e)});
}

const char *request_method_name(const struct conn *c)
{
    return llhttp_method_name((llhttp_method_t)c->method);
}
