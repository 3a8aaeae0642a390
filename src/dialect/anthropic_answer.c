/* Answers in Anthropic's form. Layer dialect; pure.
 *
 * A message is a list of blocks, one open at a time: what was thought, text, calls of tools. In a stream a
 * block is begun when its first piece comes; a call's, whose name may grow, when its arguments do, or when
 * something else follows. */
#include "dialect/anthropic_priv.h"

#include "base/mem.h"

#include <string.h>

/* ---- what both forms tell ---- */

static const struct {
    const char *finish, *reason;
} reasons[] = {
    {"stop", "end_turn"},          {"length", "max_tokens"},      {"tool_calls", "tool_use"},
    {"function_call", "tool_use"}, {"content_filter", "refusal"},
};

static bool is_stop_sequence(const struct anthropic *a, struct str text)
{
    for (size_t at = 0; text.n && at < a->stops.n; at += strlen(a->stops.data + at) + 1)
        if (str_eq_c(text, a->stops.data + at))
            return true;
    return false;
}

static void put_stop(const struct anthropic *a, const struct completion_choice *o, struct buf *out)
{
    const char *reason = "end_turn";
    for (size_t i = 0; i < TABLE_COUNT(reasons); i++)
        if (str_eq_c(buf_str(&o->finish), reasons[i].finish))
            reason = reasons[i].reason;
    bool named = is_stop_sequence(a, buf_str(&o->stop)) && !strcmp(reason, "end_turn");
    (void)buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", named ? "stop_sequence" : reason);
    if (named)
        (void)buf_put_json(out, buf_str(&o->stop));
    else
        (void)buf_puts(out, "null");
}

/* The prompt's tokens are told without those that were cached. */
static void put_usage(const struct completion *sum, uint64_t output, struct buf *out)
{
    const struct completion_counts *n = &sum->counts;
    uint64_t cached = n->cached_tokens < n->prompt_tokens ? n->cached_tokens : n->prompt_tokens;
    (void)buf_printf(out,
                     "\"usage\":{\"input_tokens\":%llu,\"cache_creation_input_tokens\":0,"
                     "\"cache_read_input_tokens\":%llu,\"output_tokens\":%llu}",
                     (unsigned long long)(n->prompt_tokens - cached), (unsigned long long)cached,
                     (unsigned long long)output);
}

static void put_message_head(const struct anthropic *a, const struct completion *sum, struct buf *out)
{
    (void)buf_puts(out, "{\"id\":\"msg_");
    completion_put_id(sum, out);
    (void)buf_puts(out, "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    (void)buf_put_json(out, a->model.n ? buf_str(&a->model) : buf_str(&sum->model));
}

static void put_tool_head(const struct completion *sum, const struct completion_call *call, uint32_t i,
                          struct buf *out)
{
    (void)buf_puts(out, "{\"type\":\"tool_use\",\"id\":");
    if (call->id.n) {
        (void)buf_put_json(out, buf_str(&call->id));
    } else {
        (void)buf_puts(out, "\"toolu_");
        completion_put_id(sum, out);
        (void)buf_printf(out, "_%u\"", i);
    }
    (void)buf_puts(out, ",\"name\":");
    (void)buf_put_json(out, buf_str(&call->name));
    (void)buf_puts(out, ",\"input\":");
}

/* ---- the stream ---- */

static void open_event(struct buf *out, const char *name)
{
    (void)buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", name, name);
}

static void close_event(struct buf *out)
{
    (void)buf_puts(out, "}\n\n");
}

static void begin(struct anthropic *a, const struct completion *sum, struct buf *out)
{
    if (a->begun)
        return;
    a->begun = true;
    open_event(out, "message_start");
    (void)buf_puts(out, ",\"message\":");
    put_message_head(a, sum, out);
    (void)buf_puts(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,");
    put_usage(sum, 0, out);
    (void)buf_puts(out, "}");
    close_event(out);
    open_event(out, "ping");
    close_event(out);
}

static void close_block(struct anthropic *a, struct buf *out)
{
    if (a->open == ANTHROPIC_NONE)
        return;
    a->open = ANTHROPIC_NONE;
    open_event(out, "content_block_stop");
    (void)buf_printf(out, ",\"index\":%u", a->index++);
    close_event(out);
}

static void start_block(struct anthropic *a, const struct completion *sum, enum anthropic_block kind,
                        struct buf *out)
{
    begin(a, sum, out);
    close_block(a, out);
    a->open = kind;
    open_event(out, "content_block_start");
    (void)buf_printf(out, ",\"index\":%u,\"content_block\":", a->index);
}

static void open_text(struct anthropic *a, const struct completion *sum, enum anthropic_block kind,
                      struct buf *out)
{
    if (a->open == kind)
        return;
    start_block(a, sum, kind, out);
    (void)buf_puts(out, kind == ANTHROPIC_TEXT
                            ? "{\"type\":\"text\",\"text\":\"\"}"
                            : "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    close_event(out);
}

/* Begins the blocks of all calls before `until` that have none yet. */
static void open_calls(struct anthropic *a, const struct completion *sum, uint32_t until, struct buf *out)
{
    const struct completion_choice *o = &sum->choices[0];
    for (; a->n_calls < until; a->n_calls++) {
        start_block(a, sum, ANTHROPIC_TOOL, out);
        put_tool_head(sum, &o->calls[a->n_calls], a->n_calls, out);
        (void)buf_puts(out, "{}}");
        close_event(out);
    }
}

static void put_piece(struct anthropic *a, const char *type, const char *member, struct str text,
                      struct buf *out)
{
    open_event(out, "content_block_delta");
    (void)buf_printf(out, ",\"index\":%u,\"delta\":{\"type\":\"%s\",\"%s\":", a->index, type, member);
    (void)buf_put_json(out, text);
    (void)buf_puts(out, "}");
    close_event(out);
}

static void put_text(struct anthropic *a, const struct completion *sum, enum anthropic_block kind,
                     struct str text, struct buf *out)
{
    if (!text.n)
        return;
    open_calls(a, sum, sum->choices[0].n_calls, out);
    open_text(a, sum, kind, out);
    if (kind == ANTHROPIC_TEXT)
        put_piece(a, "text_delta", "text", text, out);
    else
        put_piece(a, "thinking_delta", "thinking", text, out);
}

/* Calls come one behind the other: a piece of one that was left for the next has no place any more. */
static bool put_call(struct anthropic *a, const struct completion *sum, yyjson_val *v, struct buf *out)
{
    struct chunk_call in;
    if (!chunk_call_read(v, &in) || in.index + 1 < a->n_calls)
        return false;
    open_calls(a, sum, in.index, out);
    if (!in.arguments.n)
        return true;
    open_calls(a, sum, in.index + 1, out);
    if (a->open != ANTHROPIC_TOOL)
        return false;
    put_piece(a, "input_json_delta", "partial_json", in.arguments, out);
    return true;
}

bool anthropic_delta(void *state, const struct completion *sum, const struct chunk_choice *in,
                     struct buf *out)
{
    struct anthropic *a = state;
    size_t i, n;
    yyjson_val *v;
    put_text(a, sum, ANTHROPIC_THINKING, in->reasoning, out);
    put_text(a, sum, ANTHROPIC_TEXT, in->content, out);
    put_text(a, sum, ANTHROPIC_TEXT, in->refusal, out);
    yyjson_arr_foreach(in->calls, i, n, v)
    {
        if (!put_call(a, sum, v, out))
            return false;
    }
    return true;
}

void anthropic_end(void *state, const struct completion *sum, struct buf *out)
{
    struct anthropic *a = state;
    const struct completion_choice *o = &sum->choices[0];
    begin(a, sum, out);
    open_calls(a, sum, o->n_calls, out);
    close_block(a, out);
    open_event(out, "message_delta");
    (void)buf_puts(out, ",\"delta\":{");
    put_stop(a, o, out);
    (void)buf_puts(out, "},");
    put_usage(sum, sum->counts.completion_tokens, out);
    close_event(out);
    open_event(out, "message_stop");
    close_event(out);
}

void anthropic_broken(void *state, const struct dialect_error *e, struct buf *out)
{
    (void)state;
    (void)buf_puts(out, "event: error\ndata: ");
    anthropic_put_error(e, out);
    (void)buf_puts(out, "\n\n");
}

/* ---- the plain form ---- */

/* Arguments are text that should be a JSON object. One that the token limit cut is not: it is told as it is.
 */
static void put_input(const struct buf *arguments, struct buf *out)
{
    struct str text = arguments->n ? buf_str(arguments) : STR("{}");
    yyjson_doc *doc = yyjson_read(text.p, text.n, YYJSON_READ_NOFLAG);
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        (void)buf_put_str(out, text);
    } else {
        (void)buf_puts(out, "{\"partial_json\":");
        (void)buf_put_json(out, text);
        (void)buf_puts(out, "}");
    }
    yyjson_doc_free(doc);
}

static void put_text_block(const char *before, const struct buf *text, const char *after, size_t *n,
                           struct buf *out)
{
    if (!text->n)
        return;
    (void)buf_puts(out, (*n)++ ? "," : "");
    (void)buf_puts(out, before);
    (void)buf_put_json(out, buf_str(text));
    (void)buf_puts(out, after);
}

void anthropic_plain(void *state, const struct completion *sum, struct buf *out)
{
    const struct anthropic *a = state;
    const struct completion_choice *o = &sum->choices[0];
    size_t n = 0;
    put_message_head(a, sum, out);
    (void)buf_puts(out, ",\"content\":[");
    put_text_block("{\"type\":\"thinking\",\"thinking\":", &o->reasoning, ",\"signature\":\"\"}", &n, out);
    put_text_block("{\"type\":\"text\",\"text\":", &o->content, "}", &n, out);
    put_text_block("{\"type\":\"text\",\"text\":", &o->refusal, "}", &n, out);
    for (uint32_t i = 0; i < o->n_calls; i++) {
        (void)buf_puts(out, n++ ? "," : "");
        put_tool_head(sum, &o->calls[i], i, out);
        put_input(&o->calls[i].arguments, out);
        (void)buf_puts(out, "}");
    }
    (void)buf_puts(out, "],");
    put_stop(a, o, out);
    (void)buf_puts(out, ",");
    put_usage(sum, sum->counts.completion_tokens, out);
    (void)buf_puts(out, "}");
}
