/* Ollama's messages as OpenAI's. Layer dialect; pure.
 *
 * Differences: images stand beside the text and not in it; arguments of a tool's call are an object and not
 * its text; calls and results may have no ids, so a result is taken for that of the first call of its name
 * that has none yet. */
#include "base/mem.h"
#include "dialect/ollama.h"

#include <stdio.h>
#include <string.h>

/* A call of a tool that has been told. */
struct told {
    struct str name;
    struct buf id;
    bool answered;
};

struct writer {
    struct buf *out;
    struct err *err;
    struct told *calls;
    size_t n_calls;
    size_t at; /* of the message */
};

static struct str text_of(yyjson_val *v)
{
    return yyjson_is_str(v) ? (struct str){yyjson_get_str(v), yyjson_get_len(v)} : (struct str){"", 0};
}

static bool is_absent(yyjson_val *v)
{
    return !v || yyjson_is_null(v);
}

void ollama_put_value(struct buf *out, yyjson_val *v)
{
    size_t n = 0;
    char *text = yyjson_val_write(v, YYJSON_WRITE_NOFLAG, &n);
    if (text)
        (void)buf_append(out, text, n);
    else
        out->failed = true;
    free(text);
}

void ollama_member(struct buf *out, const char *name)
{
    (void)buf_printf(out, "%s\"%s\":", out->n && out->data[out->n - 1] != '{' ? "," : "", name);
}

static enum rc wrong(const struct writer *w, const char *member, const char *what)
{
    return err_set(w->err, RC_INVALID, "messages[%zu].%s must be %s", w->at, member, what);
}

/* ---- images ---- */

/* The kind of an image from the first characters of its base64. */
static const char *image_type(struct str data)
{
    static const struct {
        const char *start, *type;
    } types[] = {{"iVBORw0KGgo", "png"}, {"R0lGOD", "gif"}, {"UklGR", "webp"}, {"Qk", "bmp"}};
    for (size_t i = 0; i < TABLE_COUNT(types); i++)
        if (str_starts(data, types[i].start))
            return types[i].type;
    return "jpeg";
}

static void put_image(struct buf *out, struct str data)
{
    (void)buf_puts(out, ",{\"type\":\"image_url\",\"image_url\":{\"url\":");
    if (str_starts(data, "data:")) {
        (void)buf_put_json(out, data);
    } else {
        struct buf url = {0};
        (void)buf_printf(&url, "data:image/%s;base64,", image_type(data));
        (void)buf_put_str(&url, data);
        (void)buf_put_json(out, buf_str(&url));
        out->failed |= url.failed;
        buf_release(&url);
    }
    (void)buf_puts(out, "}}");
}

/* ,"content": text, or parts where there are images. */
static enum rc put_content(const struct writer *w, struct str text, yyjson_val *images)
{
    size_t i, n;
    yyjson_val *v;
    (void)buf_puts(w->out, ",\"content\":");
    if (is_absent(images) || (yyjson_is_arr(images) && yyjson_arr_size(images) == 0)) {
        (void)buf_put_json(w->out, text);
        return RC_OK;
    }
    if (!yyjson_is_arr(images))
        return wrong(w, "images", "a list of base64 texts");
    (void)buf_puts(w->out, "[{\"type\":\"text\",\"text\":");
    (void)buf_put_json(w->out, text);
    (void)buf_puts(w->out, "}");
    yyjson_arr_foreach(images, i, n, v)
    {
        if (!yyjson_is_str(v))
            return wrong(w, "images", "a list of base64 texts");
        put_image(w->out, text_of(v));
    }
    (void)buf_puts(w->out, "]");
    return RC_OK;
}

/* ---- tools ---- */

static struct told *tell_call(struct writer *w, struct str name, struct str id)
{
    w->calls = mem_realloc(w->calls, w->n_calls + 1, sizeof *w->calls);
    struct told *t = &w->calls[w->n_calls++];
    *t = (struct told){.name = name};
    if (id.n)
        (void)buf_put_str(&t->id, id);
    else
        (void)buf_printf(&t->id, "call_%zu", w->n_calls);
    return t;
}

static enum rc put_calls(struct writer *w, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(list))
        return wrong(w, "tool_calls", "a list of calls");
    yyjson_arr_foreach(list, i, n, v)
    {
        yyjson_val *f = yyjson_obj_get(v, "function"), *args = yyjson_obj_get(f, "arguments");
        struct str name = text_of(yyjson_obj_get(f, "name"));
        if (w->n_calls == CHUNK_CALLS_MAX)
            return err_set(w->err, RC_LIMIT, "the messages have more than %u calls of tools",
                           CHUNK_CALLS_MAX);
        if (!name.n || !(is_absent(args) || yyjson_is_obj(args)))
            return wrong(w, "tool_calls", "calls like {\"function\":{\"name\":\"…\",\"arguments\":{…}}}");
        const struct told *t = tell_call(w, name, text_of(yyjson_obj_get(v, "id")));
        struct buf text = {0};
        if (yyjson_is_obj(args))
            ollama_put_value(&text, args);
        (void)buf_puts(w->out, i ? ",{\"id\":" : ",\"tool_calls\":[{\"id\":");
        (void)buf_put_json(w->out, buf_str(&t->id));
        (void)buf_puts(w->out, ",\"type\":\"function\",\"function\":{\"name\":");
        (void)buf_put_json(w->out, name);
        (void)buf_puts(w->out, ",\"arguments\":");
        (void)buf_put_json(w->out, text.n ? buf_str(&text) : STR("{}"));
        (void)buf_puts(w->out, "}}");
        w->out->failed |= text.failed;
        buf_release(&text);
    }
    if (n)
        (void)buf_puts(w->out, "]");
    return RC_OK;
}

/* The call that a result belongs to: by its id, else the first of that name, else the first, that has none.
 */
static struct told *call_of(const struct writer *w, struct str id, struct str name)
{
    struct told *first = NULL, *named = NULL;
    for (size_t i = 0; i < w->n_calls; i++) {
        struct told *t = &w->calls[i];
        if (id.n && str_eq(buf_str(&t->id), id))
            return t;
        if (t->answered)
            continue;
        first = first ? first : t;
        named = named || !str_eq(t->name, name) ? named : t;
    }
    return named ? named : first;
}

static void put_result_of(const struct writer *w, yyjson_val *m)
{
    struct str id = text_of(yyjson_obj_get(m, "tool_call_id")),
               name = text_of(yyjson_obj_get(m, "tool_name"));
    struct told *t = call_of(w, id, name);
    if (t)
        t->answered = true;
    if (t && !id.n)
        id = buf_str(&t->id);
    (void)buf_puts(w->out, ",\"tool_call_id\":");
    (void)buf_put_json(w->out, id.n ? id : STR("call_0"));
    if (name.n) {
        (void)buf_puts(w->out, ",\"name\":");
        (void)buf_put_json(w->out, name);
    }
}

/* ---- messages ---- */

static enum rc put_role(const struct writer *w, yyjson_val *m, struct str *ret_role)
{
    static const char *const roles[] = {"user", "assistant", "system", "tool", "developer"};
    struct str role = text_of(yyjson_obj_get(m, "role"));
    for (size_t i = 0; i < TABLE_COUNT(roles); i++) {
        if (!str_ieq(role, str_from(roles[i])))
            continue;
        (void)buf_printf(w->out, "{\"role\":\"%s\"", roles[i]);
        *ret_role = str_from(roles[i]);
        return RC_OK;
    }
    return wrong(w, "role", "\"user\", \"assistant\", \"system\" or \"tool\"");
}

static enum rc put_message(struct writer *w, yyjson_val *m)
{
    struct str role;
    yyjson_val *content = yyjson_obj_get(m, "content"), *calls = yyjson_obj_get(m, "tool_calls");
    struct str thinking = text_of(yyjson_obj_get(m, "thinking"));
    if (!yyjson_is_obj(m))
        return err_set(w->err, RC_INVALID, "messages[%zu] must be an object", w->at);
    enum rc rc = put_role(w, m, &role);
    if (rc != RC_OK)
        return rc;
    if (!is_absent(content) && !yyjson_is_str(content))
        return wrong(w, "content", "a text; images go into \"images\"");
    rc = put_content(w, text_of(content), yyjson_obj_get(m, "images"));
    if (rc == RC_OK && thinking.n) {
        (void)buf_puts(w->out, ",\"reasoning_content\":");
        (void)buf_put_json(w->out, thinking);
    }
    if (rc == RC_OK && !is_absent(calls))
        rc = put_calls(w, calls);
    if (rc == RC_OK && str_eq_c(role, "tool"))
        put_result_of(w, m);
    (void)buf_puts(w->out, "}");
    return rc;
}

enum rc ollama_put_messages(yyjson_val *messages, struct buf *out, struct err *err)
{
    struct writer w = {.out = out, .err = err};
    enum rc rc = RC_OK;
    size_t n;
    yyjson_val *m;
    ollama_member(out, "messages");
    (void)buf_puts(out, "[");
    yyjson_arr_foreach(messages, w.at, n, m)
    {
        (void)buf_puts(out, w.at ? "," : "");
        rc = put_message(&w, m);
        if (rc != RC_OK)
            break;
    }
    (void)buf_puts(out, "]");
    for (size_t i = 0; i < w.n_calls; i++)
        buf_release(&w.calls[i].id);
    free(w.calls);
    return rc;
}

enum rc ollama_put_prompt(struct str system, struct str prompt, yyjson_val *images, struct buf *out,
                          struct err *err)
{
    const struct writer w = {.out = out, .err = err};
    ollama_member(out, "messages");
    (void)buf_puts(out, "[");
    if (system.n) {
        (void)buf_puts(out, "{\"role\":\"system\",\"content\":");
        (void)buf_put_json(out, system);
        (void)buf_puts(out, "},");
    }
    (void)buf_puts(out, "{\"role\":\"user\"");
    enum rc rc = put_content(&w, prompt, images);
    (void)buf_puts(out, "}]");
    return rc;
}
