/* OpenAI's chat API for backends that do not speak it: the client's request goes on with what the door says
 * itself taken out, and its stream is written anew. Layer dialect; pure. Plain answers are openai.c's. */
#include "dialect/openai_priv.h"

#include "base/mem.h"
#include "dialect/errors.h"
#include "dialect/rewrite.h"

struct remade {
    bool usage; /* the client wants it at the end of its stream */
};

/* ---- the request ---- */

static bool put_stream_options(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    struct remade *r = w->ask->state;
    r->usage = json_bool(v, "include_usage", false);
    return true;
}

static const struct rewrite_member members[] = {
    {"model", NULL, false},
    {"stream", rewrite_stream, false},
    {"stream_options", put_stream_options, false},
};

static enum rc ask_chat(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                        struct err *err)
{
    struct rewrite w;
    ret->path = "/v1/chat/completions";
    ret->reply = DIALECT_EVENTS;
    ret->state = mem_new(struct remade);
    enum rc rc = rewrite_init(&w, terms, body, ret, err);
    return rc == RC_OK ? rewrite_end(&w, rewrite_members(&w, members, TABLE_COUNT(members))) : rc;
}

/* ---- the stream ---- */

static void open_chunk(const struct completion *sum, struct buf *out)
{
    uint64_t created = sum->created ? sum->created : (uint64_t)(sum->begun_us / 1000000);
    (void)buf_puts(out, "data: {\"id\":\"chatcmpl-");
    completion_put_id(sum, out);
    (void)buf_printf(out, "\",\"object\":\"chat.completion.chunk\",\"created\":%llu,\"model\":",
                     (unsigned long long)created);
    (void)buf_put_json(out, buf_str(&sum->model));
}

static void close_chunk(struct buf *out)
{
    (void)buf_puts(out, "}\n\n");
}

static void put_text(struct buf *out, const char *name, struct str text, const char **comma)
{
    if (!text.n)
        return;
    (void)buf_printf(out, "%s\"%s\":", *comma, name);
    (void)buf_put_json(out, text);
    *comma = ",";
}

static void put_calls(struct buf *out, yyjson_val *calls, const char *comma)
{
    size_t n = 0;
    char *text = calls ? yyjson_val_write(calls, YYJSON_WRITE_NOFLAG, &n) : NULL;
    if (text) {
        (void)buf_printf(out, "%s\"tool_calls\":", comma);
        (void)buf_append(out, text, n);
    }
    free(text);
}

static bool delta_chat(void *state, const struct completion *sum, const struct chunk_choice *in,
                       struct buf *out)
{
    (void)state;
    const char *comma = "";
    open_chunk(sum, out);
    (void)buf_puts(out, ",\"choices\":[{\"index\":0,\"delta\":{");
    put_text(out, "role", in->role, &comma);
    put_text(out, "reasoning_content", in->reasoning, &comma);
    put_text(out, "content", in->content, &comma);
    put_text(out, "refusal", in->refusal, &comma);
    put_calls(out, in->calls, comma);
    (void)buf_puts(out, "},\"finish_reason\":");
    if (in->finish.n)
        (void)buf_put_json(out, in->finish);
    else
        (void)buf_puts(out, "null");
    (void)buf_puts(out, "}]");
    close_chunk(out);
    return true;
}

static void end_chat(void *state, const struct completion *sum, struct buf *out)
{
    const struct remade *r = state;
    if (r->usage) {
        open_chunk(sum, out);
        (void)buf_puts(out, ",\"choices\":[],\"usage\":");
        (void)buf_put_str(out, sum->usage.n ? buf_str(&sum->usage) : STR("null"));
        close_chunk(out);
    }
    (void)buf_puts(out, "data: [DONE]\n\n");
}

const struct dialect_call openai_chat_remade = {
    .path = "/v1/chat/completions",
    .stream_type = "text/event-stream; charset=utf-8",
    .plain_type = OPENAI_JSON,
    .ask = ask_chat,
    .delta = delta_chat,
    .end = end_chat,
    .broken = dialect_put_error_event,
    .plain = openai_plain_chat,
    .free = free,
};
