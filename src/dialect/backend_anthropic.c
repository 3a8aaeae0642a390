/* A backend that speaks Anthropic's messages API, read as if it spoke OpenAI's. Layer dialect; pure.
 *
 * Its stream tells blocks, one open at a time: text and thoughts go on as they come; a block that calls a
 * tool becomes a call, in the order in which they come. Blocks of kinds that OpenAI's stream has no place for
 * (searches that ran there, signatures, citations) are left out, and so are events of kinds not known: the
 * reference asks readers to expect new ones. Usage comes at both ends and is told once, at the last. */
#include "dialect/backend_anthropic.h"

#include "base/mem.h"

#define CALLS_MAX 1024u

enum block { BLOCK_OTHER, BLOCK_CALL };

struct reading {
    struct buf id, model;
    uint64_t input, cached, written, output; /* tokens; written: into a cache */
    enum block open;
    bool arguments; /* of the call that is open, some came */
    uint32_t calls;
    bool begun;
};

/* ---- OpenAI's events ---- */

static void open_chunk(const struct reading *r, struct buf *out)
{
    (void)buf_puts(out, "{\"id\":");
    (void)buf_put_json(out, buf_str(&r->id));
    (void)buf_puts(out, ",\"model\":");
    (void)buf_put_json(out, buf_str(&r->model));
    (void)buf_puts(out, ",\"choices\":[");
}

static void put_delta(const struct reading *r, const char *name, struct str text, struct buf *out)
{
    if (!text.n)
        return;
    open_chunk(r, out);
    (void)buf_printf(out, "{\"index\":0,\"delta\":{\"%s\":", name);
    (void)buf_put_json(out, text);
    (void)buf_puts(out, "}}]}\n");
}

static void put_arguments(const struct reading *r, struct str text, struct buf *out)
{
    open_chunk(r, out);
    (void)buf_printf(
        out,
        "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":", r->calls - 1);
    (void)buf_put_json(out, text);
    (void)buf_puts(out, "}}]}}]}\n");
}

/* ---- Anthropic's events ---- */

static struct str text_of(yyjson_val *obj, const char *key)
{
    return json_str(obj, key, (struct str){"", 0});
}

/* Counts are those of the whole so far, in each event that has them. */
static void take_usage(struct reading *r, yyjson_val *usage)
{
    r->input = json_u64(usage, "input_tokens", r->input);
    r->cached = json_u64(usage, "cache_read_input_tokens", r->cached);
    r->written = json_u64(usage, "cache_creation_input_tokens", r->written);
    r->output = json_u64(usage, "output_tokens", r->output);
}

static bool on_message_start(struct reading *r, yyjson_val *event, struct buf *out)
{
    yyjson_val *message = yyjson_obj_get(event, "message");
    if (!yyjson_is_obj(message) || r->begun)
        return false;
    r->begun = true;
    (void)buf_put_str(&r->id, text_of(message, "id"));
    (void)buf_put_str(&r->model, text_of(message, "model"));
    take_usage(r, yyjson_obj_get(message, "usage"));
    put_delta(r, "role", STR("assistant"), out);
    return true;
}

static bool on_block_start(struct reading *r, yyjson_val *event, struct buf *out)
{
    yyjson_val *block = yyjson_obj_get(event, "content_block");
    struct str type = text_of(block, "type");
    if (!r->begun)
        return false;
    r->open = BLOCK_OTHER;
    put_delta(r, "content", str_eq_c(type, "text") ? text_of(block, "text") : (struct str){"", 0}, out);
    if (!str_eq_c(type, "tool_use"))
        return true;
    if (r->calls == CALLS_MAX)
        return false;
    r->open = BLOCK_CALL;
    r->arguments = false;
    open_chunk(r, out);
    (void)buf_printf(out, "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%u,\"id\":", r->calls++);
    (void)buf_put_json(out, text_of(block, "id"));
    (void)buf_puts(out, ",\"type\":\"function\",\"function\":{\"name\":");
    (void)buf_put_json(out, text_of(block, "name"));
    (void)buf_puts(out, ",\"arguments\":\"\"}}]}}]}\n");
    return true;
}

static bool on_block_delta(struct reading *r, yyjson_val *event, struct buf *out)
{
    static const struct {
        const char *type, *from, *to;
    } kinds[] = {{"text_delta", "text", "content"}, {"thinking_delta", "thinking", "reasoning_content"}};
    yyjson_val *delta = yyjson_obj_get(event, "delta");
    struct str type = text_of(delta, "type"), json = text_of(delta, "partial_json");
    if (!r->begun)
        return false;
    for (size_t i = 0; i < TABLE_COUNT(kinds); i++)
        if (str_eq_c(type, kinds[i].type))
            put_delta(r, kinds[i].to, text_of(delta, kinds[i].from), out);
    if (r->open == BLOCK_CALL && str_eq_c(type, "input_json_delta") && json.n) {
        r->arguments = true;
        put_arguments(r, json, out);
    }
    return true;
}

/* A tool without arguments: OpenAI's clients expect an object all the same. */
static bool on_block_stop(struct reading *r, yyjson_val *event, struct buf *out)
{
    (void)event;
    if (r->open == BLOCK_CALL && !r->arguments)
        put_arguments(r, STR("{}"), out);
    r->open = BLOCK_OTHER;
    return true;
}

static const char *finish_of(struct str reason)
{
    static const struct {
        const char *reason, *finish;
    } finishes[] = {{"max_tokens", "length"},
                    {"model_context_window_exceeded", "length"},
                    {"tool_use", "tool_calls"},
                    {"refusal", "content_filter"}};
    for (size_t i = 0; i < TABLE_COUNT(finishes); i++)
        if (str_eq_c(reason, finishes[i].reason))
            return finishes[i].finish;
    return "stop";
}

static bool on_message_delta(struct reading *r, yyjson_val *event, struct buf *out)
{
    yyjson_val *delta = yyjson_obj_get(event, "delta");
    struct str reason = text_of(delta, "stop_reason"), stop = text_of(delta, "stop_sequence");
    take_usage(r, yyjson_obj_get(event, "usage"));
    if (!reason.n)
        return r->begun;
    open_chunk(r, out);
    (void)buf_printf(out, "{\"index\":0,\"delta\":{},\"finish_reason\":\"%s\"", finish_of(reason));
    if (stop.n) {
        (void)buf_puts(out, ",\"stop_reason\":");
        (void)buf_put_json(out, stop);
    }
    (void)buf_puts(out, "}]}\n");
    return r->begun;
}

/* The prompt's tokens are told with those that came from a cache or went into it. */
static bool on_message_stop(struct reading *r, yyjson_val *event, struct buf *out)
{
    (void)event;
    uint64_t prompt = 0, total = 0;
    if (!r->begun || __builtin_add_overflow(r->input, r->cached, &prompt) ||
        __builtin_add_overflow(prompt, r->written, &prompt) ||
        __builtin_add_overflow(prompt, r->output, &total))
        return false;
    open_chunk(r, out);
    (void)buf_printf(out,
                     "],\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                     "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}}\n[DONE]\n",
                     (unsigned long long)prompt, (unsigned long long)r->output, (unsigned long long)total,
                     (unsigned long long)r->cached);
    return true;
}

static bool on_error(struct reading *r, yyjson_val *event, struct buf *out)
{
    static const struct {
        const char *type;
        int status;
    } statuses[] = {{"invalid_request_error", 400}, {"authentication_error", 401}, {"billing_error", 402},
                    {"permission_error", 403},      {"not_found_error", 404},      {"request_too_large", 413},
                    {"rate_limit_error", 429},      {"timeout_error", 504},        {"overloaded_error", 529}};
    (void)r;
    yyjson_val *error = yyjson_obj_get(event, "error");
    struct str type = text_of(error, "type");
    int status = 500;
    for (size_t i = 0; i < TABLE_COUNT(statuses); i++)
        if (str_eq_c(type, statuses[i].type))
            status = statuses[i].status;
    (void)buf_printf(out, "{\"error\":{\"code\":%d,\"type\":", status);
    (void)buf_put_json(out, type);
    (void)buf_puts(out, ",\"message\":");
    (void)buf_put_json(out, text_of(error, "message"));
    (void)buf_puts(out, "}}\n");
    return true;
}

static const struct {
    const char *type;
    bool (*take)(struct reading *r, yyjson_val *event, struct buf *out);
} events[] = {
    {"content_block_delta", on_block_delta},
    {"content_block_start", on_block_start},
    {"content_block_stop", on_block_stop},
    {"message_start", on_message_start},
    {"message_delta", on_message_delta},
    {"message_stop", on_message_stop},
    {"error", on_error},
};

static bool take_event(void *state, struct str data, struct buf *out)
{
    struct reading *r = state;
    yyjson_doc *doc = yyjson_read(data.p, data.n, YYJSON_READ_NOFLAG);
    yyjson_val *event = yyjson_doc_get_root(doc);
    struct str type = text_of(event, "type");
    bool fine = yyjson_is_obj(event);
    for (size_t i = 0; fine && i < TABLE_COUNT(events); i++)
        if (str_eq_c(type, events[i].type)) {
            fine = events[i].take(r, event, out);
            break;
        }
    yyjson_doc_free(doc);
    return fine;
}

static void *open_reading(void)
{
    return mem_new(struct reading);
}

static void close_reading(void *state)
{
    struct reading *r = state;
    if (!r)
        return;
    buf_release(&r->id);
    buf_release(&r->model);
    free(r);
}

const struct dialect_backend dialect_anthropic_backend = {.id = DIALECT_ANTHROPIC,
                                                          .path = "/v1/chat/completions",
                                                          .members = "\"stream\":true,",
                                                          .ask = backend_anthropic_ask,
                                                          .open = open_reading,
                                                          .event = take_event,
                                                          .close = close_reading};
