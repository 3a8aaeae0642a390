/* Ollama's API: its calls and its errors (docs/api.md and api/types.go of ollama 0.12). Layer dialect; pure.
 *
 * Its requests tell how long the model stays and how much context it needs, so they are read before a model
 * is chosen (early). No backend is known that speaks it and that is not Ollama: all calls have translators.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "dialect/ollama.h"
#include "dialect/progress.h"

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

/* A piece of an answer without text. */
static void put_piece(const struct dialect_progress *p, const char *empty, struct buf *out)
{
    char at[40];
    (void)buf_puts(out, "{\"model\":");
    (void)buf_put_json(out, p->model);
    (void)buf_printf(out, ",\"created_at\":\"%s\",%s,\"done\":false,\"arriero\":",
                     clock_rfc3339(p->now_us / 1000, at, sizeof at), empty);
    progress_put_json(p, out);
    (void)buf_puts(out, "}\n");
}

static void chat_progress(const struct dialect_progress *p, struct buf *out)
{
    put_piece(p, "\"message\":{\"role\":\"assistant\",\"content\":\"\"}", out);
}

static void generate_progress(const struct dialect_progress *p, struct buf *out)
{
    put_piece(p, "\"response\":\"\"", out);
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
     .progress = chat_progress,
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
     .progress = generate_progress,
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
