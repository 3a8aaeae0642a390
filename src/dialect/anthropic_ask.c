/* A request of Anthropic's in OpenAI's words. Layer dialect; pure.
 *
 * What has no counterpart is refused by name where the answer would be another one without it (tools that run
 * at Anthropic, documents), and left out where it only concerns Anthropic's service (tiers, cache marks). */
#include "dialect/anthropic_priv.h"

#include "base/mem.h"
#include "dialect/rewrite.h"

#include <stdlib.h>
#include <string.h>

/* ---- blocks ---- */

static struct str text_of(yyjson_val *obj, const char *key)
{
    return json_str(obj, key, (struct str){"", 0});
}

static bool is_type(yyjson_val *block, const char *type)
{
    return str_eq_c(text_of(block, "type"), type);
}

static bool unknown_block(struct rewrite *w, yyjson_val *block)
{
    struct str type = text_of(block, "type");
    if (!type.n)
        return rewrite_bad(w, "a block with a type is expected");
    return rewrite_bad(w, "blocks of type \"%.*s\" are not supported here", (int)(type.n < 60 ? type.n : 60),
                       type.p);
}

/* Text blocks and nothing else, or a string, as one text. */
static bool join_text(struct rewrite *w, yyjson_val *content, struct buf *out)
{
    size_t i, n;
    yyjson_val *block;
    if (yyjson_is_str(content))
        return buf_put_str(out, rewrite_str(content));
    if (!yyjson_is_arr(content))
        return rewrite_bad(w, "a text or a list of blocks is expected");
    yyjson_arr_foreach(content, i, n, block)
    {
        if (!is_type(block, "text"))
            return unknown_block(w, block);
        (void)buf_puts(out, i ? "\n" : "");
        (void)buf_put_str(out, text_of(block, "text"));
    }
    return true;
}

static bool put_image(struct rewrite *w, yyjson_mut_val *parts, yyjson_val *block)
{
    yyjson_val *source = yyjson_obj_get(block, "source");
    struct str type = text_of(source, "type"), data = text_of(source, "data");
    if (str_eq_c(type, "url")) {
        rewrite_image_part(w, parts, text_of(source, "url"));
        return true;
    }
    if (!str_eq_c(type, "base64") || !data.n)
        return rewrite_bad(w, "the source of an image is \"base64\" with data, or \"url\"");
    struct buf url = {0};
    (void)buf_puts(&url, "data:");
    (void)buf_put_str(&url, text_of(source, "media_type"));
    (void)buf_puts(&url, ";base64,");
    (void)buf_put_str(&url, data);
    rewrite_image_part(w, parts, buf_str(&url));
    buf_release(&url);
    return true;
}

/* A text is a part; so is a document that is plain text. */
static bool put_part(struct rewrite *w, yyjson_mut_val *parts, yyjson_val *block)
{
    if (is_type(block, "text")) {
        rewrite_text_part(w, parts, text_of(block, "text"));
        return true;
    }
    if (is_type(block, "image"))
        return put_image(w, parts, block);
    yyjson_val *source = yyjson_obj_get(block, "source");
    if (is_type(block, "document") && is_type(source, "text")) {
        rewrite_text_part(w, parts, text_of(source, "data"));
        return true;
    }
    return unknown_block(w, block);
}

/* ---- messages of the user ---- */

/* A tool's result is a message of its own; its images, which such a message cannot hold, go to the user's. */
static bool put_result(struct rewrite *w, yyjson_mut_val *parts, yyjson_val *block)
{
    yyjson_val *content = yyjson_obj_get(block, "content"), *inner;
    struct buf text = {0};
    bool ok = true;
    size_t i, n;
    if (yyjson_is_str(content)) {
        (void)buf_put_str(&text, rewrite_str(content));
    } else {
        yyjson_arr_foreach(content, i, n, inner)
        {
            if (is_type(inner, "text")) {
                (void)buf_puts(&text, text.n ? "\n" : "");
                (void)buf_put_str(&text, text_of(inner, "text"));
            } else if (ok) {
                ok = put_part(w, parts, inner);
            }
        }
    }
    yyjson_mut_val *m = rewrite_message(w, "tool");
    rewrite_put_str(w, m, "tool_call_id", text_of(block, "tool_use_id"));
    rewrite_put_str(w, m, "content", buf_str(&text));
    buf_release(&text);
    return ok;
}

/* Results first: they belong right behind the calls that they answer. */
static bool put_user(struct rewrite *w, size_t at, yyjson_val *content)
{
    size_t i, n;
    yyjson_val *block;
    if (yyjson_is_str(content)) {
        rewrite_put(w, rewrite_message(w, "user"), "content", content);
        return true;
    }
    if (!yyjson_is_arr(content))
        return rewrite_bad(w, "a text or a list of blocks is expected");
    yyjson_mut_val *parts = yyjson_mut_arr(w->doc);
    for (int results = 1; results >= 0; results--)
        yyjson_arr_foreach(content, i, n, block)
        {
            rewrite_at(w, "messages.%zu.content.%zu", at, i);
            if (is_type(block, "tool_result") != results)
                continue;
            if (!(results ? put_result : put_part)(w, parts, block))
                return false;
        }
    if (yyjson_mut_arr_size(parts))
        yyjson_mut_obj_add_val(w->doc, rewrite_message(w, "user"), "content", parts);
    return true;
}

/* ---- messages of the assistant ---- */

struct said {
    struct buf text, thought;
    yyjson_mut_val *calls;
};

static bool put_use(struct rewrite *w, struct said *s, yyjson_val *block)
{
    yyjson_val *input = yyjson_obj_get(block, "input");
    size_t n = 0;
    char *arguments = yyjson_is_obj(input) ? yyjson_val_write(input, YYJSON_WRITE_NOFLAG, &n) : NULL;
    struct str text = arguments ? (struct str){arguments, n} : STR("{}");
    rewrite_tool_call(w, s->calls, text_of(block, "id"), text_of(block, "name"), text);
    free(arguments);
    return true;
}

static bool put_said(struct rewrite *w, struct said *s, yyjson_val *block)
{
    if (is_type(block, "text")) {
        (void)buf_puts(&s->text, s->text.n ? "\n" : "");
        return buf_put_str(&s->text, text_of(block, "text"));
    }
    if (is_type(block, "thinking"))
        return buf_put_str(&s->thought, text_of(block, "thinking"));
    if (is_type(block, "tool_use"))
        return put_use(w, s, block);
    return is_type(block, "redacted_thinking") || unknown_block(w, block);
}

static bool put_assistant(struct rewrite *w, size_t at, yyjson_val *content)
{
    size_t i, n;
    yyjson_val *block;
    if (yyjson_is_str(content)) {
        rewrite_put(w, rewrite_message(w, "assistant"), "content", content);
        return true;
    }
    if (!yyjson_is_arr(content))
        return rewrite_bad(w, "a text or a list of blocks is expected");
    struct said s = {.calls = yyjson_mut_arr(w->doc)};
    bool ok = true;
    yyjson_arr_foreach(content, i, n, block)
    {
        rewrite_at(w, "messages.%zu.content.%zu", at, i);
        if (ok)
            ok = put_said(w, &s, block);
    }
    yyjson_mut_val *m = rewrite_message(w, "assistant");
    rewrite_put_str(w, m, "content", buf_str(&s.text));
    if (s.thought.n)
        rewrite_put_str(w, m, "reasoning_content", buf_str(&s.thought));
    if (yyjson_mut_arr_size(s.calls))
        yyjson_mut_obj_add_val(w->doc, m, "tool_calls", s.calls);
    buf_release(&s.text);
    buf_release(&s.thought);
    return ok;
}

/* ---- members ---- */

static bool put_system(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    struct buf text = {0};
    bool ok = join_text(w, v, &text);
    if (ok && text.n)
        rewrite_put_str(w, rewrite_message(w, "system"), "content", buf_str(&text));
    buf_release(&text);
    return ok;
}

static bool put_messages(struct rewrite *w, const char *name, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *m;
    if (!yyjson_is_arr(v) || !yyjson_arr_size(v))
        return rewrite_bad(w, "a list of at least one message is expected");
    yyjson_arr_foreach(v, i, n, m)
    {
        yyjson_val *content = yyjson_obj_get(m, "content");
        struct str role = text_of(m, "role");
        rewrite_at(w, "messages.%zu", i);
        bool ok = false;
        if (str_eq_c(role, "user"))
            ok = put_user(w, i, content);
        else if (str_eq_c(role, "assistant"))
            ok = put_assistant(w, i, content);
        else if (str_eq_c(role, "system"))
            ok = put_system(w, name, content);
        else
            rewrite_bad(w, "its role is \"user\" or \"assistant\"");
        if (!ok)
            return false;
    }
    return true;
}

static bool put_max_tokens(struct rewrite *w, const char *name, yyjson_val *v)
{
    if (!yyjson_is_uint(v) || !yyjson_get_uint(v))
        return rewrite_bad(w, "a whole number of at least 1 is expected");
    rewrite_put(w, w->root, name, v);
    return true;
}

/* Which tool alone may be called; empty = any. */
static struct str forced_tool(yyjson_val *body)
{
    yyjson_val *choice = yyjson_obj_get(body, "tool_choice");
    return is_type(choice, "tool") ? text_of(choice, "name") : (struct str){"", 0};
}

static bool put_tools(struct rewrite *w, const char *name, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *tool;
    struct str only = forced_tool(w->body);
    if (!yyjson_is_arr(v))
        return rewrite_bad(w, "a list of tools is expected");
    if (!yyjson_arr_size(v))
        return true;
    yyjson_mut_val *tools = yyjson_mut_obj_add_arr(w->doc, w->root, name);
    yyjson_arr_foreach(v, i, n, tool)
    {
        struct str type = text_of(tool, "type"), tool_name = text_of(tool, "name");
        rewrite_at(w, "tools.%zu", i);
        if (type.n && !str_eq_c(type, "custom"))
            return rewrite_bad(w, "\"%.*s\" is a tool of Anthropic's service; only custom ones work here",
                               (int)(type.n < 60 ? type.n : 60), type.p);
        if (!tool_name.n || !yyjson_is_obj(yyjson_obj_get(tool, "input_schema")))
            return rewrite_bad(w, "a tool has a name and an input_schema");
        if (!only.n || str_eq(only, tool_name))
            rewrite_tool(w, tools, tool_name, yyjson_obj_get(tool, "description"),
                         yyjson_obj_get(tool, "input_schema"));
    }
    return !only.n || yyjson_mut_arr_size(tools) || rewrite_bad(w, "tool_choice names none of them");
}

/* One tool alone is asked for by leaving the others out: every backend knows "required", few know names. */
static bool put_tool_choice(struct rewrite *w, const char *name, yyjson_val *v)
{
    static const struct {
        const char *type, *word;
    } words[] = {{"auto", "auto"}, {"any", "required"}, {"tool", "required"}, {"none", "none"}};
    const char *word = NULL;
    for (size_t i = 0; i < TABLE_COUNT(words); i++)
        if (is_type(v, words[i].type))
            word = words[i].word;
    if (!word)
        return rewrite_bad(w, "its type is \"auto\", \"any\", \"tool\" or \"none\"");
    yyjson_mut_obj_add_str(w->doc, w->root, name, word);
    if (json_bool(v, "disable_parallel_tool_use", false))
        yyjson_mut_obj_add_bool(w->doc, w->root, "parallel_tool_calls", false);
    return true;
}

static bool put_stops(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    size_t i, n;
    yyjson_val *stop;
    struct anthropic *a = w->ask->state;
    if (!yyjson_is_arr(v))
        return rewrite_bad(w, "a list of texts is expected");
    yyjson_arr_foreach(v, i, n, stop)
    {
        struct str text = rewrite_str(stop);
        if (!yyjson_is_str(stop))
            return rewrite_bad(w, "a list of texts is expected");
        (void)buf_append(&a->stops, text.p, strnlen(text.p, text.n));
        (void)buf_append(&a->stops, "", 1);
    }
    if (yyjson_arr_size(v))
        rewrite_put(w, w->root, "stop", v);
    return true;
}

static bool put_metadata(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    yyjson_val *user = yyjson_obj_get(v, "user_id");
    if (yyjson_is_str(user))
        rewrite_put(w, w->root, "user", user);
    return true;
}

/* Templates that can be told to think or not have a switch of this name. */
static bool put_thinking(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    yyjson_val *budget = yyjson_obj_get(v, "budget_tokens");
    bool off = is_type(v, "disabled");
    if (!off && !is_type(v, "enabled") && !is_type(v, "adaptive"))
        return rewrite_bad(w, "its type is \"enabled\", \"adaptive\" or \"disabled\"");
    yyjson_mut_val *kwargs = yyjson_mut_obj_add_obj(w->doc, w->root, "chat_template_kwargs");
    yyjson_mut_obj_add_bool(w->doc, kwargs, "enable_thinking", !off);
    if (yyjson_is_uint(budget) && w->terms->speaks & DIALECT_BIT(LLAMACPP))
        rewrite_put(w, w->root, "thinking_budget_tokens", budget);
    return true;
}

static bool put_output(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    yyjson_val *format = yyjson_obj_get(v, "format");
    if (!format || yyjson_is_null(format))
        return true;
    if (!is_type(format, "json_schema") || !yyjson_is_obj(yyjson_obj_get(format, "schema")))
        return rewrite_bad(w, "its format is of type \"json_schema\" and has a schema");
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(w->doc, w->root, "response_format");
    yyjson_mut_obj_add_str(w->doc, o, "type", "json_schema");
    yyjson_mut_val *schema = yyjson_mut_obj_add_obj(w->doc, o, "json_schema");
    yyjson_mut_obj_add_str(w->doc, schema, "name", "answer");
    yyjson_mut_obj_add_bool(w->doc, schema, "strict", true);
    rewrite_put(w, schema, "schema", yyjson_obj_get(format, "schema"));
    return true;
}

static bool put_servers(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    return !yyjson_arr_size(v) || rewrite_bad(w, "tools of other servers are called by the client, not here");
}

static const struct rewrite_member members[] = {
    {"max_tokens", put_max_tokens, true}, {"model", NULL, false},
    {"stream", rewrite_stream, false},    {"stream_options", NULL, false},
    {"system", put_system, false},        {"messages", put_messages, true},
    {"tools", put_tools, false},          {"tool_choice", put_tool_choice, false},
    {"stop_sequences", put_stops, false}, {"temperature", rewrite_number, false},
    {"top_p", rewrite_number, false},     {"top_k", rewrite_number, false},
    {"metadata", put_metadata, false},    {"thinking", put_thinking, false},
    {"output_config", put_output, false}, {"mcp_servers", put_servers, false},
    {"cache_control", NULL, false},       {"container", NULL, false},
    {"context_management", NULL, false},  {"inference_geo", NULL, false},
    {"service_tier", NULL, false},        {"speed", NULL, false},
};

/* Counting needs no limit: the table without its first row. */
static enum rc ask(const struct dialect_terms *terms, yyjson_val *body, size_t from, struct dialect_ask *ret,
                   struct err *err)
{
    struct rewrite w;
    struct anthropic *a = mem_new(struct anthropic);
    ret->state = a;
    (void)buf_put_str(&a->model, terms->model);
    enum rc rc = rewrite_init(&w, terms, body, ret, err);
    if (rc != RC_OK)
        return rc;
    w.messages = yyjson_mut_obj_add_arr(w.doc, w.root, "messages");
    return rewrite_end(&w, rewrite_members(&w, members + from, TABLE_COUNT(members) - from));
}

enum rc anthropic_ask(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                      struct err *err)
{
    ret->path = "/v1/chat/completions";
    ret->reply = DIALECT_EVENTS;
    return ask(terms, body, 0, ret, err);
}

enum rc anthropic_ask_count(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                            struct err *err)
{
    if (!(terms->speaks & DIALECT_BIT(LLAMACPP))) {
        enum rc rc = err_set(err, RC_UNSUPPORTED, "the backend of this model cannot count tokens beforehand");
        err_hint(err, "the usage of an answer tells them; llama-server can count");
        return rc;
    }
    ret->path = "/apply-template";
    ret->reply = DIALECT_DOCUMENT;
    enum rc rc = ask(terms, body, 1, ret, err);
    ret->stream = false;
    return rc;
}
