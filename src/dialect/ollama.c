/* Ollama's API: its calls and its errors (docs/api.md and api/types.go of ollama 0.12). Layer dialect; pure.
 *
 * Its requests tell how long the model stays and how much context it needs, so they are read before a model
 * is chosen (early). No backend is known that speaks it and that is not Ollama: all calls have translators.
 */
#include "base/mem.h"
#include "dialect/ollama.h"

/* {"error":"message"}; its clients show the text and nothing else, so the hint is part of it. */
void ollama_put_error(const struct dialect_error *e, struct buf *out)
{
    struct buf text = {0};
    (void)buf_put_str(&text, e->message);
    if (e->hint.n)
        (void)buf_printf(&text, " (%.*s)", STR_ARG(e->hint));
    (void)buf_puts(out, "{\"error\":");
    (void)buf_put_json(out, buf_str(&text));
    (void)buf_puts(out, "}\n");
    buf_release(&text);
}

#define NDJSON "application/x-ndjson"
#define JSON   "application/json; charset=utf-8"

static const struct dialect_call calls[] = {
    {.path = "/api/chat",
     .early = true,
     .stream_type = NDJSON,
     .plain_type = JSON,
     .ask = ollama_ask_chat,
     .delta = ollama_delta,
     .end = ollama_end,
     .broken = ollama_broken,
     .plain = ollama_plain,
     .free = free},
    {.path = "/api/generate",
     .early = true,
     .stream_type = NDJSON,
     .plain_type = JSON,
     .ask = ollama_ask_generate,
     .delta = ollama_delta,
     .end = ollama_end,
     .broken = ollama_broken,
     .plain = ollama_plain,
     .document = ollama_filled_in,
     .free = free},
    {.path = "/api/embed",
     .early = true,
     .plain_type = JSON,
     .ask = ollama_ask_embed,
     .plain = ollama_plain_embedding,
     .document = ollama_embedded,
     .free = free},
    {.path = "/api/embeddings",
     .early = true,
     .plain_type = JSON,
     .ask = ollama_ask_embeddings,
     .plain = ollama_plain_embedding,
     .document = ollama_embedded,
     .free = free},
};

extern const struct dialect dialect_ollama;
const struct dialect dialect_ollama = {
    .name = "ollama", .put_error = ollama_put_error, .calls = calls, .n_calls = TABLE_COUNT(calls)};
