/* A request of OpenAI's chat API in the words of a backend that speaks Anthropic's. Layer dialect; pure.
 *
 * What has no counterpart is refused by name where the answer would be of another kind without it (several
 * choices, log probabilities, sound), and left out where it is a hint (seeds, penalties) or meant for other
 * servers: this API refuses members that it does not know. */
#include "dialect/backend_anthropic.h"

#include "base/mem.h"
#include "dialect/rewrite.h"

#include <string.h>

#define MAX_TOKENS 4096 /* the API wants a limit: what every model of it allows */

static struct str text_of(yyjson_val *obj, const char *key)
{
    return json_str(obj, key, (struct str){"", 0});
}

static bool is(yyjson_val *obj, const char *key, const char *word)
{
    return str_eq_c(text_of(obj, key), word);
}

/* ---- blocks ---- */

/* The API refuses texts that are empty. */
static void put_text(struct rewrite *w, yyjson_mut_val *blocks, struct str text)
{
    if (text.n)
        rewrite_text_part(w, blocks, text);
}

static yyjson_mut_val *put_source(struct rewrite *w, yyjson_mut_val *blocks, const char *kind,
                                  const char *type)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, blocks);
    yyjson_mut_obj_add_str(w->doc, o, "type", kind);
    yyjson_mut_val *source = yyjson_mut_obj_add_obj(w->doc, o, "source");
    yyjson_mut_obj_add_str(w->doc, source, "type", type);
    return source;
}

/* "data:image/png;base64,…" carries its bytes. */
static bool put_data(struct rewrite *w, yyjson_mut_val *blocks, const char *kind, struct str url)
{
    struct str type = {url.p + 5, url.n - 5}, data = type;
    type = str_cut(&data, ',');
    if (!str_ends(type, ";base64") || !data.n)
        return rewrite_bad(w, "a data URL has the form data:TYPE;base64,DATA");
    yyjson_mut_val *source = put_source(w, blocks, kind, "base64");
    rewrite_put_str(w, source, "media_type", (struct str){type.p, type.n - strlen(";base64")});
    rewrite_put_str(w, source, "data", data);
    return true;
}

static bool put_image(struct rewrite *w, yyjson_mut_val *blocks, yyjson_val *part)
{
    yyjson_val *image = yyjson_obj_get(part, "image_url");
    struct str url = yyjson_is_str(image) ? rewrite_str(image) : text_of(image, "url");
    if (!url.n)
        return rewrite_bad(w, "an image has a url");
    if (str_starts(url, "data:"))
        return put_data(w, blocks, "image", url);
    rewrite_put_str(w, put_source(w, blocks, "image", "url"), "url", url);
    return true;
}

static bool put_file(struct rewrite *w, yyjson_mut_val *blocks, yyjson_val *part)
{
    struct str data = text_of(yyjson_obj_get(part, "file"), "file_data");
    if (!str_starts(data, "data:"))
        return rewrite_bad(w, "a file's file_data is a data URL here");
    return put_data(w, blocks, "document", data);
}

static bool put_part(struct rewrite *w, yyjson_mut_val *blocks, yyjson_val *part)
{
    struct str type = text_of(part, "type");
    if (str_eq_c(type, "text") || str_eq_c(type, "refusal")) {
        put_text(w, blocks, text_of(part, str_eq_c(type, "text") ? "text" : "refusal"));
        return true;
    }
    if (str_eq_c(type, "image_url"))
        return put_image(w, blocks, part);
    if (str_eq_c(type, "file"))
        return put_file(w, blocks, part);
    return rewrite_bad(w, "this backend takes no part of type \"%.*s\"", (int)(type.n < 60 ? type.n : 60),
                       type.p);
}

/* Content as OpenAI writes it, as blocks. */
static bool put_content(struct rewrite *w, yyjson_mut_val *blocks, yyjson_val *content)
{
    size_t i, n;
    yyjson_val *part;
    if (yyjson_is_str(content))
        put_text(w, blocks, rewrite_str(content));
    else if (content && !yyjson_is_arr(content) && !yyjson_is_null(content))
        return rewrite_bad(w, "a text or a list of parts is expected");
    yyjson_arr_foreach(content, i, n, part)
    {
        if (!put_part(w, blocks, part))
            return false;
    }
    return true;
}

/* ---- messages ---- */

static yyjson_mut_val *add_message(struct rewrite *w, const char *role)
{
    return yyjson_mut_obj_add_arr(w->doc, rewrite_message(w, role), "content");
}

/* The blocks of the last message if it is the user's: results of tools stand together in one. */
static yyjson_mut_val *user_blocks(struct rewrite *w)
{
    yyjson_mut_val *last = yyjson_mut_arr_get_last(w->messages);
    const char *role = yyjson_mut_get_str(yyjson_mut_obj_get(last, "role"));
    return role && !strcmp(role, "user") ? yyjson_mut_obj_get(last, "content") : add_message(w, "user");
}

static bool put_call(struct rewrite *w, yyjson_mut_val *blocks, yyjson_val *call)
{
    yyjson_val *function = yyjson_obj_get(call, "function");
    struct str arguments = text_of(function, "arguments");
    yyjson_doc *doc = arguments.n ? yyjson_read(arguments.p, arguments.n, YYJSON_READ_NOFLAG) : NULL;
    yyjson_val *input = yyjson_doc_get_root(doc);
    bool fine = !arguments.n || yyjson_is_obj(input);
    if (fine) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, blocks);
        yyjson_mut_obj_add_str(w->doc, o, "type", "tool_use");
        rewrite_put_str(w, o, "id", text_of(call, "id"));
        rewrite_put_str(w, o, "name", text_of(function, "name"));
        if (input)
            rewrite_put(w, o, "input", input);
        else
            (void)yyjson_mut_obj_add_obj(w->doc, o, "input");
    }
    yyjson_doc_free(doc);
    return fine || rewrite_bad(w, "the arguments of a tool's call are no JSON object");
}

static bool put_assistant(struct rewrite *w, yyjson_val *m)
{
    size_t i, n;
    yyjson_val *call;
    yyjson_mut_val *blocks = yyjson_mut_arr(w->doc);
    if (!put_content(w, blocks, yyjson_obj_get(m, "content")))
        return false;
    yyjson_arr_foreach(yyjson_obj_get(m, "tool_calls"), i, n, call)
    {
        if (!put_call(w, blocks, call))
            return false;
    }
    if (yyjson_mut_arr_size(blocks)) /* the API refuses messages that say nothing */
        yyjson_mut_obj_add_val(w->doc, rewrite_message(w, "assistant"), "content", blocks);
    return true;
}

static bool put_result(struct rewrite *w, yyjson_val *m)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, user_blocks(w));
    yyjson_mut_obj_add_str(w->doc, o, "type", "tool_result");
    rewrite_put_str(w, o, "tool_use_id", text_of(m, "tool_call_id"));
    return put_content(w, yyjson_mut_obj_add_arr(w->doc, o, "content"), yyjson_obj_get(m, "content"));
}

static bool put_user(struct rewrite *w, yyjson_val *m)
{
    return put_content(w, user_blocks(w), yyjson_obj_get(m, "content"));
}

/* Instructions stand apart from the conversation, wherever they came in it. */
static bool put_system(struct rewrite *w, yyjson_val *m)
{
    yyjson_mut_val *system = yyjson_mut_obj_get(w->root, "system");
    if (!system)
        system = yyjson_mut_obj_add_arr(w->doc, w->root, "system");
    return put_content(w, system, yyjson_obj_get(m, "content"));
}

static const struct {
    const char *role;
    bool (*put)(struct rewrite *w, yyjson_val *m);
} roles[] = {{"user", put_user},     {"assistant", put_assistant}, {"tool", put_result},
             {"system", put_system}, {"developer", put_system},    {"function", NULL}};

static bool put_messages(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    size_t i, n;
    yyjson_val *m;
    if (!yyjson_is_arr(v))
        return rewrite_bad(w, "a list of messages is expected");
    yyjson_arr_foreach(v, i, n, m)
    {
        bool (*put)(struct rewrite * w, yyjson_val * m) = NULL;
        rewrite_at(w, "messages.%zu", i);
        for (size_t k = 0; k < TABLE_COUNT(roles); k++)
            if (is(m, "role", roles[k].role))
                put = roles[k].put;
        if (!put)
            return rewrite_bad(w, "its role is \"system\", \"user\", \"assistant\" or \"tool\"");
        if (!put(w, m))
            return false;
    }
    return true;
}

/* ---- members ---- */

static bool put_max_tokens(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (!yyjson_is_uint(v) || !yyjson_get_uint(v))
        return rewrite_bad(w, "a whole number of at least 1 is expected");
    yyjson_mut_obj_remove_key(w->root, "max_tokens"); /* the newer name wins */
    rewrite_put(w, w->root, "max_tokens", v);
    return true;
}

/* From 0 to 2 at OpenAI, from 0 to 1 here. */
static bool put_temperature(struct rewrite *w, const char *name, yyjson_val *v)
{
    if (!yyjson_is_num(v))
        return rewrite_bad(w, "a number is expected");
    if (yyjson_get_num(v) > 1)
        yyjson_mut_obj_add_int(w->doc, w->root, name, 1);
    else
        rewrite_put(w, w->root, name, v);
    return true;
}

static bool put_stop(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (!yyjson_is_str(v) && !yyjson_is_arr(v))
        return rewrite_bad(w, "a text or a list of texts is expected");
    yyjson_mut_val *stops = yyjson_mut_obj_add_arr(w->doc, w->root, "stop_sequences");
    size_t i, n;
    yyjson_val *stop;
    if (yyjson_is_str(v))
        yyjson_mut_arr_append(stops, yyjson_val_mut_copy(w->doc, v));
    yyjson_arr_foreach(v, i, n, stop) yyjson_mut_arr_append(stops, yyjson_val_mut_copy(w->doc, stop));
    return true;
}

static bool put_tools(struct rewrite *w, const char *name, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *tool;
    if (!yyjson_is_arr(v))
        return rewrite_bad(w, "a list of tools is expected");
    yyjson_mut_val *tools = yyjson_arr_size(v) ? yyjson_mut_obj_add_arr(w->doc, w->root, name) : NULL;
    yyjson_arr_foreach(v, i, n, tool)
    {
        yyjson_val *f = yyjson_obj_get(tool, "function"), *parameters = yyjson_obj_get(f, "parameters");
        rewrite_at(w, "tools.%zu", i);
        if (!is(tool, "type", "function") || !text_of(f, "name").n)
            return rewrite_bad(w, "a tool is a function and has a name");
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, tools);
        rewrite_put_str(w, o, "name", text_of(f, "name"));
        if (text_of(f, "description").n)
            rewrite_put_str(w, o, "description", text_of(f, "description"));
        if (yyjson_is_obj(parameters))
            rewrite_put(w, o, "input_schema", parameters);
        else
            yyjson_mut_obj_add_str(w->doc, yyjson_mut_obj_add_obj(w->doc, o, "input_schema"), "type",
                                   "object");
    }
    return true;
}

static yyjson_mut_val *tool_choice(struct rewrite *w, const char *type)
{
    yyjson_mut_val *o = yyjson_mut_obj_get(w->root, "tool_choice");
    if (!o)
        o = yyjson_mut_obj_add_obj(w->doc, w->root, "tool_choice");
    if (!yyjson_mut_obj_get(o, "type"))
        yyjson_mut_obj_add_str(w->doc, o, "type", type);
    return o;
}

static bool put_tool_choice(struct rewrite *w, const char *name, yyjson_val *v)
{
    static const struct {
        const char *word, *type;
    } words[] = {{"auto", "auto"}, {"none", "none"}, {"required", "any"}};
    (void)name;
    struct str named = text_of(yyjson_obj_get(v, "function"), "name");
    for (size_t i = 0; i < TABLE_COUNT(words); i++)
        if (str_eq_c(rewrite_str(v), words[i].word)) {
            (void)tool_choice(w, words[i].type);
            return true;
        }
    if (!named.n)
        return rewrite_bad(w, "it is \"auto\", \"none\", \"required\" or a function's name");
    rewrite_put_str(w, tool_choice(w, "tool"), "name", named);
    return true;
}

/* Only where there are tools; without them the API refuses a choice. */
static bool put_parallel(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (yyjson_is_false(v) && yyjson_mut_obj_get(w->root, "tools"))
        yyjson_mut_obj_add_bool(w->doc, tool_choice(w, "auto"), "disable_parallel_tool_use", true);
    return true;
}

static bool put_user_id(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (yyjson_is_str(v))
        rewrite_put(w, yyjson_mut_obj_add_obj(w->doc, w->root, "metadata"), "user_id", v);
    return true;
}

static bool put_format(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    yyjson_val *schema = yyjson_obj_get(yyjson_obj_get(v, "json_schema"), "schema");
    if (is(v, "type", "text"))
        return true;
    if (!is(v, "type", "json_schema") || !yyjson_is_obj(schema))
        return rewrite_bad(w, "this backend knows \"text\" and \"json_schema\" with a schema");
    yyjson_mut_val *output = yyjson_mut_obj_add_obj(w->doc, w->root, "output_config");
    yyjson_mut_val *format = yyjson_mut_obj_add_obj(w->doc, output, "format");
    yyjson_mut_obj_add_str(w->doc, format, "type", "json_schema");
    rewrite_put(w, format, "schema", schema);
    return true;
}

static bool put_one(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    return (yyjson_is_uint(v) && yyjson_get_uint(v) == 1) ||
           rewrite_bad(w, "this backend makes one answer at a time");
}

static bool put_logprobs(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    return yyjson_is_false(v) || rewrite_bad(w, "this backend tells no log probabilities");
}

static const struct rewrite_member members[] = {
    {"messages", put_messages, true},
    {"max_tokens", put_max_tokens, false},
    {"max_completion_tokens", put_max_tokens, false},
    {"temperature", put_temperature, false},
    {"top_p", rewrite_number, false},
    {"top_k", rewrite_number, false},
    {"stop", put_stop, false},
    {"tools", put_tools, false},
    {"tool_choice", put_tool_choice, false},
    {"parallel_tool_calls", put_parallel, false},
    {"user", put_user_id, false},
    {"response_format", put_format, false},
    {"n", put_one, false},
    {"logprobs", put_logprobs, false},
};

static enum rc translate(struct rewrite *w)
{
    w->messages = yyjson_mut_obj_add_arr(w->doc, w->root, "messages");
    bool ok = rewrite_known(w, members, TABLE_COUNT(members));
    if (ok && !yyjson_mut_obj_get(w->root, "max_tokens"))
        yyjson_mut_obj_add_int(w->doc, w->root, "max_tokens", MAX_TOKENS);
    return rewrite_end(w, ok);
}

enum rc backend_anthropic_ask(struct dialect_ask *ask, struct err *err)
{
    yyjson_doc *doc = NULL;
    struct rewrite w;
    if (ask->reply == DIALECT_NOTHING)
        return RC_OK;
    if (ask->reply != DIALECT_EVENTS || strcmp(ask->path, dialect_anthropic_backend.path) != 0) {
        enum rc rc = err_set(err, RC_UNSUPPORTED, "a backend of Anthropic's API answers chats only");
        err_hint(err, "ask a model of another backend; GET /v1/models lists what there is");
        return rc;
    }
    enum rc rc = json_parse(buf_str(&ask->body), "the translated request", &doc, err);
    if (rc != RC_OK)
        return rc;
    struct dialect_ask own = {.reply = ask->reply};
    rc = rewrite_init(&w, NULL, yyjson_doc_get_root(doc), &own, err);
    if (rc == RC_OK)
        rc = translate(&w);
    yyjson_doc_free(doc);
    if (rc != RC_OK) {
        buf_release(&own.body);
        return rc;
    }
    buf_release(&ask->body);
    ask->body = own.body;
    ask->path = "/v1/messages";
    return RC_OK;
}
