/* Plain answers from streams: see collect.h. Layer proxy; any thread.
 *
 * The members and their order are those of llama.cpp's server (0.7.0): of several choices, usage and timings
 * are the first one's. In a chat stream they come in an event without choices, right behind the end of the
 * choice that they belong to. */
#include "proxy/collect.h"

#include "base/mem.h"
#include "base/sse.h"
#include "proxy/chunk.h"

#include <string.h>

struct call {
    struct buf id, type, name, arguments;
};

struct choice {
    bool seen;
    struct buf role, content, reasoning, refusal, finish;
    struct call *calls;
    uint32_t n_calls;
};

struct collect {
    enum collect_form form;
    enum collect_state state;
    struct sse sse;
    size_t max, n; /* n: bytes kept */
    struct choice *choices;
    uint32_t n_choices;
    uint32_t last, usage_of; /* choice that ended last, that usage and timings are of */
    struct buf id, model, fingerprint, usage, timings, error;
    int error_status;
    uint64_t created;
};

struct collect *collect_new(enum collect_form form, size_t max)
{
    struct collect *c = mem_new(struct collect);
    c->form = form;
    c->max = max;
    c->usage_of = UINT32_MAX;
    return c;
}

/* ---- keeping ---- */

static void keep(struct collect *c, struct buf *b, struct str text)
{
    if (!text.n)
        return;
    c->n += text.n;
    if (c->n > c->max || !buf_put_str(b, text))
        c->state = COLLECT_LARGE;
}

/* What is told again and again: the same, or (a call's name) as far as it is known. */
static void keep_latest(struct collect *c, struct buf *b, struct str text)
{
    if (!text.n || str_eq(buf_str(b), text))
        return;
    buf_clear(b);
    keep(c, b, text);
}

static void keep_json(struct collect *c, struct buf *b, yyjson_val *v)
{
    size_t n = 0;
    char *text = yyjson_val_write(v, YYJSON_WRITE_NOFLAG, &n);
    buf_clear(b);
    if (text)
        keep(c, b, (struct str){text, n});
    free(text);
}

static struct choice *choice_at(struct collect *c, uint32_t i)
{
    if (i >= c->n_choices) {
        c->choices = mem_realloc(c->choices, i + 1, sizeof *c->choices);
        memset(c->choices + c->n_choices, 0, (i + 1 - c->n_choices) * sizeof *c->choices);
        c->n_choices = i + 1;
    }
    return &c->choices[i];
}

static struct call *call_at(struct collect *c, struct choice *o, uint32_t i)
{
    if (i >= o->n_calls) {
        c->n += (i + 1 - o->n_calls) * sizeof *o->calls;
        o->calls = mem_realloc(o->calls, i + 1, sizeof *o->calls);
        memset(o->calls + o->n_calls, 0, (i + 1 - o->n_calls) * sizeof *o->calls);
        o->n_calls = i + 1;
    }
    return &o->calls[i];
}

/* ---- events ---- */

static bool take_call(struct collect *c, struct choice *o, yyjson_val *v)
{
    struct chunk_call in;
    if (!chunk_call_read(v, &in))
        return false;
    struct call *call = call_at(c, o, in.index);
    keep_latest(c, &call->id, in.id);
    keep_latest(c, &call->type, in.type);
    keep_latest(c, &call->name, in.name);
    keep(c, &call->arguments, in.arguments);
    return true;
}

static bool take_choice(struct collect *c, yyjson_val *v)
{
    struct chunk_choice in;
    if (!chunk_choice_read(v, &in))
        return false;
    struct choice *o = choice_at(c, in.index);
    o->seen = true;
    c->last = in.index;
    keep_latest(c, &o->role, in.role);
    keep(c, &o->content, in.content);
    keep(c, &o->reasoning, in.reasoning);
    keep(c, &o->refusal, in.refusal);
    keep_latest(c, &o->finish, in.finish);
    size_t i, n;
    yyjson_val *call;
    yyjson_arr_foreach(in.calls, i, n, call)
    {
        if (!take_call(c, o, call))
            return false;
    }
    return true;
}

static bool take_delta(struct collect *c, const struct chunk *in)
{
    size_t i, n;
    yyjson_val *v;
    keep_latest(c, &c->id, in->id);
    keep_latest(c, &c->model, in->model);
    keep_latest(c, &c->fingerprint, in->fingerprint);
    c->created = in->created ? in->created : c->created;
    yyjson_arr_foreach(in->choices, i, n, v)
    {
        if (!take_choice(c, v))
            return false;
    }
    if ((in->usage || in->timings) && c->last <= c->usage_of) {
        c->usage_of = c->last;
        if (in->usage)
            keep_json(c, &c->usage, in->usage);
        if (in->timings)
            keep_json(c, &c->timings, in->timings);
    }
    return true;
}

static bool take_event(void *arg, struct str name, struct str data)
{
    (void)name;
    struct collect *c = arg;
    struct chunk in;
    chunk_read(data, &in);
    switch (in.kind) {
    case CHUNK_DONE: c->state = COLLECT_DONE; break;
    case CHUNK_ERROR: {
        uint64_t status = yyjson_is_obj(in.error) ? json_u64(in.error, "code", 500) : 500;
        c->error_status = status >= 400 && status < 600 ? (int)status : 500;
        keep_json(c, &c->error, in.error);
        if (c->state == COLLECT_MORE)
            c->state = COLLECT_ERROR;
        break;
    }
    case CHUNK_DELTA:
        if (take_delta(c, &in))
            break;
        [[fallthrough]];
    case CHUNK_BAD: c->state = COLLECT_BROKEN; break;
    }
    chunk_release(&in);
    return c->state == COLLECT_MORE;
}

enum collect_state collect_feed(struct collect *c, struct str bytes)
{
    struct err err;
    if (c->state == COLLECT_MORE && sse_feed(&c->sse, bytes, take_event, c, &err) == RC_LIMIT)
        c->state = COLLECT_LARGE;
    return c->state;
}

/* ---- the answer ---- */

static void put_text(struct buf *out, const char *before, const struct buf *text)
{
    (void)buf_puts(out, before);
    (void)buf_put_json(out, buf_str(text));
}

static void put_calls(const struct choice *o, struct buf *out)
{
    (void)buf_puts(out, ",\"tool_calls\":[");
    for (uint32_t i = 0; i < o->n_calls; i++) {
        const struct call *call = &o->calls[i];
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

static void put_message(const struct choice *o, struct buf *out)
{
    (void)buf_puts(out, ",\"message\":{\"role\":");
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

static void put_choice(const struct collect *c, uint32_t i, struct buf *out)
{
    const struct choice *o = &c->choices[i];
    if (c->form == COLLECT_CHAT) {
        put_text(out, "{\"finish_reason\":", &o->finish);
        (void)buf_printf(out, ",\"index\":%u", i);
        put_message(o, out);
        return;
    }
    put_text(out, "{\"text\":", &o->content);
    (void)buf_printf(out, ",\"index\":%u,\"logprobs\":null", i);
    put_text(out, ",\"finish_reason\":", &o->finish);
    (void)buf_puts(out, "}");
}

static bool is_whole(const struct collect *c)
{
    bool whole = c->state == COLLECT_DONE && c->n_choices > 0;
    for (uint32_t i = 0; whole && i < c->n_choices; i++) {
        const struct choice *o = &c->choices[i];
        whole = o->seen && o->finish.n;
    }
    return whole;
}

bool collect_answer(const struct collect *c, struct buf *out)
{
    if (!is_whole(c))
        return false;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        (void)buf_puts(out, i ? "," : "{\"choices\":[");
        put_choice(c, i, out);
    }
    (void)buf_printf(out, "],\"created\":%llu", (unsigned long long)c->created);
    put_text(out, ",\"model\":", &c->model);
    if (c->fingerprint.n)
        put_text(out, ",\"system_fingerprint\":", &c->fingerprint);
    (void)buf_printf(out, ",\"object\":\"%s\"",
                     c->form == COLLECT_CHAT ? "chat.completion" : "text_completion");
    if (c->usage.n)
        (void)buf_printf(out, ",\"usage\":%s", c->usage.data);
    put_text(out, ",\"id\":", &c->id);
    if (c->timings.n)
        (void)buf_printf(out, ",\"timings\":%s", c->timings.data);
    return buf_puts(out, "}");
}

int collect_error(const struct collect *c, struct buf *out)
{
    (void)buf_puts(out, "{\"error\":");
    (void)buf_put_str(out, c->error.n ? buf_str(&c->error) : STR("null"));
    (void)buf_puts(out, "}");
    return c->error_status ? c->error_status : 500;
}

/* ---- the end ---- */

static size_t choice_bytes(const struct choice *o)
{
    size_t n = o->role.cap + o->content.cap + o->reasoning.cap + o->refusal.cap + o->finish.cap;
    for (uint32_t i = 0; i < o->n_calls; i++) {
        const struct call *call = &o->calls[i];
        n += sizeof *call + call->id.cap + call->type.cap + call->name.cap + call->arguments.cap;
    }
    return n;
}

size_t collect_bytes(const struct collect *c)
{
    size_t n = sizeof *c + c->n_choices * sizeof *c->choices + c->sse.line.cap + c->sse.data.cap +
               c->usage.cap + c->timings.cap + c->error.cap + c->id.cap + c->model.cap + c->fingerprint.cap;
    for (uint32_t i = 0; i < c->n_choices; i++)
        n += choice_bytes(&c->choices[i]);
    return n;
}

static void release_choice(struct choice *o)
{
    for (uint32_t i = 0; i < o->n_calls; i++) {
        struct buf *const parts[] = {&o->calls[i].id, &o->calls[i].type, &o->calls[i].name,
                                     &o->calls[i].arguments};
        for (size_t k = 0; k < TABLE_COUNT(parts); k++)
            buf_release(parts[k]);
    }
    free(o->calls);
    struct buf *const parts[] = {&o->role, &o->content, &o->reasoning, &o->refusal, &o->finish};
    for (size_t k = 0; k < TABLE_COUNT(parts); k++)
        buf_release(parts[k]);
}

void collect_free(struct collect *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->n_choices; i++)
        release_choice(&c->choices[i]);
    free(c->choices);
    struct buf *const parts[] = {&c->id, &c->model, &c->fingerprint, &c->usage, &c->timings, &c->error};
    for (size_t k = 0; k < TABLE_COUNT(parts); k++)
        buf_release(parts[k]);
    sse_release(&c->sse);
    free(c);
}
