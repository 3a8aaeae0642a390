/* llama-swap's endpoints: what runs, unloading, any path of an instance under /upstream/MODEL/, logs as text.
 * Layer daemon; loop thread. */
#include "daemon/daemon_priv.h"

#include <string.h>

/* ---- what runs ---- */

static const struct {
    const char *state, *swap_state;
} states[] = {
    {"planned", "starting"}, {"starting", "starting"}, {"ready", "ready"}, {"draining", "stopping"}};

static const char *swap_state(const char *state)
{
    for (size_t i = 0; state && i < TABLE_COUNT(states); i++)
        if (strcmp(states[i].state, state) == 0)
            return states[i].swap_state;
    return NULL; /* not listed */
}

/* A command line that a shell reads as these words. */
static void put_command(struct buf *out, yyjson_mut_val *argv)
{
    static const char plain[] = "%+,-./:=@_";
    size_t i, n;
    yyjson_mut_val *v;
    yyjson_mut_arr_foreach(argv, i, n, v)
    {
        const char *word = yyjson_mut_get_str(v);
        bool quoted = !*word;
        for (const char *p = word; *p && !quoted; p++)
            quoted = !(strchr(plain, *p) || (*p >= '0' && *p <= '9') ||
                       ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z'));
        buf_puts(out, i ? " " : "");
        buf_puts(out, quoted ? "'" : "");
        for (const char *p = word; *p; p++)
            if (*p == '\'')
                buf_puts(out, "'\\''");
            else
                buf_append(out, p, 1);
        buf_puts(out, quoted ? "'" : "");
    }
}

static void add_running(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list, yyjson_mut_val *instance)
{
    const char *state = swap_state(yyjson_mut_get_str(yyjson_mut_obj_get(instance, "state")));
    const char *model = yyjson_mut_get_str(yyjson_mut_obj_get(instance, "model"));
    size_t at = model_set_index(d->set, str_from(model));
    const struct catalog_entry *e = at == SIZE_MAX ? NULL : d->set->entries[at];
    struct buf cmd = {0}, proxy = {0};
    if (!state)
        return;
    put_command(&cmd, yyjson_mut_obj_get(instance, "argv"));
    buf_printf(&proxy, "http://127.0.0.1:%llu",
               (unsigned long long)yyjson_mut_get_uint(yyjson_mut_obj_get(instance, "port")));
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    yyjson_mut_obj_add_strcpy(doc, o, "model", model);
    yyjson_mut_obj_add_str(doc, o, "state", state);
    json_add_str(doc, o, "cmd", buf_str(&cmd));
    json_add_str(doc, o, "proxy", buf_str(&proxy));
    yyjson_mut_obj_add_uint(doc, o, "ttl", at == SIZE_MAX ? 0 : d->set->models[at].ttl_ms / 1000);
    yyjson_mut_obj_add_str(doc, o, "name", e ? e->model->name : "");
    yyjson_mut_obj_add_str(doc, o, "description", "");
    buf_release(&cmd);
    buf_release(&proxy);
}

void swap_running(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    size_t i, n;
    yyjson_mut_val *root, *v;
    yyjson_mut_doc *doc = doc_new(&root);
    d->doing = "GET /running";
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "running");
    yyjson_mut_arr_foreach(pool_json(d->pool, doc), i, n, v) add_running(d, doc, list, v);
    reply_doc(ex, doc);
}

/* ---- unloading ---- */

struct unloading {
    struct http_exchange *ex; /* NULL once the client is gone */
    bool json;
};

static void on_gone(void *arg)
{
    ((struct unloading *)arg)->ex = NULL;
}

static void on_unloaded(void *arg, enum rc rc, const struct err *err)
{
    struct unloading *u = arg;
    if (u->ex && rc != RC_OK)
        http_reply_err(u->ex, err, 0);
    else if (u->ex && u->json)
        http_reply(u->ex, 200, "application/json", STR("{\"msg\":\"ok\"}"));
    else if (u->ex)
        http_reply(u->ex, 200, "text/plain; charset=utf-8", STR("OK"));
    free(u);
}

/* What follows a prefix of the path; empty if the path is shorter. */
static struct str path_behind(const struct http_exchange *ex, const char *prefix)
{
    struct str path = http_path(ex);
    size_t n = strlen(prefix);
    return path.n > n ? (struct str){path.p + n, path.n - n} : STR("");
}

void swap_unload(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    d->doing = "unload";
    if (!str_eq(http_method(ex), STR("POST")) && refused_to_page(ex)) /* HEAD comes here, too */
        return;
    struct unloading *u = mem_new(struct unloading);
    u->ex = ex;
    u->json = str_eq(http_path(ex), STR("/api/models/unload"));
    http_on_abort(ex, on_gone, u);
    pool_unload(d->pool, path_behind(ex, "/api/models/unload/"), false, on_unloaded, u);
}

/* ---- an instance as it is ---- */

/* The longest beginning of text, up to a slash or the end, that is a model's name. Ids hold slashes, too. */
static struct str model_at(const struct daemon *d, struct str text)
{
    for (size_t n = text.n; n > 0; n--)
        if ((n == text.n || text.p[n] == '/') && pool_resolve(d->pool, (struct str){text.p, n}))
            return (struct str){text.p, n};
    return STR("");
}

/* To the same path with a slash at its end: from there relative links of an answer lead back here. */
static void redirect_to_folder(struct http_exchange *ex)
{
    struct str query = http_target(ex), path = str_cut(&query, '?');
    bool safe = str_eq(http_method(ex), STR("GET")) || str_eq(http_method(ex), STR("HEAD"));
    struct buf to = {0};
    buf_printf(&to, "%.*s/%s%.*s", STR_ARG(path), query.n ? "?" : "", STR_ARG(query));
    http_redirect(ex, safe ? 301 : 308, buf_str(&to));
    buf_release(&to);
}

void swap_upstream(void *daemon, struct http_exchange *ex)
{
    static const char prefix[] = "/upstream/";
    struct daemon *d = daemon;
    struct str rest = path_behind(ex, prefix), model = model_at(d, rest);
    struct pool_lease lease;
    struct err err;
    d->doing = "upstream";
    if (!model.n)
        reply_unknown_model(d, ex, rest);
    else if (model.n == rest.n)
        redirect_to_folder(ex);
    else if (pool_observe(d->pool, model, &lease, &err) || !refused_to_page(ex))
        http_forward(ex, &(struct http_forward){.model = str_from(pool_resolve(d->pool, model)),
                                                .skip = sizeof prefix - 1 + model.n});
}

/* ---- logs ---- */

static void put_logs(const struct daemon *d, struct buf *out)
{
    struct str tail;
    struct err err;
    for (size_t i = 0; i < d->set->n; i++) {
        const char *id = d->set->models[i].id;
        if (pool_log(d->pool, str_from(id), &tail, &err) != RC_OK || !tail.n)
            continue;
        buf_printf(out, "%s==> %s <==\n%.*s%s", out->n ? "\n" : "", id, STR_ARG(tail),
                   str_ends(tail, "\n") ? "" : "\n");
    }
}

void swap_logs(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct buf out = {0};
    d->doing = "GET /logs";
    put_logs(d, &out);
    http_reply(ex, 200, "text/plain; charset=utf-8", buf_str(&out));
    buf_release(&out);
}

/* "" and "upstream" are all instances, "proxy" is what the daemon decides, anything else a model. */
void swap_log_stream(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    struct str id = path_behind(ex, "/logs/stream/");
    char unused[8];
    bool history = !http_query(ex, "no-history", unused, sizeof unused);
    struct buf first = {0};
    d->doing = "GET /logs/stream";
    if (str_eq(id, STR("proxy"))) {
        (void)listeners_add(d, ex, LISTEN_OWN_TEXT, NULL, STR(""));
    } else if (id.n && !str_eq(id, STR("upstream"))) {
        listeners_follow(d, ex, LISTEN_TEXT, id, history);
    } else {
        if (history)
            put_logs(d, &first);
        (void)listeners_add(d, ex, LISTEN_ALL_TEXT, NULL, buf_str(&first));
    }
    buf_release(&first);
}
