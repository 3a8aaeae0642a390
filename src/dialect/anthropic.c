/* Anthropic's messages API: its calls, its errors, and the counting of tokens. Layer dialect; pure.
 *
 * Forms as in its reference ("Messages", "Streaming", "Errors") and in the types of its official clients. */
#include "dialect/anthropic_priv.h"

#include "base/mem.h"
#include "dialect/errors.h"
#include "dialect/progress.h"

static const struct error_type types[] = {
    {400, "invalid_request_error"}, {500, "api_error"},        {401, "authentication_error"},
    {403, "permission_error"},      {404, "not_found_error"},  {409, "conflict_error"},
    {413, "request_too_large"},     {429, "rate_limit_error"}, {503, "overloaded_error"},
    {504, "timeout_error"},
};

void anthropic_put_error(const struct dialect_error *e, struct buf *out)
{
    (void)buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
                     error_type_of(types, TABLE_COUNT(types), e->status));
    (void)buf_put_json(out, e->message);
    error_put_member(out, "hint", e->hint);
    (void)buf_puts(out, "}");
    error_put_member(out, "request_id", e->request_id);
    (void)buf_puts(out, "}");
}

static void put_error(const struct dialect_error *e, struct buf *out)
{
    anthropic_put_error(e, out);
    (void)buf_puts(out, "\n");
}

/* A "ping", of which a stream may have any number, with a member that clients do not know. */
static void put_ping(const struct dialect_progress *p, struct buf *out)
{
    (void)buf_puts(out, "event: ping\ndata: {\"type\":\"ping\",\"arriero\":");
    progress_put_json(p, out);
    (void)buf_puts(out, "}\n\n");
}

/* Counting takes two steps at llama.cpp's server: the prompt that the template makes, and its tokens. */
static enum dialect_step count_document(void *state, const struct completion *sum, yyjson_val *root,
                                        struct dialect_ask *next, struct buf *out)
{
    (void)sum;
    struct anthropic *a = state;
    yyjson_val *prompt = yyjson_obj_get(root, "prompt"), *tokens = yyjson_obj_get(root, "tokens");
    if (!a->templated) {
        if (!yyjson_is_str(prompt))
            return DIALECT_BROKEN;
        a->templated = true;
        next->path = "/tokenize";
        (void)buf_puts(&next->body, "{\"add_special\":true,\"parse_special\":true,\"content\":");
        (void)buf_put_json(&next->body, (struct str){yyjson_get_str(prompt), yyjson_get_len(prompt)});
        (void)buf_puts(&next->body, "}");
        return next->body.failed ? DIALECT_BROKEN : DIALECT_AGAIN;
    }
    if (!yyjson_is_arr(tokens))
        return DIALECT_BROKEN;
    (void)buf_printf(out, "{\"input_tokens\":%zu}", yyjson_arr_size(tokens));
    return DIALECT_DONE;
}

static void free_state(void *state)
{
    struct anthropic *a = state;
    buf_release(&a->model);
    buf_release(&a->stops);
    free(a);
}

static const struct dialect_call calls[] = {
    {.path = "/v1/messages",
     .stream_type = "text/event-stream; charset=utf-8",
     .plain_type = "application/json",
     .ask = anthropic_ask,
     .into = "/v1/chat/completions",
     .delta = anthropic_delta,
     .end = anthropic_end,
     .broken = anthropic_broken,
     .end_mark = "message_stop",
     .progress = put_ping,
     .plain = anthropic_plain,
     .free = free_state},
    {.path = "/v1/messages/count_tokens",
     .light = true,
     .plain_type = "application/json",
     .ask = anthropic_ask_count,
     .into = "/apply-template",
     .document = count_document,
     .free = free_state},
};

extern const struct dialect dialect_anthropic;
const struct dialect dialect_anthropic = {
    .name = "anthropic", .put_error = put_error, .calls = calls, .n_calls = TABLE_COUNT(calls)};
