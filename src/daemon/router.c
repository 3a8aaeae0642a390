/* The endpoints of llama.cpp's router (llama-server without a model): models with their states, loading and
 * unloading them (api.c), events of their states, and GETs about one instance with its model in the query.
 * Layer daemon; loop thread.
 *
 * As in llama.cpp such GETs are no use of a model: they do not put off that it is unloaded. Unlike there only
 * /props loads a model that is not, so that a monitor that asks for /metrics and /slots evicts nothing. */
#include "daemon/daemon_priv.h"

#include <stdio.h>
#include <string.h>

/* llama.cpp's words for the pool's states and for what ends them. */
static const struct {
    const char *state, *status;
} statuses[] = {{"unloaded", "unloaded"}, {"planned", "loading"}, {"starting", "loading"},
                {"ready", "loaded"},      {"draining", "loaded"}, {"stopped", "unloaded"},
                {"sleeping", "sleeping"}, {"failed", "failed"}};

static const char *status_of(const char *state)
{
    for (size_t i = 0; state && i < TABLE_COUNT(statuses); i++)
        if (strcmp(statuses[i].state, state) == 0)
            return statuses[i].status;
    return "unloaded";
}

static void add_status(yyjson_mut_doc *doc, yyjson_mut_val *model, yyjson_mut_val *known)
{
    const char *value = status_of(yyjson_mut_get_str(yyjson_mut_obj_get(known, "state")));
    yyjson_mut_val *s = yyjson_mut_obj_add_obj(doc, model, "status");
    yyjson_mut_obj_add_str(doc, s, "value", value);
    if (strcmp(value, "failed") == 0) {
        yyjson_mut_val *error = yyjson_mut_obj_get(known, "last_error");
        yyjson_mut_obj_add_bool(doc, s, "failed", true);
        yyjson_mut_obj_add_val(doc, s, "error", yyjson_mut_val_mut_copy(doc, error));
    }
}

static void add_modalities(yyjson_mut_doc *doc, yyjson_mut_val *model, const struct pool_model *p)
{
    yyjson_mut_val *a = yyjson_mut_obj_add_obj(doc, model, "architecture");
    yyjson_mut_val *in = yyjson_mut_obj_add_arr(doc, a, "input_modalities");
    yyjson_mut_arr_add_str(doc, in, "text");
    if (p->files.mmproj)
        yyjson_mut_arr_add_str(doc, in, "image");
    yyjson_mut_arr_add_str(doc, yyjson_mut_obj_add_arr(doc, a, "output_modalities"), "text");
}

/* Rows in the order of the set; the pool's are sorted likewise, but it may hold other models during a reload.
 */
static void add_models(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *data)
{
    yyjson_mut_val *known = pool_models_json(d->pool, doc), *k = yyjson_mut_arr_get_first(known);
    size_t left = yyjson_mut_arr_size(known);
    for (size_t i = 0; i < d->set->n; i++) {
        const struct pool_model *p = &d->set->models[i];
        const char *id = NULL;
        while (left > 0 && (id = yyjson_mut_get_str(yyjson_mut_obj_get(k, "id"))) && strcmp(id, p->id) < 0) {
            k = k->next;
            left--;
        }
        yyjson_mut_val *o = model_set_json(d->set, i, doc);
        yyjson_mut_obj_add_str(doc, o, "path", p->path);
        add_status(doc, o, left > 0 && id && strcmp(id, p->id) == 0 ? k : NULL);
        add_modalities(doc, o, p);
        yyjson_mut_arr_append(data, o);
    }
}

/* The command lines of those that run. */
static void add_args(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *data)
{
    size_t i, n;
    yyjson_mut_val *v;
    yyjson_mut_arr_foreach(pool_json(d->pool, doc), i, n, v)
    {
        const char *model = yyjson_mut_get_str(yyjson_mut_obj_get(v, "model"));
        size_t at = model_set_index(d->set, str_from(model));
        yyjson_mut_val *status = yyjson_mut_obj_get(yyjson_mut_arr_get(data, at), "status");
        if (status && !yyjson_mut_obj_get(status, "args"))
            yyjson_mut_obj_add_val(doc, status, "args",
                                   yyjson_mut_val_mut_copy(doc, yyjson_mut_obj_get(v, "argv")));
    }
}

void router_models(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    char reload[8];
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    bool again = http_query(ex, "reload", reload, sizeof reload) && reload[0] && strcmp(reload, "0") != 0;
    d->doing = "GET /models";
    if (again && refused_to_page(ex)) {
        yyjson_mut_doc_free(doc);
        return;
    }
    if (again)
        reload_begin(d, false);
    yyjson_mut_val *data = yyjson_mut_obj_add_arr(doc, root, "data");
    add_models(d, doc, data);
    add_args(d, doc, data);
    leave_visible(ex, data);
    yyjson_mut_obj_add_str(doc, root, "object", "list");
    reply_doc(ex, doc);
}

/* ---- events ---- */

void router_events(void *daemon, struct http_exchange *ex)
{
    (void)listeners_add(daemon, ex, LISTEN_STATES, NULL, STR("retry: 2000\n\n"));
}

static const struct {
    const char *kind, *status; /* of a decision; what a model is from then on */
} turns[] = {{"load", "loading"},    {"ready", "loaded"}, {"evict", "unloaded"},
             {"unload", "unloaded"}, {"fail", "failed"},  {"crash", "failed"}};

void router_decision(struct daemon *d, const struct pool_decision *p)
{
    const char *status = NULL;
    for (size_t i = 0; i < TABLE_COUNT(turns); i++)
        if (strcmp(turns[i].kind, p->kind) == 0)
            status = turns[i].status;
    if (!status || !listeners_has(d, LISTEN_STATES, p->model, p->instance))
        return;
    struct buf event = {0};
    buf_puts(&event, "data: {\"model\":");
    buf_put_json(&event, str_from(p->model));
    buf_printf(&event, ",\"event\":\"model_status\",\"data\":{\"status\":\"%s\"}}\n\n", status);
    listeners_tell(d, LISTEN_STATES, p->model, p->instance, buf_str(&event));
    buf_release(&event);
}

/* ---- looks at an instance ---- */

static bool wants_load(const struct http_exchange *ex, bool fallback)
{
    char word[8];
    if (!http_query(ex, "autoload", word, sizeof word) || !word[0])
        return fallback;
    return strcmp(word, "true") == 0 || strcmp(word, "1") == 0;
}

/* Only one that has to be loaded is asked for as by a client that uses it. */
static void look(struct daemon *d, struct http_exchange *ex, const char *model, bool load)
{
    struct pool_lease lease;
    struct err err;
    bool loaded = model[0] && pool_observe(d->pool, str_from(model), &lease, &err);
    if (load && !loaded && refused_to_page(ex))
        return;
    http_forward(ex, &(struct http_forward){.model = str_from(model), .observe = loaded || !load});
}

bool router_look(struct daemon *d, struct http_exchange *ex)
{
    char model[256];
    if (!http_query(ex, "model", model, sizeof model))
        return false;
    look(d, ex, model, wants_load(ex, false));
    return true;
}

void router_slots(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    d->doing = "GET /slots";
    if (!router_look(d, ex))
        look(d, ex, "", false); /* the only model there is, or an error that says so */
}

/* What llama.cpp's page needs to know that it talks to a router. */
static void reply_own_props(struct http_exchange *ex)
{
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    yyjson_mut_obj_add_str(doc, root, "role", "router");
    yyjson_mut_obj_add_bool(doc, root, "models_autoload", true);
    yyjson_mut_obj_add_str(doc, root, "model_alias", "arriero");
    yyjson_mut_obj_add_str(doc, root, "model_path", "none");
    yyjson_mut_val *s = yyjson_mut_obj_add_obj(doc, root, "default_generation_settings");
    yyjson_mut_obj_add_obj(doc, s, "params");
    yyjson_mut_obj_add_uint(doc, s, "n_ctx", 0);
    yyjson_mut_obj_add_str(doc, root, "build_info", "arriero " ARRIERO_VERSION);
    reply_doc(ex, doc);
}

void router_props(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct pool_lease lease;
    struct err err;
    char model[256];
    d->doing = "GET /props";
    if (http_query(ex, "model", model, sizeof model))
        look(d, ex, model, wants_load(ex, true));
    else if (d->set->n == 1 && pool_observe(d->pool, str_from(d->set->models[0].id), &lease, &err))
        look(d, ex, d->set->models[0].id, false);
    else
        reply_own_props(ex);
}
