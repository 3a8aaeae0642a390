/* /api/show: all that a model's file tells, in Ollama's words. Layer daemon; the file is read on the work
 * pool.
 *
 * What a model can do follows from its file: Ollama's own rule reads a chat template for the words it uses.
 */
#include "daemon/daemon_priv.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#define TEMPLATE_MAX (1024u * 1024)

struct show {
    char id[256], path[4096];
    bool embedding, vision;
    uint32_t ctx; /* of the settings; 0 = automatic */
};

/* Tells that a template can do something: any of these words in it. */
static const struct {
    const char *capability;
    const char *words[4];
} hints[] = {
    {"tools", {"tools", "tool_calls"}},
    {"thinking", {"enable_thinking", "<think>", "reasoning_content", "reasoning_effort"}},
};

static bool has_any(struct str text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n && words[i]; i++)
        if (str_find(text, str_from(words[i])) >= 0)
            return true;
    return false;
}

/* Tokens for a text with a hole, under their new and their old names. */
static bool fills_in(const struct model *m)
{
    uint64_t id;
    return model_key_u64(m, "tokenizer.ggml.fim_suf_token_id", &id) ||
           model_key_u64(m, "tokenizer.ggml.suffix_token_id", &id);
}

static void add_capabilities(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct show *s,
                             const struct model *m, struct str template)
{
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "capabilities");
    yyjson_mut_arr_add_str(doc, list, s->embedding ? "embedding" : "completion");
    if (s->embedding)
        return;
    if (s->vision)
        yyjson_mut_arr_add_str(doc, list, "vision");
    for (size_t i = 0; i < TABLE_COUNT(hints); i++)
        if (has_any(template, hints[i].words, TABLE_COUNT(hints[i].words)))
            yyjson_mut_arr_add_str(doc, list, hints[i].capability);
    if (fills_in(m))
        yyjson_mut_arr_add_str(doc, list, "insert");
}

static yyjson_mut_val *value_of(yyjson_mut_doc *doc, const struct model_value *v)
{
    switch (v->kind) {
    case MODEL_UINT: return yyjson_mut_uint(doc, v->u);
    case MODEL_INT: return yyjson_mut_sint(doc, v->i);
    case MODEL_BOOL: return yyjson_mut_bool(doc, v->u != 0);
    case MODEL_TEXT: return yyjson_mut_strncpy(doc, v->text.p, v->text.n);
    case MODEL_REAL:
        if (v->real - v->real == 0) /* JSON has no other numbers */
            return yyjson_mut_real(doc, v->real);
        break;
    default: break;
    }
    return yyjson_mut_null(doc); /* too long to be shown, as in Ollama's short answers */
}

static void add_info(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct model *m)
{
    struct model_value v;
    yyjson_mut_val *info = yyjson_mut_obj_add_obj(doc, root, "model_info");
    for (uint32_t i = 0; model_key_at(m, i, &v); i++)
        if (!str_starts(v.key, "tokenizer.chat_template"))
            yyjson_mut_obj_add(info, yyjson_mut_strncpy(doc, v.key.p, v.key.n), value_of(doc, &v));
    if (!yyjson_mut_obj_get(info, "general.parameter_count"))
        yyjson_mut_obj_add_uint(doc, info, "general.parameter_count", m->parameters);
}

static void add_texts(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct show *s, const struct model *m,
                      struct str template)
{
    char at[40];
    struct str license;
    struct buf file = {0}, parameters = {0};
    buf_printf(&file, "# %s as arriero serves it\nFROM %s\n", s->id, s->path);
    if (s->ctx) {
        buf_printf(&file, "PARAMETER num_ctx %u\n", s->ctx);
        buf_printf(&parameters, "%-30s %u", "num_ctx", s->ctx);
    }
    if (model_key_str(m, "general.license", &license))
        json_add_str(doc, root, "license", license);
    json_add_str(doc, root, "modelfile", buf_str(&file));
    json_add_str(doc, root, "parameters", buf_str(&parameters));
    json_add_str(doc, root, "template", template);
    json_add_str(doc, root, "modified_at", str_from(clock_rfc3339(m->mtime_ns / 1000000, at, sizeof at)));
    buf_release(&file);
    buf_release(&parameters);
}

static enum rc put_show(const struct show *s, const struct model *m, struct buf *out, struct err *err)
{
    struct buf template = {0};
    if (m->has_chat_template) {
        enum rc rc = model_read_text(m, "tokenizer.chat_template", TEMPLATE_MAX, &template, err);
        if (rc != RC_OK) {
            buf_release(&template);
            return rc;
        }
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    add_texts(doc, root, s, m, buf_str(&template));
    yyjson_mut_obj_add_val(doc, root, "details", ollama_details(doc, m));
    add_info(doc, root, m);
    add_capabilities(doc, root, s, m, buf_str(&template));
    enum rc rc = json_write(doc, false, out, err);
    yyjson_mut_doc_free(doc);
    buf_release(&template);
    return rc;
}

static enum rc show(void *arg, struct buf *out, struct err *err)
{
    const struct show *s = arg;
    struct model *m;
    enum rc rc = model_open_cached(s->path, &m, err);
    if (rc != RC_OK)
        return rc;
    rc = put_show(s, m, out, err);
    model_unref(m);
    return rc;
}

void ollama_show(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *body;
    struct err err;
    d->doing = "POST /api/show";
    if (!body_read(ex, &body))
        return;
    yyjson_val *root = yyjson_doc_get_root(body);
    struct str name = json_str(root, "model", json_str(root, "name", STR("")));
    const char *id = pool_resolve(d->pool, name);
    size_t at = id ? model_set_index(d->set, str_from(id)) : SIZE_MAX;
    if (!name.n) {
        (void)err_set(&err, RC_INVALID, "the request names no model");
        err_hint(&err, "send {\"model\": \"NAME\"}; GET /api/tags lists the names");
        http_reply_err(ex, &err, 0);
    } else if (at == SIZE_MAX || !http_may_use(ex, name)) {
        reply_unknown_model(d, ex, name);
    } else {
        const struct pool_model *p = &d->set->models[at];
        struct show *s = mem_new(struct show);
        *s =
            (struct show){.embedding = p->embedding, .vision = p->files.mmproj != NULL, .ctx = p->policy.ctx};
        snprintf(s->id, sizeof s->id, "%s", p->id);
        snprintf(s->path, sizeof s->path, "%s", p->path);
        background_answer(d, ex, show, s);
    }
    yyjson_doc_free(body);
}
