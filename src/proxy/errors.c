/* Error answers in the caller's dialect (OpenAI's where there is no other), and the words of HTTP's status
 * codes. Layer proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *reason;
} statuses[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

static size_t find(int status)
{
    for (size_t i = 0; i < TABLE_COUNT(statuses); i++)
        if (statuses[i].status == status)
            return i;
    return TABLE_COUNT(statuses);
}

const char *errors_reason(int status)
{
    size_t i = find(status);
    return i < TABLE_COUNT(statuses) ? statuses[i].reason : "Status";
}

static void put_error(const struct conn *c, int status, const struct err *err, struct buf *out)
{
    const struct dialect_error e = {.status = status,
                                    .code = err->code,
                                    .message = str_from(err->message),
                                    .hint = str_from(err->hint),
                                    .request_id = str_from(c->id_text)};
    dialect_at(c->route ? c->route->dialect : DIALECT_OPENAI)->put_error(&e, out);
}

static void add_allow(const struct conn *c, struct buf *fields)
{
    char text[64];
    struct put w = {text, text + sizeof text, false};
    local_allow(c->allow, &w);
    (void)buf_append(fields, text, (size_t)(w.p - text));
}

void errors_reply(struct conn *c, int status, const struct err *err, uint32_t retry_after_s)
{
    struct buf body = {0}, fields = {0};
    put_error(c, status, err, &body);
    if (retry_after_s)
        (void)buf_printf(&fields, "Retry-After: %u\r\n", retry_after_s);
    if (status == 405)
        add_allow(c, &fields);
    if (status == 401)
        (void)buf_puts(&fields, "WWW-Authenticate: Bearer\r\n");
    local_reply(c, status, "application/json", fields.data ? fields.data : "", buf_str(&body));
    buf_release(&body);
    buf_release(&fields);
}

void errors_refuse(struct conn *c, const struct refusal *r)
{
    struct err err = {.code = r->code};
    if (r->say) {
        r->say(c, &err);
    } else if (r->text) {
        (void)snprintf(err.message, sizeof err.message, "%s", r->text);
    } else {
        char limit[32];
        (void)snprintf(err.message, sizeof err.message,
                       "the request body is larger than the limit of %s (%llu bytes)",
                       str_human_bytes(c->s->opt.max_body_bytes, limit, sizeof limit),
                       (unsigned long long)c->s->opt.max_body_bytes);
    }
    if (r->hint)
        (void)snprintf(err.hint, sizeof err.hint, "%s", r->hint);
    if (r->status == 404 && c->path.n)
        (void)snprintf(err.hint, sizeof err.hint, "nothing is served at %.*s",
                       c->path.n < 200 ? (int)c->path.n : 200, c->path.p);
    if (!c->outcome)
        c->outcome = r->status == 408 ? "timeout" : "refused";
    conn_deadline(c, 0);
    c->phase = PHASE_LOCAL;
    errors_reply(c, r->status, &err, r->retry_after_s ? r->retry_after_s : r->status == 503);
}

void http_reply_err(struct http_exchange *ex, const struct err *err, uint32_t retry_after_s)
{
    struct conn *c = conn_of(ex);
    if (!conn_settle(c))
        errors_reply(c, rc_http_status(err->code), err, retry_after_s);
}
