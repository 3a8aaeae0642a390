/* A request of the responses API in the words of chat completions. Layer dialect; pure.
 *
 * Items of the input become messages; calls that stand together, and what was thought and said before them,
 * become one message of the assistant. What needs a store, or tools that run elsewhere, is refused by name.
 */
#include "dialect/responses_priv.h"

#include "base/mem.h"
#include "dialect/rewrite.h"

#include <string.h>

/* The message of the assistant that the items before belong to; NULL = the next one begins anew. */
struct input {
    struct rewrite *w;
    yyjson_mut_val *assistant, *calls;
};

static struct str text_of(yyjson_val *obj, const char *key)
{
    return json_str(obj, key, (struct str){"", 0});
}

static bool is_type(yyjson_val *item, const char *type)
{
    return str_eq_c(text_of(item, "type"), type);
}

static bool unknown(struct rewrite *w, const char *what, yyjson_val *item)
{
    struct str type = text_of(item, "type");
    if (!type.n)
        return rewrite_bad(w, "%s with a type is expected", what);
    return rewrite_bad(w, "%s of type \"%.*s\" is not supported here", what, (int)(type.n < 60 ? type.n : 60),
                       type.p);
}

static yyjson_mut_val *assistant(struct input *in)
{
    if (!in->assistant) {
        in->assistant = rewrite_message(in->w, "assistant");
        in->calls = NULL;
    }
    return in->assistant;
}

/* ---- content ---- */

static bool is_text(yyjson_val *part)
{
    return is_type(part, "input_text") || is_type(part, "output_text") || is_type(part, "text") ||
           is_type(part, "reasoning_text") || is_type(part, "summary_text");
}

static bool put_part(struct rewrite *w, yyjson_mut_val *parts, yyjson_val *part)
{
    struct str url = text_of(part, "image_url");
    if (is_text(part))
        rewrite_text_part(w, parts, text_of(part, "text"));
    else if (is_type(part, "refusal"))
        rewrite_text_part(w, parts, text_of(part, "refusal"));
    else if (is_type(part, "input_image") && url.n)
        rewrite_image_part(w, parts, url);
    else if (is_type(part, "input_image"))
        return rewrite_bad(w, "an image needs an image_url: files are not stored here");
    else
        return unknown(w, "a part", part);
    return true;
}

static bool put_content(struct rewrite *w, yyjson_mut_val *message, yyjson_val *content)
{
    size_t i, n;
    yyjson_val *part;
    if (yyjson_is_str(content)) {
        rewrite_put(w, message, "content", content);
        return true;
    }
    if (!yyjson_is_arr(content))
        return rewrite_bad(w, "a text or a list of parts is expected as content");
    yyjson_mut_val *parts = yyjson_mut_obj_add_arr(w->doc, message, "content");
    yyjson_arr_foreach(content, i, n, part)
    {
        if (!put_part(w, parts, part))
            return false;
    }
    return true;
}

/* Texts of a list of parts, or a string, one behind the other. */
static void join_text(yyjson_val *v, struct buf *out)
{
    size_t i, n;
    yyjson_val *part;
    (void)buf_put_str(out, rewrite_str(v));
    yyjson_arr_foreach(v, i, n, part)
    {
        if (is_text(part))
            (void)buf_put_str(out, text_of(part, "text"));
    }
}

static bool put_joined(struct rewrite *w, yyjson_mut_val *message, const char *name, yyjson_val *v)
{
    struct buf text = {0};
    join_text(v, &text);
    rewrite_put_str(w, message, name, buf_str(&text));
    buf_release(&text);
    return true;
}

/* ---- items ---- */

static bool put_message(struct input *in, yyjson_val *item)
{
    static const struct {
        const char *role, *word;
    } roles[] = {{"user", "user"}, {"assistant", "assistant"}, {"system", "system"}, {"developer", "system"}};
    yyjson_val *content = yyjson_obj_get(item, "content");
    for (size_t i = 0; i < TABLE_COUNT(roles); i++) {
        if (!str_eq_c(text_of(item, "role"), roles[i].role))
            continue;
        bool says = !strcmp(roles[i].word, "assistant");
        bool goes_on = says && in->assistant && !in->calls && !yyjson_mut_obj_get(in->assistant, "content");
        if (!goes_on)
            in->assistant = NULL;
        yyjson_mut_val *m = says ? assistant(in) : rewrite_message(in->w, roles[i].word);
        return put_content(in->w, m, content);
    }
    return rewrite_bad(in->w, "its role is \"user\", \"assistant\", \"system\" or \"developer\"");
}

static bool put_reasoning(struct input *in, yyjson_val *item)
{
    in->assistant = NULL; /* it begins a turn */
    yyjson_val *content = yyjson_obj_get(item, "content");
    return put_joined(in->w, assistant(in), "reasoning_content",
                      yyjson_arr_size(content) ? content : yyjson_obj_get(item, "summary"));
}

static bool put_call(struct input *in, yyjson_val *item)
{
    yyjson_mut_val *m = assistant(in);
    if (!in->calls)
        in->calls = yyjson_mut_obj_add_arr(in->w->doc, m, "tool_calls");
    rewrite_tool_call(in->w, in->calls, text_of(item, "call_id"), text_of(item, "name"),
                      text_of(item, "arguments"));
    return true;
}

static bool put_output(struct input *in, yyjson_val *item)
{
    in->assistant = NULL;
    yyjson_mut_val *m = rewrite_message(in->w, "tool");
    rewrite_put_str(in->w, m, "tool_call_id", text_of(item, "call_id"));
    return put_joined(in->w, m, "content", yyjson_obj_get(item, "output"));
}

static const struct {
    const char *type;
    bool (*put)(struct input *in, yyjson_val *item);
} items[] = {{"message", put_message},
             {"reasoning", put_reasoning},
             {"function_call", put_call},
             {"function_call_output", put_output}};

static bool put_item(struct input *in, yyjson_val *item)
{
    if (!yyjson_obj_get(item, "type") && yyjson_obj_get(item, "role"))
        return put_message(in, item);
    for (size_t i = 0; i < TABLE_COUNT(items); i++)
        if (is_type(item, items[i].type))
            return items[i].put(in, item);
    return unknown(in->w, "an item", item);
}

/* ---- members ---- */

static bool put_instructions(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    return put_content(w, rewrite_message(w, "system"), v);
}

static bool put_input(struct rewrite *w, const char *name, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *item;
    struct input in = {.w = w};
    if (yyjson_is_str(v))
        return put_content(w, rewrite_message(w, "user"), v);
    if (!yyjson_is_arr(v))
        return rewrite_bad(w, "a text or a list of items is expected");
    yyjson_arr_foreach(v, i, n, item)
    {
        rewrite_at(w, "%s.%zu", name, i);
        if (!put_item(&in, item))
            return false;
    }
    return true;
}

static bool put_limit(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (!yyjson_is_uint(v) || !yyjson_get_uint(v))
        return rewrite_bad(w, "a whole number of at least 1 is expected");
    rewrite_put(w, w->root, "max_tokens", v);
    return true;
}

static struct str forced_tool(yyjson_val *body)
{
    yyjson_val *choice = yyjson_obj_get(body, "tool_choice");
    return is_type(choice, "function") ? text_of(choice, "name") : (struct str){"", 0};
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
        struct str tool_name = text_of(tool, "name");
        rewrite_at(w, "%s.%zu", name, i);
        if (!is_type(tool, "function"))
            return unknown(w, "a tool", tool);
        if (!tool_name.n)
            return rewrite_bad(w, "a function has a name");
        if (!only.n || str_eq(only, tool_name))
            rewrite_tool(w, tools, tool_name, yyjson_obj_get(tool, "description"),
                         yyjson_obj_get(tool, "parameters"));
    }
    return !only.n || yyjson_mut_arr_size(tools) || rewrite_bad(w, "tool_choice names none of them");
}

/* One tool alone is asked for by leaving the others out: every backend knows "required", few know names. */
static bool put_tool_choice(struct rewrite *w, const char *name, yyjson_val *v)
{
    struct str word = rewrite_str(v);
    if (is_type(v, "function"))
        yyjson_mut_obj_add_str(w->doc, w->root, name, "required");
    else if (str_eq_c(word, "auto") || str_eq_c(word, "none") || str_eq_c(word, "required"))
        rewrite_put(w, w->root, name, v);
    else
        return rewrite_bad(w, "\"auto\", \"none\", \"required\" or a function is expected");
    return true;
}

static bool put_text(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    yyjson_val *format = yyjson_obj_get(v, "format");
    if (!format || yyjson_is_null(format) || is_type(format, "text"))
        return true;
    if (!is_type(format, "json_object") && !is_type(format, "json_schema"))
        return rewrite_bad(w, "its format is of type \"text\", \"json_object\" or \"json_schema\"");
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(w->doc, w->root, "response_format");
    rewrite_put(w, o, "type", yyjson_obj_get(format, "type"));
    if (is_type(format, "json_schema")) {
        static const char *const members[] = {"name", "schema", "strict"};
        yyjson_mut_val *schema = yyjson_mut_obj_add_obj(w->doc, o, "json_schema");
        for (size_t i = 0; i < TABLE_COUNT(members); i++)
            if (yyjson_obj_get(format, members[i]))
                rewrite_put(w, schema, members[i], yyjson_obj_get(format, members[i]));
    }
    return true;
}

static bool put_reasoning_effort(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (yyjson_is_str(yyjson_obj_get(v, "effort")))
        rewrite_put(w, w->root, "reasoning_effort", yyjson_obj_get(v, "effort"));
    return true;
}

static bool refuse_store(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    (void)v;
    return rewrite_bad(w, "answers are not stored here; send the whole conversation in \"input\"");
}

static bool refuse_background(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    return !yyjson_get_bool(v) || rewrite_bad(w, "answers are not stored here, so none can be fetched later");
}

static const struct rewrite_member members[] = {
    {"instructions", put_instructions, false},
    {"input", put_input, true},
    {"model", NULL, false},
    {"stream", rewrite_stream, false},
    {"stream_options", NULL, false},
    {"max_output_tokens", put_limit, false},
    {"temperature", rewrite_number, false},
    {"top_p", rewrite_number, false},
    {"tools", put_tools, false},
    {"tool_choice", put_tool_choice, false},
    {"parallel_tool_calls", rewrite_boolean, false},
    {"text", put_text, false},
    {"reasoning", put_reasoning_effort, false},
    {"previous_response_id", refuse_store, false},
    {"conversation", refuse_store, false},
    {"prompt", refuse_store, false},
    {"background", refuse_background, false},
    {"include", NULL, false},
    {"metadata", NULL, false},
    {"prompt_cache_key", NULL, false},
    {"safety_identifier", NULL, false},
    {"service_tier", NULL, false},
    {"store", NULL, false},
    {"top_logprobs", NULL, false},
    {"truncation", NULL, false},
};

/* Members of the request that an answer repeats, and what it says where they were not given. */
static const struct {
    const char *name, *otherwise;
} repeated[] = {
    {"instructions", "null"},
    {"max_output_tokens", "null"},
    {"metadata", "{}"},
    {"parallel_tool_calls", "true"},
    {"reasoning", "null"},
    {"temperature", "null"},
    {"text", "{\"format\":{\"type\":\"text\"}}"},
    {"tool_choice", "\"auto\""},
    {"tools", "[]"},
    {"top_p", "null"},
};

static void keep_echo(struct responses *r, yyjson_val *body)
{
    for (size_t i = 0; i < TABLE_COUNT(repeated); i++) {
        yyjson_val *v = yyjson_obj_get(body, repeated[i].name);
        char *text = v && !yyjson_is_null(v) ? yyjson_val_write(v, YYJSON_WRITE_NOFLAG, NULL) : NULL;
        (void)buf_puts(&r->echo, ",");
        (void)buf_put_json(&r->echo, str_from(repeated[i].name));
        (void)buf_puts(&r->echo, ":");
        (void)buf_puts(&r->echo, text ? text : repeated[i].otherwise);
        free(text);
    }
    (void)buf_puts(&r->echo, ",\"previous_response_id\":null,\"store\":false");
}

enum rc responses_ask(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                      struct err *err)
{
    struct rewrite w;
    struct responses *r = mem_new(struct responses);
    ret->state = r;
    ret->path = "/v1/chat/completions";
    ret->reply = DIALECT_EVENTS;
    (void)buf_put_str(&r->model, terms->model);
    keep_echo(r, body);
    enum rc rc = rewrite_init(&w, terms, body, ret, err);
    if (rc != RC_OK)
        return rc;
    w.messages = yyjson_mut_obj_add_arr(w.doc, w.root, "messages");
    return rewrite_end(&w, rewrite_members(&w, members, TABLE_COUNT(members)));
}
