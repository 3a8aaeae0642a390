/* Ollama's requests as OpenAI's. Layer dialect; pure.
 *
 * Order of a body: first the sampling parameters, then what the call adds. A null is as good as no member.
 * What cannot be done is refused by its name; what is unknown is left out, as Ollama does. */
#include "base/mem.h"
#include "dialect/ollama.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static yyjson_val *member(yyjson_val *body, const char *name)
{
    yyjson_val *v = yyjson_obj_get(body, name);
    return yyjson_is_null(v) ? NULL : v;
}

static enum rc wrong(struct err *err, const char *name, const char *what)
{
    return err_set(err, RC_INVALID, "\"%s\" must be %s", name, what);
}

static enum rc read_text(yyjson_val *body, const char *name, struct str *ret, struct err *err)
{
    yyjson_val *v = member(body, name);
    if (v && !yyjson_is_str(v))
        return wrong(err, name, "a text");
    *ret = v ? (struct str){yyjson_get_str(v), yyjson_get_len(v)} : (struct str){"", 0};
    return RC_OK;
}

static enum rc read_flag(yyjson_val *body, const char *name, bool fallback, bool *ret, struct err *err)
{
    yyjson_val *v = member(body, name);
    if (v && !yyjson_is_bool(v))
        return wrong(err, name, "true or false");
    *ret = v ? yyjson_get_bool(v) : fallback;
    return RC_OK;
}

static bool is_empty_list(yyjson_val *v)
{
    return !v || (yyjson_is_arr(v) && yyjson_arr_size(v) == 0);
}

/* ---- how long the model stays ---- */

static const struct {
    const char *unit;
    double ms;
} units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"\xc2\xb5s", 1e-3}, {"\xce\xbcs", 1e-3},
             {"ms", 1},    {"s", 1e3},   {"m", 6e4},          {"h", 3.6e6}};

/* A number at the start of *s, which is cut off; false if there is none. */
static bool cut_number(struct str *s, double *ret)
{
    size_t n = 0;
    while (n < s->n && (isdigit((unsigned char)s->p[n]) || s->p[n] == '.'))
        n++;
    if (!str_double((struct str){s->p, n}, ret))
        return false;
    *s = (struct str){s->p + n, s->n - n};
    return true;
}

static bool cut_unit(struct str *s, double *ret_ms)
{
    for (size_t i = 0; i < TABLE_COUNT(units); i++) {
        size_t n = strlen(units[i].unit);
        /* "m" is no unit where "ms" stands: the table has the longer ones first */
        if (s->n >= n && memcmp(s->p, units[i].unit, n) == 0) {
            *s = (struct str){s->p + n, s->n - n};
            *ret_ms = units[i].ms;
            return true;
        }
    }
    return false;
}

/* Go's form ("1h30m", "-1s", "0"), or seconds without a unit. */
static bool read_duration(struct str s, double *ret_ms)
{
    double sum = 0, number, unit;
    bool minus = s.n > 0 && s.p[0] == '-';
    if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+'))
        s = (struct str){s.p + 1, s.n - 1};
    if (s.n == 0 || s.n > 64)
        return false;
    if (str_double(s, &number) && isdigit((unsigned char)s.p[s.n - 1])) {
        *ret_ms = (minus ? -number : number) * 1e3;
        return true;
    }
    while (s.n > 0) {
        if (!cut_number(&s, &number) || !cut_unit(&s, &unit))
            return false;
        sum += number * unit;
    }
    *ret_ms = minus ? -sum : sum;
    return true;
}

static enum rc read_keep(yyjson_val *body, struct dialect_wish *wish, struct err *err)
{
    yyjson_val *v = member(body, "keep_alive");
    double ms = 0;
    if (!v)
        return RC_OK;
    bool fine = true;
    if (yyjson_is_num(v))
        ms = yyjson_get_num(v) * 1e3;
    else
        fine = yyjson_is_str(v) && read_duration((struct str){yyjson_get_str(v), yyjson_get_len(v)}, &ms);
    if (!fine || !isfinite(ms))
        return wrong(err, "keep_alive", "a number of seconds or a duration like \"5m\"; -1 = for ever");
    wish->keep_given = true;
    wish->keep_ms = ms < 0 || ms > 9e15 ? -1 : (int64_t)ms;
    return RC_OK;
}

/* ---- options ---- */

enum option_kind { INT, POSITIVE, REAL, TEXTS, CONTEXT, LOAD };

static const struct option {
    const char *name;
    enum option_kind kind;
    const char *becomes;
} options[] = {
#define OPTION(name, kind, becomes) {name, kind, becomes},
#include "dialect/ollama_options.def"
#undef OPTION
};

static enum rc wrong_option(const struct option *o, const char *what, struct err *err)
{
    return err_set(err, RC_INVALID, "option \"%s\" must be %s", o->name, what);
}

static bool is_texts(yyjson_val *v)
{
    size_t i, n;
    yyjson_val *item;
    if (yyjson_is_str(v))
        return true;
    if (!yyjson_is_arr(v))
        return false;
    yyjson_arr_foreach(v, i, n, item)
    {
        if (!yyjson_is_str(item))
            return false;
    }
    return true;
}

static enum rc put_number(const struct option *o, yyjson_val *v, struct dialect_ask *ret, struct err *err)
{
    double number = yyjson_get_num(v);
    if (!yyjson_is_num(v) || (o->kind != REAL && !(fabs(number) < 9e15)))
        return wrong_option(o, o->kind == REAL ? "a number" : "a whole number", err);
    if (o->kind == CONTEXT) {
        ret->wish.context = number > 0 ? (uint64_t)number : 0;
    } else if (o->kind == REAL) {
        ollama_member(&ret->body, o->becomes);
        ollama_put_value(&ret->body, v);
    } else if (o->kind == INT || (o->kind == POSITIVE && number >= 1)) {
        ollama_member(&ret->body, o->becomes);
        (void)buf_printf(&ret->body, "%" PRId64, (int64_t)number);
    }
    return RC_OK;
}

static enum rc put_option(const struct option *o, yyjson_val *v, struct dialect_ask *ret, struct err *err)
{
    if (o->kind != TEXTS)
        return put_number(o, v, ret, err);
    if (!is_texts(v))
        return wrong_option(o, "a list of texts", err);
    ollama_member(&ret->body, o->becomes);
    ollama_put_value(&ret->body, v);
    return RC_OK;
}

static enum rc put_options(yyjson_val *body, struct dialect_ask *ret, struct err *err)
{
    yyjson_val *given = member(body, "options");
    if (given && !yyjson_is_obj(given))
        return wrong(err, "options", "an object");
    for (size_t i = 0; given && i < TABLE_COUNT(options); i++) {
        yyjson_val *v = member(given, options[i].name);
        enum rc rc = v ? put_option(&options[i], v, ret, err) : RC_OK;
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

/* ---- what chat and generate have in common ---- */

static enum rc put_format(yyjson_val *body, struct buf *out, struct err *err)
{
    yyjson_val *v = member(body, "format");
    if (!v || (yyjson_is_str(v) && yyjson_get_len(v) == 0))
        return RC_OK;
    bool any = yyjson_is_str(v) && strcmp(yyjson_get_str(v), "json") == 0;
    if (!any && !yyjson_is_obj(v))
        return wrong(err, "format", "\"json\" or a JSON schema");
    ollama_member(out, "response_format");
    if (any) {
        (void)buf_puts(out, "{\"type\":\"json_object\"}");
        return RC_OK;
    }
    (void)buf_puts(
        out, "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true,\"schema\":");
    ollama_put_value(out, v);
    (void)buf_puts(out, "}}");
    return RC_OK;
}

/* Templates know these two words: whether to think, and how hard. */
static enum rc put_think(yyjson_val *body, struct buf *out, struct err *err)
{
    static const struct {
        const char *word, *effort;
    } levels[] = {{"low", "low"}, {"medium", "medium"}, {"high", "high"}, {"max", "high"}};
    yyjson_val *v = member(body, "think");
    const char *effort = NULL;
    for (size_t i = 0; yyjson_is_str(v) && i < TABLE_COUNT(levels); i++)
        if (strcmp(yyjson_get_str(v), levels[i].word) == 0)
            effort = levels[i].effort;
    if (!v)
        return RC_OK;
    if (!effort && !yyjson_is_bool(v))
        return wrong(err, "think", "true, false, \"low\", \"medium\", \"high\" or \"max\"");
    ollama_member(out, "chat_template_kwargs");
    (void)buf_printf(out, "{\"enable_thinking\":%s", effort || yyjson_get_bool(v) ? "true" : "false");
    if (effort)
        (void)buf_printf(out, ",\"reasoning_effort\":\"%s\"", effort);
    (void)buf_puts(out, "}");
    return RC_OK;
}

static enum rc refuse_logprobs(yyjson_val *body, struct err *err)
{
    bool wanted;
    enum rc rc = read_flag(body, "logprobs", false, &wanted, err);
    if (rc != RC_OK || !wanted)
        return rc;
    rc = err_set(err, RC_UNSUPPORTED, "\"logprobs\" are not answered here");
    err_hint(err, "ask /v1/chat/completions for them");
    return rc;
}

static struct ollama *remember(const struct dialect_terms *terms, struct dialect_ask *ret)
{
    struct ollama *o = mem_new(struct ollama);
    (void)snprintf(o->model, sizeof o->model, "%.*s", STR_ARG(terms->model));
    ret->state = o;
    return o;
}

/* What all requests begin with. The body is an object from here on; its last brace comes at the end. */
static enum rc begin(yyjson_val *body, struct dialect_ask *ret, struct err *err)
{
    (void)buf_puts(&ret->body, "{");
    enum rc rc = read_keep(body, &ret->wish, err);
    return rc == RC_OK ? put_options(body, ret, err) : rc;
}

static enum rc begin_text(yyjson_val *body, struct dialect_ask *ret, struct err *err)
{
    enum rc rc;
    ret->reply = DIALECT_EVENTS;
    if ((rc = read_flag(body, "stream", true, &ret->stream, err)) || (rc = refuse_logprobs(body, err)) ||
        (rc = begin(body, ret, err)))
        return rc;
    return put_format(body, &ret->body, err);
}

/* Nothing is asked for: the model is loaded, or leaves. */
static enum rc ask_nothing(struct ollama *o, struct dialect_ask *ret)
{
    o->unload = ret->wish.keep_given && ret->wish.keep_ms == 0;
    o->load = !o->unload;
    ret->wish.leave = o->unload;
    ret->reply = DIALECT_NOTHING;
    ret->stream = false;
    (void)buf_puts(&ret->body, "}");
    return RC_OK;
}

/* ---- the calls ---- */

enum rc ollama_ask_chat(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                        struct err *err)
{
    struct ollama *o = remember(terms, ret);
    yyjson_val *messages = member(body, "messages"), *tools = member(body, "tools");
    enum rc rc = begin_text(body, ret, err);
    if (rc != RC_OK)
        return rc;
    if (is_empty_list(messages))
        return ask_nothing(o, ret);
    if (!yyjson_is_arr(messages))
        return wrong(err, "messages", "a list of messages");
    if (tools && !yyjson_is_arr(tools))
        return wrong(err, "tools", "a list of tools");
    ret->path = "/v1/chat/completions";
    if ((rc = put_think(body, &ret->body, err)) || (rc = ollama_put_messages(messages, &ret->body, err)))
        return rc;
    if (!is_empty_list(tools)) {
        ollama_member(&ret->body, "tools");
        ollama_put_value(&ret->body, tools);
    }
    (void)buf_puts(&ret->body, "}");
    return RC_OK;
}

static enum rc refuse_old_members(yyjson_val *body, struct err *err)
{
    struct str template;
    enum rc rc = read_text(body, "template", &template, err);
    if (rc != RC_OK)
        return rc;
    if (template.n) {
        rc = err_set(err, RC_UNSUPPORTED, "a \"template\" of the request is not applied");
        err_hint(err,
                 "send the whole text as \"prompt\" with \"raw\":true, or leave the template to the model");
    } else if (!is_empty_list(member(body, "context"))) {
        rc = err_set(err, RC_UNSUPPORTED, "\"context\" of an earlier answer is not known here");
        err_hint(err, "send the conversation as messages to /api/chat");
    }
    return rc;
}

static void put_text(struct buf *out, const char *name, struct str text)
{
    ollama_member(out, name);
    (void)buf_put_json(out, text);
}

/* A prompt as it is, or one with a hole behind it. */
static enum rc put_raw(struct str prompt, struct str suffix, yyjson_val *images, struct dialect_ask *ret,
                       struct err *err)
{
    if (!is_empty_list(images))
        return err_set(err, RC_UNSUPPORTED, "\"images\" do not go with \"raw\" or \"suffix\"");
    if (suffix.n) {
        ret->path = "/infill";
        ret->reply = DIALECT_DOCUMENT;
        put_text(&ret->body, "input_prefix", prompt);
        put_text(&ret->body, "input_suffix", suffix);
    } else {
        ret->path = "/v1/completions";
        put_text(&ret->body, "prompt", prompt);
    }
    return RC_OK;
}

enum rc ollama_ask_generate(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                            struct err *err)
{
    struct ollama *o = remember(terms, ret);
    yyjson_val *images = member(body, "images");
    struct str prompt, suffix, system;
    bool raw;
    enum rc rc = begin_text(body, ret, err);
    o->generate = true;
    if (rc || (rc = read_text(body, "prompt", &prompt, err)) ||
        (rc = read_text(body, "suffix", &suffix, err)) || (rc = read_text(body, "system", &system, err)) ||
        (rc = read_flag(body, "raw", false, &raw, err)) || (rc = refuse_old_members(body, err)))
        return rc;
    if (!prompt.n && !suffix.n && is_empty_list(images))
        return ask_nothing(o, ret);
    if (raw || suffix.n) {
        rc = put_raw(prompt, suffix, images, ret, err);
    } else {
        ret->path = "/v1/chat/completions";
        rc = put_think(body, &ret->body, err);
        if (rc == RC_OK)
            rc = ollama_put_prompt(system, prompt, images, &ret->body, err);
    }
    (void)buf_puts(&ret->body, "}");
    return rc;
}

static enum rc begin_embedding(yyjson_val *body, struct dialect_ask *ret, struct err *err)
{
    ret->reply = DIALECT_DOCUMENT;
    ret->path = "/v1/embeddings";
    enum rc rc = read_keep(body, &ret->wish, err);
    yyjson_val *given = member(body, "options"), *context = member(given, "num_ctx");
    if (rc == RC_OK && yyjson_is_num(context) && yyjson_get_num(context) > 0 &&
        yyjson_get_num(context) < 9e15)
        ret->wish.context = (uint64_t)yyjson_get_num(context);
    return rc;
}

static enum rc take_inputs(yyjson_val *input, struct dialect_ask *ret, struct err *err)
{
    ret->embed = embed_ask_new(input, NULL);
    if (!ret->embed || !buf_puts(&ret->embed->rest, "\"encoding_format\":\"float\","))
        return err_set(err, RC_NOMEM, "there is no memory for the request's translation");
    return RC_OK;
}

enum rc ollama_ask_embed(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                         struct err *err)
{
    struct ollama *o = remember(terms, ret);
    yyjson_val *input = member(body, "input"), *dimensions = member(body, "dimensions");
    enum rc rc = begin_embedding(body, ret, err);
    if (rc != RC_OK)
        return rc;
    if (input && !is_texts(input))
        return wrong(err, "input", "a text or a list of texts");
    if (dimensions && !yyjson_is_uint(dimensions))
        return wrong(err, "dimensions", "a whole number");
    o->dimensions = yyjson_get_uint(dimensions);
    if (is_empty_list(input) || (yyjson_is_str(input) && yyjson_get_len(input) == 0))
        return ask_nothing(o, ret);
    return take_inputs(input, ret, err);
}

enum rc ollama_ask_embeddings(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                              struct err *err)
{
    struct ollama *o = remember(terms, ret);
    struct str prompt;
    enum rc rc = begin_embedding(body, ret, err);
    o->one = true;
    if (rc || (rc = read_text(body, "prompt", &prompt, err)))
        return rc;
    if (!prompt.n)
        return ask_nothing(o, ret);
    return take_inputs(member(body, "prompt"), ret, err);
}
