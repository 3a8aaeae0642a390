/* Error answers in the caller's dialect (OpenAI's where there is no other), and the words of HTTP's status
 * codes. Layer proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *reason, *type;
} statuses[] = {
    {200, "OK", ""},
    {201, "Created", ""},
    {202, "Accepted", ""},
    {204, "No Content", ""},
    {206, "Partial Content", ""},
    {301, "Moved Permanently", ""},
    {302, "Found", ""},
    {304, "Not Modified", ""},
    {307, "Temporary Redirect", ""},
    {308, "Permanent Redirect", ""},
    {400, "Bad Request", "invalid_request_error"},
    {401, "Unauthorized", "authentication_error"},
    {403, "Forbidden", "permission_error"},
    {404, "Not Found", "not_found_error"},
    {405, "Method Not Allowed", "invalid_request_error"},
    {408, "Request Timeout", "invalid_request_error"},
    {409, "Conflict", "conflict_error"},
    {413, "Content Too Large", "invalid_request_error"},
    {415, "Unsupported Media Type", "invalid_request_error"},
    {417, "Expectation Failed", "invalid_request_error"},
    {422, "Unprocessable Content", "invalid_request_error"},
    {429, "Too Many Requests", "rate_limit_error"},
    {431, "Request Header Fields Too Large", "invalid_request_error"},
    {499, "Client Closed Request", "invalid_request_error"},
    {500, "Internal Server Error", "server_error"},
    {501, "Not Implemented", "invalid_request_error"},
    {502, "Bad Gateway", "upstream_error"},
    {503, "Service Unavailable", "overloaded_error"},
    {504, "Gateway Timeout", "timeout_error"},
    {505, "HTTP Version Not Supported", "invalid_request_error"},
    {507, "Insufficient Storage", "insufficient_memory_error"},
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

static const char *error_type(int status)
{
    size_t i = find(status);
    if (i < TABLE_COUNT(statuses) && *statuses[i].type)
        return statuses[i].type;
    return status >= 500 ? "server_error" : "invalid_request_error";
}

/* The words of Anthropic's API where they are not those above (its reference, "Errors"). */
static const struct {
    int status;
    const char *type;
} anthropic_types[] = {
    {413, "request_too_large"}, {500, "api_error"}, {502, "api_error"}, {504, "timeout_error"}};

static void put_hint(struct buf *out, const struct err *err)
{
    if (!*err->hint)
        return;
    (void)buf_puts(out, ",\"hint\":");
    (void)buf_put_json(out, str_from(err->hint));
}

static void put_openai(const struct conn *c, int status, const struct err *err, struct buf *out)
{
    (void)c;
    (void)buf_puts(out, "{\"error\":{\"message\":");
    (void)buf_put_json(out, str_from(err->message));
    (void)buf_printf(out, ",\"type\":\"%s\",\"code\":\"%s\",\"param\":null", error_type(status),
                     rc_word(err->code));
    put_hint(out, err);
    (void)buf_puts(out, "}}\n");
}

static void put_anthropic(const struct conn *c, int status, const struct err *err, struct buf *out)
{
    const char *type = error_type(status);
    for (size_t i = 0; i < TABLE_COUNT(anthropic_types); i++)
        if (anthropic_types[i].status == status)
            type = anthropic_types[i].type;
    (void)buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
    (void)buf_put_json(out, str_from(err->message));
    put_hint(out, err);
    (void)buf_printf(out, "},\"request_id\":\"%s\"}\n", c->id_text);
}

static const struct {
    const char *path; /* of the route */
    void (*put)(const struct conn *c, int status, const struct err *err, struct buf *out);
} forms[] = {{"/v1/messages", put_anthropic}, {"/v1/messages/count_tokens", put_anthropic}};

static void put_error(const struct conn *c, int status, const struct err *err, struct buf *out)
{
    for (size_t i = 0; c->route && i < TABLE_COUNT(forms); i++)
        if (!strcmp(c->route->path, forms[i].path)) {
            forms[i].put(c, status, err, out);
            return;
        }
    put_openai(c, status, err, out);
}

static void add_allow(const struct conn *c, struct buf *fields)
{
    static const struct {
        unsigned bit;
        const char *names;
    } words[] = {{HTTP_M_GET, "GET, HEAD, "},
                 {HTTP_M_POST, "POST, "},
                 {HTTP_M_PUT, "PUT, "},
                 {HTTP_M_DELETE, "DELETE, "}};
    (void)buf_puts(fields, "Allow: ");
    for (size_t i = 0; i < TABLE_COUNT(words); i++)
        if (c->allow & words[i].bit)
            (void)buf_puts(fields, words[i].names);
    (void)buf_puts(fields, "OPTIONS\r\n");
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
    if (r->text) {
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
    if (r->status == 401)
        (void)snprintf(err.hint, sizeof err.hint,
                       "send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"");
    if (!c->outcome)
        c->outcome = r->status == 408 ? "timeout" : "refused";
    conn_deadline(c, 0);
    c->phase = PHASE_LOCAL;
    errors_reply(c, r->status, &err, r->status == 503 ? 1 : 0);
}

void http_reply_err(struct http_exchange *ex, const struct err *err, uint32_t retry_after_s)
{
    struct conn *c = conn_of(ex);
    if (!conn_settle(c))
        errors_reply(c, rc_http_status(err->code), err, retry_after_s);
}
