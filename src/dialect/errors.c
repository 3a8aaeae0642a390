/* Error answers: see errors.h. */
#include "dialect/errors.h"

#include "base/mem.h"

const char *error_type_of(const struct error_type *table, size_t n, int status)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].status == status)
            return table[i].word;
    return table[status >= 500].word;
}

void error_put_member(struct buf *out, const char *name, struct str text)
{
    if (!text.n)
        return;
    (void)buf_printf(out, ",\"%s\":", name);
    (void)buf_put_json(out, text);
}

static const struct error_type types[] = {
    {400, "invalid_request_error"},     {500, "server_error"},
    {401, "authentication_error"},      {403, "permission_error"},
    {404, "not_found_error"},           {409, "conflict_error"},
    {429, "rate_limit_error"},          {502, "upstream_error"},
    {503, "overloaded_error"},          {504, "timeout_error"},
    {507, "insufficient_memory_error"},
};

void dialect_put_openai_error(const struct dialect_error *e, struct buf *out)
{
    if (e->given.n) {
        (void)buf_puts(out, "{\"error\":");
        (void)buf_put_str(out, e->given);
        (void)buf_puts(out, "}");
        return;
    }
    (void)buf_puts(out, "{\"error\":{\"message\":");
    (void)buf_put_json(out, e->message);
    (void)buf_printf(out, ",\"type\":\"%s\",\"code\":\"%s\",\"param\":null",
                     error_type_of(types, TABLE_COUNT(types), e->status), rc_word(e->code));
    error_put_member(out, "hint", e->hint);
    (void)buf_puts(out, "}}\n");
}

void dialect_put_error_event(void *state, const struct dialect_error *e, struct buf *out)
{
    struct buf text = {0};
    (void)state;
    dialect_put_openai_error(e, &text);
    (void)buf_puts(out, "data: ");
    (void)buf_put_str(out, str_trim(buf_str(&text)));
    (void)buf_puts(out, "\n\n");
    buf_release(&text);
}
