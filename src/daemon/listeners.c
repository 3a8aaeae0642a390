/* Clients that listen: to the decisions, or to the log of one model or instance. Layer daemon; loop thread.
 * One that reads too slowly is ended. */
#include "daemon/daemon_priv.h"

#include <string.h>

struct listener {
    struct daemon *d;
    struct http_exchange *ex;
    struct listener *next;
    char *of; /* a model or an instance; NULL = decisions */
};

static void listener_free(struct listener *l)
{
    struct listener **at = &l->d->listeners;
    while (*at && *at != l)
        at = &(*at)->next;
    if (*at) {
        *at = l->next;
        l->d->n_listeners--;
    }
    free(l->of);
    free(l);
}

static void on_gone(void *arg)
{
    listener_free(arg);
}

bool listeners_add(struct daemon *d, struct http_exchange *ex, const char *of, struct str first)
{
    struct err err;
    if (d->stopping || d->n_listeners >= DAEMON_LISTENERS_MAX) {
        err.code = d->stopping ? err_set(&err, RC_BUSY, "the daemon is stopping")
                               : err_set(&err, RC_BUSY, "%d listeners are the limit", DAEMON_LISTENERS_MAX);
        http_reply_err(ex, &err, 5);
        return false;
    }
    struct listener *l = mem_new(struct listener);
    *l = (struct listener){.d = d, .ex = ex, .of = of ? mem_strdup(of) : NULL};
    http_stream_start(ex, 200, "text/event-stream");
    http_on_abort(ex, on_gone, l);
    if (!http_stream_write(ex, first)) {
        listener_free(l);
        http_stream_end(ex);
        return false;
    }
    l->next = d->listeners;
    d->listeners = l;
    d->n_listeners++;
    return true;
}

static bool is_of(const struct listener *l, const char *model, const char *instance)
{
    if (!l->of || !model)
        return !l->of && !model;
    return strcmp(l->of, model) == 0 || strcmp(l->of, instance) == 0;
}

bool listeners_has(const struct daemon *d, const char *model, const char *instance)
{
    const struct listener *l = d->listeners;
    while (l && !is_of(l, model, instance))
        l = l->next;
    return l != NULL;
}

void listeners_tell(struct daemon *d, const char *model, const char *instance, struct str event)
{
    for (struct listener *l = d->listeners, *next; l; l = next) {
        next = l->next;
        if (is_of(l, model, instance) && !http_stream_write(l->ex, event)) {
            struct http_exchange *ex = l->ex;
            listener_free(l);
            http_stream_end(ex);
        }
    }
}

void listeners_end(struct daemon *d)
{
    while (d->listeners) {
        struct http_exchange *ex = d->listeners->ex;
        listener_free(d->listeners);
        http_stream_end(ex);
    }
}

/* ---- logs ---- */

void listeners_line(void *daemon, const char *model, const char *instance, struct str line)
{
    struct daemon *d = daemon;
    if (!listeners_has(d, model, instance))
        return;
    struct buf event = {0};
    buf_puts(&event, "event: line\ndata: {\"instance\":");
    buf_put_json(&event, str_from(instance));
    buf_puts(&event, ",\"line\":");
    buf_put_json(&event, line);
    buf_puts(&event, "}\n\n");
    listeners_tell(d, model, instance, buf_str(&event));
    buf_release(&event);
}

void listeners_follow(struct daemon *d, struct http_exchange *ex, struct str id)
{
    struct str tail = STR("");
    struct err err;
    const char *model = pool_resolve(d->pool, id);
    if (pool_log(d->pool, id, &tail, &err) != RC_OK && !model) {
        http_reply_err(ex, &err, 0);
        return;
    }
    auto_free char *of = model ? mem_strdup(model) : mem_strndup(id.p, id.n);
    struct buf event = {0};
    buf_puts(&event, "event: log\ndata: {\"log\":");
    buf_put_json(&event, tail);
    buf_puts(&event, "}\n\n");
    (void)listeners_add(d, ex, of, buf_str(&event));
    buf_release(&event);
}
