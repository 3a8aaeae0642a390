/* Anthropic's messages API: its calls and its errors. Layer dialect; pure. */
#include "base/mem.h"
#include "dialect/errors.h"

/* Words of its reference, "Errors". */
static const struct error_type types[] = {
    {400, "invalid_request_error"}, {500, "api_error"},        {401, "authentication_error"},
    {403, "permission_error"},      {404, "not_found_error"},  {409, "conflict_error"},
    {413, "request_too_large"},     {429, "rate_limit_error"}, {503, "overloaded_error"},
    {504, "timeout_error"},
};

static void put_error(const struct dialect_error *e, struct buf *out)
{
    (void)buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
                     error_type_of(types, TABLE_COUNT(types), e->status));
    (void)buf_put_json(out, e->message);
    error_put_member(out, "hint", e->hint);
    (void)buf_puts(out, "}");
    error_put_member(out, "request_id", e->request_id);
    (void)buf_puts(out, "}\n");
}

static const struct dialect_call calls[] = {
    {.path = "/v1/messages"},
    {.path = "/v1/messages/count_tokens"},
};

extern const struct dialect dialect_anthropic;
const struct dialect dialect_anthropic = {
    .name = "anthropic", .put_error = put_error, .calls = calls, .n_calls = TABLE_COUNT(calls)};
