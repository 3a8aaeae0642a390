/* A completion put together: see completion.h. */
#include "dialect/completion.h"

#include "base/mem.h"

#include <string.h>

void completion_init(struct completion *c, bool keep_text, size_t max)
{
    *c = (struct completion){.keep_text = keep_text, .max = max, .usage_of = UINT32_MAX};
}

/* ---- keeping ---- */

static void keep(struct completion *c, struct buf *b, struct str text)
{
    if (!text.n)
        return;
    c->n += text.n;
    if (c->n > c->max || !buf_put_str(b, text))
        c->large = true;
}

static void forget(struct completion *c, struct buf *b)
{
    c->n -= b->n;
    buf_clear(b);
}

/* What is told again and again: the same, or (a call's name) as far as it is known. */
static void keep_latest(struct completion *c, struct buf *b, struct str text)
{
    if (!text.n || str_eq(buf_str(b), text))
        return;
    forget(c, b);
    keep(c, b, text);
}

static void keep_json(struct completion *c, struct buf *b, yyjson_val *v)
{
    size_t n = 0;
    char *text = yyjson_val_write(v, YYJSON_WRITE_NOFLAG, &n);
    forget(c, b);
    if (text)
        keep(c, b, (struct str){text, n});
    free(text);
}

static struct completion_choice *choice_at(struct completion *c, uint32_t i)
{
    if (i >= c->n_choices) {
        c->choices = mem_realloc(c->choices, i + 1, sizeof *c->choices);
        memset(c->choices + c->n_choices, 0, (i + 1 - c->n_choices) * sizeof *c->choices);
        c->n_choices = i + 1;
    }
    return &c->choices[i];
}

static struct completion_call *call_at(struct completion *c, struct completion_choice *o, uint32_t i)
{
    if (i >= o->n_calls) {
        c->n += (i + 1 - o->n_calls) * sizeof *o->calls;
        o->calls = mem_realloc(o->calls, i + 1, sizeof *o->calls);
        memset(o->calls + o->n_calls, 0, (i + 1 - o->n_calls) * sizeof *o->calls);
        o->n_calls = i + 1;
    }
    return &o->calls[i];
}

/* ---- usage ---- */

static uint64_t us_of(yyjson_val *timings, const char *key)
{
    double ms = json_double(timings, key, 0);
    return ms > 0 && ms < 1e12 ? (uint64_t)(ms * 1000 + 0.5) : 0;
}

/* A number that the text of an event tells; 0 where it tells none, as with a member that is missing. */
static uint64_t count_in(yyjson_val *obj, const char *inner, const char *key)
{
    return json_u64(inner ? yyjson_obj_get(obj, inner) : obj, key, 0);
}

static void count_usage(struct completion_counts *n, yyjson_val *usage)
{
    n->known = true;
    n->prompt_tokens = count_in(usage, NULL, "prompt_tokens");
    n->completion_tokens = count_in(usage, NULL, "completion_tokens");
    n->cached_tokens = count_in(usage, "prompt_tokens_details", "cached_tokens");
    n->reasoning_tokens = count_in(usage, "completion_tokens_details", "reasoning_tokens");
}

void completion_take_usage(struct completion *c, yyjson_val *usage, yyjson_val *timings)
{
    if (usage) {
        keep_json(c, &c->usage, usage);
        count_usage(&c->counts, usage);
    }
    if (timings) {
        keep_json(c, &c->timings, timings);
        c->counts.prompt_us = us_of(timings, "prompt_ms");
        c->counts.decode_us = us_of(timings, "predicted_ms");
        if (!c->counts.cached_tokens)
            c->counts.cached_tokens = json_u64(timings, "cache_n", 0);
    }
}

/* ---- events ---- */

static bool take_call(struct completion *c, struct completion_choice *o, yyjson_val *v)
{
    struct chunk_call in;
    if (!chunk_call_read(v, &in))
        return false;
    struct completion_call *call = call_at(c, o, in.index);
    keep_latest(c, &call->id, in.id);
    keep_latest(c, &call->type, in.type);
    keep_latest(c, &call->name, in.name);
    keep(c, &call->arguments, in.arguments);
    return true;
}

static bool take_choice(struct completion *c, yyjson_val *v)
{
    struct chunk_choice in;
    if (!chunk_choice_read(v, &in))
        return false;
    struct completion_choice *o = choice_at(c, in.index);
    o->seen = true;
    c->last = in.index;
    keep_latest(c, &o->role, in.role);
    keep_latest(c, &o->finish, in.finish);
    keep_latest(c, &o->stop, in.stop);
    if (c->keep_text) {
        keep(c, &o->content, in.content);
        keep(c, &o->reasoning, in.reasoning);
        keep(c, &o->refusal, in.refusal);
    }
    size_t i, n;
    yyjson_val *call;
    yyjson_arr_foreach(in.calls, i, n, call)
    {
        if (!take_call(c, o, call))
            return false;
    }
    return true;
}

bool completion_take(struct completion *c, const struct chunk *in)
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
    if (in->progress && !c->counts.known) {
        c->counts.prompt_tokens = json_u64(in->progress, "total", 0);
        c->counts.cached_tokens = json_u64(in->progress, "cache", 0);
    }
    if ((in->usage || in->timings) && c->last <= c->usage_of) {
        c->usage_of = c->last;
        completion_take_usage(c, in->usage, in->timings);
    }
    return true;
}

bool completion_whole(const struct completion *c)
{
    bool whole = c->n_choices > 0;
    for (uint32_t i = 0; whole && i < c->n_choices; i++)
        whole = c->choices[i].seen && c->choices[i].finish.n;
    return whole;
}

void completion_put_id(const struct completion *c, struct buf *out)
{
    static const char prefix[] = "chatcmpl-";
    struct str id = buf_str(&c->id);
    size_t from = str_starts(id, prefix) ? sizeof prefix - 1 : 0;
    for (size_t i = from; i < id.n; i++)
        if (id.p[i] > ' ' && id.p[i] < 0x7f && id.p[i] != '"' && id.p[i] != '\\')
            (void)buf_append(out, &id.p[i], 1);
}

/* ---- the end ---- */

static size_t choice_bytes(const struct completion_choice *o)
{
    size_t n = o->role.cap + o->content.cap + o->reasoning.cap + o->refusal.cap + o->finish.cap + o->stop.cap;
    for (uint32_t i = 0; i < o->n_calls; i++) {
        const struct completion_call *call = &o->calls[i];
        n += sizeof *call + call->id.cap + call->type.cap + call->name.cap + call->arguments.cap;
    }
    return n;
}

size_t completion_bytes(const struct completion *c)
{
    size_t n = c->n_choices * sizeof *c->choices + c->usage.cap + c->timings.cap + c->id.cap + c->model.cap +
               c->fingerprint.cap;
    for (uint32_t i = 0; i < c->n_choices; i++)
        n += choice_bytes(&c->choices[i]);
    return n;
}

static void release_choice(struct completion_choice *o)
{
    for (uint32_t i = 0; i < o->n_calls; i++) {
        struct completion_call *call = &o->calls[i];
        struct buf *const parts[] = {&call->id, &call->type, &call->name, &call->arguments};
        for (size_t k = 0; k < TABLE_COUNT(parts); k++)
            buf_release(parts[k]);
    }
    free(o->calls);
    struct buf *const parts[] = {&o->role, &o->content, &o->reasoning, &o->refusal, &o->finish, &o->stop};
    for (size_t k = 0; k < TABLE_COUNT(parts); k++)
        buf_release(parts[k]);
}

void completion_release(struct completion *c)
{
    for (uint32_t i = 0; i < c->n_choices; i++)
        release_choice(&c->choices[i]);
    free(c->choices);
    struct buf *const parts[] = {&c->id, &c->model, &c->fingerprint, &c->usage, &c->timings};
    for (size_t k = 0; k < TABLE_COUNT(parts); k++)
        buf_release(parts[k]);
    c->choices = NULL;
    c->n_choices = 0;
}
