/* Ollama's endpoints that need no instance: the models there are and those that are loaded, the version, and
 * what is refused, with what is done here instead. Layer daemon; loop thread; /api/show is in ollama_show.c.
 *
 * Fields as in api/types.go of ollama 0.12: sizes in bytes, times in RFC 3339. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* The version of Ollama whose API this is: clients refuse older ones than they need. */
#define OLLAMA_API_VERSION "0.12.6"
#define NEVER_MS           (INT64_MAX / 1000000) /* Ollama's "for ever" is the longest time in nanoseconds */

void ollama_version(void *daemon, struct http_exchange *ex)
{
    (void)daemon;
    http_reply(ex, 200, "application/json",
               STR("{\"version\":\"" OLLAMA_API_VERSION "\",\"arriero\":\"" ARRIERO_VERSION "\"}"));
}

/* ---- models ---- */

/* "8.0B", "134.52M" as Ollama writes it. */
static void put_count(struct buf *out, uint64_t n)
{
    static const struct {
        double unit;
        int digits;
        const char *letter;
    } units[] = {{1e12, 1, "T"}, {1e9, 1, "B"}, {1e6, 2, "M"}, {1e3, 0, "K"}, {1, 0, ""}};
    size_t i = 0;
    while (i + 1 < TABLE_COUNT(units) && (double)n < units[i].unit)
        i++;
    buf_printf(out, "%.*f%s", units[i].digits, (double)n / units[i].unit, units[i].letter);
}

yyjson_mut_val *ollama_details(yyjson_mut_doc *doc, const struct model *m)
{
    struct buf size = {0};
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    if (m)
        put_count(&size, m->parameters);
    json_add_str(doc, o, "parent_model", STR(""));
    yyjson_mut_obj_add_str(doc, o, "format", "gguf");
    json_add_str(doc, o, "family", str_from(m ? m->architecture : ""));
    yyjson_mut_val *families = yyjson_mut_obj_add_arr(doc, o, "families");
    if (m)
        yyjson_mut_arr_add_strcpy(doc, families, m->architecture);
    json_add_str(doc, o, "parameter_size", buf_str(&size));
    json_add_str(doc, o, "quantization_level", str_from(m ? m->quantization : ""));
    if (m && m->context_train)
        yyjson_mut_obj_add_uint(doc, o, "context_length", m->context_train);
    if (m && m->n_embd)
        yyjson_mut_obj_add_uint(doc, o, "embedding_length", m->n_embd);
    buf_release(&size);
    return o;
}

/* Tells one version of a file from another; it is no digest of the content, which would have to be read. */
static void add_digest(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct pool_model *p,
                       const struct catalog_entry *e)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    struct buf text = {0}, hex = {0};
    buf_printf(&text, "%s\n%llu\n%lld", p->path, (unsigned long long)(e ? e->file_bytes : 0),
               (long long)(e ? e->mtime_ns : 0));
    if (EVP_Digest(text.data, text.n, md, &n, EVP_sha256(), NULL) != 1)
        n = 0;
    for (unsigned i = 0; i < n; i++)
        buf_printf(&hex, "%02x", md[i]);
    json_add_str(doc, o, "digest", buf_str(&hex));
    buf_release(&text);
    buf_release(&hex);
}

/* What lists of models begin with; at SIZE_MAX: the set no longer has it. */
static yyjson_mut_val *add_model(const struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list, size_t at,
                                 const char *id)
{
    static const struct pool_model none = {.path = ""};
    const struct pool_model *p = at == SIZE_MAX ? &none : &d->set->models[at];
    const struct catalog_entry *e = at == SIZE_MAX ? NULL : d->set->entries[at];
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    yyjson_mut_obj_add_strcpy(doc, o, "name", id);
    yyjson_mut_obj_add_strcpy(doc, o, "model", id);
    add_digest(doc, o, p, e);
    yyjson_mut_obj_add_val(doc, o, "details", ollama_details(doc, e ? e->model : NULL));
    return o;
}

void ollama_tags(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    char at[40];
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    d->doing = "GET /api/tags";
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "models");
    for (size_t i = 0; i < d->set->n; i++) {
        const struct catalog_entry *e = d->set->entries[i];
        if (!http_may_use(ex, str_from(d->set->models[i].id)))
            continue;
        yyjson_mut_val *o = add_model(d, doc, list, i, d->set->models[i].id);
        clock_rfc3339(e ? e->mtime_ns / 1000000 : d->start_wall_ms, at, sizeof at);
        yyjson_mut_obj_add_strcpy(doc, o, "modified_at", at);
        yyjson_mut_obj_add_uint(doc, o, "size", e ? e->file_bytes : 0);
    }
    reply_doc(ex, doc);
}

/* ---- what is loaded ---- */

/* Bytes of an instance on all devices, or on those that are not the host: as measured, else as predicted. */
static uint64_t bytes_of(yyjson_mut_val *instance, bool with_host)
{
    size_t i, n;
    uint64_t sum = 0;
    yyjson_mut_val *v;
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(instance, "devices"), i, n, v)
    {
        const char *name = yyjson_mut_get_str(yyjson_mut_obj_get(v, "name"));
        yyjson_mut_val *measured = yyjson_mut_obj_get(yyjson_mut_obj_get(v, "measured"), "total_bytes");
        if (with_host || strcmp(name, "Host") != 0)
            sum += yyjson_mut_get_uint(measured ? measured : yyjson_mut_obj_get(v, "predicted_bytes"));
    }
    return sum;
}

static uint64_t uint_of(yyjson_mut_val *o, const char *key)
{
    return yyjson_mut_get_uint(yyjson_mut_obj_get(o, key));
}

static void add_loaded(const struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list, yyjson_mut_val *v)
{
    char at[40];
    const char *model = yyjson_mut_get_str(yyjson_mut_obj_get(v, "model"));
    yyjson_mut_val *expires = yyjson_mut_obj_get(v, "expires_ms"), *params = yyjson_mut_obj_get(v, "params");
    yyjson_mut_val *o = add_model(d, doc, list, model_set_index(d->set, str_from(model)), model);
    int64_t left = yyjson_mut_is_uint(expires) ? (int64_t)yyjson_mut_get_uint(expires) : NEVER_MS;
    clock_rfc3339(clock_wall_ms() + (left < NEVER_MS ? left : NEVER_MS), at, sizeof at);
    yyjson_mut_obj_add_strcpy(doc, o, "expires_at", at);
    yyjson_mut_obj_add_uint(doc, o, "size", bytes_of(v, true));
    yyjson_mut_obj_add_uint(doc, o, "size_vram", bytes_of(v, false));
    uint64_t ctx = uint_of(params, "ctx"), parallel = uint_of(params, "parallel");
    bool shared = yyjson_mut_get_bool(yyjson_mut_obj_get(params, "kv_unified")) || parallel == 0;
    yyjson_mut_obj_add_uint(doc, o, "context_length", shared ? ctx : ctx / parallel);
}

void ollama_ps(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    size_t i, n;
    yyjson_mut_val *root, *v;
    yyjson_mut_doc *doc = doc_new(&root);
    d->doing = "GET /api/ps";
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "models");
    yyjson_mut_arr_foreach(pool_json(d->pool, doc), i, n, v)
    {
        const char *state = yyjson_mut_get_str(yyjson_mut_obj_get(v, "state"));
        const char *model = yyjson_mut_get_str(yyjson_mut_obj_get(v, "model"));
        if (strcmp(state, pool_state_word(POOL_READY)) == 0 && http_may_use(ex, str_from(model)))
            add_loaded(d, doc, list, v);
    }
    reply_doc(ex, doc);
}

/* ---- what is not done ---- */

static const struct {
    const char *path, *what, *instead;
} refusals[] = {
    {"/api/pull", "arriero does not download models",
     "put the GGUF file into one of the models directories, then GET /models?reload=1 or send SIGHUP"},
    {"/api/create", "arriero makes no models of Modelfiles",
     "it serves GGUF files where they are; name settings of a model in the configuration under models:"},
    {"/api/copy", "arriero copies no models", "give a model more names with models.NAME.aliases"},
    {"/api/delete", "arriero deletes no model files",
     "delete the file yourself; /unload or keep_alive 0 only unload a model"},
    {"/api/push", "arriero uploads no models", "copy the GGUF file"},
    {"/api/blobs/", "arriero takes no uploads", "copy the GGUF file into one of the models directories"},
};

void ollama_refuse(void *daemon, struct http_exchange *ex)
{
    struct err err;
    (void)daemon;
    size_t i = 0;
    while (i + 1 < TABLE_COUNT(refusals) && !str_starts(http_path(ex), refusals[i].path))
        i++;
    (void)err_set(&err, RC_UNSUPPORTED, "%s", refusals[i].what);
    err_hint(&err, "%s", refusals[i].instead);
    http_reply_err(ex, &err, 0);
}

/* A model that is there needs no pulling: clients that pull to be sure go on. */
void ollama_pull(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *body;
    d->doing = "POST /api/pull";
    if (!body_read(ex, &body))
        return;
    yyjson_val *root = yyjson_doc_get_root(body);
    struct str model = json_str(root, "model", json_str(root, "name", STR("")));
    if (model.n && pool_resolve(d->pool, model))
        http_reply(ex, 200, json_bool(root, "stream", true) ? "application/x-ndjson" : "application/json",
                   STR("{\"status\":\"success\"}\n"));
    else
        ollama_refuse(d, ex);
    yyjson_doc_free(body);
}
