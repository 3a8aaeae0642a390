/* Answers of the responses API. Layer dialect; pure.
 *
 * An answer is a list of items: what was thought, a message, calls of functions. In a stream an item is added
 * when its first piece comes (a call's, whose name may grow, when its arguments do), and all are closed at
 * the end, in their order. */
#include "dialect/responses_priv.h"

#include "base/mem.h"
#include "dialect/errors.h"

/* What an item is; calls follow, by their index. */
enum { ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL };

/* ---- items ---- */

static void put_item_id(const struct completion *sum, uint32_t item, struct buf *out)
{
    static const char *const kinds[] = {"rs_", "msg_"};
    (void)buf_puts(out, item < ITEM_CALL ? kinds[item] : "fc_");
    completion_put_id(sum, out);
    if (item >= ITEM_CALL)
        (void)buf_printf(out, "_%u", item - ITEM_CALL);
}

static const struct completion_call *call_of(const struct completion *sum, uint32_t item)
{
    return &sum->choices[0].calls[item - ITEM_CALL];
}

/* The text of an item: a refusal is part of the message, as its text. */
static void put_item_text(const struct completion *sum, uint32_t item, struct buf *out)
{
    const struct completion_choice *o = &sum->choices[0];
    struct buf both = {0};
    if (item == ITEM_MESSAGE) {
        (void)buf_put_str(&both, buf_str(&o->content));
        (void)buf_put_str(&both, buf_str(&o->refusal));
    } else {
        (void)buf_put_str(&both, item == ITEM_REASONING ? buf_str(&o->reasoning)
                                                        : buf_str(&call_of(sum, item)->arguments));
    }
    (void)buf_put_json(out, buf_str(&both));
    buf_release(&both);
}

static void put_part(const struct completion *sum, uint32_t item, bool whole, struct buf *out)
{
    (void)buf_puts(out, item == ITEM_MESSAGE
                            ? "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":"
                            : "{\"type\":\"reasoning_text\",\"text\":");
    if (whole)
        put_item_text(sum, item, out);
    else
        (void)buf_puts(out, "\"\"");
    (void)buf_puts(out, "}");
}

/* Where the backend names no call, it gets the item's own id. */
static void put_call_members(const struct completion *sum, uint32_t item, bool whole, struct buf *out)
{
    const struct completion_call *call = call_of(sum, item);
    (void)buf_puts(out, "\"type\":\"function_call\",\"call_id\":");
    if (call->id.n) {
        (void)buf_put_json(out, buf_str(&call->id));
    } else {
        (void)buf_puts(out, "\"call_");
        put_item_id(sum, item, out);
        (void)buf_puts(out, "\"");
    }
    (void)buf_puts(out, ",\"name\":");
    (void)buf_put_json(out, buf_str(&call->name));
    (void)buf_puts(out, ",\"arguments\":");
    if (whole)
        put_item_text(sum, item, out);
    else
        (void)buf_puts(out, "\"\"");
}

static void put_item(const struct completion *sum, uint32_t item, const char *status, bool whole,
                     struct buf *out)
{
    (void)buf_puts(out, "{\"id\":\"");
    put_item_id(sum, item, out);
    (void)buf_printf(out, "\",\"status\":\"%s\",", status);
    if (item >= ITEM_CALL) {
        put_call_members(sum, item, whole, out);
    } else {
        (void)buf_puts(out, item == ITEM_MESSAGE ? "\"type\":\"message\",\"role\":\"assistant\",\"content\":["
                                                 : "\"type\":\"reasoning\",\"summary\":[],\"content\":[");
        if (whole)
            put_part(sum, item, true, out);
        (void)buf_puts(out, "]");
    }
    (void)buf_puts(out, "}");
}

/* ---- the response ---- */

static const char *incomplete_reason(const struct completion *sum)
{
    struct str finish = sum->n_choices ? buf_str(&sum->choices[0].finish) : STR("");
    if (str_eq_c(finish, "length"))
        return "max_output_tokens";
    return str_eq_c(finish, "content_filter") ? "content_filter" : NULL;
}

static void put_usage(const struct completion *sum, struct buf *out)
{
    const struct completion_counts *n = &sum->counts;
    unsigned long long in = n->prompt_tokens, made = n->completion_tokens;
    (void)buf_printf(out,
                     ",\"usage\":{\"input_tokens\":%llu,\"input_tokens_details\":{\"cached_tokens\":%llu},"
                     "\"output_tokens\":%llu,\"output_tokens_details\":{\"reasoning_tokens\":%llu},"
                     "\"total_tokens\":%llu}",
                     in, (unsigned long long)n->cached_tokens, made, (unsigned long long)n->reasoning_tokens,
                     in + made);
}

/* Up to the list of items, which is left open. */
static void open_response(const struct responses *r, const struct completion *sum, const char *status,
                          struct buf *out)
{
    (void)buf_puts(out, "{\"id\":\"resp_");
    completion_put_id(sum, out);
    (void)buf_printf(out, "\",\"object\":\"response\",\"created_at\":%llu,\"status\":\"%s\",\"error\":null,",
                     (unsigned long long)sum->created, status);
    (void)buf_puts(out, "\"incomplete_details\":");
    const char *reason = incomplete_reason(sum);
    if (reason)
        (void)buf_printf(out, "{\"reason\":\"%s\"}", reason);
    else
        (void)buf_puts(out, "null");
    (void)buf_puts(out, ",\"model\":");
    (void)buf_put_json(out, r->model.n ? buf_str(&r->model) : buf_str(&sum->model));
    (void)buf_put_str(out, buf_str(&r->echo));
    (void)buf_puts(out, ",\"output\":[");
}

static void put_whole(const struct responses *r, const struct completion *sum, const uint32_t *items,
                      uint32_t n, struct buf *out)
{
    const char *status = incomplete_reason(sum) ? "incomplete" : "completed";
    open_response(r, sum, status, out);
    for (uint32_t i = 0; i < n; i++) {
        (void)buf_puts(out, i ? "," : "");
        put_item(sum, items[i], status, true, out);
    }
    (void)buf_puts(out, "]");
    put_usage(sum, out);
    (void)buf_puts(out, "}");
}

/* ---- the stream ---- */

static void open_event(struct responses *r, const char *name, struct buf *out)
{
    (void)buf_printf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%llu", name, name,
                     (unsigned long long)r->sequence++);
}

static void close_event(struct buf *out)
{
    (void)buf_puts(out, "}\n\n");
}

static void begin(struct responses *r, const struct completion *sum, struct buf *out)
{
    static const char *const names[] = {"response.created", "response.in_progress"};
    if (r->begun)
        return;
    r->begun = true;
    for (size_t i = 0; i < TABLE_COUNT(names); i++) {
        open_event(r, names[i], out);
        (void)buf_puts(out, ",\"response\":");
        open_response(r, sum, "in_progress", out);
        (void)buf_puts(out, "],\"usage\":null}");
        close_event(out);
    }
}

/* An event about an item: its name, where the item is, and which of its parts is meant. */
static void open_item_event(struct responses *r, const struct completion *sum, uint32_t at, const char *name,
                            struct buf *out)
{
    open_event(r, name, out);
    (void)buf_printf(out, ",\"output_index\":%u,\"item_id\":\"", at);
    put_item_id(sum, r->items[at], out);
    (void)buf_puts(out, "\"");
    if (r->items[at] < ITEM_CALL)
        (void)buf_puts(out, ",\"content_index\":0");
}

static void put_item_event(struct responses *r, const struct completion *sum, uint32_t at, const char *name,
                           const char *status, bool whole, struct buf *out)
{
    open_event(r, name, out);
    (void)buf_printf(out, ",\"output_index\":%u,\"item\":", at);
    put_item(sum, r->items[at], status, whole, out);
    close_event(out);
}

static void put_part_event(struct responses *r, const struct completion *sum, uint32_t at, const char *name,
                           bool whole, struct buf *out)
{
    open_item_event(r, sum, at, name, out);
    (void)buf_puts(out, ",\"part\":");
    put_part(sum, r->items[at], whole, out);
    close_event(out);
}

/* Where the item is in the output; it is added if it is not there yet. */
static uint32_t item_at(struct responses *r, const struct completion *sum, uint32_t item, struct buf *out)
{
    for (uint32_t i = 0; i < r->n_items; i++)
        if (r->items[i] == item)
            return i;
    begin(r, sum, out);
    uint32_t at = r->n_items++;
    r->items = mem_realloc(r->items, r->n_items, sizeof *r->items);
    r->items[at] = item;
    put_item_event(r, sum, at, "response.output_item.added", "in_progress", false, out);
    if (item < ITEM_CALL)
        put_part_event(r, sum, at, "response.content_part.added", false, out);
    return at;
}

static const struct {
    const char *delta, *done, *member;
} names[] = {
    {"response.reasoning_text.delta", "response.reasoning_text.done", "text"},
    {"response.output_text.delta", "response.output_text.done", "text"},
    {"response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments"},
};

static size_t name_of(uint32_t item)
{
    return item < ITEM_CALL ? item : ITEM_CALL;
}

static void put_piece(struct responses *r, const struct completion *sum, uint32_t item, struct str text,
                      struct buf *out)
{
    if (!text.n)
        return;
    uint32_t at = item_at(r, sum, item, out);
    open_item_event(r, sum, at, names[name_of(item)].delta, out);
    (void)buf_puts(out, item == ITEM_MESSAGE ? ",\"logprobs\":[],\"delta\":" : ",\"delta\":");
    (void)buf_put_json(out, text);
    close_event(out);
}

bool responses_delta(void *state, const struct completion *sum, const struct chunk_choice *in,
                     struct buf *out)
{
    struct responses *r = state;
    size_t i, n;
    yyjson_val *v;
    put_piece(r, sum, ITEM_REASONING, in->reasoning, out);
    put_piece(r, sum, ITEM_MESSAGE, in->content, out);
    put_piece(r, sum, ITEM_MESSAGE, in->refusal, out);
    yyjson_arr_foreach(in->calls, i, n, v)
    {
        struct chunk_call call;
        if (!chunk_call_read(v, &call))
            return false;
        put_piece(r, sum, ITEM_CALL + call.index, call.arguments, out);
    }
    return true;
}

static void close_item(struct responses *r, const struct completion *sum, uint32_t at, struct buf *out)
{
    uint32_t item = r->items[at];
    open_item_event(r, sum, at, names[name_of(item)].done, out);
    if (item >= ITEM_CALL) {
        (void)buf_puts(out, ",\"name\":");
        (void)buf_put_json(out, buf_str(&call_of(sum, item)->name));
    }
    (void)buf_printf(out, "%s,\"%s\":", item == ITEM_MESSAGE ? ",\"logprobs\":[]" : "",
                     names[name_of(item)].member);
    put_item_text(sum, item, out);
    close_event(out);
    if (item < ITEM_CALL)
        put_part_event(r, sum, at, "response.content_part.done", true, out);
    put_item_event(r, sum, at, "response.output_item.done",
                   incomplete_reason(sum) ? "incomplete" : "completed", true, out);
}

void responses_end(void *state, const struct completion *sum, struct buf *out)
{
    struct responses *r = state;
    begin(r, sum, out);
    for (uint32_t i = 0; i < sum->choices[0].n_calls; i++) /* those without arguments */
        (void)item_at(r, sum, ITEM_CALL + i, out);
    for (uint32_t at = 0; at < r->n_items; at++)
        close_item(r, sum, at, out);
    open_event(r, incomplete_reason(sum) ? "response.incomplete" : "response.completed", out);
    (void)buf_puts(out, ",\"response\":");
    put_whole(r, sum, r->items, r->n_items, out);
    close_event(out);
}

void responses_broken(void *state, const struct dialect_error *e, struct buf *out)
{
    struct responses unbegun = {0}, *r = state ? state : &unbegun;
    open_event(r, "error", out);
    (void)buf_printf(out, ",\"code\":\"%s\",\"param\":null,\"message\":", rc_word(e->code));
    (void)buf_put_json(out, e->message);
    error_put_member(out, "hint", e->hint);
    close_event(out);
}

/* ---- the plain form ---- */

void responses_plain(void *state, const struct completion *sum, struct buf *out)
{
    const struct completion_choice *o = &sum->choices[0];
    uint32_t *items = mem_calloc(ITEM_CALL + o->n_calls, sizeof *items), n = 0;
    if (o->reasoning.n)
        items[n++] = ITEM_REASONING;
    if (o->content.n || o->refusal.n)
        items[n++] = ITEM_MESSAGE;
    for (uint32_t i = 0; i < o->n_calls; i++)
        items[n++] = ITEM_CALL + i;
    put_whole(state, sum, items, n, out);
    free(items);
}
