/* Answers of the data plane that are not relayed. Layer daemon; loop thread. */
#include "daemon/daemon_priv.h"

#include "proxy/guard.h"

#include <string.h>

#define COMMAND_MAX_BYTES (1024u * 1024)

yyjson_mut_doc *doc_new(yyjson_mut_val **ret_root)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    *ret_root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, *ret_root);
    return doc;
}

void reply_doc(struct http_exchange *ex, yyjson_mut_doc *doc)
{
    struct buf out = {0};
    struct err err;
    if (json_write(doc, false, &out, &err) == RC_OK)
        http_reply(ex, 200, "application/json", buf_str(&out));
    else
        http_reply_err(ex, &err, 0);
    buf_release(&out);
    yyjson_mut_doc_free(doc);
}

bool refused_to_page(struct http_exchange *ex)
{
    struct err err;
    if (http_is_keyed(ex) || /* which no page of others knows */
        !guard_may_be_page(http_header(ex, "sec-fetch-site"), http_header(ex, "user-agent")))
        return false;
    (void)err_set(&err, RC_DENIED,
                  "a page of another origin may have asked for this through its visitor's browser");
    err_hint(&err, "send POST /models/load or /models/unload instead, use curl, or ask with an API key");
    http_reply_err(ex, &err, 0);
    return true;
}

bool body_read(struct http_exchange *ex, yyjson_doc **ret_doc)
{
    struct err err;
    struct str body = http_body(ex);
    enum rc rc = RC_OK;
    if (body.n > COMMAND_MAX_BYTES)
        rc = err_set(&err, RC_LIMIT, "the body of a command is larger than the limit of %u KiB",
                     COMMAND_MAX_BYTES / 1024);
    else
        rc = json_parse(body.n ? body : STR("{}"), "the request's body", ret_doc, &err);
    if (rc != RC_OK)
        http_reply_err(ex, &err, 0);
    return rc == RC_OK;
}

/* Ollama's clients ask here whether it is there, and know it by these words. */
static bool is_a_page(struct http_exchange *ex)
{
    return str_find(http_header(ex, "accept"), STR("text/html")) >= 0;
}

void data_root(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct buf out = {0};
    if (!is_a_page(ex)) {
        http_reply(ex, 200, "text/plain; charset=utf-8", STR("Ollama is running"));
        return;
    }
    buf_printf(&out,
               "arriero " ARRIERO_VERSION " serves %zu model%s.\n\n"
               "  OpenAI API  /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings\n"
               "  Anthropic   /v1/messages, /v1/messages/count_tokens\n"
               "  Ollama      /api/chat, /api/generate, /api/embed, /api/tags, /api/show, /api/ps\n"
               "  llama.cpp   /models, /models/load, /models/unload, /props, /slots, /completion, /infill\n"
               "  llama-swap  /running, /unload, /upstream/MODEL/, /logs\n"
               "  State       /health, /status, /metrics\n",
               d->set->n, d->set->n == 1 ? "" : "s");
    http_reply(ex, 200, "text/plain; charset=utf-8", buf_str(&out));
    buf_release(&out);
}

void data_health(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct buf out = {0};
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    d->doing = "GET /health";
    yyjson_mut_doc_set_root(doc, telemetry_health(d, doc));
    (void)json_write(doc, false, &out, NULL);
    http_reply(ex, d->stopping ? 503 : 200, "application/json", buf_str(&out));
    buf_release(&out);
    yyjson_mut_doc_free(doc);
}

void data_status(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    d->doing = "GET /status";
    yyjson_mut_doc_set_root(doc, telemetry_status(d, doc));
    reply_doc(ex, doc);
}

void data_metrics(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct buf out = {0};
    d->doing = "GET /metrics";
    if (router_look(d, ex))
        return;
    telemetry_text(d, &out);
    http_reply(ex, 200, METRICS_CONTENT_TYPE, buf_str(&out));
    buf_release(&out);
}

/* Whether the key may use it under any of its names. */
static bool may_see(struct http_exchange *ex, yyjson_mut_val *model)
{
    size_t i, n;
    yyjson_mut_val *alias;
    bool yes = http_may_use(ex, str_from(yyjson_mut_get_str(yyjson_mut_obj_get(model, "id"))));
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(model, "aliases"), i, n, alias)
    {
        yes = yes || http_may_use(ex, str_from(yyjson_mut_get_str(alias)));
    }
    return yes;
}

void leave_visible(struct http_exchange *ex, yyjson_mut_val *models)
{
    yyjson_mut_arr_iter i = yyjson_mut_arr_iter_with(models);
    yyjson_mut_val *model;
    while ((model = yyjson_mut_arr_iter_next(&i)))
        if (!may_see(ex, model))
            yyjson_mut_arr_iter_remove(&i);
}

static void reply_visible(struct daemon *d, struct http_exchange *ex)
{
    yyjson_doc *all = NULL;
    struct err err;
    if (json_parse(buf_str(&d->models_json), "the list of models", &all, &err) != RC_OK) {
        http_reply_err(ex, &err, 0);
        return;
    }
    yyjson_mut_doc *doc = yyjson_doc_mut_copy(all, NULL);
    yyjson_doc_free(all);
    leave_visible(ex, yyjson_mut_obj_get(yyjson_mut_doc_get_root(doc), "data"));
    reply_doc(ex, doc);
}

void data_models(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    if (http_key_is_limited(ex)) {
        reply_visible(d, ex);
        return;
    }
    http_reply(ex, 200, "application/json", buf_str(&d->models_json));
}

/* 404 with the nearest names, in the words of the catalog. */
void reply_unknown_model(struct daemon *d, struct http_exchange *ex, struct str id)
{
    const char *near[3];
    struct err err;
    struct buf hint = {0};
    if (!http_key_is_limited(ex) && model_set_why_not(d->set, id, &err)) {
        http_reply_err(ex, &err, 0);
        return;
    }
    err.code =
        err_set(&err, RC_NOT_FOUND, "no model is called \"%.*s\"", (int)(id.n < 200 ? id.n : 200), id.p);
    size_t n = catalog_nearest(d->catalog, id, near, TABLE_COUNT(near));
    for (size_t i = 0; i < n; i++)
        if (http_may_use(ex, str_from(near[i])))
            buf_printf(&hint, "%s%s", hint.n ? ", " : "did you mean ", near[i]);
    if (hint.n)
        err_hint(&err, "%s?", hint.data);
    else
        err_hint(&err, "GET /v1/models lists what there is");
    http_reply_err(ex, &err, 0);
    buf_release(&hint);
}

static void reply_elsewhere(const struct remote_model *m, struct http_exchange *ex)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, remote_model_json(m, doc));
    reply_doc(ex, doc);
}

void data_model(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct buf out = {0};
    struct str id = http_path(ex);
    id.p += strlen("/v1/models/");
    id.n -= strlen("/v1/models/");
    const char *known = pool_resolve(d->pool, id);
    const struct remote_model *elsewhere = remote_find(d->remotes, id);
    /* what a key may not use is not for it to know */
    if (elsewhere && http_may_use(ex, id))
        reply_elsewhere(elsewhere, ex);
    else if (http_may_use(ex, id) && model_set_one_json(d->set, known ? str_from(known) : id, &out))
        http_reply(ex, 200, "application/json", buf_str(&out));
    else
        reply_unknown_model(d, ex, id);
    buf_release(&out);
}
