/* OpenAI's API, in which the door itself thinks: its calls are relayed, not translated; embeddings may go
 * in parts. Layer dialect; pure.
 *
 * A plain answer may be made of a stream (docs/adr/0006): the members and their order are those of
 * llama.cpp's server (0.7.0). */
#include "base/mem.h"
#include "dialect/errors.h"
#include "dialect/progress.h"
#include "dialect/openai_priv.h"

static void put_text(struct buf *out, const char *before, const struct buf *text)
{
    (void)buf_puts(out, before);
    (void)buf_put_json(out, buf_str(text));
}

static void put_calls(const struct completion_choice *o, struct buf *out)
{
    (void)buf_puts(out, ",\"tool_calls\":[");
    for (uint32_t i = 0; i < o->n_calls; i++) {
        const struct completion_call *call = &o->calls[i];
        (void)buf_puts(out, i ? ",{\"type\":" : "{\"type\":");
        (void)buf_put_json(out, call->type.n ? buf_str(&call->type) : STR("function"));
        put_text(out, ",\"function\":{\"name\":", &call->name);
        put_text(out, ",\"arguments\":", &call->arguments);
        (void)buf_puts(out, "}");
        if (call->id.n)
            put_text(out, ",\"id\":", &call->id);
        (void)buf_puts(out, "}");
    }
    (void)buf_puts(out, "]");
}

static void put_chat_choice(const struct completion_choice *o, uint32_t i, struct buf *out)
{
    put_text(out, "{\"finish_reason\":", &o->finish);
    (void)buf_printf(out, ",\"index\":%u,\"message\":{\"role\":", i);
    (void)buf_put_json(out, o->role.n ? buf_str(&o->role) : STR("assistant"));
    put_text(out, ",\"content\":", &o->content);
    if (o->reasoning.n)
        put_text(out, ",\"reasoning_content\":", &o->reasoning);
    if (o->refusal.n)
        put_text(out, ",\"refusal\":", &o->refusal);
    if (o->n_calls)
        put_calls(o, out);
    (void)buf_puts(out, "}}");
}

static void put_text_choice(const struct completion_choice *o, uint32_t i, struct buf *out)
{
    put_text(out, "{\"text\":", &o->content);
    (void)buf_printf(out, ",\"index\":%u,\"logprobs\":null", i);
    put_text(out, ",\"finish_reason\":", &o->finish);
    (void)buf_puts(out, "}");
}

static void put_plain(const struct completion *c, const char *object,
                      void (*put_choice)(const struct completion_choice *o, uint32_t i, struct buf *out),
                      struct buf *out)
{
    for (uint32_t i = 0; i < c->n_choices; i++) {
        (void)buf_puts(out, i ? "," : "{\"choices\":[");
        put_choice(&c->choices[i], i, out);
    }
    (void)buf_printf(out, "],\"created\":%llu", (unsigned long long)c->created);
    put_text(out, ",\"model\":", &c->model);
    if (c->fingerprint.n)
        put_text(out, ",\"system_fingerprint\":", &c->fingerprint);
    (void)buf_printf(out, ",\"object\":\"%s\"", object);
    if (c->usage.n)
        (void)buf_printf(out, ",\"usage\":%s", c->usage.data);
    put_text(out, ",\"id\":", &c->id);
    if (c->timings.n)
        (void)buf_printf(out, ",\"timings\":%s", c->timings.data);
    (void)buf_puts(out, "}");
}

void openai_plain_chat(void *state, const struct completion *sum, struct buf *out)
{
    (void)state;
    put_plain(sum, "chat.completion", put_chat_choice, out);
}

static void plain_text(void *state, const struct completion *sum, struct buf *out)
{
    (void)state;
    put_plain(sum, "text_completion", put_text_choice, out);
}

/* What cannot be taken apart is the backend's to judge. */
static enum rc ask_embeddings(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                              struct err *err)
{
    (void)terms;
    (void)err;
    ret->reply = DIALECT_DOCUMENT;
    ret->path = "/v1/embeddings";
    ret->embed = embed_ask_new(yyjson_obj_get(body, "input"), body);
    ret->as_is = !ret->embed;
    return RC_OK;
}

static const struct dialect_call calls[] = {
    {.path = "/v1/chat/completions",
     .plain_type = OPENAI_JSON,
     .broken = dialect_put_error_event,
     .end_mark = "[DONE]",
     .progress = progress_put_comment,
     .plain = openai_plain_chat,
     .remade = &openai_chat_remade},
    {.path = "/v1/completions",
     .plain_type = OPENAI_JSON,
     .broken = dialect_put_error_event,
     .end_mark = "[DONE]",
     .progress = progress_put_comment,
     .plain = plain_text},
    {.path = "/v1/embeddings", .early = true, .plain_type = OPENAI_JSON, .ask = ask_embeddings},
    {.path = "/v1/audio/transcriptions"},
    {.path = "/v1/rerank"},
    {.path = "/v1/reranking"},
    {.path = "/chat/completions",
     .plain_type = OPENAI_JSON,
     .broken = dialect_put_error_event,
     .end_mark = "[DONE]",
     .progress = progress_put_comment,
     .plain = openai_plain_chat,
     .remade = &openai_chat_remade},
    {.path = "/rerank"},
    {.path = "/reranking"},
};

extern const struct dialect dialect_openai;
const struct dialect dialect_openai = {
    .name = "openai", .put_error = dialect_put_openai_error, .calls = calls, .n_calls = TABLE_COUNT(calls)};
