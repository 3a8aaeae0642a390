/* The control API. Layer daemon; loop thread; reads of the history on the work pool.
 *
 * An answer that the pool gives later is a struct later: it lives until both the command has ended and the
 * exchange is answered or gone. */
#include "daemon/daemon_priv.h"

#include <stdio.h>
#include <string.h>

#define PLAN_TRIES    300
#define PLAN_RETRY_MS 50

/* ---- answers that come later ---- */

struct later {
    struct daemon *d;
    struct http_exchange *ex; /* NULL once the client is gone */
    char model[256];
    /* of a plan */
    uv_timer_t timer;
    struct buf body;
    unsigned tries; /* left */
};

static void on_gone(void *arg)
{
    ((struct later *)arg)->ex = NULL;
}

static struct later *later_new(struct daemon *d, struct http_exchange *ex)
{
    struct later *l = mem_new(struct later);
    l->d = d;
    l->ex = ex;
    http_on_abort(ex, on_gone, l);
    return l;
}

static void later_free(struct later *l)
{
    buf_release(&l->body);
    free(l);
}

/* ---- views ---- */

void api_gpus(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    d->doing = "GET gpus";
    yyjson_mut_val *machine = roles_machine_json(d->config, sampler_latest(d->sampler), doc);
    levels_put(d, doc, machine);
    yyjson_mut_doc_set_root(doc, machine);
    reply_doc(ex, doc);
}

void api_models(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    char model[256];
    d->doing = "GET models";
    if (http_query(ex, "model", model, sizeof model) && !pool_resolve(d->pool, str_from(model))) {
        yyjson_mut_doc_free(doc);
        reply_unknown_model(d, ex, str_from(model));
        return;
    }
    yyjson_mut_obj_add_val(doc, root, "models", pool_models_json(d->pool, doc));
    reply_doc(ex, doc);
}

void api_instances(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    d->doing = "GET instances";
    yyjson_mut_obj_add_val(doc, root, "instances", pool_json(d->pool, doc));
    yyjson_mut_obj_add_val(doc, root, "upstreams", remote_set_json(d->remotes, doc));
    reply_doc(ex, doc);
}

void api_rebalance(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    d->doing = "GET rebalance";
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, pool_rebalance(d->pool, doc));
    reply_doc(ex, doc);
}

void api_config(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, config_json(d->config, doc, true));
    reply_doc(ex, doc);
}

static void reply_invalid(struct http_exchange *ex, const char *message, const char *hint)
{
    struct err err;
    err.code = err_set(&err, RC_INVALID, "%s", message);
    err_hint(&err, "%s", hint);
    http_reply_err(ex, &err, 0);
}

void api_logs(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    char id[256], follow[4];
    struct str tail;
    struct err err;
    if (!http_query(ex, "id", id, sizeof id) || !id[0]) {
        reply_invalid(ex, "no id is given", "add ?id= and a model or an instance");
        return;
    }
    if (http_query(ex, "follow", follow, sizeof follow) && strcmp(follow, "1") == 0) {
        listeners_follow(d, ex, LISTEN_LINES, str_from(id), true);
        return;
    }
    if (pool_log(d->pool, str_from(id), &tail, &err) != RC_OK) {
        http_reply_err(ex, &err, 0);
        return;
    }
    struct buf out = {0};
    buf_puts(&out, "{\"log\":");
    buf_put_json(&out, tail);
    buf_puts(&out, "}");
    http_reply(ex, 200, "application/json", buf_str(&out));
    buf_release(&out);
}

/* ---- history ---- */

typedef enum rc (*history_fn)(struct store *s, struct str model, unsigned limit, struct buf *out,
                              struct err *err);

struct history {
    struct store *store;
    history_fn read;
    const char *member; /* of the answer's object */
    char model[256];
    unsigned limit;
};

static enum rc read_history(void *arg, struct buf *out, struct err *err)
{
    const struct history *h = arg;
    buf_printf(out, "{\"%s\":", h->member);
    enum rc rc = h->read(h->store, str_from(h->model), h->limit, out, err);
    buf_puts(out, "}");
    return rc;
}

static void history(struct daemon *d, struct http_exchange *ex, history_fn read, const char *member)
{
    char limit[16], model[256] = "";
    uint64_t n = 100;
    (void)http_query(ex, "model", model, sizeof model);
    if (http_query(ex, "limit", limit, sizeof limit) && (!str_u64(str_from(limit), &n) || n > 10000)) {
        reply_invalid(ex, "limit is not a number up to 10000", "?limit=100");
        return;
    }
    struct history *h = mem_new(struct history);
    *h = (struct history){.store = d->store, .read = read, .member = member, .limit = (unsigned)n};
    const char *known = model[0] ? pool_resolve(d->pool, str_from(model)) : NULL;
    snprintf(h->model, sizeof h->model, "%s", known ? known : model);
    background_answer(d, ex, read_history, h);
}

void api_decisions(void *daemon, struct http_exchange *ex)
{
    history(daemon, ex, store_decisions_json, "decisions");
}

void api_measures(void *daemon, struct http_exchange *ex)
{
    history(daemon, ex, store_measures_json, "measures");
}

void api_history(void *daemon, struct http_exchange *ex)
{
    history(daemon, ex, store_instances_json, "instances");
}

/* ---- commands ---- */

/* The body as an object, and its "model". False: answered with an error. */
static bool body_of(struct http_exchange *ex, bool need_model, yyjson_doc **ret_doc, struct str *ret_model)
{
    yyjson_doc *doc = NULL;
    if (!body_read(ex, &doc))
        return false;
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct str model = json_str(root, "model", STR(""));
    if (!yyjson_is_obj(root) || (need_model && model.n == 0)) {
        yyjson_doc_free(doc);
        reply_invalid(ex, "the body names no model", "send {\"model\": \"ID\"}");
        return false;
    }
    *ret_doc = doc;
    *ret_model = model;
    return true;
}

static void on_done(void *arg, enum rc rc, const struct err *err)
{
    struct later *l = arg;
    if (l->ex && rc == RC_OK) {
        yyjson_mut_val *root;
        yyjson_mut_doc *doc = doc_new(&root);
        yyjson_mut_obj_add_bool(doc, root, "success", true);
        yyjson_mut_obj_add_strcpy(doc, root, "model", l->model);
        reply_doc(l->ex, doc);
    } else if (l->ex) {
        http_reply_err(l->ex, err, 0);
    }
    later_free(l);
}

static struct later *command(struct daemon *d, struct http_exchange *ex, struct str model)
{
    struct later *l = later_new(d, ex);
    const char *known = pool_resolve(d->pool, model);
    snprintf(l->model, sizeof l->model, "%.*s", known ? (int)strlen(known) : (int)model.n,
             known ? known : model.p);
    return l;
}

void api_load(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *doc;
    struct str model;
    d->doing = "POST load";
    if (!body_of(ex, true, &doc, &model))
        return;
    pool_load(d->pool, model, on_done, command(d, ex, model));
    yyjson_doc_free(doc);
}

void api_unload(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *doc;
    struct str model;
    d->doing = "POST unload";
    if (!body_of(ex, false, &doc, &model))
        return;
    /* "" means all, and must be meant: a forgotten member is no order to stop everything. */
    if (model.n == 0 && !yyjson_is_str(yyjson_obj_get(yyjson_doc_get_root(doc), "model")))
        reply_invalid(ex, "the body names no model", "send {\"model\": \"ID\"}, or \"\" for all of them");
    else
        pool_unload(d->pool, model, json_bool(yyjson_doc_get_root(doc), "force", false), on_done,
                    command(d, ex, model));
    yyjson_doc_free(doc);
}

void api_pin(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *doc;
    struct str model;
    struct err err;
    if (!body_of(ex, true, &doc, &model))
        return;
    bool on = json_bool(yyjson_doc_get_root(doc), "on", true);
    if (pool_pin(d->pool, model, on, &err) != RC_OK) {
        http_reply_err(ex, &err, 0);
    } else {
        yyjson_mut_val *root;
        yyjson_mut_doc *out = doc_new(&root);
        yyjson_mut_obj_add_bool(out, root, "success", true);
        json_add_str(out, root, "model", model);
        yyjson_mut_obj_add_bool(out, root, "pinned", on);
        reply_doc(ex, out);
    }
    yyjson_doc_free(doc);
}

void api_reset(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *doc;
    struct str model;
    struct err err;
    uint32_t n = 0;
    d->doing = "POST reset";
    if (!body_of(ex, false, &doc, &model))
        return;
    if (pool_forgive(d->pool, model, &n, &err) != RC_OK) {
        http_reply_err(ex, &err, 0);
    } else {
        yyjson_mut_val *root;
        yyjson_mut_doc *out = doc_new(&root);
        yyjson_mut_obj_add_bool(out, root, "success", true);
        json_add_str(out, root, "model", model);
        yyjson_mut_obj_add_uint(out, root, "reset", n);
        reply_doc(ex, out);
    }
    yyjson_doc_free(doc);
}

/* Members of the body that stand for settings of a model are read like those of the configuration. */
static enum rc policy_of(struct daemon *d, yyjson_val *root, struct str model, struct plan_policy *ret,
                         bool *ret_any, struct err *err)
{
    const char *known = pool_resolve(d->pool, model);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *outer = yyjson_mut_obj(doc), *models = yyjson_mut_obj(doc);
    yyjson_mut_val *own = yyjson_val_mut_copy(doc, root);
    yyjson_mut_doc_set_root(doc, outer);
    yyjson_mut_obj_remove_key(own, "model");
    *ret_any = yyjson_mut_obj_size(own) > 0;
    yyjson_mut_obj_add_val(doc, models, "m", own);
    yyjson_mut_obj_add_val(doc, outer, "models", models);
    struct buf text = {0};
    struct config *c = NULL;
    enum rc rc = json_write(doc, false, &text, err);
    if (rc == RC_OK)
        rc = config_parse(buf_str(&text), "body", &c, err);
    buf_release(&text);
    yyjson_mut_doc_free(doc);
    if (rc != RC_OK)
        return rc;
    /* What the body leaves open comes from the model's own settings. */
    struct config_model m = c->models[0].m;
    const struct config_model *base = config_model_for(d->config, str_from(known ? known : ""));
    config_model_inherit(&m, base);
    model_set_policy(&m, ret);
    if (ret->device)
        ret->device = mem_strdup(ret->device); /* outlives c; freed by the caller */
    config_free(c);
    return RC_OK;
}

/* Answers, or returns false when the pool does not know yet what the runtime can do. */
static bool plan_answer(struct later *l, bool last)
{
    struct daemon *d = l->d;
    yyjson_doc *body;
    struct str model;
    struct err err;
    struct plan_policy policy;
    bool any = false;
    if (json_parse(buf_str(&l->body), "the request's body", &body, &err) != RC_OK) {
        http_reply_err(l->ex, &err, 0);
        return true;
    }
    yyjson_val *root = yyjson_doc_get_root(body);
    model = json_str(root, "model", STR(""));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *plan = NULL;
    enum rc rc = policy_of(d, root, model, &policy, &any, &err);
    if (rc == RC_OK) {
        rc = pool_plan(d->pool, model, any ? &policy : NULL, doc, &plan, &err);
        free((void *)(uintptr_t)policy.device);
    }
    yyjson_doc_free(body);
    bool answered = rc != RC_BUSY || last;
    if (rc == RC_OK) {
        yyjson_mut_doc_set_root(doc, plan);
        reply_doc(l->ex, doc);
        return true;
    }
    yyjson_mut_doc_free(doc);
    if (answered)
        http_reply_err(l->ex, &err, 1);
    return answered;
}

static void on_plan_closed(uv_handle_t *h)
{
    later_free(h->data);
}

static void on_plan_timer(uv_timer_t *t)
{
    struct later *l = t->data;
    l->d->doing = "POST plan";
    if (l->ex && !l->d->stopping && !plan_answer(l, l->tries == 0)) {
        l->tries--;
        return;
    }
    if (l->ex && l->d->stopping)
        (void)plan_answer(l, true);
    uv_close((uv_handle_t *)t, on_plan_closed);
}

void api_plan(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_doc *body;
    struct str model;
    d->doing = "POST plan";
    if (!body_of(ex, true, &body, &model))
        return;
    yyjson_doc_free(body);
    struct later *l = later_new(d, ex);
    buf_put_str(&l->body, http_body(ex));
    if (plan_answer(l, false)) {
        later_free(l);
        return;
    }
    /* Right after the start the runtime is still being probed: ask again until it is known. */
    l->tries = PLAN_TRIES;
    uv_timer_init(d->loop, &l->timer);
    l->timer.data = l;
    uv_timer_start(&l->timer, on_plan_timer, PLAN_RETRY_MS, PLAN_RETRY_MS);
}

void api_reload(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    reload_begin(d, false);
    http_reply(ex, 202, "application/json", STR("{\"success\":true}"));
}
